// SPDX-License-Identifier: Apache-2.0
//! A bad network: IP packets of the loopback of a network namespace, in which runtime, bench robot and this test run, are
//! delayed, lost, repeated, reordered and corrupted (`bad_network.py`).
//!
//! What must hold over TCP and over QUIC: no command breaks a limit or comes after a newer one, a gap longer than the motor
//! controller's patience is a stop within its bound, and nothing that stopped follows again before a person has said so.
//!
//! The fault matrix wants more of a loss of 5 % and less: no effect on motion. Where a lost command is lost and the next one comes, it has
//! none: three in a row may be missing. That is so over QUIC, whose commands are datagrams. TCP cannot promise it: what is lost on
//! the way arrives late instead, and everything behind it waits. It learns of a loss by what
//! arrives behind it, which is the next command, 5 ms later, or the third, 15 ms later; it waits for timers of some milliseconds; and it
//! does so again where what it sends once more is lost too. The motor controller waits 20 ms. So a stop is allowed there, and told;
//! it must be for want of commands, and not for less than that patience.

use crate::canary::told;
use crate::soak::stops;
use crate::stage::{HELD, Sent, Setting, Silence, Stage, locked, ms, repeats};
use crate::{SILENCE_MS, TICK_MS};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use tendon::core::governor::reaction::Cause;
use tendon::core::units::{MS, Mono};
use tendon::core::wire::state::MotorMode;
use tendon::link::{keys, motor};
use tendon::runtime::{clock, demo};

/// Set for the copy of this program that runs inside the namespace.
const INSIDE: &str = "TENDON_CHAOS_INSIDE";

fn privileged(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Runs the named test of this program in a namespace of its own; says so when that cannot be done.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let name = format!("tendon-chaos-{}", std::process::id());
    let made = privileged("ip", &["netns", "add", &name])
        && privileged("ip", &["-n", &name, "link", "set", "lo", "up"]);
    if !made {
        privileged("ip", &["netns", "del", &name]);
        println!("SKIPPED: {test}: needs root, network namespaces and iproute2");
        return false;
    }
    let own = std::env::current_exe().expect("this program");
    let status = Command::new("ip")
        .args(["netns", "exec", &name])
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .status();
    privileged("ip", &["netns", "del", &name]);
    assert!(
        status.is_ok_and(|status| status.success()),
        "{test}, inside the namespace"
    );
    false
}

/// What makes the network bad, while it lives.
struct Bad {
    relay: Child,
    said: BufReader<ChildStdout>,
}

impl Drop for Bad {
    fn drop(&mut self) {
        drop(self.relay.kill());
        drop(self.relay.wait());
    }
}

impl Bad {
    /// `None` where the kernel has no TUN device for us.
    fn new() -> Option<Bad> {
        let mut relay = Command::new("python3")
            .arg("tests/chaos/bad_network.py")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let said = BufReader::new(relay.stdout.take()?);
        let mut bad = Bad { relay, said };
        (bad.line() == "ready").then_some(bad)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("read");
        line.trim().to_owned()
    }

    /// From now on it does this to packets; returns what it did since it was last asked.
    #[track_caller]
    fn does(&mut self, rule: &Value) -> Value {
        let stdin = self.relay.stdin.as_mut().expect("piped");
        writeln!(stdin, "{rule}").expect("written");
        serde_json::from_str(&self.line()).expect("counts")
    }
}

/// Once stopped, it does not follow in the same arming.
#[track_caller]
fn nothing_resumes(stage: &Stage, what: &str) {
    locked(&stage.reports, |reports| {
        let stopped: Vec<u32> = reports
            .windows(2)
            .filter(|pair| {
                pair[0].mode == MotorMode::Following && pair[1].mode == MotorMode::Stopped
            })
            .map(|pair| pair[1].epoch)
            .collect();
        for epoch in &stopped {
            let mut after = reports
                .iter()
                .skip_while(|report| report.epoch != *epoch || report.mode != MotorMode::Stopped);
            assert!(
                after.all(|report| report.epoch != *epoch || report.mode != MotorMode::Following),
                "{what}: followed again in arming {epoch}"
            );
        }
    })
}

/// What the motor controller took last, by the commands' numbers: never one that was sent before another that it took.
#[track_caller]
fn nothing_goes_back(stage: &Stage, what: &str) {
    locked(&stage.reports, |reports| {
        for pair in reports.windows(2) {
            let step = pair[1].echo_counter.wrapping_sub(pair[0].echo_counter);
            assert!(
                step < u32::MAX / 2,
                "{what}: command {} was taken after command {}",
                pair[1].echo_counter,
                pair[0].echo_counter
            );
        }
    })
}

/// Why the runtime began to hold after `from`, each time that it did.
fn holds(commands: &[Sent], from: Mono) -> Vec<&'static str> {
    let begins = |pair: &&[Sent]| pair[1].at > from && pair[1].held && !pair[0].held;
    let began = commands.windows(2).filter(begins);
    let cause = |pair: &[Sent]| Cause::from_code(pair[1].verdict - HELD);
    began
        .map(|pair| cause(pair).map_or("unknown", Cause::words))
        .collect()
}

/// Something that is done to packets.
struct Row {
    what: &'static str,
    rule: Value,
    /// What the relay counts of it.
    count: &'static str,
    /// The matrix wants no effect on motion: over TCP a stop is one that it has brought about, over QUIC there is none.
    harmless: bool,
}

fn row(what: &'static str, rule: Value, count: &'static str) -> Row {
    Row {
        what,
        rule,
        count,
        harmless: false,
    }
}

/// Everything that is done to packets.
fn rows() -> [Row; 8] {
    let shaken = json!({"delay_ms": 30, "jitter_ms": 10});
    let reordered = json!({"delay_ms": 10, "reorder": 0.25});
    let harmless = |what, rule| Row {
        harmless: true,
        ..row(what, rule, "lost")
    };
    let doubled = json!({"duplicate": 0.2});
    [
        row("delay of 5 ms", json!({"delay_ms": 5}), "packets"),
        row("delay of 30 +- 10 ms", shaken, "packets"),
        harmless("loss of 1 %", json!({"loss": 0.01})),
        harmless("loss of 5 %", json!({"loss": 0.05})),
        row("loss of 30 %", json!({"loss": 0.3}), "lost"),
        row("reordering of 25 % by 10 ms", reordered, "reordered"),
        row("duplication of 20 %", doubled, "duplicated"),
        row("corruption of 5 %", json!({"corrupt": 0.05}), "corrupted"),
    ]
}

/// Each row for a second, to a robot that moves.
fn strike(setting: &Setting) {
    let Some(mut bad) = Bad::new() else {
        println!("SKIPPED: a bad network: needs root, /dev/net/tun and python3");
        return;
    };
    let nothing = json!({});
    let mut stage = Stage::new(setting);
    for _ in 0..repeats() {
        for row in &rows() {
            let what = row.what;
            let from = clock::now();
            bad.does(&row.rule);
            demo::pause(1_000);
            let did = bad.does(&nothing);
            assert!(did[row.count].as_u64() > Some(5), "{what}: {did}");
            // What was on its way.
            demo::pause(500);
            nothing_resumes(&stage, what);
            nothing_goes_back(&stage, what);
            stage.within_limits();
            let silences: Vec<Silence> = locked(&stage.reports, |reports| stops(reports, from));
            for silence in &silences {
                silence.in_time(what, SILENCE_MS, &stage.canary);
                if row.harmless {
                    explained(silence, what, setting.quic.is_some(), &stage);
                }
            }
            let held = locked(&stage.commands, |commands| holds(commands, from));
            if row.harmless && setting.quic.is_some() {
                // A tick that was missed is the machine's.
                let others = held
                    .iter()
                    .filter(|cause| **cause != Cause::ProposalLate.words());
                assert_eq!(others.count(), 0, "{what}: held: {held:?}");
            }
            println!(
                "{what}: {} stops, held {} times {held:?}, 0 limit violations; {did}",
                silences.len(),
                held.len()
            );
            drop(stage.ask(keys::mode, "standby"));
            demo::pause(400);
            drop(stage.ask(keys::mode, "reset"));
            stage.arm();
        }
    }
}

/// A stop where there should be none.
#[track_caller]
fn explained(silence: &Silence, what: &str, quic: bool, stage: &Stage) {
    let most_ns = silence.most_ns();
    if quic {
        let stood_ns = stage.canary.any_ns(silence.before_heard, silence.stopped);
        assert!(
            stood_ns >= TICK_MS * MS,
            "{what}: stopped, and the machine stood still for {:.1} ms only",
            ms(stood_ns)
        );
    } else {
        assert!(
            most_ns >= motor::SILENCE_NS,
            "{what}: stopped {:.1} ms after a command at most, for something else than silence",
            ms(most_ns)
        );
    }
}

#[test]
fn a_bad_network_stops_the_robot_and_never_moves_it_wrongly() {
    told(|| {
        if inside("network::a_bad_network_stops_the_robot_and_never_moves_it_wrongly") {
            strike(&Setting::default());
        }
    });
}

#[cfg(feature = "tls")]
#[test]
fn over_quic_a_loss_of_5_percent_does_not_move_the_robot_otherwise() {
    told(|| {
        if inside("network::over_quic_a_loss_of_5_percent_does_not_move_the_robot_otherwise") {
            let folder = tempfile::tempdir().expect("a folder");
            let quic = crate::authority::authority(folder.path());
            if quic.is_some() {
                strike(&Setting {
                    quic,
                    ..Setting::default()
                });
            }
        }
    });
}

#[test]
fn a_cable_that_is_cut_is_a_latched_stop_at_both_ends() {
    told(|| {
        if !inside("network::a_cable_that_is_cut_is_a_latched_stop_at_both_ends") {
            return;
        }
        for _ in 0..repeats() {
            let mut stage = Stage::new(&Setting::default());
            let cut = clock::now();
            assert!(privileged("ip", &["link", "set", "lo", "down"]));
            demo::pause(300);
            assert!(privileged("ip", &["link", "set", "lo", "up"]));
            // The link comes back by itself; the robot does not.
            stage.stopped_by_itself("cable cut", cut, SILENCE_MS);
            stage.stays_latched();
            stage.within_limits();
            stage.until_granted(keys::mode, "reset");
            stage.arm();
        }
    });
}
