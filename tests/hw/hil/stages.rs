// SPDX-License-Identifier: Apache-2.0
//! What a motor controller must do, one stage after the other, the harmless ones first.

use crate::canary::Canary;
use crate::hands::Hands;
use crate::ledger::{Ledger, Outcome};
use crate::lines::{controller_restart, emergency_stop, servo_bus};
use crate::rig::{Rig, furthest, reason};
use crate::stops::{corrupt, expired, replayed, silence};
use crc::{CRC_32_AUTOSAR, Crc};
use tendon::core::action::Setpoint;
use tendon::core::units::MS;
use tendon::core::wire::command::{
    self, Command, MODE_FOLLOW, MODE_KEEP_ALIVE, MODE_TORQUE_OFF, START_TOLERANCE,
};
use tendon::core::wire::reject::Reject;
use tendon::core::wire::state::MotorMode;
use tendon::core::wire::{Identity, Kind, data_id};
use tendon::runtime::clock;

/// A joint that moved less has not moved: encoder noise.
pub const STILL: f64 = 0.01;

pub struct Bench<'a> {
    pub rig: &'a mut Rig,
    pub hands: &'a Hands,
    pub ledger: &'a mut Ledger,
    /// Only where the motor controller runs on this machine: what the machine lost is granted.
    pub canary: Option<&'a Canary>,
    pub joint: usize,
}

pub type Stage = fn(&mut Bench<'_>) -> Result<(), String>;

/// Name, what it will do to the robot (nothing: it does not move), and the stage.
pub const STAGES: [(&str, &str, Stage); 11] = [
    ("handshake", "", handshake),
    ("frames", "", frames),
    (
        "first command",
        "The robot is armed where it stands and asked for things that it must refuse. It should not move.",
        first_command,
    ),
    (
        "limits",
        "The robot is armed where it stands and asked to jump. It should not move.",
        limits,
    ),
    (
        "silence",
        "One joint sways slowly, then the commands cease: the controller must stop it.",
        silence,
    ),
    (
        "corrupt frames",
        "One joint sways slowly, then every frame is damaged on its way.",
        corrupt,
    ),
    (
        "replayed frames",
        "One joint sways slowly, then old frames are sent again.",
        replayed,
    ),
    (
        "expired frames",
        "One joint sways slowly, then every frame comes a second late.",
        expired,
    ),
    (
        "torque off",
        "Torque is switched off by command: an arm without brakes FALLS. Hold it.",
        torque_off,
    ),
    (
        "emergency stop",
        "One joint sways slowly until you press the emergency stop.",
        emergency_stop,
    ),
    (
        "controller restart",
        "One joint sways slowly until you switch the motor controller off and on: an arm without brakes FALLS. Hold it.",
        controller_restart,
    ),
];

/// Run last, and alone against servos that must fail it.
pub const BUS: (&str, &str, Stage) = (
    "servo bus",
    "One joint sways slowly until you pull the plug of the servo bus. If the servos have no watchdog that works, the joint KEEPS TURNING: keep clear, and a hand on the emergency stop.",
    servo_bus,
);

/// States come at their rate, in order, from one start of the controller.
fn handshake(on: &mut Bench<'_>) -> Result<(), String> {
    let mark = on.rig.mark();
    on.rig.keep_alive(2_000)?;
    let heard = on.rig.since(mark);
    let expected = 2_000 * MS / on.rig.period_ns;
    let enough = heard.len() as u64 * 100 >= expected * 90;
    on.ledger.judge(
        "handshake",
        "states come at the command rate",
        enough,
        format!("{} of {expected} in 2 s", heard.len()),
        "90 %",
    );
    let steps = heard
        .windows(2)
        .map(|pair| pair[1].report.counter.wrapping_sub(pair[0].report.counter));
    let lost: u32 = steps.map(|step| step.wrapping_sub(1)).sum();
    on.ledger.judge(
        "handshake",
        "states come in order, none lost",
        u64::from(lost) * 100 <= expected,
        format!("{lost} lost"),
        "1 %",
    );
    let same = heard
        .windows(2)
        .all(|pair| pair[0].report.boot_id == pair[1].report.boot_id);
    on.ledger.judge(
        "handshake",
        "it did not restart",
        same,
        format!("boot id {:016x}", on.rig.last()?.report.boot_id),
        "one",
    );
    let echoed = on.rig.last()?.report;
    let behind = on.rig.sent.last().map_or(u32::MAX, |(counter, ..)| {
        counter.wrapping_sub(echoed.echo_counter)
    });
    on.ledger.judge(
        "handshake",
        "keep-alives are accepted and echoed",
        behind < 20,
        format!("{behind} behind"),
        "20 commands",
    );
    if let (Some(first), Some(last)) = (heard.first(), heard.last()) {
        let span_ms = last.at.since_ns(first.at) as f64 / 1e6;
        let mean_ms = span_ms / (heard.len().max(2) - 1) as f64;
        on.ledger.figures.insert("state_period_ms".into(), mean_ms);
    }
    Ok(())
}

/// Damages the frame of a good command.
type Damage = fn(&mut Rig, Command) -> Vec<u8>;

fn resealed(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    change(&mut frame);
    let end = frame.len() - 4;
    let crc = Crc::<u32>::new(&CRC_32_AUTOSAR).checksum(&frame[..end]);
    frame[end..].copy_from_slice(&crc.to_le_bytes());
    frame
}

fn of_another(rig: &Rig, command: &Command, identity: Identity) -> Vec<u8> {
    let mut frame = [0; command::COMMAND_LEN_MAX];
    let length = command::encode(command, identity, &mut frame).unwrap_or(0);
    debug_assert_ne!(identity, rig.identities.commands);
    frame[..length].to_vec()
}

const DAMAGES: [(&str, Reject, Damage); 12] = [
    ("a byte is missing", Reject::Length, |rig, command| {
        let mut frame = rig.bytes(&command);
        frame.pop();
        frame
    }),
    ("a bit is flipped", Reject::Crc, |rig, command| {
        let mut frame = rig.bytes(&command);
        frame[70] ^= 0x10;
        frame
    }),
    ("of another version", Reject::Magic, |rig, command| {
        resealed(rig.bytes(&command), |frame| frame[2] ^= 0x7f)
    }),
    ("of another robot", Reject::DataId, |rig, command| {
        let other = Identity {
            data_id: data_id("somebody-else", Kind::Command),
            ..rig.identities.commands
        };
        of_another(rig, &command, other)
    }),
    ("of other joints", Reject::Schema, |rig, command| {
        let other = Identity {
            schema: rig.identities.commands.schema ^ 1,
            ..rig.identities.commands
        };
        of_another(rig, &command, other)
    }),
    ("of a joint too few", Reject::Joints, |rig, mut command| {
        command.setpoint.joints -= 1;
        rig.bytes(&command)
    }),
    ("sent twice", Reject::Repeated, |rig, command| {
        let frame = rig.bytes(&command);
        rig.send_bytes(&frame);
        frame
    }),
    ("two thousand ahead", Reject::Jump, |rig, mut command| {
        command.counter = command.counter.wrapping_add(2_000);
        rig.bytes(&command)
    }),
    ("a second old", Reject::Expired, |rig, mut command| {
        command.sent = command.sent.minus_ns(1_000 * MS);
        rig.bytes(&command)
    }),
    ("valid for no time", Reject::Expired, |rig, mut command| {
        command.valid_for_us = 0;
        rig.bytes(&command)
    }),
    (
        "a position is NaN",
        Reject::NotFinite,
        |rig, mut command| {
            command.setpoint.position[0] = f64::NAN;
            rig.bytes(&command)
        },
    ),
    ("of an unknown mode", Reject::Mode, |rig, mut command| {
        command.mode = 9;
        rig.bytes(&command)
    }),
];

/// Every way of being wrong is refused for its own reason, and moves nothing.
fn frames(on: &mut Bench<'_>) -> Result<(), String> {
    let pose = on.rig.pose()?;
    let mark = on.rig.mark();
    for (what, expected, damage) in DAMAGES {
        // Four bad ones within a second would count against the link.
        on.rig.keep_alive(400)?;
        let before = on.rig.last()?.report;
        let command = on.rig.command(MODE_KEEP_ALIVE, &pose);
        let frame = damage(on.rig, command);
        on.rig.send_bytes(&frame);
        let deadline = clock::now().plus_ns(500 * MS);
        let mut after = before;
        while after.rejected == before.rejected && clock::now() < deadline {
            clock::sleep_until(clock::now().plus_ns(5 * MS));
            after = on.rig.last()?.report;
        }
        let refused = after.rejected.wrapping_sub(before.rejected);
        on.ledger.judge(
            "frames",
            &format!("a frame is refused: {what}"),
            refused == 1 && after.last_reject == expected as u8,
            format!("{refused} refused, {}", reason(after.last_reject)),
            &expected.to_string(),
        );
    }
    let moved = furthest(&on.rig.robot, &pose, &on.rig.since(mark));
    on.ledger.judge(
        "frames",
        "nothing moved",
        moved < STILL,
        format!("{moved:.4}"),
        "0.01",
    );
    Ok(())
}

/// What the first command of an arming must be.
fn first_command(on: &mut Bench<'_>) -> Result<(), String> {
    on.rig.keep_alive(1_200)?;
    on.rig.epoch = on.rig.epoch.wrapping_add(1).max(1);
    let pose = on.rig.pose()?;
    let mark = on.rig.mark();
    let away = Setpoint {
        position: std::array::from_fn(|joint| {
            pose.position[joint]
                + if joint == on.joint {
                    4.0 * START_TOLERANCE
                } else {
                    0.0
                }
        }),
        ..pose
    };
    on.rig.follow(|s, _| (s < 0.2).then_some(away))?;
    let report = on.rig.last()?.report;
    let refused =
        report.mode != MotorMode::Following && report.last_reject == Reject::AwayFromPose as u8;
    on.ledger.judge(
        "first command",
        "an arming away from the pose is refused",
        refused,
        format!("{:?}, {}", report.mode, reason(report.last_reject)),
        &Reject::AwayFromPose.to_string(),
    );
    // A link that has just had many bad frames is not to be trusted with motion.
    on.rig.keep_alive(1_200)?;
    for _ in 0..5 {
        let command = on.rig.command(MODE_KEEP_ALIVE, &pose);
        let mut frame = on.rig.bytes(&command);
        frame[70] ^= 1;
        on.rig.send_bytes(&frame);
        clock::sleep_until(clock::now().plus_ns(on.rig.period_ns));
    }
    on.rig.epoch = on.rig.epoch.wrapping_add(1).max(1);
    on.rig.follow(|s, _| (s < 0.1).then_some(pose))?;
    let report = on.rig.last()?.report;
    on.ledger.judge(
        "first command",
        "an arming right after five damaged frames is refused",
        report.mode != MotorMode::Following && report.last_reject == Reject::BadLink as u8,
        format!("{:?}, {}", report.mode, reason(report.last_reject)),
        &Reject::BadLink.to_string(),
    );
    on.rig.arm()?;
    on.ledger.judge(
        "first command",
        "an arming at the pose is taken",
        true,
        "follows".into(),
        "",
    );
    on.rig.keep_alive(300)?;
    let mode = on.rig.mode()?;
    on.ledger.judge(
        "first command",
        "a keep-alive disarms",
        mode == MotorMode::Idle,
        format!("{mode:?}"),
        "Idle",
    );
    let moved = furthest(&on.rig.robot, &pose, &on.rig.since(mark));
    on.ledger.judge(
        "first command",
        "nothing moved",
        moved < STILL,
        format!("{moved:.4}"),
        "0.01",
    );
    Ok(())
}

/// The controller's own limits, and a second runtime that cuts in.
fn limits(on: &mut Bench<'_>) -> Result<(), String> {
    let pose = on.rig.arm()?;
    let mark = on.rig.mark();
    let limit = on.rig.robot.joints[on.joint].1.limits;
    let period_s = on.rig.period_ns as f64 * 1e-9;
    let outside = limit.position_max + 0.05;
    let too_fast = pose.position[on.joint] + 4.0 * limit.velocity_max * period_s;
    for (claim, position, expected) in [
        (
            "a position outside the limits is refused",
            outside,
            Reject::Limits,
        ),
        (
            "a step faster than the limits is refused",
            too_fast,
            Reject::TooFast,
        ),
    ] {
        let mut wrong = pose;
        wrong.position[on.joint] = position;
        let command = on.rig.command(MODE_FOLLOW, &wrong);
        let (before, mut seen) = (on.rig.last()?.report.rejected, 0);
        on.rig.send(&command);
        on.rig.follow(|s, heard| {
            if seen == 0 && heard.report.rejected != before {
                seen = heard.report.last_reject;
            }
            (s < 0.3).then_some(pose)
        })?;
        on.ledger.judge(
            "limits",
            claim,
            seen == expected as u8,
            reason(seen),
            &expected.to_string(),
        );
    }
    let mut second = on.rig.command(MODE_FOLLOW, &pose);
    second.epoch = second.epoch.wrapping_add(77);
    on.rig.send(&second);
    on.rig.follow(|s, _| (s < 0.3).then_some(pose))?;
    let report = on.rig.last()?.report;
    on.ledger.judge(
        "limits",
        "a second runtime cannot cut in",
        report.mode == MotorMode::Following && report.last_reject == Reject::Epoch as u8,
        format!("{:?}, {}", report.mode, reason(report.last_reject)),
        &Reject::Epoch.to_string(),
    );
    let moved = furthest(&on.rig.robot, &pose, &on.rig.since(mark));
    on.ledger.judge(
        "limits",
        "nothing moved",
        moved < STILL,
        format!("{moved:.4}"),
        "0.01",
    );
    on.rig.keep_alive(300)
}

fn torque_off(on: &mut Bench<'_>) -> Result<(), String> {
    let pose = on.rig.arm()?;
    for _ in 0..5 {
        let command = on.rig.command(MODE_TORQUE_OFF, &pose);
        on.rig.send(&command);
        clock::sleep_until(clock::now().plus_ns(on.rig.period_ns));
    }
    clock::sleep_until(clock::now().plus_ns(50 * MS));
    let mode = on.rig.mode()?;
    on.ledger.judge(
        "torque off",
        "torque goes off by command",
        mode == MotorMode::TorqueOff,
        format!("{mode:?}"),
        "TorqueOff",
    );
    on.rig.rest()?;
    on.rig.arm()?;
    on.ledger.judge(
        "torque off",
        "a new arming takes it up where it is",
        true,
        "follows".into(),
        "",
    );
    on.rig.keep_alive(300)
}

/// A stage that was left out, and why.
pub fn left_out(ledger: &mut Ledger, stage: &'static str, why: &str) {
    ledger.note(stage, "all of it", Outcome::NotRun, why.into(), "");
}
