// SPDX-License-Identifier: Apache-2.0
//! One joint in motion: what was emitted, what was asked of it, and its limits.

use super::limits::{BadLimits, Joint, JointLimits};
use super::motion::Force;
use super::shape::{Axis, Bounds};
use super::space::Mover;
use super::together::Axes;
use crate::core::action::JointKind;
use crate::core::limits::JOINTS_MAX;

/// One joint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) kind: JointKind,
    pub(super) limits: JointLimits,
    pub(super) axis: Axis,
    /// The same by differences of the emitted positions: equal but for their rounding.
    pub(super) emitted: Axis,
    /// What was last asked of it.
    pub(super) wish: Axis,
    pub(super) full: Bounds,
    pub(super) tight: Bounds,
}

impl Lane {
    /// # Errors
    /// [`BadLimits`].
    pub(super) fn new(
        index: usize,
        joint: &Joint,
        period_s: f64,
        tight_share: f64,
    ) -> Result<Lane, BadLimits> {
        let l = &joint.limits;
        let (full, tight) = match joint.kind {
            JointKind::Gripper => (Bounds::NONE, Bounds::NONE),
            JointKind::Revolute | JointKind::Prismatic => (
                Bounds::new(index, l, period_s, 1.0)?,
                Bounds::new(index, l, period_s, tight_share)?,
            ),
        };
        let q = 0.0_f64.max(l.position_min).min(l.position_max);
        Ok(Lane {
            kind: joint.kind,
            limits: *l,
            axis: Axis { q, v: 0.0, a: 0.0 },
            emitted: Axis { q, v: 0.0, a: 0.0 },
            wish: Axis::default(),
            full,
            tight,
        })
    }

    pub(super) fn bounds(&self, force: Force) -> &Bounds {
        match force {
            Force::Full => &self.full,
            Force::Tight => &self.tight,
        }
    }

    pub(super) fn inside(&self, q: f64) -> f64 {
        q.max(self.limits.position_min)
            .min(self.limits.position_max)
    }

    pub(super) fn has_rates(&self) -> bool {
        match self.kind {
            JointKind::Gripper => false,
            JointKind::Revolute | JointKind::Prismatic => true,
        }
    }

    /// The tighter of this lane's limits and `other`.
    pub(super) fn narrower(&self, other: &JointLimits) -> JointLimits {
        let own = &self.limits;
        JointLimits {
            position_min: other.position_min.max(own.position_min),
            position_max: other.position_max.min(own.position_max),
            velocity_max: other.velocity_max.min(own.velocity_max),
            acceleration_max: other.acceleration_max.min(own.acceleration_max),
            jerk_max: other.jerk_max.min(own.jerk_max),
            tracking_error_max: other.tracking_error_max,
            torque_max: other.torque_max,
        }
    }
}

pub(super) fn axes_of(lanes: &[Lane]) -> Axes {
    let mut axes = [Axis::default(); JOINTS_MAX];
    for (lane, slot) in lanes.iter().zip(axes.iter_mut()) {
        *slot = lane.axis;
    }
    axes
}

/// The joints on their way to `next`, for the judgement of space. Their stop is that of the deployment's full limits:
/// the one stop that depends on nothing else.
pub(super) fn movers<'a>(
    lanes: &'a [Lane],
    next: &'a Axes,
) -> impl Iterator<Item = Mover<'a>> + Clone {
    lanes.iter().zip(next).map(|(lane, next)| Mover {
        now: lane.axis,
        next: *next,
        bounds: lane.has_rates().then_some(&lane.full),
    })
}
