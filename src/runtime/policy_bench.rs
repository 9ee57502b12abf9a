// SPDX-License-Identifier: Apache-2.0
//! `tendon policy bench`: how long a bundle takes here, stage by stage, what it allocates and copies, and, where it is asked
//! for, what the same graphs take under ONNX Runtime, or the same recorded runs on the GPU in a bare loop, in the same process, the two
//! taking turns.
//!
//! The observation is grey noise and a state of zeros: how long a graph takes depends on shapes, not on what is in them.

use crate::config::problem::Problem;
use crate::config::{EngineKind, PolicyConfig, Precision};
use crate::core::action::JointKind;
use crate::core::limits::CAMERAS_MAX;
use crate::core::observation::JointState;
use crate::engine::ort::{Library, OrtEngine, OrtOptions};
use crate::engine::tensorrt::{LoadFault, Platform};
use crate::policy::manifest::Unit;
use crate::policy::staged::bundle::is_staged;
use crate::policy::staged::{Observation, Staged};
use crate::policy::text::Instruction;
use crate::policy::{EngineLoader, LoadOptions, Policy};
use crate::ports::{Engine, Frame, StageSpec, Tensor};
use crate::runtime::best;
use crate::runtime::clock;
use crate::runtime::engines::{self, Wanted};
use crate::runtime::realtime::allocations_of_this_thread;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// 999 of 1000 are.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// One stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageTimes {
    /// Its name.
    pub id: String,
    /// Runs in one observation.
    pub runs_per_observation: u32,
    /// All its runs of one observation together, inside the engine's run call.
    #[serde(flatten)]
    pub times: Times,
    /// One run under ONNX Runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnxruntime_run: Option<Times>,
    /// Our p50 of one run divided by ONNX Runtime's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_onnxruntime: Option<f64>,
}

/// What the device did for an observation, done again by a loop that does nothing else, in turns with the policy.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct BareTimes {
    /// CUDA graphs launched for an observation.
    pub launches: usize,
    /// Launched and waited for.
    pub graph_replay: Times,
    /// The same, the observation's bytes given before and the answer's taken after: the bare loop.
    pub input_update_and_graph: Times,
    /// From observation to chunk beyond the bare loop, by p50.
    pub overhead_us: f64,
    /// What that may be: 2 % of the bare loop or 60 us, whichever is larger.
    pub overhead_budget_us: f64,
    /// Whether it keeps to it.
    pub within_budget: bool,
}

impl BareTimes {
    fn of(launches: usize, replay: Times, bare: Times, whole: &Times) -> BareTimes {
        let overhead_us = whole.p50_us - bare.p50_us;
        let overhead_budget_us = (0.02 * bare.p50_us).max(60.0);
        BareTimes {
            launches,
            graph_replay: replay,
            input_update_and_graph: bare,
            overhead_us,
            overhead_budget_us,
            within_budget: overhead_us <= overhead_budget_us,
        }
    }
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
    /// Which kind of engine ran.
    pub engine: &'static str,
    /// What it says about itself.
    pub remarks: Vec<String>,
    /// Compute threads of the engine.
    pub threads: usize,
    /// How long it was measured, seconds.
    pub seconds: f64,
    /// From observation to chunk.
    pub whole: Times,
    /// Its p50 in the first to the last quarter of the observations: what grows warm grows slow.
    pub quarters_p50_us: [f64; 4],
    /// The same without the engine's run calls.
    pub outside_engine: Times,
    /// What may be spent there: 3 % of the whole or 100 us, whichever is larger, by p50.
    pub outside_engine_budget_us: f64,
    /// Whether the p50 of what is spent there keeps to it.
    pub within_budget: bool,
    /// Beside a bare loop, if that was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bare_loop: Option<BareTimes>,
    /// Version of ONNX Runtime, if it was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<String>,
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
        p999_us: us(of.value_at_quantile(0.999)),
        max_us: us(of.max()),
    }
}

/// Observations between two turns of who is measured beside.
const TURN: usize = 20;

/// A bundle of either kind that is shown the same observation over and over.
enum Subject {
    One {
        policy: Box<Policy>,
        frame: Box<Frame>,
        state: Box<JointState>,
    },
    Staged {
        policy: Box<Staged>,
        pictures: Vec<Vec<u8>>,
        state: Vec<f32>,
    },
}

/// Grey noise.
fn noise(size: usize) -> impl Iterator<Item = u8> {
    (0..size).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
}

impl Subject {
    fn load(
        dir: &Path,
        precision: Precision,
        engine: &EngineLoader<'_>,
    ) -> Result<Subject, Vec<Problem>> {
        let options = LoadOptions {
            precision,
            ..LoadOptions::default()
        };
        let refused = |what: String| {
            Problem::one(
                dir.display().to_string(),
                "an answer to an observation of noise",
                what,
            )
        };
        if is_staged(dir) {
            let mut policy = Staged::load(dir, options, engine)?;
            let sentence = policy.some_sentence();
            policy
                .set_instruction(&sentence)
                .map_err(|fault| refused(fault.to_string()))?;
            let file = policy.file();
            let cameras = file.cameras.iter();
            return Ok(Subject::Staged {
                pictures: cameras
                    .map(|camera| noise(camera.source_size.iter().product::<usize>() * 3).collect())
                    .collect(),
                state: vec![0.0; file.state.as_ref().map_or(0, |state| state.names.len())],
                policy: Box::new(policy),
            });
        }
        let mut policy = Policy::load(dir, options, engine)?;
        let vector = policy.bundle().action.vector.clone();
        let joints: Vec<(&str, JointKind)> = vector
            .names
            .iter()
            .zip(&vector.units)
            .map(|(name, unit)| {
                let kind = match unit {
                    Unit::Rad => JointKind::Revolute,
                    Unit::M => JointKind::Prismatic,
                    Unit::Fraction => JointKind::Gripper,
                };
                (name.as_str(), kind)
            })
            .collect();
        policy.bind(&joints)?;
        // Any token will do: what a graph takes is a matter of shapes.
        let tokens = vec![0; policy.bundle().text.max_len];
        policy.take(&Instruction {
            tokens,
            ..Instruction::default()
        });
        let [width, height] = policy.bundle().image.source;
        let mut frame = Frame::black(width, height);
        frame.rgb = noise(width * height * 3).collect();
        let state = JointState {
            joints: joints.len(),
            ..JointState::NEVER
        };
        Ok(Subject::One {
            policy: Box::new(policy),
            frame: Box::new(frame),
            state: Box::new(state),
        })
    }

    /// One observation; what each stage took goes into `stages`, how often it ran into `runs`.
    fn show(&mut self, run: usize, stages: &mut [u64], runs: &mut [u32]) -> Result<(), String> {
        match self {
            Subject::One {
                policy,
                frame,
                state,
            } => {
                let answer = policy.infer(frame, state, &clock::now);
                let timing = answer.map_err(|fault| fault.to_string())?.timing;
                stages.fill(timing.engine_ns);
                runs.fill(1);
            }
            Subject::Staged {
                policy,
                pictures,
                state,
            } => {
                let mut shown: [Option<&[u8]>; CAMERAS_MAX] = [None; CAMERAS_MAX];
                for (slot, picture) in shown.iter_mut().zip(pictures.iter()) {
                    *slot = Some(picture);
                }
                let observation = Observation {
                    captured_ns: run as u64 * 100_000_000,
                    pictures: shown.get(..pictures.len()).unwrap_or_default(),
                    state,
                };
                let now = || clock::now().0;
                policy
                    .infer(&observation, None, Some(&now))
                    .map_err(|fault| fault.to_string())?;
                stages.copy_from_slice(policy.stage_ns());
                runs.copy_from_slice(policy.stage_runs());
            }
        }
        Ok(())
    }

    fn names(&self) -> (String, String) {
        match self {
            Subject::One { policy, .. } => (policy.bundle().name.clone(), "schema 1".to_owned()),
            Subject::Staged { policy, .. } => {
                (policy.name().to_owned(), policy.file().family.clone())
            }
        }
    }

    fn copied_bytes(&self) -> u64 {
        match self {
            Subject::One { .. } => 0,
            Subject::Staged { policy, .. } => policy.copied_bytes(),
        }
    }
}

/// The same stages under ONNX Runtime, on the processor, on tensors of their own.
struct Peer {
    library: Arc<Library>,
    stages: Vec<(OrtEngine, Vec<Tensor>, Vec<Tensor>)>,
}

impl Peer {
    fn load(
        library: Arc<Library>,
        files: &[(StageSpec, PathBuf)],
        threads: usize,
    ) -> Result<Peer, Vec<Problem>> {
        let options = OrtOptions {
            threads,
            providers: Vec::new(),
        };
        let load = |(spec, path): &(StageSpec, PathBuf)| {
            let engine = OrtEngine::load(&library, path, spec, &options).map_err(|fault| {
                Problem::one(
                    format!("stage \"{}\"", spec.id),
                    "a graph that ONNX Runtime loads",
                    fault.to_string(),
                )
            })?;
            let mut inputs: Vec<Tensor> = spec.inputs.iter().map(Tensor::zeros).collect();
            for tensor in &mut inputs {
                match tensor {
                    Tensor::F32(values) => {
                        for (value, byte) in values.iter_mut().zip(noise(usize::MAX)) {
                            *value = f32::from(byte) * 0.002 - 0.25;
                        }
                    }
                    Tensor::I32(values) => values.fill(1),
                }
            }
            let outputs = spec.outputs.iter().map(Tensor::zeros).collect();
            Ok((engine, inputs, outputs))
        };
        let stages = files
            .iter()
            .map(load)
            .collect::<Result<_, Vec<Problem>>>()?;
        Ok(Peer { library, stages })
    }

    /// Times of `count` runs of a stage, in nanoseconds.
    fn times(&mut self, stage: usize, count: u32, into: &mut Histogram<u64>) -> Result<(), String> {
        let Some((engine, inputs, outputs)) = self.stages.get_mut(stage) else {
            return Ok(());
        };
        for _ in 0..count {
            let began = clock::now();
            engine
                .run(inputs, outputs)
                .map_err(|fault| fault.to_string())?;
            into.saturating_record(clock::now().since_ns(began));
        }
        Ok(())
    }
}

/// A bare loop on the engines of the policy that is measured.
struct Beside {
    platform: Platform,
    launches: usize,
    replay: Histogram<u64>,
    bare: Histogram<u64>,
}

impl Beside {
    fn new(engine: EngineKind) -> Result<Beside, Vec<Problem>> {
        if engine != EngineKind::TensorRt {
            let expected = "the engine \"tensorrt\", whose runs are recorded";
            let found = format!("\"{}\"", engine.word());
            return Err(Problem::one("--bare-loop", expected, found));
        }
        let platform = engines::platform().map_err(|fault| vec![engines::no_platform(&fault)])?;
        Ok(Beside {
            platform,
            launches: 0,
            replay: histogram(),
            bare: histogram(),
        })
    }

    /// As many runs of the bare loop as the policy had observations, of the last of these.
    fn turn(&mut self) -> Result<(), String> {
        let words = |fault: LoadFault| fault.to_string();
        let mut heard = self.platform.heard().map_err(words)?;
        self.launches = heard.launches();
        for _ in 0..TURN {
            let began = clock::now();
            heard.run().map_err(words)?;
            let between = clock::now();
            heard.replay().map_err(words)?;
            self.bare.saturating_record(between.since_ns(began));
            let replay = clock::now().since_ns(between);
            self.replay.saturating_record(replay);
        }
        Ok(())
    }

    fn times(&self, whole: &Times) -> BareTimes {
        let (replay, bare) = (times(&self.replay), times(&self.bare));
        BareTimes::of(self.launches, replay, bare, whole)
    }
}

/// What is measured, and for how long.
#[derive(Clone, Debug)]
pub struct Job<'a> {
    /// The bundle.
    pub dir: &'a Path,
    /// Observations, at least.
    pub runs: usize,
    /// Seconds, at least.
    pub seconds: f64,
    /// Compute threads.
    pub threads: usize,
    /// Which kind of engine.
    pub engine: EngineKind,
    /// The deployment: whose plans TensorRT runs, which providers ONNX Runtime is asked for, who runs the engine "remote".
    pub config: Option<&'a PolicyConfig>,
    /// With TensorRT: beside a bare loop on the same engines.
    pub bare_loop: bool,
}

/// An engine as the deployment has it, but for its threads; without a deployment, as one that says nothing has it.
fn as_configured(engine: EngineKind, threads: usize, config: Option<&PolicyConfig>) -> Wanted<'_> {
    let providers = config.map_or_else(
        || OrtOptions::default().providers,
        |config| config.ort_providers.clone(),
    );
    Wanted {
        engine,
        threads,
        providers,
        config,
    }
}

/// Loads the bundle and runs it; with ONNX Runtime's library, in turns with that.
///
/// # Errors
/// Every [`Problem`] of the bundle, or what the policy or ONNX Runtime refused.
pub fn measure(job: &Job<'_>, onnxruntime: Option<Arc<Library>>) -> Result<Report, Vec<Problem>> {
    let Job {
        dir,
        runs,
        seconds,
        threads,
        engine,
        config,
        bare_loop,
    } = *job;
    let config = config
        .map(|config| best::resolved(config, engine, dir))
        .transpose()?;
    let config = config.as_deref();
    let precision = config.map_or(Precision::Fp32, |config| config.precision);
    let files = engines::stages(dir, precision)?;
    let wanted = as_configured(engine, threads, config);
    let mut bare = bare_loop.then(|| Beside::new(engine)).transpose()?;
    let load = |loader: &EngineLoader<'_>| Subject::load(dir, precision, loader);
    let (mut subject, mut remarks) = match &bare {
        Some(bare) => wanted.on(&bare.platform, load)?,
        None => wanted.with(load)?,
    };
    if let Subject::Staged { policy, .. } = &subject {
        remarks.extend(policy.on_device());
    }
    let mut peer = onnxruntime
        .map(|library| Peer::load(library, &files, threads))
        .transpose()?;
    let refused = |what: String| {
        Problem::one(
            dir.display().to_string(),
            "an answer to an observation of noise",
            what,
        )
    };
    let (mut whole, mut outside) = (histogram(), histogram());
    let mut stages = vec![histogram(); files.len()];
    let mut theirs = vec![histogram(); files.len()];
    let (mut spent, mut counts) = (vec![0; files.len()], vec![0; files.len()]);
    let mut allocations = 0;
    let mut all: Vec<u64> = Vec::with_capacity(runs.max(1));
    // A bare loop is of one whole turn at least.
    let runs = if bare_loop {
        runs.max(TURN)
    } else {
        runs.max(1)
    };
    let started = clock::now();
    let long_ns = (seconds.max(0.0) * 1e9) as u64;
    for run in 0.. {
        if run >= WARM_UP + runs && clock::now().since_ns(started) >= long_ns {
            break;
        }
        let turn_ends = run >= WARM_UP && (run + 1 - WARM_UP).is_multiple_of(TURN);
        if let Some(bare) = bare.as_ref().filter(|_| turn_ends) {
            bare.platform.listen();
        }
        let allocated = allocations_of_this_thread();
        let began = clock::now();
        subject
            .show(run, &mut spent, &mut counts)
            .map_err(refused)?;
        let took = clock::now().since_ns(began);
        // Who listens allocates.
        if !(bare_loop && turn_ends) {
            allocations = allocations_of_this_thread() - allocated;
        }
        if run < WARM_UP {
            continue;
        }
        whole.saturating_record(took);
        all.push(took);
        outside.saturating_record(took.saturating_sub(spent.iter().sum()));
        for (stage, ns) in stages.iter_mut().zip(&spent) {
            stage.saturating_record(*ns);
        }
        if let Some(bare) = bare.as_mut().filter(|_| turn_ends) {
            bare.turn().map_err(refused)?;
        }
        if let Some(peer) = peer.as_mut().filter(|_| turn_ends) {
            for (stage, (of, count)) in theirs.iter_mut().zip(&counts).enumerate() {
                peer.times(stage, (*count).max(1) * TURN as u32, of)
                    .map_err(refused)?;
            }
        }
    }
    let (policy, family) = subject.names();
    let seconds = clock::now().since_ns(started) as f64 * 1e-9;
    let (whole, outside_engine) = (times(&whole), times(&outside));
    let quarter = |at: usize| {
        let part = all.get(at * all.len() / 4..(at + 1) * all.len() / 4);
        let mut part = part.unwrap_or_default().to_vec();
        part.sort_unstable();
        part.get(part.len() / 2).map_or(0.0, |ns| *ns as f64 / 1e3)
    };
    let budget_us = (0.03 * whole.p50_us).max(100.0);
    let ran = files.iter().zip(&stages).zip(&theirs).zip(&counts);
    let ran = ran.filter(|(((_, ours), _), _)| ours.max() > 0);
    let bare_loop = bare.map(|bare| bare.times(&whole));
    Ok(Report {
        policy,
        family,
        runs: all.len(),
        engine: engine.word(),
        remarks,
        threads,
        seconds,
        whole,
        quarters_p50_us: [0, 1, 2, 3].map(quarter),
        outside_engine_budget_us: budget_us,
        within_budget: outside_engine.p50_us <= budget_us,
        bare_loop,
        outside_engine,
        onnxruntime: peer.map(|peer| peer.library.version.clone()),
        stages: ran
            .map(|((((spec, _), ours), theirs), runs)| {
                let (ours, runs) = (times(ours), (*runs).max(1));
                let theirs = (!theirs.is_empty()).then(|| times(theirs));
                StageTimes {
                    id: spec.id.clone(),
                    runs_per_observation: runs,
                    of_onnxruntime: theirs
                        .map(|theirs| ours.p50_us / f64::from(runs) / theirs.p50_us),
                    times: ours,
                    onnxruntime_run: theirs,
                }
            })
            .collect(),
        allocations_per_run: allocations,
        copied_bytes_per_run: subject.copied_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OrtProvider;
    use crate::runtime::demo;

    fn of_p50(p50_us: f64) -> Times {
        Times {
            p50_us,
            ..Times::default()
        }
    }

    #[test]
    fn beyond_the_bare_loop_may_be_two_in_a_hundred_or_sixty_microseconds() {
        for (bare_us, whole_us, budget_us, within) in [
            (1_000.0, 1_060.0, 60.0, true),
            (1_000.0, 1_060.5, 60.0, false),
            (3_000.0, 3_060.0, 60.0, true),
            (10_000.0, 10_200.0, 200.0, true),
            (10_000.0, 10_201.0, 200.0, false),
            // Whoever is faster than bare was measured with too few turns, and is within.
            (1_000.0, 990.0, 60.0, true),
        ] {
            let bare = of_p50(bare_us);
            let found = BareTimes::of(1, Times::default(), bare, &of_p50(whole_us));
            assert_eq!(found.overhead_us, whole_us - bare_us);
            assert_eq!(found.overhead_budget_us, budget_us, "{bare_us}");
            assert_eq!(found.within_budget, within, "{bare_us} {whole_us}");
        }
    }

    #[test]
    fn onnx_runtime_is_asked_for_what_the_deployment_says() {
        let config = demo::bench_config("engines/bench-vla".as_ref(), false);
        let mut config = config.expect("the bench").policy;
        for providers in [vec![], vec![OrtProvider::TensorRt, OrtProvider::Cuda]] {
            config.ort_providers.clone_from(&providers);
            let wanted = as_configured(EngineKind::Ort, 2, Some(&config));
            assert_eq!((wanted.providers, wanted.threads), (providers, 2));
        }
        let alone = as_configured(EngineKind::Ort, 1, None);
        assert_eq!(alone.providers, [OrtProvider::Cuda]);
    }
}
