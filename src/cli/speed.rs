// SPDX-License-Identifier: Apache-2.0
//! `tendon speed`: show or change how fast a running robot may be.

use crate::cli::Failure;
use crate::cli::instruct::Robot;
use clap::Args;
use tendon::link::keys;

/// Arguments of `tendon speed`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tendon speed 30     at most 30 % of robot.toml's speeds, at once"
)]
pub struct Options {
    /// Share of the speed limits, 0 to 100; without it: shown.
    percent: Option<f64>,
    #[command(flatten)]
    robot: Robot,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    let word = options.percent.map(|percent| percent.to_string());
    options.robot.ask(keys::speed, &word.unwrap_or_default())
}
