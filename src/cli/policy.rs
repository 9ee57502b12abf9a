// SPDX-License-Identifier: Apache-2.0
//! `tendon policy`: look into policy bundles and prove them.

use crate::cli::Failure;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use tendon::config::Precision;
use tendon::policy::bundle::Bundle;
use tendon::policy::describe::describe;
use tendon::policy::parity::Parity;
use tendon::policy::staged::bundle::{Opened, is_staged};
use tendon::policy::staged::{Staged, describe as staged};
use tendon::policy::{LoadOptions, ParityMiss, Policy};
use tendon::runtime::deployment::cpu_engine;

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Say what a bundle is: stages, tensors, what it is fed and what it gives; checks every hash.
    Inspect {
        /// The bundle's folder.
        dir: PathBuf,
    },
    /// Load a bundle as a robot would, run its fixture and compare; a miss is exit code 1.
    Verify {
        /// The bundle's folder.
        dir: PathBuf,
        /// The quantised graphs instead of the 32-bit ones.
        #[arg(long)]
        int8: bool,
    },
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Inspect { dir } if is_staged(dir) => {
            let bundle = Opened::open(dir).map_err(super::problems)?;
            print!("{}", staged::describe(&bundle));
        }
        Verb::Inspect { dir } => {
            let bundle = Bundle::open(dir).map_err(super::problems)?;
            print!("{}", describe(&bundle));
        }
        Verb::Verify { dir, int8 } => {
            let parity = verify(dir, *int8).map_err(super::problems)?;
            println!("{parity}");
            if !parity.missed.is_empty() {
                let lines: Vec<String> = parity.missed.iter().map(ToString::to_string).collect();
                return Err(Failure::Failed(lines.join("\n")));
            }
        }
    }
    Ok(())
}

fn verify(dir: &Path, int8: bool) -> Result<Parity, Vec<tendon::config::problem::Problem>> {
    let options = LoadOptions {
        precision: if int8 {
            Precision::Int8
        } else {
            Precision::Fp32
        },
        parity_miss: ParityMiss::Report,
    };
    let engine = cpu_engine(1);
    if is_staged(dir) {
        Staged::load(dir, options, &engine).map(|policy| policy.parity().clone())
    } else {
        Policy::load(dir, options, &engine).map(|policy| policy.parity().clone())
    }
}
