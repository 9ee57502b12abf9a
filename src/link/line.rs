// SPDX-License-Identifier: Apache-2.0
//! The way from one command to the next: a straight line over one command period, then on at the commanded speed
//! while a command is missing; and, at the start of a motion, the easing from where the joints are held to where the
//! commands begin.

use crate::core::action::{JointKind, Setpoint};
use crate::core::governor::limits::Joint;
use crate::core::limits::JOINTS_MAX;

/// The easing is never shorter than this.
const EASING_S_MIN: f64 = 0.2;
/// Share of a joint's limits that the easing may take on top of what is commanded.
const EASING_SHARE: f64 = 0.5;
/// Peaks of a minimum-jerk step of length 1 in time 1.
const STEP_VELOCITY: f64 = 1.875;
/// See [`STEP_VELOCITY`].
const STEP_ACCELERATION: f64 = 5.773_502_691_896_258;

/// The way to the newest command and beyond it.
#[derive(Clone, Debug)]
pub struct Line {
    from: [f64; JOINTS_MAX],
    goal: [f64; JOINTS_MAX],
    /// Speed at which it goes on past the goal.
    beyond: [f64; JOINTS_MAX],
    duration_s: f64,
    elapsed_s: f64,
}

impl Line {
    /// No way to go: stays at `at`.
    #[must_use]
    pub fn at(at: &Setpoint) -> Line {
        Line {
            from: at.position,
            goal: at.position,
            beyond: [0.0; JOINTS_MAX],
            duration_s: 1.0,
            elapsed_s: 0.0,
        }
    }

    /// From where it is now to `goal` within `period_s`; longer where a joint would have to exceed its velocity limit,
    /// because commands were lost on the way. Past the goal it goes on with `beyond`, the speed that the commands had,
    /// not with that of catching up.
    pub fn turn_to(
        &mut self,
        goal: &Setpoint,
        beyond: &[f64; JOINTS_MAX],
        joints: &[Joint],
        period_s: f64,
    ) {
        let from: [f64; JOINTS_MAX] = core::array::from_fn(|index| self.position(index));
        let ways = from.iter().zip(&goal.position).zip(joints);
        self.duration_s = ways
            .filter(|(_, joint)| joint.kind != JointKind::Gripper)
            .map(|((from, goal), joint)| (goal - from).abs() / joint.limits.velocity_max)
            .fold(period_s, f64::max);
        (self.from, self.goal, self.beyond) = (from, goal.position, *beyond);
        self.elapsed_s = 0.0;
    }

    /// Moves on.
    pub fn advance(&mut self, dt_s: f64) {
        self.elapsed_s += dt_s;
    }

    /// Whether the goal lies behind: a command is missing.
    #[must_use]
    pub fn past_goal(&self) -> bool {
        self.elapsed_s > self.duration_s * (1.0 + 1e-9)
    }

    /// Position of a joint on it; 0 for one that is not there.
    #[must_use]
    pub fn position(&self, index: usize) -> f64 {
        let at = |numbers: &[f64; JOINTS_MAX]| numbers.get(index).copied().unwrap_or(0.0);
        let (from, goal) = (at(&self.from), at(&self.goal));
        if self.past_goal() {
            goal + at(&self.beyond) * (self.elapsed_s - self.duration_s)
        } else {
            let share = (self.elapsed_s / self.duration_s).min(1.0);
            // In this form the goal is reached to the bit.
            if share >= 1.0 {
                goal
            } else {
                from + (goal - from) * share
            }
        }
    }

    /// Where a joint is asked to be at the end; 0 for one that is not there.
    #[must_use]
    pub fn goal(&self, index: usize) -> f64 {
        self.goal.get(index).copied().unwrap_or(0.0)
    }
}

/// What the joints are away from the commands when a motion begins, and how that fades. Without it, a first command
/// within the tolerance of the measured pose would be a step.
#[derive(Clone, Debug)]
pub struct Easing {
    offset: [f64; JOINTS_MAX],
    duration_s: f64,
    elapsed_s: f64,
}

impl Easing {
    /// Nothing to ease.
    pub const NONE: Easing = Easing {
        offset: [0.0; JOINTS_MAX],
        duration_s: 1.0,
        elapsed_s: 1.0,
    };

    /// From `held` to `first`, as slowly as the joints' limits ask for.
    #[must_use]
    pub fn new(held: &Setpoint, first: &Setpoint, joints: &[Joint]) -> Easing {
        let mut easing = Easing {
            duration_s: EASING_S_MIN,
            elapsed_s: 0.0,
            ..Easing::NONE
        };
        let ways = held.position.iter().zip(&first.position).zip(joints);
        for (slot, ((held, first), joint)) in easing.offset.iter_mut().zip(ways) {
            if joint.kind == JointKind::Gripper {
                continue;
            }
            *slot = held - first;
            let (v, a) = (joint.limits.velocity_max, joint.limits.acceleration_max);
            let by_velocity_s = STEP_VELOCITY * slot.abs() / (EASING_SHARE * v);
            let by_acceleration_s = (STEP_ACCELERATION * slot.abs() / (EASING_SHARE * a)).sqrt();
            easing.duration_s = easing.duration_s.max(by_velocity_s).max(by_acceleration_s);
        }
        easing
    }

    /// Moves on.
    pub fn advance(&mut self, dt_s: f64) {
        self.elapsed_s = (self.elapsed_s + dt_s).min(self.duration_s);
    }

    /// What is left of a joint's offset.
    #[must_use]
    pub fn offset(&self, index: usize) -> f64 {
        let x = self.elapsed_s / self.duration_s;
        if x >= 1.0 {
            return 0.0;
        }
        let left = 1.0 - x * x * x * (10.0 + x * (6.0 * x - 15.0));
        self.offset.get(index).map_or(0.0, |offset| offset * left)
    }
}
