// SPDX-License-Identifier: Apache-2.0
//! Whether the times that a kernel camera's driver flags as of our clock are of our clock.
//!
//! The flag is no proof. The driver of a Jetson's CSI cameras (`vi5`) is reported to stamp by the processor's own counter, 26 and 29 s
//! ahead of the monotonic clock, and to flag that as monotonic: every picture would lie in the future, for as long as the stream lasts. So the
//! first times of each stream are compared with when their pictures came. That is known to lie between two moments: the last at which
//! no picture waited, and the one at which this one was taken; in between it may have waited for us.
//!
//! States, of one stream: *in doubt*; from there, for good, *believed* with the first time that is true, or *replaced* with the
//! [`FALSE_MAX`]th that cannot be. Replaced by when the pictures are taken.
//!
//! Not responsible for a clock that was right and jumps: that is a fault ([`crate::core::camera`]), and not to be hidden.

use crate::core::units::{MS, Mono};
use crate::ports::Stamped;
use std::path::Path;
use v4l::buffer::{Flags, Metadata};

/// A time that is further than this from when its picture came is of another clock; with a slow camera, so many periods, as
/// exposure and transfer may take one each. Known cases are seconds and more away; no transfer takes one.
const FAR_NS: u64 = 1_000 * MS;
const FAR_PERIODS: u64 = 3;
/// So many times that cannot be true are a clock, and not a picture that went astray. One of them is that of the first picture,
/// which is passed over, so that the camera health that follows sees two: no fault yet.
const FALSE_MAX: u8 = 3;

/// When a picture came: no sooner than `after`, no later than `taken`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Came {
    /// No picture waited then.
    pub(super) after: Mono,
    /// When it was taken.
    pub(super) taken: Mono,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belief {
    InDoubt { false_times: u8 },
    Believed,
    Replaced,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Stamps {
    far_ns: u64,
    belief: Belief,
    /// Whether it was told that times are replaced: once for a camera, however often it is started.
    told: bool,
}

impl Stamps {
    /// Of a camera whose pictures are so far apart.
    pub(super) fn new(period_ns: u64) -> Stamps {
        Stamps {
            far_ns: FAR_NS.max(FAR_PERIODS * period_ns),
            belief: Belief::InDoubt { false_times: 0 },
            told: false,
        }
    }

    /// A stream begins: another device may be behind the path.
    pub(super) fn begin(&mut self) {
        self.belief = Belief::InDoubt { false_times: 0 };
    }

    /// When a picture of the camera at `at` was captured, and what moment that is. Takes no memory but once, to tell.
    pub(super) fn captured(&mut self, at: &Path, meta: &Metadata, came: Came) -> (Mono, Stamped) {
        let arrival = (came.taken, Stamped::Arrival);
        let Some((stamp, of)) = said(meta) else {
            return arrival;
        };
        if let Belief::InDoubt { false_times } = self.belief {
            self.belief = self.judged(false_times, stamp, came);
            if self.belief == Belief::Replaced && !std::mem::replace(&mut self.told, true) {
                tell(at, stamp, came.taken);
            }
        }
        match self.belief {
            Belief::Replaced => arrival,
            Belief::InDoubt { .. } | Belief::Believed => (stamp, of),
        }
    }

    fn judged(&self, false_times: u8, stamp: Mono, came: Came) -> Belief {
        let ahead = stamp.since_ns(came.taken) > self.far_ns;
        let behind = came.after.since_ns(stamp) > self.far_ns;
        if ahead || behind {
            let false_times = false_times.saturating_add(1);
            return if false_times < FALSE_MAX {
                Belief::InDoubt { false_times }
            } else {
                Belief::Replaced
            };
        }
        // Nobody may have asked for pictures for long after the start. Then there is room for many a wrong time between the two.
        if came.taken.since_ns(came.after) <= self.far_ns {
            Belief::Believed
        } else {
            Belief::InDoubt { false_times }
        }
    }
}

fn tell(at: &Path, stamp: Mono, taken: Mono) {
    let (off_ns, side) = if stamp > taken {
        (stamp.since_ns(taken), "ahead of")
    } else {
        (taken.since_ns(stamp), "behind")
    };
    log::warn!(
        "{}: expected capture times of the monotonic clock, as its driver flags them, found times that are {} ms {side} it; \
         they are replaced by those of arrival here",
        at.display(),
        off_ns / MS
    );
}

/// The driver's time, if it says that it is of our clock, and what it is of: the start of the exposure where the driver says so,
/// else the end of the frame.
fn said(meta: &Metadata) -> Option<(Mono, Stamped)> {
    let monotonic = meta.flags & Flags::TIMESTAMP_MASK == Flags::TIMESTAMP_MONOTONIC;
    let of = if meta.flags & Flags::TSTAMP_SRC_MASK == Flags::TSTAMP_SRC_SOE {
        Stamped::Start
    } else {
        Stamped::End
    };
    let sec = u64::try_from(meta.timestamp.sec).ok()?;
    let usec = u64::try_from(meta.timestamp.usec).ok()?;
    let ns = sec
        .saturating_mul(1_000_000_000)
        .saturating_add(usec.saturating_mul(1_000));
    (monotonic && ns != 0).then_some((Mono(ns), of))
}

#[cfg(test)]
mod tests {
    use super::*;
    use v4l::timestamp::Timestamp;

    const PERIOD_NS: u64 = 33_333_333;
    /// A time since the machine's start at which a stream may begin.
    const START: u64 = 100_000;

    fn meta(stamp_ms: u64) -> Metadata {
        Metadata {
            flags: Flags::TIMESTAMP_MONOTONIC | Flags::TSTAMP_SRC_SOE,
            timestamp: Timestamp::new((stamp_ms / 1_000) as _, (stamp_ms % 1_000 * 1_000) as _),
            ..Metadata::default()
        }
    }

    /// Pictures, each with the last moment at which none waited, when it was taken, and its stamp, in ms; what the times of each
    /// turn out to be of.
    #[track_caller]
    fn check(period_ns: u64, pictures: &[[u64; 3]], want: &[Stamped]) {
        let mut stamps = Stamps::new(period_ns);
        let found: Vec<Stamped> = pictures
            .iter()
            .map(|[after, taken, stamp]| {
                let came = Came {
                    after: Mono(after * MS),
                    taken: Mono(taken * MS),
                };
                let (captured, of) = stamps.captured(Path::new("here"), &meta(*stamp), came);
                let (driver, arrival) = (Mono(stamp * MS), came.taken);
                let expected = if of == Stamped::Arrival {
                    arrival
                } else {
                    driver
                };
                assert_eq!(captured, expected);
                of
            })
            .collect();
        assert_eq!(found, want);
    }

    /// Four pictures, taken as they come, whose times are so many ms beside.
    fn off(by_ms: i64) -> [[u64; 3]; 4] {
        [0, 33, 66, 100].map(|at| {
            let taken = START + at + 40;
            [START + at, taken, taken.saturating_add_signed(by_ms)]
        })
    }

    const TRUE: [Stamped; 4] = [Stamped::Start; 4];
    const FALSE: [Stamped; 4] = [
        Stamped::Start,
        Stamped::Start,
        Stamped::Arrival,
        Stamped::Arrival,
    ];

    #[test]
    fn a_clock_that_is_seconds_beside_is_found_out_with_the_third_picture() {
        check(PERIOD_NS, &off(-20), &TRUE);
        check(PERIOD_NS, &off(990), &TRUE);
        check(PERIOD_NS, &off(-990), &TRUE);
        check(PERIOD_NS, &off(1_010), &FALSE);
        check(PERIOD_NS, &off(-1_050), &FALSE);
        check(PERIOD_NS, &off(26_000), &FALSE);
        check(PERIOD_NS, &off(-29_000), &FALSE);
        // One picture a second, exposed for nearly as long.
        check(1_000 * MS, &off(-1_900), &TRUE);
        check(1_000 * MS, &off(-29_000), &FALSE);
    }

    #[test]
    fn a_clock_that_was_true_is_not_replaced() {
        let mut jumps = off(-20).to_vec();
        jumps.extend(off(26_000));
        check(PERIOD_NS, &jumps, &[Stamped::Start; 8]);
        // Nor one of which but two pictures went astray.
        let strays = [off(26_000)[0], off(26_000)[1], off(-20)[2], off(26_000)[3]];
        check(PERIOD_NS, &strays, &TRUE);
    }

    #[test]
    fn pictures_that_waited_for_us_are_no_proof_of_either() {
        // Asked for after 40 s, when four waited; then as they come.
        let late = |by_ms: u64| {
            let waited = [10, 43, 76, 110].map(|at| [START, START + 40_000, START + at + by_ms]);
            let then = [0, 33, 66].map(|at| {
                let taken = START + 40_033 + at;
                [taken - 33, taken, taken + by_ms]
            });
            [waited.as_slice(), then.as_slice()].concat()
        };
        check(PERIOD_NS, &late(0), &[Stamped::Start; 7]);
        let mut found_out = [Stamped::Start; 7];
        found_out[6] = Stamped::Arrival;
        check(PERIOD_NS, &late(26_000), &found_out);
    }

    #[test]
    fn what_says_nothing_of_our_clock_is_arrival() {
        let came = Came {
            after: Mono(START * MS),
            taken: Mono((START + 40) * MS),
        };
        for silent in [
            meta(0),
            Metadata {
                flags: Flags::empty(),
                ..meta(START)
            },
        ] {
            let mut stamps = Stamps::new(PERIOD_NS);
            let arrival = (came.taken, Stamped::Arrival);
            assert_eq!(stamps.captured(Path::new("here"), &silent, came), arrival);
        }
    }
}
