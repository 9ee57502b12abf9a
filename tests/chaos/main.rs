// SPDX-License-Identifier: Apache-2.0
//! Real processes, really stopped, killed, starved and cut off: `cargo test --release --test chaos -- --nocapture`
//! prints each reaction time beside its bound. `sh tests/chaos/nightly.sh` for the long run.
//!
//! What needs privileges (tmpfs, network namespaces) says so and is skipped without them.

#[cfg(feature = "tls")]
mod authority;
mod camera;
mod canary;
mod crew;
mod ends;
mod gpu;
mod growth;
mod isolation;
mod joints;
mod lines;
mod machine;
mod memory;
mod network;
mod remote;
mod second;
mod service;
mod soak;
mod stage;
mod syscalls;

use canary::told;
use stage::{Setting, Stage, ended, locked, over_again, patient, repeats, signal, until};
use std::process::Command;
use std::time::Duration;
use tendon::bench::arm::JOINTS;
use tendon::core::units::{MS, Mono};
use tendon::core::wire::state::MotorMode;
use tendon::link::{keys, motor};
use tendon::runtime::threads::{self as table, Spec};
use tendon::runtime::{clock, demo};

/// The motor controller's patience, and the step of its own loop.
const SILENCE_MS: u64 = motor::SILENCE_NS / 1_000_000 + 2;
/// A control period of the bench deployment.
const TICK_MS: u64 = 5;
/// The highest velocity limit of the bench robot's joints.
const FASTEST_RAD_S: f64 = 3.5;
/// The watchdog's period.
const WATCH_MS: u64 = 10;

fn drill(text: &str) -> Setting {
    Setting {
        drill: Some(text.to_owned()),
        ..Setting::default()
    }
}

#[test]
fn a_runtime_that_freezes_is_stopped_at_the_motor_and_does_not_resume() {
    told(|| {
        let mut stage = Stage::new(&Setting::default());
        for _ in 0..repeats() {
            let from = signal(&stage.runtime, "STOP");
            demo::pause(200);
            signal(&stage.runtime, "CONT");
            stage.stopped_by_itself("SIGSTOP of the runtime", from, SILENCE_MS);
            demo::pause(300);
            let following = locked(&stage.reports, |reports| {
                reports.last().map(|report| report.mode)
            });
            assert_ne!(following, Some(MotorMode::Following), "it resumed unasked");
            stage.within_limits();
            stage.until_granted(keys::mode, "reset");
            stage.arm();
        }
    });
}

/// Both processes' wall clock is set ahead and back while the robot moves, and before it is armed again.
#[test]
fn a_wall_clock_that_is_set_changes_nothing() {
    over_again(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let (library, file) = (folder.path().join("clock.so"), folder.path().join("clock"));
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(&library)
            .arg("tests/chaos/wall_clock.c")
            .status();
        assert!(built.is_ok_and(|status| status.success()), "a C compiler");
        let set = |ahead_s: i64| {
            // In place: the file is mapped.
            let file = std::fs::File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&file);
            std::os::unix::fs::FileExt::write_all_at(
                &file.expect("opened"),
                &ahead_s.to_ne_bytes(),
                0,
            )
            .expect("written");
        };
        set(0);
        let env = vec![("LD_PRELOAD", library), ("WALL_CLOCK", file.clone())];
        let year = || {
            let date = Command::new("date")
                .arg("+%Y")
                .envs(env.iter().map(|(name, value)| (name, value)))
                .output();
            let year = String::from_utf8_lossy(&date.expect("date runs").stdout)
                .trim()
                .parse::<i64>();
            year.expect("a year")
        };
        let this_year = year();
        let setting = Setting {
            env: env.clone(),
            ..Setting::default()
        };
        let mut stage = Stage::new(&setting);
        const YEAR_S: i64 = 31_557_600;
        for (ahead_s, years) in [(10 * YEAR_S, 10), (-20 * YEAR_S, -20), (3_600, 0)] {
            // A crowded machine disturbs it now and then, a clock that mattered each time.
            let undisturbed = (0..5).any(|_| {
                set(0);
                // Refused where nothing is latched.
                drop(stage.ask(keys::mode, "reset"));
                stage.arm();
                set(ahead_s);
                assert!((year() - this_year - years).abs() <= 1, "the clock is set");
                demo::pause(500);
                let said = stage.ask(keys::mode, "status");
                said.is_ok_and(|said| said.starts_with("active"))
            });
            assert!(undisturbed, "{ahead_s} s: {}", stage.log());
            // Armed under the new clock as under the old.
            stage.until_granted(keys::mode, "standby");
            stage.arm();
        }
        stage.within_limits();
    });
}

/// From threads that make chunks or tell people. What moves the robot never logs.
#[test]
fn a_flood_of_log_lines_that_nobody_reads_stops_nobody() {
    over_again(|| {
        for thread in ["capture", "inference", "telemetry"] {
            // A crowded machine disturbs it now and then, a flood that stops the robot each time.
            let undisturbed = (0..3).any(|_| flooded(thread));
            assert!(undisturbed, "{thread}: stopped three times");
        }
    });
}

/// Whether the robot was still followed at the end of it.
fn flooded(thread: &str) -> bool {
    let setting = Setting {
        deaf: true,
        edits: patient().into(),
        ..drill(&format!("babble:{thread}"))
    };
    let mut stage = Stage::new(&setting);
    signal(&stage.runtime, "USR1");
    // More lines than queue and pipe hold, several times over.
    demo::pause(3_000);
    let said = stage.ask(keys::mode, "status").expect("it answers");
    stage.within_limits();
    let mut stderr = stage.runtime.stderr.take().expect("piped");
    signal(&stage.runtime, "TERM");
    assert_eq!(
        ended(&mut stage.runtime, Duration::from_secs(5)),
        Some(0),
        "it ends although nobody reads"
    );
    let mut lines = Vec::new();
    std::io::Read::read_to_end(&mut stderr, &mut lines).expect("read");
    let lines = String::from_utf8_lossy(&lines);
    assert!(lines.contains("of a flood"), "{thread}: {lines}");
    if !said.starts_with("active") {
        println!("{thread}: {said}");
    }
    said.starts_with("active")
}

/// The kernel's files of a machine that gets hot and cools down.
#[test]
fn a_machine_that_is_hot_slows_the_robot() {
    over_again(|| {
        let root = tempfile::tempdir().expect("a folder");
        let zone = root.path().join("sys/class/thermal/thermal_zone0");
        std::fs::create_dir_all(&zone).expect("made");
        std::fs::write(zone.join("type"), "cpu-thermal\n").expect("written");
        let heat =
            |milli: u32| std::fs::write(zone.join("temp"), format!("{milli}\n")).expect("written");
        heat(50_000);
        let curve = "[derate]\ntemperature_c = [[80, 100], [90, 10]]\n\n[schedule]".to_owned();
        let setting = Setting {
            edits: vec![("[schedule]", curve)],
            env: vec![("TENDON_SYSFS", root.path().to_owned())],
            ..Setting::default()
        };
        let stage = Stage::new(&setting);
        let speed = || stage.ask(keys::speed, "").unwrap_or_default();
        assert_eq!(speed(), "100 % of the speed limits");
        heat(90_000);
        stage::until("the robot is slowed", || {
            speed().contains("; 10 % by the machine's health")
        });
        // What the limits in force allow is on record at the motor controller: a tenth of the fastest joint's.
        demo::pause(1_500);
        let (from, fastest) = (clock::now(), 0.1 * FASTEST_RAD_S);
        demo::pause(1_500);
        // From one place to another over a while: a command that comes late is made up for within a tick or two.
        const WHILE_NS: u64 = 100 * MS;
        let most = |from: Mono| {
            locked(&stage.reports, |reports| {
                let since = reports.iter().filter(|report| report.state.measured > from);
                let states: Vec<_> = since.map(|report| &report.state).collect();
                let pairs = states.iter().filter_map(|first| {
                    let due = first.measured.plus_ns(WHILE_NS);
                    let later = states.partition_point(|state| state.measured < due);
                    Some((first, states.get(later)?))
                });
                let speeds = pairs.flat_map(|(first, later)| {
                    let took_s = later.measured.since_ns(first.measured) as f64 * 1e-9;
                    // The gripper is open or shut at once.
                    let ways = first.position.iter().zip(&later.position).take(JOINTS);
                    ways.map(move |(from, to)| (to - from).abs() / took_s)
                });
                speeds.fold(0.0, f64::max)
            })
        };
        let (before, after) = (most(Mono(0)), most(from));
        let stall_ns = stage.canary.longest_ns(from, clock::now());
        println!(
            "fastest joint: {before:.3} rad/s, at 10 %: {after:.3} of {fastest:.3}; the machine stood still for {:.1} ms",
            stage::ms(stall_ns)
        );
        let room = 1.05 + stall_ns as f64 / WHILE_NS as f64;
        assert!(
            before > fastest && after <= fastest * room,
            "{before}, {after} of {fastest}"
        );
        heat(50_000);
        stage::until("it is let go slowly", || speed().contains("; 25 % by"));
        stage.within_limits();
    });
}

#[test]
fn a_runtime_that_is_killed_is_stopped_at_the_motor() {
    told(|| {
        for _ in 0..repeats() {
            let stage = Stage::new(&Setting::default());
            let from = signal(&stage.runtime, "KILL");
            stage.stopped_by_itself("SIGKILL of the runtime", from, SILENCE_MS);
            stage.within_limits();
        }
    });
}

#[test]
fn a_motor_controller_that_freezes_is_noticed_and_latched() {
    told(|| {
        let mut stage = Stage::new(&Setting::default());
        for _ in 0..repeats() {
            let from = signal(&stage.bench, "STOP");
            // The state is stale after 25 ms as configured; then the next tick.
            stage.held_within("SIGSTOP of the bench robot", from, 25 + 2 * TICK_MS);
            demo::pause(200);
            signal(&stage.bench, "CONT");
            stage.stays_latched();
            stage.until_granted(keys::mode, "reset");
            stage.arm();
        }
    });
}

#[test]
fn a_motor_controller_that_is_killed_is_noticed_and_latched() {
    told(|| {
        for _ in 0..repeats() {
            let stage = Stage::new(&Setting::default());
            let from = signal(&stage.bench, "KILL");
            stage.held_within("SIGKILL of the bench robot", from, 25 + 2 * TICK_MS);
            demo::pause(150);
            stage.stays_latched();
        }
    });
}

/// It lost its power for a moment: another boot, and a robot that may have sagged meanwhile.
#[test]
fn a_motor_controller_that_starts_anew_in_motion_is_not_commanded_before_a_person_has_said_so() {
    told(|| {
        for _ in 0..repeats() {
            let mut stage = Stage::new(&Setting::default());
            let from = signal(&stage.bench, "KILL");
            drop(stage.bench.wait());
            stage.another_bench();
            stage.held_within(
                "a motor controller that starts anew",
                from,
                25 + 2 * TICK_MS,
            );
            // It is there, and echoes keep-alives, before long.
            demo::pause(2_500);
            let commanded = locked(&stage.commands, |commands| {
                let late = commands
                    .iter()
                    .filter(|sent| sent.at > from.plus_ns(500 * MS));
                late.filter(|sent| sent.follow).count()
            });
            assert_eq!(commanded, 0, "nothing is to be followed");
            stage.stays_latched();
            stage.until_granted(keys::mode, "reset");
            stage.until_granted(keys::mode, "active");
        }
    });
}

/// Panics `thread`, checks its record, and returns when that was.
fn panic_of(stage: &Stage, thread: &str) -> Mono {
    signal(&stage.runtime, "USR1");
    let crash = stage.crash();
    assert_eq!(crash.thread, thread);
    assert!(
        crash.cause.contains("drill") && crash.location.is_some(),
        "{crash:?}"
    );
    assert!(
        crash
            .last_ticks
            .iter()
            .any(|ticks| ticks.thread == thread && !ticks.periods_ms.is_empty()),
        "{crash:?}"
    );
    Mono(crash.monotonic_ns)
}

#[test]
fn a_panic_of_what_makes_chunks_is_a_latched_stop_and_the_process_stays_up() {
    told(|| {
        for thread in (0..repeats()).flat_map(|_| ["capture", "inference"]) {
            let mut stage = Stage::new(&drill(&format!("panic:{thread}")));
            let from = panic_of(&stage, thread);
            stage.held_within(&format!("panic of {thread}"), from, WATCH_MS + 2 * TICK_MS);
            stage.stays_latched();
            assert!(
                matches!(stage.runtime.try_wait(), Ok(None)),
                "the process stays up"
            );
            stage.within_limits();
        }
    });
}

#[test]
fn a_panic_of_control_or_the_watchdog_is_a_held_robot() {
    told(|| {
        // Control: the governor's own deadline is a period and a half. Watchdog: its permission lasts 40 ms.
        let rows = [("control", 3 * TICK_MS + 5), ("watchdog", 40 + 2 * TICK_MS)];
        for (thread, bound_ms) in (0..repeats()).flat_map(|_| rows) {
            let stage = Stage::new(&drill(&format!("panic:{thread}")));
            let from = panic_of(&stage, thread);
            stage.held_within(&format!("panic of {thread}"), from, bound_ms);
            stage.within_limits();
        }
    });
}

#[test]
fn a_panic_of_governor_or_egress_is_stopped_at_the_motor() {
    told(|| {
        for thread in (0..repeats()).flat_map(|_| ["governor", "egress"]) {
            let stage = Stage::new(&drill(&format!("panic:{thread}")));
            let from = panic_of(&stage, thread);
            stage.stopped_by_itself(&format!("panic of {thread}"), from, SILENCE_MS);
            stage.within_limits();
        }
    });
}

#[test]
fn an_engine_that_hangs_is_held_when_its_last_chunk_ends() {
    told(|| {
        // Its last action is held for as long as any other.
        let plan_ms = plan_ms();
        let bound_ms = plan_ms + ACTION_MS + 2 * TICK_MS;
        for _ in 0..repeats() {
            let stage = Stage::new(&drill("hang:inference"));
            let from = signal(&stage.runtime, "USR1");
            let took = stage.held_within("hang of the engine", from, bound_ms);
            assert!(took > 0.0);
            // From the picture of the last plan on, which was taken up to a round before the signal.
            locked(&stage.commands, |commands| {
                let held = |sent: &stage::Sent| sent.at > from && sent.held;
                let first = commands.iter().position(held).expect("seen above");
                let before = commands[..first].iter().rfind(|sent| !sent.held);
                let last = before.expect("it followed a plan");
                let followed_ns = last.at.since_ns(last.captured);
                let stall_ns = stage.canary.stall_ns(last.captured, last.at);
                println!("followed until {} ms after its picture", followed_ns / MS);
                assert!(
                    followed_ns <= bound_ms * MS + stall_ns,
                    "a plan of {plan_ms} ms was followed until {} ms after its picture",
                    followed_ns / MS
                );
            });
            stage.within_limits();
        }
    });
}

/// Between two actions of the shipped policy.
const ACTION_MS: u64 = 50;

/// Time from a picture to the last action of the plan that the shipped policy makes of it.
fn plan_ms() -> u64 {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/engines/bench-vla/manifest.json"
    ));
    horizon_ms(&serde_json::from_str(&text.expect("the manifest")).expect("JSON"))
}

/// Time from a chunk's observation to its last action.
fn horizon_ms(manifest: &serde_json::Value) -> u64 {
    let action = &manifest["tendon"]["action"];
    let number = |key: &str| {
        action[key]
            .as_u64()
            .unwrap_or_else(|| panic!("no {key}: {action}"))
    };
    number("chunk_len") * number("period_ms")
}

#[test]
fn a_hang_of_control_or_the_watchdog_is_a_held_robot() {
    told(|| {
        // As with a panic, after the round in which it hangs and the way of the signal.
        let rows = [
            ("control", 3 * TICK_MS + 5),
            ("watchdog", WATCH_MS + 40 + 2 * TICK_MS),
        ];
        for (thread, bound_ms) in (0..repeats()).flat_map(|_| rows) {
            let stage = Stage::new(&drill(&format!("hang:{thread}")));
            let from = signal(&stage.runtime, "USR1");
            stage.held_within(&format!("hang of {thread}"), from, bound_ms + 10);
            stage.within_limits();
        }
    });
}

/// A thread's name, policy, priority and niceness.
type Thread = (String, u32, i32, i32);

/// Each thread, as the kernel has it: fields 2, 41, 40 and 19 of
/// /proc/PID/task/TID/stat.
fn threads_of(pid: u32) -> Vec<Thread> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a running process");
    let stats =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let thread = |stat: String| {
        let (from, to) = (stat.find('(')?, stat.rfind(')')?);
        let rest: Vec<&str> = stat[to + 1..].split_whitespace().collect();
        // The third field stands first here.
        Some((
            stat[from + 1..to].to_owned(),
            rest[41 - 3].parse().ok()?,
            rest[40 - 3].parse().ok()?,
            rest[19 - 3].parse().ok()?,
        ))
    };
    stats.filter_map(thread).collect()
}

/// Checks that of all threads of a process those named have what the table says, where it can be had, and no other has any
/// priority. Returns the others.
#[track_caller]
fn seated_as_the_table_says(pid: u32, specs: &[Spec]) -> Vec<Thread> {
    const FIFO: u32 = 1;
    let may = std::thread::spawn(|| tendon::runtime::realtime::take_seat(80, &[]).fifo == 80);
    let may = may.join().expect("no panic");
    let (named, others): (Vec<Thread>, Vec<Thread>) = threads_of(pid)
        .into_iter()
        .partition(|(name, ..)| specs.iter().any(|spec| spec.name == name));
    for spec in specs {
        let found = named.iter().filter(|(name, ..)| name == spec.name);
        let seats: Vec<(u32, i32)> = found
            .map(|(_, policy, priority, _)| (*policy, *priority))
            .collect();
        assert!(!seats.is_empty(), "no thread {}: {others:?}", spec.name);
        if may {
            let right = seats.iter().all(|seat| *seat == (FIFO, spec.fifo));
            assert!(right, "{}: {seats:?}", spec.name);
        } else {
            println!(
                "SKIPPED: priority of {}: not granted to this user",
                spec.name
            );
        }
    }
    for (name, policy, priority, _) in &others {
        assert_eq!((*policy, *priority), (0, 0), "{name} inherited a priority");
    }
    others
}

/// Every thread that a deployment may have, and a process that a thread with a priority has started: the ferry starts an inference
/// process again.
#[test]
fn only_the_threads_of_the_table_have_real_time_priority_in_both_processes() {
    told(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let (service, _heard) = service::setting(folder.path(), "notify", None);
        let panel = lines::Panel::new();
        let lines = panel.emergency();
        let stage = Stage::new(&Setting {
            edits: lines
                .edits
                .into_iter()
                .chain([isolation::apart()])
                .collect(),
            env: lines.env,
            ..service
        });
        let ours = [
            table::CAPTURE,
            table::FERRY,
            table::SERVICE,
            table::LINES,
            table::CONTROL,
            table::GOVERNOR,
            table::EGRESS,
            table::WATCHDOG,
        ];
        let others = seated_as_the_table_says(stage.runtime.id(), &ours);
        for spec in [
            table::TELEMETRY,
            table::MEMORY,
            table::HEALTH,
            table::OPENER,
        ] {
            let there = others.iter().any(|(name, ..)| name == spec.name);
            assert!(there, "no thread {}: {others:?}", spec.name);
        }
        let theirs = [table::CAPTURE, table::FERRY, table::INFERENCE];
        let first = isolation::child_of(&stage);
        seated_as_the_table_says(first, &theirs);
        isolation::strike(first, rustix::process::Signal::KILL);
        until("another inference process", || {
            stage.log().contains("the inference process runs again")
        });
        let second = isolation::child_of(&stage);
        assert_ne!(first, second);
        seated_as_the_table_says(second, &theirs);
    });
}

#[test]
fn only_the_threads_of_the_table_have_real_time_priority() {
    told(|| {
        let stage = Stage::new(&Setting::default());
        let specs = [
            table::CAPTURE,
            table::INFERENCE,
            table::CONTROL,
            table::GOVERNOR,
            table::EGRESS,
            table::WATCHDOG,
        ];
        let others = seated_as_the_table_says(stage.runtime.id(), &specs);
        assert!(others.len() > 3, "zenoh and tokio run too: {others:?}");
        // Those of the link, and who answers stops, run ahead of the others, and only they.
        let ahead = others
            .iter()
            .filter(|(.., nice)| *nice == tendon::link::session::NICE);
        let ahead: Vec<&str> = ahead.map(|(name, ..)| name.as_str()).collect();
        if stage.log().contains("asked for nice") {
            println!("SKIPPED: niceness of the link's threads: not granted to this user");
        } else {
            let carries = |name: &str| ahead.iter().any(|thread| thread.starts_with(name));
            assert!(carries("rx-") && carries("tx-"), "{others:?}");
        }
        for others_work in ["telemetry", "tendon"] {
            assert!(!ahead.contains(&others_work), "{others:?}");
        }
    });
}

#[test]
fn a_start_that_is_refused_says_why_and_is_never_ready() {
    told(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let toml = "[realtime]\nmode = \"require\"\n[realtime.cores]\ncontrol = [1000]\n";
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let page = taken.local_addr().expect("an address");
        for (name, toml, wants) in [
            (
                "require",
                toml.to_owned(),
                ["realtime.cores.control: asked for [1000]", "nproc"],
            ),
            (
                "page",
                format!("[page]\nlisten = \"{page}\"\n"),
                ["in use", "127.0.0.1"],
            ),
        ] {
            let config = stage::deploy(folder.path(), "tcp/127.0.0.1:0", &toml);
            let (setting, heard) = service::setting(folder.path(), name, None);
            let state = folder.path().join("state");
            let mut runtime = stage::runtime(&config, &state, &setting).spawn();
            let runtime = runtime.as_mut().expect("starts");
            let code = runtime.wait().expect("ends").code();
            let said = std::fs::read_to_string(folder.path().join("runtime.log")).expect("a log");
            assert_eq!(code, Some(1), "{said}");
            assert!(wants.iter().all(|word| said.contains(word)), "{said}");
            let told = service::times(&heard, "READY=1");
            assert!(told.is_empty(), "a start that was refused was never ready");
        }
    });
}
