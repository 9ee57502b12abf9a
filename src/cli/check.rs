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
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    unproven: super::Unproven,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    let config = Config::load(&options.config).map_err(super::problems)?;
    let deployment =
        Deployment::load_with(config, options.unproven.parity_miss()).map_err(super::problems)?;
    if options.json {
        let said = serde_json::json!({
            "robot": deployment.config.robot.name,
            "joints": deployment.config.robot.joints.len(),
            "policy": deployment.policy_name,
            "control_hz": 1e9 / deployment.config.control.period_ns as f64,
            "engine": deployment.engine.words(),
            "parity": deployment.parity,
        });
        println!("{said}");
        return Ok(());
    }
    println!(
        "good: robot \"{}\" with {} joints, policy \"{}\", control at {:.0} Hz",
        deployment.config.robot.name,
        deployment.config.robot.joints.len(),
        deployment.policy_name,
        1e9 / deployment.config.control.period_ns as f64,
    );
    println!("engine: {}", deployment.engine.words());
    println!("parity: {}", deployment.parity);
    Ok(())
}
