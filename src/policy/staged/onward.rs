// SPDX-License-Identifier: Apache-2.0
//! Real-time chunking: a plan that goes on from the one that is being followed while it is made.
//!
//! The sample of each plan is kept in the graph's own numbers. When the next one is asked for, the caller says which plan
//! is followed, how many of its actions lie before the observation, and how many more will be over before the new plan
//! takes its place; what is left of the kept sample is then the *prefix*. Actions that are relative to the state at
//! observation are anchored anew: the same place, seen from where the robot is now.
//!
//! What becomes of the prefix is the manifest's flavour ([`Flavour`]); the formulas are in [`core::schedule::rtc`].
//!
//! [`core::schedule::rtc`]: crate::core::schedule::rtc

use crate::config::problem::Problem;
use crate::core::schedule::rtc::{guidance_weight, identity_correction, strengths, weights};
use crate::policy::decode::flow::Flow;
use crate::policy::decode::post::Post;
use crate::policy::manifest::at;
use crate::policy::normalise::Normaliser;
use crate::policy::staged::manifest::{
    DecoderFile, Flavour, FlowLoop, LoopFile, RtcFile, StagedFile,
};
use crate::policy::staged::plan::Source;
use crate::policy::staged::run::Run;

/// Plans whose samples are kept: more than can be on their way at once.
const KEPT: usize = 4;

/// Which plan is followed while the next is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Its number, as it was given when it was made.
    pub chunk_id: u32,
    /// Its actions before the new plan's first one.
    pub skipped: usize,
    /// Actions of the new plan that will be over before it is followed.
    pub delay: usize,
}

/// A plan that was made.
#[derive(Clone, Debug)]
struct Past {
    chunk_id: u32,
    sample: Vec<f32>,
    /// The state in units to which its actions are relative.
    state: Vec<f32>,
}

/// What is kept, and the prefix of the plan being made.
#[derive(Clone, Debug)]
pub(super) struct Onward {
    file: RtcFile,
    flow: Flow,
    width: usize,
    /// For each column of the action whether it is relative to the state.
    relative: Vec<bool>,
    past: Vec<Past>,
    /// Where the next plan is kept.
    next: usize,
    chunk_id: u32,
    running: Option<Running>,
    /// Rows of the prefix that count; 0 without one.
    overlap: usize,
    delay: usize,
    prefix: Vec<f32>,
    /// One a row: how strongly it is held, or how strongly it is still denoised.
    weights: Vec<f32>,
    /// One a row.
    times: Vec<f32>,
    velocity: Vec<f32>,
}

impl Onward {
    /// What the manifest asks for, if it asks; `sample` numbers are denoised at once.
    ///
    /// # Errors
    /// Every [`Problem`]: a flavour without its inputs, actions that cannot be anchored anew.
    pub(super) fn new(
        file: &StagedFile,
        run: &Run,
        sample: usize,
    ) -> Result<Option<Onward>, Vec<Problem>> {
        let Some(LoopFile::Flow(FlowLoop {
            rtc: Some(rtc),
            flow,
            ..
        })) = &file.repeat
        else {
            return Ok(None);
        };
        let mut problems = Vec::new();
        let mut wrong = |path: &str, expected: &str, found: String| {
            problems.push(Problem {
                at: at(path),
                expected: expected.into(),
                found,
            });
        };
        let width = match &file.decoder {
            DecoderFile::Sample(window) if window.start == 0 => window.width,
            _ => {
                let expected =
                    "\"sample\" from its first number on: the plan itself is gone on from";
                wrong("tendon.decoder", expected, "another".into());
                1
            }
        };
        let rows = sample / width.max(1);
        let read = |source| run.numbers(source).unwrap_or(0);
        let inputs = [
            read(Source::Prefix),
            read(Source::Weights),
            read(Source::Guidance),
            read(Source::Time),
        ];
        let fits = match rtc.flavour {
            Flavour::Guided => inputs[..3] == [sample, rows, 1],
            Flavour::Trained => inputs[3] == rows && rows > 1,
            Flavour::Identity | Flavour::FrozenPrefix => inputs[..3] == [0; 3],
        };
        if !fits {
            wrong(
                "tendon.loop.rtc.flavour",
                "for \"guided\" inputs from loop.prefix, loop.weights (one a row) and loop.guidance (one number), for \
                 \"trained\" a loop.time of one number a row, for the others none of them",
                format!(
                    "{:?} with {} numbers of prefix, {} of weights, {} of guidance, {} of time",
                    rtc.flavour, inputs[0], inputs[1], inputs[2], inputs[3]
                ),
            );
        }
        let good = |number: f32| number.is_finite() && number > 0.0;
        if !good(rtc.guidance_max) || !good(rtc.ramp_rate) || rtc.overlap == Some(0) {
            let found = format!(
                "{}, {} and {:?}",
                rtc.guidance_max, rtc.ramp_rate, rtc.overlap
            );
            let expected = "guidance_max, ramp_rate and overlap above 0";
            wrong("tendon.loop.rtc", expected, found);
        }
        let relative = match &file.action {
            Some(action) => relative(&action.post, action.names.len()),
            None => Ok(Vec::new()),
        };
        let relative = relative.unwrap_or_else(|column| {
            let expected =
                "add_state before every other operation on its columns: the prefix is anchored to another state there";
            wrong("tendon.action.post", expected, format!("column {column}"));
            Vec::new()
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let joints = file.state.as_ref().map_or(0, |state| state.names.len());
        Ok(Some(Onward {
            file: rtc.clone(),
            flow: flow.clone(),
            width,
            relative,
            past: vec![
                Past {
                    chunk_id: 0,
                    sample: vec![0.0; sample],
                    state: vec![0.0; joints],
                };
                KEPT
            ],
            next: 0,
            chunk_id: 0,
            running: None,
            overlap: 0,
            delay: 0,
            prefix: vec![0.0; sample],
            weights: vec![0.0; rows],
            times: vec![0.0; rows],
            velocity: vec![0.0; sample],
        }))
    }

    /// The next plan has this number and goes on from that one. Good for one run.
    pub(super) fn ask(&mut self, chunk_id: u32, running: Option<Running>) {
        (self.chunk_id, self.running) = (chunk_id, running);
    }

    /// Forgets every plan.
    pub(super) fn reset(&mut self) {
        for past in &mut self.past {
            past.chunk_id = 0;
        }
        self.running = None;
    }

    /// Works the prefix out and feeds it. `state` is the observation's, in units.
    pub(super) fn begin(&mut self, run: &mut Run, state: &[f32], normaliser: Option<&Normaliser>) {
        self.overlap = 0;
        self.prefix.fill(0.0);
        let running = self.running.take().filter(|running| running.chunk_id != 0);
        let found = running.and_then(|running| {
            let same = |past: &&Past| past.chunk_id == running.chunk_id;
            self.past.iter().find(same).map(|past| (running, past))
        });
        if let Some((Running { skipped, delay, .. }, past)) = found {
            let rows = self.weights.len();
            let left = rows.saturating_sub(skipped);
            self.overlap = self.file.overlap.unwrap_or(rows).min(left);
            self.delay = delay.min(self.overlap);
            let from = past.sample.get(skipped * self.width..).unwrap_or_default();
            for (slot, value) in self.prefix.iter_mut().zip(from) {
                *slot = *value;
            }
            if let Some(normaliser) = normaliser {
                for row in self.prefix.chunks_mut(self.width).take(left) {
                    let states = past.state.iter().zip(state);
                    let columns = row.iter_mut().zip(&self.relative).zip(states).enumerate();
                    for (column, ((value, relative), (then, now))) in columns {
                        if *relative {
                            let place = normaliser.restore(column, *value) + then;
                            *value = normaliser.normalise(column, place - now);
                        }
                    }
                }
            }
        }
        match (self.overlap, self.file.flavour) {
            (0, _) => self.weights.fill(0.0),
            (_, Flavour::FrozenPrefix) => strengths(
                self.file.ramp_rate,
                self.delay,
                self.overlap,
                &mut self.weights,
            ),
            _ => weights(
                self.file.attention.into(),
                self.delay,
                self.overlap,
                &mut self.weights,
            ),
        }
        run.feed(Source::Prefix, |slot| copy(slot, &self.prefix));
        run.feed(Source::Weights, |slot| copy(slot, &self.weights));
        run.feed_whole(Source::Delay, &[self.held() as i32]);
    }

    /// Steps that are over before the plan is followed; 0 without a prefix.
    fn held(&self) -> usize {
        if self.overlap == 0 { 0 } else { self.delay }
    }

    /// The same, where the policy was trained to take them over as they are.
    pub(super) fn trained_on(&self) -> Option<usize> {
        let goes_on = self.file.flavour == Flavour::Trained && self.overlap > 0;
        goes_on.then(|| self.held())
    }

    /// How far step `step` is from the action: 1 at the noise, 0 there.
    fn far(&self, step: u32) -> f32 {
        let Flow { t_start, t_end, .. } = self.flow;
        (self.flow.time(step) - t_end) / (t_start - t_end)
    }

    /// Before the first step: the noise of what is not denoised from noise.
    pub(super) fn seed(&self, x: &mut [f32]) {
        if self.file.flavour == Flavour::FrozenPrefix {
            copy_rows(x, &self.prefix, self.overlap * self.width);
        }
    }

    /// Before each step and after the last one: what is certain.
    pub(super) fn hold(&self, x: &mut [f32]) {
        if self.file.flavour == Flavour::Trained {
            copy_rows(x, &self.prefix, self.held() * self.width);
        }
    }

    /// Feeds what changes with the step.
    pub(super) fn feed(&mut self, run: &mut Run, step: u32) {
        match self.file.flavour {
            Flavour::Guided => run.feed_number(Source::Guidance, self.guidance(step)),
            Flavour::Trained => {
                let held = self.held();
                for (row, time) in self.times.iter_mut().enumerate() {
                    *time = if row < held {
                        self.flow.t_end
                    } else {
                        self.flow.time(step)
                    };
                }
                run.feed(Source::Time, |slot| copy(slot, &self.times));
            }
            Flavour::Identity | Flavour::FrozenPrefix => {}
        }
    }

    fn guidance(&self, step: u32) -> f32 {
        if self.overlap == 0 {
            0.0
        } else {
            guidance_weight(self.far(step), self.file.guidance_max)
        }
    }

    /// One Euler step with the velocity that the graph gave.
    pub(super) fn step(&mut self, step: u32, x: &mut [f32], velocity: &[f32]) {
        copy(&mut self.velocity, velocity);
        if self.overlap > 0 {
            match self.file.flavour {
                // The formula's time falls from noise to action; where the graph's rises its velocity points the other way.
                Flavour::Identity => {
                    let sign = if self.flow.dt() < 0.0 { 1.0 } else { -1.0 };
                    let (far, guidance) = (self.far(step), self.guidance(step));
                    self.velocity.iter_mut().for_each(|v| *v *= sign);
                    identity_correction(
                        &mut self.velocity,
                        x,
                        &self.prefix,
                        &self.weights,
                        self.width,
                        far,
                        guidance,
                    );
                    self.velocity.iter_mut().for_each(|v| *v *= sign);
                }
                Flavour::FrozenPrefix => {
                    let rows = self.velocity.chunks_mut(self.width);
                    for (row, strength) in rows.zip(&self.weights) {
                        row.iter_mut().for_each(|v| *v *= strength);
                    }
                }
                Flavour::Guided | Flavour::Trained => {}
            }
        }
        self.flow.step(x, &self.velocity);
    }

    /// Keeps the plan that was made.
    pub(super) fn keep(&mut self, x: &[f32], state: &[f32]) {
        let chunk_id = self.chunk_id;
        for past in &mut self.past {
            // A number that is given again is of the newer plan: the older one was refused.
            if past.chunk_id == chunk_id {
                past.chunk_id = 0;
            }
        }
        if let Some(past) = self.past.get_mut(self.next) {
            past.chunk_id = chunk_id;
            copy(&mut past.sample, x);
            copy(&mut past.state, state);
        }
        self.next = (self.next + 1) % KEPT;
    }
}

fn copy(into: &mut [f32], from: &[f32]) {
    for (slot, value) in into.iter_mut().zip(from) {
        *slot = *value;
    }
}

fn copy_rows(into: &mut [f32], from: &[f32], numbers: usize) {
    copy(into, from.get(..numbers).unwrap_or_default());
}

/// Which columns are relative to the state; or the first that something else was done to before.
fn relative(post: &[Post], width: usize) -> Result<Vec<bool>, usize> {
    let mut relative = vec![false; width];
    let mut touched = vec![false; width];
    for op in post {
        match op {
            Post::AddState { mask } => {
                for (column, added) in mask.iter().enumerate().take(width) {
                    if *added {
                        if touched.get(column) != Some(&false) {
                            return Err(column);
                        }
                        touched
                            .iter_mut()
                            .skip(column)
                            .take(1)
                            .for_each(|t| *t = true);
                        relative
                            .iter_mut()
                            .skip(column)
                            .take(1)
                            .for_each(|r| *r = true);
                    }
                }
            }
            Post::Sign { by } => touched.iter_mut().zip(by).for_each(|(t, _)| *t = true),
            Post::Sticky { dim, .. } => touched
                .iter_mut()
                .skip(*dim)
                .take(1)
                .for_each(|t| *t = true),
            Post::Affine { dims, .. }
            | Post::Clip { dims, .. }
            | Post::Binarise { dims, .. }
            | Post::Sigmoid { dims }
            | Post::Deadband { dims, .. }
            | Post::AlohaGripperFromAngular { dims }
            | Post::AlohaGripperToAngular { dims } => {
                for dim in dims {
                    touched
                        .iter_mut()
                        .skip(*dim)
                        .take(1)
                        .for_each(|t| *t = true);
                }
            }
        }
    }
    Ok(relative)
}
