// SPDX-License-Identifier: Apache-2.0
//! `tendon policy`: look into policy bundles and prove them.

use crate::cli::Failure;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use tendon::config::Precision;
use tendon::config::problem::Problem;
use tendon::engine::cpu::tensors_of;
use tendon::policy::bundle::Bundle;
use tendon::policy::describe::describe;
use tendon::policy::import::{JointUnit, Request, lerobot};
use tendon::policy::import_statistics;
use tendon::policy::normalise::Mode;
use tendon::policy::parity::Parity;
use tendon::policy::staged::bundle::{Opened, is_staged};
use tendon::policy::staged::{Staged, describe as staged};
use tendon::policy::{LoadOptions, ParityMiss, Policy};
use tendon::runtime::engines::cpu_engine;
use tendon::runtime::policy_bench::{Report, Times, measure};

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
        /// The quantised graphs instead of the 32-bit ones.
        #[arg(long)]
        int8: bool,
    },
    /// Measure a staged bundle on this machine: each stage and the whole, allocations, bytes copied between stages.
    Bench {
        /// The bundle's folder.
        dir: PathBuf,
        /// Observations.
        #[arg(long, default_value_t = 200)]
        runs: usize,
        /// Compute threads of the engine.
        #[arg(long, default_value_t = 1)]
        threads: usize,
        /// The report as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a bundle of a LeRobot policy folder, the ONNX graph exported from it and a fixture; then verify it.
    Import(Import),
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
    /// LeRobot's folder: config.json, policy_preprocessor.json, policy_postprocessor.json and their statistics.
    folder: PathBuf,
    /// The bundle's folder, to be made.
    #[arg(long)]
    out: PathBuf,
    /// The graph, with the inputs of config.json by name and one output.
    #[arg(long)]
    onnx: PathBuf,
    /// meta/info.json of the data set: names and order of the joints, rate, sizes of the cameras.
    #[arg(long)]
    info: PathBuf,
    /// The fixture that engines/families/record_fixture.py made beside torch.
    #[arg(long)]
    fixture: PathBuf,
    /// The fixture's sentences, as JSON.
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
        Verb::Verify { dir, int8 } => prove(dir, *int8)?,
        Verb::Bench {
            dir,
            runs,
            threads,
            json,
        } => {
            let report = measure(dir, *runs, *threads).map_err(super::problems)?;
            if *json {
                println!(
                    "{}",
                    serde_json::to_string_pretty(&report).map_err(Failure::failed)?
                );
            } else {
                print!("{}", lines(&report));
            }
        }
        Verb::ImportStatistics(wanted) => {
            adopt(wanted).map_err(super::problems)?;
            prove(&wanted.out, false)?;
        }
        Verb::Import(wanted) => {
            import(wanted).map_err(super::problems)?;
            prove(&wanted.out, false)?;
        }
    }
    Ok(())
}

fn lines(report: &Report) -> String {
    let row = |name: &str, times: &Times| {
        format!(
            "{name:16} p50 {:10.1} us   p95 {:10.1}   p99 {:10.1}   max {:10.1}\n",
            times.p50_us, times.p95_us, times.p99_us, times.max_us
        )
    };
    let mut out = row("whole", &report.whole) + &row("outside engine", &report.outside_engine);
    for stage in &report.stages {
        out += &row(&stage.id, &stage.times);
    }
    out + &format!(
        "{} allocations and {} bytes copied between stages an observation\n",
        report.allocations_per_run, report.copied_bytes_per_run
    )
}

fn prove(dir: &Path, int8: bool) -> Result<(), Failure> {
    let parity = verify(dir, int8).map_err(super::problems)?;
    println!("{parity}");
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

fn import(wanted: &Import) -> Result<(), Vec<Problem>> {
    let joints = wanted.robot.as_deref().map(joint_names).transpose()?;
    let request = Request {
        folder: wanted.folder.clone(),
        onnx: wanted.onnx.clone(),
        info: wanted.info.clone(),
        fixture: wanted.fixture.clone(),
        sentences: wanted.sentences.clone(),
        unit: match wanted.unit {
            Unit::Rad => JointUnit::Rad,
            Unit::Deg => JointUnit::Deg,
        },
        joints,
    };
    lerobot(&request, &wanted.out, &tensors_of)
}

fn verify(dir: &Path, int8: bool) -> Result<Parity, Vec<Problem>> {
    let options = LoadOptions {
        precision: if int8 {
            Precision::Int8
        } else {
            Precision::Fp32
        },
        parity_miss: ParityMiss::Report,
    };
    let engine = cpu_engine(1);
    if is_staged(dir) {
        Staged::load(dir, options, &engine).map(|policy| policy.parity().clone())
    } else {
        Policy::load(dir, options, &engine).map(|policy| policy.parity().clone())
    }
}
