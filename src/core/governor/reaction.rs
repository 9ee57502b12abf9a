// SPDX-License-Identifier: Apache-2.0
//! Why the robot is not simply following, what it does about it, and how that ends: one table for all.
//!
//! The order of [`Reaction`] is the policy: the worst active one wins.

/// What the robot does. Later variants are worse and win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reaction {
    /// Follow the proposal.
    Follow,
    /// Decelerate within limits and hold under power (category 2).
    Hold,
    /// The same, and stay stopped until a person acknowledges (latched).
    Stop,
    /// Ask the motor controller to cut torque; latched. What is still emitted decelerates as fast as is legal.
    TorqueOff,
}

/// How a cause ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clears {
    /// As soon as it is no longer true; motion resumes from rest, smoothly.
    ByItself,
    /// When the robot is armed again.
    OnArming,
    /// When a person acknowledges after the cause is gone, and arms again.
    OnAcknowledgement,
}

/// Everything that keeps the robot from following.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Cause {
    /// Nobody asked for motion.
    Standby = 1,
    /// The supervisor's permission ran out: the supervisor is late or dead.
    PermissionExpired = 2,
    /// No chunk has come yet.
    NoChunk = 3,
    /// The last chunk ran out and no newer one came.
    ChunkEnded = 4,
    /// The control thread missed its tick.
    ProposalLate = 5,
    /// A proposal held a NaN or an infinity.
    NotFinite = 6,
    /// A proposal had the wrong number of joints.
    Dimension = 7,
    /// The joint state is older than allowed.
    StateStale = 8,
    /// The joint state has been stale for long: the robot's position is unknown.
    StateLost = 9,
    /// The motor controller does not echo our commands.
    EchoLost = 10,
    /// A thread that moves the robot does not come round.
    ThreadLate = 11,
    /// An operator or a line asked for an emergency stop.
    EmergencyStop = 12,
    /// A person asked the robot to stop.
    StopRequested = 13,
    /// The policy's camera gives nothing usable.
    CameraLost = 14,
}

/// All causes, in order of their code.
pub const CAUSES: [Cause; 14] = [
    Cause::Standby,
    Cause::PermissionExpired,
    Cause::NoChunk,
    Cause::ChunkEnded,
    Cause::ProposalLate,
    Cause::NotFinite,
    Cause::Dimension,
    Cause::StateStale,
    Cause::StateLost,
    Cause::EchoLost,
    Cause::ThreadLate,
    Cause::EmergencyStop,
    Cause::StopRequested,
    Cause::CameraLost,
];

impl Cause {
    /// Cause -> reaction, recovery and the words for a person. The one table.
    #[must_use]
    pub const fn rule(self) -> (Reaction, Clears, &'static str) {
        use Clears::{ByItself, OnAcknowledgement, OnArming};
        use Reaction::{Hold, Stop, TorqueOff};
        match self {
            Cause::Standby => (Hold, OnArming, "standby: nobody asked for motion"),
            Cause::StopRequested => (Hold, OnArming, "stopped on request"),
            Cause::PermissionExpired => (Hold, ByItself, "the watchdog's permission ran out"),
            Cause::NoChunk => (Hold, ByItself, "no chunk from the policy yet"),
            Cause::ChunkEnded => (Hold, ByItself, "the policy is late: its last chunk ran out"),
            Cause::ProposalLate => (Hold, ByItself, "the control thread missed a tick"),
            Cause::NotFinite => (Hold, ByItself, "a setpoint was not finite and was refused"),
            Cause::Dimension => (
                Hold,
                ByItself,
                "a setpoint had the wrong number of joints and was refused",
            ),
            Cause::CameraLost => (Hold, ByItself, "the camera gives no usable picture"),
            Cause::StateStale => (Hold, ByItself, "the joint state is stale"),
            Cause::StateLost => (Stop, OnAcknowledgement, "the joint state was lost"),
            Cause::EchoLost => (
                Stop,
                OnAcknowledgement,
                "the motor controller does not echo our commands",
            ),
            Cause::ThreadLate => (
                Stop,
                OnAcknowledgement,
                "a thread that moves the robot is late",
            ),
            Cause::EmergencyStop => (TorqueOff, OnAcknowledgement, "emergency stop"),
        }
    }

    /// What it does.
    #[must_use]
    pub const fn reaction(self) -> Reaction {
        self.rule().0
    }

    /// The words for a person.
    #[must_use]
    pub const fn words(self) -> &'static str {
        self.rule().2
    }
}
