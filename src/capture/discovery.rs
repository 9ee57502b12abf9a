// SPDX-License-Identifier: Apache-2.0
//! Kernel cameras that are plugged in, the paths that lead to them, and what they offer: for people, who write a configuration.
//!
//! A *stable* path is a link that udev makes by a serial number (`by-id`), by a plug (`by-path`), or by our own rules (`tendon`). Two
//! nodes may ask for one such link, as two cameras with one serial number do, or the parts of one camera: then one of them gets
//! it, and perhaps the other one after the next start. Who asks for what stands in udev's database; such a link is *contested*.
//!
//! Not responsible for opening one to take pictures (`v4l`), nor for how all this is told (`listing`).

use super::mapped::{self, Identity, Node};
use super::offered::{self, Control, Rates};
use super::v4l::why;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use v4l::Device;
use v4l::v4l_sys::{V4L2_CAP_VIDEO_M2M, V4L2_CAP_VIDEO_M2M_MPLANE};

/// The size at which a driver is asked for rates where it has many: that of most cameras.
const ASKED: [u32; 2] = [640, 480];
/// Folders of links, of those that follow a camera from plug to plug first.
const LINKS: [&str; 3] = ["v4l/by-id", "v4l/by-path", "tendon"];

/// Where a machine has its nodes, what the kernel says of them, and what udev does.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    /// Nodes and links: `/dev`.
    pub nodes: &'a Path,
    /// A folder for each node: `/sys/class/video4linux`.
    pub class: &'a Path,
    /// udev's database, a file for each node: `/run/udev/data`.
    pub database: &'a Path,
}

impl Places<'_> {
    /// Of this machine.
    #[must_use]
    pub fn of_machine() -> Places<'static> {
        Places {
            nodes: Path::new("/dev"),
            class: Path::new("/sys/class/video4linux"),
            database: Path::new("/run/udev/data"),
        }
    }
}

/// What a device turned out to be, in words for the log and for `tendon cameras`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The node.
    pub device: PathBuf,
    /// Links that lead to it.
    pub stable: Vec<PathBuf>,
    /// Those of them that other nodes ask for as well.
    pub contested: Vec<Contested>,
    /// Model, as the driver names it.
    pub card: String,
    /// Where it is plugged.
    pub bus: String,
    /// What it offers.
    pub modes: Vec<Offer>,
}

/// A link that more than one node asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contested {
    /// The link.
    pub link: PathBuf,
    /// The others.
    pub by: Vec<PathBuf>,
}

/// A node that gives no pictures to `source = "v4l"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// The node.
    pub device: PathBuf,
    /// Model, as the driver names it.
    pub card: String,
    /// Where it is plugged.
    pub bus: String,
    /// What it is instead.
    pub kind: OtherKind,
}

/// What a node is that gives no pictures to `source = "v4l"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherKind {
    /// Pictures whose planes lie in memory of their own.
    MultiPlanar,
    /// What belongs to the pictures of another node.
    Metadata,
    /// A coder, or a converter: it makes pictures of pictures.
    Coder,
    /// One for pictures that offers no format.
    NoFormat,
    /// Anything else, such as a radio or a display.
    Unknown,
}

/// What is plugged in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Cameras.
    pub cameras: Vec<Found>,
    /// Other nodes that could be opened.
    pub others: Vec<Other>,
}

/// A pixel format at one size, or at all sizes between two. Those are never written out: there may be millions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its four characters.
    pub fourcc: [u8; 4],
    /// Its sizes.
    pub sizes: Sizes,
    /// Its rates, at the size of [`Sizes::asked`].
    pub rates: Rates,
}

/// Sizes of a format, width and height.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// One.
    One([u32; 2]),
    /// All between two.
    Between {
        /// The smallest.
        least: [u32; 2],
        /// The largest.
        most: [u32; 2],
        /// Pixels from one width and one height to the next. Some drivers say 0.
        step: [u32; 2],
    },
    /// Its driver does not say; any may be asked for, and it answers with what it has.
    Any,
}

impl Offer {
    /// The four characters in words.
    #[must_use]
    pub fn format(&self) -> String {
        String::from_utf8_lossy(&self.fourcc).trim_end().to_owned()
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.format(), self.sizes)
    }
}

impl From<mapped::Sizes> for Sizes {
    fn from(found: mapped::Sizes) -> Sizes {
        if found.least == found.most {
            return Sizes::One(found.least);
        }
        Sizes::Between {
            least: found.least,
            most: found.most,
            step: found.step,
        }
    }
}

impl Sizes {
    /// The one, or of many the one that is nearest to that of most cameras.
    #[must_use]
    pub fn asked(self) -> [u32; 2] {
        match self {
            Sizes::One(size) => size,
            Sizes::Any => ASKED,
            Sizes::Between { least, most, step } => {
                let [width, height] = ASKED;
                [
                    nearest(width, least[0], most[0], step[0]),
                    nearest(height, least[1], most[1], step[1]),
                ]
            }
        }
    }
}

/// `wanted`, or what is nearest below it in steps from `least`, not beyond `most`.
fn nearest(wanted: u32, least: u32, most: u32, step: u32) -> u32 {
    let within = wanted.min(most).max(least);
    match (within - least).checked_rem(step) {
        Some(beyond) => within - beyond,
        // A step of 0: its driver does not say.
        None => within,
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most, step) = match *self {
            Sizes::Any => return f.write_str("any size"),
            Sizes::One([width, height]) => return write!(f, "{width}x{height}"),
            Sizes::Between { least, most, step } => (least, most, step),
        };
        write!(f, "{}x{} to {}x{}", least[0], least[1], most[0], most[1])?;
        match step {
            [1, 1] => Ok(()),
            [0, _] | [_, 0] => f.write_str(" in steps that its driver does not say"),
            [width, height] => write!(f, " in steps of {width}x{height}"),
        }
    }
}

/// Cameras under `root` (`/dev`). Why a node cannot be opened, or does not say what it is, is logged.
#[must_use]
pub fn discover(root: &Path) -> Vec<Found> {
    let places = Places {
        nodes: root,
        ..Places::of_machine()
    };
    survey(&places).cameras
}

/// Nodes `video*`, in the order of their numbers, with the stable paths that lead to them. Why one cannot be opened, or does not say
/// what it is, is logged.
#[must_use]
pub fn survey(places: &Places<'_>) -> Survey {
    let nodes = nodes(places.nodes);
    let links: Vec<PathBuf> = LINKS
        .iter()
        .flat_map(|folder| listing(&places.nodes.join(folder)))
        .collect();
    let claims: Vec<(&PathBuf, Vec<PathBuf>)> = nodes
        .iter()
        .map(|node| (node, claimed(node, places)))
        .collect();
    let mut survey = Survey::default();
    for node in &nodes {
        let (Identity { card, bus, .. }, kind, modes) = match describe(node) {
            Ok(described) => described,
            Err(error) => {
                log::warn!(
                    "{}: expected a device that opens and says what it is, found {}",
                    node.display(),
                    why(node, &error)
                );
                continue;
            }
        };
        let device = node.clone();
        if let Some(kind) = kind {
            survey.others.push(Other {
                device,
                card,
                bus,
                kind,
            });
            continue;
        }
        let stable = leading_to(node, &links);
        survey.cameras.push(Found {
            contested: contested(node, &stable, &claims),
            stable,
            device,
            card,
            bus,
            modes,
        });
    }
    survey
}

/// The controls of a camera that may be set by a number; none if it cannot be opened now.
#[must_use]
pub fn controls(device: &Path) -> Vec<Control> {
    Device::with_path(device).map_or_else(|_| Vec::new(), |device| offered::controls(&device))
}

fn nodes(root: &Path) -> Vec<PathBuf> {
    let mut nodes: Vec<PathBuf> = listing(root)
        .into_iter()
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.strip_prefix("video"))
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        })
        .collect();
    // video2 before video10.
    nodes.sort_by_key(|node| node.as_os_str().len());
    nodes
}

/// What is in a folder, sorted.
fn listing(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
}

fn leading_to(node: &Path, links: &[PathBuf]) -> Vec<PathBuf> {
    let Ok(real) = node.canonicalize() else {
        return Vec::new();
    };
    let leads = |link: &&PathBuf| link.canonicalize().is_ok_and(|to| to == real);
    links.iter().filter(leads).cloned().collect()
}

/// The links that a node asks for, whether they lead to it or not: udev keeps them in a file named by the node's numbers.
fn claimed(node: &Path, places: &Places<'_>) -> Vec<PathBuf> {
    let numbers = |name: &OsStr| std::fs::read_to_string(places.class.join(name).join("dev")).ok();
    let record = node.file_name().and_then(numbers).and_then(|numbers| {
        let file = format!("c{}", numbers.trim());
        std::fs::read_to_string(places.database.join(file)).ok()
    });
    let record = record.unwrap_or_default();
    let links = record.lines().filter_map(|line| line.strip_prefix("S:"));
    links.map(|link| places.nodes.join(link)).collect()
}

fn contested(
    node: &Path,
    stable: &[PathBuf],
    claims: &[(&PathBuf, Vec<PathBuf>)],
) -> Vec<Contested> {
    let of_link = |link: &PathBuf| {
        let others = claims
            .iter()
            .filter(|(other, links)| other.as_path() != node && links.contains(link));
        Contested {
            link: link.clone(),
            by: others.map(|(other, _)| (*other).clone()).collect(),
        }
    };
    let all = stable.iter().map(of_link);
    all.filter(|contested| !contested.by.is_empty()).collect()
}

/// Who it is; what it is if it is no camera; what it offers if it is one.
fn describe(node: &Path) -> io::Result<(Identity, Option<OtherKind>, Vec<Offer>)> {
    let device = Device::with_path(node)?;
    let identity = mapped::identity(&device)?;
    let kind = match mapped::node(&device)? {
        Node::Pictures => None,
        Node::MultiPlanar => Some(OtherKind::MultiPlanar),
        Node::Metadata => Some(OtherKind::Metadata),
        Node::Other(has) if has & (V4L2_CAP_VIDEO_M2M | V4L2_CAP_VIDEO_M2M_MPLANE) != 0 => {
            Some(OtherKind::Coder)
        }
        Node::Other(_) => Some(OtherKind::Unknown),
    };
    if kind.is_some() {
        return Ok((identity, kind, Vec::new()));
    }
    let mut modes = Vec::new();
    for fourcc in mapped::formats(&device)? {
        let mut sizes: Vec<Sizes> = mapped::sizes(&device, fourcc)
            .unwrap_or_default()
            .into_iter()
            .map(Sizes::from)
            .collect();
        // Many drivers cannot be asked for their sizes; they have them all the same.
        if sizes.is_empty() {
            sizes.push(Sizes::Any);
        }
        modes.extend(sizes.into_iter().map(|sizes| Offer {
            fourcc,
            sizes,
            rates: offered::rates(&device, fourcc, sizes.asked()),
        }));
    }
    let kind = modes.is_empty().then_some(OtherKind::NoFormat);
    Ok((identity, kind, modes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_sizes_one_is_asked_that_the_driver_has() {
        let between = |least, most, step| Sizes::Between { least, most, step };
        for (sizes, asked) in [
            (Sizes::One([224, 224]), [224, 224]),
            (Sizes::Any, [640, 480]),
            (between([48, 32], [8192, 8192], [16, 8]), [640, 480]),
            (between([48, 32], [8192, 8192], [0, 0]), [640, 480]),
            (between([50, 30], [8192, 8192], [100, 100]), [550, 430]),
            (between([16, 16], [320, 240], [1, 1]), [320, 240]),
            (between([1280, 720], [1920, 1080], [2, 2]), [1280, 720]),
            // The other way round, which no driver should say.
            (between([800, 600], [16, 16], [1, 1]), [800, 600]),
        ] {
            assert_eq!(sizes.asked(), asked, "{sizes}");
        }
    }
}
