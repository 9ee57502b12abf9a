// SPDX-License-Identifier: Apache-2.0
//! The demo: the whole pipeline and a bench robot. Interactive with a page, or episodes with figures, in real time
//! against a bench robot in a process of its own, or in simulated time.

use crate::bench::episode::{Ask, Spec};
use crate::bench::process::{Answer, Request as BenchRequest};
use crate::config::Config;
use crate::config::problem::Problem;
use crate::core::supervisor::{Mode, Refused, Request};
use crate::core::units::MS;
use crate::link::session::{self, LinkError};
use crate::link::{keys, operator_end};
use crate::policy::ParityMiss;
use crate::policy::parity::Parity;
use crate::policy::staged::Staged;
use crate::policy::staged::bundle::{Opened, is_staged};
use crate::policy::staged::recording::beside;
use crate::runtime::clock;
use crate::runtime::deployment::Deployment;
use crate::runtime::evaluation::{Report, grounding_plan, plan};
use crate::runtime::lockstep::{EpisodeFault, Lockstep};
use crate::runtime::operations::Desk;
use crate::runtime::pipeline::{self, Running, StartError};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zenoh::Session;

/// The bench deployment, carried by the program.
pub const TENDON_TOML: &str = include_str!("../../deploy/bench/tendon.toml");
/// Its robot.
pub const ROBOT_TOML: &str = include_str!("../../deploy/bench/robot.toml");
/// The bench robot's links and shapes.
pub const ROBOT_URDF: &str = include_str!("../../deploy/bench/robot.urdf");

/// The bench robot must have answered within this time.
const BENCH_START_NS: u64 = 10_000 * MS;
/// Arming waits for an echo that has flowed for a second.
const ARMING_NS: u64 = 6_000 * MS;
/// No episode is longer than this in real time, whatever the bench says.
const EPISODE_NS: u64 = 30_000 * MS;
/// How long a robot is given to come to rest.
const REST: Duration = Duration::from_secs(3);

/// Why the demo did not work.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The configuration or the bundle.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
    /// The link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The pipeline did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An episode of simulated time could not be run.
    #[error(transparent)]
    Episode(#[from] EpisodeFault),
    /// The bench robot's process.
    #[error("the bench robot: {0}")]
    Bench(String),
    /// The robot was not armed.
    #[error("the robot could not be armed: {0}")]
    NotArmed(String),
    /// Interrupted by a signal; the robot is at rest.
    #[error("interrupted")]
    Interrupted,
}

impl From<Vec<Problem>> for DemoError {
    fn from(problems: Vec<Problem>) -> Self {
        DemoError::Problems(problems)
    }
}

/// The bench deployment with the bundle in `bundle`.
///
/// # Errors
/// Every [`Problem`].
pub fn bench_config(bundle: &Path, int8: bool) -> Result<Config, Vec<Problem>> {
    let tendon = TENDON_TOML.replace("../../engines/bench-vla", &bundle.display().to_string());
    let tendon = if int8 {
        tendon.replace("precision = \"fp32\"", "precision = \"int8\"")
    } else {
        tendon
    };
    let mut config = Config::from_texts(&tendon, ROBOT_TOML, ROBOT_URDF, Path::new("."))?;
    // A bundle that does not open is refused, with its reasons, by who loads it.
    let says_nothing = |opened: Opened| !opened.file.tells_doubt();
    if is_staged(bundle) && Opened::open(bundle).is_ok_and(says_nothing) {
        // The shipped policy's bound; this one does not say how sure it is.
        config.policy.doubt_max = None;
    }
    Ok(config)
}

/// Episodes in simulated time. What the policy was shown and answered is written to `record`, if that is named.
///
/// # Errors
/// [`DemoError`].
pub fn lockstep(
    config: Config,
    episodes: u32,
    seed: u64,
    injected_ms: u64,
    parity_miss: ParityMiss,
    record: Option<&Path>,
    ending: &AtomicBool,
) -> Result<Report, DemoError> {
    let began = clock::now();
    let mut report = start_report(&config, seed, injected_ms, "lockstep");
    let deployment = Deployment::load_with(config, parity_miss)?;
    report.policy.clone_from(&deployment.policy_name);
    report.parity.clone_from(&deployment.parity);
    let mut pipeline = Lockstep::new(deployment, injected_ms * MS);
    if let Some(path) = record {
        beside(path).map_err(|problem| vec![problem])?;
        recordable(&mut pipeline)?
            .record()
            .map_err(|problem| vec![problem])?;
    }
    for spec in plan(episodes, seed)
        .iter()
        .chain(&grounding_plan(episodes, seed))
    {
        if ending.load(Ordering::Relaxed) {
            return Err(DemoError::Interrupted);
        }
        report.add(spec, &pipeline.episode(spec, &mut |_| {})?);
    }
    report.take(&pipeline.measures.figures());
    report.limit_violations = pipeline.limit_violations;
    report.commands_rejected = pipeline.rejected;
    report.allocations_in_control_loop = pipeline.allocations;
    report.governor_interventions = pipeline.interventions;
    if let Some(path) = record {
        let written = recordable(&mut pipeline)?.write_recording(path);
        report.recorded = Some(written.map_err(|problem| vec![problem])?);
    }
    report.wall_s = clock::now().seconds_since(began);
    Ok(report)
}

/// The policy, if there is a form for what it sees.
fn recordable(pipeline: &mut Lockstep) -> Result<&mut Staged, Vec<Problem>> {
    pipeline
        .policy()
        .staged()
        .ok_or_else(|| Problem::one("--record", "a bundle of schema 2", "one of schema 1"))
}

fn start_report(config: &Config, seed: u64, injected_ms: u64, time: &'static str) -> Report {
    Report {
        precision: config.policy.precision_word().to_owned(),
        time,
        seed,
        injected_inference_delay_ms: injected_ms,
        control_hz: 1e9 / config.control.period_ns as f64,
        ..Report::default()
    }
}

/// What arming does with a latched stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterLatch {
    /// Refuses: a person must look.
    Refuse,
    /// Acknowledges it: a run of episodes is its own operator, and counts.
    Reset,
}

/// The pipeline with a bench robot in a process of its own.
pub struct Bench {
    /// The pipeline.
    pub running: Running,
    /// How the policy compares with its fixture.
    pub parity: Parity,
    session: Session,
    child: Child,
    key: String,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // The robot first comes to rest by command, then its process ends; one that is gone already is as well.
        self.running.desk.come_to_rest(REST);
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Bench {
    /// Starts both. The bench is reached over TCP on loopback, at a port that is free.
    ///
    /// # Errors
    /// [`DemoError`].
    pub fn start(
        mut config: Config,
        scene_seed: u64,
        injected_ms: u64,
        parity_miss: ParityMiss,
    ) -> Result<Bench, DemoError> {
        let bench = |error: std::io::Error| DemoError::Bench(error.to_string());
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .map_err(bench)?
            .port();
        let endpoint = format!("tcp/127.0.0.1:{port}");
        config.link.listen = Some(endpoint.clone());
        config.link.connect = None;
        let key = keys::bench(&config.robot.name);
        let deployment = Deployment::load_with(config.clone(), parity_miss)?;
        let parity = deployment.parity.clone();
        let session = session::open(&config.link)?;
        let running = pipeline::start(deployment, &session, injected_ms * MS)?;
        let child = Command::new(std::env::current_exe().map_err(bench)?)
            .args([
                "bench-robot",
                "--connect",
                &endpoint,
                "--seed",
                &scene_seed.to_string(),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(bench)?;
        let mut bench = Bench {
            running,
            parity,
            session,
            child,
            key,
        };
        let deadline = clock::now().plus_ns(BENCH_START_NS);
        while let Err(error) = bench.ask(BenchRequest::Report) {
            if let Ok(Some(status)) = bench.child.try_wait() {
                return Err(DemoError::Bench(format!("ended at once: {status}")));
            }
            if clock::now() > deadline {
                return Err(error);
            }
            pause(50);
        }
        Ok(bench)
    }

    /// Asks the bench robot.
    ///
    /// # Errors
    /// [`DemoError::Link`].
    pub fn ask(&self, request: BenchRequest) -> Result<Answer, DemoError> {
        let text =
            serde_json::to_string(&request).map_err(|error| DemoError::Bench(error.to_string()))?;
        let answer = operator_end::ask(&self.session, &self.key, &text)?;
        serde_json::from_str(&answer)
            .map_err(|error| DemoError::Bench(format!("its answer: {error}")))
    }

    /// The desk.
    #[must_use]
    pub fn desk(&self) -> &Desk {
        &self.running.desk
    }

    /// Arms the robot, waiting for what arming needs.
    ///
    /// # Errors
    /// [`DemoError::NotArmed`] with the last refusal.
    pub fn arm(&self, reset: AfterLatch, ending: &AtomicBool) -> Result<(), DemoError> {
        let deadline = clock::now().plus_ns(ARMING_NS);
        loop {
            let refused = match self.desk().request(Request::Activate) {
                Some(Ok(_)) => return Ok(()),
                Some(Err(Refused::Latched(mode))) if reset == AfterLatch::Reset => {
                    self.desk().request(Request::Reset);
                    format!("latched in {}", mode.word())
                }
                Some(Err(refused)) => refused.to_string(),
                None => "the watchdog does not answer".to_owned(),
            };
            if clock::now() > deadline {
                return Err(DemoError::NotArmed(refused));
            }
            if ending.load(Ordering::Relaxed) {
                return Err(DemoError::Interrupted);
            }
            pause(20);
        }
    }

    /// One episode: rest, scene, sentence, arm, judge. Also tells whether the robot latched a stop.
    fn episode(&self, spec: &Spec, ending: &AtomicBool) -> Result<(Answer, bool), DemoError> {
        self.desk().come_to_rest(REST);
        let set = self.set_scene(spec)?;
        let set_at = clock::now();
        self.desk()
            .instruct(&set.sentence)
            .map_err(DemoError::Bench)?;
        // The first picture of the new scene, and the policy's first chunk of it.
        let newest = || self.desk().counters.newest_frame_ns();
        while newest() < set_at.plus_ns(200 * MS).0 && clock::now() < set_at.plus_ns(2_000 * MS) {
            pause(5);
        }
        self.arm(AfterLatch::Reset, ending)?;
        let deadline = clock::now().plus_ns(EPISODE_NS);
        loop {
            let answer = self.ask(BenchRequest::Report)?;
            // A latched stop ends the episode as it stands: nothing resumes by itself.
            let latched = self.desk().view().decision.mode >= Mode::Stopped;
            if answer.outcome.over || latched || clock::now() > deadline {
                return Ok((answer, latched));
            }
            if ending.load(Ordering::Relaxed) {
                return Err(DemoError::Interrupted);
            }
            pause(20);
        }
    }

    /// Sets a scene; the bench refuses while it still follows, which ends a moment after the stop.
    fn set_scene(&self, spec: &Spec) -> Result<Answer, DemoError> {
        let deadline = clock::now().plus_ns(2_000 * MS);
        loop {
            match self.ask(BenchRequest::Set(*spec)) {
                Err(DemoError::Link(LinkError::Refused(_))) if clock::now() < deadline => pause(10),
                other => return other,
            }
        }
    }
}

/// Episodes in real time. `progress` is told after each.
///
/// # Errors
/// [`DemoError`].
pub fn real_time(
    config: Config,
    episodes: u32,
    seed: u64,
    injected_ms: u64,
    parity_miss: ParityMiss,
    ending: &AtomicBool,
    mut progress: impl FnMut(&Spec, &Report),
) -> Result<Report, DemoError> {
    let began = clock::now();
    let mut report = start_report(&config, seed, injected_ms, "real_time");
    let bench = Bench::start(config, seed, injected_ms, parity_miss)?;
    report.parity.clone_from(&bench.parity);
    report.policy.clone_from(&bench.desk().policy);
    bench.desk().clear_figures();
    let mut last = None;
    for spec in plan(episodes, seed)
        .iter()
        .chain(&grounding_plan(episodes, seed))
    {
        let (answer, latched) = bench.episode(spec, ending)?;
        report.latched_stops += u32::from(latched);
        report.add(spec, &answer.outcome);
        progress(spec, &report);
        last = Some(answer);
    }
    bench.desk().come_to_rest(REST);
    if let Some(answer) = last {
        report.limit_violations = u64::from(answer.limit_violations);
        report.commands_rejected = u64::from(answer.rejected);
    }
    report.take(&bench.desk().figures());
    report.allocations_in_control_loop = bench.desk().allocations();
    report.allocations_in_capture_loop = Some(bench.desk().counters.capture_allocations());
    report.governor_interventions = bench.desk().counters.interventions.load(Ordering::Relaxed);
    report.wall_s = clock::now().seconds_since(began);
    Ok(report)
}

/// The scene of an interactive demo.
#[must_use]
pub fn scene(seed: u64) -> Spec {
    Spec {
        seed,
        put: true,
        held_out_position: false,
        ask: Ask::Seen,
    }
}

/// Waits between two looks at something that another process does.
pub fn pause(ms: u64) {
    clock::sleep_until(clock::now().plus_ns(ms * MS));
}
