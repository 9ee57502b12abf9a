// SPDX-License-Identifier: Apache-2.0
//! Joints and setpoints: what one tick asks of each joint.

use crate::core::limits::JOINTS_MAX;

/// How a joint's numbers are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JointKind {
    /// Radians.
    Revolute,
    /// Metres.
    Prismatic,
    /// 0 (open, released) to 1 (closed, sucking). Steps, never interpolated, and keeps its last value in a stop:
    /// letting go of a load is not a safe state.
    Gripper,
}

/// Where each joint should be at one tick, and how fast it passes through.
///
/// Entries at and beyond `joints` are zero. Order is that of `robot.toml`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Setpoint {
    /// How many entries count, 1 ..= [`JOINTS_MAX`].
    pub joints: usize,
    /// Radians, metres or 0..1, by the joint's [`JointKind`].
    pub position: [f64; JOINTS_MAX],
    /// The same per second: the slope by which `position` was reached, not a separate wish.
    pub velocity: [f64; JOINTS_MAX],
}

impl Setpoint {
    /// At rest at `position`. Entries past [`JOINTS_MAX`] are ignored.
    #[must_use]
    pub fn at_rest(position: &[f64]) -> Setpoint {
        let mut setpoint = Setpoint {
            joints: 0,
            position: [0.0; JOINTS_MAX],
            velocity: [0.0; JOINTS_MAX],
        };
        for (slot, value) in setpoint.position.iter_mut().zip(position) {
            *slot = *value;
            setpoint.joints += 1;
        }
        setpoint
    }

    /// The positions that count.
    #[must_use]
    pub fn positions(&self) -> &[f64] {
        self.position.get(..self.joints).unwrap_or(&self.position)
    }

    /// The velocities that count.
    #[must_use]
    pub fn velocities(&self) -> &[f64] {
        self.velocity.get(..self.joints).unwrap_or(&self.velocity)
    }
}
