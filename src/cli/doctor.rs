// SPDX-License-Identifier: Apache-2.0
//! `tendon doctor`: is this deployment ready to arm on this machine?

use crate::cli::Failure;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use tendon::runtime::doctor::{Report, deployment};
use tendon::runtime::health::Tree;

/// Arguments of `tendon doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Moves nothing and writes nothing; opens cameras that no runtime has open. Exit code 1: not ready to arm. Run it as the user that runs the runtime: sudo -u tendon tendon doctor --config /etc/tendon/tendon.toml. What is asked of the kernel is judged by the unit that starts this configuration, if one is installed"
)]
pub struct Options {
    /// The deployment's tendon.toml; without it, only the machine is looked at.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The report as JSON.
    #[arg(long)]
    json: bool,
    /// Look for nothing on the link but a runtime that runs already: for a target whose motor controller is off.
    #[arg(long)]
    no_link: bool,
    /// As if a person had acknowledged the last run's crash or stop: for installing, not for arming.
    #[arg(long)]
    acknowledged: bool,
    /// How long to wait for the motor controller, and then for cameras that are reached over the link, seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    wait: u64,
    /// Look at a recorded tree of /proc, /sys, /dev and /etc instead of this machine.
    #[arg(long, value_name = "DIR", hide = true)]
    root: Option<PathBuf>,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`] if it is not ready to arm.
pub fn run(options: &Options) -> Result<(), Failure> {
    let tree = options.root.as_deref().map_or_else(Tree::machine, Tree::at);
    let mut report = Report::of_machine(&tree, options.config.as_deref());
    if let Some(config) = &options.config {
        let (findings, fitted) = deployment::configuration(config);
        report.add(findings);
        if let Some(fitted) = fitted {
            report.add(deployment::machine(&tree, &fitted, options.acknowledged));
            let patience = (!options.no_link).then(|| Duration::from_secs(options.wait));
            report.add(deployment::world(&fitted, patience));
        }
    }
    if options.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&report).map_err(Failure::failed)?
        );
    } else {
        println!("{report}");
    }
    if report.could_arm {
        Ok(())
    } else {
        Err(Failure::Failed("doctor: not ready to arm".to_owned()))
    }
}
