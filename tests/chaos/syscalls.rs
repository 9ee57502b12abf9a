// SPDX-License-Identifier: Apache-2.0
//! What the threads that move the robot ask the kernel for: a sleep until a time, a sleep until somebody wakes them, and to
//! wake the next one. No lock that anybody else holds: waiting for one would show. And no page of memory: all that they use
//! is there.

use crate::TICK_MS;
use crate::canary::told;
use crate::stage::{Setting, Stage, signal};
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use tendon::link::keys;
use tendon::runtime::demo;

/// A key, and what is said there.
type Question = (fn(&str) -> String, &'static str);

const TRACED_MS: u64 = 10_000;
/// What a thread of the standard library that parks itself waits on holds this; its locks wait on others: 2, or 1.
const PARKED: &str = "4294967295";
/// An absolute sleep, a park and a wake; a sleep that the tracer interrupted is resumed.
const LISTED: [&str; 3] = ["clock_nanosleep", "futex", "restart_syscall"];

/// What one thread asked for.
#[derive(Default)]
struct Asked {
    calls: usize,
    /// Calls that are not listed.
    others: BTreeSet<String>,
    /// Words on which it parked.
    parked: BTreeSet<String>,
    /// Words on which it woke somebody.
    woken: BTreeSet<String>,
    /// Any other use of a futex, as it stands in the trace.
    strange: BTreeSet<String>,
}

impl Asked {
    fn of(trace: &str) -> Asked {
        let mut asked = Asked::default();
        for (call, rest) in trace.lines().filter_map(|line| line.split_once('(')) {
            asked.calls += 1;
            if !LISTED.contains(&call) {
                asked.others.insert(call.to_owned());
            }
            if call != "futex" {
                continue;
            }
            // The word, what is done with it, and with which value.
            let mut arguments = rest.split([',', ')']).map(str::trim);
            let mut next = || arguments.next().unwrap_or_default();
            let (word, operation, value) = (next(), next(), next());
            match (operation, value) {
                ("FUTEX_WAIT_BITSET_PRIVATE", PARKED) => asked.parked.insert(word.to_owned()),
                ("FUTEX_WAKE_PRIVATE", "1") => asked.woken.insert(word.to_owned()),
                _ => asked.strange.insert(rest.to_owned()),
            };
        }
        asked
    }
}

#[test]
fn a_lock_that_is_waited_for_is_told_from_a_park() {
    let park = "futex(0x7f10, FUTEX_WAIT_BITSET_PRIVATE, 4294967295, {tv_sec=1, tv_nsec=2}, FUTEX_BITSET_MATCH_ANY) = 0";
    let wake = "futex(0x7f20, FUTEX_WAKE_PRIVATE, 1) = 1";
    let lock = "futex(0x7f30, FUTEX_WAIT_BITSET_PRIVATE, 2, NULL, FUTEX_BITSET_MATCH_ANY) = 0";
    let others_lock = "futex(0x7f40, FUTEX_WAIT_PRIVATE, 2, NULL) = 0";
    let write = "write(2, \"x\", 1) = 1";
    let asked = Asked::of(&[park, wake, lock, others_lock, write].join("\n"));
    assert_eq!(asked.calls, 5);
    assert_eq!(asked.parked, BTreeSet::from(["0x7f10".to_owned()]));
    assert_eq!(asked.woken, BTreeSet::from(["0x7f20".to_owned()]));
    assert_eq!(asked.strange.len(), 2, "{:?}", asked.strange);
    assert_eq!(asked.others, BTreeSet::from(["write".to_owned()]));
}

/// Threads of a process by name.
fn tids(pid: u32) -> BTreeMap<String, String> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let name = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        Some((name.trim().to_owned(), task.file_name().into_string().ok()?))
    };
    tasks.flatten().filter_map(name).collect()
}

/// Egress hands to zenoh, which locks: of it only the word is wanted on which it parks. Meanwhile people ask for everything that
/// can be asked for, so that a lock that is shared with them would be waited for.
#[test]
fn control_and_governor_sleep_wake_and_ask_the_kernel_for_nothing_else() {
    told(|| {
        let mut stage = Stage::new(&Setting::default());
        let tids = tids(stage.runtime.id());
        let traced = ["control", "governor", "egress"];
        let tracer = |name: &str| -> Option<Child> {
            Command::new("strace")
                .args(["-p", tids.get(name)?, "-o"])
                .arg(stage.folder.path().join(name))
                .stderr(std::process::Stdio::null())
                .spawn()
                .ok()
        };
        let tracers: Vec<Child> = traced.iter().filter_map(|name| tracer(name)).collect();
        if tracers.len() < traced.len() {
            println!("SKIPPED: system calls: strace is not installed");
            return;
        }
        let ending = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (stage, ending) = (&stage, &ending);
            let all: [Question; 4] = [
                (keys::mode, "status"),
                (keys::speed, "90"),
                (keys::speed, ""),
                (keys::instruction, "put the red block in the left bin"),
            ];
            for (key, word) in all {
                scope.spawn(move || {
                    while !ending.load(Ordering::Relaxed) {
                        // What is answered does not matter here.
                        drop(stage.ask(key, word));
                    }
                });
            }
            demo::pause(TRACED_MS);
            ending.store(true, Ordering::Relaxed);
        });
        for mut tracer in tracers {
            signal(&tracer, "INT");
            drop(tracer.wait());
        }
        let trace = |name: &str| {
            let path = stage.folder.path().join(name);
            Asked::of(&std::fs::read_to_string(path).unwrap_or_default())
        };
        let [control, governor, egress] = traced.map(trace);
        if control.calls == 0 {
            println!("SKIPPED: system calls: strace may not attach here");
            return;
        }
        for (name, asked) in [("control", &control), ("governor", &governor)] {
            println!(
                "{name}: {} system calls in {TRACED_MS} ms, all of them of {LISTED:?}; parks on {:?}, wakes {:?}",
                asked.calls, asked.parked, asked.woken
            );
            assert!(asked.calls > 1_000, "{name}: was it running?");
            assert!(asked.others.is_empty(), "{name} calls {:?}", asked.others);
            assert!(
                asked.strange.is_empty(),
                "{name} waits for more than a wake: {:?}",
                asked.strange
            );
        }
        assert!(control.parked.is_empty(), "control sleeps by the clock");
        assert_eq!(governor.parked.len(), 1, "{:?}", governor.parked);
        assert_eq!(control.woken, governor.parked, "control wakes the governor");
        assert!(
            governor.woken.is_subset(&egress.parked),
            "the governor wakes {:?}, egress parks on {:?}",
            governor.woken,
            egress.parked
        );
        stage.until_granted(keys::mode, "standby");
    });
}

/// Page faults of a thread since it began, without a read from a disk and with one, as its line in /proc/PID/task/TID/stat has them:
/// fields 10 and 12.
fn page_faults(stat: &str) -> [u64; 2] {
    // Behind the name, which may hold anything, comes the third field.
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<&str> = rest.split_whitespace().collect();
    [10, 12].map(|field| fields[field - 3].parse().expect("a count"))
}

#[test]
fn a_thread_that_touches_new_memory_has_page_faults() {
    let stat = "4711 (a b) S (c) R 1 2 3 4 -1 4194368 101 102 103 104 0 0";
    assert_eq!(page_faults(stat), [101, 103]);
    let own = || {
        let stat = std::fs::read_to_string("/proc/thread-self/stat");
        page_faults(&stat.expect("this thread"))
    };
    const BYTES: usize = 32 << 20;
    let [before, _] = own();
    std::hint::black_box(vec![1_u8; BYTES]);
    let [after, _] = own();
    // Not one a page where the kernel gives large ones.
    assert!(after > before, "{BYTES} bytes cost {before} to {after}");
}

/// Until every queue between the threads has been filled once all round: telemetry's are the longest, 1,024 samples, one a tick.
const WARM_MS: u64 = 1_024 * TICK_MS + 3_000;

/// Stacks are touched before the loops begin, and memory is locked page by page as it is touched: what was there once stays, and
/// a robot at work needs nothing new.
#[test]
fn what_moves_the_robot_takes_no_page_fault() {
    // A crowded machine disturbs it now and then; a thread that waits for memory does not depend on that.
    told(|| {
        assert!(
            (0..3).any(|_| takes_no_page_fault()),
            "disturbed three times"
        )
    });
}

/// Whether the robot was at work all the time.
fn takes_no_page_fault() -> bool {
    let stage = Stage::new(&Setting::default());
    let pid = stage.runtime.id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let locked_kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmLck:"))
        .and_then(|kib| kib.split_whitespace().next()?.parse::<u64>().ok());
    if locked_kib.expect("VmLck of its status") == 0 {
        println!("SKIPPED: page faults: memory may not be locked by this user");
        return true;
    }
    let tids = tids(pid);
    let moving = ["control", "governor", "egress", "watchdog"];
    let look = || {
        moving.map(|name| {
            let tid = tids.get(name).unwrap_or_else(|| panic!("no thread {name}"));
            let stat = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat"));
            page_faults(&stat.expect("it runs"))
        })
    };
    let armed = look();
    demo::pause(WARM_MS);
    let warm = look();
    demo::pause(TRACED_MS);
    let after = look();
    let said = stage.ask(keys::mode, "status").unwrap_or_default();
    if !said.starts_with("active") {
        println!("page faults: {said}");
        return false;
    }
    for (thread, name) in moving.into_iter().enumerate() {
        let [armed, warm, after] = [armed[thread], warm[thread], after[thread]];
        println!(
            "{name}: page faults without and with a read from a disk: {armed:?} when it was armed, {warm:?} after {WARM_MS} ms, {after:?} after {TRACED_MS} ms more"
        );
        assert_eq!(armed[1], after[1], "{name}: a page was read from a disk");
        assert_eq!(warm[0], after[0], "{name}: a page was not there");
    }
    true
}
