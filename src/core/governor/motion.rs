// SPDX-License-Identifier: Apache-2.0
//! All joints in motion: what was emitted, the limits in force, and the two things that can be done with them, follow
//! a setpoint or brake.
//!
//! Limits may change while the robot moves: a share of the speed, the tighter limits of settling, new limits for the
//! deployment. Whatever shrinks comes into force as soon as every joint can keep it, that is, once its acceleration
//! and its stop are legal under it; until then the robot brakes. Whatever grows waits for rest, except speed: how far
//! a stop goes does not depend on the speed limit, so any change of it is safe at any time.
//!
//! It knows nothing of causes, modes or time; [`super`] decides which of the two is done.

use super::lane::{Lane, axes_of, movers};
use super::limits::{BadLimits, Coordination, Joint, Limits};
use super::shape::{Axis, Limit};
use super::space::Space;
use super::together::{self, Axes, Member};
use crate::core::action::Setpoint;
use crate::core::kinematics::envelope::Envelope;
use crate::core::limits::JOINTS_MAX;

/// Which limits are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Force {
    /// Those of the deployment.
    Full,
    /// Those of settling.
    Tight,
}

/// How hard to brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// Within the limits in force, along the line of motion where joints wait for one another.
    Orderly,
    /// Each joint as fast as the deployment's limits allow.
    Utmost,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Motion {
    lanes: heapless::Vec<Lane, JOINTS_MAX>,
    period_s: f64,
    coordination: Coordination,
    in_force: Force,
    /// Limits in force that cannot be kept yet: brake.
    pressed: bool,
    /// Share of the velocity limits in force.
    share: f64,
    /// The wishes are those of the last tick.
    heeding: bool,
    /// New limits, until they are wholly in force.
    wanted: Option<Limits>,
    /// What of `wanted` is tighter is in force.
    narrowed: bool,
    /// What the robot may not leave, if that was said.
    space: Option<Space>,
}

/// No share that can be asked for: the bounds are to be scaled anew.
const UNSCALED: f64 = -1.0;

impl Motion {
    /// At rest, as near to zero as the limits allow; to be seated before anything moves.
    ///
    /// # Errors
    /// [`BadLimits`] names joint and limit.
    pub fn new(limits: &Limits) -> Result<Motion, BadLimits> {
        let mut lanes = heapless::Vec::new();
        for (index, joint) in limits.joints.iter().enumerate() {
            let lane = Lane::new(
                index,
                joint,
                limits.period_s(),
                limits.settling.acceleration,
            )?;
            // Both hold JOINTS_MAX.
            let _ = lanes.push(lane);
        }
        Ok(Motion {
            lanes,
            period_s: limits.period_s(),
            coordination: limits.coordination,
            in_force: Force::Full,
            pressed: false,
            share: 1.0,
            heeding: false,
            wanted: None,
            narrowed: false,
            space: None,
        })
    }

    /// Keeps all motion inside `envelope` from now on.
    ///
    /// # Errors
    /// [`BadLimits::Different`] if it is of a robot with other joints.
    pub fn contain(&mut self, envelope: Envelope) -> Result<(), BadLimits> {
        if envelope.joints() != self.lanes.len() {
            return Err(BadLimits::Different {
                found: envelope.joints(),
                joints: self.lanes.len(),
            });
        }
        self.space = Some(Space::new(envelope));
        Ok(())
    }

    /// Whether the robot may be seated at `position`: whether the space holds it.
    #[must_use]
    pub fn may_seat(&self, position: &[f64]) -> bool {
        let inside = self
            .lanes
            .iter()
            .zip(position)
            .map(|(lane, q)| lane.inside(*q));
        self.space.as_ref().is_none_or(|space| space.holds(inside))
    }

    /// Puts every joint at `position`, at rest, inside its limits.
    pub fn seat(&mut self, position: &[f64]) {
        for (lane, q) in self.lanes.iter_mut().zip(position) {
            lane.axis = Axis {
                q: lane.inside(*q),
                v: 0.0,
                a: 0.0,
            };
            lane.emitted = lane.axis;
        }
    }

    /// Whether every joint is at rest.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.lanes
            .iter()
            .all(|lane| lane.axis.v == 0.0 && lane.axis.a == 0.0)
    }

    /// Which limits are in force.
    #[must_use]
    pub fn in_force(&self) -> Force {
        self.in_force
    }

    /// Which share of the velocity limits is in force.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.share
    }

    /// The position of a joint as last emitted.
    pub fn positions(&self) -> impl Iterator<Item = f64> + '_ {
        self.lanes.iter().map(|lane| lane.axis.q)
    }

    /// What is to be emitted.
    #[must_use]
    pub fn setpoint(&self) -> Setpoint {
        let mut setpoint = Setpoint {
            joints: self.lanes.len(),
            position: [0.0; JOINTS_MAX],
            velocity: [0.0; JOINTS_MAX],
        };
        let slots = setpoint
            .position
            .iter_mut()
            .zip(setpoint.velocity.iter_mut());
        for (lane, (q, v)) in self.lanes.iter().zip(slots) {
            (*q, *v) = (lane.axis.q, lane.axis.v);
        }
        setpoint
    }

    /// Asks for other limits of the same joints at the same rate. See the module's text for when they come into force.
    ///
    /// # Errors
    /// [`BadLimits`]; among them that a joint stands, or would come to rest, outside.
    pub fn change(&mut self, limits: &Limits) -> Result<(), BadLimits> {
        limits.check()?;
        let kinds = self.lanes.iter().map(|lane| lane.kind);
        let same = limits.joints.len() == self.lanes.len()
            && limits.period_s() == self.period_s
            && limits.joints.iter().map(|joint| joint.kind).eq(kinds);
        if !same {
            return Err(BadLimits::Different {
                found: limits.joints.len(),
                joints: self.lanes.len(),
            });
        }
        for (index, (joint, lane)) in limits.joints.iter().zip(&self.lanes).enumerate() {
            let changed = Lane::new(index, joint, self.period_s, limits.settling.acceleration)?;
            let rest = lane.bounds(self.in_force).place_of_rest(lane.axis);
            let inside = rest >= changed.limits.position_min && rest <= changed.limits.position_max;
            if lane.has_rates() && !inside {
                return Err(BadLimits::Outside {
                    joint: index,
                    found: rest,
                });
            }
        }
        self.wanted = Some(limits.clone());
        self.narrowed = false;
        Ok(())
    }

    /// Chooses the limits in force for this tick. `share`: of the velocity limits, 0 ..= 1.
    pub fn put_in_force(&mut self, wanted: Force, share: f64) {
        self.pressed = false;
        if self.wanted.is_some() {
            self.change_over();
        }
        if wanted != self.in_force {
            if self.lanes.iter().all(|lane| {
                !lane.has_rates()
                    || lane
                        .bounds(wanted)
                        .keeps(lane.axis, lane.limits.velocity_max)
            }) {
                self.in_force = wanted;
                self.share = UNSCALED;
            } else {
                self.pressed |= wanted == Force::Tight;
            }
        }
        if share != self.share {
            self.share = share;
            for lane in &mut self.lanes {
                lane.full.scale_velocity(share);
                lane.tight.scale_velocity(share);
            }
        }
    }

    /// Brings new limits into force as far as may be.
    fn change_over(&mut self) {
        let Some(wanted) = self.wanted.take() else {
            return;
        };
        let at_rest = self.at_rest();
        if !at_rest && self.narrowed {
            self.wanted = Some(wanted);
            return;
        }
        let mut lanes = self.lanes.clone();
        let mut kept = true;
        for (index, (lane, joint)) in lanes.iter_mut().zip(&wanted.joints).enumerate() {
            let joint = if at_rest {
                *joint
            } else {
                Joint {
                    limits: lane.narrower(&joint.limits),
                    ..*joint
                }
            };
            match Lane::new(index, &joint, self.period_s, wanted.settling.acceleration) {
                Ok(new) => {
                    kept &= !new.has_rates()
                        || new
                            .bounds(self.in_force)
                            .keeps(lane.axis, lane.limits.velocity_max);
                    let q = if new.has_rates() {
                        lane.axis.q
                    } else {
                        new.inside(lane.axis.q)
                    };
                    *lane = Lane {
                        axis: Axis { q, ..lane.axis },
                        emitted: lane.emitted,
                        wish: lane.wish,
                        ..new
                    };
                }
                Err(_) => kept = false,
            }
        }
        if let Some(space) = &mut self.space {
            kept &= space.stays(movers(&lanes, &axes_of(&lanes))).is_ok();
        }
        if kept {
            self.lanes = lanes;
            self.coordination = wanted.coordination;
            self.share = UNSCALED;
            self.narrowed = !at_rest;
        } else {
            self.pressed = true;
        }
        if !(kept && at_rest) {
            self.wanted = Some(wanted);
        }
    }

    /// Steps towards `setpoint`, whose numbers are finite. `None` if it was legal and is now emitted bit for bit, else
    /// the first limit in its way.
    pub fn follow(&mut self, setpoint: &Setpoint) -> Option<Limit> {
        self.heed(setpoint);
        let mut next = self.axes();
        let mut first = None;
        // Whether the setpoint, put inside the position limits, is legal for all.
        let mut legal = !self.pressed;
        for (lane, slot) in self.lanes.iter().zip(next.iter_mut()) {
            let q = lane.wish.q;
            let inside = lane.inside(q);
            // Not `inside`: it equals `q` but for the sign of a zero, and what passes keeps its bits.
            let wish = if inside == q { q } else { inside };
            if inside != q {
                first = first.or(Some(Limit::Position));
            }
            if !lane.has_rates() {
                *slot = Axis {
                    q: wish,
                    v: 0.0,
                    a: 0.0,
                };
                continue;
            }
            let bounds = lane.bounds(self.in_force);
            *slot = bounds.reached(lane.emitted, wish);
            if let Err(limit) = bounds.legal(lane.emitted, *slot) {
                first = first.or(Some(limit));
                match self.coordination {
                    Coordination::Independent => *slot = bounds.toward(lane.axis, lane.wish),
                    Coordination::Synchronised => legal = false,
                }
            }
        }
        if !legal {
            first = first.or(Some(Limit::Acceleration));
            next = self.shared(&next);
        }
        let (next, outside) = self.contained(next);
        self.take(&next);
        // What decided last is what the robot feels.
        outside.or(first)
    }

    /// `next` if it and the stop from there stay in the space; else the brake if that does, or the stop itself; and what
    /// was in the way.
    fn contained(&mut self, next: Axes) -> (Axes, Option<Limit>) {
        let (Some(space), lanes) = (&mut self.space, &self.lanes) else {
            return (next, None);
        };
        let Err(limit) = space.stays(movers(lanes, &next)) else {
            return (next, None);
        };
        let brake = self.braked(Haste::Orderly, &next);
        if let (Some(space), lanes) = (&mut self.space, &self.lanes)
            && space.stays(movers(lanes, &brake)).is_ok()
        {
            return (brake, Some(limit));
        }
        // Judged with the step that led here: legal.
        let mut stop = next;
        for (lane, slot) in self.lanes.iter().zip(stop.iter_mut()) {
            if lane.has_rates() {
                *slot = lane.full.stop(lane.axis);
            }
        }
        (stop, Some(limit))
    }

    /// Takes the wishes of a setpoint. A wish's acceleration is the change of its velocity; a first wish has none.
    fn heed(&mut self, setpoint: &Setpoint) {
        let wishes = setpoint.position.iter().zip(&setpoint.velocity);
        for (lane, (q, v)) in self.lanes.iter_mut().zip(wishes) {
            let a = if self.heeding {
                (v - lane.wish.v) / self.period_s
            } else {
                0.0
            };
            lane.wish = Axis { q: *q, v: *v, a };
        }
        self.heeding = true;
    }

    /// All joints by the same share of their way to their wishes; where that is not legal, all brake. `base` has the
    /// grippers' new values.
    fn shared(&self, base: &Axes) -> Axes {
        let members = self.members();
        let moved = if self.pressed {
            None
        } else {
            together::toward(members, base, self.period_s)
        };
        moved.unwrap_or_else(|| self.braked(Haste::Orderly, base))
    }

    /// The first step of the stop. Grippers keep their value: letting go of a load is not a safe state.
    pub fn brake(&mut self, haste: Haste) {
        self.heeding = false;
        let next = self.braked(haste, &self.axes());
        let (next, _) = self.contained(next);
        self.take(&next);
    }

    fn braked(&self, haste: Haste, base: &Axes) -> Axes {
        let orderly = haste == Haste::Orderly && !self.pressed;
        if orderly
            && self.coordination == Coordination::Synchronised
            && let Some(moved) = together::stop(self.members(), base, self.period_s)
        {
            return moved;
        }
        let mut next = *base;
        for (lane, slot) in self
            .lanes
            .iter()
            .zip(next.iter_mut())
            .filter(|(lane, _)| lane.has_rates())
        {
            // Under pressure by the limits that are to come into force, in haste by the widest; where that is not
            // legal in what is in force, or gains nothing, by what is in force. That one always is legal.
            let bounds = lane.bounds(self.in_force);
            let (how, check) = match haste {
                Haste::Orderly if self.pressed => (&lane.tight, bounds),
                Haste::Orderly => (bounds, bounds),
                Haste::Utmost => (&lane.full, &lane.full),
            };
            let step = how.stop_unchecked(lane.axis);
            *slot = if check.plannable(lane.axis, step).is_ok() {
                step
            } else {
                bounds.stop(lane.axis)
            };
        }
        next
    }

    /// The joints that have rates, with their wishes put inside the limits.
    fn members(&self) -> impl Iterator<Item = Member<'_>> + Clone {
        let rated = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| lane.has_rates());
        rated.map(|(index, lane)| {
            let wish = lane.wish;
            let q = lane.inside(wish.q);
            let wish = if q == wish.q {
                wish
            } else {
                Axis { q, v: 0.0, a: 0.0 }
            };
            Member {
                index,
                axis: lane.axis,
                bounds: lane.bounds(self.in_force),
                wish,
            }
        })
    }

    fn axes(&self) -> Axes {
        axes_of(&self.lanes)
    }

    fn take(&mut self, next: &Axes) {
        for (lane, axis) in self.lanes.iter_mut().zip(next) {
            let v = (axis.q - lane.emitted.q) / self.period_s;
            lane.emitted = Axis {
                q: axis.q,
                v,
                a: (v - lane.emitted.v) / self.period_s,
            };
            lane.axis = *axis;
        }
    }
}

/// What the governor's tests look into.
#[cfg(test)]
mod tests {
    use super::super::shape::Bounds;
    use super::*;

    /// Ticks of the longest stop from any legal state: to take back an acceleration, and to stop from full speed.
    fn stop_ticks_max(bounds: &Bounds) -> f64 {
        let brake = bounds.brake();
        let ramp = brake.acceleration() / brake.step();
        brake.rest(bounds.scale(), 0.0).ticks + ramp + 2.0
    }

    impl Motion {
        /// Ticks within which any stop has ended, whatever was going on. Joints that wait for one another may give half of
        /// what they have to what is across the line (see [`together`]), and take twice as long.
        pub(in crate::core::governor) fn stop_ticks_max(&self) -> f64 {
            let rated = self.lanes.iter().filter(|lane| lane.has_rates());
            let slowest = rated
                .map(|lane| stop_ticks_max(&lane.full).max(stop_ticks_max(&lane.tight)))
                .fold(0.0, f64::max);
            match self.coordination {
                Coordination::Independent => slowest,
                Coordination::Synchronised => 2.0 * slowest,
            }
        }

        /// The velocity that each joint has left once its acceleration is taken back.
        pub(in crate::core::governor) fn coasts(&self) -> [f64; JOINTS_MAX] {
            let mut coasts = [0.0; JOINTS_MAX];
            for (lane, slot) in self
                .lanes
                .iter()
                .zip(coasts.iter_mut())
                .filter(|(lane, _)| lane.has_rates())
            {
                *slot = lane
                    .bounds(self.in_force)
                    .brake()
                    .coast(lane.axis.v, lane.axis.a);
            }
            coasts
        }

        /// Whether new limits are not wholly in force.
        pub(in crate::core::governor) fn changing(&self) -> bool {
            self.wanted.is_some()
        }

        /// Whether what is tighter of new limits is in force.
        pub(in crate::core::governor) fn narrowed_or_done(&self) -> bool {
            self.wanted.is_none() || self.narrowed
        }

        /// The joint whose stop would end outside its limits, and where. There is none.
        pub(in crate::core::governor) fn unstoppable(&self) -> Option<(usize, Axis, f64)> {
            let rated = self
                .lanes
                .iter()
                .enumerate()
                .filter(|(_, lane)| lane.has_rates());
            rated
                .map(|(index, lane)| {
                    let rest = lane
                        .bounds(self.in_force)
                        .brake()
                        .rest(lane.axis.v, lane.axis.a);
                    let furthest = [rest.end, rest.turn].map(|way| lane.axis.q + way);
                    (index, lane.axis, furthest, lane.limits)
                })
                .find(|(_, _, furthest, limits)| {
                    furthest
                        .iter()
                        .any(|q| !(*q >= limits.position_min && *q <= limits.position_max))
                })
                .map(|(index, axis, furthest, _)| (index, axis, furthest[0]))
        }
    }
}
