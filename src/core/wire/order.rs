// SPDX-License-Identifier: Apache-2.0
//! Order within a stream: counters that only go forward, and numbers (arm epochs, boot ids) whose time is over.

use super::reject::Reject;

/// Furthest a counter may jump. At most 200 ms may pass between two commands that are followed (the cap on valid-for),
/// which is 200 periods at 1 kHz; five times that for keep-alives, whose gaps move nothing.
pub const COUNTER_DELTA_MAX: u32 = 1_000;

/// Armings whose end is remembered. An attacker who can replay has to get past authentication first; 32 is a working
/// day of arming by hand.
pub const RETIRED_MAX: usize = 32;

/// How far `counter` is ahead of `last`, or why it may not be. Counters wrap.
pub(super) fn advance(last: u32, counter: u32) -> Result<u32, Reject> {
    match counter.wrapping_sub(last) {
        0 => Err(Reject::Repeated),
        delta if delta > u32::MAX / 2 => Err(Reject::Repeated),
        delta if delta > COUNTER_DELTA_MAX => Err(Reject::Jump),
        delta => Ok(delta),
    }
}

/// The newest numbers whose time is over; the oldest is forgotten when it is full.
#[derive(Clone, Debug)]
pub(super) struct Retired {
    ring: [u64; RETIRED_MAX],
    retired: usize,
}

impl Retired {
    pub(super) const NONE: Retired = Retired {
        ring: [0; RETIRED_MAX],
        retired: 0,
    };

    pub(super) fn contains(&self, number: u64) -> bool {
        self.ring
            .iter()
            .take(self.retired)
            .any(|retired| *retired == number)
    }

    pub(super) fn add(&mut self, number: u64) {
        if self.contains(number) {
            return;
        }
        // Counted beyond the capacity, only the place within it matters.
        if let Some(slot) = self.ring.get_mut(self.retired % RETIRED_MAX) {
            *slot = number;
        }
        self.retired = match self.retired.checked_add(1) {
            Some(retired) => retired,
            None => RETIRED_MAX,
        };
    }
}
