// SPDX-License-Identifier: Apache-2.0
//! Joins everything: the wiring, one shell a thread, the clock.

pub mod capture;
pub mod clock;
pub mod control;
pub mod crash;
pub mod crew;
pub mod demo;
pub mod deployment;
pub mod egress;
pub mod evaluation;
pub mod governor;
pub mod inference;
pub mod lockstep;
pub mod operations;
pub mod page;
pub mod phase;
pub mod pipeline;
pub mod realtime;
pub mod rtbench;
pub mod service;
pub mod telemetry;
pub mod threads;
pub mod watchdog;
