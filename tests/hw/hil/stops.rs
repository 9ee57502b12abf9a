// SPDX-License-Identifier: Apache-2.0
//! Stops that the controller makes by itself: on silence, and on frames that it must not follow.

use crate::rig::{Heard, Rig, travel};
use crate::stages::{Bench, STILL};
use tendon::core::units::MS;
use tendon::core::wire::command::{Command, MODE_FOLLOW};
use tendon::core::wire::state::MotorMode;
use tendon::link::motor::SILENCE_NS;
use tendon::runtime::clock::{self, Ticks};

/// The controller's loop comes round this often at the slowest.
const LOOP_NS: u64 = 2 * MS;

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
    judge_stop(on, stage, sway.joint, &heard)?;
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
pub fn judge_stop(
    on: &mut Bench<'_>,
    stage: &'static str,
    joint: usize,
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
    let speed = heard[stopped].report.state.velocity[joint].abs();
    let end = &heard[heard.len() - 1];
    let way = travel(&heard[stopped], end, joint).abs();
    // Twice the way that the limits allow: a drive lags.
    let limit = on.rig.robot.joints[joint].1.limits;
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

pub fn silence(on: &mut Bench<'_>) -> Result<(), String> {
    stops(on, "silence", &mut |_, _, _| {})
}

pub fn corrupt(on: &mut Bench<'_>) -> Result<(), String> {
    stops(on, "corrupt frames", &mut |rig, command, number| {
        let mut frame = rig.bytes(&command);
        let bit = (number * 37) % (frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        rig.send_bytes(&frame);
    })
}

pub fn replayed(on: &mut Bench<'_>) -> Result<(), String> {
    let mut recorded: Vec<Vec<u8>> = Vec::new();
    stops(on, "replayed frames", &mut |rig, command, number| {
        // Ten more good ones, then those ten over and over.
        if number < 10 {
            recorded.push(rig.bytes(&command));
        }
        rig.send_bytes(&recorded[number % 10]);
    })
}

pub fn expired(on: &mut Bench<'_>) -> Result<(), String> {
    stops(on, "expired frames", &mut |rig, mut command, _| {
        command.sent = command.sent.minus_ns(1_000 * MS);
        let frame = rig.bytes(&command);
        rig.send_bytes(&frame);
    })
}
