// SPDX-License-Identifier: Apache-2.0
//! No memory left in the runtime's control group: the kernel ends somebody, and whom it ends is decided beforehand.

use crate::canary::told;
use crate::isolation::{child_of, children_of, goes_on, isolated, undisturbed};
use crate::stage::{Setting, Stage, ended, patient, repeats, until};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;
use tendon::link::keys;
use tendon::runtime::clock;

/// What an eater may take beside what is used already.
const ROOM_BYTES: u64 = 48 * 1024 * 1024;

/// A control group of its own for memory, of either version; gone with the last process in it.
struct MemoryGroup {
    folder: PathBuf,
    /// Names of its limit, of what is used, and of what counts whom the kernel ended.
    files: [&'static str; 3],
}

impl MemoryGroup {
    fn new() -> Result<MemoryGroup, String> {
        let versions = [
            (
                "/sys/fs/cgroup/memory",
                [
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "memory.oom_control",
                ],
            ),
            (
                "/sys/fs/cgroup",
                ["memory.max", "memory.current", "memory.events"],
            ),
        ];
        for (root, files) in versions {
            let folder = PathBuf::from(root).join(format!("tendon-chaos-{}", std::process::id()));
            if std::fs::create_dir(&folder).is_ok() {
                if folder.join(files[0]).exists() {
                    return Ok(MemoryGroup { folder, files });
                }
                drop(std::fs::remove_dir(&folder));
            }
        }
        Err("no right to make a control group for memory".to_owned())
    }

    fn used(&self) -> u64 {
        let text = std::fs::read_to_string(self.folder.join(self.files[1])).expect("read");
        text.trim().parse().expect("bytes")
    }

    fn limit(&self, bytes: u64) {
        std::fs::write(self.folder.join(self.files[0]), bytes.to_string()).expect("a limit");
    }

    /// How many processes of it the kernel has ended for memory.
    fn killed(&self) -> u64 {
        let text = std::fs::read_to_string(self.folder.join(self.files[2])).expect("read");
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.expect("a count").trim().parse().expect("a number")
    }

    fn procs(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// Somebody who takes all the memory that there is, and stands so near to the kernel's hand.
    fn eater(&self, oom_score_adj: i32) -> Child {
        let eats = "echo $1 > /proc/$$/oom_score_adj; echo $$ > \"$0\" && exec tail /dev/zero";
        Command::new("sh")
            .args(["-c", eats])
            .arg(self.procs())
            .arg(oom_score_adj.to_string())
            .spawn()
            .expect("sh")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(&self.folder));
    }
}

/// Somebody in the same control group eats all the memory that there is, until the kernel ends it, again and again.
#[test]
fn memory_that_somebody_else_eats_up_does_not_stop_the_robot() {
    told(|| {
        let group = match MemoryGroup::new() {
            Ok(group) => group,
            Err(why) => {
                println!("SKIPPED: memory that somebody eats up: {why}");
                return;
            }
        };
        let setting = Setting {
            group: Some(group.procs()),
            edits: patient().into(),
            ..Setting::default()
        };
        let mut stage = Stage::new(&setting);
        group.limit(group.used() + ROOM_BYTES);
        // A crowded machine disturbs it now and then.
        let undisturbed = (0..5).any(|_| {
            drop(stage.ask(keys::mode, "reset"));
            stage.arm();
            for _ in 0..repeats() {
                let mut eater = group.eater(1_000);
                let end = ended(&mut eater, Duration::from_secs(20));
                drop(eater.kill());
                assert_eq!(end, Some(9), "the kernel ends who eats");
            }
            let said = stage.ask(keys::mode, "status");
            said.is_ok_and(|said| said.starts_with("active"))
        });
        assert!(undisturbed, "{}", stage.log());
        assert!(
            matches!(stage.runtime.try_wait(), Ok(None)),
            "{}",
            stage.log()
        );
        stage.within_limits();
        drop(stage);
        drop(group);
    });
}

/// The eater is as dear to the kernel as the control process. So the inference process goes first, and the eater when it takes
/// what that has left; what moves the robot goes on.
#[test]
fn an_inference_process_that_is_ended_for_memory_costs_at_most_a_hold() {
    told(|| {
        undisturbed(|| {
            let group = match MemoryGroup::new() {
                Ok(group) => group,
                Err(why) => {
                    println!("SKIPPED: an inference process ended for memory: {why}");
                    return true;
                }
            };
            let mut stage = Stage::new(&Setting {
                group: Some(group.procs()),
                ..isolated(None)
            });
            let child = child_of(&stage);
            group.limit(group.used() + ROOM_BYTES);
            let (before, from) = (group.killed(), clock::now());
            let mut eater = group.eater(0);
            let end = ended(&mut eater, Duration::from_secs(20));
            drop(eater.kill());
            assert_eq!(end, Some(9), "the kernel ends who eats, after the other");
            until("the inference process is gone", || {
                !children_of(&stage).contains(&child)
            });
            let killed = group.killed() - before;
            assert!(killed >= 2, "the kernel ended {killed}: {}", stage.log());
            let goes_on = goes_on(&mut stage, "ended for memory", from, child);
            let log = stage.log();
            let words = "the inference process ended: signal: 9 (SIGKILL)";
            assert!(log.contains(words), "{log}");
            drop(stage);
            drop(group);
            goes_on
        });
    });
}
