// SPDX-License-Identifier: Apache-2.0
//! The machine around the runtime: it slept, its files are changed under a robot that moves, somebody floods the link.

use crate::canary::told;
use crate::growth::{free_port, metric};
use crate::isolation::{PLAN_MS, child_of, goes_on, isolated, undisturbed};
use crate::stage::{ROBOT, Setting, Stage, connect, ended, locked, patient, repeats, runtime};
use crate::stage::{ms, signal, until};
use crate::{TICK_MS, WATCH_MS};
use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::time::Duration;
use tendon::core::units::{MS, Mono};
use tendon::link::{keys, operator_end};
use tendon::runtime::{clock, demo};
use zenoh::Wait;

const SENTENCE: &str = "put the red block in the left bin";

/// In place of the vDSO's `clock_gettime` in the memory of one process: asks the kernel, then adds to what CLOCK_BOOTTIME
/// tells as many seconds as stand in one byte of it. No other clock goes on: so it looks when the machine has slept.
const ASLEEP: [u8; 17] = [
    0xb8, 228, 0, 0, 0, // mov eax, 228: clock_gettime of x86-64
    0x0f, 0x05, // syscall
    0x83, 0xff, 7, // cmp edi, 7: CLOCK_BOOTTIME
    0x75, 4, // jne to the ret
    0x48, 0x83, 0x06, 0,    // add qword [rsi], 0
    0xc3, // ret
];
/// That byte.
const SECONDS_AT: u64 = 15;
const SECONDS_MAX: u32 = i8::MAX as u32;

/// Another process's clock.
struct BootClock {
    memory: File,
    at: u64,
}

impl BootClock {
    /// `None` where that cannot be done: another processor, or no right to write into another process.
    fn of(process: &Child) -> Option<BootClock> {
        if cfg!(not(target_arch = "x86_64")) {
            return None;
        }
        let pid = process.id();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
        let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
        let (from, to) = line.split_whitespace().next()?.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).ok();
        let (from, to) = (address(from)?, address(to)?);
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .ok()?;
        let mut image = vec![0; usize::try_from(to - from).ok()?];
        memory.read_exact_at(&mut image, from).ok()?;
        let (at, length) = symbol(&image, b"__vdso_clock_gettime\0")?;
        let at = from + at;
        let code = at..at + length.max(ASLEEP.len() as u64);
        // Nobody may stand inside while it is written.
        let inside = |all: Vec<u64>| all.iter().any(|one| code.contains(one));
        let mut tries = 0;
        signal(process, "STOP");
        while stands_at(pid).is_none_or(inside) {
            tries += 1;
            assert!(tries < 1_000, "it is never anywhere else");
            signal(process, "CONT");
            demo::pause(1);
            signal(process, "STOP");
        }
        let written = memory.write_all_at(&ASLEEP, at);
        signal(process, "CONT");
        written.ok()?;
        Some(BootClock { memory, at })
    }

    /// From now on it has slept so long in all. Returns the time just before.
    fn slept_s(&self, seconds: u8) -> Mono {
        let before = clock::now();
        let at = self.at + SECONDS_AT;
        self.memory.write_all_at(&[seconds], at).expect("written");
        before
    }
}

/// Where each thread of a stopped process goes on; `None` while one still runs.
fn stands_at(pid: u32) -> Option<Vec<u64>> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let stands = |task: std::fs::DirEntry| {
        let told = std::fs::read_to_string(task.path().join("syscall")).ok()?;
        let address = told.split_whitespace().last()?.strip_prefix("0x")?;
        u64::from_str_radix(address, 16).ok()
    };
    tasks.flatten().map(stands).collect()
}

/// Where a symbol stands in the image of a vDSO, which is linked to address 0, and how long it is: ELF64, little-endian.
fn symbol(image: &[u8], name: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize, bytes: usize| -> Option<usize> {
        let mut whole = [0; 8];
        whole[..bytes].copy_from_slice(image.get(at..at + bytes)?);
        usize::try_from(u64::from_le_bytes(whole)).ok()
    };
    const DYNAMIC: usize = 2;
    let (headers, count) = (number(32, 8)?, number(56, 2)?);
    let mut headers = (0..count).map(|header| headers + 56 * header);
    let dynamic = headers.find(|header| number(*header, 4) == Some(DYNAMIC))?;
    let dynamic = number(dynamic + 8, 8)?;
    let entry = |tag: usize| {
        let mut entries = (dynamic..image.len()).step_by(16);
        let entry = entries.find(|entry| number(*entry, 8) == Some(tag))?;
        number(entry + 8, 8)
    };
    let (names, symbols) = (entry(5)?, entry(6)?);
    (symbols..image.len()).step_by(24).find_map(|symbol| {
        let its_name = image.get(names + number(symbol, 4)?..)?;
        let (value, length) = (number(symbol + 8, 8)?, number(symbol + 16, 8)?);
        its_name
            .starts_with(name)
            .then_some((value as u64, length as u64))
    })
}

/// Nothing else of it: no thread was late, no command was missed.
#[test]
fn a_machine_that_slept_is_a_latched_stop() {
    told(|| {
        let mut stage = Stage::new(&Setting {
            no_arming: true,
            ..Setting::default()
        });
        let Some(boot) = BootClock::of(&stage.runtime) else {
            println!(
                "SKIPPED: a machine that slept: needs x86-64 and the right to write into a process"
            );
            return;
        };
        stage.until_granted(keys::instruction, SENTENCE);
        stage.arm();
        for nap in 1..=repeats().min(SECONDS_MAX / 2) {
            let from = boot.slept_s(2 * nap as u8);
            stage.held_within("asleep for 2 s", from, WATCH_MS + 2 * TICK_MS);
            demo::pause(100);
            let said = stage.ask(keys::mode, "status").unwrap_or_default();
            assert!(said.contains("the machine was suspended"), "{said}");
            stage.stays_latched();
            stage.within_limits();
            stage.until_granted(keys::mode, "reset");
            stage.arm();
        }
    });
}

/// Periods of control in a second, by the counter of the commands.
fn rate_hz(stage: &Stage) -> f64 {
    let from = clock::now();
    demo::pause(1_000);
    locked(&stage.commands, |commands| {
        let since = || commands.iter().filter(|sent| sent.at > from);
        let (first, last) = (since().next(), since().next_back());
        let (first, last) = (first.expect("commands"), last.expect("commands"));
        let counted = last.counter.wrapping_sub(first.counter);
        f64::from(counted) * 1e9 / last.at.since_ns(first.at) as f64
    })
}

/// A file that is half written, then one that says something else: neither is seen before the next start, and that one does not
/// start with the first.
#[test]
fn files_that_change_under_an_armed_robot_change_nothing_before_the_next_start() {
    told(|| {
        for _ in 0..repeats() {
            let mut stage = Stage::new(&Setting::default());
            let path = stage.folder.path().join("tendon.toml");
            let whole = std::fs::read_to_string(&path).expect("there");
            let robot = stage.folder.path().join("robot.toml");
            let joints = std::fs::read_to_string(&robot).expect("there");
            let write = |text: &str, joints: &str| {
                std::fs::write(&path, text).expect("written");
                std::fs::write(&robot, joints).expect("written");
            };
            let begun = rate_hz(&stage);
            write(&whole[..whole.len() / 2], "");
            let torn = rate_hz(&stage);
            let mut slower = whole.clone();
            for (from, to) in patient() {
                slower = slower.replacen(from, &to, 1);
            }
            write(&slower, &joints);
            let changed = rate_hz(&stage);
            println!("control at {begun:.1}, {torn:.1} and {changed:.1} Hz");
            for hz in [begun, torn, changed] {
                assert!((150.0..250.0).contains(&hz), "{hz}: {}", stage.log());
            }
            // It is not armed anew before they are what was read at the start.
            drop(stage.ask(keys::mode, "standby"));
            drop(stage.ask(keys::mode, "reset"));
            for word in ["active", "takeover"] {
                let refused = stage.ask(keys::mode, word).expect_err("files have changed");
                assert!(
                    refused.contains("another one than at the start"),
                    "{refused}"
                );
                assert!(refused.contains("tendon.toml"), "{refused}");
            }
            write(&whole, &joints);
            stage.arm();
            stage.within_limits();
            signal(&stage.runtime, "TERM");
            assert_eq!(ended(&mut stage.runtime, Duration::from_secs(6)), Some(0));
            let again = || {
                let started = runtime(&path, &stage.state, &Setting::default()).spawn();
                started.expect("the runtime starts")
            };
            write(&whole[..whole.len() / 2], "");
            let refused = again().wait().expect("it ends");
            assert_eq!(refused.code(), Some(2), "{}", stage.log());
            write(&slower, &joints);
            stage.runtime = again();
            let restarted = clock::now();
            until("it runs again", || {
                stage.ask(keys::mode, "status").is_ok()
                    && locked(&stage.commands, |commands| {
                        commands.iter().any(|sent| sent.at > restarted)
                    })
            });
            let hz = rate_hz(&stage);
            assert!((40.0..60.0).contains(&hz), "read at the start: {hz}");
        }
    });
}

/// An inference process that is started meanwhile reads them, sees that they are not what the control process was started
/// with, and does not run: a hold, until they are again.
#[test]
fn files_that_change_are_a_hold_for_an_inference_process_that_is_started_anew() {
    told(|| {
        undisturbed(|| {
            let mut stage = Stage::new(&isolated(None));
            let path = stage.folder.path().join("tendon.toml");
            let whole = std::fs::read_to_string(&path).expect("there");
            let child = child_of(&stage);
            let other = whole.replacen("rate_hz = 10.0", "rate_hz = 5.0", 1);
            assert_ne!(other, whole);
            std::fs::write(&path, other).expect("written");
            let from = clock::now();
            let killed = std::process::Command::new("kill")
                .args(["-s", "KILL", &child.to_string()])
                .status();
            assert!(killed.is_ok_and(|status| status.success()));
            stage.held_within("files that are not what they were", from, PLAN_MS);
            until("it says why", || stage.log().contains("refused to run"));
            std::fs::write(&path, &whole).expect("written");
            goes_on(&mut stage, "files as they were", from, child)
        });
    });
}

/// So long each flood.
const FLOOD_NS: u64 = 1_500 * MS;

/// Does `one` over and over in a thread of its own, on a session of its own; how often.
fn over_and_over(endpoint: &str, mut one: impl FnMut(&zenoh::Session)) -> u64 {
    let session = connect(endpoint);
    // It connects in the background.
    demo::pause(300);
    let (until, mut count) = (clock::now().plus_ns(FLOOD_NS), 0);
    while clock::now() < until {
        one(&session);
        count += 1;
    }
    drop(session.close().wait());
    count
}

/// Somebody who has got onto the link, though an access list would have kept him off (systemd/zenoh), sends as much as goes: states
/// that are none, small and large, questions, and noise on the bare socket. The control threads never wait for any of it.
#[test]
fn somebody_who_floods_the_link_stops_nobody() {
    told(|| {
        undisturbed(|| {
            let port = free_port();
            let page = format!("[page]\nlisten = \"127.0.0.1:{port}\"\n\n[schedule]");
            let mut stage = Stage::new(&Setting {
                edits: patient()
                    .into_iter()
                    .chain([("[schedule]", page)])
                    .collect(),
                ..Setting::default()
            });
            let page = stage.said("Watch and instruct: ").expect("a page");
            let refused = || metric(&page, "tendon_states_refused_total");
            let before = refused();
            let frames = [vec![0x5a; 200], vec![0x5a; 60_000]];
            for frame in &frames {
                let (from, what) = (refused(), format!("{} bytes as a state", frame.len()));
                let sent = over_and_over(&stage.endpoint, |session| {
                    // What does not fit is dropped, and comes again.
                    drop(session.put(keys::state(ROBOT), &frame[..]).wait());
                });
                let came = refused() - from;
                println!("{what}: {sent} sent, {came} came and were refused");
                assert!(came > 100.0, "{what}: no flood");
                if !follows(&stage, &what) {
                    return false;
                }
            }
            let mut answers = 0_u64;
            over_and_over(&stage.endpoint, |session| {
                let said = operator_end::ask(session, &keys::mode(ROBOT), "status");
                answers += u64::from(said.is_ok());
            });
            println!("questions: {answers} answered");
            assert!(answers > 100, "no flood");
            if !follows(&stage, "questions") {
                return false;
            }
            let address = stage.endpoint.strip_prefix("tcp/").expect("TCP").to_owned();
            let mut connections = 0;
            let until = clock::now().plus_ns(FLOOD_NS);
            while clock::now() < until {
                let Ok(mut socket) = TcpStream::connect(&address) else {
                    continue;
                };
                connections += 1;
                // It is closed at the other end as soon as it is seen to be no zenoh.
                while clock::now() < until && socket.write_all(&frames[1]).is_ok() {}
            }
            println!("noise on {connections} connections");
            assert!(connections > 0, "no flood");
            assert!(refused() > before);
            let undisturbed = follows(&stage, "noise");
            // Who was let in by the noise is let in still.
            drop(stage.ask(keys::mode, "standby"));
            drop(stage.ask(keys::mode, "reset"));
            stage.arm();
            undisturbed
        });
    });
}

/// Bytes a second of the flood beside the commands: 100 Mbit.
const BESIDE_BYTES_S: u64 = 12_500_000;
/// The way of a command may take so long.
const WAY_MAX_MS: f64 = 2.0;

/// As much as a camera sends, on the same connection. On a machine that others use only the median is judged; with
/// `TENDON_CHAOS_QUIET` the 99th percentile is.
#[test]
fn a_hundred_megabits_beside_the_commands_do_not_delay_them() {
    told(|| {
        undisturbed(|| {
            let stage = Stage::new(&Setting::default());
            // Median and 99th percentile of the commands' way to this process, of `since` and later.
            let way_ms = |since: Mono| {
                let mut ways: Vec<u64> = locked(&stage.commands, |commands| {
                    let sent = commands.iter().filter(|sent| sent.at >= since);
                    sent.map(|sent| sent.heard.since_ns(sent.at)).collect()
                });
                ways.sort_unstable();
                assert!(ways.len() > 100, "{} commands", ways.len());
                let at = |part: usize| ms(ways[ways.len() * part / 100]);
                [at(50), at(99)]
            };
            let from = clock::now();
            demo::pause(3_000);
            let before = way_ms(from);

            let frame = vec![0x5a; 60_000];
            let session = connect(&stage.endpoint);
            let (from, mut sent) = (clock::now(), 0_u64);
            while clock::now().since_ns(from) < 3_000 * MS {
                drop(session.put(keys::state(ROBOT), &frame[..]).wait());
                sent += frame.len() as u64;
                clock::sleep_until(from.plus_ns(sent * 1_000_000_000 / BESIDE_BYTES_S));
            }
            let beside = way_ms(from);
            let rate = sent as f64 * 8e-3 / ms(clock::now().since_ns(from));
            println!(
                "commands' way p50, p99: {before:.2?} ms; beside {rate:.0} Mbit/s: {beside:.2?} ms"
            );
            assert!(rate > 90.0, "{rate} Mbit/s");
            let judged = usize::from(std::env::var_os("TENDON_CHAOS_QUIET").is_some());
            assert!(beside[judged] <= WAY_MAX_MS, "{beside:?}");
            follows(&stage, "100 Mbit/s beside")
        });
    });
}

/// Whether it moved through it without a stop.
fn follows(stage: &Stage, what: &str) -> bool {
    stage.within_limits();
    let said = stage.ask(keys::mode, "status").unwrap_or_default();
    if !said.starts_with("active") {
        println!("{what}: {said}");
    }
    said.starts_with("active")
}
