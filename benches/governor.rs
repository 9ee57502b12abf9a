// SPDX-License-Identifier: Apache-2.0
//! Cost of one governor step over the number of joints: following a legal motion, and shaping an impossible one.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tendon::core::action::{JointKind, Setpoint};
use tendon::core::chunk::Provenance;
use tendon::core::governor::shape::JointLimits;
use tendon::core::governor::{Governor, Input, Joint, Permission};
use tendon::core::observation::{Freshness, JointState};
use tendon::core::schedule::Step;
use tendon::core::units::{MS, Mono};

fn step(bench: &mut Criterion) {
    let limits = JointLimits {
        position_min: -2.0,
        position_max: 2.0,
        velocity_max: 2.5,
        acceleration_max: 12.0,
    };
    let joint = Joint {
        kind: JointKind::Revolute,
        limits,
    };
    for joints in [1, 7, 16, 40, 64] {
        for (name, wish) in [("follow", 0.0), ("shape", 3.0)] {
            let mut governor = Governor::new(&vec![joint; joints], 5 * MS).expect("good limits");
            let state = JointState {
                joints,
                received: Mono(1),
                ..JointState::NEVER
            };
            let proposal = Step::Setpoint {
                setpoint: Setpoint::at_rest(&vec![wish; joints]),
                provenance: Provenance::default(),
                action: 0,
            };
            let input = Input {
                proposal: Some(&proposal),
                state: Freshness::Fresh(&state),
                permission: Permission::Armed {
                    epoch: 1,
                    until: Mono(u64::MAX),
                },
                hold: None,
                emergency_stop: false,
            };
            bench.bench_function(&format!("governor/{name}/{joints} joints"), |b| {
                b.iter(|| black_box(governor.step(black_box(Mono(2)), black_box(&input))));
            });
        }
    }
}

criterion_group!(benches, step);
criterion_main!(benches);
