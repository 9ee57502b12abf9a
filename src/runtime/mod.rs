// SPDX-License-Identifier: Apache-2.0
//! Joins everything: the wiring, one shell a thread, the clock.

pub mod capture;
pub mod clock;
pub mod control;
pub mod demo;
pub mod deployment;
pub mod doctor;
pub mod egress;
pub mod evaluation;
pub mod fault_sim;
pub mod governor;
pub mod health;
pub mod inference;
pub mod latch;
pub mod lockstep;
pub mod operations;
pub mod page;
pub mod phase;
pub mod pipeline;
pub mod realtime;
pub mod telemetry;
pub mod threads;
pub mod watchdog;
