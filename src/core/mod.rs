// SPDX-License-Identifier: Apache-2.0
//! The pure core: everything that decides, as plain values with the time passed in.
//!
//! Follows the data: [`observation`] (what the policy saw, and when) -> [`chunk`] (what it wants for the next
//! second, made of what its numbers mean: [`intent`]) -> [`schedule`] (where each joint should be at this tick) -> [`governor`] (the only maker of
//! [`governor::Governed`]) -> [`wire`] (bytes for the motor controller). [`supervisor`] decides whether the robot
//! may move at all; [`camera`] whether a picture is to be believed.
//!
//! Invariant: nothing in here reads a clock, does I/O, locks, starts a thread, allocates after construction or can
//! panic on any input. All capacities stand in [`limits`]. Who needs one of those things is a shell in `runtime`.
//!
//! Words: *observation* (images, state, text, each with its capture time), *chunk* (T future actions of dimension D
//! at a fixed period), *setpoint* (where each joint should be at one tick), *governed command* (a setpoint that
//! passed the governor), *seam* (where one chunk hands over to the next).

pub mod action;
pub mod camera;
pub mod chunk;
pub mod derate;
pub mod governor;
pub mod intent;
pub mod kinematics;
pub mod limits;
pub mod lines;
pub mod observation;
pub mod schedule;
pub mod supervisor;
pub mod units;
pub mod wire;
