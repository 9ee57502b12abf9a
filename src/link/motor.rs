// SPDX-License-Identifier: Apache-2.0
//! The motor controller's side of the link: what a gateway in front of real servos must do, as a plain value.
//!
//! It takes frames, checks them ([`crate::core::wire`]), and says at each of its own steps where each joint shall be.
//! Between two commands it moves on a line ([`super::line`]); up to three missing commands are bridged at the
//! commanded speed; then it brakes by itself ([`super::brake`]), and stays stopped until it is armed anew. It refuses
//! a first command away from the measured pose, positions outside its own limits and steps faster than them
//! ([`super::implied`]); counts commands that imply more than the limits; and reports all of it.
//!
//! It reads no clock and touches no motor: the shell does. It is a reference for, and no substitute of, the safety
//! functions of real drives.
//!
//! ```text
//!            a keep-alive heard; first good command of a new epoch, at the pose
//!   IDLE ------------------------------------------------------> FOLLOWING
//!    ^  <--------------- keep-alive (disarmed) -----------------  |  |  |
//!    |                                                            |  |  | torque off, e-stop (from anywhere)
//!    |  new epoch                                                 |  |  +-----------> TORQUE OFF -- new epoch --> FOLLOWING
//!    +- STOPPED <---- silence, or a link not to be trusted -------+--+
//! ```

use super::brake::{Brake, gentle_stop_fits};
use super::implied::Implied;
use super::line::{Easing, Line};
use crate::core::action::{JointKind, Setpoint};
use crate::core::governor::limits::Joint;
use crate::core::limits::JOINTS_MAX;
use crate::core::observation::JointState;
use crate::core::units::{MS, Mono};
use crate::core::wire::Identity;
use crate::core::wire::command::{
    Command, CommandReceiver, MODE_FOLLOW, MODE_TORQUE_OFF, START_TOLERANCE,
};
use crate::core::wire::health::Health;
use crate::core::wire::reject::Reject;
use crate::core::wire::state::{self, MotorMode, Report};

/// Silence after which it stops by itself, unless four command periods are longer; never longer than the last command
/// said that it is valid.
pub const SILENCE_NS: u64 = 20 * MS;

/// What the motor controller must know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Identity of the command stream.
    pub commands: Identity,
    /// Identity of the state stream.
    pub states: Identity,
    /// Kind and limits of each joint; more than [`JOINTS_MAX`] are ignored.
    pub joints: Vec<Joint>,
    /// Nominal time between two commands.
    pub period_ns: u64,
    /// Random number of this start.
    pub boot_id: u64,
}

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Motor {
    settings: Settings,
    receiver: CommandReceiver,
    mode: MotorMode,
    /// Whether the emergency stop is pressed.
    pressed: bool,
    /// Whether a keep-alive has come since the start: whoever armed before it armed another controller.
    disarmed_heard: bool,
    /// Arming of the last accepted command; 0 before the first.
    epoch: u32,
    /// The epoch in which it stopped; commands of it are refused.
    stopped_epoch: u32,
    echo_counter: u32,
    heard: Mono,
    valid_for_ns: u64,
    line: Line,
    easing: Easing,
    /// While it brakes.
    brakes: Option<[Brake; JOINTS_MAX]>,
    target: Setpoint,
    measured: JointState,
    implied: Implied,
    accepted: u32,
    rejected: u32,
    last_reject: u8,
    limit_violations: u32,
    reports: u32,
}

impl Motor {
    /// At rest at `pose`; joints that it does not name are at 0.
    #[must_use]
    pub fn new(mut settings: Settings, pose: &[f64]) -> Motor {
        settings.joints.truncate(JOINTS_MAX);
        let mut at = Setpoint::at_rest(pose);
        at.joints = settings.joints.len();
        Motor {
            receiver: CommandReceiver::new(settings.commands),
            mode: MotorMode::Idle,
            pressed: false,
            disarmed_heard: false,
            epoch: 0,
            stopped_epoch: 0,
            echo_counter: 0,
            heard: Mono(0),
            valid_for_ns: 0,
            line: Line::at(&at),
            easing: Easing::NONE,
            brakes: None,
            target: at,
            measured: JointState {
                joints: at.joints,
                position: at.position,
                ..JointState::NEVER
            },
            implied: Implied::NONE,
            accepted: 0,
            rejected: 0,
            last_reject: 0,
            limit_violations: 0,
            reports: 0,
            settings,
        }
    }

    /// Takes a frame from the link.
    ///
    /// # Errors
    /// [`Reject`]; the frame has no effect but on the counters, and, if it is one too many, a stop.
    pub fn on_command(&mut self, now: Mono, frame: &[u8]) -> Result<(), Reject> {
        let taken = self.take(now, frame);
        match taken {
            Ok(()) => self.accepted = self.accepted.wrapping_add(1),
            Err(reject) => {
                self.last_reject = reject as u8;
                self.rejected = self.rejected.wrapping_add(1);
                let disturbed = self.receiver.health(now) == Health::Invalid;
                if disturbed && self.mode == MotorMode::Following {
                    self.stop(MotorMode::Stopped);
                }
            }
        }
        taken
    }

    fn take(&mut self, now: Mono, frame: &[u8]) -> Result<(), Reject> {
        let (command, delta) = self.receiver.accept(now, frame)?;
        if command.setpoint.joints != self.settings.joints.len() {
            return Err(Reject::Joints);
        }
        if command.mode == MODE_FOLLOW {
            self.follow(now, &command, delta)?;
        } else if command.mode == MODE_TORQUE_OFF {
            self.stop(MotorMode::TorqueOff);
        } else {
            self.disarmed_heard = true;
            if self.mode == MotorMode::Following {
                // The runtime has disarmed: hold here.
                self.leave(MotorMode::Idle);
            }
        }
        self.echo_counter = command.counter;
        self.heard = now;
        self.valid_for_ns = command.valid_for_ns();
        Ok(())
    }

    fn follow(&mut self, now: Mono, command: &Command, delta: u32) -> Result<(), Reject> {
        let starts = self.mode != MotorMode::Following;
        let armed_anew = command.epoch != 0 && command.epoch != self.stopped_epoch;
        if self.pressed || !self.disarmed_heard || !armed_anew {
            return Err(Reject::Stopped);
        }
        if self.receiver.health(now) == Health::Invalid {
            return Err(Reject::BadLink);
        }
        if starts {
            self.check_start(command)?;
        }
        let joints = &self.settings.joints;
        let (setpoint, period_s) = (&command.setpoint, self.period_s());
        let judged = self.implied.judge(setpoint, delta, joints, period_s);
        self.limit_violations = self
            .limit_violations
            .wrapping_add(u32::from(judged.excess.any()));
        if judged.excess.position {
            return Err(Reject::Limits);
        }
        if judged.excess.velocity {
            return Err(Reject::TooFast);
        }
        self.implied.follow(&judged);
        if starts {
            self.easing = Easing::new(&self.target, setpoint, joints);
            self.line = Line::at(setpoint);
            self.mode = MotorMode::Following;
            self.epoch = command.epoch;
            self.receiver.engage(command.epoch);
        } else if self.brakes.is_some() {
            // It had begun to brake before a position limit, while a command was missing.
            self.easing = Easing::NONE;
            self.line = Line::at(&self.target);
        }
        self.brakes = None;
        self.line
            .turn_to(setpoint, &judged.velocity, joints, period_s);
        Ok(())
    }

    /// The first command of an arming must be where the robot stands.
    fn check_start(&self, command: &Command) -> Result<(), Reject> {
        let asked = command.setpoint.positions().iter();
        let pairs = asked.zip(self.measured.positions());
        let away = pairs
            .zip(&self.settings.joints)
            .any(|((q, measured), joint)| match joint.kind {
                JointKind::Gripper => false,
                JointKind::Revolute | JointKind::Prismatic => {
                    (q - measured).abs() > START_TOLERANCE
                }
            });
        if away {
            Err(Reject::AwayFromPose)
        } else {
            Ok(())
        }
    }

    /// When it took the last command.
    #[must_use]
    pub fn heard(&self) -> Mono {
        self.heard
    }

    /// Moves the target on by `dt_ns` and returns it. Call it at least once a millisecond or two. `now` decides
    /// about silence, `dt_ns` how far it moves: after a gap, the shell passes one step's worth and nothing is made up
    /// for.
    pub fn step(&mut self, now: Mono, dt_ns: u64) -> &Setpoint {
        if self.mode == MotorMode::Following && self.silent(now) {
            self.stop(MotorMode::Stopped);
        }
        let dt_s = dt_ns as f64 * 1e-9;
        if dt_ns == 0 {
            return &self.target;
        }
        match self.mode {
            MotorMode::Following if self.brakes.is_none() => self.move_on(dt_s),
            MotorMode::Following | MotorMode::Idle | MotorMode::Stopped => self.brake(dt_s),
            // Without torque the joints are where they are; a motion that starts anew starts there.
            MotorMode::TorqueOff => {
                self.target.position = self.measured.position;
                self.target.velocity = [0.0; JOINTS_MAX];
            }
        }
        for (q, joint) in self.target.position.iter_mut().zip(&self.settings.joints) {
            // max and min, not clamp: limits that are the wrong way round must not panic here.
            *q = q
                .max(joint.limits.position_min)
                .min(joint.limits.position_max);
        }
        &self.target
    }

    fn silent(&self, now: Mono) -> bool {
        let patience_ns = SILENCE_NS
            .max(4 * self.settings.period_ns)
            .min(self.valid_for_ns);
        now.since_ns(self.heard) >= patience_ns
    }

    /// A step along the line. While a command is missing, only as long as a gentle stop still ends inside the limits.
    fn move_on(&mut self, dt_s: f64) {
        let (mut line, mut easing) = (self.line.clone(), self.easing.clone());
        line.advance(dt_s);
        easing.advance(dt_s);
        let mut next = self.target;
        let numbers = next.position.iter_mut().zip(&mut next.velocity);
        for (index, ((q, v), joint)) in numbers.zip(&self.settings.joints).enumerate() {
            if joint.kind == JointKind::Gripper {
                (*q, *v) = (line.goal(index), 0.0);
                continue;
            }
            let to = line.position(index) + easing.offset(index);
            (*q, *v) = (to, (to - *q) / dt_s);
            if line.past_goal() && !gentle_stop_fits(&joint.limits, *q, *v) {
                self.set_brakes();
                self.brake(dt_s);
                return;
            }
        }
        (self.line, self.easing, self.target) = (line, easing, next);
    }

    fn stop(&mut self, mode: MotorMode) {
        self.stopped_epoch = self.epoch;
        self.leave(mode);
    }

    fn leave(&mut self, mode: MotorMode) {
        self.mode = mode;
        self.implied = Implied::NONE;
        self.receiver.disengage();
        if self.brakes.is_none() {
            self.set_brakes();
        }
    }

    fn set_brakes(&mut self) {
        let mut brakes = [Brake::default(); JOINTS_MAX];
        let moving = self.target.position.iter().zip(&self.target.velocity);
        for ((brake, (q, v)), joint) in brakes.iter_mut().zip(moving).zip(&self.settings.joints) {
            *brake = Brake::begin(&joint.limits, *q, *v);
        }
        self.brakes = Some(brakes);
    }

    fn brake(&mut self, dt_s: f64) {
        let Some(brakes) = &mut self.brakes else {
            return;
        };
        let moving = self.target.position.iter_mut();
        let moving = moving.zip(&mut self.target.velocity).zip(brakes);
        for (((q, v), brake), joint) in moving.zip(&self.settings.joints) {
            if joint.kind != JointKind::Gripper {
                *v = brake.step(*v, dt_s);
                *q += *v * dt_s;
            }
        }
    }

    /// Where each joint shall be, as of the last step.
    #[must_use]
    pub fn target(&self) -> &Setpoint {
        &self.target
    }

    /// Whether what it asks of the joints is at rest.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.target.velocities().iter().all(|v| *v == 0.0)
    }

    /// What it is doing.
    #[must_use]
    pub fn mode(&self) -> MotorMode {
        self.mode
    }

    /// How the command stream is doing.
    #[must_use]
    pub fn health(&self, now: Mono) -> Health {
        self.receiver.health(now)
    }

    /// Takes a measurement and writes the state frame of it; returns its length. `None` if the buffer is too small.
    pub fn report(&mut self, measured: &JointState, frame: &mut [u8]) -> Option<usize> {
        self.measured = *measured;
        self.reports = self.reports.wrapping_add(1);
        let report = Report {
            counter: self.reports,
            epoch: self.epoch,
            boot_id: self.settings.boot_id,
            echo_counter: self.echo_counter,
            accepted: self.accepted,
            rejected: self.rejected,
            limit_violations: self.limit_violations,
            mode: self.mode,
            last_reject: self.last_reject,
            state: *measured,
        };
        state::encode(&report, self.settings.states, frame)
    }

    /// Commands accepted since the start.
    #[must_use]
    pub fn accepted(&self) -> u32 {
        self.accepted
    }

    /// Frames refused since the start.
    #[must_use]
    pub fn rejected(&self) -> u32 {
        self.rejected
    }

    /// Commands that implied more than the limits, whether they were refused for it or not.
    #[must_use]
    pub fn limit_violations(&self) -> u32 {
        self.limit_violations
    }

    /// The robot's emergency stop is pressed or released. Pressed, torque is off and no arming is taken; released, nothing
    /// moves until somebody arms anew.
    pub fn emergency_stop(&mut self, pressed: bool) {
        self.pressed = pressed;
        if pressed && self.mode != MotorMode::TorqueOff {
            self.stop(MotorMode::TorqueOff);
        }
    }

    /// Puts the joints at `pose`, at rest, following nothing: the robot was carried there.
    pub fn place(&mut self, pose: &[f64]) {
        self.stop(MotorMode::Idle);
        let joints = self.target.joints;
        self.target = Setpoint::at_rest(pose);
        self.target.joints = joints;
        self.line = Line::at(&self.target);
        self.brakes = None;
        self.measured.position = self.target.position;
    }

    fn period_s(&self) -> f64 {
        self.settings.period_ns as f64 * 1e-9
    }
}

#[cfg(test)]
mod tests;
