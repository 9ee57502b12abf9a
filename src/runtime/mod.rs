// SPDX-License-Identifier: Apache-2.0
//! Joins everything: the wiring, one shell a thread, the clock.

pub mod clock;
pub mod evaluation;
pub mod realtime;
pub mod telemetry;
pub mod threads;
