// SPDX-License-Identifier: Apache-2.0
//! A snapshot as text for Prometheus (exposition format 0.0.4).

use std::fmt::{Display, Write};

use super::Snapshot;

/// The whole answer of `GET /metrics`.
pub(super) fn text(now: &Snapshot) -> String {
    let mut out = String::new();
    let gauge = "gauge";
    let counter = "counter";
    family(
        &mut out,
        "tendon_mode",
        gauge,
        "1 for the mode the robot is in.",
    );
    sample(&mut out, "tendon_mode", Some(("mode", &now.mode)), 1);
    for (name, kind, help, value) in [
        (
            "tendon_inference_ms",
            gauge,
            "From taking up a frame to the chunk.",
            now.inference_ms,
        ),
        (
            "tendon_frame_to_command_ms",
            gauge,
            "From a frame landing here to the first command made of it, median.",
            now.frame_to_command_ms,
        ),
        (
            "tendon_tick_lateness_us",
            gauge,
            "How late the control tick woke.",
            now.tick_lateness_us,
        ),
    ] {
        family(&mut out, name, kind, help);
        sample(&mut out, name, None, value);
    }
    for (name, help, value) in [
        (
            "tendon_commands_sent_total",
            "Commands sent.",
            now.commands_sent,
        ),
        (
            "tendon_late_ticks_total",
            "Control ticks that woke too late.",
            now.late_ticks,
        ),
        (
            "tendon_stalls_total",
            "Plans that ran out before their successor came.",
            now.stalls,
        ),
        (
            "tendon_governor_interventions_total",
            "Setpoints changed or refused.",
            now.governor_interventions,
        ),
        (
            "tendon_allocations_total",
            "Heap allocations of the control and governor loops.",
            now.allocations,
        ),
    ] {
        family(&mut out, name, counter, help);
        sample(&mut out, name, None, value);
    }
    for fault in &now.faults {
        let name = format!("tendon_{}_total", fault.name);
        family(&mut out, &name, counter, fault.help);
        sample(&mut out, &name, None, fault.value);
    }
    for (name, help, value) in [
        (
            "tendon_plan_tail_seconds_total",
            "Time on the tail of an overdue plan.",
            now.tail_s,
        ),
        (
            "tendon_plan_stalled_seconds_total",
            "Time slowing or holding for want of a plan.",
            now.stalled_s,
        ),
    ] {
        family(&mut out, name, counter, help);
        sample(&mut out, name, None, value);
    }
    if let Some(presence) = now.presence {
        family(
            &mut out,
            "tendon_presence",
            gauge,
            "Probability that the named object is seen.",
        );
        sample(&mut out, "tendon_presence", None, presence);
    }
    for (name, help, value) in [
        (
            "tendon_joint_measured",
            "Measured position.",
            (|j| j.measured) as fn(&super::JointView) -> f64,
        ),
        ("tendon_joint_commanded", "Commanded position.", |j| {
            j.commanded
        }),
    ] {
        family(&mut out, name, gauge, help);
        for joint in &now.joints {
            sample(&mut out, name, Some(("joint", &joint.name)), value(joint));
        }
    }
    out
}

// Writing to a String cannot fail, hence the results dropped below.

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(out: &mut String, name: &str, label: Option<(&str, &str)>, value: impl Display) {
    let _ = match label {
        Some((key, text)) => {
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            writeln!(out, "{name}{{{key}=\"{text}\"}} {value}")
        }
        None => writeln!(out, "{name} {value}"),
    };
}
