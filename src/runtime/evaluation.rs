// SPDX-License-Identifier: Apache-2.0
//! The evaluation: which episodes are run, and what is counted. The same in real time and in simulated time.

use crate::bench::episode::{Ask, Outcome, Spec};
use crate::policy::parity::Parity;
use crate::runtime::telemetry::{Figures, Rungs, Spread};
use serde::Serialize;

/// Seeds of evaluation start here; training draws its seeds far below.
const SEED_BASE: u64 = 0x7e57 << 32;
/// One grounding episode of each kind for so many episodes, 40 at most: its share of the time stays small.
const GROUNDING_SHARE: u32 = 5;
const GROUNDING_MAX: u32 = 40;

/// The episodes of an evaluation: half touch, half put; half with held-out wordings; half with held-out positions.
#[must_use]
pub fn plan(episodes: u32, seed: u64) -> Vec<Spec> {
    let base = SEED_BASE.wrapping_add(seed.wrapping_mul(1_000_000));
    (0..episodes)
        .map(|index| Spec {
            seed: base.wrapping_add(u64::from(index)),
            put: index % 2 == 1,
            held_out_position: index / 4 % 2 == 1,
            ask: if index / 2 % 2 == 1 {
                Ask::HeldOut
            } else {
                Ask::Seen
            },
        })
        .collect()
}

/// The episodes that show whether the robot listens.
#[must_use]
pub fn grounding_plan(episodes: u32, seed: u64) -> Vec<Spec> {
    let each = (episodes / GROUNDING_SHARE).clamp(1, GROUNDING_MAX);
    let base = SEED_BASE
        .wrapping_add(seed.wrapping_mul(1_000_000))
        .wrapping_add(500_000);
    (0..each)
        .flat_map(|index| {
            [Ask::OtherBlock, Ask::AbsentColour, Ask::Nonsense].map(|ask| Spec {
                seed: base.wrapping_add(u64::from(index)),
                put: index % 2 == 1,
                held_out_position: false,
                ask,
            })
        })
        .collect()
}

/// Episodes and how many went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Tally {
    /// Episodes run.
    pub episodes: u32,
    /// Episodes that went as asked.
    pub successes: u32,
    /// Their share, 0 when none were run.
    pub success_rate: f64,
}

impl Tally {
    fn add(&mut self, good: bool) {
        self.episodes += 1;
        self.successes += u32::from(good);
        self.success_rate = f64::from(self.successes) / f64::from(self.episodes);
    }
}

/// One task, whole and by what was held out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TaskTallies {
    /// Every episode of the task.
    pub all: Tally,
    /// Wordings of training.
    pub seen_wording: Tally,
    /// Wordings never trained on.
    pub held_out_wording: Tally,
    /// The named block where training had one.
    pub seen_position: Tally,
    /// The named block where training never had one.
    pub held_out_position: Tally,
}

/// Both tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Tasks {
    /// Tip to the named block.
    pub touch: TaskTallies,
    /// Named block into the named tray.
    pub put: TaskTallies,
}

/// Does the robot do what is said, rather than what it is used to?
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Grounding {
    /// Another block was named: successes on the block that was named.
    pub other_block_named_block: Tally,
    /// Another block was named: successes on the original one, which nobody asked for.
    pub other_block_original: Tally,
    /// A colour that is not there: successes on the original block.
    pub absent_colour_original: Tally,
    /// A colour that is not there: episodes in which the tip stayed within 30 mm.
    pub absent_colour_held_still: Tally,
    /// Nonsense: successes on the original block.
    pub nonsense_original: Tally,
    /// Nonsense: episodes in which the tip stayed within 30 mm.
    pub nonsense_held_still: Tally,
}

/// What `tendon demo --json` prints. In lockstep every field but `inference_ms` and `wall_s` is simulated, and equal
/// for equal seeds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Episodes of the two tasks; grounding episodes come on top.
    pub episodes: u32,
    /// Of them, done as asked.
    pub successes: u32,
    /// Their share.
    pub success_rate: f64,
    /// The bundle's name.
    pub policy: String,
    /// fp32, fp16 or int8.
    pub precision: String,
    /// How it compares with its fixture.
    pub parity: Parity,
    /// Observations that were kept with their answers, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorded: Option<usize>,
    /// `lockstep` or `real_time`.
    pub time: &'static str,
    /// Seed of the evaluation.
    pub seed: u64,
    /// Added to every chunk.
    pub injected_inference_delay_ms: u64,
    /// Control rate.
    pub control_hz: f64,
    /// Control ticks.
    pub ticks: u64,
    /// Ticks that came after their successor was due.
    pub late_ticks: u64,
    /// What the setpoints were made of, and how often a plan ran out.
    pub ladder: Rungs,
    /// How late the control loop woke.
    pub tick_lateness_us: Spread,
    /// From a frame landing to the first command made of it.
    pub frame_to_command_ms: Spread,
    /// The same without the policy's own time.
    pub frame_to_command_minus_inference_ms: Spread,
    /// The policy's own time: preprocess, engine, decode. Always wall-clock.
    pub inference_ms: Spread,
    /// Commands outside the limits, counted by the bench robot.
    pub limit_violations: u64,
    /// Commands handed to the link.
    pub commands_sent: u64,
    /// Plans that the policy made.
    pub chunks: u64,
    /// Commands that the bench robot refused, for whatever reason.
    pub commands_rejected: u64,
    /// Allocations on the control and governor threads since start-up.
    pub allocations_in_control_loop: u64,
    /// Allocations on the capture threads for good pictures, the first aside; none in simulated time, which has no such thread.
    pub allocations_in_capture_loop: Option<u64>,
    /// Ticks in which the governor changed what the scheduler proposed while following.
    pub governor_interventions: u64,
    /// Times the robot latched a stop (lost state or echo: a machine too busy) and was reset for the next episode.
    pub latched_stops: u32,
    /// Per task and held-out group.
    pub tasks: Tasks,
    /// Language grounding.
    pub grounding: Grounding,
    /// Wall-clock duration.
    pub wall_s: f64,
}

impl Report {
    /// Counts one episode.
    pub fn add(&mut self, spec: &Spec, outcome: &Outcome) {
        let good = outcome.named_done;
        let grounding = &mut self.grounding;
        match spec.ask {
            Ask::Seen | Ask::HeldOut => {
                self.episodes += 1;
                self.successes += u32::from(good);
                self.success_rate = f64::from(self.successes) / f64::from(self.episodes);
                let task = if spec.put {
                    &mut self.tasks.put
                } else {
                    &mut self.tasks.touch
                };
                task.all.add(good);
                let wording = if spec.ask == Ask::HeldOut {
                    &mut task.held_out_wording
                } else {
                    &mut task.seen_wording
                };
                wording.add(good);
                let position = if spec.held_out_position {
                    &mut task.held_out_position
                } else {
                    &mut task.seen_position
                };
                position.add(good);
            }
            Ask::OtherBlock => {
                grounding.other_block_named_block.add(outcome.other_done);
                grounding.other_block_original.add(good);
            }
            Ask::AbsentColour => {
                grounding.absent_colour_original.add(good);
                grounding.absent_colour_held_still.add(outcome.held_still);
            }
            Ask::Nonsense => {
                grounding.nonsense_original.add(good);
                grounding.nonsense_held_still.add(outcome.held_still);
            }
        }
    }

    /// Takes over what telemetry measured.
    pub fn take(&mut self, figures: &Figures) {
        self.ticks = figures.ticks;
        self.late_ticks = figures.ticks_missed;
        self.commands_sent = figures.commands;
        self.chunks = figures.chunks;
        self.ladder = figures.ladder;
        self.tick_lateness_us = figures.tick_lateness_us;
        self.frame_to_command_ms = figures.frame_to_command_ms;
        self.frame_to_command_minus_inference_ms = figures.frame_to_command_minus_inference_ms;
        self.inference_ms = figures.inference_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_balanced_and_its_seeds_are_its_own() {
        let specs = plan(200, 7);
        let count = |test: fn(&&Spec) -> bool| specs.iter().filter(test).count();
        assert_eq!(count(|spec| spec.put), 100);
        assert_eq!(count(|spec| spec.ask == Ask::HeldOut), 100);
        assert_eq!(count(|spec| spec.held_out_position), 100);
        assert_eq!(
            count(|spec| spec.put && spec.held_out_position && spec.ask == Ask::HeldOut),
            25
        );
        let grounding = grounding_plan(200, 7);
        assert!(
            grounding
                .iter()
                .all(|spec| specs.iter().all(|other| other.seed != spec.seed))
        );
    }

    #[test]
    fn a_report_counts_what_was_asked_for() {
        let mut report = Report::default();
        let done = Outcome {
            over: true,
            named_done: true,
            other_done: false,
            held_still: false,
            elapsed_s: 1.0,
        };
        let spec = plan(1, 1)[0];
        report.add(&spec, &done);
        report.add(
            &Spec {
                ask: Ask::OtherBlock,
                ..spec
            },
            &Outcome {
                named_done: false,
                other_done: true,
                ..done
            },
        );
        assert_eq!(
            (report.episodes, report.successes),
            (1, 1),
            "grounding does not count as an episode"
        );
        assert_eq!(report.grounding.other_block_named_block.successes, 1);
        assert_eq!(report.grounding.other_block_original.successes, 0);
    }
}
