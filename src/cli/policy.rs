// SPDX-License-Identifier: Apache-2.0
//! `tendon policy`: look into policy bundles.

use crate::cli::Failure;
use clap::Subcommand;
use std::path::PathBuf;
use tendon::policy::bundle::Bundle;
use tendon::policy::describe::describe;

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Say what a bundle is: stages, tensors, what it is fed and what it gives; checks every hash.
    Inspect {
        /// The bundle's folder.
        dir: PathBuf,
    },
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(verb: &Verb) -> Result<(), Failure> {
    let Verb::Inspect { dir } = verb;
    let bundle = Bundle::open(dir).map_err(super::problems)?;
    print!("{}", describe(&bundle));
    Ok(())
}
