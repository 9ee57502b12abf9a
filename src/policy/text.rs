// SPDX-License-Identifier: Apache-2.0
//! The sentence as the policy reads it: token ids of a fixed number, padded on the right.
//!
//! Tokenising happens when the instruction changes, on whatever thread took it from the operator; what the inference
//! thread gets is an [`Instruction`] of numbers. A sentence that does not fit is an error for the operator, never cut:
//! "do not touch the red block" without its end is another order.

use crate::config::problem::Problem;
use crate::policy::prompt::{PromptFault, SENTENCE_BYTES_MAX};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokenizers::Tokenizer;
use tokenizers::models::ModelWrapper;

/// Makes instructions of sentences. Cheap to clone and to share between threads.
#[derive(Clone, Debug)]
pub struct Text {
    tokenizer: Arc<Tokenizer>,
    unknown_id: Option<u32>,
    max_len: usize,
    pad_id: i32,
}

/// A sentence, ready for the policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Instruction {
    /// As the operator gave it.
    pub sentence: String,
    /// Token ids, padded to the tensor's length; empty where the policy reads no tokens, or they change with the state.
    pub tokens: Vec<i32>,
    /// 1 where a token is, 0 where padding; as long as `tokens`, or empty where the policy reads none.
    pub mask: Vec<i32>,
    /// The sentence's vector; empty where the policy reads none.
    pub vector: Vec<f32>,
    /// Tokens that are not padding.
    pub used: usize,
    /// Words that the policy has never seen; to be shown to the operator.
    pub unknown: Vec<String>,
}

/// Why a sentence was refused. The policy goes on with the one it has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstructionFault {
    /// More tokens than the policy takes.
    #[error("instruction has {found} tokens; expected at most {max}: say it shorter")]
    TooManyTokens {
        /// Tokens of the sentence.
        found: usize,
        /// Tokens that fit.
        max: usize,
    },
    /// Longer than any sentence needs to be.
    #[error("instruction has {found} bytes; expected at most {max}")]
    TooManyBytes {
        /// Bytes of the sentence.
        found: usize,
        /// Bytes that are looked at.
        max: usize,
    },
    /// The tokenizer failed.
    #[error("instruction cannot be tokenised: {0}")]
    Tokenizer(String),
    /// The policy knows sentences from a table, and this is none of them.
    #[error("the sentence \"{sentence}\" is not in the policy's table; it knows {known} sentences")]
    NotInTable {
        /// What was said.
        sentence: String,
        /// Sentences in the table.
        known: usize,
    },
}

impl From<PromptFault> for InstructionFault {
    fn from(fault: PromptFault) -> InstructionFault {
        match fault {
            PromptFault::TooLong { found, max } => InstructionFault::TooManyTokens { found, max },
            PromptFault::TooManyBytes { found, max } => {
                InstructionFault::TooManyBytes { found, max }
            }
            PromptFault::Tokenizer(why) => InstructionFault::Tokenizer(why),
        }
    }
}

impl Instruction {
    /// Whether the policy reads the same in both. Where it reads tokens these decide, else the words.
    #[must_use]
    pub fn reads_as(&self, other: &Instruction) -> bool {
        if self.tokens.is_empty() {
            self.sentence == other.sentence && other.tokens.is_empty()
        } else {
            self.tokens == other.tokens
        }
    }
}

impl Text {
    /// Reads a `tokenizer.json`. Its own padding and truncation are switched off: both are ours.
    ///
    /// # Errors
    /// A [`Problem`] if the bytes are no tokenizer.
    pub fn read(
        file_name: &str,
        bytes: &[u8],
        max_len: usize,
        pad_id: u32,
    ) -> Result<Text, Problem> {
        let wrong = |expected: &str, found: String| Problem {
            at: file_name.into(),
            expected: expected.into(),
            found,
        };
        let text =
            core::str::from_utf8(bytes).map_err(|error| wrong("UTF-8", error.to_string()))?;
        let mut tokenizer: Tokenizer = text
            .parse()
            .map_err(|error: tokenizers::Error| wrong("a tokenizer.json", error.to_string()))?;
        tokenizer
            .with_padding(None)
            .with_truncation(None)
            .map_err(|error| wrong("a tokenizer without truncation", error.to_string()))?;
        let pad =
            i32::try_from(pad_id).map_err(|_| wrong("a pad_id below 2^31", pad_id.to_string()))?;
        let unknown_id = unknown_token(&tokenizer).and_then(|token| tokenizer.token_to_id(&token));
        Ok(Text {
            tokenizer: Arc::new(tokenizer),
            unknown_id,
            max_len,
            pad_id: pad,
        })
    }

    /// Tokenises a sentence. Allocates; not for the path from frame to chunk.
    ///
    /// # Errors
    /// [`InstructionFault`]; nothing is cut.
    pub fn encode(&self, sentence: &str) -> Result<Instruction, InstructionFault> {
        if sentence.len() > SENTENCE_BYTES_MAX {
            return Err(InstructionFault::TooManyBytes {
                found: sentence.len(),
                max: SENTENCE_BYTES_MAX,
            });
        }
        let encoding = self
            .tokenizer
            .encode(sentence, true)
            .map_err(|error| InstructionFault::Tokenizer(error.to_string()))?;
        let ids = encoding.get_ids();
        if ids.len() > self.max_len {
            return Err(InstructionFault::TooManyTokens {
                found: ids.len(),
                max: self.max_len,
            });
        }
        let mut tokens = vec![self.pad_id; self.max_len];
        let mut unknown = Vec::new();
        for ((slot, id), (start, end)) in tokens.iter_mut().zip(ids).zip(encoding.get_offsets()) {
            *slot = i32::try_from(*id).map_err(|_| {
                InstructionFault::Tokenizer(format!("token id {id} does not fit 31 bits"))
            })?;
            if Some(*id) == self.unknown_id {
                unknown.push(sentence.get(*start..*end).unwrap_or_default().to_owned());
            }
        }
        Ok(Instruction {
            sentence: sentence.to_owned(),
            tokens,
            used: ids.len(),
            unknown,
            ..Instruction::default()
        })
    }
}

/// The token that stands for words outside the vocabulary, if the model has one.
fn unknown_token(tokenizer: &Tokenizer) -> Option<String> {
    match tokenizer.get_model() {
        ModelWrapper::WordLevel(model) => Some(model.unk_token.clone()),
        ModelWrapper::WordPiece(model) => Some(model.unk_token.clone()),
        ModelWrapper::BPE(model) => model.unk_token.clone(),
        // Unigram keeps its unknown id to itself; its words always decompose into pieces or bytes.
        ModelWrapper::Unigram(_) => None,
    }
}
