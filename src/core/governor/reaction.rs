// SPDX-License-Identifier: Apache-2.0
//! Why the robot is not simply following, what it does about it, and how that ends: one table for governor and
//! supervisor.
//!
//! The order of [`Reaction`] is the policy: the worst active one wins. A deployment may make a cause's reaction
//! stricter ([`Reactions::stricter`]), never milder.

/// What the robot does. Later variants are worse and win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reaction {
    /// Follow the proposal.
    Follow,
    /// Decelerate within limits and hold under power (category 2).
    Hold,
    /// Decelerate within limits, then report torque off (category 1); latched.
    Stop,
    /// Ask the motor controller to cut torque now (category 0); latched. What is still emitted decelerates as fast as
    /// is legal, for a drive that does not cut.
    TorqueOff,
}

/// How a cause ends. Later variants are stricter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clears {
    /// As soon as it is no longer true; motion resumes from rest, smoothly.
    ByItself,
    /// When the robot is armed again.
    OnArming,
    /// When a person acknowledges after the cause is gone, and arms again. Survives a restart.
    OnAcknowledgement,
}

/// Everything that keeps the robot from following. The number is its code on the wire and in recordings.
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
    /// A person asked for an emergency stop.
    EmergencyStop = 12,
    /// A person, or the service manager, asked the robot to stop.
    StopRequested = 13,
    /// The policy's camera gives nothing usable.
    CameraLost = 14,
    /// The emergency-stop line is open.
    EmergencyLine = 15,
    /// The deadman switch is not held.
    DeadmanReleased = 16,
    /// A measured joint has been too far from where it was commanded for too long.
    TrackingError = 17,
    /// A measured joint moved further between two states than it can.
    StateJump = 18,
    /// The joint state holds a NaN or an infinity.
    StateNotFinite = 19,
    /// The joint state has the wrong number of joints.
    StateDimension = 20,
    /// The policy shakes: its setpoints change direction against the limits most of the time.
    Oscillation = 21,
    /// Armed where the pose lies outside the limits.
    PoseOutside = 22,
    /// Armed while a joint moves.
    PoseMoving = 23,
    /// The motor controller refuses our commands.
    CommandsRefused = 24,
    /// The motor controller was restarted.
    MotorRestarted = 25,
    /// The machine was suspended.
    ClockGap = 26,
    /// A stop did not come to rest in time.
    StopOverdue = 27,
    /// A measured torque has been above its limit for too long.
    Overload = 28,
    /// The policy's camera repeats one picture.
    CameraStuck = 29,
    /// The policy's camera shows nothing: black, saturated or one colour.
    CameraBlind = 30,
    /// The policy's camera gives broken pictures: noise, torn, the wrong size.
    CameraGarbage = 31,
    /// The policy's camera gives its pictures too late.
    CameraLate = 32,
    /// The times of the policy's camera run backwards or lie in the future.
    CameraClock = 33,
    /// After it was away, the policy's camera shows another view: it is another camera, or it was moved.
    CameraSwapped = 34,
    /// The policy is not sure enough of what it proposes.
    PolicyUnsure = 35,
}

/// Number of causes.
pub const CAUSES_LEN: usize = 35;

/// All causes, in order of their code.
pub const CAUSES: [Cause; CAUSES_LEN] = [
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
    Cause::EmergencyLine,
    Cause::DeadmanReleased,
    Cause::TrackingError,
    Cause::StateJump,
    Cause::StateNotFinite,
    Cause::StateDimension,
    Cause::Oscillation,
    Cause::PoseOutside,
    Cause::PoseMoving,
    Cause::CommandsRefused,
    Cause::MotorRestarted,
    Cause::ClockGap,
    Cause::StopOverdue,
    Cause::Overload,
    Cause::CameraStuck,
    Cause::CameraBlind,
    Cause::CameraGarbage,
    Cause::CameraLate,
    Cause::CameraClock,
    Cause::CameraSwapped,
    Cause::PolicyUnsure,
];

impl Cause {
    /// Cause -> reaction, recovery and the words for a person. The one table.
    #[must_use]
    pub const fn rule(self) -> (Reaction, Clears, &'static str) {
        use Clears::{ByItself, OnAcknowledgement, OnArming};
        use Reaction::{Hold, Stop, TorqueOff};
        #[rustfmt::skip]
        let rule = match self {
            Cause::Standby           => (Hold, OnArming, "standby: nobody asked for motion"),
            Cause::StopRequested     => (Hold, OnArming, "stopped on request"),
            Cause::PermissionExpired => (Hold, ByItself, "the watchdog's permission ran out"),
            Cause::NoChunk           => (Hold, ByItself, "no chunk from the policy yet"),
            Cause::ChunkEnded        => (Hold, ByItself, "the policy is late: its last chunk ran out"),
            Cause::PolicyUnsure      => (Hold, ByItself, "the policy is not sure enough of what it proposes"),
            Cause::ProposalLate      => (Hold, ByItself, "the control thread missed a tick"),
            Cause::NotFinite         => (Hold, ByItself, "a setpoint was not finite and was refused"),
            Cause::Dimension         => (Hold, ByItself, "a setpoint had the wrong number of joints and was refused"),
            Cause::CameraLost        => (Hold, ByItself, "the camera gives no usable picture"),
            Cause::CameraStuck       => (Hold, ByItself, "the camera repeats one picture"),
            Cause::CameraBlind       => (Hold, ByItself, "the camera's pictures are black, saturated or of one colour"),
            Cause::CameraGarbage     => (Hold, ByItself, "the camera's pictures are noise, torn or of the wrong size"),
            Cause::CameraLate        => (Hold, ByItself, "the camera's pictures come too late"),
            Cause::CameraClock       => (Hold, ByItself, "the camera's times run backwards or lie in the future"),
            Cause::StateStale        => (Hold, ByItself, "the joint state is stale"),
            Cause::StateNotFinite    => (Hold, ByItself, "the joint state is not finite and was dropped"),
            Cause::DeadmanReleased   => (Hold, ByItself, "the deadman switch is not held"),
            Cause::Oscillation       => (Hold, OnArming, "the policy shakes against the limits"),
            Cause::PoseOutside       => (Hold, OnArming, "the pose lies outside the joints' limits or the space"),
            Cause::PoseMoving        => (Hold, OnArming, "a joint moved while the robot was being armed"),
            Cause::CommandsRefused   => (Hold, OnArming, "the motor controller refuses our commands"),
            Cause::StateDimension    => (Stop, OnAcknowledgement, "the joint state has the wrong number of joints, or none of the torques that are limited"),
            Cause::StateJump         => (Stop, OnAcknowledgement, "a measured joint jumped"),
            Cause::StateLost         => (Stop, OnAcknowledgement, "the joint state was lost"),
            Cause::TrackingError     => (Stop, OnAcknowledgement, "a joint does not follow its commands"),
            Cause::Overload          => (Stop, OnAcknowledgement, "a joint's torque is above its limit"),
            Cause::EchoLost          => (Stop, OnAcknowledgement, "the motor controller does not echo our commands"),
            Cause::MotorRestarted    => (Stop, OnAcknowledgement, "the motor controller was restarted"),
            Cause::ThreadLate        => (Stop, OnAcknowledgement, "a thread that moves the robot is late"),
            Cause::ClockGap          => (Stop, OnAcknowledgement, "the machine was suspended"),
            Cause::CameraSwapped     => (Stop, OnAcknowledgement, "the camera shows another view than before it was away"),
            Cause::StopOverdue       => (TorqueOff, OnAcknowledgement, "a stop did not come to rest in time"),
            Cause::EmergencyStop     => (TorqueOff, OnAcknowledgement, "emergency stop"),
            Cause::EmergencyLine     => (TorqueOff, OnAcknowledgement, "the emergency-stop line is open"),
        };
        rule
    }

    /// What it does, unless a deployment made it stricter.
    #[must_use]
    pub const fn reaction(self) -> Reaction {
        self.rule().0
    }

    /// How it ends, unless a deployment made it stricter.
    #[must_use]
    pub const fn clears(self) -> Clears {
        self.rule().1
    }

    /// The words for a person.
    #[must_use]
    pub const fn words(self) -> &'static str {
        self.rule().2
    }

    /// The cause with this code, if there is one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Cause> {
        CAUSES.into_iter().find(|cause| *cause as u8 == code)
    }

    const fn index(self) -> usize {
        (self as usize).saturating_sub(1)
    }
}

/// A reaction that is milder than the table's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause:?}: {asked:?} is milder than {least:?}; a deployment may only be stricter")]
pub struct Milder {
    /// The cause.
    pub cause: Cause,
    /// What was asked for.
    pub asked: Reaction,
    /// The mildest that is allowed.
    pub least: Reaction,
}

/// The table as made stricter for one deployment. The default is the table itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reactions {
    rows: [Reaction; CAUSES_LEN],
}

impl Default for Reactions {
    fn default() -> Self {
        Reactions::TABLE
    }
}

impl Reactions {
    /// The table as it is.
    pub const TABLE: Reactions = {
        let mut rows = [Reaction::TorqueOff; CAUSES_LEN];
        let mut index = 0;
        while index < CAUSES_LEN {
            rows[index] = CAUSES[index].reaction();
            index += 1;
        }
        Reactions { rows }
    };

    /// The same table, with a stricter reaction to `cause`. A reaction of [`Reaction::Stop`] or worse also latches.
    ///
    /// # Errors
    /// [`Milder`] if it is not at least what the table says.
    pub fn stricter(mut self, cause: Cause, reaction: Reaction) -> Result<Reactions, Milder> {
        let least = cause.reaction();
        if reaction < least {
            return Err(Milder {
                cause,
                asked: reaction,
                least,
            });
        }
        if let Some(row) = self.rows.get_mut(cause.index()) {
            *row = reaction;
        }
        Ok(self)
    }

    /// What `cause` does in this deployment.
    #[must_use]
    pub fn of(&self, cause: Cause) -> Reaction {
        // The length is that of CAUSES, so the row is there; if it were not, the worst is meant.
        self.rows
            .get(cause.index())
            .copied()
            .unwrap_or(Reaction::TorqueOff)
    }

    /// How `cause` ends in this deployment.
    #[must_use]
    pub fn clears(&self, cause: Cause) -> Clears {
        match self.of(cause) {
            Reaction::Follow | Reaction::Hold => cause.clears(),
            Reaction::Stop | Reaction::TorqueOff => Clears::OnAcknowledgement,
        }
    }

    /// The worst of `causes`: by reaction, then by how hard it is to clear; among equals the last, so that the caller
    /// lists first what explains least.
    pub fn worst(&self, causes: impl IntoIterator<Item = Cause>) -> Option<Cause> {
        causes
            .into_iter()
            .max_by_key(|cause| (self.of(*cause), self.clears(*cause)))
    }
}
