// SPDX-License-Identifier: Apache-2.0
//! While the governor holds back, and after.

use super::*;

#[test]
fn while_held_the_proposal_stays_where_the_robot_is_and_then_leaves_smoothly() {
    let mut schedule = Schedule::new(config(Merge::Blend { blend_ns: 150 * MS }));
    let held = Setpoint::at_rest(&[0.3, 0.3]);
    schedule.offer(Mono(100 * MS), &line(1, 10, 0.0, 0.0));
    let mut positions = Vec::new();
    for tick in 20..150 {
        let held_at = (tick < 60).then_some(&held);
        positions.push(position(&schedule.step(Mono(tick * TICK), held_at)));
    }
    assert!(
        positions.iter().take(40).all(|p| *p == 0.3),
        "{positions:?}"
    );
    assert!(
        positions.last().is_some_and(|p| p.abs() < 1e-6),
        "{positions:?}"
    );
    assert!(
        acceleration_max(&positions) < 150.0,
        "{}",
        acceleration_max(&positions)
    );
}

#[test]
fn after_the_governor_held_back_the_motion_goes_on_with_its_velocity_and_acceleration() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    for ms in (0..=1_000).step_by(5) {
        schedule.step(Mono(ms * MS), None);
    }
    // The governor emits its own motion, 1 rad/s2 from rest, whatever is proposed; then lets go.
    let emitted = |ticks: f64| {
        let seconds = ticks * 0.005;
        Setpoint::at_rest(&[0.5 * seconds * seconds; 2])
    };
    schedule.offer(Mono(1_005 * MS), &line(1, 905, 0.0, 1.0));
    for tick in 0..20 {
        schedule.step(Mono((1_005 + 5 * tick) * MS), Some(&emitted(tick as f64)));
    }
    let next = position(&schedule.step(Mono(1_105 * MS), None));
    let past = position(&schedule.step(Mono(1_110 * MS), None));
    // What is proposed while it is held back is the tick after what was emitted; from there it goes on alone.
    for (found, ticks) in [(next, 21.0), (past, 22.0)] {
        let wanted = emitted(ticks).position[0];
        assert!((found - wanted).abs() < 1e-4, "{found} {wanted}");
    }
}
