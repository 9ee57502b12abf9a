// SPDX-License-Identifier: Apache-2.0
//! A deployment made ready: configuration, policy and robot that fit each other, checked before any thread starts.

use crate::config::Config;
use crate::config::problem::Problem;
use crate::core::action::JointKind;
use crate::core::camera::skew::Need;
use crate::core::governor::Governor;
use crate::core::governor::limits::Joint;
use crate::core::schedule::Schedule;
use crate::core::schedule::trigger::{Left, Trigger};
use crate::core::units::MS;
use crate::core::wire::{Identity, Kind, data_id, schema_id};
use crate::policy::ParityMiss;
use crate::policy::means::Body;
use crate::policy::parity::Parity;
use crate::policy::pilot::{Pace, Pilot};
use crate::policy::words::Words;
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
    /// A deadman switch elsewhere to the runtime.
    pub deadman: Identity,
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
            deadman: stream(Kind::Deadman, 0),
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
pub struct Deployment<M = Inference> {
    /// The checked configuration.
    pub config: Config,
    /// The policy, bound to the robot.
    pub mind: M,
    /// For tokenising away from the inference thread.
    pub words: Words,
    /// The scheduler.
    pub schedule: Box<Schedule>,
    /// The governor.
    pub governor: Governor,
    /// The streams.
    pub identities: Identities,
    /// The bundle's name, and whether it misses its fixture.
    pub policy_name: String,
    /// What runs the policy, and why not something else.
    pub engine: Chosen,
    /// How the policy compares with its fixture. It misses it only if [`ParityMiss::Report`] was asked for.
    pub parity: Parity,
}

/// What of a deployment has nothing to do with its policy.
pub struct Parts {
    /// The scheduler.
    pub schedule: Box<Schedule>,
    /// The governor.
    pub governor: Governor,
    /// The streams.
    pub identities: Identities,
}

impl Parts {
    /// Those of a checked configuration.
    ///
    /// # Errors
    /// A [`Problem`] if the limits cannot be governed.
    pub fn new(config: &Config) -> Result<Parts, Vec<Problem>> {
        let governed = Governor::new(config.limits.clone()).and_then(|governor| {
            match config.robot.space.as_deref() {
                Some(space) => governor.within(space.clone()),
                None => Ok(governor),
            }
        });
        let governor = governed.map_err(|bad| {
            Problem::one("robot.toml", "limits that can be governed", bad.to_string())
        })?;
        Ok(Parts {
            schedule: Box::new(Schedule::new(config.schedule())),
            governor,
            identities: Identities::of(&config.robot.name, &config.robot.joints),
        })
    }
}

impl Deployment {
    /// Loads the policy and fits everything together. A policy that misses its fixture is refused.
    ///
    /// # Errors
    /// Every [`Problem`] found: in the bundle, and where bundle, robot and deployment do not fit.
    pub fn load(config: Config) -> Result<Deployment, Vec<Problem>> {
        Deployment::load_with(config, ParityMiss::Refuse)
    }

    /// As [`Deployment::load`], with a person's word for what becomes of a policy that misses its fixture.
    ///
    /// # Errors
    /// As of [`Deployment::load`].
    pub fn load_with(config: Config, parity_miss: ParityMiss) -> Result<Deployment, Vec<Problem>> {
        let (mut policy, engine) = engines::load(&config.policy, parity_miss)?;
        let joints: Vec<(&str, JointKind)> = config
            .robot
            .joints
            .iter()
            .map(|(name, joint)| (name.as_str(), joint.kind))
            .collect();
        let cameras: Vec<&str> = config
            .cameras()
            .map(|camera| camera.name.as_str())
            .collect();
        policy.embody(Body::from(&config.robot));
        let mut problems = policy.bind(&joints, &cameras).err().unwrap_or_default();
        problems.extend(unseen(&config, &policy));
        problems.extend(unsaid(&config, &policy));
        let pace = policy.pace();
        problems.extend(
            pace.map(|pace| out_of_step(&config, &policy, pace))
                .unwrap_or_default(),
        );
        let Some(pace) = pace.filter(|_| problems.is_empty()) else {
            return Err(problems);
        };
        let settings = inference::Settings {
            period_ns: config.policy.period_ns(),
            frame_age_max_ns: config.camera.age_max_ns.min(pace.observation_age_max_ns),
            doubt_max: config.policy.doubt_max,
            trigger: config.policy.trigger,
        };
        let kinds: Vec<JointKind> = joints.iter().map(|(_, kind)| *kind).collect();
        let parts = Parts::new(&config)?;
        Ok(Deployment {
            policy_name: match policy.parity().missed.is_empty() {
                true => policy.name().to_owned(),
                false => format!("{} (misses its parity fixture)", policy.name()),
            },
            parity: policy.parity().clone(),
            engine,
            words: policy.words(),
            schedule: parts.schedule,
            governor: parts.governor,
            identities: parts.identities,
            mind: Inference::new(policy, pace, settings, &kinds),
            config,
        })
    }
}

/// Where the cameras are not those that the bundle looks through.
fn unseen(config: &Config, policy: &Pilot) -> Vec<Problem> {
    let name = policy.name();
    let eyes = policy.eyes();
    let mut problems = Vec::new();
    let mut wrong = |key: &str, expected: String, found: String| {
        problems.push(Problem {
            at: format!("tendon.toml: {key}"),
            expected,
            found,
        });
    };
    let paced = eyes
        .iter()
        .any(|eye| eye.role == config.camera.name && eye.required);
    if let Some(eye) = eyes.iter().find(|eye| eye.required).filter(|_| !paced) {
        wrong(
            "camera.name",
            format!(
                "first \"{}\", a camera without which the bundle \"{name}\" does not see: the first one paces it",
                eye.role
            ),
            format!("\"{}\"", config.camera.name),
        );
    }
    for eye in &eyes {
        let role = eye.role;
        let Some((index, camera)) = config
            .cameras()
            .enumerate()
            .find(|(_, camera)| camera.name == role)
        else {
            if eye.required && (paced || eyes.len() > 1) {
                let names: Vec<&str> = config.cameras().map(|each| each.name.as_str()).collect();
                wrong(
                    "camera.name",
                    format!("a camera \"{role}\", which the bundle \"{name}\" looks through"),
                    format!("{names:?}"),
                );
            }
            continue;
        };
        let key = if config.more_cameras.is_empty() {
            "camera".to_owned()
        } else {
            format!("camera[{index}] \"{role}\"")
        };
        let found = [camera.width, camera.height];
        if found != eye.size {
            wrong(
                &format!("{key}.width, {key}.height"),
                format!(
                    "{:?}, the size that the bundle \"{name}\" was trained on",
                    eye.size
                ),
                format!("{found:?}"),
            );
        }
        if eye.required && camera.need == Need::Optional {
            wrong(
                &format!("{key}.optional"),
                format!("false: the bundle \"{name}\" has nothing to put in its place"),
                "true".into(),
            );
        }
    }
    problems
}

/// Where the policy is asked how sure it is and does not tell.
fn unsaid(config: &Config, policy: &Pilot) -> Option<Problem> {
    let asked = config.policy.doubt_max?;
    (!policy.tells_doubt()).then(|| Problem {
        at: "tendon.toml: policy.doubt_max".into(),
        expected: format!(
            "no such key: the bundle \"{}\" does not tell how sure it is (by an output \"presence\", or by tokens that are limited to actions)",
            policy.name()
        ),
        found: asked.to_string(),
    })
}

/// Where a plan would be over before the next one that it is asked for comes: asked at the latest moment and at the next
/// picture after it, made within the bundle's deadline.
fn starved(config: &Config, pace: Pace) -> Option<Problem> {
    let (trigger, period_ns) = (config.policy.trigger, pace.action_period_ns);
    let horizon_ns = pace.period_ns * (pace.steps as u64).saturating_sub(1) + pace.first_step_ns;
    // A plan that is relative to the state at the observation has that as its first row.
    let first_ns = if pace.begins_at_state() {
        0
    } else {
        pace.first_step_ns
    };
    let actions = (horizon_ns - first_ns) / period_ns.max(1) + 1;
    let actions = u16::try_from(actions).unwrap_or(u16::MAX);
    let spare_ns = pace.deadline_ns + config.policy.period_ns();
    let begun_ns = first_ns + trigger.latest_ns(actions, period_ns);
    let key = match trigger {
        Trigger::Continuous => return None,
        Trigger::Horizon { .. } => "policy.execute_actions",
        Trigger::Queue(Left::Actions(_)) => "policy.queue_actions",
        Trigger::Queue(Left::Share(_)) => "policy.queue_share",
        Trigger::Surprise { .. } => "policy.infer",
    };
    (begun_ns + spare_ns > horizon_ns).then(|| Problem {
        at: format!("tendon.toml: {key}"),
        expected: format!(
            "the next plan asked for at most {} ms after the observation: a plan of {} ms, less the bundle's deadline of {} ms and a period of policy.rate_hz",
            horizon_ns.saturating_sub(spare_ns) / MS,
            horizon_ns / MS,
            pace.deadline_ns / MS,
        ),
        found: format!("{} ms", begun_ns / MS),
    })
}

/// Where the policy is asked too seldom: for its chunks to meet, for what it is to remember.
fn out_of_step(config: &Config, policy: &Pilot, pace: Pace) -> Vec<Problem> {
    let found = format!("{:.2}", config.policy.rate_hz);
    let wrong = |expected: String| Problem {
        at: "tendon.toml: policy.rate_hz".into(),
        expected,
        found: found.clone(),
    };
    let mut problems: Vec<Problem> = starved(config, pace).into_iter().collect();
    let mut wrong = |expected: String| problems.push(wrong(expected));
    let horizon_ns = pace.period_ns * pace.steps as u64;
    if config.policy.period_ns() >= horizon_ns {
        wrong(format!(
            "more than {:.2}: a new chunk before the last one of {} ms ends",
            1e9 / horizon_ns as f64,
            horizon_ns / MS
        ));
    }
    let spacings = policy.eyes().into_iter().map(|eye| eye.spacing_ns);
    let shortest = spacings
        .chain([pace.state_spacing_ns])
        .filter(|spacing_ns| *spacing_ns > 0)
        .min();
    if let Some(spacing_ns) = shortest
        && config.policy.period_ns() > spacing_ns
    {
        wrong(format!(
            "{:.2} or more: the bundle remembers what it saw {} ms before, and sees only when it is asked",
            1e9 / spacing_ns as f64,
            spacing_ns / MS
        ));
    }
    problems
}
