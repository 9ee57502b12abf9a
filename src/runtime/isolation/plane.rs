// SPDX-License-Identifier: Apache-2.0
//! What lies where in the memory that the two processes share.

use crate::config::Config;
use crate::config::camera::{CameraConfig, CameraSource};
use crate::core::limits::CHUNKS_QUEUED_MAX;
use crate::ports::Counts;
use crate::runtime::isolation::codec::{
    FOLLOWED_WORDS, FRAME_WORDS, INSIGHT_WORDS, MADE_WORDS, SAMPLE_WORDS, STATE_WORDS,
};
use crate::runtime::places;
use crate::sync::mapping::Mapping;
use crate::sync::shared::{self, newest_words, queue_words};
use std::ops::{Deref, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A part of the shared memory.
#[derive(Clone, Debug)]
pub struct Part {
    memory: Arc<Mapping>,
    range: Range<usize>,
}

impl Deref for Part {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        self.memory
            .words()
            .get(self.range.clone())
            .unwrap_or_default()
    }
}

/// The newest of something.
pub type Writer = shared::Writer<Part>;
/// See [`Writer`].
pub type Reader = shared::Reader<Part>;
/// Each of something, in order.
pub type Producer = shared::Producer<Part>;
/// See [`Producer`].
pub type Consumer = shared::Consumer<Part>;

/// Numbers that the inference process keeps up to date, by their place.
#[derive(Clone, Copy, Debug)]
pub enum Tally {
    /// When its ferry last came round.
    Ferry,
    /// When its inference thread last did.
    Inference,
    /// When the one of its capture threads did that was longest away.
    Capture,
    /// See [`Ends::faults`](crate::runtime::mind::Ends::faults).
    Faults,
    /// Pictures that were not of one moment.
    Apart,
    /// Widest skew.
    Skew,
    /// See [`Inference::obeys_from`](crate::runtime::inference::Inference::obeys_from).
    ObeysFrom,
    /// Of camera `.0`: capture time of its newest good picture.
    Newest(usize),
    /// Pictures of it that were refused.
    Refused(usize),
    /// Code of what is wrong with it.
    Fault(usize),
    /// Of camera `.0`: number `.1` of the row of [`Counts`].
    Counted(usize, usize),
    /// Of camera `.0`: word `.1` of what it shows ([`Newest`](crate::runtime::places::Newest)).
    View(usize, usize),
}

const TALLIES: usize = 7;
const TALLIES_OF_CAMERA: usize = 3 + Counts::ROW + places::WORDS;

impl Tally {
    fn at(self) -> usize {
        let of = |camera: usize, which: usize| TALLIES + camera * TALLIES_OF_CAMERA + which;
        match self {
            Tally::Ferry => 0,
            Tally::Inference => 1,
            Tally::Capture => 2,
            Tally::Faults => 3,
            Tally::Apart => 4,
            Tally::Skew => 5,
            Tally::ObeysFrom => 6,
            Tally::Newest(camera) => of(camera, 0),
            Tally::Refused(camera) => of(camera, 1),
            Tally::Fault(camera) => of(camera, 2),
            Tally::Counted(camera, which) => of(camera, 3 + which),
            Tally::View(camera, which) => of(camera, 3 + Counts::ROW + which),
        }
    }

    /// Reads it from the tallies' part. Acquire: what was told before it is seen.
    #[must_use]
    pub fn get(self, tallies: &Part) -> u64 {
        let word = tallies.get(self.at());
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Writes it.
    pub fn set(self, tallies: &Part, value: u64) {
        if let Some(word) = tallies.get(self.at()) {
            word.store(value, Ordering::Release);
        }
    }
}

/// Samples that may wait: one a chunk.
const SAMPLES: usize = 16;
/// States that may wait: 320 ms of them at 200 Hz.
const STATES: usize = 64;

/// Where everything stands; the same at both ends, as it follows from the deployment.
#[derive(Clone, Debug)]
struct Layout {
    tallies: Range<usize>,
    followed: Range<usize>,
    insight: Range<usize>,
    picture: Range<usize>,
    samples: Range<usize>,
    states: Range<usize>,
    chunks: Range<usize>,
    /// Pictures of cameras that are reached over the link; `None` for the others.
    handed: Vec<Option<Range<usize>>>,
    words: usize,
}

impl Layout {
    fn of(config: &Config) -> Layout {
        let all: Vec<&CameraConfig> = config.cameras().collect();
        let mut words = 0;
        let mut next = |len: usize| {
            let from = words;
            words += len;
            from..words
        };
        let frame =
            |camera: &CameraConfig| FRAME_WORDS + (camera.width * camera.height * 3).div_ceil(8);
        let mut layout = Layout {
            tallies: next(TALLIES + TALLIES_OF_CAMERA * all.len()),
            followed: next(newest_words(FOLLOWED_WORDS)),
            insight: next(newest_words(INSIGHT_WORDS)),
            picture: next(newest_words(frame(&config.camera))),
            samples: next(queue_words(SAMPLE_WORDS, SAMPLES)),
            states: next(queue_words(STATE_WORDS, STATES)),
            chunks: next(queue_words(MADE_WORDS, CHUNKS_QUEUED_MAX)),
            handed: Vec::new(),
            words: 0,
        };
        for camera in all {
            let far = is_far(camera).then(|| next(newest_words(frame(camera))));
            layout.handed.push(far);
        }
        layout.words = words;
        layout
    }
}

/// Words of the memory that a deployment needs.
#[must_use]
pub fn words(config: &Config) -> usize {
    Layout::of(config).words
}

/// Whether a camera is reached over the link: the control process hands its pictures on.
#[must_use]
pub fn is_far(camera: &CameraConfig) -> bool {
    matches!(camera.source, CameraSource::Link)
}

/// The control process's ends.
#[derive(Debug)]
pub struct Near {
    /// See [`Tally`].
    pub tallies: Part,
    /// The plan that is followed.
    pub followed: Writer,
    /// Joint states.
    pub states: Producer,
    /// Pictures of cameras that are reached over the link; taken by their threads.
    pub handed: Vec<Option<Writer>>,
    /// What else the policy said.
    pub insight: Reader,
    /// What the pacing camera sees.
    pub picture: Reader,
    /// A chunk's figures.
    pub samples: Consumer,
    /// Chunks.
    pub chunks: Consumer,
}

/// The inference process's ends: the other ones of [`Near`].
#[derive(Debug)]
#[allow(missing_docs)] // Named as in `Near`.
pub struct Far {
    pub tallies: Part,
    pub followed: Reader,
    pub states: Consumer,
    pub handed: Vec<Option<Reader>>,
    pub insight: Writer,
    pub picture: Writer,
    pub samples: Producer,
    pub chunks: Producer,
}

fn parts(config: &Config, memory: Mapping) -> (Layout, impl Fn(&Range<usize>) -> Part) {
    let memory = Arc::new(memory);
    let part = move |range: &Range<usize>| Part {
        memory: Arc::clone(&memory),
        range: range.clone(),
    };
    (Layout::of(config), part)
}

impl Near {
    /// Over memory that is all zero.
    #[must_use]
    pub fn new(config: &Config, memory: Mapping) -> Near {
        let (layout, part) = parts(config, memory);
        let handed = layout.handed.iter().map(Option::as_ref);
        Near {
            tallies: part(&layout.tallies),
            followed: shared::writer(part(&layout.followed)),
            states: shared::producer(part(&layout.states), STATE_WORDS),
            handed: handed
                .map(|range| range.map(|range| shared::writer(part(range))))
                .collect(),
            insight: shared::reader(part(&layout.insight)),
            picture: shared::reader(part(&layout.picture)),
            samples: shared::consumer(part(&layout.samples), SAMPLE_WORDS),
            chunks: shared::consumer(part(&layout.chunks), MADE_WORDS),
        }
    }
}

impl Far {
    /// Over the memory of a [`Near`] of the same deployment.
    #[must_use]
    pub fn new(config: &Config, memory: Mapping) -> Far {
        let (layout, part) = parts(config, memory);
        let handed = layout.handed.iter().map(Option::as_ref);
        Far {
            tallies: part(&layout.tallies),
            followed: shared::reader(part(&layout.followed)),
            states: shared::consumer(part(&layout.states), STATE_WORDS),
            handed: handed
                .map(|range| range.map(|range| shared::reader(part(range))))
                .collect(),
            insight: shared::writer(part(&layout.insight)),
            picture: shared::writer(part(&layout.picture)),
            samples: shared::producer(part(&layout.samples), SAMPLE_WORDS),
            chunks: shared::producer(part(&layout.chunks), MADE_WORDS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tally_has_a_place_of_its_own() {
        let alone = [
            Tally::Ferry,
            Tally::Inference,
            Tally::Capture,
            Tally::Faults,
            Tally::Apart,
            Tally::Skew,
            Tally::ObeysFrom,
        ];
        let mut found = alone.map(Tally::at).to_vec();
        for camera in 0..3 {
            let single = [
                Tally::Newest(camera),
                Tally::Refused(camera),
                Tally::Fault(camera),
            ];
            found.extend(single.map(Tally::at));
            found.extend((0..Counts::ROW).map(|which| Tally::Counted(camera, which).at()));
            found.extend((0..places::WORDS).map(|which| Tally::View(camera, which).at()));
        }
        found.sort_unstable();
        let all: Vec<usize> = (0..TALLIES + 3 * TALLIES_OF_CAMERA).collect();
        assert_eq!(found, all);
    }
}
