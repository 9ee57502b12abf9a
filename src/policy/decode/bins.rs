// SPDX-License-Identifier: Apache-2.0
//! Actions as numbered bins: the tail of a vocabulary (OpenVLA), a head of 256 logits (RT-1), integers in text (RT-2),
//! and the state written into a prompt (pi0.5, pi0-FAST).
//!
//! Formulas: `openvla/openvla@c8f03f48` `prismatic/vla/action_tokenizer.py`; `google-research/robotics_transformer@4569641b`
//! `tokenizers/action_tokenizer.py`; RT-2 (arXiv 2307.15818) section 3.2; `Physical-Intelligence/openpi@15a9616a`
//! `models/tokenizer.py`.

use crate::policy::decode::{Invalid, argmax};
use schemars::JsonSchema;
use serde::Deserialize;

/// The last `bins` ids of a vocabulary stand for values, the highest id for the lowest one.
///
/// There are `bins - 1` values: the centres between `bins` edges spread evenly over `low..=high`. The two lowest ids
/// therefore share the highest value.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VocabularyTail {
    /// Ids before padding, e.g. 32000 of Llama-2.
    pub vocab: u32,
    /// Edges, e.g. 256.
    pub bins: u32,
    /// Lowest edge.
    #[serde(default = "minus_one")]
    pub low: f64,
    /// Highest edge.
    #[serde(default = "one")]
    pub high: f64,
}

fn minus_one() -> f64 {
    -1.0
}

fn one() -> f64 {
    1.0
}

impl VocabularyTail {
    /// Smallest id that is an action.
    #[must_use]
    pub fn first_id(&self) -> u32 {
        self.vocab.saturating_sub(self.bins)
    }

    /// The value of token `id`, the `at`-th of the action.
    ///
    /// # Errors
    /// [`Invalid::Token`] for any id outside the tail. The reference clips: an end-of-sentence would be full speed.
    pub fn value(&self, at: usize, id: i64) -> Result<f32, Invalid> {
        let (low, high) = (i64::from(self.first_id()), i64::from(self.vocab) - 1);
        if id < low || id > high || self.bins < 2 {
            return Err(Invalid::Token { at, id, low, high });
        }
        let from_end = (high - id).min(i64::from(self.bins) - 2);
        let edge = |index: i64| {
            if index == i64::from(self.bins) - 1 {
                self.high
            } else {
                index as f64 * ((self.high - self.low) / f64::from(self.bins - 1)) + self.low
            }
        };
        Ok(((edge(from_end) + edge(from_end + 1)) / 2.0) as f32)
    }

    /// The likeliest action token of `logits`, whose first number is of id `base`. No other id can win.
    ///
    /// # Errors
    /// [`Invalid`] if the tail is not among the logits or one of its logits is NaN.
    pub fn pick(&self, logits: &[f32], base: u32) -> Result<u32, Invalid> {
        let from = self.first_id().saturating_sub(base) as usize;
        let to = from + self.bins as usize;
        let tail = (self.first_id() >= base)
            .then(|| logits.get(from..to))
            .flatten()
            .ok_or(Invalid::Count {
                what: "logits up to the last action token",
                expected: to,
                found: logits.len(),
            })?;
        let best = argmax(tail).ok_or(Invalid::NotFinite {
            what: "a logit of an action token",
            at: tail.iter().position(|value| value.is_nan()).unwrap_or(0) + from,
        })?;
        Ok(self.first_id() + best as u32)
    }
}

/// One entry of an RT-1 action, in the order of its `action_order`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
pub enum Rt1Entry {
    /// `count` numbers of a range, one token each.
    Range {
        /// For people.
        name: String,
        /// Numbers.
        count: usize,
        /// Value of token 0.
        low: f64,
        /// Value of the last token.
        high: f64,
    },
    /// One token that is the index of a choice, e.g. the mode: terminate, arm, base.
    Choice {
        /// For people.
        name: String,
        /// Choices. A token beyond them counts as choice 0, as the reference has it; for the mode that is *terminate*.
        choices: u32,
    },
}

impl Rt1Entry {
    /// Tokens that it takes.
    #[must_use]
    pub fn tokens(&self) -> usize {
        match self {
            Rt1Entry::Range { count, .. } => *count,
            Rt1Entry::Choice { .. } => 1,
        }
    }
}

/// RT-1's tokens: a logit for each of `vocab` bins, dimension by dimension.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rt1Tokens {
    /// Bins, e.g. 256.
    pub vocab: u32,
    /// The order is of the checkpoint's training configuration; it is not in the graph.
    pub order: Vec<Rt1Entry>,
}

impl Rt1Tokens {
    /// Tokens of one action.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.order.iter().map(Rt1Entry::tokens).sum()
    }

    /// Tokens -> values, one a token: a number of its range, or the index of a choice.
    ///
    /// # Errors
    /// [`Invalid`]: another count than [`Rt1Tokens::tokens`], or a token outside the vocabulary.
    pub fn read(&self, tokens: &[i32], values: &mut [f32]) -> Result<(), Invalid> {
        for found in [tokens.len(), values.len()] {
            if found != self.tokens() {
                return Err(Invalid::Count {
                    what: "tokens of an action",
                    expected: self.tokens(),
                    found,
                });
            }
        }
        let entries = self
            .order
            .iter()
            .flat_map(|entry| core::iter::repeat_n(entry, entry.tokens()));
        for (at, ((entry, token), value)) in entries.zip(tokens).zip(values).enumerate() {
            let token = u32::try_from(*token)
                .ok()
                .filter(|token| *token < self.vocab)
                .ok_or(Invalid::Token {
                    at,
                    id: i64::from(*token),
                    low: 0,
                    high: i64::from(self.vocab) - 1,
                })?;
            *value = match entry {
                Rt1Entry::Range { low, high, .. } => bin_value(token, self.vocab, *low, *high),
                Rt1Entry::Choice { choices, .. } if token < *choices => token as f32,
                Rt1Entry::Choice { .. } => 0.0,
            };
        }
        Ok(())
    }

    /// Logits `[tokens][vocab]` -> values.
    ///
    /// # Errors
    /// [`Invalid`]: another count, or a NaN.
    pub fn read_logits(&self, logits: &[f32], values: &mut [f32]) -> Result<(), Invalid> {
        let vocab = self.vocab as usize;
        if logits.len() != vocab * self.tokens() || values.len() != self.tokens() || vocab == 0 {
            return Err(Invalid::Count {
                what: "logits of an action",
                expected: vocab * self.tokens(),
                found: logits.len(),
            });
        }
        let entries = self
            .order
            .iter()
            .flat_map(|entry| core::iter::repeat_n(entry, entry.tokens()));
        for (at, ((entry, row), value)) in entries
            .zip(logits.chunks_exact(vocab))
            .zip(values)
            .enumerate()
        {
            let token = argmax(row).ok_or(Invalid::NotFinite {
                what: "a row of logits",
                at,
            })? as u32;
            *value = match entry {
                Rt1Entry::Range { low, high, .. } => bin_value(token, self.vocab, *low, *high),
                Rt1Entry::Choice { choices, .. } if token < *choices => token as f32,
                Rt1Entry::Choice { .. } => 0.0,
            };
        }
        Ok(())
    }
}

/// `token / (bins - 1) * (high - low) + low`: bin 0 is `low`, the last is `high`.
#[must_use]
pub fn bin_value(token: u32, bins: u32, low: f64, high: f64) -> f32 {
    (f64::from(token) / f64::from(bins.saturating_sub(1).max(1)) * (high - low) + low) as f32
}

/// One field of an RT-2 answer.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextField {
    /// For people.
    pub name: String,
    /// Value of 0.
    pub low: f64,
    /// Value of `bins - 1`.
    pub high: f64,
}

/// RT-2's answer in words: "1 128 91 241 5 101 127".
///
/// The layout is data and never follows from the count: the paper prints seven integers for eight fields.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextIntegers {
    /// Bins, e.g. 256.
    pub bins: u32,
    /// What each integer is.
    pub fields: Vec<TextField>,
    /// What stands before the integers, e.g. "Action:" after a plan; what comes before it is not an action.
    #[serde(default)]
    pub after: Option<String>,
}

impl TextIntegers {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`Invalid`] for anything but exactly as many integers of the right range as there are fields. Nothing is
    /// clipped, and no sign, decimal point or trailing word is skipped.
    pub fn read(&self, answer: &str, values: &mut [f32]) -> Result<(), Invalid> {
        let words = match &self.after {
            None => answer,
            Some(mark) => answer
                .rsplit_once(mark.as_str())
                .map(|(_, rest)| rest)
                .ok_or(Invalid::Count {
                    what: "words before the action",
                    expected: 1,
                    found: 0,
                })?,
        };
        let found = words.split_ascii_whitespace().count();
        let expected = self.fields.len();
        if found != expected || values.len() != expected {
            return Err(Invalid::Count {
                what: "integers of an action",
                expected,
                found,
            });
        }
        let words = words.split_ascii_whitespace();
        for (at, ((word, field), value)) in words.zip(&self.fields).zip(values).enumerate() {
            let high = self.bins.saturating_sub(1);
            let whole = word.len() <= 9 && word.bytes().all(|byte| byte.is_ascii_digit());
            let token = whole
                .then(|| word.parse::<u32>().ok())
                .flatten()
                .filter(|token| *token <= high)
                .ok_or(Invalid::Word { at, high })?;
            *value = bin_value(token, self.bins, field.low, field.high);
        }
        Ok(())
    }
}

/// The bin of a normalised number, as it is written into a prompt: `digitize(x, linspace(low, high, bins + 1)[:-1]) - 1`.
///
/// Below `low` that is -1 and from the last edge on `bins - 1`: what the policy was trained on, not to be mended.
#[must_use]
pub fn digitise(value: f32, bins: u32, low: f64, high: f64) -> i32 {
    let step = (high - low) / f64::from(bins.max(1));
    let value = f64::from(value);
    let edge = |index: i64| index as f64 * step + low;
    // A first guess, then the edges themselves decide: a division may fall on the wrong side of one.
    let mut bin = (((value - low) / step).floor()).clamp(-1.0, f64::from(bins) - 1.0) as i64;
    while bin + 1 < i64::from(bins) && value >= edge(bin + 1) {
        bin += 1;
    }
    while bin >= 0 && value < edge(bin) {
        bin -= 1;
    }
    bin as i32
}
