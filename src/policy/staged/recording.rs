// SPDX-License-Identifier: Apache-2.0
//! What a policy was shown and what it answered, kept in the form of a parity fixture ([`super::fixture`]): observations of
//! the robot's own, for calibrating a quantiser and for judging what it made.
//!
//! Whole episodes are kept in their order, so that histories, rings and memories come out again. Allocates at each run.

use crate::config::problem::Problem;
use crate::policy::staged::{Observation, Staged};
use safetensors::tensor::{Dtype, SafeTensorError, TensorView};
use serde_json::json;
use std::path::{Path, PathBuf};

/// A recording is no longer than this; what follows is not kept.
pub(super) const BYTES_MAX: usize = 1 << 30;

/// Observations and answers of a policy, one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// By camera: pictures, and 1 where there was none.
    pictures: Vec<(Vec<u8>, Vec<u8>)>,
    states: Vec<f32>,
    noise: Vec<f32>,
    actions: Vec<f32>,
    /// Since the first.
    time_us: Vec<i32>,
    new_episode: Vec<u8>,
    sentences: Vec<String>,
    answers: Vec<String>,
    /// Capture time of the first observation.
    began_ns: u64,
    /// The next observation begins an episode.
    is_new: bool,
    /// An observation was shown and is not answered yet.
    is_open: bool,
    /// One was never answered: what follows of its episode would come out otherwise without it.
    is_broken: bool,
}

impl Recording {
    /// Observations that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sentences.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sentences.is_empty()
    }

    fn is_full(&self) -> bool {
        let pictures: usize = self.pictures.iter().map(|(bytes, _)| bytes.len()).sum();
        let numbers = self.states.len() + self.noise.len() + self.actions.len();
        pictures + 4 * numbers > BYTES_MAX
    }

    /// The next observation is shown.
    pub(super) fn open(&mut self) {
        self.is_broken |= self.is_open;
        self.is_open = true;
    }
}

/// Where the sentences of a recording in `path` are.
///
/// # Errors
/// A [`Problem`] if that is `path` itself.
pub fn beside(path: &Path) -> Result<PathBuf, Problem> {
    let beside = path.with_extension("json");
    if beside == path {
        return Err(Problem {
            at: path.display().to_string(),
            expected: "another ending than json, which is that of the sentences beside it".into(),
            found: "json".into(),
        });
    }
    Ok(beside)
}

impl Staged {
    /// From now on what it is shown and what it answers is kept.
    ///
    /// # Errors
    /// A [`Problem`] for a policy that goes on from the plan that is followed: a fixture has no word for that plan.
    pub fn record(&mut self) -> Result<(), Problem> {
        if self.plans_on() {
            return Err(Problem {
                at: "tendon.loop.rtc".into(),
                expected: "a policy whose answer hangs on the observation alone, to be recorded"
                    .into(),
                found: "one that goes on from the plan that is followed".into(),
            });
        }
        self.recording = Some(Box::new(Recording {
            is_new: true,
            ..Recording::default()
        }));
        Ok(())
    }

    /// What was kept since [`Staged::record`].
    #[must_use]
    pub fn recording(&self) -> Option<&Recording> {
        self.recording.as_deref()
    }

    /// What follows is another episode.
    pub(super) fn record_reset(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.is_new = true;
            (recording.is_open, recording.is_broken) = (false, false);
        }
    }

    /// Keeps an observation with the answer that was just given to it.
    pub(super) fn keep(&mut self, seen: &Observation<'_>) {
        let Some(recording) = self.recording.as_deref_mut() else {
            return;
        };
        recording.is_open = false;
        if recording.is_full() || recording.is_broken {
            return;
        }
        if recording.is_empty() {
            recording.began_ns = seen.captured_ns;
            recording
                .pictures
                .resize_with(seen.pictures.len(), Default::default);
        }
        let since_us = seen.captured_ns.saturating_sub(recording.began_ns) / 1_000;
        // 35 minutes.
        let Ok(since_us) = i32::try_from(since_us) else {
            return;
        };
        recording.time_us.push(since_us);
        recording
            .new_episode
            .push(u8::from(core::mem::take(&mut recording.is_new)));
        for ((eye, picture), (bytes, missing)) in self
            .eyes
            .iter()
            .zip(seen.pictures)
            .zip(&mut recording.pictures)
        {
            let [width, height] = eye.feed.source();
            match picture {
                Some(picture) => bytes.extend_from_slice(picture),
                None => bytes.resize(bytes.len() + width * height * 3, 0),
            }
            missing.push(u8::from(picture.is_none()));
        }
        recording.states.extend_from_slice(seen.state);
        recording.noise.extend_from_slice(&self.noise);
        recording.actions.extend_from_slice(&self.chunk);
        recording
            .sentences
            .push(self.sentence.clone().unwrap_or_default());
        recording.answers.push(self.answer.clone());
    }

    /// Writes what was kept: `path` as safetensors, and the sentences beside it, with the ending `json`.
    ///
    /// # Errors
    /// A [`Problem`] if nothing was kept or it cannot be written.
    pub fn write_recording(&self, path: &Path) -> Result<usize, Problem> {
        let wrong = |found: String| Problem {
            at: path.display().to_string(),
            expected: "a recording of at least one answer, to be written".into(),
            found,
        };
        let beside = beside(path)?;
        let Some(recording) = self.recording().filter(|kept| !kept.is_empty()) else {
            return Err(wrong("no answer".into()));
        };
        let frames = recording.len();
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        let cameras = self.file.cameras.iter().zip(&self.eyes);
        for ((camera, eye), (bytes, missing)) in cameras.zip(&recording.pictures) {
            let [width, height] = eye.feed.source();
            let key = format!("camera.{}", camera.role);
            if missing.contains(&1) {
                let key = format!("{key}.missing");
                tensors.push((key, Dtype::U8, vec![frames], missing.clone()));
            }
            tensors.push((
                key,
                Dtype::U8,
                vec![frames, height, width, 3],
                bytes.clone(),
            ));
        }
        let rows = [
            ("state", &recording.states),
            ("noise", &recording.noise),
            ("action", &recording.actions),
        ];
        for (key, values) in rows.into_iter().filter(|(_, values)| !values.is_empty()) {
            let mut shape = vec![frames, values.len() / frames];
            if let Some((action, _, _)) = self.action.as_ref().filter(|_| key == "action") {
                shape = vec![frames, action.horizon, action.names.len()];
            }
            let bytes = values.iter().flat_map(|value| value.to_le_bytes());
            tensors.push((key.into(), Dtype::F32, shape, bytes.collect()));
        }
        let times = recording.time_us.iter().flat_map(|time| time.to_le_bytes());
        tensors.push(("time_us".into(), Dtype::I32, vec![frames], times.collect()));
        tensors.push((
            "new_episode".into(),
            Dtype::U8,
            vec![frames],
            recording.new_episode.clone(),
        ));
        let views: Vec<(&str, TensorView<'_>)> = tensors
            .iter()
            .map(|(key, dtype, shape, bytes)| {
                Ok((key.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?))
            })
            .collect::<Result<_, SafeTensorError>>()
            .map_err(|error| wrong(error.to_string()))?;
        let bytes = safetensors::serialize(views, None);
        let bytes = bytes.map_err(|error| wrong(error.to_string()))?;
        std::fs::write(path, bytes).map_err(|error| wrong(error.to_string()))?;
        let words = if self.action.is_none() {
            json!({"sentences": recording.sentences, "answers": recording.answers})
        } else {
            json!({"sentences": recording.sentences})
        };
        std::fs::write(&beside, format!("{words}\n")).map_err(|error| wrong(error.to_string()))?;
        Ok(frames)
    }
}
