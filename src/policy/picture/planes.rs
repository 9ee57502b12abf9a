// SPDX-License-Identifier: Apache-2.0
//! A picture's last step: normalised, its axes and channels in the graph's order.

use crate::policy::lanes;
use crate::policy::picture::resample::CHANNELS;
use crate::policy::picture::{Axes, Colour, Feed};

impl Feed {
    pub(super) fn spread(&self, tensor: &mut [f32]) {
        let channel = |at: usize| match self.colour {
            Colour::Rgb => at,
            Colour::Bgr => CHANNELS - 1 - at,
        };
        match self.layout {
            Axes::Nchw => {
                let sets = tensor.chunks_exact_mut(self.last.len().max(1));
                for (values, levels) in sets.zip(&self.levels) {
                    let mut mixed = *levels;
                    if self.colour == Colour::Bgr {
                        mixed.reverse();
                    }
                    lanes::wide(Planes {
                        last: &self.last,
                        levels: mixed,
                        blue_first: self.colour == Colour::Bgr,
                        tensor: values,
                    });
                }
            }
            Axes::Nhwc => {
                let width = CHANNELS * self.levels.len();
                for (out, pixel) in tensor
                    .chunks_exact_mut(width)
                    .zip(self.last.chunks_exact(CHANNELS))
                {
                    let all = self
                        .levels
                        .iter()
                        .flat_map(|levels| levels.iter().enumerate());
                    for (value, (at, [mul, add])) in out.iter_mut().zip(all) {
                        *value = pixel.get(channel(at)).copied().unwrap_or(0.0) * mul + add;
                    }
                }
            }
        }
    }
}

/// A picture into three planes, each pixel read once.
struct Planes<'a> {
    last: &'a [f32],
    /// Of red, green and blue, in this order.
    levels: [[f32; 2]; CHANNELS],
    blue_first: bool,
    tensor: &'a mut [f32],
}

impl lanes::Work for Planes<'_> {
    #[inline(always)]
    fn run(self) {
        let plane = self.tensor.len() / CHANNELS;
        let (first, rest) = self.tensor.split_at_mut(plane);
        let (second, third) = rest.split_at_mut(plane);
        let (red, blue) = if self.blue_first {
            (third, first)
        } else {
            (first, third)
        };
        let [r, g, b] = self.levels;
        let (pixels, _) = self.last.as_chunks::<CHANNELS>();
        let planes = red.iter_mut().zip(second).zip(blue);
        for (((red, green), blue), pixel) in planes.zip(pixels) {
            *red = pixel[0] * r[0] + r[1];
            *green = pixel[1] * g[0] + g[1];
            *blue = pixel[2] * b[0] + b[1];
        }
    }
}
