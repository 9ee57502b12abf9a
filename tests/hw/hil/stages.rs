// SPDX-License-Identifier: Apache-2.0
//! What a motor controller must do, one stage after the other, the harmless ones first.

use crate::canary::Canary;
use crate::hands::Hands;
use crate::ledger::{Ledger, Outcome};
use crate::rig::{Heard, Rig, Sway, furthest, reason, travel};
use crc::{CRC_32_AUTOSAR, Crc};
use std::sync::atomic::{AtomicU64, Ordering};
use tendon::core::action::Setpoint;
use tendon::core::units::{MS, Mono};
use tendon::core::wire::command::{self, Command, MODE_FOLLOW, MODE_KEEP_ALIVE, MODE_TORQUE_OFF};
use tendon::core::wire::reject::Reject;
use tendon::core::wire::state::MotorMode;
use tendon::core::wire::{Identity, Kind, data_id};
use tendon::link::motor::{SILENCE_NS, START_TOLERANCE};
use tendon::runtime::clock::{self, Ticks};

/// The controller's loop comes round this often at the slowest.
const LOOP_NS: u64 = 2 * MS;
/// From the emergency stop to the first state that says so: ISO 13850 asks for no time; this is what the best drives keep.
const EMERGENCY_STOP_NS: u64 = 24 * MS;
/// A servo's own watchdog may take this long.
const SERVO_WATCHDOG_S: f64 = 0.1;
/// A joint that moved less has not moved: encoder noise.
const STILL: f64 = 0.01;

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
pub const STAGES: [(&str, &str, Stage); 10] = [
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
    let steps = heard.windows(2).map(|pair| {
        let [a, b] = [&pair[0].report, &pair[1].report];
        (
            b.counter.wrapping_sub(a.counter) == 1,
            a.boot_id == b.boot_id,
        )
    });
    let (ordered, same): (Vec<bool>, Vec<bool>) = steps.unzip();
    let lost = ordered.iter().filter(|one| !**one).count();
    on.ledger.judge(
        "handshake",
        "states come in order, none lost",
        lost == 0,
        format!("{lost} gaps"),
        "0",
    );
    on.ledger.judge(
        "handshake",
        "it did not restart",
        same.iter().all(|one| *one),
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
        clock::sleep_until(clock::now().plus_ns(60 * MS));
        let after = on.rig.last()?.report;
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
        on.rig.send(&command);
        let mut seen = 0;
        on.rig.follow(|s, heard| {
            if s > 0.03 && seen == 0 {
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

/// What is sent once the joint is at its fastest; given the command that would be due, and its number.
type Then<'a> = &'a mut dyn FnMut(&mut Rig, Command, usize);

/// The joint sways; when it is fastest, `then` is what the controller gets. It must stop by itself.
fn stops(on: &mut Bench<'_>, stage: &'static str, then: Then<'_>) -> Result<(), String> {
    let pose = on.rig.arm()?;
    let sway = on.rig.sway(on.joint, &pose)?;
    let mark = on.rig.mark();
    let start = clock::now();
    let fastest_s = sway.fastest_s();
    on.rig.follow(|s, _| (s < fastest_s).then(|| sway.at(s)))?;
    let mut ticks = Ticks::new(clock::now(), on.rig.period_ns);
    for number in 0..60 {
        let due = ticks.wait().woke.since_ns(start) as f64 * 1e-9;
        let command = on.rig.command(MODE_FOLLOW, &sway.at(due));
        then(on.rig, command, number);
    }
    on.rig.rest()?;
    let heard = on.rig.since(mark);
    judge_stop(on, stage, &sway, &heard)?;
    // What belongs to the stopped arming moves nothing.
    let mark = on.rig.mark();
    let pose = on.rig.pose()?;
    on.rig.follow(|s, _| (s < 0.3).then_some(pose))?;
    let follows = |heard: &Heard| heard.report.mode == MotorMode::Following;
    let again = on.rig.since(mark).iter().any(follows);
    on.ledger.judge(
        stage,
        "what stopped stays stopped",
        !again,
        if again {
            "it followed the old arming again"
        } else {
            "it did not move again"
        }
        .into(),
        "",
    );
    Ok(())
}

/// By the controller's clock, from the last command that it took; its reports are the ticks of that clock, so each time is
/// known as an interval, and the bound must not be passed by the lower end.
fn judge_stop(
    on: &mut Bench<'_>,
    stage: &'static str,
    sway: &Sway,
    heard: &[Heard],
) -> Result<(), String> {
    let stopped = heard
        .iter()
        .position(|heard| heard.report.mode == MotorMode::Stopped);
    let Some(stopped) = stopped.filter(|at| *at > 0) else {
        on.ledger.judge(
            stage,
            "the controller stops by itself",
            false,
            "it never said that it had stopped".into(),
            "",
        );
        return Err("a robot that does not stop is not moved again".into());
    };
    let accepted = heard[stopped].report.accepted;
    let last = heard
        .iter()
        .position(|heard| heard.report.accepted == accepted);
    let last = last.unwrap_or(stopped).max(1);
    let time = |index: usize| heard[index].report.state.measured;
    let least_ns = time(stopped - 1).since_ns(time(last));
    let most_ns = time(stopped).since_ns(time(last - 1));
    let stall_ns = on.canary.map_or(0, |canary| {
        canary.stall_ns(heard[last - 1].at, heard[stopped].at)
    });
    let bound_ns = SILENCE_NS.max(4 * on.rig.period_ns) + LOOP_NS;
    on.ledger.judge(
        stage,
        "the controller stops by itself",
        least_ns <= bound_ns + stall_ns,
        format!(
            "{:.1} to {:.1} ms after the last command{}",
            least_ns as f64 / 1e6,
            most_ns as f64 / 1e6,
            if stall_ns > 0 {
                format!(", machine stood still for {:.1} ms", stall_ns as f64 / 1e6)
            } else {
                String::new()
            }
        ),
        &format!("{:.1} ms", bound_ns as f64 / 1e6),
    );
    let speed = heard[stopped].report.state.velocity[sway.joint].abs();
    let end = &heard[heard.len() - 1];
    let way = travel(&heard[stopped], end, sway.joint).abs();
    // Twice the way that the limits allow: a drive lags.
    let limit = on.rig.robot.joints[sway.joint].1.limits;
    let allowed = speed * speed / limit.acceleration_max + speed * 0.05 + STILL;
    on.ledger.judge(
        stage,
        "and comes to rest",
        way <= allowed,
        format!("from {speed:.3}, {way:.4} further"),
        &format!("{allowed:.4}"),
    );
    let name = |what: &str| format!("{}_{what}", stage.replace(' ', "_"));
    on.ledger
        .figures
        .insert(name("stop_ms_most"), most_ns as f64 / 1e6);
    on.ledger.figures.insert(name("stop_way"), way);
    Ok(())
}

fn silence(on: &mut Bench<'_>) -> Result<(), String> {
    stops(on, "silence", &mut |_, _, _| {})
}

fn corrupt(on: &mut Bench<'_>) -> Result<(), String> {
    stops(on, "corrupt frames", &mut |rig, command, number| {
        let mut frame = rig.bytes(&command);
        let bit = (number * 37) % (frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        rig.send_bytes(&frame);
    })
}

fn replayed(on: &mut Bench<'_>) -> Result<(), String> {
    let mut recorded: Vec<Vec<u8>> = Vec::new();
    stops(on, "replayed frames", &mut |rig, command, number| {
        // Ten more good ones, then those ten over and over.
        if number < 10 {
            recorded.push(rig.bytes(&command));
        }
        rig.send_bytes(&recorded[number % 10]);
    })
}

fn expired(on: &mut Bench<'_>) -> Result<(), String> {
    stops(on, "expired frames", &mut |rig, mut command, _| {
        command.sent = command.sent.minus_ns(1_000 * MS);
        let frame = rig.bytes(&command);
        rig.send_bytes(&frame);
    })
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

/// Sways until the controller leaves off or its states grow old, while a hand does `act`. When the hand did it.
fn sway_until(
    on: &mut Bench<'_>,
    sway: &Sway,
    act: impl FnOnce() -> Result<(), String> + Send,
) -> Result<Mono, String> {
    let acted = AtomicU64::new(0);
    let limit_s = sway.fastest_s() + on.hands.patience_s();
    let rig = &mut *on.rig;
    std::thread::scope(|scope| {
        let hand = scope.spawn(|| {
            clock::sleep_until(clock::now().plus_ns((sway.fastest_s() * 1e9) as u64));
            acted.store(clock::now().0, Ordering::Release);
            act()
        });
        let mut newest = (Mono(0), clock::now());
        let followed = rig.follow(|s, heard| {
            if heard.report.state.measured != newest.0 {
                newest = (heard.report.state.measured, clock::now());
            }
            let fresh = clock::now().since_ns(newest.1) < 100 * MS;
            let goes_on = s < limit_s && fresh && heard.report.mode == MotorMode::Following;
            goes_on.then(|| sway.at(s))
        });
        followed.and(
            hand.join()
                .unwrap_or_else(|_| Err("the hand's thread ended".into())),
        )
    })?;
    Ok(Mono(acted.load(Ordering::Acquire)))
}

fn emergency_stop(on: &mut Bench<'_>) -> Result<(), String> {
    let pose = on.rig.arm()?;
    let sway = on.rig.sway(on.joint, &pose)?;
    let mark = on.rig.mark();
    let hands = on.hands;
    let pressed = sway_until(on, &sway, || hands.emergency_stop(true))?;
    let heard = on.rig.since(mark);
    let off = heard
        .iter()
        .find(|heard| heard.at > pressed && heard.report.mode != MotorMode::Following);
    let Some(off) = off else {
        on.ledger.judge(
            "emergency stop",
            "the controller leaves off",
            false,
            "it still followed".into(),
            "",
        );
        return Err("a robot whose emergency stop does nothing is not moved again".into());
    };
    let took_ns = off.at.since_ns(pressed);
    // A person's hand is slower than what is measured.
    let (passed, bound) = match on.canary {
        Some(canary) => {
            let bound_ns = EMERGENCY_STOP_NS + canary.stall_ns(pressed, off.at);
            (took_ns <= bound_ns, "24 ms")
        }
        None => (true, ""),
    };
    let words = format!(
        "{:?}, {:.1} ms after it was asked for",
        off.report.mode,
        took_ns as f64 / 1e6
    );
    on.ledger.judge(
        "emergency stop",
        "the controller leaves off",
        passed,
        words,
        bound,
    );
    on.rig.rest()?;
    on.rig.ask_to_arm()?;
    let mode = on.rig.mode()?;
    on.ledger.judge(
        "emergency stop",
        "no arming is taken while it is pressed",
        mode != MotorMode::Following,
        format!("{mode:?}"),
        "",
    );
    hands.emergency_stop(false)?;
    let mark = on.rig.mark();
    let pose = on.rig.pose()?;
    on.rig.keep_alive(500)?;
    let moved = furthest(&on.rig.robot, &pose, &on.rig.since(mark));
    on.ledger.judge(
        "emergency stop",
        "released, nothing moves",
        moved < STILL,
        format!("{moved:.4}"),
        "0.01",
    );
    on.rig.arm()?;
    on.ledger.judge(
        "emergency stop",
        "a new arming is taken then",
        true,
        "follows".into(),
        "",
    );
    on.rig.keep_alive(300)
}

/// Gateway and servos part: the controller must say so, and the joints must stop without it.
fn servo_bus(on: &mut Bench<'_>) -> Result<(), String> {
    let pose = on.rig.arm()?;
    let sway = on.rig.sway(on.joint, &pose)?;
    let mark = on.rig.mark();
    let hands = on.hands;
    sway_until(on, &sway, || hands.cut_bus(true))?;
    clock::sleep_until(clock::now().plus_ns(1_000 * MS));
    let heard = on.rig.since(mark);
    let Some(last) = heard.last().copied() else {
        return Err("no state has come".into());
    };
    let stands = |heard: &&Heard| heard.report.state.measured == last.report.state.measured;
    let fresh_until = heard.iter().find(stands).copied().unwrap_or(last);
    let quiet_ns = clock::now().since_ns(fresh_until.at);
    on.ledger.judge(
        "servo bus",
        "without a bus the controller claims no new measurement",
        quiet_ns > 800 * MS,
        format!("newest one {:.0} ms old", quiet_ns as f64 / 1e6),
        "800 ms",
    );
    hands.cut_bus(false)?;
    let mark = on.rig.mark();
    on.rig.keep_alive(500)?;
    let after = on.rig.since(mark);
    let newer = |heard: &&Heard| heard.report.state.measured > fresh_until.report.state.measured;
    let Some(found) = after.iter().find(newer) else {
        on.ledger.judge(
            "servo bus",
            "it measures again when the bus is back",
            false,
            "nothing new within 0.5 s".into(),
            "0.5 s",
        );
        return Ok(());
    };
    let way = travel(&fresh_until, found, sway.joint).abs();
    let allowed = sway.speed_max() * SERVO_WATCHDOG_S + 2.0 * STILL;
    on.ledger.judge(
        "servo bus",
        "the joint stopped without the controller",
        way <= allowed,
        if way <= allowed {
            format!("{way:.4} further")
        } else {
            format!("{way:.4} further: these servos keep turning; do not run them unless the gateway cuts their power")
        },
        &format!("{allowed:.4}"),
    );
    on.ledger.figures.insert("servo_bus_way".into(), way);
    let end = after.last().copied().unwrap_or(*found);
    let moved = travel(found, &end, sway.joint).abs();
    on.ledger.judge(
        "servo bus",
        "nothing moves when the bus is back",
        moved < STILL,
        format!("{moved:.4}"),
        "0.01",
    );
    Ok(())
}

/// A stage that was left out, and why.
pub fn left_out(ledger: &mut Ledger, stage: &'static str, why: &str) {
    ledger.note(stage, "all of it", Outcome::NotRun, why.into(), "");
}
