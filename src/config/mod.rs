// SPDX-License-Identifier: Apache-2.0
//! Configuration in two steps: files as written ([`mod@file`]) -> checked values ([`Config`]). Whoever holds a `Config`
//! need not check it again. Every semantic check collects all problems before it refuses; a file that cannot be read
//! as TOML, or holds an unknown key, is one problem with its line.

pub mod file;
pub mod governor;
pub mod problem;
pub mod realtime;
pub mod space;
#[cfg(test)]
mod tests;
pub mod urdf;

use crate::config::file::{Located, RobotFile, TendonFile};
use crate::config::problem::Problem;
use crate::config::space::Source;
use crate::core::action::JointKind;
use crate::core::governor::limits::{Joint, JointLimits, Limits};
use crate::core::governor::reaction::Cause;
use crate::core::kinematics::envelope::Envelope;
use crate::core::limits::JOINTS_MAX;
use crate::core::schedule::{self, Merge};
use crate::core::units::MS;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Which of a bundle's graphs is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit float.
    #[default]
    Fp32,
    /// Quantised. On a CPU slower than `Fp32`; it runs there to check its numbers.
    Int8,
}

/// A robot's name and joints.
#[derive(Clone, Debug)]
pub struct Robot {
    /// Used in keys: letters, digits, '-' and '_'.
    pub name: String,
    /// Names, kinds and limits; this order is the order everywhere.
    pub joints: Vec<(String, Joint)>,
    /// Where it may be, if the file says so.
    pub space: Option<Box<Envelope>>,
    /// Poses with names; one number a joint.
    pub poses: Vec<(String, Vec<f64>)>,
}

/// Which policy, how often.
#[derive(Clone, Debug)]
pub struct PolicyConfig {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Which of its graphs.
    pub precision: Precision,
    /// Inferences a second to ask for.
    pub rate_hz: f64,
    /// Threads of the CPU engine.
    pub threads: usize,
}

impl PolicyConfig {
    /// Least time between two inferences. A little less than 1/rate, so that a camera whose frames come a whole number
    /// of times a period does not miss one by jitter.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        (0.9e9 / self.rate_hz) as u64
    }
}

/// How the motor controller is reached.
#[derive(Clone, Debug, Default)]
pub struct LinkConfig {
    /// Endpoint to listen on, e.g. `tcp/127.0.0.1:7447`.
    pub listen: Option<String>,
    /// Endpoint to connect to.
    pub connect: Option<String>,
    /// User and password file, needed beyond loopback.
    pub credentials: Option<(String, PathBuf)>,
}

/// The policy's camera, reached over the link.
#[derive(Clone, Debug)]
pub struct CameraConfig {
    /// Its name in keys and in the bundle.
    pub name: String,
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// An older frame is not shown to the policy.
    pub age_max_ns: u64,
}

/// The control loop.
#[derive(Clone, Copy, Debug)]
pub struct ControlConfig {
    /// Time between two ticks.
    pub period_ns: u64,
    /// An older joint state is stale.
    pub state_age_max_ns: u64,
}

/// A deployment, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Limits and joints.
    pub robot: Robot,
    /// The policy.
    pub policy: PolicyConfig,
    /// The link.
    pub link: LinkConfig,
    /// The camera.
    pub camera: CameraConfig,
    /// The control loop.
    pub control: ControlConfig,
    /// What the governor keeps.
    pub limits: Limits,
    /// Share of the speed limits at the start, percent.
    pub speed_percent: f64,
    /// Poses that are offered when a cause holds the robot.
    pub fallbacks: Vec<(Cause, String)>,
    /// How chunks are joined.
    pub merge: Merge,
    /// Where the operator's page listens; nowhere if absent.
    pub page: Option<SocketAddr>,
    /// What is asked of the kernel.
    pub realtime: realtime::Realtime,
}

impl Config {
    /// Reads and checks `tendon.toml` and the `robot.toml` it names.
    ///
    /// # Errors
    /// Every [`Problem`] found in either file.
    pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
        let text = read(path, BYTES_MAX)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let name = path.display().to_string();
        let written: TendonFile = file::parse(&name, &text).map_err(|problem| vec![problem])?;
        let robot_path = folder.join(written.robot.get_ref());
        let robot_text = read(&robot_path, BYTES_MAX)?;
        let robot_folder = robot_path.parent().unwrap_or(Path::new("."));
        Config::check(
            &name,
            &text,
            &written,
            folder,
            &robot_path.display().to_string(),
            &robot_text,
            Source::Folder(robot_folder),
        )
    }

    /// Checks texts that were read already: the deployment that the program carries.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_texts(
        tendon: &str,
        robot: &str,
        urdf: &str,
        folder: &Path,
    ) -> Result<Config, Vec<Problem>> {
        let written: TendonFile =
            file::parse("tendon.toml", tendon).map_err(|problem| vec![problem])?;
        let urdf = Source::Text(urdf);
        Config::check(
            "tendon.toml",
            tendon,
            &written,
            folder,
            "robot.toml",
            robot,
            urdf,
        )
    }

    /// Only what a bench robot needs of the two texts: robot, camera, time between two commands. The policy's bundle
    /// need not be there.
    ///
    /// # Errors
    /// As [`Config::load`], but for the bundle.
    pub fn bench_parts(
        tendon: &str,
        robot: &str,
    ) -> Result<(Robot, CameraConfig, u64), Vec<Problem>> {
        let written: TendonFile =
            file::parse("tendon.toml", tendon).map_err(|problem| vec![problem])?;
        let mut at = Located::new("tendon.toml", tendon);
        let (control, camera) = (
            check_control(&written, &mut at),
            check_camera(&written, &mut at),
        );
        let read = file::parse("robot.toml", robot).map_err(|problem| vec![problem])?;
        let robot = check_robot(
            &read,
            Source::Ignored,
            &mut Located::new("robot.toml", robot),
        )?;
        if at.problems.is_empty() {
            Ok((robot, camera, control.period_ns))
        } else {
            Err(at.problems)
        }
    }

    fn check(
        name: &str,
        text: &str,
        written: &TendonFile,
        folder: &Path,
        robot_name: &str,
        robot_text: &str,
        urdf: Source<'_>,
    ) -> Result<Config, Vec<Problem>> {
        let mut at = Located::new(name, text);
        let control = check_control(written, &mut at);
        let camera = check_camera(written, &mut at);
        let policy = check_policy(written, folder, &mut at);
        let link = check_link(written, folder, &mut at);
        let page = check_page(written, &mut at);
        let merge = check_merge(written, &mut at);
        let governor = governor::check(written, &mut at);
        let realtime = realtime::check(written.realtime.as_ref(), &mut at);
        let mut problems = at.problems;
        let robot = match file::parse::<RobotFile>(robot_name, robot_text) {
            Ok(read) => {
                let mut at = Located::new(robot_name, robot_text);
                let robot = check_robot(&read, urdf, &mut at).map_err(|more| problems.extend(more));
                robot.ok().and_then(|robot| {
                    let limits = governor::limits(&governor, &control, &robot, &read, &mut at);
                    governor::poses(written, name, text, &robot, &mut problems);
                    problems.append(&mut at.problems);
                    limits.map(|limits| (robot, limits))
                })
            }
            Err(problem) => {
                problems.push(problem);
                None
            }
        };
        match robot {
            Some((robot, limits)) if problems.is_empty() => Ok(Config {
                robot,
                limits,
                speed_percent: governor.speed_percent,
                fallbacks: governor.fallbacks,
                policy,
                link,
                camera,
                control,
                merge,
                page,
                realtime,
            }),
            Some(_) | None => Err(problems),
        }
    }

    /// What the scheduler must know.
    #[must_use]
    pub fn schedule(&self) -> schedule::Config {
        schedule::Config {
            kinds: self
                .robot
                .joints
                .iter()
                .map(|(_, joint)| joint.kind)
                .collect(),
            period_ns: self.control.period_ns,
            merge: self.merge,
            // A chunk's own horizon bounds its use; this drops one that was made of a picture of another moment.
            chunk_age_max_ns: 2_000 * MS,
        }
    }
}

/// Largest configuration file.
const BYTES_MAX: u64 = 1 << 20;

fn read(path: &Path, bytes_max: u64) -> Result<String, Vec<Problem>> {
    let wrong = |found: String| {
        vec![Problem {
            at: path.display().to_string(),
            expected: format!("a text file of at most {bytes_max} bytes"),
            found,
        }]
    };
    let size = std::fs::metadata(path)
        .map_err(|error| wrong(error.to_string()))?
        .len();
    if size > bytes_max {
        return Err(wrong(format!("{size} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))
}

fn check_control(written: &TendonFile, at: &mut Located<'_>) -> ControlConfig {
    let hz = at.within("control.hz", &written.control.hz, 50.0, 1000.0);
    let age_ms = at.within(
        "control.state_age_max_ms",
        &written.control.state_age_max_ms,
        1.0,
        1000.0,
    );
    ControlConfig {
        period_ns: (1e9 / hz).round() as u64,
        state_age_max_ns: (age_ms * MS as f64) as u64,
    }
}

fn check_camera(written: &TendonFile, at: &mut Located<'_>) -> CameraConfig {
    let camera = &written.camera;
    at.name("camera.name", &camera.name);
    CameraConfig {
        name: camera.name.get_ref().clone(),
        width: at.within("camera.width", &camera.width, 16.0, 8192.0) as usize,
        height: at.within("camera.height", &camera.height, 16.0, 8192.0) as usize,
        age_max_ns: (at.within("camera.age_max_ms", &camera.age_max_ms, 1.0, 10_000.0) * MS as f64)
            as u64,
    }
}

fn check_policy(written: &TendonFile, folder: &Path, at: &mut Located<'_>) -> PolicyConfig {
    let policy = &written.policy;
    let precision = match policy.precision.get_ref().as_str() {
        "fp32" => Precision::Fp32,
        "int8" => Precision::Int8,
        other => {
            at.push(
                &policy.precision,
                "policy.precision",
                "\"fp32\" or \"int8\"",
                format!("\"{other}\""),
            );
            Precision::Fp32
        }
    };
    let bundle = folder.join(policy.bundle.get_ref());
    if !bundle.join("manifest.json").is_file() {
        let found = format!("no manifest.json in {}", bundle.display());
        at.push(
            &policy.bundle,
            "policy.bundle",
            "the folder of a policy bundle",
            found,
        );
    }
    PolicyConfig {
        bundle,
        precision,
        rate_hz: at.within("policy.rate_hz", &policy.rate_hz, 0.1, 120.0),
        threads: policy.threads.as_ref().map_or(1, |threads| {
            at.within("policy.threads", threads, 1.0, 64.0) as usize
        }),
    }
}

fn check_link(written: &TendonFile, folder: &Path, at: &mut Located<'_>) -> LinkConfig {
    let link = &written.link;
    if link.listen.is_none() && link.connect.is_none() {
        at.push(
            &written.robot,
            "link",
            "listen or connect, e.g. listen = \"tcp/127.0.0.1:7447\"",
            "neither".into(),
        );
    }
    let credentials = match (&link.user, &link.password_file) {
        (Some(user), Some(file)) => Some((user.get_ref().clone(), folder.join(file.get_ref()))),
        (None, None) => None,
        (Some(given), None) => {
            at.push(
                given,
                "link.password_file",
                "a file beside link.user",
                "nothing".into(),
            );
            None
        }
        (None, Some(given)) => {
            at.push(
                given,
                "link.user",
                "a name beside link.password_file",
                "nothing".into(),
            );
            None
        }
    };
    for (key, endpoint) in [
        ("link.listen", &link.listen),
        ("link.connect", &link.connect),
    ] {
        let Some(endpoint) = endpoint else { continue };
        match endpoint.get_ref().strip_prefix("tcp/").map(str::parse::<SocketAddr>) {
            Some(Ok(address)) if !address.ip().is_loopback() && credentials.is_none() => at.push(
                endpoint,
                key,
                "a loopback address, or link.user and link.password_file beside it: what can move a robot over a network needs authentication",
                format!("\"{}\"", endpoint.get_ref()),
            ),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => {
                at.push(endpoint, key, "an endpoint such as \"tcp/127.0.0.1:7447\"", format!("\"{}\"", endpoint.get_ref()));
            }
        }
    }
    let text = |endpoint: &Option<toml::Spanned<String>>| {
        endpoint.as_ref().map(|endpoint| endpoint.get_ref().clone())
    };
    LinkConfig {
        listen: text(&link.listen),
        connect: text(&link.connect),
        credentials,
    }
}

fn check_page(written: &TendonFile, at: &mut Located<'_>) -> Option<SocketAddr> {
    let listen = &written.page.as_ref()?.listen;
    match listen.get_ref().parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Some(address),
        Ok(_) => {
            let expected = "a loopback address such as \"127.0.0.1:8765\"; reach it from elsewhere through an SSH tunnel";
            at.push(
                listen,
                "page.listen",
                expected,
                format!("\"{}\"", listen.get_ref()),
            );
            None
        }
        Err(_) => {
            at.push(
                listen,
                "page.listen",
                "an address such as \"127.0.0.1:8765\"",
                format!("\"{}\"", listen.get_ref()),
            );
            None
        }
    }
}

fn check_merge(written: &TendonFile, at: &mut Located<'_>) -> Merge {
    let schedule = &written.schedule;
    let word = schedule.merge.get_ref().as_str();
    let given = [
        ("schedule.blend_ms", &schedule.blend_ms),
        ("schedule.start_ms", &schedule.start_ms),
    ];
    match word {
        "replace" => {
            for (key, given) in given {
                if let Some(given) = given {
                    at.push(
                        given,
                        key,
                        "nothing, as merge is \"replace\"",
                        given.get_ref().0.to_string(),
                    );
                }
            }
            Merge::Replace
        }
        "blend" => {
            let [blend_ns, start_ns] = given.map(|(key, given)| match given {
                Some(given) => (at.within(key, given, 1.0, 2_000.0) * MS as f64) as u64,
                None => {
                    at.push(
                        &schedule.merge,
                        key,
                        "the length of the blend",
                        "nothing".into(),
                    );
                    1
                }
            });
            Merge::Blend {
                blend_ns,
                start_ns: start_ns.max(blend_ns),
            }
        }
        other => {
            at.push(
                &schedule.merge,
                "schedule.merge",
                "\"replace\" or \"blend\"",
                format!("\"{other}\""),
            );
            Merge::Replace
        }
    }
}

fn check_robot(
    written: &RobotFile,
    urdf: Source<'_>,
    at: &mut Located<'_>,
) -> Result<Robot, Vec<Problem>> {
    at.name("name", &written.name);
    if written.joint.is_empty() || written.joint.len() > JOINTS_MAX {
        at.push(
            &written.name,
            "joint",
            &format!("1 to {JOINTS_MAX} [[joint]] tables"),
            format!("{}", written.joint.len()),
        );
    }
    let mut joints: Vec<(String, Joint)> = Vec::new();
    for (index, joint) in written.joint.iter().enumerate() {
        let name = joint.name.get_ref();
        let key = format!("joint[{index}] \"{name}\"");
        if joints.iter().any(|(other, _)| other == name) {
            at.push(
                &joint.name,
                &format!("{key}.name"),
                "a name that no other joint has",
                format!("\"{name}\" again"),
            );
        }
        let (kind, unit) = match joint.kind.get_ref().as_str() {
            "revolute" => (JointKind::Revolute, "rad"),
            "prismatic" => (JointKind::Prismatic, "m"),
            "gripper" => (JointKind::Gripper, ""),
            other => {
                at.push(
                    &joint.kind,
                    &format!("{key}.kind"),
                    "\"revolute\", \"prismatic\" or \"gripper\"",
                    format!("\"{other}\""),
                );
                continue;
            }
        };
        let limits = match kind {
            JointKind::Gripper => at.gripper(&key, joint),
            JointKind::Revolute | JointKind::Prismatic => at.limits(&key, joint, unit),
        };
        joints.push((name.clone(), Joint { kind, limits }));
    }
    // A space is made of joints that are good.
    let space = if at.problems.is_empty() {
        space::check(written, &joints, urdf, at)
    } else {
        None
    };
    let problems = std::mem::take(&mut at.problems);
    if problems.is_empty() {
        Ok(Robot {
            space,
            poses: written
                .pose
                .iter()
                .map(|pose| {
                    let positions = pose.positions.get_ref().iter();
                    let positions = positions.map(|number| number.0).collect();
                    (pose.name.get_ref().clone(), positions)
                })
                .collect(),
            name: written.name.get_ref().clone(),
            joints,
        })
    } else {
        Err(problems)
    }
}

/// A gripper's range is 0..1 by definition and it has no rates.
const GRIPPER: JointLimits = JointLimits {
    position_min: 0.0,
    position_max: 1.0,
    velocity_max: 1.0,
    acceleration_max: 1.0,
    jerk_max: 1.0,
    tracking_error_max: f64::INFINITY,
    torque_max: f64::INFINITY,
};
