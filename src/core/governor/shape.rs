// SPDX-License-Identifier: Apache-2.0
//! One joint's legal step: position, velocity and acceleration limits, such that a legal stop always exists.
//!
//! Discrete time: with the period T, the step to `q'` has velocity `v' = (q' - q) / T` and acceleration `(v' - v) / T`.
//! A step is legal if both are within limits and the joint can still come to rest inside its position limits when it
//! brakes at full deceleration from there. Since the stop from the previous step was legal, its first step always is:
//! a legal step exists at every tick, whatever is asked.

/// Limits of one joint; rad, m per its kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JointLimits {
    /// Lowest position.
    pub position_min: f64,
    /// Highest position.
    pub position_max: f64,
    /// Highest speed, either way, per second.
    pub velocity_max: f64,
    /// Highest acceleration, either way, per second squared.
    pub acceleration_max: f64,
}

/// What of a limit may be exceeded by rounding.
pub const ROUNDING: f64 = 1e-9;

/// Position and velocity of one joint as last emitted.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Axis {
    /// Position.
    pub q: f64,
    /// Velocity by which it was reached.
    pub v: f64,
}

impl JointLimits {
    /// How far the joint travels, after the current step, when it brakes from speed `v` (any sign): the sum of the
    /// remaining steps' lengths. Closed form of `T * sum_k (|v| - k a T)` over the whole steps that it takes.
    fn stopping_distance(&self, v: f64, period_s: f64) -> f64 {
        let per_step = self.acceleration_max * period_s;
        let steps = (v.abs() / per_step).floor();
        period_s * (steps * v.abs() - per_step * steps * (steps + 1.0) / 2.0).max(0.0)
    }

    /// Whether a step from `axis` to position `q` is legal.
    #[must_use]
    pub fn allows(&self, axis: Axis, q: f64, period_s: f64) -> bool {
        let v = (q - axis.q) / period_s;
        let end = q + self.stopping_distance(v, period_s).copysign(v);
        let room = ROUNDING * (self.position_max - self.position_min);
        // Written so that a NaN anywhere is not legal.
        v.abs() <= self.velocity_max * (1.0 + ROUNDING)
            && (v - axis.v).abs() <= self.acceleration_max * period_s * (1.0 + ROUNDING)
            && (self.position_min..=self.position_max).contains(&q)
            && end >= self.position_min - room
            && end <= self.position_max + room
    }

    /// The first step of the fastest stop.
    #[must_use]
    pub fn brake(&self, axis: Axis, period_s: f64) -> Axis {
        let per_step = self.acceleration_max * period_s;
        let v = if axis.v.abs() <= per_step {
            0.0
        } else {
            axis.v - per_step.copysign(axis.v)
        };
        Axis {
            q: (axis.q + v * period_s).clamp(self.position_min, self.position_max),
            v,
        }
    }

    /// The legal step nearest to `q`, which must be finite. Between the stop, which is legal, and the wish, which is
    /// not, the border is found by bisection: 50 halvings of at most one step's length are below rounding.
    #[must_use]
    pub fn nearest(&self, axis: Axis, q: f64, period_s: f64) -> Axis {
        let stop = self.brake(axis, period_s);
        let per_step = self.acceleration_max * period_s;
        let wish = (q - axis.q) / period_s;
        let low = (axis.v - per_step).max(-self.velocity_max);
        let high = (axis.v + per_step).min(self.velocity_max);
        let wish = if low <= high {
            wish.clamp(low, high)
        } else {
            stop.v
        };
        if self.allows(axis, axis.q + wish * period_s, period_s) {
            return Axis {
                q: axis.q + wish * period_s,
                v: wish,
            };
        }
        let (mut legal, mut illegal) = (stop.v, wish);
        for _ in 0..50 {
            let middle = 0.5 * (legal + illegal);
            if self.allows(axis, axis.q + middle * period_s, period_s) {
                legal = middle;
            } else {
                illegal = middle;
            }
        }
        if legal == stop.v {
            stop
        } else {
            Axis {
                q: axis.q + legal * period_s,
                v: legal,
            }
        }
    }
}
