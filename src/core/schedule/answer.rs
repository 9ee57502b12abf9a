// SPDX-License-Identifier: Apache-2.0
//! What the scheduler says: of a chunk that is handed in, and at each tick.

use crate::core::action::Setpoint;
use crate::core::chunk::Provenance;

/// Why there is no setpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// No chunk since standby.
    NoChunk,
    /// The chunk's first action lies in the future and nothing came before it.
    NotYet,
    /// The last chunk ran out and no newer one came.
    Ended,
    /// The policy is not sure enough of what it last proposed.
    Unsure,
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
    /// It obeys an instruction that has been replaced.
    OtherInstruction,
    /// It goes on from the plan that is followed, and was made for taking over earlier: that plan went on differently since.
    Outrun,
    /// The policy was not sure enough of it: the plan is left, and the joints are slowed to rest.
    Unsure,
}

/// The scheduler's word at one tick.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)] // Copied from cell to cell each tick; a box would be an allocation.
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
