// SPDX-License-Identifier: Apache-2.0
//! A policy of several graphs: any family's stage graph, loop and decoder, described by data ([`manifest`]).
//!
//! [`plan`] works out once what runs when and what is handed where; `run` holds the tensors; [`words`] and `feed` fill
//! them, `turns` repeats what is repeated, this file reads the action. [`bundle`] opens a folder and proves it with its fixture.
//!
//! Invariant: from observation to chunk nothing is allocated but what the engines allocate inside their run calls, and,
//! in families that have them, a prompt with the state in it and an answer in words.

pub mod bundle;
mod chance;
mod decoder;
pub mod describe;
mod feed;
pub mod fixture;
mod judge;
pub mod manifest;
pub mod onward;
pub mod plan;
mod readers;
pub mod recording;
mod run;
pub mod spread;
pub(crate) mod stats;
mod turns;
pub mod words;

use crate::policy::decode::Invalid;
use crate::policy::decode::doubt::TokenDoubt;
use crate::policy::decode::post::Steps;
use crate::policy::normalise::Normaliser;
use crate::policy::parity::Parity;
use crate::policy::picture::history::History;
use crate::policy::prompt::PromptFault;
use crate::policy::staged::decoder::{Decoder, Raw};
use crate::policy::staged::feed::Eye;
use crate::policy::staged::manifest::{ActionFile, StagedFile};
use crate::policy::staged::onward::{Onward, Running};
use crate::policy::staged::plan::Place;
use crate::policy::staged::recording::Recording;
use crate::policy::staged::run::{Run, Seen};
use crate::policy::staged::spread::{Spread, in_units};
use crate::policy::staged::turns::Turns;
use crate::policy::staged::words::{Speech, Words};
use crate::ports::EngineFault;
use rand_pcg::Pcg64Mcg;

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
    /// How unsure it is, 0 to 1, the worse of two: the largest entropy of its tokens as a part of the largest possible, and
    /// how far its answers to this observation lie apart. `None` if it tells neither.
    pub doubt: Option<f32>,
    /// How far they lie apart, by joint, in units; empty if it does not tell.
    pub spread: &'a [f32],
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
    /// An engine failed.
    #[error("engine: {0}")]
    Engine(#[from] EngineFault),
    /// What came out is no action.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// A bundle of several stages, loaded and proven.
pub struct Staged {
    name: String,
    hash: crate::policy::folder::Hash,
    file: StagedFile,
    files: Vec<(String, u64)>,
    run: Run,
    eyes: Vec<Eye>,
    speech: Speech,
    sentence: Option<String>,
    /// Tokens of the prompt that are not padding.
    used: usize,
    state: Option<(Steps, Normaliser)>,
    state_history: Option<History>,
    /// State in units, after the manifest's own operations; and normalised.
    units: Vec<f32>,
    normalised: Vec<f32>,
    turns: Turns,
    /// Where an engine that runs the loop whole leaves the sample.
    denoised: Option<Place>,
    onward: Option<Onward>,
    spread: Option<Spread>,
    x: Vec<f32>,
    /// First the beginning, then one for each noisy step.
    noise: Vec<f32>,
    dice: Pcg64Mcg,
    seed: Option<u64>,
    tokens: Vec<i32>,
    /// The worst of the loop's tokens.
    token_doubt: Option<TokenDoubt>,
    decoder: Decoder,
    action: Option<(ActionFile, Normaliser, Steps)>,
    chunk: Vec<f32>,
    answer: String,
    parity: Parity,
    /// What it is shown and answers, where that is kept.
    recording: Option<Box<Recording>>,
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

    /// How many tensors go from stage to stage where they are computed, never seen by the host.
    #[must_use]
    pub fn chained(&self) -> usize {
        self.run.borrowed()
    }

    /// Whether an engine runs the denoising loop whole, as one run of its stage.
    #[must_use]
    pub fn loops_whole(&self) -> bool {
        self.denoised.is_some()
    }

    /// The two in words, if there is something to say.
    #[must_use]
    pub fn on_device(&self) -> Option<String> {
        let chained = self.chained();
        let tensors = (chained > 0).then(|| format!("{chained} tensors handed on where they are"));
        let whole = self.loops_whole().then(|| "its loop run whole".to_owned());
        let words: Vec<String> = tensors.into_iter().chain(whole).collect();
        (!words.is_empty()).then(|| words.join(", "))
    }

    /// Nanoseconds of each stage in the last run that was given a clock, order of the manifest. A stage whose outputs stay where
    /// they are computed is not waited for: its time is then in that of a later one.
    #[must_use]
    pub fn stage_ns(&self) -> &[u64] {
        &self.run.stage_ns
    }

    /// How often each stage ran in the last run, order of the manifest.
    #[must_use]
    pub fn stage_runs(&self) -> &[u32] {
        &self.run.stage_runs
    }

    /// From now on the inputs of every run of a stage are kept: what a quantiser is calibrated on. Allocates at each run. Not
    /// for stages that are chained: what they take from one another is not here.
    fn keep_inputs(&mut self) {
        self.run.seen = Some(Seen::default());
    }

    /// The chunk of the last run: `[horizon][names]` in units.
    #[must_use]
    pub fn chunk(&self) -> &[f32] {
        &self.chunk
    }

    /// How far its answers of the last run lay apart, by joint, in units; empty if it does not tell.
    #[must_use]
    pub fn spread(&self) -> &[f32] {
        self.spread.as_ref().map_or(&[], Spread::joints)
    }

    /// Numbers of noise of one observation: the beginning of the loop, then each noisy step. 0 without such a loop.
    #[must_use]
    pub fn noise_len(&self) -> usize {
        self.noise.len()
    }

    /// A new episode: histories, rings, memories and what the action's operations remember are empty.
    pub fn reset(&mut self) {
        self.record_reset();
        self.run.reset();
        if let Some(onward) = &mut self.onward {
            onward.reset();
        }
        if let Some(history) = &mut self.state_history {
            history.reset();
        }
        for (history, _) in self.eyes.iter_mut().filter_map(|eye| eye.history.as_mut()) {
            history.reset();
        }
        if let Some((_, _, post)) = &mut self.action {
            post.reset();
        }
        if let Some(spread) = &mut self.spread {
            spread.reset();
        }
    }

    /// Whether a plan goes on from the one that is followed.
    #[must_use]
    pub fn plans_on(&self) -> bool {
        self.onward.is_some()
    }

    /// The next run's plan has number `chunk_id` (not 0), and goes on from the one that is followed, if any. Nothing for a
    /// policy that does not plan on.
    pub fn plan_on(&mut self, chunk_id: u32, running: Option<Running>) {
        if let Some(onward) = &mut self.onward {
            onward.ask(chunk_id, running);
        }
    }

    /// Actions of the last plan that are the old plan's, and what follows was planned to follow them (`trained`).
    #[must_use]
    pub fn held(&self) -> Option<usize> {
        self.onward.as_ref().and_then(Onward::trained_on)
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
        if self.sentence.is_none() && !matches!(self.speech.words(), Words::None) {
            return Err(Fault::NoInstruction);
        }
        if let Some(recording) = &mut self.recording {
            recording.open();
        }
        self.feed_state(observation)?;
        self.feed_pictures(observation)?;
        self.feed_prompt()?;
        self.draw(noise)?;
        if let Some(onward) = &mut self.onward {
            let normaliser = self.action.as_ref().map(|(_, normaliser, _)| normaliser);
            onward.begin(&mut self.run, &self.units, normaliser);
        }
        self.run.begin(clock)?;
        self.wander(clock)?;
        self.turn(clock)?;
        if let Some(onward) = &mut self.onward {
            onward.keep(&self.x, &self.units);
        }
        let (likeliest, doubt) = self.read()?;
        self.keep(observation);
        Ok(Answer {
            chunk: &self.chunk,
            sentence: &self.answer,
            likeliest,
            doubt,
            spread: self.spread(),
        })
    }

    /// Whether its answers say how sure it was.
    #[must_use]
    pub fn tells_doubt(&self) -> bool {
        self.file.tells_doubt()
    }

    /// See [`Engine::lost`](crate::ports::Engine::lost).
    #[must_use]
    pub fn lost(&self) -> bool {
        self.run.lost()
    }

    /// Reads the action; returns the probability of the least likely token, and the doubt.
    fn read(&mut self) -> Result<(Option<f32>, Option<f32>), Fault> {
        let Staged {
            decoder,
            run,
            x,
            tokens,
            chunk,
            answer,
            action,
            units,
            token_doubt,
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
        let token = decoder.doubt(&raw).or(*token_doubt);
        if let Some((_, normaliser, post)) = action {
            let normaliser = decoder.is_normalised().then_some(&*normaliser);
            in_units(chunk, width, normaliser, post, units)?;
        }
        self.compare()?;
        let entropy = token.map(|token| token.entropy);
        let apart = self.spread.as_ref().map(Spread::doubt);
        let doubt = entropy.into_iter().chain(apart).reduce(f32::max);
        Ok((token.map(|token| token.likeliest), doubt))
    }
}
