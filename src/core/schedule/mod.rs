// SPDX-License-Identifier: Apache-2.0
//! The scheduler: chunks in, one setpoint at each tick out.
//!
//! A chunk lies on the robot's time line by the capture time of its observation, so a late chunk starts at the action
//! for *now* and inference latency shifts nothing. When the chunk ends the scheduler says so and the governor brings
//! the robot to rest: nothing here repeats or extrapolates. Between two actions the joints follow a cubic through the
//! actions ([`curve`]); at a seam the difference to what was being done is faded out ([`seam`]).
//!
//! It does not: enforce limits (the governor), decide whether the robot may move (the supervisor), know how old the
//! joint state is (the governor).
//!
//! ```text
//!            newer observation, young enough
//!   Empty ------------------------------------> Following --- past its last action ---> Ended
//!     ^                                           |  ^  newer chunk: seam                 |
//!     +------------- reset (standby) -------------+  +------------------------------------+
//! ```

pub mod curve;
pub mod seam;
#[cfg(test)]
mod tests;

use crate::core::action::{JointKind, Setpoint};
use crate::core::chunk::{Chunk, Provenance};
use crate::core::limits::JOINTS_MAX;
use crate::core::units::Mono;
use seam::Seam;

/// How a new chunk takes over from the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// At once: the setpoint may jump, and the governor turns the jump into the fastest legal motion.
    Replace,
    /// The difference in position, velocity and acceleration is faded to nothing in some time by a quintic.
    Blend {
        /// Length of the fade in motion, > 0. Longer than the time between two chunks it works against the policy:
        /// what a chunk corrects is faded in only after the next chunk has replaced it.
        blend_ns: u64,
        /// Length of the fade from rest, at least `blend_ns`: a plan that is in motion already is joined gently.
        start_ns: u64,
    },
}

/// What the scheduler must know of the deployment.
#[derive(Clone, Debug)]
pub struct Config {
    /// How each joint's numbers are read; the length is the number of joints.
    pub kinds: heapless::Vec<JointKind, JOINTS_MAX>,
    /// The control period.
    pub period_ns: u64,
    /// How chunks are joined.
    pub merge: Merge,
    /// A chunk whose observation is older than this on arrival is dropped.
    pub chunk_age_max_ns: u64,
}

/// Why there is no setpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// No chunk since standby.
    NoChunk,
    /// The chunk's first action lies in the future and nothing came before it.
    NotYet,
    /// The last chunk ran out and no newer one came.
    Ended,
}

/// What became of a chunk that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// It is now followed.
    Taken,
    /// Its observation is not newer than that of the chunk being followed.
    OutOfOrder,
    /// Its observation is older than the configured age.
    TooOld,
    /// It ended before it arrived.
    Over,
    /// Its number of joints is not the robot's.
    Joints,
}

/// The scheduler's word at one tick.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Where each joint should be now.
    Setpoint {
        /// The joints.
        setpoint: Setpoint,
        /// The chunk it is made of.
        provenance: Provenance,
        /// Index of the action last passed.
        action: u16,
    },
    /// Nothing to follow.
    None(Absence),
}

/// Chunk(s) to setpoint. See the module's text.
#[derive(Debug)]
pub struct Schedule {
    config: Config,
    chunk: Option<Chunk>,
    next: Option<Chunk>,
    seam: Seam,
    last: Option<seam::Motion>,
    newest_captured: Mono,
}

impl Schedule {
    /// A scheduler with nothing to follow.
    #[must_use]
    pub fn new(config: Config) -> Schedule {
        Schedule {
            config,
            chunk: None,
            next: None,
            seam: Seam::NONE,
            last: None,
            newest_captured: Mono(0),
        }
    }

    /// Forgets every chunk, and takes `at` as the pose from which the next motion starts. Called while the robot
    /// is not following: in standby, in a stop.
    pub fn reset(&mut self, at: &Setpoint) {
        self.chunk = None;
        self.next = None;
        self.seam = Seam::NONE;
        self.last = Some(seam::Motion::of(at));
    }

    /// Hands in a chunk. One that is older than what is being followed is dropped, whatever the order of arrival.
    pub fn offer(&mut self, now: Mono, chunk: &Chunk) -> Intake {
        let captured = chunk.provenance().captured;
        if chunk.joints() != self.config.kinds.len() {
            return Intake::Joints;
        }
        if captured <= self.newest_captured {
            return Intake::OutOfOrder;
        }
        if now.since_ns(captured) > self.config.chunk_age_max_ns {
            return Intake::TooOld;
        }
        if chunk.last_at() <= now {
            return Intake::Over;
        }
        self.newest_captured = captured;
        self.next = Some(*chunk);
        Intake::Taken
    }

    /// The setpoint for `now`. Call once a control period.
    ///
    /// `held_at` is what the governor last emitted, given whenever that is not what was proposed. The
    /// motion then starts anew from there at each tick, so that what is proposed is always
    /// reachable from where the robot is.
    pub fn step(&mut self, now: Mono, held_at: Option<&Setpoint>) -> Step {
        if let Some(actual) = held_at {
            self.last = Some(seam::Motion::of(actual));
        }
        self.hand_over(now, held_at.is_some());
        let Some(chunk) = &self.chunk else {
            return Step::None(if self.next.is_some() {
                Absence::NotYet
            } else {
                Absence::NoChunk
            });
        };
        if now > chunk.last_at() {
            return Step::None(Absence::Ended);
        }
        let mut motion = curve::sample(chunk, &self.config.kinds, now);
        self.seam.add_to(&mut motion, &self.config.kinds, now);
        let action = (now.since_ns(chunk.first_at()) / chunk.period_ns().max(1)) as u16;
        let provenance = chunk.provenance();
        self.last = Some(motion);
        Step::Setpoint {
            setpoint: motion.setpoint(),
            provenance,
            action,
        }
    }

    /// The waiting chunk takes over once its first action is due: before that it has nothing to say, and the old
    /// chunk's tail is the better plan.
    fn hand_over(&mut self, now: Mono, held: bool) {
        let due = self
            .next
            .as_ref()
            .is_some_and(|next| next.first_at() <= now);
        if due {
            self.chunk = self.next.take();
        }
        let Some(chunk) = &self.chunk else { return };
        if due || held {
            self.seam = match (self.config.merge, &self.last) {
                (Merge::Blend { blend_ns, start_ns }, Some(last)) => {
                    let before = last.advanced(self.config.period_ns as f64 * 1e-9);
                    let length_ns = if last.at_rest() {
                        start_ns
                    } else {
                        blend_ns.max(self.seam.left_ns(now))
                    };
                    Seam::between(
                        &before,
                        &curve::sample(chunk, &self.config.kinds, now),
                        now,
                        length_ns,
                    )
                }
                (Merge::Blend { .. }, None) | (Merge::Replace, _) => Seam::NONE,
            };
        }
    }
}
