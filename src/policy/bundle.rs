// SPDX-License-Identifier: Apache-2.0
//! A policy bundle, checked: a value of [`Bundle`] exists only for a folder whose manifest makes sense and whose
//! files have the promised hashes.
//!
//! Two truths in one file must agree: what the outer `policy_package` says of cameras, orders and processors is
//! compared with what `tendon` says, so that another reader of the same folder drives the robot alike.

use crate::config::problem::Problem;
use crate::core::action::JointKind;
use crate::core::limits::{CHUNK_STEPS_MAX, CHUNK_VALUES_MAX, JOINTS_MAX};
use crate::policy::folder::{Folder, Hash, hash};
use crate::policy::manifest::{
    ActionFile, ComponentFile, ImageFile, ManifestFile, PackageFile, ParityFile, Representation,
    StageFile, StateFile, StatsFile, TendonFile, TextFile, TimingFile, Unit, at, read,
};
use crate::ports::{Dtype, StageSpec, TensorSpec};
use std::collections::BTreeSet;
use std::path::Path;

/// Version of the `tendon` key that is understood.
pub const SCHEMA: u32 = 1;
/// Longest side of a picture in pixels: 8K video, so that a claimed size is refused before it is allocated.
pub const SIDE_PX_MAX: usize = 8_192;
/// Most tokens of a sentence; the longest prompt in use (pi0.5) has 200.
pub const TOKENS_MAX: usize = 4_096;
/// Largest tensor: 16 Mi numbers are 64 MiB, five pictures of 1024 x 1024.
pub const TENSOR_VALUES_MAX: usize = 16 << 20;
/// Most observations of a parity fixture; each is one run at every load.
pub const PARITY_FRAMES_MAX: usize = 256;
/// A fixture looser than this would check nothing (a guess; the usual floor is 0.999).
pub const COSINE_MIN: f64 = 0.99;
/// Likewise for the largest error as a part of an action's range (the usual ceiling is 0.01).
pub const ERROR_FRACTION_MAX: f64 = 0.05;
/// Longest time in a manifest. Beyond a minute it is a mistake of units.
const MS_MAX: f64 = 60_000.0;
/// Nanoseconds in a millisecond.
const NS_PER_MS: f64 = 1e6;

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
    /// File of the 32-bit float graph.
    pub fp32: String,
    /// File of the quantised graph, if there is one.
    pub int8: Option<String>,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Camera.
    pub role: String,
    /// Width and height of the camera's picture, in pixels.
    pub source: [usize; 2],
    /// Width and height of the graph's picture, in pixels.
    pub size: [usize; 2],
    /// A byte times this is the graph's number.
    pub scale: f64,
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
        let mut judge = Judge::default();
        judge.package(&file.package, &file.tendon);
        let checked = judge.tendon(&file.tendon);
        let names: Vec<String> = file.tendon.sha256.keys().cloned().collect();
        folder.promise(file.tendon.sha256.clone());
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            match folder.verify(&at(&format!("tendon.sha256[\"{name}\"]")), &name) {
                Ok(bytes) => files.push((name, bytes)),
                Err(problem) => judge.problems.push(problem),
            }
        }
        match checked {
            Some(checked) if judge.problems.is_empty() => {
                Ok(checked.into_bundle(file, folder, files, hash(&bytes)))
            }
            _ => Err(judge.problems),
        }
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

/// What the checks made of the `tendon` key.
struct Checked {
    stage: Stage,
    image: Image,
    action: Action,
    timing: Timing,
}

impl Checked {
    fn into_bundle(
        self,
        file: ManifestFile,
        folder: Folder,
        files: Vec<(String, u64)>,
        manifest_hash: Hash,
    ) -> Bundle {
        let StateFile {
            names,
            units,
            stats,
        } = file.tendon.state;
        Bundle {
            name: file.package.policy.name,
            stage: self.stage,
            image: self.image,
            text: file.tendon.text,
            state: Vector {
                names,
                units,
                stats,
            },
            action: self.action,
            timing: self.timing,
            parity: file.tendon.parity,
            files,
            folder,
            manifest_hash,
        }
    }
}

/// Collects what is wrong.
#[derive(Default)]
struct Judge {
    problems: Vec<Problem>,
}

impl Judge {
    fn wrong(&mut self, path: &str, expected: impl Into<String>, found: impl Into<String>) {
        self.problems.push(Problem {
            at: at(path),
            expected: expected.into(),
            found: found.into(),
        });
    }

    fn equal<T: PartialEq + core::fmt::Debug + ?Sized>(
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
    fn within<T: PartialOrd + core::fmt::Display>(
        &mut self,
        path: &str,
        low: T,
        high: T,
        found: T,
    ) -> bool {
        let good = found >= low && found <= high;
        if !good {
            self.wrong(path, format!("{low} to {high}"), found.to_string());
        }
        good
    }

    fn package(&mut self, package: &PackageFile, ours: &TendonFile) {
        self.equal("format", "policy_package", &package.format);
        self.equal("version", "1.0", &package.version);
        self.equal("model.n_obs_steps", &1, &package.model.n_obs_steps);
        if let Some(runner) = &package.model.runner {
            self.equal("model.runner.type", "single_pass", &runner.kind);
        }
        let artifacts = package
            .model
            .artifacts
            .iter()
            .map(|(key, name)| (format!("model.artifacts.{key}"), name));
        let stages = ours.stages.iter().enumerate().flat_map(|(at, stage)| {
            let file = move |precision: &str| format!("tendon.stages[{at}].onnx.{precision}");
            [(file("fp32"), &stage.onnx.fp32)]
                .into_iter()
                .chain(stage.onnx.int8.iter().map(move |name| (file("int8"), name)))
        });
        let side = [
            ("tendon.text.tokenizer", &ours.text.tokenizer),
            ("tendon.state.stats.file", &ours.state.stats.file),
            ("tendon.action.stats.file", &ours.action.stats.file),
            ("tendon.parity.file", &ours.parity.file),
            ("tendon.parity.sentences", &ours.parity.sentences),
        ];
        let named: Vec<(String, &String)> = artifacts
            .chain(stages)
            .chain(side.map(|(key, name)| (key.to_owned(), name)))
            .collect();
        for (key, name) in named {
            if !ours.sha256.contains_key(name) {
                self.wrong(
                    &key,
                    "a file whose SHA-256 stands in tendon.sha256",
                    format!("\"{name}\", which does not"),
                );
            }
        }
        self.processors(
            "model.preprocessors",
            "normalize",
            &package.model.preprocessors,
            &ours.state.stats.file,
        );
        self.processors(
            "model.postprocessors",
            "denormalize",
            &package.model.postprocessors,
            &ours.action.stats.file,
        );
        if let Some(camera) = package
            .hardware
            .cameras
            .iter()
            .find(|camera| camera.name == ours.image.role)
        {
            let [width, height] = ours.image.source_size;
            if !camera.shape.is_empty() {
                self.equal(
                    "hardware.cameras: shape (tendon.image.source_size)",
                    &[3, height, width][..],
                    &camera.shape[..],
                );
            }
        } else if !package.hardware.cameras.is_empty() {
            self.wrong(
                "hardware.cameras",
                format!("one named \"{}\" (tendon.image.role)", ours.image.role),
                "none",
            );
        }
        if let Some(robot) = package.hardware.robots.first() {
            let pairs = [
                (
                    "hardware.robots[0].state.order",
                    &robot.state,
                    &ours.state.names,
                ),
                (
                    "hardware.robots[0].action.order",
                    &robot.action,
                    &ours.action.names,
                ),
            ];
            for (path, order, names) in pairs {
                if let Some(order) = order.as_ref().filter(|order| !order.order.is_empty()) {
                    self.equal(path, names, &order.order);
                }
            }
        }
    }

    /// A processor that is not carried out here would be silently left out, so it is refused.
    fn processors(&mut self, path: &str, kind: &str, found: &[ComponentFile], file: &str) {
        for (index, component) in found.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if component.kind != kind {
                let name = if component.kind.is_empty() {
                    &component.class_path
                } else {
                    &component.kind
                };
                self.wrong(&path, format!("type \"{kind}\""), format!("\"{name}\""));
                continue;
            }
            self.equal(
                &format!("{path}.mode"),
                "mean_std",
                component.mode.as_deref().unwrap_or("nothing"),
            );
            self.equal(
                &format!("{path}.artifact"),
                file,
                component.artifact.as_deref().unwrap_or("nothing"),
            );
        }
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
        good &= self.within("tendon.image.scale", f64::MIN_POSITIVE, 1.0, image.scale);
        good.then(|| Image {
            role: image.role.clone(),
            source: image.source_size,
            size: image.size,
            scale: image.scale,
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
                        format!("\"{name}\" in tendon.state in {ours:?}"),
                        format!("{seen:?}"),
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
            f64::MIN_POSITIVE,
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
            fp32: stage.onnx.fp32.clone(),
            int8: stage.onnx.int8.clone(),
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
