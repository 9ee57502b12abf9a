// SPDX-License-Identifier: Apache-2.0
//! Runs a resize: columns first, then rows, with the rounding of the library that the policy was trained with.
//!
//! Sums are 32-bit floats. Where the library works in fixed point a result may differ by one of 255 at an exact half.
//!
//! One pass over the picture: a row is shrunk when an output first needs it, and forgotten after the last. What stands in
//! the inner loops is laid out so that a compiler makes vectors of it on any processor: every column has as many taps
//! (those of weight zero add nothing), and four floats are summed a pixel.

use crate::policy::lanes;
use crate::policy::picture::kernel::{Axis, Filter, Library};
use crate::ports::Taps;

/// Colour channels.
pub(crate) const CHANNELS: usize = 3;

/// Up to so many taps a row is shrunk by itself; with more, two rows together.
const FEW: usize = 4;
/// A pixel of two rows, each of them filled up to four.
const PAIR: usize = 8;

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
    /// `[in_width][3]` of two rows, and one number more for each.
    wide: [Vec<f32>; 2],
    /// `[in_width][2][4]`: a pixel of both rows; the fourth number is thrown away. None where there are few taps.
    pairs: Vec<[f32; PAIR]>,
    /// `[kept][out_width * 3 + 1]`: shrunk rows, row r at r modulo `kept`.
    ring: Vec<f32>,
    kept: usize,
    /// Where in the ring the rows of one output are.
    places: Vec<usize>,
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
        let taps = most;
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
    #[inline(always)]
    fn shrink(&self, wide: &[f32], out: &mut [f32]) {
        match self.taps {
            1 => self.shrink_by::<1>(wide, out),
            2 => self.shrink_by::<2>(wide, out),
            3 => self.shrink_by::<3>(wide, out),
            _ => self.shrink_by::<FEW>(wide, out),
        }
    }

    /// Four numbers a pixel are summed and written, of which the fourth is the next pixel's red and is written over: processors
    /// like four. `out` is one number longer than the row.
    #[inline(always)]
    fn shrink_by<const TAPS: usize>(&self, wide: &[f32], out: &mut [f32]) {
        let (weights, _) = self.weights.as_chunks::<TAPS>();
        for (at, (start, weights)) in self.starts.iter().zip(weights).enumerate() {
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
            put(out, at, &sum);
        }
    }

    /// Two rows together: each weight is read once for both, and eight sums fill a vector.
    #[inline(always)]
    fn shrink_pair(&self, pairs: &[[f32; PAIR]], first: &mut [f32], second: &mut [f32]) {
        let all = self.starts.iter().zip(self.weights.chunks_exact(self.taps));
        for (at, (start, weights)) in all.enumerate() {
            let from = pairs.get(*start..start + self.taps).unwrap_or_default();
            let mut sum = [0.0_f32; PAIR];
            for (weight, values) in weights.iter().zip(from) {
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
            let (low, high) = sum.split_at(4);
            put(first, at, low);
            put(second, at, high);
        }
    }
}

/// Writes a pixel and the number after it.
#[inline(always)]
fn put(out: &mut [f32], at: usize, four: &[f32]) {
    if let Some(to) = out.get_mut(at * CHANNELS..at * CHANNELS + 4) {
        to.copy_from_slice(four);
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
        let columns = Axis::new(library, filter, input[0], output[0], bytes)?;
        let rows = Axis::new(library, filter, input[1], output[1], bytes)?;
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
        // Rows come two by two, so one of them may be early.
        let kept = kept + 1;
        let row = vec![0.0; input[0] * CHANNELS + 1];
        let columns = Even::of(&columns, input[0]);
        let pairs = if columns.taps > FEW { input[0] } else { 0 };
        Resample {
            wide: [row.clone(), row],
            pairs: vec![[0.0; PAIR]; pairs],
            ring: vec![0.0; kept * (width + 1)],
            kept,
            places: Vec::with_capacity(kept),
            sums: vec![0.0; width],
            columns,
            input,
            rows,
            rounds_between,
            rounds_after,
        }
    }

    /// What is summed, and whether it is rounded between the passes and at the end.
    pub(crate) fn tables(&self) -> ([Taps; 2], [bool; 2]) {
        let rows = Even::of(&self.rows, self.input[1]);
        let taps = [&self.columns, &rows].map(|even| Taps {
            count: even.taps,
            starts: even.starts.clone(),
            weights: even.weights.clone(),
        });
        (taps, [self.rounds_between, self.rounds_after])
    }

    /// Whether whole numbers of 0..=255 come out.
    #[must_use]
    pub fn gives_bytes(&self) -> bool {
        self.rounds_after
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
        let width = self.columns.starts.len() * CHANNELS;
        if rgb.len() != self.input[0] * CHANNELS * self.input[1] || width == 0 {
            return;
        }
        lanes::wide(Pass {
            resample: self,
            rgb,
            write: &mut write,
        });
    }

    #[inline(always)]
    fn pass(&mut self, rgb: &[u8], write: &mut impl FnMut(usize, &[f32])) {
        let mut next = 0;
        for (at, (start, weights)) in self.rows.taps().enumerate() {
            next = next.max(start);
            while next < start + weights.len() {
                next += shrink_rows(
                    rgb,
                    next,
                    self.input,
                    &self.columns,
                    &mut self.wide,
                    &mut self.pairs,
                    &mut self.ring,
                    self.kept,
                    self.rounds_between,
                );
            }
            let rows = start..start + weights.len();
            self.places.clear();
            self.places
                .extend(rows.map(|row| row % self.kept * (self.sums.len() + 1)));
            add_rows(&self.ring, &self.places, weights, &mut self.sums);
            if self.rounds_after {
                to_bytes(&mut self.sums);
            }
            write(at, &self.sums);
        }
    }
}

/// One picture.
struct Pass<'a, W> {
    resample: &'a mut Resample,
    rgb: &'a [u8],
    write: &'a mut W,
}

impl<W: FnMut(usize, &[f32])> lanes::Work for Pass<'_, W> {
    #[inline(always)]
    fn run(self) {
        self.resample.pass(self.rgb, self.write);
    }
}

/// Shrinks the row `next` into its place in the ring, and with many taps the one after it as well; how many.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // Borrowed apart: as one struct they would be one borrow.
fn shrink_rows(
    rgb: &[u8],
    next: usize,
    input: [usize; 2],
    columns: &Even,
    wide: &mut [Vec<f32>; 2],
    pairs: &mut [[f32; PAIR]],
    ring: &mut [f32],
    kept: usize,
    rounds: bool,
) -> usize {
    let stride = input[0] * CHANNELS;
    let width = columns.starts.len() * CHANNELS;
    let count = if pairs.is_empty() {
        1
    } else {
        2.min(input[1] - next)
    };
    for (row, wide) in wide.iter_mut().enumerate().take(count) {
        let bytes = rgb.get((next + row) * stride..(next + row + 1) * stride);
        for (slot, byte) in wide.iter_mut().zip(bytes.unwrap_or_default()) {
            *slot = f32::from(*byte);
        }
    }
    let [first, second] = wide;
    let here = next % kept * (width + 1);
    let there = (next + 1) % kept * (width + 1);
    if pairs.is_empty() {
        let out = ring.get_mut(here..=here + width).unwrap_or_default();
        columns.shrink(first, out);
    } else {
        for ((pair, a), b) in pairs
            .iter_mut()
            .zip(first.windows(4).step_by(CHANNELS))
            .zip(second.windows(4).step_by(CHANNELS))
        {
            *pair = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
        }
        if let Ok([a, b]) = ring.get_disjoint_mut([here..=here + width, there..=there + width]) {
            columns.shrink_pair(pairs, a, b);
        }
    }
    if rounds {
        for place in [here, there].into_iter().take(count) {
            to_bytes(ring.get_mut(place..place + width).unwrap_or_default());
        }
    }
    count
}

/// Numbers of a row that are summed in registers, row after row.
const SPAN: usize = 32;

/// The weighted sum of the rows of the ring that lie at `places`.
#[inline(always)]
fn add_rows(ring: &[f32], places: &[usize], weights: &[f32], sums: &mut [f32]) {
    let (spans, rest) = sums.as_chunks_mut::<SPAN>();
    let count = spans.len();
    for (at, span) in spans.iter_mut().enumerate() {
        let mut sum = [0.0_f32; SPAN];
        for (place, weight) in places.iter().zip(weights) {
            let from = place + at * SPAN;
            let Some(values) = ring.get(from..from + SPAN) else {
                return;
            };
            for (sum, value) in sum.iter_mut().zip(values) {
                *sum += weight * value;
            }
        }
        *span = sum;
    }
    rest.fill(0.0);
    for (place, weight) in places.iter().zip(weights) {
        let from = place + count * SPAN;
        let values = ring.get(from..from + rest.len()).unwrap_or_default();
        for (sum, value) in rest.iter_mut().zip(values) {
            *sum += weight * value;
        }
    }
}

/// Nearest whole number of 0..=255, halves upwards. In floats all along: a cast to a byte and back is done one by one.
#[allow(clippy::manual_clamp)] // Which is no byte where the value is no number.
#[inline(always)]
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
        let columns = Axis::new(library, filter, from[0], to[0], bytes).expect("a kernel");
        let rows = Axis::new(library, filter, from[1], to[1], bytes).expect("a kernel");
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
