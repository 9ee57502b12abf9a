// SPDX-License-Identifier: Apache-2.0
//! How a runtime ends: told to, in a panic, killed, with no room to write; and what the next start knows of it.

use crate::canary::told;
use crate::service;
use crate::stage::{
    Sent, Setting, Stage, ended, locked, longest_gap_ns, ms, over_again, repeats, signal, until,
};
use crate::{SILENCE_MS, TICK_MS, drill, panic_of};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tendon::core::units::MS;
use tendon::core::wire::state::MotorMode;
use tendon::link::keys;
use tendon::runtime::{clock, demo};

/// Coming to rest, and half a second.
const END: Duration = Duration::from_millis(2_000);

/// A runtime whose state is kept in `folder`; a drill arms it.
fn kept(folder: &Path, drill: Option<&str>) -> Setting {
    Setting {
        drill: drill.map(str::to_owned),
        state: Some(folder.to_owned()),
        no_arming: drill.is_none(),
        ..Setting::default()
    }
}

/// Everything that an arming needs is there but a person's word on the last run; then that is said.
#[track_caller]
fn armed_only_after_a_reset(stage: &mut Stage) {
    stage.until_granted(keys::instruction, "touch the red block");
    // Everything else is fresh after two seconds.
    demo::pause(2_000);
    let answer = stage.ask(keys::mode, "active");
    assert!(
        answer.as_ref().is_err_and(|said| said.contains("crashed")),
        "{answer:?}"
    );
    stage.until_granted(keys::mode, "reset");
}

#[test]
fn after_a_crash_the_next_start_shows_it_and_does_not_arm_before_a_person_has_said_so() {
    over_again(|| {
        let folder = tempfile::tempdir().expect("a folder");
        {
            let mut stage = Stage::new(&kept(folder.path(), Some("panic:inference")));
            panic_of(&stage, "inference");
            signal(&stage.runtime, "TERM");
            assert!(
                ended(&mut stage.runtime, Duration::from_secs(6)).is_some(),
                "it ends when asked"
            );
        }
        let mut stage = Stage::new(&kept(folder.path(), None));
        assert!(
            stage.log().contains("thread inference: drill"),
            "{}",
            stage.log()
        );
        armed_only_after_a_reset(&mut stage);
        stage.until_granted(keys::mode, "active");
        assert!(
            folder
                .path()
                .join("crash-bench-acknowledged.json")
                .is_file()
        );
    });
}

/// What nobody can write down: the next start knows by what stands on disk while the robot is armed.
#[test]
fn a_runtime_that_was_killed_while_armed_is_not_armed_again_before_a_person_has_said_so() {
    over_again(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let armed = folder.path().join("armed-bench");
        {
            let mut stage = Stage::new(&Setting {
                no_arming: false,
                ..kept(folder.path(), None)
            });
            assert!(armed.is_file(), "it is armed");
            signal(&stage.runtime, "KILL");
            ended(&mut stage.runtime, END);
        }
        let mut stage = Stage::new(&kept(folder.path(), None));
        assert!(
            stage.log().contains("ended while the robot was armed"),
            "{}",
            stage.log()
        );
        stage.until_granted(keys::instruction, "touch the red block");
        let refused = stage.ask(keys::mode, "active");
        assert!(refused.is_err(), "{refused:?}");
        assert!(armed.is_file(), "who asks in vain has not said so");
        // Nor has who starts it once more.
        signal(&stage.runtime, "KILL");
        ended(&mut stage.runtime, END);
        let mut stage = Stage::new(&kept(folder.path(), None));
        armed_only_after_a_reset(&mut stage);
        assert!(!armed.exists(), "a person has said so");
        stage.until_granted(keys::mode, "active");
        assert!(armed.is_file());
        // What is latched stands in a file of its own.
        stage.until_granted(keys::mode, "e-stop");
        until("unarmed", || !armed.exists());
        assert!(folder.path().join("latched-stop-bench").is_file());
        stage.until_granted(keys::mode, "reset");
        stage.arm();
        signal(&stage.runtime, "TERM");
        assert_eq!(ended(&mut stage.runtime, END), Some(0), "at rest in time");
        assert!(!armed.exists(), "in good order");
    });
}

/// The robot slows down within two control periods of the signal, and the program ends when it stands.
#[test]
fn a_runtime_that_is_told_to_end_stops_the_robot_first() {
    told(|| {
        for _ in 0..repeats() {
            let mut stage = Stage::new(&Setting::default());
            let from = signal(&stage.runtime, "TERM");
            stage.held_within("SIGTERM", from, 2 * TICK_MS);
            assert_eq!(ended(&mut stage.runtime, END), Some(0), "{}", stage.log());
            println!(
                "SIGTERM: ended after {} ms",
                clock::now().since_ns(from) / 1_000_000
            );
            stage.within_limits();
        }
    });
}

#[test]
fn a_full_disk_costs_the_record_and_not_the_stop() {
    told(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("full");
        std::fs::create_dir(&path).expect("made");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
            .arg(&path)
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            println!("SKIPPED: a full disk: mounting a tmpfs needs root");
            return;
        }
        struct Mounted(std::path::PathBuf);
        impl Drop for Mounted {
            fn drop(&mut self) {
                drop(Command::new("umount").arg("-l").arg(&self.0).status());
            }
        }
        let _mounted = Mounted(path.clone());
        for _ in 0..repeats() {
            let fill = |name: &str| {
                let filled = std::fs::write(path.join(name), vec![0; 1 << 20]);
                assert!(filled.is_err(), "the disk is full");
            };
            let setting = Setting {
                state: Some(path.clone()),
                ..drill("panic:governor")
            };
            let mut stage = Stage::new(&setting);
            fill("fill");
            let from = signal(&stage.runtime, "USR1");
            stage.stopped_by_itself("panic of governor, disk full", from, SILENCE_MS);
            until("it says so", || {
                stage.log().contains("the crash record was not written")
            });
            assert!(
                matches!(stage.runtime.try_wait(), Ok(None)),
                "the process stays up"
            );
            assert!(!path.join("crash-bench.json").exists());
            drop(stage);

            // The next start knows all the same, and does not arm what it could not note.
            let mut stage = Stage::new(&kept(&path, None));
            assert!(
                stage.log().contains("ended while the robot was armed"),
                "{}",
                stage.log()
            );
            armed_only_after_a_reset(&mut stage);
            fill("more");
            let answer = stage.ask(keys::mode, "active");
            assert!(
                answer.as_ref().is_err_and(|said| said.contains("noted")),
                "{answer:?}"
            );
            drop(stage);
            for name in std::fs::read_dir(&path).expect("a folder").flatten() {
                std::fs::remove_file(name.path()).expect("removed");
            }
        }
    });
}

/// A disk that answers after seconds, then with errors: what moves the robot does not notice, no restart comes of it, it is told,
/// and what could not be noted is not armed.
#[test]
fn a_disk_that_does_not_answer_ends_no_robot_at_work() {
    over_again(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let (library, slow) = (folder.path().join("disk.so"), folder.path().join("slow"));
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(&library)
            .arg("tests/chaos/slow_disk.c")
            .status();
        assert!(built.is_ok_and(|status| status.success()), "a C compiler");
        let takes = |seconds: u8| std::fs::write(&slow, [seconds]).expect("written");
        takes(0);
        let (mut setting, heard) = service::setting(folder.path(), "notify", None);
        setting.env = vec![("LD_PRELOAD", library), ("SLOW_DISK", slow.clone())];
        let mut stage = Stage::new(&setting);
        takes(5);
        // A stop that latches is to be kept: five seconds for the file, and five for its folder.
        let from = clock::now();
        stage.until_granted(keys::mode, "e-stop");
        until("it is told", || stage.log().contains("does not answer"));
        let told_at = clock::now();
        let (took_ns, stall_ns) = (told_at.since_ns(from), stage.canary.stall_ns(from, told_at));
        println!(
            "a disk that takes 5 s: told after {:.1} ms (bound 1000 ms, machine stood still {:.1} ms)",
            ms(took_ns),
            ms(stall_ns)
        );
        assert!(took_ns <= 1_000 * MS + stall_ns, "told too late");
        demo::pause(4_000);
        let pings = service::times(&heard, "WATCHDOG=1");
        let gap_ns = pings.windows(2).map(|pair| pair[1].since_ns(pair[0])).max();
        assert!(
            gap_ns.is_some_and(|gap_ns| gap_ns < service::WATCHDOG_MS * MS),
            "pings {gap_ns:?} ns apart"
        );
        assert!(matches!(stage.runtime.try_wait(), Ok(None)), "it runs");
        takes(0);
        stage.until_granted(keys::mode, "reset");
        stage.arm();
        let from = clock::now();
        demo::pause(1_000);
        stage.until_granted(keys::mode, "standby");
        // Once the disk has answered what it was asked before.
        let armed = stage.state.join("armed-bench");
        until("unarmed", || !armed.exists());
        // An arming that the disk keeps: whoever wants a stop waits for nothing, and when the disk answers it is too late to arm.
        takes(3);
        let seen = locked(&stage.reports, Vec::len);
        let (asked, standby) = std::thread::scope(|scope| {
            let arming = scope.spawn(|| stage.ask(keys::mode, "active"));
            until("it is being noted", || armed.exists());
            let from = clock::now();
            let standby = stage.ask(keys::mode, "standby");
            let took_ns = clock::now().since_ns(from);
            let stall_ns = stage.canary.stall_ns(from, clock::now());
            println!(
                "a stop beside an arming that waits for the disk: {:.1} ms",
                ms(took_ns)
            );
            assert!(took_ns <= 500 * MS + stall_ns, "it waited for the disk");
            (arming.join().expect("asked"), standby)
        });
        assert!(asked.is_err() && standby.is_ok(), "{asked:?}, {standby:?}");
        takes(0);
        until("refused", || !armed.exists());
        demo::pause(200);
        locked(&stage.reports, |reports| {
            let after = reports.get(seen..).unwrap_or_default();
            let followed = after
                .iter()
                .any(|report| report.mode == MotorMode::Following);
            assert!(
                !followed && !after.is_empty(),
                "armed long after it was asked for"
            );
        });
        // Every write an error.
        takes(255);
        let answer = stage.ask(keys::mode, "active");
        assert!(
            answer.as_ref().is_err_and(|said| said.contains("noted")),
            "{answer:?}"
        );
        takes(0);
        stage.arm();
        let commands = locked(&stage.commands, |commands| -> Vec<Sent> {
            commands
                .iter()
                .filter(|sent| sent.at > from)
                .copied()
                .collect()
        });
        let gap_ms = ms(longest_gap_ns(&commands, &stage.canary));
        println!("commands apart meanwhile: {gap_ms:.1} ms at most");
        assert!(gap_ms <= 10.0, "{gap_ms} ms");
        stage.within_limits();
    });
}
