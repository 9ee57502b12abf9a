// SPDX-License-Identifier: Apache-2.0
//! `tendon inference-process`: what `tendon run` starts with isolation = "process". Not for people.

use crate::cli::Failure;
use clap::Args;
use tendon::runtime::isolation::child::{self, ChildFault};
use tendon::sync::heartbeat::Failing;

/// Arguments of `tendon inference-process`.
#[derive(Debug, Args)]
pub struct Options {
    /// As of `tendon run`.
    #[arg(long, value_name = "HOW:THREAD", hide = true, value_parser = super::run::parse_drill)]
    drill: Option<(&'static str, Failing)>,
}

/// Runs the verb, until the control process goes.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    child::run(|crew| match options.drill {
        Some((name, failing)) => super::run::drill(crew, name, failing),
        None => Ok(()),
    })
    .map_err(|fault| match fault {
        ChildFault::Alone(_) => Failure::Usage(fault.to_string()),
        ChildFault::Refused(_) => Failure::failed(fault),
    })
}
