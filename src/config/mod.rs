// SPDX-License-Identifier: Apache-2.0
//! Configuration in two steps: files as written ([`mod@file`]) -> checked values ([`Config`]). Whoever holds a `Config`
//! need not check it again. Every semantic check collects all problems before it refuses; a file that cannot be read
//! as TOML, or holds an unknown key, is one problem with its line.

pub mod camera;
pub mod derate;
mod engines;
pub mod file;
pub mod files;
pub mod governor;
pub mod lines;
pub mod link;
pub mod page;
pub mod problem;
pub mod realtime;
mod robot;
pub mod schedule;
pub mod space;
#[cfg(test)]
mod tests;
mod trigger;
pub mod urdf;
pub mod watchdog;

pub use engines::{EngineKind, OrtProvider, RemoteConfig};

use crate::config::camera::{CameraConfig, CameraSource};
use crate::config::file::{Located, PolicyTable, RobotFile, TendonFile};
use crate::config::files::AsRead;
use crate::config::link::LinkConfig;
use crate::config::problem::Problem;
use crate::config::schedule::ScheduleConfig;
use crate::config::space::Source;
use crate::core::governor::limits::{Joint, JointLimits, Limits};
use crate::core::governor::reaction::Cause;
use crate::core::kinematics::envelope::Envelope;
use crate::core::schedule::trigger::Trigger;
use crate::core::units::MS;
use std::path::{Path, PathBuf};

/// Which of a bundle's graphs is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit float.
    #[default]
    Fp32,
    /// 16-bit float inside, 32-bit where tensors go in and out. For a GPU.
    Fp16,
    /// Quantised. On a CPU slower than `Fp32`; it runs there to check its numbers.
    Int8,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 3] = [Precision::Fp32, Precision::Fp16, Precision::Int8];

    /// As it is written in tendon.toml and in a manifest.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Precision::Fp32 => "fp32",
            Precision::Fp16 => "fp16",
            Precision::Int8 => "int8",
        }
    }
}

/// In place of a precision.
pub const BEST: &str = "best";

/// A robot's name and joints.
#[derive(Clone, Debug)]
pub struct Robot {
    /// Used in keys: letters, digits, '-' and '_'.
    pub name: String,
    /// How old a joint state is when it comes by the fastest way.
    pub state_delay_ns: u64,
    /// Names, kinds and limits; this order is the order everywhere.
    pub joints: Vec<(String, Joint)>,
    /// Where it may be, if the file says so.
    pub space: Option<Box<Envelope>>,
    /// Names of the links of its chain, in their order; none without a space.
    pub links: Vec<String>,
    /// The one of them that commands tell of beside the joints.
    pub tool: Option<usize>,
    /// Poses with names; one number a joint.
    pub poses: Vec<(String, Vec<f64>)>,
}

/// Which policy, how often.
#[derive(Clone, Debug)]
pub struct PolicyConfig {
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// Which of its graphs; with `best` those of every engine but TensorRT.
    pub precision: Precision,
    /// On TensorRT whichever was found to be the fastest of those that pass the fixture.
    pub best: bool,
    /// Inferences a second to ask for.
    pub rate_hz: f64,
    /// When the next plan is asked for.
    pub trigger: Trigger,
    /// Threads of the CPU engine.
    pub threads: usize,
    /// With more doubt than this, 0..1, a chunk is not followed; `None`: doubt is not asked for.
    pub doubt_max: Option<f32>,
    /// After so many doubted chunks in a row help is called for.
    pub help_after_chunks: u32,
    /// What is tried, in this order; the first that loads runs. Not empty.
    pub engines: Vec<EngineKind>,
    /// Where built engines are kept; absent: the service's or the user's cache.
    pub engine_cache: Option<PathBuf>,
    /// More for the builder of TensorRT engines; part of the engine's identity.
    pub trtexec_flags: Vec<String>,
    /// What ONNX Runtime is asked for, in this order; the processor takes what is left, or all.
    pub ort_providers: Vec<OrtProvider>,
    /// Who runs the engine "remote".
    pub remote: Option<RemoteConfig>,
}

impl PolicyConfig {
    /// The precision as it is written.
    #[must_use]
    pub const fn precision_word(&self) -> &'static str {
        if self.best {
            BEST
        } else {
            self.precision.word()
        }
    }

    /// Least time between two inferences. A little less than 1/rate, so that a camera whose frames come a whole number
    /// of times a period does not miss one by jitter.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        (0.9e9 / self.rate_hz) as u64
    }
}

/// Where cameras and policy run.
#[derive(Clone, Debug, Default)]
pub struct Isolation {
    /// In a process of their own, so that what fails there costs a hold.
    pub process: bool,
    /// Its program; absent: this one.
    pub program: Option<PathBuf>,
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
    /// Where it runs.
    pub isolation: Isolation,
    /// The link.
    pub link: LinkConfig,
    /// The camera that the policy looks through.
    pub camera: CameraConfig,
    /// The other cameras.
    pub more_cameras: Vec<CameraConfig>,
    /// How far apart the pictures of one observation may be.
    pub skew_max_ns: u64,
    /// The control loop.
    pub control: ControlConfig,
    /// What the governor keeps.
    pub limits: Limits,
    /// Share of the speed limits at the start, percent.
    pub speed_percent: f64,
    /// Poses that are offered when a cause holds the robot.
    pub fallbacks: Vec<(Cause, String)>,
    /// How chunks are joined.
    pub schedule: ScheduleConfig,
    /// The operator's page; none if absent.
    pub page: Option<page::PageConfig>,
    /// What is asked of the kernel.
    pub realtime: realtime::Realtime,
    /// Contacts that are wired to this machine.
    pub lines: lines::LinesConfig,
    /// The machine's hardware watchdog, if it is ours to ping.
    pub watchdog: Option<watchdog::WatchdogConfig>,
    /// How the machine's health slows the robot.
    pub derate: derate::DerateConfig,
    /// The files that it was read from.
    pub files: AsRead,
}

impl Config {
    /// Reads and checks `tendon.toml` and the `robot.toml` it names.
    ///
    /// # Errors
    /// Every [`Problem`] found in either file.
    pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
        let Files {
            name,
            text,
            written,
            robot_path,
            robot_text,
        } = Files::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let robot_folder = robot_path.parent().unwrap_or(Path::new("."));
        let files = AsRead::of((path, &text), (&robot_path, &robot_text));
        let read = Config::check(
            &name,
            &text,
            &written,
            folder,
            &robot_path.display().to_string(),
            &robot_text,
            Source::Folder(robot_folder),
        )?;
        Ok(Config { files, ..read })
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

    /// Only what a bench robot needs of the two files. The policy's bundle need not be there.
    ///
    /// # Errors
    /// As [`Config::load`], but for the bundle.
    pub fn load_bench_parts(path: &Path) -> Result<BenchParts, Vec<Problem>> {
        let files = Files::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let robot_name = files.robot_path.display().to_string();
        let mut at = Located::new(&files.name, &files.text);
        bench_parts(
            &files.written,
            &mut at,
            folder,
            &robot_name,
            &files.robot_text,
        )
    }

    /// The same of texts that were read already.
    ///
    /// # Errors
    /// As [`Config::load_bench_parts`].
    pub fn bench_parts(tendon: &str, robot: &str) -> Result<BenchParts, Vec<Problem>> {
        let written: TendonFile =
            file::parse("tendon.toml", tendon).map_err(|problem| vec![problem])?;
        let mut at = Located::new("tendon.toml", tendon);
        bench_parts(&written, &mut at, Path::new("."), "robot.toml", robot)
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
        let (camera, more_cameras, skew_max_ns) = camera::check(written, folder, &mut at);
        let link = link::check(&written.link, &written.robot, folder, &mut at);
        let policy = check_policy(written, folder, &link, &mut at);
        let cameras = camera.iter().chain(&more_cameras);
        let isolation = check_isolation(written, folder, &policy, cameras, &mut at);
        let page = page::check(written, folder, &mut at);
        let schedule = schedule::check(&written.schedule, 1e3 / policy.rate_hz, &mut at);
        let governor = governor::check(written, &mut at);
        let realtime = realtime::check(written.realtime.as_ref(), &mut at);
        let watchdog = watchdog::check(written.watchdog.as_ref(), &mut at);
        let derate = derate::check(written.derate.as_ref(), &mut at);
        let lines = lines::check(written.lines.as_ref(), &mut at);
        let mut problems = at.problems;
        let robot = match file::parse::<RobotFile>(robot_name, robot_text) {
            Ok(read) => {
                let mut at = Located::new(robot_name, robot_text);
                let robot =
                    robot::check(&read, urdf, &mut at).map_err(|more| problems.extend(more));
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
        match robot.zip(camera) {
            Some(((robot, limits), camera)) if problems.is_empty() => Ok(Config {
                robot,
                limits,
                speed_percent: governor.speed_percent,
                fallbacks: governor.fallbacks,
                policy,
                isolation,
                link,
                camera,
                more_cameras,
                skew_max_ns,
                control,
                schedule,
                page,
                realtime,
                lines,
                derate,
                watchdog,
                files: AsRead::default(),
            }),
            Some(_) | None => Err(problems),
        }
    }

    /// What the scheduler must know.
    #[must_use]
    pub fn schedule(&self) -> crate::core::schedule::Config {
        self.schedule
            .with(&self.robot.joints, self.control.period_ns)
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

/// A deployment's two files, read and not checked.
struct Files {
    /// The path of tendon.toml, for messages.
    name: String,
    text: String,
    written: TendonFile,
    robot_path: PathBuf,
    robot_text: String,
}

impl Files {
    fn read(path: &Path) -> Result<Files, Vec<Problem>> {
        let text = read(path, BYTES_MAX)?;
        let name = path.display().to_string();
        let written: TendonFile = file::parse(&name, &text).map_err(|problem| vec![problem])?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let robot_path = folder.join(written.robot.get_ref());
        let robot_text = read(&robot_path, BYTES_MAX)?;
        Ok(Files {
            name,
            text,
            written,
            robot_path,
            robot_text,
        })
    }
}

/// What a bench robot needs of a deployment.
#[derive(Debug)]
pub struct BenchParts {
    /// Names, limits and pose.
    pub robot: Robot,
    /// The first camera.
    pub camera: CameraConfig,
    /// From one command to the next, ns.
    pub period_ns: u64,
    /// The runtime's; a bench robot takes what it proves itself with.
    pub link: LinkConfig,
}

fn bench_parts(
    written: &TendonFile,
    at: &mut Located<'_>,
    folder: &Path,
    robot_name: &str,
    robot_text: &str,
) -> Result<BenchParts, Vec<Problem>> {
    let control = check_control(written, at);
    let (camera, _, _) = camera::check(written, folder, at);
    let link = link::check(&written.link, &written.robot, folder, at);
    let read = file::parse(robot_name, robot_text).map_err(|problem| vec![problem])?;
    let mut robot_at = Located::new(robot_name, robot_text);
    let robot = robot::check(&read, Source::Ignored, &mut robot_at)?;
    match camera {
        Some(camera) if at.problems.is_empty() => Ok(BenchParts {
            robot,
            camera,
            period_ns: control.period_ns,
            link,
        }),
        Some(_) | None => Err(std::mem::take(&mut at.problems)),
    }
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

fn check_policy(
    written: &TendonFile,
    folder: &Path,
    link: &LinkConfig,
    at: &mut Located<'_>,
) -> PolicyConfig {
    let policy = &written.policy;
    let engines = engines::check(written, at);
    let written_precision = policy.precision.get_ref().as_str();
    let best = written_precision == BEST;
    let known = match best {
        true => Some(Precision::Fp32),
        false => Precision::ALL
            .into_iter()
            .find(|precision| precision.word() == written_precision),
    };
    let precision = known.unwrap_or_else(|| {
        at.push(
            &policy.precision,
            "policy.precision",
            "\"fp32\", \"fp16\", \"int8\" or \"best\"",
            format!("\"{written_precision}\""),
        );
        Precision::Fp32
    });
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
        best,
        rate_hz: at.within("policy.rate_hz", &policy.rate_hz, 0.1, 120.0),
        trigger: trigger::check(policy, at),
        threads: policy.threads.as_ref().map_or(1, |threads| {
            at.within("policy.threads", threads, 1.0, 64.0) as usize
        }),
        doubt_max: check_doubt(policy, at),
        help_after_chunks: policy.help_after_chunks.as_ref().map_or(10, |chunks| {
            at.within("policy.help_after_chunks", chunks, 1.0, 10_000.0) as u32
        }),
        remote: engines::check_remote(policy, &engines, link, at),
        engines,
        engine_cache: policy
            .engine_cache
            .as_ref()
            .map(|cache| folder.join(cache.get_ref())),
        trtexec_flags: policy.trtexec_flags.clone(),
        ort_providers: engines::check_providers(policy, at),
    }
}

fn check_doubt(policy: &PolicyTable, at: &mut Located<'_>) -> Option<f32> {
    match (&policy.doubt_max, &policy.help_after_chunks) {
        (Some(doubt_max), _) => Some(at.within("policy.doubt_max", doubt_max, 0.0, 1.0) as f32),
        (None, Some(chunks)) => {
            let found = format!("{}", chunks.get_ref().0);
            at.push(
                chunks,
                "policy.help_after_chunks",
                "policy.doubt_max beside it: without it no chunk is doubted",
                found,
            );
            None
        }
        (None, None) => None,
    }
}

fn check_isolation<'a>(
    written: &TendonFile,
    folder: &Path,
    policy: &PolicyConfig,
    mut cameras: impl Iterator<Item = &'a CameraConfig>,
    at: &mut Located<'_>,
) -> Isolation {
    // What is not written in Rust may take its process with it.
    let native = policy.engines.iter().any(|kind| *kind != EngineKind::Cpu)
        || cameras.any(|camera| matches!(camera.source, CameraSource::Gstreamer(_)));
    let word = written.isolation.as_ref();
    let process = match word.map_or("auto", |word| word.get_ref().as_str()) {
        "auto" => native,
        "process" => true,
        "thread" if policy.remote.is_some() => {
            // What it waits for is out of our hands, and a server that was started since asks for another process.
            if let Some(word) = word {
                let expected = "\"process\" or \"auto\" with the engine \"remote\"";
                at.push(word, "isolation", expected, "\"thread\"".into());
            }
            false
        }
        "thread" => false,
        other => {
            let found = format!("\"{other}\"");
            if let Some(word) = word {
                at.push(
                    word,
                    "isolation",
                    "\"auto\", \"thread\" or \"process\"",
                    found,
                );
            }
            false
        }
    };
    let program = written.inference_program.as_ref();
    if let Some(program) = program.filter(|_| !process) {
        let expected = "isolation = \"process\" beside it";
        at.push(program, "inference_program", expected, "none".into());
    }
    Isolation {
        process,
        program: program.map(|program| folder.join(program.get_ref())),
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
