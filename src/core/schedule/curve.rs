// SPDX-License-Identifier: Apache-2.0
//! The curve through a chunk's actions, at the control rate.
//!
//! Joints follow a cubic Hermite curve whose slope at each action is the central difference of its neighbours
//! (Catmull-Rom), so position and velocity are continuous; the ends use the one-sided difference. A gripper holds the
//! value of the action last passed. Source: E. Catmull and R. Rom, "A class of local interpolating splines", 1974.

use super::seam::Motion;
use crate::core::action::JointKind;
use crate::core::chunk::Chunk;
use crate::core::units::Mono;

/// Position, velocity and acceleration of every joint at `at`, which is clamped into the chunk.
#[must_use]
pub fn sample(chunk: &Chunk, kinds: &[JointKind], at: Mono) -> Motion {
    let period_s = chunk.period_ns() as f64 * 1e-9;
    let offset_ns = at.since_ns(chunk.first_at());
    let last = chunk.steps() - 1;
    let step = usize::try_from(offset_ns / chunk.period_ns())
        .unwrap_or(last)
        .min(last);
    let into_ns = offset_ns
        - (step as u64)
            .saturating_mul(chunk.period_ns())
            .min(offset_ns);
    let u = if step == last {
        0.0
    } else {
        into_ns as f64 / chunk.period_ns() as f64
    };

    let before = chunk.action(step.saturating_sub(1));
    let from = chunk.action(step);
    let to = chunk.action(step + 1);
    let after = chunk.action(step + 2);
    let slope_from_span = if step == 0 { 1.0 } else { 0.5 };
    let slope_to_span = if step + 2 > last { 1.0 } else { 0.5 };

    let mut motion = Motion::still(kinds.len());
    for (joint, kind) in kinds.iter().enumerate() {
        let at = |row: &[f32]| f64::from(row.get(joint).copied().unwrap_or(0.0));
        let (p0, p1) = (at(from), at(to));
        let [position, velocity, acceleration] = match kind {
            JointKind::Gripper => [p0, 0.0, 0.0],
            JointKind::Revolute | JointKind::Prismatic => {
                let m0 = (p1 - at(before)) * slope_from_span;
                let m1 = (at(after) - p0) * slope_to_span;
                hermite(p0, m0, p1, m1, u, period_s)
            }
        };
        motion.set(joint, position, velocity, acceleration);
    }
    motion
}

/// Cubic Hermite basis and its derivatives; `m0`, `m1` are slopes per period, `u` is 0..1 of the period.
fn hermite(p0: f64, m0: f64, p1: f64, m1: f64, u: f64, period_s: f64) -> [f64; 3] {
    let (u2, u3) = (u * u, u * u * u);
    let position = (2.0 * u3 - 3.0 * u2 + 1.0) * p0
        + (u3 - 2.0 * u2 + u) * m0
        + (-2.0 * u3 + 3.0 * u2) * p1
        + (u3 - u2) * m1;
    let slope = (6.0 * u2 - 6.0 * u) * (p0 - p1)
        + (3.0 * u2 - 4.0 * u + 1.0) * m0
        + (3.0 * u2 - 2.0 * u) * m1;
    let bend = (12.0 * u - 6.0) * (p0 - p1) + (6.0 * u - 4.0) * m0 + (6.0 * u - 2.0) * m1;
    [position, slope / period_s, bend / (period_s * period_s)]
}
