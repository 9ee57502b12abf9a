// SPDX-License-Identifier: Apache-2.0
//! What a hand opens: the emergency stop, the power of the controller, the bus to the servos.

use crate::rig::{Heard, Sway, furthest, travel};
use crate::stages::{Bench, STILL};
use std::sync::atomic::{AtomicU64, Ordering};
use tendon::core::units::{MS, Mono};
use tendon::core::wire::state::MotorMode;
use tendon::runtime::clock;

/// From the emergency stop to the first state that says so: ISO 13850 asks for no time; this is what the best drives keep.
const EMERGENCY_STOP_NS: u64 = 24 * MS;
/// A controller may take so long to start.
const BOOT_NS: u64 = 120_000 * MS;
/// A servo's own watchdog may take this long.
const SERVO_WATCHDOG_S: f64 = 0.1;

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

pub fn emergency_stop(on: &mut Bench<'_>) -> Result<(), String> {
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

/// It has forgotten whom it followed: who commands it must be able to tell.
pub fn controller_restart(on: &mut Bench<'_>) -> Result<(), String> {
    let pose = on.rig.arm()?;
    let sway = on.rig.sway(on.joint, &pose)?;
    let mark = on.rig.mark();
    let boot_id = on.rig.last()?.report.boot_id;
    let hands = on.hands;
    sway_until(on, &sway, || hands.restart_controller())?;
    // As the runtime does: it sends nothing to a controller that is new to it.
    let deadline = clock::now().plus_ns(BOOT_NS);
    while on.rig.last()?.report.boot_id == boot_id && clock::now() < deadline {
        clock::sleep_until(clock::now().plus_ns(5 * MS));
    }
    clock::sleep_until(clock::now().plus_ns(200 * MS));
    let heard = on.rig.since(mark);
    let anew = |heard: &&Heard| heard.report.boot_id != boot_id;
    let anew: Vec<&Heard> = heard.iter().filter(anew).collect();
    on.ledger.judge(
        "controller restart",
        "it says that it is new",
        !anew.is_empty(),
        format!("{} states of another boot id", anew.len()),
        "120 s",
    );
    if anew.is_empty() {
        return Err(
            "a controller that cannot be told from the one before is not moved again".into(),
        );
    }
    on.rig.rest()?;
    // As a runtime that has not seen it yet: the arming of before goes on, from where the robot stands.
    let mark = on.rig.mark();
    let pose = on.rig.pose()?;
    on.rig.follow(|s, _| (s < 0.3).then_some(pose))?;
    let follows = |heard: &Heard| heard.report.mode == MotorMode::Following;
    let followed = on.rig.since(mark).iter().any(follows);
    on.ledger.judge(
        "controller restart",
        "it does not follow the arming of before",
        !followed,
        on.rig.mode().map(|mode| format!("{mode:?}"))?,
        "",
    );
    let mark = on.rig.mark();
    let pose = on.rig.pose()?;
    on.rig.keep_alive(500)?;
    let moved = furthest(&on.rig.robot, &pose, &on.rig.since(mark));
    on.ledger.judge(
        "controller restart",
        "nothing moves",
        moved < STILL,
        format!("{moved:.4}"),
        "0.01",
    );
    on.rig.arm()?;
    on.ledger.judge(
        "controller restart",
        "a new arming is taken then",
        true,
        "follows".into(),
        "",
    );
    on.rig.keep_alive(300)
}

/// Gateway and servos part: the controller must say so, and the joints must stop without it.
pub fn servo_bus(on: &mut Bench<'_>) -> Result<(), String> {
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
