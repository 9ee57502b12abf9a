// SPDX-License-Identifier: Apache-2.0
//! How sure a policy is, told by how far several answers to one observation lie apart: its loop run again from other noise, or
//! a graph that gives several answers at once (dropout left on, an ensemble). And where it looked, if a graph gives that.
//!
//! The spread of a joint is the standard deviation over the answers, in its unit, of the action where they are furthest
//! apart. The chunk that is followed is one answer, never their mean: between two good ways may lie a bad one.

use crate::config::problem::Problem;
use crate::policy::decode::Invalid;
use crate::policy::decode::doubt;
use crate::policy::decode::post::Steps;
use crate::policy::manifest::at;
use crate::policy::normalise::Normaliser;
use crate::policy::staged::decoder::{Raw, rows};
use crate::policy::staged::manifest::{LoopFile, StagedFile, WindowFile};
use crate::policy::staged::plan::{Place, output_of};
use crate::policy::staged::run::{Clock, Run};
use crate::policy::staged::{Fault, Staged};

/// Most answers to one observation.
const COUNT_MAX: usize = 64;

/// Everything allocated at load.
pub(super) struct Spread {
    /// Where all answers stand, and how; `None`: the loop is run again.
    from: Option<(Place, WindowFile)>,
    count: usize,
    /// First actions that count.
    steps: usize,
    /// Doubt of 1, by joint.
    spread_max: Vec<f32>,
    /// `[count][horizon][names]`, in units.
    samples: Vec<f32>,
    /// `[horizon][names]`.
    deviation: Vec<f32>,
    /// Each answer's own: an operation may remember.
    post: Vec<Steps>,
    /// The noise of the answer that is followed.
    noise: Vec<f32>,
    /// By joint.
    joints: Vec<f32>,
    doubt: f32,
}

/// Where a policy looked in a camera's picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attention<'a> {
    /// The camera's role.
    pub camera: &'a str,
    /// Numbers across.
    pub columns: usize,
    /// Numbers down.
    pub rows: usize,
    /// `[rows][columns]`, as the graph gives them; the top row first.
    pub values: &'a [f32],
}

impl Spread {
    pub(super) fn new(
        file: &StagedFile,
        run: &Run,
        noise: usize,
    ) -> Result<Option<Spread>, Vec<Problem>> {
        let Some(wanted) = &file.uncertainty else {
            return Ok(None);
        };
        let wrong = |key: &str, expected: &str, found: String| {
            Err(Problem::one(
                at(&format!("tendon.uncertainty{key}")),
                expected,
                found,
            ))
        };
        let Some(action) = &file.action else {
            return wrong("", "a policy whose answer is an action", "a planner".into());
        };
        let (width, horizon) = (action.names.len(), action.horizon);
        if !(2..=COUNT_MAX).contains(&wanted.count) {
            return wrong(".count", "2 to 64 answers", wanted.count.to_string());
        }
        let good = |value: &f32| value.is_finite() && *value > 0.0;
        if wanted.spread_max.len() != width || !wanted.spread_max.iter().all(good) {
            let expected =
                "for each name of the action the deviation, in its unit, that is a doubt of 1";
            return wrong(".spread_max", expected, format!("{:?}", wanted.spread_max));
        }
        let steps = wanted.steps.unwrap_or(horizon);
        if !(1..=horizon).contains(&steps) {
            return wrong(".steps", "1 to the actions of a chunk", steps.to_string());
        }
        let from = match &wanted.from {
            Some(name) => {
                let place = output_of(file, name);
                let numbers = place.map_or(0, |place| run.output(place).len());
                let row = numbers / (wanted.count * horizon);
                if row < width || row * wanted.count * horizon != numbers {
                    let expected = "STAGE.OUTPUT of floats, [count][horizon][names or more]";
                    return wrong(
                        ".from",
                        expected,
                        format!("\"{name}\" of {numbers} numbers"),
                    );
                }
                place.map(|place| {
                    (
                        place,
                        WindowFile {
                            start: 0,
                            width: row,
                        },
                    )
                })
            }
            None if matches!(
                file.repeat,
                Some(LoopFile::Flow(_) | LoopFile::Diffusion(_) | LoopFile::Draw(_))
            ) =>
            {
                None
            }
            None => {
                let expected = "a loop that begins with noise, or a graph's output in from";
                return wrong("", expected, "neither".into());
            }
        };
        Ok(Some(Spread {
            from,
            count: wanted.count,
            steps,
            spread_max: wanted.spread_max.clone(),
            samples: vec![0.0; wanted.count * horizon * width],
            deviation: vec![0.0; horizon * width],
            post: vec![Steps::new(action.post.clone()); wanted.count],
            noise: vec![0.0; noise],
            joints: vec![0.0; width],
            doubt: 0.0,
        }))
    }

    pub(super) fn reset(&mut self) {
        for post in &mut self.post {
            post.reset();
        }
    }

    pub(super) fn joints(&self) -> &[f32] {
        &self.joints
    }

    pub(super) fn doubt(&self) -> f32 {
        self.doubt
    }

    /// Takes in the answers that a graph gave at once.
    fn take_batch(
        &mut self,
        run: &Run,
        normaliser: Option<&Normaliser>,
        units: &[f32],
    ) -> Result<(), Invalid> {
        let Some((place, window)) = &self.from else {
            return Ok(());
        };
        let width = self.joints.len().max(1);
        let all = run.output(*place);
        let size = (all.len() / self.count).max(1);
        let samples = self.samples.chunks_exact_mut(self.deviation.len().max(1));
        for ((sample, values), post) in samples.zip(all.chunks_exact(size)).zip(&mut self.post) {
            rows(values, window, sample, width)?;
            in_units(sample, width, normaliser, post, units)?;
        }
        Ok(())
    }

    /// How far apart they are. Where the loop was run again, the first answer is `chunk`, the one that is followed.
    pub(super) fn judge(&mut self, chunk: &[f32]) {
        if self.from.is_none() {
            for (slot, value) in self.samples.iter_mut().zip(chunk) {
                *slot = *value;
            }
        }
        doubt::of_samples(&self.samples, &mut self.deviation);
        let width = self.joints.len().max(1);
        self.joints.fill(0.0);
        for row in self.deviation.chunks_exact(width).take(self.steps) {
            for (joint, value) in self.joints.iter_mut().zip(row) {
                // `max` would pass over a NaN, which is the largest doubt.
                *joint = if value.is_nan() {
                    f32::INFINITY
                } else {
                    joint.max(*value)
                };
            }
        }
        let parts = self.joints.iter().zip(&self.spread_max);
        let worst = parts
            .map(|(spread, most)| spread / most)
            .fold(0.0, f32::max);
        self.doubt = worst.min(1.0);
    }
}

/// From the graph's numbers to units, all operations done.
pub(super) fn in_units(
    chunk: &mut [f32],
    width: usize,
    normaliser: Option<&Normaliser>,
    post: &mut Steps,
    state: &[f32],
) -> Result<(), Invalid> {
    if let Some(normaliser) = normaliser {
        for row in chunk.chunks_exact_mut(width.max(1)) {
            for (at, value) in row.iter_mut().enumerate() {
                *value = normaliser.restore(at, *value);
            }
        }
    }
    post.run(chunk, width, state)
}

impl Staged {
    /// The other answers, before the one that is followed: all that the policy remembers is then that one's.
    pub(super) fn wander(&mut self, clock: Option<Clock<'_>>) -> Result<(), Fault> {
        let Some(mut spread) = self.spread.take() else {
            return Ok(());
        };
        let done = self.wander_with(&mut spread, clock);
        self.spread = Some(spread);
        done
    }

    fn wander_with(&mut self, spread: &mut Spread, clock: Option<Clock<'_>>) -> Result<(), Fault> {
        if spread.from.is_some() {
            return Ok(());
        }
        spread.noise.copy_from_slice(&self.noise);
        let size = spread.deviation.len().max(1);
        let others = spread
            .samples
            .chunks_exact_mut(size)
            .zip(&mut spread.post)
            .skip(1);
        for (sample, post) in others {
            self.draw_more();
            self.turn(clock)?;
            let run = &self.run;
            let output = |place| run.output(place);
            let raw = Raw {
                output: &output,
                sample: &self.x,
                tokens: &self.tokens,
            };
            let width = spread.joints.len();
            self.decoder.read(&raw, sample, width, &mut self.answer)?;
            let normaliser = self.action.as_ref().map(|(_, normaliser, _)| normaliser);
            let normaliser = normaliser.filter(|_| self.decoder.is_normalised());
            in_units(sample, width, normaliser, post, &self.units)?;
            self.run.again();
        }
        self.noise.copy_from_slice(&spread.noise);
        Ok(())
    }

    /// After the one that is followed was read.
    pub(super) fn compare(&mut self) -> Result<(), Fault> {
        let Some(spread) = &mut self.spread else {
            return Ok(());
        };
        let normaliser = self.action.as_ref().map(|(_, normaliser, _)| normaliser);
        let normaliser = normaliser.filter(|_| self.decoder.is_normalised());
        spread.take_batch(&self.run, normaliser, &self.units)?;
        spread.judge(&self.chunk);
        Ok(())
    }

    /// Where it looked in the last run, for each camera that it tells of.
    pub fn attention(&self) -> impl Iterator<Item = Attention<'_>> {
        self.file.attention.iter().filter_map(|map| {
            Some(Attention {
                camera: &map.camera,
                columns: map.columns,
                rows: map.rows,
                values: self.run.output(output_of(&self.file, &map.from)?),
            })
        })
    }
}

/// Every map is of a camera of the bundle and of as many numbers as it says.
pub(super) fn check_attention(file: &StagedFile, run: &Run) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, map) in file.attention.iter().enumerate() {
        let mut wrong = |key: &str, expected: String, found: String| {
            problems.push(Problem {
                at: at(&format!("tendon.attention[{index}].{key}")),
                expected,
                found,
            });
        };
        if !file.cameras.iter().any(|camera| camera.role == map.camera) {
            let found = format!("\"{}\"", map.camera);
            wrong("camera", "a camera of the bundle".into(), found);
        }
        let place = output_of(file, &map.from);
        let numbers = place.map_or(0, |place| run.output(place).len());
        if map.columns == 0 || map.rows == 0 || map.columns.checked_mul(map.rows) != Some(numbers) {
            let expected = format!("STAGE.OUTPUT of {} times {} floats", map.rows, map.columns);
            wrong("from", expected, format!("\"{}\" of {numbers}", map.from));
        }
    }
    problems
}
