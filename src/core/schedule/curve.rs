// SPDX-License-Identifier: Apache-2.0
//! The curve through a chunk's actions, at the control rate.
//!
//! Between two actions a joint follows the quintic whose position, velocity and acceleration at both are those of the
//! actions: the position itself, the central difference and the second difference of its neighbours. So the curve
//! passes through every action and is C2, each piece depends on four actions only, and nothing has to be solved when a
//! chunk comes. At its two ends it has the acceleration of the actions next to them:
//! that it goes on straight would be a kink of nine times that acceleration a period, which nobody planned. Before its first
//! action it is taken as having come straight, and as having built that acceleration up within one action. A gripper holds the value of the action last passed.

use super::seam::Motion;
use crate::core::action::JointKind;
use crate::core::chunk::Chunk;
use crate::core::units::Mono;

/// Position, velocity and acceleration of every joint at `at`. After the last action, `at` is clamped.
#[must_use]
pub fn sample(chunk: &Chunk, kinds: &[JointKind], at: Mono) -> Motion {
    let period_s = chunk.period_ns() as f64 * 1e-9;
    let (rate, bend) = (1.0 / period_s, 1.0 / (period_s * period_s));
    let spot = Spot::at(chunk, at);
    let rows = spot.rows(chunk);
    let mut motion = Motion::still(kinds.len());
    for (joint, kind) in kinds.iter().enumerate() {
        let [p, v, a] = match kind {
            JointKind::Gripper => [rows.passed(joint), 0.0, 0.0],
            JointKind::Revolute | JointKind::Prismatic => rows.piece(joint).at(spot.u),
        };
        motion.set(joint, p, v * rate, a * bend);
    }
    motion
}

/// A place on the curve: between action `piece` and the next; -1 is what leads to action 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spot {
    pub(super) piece: isize,
    /// Share of the way, 0 ..= 1; below 0 on the straight way to piece -1.
    pub(super) u: f64,
}

impl Spot {
    pub(super) fn at(chunk: &Chunk, at: Mono) -> Spot {
        let early_ns = chunk.first_at().since_ns(at);
        if early_ns > 0 {
            let u = 1.0 - early_ns as f64 / chunk.period_ns() as f64;
            return Spot { piece: -1, u };
        }
        match (place(chunk, at), chunk.steps()) {
            ((_, _), 1) => Spot { piece: 0, u: 0.0 },
            ((step, _), steps) if step + 1 == steps => Spot {
                piece: step as isize - 1,
                u: 1.0,
            },
            ((step, u), _) => Spot {
                piece: step as isize,
                u,
            },
        }
    }

    /// The actions that its piece is made of.
    pub(super) fn rows(self, chunk: &Chunk) -> Rows<'_> {
        let steps = chunk.steps();
        let first = usize::try_from(self.piece).unwrap_or(0);
        Rows {
            before: chunk.action(first.saturating_sub(1)),
            from: chunk.action(first),
            to: chunk.action(first + 1),
            after: chunk.action(first + 2),
            has: match (steps, first > 0, first + 2 < steps) {
                (1, ..) => Has::One,
                (2, ..) => Has::Two,
                (_, true, true) => Has::All,
                (_, false, _) => Has::First,
                (_, true, false) => Has::Last,
            },
            comes: self.piece < 0,
            passed: if self.u >= 1.0 { first + 1 } else { first }.min(steps - 1),
            chunk,
        }
    }
}

/// Which actions around a piece the chunk has.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Has {
    All,
    /// None before it.
    First,
    /// None after it.
    Last,
    Two,
    One,
}

/// The actions that a piece is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows<'a> {
    before: &'a [f32],
    from: &'a [f32],
    to: &'a [f32],
    after: &'a [f32],
    has: Has,
    comes: bool,
    passed: usize,
    chunk: &'a Chunk,
}

impl Rows<'_> {
    /// The joint's value in the action last passed; before the first action, in that.
    fn passed(&self, joint: usize) -> f64 {
        value(self.chunk.action(self.passed), joint)
    }

    /// One joint's quintic, in shares of the way.
    pub(super) fn piece(&self, joint: usize) -> Piece {
        let at = |row: &[f32]| value(row, joint);
        let (p0, p1) = (at(self.from), at(self.to));
        let four = match self.has {
            Has::All => [at(self.before), p0, p1, at(self.after)],
            Has::First => {
                let p2 = at(self.after);
                [beyond(p0, p1, p2), p0, p1, p2]
            }
            Has::Last => {
                let pb = at(self.before);
                [pb, p0, p1, beyond(p1, p0, pb)]
            }
            Has::Two => [2.0 * p0 - p1, p0, p1, 2.0 * p1 - p0],
            Has::One => [p0; 4],
        };
        if self.comes {
            // The acceleration that it begins with is built up evenly over one action.
            let first = knot(four[0], four[1], four[2]);
            let [p, v, a] = first;
            return Piece::between([p - v + a / 3.0, v - 0.5 * a, 0.0], first);
        }
        Piece::through(four)
    }
}

/// Where it would have been one action before `p0`, or would be one after, at the acceleration of the three.
fn beyond(p0: f64, p1: f64, p2: f64) -> f64 {
    3.0 * (p0 - p1) + p2
}

/// Position, velocity and acceleration at the second of three.
fn knot(before: f64, at: f64, after: f64) -> [f64; 3] {
    [at, 0.5 * (after - before), after - 2.0 * at + before]
}

/// The same curve through `count` values that lie as far apart, at the share `u` of the way from value `piece` to the next.
#[must_use]
pub fn along(at: impl Fn(usize) -> f64, count: usize, piece: usize, u: f64) -> f64 {
    let last = count.saturating_sub(1);
    if piece >= last {
        return at(last);
    }
    let (p0, p1) = (at(piece), at(piece + 1));
    let before = piece.checked_sub(1).map(&at);
    let after = (piece + 2 <= last).then(|| at(piece + 2));
    let four = match (before, after) {
        (Some(pb), Some(p2)) => [pb, p0, p1, p2],
        (None, Some(p2)) => [beyond(p0, p1, p2), p0, p1, p2],
        (Some(pb), None) => [pb, p0, p1, beyond(p1, p0, pb)],
        (None, None) => [2.0 * p0 - p1, p0, p1, 2.0 * p1 - p0],
    };
    let [value, ..] = Piece::through(four).at(u);
    value
}

fn value(row: &[f32], joint: usize) -> f64 {
    f64::from(row.get(joint).copied().unwrap_or(0.0))
}

/// A quintic over 0 ..= 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    c: [f64; 6],
}

impl Piece {
    /// From the second to the third of four.
    fn through([before, from, to, after]: [f64; 4]) -> Piece {
        Piece::between(knot(before, from, to), knot(from, to, after))
    }

    /// From `[position, velocity, acceleration]` at 0 to those at 1. The last three coefficients follow from the conditions
    /// at 1.
    fn between(from: [f64; 3], to: [f64; 3]) -> Piece {
        let [c0, c1, c2] = [from[0], from[1], 0.5 * from[2]];
        let d0 = to[0] - c0 - c1 - c2;
        let d1 = to[1] - c1 - 2.0 * c2;
        let d2 = to[2] - 2.0 * c2;
        Piece {
            c: [
                c0,
                c1,
                c2,
                10.0 * d0 - 4.0 * d1 + 0.5 * d2,
                -15.0 * d0 + 7.0 * d1 - d2,
                6.0 * d0 - 3.0 * d1 + 0.5 * d2,
            ],
        }
    }

    /// Position and its first two derivatives at `u`; below 0 straight on as at 0.
    fn at(&self, u: f64) -> [f64; 3] {
        let [c0, c1, c2, c3, c4, c5] = self.c;
        if u < 0.0 {
            return [c0 + u * c1, c1, 0.0];
        }
        [
            c0 + u * (c1 + u * (c2 + u * (c3 + u * (c4 + u * c5)))),
            c1 + u * (2.0 * c2 + u * (3.0 * c3 + u * (4.0 * c4 + u * 5.0 * c5))),
            2.0 * c2 + u * (6.0 * c3 + u * (12.0 * c4 + u * 20.0 * c5)),
        ]
    }

    /// Its first three derivatives, for times `per_s` shares a second.
    pub(super) fn rates(&self, per_s: f64) -> RatesOver {
        RatesOver::of(self.c, per_s)
    }
}

/// Velocity, acceleration and jerk of a quintic as polynomials of the share of its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct RatesOver {
    v: [f64; 5],
    a: [f64; 4],
    j: [f64; 3],
}

impl RatesOver {
    /// Of the quintic with coefficients `c`, whose share passes at `per_s` a second.
    pub(super) fn of([_, c1, c2, c3, c4, c5]: [f64; 6], per_s: f64) -> RatesOver {
        let (s1, s2) = (per_s, per_s * per_s);
        let s3 = s2 * per_s;
        RatesOver {
            v: [
                s1 * c1,
                s1 * 2.0 * c2,
                s1 * 3.0 * c3,
                s1 * 4.0 * c4,
                s1 * 5.0 * c5,
            ],
            a: [s2 * 2.0 * c2, s2 * 6.0 * c3, s2 * 12.0 * c4, s2 * 20.0 * c5],
            j: [s3 * 6.0 * c3, s3 * 24.0 * c4, s3 * 60.0 * c5],
        }
    }

    /// At `u`; below 0 straight on.
    pub(super) fn at(&self, u: f64) -> [f64; 3] {
        let ([v0, v1, v2, v3, v4], [a0, a1, a2, a3], [j0, j1, j2]) = (self.v, self.a, self.j);
        if u < 0.0 {
            return [v0, 0.0, 0.0];
        }
        [
            v0 + u * (v1 + u * (v2 + u * (v3 + u * v4))),
            a0 + u * (a1 + u * (a2 + u * a3)),
            j0 + u * (j1 + u * j2),
        ]
    }
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
