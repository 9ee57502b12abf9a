// SPDX-License-Identifier: Apache-2.0
//! Why a frame was dropped: the closed list, whose codes travel in the state's echo.

/// Why a frame was dropped. The code travels in the state's echo; a code is never given a second meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[repr(u8)]
pub enum Reject {
    /// Shorter or longer than its kind allows, or than it says.
    #[error("length: not that of its kind, or not what the frame says")]
    Length = 1,
    /// The CRC does not match.
    #[error("CRC: the frame was damaged on its way")]
    Crc = 2,
    /// Not our magic, or another version.
    #[error("magic or version: not a frame of this version of Tendon")]
    Magic = 3,
    /// Another robot or another kind of frame.
    #[error("data id: another robot or stream")]
    DataId = 4,
    /// Another set of joints.
    #[error("joint schema: names, order or kinds of the joints differ between the two ends")]
    Schema = 5,
    /// An arming (or a motor controller's start) that is over, or a second one while the first still moves the robot.
    #[error(
        "epoch: of an arming that is over, or of another one than the one that moves the robot"
    )]
    Epoch = 6,
    /// Repeated or out of order.
    #[error("counter: repeated or out of order")]
    Repeated = 7,
    /// Too many frames were lost before it.
    #[error("counter: jumped too far")]
    Jump = 8,
    /// It was on its way for longer than it may be acted on.
    #[error("expired: on its way for longer than it is valid")]
    Expired = 9,
    /// A number in it is NaN or infinite.
    #[error("not finite: a number is NaN or infinite")]
    NotFinite = 10,
    /// The first command of an arming is not where the robot stands.
    #[error("away from the pose: the first command is not where the robot stands")]
    AwayFromPose = 11,
    /// Outside the motor controller's own position limits.
    #[error("limits: outside the motor controller's own position limits")]
    Limits = 12,
    /// The motor controller is stopped and waits for a new arming.
    #[error("stopped: the motor controller has stopped, or is new, and waits for a new arming")]
    Stopped = 13,
    /// The step from the command before implies more than the motor controller's own velocity limits.
    #[error("too fast: the step implies more than the motor controller's own velocity limits")]
    TooFast = 14,
    /// Not as many joints as the receiver has, or as the frame is long.
    #[error("joints: another number of joints than the receiver has")]
    Joints = 15,
    /// A mode that this version does not know.
    #[error("mode: unknown")]
    Mode = 16,
    /// Too many bad frames within the last second: the link is not to be trusted with motion.
    #[error("link: too many bad frames within the last second")]
    BadLink = 17,
}

impl Reject {
    /// Every reason, in the order of the codes.
    pub const ALL: [Reject; 17] = [
        Reject::Length,
        Reject::Crc,
        Reject::Magic,
        Reject::DataId,
        Reject::Schema,
        Reject::Epoch,
        Reject::Repeated,
        Reject::Jump,
        Reject::Expired,
        Reject::NotFinite,
        Reject::AwayFromPose,
        Reject::Limits,
        Reject::Stopped,
        Reject::TooFast,
        Reject::Joints,
        Reject::Mode,
        Reject::BadLink,
    ];

    /// The reason with this code; `None` for 0 (nothing was dropped) and for a code of a later version.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Reject> {
        Reject::ALL.into_iter().find(|reject| *reject as u8 == code)
    }

    /// Whether such a frame speaks against the link itself. A duplicate does not (networks make them), and neither
    /// does a frame that arrived well and asks for something that the motor controller refuses.
    #[must_use]
    pub fn speaks_against_the_link(self) -> bool {
        match self {
            Reject::Length
            | Reject::Crc
            | Reject::Magic
            | Reject::DataId
            | Reject::Schema
            | Reject::Epoch
            | Reject::Jump
            | Reject::Expired
            | Reject::NotFinite
            | Reject::Joints
            | Reject::Mode => true,
            Reject::Repeated
            | Reject::AwayFromPose
            | Reject::Limits
            | Reject::Stopped
            | Reject::TooFast
            | Reject::BadLink => false,
        }
    }
}
