// SPDX-License-Identifier: Apache-2.0
//! The mind in a process of its own: cameras, engine and policy run in a child of this program, and what moves the robot
//! runs here. A segmentation fault, a lost GPU context, the out-of-memory killer or a hang over there costs a hold, never
//! the control loop.
//!
//! ```text
//!  control process                                   inference process (`tendon inference-process`)
//!    control, governor, egress, watchdog, link          capture threads, inference thread, engine
//!        ^ same ends as without isolation                    ^ the same threads as without isolation
//!      ferry  <== shared memory: chunks, states, plan ==>  ferry
//!             <--- socket: instructions, facts ---->
//! ```
//!
//! The same threads run on both sides with the same cells as in one process ([`Ends`](crate::runtime::mind::Ends)); the two ferries carry
//! between the cells. [`plane`] says what lies where, [`codec`] how it is written, [`talk`] what is said, [`process`] is one start, [`keeper`] feeds, watches and
//! restarts, [`child`] is the other side, [`identity`] tells whether both are of one build. Each start gets new memory: what an earlier process left is not read.

pub mod child;
pub mod codec;
pub mod identity;
pub mod keeper;
pub mod plane;
pub mod process;
pub mod talk;

use crate::config::Config;
use crate::config::problem::Problem;
use crate::core::units::MS;
use crate::policy::ParityMiss;
use crate::policy::words::Words;
use crate::ports::{Frame, Source, SourceFault};
use crate::runtime::clock;
use crate::runtime::deployment::{Deployment, Parts};
use crate::runtime::isolation::keeper::Apart;
use crate::runtime::isolation::process::{Process, Was};
use sha2::{Digest, Sha256};
use std::ffi::OsString;
use std::path::PathBuf;

/// The child's verb on the command line.
pub const VERB: &str = "inference-process";

/// How the inference process is started, each time.
#[derive(Clone, Debug)]
pub struct How {
    /// tendon.toml, which it reads too.
    pub config: PathBuf,
    /// What becomes of a policy that misses its fixture.
    pub parity_miss: ParityMiss,
    /// More arguments of its command line.
    pub arguments: Vec<OsString>,
}

/// What a checked configuration says, in 64 letters: two processes that read the same files have the same.
#[must_use]
pub fn digest(config: &Config) -> String {
    let hash = Sha256::digest(format!("{config:?}"));
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Starts the inference process of a deployment and waits until it has loaded the policy.
///
/// # Errors
/// Every [`Problem`]: of the policy, as the process found them, or that it could not be started.
pub fn load(config: Config, how: How) -> Result<Deployment<Apart>, Vec<Problem>> {
    let parts = Parts::new(&config)?;
    let (mut process, mut line) = Process::start(&config, &how, Was::default())
        .map_err(|error| process::no_process(error.to_string()))?;
    // Meanwhile: who takes in sentences is here, and waits for nobody.
    let (words, bundle_hash) = Words::read(&config.policy.bundle)?;
    let facts = process.first_word(&mut line)?;
    if facts.bundle_hash != bundle_hash {
        return Err(unlike("another bundle: it was changed at this moment"));
    }
    let (policy_name, engine, parity) = facts
        .read()
        .ok_or_else(|| unlike("facts of another version"))?;
    Ok(Deployment {
        mind: Apart {
            how,
            line,
            process,
            bundle_hash,
        },
        words,
        schedule: parts.schedule,
        governor: parts.governor,
        identities: parts.identities,
        policy_name,
        engine,
        parity,
        config,
    })
}

fn unlike(found: &str) -> Vec<Problem> {
    Problem::one(
        "isolation = \"process\"",
        "an inference process of this very build",
        found,
    )
}

/// A camera whose pictures the other process hands over.
struct Handed {
    pictures: plane::Reader,
    bell: std::os::fd::OwnedFd,
}

impl Source for Handed {
    fn next_frame(
        &mut self,
        deadline: crate::core::units::Mono,
        frame: &mut Frame,
    ) -> Result<(), SourceFault> {
        loop {
            if let Some(slot) = self.pictures.fresh() {
                return match codec::read_frame(slot, frame) {
                    // What the link refused is told by a picture of nothing.
                    true if frame.width > 0 => Ok(()),
                    _ => Err(SourceFault::Broken("refused at the link")),
                };
            }
            let left_ns = deadline.since_ns(clock::now());
            if left_ns == 0 {
                return Err(SourceFault::Timeout);
            }
            if talk::readable(&self.bell, left_ns.div_ceil(MS)).unwrap_or(false) {
                talk::hush(&self.bell);
            }
        }
    }
}
