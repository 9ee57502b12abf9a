// SPDX-License-Identifier: Apache-2.0
//! The command frame: header, this body, n positions, n velocities, CRC.

use super::{CRC_LEN, HEADER_LEN, Header, Identity, MAGIC, Reject, advance, open, seal};
use crate::core::action::Setpoint;
use crate::core::chunk::Provenance;
use crate::core::limits::JOINTS_MAX;
use crate::core::units::Mono;
use bytemuck::{Pod, Zeroable};

/// Follow the positions.
pub const MODE_FOLLOW: u8 = 1;
/// A keep-alive: positions show where the robot is believed to be and are not followed.
pub const MODE_KEEP_ALIVE: u8 = 0;
/// Cut torque.
pub const MODE_TORQUE_OFF: u8 = 2;

/// The fixed part of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Body {
    captured_ns: u64,
    valid_for_us: u32,
    frame_seq: u32,
    chunk_id: u32,
    bundle_hash: u32,
    action: u16,
    mode: u8,
    joints: u8,
    verdict: u8,
    padding: [u8; 3],
}

const BODY_LEN: usize = size_of::<Body>();
/// Bytes of the longest command frame.
pub const COMMAND_LEN_MAX: usize = HEADER_LEN + BODY_LEN + JOINTS_MAX * 16 + CRC_LEN;

/// One command, as meant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Command {
    /// One more for each command.
    pub counter: u32,
    /// Arming it belongs to; 0 for none.
    pub epoch: u32,
    /// The sender's clock.
    pub sent: Mono,
    /// It may be acted on for this long after it arrives.
    pub valid_for_us: u32,
    /// [`MODE_FOLLOW`], [`MODE_KEEP_ALIVE`] or [`MODE_TORQUE_OFF`].
    pub mode: u8,
    /// 0 passed, 1 shaped, else 16 + the cause for which the robot is held.
    pub verdict: u8,
    /// Index of the action in its chunk.
    pub action: u16,
    /// Which frame and chunk it is made of.
    pub provenance: Provenance,
    /// Positions and velocities.
    pub setpoint: Setpoint,
}

/// Writes `command` into `frame` and returns its length; `None` if the buffer is too small.
pub fn encode(command: &Command, identity: Identity, frame: &mut [u8]) -> Option<usize> {
    let joints = command.setpoint.joints.min(JOINTS_MAX);
    let body = Body {
        captured_ns: command.provenance.captured.0,
        valid_for_us: command.valid_for_us,
        frame_seq: command.provenance.frame_seq,
        chunk_id: command.provenance.chunk_id,
        bundle_hash: command.provenance.bundle_hash,
        action: command.action,
        mode: command.mode,
        joints: u8::try_from(joints).ok()?,
        verdict: command.verdict,
        padding: [0; 3],
    };
    let length = HEADER_LEN + BODY_LEN + joints * 16 + CRC_LEN;
    let rest = frame.get_mut(HEADER_LEN..length)?;
    rest.get_mut(..BODY_LEN)?
        .copy_from_slice(bytemuck::bytes_of(&body));
    let numbers = command
        .setpoint
        .positions()
        .iter()
        .chain(command.setpoint.velocities());
    for (slot, number) in rest.get_mut(BODY_LEN..)?.chunks_exact_mut(8).zip(numbers) {
        slot.copy_from_slice(&number.to_le_bytes());
    }
    let header = Header {
        magic: MAGIC,
        length: u32::try_from(length).ok()?,
        counter: command.counter,
        data_id: identity.data_id,
        schema: identity.schema,
        epoch: command.epoch,
        sent_ns: command.sent.0,
    };
    seal(frame, &header)
}

/// Reads a frame that is complete, uncorrupted and ours. Order and age are the [`CommandReceiver`]'s.
///
/// # Errors
/// [`Reject`].
pub fn decode(frame: &[u8], identity: Identity) -> Result<Command, Reject> {
    let (header, rest) = open(frame, identity)?;
    let (fixed, numbers) = rest.split_at_checked(BODY_LEN).ok_or(Reject::Length)?;
    let body: Body = bytemuck::pod_read_unaligned(fixed);
    let joints = usize::from(body.joints);
    if joints > JOINTS_MAX || numbers.len() != joints * 16 {
        return Err(Reject::Length);
    }
    let mut setpoint = Setpoint {
        joints,
        position: [0.0; JOINTS_MAX],
        velocity: [0.0; JOINTS_MAX],
    };
    let (positions, velocities) = numbers.split_at_checked(joints * 8).ok_or(Reject::Length)?;
    read_numbers(positions, &mut setpoint.position)?;
    read_numbers(velocities, &mut setpoint.velocity)?;
    Ok(Command {
        counter: header.counter,
        epoch: header.epoch,
        sent: Mono(header.sent_ns),
        valid_for_us: body.valid_for_us,
        mode: body.mode,
        verdict: body.verdict,
        action: body.action,
        provenance: Provenance {
            frame_seq: body.frame_seq,
            captured: Mono(body.captured_ns),
            chunk_id: body.chunk_id,
            bundle_hash: body.bundle_hash,
        },
        setpoint,
    })
}

/// Reads little-endian doubles; all must be finite.
pub(super) fn read_numbers(bytes: &[u8], into: &mut [f64]) -> Result<(), Reject> {
    for (slot, chunk) in into.iter_mut().zip(bytes.chunks_exact(8)) {
        *slot = bytemuck::pod_read_unaligned(chunk);
        if !slot.is_finite() {
            return Err(Reject::NotFinite);
        }
    }
    Ok(())
}

/// The receiving end's memory: order and arming. Age is judged where the command is used.
#[derive(Clone, Debug)]
pub struct CommandReceiver {
    identity: Identity,
    last: Option<(u32, u32)>,
    retired: Option<u32>,
}

impl CommandReceiver {
    /// A receiver that has heard nothing.
    #[must_use]
    pub fn new(identity: Identity) -> CommandReceiver {
        CommandReceiver {
            identity,
            last: None,
            retired: None,
        }
    }

    /// Takes a frame; what it returns is whole, ours, newer than everything before, and how many counters it is ahead
    /// (1 when none was lost; also for the first).
    ///
    /// # Errors
    /// [`Reject`].
    pub fn accept(&mut self, frame: &[u8]) -> Result<(Command, u32), Reject> {
        let command = decode(frame, self.identity)?;
        if command.epoch != 0 && self.retired == Some(command.epoch) {
            return Err(Reject::Epoch);
        }
        let delta = match self.last {
            None => 1,
            // A new arming starts its own order: counters go on, but a restarted sender may begin anywhere.
            Some((epoch, _)) if epoch != command.epoch && command.epoch != 0 => 1,
            Some((_, counter)) => advance(counter, command.counter)?,
        };
        if let Some((epoch, _)) = self.last
            && epoch != command.epoch
            && epoch != 0
        {
            self.retired = Some(epoch);
        }
        self.last = Some((command.epoch, command.counter));
        Ok((command, delta))
    }

    /// Forgets the order, after silence: a restarted sender begins anywhere. Its old arming stays over.
    pub fn forget(&mut self) {
        if let Some((epoch, _)) = self.last.take()
            && epoch != 0
        {
            self.retired = Some(epoch);
        }
    }
}
