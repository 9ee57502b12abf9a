// SPDX-License-Identifier: Apache-2.0
//! The text that a language model is given: the operator's sentence in the family's words, and for pi0.5 and pi0-FAST
//! the robot's state as numbers in it; then token ids with their mask.
//!
//! A prompt with no state is made once an instruction. One with the state is made for each observation, whole: digits
//! and spaces merge with their neighbours, so its parts cannot be tokenised apart.

use crate::config::problem::Problem;
use crate::policy::decode::bins::digitise;
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt::Write;
use std::sync::Arc;
use tokenizers::Tokenizer;

/// Most tokens of a prompt; the longest in use (pi0.5) has 200.
pub const TOKENS_MAX: usize = 4_096;
/// Longest sentence that is even looked at, in bytes, so that whoever sends one cannot ask for any amount of tokenising: forty bytes for each
/// token of the longest prompt in use.
pub const SENTENCE_BYTES_MAX: usize = 8_192;

/// One change of the operator's sentence.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "op", deny_unknown_fields)]
pub enum Clean {
    /// Small letters.
    Lower,
    /// No space at either end.
    Strip,
    /// One text for another.
    Replace {
        /// What is looked for.
        from: String,
        /// What stands there afterwards.
        to: String,
    },
    /// This text at the end, added where it is not (the new line of LeRobot's pi0 and SmolVLA).
    EndWith {
        /// What stands at the end.
        text: String,
    },
    /// Letters, digits, spaces and underscores only (GR00T N1.7, by Python's `isalnum` and `isspace`; signs that Unicode counts as
    /// alphabetic and Python does not, such as vowels of Hindi, stay here).
    DropPunctuation,
    /// As Python writes a list of one string: `['pick it up']`, and in double quotes if it has a single one (GR00T N1.5).
    PythonList,
}

/// The state in the prompt.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateDigits {
    /// Bins of each number, 256.
    pub bins: u32,
    /// Lower end of the bins.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// LeRobot up to 0.4 pads the state with zeros to 32 numbers before it writes them; openpi and later LeRobots do not.
    #[serde(default)]
    pub pad_to: Option<usize>,
}

/// Side of the padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// After the text.
    #[default]
    Right,
    /// Before it (GR00T).
    Left,
}

/// What becomes of a prompt with too many tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    /// The operator is told.
    #[default]
    Refuse,
    /// It is cut, because the family cuts (Octo: 16 tokens).
    Cut,
}

/// A prompt as the manifest has it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptFile {
    /// A tokenizer.json.
    pub tokenizer: String,
    /// Changes of the sentence, in order.
    #[serde(default)]
    pub clean: Vec<Clean>,
    /// `{task}` is the sentence, `{state}` the state's numbers.
    #[serde(default = "task")]
    pub template: String,
    /// Numbers of the state in the prompt.
    #[serde(default)]
    pub state_digits: Option<StateDigits>,
    /// Whether the tokenizer's own special tokens are added.
    #[serde(default)]
    pub special_tokens: bool,
    /// Ids before the text, e.g. the beginning-of-sentence.
    #[serde(default)]
    pub prepend: Vec<u32>,
    /// Ids after it, e.g. 108, a new line, for pi0.
    #[serde(default)]
    pub append: Vec<u32>,
    /// An id that is added only if the text does not end with it, e.g. 29871 for OpenVLA.
    #[serde(default)]
    pub append_if_missing: Option<u32>,
    /// Tokens of the tensor.
    pub max_len: usize,
    /// What fills the rest.
    #[serde(default)]
    pub pad_id: u32,
    /// On which side.
    #[serde(default)]
    pub pad_side: Side,
    /// What becomes of a longer one.
    #[serde(default)]
    pub too_long: TooLong,
}

fn task() -> String {
    "{task}".into()
}

/// A prompt as numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Ids, padded.
    pub ids: Vec<i32>,
    /// 1 where a token is, 0 where padding.
    pub mask: Vec<i32>,
    /// Tokens that are not padding.
    pub used: usize,
}

/// Why there is no prompt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptFault {
    /// More tokens than the policy takes.
    #[error("the prompt has {found} tokens; expected at most {max}: say it shorter")]
    TooLong {
        /// Tokens of the prompt.
        found: usize,
        /// Tokens that fit.
        max: usize,
    },
    /// Longer than any sentence needs to be.
    #[error("the sentence has {found} bytes; expected at most {max}")]
    TooManyBytes {
        /// Bytes of the sentence.
        found: usize,
        /// Bytes that are looked at.
        max: usize,
    },
    /// The tokenizer failed.
    #[error("the prompt cannot be tokenised: {0}")]
    Tokenizer(String),
}

/// Makes prompts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Prompt {
    file: PromptFile,
    tokenizer: Arc<Tokenizer>,
}

impl Prompt {
    /// Reads the tokenizer. Its own padding and truncation are switched off: both are ours.
    ///
    /// # Errors
    /// A [`Problem`]: no tokenizer, a length beyond reason, a template without `{task}`, or with `{state}` but no digits.
    pub fn new(file: PromptFile, tokenizer: &[u8]) -> Result<Prompt, Problem> {
        let wrong = |expected: &str, found: String| Problem {
            at: file.tokenizer.clone(),
            expected: expected.into(),
            found,
        };
        if !(1..=TOKENS_MAX).contains(&file.max_len) {
            let expected = format!("a max_len of 1 to {TOKENS_MAX}");
            return Err(wrong(&expected, file.max_len.to_string()));
        }
        if !file.template.contains("{task}") {
            return Err(wrong("a template with {task} in it", file.template.clone()));
        }
        if file.template.contains("{state}") != file.state_digits.is_some() {
            let expected = "state_digits if the template has {state}, and only then";
            return Err(wrong(expected, file.template.clone()));
        }
        let fits = |id: &u32| i32::try_from(*id).is_ok();
        let ids = file.prepend.iter().chain(&file.append);
        if !ids
            .chain(&file.append_if_missing)
            .chain([&file.pad_id])
            .all(fits)
        {
            return Err(wrong("ids below 2^31", "a larger one".into()));
        }
        let mut reader: Tokenizer = core::str::from_utf8(tokenizer)
            .map_err(|error| wrong("UTF-8", error.to_string()))?
            .parse()
            .map_err(|error: tokenizers::Error| wrong("a tokenizer.json", error.to_string()))?;
        reader
            .with_padding(None)
            .with_truncation(None)
            .map_err(|error| wrong("a tokenizer without truncation", error.to_string()))?;
        Ok(Prompt {
            file,
            tokenizer: Arc::new(reader),
        })
    }

    /// Whether the prompt changes with every observation.
    #[must_use]
    pub fn has_state(&self) -> bool {
        self.file.state_digits.is_some()
    }

    /// The text of the prompt. `state` is normalised and not padded.
    #[must_use]
    pub fn text(&self, sentence: &str, state: &[f32]) -> String {
        let mut task = sentence.to_owned();
        for op in &self.file.clean {
            task = match op {
                Clean::Lower => task.to_lowercase(),
                Clean::Strip => task.trim().to_owned(),
                Clean::Replace { from, to } => task.replace(from.as_str(), to),
                Clean::EndWith { text } if task.ends_with(text.as_str()) => task,
                Clean::EndWith { text } => task + text,
                Clean::DropPunctuation => {
                    task.retain(|char| {
                        char.is_alphanumeric() || char.is_whitespace() || char == '_'
                    });
                    task
                }
                Clean::PythonList => python_list(&task),
            };
        }
        let mut digits = String::new();
        if let Some(file) = &self.file.state_digits {
            let padding = file.pad_to.map_or(0, |to| to.saturating_sub(state.len()));
            let values = state
                .iter()
                .copied()
                .chain(core::iter::repeat_n(0.0, padding));
            for (at, value) in values.enumerate() {
                let gap = if at == 0 { "" } else { " " };
                // Writing into a String does not fail.
                let _ = write!(
                    digits,
                    "{gap}{}",
                    digitise(value, file.bins, file.low, file.high)
                );
            }
        }
        // The sentence goes in last: what the operator says is never taken for a placeholder.
        let template = &self.file.template;
        let mut out = String::with_capacity(template.len() + task.len() + digits.len());
        let mut rest = template.as_str();
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            out.push_str(before);
            rest = if let Some(after) = from.strip_prefix("{task}") {
                out.push_str(&task);
                after
            } else if let Some(after) = from.strip_prefix("{state}") {
                out.push_str(&digits);
                after
            } else {
                out.push('{');
                from.get(1..).unwrap_or_default()
            };
        }
        out.push_str(rest);
        out
    }

    /// Sentence and state -> ids and mask.
    ///
    /// # Errors
    /// [`PromptFault`].
    pub fn encode(&self, sentence: &str, state: &[f32]) -> Result<Tokens, PromptFault> {
        if sentence.len() > SENTENCE_BYTES_MAX {
            return Err(PromptFault::TooManyBytes {
                found: sentence.len(),
                max: SENTENCE_BYTES_MAX,
            });
        }
        let file = &self.file;
        let encoding = self
            .tokenizer
            .encode(self.text(sentence, state), file.special_tokens)
            .map_err(|error| PromptFault::Tokenizer(error.to_string()))?;
        let mut ids: Vec<u32> = file.prepend.clone();
        ids.extend_from_slice(encoding.get_ids());
        ids.extend_from_slice(&file.append);
        if let Some(last) = file.append_if_missing
            && ids.last() != Some(&last)
        {
            ids.push(last);
        }
        if ids.len() > file.max_len {
            match file.too_long {
                TooLong::Cut => ids.truncate(file.max_len),
                TooLong::Refuse => {
                    return Err(PromptFault::TooLong {
                        found: ids.len(),
                        max: file.max_len,
                    });
                }
            }
        }
        let used = ids.len();
        let start = match file.pad_side {
            Side::Right => 0,
            Side::Left => file.max_len - used,
        };
        let mut tokens = Tokens {
            ids: vec![file.pad_id as i32; file.max_len],
            mask: vec![0; file.max_len],
            used,
        };
        for ((slot, mask), id) in tokens
            .ids
            .iter_mut()
            .zip(&mut tokens.mask)
            .skip(start)
            .zip(ids)
        {
            *slot = i32::try_from(id)
                .map_err(|_| PromptFault::Tokenizer(format!("id {id} does not fit 31 bits")))?;
            *mask = 1;
        }
        Ok(tokens)
    }
}

/// `repr([text])` of Python for text without control characters.
fn python_list(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if text.contains('\'') && !text.contains('"') {
        format!("[\"{text}\"]")
    } else {
        format!("['{}']", text.replace('\'', "\\'"))
    }
}
