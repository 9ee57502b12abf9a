// SPDX-License-Identifier: Apache-2.0
//! The parity fixture of a staged bundle: episodes of observations with the answers that the reference gave.
//!
//! A safetensors file: `camera.ROLE` u8 `[frames][height][width][3]` as the camera gives it, `camera.ROLE.missing` u8
//! `[frames]` where it may be missing, `state` f32 `[frames][names]` in units, `noise` f32 `[frames][noise_len]`, `time_ms`
//! or `time_us` i32 `[frames]`, `new_episode` u8 `[frames]` and `action` f32 `[frames][horizon][names]` in units, all operations done.
//! Beside it the sentences, and a planner's answers, as JSON.

use crate::config::problem::Problem;
use crate::policy::folder::{Folder, SIDE_FILE_BYTES_MAX};
use crate::policy::manifest::ParityFile;
use crate::policy::parity::{Columns, Parity};
use crate::policy::staged::recording::{BYTES_MAX, beside};
use crate::policy::staged::{Fault, Observation, Staged};
use crate::policy::tensors::TensorFile;
use crate::ports::EngineFault;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Time between two frames where the fixture does not say.
const FRAME_NS: u64 = 100_000_000;
/// Most runs of each kind before the first that is judged, with a new sentence and without: with the stages of the load, new, joined,
/// and one to spare.
const REHEARSALS_MAX: usize = 4;

/// What a policy made of one observation of its own fixture. Its chunk, its spread and its maps are the policy's still.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rehearsed<'a> {
    /// Which observation.
    pub frame: usize,
    /// What it was told.
    pub sentence: &'a str,
    /// How unsure it was, 0 to 1, if it tells.
    pub doubt: Option<f32>,
}

#[derive(Deserialize)]
struct Sentences {
    sentences: Vec<String>,
    #[serde(default)]
    answers: Vec<String>,
}

impl Sentences {
    fn parse(name: &str, text: &[u8]) -> Result<Sentences, Problem> {
        serde_json::from_slice(text).map_err(|error| Problem {
            at: name.into(),
            expected: "{\"sentences\": [...]}".into(),
            found: error.to_string(),
        })
    }
}

/// A fixture in memory.
pub(crate) struct Fixture {
    name: String,
    frames: usize,
    pictures: Vec<Vec<u8>>,
    missing: Vec<Vec<u8>>,
    states: Vec<f32>,
    noise: Vec<f32>,
    time_ns: Vec<u64>,
    new_episode: Vec<u8>,
    actions: Vec<f32>,
    words: Sentences,
}

impl Fixture {
    pub(crate) fn read(folder: &Folder, staged: &Staged) -> Result<Fixture, Vec<Problem>> {
        let parity = &staged.file.parity;
        let one = |problem| vec![problem];
        let bytes = folder
            .read("tendon.parity.file", &parity.file, SIDE_FILE_BYTES_MAX)
            .map_err(one)?;
        let text = folder
            .read(
                "tendon.parity.sentences",
                &parity.sentences,
                SIDE_FILE_BYTES_MAX,
            )
            .map_err(one)?;
        let words = Sentences::parse(&parity.sentences, &text).map_err(one)?;
        let names = [&parity.file[..], &parity.sentences];
        Fixture::parse(names, &bytes, words, parity.frames, staged)
    }

    /// What was recorded, if something is named, or the bundle's own.
    pub(crate) fn choose(
        recorded: Option<&Path>,
        folder: &Folder,
        staged: &Staged,
    ) -> Result<Fixture, Vec<Problem>> {
        match recorded {
            Some(path) => Fixture::recorded(path, staged),
            None => Fixture::read(folder, staged),
        }
    }

    /// One that was recorded of this policy ([`super::recording`]): `path`, and its sentences beside it. No hash vouches for it.
    fn recorded(path: &Path, staged: &Staged) -> Result<Fixture, Vec<Problem>> {
        let read = |path: &Path| {
            let wrong = |found: String| Problem {
                at: path.display().to_string(),
                expected: format!(
                    "a recording of at most {} MiB, its sentences beside it with the ending json",
                    BYTES_MAX >> 20
                ),
                found,
            };
            let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
            let mut bytes = Vec::new();
            // What was recorded ends with the observation that filled it, and has a header.
            let most = (BYTES_MAX + BYTES_MAX / 8) as u64;
            file.take(most + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| wrong(error.to_string()))?;
            if bytes.len() as u64 > most {
                return Err(wrong("more".into()));
            }
            Ok((path.display().to_string(), bytes))
        };
        let one = |problem| vec![problem];
        let (name, bytes) = read(path).map_err(one)?;
        let (sentences, text) = read(&beside(path).map_err(one)?).map_err(one)?;
        let words = Sentences::parse(&sentences, &text).map_err(one)?;
        let frames = words.sentences.len();
        Fixture::parse([&name, &sentences], &bytes, words, frames, staged)
    }

    /// `names` are of the tensors' file and of the sentences', for messages.
    fn parse(
        names: [&str; 2],
        bytes: &[u8],
        words: Sentences,
        frames: usize,
        staged: &Staged,
    ) -> Result<Fixture, Vec<Problem>> {
        let one = |problem| vec![problem];
        let [name, beside] = names;
        let tensors = TensorFile::parse(name, bytes).map_err(one)?;
        let is_planner = staged.action.is_none();
        if frames == 0
            || words.sentences.len() != frames
            || (is_planner && words.answers.len() != frames)
        {
            return Err(one(Problem {
                at: beside.into(),
                expected: format!(
                    "{} sentences, and of a planner as many answers",
                    frames.max(1)
                ),
                found: format!("{} and {}", words.sentences.len(), words.answers.len()),
            }));
        }
        let mut pictures = Vec::new();
        let mut missing = Vec::new();
        for (camera, eye) in staged.file.cameras.iter().zip(&staged.eyes) {
            let [width, height] = eye.feed.source();
            let key = format!("camera.{}", camera.role);
            pictures.push(
                tensors
                    .u8(&key, &[frames, height, width, 3])
                    .map_err(one)?
                    .to_vec(),
            );
            let key = format!("{key}.missing");
            missing.push(if tensors.has(&key) {
                tensors.u8(&key, &[frames]).map_err(one)?.to_vec()
            } else {
                vec![0; frames]
            });
        }
        let states = if staged.units.is_empty() {
            Vec::new()
        } else {
            tensors
                .f32("state", &[frames, staged.units.len()])
                .map_err(one)?
        };
        let noise = if staged.noise.is_empty() {
            Vec::new()
        } else {
            tensors
                .f32("noise", &[frames, staged.noise.len()])
                .map_err(one)?
        };
        let times = |key: &str, unit_ns: u64| {
            let times = tensors.i32(key, &[frames]).map_err(one)?;
            let ns = times.into_iter().map(|time| time.max(0) as u64 * unit_ns);
            Ok::<Vec<u64>, Vec<Problem>>(ns.collect())
        };
        let time_ns = if tensors.has("time_us") {
            times("time_us", 1_000)?
        } else if tensors.has("time_ms") {
            times("time_ms", 1_000_000)?
        } else {
            (0..frames as u64).map(|frame| frame * FRAME_NS).collect()
        };
        let new_episode = if tensors.has("new_episode") {
            tensors.u8("new_episode", &[frames]).map_err(one)?.to_vec()
        } else {
            vec![0; frames]
        };
        let actions = match &staged.action {
            None => Vec::new(),
            Some((action, _, _)) => tensors
                .f32("action", &[frames, action.horizon, action.names.len()])
                .map_err(one)?,
        };
        for (key, values) in [("state", &states), ("noise", &noise), ("action", &actions)] {
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                return Err(one(Problem {
                    at: format!("{name}: {key}"),
                    expected: "finite numbers".into(),
                    found: format!("another at {at}"),
                }));
            }
        }
        Ok(Fixture {
            name: name.into(),
            frames,
            pictures,
            missing,
            states,
            noise,
            time_ns,
            new_episode,
            actions,
            words,
        })
    }

    /// Pictures of a frame, one a camera.
    fn shown(&self, frame: usize) -> impl Iterator<Item = Option<&[u8]>> {
        let cameras = self.pictures.iter().zip(&self.missing);
        cameras.map(move |(all, missing)| {
            let size = all.len() / self.frames.max(1);
            let is_missing = missing.get(frame) == Some(&1);
            all.chunks_exact(size.max(1))
                .nth(frame)
                .filter(|_| !is_missing)
        })
    }

    /// State and capture time of a frame, with these pictures.
    fn observation<'a>(
        &'a self,
        frame: usize,
        joints: usize,
        pictures: &'a [Option<&'a [u8]>],
    ) -> Observation<'a> {
        Observation {
            captured_ns: self.time_ns.get(frame).copied().unwrap_or(0),
            pictures,
            state: self
                .states
                .get(frame * joints..(frame + 1) * joints)
                .unwrap_or_default(),
        }
    }

    /// Shows it something like the first frame until its engines do every run as the one before, first as one of a new sentence each time,
    /// then of the same: so a frame that is judged is run as the robot's will be, and nothing is left to be made when two sentences
    /// come close together. Not that frame itself: what a replay left out would be there from the last time.
    fn rehearse(&self, staged: &mut Staged) -> Result<(), EngineFault> {
        // What is kept for a quantiser is of the fixture.
        if staged.run.seen.is_some() || staged.run.is_steady() {
            return Ok(());
        }
        let dice = staged.dice.clone();
        let negative = |bytes: &[u8]| -> Vec<u8> { bytes.iter().map(|byte| !byte).collect() };
        let pictures: Vec<Option<Vec<u8>>> =
            self.shown(0).map(|shown| shown.map(negative)).collect();
        let pictures: Vec<Option<&[u8]>> = pictures.iter().map(Option::as_deref).collect();
        let noise: Option<Vec<f32>> = self
            .noise
            .get(..staged.noise.len())
            .map(|noise| noise.iter().rev().copied().collect());
        let observation = self.observation(0, staged.units.len(), &pictures);
        let mut unsteady = BTreeSet::new();
        for is_new in [true, false] {
            if is_new && !staged.run.has_instruction() {
                continue;
            }
            for _ in 0..REHEARSALS_MAX {
                if is_new {
                    staged.run.take_instruction();
                }
                staged.reset();
                // What it says of such a picture need not be an action.
                if let Err(Fault::Engine(fault)) =
                    staged.infer(&observation, noise.as_deref(), None)
                {
                    return Err(fault);
                }
                if staged.run.is_steady() {
                    break;
                }
            }
            unsteady.extend(staged.run.unsteady().map(str::to_owned));
        }
        if !unsteady.is_empty() {
            let stages: Vec<String> = unsteady.into_iter().collect();
            log::warn!(
                "{}: expected every stage to run as it will on the robot after at most {REHEARSALS_MAX} runs of each kind, found that these \
                 do not: {}; the fixture may have judged other runs of theirs, and the robot's first may take longer",
                staged.name,
                stages.join(", ")
            );
        }
        staged.dice = dice;
        Ok(())
    }

    /// Runs it through the very path that will drive the robot. `tell` is shown the policy after each frame, with the
    /// frame's sentence and answer.
    pub(crate) fn run(
        &self,
        staged: &mut Staged,
        tell: &mut dyn FnMut(&Staged, Rehearsed<'_>),
    ) -> Result<Parity, Vec<Problem>> {
        let wrong = |frame: usize, expected: String, found: String| {
            vec![Problem {
                at: format!("{} frame {frame}", self.name),
                expected,
                found,
            }]
        };
        let mut found = Vec::with_capacity(self.actions.len());
        let joints = staged.units.len();
        let noise_len = staged.noise.len();
        for frame in 0..self.frames {
            let sentence = self.words.sentences.get(frame).map_or("", String::as_str);
            if staged.sentence.as_deref() != Some(sentence) {
                staged.set_instruction(sentence).map_err(|fault| {
                    wrong(
                        frame,
                        format!("\"{sentence}\" to be understood"),
                        fault.to_string(),
                    )
                })?;
            }
            if frame == 0 {
                let rehearsed = self.rehearse(staged);
                rehearsed.map_err(|fault| wrong(frame, "an answer".into(), fault.to_string()))?;
                // Its sentence is new, so that where there are more frames both kinds of run are judged.
                if self.frames > 1 {
                    staged.run.take_instruction();
                }
            }
            if frame == 0 || self.new_episode.get(frame) == Some(&1) {
                staged.reset();
            }
            let pictures: Vec<Option<&[u8]>> = self.shown(frame).collect();
            let observation = self.observation(frame, joints, &pictures);
            let noise = self.noise.get(frame * noise_len..(frame + 1) * noise_len);
            let answer = staged
                .infer(&observation, noise, None)
                .map_err(|fault| wrong(frame, "an answer".into(), fault.to_string()))?;
            found.extend_from_slice(answer.chunk);
            let doubt = answer.doubt;
            if let Some(expected) = self.words.answers.get(frame)
                && expected != answer.sentence
            {
                return Err(wrong(
                    frame,
                    format!("\"{expected}\""),
                    format!("\"{}\"", answer.sentence),
                ));
            }
            let rehearsed = Rehearsed {
                frame,
                sentence,
                doubt,
            };
            tell(staged, rehearsed);
        }
        let (names, units, trained_range) = match &staged.action {
            None => Default::default(),
            Some((action, normaliser, _)) => {
                let range = (0..action.names.len()).map(|at| normaliser.range(at));
                (
                    &action.names[..],
                    &action.units[..],
                    range.collect::<Vec<f32>>(),
                )
            }
        };
        let columns = Columns {
            names,
            units,
            trained_range: &trained_range,
        };
        let bounds = ParityFile {
            frames: self.frames,
            file: self.name.clone(),
            ..staged.file.parity.clone()
        };
        Ok(Parity::judge(&bounds, &columns, &self.actions, &found))
    }
}
