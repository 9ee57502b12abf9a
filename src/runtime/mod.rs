// SPDX-License-Identifier: Apache-2.0
//! Joins everything: the wiring, one shell a thread, the clock.

pub mod cameras;
pub mod capture;
pub mod clock;
pub mod control;
pub mod crash;
pub mod crew;
pub mod demo;
pub mod deployment;
pub mod doctor;
pub mod egress;
pub mod engines;
pub mod evaluation;
pub mod events;
pub mod fault_sim;
pub mod governor;
pub mod health;
pub mod inference;
pub mod latch;
pub mod lockstep;
mod onnxruntime_peer;
pub mod operations;
pub mod page;
pub mod phase;
pub mod pipeline;
pub mod policy_bench;
pub mod quantize;
pub mod realtime;
pub mod rtbench;
pub mod schedule_plot;
pub mod schedule_sim;
pub mod service;
pub mod telemetry;
pub mod threads;
pub mod watchdog;
pub mod wheel;
