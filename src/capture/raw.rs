// SPDX-License-Identifier: Apache-2.0
//! Pictures of GStreamer in ordinary memory -> 8-bit RGB in the caller's buffer, as the stream declares its colours.

use super::decode::{self, Format};
use crate::ports::Frame;
use gstreamer as gst;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::VideoFrameExt;
use gstreamer_video::{VideoFormat, VideoInfo};
use yuv::{
    YuvBiPlanarImage, YuvConversionMode, YuvPackedImage, YuvPlanarImage, YuvRange,
    YuvStandardMatrix,
};

/// What is taken as it comes, the cheapest for the processor first; those of four bytes a pixel, which are the most to move,
/// last.
pub const FORMATS: [VideoFormat; 13] = [
    VideoFormat::Rgb,
    VideoFormat::Bgr,
    VideoFormat::Nv12,
    VideoFormat::I420,
    VideoFormat::Yuy2,
    VideoFormat::Uyvy,
    VideoFormat::Y42b,
    VideoFormat::Y444,
    VideoFormat::Gray8,
    VideoFormat::Rgbx,
    VideoFormat::Bgrx,
    VideoFormat::Rgba,
    VideoFormat::Bgra,
];

/// Converts into `frame.rgb`, which allocates once.
///
/// # Errors
/// What is wrong with the buffer.
pub fn into_rgb(
    buffer: &gst::BufferRef,
    info: &VideoInfo,
    [width, height]: [usize; 2],
    frame: &mut Frame,
) -> Result<(), &'static str> {
    if (info.width() as usize, info.height() as usize) != (width, height) {
        return Err("picture of another size than agreed");
    }
    let picture = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, info)
        .map_err(|_| "buffer shorter than its picture")?;
    let plane = |index: u32| -> Result<(&[u8], u32), &'static str> {
        let bytes = picture
            .plane_data(index)
            .map_err(|_| "picture without a plane")?;
        let stride = picture
            .plane_stride()
            .get(index as usize)
            .copied()
            .unwrap_or(0);
        Ok((
            bytes,
            u32::try_from(stride).map_err(|_| "picture upside down")?,
        ))
    };
    let packed = |format: Format, frame: &mut Frame| {
        let (bytes, stride) = plane(0)?;
        decode::into_rgb(format, bytes, stride as usize, [width, height], frame)
    };
    match info.format() {
        VideoFormat::Rgb => return packed(Format::Rgb3, frame),
        VideoFormat::Bgr => return packed(Format::Bgr3, frame),
        VideoFormat::Gray8 => return packed(Format::Grey, frame),
        _ => {}
    }
    // As the stream says; what is of neither kind is narrow BT.601, as cameras send.
    let range = match info.colorimetry().range() {
        gst_video::VideoColorRange::Range0_255 => YuvRange::Full,
        _ => YuvRange::Limited,
    };
    let matrix = match info.colorimetry().matrix() {
        gst_video::VideoColorMatrix::Bt709 => YuvStandardMatrix::Bt709,
        gst_video::VideoColorMatrix::Bt2020 => YuvStandardMatrix::Bt2020,
        _ => YuvStandardMatrix::Bt601,
    };
    frame.rgb.resize(width * height * 3, 0);
    (frame.width, frame.height) = (width, height);
    let (width, height, row) = (width as u32, height as u32, width as u32 * 3);
    let rgb = &mut frame.rgb;
    let (y_plane, y_stride) = plane(0)?;
    let done = match info.format() {
        VideoFormat::Rgbx | VideoFormat::Rgba => {
            yuv::rgba_to_rgb(y_plane, y_stride, rgb, row, width, height)
        }
        VideoFormat::Bgrx | VideoFormat::Bgra => {
            yuv::bgra_to_rgb(y_plane, y_stride, rgb, row, width, height)
        }
        VideoFormat::Yuy2 | VideoFormat::Uyvy => {
            let image = YuvPackedImage {
                yuy: y_plane,
                yuy_stride: y_stride,
                width,
                height,
            };
            match info.format() {
                VideoFormat::Yuy2 => yuv::yuyv422_to_rgb(&image, rgb, row, range, matrix),
                _ => yuv::uyvy422_to_rgb(&image, rgb, row, range, matrix),
            }
        }
        VideoFormat::Nv12 => {
            let (uv_plane, uv_stride) = plane(1)?;
            let image = YuvBiPlanarImage {
                y_plane,
                y_stride,
                uv_plane,
                uv_stride,
                width,
                height,
            };
            yuv::yuv_nv12_to_rgb(&image, rgb, row, range, matrix, YuvConversionMode::Balanced)
        }
        format => {
            let ((u_plane, u_stride), (v_plane, v_stride)) = (plane(1)?, plane(2)?);
            let image = YuvPlanarImage {
                y_plane,
                y_stride,
                u_plane,
                u_stride,
                v_plane,
                v_stride,
                width,
                height,
            };
            match format {
                VideoFormat::I420 => yuv::yuv420_to_rgb(&image, rgb, row, range, matrix),
                VideoFormat::Y42b => yuv::yuv422_to_rgb(&image, rgb, row, range, matrix),
                VideoFormat::Y444 => yuv::yuv444_to_rgb(&image, rgb, row, range, matrix),
                _ => return Err("picture of a format that was not asked for"),
            }
        }
    };
    done.map_err(|_| "picture of an impossible size")
}
