// SPDX-License-Identifier: Apache-2.0
//! The core of Tendon by itself: the same files as in the runtime, and nothing else.
#![cfg_attr(target_os = "none", no_std)]

#[cfg(test)]
#[allow(dead_code)] // The tests use a part of it.
mod bench;
#[path = "../../../src/core/mod.rs"]
pub mod core;
