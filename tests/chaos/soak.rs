// SPDX-License-Identifier: Apache-2.0
//! An hour at work on a machine that is busy: nothing grows, nothing stops without a cause, no ping is late.
//!
//!     cargo test --release --test chaos soak -- --ignored --nocapture
//!
//! `TENDON_SOAK_S` is how long, `TENDON_SOAK_BURNERS` how many threads burn the processor beside it (one a core).

use crate::canary::{STALL_NS, alone};
use crate::service::{WATCHDOG_MS, setting, times};
use crate::stage::{Stage, ms, until};
use std::process::Child;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use tendon::bench::process::{Answer, Request};
use tendon::core::units::MS;
use tendon::link::keys;
use tendon::runtime::{clock, demo};

/// Between two looks.
const LOOK_MS: u64 = 5_000;
/// Short stops that add up are told of within so long, twice what a motor controller waits for; they explain nothing.
const TOGETHER_NS: u64 = 40 * MS;
/// Looks at one scene, if the task is not done before.
const LOOKS_A_SCENE: u32 = 2;

fn asked(name: &str, default: u64) -> u64 {
    let said = std::env::var(name).ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Resident memory in KiB and number of threads.
fn size(child: &Child) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it runs");
    let number = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key));
        let word = line.and_then(|line| line.split_whitespace().nth(1));
        word.and_then(|word| word.parse().ok()).expect(key)
    };
    (number("VmRSS:"), number("Threads:"))
}

/// The machine's load average of a minute, in hundredths.
fn load_percent() -> u64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let word = text.split_whitespace().next().unwrap_or_default();
    word.parse::<f64>()
        .map_or(0, |load| (load * 100.0).round() as u64)
}

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}

fn answer(stage: &Stage, request: &Request) -> Result<Answer, String> {
    let text = stage.ask_bench(request)?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// A task in a new scene, with the arm at home, as somebody would begin it: stop, scene, sentence, arm.
fn begin_anew(stage: &mut Stage, seed: u64) {
    drop(stage.ask(keys::mode, "stop"));
    let mut sentence = String::new();
    until("a scene", || {
        // Refused until the motor controller follows nothing any more.
        drop(stage.ask(keys::mode, "reset"));
        let set = answer(stage, &Request::Set(demo::scene(seed)));
        set.is_ok_and(|set| {
            sentence = set.sentence;
            true
        })
    });
    stage.until_granted(keys::instruction, &sentence);
    stage.until_granted(keys::mode, "active");
}

#[test]
#[ignore = "an hour"]
fn soak() {
    let _alone = alone();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let burners = asked("TENDON_SOAK_BURNERS", cores as u64);
    let ending = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..burners {
            let ending = &ending;
            scope.spawn(move || {
                let mut number = seed + 1;
                while !ending.load(Ordering::Relaxed) {
                    number = std::hint::black_box(number.wrapping_mul(6_364_136_223_846_793_005));
                }
            });
        }
        // Also when it fails: the burners are waited for.
        let judged = std::panic::catch_unwind(|| watch(asked("TENDON_SOAK_S", 3_600)));
        ending.store(true, Ordering::Relaxed);
        if let Err(failed) = judged {
            std::panic::resume_unwind(failed);
        }
    });
}

fn watch(seconds: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let (setting, heard) = setting(folder.path(), "notify", None);
    let mut stage = Stage::new(&setting);
    let start = clock::now();
    let (mut runtime, mut bench, mut load) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unexplained, mut explained, mut moved, mut looks) = (Vec::new(), 0_u32, 0_u32, 0_u32);
    let (mut scenes, mut done, mut begun_at_look) = (0_u32, 0_u32, 0_u32);
    let mut looked = start;
    while clock::now().since_ns(start) < seconds * 1_000 * MS {
        demo::pause(LOOK_MS);
        let now = clock::now();
        looks += 1;
        runtime.push(size(&stage.runtime));
        bench.push(size(&stage.bench));
        load.push(load_percent());
        let said = stage
            .ask(keys::mode, "status")
            .unwrap_or_else(|error| error);
        if !said.starts_with("active") {
            let stall_ns = stage.canary.longest_ns(looked, now);
            println!(
                "{:.0} s: {said}; a core stood still for {:.1} ms at a stretch, one or another for {:.1} of {:.0} ms",
                ms(now.since_ns(start)) / 1e3,
                ms(stall_ns),
                ms(stage.canary.most_within_ns(looked, now, TOGETHER_NS)),
                ms(TOGETHER_NS)
            );
            if stall_ns >= STALL_NS {
                explained += 1;
            } else {
                unexplained.push(said.clone());
            }
        }
        let mut reports = stage.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let moves = |report: &tendon::core::wire::state::Report| {
            report.state.velocity.iter().any(|v| v.abs() > 0.05)
        };
        moved += u32::from(reports.iter().any(moves));
        // An hour of them would be the growth that is looked for.
        reports.clear();
        drop(reports);
        let stands = answer(&stage, &Request::Report).expect("the bench robot answers");
        assert_eq!(stands.limit_violations, 0, "{stands:?}");
        // What happens while it is armed anew belongs to the next look.
        looked = clock::now();
        let over = stands.outcome.over || looks - begun_at_look >= LOOKS_A_SCENE;
        if over || !said.starts_with("active") {
            done += u32::from(stands.outcome.named_done);
            scenes += 1;
            begun_at_look = looks;
            begin_anew(&mut stage, u64::from(scenes));
        }
    }
    until("a last report", || {
        let reports = stage.reports.lock().unwrap_or_else(PoisonError::into_inner);
        !reports.is_empty()
    });
    let pings = times(&heard, "WATCHDOG=1");
    let gaps = pings.windows(2).map(|pair| {
        let gap_ns = pair[1].since_ns(pair[0]);
        gap_ns.saturating_sub(stage.canary.stall_ns(pair[0], pair[1]))
    });
    let gap_ns = gaps.max().expect("pings");
    let quarter = runtime.len() / 4;
    let rss = |of: &[(u64, u64)]| median(of.iter().map(|(kib, _)| *kib).collect());
    for (name, sizes) in [("runtime", &runtime), ("bench robot", &bench)] {
        let (early, late) = (
            rss(&sizes[quarter..2 * quarter]),
            rss(&sizes[3 * quarter..]),
        );
        println!("{name}: {early} KiB in the second quarter, {late} KiB in the last");
        // The bench takes another of malloc's arenas, eight megabytes, now and then when a scene is set.
        let room = if name == "runtime" { 1_024 } else { 32_768 };
        assert!(late <= early + early / 50 + room, "{name} grows");
    }
    println!(
        "{seconds} s, load average {:.1}: {looks} looks, the arm moved before {moved} of them, {done} of {scenes} tasks done; stops because the machine stood still: {explained}, others: {unexplained:?}; longest time between two pings {:.0} ms of {WATCHDOG_MS}",
        median(load) as f64 / 100.0,
        ms(gap_ns)
    );
    assert!(gap_ns < WATCHDOG_MS * MS, "a ping was late");
    // Somebody else who asks meanwhile brings a connection, and the link its threads.
    for (name, sizes) in [("runtime", &runtime), ("bench robot", &bench)] {
        let threads: Vec<u64> = sizes[quarter..].iter().map(|(_, count)| *count).collect();
        assert_eq!(
            threads.iter().min(),
            threads.iter().max(),
            "{name}: threads come and go"
        );
    }
    assert!(unexplained.is_empty(), "{unexplained:?}: {}", stage.log());
    assert!(moved * 10 >= looks * 8, "the arm was to be at work");
}
