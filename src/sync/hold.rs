// SPDX-License-Identifier: Apache-2.0
//! Whether a person holds something, told by one thread and read by another, neither of which waits: a letting go between two
//! readings is read once, however short it was.

use crate::core::units::Mono;
#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What was told last.
#[derive(Debug, Default)]
pub struct Hold {
    /// When it was told, ns, doubled, and one more if it was held; 0 before the first.
    told: AtomicU64,
    /// It was let go since it was read last.
    let_go: AtomicBool,
    /// Since then it was not known who holds what.
    doubted: AtomicBool,
}

impl Hold {
    /// When something was told last; the teller's.
    #[must_use]
    pub fn told_at(&self) -> Mono {
        Mono(self.told.load(Ordering::Acquire) >> 1)
    }

    /// Tells that at `at` it was held, or not.
    pub fn tell(&self, at: Mono, held: bool) {
        self.told
            .store(at.0 << 1 | u64::from(held), Ordering::Release);
        if !held {
            // After what is told, or a reading between the two would be of a hold again. Swapped, as by the reader: of two
            // swaps one comes first.
            self.let_go.swap(true, Ordering::AcqRel);
        }
    }

    /// Who holds what is not known: the next reading is none.
    pub fn doubt(&self) {
        self.doubted.swap(true, Ordering::AcqRel);
    }

    /// Whether it is held; `None` if nothing was told for `silence_ns`, or it was doubted since the last reading.
    pub fn read(&self, now: Mono, silence_ns: u64) -> Option<bool> {
        // What was told is read last: it is then no older than what is known of how it came about.
        let doubted = self.doubted.swap(false, Ordering::AcqRel);
        let let_go = self.let_go.swap(false, Ordering::AcqRel);
        let told = self.told.load(Ordering::Acquire);
        let silent = told == 0 || now.since_ns(Mono(told >> 1)) > silence_ns;
        (!silent && !doubted).then_some(told & 1 == 1 && !let_go)
    }
}
