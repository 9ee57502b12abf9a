// SPDX-License-Identifier: Apache-2.0
//! What a policy's numbers mean, made absolute joint targets: the only thing that a chunk holds.
//!
//! | meaning | a row says | begins from |
//! |---|---|---|
//! | target | where the joint should be | - |
//! | velocity | how fast it should go until the row's time, per second | the joint as measured at the observation |
//! | delta | by how much it should move until the row's time | the same |
//! | base twist | forward and sideways speed and turn rate of a base whose place is three joints | the same |
//! | pose | where a link should be: in the base frame, or moved in it from row to row, or seen from where it was | the link as measured, but for the base frame |
//!
//! Whatever begins from the measured state begins at the moment of that state: its plan has it as its first row. So each plan
//! is anchored anew, and nothing that an earlier plan did not reach is carried along. Poses are joined before they become
//! joints: the place by the same quintics as joints are, the orientation by squad, some rows between two actions, each found from
//! the one before ([`crate::core::kinematics::inverse`]). A pose that cannot be reached closely refuses the whole plan.
//!
//! It deliberately knows no time of the robot and no limits but those of position: how fast it goes is the scheduler's.

use crate::core::action::JointKind;
use crate::core::kinematics::Chain;
use crate::core::kinematics::geometry::Point;
use crate::core::kinematics::inverse::{Missing, Pose, Range, Search, inside, moved};
use crate::core::kinematics::turn::{Turn, squad};
use crate::core::limits::{CHUNK_STEPS_MAX, CHUNK_VALUES_MAX, JOINTS_MAX};
use crate::core::schedule::curve::along;
use heapless::Vec;

/// How a joint's number is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Where it should be: rad, m or 0..1.
    Target,
    /// How fast it goes until the row's time: the same per second.
    Velocity,
    /// By how much it moves until the row's time.
    Delta,
}

/// How an orientation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// x, y, z, w; either sign, any length.
    QuaternionXyzw,
    /// w, x, y, z.
    QuaternionWxyz,
    /// Axis times angle, rad.
    Vector,
    /// About the fixed x, then y, then z, rad (URDF).
    Rpy,
    /// The images of x and y, three numbers each.
    Six,
}

impl Rotation {
    /// How many numbers it has.
    #[must_use]
    pub const fn width(self) -> usize {
        match self {
            Rotation::QuaternionXyzw | Rotation::QuaternionWxyz => 4,
            Rotation::Vector | Rotation::Rpy => 3,
            Rotation::Six => 6,
        }
    }

    /// `None` for numbers that are no orientation.
    #[must_use]
    pub fn read(self, numbers: &[f64]) -> Option<Turn> {
        match (self, numbers) {
            (Rotation::QuaternionXyzw, [x, y, z, w]) | (Rotation::QuaternionWxyz, [w, x, y, z]) => {
                Turn::unit(*w, [*x, *y, *z])
            }
            (Rotation::Vector, [x, y, z]) => Some(Turn::by([*x, *y, *z])),
            (Rotation::Rpy, [roll, pitch, yaw]) => {
                let about_x = Turn::by([*roll, 0.0, 0.0]);
                let about_y = Turn::by([0.0, *pitch, 0.0]);
                let about_z = Turn::by([0.0, 0.0, *yaw]);
                Some(about_z.then_inside(about_y).then_inside(about_x))
            }
            (Rotation::Six, [a, b, c, d, e, f]) => Turn::of_two([*a, *b, *c], [*d, *e, *f]),
            _ => None,
        }
    }
}

/// Where a pose is seen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The robot's base: the pose itself.
    Base,
    /// The link itself as it was at the observation.
    Tool,
    /// The row before: moved and turned by so much along and about the base's axes.
    Step,
}

/// Columns that say where a link should be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reach {
    /// Columns of x, y and z in metres.
    pub place: [usize; 3],
    /// Columns of the orientation; as many as it has numbers count.
    pub turn: [usize; 6],
    /// How it is written.
    pub rotation: Rotation,
    /// Seen from where.
    pub frame: Frame,
    /// Which link of the chain.
    pub link: usize,
    /// A row that cannot be reached this closely refuses the plan: metres, radians.
    pub within: Missing,
}

/// Columns of one purpose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// One joint by itself.
    Joint {
        /// Which number of a row.
        column: usize,
        /// Which joint.
        joint: usize,
        /// How it is meant.
        how: How,
    },
    /// A base that drives about: columns of forward, left (m/s) and turning left (rad/s), and the joints that its place is:
    /// x and y (m), heading (rad).
    Base {
        /// Which numbers of a row.
        columns: [usize; 3],
        /// Which joints.
        joints: [usize; 3],
    },
    /// A link, moved by the joints that no other part names.
    Link(Reach),
}

/// What an action is made of, for one robot. See the module's text.
#[derive(Clone, Debug)]
pub struct Intent {
    parts: Vec<Part, JOINTS_MAX>,
    /// How the joints are read.
    kinds: Vec<JointKind, JOINTS_MAX>,
    /// For poses.
    ranges: Vec<Range, JOINTS_MAX>,
    chain: Option<Chain>,
    actions: usize,
    width: usize,
    period_s: f64,
    /// Rows an action: more than one where poses are joined.
    per_action: usize,
    begins: bool,
    poses: Vec<Pose, POSES_MAX>,
}

/// The actions of a chunk and where it begins.
const POSES_MAX: usize = CHUNK_STEPS_MAX + 1;
/// Rows of poses lie at least this far apart, seconds: joints are joined smoothly between them.
const APART_S: f64 = 0.0124;

/// Why a plan is no plan.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Unfit {
    /// Other numbers than a plan of this robot has.
    #[error(
        "expected a plan of {expected} numbers for a robot with {joints} joints, found {found}"
    )]
    Shape {
        /// Numbers.
        expected: usize,
        /// Of the robot.
        joints: usize,
        /// Numbers given.
        found: usize,
    },
    /// NaN, infinite, or an orientation that is none.
    #[error("action {action} is no pose: expected finite numbers and an orientation")]
    NoPose {
        /// Which action.
        action: usize,
    },
    /// Nothing within the limits is there.
    #[error(
        "action {action} is {way_mm:.0} mm and {angle_deg:.0} degrees from the nearest pose within the joints' limits; the whole plan is refused"
    )]
    OutOfReach {
        /// Which action; it comes to be between the one before and this.
        action: usize,
        /// Off by so much.
        way_mm: f64,
        /// And so much.
        angle_deg: f64,
    },
}

/// What an intent is made of.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// What the columns are for; each joint is moved by one of them.
    pub parts: &'a [Part],
    /// How the joints are read, order of robot.toml.
    pub kinds: &'a [JointKind],
    /// How far they may go; as many.
    pub ranges: &'a [Range],
    /// The robot's links, for poses.
    pub chain: Option<&'a Chain>,
    /// Actions in a plan.
    pub actions: usize,
    /// Numbers of an action.
    pub width: usize,
    /// Time between two actions, seconds.
    pub period_s: f64,
}

impl Intent {
    /// `None` if it is too large, or a pose is asked for without a chain.
    #[must_use]
    pub fn new(asked: &Asked<'_>) -> Option<Intent> {
        let posed = asked.parts.iter().any(|part| matches!(part, Part::Link(_)));
        let begins = asked.parts.iter().any(|part| match part {
            Part::Joint { how, .. } => *how != How::Target,
            Part::Base { .. } => true,
            Part::Link(reach) => reach.frame != Frame::Base,
        });
        let joints = asked.kinds.len();
        let rows = |per_action: usize| (asked.actions + usize::from(begins) - 1) * per_action + 1;
        let fits = |per_action: usize| {
            rows(per_action) <= CHUNK_STEPS_MAX && rows(per_action) * joints <= CHUNK_VALUES_MAX
        };
        let most = if posed {
            libm::floor(asked.period_s / APART_S).clamp(1.0, 8.0) as usize
        } else {
            1
        };
        let good = asked.actions > 0 && asked.ranges.len() == joints && joints > 0;
        if !good || (posed && asked.chain.is_none()) {
            return None;
        }
        let per_action = (1..=most).rev().find(|per_action| fits(*per_action))?;
        let mut ranges = Vec::from_slice(asked.ranges).ok()?;
        for range in &mut ranges {
            range.free = true;
        }
        let mut held = |joint: usize| {
            if let Some(range) = ranges.get_mut(joint) {
                range.free = false;
            }
        };
        for part in asked.parts {
            match part {
                Part::Joint { joint, .. } => held(*joint),
                Part::Base { joints, .. } => joints.iter().for_each(|joint| held(*joint)),
                Part::Link(_) => {}
            }
        }
        Some(Intent {
            parts: Vec::from_slice(asked.parts).ok()?,
            kinds: Vec::from_slice(asked.kinds).ok()?,
            ranges,
            chain: asked.chain.cloned(),
            actions: asked.actions,
            width: asked.width,
            period_s: asked.period_s,
            per_action,
            begins,
            poses: Vec::new(),
        })
    }

    /// Whether its first row is the measured state, one action before the first.
    #[must_use]
    pub fn begins(&self) -> bool {
        self.begins
    }

    /// Rows of joint targets for each action.
    #[must_use]
    pub fn per_action(&self) -> usize {
        self.per_action
    }

    /// Rows of a plan.
    #[must_use]
    pub fn rows(&self) -> usize {
        (self.actions + usize::from(self.begins) - 1) * self.per_action + 1
    }

    /// Reads a plan of `[actions][width]` into `[rows][joints]` of absolute targets. `measured`: the joints at the
    /// observation, as many as the robot has.
    ///
    /// # Errors
    /// [`Unfit`]; what stands in `targets` then is of no use.
    pub fn read(
        &mut self,
        numbers: &[f32],
        measured: &[f64],
        targets: &mut [f32],
    ) -> Result<(), Unfit> {
        let joints = self.kinds.len();
        let sizes = [numbers.len(), targets.len(), measured.len()];
        if sizes != [self.actions * self.width, self.rows() * joints, joints] {
            return Err(Unfit::Shape {
                expected: self.actions * self.width,
                joints,
                found: numbers.len(),
            });
        }
        // Until something else is said, each joint stays where it is.
        for row in targets.chunks_exact_mut(joints) {
            copy(row, measured);
        }
        let parts = self.parts.clone();
        for part in &parts {
            match part {
                Part::Joint { column, joint, how } => {
                    self.one(numbers, measured, [*column, *joint], *how, targets);
                }
                Part::Base { columns, joints } => {
                    self.base(numbers, measured, columns, joints, targets);
                }
                Part::Link(_) => {}
            }
        }
        self.between(targets);
        for part in &parts {
            if let Part::Link(reach) = part {
                self.link(numbers, measured, reach, targets)?;
            }
        }
        match targets.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(Unfit::NoPose {
                action: at / joints / self.per_action,
            }),
            None => Ok(()),
        }
    }

    /// Row of the targets in which action `action` stands.
    fn row(&self, action: usize) -> usize {
        (action + usize::from(self.begins)) * self.per_action
    }

    fn number(&self, numbers: &[f32], action: usize, column: usize) -> f64 {
        let number = numbers.get(action * self.width + column);
        f64::from(number.copied().unwrap_or(f32::NAN))
    }

    fn put(&self, targets: &mut [f32], row: usize, joint: usize, value: f64) {
        if let Some(slot) = targets.get_mut(row * self.kinds.len() + joint) {
            *slot = value as f32;
        }
    }

    fn one(
        &self,
        numbers: &[f32],
        measured: &[f64],
        [column, joint]: [usize; 2],
        how: How,
        targets: &mut [f32],
    ) {
        let mut q = measured.get(joint).copied().unwrap_or(f64::NAN);
        for action in 0..self.actions {
            let number = self.number(numbers, action, column);
            q = match how {
                How::Target => number,
                How::Velocity => q + number * self.period_s,
                How::Delta => q + number,
            };
            self.put(targets, self.row(action), joint, q);
        }
    }

    /// Each row's twist is held for one action: an arc.
    fn base(
        &self,
        numbers: &[f32],
        measured: &[f64],
        columns: &[usize; 3],
        joints: &[usize; 3],
        targets: &mut [f32],
    ) {
        let [mut x, mut y, mut heading] =
            joints.map(|joint| measured.get(joint).copied().unwrap_or(f64::NAN));
        for action in 0..self.actions {
            let [forward, left, turning] =
                columns.map(|column| self.number(numbers, action, column));
            let angle = turning * self.period_s;
            // The means of cosine and sine over the arc; by their series where it is hardly one.
            let (along, across) = if angle.abs() < 1e-4 {
                (1.0 - angle * angle / 6.0, 0.5 * angle)
            } else {
                let (sin, cos) = libm::sincos(angle);
                (sin / angle, (1.0 - cos) / angle)
            };
            let ahead = self.period_s * (forward * along - left * across);
            let aside = self.period_s * (forward * across + left * along);
            let (sin, cos) = libm::sincos(heading);
            x += cos * ahead - sin * aside;
            y += sin * ahead + cos * aside;
            heading += angle;
            for (joint, value) in joints.iter().zip([x, y, heading]) {
                self.put(targets, self.row(action), *joint, value);
            }
        }
    }

    /// Fills the rows between two actions, for joints that are told by themselves: along the curve that the scheduler
    /// would follow; a gripper keeps what it was told.
    fn between(&self, targets: &mut [f32]) {
        let (joints, step) = (self.kinds.len(), self.per_action);
        if step < 2 {
            return;
        }
        let knots = self.rows() / step + 1;
        for (joint, kind) in self.kinds.iter().enumerate() {
            for row in (0..self.rows()).filter(|row| row % step != 0) {
                let at = |knot: usize| {
                    let slot = targets.get(knot * step * joints + joint);
                    f64::from(slot.copied().unwrap_or(f32::NAN))
                };
                let value = match kind {
                    JointKind::Gripper => at(row / step),
                    JointKind::Revolute | JointKind::Prismatic => {
                        let u = (row % step) as f64 / step as f64;
                        along(at, knots, row / step, u)
                    }
                };
                self.put(targets, row, joint, value);
            }
        }
    }

    fn link(
        &mut self,
        numbers: &[f32],
        measured: &[f64],
        reach: &Reach,
        targets: &mut [f32],
    ) -> Result<(), Unfit> {
        let Some(chain) = &self.chain else {
            return Err(Unfit::NoPose { action: 0 });
        };
        let no_pose = |action| Unfit::NoPose { action };
        let start = chain.pose(measured, reach.link).ok_or(no_pose(0))?;
        self.poses.clear();
        if self.begins {
            let _ = self.poses.push(start);
        }
        let mut last = start;
        for action in 0..self.actions {
            let said = self.said(numbers, action, reach).ok_or(no_pose(action))?;
            let mut pose = match reach.frame {
                Frame::Base => said,
                Frame::Tool => inside(&start, &said),
                Frame::Step => moved(&last, &said),
            };
            // A quaternion and its opposite are the same orientation.
            pose.turn = pose.turn.near(last.turn);
            self.poses.push(pose).map_err(|_| no_pose(action))?;
            last = pose;
        }
        let joints = self.kinds.len();
        let mut q: Vec<f64, JOINTS_MAX> = Vec::from_slice(measured).map_err(|_| no_pose(0))?;
        for row in 0..self.rows() {
            let goal = self.goal(row);
            let Some(told) = targets.get_mut(row * joints..(row + 1) * joints) else {
                continue;
            };
            // What is told by itself is where it is told to be.
            for ((q, told), range) in q.iter_mut().zip(told.iter()).zip(&self.ranges) {
                if !range.free {
                    *q = f64::from(*told);
                }
            }
            let action = (row / self.per_action).saturating_sub(usize::from(self.begins));
            let search = Search::default();
            let missing = chain
                .reach(reach.link, &goal, &self.ranges, measured, &search, &mut q)
                .ok_or(no_pose(action))?;
            let far =
                missing.way_m > reach.within.way_m || missing.angle_rad > reach.within.angle_rad;
            if far {
                return Err(Unfit::OutOfReach {
                    action,
                    way_mm: missing.way_m * 1e3,
                    angle_deg: missing.angle_rad.to_degrees(),
                });
            }
            for ((told, q), range) in told.iter_mut().zip(&q).zip(&self.ranges) {
                if range.free {
                    *told = *q as f32;
                }
            }
        }
        Ok(())
    }

    /// The pose that an action says.
    fn said(&self, numbers: &[f32], action: usize, reach: &Reach) -> Option<Pose> {
        let number = |column: &usize| self.number(numbers, action, *column);
        let at: Point = reach.place.map(|column| number(&column));
        let mut turn = [0.0; 6];
        for (slot, column) in turn.iter_mut().zip(&reach.turn) {
            *slot = number(column);
        }
        let numbers = turn.get(..reach.rotation.width())?;
        let finite = at.iter().chain(numbers).all(|number| number.is_finite());
        let turn = reach.rotation.read(numbers)?;
        finite.then_some(Pose { at, turn })
    }

    /// The pose of one row, on the curve through the actions'.
    fn goal(&self, row: usize) -> Pose {
        let (knot, rest) = (row / self.per_action, row % self.per_action);
        let pose = |knot: usize| {
            let last = self.poses.len().saturating_sub(1);
            self.poses.get(knot.min(last)).copied().unwrap_or(NOWHERE)
        };
        if rest == 0 {
            return pose(knot);
        }
        let u = rest as f64 / self.per_action as f64;
        let axis = |axis: usize| {
            let value = |knot: usize| pose(knot).at.get(axis).copied().unwrap_or(0.0);
            along(value, self.poses.len(), knot, u)
        };
        let turns = [
            pose(knot.saturating_sub(1)).turn,
            pose(knot).turn,
            pose(knot + 1).turn,
            pose(knot + 2).turn,
        ];
        Pose {
            at: [axis(0), axis(1), axis(2)],
            turn: squad(turns, u),
        }
    }
}

/// Stands where there is no pose, which is never looked at.
const NOWHERE: Pose = Pose {
    at: [0.0; 3],
    turn: Turn::NONE,
};

fn copy(into: &mut [f32], from: &[f64]) {
    for (slot, value) in into.iter_mut().zip(from) {
        *slot = *value as f32;
    }
}

#[cfg(test)]
mod tests;
