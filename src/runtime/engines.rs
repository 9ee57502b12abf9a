// SPDX-License-Identifier: Apache-2.0
//! The ladder of engines that tendon.toml declares: each is tried with the whole bundle, its fixture included; the first
//! that loads runs, and what spoke against those before it is kept in words. None that loads: refused.
//!
//! Also making and looking into plans for TensorRT (`tendon engine`), which needs what loading needs.

use crate::config::problem::Problem;
use crate::config::{Config, EngineKind, OrtProvider, PolicyConfig, Precision};
use crate::core::units::Mono;
use crate::engine::cpu::{CpuEngine, CpuOptions};
use crate::engine::ort::{Library, OrtEngine, OrtOptions};
use crate::engine::tensorrt::build::{BuildFault, Built, Job, Progress};
use crate::engine::tensorrt::plan::{self, Label};
use crate::engine::tensorrt::room;
use crate::engine::tensorrt::{LoadFault, Platform, Settings, TensorRt, Trial};
use crate::policy::bundle::Bundle;
use crate::policy::manifest::OnnxFile;
use crate::policy::pilot::Pilot;
use crate::policy::staged::bundle::{Opened, is_staged};
use crate::policy::{EngineLoader, LoadOptions, ParityMiss};
use crate::ports::{Engine, EngineFault, StageSpec};
use crate::runtime::best::{self, Tried};
use crate::runtime::clock;
use crate::runtime::remote::{self, RemoteEngine};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Which engine runs, and why not those that were wanted more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// What runs.
    pub engine: EngineKind,
    /// What was tried before, and what spoke against it.
    pub passed: Vec<(EngineKind, String)>,
    /// What the one that runs has to say about itself: which of ONNX Runtime's providers take part, and why others do not; what
    /// stays on a device.
    pub remarks: Vec<String>,
}

impl Chosen {
    /// One line: what runs, and why not the others.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = self.engine.word().to_owned();
        if !self.remarks.is_empty() {
            words.push_str(&format!(" ({})", self.remarks.join("; ")));
        }
        for (kind, why) in &self.passed {
            words.push_str(&format!("; not {}: {why}", kind.word()));
        }
        words
    }
}

/// Loads the policy with the first engine of the ladder that takes it. What becomes of a policy that misses its fixture is
/// no matter of configuration: it is asked for anew at each start.
///
/// # Errors
/// Every [`Problem`] of the last rung, and one for each rung before it.
pub fn load(
    config: &PolicyConfig,
    parity_miss: ParityMiss,
) -> Result<(Pilot, Chosen), Vec<Problem>> {
    let mut passed: Vec<(EngineKind, Vec<Problem>)> = Vec::new();
    for engine in &config.engines {
        match try_rung(config, *engine, parity_miss) {
            Ok((policy, remarks)) => {
                let passed = passed
                    .into_iter()
                    .map(|(kind, problems)| (kind, in_one_line(&problems)))
                    .collect();
                return Ok((
                    policy,
                    Chosen {
                        engine: *engine,
                        passed,
                        remarks,
                    },
                ));
            }
            Err(problems) => passed.push((*engine, problems)),
        }
    }
    let mut all: Vec<Problem> = Vec::new();
    let several = passed.len() > 1;
    for (kind, problems) in passed {
        for mut problem in problems {
            // What is wrong with the bundle is wrong for each engine, and said once.
            if all
                .iter()
                .any(|known| known.expected == problem.expected && known.found == problem.found)
            {
                continue;
            }
            if several {
                problem.at = format!("policy.engines \"{}\": {}", kind.word(), problem.at);
            }
            all.push(problem);
        }
    }
    Err(all)
}

fn in_one_line(problems: &[Problem]) -> String {
    let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
    words.join("; ")
}

/// Makes CPU engines that compute on `threads` threads.
pub fn cpu_engine(
    threads: usize,
) -> impl Fn(&Path, &StageSpec) -> Result<Box<dyn Engine>, EngineFault> {
    move |path, spec| {
        let options = CpuOptions {
            threads,
            ..CpuOptions::default()
        };
        CpuEngine::load(path, spec, options).map(|engine| Box::new(engine) as Box<dyn Engine>)
    }
}

/// Lets `load` load something with engines of one kind as it is without a deployment: one thread, on the processor.
///
/// # Errors
/// What `load` says, or that there is no such engine here.
pub fn alone<T>(
    engine: EngineKind,
    load: impl FnOnce(&EngineLoader<'_>) -> Result<T, Vec<Problem>>,
) -> Result<T, Vec<Problem>> {
    let wanted = Wanted {
        engine,
        threads: 1,
        providers: Vec::new(),
        config: None,
    };
    wanted.with(load).map(|(made, _)| made)
}

/// Makes engines of ONNX Runtime. What each says about its providers goes into `remarks`, once.
fn ort_engine<'a>(
    library: &'a Arc<Library>,
    options: &'a OrtOptions,
    remarks: &'a RefCell<Vec<String>>,
) -> impl Fn(&Path, &StageSpec) -> Result<Box<dyn Engine>, EngineFault> + 'a {
    move |path, spec| {
        let engine = OrtEngine::load(library, path, spec, options)?;
        let granted = engine.granted().iter().map(|provider| provider.word());
        let took: Vec<&str> = granted.chain(["the processor"]).collect();
        let mut words = vec![format!("{library:?} on {}", took.join(", "))];
        let refused = engine.refused().iter();
        words.extend(refused.map(|(provider, why)| format!("not on {}: {why}", provider.word())));
        words.extend(engine.remarks().iter().cloned());
        let mut remarks = remarks.borrow_mut();
        for word in words {
            if !remarks.contains(&word) {
                remarks.push(word);
            }
        }
        Ok(Box::new(engine))
    }
}

/// Opens ONNX Runtime, for what asks for it by name: the library that `named` names, or the first that is found.
///
/// # Errors
/// One [`Problem`] that says where it was looked for and what to install.
pub fn onnxruntime(named: Option<&Path>) -> Result<Arc<Library>, Vec<Problem>> {
    let from = std::env::var_os(crate::engine::ort::find::VARIABLE).map(PathBuf::from);
    let from = from.filter(|path| !path.as_os_str().is_empty());
    Library::open(named.or(from.as_deref())).map_err(|fault| {
        Problem::one(
            "this machine",
            "ONNX Runtime 1.17 or later",
            fault.to_string(),
        )
    })
}

fn try_rung(
    config: &PolicyConfig,
    engine: EngineKind,
    parity_miss: ParityMiss,
) -> Result<(Pilot, Vec<String>), Vec<Problem>> {
    let resolved = best::resolved(config, engine, &config.bundle)?;
    let wanted = Wanted::of(&resolved, engine);
    let options = LoadOptions {
        precision: resolved.precision,
        parity_miss,
    };
    let (policy, mut remarks) =
        wanted.with(|loader| Pilot::load(&config.bundle, options, loader))?;
    remarks.extend(policy.on_device());
    if config.best {
        remarks.push(format!("precision {}", resolved.precision.word()));
    }
    Ok((policy, remarks))
}

/// One kind of engine, and what it is told.
pub(crate) struct Wanted<'a> {
    pub(crate) engine: EngineKind,
    /// Of the processor.
    pub(crate) threads: usize,
    /// Of ONNX Runtime.
    pub(crate) providers: Vec<OrtProvider>,
    /// Where TensorRT's plans are and who serves; without, there is neither.
    pub(crate) config: Option<&'a PolicyConfig>,
}

impl<'a> Wanted<'a> {
    /// As a deployment has it.
    pub(crate) fn of(config: &'a PolicyConfig, engine: EngineKind) -> Wanted<'a> {
        Wanted {
            engine,
            threads: config.threads,
            providers: config.ort_providers.clone(),
            config: Some(config),
        }
    }

    /// Lets `load` load a policy with engines of this kind; with it, what they have to say about themselves.
    pub(crate) fn with<T>(
        &self,
        load: impl FnOnce(&EngineLoader<'_>) -> Result<T, Vec<Problem>>,
    ) -> Result<(T, Vec<String>), Vec<Problem>> {
        match self.engine {
            EngineKind::Cpu => load(&cpu_engine(self.threads)).map(|made| (made, Vec::new())),
            EngineKind::Ort => {
                let library = onnxruntime(None)?;
                let options = OrtOptions {
                    threads: self.threads,
                    providers: self.providers.clone(),
                };
                let remarks = RefCell::new(Vec::new());
                let made = load(&ort_engine(&library, &options, &remarks))?;
                Ok((made, remarks.into_inner()))
            }
            EngineKind::TensorRt => {
                self.plans()?;
                let platform = platform().map_err(|fault| vec![no_platform(&fault)])?;
                self.on(&platform, load)
            }
            EngineKind::Remote => {
                let remote = self.config.and_then(|config| config.remote.as_ref());
                let remote = remote.ok_or_else(|| {
                    let expected = "a tendon.toml, which says where it is (policy.remote)";
                    Problem::one("engine \"remote\"", expected, "none")
                })?;
                let session = remote::open(remote).map_err(|fault| {
                    let expected = "a way to the machine that serves";
                    Problem::one("policy.remote", expected, fault.to_string())
                })?;
                let remarks = RefCell::new(Vec::new());
                let made = load(&|path, spec| {
                    let (engine, words) = RemoteEngine::load(&session, remote, path, spec)?;
                    remarks.borrow_mut().push(words);
                    Ok(Box::new(engine))
                })?;
                Ok((made, remarks.into_inner()))
            }
        }
    }

    /// Who says where TensorRT's plans are kept.
    fn plans(&self) -> Result<&'a PolicyConfig, Vec<Problem>> {
        self.config.ok_or_else(|| {
            let expected = "a tendon.toml, which says where plans are kept";
            Problem::one("engine \"tensorrt\"", expected, "none")
        })
    }

    /// The same with TensorRT on a platform that was found.
    pub(crate) fn on<T>(
        &self,
        platform: &Platform,
        load: impl FnOnce(&EngineLoader<'_>) -> Result<T, Vec<Problem>>,
    ) -> Result<(T, Vec<String>), Vec<Problem>> {
        let config = self.plans()?;
        let remarks = Remarks::default();
        let made = load(&|path, spec| load_plan(platform, config, path, spec, &remarks))?;
        let said = std::mem::take(&mut *remarks.lock().unwrap_or_else(PoisonError::into_inner));
        Ok((made, said))
    }
}

/// Driver, device and TensorRT of this machine.
pub(crate) fn platform() -> Result<Platform, LoadFault> {
    Platform::find(&Settings::from_environment())
}

pub(crate) fn no_platform(fault: &LoadFault) -> Problem {
    Problem {
        at: "this machine".into(),
        expected: "a CUDA driver, a device and TensorRT".into(),
        found: fault.to_string(),
    }
}

/// What engines say about themselves while they are loaded and settle: they hold an end of it.
type Remarks = Arc<Mutex<Vec<String>>>;

fn load_plan(
    platform: &Platform,
    config: &PolicyConfig,
    onnx: &Path,
    spec: &StageSpec,
    remarks: &Remarks,
) -> Result<Box<dyn Engine>, EngineFault> {
    let fault = |words: &dyn std::fmt::Display| EngineFault(words.to_string());
    let wanted = job(platform, config, spec, onnx)
        .wanted()
        .map_err(|error| fault(&error))?;
    let plan = wanted.read(&cache(config)).map_err(|error| fault(&error))?;
    let mut engine = TensorRt::load(platform, plan, spec).map_err(|error| fault(&error))?;
    warn(&engine, &spec.id);
    let (stage, remarks) = (spec.id.clone(), Arc::clone(remarks));
    engine.choose_at_last(&platform.device, clock::now, move |engine, trial| {
        let words = settled(engine, &stage, trial);
        let mut remarks = remarks.lock().unwrap_or_else(PoisonError::into_inner);
        remarks.push(words);
    });
    Ok(Box::new(engine))
}

/// Tells how a stage runs from now on; what the trial found, in words.
fn settled(engine: &TensorRt, stage: &str, trial: Option<&Trial>) -> String {
    let words = match trial {
        Some(trial) => format!("stage \"{stage}\": {trial}"),
        None => format!("stage \"{stage}\": memory copied: the device has its own"),
    };
    log::info!("{words}");
    if let Some(why) = engine.plain() {
        log::warn!("stage \"{stage}\" runs without a CUDA graph: {why}");
    }
    warn(engine, stage);
    words
}

/// Tells what TensorRT warned of, and what it recorded as an error, though it did what it was asked. A recorded run does not ask it, so
/// nothing more comes while the robot moves; of a run that could not be recorded, errors are told with the first that fails.
fn warn(engine: &TensorRt, stage: &str) {
    for words in engine.remarks() {
        log::warn!("stage \"{stage}\": TensorRT: {words}");
    }
}

/// Where plans are kept: as configured, or in the service's or the user's cache.
#[must_use]
pub fn cache(config: &PolicyConfig) -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    config
        .engine_cache
        .clone()
        .or_else(|| from("CACHE_DIRECTORY").map(|folder| PathBuf::from(folder).join("engines")))
        .or_else(|| {
            from("XDG_CACHE_HOME").map(|folder| PathBuf::from(folder).join("tendon/engines"))
        })
        .or_else(|| from("HOME").map(|folder| PathBuf::from(folder).join(".cache/tendon/engines")))
        .unwrap_or_else(|| PathBuf::from("engines"))
}

fn job(platform: &Platform, config: &PolicyConfig, spec: &StageSpec, onnx: &Path) -> Job {
    Job {
        stage: spec.id.clone(),
        onnx: onnx.to_owned(),
        inputs: spec.inputs.clone(),
        cache: cache(config),
        target: platform.identity(),
        trtexec: None,
        flags: config.trtexec_flags.clone(),
        memory_max_bytes: None,
        shared_memory: platform.device.integrated,
        meminfo: room::MEMINFO.into(),
        time_max_s: f64::INFINITY,
    }
}

/// Bounds of building.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// `trtexec`; absent: looked for.
    pub trtexec: Option<PathBuf>,
    /// The builder may not take more memory, bytes.
    pub memory_max_bytes: Option<u64>,
    /// Nor longer, seconds.
    pub time_max_s: f64,
}

/// No plan was made, or it is not to be used.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// This machine.
    #[error(transparent)]
    Machine(#[from] LoadFault),
    /// The builder.
    #[error(transparent)]
    Build(#[from] BuildFault),
    /// The bundle, or a plan that misses its fixture.
    #[error("{}", in_lines(.0))]
    Problems(Vec<Problem>),
}

fn in_lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Each stage of a bundle of either kind, with the file of the graph that the configuration asks for, or of the nearest to it.
pub(crate) fn stages(
    dir: &Path,
    precision: Precision,
) -> Result<Vec<(StageSpec, PathBuf)>, Vec<Problem>> {
    let all = choices(dir, precision)?.into_iter();
    let nearest = all.filter_map(|(spec, paths)| Some((spec, paths.into_iter().next()?)));
    Ok(nearest.collect())
}

/// The same with all that may stand for it, as [`OnnxFile::nearest`] has them.
pub(crate) fn choices(
    dir: &Path,
    precision: Precision,
) -> Result<Vec<(StageSpec, Vec<PathBuf>)>, Vec<Problem>> {
    let at = |index: usize| format!("manifest.json: tendon.stages[{index}].onnx");
    if is_staged(dir) {
        let opened = Opened::open(dir)?;
        let stages = opened.plan.stages.iter().zip(&opened.file.stages);
        let located = stages.enumerate().map(|(index, (planned, stage))| {
            let nearest = stage.onnx.nearest(precision).into_iter();
            let paths = nearest.map(|(_, name)| opened.folder.locate_graph(&at(index), name));
            let paths = paths.collect::<Result<Vec<PathBuf>, Problem>>()?;
            Ok((planned.spec.clone(), paths))
        });
        return located
            .collect::<Result<_, Problem>>()
            .map_err(|problem| vec![problem]);
    }
    let bundle = Bundle::open(dir)?;
    let stage = &bundle.stage;
    let path = match stage.onnx.of(precision) {
        Some(name) => bundle.folder().locate_graph(&at(0), name),
        None => Err(Problem {
            at: at(0),
            expected: "a graph of the precision that tendon.toml asks for".into(),
            found: "none".into(),
        }),
    };
    path.map(|path| vec![(stage.spec.clone(), vec![path])])
        .map_err(|problem| vec![problem])
}

/// The graphs of each stage of a bundle of either kind.
pub(crate) fn graphs(dir: &Path) -> Result<Vec<OnnxFile>, Vec<Problem>> {
    if is_staged(dir) {
        let stages = Opened::open(dir)?.file.stages;
        return Ok(stages.into_iter().map(|stage| stage.onnx).collect());
    }
    Ok(vec![Bundle::open(dir)?.stage.onnx])
}

/// Builds the plans of a deployment's policy for this machine, one a stage, unless they are there, and proves them: loaded,
/// bound to the bundle's tensors, run on the bundle's fixture. With the best precision asked for, those of all that the bundle has, and
/// what was found of each, the chosen one first.
///
/// # Errors
/// [`EngineError`].
pub fn build(
    config: &PolicyConfig,
    bounds: &Bounds,
    tell: &mut dyn FnMut(Progress),
) -> Result<(Vec<Built>, Vec<Tried>), EngineError> {
    match config.best {
        true => best::build(config, bounds, tell),
        false => build_one(config, bounds, tell).map(|built| (built, Vec::new())),
    }
}

/// The same of one precision.
pub(crate) fn build_one(
    config: &PolicyConfig,
    bounds: &Bounds,
    tell: &mut dyn FnMut(Progress),
) -> Result<Vec<Built>, EngineError> {
    let stages = stages(&config.bundle, config.precision).map_err(EngineError::Problems)?;
    let platform = platform()?;
    let now: fn() -> Mono = clock::now;
    let mut all = Vec::new();
    for (spec, onnx) in stages {
        let job = Job {
            trtexec: bounds.trtexec.clone(),
            memory_max_bytes: bounds.memory_max_bytes,
            time_max_s: bounds.time_max_s,
            ..job(&platform, config, &spec, &onnx)
        };
        all.push(job.run(now, tell)?);
    }
    let options = LoadOptions {
        precision: config.precision,
        parity_miss: ParityMiss::Refuse,
    };
    Wanted::of(config, EngineKind::TensorRt)
        .on(&platform, |loader| {
            Pilot::load(&config.bundle, options, loader)
        })
        .map_err(EngineError::Problems)?;
    Ok(all)
}

/// A plan that lies in the cache.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Its path.
    pub path: PathBuf,
    /// What its label says, or why it says nothing.
    pub label: Result<Label, String>,
}

/// The plans in a cache.
#[must_use]
pub fn kept(cache: &Path) -> Vec<Kept> {
    let entries = std::fs::read_dir(cache).into_iter().flatten().flatten();
    let mut plans: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "plan")
        })
        .collect();
    plans.sort();
    plans
        .into_iter()
        .map(|path| Kept {
            label: plan::read_label(&path).map_err(|fault| fault.to_string()),
            path,
        })
        .collect()
}

/// What TensorRT says about the layers of this deployment's plans, one a stage, and what each takes, memory and time; needs the GPU.
///
/// # Errors
/// [`EngineError`].
pub fn layers(config: &Config) -> Result<Vec<(String, Vec<String>)>, EngineError> {
    let config = &config.policy;
    let resolved = best::resolved(config, EngineKind::TensorRt, &config.bundle)
        .map_err(EngineError::Problems)?;
    let stages = stages(&config.bundle, resolved.precision).map_err(EngineError::Problems)?;
    let platform = platform()?;
    let mut all = Vec::new();
    for (spec, onnx) in &stages {
        let wanted = job(&platform, config, spec, onnx).wanted()?;
        let plan = wanted.read(&cache(config)).map_err(|fault| {
            EngineError::Problems(vec![Problem {
                at: "policy.engine_cache".into(),
                expected: format!("a plan of stage \"{}\" for this machine", spec.id),
                found: fault.to_string(),
            }])
        })?;
        let mut engine = TensorRt::load(&platform, plan, spec)?;
        warn(&engine, &spec.id);
        let described = engine.session().inspect().unwrap_or_default();
        let bytes = engine.session().device_memory();
        let takes = format!(
            "stage \"{}\": its context takes {:.1} MiB of the device's memory",
            spec.id,
            bytes as f64 / f64::from(1 << 20)
        );
        let times = engine.profile()?.into_iter();
        all.push((described, std::iter::once(takes).chain(times).collect()));
    }
    Ok(all)
}
