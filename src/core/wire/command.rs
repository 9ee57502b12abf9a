// SPDX-License-Identifier: Apache-2.0
//! The command frame: header, this body, n positions, n velocities, where the tool is to be if it says so, CRC; and the
//! end that receives it.

use super::delay::Delay;
use super::health::{Health, SILENCE_NS, Window};
use super::order::{Retired, advance};
use super::reject::Reject;
use super::{
    CRC_LEN, HEADER_LEN, Header, Identity, JOINT_LEN, MAGIC, Opened, open, read_joints, seal,
    whole_joints, write_joints,
};
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

/// Flag: made of a plan of a policy that misses its parity fixture and was let through by a person.
pub const FLAG_UNPROVEN: u8 = 1;

/// Flag: [`Tool`] follows the joints.
pub const FLAG_TOOL: u8 = 2;

/// No command may promise to be valid for longer, whatever it says: a sender cannot ask for infinity.
pub const VALID_FOR_MAX_NS: u64 = SILENCE_NS;

/// Furthest that a first command may be from where the robot is, for each joint; rad or m. Further away it is refused
/// ([`Reject::AwayFromPose`]).
///
/// It stands here because two keep to it. A motor controller compares an arming's first command with the measured pose, grippers aside.
/// The runtime compares the first command of a person's device with what it last sent itself, grippers too.
///
/// A guess: some three degrees are more than a joint at rest sags or a hand that holds a device is off, and little enough to be eased
/// away.
pub const START_TOLERANCE: f64 = 0.05;

/// The fixed part of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Body {
    pub(super) captured_ns: u64,
    pub(super) valid_for_us: u32,
    pub(super) frame_seq: u32,
    pub(super) chunk_id: u32,
    pub(super) bundle_hash: u32,
    pub(super) action: u16,
    pub(super) mode: u8,
    pub(super) joints: u8,
    pub(super) verdict: u8,
    pub(super) flags: u8,
    pub(super) padding: [u8; 2],
}

/// Where the joints of a command put one link of the robot, and how it moves there; for a motor controller that takes
/// poses or twists instead of joints. In the base frame, of the link's own origin.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Tool {
    /// x, y, z, metres.
    pub position_m: [f64; 3],
    /// A unit quaternion: x, y, z, w.
    pub orientation: [f64; 4],
    /// Along x, y, z, m/s.
    pub velocity_m_s: [f64; 3],
    /// About x, y, z, rad/s.
    pub angular_velocity_rad_s: [f64; 3],
}

const TOOL_LEN: usize = size_of::<Tool>();
const BODY_LEN: usize = size_of::<Body>();
/// Bytes of a command frame without its joints.
pub const COMMAND_LEN_MIN: usize = HEADER_LEN + BODY_LEN + CRC_LEN;
/// Bytes of the longest command frame.
pub const COMMAND_LEN_MAX: usize = COMMAND_LEN_MIN + JOINTS_MAX * JOINT_LEN + TOOL_LEN;

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
    /// What they mean for the tool, if the robot's file asks for it.
    pub tool: Option<Tool>,
}

impl Command {
    /// One that moves nothing, of no arming: what is sent while nothing is armed.
    #[must_use]
    pub fn keep_alive(counter: u32, sent: Mono, at: Setpoint) -> Command {
        Command {
            counter,
            epoch: 0,
            sent,
            valid_for_us: 100_000,
            mode: MODE_KEEP_ALIVE,
            verdict: 0,
            action: 0,
            provenance: Provenance::default(),
            setpoint: at,
            tool: None,
        }
    }

    /// How long it may be acted on, in nanoseconds, capped at [`VALID_FOR_MAX_NS`].
    #[must_use]
    pub fn valid_for_ns(&self) -> u64 {
        valid_for_ns(self.valid_for_us)
    }
}

fn valid_for_ns(valid_for_us: u32) -> u64 {
    (u64::from(valid_for_us) * 1_000).min(VALID_FOR_MAX_NS)
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
        flags: (u8::from(command.provenance.unproven) * FLAG_UNPROVEN)
            | (u8::from(command.tool.is_some()) * FLAG_TOOL),
        padding: [0; 2],
    };
    let tool = command.tool.as_ref().map_or(&[][..], bytemuck::bytes_of);
    let length = COMMAND_LEN_MIN + joints * JOINT_LEN + tool.len();
    let (fixed, rest) = frame
        .get_mut(HEADER_LEN..length)?
        .split_at_mut_checked(BODY_LEN)?;
    fixed.copy_from_slice(bytemuck::bytes_of(&body));
    let setpoint = &command.setpoint;
    let positions = setpoint.position.iter().take(joints);
    let (numbers, rest) = rest.split_at_mut_checked(joints * JOINT_LEN)?;
    write_joints(
        numbers,
        positions.chain(setpoint.velocity.iter().take(joints)),
    );
    rest.get_mut(..tool.len())?.copy_from_slice(tool);
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
    read(&unseal(frame, identity)?)
}

fn unseal(frame: &[u8], identity: Identity) -> Result<Opened<'_, Body>, Reject> {
    let opened: Opened<'_, Body> = open(frame, identity, COMMAND_LEN_MAX)?;
    let (joints, _) = parted(&opened).ok_or(Reject::Length)?;
    whole_joints(joints, JOINT_LEN)?;
    Ok(opened)
}

/// What belongs to the joints, and what to the tool: nothing, or all of it.
fn parted<'a>(opened: &Opened<'a, Body>) -> Option<(&'a [u8], &'a [u8])> {
    let tool = match opened.body.flags & FLAG_TOOL {
        0 => 0,
        _ => TOOL_LEN,
    };
    opened
        .rest
        .split_at_checked(opened.rest.len().checked_sub(tool)?)
}

/// The last checks: finiteness, number of joints, mode.
fn read(opened: &Opened<'_, Body>) -> Result<Command, Reject> {
    let Opened { header, body, .. } = opened;
    let joints = usize::from(body.joints);
    let (rest, tool) = parted(opened).ok_or(Reject::Length)?;
    let mut numbers = tool
        .chunks_exact(8)
        .map(bytemuck::pod_read_unaligned::<f64>);
    if !numbers.all(f64::is_finite) {
        return Err(Reject::NotFinite);
    }
    let mut setpoint = Setpoint {
        joints,
        position: [0.0; JOINTS_MAX],
        velocity: [0.0; JOINTS_MAX],
    };
    read_joints(
        rest,
        joints,
        [&mut setpoint.position, &mut setpoint.velocity],
    )?;
    if ![MODE_KEEP_ALIVE, MODE_FOLLOW, MODE_TORQUE_OFF].contains(&body.mode) {
        return Err(Reject::Mode);
    }
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
            unproven: body.flags & FLAG_UNPROVEN != 0,
        },
        setpoint,
        tool: (!tool.is_empty()).then(|| bytemuck::pod_read_unaligned(tool)),
    })
}

/// The receiving end's memory: order, arming, delay, health.
#[derive(Clone, Debug)]
pub struct CommandReceiver {
    identity: Identity,
    /// Counter of the last accepted one, since the last silence.
    last: Option<u32>,
    /// The arming that the stream belongs to now; 0 before the first.
    epoch: u32,
    /// The arming that moves the robot, if one does: no other may cut in.
    engaged: Option<u32>,
    retired: Retired,
    delay: Delay,
    window: Window,
}

impl CommandReceiver {
    /// A receiver that has heard nothing.
    #[must_use]
    pub fn new(identity: Identity) -> CommandReceiver {
        CommandReceiver {
            identity,
            last: None,
            epoch: 0,
            engaged: None,
            retired: Retired::NONE,
            delay: Delay::default(),
            window: Window::default(),
        }
    }

    /// Takes a frame at `now`, by the receiver's own clock. What it returns is whole, ours, newer than everything
    /// before, not late, and of an arming that is not over; with it, how many counters it is ahead (1 when none was
    /// lost; also for the first).
    ///
    /// Checked in this order, and the first failure is the reason: length, CRC, magic and version, data id, schema,
    /// epoch, counter, delay against valid-for, finiteness, number of joints, mode. A refused frame changes nothing
    /// but the stream's [`Health`].
    ///
    /// # Errors
    /// [`Reject`].
    pub fn accept(&mut self, now: Mono, frame: &[u8]) -> Result<(Command, u32), Reject> {
        let accepted = self.check(now, frame);
        match &accepted {
            Ok((command, _)) => self.learn(now, command),
            Err(reject) => self.window.bad(now, *reject),
        }
        accepted
    }

    /// What a frame stamped `sent` and here at `now` has waited more than the fastest one, in nanoseconds.
    #[must_use]
    pub fn late_ns(&self, now: Mono, sent: Mono) -> u64 {
        self.delay.late_ns(now, sent)
    }

    fn check(&self, now: Mono, frame: &[u8]) -> Result<(Command, u32), Reject> {
        let opened = unseal(frame, self.identity)?;
        let (epoch, counter) = (opened.header.epoch, opened.header.counter);
        if epoch != 0 {
            let cuts_in = self.engaged.is_some_and(|engaged| engaged != epoch);
            if cuts_in || self.retired.contains(u64::from(epoch)) {
                return Err(Reject::Epoch);
            }
        }
        let silent = self.window.silent(now);
        let delta = match self.last {
            // A new arming starts its own order, and so does a sender that was restarted: it may begin anywhere.
            Some(_) if silent || (epoch != 0 && epoch != self.epoch) => 1,
            Some(last) => advance(last, counter)?,
            None => 1,
        };
        let late_ns = match silent {
            // The machine at the other end may be another one by now, with another clock.
            true => 0,
            false => self.delay.late_ns(now, Mono(opened.header.sent_ns)),
        };
        let valid_for_ns = valid_for_ns(opened.body.valid_for_us);
        if valid_for_ns == 0 || late_ns > valid_for_ns {
            return Err(Reject::Expired);
        }
        Ok((read(&opened)?, delta))
    }

    fn learn(&mut self, now: Mono, command: &Command) {
        if self.window.silent(now) {
            self.delay = Delay::default();
        }
        self.delay.learn(now, command.sent);
        self.window.good(now);
        self.last = Some(command.counter);
        if command.epoch != 0 && command.epoch != self.epoch {
            if self.epoch != 0 {
                self.retired.add(u64::from(self.epoch));
            }
            self.epoch = command.epoch;
        }
    }

    /// From now on the arming `epoch` moves the robot; commands of another one are refused until [`Self::disengage`].
    /// Two runtimes that both believe to be in charge are thereby one and a disturbance.
    pub fn engage(&mut self, epoch: u32) {
        self.engaged = Some(epoch);
    }

    /// The robot is no longer moved by anyone; a new arming may begin.
    pub fn disengage(&mut self) {
        self.engaged = None;
    }

    /// How the stream is doing.
    #[must_use]
    pub fn health(&self, now: Mono) -> Health {
        self.window.health(now)
    }
}
