// SPDX-License-Identifier: Apache-2.0
//! From the pose of one link back to joint positions: damped least squares with a posture in the null space, away from
//! joint limits, and never beyond them.
//!
//! Each step solves `(J W J' + d I) y = e` and moves by `W J' y` (Y. Nakamura and H. Hanafusa, 1986), where `e` is what
//! is missing of the pose, and `W` makes a joint slower the nearer it is to a limit that it goes towards (T. F. Chan and
//! R. V. Dubey, 1995). The damping grows with what is missing, `d = |e|2 / 2 + floor` (T. Sugihara, 2011): far away or at
//! a singularity a step is small and never unbounded. What the pose leaves free goes towards the posture.
//!
//! It deliberately knows nothing of time: how fast the joints may go there is the scheduler's and the governor's.

use super::geometry::{Point, add, cross, length, rotate, sub};
use super::turn::Turn;
use super::{Chain, Motion, Poses};
use crate::core::limits::JOINTS_MAX;
use heapless::Vec;

/// Where a link should be, in the base frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pose {
    /// Metres.
    pub at: Point,
    /// Its orientation.
    pub turn: Turn,
}

/// A joint's part in moving a link: rows are m/s along x, y, z and rad/s about them, for 1 rad/s or 1 m/s of the joint.
pub type Column = [f64; 6];

/// One column a joint of the robot; a joint that does not carry the link has zeros.
pub type Jacobian = Vec<Column, JOINTS_MAX>;

/// How far a joint may go, rad or m; infinite where it has no limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Least position.
    pub min: f64,
    /// Largest position.
    pub max: f64,
    /// Whether it may be moved for this at all; a gripper may not.
    pub free: bool,
}

/// How a solution is looked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Search {
    /// Near enough: metres, and radians of orientation.
    pub within: f64,
    /// Steps at most. Each costs one forward kinematics and a 6 x 6 solve.
    pub steps_max: usize,
    /// No joint moves by more in one step, rad or m.
    pub step_max: f64,
    /// Share of the way to the posture that is gone in one step, where the pose leaves it free; 0..1.
    pub posture: f64,
}

impl Default for Search {
    /// A hundredth of a millimetre; from a neighbouring pose it takes two to four steps.
    fn default() -> Search {
        Search {
            within: 1e-5,
            steps_max: 40,
            step_max: 0.2,
            posture: 0.1,
        }
    }
}

/// What is missing of the pose at the solution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Missing {
    /// Metres.
    pub way_m: f64,
    /// Radians.
    pub angle_rad: f64,
}

/// Added to the damping always, so that a singular pose that is reached still has a bounded step. Metres squared (radians
/// squared).
const DAMPING_FLOOR: f64 = 1e-8;

impl Chain {
    /// The Jacobian of `link` where its links are at `poses`, which are [`Chain::forward`]'s. `None` if there is no such
    /// link or the poses are not of this chain.
    #[must_use]
    pub fn jacobian(&self, poses: &Poses, link: usize) -> Option<Jacobian> {
        let mut columns = Jacobian::new();
        columns.resize(self.joints(), [0.0; 6]).ok()?;
        let at = poses.get(link)?.translation;
        let mut next = Some(link);
        while let Some(index) = next {
            let (each, pose) = (self.links().get(index)?, poses.get(index)?);
            let (drive, column) = match &each.motion {
                Motion::Fixed => (None, [0.0; 6]),
                Motion::Revolute(drive) => {
                    // Its own turn leaves the axis where it is.
                    let axis = rotate(&pose.columns, each.axis);
                    let [x, y, z] = cross(axis, sub(at, pose.translation));
                    let [a, b, c] = axis;
                    (Some(drive), [x, y, z, a, b, c])
                }
                Motion::Prismatic { drive, .. } => {
                    let [x, y, z] = rotate(&pose.columns, each.axis);
                    (Some(drive), [x, y, z, 0.0, 0.0, 0.0])
                }
            };
            if let Some(drive) = drive
                && let Some(sum) = columns.get_mut(drive.joint)
            {
                for (sum, part) in sum.iter_mut().zip(column) {
                    *sum += drive.factor * part;
                }
            }
            next = each.parent;
        }
        Some(columns)
    }

    /// Where `link` is with the joints at `positions`.
    #[must_use]
    pub fn pose(&self, positions: &[f64], link: usize) -> Option<Pose> {
        let poses = self.forward(positions)?;
        let pose = poses.get(link)?;
        Some(Pose {
            at: pose.translation,
            turn: Turn::of(&pose.columns),
        })
    }

    /// Where `link` is with the joints at `positions`, and how it moves when they do at `velocities`: m/s along x, y, z and
    /// rad/s about them.
    #[must_use]
    pub fn motion(
        &self,
        positions: &[f64],
        velocities: &[f64],
        link: usize,
    ) -> Option<(Pose, Column)> {
        let poses = self.forward(positions)?;
        let pose = poses.get(link)?;
        let mut twist = [0.0; 6];
        for (column, velocity) in self.jacobian(&poses, link)?.iter().zip(velocities) {
            for (sum, part) in twist.iter_mut().zip(column) {
                *sum += velocity * part;
            }
        }
        let pose = Pose {
            at: pose.translation,
            turn: Turn::of(&pose.columns),
        };
        Some((pose, twist))
    }

    /// Moves `positions`, which lie within `ranges`, until `link` is at `goal`, or as near as it gets. Where the pose leaves
    /// something free the joints go towards `posture`. Joints stay within their ranges throughout.
    ///
    /// `None` if the numbers are not of this chain or not finite; `positions` are then as they were.
    #[must_use]
    pub fn reach(
        &self,
        link: usize,
        goal: &Pose,
        ranges: &[Range],
        posture: &[f64],
        search: &Search,
        positions: &mut [f64],
    ) -> Option<Missing> {
        let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
        let turn = Turn::unit(goal.turn.w, goal.turn.v)?;
        let goal = Pose { turn, ..*goal };
        if ranges.len() != self.joints() || posture.len() != self.joints() {
            return None;
        }
        if !finite(&goal.at) || !finite(posture) {
            return None;
        }
        let mut q: Vec<f64, JOINTS_MAX> = Vec::from_slice(positions).ok()?;
        for (q, range) in q.iter_mut().zip(ranges) {
            *q = range.keep(*q);
        }
        let mut best: Option<(f64, Missing, Vec<f64, JOINTS_MAX>)> = None;
        for _ in 0..=search.steps_max {
            let poses = self.forward(&q)?;
            let pose = poses.get(link)?;
            let way = sub(goal.at, pose.translation);
            let angle = goal
                .turn
                .then_inside(Turn::of(&pose.columns).back())
                .vector();
            let missing = Missing {
                way_m: length(way),
                angle_rad: length(angle),
            };
            let size = missing.way_m.max(missing.angle_rad);
            if best.as_ref().is_none_or(|(least, ..)| size < *least) {
                best = Some((size, missing, q.clone()));
            }
            if size <= search.within {
                break;
            }
            let columns = self.jacobian(&poses, link)?;
            let error = [way[0], way[1], way[2], angle[0], angle[1], angle[2]];
            step(&columns, &error, ranges, posture, search, &mut q);
        }
        let (_, missing, q) = best?;
        for (slot, q) in positions.iter_mut().zip(&q) {
            *slot = *q;
        }
        Some(missing)
    }
}

impl Range {
    fn keep(&self, q: f64) -> f64 {
        // `clamp` panics on a range that is none.
        q.max(self.min).min(self.max)
    }

    /// How willingly the joint moves, 0..1: less the nearer it is to the limit that it goes towards. `1 / (1 + |dH/dq|)`
    /// with `H = (max - min)2 / (4 (max - q)(q - min))`.
    fn willing(&self, q: f64, rate: f64) -> f64 {
        let span = self.max - self.min;
        if !self.free {
            return 0.0;
        }
        if !span.is_finite() {
            return 1.0;
        }
        let middle = 0.5 * (self.max + self.min);
        if (q - middle) * rate <= 0.0 {
            return 1.0;
        }
        let (over, under) = (self.max - q, q - self.min);
        let room = over * under;
        if room <= 0.0 {
            return 0.0;
        }
        let slope = span * span * (2.0 * q - self.max - self.min) / (4.0 * room * room);
        1.0 / (1.0 + slope.abs())
    }
}

/// One step of `q` towards what is missing.
fn step(
    columns: &Jacobian,
    error: &[f64; 6],
    ranges: &[Range],
    posture: &[f64],
    search: &Search,
    q: &mut Vec<f64, JOINTS_MAX>,
) {
    let square: f64 = error.iter().map(|e| e * e).sum();
    let damping = 0.5 * square + DAMPING_FLOOR;
    let mut weights: Vec<f64, JOINTS_MAX> = Vec::new();
    for ((column, range), q) in columns.iter().zip(ranges).zip(q.iter()) {
        let rate: f64 = column.iter().zip(error).map(|(c, e)| c * e).sum();
        // As long as the joints: cannot be full.
        let _ = weights.push(range.willing(*q, rate));
    }
    let mut moved: Vec<f64, JOINTS_MAX> = Vec::new();
    let Some(factor) = Factor::of(columns, &weights, damping) else {
        return;
    };
    let y = factor.solve(error);
    // Towards the posture, and back by what of that would move the link.
    let mut wish: Vec<f64, JOINTS_MAX> = Vec::new();
    for ((target, q), range) in posture.iter().zip(q.iter()).zip(ranges) {
        let free = if range.free { search.posture } else { 0.0 };
        let _ = wish.push(free * (target - q));
    }
    let mut drift = [0.0; 6];
    for (column, wish) in columns.iter().zip(&wish) {
        for (sum, c) in drift.iter_mut().zip(column) {
            *sum += c * wish;
        }
    }
    let undo = factor.solve(&drift);
    for ((column, weight), wish) in columns.iter().zip(&weights).zip(&wish) {
        let along = |y: &[f64; 6]| column.iter().zip(y).map(|(c, y)| c * y).sum::<f64>();
        let _ = moved.push(weight * along(&y) + wish - weight * along(&undo));
    }
    let largest = moved.iter().fold(0.0_f64, |most, d| most.max(d.abs()));
    let share = if largest > search.step_max {
        search.step_max / largest
    } else {
        1.0
    };
    for ((q, d), range) in q.iter_mut().zip(&moved).zip(ranges) {
        *q = range.keep(*q + share * d);
    }
}

/// The Cholesky factor of `J W J' + d I`, lower triangle by rows.
struct Factor([[f64; 6]; 6]);

impl Factor {
    /// `None` if the numbers are not finite: the matrix is positive definite otherwise.
    fn of(columns: &Jacobian, weights: &[f64], damping: f64) -> Option<Factor> {
        let mut a = [[0.0; 6]; 6];
        for (column, weight) in columns.iter().zip(weights) {
            for (row, c) in a.iter_mut().zip(column) {
                for (sum, d) in row.iter_mut().zip(column) {
                    *sum += weight * c * d;
                }
            }
        }
        for (index, row) in a.iter_mut().enumerate() {
            if let Some(diagonal) = row.get_mut(index) {
                *diagonal += damping;
            }
        }
        let mut factor = [[0.0; 6]; 6];
        for i in 0..6 {
            let mut row = [0.0; 6];
            for j in 0..=i {
                let other = if j == i { row } else { *factor.get(j)? };
                let known: f64 = row.iter().zip(&other).take(j).map(|(x, y)| x * y).sum();
                let left = a.get(i)?.get(j)? - known;
                let value = if i == j {
                    if left.is_nan() || left <= 0.0 {
                        return None;
                    }
                    libm::sqrt(left)
                } else {
                    left / other.get(j)?
                };
                *row.get_mut(j)? = value;
            }
            *factor.get_mut(i)? = row;
        }
        Some(Factor(factor))
    }

    /// `x` of `L L' x = b`.
    fn solve(&self, b: &[f64; 6]) -> [f64; 6] {
        let mut x = *b;
        for (i, row) in self.0.iter().enumerate() {
            let known: f64 = row.iter().zip(&x).take(i).map(|(l, x)| l * x).sum();
            if let (Some(slot), Some(diagonal)) = (x.get_mut(i), row.get(i)) {
                *slot = (*slot - known) / diagonal;
            }
        }
        for i in (0..6).rev() {
            let known: f64 = self
                .0
                .iter()
                .zip(&x)
                .skip(i + 1)
                .map(|(row, x)| row.get(i).copied().unwrap_or(0.0) * x)
                .sum();
            let diagonal = self.0.get(i).and_then(|row| row.get(i));
            if let (Some(slot), Some(diagonal)) = (x.get_mut(i), diagonal) {
                *slot = (*slot - known) / diagonal;
            }
        }
        x
    }
}

/// `goal` seen from where `from` is: a policy's pose that is relative to where the link was.
#[must_use]
pub fn inside(from: &Pose, goal: &Pose) -> Pose {
    Pose {
        at: add(from.at, rotate(&from.turn.columns(), goal.at)),
        turn: from.turn.then_inside(goal.turn),
    }
}

/// `by` added in the base frame: moved by its way and turned by its turn after.
#[must_use]
pub fn moved(from: &Pose, by: &Pose) -> Pose {
    Pose {
        at: add(from.at, by.at),
        turn: by.turn.then_inside(from.turn),
    }
}
