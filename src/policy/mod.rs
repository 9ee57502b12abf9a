// SPDX-License-Identifier: Apache-2.0
//! What the model's training fixed: how a picture, a joint state and a sentence are fed, and how an action is read.
//!
//! A *bundle* ([`bundle`]) is a policy packaged for running: [`manifest`] as written, the files of its [`folder`] with
//! their hashes, statistics ([`stats`]), tokenizer ([`text`]) and a fixture ([`parity`]) that every load must
//! reproduce. A [`Policy`] is a bundle with an engine: one call of [`Policy::infer`] makes a frame and a joint state
//! into absolute joint targets.
//!
//! Invariant: [`Policy::infer`] allocates nothing but what the engine allocates inside its own run call.
//!
//! Not here: when to infer and how old an observation may be (the inference thread), what becomes of the targets
//! (scheduler, governor), how a graph is run (`engine`, handed in by the caller).

pub mod binding;
pub mod bundle;
pub mod describe;
pub mod folder;
pub mod image;
pub mod manifest;
pub mod parity;
pub mod stats;
pub mod tensors;
pub mod text;

use crate::config::Precision;
use crate::config::problem::Problem;
use crate::core::action::JointKind;
use crate::core::observation::JointState;
use crate::core::units::Mono;
use crate::policy::binding::Binding;
use crate::policy::bundle::Bundle;
use crate::policy::folder::SIDE_FILE_BYTES_MAX;
use crate::policy::image::Picture;
use crate::policy::manifest::{StatsFile, Unit, at};
use crate::policy::parity::{Fixture, Parity};
use crate::policy::stats::Stats;
use crate::policy::tensors::TensorFile;
use crate::policy::text::{Instruction, InstructionFault, Text};
use crate::ports::{Engine, EngineFault, Frame, StageSpec, Tensor};
use core::fmt;
use std::path::Path;

/// Makes an engine of a graph's file. The policy does not know which; a robot takes TensorRT, a laptop rten.
pub type EngineLoader<'a> = dyn Fn(&Path, &StageSpec) -> Result<Box<dyn Engine>, EngineFault> + 'a;

/// What becomes of a policy that misses its fixture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ParityMiss {
    /// It does not load.
    #[default]
    Refuse,
    /// It loads, and [`Policy::parity`] tells. For measuring, not for driving a robot.
    Report,
}

/// How a bundle is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Which graph.
    pub precision: Precision,
    /// What becomes of a miss.
    pub parity_miss: ParityMiss,
}

/// A bundle with an engine: frame and joint state in, absolute joint targets out.
pub struct Policy {
    bundle: Bundle,
    engine: Box<dyn Engine>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    picture: Picture,
    text: Text,
    state_stats: Stats,
    action_stats: Stats,
    parity: Parity,
    binding: Option<Binding>,
    instructed: bool,
    /// `[chunk_len][joints]`, order of robot.toml.
    targets: Vec<f32>,
}

/// What one run gave. Lent by the policy until the next run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Inference<'a> {
    /// Absolute joint targets, `[chunk_len][joints]`, row-major, joint order of robot.toml; radians, metres, or 0 and 1
    /// for a gripper. Action i is for the frame's capture plus `first_step_ns` plus i times `period_ns`.
    pub targets: &'a [f32],
    /// Probability 0..1 that the named object is in the picture; `None` if the graph does not tell.
    pub presence: Option<f32>,
    /// Where it is, 0..1 from the left and from the top; `None` if the graph does not tell. Means nothing at low presence.
    pub keypoint: Option<[f32; 2]>,
    /// Where the time went.
    pub timing: InferTiming,
}

/// Where the time of one inference went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InferTiming {
    /// Picture and state into tensors.
    pub preprocess_ns: u64,
    /// The engine's own run call.
    pub engine_ns: u64,
    /// Tensors into joint targets.
    pub decode_ns: u64,
}

/// An output of the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The chunk.
    Action,
    /// Place in the picture.
    Keypoint,
    /// Logit of presence.
    Presence,
}

/// Why there is no chunk. The robot goes on with the one it has, until that runs out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InferFault {
    /// [`Policy::bind`] was not called.
    #[error("the policy is not bound to a robot's joints")]
    NotBound,
    /// No instruction was ever accepted.
    #[error("the policy has no instruction")]
    NoInstruction,
    /// The camera gives another size than the policy was trained on.
    #[error("expected a frame of {}x{}, found {}x{} with {bytes} bytes", expected[0], expected[1], found[0], found[1])]
    Frame {
        /// Width and height in the manifest.
        expected: [usize; 2],
        /// Width and height of the frame.
        found: [usize; 2],
        /// Bytes of the frame.
        bytes: usize,
    },
    /// The joint state is of another robot.
    #[error("expected the state of {expected} joints, found {found}")]
    Joints {
        /// Joints bound.
        expected: usize,
        /// Joints in the state.
        found: usize,
    },
    /// A measured position is NaN or infinite.
    #[error("position of joint {joint} is not finite")]
    State {
        /// Index, order of robot.toml.
        joint: usize,
    },
    /// The engine failed.
    #[error("engine: {0}")]
    Engine(#[from] EngineFault),
    /// The graph gave NaN or infinity. The whole result is refused.
    #[error("output {output:?} is not finite at {at}; the whole result is refused")]
    NotFinite {
        /// Which output.
        output: Output,
        /// Index of the first such number.
        at: usize,
    },
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("bundle", &self.bundle.name)
            .field("parity", &self.parity)
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// Opens, checks and loads the bundle in `dir`, and runs its fixture.
    ///
    /// # Errors
    /// Every [`Problem`] found, with file, key, what was expected and what was found.
    pub fn load(
        dir: &Path,
        options: LoadOptions,
        engine: &EngineLoader<'_>,
    ) -> Result<Policy, Vec<Problem>> {
        let bundle = Bundle::open(dir)?;
        let mut problems = Vec::new();
        let state_stats = keep(
            read_stats(&bundle, &bundle.state.stats, &bundle.state.names),
            &mut problems,
        );
        let action_stats = keep(
            read_stats(
                &bundle,
                &bundle.action.vector.stats,
                &bundle.action.vector.names,
            ),
            &mut problems,
        );
        let text = keep(read_text(&bundle), &mut problems);
        let fixture = keep(Fixture::read(&bundle), &mut problems);
        let engine = keep(
            load_engine(&bundle, options.precision, engine),
            &mut problems,
        );
        let (Some(state_stats), Some(action_stats), Some(text), Some(fixture), Some(engine)) =
            (state_stats, action_stats, text, fixture, engine)
        else {
            return Err(problems);
        };
        let picture = Picture::new(bundle.image.source, bundle.image.size, bundle.image.scale);
        let mut policy = Policy {
            inputs: bundle.stage.spec.inputs.iter().map(Tensor::zeros).collect(),
            outputs: bundle
                .stage
                .spec
                .outputs
                .iter()
                .map(Tensor::zeros)
                .collect(),
            parity: Parity {
                frames: 0,
                cosine: 1.0,
                error_fraction: 0.0,
                worst: String::new(),
                missed: Vec::new(),
            },
            bundle,
            engine,
            picture,
            text,
            state_stats,
            action_stats,
            binding: None,
            instructed: false,
            targets: Vec::new(),
        };
        policy.parity = policy
            .run_fixture(&fixture)
            .map_err(|problem| vec![problem])?;
        match options.parity_miss {
            ParityMiss::Refuse if !policy.parity.missed.is_empty() => Err(policy.parity.missed),
            ParityMiss::Refuse | ParityMiss::Report => Ok(policy),
        }
    }

    /// The checked bundle.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// How the loaded policy compares with its fixture.
    #[must_use]
    pub fn parity(&self) -> &Parity {
        &self.parity
    }

    /// The tokenizer, to be used on another thread.
    #[must_use]
    pub fn text(&self) -> &Text {
        &self.text
    }

    /// Ties the policy's names to the robot's joints, order of robot.toml. Needed once before [`Policy::infer`].
    ///
    /// # Errors
    /// Every [`Problem`]; the policy stays as it was bound before.
    pub fn bind(&mut self, joints: &[(&str, JointKind)]) -> Result<(), Vec<Problem>> {
        let binding = Binding::new(&self.bundle, joints)?;
        self.targets = vec![0.0; self.bundle.action.chunk_len * binding.joints()];
        self.binding = Some(binding);
        Ok(())
    }

    /// Tokenises a sentence and obeys it from the next run on. Allocates; [`Policy::take`] does not.
    ///
    /// # Errors
    /// [`InstructionFault`]; the policy keeps the instruction it has.
    pub fn set_instruction(&mut self, sentence: &str) -> Result<Instruction, InstructionFault> {
        let instruction = self.text.encode(sentence)?;
        self.take(&instruction);
        Ok(instruction)
    }

    /// Obeys an instruction made by [`Policy::text`] from the next run on. Only copies numbers.
    pub fn take(&mut self, instruction: &Instruction) {
        self.write_tokens(&instruction.tokens);
        self.instructed = true;
    }

    /// One observation through the policy. `now` is read four times, to tell where the time went.
    ///
    /// The caller judges the age of `frame` and `state`; `state` is the one measured nearest to the frame's capture.
    ///
    /// # Errors
    /// [`InferFault`]; nothing of a refused result can be used.
    pub fn infer(
        &mut self,
        frame: &Frame,
        state: &JointState,
        now: &dyn Fn() -> Mono,
    ) -> Result<Inference<'_>, InferFault> {
        let began = now();
        self.write_observation(frame, state)?;
        let written = now();
        self.engine.run(&self.inputs, &mut self.outputs)?;
        let ran = now();
        let (presence, keypoint) = self.decode(state)?;
        let timing = InferTiming {
            preprocess_ns: written.since_ns(began),
            engine_ns: ran.since_ns(written),
            decode_ns: now().since_ns(ran),
        };
        Ok(Inference {
            targets: &self.targets,
            presence,
            keypoint,
            timing,
        })
    }

    fn write_observation(&mut self, frame: &Frame, state: &JointState) -> Result<(), InferFault> {
        let binding = self.binding.as_ref().ok_or(InferFault::NotBound)?;
        if !self.instructed {
            return Err(InferFault::NoInstruction);
        }
        if state.joints != binding.joints() {
            return Err(InferFault::Joints {
                expected: binding.joints(),
                found: state.joints,
            });
        }
        if let Some(joint) = state
            .positions()
            .iter()
            .position(|position| !position.is_finite())
        {
            return Err(InferFault::State { joint });
        }
        let eps = self.bundle.state.stats.eps as f32;
        let tensor = self
            .inputs
            .get_mut(self.bundle.stage.state)
            .and_then(Tensor::f32_mut)
            .unwrap_or_default();
        for (index, (slot, reading)) in tensor.iter_mut().zip(&binding.state).enumerate() {
            *slot = self.state_stats.normalise(index, reading.of(state), eps);
        }
        let found = [frame.width, frame.height];
        let expected = self.bundle.image.source;
        let wrong = InferFault::Frame {
            expected,
            found,
            bytes: frame.rgb.len(),
        };
        if found != expected {
            return Err(wrong);
        }
        let tensor = self
            .inputs
            .get_mut(self.bundle.stage.image)
            .and_then(Tensor::f32_mut)
            .unwrap_or_default();
        self.picture.fill(&frame.rgb, tensor).map_err(|_| wrong)
    }

    fn write_tokens(&mut self, tokens: &[i32]) {
        let tensor = self
            .inputs
            .get_mut(self.bundle.stage.text)
            .and_then(Tensor::i32_mut)
            .unwrap_or_default();
        for (slot, token) in tensor.iter_mut().zip(tokens) {
            *slot = *token;
        }
    }

    /// Refuses the outputs whole if any number is not finite.
    fn check_outputs(&self) -> Result<(), InferFault> {
        let stage = &self.bundle.stage;
        let outputs = [
            (Output::Action, Some(stage.action)),
            (Output::Keypoint, stage.keypoint),
            (Output::Presence, stage.presence),
        ];
        for (output, index) in outputs {
            let values = self.output(index);
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(InferFault::NotFinite { output, at });
            }
        }
        Ok(())
    }

    fn output(&self, index: Option<usize>) -> &[f32] {
        index
            .and_then(|index| self.outputs.get(index))
            .and_then(Tensor::f32)
            .unwrap_or_default()
    }

    /// Normalised action -> joint targets in robot order; presence and keypoint beside it.
    fn decode(
        &mut self,
        state: &JointState,
    ) -> Result<(Option<f32>, Option<[f32; 2]>), InferFault> {
        self.check_outputs()?;
        let action = &self.bundle.action;
        let columns = action.vector.names.len();
        let binding = self.binding.as_ref().ok_or(InferFault::NotBound)?;
        let raw = self
            .outputs
            .get(self.bundle.stage.action)
            .and_then(Tensor::f32)
            .unwrap_or_default();
        for (row, targets) in raw
            .chunks_exact(columns)
            .zip(self.targets.chunks_exact_mut(binding.joints()))
        {
            for ((target, column), position) in targets
                .iter_mut()
                .zip(&binding.action)
                .zip(state.positions())
            {
                let value = self
                    .action_stats
                    .restore(*column, row.get(*column).copied().unwrap_or(f32::NAN));
                *target = match (
                    action.vector.units.get(*column),
                    action.relative.get(*column),
                ) {
                    (Some(Unit::Fraction), _) => {
                        f32::from(u8::from(value >= action.gripper_threshold))
                    }
                    (_, Some(true)) => value + *position as f32,
                    _ => value,
                };
            }
        }
        // Finite numbers can still overflow when multiplied by a deviation.
        if let Some(at) = self.targets.iter().position(|value| !value.is_finite()) {
            return Err(InferFault::NotFinite {
                output: Output::Action,
                at,
            });
        }
        let presence = self
            .output(self.bundle.stage.presence)
            .first()
            .map(|logit| 1.0 / (1.0 + (-logit).exp()));
        let keypoint = match self.output(self.bundle.stage.keypoint) {
            [x, y] => Some([*x, *y]),
            _ => None,
        };
        Ok((presence, keypoint))
    }

    /// Runs the fixture through tokenizer, scaling, normalisation, engine and un-normalisation.
    fn run_fixture(&mut self, fixture: &Fixture) -> Result<Parity, Problem> {
        let wrong = |expected: &str, found: String| Problem {
            at: self.bundle.parity.file.clone(),
            expected: expected.into(),
            found,
        };
        let widths = (
            self.bundle.state.names.len(),
            self.bundle.text.max_len,
            self.bundle.action.vector.names.len(),
        );
        let picture_bytes = fixture.images.len() / self.bundle.parity.frames;
        let eps = self.bundle.state.stats.eps as f32;
        let mut found = Vec::with_capacity(fixture.actions.len());
        let states = fixture.states.chunks_exact(widths.0);
        let frames = fixture
            .images
            .chunks_exact(picture_bytes)
            .zip(states)
            .zip(fixture.tokens.chunks_exact(widths.1));
        for (((small, state), tokens), sentence) in frames.zip(&fixture.sentences) {
            let encoded = self
                .text
                .encode(sentence)
                .map_err(|fault| wrong("sentences that fit", fault.to_string()))?;
            if encoded.tokens != tokens {
                return Err(wrong(
                    &format!("tokens {tokens:?} for \"{sentence}\""),
                    format!("{:?}", encoded.tokens),
                ));
            }
            let stage = &self.bundle.stage;
            if let Some(tensor) = self.inputs.get_mut(stage.image).and_then(Tensor::f32_mut) {
                self.picture
                    .fill_small(small, tensor)
                    .map_err(|fault| wrong("pictures that fit", fault.to_string()))?;
            }
            if let Some(tensor) = self.inputs.get_mut(stage.state).and_then(Tensor::f32_mut) {
                for (index, (slot, raw)) in tensor.iter_mut().zip(state).enumerate() {
                    *slot = self.state_stats.normalise(index, *raw, eps);
                }
            }
            if let Some(tensor) = self.inputs.get_mut(stage.text).and_then(Tensor::i32_mut) {
                tensor.copy_from_slice(tokens);
            }
            self.engine
                .run(&self.inputs, &mut self.outputs)
                .map_err(|fault| wrong("a run", fault.to_string()))?;
            let raw = self
                .outputs
                .get(stage.action)
                .and_then(Tensor::f32)
                .unwrap_or_default();
            found.extend(
                raw.iter()
                    .enumerate()
                    .map(|(at, value)| self.action_stats.restore(at % widths.2, *value)),
            );
        }
        Ok(Parity::judge(
            &self.bundle,
            &self.action_stats.range,
            &fixture.actions,
            &found,
        ))
    }
}

fn keep<T>(read: Result<T, Vec<Problem>>, problems: &mut Vec<Problem>) -> Option<T> {
    read.map_err(|found| problems.extend(found)).ok()
}

fn read_stats(bundle: &Bundle, stats: &StatsFile, names: &[String]) -> Result<Stats, Vec<Problem>> {
    let one = |problem| vec![problem];
    let bytes = bundle
        .folder()
        .read(&stats.file, &stats.file, SIDE_FILE_BYTES_MAX)
        .map_err(one)?;
    let file = TensorFile::parse(&stats.file, &bytes).map_err(one)?;
    Stats::read(&file, &stats.file, &stats.key, names)
}

fn read_text(bundle: &Bundle) -> Result<Text, Vec<Problem>> {
    let name = &bundle.text.tokenizer;
    let bytes = bundle
        .folder()
        .read(name, name, SIDE_FILE_BYTES_MAX)
        .map_err(|problem| vec![problem])?;
    Text::read(name, &bytes, bundle.text.max_len, bundle.text.pad_id)
        .map_err(|problem| vec![problem])
}

fn load_engine(
    bundle: &Bundle,
    precision: Precision,
    load: &EngineLoader<'_>,
) -> Result<Box<dyn Engine>, Vec<Problem>> {
    let wrong = |path: &str, expected: &str, found: String| {
        vec![Problem {
            at: at(path),
            expected: expected.into(),
            found,
        }]
    };
    let stage = &bundle.stage;
    let (key, name) = match precision {
        Precision::Fp32 => ("tendon.stages[0].onnx.fp32", Some(&stage.fp32)),
        Precision::Int8 => ("tendon.stages[0].onnx.int8", stage.int8.as_ref()),
    };
    let Some(name) = name else {
        return Err(wrong(
            key,
            "a file, as int8 was asked for",
            "nothing".into(),
        ));
    };
    let path = bundle
        .folder()
        .locate(&at(key), name)
        .map_err(|problem| vec![problem])?;
    let engine = load(&path, &stage.spec)
        .map_err(|fault| wrong(key, "a graph that the engine loads", fault.to_string()))?;
    if engine.inputs() != stage.spec.inputs || engine.outputs() != stage.spec.outputs {
        let found = format!("{:?} -> {:?}", engine.inputs(), engine.outputs());
        return Err(wrong(
            key,
            "the manifest's tensors in the manifest's order",
            found,
        ));
    }
    Ok(engine)
}
