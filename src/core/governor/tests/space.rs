// SPDX-License-Identifier: Apache-2.0
//! The space under the adversary: no pose, and no straight way between two, ever leaves it.

use super::adversary::{Dice, Duel};
use super::*;
use crate::core::action::JointKind;
use crate::core::governor::limits::{Coordination, Joint, JointLimits};
use crate::core::governor::shape::Limit;
use crate::core::kinematics::envelope::{Breach, Capsule, Envelope, Pair, SLACK_M};
use crate::core::kinematics::geometry::{Cuboid, Point, Transform};
use crate::core::kinematics::{Chain, Drive, Link, Motion as Joined};
use crate::core::units::MS;

/// An arm of the duel's joints (grippers move no link): links of 0.2 m that turn about z and y in turn.
fn chain(joints: &[Joint]) -> Chain {
    let mut links: std::vec::Vec<Link> = vec![];
    for (index, joint) in joints.iter().enumerate() {
        if joint.kind == JointKind::Gripper {
            continue;
        }
        let drive = Drive {
            joint: index,
            factor: 1.0,
            offset: 0.0,
        };
        links.push(Link {
            parent: links.len().checked_sub(1),
            origin: Transform::from_xyz_rpy([0.0, 0.0, 0.2], [0.0; 3]),
            axis: [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]][index % 2],
            motion: Joined::Revolute(drive),
        });
    }
    Chain::new(&links, joints.len()).expect("a good chain")
}

/// A box that the arm can leave, a box in its way, and links that can meet.
fn envelope(dice: &mut Dice, joints: &[Joint]) -> Envelope {
    let chain = chain(joints);
    let links = chain.links().len();
    let reach = 0.2 * links as f64;
    let capsules: std::vec::Vec<Capsule> = (0..links)
        .map(|link| Capsule {
            link,
            ends: [[0.0; 3], [0.0, 0.0, 0.15]],
            radius_m: 0.03,
            in_workspace: true,
            out_of_boxes: true,
        })
        .collect();
    let pairs: std::vec::Vec<Pair> = (0..links)
        .flat_map(|one| (one + 2..links).map(move |two| [one, two]))
        .map(|capsules| Pair {
            capsules,
            clearance_m: 0.01,
        })
        .collect();
    let far = reach * dice.between(0.7, 1.1) + 0.2;
    let workspace = Cuboid {
        min: [-far; 3],
        max: [far; 3],
    };
    let corner: Point = std::array::from_fn(|_| reach * dice.between(-0.5, 0.5));
    let keep_out = Cuboid {
        min: corner,
        max: corner.map(|x| x + 0.3 * reach + 0.01),
    };
    Envelope::new(chain, &capsules, Some(workspace), &[keep_out], &pairs).expect("a good envelope")
}

/// A duel in a space that holds the robot where it stands.
fn duel(seed: u64, joints: usize, rate_hz: u64, mode: Coordination) -> (Duel, Envelope) {
    let mut duel = Duel::new(seed, joints, rate_hz, mode);
    let limits = duel.governor.limits().clone();
    let mut dice = Dice::new(seed ^ 0x51ed);
    let envelope = loop {
        let envelope = envelope(&mut dice, &limits.joints);
        if envelope.check(&duel.state.position[..joints]).is_ok() {
            break envelope;
        }
        for (q, joint) in duel.state.position.iter_mut().zip(&limits.joints) {
            *q = dice.between(joint.limits.position_min, joint.limits.position_max);
        }
    };
    duel.governor = Governor::new(limits)
        .and_then(|governor| governor.within(envelope.clone()))
        .expect("as many joints");
    (duel, envelope)
}

/// How deep a pose is outside; 0 inside. The slack that is taken off every distance is no breach.
fn depth_m(envelope: &Envelope, pose: &[f64]) -> f64 {
    match envelope.check(pose) {
        Ok(()) => 0.0,
        Err(Breach::Space { depth_m, .. }) => depth_m,
        Err(other) => panic!("{other}"),
    }
}

/// I1, I2 and the space, with all the faults of the adversary: stops of every kind, changes of scale, late ticks.
#[test]
fn no_input_whatsoever_leaves_the_space() {
    let (mut spaced, mut passed, mut deepest) = (0_u64, 0_u64, 0.0_f64);
    for seed in 0..super::rounds(120).max(20) {
        let joints = [2, 3, 6, 7, 14][seed as usize % 5];
        let rate_hz = [50, 200, 1000][seed as usize / 5 % 3];
        let mode = [Coordination::Synchronised, Coordination::Independent][seed as usize % 2];
        let (mut duel, envelope) = duel(seed, joints, rate_hz, mode);
        let mut last: Option<Setpoint> = None;
        for tick in 0..6_000 / joints as u64 {
            if tick % 700 == 699 {
                let mut limits = duel.governor.limits().clone();
                let share = duel.adversary.dice.between(0.5, 1.5);
                for joint in &mut limits.joints {
                    joint.limits.acceleration_max *= share;
                }
                // Refused where it cannot be; then nothing changes.
                let old = duel.governor.limits().joints.clone();
                if duel.governor.change_limits(limits).is_ok() {
                    // Until they are in force, either may be.
                    if share < 1.0 {
                        duel.witness_limits = Some(old);
                    }
                    while duel.governor.motion.changing() {
                        duel.tick(None, |_| {});
                    }
                    last = None;
                    duel.witness_limits = None;
                    duel.witness = super::adversary::Witness::midway();
                }
            }
            let out = duel.round();
            let command = *out.command.get();
            if !out.moving {
                last = None;
                continue;
            }
            spaced += u64::from(matches!(
                out.verdict,
                Verdict::Shaped(Limit::Workspace | Limit::KeepOut | Limit::SelfCollision)
            ));
            passed += u64::from(out.verdict == Verdict::Passed);
            let from = last.unwrap_or(command);
            for share in [0.25, 0.5, 0.75, 1.0] {
                let pose: std::vec::Vec<f64> = command
                    .position
                    .iter()
                    .zip(&from.position)
                    .map(|(to, from)| from + share * (to - from))
                    .take(joints)
                    .collect();
                let deep = depth_m(&envelope, &pose);
                deepest = deepest.max(deep);
                assert!(
                    deep <= SLACK_M,
                    "{deep} m deep: {:?}; {}",
                    out.verdict,
                    duel.say()
                );
            }
            last = Some(command);
        }
    }
    println!("{spaced} shaped by the space, {passed} passed, deepest {deepest:e} m");
    assert!(
        spaced > 2_000 && passed > 200,
        "the adversary must meet the space and miss it: {spaced} {passed}"
    );
}

const WALKER: JointLimits = JointLimits {
    position_min: -2.0,
    position_max: 2.0,
    velocity_max: 2.5,
    acceleration_max: 15.0,
    jerk_max: 1500.0,
    tracking_error_max: 0.5,
    torque_max: f64::INFINITY,
};

/// Two links that turn about y, with a wall 0.3 m in front of the base and the tip kept out of it.
fn walker() -> (Governor, Envelope) {
    walker_with(&[])
}

/// The same with more joints, which move no link.
fn walker_with(more: &[Joint]) -> (Governor, Envelope) {
    let joint = Joint {
        kind: JointKind::Revolute,
        limits: WALKER,
    };
    let joints: std::vec::Vec<Joint> = [joint, joint].iter().chain(more).copied().collect();
    let link = |parent: Option<usize>, joint| Link {
        parent,
        origin: Transform::from_xyz_rpy([0.0, 0.0, 0.3], [0.0; 3]),
        axis: [0.0, 1.0, 0.0],
        motion: Joined::Revolute(Drive {
            joint,
            factor: 1.0,
            offset: 0.0,
        }),
    };
    let chain = Chain::new(&[link(None, 0), link(Some(0), 1)], joints.len()).expect("a good chain");
    let tip = Capsule {
        link: 1,
        ends: [[0.0, 0.0, 0.3]; 2],
        radius_m: 0.02,
        in_workspace: false,
        out_of_boxes: true,
    };
    let wall = Cuboid {
        min: [0.3, -1.0, -1.0],
        max: [0.5, 1.0, 2.0],
    };
    let envelope = Envelope::new(chain, &[tip], None, &[wall], &[]).expect("a good envelope");
    let mut limits = Limits::new(&joints, 5 * MS).expect("good limits");
    limits.settling.window_ns = 0;
    let governor = Governor::new(limits)
        .and_then(|governor| governor.within(envelope.clone()))
        .expect("two joints");
    (governor, envelope)
}

/// One arming of the walker, with whatever is asked for.
fn walk(
    governor: &mut Governor,
    ticks: u64,
    wish: impl Fn(u64) -> [f64; 2],
) -> std::vec::Vec<Output> {
    walk_from(governor, 0, ticks, |tick| wish(tick).to_vec())
}

/// The same from tick `begin` on; at 0 it stands at zero.
fn walk_from(
    governor: &mut Governor,
    begin: u64,
    ticks: u64,
    wish: impl Fn(u64) -> std::vec::Vec<f64>,
) -> std::vec::Vec<Output> {
    let mut state = JointState {
        joints: governor.limits().joints.len(),
        ..JointState::NEVER
    };
    if begin > 0 {
        let at = governor.motion.setpoint();
        (state.position, state.velocity) = (at.position, at.velocity);
    }
    (begin..begin + ticks)
        .map(|tick| {
            let now = Mono((2_000 + tick * 5) * MS);
            (state.measured, state.received) = (now, now);
            let mut setpoint = Setpoint::at_rest(&wish(tick));
            setpoint.joints = state.joints;
            let proposal = Proposal {
                made: now,
                step: Step::Setpoint {
                    setpoint,
                    provenance: Provenance::default(),
                    action: 0,
                },
            };
            let out = governor.step(
                now,
                &Input {
                    proposal: Some(&proposal),
                    state: Freshness::Fresh(&state),
                    permission: Permission::Armed(Armed::for_test(
                        1,
                        Hands::Policy,
                        now.plus_ns(40 * MS),
                    )),
                    hold: None,
                    emergency_stop: false,
                    speed_scale: 1.0,
                    emergency_line: EmergencyLine::NotFitted,
                    deadman: Deadman::NotFitted,
                },
            );
            if out.moving {
                state.position = out.command.get().position;
                state.velocity = out.command.get().velocity;
            }
            out
        })
        .collect()
}

#[test]
fn a_robot_sent_through_a_wall_comes_to_rest_before_it_and_can_leave() {
    let (mut governor, envelope) = walker();
    let outs = walk(&mut governor, 1_200, |tick| {
        if tick < 800 { [1.2, 0.3] } else { [0.0, 0.0] }
    });
    let tip_x = |out: &Output| {
        let q = out.command.get().position;
        0.3 * q[0].sin() + 0.3 * (q[0] + q[1]).sin()
    };
    assert!(
        outs.iter()
            .any(|out| out.verdict == Verdict::Shaped(Limit::KeepOut)),
        "the wall is named"
    );
    let nearest = outs.iter().map(tip_x).fold(f64::MIN, f64::max);
    assert!(
        nearest <= 0.28,
        "the tip's ball touches the wall: {nearest}"
    );
    let at_wall = &outs[700..800];
    assert!(
        at_wall.iter().all(|out| tip_x(out) > 0.275),
        "it goes as far as it may: {}",
        tip_x(&at_wall[0])
    );
    assert!(
        outs.iter()
            .skip(1)
            .all(|out| !matches!(out.verdict, Verdict::Held(_))),
        "being at the wall is not shaking"
    );
    // Approaching does not mean shivering: the acceleration changes its sign a few times, not at each tick.
    let slopes: std::vec::Vec<f64> = outs[..800]
        .windows(3)
        .map(|w| tip_x(&w[2]) - 2.0 * tip_x(&w[1]) + tip_x(&w[0]))
        .collect();
    let hard = 0.3 * WALKER.acceleration_max * 0.005 * 0.005 * 0.5;
    let flips = slopes
        .windows(2)
        .filter(|w| w[0] * w[1] < 0.0 && w[0].abs() > hard && w[1].abs() > hard)
        .count();
    assert!(
        flips <= 4,
        "{flips} hard changes of mind on the way to the wall"
    );
    let end = outs.last().map(|out| *out.command.get());
    assert_eq!(
        end.map(|end| end.position[..2].to_vec()),
        Some(vec![0.0, 0.0])
    );
    assert!(envelope.check(&[0.0, 0.0]).is_ok());
}

#[test]
fn limits_under_which_a_stop_would_end_in_the_wall_wait_until_it_does_not() {
    for share in [0.7, 0.4, 0.2] {
        let (mut governor, _) = walker();
        let mut narrower = governor.limits().clone();
        for joint in &mut narrower.joints {
            joint.limits.acceleration_max *= share;
        }
        let tip_x = |q: &[f64]| 0.3 * q[0].sin() + 0.3 * (q[0] + q[1]).sin();
        let mut changed = None;
        let mut nearest = f64::MIN;
        for begin in 0..60 {
            let outs = walk_from(&mut governor, begin * 10, 10, |_| vec![1.2, 0.3]);
            for out in &outs {
                nearest = nearest.max(tip_x(&out.command.get().position));
            }
            if changed.is_none() && nearest > 0.15 {
                changed = Some(governor.change_limits(narrower.clone()));
            }
        }
        assert_eq!(changed, Some(Ok(())), "it was taken");
        assert!(nearest <= 0.28, "share {share}: the wall is hit: {nearest}");
        assert!(
            nearest > 0.27,
            "share {share}: it never came near: {nearest}"
        );
        assert!(!governor.motion.changing(), "and is in force at rest");
    }
}

#[test]
fn a_gripper_closes_while_the_arm_is_kept_from_a_wall() {
    let gripper = Joint {
        kind: JointKind::Gripper,
        limits: JointLimits {
            position_min: 0.0,
            position_max: 1.0,
            ..WALKER
        },
    };
    let (mut governor, _) = walker_with(&[gripper]);
    let grip = |tick: u64| 0.2 + 0.1 * (tick % 7) as f64;
    let outs = walk_from(&mut governor, 0, 400, |tick| vec![1.2, 0.3, grip(tick)]);
    let mut kept = 0;
    for (tick, out) in outs.iter().enumerate().skip(2) {
        kept += u64::from(out.verdict == Verdict::Shaped(Limit::KeepOut));
        assert_eq!(
            out.command.get().position[2],
            grip(tick as u64),
            "tick {tick}"
        );
    }
    assert!(kept > 10, "{kept}");
}

#[test]
fn a_robot_that_stands_in_a_wall_is_not_seated() {
    let (mut governor, _) = walker();
    let mut state = JointState {
        joints: 2,
        ..JointState::NEVER
    };
    state.position[..2].copy_from_slice(&[0.6, 0.1]);
    let now = Mono(2_000 * MS);
    (state.measured, state.received) = (now, now);
    let out = governor.step(
        now,
        &Input {
            proposal: None,
            state: Freshness::Fresh(&state),
            permission: Permission::Armed(Armed::for_test(1, Hands::Policy, now.plus_ns(40 * MS))),
            hold: None,
            emergency_stop: false,
            speed_scale: 1.0,
            emergency_line: EmergencyLine::NotFitted,
            deadman: Deadman::NotFitted,
        },
    );
    assert!(!out.moving);
    assert_eq!(out.verdict, Verdict::Held(Cause::PoseOutside));
}

#[test]
fn an_envelope_of_other_joints_is_refused() {
    let (governor, _) = walker();
    let joint = Joint {
        kind: JointKind::Revolute,
        limits: WALKER,
    };
    let other = Envelope::new(chain(&[joint; 3]), &[], None, &[], &[]).expect("a good envelope");
    assert!(governor.within(other).is_err());
}
