// SPDX-License-Identifier: Apache-2.0
//! What the heartbeats need of the core.

#[path = "../../../src/core/units.rs"]
pub mod units;
