// SPDX-License-Identifier: Apache-2.0
//! The only reader of a clock. Everything else is handed the time.

use crate::core::units::Mono;
use rustix::thread::{ClockId, clock_nanosleep_absolute};
use rustix::time::{Timespec, clock_gettime};
use std::time::Duration;

const SECOND_NS: u64 = 1_000_000_000;

/// Now, by `CLOCK_MONOTONIC`: the same clock for every process of this machine, untouched by NTP steps and `date`.
#[must_use]
pub fn now() -> Mono {
    let time = clock_gettime(ClockId::Monotonic);
    // The monotonic clock counts from boot, so neither part is negative.
    Mono(
        (time.tv_sec as u64)
            .wrapping_mul(SECOND_NS)
            .wrapping_add(time.tv_nsec as u64),
    )
}

/// How long the machine has been suspended since it started: what `CLOCK_BOOTTIME` counts and `CLOCK_MONOTONIC` does not.
#[must_use]
pub fn slept_ns() -> u64 {
    let awake = now();
    let time = clock_gettime(ClockId::Boottime);
    let all_ns = (time.tv_sec as u64)
        .wrapping_mul(SECOND_NS)
        .wrapping_add(time.tv_nsec as u64);
    all_ns.saturating_sub(awake.0)
}

/// The time of day, seconds since 1970, for dates that others wrote. It may step; nothing that moves a robot reads it.
#[must_use]
pub fn utc_s() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

/// Processor time of this process so far, all threads.
#[must_use]
pub fn processor_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    (time.tv_sec as u64)
        .wrapping_mul(SECOND_NS)
        .wrapping_add(time.tv_nsec as u64)
}

/// Sleeps until `at`; returns at once when it has passed. Absolute, so that lateness never adds up.
pub fn sleep_until(at: Mono) {
    let request = Timespec {
        tv_sec: (at.0 / SECOND_NS) as i64,
        tv_nsec: (at.0 % SECOND_NS) as _,
    };
    // A signal ends the sleep early; asking again is right. No other error is possible with these arguments, and
    // returning early would only make a caller look at the time again.
    while clock_nanosleep_absolute(ClockId::Monotonic, &request) == Err(rustix::io::Errno::INTR) {}
}

/// The ticks of a periodic loop: absolute times, one period apart, never a burst after a gap.
#[derive(Debug)]
pub struct Ticks {
    next: Mono,
    period_ns: u64,
    /// Whole periods that passed without a tick because the loop came too late.
    pub missed: u64,
}

impl Ticks {
    /// The first tick is one period after `start`.
    #[must_use]
    pub fn new(start: Mono, period_ns: u64) -> Ticks {
        Ticks {
            next: start.plus_ns(period_ns),
            period_ns,
            missed: 0,
        }
    }

    /// Nominal time between two ticks.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        self.period_ns
    }

    /// Moves the next tick, and with it all that follow, by a part of a period; later if positive.
    pub fn shift(&mut self, by_ns: i64) {
        self.next = Mono(self.next.0.saturating_add_signed(by_ns));
    }

    /// As [`Ticks::wait`], but `None` as soon as somebody unparks the calling thread; the tick is then still to come.
    pub fn wait_or_woken(&mut self) -> Option<Tick> {
        let left_ns = self.next.since_ns(now());
        if left_ns > 0 {
            std::thread::park_timeout(Duration::from_nanos(left_ns));
        }
        (now() >= self.next).then(|| self.wait())
    }

    /// Sleeps until the next tick. Returns when it was due and how late this call came back.
    pub fn wait(&mut self) -> Tick {
        sleep_until(self.next);
        let woke = now();
        let due = self.next;
        let late_ns = woke.since_ns(due);
        let skipped = late_ns / self.period_ns;
        self.missed += skipped;
        self.next = due.plus_ns((skipped + 1) * self.period_ns);
        Tick { due, woke, late_ns }
    }
}

/// One tick of a periodic loop.
#[derive(Clone, Copy, Debug)]
pub struct Tick {
    /// When it was to come.
    pub due: Mono,
    /// When it came.
    pub woke: Mono,
    /// The difference.
    pub late_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_woken_comes_early_and_misses_no_tick() {
        let mut ticks = Ticks::new(now(), 50_000_000);
        std::thread::current().unpark();
        assert!(ticks.wait_or_woken().is_none(), "woken");
        let tick = ticks.wait();
        assert!(tick.woke >= tick.due && ticks.missed == 0, "{tick:?}");
        let next = loop {
            // A thread may also wake by itself.
            if let Some(tick) = ticks.wait_or_woken() {
                break tick;
            }
        };
        assert!(next.due.since_ns(tick.due) >= 50_000_000, "{next:?}");
    }

    #[test]
    fn ticks_that_were_missed_are_counted_and_not_made_up_for() {
        let period_ns = 2_000_000;
        let mut ticks = Ticks::new(now(), period_ns);
        // It may be late itself, on a machine that stood still.
        ticks.wait();
        let missed = ticks.missed;
        sleep_until(ticks.next.plus_ns(10 * period_ns));
        let late = ticks.wait();
        assert!(late.late_ns >= 10 * period_ns, "{late:?}");
        assert!(
            ticks.missed >= missed + 10,
            "{} after {missed}",
            ticks.missed
        );
        let next = ticks.wait();
        assert!(
            next.due.since_ns(late.due) >= 11 * period_ns,
            "no burst: {next:?} after {late:?}"
        );
    }
}
