// SPDX-License-Identifier: Apache-2.0
//! Pixels as cameras send them -> 8-bit RGB in the caller's buffer, which is allocated once for the agreed size.
//!
//! The packed and planar YUV formats are those of the kernel's V4L2 documentation; their colours are what the camera declares
//! (`colours`), BT.601 in the narrow range if it declares nothing, and full range in JPEG, as JFIF says.

use super::colours::Colours;
#[cfg(any(feature = "v4l", feature = "gstreamer"))]
use super::colours::{Matrix, Range};
use super::huffman;
use crate::ports::Frame;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// A pixel format that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG, one picture a buffer; Huffman tables may be missing, as UVC cameras leave them out (`huffman`).
    Mjpg,
    /// 4:2:2, Y0 U Y1 V.
    Yuyv,
    /// 4:2:2, U Y0 V Y1.
    Uyvy,
    /// 4:2:0, a plane of Y, then one of UV pairs.
    Nv12,
    /// R G B.
    Rgb3,
    /// B G R.
    Bgr3,
    /// Brightness only.
    Grey,
}

impl Format {
    /// All of them, the cheapest for the processor first. Of those with colours MJPG comes last: it is what USB 2 needs for more
    /// than a small picture, and costs the most. Brightness alone is behind all: cheap as it is, a camera that has colours is to
    /// give them.
    pub const ALL: [Format; 7] = [
        Format::Rgb3,
        Format::Bgr3,
        Format::Nv12,
        Format::Yuyv,
        Format::Uyvy,
        Format::Mjpg,
        Format::Grey,
    ];

    /// What a kernel camera is asked for where nothing is preferred: the characters of all of them, in that order. `JPEG` is MJPG by
    /// another name, and all that some cameras have.
    pub const FOURCCS: [[u8; 4]; 8] = [
        *b"RGB3", *b"BGR3", *b"NV12", *b"YUYV", *b"UYVY", *b"MJPG", *b"JPEG", *b"GREY",
    ];

    /// The kernel's four characters.
    #[must_use]
    pub const fn fourcc(self) -> [u8; 4] {
        match self {
            Format::Mjpg => *b"MJPG",
            Format::Yuyv => *b"YUYV",
            Format::Uyvy => *b"UYVY",
            Format::Nv12 => *b"NV12",
            Format::Rgb3 => *b"RGB3",
            Format::Bgr3 => *b"BGR3",
            Format::Grey => *b"GREY",
        }
    }

    /// The same, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Format::Mjpg => "MJPG",
            Format::Yuyv => "YUYV",
            Format::Uyvy => "UYVY",
            Format::Nv12 => "NV12",
            Format::Rgb3 => "RGB3",
            Format::Bgr3 => "BGR3",
            Format::Grey => "GREY",
        }
    }

    /// The format with these four characters.
    #[must_use]
    pub fn from_fourcc(fourcc: [u8; 4]) -> Option<Format> {
        match &fourcc {
            b"JPEG" => Some(Format::Mjpg),
            _ => Format::ALL
                .into_iter()
                .find(|format| format.fourcc() == fourcc),
        }
    }

    /// Bytes of a picture whose rows are `stride` bytes apart; `None` if a picture of any length is right.
    #[must_use]
    pub fn len(self, stride: usize, height: usize) -> Option<usize> {
        match self {
            Format::Mjpg => None,
            Format::Nv12 => Some(stride * height + stride * height.div_ceil(2)),
            Format::Yuyv | Format::Uyvy | Format::Rgb3 | Format::Bgr3 | Format::Grey => {
                Some(stride * height)
            }
        }
    }

    /// Bytes of a row without padding: of the first plane, if there are two.
    #[must_use]
    pub const fn row_len(self, width: usize) -> usize {
        match self {
            Format::Mjpg | Format::Nv12 | Format::Grey => width,
            Format::Yuyv | Format::Uyvy => width * 2,
            Format::Rgb3 | Format::Bgr3 => width * 3,
        }
    }
}

/// Decodes into `frame.rgb`, of this width and height. Rows of `bytes` are `stride` apart, if the format has rows. Colours of YUV
/// are those of a camera that declares none.
///
/// # Errors
/// What is wrong with the bytes.
pub fn into_rgb(
    format: Format,
    bytes: &[u8],
    stride: usize,
    size: [usize; 2],
    frame: &mut Frame,
) -> Result<(), &'static str> {
    declared_into_rgb(format, Colours::default(), bytes, stride, size, frame)
}

/// The same of a camera that declares how its YUV is meant.
///
/// # Errors
/// What is wrong with the bytes.
pub fn declared_into_rgb(
    format: Format,
    colours: Colours,
    bytes: &[u8],
    stride: usize,
    [width, height]: [usize; 2],
    frame: &mut Frame,
) -> Result<(), &'static str> {
    // The size is that of the camera's mode, so that this allocates once.
    frame.rgb.resize(width * height * 3, 0);
    (frame.width, frame.height) = (width, height);
    if let Some(len) = format.len(stride, height)
        && bytes.len() < len
    {
        return Err("buffer shorter than its picture");
    }
    let rows = |len: usize| bytes.chunks(stride.max(1)).map(move |row| &row[..len]);
    let row_len = format.row_len(width);
    if format != Format::Mjpg && stride < row_len {
        return Err("rows shorter than the picture is wide");
    }
    match format {
        Format::Mjpg => jpeg(bytes, [width, height], &mut frame.rgb),
        Format::Rgb3 => {
            for (to, from) in frame.rgb.chunks_exact_mut(row_len).zip(rows(row_len)) {
                to.copy_from_slice(from);
            }
            Ok(())
        }
        Format::Bgr3 => {
            for (to, from) in frame.rgb.chunks_exact_mut(row_len).zip(rows(row_len)) {
                for (to, from) in to.chunks_exact_mut(3).zip(from.chunks_exact(3)) {
                    to.copy_from_slice(&[from[2], from[1], from[0]]);
                }
            }
            Ok(())
        }
        Format::Grey => {
            for (to, from) in frame.rgb.chunks_exact_mut(width * 3).zip(rows(row_len)) {
                for (to, from) in to.chunks_exact_mut(3).zip(from) {
                    to.fill(*from);
                }
            }
            Ok(())
        }
        Format::Yuyv | Format::Uyvy | Format::Nv12 => {
            let size = [width, height];
            yuv_to_rgb(format, colours, bytes, stride, size, &mut frame.rgb)
        }
    }
}

/// Decodes one JPEG of exactly the given size.
///
/// # Errors
/// What is wrong with it. A picture that ends early is an error, not a picture with a grey rest.
pub fn jpeg(bytes: &[u8], [width, height]: [usize; 2], rgb: &mut [u8]) -> Result<(), &'static str> {
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .set_strict_mode(true)
        .set_max_width(width)
        .set_max_height(height);
    // In strict mode the decoder still takes a picture without an end: that one was cut off.
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    if !bytes[..end].ends_with(&[0xFF, 0xD9]) {
        return Err("JPEG without an end");
    }
    // A coded picture is hardly ever longer than it is in YUYV.
    huffman::completed(&bytes[..end], width * height * 2, |whole| {
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(whole), options);
        decoder
            .decode_headers()
            .map_err(|_| "JPEG with a broken header, or too large")?;
        if decoder.dimensions() != Some((width, height)) {
            return Err("JPEG of another size than agreed");
        }
        decoder.decode_into(rgb).map_err(|_| "broken JPEG")
    })
}

/// Size of a JPEG.
///
/// # Errors
/// What is wrong with it.
pub fn jpeg_size(bytes: &[u8]) -> Result<(usize, usize), String> {
    let mut decoder = JpegDecoder::new(ZCursor::new(bytes));
    decoder
        .decode_headers()
        .map_err(|error| format!("{error:?}"))?;
    decoder.dimensions().ok_or_else(|| "no size".to_owned())
}

#[cfg(any(feature = "v4l", feature = "gstreamer"))]
fn yuv_to_rgb(
    format: Format,
    colours: Colours,
    bytes: &[u8],
    stride: usize,
    [width, height]: [usize; 2],
    rgb: &mut [u8],
) -> Result<(), &'static str> {
    use yuv::{YuvBiPlanarImage, YuvConversionMode, YuvPackedImage, YuvRange, YuvStandardMatrix};
    let range = match colours.range {
        Range::Limited => YuvRange::Limited,
        Range::Full => YuvRange::Full,
    };
    let matrix = match colours.matrix {
        Matrix::Bt601 => YuvStandardMatrix::Bt601,
        Matrix::Bt709 => YuvStandardMatrix::Bt709,
        Matrix::Bt2020 => YuvStandardMatrix::Bt2020,
        // Its two weights and not its name: what yuv 0.8.20 has ready by that name is off by up to 25 of 255 at full range.
        Matrix::Smpte240 => YuvStandardMatrix::Custom(0.212, 0.087),
    };
    let (width, height) = (width as u32, height as u32);
    let packed = YuvPackedImage {
        yuy: bytes,
        yuy_stride: stride as u32,
        width,
        height,
    };
    let done = match format {
        Format::Yuyv => yuv::yuyv422_to_rgb(&packed, rgb, width * 3, range, matrix),
        Format::Uyvy => yuv::uyvy422_to_rgb(&packed, rgb, width * 3, range, matrix),
        _ => {
            let (y_plane, uv_plane) = bytes.split_at(stride * height as usize);
            let image = YuvBiPlanarImage {
                y_plane,
                y_stride: stride as u32,
                uv_plane,
                uv_stride: stride as u32,
                width,
                height,
            };
            let mode = YuvConversionMode::Balanced;
            yuv::yuv_nv12_to_rgb(&image, rgb, width * 3, range, matrix, mode)
        }
    };
    done.map_err(|_| "YUV picture of an impossible size")
}

#[cfg(not(any(feature = "v4l", feature = "gstreamer")))]
fn yuv_to_rgb(
    _: Format,
    _: Colours,
    _: &[u8],
    _: usize,
    _: [usize; 2],
    _: &mut [u8],
) -> Result<(), &'static str> {
    Err("YUV picture, which only kernel cameras and pipelines give")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A picture with colours that survive compression: soft gradients.
    pub(crate) fn soft(width: usize, height: usize, phase: usize) -> Vec<u8> {
        let pixel = |at: usize| {
            let (x, y) = (at % width, at / width);
            [
                60 + x * 120 / width,
                40 + (y * 150 / height + phase) % 200,
                200 - x * 100 / width,
            ]
        };
        (0..width * height)
            .flat_map(pixel)
            .map(|value| value as u8)
            .collect()
    }

    pub(crate) fn jpeg_of(rgb: &[u8], width: usize, height: usize) -> Vec<u8> {
        let mut out = Vec::new();
        jpeg_encoder::Encoder::new(&mut out, 92)
            .encode(
                rgb,
                width as u16,
                height as u16,
                jpeg_encoder::ColorType::Rgb,
            )
            .expect("encodes");
        out
    }

    #[track_caller]
    fn close(found: &[u8], expected: &[u8], most: u8) {
        assert_eq!(found.len(), expected.len());
        let worst = found
            .iter()
            .zip(expected)
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(
            worst.is_some_and(|worst| worst <= most),
            "{worst:?}, at most {most}"
        );
    }

    #[test]
    fn jpeg_comes_out_as_it_went_in() {
        let rgb = soft(64, 48, 0);
        let mut frame = Frame::black(64, 48);
        let bytes = jpeg_of(&rgb, 64, 48);
        assert_eq!(
            into_rgb(Format::Mjpg, &bytes, 0, [64, 48], &mut frame),
            Ok(())
        );
        close(&frame.rgb, &rgb, 12);
        // Padding behind the end, as drivers leave it.
        let padded = [&bytes[..], &[0; 100]].concat();
        assert_eq!(
            into_rgb(Format::Mjpg, &padded, 0, [64, 48], &mut frame),
            Ok(())
        );
    }

    #[test]
    fn a_jpeg_that_is_short_broken_or_of_another_size_is_refused() {
        let bytes = jpeg_of(&soft(64, 48, 0), 64, 48);
        let mut frame = Frame::black(64, 48);
        let mut check = |bytes: &[u8], size| into_rgb(Format::Mjpg, bytes, 0, size, &mut frame);
        for len in [0, 1, 20, bytes.len() / 2, bytes.len() - 1] {
            assert!(check(&bytes[..len], [64, 48]).is_err(), "{len} bytes");
        }
        assert!(check(&bytes, [64, 40]).is_err());
        assert!(check(&bytes, [640, 480]).is_err());
    }

    #[test]
    fn raw_rows_with_padding() {
        let rgb = soft(10, 4, 0);
        let mut frame = Frame::black(10, 4);
        let padded: Vec<u8> = rgb
            .chunks(30)
            .flat_map(|row| [row, &[7, 7]].concat())
            .collect();
        assert_eq!(
            into_rgb(Format::Rgb3, &padded, 32, [10, 4], &mut frame),
            Ok(())
        );
        assert_eq!(frame.rgb, rgb);
        let swapped: Vec<u8> = rgb.chunks(3).flat_map(|p| [p[2], p[1], p[0]]).collect();
        assert_eq!(
            into_rgb(Format::Bgr3, &swapped, 30, [10, 4], &mut frame),
            Ok(())
        );
        assert_eq!(frame.rgb, rgb);
        let grey: Vec<u8> = (0..40).collect();
        assert_eq!(
            into_rgb(Format::Grey, &grey, 10, [10, 4], &mut frame),
            Ok(())
        );
        assert_eq!(&frame.rgb[..6], &[0, 0, 0, 1, 1, 1]);
        assert!(into_rgb(Format::Grey, &grey[..39], 10, [10, 4], &mut frame).is_err());
        assert!(into_rgb(Format::Rgb3, &grey, 10, [10, 4], &mut frame).is_err());
    }

    #[cfg(any(feature = "v4l", feature = "gstreamer"))]
    #[test]
    fn yuv_comes_out_as_the_standard_says() {
        // BT.601, narrow range: 8-bit red is Y 81, U 90, V 240; grey 128 is Y 126, U 128, V 128.
        let mut frame = Frame::black(16, 8);
        for (y, u, v, rgb) in [(81, 90, 240, [254, 0, 0]), (126, 128, 128, [128, 128, 128])] {
            let yuyv: Vec<u8> = [y, u, y, v].repeat(8 * 8);
            let uyvy: Vec<u8> = [u, y, v, y].repeat(8 * 8);
            let nv12: Vec<u8> = [vec![y; 16 * 8], [u, v].repeat(8 * 4)].concat();
            for (format, bytes, stride) in [
                (Format::Yuyv, yuyv, 32),
                (Format::Uyvy, uyvy, 32),
                (Format::Nv12, nv12, 16),
            ] {
                assert_eq!(
                    into_rgb(format, &bytes, stride, [16, 8], &mut frame),
                    Ok(())
                );
                close(&frame.rgb, &rgb.repeat(16 * 8), 2);
            }
        }
    }

    /// All three formats of one colour, red 200 with 40 of the others, as `y`, `u` and `v` of these colours.
    #[cfg(any(feature = "v4l", feature = "gstreamer"))]
    #[track_caller]
    fn check_red(range: Range, matrix: Matrix, [y, u, v]: [u8; 3]) {
        let mut frame = Frame::black(16, 8);
        let yuyv: Vec<u8> = [y, u, y, v].repeat(8 * 8);
        let uyvy: Vec<u8> = [u, y, v, y].repeat(8 * 8);
        let nv12: Vec<u8> = [vec![y; 16 * 8], [u, v].repeat(8 * 4)].concat();
        for (format, bytes, stride) in [
            (Format::Yuyv, yuyv, 32),
            (Format::Uyvy, uyvy, 32),
            (Format::Nv12, nv12, 16),
        ] {
            let colours = Colours { range, matrix };
            let done = declared_into_rgb(format, colours, &bytes, stride, [16, 8], &mut frame);
            assert_eq!(done, Ok(()), "{format:?}");
            close(&frame.rgb, &[200_u8, 40, 40].repeat(16 * 8), 3);
        }
    }

    /// By the definition of each standard: brightness is `kr` R + `kg` G + `kb` B, and so on.
    #[cfg(any(feature = "v4l", feature = "gstreamer"))]
    #[test]
    fn yuv_is_read_as_the_camera_declares_it() {
        check_red(Range::Limited, Matrix::Bt601, [91, 104, 198]);
        check_red(Range::Full, Matrix::Bt601, [88, 101, 208]);
        check_red(Range::Limited, Matrix::Bt709, [80, 112, 198]);
        check_red(Range::Full, Matrix::Bt709, [74, 110, 208]);
        check_red(Range::Limited, Matrix::Bt2020, [86, 108, 198]);
        check_red(Range::Full, Matrix::Bt2020, [82, 106, 208]);
        check_red(Range::Limited, Matrix::Smpte240, [79, 112, 198]);
        check_red(Range::Full, Matrix::Smpte240, [74, 109, 208]);
    }

    #[test]
    fn brightness_alone_is_the_last_choice() {
        assert_eq!(Format::ALL.last(), Some(&Format::Grey));
    }

    #[test]
    fn formats_and_their_characters() {
        for format in Format::ALL {
            assert_eq!(Format::from_fourcc(format.fourcc()), Some(format));
            assert_eq!(format.name().as_bytes(), format.fourcc());
        }
        assert_eq!(Format::from_fourcc(*b"JPEG"), Some(Format::Mjpg));
        assert_eq!(Format::from_fourcc(*b"H264"), None);
        // All are asked for, in their order, by every name that they have.
        let mut asked = Format::FOURCCS.map(Format::from_fourcc).to_vec();
        assert!(Format::FOURCCS.contains(b"JPEG"));
        asked.dedup();
        assert_eq!(asked, Format::ALL.map(Some));
    }
}
