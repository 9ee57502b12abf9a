// SPDX-License-Identifier: Apache-2.0
//! Which chunks are taken, and where they begin.

use super::*;

#[test]
fn a_late_chunk_starts_at_the_action_for_now() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    assert_eq!(
        schedule.offer(Mono(500 * MS), &line(1, 100, 0.0, 1.0)),
        Intake::Taken
    );
    let at_500ms = position(&schedule.step(Mono(500 * MS), None));
    assert!(
        (at_500ms - 0.4).abs() < 1e-6,
        "400 ms after capture on a slope of 1: {at_500ms}"
    );
}

#[test]
fn from_standstill_no_action_is_skipped_however_late_the_chunk() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    for ms in (0..500).step_by(5) {
        schedule.step(Mono(ms * MS), None);
    }
    schedule.offer(Mono(500 * MS), &line(1, 300, 0.0, 1.0));
    match schedule.step(Mono(500 * MS), None) {
        Step::Setpoint { action, .. } => assert_eq!(action, 0),
        Step::None(absence) => panic!("{absence:?}"),
    }
    let end = (505..=1_250)
        .step_by(5)
        .map(|ms| schedule.step(Mono(ms * MS), None))
        .last();
    assert!(
        (position(&end.expect("a step")) - 0.8).abs() < 1e-6,
        "the whole plan is done"
    );
}

#[test]
fn a_chunk_says_nothing_before_its_first_action() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    schedule.offer(Mono(110 * MS), &line(1, 100, 0.0, 1.0));
    assert_eq!(
        schedule.step(Mono(110 * MS), None),
        Step::None(Absence::NotYet)
    );
    assert!(matches!(
        schedule.step(Mono(150 * MS), None),
        Step::Setpoint { .. }
    ));
}

#[test]
fn an_older_observation_is_dropped_whatever_the_order_of_arrival() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    assert_eq!(
        schedule.offer(Mono(300 * MS), &line(2, 200, 0.0, 1.0)),
        Intake::Taken
    );
    assert_eq!(
        schedule.offer(Mono(310 * MS), &line(1, 100, 0.0, 1.0)),
        Intake::OutOfOrder
    );
    assert_eq!(
        schedule.offer(Mono(310 * MS), &line(2, 200, 0.0, 1.0)),
        Intake::OutOfOrder
    );
    assert_eq!(
        schedule.offer(Mono(1300 * MS), &line(3, 299, 0.0, 1.0)),
        Intake::TooOld
    );
    assert_eq!(
        schedule.offer(Mono(1270 * MS), &line(3, 300, 0.0, 1.0)),
        Intake::Over
    );
}

#[test]
fn a_plan_that_was_made_for_taking_over_earlier_is_dropped_and_its_delay_is_learnt() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    schedule.offer(Mono(100 * MS), &long_line(1, 50, 0.0, 0.4, 40));
    follow(&mut schedule, 100, 300);
    assert_eq!(schedule.delay_steps(), None, "a start is no delay");
    // Two actions of it are the old plan's: until 400 ms it may take over.
    let made =
        |id, captured_ms, by_ms: u64| line(id, captured_ms, 0.1, 0.4).made_for(Mono(by_ms * MS));
    assert_eq!(
        schedule.offer(Mono(405 * MS), &made(2, 290, 400)),
        Intake::Outrun
    );
    follow(&mut schedule, 405, 500);
    assert_eq!(schedule.running().expect("a plan").provenance().chunk_id, 1);
    assert_eq!(schedule.delay_steps(), Some(3), "115 ms of 50");
    assert_eq!(schedule.ladder().outrun, 1);
    // The next is made for that.
    assert_eq!(
        schedule.offer(Mono(600 * MS), &made(3, 480, 680)),
        Intake::Taken
    );
    follow(&mut schedule, 600, 700);
    assert_eq!(schedule.running().expect("a plan").provenance().chunk_id, 3);
    // With nothing to follow, any plan is better than none.
    follow(&mut schedule, 700, 3_000);
    assert_eq!(
        schedule.offer(Mono(3_000 * MS), &made(4, 2_800, 2_900)),
        Intake::Taken
    );
}

#[test]
fn beginning_to_follow_is_counted_once_until_the_next_reset() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    for episode in 1..4 {
        schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
        schedule.reset(&Setpoint::at_rest(&[0.1, 0.0]));
        assert_eq!(schedule.begun(), episode - 1);
        schedule.begin();
        schedule.begin();
        assert_eq!(schedule.begun(), episode);
    }
}

#[test]
fn a_chunk_for_another_robot_is_dropped() {
    let mut schedule = Schedule::new(Config {
        kinds: kinds(3),
        limits: limits(3),
        ..config(Merge::Replace)
    });
    assert_eq!(
        schedule.offer(Mono(150 * MS), &line(1, 100, 0.0, 1.0)),
        Intake::Joints
    );
}

#[test]
fn a_robot_that_stands_is_not_made_to_move_by_the_noise_of_its_encoders() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    // In standby the robot is where it is measured to be, each tick a little elsewhere; then it is armed and held.
    let measured = |tick: u64| Setpoint::at_rest(&[0.0005 * (tick % 3) as f64; 2]);
    for tick in 0..100 {
        schedule.reset(&measured(tick));
        schedule.step(Mono(tick * TICK), Some(&measured(tick)));
    }
    for tick in 100..120 {
        schedule.step(Mono(tick * TICK), Some(&measured(101)));
    }
    // Observed before arming, when it stood already.
    schedule.offer(Mono(120 * TICK), &line(1, 450, 0.0, 1.0));
    match schedule.step(Mono(120 * TICK), None) {
        Step::Setpoint { action, .. } => assert_eq!(action, 0, "nothing is left out"),
        Step::None(absence) => panic!("{absence:?}"),
    }
}
