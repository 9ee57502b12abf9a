// SPDX-License-Identifier: Apache-2.0
//! FAST: a chunk as the quantised cosine transform of each dimension over time, its numbers as characters, the
//! characters as byte-level BPE tokens.
//!
//! arXiv 2501.09747 and its published processor (`physical-intelligence/fast`): coefficient = character code +
//! `min_token`; `[horizon][dim]`; divided by `scale`; inverse DCT-II (orthonormal) along time. The reference returns
//! zeros for a sequence of the wrong length, which is the middle of the joints' range; here it is [`Invalid`].

use crate::config::problem::Problem;
use crate::policy::decode::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use tokenizers::Tokenizer;

/// Most actions of a chunk and most numbers of an action that are read.
const SIDE_MAX: usize = 1_024;

/// FAST as the manifest has it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FastFile {
    /// FAST's own tokenizer, as the `tokenizers` library writes it.
    pub tokenizer: String,
    /// 10 in the published one.
    pub scale: f64,
    /// Coefficient of character 0, -354 in the published one.
    pub min_token: i32,
    /// Actions in a chunk.
    pub horizon: usize,
    /// Numbers of an action.
    pub dim: usize,
    /// If the language model's ids stand for FAST's backwards from this one: 257023 for PaliGemma. Else they are FAST's.
    #[serde(default)]
    pub id_from: Option<i64>,
    /// The language model's ids that every answer begins with and that are no action: `Action: ` of LeRobot.
    #[serde(default)]
    pub opening: Vec<i32>,
}

/// FAST, its tables made once.
#[derive(Clone, Debug)]
pub struct Fast {
    file: FastFile,
    /// The bytes of each id.
    pieces: Vec<Option<Vec<u8>>>,
    /// `[horizon][horizon]`: row n, column k is the share of coefficient k in time n.
    basis: Vec<f32>,
    bytes: Vec<u8>,
    coefficients: Vec<f32>,
}

impl Fast {
    /// Makes the tables of FAST's tokenizer.
    ///
    /// # Errors
    /// A [`Problem`]: no byte-level tokenizer, or sizes of zero or beyond reason.
    pub fn new(file: FastFile, tokenizer: &[u8]) -> Result<Fast, Problem> {
        let wrong = |expected: &str, found: String| Problem {
            at: file.tokenizer.clone(),
            expected: expected.into(),
            found,
        };
        let sizes = 1..=SIDE_MAX;
        if !sizes.contains(&file.horizon) || !sizes.contains(&file.dim) {
            return Err(wrong(
                &format!("horizon and dim of 1 to {SIDE_MAX}"),
                format!("{} and {}", file.horizon, file.dim),
            ));
        }
        if !(file.scale.is_finite() && file.scale > 0.0) {
            return Err(wrong("a scale above 0", file.scale.to_string()));
        }
        let reader: Tokenizer = core::str::from_utf8(tokenizer)
            .map_err(|error| wrong("UTF-8", error.to_string()))?
            .parse()
            .map_err(|error: tokenizers::Error| wrong("a tokenizer.json", error.to_string()))?;
        let bytes_of = byte_alphabet();
        let count = reader.get_vocab_size(true) as u32;
        let pieces = (0..count)
            .map(|id| {
                let token = reader.id_to_token(id)?;
                token
                    .chars()
                    .map(|char| bytes_of.get(&char).copied())
                    .collect()
            })
            .collect();
        let values = file.horizon * file.dim;
        Ok(Fast {
            pieces,
            basis: inverse_dct(file.horizon),
            // Four bytes hold any character.
            bytes: Vec::with_capacity(4 * values),
            coefficients: vec![0.0; values],
            file,
        })
    }

    /// The language model's tokens -> `[horizon][dim]` normalised actions. Allocates nothing.
    ///
    /// # Errors
    /// [`Invalid`]: another opening, an id that FAST does not have, bytes that are no text, or another count of coefficients.
    pub fn read(&mut self, ids: &[i32], chunk: &mut [f32]) -> Result<(), Invalid> {
        let values = self.file.horizon * self.file.dim;
        let count = |what, found| Invalid::Count {
            what,
            expected: values,
            found,
        };
        if chunk.len() != values {
            return Err(count("numbers of a chunk", chunk.len()));
        }
        for (at, due) in self.file.opening.iter().enumerate() {
            let id = *ids.get(at).ok_or(count("coefficients of a chunk", 0))?;
            if id != *due {
                let due = i64::from(*due);
                return Err(Invalid::Token {
                    at,
                    id: i64::from(id),
                    low: due,
                    high: due,
                });
            }
        }
        self.bytes.clear();
        for (at, id) in ids.iter().enumerate().skip(self.file.opening.len()) {
            let id = i64::from(*id);
            let own = self.file.id_from.map_or(id, |from| from - id);
            let piece = usize::try_from(own)
                .ok()
                .and_then(|own| self.pieces.get(own))
                .and_then(Option::as_deref)
                .ok_or(Invalid::Token {
                    at,
                    id,
                    low: 0,
                    high: self.pieces.len() as i64 - 1,
                })?;
            if self.bytes.len() + piece.len() > self.bytes.capacity() {
                return Err(count("coefficients of a chunk", values + 1));
            }
            self.bytes.extend_from_slice(piece);
        }
        let text = core::str::from_utf8(&self.bytes).map_err(|error| Invalid::Text {
            at: error.valid_up_to(),
        })?;
        let found = text.chars().count();
        if found != values {
            return Err(count("coefficients of a chunk", found));
        }
        let scale = self.file.scale;
        for (slot, char) in self.coefficients.iter_mut().zip(text.chars()) {
            let whole = i64::from(u32::from(char)) + i64::from(self.file.min_token);
            *slot = (whole as f64 / scale) as f32;
        }
        let (horizon, dim) = (self.file.horizon, self.file.dim);
        for (row, shares) in chunk
            .chunks_exact_mut(dim)
            .zip(self.basis.chunks_exact(horizon))
        {
            row.fill(0.0);
            for (share, coefficients) in shares.iter().zip(self.coefficients.chunks_exact(dim)) {
                for (value, coefficient) in row.iter_mut().zip(coefficients) {
                    *value += share * coefficient;
                }
            }
        }
        Ok(())
    }
}

/// Orthonormal inverse DCT-II (which is DCT-III) as a matrix, `[n][n]`, row = time.
#[must_use]
pub fn inverse_dct(n: usize) -> Vec<f32> {
    let size = n as f64;
    let share = |time: usize, k: usize| {
        let weight = if k == 0 {
            (1.0 / size).sqrt()
        } else {
            (2.0 / size).sqrt()
        };
        let angle = core::f64::consts::PI * (2.0 * time as f64 + 1.0) * k as f64 / (2.0 * size);
        (weight * angle.cos()) as f32
    };
    (0..n)
        .flat_map(|time| (0..n).map(move |k| share(time, k)))
        .collect()
}

/// Byte-level BPE writes each byte as a printable character (GPT-2): the visible ones of Latin-1 as themselves, the
/// rest from U+0100 on, in order.
fn byte_alphabet() -> BTreeMap<char, u8> {
    let visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100_u32;
    (0..=u8::MAX)
        .filter_map(|byte| {
            let code = if visible(byte) {
                u32::from(byte)
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(code).map(|char| (char, byte))
        })
        .collect()
}
