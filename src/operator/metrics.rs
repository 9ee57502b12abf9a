// SPDX-License-Identifier: Apache-2.0
//! A snapshot as text for Prometheus (exposition format 0.0.4).

use std::fmt::{Display, Write};

use super::{Gauge, Snapshot};

/// The whole answer of `GET /metrics`.
pub(super) fn text(now: &Snapshot, gauges: &[Gauge]) -> String {
    let mut out = String::new();
    let gauge = "gauge";
    let counter = "counter";
    family(
        &mut out,
        "tendon_mode",
        gauge,
        "1 for the mode the robot is in.",
    );
    sample(&mut out, "tendon_mode", &[("mode", &now.mode)], 1);
    for (name, kind, help, value) in [
        (
            "tendon_inference_ms",
            gauge,
            "From taking up a frame to the chunk, median.",
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
            "How late the control tick woke, median.",
            now.tick_lateness_us,
        ),
    ] {
        family(&mut out, name, kind, help);
        sample(&mut out, name, &[], value);
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
        (
            "tendon_egress_allocations_total",
            "Heap allocations of the egress loop: none a command, some in the link when somebody joins or leaves.",
            now.egress_allocations,
        ),
    ] {
        family(&mut out, name, counter, help);
        sample(&mut out, name, &[], value);
    }
    for fault in &now.faults {
        let name = format!("tendon_{}_total", fault.name);
        family(&mut out, &name, counter, fault.help);
        sample(&mut out, &name, &[], fault.value);
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
        sample(&mut out, name, &[], value);
    }
    if let Some(presence) = now.presence {
        family(
            &mut out,
            "tendon_presence",
            gauge,
            "Probability that the named object is seen.",
        );
        sample(&mut out, "tendon_presence", &[], presence);
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
            sample(&mut out, name, &[("joint", &joint.name)], value(joint));
        }
    }
    let mut last = "";
    for each in gauges {
        if each.name != last {
            let counts = each.name.ends_with("_total");
            let kind = if counts { counter } else { gauge };
            family(&mut out, each.name, kind, each.help);
            last = each.name;
        }
        let labels: Vec<(&str, &str)> = each
            .labels
            .iter()
            .map(|(key, text)| (*key, text.as_str()))
            .collect();
        sample(&mut out, each.name, &labels, each.value);
    }
    out
}

// Writing to a String cannot fail, hence the results dropped below.

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(out: &mut String, name: &str, labels: &[(&str, &str)], value: impl Display) {
    out.push_str(name);
    for (index, (key, text)) in labels.iter().enumerate() {
        let before = if index == 0 { '{' } else { ',' };
        let text = text
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        let _ = write!(out, "{before}{key}=\"{text}\"");
    }
    let end = if labels.is_empty() { "" } else { "}" };
    let _ = writeln!(out, "{end} {value}");
}
