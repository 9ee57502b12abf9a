// SPDX-License-Identifier: Apache-2.0
//! Runs a resize: columns first, then rows, with the rounding of the library that the policy was trained with.
//!
//! Sums are 32-bit floats. Where the library works in fixed point a result may differ by one of 255 at an exact half.
//!
//! One pass over the picture: a row is shrunk when an output first needs it, and forgotten after the last. What stands in
//! the inner loops is laid out so that a compiler makes vectors of it on any processor: every column has as many taps
//! (those of weight zero add nothing), and four floats are summed a pixel.

use crate::policy::picture::kernel::{Axis, Filter, Library};

/// Colour channels.
pub(crate) const CHANNELS: usize = 3;

/// Taps that are summed in one piece where there are many.
const BLOCK: usize = 4;
/// Up to so many taps there is code for exactly that many.
const FEW: usize = 8;

/// A resize of RGB pictures of one size to one other. Made once; running it allocates nothing.
#[derive(Clone, Debug)]
pub struct Resample {
    input: [usize; 2],
    columns: Even,
    rows: Axis,
    /// To bytes between the passes.
    rounds_between: bool,
    /// To bytes at the end.
    rounds_after: bool,
    /// `[in_width][3]` of one row, and one number more.
    wide: Vec<f32>,
    /// `[kept][out_width][3]`: shrunk rows, row r at r modulo `kept`.
    ring: Vec<f32>,
    kept: usize,
    /// `[out_width][3]`.
    sums: Vec<f32>,
}

/// Taps of the columns, as many for each.
#[derive(Clone, Debug)]
struct Even {
    taps: usize,
    /// First input of each output.
    starts: Vec<usize>,
    /// `[outputs][taps]`.
    weights: Vec<f32>,
}

impl Even {
    fn of(axis: &Axis, input: usize) -> Even {
        let most = axis
            .taps()
            .map(|(_, weights)| weights.len())
            .max()
            .unwrap_or(0);
        let taps = if most > FEW {
            most.next_multiple_of(BLOCK).min(input)
        } else {
            most
        };
        let mut even = Even {
            taps,
            starts: Vec::with_capacity(axis.len()),
            weights: Vec::with_capacity(axis.len() * taps),
        };
        for (start, weights) in axis.taps() {
            let from = start.min(input.saturating_sub(taps));
            let before = start - from;
            let after = taps.saturating_sub(before + weights.len());
            even.starts.push(from);
            even.weights.extend(core::iter::repeat_n(0.0, before));
            even.weights.extend(weights);
            even.weights.extend(core::iter::repeat_n(0.0, after));
        }
        even
    }

    /// One row of floats, and one number more than it has.
    fn shrink(&self, wide: &[f32], out: &mut [f32]) {
        match self.taps {
            1 => self.shrink_by::<1>(wide, out),
            2 => self.shrink_by::<2>(wide, out),
            3 => self.shrink_by::<3>(wide, out),
            4 => self.shrink_by::<4>(wide, out),
            5 => self.shrink_by::<5>(wide, out),
            6 => self.shrink_by::<6>(wide, out),
            7 => self.shrink_by::<7>(wide, out),
            FEW => self.shrink_by::<FEW>(wide, out),
            _ => self.shrink_in_blocks(wide, out),
        }
    }

    /// Four numbers a pixel are summed, of which the fourth is the next pixel's red and is thrown away: processors like
    /// four.
    fn shrink_by<const TAPS: usize>(&self, wide: &[f32], out: &mut [f32]) {
        let (weights, _) = self.weights.as_chunks::<TAPS>();
        let (pixels, _) = out.as_chunks_mut::<CHANNELS>();
        for ((start, weights), pixel) in self.starts.iter().zip(weights).zip(pixels) {
            let first = start * CHANNELS;
            let Some(from) = wide.get(first..first + TAPS * CHANNELS + 1) else {
                return;
            };
            let mut sum = [0.0_f32; 4];
            for (tap, weight) in weights.iter().enumerate() {
                for (sum, value) in sum
                    .iter_mut()
                    .zip(&from[tap * CHANNELS..tap * CHANNELS + 4])
                {
                    *sum += weight * value;
                }
            }
            *pixel = [sum[0], sum[1], sum[2]];
        }
    }

    fn shrink_in_blocks(&self, wide: &[f32], out: &mut [f32]) {
        const STEP: usize = BLOCK * CHANNELS;
        let (pixels, _) = out.as_chunks_mut::<CHANNELS>();
        let all = self.weights.chunks_exact(self.taps.max(1));
        for ((start, weights), pixel) in self.starts.iter().zip(all).zip(pixels) {
            let from = wide.get(start * CHANNELS..).unwrap_or_default();
            let (blocks, rest) = weights.as_chunks::<BLOCK>();
            let mut sum = [0.0_f32; 4];
            for (weights, from) in blocks.iter().zip(from.windows(STEP + 1).step_by(STEP)) {
                let Ok(from) = <&[f32; STEP + 1]>::try_from(from) else {
                    return;
                };
                for (tap, weight) in weights.iter().enumerate() {
                    for (lane, sum) in sum.iter_mut().enumerate() {
                        *sum += weight * from[tap * CHANNELS + lane];
                    }
                }
            }
            let from = from.get(blocks.len() * STEP..).unwrap_or_default();
            for (weight, values) in rest.iter().zip(from.windows(4).step_by(CHANNELS)) {
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
            *pixel = [sum[0], sum[1], sum[2]];
        }
    }
}

impl Resample {
    /// From `input` to `output`, both width and height; `None` if the library has no such kernel. `bytes` says that the
    /// library was given bytes and gave bytes back.
    #[must_use]
    pub fn new(
        library: Library,
        filter: Filter,
        input: [usize; 2],
        output: [usize; 2],
        bytes: bool,
    ) -> Option<Resample> {
        let columns = Axis::new(library, filter, input[0], output[0])?;
        let rows = Axis::new(library, filter, input[1], output[1])?;
        let rounds_between = bytes && matches!(library, Library::Pillow | Library::TorchAntialias);
        Some(Resample::of(input, columns, rows, rounds_between, bytes))
    }

    /// The centre of the picture, a part `area` of it, stretched to `output`: `tf.image.crop_and_resize` as OpenVLA and
    /// Octo call it after training with random crops of that area.
    #[must_use]
    pub fn centre_area(input: [usize; 2], area: f64, output: [usize; 2]) -> Option<Resample> {
        if !(area > 0.0 && area <= 1.0) || input.contains(&0) || output.contains(&0) {
            return None;
        }
        let side = area.sqrt();
        let axis = |input: usize, output: usize| {
            let last = input as f64 - 1.0;
            Axis::between(
                input,
                (1.0 - side) / 2.0 * last,
                (1.0 + side) / 2.0 * last,
                output,
            )
        };
        let columns = axis(input[0], output[0]);
        let rows = axis(input[1], output[1]);
        Some(Resample::of(input, columns, rows, false, true))
    }

    fn of(
        input: [usize; 2],
        columns: Axis,
        rows: Axis,
        rounds_between: bool,
        rounds_after: bool,
    ) -> Resample {
        let width = columns.len() * CHANNELS;
        // From the first row that an output needs to the last that one before it did.
        let mut last = 0;
        let mut kept = 1;
        for (start, weights) in rows.taps() {
            last = last.max(start + weights.len());
            kept = kept.max(last - start.min(last));
        }
        Resample {
            wide: vec![0.0; input[0] * CHANNELS + 1],
            ring: vec![0.0; kept * width],
            kept,
            sums: vec![0.0; width],
            columns: Even::of(&columns, input[0]),
            input,
            rows,
            rounds_between,
            rounds_after,
        }
    }

    /// Width and height of the input.
    #[must_use]
    pub fn input(&self) -> [usize; 2] {
        self.input
    }

    /// Width and height of the output.
    #[must_use]
    pub fn output(&self) -> [usize; 2] {
        [self.columns.starts.len(), self.rows.len()]
    }

    /// Resizes `rgb`, `[height][width][3]` of the input; gives each row of the result to `write` as floats of 0..255,
    /// whole numbers if the library gives bytes. A picture of another size gives nothing.
    pub fn run(&mut self, rgb: &[u8], mut write: impl FnMut(usize, &[f32])) {
        let stride = self.input[0] * CHANNELS;
        let width = self.columns.starts.len() * CHANNELS;
        if rgb.len() != stride * self.input[1] || width == 0 {
            return;
        }
        let mut next = 0;
        for (at, (start, weights)) in self.rows.taps().enumerate() {
            next = next.max(start);
            while next < start + weights.len() {
                let row = rgb.get(next * stride..(next + 1) * stride);
                for (slot, byte) in self.wide.iter_mut().zip(row.unwrap_or_default()) {
                    *slot = f32::from(*byte);
                }
                let place = next % self.kept * width;
                let out = self.ring.get_mut(place..place + width).unwrap_or_default();
                self.columns.shrink(&self.wide, out);
                if self.rounds_between {
                    to_bytes(out);
                }
                next += 1;
            }
            self.sums.fill(0.0);
            for (tap, weight) in weights.iter().enumerate() {
                let place = (start + tap) % self.kept * width;
                let row = self.ring.get(place..place + width).unwrap_or_default();
                for (sum, value) in self.sums.iter_mut().zip(row) {
                    *sum += weight * value;
                }
            }
            if self.rounds_after {
                to_bytes(&mut self.sums);
            }
            write(at, &self.sums);
        }
    }
}

/// Nearest whole number of 0..=255, halves upwards. In floats all along: a cast to a byte and back is done one by one.
#[allow(clippy::manual_clamp)] // Which is no byte where the value is no number.
fn to_bytes(values: &mut [f32]) {
    /// A number below 2^22 that this is added to has no room for a fraction and is rounded.
    const WHOLE: f32 = 12_582_912.0;
    for value in values {
        let up = value.clamp(0.0, 255.0) + 0.5;
        let near = (up + WHOLE) - WHOLE;
        *value = if near > up { near - 1.0 } else { near };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a cast does it, which truncates and saturates.
    #[test]
    fn numbers_become_the_bytes_that_a_cast_gives() {
        let mut dice = 1_u32;
        let odd = [
            -1e9, -0.5, -0.0, 0.4999, 0.5, 1.5, 2.5, 254.5, 255.4, 255.5, 1e9,
        ];
        let more = (0..100_000).map(|at| {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match at % 2 {
                0 => (dice >> 8) as f32 / (1 << 16) as f32,
                _ => (dice >> 23) as f32 * 0.5,
            }
        });
        for value in odd.into_iter().chain(more) {
            let mut found = [value];
            to_bytes(&mut found);
            assert_eq!(found[0], f32::from((value + 0.5) as u8), "{value}");
        }
    }

    /// Against sums tap by tap, in the same order: the same bits.
    #[test]
    fn one_pass_gives_what_tap_by_tap_gives() {
        let mut dice = 7_u32;
        let mut byte = || {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (dice >> 24) as u8
        };
        let shapes = [
            ([64, 48], [22, 17]),
            ([20, 15], [40, 30]),
            ([9, 7], [9, 7]),
            ([3, 2], [1, 1]),
        ];
        for (library, filter, bytes) in [
            (Library::Pillow, Filter::Bilinear, true),
            (Library::Pillow, Filter::Bicubic, true),
            (Library::Pillow, Filter::Lanczos3, true),
            (Library::Tensorflow, Filter::Lanczos3, true),
            (Library::Torch, Filter::Bilinear, false),
            (Library::Opencv, Filter::Bicubic, true),
        ] {
            for (from, to) in shapes {
                let rgb: Vec<u8> = (0..from[0] * from[1] * CHANNELS).map(|_| byte()).collect();
                let mut found = Vec::new();
                let mut resample =
                    Resample::new(library, filter, from, to, bytes).expect("a kernel");
                resample.run(&rgb, |_, row| found.extend_from_slice(row));
                assert_eq!(
                    found,
                    tap_by_tap(library, filter, from, to, bytes, &rgb),
                    "{library:?} {filter:?} {from:?}"
                );
            }
        }
    }

    fn tap_by_tap(
        library: Library,
        filter: Filter,
        from: [usize; 2],
        to: [usize; 2],
        bytes: bool,
        rgb: &[u8],
    ) -> Vec<f32> {
        let round = |value: f32| f32::from((value + 0.5) as u8);
        let between = bytes && matches!(library, Library::Pillow | Library::TorchAntialias);
        let columns = Axis::new(library, filter, from[0], to[0]).expect("a kernel");
        let rows = Axis::new(library, filter, from[1], to[1]).expect("a kernel");
        let mut middle = Vec::new();
        for row in rgb.chunks_exact(from[0] * CHANNELS) {
            for (start, weights) in columns.taps() {
                for colour in 0..CHANNELS {
                    let terms = weights.iter().enumerate().map(|(tap, weight)| {
                        weight * f32::from(row[(start + tap) * CHANNELS + colour])
                    });
                    let sum = terms.fold(0.0, |sum, term| sum + term);
                    middle.push(if between { round(sum) } else { sum });
                }
            }
        }
        let width = to[0] * CHANNELS;
        let mut out = Vec::new();
        for (start, weights) in rows.taps() {
            for at in 0..width {
                let terms = weights
                    .iter()
                    .enumerate()
                    .map(|(tap, weight)| weight * middle[(start + tap) * width + at]);
                let sum = terms.fold(0.0, |sum, term| sum + term);
                out.push(if bytes { round(sum) } else { sum });
            }
        }
        out
    }
}
