// SPDX-License-Identifier: Apache-2.0
//! Stories of the scheduler in simulated time, through one helper.

use super::*;
use crate::core::units::MS;
use proptest::prelude::*;

const TICK: u64 = 5 * MS;

fn kinds(n: usize) -> heapless::Vec<JointKind, JOINTS_MAX> {
    (0..n).map(|_| JointKind::Revolute).collect()
}

fn config(merge: Merge) -> Config {
    Config {
        kinds: kinds(2),
        period_ns: TICK,
        merge,
        chunk_age_max_ns: 1000 * MS,
    }
}

/// A chunk of 16 actions 50 ms apart on the line `start + slope * t` after its capture.
fn line(id: u32, captured_ms: u64, start: f32, slope: f32) -> Chunk {
    let values: Vec<f32> = (1..=16)
        .flat_map(|i| [start + slope * 0.05 * i as f32; 2])
        .collect();
    let captured = Mono(captured_ms * MS);
    let provenance = Provenance {
        chunk_id: id,
        captured,
        ..Provenance::default()
    };
    Chunk::new(captured.plus_ns(50 * MS), 50 * MS, 2, &values, provenance).expect("a good chunk")
}

#[track_caller]
fn position(step: &Step) -> f64 {
    match step {
        Step::Setpoint { setpoint, .. } => setpoint.position[0],
        Step::None(absence) => panic!("expected a setpoint, found {absence:?}"),
    }
}

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
fn after_the_last_action_it_neither_repeats_nor_extrapolates() {
    let mut schedule = Schedule::new(config(Merge::Replace));
    schedule.offer(Mono(150 * MS), &line(1, 100, 0.0, 1.0));
    assert!(matches!(
        schedule.step(Mono(900 * MS), None),
        Step::Setpoint { .. }
    ));
    assert_eq!(
        schedule.step(Mono(900 * MS + 1), None),
        Step::None(Absence::Ended)
    );
}

/// I8, for observations.
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
fn a_chunk_for_another_robot_is_dropped() {
    let mut schedule = Schedule::new(Config {
        kinds: kinds(3),
        ..config(Merge::Replace)
    });
    assert_eq!(
        schedule.offer(Mono(150 * MS), &line(1, 100, 0.0, 1.0)),
        Intake::Joints
    );
}

#[test]
fn a_gripper_steps_and_never_lies_between() {
    let kinds = [JointKind::Revolute, JointKind::Gripper]
        .into_iter()
        .collect();
    let mut schedule = Schedule::new(Config {
        kinds,
        ..config(Merge::Blend {
            blend_ns: 100 * MS,
            start_ns: 100 * MS,
        })
    });
    let values: Vec<f32> = (0..16)
        .flat_map(|i| [0.1 * i as f32, if i < 8 { 0.0 } else { 1.0 }])
        .collect();
    let provenance = Provenance {
        captured: Mono(MS),
        ..Provenance::default()
    };
    let chunk = Chunk::new(Mono(50 * MS), 50 * MS, 2, &values, provenance).expect("good");
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    schedule.offer(Mono(50 * MS), &chunk);
    for tick in 10..150 {
        if let Step::Setpoint { setpoint, .. } = schedule.step(Mono(tick * TICK), None) {
            let now_ms = tick * 5;
            assert_eq!(
                setpoint.position[1],
                if now_ms < 450 { 0.0 } else { 1.0 },
                "at {now_ms} ms"
            );
        }
    }
}

/// Runs `chunks` (arrival, chunk) with the given merge and returns the setpoints of joint 0, one a tick.
fn run(merge: Merge, start: f64, chunks: &[(u64, Chunk)], until_ms: u64) -> Vec<f64> {
    let mut schedule = Schedule::new(config(merge));
    schedule.reset(&Setpoint::at_rest(&[start, start]));
    let mut out = Vec::new();
    for tick in 0..until_ms / 5 {
        let now = Mono(tick * TICK);
        for (_, chunk) in chunks.iter().filter(|(at, _)| at / 5 == tick) {
            schedule.offer(now, chunk);
        }
        if let Step::Setpoint { setpoint, .. } = schedule.step(now, None) {
            out.push(setpoint.position[0]);
        }
    }
    out
}

#[test]
fn while_held_the_proposal_stays_where_the_robot_is_and_then_leaves_smoothly() {
    let mut schedule = Schedule::new(config(Merge::Blend {
        blend_ns: 150 * MS,
        start_ns: 150 * MS,
    }));
    let held = Setpoint::at_rest(&[0.3, 0.3]);
    schedule.offer(Mono(100 * MS), &line(1, 10, 0.0, 0.0));
    let mut positions = Vec::new();
    for tick in 20..100 {
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

fn acceleration_max(positions: &[f64]) -> f64 {
    positions
        .windows(3)
        .map(|w| ((w[2] - 2.0 * w[1] + w[0]) / 0.005_f64.powi(2)).abs())
        .fold(0.0, f64::max)
}

#[test]
fn blend_turns_the_jump_of_a_seam_into_a_bounded_acceleration() {
    let chunks = [(60, line(1, 10, 0.0, 0.5)), (260, line(2, 210, 0.13, 0.5))];
    let replaced = acceleration_max(&run(Merge::Replace, 0.0, &chunks, 600));
    let blended = acceleration_max(&run(
        Merge::Blend {
            blend_ns: 150 * MS,
            start_ns: 150 * MS,
        },
        0.0,
        &chunks,
        600,
    ));
    assert!(replaced > 500.0, "a 30 mrad jump in one tick: {replaced}");
    assert!(blended < 20.0, "faded over 150 ms: {blended}");
}

proptest! {
    /// Any order, delay, loss or duplication of chunks: finite, continuous under blend, observation never goes back.
    #[test]
    fn any_stream_of_chunks_stays_continuous_and_in_order(
        arrivals in prop::collection::vec((0u64..3000, 0u64..400, -1.0f32..1.0, -0.5f32..0.5), 0..40),
    ) {
        let mut schedule = Schedule::new(config(Merge::Blend { blend_ns: 120 * MS, start_ns: 120 * MS }));
        schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
        let mut newest = 0u64;
        let mut last: Option<f64> = None;
        for tick in 0..800u64 {
            let now = Mono(tick * TICK);
            for (id, (at, delay, start, slope)) in arrivals.iter().enumerate() {
                if (at + delay) / 5 == tick && *at > 0 {
                    schedule.offer(now, &line(id as u32, *at, *start, *slope));
                }
            }
            match schedule.step(now, None) {
                Step::Setpoint { setpoint, provenance, action } => {
                    prop_assert!(setpoint.position.iter().all(|p| p.is_finite()));
                    prop_assert!(provenance.captured.0 >= newest);
                    prop_assert!(usize::from(action) < 16);
                    newest = provenance.captured.0;
                    if let Some(last) = last {
                        prop_assert!((setpoint.position[0] - last).abs() < 0.4, "one tick moved {} rad", setpoint.position[0] - last);
                    }
                    last = Some(setpoint.position[0]);
                }
                Step::None(_) => last = None,
            }
        }
    }
}
