// SPDX-License-Identifier: Apache-2.0
//! The URDF's links and joints made into the core's chain, each joint driven by one of `robot.toml` or held.

use crate::config::Joint;
use crate::config::file::{Located, SpaceTable};
use crate::config::problem::Problem;
use crate::config::urdf::{Urdf, UrdfJoint, UrdfMotion};
use crate::core::action::JointKind;
use crate::core::kinematics::geometry::{Transform, about, scale, sin_cos};
use crate::core::kinematics::{Drive, Link, Motion};

/// The URDF's links in an order in which each comes after what carries it.
pub(super) struct Tree {
    pub(super) names: Vec<String>,
    pub(super) links: Vec<Link>,
}

impl Tree {
    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|each| each == name)
    }

    /// Whether a joint moves the link.
    pub(super) fn moves(&self, link: usize) -> bool {
        self.up(link).any(|link| {
            self.links
                .get(link)
                .is_some_and(|link| link.motion != Motion::Fixed)
        })
    }

    /// The link, what carries it, what carries that, to the base.
    pub(super) fn up(&self, link: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(link), |link| self.links.get(*link)?.parent)
    }
}

pub(super) fn tree(
    table: &SpaceTable,
    joints: &[(String, Joint)],
    urdf: &Urdf,
    at: &mut Located<'_>,
) -> Option<Tree> {
    let before = at.problems.len();
    let mut told = |place: &str, expected: &str, found: String| {
        at.problems.push(Problem {
            at: place.into(),
            expected: expected.into(),
            found,
        });
    };
    for (index, link) in urdf.links.iter().enumerate() {
        if urdf
            .links
            .iter()
            .take(index)
            .any(|other| other.name == link.name)
        {
            let place = format!("{}: link", table.urdf.get_ref());
            told(
                &place,
                "names that differ",
                format!("\"{}\" twice", link.name),
            );
        }
    }
    for (index, joint) in urdf.joints.iter().enumerate() {
        if urdf
            .joints
            .iter()
            .take(index)
            .any(|other| other.name == joint.name)
        {
            told(
                &joint.at,
                "names that differ",
                format!("joint \"{}\" twice", joint.name),
            );
        }
        if urdf
            .joints
            .iter()
            .take(index)
            .any(|other| other.child == joint.child)
        {
            let found = format!("link \"{}\" carried twice", joint.child);
            told(&joint.at, "a tree: each link carried by one joint", found);
        }
        for name in [&joint.parent, &joint.child] {
            if !urdf.links.iter().any(|link| link.name == *name) {
                told(&joint.at, "links of this file", format!("\"{name}\""));
            }
        }
    }
    if at.problems.len() > before {
        return None;
    }
    // The base, and from there outwards.
    let carried = |name: &str| urdf.joints.iter().any(|joint| joint.child == name);
    let roots: Vec<&str> = urdf
        .links
        .iter()
        .map(|link| link.name.as_str())
        .filter(|name| !carried(name))
        .collect();
    let [root] = roots.as_slice() else {
        let found = format!("{roots:?}");
        at.push(
            &table.urdf,
            "space.urdf",
            "one link that nothing carries",
            found,
        );
        return None;
    };
    let mut tree = Tree {
        names: vec![(*root).to_owned()],
        links: vec![Link {
            parent: None,
            origin: Transform::IDENTITY,
            axis: [0.0, 0.0, 1.0],
            motion: Motion::Fixed,
        }],
    };
    let mut next = 0;
    while let Some(name) = tree.names.get(next).cloned() {
        for joint in urdf.joints.iter().filter(|joint| joint.parent == name) {
            if let Some(link) = link(table, joints, urdf, joint, next, at) {
                tree.names.push(joint.child.clone());
                tree.links.push(link);
            }
        }
        next += 1;
    }
    for (index, (name, joint)) in joints.iter().enumerate() {
        let known = urdf.joints.iter().any(|each| each.name == *name);
        if joint.kind != JointKind::Gripper && !known {
            let key = format!("joint[{index}] \"{name}\".name");
            let found = format!("no joint of {}", table.urdf.get_ref());
            at.push(&table.urdf, &key, "a joint of the URDF", found);
        }
    }
    for (name, given) in &table.held {
        if !urdf.joints.iter().any(|joint| joint.name == *name) {
            let key = format!("space.held.{name}");
            at.push(
                given,
                &key,
                "a joint of the URDF",
                "none of that name".into(),
            );
        }
    }
    if at.problems.len() > before {
        return None;
    }
    if tree.links.len() != urdf.links.len() {
        let found = format!(
            "{} of {} links hang on \"{root}\"",
            tree.links.len(),
            urdf.links.len()
        );
        at.push(&table.urdf, "space.urdf", "one tree, without rings", found);
        return None;
    }
    Some(tree)
}

/// The link that a joint carries.
fn link(
    table: &SpaceTable,
    joints: &[(String, Joint)],
    urdf: &Urdf,
    joint: &UrdfJoint,
    parent: usize,
    at: &mut Located<'_>,
) -> Option<Link> {
    let fixed = |origin| {
        Some(Link {
            parent: Some(parent),
            origin,
            axis: [0.0, 0.0, 1.0],
            motion: Motion::Fixed,
        })
    };
    if joint.motion == UrdfMotion::Fixed {
        return fixed(joint.origin);
    }
    let (driver, factor, offset) = match &joint.mimic {
        Some((name, factor, offset)) => (name, *factor, *offset),
        None => (&joint.name, 1.0, 0.0),
    };
    let mut told = |expected: String, found: String| {
        at.problems.push(Problem {
            at: joint.at.clone(),
            expected,
            found,
        });
        None
    };
    if let Some(held) = table.held.get(driver) {
        let q = factor * held.get_ref().0 + offset;
        if !q.is_finite() {
            return told(
                format!("space.held.{driver}: a finite number"),
                q.to_string(),
            );
        }
        let held = match joint.motion {
            UrdfMotion::Turns => Transform {
                columns: about(joint.axis, sin_cos(q)),
                translation: [0.0; 3],
            },
            UrdfMotion::Fixed | UrdfMotion::Slides => Transform {
                translation: scale(joint.axis, q),
                ..Transform::IDENTITY
            },
        };
        return fixed(joint.origin.then_inside(&held));
    }
    let Some((index, (_, named))) = joints
        .iter()
        .enumerate()
        .find(|(_, (name, each))| name == driver && each.kind != JointKind::Gripper)
    else {
        return told(
            format!(
                "joint \"{driver}\" in robot.toml, or the position at which it is held in space.held.{driver}"
            ),
            "neither".into(),
        );
    };
    let driven = urdf.joints.iter().find(|each| each.name == *driver);
    let fits = driven.is_some_and(|driven| {
        driven.mimic.is_none()
            && matches!(
                (named.kind, driven.motion),
                (JointKind::Revolute, UrdfMotion::Turns)
                    | (JointKind::Prismatic, UrdfMotion::Slides)
            )
    });
    if !fits {
        return told(
            format!(
                "joint \"{driver}\" of the kind that robot.toml says, {:?}, and no mimic",
                named.kind
            ),
            "another kind, a mimic or no such joint".into(),
        );
    }
    let l = &named.limits;
    if joint.mimic.is_none()
        && let Some((lower, upper)) = joint.range
        && (l.position_min < lower || l.position_max > upper)
    {
        return told(
            format!(
                "limits that hold those of joint \"{driver}\" in robot.toml, {} to {}",
                l.position_min, l.position_max
            ),
            format!("{lower} to {upper}"),
        );
    }
    let drive = Drive {
        joint: index,
        factor,
        offset,
    };
    let furthest = |q: f64| (factor * q + offset).abs();
    Some(Link {
        parent: Some(parent),
        origin: joint.origin,
        axis: joint.axis,
        motion: match joint.motion {
            UrdfMotion::Slides => Motion::Prismatic {
                drive,
                // A hair more than the limits, for rounding.
                travel_max_m: furthest(l.position_min).max(furthest(l.position_max)) + 1e-9,
            },
            UrdfMotion::Fixed | UrdfMotion::Turns => Motion::Revolute(drive),
        },
    })
}
