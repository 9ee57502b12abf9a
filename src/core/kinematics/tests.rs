// SPDX-License-Identifier: Apache-2.0
//! Against slow references: products of 4x4 matrices, dense sampling of segments, and dense sampling of motions.

use super::envelope::*;
use super::geometry::*;
use super::*;
use crate::bench::arm;
use crate::bench::dice::Dice;

mod inverse;

const X: Point = [1.0, 0.0, 0.0];
const Y: Point = [0.0, 1.0, 0.0];
const Z: Point = [0.0, 0.0, 1.0];

fn point(dice: &mut Dice, size: f64) -> Point {
    std::array::from_fn(|_| dice.range(-size, size))
}

fn unit(dice: &mut Dice) -> Point {
    loop {
        let v = point(dice, 1.0);
        if length(v) > 0.1 {
            let v = scale(v, 1.0 / length(v));
            return scale(v, 1.0 / length(v));
        }
    }
}

/// A tree of turning, sliding, fixed and mimic joints with random axes.
fn random_links(
    dice: &mut Dice,
    joints: usize,
) -> (std::vec::Vec<Link>, std::vec::Vec<(Point, Point)>) {
    let (mut links, mut origins) = (vec![], vec![]);
    for joint in 0..joints {
        let (xyz, rpy) = (point(dice, 0.3), point(dice, 3.0));
        let drive = Drive {
            joint,
            factor: 1.0,
            offset: 0.0,
        };
        let mimic = Drive {
            joint: joint / 2,
            factor: -0.5,
            offset: 0.1,
        };
        let motion = match joint % 7 {
            3 => Motion::Prismatic {
                drive,
                travel_max_m: 3.0,
            },
            5 => Motion::Revolute(mimic),
            6 => Motion::Fixed,
            _ => Motion::Revolute(drive),
        };
        let parent = match joint {
            0 => None,
            7 => Some(2),
            _ => Some(joint - 1),
        };
        links.push(Link {
            parent,
            origin: Transform::from_xyz_rpy(xyz, rpy),
            axis: unit(dice),
            motion,
        });
        origins.push((xyz, rpy));
    }
    (links, origins)
}

type Matrix = [[f64; 4]; 4];

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    std::array::from_fn(|i| std::array::from_fn(|j| (0..4).map(|k| a[i][k] * b[k][j]).sum()))
}

/// URDF's own words, written out: Rz(yaw) Ry(pitch) Rx(roll).
fn origin_matrix([x, y, z]: Point, [r, p, w]: Point) -> Matrix {
    let (sr, cr, sp, cp, sw, cw) = (r.sin(), r.cos(), p.sin(), p.cos(), w.sin(), w.cos());
    [
        [cw * cp, cw * sp * sr - sw * cr, cw * sp * cr + sw * sr, x],
        [sw * cp, sw * sp * sr + cw * cr, sw * sp * cr - cw * sr, y],
        [-sp, cp * sr, cp * cr, z],
        [0.0, 0.0, 0.0, 1.0],
    ]
}

/// The matrix of a turn by its quaternion, which shares nothing with Rodrigues' formula in the code.
fn turn_matrix(axis: Point, angle: f64) -> Matrix {
    let (s, w) = (angle / 2.0).sin_cos();
    let [x, y, z] = scale(axis, s);
    [
        [
            1.0 - 2.0 * (y * y + z * z),
            2.0 * (x * y - w * z),
            2.0 * (x * z + w * y),
            0.0,
        ],
        [
            2.0 * (x * y + w * z),
            1.0 - 2.0 * (x * x + z * z),
            2.0 * (y * z - w * x),
            0.0,
        ],
        [
            2.0 * (x * z - w * y),
            2.0 * (y * z + w * x),
            1.0 - 2.0 * (x * x + y * y),
            0.0,
        ],
        [0.0, 0.0, 0.0, 1.0],
    ]
}

#[test]
fn forward_is_the_product_of_matrices_for_6_7_and_14_joints() {
    let mut dice = Dice::new(7, 0);
    for joints in [6, 7, 14] {
        for _ in 0..50 {
            let (links, origins) = random_links(&mut dice, joints);
            let chain = Chain::new(&links, joints).expect("a good chain");
            let q: std::vec::Vec<f64> = (0..joints).map(|_| dice.range(-2.5, 2.5)).collect();
            let poses = chain.forward(&q).expect("a pose");
            let mut all: std::vec::Vec<Matrix> = vec![];
            for (link, (xyz, rpy)) in links.iter().zip(origins) {
                let mut m = origin_matrix(xyz, rpy);
                if let Some(parent) = link.parent {
                    m = product(&all[parent], &m);
                }
                m = match link.motion {
                    Motion::Fixed => m,
                    Motion::Revolute(d) => product(
                        &m,
                        &turn_matrix(link.axis, q[d.joint] * d.factor + d.offset),
                    ),
                    Motion::Prismatic { drive, .. } => product(
                        &m,
                        &origin_matrix(scale(link.axis, q[drive.joint]), [0.0; 3]),
                    ),
                };
                all.push(m);
            }
            for (pose, m) in poses.iter().zip(&all) {
                let [x, y, z] = pose.columns;
                for (row, want) in m.iter().take(3).enumerate() {
                    let got = [x[row], y[row], z[row], pose.translation[row]];
                    for (got, want) in got.iter().zip(want) {
                        assert!((got - want).abs() < 1e-11, "{got} {want}");
                    }
                }
            }
        }
    }
}

/// The bench arm, and a tool point at its tip.
fn bench_links() -> [Link; 7] {
    let link = |parent, z_m, axis, joint| Link {
        parent,
        origin: Transform {
            translation: [0.0, 0.0, z_m],
            ..Transform::IDENTITY
        },
        axis,
        motion: Motion::Revolute(Drive {
            joint,
            factor: 1.0,
            offset: 0.0,
        }),
    };
    let mut tip = link(Some(5), arm::TOOL_M, Z, 0);
    tip.motion = Motion::Fixed;
    [
        link(None, 0.0, Z, 0),
        link(Some(0), arm::BASE_HEIGHT_M, Y, 1),
        link(Some(1), arm::UPPER_M, Y, 2),
        link(Some(2), 0.0, Z, 3),
        link(Some(3), arm::FOREARM_M, Y, 4),
        link(Some(4), 0.0, Z, 5),
        tip,
    ]
}

fn bench_pose(dice: &mut Dice) -> [f64; 6] {
    std::array::from_fn(|i| dice.range(arm::POSITION_MIN_RAD[i], arm::POSITION_MAX_RAD[i]))
}

#[test]
fn forward_is_the_bench_arms_own() {
    let chain = Chain::new(&bench_links(), 6).expect("a good chain");
    let mut dice = Dice::new(3, 0);
    for _ in 0..2_000 {
        let q = bench_pose(&mut dice);
        let poses = chain.forward(&q).expect("a pose");
        let want = arm::forward(&q).points;
        for (link, want) in [(1, want[0]), (2, want[1]), (4, want[2]), (6, want[3])] {
            assert!(length(sub(poses[link].translation, want)) < 1e-12);
        }
    }
}

fn at(segment: &Segment, t: f64) -> Point {
    add(
        segment.ends[0],
        scale(sub(segment.ends[1], segment.ends[0]), t),
    )
}

/// Any point, also one end twice and nearly parallel ones.
fn segments(dice: &mut Dice, round: usize) -> (Segment, Segment) {
    let one = Segment {
        ends: [point(dice, 1.0), point(dice, 1.0)],
    };
    let two = match round % 4 {
        0 => Segment {
            ends: one.ends.map(|end| add(end, point(dice, 1e-7))),
        },
        1 => Segment {
            ends: [one.ends[1], one.ends[1]],
        },
        _ => Segment {
            ends: [point(dice, 1.0), point(dice, 1.0)],
        },
    };
    (one, two)
}

#[test]
fn distances_are_never_above_a_dense_sampling_and_hardly_below() {
    const N: usize = 200;
    let mut dice = Dice::new(11, 0);
    for round in 0..400 {
        let (one, two) = segments(&mut dice, round);
        let corner = point(&mut dice, 0.5);
        let cuboid = Cuboid {
            min: corner,
            max: add(corner, [0.4, 0.2, 0.3]),
        };
        let (mut apart, mut from_box, mut inside) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
        for i in 0..=N {
            let p = at(&one, i as f64 / N as f64);
            let gap: Point =
                std::array::from_fn(|k| (cuboid.min[k] - p[k]).max(p[k] - cuboid.max[k]));
            from_box = from_box.min(length(gap.map(|x| x.max(0.0))));
            inside = inside.min(-gap.into_iter().fold(f64::NEG_INFINITY, f64::max));
            for j in 0..=N {
                apart = apart.min(length(sub(p, at(&two, j as f64 / N as f64))));
            }
        }
        // A sample is within half a step of the nearest point of each segment, 3.5 m long at most.
        let step = 3.5 / N as f64;
        for (got, sampled) in [
            (segment_distance(&one, &two), apart),
            (cuboid.segment_distance(&one), from_box),
        ] {
            assert!(
                got <= sampled + 1e-9 && got >= sampled - step,
                "{got} {sampled}"
            );
        }
        assert!((cuboid.inside_by(&one) - inside).abs() < 1e-9);
    }
}

fn capsule(link: usize, end: Point, radius_m: f64) -> Capsule {
    Capsule {
        link,
        ends: [[0.0; 3], end],
        radius_m,
        in_workspace: true,
        out_of_boxes: link > 1,
    }
}

fn random_envelope(dice: &mut Dice, joints: usize) -> Envelope {
    let (links, _) = random_links(dice, joints);
    let chain = Chain::new(&links, joints).expect("a good chain");
    let capsules: std::vec::Vec<Capsule> = (0..joints)
        .map(|i| capsule(i, point(dice, 0.2), 0.01))
        .collect();
    let mut pairs = vec![];
    for one in 0..joints {
        for two in one + 3..joints {
            pairs.push(Pair {
                capsules: [one, two],
                clearance_m: 0.005,
            });
        }
    }
    let workspace = Cuboid {
        min: [-3.0; 3],
        max: [3.0; 3],
    };
    let keep_out = Cuboid {
        min: [0.5, -0.5, -0.5],
        max: [0.7, 0.5, 0.5],
    };
    Envelope::new(chain, &capsules, Some(workspace), &[keep_out], &pairs).expect("a good envelope")
}

/// Sweeps along a path; the index of the pose at which it is refused, and why.
fn sweep(envelope: &Envelope, path: &[std::vec::Vec<f64>]) -> Result<(), (usize, Breach)> {
    let anchor = envelope.anchor(&path[0]).map_err(|breach| (0, breach))?;
    let mut sweep = Sweep::new(envelope, anchor);
    for (index, pose) in path.iter().enumerate() {
        sweep.go(pose).map_err(|breach| (index, breach))?;
    }
    Ok(())
}

#[test]
fn no_illegal_motion_passes() {
    let mut dice = Dice::new(5, 0);
    let (mut passed, mut refused, mut between) = (0, 0, 0);
    for round in 0..4_500 {
        let joints = [6, 7, 14][round % 3];
        let envelope = random_envelope(&mut dice, joints);
        let mut q: std::vec::Vec<f64> = (0..joints).map(|_| dice.range(-1.0, 1.0)).collect();
        if envelope.check(&q).is_err() {
            continue;
        }
        let size = [0.003, 0.02, 0.1][round / 3 % 3];
        let rate: std::vec::Vec<f64> = (0..joints).map(|_| dice.range(-size, size)).collect();
        let path: std::vec::Vec<std::vec::Vec<f64>> = (0..60)
            .map(|_| {
                q.iter_mut().zip(&rate).for_each(|(q, rate)| *q += rate);
                q.clone()
            })
            .collect();
        match sweep(&envelope, &path) {
            Ok(()) => {
                passed += 1;
                for pair in path.windows(2) {
                    for k in 0..=4 {
                        let t = f64::from(k) / 4.0;
                        let mid: std::vec::Vec<f64> = pair[0]
                            .iter()
                            .zip(&pair[1])
                            .map(|(a, b)| a + (b - a) * t)
                            .collect();
                        // The margin between poses is that of the segments, less the slack already taken twice.
                        let found = envelope.check(&mid);
                        let depth = match found {
                            Err(Breach::Space { depth_m, .. }) => depth_m,
                            Ok(()) => 0.0,
                            other => panic!("{other:?}"),
                        };
                        assert!(depth <= SLACK_M, "round {round}: {found:?}");
                    }
                }
            }
            Err((pose, Breach::Space { .. })) => {
                refused += 1;
                let from = &path[pose.saturating_sub(1)];
                let illegal = (0..=64).any(|k| {
                    let share = f64::from(k) / 64.0;
                    let to = from.iter().zip(&path[pose]);
                    let mid: std::vec::Vec<f64> = to.map(|(a, b)| a + (b - a) * share).collect();
                    envelope.check(&mid).is_err()
                });
                assert!(illegal, "refused for a motion that is legal");
            }
            Err(_) => between += 1,
        }
    }
    assert!(
        passed > 50 && refused > 50,
        "{passed} passed, {refused} refused, {between} between"
    );
}

#[test]
fn nothing_that_is_not_a_pose_passes() {
    let mut dice = Dice::new(2, 0);
    let envelope = random_envelope(&mut dice, 6);
    for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY] {
        for joint in 0..6 {
            let mut q = [0.0; 6];
            q[joint] = bad;
            assert_eq!(envelope.check(&q), Err(Breach::NoPose));
        }
    }
    assert_eq!(envelope.check(&[0.0; 5]), Err(Breach::NoPose));
    let mut far = [0.0; 6];
    far[3] = 3.1;
    assert_eq!(
        envelope.check(&far),
        Err(Breach::NoPose),
        "a slide beyond its travel"
    );
}

#[test]
fn a_step_through_a_thin_wall_is_seen() {
    let chain = Chain::new(&bench_links(), 6).expect("a good chain");
    let wall = Cuboid {
        min: [0.1, -0.001, 0.0],
        max: [0.6, 0.001, 0.6],
    };
    let tip = Capsule {
        link: 6,
        ends: [[0.0; 3]; 2],
        radius_m: 0.0,
        in_workspace: false,
        out_of_boxes: true,
    };
    let envelope = Envelope::new(chain, &[tip], None, &[wall], &[]).expect("a good envelope");
    let ends = [
        [-0.2, 1.0, 0.5, 0.0, 0.5, 0.0],
        [0.2, 1.0, 0.5, 0.0, 0.5, 0.0],
    ];
    assert!(ends.iter().all(|q| envelope.check(q).is_ok()));
    let path = ends.map(|q| q.to_vec());
    assert!(matches!(
        sweep(&envelope, &path),
        Err((1, Breach::Between { .. } | Breach::Space { .. }))
    ));
}

#[test]
fn what_is_malformed_is_named() {
    let good = bench_links();
    let with = |change: fn(&mut Link)| {
        let mut links = good;
        change(&mut links[3]);
        Chain::new(&links, 6).err()
    };
    assert_eq!(
        with(|link| link.parent = Some(3)),
        Some(Malformed::Parent(3))
    );
    assert_eq!(
        with(|link| link.axis = scale(X, 2.0)),
        Some(Malformed::Numbers(3))
    );
    assert_eq!(
        with(|link| link.origin.translation = [f64::NAN; 3]),
        Some(Malformed::Numbers(3))
    );
    let beyond = Motion::Revolute(Drive {
        joint: 6,
        factor: 1.0,
        offset: 0.0,
    });
    let mut links = good;
    links[3].motion = beyond;
    assert_eq!(Chain::new(&links, 6).err(), Some(Malformed::Joint(3)));
    let chain = Chain::new(&good, 6).expect("a good chain");
    let inverted = Cuboid {
        min: [0.0; 3],
        max: [1.0, -1.0, 1.0],
    };
    let envelope = Envelope::new(chain.clone(), &[], Some(inverted), &[], &[]);
    assert_eq!(
        envelope.err(),
        Some(Malformed::Shape {
            what: "workspace",
            index: 0
        })
    );
    let envelope = Envelope::new(chain, &[capsule(9, X, 0.1)], None, &[], &[]);
    assert_eq!(
        envelope.err(),
        Some(Malformed::Shape {
            what: "capsule",
            index: 0
        })
    );
}
