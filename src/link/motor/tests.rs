// SPDX-License-Identifier: Apache-2.0
//! Silence, refusals, ends of the range, and what the reference must never do.

use super::*;
use crate::core::chunk::Provenance;
use crate::core::governor::limits::JointLimits;
use crate::core::wire::command::{COMMAND_LEN_MAX, MODE_KEEP_ALIVE, MODE_TORQUE_OFF, encode};

const IDENTITY: Identity = Identity {
    data_id: 1,
    schema: 2,
};
const PERIOD_NS: u64 = 5 * MS;

fn motor() -> Motor {
    let limits = JointLimits {
        position_min: -2.0,
        position_max: 2.0,
        velocity_max: 2.0,
        acceleration_max: 10.0,
        jerk_max: 1_000.0,
        tracking_error_max: f64::INFINITY,
        torque_max: f64::INFINITY,
    };
    let joints = vec![Joint {
        kind: JointKind::Revolute,
        limits,
    }];
    let settings = Settings {
        commands: IDENTITY,
        states: IDENTITY,
        joints,
        period_ns: PERIOD_NS,
        boot_id: 5,
    };
    Motor::new(settings, &[0.0])
}

/// One that has been told that nothing is armed.
fn ready() -> Motor {
    let mut motor = motor();
    let keep_alive = frame(Mono(0), 0, 0, MODE_KEEP_ALIVE, 0.0);
    assert_eq!(motor.on_command(Mono(0), &keep_alive), Ok(()));
    motor
}

fn frame(sent: Mono, counter: u32, epoch: u32, mode: u8, q: f64) -> Vec<u8> {
    let command = Command {
        counter,
        epoch,
        sent,
        valid_for_us: 100_000,
        mode,
        verdict: 0,
        action: 0,
        provenance: Provenance::default(),
        setpoint: Setpoint::at_rest(&[q]),
        tool: None,
    };
    let mut bytes = [0; COMMAND_LEN_MAX];
    let length = encode(&command, IDENTITY, &mut bytes).expect("fits");
    bytes[..length].to_vec()
}

/// Follows a motion at 1 rad/s for `ticks`, one command each 5 ms, and returns the time of the last one.
fn follow(motor: &mut Motor, ticks: u32) -> u64 {
    let mut ms = 0;
    for tick in 1..=ticks {
        let v = f64::from(tick).min(20.0) * 0.05;
        let q = (1..=tick)
            .map(|k| f64::from(k).min(20.0) * 0.05 * 0.005)
            .sum::<f64>();
        assert!(v <= 1.0);
        assert_eq!(
            motor.on_command(
                Mono(ms * MS),
                &frame(Mono(ms * MS), tick, 9, MODE_FOLLOW, q)
            ),
            Ok(())
        );
        for _ in 0..5 {
            ms += 1;
            motor.step(Mono(ms * MS), MS);
        }
    }
    ms
}

/// I7, at the motor controller.
#[test]
fn it_stops_by_itself_within_20_ms_of_silence_and_stays_stopped() {
    let mut motor = ready();
    let last_ms = follow(&mut motor, 40);
    let mut stopped_after_ms = None;
    let mut fastest = f64::MAX;
    for ms in last_ms + 1..last_ms + 300 {
        let v = motor.step(Mono(ms * MS), MS).velocity[0];
        assert!(
            v >= 0.0 && v <= fastest.max(0.0) + 1e-12,
            "it only slows down: {v}"
        );
        fastest = v;
        if motor.mode() == MotorMode::Stopped {
            stopped_after_ms.get_or_insert(ms - (last_ms - 5));
        }
    }
    assert_eq!(
        stopped_after_ms,
        Some(20),
        "counted from the last command, in steps of 1 ms"
    );
    assert!(motor.at_rest());
    assert_eq!(
        motor.on_command(
            Mono(900 * MS),
            &frame(Mono(900 * MS), 41, 9, MODE_FOLLOW, 0.2)
        ),
        Err(Reject::Stopped)
    );
    assert_eq!(motor.limit_violations(), 0);
}

#[test]
fn no_arming_is_taken_while_the_emergency_stop_is_pressed() {
    let mut motor = ready();
    let last_ms = follow(&mut motor, 40);
    motor.emergency_stop(true);
    assert_eq!(motor.mode(), MotorMode::TorqueOff);
    let (q, at) = (motor.measured.position[0], last_ms + 5);
    let mut arm = |ms, counter, epoch| {
        let at = Mono(ms * MS);
        motor.on_command(at, &frame(at, counter, epoch, MODE_FOLLOW, q))
    };
    assert_eq!(arm(at, 41, 10), Err(Reject::Stopped));
    motor.emergency_stop(false);
    assert_eq!(
        motor.mode(),
        MotorMode::TorqueOff,
        "released, it is as it was"
    );
    let mut arm = |ms, counter, epoch| {
        let at = Mono(ms * MS);
        motor.on_command(at, &frame(at, counter, epoch, MODE_FOLLOW, q))
    };
    assert_eq!(
        arm(at + 5, 42, 9),
        Err(Reject::Epoch),
        "the old arming is over"
    );
    assert_eq!(arm(at + 10, 43, 11), Ok(()));
}

#[test]
fn three_lost_commands_are_bridged() {
    let mut motor = ready();
    let last_ms = follow(&mut motor, 40);
    for ms in last_ms + 1..=last_ms + 14 {
        assert!((motor.step(Mono(ms * MS), MS).velocity[0] - 1.0).abs() < 1e-6);
    }
    assert_eq!(motor.mode(), MotorMode::Following);
}

#[test]
fn a_first_command_away_from_the_pose_is_refused() {
    let mut motor = ready();
    assert_eq!(
        motor.on_command(Mono(0), &frame(Mono(0), 1, 9, MODE_FOLLOW, 0.06)),
        Err(Reject::AwayFromPose)
    );
    assert_eq!(
        motor.on_command(Mono(0), &frame(Mono(0), 2, 9, MODE_FOLLOW, 0.01)),
        Ok(())
    );
    assert_eq!(
        motor.on_command(Mono(0), &frame(Mono(0), 3, 0, MODE_FOLLOW, 0.01)),
        Err(Reject::Stopped),
        "no epoch, no motion"
    );
}

/// The arming of before its start moves nothing, however well it fits, and for however long it is sent.
#[test]
fn after_a_restart_the_old_arming_is_not_followed() {
    let mut motor = motor();
    let mut say = |tick: u32, epoch, mode| {
        let at = Mono(u64::from(tick) * PERIOD_NS);
        let taken = motor.on_command(at, &frame(at, tick, epoch, mode, 0.0));
        motor.step(at, PERIOD_NS);
        (taken, motor.mode())
    };
    for tick in 1..400 {
        let refused = (Err(Reject::Stopped), MotorMode::Idle);
        assert_eq!(say(tick, 9, MODE_FOLLOW), refused, "tick {tick}");
    }
    let torque_off = (Ok(()), MotorMode::TorqueOff);
    assert_eq!(say(400, 9, MODE_TORQUE_OFF), torque_off);
    let refused = (Err(Reject::Stopped), MotorMode::TorqueOff);
    assert_eq!(say(401, 9, MODE_FOLLOW), refused, "that is not disarmed");
    assert_eq!(say(402, 0, MODE_KEEP_ALIVE).0, Ok(()));
    assert_eq!(say(403, 10, MODE_FOLLOW), (Ok(()), MotorMode::Following));
}

#[test]
fn a_keep_alive_moves_nothing() {
    let mut motor = motor();
    for tick in 1..100 {
        assert_eq!(
            motor.on_command(
                Mono(u64::from(tick) * PERIOD_NS),
                &frame(
                    Mono(u64::from(tick) * PERIOD_NS),
                    tick,
                    0,
                    MODE_KEEP_ALIVE,
                    1.5
                )
            ),
            Ok(())
        );
        assert_eq!(
            motor
                .step(Mono(u64::from(tick) * PERIOD_NS), PERIOD_NS)
                .position[0],
            0.0
        );
    }
}

#[test]
fn too_fast_and_outside_are_refused_and_counted() {
    let mut motor = ready();
    for (counter, q, want) in [
        (1, 0.0, Ok(())),
        (2, 0.0, Ok(())),
        (3, 0.04, Err(Reject::TooFast)),
    ] {
        assert_eq!(
            motor.on_command(Mono(0), &frame(Mono(0), counter, 9, MODE_FOLLOW, q)),
            want
        );
    }
    assert_eq!(motor.limit_violations(), 1, "8 rad/s");
    assert_eq!(
        motor.on_command(Mono(0), &frame(Mono(0), 4, 9, MODE_FOLLOW, 2.1)),
        Err(Reject::Limits)
    );
    assert_eq!(motor.limit_violations(), 2);
}
