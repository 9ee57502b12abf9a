// SPDX-License-Identifier: Apache-2.0
//! `tendon fault-sim`: the fault matrix in simulated time.

use crate::cli::Failure;
use clap::Args;
use tendon::runtime::{clock, fault_sim};

/// Arguments of `tendon fault-sim`.
#[derive(Debug, Args)]
pub struct Options {
    /// Runs of each row in each phase of the motion.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    seeds: u64,
    /// Only the row with this number.
    #[arg(long, value_name = "NUMBER")]
    row: Option<u32>,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`], also when a run was not as it must be.
pub fn run(options: &Options) -> Result<(), Failure> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let began = clock::now();
    let report = fault_sim::run(options.seeds, options.row, threads);
    let wall_s = clock::now().seconds_since(began);
    let days_a_minute = report.robot_hours / 24.0 / (wall_s / 60.0);
    if options.json {
        let mut json = serde_json::to_value(&report).map_err(Failure::failed)?;
        json["wall_s"] = wall_s.into();
        json["robot_days_per_wall_minute"] = days_a_minute.into();
        println!(
            "{}",
            serde_json::to_string_pretty(&json).map_err(Failure::failed)?
        );
    } else {
        let ms = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.0}"));
        println!("row  passed    worst ms  bound ms  fault");
        for row in &report.rows {
            println!(
                "{:3}  {:4}/{:<4} {:>8}  {:>8}  {}",
                row.row,
                row.passed,
                row.runs,
                ms(row.worst_reaction_ms),
                ms(row.bound_ms),
                row.name
            );
            if let Some(words) = &row.first_failure {
                println!("     {words}");
            }
        }
        for (name, group) in [
            ("pairs", &report.pairs),
            ("again during the stop", &report.again),
        ] {
            println!("     {:4}/{:<4} {name}", group.passed, group.runs);
            if let Some(words) = &group.first_failure {
                println!("     {words}");
            }
        }
        for (rows, why) in &report.elsewhere {
            println!("not simulated: {rows}: {why}");
        }
        println!(
            "{:.1} hours of robot time in {wall_s:.1} s: {days_a_minute:.2} days a minute",
            report.robot_hours
        );
    }
    if report.passed == report.runs {
        Ok(())
    } else {
        Err(Failure::Failed(format!(
            "{} of {} runs were not as they must be",
            report.runs - report.passed,
            report.runs
        )))
    }
}
