// SPDX-License-Identifier: Apache-2.0
//! One joint's stop: the jerk-limited way to rest, in discrete time, and where it ends.
//!
//! Each tick changes the acceleration by at most `jerk * T` and keeps it within `acceleration`. From velocity `v` and
//! acceleration `a`, the stop brakes as hard as it may, as early as it may, subject to one rule: the acceleration
//! must still be able to return to zero, at full jerk, before the velocity changes sign. That rule is a curve in the
//! plane of velocity and acceleration, and the whole stop is one line ([`Brake::next`]):
//!
//! ```text
//!   a' = -brake_for(v), clamped to what jerk and acceleration allow this tick
//!
//!   a ^                          ramp_loss(x): velocity lost while a deceleration x is ramped to zero at full jerk
//!     |  .                       brake_loss(x): the same, with this tick's share counted: ramp_loss(x) + x T
//!  ---+----.-----------> v       brake_for(v): the deceleration x with brake_loss(x) = v
//!     |      '  .
//!     |            '   .   the curve: a = -brake_for(v)
//! ```
//!
//! Both losses are piecewise linear, continuous and growing, and `brake_loss(x - jerk T) = ramp_loss(x)`: whoever is on
//! the curve stays on it by moving one full-jerk step along, so the joint arrives at `v = 0` and `a = 0` exactly, in
//! whole ticks, without reversing. Who starts beyond the curve (it decelerates so hard that it must reverse) is
//! brought to the curve of the other side by the same clamp; that reversal is the least that the jerk limit allows.
//!
//! This file knows nothing of positions' limits or of proposals; [`super::shape`] asks it where a stop would end.
//! A continuous-time profile sampled at the ticks was rejected: its switching times fall between ticks, and the
//! samples then break the jerk limit by up to a factor of two.

#[cfg(target_os = "none")]
use crate::core::units::Root as _;

/// What bounds one joint's stop, in its own unit (rad or m) and seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Brake {
    /// The control period.
    period_s: f64,
    /// Largest acceleration either way.
    acceleration: f64,
    /// Largest change of acceleration in one tick: jerk times period.
    step: f64,
    /// Velocity gained in one tick by one step of acceleration: jerk times period squared.
    unit: f64,
    /// `ramp_loss(acceleration)`, kept because every stop from speed needs it.
    full_ramp_loss: f64,
    /// Reciprocals of `step`, `unit` and `acceleration * period_s`: a division costs as much as the rest of a check.
    per_step: f64,
    per_unit: f64,
    per_full: f64,
    /// A velocity that is rest but for rounding: what the last bits of an acceleration come to in a tick, and no less
    /// than a millionth of a millionth of a unit. Far below what a limit can notice.
    almost: f64,
}

/// Where a stop ends, relative to where it starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rest {
    /// Signed distance from here to the place of rest.
    pub end: f64,
    /// Signed distance to where it reverses; 0 for a joint that need not. With `end` and the start itself, the
    /// extremes of the way.
    pub turn: f64,
    /// Velocity after the acceleration has been ramped to zero: the fastest it will be if it exceeds `v`.
    pub coast: f64,
    /// Ticks until rest.
    pub ticks: f64,
}

impl Brake {
    /// Of a joint that is not there.
    pub(super) const NONE: Brake = Brake {
        period_s: 1.0,
        acceleration: 0.0,
        step: 0.0,
        unit: 0.0,
        full_ramp_loss: 0.0,
        per_step: 0.0,
        per_unit: 0.0,
        per_full: 0.0,
        almost: 0.0,
    };

    /// How far a way of so many ticks, within the acceleration, can lie from the straight and even one between its ends:
    /// a parabola over its chord.
    #[must_use]
    pub fn bend(&self, ticks: u64) -> f64 {
        let span_s = ticks as f64 * self.period_s;
        self.acceleration * span_s * span_s / 8.0
    }

    /// A brake of `acceleration` and `jerk`, both finite and above zero, at the period `period_s`.
    #[must_use]
    pub fn new(acceleration: f64, jerk: f64, period_s: f64) -> Brake {
        let step = jerk * period_s;
        let unit = step * period_s;
        let mut brake = Brake {
            period_s,
            acceleration,
            step,
            unit,
            full_ramp_loss: 0.0,
            per_step: 1.0 / step,
            per_unit: 1.0 / unit,
            per_full: 1.0 / (acceleration * period_s),
            almost: 1e-12 * unit + 16.0 * f64::EPSILON * acceleration * period_s,
        };
        brake.full_ramp_loss = brake.ramp_loss(acceleration);
        brake
    }

    /// Largest acceleration either way.
    #[must_use]
    pub fn acceleration(&self) -> f64 {
        self.acceleration
    }

    /// Largest change of acceleration in one tick.
    #[must_use]
    pub fn step(&self) -> f64 {
        self.step
    }

    /// Velocity lost while a deceleration of `x >= 0` is ramped to zero at full jerk, this tick not counted.
    fn ramp_loss(&self, x: f64) -> f64 {
        // x, x - step, x - 2 step, ... while positive; the first is this tick's. m terms in all.
        let m = ceil(x * self.per_step).max(1.0);
        self.period_s * (m - 1.0) * (x - self.step * m * 0.5)
    }

    /// The deceleration from which the ramp to zero, this tick included, takes exactly the velocity `v >= 0`.
    fn brake_for(&self, v: f64) -> f64 {
        // m ticks, the smallest m with unit * m (m + 1) / 2 >= v.
        let m = ceil(0.5 * ((1.0 + 8.0 * v * self.per_unit).sqrt() - 1.0)).max(1.0);
        v / (m * self.period_s) + self.step * (m - 1.0) * 0.5
    }

    /// Highest acceleration for this tick after which the velocity can still be kept from growing beyond a bound that
    /// lies `room` above it. Negative `room`: the bound is passed already, and this is how hard to brake.
    #[must_use]
    pub fn approach(&self, room: f64) -> f64 {
        self.brake_for(room.abs()).copysign(room)
    }

    /// Velocity after the acceleration has been ramped from `a` to zero at full jerk.
    #[must_use]
    pub fn coast(&self, v: f64, a: f64) -> f64 {
        v + self.ramp_loss(a.abs()).copysign(a)
    }

    /// The acceleration of the stop's next tick, from velocity `v` and acceleration `a`.
    ///
    /// The new velocity is `v + a' T`; where that is rest, it is to be taken as exactly zero, see [`Brake::after`].
    #[must_use]
    pub fn next(&self, v: f64, a: f64) -> f64 {
        let wish = self
            .approach(-v)
            .max(-self.acceleration)
            .min(self.acceleration);
        // Jerk last: a joint that was given less acceleration than it has ramps it down. max and min, not clamp, which
        // panics on a NaN.
        wish.max(a - self.step).min(a + self.step)
    }

    /// The velocity that an acceleration `a` chosen for this tick leads to; exactly zero where rounding says almost.
    #[must_use]
    pub fn after(&self, v: f64, a: f64) -> f64 {
        let next = v + a * self.period_s;
        if next.abs() <= self.almost { 0.0 } else { next }
    }

    /// Where the stop from velocity `v` and acceleration `a` ends, and what it passes on the way. Constant time: the
    /// sums over its phases in closed form, with the same whole ticks that [`Brake::next`] takes.
    #[must_use]
    pub fn rest(&self, v: f64, a: f64) -> Rest {
        let coast = self.coast(v, a);
        // By symmetry: the direction in which it coasts is forward.
        let side = if coast < 0.0 { -1.0 } else { 1.0 };
        let (mut v, a) = (v * side, a * side);
        let turn = if v < 0.0 { self.turn(v, a) } else { 0.0 };
        let mut end = 0.0;
        let mut ticks = 0.0;

        // Phase 1: full jerk downwards, until the acceleration or the curve is reached.
        let n = self.ticks_down(v, a).max(0.0);
        if n > 0.0 {
            let velocity_gain = n * a - self.step * n * (n + 1.0) * 0.5;
            let sum = a * n * (n + 1.0) * 0.5 - self.step * n * (n + 1.0) * (n + 2.0) * (1.0 / 6.0);
            end += self.period_s * (n * v + self.period_s * sum);
            v += self.period_s * velocity_gain;
            ticks += n;
        }
        // Phase 2: full deceleration (its first tick may take part of a step to get there).
        let n = floor((v - self.full_ramp_loss) * self.per_full).max(0.0);
        if n > 0.0 {
            let loss = self.acceleration * self.period_s;
            end += self.period_s * (n * v - loss * n * (n + 1.0) * 0.5);
            v -= n * loss;
            ticks += n;
        }
        // Phase 3: along the curve, full jerk upwards, to rest.
        let v = v.max(0.0);
        let x = self.brake_for(v);
        let m = ceil(x * self.per_step).max(1.0);
        // The last tick's velocity is zero, so a ramp of one tick goes nowhere: exactly, not but for rounding.
        if m > 1.0 {
            let sum = x * m * (m + 1.0) * 0.5 - self.step * (m - 1.0) * m * (m + 1.0) * (1.0 / 6.0);
            end += self.period_s * (m * v - self.period_s * sum);
        }
        ticks += m;
        Rest {
            end: side * end,
            turn: side * turn,
            coast,
            ticks,
        }
    }

    /// Whole ticks of full jerk downwards from (v, a), with `coast(v, a) >= 0`, that keep to the rule and do not pass
    /// `-acceleration`.
    fn ticks_down(&self, v: f64, a: f64) -> f64 {
        // In units of one step of acceleration and its velocity: with a = (f + p) steps, f whole and 0 <= p < 1, the
        // state after f + m ticks is on or inside the curve iff m^2 - 2 p m <= c, for m >= 1.
        let steps = a * self.per_step;
        let f = floor(steps);
        let p = steps - f;
        let c = v * self.per_unit + f * (f - 1.0) * 0.5 + p * (f - 1.0);
        let curve = f + floor(p + (p * p + c).max(0.0).sqrt());
        let bound = floor((a + self.acceleration) * self.per_step);
        curve.min(bound)
    }

    /// How far a joint that moves backwards (v < 0), but will coast forwards, still goes back. At most zero.
    fn turn(&self, v: f64, a: f64) -> f64 {
        // While a falls by one step a tick, v_k = v + T (k a - step k (k + 1) / 2): the ticks with v_k < 0.
        let h = a * self.per_step - 0.5;
        let root = h - (h * h + 2.0 * v * self.per_unit).max(0.0).sqrt();
        let n = (ceil(root) - 1.0).max(0.0);
        let sum = a * n * (n + 1.0) * 0.5 - self.step * n * (n + 1.0) * (n + 2.0) * (1.0 / 6.0);
        self.period_s * (n * v + self.period_s * sum)
    }
}

/// Largest whole number not above `x`, for |x| < 2^63; written out because the library's needs a function call on
/// x86-64 and the standard library.
fn floor(x: f64) -> f64 {
    let whole = x as i64 as f64;
    if whole > x { whole - 1.0 } else { whole }
}

/// Smallest whole number not below `x`.
fn ceil(x: f64) -> f64 {
    -floor(-x)
}
