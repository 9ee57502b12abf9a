// SPDX-License-Identifier: Apache-2.0
//! `tendon mode`: show or change a running robot's mode.

use crate::cli::Failure;
use crate::cli::instruct::Robot;
use clap::Args;
use tendon::link::keys;

/// Arguments of `tendon mode`.
#[derive(Debug, Args)]
#[command(
    after_help = "active arms the robot if everything is fresh; takeover lets a person's device drive (docs/wire.md); standby and stop bring it to rest; reset acknowledges a latched stop. Without a word it shows the mode and its cause."
)]
pub struct Options {
    /// active, takeover, standby, stop, reset, e-stop; or status.
    #[arg(value_parser = ["active", "takeover", "standby", "stop", "reset", "e-stop", "status"], default_value = "status")]
    mode: String,
    #[command(flatten)]
    robot: Robot,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    options.robot.ask(keys::mode, &options.mode)
}
