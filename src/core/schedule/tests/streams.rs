// SPDX-License-Identifier: Apache-2.0
//! Any stream of chunks, and days of it.

use super::*;
use proptest::prelude::*;

/// What was said until now.
#[derive(Default)]
struct Heard {
    newest: Mono,
    /// At the last three ticks; a robot that is told nothing stands.
    positions: [[f64; 2]; 3],
}

impl Heard {
    /// Steps `schedule` to `now` and holds what it says against what was said before: whatever comes, the differences of the
    /// positions from tick to tick are within the joints' acceleration and jerk.
    fn step(&mut self, schedule: &mut Schedule, now: Mono) -> Result<(), TestCaseError> {
        let dt = schedule.config.period_ns as f64 * 1e-9;
        let [first, second, third] = self.positions;
        let position = match schedule.step(now, None) {
            Step::None(_) => third,
            Step::Setpoint {
                provenance,
                setpoint,
                ..
            } => {
                prop_assert!(setpoint.position.iter().all(|p| p.is_finite()));
                prop_assert!(provenance.captured >= self.newest, "an older observation");
                self.newest = provenance.captured;
                let age_max_ns = schedule.config.chunk_age_max_ns;
                let expiry = provenance.captured.plus_ns(age_max_ns);
                let slows = schedule.slowing.is_some() || schedule.curbed;
                prop_assert!(slows || now <= expiry, "a stale action");
                [setpoint.position[0], setpoint.position[1]]
            }
        };
        for (((q0, q1), q2), q3) in first.iter().zip(second).zip(third).zip(position) {
            let a = (q3 - 2.0 * q2 + q1) / (dt * dt);
            let j = (q3 - 3.0 * q2 + 3.0 * q1 - q0) / (dt * dt * dt);
            prop_assert!(a.abs() <= LIMITS.acceleration_max + 1e-6, "{a} rad/s2");
            prop_assert!(j.abs() <= LIMITS.jerk_max + 1e-3, "{j} rad/s3");
        }
        self.positions = [second, third, position];
        Ok(())
    }
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
        let mut heard = Heard::default();
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
            heard.step(&mut schedule, now)?;
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
    let (mut heard, mut waiting, mut taken) = (Heard::default(), None, 0u32);
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
        heard.step(&mut schedule, now).expect("a smooth step");
    }
    assert!(taken > 100_000, "{taken}");
    let ladder = schedule.ladder();
    let all = ladder.fresh_ns + ladder.tail_ns + ladder.slowing_ns + ladder.hold_ns;
    assert!(
        all > 172_700_000 * MS && ladder.hold_ns > 0,
        "every tick is counted: {ladder:?}"
    );
}
