// SPDX-License-Identifier: Apache-2.0
//! `tendon policy`: look into policy bundles and prove them.

use crate::cli::Failure;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use tendon::config::problem::Problem;
use tendon::config::{Config, EngineKind, Precision};
use tendon::engine::cpu::tensors_of;
use tendon::policy::bundle::Bundle;
use tendon::policy::describe::describe;
use tendon::policy::import::{JointUnit, Request, lerobot};
use tendon::policy::import_physicalai;
use tendon::policy::import_statistics;
use tendon::policy::normalise::Mode;
use tendon::policy::parity::Parity;
use tendon::policy::staged::bundle::{Opened, is_staged};
use tendon::policy::staged::{Staged, describe as staged};
use tendon::policy::{EngineLoader, LoadOptions, ParityMiss, Policy};
use tendon::runtime::engines;
use tendon::runtime::policy_bench::{Job, Report, Times, measure};
use tendon::runtime::quantize::{Gate, Graphs, Observations, quantize};

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Say what a bundle is: stages, tensors, what it is fed and what it gives; checks every hash.
    Inspect {
        /// The bundle's folder.
        dir: PathBuf,
    },
    /// Load a bundle as a robot would, run its fixture and compare; a miss is exit code 1.
    Verify {
        /// The bundle's folder.
        dir: PathBuf,
        /// Which of its graphs: fp32, fp16 or int8.
        #[arg(long, default_value = "fp32", value_parser = precision)]
        precision: Precision,
        /// Which engine: cpu, or ort, ONNX Runtime on the processor, which types of 16 bits need.
        #[arg(long, default_value = "cpu", value_parser = engine_of_the_processor)]
        engine: EngineKind,
        /// Observations and answers that `tendon demo --record` kept of it, instead of its fixture.
        #[arg(long, value_name = "FILE")]
        recorded: Option<PathBuf>,
        /// One JSON object on standard output: the errors of each joint in its unit.
        #[arg(long)]
        json: bool,
    },
    /// Run a staged bundle on the observations of its own fixture: chunks, how sure it is of each joint, where it looked.
    Run {
        /// The bundle's folder.
        dir: PathBuf,
        /// Which of its graphs: fp32, fp16 or int8.
        #[arg(long, default_value = "fp32", value_parser = precision)]
        precision: Precision,
        /// One JSON object an observation.
        #[arg(long)]
        json: bool,
    },
    /// Measure a bundle on this machine: each stage and the whole, allocations, bytes copied between stages.
    Bench {
        /// The bundle's folder.
        dir: PathBuf,
        /// Observations.
        #[arg(long, default_value_t = 200)]
        runs: usize,
        /// Compute threads of the engine.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// Go on for at least so long.
        #[arg(long, default_value_t = 0.0)]
        seconds: f64,
        /// Which engine: cpu, ort, tensorrt or remote.
        #[arg(long, default_value = "cpu", value_parser = engine_kind)]
        engine: EngineKind,
        /// A tendon.toml: its precision, the providers that ONNX Runtime is asked for, the plans that TensorRT needs, and who runs the
        /// engine "remote".
        #[arg(long)]
        config: Option<PathBuf>,
        /// With the engine tensorrt: the same CUDA graphs in a bare loop as well, in turns. An observation that takes more than 2 % or
        /// 60 us beyond it is exit code 1.
        #[arg(long)]
        bare_loop: bool,
        /// The same graphs under ONNX Runtime as well, in turns: the library or its folder, or nothing to look for it.
        #[arg(long, value_name = "LIBRARY", num_args = 0..=1, require_equals = true)]
        onnxruntime: Option<Option<PathBuf>>,
        /// The report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make graphs of 16 bits, and Q/DQ graphs of a staged bundle, block by block: what misses the gate stays as it is. The gate is
    /// proven on the bundle's fixture and on what --prove-on names.
    Quantize {
        /// The bundle's folder.
        dir: PathBuf,
        /// The folder of the bundle with all its graphs and a report, to be made.
        #[arg(long)]
        out: PathBuf,
        /// Which graphs: fp16, int8 or both.
        #[arg(long, value_name = "PRECISIONS", value_delimiter = ',', default_value = "fp16,int8", value_parser = fewer_bits)]
        to: Vec<Precision>,
        /// What of a Q/DQ graph is not quantised: fp16 as far as the gate allows, or fp32, which the engine "cpu" runs too.
        #[arg(long, value_name = "PRECISION", default_value = "fp16", value_parser = floats)]
        rest: Precision,
        /// A Python with onnx, onnxruntime, numpy and safetensors.
        #[arg(long, value_name = "PYTHON", default_value = "python3")]
        python: PathBuf,
        /// Observations that `tendon demo --record` kept, to calibrate on instead of the fixture's.
        #[arg(long, value_name = "FILE")]
        calibrate_on: Option<PathBuf>,
        /// Others of them, with the 32-bit graphs' answers.
        #[arg(long, value_name = "FILE")]
        prove_on: Option<PathBuf>,
    },
    /// Make a bundle of a LeRobot policy folder with the ONNX graph exported from it, or of a policy_package as OpenVINO
    /// Physical AI and LeRobot export it, and of a fixture; then verify it.
    Import(Box<Import>),
    /// Make a bundle of a draft and of the statistics that openpi or OpenVLA saved beside a checkpoint; then verify it.
    ImportStatistics(ImportStatistics),
}

/// What an import of statistics needs.
#[derive(Debug, clap::Args)]
pub struct ImportStatistics {
    /// The draft: graphs, tokenizer, fixture, and a manifest of schema 2 without statistics and hashes.
    draft: PathBuf,
    /// norm_stats.json or dataset_statistics.json.
    #[arg(long)]
    statistics: PathBuf,
    /// Whose file it is.
    #[arg(long, value_enum)]
    from: Origin,
    /// The data set in OpenVLA's file; not needed if there is one only.
    #[arg(long)]
    unnorm_key: Option<String>,
    /// The formula of openpi's file, which does not say it: mean-std for pi0, quantiles for pi0-FAST and pi0.5.
    #[arg(long, value_enum)]
    mode: Option<Formula>,
    /// The robot.toml whose joints the policy must name, all of them and no others.
    #[arg(long)]
    robot: Option<PathBuf>,
    /// The bundle's folder, to be made.
    #[arg(long)]
    out: PathBuf,
}

/// Whose statistics.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Origin {
    /// norm_stats.json.
    Openpi,
    /// dataset_statistics.json.
    Openvla,
}

/// How a number is normalised.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Formula {
    /// By mean and deviation.
    MeanStd,
    /// By the 1 % and 99 % quantiles.
    Quantiles,
}

/// What an import needs.
#[derive(Debug, clap::Args)]
pub struct Import {
    /// LeRobot's folder (config.json, policy_preprocessor.json, policy_postprocessor.json and their statistics), or a
    /// package (manifest.json and what it names).
    folder: PathBuf,
    /// The bundle's folder, to be made.
    #[arg(long)]
    out: PathBuf,
    /// The graph, with the inputs of config.json by name and one output. A package has its own.
    #[arg(long)]
    onnx: Option<PathBuf>,
    /// meta/info.json of the data set: names and order of the joints, rate, sizes of the cameras. A package needs it only
    /// where it does not say them itself.
    #[arg(long)]
    info: Option<PathBuf>,
    /// Of a package: actions a second, if there is no --info.
    #[arg(long)]
    rate_hz: Option<f64>,
    /// Of a package that resizes: what a camera gives, NAME=WIDTHxHEIGHT.
    #[arg(long, value_name = "NAME=WIDTHxHEIGHT", value_parser = camera_size)]
    camera_size: Vec<(String, [usize; 2])>,
    /// Of a package: its first component is given pictures of 0 to 1, as LeRobot's robots give them.
    #[arg(long)]
    pictures_0_1: bool,
    /// The fixture that engines/families/record_fixture.py (of a package: physicalai_package.py) made with the policy's own code.
    #[arg(long)]
    fixture: PathBuf,
    /// Of a LeRobot folder: the fixture's sentences, as JSON.
    #[arg(long)]
    sentences: Option<PathBuf>,
    /// What a joint's number is in the data set: nothing in it says so.
    #[arg(long, value_enum)]
    unit: Unit,
    /// The robot.toml whose joints the policy must name, all of them and no others.
    #[arg(long)]
    robot: Option<PathBuf>,
}

/// What a joint's number is in the data set.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Unit {
    /// Radians.
    Rad,
    /// Degrees.
    Deg,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Inspect { dir } if is_staged(dir) => {
            let bundle = Opened::open(dir).map_err(super::problems)?;
            print!("{}", staged::describe(&bundle));
        }
        Verb::Inspect { dir } => {
            let bundle = Bundle::open(dir).map_err(super::problems)?;
            print!("{}", describe(&bundle));
        }
        Verb::Verify {
            dir,
            precision,
            engine,
            recorded,
            json,
        } => prove(dir, *precision, *engine, recorded.as_deref(), *json)?,
        Verb::Quantize {
            dir,
            out,
            to,
            rest,
            python,
            calibrate_on,
            prove_on,
        } => {
            let program = std::env::current_exe().map_err(Failure::failed)?;
            let on = Observations {
                calibrate: calibrate_on.as_deref(),
                prove: prove_on.as_deref(),
            };
            let graphs = Graphs {
                to: to.clone(),
                rest: *rest,
            };
            let report = quantize(dir, out, &graphs, &on, python, &program, Gate::default());
            println!("{}", report.map_err(super::problems)?);
        }
        Verb::Run {
            dir,
            precision,
            json,
        } => super::policy_run::run(dir, *precision, *json)?,
        Verb::Bench {
            dir,
            runs,
            threads,
            seconds,
            engine,
            config,
            bare_loop,
            onnxruntime,
            json,
        } => {
            let config = config.as_deref().map(Config::load).transpose();
            let config = config.map_err(super::problems)?;
            let library = onnxruntime
                .as_ref()
                .map(|named| engines::onnxruntime(named.as_deref()))
                .transpose()
                .map_err(super::problems)?;
            let job = Job {
                dir,
                runs: *runs,
                seconds: *seconds,
                threads: *threads,
                engine: *engine,
                config: config.as_ref().map(|config| &config.policy),
                bare_loop: *bare_loop,
            };
            let report = measure(&job, library).map_err(super::problems)?;
            if *json {
                println!(
                    "{}",
                    serde_json::to_string_pretty(&report).map_err(Failure::failed)?
                );
            } else {
                print!("{}", lines(&report));
            }
            if let Some(bare) = report.bare_loop.filter(|bare| !bare.within_budget) {
                return Err(Failure::Failed(format!(
                    "{}: expected at most {:.0} us beyond a bare loop on the same engines, found {:.0} us",
                    dir.display(),
                    bare.overhead_budget_us,
                    bare.overhead_us
                )));
            }
        }
        Verb::ImportStatistics(wanted) => {
            adopt(wanted).map_err(super::problems)?;
            prove(&wanted.out, Precision::Fp32, EngineKind::Cpu, None, false)?;
        }
        Verb::Import(wanted) => {
            import(wanted).map_err(super::problems)?;
            prove(&wanted.out, Precision::Fp32, EngineKind::Cpu, None, false)?;
        }
    }
    Ok(())
}

fn engine_kind(word: &str) -> Result<EngineKind, String> {
    let mut all = EngineKind::ALL.into_iter();
    all.find(|kind| kind.word() == word)
        .ok_or_else(|| "expected cpu, ort, tensorrt or remote".to_owned())
}

fn one_of(word: &str, allowed: &[Precision]) -> Result<Precision, String> {
    let mut all = allowed.iter().copied();
    let words: Vec<&str> = allowed.iter().map(|precision| precision.word()).collect();
    all.find(|precision| precision.word() == word)
        .ok_or_else(|| format!("expected {}", words.join(" or ")))
}

fn precision(word: &str) -> Result<Precision, String> {
    one_of(word, &Precision::ALL)
}

fn fewer_bits(word: &str) -> Result<Precision, String> {
    one_of(word, &[Precision::Fp16, Precision::Int8])
}

fn floats(word: &str) -> Result<Precision, String> {
    one_of(word, &[Precision::Fp16, Precision::Fp32])
}

fn engine_of_the_processor(word: &str) -> Result<EngineKind, String> {
    let kind = engine_kind(word).ok();
    kind.filter(|kind| matches!(kind, EngineKind::Cpu | EngineKind::Ort))
        .ok_or_else(|| "expected cpu or ort".to_owned())
}

fn lines(report: &Report) -> String {
    let row = |name: &str, times: &Times| {
        format!(
            "{name:16} p50 {:10.1} us   p95 {:10.1}   p99 {:10.1}   p99.9 {:10.1}   max {:10.1}\n",
            times.p50_us, times.p95_us, times.p99_us, times.p999_us, times.max_us
        )
    };
    let mut out = format!("engine {}", report.engine);
    for remark in &report.remarks {
        out += &format!("; {remark}");
    }
    out += &format!(
        "; {} observations in {:.1} s, p50 of each quarter {:.0?} us\n",
        report.runs, report.seconds, report.quarters_p50_us
    );
    out += &(row("whole", &report.whole) + &row("outside engine", &report.outside_engine));
    for stage in &report.stages {
        out += &row(&stage.id, &stage.times);
        if let (Some(theirs), Some(share)) = (&stage.onnxruntime_run, stage.of_onnxruntime) {
            let name = format!("  onnxruntime x{}", stage.runs_per_observation);
            out += &row(&name, theirs);
            out += &format!("  our run takes {share:.2} of theirs\n");
        }
    }
    if let Some(bare) = &report.bare_loop {
        out += &row("graph replay", &bare.graph_replay);
        out += &row("bare loop", &bare.input_update_and_graph);
        out += &format!(
            "beyond the bare loop, by p50: {:.1} us, {} its budget of {:.0} us (2 % or 60 us)\n",
            bare.overhead_us,
            if bare.within_budget {
                "within"
            } else {
                "BEYOND"
            },
            bare.overhead_budget_us
        );
    }
    out + &format!(
        "outside the engine: {} its budget of {:.0} us (3 % or 100 us)\n\
         {} allocations and {} bytes copied between stages an observation\n",
        if report.within_budget {
            "within"
        } else {
            "BEYOND"
        },
        report.outside_engine_budget_us,
        report.allocations_per_run,
        report.copied_bytes_per_run
    )
}

fn prove(
    dir: &Path,
    precision: Precision,
    engine: EngineKind,
    recorded: Option<&Path>,
    json: bool,
) -> Result<(), Failure> {
    let verified = engines::alone(engine, |loader| verify(dir, precision, recorded, loader));
    let parity = verified.map_err(super::problems)?;
    if json {
        println!(
            "{}",
            serde_json::to_string(&parity).map_err(Failure::failed)?
        );
    } else {
        println!("{parity}");
        for joint in &parity.joints {
            println!(
                "  {:24} largest error {:.3e} {} of {:.4}",
                joint.name, joint.error_max, joint.unit, joint.range
            );
        }
    }
    if parity.missed.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = parity.missed.iter().map(ToString::to_string).collect();
    Err(Failure::Failed(lines.join("\n")))
}

/// Names of the joints of a robot.toml, in its order.
fn joint_names(path: &Path) -> Result<Vec<String>, Vec<Problem>> {
    let wrong = |found: String| {
        vec![Problem {
            at: path.display().to_string(),
            expected: "a robot.toml with [[joint]] names".into(),
            found,
        }]
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| wrong(error.to_string()))?;
    let joints = table.get("joint").and_then(toml::Value::as_array);
    let names: Option<Vec<String>> = joints.map(|joints| {
        joints
            .iter()
            .filter_map(|joint| joint.get("name")?.as_str().map(str::to_owned))
            .collect()
    });
    names
        .filter(|names| !names.is_empty())
        .ok_or_else(|| wrong("none".into()))
}

fn adopt(wanted: &ImportStatistics) -> Result<(), Vec<Problem>> {
    let request = import_statistics::Request {
        draft: wanted.draft.clone(),
        statistics: wanted.statistics.clone(),
        origin: match wanted.from {
            Origin::Openpi => import_statistics::Origin::Openpi,
            Origin::Openvla => import_statistics::Origin::Openvla,
        },
        data_set: wanted.unnorm_key.clone(),
        mode: wanted.mode.map(|mode| match mode {
            Formula::MeanStd => Mode::MeanStd,
            Formula::Quantiles => Mode::Quantiles,
        }),
        joints: wanted.robot.as_deref().map(joint_names).transpose()?,
    };
    import_statistics::import(&request, &wanted.out)
}

fn camera_size(text: &str) -> Result<(String, [usize; 2]), String> {
    let parsed = text.split_once('=').and_then(|(name, size)| {
        let (width, height) = size.split_once('x')?;
        Some((name.to_owned(), [width.parse().ok()?, height.parse().ok()?]))
    });
    parsed.ok_or_else(|| format!("expected NAME=WIDTHxHEIGHT, found \"{text}\""))
}

/// What lies in the folder that is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exported {
    /// What LeRobot writes of a policy.
    LeRobot,
    /// A `policy_package`.
    Package,
}

/// What was given and means nothing for such a folder. It is refused: nobody would see that it was passed over.
fn out_of_place(wanted: &Import, exported: Exported) -> Vec<Problem> {
    let size = !wanted.camera_size.is_empty();
    let (kinds, flags) = match exported {
        Exported::Package => (
            ["LeRobot folder", "policy_package"],
            vec![
                ("--onnx", wanted.onnx.is_some(), "has its own graph"),
                ("--sentences", wanted.sentences.is_some(), "takes none"),
            ],
        ),
        Exported::LeRobot => (
            ["policy_package", "LeRobot folder"],
            vec![
                ("--rate-hz", wanted.rate_hz.is_some(), "has it in --info"),
                ("--camera-size", size, "has it in --info"),
                ("--pictures-0-1", wanted.pictures_0_1, "always has such"),
            ],
        ),
    };
    let [other, kind] = kinds;
    let given = flags.into_iter().filter(|(_, given, _)| *given);
    given
        .map(|(flag, _, why)| Problem {
            at: flag.to_owned(),
            expected: format!("a {other} (a {kind} {why})"),
            found: format!("a {kind}, {}", wanted.folder.display()),
        })
        .collect()
}

fn import(wanted: &Import) -> Result<(), Vec<Problem>> {
    let exported = match import_physicalai::is_package(&wanted.folder) {
        true => Exported::Package,
        false => Exported::LeRobot,
    };
    let misplaced = out_of_place(wanted, exported);
    if !misplaced.is_empty() {
        return Err(misplaced);
    }
    let joints = wanted.robot.as_deref().map(joint_names).transpose()?;
    let unit = match wanted.unit {
        Unit::Rad => JointUnit::Rad,
        Unit::Deg => JointUnit::Deg,
    };
    if exported == Exported::Package {
        let request = import_physicalai::Request {
            folder: wanted.folder.clone(),
            fixture: wanted.fixture.clone(),
            unit,
            rate_hz: wanted.rate_hz,
            info: wanted.info.clone(),
            sizes: wanted.camera_size.clone(),
            pictures_0_to_1: wanted.pictures_0_1,
            joints,
        };
        return import_physicalai::package(&request, &wanted.out, &tensors_of);
    }
    let needed = |flag: &str, given: &Option<PathBuf>| {
        given.clone().ok_or_else(|| {
            let expected = format!("--{flag}, for a LeRobot folder");
            Problem::one(wanted.folder.display().to_string(), expected, "nothing")
        })
    };
    let request = Request {
        folder: wanted.folder.clone(),
        onnx: needed("onnx", &wanted.onnx)?,
        info: needed("info", &wanted.info)?,
        fixture: wanted.fixture.clone(),
        sentences: wanted.sentences.clone(),
        unit,
        joints,
    };
    lerobot(&request, &wanted.out, &tensors_of)
}

fn verify(
    dir: &Path,
    precision: Precision,
    recorded: Option<&Path>,
    loader: &EngineLoader<'_>,
) -> Result<Parity, Vec<Problem>> {
    let options = LoadOptions {
        precision,
        parity_miss: ParityMiss::Report,
    };
    if recorded.is_some() {
        Staged::rehearse(dir, precision, recorded, loader, &mut |_, _| ())
    } else if is_staged(dir) {
        Staged::load(dir, options, loader).map(|policy| policy.parity().clone())
    } else {
        Policy::load(dir, options, loader).map(|policy| policy.parity().clone())
    }
}
