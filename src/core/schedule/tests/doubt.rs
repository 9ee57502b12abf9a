// SPDX-License-Identifier: Apache-2.0
//! What the policy is not sure of is not followed.

use super::*;

#[test]
fn a_chunk_that_the_policy_doubts_is_not_followed_and_neither_is_the_one_before() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    follow(&mut schedule, 0, 100);
    schedule.offer(Mono(100 * MS), &line(1, 90, 0.0, 1.0));
    let (way, _) = follow(&mut schedule, 100, 400);
    assert!(way.last() > Some(&0.1), "it moves: {way:?}");

    let doubted = line(2, 300, 0.3, 1.0).doubted();
    assert_eq!(schedule.offer(Mono(400 * MS), &doubted), Intake::Unsure);
    let (stop, absent) = follow(&mut schedule, 400, 800);
    assert_eq!(
        absent,
        Some(Absence::Unsure),
        "at rest long before its plan ends"
    );
    let path: Vec<f64> = way.iter().chain(&stop).copied().collect();
    let acceleration = |w: &[f64]| (w[2] - 2.0 * w[1] + w[0]) / (0.005 * 0.005);
    let worst = path[way.len() - 2..]
        .windows(3)
        .map(acceleration)
        .fold(0.0_f64, |a, b| a.max(b.abs()));
    assert!(
        worst <= BOUND.acceleration_max * 1.01,
        "no jerk of a stop: {worst}"
    );
    assert_eq!(schedule.ladder().ran_out, 0, "nothing was late");

    let again = line(3, 500, 0.9, 1.0).doubted();
    assert_eq!(schedule.offer(Mono(800 * MS), &again), Intake::Unsure);
    assert_eq!(
        schedule.offer(Mono(805 * MS), &line(4, 790, 0.5, 1.0)),
        Intake::Taken
    );
    let (on, absent) = follow(&mut schedule, 805, 1_400);
    assert_eq!(absent.filter(|absence| *absence != Absence::Unsure), None);
    assert!(on.len() > 100, "it goes on by itself");
}

#[test]
fn nothing_is_followed_as_long_as_the_policy_doubts_and_another_instruction_is_another_matter() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    for id in 1..20 {
        let ms = 100 * u64::from(id);
        schedule.offer(Mono(ms * MS), &line(id, ms - 10, 0.0, 1.0).doubted());
        assert_eq!(
            schedule.step(Mono(ms * MS), None),
            Step::None(Absence::Unsure)
        );
    }
    schedule.instruction_changed(Mono(2_000 * MS), 20);
    assert_eq!(
        schedule.step(Mono(2_000 * MS), None),
        Step::None(Absence::NoChunk)
    );
    // A doubted chunk of the instruction before says nothing about this one.
    let old = line(19, 1_990, 0.0, 1.0).doubted();
    assert_eq!(
        schedule.offer(Mono(2_005 * MS), &old),
        Intake::OtherInstruction
    );
    assert!(!schedule.unsure());
}

#[test]
fn a_plan_that_was_left_in_doubt_is_not_taken_up_again_by_another_instruction() {
    let mut tail = config(Merge::Replace);
    tail.on_instruction.tail_steps = 8;
    let mut schedule = Schedule::new(tail);
    schedule.offer(Mono(150 * MS), &line(1, 100, 0.0, 1.0));
    follow(&mut schedule, 150, 300);
    schedule.offer(Mono(300 * MS), &line(2, 250, 0.0, 1.0).doubted());
    follow(&mut schedule, 300, 350);
    schedule.instruction_changed(Mono(350 * MS), 3);
    let (_, absent) = follow(&mut schedule, 350, 700);
    assert_eq!(absent, Some(Absence::Ended));
}
