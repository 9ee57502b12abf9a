// SPDX-License-Identifier: Apache-2.0
//! Plans that are too fast.

use super::*;
use proptest::prelude::*;

/// A chunk of 32 actions 50 ms apart, observed by `captured_ms`, of a joint that swings by `reach` each way at
/// `omega` rad/s, and another that swings against it by half. `behind_ms`: where the robot is on its way.
fn swing(id: u32, captured_ms: u64, [reach, omega]: [f64; 2], behind_ms: f64) -> Chunk {
    let values: Vec<f32> = (0..32)
        .flat_map(|i| {
            let seconds = 1e-3 * (captured_ms as f64 + 50.0 * f64::from(i) - behind_ms);
            let q = reach * (1.0 - (omega * seconds.max(0.0)).cos());
            [q as f32, -0.5 * q as f32]
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

proptest! {
    /// A plan that is up to four times too fast, under any share of the limits that may grow: it keeps to
    /// them at every tick, goes where the plan goes, and never runs out.
    #[test]
    fn a_plan_that_is_too_fast_is_played_slower(
        reach in 0.1f64..0.8,
        speed in 0.2f64..2.0,
        delay_ms in (12u64..80).prop_map(|x| 5 * x),
        shares in (0.5f64..1.0, 0.5f64..1.0),
        grows_ms in 0u64..6000,
        rule in prop::sample::select(vec![Merge::Replace, Merge::Blend { blend_ns: 100 * MS }]),
    ) {
        swings(Swing { reach, speed, delay_ms, shares, grows_ms, rule })?;
    }
}

/// A fade that lasts longer than what is looked at once hid that the plan behind it was too fast: it was joined at full rate, was
/// left again and again, and the robot got to a third of the way in six seconds.
#[test]
fn a_long_fade_does_not_hide_a_plan_that_is_too_fast() {
    let swing = Swing {
        reach: 0.6941,
        speed: 1.9636,
        delay_ms: 395,
        shares: (0.6657, 0.526),
        grows_ms: 5993,
        rule: Merge::Blend { blend_ns: 100 * MS },
    };
    swings(swing).expect("there and back");
}

/// The plan's first actions once asked for 591 of 500 rad/s3, between two looks at it.
#[test]
fn a_plan_with_a_kink_at_its_first_action_is_played_slower_too() {
    let swing = Swing {
        reach: 0.2776,
        speed: 1.893,
        delay_ms: 80,
        shares: (0.5132, 0.6364),
        grows_ms: 4605,
        rule: Merge::Replace,
    };
    swings(swing).expect("within the limits");
    let blended = Swing {
        rule: Merge::Blend { blend_ns: 100 * MS },
        ..swing
    };
    swings(blended).expect("within the limits");
}

#[derive(Clone, Copy, Debug)]
struct Swing {
    reach: f64,
    speed: f64,
    delay_ms: u64,
    shares: (f64, f64),
    grows_ms: u64,
    rule: Merge,
}

fn swings(asked: Swing) -> Result<(), TestCaseError> {
    let Swing {
        reach,
        speed,
        delay_ms,
        shares,
        grows_ms,
        rule,
    } = asked;
    let limits = Rates {
        velocity_max: 1.0,
        acceleration_max: 10.0,
        jerk_max: 500.0,
    };
    let mut config = config(rule);
    config.limits = [limits; 2].into_iter().collect();
    config.chunk_age_max_ns = 5_000 * MS;
    // Slow enough in acceleration and jerk when it is slow enough in velocity.
    let omega = (speed / reach).min(5.0);
    let mut schedule = Schedule::new(config);
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    let (velocity, acceleration) = shares;
    let mut in_force = InForce {
        velocity,
        acceleration,
    };
    let (mut positions, mut coming, mut id) = (vec![0.0; 3], None, 0u32);
    for ms in (100..6000u64).step_by(5) {
        let now = Mono(ms * MS);
        if ms / 5 == grows_ms / 5 {
            in_force = InForce::FULL;
        }
        schedule.limits_in_force(in_force);
        if coming.is_none() {
            // The policy sees the robot where it is: behind by what was lost until now.
            id += 1;
            let behind_ms = schedule.ladder().stretched_ns as f64 / MS as f64;
            coming = Some((ms + delay_ms, swing(id, ms, [reach, omega], behind_ms)));
        }
        if let Some((_, chunk)) = coming.take_if(|(at, _)| *at <= ms) {
            prop_assert_eq!(schedule.offer(now, &chunk), Intake::Taken);
        }
        if let Step::Setpoint { setpoint, .. } = schedule.step(now, None) {
            let dt = 0.005;
            let q = setpoint.position[0];
            let before = positions[positions.len() - 3..].to_vec();
            let v = (q - before[2]) / dt;
            let a = (q - 2.0 * before[2] + before[1]) / (dt * dt);
            let j = (q - 3.0 * before[2] + 3.0 * before[1] - before[0]) / (dt * dt * dt);
            // But for rounding, in the differences that the governor sees.
            let hair = 1.0 + 1e-6;
            prop_assert!(v.abs() <= hair * in_force.velocity, "{v} at {ms} ms");
            let force = 10.0 * in_force.acceleration;
            prop_assert!(a.abs() <= hair * force, "{a} at {ms} ms");
            prop_assert!(j.abs() <= hair * 500.0, "{j} at {ms} ms");
            positions.push(q);
        }
    }
    let ladder = schedule.ladder();
    prop_assert_eq!(ladder.ran_out, 0);
    // It does go there.
    let most = positions.iter().fold(0.0_f64, |most, q| most.max(*q));
    prop_assert!(
        most > 1.8 * reach || omega * 4.0 < std::f64::consts::PI,
        "{most} of {reach}"
    );
    Ok(())
}

/// It may not get to its last action; it is never followed for longer than the policy meant.
#[test]
fn a_plan_that_is_played_slower_is_over_when_it_was_meant_to_be() {
    let mut tight = config(Merge::Replace);
    for limits in &mut tight.limits {
        limits.velocity_max = 1.0;
    }
    let mut schedule = Schedule::new(tight);
    schedule.limits_in_force(InForce {
        velocity: 0.2,
        acceleration: 1.0,
    });
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    follow(&mut schedule, 0, 100);
    schedule.offer(Mono(100 * MS), &line(1, 90, 0.0, 1.0));
    follow(&mut schedule, 100, 350);
    // Its last action is due 800 ms after it was observed.
    let second = line(2, 300, 0.05, 1.0);
    assert_eq!(schedule.offer(Mono(350 * MS), &second), Intake::Taken);
    follow(&mut schedule, 350, 1_105);
    let then = schedule.ladder();
    assert!(schedule.rate() < 0.5, "{}", schedule.rate());
    let (stop, absent) = follow(&mut schedule, 1_105, 3_000);
    let after = schedule.ladder();
    assert_eq!(
        (then.fresh_ns, then.tail_ns),
        (after.fresh_ns, after.tail_ns)
    );
    assert!(
        !stop.is_empty() && absent == Some(Absence::Ended),
        "it slows"
    );
}

/// At a tenth of its speed the robot takes half a second to a plan's first action. It does not go on with an old plan until then,
/// while ever newer ones wait.
#[test]
fn a_robot_that_is_slowed_still_follows_the_newest_plan() {
    let mut slowed = config(Merge::Replace);
    for limits in &mut slowed.limits {
        limits.velocity_max = 1.0;
    }
    let mut schedule = Schedule::new(slowed);
    schedule.limits_in_force(InForce {
        velocity: 0.1,
        acceleration: 1.0,
    });
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    let (mut last, mut seen) = (0.0, 0.0);
    for ms in (100..5_000u64).step_by(5) {
        if ms % 100 == 20 {
            // Observed 20 ms ago, from where the robot was: its first action is due 50 ms after that.
            let id = (ms / 100) as u32;
            let newest = line(id, ms - 20, seen as f32, 1.0);
            assert_eq!(schedule.offer(Mono(ms * MS), &newest), Intake::Taken);
        }
        if let Step::Setpoint {
            setpoint,
            provenance,
            ..
        } = schedule.step(Mono(ms * MS), None)
        {
            let captured = provenance.captured.0 / MS;
            assert!(
                ms < 1_000 || ms - captured <= 250,
                "{ms} ms: of {captured} ms"
            );
            last = setpoint.position[0];
        }
        if ms % 100 == 0 {
            seen = last;
        }
    }
    assert_eq!(schedule.ladder().ran_out, 0);
    assert!((0.35..0.49).contains(&last), "4.8 s at 0.1 rad/s: {last}");
}
