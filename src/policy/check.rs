// SPDX-License-Identifier: Apache-2.0
//! Judges a manifest's values: bounds before anything is allocated by them, and every fault in one go.
//!
//! The shapes of the stage must follow from its sections. Whether the outer package says the same is judged in
//! the module above.

use crate::config::problem::Problem;
use crate::core::limits::{CHUNK_STEPS_MAX, CHUNK_VALUES_MAX, JOINTS_MAX};
use crate::policy::bundle::{Action, Image, Stage, Timing, Vector};
use crate::policy::image::Picture;
use crate::policy::manifest::{
    ActionFile, ImageFile, ManifestFile, ParityFile, Representation, StageFile, StateFile,
    StatsFile, TendonFile, TextFile, TimingFile, Unit, at,
};
use crate::policy::parity::{COSINE_MIN, ERROR_FRACTION_MAX};
use crate::policy::picture::SIDE_PX_MAX;
use crate::policy::prompt::TOKENS_MAX;
use crate::ports::{Dtype, StageSpec, TensorSpec};
use std::collections::BTreeSet;

/// Version of the `tendon` key that is understood.
pub const SCHEMA: u32 = 1;
/// Largest tensor: 16 Mi numbers are 64 MiB, five pictures of 1024 x 1024.
pub const TENSOR_VALUES_MAX: usize = 16 << 20;
/// Most observations of a parity fixture; each is one run at every load.
pub const PARITY_FRAMES_MAX: usize = 256;
/// Smallest bound on the error; rten and ONNX Runtime differ by some 1e-7.
const ERROR_FRACTION_MIN: f64 = 1e-6;
/// Smallest scale of a byte; 1/255 is usual, 1/65535 would be for 16-bit pixels.
const SCALE_MIN: f64 = 1e-6;
/// A refusal quotes no more than this of a value, in bytes.
const QUOTE_MAX: usize = 300;
/// Longest time in a manifest, in milliseconds. Beyond a minute it is a mistake of units.
pub const MS_MAX: f64 = 60_000.0;
/// Nanoseconds in a millisecond.
const NS_PER_MS: f64 = 1e6;

/// What the checks made of the `tendon` key.
pub(crate) struct Checked {
    pub(crate) stage: Stage,
    pub(crate) image: Image,
    pub(crate) state: Vector,
    pub(crate) action: Action,
    pub(crate) timing: Timing,
}

/// Checks everything that can be checked without another file. Adds to `problems`; `None` only if it did.
pub(crate) fn check(file: &ManifestFile, problems: &mut Vec<Problem>) -> Option<Checked> {
    let mut judge = Judge::default();
    judge.package(&file.package, &file.tendon);
    let checked = judge.tendon(&file.tendon);
    problems.append(&mut judge.problems);
    checked
}

/// Collects what is wrong.
#[derive(Default)]
pub(super) struct Judge {
    problems: Vec<Problem>,
}

impl Judge {
    pub(super) fn wrong(
        &mut self,
        path: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.problems.push(Problem {
            at: at(path),
            expected: short(expected.into()),
            found: short(found.into()),
        });
    }

    pub(super) fn equal<T: PartialEq + core::fmt::Debug + ?Sized>(
        &mut self,
        path: &str,
        expected: &T,
        found: &T,
    ) {
        if expected != found {
            self.wrong(path, format!("{expected:?}"), format!("{found:?}"));
        }
    }

    /// `low <= found <= high`, written so that a NaN fails too.
    fn within<T: PartialOrd + core::fmt::Debug>(
        &mut self,
        path: &str,
        low: T,
        high: T,
        found: T,
    ) -> bool {
        let good = found >= low && found <= high;
        if !good {
            self.wrong(path, format!("{low:?} to {high:?}"), format!("{found:?}"));
        }
        good
    }

    fn tendon(&mut self, ours: &TendonFile) -> Option<Checked> {
        self.equal("tendon.schema", &SCHEMA, &ours.schema);
        self.text(&ours.text);
        self.vector(
            "tendon.state",
            &ours.state.names,
            &ours.state.units,
            &ours.state.stats,
        );
        self.parity(&ours.parity);
        let image = self.image(&ours.image);
        let action = self.action(&ours.action, &ours.state);
        let timing = self.timing(&ours.timing);
        // Shapes are made of the sections' numbers; if those are wrong, their shadows in the stage are noise.
        if !self.problems.is_empty() && (image.is_none() || action.is_none()) {
            return None;
        }
        let stage = self.stage(ours);
        Some(Checked {
            stage: stage?,
            image: image?,
            state: Vector {
                names: ours.state.names.clone(),
                units: ours.state.units.clone(),
                stats: ours.state.stats.clone(),
            },
            action: action?,
            timing: timing?,
        })
    }

    fn image(&mut self, image: &ImageFile) -> Option<Image> {
        let mut good = true;
        for (path, size) in [
            ("tendon.image.source_size", image.source_size),
            ("tendon.image.size", image.size),
        ] {
            for (index, side) in size.into_iter().enumerate() {
                good &= self.within(&format!("{path}[{index}]"), 1, SIDE_PX_MAX, side);
            }
        }
        if !image.resize.antialias {
            self.wrong("tendon.image.resize.antialias", "true", "false");
        }
        good &= self.within("tendon.image.scale", SCALE_MIN, 1.0, image.scale);
        if !good {
            return None;
        }
        Some(Image {
            role: image.role.clone(),
            source: image.source_size,
            size: image.size,
            scale: image.scale,
            // Sides within the bounds above are all that it asks for.
            picture: Picture::new(image.source_size, image.size, image.scale)?,
        })
    }

    fn text(&mut self, text: &TextFile) {
        self.within("tendon.text.max_len", 1, TOKENS_MAX, text.max_len);
        self.within("tendon.text.pad_id", 0, i32::MAX as u32, text.pad_id);
    }

    fn vector(&mut self, path: &str, names: &[String], units: &[Unit], stats: &StatsFile) -> bool {
        let mut good = self.within(&format!("{path}.names (count)"), 1, JOINTS_MAX, names.len());
        if units.len() != names.len() {
            self.wrong(
                &format!("{path}.units"),
                format!("{} units, one a name", names.len()),
                units.len().to_string(),
            );
            good = false;
        }
        let mut seen = BTreeSet::new();
        for name in names.iter().filter(|name| !seen.insert(name.as_str())) {
            self.wrong(
                &format!("{path}.names"),
                "each name once",
                format!("\"{name}\" twice"),
            );
        }
        self.within(&format!("{path}.stats.eps"), 0.0, 1.0, stats.eps);
        good
    }

    fn action(&mut self, action: &ActionFile, state: &StateFile) -> Option<Action> {
        let mut good = self.vector("tendon.action", &action.names, &action.units, &action.stats);
        good &= self.within(
            "tendon.action.chunk_len",
            1,
            CHUNK_STEPS_MAX,
            action.chunk_len,
        );
        good &= self.within("tendon.action.period_ms", 0.1, MS_MAX, action.period_ms);
        good &= self.within(
            "tendon.action.first_step_ms",
            0.0,
            MS_MAX,
            action.first_step_ms,
        );
        good &= self.within(
            "tendon.action.gripper_threshold",
            0.0,
            1.0,
            action.gripper_threshold,
        );
        if !good {
            return None;
        }
        let values = action.chunk_len * action.names.len();
        self.within(
            "tendon.action.chunk_len x names",
            1,
            CHUNK_VALUES_MAX,
            values,
        );
        self.relative(action, state);
        let names = action.names.clone();
        Some(Action {
            relative: names
                .iter()
                .map(|name| action.relative.contains(name))
                .collect(),
            vector: Vector {
                names,
                units: action.units.clone(),
                stats: action.stats.clone(),
            },
            chunk_len: action.chunk_len,
            period_ns: (action.period_ms * NS_PER_MS) as u64,
            first_step_ns: (action.first_step_ms * NS_PER_MS) as u64,
            gripper_threshold: action.gripper_threshold as f32,
        })
    }

    fn relative(&mut self, action: &ActionFile, state: &StateFile) {
        let path = "tendon.action.relative";
        match action.representation {
            Representation::Absolute if !action.relative.is_empty() => {
                self.wrong(
                    path,
                    "nothing, as tendon.action.representation is absolute",
                    format!("{:?}", action.relative),
                );
            }
            Representation::RelativeToObservationState if action.relative.is_empty() => {
                self.wrong(
                    path,
                    "the joints to which the observation's state is added",
                    "none",
                );
            }
            Representation::Absolute | Representation::RelativeToObservationState => {}
        }
        for name in &action.relative {
            let unit = |names: &[String], units: &[Unit]| {
                names
                    .iter()
                    .position(|other| other == name)
                    .and_then(|index| units.get(index).copied())
            };
            match (
                unit(&action.names, &action.units),
                unit(&state.names, &state.units),
            ) {
                (Some(Unit::Fraction), _) => self.wrong(
                    path,
                    "joints in rad or m",
                    format!("\"{name}\" in fraction"),
                ),
                (Some(ours), Some(seen)) if ours == seen => {}
                (Some(ours), seen) => {
                    self.wrong(
                        path,
                        format!("\"{name}\" in tendon.state in {ours}"),
                        seen.map_or("none".into(), |unit| format!("one in {unit}")),
                    );
                }
                (None, _) => {
                    self.wrong(path, "names of tendon.action.names", format!("\"{name}\""))
                }
            }
        }
    }

    fn timing(&mut self, timing: &TimingFile) -> Option<Timing> {
        let mut good = self.within("tendon.timing.infer_hz", 0.01, 1_000.0, timing.infer_hz);
        good &= self.within("tendon.timing.deadline_ms", 0.1, MS_MAX, timing.deadline_ms);
        good &= self.within(
            "tendon.timing.max_observation_age_ms",
            0.1,
            MS_MAX,
            timing.max_observation_age_ms,
        );
        good.then_some(Timing {
            infer_hz: timing.infer_hz,
            deadline_ns: (timing.deadline_ms * NS_PER_MS) as u64,
            observation_age_max_ns: (timing.max_observation_age_ms * NS_PER_MS) as u64,
        })
    }

    fn parity(&mut self, parity: &ParityFile) {
        self.within("tendon.parity.frames", 1, PARITY_FRAMES_MAX, parity.frames);
        self.within(
            "tendon.parity.cosine_min",
            COSINE_MIN,
            1.0,
            parity.cosine_min,
        );
        self.within(
            "tendon.parity.error_max_fraction",
            ERROR_FRACTION_MIN,
            ERROR_FRACTION_MAX,
            parity.error_max_fraction,
        );
    }

    fn stage(&mut self, ours: &TendonFile) -> Option<Stage> {
        let [stage] = ours.stages.as_slice() else {
            self.wrong(
                "tendon.stages",
                "one stage (chains of stages are not run yet)",
                format!("{}", ours.stages.len()),
            );
            return None;
        };
        let [width, height] = ours.image.size;
        let picture = [1, 3, height, width];
        let image = self.input(
            stage,
            &format!("image.{}", ours.image.role),
            &[Dtype::F32],
            &picture,
        );
        let state = self.input(stage, "state", &[Dtype::F32], &[1, ours.state.names.len()]);
        let text = self.input(
            stage,
            "text",
            &[Dtype::I32, Dtype::I64],
            &[1, ours.text.max_len],
        );
        for (name, input) in &stage.inputs {
            let known = [
                format!("image.{}", ours.image.role),
                "state".into(),
                "text".into(),
            ];
            if !known.contains(&input.from) {
                self.wrong(
                    &format!("tendon.stages[0].inputs.{name}.from"),
                    format!("one of {known:?}"),
                    format!("\"{}\"", input.from),
                );
            }
        }
        let chunk = [1, ours.action.chunk_len, ours.action.names.len()];
        let action = self.output(stage, "action", &chunk);
        let keypoint = self.output(stage, "keypoint", &[1, 2]);
        let presence = self.output(stage, "presence", &[1, 1]);
        if action.is_none() && !stage.outputs.contains_key("action") {
            self.wrong("tendon.stages[0].outputs", "\"action\"", "none");
        }
        for name in stage
            .outputs
            .keys()
            .filter(|name| !["action", "keypoint", "presence"].contains(&name.as_str()))
        {
            self.wrong(
                &format!("tendon.stages[0].outputs.{name}"),
                "action, keypoint or presence",
                "an output that nothing reads",
            );
        }
        let tensor = |(name, dtype, shape): (&String, Dtype, &Vec<usize>)| TensorSpec {
            name: name.clone(),
            dtype,
            shape: shape.clone(),
        };
        Some(Stage {
            spec: StageSpec {
                id: stage.id.clone(),
                inputs: stage
                    .inputs
                    .iter()
                    .map(|(name, input)| tensor((name, input.dtype, &input.shape)))
                    .collect(),
                outputs: stage
                    .outputs
                    .iter()
                    .map(|(name, output)| tensor((name, output.dtype, &output.shape)))
                    .collect(),
            },
            onnx: stage.onnx.clone(),
            image: image?,
            state: state?,
            text: text?,
            action: action?,
            keypoint,
            presence,
        })
    }

    /// The one input that comes from `from`, with the type and shape that its section implies.
    fn input(
        &mut self,
        stage: &StageFile,
        from: &str,
        dtypes: &[Dtype],
        shape: &[usize],
    ) -> Option<usize> {
        let mut found = stage
            .inputs
            .iter()
            .enumerate()
            .filter(|(_, (_, input))| input.from == from);
        let (Some((index, (name, input))), None) = (found.next(), found.next()) else {
            let count = stage
                .inputs
                .values()
                .filter(|input| input.from == from)
                .count();
            self.wrong(
                "tendon.stages[0].inputs",
                format!("one from \"{from}\""),
                count.to_string(),
            );
            return None;
        };
        self.tensor(
            &format!("tendon.stages[0].inputs.{name}"),
            dtypes,
            shape,
            input.dtype,
            &input.shape,
        );
        Some(index)
    }

    fn output(&mut self, stage: &StageFile, name: &str, shape: &[usize]) -> Option<usize> {
        let (index, (_, output)) = stage
            .outputs
            .iter()
            .enumerate()
            .find(|(_, (other, _))| *other == name)?;
        self.tensor(
            &format!("tendon.stages[0].outputs.{name}"),
            &[Dtype::F32],
            shape,
            output.dtype,
            &output.shape,
        );
        Some(index)
    }

    fn tensor(
        &mut self,
        path: &str,
        dtypes: &[Dtype],
        shape: &[usize],
        dtype: Dtype,
        found: &[usize],
    ) {
        if !dtypes.contains(&dtype) {
            self.wrong(
                &format!("{path}.dtype"),
                format!("one of {dtypes:?}"),
                format!("{dtype:?}"),
            );
        }
        self.equal(&format!("{path}.shape"), shape, found);
        let values = found
            .iter()
            .fold(1_usize, |product, side| product.saturating_mul(*side));
        self.within(
            &format!("{path}.shape (numbers)"),
            1,
            TENSOR_VALUES_MAX,
            values,
        );
    }
}

/// Cuts a quotation that would fill the screen.
fn short(text: String) -> String {
    match (0..=QUOTE_MAX)
        .rev()
        .find(|end| text.is_char_boundary(*end))
    {
        Some(end) if text.len() > QUOTE_MAX => format!("{}...", &text[..end]),
        _ => text,
    }
}
