// SPDX-License-Identifier: Apache-2.0
//! What consecutive commands imply: the velocity and acceleration that a motor needs to be there in time, whatever the
//! sender's own velocity fields say.

use crate::core::action::{JointKind, Setpoint};
use crate::core::governor::limits::Joint;
use crate::core::limits::JOINTS_MAX;

/// What of a limit a command may exceed by rounding before it counts.
pub const ROUNDING: f64 = 1e-6;

/// What a command implies, against the limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Excess {
    /// A position outside its limits.
    pub position: bool,
    /// More velocity than allowed.
    pub velocity: bool,
    /// More acceleration than allowed; seen only between commands without a loss.
    pub acceleration: bool,
}

impl Excess {
    /// Whether anything was exceeded.
    #[must_use]
    pub fn any(self) -> bool {
        self.position || self.velocity || self.acceleration
    }
}

/// The last command that was followed, and what it implied.
#[derive(Clone, Debug)]
pub struct Implied {
    before: Option<[f64; JOINTS_MAX]>,
    velocity: Option<[f64; JOINTS_MAX]>,
}

/// A command judged against the one before.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What it exceeds.
    pub excess: Excess,
    /// The velocity that it implies; what the sender says where there is none before it.
    pub velocity: [f64; JOINTS_MAX],
    consecutive: bool,
    position: [f64; JOINTS_MAX],
}

impl Implied {
    /// Nothing was followed yet.
    pub const NONE: Implied = Implied {
        before: None,
        velocity: None,
    };

    /// Judges a command `delta` periods after the last one that was followed.
    #[must_use]
    pub fn judge(&self, command: &Setpoint, delta: u32, joints: &[Joint], period_s: f64) -> Judged {
        let seconds = period_s * f64::from(delta);
        let mut judged = Judged {
            excess: Excess::default(),
            velocity: command.velocity,
            consecutive: delta == 1,
            position: command.position,
        };
        let numbers = command.position.iter().zip(&mut judged.velocity);
        for (index, ((q, velocity), joint)) in numbers.zip(joints).enumerate() {
            let limits = &joint.limits;
            let room = ROUNDING * (limits.position_max - limits.position_min);
            judged.excess.position |=
                !(limits.position_min - room..=limits.position_max + room).contains(q);
            if joint.kind == JointKind::Gripper {
                *velocity = 0.0;
                continue;
            }
            // Without one before, the sender's word; no faster than the joint may be, should it be needed.
            *velocity = velocity.max(-limits.velocity_max).min(limits.velocity_max);
            let Some(before) = self.before.as_ref().and_then(|before| before.get(index)) else {
                continue;
            };
            let v = (q - before) / seconds;
            *velocity = v;
            judged.excess.velocity |= v.abs() > limits.velocity_max * (1.0 + ROUNDING);
            let v_before = self.velocity.as_ref().and_then(|each| each.get(index));
            if let (true, Some(v_before)) = (judged.consecutive, v_before) {
                let a = (v - v_before) / seconds;
                judged.excess.acceleration |= a.abs() > limits.acceleration_max * (1.0 + ROUNDING);
            }
        }
        judged
    }

    /// Remembers a command that is followed.
    pub fn follow(&mut self, judged: &Judged) {
        // Across a loss only a mean velocity is known, which is none to take a difference of.
        let known = self.before.is_some() && judged.consecutive;
        self.velocity = known.then_some(judged.velocity);
        self.before = Some(judged.position);
    }
}
