// SPDX-License-Identifier: Apache-2.0
//! `[governor]` of `tendon.toml`: how the limits of `robot.toml` are kept. Everything in it can be left out.

use crate::config::file::{GovernorTable, Located, RobotFile, TendonFile};
use crate::config::problem::Problem;
use crate::config::{ControlConfig, Robot};
use crate::core::governor::limits::{BadLimits, Coordination, Joint, Limits, Settling};
use crate::core::governor::reaction::{CAUSES, Cause, Reaction, Reactions};
use crate::core::supervisor::deadlines::Deadline;
use crate::core::units::MS;
use toml::Spanned;

/// What the table says, checked.
#[derive(Clone, Debug)]
pub struct GovernorConfig {
    /// What the others do when one joint cannot follow.
    pub coordination: Coordination,
    /// Tighter limits after arming.
    pub settling: Settling,
    /// The reactions, as made stricter.
    pub reactions: Reactions,
    /// Share of the speed limits at the start, percent.
    pub speed_percent: f64,
    /// Poses that are offered when a cause holds the robot.
    pub fallbacks: Vec<(Cause, String)>,
}

/// An arm at half of its speed for a second shows that it does what was meant before it is fast. Acceleration is left
/// alone: the scheduler's seams are planned for it.
const DEFAULT: GovernorConfig = GovernorConfig {
    coordination: Coordination::Synchronised,
    settling: Settling {
        window_ns: 1_000 * MS,
        velocity: 0.5,
        acceleration: 1.0,
    },
    reactions: Reactions::TABLE,
    speed_percent: 100.0,
    fallbacks: Vec::new(),
};

/// Reads the table.
pub fn check(written: &TendonFile, at: &mut Located<'_>) -> GovernorConfig {
    let mut config = DEFAULT;
    let Some(table) = &written.governor else {
        return config;
    };
    if let Some(word) = &table.coordination {
        match word.get_ref().as_str() {
            "synchronised" => config.coordination = Coordination::Synchronised,
            "independent" => config.coordination = Coordination::Independent,
            other => at.push(
                word,
                "governor.coordination",
                "\"synchronised\" or \"independent\"",
                format!("\"{other}\""),
            ),
        }
    }
    if let Some(ms) = &table.settling_ms {
        config.settling.window_ns =
            (at.within("governor.settling_ms", ms, 0.0, 60_000.0) * MS as f64) as u64;
    }
    if let Some(share) = &table.settling_velocity {
        config.settling.velocity = at.within("governor.settling_velocity", share, 0.01, 1.0);
    }
    if let Some(share) = &table.settling_acceleration {
        config.settling.acceleration =
            at.within("governor.settling_acceleration", share, 0.01, 1.0);
    }
    config.reactions = reactions(table, at);
    if let Some(percent) = &table.speed_percent {
        config.speed_percent = at.within("governor.speed_percent", percent, 0.0, 100.0);
    }
    for (name, pose) in &table.fallback {
        let key = format!("governor.fallback.{name}");
        if let Some(cause) = cause(name, &key, pose, at) {
            config.fallbacks.push((cause, pose.get_ref().clone()));
        }
    }
    config
}

/// The poses that are offered are poses of the robot.
pub fn poses(
    written: &TendonFile,
    name: &str,
    text: &str,
    robot: &Robot,
    problems: &mut Vec<Problem>,
) {
    let mut at = Located::new(name, text);
    let table = written.governor.iter();
    for (cause, pose) in table.flat_map(|table| &table.fallback) {
        if !robot.poses.iter().any(|(name, _)| name == pose.get_ref()) {
            let names: Vec<&str> = robot.poses.iter().map(|(name, _)| name.as_str()).collect();
            at.push(
                pose,
                &format!("governor.fallback.{cause}"),
                &format!("a [[pose]] of robot.toml: {}", names.join(", ")),
                format!("\"{}\"", pose.get_ref()),
            );
        }
    }
    problems.append(&mut at.problems);
}

/// The cause that a key names.
fn cause(name: &str, key: &str, place: &Spanned<String>, at: &mut Located<'_>) -> Option<Cause> {
    let cause = CAUSES.into_iter().find(|cause| key_of(*cause) == *name);
    if cause.is_none() {
        let causes: Vec<String> = CAUSES.into_iter().map(key_of).collect();
        let expected = format!("one of {}", causes.join(", "));
        at.push(place, key, &expected, format!("\"{name}\""));
    }
    cause
}

fn reactions(table: &GovernorTable, at: &mut Located<'_>) -> Reactions {
    let mut reactions = Reactions::default();
    for (name, word) in &table.reactions {
        let key = format!("governor.reactions.{name}");
        let Some(cause) = cause(name, &key, word, at) else {
            continue;
        };
        let reaction = match word.get_ref().as_str() {
            "hold" => Reaction::Hold,
            "stop" => Reaction::Stop,
            "torque-off" => Reaction::TorqueOff,
            other => {
                let expected = "\"hold\", \"stop\" or \"torque-off\"";
                at.push(word, &key, expected, format!("\"{other}\""));
                continue;
            }
        };
        match reactions.stricter(cause, reaction) {
            Ok(made) => reactions = made,
            Err(milder) => at.push(
                word,
                &key,
                &format!(
                    "at least {:?}: a deployment may only be stricter",
                    milder.least
                ),
                format!("\"{}\"", word.get_ref()),
            ),
        }
    }
    reactions
}

/// `CameraLost` -> `camera-lost`.
fn key_of(cause: Cause) -> String {
    let mut key = String::new();
    for letter in format!("{cause:?}").chars() {
        if letter.is_ascii_uppercase() && !key.is_empty() {
            key.push('-');
        }
        key.push(letter.to_ascii_lowercase());
    }
    key
}

/// Everything that the governor keeps; limits that cannot be governed are told by the robot's file and key.
pub fn limits(
    config: &GovernorConfig,
    control: &ControlConfig,
    robot: &Robot,
    written: &RobotFile,
    at: &mut Located<'_>,
) -> Option<Limits> {
    let joints: Vec<Joint> = robot.joints.iter().map(|(_, joint)| *joint).collect();
    let made = Limits::new(&joints, control.period_ns).and_then(|defaults| {
        let limits = Limits {
            coordination: config.coordination,
            settling: config.settling,
            reactions: config.reactions,
            state_age_max_ns: control.state_age_max_ns,
            state_lost_ns: Deadline::StateLost.ns().max(control.state_age_max_ns),
            ..defaults
        };
        limits
            .check()
            .and_then(|()| limits.governable())
            .map(|()| limits)
    });
    match made {
        Ok(limits) => Some(limits),
        Err(bad) => {
            let joint = match bad {
                BadLimits::Value { joint, .. }
                | BadLimits::StopTooLong { joint, .. }
                | BadLimits::TooFine { joint, .. }
                | BadLimits::Outside { joint, .. } => joint,
                BadLimits::Count { .. }
                | BadLimits::Setting { .. }
                | BadLimits::Different { .. } => 0,
            };
            let place = written
                .joint
                .get(joint)
                .map_or(&written.name, |joint| &joint.name);
            let key = format!("joint[{joint}] \"{}\"", place.get_ref());
            at.push(place, &key, "limits that can be governed", bad.to_string());
            None
        }
    }
}
