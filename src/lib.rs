// SPDX-License-Identifier: Apache-2.0
//! Tendon carries a vision-language-action policy from camera to motor.
//!
//! The map, in the order of the flow; ARCHITECTURE.md has the picture of the threads.
//!
//! * [`core`]: everything that decides, as plain values with the time passed in.
//! * [`ports`]: what the outside must give. [`sync`]: mailbox and heartbeats. [`config`]: files -> checked values.
//! * [`policy`] and [`engine`]: a bundle, and what runs its graph; [`onnx`]: where the graph's weights are,
//!   [`hash`]: of what does not fit the memory. The module [`capture`]: cameras. [`cuda`]: the GPU's driver and kernels,
//!   found at run time, as [`loader`] says.
//! * [`link`]: zenoh, and the motor controller's side. [`operator`]: the page. [`mod@bench`]: a robot for any laptop.
//! * [`runtime`]: joins all of it; one shell a thread, the clock, simulated time.
#![deny(unsafe_code)]

pub mod bench;
pub mod capture;
pub mod config;
pub mod core;
pub mod cuda;
pub mod engine;
pub mod hash;
pub mod link;
pub mod loader;
pub mod onnx;
pub mod operator;
pub mod policy;
pub mod ports;
pub mod runtime;
pub mod sync;
