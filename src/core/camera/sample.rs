// SPDX-License-Identifier: Apache-2.0
//! What 1,024 samples of a picture tell: a 32 x 32 grid of pixels, each with its neighbours, so that the cost does not
//! grow with the picture.

use super::view::{Fields, View};
use super::{CameraFault, Picture};

/// Samples a row and a column of the grid.
pub(super) const GRID: usize = 32;
/// Bands of the grid, each judged alone: a broken transfer spoils rows, not columns.
const BANDS: usize = 8;
/// Samples of one band.
const BAND_SAMPLES: u64 = (GRID * GRID / BANDS) as u64;

/// A picture whose brightness varies less than this (standard deviation, of 255) shows nothing. Noise of a covered
/// sensor has 1 to 3.
const DEVIATION_MIN: u64 = 4;
/// Brightness up to which a sample is black.
const BLACK: u32 = 12;
/// Brightness from which a sample is saturated.
const WHITE: u32 = 250;
/// Share of black samples, of 100, that makes a picture black. Something small may still glow in it.
const BLACK_PERCENT: u64 = 98;
/// Share of saturated samples that makes a picture saturated.
const WHITE_PERCENT: u64 = 90;
/// A band is noise if pixels next to each other agree less than this: correlation, of 100. A picture has more than 90
/// at one pixel, a fine weave some 60 at one of the three neighbours; noise has 0, give or take 9 with 128 samples.
const CORRELATION_MIN: u64 = 30;
/// Noise of less than this deviation is that of a sensor in the dark.
const NOISE_DEVIATION_MIN: u64 = 20;
/// Rows of the grid, from the bottom, that may be of exactly one colour: an eighth of the picture.
const FLAT_ROWS_MAX: usize = GRID / 8;
/// What a saturated sensor gives: no sign of a tear.
const FULL: [u8; 3] = [255; 3];

/// Sums over one band.
#[derive(Clone, Copy, Debug, Default)]
struct Band {
    sum: u64,
    squares: u64,
    /// Squared differences to the pixel one to the right, two to the right, one below.
    steps: [u64; 3],
}

impl Band {
    /// Variance times the square of the number of samples.
    fn variance_scaled(&self) -> u64 {
        (BAND_SAMPLES * self.squares).saturating_sub(self.sum * self.sum)
    }

    fn is_noise(&self) -> bool {
        let scaled = self.variance_scaled();
        let loud = scaled > (NOISE_DEVIATION_MIN * BAND_SAMPLES).pow(2);
        // Mean squared difference of two values = 2 variance (1 - correlation).
        let limit = 2 * scaled * (100 - CORRELATION_MIN);
        loud && self
            .steps
            .iter()
            .all(|step| step * BAND_SAMPLES * 100 > limit)
    }
}

/// What the samples told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sampled {
    bands: [Band; BANDS],
    black: u64,
    white: u64,
    /// Rows of the grid, from the bottom, that are of exactly one colour.
    flat_rows: usize,
    fields: Fields,
    print: u64,
}

/// Brightness of a pixel, 0..255.
fn luma(pixel: [u8; 3]) -> u32 {
    let [r, g, b] = pixel.map(u32::from);
    (2 * r + 5 * g + b) / 8
}

fn pixel_at(rgb: &[u8], at: usize) -> Option<[u8; 3]> {
    rgb.get(at..)?.first_chunk().copied()
}

impl Sampled {
    /// Samples a picture; `None` if it is too small or its pixels are missing.
    pub(super) fn of(picture: &Picture<'_>) -> Option<Sampled> {
        let (width, height) = (picture.width, picture.height);
        let (columns, rows) = (width.checked_sub(2)?, height.checked_sub(1)?);
        if columns == 0 || rows == 0 {
            return None;
        }
        let mut out = Sampled {
            bands: [Band::default(); BANDS],
            black: 0,
            white: 0,
            flat_rows: 0,
            fields: Fields::NONE,
            print: 0x9E37_79B9_7F4A_7C15,
        };
        let mut flat = None;
        for row in 0..GRID {
            let y = (2 * row + 1) * rows / (2 * GRID);
            let band = out.bands.get_mut(row * BANDS / GRID)?;
            let (mut first, mut constant) = (None, true);
            for column in 0..GRID {
                let x = (2 * column + 1) * columns / (2 * GRID);
                let at = (y * width + x) * 3;
                let pixel = pixel_at(picture.rgb, at)?;
                let here = luma(pixel);
                let others = [at + 3, at + 6, at + 3 * width];
                for (step, other) in band.steps.iter_mut().zip(others) {
                    let difference = here.abs_diff(luma(pixel_at(picture.rgb, other)?));
                    *step += u64::from(difference * difference);
                }
                band.sum += u64::from(here);
                band.squares += u64::from(here * here);
                out.black += u64::from(here <= BLACK);
                out.white += u64::from(here >= WHITE);
                out.fields.add(row, column, here);
                let [r, g, b] = pixel.map(u64::from);
                out.print = (out.print ^ (r << 16 | g << 8 | b))
                    .wrapping_mul(0x0000_0100_0000_01B3)
                    .rotate_left(23);
                constant &= *first.get_or_insert(pixel) == pixel;
            }
            let colour = first.filter(|colour| constant && *colour != FULL);
            out.flat_rows = match colour {
                Some(_) if colour == flat => out.flat_rows + 1,
                Some(_) => 1,
                None => 0,
            };
            flat = colour;
        }
        Some(out)
    }

    /// Tells two pictures apart.
    pub(super) fn print(&self) -> u64 {
        self.print
    }

    /// What it shows, coarsely.
    pub(super) fn view(&self) -> View {
        self.fields.view()
    }

    /// What is wrong with what it shows.
    pub(super) fn content(&self, noisy: bool) -> Option<CameraFault> {
        let samples = (GRID * GRID) as u64;
        if self.black * 100 >= samples * BLACK_PERCENT {
            return Some(CameraFault::Black);
        }
        if self.white * 100 >= samples * WHITE_PERCENT {
            return Some(CameraFault::Saturated);
        }
        let sum: u64 = self.bands.iter().map(|band| band.sum).sum();
        let squares: u64 = self.bands.iter().map(|band| band.squares).sum();
        let variance_scaled = (samples * squares).saturating_sub(sum * sum);
        if variance_scaled < (DEVIATION_MIN * samples).pow(2) {
            return Some(CameraFault::Uniform);
        }
        if self.bands.iter().any(Band::is_noise) {
            return Some(CameraFault::Noise);
        }
        (noisy && self.flat_rows >= FLAT_ROWS_MAX).then_some(CameraFault::Torn)
    }
}
