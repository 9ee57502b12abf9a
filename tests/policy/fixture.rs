// SPDX-License-Identifier: Apache-2.0
//! What the tests share: the shipped bundle, copies of it to be broken, engines that are not engines.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tendon::config::problem::Problem;
use tendon::core::action::JointKind;
use tendon::core::limits::JOINTS_MAX;
use tendon::core::observation::JointState;
use tendon::core::units::Mono;
use tendon::engine::cpu::{CpuEngine, CpuOptions};
use tendon::hash::hex;
use tendon::policy::folder::hash;
use tendon::policy::{LoadOptions, ParityMiss, Policy};
use tendon::ports::{Engine, EngineFault, Frame, StageSpec, Tensor, TensorSpec};

/// The bench robot's joints, order of robot.toml.
pub const JOINTS: [(&str, JointKind); 7] = [
    ("base_yaw", JointKind::Revolute),
    ("shoulder_pitch", JointKind::Revolute),
    ("elbow_pitch", JointKind::Revolute),
    ("forearm_roll", JointKind::Revolute),
    ("wrist_pitch", JointKind::Revolute),
    ("tool_roll", JointKind::Revolute),
    ("gripper", JointKind::Gripper),
];

pub const REPORT: LoadOptions = LoadOptions {
    precision: tendon::config::Precision::Fp32,
    parity_miss: ParityMiss::Report,
};

pub fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla")
}

pub fn cpu(path: &Path, spec: &StageSpec) -> Result<Box<dyn Engine>, EngineFault> {
    Ok(Box::new(CpuEngine::load(
        path,
        spec,
        CpuOptions::default(),
    )?))
}

pub fn no_clock() -> Mono {
    Mono(0)
}

pub fn state(position: [f64; 7]) -> JointState {
    let mut padded = [0.0; JOINTS_MAX];
    padded[..7].copy_from_slice(&position);
    JointState {
        joints: 7,
        position: padded,
        ..JointState::NEVER
    }
}

/// A frame of the size that the bundle wants, every pixel alike.
pub fn plain(rgb: [u8; 3]) -> Frame {
    let mut frame = Frame::black(224, 224);
    frame
        .rgb
        .chunks_exact_mut(3)
        .for_each(|pixel| pixel.copy_from_slice(&rgb));
    frame
}

/// A copy of the shipped bundle in a folder of its own.
pub struct Copy {
    pub dir: tempfile::TempDir,
}

impl Copy {
    pub fn new() -> Copy {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for entry in std::fs::read_dir(shipped()).expect("the shipped bundle") {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                std::fs::copy(&path, dir.path().join(path.file_name().expect("a name")))
                    .expect("a copy");
            }
        }
        Copy { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("a file of the bundle")
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("a file of the bundle");
    }

    /// Writes a file and its new hash: damage that came before packing.
    pub fn repack(&self, name: &str, bytes: &[u8]) {
        self.write(name, bytes);
        self.edit(|manifest| manifest["tendon"]["sha256"][name] = hex(&hash(bytes)).into());
    }

    pub fn edit(&self, change: impl FnOnce(&mut Value)) {
        let mut manifest = serde_json::from_slice(&self.read("manifest.json")).expect("a manifest");
        change(&mut manifest);
        self.write(
            "manifest.json",
            &serde_json::to_vec_pretty(&manifest).expect("JSON"),
        );
    }

    pub fn load(&self, options: LoadOptions) -> Result<Policy, Vec<Problem>> {
        Policy::load(self.dir.path(), options, &cpu)
    }
}

/// Tensors that a test and an engine share.
pub type Memory = Arc<Mutex<Vec<Tensor>>>;

/// Gives the outputs that a test wants and remembers the last inputs.
pub struct Parrot {
    pub spec: StageSpec,
    pub says: Memory,
    pub heard: Memory,
}

impl Engine for Parrot {
    fn inputs(&self) -> &[TensorSpec] {
        &self.spec.inputs
    }
    fn outputs(&self) -> &[TensorSpec] {
        &self.spec.outputs
    }
    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        *self.heard.lock().expect("no panic held it") = inputs.to_vec();
        outputs.clone_from_slice(&self.says.lock().expect("no panic held it"));
        Ok(())
    }
}

/// The shipped bundle with a parrot in it, which says zeros until told otherwise: the policy, what the parrot says,
/// what it heard.
pub fn parrot() -> (Policy, Memory, Memory) {
    let (says, heard) = (Memory::default(), Memory::default());
    let (mouth, ear) = (says.clone(), heard.clone());
    let load = move |_: &Path, spec: &StageSpec| {
        *mouth.lock().expect("no panic held it") = spec.outputs.iter().map(Tensor::zeros).collect();
        let parrot = Parrot {
            spec: spec.clone(),
            says: mouth.clone(),
            heard: ear.clone(),
        };
        Ok(Box::new(parrot) as Box<dyn Engine>)
    };
    let mut policy = Policy::load(&shipped(), REPORT, &load).expect("a parrot loads");
    policy.bind(&JOINTS).expect("the bench robot's joints");
    policy
        .set_instruction("touch the red block")
        .expect("a short sentence");
    (policy, says, heard)
}

/// Changes one output of a parrot: 0 action, 1 keypoint, 2 presence.
pub fn say(says: &Memory, output: usize, change: impl FnOnce(&mut [f32])) {
    change(
        says.lock().expect("no panic held it")[output]
            .f32_mut()
            .expect("floats"),
    );
}

/// The shipped bundle, bound and told what to do.
pub fn ready() -> Policy {
    let mut policy =
        Policy::load(&shipped(), LoadOptions::default(), &cpu).expect("the shipped bundle loads");
    policy.bind(&JOINTS).expect("the bench robot's joints");
    policy
        .set_instruction("touch the red block")
        .expect("a short sentence");
    policy
}
