// SPDX-License-Identifier: Apache-2.0
//! Where the links of a robot are, and whether they may be there.
//!
//! [`Chain`] is a tree of links as plain data and gives the links' poses, and joints for a pose ([`inverse`], [`turn`]); [`envelope`] holds the space the robot may
//! use and says whether poses, and the motion between them, stay inside it; [`geometry`] has the distances.
//! It deliberately knows no files: URDF is read elsewhere, at start.

pub mod envelope;
pub mod geometry;
pub mod inverse;
#[cfg(test)]
mod tests;
pub mod turn;

use crate::core::kinematics::geometry::{
    Point, Transform, about, length, rotate_all, scale, sin_cos,
};
use crate::core::limits::{JOINTS_MAX, LINKS_MAX};
use heapless::Vec;

/// How a link moves in its parent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Motion {
    /// Not at all.
    Fixed,
    /// Turns about the axis by `factor * position + offset` (rad). Limited and continuous joints alike.
    Revolute(Drive),
    /// Slides along the axis by `factor * position + offset` (m), at most `travel_max_m` either way.
    Prismatic {
        /// What drives it.
        drive: Drive,
        /// The bound of motion rests on it, so a longer travel is a breach.
        travel_max_m: f64,
    },
}

/// Which of the robot's joints drives a link's joint, and how. A mimic joint names the joint it follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drive {
    /// Index into the positions.
    pub joint: usize,
    /// 1 but for mimic joints.
    pub factor: f64,
    /// 0 but for mimic joints; rad or m.
    pub offset: f64,
}

/// One link with the joint that holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// Index of the link that carries it, always smaller than its own; none: the base.
    pub parent: Option<usize>,
    /// The joint's frame in the parent's, at position zero.
    pub origin: Transform,
    /// Unit vector in the joint's frame.
    pub axis: Point,
    /// What the joint does.
    pub motion: Motion,
}

/// What is wrong with a chain or an envelope; indices are those of the lists given.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Capacity.
    #[error("{what}: expected at most {max}, found more")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// Its capacity.
        max: usize,
    },
    /// Order.
    #[error("link {0}: expected a parent listed before it, found a later one")]
    Parent(usize),
    /// Numbers.
    #[error(
        "link {0}: expected finite numbers, a unit axis and a rotation of right angles, found others"
    )]
    Numbers(usize),
    /// Drive.
    #[error("link {0}: expected a joint of the robot to drive it, found an index beyond them")]
    Joint(usize),
    /// Geometry.
    #[error(
        "{what} {index}: expected finite numbers, a radius of at least 0, low < high and known links, found others"
    )]
    Shape {
        /// Which list.
        what: &'static str,
        /// Where in it.
        index: usize,
    },
}

/// A tree of links, checked.
#[derive(Clone, Debug)]
pub struct Chain {
    links: Vec<Link, LINKS_MAX>,
    /// For each link: an upper bound of the path length base -> ... -> link, over all positions, metres.
    path_m: Vec<f64, LINKS_MAX>,
    joints: usize,
}

/// The pose of each link in the base frame.
pub type Poses = Vec<Transform, LINKS_MAX>;

impl Chain {
    /// Checks `links` of a robot with `joints` joints.
    ///
    /// # Errors
    /// [`Malformed`] names the first link that cannot be used.
    pub fn new(links: &[Link], joints: usize) -> Result<Chain, Malformed> {
        let many = |what, max| Malformed::TooMany { what, max };
        if joints > JOINTS_MAX {
            return Err(many("joints", JOINTS_MAX));
        }
        let mut path_m: Vec<f64, LINKS_MAX> = Vec::new();
        for (index, link) in links.iter().enumerate() {
            let before_m = match link.parent {
                None => 0.0,
                Some(parent) => *path_m.get(parent).ok_or(Malformed::Parent(index))?,
            };
            let (drive, travel_m) = match link.motion {
                Motion::Fixed => (None, 0.0),
                Motion::Revolute(drive) => (Some(drive), 0.0),
                Motion::Prismatic {
                    drive,
                    travel_max_m,
                } => (Some(drive), travel_max_m),
            };
            let mut good = travel_m.is_finite() && travel_m >= 0.0;
            if let Some(drive) = drive {
                if drive.joint >= joints {
                    return Err(Malformed::Joint(index));
                }
                good &= drive.factor.is_finite() && drive.offset.is_finite();
                good &= (length(link.axis) - 1.0).abs() < 1e-9;
            }
            // Columns of unit length at right angles: what else they were, the bound of motion would not hold.
            let [x, y, z] = link.origin.columns;
            good &= [x, y, z].iter().all(|v| (length(*v) - 1.0).abs() < 1e-9);
            good &= [(x, y), (y, z), (z, x)]
                .iter()
                .all(|(a, b)| geometry::dot(*a, *b).abs() < 1e-9);
            let reach_m = before_m + length(link.origin.translation) + travel_m;
            if !good || !reach_m.is_finite() {
                return Err(Malformed::Numbers(index));
            }
            path_m.push(reach_m).map_err(|_| many("links", LINKS_MAX))?;
        }
        let links = Vec::from_slice(links).map_err(|_| many("links", LINKS_MAX))?;
        Ok(Chain {
            links,
            path_m,
            joints,
        })
    }

    /// How many positions a pose has.
    #[must_use]
    pub fn joints(&self) -> usize {
        self.joints
    }

    /// Links in the order given.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Forward kinematics: the pose of every link, in order. `None` if the positions are too few or too many, one that
    /// drives a link is not finite, or a slide is beyond its travel.
    #[must_use]
    pub fn forward(&self, positions: &[f64]) -> Option<Poses> {
        if positions.len() != self.joints {
            return None;
        }
        let mut poses = Poses::new();
        for link in &self.links {
            let base = match link.parent {
                None => Transform::IDENTITY,
                Some(parent) => *poses.get(parent)?,
            };
            let value = |drive: &Drive| {
                let value = positions.get(drive.joint)? * drive.factor + drive.offset;
                value.is_finite().then_some(value)
            };
            let mut pose = base.then_inside(&link.origin);
            match &link.motion {
                Motion::Fixed => {}
                Motion::Revolute(drive) => {
                    let turn = about(link.axis, sin_cos(value(drive)?));
                    pose.columns = rotate_all(&pose.columns, &turn);
                }
                Motion::Prismatic {
                    drive,
                    travel_max_m,
                } => {
                    let slide_m = value(drive)?;
                    if slide_m.abs() > *travel_max_m {
                        return None;
                    }
                    pose.translation = pose.apply(scale(link.axis, slide_m));
                }
            }
            poses.push(pose).ok()?;
        }
        Some(poses)
    }

    /// What bounds the motion of links when each joint moves by at most `steps` (rad or m, as the joint). See
    /// [`Sums::moved_m`].
    #[must_use]
    pub fn sums(&self, steps: &[f64]) -> Vec<Sums, LINKS_MAX> {
        let mut sums: Vec<Sums, LINKS_MAX> = Vec::new();
        for (link, path_m) in self.links.iter().zip(&self.path_m) {
            let mut sum = link
                .parent
                .and_then(|parent| sums.get(parent).copied())
                .unwrap_or_default();
            // A missing step bounds nothing: infinite.
            let step = |drive: &Drive| {
                let step = steps.get(drive.joint).copied().unwrap_or(f64::INFINITY);
                (step * drive.factor).abs()
            };
            match &link.motion {
                Motion::Fixed => {}
                Motion::Revolute(drive) => {
                    sum.turn_rad += step(drive);
                    sum.turn_path += step(drive) * path_m;
                }
                Motion::Prismatic { drive, .. } => sum.slide_m += step(drive),
            }
            sum.path_m = *path_m;
            // As long as the chain: cannot be full.
            let _ = sums.push(sum);
        }
        sums
    }

    /// The last link that both hang on; none: the base.
    #[must_use]
    pub fn common(&self, one: usize, two: usize) -> Option<usize> {
        let (mut one, mut two) = (Some(one), Some(two));
        // Parents have smaller indices, so stepping the larger one meets at the first common ancestor.
        while let (Some(a), Some(b)) = (one, two) {
            if a == b {
                return Some(a);
            }
            if a > b {
                one = self.links.get(a)?.parent;
            } else {
                two = self.links.get(b)?.parent;
            }
        }
        None
    }
}

/// Sums over the joints from the base to one link, for given joint steps `d`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    /// Sum of `d` over revolute joints.
    turn_rad: f64,
    /// Sum of `d * path to the joint` over revolute joints.
    turn_path: f64,
    /// Sum of `d` over prismatic joints.
    slide_m: f64,
    path_m: f64,
}

impl Sums {
    /// How far, at most, any point of this link within `reach_m` of its origin moves, seen from the link whose sums are
    /// `from` (an ancestor, or the default for the base), when each joint moves by at most its step. Metres.
    ///
    /// Why: draw the straight line between the two joint positions. Along it the point's speed is at most the sum over
    /// the joints between of `rate * distance from the axis` (revolute) or `rate` (prismatic). That distance is at most
    /// the length of the links between, with slides fully out: `path(link) - path(joint) + reach`. It depends on no
    /// position, so the integral is the sum of `step * that`. The bound holds between any two positions whose
    /// difference is within the steps, whatever way the joints took, as long as they stayed within the steps.
    #[must_use]
    pub fn moved_m(&self, from: &Sums, reach_m: f64) -> f64 {
        let turn_rad = self.turn_rad - from.turn_rad;
        let turn_path = self.turn_path - from.turn_path;
        (self.path_m + reach_m) * turn_rad - turn_path + (self.slide_m - from.slide_m)
    }
}
