// SPDX-License-Identifier: Apache-2.0
//! The event frame: header, this body, CRC; always of one length. It says that something happened (a stop, a call for
//! help, an arming), for people and for gateways. Nothing waits for an event, and nothing safe depends on one.

use super::reject::Reject;
use super::{CRC_LEN, HEADER_LEN, Header, Identity, MAGIC, Opened, open, seal};
use crate::core::units::Mono;
use bytemuck::{Pod, Zeroable};

/// The fixed part of the body: all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Body {
    pub(super) at_ns: u64,
    pub(super) value_bits: u64,
    pub(super) frame_seq: u32,
    pub(super) chunk_id: u32,
    pub(super) bundle_hash: u32,
    pub(super) code: u16,
    pub(super) mode: u8,
    pub(super) cause: u8,
}

/// Bytes of an event frame.
pub const EVENT_LEN: usize = HEADER_LEN + size_of::<Body>() + CRC_LEN;

/// What an event tells. A code is never given a second meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Code {
    /// The mode or its cause is another one. Value: 0.
    ModeChanged = 1,
    /// Held by one cause for 5 s: a person should look. Value: seconds held so far.
    Help = 2,
    /// The policy was not sure enough of so many chunks in a row: a person should look. Value: their number.
    Unsure = 3,
    /// The policy misses its parity fixture, a person let it through, and it drives now. Told at each arming. Value: its
    /// largest error as a part of the action's range.
    Unproven = 4,
}

impl Code {
    /// What has this code; `None` for a code of a later version.
    #[must_use]
    pub const fn from_code(code: u16) -> Option<Code> {
        Some(match code {
            1 => Code::ModeChanged,
            2 => Code::Help,
            3 => Code::Unsure,
            4 => Code::Unproven,
            _ => return None,
        })
    }
}

/// One event, as meant. The wire carries codes that this version does not know as they are: who reads them says so.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// One more for each event.
    pub counter: u32,
    /// Arming during which it happened; 0 for none.
    pub epoch: u32,
    /// The sender's clock when it was sent.
    pub sent: Mono,
    /// The sender's clock when it happened.
    pub at: Mono,
    /// A number that belongs to it, in the unit that its code says; any bit pattern, so compare bits.
    pub value: f64,
    /// Frame that the robot acted on; 0 for none.
    pub frame_seq: u32,
    /// Chunk that it acted on; 0 for none.
    pub chunk_id: u32,
    /// Short hash of the policy bundle.
    pub bundle_hash: u32,
    /// What happened: a [`Code`].
    pub code: u16,
    /// Mode of the supervisor after it.
    pub mode: u8,
    /// Why; 0 for none.
    pub cause: u8,
}

/// Writes `event` into `frame` and returns its length; `None` if the buffer is too small.
pub fn encode(event: &Event, identity: Identity, frame: &mut [u8]) -> Option<usize> {
    let body = Body {
        at_ns: event.at.0,
        value_bits: event.value.to_bits(),
        frame_seq: event.frame_seq,
        chunk_id: event.chunk_id,
        bundle_hash: event.bundle_hash,
        code: event.code,
        mode: event.mode,
        cause: event.cause,
    };
    frame
        .get_mut(HEADER_LEN..EVENT_LEN - CRC_LEN)?
        .copy_from_slice(bytemuck::bytes_of(&body));
    let header = Header {
        magic: MAGIC,
        length: u32::try_from(EVENT_LEN).ok()?,
        counter: event.counter,
        data_id: identity.data_id,
        schema: identity.schema,
        epoch: event.epoch,
        sent_ns: event.sent.0,
    };
    seal(frame, &header)
}

/// Reads an event that is whole and ours.
///
/// # Errors
/// [`Reject`].
pub fn decode(frame: &[u8], identity: Identity) -> Result<Event, Reject> {
    let Opened { header, body, rest } = open::<Body>(frame, identity, EVENT_LEN)?;
    if !rest.is_empty() {
        return Err(Reject::Length);
    }
    Ok(Event {
        counter: header.counter,
        epoch: header.epoch,
        sent: Mono(header.sent_ns),
        at: Mono(body.at_ns),
        value: f64::from_bits(body.value_bits),
        frame_seq: body.frame_seq,
        chunk_id: body.chunk_id,
        bundle_hash: body.bundle_hash,
        code: body.code,
        mode: body.mode,
        cause: body.cause,
    })
}

#[cfg(test)]
mod tests {
    use super::Code;

    #[test]
    fn the_codes_are_those_of_the_wire() {
        for (number, code) in [
            (1, Code::ModeChanged),
            (2, Code::Help),
            (3, Code::Unsure),
            (4, Code::Unproven),
        ] {
            assert_eq!((code as u16, Code::from_code(number)), (number, Some(code)));
        }
        for foreign in [0, 5, 300, u16::MAX] {
            assert_eq!(Code::from_code(foreign), None, "{foreign}");
        }
    }
}
