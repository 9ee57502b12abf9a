// SPDX-License-Identifier: Apache-2.0
//! The supervisor: may the robot move? A plain state machine with the time passed in.
//!
//! It permits, the governor acts. Its permission is a value that expires, renewed at each step; a supervisor that
//! dies has withdrawn it. Facts are gathered first ([`Facts`] is all it may know), then the mode decides.
//!
//! ```text
//!            activate, all fresh                    stop asked for
//!  Standby ---------------------> Active <------> Holding --------+
//!     ^                             |   cause / gone  |           v
//!     |                             +-----------------+----> Stopping --at rest--> Standby
//!     |  reset                      |  latching cause (any mode)
//!     +---------------- Stopped <---+---- (brakes, then latched)
//!     +---------------- EStop   <-------- emergency stop (any mode), latched
//! ```

#[cfg(test)]
mod tests;

use crate::core::governor::Permission;
use crate::core::governor::reaction::{CAUSES, Cause, Clears, Reaction};
use crate::core::units::{MS, Mono};

/// A permission lasts this long: three steps of a 100 Hz watchdog may be missed before the robot brakes.
pub const PERMISSION_NS: u64 = 40 * MS;
/// The link must have echoed without a gap for this long before the robot may be armed.
pub const LINK_FLOWING_NS: u64 = 1_000 * MS;
/// A joint state that has been stale this long is lost.
pub const STATE_LOST_NS: u64 = 100 * MS;
/// A motor controller that has echoed nothing new for this long while the robot is armed is lost.
pub const ECHO_LOST_NS: u64 = 100 * MS;

/// What the robot is doing, as a person would say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mode {
    /// At rest, not armed; the start.
    Standby = 0,
    /// Armed, following the policy.
    Active = 1,
    /// Armed, held under power for a cause that clears by itself.
    Holding = 2,
    /// On its way to rest, as asked.
    Stopping = 3,
    /// At rest or braking for a cause that latches.
    Stopped = 4,
    /// Emergency stop, latched.
    EStop = 5,
}

impl Mode {
    /// The word used in keys, events, metrics and the page.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Mode::Standby => "standby",
            Mode::Active => "active",
            Mode::Holding => "holding",
            Mode::Stopping => "stopping",
            Mode::Stopped => "stopped",
            Mode::EStop => "e-stop",
        }
    }
}

/// What a person may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Arm, if everything is fresh.
    Activate,
    /// Come to rest and disarm.
    Stop,
    /// Acknowledge a latched stop whose cause is gone.
    Reset,
    /// Emergency stop.
    EmergencyStop,
}

/// Everything the supervisor may know.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// What was asked since the last step, if anything.
    pub request: Option<Request>,
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
    /// Whether somebody has said what to do.
    pub instructed: bool,
    /// How long the motor controller has echoed our commands without a gap; `None` if it does not.
    pub echo_flowing_ns: Option<u64>,
    /// Since when it has echoed nothing new.
    pub echo_age_ns: u64,
    /// A thread that moves the robot and does not come round.
    pub thread_late: bool,
    /// What the governor last did.
    pub held: Option<Cause>,
    /// Whether the governor's output is at rest.
    pub at_rest: bool,
    /// A random number for the next arming, never 0.
    pub next_epoch: u32,
}

/// Why arming was refused; the words say what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Latched.
    #[error("the robot is latched in {}: reset first", .0.word())]
    Latched(Mode),
    /// Not yet at rest.
    #[error("the robot is still coming to rest: try again")]
    Busy,
    /// No or stale joint state.
    #[error("no fresh joint state from the motor controller: is it running and connected?")]
    State,
    /// Pose outside limits.
    #[error("a joint stands outside its position limits in robot.toml: move it inside by hand")]
    Pose,
    /// The robot is moving.
    #[error("a joint is moving although nothing commands it")]
    Moving,
    /// No fresh frame.
    #[error("no fresh picture from a needed camera: is it connected?")]
    Camera,
    /// No echo.
    #[error("the motor controller has not echoed our commands for one second without a gap")]
    Link,
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
    /// Nothing to reset.
    #[error("there is nothing to reset")]
    NotLatched,
    /// The cause is still there.
    #[error("the cause is still there: {}", .0.words())]
    CauseRemains(Cause),
}

/// What the supervisor says at one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The mode.
    pub mode: Mode,
    /// Why it is not active; `None` in active.
    pub cause: Option<Cause>,
    /// For the governor.
    pub permission: Permission,
    /// Another reason to hold, for the governor.
    pub hold: Option<Cause>,
    /// For the governor.
    pub emergency_stop: bool,
    /// The answer to this step's request, if there was one.
    pub answer: Option<Result<Mode, Refused>>,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Supervisor {
    mode: Mode,
    epoch: u32,
    latched: Option<Cause>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Supervisor {
            mode: Mode::Standby,
            epoch: 0,
            latched: None,
        }
    }
}

impl Supervisor {
    /// One step of the watchdog.
    pub fn step(&mut self, now: Mono, facts: &Facts) -> Decision {
        let cause = self.worst(facts);
        let answer = facts
            .request
            .map(|request| self.answer(request, facts, cause));
        self.advance(facts, cause);
        let armed = matches!(self.mode, Mode::Active | Mode::Holding);
        Decision {
            mode: self.mode,
            cause: self.latched.or(match self.mode {
                Mode::Active => None,
                Mode::Holding => facts.held.or(cause),
                Mode::Standby => Some(Cause::Standby),
                Mode::Stopping => Some(Cause::StopRequested),
                Mode::Stopped | Mode::EStop => cause,
            }),
            permission: if armed {
                Permission::Armed {
                    epoch: self.epoch,
                    until: now.plus_ns(PERMISSION_NS),
                }
            } else {
                Permission::None
            },
            hold: cause.or(if armed { None } else { self.latched }),
            emergency_stop: self.mode == Mode::EStop,
            answer,
        }
    }

    /// The worst cause that the facts show now. The governor's own causes are its own; these are what only the
    /// supervisor sees.
    fn worst(&self, facts: &Facts) -> Option<Cause> {
        let armed = matches!(self.mode, Mode::Active | Mode::Holding | Mode::Stopping);
        let lost = facts
            .state_age_ns
            .is_none_or(|age_ns| age_ns > STATE_LOST_NS.max(facts.state_age_max_ns));
        let is_true = |cause: Cause| match cause {
            Cause::StateLost => armed && lost,
            Cause::EchoLost => armed && facts.echo_age_ns > ECHO_LOST_NS,
            Cause::ThreadLate => armed && facts.thread_late,
            Cause::CameraLost => {
                armed && !facts.cameras_fresh && facts.held == Some(Cause::ChunkEnded)
            }
            Cause::Standby
            | Cause::PermissionExpired
            | Cause::NoChunk
            | Cause::ChunkEnded
            | Cause::ProposalLate
            | Cause::NotFinite
            | Cause::Dimension
            | Cause::StateStale
            | Cause::EmergencyStop
            | Cause::StopRequested => false,
        };
        CAUSES
            .into_iter()
            .filter(|cause| is_true(*cause))
            .max_by_key(|cause| cause.reaction())
    }

    fn answer(
        &mut self,
        request: Request,
        facts: &Facts,
        cause: Option<Cause>,
    ) -> Result<Mode, Refused> {
        match request {
            Request::EmergencyStop => {
                self.mode = Mode::EStop;
                self.latched = Some(Cause::EmergencyStop);
                Ok(self.mode)
            }
            Request::Stop => {
                match self.mode {
                    Mode::Active | Mode::Holding => self.mode = Mode::Stopping,
                    Mode::Standby | Mode::Stopping | Mode::Stopped | Mode::EStop => {}
                }
                Ok(self.mode)
            }
            Request::Reset => match self.mode {
                Mode::Stopped | Mode::EStop => {
                    if let Some(cause) = still_there(facts, self.latched) {
                        return Err(Refused::CauseRemains(cause));
                    }
                    if !facts.at_rest {
                        return Err(Refused::Busy);
                    }
                    self.mode = Mode::Standby;
                    self.latched = None;
                    Ok(self.mode)
                }
                Mode::Standby | Mode::Active | Mode::Holding | Mode::Stopping => {
                    Err(Refused::NotLatched)
                }
            },
            Request::Activate => match self.mode {
                Mode::Active | Mode::Holding => Ok(self.mode),
                Mode::Stopping => Err(Refused::Busy),
                Mode::Stopped | Mode::EStop => Err(Refused::Latched(self.mode)),
                Mode::Standby => {
                    may_arm(facts, cause)?;
                    self.mode = Mode::Active;
                    self.epoch = facts.next_epoch.max(1);
                    Ok(self.mode)
                }
            },
        }
    }

    fn advance(&mut self, facts: &Facts, cause: Option<Cause>) {
        let latching = cause.filter(|cause| cause.rule().1 == Clears::OnAcknowledgement);
        match self.mode {
            Mode::Active | Mode::Holding | Mode::Stopping if latching.is_some() => {
                self.latched = latching;
                self.mode = Mode::Stopped;
            }
            Mode::Active | Mode::Holding => {
                let held = facts
                    .held
                    .or(cause)
                    .is_some_and(|cause| cause.reaction() >= Reaction::Hold);
                self.mode = if held { Mode::Holding } else { Mode::Active };
            }
            Mode::Stopping if facts.at_rest => self.mode = Mode::Standby,
            Mode::Stopping | Mode::Standby | Mode::Stopped | Mode::EStop => {}
        }
    }
}

/// Everything that must hold before the robot may move, in the order in which a person would mend it.
fn may_arm(facts: &Facts, cause: Option<Cause>) -> Result<(), Refused> {
    let checks = [
        (facts.thread_late, Refused::Thread),
        (
            facts
                .state_age_ns
                .is_none_or(|age_ns| age_ns > facts.state_age_max_ns),
            Refused::State,
        ),
        (!facts.pose_within_limits, Refused::Pose),
        (!facts.measured_at_rest, Refused::Moving),
        (!facts.cameras_fresh, Refused::Camera),
        (
            facts
                .echo_flowing_ns
                .is_none_or(|for_ns| for_ns < LINK_FLOWING_NS),
            Refused::Link,
        ),
        (!facts.instructed, Refused::Instruction),
        (!facts.at_rest, Refused::Busy),
    ];
    let cause = cause.map(Refused::CauseRemains);
    checks
        .into_iter()
        .find_map(|(bad, refused)| bad.then_some(refused))
        .or(cause)
        .map_or(Ok(()), Err)
}

/// Whether what latched the robot is still true.
fn still_there(facts: &Facts, latched: Option<Cause>) -> Option<Cause> {
    latched.filter(|cause| match cause {
        Cause::StateLost => facts
            .state_age_ns
            .is_none_or(|age_ns| age_ns > facts.state_age_max_ns),
        Cause::EchoLost => facts.echo_age_ns > ECHO_LOST_NS,
        Cause::ThreadLate => facts.thread_late,
        // An emergency stop asked for by a person is over when the person says so.
        Cause::EmergencyStop
        | Cause::Standby
        | Cause::PermissionExpired
        | Cause::NoChunk
        | Cause::ChunkEnded
        | Cause::ProposalLate
        | Cause::NotFinite
        | Cause::Dimension
        | Cause::StateStale
        | Cause::StopRequested
        | Cause::CameraLost => false,
    })
}
