// SPDX-License-Identifier: Apache-2.0
//! Telemetry: what each stage measured, gathered where nobody waits for it.
//!
//! Each thread of the hot path owns one bounded queue of plain [`Sample`]s; the telemetry thread drains them into
//! histograms. A full queue drops the sample and counts it: telemetry never slows what it measures.

use crate::core::schedule::ladder::Ladder;
use crate::core::units::Mono;
use crate::ports::Frame;
use crate::runtime::clock;
use crate::runtime::operations::{Desk, DeskEnds, View};
use crate::runtime::threads::Seat;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};

/// Samples a thread may be ahead of telemetry: 1024 at 200 Hz are five seconds.
const QUEUE: usize = 1024;

/// What one stage measured once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// The control loop came round.
    Tick {
        /// How late it woke.
        late_ns: u64,
        /// Whole periods lost before this one.
        missed: u64,
        /// The scheduler's ladder so far.
        ladder: Ladder,
    },
    /// A chunk was made.
    Chunk {
        /// Its number.
        chunk_id: u32,
        /// When its frame was captured.
        captured: Mono,
        /// When its frame landed in this process, decoded.
        landed: Mono,
        /// When inference took it up.
        taken: Mono,
        /// Time from then to the chunk being queued.
        inference_ns: u64,
    },
    /// A command left.
    Command {
        /// The chunk it is made of; 0 for none.
        chunk_id: u32,
        /// When it was handed to the link.
        sent: Mono,
    },
}

/// The writing end, one a thread.
#[derive(Debug)]
pub struct Tap {
    queue: rtrb::Producer<Sample>,
    dropped: u64,
}

impl Tap {
    /// Records a sample, or counts it as dropped. Never waits.
    pub fn record(&mut self, sample: Sample) {
        if self.queue.push(sample).is_err() {
            self.dropped = self.dropped.wrapping_add(1);
        }
    }
}

/// Makes a tap and the end that telemetry drains.
#[must_use]
pub fn tap() -> (Tap, rtrb::Consumer<Sample>) {
    let (queue, consumer) = rtrb::RingBuffer::new(QUEUE);
    (Tap { queue, dropped: 0 }, consumer)
}

/// Three significant digits from 1 ns to 100 s.
pub(crate) fn histogram() -> Histogram<u64> {
    // The bounds are constants that satisfy the crate's rules (1 <= low, high >= 2 low, digits <= 5).
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("constant bounds are valid")
}

/// Two significant digits from 1 us to 100 s, in a tenth of the memory: for the parts of the way.
fn coarse() -> Histogram<u64> {
    // As above.
    Histogram::new_with_bounds(1_000, 100_000_000_000, 2).expect("constant bounds are valid")
}

/// A chunk whose first command has not been seen yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    chunk_id: u32,
    landed: Mono,
    queued: Mono,
    inference_ns: u64,
}

/// Everything that was measured since the last [`Measures::clear`].
#[derive(Clone, Debug)]
pub struct Measures {
    tick_late_ns: Histogram<u64>,
    ticks: u64,
    ticks_missed: u64,
    inference_ns: Histogram<u64>,
    frame_to_command_ns: Histogram<u64>,
    overhead_ns: Histogram<u64>,
    handed_over_ns: Histogram<u64>,
    waited_ns: Histogram<u64>,
    carried_out_ns: Histogram<u64>,
    /// The policy's own time where `inference_ns` is simulated.
    really: Option<Histogram<u64>>,
    ladder: Ladder,
    /// The ladder when it was last cleared.
    ladder_before: Ladder,
    commands: u64,
    last_chunk_commanded: u32,
    waiting: heapless::Deque<Waiting, 64>,
}

impl Default for Measures {
    fn default() -> Self {
        Measures {
            tick_late_ns: histogram(),
            ticks: 0,
            ticks_missed: 0,
            inference_ns: histogram(),
            frame_to_command_ns: histogram(),
            overhead_ns: histogram(),
            handed_over_ns: coarse(),
            waited_ns: coarse(),
            carried_out_ns: coarse(),
            really: None,
            ladder: Ladder::default(),
            ladder_before: Ladder::default(),
            commands: 0,
            last_chunk_commanded: 0,
            waiting: heapless::Deque::new(),
        }
    }
}

impl Measures {
    /// Takes in one sample. Samples of one thread come in order; those of two threads may not.
    pub fn take(&mut self, sample: Sample) {
        match sample {
            Sample::Tick {
                late_ns,
                missed,
                ladder,
            } => {
                self.ladder = ladder;
                self.ticks += 1;
                self.ticks_missed += missed;
                self.tick_late_ns.saturating_record(late_ns);
            }
            Sample::Chunk {
                chunk_id,
                captured,
                landed,
                taken,
                inference_ns,
            } => {
                self.inference_ns.saturating_record(inference_ns);
                self.handed_over_ns
                    .saturating_record(landed.since_ns(captured));
                self.waited_ns.saturating_record(taken.since_ns(landed));
                if self.waiting.is_full() {
                    self.waiting.pop_front();
                }
                // Room was just made.
                let _ = self.waiting.push_back(Waiting {
                    chunk_id,
                    landed,
                    queued: taken.plus_ns(inference_ns),
                    inference_ns,
                });
            }
            Sample::Command { chunk_id, sent } => {
                self.commands += 1;
                if chunk_id > self.last_chunk_commanded {
                    self.last_chunk_commanded = chunk_id;
                    self.first_command_of(chunk_id, sent);
                }
            }
        }
    }

    /// Takes in a chunk of simulated time, in which a frame is taken up as it lands: `simulated_ns` counts for the way
    /// from frame to command, `inference_ns` is what the policy really took.
    pub fn take_simulated(
        &mut self,
        chunk_id: u32,
        frame: &Frame,
        simulated_ns: u64,
        inference_ns: u64,
    ) {
        self.take(Sample::Chunk {
            chunk_id,
            captured: frame.captured,
            landed: frame.received,
            taken: frame.received,
            inference_ns: simulated_ns,
        });
        self.really
            .get_or_insert_with(histogram)
            .saturating_record(inference_ns);
    }

    /// Joins a chunk's first command with its frame. A chunk overtaken by a newer one never moved the robot and does
    /// not count.
    fn first_command_of(&mut self, chunk_id: u32, sent: Mono) {
        while let Some(made) = self.waiting.pop_front() {
            if made.chunk_id == chunk_id {
                let total_ns = sent.since_ns(made.landed);
                self.frame_to_command_ns.saturating_record(total_ns);
                self.overhead_ns
                    .saturating_record(total_ns.saturating_sub(made.inference_ns));
                self.carried_out_ns
                    .saturating_record(sent.since_ns(made.queued));
                return;
            }
            if made.chunk_id > chunk_id {
                return;
            }
        }
    }

    /// Forgets what was measured so far, for a measurement that starts after warm-up.
    pub fn clear(&mut self) {
        *self = Measures {
            last_chunk_commanded: self.last_chunk_commanded,
            ladder: self.ladder,
            ladder_before: self.ladder,
            ..Measures::default()
        };
    }

    /// The figures.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            ticks: self.ticks,
            ticks_missed: self.ticks_missed,
            commands: self.commands,
            chunks: self.inference_ns.len(),
            ladder: Rungs::of(&self.ladder.since(&self.ladder_before)),
            tick_lateness_us: spread(&self.tick_late_ns, 1e-3),
            frame_to_command_ms: spread(&self.frame_to_command_ns, 1e-6),
            frame_to_command_minus_inference_ms: spread(&self.overhead_ns, 1e-6),
            inference_ms: spread(self.really.as_ref().unwrap_or(&self.inference_ns), 1e-6),
            stages: Stages {
                capture_ms: spread(&self.handed_over_ns, 1e-6),
                wait_ms: spread(&self.waited_ns, 1e-6),
                command_ms: spread(&self.carried_out_ns, 1e-6),
            },
        }
    }
}

/// Percentiles of one quantity, in the unit its name says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest.
    pub max: f64,
}

/// Percentiles of a histogram, scaled.
pub(crate) fn spread(histogram: &Histogram<u64>, scale: f64) -> Spread {
    let at =
        |quantile: f64| (histogram.value_at_quantile(quantile) as f64 * scale * 1e3).round() / 1e3;
    Spread {
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        max: at(1.0),
    }
}

/// Time that the scheduler spent on each rung of its ladder, from the first chunk after arming on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rungs {
    /// The newest chunk, its successor not overdue.
    pub fresh_s: f64,
    /// The newest chunk, its successor overdue.
    pub tail_s: f64,
    /// Coming to rest: the plan had run out.
    pub slowing_s: f64,
    /// At rest without a plan.
    pub hold_s: f64,
    /// By how much plans were played slower to keep to the limits in force.
    pub stretched_s: f64,
    /// Time in which a proposed step was curbed, as no way to play the plan was found that keeps to the limits in force.
    pub curbed_s: f64,
    /// Times that a plan ran out before its successor came: a stall.
    pub stalls: u64,
    /// Chunks that were dropped because they came later than they were made for.
    pub outrun: u64,
}

impl Rungs {
    fn of(ladder: &Ladder) -> Rungs {
        let seconds = |ns: u64| ns as f64 * 1e-9;
        Rungs {
            fresh_s: seconds(ladder.fresh_ns),
            tail_s: seconds(ladder.tail_ns),
            slowing_s: seconds(ladder.slowing_ns),
            hold_s: seconds(ladder.hold_ns),
            stretched_s: seconds(ladder.stretched_ns),
            curbed_s: seconds(ladder.curbed_ns),
            stalls: ladder.ran_out,
            outrun: ladder.outrun,
        }
    }
}

/// The way from light to command in its parts, beside the policy's own ([`Figures::inference_ms`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stages {
    /// Capture of a frame to its landing here, decoded.
    pub capture_ms: Spread,
    /// Landing to being taken up by inference.
    pub wait_ms: Spread,
    /// Chunk queued to the first command made of it.
    pub command_ms: Spread,
}

/// What telemetry knows, as figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Control ticks.
    pub ticks: u64,
    /// Periods in which the control loop did not come round.
    pub ticks_missed: u64,
    /// Commands handed to the link.
    pub commands: u64,
    /// Plans that the policy made.
    pub chunks: u64,
    /// What the setpoints were made of.
    pub ladder: Rungs,
    /// How late the control loop woke.
    pub tick_lateness_us: Spread,
    /// From a frame landing here to the first command made of it.
    pub frame_to_command_ms: Spread,
    /// The same without the policy's own time.
    pub frame_to_command_minus_inference_ms: Spread,
    /// Frame taken up to chunk queued.
    pub inference_ms: Spread,
    /// The other parts of the way.
    pub stages: Stages,
}

/// The telemetry thread's period: fast enough for a page, slow enough to cost nothing.
const PERIOD_NS: u64 = 20_000_000;

/// The telemetry thread. Nothing waits for it.
pub fn run(
    desk: &Desk,
    mut ends: DeskEnds,
    mut tell: impl FnMut(Mono, &View),
    ending: &AtomicBool,
    seat: &Seat,
) {
    while !ending.load(Ordering::Relaxed) {
        let now = clock::now();
        seat.beat.mark(now);
        desk.refresh(&mut ends);
        tell(now, &desk.view());
        clock::sleep_until(now.plus_ns(PERIOD_NS));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::units::MS;

    #[test]
    fn a_chunk_is_joined_with_its_first_command_only() {
        let mut measures = Measures::default();
        measures.take(Sample::Chunk {
            chunk_id: 1,
            captured: Mono(3 * MS),
            landed: Mono(10 * MS),
            taken: Mono(12 * MS),
            inference_ns: 8 * MS,
        });
        measures.take(Sample::Command {
            chunk_id: 1,
            sent: Mono(21 * MS),
        });
        measures.take(Sample::Command {
            chunk_id: 1,
            sent: Mono(26 * MS),
        });
        let figures = measures.figures();
        assert_eq!(figures.commands, 2);
        assert!(
            (figures.frame_to_command_ms.max - 11.0).abs() < 0.02,
            "{figures:?}"
        );
        assert!(
            (figures.frame_to_command_minus_inference_ms.max - 3.0).abs() < 0.02,
            "{figures:?}"
        );
        let stages = figures.stages;
        for (part, wants_ms) in [
            (stages.capture_ms, 7.0),
            (stages.wait_ms, 2.0),
            (stages.command_ms, 1.0),
        ] {
            assert!((part.p50 - wants_ms).abs() < 0.1, "{wants_ms} ms: {part:?}");
        }
    }

    #[test]
    fn a_chunk_that_was_overtaken_does_not_count() {
        let mut measures = Measures::default();
        for (chunk_id, landed) in [(1, Mono(0)), (2, Mono(10 * MS))] {
            measures.take(Sample::Chunk {
                chunk_id,
                captured: landed,
                landed,
                taken: landed,
                inference_ns: 0,
            });
        }
        measures.take(Sample::Command {
            chunk_id: 2,
            sent: Mono(12 * MS),
        });
        assert!((measures.figures().frame_to_command_ms.max - 2.0).abs() < 0.01);
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (mut tap, mut drain) = tap();
        for _ in 0..QUEUE + 3 {
            tap.record(Sample::Tick {
                late_ns: 1,
                missed: 0,
                ladder: Ladder::default(),
            });
        }
        assert_eq!(tap.dropped, 3);
        assert_eq!(std::iter::from_fn(|| drain.pop().ok()).count(), QUEUE);
    }
}
