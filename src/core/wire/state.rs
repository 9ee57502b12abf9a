// SPDX-License-Identifier: Apache-2.0
//! The state frame: header, this body, n positions, n velocities, CRC. It echoes what the motor controller last
//! accepted, which is the only proof that a command arrived.

use super::command::read_numbers;
use super::{CRC_LEN, HEADER_LEN, Header, Identity, MAGIC, Reject, advance, open, seal};
use crate::core::limits::JOINTS_MAX;
use crate::core::observation::JointState;
use crate::core::units::Mono;
use bytemuck::{Pod, Zeroable};

/// What the motor controller is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MotorMode {
    /// Holding its pose, following nothing.
    Idle = 0,
    /// Following commands.
    Following = 1,
    /// Stopped by itself; waits for a new arming.
    Stopped = 2,
    /// Torque is off.
    TorqueOff = 3,
}

impl MotorMode {
    fn from_code(code: u8) -> Option<MotorMode> {
        [
            MotorMode::Idle,
            MotorMode::Following,
            MotorMode::Stopped,
            MotorMode::TorqueOff,
        ]
        .into_iter()
        .find(|mode| *mode as u8 == code)
    }
}

/// The fixed part of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
struct Body {
    measured_ns: u64,
    boot_id: u64,
    echo_counter: u32,
    accepted: u32,
    rejected: u32,
    limit_violations: u32,
    motor_mode: u8,
    last_reject: u8,
    joints: u8,
    holding: u8,
    padding: [u8; 4],
}

const BODY_LEN: usize = size_of::<Body>();
/// Bytes of the longest state frame.
pub const STATE_LEN_MAX: usize = HEADER_LEN + BODY_LEN + JOINTS_MAX * 16 + CRC_LEN;

/// One state report, as meant. The header's epoch is that of the last accepted command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// One more for each report.
    pub counter: u32,
    /// Arming of the last accepted command; 0 for none.
    pub epoch: u32,
    /// Random number of the motor controller's start.
    pub boot_id: u64,
    /// Counter of the last accepted command.
    pub echo_counter: u32,
    /// Commands accepted since its start.
    pub accepted: u32,
    /// Commands rejected since its start.
    pub rejected: u32,
    /// Accepted commands that implied more than the limits.
    pub limit_violations: u32,
    /// What it is doing.
    pub mode: MotorMode,
    /// Code of the last [`Reject`]; 0 for none.
    pub last_reject: u8,
    /// The joints; `received` is filled in by the receiver.
    pub state: JointState,
}

/// Writes `report` into `frame` and returns its length; `None` if the buffer is too small.
pub fn encode(report: &Report, identity: Identity, frame: &mut [u8]) -> Option<usize> {
    let joints = report.state.joints.min(JOINTS_MAX);
    let body = Body {
        measured_ns: report.state.measured.0,
        boot_id: report.boot_id,
        echo_counter: report.echo_counter,
        accepted: report.accepted,
        rejected: report.rejected,
        limit_violations: report.limit_violations,
        motor_mode: report.mode as u8,
        last_reject: report.last_reject,
        joints: u8::try_from(joints).ok()?,
        holding: u8::from(report.state.holding),
        padding: [0; 4],
    };
    let length = HEADER_LEN + BODY_LEN + joints * 16 + CRC_LEN;
    let rest = frame.get_mut(HEADER_LEN..length)?;
    rest.get_mut(..BODY_LEN)?
        .copy_from_slice(bytemuck::bytes_of(&body));
    let positions = report.state.position.iter().take(joints);
    let numbers = positions.chain(report.state.velocity.iter().take(joints));
    for (slot, number) in rest.get_mut(BODY_LEN..)?.chunks_exact_mut(8).zip(numbers) {
        slot.copy_from_slice(&number.to_le_bytes());
    }
    let header = Header {
        magic: MAGIC,
        length: u32::try_from(length).ok()?,
        counter: report.counter,
        data_id: identity.data_id,
        schema: identity.schema,
        epoch: report.epoch,
        sent_ns: report.state.measured.0,
    };
    seal(frame, &header)
}

/// Reads a frame that is complete, uncorrupted and ours.
///
/// # Errors
/// [`Reject`].
pub fn decode(frame: &[u8], identity: Identity) -> Result<Report, Reject> {
    let (header, rest) = open(frame, identity)?;
    let (fixed, numbers) = rest.split_at_checked(BODY_LEN).ok_or(Reject::Length)?;
    let body: Body = bytemuck::pod_read_unaligned(fixed);
    let joints = usize::from(body.joints);
    if joints > JOINTS_MAX || numbers.len() != joints * 16 {
        return Err(Reject::Length);
    }
    let mut state = JointState {
        joints,
        measured: Mono(body.measured_ns),
        ..JointState::NEVER
    };
    state.holding = body.holding != 0;
    let (positions, velocities) = numbers.split_at_checked(joints * 8).ok_or(Reject::Length)?;
    read_numbers(positions, &mut state.position)?;
    read_numbers(velocities, &mut state.velocity)?;
    Ok(Report {
        counter: header.counter,
        epoch: header.epoch,
        boot_id: body.boot_id,
        echo_counter: body.echo_counter,
        accepted: body.accepted,
        rejected: body.rejected,
        limit_violations: body.limit_violations,
        mode: MotorMode::from_code(body.motor_mode).ok_or(Reject::Magic)?,
        last_reject: body.last_reject,
        state,
    })
}

/// The receiving end's memory: order, and whether the motor controller was restarted.
#[derive(Clone, Debug)]
pub struct StateReceiver {
    identity: Identity,
    last: Option<(u64, u32)>,
}

impl StateReceiver {
    /// A receiver that has heard nothing.
    #[must_use]
    pub fn new(identity: Identity) -> StateReceiver {
        StateReceiver {
            identity,
            last: None,
        }
    }

    /// Takes a frame that arrived at `now`. `restarted` is true when the motor controller's boot id changed.
    ///
    /// # Errors
    /// [`Reject`].
    pub fn accept(&mut self, now: Mono, frame: &[u8]) -> Result<(Report, bool), Reject> {
        let mut report = decode(frame, self.identity)?;
        let restarted = match self.last {
            None => false,
            Some((boot_id, counter)) if boot_id == report.boot_id => {
                match advance(counter, report.counter) {
                    // A long silence is judged by age, not by the counter.
                    Ok(_) | Err(Reject::Jump) => false,
                    Err(reject) => return Err(reject),
                }
            }
            Some(_) => true,
        };
        self.last = Some((report.boot_id, report.counter));
        report.state.received = now;
        Ok((report, restarted))
    }
}
