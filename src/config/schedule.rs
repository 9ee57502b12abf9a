// SPDX-License-Identifier: Apache-2.0
//! `[schedule]`: how chunks are joined, and what becomes of a plan that has no successor.

use crate::config::file::{Located, Number, ScheduleTable};
use crate::core::governor::limits::Joint;
use crate::core::schedule::merge::{Aggregate, Order};
use crate::core::schedule::{self, Merge, OnInstruction, Rates};
use crate::core::units::MS;
use toml::Spanned;

/// A plan is the tail of an old one when its successor is later than so many times the inference period.
const FRESH_PERIODS: f64 = 2.0;

/// `[schedule]`, checked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleConfig {
    /// The rule.
    pub merge: Merge,
    /// Least seam from rest.
    pub start_ns: u64,
    /// See [`schedule::Config::fresh_ns`].
    pub fresh_ns: u64,
    /// See [`schedule::Config::chunk_age_max_ns`].
    pub expiry_ns: u64,
    /// See [`OnInstruction`].
    pub on_instruction: OnInstruction,
    /// See [`schedule::Config::gripper_lead_ns`].
    pub gripper_lead_ns: u64,
}

impl ScheduleConfig {
    /// With the robot's joints: what the scheduler must know.
    #[must_use]
    pub fn with(&self, joints: &[(String, Joint)], period_ns: u64) -> schedule::Config {
        schedule::Config {
            kinds: joints.iter().map(|(_, joint)| joint.kind).collect(),
            limits: joints.iter().map(|(_, joint)| rates(joint)).collect(),
            period_ns,
            merge: self.merge,
            start_ns: self.start_ns,
            fresh_ns: self.fresh_ns,
            chunk_age_max_ns: self.expiry_ns,
            on_instruction: self.on_instruction,
            gripper_lead_ns: self.gripper_lead_ns,
        }
    }
}

/// What the governor allows a joint at most. A gripper steps: it has none.
#[must_use]
pub fn rates(joint: &Joint) -> Rates {
    Rates {
        velocity_max: joint.limits.velocity_max,
        acceleration_max: joint.limits.acceleration_max,
        jerk_max: joint.limits.jerk_max,
    }
}

/// Checks the table. `inference_period_ms` is the time between two chunks that is asked for.
pub fn check(
    table: &ScheduleTable,
    inference_period_ms: f64,
    at: &mut Located<'_>,
) -> ScheduleConfig {
    let start_ns = optional_ms(at, "schedule.start_ms", &table.start_ms, 2_000.0, 0.0);
    let merge = check_merge(table, inference_period_ms, at);
    let steps = table.instruction_tail_steps.as_ref().map_or(0.0, |given| {
        at.within("schedule.instruction_tail_steps", given, 0.0, 128.0)
    });
    ScheduleConfig {
        merge,
        start_ns,
        gripper_lead_ns: optional_ms(
            at,
            "schedule.gripper_lead_ms",
            &table.gripper_lead_ms,
            1_000.0,
            0.0,
        ),
        fresh_ns: optional_ms(
            at,
            "schedule.fresh_ms",
            &table.fresh_ms,
            10_000.0,
            FRESH_PERIODS * inference_period_ms,
        ),
        // A chunk's own horizon bounds its use; this drops one that was made of a picture of another moment.
        expiry_ns: optional_ms(
            at,
            "schedule.expiry_ms",
            &table.expiry_ms,
            60_000.0,
            2_000.0,
        ),
        on_instruction: OnInstruction {
            tail_steps: steps as u16,
            pause_ns: optional_ms(
                at,
                "schedule.instruction_pause_ms",
                &table.instruction_pause_ms,
                60_000.0,
                0.0,
            ),
        },
    }
}

fn optional_ms(
    at: &mut Located<'_>,
    key: &str,
    given: &Option<Spanned<Number>>,
    high_ms: f64,
    absent_ms: f64,
) -> u64 {
    let ms = given
        .as_ref()
        .map_or(absent_ms, |given| at.within(key, given, 0.0, high_ms));
    (ms * MS as f64) as u64
}

/// Each rule with the keys that it alone reads.
const RULES: [(&str, &[&str]); 5] = [
    ("replace", &[]),
    ("blend", &["blend_ms"]),
    ("ensemble", &["ensemble_decay", "ensemble_order"]),
    ("aggregate", &["aggregate"]),
    ("smooth", &["smooth_last"]),
];

fn check_merge(table: &ScheduleTable, inference_period_ms: f64, at: &mut Located<'_>) -> Merge {
    let word = table.merge.get_ref().as_str();
    let Some((_, wanted)) = RULES.iter().find(|(name, _)| *name == word) else {
        let names: Vec<String> = RULES
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        at.push(
            &table.merge,
            "schedule.merge",
            &names.join(" or "),
            format!("\"{word}\""),
        );
        return Merge::Replace;
    };
    refuse_other_keys(table, word, wanted, at);
    match word {
        "blend" => {
            let blend_ms = needed(at, table, "blend_ms", table.blend_ms.as_ref())
                .map_or(1.0, |given| {
                    at.within("schedule.blend_ms", given, 1.0, 2_000.0)
                });
            if let Some(given) = &table.blend_ms
                && blend_ms > inference_period_ms
            {
                at.push(
                    given,
                    "schedule.blend_ms",
                    &format!(
                        "at most {inference_period_ms:.0}, the time between two chunks at policy.rate_hz: a longer fade is never done"
                    ),
                    blend_ms.to_string(),
                );
            }
            Merge::Blend {
                blend_ns: (blend_ms * MS as f64) as u64,
            }
        }
        "ensemble" => {
            let decay = needed(at, table, "ensemble_decay", table.ensemble_decay.as_ref())
                .map_or(0.0, |given| {
                    at.within("schedule.ensemble_decay", given, -1.0, 1.0)
                });
            let order = needed(at, table, "ensemble_order", table.ensemble_order.as_ref());
            let orders = [
                ("oldest_first", Order::OldestFirst),
                ("newest_first", Order::NewestFirst),
            ];
            let order = named(at, "schedule.ensemble_order", order, &orders);
            Merge::Ensemble {
                decay,
                order: order.unwrap_or(Order::OldestFirst),
            }
        }
        "aggregate" => {
            let name = needed(at, table, "aggregate", table.aggregate.as_ref());
            let mix = named(at, "schedule.aggregate", name, &Aggregate::NAMED);
            Merge::Aggregate(mix.unwrap_or(Aggregate::LatestOnly))
        }
        "smooth" => {
            let last = needed(at, table, "smooth_last", table.smooth_last.as_ref())
                .map_or(1.0, |given| {
                    at.within("schedule.smooth_last", given, 1.0, 32.0)
                });
            Merge::Smooth { last: last as u16 }
        }
        _ => Merge::Replace,
    }
}

fn refuse_other_keys(table: &ScheduleTable, word: &str, wanted: &[&str], at: &mut Located<'_>) {
    let mut refuse = |key: &str, span: Option<Spanned<()>>, found: String| {
        if let Some(span) = span
            && !wanted.contains(&key)
        {
            let expected = format!("nothing, as merge is \"{word}\"");
            at.push(&span, &format!("schedule.{key}"), &expected, found);
        }
    };
    for (key, given) in [
        ("blend_ms", &table.blend_ms),
        ("ensemble_decay", &table.ensemble_decay),
        ("smooth_last", &table.smooth_last),
    ] {
        let found = given.as_ref().map_or(0.0, |given| given.get_ref().0);
        let span = given.as_ref().map(|given| Spanned::new(given.span(), ()));
        refuse(key, span, found.to_string());
    }
    for (key, given) in [
        ("ensemble_order", &table.ensemble_order),
        ("aggregate", &table.aggregate),
    ] {
        let found = given.as_ref().map_or("", |given| given.get_ref().as_str());
        let span = given.as_ref().map(|given| Spanned::new(given.span(), ()));
        refuse(key, span, format!("\"{found}\""));
    }
}

/// A key that the rule needs.
fn needed<'a, T>(
    at: &mut Located<'_>,
    table: &ScheduleTable,
    key: &str,
    given: Option<&'a Spanned<T>>,
) -> Option<&'a Spanned<T>> {
    if given.is_none() {
        let expected = format!("a value, as merge is \"{}\"", table.merge.get_ref());
        let key = format!("schedule.{key}");
        at.push(&table.merge, &key, &expected, "nothing".into());
    }
    given
}

fn named<T: Copy>(
    at: &mut Located<'_>,
    key: &str,
    given: Option<&Spanned<String>>,
    names: &[(&str, T)],
) -> Option<T> {
    let given = given?;
    let found = names.iter().find(|(name, _)| name == given.get_ref());
    if found.is_none() {
        let words: Vec<String> = names
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        let found = format!("\"{}\"", given.get_ref());
        at.push(given, key, &words.join(" or "), found);
    }
    found.map(|(_, value)| *value)
}
