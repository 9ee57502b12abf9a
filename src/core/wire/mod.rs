// SPDX-License-Identifier: Apache-2.0
//! The wire: bytes between runtime and motor controller, with end-to-end protection.
//!
//! Three frames, little-endian, fixed layout: [`command`], [`state`], [`picture`]. Each starts with the same
//! [`Header`] and ends with a CRC-32 over everything before it. A receiver drops what is corrupt, foreign, repeated,
//! out of order or expired, by its own clock. Bytes that come from outside are never trusted: decoding is total, its
//! work is bounded by the longest frame, and it never panics.
//!
//! The CRC is CRC-32/AUTOSAR (polynomial 0xF4ACFB13, AUTOSAR E2E profile 4): Hamming distance 6 up to 4 KiB, so any
//! five wrong bits of a command are seen. The `autosar-e2e` crate was not taken: profile 4 fixes a 16-bit counter in a
//! header of its own, which wraps in 5.5 minutes at 200 Hz and has no room for the arm epoch.

pub mod command;
pub mod picture;
pub mod state;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};
use crc::{CRC_32_AUTOSAR, Crc};

/// "TD" and the layout's version; a receiver refuses any other.
pub const MAGIC: u32 = u32::from_le_bytes([b'T', b'D', 1, 0]);
/// Bytes of the CRC at the end of each frame.
pub const CRC_LEN: usize = 4;
/// Furthest a counter may jump; beyond it the stream has been away for so long that it must be armed anew.
pub const COUNTER_DELTA_MAX: u32 = 1_000;

const CRC: Crc<u32, crc::Table<16>> = Crc::<u32, crc::Table<16>>::new(&CRC_32_AUTOSAR);

/// What a frame is; the low byte of the data id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Runtime to motor controller.
    Command = 1,
    /// Motor controller to runtime.
    State = 2,
    /// Camera to runtime.
    Picture = 3,
}

/// The first 32 bytes of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u32,
    /// Bytes of the whole frame, CRC included.
    pub length: u32,
    /// One more for each frame of the stream; wraps.
    pub counter: u32,
    /// Robot and kind, from [`data_id`]: a frame of another robot is foreign.
    pub data_id: u32,
    /// Schema of the joints, from [`schema_id`]: names, order and kinds must be those of the receiver.
    pub schema: u32,
    /// Random number of this arming; 0 while not armed.
    pub epoch: u32,
    /// The sender's monotonic clock when it was made.
    pub sent_ns: u64,
}

/// Bytes of [`Header`].
pub const HEADER_LEN: usize = size_of::<Header>();

/// Why a frame was dropped. The code travels in the state's echo.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[repr(u8)]
pub enum Reject {
    /// Shorter or longer than its kind allows, or than it says.
    #[error("length")]
    Length = 1,
    /// The CRC does not match.
    #[error("CRC")]
    Crc = 2,
    /// Not our magic, or another version.
    #[error("magic or version")]
    Magic = 3,
    /// Another robot or another kind of frame.
    #[error("data id: another robot or stream")]
    DataId = 4,
    /// Another set of joints.
    #[error("joint schema: names, order or number of joints differ")]
    Schema = 5,
    /// An arming that is over.
    #[error("arm epoch: from an earlier arming")]
    Epoch = 6,
    /// Repeated or out of order.
    #[error("counter: repeated or out of order")]
    Repeated = 7,
    /// Too many frames were lost before it.
    #[error("counter: jumped too far")]
    Jump = 8,
    /// Older than it says it may be.
    #[error("expired")]
    Expired = 9,
    /// A number in it is NaN or infinite.
    #[error("not finite")]
    NotFinite = 10,
    /// The first command of an arming is not where the robot stands.
    #[error("first command away from the pose")]
    AwayFromPose = 11,
    /// Outside the motor controller's own limits.
    #[error("outside the motor controller's limits")]
    Limits = 12,
    /// The motor controller is stopped and waits for a new arming.
    #[error("stopped: arm again")]
    Stopped = 13,
}

/// Number of [`Reject`] codes, for tables indexed by code.
pub const REJECTS: usize = 14;

/// The stream's identity: a hash of the robot's name with the kind in the low byte.
#[must_use]
pub fn data_id(robot: &str, kind: Kind) -> u32 {
    (CRC.checksum(robot.as_bytes()) & 0xffff_ff00) | kind as u32
}

/// A hash of the joints' names and kinds in order.
pub fn schema_id<'a>(joints: impl Iterator<Item = (&'a str, u8)>) -> u32 {
    let mut digest = CRC.digest();
    for (name, kind) in joints {
        digest.update(name.as_bytes());
        digest.update(&[0, kind]);
    }
    digest.finalize()
}

/// Who is at the two ends of a stream: what a receiver expects in every header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// From [`data_id`].
    pub data_id: u32,
    /// From [`schema_id`]; 0 for pictures.
    pub schema: u32,
}

/// Writes header and CRC around a body that already stands in `frame[HEADER_LEN..length - CRC_LEN]`.
fn seal(frame: &mut [u8], header: &Header) -> Option<usize> {
    let length = usize::try_from(header.length).ok()?;
    let body_end = length.checked_sub(CRC_LEN)?;
    frame
        .get_mut(..HEADER_LEN)?
        .copy_from_slice(bytemuck::bytes_of(header));
    let crc = CRC.checksum(frame.get(..body_end)?);
    frame
        .get_mut(body_end..length)?
        .copy_from_slice(&crc.to_le_bytes());
    Some(length)
}

/// Checks what every frame must satisfy by itself: length, CRC, magic, identity; returns header and body.
fn open(frame: &[u8], identity: Identity) -> Result<(Header, &[u8]), Reject> {
    let body_end = frame
        .len()
        .checked_sub(CRC_LEN)
        .filter(|end| *end >= HEADER_LEN)
        .ok_or(Reject::Length)?;
    let (covered, crc) = frame.split_at_checked(body_end).ok_or(Reject::Length)?;
    let (head, body) = covered.split_at_checked(HEADER_LEN).ok_or(Reject::Length)?;
    let header: Header = bytemuck::pod_read_unaligned(head);
    if header.length as usize != frame.len() {
        return Err(Reject::Length);
    }
    if CRC.checksum(covered).to_le_bytes() != crc {
        return Err(Reject::Crc);
    }
    if header.magic != MAGIC {
        return Err(Reject::Magic);
    }
    if header.data_id != identity.data_id {
        return Err(Reject::DataId);
    }
    if header.schema != identity.schema {
        return Err(Reject::Schema);
    }
    Ok((header, body))
}

/// How far `counter` is ahead of `last`, or why it may not be.
fn advance(last: u32, counter: u32) -> Result<u32, Reject> {
    match counter.wrapping_sub(last) {
        0 => Err(Reject::Repeated),
        delta if delta > u32::MAX / 2 => Err(Reject::Repeated),
        delta if delta > COUNTER_DELTA_MAX => Err(Reject::Jump),
        delta => Ok(delta),
    }
}
