// SPDX-License-Identifier: Apache-2.0
//! A hundred observations through the bundles of LeRobot's policies, beside what LeRobot's own preprocessor, model and
//! postprocessor answered (`engines/families/hundred.py` made the numbers that are kept, and checks them where torch is).
//!
//! The observations are not kept: both sides make them with the same generator.

use crate::families::folder;
use crate::fixture::cpu;
use std::path::Path;
use tendon::policy::LoadOptions;
use tendon::policy::staged::{Observation, Staged};
use tendon::policy::tensors::TensorFile;

const COUNT: usize = 100;
const EPISODE: usize = 10;
/// Of each joint's range in what LeRobot answered.
const ERROR_MAX: f64 = 1e-4;

struct Dice(u64);

impl Dice {
    fn of(index: usize) -> Dice {
        Dice(
            (index as u64)
                .wrapping_mul(0x9E37_79B9_7F4A_7C15)
                .wrapping_add(1),
        )
    }

    /// 31 bits.
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn unit(&mut self) -> f64 {
        self.next() as f64 / (1_u64 << 31) as f64
    }

    /// Six times eight colours with grain on them.
    fn picture(&mut self, [width, height]: [usize; 2]) -> Vec<u8> {
        let coarse: Vec<u64> = (0..6 * 8 * 3).map(|_| self.next() % 200).collect();
        let mut picture = Vec::with_capacity(width * height * 3);
        for at in 0..width * height * 3 {
            let (pixel, colour) = (at / 3, at % 3);
            let (column, row) = (pixel % width * 8 / width, pixel / width * 6 / height);
            picture.push((coarse[(row * 8 + column) * 3 + colour] + self.next() % 56) as u8);
        }
        picture
    }
}

/// Largest error of the whole as a part of its joint's range, and where.
fn worst(family: &str, sentences: &[&str], unit: bool) -> (f64, String) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/lerobot/{family}.safetensors"));
    let bytes = std::fs::read(path).expect("what LeRobot answered");
    let file = TensorFile::parse(family, &bytes).expect("a safetensors file");
    let mut policy = Staged::load(&folder(family), LoadOptions::default(), &cpu).expect(family);
    let action = policy.file().action.clone().expect("an action");
    let (width, horizon) = (action.names.len(), action.horizon);
    let wanted = file
        .f32("action", &[COUNT, horizon, width])
        .expect("a hundred chunks");
    let sizes: Vec<[usize; 2]> = policy
        .file()
        .cameras
        .iter()
        .map(|camera| camera.source_size)
        .collect();
    let spacing_ns = policy
        .file()
        .cameras
        .iter()
        .map(|camera| (camera.spacing_ms * 1e6) as u64)
        .max();
    let joints = policy
        .file()
        .state
        .as_ref()
        .map_or(0, |state| state.names.len());
    let mut found = Vec::with_capacity(wanted.len());
    for index in 0..COUNT {
        if index % EPISODE == 0 {
            policy.reset();
        }
        let sentence = sentences[index % sentences.len()];
        policy.set_instruction(sentence).expect("a sentence");
        let mut dice = Dice::of(index);
        let pictures: Vec<Vec<u8>> = sizes.iter().map(|size| dice.picture(*size)).collect();
        let state: Vec<f32> = (0..joints)
            .map(|_| (dice.unit() * 2.0 - 1.0) as f32)
            .collect();
        let noise: Vec<f32> = (0..policy.noise_len())
            .map(|_| match unit {
                true => dice.unit() as f32,
                false => ((0..12).map(|_| dice.unit()).sum::<f64>() - 6.0) as f32,
            })
            .collect();
        // A camera that may be missing is so in every third observation.
        let shown: Vec<Option<&[u8]>> = pictures
            .iter()
            .enumerate()
            .map(|(at, picture)| {
                let away = policy.file().cameras[at].missing.is_some() && (index + at) % 3 == 0;
                (!away).then_some(picture.as_slice())
            })
            .collect();
        let seen = Observation {
            captured_ns: index as u64 * spacing_ns.unwrap_or(0).max(1),
            pictures: &shown,
            state: &state,
        };
        let answer = policy.infer(&seen, Some(&noise), None).expect("a chunk");
        found.extend_from_slice(answer.chunk);
    }
    let mut worst = (0.0, String::new());
    for joint in 0..width {
        let column = |of: &[f32]| {
            of.iter()
                .skip(joint)
                .step_by(width)
                .copied()
                .collect::<Vec<f32>>()
        };
        let (found, wanted) = (column(&found), column(&wanted));
        let low = wanted.iter().copied().fold(f32::INFINITY, f32::min);
        let high = wanted.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert!(
            high - low > 0.05,
            "{family}: joint {joint} hardly moves: nothing would be shown"
        );
        for (at, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            let part = f64::from((found - wanted).abs()) / f64::from(high - low);
            if part > worst.0 || part.is_nan() {
                let place = format!(
                    "observation {}, action {}, joint {joint}",
                    at / horizon,
                    at % horizon
                );
                worst = (part, place);
            }
        }
    }
    worst
}

#[test]
fn a_hundred_observations_give_what_lerobots_own_pipeline_gives() {
    let vla = ["open the drawer", "put the blue block in the bowl"];
    let mut bad = Vec::new();
    for (family, sentences, unit) in [
        ("act", &[""][..], false),
        ("diffusion", &[""], false),
        ("groot_n17", &vla, false),
        ("multi_task_dit", &vla, false),
        ("pi05_lerobot", &vla, false),
        ("pi0_fast_lerobot", &vla, false),
        ("pi0_lerobot", &vla, false),
        ("smolvla", &vla, false),
        ("vqbet", &[""], true),
        ("xvla", &vla, false),
    ] {
        let (error, place) = worst(family, sentences, unit);
        println!("{family}: at most {error:.2e} of the range ({place})");
        if error.is_nan() || error > ERROR_MAX {
            bad.push(format!("{family}: {error:.2e} at {place}"));
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}
