// SPDX-License-Identifier: Apache-2.0
//! The seam: what is left of the old motion when a new chunk takes over, faded to nothing.
//!
//! At hand-over the difference old - new in position, velocity and acceleration is taken. A quintic that starts with
//! that difference and ends in zero position, velocity and acceleration after the blend time is added to the new
//! chunk, so the sum is continuous to the second derivative at both ends, however many seams overlap. A crossfade of
//! two chunks was rejected: a third chunk that arrives while two are being faded makes it jump.

use super::curve::RatesOver;
use crate::core::action::{JointKind, Setpoint};
use crate::core::limits::JOINTS_MAX;
use crate::core::units::Mono;

/// What the reconnecting motion of one joint may add, per s2 and s3 of its unit. Part of what the governor allows: the
/// policy's own motion needs the rest. A gripper's bound is not read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// > 0.
    pub acceleration_max: f64,
    /// > 0.
    pub jerk_max: f64,
}

/// Position, velocity and acceleration of every joint at one instant.
#[derive(Clone, Copy, Debug)]
pub struct Motion {
    joints: usize,
    position: [f64; JOINTS_MAX],
    velocity: [f64; JOINTS_MAX],
    acceleration: [f64; JOINTS_MAX],
}

impl Motion {
    /// All zeros, for `joints` joints.
    #[must_use]
    pub fn still(joints: usize) -> Motion {
        Motion {
            joints: joints.min(JOINTS_MAX),
            position: [0.0; JOINTS_MAX],
            velocity: [0.0; JOINTS_MAX],
            acceleration: [0.0; JOINTS_MAX],
        }
    }

    /// At `setpoint`, at rest.
    #[must_use]
    pub fn resting(setpoint: &Setpoint) -> Motion {
        Motion {
            position: setpoint.position,
            ..Motion::still(setpoint.joints)
        }
    }

    /// The motion that was at the three positions one period apart, the last of them now. A gripper has no rates: it
    /// steps.
    ///
    /// The slope of the last period is the velocity at its middle.
    #[must_use]
    pub fn through(
        [first, second, now]: [&[f64; JOINTS_MAX]; 3],
        kinds: &[JointKind],
        period_s: f64,
    ) -> Motion {
        let mut motion = Motion::still(kinds.len());
        for (joint, ((kind, q0), (q1, q2))) in kinds
            .iter()
            .zip(first)
            .zip(second.iter().zip(now))
            .enumerate()
        {
            let rates = match kind {
                JointKind::Gripper => (0.0, 0.0),
                JointKind::Revolute | JointKind::Prismatic => {
                    let acceleration = (q2 - q1 - (q1 - q0)) / (period_s * period_s);
                    let velocity = (q2 - q1) / period_s + 0.5 * acceleration * period_s;
                    (velocity, acceleration)
                }
            };
            motion.set(joint, *q2, rates.0, rates.1);
        }
        motion
    }

    /// Where every joint is; zeros past the last.
    #[must_use]
    pub fn position(&self) -> &[f64; JOINTS_MAX] {
        &self.position
    }

    /// Writes one joint; an index past the capacity is ignored.
    pub fn set(&mut self, joint: usize, position: f64, velocity: f64, acceleration: f64) {
        let slots = (
            self.position.get_mut(joint),
            self.velocity.get_mut(joint),
            self.acceleration.get_mut(joint),
        );
        if let (Some(p), Some(v), Some(a)) = slots {
            (*p, *v, *a) = (position, velocity, acceleration);
        }
    }

    /// Each joint's `[position, velocity, acceleration]`.
    pub fn joints(&self) -> impl Iterator<Item = [f64; 3]> {
        self.position
            .iter()
            .zip(&self.velocity)
            .zip(&self.acceleration)
            .map(|((p, v), a)| [*p, *v, *a])
            .take(self.joints)
    }

    /// The same motion played at a rate: `rate` of its seconds a second.
    #[must_use]
    pub fn at_rate(mut self, rate: f64) -> Motion {
        for (v, a) in self
            .velocity
            .iter_mut()
            .zip(&mut self.acceleration)
            .take(self.joints)
        {
            *v *= rate;
            *a *= rate * rate;
        }
        self
    }

    /// Where this motion is `seconds` later at constant acceleration. Used over one control period only.
    #[must_use]
    pub fn advanced(&self, seconds: f64) -> Motion {
        let mut later = *self;
        for ((p, v), a) in later
            .position
            .iter_mut()
            .zip(later.velocity.iter_mut())
            .zip(&self.acceleration)
        {
            *p += *v * seconds + 0.5 * a * seconds * seconds;
            *v += a * seconds;
        }
        later
    }

    /// By how much `plan`, at its own velocity, must be put off so that a fade to it over `length_ns` only speeds up or
    /// slows down: that its way is the mean of both velocities. 0 if it must not.
    ///
    /// Least squares over the joints: the fade with p = (v_plan - v) L / 2 and a = 0 has the slope v_plan - v times a
    /// cubic that falls from 1 to 0.
    #[must_use]
    pub fn behind_ns(&self, plan: &Motion, length_ns: u64, kinds: &[JointKind]) -> u64 {
        let half_s = 0.5e-9 * length_ns as f64;
        let (mut way, mut square) = (0.0, 0.0);
        for (([q, v, _], [q_plan, v_plan, _]), kind) in self.joints().zip(plan.joints()).zip(kinds)
        {
            if *kind != JointKind::Gripper {
                way += v_plan * (q_plan - q + (v_plan - v) * half_s);
                square += v_plan * v_plan;
            }
        }
        if square > 0.0 {
            // The cast makes 0 of what is negative.
            (1e9 * way / square) as u64
        } else {
            0
        }
    }

    /// Whether nothing moves.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.velocity
            .iter()
            .chain(&self.acceleration)
            .all(|rate| *rate == 0.0)
    }

    /// As a setpoint.
    #[must_use]
    pub fn setpoint(&self) -> Setpoint {
        Setpoint {
            joints: self.joints,
            position: self.position,
            velocity: self.velocity,
        }
    }
}

/// A fading difference between two motions.
#[derive(Clone, Copy, Debug)]
pub struct Seam {
    from: Mono,
    length_ns: u64,
    gap: Motion,
}

impl Seam {
    /// No difference.
    pub const NONE: Seam = Seam {
        from: Mono(0),
        length_ns: 0,
        gap: Motion {
            joints: 0,
            position: [0.0; JOINTS_MAX],
            velocity: [0.0; JOINTS_MAX],
            acceleration: [0.0; JOINTS_MAX],
        },
    };

    /// The difference `old - new` at `from`, to be faded in `length_ns`, or longer where a joint's bound needs it.
    ///
    /// A fade that asks for less than the bounds is kinder, but only while there is time: up to `gentle_max_ns`, the time
    /// to the next chunk, it is made as long as a share of the bounds needs.
    #[must_use]
    pub fn between(
        old: &Motion,
        new: &Motion,
        from: Mono,
        [length_ns, gentle_max_ns]: [u64; 2],
        (kinds, bounds): (&[JointKind], &[Bound]),
    ) -> Seam {
        let mut gap = *old;
        for (a, b) in gap.position.iter_mut().zip(&new.position) {
            *a -= b;
        }
        for (a, b) in gap.velocity.iter_mut().zip(&new.velocity) {
            *a -= b;
        }
        for (a, b) in gap.acceleration.iter_mut().zip(&new.acceleration) {
            *a -= b;
        }
        // A gripper steps: its difference must not make the others' seam last.
        for (joint, _) in kinds
            .iter()
            .enumerate()
            .filter(|(_, kind)| **kind == JointKind::Gripper)
        {
            gap.set(joint, 0.0, 0.0, 0.0);
        }
        let least_s = length_ns as f64 * 1e-9;
        let length_s = |share: f64, jerk_share: f64| {
            // What is long enough for the joints before is mostly so for the next, which then need no search.
            gap.joints()
                .zip(bounds)
                .fold(least_s, |longest_s, (gap, bound)| {
                    let bound = Bound {
                        acceleration_max: share * bound.acceleration_max,
                        jerk_max: jerk_share * bound.jerk_max,
                    };
                    shortest_s(gap, bound, longest_s)
                })
        };
        let gentle_s = length_s(GENTLE_ACCELERATION, GENTLE_JERK).min(gentle_max_ns as f64 * 1e-9);
        let length_s = length_s(1.0, 1.0).max(gentle_s);
        Seam {
            from,
            length_ns: (length_s * 1e9) as u64,
            gap,
        }
    }

    /// The same difference, faded over `length_ns` if that is longer, but not longer than any fade may be.
    #[must_use]
    pub fn at_least(self, length_ns: u64) -> Seam {
        Seam {
            length_ns: length_ns
                .min((LENGTH_MAX_S * 1e9) as u64)
                .max(self.length_ns),
            ..self
        }
    }

    /// Length of the whole fade.
    #[must_use]
    pub fn length_ns(&self) -> u64 {
        self.length_ns
    }

    /// How long the fade still lasts.
    #[must_use]
    pub fn left_ns(&self, now: Mono) -> u64 {
        self.from.plus_ns(self.length_ns).since_ns(now)
    }

    /// Velocity, acceleration and jerk of one joint's fade over shares of its length.
    pub(super) fn rates(&self, joint: usize) -> RatesOver {
        let length_s = self.length_ns as f64 * 1e-9;
        let read = |values: &[f64; JOINTS_MAX]| values.get(joint).copied().unwrap_or(0.0);
        let gap = [
            read(&self.gap.position),
            read(&self.gap.velocity),
            read(&self.gap.acceleration),
        ];
        RatesOver::of(fading(gap, length_s), 1.0 / length_s)
    }

    /// Adds what is left of the difference at `now`. Grippers step and have no seam.
    pub fn add_to(&self, motion: &mut Motion, kinds: &[JointKind], now: Mono) {
        let elapsed_ns = now.since_ns(self.from);
        if elapsed_ns >= self.length_ns {
            return;
        }
        let (t, length) = (elapsed_ns as f64 * 1e-9, self.length_ns as f64 * 1e-9);
        let u = t / length;
        for (joint, kind) in kinds.iter().enumerate() {
            let read = |values: &[f64; JOINTS_MAX]| values.get(joint).copied().unwrap_or(0.0);
            match kind {
                JointKind::Gripper => {}
                JointKind::Revolute | JointKind::Prismatic => {
                    let gap = [
                        read(&self.gap.position),
                        read(&self.gap.velocity),
                        read(&self.gap.acceleration),
                    ];
                    let [p, v, a] = fade(gap, u, length);
                    let sum = (
                        read(&motion.position) + p,
                        read(&motion.velocity) + v,
                        read(&motion.acceleration) + a,
                    );
                    motion.set(joint, sum.0, sum.1, sum.2);
                }
            }
        }
    }
}

/// What a fade asks for when there is time: about half the acceleration, built up some times more slowly.
const GENTLE_ACCELERATION: f64 = 0.6;
const GENTLE_JERK: f64 = 0.2;
/// A fade longer than this is none: a robot that needs it is not where the policy thinks it is.
const LENGTH_MAX_S: f64 = 10.0;

/// The least length of at least `least_s` at which [`fade`] keeps to the bound.
///
/// The third derivative of each of its three terms is largest at u = 0: 60 p/L3, 36 v/L2 and 9 a/L; the second is at
/// most 5.78 p/L2, 4.2 v/L and 1 a. The sums of the magnitudes bound the whole and fall with L, so it is found by
/// bisection. An acceleration that starts above the bound can only be left as fast as the jerk allows.
fn shortest_s([p, v, a]: [f64; 3], bound: Bound, least_s: f64) -> f64 {
    let (p, v, a) = (p.abs(), v.abs(), a.abs());
    let fits = |length: f64| {
        let per_s = 1.0 / length;
        let jerk = per_s * (9.0 * a + per_s * (36.0 * v + per_s * 60.0 * p));
        let acceleration = per_s * (4.2 * v + per_s * 5.78 * p);
        jerk <= bound.jerk_max && acceleration <= bound.acceleration_max
    };
    if fits(least_s) {
        return least_s;
    }
    let (mut short, mut long) = (least_s, LENGTH_MAX_S);
    // To a ten-thousandth of the interval: finer than a control period.
    for _ in 0..16 {
        let middle = 0.5 * (short + long);
        if fits(middle) {
            long = middle;
        } else {
            short = middle;
        }
    }
    long
}

/// The quintic from `[position, velocity, acceleration]` at u = 0 to zeros at u = 1, and its derivatives at `u`.
fn fade(gap: [f64; 3], u: f64, length_s: f64) -> [f64; 3] {
    let [c0, c1, c2, c3, c4, c5] = fading(gap, length_s);
    let position = c0 + u * (c1 + u * (c2 + u * (c3 + u * (c4 + u * c5))));
    let slope = c1 + u * (2.0 * c2 + u * (3.0 * c3 + u * (4.0 * c4 + u * 5.0 * c5)));
    let bend = 2.0 * c2 + u * (6.0 * c3 + u * (12.0 * c4 + u * 20.0 * c5));
    [position, slope / length_s, bend / (length_s * length_s)]
}

/// Its coefficients in `u` from the six boundary conditions: c0..c2 from the start, c3..c5 from the three zeros at the end.
fn fading(gap: [f64; 3], length_s: f64) -> [f64; 6] {
    let c0 = gap[0];
    let c1 = gap[1] * length_s;
    let c2 = 0.5 * gap[2] * length_s * length_s;
    let c3 = -10.0 * c0 - 6.0 * c1 - 3.0 * c2;
    let c4 = 15.0 * c0 + 8.0 * c1 + 3.0 * c2;
    let c5 = -6.0 * c0 - 3.0 * c1 - c2;
    [c0, c1, c2, c3, c4, c5]
}
