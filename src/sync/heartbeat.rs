// SPDX-License-Identifier: Apache-2.0
//! Heartbeats: when each thread last came round, in one table that anyone may read at any time. The last few marks are
//! kept, so that a crash record can tell how a thread ran before it ended.

use crate::core::units::Mono;
#[cfg(loom)]
use loom::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};
#[cfg(not(loom))]
use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

/// Marks that are kept.
pub const MARKS: usize = if cfg!(loom) { 2 } else { 8 };

/// Lines of a flood at each mark: thousands a second from any thread.
#[cfg(not(loom))]
const BABBLE: u32 = 200;

/// How a thread is made to fail in a drill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Failing {
    /// It panics at its next mark.
    Panic = 1,
    /// It never comes back from its next mark: what a hung call looks like from outside.
    Hang = 2,
    /// It goes on, and logs a flood at each of its marks from now on.
    Babble = 3,
}

#[derive(Debug)]
struct Line {
    /// Marks since the start; the newest stands at `(count - 1) % MARKS`.
    count: AtomicU64,
    marks: [AtomicU64; MARKS],
    /// The newest mark, in a cell of its own: what is read there never goes back, as it could in the ring.
    newest: AtomicU64,
    /// 0, or a [`Failing`].
    failing: AtomicU8,
}

/// One thread's own line in the table. Marking is three stores and two loads; only the owner marks.
#[derive(Clone, Debug)]
pub struct Beat(Arc<Line>);

impl Beat {
    /// A beat that has never been marked.
    #[must_use]
    pub fn new() -> Beat {
        Beat(Arc::new(Line {
            count: AtomicU64::new(0),
            marks: std::array::from_fn(|_| AtomicU64::new(0)),
            newest: AtomicU64::new(0),
            failing: AtomicU8::new(0),
        }))
    }

    /// "I came round at `now`." For the owning thread alone.
    pub fn mark(&self, now: Mono) {
        let count = self.0.count.load(Ordering::Relaxed);
        if let Some(slot) = self.0.marks.get(count as usize % MARKS) {
            slot.store(now.0, Ordering::Relaxed);
        }
        self.0.newest.store(now.0, Ordering::Relaxed);
        // Release: who sees the count sees the mark.
        self.0.count.store(count.wrapping_add(1), Ordering::Release);
        match self.0.failing.load(Ordering::Relaxed) {
            0 => {}
            how => fail(how),
        }
    }

    /// When it was last marked; `None` before the first time. Never goes back.
    #[must_use]
    pub fn last(&self) -> Option<Mono> {
        match self.0.newest.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(Mono(ns)),
        }
    }

    /// The last marks, oldest first, at most [`MARKS`]. One that is overwritten meanwhile may stand first instead of
    /// last: good enough for a record that people read.
    pub fn marks(&self) -> impl Iterator<Item = Mono> {
        let count = self.0.count.load(Ordering::Acquire);
        let from = count.saturating_sub(MARKS as u64);
        (from..count).filter_map(|n| {
            let slot = self.0.marks.get(n as usize % MARKS)?;
            Some(Mono(slot.load(Ordering::Relaxed)))
        })
    }

    /// Makes the owner fail at its next mark. Only for drills: see `tendon run --drill`.
    pub fn fail(&self, how: Failing) {
        self.0.failing.store(how as u8, Ordering::Relaxed);
    }
}

#[cold]
fn fail(how: u8) {
    #[cfg(not(loom))]
    if how == Failing::Babble as u8 {
        for line in 0..BABBLE {
            log::error!("drill: line {line} of a flood");
        }
        return;
    }
    if how == Failing::Hang as u8 {
        loop {
            std::thread::park();
        }
    }
    panic!("drill: this thread was asked to panic");
}

impl Default for Beat {
    fn default() -> Self {
        Beat::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_marks_are_kept_in_order() {
        let beat = Beat::new();
        assert_eq!(beat.last(), None);
        assert_eq!(beat.marks().count(), 0);
        (1..=11).for_each(|ns| beat.mark(Mono(ns)));
        assert_eq!(beat.last(), Some(Mono(11)));
        let marks: Vec<u64> = beat.marks().map(|mark| mark.0).collect();
        assert_eq!(marks, (4..=11).collect::<Vec<_>>());
    }

    #[test]
    fn a_drill_fails_the_owner_at_its_next_mark() {
        let beat = Beat::new();
        let own = beat.clone();
        beat.fail(Failing::Panic);
        let thread = std::thread::spawn(move || own.mark(Mono(1)));
        assert!(thread.join().is_err());
        assert_eq!(beat.last(), Some(Mono(1)), "it came round, then failed");
    }
}
