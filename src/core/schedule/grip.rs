// SPDX-License-Identifier: Apache-2.0
//! Grippers close and open: events, where everything else is motion. A late chunk may leave out a part of a motion; it
//! must not leave out an event, nor undo one that it could not have seen.
//!
//! - [`Grip::skipped`]: where a chunk that begins late would step over the moment at which a gripper is to close or open,
//!   it is followed from before that moment instead. What comes after (lifting, say) was planned for a gripper that has
//!   done it.
//! - [`Grip::taken`]: a chunk whose observation is older than a gripper's last event, and which expects that event later
//!   or not at all, does not take it back. The next observation decides.

use super::seam::Motion;
use crate::core::action::JointKind;
use crate::core::chunk::Chunk;
use crate::core::limits::JOINTS_MAX;
use crate::core::units::Mono;

/// A gripper at this or above is closed: half of its 0..1.
const CLOSED: f64 = 0.5;

/// What each gripper was last told, and when it changed sides.
#[derive(Clone, Copy, Debug)]
pub struct Grip {
    told: [f64; JOINTS_MAX],
    changed_at: [Mono; JOINTS_MAX],
    /// The plan's word is not taken until it agrees with what was told.
    kept: [bool; JOINTS_MAX],
}

impl Default for Grip {
    fn default() -> Self {
        Grip {
            told: [0.0; JOINTS_MAX],
            changed_at: [Mono(0); JOINTS_MAX],
            kept: [false; JOINTS_MAX],
        }
    }
}

fn closed(value: f64) -> bool {
    value >= CLOSED
}

fn closes(chunk: &Chunk, step: usize, joint: usize) -> bool {
    closed(f64::from(
        chunk.action(step).get(joint).copied().unwrap_or(0.0),
    ))
}

fn grippers(kinds: &[JointKind]) -> impl Iterator<Item = usize> {
    kinds
        .iter()
        .enumerate()
        .filter(|(_, kind)| **kind == JointKind::Gripper)
        .map(|(joint, _)| joint)
}

impl Grip {
    /// The grippers are as in `position`, and nothing is known of when they came to be.
    pub fn reset(&mut self, position: &[f64; JOINTS_MAX]) {
        *self = Grip {
            told: *position,
            ..Grip::default()
        };
    }

    /// The grippers were told this by somebody else.
    pub fn was_told(&mut self, position: &[f64; JOINTS_MAX]) {
        self.told = *position;
    }

    /// The action of `chunk` in which the first gripper that would be on another side by `now` gets there, if `chunk`
    /// began on this side: what beginning at `now` would step over.
    #[must_use]
    pub fn skipped(&self, chunk: &Chunk, kinds: &[JointKind], now: Mono) -> Option<usize> {
        let passed = now.since_ns(chunk.first_at()) / chunk.period_ns().max(1);
        let passed = usize::try_from(passed)
            .unwrap_or(usize::MAX)
            .min(chunk.steps() - 1);
        grippers(kinds)
            .filter_map(|joint| {
                let is = closed(self.told.get(joint).copied().unwrap_or(0.0));
                let began = closes(chunk, 0, joint);
                let due = closes(chunk, passed, joint);
                if began != is || due == is {
                    return None;
                }
                (1..=passed).find(|step| closes(chunk, *step, joint) != is)
            })
            .min()
    }

    /// `chunk` takes over.
    pub fn taken(&mut self, chunk: &Chunk, kinds: &[JointKind]) {
        let captured = chunk.provenance().captured;
        for joint in grippers(kinds) {
            if let (Some(kept), Some(changed_at)) =
                (self.kept.get_mut(joint), self.changed_at.get(joint))
            {
                *kept = captured < *changed_at;
            }
        }
    }

    /// The plan's word for `now` becomes what is told.
    pub fn tell(&mut self, motion: &mut Motion, kinds: &[JointKind], now: Mono) {
        for joint in grippers(kinds) {
            let slots = (
                self.told.get_mut(joint),
                self.changed_at.get_mut(joint),
                self.kept.get_mut(joint),
                motion.position().get(joint).copied(),
            );
            let (Some(told), Some(changed_at), Some(kept), Some(planned)) = slots else {
                continue;
            };
            let agrees = closed(planned) == closed(*told);
            if *kept && !agrees {
                let told = *told;
                motion.set(joint, told, 0.0, 0.0);
                continue;
            }
            *kept = false;
            if !agrees {
                *changed_at = now;
            }
            *told = planned;
        }
    }
}
