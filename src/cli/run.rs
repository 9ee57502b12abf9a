// SPDX-License-Identifier: Apache-2.0
//! `tendon run`: the pipeline of a deployment. Starts in standby; `tendon instruct` and `tendon mode active` do the rest.

use crate::cli::Failure;
use clap::Args;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tendon::config::Config;
use tendon::link::session;
use tendon::operator::{self, Operator};
use tendon::runtime::demo::pause;
use tendon::runtime::deployment::Deployment;
use tendon::runtime::pipeline;

/// How long the robot is given to come to rest before the program ends.
const REST: Duration = Duration::from_secs(3);

/// Arguments of `tendon run`.
#[derive(Debug, Args)]
pub struct Options {
    /// The deployment's tendon.toml.
    #[arg(long, value_name = "FILE", default_value = "tendon.toml")]
    config: PathBuf,
}

/// Runs the verb, until Ctrl-C or SIGTERM; the robot comes to rest first.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    let ending = super::ending()?;
    let config = Config::load(&options.config).map_err(super::problems)?;
    let (page, link) = (config.page, config.link.clone());
    let deployment = Deployment::load(config).map_err(super::problems)?;
    let session = session::open(&link).map_err(Failure::failed)?;
    let running = pipeline::start(deployment, &session, 0).map_err(Failure::failed)?;
    let page = match page {
        Some(listen) => Some(
            operator::serve(listen, Arc::clone(&running.desk) as Arc<dyn Operator>)
                .map_err(Failure::failed)?,
        ),
        None => None,
    };
    if let Some(page) = &page {
        println!("Watch and instruct: {}", page.url);
    }
    println!("standby; arm with: tendon mode active");
    while !ending.load(Ordering::Relaxed) {
        pause(50);
    }
    if running.desk.come_to_rest(REST) {
        println!("at rest");
        Ok(())
    } else {
        Err(Failure::Failed(
            "the robot did not report rest in time; its motor controller stops it by itself"
                .to_owned(),
        ))
    }
}
