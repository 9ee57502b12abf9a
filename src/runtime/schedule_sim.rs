// SPDX-License-Identifier: Apache-2.0
//! The scheduler alone in simulated time: the same streams of chunks through every merge rule, and measures of what
//! comes out. Streams that other software made of the same chunks are measured by the same code.
//!
//! One joint, a policy of 20 actions a second and 16 actions a chunk asked at 10 Hz, control at 200 Hz, 30 s. Never two
//! inferences in flight. A lost chunk is one whose inference took its time and gave nothing.

use crate::bench::episode::{Ask, Spec};
use crate::core::action::{JointKind, Setpoint};
use crate::core::chunk::{Chunk, ChunkFault, Provenance};
use crate::core::schedule::merge::{Aggregate, Order};
use crate::core::schedule::{Config, Merge, OnInstruction, Rates, Schedule, Step};
use crate::core::units::{MS, Mono};
use crate::runtime::demo::{self, DemoError};
use crate::runtime::deployment::Deployment;
use crate::runtime::evaluation;
use crate::runtime::lockstep::Lockstep;
use rand_pcg::Pcg32;
use rand_pcg::rand_core::{Rng as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Control period.
pub const TICK_MS: u64 = 5;
const ACTION_MS: u64 = 50;
const STEPS: u64 = 16;
const INFERENCE_MS: u64 = 100;
const RUN_MS: u64 = 30_000;
/// The scene changes here in the stream `waves`.
const CHANGE_MS: u64 = 20_000;
const CHANGE_RAD: f64 = 0.3;
/// It has been reacted to when the joint has left by this what the old scene asked for.
const REACTED_RAD: f64 = 0.05;
/// Ticks after a hand-over that belong to its seam for the three steps: the tick itself and the two next, as a third
/// difference reaches over four.
const SEAM_TICKS: usize = 3;
/// The shoulder of the bench's arm, as configured.
const LIMITS: Rates = Rates {
    velocity_max: 2.5,
    acceleration_max: 15.0,
    jerk_max: 1500.0,
};

/// A chunk on its way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Arrival {
    /// When the robot was observed.
    pub captured_ms: u64,
    /// When the chunk comes.
    pub arrives_ms: u64,
    /// Absolute targets, rad, 50 ms apart, the first at the observation.
    pub actions_rad: Vec<f32>,
}

/// One stream under one kind of delay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scenario {
    /// `waves`: a moving target, each plan off by some noise. `two_ways`: plans that part to one of two sides. `demo JOINT`: what
    /// the demo's policy said of that joint ([`recorded`]).
    pub stream: String,
    /// Inference takes this long.
    pub delay_ms: u64,
    /// And up to this much longer, evenly spread.
    pub jitter_ms: u64,
    /// Share of inferences that give nothing.
    pub loss: f64,
    /// The chunks that come.
    pub arrivals: Vec<Arrival>,
}

/// What a scheduler made of a scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Trace {
    /// Index of the scenario.
    pub scenario: usize,
    /// Rule or program.
    pub name: String,
    /// Setpoint at each tick, rad; none before the first.
    pub positions_rad: Vec<Option<f64>>,
    /// Ticks at which a chunk took over.
    pub seams: Vec<usize>,
    /// Ticks without a plan to follow, from the first until the last chunk came.
    pub stalled_ticks: usize,
    /// Actions of the first chunk that were never done.
    pub skipped_at_start: usize,
    /// What the same did on the bench, where that was run.
    #[serde(default)]
    pub bench: Option<OnBench>,
}

/// A trace, measured. Steps are from tick to tick, the largest of all seams.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// The scenario's stream.
    pub stream: String,
    /// See [`Scenario`].
    pub delay_ms: u64,
    /// See [`Scenario`].
    pub jitter_ms: u64,
    /// See [`Scenario`].
    pub loss: f64,
    /// Rule or program.
    pub name: String,
    /// Position.
    pub seam_dq_rad: f64,
    /// Velocity.
    pub seam_dqd_rad_s: f64,
    /// Acceleration.
    pub seam_dqdd_rad_s2: f64,
    /// Over the whole run.
    pub jerk_max_rad_s3: f64,
    /// Over the whole run.
    pub jerk_rms_rad_s3: f64,
    /// See [`Trace::stalled_ticks`].
    pub stalled_ms: u64,
    /// See [`Trace::skipped_at_start`].
    pub skipped_at_start: usize,
    /// From the change of the scene; only `waves` has one.
    pub reaction_ms: Option<u64>,
    /// The same on the bench, where that was asked for: with the demo's policy instead of the stream.
    pub bench: Option<OnBench>,
}

/// Episodes of the demo in simulated time, under an injected delay of inference.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OnBench {
    /// How many were run.
    pub episodes: u32,
    /// Share of them done as asked.
    pub success_rate: f64,
    /// Mean simulated time of those that were done.
    pub done_after_s: f64,
    /// Times that there was nothing to do.
    pub stalls: u64,
    /// Ticks that the governor changed; nothing where none was between.
    pub interventions: Option<u64>,
}

/// Runs the demo under a rule.
///
/// # Errors
/// [`DemoError`].
pub fn on_bench(
    bundle: &Path,
    merge: Merge,
    delay_ms: u64,
    (episodes, seed): (u32, u64),
) -> Result<OnBench, DemoError> {
    let mut config = demo::bench_config(bundle, false)?;
    config.schedule.merge = merge;
    let mut pipeline = Lockstep::new(Deployment::load(config)?, delay_ms * MS);
    let (mut done, mut after_s) = (0u32, 0.0);
    for spec in evaluation::plan(episodes, seed) {
        let outcome = pipeline.episode(&spec, &mut |_| {})?;
        done += u32::from(outcome.named_done);
        after_s += if outcome.named_done {
            outcome.elapsed_s
        } else {
            0.0
        };
    }
    Ok(OnBench {
        episodes,
        success_rate: f64::from(done) / f64::from(episodes.max(1)),
        done_after_s: after_s / f64::from(done.max(1)),
        stalls: pipeline.measures.figures().ladder.stalls,
        interventions: Some(pipeline.interventions),
    })
}

/// The chunks of one episode of the demo in simulated time, as streams of single joints: those two that go furthest. Each
/// begins at 0 and at the observation of its first chunk, as the made ones do.
///
/// # Errors
/// [`DemoError`].
pub fn recorded(bundle: &Path, delay_ms: u64, seed: u64) -> Result<Vec<Scenario>, DemoError> {
    let config = demo::bench_config(bundle, false)?;
    let names: Vec<String> = config
        .robot
        .joints
        .iter()
        .filter(|(_, joint)| joint.kind != JointKind::Gripper)
        .map(|(name, _)| name.clone())
        .collect();
    let mut pipeline = Lockstep::new(Deployment::load(config)?, delay_ms * MS);
    pipeline.record = Some(Vec::new());
    let spec = Spec {
        seed,
        put: true,
        held_out_position: false,
        ask: Ask::Seen,
    };
    pipeline.episode(&spec, &mut |_| {})?;
    let chunks = pipeline.record.take().unwrap_or_default();
    let Some((_, first)) = chunks.first() else {
        return Ok(Vec::new());
    };
    let from = first.provenance().captured.minus_ns(1_000 * MS);
    let mut streams: Vec<(f64, Scenario)> = Vec::new();
    for (joint, name) in names.iter().enumerate() {
        let value = |row: &[f32]| row.get(joint).copied().unwrap_or(0.0);
        let start = value(first.action(0));
        let mut reach = 0.0_f64;
        let arrivals = chunks.iter().map(|(arrived, chunk)| {
            let actions = (0..chunk.steps()).map(|step| value(chunk.action(step)) - start);
            let actions_rad: Vec<f32> = actions.collect();
            reach = actions_rad
                .iter()
                .fold(reach, |most, rad| most.max(f64::from(rad.abs())));
            Arrival {
                captured_ms: chunk.provenance().captured.since_ns(from) / MS,
                arrives_ms: arrived.since_ns(from) / MS,
                actions_rad,
            }
        });
        let arrivals = arrivals.collect();
        let scenario = Scenario {
            stream: format!("demo {name}"),
            delay_ms,
            jitter_ms: 0,
            loss: 0.0,
            arrivals,
        };
        streams.push((reach, scenario));
    }
    streams.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let furthest = streams.into_iter().take(2);
    Ok(furthest.map(|(_, scenario)| scenario).collect())
}

/// Every stream under every delay.
#[must_use]
pub fn scenarios(seed: u64) -> Vec<Scenario> {
    let kinds = [
        (0, 0, 0.0),
        (50, 0, 0.0),
        (150, 0, 0.0),
        (300, 0, 0.0),
        (400, 0, 0.0),
        (500, 0, 0.0),
        (150, 100, 0.0),
        (150, 0, 0.2),
        (300, 100, 0.1),
    ];
    ["waves", "two_ways"]
        .iter()
        .flat_map(|stream| {
            kinds.map(|(delay_ms, jitter_ms, loss)| (*stream, delay_ms, jitter_ms, loss))
        })
        .map(|(stream, delay_ms, jitter_ms, loss)| {
            let mut random = Pcg32::seed_from_u64(seed);
            Scenario {
                stream: stream.to_owned(),
                delay_ms,
                jitter_ms,
                loss,
                arrivals: arrivals(stream, delay_ms, jitter_ms, loss, &mut random),
            }
        })
        .collect()
}

fn unit(random: &mut Pcg32) -> f64 {
    f64::from(random.next_u32()) / f64::from(u32::MAX)
}

fn arrivals(
    stream: &str,
    delay_ms: u64,
    jitter_ms: u64,
    loss: f64,
    random: &mut Pcg32,
) -> Vec<Arrival> {
    let mut all = Vec::new();
    let mut captured_ms = 1_000;
    while captured_ms < RUN_MS {
        let spread_ms = (unit(random) * jitter_ms as f64) as u64;
        let arrives_ms = (captured_ms + delay_ms + spread_ms).next_multiple_of(TICK_MS);
        let (noise, side) = (0.01 * (2.0 * unit(random) - 1.0), unit(random) < 0.5);
        let lost = unit(random) < loss;
        if !lost {
            all.push(Arrival {
                captured_ms,
                arrives_ms,
                actions_rad: plan(stream, captured_ms, noise, side),
            });
        }
        captured_ms = (captured_ms + INFERENCE_MS).max(arrives_ms);
    }
    all
}

/// Where the target is at `ms`, as seen at `seen_ms`: a wave from rest, and after the change another place.
fn target(ms: u64, seen_ms: u64, changes: bool) -> f64 {
    let wave = 0.5 * (1.0 - (0.8 * (ms as f64 - 1_000.0) * 1e-3).cos());
    if !changes || seen_ms < CHANGE_MS {
        return wave;
    }
    // Half a second of smooth motion to the new place.
    let u = (ms.saturating_sub(CHANGE_MS) as f64 / 500.0).min(1.0);
    wave + CHANGE_RAD * u * u * u * (10.0 + u * (6.0 * u - 15.0))
}

fn plan(stream: &str, captured_ms: u64, noise: f64, side: bool) -> Vec<f32> {
    (0..STEPS)
        .map(|step| {
            let ms = captured_ms + step * ACTION_MS;
            let ahead = step as f64 / (STEPS - 1) as f64;
            let value = match stream {
                "waves" => target(ms, captured_ms, true) + noise,
                _ => target(ms, captured_ms, false) + if side { 0.15 } else { -0.15 } * ahead,
            };
            value as f32
        })
        .collect()
}

/// Every rule with its name.
#[must_use]
pub fn rules() -> Vec<(String, Merge)> {
    let ensemble = |decay, order| Merge::Ensemble { decay, order };
    let mut rules = vec![
        ("replace".to_owned(), Merge::Replace),
        (
            "blend 100 ms".to_owned(),
            Merge::Blend { blend_ns: 100 * MS },
        ),
        (
            "ensemble 0.01 oldest first".to_owned(),
            ensemble(0.01, Order::OldestFirst),
        ),
        (
            "ensemble 0.3 newest first".to_owned(),
            ensemble(0.3, Order::NewestFirst),
        ),
        ("smooth 3".to_owned(), Merge::Smooth { last: 3 }),
    ];
    rules.extend(
        Aggregate::NAMED.map(|(name, mix)| (format!("aggregate {name}"), Merge::Aggregate(mix))),
    );
    rules
}

/// Runs a scenario through a rule.
///
/// # Errors
/// [`ChunkFault`] for a chunk that is none.
pub fn run(
    index: usize,
    scenario: &Scenario,
    (name, merge): &(String, Merge),
) -> Result<Trace, ChunkFault> {
    let mut schedule = Schedule::new(Config {
        kinds: [JointKind::Revolute].into_iter().collect(),
        limits: [LIMITS].into_iter().collect(),
        period_ns: TICK_MS * MS,
        merge: *merge,
        start_ns: 0,
        fresh_ns: 2 * INFERENCE_MS * MS,
        chunk_age_max_ns: 2_000 * MS,
        on_instruction: OnInstruction {
            tail_steps: 0,
            pause_ns: 0,
        },
        gripper_lead_ns: 0,
    });
    let start = Setpoint::at_rest(&[0.0]);
    schedule.reset(&start);
    let mut trace = Trace {
        scenario: index,
        name: format!("tendon {name}"),
        positions_rad: Vec::new(),
        seams: Vec::new(),
        stalled_ticks: 0,
        skipped_at_start: 0,
        bench: None,
    };
    let arrives = scenario.arrivals.iter().map(|arrival| arrival.arrives_ms);
    let last_ms = arrives.max().unwrap_or(0);
    let (mut followed, mut last) = (0, None);
    for tick in 0..RUN_MS / TICK_MS {
        let now = Mono(tick * TICK_MS * MS);
        for (id, arrival) in scenario.arrivals.iter().enumerate() {
            if arrival.arrives_ms == tick * TICK_MS {
                schedule.offer(now, &chunk(id, arrival)?);
            }
        }
        let held_before = schedule.ladder();
        if let Step::Setpoint {
            setpoint,
            provenance,
            action,
        } = schedule.step(now, None)
        {
            last = setpoint.positions().first().copied();
            if provenance.chunk_id != followed {
                if followed == 0 {
                    trace.skipped_at_start = usize::from(action);
                } else {
                    trace.seams.push(tick as usize);
                }
                followed = provenance.chunk_id;
            }
        }
        let held = schedule.ladder();
        let stalls = held.hold_ns + held.slowing_ns > held_before.hold_ns + held_before.slowing_ns;
        // After the last chunk there is nothing to go on with.
        trace.stalled_ticks += usize::from(stalls && tick * TICK_MS <= last_ms);
        trace.positions_rad.push(last);
    }
    Ok(trace)
}

fn chunk(id: usize, arrival: &Arrival) -> Result<Chunk, ChunkFault> {
    let captured = Mono(arrival.captured_ms * MS);
    let provenance = Provenance {
        chunk_id: id as u32 + 1,
        captured,
        ..Provenance::default()
    };
    Chunk::new(
        captured,
        ACTION_MS * MS,
        1,
        &arrival.actions_rad,
        provenance,
    )
}

/// Measures a trace.
#[must_use]
pub fn measure(scenario: &Scenario, trace: &Trace) -> Measured {
    let dt = TICK_MS as f64 * 1e-3;
    let q: Vec<f64> = trace
        .positions_rad
        .iter()
        .map(|p| p.unwrap_or(0.0))
        .collect();
    let differences = |of: &[f64]| -> Vec<f64> {
        // Index 0 has no predecessor; a zero keeps the ticks in step.
        std::iter::once(0.0)
            .chain(of.windows(2).map(|pair| pair[1] - pair[0]))
            .collect()
    };
    let (dq, second) = {
        let first = differences(&q);
        let second = differences(&first);
        (first, second)
    };
    let third = differences(&second);
    let at_seams = |of: &[f64]| {
        trace
            .seams
            .iter()
            .flat_map(|tick| of.iter().skip(*tick).take(SEAM_TICKS))
            .fold(0.0_f64, |most, step| most.max(step.abs()))
    };
    let jerk: Vec<f64> = third.iter().map(|step| step / dt.powi(3)).collect();
    let reaction_ms = (scenario.stream == "waves")
        .then(|| {
            (CHANGE_MS / TICK_MS..RUN_MS / TICK_MS).find(|tick| {
                let old = target(tick * TICK_MS, 0, false);
                q.get(*tick as usize)
                    .is_some_and(|q| (q - old).abs() > REACTED_RAD)
            })
        })
        .flatten()
        .map(|tick| tick * TICK_MS - CHANGE_MS);
    Measured {
        stream: scenario.stream.clone(),
        delay_ms: scenario.delay_ms,
        jitter_ms: scenario.jitter_ms,
        loss: scenario.loss,
        name: trace.name.clone(),
        seam_dq_rad: at_seams(&dq),
        seam_dqd_rad_s: at_seams(&second) / dt,
        seam_dqdd_rad_s2: at_seams(&third) / (dt * dt),
        jerk_max_rad_s3: jerk.iter().fold(0.0_f64, |most, jerk| most.max(jerk.abs())),
        jerk_rms_rad_s3: (jerk.iter().map(|jerk| jerk * jerk).sum::<f64>()
            / jerk.len().max(1) as f64)
            .sqrt(),
        bench: trace.bench.clone(),
        stalled_ms: trace.stalled_ticks as u64 * TICK_MS,
        skipped_at_start: trace.skipped_at_start,
        reaction_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_skips_and_without_loss_none_stalls() {
        for (index, scenario) in scenarios(7).iter().enumerate() {
            for rule in rules() {
                let trace = run(index, scenario, &rule).expect("good chunks");
                let found = measure(scenario, &trace);
                assert!(trace.seams.len() > 30, "{found:?}");
                assert_eq!(found.skipped_at_start, 0, "{found:?}");
                if scenario.loss == 0.0 && scenario.delay_ms <= 300 && scenario.jitter_ms == 0 {
                    assert_eq!(found.stalled_ms, 0, "{found:?}");
                }
                // A jump of 0.01 rad in one tick would be 80,000. Rules that mix leave the mean where the older chunk
                // ends, as published: that is a part of their plan, not of the seam.
                if matches!(rule.1, Merge::Replace | Merge::Blend { .. }) {
                    assert!(found.jerk_max_rad_s3 < 6_000.0, "{found:?}");
                }
            }
        }
    }

    #[test]
    fn a_jump_is_measured_as_one() {
        let scenario = scenarios(7).remove(0);
        let mut positions_rad = vec![Some(0.0); 100];
        positions_rad[50..].fill(Some(0.01));
        let trace = Trace {
            scenario: 0,
            name: "jump".into(),
            positions_rad,
            seams: vec![50],
            stalled_ticks: 0,
            skipped_at_start: 0,
            bench: None,
        };
        let found = measure(&scenario, &trace);
        assert!((found.seam_dq_rad - 0.01).abs() < 1e-12);
        assert!((found.seam_dqd_rad_s - 2.0).abs() < 1e-9);
        assert!((found.jerk_max_rad_s3 - 2.0 * 0.01 / 0.005_f64.powi(3)).abs() < 1.0);
    }
}
