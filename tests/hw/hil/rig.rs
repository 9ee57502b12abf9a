// SPDX-License-Identifier: Apache-2.0
//! The runtime's end of the link, by hand: every frame that goes to the motor controller is made here, good or bad, and
//! every state that comes back is kept.

use std::sync::{Arc, Mutex, PoisonError};
use tendon::config::Robot;
use tendon::core::action::{JointKind, Setpoint};
use tendon::core::chunk::Provenance;
use tendon::core::limits::JOINTS_MAX;
use tendon::core::units::{MS, Mono};
use tendon::core::wire::command::{self, COMMAND_LEN_MAX, Command, MODE_FOLLOW, MODE_KEEP_ALIVE};
use tendon::core::wire::reject::Reject;
use tendon::core::wire::state::{self, MotorMode, Report};
use tendon::link::keys;
use tendon::link::runtime_end::{CommandSender, subscribe};
use tendon::runtime::clock::{self, Ticks};
use tendon::runtime::deployment::Identities;
use zenoh::Session;
use zenoh::pubsub::Subscriber;

/// Slow enough for a hand to follow, rad/s (m/s for a prismatic joint: a fifth of it).
const SPEED: f64 = 0.2;
/// How far the joint sways from where it stood, rad; times a fifth for a prismatic one.
const REACH: f64 = 0.3;
/// Every command may be acted on for this long.
const VALID_FOR_US: u32 = 100_000;

/// A state report, and when it came.
#[derive(Clone, Copy, Debug)]
pub struct Heard {
    pub at: Mono,
    pub report: Report,
}

/// What is moved, where from and where to.
#[derive(Clone, Debug)]
pub struct Sway {
    pub joint: usize,
    from: Setpoint,
    /// With its sign: towards the middle of the range.
    reach: f64,
    omega_rad_s: f64,
}

impl Sway {
    /// Out and back, beginning and turning at rest; fastest after a quarter of a turn.
    pub fn at(&self, time_s: f64) -> Setpoint {
        let (sin, cos) = (self.omega_rad_s * time_s).sin_cos();
        let mut setpoint = self.from;
        setpoint.position[self.joint] += self.reach * (1.0 - cos) / 2.0;
        setpoint.velocity[self.joint] = self.reach * self.omega_rad_s * sin / 2.0;
        setpoint
    }

    pub fn speed_max(&self) -> f64 {
        self.reach.abs() * self.omega_rad_s / 2.0
    }

    /// When it is fastest.
    pub fn fastest_s(&self) -> f64 {
        std::f64::consts::FRAC_PI_2 / self.omega_rad_s
    }

    /// The same reach, in a turn of `turn_s`.
    pub fn turning_in(mut self, turn_s: f64, reach: f64) -> Sway {
        self.omega_rad_s = std::f64::consts::TAU / turn_s;
        self.reach = self.reach.signum() * reach;
        self
    }
}

pub struct Rig {
    pub robot: Robot,
    pub period_ns: u64,
    pub identities: Identities,
    sender: CommandSender,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// When each command was sent, by its counter less the first.
    pub sent: Vec<(u32, Mono, Setpoint)>,
    counter: u32,
    pub epoch: u32,
    _subscriber: Subscriber<()>,
}

impl Rig {
    pub fn new(session: &Session, robot: Robot, period_ns: u64) -> Result<Rig, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let identities = Identities::of(&robot.name, &robot.joints);
        let sender = CommandSender::new(session, &robot.name).map_err(|error| said(&error))?;
        let heard: Arc<Mutex<Vec<Heard>>> = Arc::default();
        let into = Arc::clone(&heard);
        let subscriber = subscribe(session, keys::state(&robot.name), move |frame| {
            let at = clock::now();
            if let Ok(report) = state::decode(frame, identities.states) {
                let mut heard = into.lock().unwrap_or_else(PoisonError::into_inner);
                heard.push(Heard { at, report });
            }
        });
        Ok(Rig {
            sender,
            heard,
            sent: Vec::new(),
            counter: 0,
            // Any other than the last run's, which the motor controller remembers.
            epoch: (clock::now().0 >> 20) as u32 | 1,
            _subscriber: subscriber.map_err(|error| said(&error))?,
            robot,
            period_ns,
            identities,
        })
    }

    /// How many states have come: a mark for [`Rig::since`].
    pub fn mark(&self) -> usize {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The states since a mark.
    pub fn since(&self, mark: usize) -> Vec<Heard> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(mark..).unwrap_or_default().to_vec()
    }

    /// The newest state.
    pub fn last(&self) -> Result<Heard, String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.last().copied().ok_or_else(|| {
            "no state frame of this robot has come: is the motor controller connected, and are robot's name, joints and order the same at both ends?".into()
        })
    }

    pub fn mode(&self) -> Result<MotorMode, String> {
        Ok(self.last()?.report.mode)
    }

    /// Where it stands, at rest.
    pub fn pose(&self) -> Result<Setpoint, String> {
        let state = self.last()?.report.state;
        Ok(Setpoint::at_rest(state.positions()))
    }

    /// The next command as it should be; not sent.
    pub fn command(&mut self, mode: u8, setpoint: &Setpoint) -> Command {
        self.counter = self.counter.wrapping_add(1);
        let now = clock::now();
        Command {
            counter: self.counter,
            epoch: if mode == MODE_KEEP_ALIVE {
                0
            } else {
                self.epoch
            },
            sent: now,
            valid_for_us: VALID_FOR_US,
            mode,
            verdict: 0,
            action: 0,
            provenance: Provenance::default(),
            setpoint: *setpoint,
            tool: None,
        }
    }

    pub fn bytes(&self, command: &Command) -> Vec<u8> {
        let mut frame = [0; COMMAND_LEN_MAX];
        let length = command::encode(command, self.identities.commands, &mut frame);
        frame[..length.unwrap_or(0)].to_vec()
    }

    pub fn send_bytes(&self, frame: &[u8]) {
        // Whether it came is seen in the echo.
        let _ = self.sender.send(frame);
    }

    pub fn send(&mut self, command: &Command) {
        self.sent
            .push((command.counter, clock::now(), command.setpoint));
        self.send_bytes(&self.bytes(command));
    }

    /// Keep-alives at the command rate.
    pub fn keep_alive(&mut self, ms: u64) -> Result<(), String> {
        self.keep_alive_slower(ms, 0)
    }

    /// Keep-alives that are a fiftieth slower: they come at every phase of the controller's own period.
    pub fn keep_alive_out_of_step(&mut self, ms: u64) -> Result<(), String> {
        self.keep_alive_slower(ms, (self.period_ns / 50) as i64)
    }

    fn keep_alive_slower(&mut self, ms: u64, by_ns: i64) -> Result<(), String> {
        let mut ticks = Ticks::new(clock::now(), self.period_ns);
        let end = clock::now().plus_ns(ms * MS);
        while clock::now() < end {
            ticks.wait();
            ticks.shift(by_ns);
            let pose = self.pose()?;
            let command = self.command(MODE_KEEP_ALIVE, &pose);
            self.send(&command);
        }
        Ok(())
    }

    /// Commands at the command rate: `path` of the time since the call in seconds and of the newest state, until it ends.
    pub fn follow(
        &mut self,
        mut path: impl FnMut(f64, &Heard) -> Option<Setpoint>,
    ) -> Result<(), String> {
        let start = clock::now();
        let mut ticks = Ticks::new(start, self.period_ns);
        loop {
            let now = ticks.wait().woke;
            let time_s = now.since_ns(start) as f64 * 1e-9;
            let Some(setpoint) = path(time_s, &self.last()?) else {
                return Ok(());
            };
            let command = self.command(MODE_FOLLOW, &setpoint);
            self.send(&command);
        }
    }

    /// Asks for a new arming, at rest where it stands; whether it was taken is seen in the mode.
    pub fn ask_to_arm(&mut self) -> Result<Setpoint, String> {
        // What is bad within a second counts against the link: begin with a clean one.
        self.keep_alive(1_200)?;
        self.epoch = self.epoch.wrapping_add(1).max(1);
        let pose = self.pose()?;
        self.follow(|s, _| (s < 0.3).then_some(pose))?;
        Ok(pose)
    }

    /// A new arming that must be taken.
    pub fn arm(&mut self) -> Result<Setpoint, String> {
        let pose = self.ask_to_arm()?;
        match self.last()?.report {
            Report {
                mode: MotorMode::Following,
                ..
            } => Ok(pose),
            other => Err(format!(
                "expected the motor controller to follow a new arming at its own pose, found {:?}, last refusal: {}",
                other.mode,
                reason(other.last_reject)
            )),
        }
    }

    /// Waits for rest: no joint faster than 0.02 for 50 ms, at most 3 s.
    pub fn rest(&mut self) -> Result<(), String> {
        let (mut still, end) = (0, clock::now().plus_ns(3_000 * MS));
        while clock::now() < end {
            clock::sleep_until(clock::now().plus_ns(10 * MS));
            let state = self.last()?.report.state;
            let joints = state.velocity.iter().take(state.joints);
            let moves = joints.map(|v| v.abs()).any(|v| v > 0.02);
            still = if moves { 0 } else { still + 1 };
            if still >= 5 {
                return Ok(());
            }
        }
        Err("the robot did not come to rest within 3 s".into())
    }

    /// Sway of `joint` from `pose`.
    pub fn sway(&self, joint: usize, pose: &Setpoint) -> Result<Sway, String> {
        let (name, known) = self.robot.joints.get(joint).ok_or("no such joint")?;
        let scale = match known.kind {
            JointKind::Revolute => 1.0,
            JointKind::Prismatic => 0.2,
            JointKind::Gripper => return Err(format!("{name} is a gripper")),
        };
        let limits = &known.limits;
        let at = pose.position[joint];
        let (above, below) = (limits.position_max - at, at - limits.position_min);
        let room = above.max(below) * 0.8;
        let reach = (REACH * scale).min(room);
        if reach < 0.2 * scale {
            return Err(format!(
                "{name} stands at {at:.3}, too near to its limits to be moved"
            ));
        }
        let speed = (SPEED * scale).min(0.2 * limits.velocity_max);
        Ok(Sway {
            joint,
            from: *pose,
            reach: if above >= below { reach } else { -reach },
            omega_rad_s: (2.0 * speed / reach)
                .min((limits.acceleration_max / reach).sqrt())
                .min((limits.jerk_max / reach).cbrt()),
        })
    }
}

/// The words for a code.
pub fn reason(code: u8) -> String {
    Reject::from_code(code).map_or_else(|| "none".into(), |reject| reject.to_string())
}

/// How far a joint went between two states.
pub fn travel(from: &Heard, to: &Heard, joint: usize) -> f64 {
    to.report.state.position[joint] - from.report.state.position[joint]
}

/// The furthest that any joint is from `pose`; grippers are left out.
pub fn furthest(robot: &Robot, pose: &Setpoint, states: &[Heard]) -> f64 {
    let arms = |index: &usize| robot.joints[*index].1.kind != JointKind::Gripper;
    let joints = (0..robot.joints.len().min(JOINTS_MAX)).filter(arms);
    let apart = joints.flat_map(|joint| {
        let at = pose.position[joint];
        let each = states.iter();
        each.map(move |heard| (heard.report.state.position[joint] - at).abs())
    });
    apart.fold(0.0, f64::max)
}
