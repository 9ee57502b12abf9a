// SPDX-License-Identifier: Apache-2.0
//! The inference process killed, crashed, frozen, hung and scribbling: what moves the robot goes on, and holds.

use crate::canary::told;
use crate::growth::{metric, page_of, paged};
use crate::stage::{
    PATIENT_TICK_MS, Sent, Setting, Stage, ended, locked, longest_gap_ns, ms, over_again, patient,
    repeats, signal, until,
};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::time::Duration;
use tendon::core::units::{MS, Mono};
use tendon::core::wire::state::MotorMode;
use tendon::link::keys;
use tendon::runtime::{clock, demo};

/// The last plan is followed to its end, then the robot holds: 800 ms after its picture, later by its delay if it was begun
/// from rest, and by the time that slowing down takes if it ends in motion.
pub const PLAN_MS: u64 = 800 + 150 + 2 * PATIENT_TICK_MS;

/// Capture and inference in a process of their own.
pub fn apart() -> (&'static str, String) {
    (
        "\nrobot = ",
        "\nisolation = \"process\"\nrobot = ".to_owned(),
    )
}

pub fn isolated(drill: Option<&str>) -> Setting {
    Setting {
        edits: patient().into_iter().chain([apart()]).collect(),
        drill: drill.map(str::to_owned),
        ..Setting::default()
    }
}

/// Child processes of the runtime.
pub fn children_of(stage: &Stage) -> Vec<u32> {
    let parent = stage.runtime.id().to_string();
    let all = std::fs::read_dir("/proc").expect("a process table");
    let child = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // Behind the name, which may hold anything: state, parent.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut rest = rest.split_whitespace();
        let alive = rest.next()? != "Z";
        (alive && rest.next()? == parent).then_some(pid)
    };
    all.flatten().filter_map(child).collect()
}

/// The inference process of a stage.
#[track_caller]
pub fn child_of(stage: &Stage) -> u32 {
    let mut found = None;
    until("an inference process", || {
        found = children_of(stage).pop();
        found.is_some()
    });
    found.expect("found")
}

/// Sends a signal at once; false if the process is gone already.
fn send(pid: u32, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    kill_process(pid.expect("a process"), signal).is_ok()
}

/// Sends a signal; returns the time just before.
#[track_caller]
pub fn strike(pid: u32, signal: Signal) -> Mono {
    let before = clock::now();
    assert!(send(pid, signal), "{signal:?} to {pid}");
    before
}

/// The motor controller heard the runtime all the time, and the robot follows plans of another process without being
/// asked to.
#[track_caller]
pub fn goes_on(stage: &mut Stage, fault: &str, from: Mono, before: u32) -> bool {
    let newest = locked(&stage.commands, |commands| {
        commands.iter().map(|sent| sent.chunk).max().unwrap_or(0)
    });
    let deadline = clock::now().plus_ns(15_000 * MS);
    let follows = || {
        locked(&stage.commands, |commands| {
            let new = |sent: &&Sent| !sent.held && sent.chunk > newest + 3;
            commands.iter().rev().take(20).filter(new).count() >= 10
        })
    };
    while !follows() {
        let status = stage.ask(keys::mode, "status").unwrap_or_default();
        // A crowded machine lets the link be silent for longer than the motor controller waits.
        if ["active", "holding"]
            .iter()
            .all(|mode| !status.starts_with(mode))
        {
            println!("{fault}: disturbed, {status}");
            return false;
        }
        assert!(
            clock::now() < deadline,
            "{fault}: no new plan is followed: {status}: {}",
            stage.log()
        );
        demo::pause(2);
    }
    let (held_ns, again_ns) = locked(&stage.commands, |commands| {
        let since = || commands.iter().filter(|sent| sent.at > from);
        let held = since().filter(|sent| sent.held);
        let again = since().find(|sent| !sent.held && sent.chunk > newest + 3);
        (
            held.count() as u64 * PATIENT_TICK_MS * MS,
            again.map_or(0, |sent| sent.at.since_ns(from)),
        )
    });
    println!(
        "{fault}: follows plans of another process after {} ms, of which held about {} ms",
        again_ns / MS,
        held_ns / MS
    );
    assert!(
        matches!(stage.runtime.try_wait(), Ok(None)),
        "{}",
        stage.log()
    );
    assert_ne!(child_of(stage), before, "it is another process");
    stage.within_limits();
    true
}

/// A crowded machine disturbs a story now and then, a fault of ours each time.
#[track_caller]
pub fn undisturbed(mut story: impl FnMut() -> bool) {
    for _ in 0..repeats() {
        assert!((0..3).any(|_| story()), "disturbed three times");
    }
}

#[test]
fn an_inference_process_that_ends_costs_at_most_a_hold() {
    told(|| {
        undisturbed(|| {
            let mut stage = Stage::new(&isolated(None));
            for fault in [Signal::SEGV, Signal::KILL, Signal::ABORT] {
                let child = child_of(&stage);
                let from = strike(child, fault);
                if fault == Signal::SEGV {
                    // A handler of the standard library looks at the first, and sees that no stack has overflowed.
                    demo::pause(20);
                    send(child, fault);
                }
                if !goes_on(
                    &mut stage,
                    &format!("{fault:?} of the inference process"),
                    from,
                    child,
                ) {
                    return false;
                }
            }
            let log = stage.log();
            assert!(
                log.contains("the inference process ended: signal: 11 (SIGSEGV)"),
                "{log}"
            );
            true
        });
    });
}

/// One that never comes back: the last plan is followed to its end, then the robot holds.
#[test]
fn an_inference_process_that_ends_again_and_again_is_a_hold() {
    told(|| {
        undisturbed(|| {
            let mut stage = Stage::new(&isolated(None));
            let child = child_of(&stage);
            let from = strike(child, Signal::KILL);
            while clock::now() < from.plus_ns(2_000 * MS) {
                for child in children_of(&stage) {
                    // It may be gone already.
                    send(child, Signal::KILL);
                }
                demo::pause(2);
            }
            stage.held_within(
                "an inference process that does not come back",
                from,
                PLAN_MS,
            );
            if !goes_on(&mut stage, "the same", from, child) {
                return false;
            }
            assert!(
                stage.log().contains("started again in 1000 ms"),
                "{}",
                stage.log()
            );
            true
        });
    });
}

#[test]
fn an_inference_process_that_freezes_or_hangs_is_a_hold() {
    told(|| {
        undisturbed(|| {
            let mut stage = Stage::new(&isolated(None));
            let child = child_of(&stage);
            let from = strike(child, Signal::STOP);
            stage.held_within("SIGSTOP of the inference process", from, PLAN_MS);
            if !goes_on(&mut stage, "SIGSTOP of the inference process", from, child) {
                return false;
            }
            assert!(
                stage.log().contains("hangs: its thread "),
                "{}",
                stage.log()
            );
            drop(stage);

            let mut stage = Stage::new(&isolated(Some("hang:inference")));
            let child = child_of(&stage);
            let from = strike(child, Signal::USR1);
            stage.held_within("an engine that hangs", from, PLAN_MS);
            if !goes_on(&mut stage, "an engine that hangs", from, child) {
                return false;
            }
            assert!(
                stage.log().contains("hangs: its thread inference"),
                "{}",
                stage.log()
            );
            true
        });
    });
}

/// At the control rate and with the motor controller's patience as it is: what moves the robot comes round as before.
#[test]
fn the_control_loop_does_not_notice_how_an_inference_process_ends() {
    told(|| {
        undisturbed(|| {
            let stage = Stage::new(&Setting {
                edits: vec![apart()],
                ..Setting::default()
            });
            let gap_ms = |from: Mono| {
                let since = |commands: &Vec<Sent>| -> Vec<Sent> {
                    commands
                        .iter()
                        .filter(|sent| sent.at >= from)
                        .copied()
                        .collect()
                };
                let sent = locked(&stage.commands, since);
                assert!(sent.len() > 100, "{} commands", sent.len());
                ms(longest_gap_ns(&sent, &stage.canary))
            };
            let from = clock::now();
            demo::pause(1_500);
            println!("commands apart before: {:.1} ms at most", gap_ms(from));
            for signal in [Signal::KILL, Signal::ABORT, Signal::STOP] {
                let child = child_of(&stage);
                let from = strike(child, signal);
                until("another inference process", || {
                    !children_of(&stage).contains(&child) && !children_of(&stage).is_empty()
                });
                demo::pause(1_000);
                let status = stage.ask(keys::mode, "status").unwrap_or_default();
                if !["active", "holding"]
                    .iter()
                    .any(|mode| status.starts_with(mode))
                {
                    println!("{signal:?}: disturbed, {status}");
                    return false;
                }
                let gap_ms = gap_ms(from);
                println!(
                    "commands apart while an inference process ends by {signal:?}: {gap_ms:.1} ms at most"
                );
                assert!(gap_ms <= 10.0, "{signal:?}: {gap_ms} ms");
            }
            stage.within_limits();
            true
        });
    });
}

/// Holds a process in the kernel on its way out, as a driver may: SIGKILL is taken, and nothing ends before it is let go.
/// Says "held" once it may be killed; lets go when its input ends.
const HOLD: &str = r#"
import ctypes, os, signal, sys
pid, libc = int(sys.argv[1]), ctypes.CDLL(None, use_errno=True)
SEIZE, CONT, TRACEEXIT, WALL = 0x4206, 7, 0x40, 0x40000000
if libc.ptrace(SEIZE, pid, None, ctypes.c_void_p(TRACEEXIT)) != 0:
    sys.exit("ptrace: " + os.strerror(ctypes.get_errno()))
print("held", flush=True)
while True:
    _, status = os.waitpid(pid, WALL)
    if status >> 8 == (signal.SIGTRAP | 6 << 8): break
    if not os.WIFSTOPPED(status): sys.exit("it ended")
    libc.ptrace(CONT, pid, None, ctypes.c_void_p(0 if status >> 16 else os.WSTOPSIG(status)))
print("dying", flush=True)
sys.stdin.read()
"#;

/// A driver holds the process in the kernel for two seconds after it was killed: nobody here waits for it.
#[test]
fn an_inference_process_that_dies_slowly_is_a_hold() {
    told(|| {
        undisturbed(|| {
            let mut stage = Stage::new(&isolated(Some("hang:inference")));
            let child = child_of(&stage);
            let mut holder = Command::new("python3")
                .args(["-c", HOLD, &child.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("python3");
            let mut said = BufReader::new(holder.stdout.take().expect("a pipe")).lines();
            let mut next = || said.next().and_then(Result::ok).unwrap_or_default();
            assert_eq!(next(), "held");
            let from = strike(child, Signal::USR1);
            assert_eq!(next(), "dying");
            stage.held_within("an inference process that dies slowly", from, PLAN_MS);
            demo::pause(2_000);
            assert!(children_of(&stage).contains(&child), "it is there yet");
            assert_eq!(children_of(&stage).len(), 1, "and no other beside it");
            until("it is told", || {
                stage.log().contains("was killed and does not end")
            });
            drop(holder.stdin.take());
            holder.wait().expect("it ends");
            goes_on(&mut stage, "one that died slowly", from, child)
        });
    });
}

#[test]
fn a_panic_in_the_inference_process_costs_at_most_a_hold() {
    over_again(|| {
        for thread in ["capture", "inference"] {
            let story = || {
                let mut stage = Stage::new(&isolated(Some(&format!("panic:{thread}"))));
                let child = child_of(&stage);
                let from = strike(child, Signal::USR1);
                if !goes_on(&mut stage, &format!("a panic of {thread}"), from, child) {
                    return false;
                }
                assert!(
                    stage.log().contains("ended: exit status: 70"),
                    "{}",
                    stage.log()
                );
                true
            };
            assert!((0..3).any(|_| story()), "disturbed three times");
        }
    });
}

/// What a wild pointer may do, and more: random bytes all over the shared memory, again and again.
#[test]
fn an_inference_process_that_scribbles_over_the_shared_memory_costs_at_most_a_hold() {
    told(|| {
        undisturbed(|| {
            let mut stage = Stage::new(&isolated(None));
            let child = child_of(&stage);
            let maps = std::fs::read_to_string(format!("/proc/{child}/maps")).expect("its memory");
            let line = maps
                .lines()
                .find(|line| line.contains("memfd:tendon"))
                .expect("shared memory");
            let range = line.split_whitespace().next().expect("a range");
            let (from, to) = range.split_once('-').expect("two ends");
            let address = |text| u64::from_str_radix(text, 16).expect("an address");
            let (begin, end) = (address(from), address(to));
            let Ok(memory) = std::fs::File::options()
                .write(true)
                .open(format!("/proc/{child}/mem"))
            else {
                println!("SKIPPED: scribbling: no right to write into another process");
                return true;
            };
            let from = clock::now();
            let mut seed = from.0 | 1;
            let until_ns = from.plus_ns(150 * MS);
            while clock::now() < until_ns {
                let noise: Vec<u8> = (0..end - begin)
                    .map(|_| {
                        // xorshift64: any bits will do.
                        seed ^= seed << 13;
                        seed ^= seed >> 7;
                        seed ^= seed << 17;
                        seed as u8
                    })
                    .collect();
                // The process may have been ended for it already.
                if memory.write_all_at(&noise, begin).is_err() {
                    break;
                }
            }
            if !goes_on(&mut stage, "scribbling", from, child) {
                return false;
            }
            true
        });
    });
}

#[test]
fn a_latched_stop_outlives_the_inference_process() {
    over_again(|| {
        let mut stage = Stage::new(&isolated(None));
        stage.until_granted(keys::mode, "e-stop");
        let child = child_of(&stage);
        strike(child, Signal::KILL);
        until("another inference process", || {
            stage.log().contains("the inference process runs again")
        });
        demo::pause(1_500);
        let following = locked(&stage.reports, |reports| {
            reports.last().map(|report| report.mode)
        });
        assert_ne!(
            following,
            Some(MotorMode::Following),
            "it resumed by itself"
        );
        stage.stays_latched();
        stage.until_granted(keys::mode, "reset");
        stage.arm();
    });
}

#[test]
fn the_two_processes_belong_together() {
    told(|| {
        let mut setting = isolated(None);
        setting.edits.push(paged());
        let mut stage = Stage::new(&setting);
        let child = child_of(&stage);
        let read =
            |name: &str| std::fs::read_to_string(format!("/proc/{child}/{name}")).expect("read");
        assert_eq!(
            read("oom_score_adj").trim(),
            "500",
            "the kernel takes it first"
        );
        // Read here, obeyed there.
        let said = stage.ask(keys::instruction, "touch the xylophone");
        assert!(
            said.as_ref()
                .is_ok_and(|said| said.contains("never seen: xylophone")),
            "{said:?}"
        );
        let said = stage.ask(keys::instruction, &"red ".repeat(400));
        assert!(
            said.as_ref()
                .is_err_and(|said| said.contains("say it shorter")),
            "{said:?}"
        );
        // Pictures of a time in which the link was given up are missing; they are counted, here.
        let page = page_of(&stage);
        let missing = || metric(&page, "tendon_pictures_missing_total");
        let before = missing();
        signal(&stage.runtime, "STOP");
        demo::pause(3_000);
        signal(&stage.runtime, "CONT");
        until("missing pictures are counted", || missing() > before);
        // Who is killed takes it along, even if it hangs.
        strike(child, Signal::STOP);
        signal(&stage.runtime, "KILL");
        ended(&mut stage.runtime, Duration::from_secs(5));
        until("no inference process without its control process", || {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z ")
        });
    });
}
