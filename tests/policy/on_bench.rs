// SPDX-License-Identifier: Apache-2.0
//! The bundle of a family, made one for the bench robot: pi0's (two graphs, ten denoising steps, three cameras of which
//! two may be missing), with the bench's joint names, small steps, and the same weights.
//!
//! Its fixture goes with it: what the reference gave, with the other statistics worked into it by openpi's formula
//! `x * (std + 1e-6) + mean`, and the state added to what is relative.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Order of the bench's robot.toml.
pub const NAMES: [&str; 7] = [
    "base_yaw",
    "shoulder_pitch",
    "elbow_pitch",
    "forearm_roll",
    "wrist_pitch",
    "tool_roll",
    "gripper",
];

/// Cameras of the bundle; the first it cannot do without.
pub const ROLES: [&str; 3] = ["base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"];

const EPS: f64 = 1e-6;
/// One action's scatter in rad; a gripper that says 0.2 or so is open.
const MEAN: [f64; 7] = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.2];
const STD: [f64; 7] = [0.02, 0.02, 0.02, 0.02, 0.02, 0.02, 0.05];

/// Writes it into the empty folder `into`; `change` may still change the manifest.
pub fn write(into: &Path, change: impl FnOnce(&mut Value)) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/pi0");
    std::fs::create_dir_all(into).expect("a folder");
    for entry in std::fs::read_dir(&from).expect("the family's bundle") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, into.join(path.file_name().expect("a name"))).expect("a copy");
    }
    let read = |name: &str| std::fs::read(into.join(name)).expect("a file of the bundle");
    let mut stats: Value = serde_json::from_slice(&read("norm_stats.json")).expect("JSON");
    let actions = &mut stats["norm_stats"]["actions"];
    let numbers = |list: &Value| -> Vec<f64> {
        let list = list.as_array().expect("a list");
        list.iter().map(|x| x.as_f64().expect("a number")).collect()
    };
    let (mean, std) = (numbers(&actions["mean"]), numbers(&actions["std"]));
    (actions["mean"], actions["std"]) = (json!(MEAN), json!(STD));
    let mut fixture = read("parity.safetensors");
    let length = u64::from_le_bytes(fixture[..8].try_into().expect("eight bytes")) as usize;
    let header: Value = serde_json::from_slice(&fixture[8..8 + length]).expect("JSON");
    let place = |key: &str| {
        let offsets = numbers(&header[key]["data_offsets"]);
        8 + length + offsets[0] as usize..8 + length + offsets[1] as usize
    };
    let number = |bytes: &[u8]| f64::from(f32::from_le_bytes(bytes.try_into().expect("four")));
    let states: Vec<f64> = fixture[place("state")]
        .chunks_exact(4)
        .map(number)
        .collect();
    let range = place("action");
    let actions_a_frame = range.len() / 4 / states.len();
    for (at, bytes) in fixture[range].chunks_exact_mut(4).enumerate() {
        let joint = at % 7;
        let frame = at / 7 / actions_a_frame;
        let state = if joint < 6 {
            states[frame * 7 + joint]
        } else {
            0.0
        };
        let normalised = (number(bytes) - state - mean[joint]) / (std[joint] + EPS);
        let action = normalised * (STD[joint] + EPS) + MEAN[joint] + state;
        bytes.copy_from_slice(&(action as f32).to_le_bytes());
    }
    let mut manifest: Value = serde_json::from_slice(&read("manifest.json")).expect("JSON");
    let tendon = &mut manifest["tendon"];
    tendon["state"]["names"] = json!(NAMES);
    tendon["action"]["names"] = json!(NAMES);
    tendon["action"]["period_ms"] = json!(50.0);
    // The family's template holds any sentence of the bench, its short test length does not; openpi cuts too.
    tendon["text"]["too_long"] = json!("cut");
    // Steps are fifteen times smaller than the family's, sums of 32 bits are not.
    tendon["parity"]["error_max_fraction"] = json!(0.01);
    for (name, bytes) in [
        ("norm_stats.json", serde_json::to_vec(&stats).expect("JSON")),
        ("parity.safetensors", fixture.clone()),
    ] {
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        tendon["sha256"][name] = json!(digest);
        std::fs::write(into.join(name), bytes).expect("written");
    }
    change(&mut manifest);
    let bytes = serde_json::to_vec_pretty(&manifest).expect("JSON");
    std::fs::write(into.join("manifest.json"), bytes).expect("written");
}
