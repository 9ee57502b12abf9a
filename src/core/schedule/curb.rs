// SPDX-License-Identifier: Apache-2.0
//! The curb: no step is proposed that the limits in force forbid, whatever way to play the plan was found.
//!
//! Ways are judged at some moments of the time ahead, and where none fits the one that exceeds the limits least is taken. So what
//! comes out of a way is held against the limits once more, tick by tick, by the differences of what was proposed, as the
//! governor sees them. With period T, the step from `q` to `q'` has velocity `v' = (q' - q) / T`, acceleration
//! `a' = (v' - v) / T` and jerk `(a' - a) / T`. A step is kept if each of them is within its limit, and so is the velocity
//! that is there once the acceleration has been taken back by full jerk. Where such a state is left by an acceleration
//! that is lower by `J T` the next is such a state too: a step that keeps to all of them exists at every tick, and the nearest to
//! what is wished is proposed. The motion goes on from there by a new seam.
//!
//! Limits that shrink below what the robot does cannot be kept at once; then the step is the one that comes down to them
//! soonest.

use super::Schedule;
use super::pace::{InForce, Rates};
use super::seam::Motion;
use crate::core::action::JointKind;
use crate::core::units::Mono;

impl Schedule {
    /// Keeps each joint's next step within the limits in force. Whether any had to be changed.
    pub(super) fn curb(&mut self, motion: &mut Motion) -> bool {
        if self.last.is_none() {
            // Nothing was said before, not even where the robot is: as if it had always moved so.
            let back = |ticks: f64| motion.advanced(-1e-9 * ticks * self.config.period_ns as f64);
            self.trail = [3.0, 2.0, 1.0].map(|ticks| *back(ticks).position());
        }
        let [firsts, seconds, nows] = &self.trail;
        let before = firsts.iter().zip(seconds).zip(nows);
        let wishes = *motion.position();
        let joints = self.config.kinds.iter().zip(&self.curbs);
        self.curbed = false;
        for (joint, ((((first, second), now), wish), (kind, curb))) in
            before.zip(&wishes).zip(joints).enumerate()
        {
            if *kind == JointKind::Gripper {
                continue;
            }
            if let Some(step) = curb.kept([*first, *second, *now], *wish) {
                motion.set(joint, step.q, step.v, step.a);
                self.curbed = true;
            }
        }
        if self.curbed {
            self.slowing = None;
            self.ladder.curbed(self.config.period_ns);
        }
        self.curbed
    }

    /// Goes on from `before`, to which the curb has led, at the rate of play: by a seam as long as what is left of that which was
    /// found for the plan.
    pub(super) fn go_on(&mut self, before: &Motion, now: Mono) {
        let Some(plan) = self.plan() else { return };
        let rate = self.pace.rate();
        let after = super::curve::sample(&plan.merged, &self.config.kinds, now).at_rate(rate);
        let seam = self.seam_between(before, &after, now, 0);
        self.seam = seam.at_least(self.seam.left_ns(now));
    }
}

/// Share of a limit that a step may have which is chosen here: rounding of positions takes the rest.
const HAIR: f64 = 1.0 - 1e-6;

/// The limits in force of one joint, as they bound a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Curb {
    period_s: f64,
    velocity: f64,
    acceleration: f64,
    /// Of the acceleration, in one tick.
    step: f64,
}

/// The step that is made instead: where it ends, and the velocity and acceleration there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Kept {
    q: f64,
    v: f64,
    a: f64,
}

impl Curb {
    /// Under the limits in force.
    pub(super) fn of(limits: &Rates, in_force: InForce, period_s: f64) -> Curb {
        let rates = limits.of(in_force);
        Curb {
            period_s,
            velocity: rates.velocity_max,
            acceleration: rates.acceleration_max,
            step: rates.jerk_max * period_s,
        }
    }

    /// Where the joint goes instead of `wish`, if it may not go there, having been at the three positions one tick apart.
    pub(super) fn kept(&self, [first, second, now]: [f64; 3], wish: f64) -> Option<Kept> {
        let t = self.period_s;
        let v = (now - second) / t;
        let a = (v - (second - first) / t) / t;
        let v_wish = (wish - now) / t;
        let a_wish = (v_wish - v) / t;
        let within = a_wish.abs() <= self.acceleration
            && (a_wish - a).abs() <= self.step
            && v_wish + self.gained(a_wish) <= self.velocity
            && self.gained(-a_wish) - v_wish <= self.velocity;
        if within {
            return None;
        }
        let most = self.acceleration * HAIR;
        let step = self.back();
        // Of what jerk allows, what acceleration allows, or what is nearest to it.
        let low = (a - step).max(-most).min(a + step);
        let high = (a + step).min(most).max(a - step);
        let most = self.velocity * HAIR;
        let up = self.steepest(most - v).max(low);
        let down = (-self.steepest(most + v)).min(high);
        let a = a_wish.max(low).min(high).max(down).min(up);
        let v = v + a * t;
        Some(Kept {
            q: now + v * t,
            v: v + 0.5 * a * t,
            a,
        })
    }

    /// By how much the acceleration is taken back in one tick: what a step is chosen with. With a hair more the velocity would
    /// come out above its limit where many steps are needed.
    fn back(&self) -> f64 {
        self.step * HAIR
    }

    /// The velocity still gained while the acceleration `a` is taken back, 0 where that is none.
    fn gained(&self, a: f64) -> f64 {
        let steps = libm::floor(a / self.back()).max(0.0);
        self.period_s * steps * (a - 0.5 * self.back() * (steps + 1.0))
    }

    /// The acceleration of the next step with which the velocity, once it is taken back, will have grown by `room`. Piecewise
    /// linear: with `n` whole steps to take back it is `T ((n + 1) a - n (n + 1) step / 2)`.
    fn steepest(&self, room: f64) -> f64 {
        let (t, s) = (self.period_s, self.back());
        if room <= 0.0 {
            return room / t;
        }
        let n = libm::floor(0.5 * (libm::sqrt(1.0 + 8.0 * room / (t * s)) - 1.0));
        (room / t + 0.5 * s * n * (n + 1.0)) / (n + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Rates = Rates {
        velocity_max: 1.0,
        acceleration_max: 10.0,
        jerk_max: 500.0,
    };
    const T: f64 = 0.005;

    /// Velocity, acceleration and jerk of the last of four.
    fn rates(q: &[f64]) -> [f64; 3] {
        let v = |i: usize| (q[i] - q[i - 1]) / T;
        let a = |i: usize| (v(i) - v(i - 1)) / T;
        [v(3), a(3), (a(3) - a(2)) / T]
    }

    /// No tick exceeds a limit, and what is kept is passed by a second curb.
    fn drive(
        wishes: &[(f64, usize, f64)],
        (velocity, acceleration): (f64, f64),
    ) -> Result<(), TestCaseError> {
        let in_force = InForce {
            velocity,
            acceleration,
        };
        let curb = Curb::of(&LIMITS, in_force, T);
        let mut q = vec![0.0; 4];
        for (to, ticks, step) in wishes {
            for tick in 0..*ticks {
                let [.., first, second, now] = q[..] else {
                    unreachable!()
                };
                // A jump, or a ramp up to sixteen times too fast.
                let wish = if *step < 0.01 {
                    *to
                } else {
                    now + to.signum() * step * tick as f64 / 8.0
                };
                let next = curb
                    .kept([first, second, now], wish)
                    .map_or(wish, |kept| kept.q);
                let nearest = curb.kept([first, second, now], next);
                prop_assert!(nearest.is_none(), "{next} again {nearest:?}");
                q.push(next);
                let [v, a, j] = rates(&q[q.len() - 4..]);
                prop_assert!(
                    v.abs() <= velocity * (1.0 + 1e-9),
                    "velocity {v} of {velocity}: {}",
                    v.abs() / velocity - 1.0
                );
                prop_assert!(
                    a.abs() <= 10.0 * acceleration * (1.0 + 1e-9),
                    "acceleration {a}"
                );
                prop_assert!(j.abs() <= 500.0 * (1.0 + 1e-9), "jerk {j}");
            }
        }
        Ok(())
    }

    #[test]
    fn braking_in_many_steps_keeps_the_velocity() {
        let mut wishes = vec![(0.0, 2, 0.013061025302964612), (0.0, 21, 0.0)];
        wishes.extend([(0.0, 1, 0.0); 6]);
        drive(&wishes, (0.06800193069177864, 0.8177009733632646)).expect("no limit is exceeded");
    }

    proptest! {
        /// Whatever is wished, jumps and standstill by turns included.
        #[test]
        fn whatever_is_wished_no_limit_is_exceeded(
            wishes in prop::collection::vec((-1.0f64..1.0, 1usize..60, 0.0f64..0.02), 1..30),
            shares in (0.02f64..=1.0, 0.02f64..=1.0),
        ) {
            drive(&wishes, shares)?;
        }

        /// From any legal motion, limits that shrink are kept again after the time that full braking needs.
        #[test]
        fn limits_that_shrink_are_kept_again_soon(share in 0.05f64..1.0, to in -1.0f64..1.0) {
            let full = Curb::of(&LIMITS, InForce::FULL, T);
            let tight = Curb::of(&LIMITS, InForce { velocity: share, acceleration: share }, T);
            let mut q = vec![0.0; 4];
            for tick in 0..200 {
                let curb = if tick < 60 { full } else { tight };
                let [.., first, second, now] = q[..] else { unreachable!() };
                let wish = now + to.signum();
                q.push(curb.kept([first, second, now], wish).map_or(wish, |kept| kept.q));
                let [v, a, j] = rates(&q[q.len() - 4..]);
                prop_assert!(j.abs() <= 500.0 * (1.0 + 1e-9), "jerk {j}");
                // 20 ms for each way of the acceleration; from 1 to the share at what is left of it.
                if f64::from(tick - 60) * T > 0.05 + (1.0 - share) / (10.0 * share) {
                    prop_assert!(v.abs() <= share * (1.0 + 1e-9), "velocity {v} of {share}");
                    prop_assert!(a.abs() <= 10.0 * share * (1.0 + 1e-9), "acceleration {a}");
                }
            }
        }
    }

    #[test]
    fn what_keeps_to_the_limits_is_passed_as_it_is() {
        let curb = Curb::of(&LIMITS, InForce::FULL, T);
        let way = |tick: f64| 0.2 * (1.0 - libm::cos(4.0 * T * tick));
        for tick in 3..1_000 {
            let at = |back: f64| way(f64::from(tick) - back);
            assert_eq!(
                curb.kept([at(3.0), at(2.0), at(1.0)], at(0.0)),
                None,
                "{tick}"
            );
        }
    }
}
