// SPDX-License-Identifier: Apache-2.0
//! A camera's picture on its way into a graph, step by step as the family's own code does it.
//!
//! The manifest gives an ordered list of [`PictureOp`]s and how the last picture becomes numbers ([`Levels`], [`Axes`]).
//! Everything is allocated at load; [`Feed::fill`] only computes. Which library's resize is meant is part of the
//! manifest, because Pillow, torch, TensorFlow and OpenCV give other pictures of the same name.

pub mod history;
pub mod kernel;
mod planes;
pub mod resample;
mod step;
mod way;

use crate::config::problem::Problem;
use kernel::{Filter, Library};
use resample::{CHANNELS, Resample};
use schemars::JsonSchema;
use serde::Deserialize;
use step::{Place, Step, cut, fitted, is_in_floats, middle, run_last, run_step, whole};

/// Longest side of a picture in pixels: 4K video, so that a claimed size is refused before it is allocated.
pub const SIDE_PX_MAX: usize = 4_096;

/// What happens to the aspect ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// It is not kept.
    Stretch,
    /// Kept; the rest is filled on both sides alike (openpi, LeRobot's pi0).
    PadCenter,
    /// Kept; the rest is filled at the left and the top (SmolVLA).
    PadLeftTop,
    /// Kept; the shorter side fits and the rest of the longer is cut at both ends (CLIP).
    Cover,
}

/// One step of a picture's way.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "op")]
pub enum PictureOp {
    /// Upside down and left to right (LIBERO).
    Rotate180,
    /// The middle of it, as torchvision's `CenterCrop` finds it.
    CenterCrop {
        /// Pixels.
        width: usize,
        /// Pixels.
        height: usize,
    },
    /// To another size.
    Resize {
        /// Pixels.
        width: usize,
        /// Pixels.
        height: usize,
        /// Aspect ratio.
        fit: Fit,
        /// Kernel.
        filter: Filter,
        /// Whose.
        library: Library,
        /// Whether the library gave bytes (rounded) or floats.
        #[serde(default = "yes")]
        bytes: bool,
        /// What fills the rest, of 0..255; -255 is LeRobot 0.4's -1 on a picture of 0..1.
        #[serde(default)]
        pad: f32,
    },
    /// The middle, a part of the area, stretched (`tf.image.crop_and_resize`).
    CenterArea {
        /// Part of the area, 0.9.
        area: f64,
        /// Pixels.
        width: usize,
        /// Pixels.
        height: usize,
    },
}

fn yes() -> bool {
    true
}

/// How a number of 0..255 becomes the graph's: `(x * scale - mean) / std`, channel by channel.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    /// 1/255 for 0..1; 1 for bytes as they are.
    pub scale: f64,
    /// Of red, green and blue.
    #[serde(default)]
    pub mean: [f64; 3],
    /// Of red, green and blue.
    #[serde(default = "ones")]
    pub std: [f64; 3],
}

fn ones() -> [f64; 3] {
    [1.0; 3]
}

/// Order of the axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Axes {
    /// Channel, row, column.
    #[default]
    Nchw,
    /// Row, column, channel.
    Nhwc,
}

/// Order of the channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Colour {
    /// Red first.
    #[default]
    Rgb,
    /// Blue first.
    Bgr,
}

/// A camera as the manifest has it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CameraFile {
    /// Role, e.g. `front`.
    pub role: String,
    /// Width and height that the camera gives.
    pub source_size: [usize; 2],
    /// What is done to it, in order.
    #[serde(default)]
    pub ops: Vec<PictureOp>,
    /// One or more: OpenVLA stacks two normalisations of one picture on the channels.
    pub levels: Vec<Levels>,
    /// Order of the axes.
    #[serde(default)]
    pub layout: Axes,
    /// Order of the channels.
    #[serde(default)]
    pub color: Colour,
    /// Frames of history, newest last.
    #[serde(default = "one")]
    pub history: usize,
    /// Time between them.
    #[serde(default)]
    pub spacing_ms: f64,
    /// What the tensor holds while the camera is missing; a camera without it is required.
    #[serde(default)]
    pub missing: Option<f32>,
}

fn one() -> usize {
    1
}

/// A camera's way, ready to run. Made once.
#[derive(Clone, Debug)]
pub struct Feed {
    source: [usize; 2],
    size: [usize; 2],
    steps: Vec<Step>,
    levels: Vec<[[f32; 2]; CHANNELS]>,
    layout: Axes,
    colour: Colour,
    /// `[height][width][3]` of the last step, 0..255.
    last: Vec<f32>,
    bytes: Vec<u8>,
    spare: Vec<u8>,
}

impl Feed {
    /// Works the steps out.
    ///
    /// # Errors
    /// Every [`Problem`]: a size of zero or beyond 4096, a crop larger than its picture, a kernel that the library does
    /// not have, floats that another step would have to read, a deviation of zero.
    pub fn new(file: &CameraFile, at: &str) -> Result<Feed, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |what: String, expected: String, found: String| {
            problems.push(Problem {
                at: format!("{at}{what}"),
                expected,
                found,
            });
        };
        let good = |size: [usize; 2]| size.iter().all(|side| (1..=SIDE_PX_MAX).contains(side));
        let sides = format!("sides of 1 to {SIDE_PX_MAX} pixels");
        if !good(file.source_size) {
            wrong(
                ".source_size".into(),
                sides.clone(),
                format!("{:?}", file.source_size),
            );
            return Err(problems);
        }
        let mut size = file.source_size;
        let mut steps = Vec::new();
        for (index, op) in file.ops.iter().enumerate() {
            let here = format!(".ops[{index}]");
            let to = match op {
                PictureOp::Rotate180 => size,
                PictureOp::CenterCrop { width, height }
                | PictureOp::Resize { width, height, .. }
                | PictureOp::CenterArea { width, height, .. } => [*width, *height],
            };
            if !good(to) {
                wrong(here, sides.clone(), format!("{to:?}"));
                return Err(problems);
            }
            let step = match op {
                PictureOp::Rotate180 => Some(Step::Rotate),
                PictureOp::CenterCrop { .. } if to[0] > size[0] || to[1] > size[1] => {
                    wrong(
                        here.clone(),
                        format!("at most the picture's {size:?}"),
                        format!("{to:?}"),
                    );
                    None
                }
                PictureOp::CenterCrop { .. } => {
                    let at = Place {
                        left: middle(size[0] - to[0]),
                        top: middle(size[1] - to[1]),
                    };
                    match steps.pop_if(|step| is_in_floats(step)) {
                        Some(resize) => Some(cut(resize, at, to)),
                        None => Some(Step::Crop {
                            from: size,
                            at,
                            size: to,
                        }),
                    }
                }
                PictureOp::CenterArea { area, .. } => Resample::centre_area(size, *area, to)
                    .map(|resample| whole(resample, to))
                    .or_else(|| {
                        wrong(
                            here.clone(),
                            "an area above 0 and at most 1".into(),
                            area.to_string(),
                        );
                        None
                    }),
                PictureOp::Resize { bytes: false, .. } if !ends(&file.ops, index) => {
                    wrong(
                        here.clone(),
                        "a resize in floats as the last step, or before a last crop".into(),
                        "one before another step".into(),
                    );
                    None
                }
                PictureOp::Resize {
                    fit,
                    filter,
                    library,
                    bytes,
                    pad,
                    ..
                } => fitted(size, to, *fit, *filter, *library, *bytes, *pad).or_else(|| {
                    wrong(
                        here.clone(),
                        format!("a kernel that {library:?} has"),
                        format!("{filter:?}"),
                    );
                    None
                }),
            };
            let Some(step) = step else {
                return Err(problems);
            };
            steps.push(step);
            size = to;
        }
        for (index, levels) in file.levels.iter().enumerate() {
            let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
            let good = finite(&[levels.scale]) && finite(&levels.mean) && finite(&levels.std);
            if !good || levels.scale <= 0.0 || levels.std.iter().any(|std| *std <= 0.0) {
                wrong(
                    format!(".levels[{index}]"),
                    "a scale and deviations above 0 and finite means".into(),
                    format!("{levels:?}"),
                );
            }
        }
        if !(1..=4).contains(&file.levels.len()) {
            wrong(
                ".levels".into(),
                "1 to 4".into(),
                file.levels.len().to_string(),
            );
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Feed {
            source: file.source_size,
            last: vec![0.0; size[0] * size[1] * CHANNELS],
            bytes: Vec::with_capacity(largest(file)),
            spare: Vec::with_capacity(largest(file)),
            size,
            steps,
            levels: file.levels.iter().map(factors).collect(),
            layout: file.layout,
            colour: file.color,
        })
    }

    /// Width and height of the picture that the camera gives.
    #[must_use]
    pub fn source(&self) -> [usize; 2] {
        self.source
    }

    /// Numbers of one frame in the tensor.
    #[must_use]
    pub fn values(&self) -> usize {
        self.last.len() * self.levels.len()
    }

    /// Shape of one frame in the tensor, without the batch.
    #[must_use]
    pub fn shape(&self) -> [usize; 3] {
        let channels = CHANNELS * self.levels.len();
        match self.layout {
            Axes::Nchw => [channels, self.size[1], self.size[0]],
            Axes::Nhwc => [self.size[1], self.size[0], channels],
        }
    }

    /// Writes `rgb`, `[height][width][3]` of the source, into `tensor`. False, and nothing written, if either has another
    /// length. Allocates nothing.
    #[must_use]
    pub fn fill(&mut self, rgb: &[u8], tensor: &mut [f32]) -> bool {
        let expected = self.source[0] * self.source[1] * CHANNELS;
        if rgb.len() != expected || tensor.len() != self.values() {
            return false;
        }
        let count = self.steps.len();
        if count == 0 {
            for (slot, byte) in self.last.iter_mut().zip(rgb) {
                *slot = f32::from(*byte);
            }
        }
        for (index, step) in self.steps.iter_mut().enumerate() {
            let input: &[u8] = if index == 0 { rgb } else { &self.bytes };
            if index + 1 == count {
                run_last(step, input, &mut self.last);
            } else {
                run_step(step, input, &mut self.spare);
                core::mem::swap(&mut self.bytes, &mut self.spare);
            }
        }
        self.spread(tensor);
        true
    }
}

fn factors(levels: &Levels) -> [[f32; 2]; CHANNELS] {
    let mut out = [[0.0; 2]; CHANNELS];
    for (factor, (mean, std)) in out.iter_mut().zip(levels.mean.iter().zip(levels.std)) {
        *factor = [(levels.scale / std) as f32, (-mean / std) as f32];
    }
    out
}

/// Bytes of the largest picture between two steps.
fn largest(file: &CameraFile) -> usize {
    let mut size = file.source_size;
    let mut most = 0;
    for op in &file.ops {
        if let PictureOp::CenterCrop { width, height }
        | PictureOp::Resize { width, height, .. }
        | PictureOp::CenterArea { width, height, .. } = op
        {
            size = [*width, *height];
        }
        most = most.max(size[0] * size[1] * CHANNELS);
    }
    most
}

/// Whether nothing but a crop follows.
fn ends(ops: &[PictureOp], index: usize) -> bool {
    matches!(
        ops.get(index + 1..),
        Some([] | [PictureOp::CenterCrop { .. }])
    )
}
