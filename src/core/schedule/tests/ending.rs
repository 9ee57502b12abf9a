// SPDX-License-Identifier: Apache-2.0
//! How a plan ends: with its last action, an instruction, its expiry, or no successor.

use super::*;

#[test]
fn after_the_last_action_it_slows_to_rest_and_neither_repeats_nor_goes_on() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    schedule.offer(Mono(150 * MS), &line(1, 100, 0.0, 1.0));
    let mut positions = Vec::new();
    let mut ended_at = None;
    for tick in 30..400 {
        match schedule.step(Mono(tick * TICK), None) {
            Step::Setpoint { setpoint, .. } => {
                assert_eq!(ended_at, None, "nothing comes after the end");
                positions.push(setpoint.position[0]);
            }
            Step::None(absence) => {
                assert_eq!(absence, Absence::Ended);
                ended_at.get_or_insert(tick * 5);
            }
        }
    }
    let ended_at = ended_at.expect("an end");
    assert!((900..1_150).contains(&ended_at), "at rest at {ended_at} ms");
    let past = positions.last().expect("some") - 0.8;
    assert!(
        (0.0..0.12).contains(&past),
        "1 rad/s is slowed over {past} rad"
    );
    let ladder = schedule.ladder();
    assert_eq!(ladder.ran_out, 1);
    assert_eq!(ladder.fresh_ns, 205 * MS, "150 to 350 ms");
    assert_eq!(ladder.tail_ns, 550 * MS, "to 900 ms");
    assert!(ladder.slowing_ns > 0 && ladder.hold_ns > 0);
    smooth(&positions, &[]);
}

#[test]
fn a_new_instruction_ends_the_old_plan_as_configured() {
    let with = |tail_steps, pause_ms| {
        let mut config = config(Merge::Ensemble {
            decay: 0.0,
            order: merge::Order::OldestFirst,
        });
        config.on_instruction = OnInstruction {
            tail_steps,
            pause_ns: pause_ms * MS,
        };
        let mut schedule = Schedule::new(config);
        schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
        schedule.offer(Mono(60 * MS), &line(1, 10, 0.0, 0.0));
        schedule.step(Mono(60 * MS), None);
        schedule.instruction_changed(Mono(100 * MS), 3);
        assert_eq!(
            schedule.offer(Mono(105 * MS), &line(2, 90, 5.0, 0.0)),
            Intake::OtherInstruction,
            "made for the old instruction"
        );
        schedule
    };
    let follows = |schedule: &mut Schedule, ms| {
        matches!(schedule.step(Mono(ms * MS), None), Step::Setpoint { .. })
    };
    let mut at_once = with(0, 0);
    assert!(!follows(&mut at_once, 105), "at rest already");
    let mut later = with(3, 0);
    assert!(follows(&mut later, 250));
    assert!(!follows(&mut later, 255));
    let mut paused = with(0, 400);
    assert_eq!(
        paused.offer(Mono(200 * MS), &line(3, 95, 0.3, 0.0)),
        Intake::Taken,
        "observed before the change, and obeys it"
    );
    assert!(!follows(&mut paused, 495));
    assert!(follows(&mut paused, 500));
    let mut last = 0.0;
    for ms in (505..=890).step_by(5) {
        last = position(&paused.step(Mono(ms * MS), None));
    }
    assert!(
        (last - 0.3).abs() < 0.01,
        "not mixed with the old plan: {last}"
    );
}

#[test]
fn a_plan_is_not_followed_past_its_expiry() {
    let mut config = config(Merge::Replace);
    config.chunk_age_max_ns = 300 * MS;
    let mut schedule = Schedule::new(config);
    schedule.offer(Mono(60 * MS), &line(1, 10, 0.2, 0.0));
    assert!(matches!(
        schedule.step(Mono(310 * MS), None),
        Step::Setpoint { .. }
    ));
    assert_eq!(
        schedule.step(Mono(315 * MS), None),
        Step::None(Absence::Ended)
    );
}

/// Chunks of `steps` actions 50 ms apart on a slope of 0.5, never two in flight, each after a delay of `delays_ms`, in turn.
/// Returns the positions and the ladder.
fn served_late(steps: usize, delays_ms: &[u64], until_ms: u64) -> (Vec<f64>, Ladder) {
    let mut schedule = Schedule::new(config(Merge::Replace));
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    let mut delays_ms = delays_ms.iter().cycle();
    let (mut positions, mut coming, mut id) = (Vec::new(), None, 0);
    for ms in (100..until_ms).step_by(5) {
        if coming.is_none() {
            id += 1;
            // The policy plans on from where the robot is.
            let at = positions.last().copied().unwrap_or(0.0) as f32;
            let delay_ms = delays_ms.next().expect("a delay");
            coming = Some((ms + delay_ms, long_line(id, ms, at, 0.5, steps)));
        }
        if let Some((_, chunk)) = coming.take_if(|(at, _)| *at <= ms) {
            assert_eq!(schedule.offer(Mono(ms * MS), &chunk), Intake::Taken);
        }
        if let Step::Setpoint { setpoint, .. } = schedule.step(Mono(ms * MS), None) {
            positions.push(setpoint.position[0]);
        }
    }
    (positions, schedule.ladder())
}

#[test]
fn half_a_second_of_inference_is_no_stall_and_no_burst() {
    for delays_ms in [
        [400, 400, 400],
        [500, 500, 500],
        [330, 430, 380],
        [400, 480, 440],
    ] {
        let (positions, ladder) = served_late(24, &delays_ms, 20_000);
        assert_eq!(ladder.ran_out, 0, "{delays_ms:?} {ladder:?}");
        smooth(&positions, &[]);
        // Nothing is caught up with in a burst, and nothing goes back: the plan's speed, and at most as much for a seam.
        for pair in positions.windows(2) {
            let velocity = (pair[1] - pair[0]) / 0.005;
            assert!(
                (-0.05..1.0).contains(&velocity),
                "{velocity} at {delays_ms:?}"
            );
        }
        let way = positions.last().expect("a setpoint");
        assert!(*way > 3.0, "{way} rad of 10 with {delays_ms:?}");
    }
}

#[test]
fn a_policy_that_is_slower_than_its_chunks_makes_the_robot_slow_down_and_hold() {
    let (positions, ladder) = served_late(16, &[700], 20_000);
    assert!(ladder.ran_out > 5 && ladder.hold_ns > 0, "{ladder:?}");
    smooth(&positions, &[]);
    for pair in positions.windows(2) {
        let velocity = (pair[1] - pair[0]) / 0.005;
        assert!((-0.05..1.0).contains(&velocity), "{velocity}");
    }
}
