// SPDX-License-Identifier: Apache-2.0
//! The fault matrix in simulated time: every row, in every phase of a motion, with many seeds; pairs of faults; and
//! each fault once more during the stop that it caused.
//!
//! [`rows`] says what must follow, [`world`] is the robot and the pipeline, [`judge`] looks at every tick.

mod film;
pub mod judge;
pub mod phase;
pub mod rows;
pub mod world;

use crate::bench::dice::Dice;
use crate::core::units::MS;
use judge::{Outcome, Run};
use phase::{PHASES, Phase};
use rows::{ELSEWHERE, PAIRED, ROWS, Row};
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One row over all of its runs.
#[derive(Clone, Debug, Serialize)]
pub struct RowReport {
    /// Number in the safety notes.
    pub row: u32,
    /// What strikes.
    pub name: &'static str,
    /// How often it struck.
    pub runs: usize,
    /// How often all was as it must be.
    pub passed: usize,
    /// Longest time from the moment from which the bound counts to the first command that brakes, ms.
    pub worst_reaction_ms: Option<f64>,
    /// What it must not exceed, ms.
    pub bound_ms: Option<f64>,
    /// The first run that was not, in words.
    pub first_failure: Option<String>,
}

/// Pairs, or repetitions.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Group {
    /// How many.
    pub runs: usize,
    /// As they must be.
    pub passed: usize,
    /// The first that was not.
    pub first_failure: Option<String>,
}

/// What the campaign showed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Seeds of each row in each phase.
    pub seeds: u64,
    /// Runs in all.
    pub runs: usize,
    /// Of these, as they must be.
    pub passed: usize,
    /// Each row.
    pub rows: Vec<RowReport>,
    /// Ordered pairs of faults, the second up to 100 ms after the first.
    pub pairs: Group,
    /// Faults that end and strike again during their stop.
    pub again: Group,
    /// Simulated time, hours.
    pub robot_hours: f64,
    /// Rows that are not simulated, and why.
    pub elsewhere: Vec<(&'static str, &'static str)>,
}

/// One thing to run.
enum Task {
    Single(usize, Phase, u64),
    Pair(&'static Row, &'static Row, Phase, u64),
    Again(&'static Row, Phase, u64),
}

/// A simulated world has its schedule and governors in itself and is handed from hand to hand: half a megabyte each time.
const STACK_BYTES: usize = 16 << 20;

/// Runs everything, on `threads` threads. The same seeds give the same report whatever their number.
#[must_use]
pub fn run(seeds: u64, only: Option<u32>, threads: usize) -> Report {
    let tasks = tasks(seeds, only);
    let next = AtomicUsize::new(0);
    let mut done: Vec<(usize, Outcome)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| {
                let work = || {
                    let mut done = Vec::new();
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(task) = tasks.get(index) else {
                            return done;
                        };
                        done.push((index, run_one(task)));
                    }
                };
                let worker = std::thread::Builder::new().stack_size(STACK_BYTES);
                worker
                    .spawn_scoped(scope, work)
                    .expect("a thread to simulate on")
            })
            .collect();
        // A run that panics is a fault of the simulation, and ends it.
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("no run panics"))
            .collect()
    });
    done.sort_by_key(|(index, _)| *index);
    report(
        seeds,
        &tasks,
        done.into_iter().map(|(_, outcome)| outcome).collect(),
    )
}

fn tasks(seeds: u64, only: Option<u32>) -> Vec<Task> {
    let wanted = |row: &Row| only.is_none_or(|only| only == row.number);
    let mut tasks = Vec::new();
    for (index, row) in ROWS.iter().enumerate().filter(|(_, row)| wanted(row)) {
        for phase in PHASES {
            for seed in 0..seeds {
                tasks.push(Task::Single(index, phase, seed));
                if row.finally >= rows::Finally::Resumes {
                    tasks.push(Task::Again(row, phase, seed));
                }
            }
        }
    }
    let paired = || ROWS.iter().filter(|row| PAIRED.contains(&row.number));
    for first in paired().filter(|row| wanted(row)) {
        for second in paired().filter(|row| row.number != first.number) {
            for phase in PHASES {
                for seed in 0..seeds {
                    tasks.push(Task::Pair(first, second, phase, seed));
                }
            }
        }
    }
    tasks
}

fn run_one(task: &Task) -> Outcome {
    match task {
        Task::Single(index, phase, seed) => match ROWS.get(*index) {
            Some(row) => Run::new(*phase, seed_of(row.number, 0, *phase, *seed)).single(row),
            None => Outcome::default(),
        },
        Task::Pair(first, second, phase, seed) => {
            let seed = seed_of(first.number, second.number, *phase, *seed);
            let gap_ns = (Dice::new(seed, 5).below(20) as u64) * 5 * MS;
            Run::new(*phase, seed).pair(first, second, gap_ns)
        }
        Task::Again(row, phase, seed) => {
            Run::new(*phase, seed_of(row.number, row.number, *phase, *seed)).again(row)
        }
    }
}

fn seed_of(first: u32, second: u32, phase: Phase, seed: u64) -> u64 {
    seed ^ u64::from(first) << 40 ^ u64::from(second) << 48 ^ (phase as u64) << 56
}

fn report(seeds: u64, tasks: &[Task], outcomes: Vec<Outcome>) -> Report {
    let mut rows: Vec<RowReport> = ROWS
        .iter()
        .map(|row| RowReport {
            row: row.number,
            name: row.name,
            runs: 0,
            passed: 0,
            worst_reaction_ms: None,
            bound_ms: judge::bound_ms(row),
            first_failure: None,
        })
        .collect();
    let (mut pairs, mut again) = (Group::default(), Group::default());
    let (mut passed, mut robot_ns) = (0, 0);
    let runs = outcomes.len();
    for (task, outcome) in tasks.iter().zip(outcomes) {
        robot_ns += outcome.robot_ns;
        passed += usize::from(outcome.failure.is_none());
        let group = match task {
            Task::Single(index, ..) => {
                if let Some(row) = rows.get_mut(*index) {
                    row.runs += 1;
                    row.passed += usize::from(outcome.failure.is_none());
                    row.first_failure = row.first_failure.take().or(outcome.failure);
                    if let Some(ns) = outcome.reaction_ns {
                        let worst = row.worst_reaction_ms.unwrap_or(0.0);
                        row.worst_reaction_ms = Some(worst.max(ns as f64 * 1e-6));
                    }
                }
                continue;
            }
            Task::Pair(..) => &mut pairs,
            Task::Again(..) => &mut again,
        };
        group.runs += 1;
        group.passed += usize::from(outcome.failure.is_none());
        group.first_failure = group.first_failure.take().or(outcome.failure);
    }
    rows.retain(|row| row.runs > 0);
    Report {
        seeds,
        runs,
        passed,
        rows,
        pairs,
        again,
        robot_hours: robot_ns as f64 / 3.6e12,
        elsewhere: ELSEWHERE.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_matrix_holds_in_every_phase() {
        let report = run(2, None, 2);
        let failures: Vec<&String> = report
            .rows
            .iter()
            .filter_map(|row| row.first_failure.as_ref())
            .chain(&report.pairs.first_failure)
            .chain(&report.again.first_failure)
            .collect();
        assert!(failures.is_empty(), "{failures:#?}");
        assert_eq!(report.runs, report.passed);
        assert!(report.runs > 800, "{}", report.runs);
    }
}
