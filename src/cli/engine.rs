// SPDX-License-Identifier: Apache-2.0
//! `tendon engine`: build the policy's TensorRT engine on the machine that will run it, and look into it.

use crate::cli::Failure;
use clap::{Args, Subcommand};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use tendon::config::link::{LinkConfig, proven};
use tendon::config::{BEST, Config, PolicyConfig, Precision};
use tendon::engine::tensorrt::build::Progress;
use tendon::runtime::engines::{self, Bounds, EngineError};
use tendon::runtime::remote::serve::Server;

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Build the engine with NVIDIA's trtexec, keep it, load it and run the bundle's fixture on it.
    Build(Build),
    /// List the engines that are kept; with --layers, what TensorRT says of this deployment's, and what each layer takes.
    Inspect(Inspect),
    /// Run the policy's graphs for a robot elsewhere, whose tendon.toml has the engine "remote".
    Serve(Serve),
}

const FP32: &str = Precision::Fp32.word();
const FP16: &str = Precision::Fp16.word();
const INT8: &str = Precision::Int8.word();

/// Arguments of `tendon engine build`.
#[derive(Debug, Args)]
#[command(
    after_help = "An engine runs only on the GPU, TensorRT and driver it was built with: build it on the robot. It is kept under a hash of graph, TensorRT, GPU (name, multiprocessors, memory), driver, Jetson Linux and flags (policy.engine_cache). What building is expected to take is compared with the memory there is."
)]
pub struct Build {
    /// The deployment's tendon.toml.
    #[arg(long, value_name = "FILE", default_value = "tendon.toml")]
    config: PathBuf,
    /// fp32, fp16, int8, or best: every one that the bundle has, and the fastest that passes its fixture is written down for
    /// policy.precision = "best". Without it: as tendon.toml has it.
    #[arg(long, value_name = "PRECISION", value_parser = [FP32, FP16, INT8, BEST])]
    precision: Option<String>,
    /// trtexec; without it: $TENDON_TRTEXEC, the path, /usr/src/tensorrt/bin/trtexec.
    #[arg(long, value_name = "PATH")]
    trtexec: Option<PathBuf>,
    /// End the builder when it takes more memory than this.
    #[arg(long, value_name = "MIB")]
    memory_max_mib: Option<u64>,
    /// End the builder when it takes longer than this.
    #[arg(long, value_name = "MINUTES", default_value_t = 60.0)]
    time_max_min: f64,
}

/// Arguments of `tendon engine inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The deployment's tendon.toml.
    #[arg(long, value_name = "FILE", default_value = "tendon.toml")]
    config: PathBuf,
    /// Load this deployment's engine and tell its layers and their times; needs the GPU.
    #[arg(long)]
    layers: bool,
}

/// Arguments of `tendon engine serve`.
#[derive(Debug, Args)]
#[command(
    after_help = "It serves the bundle of tendon.toml with the first engine of policy.engines that takes it, and moves nothing. Beyond loopback it needs link.user and link.password_file, or link.tls_*, as the link does; the robot's tendon.toml has the same."
)]
pub struct Serve {
    /// A tendon.toml with the same bundle and precision as the robot's.
    #[arg(long, value_name = "FILE", default_value = "tendon.toml")]
    config: PathBuf,
    /// Where to listen, tcp/ADDRESS:PORT, tls/HOST:PORT or quic/HOST:PORT.
    #[arg(long, value_name = "ENDPOINT", default_value = "tcp/127.0.0.1:7448")]
    listen: String,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Build(options) => build(options),
        Verb::Inspect(options) => inspect(options),
        Verb::Serve(options) => serve(options),
    }
}

fn failure(error: EngineError) -> Failure {
    match error {
        EngineError::Problems(problems) => super::problems(problems),
        EngineError::Machine(_) | EngineError::Build(_) => Failure::failed(error),
    }
}

fn build(options: &Build) -> Result<(), Failure> {
    let config = Config::load(&options.config).map_err(super::problems)?;
    let bounds = Bounds {
        trtexec: options.trtexec.clone(),
        memory_max_bytes: options.memory_max_mib.map(|mib| mib << 20),
        time_max_s: options.time_max_min * 60.0,
    };
    // On a terminal the builder's state stays on one line; its own words are for the log.
    let terminal = std::io::stderr().is_terminal();
    let (mut drawn, mut told) = (false, 0);
    let mut tell = |progress| match progress {
        Progress::Line(line) => log::info!("trtexec: {line}"),
        Progress::Warning(words) => eprintln!("tendon: {words}"),
        Progress::At {
            elapsed_s,
            phase,
            memory_bytes,
            bound_bytes,
        } => {
            let words = format!("building: {elapsed_s:.0} s, {}", phase.words());
            if terminal {
                drawn = true;
                eprint!("\r{words:36} {}\x1b[K", bar(memory_bytes, bound_bytes));
            } else if is_due(elapsed_s, &mut told) {
                eprintln!("{words}, {} MiB", memory_bytes >> 20);
            }
            // Progress that cannot be written is no reason to stop.
            let _ = std::io::stderr().flush();
        }
    };
    let written = config.policy.precision_word();
    let policy = with_precision(config.policy, options.precision.as_deref());
    let built = engines::build(&policy, &bounds, &mut tell);
    if drawn {
        eprintln!();
    }
    let (built, tried) = built.map_err(failure)?;
    for built in built {
        let how = if built.cached {
            "was there".to_owned()
        } else {
            format!(
                "built in {:.0} s, at most {} MiB",
                built.built_s,
                built.peak_bytes >> 20
            )
        };
        let proven = if tried.is_empty() {
            "; the fixture passes"
        } else {
            ""
        };
        println!("{}: {how}{proven}", built.path.display());
    }
    for each in &tried {
        println!("{each}");
    }
    if let Some(best) = tried.first() {
        let word = best.precision.word();
        println!("the best is {word}, of those whose fixture passes");
        if written != BEST && written != word {
            println!(
                "tendon.toml has policy.precision = \"{written}\": \"best\" or \"{word}\" runs it"
            );
        }
    }
    Ok(())
}

/// Whether a line is due: once in each half-minute of a stage but its first. `told` is the last one that had its own; the next stage
/// begins again at none.
fn is_due(elapsed_s: f64, told: &mut u64) -> bool {
    let now = (elapsed_s / 30.0) as u64;
    let is_due = now > *told;
    *told = now;
    is_due
}

/// As the configuration has it, or as it was asked for.
fn with_precision(policy: PolicyConfig, asked: Option<&str>) -> PolicyConfig {
    let Some(asked) = asked else {
        return policy;
    };
    let known = Precision::ALL
        .into_iter()
        .find(|known| known.word() == asked);
    PolicyConfig {
        precision: known.unwrap_or_default(),
        best: asked == BEST,
        ..policy
    }
}

/// Memory against what bounds it. How far the builder is nobody knows: trtexec tells no percentage.
fn bar(memory_bytes: u64, bound_bytes: Option<u64>) -> String {
    const CELLS: u64 = 24;
    let mib = memory_bytes >> 20;
    let Some(bound) = bound_bytes.map(|bytes| bytes >> 20).filter(|mib| *mib > 0) else {
        return format!("{mib} MiB");
    };
    let full = (mib * CELLS / bound).min(CELLS) as usize;
    let empty = CELLS as usize - full;
    format!(
        "[{}{}] {mib} of {bound} MiB",
        "#".repeat(full),
        "-".repeat(empty)
    )
}

fn serve(options: &Serve) -> Result<(), Failure> {
    let ending = super::ending()?;
    let config = Config::load(&options.config).map_err(super::problems)?;
    proven(&options.listen, &config.link).map_err(|(expected, found)| {
        Failure::Usage(format!("--listen: expected {expected}, found {found}"))
    })?;
    let link = LinkConfig {
        listen: Some(options.listen.clone()),
        connect: None,
        ..config.link
    };
    let server = Server::load(&config.policy).map_err(super::problems)?;
    for words in server.words() {
        println!("{words}");
    }
    let ready = || println!("serving at {}", options.listen);
    server.run(&link, &ending, ready).map_err(Failure::failed)
}

fn inspect(options: &Inspect) -> Result<(), Failure> {
    let config = Config::load(&options.config).map_err(super::problems)?;
    let cache = engines::cache(&config.policy);
    let kept = engines::kept(&cache);
    if kept.is_empty() {
        println!("no engine in {}", cache.display());
    }
    for engine in kept {
        match engine.label {
            Ok(label) => println!(
                "{}: stage \"{}\" of ONNX {:.12}, {}, built in {:.0} s, flags {}",
                engine.path.display(),
                label.stage,
                label.onnx_sha256,
                label.target,
                label.built_s,
                label.flags.join(" ")
            ),
            Err(why) => println!("{}: unlabelled plan: {why}", engine.path.display()),
        }
    }
    if options.layers {
        for (described, times) in engines::layers(&config).map_err(failure)? {
            println!("{described}");
            for line in times {
                println!("{line}");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{bar, is_due};

    /// What comes each second and a little skips whole seconds, among them those that divide by thirty.
    #[test]
    fn each_half_minute_has_a_line_whatever_the_second_that_progress_comes_in() {
        for period_s in [1.0, 1.04, 1.1, 7.0] {
            let mut told = 0;
            for stage in 0..2 {
                let ticks = (1_u32..).map(|tick| f64::from(tick) * period_s);
                let of_a_build = ticks.take_while(|at_s| *at_s < 615.0);
                let lines: Vec<f64> = of_a_build.filter(|at_s| is_due(*at_s, &mut told)).collect();
                assert_eq!(lines.len(), 20, "stage {stage}, {period_s} s: {lines:?}");
                for (half, at_s) in (1_u32..).zip(&lines) {
                    let late_s = at_s - f64::from(half) * 30.0;
                    assert!((0.0..period_s).contains(&late_s), "{period_s} s: {at_s}");
                }
            }
        }
        // A builder that was not looked at for long is told of once.
        let mut told = 0;
        assert!(!is_due(0.0, &mut told) && !is_due(29.9, &mut told));
        assert!(is_due(95.0, &mut told) && !is_due(95.9, &mut told));
    }

    #[test]
    fn the_bar_is_memory_against_its_bound() {
        let mib = |n: u64| n << 20;
        assert_eq!(
            bar(0, Some(mib(96))),
            "[------------------------] 0 of 96 MiB"
        );
        assert_eq!(
            bar(mib(48), Some(mib(96))),
            "[############------------] 48 of 96 MiB"
        );
        assert_eq!(
            bar(mib(200), Some(mib(96))),
            "[########################] 200 of 96 MiB"
        );
        assert_eq!(bar(mib(7), None), "7 MiB");
        assert_eq!(bar(mib(7), Some(0)), "7 MiB");
    }
}
