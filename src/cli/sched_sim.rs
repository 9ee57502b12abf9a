// SPDX-License-Identifier: Apache-2.0
//! `tendon sched-sim`: the scheduler alone, every merge rule over the same streams of chunks.

use crate::cli::demo::find_bundle;
use crate::cli::{Failure, problems};
use clap::Args;
use std::path::{Path, PathBuf};
use tendon::runtime::deployment::Deployment;
use tendon::runtime::schedule_sim::{self, Measured, OnBench, Scenario, Trace};
use tendon::runtime::{bench_loop, demo, schedule_plot};

/// Arguments of `tendon sched-sim`.
#[derive(Debug, Args)]
#[command(after_help = "Beside other software's own code, in one report: tests/peers/run.sh")]
pub struct Options {
    /// Print one JSON array, an object for each stream, delay and rule.
    #[arg(long)]
    json: bool,
    /// Seed of the streams.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Write the streams as JSON, for other software to run.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Record the chunks of episodes of the demo, in simulated time, to a file for --recorded; nothing else is done.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recorded", "export", "peers", "plot", "episodes"])]
    record: Option<PathBuf>,
    /// Run also the streams of this file.
    #[arg(long, value_name = "FILE")]
    recorded: Option<PathBuf>,
    /// Measure also what other software made of those streams.
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// Run so many episodes of the demo as well, under each rule and delay that --bench-rules and --bench-delays name.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    episodes: Option<u32>,
    /// The rules for them, as the report names them; without it, all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "episodes", value_parser = rule)]
    bench_rules: Vec<String>,
    /// Their injected delays of inference, ms: of those that a stream without jitter and loss has.
    #[arg(long, value_name = "MS", value_delimiter = ',', requires = "episodes", default_values_t = [0, 150, 300])]
    bench_delays: Vec<u64>,
    /// Serve the demo's world and policy to a loop of another program: JSON lines on standard input and output; nothing else
    /// is done.
    #[arg(long, hide = true)]
    bench_loop: bool,
    /// The policy bundle for them. Without it: as for the demo.
    #[arg(long, value_name = "DIR")]
    bundle: Option<PathBuf>,
    /// Draw position, velocity and acceleration over two seams.
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// The name of a merge rule.
fn rule(word: &str) -> Result<String, String> {
    let rules = schedule_sim::rules().into_iter();
    let names: Vec<String> = rules.map(|(name, _)| name).collect();
    let word = word.trim();
    match names.iter().any(|name| name == word) {
        true => Ok(word.to_owned()),
        false => Err(format!("expected some of: {}", names.join(", "))),
    }
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    if let Some(path) = &options.record {
        return record(options, path);
    }
    if options.bench_loop {
        return serve(options);
    }
    let mut scenarios = schedule_sim::scenarios(options.seed);
    if let Some(path) = &options.recorded {
        scenarios.extend(read::<Scenario>(path)?);
    }
    if options.episodes.is_some() {
        delays_are_there(&options.bench_delays, &scenarios)?;
    }
    if let Some(path) = &options.export {
        write(
            path,
            &serde_json::to_string(&scenarios).map_err(Failure::failed)?,
        )?;
    }
    let mut traces: Vec<Trace> = Vec::new();
    for (index, scenario) in scenarios.iter().enumerate() {
        for rule in schedule_sim::rules() {
            traces.push(schedule_sim::run(index, scenario, &rule).map_err(Failure::failed)?);
        }
    }
    if let Some(path) = &options.peers {
        traces.extend(read::<Trace>(path)?);
    }
    if let Some(path) = &options.plot {
        write(path, &schedule_plot::draw(&scenarios, &traces))?;
    }
    let mut measured: Vec<_> = traces
        .iter()
        .filter_map(|trace| Some(schedule_sim::measure(scenarios.get(trace.scenario)?, trace)))
        .collect();
    if let Some(episodes) = options.episodes {
        run_on_bench(options, episodes, &mut measured)?;
    }
    if options.json {
        println!(
            "{}",
            serde_json::to_string(&measured).map_err(Failure::failed)?
        );
        return Ok(());
    }
    println!(
        "stream    delay jitter loss  seam: rad  rad/s  rad/s2   jerk max     rms  stall ms skip react ms  done  who"
    );
    for m in measured {
        println!(
            "{:9} {:5} {:6} {:4} {:10.4} {:6.3} {:7.2} {:10.0} {:7.0} {:9} {:4} {:>8} {:>5}  {}",
            m.stream,
            m.delay_ms,
            m.jitter_ms,
            m.loss,
            m.seam_dq_rad,
            m.seam_dqd_rad_s,
            m.seam_dqdd_rad_s2,
            m.jerk_max_rad_s3,
            m.jerk_rms_rad_s3,
            m.stalled_ms,
            m.skipped_at_start,
            m.reaction_ms.map_or("-".to_owned(), |ms| ms.to_string()),
            m.bench
                .as_ref()
                .map_or("-".to_owned(), |bench| format!("{:.2}", bench.success_rate)),
            m.name
        );
    }
    Ok(())
}

/// Episodes are told beside a stream of their delay: one that no stream has would be passed over.
fn delays_are_there(wanted: &[u64], scenarios: &[Scenario]) -> Result<(), Failure> {
    let plain = scenarios
        .iter()
        .filter(|scenario| scenario.jitter_ms == 0 && scenario.loss == 0.0);
    let mut there: Vec<u64> = plain.map(|scenario| scenario.delay_ms).collect();
    there.sort_unstable();
    there.dedup();
    let Some(missing) = wanted.iter().find(|delay_ms| !there.contains(delay_ms)) else {
        return Ok(());
    };
    let there: Vec<String> = there.iter().map(u64::to_string).collect();
    Err(Failure::Usage(format!(
        "--bench-delays: expected some of {} (ms), found {missing}",
        there.join(", ")
    )))
}

/// The demo's world and policy for another loop.
fn serve(options: &Options) -> Result<(), Failure> {
    let bundle = find_bundle(options.bundle.as_deref())?;
    let config = demo::bench_config(&bundle, false).map_err(problems)?;
    let deployment = Deployment::load(config).map_err(problems)?;
    let (input, output) = (std::io::stdin().lock(), std::io::stdout().lock());
    bench_loop::serve(deployment, input, output).map_err(Failure::failed)
}

/// Chunks of the demo's policy under some delays.
fn record(options: &Options, path: &Path) -> Result<(), Failure> {
    let bundle = find_bundle(options.bundle.as_deref())?;
    let mut streams = Vec::new();
    for delay_ms in [0, 150, 300] {
        let found = schedule_sim::recorded(&bundle, delay_ms, options.seed);
        streams.extend(found.map_err(Failure::failed)?);
    }
    write(
        path,
        &serde_json::to_string(&streams).map_err(Failure::failed)?,
    )
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// Adds to each row without jitter and loss what the demo does under its rule and delay.
fn run_on_bench(
    options: &Options,
    episodes: u32,
    measured: &mut [Measured],
) -> Result<(), Failure> {
    let bundle = find_bundle(options.bundle.as_deref())?;
    let mut known: Vec<(u64, String, OnBench)> = Vec::new();
    for row in measured
        .iter_mut()
        .filter(|row| row.jitter_ms == 0 && row.loss == 0.0)
        .filter(|row| options.bench_delays.contains(&row.delay_ms))
    {
        let rules = schedule_sim::rules();
        let Some((_, merge)) = rules
            .iter()
            .find(|(name, _)| row.name == format!("tendon {name}"))
            .filter(|(name, _)| {
                options.bench_rules.is_empty() || options.bench_rules.contains(name)
            })
        else {
            continue;
        };
        let same = known
            .iter()
            .find(|(delay_ms, name, _)| (*delay_ms, name) == (row.delay_ms, &row.name));
        let found = match same {
            Some((.., found)) => found.clone(),
            None => {
                let plan = (episodes, options.seed);
                let found = schedule_sim::on_bench(&bundle, *merge, row.delay_ms, plan)
                    .map_err(Failure::failed)?;
                known.push((row.delay_ms, row.name.clone(), found.clone()));
                found
            }
        };
        row.bench = Some(found);
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use crate::cli::Arguments;
    use clap::Parser;

    fn refused(more: &[&str]) -> Option<String> {
        let parsed = Arguments::try_parse_from([&["tendon", "sched-sim"][..], more].concat());
        parsed.err().map(|error| error.to_string())
    }

    #[test]
    fn rules_are_those_of_the_report_and_go_with_episodes() {
        // As tests/peers/run.sh names them.
        let names = "replace,blend 100 ms,aggregate weighted_average, ensemble 0.01 oldest first";
        assert_eq!(refused(&["--episodes", "1", "--bench-rules", names]), None);
        let said = refused(&["--episodes", "1", "--bench-rules", "replace,typo"]);
        let said = said.expect("refused");
        assert!(
            said.contains("typo") && said.contains("blend 100 ms"),
            "{said}"
        );
        for alone in [["--bench-rules", "replace"], ["--bench-delays", "150"]] {
            let said = refused(&alone).expect("refused");
            assert!(said.contains("--episodes"), "{said}");
        }
        assert!(refused(&["--episodes", "0"]).is_some(), "episodes of none");
    }
}
