// SPDX-License-Identifier: Apache-2.0
//! One step of a picture's way, worked out: a turn, a crop, or a resize to a place in another picture. Any but the last gives
//! bytes.

use crate::policy::picture::Fit;
use crate::policy::picture::kernel::{Filter, Library};
use crate::policy::picture::resample::{CHANNELS, Resample};

/// Where a picture of one size is put into another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    pub(super) left: usize,
    pub(super) top: usize,
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // A handful of them, made once.
pub(super) enum Step {
    Rotate,
    Crop {
        from: [usize; 2],
        at: Place,
        size: [usize; 2],
    },
    Resize {
        resample: Box<Resample>,
        at: Place,
        size: [usize; 2],
        pad: f32,
        /// Where the resized picture is read from, for [`Fit::Cover`] and for a crop after a resize in floats.
        skip: Place,
    },
}

pub(super) fn is_in_floats(step: &Step) -> bool {
    matches!(step, Step::Resize { resample, .. } if !resample.gives_bytes())
}

/// Where the middle begins when so much is over: torchvision rounds a half to the even neighbour.
pub(super) fn middle(over: usize) -> usize {
    (over as f64 / 2.0).round_ties_even() as usize
}

/// A crop of what a resize gives in floats: the resize itself leaves out what the crop would, as only bytes go from step to step.
pub(super) fn cut(resize: Step, by: Place, to: [usize; 2]) -> Step {
    match resize {
        Step::Resize {
            resample,
            at,
            pad,
            skip,
            ..
        } => Step::Resize {
            resample,
            at: Place {
                left: at.left.saturating_sub(by.left),
                top: at.top.saturating_sub(by.top),
            },
            size: to,
            pad,
            skip: Place {
                left: skip.left + by.left.saturating_sub(at.left),
                top: skip.top + by.top.saturating_sub(at.top),
            },
        },
        other => other,
    }
}

pub(super) fn whole(resample: Resample, size: [usize; 2]) -> Step {
    Step::Resize {
        resample: Box::new(resample),
        at: Place { left: 0, top: 0 },
        size,
        pad: 0.0,
        skip: Place { left: 0, top: 0 },
    }
}

pub(super) fn fitted(
    from: [usize; 2],
    to: [usize; 2],
    fit: Fit,
    filter: Filter,
    library: Library,
    bytes: bool,
    pad: f32,
) -> Option<Step> {
    let ratio = |pick: fn(f64, f64) -> f64| {
        pick(from[0] as f64 / to[0] as f64, from[1] as f64 / to[1] as f64)
    };
    // Truncated, as Python's int() in openpi's and LeRobot's resize_with_pad and torchvision's resize.
    let scaled = |ratio: f64| from.map(|side| ((side as f64 / ratio) as usize).max(1));
    let inner = match fit {
        Fit::Stretch => to,
        Fit::PadCenter | Fit::PadLeftTop => scaled(ratio(f64::max)).map(|side| side),
        Fit::Cover => scaled(ratio(f64::min)),
    };
    let resample = Resample::new(library, filter, from, inner, bytes)?;
    let rest = [
        to[0].saturating_sub(inner[0]),
        to[1].saturating_sub(inner[1]),
    ];
    let over = [
        inner[0].saturating_sub(to[0]),
        inner[1].saturating_sub(to[1]),
    ];
    Some(Step::Resize {
        resample: Box::new(resample),
        at: match fit {
            Fit::PadLeftTop => Place {
                left: rest[0],
                top: rest[1],
            },
            Fit::Stretch | Fit::PadCenter | Fit::Cover => Place {
                left: rest[0] / 2,
                top: rest[1] / 2,
            },
        },
        size: to,
        pad,
        skip: Place {
            left: middle(over[0]),
            top: middle(over[1]),
        },
    })
}

/// Any step but the last gives bytes.
pub(super) fn run_step(step: &mut Step, input: &[u8], out: &mut Vec<u8>) {
    out.clear();
    match step {
        Step::Rotate => out.extend(input.chunks_exact(CHANNELS).rev().flatten()),
        Step::Crop { from, at, size } => {
            for row in cropped(input, *from, *at, *size) {
                out.extend_from_slice(row);
            }
        }
        Step::Resize {
            resample,
            at,
            size,
            pad,
            skip,
        } => {
            out.resize(size[0] * size[1] * CHANNELS, *pad as u8);
            resize_into(resample, input, *at, *skip, *size, |place, row| {
                for (slot, value) in out.iter_mut().skip(place).zip(row) {
                    *slot = *value as u8;
                }
            });
        }
    }
}

pub(super) fn run_last(step: &mut Step, input: &[u8], out: &mut [f32]) {
    match step {
        Step::Rotate => {
            for (slot, pixel) in out
                .chunks_exact_mut(CHANNELS)
                .zip(input.chunks_exact(CHANNELS).rev())
            {
                for (slot, byte) in slot.iter_mut().zip(pixel) {
                    *slot = f32::from(*byte);
                }
            }
        }
        Step::Crop { from, at, size } => {
            let rows = cropped(input, *from, *at, *size).flatten();
            for (slot, byte) in out.iter_mut().zip(rows) {
                *slot = f32::from(*byte);
            }
        }
        Step::Resize {
            resample,
            at,
            size,
            pad,
            skip,
        } => {
            let corner = Place { left: 0, top: 0 };
            if resample.output() != *size || *at != corner || *skip != corner {
                out.fill(*pad);
            }
            resize_into(resample, input, *at, *skip, *size, |place, row| {
                let to = out.get_mut(place..).unwrap_or_default();
                for (slot, value) in to.iter_mut().zip(row) {
                    *slot = *value;
                }
            });
        }
    }
}

/// Gives `write` the place in a picture of `size` and the numbers of each row that falls into it.
fn resize_into(
    resample: &mut Resample,
    input: &[u8],
    at: Place,
    skip: Place,
    size: [usize; 2],
    mut write: impl FnMut(usize, &[f32]),
) {
    let width = (size[0] - at.left.min(size[0])) * CHANNELS;
    resample.run(input, |row, values| {
        let Some(row) = row.checked_sub(skip.top).map(|row| row + at.top) else {
            return;
        };
        let values = values.get(skip.left * CHANNELS..).unwrap_or_default();
        if row < size[1] {
            let part = values.get(..width).unwrap_or(values);
            write((row * size[0] + at.left) * CHANNELS, part);
        }
    });
}

fn cropped(
    input: &[u8],
    from: [usize; 2],
    at: Place,
    size: [usize; 2],
) -> impl Iterator<Item = &[u8]> {
    input
        .chunks_exact((from[0] * CHANNELS).max(1))
        .skip(at.top)
        .take(size[1])
        .filter_map(move |row| row.get(at.left * CHANNELS..(at.left + size[0]) * CHANNELS))
}
