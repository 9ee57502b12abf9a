// SPDX-License-Identifier: Apache-2.0
//! Normalisation of states and actions, with each family's own rounding and its own way out of a division by zero.
//!
//! | convention | source |
//! |---|---|
//! | `lerobot` | huggingface/lerobot 0.4.4 and 0.6.1 `processor/normalize_processor.py` |
//! | `openpi` | Physical-Intelligence/openpi@15a9616a `transforms.py` |
//! | `rlds` | OpenVLA, OpenVLA-OFT, Octo: `prismatic/vla/datasets/rlds`, `modeling_prismatic.py`, `octo_model.py` |
//! | `groot` | NVIDIA/Isaac-GR00T `gr00t/data/transform/state_action.py` |
//! | `groot_n17` | huggingface/lerobot 0.6.1 `policies/groot/processor_groot.py` |
//!
//! Arithmetic is in 32-bit floats and in the sources' order of operations, so the same bits come out.

use crate::config::problem::Problem;
use schemars::JsonSchema;
use serde::Deserialize;

/// The formula.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing is changed.
    Identity,
    /// By mean and standard deviation.
    MeanStd,
    /// -1..1 between smallest and largest.
    MinMax,
    /// -1..1 between the 1 % and the 99 % quantile.
    Quantiles,
    /// -1..1 between the 10 % and the 90 % quantile.
    Quantile10,
}

/// Whose details.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Convention {
    /// eps joins the deviation on the way in only, and stands for a range of zero.
    #[default]
    Lerobot,
    /// 1e-6 joins deviation and range both ways.
    Openpi,
    /// 1e-8 joins deviation and range on the way in, which is clipped to -1..1 where it is a range.
    Rlds,
    /// Nothing is added: what does not vary passes as it is, or as 0 for the extremes; quantiles are clipped to -1..1.
    Groot,
    /// As `groot`, but extremes and quantiles alike are clipped to -1..1 both ways, and what does not vary passes as 0.
    GrootN17,
}

/// Names of the two statistics that a mode needs, offset first.
#[must_use]
pub fn figures(mode: Mode) -> Option<[&'static str; 2]> {
    match mode {
        Mode::Identity => None,
        Mode::MeanStd => Some(["mean", "std"]),
        Mode::MinMax => Some(["min", "max"]),
        Mode::Quantiles => Some(["q01", "q99"]),
        Mode::Quantile10 => Some(["q10", "q90"]),
    }
}

/// One vector's normalisation. All lists have the vector's width.
#[derive(Clone, Debug, PartialEq)]
pub struct Normaliser {
    mode: Mode,
    convention: Convention,
    eps: f32,
    /// Mean, or low end.
    first: Vec<f32>,
    /// Deviation, or high end.
    second: Vec<f32>,
    /// Entries that are normalised; the others pass as they are.
    mask: Vec<bool>,
}

impl Normaliser {
    /// Passes `width` numbers as they are.
    #[must_use]
    pub fn identity(width: usize) -> Normaliser {
        Normaliser {
            mode: Mode::Identity,
            convention: Convention::Lerobot,
            eps: 0.0,
            first: vec![0.0; width],
            second: vec![1.0; width],
            mask: vec![false; width],
        }
    }

    /// Checks the statistics. `at` says where they stand, for the message; `mask` of `None` normalises every entry.
    ///
    /// # Errors
    /// Every [`Problem`]: lengths that differ, a number not finite, a negative deviation, a low end above the high one,
    /// and what would divide by zero or by next to nothing.
    pub fn new(
        mode: Mode,
        convention: Convention,
        eps: f32,
        stats: [Vec<f32>; 2],
        mask: Option<Vec<bool>>,
        at: &str,
    ) -> Result<Normaliser, Vec<Problem>> {
        let [first, second] = stats;
        let width = first.len();
        let mut problems = Vec::new();
        let mut wrong = |what: String, expected: String, found: String| {
            problems.push(Problem {
                at: format!("{at}{what}"),
                expected,
                found,
            });
        };
        let mask = mask.unwrap_or_else(|| vec![true; width]);
        if second.len() != width || mask.len() != width {
            wrong(
                String::new(),
                format!("{width} numbers in each list, as in the first"),
                format!("{} numbers and a mask of {}", second.len(), mask.len()),
            );
        }
        let [one, two] = figures(mode).unwrap_or(["first", "second"]);
        for (index, (low, high)) in first.iter().zip(&second).enumerate() {
            for (name, value) in [(one, low), (two, high)] {
                if !value.is_finite() {
                    let expected = "a finite number".into();
                    wrong(format!(".{name}[{index}]"), expected, value.to_string());
                }
            }
            if !mask.get(index).copied().unwrap_or(true) {
                continue;
            }
            if mode == Mode::MeanStd && *high < 0.0 {
                wrong(
                    format!(".{two}[{index}]"),
                    "0 or more".into(),
                    high.to_string(),
                );
            }
            if mode == Mode::MeanStd
                && *high == 0.0
                && !matches!(convention, Convention::Groot | Convention::GrootN17)
            {
                // (x - mean) / 1e-8 is a number of no meaning for any x that is not the mean.
                wrong(
                    format!(".{two}[{index}]"),
                    "above 0 (a joint that never moved in training cannot be normalised; mask it)"
                        .into(),
                    "0".into(),
                );
            }
            if !matches!(mode, Mode::MeanStd | Mode::Identity) && low > high {
                wrong(
                    format!(".{one}[{index}]"),
                    format!("at most {two}, {high}"),
                    low.to_string(),
                );
            }
        }
        if !(eps.is_finite() && (0.0..=1.0).contains(&eps)) {
            wrong(".eps".into(), "0 to 1".into(), eps.to_string());
        }
        if problems.is_empty() {
            Ok(Normaliser {
                mode,
                convention,
                eps,
                first,
                second,
                mask,
            })
        } else {
            Err(problems)
        }
    }

    /// Numbers it is for.
    #[must_use]
    pub fn width(&self) -> usize {
        self.first.len()
    }

    /// How far entry `at` ranges in its own unit: what an error is judged by. 4 deviations where no ends are known.
    #[must_use]
    pub fn range(&self, at: usize) -> f32 {
        match (self.mode, self.first.get(at), self.second.get(at)) {
            (Mode::MeanStd, _, Some(std)) => 4.0 * std,
            (Mode::MinMax | Mode::Quantiles | Mode::Quantile10, Some(low), Some(high)) => {
                high - low
            }
            _ => 2.0,
        }
    }

    fn of(&self, at: usize) -> Option<(f32, f32)> {
        let masked = self.mask.get(at).copied().unwrap_or(false);
        (masked && self.mode != Mode::Identity)
            .then(|| {
                self.first
                    .get(at)
                    .copied()
                    .zip(self.second.get(at).copied())
            })
            .flatten()
    }

    /// A number in its unit -> the graph's number.
    #[must_use]
    pub fn normalise(&self, at: usize, x: f32) -> f32 {
        let Some((a, b)) = self.of(at) else { return x };
        if self.mode == Mode::MeanStd {
            return match self.convention {
                Convention::Lerobot => (x - a) / (b + self.eps),
                Convention::Openpi => (x - a) / (b + 1e-6),
                Convention::Rlds => (x - a) / (b + 1e-8),
                Convention::Groot | Convention::GrootN17 if b == 0.0 => x,
                Convention::Groot | Convention::GrootN17 => (x - a) / b,
            };
        }
        let d = b - a;
        match self.convention {
            Convention::Lerobot => {
                let d = if d == 0.0 { self.eps } else { d };
                2.0 * (x - a) / d - 1.0
            }
            Convention::Openpi => (x - a) / (d + 1e-6) * 2.0 - 1.0,
            Convention::Rlds => (2.0 * (x - a) / (d + 1e-8) - 1.0).clamp(-1.0, 1.0),
            Convention::Groot => match (self.mode, d == 0.0) {
                (Mode::MinMax, true) => 0.0,
                (_, true) => x.clamp(-1.0, 1.0),
                (Mode::MinMax, false) => 2.0 * ((x - a) / d) - 1.0,
                (_, false) => (2.0 * ((x - a) / d) - 1.0).clamp(-1.0, 1.0),
            },
            Convention::GrootN17 if d == 0.0 => 0.0,
            Convention::GrootN17 => (2.0 * (x - a) / d - 1.0).clamp(-1.0, 1.0),
        }
    }

    /// The graph's number -> a number in its unit.
    #[must_use]
    pub fn restore(&self, at: usize, x: f32) -> f32 {
        let Some((a, b)) = self.of(at) else { return x };
        if self.mode == Mode::MeanStd {
            return match self.convention {
                Convention::Openpi => x * (b + 1e-6) + a,
                Convention::Lerobot
                | Convention::Rlds
                | Convention::Groot
                | Convention::GrootN17 => x * b + a,
            };
        }
        let d = b - a;
        match self.convention {
            Convention::Lerobot => {
                let d = if d == 0.0 { self.eps } else { d };
                match self.mode {
                    Mode::MinMax => (x + 1.0) / 2.0 * d + a,
                    _ => (x + 1.0) * d / 2.0 + a,
                }
            }
            Convention::Openpi => (x + 1.0) / 2.0 * (d + 1e-6) + a,
            Convention::Rlds => 0.5 * (x + 1.0) * d + a,
            Convention::Groot => (x + 1.0) / 2.0 * d + a,
            Convention::GrootN17 => (x.clamp(-1.0, 1.0) + 1.0) * 0.5 * d + a,
        }
    }

    /// Normalises `raw` into the front of `out` and fills the rest with zeros: the padding to 32 of pi0 and SmolVLA.
    pub fn fill(&self, raw: impl Iterator<Item = f32>, out: &mut [f32]) {
        let mut raw = raw.enumerate();
        for slot in out {
            *slot = raw.next().map_or(0.0, |(at, x)| self.normalise(at, x));
        }
    }
}
