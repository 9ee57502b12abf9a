// SPDX-License-Identifier: Apache-2.0
//! `tendon check`: validate a deployment; moves nothing.

use crate::cli::Failure;
use clap::Args;
use std::path::PathBuf;
use tendon::config::Config;
use tendon::runtime::deployment::Deployment;

/// Arguments of `tendon check`.
#[derive(Debug, Args)]
pub struct Options {
    /// The deployment's tendon.toml.
    #[arg(long, value_name = "FILE", default_value = "tendon.toml")]
    config: PathBuf,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    let config = Config::load(&options.config).map_err(super::problems)?;
    let deployment = Deployment::load(config).map_err(super::problems)?;
    println!(
        "good: robot \"{}\" with {} joints, policy \"{}\", control at {:.0} Hz",
        deployment.config.robot.name,
        deployment.config.robot.joints.len(),
        deployment.policy_name,
        1e9 / deployment.config.control.period_ns as f64,
    );
    println!("engine: {}", deployment.engine.words());
    Ok(())
}
