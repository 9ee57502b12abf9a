// SPDX-License-Identifier: Apache-2.0
//! Joins everything: the wiring, one shell a thread, the clock.

pub mod capture;
pub mod clock;
pub mod control;
pub mod demo;
pub mod deployment;
pub mod egress;
pub mod evaluation;
pub mod governor;
pub mod inference;
pub mod lockstep;
pub mod operations;
pub mod page;
pub mod pipeline;
pub mod realtime;
pub mod schedule_plot;
pub mod schedule_sim;
pub mod telemetry;
pub mod threads;
pub mod watchdog;
