// SPDX-License-Identifier: Apache-2.0
//! What a policy's numbers mean, against what is known of them by other ways.

use super::*;
use crate::core::kinematics::geometry::Transform;
use crate::core::kinematics::{Drive, Link, Motion};

const FREE: Range = Range {
    min: -3.0,
    max: 3.0,
    free: true,
};
const PERIOD_S: f64 = 0.05;

/// An arm of six joints and a gripper.
fn arm() -> Chain {
    let axes = [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]];
    let links: std::vec::Vec<Link> = (0..6)
        .map(|joint: usize| Link {
            parent: joint.checked_sub(1),
            origin: Transform::from_xyz_rpy([0.02, 0.0, 0.15], [0.0; 3]),
            axis: if joint == 3 || joint == 5 {
                axes[0]
            } else {
                axes[joint.min(2)]
            },
            motion: Motion::Revolute(Drive {
                joint,
                factor: 1.0,
                offset: 0.0,
            }),
        })
        .collect();
    Chain::new(&links, 7).expect("a good chain")
}

fn kinds() -> std::vec::Vec<JointKind> {
    let mut kinds = std::vec![JointKind::Revolute; 6];
    kinds.push(JointKind::Gripper);
    kinds
}

#[track_caller]
fn close(found: f64, wanted: f64, within: f64) {
    assert!((found - wanted).abs() < within, "{found} {wanted}");
}

fn joints_of(parts: &[Part], actions: usize, width: usize) -> Intent {
    Intent::new(&Asked {
        parts,
        kinds: &[JointKind::Revolute; 3],
        ranges: &[FREE; 3],
        chain: None,
        actions,
        width,
        period_s: PERIOD_S,
    })
    .expect("a good intent")
}

#[test]
fn velocities_and_deltas_go_on_from_where_the_joint_was_measured() {
    let one = |column, joint, how| Part::Joint { column, joint, how };
    let parts = [
        one(0, 2, How::Velocity),
        one(1, 0, How::Delta),
        one(2, 1, How::Target),
    ];
    let mut intent = joints_of(&parts, 4, 3);
    assert!(intent.begins());
    assert_eq!((intent.rows(), intent.per_action()), (5, 1));
    let numbers = [
        2.0, 0.1, 9.0, //
        2.0, 0.1, 8.0, //
        -1.0, -0.3, 7.0, //
        0.0, 0.0, 6.0,
    ];
    let mut targets = [0.0; 15];
    for measured in [[0.5, 1.0, -0.5], [0.0, 0.0, 0.0]] {
        intent
            .read(&numbers, &measured, &mut targets)
            .expect("a plan");
        let [a, b, c] = measured;
        let wanted = [
            [a, b, c],
            [a + 0.1, 9.0, c + 0.1],
            [a + 0.2, 8.0, c + 0.2],
            [a - 0.1, 7.0, c + 0.15],
            [a - 0.1, 6.0, c + 0.15],
        ];
        for (found, wanted) in targets.iter().zip(wanted.iter().flatten()) {
            close(f64::from(*found), *wanted, 1e-6);
        }
    }
    let mut plain = joints_of(&[one(0, 0, How::Target)], 4, 1);
    assert!(!plain.begins(), "a target stands for itself");
    let mut targets = [0.0; 12];
    plain
        .read(&[0.3, 0.4, 0.5, 0.6], &[9.0, 1.0, 2.0], &mut targets)
        .expect("a plan");
    assert_eq!(
        targets[..3],
        [0.3, 1.0, 2.0],
        "joints that nobody tells stay"
    );
}

#[test]
fn a_base_drives_along_arcs() {
    let part = Part::Base {
        columns: [0, 1, 2],
        joints: [0, 1, 2],
    };
    let mut intent = joints_of(&[part], 6, 3);
    let twists = [
        [0.4, 0.0, 0.0],
        [0.4, 0.0, 1.5],
        [0.4, 0.1, 1.5],
        [0.0, -0.2, 1e-7],
        [-0.3, 0.0, -2.0],
        [0.0, 0.0, 3.0],
    ];
    let numbers: std::vec::Vec<f32> = twists.iter().flatten().map(|x| *x as f32).collect();
    let mut targets = [0.0; 21];
    let measured = [0.2, -0.4, 0.7];
    intent
        .read(&numbers, &measured, &mut targets)
        .expect("a plan");
    // By small steps.
    let [mut x, mut y, mut heading] = measured;
    for (row, [forward, left, turning]) in targets.chunks(3).skip(1).zip(twists) {
        let steps = 20_000;
        let dt = PERIOD_S / f64::from(steps);
        for _ in 0..steps {
            let middle = heading + 0.5 * turning * dt;
            x += dt * (forward * middle.cos() - left * middle.sin());
            y += dt * (forward * middle.sin() + left * middle.cos());
            heading += turning * dt;
        }
        for (found, wanted) in row.iter().zip([x, y, heading]) {
            close(f64::from(*found), wanted, 1e-6);
        }
    }
}

/// Where the joints go, and the same told as poses.
fn way() -> std::vec::Vec<[f64; 7]> {
    (0..=16)
        .map(|action| {
            let s = f64::from(action) * 0.05;
            [
                0.4 * s,
                0.5 + 0.3 * (2.0 * s).sin(),
                0.9 - 0.4 * s,
                0.2 * (3.0 * s).sin(),
                0.6 + 0.2 * s,
                -0.5 * s,
                f64::from(u8::from(action >= 8)),
            ]
        })
        .collect()
}

fn written(rotation: Rotation, turn: Turn) -> std::vec::Vec<f64> {
    let [x, y, z] = turn.v;
    match rotation {
        Rotation::QuaternionXyzw => std::vec![2.0 * x, 2.0 * y, 2.0 * z, 2.0 * turn.w],
        Rotation::QuaternionWxyz => std::vec![-turn.w, -x, -y, -z],
        Rotation::Vector => turn.vector().to_vec(),
        Rotation::Six => {
            let [a, b, _] = turn.columns();
            a.iter().chain(&b).copied().collect()
        }
        Rotation::Rpy => {
            let [[xx, yx, zx], [_, _, zy], [_, _, zz]] = turn.columns();
            std::vec![
                zy.atan2(zz),
                (-zx).atan2((xx * xx + yx * yx).sqrt()),
                yx.atan2(xx)
            ]
        }
    }
}

fn reach(rotation: Rotation, frame: Frame) -> Part {
    Part::Link(Reach {
        place: [0, 1, 2],
        turn: [3, 4, 5, 6, 7, 8],
        rotation,
        frame,
        link: 5,
        within: Missing {
            way_m: 0.005,
            angle_rad: 0.05,
        },
    })
}

fn posed(rotation: Rotation, frame: Frame) -> Intent {
    let width = 3 + rotation.width();
    let grip = Part::Joint {
        column: width,
        joint: 6,
        how: How::Target,
    };
    Intent::new(&Asked {
        parts: &[grip, reach(rotation, frame)],
        kinds: &kinds(),
        ranges: &[FREE; 7],
        chain: Some(&arm()),
        actions: 16,
        width: width + 1,
        period_s: PERIOD_S,
    })
    .expect("a good intent")
}

/// The way's poses in the words of `rotation` and `frame`.
fn told(rotation: Rotation, frame: Frame) -> std::vec::Vec<f32> {
    let (chain, way) = (arm(), way());
    let poses: std::vec::Vec<Pose> = way
        .iter()
        .map(|q| chain.pose(q, 5).expect("a pose"))
        .collect();
    let sub = crate::core::kinematics::geometry::sub;
    let rotate = crate::core::kinematics::geometry::rotate;
    let mut numbers = std::vec![];
    for (action, q) in way.iter().enumerate().skip(1) {
        let (now, before, start) = (poses[action], poses[action - 1], poses[0]);
        let said = match frame {
            Frame::Base => now,
            Frame::Step => Pose {
                at: sub(now.at, before.at),
                turn: now.turn.then_inside(before.turn.back()),
            },
            Frame::Tool => Pose {
                at: rotate(&start.turn.back().columns(), sub(now.at, start.at)),
                turn: start.turn.back().then_inside(now.turn),
            },
        };
        let turn = written(rotation, said.turn);
        let row = said.at.iter().chain(&turn).chain(&q[6..]);
        numbers.extend(row.map(|x| *x as f32));
    }
    numbers
}

#[test]
fn poses_become_the_joints_that_they_were_made_of_in_whatever_words() {
    for frame in [Frame::Base, Frame::Step, Frame::Tool] {
        for rotation in [
            Rotation::QuaternionXyzw,
            Rotation::QuaternionWxyz,
            Rotation::Vector,
            Rotation::Rpy,
            Rotation::Six,
        ] {
            let mut intent = posed(rotation, frame);
            let way = way();
            assert_eq!(intent.begins(), frame != Frame::Base);
            assert_eq!(intent.per_action(), 4, "12.5 ms apart");
            let mut targets = std::vec![0.0; intent.rows() * 7];
            intent
                .read(&told(rotation, frame), &way[0], &mut targets)
                .expect("a plan");
            let skip = usize::from(frame == Frame::Base);
            for (row, q) in targets.chunks(7).step_by(4).zip(way.iter().skip(skip)) {
                for (found, wanted) in row.iter().zip(q) {
                    close(f64::from(*found), *wanted, 2e-3);
                }
            }
        }
    }
}

#[test]
fn between_two_poses_the_tool_goes_along_the_curve_and_the_gripper_steps() {
    let (chain, mut intent) = (arm(), posed(Rotation::QuaternionXyzw, Frame::Base));
    let way = way();
    let mut numbers = told(Rotation::QuaternionXyzw, Frame::Base);
    // The same orientations by the other sign.
    for row in numbers.chunks_mut(8).skip(3).step_by(2) {
        row[3..7].iter_mut().for_each(|x| *x = -*x);
    }
    let mut targets = std::vec![0.0; intent.rows() * 7];
    intent
        .read(&numbers, &way[0], &mut targets)
        .expect("a plan");
    let place = |action: usize, axis: usize| f64::from(numbers[action * 8 + axis]);
    for (row, joints) in targets.chunks(7).enumerate() {
        let q: std::vec::Vec<f64> = joints.iter().map(|q| f64::from(*q)).collect();
        let at = chain.pose(&q, 5).expect("a pose").at;
        for (axis, found) in at.iter().enumerate() {
            let u = (row % 4) as f64 / 4.0;
            let wanted = along(|action| place(action, axis), 16, row / 4, u);
            close(*found, wanted, 1e-4);
        }
        let wanted = numbers[(row / 4) * 8 + 7];
        assert_eq!(joints[6], wanted, "row {row}: a gripper steps");
    }
    // Nothing jumps from row to row: the branch of the arm stays.
    for pair in targets.chunks(7).collect::<std::vec::Vec<_>>().windows(2) {
        for (before, after) in pair[0].iter().zip(pair[1]).take(6) {
            assert!((after - before).abs() < 0.02);
        }
    }
}

#[test]
fn what_cannot_be_reached_or_is_no_pose_refuses_the_whole_plan() {
    let way = way();
    let mut intent = posed(Rotation::QuaternionXyzw, Frame::Base);
    let good = told(Rotation::QuaternionXyzw, Frame::Base);
    let mut targets = std::vec![0.0; intent.rows() * 7];
    let mut tried = |numbers: &[f32]| intent.read(numbers, &way[0], &mut targets);
    assert_eq!(tried(&good), Ok(()));

    let mut far = good.clone();
    far[10 * 8] = 3.0;
    match tried(&far) {
        Err(Unfit::OutOfReach { action, way_mm, .. }) => {
            // Found on the way there.
            assert!(
                (8..=10).contains(&action) && way_mm > 5.0,
                "{action} {way_mm}"
            );
        }
        other => panic!("{other:?}"),
    }
    let mut none = good.clone();
    none[5 * 8 + 3..5 * 8 + 7].fill(0.0);
    assert_eq!(tried(&none), Err(Unfit::NoPose { action: 5 }));
    let mut broken = good.clone();
    broken[7 * 8 + 1] = f32::NAN;
    assert_eq!(tried(&broken), Err(Unfit::NoPose { action: 7 }));
    let mut grip = good.clone();
    grip[3 * 8 + 7] = f32::INFINITY;
    assert_eq!(tried(&grip), Err(Unfit::NoPose { action: 3 }));
    assert!(matches!(tried(&good[1..]), Err(Unfit::Shape { .. })));
}

#[test]
fn joints_keep_within_their_limits_and_a_plan_that_needs_more_is_refused() {
    let chain = arm();
    let mut tight = [FREE; 7];
    tight[1].max = 0.6;
    let grip = Part::Joint {
        column: 7,
        joint: 6,
        how: How::Target,
    };
    let mut asked = Asked {
        parts: &[grip, reach(Rotation::QuaternionXyzw, Frame::Base)],
        kinds: &kinds(),
        ranges: &tight,
        chain: Some(&chain),
        actions: 16,
        width: 8,
        period_s: PERIOD_S,
    };
    let mut intent = Intent::new(&asked).expect("good");
    let mut targets = std::vec![0.0; intent.rows() * 7];
    let numbers = told(Rotation::QuaternionXyzw, Frame::Base);
    let read = intent.read(&numbers, &way()[0], &mut targets);
    assert!(matches!(read, Err(Unfit::OutOfReach { .. })), "{read:?}");
    assert!(targets.chunks(7).all(|row| row[1] <= 0.6 + 1e-6));
    asked.chain = None;
    assert!(Intent::new(&asked).is_none(), "a pose needs links");
}
