// SPDX-License-Identifier: Apache-2.0
//! What runs a stage: implementations of [`crate::ports::Engine`].

pub mod cpu;
mod lost;
pub mod ort;
pub mod tensorrt;
