// SPDX-License-Identifier: Apache-2.0
//! A policy of several graphs: any family's stage graph, loop and decoder, described by data ([`manifest`]).
//!
//! [`plan`] works out once what runs when and what is handed where; `run` holds the tensors; this file feeds them, turns
//! the loop and reads the action. [`bundle`] opens a folder and proves it with its fixture.
//!
//! Invariant: from observation to chunk nothing is allocated but what the engines allocate inside their run calls, and,
//! in families that have them, a prompt with the state in it and an answer in words.

pub mod bundle;
mod chance;
mod decoder;
pub mod describe;
mod fixture;
mod judge;
pub mod manifest;
pub mod plan;
mod run;
pub(crate) mod stats;

use crate::policy::decode::Invalid;
use crate::policy::decode::diffusion::Diffusion;
use crate::policy::decode::post::Steps;
use crate::policy::normalise::Normaliser;
use crate::policy::parity::Parity;
use crate::policy::picture::Feed;
use crate::policy::picture::history::History;
use crate::policy::prompt::{Prompt, PromptFault};
use crate::policy::staged::chance::{open_unit, pick};
use crate::policy::staged::decoder::{Decoder, Raw};
use crate::policy::staged::manifest::{ActionFile, Noise, StagedFile, TokenLoop};
use crate::policy::staged::plan::{Place, Source};
use crate::policy::staged::run::{Clock, Run};
use crate::ports::EngineFault;
use rand_core::SeedableRng;
use rand_pcg::Pcg64Mcg;
use std::collections::BTreeMap;

/// What the policy is shown.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// When light fell on the sensors, of the newest picture; on any steady clock.
    pub captured_ns: u64,
    /// One a camera, in the order of the manifest: `[height][width][3]` RGB, or `None` if it is missing.
    pub pictures: &'a [Option<&'a [u8]>],
    /// In the units and order of the manifest.
    pub state: &'a [f32],
}

/// What it answered. Lent until the next run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer<'a> {
    /// `[horizon][names]` in units; empty for a planner.
    pub chunk: &'a [f32],
    /// A planner's sentence; empty for every other policy.
    pub sentence: &'a str,
    /// Probability of the least likely token that was picked, among the ids that are actions; `None` without tokens.
    pub likeliest: Option<f32>,
}

/// Why there is no answer. The robot goes on with the chunk it has.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Fault {
    /// No instruction was ever accepted.
    #[error("the policy has no instruction")]
    NoInstruction,
    /// Another number of pictures than cameras.
    #[error("expected {expected} pictures, found {found}")]
    Cameras {
        /// In the manifest.
        expected: usize,
        /// In the observation.
        found: usize,
    },
    /// A camera that the policy cannot do without, or a picture of another size.
    #[error("camera {camera}: expected {expected} bytes, found {found}")]
    Picture {
        /// Which, order of the manifest.
        camera: usize,
        /// Bytes of a picture.
        expected: usize,
        /// Bytes found; 0 if it is missing.
        found: usize,
    },
    /// Another number of joints, or a position that is not finite.
    #[error(
        "state: expected {expected} finite numbers, found {found}, the one at {at:?} not finite"
    )]
    State {
        /// In the manifest.
        expected: usize,
        /// In the observation.
        found: usize,
        /// Index of the first that is not finite.
        at: Option<usize>,
    },
    /// Noise of another length.
    #[error("noise: expected {expected} numbers, found {found}")]
    Noise {
        /// Of the loop.
        expected: usize,
        /// Given.
        found: usize,
    },
    /// The prompt with the state in it.
    #[error(transparent)]
    Prompt(#[from] PromptFault),
    /// The table has no such sentence.
    #[error("the sentence \"{0}\" is not in the policy's table; it knows {1} sentences")]
    Unknown(String, usize),
    /// An engine failed.
    #[error("engine: {0}")]
    Engine(#[from] EngineFault),
    /// What came out is no action.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// A camera's way into its tensor.
struct Eye {
    feed: Feed,
    missing: Option<f32>,
    /// For more than one frame: the ring and the newest frame.
    history: Option<(History, Vec<f32>)>,
    seen: Vec<bool>,
    marks: Vec<i32>,
}

enum Words {
    None,
    Prompt(Box<Prompt>),
    Table(BTreeMap<String, Vec<f32>>),
}

/// What is repeated.
enum Turns {
    None,
    Flow {
        flow: crate::policy::decode::flow::Flow,
        velocity: Place,
        noise: Noise,
    },
    Diffusion {
        steps: Diffusion,
        said: Place,
    },
    Tokens {
        file: TokenLoop,
        first: Place,
        next: Place,
    },
}

/// A bundle of several stages, loaded and proven.
pub struct Staged {
    name: String,
    hash: crate::policy::folder::Hash,
    file: StagedFile,
    files: Vec<(String, u64)>,
    run: Run,
    eyes: Vec<Eye>,
    words: Words,
    sentence: Option<String>,
    /// Tokens of the prompt that are not padding.
    used: usize,
    state: Option<(Steps, Normaliser)>,
    state_history: Option<History>,
    /// State in units, after the manifest's own operations; and normalised.
    units: Vec<f32>,
    normalised: Vec<f32>,
    turns: Turns,
    x: Vec<f32>,
    /// First the beginning, then one for each noisy step.
    noise: Vec<f32>,
    dice: Pcg64Mcg,
    seed: Option<u64>,
    tokens: Vec<i32>,
    decoder: Decoder,
    action: Option<(ActionFile, Normaliser, Steps)>,
    chunk: Vec<f32>,
    answer: String,
    parity: Parity,
}

impl core::fmt::Debug for Staged {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Staged")
            .field("name", &self.name)
            .field("family", &self.file.family)
            .field("parity", &self.parity)
            .finish_non_exhaustive()
    }
}

impl Staged {
    /// Name for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The manifest.
    #[must_use]
    pub fn file(&self) -> &StagedFile {
        &self.file
    }

    /// SHA-256 of the manifest, which names the SHA-256 of everything else.
    #[must_use]
    pub fn manifest_hash(&self) -> &crate::policy::folder::Hash {
        &self.hash
    }

    /// Every hashed file with its size in bytes.
    #[must_use]
    pub fn files(&self) -> &[(String, u64)] {
        &self.files
    }

    /// What runs when.
    #[must_use]
    pub fn plan(&self) -> &plan::Plan {
        self.run.plan()
    }

    /// How it compares with its fixture.
    #[must_use]
    pub fn parity(&self) -> &Parity {
        &self.parity
    }

    /// Bytes that were copied from stage to stage in the last run.
    #[must_use]
    pub fn copied_bytes(&self) -> u64 {
        self.run.copied_bytes()
    }

    /// Nanoseconds of each stage in the last run that was given a clock, order of the manifest.
    #[must_use]
    pub fn stage_ns(&self) -> &[u64] {
        &self.run.stage_ns
    }

    /// Numbers of noise of one observation: the beginning of the loop, then each noisy step. 0 without such a loop.
    #[must_use]
    pub fn noise_len(&self) -> usize {
        self.noise.len()
    }

    /// A sentence that it takes: for measuring, not for driving.
    #[must_use]
    pub fn some_sentence(&self) -> String {
        match &self.words {
            Words::None => String::new(),
            Words::Prompt(_) => "pick it up".into(),
            Words::Table(table) => table.keys().next().cloned().unwrap_or_default(),
        }
    }

    /// A new episode: histories, rings, memories and what the action's operations remember are empty.
    pub fn reset(&mut self) {
        self.run.reset();
        if let Some(history) = &mut self.state_history {
            history.reset();
        }
        for (history, _) in self.eyes.iter_mut().filter_map(|eye| eye.history.as_mut()) {
            history.reset();
        }
        if let Some((_, _, post)) = &mut self.action {
            post.reset();
        }
    }

    /// Obeys a sentence from the next run on.
    ///
    /// # Errors
    /// [`Fault`]; it keeps the one it has.
    pub fn set_instruction(&mut self, sentence: &str) -> Result<(), Fault> {
        match &self.words {
            Words::None => {}
            Words::Table(table) => {
                let vector = table
                    .get(sentence)
                    .ok_or_else(|| Fault::Unknown(sentence.into(), table.len()))?;
                self.run
                    .feed(Source::Embedding, |slot| slot.copy_from_slice(vector));
            }
            Words::Prompt(prompt) if prompt.has_state() => {
                // Too long is said now, to the operator, and not in the middle of a motion.
                prompt.encode(sentence, &self.normalised)?;
            }
            Words::Prompt(prompt) => {
                let tokens = prompt.encode(sentence, &[])?;
                self.used = tokens.used;
                feed_tokens(&mut self.run, &tokens);
            }
        }
        self.sentence = Some(sentence.to_owned());
        self.run.take_instruction();
        Ok(())
    }

    /// One observation through the policy. `noise` of [`Staged::noise_len`] numbers stands for the policy's own, so that a
    /// run can be repeated; `clock` gives nanoseconds, to tell where the time went.
    ///
    /// # Errors
    /// [`Fault`]; nothing of a refused result can be used.
    pub fn infer(
        &mut self,
        observation: &Observation<'_>,
        noise: Option<&[f32]>,
        clock: Option<&dyn Fn() -> u64>,
    ) -> Result<Answer<'_>, Fault> {
        if self.sentence.is_none() && !matches!(self.words, Words::None) {
            return Err(Fault::NoInstruction);
        }
        self.feed_state(observation)?;
        self.feed_pictures(observation)?;
        if let (Words::Prompt(prompt), Some(sentence)) = (&self.words, &self.sentence)
            && prompt.has_state()
        {
            let tokens = prompt.encode(sentence, &self.normalised)?;
            self.used = tokens.used;
            feed_tokens(&mut self.run, &tokens);
        }
        self.draw(noise)?;
        self.run.begin(clock)?;
        self.turn(clock)?;
        self.read()
    }

    fn feed_state(&mut self, observation: &Observation<'_>) -> Result<(), Fault> {
        let state = observation.state;
        let wrong = |at| Fault::State {
            expected: self.units.len(),
            found: state.len(),
            at,
        };
        let broken = state.iter().position(|value| !value.is_finite());
        if state.len() != self.units.len() || broken.is_some() {
            return Err(wrong(broken));
        }
        self.units.copy_from_slice(state);
        let Some((pre, normaliser)) = &mut self.state else {
            return Ok(());
        };
        let width = self.units.len();
        pre.run(&mut self.units, width, &[])?;
        normaliser.fill(self.units.iter().copied(), &mut self.normalised);
        if let Some(history) = &mut self.state_history {
            history.push(&self.normalised, observation.captured_ns);
            self.run
                .feed(Source::State, |slot| history.write(slot, &mut []));
            return Ok(());
        }
        let normalised = &self.normalised;
        self.run.feed(Source::State, |slot| {
            slot.fill(0.0);
            for (slot, value) in slot.iter_mut().zip(normalised) {
                *slot = *value;
            }
        });
        Ok(())
    }

    fn feed_pictures(&mut self, observation: &Observation<'_>) -> Result<(), Fault> {
        if observation.pictures.len() != self.eyes.len() {
            return Err(Fault::Cameras {
                expected: self.eyes.len(),
                found: observation.pictures.len(),
            });
        }
        let pictures = observation.pictures.iter().zip(&mut self.eyes).enumerate();
        for (camera, (picture, eye)) in pictures {
            let [width, height] = eye.feed.source();
            let expected = width * height * 3;
            let found = picture.map_or(0, <[u8]>::len);
            let good = match picture {
                Some(picture) => picture.len() == expected,
                None => eye.missing.is_some(),
            };
            if !good {
                return Err(Fault::Picture {
                    camera,
                    expected,
                    found,
                });
            }
            let Eye {
                feed,
                missing,
                history,
                seen,
                marks,
            } = eye;
            let fill = missing.unwrap_or(0.0);
            match (picture, history) {
                (None, _) => {
                    seen.fill(false);
                    self.run
                        .feed(Source::Camera(camera), |slot| slot.fill(fill));
                }
                (Some(picture), None) => {
                    seen.fill(true);
                    // Lengths were checked above and at load.
                    self.run.feed(Source::Camera(camera), |slot| {
                        let _ = feed.fill(picture, slot);
                    });
                }
                (Some(picture), Some((history, newest))) => {
                    let _ = feed.fill(picture, newest);
                    history.push(newest, observation.captured_ns);
                    self.run
                        .feed(Source::Camera(camera), |slot| history.write(slot, seen));
                }
            }
            for (mark, seen) in marks.iter_mut().zip(seen.iter()) {
                *mark = i32::from(*seen);
            }
            self.run.feed_whole(Source::Seen(camera), marks);
        }
        Ok(())
    }

    fn draw(&mut self, given: Option<&[f32]>) -> Result<(), Fault> {
        if let Some(given) = given {
            if given.len() != self.noise.len() {
                return Err(Fault::Noise {
                    expected: self.noise.len(),
                    found: given.len(),
                });
            }
            self.noise.copy_from_slice(given);
            return Ok(());
        }
        if let Some(seed) = self.seed {
            self.dice = Pcg64Mcg::seed_from_u64(seed);
        }
        let uniform = matches!(
            self.turns,
            Turns::Flow {
                noise: Noise::Uniform,
                ..
            }
        );
        for pair in self.noise.chunks_mut(2) {
            let [first, second] = [open_unit(&mut self.dice), open_unit(&mut self.dice)];
            let drawn = if uniform {
                [2.0 * first - 1.0, 2.0 * second - 1.0]
            } else {
                let radius = (-2.0 * first.ln()).sqrt();
                let angle = core::f64::consts::TAU * second;
                [radius * angle.cos(), radius * angle.sin()]
            };
            for (slot, value) in pair.iter_mut().zip(drawn) {
                *slot = value as f32;
            }
        }
        Ok(())
    }

    fn turn(&mut self, clock: Option<Clock<'_>>) -> Result<(), Fault> {
        let Staged {
            turns,
            run,
            x,
            noise,
            tokens,
            used,
            ..
        } = self;
        match turns {
            Turns::None => {}
            Turns::Flow { flow, velocity, .. } => {
                x.copy_from_slice(noise);
                for step in 0..flow.steps {
                    match flow.bucket(step) {
                        Some(bucket) => run.feed_number(Source::Time, bucket as f32),
                        None => run.feed_number(Source::Time, flow.time(step)),
                    }
                    run.feed(Source::X, |slot| slot.copy_from_slice(x));
                    run.step(clock)?;
                    flow.step(x, run.output(*velocity));
                }
            }
            Turns::Diffusion { steps, said } => {
                let (first, rest) = noise.split_at(x.len());
                x.copy_from_slice(first);
                let mut draws = rest.chunks_exact(x.len().max(1));
                for step in 0..steps.steps() {
                    run.feed_number(Source::Time, steps.time(step).unwrap_or(0) as f32);
                    run.feed(Source::X, |slot| slot.copy_from_slice(x));
                    run.step(clock)?;
                    let drawn = if steps.is_noisy(step) {
                        draws.next()
                    } else {
                        None
                    };
                    steps.step(step, x, run.output(*said), drawn.unwrap_or_default());
                }
            }
            Turns::Tokens { file, first, next } => {
                tokens.clear();
                while tokens.len() < file.max {
                    let logits = match tokens.last() {
                        None => run.output(*first),
                        Some(last) => {
                            let last = *last;
                            let place = *used + tokens.len() - 1 + file.position_offset as usize;
                            run.feed_whole(Source::Token, &[last]);
                            run.feed_whole(Source::Position, &[place as i32]);
                            run.step(clock)?;
                            run.output(*next)
                        }
                    };
                    let id = pick(file, logits)?;
                    if file.stop.contains(&id) {
                        break;
                    }
                    tokens.push(id as i32);
                }
                if file.exactly && tokens.len() != file.max {
                    return Err(Fault::Invalid(Invalid::Count {
                        what: "tokens of an answer",
                        expected: file.max,
                        found: tokens.len(),
                    }));
                }
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<Answer<'_>, Fault> {
        let Staged {
            decoder,
            run,
            x,
            tokens,
            chunk,
            answer,
            action,
            units,
            ..
        } = self;
        let run: &Run = run;
        let output = |place| run.output(place);
        let raw = Raw {
            output: &output,
            sample: x,
            tokens,
        };
        let width = action.as_ref().map_or(1, |(file, _, _)| file.names.len());
        decoder.read(&raw, chunk, width, answer)?;
        let likeliest = decoder.likeliest(&raw);
        if let Some((_, normaliser, post)) = action {
            if decoder.is_normalised() {
                for row in chunk.chunks_exact_mut(width.max(1)) {
                    for (at, value) in row.iter_mut().enumerate() {
                        *value = normaliser.restore(at, *value);
                    }
                }
            }
            post.run(chunk, width, units)?;
        }
        Ok(Answer {
            chunk,
            sentence: answer,
            likeliest,
        })
    }
}

fn feed_tokens(run: &mut Run, tokens: &crate::policy::prompt::Tokens) {
    run.feed_whole(Source::Ids, &tokens.ids);
    run.feed_whole(Source::Mask, &tokens.mask);
    run.feed_whole(Source::Used, &[tokens.used as i32]);
}
