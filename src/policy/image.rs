// SPDX-License-Identifier: Apache-2.0
//! Shrinks a camera's picture to what the policy was trained on.
//!
//! Antialiased bilinear ("triangle") resize that stretches: aspect ratio is not kept. Training data
//! and run time call this one function, so the network never sees a second resampler.
//!
//! The arithmetic is that of `fast_image_resize`'s `Convolution(Bilinear)` (Pillow's, in 16-bit fixed
//! point), bit for bit; a test holds the two together. It is written out here because that crate
//! computes and allocates its weights in every call, and the path from frame to chunk never allocates.
//! Integer arithmetic only after construction, hence the same bytes on every processor.
//!
//! [`Shrink`] is that function. [`Picture`] is the whole way of a frame into the graph: shrink, scale, channels first.

use crate::policy::lanes;
use crate::policy::picture::SIDE_PX_MAX;
use crate::ports::{PictureWay, Taps, WholeWay};

/// Colour channels of a pixel: red, green, blue.
const CHANNELS: usize = 3;
/// Side of the picture that the bench policy takes, in pixels.
pub const POLICY_SIDE_PX: usize = 96;
/// Largest weight times 2^precision must stay below 2^15, so that a weight fits `i16`.
const WEIGHT_BITS: u32 = 15;
/// Eight bits of result and two of headroom leave 22 bits for the sum's fraction.
const PRECISION_MAX: u32 = 22;

/// One direction of the separable resize.
#[derive(Clone, Debug)]
struct Axis {
    /// Inputs that make an output.
    count: usize,
    /// First input row or column of each output.
    starts: Vec<usize>,
    /// `[outputs][count]`, fixed point with `precision` fractional bits.
    weights: Vec<i32>,
    precision: u32,
}

impl Axis {
    fn new(in_px: usize, out_px: usize) -> Self {
        let scale = in_px as f64 / out_px as f64;
        // Shrinking widens the triangle to cover all inputs (antialiasing); enlarging must not narrow it.
        let reach = scale.max(1.0);
        let mut rows = Vec::with_capacity(out_px);
        for out in 0..out_px {
            let centre = (out as f64 + 0.5) * scale;
            let first = (centre - reach).floor().max(0.0) as usize;
            let end = ((centre + reach).ceil() as usize).min(in_px);
            let weight =
                |i: usize| (1.0 - ((i as f64 - (centre - 0.5)) * (1.0 / reach)).abs()).max(0.0);
            let first = (first..end).find(|&i| weight(i) > 0.0).unwrap_or(first);
            let end = (first..end)
                .rev()
                .find(|&i| weight(i) > 0.0)
                .map_or(end, |i| i + 1);
            let sum: f64 = (first..end).map(weight).sum();
            rows.push((
                first,
                (first..end).map(|i| weight(i) / sum).collect::<Vec<f64>>(),
            ));
        }
        let largest = rows
            .iter()
            .flat_map(|(_, w)| w)
            .fold(0.0_f64, |a, &b| a.max(b));
        let precision = (0..PRECISION_MAX)
            .find(|p| {
                (largest * f64::from(1_u32 << (p + 1))).round() >= f64::from(1_u32 << WEIGHT_BITS)
            })
            .unwrap_or(PRECISION_MAX - 1);
        let count = rows.iter().map(|(_, w)| w.len()).max().unwrap_or(0);
        let mut axis = Self {
            count,
            starts: Vec::with_capacity(out_px),
            weights: Vec::with_capacity(out_px * count),
            precision,
        };
        for (first, row) in rows {
            // As many for each, those that are added weighing nothing: a processor guesses the length of a loop better.
            let start = first.min(in_px - count);
            axis.starts.push(start);
            let weigh = |w: f64| (w * f64::from(1_u32 << precision)).round() as i32;
            let weights = (start..start + count).map(|at| {
                let inside = at.checked_sub(first).and_then(|at| row.get(at));
                inside.map_or(0, |weight| weigh(*weight))
            });
            axis.weights.extend(weights);
        }
        axis
    }

    #[inline(always)]
    fn round(&self, sum: i32) -> i32 {
        (sum >> self.precision).clamp(0, 255)
    }

    /// First input and weights of each output.
    #[inline(always)]
    fn taps(&self) -> impl Iterator<Item = (usize, &[i32])> {
        self.starts
            .iter()
            .copied()
            .zip(self.weights.chunks_exact(self.count.max(1)))
    }

    #[inline(always)]
    fn half(&self) -> i32 {
        1 << (self.precision - 1)
    }
}

/// A picture did not have the size that the resizer was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} bytes of RGB, found {found}")]
pub struct WrongSize {
    /// Bytes that the picture should have.
    pub expected: usize,
    /// Bytes that it has.
    pub found: usize,
}

/// Numbers of a row that are summed in registers, row after row.
const SPAN: usize = 32;
/// A pixel of two rows, each of them filled up to four: eight sums fill a vector.
const PAIR: usize = 8;

/// Resizes RGB pictures of one size to another. Weights and buffers are made once.
#[derive(Clone, Debug)]
pub struct Shrink {
    in_bytes: usize,
    out_bytes: usize,
    in_width: usize,
    horizontal: Axis,
    vertical: Axis,
    /// `[in_width][3]` and one number more, of two rows: after the vertical pass, which comes first.
    half_done: [Vec<i32>; 2],
    /// `[in_width][2][4]`: a pixel of both; the fourth number is thrown away.
    pairs: Vec<[i32; PAIR]>,
    /// `[out_width][3]`: a row that nobody wants.
    spare: Vec<u8>,
}

impl Shrink {
    /// From `in_width` x `in_height` to `out_width` x `out_height` pixels; `None` unless each side has 1 to [`SIDE_PX_MAX`].
    #[must_use]
    pub fn new(
        in_width: usize,
        in_height: usize,
        out_width: usize,
        out_height: usize,
    ) -> Option<Self> {
        let sides = [in_width, in_height, out_width, out_height];
        if !sides.iter().all(|side| (1..=SIDE_PX_MAX).contains(side)) {
            return None;
        }
        let row = vec![0; in_width * CHANNELS + 1];
        Some(Self {
            in_bytes: in_width * in_height * CHANNELS,
            out_bytes: out_width * out_height * CHANNELS,
            in_width,
            horizontal: Axis::new(in_width, out_width),
            vertical: Axis::new(in_height, out_height),
            half_done: [row.clone(), row],
            pairs: vec![[0; PAIR]; in_width],
            spare: vec![0; out_width * CHANNELS],
        })
    }

    /// Resizes `rgb` (`[in_height][in_width][3]`, row-major) into `out` (`[out_height][out_width][3]`).
    /// Does not allocate.
    ///
    /// # Errors
    /// [`WrongSize`] if either buffer has another length; `out` is then untouched.
    pub fn run(&mut self, rgb: &[u8], out: &mut [u8]) -> Result<(), WrongSize> {
        for (expected, found) in [(self.in_bytes, rgb.len()), (self.out_bytes, out.len())] {
            if expected != found {
                return Err(WrongSize { expected, found });
            }
        }
        lanes::wide(Pass {
            shrink: self,
            rgb,
            out,
        });
        Ok(())
    }

    /// One row of the output, before its columns are shrunk.
    #[inline(always)]
    fn shrink_rows(
        vertical: &Axis,
        (start, weights): (usize, &[i32]),
        rgb: &[u8],
        stride: usize,
        done: &mut [i32],
    ) {
        let (spans, rest) = done[..stride].as_chunks_mut::<SPAN>();
        let count = spans.len();
        for (at, span) in spans.iter_mut().enumerate() {
            let mut sum = [vertical.half(); SPAN];
            let mut from = start * stride + at * SPAN;
            for weight in weights {
                let bytes = &rgb[from..from + SPAN];
                for (sum, byte) in sum.iter_mut().zip(bytes) {
                    *sum += weight * i32::from(*byte);
                }
                from += stride;
            }
            for (value, sum) in span.iter_mut().zip(sum) {
                *value = vertical.round(sum);
            }
        }
        for (at, value) in rest.iter_mut().enumerate() {
            let column = rgb[start * stride + count * SPAN + at..].iter();
            let terms = weights.iter().zip(column.step_by(stride));
            let sum: i32 = terms.map(|(weight, byte)| weight * i32::from(*byte)).sum();
            *value = vertical.round(sum + vertical.half());
        }
    }

    /// Two rows of the output.
    #[inline(always)]
    fn shrink_columns(
        horizontal: &Axis,
        pairs: &[[i32; PAIR]],
        first: &mut [u8],
        second: &mut [u8],
    ) {
        let (first, _) = first.as_chunks_mut::<CHANNELS>();
        let (second, _) = second.as_chunks_mut::<CHANNELS>();
        for (((start, weights), first), second) in horizontal.taps().zip(first).zip(second) {
            let mut sum = [horizontal.half(); PAIR];
            for (weight, values) in weights.iter().zip(&pairs[start..start + weights.len()]) {
                for (sum, value) in sum.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
            let bytes = sum.map(|sum| horizontal.round(sum) as u8);
            first.copy_from_slice(&bytes[..3]);
            second.copy_from_slice(&bytes[4..7]);
        }
    }
}

/// One picture.
struct Pass<'a> {
    shrink: &'a mut Shrink,
    rgb: &'a [u8],
    out: &'a mut [u8],
}

impl lanes::Work for Pass<'_> {
    #[inline(always)]
    fn run(self) {
        let Shrink {
            in_width,
            horizontal,
            vertical,
            half_done: [first, second],
            pairs,
            spare,
            ..
        } = self.shrink;
        let stride = *in_width * CHANNELS;
        let out_stride = horizontal.starts.len() * CHANNELS;
        let mut all = vertical.taps();
        for rows in self.out.chunks_mut(2 * out_stride) {
            for done in [&mut *first, &mut *second] {
                if let Some(taps) = all.next() {
                    Shrink::shrink_rows(vertical, taps, self.rgb, stride, done);
                }
            }
            let both = first
                .windows(4)
                .step_by(CHANNELS)
                .zip(second.windows(4).step_by(CHANNELS));
            for (pair, (a, b)) in pairs.iter_mut().zip(both) {
                *pair = [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
            }
            // The last of an odd number of rows has no other.
            let (above, below) = rows.split_at_mut(out_stride);
            let below = if below.is_empty() {
                &mut spare[..]
            } else {
                below
            };
            Shrink::shrink_columns(horizontal, pairs, above, below);
        }
    }
}

/// A camera's picture on its way into the graph: resized, scaled, channels first. Made once, never allocates after.
#[derive(Clone, Debug)]
pub struct Picture {
    shrink: Shrink,
    /// `[height][width][3]`: the picture that the policy sees, as bytes.
    small: Vec<u8>,
    /// What each byte becomes: exactly the nearest float to byte x scale, and cheaper than converting.
    levels: [f32; 256],
}

impl Picture {
    /// From pictures of `source` to tensors of `size` (both width, height), each byte times `scale`; `None` where [`Shrink::new`]
    /// gives none.
    #[must_use]
    pub fn new(source: [usize; 2], size: [usize; 2], scale: f64) -> Option<Picture> {
        Some(Picture {
            shrink: Shrink::new(source[0], source[1], size[0], size[1])?,
            small: vec![0; size[0] * size[1] * CHANNELS],
            levels: core::array::from_fn(|byte| (byte as f64 * scale) as f32),
        })
    }

    /// The same as tables, for a device that makes the tensor itself.
    #[must_use]
    pub fn way(&self) -> PictureWay {
        let Shrink {
            horizontal,
            vertical,
            in_width,
            in_bytes,
            ..
        } = &self.shrink;
        let taps = |axis: &Axis| Taps {
            count: axis.count,
            starts: axis.starts.clone(),
            // At most 16 bits: a float holds them all.
            weights: axis.weights.iter().map(|weight| *weight as f32).collect(),
        };
        let stride = in_width * CHANNELS;
        PictureWay {
            source: [*in_width, in_bytes / stride],
            origin: 0,
            steps: [CHANNELS as isize, stride as isize],
            columns: taps(horizontal),
            rows: taps(vertical),
            rounds: [true; 2],
            size: [horizontal.starts.len(), vertical.starts.len()],
            shift: [0; 2],
            pad: 0.0,
            levels: vec![[[1.0, 0.0]; CHANNELS]],
            channels_last: false,
            blue_first: false,
            whole: Some(Box::new(WholeWay {
                bits: [horizontal.precision, vertical.precision],
                levels: self.levels,
            })),
        }
    }

    /// Writes `rgb` (`[height][width][3]` of the source) into `tensor` (`[3][height][width]` of the graph).
    ///
    /// # Errors
    /// [`WrongSize`] if either has another length.
    pub fn fill(&mut self, rgb: &[u8], tensor: &mut [f32]) -> Result<(), WrongSize> {
        self.shrink.run(rgb, &mut self.small)?;
        scatter(&self.levels, &self.small, tensor)
    }

    /// Writes a picture that has the graph's size already, as recorded fixtures have.
    ///
    /// # Errors
    /// [`WrongSize`] if either has another length.
    pub fn fill_small(&self, small: &[u8], tensor: &mut [f32]) -> Result<(), WrongSize> {
        scatter(&self.levels, small, tensor)
    }
}

/// Interleaved bytes -> planes of floats.
fn scatter(levels: &[f32; 256], small: &[u8], tensor: &mut [f32]) -> Result<(), WrongSize> {
    let plane = tensor.len() / CHANNELS;
    if small.len() != tensor.len() || plane == 0 {
        return Err(WrongSize {
            expected: tensor.len(),
            found: small.len(),
        });
    }
    for (channel, values) in tensor.chunks_exact_mut(plane).enumerate() {
        for (value, pixel) in values.iter_mut().zip(small.chunks_exact(CHANNELS)) {
            *value = levels[usize::from(pixel[channel])];
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use fast_image_resize::images::{Image, ImageRef};
    use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

    fn picture(width: usize, height: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..width * height * CHANNELS).map(|_| next()).collect()
    }

    #[track_caller]
    fn check(from: (usize, usize), to: (usize, usize)) {
        let rgb = picture(from.0, from.1, 7);
        let mut ours = vec![0; to.0 * to.1 * CHANNELS];
        Shrink::new(from.0, from.1, to.0, to.1)
            .expect("sides with pixels")
            .run(&rgb, &mut ours)
            .expect("sizes match");
        let source = ImageRef::new(from.0 as u32, from.1 as u32, &rgb, PixelType::U8x3)
            .expect("sizes match");
        let mut theirs = Image::new(to.0 as u32, to.1 as u32, PixelType::U8x3);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        Resizer::new()
            .resize(&source, &mut theirs, &options)
            .expect("both are U8x3");
        assert!(
            ours == theirs.buffer(),
            "{from:?} -> {to:?} differs from fast_image_resize"
        );
    }

    #[test]
    fn equals_fast_image_resize_at_the_bench_size() {
        check((224, 224), (96, 96));
    }
    #[test]
    fn equals_fast_image_resize_when_stretching() {
        check((640, 480), (96, 96));
    }
    #[test]
    fn equals_fast_image_resize_with_an_odd_number_of_rows_and_odd_widths() {
        check((31, 33), (7, 5));
        check((224, 224), (95, 97));
        check((7, 3), (5, 9));
    }
    #[test]
    fn equals_fast_image_resize_when_enlarging() {
        check((50, 40), (96, 96));
    }
    fn of_the_bench() -> Shrink {
        Shrink::new(224, 224, POLICY_SIDE_PX, POLICY_SIDE_PX).expect("sides with pixels")
    }
    #[test]
    fn refuses_sides_without_a_pixel_or_with_too_many() {
        let side = |at: usize, px: usize| {
            let mut sides = [8; 4];
            sides[at] = px;
            let [in_width, in_height, out_width, out_height] = sides;
            Shrink::new(in_width, in_height, out_width, out_height).is_some()
                && Picture::new([in_width, in_height], [out_width, out_height], 1.0).is_some()
        };
        for at in 0..4 {
            let taken = [0, 1, SIDE_PX_MAX, SIDE_PX_MAX + 1, usize::MAX].map(|px| side(at, px));
            assert_eq!(taken, [false, true, true, false, false], "side {at}");
        }
    }
    #[test]
    fn keeps_a_plain_picture_plain() {
        let mut out = vec![0; 96 * 96 * CHANNELS];
        of_the_bench()
            .run(&vec![200; 224 * 224 * CHANNELS], &mut out)
            .expect("sizes match");
        assert!(out.iter().all(|&b| b == 200));
    }
    #[test]
    fn refuses_a_picture_of_another_size() {
        let mut out = vec![0; 96 * 96 * CHANNELS];
        let found = of_the_bench().run(&[0; 12], &mut out);
        assert_eq!(
            found,
            Err(WrongSize {
                expected: 224 * 224 * 3,
                found: 12
            })
        );
    }
}
