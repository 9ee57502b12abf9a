// SPDX-License-Identifier: Apache-2.0
//! An hour at work on a machine that is busy: nothing grows, no stop is late or without a cause, no command and no ping is
//! late.
//!
//!     cargo test --release --test chaos soak -- --ignored --nocapture
//!
//! `TENDON_SOAK_S` is how long, `TENDON_SOAK_BURNERS` how many threads burn the processor beside it (one a core).
//!
//! A motor controller that hears nothing for 20 ms stops, as it should, when the machine stands still for most of that, and
//! so does the runtime when a thread that moves the robot is late for it. How long the machine did is measured in just that
//! time, and what is left of it is ours: three ticks at most, of which one is the time between two commands anyway. That the runtime sent each command in its tick is looked at by itself, by the commands' own
//! stamps, whoever received them when.

use crate::canary::alone;
use crate::service::{WATCHDOG_MS, setting, times};
use crate::stage::{Sent, Shared, Silence, Stage, longest_gap_ns, ms, until};
use crate::{SILENCE_MS, TICK_MS, WATCH_MS};
use std::process::Child;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use tendon::bench::process::{Answer, Request};
use tendon::core::units::{MS, Mono};
use tendon::core::wire::state::{MotorMode, Report};
use tendon::link::keys;
use tendon::runtime::{clock, demo};

/// Between two looks.
const LOOK_MS: u64 = 5_000;
/// Silence before a stop for which the machine is not to blame.
const OURS_MAX_NS: u64 = 3 * TICK_MS * MS;
/// Time between two commands for which the machine is not to blame: the tick, and being late by as much.
const GAP_MAX_NS: u64 = 2 * TICK_MS * MS;
/// A thread that moves the robot is late after three ticks and 5 ms, and the watchdog looks each 10 ms.
const LATE_NS: u64 = (3 * TICK_MS + 5 + WATCH_MS) * MS;
/// A state that was measured before the arm was put home has come by then, or the link is not alive.
const SETTLED_NS: u64 = 200 * MS;
/// Reports that are kept from one look to the next, for what a stop at its begin was preceded by.
const REPORTS_KEPT: usize = 200;
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

/// All that came since and the last `kept` from before, which stay once more.
fn taken<T: Clone>(shared: &Shared<T>, kept: usize) -> Vec<T> {
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    let all = shared.clone();
    let old = shared.len().saturating_sub(kept);
    shared.drain(..old);
    all
}

/// Whether it stopped over the arm that was put home, within the time in which that is seen.
fn jumped(stage: &Stage) -> bool {
    let armed = clock::now();
    while clock::now().since_ns(armed) < SETTLED_NS {
        demo::pause(20);
        if stage.jumped() {
            return true;
        }
    }
    false
}

/// A task in a new scene, with the arm at home, as somebody would begin it: stop, scene, sentence, arm. And again from the
/// beginning, if the machine stands still over it.
fn begin_anew(stage: &Stage, seed: u64) {
    drop(stage.ask(keys::mode, "stop"));
    until("a task begun anew", || {
        // Refused until the motor controller follows nothing any more.
        drop(stage.ask(keys::mode, "reset"));
        let Ok(scene) = answer(stage, &Request::Set(demo::scene(seed))) else {
            return false;
        };
        let told = stage.ask(keys::instruction, &scene.sentence);
        told.is_ok() && stage.ask(keys::mode, "active").is_ok() && !jumped(stage)
    });
}

/// The motor controller's own stops among the reports after `judged`.
pub fn stops(reports: &[Report], judged: Mono) -> Vec<Silence> {
    let pairs = reports.windows(2).enumerate().filter(|(_, pair)| {
        let stops = pair[0].mode == MotorMode::Following && pair[1].mode == MotorMode::Stopped;
        stops && pair[1].state.measured > judged
    });
    pairs
        .map(|(at, _)| Silence::before(reports, at + 1))
        .collect()
}

/// When the runtime last began to hold for another cause than before.
fn last_held(commands: &[Sent]) -> Option<Mono> {
    let turns = |pair: &&[Sent]| pair[1].held && pair[1].verdict != pair[0].verdict;
    commands.windows(2).rfind(turns).map(|pair| pair[1].at)
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
    let stage = Stage::new(&setting);
    let start = clock::now();
    let (mut runtime, mut bench, mut load) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unexplained, mut explained, mut moved, mut looks) = (Vec::new(), 0_u32, 0_u32, 0_u32);
    let (mut scenes, mut done, mut begun_at_look) = (0_u32, 0_u32, 0_u32);
    let (mut gap_most_ns, mut commands) = (0, 0);
    // What the newest report looked at was measured at.
    let mut judged = start;
    while clock::now().since_ns(start) < seconds * 1_000 * MS {
        demo::pause(LOOK_MS);
        looks += 1;
        runtime.push(size(&stage.runtime));
        bench.push(size(&stage.bench));
        load.push(load_percent());
        let said = stage
            .ask(keys::mode, "status")
            .unwrap_or_else(|error| error);
        if !said.starts_with("active") {
            // The report of it may be on its way.
            demo::pause(50);
        }
        // An hour of them would be the growth that is looked for.
        let sent = taken(&stage.commands, 0);
        commands += sent.len();
        gap_most_ns = gap_most_ns.max(longest_gap_ns(&sent, &stage.canary));
        let reports = taken(&stage.reports, REPORTS_KEPT);
        let stopped = stops(&reports, judged);
        let at_s = ms(clock::now().since_ns(start)) / 1e3;
        for silence in &stopped {
            silence.in_time(&format!("{at_s:.0} s"), SILENCE_MS, &stage.canary);
            let stall_ns = stage.canary.any_ns(silence.before_heard, silence.stopped);
            let ours_ns = silence.most_ns().saturating_sub(stall_ns);
            println!(
                "{at_s:.0} s: the machine stood still for {:.1} ms of it, the rest is {:.1}",
                ms(stall_ns),
                ms(ours_ns)
            );
            if ours_ns <= OURS_MAX_NS {
                explained += 1;
            } else {
                unexplained.push(format!("{at_s:.0} s: {silence:?}"));
            }
        }
        if stopped.is_empty() && !said.starts_with("active") {
            // The runtime's own doing.
            let held = last_held(&sent).unwrap_or(judged);
            let stall_ns = stage.canary.any_ns(held.minus_ns(LATE_NS), held);
            println!(
                "{at_s:.0} s: {said}, at {:.3} s; the machine stood still for {:.1} of {:.0} ms before it",
                ms(held.since_ns(start)) / 1e3,
                ms(stall_ns),
                ms(LATE_NS)
            );
            if LATE_NS.saturating_sub(stall_ns) <= OURS_MAX_NS {
                explained += 1;
            } else {
                unexplained.push(format!("{at_s:.0} s: {said}"));
            }
        }
        let moves = |report: &Report| {
            let new = report.state.measured > judged;
            new && report.state.velocity.iter().any(|v| v.abs() > 0.05)
        };
        moved += u32::from(reports.iter().any(moves));
        judged = reports.last().expect("reports").state.measured;
        let stands = answer(&stage, &Request::Report).expect("the bench robot answers");
        assert_eq!(stands.limit_violations, 0, "{stands:?}");
        let over = stands.outcome.over || looks - begun_at_look >= LOOKS_A_SCENE;
        if over || !said.starts_with("active") {
            done += u32::from(stands.outcome.named_done);
            scenes += 1;
            begun_at_look = looks;
            begin_anew(&stage, u64::from(scenes));
        }
    }
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
        "{seconds} s, load average {:.1}: {looks} looks, the arm moved before {moved} of them, {done} of {scenes} tasks done; stops because the machine stood still: {explained}, others: {unexplained:?}; {commands} commands, longest time between two but for the machine {:.1} ms of {:.0}; longest time between two pings {:.0} ms of {WATCHDOG_MS}",
        median(load) as f64 / 100.0,
        ms(gap_most_ns),
        ms(GAP_MAX_NS),
        ms(gap_ns)
    );
    assert!(gap_ns < WATCHDOG_MS * MS, "a ping was late");
    assert!(gap_most_ns <= GAP_MAX_NS, "a command was late");
    assert!(commands > 0, "nobody saw a command");
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
