// SPDX-License-Identifier: Apache-2.0
//! What the supervisor may know, what it may be asked, and the words with which it refuses.

use super::Mode;
use crate::core::governor::reaction::Cause;
use crate::core::governor::{Deadman, EmergencyLine};
use crate::core::units::Mono;

/// What may be asked for. Of several at once the last in this order is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// Arm for the policy, or hand back to it, if everything is fresh.
    Activate,
    /// Arm for a person, or let a person take over.
    TakeOver,
    /// Acknowledge a latched stop whose cause is gone.
    Reset,
    /// Come to rest and disarm. Also what SIGTERM means.
    Stop,
    /// Emergency stop.
    EmergencyStop,
}

/// A request and when it was made, on this machine's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What.
    pub request: Request,
    /// When. A reset made before the latch struck does not count; a request to move that is old does not either.
    pub made: Mono,
}

/// Everything the supervisor may know.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// What was asked since the last step, if anything.
    pub asked: Option<Asked>,
    /// Whether start-up and its checks are over.
    pub booted: bool,
    /// Age of the newest joint state; `None` if none ever came.
    pub state_age_ns: Option<u64>,
    /// Oldest joint state that counts as fresh.
    pub state_age_max_ns: u64,
    /// Whether the pose lies inside the position limits.
    pub pose_within_limits: bool,
    /// Whether the robot's joints are at rest as measured.
    pub measured_at_rest: bool,
    /// Whether each needed camera has a fresh frame.
    pub cameras_fresh: bool,
    /// What is wrong with a needed camera: one of the camera causes.
    pub camera_fault: Option<Cause>,
    /// Whether somebody has said what to do.
    pub instructed: bool,
    /// How long the motor controller has echoed our commands without a gap; `None` if it does not.
    pub echo_flowing_ns: Option<u64>,
    /// Since when it has echoed nothing new.
    pub echo_age_ns: u64,
    /// Whether its echo says that it refuses our commands, and has for more than three ticks.
    pub commands_refused: bool,
    /// Whether its boot id changed since the last step.
    pub motor_restarted: bool,
    /// A thread that moves the robot and does not come round.
    pub thread_late: bool,
    /// Whether the machine was suspended since the last step: the clock that counts sleep went further.
    pub suspended: bool,
    /// The emergency-stop line.
    pub emergency_line: EmergencyLine,
    /// The deadman switch.
    pub deadman: Deadman,
    /// What the governor last found by itself ([`crate::core::governor::Output::found`]).
    pub held: Option<Cause>,
    /// The arming that the governor has taken over the pose for; 0 for none.
    pub governor_epoch: u32,
    /// Whether the governor's output is at rest.
    pub at_rest: bool,
    /// A random number for the next arming, never 0.
    pub next_epoch: u32,
}

/// Why a request was refused; the words say what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not yet started.
    #[error("still starting: try again")]
    Booting,
    /// Latched.
    #[error("the robot is latched in {}: reset first", .0.word())]
    Latched(Mode),
    /// Not yet at rest.
    #[error("the robot is still coming to rest: try again")]
    Busy,
    /// The request is old.
    #[error("the request is too old to be meant for now: ask again")]
    TooOld,
    /// A stop was asked for meanwhile.
    #[error("a stop was asked for after this request: ask again")]
    Overruled,
    /// No or stale joint state.
    #[error("no fresh joint state from the motor controller: is it running and connected?")]
    State,
    /// Pose outside limits.
    #[error(
        "the pose lies outside the joints' limits or the space of robot.toml: move the robot inside by hand"
    )]
    Pose,
    /// The robot is moving.
    #[error("a joint is moving although nothing commands it")]
    Moving,
    /// No fresh frame.
    #[error("no fresh picture from a needed camera: is it connected?")]
    Camera,
    /// Pictures come, and are not usable.
    #[error("a needed camera cannot be used: {}", .0.words())]
    Picture(Cause),
    /// No echo.
    #[error("the motor controller has not echoed our commands for one second without a gap")]
    Link,
    /// It refuses what it is sent.
    #[error("the motor controller refuses our commands: see its last reject")]
    CommandsRefused,
    /// No instruction.
    #[error("nobody has said what to do: send an instruction first")]
    Instruction,
    /// A thread is late.
    #[error("a thread of the pipeline does not come round: see the log")]
    Thread,
    /// An earlier process crashed.
    #[error(
        "an earlier run crashed and nobody has acknowledged it: read the log, then \"tendon mode reset\""
    )]
    Crashed,
    /// Cameras show what others showed.
    #[error(
        "a camera shows what another one showed when the robot was last armed: put them right and start the runtime again, or, if they are right, \"tendon mode reset\""
    )]
    CamerasExchanged,
    /// The files are others than those that the runtime was started with.
    #[error(
        "a file of the deployment is another one than at the start: start the runtime again to use it, or put it back as it was"
    )]
    FilesChanged,
    /// The arming could not be noted for the next start.
    #[error(
        "the arming could not be noted in the state directory, or another program has this robot armed: see the log"
    )]
    Unnoted,
    /// The deadman switch is not held.
    #[error("the deadman switch is not held")]
    Deadman,
    /// The deadman switch has been held since before the last stop.
    #[error("the deadman switch must be released once before it counts")]
    DeadmanStuck,
    /// The emergency-stop line is open.
    #[error("the emergency-stop line is open: release it first")]
    EmergencyLine,
    /// Nothing to reset.
    #[error("there is nothing to reset")]
    NotLatched,
    /// The reset was asked for before the latch struck.
    #[error("the stop struck after this reset was asked for: look, then reset again")]
    ResetTooEarly,
    /// The cause is still there.
    #[error("the cause is still there: {}", .0.words())]
    CauseRemains(Cause),
}
