// SPDX-License-Identifier: Apache-2.0
//! `robot.toml` as written -> a checked robot.

use super::Robot;
use super::file::{Located, RobotFile};
use super::problem::Problem;
use super::space::{self, Source};
use crate::core::action::JointKind;
use crate::core::governor::limits::Joint;
use crate::core::limits::JOINTS_MAX;

/// Every mistake of `written`, or the robot.
pub(super) fn check(
    written: &RobotFile,
    urdf: Source<'_>,
    at: &mut Located<'_>,
) -> Result<Robot, Vec<Problem>> {
    at.name("name", &written.name);
    let state_delay_ns = at.delay_ns("state_delay_ms", written.state_delay_ms.as_ref());
    if written.joint.is_empty() || written.joint.len() > JOINTS_MAX {
        at.push(
            &written.name,
            "joint",
            &format!("1 to {JOINTS_MAX} [[joint]] tables"),
            format!("{}", written.joint.len()),
        );
    }
    let mut joints: Vec<(String, Joint)> = Vec::new();
    for (index, joint) in written.joint.iter().enumerate() {
        let name = joint.name.get_ref();
        let key = format!("joint[{index}] \"{name}\"");
        if joints.iter().any(|(other, _)| other == name) {
            at.push(
                &joint.name,
                &format!("{key}.name"),
                "a name that no other joint has",
                format!("\"{name}\" again"),
            );
        }
        let (kind, unit) = match joint.kind.get_ref().as_str() {
            "revolute" => (JointKind::Revolute, "rad"),
            "prismatic" => (JointKind::Prismatic, "m"),
            "gripper" => (JointKind::Gripper, ""),
            other => {
                at.push(
                    &joint.kind,
                    &format!("{key}.kind"),
                    "\"revolute\", \"prismatic\" or \"gripper\"",
                    format!("\"{other}\""),
                );
                continue;
            }
        };
        let limits = match kind {
            JointKind::Gripper => at.gripper(&key, joint),
            JointKind::Revolute | JointKind::Prismatic => at.limits(&key, joint, unit),
        };
        joints.push((name.clone(), Joint { kind, limits }));
    }
    // A space is made of joints that are good.
    let space = if at.problems.is_empty() {
        space::check(written, &joints, urdf, at)
    } else {
        None
    };
    let problems = std::mem::take(&mut at.problems);
    if problems.is_empty() {
        let (space, links, tool) = space.map_or((None, Vec::new(), None), |shape| {
            (Some(shape.envelope), shape.links, shape.tool)
        });
        Ok(Robot {
            space,
            links,
            tool,
            poses: written
                .pose
                .iter()
                .map(|pose| {
                    let positions = pose.positions.get_ref().iter();
                    let positions = positions.map(|number| number.0).collect();
                    (pose.name.get_ref().clone(), positions)
                })
                .collect(),
            name: written.name.get_ref().clone(),
            state_delay_ns,
            joints,
        })
    } else {
        Err(problems)
    }
}
