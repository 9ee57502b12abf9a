// SPDX-License-Identifier: Apache-2.0
//! The bench robot as a robot: reached only over the link, with its own loop, its own camera and its own mind about
//! which commands it follows.
//!
//! One thread steps motors and world each two milliseconds and reports the joint state at the command rate; another
//! draws and sends pictures. The two share the world under a plain mutex: the bench is no real-time program, and its
//! motor controller stops by itself when commands cease. Scenes are set, and judged, by request under the bench's key.

use crate::bench::arm::{JOINTS, Pose};
use crate::bench::bus::{Bus, Servos};
use crate::bench::episode::{CAMERA_PX, Episode, Outcome, Spec};
use crate::bench::lens::{Lens, PictureFault};
use crate::bench::render::Camera;
use crate::bench::robot::STEP_NS;
use crate::bench::table::Table;
use crate::config::link::LinkConfig;
use crate::core::action::Setpoint;
use crate::core::governor::limits::Joint;
use crate::core::observation::JointState;
use crate::core::units::{MS, Mono};
use crate::core::wire::state::{MotorMode, STATE_LEN_MAX};
use crate::core::wire::{Identity, picture};
use crate::link::keys;
use crate::link::motor::{self, Motor};
use crate::link::robot_end::{PictureSender, RobotEnd};
use crate::link::runtime_end::answer_requests;
use crate::link::session::{self, LinkError};
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The loop's period.
const LOOP_NS: u64 = 2 * MS;
/// A camera of 30 frames a second.
const FRAME_NS: u64 = 33_333_333;
/// More than this is not made up for: a machine that slept does not fast-forward the robot.
const CATCH_UP_MAX_NS: u64 = 20 * MS;

/// What the bench robot must know of the deployment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name.
    pub robot: String,
    /// Its camera's name.
    pub camera: String,
    /// Identity of the command stream.
    pub commands: Identity,
    /// Identity of the state stream.
    pub states: Identity,
    /// Identity of the picture stream.
    pub pictures: Identity,
    /// Joints, the gripper last.
    pub joints: Vec<Joint>,
    /// Nominal time between two commands.
    pub period_ns: u64,
    /// A random number of this start.
    pub boot_id: u64,
    /// The first scene.
    pub scene: Spec,
    /// What the servos do when they hear nothing.
    pub servos: Servos,
}

/// The clock, handed in: this room reads none.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Now.
    pub now: fn() -> Mono,
    /// Sleep until.
    pub sleep_until: fn(Mono),
}

/// What can be asked of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Set this scene; refused while the robot follows commands.
    Set(Spec),
    /// Tell how things stand.
    Report,
    /// From now on this is wrong with the camera.
    Camera(PictureFault),
    /// Presses the robot's emergency stop, or releases it.
    EmergencyStop(bool),
    /// Cuts the bus between motor controller and servos, or mends it.
    CutBus(bool),
}

/// What the bench answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// What is said in this scene.
    pub sentence: String,
    /// How the episode stands.
    pub outcome: Outcome,
    /// Commands refused since the bench started.
    pub rejected: u32,
    /// Commands that implied more than the limits, since the bench started.
    pub limit_violations: u32,
    /// Whether it follows commands.
    pub following: bool,
    /// Its last stop for silence, if there was one.
    pub silenced: Option<Silenced>,
}

/// A stop for silence, by the clock of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silenced {
    /// From the last command that it took.
    pub after_ns: u64,
    /// How much of that the loop was woken late, which a motor controller's timer is not.
    pub late_ns: u64,
}

struct World {
    episode: Episode,
    motor: Motor,
    bus: Bus,
    /// One more for each scene, so that the camera notices.
    scene: u64,
    silenced: Option<Silenced>,
}

impl World {
    fn answer(&self) -> Answer {
        Answer {
            sentence: self.episode.sentence().to_owned(),
            outcome: self.episode.outcome(),
            rejected: self.motor.rejected(),
            limit_violations: self.motor.limit_violations(),
            following: self.motor.mode() == MotorMode::Following,
            silenced: self.silenced,
        }
    }

    fn set(&mut self, spec: &Spec) -> Result<Answer, String> {
        if self.motor.mode() == MotorMode::Following {
            return Err("the robot is armed: request standby first".to_owned());
        }
        self.episode = Episode::new(spec);
        let mut pose = self.episode.robot.q_rad().to_vec();
        pose.push(0.0);
        self.motor.place(&pose);
        self.scene += 1;
        Ok(self.answer())
    }
}

/// Runs until `ending` is set. `camera_fault` is the number of what is wrong with the camera ([`PictureFault`]),
/// to be changed by whoever holds it, or by request.
///
/// # Errors
/// [`LinkError`] if the link cannot be opened.
pub fn run(
    link: &LinkConfig,
    settings: &Settings,
    clock: Clock,
    ending: &Arc<AtomicBool>,
    camera_fault: &Arc<AtomicUsize>,
) -> Result<(), LinkError> {
    let (session, _) = session::open_ahead(link)?;
    let end = RobotEnd::new(&session, &settings.robot)?;
    // A camera is a device of its own: what its pictures wait for, states do not.
    let (of_camera, _) = session::open_ahead(&LinkConfig {
        listen: None,
        ..link.clone()
    })?;
    let pictures = PictureSender::new(&of_camera, &settings.robot, &settings.camera)?;
    let world = Arc::new(Mutex::new(new_world(settings)));
    let asked = Arc::clone(&world);
    let meddled = Arc::clone(camera_fault);
    let key = keys::bench(&settings.robot);
    let _answers = answer_requests(&session, key, clock.now, None, move |text, _| {
        let request: Request = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut world = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = match request {
            Request::Set(spec) => world.set(&spec)?,
            Request::Report => world.answer(),
            Request::Camera(fault) => {
                meddled.store(fault as usize, Ordering::Relaxed);
                world.answer()
            }
            Request::EmergencyStop(pressed) => {
                world.motor.emergency_stop(pressed);
                world.answer()
            }
            Request::CutBus(is_cut) => {
                world.bus.cut(is_cut);
                world.answer()
            }
        };
        serde_json::to_string(&answer).map_err(|error| error.to_string())
    })?;
    let (seen, sees, fault) = (
        Arc::clone(&world),
        Arc::clone(ending),
        Arc::clone(camera_fault),
    );
    let identity = settings.pictures;
    let camera = std::thread::spawn(move || film(&seen, &pictures, identity, clock, &sees, &fault));
    drive(&world, &end, settings.period_ns, clock, ending);
    drop(camera.join());
    Ok(())
}

fn new_world(settings: &Settings) -> World {
    let episode = Episode::new(&settings.scene);
    let motor = Motor::new(
        motor::Settings {
            commands: settings.commands,
            states: settings.states,
            joints: settings.joints.clone(),
            period_ns: settings.period_ns,
            boot_id: settings.boot_id,
        },
        &pose(&episode),
    );
    World {
        episode,
        motor,
        bus: Bus::new(settings.servos),
        scene: 1,
        silenced: None,
    }
}

/// Where the joints are, with an open gripper.
fn pose(episode: &Episode) -> Vec<f64> {
    let mut pose = episode.robot.q_rad().to_vec();
    pose.push(0.0);
    pose
}

/// Motors, world and state reports.
fn drive(world: &Mutex<World>, end: &RobotEnd, period_ns: u64, clock: Clock, ending: &AtomicBool) {
    let mut at = (clock.now)();
    let mut next_report = at;
    let mut buffer = [0; STATE_LEN_MAX];
    while !ending.load(Ordering::Relaxed) {
        let due = at.plus_ns(LOOP_NS);
        (clock.sleep_until)(due);
        let now = (clock.now)();
        at = at.max(now.minus_ns(CATCH_UP_MAX_NS));
        let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
        let World {
            episode,
            motor,
            bus,
            silenced,
            ..
        } = &mut *world;
        while let Ok(frame) = end.commands.try_recv() {
            // Refusals are counted and told in the state report.
            let _ = motor.on_command(now, &frame);
        }
        while at.plus_ns(STEP_NS) <= now {
            at = at.plus_ns(STEP_NS);
            if bus.is_cut() {
                // It reads nothing, so it knows nothing: it must not command either. It starts where it finds the joints.
                motor.place(&pose(episode));
            }
            let mode = motor.mode();
            let target = motor.step(at, STEP_NS);
            move_on(episode, bus.carry(target, STEP_NS as f64 * 1e-9), mode);
            if mode == MotorMode::Following && motor.mode() == MotorMode::Stopped {
                *silenced = Some(Silenced {
                    after_ns: now.since_ns(motor.heard()),
                    late_ns: now.since_ns(due),
                });
            }
        }
        if now >= next_report {
            next_report = next_report.plus_ns(period_ns).max(now.minus_ns(period_ns));
            let measured = bus.read(joint_state(episode, now));
            if let Some(length) = motor.report(&measured, &mut buffer) {
                end.send_state(buffer.get(..length).unwrap_or(&[]));
            }
        }
    }
}

/// One step of motor controller and world together.
pub fn advance(episode: &mut Episode, motor: &mut Motor, now: Mono) {
    let mode = motor.mode();
    let target = motor.step(now, STEP_NS);
    move_on(episode, target, mode);
}

fn move_on(episode: &mut Episode, target: &Setpoint, mode: MotorMode) {
    let mut q_rad: [f64; JOINTS] = std::array::from_fn(|joint| target.position[joint]);
    let mut v_rad_s: [f64; JOINTS] = std::array::from_fn(|joint| target.velocity[joint]);
    if mode == MotorMode::TorqueOff {
        // Gears and friction hold this arm.
        (q_rad, v_rad_s) = (*episode.robot.q_rad(), [0.0; JOINTS]);
    }
    let following = mode == MotorMode::Following;
    let suction = target.position[JOINTS] >= 0.5;
    episode.step(&q_rad, &v_rad_s, suction, following);
}

/// What the bench's sensors say, as the wire carries it: six joints and the gripper.
pub fn joint_state(episode: &mut Episode, now: Mono) -> JointState {
    let measured = episode.measure();
    let mut state = JointState {
        joints: JOINTS + 1,
        measured: now,
        holding: measured.holding,
        ..JointState::NEVER
    };
    state.position[..JOINTS].copy_from_slice(&measured.q_rad);
    state.velocity[..JOINTS].copy_from_slice(&measured.v_rad_s);
    state.position[JOINTS] = f64::from(u8::from(measured.suction));
    state
}

/// The camera: looks, draws, sends.
fn film(
    world: &Mutex<World>,
    sender: &PictureSender,
    identity: Identity,
    clock: Clock,
    ending: &AtomicBool,
    fault: &AtomicUsize,
) {
    let mut frame = vec![0; picture::PICTURE_OVERHEAD + CAMERA_PX * CAMERA_PX * 3];
    let mut camera: Option<(u64, Camera)> = None;
    let mut at = (clock.now)();
    let mut seq = 0;
    let mut lens = Lens::new((clock.now)().0);
    while !ending.load(Ordering::Relaxed) {
        at = at.plus_ns(FRAME_NS).max((clock.now)().minus_ns(FRAME_NS));
        (clock.sleep_until)(at);
        let fault = PictureFault::from_code(fault.load(Ordering::Relaxed));
        let now = (clock.now)();
        if !lens.set(now, fault) {
            continue;
        }
        let (table, pose): (Table, Pose) = {
            let world = world.lock().unwrap_or_else(PoisonError::into_inner);
            if camera
                .as_ref()
                .is_none_or(|(scene, _)| *scene != world.scene)
            {
                camera = Some((world.scene, world.episode.camera().clone()));
            }
            (
                world.episode.robot.table.clone(),
                world.episode.robot.pose(),
            )
        };
        let (Some((_, camera)), Some(rgb)) = (&mut camera, picture::pixels(&mut frame)) else {
            continue;
        };
        if lens.redraws() {
            camera.render(&table, &pose, rgb);
            lens.expose(rgb);
        }
        seq += 1;
        let rows = lens.rows(CAMERA_PX);
        let sent = &mut frame[..picture::PICTURE_OVERHEAD + CAMERA_PX * rows * 3];
        let (width, height) = (CAMERA_PX as u16, rows as u16);
        let captured = lens.captured(now);
        if picture::encode(sent, seq, captured, width, height, identity).is_some() {
            sender.send(sent);
        }
    }
}
