// SPDX-License-Identifier: Apache-2.0
//! Kernel cameras that are plugged in, the paths that lead to them, and what they offer: for people, who write a configuration.
//!
//! Not responsible for opening one to take pictures (`v4l`).

use super::v4l::why;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use v4l::Device;
use v4l::framesize::FrameSizeEnum;
use v4l::video::Capture;

/// What a device turned out to be, in words for the log and for `tendon cameras`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The node.
    pub device: PathBuf,
    /// Paths that lead to it and do not change.
    pub stable: Vec<PathBuf>,
    /// Model, as the driver names it.
    pub card: String,
    /// Where it is plugged.
    pub bus: String,
    /// What it offers.
    pub modes: Vec<Offer>,
}

/// A pixel format at one size, or at all sizes between two. Those are never written out: there may be millions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its four characters.
    pub format: String,
    /// Width and height of the smallest picture.
    pub least: [u32; 2],
    /// Of the largest.
    pub most: [u32; 2],
    /// Pixels from one width and one height to the next. Some drivers say 0.
    pub step: [u32; 2],
}

impl Offer {
    fn new(format: &str, size: &FrameSizeEnum) -> Offer {
        let (least, most, step) = match size {
            FrameSizeEnum::Discrete(one) => {
                let size = [one.width, one.height];
                (size, size, [0, 0])
            }
            FrameSizeEnum::Stepwise(many) => (
                [many.min_width, many.min_height],
                [many.max_width, many.max_height],
                [many.step_width, many.step_height],
            ),
        };
        Offer {
            format: format.to_owned(),
            least,
            most,
            step,
        }
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [width, height] = self.least;
        write!(f, "{} {width}x{height}", self.format)?;
        if self.least == self.most {
            return Ok(());
        }
        let [width, height] = self.most;
        write!(f, " to {width}x{height}")?;
        match self.step {
            [1, 1] => Ok(()),
            [0, _] | [_, 0] => f.write_str(" in steps that its driver does not say"),
            [width, height] => write!(f, " in steps of {width}x{height}"),
        }
    }
}

/// Capture devices under `root` (`/dev`): nodes `video*` that can stream, with the stable paths that lead to them. Why one
/// cannot be opened is logged.
#[must_use]
pub fn discover(root: &Path) -> Vec<Found> {
    let mut nodes: Vec<PathBuf> = listing(root)
        .into_iter()
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.strip_prefix("video"))
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        })
        .collect();
    nodes.sort();
    let links: Vec<PathBuf> = ["v4l/by-id", "v4l/by-path", "tendon"]
        .iter()
        .flat_map(|folder| listing(&root.join(folder)))
        .collect();
    let found = nodes
        .into_iter()
        .filter_map(|node| describe(node, &links).ok());
    found.flatten().collect()
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

fn describe(node: PathBuf, links: &[PathBuf]) -> io::Result<Option<Found>> {
    let device = Device::with_path(&node).inspect_err(|error| {
        let found = why(&node, error);
        log::warn!(
            "{}: expected a device that opens, found {found}",
            node.display()
        );
    })?;
    let caps = device.query_caps()?;
    let mut modes = Vec::new();
    for format in device.enum_formats()? {
        let name = format.fourcc.to_string();
        let sizes = device.enum_framesizes(format.fourcc).unwrap_or_default();
        modes.extend(sizes.iter().map(|size| Offer::new(&name, &size.size)));
    }
    // The second node of a UVC camera gives no pictures and has no formats.
    if modes.is_empty() {
        return Ok(None);
    }
    let real = node.canonicalize()?;
    let leads = |link: &&PathBuf| link.canonicalize().is_ok_and(|to| to == real);
    Ok(Some(Found {
        stable: links.iter().filter(leads).cloned().collect(),
        device: node,
        card: caps.card,
        bus: caps.bus,
        modes,
    }))
}
