// SPDX-License-Identifier: Apache-2.0
//! Any stream of chunks, and days of it.

use super::*;
use proptest::prelude::*;

/// Steps `schedule` to `now` and holds what it says against the tick before.
///
/// Between two ticks the acceleration may change by the bound's jerk and by what the plan's own curve does; at a
/// hand-over it may not change at all. Position and velocity must be the integrals.
fn checked_step(
    schedule: &mut Schedule,
    now: Mono,
    newest: &mut Mono,
) -> Result<(), TestCaseError> {
    let before = schedule.last;
    let plan_before = schedule
        .plan()
        .map(|plan| plan.merged.provenance().chunk_id);
    let period_ns = schedule.config.period_ns;
    let dt = period_ns as f64 * 1e-9;
    let Step::Setpoint {
        provenance,
        setpoint,
        ..
    } = schedule.step(now, None)
    else {
        return Ok(());
    };
    prop_assert!(setpoint.position.iter().all(|p| p.is_finite()));
    prop_assert!(provenance.captured >= *newest, "an older observation");
    *newest = provenance.captured;
    let expiry = provenance
        .captured
        .plus_ns(schedule.config.chunk_age_max_ns);
    prop_assert!(
        schedule.slowing.is_some() || now <= expiry,
        "a stale action"
    );
    let (Some(before), Some(after)) = (before, schedule.last) else {
        return Ok(());
    };
    let plan = &schedule.plan().expect("a plan").merged;
    // At a hand-over, and wherever else a seam begins: the pace may have changed there.
    let begun = schedule.seam_ns() > 0 && schedule.seam.left_ns(now) == schedule.seam_ns();
    let handed_over = begun || plan_before != Some(plan.provenance().chunk_id);
    let kinds = &schedule.config.kinds;
    let rate = schedule.rate();
    let curve = |at| curve::sample(plan, kinds, at).at_rate(rate);
    let way_ns = (rate * period_ns as f64) as u64;
    let (from, to) = (curve(now.minus_ns(way_ns)), curve(now));
    // A mixed plan falls back to the newest chunk where the older one ends, as the published rules do; caught there by a
    // seam, it has accelerations that no joint has, for which the longest seam and the longest stop are too short.
    let cut_short = schedule
        .slowing
        .is_some_and(|slowing| slowing.is_cut_short())
        || schedule.seam_ns() > 9_900 * MS;
    let whole = handed_over || schedule.slowing.is_some();
    for (((a, b), c), d) in before
        .joints()
        .zip(after.joints())
        .zip(from.joints())
        .zip(to.joints())
    {
        // What the scheduler adds to the plan's own curve, which is C2 by itself; at a hand-over and while slowing
        // the whole motion.
        let [a, b] = if whole {
            [a, b]
        } else {
            [
                [a[0] - c[0], a[1] - c[1], a[2] - c[2]],
                [b[0] - d[0], b[1] - d[1], b[2] - d[2]],
            ]
        };
        let changed = (b[2] - a[2]).abs();
        let most = if handed_over {
            0.0
        } else {
            1.01 * BOUND.jerk_max * dt
        };
        prop_assert!(
            changed <= most + 1e-6 || cut_short,
            "acceleration {} to {}",
            a[2],
            b[2]
        );
        // The trapezium is exact but for what the jerk does within a tick.
        let jerk = changed.max(BOUND.jerk_max * dt) / dt;
        let moved = b[0] - a[0] - 0.5 * dt * (a[1] + b[1]);
        prop_assert!(
            moved.abs() <= jerk * dt.powi(3) + 1e-9,
            "position off its velocity by {moved}"
        );
        let sped = b[1] - a[1] - 0.5 * dt * (a[2] + b[2]);
        prop_assert!(
            sped.abs() <= jerk * dt * dt + 1e-9,
            "velocity off by {sped}"
        );
    }
    Ok(())
}

/// A chunk on its way: capture, delay, copies, start, slope, steps, spoilt.
type Sent = (u64, u64, u8, f32, f32, usize, bool);

fn sent_chunk(id: usize, (captured_ms, _, _, start, slope, steps, spoilt): Sent) -> Option<Chunk> {
    let mut values: Vec<f32> = (1..=steps)
        .flat_map(|i| [start + slope * (0.05 * i as f32).sin(), -start])
        .collect();
    if spoilt {
        *values.last_mut()? = f32::NAN;
    }
    let captured = Mono(captured_ms * MS);
    let provenance = Provenance {
        chunk_id: id as u32 + 1,
        captured,
        ..Provenance::default()
    };
    let chunk = Chunk::new(captured.plus_ns(50 * MS), 50 * MS, 2, &values, provenance);
    assert_eq!(
        chunk.is_err(),
        spoilt,
        "a chunk with a NaN is refused whole, and no other is"
    );
    chunk.ok()
}

proptest! {
    /// Across every action of any chunk, and before its first; its last is its end.
    #[test]
    fn the_curve_is_c2_and_meets_every_action(values in prop::collection::vec(-1.0f32..1.0, 2..40)) {
        let chunk = Chunk::new(Mono(400 * MS), 50 * MS, 1, &values, Provenance::default()).expect("good");
        let at = |ns| curve::sample(&chunk, &kinds(1), Mono(ns)).joints().next().expect("a joint");
        for (step, value) in values.iter().enumerate() {
            let ns = chunk.at(step).0;
            prop_assert!((at(ns)[0] - f64::from(*value)).abs() < 1e-9);
        }
        for step in -3..values.len() as i64 - 1 {
            let ns = (400 + 50 * step) as u64 * MS;
            let (before, after) = (at(ns - 1), at(ns));
            for ((b, a), within) in before.iter().zip(after).zip([1e-6, 1e-4, 1e-1]) {
                prop_assert!((b - a).abs() < within, "{before:?} {after:?} at {step}");
            }
        }
    }

    /// Any order, delay, loss, duplication, length or NaN, under every rule and whatever share of the limits is in force.
    #[test]
    fn any_stream_of_chunks_stays_c2_in_order_and_fresh(
        rule in prop::sample::select(RULES.to_vec()),
        sent in prop::collection::vec(
            (1u64..4000, 0u64..600, 0u8..3, -1.0f32..1.0, -0.5f32..0.5, 1usize..40, prop::bool::weighted(0.1)),
            0..60,
        ),
        instructed_ms in 0u64..8000,
        shares in prop::collection::vec((0u64..6000, 0.05f64..1.0, 0.2f64..1.0), 0..4),
    ) {
        let mut schedule = Schedule::new(config(rule));
        schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
        let chunks: Vec<(u64, u8, Chunk)> = sent.iter().enumerate()
            .filter_map(|(id, s)| Some(((s.0 + s.1) / 5, s.2, sent_chunk(id, *s)?)))
            .collect();
        let mut newest = Mono(0);
        for tick in 0..1300u64 {
            let now = Mono(tick * TICK);
            if tick == instructed_ms / 5 {
                schedule.instruction_changed(now, (sent.len() / 2) as u32);
            }
            for (_, velocity, acceleration) in shares.iter().filter(|(at, ..)| at / 5 == tick) {
                let (velocity, acceleration) = (*velocity, *acceleration);
                schedule.limits_in_force(InForce { velocity, acceleration });
            }
            for (_, copies, chunk) in chunks.iter().filter(|(at, ..)| *at == tick) {
                // Lost, once or twice.
                for _ in 0..*copies {
                    schedule.offer(now, chunk);
                }
            }
            checked_step(&mut schedule, now, &mut newest)?;
        }
    }
}

#[test]
fn two_days_without_a_slip() {
    let mut one = config(Merge::Aggregate(merge::Aggregate::WeightedAverage));
    one.period_ns = 20 * MS;
    let mut schedule = Schedule::new(one);
    schedule.reset(&Setpoint::at_rest(&[0.0, 0.0]));
    // A small generator is enough: where chunks fall, not how random they are.
    let mut state = 7u64;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let (mut newest, mut waiting, mut taken) = (Mono(0), None, 0u32);
    for tick in 1..48 * 3600 * 50u64 {
        let now = Mono(tick * 20 * MS);
        if tick.is_multiple_of(7) && draw(10) > 0 {
            let start = draw(200) as f32 * 0.01 - 1.0;
            let sent = (
                tick * 20,
                0,
                1,
                start,
                0.2,
                4 + draw(20) as usize,
                draw(50) == 0,
            );
            waiting = sent_chunk(tick as usize, sent).map(|chunk| (tick + draw(20), chunk));
        }
        if let Some((_, chunk)) = waiting.take_if(|(at, _)| *at <= tick) {
            taken += u32::from(schedule.offer(now, &chunk) == Intake::Taken);
        }
        checked_step(&mut schedule, now, &mut newest).expect("a smooth step");
    }
    assert!(taken > 100_000, "{taken}");
    let ladder = schedule.ladder();
    let all = ladder.fresh_ns + ladder.tail_ns + ladder.slowing_ns + ladder.hold_ns;
    assert!(
        all > 172_700_000 * MS && ladder.hold_ns > 0,
        "every tick is counted: {ladder:?}"
    );
}
