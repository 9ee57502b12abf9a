// SPDX-License-Identifier: Apache-2.0
//! Cost of one scheduler step: 7 and 40 joints, in mid-chunk and inside a seam.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tendon::core::action::{JointKind, Setpoint};
use tendon::core::chunk::{Chunk, Provenance};
use tendon::core::schedule::{Config, Merge, Schedule};
use tendon::core::units::{MS, Mono};

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

fn step(bench: &mut Criterion) {
    for joints in [7, 40] {
        let config = Config {
            kinds: (0..joints).map(|_| JointKind::Revolute).collect(),
            period_ns: 5 * MS,
            merge: Merge::Blend {
                blend_ns: 200 * MS,
                start_ns: 200 * MS,
            },
            chunk_age_max_ns: 2_000 * MS,
        };
        let mut schedule = Schedule::new(config);
        schedule.reset(&Setpoint::at_rest(&vec![0.1; joints]));
        schedule.offer(Mono(MS), &chunk(joints, Mono(MS)));
        schedule.step(Mono(30 * MS), None);
        schedule.offer(Mono(200 * MS), &chunk(joints, Mono(180 * MS)));
        bench.bench_function(&format!("schedule/step in a seam/{joints} joints"), |b| {
            b.iter(|| black_box(schedule.step(black_box(Mono(300 * MS)), None)));
        });
    }
}

fn offer(bench: &mut Criterion) {
    let fresh = chunk(7, Mono(500 * MS));
    bench.bench_function("schedule/offer a chunk of 50 x 7", |b| {
        b.iter_batched(
            || {
                Schedule::new(Config {
                    kinds: (0..7).map(|_| JointKind::Revolute).collect(),
                    period_ns: 5 * MS,
                    merge: Merge::Replace,
                    chunk_age_max_ns: 2_000 * MS,
                })
            },
            |mut schedule| schedule.offer(Mono(510 * MS), &fresh),
            criterion::BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, step, offer);
criterion_main!(benches);
