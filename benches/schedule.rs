// SPDX-License-Identifier: Apache-2.0
//! Cost of one scheduler step at 7 and 40 joints: inside a seam, and at the tick that takes over and merges a chunk.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tendon::core::action::{JointKind, Setpoint};
use tendon::core::chunk::{Chunk, Provenance};
use tendon::core::schedule::merge::Order;
use tendon::core::schedule::{Config, Merge, OnInstruction, Rates, Schedule};
use tendon::core::units::{MS, Mono};
use tendon::runtime::clock;

fn chunk(joints: usize, captured: Mono) -> Chunk {
    let values: Vec<f32> = (0..50 * joints).map(|i| (i as f32 * 0.01).sin()).collect();
    let provenance = Provenance {
        captured,
        ..Provenance::default()
    };
    Chunk::new(
        captured.plus_ns(20 * MS),
        20 * MS,
        joints,
        &values,
        provenance,
    )
    .expect("a good chunk")
}

const ENSEMBLE: Merge = Merge::Ensemble {
    decay: 0.01,
    order: Order::OldestFirst,
};

/// Of joints that can follow the chunks, and of joints for which they are far too fast: then each hand-over tries every
/// way to play the plan slower.
const LIMITS: [(&str, Rates); 2] = [
    (
        "within the limits",
        Rates {
            velocity_max: 1e3,
            acceleration_max: 1e6,
            jerk_max: 1e9,
        },
    ),
    (
        "far too fast",
        Rates {
            velocity_max: 2.0,
            acceleration_max: 12.5,
            jerk_max: 375.0,
        },
    ),
];

fn schedule(joints: usize, limits: Rates) -> Schedule {
    let mut schedule = Schedule::new(Config {
        kinds: (0..joints).map(|_| JointKind::Revolute).collect(),
        limits: (0..joints).map(|_| limits).collect(),
        period_ns: 5 * MS,
        merge: ENSEMBLE,
        start_ns: 200 * MS,
        fresh_ns: 200 * MS,
        chunk_age_max_ns: 2_000 * MS,
        on_instruction: OnInstruction {
            tail_steps: 0,
            pause_ns: 0,
        },
        gripper_lead_ns: 0,
    });
    schedule.reset(&Setpoint::at_rest(&vec![0.1; joints]));
    schedule
}

fn step(bench: &mut Criterion) {
    for joints in [7, 40] {
        let mut schedule = schedule(joints, LIMITS[0].1);
        schedule.offer(Mono(MS), &chunk(joints, Mono(MS)));
        schedule.step(Mono(30 * MS), None);
        schedule.offer(Mono(200 * MS), &chunk(joints, Mono(180 * MS)));
        schedule.step(Mono(205 * MS), None);
        bench.bench_function(&format!("schedule/step in a seam/{joints} joints"), |b| {
            b.iter(|| black_box(schedule.step(black_box(Mono(210 * MS)), None)));
        });
        for limits in LIMITS {
            spread(joints, limits);
        }
    }
}

/// The spread of offer + step over 200,000 ticks in which every 20th brings a chunk of 50 actions: criterion's mean
/// hides the tick that merges.
fn spread(joints: usize, (what, limits): (&str, Rates)) {
    const TICKS: u64 = 200_000;
    let mut schedule = schedule(joints, limits);
    let mut took_ns: Vec<u64> = Vec::with_capacity(TICKS as usize);
    for tick in 1..=TICKS {
        let now = Mono(tick * 5 * MS);
        let arrived = tick
            .is_multiple_of(20)
            .then(|| chunk(joints, now.minus_ns(50 * MS)));
        let began = clock::now();
        if let Some(arrived) = &arrived {
            schedule.offer(now, arrived);
        }
        black_box(schedule.step(now, None));
        took_ns.push(clock::now().since_ns(began));
    }
    took_ns.sort_unstable();
    let at = |share: f64| took_ns[((TICKS - 1) as f64 * share) as usize] as f64 / 1e3;
    println!(
        "schedule/tick/{joints} joints, ensemble over 50 actions, {what}: p50 {:.2} us, p99 {:.2} us, p99.9 {:.2} us",
        at(0.5),
        at(0.99),
        at(0.999)
    );
}

criterion_group!(benches, step);
criterion_main!(benches);
