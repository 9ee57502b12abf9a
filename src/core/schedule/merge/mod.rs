// SPDX-License-Identifier: Apache-2.0
//! Merge rules: what the plan is where an old and a new chunk both have a word. One file a rule.
//!
//! A rule only decides the plan. That the motion stays smooth when the plan changes is the seam's work, whatever the
//! rule. Rules that mix work on the new chunk's time grid: the old plan is read at the time of each new action, so two
//! chunks need not be aligned, and actions that only the old plan had are gone. Where the old plan comes to its end its
//! share fades: a prediction that dropped out of a mean from one action to the next would make the plan jump, which the
//! published rules do. A gripper always takes the newest
//! chunk's word: the mean of open and closed is neither.

pub mod aggregate;
pub mod ensemble;
pub mod smooth;

use super::curve::{Taps, mixed};
use crate::core::action::JointKind;
use crate::core::chunk::Chunk;
use crate::core::limits::CHUNK_STEPS_MAX;
pub use aggregate::Aggregate;
pub use ensemble::Order;

/// How a new chunk takes over from the old one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Merge {
    /// At once, by the shortest seam that keeps to the bounds.
    Replace,
    /// By a seam of at least this length.
    Blend {
        /// Length of the fade in motion, > 0. Longer than the time between two chunks it works against the policy:
        /// what a chunk corrects is faded in only after the next chunk has replaced it.
        blend_ns: u64,
    },
    /// The weighted mean of every prediction made for the same time.
    Ensemble {
        /// ACT's m: weight exp(-m i) of prediction i. 0 is the plain mean.
        decay: f64,
        /// Which prediction is number 0.
        order: Order,
    },
    /// A fixed mix of the plan so far and the new chunk.
    Aggregate(Aggregate),
    /// The running mean of the last actions. It lags by half its length.
    Smooth {
        /// How many actions, 1 ..= 32.
        last: u16,
    },
}

/// What is followed: the merged chunk, the chunk as it came, and how many predictions each action is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is followed.
    pub merged: Chunk,
    /// The newest chunk as the policy gave it.
    pub raw: Chunk,
    votes: [u16; CHUNK_STEPS_MAX],
}

/// Over how many of its last actions an old plan's share fades: a quarter of it, 1 ..= 8.
fn fading_steps(steps: usize) -> u64 {
    (steps as u64 / 4).clamp(1, 8)
}

impl Plan {
    /// A place for a plan.
    #[must_use]
    pub const fn blank() -> Plan {
        Plan {
            merged: Chunk::blank(),
            raw: Chunk::blank(),
            votes: [1; CHUNK_STEPS_MAX],
        }
    }

    /// Becomes the plan after `chunk` has come, `old` being what was followed until now.
    pub fn become_next(
        &mut self,
        old: Option<&Plan>,
        chunk: &Chunk,
        rule: Merge,
        kinds: &[JointKind],
    ) {
        self.merged.assign(chunk);
        self.raw.assign(chunk);
        self.votes = [1; CHUNK_STEPS_MAX];
        match (rule, old) {
            (Merge::Smooth { last }, old) => smooth::fold(old, self, last, kinds),
            (Merge::Ensemble { decay, order }, Some(old)) => self.mix(old, kinds, |votes| {
                ensemble::share_of_new(votes, decay, order)
            }),
            (Merge::Aggregate(named), Some(old)) => {
                self.mix(old, kinds, |_| named.share_of_new());
            }
            (Merge::Replace | Merge::Blend { .. }, _)
            | (Merge::Ensemble { .. } | Merge::Aggregate(_), None) => {}
        }
    }

    /// Adds a share of `old` to each action that both have. `share_of_new` is given how many predictions the old
    /// action is made of.
    fn mix(&mut self, old: &Plan, kinds: &[JointKind], share_of_new: impl Fn(u16) -> f64) {
        let old_end = old.merged.last_at();
        let fading_ns = old
            .merged
            .period_ns()
            .saturating_mul(fading_steps(old.merged.steps()));
        for step in 0..self.raw.steps() {
            let at = self.raw.at(step);
            let Some(taps) = Taps::at(&old.merged, at) else {
                continue;
            };
            let votes = old.votes.get(taps.step).copied().unwrap_or(1);
            let still_there = old_end.since_ns(at) as f64 / fading_ns as f64;
            let share = 1.0 - (1.0 - share_of_new(votes)) * still_there.min(1.0);
            let rows = taps.rows(&old.merged);
            for ((joint, value), kind) in self
                .merged
                .action_mut(step)
                .iter_mut()
                .enumerate()
                .zip(kinds)
            {
                if *kind != JointKind::Gripper {
                    *value =
                        (share * f64::from(*value) + (1.0 - share) * mixed(&rows, joint)) as f32;
                }
            }
            if let Some(slot) = self.votes.get_mut(step) {
                *slot = votes.saturating_add(1);
            }
        }
    }
}
