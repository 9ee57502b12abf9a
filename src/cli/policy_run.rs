// SPDX-License-Identifier: Apache-2.0
//! `tendon policy run`: what a bundle makes of the observations of its own fixture. Nothing moves.

use crate::cli::Failure;
use serde_json::{Map, Value, json};
use std::path::Path;
use tendon::config::Precision;
use tendon::policy::staged::Staged;
use tendon::policy::staged::fixture::Rehearsed;
use tendon::policy::staged::spread::Attention;
use tendon::runtime::engines::cpu_engine;

/// From nothing to the largest number of a map.
const SHADES: [char; 10] = [' ', '.', ':', '-', '=', '+', '*', '#', '%', '@'];

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(dir: &Path, precision: Precision, json: bool) -> Result<(), Failure> {
    let mut told = Vec::new();
    let mut tell = |policy: &Staged, rehearsed: Rehearsed<'_>| {
        told.push(match json {
            true => as_json(policy, rehearsed).to_string(),
            false => as_lines(policy, rehearsed),
        });
    };
    let parity = Staged::rehearse(dir, precision, None, &cpu_engine(1), &mut tell)
        .map_err(super::problems)?;
    for line in told {
        println!("{line}");
    }
    if !json {
        println!("{parity}");
    }
    Ok(())
}

fn names(policy: &Staged) -> &[String] {
    let action = policy.file().action.as_ref();
    action.map_or(&[], |action| &action.names)
}

fn as_json(policy: &Staged, rehearsed: Rehearsed<'_>) -> Value {
    let names = names(policy);
    let spread: Map<String, Value> = names
        .iter()
        .zip(policy.spread())
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let rows = policy.chunk().chunks_exact(names.len().max(1));
    let maps = policy.attention().map(|map| {
        let rows: Vec<&[f32]> = map.values.chunks_exact(map.columns.max(1)).collect();
        json!({"camera": map.camera, "values": rows})
    });
    json!({
        "frame": rehearsed.frame,
        "sentence": rehearsed.sentence,
        "names": names,
        "chunk": rows.collect::<Vec<_>>(),
        "doubt": rehearsed.doubt,
        "spread": spread,
        "attention": maps.collect::<Vec<_>>(),
    })
}

fn as_lines(policy: &Staged, rehearsed: Rehearsed<'_>) -> String {
    let mut out = format!("frame {} \"{}\"", rehearsed.frame, rehearsed.sentence);
    if let Some(doubt) = rehearsed.doubt {
        out += &format!("   doubt {doubt:.3}");
    }
    let names = names(policy);
    let spread = |at: usize| policy.spread().get(at);
    let first = policy.chunk().iter().take(names.len());
    for (at, (name, value)) in names.iter().zip(first).enumerate() {
        out += &format!("\n  {name:24} first action {value:10.4}");
        if let Some(spread) = spread(at) {
            out += &format!("   spread {spread:.4}");
        }
    }
    for map in policy.attention() {
        out += &picture(&map);
    }
    out
}

/// A map in characters.
fn picture(map: &Attention<'_>) -> String {
    let most = map.values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    let mut out = format!("\n  camera {}", map.camera);
    for row in map.values.chunks_exact(map.columns.max(1)) {
        out += "\n    ";
        // Of a number that is not finite the cast makes the first shade.
        let shade = |value: &f32| (value / most * (SHADES.len() - 1) as f32).round() as usize;
        out.extend(
            row.iter()
                .filter_map(|value| SHADES.get(shade(value).min(SHADES.len() - 1))),
        );
    }
    out
}
