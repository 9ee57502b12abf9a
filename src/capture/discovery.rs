// SPDX-License-Identifier: Apache-2.0
//! Kernel cameras that are plugged in, the paths that lead to them, and what they offer: for people, who write a configuration.
//!
//! Not responsible for opening one to take pictures (`v4l`).

use super::mapped::{self, Identity, Sizes};
use super::v4l::why;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use v4l::Device;

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
    fn new(format: &str, sizes: Sizes) -> Offer {
        Offer {
            format: format.to_owned(),
            least: sizes.least,
            most: sizes.most,
            step: sizes.step,
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
/// cannot be opened, or does not say what it is, is logged.
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
    let found = nodes.iter().filter_map(|node| {
        let described = describe(node, &links).inspect_err(|error| {
            log::warn!(
                "{}: expected a device that opens and says what it is, found {}",
                node.display(),
                why(node, error)
            );
        });
        described.ok().flatten()
    });
    found.collect()
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect()
}

fn describe(node: &Path, links: &[PathBuf]) -> io::Result<Option<Found>> {
    let device = Device::with_path(node)?;
    let Identity { card, bus } = mapped::identity(&device)?;
    let mut modes = Vec::new();
    for fourcc in mapped::formats(&device)? {
        let name = String::from_utf8_lossy(&fourcc).into_owned();
        let sizes = mapped::sizes(&device, fourcc).unwrap_or_default();
        modes.extend(sizes.into_iter().map(|sizes| Offer::new(&name, sizes)));
    }
    // The second node of a UVC camera gives no pictures and has no formats.
    if modes.is_empty() {
        return Ok(None);
    }
    let real = node.canonicalize()?;
    let leads = |link: &&PathBuf| link.canonicalize().is_ok_and(|to| to == real);
    Ok(Some(Found {
        stable: links.iter().filter(leads).cloned().collect(),
        device: node.to_owned(),
        card,
        bus,
        modes,
    }))
}
