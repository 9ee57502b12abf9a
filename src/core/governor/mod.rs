// SPDX-License-Identifier: Apache-2.0
//! The governor: small, independent of the policy, and the only maker of a command.
//!
//! Each tick, in this order: is the proposal finite, of the right dimension, young enough? May the robot move at all
//! (permission, deadman, emergency stop, joint state, tracking)? Is the step legal ([`shape`])? What passes unchanged
//! passes bit for bit. What does not is shaped into the nearest legal approach, or answered with a stop ([`stop`]).
//! Every command that is not the proposal says why ([`Verdict`]). One step is one nominal period, whatever real time
//! passed: a late tick slows the robot, it never makes it catch up.
//!
//! The invariant behind everything: *from every state ever emitted, a legal stop exists*, and its first step is known.
//!
//! It does not decide whether the robot may be armed (the supervisor), does not know what a chunk is (the scheduler),
//! and reads no clock.
//!
//! Words: *seated* (the governor has taken the measured pose as its own, at the start of an arming, and the motor
//! controller follows it from there), *axis* (position, velocity, acceleration of one joint as emitted), *in force*
//! (the limits after scaling), *settling* (the time after arming or a change of hands in which limits are tighter).
//!
//! ```text
//!               a new arming, pose fresh, at rest, inside
//!   unseated ------------------------------------------------> seated: follow <----> hold (stop, rest, resume)
//!   (keep-alive shows the measured pose)                         |  latching cause, or the arming ends
//!      ^                                                         v
//!      +------------------------- at rest ---------------- stop; nothing moves until another arming
//! ```

mod lane;
pub mod limits;
pub mod measured;
pub mod motion;
pub mod reaction;
pub mod shape;
pub mod space;
pub mod stop;
#[cfg(test)]
mod tests;
pub mod together;

use crate::core::action::Setpoint;
use crate::core::chunk::Provenance;
use crate::core::kinematics::envelope::Envelope;
use crate::core::observation::{Freshness, JointState};
use crate::core::schedule::{Absence, InForce, Step};
use crate::core::supervisor::{Armed, Hands, Permission};
use crate::core::units::Mono;
use limits::{BadLimits, Limits};
use measured::{Shaking, Watch};
use motion::{Force, Haste, Motion};
use reaction::{Cause, Clears, Reaction};
use shape::Limit;

/// A value that passed the governor. Only this module makes one:
///
/// ```compile_fail
/// use tendon::core::{action::Setpoint, governor::Governed};
/// let forged = Governed { inner: Setpoint::at_rest(&[0.0]) };
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Governed<T> {
    inner: T,
}

impl<T> Governed<T> {
    /// The governed value, to be read.
    pub fn get(&self) -> &T {
        &self.inner
    }
}

/// What the scheduler said, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proposal {
    /// When it was made; its age is judged by this.
    pub made: Mono,
    /// The setpoint for this tick, or why there is none.
    pub step: Step,
}

/// The emergency-stop line, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmergencyLine {
    /// None is wired to this machine.
    NotFitted,
    /// Nobody presses it.
    Closed,
    /// Pressed, cut, or unreadable.
    Open,
}

/// The deadman switch, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadman {
    /// This deployment has none.
    NotFitted,
    /// Held.
    Held,
    /// Released, squeezed, cut, or unreadable.
    Released,
}

/// The lines that a person holds, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    /// The emergency-stop line.
    pub emergency: EmergencyLine,
    /// The deadman switch.
    pub deadman: Deadman,
}

impl Lines {
    /// A machine to which none is wired.
    pub const NOT_FITTED: Lines = Lines {
        emergency: EmergencyLine::NotFitted,
        deadman: Deadman::NotFitted,
    };
}

/// Everything that one step may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The scheduler's newest word; `None` when none came for this tick.
    pub proposal: Option<&'a Proposal>,
    /// The newest joint state. Judged again here, by the governor's own limits.
    pub state: Freshness<&'a JointState>,
    /// The supervisor's word.
    pub permission: Permission,
    /// Another reason not to follow that the supervisor knows of.
    pub hold: Option<Cause>,
    /// An emergency stop that somebody asked for and the supervisor may not have heard of yet.
    pub emergency_stop: bool,
    /// Share of the velocity limits, 0 ..= 1; anything else, NaN included, counts as 0 or 1, whichever is slower or
    /// nearer.
    pub speed_scale: f64,
    /// The emergency-stop line.
    pub emergency_line: EmergencyLine,
    /// The deadman switch.
    pub deadman: Deadman,
}

/// How the command relates to the proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Bit for bit what was proposed.
    Passed,
    /// A legal step towards it; the first limit in its way.
    Shaped(Limit),
    /// A stop or a hold instead, for this cause.
    Held(Cause),
}

impl Verdict {
    /// Its code on the wire: 0 passed, 1 ..= 15 shaped for that limit, 16 + cause held.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Verdict::Passed => 0,
            Verdict::Shaped(limit) => limit as u8,
            Verdict::Held(cause) => (cause as u8).saturating_add(16),
        }
    }
}

/// What leaves the governor each tick.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Number of this step, from 1; wraps. It is the command's counter, so that a receiver knows how many periods lie
    /// between two commands even where one was overtaken by a newer one.
    pub tick: u32,
    /// The command. Its velocity is the slope of its position since the last command.
    pub command: Governed<Setpoint>,
    /// Whether the motor controller is to follow it. If not, it is a keep-alive.
    pub moving: bool,
    /// How it came about.
    pub verdict: Verdict,
    /// What is asked of the motor controller besides. [`Reaction::Stop`] asks for torque off once `at_rest`.
    pub reaction: Reaction,
    /// Arm epoch of the permission it is seated for; 0 without one.
    pub epoch: u32,
    /// The chunk it is made of; zeros when it is made of none.
    pub provenance: Provenance,
    /// Action of the chunk.
    pub action: u16,
    /// Whether every joint is at rest in what was emitted.
    pub at_rest: bool,
    /// Which share of the limits it was held to: whoever plans keeps to them too.
    pub in_force: InForce,
    /// What the governor found by itself, whatever the supervisor said: for [`crate::core::supervisor::Facts::held`].
    pub found: Option<Cause>,
}

/// Ticks without a usable proposal after which the robot comes to rest before it resumes. During these it already
/// brakes, and goes on if a proposal comes: one late wake-up of the control thread should not cost a full stop.
/// DESIGN asks that a dead control thread stops the robot within 2 ticks: it brakes from the first.
const GRACE_TICKS: u8 = 2;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Governor {
    limits: Limits,
    motion: Motion,
    watch: Watch,
    shaking: Shaking,
    /// The arming that the motion was seated for; 0 while not seated.
    seated_for: u32,
    hands: Hands,
    /// Ticks for which the tighter limits of settling are still in force. Counted, not timed: a step is a period.
    settling: u64,
    /// A cause that holds until another arming, and the arming that it ended.
    latched: Option<(Cause, u32)>,
    /// The robot comes to rest for this before it resumes.
    resting: Option<Cause>,
    grace: u8,
    tick: u32,
}

impl Governor {
    /// A governor at rest that has never been armed.
    ///
    /// # Errors
    /// [`BadLimits`] names joint and limit.
    pub fn new(limits: Limits) -> Result<Governor, BadLimits> {
        limits.check()?;
        let motion = Motion::new(&limits)?;
        Ok(Governor {
            limits,
            motion,
            watch: Watch::default(),
            shaking: Shaking::default(),
            seated_for: 0,
            hands: Hands::Policy,
            settling: 0,
            latched: None,
            resting: None,
            grace: 0,
            tick: 0,
        })
    }

    /// The same governor, that also keeps the robot inside `envelope`.
    ///
    /// # Errors
    /// [`BadLimits::Different`] if the envelope is of other joints.
    pub fn within(mut self, envelope: Envelope) -> Result<Governor, BadLimits> {
        self.motion.contain(envelope)?;
        Ok(self)
    }

    /// The limits that it keeps, or, after a change that is still coming into force, will keep.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Asks for other limits of the same joints at the same rate, also while moving. What is tighter comes into force
    /// as soon as it can be kept, what is looser at rest; see [`motion`].
    ///
    /// # Errors
    /// [`BadLimits`]; the old ones then stay.
    pub fn change_limits(&mut self, limits: Limits) -> Result<(), BadLimits> {
        self.motion.change(&limits)?;
        self.limits = limits;
        Ok(())
    }

    /// One tick: one nominal period, one command.
    pub fn step(&mut self, now: Mono, input: &Input<'_>) -> Output {
        let armed = match input.permission {
            Permission::Armed(armed) if armed.valid(now) => Some(armed),
            Permission::Armed(_) | Permission::None => None,
        };
        let state = measured::usable(now, &input.state, &self.limits);
        let seated_before = self.seated_for;
        if let Some(armed) = armed {
            self.take_over(armed, state.ok());
        }
        // First what is so, then what to do about it.
        let own = self.cause(now, input, state);
        let worst = self
            .limits
            .reactions
            .worst(own.into_iter().chain(input.hold));
        // The first command of an arming is the measured pose itself, whatever is proposed.
        let first = self.seated_for != seated_before;
        let cause = self.remember(worst).or(first.then_some(Cause::Standby));
        self.put_limits_in_force(input.speed_scale);
        let (verdict, provenance, action) =
            match (cause, input.proposal.map(|proposal| &proposal.step)) {
                (
                    None,
                    Some(Step::Setpoint {
                        setpoint,
                        provenance,
                        action,
                    }),
                ) => (self.follow(now, setpoint), *provenance, *action),
                // No cause and no setpoint cannot be; if it were, standing still is right.
                (None, Some(Step::None(_)) | None) => {
                    (self.hold(Cause::ProposalLate), Provenance::default(), 0)
                }
                (Some(cause), _) => (self.hold(cause), Provenance::default(), 0),
            };
        let at_rest = self.motion.at_rest();
        if armed.is_none() && at_rest {
            self.seated_for = 0;
        }
        if self.seated_for == 0
            && at_rest
            && let Ok(state) = state
        {
            // Nothing follows this; it shows where the robot is.
            self.motion.seat(&state.position);
        }
        self.tick = self.tick.wrapping_add(1);
        Output {
            tick: self.tick,
            command: Governed {
                inner: self.motion.setpoint(),
            },
            moving: self.seated_for != 0,
            verdict,
            reaction: match verdict {
                Verdict::Passed | Verdict::Shaped(_) => Reaction::Follow,
                Verdict::Held(cause) => self.limits.reactions.of(cause),
            },
            epoch: self.seated_for,
            provenance,
            action,
            at_rest,
            in_force: InForce {
                velocity: self.motion.share(),
                acceleration: match self.motion.in_force() {
                    Force::Full => 1.0,
                    Force::Tight => self.limits.settling.acceleration,
                },
            },
            found: if worst.is_none() { cause } else { own },
        }
    }

    /// Seats the motion for a new arming; notices when another's hands take over.
    fn take_over(&mut self, armed: Armed, state: Option<&JointState>) {
        let ended = self
            .latched
            .is_some_and(|(_, epoch)| epoch == armed.epoch());
        if armed.epoch() != self.seated_for && !ended && self.motion.at_rest() {
            let Some(state) = state else { return };
            let outside = !self.motion.may_seat(&state.position);
            let refused = measured::cannot_seat(state, &self.limits)
                .or(outside.then_some(Cause::PoseOutside));
            self.latched = refused.map(|cause| (cause, armed.epoch()));
            if refused.is_some() {
                return;
            }
            self.motion.seat(&state.position);
            self.seated_for = armed.epoch();
            self.settling = self.settling_ticks();
            self.resting = None;
            self.grace = 0;
            self.watch = Watch::default();
            self.shaking = Shaking::default();
        }
        if armed.epoch() == self.seated_for && armed.hands() != self.hands {
            self.hands = armed.hands();
            self.settling = self.settling_ticks();
        }
    }

    /// The worst reason not to follow that is seen here, if there is one. Every reason is looked at; the order of
    /// [`Reaction`] decides, and among equals the later in this list, which explains more.
    fn cause(
        &mut self,
        now: Mono,
        input: &Input<'_>,
        state: Result<&JointState, Cause>,
    ) -> Option<Cause> {
        let seated = self.seated_for != 0;
        let (permission, offered) = match input.permission {
            Permission::Armed(armed) if armed.valid(now) => (
                (armed.epoch() != self.seated_for).then_some(Cause::Standby),
                armed.epoch(),
            ),
            Permission::Armed(armed) => (Some(Cause::PermissionExpired), armed.epoch()),
            Permission::None => (Some(Cause::Standby), 0),
        };
        let deadman = match input.deadman {
            Deadman::NotFitted | Deadman::Held => None,
            Deadman::Released => Some(Cause::DeadmanReleased),
        };
        let line = match input.emergency_line {
            EmergencyLine::NotFitted | EmergencyLine::Closed => None,
            EmergencyLine::Open => Some(Cause::EmergencyLine),
        };
        let stop = input.emergency_stop.then_some(Cause::EmergencyStop);
        let measured = match state {
            Ok(state) if seated => {
                self.watch
                    .look(now, state, self.motion.positions(), &self.limits)
            }
            Ok(_) => None,
            Err(cause) => Some(cause),
        };
        let shaking = self.shaking.too_much().then_some(Cause::Oscillation);
        // A latch ends an arming. Once that is neither offered nor moving, the supervisor alone remembers the cause.
        let latched = self
            .latched
            .filter(|(_, epoch)| seated || *epoch == offered)
            .map(|(cause, _)| cause);
        let proposal = self.unusable(now, input.proposal);
        let causes = [
            proposal, shaking, measured, permission, deadman, latched, stop, line,
        ];
        self.limits.reactions.worst(causes.into_iter().flatten())
    }

    /// Why the proposal cannot be used, if so.
    fn unusable(&self, now: Mono, proposal: Option<&Proposal>) -> Option<Cause> {
        let Some(proposal) = proposal else {
            return Some(Cause::ProposalLate);
        };
        let setpoint = match &proposal.step {
            Step::None(Absence::NoChunk | Absence::NotYet) => return Some(Cause::NoChunk),
            Step::None(Absence::Ended) => return Some(Cause::ChunkEnded),
            Step::None(Absence::Unsure) => return Some(Cause::PolicyUnsure),
            Step::Setpoint { setpoint, .. } => setpoint,
        };
        let joints = self.limits.joints.len();
        let mut numbers = setpoint
            .position
            .iter()
            .take(joints)
            .chain(setpoint.velocity.iter().take(joints));
        if !numbers.all(|number| number.is_finite()) {
            return Some(Cause::NotFinite);
        }
        if setpoint.joints != joints {
            return Some(Cause::Dimension);
        }
        // From the future by more than a tick: a clock or a memory is wrong, and it would stay fresh for ever.
        let early = proposal.made > now.plus_ns(self.limits.period_ns);
        let late = now.since_ns(proposal.made) > self.limits.proposal_age_max_ns;
        (early || late).then_some(Cause::ProposalLate)
    }

    /// Lets a cause outlast its tick where the table says so.
    fn remember(&mut self, cause: Option<Cause>) -> Option<Cause> {
        if self.seated_for == 0 {
            self.resting = None;
            return cause;
        }
        let Some(cause) = cause else {
            self.grace = 0;
            if self.motion.at_rest() {
                self.resting = None;
            }
            return self.resting;
        };
        match self.limits.reactions.clears(cause) {
            Clears::ByItself => {
                self.grace = self.grace.saturating_add(1);
                if self.grace > GRACE_TICKS {
                    self.resting = Some(cause);
                }
            }
            Clears::OnArming | Clears::OnAcknowledgement => {
                self.resting = Some(cause);
                let old = self.latched.map(|(old, _)| self.limits.reactions.of(old));
                if old.is_none_or(|old| self.limits.reactions.of(cause) > old) {
                    self.latched = Some((cause, self.seated_for));
                }
            }
        }
        Some(cause)
    }

    fn settling_ticks(&self) -> u64 {
        self.limits
            .settling
            .window_ns
            .checked_div(self.limits.period_ns)
            .unwrap_or(0)
    }

    fn put_limits_in_force(&mut self, speed_scale: f64) {
        let (force, settling) = if self.settling > 0 {
            (Force::Tight, self.limits.settling.velocity)
        } else {
            (Force::Full, 1.0)
        };
        self.settling = self.settling.saturating_sub(1);
        #[allow(clippy::manual_clamp)] // `clamp` hands a NaN on: this makes it 0.
        let scale = speed_scale.max(0.0).min(1.0);
        self.motion.put_in_force(force, scale * settling);
    }

    fn follow(&mut self, now: Mono, setpoint: &Setpoint) -> Verdict {
        let limit = self.motion.follow(setpoint);
        self.shaking
            .count(now, limit.is_some(), self.motion.positions(), &self.limits);
        limit.map_or(Verdict::Passed, Verdict::Shaped)
    }

    fn hold(&mut self, cause: Cause) -> Verdict {
        let haste = match self.limits.reactions.of(cause) {
            Reaction::Follow | Reaction::Hold | Reaction::Stop => Haste::Orderly,
            Reaction::TorqueOff => Haste::Utmost,
        };
        self.motion.brake(haste);
        Verdict::Held(cause)
    }
}
