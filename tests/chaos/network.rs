// SPDX-License-Identifier: Apache-2.0
//! A bad network: `tc netem` on the loopback of a network namespace in which runtime, bench robot and this test run.
//!
//! The link is TCP, so what netem loses, repeats, reorders or corrupts arrives late instead: a lost segment costs a
//! retransmission of 200 ms. What must hold is the same for all: no command breaks a limit, a gap longer than the
//! motor controller's patience is a stop, and nothing that stopped follows again before a person has said so.

use crate::alone;
use crate::stage::{Setting, Stage, locked, repeats};
use std::process::Command;
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
fn inside(test: &str, needs_netem: bool) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let name = format!("tendon-chaos-{}", std::process::id());
    let made = privileged("ip", &["netns", "add", &name])
        && privileged("ip", &["-n", &name, "link", "set", "lo", "up"]);
    let netem = [
        "-n", &name, "qdisc", "add", "dev", "lo", "root", "netem", "delay", "0ms",
    ];
    if !made || (needs_netem && !privileged("tc", &netem)) {
        privileged("ip", &["netns", "del", &name]);
        println!(
            "SKIPPED: {test}: needs root, network namespaces{}",
            if needs_netem {
                ", tc and the kernel's sch_netem"
            } else {
                " and iproute2"
            }
        );
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

fn netem(rule: &[&str]) {
    let set = [&["qdisc", "change", "dev", "lo", "root", "netem"], rule].concat();
    assert!(privileged("tc", &set), "tc {set:?}");
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
    let _alone = alone();
    if !inside(
        "network::a_bad_network_stops_the_robot_and_never_moves_it_wrongly",
        true,
    ) {
        return;
    }
    let rules: [(&str, &[&str]); 6] = [
        ("delay 5 ms", &["delay", "5ms"]),
        ("loss 5 %", &["loss", "5%"]),
        ("loss 30 %", &["loss", "30%"]),
        (
            "reorder 25 % of 10 ms",
            &["delay", "10ms", "reorder", "25%"],
        ),
        ("duplicate 20 %", &["duplicate", "20%"]),
        ("corrupt 5 %", &["corrupt", "5%"]),
    ];
    let mut stage = Stage::new(&Setting::default());
    for (what, rule) in (0..repeats().div_ceil(2)).flat_map(|_| rules) {
        netem(rule);
        demo::pause(1_000);
        netem(&["delay", "0ms"]);
        // Retransmissions that were on their way.
        demo::pause(500);
        let stops = nothing_resumes(&stage, what);
        stage.within_limits();
        println!("netem {what}: {stops} stops so far, 0 limit violations");
        drop(stage.ask(keys::mode, "standby"));
        demo::pause(400);
        drop(stage.ask(keys::mode, "reset"));
        stage.arm();
    }
}

#[test]
fn a_cable_that_is_cut_is_a_latched_stop_at_both_ends() {
    let _alone = alone();
    if !inside(
        "network::a_cable_that_is_cut_is_a_latched_stop_at_both_ends",
        false,
    ) {
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
        let answer = stage.ask(keys::mode, "active");
        assert!(
            answer.as_ref().is_err_and(|said| said.contains("latched")),
            "{answer:?}"
        );
        stage.within_limits();
        stage.until_granted(keys::mode, "reset");
        stage.arm();
    }
}
