// SPDX-License-Identifier: Apache-2.0
//! Inference: the newest frames that are of one moment and the joint state of that time in, one chunk out.
//!
//! [`Inference`] is what the thread and simulated time share; [`run`] is the thread. Nothing queues before it: a slow
//! policy sees the newest frame, or, beside a camera that is behind, the newest of which that one has the moment.

use crate::core::action::JointKind;
use crate::core::camera::skew::Apart;
use crate::core::chunk::{Chunk, ChunkFault, Provenance};
use crate::core::limits::{CAMERAS_MAX, CHUNK_VALUES_MAX};
use crate::core::observation::{JointState, StateHistory};
use crate::core::schedule::trigger::{Facts, Glance, Trigger};
use crate::core::units::{MS, Mono};
use crate::policy::InferFault;
use crate::policy::pilot::{Pace, Pilot};
use crate::policy::staged::onward::Running;
use crate::policy::text::{Instruction, InstructionFault};
use crate::ports::Frame;
use crate::runtime::clock;
use crate::runtime::control::{Followed, Made};
use crate::runtime::gather::Gather;
use crate::runtime::hindrance::{Hindrance, LASTS_NS};
use crate::runtime::reel::Recent;
use crate::runtime::telemetry::{Sample, Tap};
use crate::runtime::threads::Seat;
use crate::sync::mailbox;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::Thread;

/// A state measured further than this from the frame's capture is not the state of that frame: four periods of a
/// 200 Hz state.
const PAIRING_MAX_NS: u64 = 20 * MS;
/// The thread comes round this often without a frame, for its heartbeat.
const IDLE_NS: u64 = 100 * MS;

/// How often the policy is asked, and what is too old for it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Least time between two starts.
    pub period_ns: u64,
    /// A frame captured longer ago than this is refused.
    pub frame_age_max_ns: u64,
    /// With more doubt than this, 0..1, a chunk is not followed; `None`: the policy is not asked.
    pub doubt_max: Option<f32>,
    /// When the next plan is asked for, no sooner than the period allows.
    pub trigger: Trigger,
}

/// Why no chunk was made of a frame.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Asked again too early, or for a frame already seen.
    #[error("not due")]
    NotDue,
    /// Nothing to do has been said.
    #[error("no instruction yet")]
    NoInstruction,
    /// The frame is older than allowed.
    #[error(
        "expected a frame at most {most_ms} ms old (camera.age_max_ms), found one of {age_ms} ms"
    )]
    FrameTooOld {
        /// Its age since capture.
        age_ms: u64,
        /// What is allowed.
        most_ms: u64,
    },
    /// No joint state was measured near the capture time.
    #[error("no joint state was measured within {} ms of the frame", PAIRING_MAX_NS / MS)]
    NoState,
    /// The policy failed or gave something unusable.
    #[error(transparent)]
    Policy(#[from] InferFault),
    /// The chunk is not one.
    #[error(transparent)]
    Chunk(#[from] ChunkFault),
}

/// What else the policy said, for people to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Insight {
    /// Where the policy sees what was named, 0..1 of the picture.
    pub keypoint: Option<[f32; 2]>,
    /// How sure it is that it is there, 0..1.
    pub presence: Option<f32>,
    /// Chunks up to now, one after the other, of which the policy was not sure enough.
    pub unsure_chunks: u32,
    /// Time from taking up the frame to the chunk.
    pub inference_ns: u64,
}

/// Which frames the policy is shown: new ones, young ones, one at a time, with the joint state of their moment.
#[derive(Clone, Copy, Debug)]
pub struct Gate {
    settings: Settings,
    started: Option<Mono>,
    last_frame: Option<Mono>,
}

impl Gate {
    /// A gate that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Gate {
        Gate {
            settings,
            started: None,
            last_frame: None,
        }
    }

    /// Admits the frame with number `seq`, captured at `captured`, and returns the joint state measured nearest to it.
    ///
    /// # Errors
    /// [`Refusal`]; a frame that is too old, or has no state, is refused again until a newer one comes.
    pub fn admit<'a>(
        &mut self,
        now: Mono,
        captured: Mono,
        seq: u32,
        states: &'a StateHistory,
    ) -> Result<&'a JointState, Refusal> {
        // Also a frame whose time went backwards.
        let seen = self.last_frame.is_some_and(|last| captured <= last);
        let early = self
            .started
            .is_some_and(|started| now.since_ns(started) < self.settings.period_ns);
        if seen || early || seq == 0 {
            return Err(Refusal::NotDue);
        }
        let age_ns = now.since_ns(captured);
        if age_ns > self.settings.frame_age_max_ns {
            return Err(Refusal::FrameTooOld {
                age_ms: age_ns / MS,
                most_ms: self.settings.frame_age_max_ns / MS,
            });
        }
        let (state, distance_ns) = states.nearest(captured).ok_or(Refusal::NoState)?;
        if distance_ns > PAIRING_MAX_NS {
            return Err(Refusal::NoState);
        }
        self.started = Some(now);
        self.last_frame = Some(captured);
        Ok(state)
    }
}

/// The policy and its rhythm.
pub struct Inference {
    policy: Pilot,
    pace: Pace,
    bundle_hash: u32,
    /// It misses its parity fixture: all that is made of it says so.
    unproven: bool,
    gate: Gate,
    instructed: bool,
    /// The instruction in force, and the first chunk that obeys it.
    obeyed: Instruction,
    obeys_from: u32,
    chunk_id: u32,
    unsure_chunks: u32,
    /// The plan, with the state at observation as its first row.
    rows: Vec<f32>,
    /// See [`Followed::begun`].
    begun: u32,
    /// What the picture of the last plan looked like.
    glance: Option<Glance>,
    /// Joints that step, and are nowhere between.
    grips: Vec<bool>,
}

impl Inference {
    /// A policy, bound to its robot, that waits for its first instruction; `pace` is its own.
    #[must_use]
    pub fn new(policy: Pilot, pace: Pace, settings: Settings, kinds: &[JointKind]) -> Inference {
        let rows = Vec::with_capacity(CHUNK_VALUES_MAX);
        Inference {
            bundle_hash: policy.short_hash(),
            unproven: !policy.parity().missed.is_empty(),
            policy,
            pace,
            gate: Gate::new(settings),
            instructed: false,
            obeyed: Instruction::default(),
            obeys_from: 0,
            chunk_id: 0,
            unsure_chunks: 0,
            rows,
            begun: 0,
            glance: None,
            grips: kinds
                .iter()
                .map(|kind| *kind == JointKind::Gripper)
                .collect(),
        }
    }

    /// Tokenises a sentence and obeys it from the next frame on.
    ///
    /// # Errors
    /// What the tokenizer refuses, in words for the operator.
    pub fn instruct(&mut self, sentence: &str) -> Result<Instruction, InstructionFault> {
        let instruction = self.policy.words().encode(sentence)?;
        self.take(&instruction);
        Ok(instruction)
    }

    /// Obeys a sentence that was tokenised elsewhere; allocates nothing after the first.
    pub fn take(&mut self, instruction: &Instruction) {
        self.policy.take(instruction);
        self.obey(instruction);
    }

    /// The same words again are no other instruction.
    fn obey(&mut self, instruction: &Instruction) {
        self.instructed = true;
        if !instruction.reads_as(&self.obeyed) {
            self.new_episode();
            self.obeyed.tokens.clone_from(&instruction.tokens);
            self.obeyed.sentence.clone_from(&instruction.sentence);
            self.obeys_from = self.chunk_id + 1;
            self.unsure_chunks = 0;
        }
    }

    /// What the policy remembers of what it saw and did is forgotten: another instruction, another scene.
    pub fn new_episode(&mut self) {
        self.policy.reset();
    }

    /// Its next chunk has the number after `chunk_id`: numbers go on where an inference that ended had come to.
    #[must_use]
    pub fn after_chunk(mut self, chunk_id: u32) -> Inference {
        self.chunk_id = chunk_id;
        self
    }

    /// Its policy, for keeping what it is shown.
    pub fn policy(&mut self) -> &mut Pilot {
        &mut self.policy
    }

    /// First bytes of the hash of the bundle that it runs.
    #[must_use]
    pub fn bundle_hash(&self) -> u32 {
        self.bundle_hash
    }

    /// Number of the first chunk that obeys the instruction in force.
    #[must_use]
    pub fn obeys_from(&self) -> u32 {
        self.obeys_from
    }

    /// Whether the policy looks through camera `index` of the deployment; the first paces it.
    #[must_use]
    pub fn looks_through(&self, index: usize) -> bool {
        self.policy.looks_through(index)
    }

    /// Makes a chunk of `frame` and of `others`, the other cameras' pictures of its moment in the order of tendon.toml, if
    /// one is due. `followed` is for a policy that plans on from it. `clock` tells where the time went and decides nothing.
    ///
    /// # Errors
    /// [`Refusal`]; no chunk is made and the scheduler goes on with what it has.
    pub fn think(
        &mut self,
        now: Mono,
        frame: &Frame,
        others: &[Option<&Frame>],
        states: &StateHistory,
        followed: &Followed,
        clock: &dyn Fn() -> Mono,
    ) -> Result<(Chunk, Insight), Refusal> {
        if !self.instructed {
            return Err(Refusal::NoInstruction);
        }
        // What it remembers is of before the robot was armed.
        if core::mem::replace(&mut self.begun, followed.begun) != followed.begun {
            self.new_episode();
        }
        let obeyed = |plan: &&Followed| plan.chunk_id != 0 && plan.chunk_id >= self.obeys_from;
        let followed = Some(followed).filter(obeyed);
        let trigger = self.gate.settings.trigger;
        let facts = followed.map(|plan| self.facts(plan, frame, states));
        if trigger.due(now, facts.as_ref()).is_none() {
            return Err(Refusal::NotDue);
        }
        let state = self.gate.admit(now, frame.captured, frame.seq, states)?;
        let Pace {
            period_ns,
            first_step_ns,
            ..
        } = self.pace;
        let begins_at_state = self.pace.begins_at_state();
        let mut frames: [Option<&Frame>; CAMERAS_MAX] = [None; CAMERAS_MAX];
        let all = std::iter::once(Some(frame)).chain(others.iter().copied());
        for (slot, frame) in frames.iter_mut().zip(all) {
            *slot = frame;
        }
        // A plan for another instruction is not gone on from.
        let running =
            followed.map(|plan| running(plan, &self.pace, frame.captured, begins_at_state));
        self.policy.plan_on(self.chunk_id + 1, running);
        let plan = self.policy.infer(&frames, state, clock)?;
        let provenance = Provenance {
            frame_seq: frame.seq,
            captured: frame.captured,
            chunk_id: self.chunk_id + 1,
            bundle_hash: self.bundle_hash,
            unproven: self.unproven,
        };
        let (timing, held) = (plan.timing, plan.held);
        let unsure = too_unsure(plan.doubt(), self.gate.settings.doubt_max);
        let mut insight = Insight {
            keypoint: plan.keypoint,
            presence: plan.presence,
            unsure_chunks: 0,
            inference_ns: timing.preprocess_ns + timing.engine_ns + timing.decode_ns,
        };
        self.rows.clear();
        if begins_at_state {
            self.rows
                .extend(state.positions().iter().map(|position| *position as f32));
        }
        self.rows.extend_from_slice(plan.targets);
        let first_at = frame
            .captured
            .plus_ns(if begins_at_state { 0 } else { first_step_ns });
        let mut chunk = Chunk::new(first_at, period_ns, state.joints, &self.rows, provenance)?;
        if let Some(held) = held {
            let held_ns = self.pace.action_period_ns.saturating_mul(held as u64);
            let action_0 = frame.captured.plus_ns(self.pace.first_action_ns);
            chunk = chunk.made_for(action_0.plus_ns(held_ns));
        }
        self.chunk_id += 1;
        if matches!(trigger, Trigger::Surprise { .. }) {
            self.glance = Some(glance(frame));
        }
        self.unsure_chunks = if unsure { self.unsure_chunks + 1 } else { 0 };
        insight.unsure_chunks = self.unsure_chunks;
        let chunk = if unsure { chunk.doubted() } else { chunk };
        Ok((chunk, insight))
    }

    /// What the trigger must know of the plan that is followed.
    fn facts(&self, plan: &Followed, frame: &Frame, states: &StateHistory) -> Facts {
        let surprise = matches!(self.gate.settings.trigger, Trigger::Surprise { .. });
        let newest = self.glance.as_ref().filter(|_| surprise);
        let period_ns = self.pace.action_period_ns.max(1);
        let rows_ns = plan
            .period_ns
            .saturating_mul(plan.steps.saturating_sub(1) as u64);
        Facts {
            first_at: plan.first_at,
            period_ns,
            actions: u16::try_from(rows_ns / period_ns + 1).unwrap_or(u16::MAX),
            until: plan.until,
            delay_ns: plan.period_ns.saturating_mul(u64::from(plan.delay_steps)),
            tracking: if surprise {
                self.tracking(plan, frame.captured, states)
            } else {
                0.0
            },
            scene: newest.map_or(0.0, |then| glance(frame).change(then)),
        }
    }

    /// How far the robot was from where the plan had it when the picture was taken, the joint that was furthest: rad or m.
    /// 0 where that is not known: the plan is older than the last one made, or had not begun.
    fn tracking(&self, plan: &Followed, at: Mono, states: &StateHistory) -> f64 {
        let joints = self.grips.len().max(1);
        if plan.chunk_id != self.chunk_id || at < plan.first_at {
            return 0.0;
        }
        let Some((state, _)) = states.nearest(at) else {
            return 0.0;
        };
        let period_ns = plan.period_ns.max(1);
        let since_ns = at.since_ns(plan.first_at);
        let row = usize::try_from(since_ns / period_ns).unwrap_or(usize::MAX);
        let share = (since_ns % period_ns) as f64 / period_ns as f64;
        let mut rows = self.rows.chunks_exact(joints).skip(row);
        let (Some(from), Some(to)) = (rows.next(), rows.next()) else {
            return 0.0;
        };
        let ways = from.iter().zip(to).zip(state.positions()).zip(&self.grips);
        ways.filter(|(_, grip)| !**grip)
            .map(|(((from, to), measured), _)| {
                let (from, to) = (f64::from(*from), f64::from(*to));
                (measured - from - share * (to - from)).abs()
            })
            .fold(0.0, f64::max)
    }
}

fn glance(frame: &Frame) -> Glance {
    Glance::of(&frame.rgb, frame.width, frame.height)
}

/// Whether the doubt is more than allowed. A doubt that is no number is one; a policy that never tells has none.
fn too_unsure(doubt: Option<f32>, doubt_max: Option<f32>) -> bool {
    match (doubt, doubt_max) {
        (Some(doubt), Some(doubt_max)) => doubt.is_nan() || doubt > doubt_max,
        _ => false,
    }
}

/// Where a new plan observed at `observed` finds the one that is followed. Its action 0 goes on from the old one's action
/// that is due nearest to it; what is over before the hand-over are the delay's actions from there on.
fn running(plan: &Followed, pace: &Pace, observed: Mono, begins_at_state: bool) -> Running {
    let period_ns = pace.action_period_ns.max(1);
    // The state at observation is its first row.
    let lead_ns = if begins_at_state {
        period_ns
    } else {
        pace.first_action_ns - pace.first_step_ns.min(pace.first_action_ns)
    };
    let first_at = plan.first_at.plus_ns(lead_ns);
    let due = observed.plus_ns(pace.first_action_ns + period_ns / 2);
    let lead_steps = usize::try_from(pace.first_action_ns / period_ns).unwrap_or(usize::MAX);
    let delay_ns = u64::from(plan.delay_steps).saturating_mul(plan.period_ns);
    Running {
        chunk_id: plan.chunk_id,
        skipped: usize::try_from(due.since_ns(first_at) / period_ns).unwrap_or(usize::MAX),
        delay: usize::try_from(delay_ns.div_ceil(period_ns))
            .unwrap_or(usize::MAX)
            .saturating_sub(lead_steps),
    }
}

/// Everything the inference thread touches.
#[derive(Debug)]
pub struct InferenceIo {
    /// The last frames of the camera that paces the policy; the coming of one wakes the thread.
    pub frames: mailbox::Receiver<Recent>,
    /// Chooses those of one moment.
    pub gather: Gather,
    /// The last ones of the other cameras, in the order of tendon.toml; `None` where the policy does not look through it.
    pub others: Vec<Option<triple_buffer::Output<Recent>>>,
    /// The plan that is followed.
    pub followed: triple_buffer::Output<Followed>,
    /// Newest joint states.
    pub states: triple_buffer::Output<StateHistory>,
    /// Sentences, tokenised by whoever took them in.
    pub instructions: mpsc::Receiver<Instruction>,
    /// To the scheduler.
    pub chunks: rtrb::Producer<Made>,
    /// For people.
    pub insight: triple_buffer::Input<Insight>,
    /// To control: see [`Inference::obeys_from`].
    pub obeys_from: Arc<AtomicU32>,
    /// Figures.
    pub tap: Tap,
    /// Times that the policy failed or was refused its input.
    pub faults: Arc<AtomicU64>,
    /// Added to the making of each chunk, to see what a slower policy would do.
    pub injected_delay_ns: u64,
    /// Woken when a chunk was made.
    pub bell: Option<Thread>,
    /// Set when the pipeline ends.
    pub ending: Arc<AtomicBool>,
}

/// The inference thread.
pub fn run(mut inference: Inference, mut io: InferenceIo, seat: &Seat) {
    let (mut gathering, mut thinking) = (Hindrance::default(), Hindrance::default());
    while !io.ending.load(Ordering::Relaxed) {
        let deadline = clock::now().plus_ns(IDLE_NS);
        let frames = io.frames.wait_until(deadline, clock::now);
        let now = clock::now();
        seat.beat.mark(now);
        if let Ok(instruction) = io.instructions.try_recv() {
            inference.take(&instruction);
            io.obeys_from
                .store(inference.obeys_from(), Ordering::Release);
        }
        let Some(frames) = frames else { continue };
        let mut recent: [Option<&[Arc<Frame>]>; CAMERAS_MAX] = [None; CAMERAS_MAX];
        let others = io.others.iter_mut();
        let others = others.map(|cell| cell.as_mut().map(|cell| cell.read().as_slice()));
        let all = std::iter::once(Some(frames.as_slice())).chain(others);
        for (slot, frames) in recent.iter_mut().zip(all) {
            *slot = frames;
        }
        let (frame, others) = match io.gather.of_one_moment(now, &recent) {
            Ok([Some(frame), others @ ..]) => (frame, others),
            // The camera that paces the policy is one of those that are needed.
            Ok(_) => continue,
            Err(apart) => {
                let reason = match apart {
                    Apart::Missing { camera } => format!("camera {camera} is missing"),
                    Apart::Skewed { camera, .. } => format!("camera {camera} is behind"),
                };
                if gathering.found(now, &reason, LASTS_NS) {
                    log::warn!("no chunk: {}", io.gather.words(apart));
                }
                continue;
            }
        };
        gathering.over();
        match inference.think(
            now,
            frame,
            &others,
            io.states.read(),
            io.followed.read(),
            &clock::now,
        ) {
            Ok((chunk, insight)) => {
                if io.injected_delay_ns > 0 {
                    clock::sleep_until(clock::now().plus_ns(io.injected_delay_ns));
                }
                let done = clock::now();
                let chunk_id = chunk.provenance().chunk_id;
                let sample = Sample::Chunk {
                    chunk_id,
                    captured: frame.captured,
                    landed: frame.received,
                    taken: now,
                    inference_ns: done.since_ns(now),
                };
                // A full queue means that control is not coming round; the watchdog sees that by itself.
                let made = Made {
                    chunk,
                    queued: done,
                };
                if io.chunks.push(made).is_ok() {
                    io.tap.record(sample);
                }
                io.insight.write(insight);
                thinking.over();
                if let Some(bell) = &io.bell {
                    bell.unpark();
                }
            }
            Err(Refusal::NotDue | Refusal::NoInstruction) => thinking.over(),
            Err(refusal) => {
                io.faults.fetch_add(1, Ordering::Relaxed);
                let words = refusal.to_string();
                let (reason, lasts_ns) = match &refusal {
                    Refusal::FrameTooOld { .. } => ("age", LASTS_NS),
                    Refusal::NoState => ("state", LASTS_NS),
                    _ => (words.as_str(), 0),
                };
                if thinking.found(now, reason, lasts_ns) {
                    log::warn!("no chunk: {words}");
                }
            }
        }
        if inference.policy.lost() {
            // Without a heartbeat from here on, whoever restarts processes does so.
            log::error!("the policy's engine is lost for this process: inference ends");
            return;
        }
        seat.beat.mark(clock::now());
    }
}
