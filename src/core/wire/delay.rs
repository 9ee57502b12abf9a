// SPDX-License-Identifier: Apache-2.0
//! How long a frame was on its way, judged without comparing two clocks.
//!
//! The two ends' clocks have nothing in common, so "now minus sent" means nothing by itself. But the smallest such
//! difference seen belongs to the frame that was fastest, and what a later frame has on top of it is time that it spent
//! waiting somewhere: in a stalled socket, in a queue of a frozen process. That is what is measured here, and it needs
//! of the sender's clock only that it runs.
//!
//! Two clocks drift apart. The floor therefore rises by 1/1024 of the time passed (crystals differ by 0.2 thousandths
//! at most, a microcontroller's RC oscillator needs calibrating to stay below): true drift never makes a frame late,
//! and a delay that creeps in more slowly than a millisecond a second is not seen here. The echo sees that one.

use crate::core::units::Mono;

/// The floor rises by the elapsed time shifted by this.
const DRIFT_SHIFT: u32 = 10;

/// The fastest frame seen: when it came, and by how much the receiver's clock was ahead of its stamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    fastest: Option<(Mono, i64)>,
}

/// By how much `now` is ahead of `sent`, two clocks with any offset. Wraps rather than fails on a nonsensical stamp:
/// such a stream then looks late, is dropped, and is forgotten by silence.
fn ahead_ns(now: Mono, sent: Mono) -> i64 {
    now.0.wrapping_sub(sent.0).cast_signed()
}

impl Delay {
    /// What a frame stamped `sent` and here at `now` has waited more than the fastest one, in nanoseconds. 0 for the
    /// first.
    #[must_use]
    pub fn late_ns(&self, now: Mono, sent: Mono) -> u64 {
        self.floor_ns(now).map_or(0, |floor_ns| {
            let late_ns = ahead_ns(now, sent).wrapping_sub(floor_ns);
            u64::try_from(late_ns).unwrap_or(0)
        })
    }

    /// Learns from a frame that was accepted.
    pub fn learn(&mut self, now: Mono, sent: Mono) {
        let ahead_ns = ahead_ns(now, sent);
        if self
            .floor_ns(now)
            .is_none_or(|floor_ns| ahead_ns < floor_ns)
        {
            self.fastest = Some((now, ahead_ns));
        }
    }

    fn floor_ns(&self, now: Mono) -> Option<i64> {
        self.fastest.map(|(since, ahead_ns)| {
            ahead_ns.wrapping_add((now.since_ns(since) >> DRIFT_SHIFT).cast_signed())
        })
    }
}
