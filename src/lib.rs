// SPDX-License-Identifier: Apache-2.0
//! Tendon carries a vision-language-action policy from camera to motor.
#![deny(unsafe_code)]

pub mod bench;
pub mod config;
pub mod core;
pub mod engine;
pub mod link;
pub mod operator;
pub mod policy;
pub mod ports;
pub mod runtime;
pub mod sync;
