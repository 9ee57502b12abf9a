// SPDX-License-Identifier: Apache-2.0
//! Which joint of the robot is which number of the policy. Decided by name, once; never by position.

use crate::config::problem::Problem;
use crate::core::action::JointKind;
use crate::core::observation::JointState;
use crate::policy::manifest::{Unit, at};

/// State names that mean "the gripper senses an object" when the robot has no joint of that name.
pub const HOLDING_NAMES: [&str; 2] = ["vacuum", "holding"];

/// Where one number of the policy's state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Position of this joint of the robot.
    Joint(usize),
    /// 1 while an object is sensed, else 0.
    Holding,
}

/// Numbers of a policy by name, with their units.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Names, as the manifest has them.
    pub names: &'a [String],
    /// Their units, as many.
    pub units: &'a [Unit],
}

/// The policy's numbers in terms of the robot's joints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// For each number of the state.
    pub state: Vec<Reading>,
    /// For each joint of the robot its column in the policy's action.
    pub action: Vec<usize>,
}

impl Binding {
    /// Matches the names of a bundle's state and action with the robot's joints, order of robot.toml.
    ///
    /// # Errors
    /// Every [`Problem`]: a joint that the policy does not command, a name that the robot does not have, another unit.
    pub fn new(
        state: Named<'_>,
        action: Named<'_>,
        joints: &[(&str, JointKind)],
    ) -> Result<Binding, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |path: &str, expected: String, found: String| {
            problems.push(Problem {
                at: at(path),
                expected,
                found,
            });
        };
        let have = || {
            format!(
                "one of the robot's joints {:?}",
                joints.iter().map(|(name, _)| name).collect::<Vec<_>>()
            )
        };
        let find = |name: &str| joints.iter().position(|(joint, _)| *joint == name);
        let mut readings = Vec::new();
        for (name, kind) in entries(state) {
            match find(name) {
                Some(index) => {
                    readings.push(Reading::Joint(index));
                    if let Some((_, joint)) = joints.get(index).filter(|(_, joint)| *joint != kind)
                    {
                        wrong(
                            &format!("tendon.state.units of \"{name}\""),
                            format!("the unit of a {joint:?} joint"),
                            format!("that of a {kind:?}"),
                        );
                    }
                }
                None if HOLDING_NAMES.contains(&name) => readings.push(Reading::Holding),
                None => wrong("tendon.state.names", have(), format!("\"{name}\"")),
            }
        }
        for (name, kind) in entries(action) {
            match find(name).and_then(|index| joints.get(index)) {
                Some((_, joint)) if *joint == kind => {}
                Some((_, joint)) => {
                    wrong(
                        &format!("tendon.action.units of \"{name}\""),
                        format!("the unit of a {joint:?} joint"),
                        format!("that of a {kind:?}"),
                    );
                }
                None => wrong("tendon.action.names", have(), format!("\"{name}\"")),
            }
        }
        let mut columns = Vec::new();
        for (joint, _) in joints {
            match action.names.iter().position(|name| name == joint) {
                Some(column) => columns.push(column),
                None => wrong(
                    "tendon.action.names",
                    format!("the robot's joint \"{joint}\""),
                    format!("{:?}", action.names),
                ),
            }
        }
        if problems.is_empty() {
            Ok(Binding {
                state: readings,
                action: columns,
            })
        } else {
            Err(problems)
        }
    }

    /// Joints of the robot.
    #[must_use]
    pub fn joints(&self) -> usize {
        self.action.len()
    }
}

impl Reading {
    /// The number itself: radians, metres or 0..1.
    #[must_use]
    pub fn of(self, state: &JointState) -> f32 {
        match self {
            Reading::Joint(index) => state
                .position
                .get(index)
                .map_or(f32::NAN, |position| *position as f32),
            Reading::Holding => f32::from(u8::from(state.holding)),
        }
    }
}

fn entries<'a>(vector: Named<'a>) -> impl Iterator<Item = (&'a str, JointKind)> {
    vector
        .names
        .iter()
        .map(String::as_str)
        .zip(vector.units.iter().map(|unit| unit.kind()))
}
