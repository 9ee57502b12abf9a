// SPDX-License-Identifier: Apache-2.0
//! The motor controller's side of the link: what a gateway in front of real servos must do, as a plain value.
//!
//! It takes frames, checks them ([`crate::core::wire`]), and says at each of its own steps where each joint shall be.
//! Between two commands it moves on a line; a missing command is bridged at constant velocity for up to three
//! periods; then it brakes by itself, within the acceleration limits, and stays stopped until it is armed anew. It
//! refuses a first command away from the measured pose and positions outside its own limits, counts commands that
//! imply more than the limits, and reports all of it. It reads no clock and touches no motor: the shell does.

use crate::core::action::{JointKind, Setpoint};
use crate::core::governor::limits::Joint;
use crate::core::limits::JOINTS_MAX;
use crate::core::observation::JointState;
use crate::core::units::{MS, Mono};
use crate::core::wire::command::{Command, CommandReceiver, MODE_FOLLOW, MODE_TORQUE_OFF};
use crate::core::wire::state::{self, MotorMode, Report};
use crate::core::wire::{Identity, Reject};

/// Silence after which it stops by itself, unless four command periods are longer.
pub const SILENCE_NS: u64 = 20 * MS;
/// No command may promise to be valid for longer: a sender cannot ask for infinity.
pub const VALID_FOR_MAX_NS: u64 = 200 * MS;
/// Furthest that the first command of an arming may be from the measured pose.
pub const START_TOLERANCE: f64 = 0.05;
/// What of a limit a command may exceed by rounding before it counts.
const ROUNDING: f64 = 1e-6;

/// What the motor controller must know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Identity of the command stream.
    pub commands: Identity,
    /// Identity of the state stream.
    pub states: Identity,
    /// Kind and limits of each joint.
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
    epoch: u32,
    /// The epoch in which it stopped; commands of it are refused.
    stopped_epoch: u32,
    echo_counter: u32,
    heard: Option<Mono>,
    valid_for_ns: u64,
    /// Where the line to the newest command ends, and how much of it is left.
    goal: Setpoint,
    left_ns: u64,
    target: Setpoint,
    measured: JointState,
    /// Position and implied velocity of the last followed command, for counting.
    before: Option<(Setpoint, Option<Setpoint>)>,
    accepted: u32,
    rejects: [u32; crate::core::wire::REJECTS],
    last_reject: u8,
    limit_violations: u32,
    reports: u32,
}

impl Motor {
    /// At rest at `pose`.
    #[must_use]
    pub fn new(settings: Settings, pose: &[f64]) -> Motor {
        let at = Setpoint::at_rest(pose);
        Motor {
            receiver: CommandReceiver::new(settings.commands),
            mode: MotorMode::Idle,
            epoch: 0,
            stopped_epoch: 0,
            echo_counter: 0,
            heard: None,
            valid_for_ns: 0,
            goal: at,
            left_ns: 0,
            target: at,
            measured: JointState {
                joints: at.joints,
                position: at.position,
                ..JointState::NEVER
            },
            before: None,
            accepted: 0,
            rejects: [0; crate::core::wire::REJECTS],
            last_reject: 0,
            limit_violations: 0,
            reports: 0,
            settings,
        }
    }

    /// Takes a frame from the link.
    ///
    /// # Errors
    /// [`Reject`]; the frame has no effect but on the counters.
    pub fn on_command(&mut self, now: Mono, frame: &[u8]) -> Result<(), Reject> {
        let taken = self.take(now, frame);
        match taken {
            Ok(()) => self.accepted = self.accepted.wrapping_add(1),
            Err(reject) => {
                self.last_reject = reject as u8;
                if let Some(count) = self.rejects.get_mut(reject as usize) {
                    *count = count.wrapping_add(1);
                }
            }
        }
        taken
    }

    fn take(&mut self, now: Mono, frame: &[u8]) -> Result<(), Reject> {
        let (command, delta) = self.receiver.accept(frame)?;
        if command.setpoint.joints != self.settings.joints.len() {
            return Err(Reject::Schema);
        }
        let follows = command.mode == MODE_FOLLOW;
        if follows && (command.epoch == 0 || command.epoch == self.stopped_epoch) {
            return Err(Reject::Stopped);
        }
        if follows {
            self.check_start(&command)?;
            self.check_limits(&command, delta)?;
        }
        self.echo_counter = command.counter;
        self.heard = Some(now);
        self.valid_for_ns = (u64::from(command.valid_for_us) * 1_000).min(VALID_FOR_MAX_NS);
        if command.mode == MODE_TORQUE_OFF {
            self.stop(MotorMode::TorqueOff);
        } else if follows {
            self.mode = MotorMode::Following;
            self.epoch = command.epoch;
            self.goal = command.setpoint;
            self.left_ns = self.settings.period_ns;
            for index in 0..self.target.joints {
                let line =
                    (self.goal.position[index] - self.target.position[index]) / self.period_s();
                self.target.velocity[index] = line;
            }
        } else if self.mode == MotorMode::Following {
            // The runtime has disarmed: hold here.
            self.mode = MotorMode::Idle;
            self.before = None;
        }
        Ok(())
    }

    /// The first command of an arming must be where the robot stands.
    fn check_start(&mut self, command: &Command) -> Result<(), Reject> {
        if self.mode == MotorMode::Following && command.epoch == self.epoch {
            return Ok(());
        }
        let pairs = command
            .setpoint
            .positions()
            .iter()
            .zip(self.measured.positions());
        let away = pairs
            .zip(&self.settings.joints)
            .any(|((q, measured), joint)| match joint.kind {
                JointKind::Gripper => false,
                JointKind::Revolute | JointKind::Prismatic => {
                    (q - measured).abs() > START_TOLERANCE
                }
            });
        if away {
            return Err(Reject::AwayFromPose);
        }
        self.before = None;
        self.target = Setpoint::at_rest(self.measured.positions());
        Ok(())
    }

    /// Refuses positions outside the limits; counts commands that imply more speed or acceleration than allowed.
    fn check_limits(&mut self, command: &Command, delta: u32) -> Result<(), Reject> {
        let now = command.setpoint;
        let inside = now
            .positions()
            .iter()
            .zip(&self.settings.joints)
            .all(|(q, joint)| {
                let room = ROUNDING * (joint.limits.position_max - joint.limits.position_min);
                (joint.limits.position_min - room..=joint.limits.position_max + room).contains(q)
            });
        if !inside {
            self.limit_violations += 1;
            return Err(Reject::Limits);
        }
        let mut slope = None;
        if let Some((before, slope_before)) = &self.before {
            let seconds = self.period_s() * f64::from(delta);
            let mut implied = now;
            let mut violated = false;
            for (index, joint) in self.settings.joints.iter().enumerate() {
                if joint.kind == JointKind::Gripper {
                    continue;
                }
                let v = (now.position[index] - before.position[index]) / seconds;
                implied.velocity[index] = v;
                violated |= v.abs() > joint.limits.velocity_max * (1.0 + ROUNDING);
                if let (1, Some(slope_before)) = (delta, slope_before) {
                    let a = (v - slope_before.velocity[index]) / seconds;
                    violated |= a.abs() > joint.limits.acceleration_max * (1.0 + ROUNDING);
                }
            }
            self.limit_violations += u32::from(violated);
            slope = (delta == 1).then_some(implied);
        }
        self.before = Some((now, slope));
        Ok(())
    }

    /// Moves the target on by `dt_ns` and returns it. Call it at least once a millisecond or two.
    pub fn step(&mut self, now: Mono, dt_ns: u64) -> &Setpoint {
        if self.mode == MotorMode::Following && self.silent(now) {
            self.stop(MotorMode::Stopped);
        }
        let dt_s = dt_ns as f64 * 1e-9;
        match self.mode {
            MotorMode::Following => {
                for index in 0..self.target.joints {
                    let gripper = self.settings.joints[index].kind == JointKind::Gripper;
                    if gripper || self.left_ns.abs_diff(dt_ns) == 0 {
                        self.target.position[index] = self.goal.position[index];
                    } else {
                        // On the line to the goal, or past it at the same velocity while a command is missing.
                        self.target.position[index] += self.target.velocity[index] * dt_s;
                    }
                    if gripper {
                        self.target.velocity[index] = 0.0;
                    }
                }
                self.left_ns = self.left_ns.saturating_sub(dt_ns);
            }
            MotorMode::Idle | MotorMode::Stopped | MotorMode::TorqueOff => self.brake(dt_s),
        }
        for (index, joint) in self.settings.joints.iter().enumerate() {
            let q = &mut self.target.position[index];
            *q = q.clamp(joint.limits.position_min, joint.limits.position_max);
        }
        &self.target
    }

    fn silent(&self, now: Mono) -> bool {
        let patience_ns = SILENCE_NS
            .max(4 * self.settings.period_ns)
            .min(self.valid_for_ns);
        self.heard
            .is_none_or(|heard| now.since_ns(heard) > patience_ns)
    }

    fn stop(&mut self, mode: MotorMode) {
        self.mode = mode;
        self.stopped_epoch = self.epoch;
        self.before = None;
        self.receiver.forget();
    }

    fn brake(&mut self, dt_s: f64) {
        for (index, joint) in self.settings.joints.iter().enumerate() {
            let v = &mut self.target.velocity[index];
            let most = joint.limits.acceleration_max * dt_s;
            *v = if v.abs() <= most {
                0.0
            } else {
                *v - most.copysign(*v)
            };
            self.target.position[index] += *v * dt_s;
        }
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

    /// Takes a measurement and writes the state frame of it; returns its length.
    pub fn report(&mut self, measured: &JointState, frame: &mut [u8]) -> Option<usize> {
        self.measured = *measured;
        self.reports = self.reports.wrapping_add(1);
        let report = Report {
            counter: self.reports,
            epoch: self.epoch,
            boot_id: self.settings.boot_id,
            echo_counter: self.echo_counter,
            accepted: self.accepted,
            rejected: self.rejected(),
            limit_violations: self.limit_violations,
            mode: self.mode,
            last_reject: self.last_reject,
            state: *measured,
        };
        state::encode(&report, self.settings.states, frame)
    }

    /// Frames refused since the start.
    #[must_use]
    pub fn rejected(&self) -> u32 {
        self.rejects
            .iter()
            .fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Commands that implied more than the limits.
    #[must_use]
    pub fn limit_violations(&self) -> u32 {
        self.limit_violations
    }

    /// Puts the joints at `pose`, at rest, following nothing: the robot was carried there.
    pub fn place(&mut self, pose: &[f64]) {
        self.stop(MotorMode::Idle);
        self.target = Setpoint::at_rest(pose);
        self.goal = self.target;
        self.measured.position = self.target.position;
    }

    fn period_s(&self) -> f64 {
        self.settings.period_ns as f64 * 1e-9
    }
}

const _: () = assert!(JOINTS_MAX <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::chunk::Provenance;
    use crate::core::governor::limits::JointLimits;
    use crate::core::wire::command::{COMMAND_LEN_MAX, MODE_KEEP_ALIVE, encode};

    const IDENTITY: Identity = Identity {
        data_id: 1,
        schema: 2,
    };
    const PERIOD_NS: u64 = 5 * MS;

    fn motor() -> Motor {
        let limits = JointLimits {
            position_min: -2.0,
            position_max: 2.0,
            velocity_max: 2.0,
            acceleration_max: 10.0,
            jerk_max: 1_000.0,
            tracking_error_max: f64::INFINITY,
        };
        let joints = vec![Joint {
            kind: JointKind::Revolute,
            limits,
        }];
        let settings = Settings {
            commands: IDENTITY,
            states: IDENTITY,
            joints,
            period_ns: PERIOD_NS,
            boot_id: 5,
        };
        Motor::new(settings, &[0.0])
    }

    fn frame(counter: u32, epoch: u32, mode: u8, q: f64) -> Vec<u8> {
        let command = Command {
            counter,
            epoch,
            sent: Mono(0),
            valid_for_us: 100_000,
            mode,
            verdict: 0,
            action: 0,
            provenance: Provenance::default(),
            setpoint: Setpoint::at_rest(&[q]),
        };
        let mut bytes = [0; COMMAND_LEN_MAX];
        let length = encode(&command, IDENTITY, &mut bytes).expect("fits");
        bytes[..length].to_vec()
    }

    /// Follows a motion at 1 rad/s for `ticks`, one command each 5 ms, and returns the time of the last one.
    fn follow(motor: &mut Motor, ticks: u32) -> u64 {
        let mut ms = 0;
        for tick in 1..=ticks {
            let v = f64::from(tick).min(20.0) * 0.05;
            let q = (1..=tick)
                .map(|k| f64::from(k).min(20.0) * 0.05 * 0.005)
                .sum::<f64>();
            assert!(v <= 1.0);
            assert_eq!(
                motor.on_command(Mono(ms * MS), &frame(tick, 9, MODE_FOLLOW, q)),
                Ok(())
            );
            for _ in 0..5 {
                ms += 1;
                motor.step(Mono(ms * MS), MS);
            }
        }
        ms
    }

    #[test]
    fn it_stops_by_itself_within_20_ms_of_silence_and_stays_stopped() {
        let mut motor = motor();
        let last_ms = follow(&mut motor, 40);
        let mut stopped_after_ms = None;
        let mut fastest = f64::MAX;
        for ms in last_ms + 1..last_ms + 300 {
            let v = motor.step(Mono(ms * MS), MS).velocity[0];
            assert!(
                v >= 0.0 && v <= fastest.max(0.0) + 1e-12,
                "it only slows down: {v}"
            );
            fastest = v;
            if motor.mode() == MotorMode::Stopped {
                stopped_after_ms.get_or_insert(ms - (last_ms - 5));
            }
        }
        assert_eq!(
            stopped_after_ms,
            Some(21),
            "counted from the last command, in steps of 1 ms"
        );
        assert!(motor.at_rest());
        assert_eq!(
            motor.on_command(Mono(900 * MS), &frame(41, 9, MODE_FOLLOW, 0.2)),
            Err(Reject::Epoch)
        );
        assert_eq!(motor.limit_violations(), 0);
    }

    #[test]
    fn three_lost_commands_are_bridged() {
        let mut motor = motor();
        let last_ms = follow(&mut motor, 40);
        for ms in last_ms + 1..=last_ms + 14 {
            assert!((motor.step(Mono(ms * MS), MS).velocity[0] - 1.0).abs() < 1e-6);
        }
        assert_eq!(motor.mode(), MotorMode::Following);
    }

    #[test]
    fn a_first_command_away_from_the_pose_is_refused() {
        let mut motor = motor();
        assert_eq!(
            motor.on_command(Mono(0), &frame(1, 9, MODE_FOLLOW, 0.06)),
            Err(Reject::AwayFromPose)
        );
        assert_eq!(
            motor.on_command(Mono(0), &frame(2, 9, MODE_FOLLOW, 0.01)),
            Ok(())
        );
        assert_eq!(
            motor.on_command(Mono(0), &frame(3, 0, MODE_FOLLOW, 0.01)),
            Err(Reject::Stopped),
            "no epoch, no motion"
        );
    }

    #[test]
    fn a_keep_alive_moves_nothing() {
        let mut motor = motor();
        for tick in 1..100 {
            assert_eq!(
                motor.on_command(
                    Mono(u64::from(tick) * PERIOD_NS),
                    &frame(tick, 0, MODE_KEEP_ALIVE, 1.5)
                ),
                Ok(())
            );
            assert_eq!(
                motor
                    .step(Mono(u64::from(tick) * PERIOD_NS), PERIOD_NS)
                    .position[0],
                0.0
            );
        }
    }

    #[test]
    fn too_fast_is_counted_and_outside_is_refused() {
        let mut motor = motor();
        for (counter, q) in [(1, 0.0), (2, 0.0), (3, 0.04)] {
            assert_eq!(
                motor.on_command(Mono(0), &frame(counter, 9, MODE_FOLLOW, q)),
                Ok(())
            );
        }
        assert_eq!(motor.limit_violations(), 1, "8 rad/s");
        assert_eq!(
            motor.on_command(Mono(0), &frame(4, 9, MODE_FOLLOW, 2.1)),
            Err(Reject::Limits)
        );
        assert_eq!(motor.limit_violations(), 2);
    }
}
