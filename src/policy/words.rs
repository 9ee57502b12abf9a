// SPDX-License-Identifier: Apache-2.0
//! Sentences made instructions, for a bundle of either kind, by whoever takes them in.

use crate::config::problem::Problem;
use crate::policy::bundle::Bundle;
use crate::policy::load;
use crate::policy::staged::bundle::{Opened, is_staged};
use crate::policy::staged::words::Speech;
use crate::policy::text::{Instruction, InstructionFault, Text};
use std::path::Path;

/// How sentences become instructions, away from the inference thread. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Words {
    /// Of a bundle of one graph.
    One(Text),
    /// Of a staged bundle.
    Staged(Speech),
}

impl Words {
    /// Those of the bundle in `dir`, without its engines; and the first bytes of its hash, as of [`Pilot::short_hash`](crate::policy::pilot::Pilot::short_hash).
    ///
    /// # Errors
    /// Every [`Problem`] found.
    pub fn read(dir: &Path) -> Result<(Words, u32), Vec<Problem>> {
        if is_staged(dir) {
            let opened = Opened::open(dir)?;
            let [a, b, c, d, ..] = *opened.hash();
            Ok((
                Words::Staged(opened.speech()?),
                u32::from_be_bytes([a, b, c, d]),
            ))
        } else {
            let bundle = Bundle::open(dir)?;
            Ok((Words::One(load::read_text(&bundle)?), bundle.short_hash()))
        }
    }

    /// A sentence as the policy reads it. Allocates.
    ///
    /// # Errors
    /// [`InstructionFault`], in words for the operator.
    pub fn encode(&self, sentence: &str) -> Result<Instruction, InstructionFault> {
        match self {
            Words::One(text) => text.encode(sentence),
            Words::Staged(speech) => speech.encode(sentence),
        }
    }
}
