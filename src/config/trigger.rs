// SPDX-License-Identifier: Apache-2.0
//! `policy.infer` and the keys that each of its words reads: when the policy is asked for its next plan.

use crate::config::file::{Located, Number, PolicyTable};
use crate::core::schedule::trigger::{Left, Trigger};
use toml::Spanned;

/// Each word with the keys that it alone reads; it needs one of them.
const WORDS: [(&str, &[&str]); 4] = [
    ("continuous", &[]),
    ("horizon", &["execute_actions"]),
    ("queue", &["queue_actions", "queue_share"]),
    ("surprise", &["surprise_tracking", "surprise_scene"]),
];

/// Checks the keys. Whether the plans are long enough for it is seen when the bundle is known.
pub(super) fn check(table: &PolicyTable, at: &mut Located<'_>) -> Trigger {
    let word = table
        .infer
        .as_ref()
        .map_or("continuous", |word| word.get_ref());
    let keys = [
        ("execute_actions", &table.execute_actions),
        ("queue_actions", &table.queue_actions),
        ("queue_share", &table.queue_share),
        ("surprise_tracking", &table.surprise_tracking),
        ("surprise_scene", &table.surprise_scene),
    ];
    let Some((_, own)) = WORDS.iter().find(|(name, _)| *name == word) else {
        if let Some(given) = &table.infer {
            let words: Vec<String> = WORDS
                .iter()
                .map(|(name, _)| format!("\"{name}\""))
                .collect();
            at.push(
                given,
                "policy.infer",
                &words.join(" or "),
                format!("\"{word}\""),
            );
        }
        return Trigger::Continuous;
    };
    let mut found = 0;
    for (key, given) in keys {
        let Some(given) = given else { continue };
        if own.contains(&key) {
            found += 1;
        } else {
            let expected = format!("nothing, as policy.infer is \"{word}\"");
            at.push(
                given,
                &format!("policy.{key}"),
                &expected,
                given.get_ref().0.to_string(),
            );
        }
    }
    if let Some(given) = &table.infer
        && !own.is_empty()
        && (found == 0 || (word == "queue" && found > 1))
    {
        let names: Vec<String> = own.iter().map(|key| format!("policy.{key}")).collect();
        let how = if word == "surprise" {
            "at least"
        } else {
            "just"
        };
        let expected = format!("{how} one of {} with \"{word}\"", names.join(", "));
        at.push(given, "policy.infer", &expected, format!("{found} of them"));
        return Trigger::Continuous;
    }
    let mut number = |key: &str, given: &Option<Spanned<Number>>, low: f64, high: f64| {
        let given = given.as_ref()?;
        Some(at.within(&format!("policy.{key}"), given, low, high))
    };
    match word {
        "horizon" => Trigger::Horizon {
            actions: number("execute_actions", &table.execute_actions, 1.0, 1_000.0).unwrap_or(1.0)
                as u16,
        },
        "queue" => {
            let actions = number("queue_actions", &table.queue_actions, 0.0, 1_000.0);
            let share = number("queue_share", &table.queue_share, 0.0, 1.0);
            Trigger::Queue(match (actions, share) {
                (Some(actions), _) => Left::Actions(actions as u16),
                (None, share) => Left::Share(share.unwrap_or(1.0)),
            })
        }
        "surprise" => {
            let tracking = number("surprise_tracking", &table.surprise_tracking, 0.0, 10.0);
            let scene = number("surprise_scene", &table.surprise_scene, 0.0, 1.0);
            Trigger::Surprise {
                tracking_max: tracking.unwrap_or(f64::INFINITY),
                scene_max: scene.map_or(f32::INFINITY, |scene| scene as f32),
            }
        }
        _ => Trigger::Continuous,
    }
}
