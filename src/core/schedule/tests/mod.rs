// SPDX-License-Identifier: Apache-2.0
//! Stories of the scheduler in simulated time, through one helper; a file a topic.

mod arrival;
mod doubt;
mod ending;
mod grip;
mod held;
mod merging;
mod pace;
mod streams;

use super::*;
use crate::core::chunk::Provenance;
use crate::core::units::MS;

const TICK: u64 = 5 * MS;

fn kinds(n: usize) -> heapless::Vec<JointKind, JOINTS_MAX> {
    (0..n).map(|_| JointKind::Revolute).collect()
}

/// Of a joint that may be faster than any plan here but those that say otherwise.
const LIMITS: Rates = Rates {
    velocity_max: 1e6,
    acceleration_max: 25.0,
    jerk_max: 500.0,
};

/// What seams may use of them.
const BOUND: Bound = Bound {
    acceleration_max: 20.0,
    jerk_max: 400.0,
};

fn limits(n: usize) -> heapless::Vec<Rates, JOINTS_MAX> {
    (0..n).map(|_| LIMITS).collect()
}

fn config(merge: Merge) -> Config {
    Config {
        kinds: kinds(2),
        limits: limits(2),
        period_ns: TICK,
        merge,
        start_ns: 150 * MS,
        fresh_ns: 200 * MS,
        chunk_age_max_ns: 1000 * MS,
        on_instruction: OnInstruction {
            tail_steps: 0,
            pause_ns: 0,
        },
        gripper_lead_ns: 0,
    }
}

/// A chunk of 16 actions 50 ms apart on the line `start + slope * t` after its capture.
fn line(id: u32, captured_ms: u64, start: f32, slope: f32) -> Chunk {
    long_line(id, captured_ms, start, slope, 16)
}

fn long_line(id: u32, captured_ms: u64, start: f32, slope: f32, steps: usize) -> Chunk {
    let values: Vec<f32> = (1..=steps)
        .flat_map(|i| [start + slope * 0.05 * i as f32; 2])
        .collect();
    let captured = Mono(captured_ms * MS);
    let provenance = Provenance {
        chunk_id: id,
        captured,
        ..Provenance::default()
    };
    Chunk::new(captured.plus_ns(50 * MS), 50 * MS, 2, &values, provenance).expect("a good chunk")
}

#[track_caller]
fn position(step: &Step) -> f64 {
    match step {
        Step::Setpoint { setpoint, .. } => setpoint.position[0],
        Step::None(absence) => panic!("expected a setpoint, found {absence:?}"),
    }
}

/// Positions of ticks `from_ms..to_ms`, and the first reason why there was none.
fn follow(schedule: &mut Schedule, from_ms: u64, to_ms: u64) -> (Vec<f64>, Option<Absence>) {
    let (mut positions, mut absent) = (Vec::new(), None);
    for ms in (from_ms..to_ms).step_by(5) {
        match schedule.step(Mono(ms * MS), None) {
            Step::Setpoint { setpoint, .. } => positions.push(setpoint.position[0]),
            Step::None(absence) => absent = absent.or(Some(absence)),
        }
    }
    (positions, absent)
}

/// Runs `chunks` (arrival, chunk) with the given merge and returns the setpoints of joint 0, one a tick.
fn run(merge: Merge, start: f64, chunks: &[(u64, Chunk)], until_ms: u64) -> Vec<f64> {
    run_with(config(merge), start, chunks, until_ms)
}

fn run_with(config: Config, start: f64, chunks: &[(u64, Chunk)], until_ms: u64) -> Vec<f64> {
    let mut schedule = Schedule::new(config);
    schedule.reset(&Setpoint::at_rest(&[start, start]));
    let mut out = Vec::new();
    for tick in 0..until_ms / 5 {
        let now = Mono(tick * TICK);
        for (_, chunk) in chunks.iter().filter(|(at, _)| at / 5 == tick) {
            schedule.offer(now, chunk);
        }
        if let Step::Setpoint { setpoint, .. } = schedule.step(now, None) {
            out.push(setpoint.position[0]);
        }
    }
    out
}

fn acceleration_max(positions: &[f64]) -> f64 {
    positions
        .windows(3)
        .map(|w| ((w[2] - 2.0 * w[1] + w[0]) / 0.005_f64.powi(2)).abs())
        .fold(0.0, f64::max)
}

/// Of a stream of one joint's positions: no step of the acceleration from tick to tick beyond what `BOUND` allows with
/// some policy motion on top. `at` are ticks to leave out.
#[track_caller]
fn smooth(positions: &[f64], at: &[usize]) {
    let dt = 0.005_f64;
    for (tick, w) in positions.windows(4).enumerate() {
        let jerk = (w[3] - 3.0 * w[2] + 3.0 * w[1] - w[0]) / dt.powi(3);
        assert!(
            jerk.abs() < 2.0 * BOUND.jerk_max || at.contains(&tick),
            "jerk of {jerk} at tick {tick}"
        );
    }
}

const RULES: [Merge; 10] = [
    Merge::Replace,
    Merge::Blend { blend_ns: 100 * MS },
    Merge::Ensemble {
        decay: 0.01,
        order: merge::Order::OldestFirst,
    },
    Merge::Ensemble {
        decay: 0.3,
        order: merge::Order::NewestFirst,
    },
    Merge::Aggregate(merge::Aggregate::WeightedAverage),
    Merge::Aggregate(merge::Aggregate::LatestOnly),
    Merge::Aggregate(merge::Aggregate::Average),
    Merge::Aggregate(merge::Aggregate::Conservative),
    Merge::Smooth { last: 1 },
    Merge::Smooth { last: 4 },
];
