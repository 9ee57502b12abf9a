// SPDX-License-Identifier: Apache-2.0
//! What the threads count, and anyone reads.

use crate::operator::Count;
use crate::runtime::cameras::Watched;
use crate::runtime::health::Health;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Counters that threads own and anyone reads.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // Each name is the whole story; docs/operating.md lists them.
pub struct Counters {
    pub link_faults: Arc<AtomicU64>,
    pub emergency_stop: Arc<AtomicBool>,
    pub interventions: Arc<AtomicU64>,
    pub slowed: Arc<AtomicU32>,
    pub derated: Arc<AtomicU32>,
    pub takeovers_refused: Arc<AtomicU64>,
    pub deadman_refused: Arc<AtomicU64>,
    pub governor_allocations: Arc<AtomicU64>,
    pub control_allocations: Arc<AtomicU64>,
    pub egress_allocations: Arc<AtomicU64>,
    pub health: Arc<Mutex<Health>>,
    pub chunks_refused: Arc<AtomicU64>,
    pub inference_faults: Arc<AtomicU64>,
    pub inference_restarts: Arc<AtomicU64>,
    pub cameras: Arc<Vec<Watched>>,
    pub frames_apart: Arc<AtomicU64>,
    pub skew_widest_ns: Arc<AtomicU64>,
    pub states_refused: Arc<AtomicU64>,
    pub instructed: Arc<AtomicBool>,
    pub mode: Arc<AtomicU8>,
}

impl Counters {
    /// What was refused, failed or was started again, for who looks.
    #[must_use]
    pub fn faults(&self) -> Vec<Count> {
        let of = |name, help, cell: &AtomicU64| Count {
            name,
            help,
            value: cell.load(Ordering::Relaxed),
        };
        let mut all = vec![
            of(
                "link_faults",
                "Commands that the link did not take.",
                &self.link_faults,
            ),
            of(
                "states_refused",
                "Frames of the motor controller that were refused.",
                &self.states_refused,
            ),
            of(
                "takeovers_refused",
                "Frames of a person's device that were refused.",
                &self.takeovers_refused,
            ),
            of(
                "deadman_refused",
                "Frames of a deadman switch over the link that were refused.",
                &self.deadman_refused,
            ),
            of(
                "chunks_refused",
                "Chunks that the scheduler did not take.",
                &self.chunks_refused,
            ),
            of(
                "inference_faults",
                "Times that the policy failed or was refused its input, since its process began.",
                &self.inference_faults,
            ),
            of(
                "inference_restarts",
                "Times that the inference process had to be started again.",
                &self.inference_restarts,
            ),
            of(
                "pictures_apart",
                "Pictures without one of their moment from another camera, since the policy's process began.",
                &self.frames_apart,
            ),
        ];
        all.extend(self.pictures());
        all
    }

    /// Of all cameras' threads, for good pictures.
    #[must_use]
    pub fn capture_allocations(&self) -> u64 {
        let counts = self.cameras.iter().map(Watched::counts);
        counts.map(|counts| counts.allocations).sum()
    }

    /// What came of pictures that the policy was not given, of all cameras.
    fn pictures(&self) -> [Count; 6] {
        let sum = |of: fn(&Watched) -> u64| -> u64 { self.cameras.iter().map(of).sum() };
        [
            (
                "pictures_refused",
                "Pictures that were dropped for what they are, since the policy's process began.",
                sum(|camera| camera.refused.load(Ordering::Relaxed)),
            ),
            (
                "pictures_missing",
                "Pictures that a camera numbered and that did not come, since the policy's process began.",
                sum(|camera| camera.counts().missing),
            ),
            (
                "pictures_stale",
                "Pictures that waited and were passed over for a newer one, since the policy's process began.",
                sum(|camera| camera.counts().stale),
            ),
            (
                "pictures_flagged",
                "Pictures that a camera's driver marked as broken, since the policy's process began.",
                sum(|camera| camera.counts().flagged),
            ),
            (
                "camera_restarts",
                "Times that a camera had to be opened again, since the policy's process began.",
                sum(|camera| camera.counts().starts.saturating_sub(1)),
            ),
            (
                "capture_allocations",
                "Heap allocations for good pictures, from the camera to the policy, since the policy's process began.",
                self.capture_allocations(),
            ),
        ]
        .map(|(name, help, value)| Count { name, help, value })
    }

    /// Capture time of the newest good picture of the policy's camera; 0 before the first.
    #[must_use]
    pub fn newest_frame_ns(&self) -> u64 {
        let first = self.cameras.first();
        first.map_or(0, |camera| camera.newest_ns.load(Ordering::Relaxed))
    }
}
