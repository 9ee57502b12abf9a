// SPDX-License-Identifier: Apache-2.0
//! Libraries that are found at run time: what the system says when one is not.

/// The system's own words about a library that did not open; libloading keeps them as the cause.
#[must_use]
pub fn words(error: &libloading::Error) -> String {
    use std::error::Error;
    error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string)
}
