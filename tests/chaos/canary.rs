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
    #[allow(dead_code)] // See the module's text.
    pub fn stall_ns(&self, from: Mono, to: Mono) -> u64 {
        self.most(from, to, |late_ns| late_ns.sum())
    }

    /// The longest that it stood still at a stretch between the two.
    #[allow(dead_code)] // See the module's text.
    pub fn longest_ns(&self, from: Mono, to: Mono) -> u64 {
        self.most(from, to, |late_ns| late_ns.max().unwrap_or(0))
    }

    /// The most that one core or another stood still within `within_ns`, between the two: a thread may be on any of them, and
    /// two short stops one after the other are as long as both.
    #[allow(dead_code)] // See the module's text.
    pub fn most_within_ns(&self, from: Mono, to: Mono, within_ns: u64) -> u64 {
        let mut stops: Vec<(u64, u64)> = Vec::new();
        for core in &self.late {
            let late = core.lock().unwrap_or_else(PoisonError::into_inner);
            let began = |(woke, late_ns): &(Mono, u64)| (woke.minus_ns(*late_ns).0, woke.0);
            let inside = late.iter().filter(|(woke, _)| *woke > from).map(began);
            stops.extend(inside.filter(|(began, _)| *began < to.0));
        }
        stops.sort_unstable();
        let mut apart: Vec<(u64, u64)> = Vec::new();
        for (began, ended) in stops {
            match apart.last_mut() {
                Some(last) if began <= last.1 => last.1 = last.1.max(ended),
                _ => apart.push((began, ended)),
            }
        }
        // The worst window begins with a stop.
        let windows = apart.iter().enumerate().map(|(at, (began, _))| {
            let until = began + within_ns;
            let inside = apart[at..].iter().take_while(|(began, _)| *began < until);
            inside.map(|(began, ended)| ended.min(&until) - began).sum()
        });
        windows.max().unwrap_or(0)
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

/// From here on, a command may come too late for a motor controller that waits 20 ms for it: three ticks are lost.
#[allow(dead_code)] // See the module's text.
pub const STALL_NS: u64 = 15 * MS;

#[test]
fn stops_of_several_cores_add_up_within_a_window() {
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
    let all = (Mono(0), Mono(ms(1_000)));
    assert_eq!(
        canary.most_within_ns(all.0, all.1, ms(40)),
        ms(16),
        "100 to 110, 118 to 124"
    );
    assert_eq!(
        canary.most_within_ns(all.0, all.1, ms(44)),
        ms(20),
        "and 140 to 144"
    );
    assert_eq!(canary.most_within_ns(all.0, all.1, ms(5)), ms(5));
    assert_eq!(canary.most_within_ns(Mono(ms(200)), all.1, ms(40)), ms(9));
    assert_eq!(canary.longest_ns(all.0, all.1), ms(9));
}

/// One at a time: a fault must not be another story's disturbance.
#[allow(dead_code)] // See the module's text.
pub fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether it is the machine that the canaries see, and not what else runs on it.
#[allow(dead_code)] // See the module's text.
fn granted() -> bool {
    let asked = std::thread::spawn(|| realtime::take_seat(90, &[]).fifo == 90);
    asked.join().expect("no panic")
}

/// Tells a story while nobody else tells one. One that failed while the machine stood still is told again, twice at most:
/// a robot stops then, as it should.
#[allow(dead_code)] // See the module's text.
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
