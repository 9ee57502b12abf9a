// SPDX-License-Identifier: Apache-2.0
//! The picture frame: header, this body, raw RGB, CRC. For cameras that are reached over the link.

use super::reject::Reject;
use super::{CRC_LEN, HEADER_LEN, Header, Identity, MAGIC, Opened, open, seal};
use crate::core::units::Mono;
use bytemuck::{Pod, Zeroable};

/// The fixed part of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Body {
    pub(super) captured_ns: u64,
    pub(super) width: u16,
    pub(super) height: u16,
    pub(super) padding: [u8; 4],
}

const BODY_LEN: usize = size_of::<Body>();
/// Bytes around the pixels.
pub const PICTURE_OVERHEAD: usize = HEADER_LEN + BODY_LEN + CRC_LEN;
/// Bytes of the longest picture frame: 4K, and a bound on what a receiver computes a CRC over.
pub const PICTURE_LEN_MAX: usize = PICTURE_OVERHEAD + 3840 * 2160 * 3;

/// A picture in a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture<'a> {
    /// One more for each picture of the camera.
    pub seq: u32,
    /// When it was captured, by the sender's clock.
    pub captured: Mono,
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 8-bit RGB, row-major.
    pub rgb: &'a [u8],
}

/// Where the pixels go in a frame buffer for [`encode`]: write them there first.
pub fn pixels(frame: &mut [u8]) -> Option<&mut [u8]> {
    let end = frame.len().checked_sub(CRC_LEN)?;
    frame.get_mut(HEADER_LEN + BODY_LEN..end)
}

/// Seals a frame whose pixels stand in [`pixels`] already. The buffer must be exactly the frame's size.
pub fn encode(
    frame: &mut [u8],
    seq: u32,
    captured: Mono,
    width: u16,
    height: u16,
    identity: Identity,
) -> Option<usize> {
    let length = PICTURE_OVERHEAD + usize::from(width) * usize::from(height) * 3;
    if frame.len() != length {
        return None;
    }
    let body = Body {
        captured_ns: captured.0,
        width,
        height,
        padding: [0; 4],
    };
    frame
        .get_mut(HEADER_LEN..HEADER_LEN + BODY_LEN)?
        .copy_from_slice(bytemuck::bytes_of(&body));
    let header = Header {
        magic: MAGIC,
        length: u32::try_from(length).ok()?,
        counter: seq,
        data_id: identity.data_id,
        schema: identity.schema,
        epoch: 0,
        sent_ns: captured.0,
    };
    seal(frame, &header)
}

/// Reads a picture.
///
/// # Errors
/// [`Reject`].
pub fn decode(frame: &[u8], identity: Identity) -> Result<Picture<'_>, Reject> {
    let Opened { header, body, rest } = open::<Body>(frame, identity, PICTURE_LEN_MAX)?;
    // In 64 bits: the largest sizes that the fields can say do not fit into a microcontroller's usize.
    if rest.len() as u64 != u64::from(body.width) * u64::from(body.height) * 3 {
        return Err(Reject::Length);
    }
    Ok(Picture {
        seq: header.counter,
        captured: Mono(body.captured_ns),
        width: usize::from(body.width),
        height: usize::from(body.height),
        rgb: rest,
    })
}
