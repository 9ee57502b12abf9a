// SPDX-License-Identifier: Apache-2.0
//! What a receiver thinks of its stream as a whole: the windowed state of AUTOSAR E2E, by the receiver's clock.
//!
//! ```text
//!            3 good           > 3 bad in 1 s
//!   INIT ------------> VALID -----------------> INVALID
//!    ^                   |  ^                      |
//!    |   3 good          |  +----------------------+  1 s after the fourth last bad one
//!    +------- NODATA <---+  nothing good for 200 ms (from any state)
//! ```

use super::reject::Reject;
use crate::core::units::{MS, Mono};

/// Good frames in a row, without silence, before a stream counts as established.
pub const GOOD_MIN: u32 = 3;
/// Bad frames within [`BAD_WINDOW_NS`] that are borne; one more, and the stream is [`Health::Invalid`].
pub const BAD_MAX: usize = 3;
/// See [`BAD_MAX`].
pub const BAD_WINDOW_NS: u64 = 1_000 * MS;
/// A stream without a good frame for this long is gone: the longest that any command may claim to be valid. What comes
/// after it may begin at any counter.
pub const SILENCE_NS: u64 = 200 * MS;

/// What a receiver thinks of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing good has ever come, or too little since the last silence.
    Init,
    /// Established.
    Valid,
    /// Too many bad frames: somebody or something disturbs it.
    Invalid,
    /// It was there, and nothing good has come for [`SILENCE_NS`].
    NoData,
}

/// The memory behind [`Health`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    good: u32,
    newest_good: Option<Mono>,
    /// When the last bad ones came; a ring.
    bad: [Option<Mono>; BAD_MAX + 1],
    next_bad: usize,
}

impl Window {
    pub(super) fn good(&mut self, now: Mono) {
        self.good = if self.silent(now) {
            1
        } else {
            self.good.saturating_add(1)
        };
        self.newest_good = Some(now);
    }

    pub(super) fn bad(&mut self, now: Mono, reject: Reject) {
        if !reject.speaks_against_the_link() {
            return;
        }
        if let Some(slot) = self.bad.get_mut(self.next_bad) {
            *slot = Some(now);
        }
        self.next_bad = (self.next_bad + 1) % self.bad.len();
    }

    /// Nothing good for so long that the order of what comes next is a new one. False before the first.
    pub(super) fn silent(&self, now: Mono) -> bool {
        self.newest_good
            .is_some_and(|newest| now.since_ns(newest) >= SILENCE_NS)
    }

    pub(super) fn health(&self, now: Mono) -> Health {
        let disturbed = self
            .bad
            .iter()
            .all(|at| at.is_some_and(|at| now.since_ns(at) < BAD_WINDOW_NS));
        match self.newest_good {
            _ if disturbed => Health::Invalid,
            Some(_) if self.silent(now) => Health::NoData,
            Some(_) if self.good >= GOOD_MIN => Health::Valid,
            Some(_) | None => Health::Init,
        }
    }
}
