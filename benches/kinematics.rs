// SPDX-License-Identifier: Apache-2.0
//! Cost of a space check: one pose, and a 60-tick stop, at 7, 14, 40 and 64 joints.
//!
//! Arms of seven joints on a common base, a capsule a link, a workspace box, a keep-out box, and in each arm all pairs
//! but neighbours.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tendon::core::kinematics::envelope::{Breach, Capsule, Envelope, Pair, Sweep};
use tendon::core::kinematics::geometry::{Cuboid, Transform};
use tendon::core::kinematics::{Chain, Drive, Link, Motion};

fn envelope(joints: usize) -> Envelope {
    let links: Vec<Link> = (0..joints)
        .map(|joint| Link {
            parent: (joint > 0).then(|| if joint % 7 == 0 { 0 } else { joint - 1 }),
            origin: Transform::from_xyz_rpy([0.0, 0.0, 0.15], [0.0, 0.0, joint as f64 * 0.3]),
            axis: [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]][joint % 2],
            motion: Motion::Revolute(Drive {
                joint,
                factor: 1.0,
                offset: 0.0,
            }),
        })
        .collect();
    let capsules: Vec<Capsule> = (0..joints)
        .map(|link| Capsule {
            link,
            ends: [[0.0; 3], [0.0, 0.0, 0.1]],
            radius_m: 0.0001,
            in_workspace: true,
            out_of_boxes: true,
        })
        .collect();
    let pairs: Vec<Pair> = (0..joints)
        .flat_map(|one| (one + 2..joints).map(move |two| [one, two]))
        .filter(|[one, two]| one / 7 == two / 7)
        .map(|capsules| Pair {
            capsules,
            clearance_m: 0.0,
        })
        .collect();
    let workspace = Cuboid {
        min: [-5.0, -5.0, -0.5],
        max: [5.0; 3],
    };
    let table = Cuboid {
        min: [-1.0, -1.0, -0.4],
        max: [1.0, 1.0, -0.1],
    };
    let chain = Chain::new(&links, joints).expect("a good chain");
    Envelope::new(chain, &capsules, Some(workspace), &[table], &pairs).expect("a good envelope")
}

fn sweep(envelope: &Envelope, path: &[Vec<f64>]) -> Result<(), Breach> {
    let mut sweep = Sweep::new(envelope, envelope.anchor(&path[0])?);
    path.iter().try_for_each(|pose| sweep.go(pose))
}

fn checks(criterion: &mut Criterion) {
    for joints in [7, 14, 40, 64] {
        let envelope = envelope(joints);
        // Each joint brakes evenly over 60 ticks (0.3 s at 200 Hz) from 0.75 rad/s: 0.1125 rad in all.
        let path: Vec<Vec<f64>> = (0..=60)
            .map(|tick| {
                let left = 1.0 - f64::from(tick) / 60.0;
                vec![0.2 + 0.1125 * (1.0 - left * left); joints]
            })
            .collect();
        assert_eq!(
            sweep(&envelope, &path),
            Ok(()),
            "the whole cost, not that of a refusal"
        );
        let pose = vec![0.2; joints];
        criterion.bench_function(
            &format!("space check, one pose, {joints} joints"),
            |bencher| {
                bencher.iter(|| envelope.check(black_box(&pose)));
            },
        );
        criterion.bench_function(
            &format!("space check, 60-tick stop, {joints} joints"),
            |bencher| {
                bencher.iter(|| sweep(&envelope, black_box(&path)));
            },
        );
    }
}

criterion_group!(benches, checks);
criterion_main!(benches);
