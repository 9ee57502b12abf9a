// SPDX-License-Identifier: Apache-2.0
//! `tendon demo`: the bench robot, the shipped policy and the whole pipeline, on any Linux box.

use crate::cli::Failure;
use clap::Args;
use std::path::PathBuf;
use tendon::runtime::demo::{self, Figures, Settings};

/// Arguments of `tendon demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tendon demo \"put the red block in the left bin\"
  tendon demo --headless --episodes 20 --seed 7 --json
  tendon demo --headless --lockstep --episodes 200 --seed 7 --json")]
pub struct Options {
    /// What the robot shall do, in plain words. Without it the bench robot thinks of something.
    instruction: Option<String>,
    /// No page: run episodes and report. In real time unless --lockstep is given.
    #[arg(long)]
    headless: bool,
    /// Step the same pipeline in simulated time: deterministic, as fast as the CPU allows.
    #[arg(long, requires = "headless")]
    lockstep: bool,
    /// Episodes to run with --headless.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    episodes: u32,
    /// Seed of scenes, sentences and noise. Training used other seeds.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
    /// Delay every chunk by this many milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    inject_inference_delay_ms: u64,
    /// Which graph of the bundle runs: fp32, or the Q/DQ graph to check its numbers.
    #[arg(long, default_value = "fp32", value_parser = ["fp32", "int8"])]
    precision: String,
    /// The policy bundle. Without it: engines/bench-vla of this checkout, or beside the program.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Where the page listens; loopback only.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8765")]
    page: std::net::SocketAddr,
}
