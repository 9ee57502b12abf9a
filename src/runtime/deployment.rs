// SPDX-License-Identifier: Apache-2.0
//! A deployment made ready: configuration, policy and robot that fit each other, checked before any thread starts.

use crate::config::problem::Problem;
use crate::config::{Config, Precision};
use crate::core::action::JointKind;
use crate::core::governor::Governor;
use crate::core::governor::limits::Joint;
use crate::core::schedule::Schedule;
use crate::core::wire::{Identity, Kind, data_id, schema_id};
use crate::engine::cpu::{CpuEngine, CpuOptions};
use crate::policy::Policy;
use crate::ports::{Engine, EngineFault};
use crate::runtime::engines::{self, Chosen};
use crate::runtime::inference::{self, Inference};

/// The streams of one robot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identities {
    /// Runtime to motor controller.
    pub commands: Identity,
    /// Motor controller to runtime.
    pub states: Identity,
    /// Camera to runtime.
    pub pictures: Identity,
    /// A person's device to the runtime.
    pub takeovers: Identity,
    /// Runtime to whoever listens.
    pub events: Identity,
}

impl Identities {
    /// Those of a robot with these joints.
    #[must_use]
    pub fn of(robot: &str, joints: &[(String, Joint)]) -> Identities {
        let schema = schema_id(
            joints
                .iter()
                .map(|(name, joint)| (name.as_str(), kind_code(joint.kind))),
        );
        let stream = |kind, schema| Identity {
            data_id: data_id(robot, kind),
            schema,
        };
        Identities {
            commands: stream(Kind::Command, schema),
            states: stream(Kind::State, schema),
            pictures: stream(Kind::Picture, 0),
            takeovers: stream(Kind::Takeover, schema),
            events: stream(Kind::Event, 0),
        }
    }
}

fn kind_code(kind: JointKind) -> u8 {
    match kind {
        JointKind::Revolute => 0,
        JointKind::Prismatic => 1,
        JointKind::Gripper => 2,
    }
}

/// Everything that decides, ready to be stepped by threads or by simulated time.
pub struct Deployment {
    /// The checked configuration.
    pub config: Config,
    /// The policy, bound to the robot.
    pub inference: Inference,
    /// For tokenising away from the inference thread.
    pub text: crate::policy::text::Text,
    /// The scheduler.
    pub schedule: Schedule,
    /// The governor.
    pub governor: Governor,
    /// The streams.
    pub identities: Identities,
    /// The bundle's name.
    pub policy_name: String,
    /// What runs the policy, and why not something else.
    pub engine: Chosen,
}

impl Deployment {
    /// Loads the policy and fits everything together.
    ///
    /// # Errors
    /// Every [`Problem`] found: in the bundle, and where bundle, robot and deployment do not fit.
    pub fn load(config: Config) -> Result<Deployment, Vec<Problem>> {
        let (mut policy, engine) = engines::load(&config.policy)?;
        let joints: Vec<(&str, JointKind)> = config
            .robot
            .joints
            .iter()
            .map(|(name, joint)| (name.as_str(), joint.kind))
            .collect();
        let mut problems = policy.bind(&joints).err().unwrap_or_default();
        problems.extend(misfits(&config, &policy));
        if !problems.is_empty() {
            return Err(problems);
        }
        let bundle = policy.bundle();
        let settings = inference::Settings {
            period_ns: config.policy.period_ns(),
            frame_age_max_ns: config
                .camera
                .age_max_ns
                .min(bundle.timing.observation_age_max_ns),
            doubt_max: config.policy.doubt_max,
        };
        let governed = Governor::new(config.limits.clone()).and_then(|governor| {
            match config.robot.space.as_deref() {
                Some(space) => governor.within(space.clone()),
                None => Ok(governor),
            }
        });
        let governor = governed.map_err(|bad| {
            vec![Problem {
                at: "robot.toml".into(),
                expected: "limits that can be governed".into(),
                found: bad.to_string(),
            }]
        })?;
        Ok(Deployment {
            policy_name: bundle.name.clone(),
            engine,
            text: policy.text().clone(),
            schedule: Schedule::new(config.schedule()),
            governor,
            identities: Identities::of(&config.robot.name, &config.robot.joints),
            inference: Inference::new(policy, settings),
            config,
        })
    }
}

/// Makes CPU engines that compute on `threads` threads.
pub fn cpu_engine(
    threads: usize,
) -> impl Fn(&std::path::Path, &crate::ports::StageSpec) -> Result<Box<dyn Engine>, EngineFault> {
    move |path, spec| {
        let options = CpuOptions {
            threads,
            ..CpuOptions::default()
        };
        CpuEngine::load(path, spec, options).map(|engine| Box::new(engine) as Box<dyn Engine>)
    }
}

/// Where the deployment does not fit the bundle.
fn misfits(config: &Config, policy: &Policy) -> Vec<Problem> {
    let bundle = policy.bundle();
    let mut problems = Vec::new();
    let found = [config.camera.width, config.camera.height];
    if found != bundle.image.source {
        problems.push(Problem {
            at: "tendon.toml: camera.width, camera.height".into(),
            expected: format!(
                "{:?}, the size that the bundle \"{}\" was trained on",
                bundle.image.source, bundle.name
            ),
            found: format!("{found:?}"),
        });
    }
    if config.camera.name != bundle.image.role {
        problems.push(Problem {
            at: "tendon.toml: camera.name".into(),
            expected: format!(
                "\"{}\", the camera that the bundle \"{}\" looks through",
                bundle.image.role, bundle.name
            ),
            found: format!("\"{}\"", config.camera.name),
        });
    }
    let horizon_ns = bundle.action.period_ns * bundle.action.chunk_len as u64;
    if config.policy.period_ns() >= horizon_ns {
        problems.push(Problem {
            at: "tendon.toml: policy.rate_hz".into(),
            expected: format!(
                "more than {:.2}: a new chunk before the last one of {} ms ends",
                1e9 / horizon_ns as f64,
                horizon_ns / 1_000_000
            ),
            found: format!("{:.2}", 1e9 / config.policy.period_ns() as f64),
        });
    }
    if config.policy.doubt_max.is_some() && !policy.tells_doubt() {
        problems.push(Problem {
            at: "tendon.toml: policy.doubt_max".into(),
            expected: format!(
                "no such key: no graph of the bundle \"{}\" tells how sure it is (an output \"presence\")",
                bundle.name
            ),
            found: "a number".into(),
        });
    }
    problems
}

/// Whether the Q/DQ graph is run.
#[must_use]
pub fn precision_word(precision: Precision) -> &'static str {
    match precision {
        Precision::Fp32 => "fp32",
        Precision::Int8 => "int8",
    }
}
