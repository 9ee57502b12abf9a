// SPDX-License-Identifier: Apache-2.0
//! `tendon.action.means`: what columns of an action mean that are not the target of the joint whose name they have, and how
//! they become joint targets of one robot ([`crate::core::intent`]).
//!
//! A column's name is its joint's, and its unit that joint's (a velocity's is that a second). The columns of a pose and of a
//! base's twist have names of their own.

use crate::config::Robot;
use crate::config::problem::Problem;
use crate::core::action::JointKind;
use crate::core::intent::{Asked, Frame, How, Intent, Part, Reach, Rotation};
use crate::core::kinematics::Chain;
use crate::core::kinematics::Motion;
use crate::core::kinematics::inverse::{Missing, Range};
use crate::policy::decode::post::Post;
use crate::policy::manifest::at;
use crate::policy::staged::manifest::ActionFile;
use schemars::JsonSchema;
use serde::Deserialize;

/// One meaning of some columns. Columns count from 0.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
pub enum MeansFile {
    /// How fast the joints go until the action's time.
    Velocity {
        /// Which.
        columns: Vec<usize>,
    },
    /// By how much the joints move from the action before; the first from the measured state.
    Delta {
        /// Which.
        columns: Vec<usize>,
    },
    /// Forward, left (m/s) and turning left (rad/s), of a base whose place is three joints.
    BaseTwist {
        /// Which.
        columns: [usize; 3],
        /// Joints of x and y (m) and of the heading (rad).
        joints: [String; 3],
    },
    /// Where a link of the robot should be.
    Pose {
        /// Columns of x, y and z, metres.
        place: [usize; 3],
        /// Columns of the orientation.
        turn: Vec<usize>,
        /// How it is written.
        rotation: RotationFile,
        /// Seen from where.
        frame: FrameFile,
        /// The URDF's link.
        link: String,
        /// A pose that the robot cannot come this near to refuses the plan, metres.
        #[serde(default = "within_m")]
        within_m: f64,
        /// The same of the orientation, rad.
        #[serde(default = "within_rad")]
        within_rad: f64,
    },
}

fn within_m() -> f64 {
    0.01
}

fn within_rad() -> f64 {
    0.1
}

/// How an orientation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RotationFile {
    /// x, y, z, w.
    QuaternionXyzw,
    /// w, x, y, z.
    QuaternionWxyz,
    /// Axis times angle, rad.
    RotationVector,
    /// Roll, pitch and yaw about the fixed axes, rad.
    Rpy,
    /// The first two columns of the matrix.
    SixNumbers,
}

impl From<RotationFile> for Rotation {
    fn from(file: RotationFile) -> Rotation {
        match file {
            RotationFile::QuaternionXyzw => Rotation::QuaternionXyzw,
            RotationFile::QuaternionWxyz => Rotation::QuaternionWxyz,
            RotationFile::RotationVector => Rotation::Vector,
            RotationFile::Rpy => Rotation::Rpy,
            RotationFile::SixNumbers => Rotation::Six,
        }
    }
}

/// Where a pose is seen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FrameFile {
    /// The robot's base.
    Base,
    /// The link, as it was at the observation.
    Tool,
    /// The action before, along and about the base's axes; the first from where the link was.
    Step,
}

impl From<FrameFile> for Frame {
    fn from(file: FrameFile) -> Frame {
        match file {
            FrameFile::Base => Frame::Base,
            FrameFile::Tool => Frame::Tool,
            FrameFile::Step => Frame::Step,
        }
    }
}

impl MeansFile {
    fn columns(&self) -> Vec<usize> {
        match self {
            MeansFile::Velocity { columns } | MeansFile::Delta { columns } => columns.clone(),
            MeansFile::BaseTwist { columns, .. } => columns.to_vec(),
            MeansFile::Pose { place, turn, .. } => place.iter().chain(turn).copied().collect(),
        }
    }

    /// Whether it goes on from the measured state.
    fn begins(&self) -> bool {
        !matches!(
            self,
            MeansFile::Pose {
                frame: FrameFile::Base,
                ..
            }
        )
    }
}

/// What a robot has that a pose needs.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// Links by name, in the chain's order.
    pub links: Vec<String>,
    /// The chain.
    pub chain: Option<Chain>,
    /// How far each joint may go, order of robot.toml.
    pub ranges: Vec<Range>,
}

impl From<&Robot> for Body {
    fn from(robot: &Robot) -> Body {
        Body {
            links: robot.links.clone(),
            chain: robot.space.as_ref().map(|space| space.chain().clone()),
            ranges: robot
                .joints
                .iter()
                .map(|(_, joint)| Range {
                    min: joint.limits.position_min,
                    max: joint.limits.position_max,
                    free: true,
                })
                .collect(),
        }
    }
}

/// What is wrong with it by itself; `plans_on`: a plan goes on from the one that is followed.
#[must_use]
pub fn judge(action: &ActionFile, plans_on: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |path: &str, expected: String, found: String| {
        problems.push(Problem {
            at: at(path),
            expected,
            found,
        });
    };
    let width = action.names.len();
    let mut taken = vec![false; width];
    for (index, means) in action.means.iter().enumerate() {
        let path = format!("tendon.action.means[{index}]");
        for column in means.columns() {
            match taken.get_mut(column) {
                Some(taken) if !*taken => *taken = true,
                Some(_) => wrong(
                    &path,
                    "columns with one meaning each".into(),
                    format!("column {column} with two"),
                ),
                None => wrong(
                    &path,
                    format!("columns below {width}"),
                    format!("column {column}"),
                ),
            }
        }
        if let MeansFile::Pose {
            turn,
            rotation,
            within_m,
            within_rad,
            ..
        } = means
        {
            let wanted = Rotation::from(*rotation).width();
            if turn.len() != wanted {
                wrong(
                    &format!("{path}.turn"),
                    format!("{wanted} columns, as {rotation:?} has"),
                    turn.len().to_string(),
                );
            }
            for (key, within) in [("within_m", within_m), ("within_rad", within_rad)] {
                if !(0.0..=1.0).contains(within) {
                    wrong(
                        &format!("{path}.{key}"),
                        "0 to 1".into(),
                        within.to_string(),
                    );
                }
            }
        }
        if means.begins() && action.first_step_ms != action.period_ms {
            wrong(
                "tendon.action.first_step_ms",
                format!(
                    "{}, as tendon.action.period_ms: action 0 goes on from the state at the observation",
                    action.period_ms
                ),
                action.first_step_ms.to_string(),
            );
        }
        let seen_from_tool = matches!(
            means,
            MeansFile::Pose {
                frame: FrameFile::Tool,
                ..
            }
        );
        if plans_on && seen_from_tool {
            wrong(
                &format!("{path}.frame"),
                "\"base\" or \"step\" with tendon.loop.rtc: the plan that is gone on from was seen from another place"
                    .into(),
                "\"tool\"".into(),
            );
        }
        let added = action.post.iter().any(|op| {
            matches!(op, Post::AddState { mask } if means.columns().iter().any(|column| mask.get(*column) == Some(&true)))
        });
        if added {
            wrong(
                &path,
                "no add_state on its columns: they are no targets".into(),
                "one".into(),
            );
        }
    }
    let poses = action.means.iter();
    let poses = poses.filter(|means| matches!(means, MeansFile::Pose { .. }));
    if poses.count() > 1 {
        wrong(
            "tendon.action.means",
            "one pose at most: the joints that move a link move one".into(),
            "several".into(),
        );
    }
    problems
}

/// The intent of a manifest's action for a robot with these joints. `None` where every column is a joint's target.
///
/// # Errors
/// Every [`Problem`]: joints that the robot does not have, or that no column moves, a link that it does not have.
pub fn bind(
    action: &ActionFile,
    joints: &[(&str, JointKind)],
    body: &Body,
) -> Result<Option<Intent>, Vec<Problem>> {
    if action.means.is_empty() {
        return Ok(None);
    }
    let mut problems = Vec::new();
    let mut parts = Vec::new();
    let mut wrong = |place: String, expected: String, found: String| {
        problems.push(Problem {
            at: place,
            expected,
            found,
        });
    };
    let find = |name: &str| joints.iter().position(|(joint, _)| *joint == name);
    let mut moved = vec![false; joints.len()];
    let mut take = |joint: usize| {
        if let Some(moved) = moved.get_mut(joint) {
            *moved = true;
        }
    };
    let means_of = |column: usize| {
        let found = action.means.iter().enumerate();
        let mut found = found.filter(|(_, means)| means.columns().contains(&column));
        found.next()
    };
    for (column, (name, unit)) in action.names.iter().zip(&action.units).enumerate() {
        let how = match means_of(column) {
            None => How::Target,
            Some((_, MeansFile::Velocity { .. })) => How::Velocity,
            Some((_, MeansFile::Delta { .. })) => How::Delta,
            Some((_, MeansFile::BaseTwist { .. } | MeansFile::Pose { .. })) => continue,
        };
        let have = find(name).and_then(|joint| Some((joint, joints.get(joint)?.1)));
        match have {
            Some((_, JointKind::Gripper)) if how != How::Target => wrong(
                at("tendon.action.means"),
                format!("a target for the gripper \"{name}\", which steps"),
                format!("{how:?}"),
            ),
            Some((joint, kind)) if kind == unit.kind() => {
                take(joint);
                parts.push(Part::Joint { column, joint, how });
            }
            Some((_, kind)) => wrong(
                at(&format!("tendon.action.units of \"{name}\"")),
                format!("the unit of a {kind:?} joint"),
                format!("that of a {:?}", unit.kind()),
            ),
            None => wrong(
                at("tendon.action.names"),
                format!(
                    "one of the robot's joints {:?}",
                    joints.iter().map(|(name, _)| name).collect::<Vec<_>>()
                ),
                format!("\"{name}\""),
            ),
        }
    }
    let kinds: Vec<JointKind> = joints.iter().map(|(_, kind)| *kind).collect();
    for (index, means) in action.means.iter().enumerate() {
        let path = format!("tendon.action.means[{index}]");
        match means {
            MeansFile::Velocity { .. } | MeansFile::Delta { .. } => {}
            MeansFile::BaseTwist {
                columns,
                joints: named,
            } => {
                let wanted = [
                    JointKind::Prismatic,
                    JointKind::Prismatic,
                    JointKind::Revolute,
                ];
                let mut found = [0; 3];
                for ((name, kind), slot) in named.iter().zip(wanted).zip(&mut found) {
                    match find(name).filter(|joint| kinds.get(*joint) == Some(&kind)) {
                        Some(joint) => {
                            *slot = joint;
                            take(joint);
                        }
                        None => wrong(
                            at(&format!("{path}.joints")),
                            format!("a {kind:?} joint of the robot"),
                            format!("\"{name}\""),
                        ),
                    }
                }
                parts.push(Part::Base {
                    columns: *columns,
                    joints: found,
                });
            }
            MeansFile::Pose {
                place,
                turn,
                rotation,
                frame,
                link: name,
                within_m,
                within_rad,
            } => {
                let Some(chain) = &body.chain else {
                    wrong(
                        "robot.toml: space.urdf".into(),
                        "a URDF: the bundle says where a link should be".into(),
                        "no [space]".into(),
                    );
                    continue;
                };
                let Some(link) = body.links.iter().position(|link| link == name) else {
                    wrong(
                        at(&format!("{path}.link")),
                        format!("one of the URDF's links {:?}", body.links),
                        format!("\"{name}\""),
                    );
                    continue;
                };
                carrying(chain, link).for_each(&mut take);
                let mut columns = [0; 6];
                for (slot, column) in columns.iter_mut().zip(turn) {
                    *slot = *column;
                }
                parts.push(Part::Link(Reach {
                    place: *place,
                    turn: columns,
                    rotation: (*rotation).into(),
                    frame: (*frame).into(),
                    link,
                    within: Missing {
                        way_m: *within_m,
                        angle_rad: *within_rad,
                    },
                }));
            }
        }
    }
    for ((name, _), moved) in joints.iter().zip(&moved) {
        if !moved {
            wrong(
                at("tendon.action.means"),
                format!("something that moves the robot's joint \"{name}\""),
                "nothing".into(),
            );
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let intent = Intent::new(&Asked {
        parts: &parts,
        kinds: &kinds,
        ranges: &body.ranges,
        chain: body.chain.as_ref(),
        actions: action.horizon,
        width: action.names.len(),
        period_s: action.period_ms * 1e-3,
    });
    intent.map(Some).ok_or_else(|| {
        vec![Problem {
            at: at("tendon.action.horizon"),
            expected: format!(
                "fewer actions: a chunk holds their rows for {} joints",
                kinds.len()
            ),
            found: action.horizon.to_string(),
        }]
    })
}

/// The joints that move a link.
fn carrying(chain: &Chain, link: usize) -> impl Iterator<Item = usize> + '_ {
    let up = std::iter::successors(Some(link), |link| chain.links().get(*link)?.parent);
    up.filter_map(|link| match &chain.links().get(link)?.motion {
        Motion::Fixed => None,
        Motion::Revolute(drive) | Motion::Prismatic { drive, .. } => Some(drive.joint),
    })
}
