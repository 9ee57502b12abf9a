// SPDX-License-Identifier: Apache-2.0
//! The link: how commands, states and pictures travel, and what stands at the motor controller's end.
//!
//! [`keys`] names, [`session`] opens zenoh, [`runtime_end`] is the pipeline's end, [`robot_end`] the robot's,
//! [`operator_end`] that of a person's command line, [`motor`] what a motor controller does with a frame. That `put`
//! says Ok proves nothing, and neither does liveliness: only the counter echoed in the state does.

pub mod brake;
pub mod implied;
pub mod keys;
pub mod line;
pub mod motor;
pub mod operator_end;
pub mod robot_end;
pub mod runtime_end;
pub mod session;
