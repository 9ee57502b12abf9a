// SPDX-License-Identifier: Apache-2.0
//! What runs a stage: implementations of [`crate::ports::Engine`].

pub mod cpu;
pub mod ort;
pub mod tensorrt;

/// The system's own words about a library that did not open; libloading keeps them as the cause.
fn loader_words(error: &libloading::Error) -> String {
    use std::error::Error;
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}
