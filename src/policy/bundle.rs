// SPDX-License-Identifier: Apache-2.0
//! A policy bundle, checked: a value of [`Bundle`] exists only for a folder whose manifest makes sense and whose
//! files have the promised hashes.
//!
//! The checks themselves are in [`super::check`]; those that need the engine or the numbers in the files come when a
//! [`super::Policy`] is loaded.

use crate::config::problem::Problem;
use crate::core::action::JointKind;
use crate::policy::check::check;
use crate::policy::folder::{Folder, Hash, hash};
use crate::policy::image::Picture;
use crate::policy::manifest::{OnnxFile, ParityFile, StatsFile, TextFile, Unit, at, read};
use crate::ports::StageSpec;
use std::path::Path;

/// A bundle that passed every check but those that need its engine.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// Name for people.
    pub name: String,
    /// The one graph.
    pub stage: Stage,
    /// The picture.
    pub image: Image,
    /// The sentence.
    pub text: TextFile,
    /// The joint state.
    pub state: Vector,
    /// The joint targets.
    pub action: Action,
    /// How often, how soon.
    pub timing: Timing,
    /// What must be reproduced.
    pub parity: ParityFile,
    /// Every hashed file with its size in bytes.
    pub files: Vec<(String, u64)>,
    folder: Folder,
    manifest_hash: Hash,
}

/// A graph and where its tensors come from and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Names, types and shapes.
    pub spec: StageSpec,
    /// Its file for each precision.
    pub onnx: OnnxFile,
    /// Index of the picture among the inputs.
    pub image: usize,
    /// Index of the joint state among the inputs.
    pub state: usize,
    /// Index of the token ids among the inputs.
    pub text: usize,
    /// Index of the chunk among the outputs.
    pub action: usize,
    /// Index of the named object's place in the picture among the outputs, if the graph tells.
    pub keypoint: Option<usize>,
    /// Index of the logit that the named object is there, if the graph tells.
    pub presence: Option<usize>,
}

/// The picture that the policy takes.
#[derive(Clone, Debug)]
pub struct Image {
    /// Camera.
    pub role: String,
    /// Width and height of the camera's picture, in pixels.
    pub source: [usize; 2],
    /// Width and height of the graph's picture, in pixels.
    pub size: [usize; 2],
    /// A byte times this is the graph's number.
    pub scale: f64,
    /// The way from the one to the other: that there is one is part of the check.
    pub picture: Picture,
}

/// Names, units and statistics along a vector.
#[derive(Clone, Debug)]
pub struct Vector {
    /// Joints, in the order of the tensor.
    pub names: Vec<String>,
    /// Their units.
    pub units: Vec<Unit>,
    /// Where the statistics stand.
    pub stats: StatsFile,
}

/// The chunk that the policy gives.
#[derive(Clone, Debug)]
pub struct Action {
    /// Joints of one action.
    pub vector: Vector,
    /// For each joint whether the state of the observation is to be added.
    pub relative: Vec<bool>,
    /// Actions in a chunk.
    pub chunk_len: usize,
    /// Time between two actions.
    pub period_ns: u64,
    /// Time from capture to action 0.
    pub first_step_ns: u64,
    /// A gripper is on at this value or more.
    pub gripper_threshold: f32,
}

/// How often, how soon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Timing {
    /// Inferences a second to ask for.
    pub infer_hz: f64,
    /// An inference that takes longer is late.
    pub deadline_ns: u64,
    /// An older observation is not to be shown to the policy.
    pub observation_age_max_ns: u64,
}

impl Unit {
    /// The unit of a kind of joint.
    #[must_use]
    pub fn of(kind: JointKind) -> Unit {
        match kind {
            JointKind::Revolute => Unit::Rad,
            JointKind::Prismatic => Unit::M,
            JointKind::Gripper => Unit::Fraction,
        }
    }

    /// The kind of joint that has this unit.
    #[must_use]
    pub fn kind(self) -> JointKind {
        match self {
            Unit::Rad => JointKind::Revolute,
            Unit::M => JointKind::Prismatic,
            Unit::Fraction => JointKind::Gripper,
        }
    }
}

impl Bundle {
    /// Opens and checks a folder.
    ///
    /// # Errors
    /// Every [`Problem`] found, with file, key, what was expected and what was found.
    pub fn open(path: &Path) -> Result<Bundle, Vec<Problem>> {
        let mut folder = Folder::open(path).map_err(|problem| vec![problem])?;
        let bytes = folder.read_manifest().map_err(|problem| vec![problem])?;
        let file = read(&bytes)?;
        let mut problems = Vec::new();
        let checked = check(&file, &mut problems);
        folder.promise(file.tendon.sha256.clone());
        let mut files = Vec::with_capacity(file.tendon.sha256.len());
        for name in file.tendon.sha256.keys() {
            match folder.verify(&at(&format!("tendon.sha256[{name:?}]")), name) {
                Ok(bytes) => files.push((name.clone(), bytes)),
                Err(problem) => problems.push(problem),
            }
        }
        let Some(checked) = checked.filter(|_| problems.is_empty()) else {
            return Err(problems);
        };
        Ok(Bundle {
            name: file.package.policy.name,
            stage: checked.stage,
            image: checked.image,
            text: file.tendon.text,
            state: checked.state,
            action: checked.action,
            timing: checked.timing,
            parity: file.tendon.parity,
            files,
            folder,
            manifest_hash: hash(&bytes),
        })
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// SHA-256 of the manifest, which names the SHA-256 of everything else.
    #[must_use]
    pub fn manifest_hash(&self) -> &Hash {
        &self.manifest_hash
    }

    /// The first four bytes of it: what a chunk carries as its provenance.
    #[must_use]
    pub fn short_hash(&self) -> u32 {
        let [a, b, c, d, ..] = self.manifest_hash;
        u32::from_be_bytes([a, b, c, d])
    }
}
