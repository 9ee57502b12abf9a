// SPDX-License-Identifier: Apache-2.0
//! The governor's invariants, on hostile input.

use super::*;
use crate::core::units::MS;
use proptest::prelude::*;

const PERIOD_NS: u64 = 5 * MS;
const T: f64 = 0.005;
const LIMITS: JointLimits = JointLimits {
    position_min: -2.0,
    position_max: 2.0,
    velocity_max: 2.5,
    acceleration_max: 12.0,
};

fn governor(joints: usize) -> Governor {
    let joint = Joint {
        kind: JointKind::Revolute,
        limits: LIMITS,
    };
    Governor::new(&vec![joint; joints], PERIOD_NS).expect("good limits")
}

fn state_at(positions: &[f64]) -> JointState {
    let setpoint = Setpoint::at_rest(positions);
    JointState {
        joints: positions.len(),
        position: setpoint.position,
        received: Mono(1),
        ..JointState::NEVER
    }
}

const ARMED: Permission = Permission::Armed {
    epoch: 9,
    until: Mono(u64::MAX),
};

fn setpoint_of(positions: &[f64]) -> Step {
    Step::Setpoint {
        setpoint: Setpoint::at_rest(positions),
        provenance: Provenance::default(),
        action: 0,
    }
}

/// Steps once, armed, with a fresh state at `pose`.
fn step(governor: &mut Governor, pose: &[f64], proposal: Option<&Step>) -> Output {
    let state = state_at(pose);
    let input = Input {
        proposal,
        state: Freshness::Fresh(&state),
        permission: ARMED,
        hold: None,
        emergency_stop: false,
    };
    governor.step(Mono(MS), &input)
}

/// The emitted sequence against the limits, by differences, exactly.
fn assert_legal(before: &[Axis; JOINTS_MAX], after: &Output, joints: usize) {
    for (joint, before) in before.iter().enumerate().take(joints) {
        let (q, v) = (
            after.command.get().position[joint],
            after.command.get().velocity[joint],
        );
        assert!(q.is_finite() && v.is_finite(), "joint {joint}: {q} {v}");
        assert!((-2.0..=2.0).contains(&q), "joint {joint} at {q}");
        assert!(v.abs() <= 2.5 * (1.0 + 2e-9), "joint {joint} at {v} rad/s");
        let a = (v - before.v) / T;
        assert!(
            a.abs() <= 12.0 * (1.0 + 1e-6),
            "joint {joint} at {a} rad/s2"
        );
        let implied = (q - before.q) / T;
        assert!(
            (implied - v).abs() < 1e-9,
            "joint {joint}: said {v}, moved {implied}"
        );
    }
}

#[test]
fn a_legal_motion_passes_bit_for_bit() {
    let mut governor = governor(1);
    step(&mut governor, &[0.0], None);
    for tick in 0..400 {
        let wish = 0.5 * (1.0 - (f64::from(tick) * T * 2.0).cos());
        let out = step(&mut governor, &[0.0], Some(&setpoint_of(&[wish])));
        assert_eq!(out.verdict, Verdict::Passed, "tick {tick}");
        assert_eq!(out.command.get().position[0].to_bits(), wish.to_bits());
    }
}

#[test]
fn a_step_of_two_radians_never_passes_the_limit() {
    // A rate limiter without a stop in mind overshoots here by a third of a radian.
    let mut governor = governor(1);
    step(&mut governor, &[0.0], None);
    let mut furthest = 0.0_f64;
    for _ in 0..1000 {
        let out = step(&mut governor, &[0.0], Some(&setpoint_of(&[2.0])));
        furthest = furthest.max(out.command.get().position[0]);
    }
    assert!(furthest <= 2.0 && furthest > 1.999_999, "{furthest}");
}

#[test]
fn nan_is_refused_and_never_remembered() {
    let mut governor = governor(2);
    step(&mut governor, &[0.1, 0.2], None);
    let out = step(
        &mut governor,
        &[0.1, 0.2],
        Some(&setpoint_of(&[f64::NAN, 0.2])),
    );
    assert_eq!(out.verdict, Verdict::Held(Cause::NotFinite));
    let out = step(&mut governor, &[0.1, 0.2], Some(&setpoint_of(&[0.1, 0.2])));
    assert_eq!(out.verdict, Verdict::Passed);
}

#[test]
fn silence_brings_it_to_rest_within_the_stopping_time() {
    let mut governor = governor(1);
    step(&mut governor, &[0.0], None);
    for _ in 0..100 {
        step(&mut governor, &[0.0], Some(&setpoint_of(&[1.9])));
    }
    let mut ticks = 0;
    while !step(&mut governor, &[0.0], None).at_rest {
        ticks += 1;
        assert!(
            f64::from(ticks) * T <= 2.5 / 12.0 + 2.0 * T,
            "still moving after {ticks} ticks"
        );
    }
}

#[test]
fn without_permission_nothing_moves() {
    let mut governor = governor(1);
    let state = state_at(&[0.4]);
    let wish = setpoint_of(&[0.41]);
    for permission in [
        Permission::None,
        Permission::Armed {
            epoch: 9,
            until: Mono(0),
        },
    ] {
        let input = Input {
            proposal: Some(&wish),
            state: Freshness::Fresh(&state),
            permission,
            hold: None,
            emergency_stop: false,
        };
        for _ in 0..10 {
            let out = governor.step(Mono(MS), &input);
            assert!(!out.moving);
            assert_eq!(
                out.command.get().position[0],
                0.4,
                "the keep-alive shows the measured pose"
            );
        }
    }
}

#[test]
fn the_worst_cause_wins() {
    let mut governor = governor(1);
    step(&mut governor, &[0.0], None);
    let input = Input {
        proposal: None,
        state: Freshness::Stale { age_ns: 1 },
        permission: ARMED,
        hold: Some(Cause::StateLost),
        emergency_stop: true,
    };
    let out = governor.step(Mono(MS), &input);
    assert_eq!(
        (out.verdict, out.reaction),
        (Verdict::Held(Cause::EmergencyStop), Reaction::TorqueOff)
    );
}

#[test]
fn a_gripper_steps_within_its_range_and_keeps_its_value_in_a_stop() {
    let gripper = JointLimits {
        position_min: 0.0,
        position_max: 1.0,
        velocity_max: 1.0,
        acceleration_max: 1.0,
    };
    let mut governor = Governor::new(
        &[Joint {
            kind: JointKind::Gripper,
            limits: gripper,
        }],
        PERIOD_NS,
    )
    .expect("good limits");
    step(&mut governor, &[0.0], None);
    assert_eq!(
        step(&mut governor, &[0.0], Some(&setpoint_of(&[1.0])))
            .command
            .get()
            .position[0],
        1.0
    );
    assert_eq!(
        step(&mut governor, &[0.0], None).command.get().position[0],
        1.0
    );
    let out = step(&mut governor, &[0.0], Some(&setpoint_of(&[7.0])));
    assert_eq!(
        (out.command.get().position[0], out.verdict),
        (1.0, Verdict::Shaped)
    );
}

#[test]
fn bad_limits_name_the_joint() {
    let good = Joint {
        kind: JointKind::Revolute,
        limits: LIMITS,
    };
    for limits in [
        JointLimits {
            position_min: 2.0,
            position_max: -2.0,
            ..LIMITS
        },
        JointLimits {
            velocity_max: 0.0,
            ..LIMITS
        },
        JointLimits {
            acceleration_max: f64::NAN,
            ..LIMITS
        },
        JointLimits {
            position_max: f64::INFINITY,
            ..LIMITS
        },
    ] {
        let error =
            Governor::new(&[good, Joint { limits, ..good }], PERIOD_NS).expect_err("bad limits");
        assert!(error.to_string().contains("joint 1"), "{error}");
    }
}

/// Any bit pattern, with the nasty ones often.
fn hostile() -> impl Strategy<Value = f64> {
    prop_oneof![
        3 => -3.0..3.0,
        1 => any::<u64>().prop_map(f64::from_bits),
        1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, -f64::INFINITY, 1e308, -1e308, 5e-324, 2.0, -2.0, -0.0]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// I1, I2, I3: whatever is asked, every step is finite, within limits, and can still be stopped.
    #[test]
    fn any_input_leads_to_legal_output(
        wishes in prop::collection::vec((hostile(), hostile(), prop::bool::weighted(0.9)), 1..300),
        start in -2.0..2.0f64,
    ) {
        let mut governor = governor(2);
        step(&mut governor, &[start, -start], None);
        for (a, b, given) in wishes {
            let before = governor.axes;
            let wish = setpoint_of(&[a, b]);
            let out = step(&mut governor, &[start, -start], given.then_some(&wish));
            assert_legal(&before, &out, 2);
        }
        let mut ticks = 0;
        loop {
            let before = governor.axes;
            let out = step(&mut governor, &[start, -start], None);
            assert_legal(&before, &out, 2);
            if out.at_rest {
                break;
            }
            ticks += 1;
            prop_assert!(ticks < 50, "2.5 rad/s at 12 rad/s2 stop in 42 ticks");
        }
    }
}
