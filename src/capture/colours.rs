// SPDX-License-Identifier: Apache-2.0
//! How the YUV pixels of a kernel camera are meant: the range of their numbers, and the matrix behind them, as its driver
//! declares both.
//!
//! Not responsible for the arithmetic (`decode`), for RGB and brightness alone, which are taken as they are, nor for JPEG, which is
//! of full range and BT.601, as JFIF says.

/// What the numbers of black and white are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Range {
    /// 16 and 235.
    #[default]
    Limited,
    /// 0 and 255.
    Full,
}

/// The standard by which brightness and the differences of colour were made of red, green and blue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matrix {
    /// Standard definition, and most cameras.
    #[default]
    Bt601,
    /// High definition.
    Bt709,
    /// Ultra-high definition.
    Bt2020,
    /// Early high definition.
    Smpte240,
}

/// See the module's text. The default is what UVC cameras send that declare nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Colours {
    /// What the numbers of black and white are.
    pub range: Range,
    /// How they were made of red, green and blue.
    pub matrix: Matrix,
}

// Of the kernel's videodev2.h: `v4l2_colorspace`.
const SMPTE240M: u32 = 2;
const REC709: u32 = 3;
const JPEG: u32 = 7;
const BT2020: u32 = 10;
const DCI_P3: u32 = 12;
/// Of `v4l2_ycbcr_encoding` and `v4l2_quantization`: as the colour space has it.
const DEFAULT: u32 = 0;
// Of `v4l2_ycbcr_encoding`. What is not here is BT.601, by one name or another.
const ENC_709: u32 = 2;
const ENC_XV709: u32 = 4;
const ENC_BT2020: u32 = 6;
const ENC_BT2020_CONST_LUM: u32 = 7;
const ENC_SMPTE240M: u32 = 8;
/// Of `v4l2_quantization`.
const FULL_RANGE: u32 = 1;

impl Colours {
    /// Of the numbers in which V4L2 says it, each by its name in `v4l2_pix_format`. What a driver leaves to the colour space
    /// (`*_DEFAULT`) is what `V4L2_MAP_YCBCR_ENC_DEFAULT` and `V4L2_MAP_QUANTIZATION_DEFAULT` of videodev2.h say; a number that
    /// is not known is taken as if nothing had been declared.
    #[must_use]
    pub const fn of_v4l2(colorspace: u32, ycbcr_enc: u32, quantization: u32) -> Colours {
        let matrix = match (ycbcr_enc, colorspace) {
            (ENC_709 | ENC_XV709, _) | (DEFAULT, REC709 | DCI_P3) => Matrix::Bt709,
            // Of constant luminance there is no matrix; this one is the nearest.
            (ENC_BT2020 | ENC_BT2020_CONST_LUM, _) | (DEFAULT, BT2020) => Matrix::Bt2020,
            (ENC_SMPTE240M, _) | (DEFAULT, SMPTE240M) => Matrix::Smpte240,
            _ => Matrix::Bt601,
        };
        let range = match (quantization, colorspace) {
            (FULL_RANGE, _) | (DEFAULT, JPEG) => Range::Full,
            _ => Range::Limited,
        };
        Colours { range, matrix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check([colorspace, ycbcr_enc, quantization]: [u32; 3], range: Range, matrix: Matrix) {
        let found = Colours::of_v4l2(colorspace, ycbcr_enc, quantization);
        assert_eq!(found, Colours { range, matrix });
    }

    #[test]
    fn what_a_driver_declares_and_what_it_leaves_to_the_colour_space() {
        use Matrix::{Bt601, Bt709, Bt2020, Smpte240};
        use Range::{Full, Limited};
        const SMPTE170M: u32 = 1;
        const SRGB: u32 = 8;
        const LIM_RANGE: u32 = 2;
        // Nothing said, and what UVC cameras say.
        check([DEFAULT; 3], Limited, Bt601);
        check([SRGB, DEFAULT, DEFAULT], Limited, Bt601);
        check([SMPTE170M, DEFAULT, DEFAULT], Limited, Bt601);
        // As the colour space has it.
        check([REC709, DEFAULT, DEFAULT], Limited, Bt709);
        check([DCI_P3, DEFAULT, DEFAULT], Limited, Bt709);
        check([BT2020, DEFAULT, DEFAULT], Limited, Bt2020);
        check([SMPTE240M, DEFAULT, DEFAULT], Limited, Smpte240);
        check([JPEG, DEFAULT, DEFAULT], Full, Bt601);
        // What is declared beats the colour space.
        check([REC709, 1, DEFAULT], Limited, Bt601);
        check([REC709, 3, DEFAULT], Limited, Bt601);
        check([BT2020, 5, DEFAULT], Limited, Bt601);
        check([SRGB, ENC_709, DEFAULT], Limited, Bt709);
        check([SRGB, ENC_XV709, FULL_RANGE], Full, Bt709);
        check([SRGB, ENC_BT2020, LIM_RANGE], Limited, Bt2020);
        check([SRGB, ENC_BT2020_CONST_LUM, DEFAULT], Limited, Bt2020);
        check([SRGB, ENC_SMPTE240M, DEFAULT], Limited, Smpte240);
        check([SRGB, DEFAULT, FULL_RANGE], Full, Bt601);
        check([JPEG, DEFAULT, LIM_RANGE], Limited, Bt601);
        // Of a kernel that knows more than we do.
        check([99, 77, 9], Limited, Bt601);
        check([99, DEFAULT, FULL_RANGE], Full, Bt601);
    }
}
