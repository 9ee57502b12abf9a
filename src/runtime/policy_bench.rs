// SPDX-License-Identifier: Apache-2.0
//! `tendon policy bench`: how long a staged bundle takes here, stage by stage, and what it allocates and copies.
//!
//! The observation is grey noise and a state of zeros: how long a graph takes depends on shapes, not on what is in them.

use crate::config::problem::Problem;
use crate::policy::LoadOptions;
use crate::policy::staged::{Observation, Staged};
use crate::runtime::clock;
use crate::runtime::engines::cpu_engine;
use crate::runtime::realtime::allocations_of_this_thread;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::path::Path;

/// Runs before anything counts.
const WARM_UP: usize = 5;

/// A longer run counts as one of a minute.
const LONGEST_NS: u64 = 60_000_000_000;

/// Of one thing's times, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Times {
    /// Half are shorter.
    pub p50_us: f64,
    /// 95 of 100 are.
    pub p95_us: f64,
    /// 99 of 100 are.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageTimes {
    /// Its name.
    pub id: String,
    /// All its runs of one observation together, inside the engine's run call.
    #[serde(flatten)]
    pub times: Times,
}

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The bundle.
    pub policy: String,
    /// Its family.
    pub family: String,
    /// Observations.
    pub runs: usize,
    /// Compute threads of the engine.
    pub threads: usize,
    /// From observation to chunk.
    pub whole: Times,
    /// The same without the engine's run calls.
    pub outside_engine: Times,
    /// Each stage that ran; what runs once an instruction did so before.
    pub stages: Vec<StageTimes>,
    /// Allocations of one observation on this thread, most of them the engine's.
    pub allocations_per_run: u64,
    /// Bytes copied from stage to stage in one observation.
    pub copied_bytes_per_run: u64,
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_NS, 3).expect("bounds that it offers")
}

fn times(of: &Histogram<u64>) -> Times {
    let us = |ns: u64| ns as f64 / 1e3;
    Times {
        p50_us: us(of.value_at_quantile(0.5)),
        p95_us: us(of.value_at_quantile(0.95)),
        p99_us: us(of.value_at_quantile(0.99)),
        max_us: us(of.max()),
    }
}

/// Loads the bundle in `dir` and runs it `runs` times.
///
/// # Errors
/// Every [`Problem`] of the bundle, or what the policy refused.
pub fn measure(dir: &Path, runs: usize, threads: usize) -> Result<Report, Vec<Problem>> {
    let mut policy = Staged::load(dir, LoadOptions::default(), &cpu_engine(threads))?;
    let refused = |what: String| {
        vec![Problem {
            at: dir.display().to_string(),
            expected: "an answer to an observation of noise".into(),
            found: what,
        }]
    };
    let sentence = policy.some_sentence();
    policy
        .set_instruction(&sentence)
        .map_err(|fault| refused(fault.to_string()))?;
    let noise = |size: usize| -> Vec<u8> {
        (0..size)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect()
    };
    let buffers: Vec<Vec<u8>> = policy
        .file()
        .cameras
        .iter()
        .map(|camera| noise(camera.source_size.iter().product::<usize>() * 3))
        .collect();
    let pictures: Vec<Option<&[u8]>> = buffers
        .iter()
        .map(|picture| Some(picture.as_slice()))
        .collect();
    let state = vec![
        0.0;
        policy
            .file()
            .state
            .as_ref()
            .map_or(0, |state| state.names.len())
    ];
    let now = || clock::now().0;
    let (mut whole, mut outside) = (histogram(), histogram());
    let mut stages = vec![histogram(); policy.file().stages.len()];
    let mut allocations = 0;
    for run in 0..WARM_UP + runs.max(1) {
        let observation = Observation {
            captured_ns: run as u64 * 100_000_000,
            pictures: &pictures,
            state: &state,
        };
        let allocated = allocations_of_this_thread();
        let began = now();
        policy
            .infer(&observation, None, Some(&now))
            .map_err(|fault| refused(fault.to_string()))?;
        let took = now().saturating_sub(began);
        allocations = allocations_of_this_thread() - allocated;
        if run < WARM_UP {
            continue;
        }
        whole.saturating_record(took);
        outside.saturating_record(took.saturating_sub(policy.stage_ns().iter().sum()));
        for (stage, ns) in stages.iter_mut().zip(policy.stage_ns()) {
            stage.saturating_record(*ns);
        }
    }
    let ran = policy.file().stages.iter().zip(&stages);
    Ok(Report {
        policy: policy.name().to_owned(),
        family: policy.file().family.clone(),
        runs: runs.max(1),
        threads,
        whole: times(&whole),
        outside_engine: times(&outside),
        stages: ran
            .filter(|(_, stage)| stage.max() > 0)
            .map(|(file, stage)| StageTimes {
                id: file.id.clone(),
                times: times(stage),
            })
            .collect(),
        allocations_per_run: allocations,
        copied_bytes_per_run: policy.copied_bytes(),
    })
}
