// SPDX-License-Identifier: Apache-2.0
//! Simulated time: the same stages as the threads run, stepped one after another against the bench robot, as fast as
//! the CPU allows and the same for the same seed.
//!
//! Commands and states cross as the very frames that travel over the link; pictures are handed over as they are: the
//! bench has one camera, and each camera of the deployment is shown its picture, at its own size. A
//! chunk arrives a fixed time after its frame, plus what is injected; everything else takes no time.

use crate::bench::episode::{CAMERA_PX, Episode, Outcome, Spec};
use crate::bench::process;
use crate::bench::robot::STEP_NS;
use crate::core::chunk::Chunk;
use crate::core::governor::reaction::Reactions;
use crate::core::governor::{Governor, Lines, Proposal, Verdict};
use crate::core::limits::CAMERAS_MAX;
use crate::core::observation::StateHistory;
use crate::core::schedule::Schedule;
use crate::core::supervisor::{Asked, Mode, Request, Supervisor};
use crate::core::units::{MS, Mono};
use crate::core::wire::state::{STATE_LEN_MAX, StateReceiver};
use crate::link::motor::{self, Motor};
use crate::policy::pilot::Pilot;
use crate::policy::text::InstructionFault;
use crate::ports::Frame;
use crate::runtime::clock;
use crate::runtime::control::{self, Followed, Told};
use crate::runtime::deployment::{Deployment, Identities};
use crate::runtime::egress::Framer;
use crate::runtime::governor::{self as governor_stage, People};
use crate::runtime::inference::Inference;
use crate::runtime::realtime::allocations_of_this_thread;
use crate::runtime::telemetry::{Measures, Sample};
use crate::runtime::watchdog::{Gathered, Watch};
use std::sync::atomic::AtomicU64;

/// A camera of 30 frames a second, in whole control steps of the bench.
const FRAME_NS: u64 = 33 * MS;
/// From a picture's capture to the policy's taking it up.
const TRANSPORT_NS: u64 = 5 * MS;
/// What the policy takes in simulated time.
const INFERENCE_NS: u64 = 15 * MS;
/// The watchdog's period.
const WATCH_NS: u64 = 10 * MS;
/// An episode that is not armed within this time is a fault of ours, not of the policy.
const ARMING_MAX_NS: u64 = 3_000 * MS;

/// The pipeline and the bench robot in one hand.
pub struct Lockstep {
    now: Mono,
    period_ns: u64,
    state_age_max_ns: u64,
    reactions: Reactions,
    injected_delay_ns: u64,
    identities: Identities,
    joints: Vec<crate::core::governor::limits::Joint>,
    /// Width and height of each camera, the pacing one first.
    sizes: Vec<[usize; 2]>,
    inference: Inference,
    schedule: Box<Schedule>,
    governor: Governor,
    framer: Framer,
    /// What was measured.
    pub measures: Measures,
    /// Ticks in which a followed setpoint was changed.
    pub interventions: u64,
    /// Allocations within control and governor ticks.
    pub allocations: u64,
    /// Commands that the bench robot refused.
    pub rejected: u64,
    /// Commands that implied more than the limits.
    pub limit_violations: u64,
    refused_chunks: AtomicU64,
    /// Every chunk with the time at which it arrived, where that is asked for.
    pub record: Option<Vec<(Mono, Chunk)>>,
}

/// Why an episode could not be run.
#[derive(Debug, thiserror::Error)]
pub enum EpisodeFault {
    /// The sentence was refused.
    #[error(transparent)]
    Instruction(#[from] InstructionFault),
    /// The robot was not armed.
    #[error("the robot could not be armed: {0}")]
    NotArmed(String),
}

impl Lockstep {
    /// A pipeline at time zero.
    #[must_use]
    pub fn new(deployment: Deployment, injected_delay_ns: u64) -> Lockstep {
        Lockstep {
            now: Mono(1_000 * MS),
            period_ns: deployment.config.control.period_ns,
            state_age_max_ns: deployment.config.control.state_age_max_ns,
            reactions: deployment.config.limits.reactions,
            injected_delay_ns,
            identities: deployment.identities,
            joints: deployment
                .config
                .robot
                .joints
                .iter()
                .map(|(_, joint)| *joint)
                .collect(),
            sizes: deployment
                .config
                .cameras()
                .map(|camera| [camera.width, camera.height])
                .collect(),
            inference: deployment.mind,
            schedule: deployment.schedule,
            governor: deployment.governor,
            framer: Framer::of(&deployment.config.robot, deployment.identities.commands),
            measures: Measures::default(),
            interventions: 0,
            allocations: 0,
            rejected: 0,
            limit_violations: 0,
            refused_chunks: AtomicU64::new(0),
            record: None,
        }
    }

    /// Its policy, for keeping what it is shown.
    pub fn policy(&mut self) -> &mut Pilot {
        self.inference.policy()
    }

    /// Runs one episode from standby to the judge's word; `shown` sees each picture.
    ///
    /// # Errors
    /// [`EpisodeFault`].
    pub fn episode(
        &mut self,
        spec: &Spec,
        shown: &mut dyn FnMut(&Frame),
    ) -> Result<Outcome, EpisodeFault> {
        let mut world = World::new(spec, self);
        self.inference.new_episode();
        self.inference.instruct(world.episode.sentence())?;
        self.schedule
            .instruction_changed(self.now, self.inference.obeys_from());
        let mut watch = Watch::new(
            Supervisor::new(self.reactions, None),
            self.state_age_max_ns,
            &self.joints,
        );
        let mut decision = governor_stage::NO_DECISION;
        let mut told = Told::default();
        let mut last = None;
        let began = self.now;
        let mut over: Option<Outcome> = None;
        loop {
            self.now = self.now.plus_ns(self.period_ns);
            let now = self.now;
            world.advance(now, self.period_ns);
            if world.film(now) {
                shown(&world.frame);
            }
            world.look(
                now,
                &mut self.inference,
                &Followed::of(&self.schedule),
                self.injected_delay_ns,
                &mut self.measures,
            );

            if now.0.is_multiple_of(WATCH_NS) {
                let asked = match (over, decision.mode) {
                    (None, Mode::Standby) => Some(Request::Activate),
                    (Some(_), Mode::Active | Mode::Holding) => Some(Request::Stop),
                    _ => None,
                };
                let gathered = Gathered {
                    asked: asked.map(|request| Asked { request, made: now }),
                    lines: Lines::NOT_FITTED,
                    slept_ns: 0,
                    cameras_fresh: world.frame.seq > 0,
                    camera_fault: None,
                    instructed: true,
                    thread_late: false,
                    last,
                    next_epoch: (now.0 / MS) as u32,
                };
                decision = watch.step(now, &world.states, world.report.as_ref(), &gathered);
                if let Some(Err(refused)) = decision.answer
                    && now.since_ns(began) > ARMING_MAX_NS
                {
                    return Err(EpisodeFault::NotArmed(refused.to_string()));
                }
            }

            let arrived = world.arrived(now);
            if let (Some(record), Some(chunk)) = (&mut self.record, &arrived) {
                record.push((now, *chunk));
            }
            let before = allocations_of_this_thread();
            let proposal: Proposal = control::tick(
                &mut self.schedule,
                now,
                arrived.into_iter(),
                &told,
                &self.refused_chunks,
            );
            let (output, now_told) = governor_stage::tick(
                &mut self.governor,
                now,
                Some(&proposal),
                &world.states,
                &decision,
                People::NONE,
            );
            self.allocations += allocations_of_this_thread() - before;
            told = now_told;
            last = Some(output);
            self.interventions += u64::from(matches!(output.verdict, Verdict::Shaped(_)));
            let frame = self.framer.frame(now, &output);
            // A refusal is counted by the motor controller.
            let _ = world.motor.on_command(now, frame);
            self.measures.take(Sample::Tick {
                late_ns: 0,
                missed: 0,
                ladder: self.schedule.ladder(),
            });
            self.measures.take(Sample::Command {
                chunk_id: output.provenance.chunk_id,
                sent: now,
            });

            let outcome = world.episode.outcome();
            if outcome.over {
                over.get_or_insert(outcome);
            }
            // As with a real robot, the next scene is set when this one's robot has come to rest and is disarmed.
            if let Some(outcome) = over
                && decision.mode == Mode::Standby
                && !output.moving
            {
                self.rejected += u64::from(world.motor.rejected());
                self.limit_violations += u64::from(world.motor.limit_violations());
                return Ok(outcome);
            }
        }
    }
}

/// The bench robot, and what is on its way between it and the pipeline.
struct World {
    episode: Episode,
    motor: Motor,
    states: StateHistory,
    receiver: StateReceiver,
    report: Option<crate::core::wire::state::Report>,
    frame: Frame,
    /// The same as each camera of the deployment gives it.
    frames: Vec<Frame>,
    next_frame: Mono,
    shown: bool,
    /// A chunk and when it arrives.
    coming: Option<(Mono, Chunk)>,
    buffer: [u8; STATE_LEN_MAX],
}

impl World {
    fn new(spec: &Spec, pipeline: &Lockstep) -> World {
        let episode = Episode::new(spec);
        let settings = motor::Settings {
            commands: pipeline.identities.commands,
            states: pipeline.identities.states,
            joints: pipeline.joints.clone(),
            period_ns: pipeline.period_ns,
            boot_id: spec.seed,
        };
        let mut pose = episode.robot.q_rad().to_vec();
        pose.push(0.0);
        World {
            motor: Motor::new(settings, &pose),
            episode,
            states: StateHistory::default(),
            receiver: StateReceiver::new(pipeline.identities.states),
            report: None,
            frame: Frame::black(CAMERA_PX, CAMERA_PX),
            frames: pipeline
                .sizes
                .iter()
                .map(|[width, height]| Frame::black(*width, *height))
                .collect(),
            next_frame: pipeline.now,
            shown: true,
            coming: None,
            buffer: [0; STATE_LEN_MAX],
        }
    }

    /// Moves the robot on until `now` and takes in its state report.
    fn advance(&mut self, now: Mono, period_ns: u64) {
        for step in (0..period_ns / STEP_NS).rev() {
            let at = now.minus_ns(step * STEP_NS);
            process::advance(&mut self.episode, &mut self.motor, at);
        }
        let measured = process::joint_state(&mut self.episode, now);
        if let Some(length) = self.motor.report(&measured, &mut self.buffer)
            && let Ok((report, _)) = self.receiver.accept(now, &self.buffer[..length])
        {
            self.states.push(&report.state);
            self.report = Some(report);
        }
    }

    /// Takes a picture if one is due.
    fn film(&mut self, now: Mono) -> bool {
        if now < self.next_frame {
            return false;
        }
        self.next_frame = now.plus_ns(FRAME_NS);
        self.episode.render(&mut self.frame.rgb);
        self.frame.seq += 1;
        self.frame.captured = now;
        self.frame.received = now.plus_ns(TRANSPORT_NS);
        for frame in &mut self.frames {
            sample(&self.frame, frame);
        }
        self.shown = false;
        true
    }

    /// Shows the newest picture to the policy.
    fn look(
        &mut self,
        now: Mono,
        inference: &mut Inference,
        followed: &Followed,
        injected_delay_ns: u64,
        measures: &mut Measures,
    ) {
        if self.shown || now < self.frame.received || self.coming.is_some() {
            return;
        }
        self.shown = true;
        let mut others: [Option<&Frame>; CAMERAS_MAX] = [None; CAMERAS_MAX];
        let mut frames = self.frames.iter();
        let Some(first) = frames.next() else { return };
        for (slot, frame) in others.iter_mut().zip(frames) {
            *slot = Some(frame);
        }
        if let Ok((chunk, insight)) =
            inference.think(now, first, &others, &self.states, followed, &clock::now)
        {
            let chunk_id = chunk.provenance().chunk_id;
            self.coming = Some((now.plus_ns(INFERENCE_NS + injected_delay_ns), chunk));
            measures.take_simulated(
                chunk_id,
                &self.frame,
                INFERENCE_NS + injected_delay_ns,
                insight.inference_ns,
            );
        }
    }

    /// The chunk that has arrived by `now`, once.
    fn arrived(&mut self, now: Mono) -> Option<Chunk> {
        match self.coming {
            Some((at, chunk)) if at <= now => {
                self.coming = None;
                Some(chunk)
            }
            Some(_) | None => None,
        }
    }
}

/// `from` at the size of `into`: of each pixel the one that lies there.
fn sample(from: &Frame, into: &mut Frame) {
    (into.seq, into.captured, into.received) = (from.seq, from.captured, from.received);
    if [from.width, from.height] == [into.width, into.height] {
        into.rgb.clone_from(&from.rgb);
        return;
    }
    let (width, height) = (into.width.max(1), into.height.max(1));
    for (at, pixel) in into.rgb.chunks_exact_mut(3).enumerate() {
        let x = (at % width) * from.width / width;
        let y = (at / width) * from.height / height;
        let start = (y * from.width + x) * 3;
        if let Some(seen) = from.rgb.get(start..start + 3) {
            pixel.copy_from_slice(seen);
        }
    }
}
