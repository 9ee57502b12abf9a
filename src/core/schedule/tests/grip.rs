// SPDX-License-Identifier: Apache-2.0
//! Grippers.

use super::*;

#[test]
fn a_gripper_steps_and_never_lies_between() {
    let kinds = [JointKind::Revolute, JointKind::Gripper]
        .into_iter()
        .collect();
    let mut schedule = Schedule::new(Config {
        kinds,
        ..config(Merge::Blend { blend_ns: 100 * MS })
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

#[test]
fn a_gripper_that_closes_does_not_make_the_arms_seam_last() {
    let mut config = config(Merge::Replace);
    config.kinds = [JointKind::Revolute, JointKind::Gripper]
        .into_iter()
        .collect();
    // What a gripper's row may say: it has no dynamics of its own.
    config.limits = [
        LIMITS,
        Rates {
            velocity_max: 1e-3,
            acceleration_max: 1e-3,
            jerk_max: 1e-3,
        },
    ]
    .into_iter()
    .collect();
    let mut schedule = Schedule::new(config);
    let chunk = |id, captured_ms, closed: f32| {
        let seen = 1e-3 * (captured_ms - 100) as f32;
        let values: Vec<f32> = (1..=16)
            .flat_map(|i| [seen + 0.05 * i as f32, closed])
            .collect();
        let provenance = Provenance {
            chunk_id: id,
            captured: Mono(captured_ms * MS),
            ..Provenance::default()
        };
        Chunk::new(
            Mono((captured_ms + 50) * MS),
            50 * MS,
            2,
            &values,
            provenance,
        )
        .expect("a good chunk")
    };
    schedule.offer(Mono(200 * MS), &chunk(1, 100, 0.0));
    follow(&mut schedule, 200, 305);
    schedule.offer(Mono(305 * MS), &chunk(2, 200, 1.0));
    schedule.step(Mono(305 * MS), None);
    let seam_ns = schedule.seam.length_ns();
    assert!(seam_ns <= 150 * MS, "{} ms", seam_ns / MS);
}

/// One joint and a gripper. A plan on the line `start + slope * t`, the gripper closed in the actions named.
fn grasp(id: u32, captured_ms: u64, line: [f32; 2], closed: core::ops::Range<usize>) -> Chunk {
    let [start, slope] = line;
    let values: Vec<f32> = (0..16)
        .flat_map(|i| {
            let grip = if closed.contains(&i) { 0.97 } else { 0.02 };
            [start + slope * 0.05 * i as f32, grip]
        })
        .collect();
    let captured = Mono(captured_ms * MS);
    let provenance = Provenance {
        chunk_id: id,
        captured,
        ..Provenance::default()
    };
    Chunk::new(captured, 50 * MS, 2, &values, provenance).expect("a good chunk")
}

fn gripping() -> Schedule {
    let mut config = config(Merge::Blend { blend_ns: 100 * MS });
    config.kinds = [JointKind::Revolute, JointKind::Gripper]
        .into_iter()
        .collect();
    Schedule::new(config)
}

/// Joint and gripper at each tick from `from_ms` on; `chunks` come at their times.
fn gripped(chunks: &[(u64, Chunk)], until_ms: u64) -> Vec<(u64, [f64; 2])> {
    let mut schedule = gripping();
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    let mut out = Vec::new();
    for ms in (0..until_ms).step_by(5) {
        for (_, chunk) in chunks.iter().filter(|(at, _)| *at == ms) {
            assert_eq!(schedule.offer(Mono(ms * MS), chunk), Intake::Taken);
        }
        if let Step::Setpoint { setpoint, .. } = schedule.step(Mono(ms * MS), None) {
            out.push((ms, [setpoint.position[0], setpoint.position[1]]));
        }
    }
    out
}

#[test]
fn a_late_plan_closes_the_gripper_where_it_meant_to() {
    let chunks = [
        (100, grasp(1, 100, [0.0, 0.4], 16..16)),
        // Down to 0.25 in 250 ms, close there, go on: and it comes 300 ms late, with the robot at 0.2.
        (600, grasp(2, 300, [0.3, -0.2], 5..16)),
    ];
    let trace = gripped(&chunks, 1_200);
    let (at_ms, [joint, _]) = trace
        .iter()
        .find(|(_, [_, grip])| *grip > 0.5)
        .expect("it closes");
    assert!((joint - 0.25).abs() < 2e-3, "closed at {joint}");
    assert!((700..900).contains(at_ms), "{at_ms} ms");
    let positions: Vec<f64> = trace.iter().map(|(_, [joint, _])| *joint).collect();
    smooth(&positions, &[]);
}

#[test]
fn a_plan_made_before_the_gripper_closed_does_not_open_it_again() {
    let first = grasp(1, 100, [0.0, 0.2], 4..16);
    // Observed before 300 ms, when the first one closes; expects to close at 600 ms, or never.
    for late in [8..16, 16..16] {
        let chunks = [
            (100, first),
            (350, grasp(2, 250, [0.0, 0.2], late)),
            // Observed afterwards: this one may.
            (800, grasp(3, 700, [0.0, 0.2], 16..16)),
        ];
        let trace = gripped(&chunks, 1_000);
        for (ms, [_, grip]) in trace {
            assert_eq!(grip > 0.5, (300..800).contains(&ms), "{grip} at {ms} ms");
        }
    }
}

#[test]
fn a_plan_may_close_and_open_the_gripper_by_itself() {
    let trace = gripped(&[(100, grasp(1, 100, [0.0, 0.2], 4..9))], 800);
    for (ms, [_, grip]) in trace {
        assert_eq!(grip > 0.5, (300..550).contains(&ms), "{grip} at {ms} ms");
    }
}

#[test]
fn a_gripper_that_takes_its_time_is_told_ahead_and_the_arm_is_not() {
    let chunks = [(100, grasp(1, 100, [0.0, 0.2], 4..9))];
    let plain = gripped(&chunks, 800);
    let mut config = gripping().config;
    config.gripper_lead_ns = 80 * MS;
    let mut schedule = Schedule::new(config);
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    for (ms, [joint, _]) in plain {
        for (_, chunk) in chunks.iter().filter(|(at, _)| *at == ms) {
            assert_eq!(schedule.offer(Mono(ms * MS), chunk), Intake::Taken);
        }
        let Step::Setpoint { setpoint, .. } = schedule.step(Mono(ms * MS), None) else {
            panic!("a setpoint at {ms} ms");
        };
        // Closes at 300 ms and opens at 550 ms, by the plan.
        assert_eq!(
            setpoint.position[1] > 0.5,
            (220..470).contains(&ms),
            "{ms} ms"
        );
        assert_eq!(setpoint.position[0], joint, "{ms} ms");
    }
}
