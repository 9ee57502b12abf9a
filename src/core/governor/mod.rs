// SPDX-License-Identifier: Apache-2.0
//! The governor: small, independent of the policy, and the only maker of a command.
//!
//! Each tick, in this order: may the robot move at all (permission, e-stop, joint state)? Is there a proposal, finite
//! and of the right dimension? Is the step legal ([`shape`])? What passes unchanged passes bit for bit; what does not
//! is answered with the nearest legal step or with a stop. One step is one nominal period, whatever real time passed:
//! a late tick slows the robot, it never makes it catch up.
//!
//! It does not decide whether the robot may be armed (the supervisor), and does not know what a chunk is (the
//! scheduler).

pub mod reaction;
pub mod shape;
#[cfg(test)]
mod tests;

use crate::core::action::{JointKind, Setpoint};
use crate::core::chunk::Provenance;
use crate::core::limits::JOINTS_MAX;
use crate::core::observation::{Freshness, JointState};
use crate::core::schedule::{Absence, Step};
use crate::core::units::Mono;
use reaction::{Cause, Reaction};
use shape::{Axis, JointLimits};

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

/// What the supervisor allows. A value that expires: a dead supervisor is a withdrawn permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// No motion: stay, or come to rest.
    None,
    /// Motion until `until`, as part of the arming `epoch`.
    Armed {
        /// Random number of this arming.
        epoch: u32,
        /// The end of the permission.
        until: Mono,
    },
}

/// Everything that one step may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The scheduler's word; `None` when it did not come in time.
    pub proposal: Option<&'a Step>,
    /// The newest joint state, judged by its age.
    pub state: Freshness<&'a JointState>,
    /// The supervisor's word.
    pub permission: Permission,
    /// Another reason to hold that the supervisor knows of.
    pub hold: Option<Cause>,
    /// The emergency stop, line or request; latched by the supervisor.
    pub emergency_stop: bool,
}

/// How the command relates to the proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Bit for bit what was proposed.
    Passed,
    /// The nearest legal step to it.
    Shaped,
    /// A stop or a hold instead, for this cause.
    Held(Cause),
}

/// What leaves the governor each tick.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Number of this step, from 1; wraps. It is the command's counter, so that a receiver knows how many periods lie
    /// between two commands even where one was overtaken by a newer one.
    pub tick: u32,
    /// The command.
    pub command: Governed<Setpoint>,
    /// Whether the motor controller is to follow it. If not, it is a keep-alive.
    pub moving: bool,
    /// How it came about.
    pub verdict: Verdict,
    /// What is asked of the motor controller besides.
    pub reaction: Reaction,
    /// Arm epoch of the permission; 0 without one.
    pub epoch: u32,
    /// The chunk it is made of; zeros when it is made of none.
    pub provenance: Provenance,
    /// Action of the chunk.
    pub action: u16,
    /// Whether every joint is at rest in what was emitted.
    pub at_rest: bool,
}

/// One joint's kind and limits, named in errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Joint {
    /// How its numbers are read. A gripper is kept in 0..1 and has no rate limits.
    pub kind: JointKind,
    /// Its limits.
    pub limits: JointLimits,
}

/// A limit that cannot be governed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BadLimits {
    /// None, or more than fit.
    #[error("{found} joints; expected 1..={JOINTS_MAX}")]
    Count {
        /// Joints given.
        found: usize,
    },
    /// Not finite, not positive, or inverted.
    #[error(
        "joint {joint}: limits must be finite, position_min < position_max, velocity and acceleration above 0; found {limits:?}"
    )]
    Joint {
        /// Its index.
        joint: usize,
        /// What was given.
        limits: JointLimits,
    },
    /// The control period is zero.
    #[error("the control period is 0 ns")]
    Period,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Governor {
    joints: heapless::Vec<Joint, JOINTS_MAX>,
    period_s: f64,
    axes: [Axis; JOINTS_MAX],
    /// The arming that the axes were seated for; 0 while not armed.
    seated_for: u32,
    tick: u32,
}

impl Governor {
    /// A governor at rest that has never been armed.
    ///
    /// # Errors
    /// [`BadLimits`] names the joint.
    pub fn new(joints: &[Joint], period_ns: u64) -> Result<Governor, BadLimits> {
        let kept = heapless::Vec::from_slice(joints).map_err(|_| BadLimits::Count {
            found: joints.len(),
        })?;
        if joints.is_empty() {
            return Err(BadLimits::Count { found: 0 });
        }
        if period_ns == 0 {
            return Err(BadLimits::Period);
        }
        for (index, joint) in joints.iter().enumerate() {
            let l = joint.limits;
            let good = l.position_min < l.position_max
                && l.position_min.is_finite()
                && l.position_max.is_finite()
                && l.velocity_max > 0.0
                && l.velocity_max.is_finite()
                && l.acceleration_max > 0.0
                && l.acceleration_max.is_finite();
            if !good {
                return Err(BadLimits::Joint {
                    joint: index,
                    limits: l,
                });
            }
        }
        Ok(Governor {
            joints: kept,
            period_s: period_ns as f64 * 1e-9,
            axes: [Axis::default(); JOINTS_MAX],
            seated_for: 0,
            tick: 0,
        })
    }

    /// One tick: one nominal period, one command.
    pub fn step(&mut self, now: Mono, input: &Input<'_>) -> Output {
        let armed = match input.permission {
            Permission::Armed { epoch, until } if now <= until => Some(epoch),
            Permission::Armed { .. } | Permission::None => None,
        };
        if let Some(epoch) = armed
            && epoch != self.seated_for
            && self.at_rest()
            && let Freshness::Fresh(state) = input.state
        {
            self.seat(state);
            self.seated_for = epoch;
        }
        let cause = self.cause(input, armed);
        let (verdict, provenance, action) = match (cause, input.proposal) {
            (
                None,
                Some(Step::Setpoint {
                    setpoint,
                    provenance,
                    action,
                }),
            ) => (self.follow(setpoint), *provenance, *action),
            (None, Some(Step::None(_)) | None) => {
                (self.hold(Cause::ProposalLate), Provenance::default(), 0)
            }
            (Some(cause), _) => (self.hold(cause), Provenance::default(), 0),
        };
        let at_rest = self.at_rest();
        if armed.is_none() && at_rest {
            // Not armed and at rest: the next arming seats anew, and meanwhile the keep-alive shows the real pose.
            self.seated_for = 0;
            if let Freshness::Fresh(state) = input.state {
                self.seat(state);
            }
        }
        let reaction = match verdict {
            Verdict::Passed | Verdict::Shaped => Reaction::Follow,
            Verdict::Held(cause) => cause.reaction(),
        };
        self.tick = self.tick.wrapping_add(1);
        Output {
            tick: self.tick,
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

    /// The worst reason not to follow, if there is one. Every reason is looked at; the order of [`Reaction`] decides.
    fn cause(&self, input: &Input<'_>, armed: Option<u32>) -> Option<Cause> {
        let permission = match (armed, input.permission) {
            (Some(epoch), _) if epoch == self.seated_for => None,
            (Some(_), _) | (None, Permission::None) => Some(Cause::Standby),
            (None, Permission::Armed { .. }) => Some(Cause::PermissionExpired),
        };
        let state = match input.state {
            Freshness::Fresh(_) => None,
            Freshness::NeverSeen | Freshness::Stale { .. } => Some(Cause::StateStale),
        };
        let proposal = match input.proposal {
            None => Some(Cause::ProposalLate),
            Some(Step::None(Absence::NoChunk | Absence::NotYet)) => Some(Cause::NoChunk),
            Some(Step::None(Absence::Ended)) => Some(Cause::ChunkEnded),
            Some(Step::Setpoint { setpoint, .. }) if setpoint.joints != self.joints.len() => {
                Some(Cause::Dimension)
            }
            Some(Step::Setpoint { setpoint, .. }) => {
                let finite = setpoint.positions().iter().all(|q| q.is_finite());
                (!finite).then_some(Cause::NotFinite)
            }
        };
        let stop = input.emergency_stop.then_some(Cause::EmergencyStop);
        // `max_by_key` keeps the last of equals: what the supervisor says explains more than a missing proposal.
        [proposal, state, permission, input.hold, stop]
            .into_iter()
            .flatten()
            .max_by_key(|cause| cause.reaction())
    }

    fn follow(&mut self, setpoint: &Setpoint) -> Verdict {
        let mut verdict = Verdict::Passed;
        for (index, joint) in self.joints.iter().enumerate() {
            let wish = setpoint.position.get(index).copied().unwrap_or(0.0);
            let Some(axis) = self.axes.get_mut(index) else {
                continue;
            };
            match joint.kind {
                JointKind::Gripper => {
                    let kept = wish.clamp(joint.limits.position_min, joint.limits.position_max);
                    if kept != wish {
                        verdict = Verdict::Shaped;
                    }
                    *axis = Axis { q: kept, v: 0.0 };
                }
                JointKind::Revolute | JointKind::Prismatic => {
                    if joint.limits.allows(*axis, wish, self.period_s) {
                        *axis = Axis {
                            q: wish,
                            v: (wish - axis.q) / self.period_s,
                        };
                    } else {
                        *axis = joint.limits.nearest(*axis, wish, self.period_s);
                        verdict = Verdict::Shaped;
                    }
                }
            }
        }
        verdict
    }

    fn hold(&mut self, cause: Cause) -> Verdict {
        for (joint, axis) in self.joints.iter().zip(self.axes.iter_mut()) {
            match joint.kind {
                JointKind::Gripper => {}
                JointKind::Revolute | JointKind::Prismatic => {
                    *axis = joint.limits.brake(*axis, self.period_s)
                }
            }
        }
        Verdict::Held(cause)
    }

    /// Takes the measured pose as where the robot is, at rest. A reading beyond a limit by its noise is put on it.
    fn seat(&mut self, state: &JointState) {
        for ((joint, axis), measured) in self
            .joints
            .iter()
            .zip(self.axes.iter_mut())
            .zip(&state.position)
        {
            if measured.is_finite() {
                *axis = Axis {
                    q: measured.clamp(joint.limits.position_min, joint.limits.position_max),
                    v: 0.0,
                };
            }
        }
    }

    fn at_rest(&self) -> bool {
        self.axes.iter().all(|axis| axis.v == 0.0)
    }

    fn emitted(&self) -> Setpoint {
        let mut setpoint = Setpoint {
            joints: self.joints.len(),
            position: [0.0; JOINTS_MAX],
            velocity: [0.0; JOINTS_MAX],
        };
        for (index, axis) in self.axes.iter().enumerate().take(self.joints.len()) {
            if let (Some(q), Some(v)) = (
                setpoint.position.get_mut(index),
                setpoint.velocity.get_mut(index),
            ) {
                (*q, *v) = (axis.q, axis.v);
            }
        }
        setpoint
    }
}
