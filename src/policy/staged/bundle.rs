// SPDX-License-Identifier: Apache-2.0
//! Opens a folder, checks it, loads its engines and proves it with its fixture.
//!
//! Nothing is loaded before every hash held and every reference was found; then all that can fail is tried, so that one
//! look finds every fault.

use crate::config::Precision;
use crate::config::problem::Problem;
use crate::policy::decode::diffusion::Diffusion;
use crate::policy::decode::post::Steps;
use crate::policy::folder::{Folder, Hash, SIDE_FILE_BYTES_MAX, hash};
use crate::policy::manifest::{PackageFile, at, section};
use crate::policy::parity::{COSINE_MIN, ERROR_FRACTION_MAX, Parity};
use crate::policy::picture::Feed;
use crate::policy::picture::history::History;
use crate::policy::prompt::Prompt;
use crate::policy::staged::decoder::Decoder;
use crate::policy::staged::feed::Eye;
use crate::policy::staged::fixture::{self, Rehearsed};
use crate::policy::staged::judge::Judge;
use crate::policy::staged::manifest::{LoopFile, SCHEMA, StagedFile, TableFile, TextFile};
use crate::policy::staged::onward::Onward;
use crate::policy::staged::plan::{Place, Plan, Source, output_of};
use crate::policy::staged::run::Run;
use crate::policy::staged::spread::{Spread, check_attention};
use crate::policy::staged::turns::Turns;
use crate::policy::staged::words::{Speech, Words};
use crate::policy::staged::{Staged, stats};
use crate::policy::tensors::TensorFile;
use crate::policy::{EngineLoader, LoadOptions, ParityMiss};
use crate::ports::{Engine, EngineFault, StageSpec, Tensor, TensorSpec};
use rand_core::SeedableRng;
use rand_pcg::Pcg64Mcg;
use safetensors::tensor::{Dtype, SafeTensorError, TensorView};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A folder with a manifest of schema 2 whose files have the promised hashes; engines and numbers are not looked at yet.
#[derive(Debug)]
pub struct Opened {
    /// Name for people.
    pub name: String,
    /// The manifest.
    pub file: StagedFile,
    /// What runs when.
    pub plan: Plan,
    /// Every hashed file with its size in bytes.
    pub files: Vec<(String, u64)>,
    /// SHA-256 of the manifest.
    pub hash: Hash,
    pub(crate) folder: Folder,
    pub(crate) feeds: Vec<Feed>,
}

/// Whether a folder's manifest is of schema 2. False for anything that cannot be read: the reader of schema 1 then says
/// what is wrong with it.
#[must_use]
pub fn is_staged(path: &Path) -> bool {
    let bytes = Folder::open(path).and_then(|folder| folder.read_manifest());
    bytes
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .and_then(|root| root.get("tendon")?.get("schema")?.as_u64())
        == Some(u64::from(SCHEMA))
}

/// Reads the manifest's bytes.
///
/// # Errors
/// Every [`Problem`] found, with its JSON path.
pub fn read(bytes: &[u8]) -> Result<(PackageFile, StagedFile), Vec<Problem>> {
    let root: Value = serde_json::from_slice(bytes).map_err(|error| {
        vec![Problem {
            at: format!("manifest.json:{}:{}", error.line(), error.column()),
            expected: "JSON in UTF-8".into(),
            found: error.to_string(),
        }]
    })?;
    let mut problems = Vec::new();
    let package: Option<PackageFile> = section(&root, "", &mut problems);
    let ours: Option<StagedFile> = match root.get("tendon") {
        Some(ours) => section(ours, "tendon", &mut problems),
        None => {
            problems.push(Problem {
                at: at("tendon"),
                expected: "an object (a bundle without it cannot be run by Tendon)".into(),
                found: "nothing".into(),
            });
            None
        }
    };
    match (package, ours) {
        (Some(package), Some(ours)) if problems.is_empty() => Ok((package, ours)),
        _ => Err(problems),
    }
}

impl Opened {
    /// SHA-256 of its manifest.
    #[must_use]
    pub fn hash(&self) -> &crate::policy::folder::Hash {
        &self.hash
    }

    /// How it reads sentences.
    ///
    /// # Errors
    /// What is wrong with its tokenizer or table.
    pub fn speech(&self) -> Result<Speech, Vec<Problem>> {
        let words = words(&self.folder, self.file.text.as_ref())?;
        let joints = self
            .file
            .state
            .as_ref()
            .map_or(0, |state| state.names.len());
        Ok(Speech::new(words, joints))
    }

    /// Opens and checks a folder.
    ///
    /// # Errors
    /// Every [`Problem`] found.
    pub fn open(path: &Path) -> Result<Opened, Vec<Problem>> {
        let mut folder = Folder::open(path).map_err(|problem| vec![problem])?;
        let bytes = folder.read_manifest().map_err(|problem| vec![problem])?;
        let (package, file) = read(&bytes)?;
        let mut judge = Judge::default();
        judge.package(&package, &file);
        judge.file(&file);
        let mut feeds = Vec::new();
        for (index, camera) in file.cameras.iter().enumerate() {
            match Feed::new(camera, &at(&format!("tendon.cameras[{index}]"))) {
                Ok(feed) => feeds.push(feed),
                Err(found) => judge.problems.extend(found),
            }
        }
        folder.promise(file.sha256.clone());
        let mut files = Vec::new();
        for name in file.sha256.keys() {
            match folder.verify(&at(&format!("tendon.sha256[{name:?}]")), name) {
                Ok(bytes) => files.push((name.clone(), bytes)),
                Err(problem) => judge.problems.push(problem),
            }
        }
        // A plan of wrong sizes would only repeat what was said.
        if !judge.problems.is_empty() {
            return Err(judge.problems);
        }
        let frames: Vec<usize> = feeds.iter().map(Feed::values).collect();
        let plan = Plan::new(&file, &frames)?;
        Ok(Opened {
            name: package.policy.name,
            file,
            plan,
            files,
            hash: hash(&bytes),
            folder,
            feeds,
        })
    }
}

impl Staged {
    /// Opens, checks and loads the bundle in `dir`, and runs its fixture.
    ///
    /// # Errors
    /// Every [`Problem`] found, with file, key, what was expected and what was found.
    pub fn load(
        dir: &Path,
        options: LoadOptions,
        engine: &EngineLoader<'_>,
    ) -> Result<Staged, Vec<Problem>> {
        let opened = Opened::open(dir)?;
        let mut staged = assemble(opened, options.precision, engine)?;
        staged.0.chain()?;
        let fixture = fixture::Fixture::read(&staged.1, &staged.0)?;
        let parity = fixture.run(&mut staged.0, &mut |_, _| ())?;
        let refused = options.parity_miss == ParityMiss::Refuse && !parity.missed.is_empty();
        if refused {
            return Err(parity.missed);
        }
        staged.0.parity = parity;
        staged.0.reset();
        staged.0.sentence = None;
        Ok(staged.0)
    }
}

impl Staged {
    /// Lets the engines hand to one another what nobody here reads, and run the loop whole where no step is looked at; then each chooses
    /// what it has left to choose.
    fn chain(&mut self) -> Result<(), Vec<Problem>> {
        let problem = |expected: &str, (stage, fault): (usize, EngineFault)| {
            let path = at(&format!("tendon.stages[{stage}]"));
            Problem::one(path, expected, fault.to_string())
        };
        let refused = |of| problem("tensors and a loop that stay on the engine's device", of);
        self.run.chain(&self.file).map_err(refused)?;
        // A plan that goes on from another changes the sample between two steps.
        let steps = self.turns.steps().filter(|_| self.onward.is_none());
        if let Some((said, steps)) = steps {
            let taken = self.run.offer_loop(&self.file, said, steps);
            self.denoised = taken
                .map_err(|fault| refused((said.stage, fault)))?
                .then_some(said);
        }
        let settled = self.run.settle();
        settled.map_err(|of| problem("a stage that runs, wherever it has its tensors", of))
    }

    /// Shows it the observations of its own fixture once more, or those that were recorded of it, and tells after each what
    /// it made of it.
    ///
    /// # Errors
    /// Every [`Problem`] of the bundle; a missed fixture is none.
    pub fn rehearse(
        dir: &Path,
        precision: Precision,
        recorded: Option<&Path>,
        engine: &EngineLoader<'_>,
        tell: &mut dyn FnMut(&Staged, Rehearsed<'_>),
    ) -> Result<Parity, Vec<Problem>> {
        let (mut staged, folder) = assemble(Opened::open(dir)?, precision, engine)?;
        staged.chain()?;
        let fixture = fixture::Fixture::choose(recorded, &folder, &staged)?;
        fixture.run(&mut staged, tell)
    }

    /// The inputs of every run of every stage on the observations of its own fixture, or on those that were recorded of it,
    /// as a safetensors file with the keys `RUN/STAGE/INPUT`: what a quantiser is calibrated on.
    ///
    /// # Errors
    /// Every [`Problem`] of the bundle; a missed fixture is none.
    pub fn calibration(
        dir: &Path,
        recorded: Option<&Path>,
        engine: &EngineLoader<'_>,
    ) -> Result<Vec<u8>, Vec<Problem>> {
        let (mut staged, folder) = assemble(Opened::open(dir)?, Precision::Fp32, engine)?;
        let fixture = fixture::Fixture::choose(recorded, &folder, &staged)?;
        staged.keep_inputs();
        fixture.run(&mut staged, &mut |_, _| ())?;
        let mut tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
        let seen = staged.run.seen.take().unwrap_or_default();
        if seen.is_full() {
            let expected = "observations whose stages take at most 2 GiB in all: record fewer";
            return Err(Problem::one("calibration", expected, "more"));
        }
        for (run, (stage, inputs)) in seen.runs.iter().enumerate() {
            let Some(planned) = staged.plan().stages.get(*stage) else {
                continue;
            };
            for (spec, tensor) in planned.spec.inputs.iter().zip(inputs) {
                let (dtype, bytes) = match tensor {
                    Tensor::F32(values) => {
                        (Dtype::F32, to_bytes(values.iter().map(|x| x.to_le_bytes())))
                    }
                    Tensor::I32(values) => {
                        (Dtype::I32, to_bytes(values.iter().map(|x| x.to_le_bytes())))
                    }
                };
                let key = format!("{run}/{}/{}", planned.spec.id, spec.name);
                tensors.push((key, dtype, spec.shape.clone(), bytes));
            }
        }
        let wrong = |error: SafeTensorError| {
            Problem::one(
                "calibration",
                "tensors that can be written",
                error.to_string(),
            )
        };
        let views = tensors.iter().map(|(key, dtype, shape, bytes)| {
            Ok((key.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?))
        });
        let views: Vec<(&str, TensorView<'_>)> = views.collect::<Result<_, _>>().map_err(wrong)?;
        safetensors::serialize(views, None).map_err(wrong)
    }
}

fn to_bytes(words: impl Iterator<Item = [u8; 4]>) -> Vec<u8> {
    words.flatten().collect()
}

/// Engines, statistics, tokenizers.
fn assemble(
    opened: Opened,
    precision: Precision,
    engine: &EngineLoader<'_>,
) -> Result<(Staged, Folder), Vec<Problem>> {
    let Opened {
        name,
        file,
        plan,
        files,
        hash,
        folder,
        feeds,
    } = opened;
    let mut file = file;
    if precision != Precision::Fp32 {
        // A fixture may ask more of the 32-bit graphs than the gate; of fewer bits nothing but the gate can be asked.
        file.parity.cosine_min = COSINE_MIN;
        file.parity.error_max_fraction = ERROR_FRACTION_MAX;
    }
    let mut problems = Vec::new();
    let mut keep = |found: Vec<Problem>| problems.extend(found);
    let words = words(&folder, file.text.as_ref()).map_err(&mut keep).ok();
    let state = match &file.state {
        None => Some(None),
        Some(state) => stats::read(&folder, state.stats.as_ref(), &state.names)
            .map_err(&mut keep)
            .ok()
            .map(|normaliser| Some((Steps::new(state.pre.clone()), normaliser))),
    };
    let action = match &file.action {
        None => Some(None),
        Some(action) => stats::read(&folder, action.stats.as_ref(), &action.names)
            .map_err(&mut keep)
            .ok()
            .map(|normaliser| Some((action.clone(), normaliser, Steps::new(action.post.clone())))),
    };
    let mut engines: Vec<Box<dyn Engine>> = Vec::new();
    for (index, (stage, planned)) in file.stages.iter().zip(&plan.stages).enumerate() {
        // A block that was not worth another precision has none of it. What stands for it an engine may refuse, as the processor's does
        // 16 bits: then the next does. That is told, and if none does, what spoke against the first.
        let mut refused: Option<Vec<Problem>> = None;
        let mut stands = None;
        for (precision, graph) in stage.onnx.nearest(precision) {
            let word = precision.word();
            let path = at(&format!("tendon.stages[{index}].onnx.{word}"));
            match load_stage(&folder, &path, graph, &planned.spec, engine) {
                Ok(loaded) => {
                    for problem in refused.iter().flatten() {
                        log::warn!("{problem}: {word} runs instead");
                    }
                    stands = Some(loaded);
                    break;
                }
                Err(found) => {
                    refused.get_or_insert(found);
                }
            }
        }
        match stands {
            Some(engine) => engines.push(engine),
            None => keep(refused.unwrap_or_default()),
        }
    }
    let constants: Vec<f32> = file
        .constants
        .values()
        .map(|constant| constant.fill)
        .collect();
    let (Some(words), Some(state), Some(action)) = (words, state, action) else {
        return Err(problems);
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut run = Run::new(plan, engines, &constants);
    let on_device = offer(&file, &mut run, &feeds)?;
    let (turns, x, noise, seed) = turns(&file, &run)?;
    let decoder = Decoder::new(&file, run.plan(), x, &folder)?;
    let onward = Onward::new(&file, &run, x)?;
    let spread = Spread::new(&file, &run, noise)?;
    let maps = check_attention(&file, &run);
    if !maps.is_empty() {
        return Err(maps);
    }
    let eyes = file
        .cameras
        .iter()
        .zip(feeds)
        .zip(on_device)
        .map(|((camera, feed), on_device)| Eye {
            on_device,
            history: (camera.history > 1).then(|| {
                let spacing_ns = (camera.spacing_ms * 1e6) as u64;
                (
                    History::new(camera.history, feed.values(), spacing_ns),
                    vec![0.0; feed.values()],
                )
            }),
            seen: vec![false; camera.history],
            marks: vec![0; camera.history],
            missing: camera.missing,
            feed,
        })
        .collect();
    let state_history = file
        .state
        .as_ref()
        .filter(|state| state.history > 1)
        .map(|state| {
            let spacing_ns = (state.spacing_ms * 1e6) as u64;
            History::new(state.history, state.names.len(), spacing_ns)
        });
    let joints = file.state.as_ref().map_or(0, |state| state.names.len());
    let values = action
        .as_ref()
        .map_or(0, |(file, _, _)| file.horizon * file.names.len());
    let tokens = match &file.repeat {
        Some(LoopFile::Tokens(tokens)) => tokens.max,
        _ => 0,
    };
    let staged = Staged {
        name,
        hash,
        files,
        run,
        eyes,
        speech: Speech::new(words, joints),
        sentence: None,
        used: 0,
        state,
        state_history,
        units: vec![0.0; joints],
        normalised: vec![0.0; joints],
        turns,
        denoised: None,
        onward,
        spread,
        x: vec![0.0; x],
        noise: vec![0.0; noise],
        dice: Pcg64Mcg::seed_from_u64(seed.unwrap_or(0)),
        seed,
        tokens: Vec::with_capacity(tokens),
        token_doubt: None,
        decoder,
        action,
        chunk: vec![0.0; values],
        answer: String::new(),
        parity: Parity::default(),
        recording: None,
        file,
    };
    Ok((staged, folder))
}

/// The engine of a stage's graph, `path` in the manifest.
fn load_stage(
    folder: &Folder,
    path: &str,
    graph: &str,
    spec: &StageSpec,
    engine: &EngineLoader<'_>,
) -> Result<Box<dyn Engine>, Vec<Problem>> {
    let wrong = |found: String| {
        let expected = "a graph that the engine loads, with the manifest's tensors in their order";
        Problem::one(path, expected, found)
    };
    let list = |tensors: &[TensorSpec]| {
        let words: Vec<String> = tensors.iter().map(ToString::to_string).collect();
        words.join(", ")
    };
    let file = folder
        .locate_graph(path, graph)
        .map_err(|problem| vec![problem])?;
    let loaded = engine(&file, spec).map_err(|fault| wrong(fault.to_string()))?;
    if loaded.inputs() == spec.inputs && loaded.outputs() == spec.outputs {
        return Ok(loaded);
    }
    Err(wrong(format!(
        "in {}; out {}",
        list(loaded.inputs()),
        list(loaded.outputs())
    )))
}

/// Lets the engines make what they can of the cameras' pictures themselves: of one frame, which is always there.
fn offer(file: &StagedFile, run: &mut Run, feeds: &[Feed]) -> Result<Vec<bool>, Vec<Problem>> {
    let cameras = file.cameras.iter().zip(feeds).enumerate();
    cameras
        .map(|(index, (camera, feed))| {
            if camera.history > 1 || camera.missing.is_some() {
                return Ok(false);
            }
            let Some(way) = feed.way() else {
                return Ok(false);
            };
            run.offer(index, &way).map_err(|fault| {
                let path = at(&format!("tendon.cameras[{index}]"));
                Problem::one(
                    path,
                    "a picture that the engine's device prepares",
                    fault.to_string(),
                )
            })
        })
        .collect()
}

fn words(folder: &Folder, file: Option<&TextFile>) -> Result<Words, Vec<Problem>> {
    let one = |problem| vec![problem];
    match file {
        None => Ok(Words::None),
        Some(TextFile::Prompt(prompt)) => {
            let name = &prompt.tokenizer;
            let bytes = folder.read(name, name, SIDE_FILE_BYTES_MAX).map_err(one)?;
            Prompt::new(prompt.clone(), &bytes)
                .map(|prompt| Words::Prompt(Box::new(prompt)))
                .map_err(one)
        }
        Some(TextFile::Table(TableFile { file: name, width })) => {
            let bytes = folder.read(name, name, SIDE_FILE_BYTES_MAX).map_err(one)?;
            let file = TensorFile::parse(name, &bytes).map_err(one)?;
            let mut table = BTreeMap::new();
            for sentence in file.keys() {
                let vector = file.f32(&sentence, &[*width]).map_err(one)?;
                if vector.iter().any(|value| !value.is_finite()) {
                    return Err(one(Problem {
                        at: format!("{name}: {sentence}"),
                        expected: "finite numbers".into(),
                        found: "NaN or infinity".into(),
                    }));
                }
                table.insert(sentence, vector);
            }
            Ok(Words::Table(table))
        }
    }
}

/// The loop, the numbers of its sample and of its noise, and its seed.
fn turns(file: &StagedFile, run: &Run) -> Result<(Turns, usize, usize, Option<u64>), Vec<Problem>> {
    let sample = run.numbers(Source::X).unwrap_or(0);
    let place = |name: &String| {
        output_of(file, name).unwrap_or(Place {
            stage: 0,
            tensor: 0,
        })
    };
    let said = |name: &String| {
        let found = run.output(place(name)).len();
        if found == sample && sample > 0 {
            Ok(place(name))
        } else {
            Err(vec![Problem {
                at: at("tendon.loop"),
                expected: format!("\"{name}\" of as many numbers as the input that reads loop.x"),
                found: format!("{found} and {sample}"),
            }])
        }
    };
    match &file.repeat {
        None => Ok((Turns::None, 0, 0, None)),
        Some(LoopFile::Flow(flow)) => {
            let turns = Turns::Flow {
                flow: flow.flow.clone(),
                velocity: said(&flow.velocity)?,
                noise: flow.noise,
            };
            Ok((turns, sample, sample, flow.seed))
        }
        Some(LoopFile::Diffusion(diffusion)) => {
            let Some(steps) = Diffusion::new(diffusion.schedule.clone()) else {
                return Ok((Turns::None, 0, 0, None));
            };
            let noisy = (0..steps.steps())
                .filter(|step| steps.is_noisy(*step))
                .count();
            let turns = Turns::Diffusion {
                steps,
                said: said(&diffusion.said)?,
            };
            Ok((turns, sample, sample * (1 + noisy), diffusion.seed))
        }
        Some(LoopFile::Tokens(tokens)) => {
            let turns = Turns::Tokens {
                first: place(&tokens.first),
                next: place(&tokens.next),
                file: tokens.clone(),
            };
            Ok((turns, 0, 0, None))
        }
        Some(LoopFile::Draw(draw)) if sample > 0 => {
            let turns = Turns::Draw { noise: draw.noise };
            Ok((turns, 0, sample, draw.seed))
        }
        Some(LoopFile::Draw(_)) => Err(Problem::one(
            at("tendon.loop"),
            "an input that reads loop.x, where numbers are drawn",
            "none",
        )),
    }
}
