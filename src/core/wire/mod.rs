// SPDX-License-Identifier: Apache-2.0
//! The wire: bytes between runtime and motor controller, with end-to-end protection.
//!
//! Four frames, little-endian, fixed layout: [`command`], [`state`], [`event`], [`picture`]. Each starts with the same
//! [`Header`] and ends with a CRC-32 over everything before it. A receiver drops what is corrupt, foreign, repeated,
//! out of order or late, by its own clock and for a named reason ([`reject`]), and knows how its stream is doing
//! ([`health`]). Bytes that come from outside are never trusted: decoding is total, its work is bounded by the longest
//! frame, it allocates nothing and never panics. [`layout`] lists every field; `docs/wire.md` and
//! `include/tendon_wire.h` (the same checks in C, for a microcontroller) are tested against it.
//!
//! What it does not do: decide what a command may ask for (the governor before it, the motor controller behind it),
//! and carry anything (the link).
//!
//! **Why not the `autosar-e2e` crate.** The protection is that of AUTOSAR E2E profile 4: length, counter, data id,
//! CRC-32 with polynomial 0xF4ACFB13. The crate implements the profiles to the letter, and the letter does not fit: profile 4
//! has a 16-bit counter, which at 200 Hz wraps in 5.5 minutes and so cannot tell a command from one that was recorded
//! five minutes ago; its header has no place for arm epoch, schema and send time, which would form a second header behind the
//! first; a check object is built for one data length, while a command's depends on the robot; and its status enum
//! would have to be translated into [`reject::Reject`] in any case. What would be left of it is the CRC, which
//! the `crc` crate has (`CRC_32_AUTOSAR`, from the catalogue, checked against its published check value).
//!
//! What the CRC promises: Hamming distance 6 up to 4 KiB, so any five wrong bits of a command or state are seen, and
//! any burst up to 32 bits; what is worse is missed once in 2^32. It is no signature: who may send is a matter of the
//! link's authentication.

pub mod command;
pub mod delay;
pub mod event;
pub mod health;
pub mod layout;
pub mod order;
pub mod picture;
pub mod reject;
pub mod state;
#[cfg(test)]
mod tests;

use bytemuck::{Pod, Zeroable};
use crc::{CRC_32_AUTOSAR, Crc};
use reject::Reject;

/// "TD" and the layout's version; a receiver refuses any other.
pub const MAGIC: u32 = u32::from_le_bytes([b'T', b'D', 1, 0]);
/// Bytes of the CRC at the end of each frame.
pub const CRC_LEN: usize = 4;

// Slicing by 16: 16 KiB of table, and a command of 7 joints takes 0.1 us instead of 0.5.
const CRC: Crc<u32, crc::Table<16>> = Crc::<u32, crc::Table<16>>::new(&CRC_32_AUTOSAR);

// The structs are copied to and from the wire as they lie in memory.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "the wire is little-endian; a big-endian machine needs byte swaps in this room"
);

/// CRC-32/AUTOSAR, as at the end of each frame.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

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
    /// Runtime to whoever listens.
    Event = 4,
    /// A person's device to the runtime: command frames.
    Takeover = 5,
    /// A deadman switch elsewhere to the runtime: command frames without joints.
    Deadman = 6,
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

/// A frame that is whole and ours: its header, its fixed body and what follows that, CRC left out.
struct Opened<'a, Body> {
    header: Header,
    body: Body,
    rest: &'a [u8],
}

/// Checks what every frame must satisfy by itself, in this order: length, CRC, magic and version, data id, schema.
/// `length_max` bounds the work: a longer frame is refused before its CRC is computed.
fn open<Body: Pod>(
    frame: &[u8],
    identity: Identity,
    length_max: usize,
) -> Result<Opened<'_, Body>, Reject> {
    let (head, tail) = frame.split_at_checked(HEADER_LEN).ok_or(Reject::Length)?;
    let header: Header = bytemuck::pod_read_unaligned(head);
    if header.length as usize != frame.len() || frame.len() > length_max {
        return Err(Reject::Length);
    }
    let (fixed, tail) = tail
        .split_at_checked(size_of::<Body>())
        .ok_or(Reject::Length)?;
    let (rest, crc) = tail.split_last_chunk::<CRC_LEN>().ok_or(Reject::Length)?;
    let covered = frame.get(..frame.len() - CRC_LEN).ok_or(Reject::Length)?;
    if CRC.checksum(covered).to_le_bytes() != *crc {
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
    Ok(Opened {
        header,
        body: bytemuck::pod_read_unaligned(fixed),
        rest,
    })
}

/// Bytes of one joint's numbers: position and velocity.
const JOINT_LEN: usize = 16;

/// Whether what follows the fixed body can be whole joints of `joint_len` bytes each.
fn whole_joints(rest: &[u8], joint_len: usize) -> Result<(), Reject> {
    if rest.len().is_multiple_of(joint_len) {
        Ok(())
    } else {
        Err(Reject::Length)
    }
}

/// Reads `joints` numbers into each of `arrays`, one array after the other. All numbers of the frame must be finite,
/// and it must hold exactly so many.
fn read_joints<const N: usize>(
    rest: &[u8],
    joints: usize,
    arrays: [&mut [f64]; N],
) -> Result<(), Reject> {
    let numbers = || {
        rest.chunks_exact(8)
            .map(bytemuck::pod_read_unaligned::<f64>)
    };
    if !numbers().all(f64::is_finite) {
        return Err(Reject::NotFinite);
    }
    let room = arrays.iter().all(|array| joints <= array.len());
    if !room || rest.len() != joints * N * 8 {
        return Err(Reject::Joints);
    }
    let slots = arrays
        .into_iter()
        .flat_map(|array| array.iter_mut().take(joints));
    for (slot, number) in slots.zip(numbers()) {
        *slot = number;
    }
    Ok(())
}

/// Writes positions, then velocities.
fn write_joints<'a>(into: &mut [u8], numbers: impl Iterator<Item = &'a f64>) {
    for (slot, number) in into.chunks_exact_mut(8).zip(numbers) {
        slot.copy_from_slice(&number.to_le_bytes());
    }
}
