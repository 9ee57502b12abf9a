// SPDX-License-Identifier: Apache-2.0
//! What the cells need of the core.

#[path = "../../../src/core/units.rs"]
pub mod units;
