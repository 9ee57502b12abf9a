// SPDX-License-Identifier: Apache-2.0
//! The space the robot may use, kept as the joints' limits are: a step is taken only if the whole stop from there stays
//! inside.
//!
//! The stop that counts is each joint's fastest, by the deployment's limits ([`Bounds::stop`]): it depends on nothing but
//! the state, so what is judged now is bit for bit what will be done. Whoever brakes otherwise (together along the line,
//! or by tighter limits) has each of its steps judged like any other, and falls back to that stop.
//!
//! Most ticks compute no pose: how far each joint can get until it rests has a closed form, and the last pose whose
//! distances are known (the *anchor*) says whether anything can come too near on such a way.

use super::shape::{Axis, Bounds, Limit};
use crate::core::kinematics::envelope::{Anchor, Breach, Envelope, Subject, Sweep};
use crate::core::limits::{JOINTS_MAX, fitting};

/// Stages in which a stop is swept at most, so that the cost of a long one is bounded. Within a stage no joint turns
/// round, so its way is as long as the stage is wide.
const STAGES_MAX: f64 = 64.0;

/// Added to a way in closed form: far more than its rounding, far less than what matters.
const HAIR: f64 = 1e-9;

/// One joint on its way.
#[derive(Clone, Copy, Debug)]
pub struct Mover<'a> {
    /// As last emitted.
    pub now: Axis,
    /// The step to be judged.
    pub next: Axis,
    /// By which it stops; none for a gripper, which moves no link.
    pub bounds: Option<&'a Bounds>,
}

/// The envelope, and where its distances are known.
#[derive(Clone, Debug)]
pub struct Space {
    envelope: Envelope,
    anchor: Option<Anchor>,
}

type Pose = heapless::Vec<f64, JOINTS_MAX>;

impl Space {
    /// Of a robot with as many positions as there will be movers.
    #[must_use]
    pub fn new(envelope: Envelope) -> Space {
        Space {
            envelope,
            anchor: None,
        }
    }

    /// How many positions a pose has.
    #[must_use]
    pub fn joints(&self) -> usize {
        self.envelope.joints()
    }

    /// Whether the robot may stand there.
    #[must_use]
    pub fn holds(&self, positions: impl Iterator<Item = f64>) -> bool {
        let pose: Pose = fitting(positions);
        self.envelope.check(&pose).is_ok()
    }

    /// Whether the step and the stop from there stay inside.
    ///
    /// # Errors
    /// The limit that is in the way. A legal motion that comes very near may be refused, an illegal one never passes.
    pub fn stays<'a>(
        &mut self,
        movers: impl Iterator<Item = Mover<'a>> + Clone,
    ) -> Result<(), Limit> {
        let still = |m: Mover<'_>| m.next.q == m.now.q && m.next.v == 0.0 && m.next.a == 0.0;
        if movers.clone().all(still) {
            return Ok(());
        }
        if let Some(anchor) = &self.anchor
            && self.envelope.near(anchor, &ways(anchor, &movers)).is_ok()
        {
            return Ok(());
        }
        let here: Pose = fitting(movers.clone().map(|m| m.now.q));
        let anchor = self.envelope.anchor(&here).map_err(limit)?;
        let near = self.envelope.near(&anchor, &ways(&anchor, &movers));
        let anchor = self.anchor.insert(anchor);
        if near.is_ok() {
            return Ok(());
        }
        sweep(Sweep::new(&self.envelope, anchor.clone()), movers).map_err(limit)
    }
}

/// The furthest that each joint gets from the anchor until it rests.
fn ways<'a>(anchor: &Anchor, movers: &(impl Iterator<Item = Mover<'a>> + Clone)) -> Pose {
    let ways = movers.clone().zip(anchor.positions()).map(|(m, from)| {
        let Some(bounds) = m.bounds else { return 0.0 };
        let rest = bounds.brake().rest(m.next.v, m.next.a);
        let places = [m.now.q, m.next.q, m.next.q + rest.turn, m.next.q + rest.end];
        // Not `f64::max`, which would drop a NaN: an infinite way rules nothing out.
        let furthest = places.into_iter().fold(0.0, |most: f64, q| {
            let way = (q - from).abs();
            if way <= most {
                most
            } else if way.is_nan() {
                f64::INFINITY
            } else {
                way
            }
        });
        furthest + HAIR
    });
    fitting(ways)
}

/// The step, then the stop, stage by stage.
fn sweep<'a>(
    mut sweep: Sweep<'_>,
    movers: impl Iterator<Item = Mover<'a>> + Clone,
) -> Result<(), Breach> {
    let mut axes: heapless::Vec<Axis, JOINTS_MAX> = fitting(movers.clone().map(|m| m.next));
    let ticks = movers
        .clone()
        .filter_map(|m| Some(m.bounds?.brake().rest(m.next.v, m.next.a).ticks))
        .fold(0.0, f64::max);
    let stage = (ticks / STAGES_MAX) as u64;
    let pose = |axes: &[Axis]| -> Pose { fitting(axes.iter().map(|axis| axis.q)) };
    sweep.go(&pose(&axes))?;
    // Some ticks more than the closed form says: the last bits may need one.
    let mut left = ticks as u64 + 8;
    while left > 0 {
        let (mut moving, mut turned, mut done) = (false, false, 0);
        while !turned && done <= stage {
            moving = false;
            for (axis, m) in axes.iter_mut().zip(movers.clone()) {
                let Some(bounds) = m.bounds else { continue };
                let next = bounds.stop(*axis);
                turned |= next.v * axis.v < 0.0;
                moving |= next.v != 0.0 || next.a != 0.0;
                *axis = next;
            }
            done += 1;
        }
        sweep.go(&pose(&axes))?;
        if !moving {
            return Ok(());
        }
        left = left.saturating_sub(done);
    }
    Err(Breach::NoPose)
}

fn limit(breach: Breach) -> Limit {
    match breach {
        Breach::NoPose => Limit::Position,
        Breach::Space { subject, .. } | Breach::Between { subject, .. } => match subject {
            Subject::Workspace { .. } => Limit::Workspace,
            Subject::KeepOut { .. } => Limit::KeepOut,
            Subject::Pair { .. } => Limit::SelfCollision,
        },
    }
}
