// SPDX-License-Identifier: Apache-2.0
//! The link: how commands, states and pictures travel, and what stands at the motor controller's end.
pub mod motor;
