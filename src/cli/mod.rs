// SPDX-License-Identifier: Apache-2.0
//! The command line: one file a verb, no logic. Each turns arguments into one call of the library and its result into
//! lines and an exit code.

pub mod bench_robot;
pub mod cameras;
pub mod check;
pub mod deadman;
pub mod demo;
pub mod doctor;
pub mod engine;
pub mod events;
pub mod fault_sim;
pub mod inference_process;
pub mod instruct;
mod journal;
pub mod log;
pub mod mode;
pub mod park;
pub mod policy;
mod policy_run;
pub mod rt_bench;
pub mod run;
pub mod sched_sim;
pub mod speed;

use clap::{Parser, Subcommand};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tendon::config::problem::Problem;
use tendon::policy::ParityMiss;
use tendon::runtime::demo::DemoError;

/// Carries a vision-language-action policy from camera to motor.
///
/// Start with `tendon demo "put the red block in the left bin"`: a bench robot, no hardware needed.
#[derive(Debug, Parser)]
#[command(version, about, long_about, arg_required_else_help = true)]
pub struct Arguments {
    /// More log lines on stderr: once for info, twice for debug.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The whole pipeline on a bench robot: watch it in the browser, or measure it with --headless.
    Demo(demo::Options),
    /// Run a deployment: the pipeline on a real robot (or a bench robot started with `bench-robot`).
    Run(run::Options),
    /// The bench robot alone: arm, table, camera and motor controller, reached over zenoh.
    BenchRobot(bench_robot::Options),
    /// Check a deployment's tendon.toml, robot.toml and policy bundle, and that they fit; moves nothing.
    Check(check::Options),
    /// Look at a deployment's cameras as the pipeline would: rates, ages, faults, skew.
    Cameras(cameras::Options),
    /// The scheduler alone: every merge rule over the same streams of chunks, measured.
    SchedSim(sched_sim::Options),
    /// Strike a simulated robot with every fault of the matrix and judge the reactions.
    FaultSim(fault_sim::Options),
    /// Look at machine and deployment: ready to arm, and what would make it better? Each finding with its fix.
    Doctor(doctor::Options),
    /// What `run` starts with isolation = "process"; not for people.
    #[command(hide = true)]
    InferenceProcess(inference_process::Options),
    /// Tell a running robot what to do.
    Instruct(instruct::Options),
    /// Show or change a running robot's mode: standby, active, stop, reset.
    Mode(mode::Options),
    /// Show or change how fast a running robot may be.
    Speed(speed::Options),
    /// Take a running robot to a pose of robot.toml.
    Park(park::Options),
    /// Tell a running robot whether somebody holds a deadman switch that is plugged in here.
    Deadman(deadman::Options),
    /// Print what a running robot tells: modes, causes, calls for help.
    Events(events::Options),
    /// Measure how late this machine wakes a control loop, idle and loaded.
    RtBench(rt_bench::Options),
    /// Build and look into TensorRT engines.
    #[command(subcommand)]
    Engine(engine::Verb),
    /// Look into policy bundles.
    #[command(subcommand)]
    Policy(policy::Verb),
}

/// The one way past a missed fixture. No configuration has it: somebody must say it at each start.
#[derive(Debug, clap::Args)]
pub struct Unproven {
    /// Go on although the policy misses its parity fixture. Each command, the page and the events then say so.
    #[arg(long)]
    allow_parity_miss: bool,
}

impl Unproven {
    /// What becomes of a policy that misses its fixture.
    fn parity_miss(&self) -> ParityMiss {
        match self.allow_parity_miss {
            true => ParityMiss::Report,
            false => ParityMiss::Refuse,
        }
    }
}

/// How a verb ends when it does not end well.
#[derive(Debug)]
pub enum Failure {
    /// The arguments or a configuration are wrong: exit code 2.
    Usage(String),
    /// It was right to try and it did not work: exit code 1.
    Failed(String),
}

impl Failure {
    /// For everything else.
    pub fn failed(error: impl Display) -> Failure {
        Failure::Failed(error.to_string())
    }
}

/// Set by Ctrl-C and SIGTERM. A second signal ends the program at once.
pub fn ending() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // In this order: the first signal finds the flag unset and sets it, the second finds it set.
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&flag))
            .map_err(Failure::failed)?;
        signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(Failure::failed)?;
    }
    Ok(flag)
}

/// Problems of a configuration, a line each.
pub fn problems(problems: Vec<Problem>) -> Failure {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    Failure::Usage(lines.join("\ntendon: "))
}

/// A demo's error: what the user wrote, or what did not work.
pub fn demo_failure(error: DemoError) -> Failure {
    match error {
        DemoError::Problems(found) => problems(found),
        DemoError::Link(_)
        | DemoError::Start(_)
        | DemoError::Episode(_)
        | DemoError::Bench(_)
        | DemoError::NotArmed(_)
        | DemoError::Interrupted => Failure::failed(error),
    }
}
