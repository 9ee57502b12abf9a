// SPDX-License-Identifier: Apache-2.0
//! How long the machine itself stood still, which is granted to every bound that is measured on it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tendon::core::units::{MS, Mono};
use tendon::runtime::clock::{self, Ticks};
use tendon::runtime::realtime;

/// Wakes each millisecond at the highest priority it gets, and notes when it was late: that is the machine, not us.
pub struct Canary {
    late: Arc<Mutex<Vec<(Mono, u64)>>>,
    ending: Arc<AtomicBool>,
}

impl Canary {
    pub fn start() -> Canary {
        let (late, ending) = (
            Arc::<Mutex<Vec<_>>>::default(),
            Arc::new(AtomicBool::new(false)),
        );
        let (notes, ends) = (Arc::clone(&late), Arc::clone(&ending));
        std::thread::spawn(move || {
            let _ = realtime::take_seat(90, &[]);
            let mut ticks = Ticks::new(clock::now(), MS);
            while !ends.load(Ordering::Relaxed) {
                let tick = ticks.wait();
                if tick.late_ns > MS / 4 {
                    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                    notes.push((tick.woke, tick.late_ns));
                }
            }
        });
        Canary { late, ending }
    }

    /// Time for which the machine stood still between the two.
    pub fn stall_ns(&self, from: Mono, to: Mono) -> u64 {
        let inside = |woke: Mono, late_ns| woke > from && woke.minus_ns(late_ns) < to;
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = late
            .iter()
            .filter(|(woke, late_ns)| inside(*woke, *late_ns));
        lost.map(|(_, late_ns)| late_ns).sum()
    }
}

impl Canary {
    /// The longest that it stood still at a stretch between the two.
    #[allow(dead_code)] // Two suites have this file, and one of them asks.
    pub fn longest_ns(&self, from: Mono, to: Mono) -> u64 {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = late.iter().filter(|(woke, _)| *woke > from && *woke < to);
        inside.map(|(_, late_ns)| *late_ns).max().unwrap_or(0)
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}
