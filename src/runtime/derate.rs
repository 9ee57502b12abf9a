// SPDX-License-Identifier: Apache-2.0
//! The machine's health, once a second: kept for who looks at the metrics, told when something is on its way to fail, and
//! with `[derate]` made a share of the speed limits: see [`core::derate`](crate::core::derate). Whether the disk answers, ten
//! times a second.

use crate::config::derate::DerateConfig;
use crate::core::derate::Derate;
use crate::core::units::{MS, Mono};
use crate::runtime::clock;
use crate::runtime::health::{Health, Tree};
use crate::runtime::threads::Seat;
use crate::sync::heartbeat::Beat;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const PERIOD_NS: u64 = 1_000 * MS;
/// The thread looks this often whether the pipeline ends, and whether the disk answers.
const LOOK_NS: u64 = 100 * MS;
/// A disk answers sooner.
const UNANSWERED_NS: u64 = 700 * MS;
/// A disk that does not answer is told within a second; the rest is for who writes the line.
const _: () = assert!(UNANSWERED_NS + LOOK_NS <= 800 * MS);
const UNANSWERED: &str = "the disk of the state directory does not answer: a stop that latches now is not kept, and nothing is armed";
/// A complaint that was gone for so long is told again.
const QUIET_NS: u64 = 60_000 * MS;
/// A throttle counter that has moved counts for so long.
const OVER_CURRENT_NS: u64 = 10_000 * MS;

/// What of the machine is watched, and since when it throttles.
#[derive(Debug)]
struct Watch<'a> {
    config: &'a DerateConfig,
    throttled: u64,
    until: Mono,
    derate: Derate,
}

impl Watch<'_> {
    /// The share in force after a reading. What is declared and cannot be read allows what its curve's worst point does.
    fn step(&mut self, now: Mono, health: &Health) -> f64 {
        let mut allowed: f64 = 1.0;
        if let Some(curve) = &self.config.temperature {
            let hottest = health.temperatures.iter().map(|zone| zone.now_c);
            allowed = allowed.min(curve.at(hottest.reduce(f64::max).unwrap_or(f64::NAN)));
        }
        if let Some((name, curve)) = &self.config.power {
            let rail = health.rails.iter().find(|rail| rail.name == *name);
            allowed = allowed.min(curve.at(rail.map_or(f64::NAN, |rail| rail.power_w)));
        }
        if let Some(share) = self.config.over_current {
            let throttled = health.over_current.iter().map(|events| events.count).sum();
            if self.derate.begun() && throttled != self.throttled {
                self.until = now.plus_ns(OVER_CURRENT_NS);
            }
            self.throttled = throttled;
            if now < self.until {
                allowed = allowed.min(share);
            }
        }
        self.derate.step(now, allowed)
    }
}

/// Everything the health thread touches.
#[derive(Debug)]
pub struct HealthIo {
    /// `[derate]`; with nothing declared the robot is never slowed.
    pub config: DerateConfig,
    /// Where the state is kept, if it is: its space is watched.
    pub state: Option<PathBuf>,
    /// Who writes there.
    pub memory: Option<Beat>,
    /// The newest reading, for who looks.
    pub newest: Arc<Mutex<Health>>,
    /// Thousandths, as [`Counters::slowed`](crate::runtime::counters::Counters).
    pub derated: Arc<AtomicU32>,
    /// Set when the pipeline ends.
    pub ending: Arc<AtomicBool>,
}

/// The thread.
pub fn run(io: &HealthIo, seat: &Seat) {
    let tree = Tree::seen();
    let mut watch = Watch {
        config: &io.config,
        throttled: 0,
        until: Mono(0),
        derate: Derate::default(),
    };
    let mut told = Vec::new();
    let mut due = clock::now();
    while !io.ending.load(Ordering::Relaxed) {
        let now = clock::now();
        seat.beat.mark(now);
        // First: what is read below may take its time.
        if unanswered(io.memory.as_ref().and_then(Beat::last), now) {
            tell(&mut told, now, vec![UNANSWERED]);
        }
        if now >= due {
            due = now.plus_ns(PERIOD_NS);
            let health = Health::read(&tree, io.state.as_deref());
            let share = watch.step(now, &health);
            // Rounded towards slower.
            let after = (1000.0 - share * 1000.0).ceil() as u32;
            let before = io.derated.swap(after, Ordering::Relaxed);
            if after > before {
                log::warn!(
                    "the machine's health allows {:.0} % of the speed limits ([derate])",
                    share * 100.0
                );
            }
            tell(&mut told, now, health.complaints());
            *io.newest.lock().unwrap_or_else(PoisonError::into_inner) = health;
        }
        clock::sleep_until(now.plus_ns(LOOK_NS));
    }
}

/// Whether who writes to the disk has waited for it too long.
fn unanswered(last: Option<Mono>, now: Mono) -> bool {
    last.is_some_and(|last| now.since_ns(last) > UNANSWERED_NS)
}

fn tell(told: &mut Vec<(&'static str, Mono)>, now: Mono, complaints: Vec<&'static str>) {
    for words in begun(told, now, complaints) {
        log::warn!("{words}");
    }
}

/// What is complained of and was not for a minute: figures at their limit go to and fro.
fn begun(
    told: &mut Vec<(&'static str, Mono)>,
    now: Mono,
    complaints: Vec<&'static str>,
) -> Vec<&'static str> {
    told.retain(|(_, last)| now.since_ns(*last) < QUIET_NS);
    let mut new = Vec::new();
    for words in complaints {
        match told.iter_mut().find(|(before, _)| *before == words) {
            Some((_, last)) => *last = now,
            None => {
                told.push((words, now));
                new.push(words);
            }
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::derate::Curve;
    use crate::runtime::health::{Events, Rail, Temperature};

    fn health(temperatures: &[f64], power_w: Option<f64>, count: u64) -> Health {
        Health {
            temperatures: temperatures
                .iter()
                .map(|now_c| Temperature {
                    name: "zone".into(),
                    now_c: *now_c,
                    trip_c: None,
                })
                .collect(),
            rails: power_w
                .map(|power_w| Rail {
                    name: "VDD_IN".into(),
                    power_w,
                })
                .into_iter()
                .collect(),
            over_current: vec![Events {
                name: "oc1".into(),
                count,
            }],
            ..Health::default()
        }
    }

    #[test]
    fn the_worst_of_what_is_declared_counts_and_what_cannot_be_read_is_the_worst() {
        let curve = |points: &[(f64, f64)]| Curve::new(points).expect("a curve");
        let config = DerateConfig {
            temperature: Some(curve(&[(80.0, 1.0), (100.0, 0.5)])),
            power: Some(("VDD_IN".into(), curve(&[(20.0, 1.0), (30.0, 0.2)]))),
            over_current: Some(0.3),
        };
        // Each from the start: what rises, rises slowly.
        let share = |health: &Health| {
            let mut watch = Watch {
                config: &config,
                throttled: 0,
                until: Mono(0),
                derate: Derate::default(),
            };
            watch.step(Mono(1), health)
        };
        for (health, wants, why) in [
            (health(&[40.0, 60.0], Some(10.0), 5), 1.0, "cool"),
            (health(&[40.0, 90.0], Some(10.0), 5), 0.75, "the hottest"),
            (health(&[90.0], Some(30.0), 5), 0.2, "the worst of two"),
            (health(&[], Some(10.0), 5), 0.5, "no zone answers"),
            (health(&[40.0], None, 5), 0.2, "no such rail"),
        ] {
            assert!(
                (share(&health) - wants).abs() < 1e-9,
                "{why}: {}",
                share(&health)
            );
        }
    }

    #[test]
    fn a_complaint_is_told_when_it_begins() {
        let mut told = Vec::new();
        let mut begun = |s: u64, now| begun(&mut told, Mono(s * 1_000 * MS), now);
        assert_eq!(begun(100, vec!["disk"]), ["disk"]);
        assert_eq!(begun(101, vec!["disk", "memory"]), ["memory"]);
        assert_eq!(begun(102, vec!["memory"]), [""; 0]);
        assert_eq!(begun(160, vec!["disk"]), [""; 0], "to and fro");
        assert_eq!(begun(219, vec!["memory"]), ["memory"], "anew");
        assert_eq!(begun(219, vec!["disk"]), [""; 0]);
    }

    #[test]
    fn a_disk_is_complained_of_in_time_for_the_second_and_not_before() {
        let at = |ms: u64| Mono(5_000 * MS + ms * MS);
        assert!(!unanswered(None, at(0)), "nobody writes");
        assert!(!unanswered(Some(at(0)), at(700)));
        // As late as this thread may look for the first time after that.
        assert!(unanswered(Some(at(0)), at(801)));
        assert!(!unanswered(Some(at(801)), at(802)), "it has answered");
    }

    #[test]
    fn a_throttle_counter_that_moves_slows_for_ten_seconds() {
        let config = DerateConfig {
            over_current: Some(0.5),
            ..DerateConfig::default()
        };
        let mut watch = Watch {
            config: &config,
            throttled: 0,
            until: Mono(0),
            derate: Derate::default(),
        };
        let mut at =
            |s: u64, count| watch.step(Mono(1 + s * 1_000 * MS), &health(&[], None, count));
        assert_eq!(at(0, 7), 1.0, "what was counted before is past");
        assert_eq!(at(1, 8), 0.5);
        assert_eq!(at(9, 8), 0.5);
        assert!(at(12, 8) > 0.5);
    }
}
