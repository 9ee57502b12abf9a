// SPDX-License-Identifier: Apache-2.0
//! The ladder from a fresh chunk down to a hold, the time spent on each rung, and the way to rest.
//!
//! ```text
//!   Fresh --- no successor in time ---> Tail --- last action or expiry ---> Slowing --- at rest ---> Hold
//!     ^                                  |                                     |                     |
//!     +----------------------------------+------------- newer chunk -----------+---------------------+
//! ```
//! No rung repeats an action, goes on beyond a plan other than to come to rest, or makes up for what was missed.

use super::seam::{Bound, Motion};
use crate::core::action::JointKind;
use crate::core::units::Mono;
#[cfg(target_os = "none")]
use crate::core::units::Root as _;

/// What the setpoint is made of. Further down is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rung {
    /// The newest chunk, and the next is not overdue.
    Fresh,
    /// The newest chunk, and the next is overdue.
    Tail,
    /// The plan is over: coming to rest.
    Slowing,
    /// Nothing to follow.
    Hold,
}

/// Time on each rung since the start, and how often a plan ran out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ladder {
    /// See [`Rung::Fresh`].
    pub fresh_ns: u64,
    /// See [`Rung::Tail`].
    pub tail_ns: u64,
    /// See [`Rung::Slowing`].
    pub slowing_ns: u64,
    /// See [`Rung::Hold`]; the wait for the first chunk is not counted.
    pub hold_ns: u64,
    /// By how much plans were stretched to keep to the limits in force.
    pub stretched_ns: u64,
    /// Time in which some joint's step was curbed, as no way was found that keeps to the limits in force.
    pub curbed_ns: u64,
    /// Times that a plan ran out before its successor came.
    pub ran_out: u64,
    /// Chunks that were dropped because they came later than they were made for.
    pub outrun: u64,
}

impl Ladder {
    /// What was added since `before`, which is an earlier state of the same ladder.
    #[must_use]
    pub fn since(&self, before: &Ladder) -> Ladder {
        Ladder {
            fresh_ns: self.fresh_ns.saturating_sub(before.fresh_ns),
            tail_ns: self.tail_ns.saturating_sub(before.tail_ns),
            slowing_ns: self.slowing_ns.saturating_sub(before.slowing_ns),
            hold_ns: self.hold_ns.saturating_sub(before.hold_ns),
            stretched_ns: self.stretched_ns.saturating_sub(before.stretched_ns),
            curbed_ns: self.curbed_ns.saturating_sub(before.curbed_ns),
            ran_out: self.ran_out.saturating_sub(before.ran_out),
            outrun: self.outrun.saturating_sub(before.outrun),
        }
    }

    /// One control period in which a step was curbed.
    pub fn curbed(&mut self, period_ns: u64) {
        self.curbed_ns = self.curbed_ns.saturating_add(period_ns);
    }

    /// One control period on `rung`.
    pub fn count(&mut self, rung: Rung, period_ns: u64) {
        let slot = match rung {
            Rung::Fresh => &mut self.fresh_ns,
            Rung::Tail => &mut self.tail_ns,
            Rung::Slowing => &mut self.slowing_ns,
            Rung::Hold => &mut self.hold_ns,
        };
        *slot = slot.saturating_add(period_ns);
    }
}

/// The way to rest: the velocity goes to zero along a cubic that starts with the motion's velocity and acceleration
/// and ends with neither, so what leaves the plan is C2 and ends still.
#[derive(Clone, Copy, Debug)]
pub struct Slowing {
    from: Mono,
    length_s: f64,
    motion: Motion,
}

/// A joint is not slowed longer than this, whatever its bound: a robot without a plan must stop. The governor's own
/// brake is harder.
const LENGTH_MAX_S: f64 = 1.0;

impl Slowing {
    /// From `motion` at `from`, as short as the bounds of every joint allow.
    ///
    /// With velocity v and acceleration a over the length T the jerk is at most 6 v/T2 + 4 a/T and the acceleration at
    /// most 1.5 v/T + a.
    #[must_use]
    pub fn begin(motion: &Motion, from: Mono, bounds: &[Bound]) -> Slowing {
        let length_s = motion
            .joints()
            .zip(bounds)
            .map(|([_, v, a], bound)| {
                let (v, a, jerk) = (v.abs(), a.abs(), bound.jerk_max);
                let by_jerk = (4.0 * a + (16.0 * a * a + 24.0 * v * jerk).sqrt()) / (2.0 * jerk);
                by_jerk.max(1.5 * v / bound.acceleration_max)
            })
            .fold(0.0, f64::max);
        Slowing {
            from,
            length_s: length_s.min(LENGTH_MAX_S),
            motion: *motion,
        }
    }

    /// The motion at `now`, and whether it is at rest.
    #[must_use]
    pub fn at(&self, now: Mono, kinds: &[JointKind]) -> (Motion, bool) {
        let length = self.length_s.max(1e-9);
        let u = (now.since_ns(self.from) as f64 * 1e-9 / length).min(1.0);
        let over = u >= 1.0;
        let mut motion = self.motion;
        for (joint, ([p, v, a], kind)) in self.motion.joints().zip(kinds).enumerate() {
            if *kind == JointKind::Gripper {
                continue;
            }
            let (v0, a0) = (v, a * length);
            let velocity = v0 * (1.0 + u * u * (2.0 * u - 3.0)) + a0 * u * (1.0 - u) * (1.0 - u);
            let acceleration =
                (6.0 * v0 * u * (u - 1.0) + a0 * (1.0 - u) * (1.0 - 3.0 * u)) / length;
            let way = v0 * u * (1.0 - u * u + 0.5 * u * u * u)
                + a0 * u * u * (0.5 - 2.0 / 3.0 * u + 0.25 * u * u);
            let rates = if over {
                (0.0, 0.0)
            } else {
                (velocity, acceleration)
            };
            motion.set(joint, p + way * length, rates.0, rates.1);
        }
        (motion, over)
    }
}
