// SPDX-License-Identifier: Apache-2.0
//! `tendon park`: take a running robot to a pose that `robot.toml` names.

use crate::cli::Failure;
use crate::cli::instruct::Robot;
use clap::Args;
use tendon::link::keys;

/// Arguments of `tendon park`.
#[derive(Debug, Args)]
#[command(
    after_help = "The robot goes there straight in joint space, within its limits, as if a person drove it, and stays: make sure that the way is free. `tendon mode standby` disarms it there."
)]
pub struct Options {
    /// Name of a [[pose]].
    pose: String,
    #[command(flatten)]
    robot: Robot,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    options.robot.ask(keys::park, &options.pose)
}
