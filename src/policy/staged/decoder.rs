// SPDX-License-Identifier: Apache-2.0
//! From what the graphs gave to a chunk in units: the decoder with its tables made at load.

use crate::config::problem::Problem;
use crate::policy::decode::Invalid;
use crate::policy::decode::doubt::{self, TokenDoubt};
use crate::policy::decode::fast::Fast;
use crate::policy::folder::{Folder, SIDE_FILE_BYTES_MAX};
use crate::policy::manifest::at;
use crate::policy::staged::manifest::{
    DecoderFile, LoopFile, Rt1File, StagedFile, TextIntegersFile, WindowFile,
};
use crate::policy::staged::plan::{Place, Plan, output_of};
use tokenizers::Tokenizer;

/// Longest answer that is read as text, in bytes.
const ANSWER_BYTES_MAX: usize = 8_192;

/// A decoder, ready.
pub(crate) enum Decoder {
    Regression(Place, WindowFile),
    Sample(WindowFile),
    VocabularyTail(crate::policy::decode::bins::VocabularyTail),
    Rt1(Place, Rt1File),
    TextIntegers(Box<Tokenizer>, TextIntegersFile),
    Fast(Box<Fast>),
    Sentence(Box<Tokenizer>),
}

/// What the loop and the stages left behind.
pub(crate) struct Raw<'a> {
    pub(crate) output: &'a dyn Fn(Place) -> &'a [f32],
    pub(crate) sample: &'a [f32],
    pub(crate) tokens: &'a [i32],
}

impl Decoder {
    /// Checks it against the plan and reads its tokenizer.
    ///
    /// # Errors
    /// Every [`Problem`].
    pub(crate) fn new(
        file: &StagedFile,
        plan: &Plan,
        sample: usize,
        folder: &Folder,
    ) -> Result<Decoder, Vec<Problem>> {
        let wrong = |path: &str, expected: String, found: String| {
            vec![Problem {
                at: at(path),
                expected,
                found,
            }]
        };
        let (horizon, width) = file
            .action
            .as_ref()
            .map_or((0, 0), |action| (action.horizon, action.names.len()));
        let loop_word = match &file.repeat {
            None => "none",
            Some(LoopFile::Flow(_) | LoopFile::Diffusion(_)) => "of a sample",
            Some(LoopFile::Tokens(_)) => "of tokens",
            Some(LoopFile::Draw(_)) => "of numbers that are drawn",
        };
        let need_loop = |word: &str| {
            if loop_word == word {
                Ok(())
            } else {
                Err(wrong(
                    "tendon.loop",
                    format!("one {word}, as the decoder reads it"),
                    loop_word.into(),
                ))
            }
        };
        let is_planner = matches!(file.decoder, DecoderFile::Sentence(_));
        if is_planner != file.action.is_none() {
            return Err(wrong(
                "tendon.action",
                "an action for every decoder but \"sentence\"".into(),
                if is_planner {
                    "one for a planner"
                } else {
                    "none"
                }
                .into(),
            ));
        }
        let values_of = |name: &String| {
            let place = output_of(file, name)?;
            let spec = plan
                .stages
                .get(place.stage)?
                .spec
                .outputs
                .get(place.tensor)?;
            Some((place, spec.values()))
        };
        let window = |window: &WindowFile, has: usize| {
            let needs = window
                .start
                .saturating_add(horizon.saturating_mul(window.width));
            if window.width < width || needs > has || horizon == 0 {
                return Err(wrong(
                    "tendon.decoder",
                    format!(
                        "{horizon} rows of {width} or more from {} on within {has} numbers",
                        window.start
                    ),
                    format!("rows of {} up to {needs}", window.width),
                ));
            }
            Ok(())
        };
        let one_row = |columns: usize| {
            if horizon == 1 && columns == width {
                Ok(())
            } else {
                Err(wrong(
                    "tendon.action",
                    format!("one action of {columns} numbers, as the decoder gives"),
                    format!("{horizon} of {width}"),
                ))
            }
        };
        let tokenizer = |name: &str| -> Result<(Vec<u8>, Box<Tokenizer>), Vec<Problem>> {
            let bytes = folder
                .read(name, name, SIDE_FILE_BYTES_MAX)
                .map_err(|problem| vec![problem])?;
            let read = core::str::from_utf8(&bytes)
                .map_err(|error| error.to_string())
                .and_then(|text| text.parse::<Tokenizer>().map_err(|error| error.to_string()));
            match read {
                Ok(tokenizer) => Ok((bytes, Box::new(tokenizer))),
                Err(found) => Err(vec![Problem {
                    at: name.into(),
                    expected: "a tokenizer.json".into(),
                    found,
                }]),
            }
        };
        let missing = |path: &str, name: &String| {
            wrong(
                path,
                "STAGE.OUTPUT of this bundle".into(),
                format!("\"{name}\""),
            )
        };
        match &file.decoder {
            DecoderFile::Regression(regression) => {
                let (place, has) = values_of(&regression.from)
                    .ok_or_else(|| missing("tendon.decoder.from", &regression.from))?;
                window(&regression.window, has)?;
                Ok(Decoder::Regression(place, regression.window.clone()))
            }
            DecoderFile::Sample(file) => {
                need_loop("of a sample")?;
                window(file, sample)?;
                Ok(Decoder::Sample(file.clone()))
            }
            DecoderFile::VocabularyTail(tail) => {
                need_loop("of tokens")?;
                if tail.bins < 2 || tail.bins > tail.vocab {
                    return Err(wrong(
                        "tendon.decoder.bins",
                        format!("2 to {}", tail.vocab),
                        tail.bins.to_string(),
                    ));
                }
                if let Some(LoopFile::Tokens(tokens)) = &file.repeat
                    && tokens.max != horizon * width
                {
                    return Err(wrong(
                        "tendon.loop.max",
                        format!("{} tokens, one a number of the action", horizon * width),
                        tokens.max.to_string(),
                    ));
                }
                Ok(Decoder::VocabularyTail(tail.clone()))
            }
            DecoderFile::Rt1(rt1) => {
                let (place, has) = values_of(&rt1.from)
                    .ok_or_else(|| missing("tendon.decoder.from", &rt1.from))?;
                let needs = rt1
                    .tokens
                    .tokens()
                    .saturating_mul(rt1.tokens.vocab as usize);
                if needs != has {
                    return Err(wrong(
                        "tendon.decoder",
                        format!("{has} logits, as \"{}\" has", rt1.from),
                        format!("{} tokens of {}", rt1.tokens.tokens(), rt1.tokens.vocab),
                    ));
                }
                one_row(rt1.tokens.tokens())?;
                Ok(Decoder::Rt1(place, rt1.clone()))
            }
            DecoderFile::TextIntegers(text) => {
                need_loop("of tokens")?;
                one_row(text.integers.fields.len())?;
                Ok(Decoder::TextIntegers(
                    tokenizer(&text.tokenizer)?.1,
                    text.clone(),
                ))
            }
            DecoderFile::Fast(fast) => {
                need_loop("of tokens")?;
                if [fast.horizon, fast.dim] != [horizon, width] {
                    return Err(wrong(
                        "tendon.decoder",
                        format!("horizon {horizon} and dim {width}, as the action has"),
                        format!("{} and {}", fast.horizon, fast.dim),
                    ));
                }
                let (bytes, _) = tokenizer(&fast.tokenizer)?;
                Fast::new(fast.clone(), &bytes)
                    .map(|fast| Decoder::Fast(Box::new(fast)))
                    .map_err(|problem| vec![problem])
            }
            DecoderFile::Sentence(sentence) => {
                need_loop("of tokens")?;
                Ok(Decoder::Sentence(tokenizer(&sentence.tokenizer)?.1))
            }
        }
    }

    /// Whether the numbers are of the normalised space and go through the action's statistics.
    pub(crate) fn is_normalised(&self) -> bool {
        !matches!(
            self,
            Decoder::Rt1(..) | Decoder::TextIntegers(..) | Decoder::Sentence(_)
        )
    }

    /// Writes the chunk, `[horizon][width]` as the graph has it; a planner's sentence into `sentence`.
    pub(crate) fn read(
        &mut self,
        raw: &Raw<'_>,
        chunk: &mut [f32],
        width: usize,
        sentence: &mut String,
    ) -> Result<(), Invalid> {
        match self {
            Decoder::Regression(place, window) => rows((raw.output)(*place), window, chunk, width),
            Decoder::Sample(window) => rows(raw.sample, window, chunk, width),
            Decoder::VocabularyTail(tail) => {
                if raw.tokens.len() != chunk.len() {
                    return Err(Invalid::Count {
                        what: "tokens of an action",
                        expected: chunk.len(),
                        found: raw.tokens.len(),
                    });
                }
                for (at, (slot, id)) in chunk.iter_mut().zip(raw.tokens).enumerate() {
                    *slot = tail.value(at, i64::from(*id))?;
                }
                Ok(())
            }
            Decoder::Rt1(place, file) => file.tokens.read_logits((raw.output)(*place), chunk),
            Decoder::TextIntegers(tokenizer, file) => {
                file.integers.read(&text(tokenizer, raw.tokens)?, chunk)
            }
            Decoder::Fast(fast) => fast.read(raw.tokens, chunk),
            Decoder::Sentence(tokenizer) => {
                let answer = text(tokenizer, raw.tokens)?;
                sentence.clear();
                sentence.push_str(answer.trim());
                Ok(())
            }
        }
    }

    /// How sure RT-1's logits were, the worst of them in each figure; `None` for every other decoder.
    pub(crate) fn doubt(&self, raw: &Raw<'_>) -> Option<TokenDoubt> {
        let Decoder::Rt1(place, file) = self else {
            return None;
        };
        (raw.output)(*place)
            .chunks_exact((file.tokens.vocab as usize).max(1))
            .filter_map(|row| doubt::of_logits(row).ok())
            .reduce(TokenDoubt::worse)
    }
}

/// The part of an output that is a chunk.
pub(super) fn rows(
    values: &[f32],
    window: &WindowFile,
    chunk: &mut [f32],
    width: usize,
) -> Result<(), Invalid> {
    let from = values.get(window.start..).unwrap_or_default();
    let actions = from.chunks_exact(window.width.max(1));
    if actions.len() * width < chunk.len() {
        return Err(Invalid::Count {
            what: "numbers of a chunk",
            expected: chunk.len(),
            found: actions.len() * width,
        });
    }
    for (slot, row) in chunk.chunks_exact_mut(width.max(1)).zip(actions) {
        for (slot, value) in slot.iter_mut().zip(row) {
            *slot = *value;
        }
    }
    match chunk.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(Invalid::NotFinite {
            what: "the graph's action",
            at,
        }),
        None => Ok(()),
    }
}

/// Ids -> text. Allocates; the answer of a language model that speaks is no matter of microseconds.
fn text(tokenizer: &Tokenizer, tokens: &[i32]) -> Result<String, Invalid> {
    let mut ids = Vec::with_capacity(tokens.len());
    for (at, id) in tokens.iter().enumerate() {
        ids.push(u32::try_from(*id).map_err(|_| Invalid::Token {
            at,
            id: i64::from(*id),
            low: 0,
            high: i64::from(i32::MAX),
        })?);
    }
    let answer = tokenizer
        .decode(&ids, true)
        .map_err(|_| Invalid::Text { at: 0 })?;
    if answer.len() > ANSWER_BYTES_MAX {
        return Err(Invalid::Count {
            what: "bytes of the answer",
            expected: ANSWER_BYTES_MAX,
            found: answer.len(),
        });
    }
    Ok(answer)
}
