// SPDX-License-Identifier: Apache-2.0
//! One joint's legal step: position, velocity, acceleration and jerk, such that a legal stop always exists.
//!
//! Discrete time: the step to `q'` has velocity `v' = (q' - q) / T`, acceleration `(v' - v) / T` and jerk by the same
//! difference once more. A step is legal ([`Bounds::legal`]) if all of them are within limits *and* the stop of
//! [`super::stop`] that begins there stays inside the position limits and does not coast above the velocity limit.
//! The stop's own next step leads to a state whose stop is the rest of the same stop, so it is always legal: a legal
//! step exists at every tick, whatever is asked. That is the whole proof; all else here is about choosing well.
//!
//! A setpoint that cannot be met is approached ([`Bounds::toward`]) by the fastest step from which the joint can still
//! come to rest *relative to the setpoint* without passing it. So a jump becomes the time-optimal jerk-limited motion
//! without overshoot, a moving setpoint is caught up with and then followed bit for bit, and a setpoint beyond a
//! position limit ends on the limit. Clamping each derivative in turn, as rate limiters do, was rejected: it knows
//! nothing of the way to rest, and passes the setpoint by the stopping distance.
//!
//! Rounding: while the governor shapes, `v` and `a` are carried in full precision, and the limits are kept inside by
//! what rounding of positions can add ([`Bounds::new`]); a setpoint that is passed is judged by the differences of what
//! was *emitted*, with half of the tolerated [`ROUNDING`] allowed. So the differences of the emitted positions keep to
//! each limit, and a second governor passes what the first emitted.

use super::limits::{BadLimits, JointLimits, STOP_TICKS_MAX};
use super::stop::{Brake, Rest};

/// Share of a limit by which differences of emitted positions may exceed it: rounding, and nothing else.
pub const ROUNDING: f64 = 1e-9;

/// Most refinements of a step that is approached. The function is smooth and monotone; eight reach 1e-9 of the
/// bracket in practice, and a coarser answer is legal too, only not quite as fast.
const REFINEMENTS_MAX: usize = 10;

/// One joint as last emitted: position, the velocity by which it was reached, the acceleration by which that was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Axis {
    /// rad or m.
    pub q: f64,
    /// Per second.
    pub v: f64,
    /// Per second squared.
    pub a: f64,
}

/// Why a step is not legal. The number is its code in verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Limit {
    /// The position lies outside.
    Position = 1,
    /// Too fast, or about to be: the acceleration could not be taken back in time.
    Velocity = 2,
    /// Too much acceleration.
    Acceleration = 3,
    /// Too much jerk.
    Jerk = 4,
    /// No stop from there ends inside the position limits.
    StopDistance = 5,
    /// Legal by itself, and slowed for a joint that is not.
    Together = 6,
    /// The stop from there would leave the workspace.
    Workspace = 7,
    /// The stop from there would enter a keep-out box.
    KeepOut = 8,
    /// The stop from there would bring two parts of the robot too near to one another.
    SelfCollision = 9,
}

/// Limits of one joint as they are in force, in the form that a tick needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    position_min: f64,
    position_max: f64,
    velocity_max: f64,
    /// In force now: scaled.
    velocity: f64,
    period_s: f64,
    brake: Brake,
    /// What a step may have: the limits themselves, with half of [`ROUNDING`].
    velocity_most: f64,
    acceleration_most: f64,
    step_most: f64,
    /// Rounding of one emitted position.
    grain: f64,
    /// Rounding that a stop from full speed may gather, kept free at each position limit.
    margin: f64,
    /// What rounding of positions takes from the velocity limit.
    velocity_noise: f64,
}

impl Bounds {
    /// Of a joint that is not there: nothing moves.
    pub(super) const NONE: Bounds = Bounds {
        position_min: 0.0,
        position_max: 0.0,
        velocity_max: 1.0,
        velocity: 0.0,
        period_s: 1.0,
        brake: Brake::NONE,
        velocity_most: 0.0,
        acceleration_most: 0.0,
        step_most: 0.0,
        grain: 0.0,
        margin: 0.0,
        velocity_noise: 0.0,
    };

    /// Bounds at a period, with the acceleration scaled by `share` (> 0 ..= 1) and the velocity not yet scaled.
    ///
    /// # Errors
    /// [`BadLimits::TooFine`] where 64-bit positions are too coarse for the limit, [`BadLimits::StopTooLong`].
    pub fn new(
        joint: usize,
        limits: &JointLimits,
        period_s: f64,
        share: f64,
    ) -> Result<Bounds, BadLimits> {
        let reach = limits.position_min.abs().max(limits.position_max.abs());
        let grain = f64::EPSILON * reach.max(f64::MIN_POSITIVE);
        // A position is off by half a grain at most; the n-th difference of positions by 2^(n-1) grains over T^n. What
        // is planned keeps inside by that much, so that the differences of what is emitted keep to the limit.
        let inside = |name, limit: f64, noise: f64| {
            let kept = limit - noise;
            let kept_enough = kept >= 0.5 * limit;
            if kept_enough {
                Ok(kept)
            } else {
                Err(BadLimits::TooFine {
                    joint,
                    limit: name,
                    least: 2.0 * noise,
                })
            }
        };
        let velocity_noise = grain / period_s;
        let acceleration_noise = 2.0 * grain / (period_s * period_s);
        let jerk_noise = 4.0 * grain / (period_s * period_s * period_s);
        let velocity = inside("velocity_max", limits.velocity_max, velocity_noise)?;
        let acceleration = inside(
            "acceleration_max",
            limits.acceleration_max,
            acceleration_noise,
        )? * share;
        let jerk = inside("jerk_max", limits.jerk_max, jerk_noise)?;
        let brake = Brake::new(acceleration, jerk, period_s);
        let ticks = brake.rest(velocity, 0.0).ticks;
        // Written so that a NaN fails.
        let short = ticks <= STOP_TICKS_MAX;
        if !short {
            return Err(BadLimits::StopTooLong {
                joint,
                ticks: ticks as u64,
            });
        }
        let most = 1.0 + 0.5 * ROUNDING;
        Ok(Bounds {
            position_min: limits.position_min,
            position_max: limits.position_max,
            velocity_max: limits.velocity_max,
            velocity,
            period_s,
            brake,
            velocity_most: most * limits.velocity_max,
            acceleration_most: most * limits.acceleration_max * share,
            step_most: most * limits.jerk_max * period_s,
            grain,
            margin: grain * (2.0 * ticks * ticks + 8.0 * ticks + 64.0),
            velocity_noise,
        })
    }

    /// Bounds of a line along which several joints move; its position is counted in lengths of the line.
    #[must_use]
    pub fn of_line(velocity: f64, brake: Brake, period_s: f64) -> Bounds {
        // The joints' own position limits, and what may be passed, are judged joint by joint.
        Bounds {
            position_min: f64::MIN,
            position_max: f64::MAX,
            velocity,
            period_s,
            brake,
            ..Bounds::NONE
        }
    }

    /// `q`, or the position limit that it is beyond.
    #[must_use]
    pub fn inside(&self, q: f64) -> f64 {
        q.max(self.position_min).min(self.position_max)
    }

    /// Where the stop from `axis` ends.
    #[must_use]
    pub fn place_of_rest(&self, axis: Axis) -> f64 {
        axis.q + self.brake.rest(axis.v, axis.a).end
    }

    /// The stop's arithmetic.
    #[must_use]
    pub fn brake(&self) -> &Brake {
        &self.brake
    }

    /// Velocity by which joints of different kinds are compared: the limit before scaling.
    #[must_use]
    pub fn scale(&self) -> f64 {
        self.velocity_max
    }

    /// Velocity in force.
    #[must_use]
    pub fn velocity(&self) -> f64 {
        self.velocity
    }

    /// Puts a velocity limit in force: the joint's times `share` (0 ..= 1). At any time, also while moving: how far
    /// a stop goes does not depend on it.
    pub fn scale_velocity(&mut self, share: f64) {
        let limit = self.velocity_max * share;
        self.velocity = (limit - self.velocity_noise).max(0.0);
        self.velocity_most = (1.0 + 0.5 * ROUNDING) * limit;
    }

    /// Where a step to position `q` leads, by differences of what was emitted.
    #[must_use]
    pub fn reached(&self, from: Axis, q: f64) -> Axis {
        // Divided, not multiplied by the reciprocal: whoever checks the emitted positions will divide, and the two
        // differ in the last place.
        let v = (q - from.q) / self.period_s;
        Axis {
            q,
            v,
            a: (v - from.v) / self.period_s,
        }
    }

    /// Where an acceleration `a` for this tick leads.
    fn stepped(&self, from: Axis, a: f64) -> Axis {
        let v = self.brake.after(from.v, a);
        Axis {
            q: from.q + v * self.period_s,
            v,
            a,
        }
    }

    /// Where a velocity `v` for this tick leads.
    #[must_use]
    pub fn moved(&self, from: Axis, v: f64) -> Axis {
        Axis {
            q: from.q + v * self.period_s,
            v,
            a: (v - from.v) / self.period_s,
        }
    }

    /// Whether a setpoint may be passed: whether the step to it, by differences of what was emitted, is legal.
    ///
    /// # Errors
    /// The first limit in its way.
    pub fn legal(&self, from: Axis, to: Axis) -> Result<(), Limit> {
        let most = (self.velocity_most, self.acceleration_most, self.step_most);
        self.judge(from, to, most, |ticks| ticks + 8.0)
    }

    /// The same for a step that the governor has planned: strict enough for what rounding makes of it, and of the stop
    /// that follows, once both are emitted.
    ///
    /// # Errors
    /// The first limit in its way.
    pub fn plannable(&self, from: Axis, to: Axis) -> Result<(), Limit> {
        // Half of what a passed setpoint is allowed: the next governor must pass it.
        let hair = 1.0 + 0.25 * ROUNDING;
        let most = (
            hair * self.velocity,
            hair * self.brake.acceleration(),
            hair * self.brake.step(),
        );
        self.judge(from, to, most, |ticks| {
            1.5 * ticks * ticks + 4.0 * ticks + 32.0
        })
    }

    /// `most`: velocity, acceleration, and change of acceleration; `grains`: what is kept free at a position limit
    /// before a stop of so many ticks.
    fn judge(
        &self,
        from: Axis,
        to: Axis,
        most: (f64, f64, f64),
        grains: impl Fn(f64) -> f64,
    ) -> Result<(), Limit> {
        // Every comparison is written so that a NaN fails it.
        let inside = to.q >= self.position_min && to.q <= self.position_max;
        if !inside {
            return Err(Limit::Position);
        }
        // Above a limit that was lowered meanwhile, only towards it.
        let slower = to.v.abs() <= from.v.abs() && to.v * from.v >= 0.0;
        let slow_enough = to.v.abs() <= most.0 || slower;
        if !slow_enough {
            return Err(Limit::Velocity);
        }
        let gentle = to.a.abs() <= most.1;
        if !gentle {
            return Err(Limit::Acceleration);
        }
        let smooth = (to.a - from.a).abs() <= most.2;
        if !smooth {
            return Err(Limit::Jerk);
        }
        let rest = self.brake.rest(to.v, to.a);
        let coasts_inside = rest.coast.abs() <= most.0;
        if !coasts_inside {
            return Err(Limit::Velocity);
        }
        self.rests_inside(to.q, &rest, self.grain * grains(rest.ticks))
            .ok_or(Limit::StopDistance)
    }

    /// Whether a stop that starts at `q` stays inside the position limits, by a margin unless it goes nowhere.
    fn rests_inside(&self, q: f64, rest: &Rest, margin: f64) -> Option<()> {
        let nowhere = rest.end == 0.0 && rest.turn == 0.0;
        let low = q + rest.end.min(rest.turn) - margin;
        let high = q + rest.end.max(rest.turn) + margin;
        (nowhere || low >= self.position_min && high <= self.position_max).then_some(())
    }

    /// Whether the acceleration and the stop are within these bounds, with velocities up to `velocity_most`: whether
    /// they may come into force while the joint moves like this. Its velocity is brought within them afterwards.
    #[must_use]
    pub fn keeps(&self, axis: Axis, velocity_most: f64) -> bool {
        let rest = self.brake.rest(axis.v, axis.a);
        let margin = self.grain * (rest.ticks + 8.0);
        axis.a.abs() <= self.brake.acceleration()
            && rest.coast.abs() <= velocity_most
            && self.rests_inside(axis.q, &rest, margin).is_some()
    }

    /// The first step of the stop, which is legal. Kept inside the range against the last bit of rounding, for which
    /// the margin of [`Bounds::legal`] leaves room.
    #[must_use]
    pub fn stop(&self, from: Axis) -> Axis {
        let to = self.stop_unchecked(from);
        Axis {
            q: self.inside(to.q),
            ..to
        }
    }

    /// The first step of the stop by these bounds of a joint that moves under others: to be checked by those.
    #[must_use]
    pub fn stop_unchecked(&self, from: Axis) -> Axis {
        self.stepped(from, self.brake.next(from.v, from.a))
    }

    /// The legal step that best approaches a setpoint: where it is at this tick, its velocity and its acceleration,
    /// all finite.
    #[must_use]
    pub fn toward(&self, from: Axis, wish: Axis) -> Axis {
        let low = (from.a - self.brake.step())
            .max(-self.brake.acceleration())
            .max(-self.brake.approach(self.velocity + from.v));
        let high = (from.a + self.brake.step())
            .min(self.brake.acceleration())
            .min(self.brake.approach(self.velocity - from.v));
        let possible = low <= high;
        if !possible {
            return self.stop(from);
        }
        // Whoever moves as this joint cannot, or beyond its limits, is not followed but gone after: the joint would
        // swing past it by the whole way that it needs to turn.
        let possible = wish.v.abs() <= self.velocity * (1.0 + ROUNDING)
            && wish.a.abs() <= self.brake.acceleration() * (1.0 + ROUNDING)
            && self.inside(wish.q) == wish.q;
        let goal = if possible {
            wish
        } else {
            Axis {
                q: self.inside(wish.q),
                v: 0.0,
                a: 0.0,
            }
        };
        let wish = self.arrive(from, goal, low, high).best;
        let best = self.stepped(from, wish);
        if self.plannable(from, best).is_ok() {
            return best;
        }
        // The setpoint moves towards a position limit: rest there instead.
        let at_limit = |q: f64| Axis { q, v: 0.0, a: 0.0 };
        let a = if self.brake.rest(best.v, best.a).end >= 0.0 {
            self.arrive(from, at_limit(self.position_max - self.margin), low, wish)
                .before
        } else {
            self.arrive(from, at_limit(self.position_min + self.margin), wish, high)
                .past
        };
        let limited = self.stepped(from, a);
        if self.plannable(from, limited).is_ok() {
            limited
        } else {
            self.stop(from)
        }
    }

    /// The acceleration in `low ..= high` after which the stop, relative to a goal that moves on as it does now, ends on
    /// the goal.
    fn arrive(&self, from: Axis, goal: Axis, low: f64, high: f64) -> Arrival {
        let miss = |a: f64| {
            let v = from.v + a * self.period_s;
            from.q - goal.q + v * self.period_s + self.brake.rest(v - goal.v, a - goal.a).end
        };
        let (mut before, mut past) = (low, high);
        let (mut miss_before, mut miss_past) = (miss(before), miss(past));
        if miss_before >= 0.0 {
            return Arrival {
                before: low,
                best: low,
                past: low,
            };
        }
        if miss_past <= 0.0 {
            return Arrival {
                before: high,
                best: high,
                past: high,
            };
        }
        // Regula falsi, Illinois variant: halving the weight of a side that stays keeps both sides moving.
        let mut best = low;
        for _ in 0..REFINEMENTS_MAX {
            best = (past - miss_past * (past - before) / (miss_past - miss_before))
                .max(before)
                .min(past);
            let here = miss(best);
            if here.abs() <= self.grain {
                break;
            }
            if here < 0.0 {
                (before, miss_before) = (best, here);
                miss_past *= 0.5;
            } else {
                (past, miss_past) = (best, here);
                miss_before *= 0.5;
            }
        }
        Arrival { before, best, past }
    }
}

/// An acceleration for this tick, in a bracket: `before` ends short of the target, `past` on it or beyond.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    before: f64,
    best: f64,
    past: f64,
}
