// SPDX-License-Identifier: Apache-2.0
//! Runs a resize: columns first, then rows, with the rounding of the library that the policy was trained with.
//!
//! Sums are 32-bit floats. Where the library works in fixed point a result may differ by one of 255 at an exact half.

use crate::policy::picture::kernel::{Axis, Filter, Library};

/// Colour channels.
pub(crate) const CHANNELS: usize = 3;

/// A resize of RGB pictures of one size to one other. Made once; running it allocates nothing.
#[derive(Clone, Debug)]
pub struct Resample {
    input: [usize; 2],
    columns: Axis,
    rows: Axis,
    /// To bytes between the passes.
    rounds_between: bool,
    /// To bytes at the end.
    rounds_after: bool,
    /// `[in_height][out_width][3]`.
    middle: Vec<f32>,
    /// `[out_width][3]`.
    sums: Vec<f32>,
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
        Resample {
            middle: vec![0.0; input[1] * width],
            sums: vec![0.0; width],
            input,
            columns,
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
        [self.columns.len(), self.rows.len()]
    }

    /// Resizes `rgb`, `[height][width][3]` of the input; gives each row of the result to `write` as floats of 0..255,
    /// whole numbers if the library gives bytes. A picture of another size gives nothing.
    pub fn run(&mut self, rgb: &[u8], mut write: impl FnMut(usize, &[f32])) {
        let stride = self.input[0] * CHANNELS;
        let width = self.columns.len() * CHANNELS;
        if rgb.len() != stride * self.input[1] || width == 0 {
            return;
        }
        for (row, out) in rgb
            .chunks_exact(stride)
            .zip(self.middle.chunks_exact_mut(width))
        {
            shrink_row(&self.columns, row, out);
            if self.rounds_between {
                to_bytes(out);
            }
        }
        for (at, (start, weights)) in self.rows.taps().enumerate() {
            self.sums.fill(0.0);
            let rows = self.middle.chunks_exact(width).skip(start);
            for (weight, row) in weights.iter().zip(rows) {
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

/// One row by the taps of the columns. Four numbers a pixel are summed, of which the fourth is the next pixel's red and
/// is thrown away: processors like four.
fn shrink_row(columns: &Axis, row: &[u8], out: &mut [f32]) {
    for ((start, weights), pixel) in columns.taps().zip(out.chunks_exact_mut(CHANNELS)) {
        let from = row.get(start * CHANNELS..).unwrap_or_default();
        let mut sum = [0.0_f32; 4];
        // Of the last pixel of a row there is no fourth byte.
        let whole = weights.len().min(from.len().saturating_sub(1) / CHANNELS);
        let (body, tail) = weights.split_at(whole);
        for (weight, rgbx) in body.iter().zip(from.windows(4).step_by(CHANNELS)) {
            for (sum, byte) in sum.iter_mut().zip(rgbx) {
                *sum += weight * f32::from(*byte);
            }
        }
        let last = from.get(whole * CHANNELS..).unwrap_or_default();
        for (weight, rgb) in tail.iter().zip(last.chunks_exact(CHANNELS)) {
            for (sum, byte) in sum.iter_mut().zip(rgb) {
                *sum += weight * f32::from(*byte);
            }
        }
        for (slot, sum) in pixel.iter_mut().zip(sum) {
            *slot = sum;
        }
    }
}

/// Nearest whole number of 0..=255, halves upwards.
fn to_bytes(values: &mut [f32]) {
    for value in values {
        // The cast truncates and saturates; of a number not below 0 that is the floor.
        *value = f32::from((*value + 0.5) as u8);
    }
}
