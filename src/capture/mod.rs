// SPDX-License-Identifier: Apache-2.0
//! Cameras: everything that can stand behind [`Source`], opened from one description.
//!
//! Responsible for: waiting for a picture until a deadline, its capture time on this machine's clock, its number, and
//! 8-bit RGB in the caller's buffer. A camera that goes is looked for again, at each call, with a pause that grows.
//!
//! Not responsible for: whether the picture is to be believed ([`crate::core::camera`]), what the policy's training
//! fixed (size, normalisation), and cameras that are reached over the link (`link`).
//!
//! [`decode`] pixels as cameras send them -> RGB, [`colours`] how YUV is meant, `huffman` the tables that a JPEG may leave out;
//! [`images`] a folder, a file or a recording of JPEG pictures, in real time, [`tape`] makes such a recording; `v4l` USB and other
//! kernel cameras, `agree` the mode in which one streams, `controls` what it is kept at, `stamps` whether its times are of our clock,
//! `mapped` what they are asked, and their buffers, `discovery` which are plugged in, `offered` their rates and controls, `listing` all
//! of that for people (feature `v4l`); `gstreamer`
//! whatever a pipeline gives, `came` what its sink drops, `raw` its pixels, `nvmm` where a Jetson keeps it (feature `gstreamer`);
//! [`retry`] when to look again for one that is gone, [`said`] what was told of it, [`redact`] what no log may hold.

#[cfg(feature = "v4l")]
mod agree;
#[cfg(feature = "gstreamer")]
mod came;
pub mod colours;
#[cfg(feature = "v4l")]
mod controls;
pub mod decode;
#[cfg(feature = "v4l")]
pub mod discovery;
#[cfg(feature = "gstreamer")]
pub mod gstreamer;
mod huffman;
pub mod images;
#[cfg(feature = "v4l")]
pub mod listing;
#[cfg(feature = "v4l")]
mod mapped;
#[cfg(feature = "gstreamer")]
pub mod nvmm;
#[cfg(feature = "v4l")]
pub mod offered;
#[cfg(feature = "gstreamer")]
mod raw;
pub mod redact;
pub mod retry;
pub mod said;
#[cfg(feature = "v4l")]
mod stamps;
pub mod tape;
#[cfg(feature = "v4l")]
pub mod v4l;

use crate::core::units::Mono;
use crate::ports::Source;
use std::path::PathBuf;

/// The clock, handed in: this room reads none.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Now, `CLOCK_MONOTONIC`.
    pub now: fn() -> Mono,
    /// Sleep until.
    pub sleep_until: fn(Mono),
    /// When the replay of a recording began: the same for all its cameras.
    pub replay: fn() -> Mono,
}

/// Where a camera's pictures come from.
#[derive(Clone, PartialEq, Eq)]
pub enum Kind {
    /// JPEG pictures: a folder of them, or a file that holds one after the other. They come at the camera's rate, or with the
    /// gaps that they had when they were recorded, again and again.
    Images(PathBuf),
    /// A kernel camera, by a path that does not change: `/dev/v4l/by-path/...`, `/dev/v4l/by-id/...`.
    V4l(v4l_mode::Mode),
    /// A GStreamer pipeline that ends where the pictures are to be taken.
    Gstreamer(String),
}

/// Without the password that a pipeline may hold.
impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Images(path) => f.debug_tuple("Images").field(path).finish(),
            Kind::V4l(mode) => f.debug_tuple("V4l").field(mode).finish(),
            Kind::Gstreamer(words) => {
                let words = redact::redacted(words);
                f.debug_tuple("Gstreamer").field(&words).finish()
            }
        }
    }
}

/// What is asked of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where from.
    pub kind: Kind,
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Time between two pictures.
    pub period_ns: u64,
}

/// A camera cannot be opened, and trying again would not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenFault {
    /// This build has no such cameras.
    #[error(
        "camera source \"{source_name}\": expected a build with it, found one without; build with --features {feature}, or, with the package that has cameras, name its program: inference_program = \"/usr/lib/tendon/tendon-inference\" and isolation = \"process\" in tendon.toml"
    )]
    NotBuilt {
        /// As written in tendon.toml.
        source_name: &'static str,
        /// What to build with.
        feature: &'static str,
    },
    /// Anything else, in words.
    #[error("{at}: expected {expected}, found {found}")]
    Wrong {
        /// Device, file or pipeline.
        at: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
}

/// Opens a camera. A kernel camera or a pipeline that is not there yet is looked for at each call of the source.
///
/// # Errors
/// [`OpenFault`] for what no waiting can mend.
pub fn open(asked: &Asked, clock: Clock) -> Result<Box<dyn Source>, OpenFault> {
    match &asked.kind {
        Kind::Images(path) => Ok(Box::new(images::Images::open(path, asked, clock)?)),
        #[cfg(feature = "v4l")]
        Kind::V4l(mode) => Ok(Box::new(v4l::Camera::new(mode.clone(), asked, clock)?)),
        #[cfg(not(feature = "v4l"))]
        Kind::V4l(_) => Err(OpenFault::NotBuilt {
            source_name: "v4l",
            feature: "v4l",
        }),
        #[cfg(feature = "gstreamer")]
        Kind::Gstreamer(pipeline) => Ok(Box::new(gstreamer::Camera::new(pipeline, asked, clock)?)),
        #[cfg(not(feature = "gstreamer"))]
        Kind::Gstreamer(_) => Err(OpenFault::NotBuilt {
            source_name: "gstreamer",
            feature: "gstreamer",
        }),
    }
}

/// What is asked of a kernel camera; here, so that a build without it reads the same configuration.
pub mod v4l_mode {
    use std::path::PathBuf;

    /// See the module's text.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Mode {
        /// Device node, by a path that does not change when cameras are plugged elsewhere.
        pub device: PathBuf,
        /// Pixel formats in the order of preference; empty: whatever it has, the cheapest to decode first.
        pub formats: Vec<[u8; 4]>,
        /// Controls to be set, by id as the kernel numbers them, and read back: exposure, gain, white balance.
        pub controls: Vec<(u32, i64)>,
    }
}
