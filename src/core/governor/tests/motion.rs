// SPDX-License-Identifier: Apache-2.0
//! Limits that change under way, and what of a step is taken where the space is in its way.

use super::super::motion::{Force, Haste, Motion};
use super::*;
use crate::core::action::JointKind;
use crate::core::governor::limits::{Coordination, Joint, JointLimits};
use crate::core::units::MS;

const SWINGING: Joint = Joint {
    kind: JointKind::Revolute,
    limits: JointLimits {
        position_min: -2.0,
        position_max: 2.0,
        velocity_max: 2.5,
        acceleration_max: 15.0,
        jerk_max: 1500.0,
        tracking_error_max: 0.5,
        torque_max: f64::INFINITY,
    },
};
const GRIPPING: Joint = Joint {
    kind: JointKind::Gripper,
    limits: JointLimits {
        position_min: 0.0,
        position_max: 1.0,
        ..SWINGING.limits
    },
};

fn limits(joints: &[Joint]) -> Limits {
    let mut limits = Limits::new(joints, 5 * MS).expect("good limits");
    limits.coordination = Coordination::Independent;
    limits.settling.acceleration = 0.5;
    limits
}

fn seated(limits: &Limits, position: &[f64]) -> Motion {
    let mut motion = Motion::new(limits).expect("good limits");
    motion.seat(position);
    motion
}

/// One tick under the deployment's limits: position and velocity of the first joint.
fn tick(motion: &mut Motion, wish: &[f64]) -> (f64, f64) {
    motion.put_in_force(Force::Full, 1.0);
    motion.follow(&Setpoint::at_rest(wish));
    let setpoint = motion.setpoint();
    (setpoint.position[0], setpoint.velocity[0])
}

/// Follows `wish` until the first joint is at `position` or beyond.
fn until(motion: &mut Motion, wish: &[f64], position: f64) {
    let arrived = (0..1_000).any(|_| tick(motion, wish).0 >= position);
    assert!(arrived, "never at {position}");
}

#[test]
fn only_limits_of_the_same_joints_at_the_same_rate_that_hold_the_robot_are_taken() {
    let old = limits(&[SWINGING, GRIPPING]);
    let mut motion = seated(&old, &[0.5, 0.0]);
    let different = |motion: &mut Motion, limits: &Limits| {
        let refused = motion.change(limits);
        assert!(
            matches!(refused, Err(BadLimits::Different { .. })),
            "{refused:?}"
        );
        assert!(!motion.changing());
    };
    different(&mut motion, &limits(&[SWINGING, GRIPPING, GRIPPING]));
    different(&mut motion, &limits(&[SWINGING, SWINGING]));
    let mut slower = limits(&[SWINGING, GRIPPING]);
    slower.period_ns = 10 * MS;
    different(&mut motion, &slower);

    for (position_min, position_max) in [(0.6, 2.0), (-2.0, 0.4)] {
        let mut elsewhere = old.clone();
        elsewhere.joints[0].limits.position_min = position_min;
        elsewhere.joints[0].limits.position_max = position_max;
        let refused = motion.change(&elsewhere);
        assert!(
            matches!(refused, Err(BadLimits::Outside { joint: 0, .. })),
            "{refused:?}"
        );
        assert!(!motion.changing());
    }
    assert_eq!(motion.change(&old), Ok(()));
}

#[test]
fn what_is_wider_waits_for_rest_and_comes_then() {
    let old = limits(&[SWINGING]);
    let mut motion = seated(&old, &[-1.0]);
    until(&mut motion, &[3.0], 0.0);
    let mut wider = old.clone();
    wider.joints[0].limits.position_max = 3.0;
    wider.joints[0].limits.velocity_max = 2.0;
    motion.change(&wider).expect("it holds the robot");
    let mut way = std::vec::Vec::new();
    while !motion.at_rest() {
        way.push(tick(&mut motion, &[3.0]));
        assert!(way.len() < 1_000, "never at rest");
    }
    let furthest = way.iter().map(|(q, _)| *q).fold(f64::MIN, f64::max);
    assert_eq!(furthest, 2.0, "the old end until it was at rest");
    let slow = way.iter().position(|(_, v)| *v <= 2.0).expect("it slows");
    assert!(way[slow..].iter().all(|(_, v)| *v <= 2.0), "and stays slow");
    until(&mut motion, &[3.0], 3.0);
    assert!(!motion.changing());
}

#[test]
fn a_gripper_is_put_inside_its_new_limits_also_while_braking() {
    let old = limits(&[SWINGING, GRIPPING]);
    let mut motion = seated(&old, &[0.0, 1.0]);
    let mut narrower = old.clone();
    narrower.joints[1].limits.position_max = 0.8;
    motion
        .change(&narrower)
        .expect("a gripper is not in the way");
    motion.put_in_force(Force::Full, 1.0);
    motion.brake(Haste::Orderly);
    assert_eq!(motion.setpoint().position[1], 0.8);
}

/// A curve within the limits, far from where the robot stands: it is pursued, which takes the wish's acceleration.
fn swing(tick: u32) -> Setpoint {
    let phase = 3.0 * f64::from(tick) * 0.005;
    let mut wish = Setpoint::at_rest(&[0.5 * phase.sin()]);
    wish.velocity[0] = 0.5 * 3.0 * phase.cos();
    wish
}

#[test]
fn the_same_limits_again_change_nothing() {
    let same = limits(&[SWINGING]);
    let (mut one, mut two) = (seated(&same, &[-0.6]), seated(&same, &[-0.6]));
    let mut pursued = 0;
    for number in 0..400 {
        if number % 7 == 3 {
            two.change(&same).expect("the same");
        }
        one.put_in_force(Force::Full, 1.0);
        pursued += u32::from(one.follow(&swing(number)).is_some());
        two.put_in_force(Force::Full, 1.0);
        two.follow(&swing(number));
        assert_eq!(one.setpoint(), two.setpoint(), "tick {number}");
    }
    assert!((10..390).contains(&pursued), "{pursued}");
}

#[test]
fn who_could_keep_the_tighter_limits_brakes_within_them_while_another_cannot() {
    let limits = limits(&[SWINGING, SWINGING]);
    let mut motion = seated(&limits, &[-1.0, -1.5]);
    until(&mut motion, &[2.0, 2.0], 1.65);
    let mut last_rad_s = motion.setpoint().velocity[1];
    assert!(last_rad_s > 2.0, "{last_rad_s}");
    while last_rad_s > 0.0 && motion.setpoint().velocity[0] > 0.0 {
        motion.put_in_force(Force::Tight, 1.0);
        motion.follow(&Setpoint::at_rest(&[2.0, 2.0]));
        let now_rad_s = motion.setpoint().velocity[1];
        let a = (now_rad_s - last_rad_s) / 0.005;
        assert!(a >= -7.5 - 1e-6, "half of 15 rad/s^2, found {a}");
        last_rad_s = now_rad_s;
    }
}

#[test]
fn tighter_limits_that_cannot_be_kept_yet_are_braked_for() {
    let limits = limits(&[SWINGING]);
    let mut motion = seated(&limits, &[-1.0]);
    // At full speed 0.35 rad before the end: far enough for a stop with all of the acceleration, not with half of it.
    until(&mut motion, &[2.0], 1.65);
    let mut relaxed = motion.clone();
    let (_, relaxed_rad_s) = tick(&mut relaxed, &[2.0]);
    assert!(relaxed_rad_s > 2.49, "{relaxed_rad_s}");
    let mut last_rad_s = relaxed_rad_s;
    for number in 0..20 {
        motion.put_in_force(Force::Tight, 1.0);
        motion.follow(&Setpoint::at_rest(&[2.0]));
        let now_rad_s = motion.setpoint().velocity[0];
        assert!(now_rad_s < last_rad_s, "tick {number}: {now_rad_s}");
        last_rad_s = now_rad_s;
    }
}
