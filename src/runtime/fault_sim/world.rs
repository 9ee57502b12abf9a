// SPDX-License-Identifier: Apache-2.0
//! The stages of the pipeline and a motor controller, stepped in simulated time, with a hand on everything that passes
//! between them.
//!
//! Frames of the link are the real ones, sealed and opened. The policy is a plan that knows where it wants to be at
//! each moment; the robot follows its motor controller exactly, unless a fault says otherwise. Nothing here judges.

use super::film::Film;
use super::phase::{JOINTS, Motion, limits};
use crate::bench::lens::PictureFault;
use crate::config::schedule::rates;
use crate::core::action::{JointKind, Setpoint};
use crate::core::camera::CameraFault;
use crate::core::chunk::{Chunk, Provenance};
use crate::core::governor::reaction::Cause;
use crate::core::governor::{Governor, Lines, Output, Proposal};
use crate::core::observation::{JointState, StateHistory};
use crate::core::schedule::trigger::Trigger;
use crate::core::schedule::{self, Merge, OnInstruction, Schedule};
use crate::core::supervisor::{Asked, Decision, Mode, Request, Supervisor};
use crate::core::units::{MS, Mono};
use crate::core::wire::state::{MotorMode, Report, STATE_LEN_MAX, StateReceiver};
use crate::core::wire::{Identity, Kind, data_id};
use crate::link::motor::{self, Motor};
use crate::runtime::control::{self, Told};
use crate::runtime::egress::Framer;
use crate::runtime::governor::{self as governor_stage, People};
use crate::runtime::inference::{Gate, Settings};
use crate::runtime::watchdog::{Gathered, Watch};
use std::sync::atomic::AtomicU64;

/// The control period.
pub const TICK_NS: u64 = 5 * MS;
/// The watchdog's period.
pub const WATCH_NS: u64 = 10 * MS;
/// A camera of 30 frames a second, in whole ticks.
pub const FRAME_NS: u64 = 35 * MS;
/// Between two chunks.
pub const POLICY_NS: u64 = 100 * MS;
/// From a frame's capture to its chunk.
pub const THINKING_NS: u64 = 30 * MS;
/// Actions of a chunk, and the time between two.
const ACTIONS: u64 = 16;
const ACTION_NS: u64 = 50 * MS;
/// How far a chunk reaches from its frame's capture.
pub const HORIZON_NS: u64 = (ACTIONS - 1) * ACTION_NS;
/// A frame older than this is not shown to the policy.
pub(super) const FRAME_AGE_MAX_NS: u64 = 150 * MS;
/// SAFETY row 9 asks for two periods.
const STATE_AGE_MAX_NS: u64 = 2 * TICK_NS;

const SCHEMA: u32 = 0x5eed;

/// What is done to what passes. All off: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meddling {
    /// The camera gives no frames.
    pub no_frames: bool,
    /// Its frames are this much older than they should be.
    pub frames_late_ns: u64,
    /// Its clock runs backwards.
    pub frames_backwards: bool,
    /// What is wrong with its pictures.
    pub picture: PictureFault,
    /// No joint state arrives.
    pub no_state: bool,
    /// The measured positions stand still while all else goes on.
    pub state_stuck: bool,
    /// The measured positions hold a NaN.
    pub state_nan: bool,
    /// One measured joint is this far off.
    pub state_offset_rad: f64,
    /// States are of other joints.
    pub state_foreign: bool,
    /// The policy gives no chunks: hung, failed, or its device lost.
    pub no_chunks: bool,
    /// Chunks take this much longer.
    pub chunks_late_ns: u64,
    /// Chunks hold a NaN.
    pub chunks_nan: bool,
    /// Chunks have one joint too few.
    pub chunks_short: bool,
    /// The policy is not sure enough of its chunks.
    pub chunks_unsure: bool,
    /// Chunks are this far from where they should be.
    pub chunks_offset_rad: f64,
    /// Chunks shake by this much from action to action.
    pub chunks_shake_rad: f64,
    /// The first chunk of this arming is offered again and again.
    pub chunks_stale: bool,
    /// The control thread proposes nothing.
    pub no_proposals: bool,
    /// The watchdog does not come round.
    pub no_watchdog: bool,
    /// Nothing passes the link, either way.
    pub no_link: bool,
    /// Share of commands lost.
    pub commands_lost: f64,
    /// Every command arrives twice, and an old one after it.
    pub commands_repeated: bool,
    /// A bit is flipped in one of so many commands; 0 for none.
    pub commands_corrupt: u32,
    /// Commands of an earlier session are played between ours.
    pub commands_replayed: bool,
    /// The motor controller refuses everything.
    pub commands_refused: bool,
    /// A joint carries more than it may.
    pub overloaded: bool,
    /// A joint is blocked where it is.
    pub blocked: bool,
    /// The deadman switch is released.
    pub deadman_released: bool,
    /// The emergency-stop line is open.
    pub line_open: bool,
}

/// What one tick showed.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// When.
    pub now: Mono,
    /// What the governor emitted.
    pub output: Output,
    /// The scheduler brakes by itself, because the plan ran out or is not followed any further.
    pub slowing: Option<Cause>,
    /// The supervisor's word.
    pub decision: Decision,
    /// What the motor controller does.
    pub motor: MotorMode,
    /// Where it puts the joints.
    pub target: [f64; JOINTS],
    /// Largest distance between command and measurement, as reported.
    pub off_track_rad: f64,
}

/// See the module's text.
pub struct World {
    /// What is done to it.
    pub meddling: Meddling,
    /// What is asked at the next step of the watchdog.
    pub request: Option<Request>,
    emergency_stop: bool,
    /// Sleep of the machine so far.
    pub slept_ns: u64,
    motion: Motion,
    now: Mono,
    began: Option<Mono>,
    watch: Watch,
    governor: Governor,
    schedule: Schedule,
    framer: Framer,
    motor: Motor,
    receiver: StateReceiver,
    states: StateHistory,
    report: Option<Report>,
    decision: Decision,
    told: Told,
    last: Option<Output>,
    gate: Gate,
    /// The newest good frame.
    frame: (u32, Mono),
    film: Film,
    newest_frame: Mono,
    chunk_end: Mono,
    slowing_ns: u64,
    coming: Option<(Mono, Chunk)>,
    first_chunk: Option<Chunk>,
    chunk_id: u32,
    measured: [f64; JOINTS],
    target: Setpoint,
    off_track_rad: f64,
    old_frames: Vec<Vec<u8>>,
    dice: crate::bench::dice::Dice,
    boots: u64,
}

fn identity(kind: Kind, schema: u32) -> Identity {
    Identity {
        data_id: data_id("fault-sim", kind),
        schema,
    }
}

impl World {
    /// A robot at rest where `motion` starts, in standby.
    #[must_use]
    pub fn new(motion: Motion, seed: u64) -> World {
        let mut limits = limits();
        limits.state_age_max_ns = STATE_AGE_MAX_NS;
        let schedule = schedule::Config {
            kinds: [JointKind::Revolute; JOINTS].into_iter().collect(),
            limits: limits.joints.iter().map(rates).collect(),
            period_ns: TICK_NS,
            merge: Merge::Blend {
                blend_ns: POLICY_NS,
            },
            start_ns: 400 * MS,
            fresh_ns: 2 * POLICY_NS,
            chunk_age_max_ns: 2_000 * MS,
            on_instruction: OnInstruction {
                tail_steps: 0,
                pause_ns: 0,
            },
            gripper_lead_ns: 0,
        };
        let pose = motion.at(0);
        let supervisor = Supervisor::new(limits.reactions, None);
        let mut world = World {
            meddling: Meddling::default(),
            request: None,
            emergency_stop: false,
            target: Setpoint::at_rest(&pose),
            slept_ns: 0,
            now: Mono(1_000 * MS),
            began: None,
            watch: Watch::new(supervisor, STATE_AGE_MAX_NS, &limits.joints),
            governor: Governor::new(limits).expect("the simulated robot's limits are good"),
            schedule: Schedule::new(schedule),
            framer: Framer::new(identity(Kind::Command, SCHEMA)),
            motor: new_motor(1, &pose),
            receiver: StateReceiver::new(identity(Kind::State, SCHEMA)),
            states: StateHistory::default(),
            report: None,
            decision: governor_stage::NO_DECISION,
            told: Told::default(),
            last: None,
            gate: new_gate(),
            frame: (0, Mono(0)),
            film: Film::new(seed),
            newest_frame: Mono(0),
            chunk_end: Mono(0),
            slowing_ns: 0,
            coming: None,
            first_chunk: None,
            chunk_id: 0,
            measured: pose,
            off_track_rad: 0.0,
            old_frames: Vec::new(),
            dice: crate::bench::dice::Dice::new(seed, 11),
            boots: 1,
            motion,
        };
        // A session that was: its commands are what an eavesdropper would play again.
        let mut framer = Framer::new(identity(Kind::Command, SCHEMA));
        let mut earlier = Governor::new(super::phase::limits()).expect("good limits");
        for tick in 0..40 {
            let at = Mono(tick * TICK_NS);
            let nothing = governor_stage::tick(
                &mut earlier,
                at,
                None,
                &world.states,
                &governor_stage::NO_DECISION,
                People::NONE,
            );
            world.old_frames.push(framer.frame(at, &nothing.0).to_vec());
        }
        world
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.now
    }

    /// Lets the plan begin: from here its moments are counted.
    pub fn begin(&mut self) {
        self.began = Some(self.now);
    }

    /// Where the newest chunk that was followed ends, or `onset` if that is later. The first after a standstill is
    /// followed from its first action, and so ends later than it was made for.
    #[must_use]
    pub fn chunk_end_since(&self, onset: Mono) -> Mono {
        self.chunk_end.max(onset)
    }

    /// A person asks for an emergency stop: the governor hears it at once, the supervisor at its next step.
    pub fn emergency_stop(&mut self) {
        self.emergency_stop = true;
        self.request = Some(Request::EmergencyStop);
    }

    /// The camera's plug is pulled, or put back.
    pub fn unplug(&mut self, pulled: bool) {
        self.film.health.lost();
        self.meddling.no_frames = pulled;
    }

    /// The camera is plugged elsewhere, or back.
    pub fn replug(&mut self, picture: PictureFault) {
        self.film.health.lost();
        self.meddling.picture = picture;
    }

    /// The motor controller starts again.
    pub fn reboot_motor(&mut self) {
        self.boots += 1;
        self.motor = new_motor(self.boots, &self.measured);
    }

    /// One tick of everything.
    pub fn tick(&mut self) -> Seen {
        self.now = self.now.plus_ns(TICK_NS);
        self.measure();
        self.film();
        if self.now.0.is_multiple_of(WATCH_NS) && !self.meddling.no_watchdog {
            self.watch();
        }
        let proposal = self.propose();
        let lines = self.lines();
        let (output, told) = governor_stage::tick(
            &mut self.governor,
            self.now,
            proposal.as_ref(),
            &self.states,
            &self.decision,
            People {
                lines,
                emergency_stop: self.emergency_stop,
                ..People::NONE
            },
        );
        (self.told, self.last) = (told, Some(output));
        self.send(&output);
        self.target = *self.motor.step(self.now, TICK_NS);
        let target: [f64; JOINTS] = std::array::from_fn(|joint| self.target.position[joint]);
        let slowing_ns = self.schedule.ladder().slowing_ns;
        let slowing = std::mem::replace(&mut self.slowing_ns, slowing_ns) < slowing_ns;
        let why = if self.schedule.unsure() {
            Cause::PolicyUnsure
        } else {
            Cause::ChunkEnded
        };
        Seen {
            now: self.now,
            output,
            slowing: slowing.then_some(why),
            decision: self.decision,
            motor: self.motor.mode(),
            target,
            off_track_rad: self.off_track_rad,
        }
    }

    fn lines(&self) -> Lines {
        use crate::core::governor::{Deadman, EmergencyLine};
        Lines {
            emergency: if self.meddling.line_open {
                EmergencyLine::Open
            } else {
                EmergencyLine::Closed
            },
            deadman: if self.meddling.deadman_released {
                Deadman::Released
            } else {
                Deadman::Held
            },
        }
    }

    /// The robot moves on, and its state is reported.
    fn measure(&mut self) {
        let target = self.target;
        for joint in 0..JOINTS {
            let blocked = self.meddling.blocked && joint == 2;
            if !blocked && !self.meddling.state_stuck {
                self.measured[joint] = target.position[joint];
            }
        }
        let mut state = JointState {
            joints: JOINTS,
            measured: self.now,
            ..JointState::NEVER
        };
        state.position[..JOINTS].copy_from_slice(&self.measured);
        state.position[1] += self.meddling.state_offset_rad;
        state.torques = true;
        state.torque[..JOINTS].fill(10.0);
        if self.meddling.overloaded {
            state.torque[2] = -60.0;
        }
        if self.meddling.state_nan {
            state.position[3] = f64::NAN;
        }
        let moving = self.last.is_some_and(|last| last.moving && !last.at_rest);
        if moving {
            state.velocity[..JOINTS].copy_from_slice(&target.velocity[..JOINTS]);
        }
        if let Some(last) = &self.last {
            let pairs = last
                .command
                .get()
                .position
                .iter()
                .zip(&state.position)
                .take(JOINTS);
            self.off_track_rad = pairs.map(|(c, q)| (c - q).abs()).fold(0.0, f64::max);
        }
        let mut frame = [0; STATE_LEN_MAX];
        let Some(length) = self.motor.report(&state, &mut frame) else {
            return;
        };
        if self.meddling.no_state || self.meddling.no_link {
            return;
        }
        let mut receiver = if self.meddling.state_foreign {
            StateReceiver::new(identity(Kind::State, SCHEMA + 1))
        } else {
            self.receiver.clone()
        };
        if let Ok((report, _)) = receiver.accept(self.now, &frame[..length]) {
            self.states.push(&report.state);
            self.report = Some(report);
            self.receiver = receiver;
        }
    }

    /// A frame, and the chunk that the policy makes of it.
    fn film(&mut self) {
        if self.now.0.is_multiple_of(FRAME_NS) && !self.meddling.no_frames {
            let age_ns = self.meddling.frames_late_ns;
            let captured = if self.meddling.frames_backwards {
                self.newest_frame.minus_ns(FRAME_NS)
            } else {
                self.now.minus_ns(age_ns)
            };
            if self.film.shoot(self.now, captured, self.meddling.picture) {
                self.frame = (self.frame.0 + 1, captured);
            }
        }
        if self.coming.is_some() || self.meddling.no_chunks {
            return;
        }
        let (seq, captured) = self.frame;
        if self
            .gate
            .admit(self.now, captured, seq, &self.states)
            .is_err()
        {
            return;
        }
        let at = self.now.plus_ns(THINKING_NS + self.meddling.chunks_late_ns);
        if let Some(chunk) = self.think(captured, seq) {
            self.coming = Some((at, chunk));
        }
    }

    fn think(&mut self, captured: Mono, seq: u32) -> Option<Chunk> {
        let elapsed_ns = self.began.map_or(0, |began| captured.since_ns(began));
        let joints = if self.meddling.chunks_short {
            JOINTS - 1
        } else {
            JOINTS
        };
        let mut rows = Vec::new();
        for action in 0..ACTIONS {
            let at = match self.began {
                Some(_) => self.motion.at(elapsed_ns + action * ACTION_NS),
                None => self.motion.at(0),
            };
            let shake = self.meddling.chunks_shake_rad * if action % 2 == 0 { 1.0 } else { -1.0 };
            let offset = self.meddling.chunks_offset_rad + shake;
            rows.extend(at.iter().take(joints).map(|q| (q + offset) as f32));
        }
        if self.meddling.chunks_nan {
            rows[40] = f32::NAN;
        }
        let provenance = Provenance {
            frame_seq: seq,
            captured,
            chunk_id: self.chunk_id + 1,
            bundle_hash: 1,
            unproven: false,
        };
        // A chunk that is none is refused whole, and the one before goes on.
        let chunk = Chunk::new(captured, ACTION_NS, joints, &rows, provenance).ok()?;
        self.chunk_id += 1;
        if !(self.meddling.chunks_short) {
            self.newest_frame = captured;
        }
        Some(if self.meddling.chunks_unsure {
            chunk.doubted()
        } else {
            chunk
        })
    }

    fn watch(&mut self) {
        let asked = self.request.take().map(|request| Asked {
            request,
            made: self.now,
        });
        let fault = self.film.health.fault(self.now);
        let gathered = Gathered {
            asked,
            camera_fault: fault.map(CameraFault::cause),
            cameras_fresh: fault.is_none()
                && self.frame.0 > 0
                && self.now.since_ns(self.frame.1) <= FRAME_AGE_MAX_NS,
            instructed: true,
            lines: self.lines(),
            slept_ns: self.slept_ns,
            thread_late: false,
            last: self.last,
            next_epoch: (self.now.0 / MS) as u32,
        };
        let before = self.decision.mode;
        self.decision = self
            .watch
            .step(self.now, &self.states, self.report.as_ref(), &gathered);
        if before == Mode::EStop && self.decision.mode != Mode::EStop {
            self.emergency_stop = false;
        }
    }

    fn propose(&mut self) -> Option<Proposal> {
        let due = self
            .coming
            .take_if(|(at, _)| *at <= self.now)
            .map(|(_, chunk)| chunk);
        if self.first_chunk.is_none() {
            self.first_chunk = due;
        }
        if self.meddling.no_proposals {
            return None;
        }
        let stale = self.first_chunk.filter(|_| self.meddling.chunks_stale);
        let refused = AtomicU64::new(0);
        let proposal = control::tick(
            &mut self.schedule,
            self.now,
            due.into_iter().chain(stale),
            &self.told,
            &refused,
        );
        if let Some(chunk) = self.schedule.running() {
            self.chunk_end = chunk.last_at();
        }
        Some(proposal)
    }

    fn send(&mut self, output: &Output) {
        let frame = self.framer.frame(self.now, output).to_vec();
        let lost = self.meddling.no_link
            || self.meddling.commands_refused
            || (self.meddling.commands_lost > 0.0 && self.dice.chance(self.meddling.commands_lost));
        let mut flipped = frame.clone();
        if self.meddling.commands_corrupt > 0
            && output.tick.is_multiple_of(self.meddling.commands_corrupt)
        {
            let bit = self.dice.below(flipped.len() * 8);
            flipped[bit / 8] ^= 1 << (bit % 8);
        }
        // What the motor controller refuses it counts; that is all that comes of it.
        if !lost {
            let _ = self.motor.on_command(self.now, &flipped);
        }
        if self.meddling.commands_refused {
            // As a controller with a gate of its own would: taken for nothing, and counted.
            let _ = self.motor.on_command(self.now, &[]);
        }
        if self.meddling.commands_repeated {
            let _ = self.motor.on_command(self.now, &frame);
            if let Some(old) = self.old_frames.last() {
                let _ = self.motor.on_command(self.now, old);
            }
        }
        if self.meddling.commands_replayed {
            let index = output.tick as usize % self.old_frames.len().max(1);
            if let Some(old) = self.old_frames.get(index) {
                let _ = self.motor.on_command(self.now, old);
            }
        }
        if self.meddling.commands_repeated {
            self.old_frames.push(frame);
        }
    }
}

fn new_gate() -> Gate {
    Gate::new(Settings {
        period_ns: POLICY_NS * 9 / 10,
        frame_age_max_ns: FRAME_AGE_MAX_NS,
        doubt_max: None,
        trigger: Trigger::Continuous,
    })
}

fn new_motor(boot_id: u64, pose: &[f64; JOINTS]) -> Motor {
    let settings = motor::Settings {
        commands: identity(Kind::Command, SCHEMA),
        states: identity(Kind::State, SCHEMA),
        joints: limits().joints.to_vec(),
        period_ns: TICK_NS,
        boot_id,
    };
    Motor::new(settings, pose)
}
