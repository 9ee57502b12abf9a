// SPDX-License-Identifier: Apache-2.0
//! `tendon demo`: the bench robot, the shipped policy and the whole pipeline, on any Linux box.

use crate::cli::Failure;
use clap::Args;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tendon::operator;
use tendon::runtime::demo;
use tendon::runtime::evaluation::{Report, Tally};
use tendon::runtime::telemetry::Spread;

/// Arguments of `tendon demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tendon demo \"put the red block in the left bin\"
  tendon demo --headless --episodes 20 --seed 7 --json
  tendon demo --headless --lockstep --episodes 200 --seed 7 --json")]
pub struct Options {
    /// What the robot shall do, in plain words. Without it the bench robot thinks of something. The episodes of --headless have
    /// sentences of their own.
    #[arg(conflicts_with = "headless")]
    instruction: Option<String>,
    /// No page: run episodes and report. In real time unless --lockstep is given.
    #[arg(long)]
    headless: bool,
    /// Step the same pipeline in simulated time: deterministic, as fast as the CPU allows.
    #[arg(long, requires = "headless")]
    lockstep: bool,
    /// Episodes to run with --headless.
    #[arg(long, requires = "headless", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    episodes: u32,
    /// Seed of scenes, sentences and noise. Training used other seeds.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// With --headless: the whole report as one JSON object on standard output, in place of its main figures in words.
    #[arg(long, requires = "headless")]
    json: bool,
    /// Delay every chunk by this many milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    inject_inference_delay_ms: u64,
    /// Which graph of the bundle runs: fp32, or the Q/DQ graph to check its numbers.
    #[arg(long, default_value = "fp32", value_parser = ["fp32", "int8"])]
    precision: String,
    /// The policy bundle. Without it: engines/bench-vla of this checkout, or beside the program.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Keep what the policy was shown and answered, as safetensors with the sentences beside it: for tendon policy quantize.
    #[arg(long, value_name = "FILE", requires = "lockstep")]
    record: Option<PathBuf>,
    /// Where the page listens; loopback only.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8765",
        conflicts_with = "headless"
    )]
    page: std::net::SocketAddr,
    #[command(flatten)]
    unproven: super::Unproven,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    let ending = super::ending()?;
    let bundle = find_bundle(options.bundle.as_deref())?;
    let config =
        demo::bench_config(&bundle, options.precision == "int8").map_err(super::problems)?;
    if options.headless {
        let report = if options.lockstep {
            demo::lockstep(
                config,
                options.episodes,
                options.seed,
                options.inject_inference_delay_ms,
                options.unproven.parity_miss(),
                options.record.as_deref(),
                &ending,
            )
        } else {
            demo::real_time(
                config,
                options.episodes,
                options.seed,
                options.inject_inference_delay_ms,
                options.unproven.parity_miss(),
                &ending,
                |_, report| {
                    eprint!(
                        "\r{} episodes, {} done as asked   ",
                        report.episodes, report.successes
                    );
                },
            )
        };
        let report = report.map_err(super::demo_failure)?;
        eprintln!();
        if options.json {
            println!(
                "{}",
                serde_json::to_string(&report).map_err(Failure::failed)?
            );
        } else {
            print!("{}", lines(&report));
        }
        return Ok(());
    }
    interactive(options, config, &ending)
}

/// The main figures of a report, for people.
fn lines(report: &Report) -> String {
    let of = |tally: &Tally| format!("{} of {}", tally.successes, tally.episodes);
    let ms = |spread: &Spread| {
        format!(
            "p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            spread.p50, spread.p99, spread.max
        )
    };
    let (tasks, grounding) = (&report.tasks, &report.grounding);
    let mut rows = vec![
        (
            "done as asked",
            format!(
                "{} of {} episodes (touch {}, put {}); {}, seed {}, {:.1} s",
                report.successes,
                report.episodes,
                of(&tasks.touch.all),
                of(&tasks.put.all),
                report.time.replace('_', " "),
                report.seed,
                report.wall_s
            ),
        ),
        (
            "policy",
            format!(
                "{}, {}; parity {}",
                report.policy, report.precision, report.parity
            ),
        ),
        (
            "another block named",
            format!(
                "that one {}, the one that was not named {}",
                of(&grounding.other_block_named_block),
                of(&grounding.other_block_original)
            ),
        ),
        (
            "a colour not there",
            format!("held still {}", of(&grounding.absent_colour_held_still)),
        ),
        (
            "nonsense",
            format!("held still {}", of(&grounding.nonsense_held_still)),
        ),
        ("frame to command", ms(&report.frame_to_command_ms)),
        ("inference", ms(&report.inference_ms)),
        (
            "control",
            format!(
                "{} ticks at {:.0} Hz, {} late, {} changed by the governor; {} allocations",
                report.ticks,
                report.control_hz,
                report.late_ticks,
                report.governor_interventions,
                report.allocations_in_control_loop
            ),
        ),
        (
            "commands",
            format!(
                "{} sent, {} rejected, {} beyond the limits",
                report.commands_sent, report.commands_rejected, report.limit_violations
            ),
        ),
        (
            "plans",
            format!(
                "{} chunks, {} stalls; {} latched stops",
                report.chunks, report.ladder.stalls, report.latched_stops
            ),
        ),
    ];
    if let Some(observations) = report.recorded {
        rows.push(("recorded", format!("{observations} observations")));
    }
    let lines = rows.iter().map(|(name, said)| format!("{name:20}{said}\n"));
    lines.collect()
}

/// The page and a progress line, until Ctrl-C.
fn interactive(
    options: &Options,
    config: tendon::config::Config,
    ending: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let bench = demo::Bench::start(
        config,
        options.seed,
        options.inject_inference_delay_ms,
        options.unproven.parity_miss(),
    )
    .map_err(super::demo_failure)?;
    let page = operator::serve(
        options.page,
        Arc::clone(&bench.running.desk) as Arc<dyn operator::Operator>,
    )
    .map_err(Failure::failed)?;
    println!("Watch and instruct: {}", page.url);
    println!("End with Ctrl-C; the robot comes to rest first.");
    let sentence = match &options.instruction {
        Some(sentence) => sentence.clone(),
        None => {
            bench
                .ask(tendon::bench::process::Request::Report)
                .map_err(super::demo_failure)?
                .sentence
        }
    };
    println!(
        "{}",
        bench.desk().instruct(&sentence).map_err(Failure::Usage)?
    );
    bench
        .arm(demo::AfterLatch::Refuse, ending)
        .map_err(super::demo_failure)?;
    let watched = std::io::stdout().is_terminal();
    while !ending.load(Ordering::Relaxed) {
        demo::pause(200);
        if !watched {
            // One line that is written over and over is for eyes only.
            continue;
        }
        let (view, figures) = (bench.desk().view(), bench.desk().figures());
        print!(
            "\r{:9} frame to command {:5.1} ms, inference {:5.1} ms, {} commands, \"{}\"   ",
            view.decision.mode.word(),
            figures.frame_to_command_ms.p50,
            figures.inference_ms.p50,
            figures.commands,
            view.instruction,
        );
        drop(std::io::stdout().flush());
    }
    println!();
    Ok(())
}

/// The bundle given, or that of this checkout, or the one installed beside the program.
///
/// # Errors
/// [`Failure`] names where it looked.
pub fn find_bundle(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("../share/tendon/engines/bench-vla")));
    let candidates: Vec<PathBuf> = match given {
        Some(dir) => vec![dir.to_owned()],
        None => [
            PathBuf::from("engines/bench-vla"),
            PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/engines/bench-vla")),
        ]
        .into_iter()
        .chain(beside)
        .collect(),
    };
    let found = candidates
        .iter()
        .find(|dir| dir.join("manifest.json").is_file());
    found
        .and_then(|dir| dir.canonicalize().ok())
        .ok_or_else(|| {
            let looked: Vec<String> = candidates
                .iter()
                .map(|dir| dir.display().to_string())
                .collect();
            Failure::Usage(format!(
                "no policy bundle: looked for manifest.json in {}; give --bundle DIR",
                looked.join(", ")
            ))
        })
}
