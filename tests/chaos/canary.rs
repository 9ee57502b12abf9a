// SPDX-License-Identifier: Apache-2.0
//! How long the machine itself stood still, which is granted to every bound that is measured on it. Three suites have this
//! file, and not all of them need all of it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tendon::core::units::{MS, Mono};
use tendon::runtime::clock::{self, Ticks};
use tendon::runtime::realtime;

/// When one core woke late, and by how much.
type Late = Arc<Mutex<Vec<(Mono, u64)>>>;

/// On each core: wakes every millisecond at the highest priority it gets, and notes when it was late: that is the
/// machine, not us.
pub struct Canary {
    /// Of each core.
    late: Vec<Late>,
    ending: Arc<AtomicBool>,
}

impl Canary {
    pub fn start() -> Canary {
        let ending = Arc::new(AtomicBool::new(false));
        let cores = realtime::take_seat(0, &[]).cores;
        let late = cores.into_iter().map(|core| {
            let late = Late::default();
            let (notes, ends) = (Arc::clone(&late), Arc::clone(&ending));
            std::thread::spawn(move || {
                let _ = realtime::take_seat(90, &[core]);
                let mut ticks = Ticks::new(clock::now(), MS);
                while !ends.load(Ordering::Relaxed) {
                    let tick = ticks.wait();
                    if tick.late_ns > MS / 4 {
                        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                        notes.push((tick.woke, tick.late_ns));
                    }
                }
            });
            late
        });
        Canary {
            late: late.collect(),
            ending,
        }
    }

    /// Of the core for which it is the most: `all` of the times that it stood still between the two.
    fn most(&self, from: Mono, to: Mono, all: fn(&mut dyn Iterator<Item = u64>) -> u64) -> u64 {
        let cores = self.late.iter().map(|core| {
            let late = core.lock().unwrap_or_else(PoisonError::into_inner);
            let inside = late
                .iter()
                .filter(|(woke, late_ns)| *woke > from && woke.minus_ns(*late_ns) < to);
            all(&mut inside.map(|(_, late_ns)| *late_ns))
        });
        cores.max().unwrap_or(0)
    }

    /// Time for which the machine stood still between the two.
    #[allow(dead_code)] // Not each of the three suites that have this file needs it.
    pub fn stall_ns(&self, from: Mono, to: Mono) -> u64 {
        self.most(from, to, |late_ns| late_ns.sum())
    }

    /// The longest that it stood still at a stretch between the two.
    #[allow(dead_code)] // Not each of the three suites that have this file needs it.
    pub fn longest_ns(&self, from: Mono, to: Mono) -> u64 {
        self.most(from, to, |late_ns| late_ns.max().unwrap_or(0))
    }

    /// Time between the two in which one core or another stood still: a thread may be on any of them, and two short stops one
    /// after the other are as long as both.
    #[allow(dead_code)] // Not each of the three suites that have this file needs it.
    pub fn any_ns(&self, from: Mono, to: Mono) -> u64 {
        let mut stops: Vec<(u64, u64)> = Vec::new();
        for core in &self.late {
            let late = core.lock().unwrap_or_else(PoisonError::into_inner);
            let inside = late.iter().map(|(woke, late_ns)| {
                let began = woke.minus_ns(*late_ns);
                (began.max(from).0, (*woke).min(to).0)
            });
            stops.extend(inside.filter(|(began, ended)| began < ended));
        }
        stops.sort_unstable();
        let (mut sum_ns, mut counted_to) = (0, 0);
        for (began, ended) in stops {
            sum_ns += ended.saturating_sub(began.max(counted_to));
            counted_to = counted_to.max(ended);
        }
        sum_ns
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

/// From here on, a command may come too late for a motor controller that waits 20 ms for it: three ticks are lost.
#[allow(dead_code)] // Not each of the three suites that have this file needs it.
pub const STALL_NS: u64 = 15 * MS;

#[test]
fn stops_of_several_cores_count_once_within_a_window() {
    let ms = |ms: u64| ms * MS;
    let core = |stops: &[(u64, u64)]| -> Late {
        let notes = stops
            .iter()
            .map(|(began, ended)| (Mono(ms(*ended)), ms(ended - began)));
        Arc::new(Mutex::new(notes.collect()))
    };
    let canary = Canary {
        late: vec![
            core(&[(100, 108), (140, 144)]),
            core(&[(104, 110), (118, 124), (300, 309)]),
        ],
        ending: Arc::default(),
    };
    let any_ms = |from, to| canary.any_ns(Mono(ms(from)), Mono(ms(to))) / MS;
    assert_eq!(any_ms(0, 130), 16, "100 to 110, 118 to 124");
    assert_eq!(any_ms(0, 1_000), 29, "and 140 to 144, 300 to 309");
    assert_eq!(any_ms(102, 120), 10, "102 to 110, 118 to 120");
    assert_eq!(any_ms(111, 117), 0);
    assert_eq!(any_ms(302, 304), 2, "inside one");
    assert_eq!(canary.longest_ns(Mono(0), Mono(ms(1_000))), ms(9));
}

/// One at a time: a fault must not be another story's disturbance.
#[allow(dead_code)] // Not each of the three suites that have this file needs it.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it is the machine that the canaries see, and not what else runs on it.
#[allow(dead_code)] // Not each of the three suites that have this file needs it.
fn granted() -> bool {
    let asked = std::thread::spawn(|| realtime::take_seat(90, &[]).fifo == 90);
    asked.join().expect("no panic")
}

/// Tells a story while nobody else tells one. One that failed while the machine stood still is told again, twice at most:
/// a robot stops then, as it should.
#[allow(dead_code)] // Not each of the three suites that have this file needs it.
#[track_caller]
pub fn told(story: impl Fn()) {
    let _alone = alone();
    let canary = Canary::start();
    for last in [false, false, true] {
        let from = clock::now();
        let Err(failed) = catch_unwind(AssertUnwindSafe(&story)) else {
            return;
        };
        let stall_ns = canary.longest_ns(from, clock::now());
        println!(
            "it failed; the machine stood still for {} us at a stretch",
            stall_ns / 1_000
        );
        if last || stall_ns < STALL_NS || !granted() {
            resume_unwind(failed);
        }
        println!("told again");
    }
}
