// SPDX-License-Identifier: Apache-2.0
//! `[space]` of `robot.toml`: the URDF, the workspace, keep-out boxes and what of the robot may not meet, made into the
//! envelope that the governor keeps.
//!
//! Nothing is assumed: a joint that moves in the URDF is named in `robot.toml` or said to be held, a mesh gets capsules
//! by hand, and parts that touch at rest are told so that somebody says that they may.

use crate::config::Joint;
use crate::config::file::{Located, Number, PoseTable, RobotFile, SpaceTable};
use crate::config::urdf::{self, Rod, Urdf};
use crate::core::kinematics::envelope::{Breach, Capsule, Envelope, Pair, Subject};
use crate::core::kinematics::geometry::Cuboid;
use crate::core::kinematics::{Chain, Motion};
use std::path::Path;
use toml::Spanned;

#[cfg(test)]
mod tests;
mod tree;

use tree::{Tree, tree};

/// Where the URDF is read from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The file that the key names, relative to this folder.
    Folder(&'a Path),
    /// This text: the program carries it.
    Text(&'a str),
    /// Nowhere: the space is not asked for.
    Ignored,
}

/// Least distance of parts of the robot, metres, where `clearance_m` is not given: what calibration is good for.
const CLEARANCE_M: f64 = 0.01;

/// What the files say of the robot's shape.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What the governor keeps.
    pub envelope: Box<Envelope>,
    /// Names of the chain's links, in its order.
    pub links: Vec<String>,
    /// The one that commands tell of.
    pub tool: Option<usize>,
}

/// Largest drawing of a robot.
pub(super) const URDF_BYTES_MAX: u64 = 8 << 20;

/// The shape, if the robot has one. Poses that are named are checked against it and against the limits.
pub fn check(
    written: &RobotFile,
    joints: &[(String, Joint)],
    source: Source<'_>,
    at: &mut Located<'_>,
) -> Option<Shape> {
    let made = match (&written.space, source) {
        (None, _) | (_, Source::Ignored) => None,
        (Some(table), Source::Text(text)) => build(table, joints, text, at),
        (Some(table), Source::Folder(folder)) => {
            let path = folder.join(table.urdf.get_ref());
            match super::read(&path, URDF_BYTES_MAX) {
                Ok(text) => build(table, joints, &text, at),
                Err(problems) => {
                    let found = problems.into_iter().map(|problem| problem.found).collect();
                    at.push(
                        &table.urdf,
                        "space.urdf",
                        "a URDF file of at most 8 MiB",
                        found,
                    );
                    None
                }
            }
        }
    };
    for (index, pose) in written.pose.iter().enumerate() {
        stands(index, pose, joints, made.as_ref(), at);
    }
    let made = made?;
    let asked = written.space.as_ref().and_then(|table| table.tool.as_ref());
    let tool = asked.and_then(|asked| {
        let found = made.links.iter().position(|link| link == asked.get_ref());
        if found.is_none() {
            let expected = format!("one of the URDF's links {:?}", made.links);
            at.push(
                asked,
                "space.tool",
                &expected,
                format!("\"{}\"", asked.get_ref()),
            );
        }
        found
    });
    Some(Shape {
        envelope: Box::new(made.envelope),
        links: made.links,
        tool,
    })
}

/// An envelope, with the names that its indices stand for.
struct Named {
    envelope: Envelope,
    links: Vec<String>,
    /// Link of each capsule.
    capsules: Vec<String>,
    keep_outs: Vec<String>,
    pairs: Vec<[String; 2]>,
}

impl Named {
    fn words(&self, breach: Breach) -> String {
        let (Breach::Space { subject, .. } | Breach::Between { subject, .. }) = breach else {
            return breach.to_string();
        };
        let name = |names: &[String], index: u16| {
            let name = names.get(usize::from(index)).map(String::as_str);
            name.unwrap_or("?").to_owned()
        };
        let what = match subject {
            Subject::Workspace { capsule } => {
                format!(
                    "link \"{}\" leaves the workspace",
                    name(&self.capsules, capsule)
                )
            }
            Subject::KeepOut { capsule, keep_out } => format!(
                "keep-out box \"{}\" contains part of link \"{}\"",
                name(&self.keep_outs, keep_out),
                name(&self.capsules, capsule)
            ),
            Subject::Pair { pair } => match self.pairs.get(usize::from(pair)) {
                Some([one, two]) => format!("links \"{one}\" and \"{two}\" are too near"),
                None => breach.to_string(),
            },
        };
        match breach {
            Breach::Space { depth_m, .. } => format!("{what}, by {:.1} mm", depth_m * 1e3),
            Breach::NoPose | Breach::Between { .. } => what,
        }
    }
}

/// A named pose lies inside the limits and the space.
fn stands(
    index: usize,
    pose: &PoseTable,
    joints: &[(String, Joint)],
    space: Option<&Named>,
    at: &mut Located<'_>,
) {
    let key = format!("pose[{index}] \"{}\".positions", pose.name.get_ref());
    let written = pose.positions.get_ref();
    if written.len() != joints.len() {
        let expected = format!("{} numbers, one a joint", joints.len());
        return at.push(&pose.positions, &key, &expected, written.len().to_string());
    }
    let positions: Vec<f64> = written.iter().map(|number| number.0).collect();
    for ((name, joint), q) in joints.iter().zip(&positions) {
        let l = &joint.limits;
        // Written so that a NaN is outside.
        if !(l.position_min..=l.position_max).contains(q) {
            let expected = format!(
                "{} to {} for joint \"{name}\"",
                l.position_min, l.position_max
            );
            return at.push(&pose.positions, &key, &expected, q.to_string());
        }
    }
    if let Some(space) = space
        && let Err(breach) = space.envelope.check(&positions)
    {
        at.push(
            &pose.positions,
            &key,
            "a pose inside the workspace, out of the keep-out boxes, with no parts too near",
            space.words(breach),
        );
    }
}

fn build(
    table: &SpaceTable,
    joints: &[(String, Joint)],
    text: &str,
    at: &mut Located<'_>,
) -> Option<Named> {
    let before = at.problems.len();
    let urdf = match urdf::read(table.urdf.get_ref(), text) {
        Ok(urdf) => urdf,
        Err(problems) => {
            at.problems.extend(problems);
            return None;
        }
    };
    let tree = tree(table, joints, &urdf, at)?;
    let capsules = capsules(table, &urdf, &tree, at);
    let pairs = pairs(table, &tree, &capsules, at);
    let workspace = match (&table.workspace_min_m, &table.workspace_max_m) {
        (Some(min), Some(max)) => cuboid("space.workspace_max_m", min, max, at),
        (None, None) => None,
        (Some(given), None) | (None, Some(given)) => {
            let key = "space.workspace_min_m, space.workspace_max_m";
            at.push(given, key, "both corners, or none", "one".into());
            None
        }
    };
    let keep_outs: Vec<Cuboid> = table
        .keep_out
        .iter()
        .enumerate()
        .filter_map(|(index, each)| {
            let name = each.name.get_ref();
            let key = format!("space.keep_out[{index}] \"{name}\".max_m");
            cuboid(&key, &each.min_m, &each.max_m, at)
        })
        .collect();
    let clearance_m = table.clearance_m.as_ref().map_or(CLEARANCE_M, |given| {
        at.within("space.clearance_m", given, 0.0, 1.0)
    });
    if at.problems.len() > before {
        return None;
    }
    let plain: Vec<Capsule> = capsules.iter().map(|(_, capsule)| *capsule).collect();
    let name = |capsule: usize| capsules.get(capsule).map(|(name, _)| name.clone());
    let pair_names = pairs
        .iter()
        .map(|pair| pair.map(|capsule| name(capsule).unwrap_or_default()))
        .collect();
    let pairs: Vec<Pair> = pairs
        .into_iter()
        .map(|capsules| Pair {
            capsules,
            clearance_m,
        })
        .collect();
    let made = Chain::new(&tree.links, joints.len())
        .and_then(|chain| Envelope::new(chain, &plain, workspace, &keep_outs, &pairs));
    match made {
        Ok(envelope) => Some(Named {
            envelope,
            links: tree.names,
            capsules: capsules.into_iter().map(|(name, _)| name).collect(),
            keep_outs: table
                .keep_out
                .iter()
                .map(|each| each.name.get_ref().clone())
                .collect(),
            pairs: pair_names,
        }),
        Err(malformed) => {
            at.push(
                &table.urdf,
                "space",
                "a robot that can be checked",
                malformed.to_string(),
            );
            None
        }
    }
}

fn cuboid(
    key: &str,
    min: &Spanned<[Number; 3]>,
    max: &Spanned<[Number; 3]>,
    at: &mut Located<'_>,
) -> Option<Cuboid> {
    let [min_m, max_m] = [min, max].map(|corner| corner.get_ref().map(|number| number.0));
    let cuboid = Cuboid {
        min: min_m,
        max: max_m,
    };
    if !cuboid.is_proper() {
        let expected = format!("finite numbers, each above that of the lower corner {min_m:?}");
        at.push(max, key, &expected, format!("{max_m:?}"));
        return None;
    }
    Some(cuboid)
}

/// The capsules of each link: those given by hand, else those of the URDF.
fn capsules(
    table: &SpaceTable,
    urdf: &Urdf,
    tree: &Tree,
    at: &mut Located<'_>,
) -> Vec<(String, Capsule)> {
    let mut by_hand: Vec<(usize, Rod)> = Vec::new();
    for (index, given) in table.capsule.iter().enumerate() {
        let key = format!("space.capsule[{index}]");
        let radius_m = at.within(&format!("{key}.radius_m"), &given.radius_m, 0.0, 10.0);
        match tree.index(given.link.get_ref()) {
            Some(link) => by_hand.push((
                link,
                Rod {
                    ends: [&given.from_m, &given.to_m]
                        .map(|end| end.get_ref().map(|number| number.0)),
                    radius_m,
                },
            )),
            None => at.push(
                &given.link,
                &format!("{key}.link"),
                "a link of the URDF",
                format!("\"{}\"", given.link.get_ref()),
            ),
        }
    }
    let mut standing = Vec::new();
    for name in &table.standing {
        match tree.index(name.get_ref()) {
            Some(link) => standing.push(link),
            None => at.push(
                name,
                "space.standing",
                "links of the URDF",
                format!("\"{}\"", name.get_ref()),
            ),
        }
    }
    let mut capsules = Vec::new();
    for (link, name) in tree.names.iter().enumerate() {
        let mut rods: Vec<Rod> = by_hand
            .iter()
            .filter(|(at, _)| *at == link)
            .map(|(_, rod)| *rod)
            .collect();
        if rods.is_empty()
            && let Some(drawn) = urdf.links.iter().find(|each| each.name == *name)
        {
            if drawn.mesh {
                at.push(
                    &table.urdf,
                    "space.capsule",
                    &format!("a capsule for link \"{name}\": meshes are not opened"),
                    "none".into(),
                );
            }
            rods.clone_from(&drawn.capsules);
        }
        let checked = tree.moves(link) && !standing.contains(&link);
        capsules.extend(rods.into_iter().map(|rod| {
            let capsule = Capsule {
                link,
                ends: rod.ends,
                radius_m: rod.radius_m,
                in_workspace: checked,
                out_of_boxes: checked,
            };
            (name.clone(), capsule)
        }));
    }
    capsules
}

/// All pairs of capsules but those that no joint moves against one another, those of neighbours, and those that may
/// touch. Neighbours are a link and the next above it that has a shape.
fn pairs(
    table: &SpaceTable,
    tree: &Tree,
    capsules: &[(String, Capsule)],
    at: &mut Located<'_>,
) -> Vec<[usize; 2]> {
    for pair in &table.may_touch {
        for name in pair.get_ref() {
            if tree.index(name).is_none() {
                at.push(
                    pair,
                    "space.may_touch",
                    "links of the URDF",
                    format!("\"{name}\""),
                );
            }
        }
    }
    let shaped = |link: usize| capsules.iter().any(|(_, capsule)| capsule.link == link);
    // The nearest link above, across a joint that moves, that has a shape; and everything fixed to that.
    let body = |link: usize| {
        tree.up(link)
            .find(|link| {
                tree.links
                    .get(*link)
                    .is_none_or(|link| link.motion != Motion::Fixed || link.parent.is_none())
            })
            .unwrap_or(0)
    };
    let shaped_body =
        |at: usize| (0..tree.links.len()).any(|link| body(link) == at && shaped(link));
    let above = |link: usize| {
        let mut at = body(link);
        while let Some(parent) = tree.links.get(at).and_then(|link| link.parent) {
            at = body(parent);
            if shaped_body(at) {
                break;
            }
        }
        at
    };
    let mut pairs = Vec::new();
    for (one, (one_name, first)) in capsules.iter().enumerate() {
        for (two, (two_name, second)) in capsules.iter().enumerate().skip(one + 1) {
            let (a, b) = (body(first.link), body(second.link));
            let neighbours = a == b || above(first.link) == b || above(second.link) == a;
            let may_touch = table.may_touch.iter().any(|pair| {
                let [x, y] = pair.get_ref();
                (x == one_name && y == two_name) || (x == two_name && y == one_name)
            });
            if !neighbours && !may_touch {
                pairs.push([one, two]);
            }
        }
    }
    pairs
}
