// SPDX-License-Identifier: Apache-2.0
//! The supervisor: may the robot move? A plain state machine with the time passed in.
//!
//! It permits, the governor acts. Its permission is a value that expires, renewed at each step; a supervisor that
//! dies has withdrawn it. Facts are gathered first ([`Facts`] is all it may know), then the mode decides. What each
//! cause does and how it ends is the governor's table ([`crate::core::governor::reaction`]), for both.
//!
//! ```text
//!   Boot --self-check ok--> Standby  (or into the latch that was there before the restart)
//!
//!              activate, everything fresh                cause that clears by itself
//!   Standby ------------------------------> Active <--------------------------------> Holding
//!      |     take over                        ^ |  take over, hand back                 ^ |
//!      +------------------------------> Takeover <--------------------------------------+ |
//!      ^                                       |                                          |
//!      |                                       | stop asked for, deadman away,            |
//!      |                                       | cause that ends with this arming         |
//!      +---- at rest ---- Stopping <-----------+------------------------------------------+
//!      |
//!      +---- reset ------ Stopped  <---- cause that latches (any armed mode, Stopping)
//!      +---- reset ------ EStop    <---- emergency stop, asked for or on the line (any mode); a stop that does not end
//! ```
//!
//! A latch is a cause and the time at which it struck. It survives a restart ([`Decision::latched`] is to be kept on
//! disk and given to [`Supervisor::new`]), and is left only by a reset that was asked for after it struck, when its
//! cause is gone and the robot is at rest. No reset, and nothing else but an explicit request, leads to motion.

pub mod deadlines;
mod facts;
mod mode;
#[cfg(test)]
mod tests;

use crate::core::governor::reaction::{CAUSES, Cause, Clears, Reaction, Reactions};
use crate::core::governor::{Deadman, EmergencyLine};
use crate::core::units::Mono;
use deadlines::{Deadline, Timers};
pub use facts::{Asked, Facts, Refused, Request};
pub use mode::Mode;

/// Who moves the robot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hands {
    /// The policy.
    Policy,
    /// A person, through teleoperation.
    Person,
}

/// Permission to move: a value that expires. Only the supervisor makes one:
///
/// ```compile_fail
/// use tendon::core::{supervisor::{Armed, Hands}, units::Mono};
/// let forged = Armed { epoch: 1, hands: Hands::Policy, until: Mono(u64::MAX) };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Armed {
    epoch: u32,
    hands: Hands,
    until: Mono,
}

impl Armed {
    /// Random number of this arming, never 0.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whose setpoints may be followed.
    #[must_use]
    pub fn hands(&self) -> Hands {
        self.hands
    }

    /// Whether it still holds.
    #[must_use]
    pub fn valid(&self, now: Mono) -> bool {
        self.epoch != 0 && now <= self.until
    }

    /// For tests of the governor alone.
    #[cfg(test)]
    pub(in crate::core) fn for_test(epoch: u32, hands: Hands, until: Mono) -> Armed {
        Armed {
            epoch,
            hands,
            until,
        }
    }
}

/// What the supervisor allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// No motion: stay, or come to rest.
    None,
    /// Motion, as part of an arming.
    Armed(Armed),
}

/// What the supervisor says at one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The mode.
    pub mode: Mode,
    /// Why it is not moving; in standby, what ended the last arming.
    pub cause: Option<Cause>,
    /// For the governor.
    pub permission: Permission,
    /// For the governor: another reason not to follow.
    pub hold: Option<Cause>,
    /// Whether the mode is [`Mode::EStop`]: for the governor's input of that name.
    pub emergency_stop: bool,
    /// The answer to this step's request, if there was one.
    pub answer: Option<Result<Mode, Refused>>,
    /// What is latched. Keep it on disk; give it to [`Supervisor::new`] after a restart.
    pub latched: Option<Cause>,
}

/// A cause that only a person can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Latch {
    cause: Cause,
    struck: Mono,
}

/// The deadman switch since the last latch or standby: a switch that has been held all along may be taped down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grip {
    /// Not seen released yet.
    Unproven,
    /// Seen released.
    Released,
    /// Pressed after it was seen released.
    Pressed,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Supervisor {
    mode: Mode,
    reactions: Reactions,
    epoch: u32,
    hands: Hands,
    latch: Option<Latch>,
    /// What ended the last arming, for the reader of standby.
    ended: Option<Cause>,
    /// When a stop was last asked for: what was asked before that is not meant any more, however long it was on its way.
    stop_asked: Option<Mono>,
    grip: Grip,
    timers: Timers,
}

impl Supervisor {
    /// A supervisor that starts, with what was latched before the restart, if anything.
    #[must_use]
    pub fn new(reactions: Reactions, latched: Option<Cause>) -> Supervisor {
        Supervisor {
            mode: Mode::Boot,
            reactions,
            epoch: 0,
            hands: Hands::Policy,
            // It struck before this clock began, but counts as struck now: nobody here has seen it yet.
            latch: latched.map(|cause| Latch {
                cause,
                struck: Mono(0),
            }),
            ended: None,
            stop_asked: None,
            grip: Grip::Unproven,
            timers: Timers::default(),
        }
    }

    /// One step of the watchdog. Call it at 100 Hz: a permission that is not renewed ends ([`Deadline::Permission`]).
    pub fn step(&mut self, now: Mono, facts: &Facts) -> Decision {
        // First what is so, then what to do about it.
        self.feel(facts);
        let seen = self.seen(now, facts);
        let cause = self
            .reactions
            .worst(self.reported(facts).into_iter().chain(seen));
        self.advance(now, facts, cause);
        let answer = facts.asked.map(|asked| self.answer(now, asked, facts));
        let latched = self.latch.map(|latch| latch.cause);
        let permission = if self.mode.armed() {
            let until = now.plus_ns(Deadline::Permission.ns());
            Permission::Armed(Armed {
                epoch: self.epoch,
                hands: self.hands,
                until,
            })
        } else {
            Permission::None
        };
        Decision {
            mode: self.mode,
            cause: latched.or(match self.mode {
                Mode::Active | Mode::Takeover => None,
                Mode::Holding => cause,
                Mode::Boot | Mode::Standby => self.ended.or(Some(Cause::Standby)),
                Mode::Stopping | Mode::Stopped | Mode::EStop => self.ended,
            }),
            permission,
            hold: latched.or(match self.mode {
                // Not what the governor found itself: it would find it again, here, for ever.
                Mode::Active | Mode::Takeover | Mode::Holding => seen,
                Mode::Boot | Mode::Standby => Some(Cause::Standby),
                Mode::Stopping | Mode::Stopped | Mode::EStop => self.ended,
            }),
            emergency_stop: self.mode == Mode::EStop,
            answer,
            latched,
        }
    }

    /// Follows the deadman switch: released, then pressed.
    fn feel(&mut self, facts: &Facts) {
        self.grip = match (self.grip, facts.deadman) {
            (_, Deadman::Released) => Grip::Released,
            (Grip::Released, Deadman::Held) => Grip::Pressed,
            (grip, Deadman::Held | Deadman::NotFitted) => grip,
        };
    }

    /// What the governor found by itself. Its standby means only that it has not heard of this arming yet.
    fn reported(&self, facts: &Facts) -> Option<Cause> {
        let ours = self.mode.armed() && facts.governor_epoch == self.epoch;
        let refused =
            matches!(facts.held, Some(Cause::PoseOutside | Cause::PoseMoving)) && self.mode.armed();
        facts
            .held
            .filter(|cause| (ours || refused) && *cause != Cause::Standby)
    }

    /// The worst cause that the other facts show.
    fn seen(&mut self, now: Mono, facts: &Facts) -> Option<Cause> {
        let armed = self.mode.armed();
        let moves = armed || self.mode == Mode::Stopping;
        let not_seated = armed && facts.governor_epoch != self.epoch;
        let seating_over = self.timers.run_while(Deadline::Seating, not_seated, now);
        let braking = matches!(self.mode, Mode::Stopping | Mode::Stopped) && !facts.at_rest;
        let braking_over = self.timers.run_while(Deadline::AtRest, braking, now);
        let lost_ns = Deadline::StateLost.ns().max(facts.state_age_max_ns);
        let older = |than_ns: u64| facts.state_age_ns.is_none_or(|age_ns| age_ns > than_ns);
        let is_true = |cause: Cause| match cause {
            Cause::EmergencyLine => facts.emergency_line == EmergencyLine::Open,
            Cause::StateLost => moves && older(lost_ns),
            Cause::StateStale => armed && older(facts.state_age_max_ns),
            Cause::EchoLost => moves && facts.echo_age_ns > Deadline::EchoLost.ns(),
            Cause::ThreadLate => moves && (facts.thread_late || seating_over),
            Cause::MotorRestarted => moves && facts.motor_restarted,
            Cause::CommandsRefused => armed && facts.commands_refused,
            Cause::ClockGap => moves && facts.suspended,
            Cause::StopOverdue => braking_over,
            Cause::DeadmanReleased => armed && facts.deadman == Deadman::Released,
            // A camera is missed when the chunk that was made of its last picture has run out, or none came.
            Cause::CameraLost
            | Cause::CameraStuck
            | Cause::CameraBlind
            | Cause::CameraGarbage
            | Cause::CameraLate
            | Cause::CameraClock => {
                let chunkless = matches!(
                    facts.held,
                    Some(Cause::ChunkEnded | Cause::NoChunk | Cause::PolicyUnsure)
                );
                let fault = facts.camera_fault.unwrap_or(Cause::CameraLost);
                armed && !facts.cameras_fresh && chunkless && cause == fault
            }
            // What the policy now sees is not what it was armed with: not even the chunk it has is to be trusted.
            // A person sees for himself.
            Cause::CameraSwapped => {
                armed && self.hands == Hands::Policy && facts.camera_fault == Some(cause)
            }
            // Those that only a request or the governor brings.
            Cause::Standby
            | Cause::PermissionExpired
            | Cause::NoChunk
            | Cause::ChunkEnded
            | Cause::PolicyUnsure
            | Cause::ProposalLate
            | Cause::NotFinite
            | Cause::Dimension
            | Cause::EmergencyStop
            | Cause::StopRequested
            | Cause::TrackingError
            | Cause::Overload
            | Cause::StateJump
            | Cause::StateNotFinite
            | Cause::StateDimension
            | Cause::Oscillation
            | Cause::PoseOutside
            | Cause::PoseMoving => false,
        };
        self.reactions
            .worst(CAUSES.into_iter().filter(|cause| is_true(*cause)))
    }

    /// What the facts do, before anything that was asked.
    fn advance(&mut self, now: Mono, facts: &Facts, cause: Option<Cause>) {
        let away = self.mode.armed() && facts.deadman == Deadman::Released;
        let away_over = self.timers.run_while(Deadline::DeadmanAway, away, now);
        match cause {
            Some(cause) => match (self.reactions.of(cause), self.reactions.clears(cause)) {
                (Reaction::TorqueOff, _) => self.strike(Mode::EStop, cause, now),
                (Reaction::Stop, _) | (_, Clears::OnAcknowledgement) => {
                    self.strike(Mode::Stopped, cause, now)
                }
                (Reaction::Follow | Reaction::Hold, Clears::OnArming) => self.end(cause),
                (Reaction::Follow, Clears::ByItself) => {}
                (Reaction::Hold, Clears::ByItself) if self.mode.armed() => {
                    self.mode = Mode::Holding
                }
                (Reaction::Hold, Clears::ByItself) => {}
            },
            None if self.mode.armed() => self.mode = self.moving(),
            None => {}
        }
        if away_over {
            self.end(Cause::DeadmanReleased);
        }
        match (self.mode, self.latch) {
            (Mode::Boot, None) if facts.booted => self.mode = Mode::Standby,
            (Mode::Boot, Some(latch)) if facts.booted => {
                let off = self.reactions.of(latch.cause) >= Reaction::TorqueOff;
                self.mode = if off { Mode::EStop } else { Mode::Stopped };
                // Nobody has seen it since the restart: only a reset from now on counts.
                self.latch = Some(Latch {
                    struck: now,
                    ..latch
                });
            }
            (Mode::Stopping, _) if facts.at_rest => self.mode = Mode::Standby,
            (
                Mode::Boot
                | Mode::Standby
                | Mode::Active
                | Mode::Takeover
                | Mode::Holding
                | Mode::Stopping
                | Mode::Stopped
                | Mode::EStop,
                _,
            ) => {}
        }
    }

    /// The mode of an arming that nothing holds.
    fn moving(&self) -> Mode {
        match self.hands {
            Hands::Policy => Mode::Active,
            Hands::Person => Mode::Takeover,
        }
    }

    /// Latches. The worse latch stays, with its first cause; it is as young as its cause was last seen.
    fn strike(&mut self, mode: Mode, cause: Cause, now: Mono) {
        let new = Latch { cause, struck: now };
        let kept = self
            .latch
            .filter(|old| self.reactions.of(old.cause) >= self.reactions.of(cause));
        self.latch = Some(kept.map_or(new, |old| Latch { struck: now, ..old }));
        self.grip = Grip::Unproven;
        self.ended = Some(cause);
        // While starting, the latch is all there is; it is entered when the checks are over.
        if self.mode != Mode::Boot && self.mode != Mode::EStop {
            self.mode = mode;
        }
    }

    /// Ends the arming, without a latch.
    fn end(&mut self, cause: Cause) {
        if self.mode.armed() {
            self.mode = Mode::Stopping;
            self.grip = Grip::Unproven;
            self.ended = Some(cause);
        }
    }

    fn answer(&mut self, now: Mono, asked: Asked, facts: &Facts) -> Result<Mode, Refused> {
        let fresh = asked.made <= now && now.since_ns(asked.made) <= Deadline::Request.ns();
        if matches!(asked.request, Request::Stop | Request::EmergencyStop) {
            self.stop_asked = self.stop_asked.max(Some(asked.made.min(now)));
        }
        match asked.request {
            // Whatever its age: stopping is never wrong.
            Request::EmergencyStop => self.strike(Mode::EStop, Cause::EmergencyStop, now),
            Request::Stop => self.end(Cause::StopRequested),
            Request::Reset | Request::Activate | Request::TakeOver if !fresh => {
                return Err(Refused::TooOld);
            }
            Request::Activate | Request::TakeOver if Some(asked.made) < self.stop_asked => {
                return Err(Refused::Overruled);
            }
            Request::Reset => self.reset(asked.made, facts)?,
            Request::Activate => self.arm(Hands::Policy, facts)?,
            Request::TakeOver => self.arm(Hands::Person, facts)?,
        }
        Ok(self.mode)
    }

    /// Acknowledges a latch. Leads to standby, never to motion.
    fn reset(&mut self, made: Mono, facts: &Facts) -> Result<(), Refused> {
        let Some(latch) = self.latch.filter(|_| self.mode.latched()) else {
            return Err(if self.mode == Mode::Boot {
                Refused::Booting
            } else {
                Refused::NotLatched
            });
        };
        if let Some(cause) = remains(latch.cause, facts) {
            return Err(Refused::CauseRemains(cause));
        }
        if made <= latch.struck {
            return Err(Refused::ResetTooEarly);
        }
        if !facts.at_rest {
            return Err(Refused::Busy);
        }
        self.latch = None;
        self.mode = Mode::Standby;
        Ok(())
    }

    /// Arms, or changes hands while armed.
    fn arm(&mut self, hands: Hands, facts: &Facts) -> Result<(), Refused> {
        match self.mode {
            Mode::Boot => Err(Refused::Booting),
            Mode::Stopped | Mode::EStop => Err(Refused::Latched(self.mode)),
            Mode::Stopping => Err(Refused::Busy),
            Mode::Standby => {
                self.may_arm(hands, facts)?;
                self.epoch = facts.next_epoch.max(1);
                self.hands = hands;
                self.ended = None;
                self.mode = self.moving();
                Ok(())
            }
            Mode::Active | Mode::Takeover | Mode::Holding => {
                may_drive(hands, facts)?;
                self.hands = hands;
                if self.mode != Mode::Holding {
                    self.mode = self.moving();
                }
                Ok(())
            }
        }
    }

    /// Everything that must hold before the robot may move, in the order in which a person would mend it.
    fn may_arm(&self, hands: Hands, facts: &Facts) -> Result<(), Refused> {
        let grip = match (facts.deadman, self.grip) {
            (Deadman::NotFitted, _) | (Deadman::Held, Grip::Pressed) => None,
            (Deadman::Held, Grip::Unproven | Grip::Released) => Some(Refused::DeadmanStuck),
            (Deadman::Released, _) => Some(Refused::Deadman),
        };
        let state = facts
            .state_age_ns
            .is_some_and(|age_ns| age_ns <= facts.state_age_max_ns);
        let link = facts
            .echo_flowing_ns
            .is_some_and(|for_ns| for_ns >= Deadline::LinkFlowing.ns())
            && facts.echo_age_ns <= Deadline::EchoLost.ns();
        let checks = [
            (!facts.thread_late, Refused::Thread),
            (
                facts.emergency_line != EmergencyLine::Open,
                Refused::EmergencyLine,
            ),
            (state, Refused::State),
            (facts.pose_within_limits, Refused::Pose),
            (facts.measured_at_rest, Refused::Moving),
            (link && !facts.motor_restarted, Refused::Link),
            (!facts.commands_refused, Refused::CommandsRefused),
            (
                facts.at_rest && facts.governor_epoch == 0 && !facts.suspended,
                Refused::Busy,
            ),
        ];
        checks
            .into_iter()
            .find_map(|(good, refused)| (!good).then_some(refused))
            .or(grip)
            .map_or(Ok(()), Err)?;
        may_drive(hands, facts)
    }
}

/// What a pair of hands needs to move the robot.
fn may_drive(hands: Hands, facts: &Facts) -> Result<(), Refused> {
    match hands {
        // A person sees for himself, and his first setpoint is shaped like any other.
        Hands::Person => Ok(()),
        Hands::Policy => match facts.camera_fault {
            Some(fault) if fault != Cause::CameraLost => Err(Refused::Picture(fault)),
            Some(_) => Err(Refused::Camera),
            None if !facts.cameras_fresh => Err(Refused::Camera),
            None if !facts.instructed => Err(Refused::Instruction),
            // Where it would go first is no question: a chunk made before the arming is dropped, and the governor's first
            // command is the measured pose.
            None => Ok(()),
        },
    }
}

/// What of a latched cause is still true. Those that the governor found are looked for again at the next arming.
fn remains(latched: Cause, facts: &Facts) -> Option<Cause> {
    let is_true = match latched {
        Cause::StateLost => facts
            .state_age_ns
            .is_none_or(|age_ns| age_ns > facts.state_age_max_ns),
        Cause::EchoLost => facts.echo_age_ns > Deadline::EchoLost.ns(),
        Cause::ThreadLate => facts.thread_late,
        Cause::MotorRestarted => facts.motor_restarted,
        Cause::ClockGap => facts.suspended,
        Cause::StopOverdue => !facts.at_rest,
        Cause::CameraSwapped => facts.camera_fault == Some(Cause::CameraSwapped),
        Cause::EmergencyLine => facts.emergency_line == EmergencyLine::Open,
        // An emergency stop asked for by a person is over when the person says so.
        Cause::EmergencyStop
        | Cause::Standby
        | Cause::PermissionExpired
        | Cause::NoChunk
        | Cause::ChunkEnded
        | Cause::PolicyUnsure
        | Cause::ProposalLate
        | Cause::NotFinite
        | Cause::Dimension
        | Cause::StateStale
        | Cause::StopRequested
        | Cause::CameraLost
        | Cause::CameraStuck
        | Cause::CameraBlind
        | Cause::CameraGarbage
        | Cause::CameraLate
        | Cause::CameraClock
        | Cause::DeadmanReleased
        | Cause::TrackingError
        | Cause::Overload
        | Cause::StateJump
        | Cause::StateNotFinite
        | Cause::StateDimension
        | Cause::Oscillation
        | Cause::PoseOutside
        | Cause::PoseMoving
        | Cause::CommandsRefused => false,
    };
    let line = (facts.emergency_line == EmergencyLine::Open).then_some(Cause::EmergencyLine);
    is_true.then_some(latched).or(line)
}
