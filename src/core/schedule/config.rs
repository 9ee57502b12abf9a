// SPDX-License-Identifier: Apache-2.0
//! What the scheduler must know of the deployment.

use super::{Merge, Rates};
use crate::core::action::JointKind;
use crate::core::limits::JOINTS_MAX;

/// What the scheduler must know of the deployment.
#[derive(Clone, Debug)]
pub struct Config {
    /// How each joint's numbers are read; the length is the number of joints.
    pub kinds: heapless::Vec<JointKind, JOINTS_MAX>,
    /// What the governor allows each joint at most; as long as `kinds`.
    pub limits: heapless::Vec<Rates, JOINTS_MAX>,
    /// The control period.
    pub period_ns: u64,
    /// How chunks are joined.
    pub merge: Merge,
    /// Least length of the seam from rest: a plan that is in motion already is joined gently.
    pub start_ns: u64,
    /// Without a newer chunk for this long, a plan counts as the tail of an old one.
    pub fresh_ns: u64,
    /// A chunk whose observation is older than this is dropped on arrival, and not followed further.
    pub chunk_age_max_ns: u64,
    /// What becomes of the plan when the instruction changes.
    pub on_instruction: OnInstruction,
    /// A gripper is told so much earlier than the plan has it: the time that it takes to close.
    pub gripper_lead_ns: u64,
}

/// What becomes of the plan when the instruction changes. Chunks that obey an older one are dropped in any case, and
/// never mixed with what comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnInstruction {
    /// The old plan is followed for so many of its actions, unless a chunk of the new instruction comes earlier; 0: it is
    /// left at once.
    pub tail_steps: u16,
    /// No chunk of the new instruction is followed earlier than this after the change.
    pub pause_ns: u64,
}
