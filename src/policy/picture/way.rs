// SPDX-License-Identifier: Apache-2.0
//! A feed's steps folded into one [`PictureWay`]: turns and crops before the resize are another walk through the same bytes,
//! crops after it another place in the result.

use crate::policy::picture::resample::CHANNELS;
use crate::policy::picture::step::{Place, Step};
use crate::policy::picture::{Axes, Colour, Feed};
use crate::ports::{PictureWay, Taps};

/// Every pixel as it is.
fn identity(side: usize) -> Taps {
    Taps {
        count: 1,
        starts: (0..side).collect(),
        weights: vec![1.0; side],
    }
}

/// By how much `place` lies further, in pixels.
fn moved(shift: [isize; 2], place: &Place, sign: isize) -> [isize; 2] {
    [
        shift[0] + sign * place.left as isize,
        shift[1] + sign * place.top as isize,
    ]
}

impl Feed {
    /// The whole way as tables; `None` if it is not one resize with turns and crops around it, as where two resizes follow one
    /// another.
    #[must_use]
    pub fn way(&self) -> Option<PictureWay> {
        let pixel = CHANNELS as isize;
        let row = self.source[0] as isize * pixel;
        // Before the resize the walk is moved, after it the place.
        let (mut origin, mut steps, mut size) = (0_isize, [pixel, row], self.source);
        let mut resized: Option<([Taps; 2], [bool; 2])> = None;
        let (mut shift, mut pad) = ([0, 0], 0.0);
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Rotate if resized.is_none() => {
                    origin += (size[0] as isize - 1) * steps[0] + (size[1] as isize - 1) * steps[1];
                    steps = steps.map(|step| -step);
                }
                Step::Crop { at, size: to, .. } => {
                    if resized.is_none() {
                        origin += at.left as isize * steps[0] + at.top as isize * steps[1];
                    } else {
                        shift = moved(shift, at, 1);
                    }
                    size = *to;
                }
                Step::Resize {
                    resample,
                    at,
                    size: to,
                    pad: fill,
                    skip,
                } if resized.is_none() => {
                    resized = Some(resample.tables());
                    shift = moved(moved(shift, skip, 1), at, -1);
                    // Steps before the last give bytes.
                    pad = if index + 1 < self.steps.len() {
                        f32::from(*fill as u8)
                    } else {
                        *fill
                    };
                    size = *to;
                }
                Step::Rotate | Step::Resize { .. } => return None,
            }
        }
        let as_it_is = || (size.map(identity), [false, false]);
        let ([columns, rows], rounds) = resized.unwrap_or_else(as_it_is);
        Some(PictureWay {
            source: self.source,
            origin: usize::try_from(origin).ok()?,
            steps,
            columns,
            rows,
            rounds,
            size,
            shift,
            pad,
            levels: self.levels.clone(),
            channels_last: self.layout == Axes::Nhwc,
            blue_first: self.colour == Colour::Bgr,
            whole: None,
        })
    }
}
