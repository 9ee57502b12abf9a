// SPDX-License-Identifier: Apache-2.0
//! Resampling kernels: which input pixels make an output pixel, and with what weights, as each library has it.
//!
//! Every one of them is separable, so a resize is two lists of taps. Pillow, torchvision's antialiased and TensorFlow's
//! antialiased resizes share the kernels and differ in rounding between the passes; torch without antialias and OpenCV
//! look at two or four neighbours however much they shrink; OpenCV's area averages what a pixel covers.

use schemars::JsonSchema;
use serde::Deserialize;

/// Whose resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Library {
    /// Pillow's `Image.resize` of bytes: antialiased, rounded to bytes between the passes, columns first.
    Pillow,
    /// `torchvision` or `F.interpolate(antialias=True)`: Pillow's kernels and, of bytes, its rounding, with weights of 16 bits.
    TorchAntialias,
    /// `F.interpolate(antialias=False, align_corners=False)`: what LeRobot's pi0 and SmolVLA use, in floats.
    Torch,
    /// `tf.image.resize(antialias=True)` and `jax.image.resize`, rounded to bytes at the end (Octo, OpenVLA, openpi).
    Tensorflow,
    /// `cv2.resize` of bytes.
    Opencv,
}

/// The kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Keys' cubic with a = -0.5 (antialiased) or -0.75 (torch and OpenCV without).
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos3,
    /// Average of what is covered.
    Area,
}

/// Taps of one direction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axis {
    /// First input and range of weights of each output.
    taps: Vec<(usize, core::ops::Range<usize>)>,
    weights: Vec<f32>,
}

impl Axis {
    fn push(&mut self, start: usize, weights: impl Iterator<Item = f64>) {
        let from = self.weights.len();
        self.weights.extend(weights.map(|weight| weight as f32));
        self.taps.push((start, from..self.weights.len()));
    }

    /// First input and weights of each output, in order.
    pub fn taps(&self) -> impl Iterator<Item = (usize, &[f32])> {
        self.taps
            .iter()
            .map(|(start, range)| (*start, self.weights.get(range.clone()).unwrap_or_default()))
    }

    /// Outputs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taps.len()
    }

    /// Whether there is no output.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taps.is_empty()
    }

    /// Taps of a resize from `input` to `output` pixels, of `bytes` or of floats; `None` if the library has no such kernel.
    #[must_use]
    pub fn new(
        library: Library,
        filter: Filter,
        input: usize,
        output: usize,
        bytes: bool,
    ) -> Option<Axis> {
        if input == 0 || output == 0 {
            return None;
        }
        match (library, filter) {
            (
                Library::Pillow | Library::TorchAntialias | Library::Tensorflow,
                Filter::Bilinear | Filter::Bicubic | Filter::Lanczos3,
            ) => {
                let bits = bytes && library == Library::TorchAntialias;
                Some(Axis::antialiased(filter, input, output, bits))
            }
            (Library::Torch | Library::Opencv, Filter::Bilinear) => {
                Some(Axis::neighbours(input, output, 2, |t| {
                    [1.0 - t, t, 0.0, 0.0]
                }))
            }
            (Library::Torch | Library::Opencv, Filter::Bicubic) => {
                Some(Axis::neighbours(input, output, 4, |t| {
                    [
                        cubic(1.0 + t, -0.75),
                        cubic(t, -0.75),
                        cubic(1.0 - t, -0.75),
                        cubic(2.0 - t, -0.75),
                    ]
                }))
            }
            (Library::Opencv | Library::Torch, Filter::Area) if output <= input => {
                Some(Axis::covered(input, output))
            }
            _ => None,
        }
    }

    /// The kernel widens with the shrinking (Pillow `src/libImaging/Resample.c`). `in_16_bits`: the weights are rounded as
    /// torch rounds them for bytes (ATen `native/cpu/UpSampleKernel.cpp`, `compute_index_ranges_int16_weights`).
    fn antialiased(filter: Filter, input: usize, output: usize, in_16_bits: bool) -> Axis {
        let (support, kernel): (f64, fn(f64) -> f64) = match filter {
            Filter::Bicubic => (2.0, |x| cubic(x.abs(), -0.5)),
            Filter::Lanczos3 => (3.0, lanczos3),
            Filter::Bilinear | Filter::Area => (1.0, |x| (1.0 - x.abs()).max(0.0)),
        };
        let scale = input as f64 / output as f64;
        let wide = scale.max(1.0);
        let reach = support * wide;
        let taps = (0..output).map(|out| {
            let centre = (out as f64 + 0.5) * scale;
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5).max(0.0) as usize).min(input);
            let weight = |at: usize| kernel((at as f64 - centre + 0.5) / wide);
            let sum: f64 = (first..end).map(weight).sum();
            let weights: Vec<f64> = (first..end).map(|at| weight(at) / sum).collect();
            (first, weights)
        });
        let taps: Vec<(usize, Vec<f64>)> = taps.collect();
        let largest = taps.iter().flat_map(|(_, weights)| weights).copied();
        let steps = in_16_bits.then(|| steps_of_16_bits(largest.fold(0.0, f64::max)));
        let mut axis = Axis::default();
        for (first, weights) in taps {
            let rounded =
                |weight: f64| steps.map_or(weight, |steps| (weight * steps).round() / steps);
            axis.push(first, weights.into_iter().map(rounded));
        }
        axis
    }

    /// `count` neighbours of the half-pixel place, the border repeated.
    fn neighbours(input: usize, output: usize, count: usize, weigh: fn(f64) -> [f64; 4]) -> Axis {
        let scale = input as f64 / output as f64;
        let mut axis = Axis::default();
        for out in 0..output {
            let mut place = (out as f64 + 0.5) * scale - 0.5;
            if count == 2 {
                place = place.max(0.0);
            }
            let floor = place.floor();
            let first = floor as i64 - if count == 4 { 1 } else { 0 };
            let weights = weigh(place - floor);
            axis.clamped(first, weights.get(..count).unwrap_or_default(), input);
        }
        axis
    }

    /// Corner-aligned bilinear of a part of the input, `from..=to` in pixels (`tf.image.crop_and_resize`).
    #[must_use]
    pub fn between(input: usize, from: f64, to: f64, output: usize) -> Axis {
        let mut axis = Axis::default();
        for out in 0..output {
            let place = if output > 1 {
                from + out as f64 * ((to - from) / (output - 1) as f64)
            } else {
                0.5 * (from + to)
            };
            let floor = place.floor();
            let part = place - floor;
            axis.clamped(floor as i64, &[1.0 - part, part], input);
        }
        axis
    }

    /// Folds weights that fall off the picture onto its border.
    fn clamped(&mut self, first: i64, weights: &[f64], input: usize) {
        let last = input as i64 - 1;
        let place = |at: usize| (first + at as i64).clamp(0, last);
        let (low, high) = (place(0), place(weights.len().saturating_sub(1)));
        let folded = (low..=high).map(|target| {
            weights
                .iter()
                .enumerate()
                .filter(|(at, _)| place(*at) == target)
                .map(|(_, weight)| *weight)
                .sum::<f64>()
        });
        self.push(low as usize, folded.collect::<Vec<_>>().into_iter());
    }

    /// Each output is the average of the inputs that it covers, in parts at the ends.
    fn covered(input: usize, output: usize) -> Axis {
        let scale = input as f64 / output as f64;
        let mut axis = Axis::default();
        for out in 0..output {
            let (from, to) = (out as f64 * scale, (out + 1) as f64 * scale);
            let first = from.floor() as usize;
            let end = (to.ceil() as usize).min(input);
            let share = |at: usize| ((at + 1) as f64).min(to) - (at as f64).max(from);
            let sum: f64 = (first..end).map(share).sum();
            axis.push(first, (first..end).map(|at| share(at) / sum));
        }
        axis
    }
}

/// Into how many parts 1 is divided so that the largest weight just fits 15 bits and a sign.
fn steps_of_16_bits(largest: f64) -> f64 {
    let is_full = |bits: &u32| (0.5 + largest * f64::from(1_u32 << (bits + 1))) as u32 >= 1 << 15;
    let bits = (0..22).find(is_full).unwrap_or(22);
    f64::from(1_u32 << bits)
}

/// Keys' cubic at distance `x`, not negative.
fn cubic(x: f64, a: f64) -> f64 {
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

fn lanczos3(x: f64) -> f64 {
    let sinc = |x: f64| {
        if x == 0.0 {
            1.0
        } else {
            let x = x * core::f64::consts::PI;
            x.sin() / x
        }
    };
    if (-3.0..3.0).contains(&x) {
        sinc(x) * sinc(x / 3.0)
    } else {
        0.0
    }
}
