// SPDX-License-Identifier: Apache-2.0
//! The curve through a chunk's actions, at the control rate.
//!
//! Between two actions a joint follows the quintic whose position, velocity and acceleration at both are those of the
//! actions: the position itself, the central difference and the second difference of its neighbours. So the curve
//! passes through every action and is C2, each piece depends on four actions only, and nothing has to be solved when a
//! chunk comes. Beyond its ends the chunk is taken as going on straight, which only sets the slope there. A gripper
//! holds the value of the action last passed.

use super::seam::Motion;
use crate::core::action::JointKind;
use crate::core::chunk::Chunk;
use crate::core::units::Mono;

/// Position, velocity and acceleration of every joint at `at`. Before the first action the chunk is taken as having
/// come straight; after the last, `at` is clamped.
#[must_use]
pub fn sample(chunk: &Chunk, kinds: &[JointKind], at: Mono) -> Motion {
    let period_s = chunk.period_ns() as f64 * 1e-9;
    let (step, u) = place(chunk, at);
    let last = chunk.steps() - 1;
    let before = chunk.action(step.saturating_sub(1));
    let from = chunk.action(step);
    let to = chunk.action(step + 1);
    let after = chunk.action(step + 2);
    // Which neighbours exist; the others are the straight continuation.
    let (has_before, has_to, has_after) = (step > 0, step < last, step + 1 < last);

    let early_s = chunk.first_at().since_ns(at) as f64 * 1e-9;

    let mut motion = Motion::still(kinds.len());
    for (joint, kind) in kinds.iter().enumerate() {
        let at = |row: &[f32]| f64::from(row.get(joint).copied().unwrap_or(0.0));
        let p0 = at(from);
        let [position, velocity, acceleration] = match kind {
            JointKind::Gripper => [p0, 0.0, 0.0],
            JointKind::Revolute | JointKind::Prismatic => {
                let p1 = match (has_to, has_before) {
                    (true, _) => at(to),
                    (false, true) => 2.0 * p0 - at(before),
                    (false, false) => p0,
                };
                let pb = if has_before {
                    at(before)
                } else {
                    2.0 * p0 - p1
                };
                let p2 = if has_after { at(after) } else { 2.0 * p1 - p0 };
                quintic(
                    [p0, 0.5 * (p1 - pb), p1 - 2.0 * p0 + pb],
                    [p1, 0.5 * (p2 - p0), p2 - 2.0 * p1 + p0],
                    u,
                    period_s,
                )
            }
        };
        motion.set(joint, position - velocity * early_s, velocity, acceleration);
    }
    motion
}

/// The action last passed at `at`, and the share 0..1 of the way to the next; clamped into the chunk.
fn place(chunk: &Chunk, at: Mono) -> (usize, f64) {
    let period_ns = chunk.period_ns();
    let last = chunk.steps() - 1;
    let offset_ns = at.since_ns(chunk.first_at());
    let step = usize::try_from(offset_ns / period_ns)
        .unwrap_or(last)
        .min(last);
    if step == last {
        return (last, 0.0);
    }
    (step, (offset_ns % period_ns) as f64 / period_ns as f64)
}

/// Four actions and their weights (Catmull-Rom): the chunk's positions at a time between actions, for merging.
/// Source: E. Catmull and R. Rom, "A class of local interpolating splines", 1974.
#[derive(Clone, Copy, Debug)]
pub struct Taps {
    /// The action last passed.
    pub step: usize,
    weights: [f64; 4],
}

impl Taps {
    /// None when the chunk has nothing to say at `at`.
    #[must_use]
    pub fn at(chunk: &Chunk, at: Mono) -> Option<Taps> {
        if at < chunk.first_at() || at > chunk.last_at() {
            return None;
        }
        let (step, u) = place(chunk, at);
        let weights = if step == 0 || step + 2 >= chunk.steps() {
            [0.0, 1.0 - u, u, 0.0]
        } else {
            let (u2, u3) = (u * u, u * u * u);
            [
                0.5 * (-u + 2.0 * u2 - u3),
                0.5 * (2.0 - 5.0 * u2 + 3.0 * u3),
                0.5 * (u + 4.0 * u2 - 3.0 * u3),
                0.5 * (u3 - u2),
            ]
        };
        Some(Taps { step, weights })
    }

    /// The four actions of `chunk` and their weights.
    #[must_use]
    pub fn rows<'a>(&self, chunk: &'a Chunk) -> [(f64, &'a [f32]); 4] {
        let [a, b, c, d] = self.weights;
        [
            (a, chunk.action(self.step.saturating_sub(1))),
            (b, chunk.action(self.step)),
            (c, chunk.action(self.step + 1)),
            (d, chunk.action(self.step + 2)),
        ]
    }
}

/// One joint of [`Taps::rows`].
#[must_use]
pub fn mixed(rows: &[(f64, &[f32]); 4], joint: usize) -> f64 {
    rows.iter()
        .map(|(weight, row)| weight * f64::from(row.get(joint).copied().unwrap_or(0.0)))
        .sum()
}

/// The quintic from `[position, velocity, acceleration]` at u = 0 to those at u = 1, rates per period, and its
/// derivatives at `u` per second. Coefficients c3..c5 follow from the three conditions at u = 1.
fn quintic(from: [f64; 3], to: [f64; 3], u: f64, period_s: f64) -> [f64; 3] {
    let [c0, c1, c2] = [from[0], from[1], 0.5 * from[2]];
    let d0 = to[0] - c0 - c1 - c2;
    let d1 = to[1] - c1 - 2.0 * c2;
    let d2 = to[2] - 2.0 * c2;
    let c3 = 10.0 * d0 - 4.0 * d1 + 0.5 * d2;
    let c4 = -15.0 * d0 + 7.0 * d1 - d2;
    let c5 = 6.0 * d0 - 3.0 * d1 + 0.5 * d2;
    let position = c0 + u * (c1 + u * (c2 + u * (c3 + u * (c4 + u * c5))));
    let slope = c1 + u * (2.0 * c2 + u * (3.0 * c3 + u * (4.0 * c4 + u * 5.0 * c5)));
    let bend = 2.0 * c2 + u * (6.0 * c3 + u * (12.0 * c4 + u * 20.0 * c5));
    [position, slope / period_s, bend / (period_s * period_s)]
}
