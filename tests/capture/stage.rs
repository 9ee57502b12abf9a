// SPDX-License-Identifier: Apache-2.0
//! What stands behind a camera in the pipeline, and what a picture costs on the way there.

use crate::pictures::{judge, judged, percentile, told};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tendon::core::camera::Health;
use tendon::core::units::MS;
use tendon::ports::Frame;
use tendon::runtime::capture::{Allocated, CaptureIo, ToPage, ToPolicy};
use tendon::runtime::clock;
use tendon::runtime::reel::{Recent, Reel};
use tendon::sync::mailbox;

/// What a picture costs beyond its decoding, at most; see [`judged`].
pub const BEYOND_NS: u64 = 200_000;
/// Time between two pictures where that is measured.
pub const OFTEN_NS: u64 = 8 * MS;
/// The one that paces the policy: up to the thread that waits for its frames, and the page.
pub struct Stage {
    pub health: Health,
    /// For decoding alone.
    pub alone: Frame,
    pub io: CaptureIo,
    inference: Option<std::thread::JoinHandle<u64>>,
}

impl Stage {
    pub fn new([width, height]: [usize; 2], noisy: bool) -> Stage {
        let black = || Frame::black(width, height);
        let (frames, mut taken) = mailbox::mailbox(&Recent::new());
        let (shown, _) = triple_buffer::triple_buffer(&Recent::new());
        let ending: Arc<AtomicBool> = Arc::default();
        let ended = Arc::clone(&ending);
        // Waits as inference does, so that it has to be woken.
        let inference = std::thread::spawn(move || {
            let mut count = 0;
            while !ended.load(Ordering::Relaxed) {
                let deadline = clock::now().plus_ns(50 * MS);
                count += u64::from(taken.wait_until(deadline, clock::now).is_some());
            }
            count
        });
        Stage {
            health: judge([width, height], noisy),
            alone: black(),
            io: CaptureIo {
                reel: Reel::of_last(&black()),
                policy: ToPolicy::Paces(frames),
                shown: Some(ToPage::new(shown)),
                told: told(),
                allocated: Allocated::default(),
                ending,
            },
            inference: Some(inference),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.io.ending.store(true, Ordering::Relaxed);
        let taken = self.inference.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(taken, Some(Ok(1..))), "inference saw nothing");
        }
    }
}

/// Times of pictures from where they came to where they were handed over, and of decoding alone.
#[derive(Default)]
pub struct Round {
    whole_ns: Vec<u64>,
    decoding_ns: Vec<u64>,
    beyond_ns: Vec<u64>,
    /// The most that one frame cost.
    pub allocated: u64,
}

impl Round {
    pub fn len(&self) -> usize {
        self.whole_ns.len()
    }

    /// One more picture.
    pub fn took(&mut self, whole_ns: u64, decoding_ns: u64, allocated: u64) {
        self.whole_ns.push(whole_ns);
        self.decoding_ns.push(decoding_ns);
        self.beyond_ns.push(whole_ns.saturating_sub(decoding_ns));
        self.allocated = self.allocated.max(allocated);
    }

    /// That was all of them.
    pub fn sorted(mut self) -> Round {
        for each in [
            &mut self.whole_ns,
            &mut self.decoding_ns,
            &mut self.beyond_ns,
        ] {
            each.sort_unstable();
        }
        self
    }

    /// Of what they took beyond decoding.
    pub fn beyond_ms(&self, share: f64) -> f64 {
        percentile(&self.beyond_ns, share)
    }

    /// What is judged of what they took beyond decoding.
    pub fn beyond_judged_ns(&self) -> u64 {
        let at = (self.beyond_ns.len() as f64 * judged()) as usize;
        self.beyond_ns.get(at).copied().unwrap_or(u64::MAX)
    }
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pictures, p50 and p99 in ms:", self.whole_ns.len())?;
        for (what, times) in [
            ("frame to hand-over", &self.whole_ns),
            ("decoding alone", &self.decoding_ns),
            ("beyond decoding", &self.beyond_ns),
        ] {
            let (p50, p99) = (percentile(times, 0.5), percentile(times, 0.99));
            write!(f, " {what} {p50:.3} {p99:.3},")?;
        }
        write!(f, " at most {} allocations a frame", self.allocated)
    }
}
