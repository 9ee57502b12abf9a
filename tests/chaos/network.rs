// SPDX-License-Identifier: Apache-2.0
//! A bad network: IP packets of the loopback of a network namespace, in which runtime, bench robot and this test run, are
//! delayed, lost, repeated, reordered and corrupted (`bad_network.py`).
//!
//! The link is TCP, so what is lost, reordered or corrupted on the way arrives late instead: a lost segment costs a
//! retransmission of 200 ms. What must hold is the same for all: no command breaks a limit, a gap longer than the
//! motor controller's patience is a stop, and nothing that stopped follows again before a person has said so.

use crate::canary::told;
use crate::stage::{Setting, Stage, locked, repeats};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use tendon::core::wire::state::MotorMode;
use tendon::link::keys;
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
fn nothing_resumes(stage: &Stage, what: &str) -> usize {
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
        stopped.len()
    })
}

#[test]
fn a_bad_network_stops_the_robot_and_never_moves_it_wrongly() {
    told(|| {
        if !inside("network::a_bad_network_stops_the_robot_and_never_moves_it_wrongly") {
            return;
        }
        let Some(mut bad) = Bad::new() else {
            println!("SKIPPED: a bad network: needs root, /dev/net/tun and python3");
            return;
        };
        let rules = [
            ("delay of 5 ms", json!({"delay_ms": 5}), "packets"),
            (
                "delay of 30 +- 10 ms",
                json!({"delay_ms": 30, "jitter_ms": 10}),
                "packets",
            ),
            ("loss of 5 %", json!({"loss": 0.05}), "lost"),
            ("loss of 30 %", json!({"loss": 0.3}), "lost"),
            (
                "reordering of 25 % by 10 ms",
                json!({"delay_ms": 10, "reorder": 0.25}),
                "reordered",
            ),
            (
                "duplication of 20 %",
                json!({"duplicate": 0.2}),
                "duplicated",
            ),
            ("corruption of 5 %", json!({"corrupt": 0.05}), "corrupted"),
        ];
        let nothing = json!({});
        let mut stage = Stage::new(&Setting::default());
        for _ in 0..repeats() {
            for (what, rule, count) in &rules {
                bad.does(rule);
                demo::pause(1_000);
                let did = bad.does(&nothing);
                assert!(did[count].as_u64() > Some(5), "{what}: {did}");
                // Retransmissions that were on their way.
                demo::pause(500);
                let stops = nothing_resumes(&stage, what);
                stage.within_limits();
                println!("{what}: {stops} stops so far, 0 limit violations; {did}");
                drop(stage.ask(keys::mode, "standby"));
                demo::pause(400);
                drop(stage.ask(keys::mode, "reset"));
                stage.arm();
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
            stage.stopped_by_itself("cable cut", cut, crate::SILENCE_MS);
            stage.stays_latched();
            stage.within_limits();
            stage.until_granted(keys::mode, "reset");
            stage.arm();
        }
    });
}
