// SPDX-License-Identifier: Apache-2.0
//! The state frame: header, this body, n positions, n velocities, n torques where they are measured, CRC. It echoes what the motor controller last
//! accepted, which is the only proof that a command arrived.

use super::delay::Delay;
use super::health::{Health, Window};
use super::order::{Retired, advance};
use super::reject::Reject;
use super::{
    CRC_LEN, HEADER_LEN, Header, Identity, MAGIC, Opened, open, read_joints, seal, whole_joints,
    write_joints,
};
use crate::core::limits::JOINTS_MAX;
use crate::core::observation::JointState;
use crate::core::units::{MS, Mono};
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
pub(super) struct Body {
    pub(super) measured_ns: u64,
    pub(super) boot_id: u64,
    pub(super) echo_counter: u32,
    pub(super) accepted: u32,
    pub(super) rejected: u32,
    pub(super) limit_violations: u32,
    pub(super) motor_mode: u8,
    pub(super) last_reject: u8,
    pub(super) joints: u8,
    pub(super) holding: u8,
    pub(super) torques: u8,
    pub(super) padding: [u8; 3],
}

/// Bytes of one number.
const NUMBER_LEN: usize = size_of::<f64>();
const BODY_LEN: usize = size_of::<Body>();
/// Bytes of a state frame without its joints.
pub const STATE_LEN_MIN: usize = HEADER_LEN + BODY_LEN + CRC_LEN;
/// Bytes of the longest state frame.
pub const STATE_LEN_MAX: usize = STATE_LEN_MIN + JOINTS_MAX * 3 * NUMBER_LEN;

/// A state that was on its way for longer than this is refused: the robot is elsewhere by now. Ten periods at 200 Hz;
/// its age in the history is judged more strictly, but counts from its arrival.
pub const STATE_DELAY_MAX_NS: u64 = 50 * MS;

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
        torques: u8::from(report.state.torques),
        padding: [0; 3],
    };
    let arrays = if report.state.torques { 3 } else { 2 };
    let length = STATE_LEN_MIN + joints * arrays * NUMBER_LEN;
    let (fixed, rest) = frame
        .get_mut(HEADER_LEN..length)?
        .split_at_mut_checked(BODY_LEN)?;
    fixed.copy_from_slice(bytemuck::bytes_of(&body));
    let (positions, velocities) = (&report.state.position, &report.state.velocity);
    let numbers = positions
        .iter()
        .take(joints)
        .chain(velocities.iter().take(joints));
    // Where there are none, there is no room for them either.
    write_joints(rest, numbers.chain(report.state.torque.iter().take(joints)));
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
    read(&unseal(frame, identity)?)
}

fn unseal(frame: &[u8], identity: Identity) -> Result<Opened<'_, Body>, Reject> {
    let opened = open(frame, identity, STATE_LEN_MAX)?;
    whole_joints(opened.rest, NUMBER_LEN)?;
    Ok(opened)
}

/// The last checks: finiteness, number of joints, mode.
fn read(opened: &Opened<'_, Body>) -> Result<Report, Reject> {
    let Opened { header, body, rest } = opened;
    let joints = usize::from(body.joints);
    let mut state = JointState {
        joints,
        measured: Mono(body.measured_ns),
        holding: body.holding != 0,
        torques: body.torques != 0,
        ..JointState::NEVER
    };
    let (position, velocity) = (&mut state.position, &mut state.velocity);
    if state.torques {
        read_joints(rest, joints, [position, velocity, &mut state.torque])?;
    } else {
        read_joints(rest, joints, [position, velocity])?;
    }
    Ok(Report {
        counter: header.counter,
        epoch: header.epoch,
        boot_id: body.boot_id,
        echo_counter: body.echo_counter,
        accepted: body.accepted,
        rejected: body.rejected,
        limit_violations: body.limit_violations,
        mode: MotorMode::from_code(body.motor_mode).ok_or(Reject::Mode)?,
        last_reject: body.last_reject,
        state,
    })
}

/// The receiving end's memory: order, delay, health, and whether the motor controller was restarted.
#[derive(Clone, Debug)]
pub struct StateReceiver {
    identity: Identity,
    state_delay_ns: u64,
    /// The newest stamp, and when that was by our clock.
    newest: Option<(Mono, Mono)>,
    last: Option<(u64, u32)>,
    retired: Retired,
    delay: Delay,
    window: Window,
}

impl StateReceiver {
    /// A receiver that has heard nothing.
    #[must_use]
    pub fn new(identity: Identity) -> StateReceiver {
        StateReceiver {
            identity,
            state_delay_ns: 0,
            newest: None,
            last: None,
            retired: Retired::NONE,
            delay: Delay::default(),
            window: Window::default(),
        }
    }

    /// The joints were where a frame says this long before even the fastest frame comes: reading the bus, and the way.
    #[must_use]
    pub fn delayed_by(mut self, state_delay_ns: u64) -> StateReceiver {
        self.state_delay_ns = state_delay_ns;
        self
    }

    /// Takes a frame that arrived at `now`, by the receiver's own clock. With it, whether the motor controller was
    /// restarted: its boot id is another one than before.
    ///
    /// The frame's stamp is of the motor controller's clock, with which ours has nothing in common. So the time of
    /// measurement is given in ours: when the frame came, less what it was later than the fastest, less the declared delay.
    ///
    /// Checked in this order: length, CRC, magic and version, data id, schema, boot id (not of an earlier start),
    /// counter, delay, finiteness, number of joints, mode.
    ///
    /// # Errors
    /// [`Reject`]; such a frame changes nothing but the stream's [`Health`].
    pub fn accept(&mut self, now: Mono, frame: &[u8]) -> Result<(Report, bool), Reject> {
        let mut accepted = self.check(now, frame);
        match &mut accepted {
            Ok((report, restarted)) => {
                self.learn(now, report, *restarted);
                report.state.measured = self.in_our_time(now, report.state.measured);
            }
            Err(reject) => self.window.bad(now, *reject),
        }
        accepted
    }

    fn check(&self, now: Mono, frame: &[u8]) -> Result<(Report, bool), Reject> {
        let opened = unseal(frame, self.identity)?;
        let (boot_id, counter) = (opened.body.boot_id, opened.header.counter);
        if self.retired.contains(boot_id) {
            return Err(Reject::Epoch);
        }
        let restarted = match self.last {
            None => false,
            Some((last_boot, last)) if last_boot == boot_id => {
                match advance(last, counter) {
                    // How long nothing came is judged by the states' age, not by the counter.
                    Ok(_) | Err(Reject::Jump) => false,
                    Err(reject) => return Err(reject),
                }
            }
            Some(_) => true,
        };
        let sent = Mono(opened.header.sent_ns);
        // After a restart or silence the other end's clock may be another one.
        let comparable = !restarted && !self.window.silent(now);
        if comparable && self.delay.late_ns(now, sent) > STATE_DELAY_MAX_NS {
            return Err(Reject::Expired);
        }
        let mut report = read(&opened)?;
        report.state.received = now;
        Ok((report, restarted))
    }

    fn learn(&mut self, now: Mono, report: &Report, restarted: bool) {
        if let Some((last_boot, _)) = self.last
            && restarted
        {
            self.retired.add(last_boot);
        }
        if restarted || self.window.silent(now) {
            (self.delay, self.newest) = (Delay::default(), None);
        }
        // The frame's own stamp is its measurement's: what it waited before it was sent counts too.
        self.delay.learn(now, report.state.measured);
        self.window.good(now);
        self.last = Some((report.boot_id, report.counter));
    }

    /// When what is stamped `stamp` was measured. The same stamp again is the same time: nothing was measured since.
    fn in_our_time(&mut self, now: Mono, stamp: Mono) -> Mono {
        if let Some((newest, at)) = self.newest
            && stamp <= newest
        {
            return at;
        }
        let before_ns = self.delay.late_ns(now, stamp);
        let at = now.minus_ns(before_ns.saturating_add(self.state_delay_ns));
        self.newest = Some((stamp, at));
        at
    }

    /// How the stream is doing.
    #[must_use]
    pub fn health(&self, now: Mono) -> Health {
        self.window.health(now)
    }
}
