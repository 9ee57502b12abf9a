// SPDX-License-Identifier: Apache-2.0
//! Lets the control tick come just after the chunks do.
//!
//! A camera's rate is often a multiple of the control period, so the time between a chunk's coming and the next tick
//! would be the same for hours, anywhere between nothing and a whole period, by chance. The lock shifts the ticks by
//! at most a five-hundredth of a period each, until a chunk typically waits for [`PhaseLock::margin_ns`]. The policy's
//! jitter moves it little: a single chunk can shift the phase by no more than the ticks until the next chunk allow,
//! so it settles on the median.
//!
//! Setpoints are computed for the time a tick is really due, so a shifted tick changes no trajectory.

use crate::core::units::Mono;

/// A tick is shifted by at most its period over this: 10 us at 200 Hz, less than its usual lateness.
const SHIFT_PARTS: i64 = 500;
/// The aimed-at wait of a chunk is the period over this: chunks that come a little later than usual still make it.
const MARGIN_PARTS: i64 = 5;

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct PhaseLock {
    period_ns: i64,
    /// What is still to be shifted; positive is later.
    left_ns: i64,
}

impl PhaseLock {
    /// For ticks of this period; at most hours long.
    #[must_use]
    pub fn new(period_ns: u64) -> PhaseLock {
        PhaseLock {
            period_ns: i64::try_from(period_ns).unwrap_or(i64::MAX).max(1),
            left_ns: 0,
        }
    }

    /// How long a chunk is to wait for its tick.
    #[must_use]
    pub fn margin_ns(&self) -> i64 {
        self.period_ns / MARGIN_PARTS
    }

    /// A chunk queued at `queued` was taken up by the tick due at `due`.
    pub fn heard(&mut self, due: Mono, queued: Mono) {
        // Both are far below 2^63: centuries since boot. A tick that woke late may take up what came after it was due.
        let waited = (due.0 as i64).wrapping_sub(queued.0 as i64);
        let over = waited.wrapping_sub(self.margin_ns());
        // The nearest tick may be shifted to the margin, earlier or later: which one it was does not matter.
        let half = self.period_ns / 2;
        let nearest = over.wrapping_add(half).rem_euclid(self.period_ns) - half;
        self.left_ns = -nearest;
    }

    /// By how much the next tick is to be shifted.
    pub fn step(&mut self) -> i64 {
        let most = (self.period_ns / SHIFT_PARTS).max(1);
        let by_ns = self.left_ns.clamp(-most, most);
        self.left_ns -= by_ns;
        by_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ticks from phase `start`, chunks each `every` with a jitter; the waits of the last chunks, sorted.
    fn waits(period: u64, every: u64, start: u64, jitter: &[u64]) -> Vec<u64> {
        let mut lock = PhaseLock::new(period);
        let mut due = Mono(1_000_000_000 + start % period);
        let mut waited = Vec::new();
        for (number, jitter) in jitter.iter().enumerate() {
            let queued = Mono(1_000_000_000 + number as u64 * every + jitter);
            while due < queued {
                due = Mono((due.0 + period).saturating_add_signed(lock.step()));
            }
            waited.push(due.since_ns(queued));
            lock.heard(due, queued);
        }
        let mut last = waited.split_off(waited.len() / 2);
        last.sort_unstable();
        last
    }

    proptest! {
        #[test]
        fn from_any_phase_the_median_wait_becomes_the_margin(
            start in 0u64..5_000_000,
            every in prop::sample::select(vec![100_000_000u64, 99_999_000, 200_010_000]),
            jitter in prop::collection::vec(0u64..600_000, 200),
        ) {
            let waits = waits(5_000_000, every, start, &jitter);
            let median = waits[waits.len() / 2];
            prop_assert!((600_000..1_500_000).contains(&median), "{median}");
        }

        #[test]
        fn no_time_whatsoever_shifts_a_tick_by_more_than_a_five_hundredth(
            period in 1u64..10_000_000_000, due: u64, queued: u64,
        ) {
            let mut lock = PhaseLock::new(period);
            lock.heard(Mono(due), Mono(queued));
            let by = lock.step().unsigned_abs();
            prop_assert!(by <= (period / 500).max(1), "{by}");
        }
    }
}
