// SPDX-License-Identifier: Apache-2.0
//! Pace: how fast the plan's own time passes, so that what is proposed stays within the limits in force.
//!
//! A plan that asks for more than the robot may do now (in the time after arming, at a share of its speed) is played
//! slower, all joints by the same rate: the path stays what the policy meant and only time stretches. The rate is
//! constant between two seams and chosen anew at each of them, for the plan and its seam together (`ahead.rs`); what it
//! changes in velocity and acceleration the seam fades like any other difference, so the setpoints stay C2. Where the
//! robot would have to hurry after the plan, the plan is put off instead.
//!
//! Time stays a fact: whatever the plan has lost against the clock is put on record ([`Pace`]). The robot is simply
//! behind. A chunk that was observed while the plan was played slower begins where the robot was seen, not where it
//! would have been.

use super::seam::Bound;
use crate::core::units::Mono;

/// What the governor allows a joint at most, per s, s2 and s3 of its unit; all > 0. A gripper's are not read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Of its position.
    pub velocity_max: f64,
    /// Of its velocity.
    pub acceleration_max: f64,
    /// Of its acceleration.
    pub jerk_max: f64,
}

/// Which share of the limits is in force, each 0 ..= 1; jerk is never scaled. The governor's word, a tick old.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InForce {
    /// Of the velocity limits.
    pub velocity: f64,
    /// Of the acceleration limits.
    pub acceleration: f64,
}

impl InForce {
    /// All of them.
    pub const FULL: InForce = InForce {
        velocity: 1.0,
        acceleration: 1.0,
    };

    /// Whether something is tighter than in `other`.
    #[must_use]
    pub fn is_tighter_than(self, other: InForce) -> bool {
        self.velocity < other.velocity || self.acceleration < other.acceleration
    }
}

impl Default for InForce {
    fn default() -> Self {
        InForce::FULL
    }
}

/// The share of a joint's acceleration and jerk that a seam may use. The rest is the policy's, whose own motion is
/// added to it.
const SEAM_SHARE: f64 = 0.8;
/// Share of a limit that what is planned may use: it is looked at here and there only, and the governor also asks what
/// a stop from there needs.
const ROOM: f64 = 0.95;
/// The same of jerk, whose largest value is known.
const ROOM_JERK: f64 = 0.95;
/// No limit in force is taken for less than this share: to plan for standing still is the governor's work.
const SHARE_MIN: f64 = 0.02;

impl Rates {
    /// What of these is in force.
    #[must_use]
    pub(super) fn of(&self, in_force: InForce) -> Rates {
        Rates {
            velocity_max: self.velocity_max * in_force.velocity.max(SHARE_MIN),
            acceleration_max: self.acceleration_max * in_force.acceleration.max(SHARE_MIN),
            ..*self
        }
    }

    /// What may be planned for under the limits in force.
    #[must_use]
    pub(super) fn most(&self, in_force: InForce) -> Most {
        let rates = self.of(in_force);
        Most {
            per_velocity: 1.0 / (ROOM * rates.velocity_max),
            per_acceleration: 1.0 / (ROOM * rates.acceleration_max),
            per_jerk: 1.0 / (ROOM_JERK * rates.jerk_max),
            coast: 0.5 / rates.jerk_max,
        }
    }

    /// What a seam may add under the limits in force.
    #[must_use]
    pub fn bound(&self, in_force: InForce) -> Bound {
        let rates = self.of(in_force);
        Bound {
            acceleration_max: SEAM_SHARE * rates.acceleration_max,
            jerk_max: SEAM_SHARE * rates.jerk_max,
        }
    }
}

/// What of a joint's limits may be planned for, as what is found of it is held against them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Most {
    /// 1 over each.
    pub(super) per_velocity: f64,
    pub(super) per_acceleration: f64,
    pub(super) per_jerk: f64,
    /// 1 over twice the jerk limit: acceleration squared, times this, is the velocity that taking it back adds.
    pub(super) coast: f64,
}

impl Most {
    /// Of what has none.
    pub(super) const NO_LIMIT: Most = Most {
        per_velocity: 0.0,
        per_acceleration: 0.0,
        per_jerk: 0.0,
        coast: 0.0,
    };
}

/// Rates are whole numbers of these, so that a robot that is held does not change its rate at each tick.
const GRAIN: f64 = 1.0 / 256.0;
/// A plan is not played slower than this: what does not fit then is not a matter of pace.
pub const RATE_MIN: f64 = 16.0 * GRAIN;

/// A rate of at most `wanted`, but for the least there is.
#[must_use]
pub fn rate_below(wanted: f64) -> f64 {
    // The cast rounds towards zero, and a NaN to it.
    let grains = (wanted / GRAIN) as u32;
    (f64::from(grains) * GRAIN).clamp(RATE_MIN, 1.0)
}

/// A time in which the rate is constant.
#[derive(Clone, Copy, Debug)]
struct Leg {
    from: Mono,
    rate: f64,
    /// Lost before it.
    lost_ns: u64,
}

impl Leg {
    /// Lost by `at`, which is not before the leg.
    fn lost_ns(&self, at: Mono) -> u64 {
        let lost_ns = (1.0 - self.rate) * at.since_ns(self.from) as f64;
        self.lost_ns.saturating_add(lost_ns as u64)
    }
}

/// How many legs are remembered: at a new rate with each chunk, as many chunks as anybody has on their way; what was
/// observed before the oldest counts as observed then.
const LEGS: usize = 128;

/// The rate in force, and what the plan's time has lost against the clock.
#[derive(Clone, Debug)]
pub struct Pace {
    leg: Leg,
    before: heapless::HistoryBuf<Leg, LEGS>,
    /// What of it the plan has been put off by.
    counted_ns: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            leg: Leg {
                from: Mono(0),
                rate: 1.0,
                lost_ns: 0,
            },
            before: heapless::HistoryBuf::new(),
            counted_ns: 0,
        }
    }
}

impl Pace {
    /// The rate in force: plan seconds a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.leg.rate
    }

    /// Plays at `rate` from `now` on.
    pub fn set(&mut self, now: Mono, rate: f64) {
        if rate == self.leg.rate {
            return;
        }
        self.before.write(self.leg);
        self.leg = Leg {
            from: now,
            rate,
            lost_ns: self.leg.lost_ns(now),
        };
    }

    /// Loses so much at once.
    pub fn lose(&mut self, now: Mono, ns: u64) {
        if ns == 0 {
            return;
        }
        self.before.write(self.leg);
        self.leg = Leg {
            from: now,
            lost_ns: self.leg.lost_ns(now).saturating_add(ns),
            ..self.leg
        };
    }

    /// What was lost since this was last asked.
    pub fn pass(&mut self, now: Mono) -> u64 {
        let lost_ns = self.leg.lost_ns(now);
        let new_ns = lost_ns.saturating_sub(self.counted_ns);
        self.counted_ns = lost_ns;
        new_ns
    }

    /// What was lost from `then` until [`Pace::pass`] was last asked.
    #[must_use]
    pub fn lost_since(&self, then: Mono) -> u64 {
        let legs = self.before.oldest_ordered().chain([&self.leg]);
        let lost_ns = legs
            .clone()
            .take_while(|leg| leg.from <= then)
            .last()
            .map(|leg| leg.lost_ns(then))
            .or_else(|| legs.clone().next().map(|oldest| oldest.lost_ns));
        self.counted_ns.saturating_sub(lost_ns.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::units::MS;

    #[test]
    fn what_was_lost_is_known_for_each_moment() {
        let mut pace = Pace::default();
        assert_eq!(pace.pass(Mono(100 * MS)), 0);
        pace.set(Mono(100 * MS), 0.5);
        assert_eq!(pace.pass(Mono(200 * MS)), 50 * MS);
        pace.set(Mono(200 * MS), 0.75);
        assert_eq!(pace.pass(Mono(300 * MS)), 25 * MS);
        pace.set(Mono(300 * MS), 1.0);
        assert_eq!(pace.pass(Mono(900 * MS)), 0);
        for (then_ms, lost_ms) in [
            (50, 75),
            (100, 75),
            (150, 50),
            (220, 20),
            (300, 0),
            (800, 0),
        ] {
            assert_eq!(
                pace.lost_since(Mono(then_ms * MS)),
                lost_ms * MS,
                "{then_ms}"
            );
        }
    }

    #[test]
    fn what_is_older_than_the_record_counts_as_its_oldest() {
        let mut pace = Pace::default();
        for leg in 0..200 {
            let rate = if leg % 2 == 0 { 0.5 } else { 1.0 };
            pace.set(Mono(leg * 10 * MS), rate);
            pace.pass(Mono((leg + 1) * 10 * MS));
        }
        // 128 legs remembered and the last: half of the 1,290 ms since was played at half rate.
        assert_eq!(pace.lost_since(Mono(0)), 320 * MS);
    }

    #[test]
    fn a_rate_is_never_above_what_is_wanted_nor_below_the_least() {
        for (wanted, rate) in [
            (1.7, 1.0),
            (0.999, 255.0 / 256.0),
            (0.5, 0.5),
            (0.0, RATE_MIN),
        ] {
            assert_eq!(rate_below(wanted), rate, "{wanted}");
        }
        assert_eq!(rate_below(f64::NAN), RATE_MIN);
    }
}
