// SPDX-License-Identifier: Apache-2.0
//! When to look again for a camera that is gone: soon, then less often. Time passed in.

use crate::core::units::{MS, Mono};

/// The first pause. A plug that wobbles is back within one frame or two.
pub const FIRST_NS: u64 = 50 * MS;
/// The longest pause: what a person waits after plugging a camera in.
pub const LONGEST_NS: u64 = 1_000 * MS;

/// See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    pause_ns: u64,
    next: Mono,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            pause_ns: FIRST_NS,
            next: Mono(0),
        }
    }
}

impl Retry {
    /// When to try next.
    #[must_use]
    pub fn next(&self) -> Mono {
        self.next
    }

    /// It failed at `now`: the pause doubles.
    pub fn failed(&mut self, now: Mono) {
        self.next = now.plus_ns(self.pause_ns);
        self.pause_ns = (self.pause_ns * 2).min(LONGEST_NS);
    }

    /// It gave a good picture: the next pause is the first again. That it could be opened is not enough: what opens and fails, again
    /// and again, is to be looked for less often, too.
    pub fn worked(&mut self) {
        *self = Retry::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_begin_anew() {
        let mut retry = Retry::default();
        let mut now = Mono(0);
        let mut pauses = vec![];
        for _ in 0..8 {
            retry.failed(now);
            pauses.push(retry.next().since_ns(now) / MS);
            now = retry.next();
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000, 1000]);
        retry.worked();
        assert_eq!(retry.next(), Mono(0));
        retry.failed(now);
        assert_eq!(retry.next().since_ns(now), FIRST_NS);
    }
}
