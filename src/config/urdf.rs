// SPDX-License-Identifier: Apache-2.0
//! What is needed of a URDF: links, joints, and capsules that bound the collision shapes. Everything else in it
//! (looks, inertia, transmissions) is left alone. Format: <https://wiki.ros.org/urdf/XML>.
//!
//! Each mistake is told with its line. Meshes are not opened: a link whose collision shape is a mesh needs capsules of
//! its own in `robot.toml`.

use crate::config::problem::Problem;
use crate::core::kinematics::geometry::{Point, Transform, length, scale};
use roxmltree::{Document, Node, ParsingOptions};

/// A robot as its URDF has it.
#[derive(Clone, Debug)]
pub struct Urdf {
    /// In the order of the file.
    pub links: Vec<UrdfLink>,
    /// In the order of the file.
    pub joints: Vec<UrdfJoint>,
}

/// `<link>`.
#[derive(Clone, Debug)]
pub struct UrdfLink {
    /// Its name.
    pub name: String,
    /// Bounds of its collision shapes, in its frame.
    pub capsules: Vec<Rod>,
    /// Whether a collision shape is a mesh.
    pub mesh: bool,
}

/// A segment with a radius, in a link's frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rod {
    /// Metres.
    pub ends: [Point; 2],
    /// Metres.
    pub radius_m: f64,
}

/// How a `<joint>` moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrdfMotion {
    /// `fixed`.
    Fixed,
    /// `revolute` and `continuous`.
    Turns,
    /// `prismatic`.
    Slides,
}

/// `<joint>`.
#[derive(Clone, Debug)]
pub struct UrdfJoint {
    /// Its name.
    pub name: String,
    /// File and line, for messages.
    pub at: String,
    /// How it moves.
    pub motion: UrdfMotion,
    /// Name of the link that carries it.
    pub parent: String,
    /// Name of the link that it carries.
    pub child: String,
    /// Its frame in the parent's.
    pub origin: Transform,
    /// Unit vector in its frame.
    pub axis: Point,
    /// Lowest and highest position, where the file limits it.
    pub range: Option<(f64, f64)>,
    /// The joint that it follows, with factor and offset.
    pub mimic: Option<(String, f64, f64)>,
}

/// Largest number of XML nodes: a humanoid with all its looks has some thousands.
const NODES_MAX: u32 = 200_000;

/// Reads a URDF.
///
/// # Errors
/// Every [`Problem`] of what is needed, with its line.
pub fn read(name: &str, text: &str) -> Result<Urdf, Vec<Problem>> {
    let options = ParsingOptions {
        // No document type: entities that multiply have no use here.
        allow_dtd: false,
        nodes_limit: NODES_MAX,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options).map_err(|error| {
        vec![Problem {
            at: format!("{name}:{}", error.pos().row),
            expected: "XML".into(),
            found: error.to_string(),
        }]
    })?;
    let root = document.root_element();
    let mut reader = Reader {
        name,
        document: &document,
        problems: Vec::new(),
    };
    if !root.has_tag_name("robot") {
        reader.wrong(
            root,
            "<robot>: a URDF",
            format!("<{}>", root.tag_name().name()),
        );
    }
    let mut urdf = Urdf {
        links: Vec::new(),
        joints: Vec::new(),
    };
    for node in root.children() {
        match node.tag_name().name() {
            "link" => urdf.links.extend(reader.link(node)),
            "joint" => urdf.joints.extend(reader.joint(node)),
            _ => {}
        }
    }
    if reader.problems.is_empty() {
        Ok(urdf)
    } else {
        Err(reader.problems)
    }
}

struct Reader<'a, 'input> {
    name: &'a str,
    document: &'a Document<'input>,
    problems: Vec<Problem>,
}

impl Reader<'_, '_> {
    fn at(&self, node: Node<'_, '_>) -> String {
        let row = self.document.text_pos_at(node.range().start).row;
        format!("{}:{row}", self.name)
    }

    fn wrong(&mut self, node: Node<'_, '_>, expected: &str, found: String) {
        self.problems.push(Problem {
            at: self.at(node),
            expected: expected.into(),
            found,
        });
    }

    fn word(&mut self, node: Node<'_, '_>, attribute: &str) -> Option<String> {
        let word = node.attribute(attribute).filter(|word| !word.is_empty());
        if word.is_none() {
            let tag = node.tag_name().name();
            self.wrong(node, &format!("<{tag} {attribute}=\"...\">"), "none".into());
        }
        word.map(str::to_owned)
    }

    /// So many finite numbers; `absent` where the attribute is not there.
    fn numbers<const N: usize>(
        &mut self,
        node: Node<'_, '_>,
        attribute: &str,
        absent: Option<[f64; N]>,
    ) -> Option<[f64; N]> {
        let Some(text) = node.attribute(attribute) else {
            if absent.is_none() {
                self.word(node, attribute);
            }
            return absent;
        };
        let numbers: Vec<f64> = text
            .split_ascii_whitespace()
            .filter_map(|word| word.parse().ok())
            .filter(|number: &f64| number.is_finite())
            .collect();
        let all = text.split_ascii_whitespace().count() == N;
        match <[f64; N]>::try_from(numbers) {
            Ok(numbers) if all => Some(numbers),
            Ok(_) | Err(_) => {
                let expected = format!("{attribute}: {N} finite number(s)");
                self.wrong(node, &expected, format!("\"{text}\""));
                None
            }
        }
    }

    fn origin(&mut self, parent: Node<'_, '_>) -> Option<Transform> {
        let Some(node) = child(parent, "origin") else {
            return Some(Transform::IDENTITY);
        };
        let xyz = self.numbers(node, "xyz", Some([0.0; 3]))?;
        let rpy_rad = self.numbers(node, "rpy", Some([0.0; 3]))?;
        Some(Transform::from_xyz_rpy(xyz, rpy_rad))
    }

    fn link(&mut self, node: Node<'_, '_>) -> Option<UrdfLink> {
        let name = self.word(node, "name")?;
        let (mut capsules, mut mesh) = (Vec::new(), false);
        for collision in node
            .children()
            .filter(|each| each.has_tag_name("collision"))
        {
            let origin = self.origin(collision)?;
            let shapes = child(collision, "geometry").map(|each| each.children());
            for shape in shapes.into_iter().flatten().filter(Node::is_element) {
                match shape.tag_name().name() {
                    "mesh" => mesh = true,
                    _ => capsules.extend(self.bound(shape, &origin)),
                }
            }
        }
        Some(UrdfLink {
            name,
            capsules,
            mesh,
        })
    }

    /// A capsule that holds the shape.
    fn bound(&mut self, shape: Node<'_, '_>, origin: &Transform) -> Option<Rod> {
        let ([half, radius_m], along) = match shape.tag_name().name() {
            "sphere" => {
                let [radius] = self.sizes(shape, "radius")?;
                ([0.0, radius], 2)
            }
            // A capsule's length is that of its cylinder.
            "cylinder" | "capsule" => {
                let ([radius], [long]) =
                    (self.sizes(shape, "radius")?, self.sizes(shape, "length")?);
                ([long / 2.0, radius], 2)
            }
            // Along its longest side, around its other two.
            "box" => {
                let size: Point = self.sizes(shape, "size")?;
                let along = (0..3).max_by(|a, b| size[*a].total_cmp(&size[*b]))?;
                let mut across = size;
                across[along] = 0.0;
                ([size[along] / 2.0, length(across) / 2.0], along)
            }
            other => {
                self.wrong(
                    shape,
                    "<box>, <cylinder>, <capsule>, <sphere> or <mesh>",
                    format!("<{other}>"),
                );
                return None;
            }
        };
        let mut end = [0.0; 3];
        end[along] = half;
        Some(Rod {
            ends: [end, scale(end, -1.0)].map(|end| origin.apply(end)),
            radius_m,
        })
    }

    fn sizes<const N: usize>(&mut self, shape: Node<'_, '_>, attribute: &str) -> Option<[f64; N]> {
        let sizes = self.numbers(shape, attribute, None)?;
        if sizes.iter().any(|size| *size < 0.0) {
            self.wrong(
                shape,
                &format!("{attribute} of at least 0"),
                format!("{sizes:?}"),
            );
            return None;
        }
        Some(sizes)
    }

    fn joint(&mut self, node: Node<'_, '_>) -> Option<UrdfJoint> {
        let name = self.word(node, "name")?;
        let motion = match self.word(node, "type")?.as_str() {
            "fixed" => UrdfMotion::Fixed,
            "revolute" | "continuous" => UrdfMotion::Turns,
            "prismatic" => UrdfMotion::Slides,
            other => {
                self.wrong(
                    node,
                    "type \"fixed\", \"revolute\", \"continuous\" or \"prismatic\"",
                    format!("\"{other}\" for joint \"{name}\""),
                );
                return None;
            }
        };
        let mut end = |tag: &str| match child(node, tag) {
            Some(end) => self.word(end, "link"),
            None => {
                self.wrong(node, &format!("<{tag} link=\"...\"/>"), "none".into());
                None
            }
        };
        let (parent, carried) = (end("parent"), end("child"));
        let axis = match child(node, "axis") {
            Some(axis) => self.numbers(axis, "xyz", None)?,
            None => [1.0, 0.0, 0.0],
        };
        let long = length(axis);
        // What a longer axis means differs from reader to reader: for a slide some take it as a factor.
        if motion != UrdfMotion::Fixed && (long - 1.0).abs() > 1e-3 {
            let found = format!("{axis:?} for joint \"{name}\"");
            self.wrong(node, "an axis of length 1", found);
            return None;
        }
        let range = match child(node, "limit") {
            Some(limit) => {
                let [lower] = self.numbers(limit, "lower", Some([0.0]))?;
                let [upper] = self.numbers(limit, "upper", Some([0.0]))?;
                (node.attribute("type") != Some("continuous") && lower < upper)
                    .then_some((lower, upper))
            }
            None => None,
        };
        let mimic = match child(node, "mimic") {
            Some(mimic) => {
                let [factor] = self.numbers(mimic, "multiplier", Some([1.0]))?;
                let [offset] = self.numbers(mimic, "offset", Some([0.0]))?;
                Some((self.word(mimic, "joint")?, factor, offset))
            }
            None => None,
        };
        Some(UrdfJoint {
            at: self.at(node),
            motion,
            parent: parent?,
            child: carried?,
            origin: self.origin(node)?,
            axis: if long > 0.0 {
                scale(axis, 1.0 / long)
            } else {
                axis
            },
            range,
            mimic,
            name,
        })
    }
}

fn child<'a, 'input>(node: Node<'a, 'input>, tag: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|each| each.has_tag_name(tag))
}
