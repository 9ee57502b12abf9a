// SPDX-License-Identifier: Apache-2.0
//! The parity fixture: observations with the chunks that the exporter's own FP32 graph gave for them.
//!
//! Every load runs it through the very path that will drive the robot: tokenizer, scaling, normalisation, engine,
//! un-normalisation. What differs beyond the bundle's bounds is not the policy that was judged.
//!
//! The gate is [`COSINE_MIN`] and [`ERROR_FRACTION_MAX`]: a manifest may ask for more, never for less.

use crate::config::problem::Problem;
use crate::policy::bundle::Bundle;
use crate::policy::folder::SIDE_FILE_BYTES_MAX;
use crate::policy::manifest::{ParityFile, Unit};
use crate::policy::tensors::TensorFile;
use serde::{Deserialize, Serialize};

/// Smallest cosine between a chunk and its reference that a manifest may ask for.
pub const COSINE_MIN: f64 = 0.999;

/// Largest error, as a part of the range that the action has in the reference, that a manifest may allow.
pub const ERROR_FRACTION_MAX: f64 = 0.01;

/// A fixture in memory.
#[derive(Clone, Debug)]
pub struct Fixture {
    /// `[frames][height][width][3]`, of the graph's size.
    pub images: Vec<u8>,
    /// `[frames][names]`, raw.
    pub states: Vec<f32>,
    /// `[frames][max_len]`.
    pub tokens: Vec<i32>,
    /// `[frames][chunk_len][names]`, in units, before the joint state is added.
    pub actions: Vec<f32>,
    /// One a frame.
    pub sentences: Vec<String>,
}

#[derive(Deserialize)]
struct Sentences {
    sentences: Vec<String>,
}

/// How a loaded policy compares with its fixture.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Parity {
    /// Observations compared.
    pub frames: usize,
    /// Smallest cosine between a chunk and its reference; 1 if every reference says "stay".
    pub cosine: f64,
    /// Largest error as a part of its action's range.
    pub error_fraction: f64,
    /// Where that was: frame, action and joint in words.
    pub worst: String,
    /// Each joint by itself.
    pub joints: Vec<JointError>,
    /// What it misses; empty if it holds.
    #[serde(serialize_with = "in_words")]
    pub missed: Vec<Problem>,
}

/// A joint that ranges less in the reference is judged as if it ranged so far: a milliradian, a millimetre, a
/// thousandth of a gripper's travel. Less is what arithmetic leaves of standing still.
const RANGE_MIN: f32 = 1e-3;

/// How far one joint's targets are from the reference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct JointError {
    /// Its name.
    pub name: String,
    /// What its numbers are.
    pub unit: String,
    /// Largest error, in that unit.
    pub error_max: f32,
    /// How far it ranges in the reference; what training saw of it if it stands still there.
    pub range: f32,
}

/// Joints of an action as they are judged.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// Their names.
    pub names: &'a [String],
    /// Their units.
    pub units: &'a [Unit],
    /// How far each ranged in training: stands for a reference in which it stands still.
    pub trained_range: &'a [f32],
}

impl Columns<'_> {
    /// How far column `at` ranges in the reference.
    fn range(&self, at: usize, reference: &[f32]) -> f32 {
        let width = self.names.len().max(1);
        let column = || reference.iter().skip(at).step_by(width).copied();
        let low = column().fold(f32::INFINITY, f32::min);
        let high = column().fold(f32::NEG_INFINITY, f32::max);
        if high > low {
            (high - low).max(RANGE_MIN)
        } else {
            let trained = self.trained_range.get(at);
            trained.map_or(f32::NAN, |range| range.max(RANGE_MIN))
        }
    }
}

fn in_words<S: serde::Serializer>(problems: &[Problem], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(problems.iter().map(ToString::to_string))
}

impl Fixture {
    /// Reads the fixture of a bundle.
    ///
    /// # Errors
    /// Every [`Problem`] with file and key.
    pub fn read(bundle: &Bundle) -> Result<Fixture, Vec<Problem>> {
        let parity = &bundle.parity;
        let one = |problem| vec![problem];
        let bytes = bundle
            .folder()
            .read("tendon.parity.file", &parity.file, SIDE_FILE_BYTES_MAX)
            .map_err(one)?;
        let file = TensorFile::parse(&parity.file, &bytes).map_err(one)?;
        let text = bundle
            .folder()
            .read(
                "tendon.parity.sentences",
                &parity.sentences,
                SIDE_FILE_BYTES_MAX,
            )
            .map_err(one)?;
        let frames = parity.frames;
        let [width, height] = bundle.image.size;
        let mut problems = Vec::new();
        let images = keep(
            file.u8("image", &[frames, height, width, 3])
                .map(<[u8]>::to_vec),
            &mut problems,
        );
        let states = keep(
            file.f32("state", &[frames, bundle.state.names.len()]),
            &mut problems,
        );
        let tokens = keep(
            file.i32("tokens", &[frames, bundle.text.max_len]),
            &mut problems,
        );
        let shape = [
            frames,
            bundle.action.chunk_len,
            bundle.action.vector.names.len(),
        ];
        let actions = keep(file.f32("action", &shape), &mut problems);
        if actions.iter().flatten().any(|value| !value.is_finite()) {
            problems.push(Problem {
                at: format!("{}: action", parity.file),
                expected: "finite numbers".into(),
                found: "NaN or infinity".into(),
            });
        }
        let sentences = match serde_json::from_slice::<Sentences>(&text) {
            Ok(read) if read.sentences.len() == frames => Some(read.sentences),
            Ok(read) => {
                problems.push(Problem {
                    at: parity.sentences.clone(),
                    expected: format!("{frames} sentences"),
                    found: read.sentences.len().to_string(),
                });
                None
            }
            Err(error) => {
                problems.push(Problem {
                    at: parity.sentences.clone(),
                    expected: "{\"sentences\": [...]}".into(),
                    found: error.to_string(),
                });
                None
            }
        };
        match (images, states, tokens, actions, sentences) {
            (Some(images), Some(states), Some(tokens), Some(actions), Some(sentences))
                if problems.is_empty() =>
            {
                Ok(Fixture {
                    images,
                    states,
                    tokens,
                    actions,
                    sentences,
                })
            }
            _ => Err(problems),
        }
    }
}

fn keep<T>(read: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    read.map_err(|problem| problems.push(problem)).ok()
}

impl Parity {
    /// Compares chunks with their references: both `[bounds.frames][chunk_len][columns]` in units. An error is judged by
    /// how far its joint ranges in the reference.
    #[must_use]
    pub fn judge(
        bounds: &ParityFile,
        columns: &Columns<'_>,
        reference: &[f32],
        found: &[f32],
    ) -> Parity {
        let names = columns.names;
        let width = names.len().max(1);
        let joints = names.iter().enumerate().map(|(at, name)| JointError {
            name: name.clone(),
            unit: columns.units.get(at).map_or(String::new(), Unit::to_string),
            error_max: 0.0,
            range: columns.range(at, reference),
        });
        let chunk = (reference.len() / bounds.frames.max(1)).max(1);
        let mut parity = Parity {
            frames: bounds.frames,
            cosine: 1.0,
            error_fraction: 0.0,
            worst: String::new(),
            joints: joints.collect(),
            missed: Vec::new(),
        };
        if found.len() != reference.len() {
            parity.miss(bounds, "frames", reference.len(), &found.len().to_string());
        }
        let chunks = reference.chunks_exact(chunk).zip(found.chunks_exact(chunk));
        for (frame, (want, have)) in chunks.enumerate() {
            let mut says_stay = true;
            for (at, (want, have)) in want.iter().zip(have).enumerate() {
                let joint = parity.joints.get_mut(at % width);
                let range = f64::from(joint.as_ref().map_or(f32::NAN, |joint| joint.range));
                if let Some(joint) = joint {
                    // `max` would pass over a NaN.
                    let error = (have - want).abs();
                    joint.error_max = if error.is_nan() {
                        f32::INFINITY
                    } else {
                        joint.error_max.max(error)
                    };
                }
                let fraction = f64::from((have - want).abs()) / range;
                // A NaN compares false with everything, so it is asked for by name.
                if fraction > parity.error_fraction || fraction.is_nan() {
                    parity.error_fraction = if fraction.is_nan() {
                        f64::INFINITY
                    } else {
                        fraction
                    };
                    let joint = names.get(at % width).map_or("?", String::as_str);
                    parity.worst = format!(
                        "frame {frame}, action {}, \"{joint}\": expected {want}, found {have}",
                        at / width
                    );
                }
                says_stay &= f64::from(want.abs()) / range <= bounds.error_max_fraction;
            }
            // The direction of a chunk that says "stay" is noise; its error is judged all the same.
            if !says_stay {
                parity.cosine = parity.cosine.min(cosine(want, have));
            }
        }
        // Neither can be NaN: it was counted as the worst above.
        if parity.cosine < bounds.cosine_min {
            let found = format!("{:.6}", parity.cosine);
            parity.miss(
                bounds,
                "cosine_min",
                format!("at least {}", bounds.cosine_min),
                &found,
            );
        }
        if parity.error_fraction > bounds.error_max_fraction {
            let expected = format!(
                "at most {} of the action's range in the reference",
                bounds.error_max_fraction
            );
            let found = format!("{:.6} at {}", parity.error_fraction, parity.worst);
            parity.miss(bounds, "error_max_fraction", expected, &found);
        }
        parity
    }

    fn miss(&mut self, bounds: &ParityFile, key: &str, expected: impl ToString, found: &str) {
        self.missed.push(Problem {
            at: format!("{} (tendon.parity.{key})", bounds.file),
            expected: expected.to_string(),
            found: found.into(),
        });
    }
}

/// NaN counts as the worst.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    let value = dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt());
    if value.is_nan() { -1.0 } else { value }
}

impl core::fmt::Display for Parity {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let word = if self.missed.is_empty() {
            "holds"
        } else {
            "MISSED"
        };
        let percent = self.error_fraction * 100.0;
        write!(
            f,
            "{word}: {} frames, cosine {:.6}, largest error {percent:.4} % of its action's range",
            self.frames, self.cosine
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(frames: usize) -> ParityFile {
        ParityFile {
            file: "parity".into(),
            sentences: String::new(),
            frames,
            cosine_min: 0.999,
            error_max_fraction: 0.01,
        }
    }

    /// Two frames of two actions of two joints that ranged over 1 and 2 in training; bounds 0.999 and 0.01.
    #[track_caller]
    fn check(reference: [f32; 8], found: [f32; 8], misses: &[&str]) {
        let bounds = bounds(2);
        let names = ["a".to_owned(), "b".to_owned()];
        let columns = Columns {
            names: &names,
            units: &[Unit::Rad, Unit::Rad],
            trained_range: &[1.0, 2.0],
        };
        let parity = Parity::judge(&bounds, &columns, &reference, &found);
        let missed: Vec<&str> = parity
            .missed
            .iter()
            .map(|problem| problem.at.as_str())
            .collect();
        assert_eq!(missed, misses, "{parity:?}");
    }

    /// The first ranges over 1.5, the second over 0.5.
    const REFERENCE: [f32; 8] = [1.0, 0.5, 1.0, 0.5, -0.5, 1.0, 0.0, 1.0];
    const COSINE: &str = "parity (tendon.parity.cosine_min)";
    const ERROR: &str = "parity (tendon.parity.error_max_fraction)";

    #[test]
    fn the_same_holds() {
        check(REFERENCE, REFERENCE, &[]);
    }
    #[test]
    fn each_joint_is_judged_by_its_range_in_the_reference() {
        let mut found = REFERENCE;
        found[0] += 0.014;
        found[1] += 0.0049;
        check(REFERENCE, found, &[]);
        found[1] += 0.0003;
        check(REFERENCE, found, &[ERROR]);
    }
    #[test]
    fn a_joint_that_stands_still_is_judged_by_what_training_saw() {
        let reference = [1.0, 0.5, 1.0, 0.5, -0.5, 0.5, 0.0, 0.5];
        let mut found = reference;
        found[1] += 0.019;
        check(reference, found, &[]);
        found[1] += 0.002;
        check(reference, found, &[ERROR]);
    }
    #[test]
    fn what_arithmetic_leaves_of_standing_still_is_no_range() {
        let reference = [1.0, 0.500_001, 1.0, 0.5, -0.5, 0.5, 0.0, 0.5];
        let mut found = reference;
        found[1] += 0.000_009;
        check(reference, found, &[]);
        found[1] += 0.000_003;
        check(reference, found, &[ERROR]);
    }
    #[test]
    fn a_joint_that_never_moved_is_judged_all_the_same() {
        let bounds = bounds(1);
        let columns = Columns {
            names: &["a".to_owned()],
            units: &[Unit::Rad],
            trained_range: &[0.0],
        };
        let judged = |found: &[f32]| Parity::judge(&bounds, &columns, &[0.0, 0.0], found);
        assert!(judged(&[0.0, 0.0]).missed.is_empty());
        assert!(!judged(&[0.0, 0.001]).missed.is_empty());
    }
    #[test]
    fn another_direction_misses_both() {
        check(REFERENCE, REFERENCE.map(|value| -value), &[COSINE, ERROR]);
    }
    #[test]
    fn nan_misses_both() {
        let mut found = REFERENCE;
        found[5] = f32::NAN;
        check(REFERENCE, found, &[COSINE, ERROR]);
    }
    #[test]
    fn nothing_misses() {
        check(REFERENCE, [0.0; 8], &[COSINE, ERROR]);
    }
    #[test]
    fn the_direction_of_staying_is_noise() {
        let stay = [0.005, -0.01, 0.005, -0.01, 0.005, -0.01, 0.005, -0.01];
        check(stay, stay.map(|value| -value), &[]);
        check(stay, [0.1; 8], &[ERROR]);
    }
}
