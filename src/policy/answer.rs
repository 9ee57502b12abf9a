// SPDX-License-Identifier: Apache-2.0
//! What a policy answers to an observation, whichever kind of bundle it comes from.

use crate::policy::InferTiming;

/// What one run gave. Lent until the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan<'a> {
    /// Absolute joint targets, `[steps][joints]`, row-major, joint order of robot.toml; radians, metres, or 0 to 1 for a
    /// gripper.
    pub targets: &'a [f32],
    /// Probability 0..1 that the named object is in the picture; `None` if the policy does not tell.
    pub presence: Option<f32>,
    /// Where it is, 0..1 from the left and from the top; `None` if the policy does not tell.
    pub keypoint: Option<[f32; 2]>,
    /// How unsure it says it is, 0 to 1, by its tokens or by several answers; `None` if it says neither.
    pub unsure: Option<f32>,
    /// How far its answers to this observation lie apart, by joint of robot.toml, in rad, m or parts of a gripper's travel; empty
    /// if it does not tell.
    pub spread: &'a [f32],
    /// Actions from the first that are those of the plan it goes on from, for a policy that was trained to take them over: by
    /// the end of them it must be followed. `None` if it goes on otherwise, or from nothing.
    pub held: Option<usize>,
    /// Where the time went. Of a staged policy, decoding counts as preparing.
    pub timing: InferTiming,
}

impl Plan<'_> {
    /// How unsure the policy is of this plan, 0 (sure) to 1, if it tells: as it says itself, or how likely it is
    /// that what was named is not there.
    #[must_use]
    pub fn doubt(&self) -> Option<f32> {
        self.unsure.or(self.presence.map(|presence| 1.0 - presence))
    }
}
