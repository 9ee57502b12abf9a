// SPDX-License-Identifier: Apache-2.0
//! When the policy is asked for its next plan.
//!
//! | trigger | asks |
//! |---|---|
//! | continuous | whenever it is free, as often as is configured |
//! | horizon | once so many actions of the plan are done |
//! | queue | once no more than so many, or such a share, of its actions are left |
//! | surprise | once the robot is not where the plan has it, or the picture is not what it was; and by the last quarter |
//!
//! Whatever the trigger, it asks when there is no plan to follow, and when what is left is only just as long as plans have been
//! late: an engine that is slower than was thought is asked earlier, not too late. There is never more than one plan being
//! made; that is the caller's to see to.

use crate::core::units::Mono;

/// See the module's text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Trigger {
    /// Whenever it is free.
    #[default]
    Continuous,
    /// Once so many actions are done.
    Horizon {
        /// How many.
        actions: u16,
    },
    /// Once no more than this is left.
    Queue(Left),
    /// Once something is not as it was expected.
    Surprise {
        /// Largest way of a joint from where the plan has it, rad or m; infinite: not asked.
        tracking_max: f64,
        /// Largest mean change of the picture's brightness, of 1; infinite: not asked.
        scene_max: f32,
    },
}

/// What is left of a plan.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Left {
    /// So many actions.
    Actions(u16),
    /// This share of them, 0..1.
    Share(f64),
}

/// The share of a plan that is left when one that is never surprised is asked for the next.
const UNSURPRISED: Left = Left::Share(0.25);

/// The plan that is followed, in the policy's actions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// When its action 0 was due, as the schedule has placed it.
    pub first_at: Mono,
    /// Time between two actions.
    pub period_ns: u64,
    /// Its actions.
    pub actions: u16,
    /// It is not followed for longer: one that is played slower is over before its last action.
    pub until: Mono,
    /// From observation to hand-over, the longest of late; 0 while nothing is known.
    pub delay_ns: u64,
    /// Largest way of a joint from where the plan has it, rad or m.
    pub tracking: f64,
    /// Change of the picture since the plan's, of 1.
    pub scene: f32,
}

/// Why it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// There is nothing to follow.
    NoPlan,
    /// It is free.
    Free,
    /// The horizon is reached.
    Done,
    /// Little is left.
    Left,
    /// The next plan would otherwise come too late.
    Late,
    /// The robot is elsewhere.
    Tracking,
    /// The scene is another.
    Scene,
}

impl Trigger {
    /// Why the policy should be asked at `now`, if it should; `followed` is nothing where no plan is followed that obeys
    /// what was said last.
    #[must_use]
    pub fn due(&self, now: Mono, followed: Option<&Facts>) -> Option<Reason> {
        let Some(facts) = followed else {
            return Some(Reason::NoPlan);
        };
        let period_ns = facts.period_ns.max(1);
        let last = u64::from(facts.actions).saturating_sub(1);
        let end = facts.first_at.plus_ns(period_ns.saturating_mul(last));
        let end = end.min(facts.until);
        if end <= now {
            return Some(Reason::NoPlan);
        }
        let left_ns = end.since_ns(now);
        let is_left = |left: Left| {
            let most_ns = match left {
                Left::Actions(actions) => period_ns.saturating_mul(u64::from(actions)),
                Left::Share(share) => (share * period_ns.saturating_mul(last) as f64) as u64,
            };
            left_ns <= most_ns
        };
        let why = match self {
            Trigger::Continuous => Some(Reason::Free),
            Trigger::Horizon { actions } => {
                let done_ns = now.since_ns(facts.first_at);
                (done_ns >= period_ns.saturating_mul(u64::from(*actions))).then_some(Reason::Done)
            }
            Trigger::Queue(left) => is_left(*left).then_some(Reason::Left),
            Trigger::Surprise {
                tracking_max,
                scene_max,
            } => {
                // What is no number is a surprise too.
                if facts.tracking.is_nan() || facts.tracking > *tracking_max {
                    Some(Reason::Tracking)
                } else if facts.scene.is_nan() || facts.scene > *scene_max {
                    Some(Reason::Scene)
                } else {
                    is_left(UNSURPRISED).then_some(Reason::Left)
                }
            }
        };
        // One action more than the delay: the plan is still followed when the next one comes.
        let late = left_ns <= facts.delay_ns.saturating_add(period_ns);
        why.or(late.then_some(Reason::Late))
    }

    /// How long after a plan's action 0 it is asked for the next at the latest, for a plan of so many actions.
    #[must_use]
    pub fn latest_ns(&self, actions: u16, period_ns: u64) -> u64 {
        let last_ns = period_ns.saturating_mul(u64::from(actions).saturating_sub(1));
        match self {
            Trigger::Continuous => 0,
            Trigger::Horizon { actions } => period_ns.saturating_mul(u64::from(*actions)),
            Trigger::Queue(Left::Actions(left)) => {
                last_ns.saturating_sub(period_ns.saturating_mul(u64::from(*left)))
            }
            Trigger::Queue(Left::Share(share)) => ((1.0 - share) * last_ns as f64) as u64,
            Trigger::Surprise { .. } => last_ns - last_ns / 4,
        }
    }
}

/// Samples a row and a column.
const GRID: usize = 24;

/// A picture's brightness at some places: enough to tell that something has changed, and cheap.
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    grid: [u8; GRID * GRID],
}

impl Glance {
    /// Of a picture `[height][width][3]` of bytes; places that it does not have are black.
    #[must_use]
    pub fn of(rgb: &[u8], width: usize, height: usize) -> Glance {
        let mut grid = [0; GRID * GRID];
        for (index, slot) in grid.iter_mut().enumerate() {
            let x = (2 * (index % GRID) + 1) * width / (2 * GRID);
            let y = (2 * (index / GRID) + 1) * height / (2 * GRID);
            let start = 3 * (y * width + x);
            if let Some([r, g, b]) = rgb.get(start..start + 3) {
                // Rec. 601's weights of brightness, in 256ths.
                let sum = 77 * u32::from(*r) + 150 * u32::from(*g) + 29 * u32::from(*b);
                *slot = (sum >> 8) as u8;
            }
        }
        Glance { grid }
    }

    /// Mean change of brightness, 0..1. A change of all by the same is a lamp or the exposure, and is left out.
    #[must_use]
    pub fn change(&self, other: &Glance) -> f32 {
        let places = (GRID * GRID) as f32;
        let apart = |(a, b): (&u8, &u8)| f32::from(*a) - f32::from(*b);
        let mean = self.grid.iter().zip(&other.grid).map(apart).sum::<f32>() / places;
        let off = self.grid.iter().zip(&other.grid);
        off.map(|pair| (apart(pair) - mean).abs()).sum::<f32>() / (255.0 * places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::units::MS;
    use proptest::prelude::*;

    const PLAN: Facts = Facts {
        first_at: Mono(1_000 * MS),
        period_ns: 50 * MS,
        actions: 16,
        until: Mono(u64::MAX),
        delay_ns: 0,
        tracking: 0.0,
        scene: 0.0,
    };
    const SURPRISE: Trigger = Trigger::Surprise {
        tracking_max: 0.1,
        scene_max: 0.05,
    };

    /// The first millisecond after action 0 at which it asks, and why.
    fn first(trigger: Trigger, facts: &Facts) -> (u64, Reason) {
        (0..4_000)
            .find_map(|ms| {
                Some((
                    ms,
                    trigger.due(facts.first_at.plus_ns(ms * MS), Some(facts))?,
                ))
            })
            .expect("it asks at some time")
    }

    #[test]
    fn each_trigger_asks_when_it_says() {
        for (trigger, wanted) in [
            (Trigger::Continuous, (0, Reason::Free)),
            (Trigger::Horizon { actions: 8 }, (400, Reason::Done)),
            (Trigger::Queue(Left::Actions(4)), (550, Reason::Left)),
            (Trigger::Queue(Left::Share(0.5)), (375, Reason::Left)),
            (SURPRISE, (563, Reason::Left)),
        ] {
            assert_eq!(first(trigger, &PLAN), wanted, "{trigger:?}");
            assert_eq!(trigger.due(Mono(0), None), Some(Reason::NoPlan));
            let after = Mono(1_750 * MS);
            assert_eq!(trigger.due(after, Some(&PLAN)), Some(Reason::NoPlan));
        }
    }

    /// Slowed while the limits are tighter, it never gets to its last action.
    #[test]
    fn a_plan_that_is_played_slower_is_short() {
        let slowed = Facts {
            until: Mono(1_600 * MS),
            ..PLAN
        };
        let queue = Trigger::Queue(Left::Actions(4));
        assert_eq!(first(queue, &slowed), (400, Reason::Left));
        assert_eq!(
            queue.due(Mono(1_600 * MS), Some(&slowed)),
            Some(Reason::NoPlan)
        );
    }

    #[test]
    fn a_surprise_asks_at_once() {
        let at = Mono(1_010 * MS);
        let with = |tracking, scene| Facts {
            tracking,
            scene,
            ..PLAN
        };
        assert_eq!(SURPRISE.due(at, Some(&with(0.1, 0.05))), None);
        assert_eq!(
            SURPRISE.due(at, Some(&with(0.11, 0.0))),
            Some(Reason::Tracking)
        );
        assert_eq!(
            SURPRISE.due(at, Some(&with(f64::NAN, 0.0))),
            Some(Reason::Tracking)
        );
        assert_eq!(
            SURPRISE.due(at, Some(&with(0.0, 0.06))),
            Some(Reason::Scene)
        );
        let deaf = Trigger::Surprise {
            tracking_max: f64::INFINITY,
            scene_max: 0.05,
        };
        assert_eq!(deaf.due(at, Some(&with(9.0, 0.0))), None);
    }

    proptest! {
        /// However slow the engine has shown itself, it is asked while the plan still lasts for one action longer than that,
        /// and never later than it says.
        #[test]
        fn a_slow_engine_is_asked_in_time(
            delay_ms in 0u64..700,
            actions in 2u16..60,
            trigger in prop::sample::select(vec![
                Trigger::Horizon { actions: 40 },
                Trigger::Queue(Left::Actions(1)),
                Trigger::Queue(Left::Share(0.0)),
                SURPRISE,
            ]),
        ) {
            let facts = Facts { delay_ns: delay_ms * MS, actions, ..PLAN };
            let (at_ms, _) = first(trigger, &facts);
            let length_ms = 50 * u64::from(actions - 1);
            prop_assert!(at_ms == 0 || at_ms + delay_ms <= length_ms, "{at_ms} {delay_ms} {length_ms}");
            let latest_ms = trigger.latest_ns(actions, facts.period_ns).div_ceil(MS);
            prop_assert!(at_ms <= latest_ms);
        }
    }

    #[test]
    fn a_glance_sees_what_moves_and_not_the_lamp() {
        let (width, height) = (64, 48);
        let picture = |shift: usize, brighter: u8| -> Vec<u8> {
            (0..width * height)
                .flat_map(|at| {
                    let (x, y) = (at % width, at / width);
                    let block = (20 + shift..36 + shift).contains(&x) && (16..32).contains(&y);
                    [if block { 200 } else { 40 } + brighter; 3]
                })
                .collect()
        };
        let glance = |shift, brighter| Glance::of(&picture(shift, brighter), width, height);
        let still = glance(0, 0);
        assert_eq!(still.change(&glance(0, 0)), 0.0);
        assert!(still.change(&glance(0, 30)) < 1e-6);
        assert!(still.change(&glance(12, 0)) > 0.05);
        assert!(Glance::of(&[], 64, 48).change(&still) > 0.0);
    }
}
