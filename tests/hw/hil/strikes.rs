// SPDX-License-Identifier: Apache-2.0
//! The runtime of this deployment, on this machine, struck while it moves the robot: killed, frozen, told to end, its control
//! thread hung. No policy moves: `tendon park` takes the robot towards a pose, slowly.

use crate::between::{Between, Runtime, SPEED_PERCENT};
use crate::ledger::Outcome;
use crate::rig::{Rig, furthest, travel};
use crate::stages::{Bench, STILL, left_out};
use crate::stops::judge_stop;
use crate::{Lab, Notes};
use rustix::process::Signal;
use tendon::core::action::JointKind;
use tendon::core::units::{MS, Mono};
use tendon::core::wire::state::MotorMode;
use tendon::link::keys;
use tendon::link::session::LinkError;
use tendon::runtime::{clock, demo};

/// All of them.
const STAGE: &str = "runtime";
/// A pose must be so far for a joint, rad, or a fifth of it in m: further than the joint goes until it is struck and has stopped.
const WAY_MIN: f64 = 0.25;
/// Struck when the joint has gone so far, on the same scale.
const STRUCK_AFTER: f64 = 0.08;
/// A robot that was granted its way and has not gone that far by then does not move.
const MOTION_NS: u64 = 20_000 * MS;
/// A controller that hears nothing for its patience stops before anything is done; so often that is a link that is late.
const TRIES: usize = 3;
/// From a command that holds to a joint that slows: link and drive.
const LAG_S: f64 = 0.15;
/// Row 48 of the fault matrix: an end that was asked for.
const END_MS: u64 = 2_000;

/// What is done to the runtime.
struct Strike {
    name: &'static str,
    /// As `tendon run --drill` takes it.
    drill: Option<&'static str>,
    /// Whether it then ends in good order: the next start asks for no reset.
    in_order: bool,
    strike: fn(&mut Bench<'_>, &mut Struck<'_>) -> Result<(), String>,
}

static STRIKES: [Strike; 4] = [
    Strike {
        name: "runtime killed",
        drill: None,
        in_order: false,
        strike: killed,
    },
    Strike {
        name: "runtime frozen",
        drill: None,
        in_order: false,
        strike: frozen,
    },
    Strike {
        name: "runtime told to end",
        drill: None,
        in_order: true,
        strike: told_to_end,
    },
    Strike {
        name: "control thread hung",
        drill: Some("hang:control"),
        in_order: false,
        strike: hung,
    },
];

/// A runtime that moves the robot.
struct Struck<'a> {
    name: &'static str,
    between: &'a Between,
    runtime: &'a mut Runtime,
    /// The joint that has the longest way.
    joint: usize,
    /// The states since the controller has followed.
    mark: usize,
}

/// All of them, if whoever stands there allows it; `program` is what the runtime is, or why there is none.
pub fn strikes(on: &mut Bench<'_>, lab: &Lab, program: &Result<String, String>, notes: &Notes) {
    let asked = format!(
        "{STAGE}: `tendon run` takes the robot straight towards a [[pose]] of robot.toml, at {SPEED_PERCENT} % of its speed, and is killed, frozen, told to end and hung on the way; five starts. Look that the way is free. Hold the deadman switch, if there is one, whenever the runtime asks for it."
    );
    let why = if on.ledger.count(Outcome::Failed) > 0 {
        Some("a stage before it failed".to_owned())
    } else if on.rig.robot.poses.is_empty() {
        Some("robot.toml names no [[pose]] to which the runtime could move the robot: add two, half a radian from each other".to_owned())
    } else if let Err(problem) = program {
        Some(problem.clone())
    } else if !on.hands.allow(&asked) {
        Some("not allowed".to_owned())
    } else {
        None
    };
    if let Some(why) = why {
        left_out(on.ledger, STAGE, &why);
        return;
    }
    if let Err(problem) = each(on, lab, notes) {
        let claim = "it can be carried out";
        on.ledger.judge(STAGE, claim, false, problem, "");
    }
}

/// One after the other, each start after the first also judged for how it comes up.
fn each(on: &mut Bench<'_>, lab: &Lab, notes: &Notes) -> Result<(), String> {
    let between = Between::open(lab, on.rig.identities.commands)?;
    let mut before: Option<&Strike> = None;
    for strike in &STRIKES {
        if on.ledger.count(Outcome::Failed) > 0 {
            left_out(on.ledger, strike.name, "a stage before it failed");
            continue;
        }
        let Some((pose, joint)) = goal(on.rig)? else {
            let why = "the robot stands too near to each [[pose]] of robot.toml: take it half a radian away, or add a pose";
            left_out(on.ledger, strike.name, why);
            continue;
        };
        let mut runtime = started(on, &between, strike.drill, before.take())?;
        if on.ledger.count(Outcome::Failed) > 0 {
            left_out(on.ledger, strike.name, "the start before it failed");
            continue;
        }
        let mark = moves(on, &between, &mut runtime, &pose, joint)?;
        let mut struck = Struck {
            name: strike.name,
            between: &between,
            runtime: &mut runtime,
            joint,
            mark,
        };
        (strike.strike)(on, &mut struck)?;
        drop(runtime);
        before = Some(strike);
        notes.keep(on.ledger);
    }
    if before.is_some() && on.ledger.count(Outcome::Failed) == 0 {
        drop(started(on, &between, None, before)?);
    }
    Ok(())
}

/// Radians and metres, on one scale.
fn scale(kind: JointKind) -> f64 {
    match kind {
        JointKind::Prismatic => 0.2,
        JointKind::Revolute | JointKind::Gripper => 1.0,
    }
}

/// The pose that is furthest, and the joint that has the longest way there; none if that is too short.
fn goal(rig: &Rig) -> Result<Option<(String, usize)>, String> {
    let at = rig.pose()?;
    let mut best: Option<(f64, &str, usize)> = None;
    for (name, positions) in &rig.robot.poses {
        let joints = rig.robot.joints.iter().zip(positions).enumerate();
        for (index, ((_, joint), to)) in joints {
            if joint.kind == JointKind::Gripper {
                continue;
            }
            let way = (to - at.position[index]).abs() / scale(joint.kind);
            if way >= WAY_MIN && best.is_none_or(|(most, ..)| way > most) {
                best = Some((way, name, index));
            }
        }
    }
    Ok(best.map(|(_, name, joint)| (name.to_owned(), joint)))
}

/// Starts the runtime and waits until it answers. It must come up disarmed; after an end in disorder it must also ask for a reset.
fn started(
    on: &mut Bench<'_>,
    between: &Between,
    drill: Option<&str>,
    before: Option<&Strike>,
) -> Result<Runtime, String> {
    let (mark, pose) = (on.rig.mark(), on.rig.pose()?);
    let mut runtime = between.start(drill)?;
    between.awake(on.hands, &mut runtime)?;
    // The link has flowed for long enough then: what is refused is not refused for that.
    demo::pause(1_200);
    let Some(before) = before else {
        return Ok(runtime);
    };
    let heard = on.rig.since(mark);
    let followed = heard
        .iter()
        .any(|heard| heard.report.mode == MotorMode::Following);
    let moved = furthest(&on.rig.robot, &pose, &heard);
    on.ledger.judge(
        before.name,
        "started again, it comes up disarmed",
        !heard.is_empty() && !followed && moved < STILL,
        if heard.is_empty() {
            "no state has come".to_owned()
        } else if followed {
            format!("the controller followed it, {moved:.4}")
        } else {
            format!("{moved:.4}")
        },
        "0.01",
    );
    if before.in_order || followed {
        return Ok(runtime);
    }
    let claim = "and moves nothing before somebody has said so";
    let said = asked_to_move(on, between);
    on.ledger
        .judge(before.name, claim, said.is_ok(), words(&said), "");
    match said {
        Ok(_) => between.until_granted(on.hands, &mut runtime, keys::mode, "reset")?,
        // It may be on its way. Whoever sees the failure ends it.
        Err(_) => drop(between.ask(keys::mode, "standby")),
    }
    Ok(runtime)
}

/// Asks for motion, which must be refused until a reset; the words of that, or of what came instead.
fn asked_to_move(on: &Bench<'_>, between: &Between) -> Result<String, String> {
    let pose = on
        .rig
        .robot
        .poses
        .first()
        .map_or("", |(name, _)| name.as_str());
    let deadline = clock::now().plus_ns(5_000 * MS);
    loop {
        match between.ask(keys::park, pose) {
            Err(LinkError::Refused(words)) if words.contains("reset") => return Ok(words),
            Err(LinkError::Refused(words)) if words.contains("still starting") => {}
            Err(other) => return Err(other.to_string()),
            Ok(words) => return Err(format!("granted: {words}")),
        }
        if clock::now() > deadline {
            return Err("it was still starting after 5 s".into());
        }
        demo::pause(20);
    }
}

fn words(said: &Result<String, String>) -> String {
    match said {
        Ok(words) | Err(words) => words.clone(),
    }
}

/// Has the runtime take the robot to a pose, and returns when it is on its way: the mark from which on the controller followed.
fn moves(
    on: &mut Bench<'_>,
    between: &Between,
    runtime: &mut Runtime,
    pose: &str,
    joint: usize,
) -> Result<usize, String> {
    let far_enough = STRUCK_AFTER * scale(on.rig.robot.joints[joint].1.kind);
    for _ in 0..TRIES {
        let from = on.rig.pose()?.position[joint];
        between.until_granted(on.hands, runtime, keys::park, pose)?;
        let deadline = clock::now().plus_ns(MOTION_NS);
        let mut followed = None;
        while clock::now() < deadline {
            demo::pause(2);
            let report = on.rig.last()?.report;
            let gone = (report.state.position[joint] - from).abs();
            match (report.mode, followed) {
                (MotorMode::Following, None) => followed = Some(on.rig.mark()),
                (MotorMode::Following, Some(mark)) if gone >= far_enough => return Ok(mark),
                (_, None) | (MotorMode::Following, Some(_)) => {}
                (_, Some(_)) => break,
            }
        }
        runtime.runs()?;
        let status = between.ask(keys::mode, "status");
        println!(
            "-- stopped before anything was done to the runtime, or never moved; once more: {}",
            status.unwrap_or_else(|error| error.to_string())
        );
        // Either may be refused, as nothing is armed or latched any more.
        drop(between.ask(keys::mode, "standby"));
        demo::pause(500);
        on.rig.rest()?;
        drop(between.ask(keys::mode, "reset"));
    }
    Err(format!(
        "expected the runtime to move the robot towards \"{pose}\", found it stopped {TRIES} times before anything was done to it"
    ))
}

/// Row 49: the motor controller stops by itself.
fn killed(on: &mut Bench<'_>, struck: &mut Struck<'_>) -> Result<(), String> {
    struck.runtime.signal(Signal::KILL)?;
    let_go(on)?;
    on.rig.rest()?;
    let heard = on.rig.since(struck.mark);
    judge_stop(on, struck.name, struck.joint, &heard)?;
    stays(on, struck.name, || {
        demo::pause(500);
        Ok(())
    })
}

/// The same, and nothing goes on when the runtime does.
fn frozen(on: &mut Bench<'_>, struck: &mut Struck<'_>) -> Result<(), String> {
    struck.runtime.signal(Signal::STOP)?;
    let_go(on)?;
    on.rig.rest()?;
    let heard = on.rig.since(struck.mark);
    judge_stop(on, struck.name, struck.joint, &heard)?;
    stays(on, struck.name, || {
        demo::pause(200);
        struck.runtime.signal(Signal::CONT)?;
        demo::pause(1_000);
        Ok(())
    })
}

/// Row 48: it holds the robot, disarms it and ends.
fn told_to_end(on: &mut Bench<'_>, struck: &mut Struck<'_>) -> Result<(), String> {
    let from = struck.runtime.signal(Signal::TERM)?;
    let status = struck.runtime.ended(END_MS + 3_000);
    let took_ms = clock::now().since_ns(from) / MS;
    let_go(on)?;
    let bound_ns = 2 * on.rig.period_ns;
    holds(on, struck, from, bound_ns);
    let in_order = status.is_some_and(|status| status.success());
    let how = status.map_or("it runs yet".to_owned(), |status| status.to_string());
    on.ledger.judge(
        struck.name,
        "it ends by itself, in good order",
        in_order && took_ms <= END_MS,
        format!("{how}, {took_ms} ms"),
        "2000 ms",
    );
    comes_to_rest(on, struck, from)?;
    let mode = on.rig.mode()?;
    on.ledger.judge(
        struck.name,
        "the controller was disarmed, not left",
        mode == MotorMode::Idle,
        format!("{mode:?}"),
        "Idle",
    );
    stays(on, struck.name, || {
        demo::pause(500);
        Ok(())
    })
}

/// Who governs holds without proposals; the watchdog latches.
fn hung(on: &mut Bench<'_>, struck: &mut Struck<'_>) -> Result<(), String> {
    let from = struck.runtime.signal(Signal::USR1)?;
    let_go(on)?;
    // The governor's own deadline is a period and a half; the round in which it hangs, and the way of the signal.
    let bound_ns = 3 * on.rig.period_ns + 15 * MS;
    holds(on, struck, from, bound_ns);
    comes_to_rest(on, struck, from)?;
    stays(on, struck.name, || {
        demo::pause(1_000);
        Ok(())
    })?;
    let said = asked_to_move(on, struck.between);
    let claim = "it is latched: a motion is refused";
    on.ledger
        .judge(struck.name, claim, said.is_ok(), words(&said), "");
    Ok(())
}

/// Waits until the controller follows no longer, two seconds at most; whether it did is judged by what is heard.
fn let_go(on: &Bench<'_>) -> Result<(), String> {
    let deadline = clock::now().plus_ns(2_000 * MS);
    while on.rig.mode()? == MotorMode::Following && clock::now() < deadline {
        demo::pause(2);
    }
    Ok(())
}

/// How soon the runtime's own commands held the robot, by their stamps. Some may be lost on their way here, so that is known as an
/// interval, and the bound must not be passed by the lower end.
fn holds(on: &mut Bench<'_>, struck: &Struck<'_>, from: Mono, bound_ns: u64) {
    let sent = struck.between.sent_since(from);
    let claim = "the runtime's commands hold the robot";
    let bound = format!("{:.1} ms", bound_ns as f64 / 1e6);
    let Some(first) = sent.iter().position(|sent| sent.held) else {
        let none = format!("none of {} does", sent.len());
        on.ledger.judge(struck.name, claim, false, none, &bound);
        return;
    };
    let least = sent[..first].last().map_or(from, |sent| sent.at);
    let first_at = sent[first].at;
    let (least_ns, most_ns) = (least.since_ns(from), first_at.since_ns(from));
    let stall_ns = on
        .canary
        .map_or(0, |canary| canary.stall_ns(from, first_at));
    // It is known as an interval. But a hold that comes after a silence is late, though no command of motion came before it.
    let late_ns = bound_ns + 2 * on.rig.period_ns;
    let measured = format!(
        "{:.1} to {:.1} ms after it",
        least_ns as f64 / 1e6,
        most_ns as f64 / 1e6
    );
    let in_time = least_ns <= bound_ns + stall_ns && most_ns <= late_ns + stall_ns;
    on.ledger
        .judge(struck.name, claim, in_time, measured, &bound);
    let name = format!("{}_hold_ms_most", struck.name.replace(' ', "_"));
    on.ledger.figures.insert(name, most_ns as f64 / 1e6);
}

/// By the controller's states: how far the joint went from when the runtime was struck.
fn comes_to_rest(on: &mut Bench<'_>, struck: &Struck<'_>, from: Mono) -> Result<(), String> {
    on.rig.rest()?;
    let heard = on.rig.since(struck.mark);
    let then = heard.iter().find(|heard| heard.at > from);
    let (Some(then), Some(end)) = (then, heard.last()) else {
        return Err("no state has come".into());
    };
    let speed = then.report.state.velocity[struck.joint].abs();
    let way = travel(then, end, struck.joint).abs();
    let limit = on.rig.robot.joints[struck.joint].1.limits;
    let allowed = speed * speed / limit.acceleration_max + speed * LAG_S + STILL;
    on.ledger.judge(
        struck.name,
        "the joint comes to rest",
        way <= allowed,
        format!("from {speed:.3}, {way:.4} further"),
        &format!("{allowed:.4}"),
    );
    let name = format!("{}_stop_way", struck.name.replace(' ', "_"));
    on.ledger.figures.insert(name, way);
    Ok(())
}

/// What has stopped follows nothing and stays where it is, `meanwhile` whatever happens.
fn stays(
    on: &mut Bench<'_>,
    stage: &'static str,
    meanwhile: impl FnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let (mark, pose) = (on.rig.mark(), on.rig.pose()?);
    meanwhile()?;
    let heard = on.rig.since(mark);
    let followed = heard
        .iter()
        .any(|heard| heard.report.mode == MotorMode::Following);
    let moved = furthest(&on.rig.robot, &pose, &heard);
    on.ledger.judge(
        stage,
        "what stopped stays stopped",
        !followed && moved < STILL && !heard.is_empty(),
        if followed {
            format!("it followed again, {moved:.4}")
        } else {
            format!("{moved:.4}")
        },
        "0.01",
    );
    Ok(())
}
