// SPDX-License-Identifier: Apache-2.0
//! What the core's tests need of the bench.

#[path = "../../../src/bench/arm.rs"]
pub mod arm;
#[path = "../../../src/bench/dice.rs"]
pub mod dice;
