// SPDX-License-Identifier: Apache-2.0
//! What the model's training fixed: how a picture, a joint state and a sentence are fed, and how an action is read.
//!
//! A *bundle* ([`bundle`]) is a policy packaged for running: [`manifest`] as written, the files of its [`folder`] with
//! their hashes, statistics ([`stats`]), tokenizer ([`text`]) and a fixture ([`parity`]) that every load must
//! reproduce. A [`Policy`] is a bundle with an engine: one call of [`Policy::infer`] makes a frame and a joint state
//! into absolute joint targets. [`staged`] is the same for bundles of several graphs and cameras, and [`pilot`] is either of
//! the two as the runtime takes it.
//!
//! Invariant: [`Policy::infer`] allocates nothing but what the engine allocates inside its own run call.
//!
//! Not here: when to infer and how old an observation may be (the inference thread), what becomes of the targets
//! (scheduler, governor), how a graph is run (`engine`, handed in by the caller).

mod agree;
pub mod answer;
pub mod binding;
pub mod bundle;
pub mod check;
pub mod decode;
pub mod describe;
pub mod folder;
mod graph;
pub mod image;
pub mod import;
mod import_package;
pub mod import_physicalai;
pub mod import_statistics;
mod lanes;
mod load;
pub mod manifest;
pub mod means;
pub mod normalise;
pub mod parity;
mod parts;
pub mod picture;
pub mod pilot;
pub mod prompt;
pub mod staged;
pub mod stats;
pub mod tensors;
pub mod text;
pub mod words;

use crate::config::Precision;
use crate::config::problem::Problem;
use crate::core::action::JointKind;
use crate::core::intent::Unfit;
use crate::core::observation::JointState;
use crate::core::units::Mono;
use crate::policy::binding::{Binding, Named};
use crate::policy::bundle::{Bundle, Vector};
use crate::policy::graph::Graph;
use crate::policy::manifest::Unit;
use crate::policy::parity::Parity;
use crate::policy::text::{Instruction, InstructionFault, Text};
use crate::ports::{Engine, EngineFault, Frame, StageSpec};
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
    /// It loads, and [`Policy::parity`] tells. For measuring; a robot that is driven all the same, by a flag on the command
    /// line, says so in every command ([`crate::core::chunk::Provenance::unproven`]).
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
    graph: Graph,
    /// Whether the engine makes the camera's picture.
    on_device: bool,
    text: Text,
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
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
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
    /// A policy of several stages refused what it was shown, or what came out.
    #[error(transparent)]
    Staged(#[from] staged::Fault),
    /// What it said is no plan for this robot.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// A gripper is told more than all or less than nothing: numbers of another convention.
    #[error("action {action} tells the gripper {value}; expected 0 (open) to 1 (closed)")]
    Gripper {
        /// Which action of the chunk.
        action: usize,
        /// The number.
        value: f32,
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

fn named(vector: &Vector) -> Named<'_> {
    Named {
        names: &vector.names,
        units: &vector.units,
    }
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
        let Bundle { state, action, .. } = &self.bundle;
        let binding = Binding::new(named(state), named(&action.vector), joints)?;
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
        self.graph.write_tokens(&instruction.tokens);
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
        self.graph.run()?;
        let ran = now();
        self.decode(state)?;
        let timing = InferTiming {
            preprocess_ns: written.since_ns(began),
            engine_ns: ran.since_ns(written),
            decode_ns: now().since_ns(ran),
        };
        Ok(Inference {
            targets: &self.targets,
            presence: self.graph.presence(),
            keypoint: self.graph.keypoint(),
            timing,
        })
    }

    /// Whether the graph tells how sure it is.
    #[must_use]
    pub fn tells_doubt(&self) -> bool {
        self.graph.tells_presence()
    }

    /// See [`Engine::lost`].
    #[must_use]
    pub fn lost(&self) -> bool {
        self.graph.lost()
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
        let wrong = InferFault::Frame {
            expected: self.bundle.image.source,
            found: [frame.width, frame.height],
            bytes: frame.rgb.len(),
        };
        if [frame.width, frame.height] != self.bundle.image.source {
            return Err(wrong);
        }
        self.graph.write_picture(&frame.rgb).map_err(|_| wrong)?;
        self.graph
            .write_state(binding.state.iter().map(|reading| reading.of(state)));
        Ok(())
    }

    /// What its engine does without the host, in words.
    #[must_use]
    pub fn on_device(&self) -> Option<String> {
        self.on_device
            .then(|| "the camera's picture is made on the device".to_owned())
    }

    /// Normalised action -> absolute joint targets in robot order.
    fn decode(&mut self, state: &JointState) -> Result<(), InferFault> {
        self.graph.check_finite()?;
        let action = &self.bundle.action;
        let binding = self.binding.as_ref().ok_or(InferFault::NotBound)?;
        let rows = self.graph.rows(action.vector.names.len());
        for (row, targets) in rows.zip(self.targets.chunks_exact_mut(binding.joints())) {
            for ((target, column), position) in targets
                .iter_mut()
                .zip(&binding.action)
                .zip(state.positions())
            {
                let value = self.graph.restore(row, *column);
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
        match self.targets.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(InferFault::NotFinite {
                output: Output::Action,
                at,
            }),
            None => Ok(()),
        }
    }
}
