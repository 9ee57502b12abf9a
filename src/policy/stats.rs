// SPDX-License-Identifier: Apache-2.0
//! Normalisation statistics: the mean and deviation of each number of a state or an action.
//!
//! Keys are LeRobot's flat ones: `<key>.mean`, `<key>.std`, and `<key>.q01`, `<key>.q99` where they are known.
//! A wrong number here makes a robot that moves wrongly without any error, so each is judged at load.

use crate::config::problem::Problem;
use crate::policy::tensors::TensorFile;

/// Deviations on both sides of the mean that stand for the range of a value whose quantiles are not known, or that
/// training hardly moved: +-2 deviations hold 95 % of a normal distribution.
const RANGE_DEVIATIONS: f32 = 4.0;

/// Statistics of one vector; all lists have its length.
#[derive(Clone, Debug, PartialEq)]
pub struct Stats {
    /// Mean, in the unit of each entry.
    pub mean: Vec<f32>,
    /// Deviation, above zero.
    pub std: Vec<f32>,
    /// How far each entry ranges, above zero: from 1 % to 99 % of what training saw, and 4 deviations at least.
    pub range: Vec<f32>,
}

impl Stats {
    /// Reads the statistics of `key` with `width` entries. `names` are the entries', for messages.
    ///
    /// # Errors
    /// Every [`Problem`]: missing key, wrong type or length, an entry not finite, a deviation not above zero.
    pub fn read(
        file: &TensorFile,
        file_name: &str,
        key: &str,
        names: &[String],
    ) -> Result<Stats, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut read = |figure: &str| match file.f32(&format!("{key}.{figure}"), &[names.len()]) {
            Ok(values) => values,
            Err(problem) => {
                problems.push(problem);
                Vec::new()
            }
        };
        let mean = read("mean");
        let std = read("std");
        let has_quantiles = file.has(&format!("{key}.q01")) && file.has(&format!("{key}.q99"));
        let (low, high) = if has_quantiles {
            (read("q01"), read("q99"))
        } else {
            (Vec::new(), Vec::new())
        };
        let mut judge = |figure: &str, values: &[f32], expected: &str, good: fn(f32) -> bool| {
            for (name, value) in names.iter().zip(values).filter(|(_, value)| !good(**value)) {
                problems.push(Problem {
                    at: format!("{file_name}: {key}.{figure} of \"{name}\""),
                    expected: expected.into(),
                    found: value.to_string(),
                });
            }
        };
        judge("mean", &mean, "a finite number", f32::is_finite);
        judge("std", &std, "a finite number above 0", |value| {
            value.is_finite() && value > 0.0
        });
        judge("q01", &low, "a finite number", f32::is_finite);
        judge("q99", &high, "a finite number", f32::is_finite);
        if !problems.is_empty() {
            return Err(problems);
        }
        let span = |at: usize| {
            high.get(at)
                .zip(low.get(at))
                .map_or(0.0, |(high, low)| high - low)
        };
        let range = std
            .iter()
            .enumerate()
            .map(|(at, std)| span(at).max(RANGE_DEVIATIONS * std))
            .collect();
        Ok(Stats { mean, std, range })
    }
}

impl Stats {
    /// A raw value of entry `at` as the graph takes it: `(x - mean) / (std + eps)`.
    #[must_use]
    pub fn normalise(&self, at: usize, raw: f32, eps: f32) -> f32 {
        match (self.mean.get(at), self.std.get(at)) {
            (Some(mean), Some(std)) => (raw - mean) / (std + eps),
            _ => f32::NAN,
        }
    }

    /// The graph's value of entry `at` in its unit: `x * std + mean`. LeRobot adds no eps on this way.
    #[must_use]
    pub fn restore(&self, at: usize, value: f32) -> f32 {
        match (self.mean.get(at), self.std.get(at)) {
            (Some(mean), Some(std)) => value * std + mean,
            _ => f32::NAN,
        }
    }
}
