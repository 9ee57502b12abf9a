// SPDX-License-Identifier: Apache-2.0
//! A policy of either kind as the runtime takes it: a bundle of one graph ([`Policy`]) or of several ([`Staged`]), bound
//! to a robot's joints and cameras by name.
//!
//! What the runtime must know is told here in one way: which cameras it looks through ([`Pilot::eyes`]), where its
//! actions lie in time ([`Pilot::pace`]), how sentences are read ([`Pilot::words`]). What it gives is a [`Plan`] of joint
//! targets in the order of robot.toml.
//!
//! Invariant: [`Pilot::infer`] allocates nothing beyond what the policy it holds allocates.

use crate::config::problem::Problem;
use crate::core::action::JointKind;
use crate::core::intent::Intent;
use crate::core::limits::{CAMERAS_MAX, CHUNK_STEPS_MAX, CHUNK_VALUES_MAX};
use crate::core::observation::JointState;
use crate::core::units::Mono;
use crate::policy::answer::Plan;
use crate::policy::binding::{Binding, Named};
use crate::policy::decode::post::Post;
use crate::policy::manifest::{Unit, at};
use crate::policy::means::{self, Body};
use crate::policy::parity::Parity;
use crate::policy::staged::bundle::is_staged;
use crate::policy::staged::manifest::ActionFile;
use crate::policy::staged::onward::Running;
use crate::policy::staged::{Observation, Staged};
use crate::policy::text::Instruction;
use crate::policy::words::Words;
use crate::policy::{EngineLoader, InferFault, InferTiming, LoadOptions, Policy};
use crate::ports::Frame;
use std::path::Path;

/// A gripper a little beyond its travel is at its end; further off, the numbers are of another convention (-1 to 1).
const GRIPPER_SLACK: f32 = 0.5;

/// A policy that drives. See the module's text.
#[derive(Debug)]
pub struct Pilot {
    kind: Kind,
    /// For each camera of the bundle which one of the deployment it is.
    seats: Vec<Option<usize>>,
}

#[derive(Debug)]
enum Kind {
    One(Box<Policy>),
    Staged(Box<Several>),
}

/// A staged policy with what ties it to the robot.
#[derive(Debug)]
struct Several {
    policy: Staged,
    binding: Option<Binding>,
    /// What the robot has, for actions that are no joint targets; and what they mean for it.
    body: Body,
    intent: Option<Box<Intent>>,
    /// For each joint of the robot whether its target is a gripper's.
    grips: Vec<bool>,
    /// The state as the manifest orders it.
    state: Vec<f32>,
    /// `[horizon][joints]`, order of robot.toml.
    targets: Vec<f32>,
    /// By joint, order of robot.toml.
    spread: Vec<f32>,
}

/// A camera that the policy looks through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eye<'a> {
    /// Its role: the camera's name in tendon.toml.
    pub role: &'a str,
    /// Width and height in pixels.
    pub size: [usize; 2],
    /// Whether there is no observation without it.
    pub required: bool,
    /// Time between the pictures of its history; 0 without one.
    pub spacing_ns: u64,
}

/// Where the actions of a chunk lie in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two rows of a chunk.
    pub period_ns: u64,
    /// From the observation's capture to its first row.
    pub first_step_ns: u64,
    /// Rows of a chunk.
    pub steps: usize,
    /// Between two actions of the policy: a row is one, but where poses are joined before they become joints.
    pub action_period_ns: u64,
    /// From the observation's capture to action 0.
    pub first_action_ns: u64,
    /// Whether some actions are relative to the state at observation: the plan then begins there.
    pub is_relative: bool,
    /// A plan that takes longer to make is late.
    pub deadline_ns: u64,
    /// An older observation is not to be shown.
    pub observation_age_max_ns: u64,
    /// Time between the joint states of its history; 0 without one.
    pub state_spacing_ns: u64,
}

impl Pace {
    /// Whether a chunk has the state at its observation before the policy's first row: a plan that is relative to it begins
    /// there. So the chunk has a word for now as soon as it comes, not only after its first action.
    #[must_use]
    pub fn begins_at_state(&self) -> bool {
        self.first_step_ns == self.period_ns && self.is_relative
    }
}

impl From<Policy> for Pilot {
    fn from(policy: Policy) -> Pilot {
        Pilot {
            kind: Kind::One(Box::new(policy)),
            seats: Vec::new(),
        }
    }
}

impl From<Staged> for Pilot {
    fn from(policy: Staged) -> Pilot {
        let joints = policy.file().state.as_ref();
        let state = vec![0.0; joints.map_or(0, |state| state.names.len())];
        let several = Several {
            policy,
            binding: None,
            body: Body::default(),
            intent: None,
            grips: Vec::new(),
            state,
            targets: Vec::new(),
            spread: Vec::new(),
        };
        Pilot {
            kind: Kind::Staged(Box::new(several)),
            seats: Vec::new(),
        }
    }
}

impl Pilot {
    /// Opens, checks and loads the bundle in `dir`, whichever kind it is, and runs its fixture.
    ///
    /// # Errors
    /// Every [`Problem`] found.
    pub fn load(
        dir: &Path,
        options: LoadOptions,
        engine: &EngineLoader<'_>,
    ) -> Result<Pilot, Vec<Problem>> {
        if is_staged(dir) {
            Staged::load(dir, options, engine).map(Pilot::from)
        } else {
            Policy::load(dir, options, engine).map(Pilot::from)
        }
    }

    /// The bundle's name for people.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.kind {
            Kind::One(policy) => &policy.bundle().name,
            Kind::Staged(several) => several.policy.name(),
        }
    }

    /// First four bytes of the manifest's SHA-256, big-endian: what every command carries.
    #[must_use]
    pub fn short_hash(&self) -> u32 {
        match &self.kind {
            Kind::One(policy) => policy.bundle().short_hash(),
            Kind::Staged(several) => {
                let [a, b, c, d, ..] = *several.policy.manifest_hash();
                u32::from_be_bytes([a, b, c, d])
            }
        }
    }

    /// How the loaded policy compares with its fixture.
    #[must_use]
    pub fn parity(&self) -> &Parity {
        match &self.kind {
            Kind::One(policy) => policy.parity(),
            Kind::Staged(several) => several.policy.parity(),
        }
    }

    /// The cameras that it looks through, in the order of the manifest.
    #[must_use]
    pub fn eyes(&self) -> Vec<Eye<'_>> {
        match &self.kind {
            Kind::One(policy) => {
                let image = &policy.bundle().image;
                vec![Eye {
                    role: &image.role,
                    size: image.source,
                    required: true,
                    spacing_ns: 0,
                }]
            }
            Kind::Staged(several) => {
                let cameras = several.policy.file().cameras.iter();
                cameras
                    .map(|camera| Eye {
                        role: &camera.role,
                        size: camera.source_size,
                        required: camera.missing.is_none(),
                        spacing_ns: spacing_ns(camera.history, camera.spacing_ms),
                    })
                    .collect()
            }
        }
    }

    /// Where its actions lie in time; `None` for a planner, whose answer is a sentence.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        match &self.kind {
            Kind::One(policy) => {
                let bundle = policy.bundle();
                Some(Pace {
                    period_ns: bundle.action.period_ns,
                    first_step_ns: bundle.action.first_step_ns,
                    steps: bundle.action.chunk_len,
                    action_period_ns: bundle.action.period_ns,
                    first_action_ns: bundle.action.first_step_ns,
                    is_relative: bundle.action.relative.contains(&true),
                    deadline_ns: bundle.timing.deadline_ns,
                    observation_age_max_ns: bundle.timing.observation_age_max_ns,
                    state_spacing_ns: 0,
                })
            }
            Kind::Staged(several) => {
                let file = several.policy.file();
                let action = file.action.as_ref()?;
                let intent = several.intent.as_deref();
                let begins = intent.is_some_and(Intent::begins);
                let rows = intent.map_or(1, Intent::per_action);
                Some(Pace {
                    period_ns: ns(action.period_ms) / rows as u64,
                    first_step_ns: if begins { 0 } else { ns(action.first_step_ms) },
                    steps: intent.map_or(action.horizon, Intent::rows),
                    action_period_ns: ns(action.period_ms),
                    first_action_ns: ns(action.first_step_ms),
                    is_relative: is_relative(action),
                    deadline_ns: ns(file.timing.deadline_ms),
                    observation_age_max_ns: ns(file.timing.max_observation_age_ms),
                    state_spacing_ns: file
                        .state
                        .as_ref()
                        .map_or(0, |state| spacing_ns(state.history, state.spacing_ms)),
                })
            }
        }
    }

    /// Ties it to the robot's joints, order of robot.toml, and to the deployment's cameras, the pacing one first. Needed
    /// once before [`Pilot::infer`]. A camera of the bundle that is not among `cameras` is missing in every observation.
    ///
    /// # Errors
    /// Every [`Problem`].
    pub fn bind(
        &mut self,
        joints: &[(&str, JointKind)],
        cameras: &[&str],
    ) -> Result<(), Vec<Problem>> {
        let seat = |eye: &Eye<'_>| cameras.iter().position(|name| *name == eye.role);
        let seats = self.eyes().iter().map(seat).collect();
        match &mut self.kind {
            Kind::One(policy) => policy.bind(joints)?,
            Kind::Staged(several) => several.bind(joints)?,
        }
        self.seats = seats;
        Ok(())
    }

    /// What the robot has, for a policy whose actions are no joint targets. Before [`Pilot::bind`]; of no use to others.
    pub fn embody(&mut self, body: Body) {
        match &mut self.kind {
            Kind::One(_) => {}
            Kind::Staged(several) => several.body = body,
        }
    }

    /// The policy itself, if its bundle is of schema 2.
    pub fn staged(&mut self) -> Option<&mut Staged> {
        match &mut self.kind {
            Kind::One(_) => None,
            Kind::Staged(several) => Some(&mut several.policy),
        }
    }

    /// What its engines do without the host, in words; see [`Staged::on_device`].
    #[must_use]
    pub fn on_device(&self) -> Option<String> {
        match &self.kind {
            Kind::One(policy) => policy.on_device(),
            Kind::Staged(several) => several.policy.on_device(),
        }
    }

    /// Whether it tells how sure it is of a plan.
    #[must_use]
    pub fn tells_doubt(&self) -> bool {
        match &self.kind {
            Kind::One(policy) => policy.tells_doubt(),
            Kind::Staged(several) => several.policy.tells_doubt(),
        }
    }

    /// Whether an engine of it will never run again in this process.
    #[must_use]
    pub fn lost(&self) -> bool {
        match &self.kind {
            Kind::One(policy) => policy.lost(),
            Kind::Staged(several) => several.policy.lost(),
        }
    }

    /// Whether it looks through camera `index` of the deployment.
    #[must_use]
    pub fn looks_through(&self, index: usize) -> bool {
        self.seats.contains(&Some(index))
    }

    /// Makes instructions for it, to be used on another thread.
    #[must_use]
    pub fn words(&self) -> Words {
        match &self.kind {
            Kind::One(policy) => Words::One(policy.text().clone()),
            Kind::Staged(several) => Words::Staged(several.policy.speech().clone()),
        }
    }

    /// Obeys an instruction made by [`Pilot::words`] from the next run on.
    pub fn take(&mut self, instruction: &Instruction) {
        match &mut self.kind {
            Kind::One(policy) => policy.take(instruction),
            Kind::Staged(several) => several.policy.take(instruction),
        }
    }

    /// A new episode: what it remembers of the last one is forgotten.
    pub fn reset(&mut self) {
        match &mut self.kind {
            Kind::One(_) => {}
            Kind::Staged(several) => several.policy.reset(),
        }
    }

    /// The next run's plan has number `chunk_id` (not 0), and goes on from the one that is followed, if any. Nothing for a
    /// policy that does not plan on.
    pub fn plan_on(&mut self, chunk_id: u32, running: Option<Running>) {
        match &mut self.kind {
            Kind::One(_) => {}
            Kind::Staged(several) => several.policy.plan_on(chunk_id, running),
        }
    }

    /// One observation through the policy. `frames` are of the deployment's cameras in the order given to
    /// [`Pilot::bind`], the pacing one first; `now` is read to tell where the time went.
    ///
    /// The caller judges the age of everything; `state` is the one measured nearest to the first frame's capture.
    ///
    /// # Errors
    /// [`InferFault`]; nothing of a refused result can be used.
    pub fn infer(
        &mut self,
        frames: &[Option<&Frame>],
        state: &JointState,
        now: &dyn Fn() -> Mono,
    ) -> Result<Plan<'_>, InferFault> {
        let Pilot { kind, seats } = self;
        let seen = |seat: &Option<usize>| seat.and_then(|seat| frames.get(seat).copied().flatten());
        match kind {
            Kind::One(policy) => {
                let expected = policy.bundle().image.source;
                let frame = seats.first().and_then(seen).ok_or(InferFault::Frame {
                    expected,
                    found: [0; 2],
                    bytes: 0,
                })?;
                let plan = policy.infer(frame, state, now)?;
                Ok(Plan {
                    targets: plan.targets,
                    presence: plan.presence,
                    keypoint: plan.keypoint,
                    unsure: None,
                    spread: &[],
                    held: None,
                    timing: plan.timing,
                })
            }
            Kind::Staged(several) => {
                let mut pictures: [Option<&Frame>; CAMERAS_MAX] = [None; CAMERAS_MAX];
                for (picture, seat) in pictures.iter_mut().zip(seats.iter()) {
                    *picture = seen(seat);
                }
                let captured = frames.iter().flatten().map(|frame| frame.captured).max();
                let shown = pictures.get(..seats.len()).unwrap_or_default();
                several.infer(shown, captured.unwrap_or(Mono(0)), state, now)
            }
        }
    }
}

impl Several {
    fn bind(&mut self, joints: &[(&str, JointKind)]) -> Result<(), Vec<Problem>> {
        let file = self.policy.file();
        let problem = |path: &str, expected: String, found: String| {
            vec![Problem {
                at: at(path),
                expected,
                found,
            }]
        };
        let Some(action) = &file.action else {
            let expected = "joint targets (a planner's sentence goes to another policy)".into();
            return Err(problem("tendon.action", expected, "nothing".into()));
        };
        // One more row: a plan that is relative to the state at observation begins there.
        let rows = action.horizon + 1;
        if rows > CHUNK_STEPS_MAX || rows * joints.len() > CHUNK_VALUES_MAX {
            let expected = format!(
                "less than {CHUNK_STEPS_MAX} actions and {CHUNK_VALUES_MAX} numbers of {} joints",
                joints.len()
            );
            return Err(problem(
                "tendon.action.horizon",
                expected,
                action.horizon.to_string(),
            ));
        }
        let state = file.state.as_ref().map_or(
            Named {
                names: &[],
                units: &[],
            },
            |state| Named {
                names: &state.names,
                units: &state.units,
            },
        );
        let intent = means::bind(action, joints, &self.body)?;
        // What is no joint's target has no joint's name: only the state is matched then.
        let (names, units): (Vec<String>, Vec<Unit>) = joints
            .iter()
            .map(|(name, kind)| ((*name).to_owned(), Unit::of(*kind)))
            .unzip();
        let told = if intent.is_some() {
            Named {
                names: &names,
                units: &units,
            }
        } else {
            Named {
                names: &action.names,
                units: &action.units,
            }
        };
        let binding = Binding::new(state, told, joints)?;
        self.grips = joints
            .iter()
            .map(|(_, kind)| *kind == JointKind::Gripper)
            .collect();
        let rows = intent.as_ref().map_or(action.horizon, Intent::rows);
        self.targets = vec![0.0; rows * binding.joints()];
        self.intent = intent.map(Box::new);
        self.spread = vec![0.0; binding.joints()];
        self.binding = Some(binding);
        Ok(())
    }

    fn infer(
        &mut self,
        frames: &[Option<&Frame>],
        captured: Mono,
        state: &JointState,
        now: &dyn Fn() -> Mono,
    ) -> Result<Plan<'_>, InferFault> {
        let began = now();
        let binding = self.binding.as_ref().ok_or(InferFault::NotBound)?;
        if state.joints != binding.joints() {
            return Err(InferFault::Joints {
                expected: binding.joints(),
                found: state.joints,
            });
        }
        let broken = |position: &f64| !position.is_finite();
        if let Some(joint) = state.positions().iter().position(broken) {
            return Err(InferFault::State { joint });
        }
        for (slot, reading) in self.state.iter_mut().zip(&binding.state) {
            *slot = reading.of(state);
        }
        let mut pictures: [Option<&[u8]>; CAMERAS_MAX] = [None; CAMERAS_MAX];
        let cameras = self.policy.file().cameras.iter();
        for ((picture, frame), camera) in pictures.iter_mut().zip(frames).zip(cameras) {
            let Some(frame) = frame else { continue };
            let found = [frame.width, frame.height];
            if found != camera.source_size {
                return Err(InferFault::Frame {
                    expected: camera.source_size,
                    found,
                    bytes: frame.rgb.len(),
                });
            }
            *picture = Some(&frame.rgb);
        }
        let observation = Observation {
            captured_ns: captured.0,
            pictures: pictures.get(..frames.len()).unwrap_or_default(),
            state: &self.state,
        };
        let now_ns = || now().0;
        let answer = self.policy.infer(&observation, None, Some(&now_ns))?;
        let unsure = answer.doubt;
        // How far poses or speeds lie apart says nothing of joints.
        let told = if answer.spread.is_empty() || self.intent.is_some() {
            0
        } else {
            self.spread.len()
        };
        for (slot, column) in self.spread.iter_mut().zip(&binding.action) {
            *slot = answer.spread.get(*column).copied().unwrap_or(0.0);
        }
        if let Some(intent) = &mut self.intent {
            intent.read(answer.chunk, state.positions(), &mut self.targets)?;
        } else {
            let joints = binding.joints().max(1);
            let width = answer.chunk.len() / (self.targets.len() / joints).max(1);
            let rows = answer.chunk.chunks_exact(width.max(1));
            for (row, targets) in rows.zip(self.targets.chunks_exact_mut(joints)) {
                for (target, column) in targets.iter_mut().zip(&binding.action) {
                    // Columns were matched with the action's names.
                    *target = row.get(*column).copied().unwrap_or(f32::NAN);
                }
            }
        }
        for (action, targets) in self
            .targets
            .chunks_exact_mut(binding.joints().max(1))
            .enumerate()
        {
            let grips = targets.iter_mut().zip(&self.grips);
            for (target, _) in grips.filter(|(_, is_grip)| **is_grip) {
                let value = *target;
                if !(-GRIPPER_SLACK..=1.0 + GRIPPER_SLACK).contains(&value) {
                    return Err(InferFault::Gripper { action, value });
                }
                *target = value.clamp(0.0, 1.0);
            }
        }
        let engine_ns = self.policy.stage_ns().iter().sum();
        let timing = InferTiming {
            preprocess_ns: now().since_ns(began).saturating_sub(engine_ns),
            engine_ns,
            decode_ns: 0,
        };
        Ok(Plan {
            targets: &self.targets,
            presence: None,
            keypoint: None,
            unsure,
            spread: self.spread.get(..told).unwrap_or_default(),
            held: self.policy.held(),
            timing,
        })
    }
}

fn ns(ms: f64) -> u64 {
    (ms * 1e6).round() as u64
}

fn spacing_ns(history: usize, spacing_ms: f64) -> u64 {
    if history > 1 { ns(spacing_ms) } else { 0 }
}

fn is_relative(action: &ActionFile) -> bool {
    action
        .post
        .iter()
        .any(|op| matches!(op, Post::AddState { mask } if mask.contains(&true)))
}
