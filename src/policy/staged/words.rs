// SPDX-License-Identifier: Apache-2.0
//! How a sentence becomes the numbers of a staged policy: by a tokenizer, by a table, or not at all.

use crate::policy::prompt::{Prompt, Tokens};
use crate::policy::staged::plan::Source;
use crate::policy::staged::run::Run;
use crate::policy::staged::{Fault, Staged};
use crate::policy::text::{Instruction, InstructionFault};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug)]
pub(super) enum Words {
    None,
    Prompt(Box<Prompt>),
    Table(BTreeMap<String, Vec<f32>>),
}

/// Makes instructions of sentences, on whatever thread takes them in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Speech {
    words: Arc<Words>,
    /// Numbers of the state, where the prompt has them in it.
    state_len: usize,
}

impl Speech {
    pub(super) fn new(words: Words, state_len: usize) -> Speech {
        Speech {
            words: Arc::new(words),
            state_len,
        }
    }

    pub(super) fn words(&self) -> &Words {
        &self.words
    }

    /// A sentence as the policy reads it. Allocates; not for the path from frame to chunk.
    ///
    /// # Errors
    /// [`InstructionFault`]; nothing is cut that the family does not cut.
    pub fn encode(&self, sentence: &str) -> Result<Instruction, InstructionFault> {
        let mut instruction = Instruction {
            sentence: sentence.to_owned(),
            ..Instruction::default()
        };
        match &*self.words {
            Words::None => {}
            Words::Table(table) => match table.get(sentence) {
                Some(vector) => instruction.vector.clone_from(vector),
                None => {
                    return Err(InstructionFault::NotInTable {
                        sentence: sentence.to_owned(),
                        known: table.len(),
                    });
                }
            },
            // Too long is said now, to the operator, and not in the middle of a motion. The tokens change with the state.
            Words::Prompt(prompt) if prompt.has_state() => {
                prompt.encode(sentence, &vec![0.0; self.state_len])?;
            }
            Words::Prompt(prompt) => {
                let Tokens { ids, mask, used } = prompt.encode(sentence, &[])?;
                (instruction.tokens, instruction.mask) = (ids, mask);
                instruction.used = used;
            }
        }
        Ok(instruction)
    }
}

impl Staged {
    /// Makes instructions for it, to be used on another thread.
    #[must_use]
    pub fn speech(&self) -> &Speech {
        &self.speech
    }

    /// A sentence that it takes: for measuring, not for driving.
    #[must_use]
    pub fn some_sentence(&self) -> String {
        match self.speech.words() {
            Words::None => String::new(),
            Words::Prompt(_) => "pick it up".into(),
            Words::Table(table) => table.keys().next().cloned().unwrap_or_default(),
        }
    }

    /// Obeys a sentence from the next run on. Allocates; [`Staged::take`] does not.
    ///
    /// # Errors
    /// [`InstructionFault`]; it keeps the one it has.
    pub fn set_instruction(&mut self, sentence: &str) -> Result<Instruction, InstructionFault> {
        let instruction = self.speech.encode(sentence)?;
        self.take(&instruction);
        Ok(instruction)
    }

    /// Obeys an instruction made by [`Staged::speech`] from the next run on. Only copies, but for a sentence that is longer
    /// than every one before it.
    pub fn take(&mut self, instruction: &Instruction) {
        match self.speech.words() {
            Words::None => {}
            Words::Table(_) => self.run.feed(Source::Embedding, |slot| {
                for (slot, value) in slot.iter_mut().zip(&instruction.vector) {
                    *slot = *value;
                }
            }),
            Words::Prompt(prompt) if prompt.has_state() => {}
            Words::Prompt(_) => {
                self.used = instruction.used;
                let (ids, mask) = (&instruction.tokens, &instruction.mask);
                feed_tokens(&mut self.run, ids, mask, instruction.used);
            }
        }
        self.sentence
            .get_or_insert_with(String::new)
            .clone_from(&instruction.sentence);
        self.run.take_instruction();
    }

    /// The prompt of this observation, if the state is in it.
    pub(super) fn feed_prompt(&mut self) -> Result<(), Fault> {
        if let (Words::Prompt(prompt), Some(sentence)) = (self.speech.words(), &self.sentence)
            && prompt.has_state()
        {
            let tokens = prompt.encode(sentence, &self.normalised)?;
            self.used = tokens.used;
            feed_tokens(&mut self.run, &tokens.ids, &tokens.mask, tokens.used);
        }
        Ok(())
    }
}

fn feed_tokens(run: &mut Run, ids: &[i32], mask: &[i32], used: usize) {
    run.feed_whole(Source::Ids, ids);
    run.feed_whole(Source::Mask, mask);
    run.feed_whole(Source::Used, &[used as i32]);
}
