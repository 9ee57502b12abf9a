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

pub mod limits;
pub mod reaction;
pub mod shape;
pub mod stop;
#[cfg(test)]
mod tests;

use crate::core::action::{JointKind, Setpoint};
use crate::core::chunk::Provenance;
use crate::core::limits::JOINTS_MAX;
use crate::core::observation::{Freshness, JointState};
use crate::core::schedule::{Absence, Step};
use crate::core::supervisor::{Hands, Permission};
use crate::core::units::{MS, Mono};
use limits::{BadLimits, Limits};
use reaction::{Cause, Clears, Reaction};
use shape::{Axis, Bounds, Limit};

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
}

/// Ticks without a usable proposal after which the robot comes to rest before it resumes. During these it already
/// brakes, and goes on if a proposal comes: one late wake-up of the control thread should not cost a full stop.
/// DESIGN asks that a dead control thread stops the robot within 2 ticks: it brakes from the first.
const GRACE_TICKS: u8 = 2;

/// A tracking error that lasts this long is no lag (SAFETY row 44: reaction within 60 ms).
const TRACKING_NS: u64 = 50 * MS;

/// Share of a joint's velocity limit below which a measured joint counts as at rest. A guess: encoders differentiate
/// to a few 0.01 rad/s, and the slowest limits in use are about 1 rad/s.
const REST_SHARE: f64 = 0.02;

/// No share that can be asked for: the bounds are to be scaled anew.
const UNSCALED: f64 = -1.0;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Governor {
    limits: Limits,
    axes: [Axis; JOINTS_MAX],
    /// The usual limits, and the tighter ones while settling.
    full: [Bounds; JOINTS_MAX],
    tight: [Bounds; JOINTS_MAX],
    in_force: Force,
    /// The tighter limits are wanted and cannot be kept yet: the robot is slowed until they can.
    tightening: bool,
    /// Share of the velocity limits in force.
    velocity_share: f64,
    /// The arming that the axes were seated for; 0 while not seated.
    seated_for: u32,
    hands: Hands,
    settles: Mono,
    /// A cause that holds until another arming, and the arming that it ended.
    latched: Option<(Cause, u32)>,
    /// The robot comes to rest for this before it resumes.
    resting: Option<Cause>,
    grace: u8,
    off_track: Option<Mono>,
    measured: Option<JointState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Force {
    Full,
    Tight,
}

impl Governor {
    /// A governor at rest that has never been armed.
    ///
    /// # Errors
    /// [`BadLimits`] names joint and limit.
    pub fn new(limits: Limits) -> Result<Governor, BadLimits> {
        limits.check()?;
        let (full, tight) = bounds_of(&limits)?;
        let mut axes = [Axis::default(); JOINTS_MAX];
        for (axis, joint) in axes.iter_mut().zip(&limits.joints) {
            axis.q = 0.0_f64
                .max(joint.limits.position_min)
                .min(joint.limits.position_max);
        }
        Ok(Governor {
            limits,
            axes,
            full,
            tight,
            in_force: Force::Full,
            tightening: false,
            velocity_share: 1.0,
            seated_for: 0,
            hands: Hands::Policy,
            settles: Mono(0),
            latched: None,
            resting: None,
            grace: 0,
            off_track: None,
            measured: None,
        })
    }

    /// The limits that it keeps.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// One tick: one nominal period, one command.
    pub fn step(&mut self, now: Mono, input: &Input<'_>) -> Output {
        let armed = match input.permission {
            Permission::Armed(armed) if armed.valid(now) => Some(armed),
            Permission::Armed(_) | Permission::None => None,
        };
        let state = self.usable(now, &input.state);
        // First what is so, then what to do about it.
        if let Some(armed) = armed
            && armed.epoch() != self.seated_for
            && self.at_rest()
            && self.latched.is_none_or(|(_, epoch)| epoch != armed.epoch())
        {
            self.seat(now, armed.epoch(), armed.hands(), state.ok());
        }
        if let Some(armed) = armed
            && armed.hands() != self.hands
        {
            self.hands = armed.hands();
            self.settles = now.plus_ns(self.limits.settling.window_ns);
        }
        let cause = self.cause(now, input, state);
        self.put_limits_in_force(now, input.speed_scale);
        let cause = self.remember(cause);

        let (verdict, provenance, action) = match (cause, input.proposal.map(|p| &p.step)) {
            (
                None,
                Some(Step::Setpoint {
                    setpoint,
                    provenance,
                    action,
                }),
            ) => (self.follow(setpoint), *provenance, *action),
            // No cause and no setpoint cannot be; if it were, standing still is right.
            (None, Some(Step::None(_)) | None) => {
                (self.hold(Cause::ProposalLate), Provenance::default(), 0)
            }
            (Some(cause), _) => (self.hold(cause), Provenance::default(), 0),
        };
        let at_rest = self.at_rest();
        let reaction = match verdict {
            Verdict::Passed | Verdict::Shaped(_) => Reaction::Follow,
            Verdict::Held(cause) => self.limits.reactions.of(cause),
        };
        if armed.is_none() && at_rest && self.seated_for != 0 {
            self.seated_for = 0;
        }
        if self.seated_for == 0
            && let Ok(state) = state
        {
            // Nothing follows this; it shows where the robot is.
            self.show(state);
        }
        Output {
            command: Governed {
                inner: self.emitted(),
            },
            moving: self.seated_for != 0,
            verdict,
            reaction,
            epoch: self.seated_for,
            provenance,
            action,
            at_rest,
        }
    }

    /// The joint state if it can be used, else why not.
    fn usable<'a>(
        &self,
        now: Mono,
        state: &Freshness<&'a JointState>,
    ) -> Result<&'a JointState, Cause> {
        let state = match *state {
            Freshness::NeverSeen => return Err(Cause::StateStale),
            Freshness::Stale { age_ns } if age_ns > self.limits.state_lost_ns => {
                return Err(Cause::StateLost);
            }
            Freshness::Stale { .. } => return Err(Cause::StateStale),
            Freshness::Fresh(state) => state,
        };
        let age_ns = now.since_ns(state.received);
        if age_ns > self.limits.state_lost_ns {
            Err(Cause::StateLost)
        } else if age_ns > self.limits.state_age_max_ns
            || state.received > now.plus_ns(self.limits.period_ns)
        {
            Err(Cause::StateStale)
        } else if state.joints != self.limits.joints.len() {
            Err(Cause::StateDimension)
        } else if !counted(state).all(|(q, v)| q.is_finite() && v.is_finite()) {
            Err(Cause::StateNotFinite)
        } else {
            Ok(state)
        }
    }

    /// Why the proposal cannot be used, if so.
    fn unusable(&self, now: Mono, proposal: Option<&Proposal>) -> Option<Cause> {
        let Some(proposal) = proposal else {
            return Some(Cause::ProposalLate);
        };
        let setpoint = match &proposal.step {
            Step::None(Absence::NoChunk | Absence::NotYet) => return Some(Cause::NoChunk),
            Step::None(Absence::Ended) => return Some(Cause::ChunkEnded),
            Step::Setpoint { setpoint, .. } => setpoint,
        };
        let numbers = setpoint
            .position
            .iter()
            .zip(&setpoint.velocity)
            .take(self.limits.joints.len());
        if !numbers
            .into_iter()
            .all(|(q, v)| q.is_finite() && v.is_finite())
        {
            Some(Cause::NotFinite)
        } else if setpoint.joints != self.limits.joints.len() {
            Some(Cause::Dimension)
        } else if now.since_ns(proposal.made) > self.limits.proposal_age_max_ns
            // From the future: a clock or a memory is wrong, and such a proposal would stay fresh for ever.
            || proposal.made > now.plus_ns(self.limits.period_ns)
        {
            Some(Cause::ProposalLate)
        } else {
            None
        }
    }

    /// The worst reason not to follow, if there is one. Every reason is looked at; the order of [`Reaction`] decides,
    /// and among equals the later in this list, which explains more.
    fn cause(
        &mut self,
        now: Mono,
        input: &Input<'_>,
        state: Result<&JointState, Cause>,
    ) -> Option<Cause> {
        let seated = self.seated_for != 0;
        let proposal = self.unusable(now, input.proposal);
        let permission = match input.permission {
            Permission::Armed(armed) if armed.valid(now) => {
                (armed.epoch() != self.seated_for).then_some(Cause::Standby)
            }
            Permission::Armed(_) => Some(Cause::PermissionExpired),
            Permission::None => Some(Cause::Standby),
        };
        let deadman = match input.deadman {
            Deadman::NotFitted | Deadman::Held => None,
            Deadman::Released => Some(Cause::DeadmanReleased),
        };
        let line = match input.emergency_line {
            EmergencyLine::NotFitted | EmergencyLine::Closed => None,
            EmergencyLine::Open => Some(Cause::EmergencyLine),
        };
        let watched = match state {
            Ok(state) if seated => self.watch(now, state),
            Ok(_) => None,
            Err(cause) => Some(cause),
        };
        let offered = match input.permission {
            Permission::Armed(armed) => armed.epoch(),
            Permission::None => 0,
        };
        // A latch ends an arming. Once that is neither offered nor moving the supervisor alone remembers the cause.
        let latched = self
            .latched
            .filter(|(_, epoch)| *epoch == offered || seated)
            .map(|(cause, _)| cause);
        let causes = [
            proposal, watched, permission, deadman, input.hold, latched, line,
        ];
        self.limits.reactions.worst(causes.into_iter().flatten())
    }

    /// Whether the measured robot does what it was told.
    fn watch(&mut self, now: Mono, state: &JointState) -> Option<Cause> {
        let before = self.measured.replace(*state);
        let mut off_track = false;
        let mut jumped = false;
        for (index, joint) in self.limits.joints.iter().enumerate() {
            let (Some(axis), Some(q)) = (self.axes.get(index), state.position.get(index)) else {
                continue;
            };
            if joint.kind == JointKind::Gripper {
                continue;
            }
            off_track |= (axis.q - q).abs() > joint.limits.tracking_error_max;
            if let Some(before) = &before
                && before.measured < state.measured
                && let Some(q_before) = before.position.get(index)
            {
                // Twice the speed limit, and the tracking error on top for noise and a drive that catches up.
                let dt_s = state.measured.seconds_since(before.measured);
                let most = 2.0 * joint.limits.velocity_max * dt_s + joint.limits.tracking_error_max;
                jumped |= (q - q_before).abs() > most;
            }
        }
        let since = if off_track {
            Some(self.off_track.unwrap_or(now))
        } else {
            None
        };
        self.off_track = since;
        if jumped {
            Some(Cause::StateJump)
        } else if since.is_some_and(|since| now.since_ns(since) >= TRACKING_NS) {
            Some(Cause::TrackingError)
        } else {
            None
        }
    }

    /// Lets a cause outlast its tick where the table says so.
    fn remember(&mut self, cause: Option<Cause>) -> Option<Cause> {
        let Some(cause) = cause else {
            self.grace = 0;
            if self.at_rest() {
                self.resting = None;
            }
            return self.resting;
        };
        if self.seated_for == 0 {
            self.resting = None;
            return Some(cause);
        }
        match self.limits.reactions.clears(cause) {
            Clears::ByItself => {
                self.grace = self.grace.saturating_add(1);
                if self.grace > GRACE_TICKS {
                    self.resting = Some(cause);
                }
            }
            Clears::OnArming | Clears::OnAcknowledgement => {
                self.resting = Some(cause);
                // Being in standby is no fault, and ends with the next arming like everything that is latched.
                let worse = self.latched.is_none_or(|(old, _)| {
                    self.limits.reactions.of(cause) > self.limits.reactions.of(old)
                });
                if worse {
                    self.latched = Some((cause, self.seated_for));
                }
            }
        }
        Some(cause)
    }

    /// Takes the measured pose as its own. Refused where the first command could not be where the robot stands.
    fn seat(&mut self, now: Mono, epoch: u32, hands: Hands, state: Option<&JointState>) {
        let Some(state) = state else { return };
        let mut refused = None;
        for (joint, (q, v)) in self.limits.joints.iter().zip(counted(state)) {
            let l = &joint.limits;
            match joint.kind {
                JointKind::Gripper => {}
                JointKind::Revolute | JointKind::Prismatic => {
                    if !(q >= l.position_min && q <= l.position_max) {
                        refused = Some(Cause::PoseOutside);
                    } else if v.abs() > REST_SHARE * l.velocity_max {
                        refused = refused.or(Some(Cause::PoseMoving));
                    }
                }
            }
        }
        self.latched = refused.map(|cause| (cause, epoch));
        if refused.is_some() {
            return;
        }
        self.show(state);
        self.seated_for = epoch;
        self.hands = hands;
        self.settles = now.plus_ns(self.limits.settling.window_ns);
        self.in_force = Force::Full;
        self.resting = None;
        self.grace = 0;
        self.off_track = None;
        self.measured = None;
    }

    /// Puts the axes at the measured pose, at rest, inside the limits.
    fn show(&mut self, state: &JointState) {
        for (index, (q, _)) in counted(state).enumerate() {
            if let (Some(axis), Some(joint)) =
                (self.axes.get_mut(index), self.limits.joints.get(index))
            {
                let inside = q
                    .max(joint.limits.position_min)
                    .min(joint.limits.position_max);
                *axis = Axis {
                    q: inside,
                    v: 0.0,
                    a: 0.0,
                };
            }
        }
    }

    /// Chooses full or tighter limits, and scales velocities. Tighter accelerations come into force when every joint
    /// can keep them; until then [`Governor::follow`] brakes.
    fn put_limits_in_force(&mut self, now: Mono, speed_scale: f64) {
        let settling = now < self.settles;
        let wanted = if settling { Force::Tight } else { Force::Full };
        if wanted != self.in_force && self.can_keep(wanted) {
            self.in_force = wanted;
            self.velocity_share = UNSCALED;
        }
        self.tightening = settling && self.in_force == Force::Full;
        let settled = if settling {
            self.limits.settling.velocity
        } else {
            1.0
        };
        // max then min: a NaN becomes 0.
        let share = speed_scale.max(0.0).min(1.0) * settled;
        if share != self.velocity_share {
            self.velocity_share = share;
            let bounds = match self.in_force {
                Force::Full => &mut self.full,
                Force::Tight => &mut self.tight,
            };
            for (bounds, joint) in bounds.iter_mut().zip(&self.limits.joints) {
                bounds.scale_velocity(joint.limits.velocity_max, share);
            }
        }
    }

    fn bounds(&self, force: Force) -> &[Bounds; JOINTS_MAX] {
        match force {
            Force::Full => &self.full,
            Force::Tight => &self.tight,
        }
    }

    fn can_keep(&self, force: Force) -> bool {
        self.moving_axes().all(|(index, axis)| {
            self.bounds(force)
                .get(index)
                .is_some_and(|b| b.keeps(*axis))
        })
    }

    /// The axes that have rates: all but grippers.
    fn moving_axes(&self) -> impl Iterator<Item = (usize, &Axis)> {
        let kinds = self.limits.joints.iter().map(|joint| joint.kind);
        let axes = self.axes.iter().zip(kinds).enumerate();
        axes.filter_map(|(index, (axis, kind))| match kind {
            JointKind::Gripper => None,
            JointKind::Revolute | JointKind::Prismatic => Some((index, axis)),
        })
    }

    fn follow(&mut self, setpoint: &Setpoint) -> Verdict {
        if self.tightening {
            self.brake();
            return Verdict::Shaped(Limit::Acceleration);
        }
        let mut next = self.axes;
        let mut first = None;
        let bounds = self.bounds(self.in_force);
        let wishes = setpoint.position.iter().zip(&setpoint.velocity);
        for (((joint, bounds), axis), (q, v)) in self
            .limits
            .joints
            .iter()
            .zip(bounds)
            .zip(next.iter_mut())
            .zip(wishes)
        {
            match joint.kind {
                JointKind::Gripper => {
                    let kept = q
                        .max(joint.limits.position_min)
                        .min(joint.limits.position_max);
                    if kept != *q {
                        first = first.or(Some(Limit::Position));
                    }
                    *axis = Axis {
                        q: kept,
                        v: 0.0,
                        a: 0.0,
                    };
                }
                JointKind::Revolute | JointKind::Prismatic => {
                    let wish = bounds.reached(*axis, *q);
                    *axis = match bounds.legal(*axis, wish) {
                        Ok(()) => wish,
                        Err(limit) => {
                            first = first.or(Some(limit));
                            bounds.toward(*axis, *q, *v)
                        }
                    };
                }
            }
        }
        self.axes = next;
        first.map_or(Verdict::Passed, Verdict::Shaped)
    }

    fn hold(&mut self, cause: Cause) -> Verdict {
        self.brake();
        Verdict::Held(cause)
    }

    /// The first step of every joint's stop.
    fn brake(&mut self) {
        let mut next = self.axes;
        for ((joint, bounds), axis) in self
            .limits
            .joints
            .iter()
            .zip(self.bounds(self.in_force))
            .zip(next.iter_mut())
        {
            match joint.kind {
                JointKind::Gripper => {}
                JointKind::Revolute | JointKind::Prismatic => *axis = bounds.stop(*axis),
            }
        }
        self.axes = next;
    }

    fn at_rest(&self) -> bool {
        self.moving_axes()
            .all(|(_, axis)| axis.v == 0.0 && axis.a == 0.0)
    }

    fn emitted(&self) -> Setpoint {
        let mut setpoint = Setpoint {
            joints: self.limits.joints.len(),
            position: [0.0; JOINTS_MAX],
            velocity: [0.0; JOINTS_MAX],
        };
        for ((axis, q), v) in self
            .axes
            .iter()
            .take(self.limits.joints.len())
            .zip(setpoint.position.iter_mut())
            .zip(setpoint.velocity.iter_mut())
        {
            (*q, *v) = (axis.q, axis.v);
        }
        setpoint
    }
}

/// Positions and velocities that count.
fn counted(state: &JointState) -> impl Iterator<Item = (f64, f64)> + '_ {
    state
        .position
        .iter()
        .copied()
        .zip(state.velocity.iter().copied())
        .take(state.joints)
}

/// Usual and tighter bounds of each joint; the entries past the last joint are never read.
fn bounds_of(limits: &Limits) -> Result<([Bounds; JOINTS_MAX], [Bounds; JOINTS_MAX]), BadLimits> {
    let mut full = [Bounds::NONE; JOINTS_MAX];
    let mut tight = [Bounds::NONE; JOINTS_MAX];
    for (index, joint) in limits.joints.iter().enumerate() {
        if joint.kind == JointKind::Gripper {
            continue;
        }
        let wide = Bounds::new(index, &joint.limits, limits.period_s(), 1.0)?;
        let close = Bounds::new(
            index,
            &joint.limits,
            limits.period_s(),
            limits.settling.acceleration,
        )?;
        if let (Some(full), Some(tight)) = (full.get_mut(index), tight.get_mut(index)) {
            (*full, *tight) = (wide, close);
        }
    }
    Ok((full, tight))
}
