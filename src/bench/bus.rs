// SPDX-License-Identifier: Apache-2.0
//! The bus between the bench's motor controller and its servos, which can be cut, and what the servos then do by
//! themselves. A gateway whose bus is dead can neither move nor read: what stops the joints is in the servos, or nothing is.

use crate::core::action::Setpoint;
use crate::core::observation::JointState;

/// What a servo does that hears nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Servos {
    /// Stays at its last goal, as those driven by position.
    #[default]
    Hold,
    /// Keeps turning, as those driven by velocity whose watchdog is off, or reports an error and does not stop.
    RunOn,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Bus {
    servos: Servos,
    is_cut: bool,
    /// What the servos heard last, or have made of it since.
    goal: Setpoint,
    /// What they said last.
    said: JointState,
}

impl Bus {
    /// A bus that works.
    #[must_use]
    pub fn new(servos: Servos) -> Bus {
        Bus {
            servos,
            is_cut: false,
            goal: Setpoint::at_rest(&[]),
            said: JointState::NEVER,
        }
    }

    /// Cuts it, or mends it.
    pub fn cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
    }

    /// Whether it is cut.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// What the servos follow for the next `dt_s`, if the motor controller says `target`.
    pub fn carry(&mut self, target: &Setpoint, dt_s: f64) -> &Setpoint {
        match (self.is_cut, self.servos) {
            (false, _) => self.goal = *target,
            (true, Servos::Hold) => self.goal.velocity.fill(0.0),
            (true, Servos::RunOn) => {
                for (q, v) in self.goal.position.iter_mut().zip(self.goal.velocity) {
                    *q += v * dt_s;
                }
            }
        }
        &self.goal
    }

    /// What the motor controller reads when the servos say `fresh`: without a bus, what it read last, with the time of then.
    pub fn read(&mut self, fresh: JointState) -> JointState {
        if !self.is_cut {
            self.said = fresh;
        }
        self.said
    }
}
