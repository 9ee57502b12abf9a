// SPDX-License-Identifier: Apache-2.0
//! `tendon fault-sim`: the fault matrix in simulated time.

use crate::cli::Failure;
use clap::Args;
use tendon::runtime::fault_sim::rows::ROWS;
use tendon::runtime::{clock, fault_sim};

/// Arguments of `tendon fault-sim`.
#[derive(Debug, Args)]
pub struct Options {
    /// Runs of each row in each phase of the motion.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    seeds: u64,
    /// Only the rows with this number: the report has the numbers in its first column, and at its end what is not simulated.
    #[arg(long, value_name = "NUMBER", value_parser = number)]
    row: Option<u32>,
    /// Print one JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// The number of a row that is simulated.
fn number(word: &str) -> Result<u32, String> {
    let mut all: Vec<u32> = ROWS.iter().map(|row| row.number).collect();
    all.sort_unstable();
    all.dedup();
    let number: Option<u32> = word.parse().ok();
    number.filter(|number| all.contains(number)).ok_or_else(|| {
        let all: Vec<String> = all.iter().map(u32::to_string).collect();
        format!(
            "expected a row that is simulated ({}); the end of every report says why others are not",
            all.join(", ")
        )
    })
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
    judged(report.passed, report.runs)
}

/// Passed if all runs were as they must be, and there were any: what was not run has shown nothing.
fn judged(passed: usize, runs: usize) -> Result<(), Failure> {
    match runs {
        0 => Err(Failure::Failed(
            "expected at least one run, found none: nothing was shown".to_owned(),
        )),
        _ if passed == runs => Ok(()),
        _ => Err(Failure::Failed(format!(
            "{} of {runs} runs were not as they must be",
            runs - passed
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::{judged, number};
    use tendon::runtime::fault_sim::rows::ROWS;

    #[test]
    fn no_run_is_no_pass() {
        assert!(judged(0, 0).is_err());
        assert!(judged(9, 10).is_err());
        assert!(judged(10, 10).is_ok());
    }

    #[test]
    fn each_row_that_is_simulated_can_be_asked_for_and_no_other() {
        for row in ROWS {
            assert_eq!(number(&row.number.to_string()), Ok(row.number));
        }
        // 23 needs real processes.
        for none in ["0", "23", "999", "-1", "", "four"] {
            let said = number(none).expect_err(none);
            assert!(
                said.contains("(1, 2, ") && said.contains(", 31, "),
                "{said}"
            );
        }
    }
}
