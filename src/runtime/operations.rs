// SPDX-License-Identifier: Apache-2.0
//! The desk: where people and programs ask the running pipeline for something and look at it. Everything here is off
//! the hot path; the pipeline never waits for it.

use crate::config::{Config, Precision};
use crate::core::governor::Output;
use crate::core::observation::StateHistory;
use crate::core::supervisor::{Asked, Decision, Mode, Refused, Request};
use crate::core::wire::state::Report;
use crate::policy::text::{Instruction, Text};
use crate::ports::Frame;
use crate::runtime::clock;
use crate::runtime::crash::Recorder;
use crate::runtime::governor::{Last, NO_DECISION};
use crate::runtime::inference::Insight;
use crate::runtime::telemetry::{Figures, Measures, Sample};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The watchdog comes round 100 times a second; a request that is not answered by then never will be.
const ANSWER: Duration = Duration::from_millis(500);

/// Counters that threads own and anyone reads.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // Each name is the whole story; docs/operating.md lists them.
pub struct Counters {
    pub link_faults: Arc<AtomicU64>,
    pub emergency_stop: Arc<AtomicBool>,
    pub interventions: Arc<AtomicU64>,
    pub governor_allocations: Arc<AtomicU64>,
    pub control_allocations: Arc<AtomicU64>,
    pub chunks_refused: Arc<AtomicU64>,
    pub inference_faults: Arc<AtomicU64>,
    pub frames_refused: Arc<AtomicU64>,
    pub states_refused: Arc<AtomicU64>,
    pub newest_frame_ns: Arc<AtomicU64>,
    pub instructed: Arc<AtomicBool>,
    pub mode: Arc<AtomicU8>,
}

/// A request on its way to the watchdog, and where the answer goes.
pub type Petition = (Asked, SyncSender<Result<Mode, Refused>>);

/// The reading ends that telemetry empties into the desk.
#[derive(Debug)]
pub struct DeskEnds {
    /// From the watchdog.
    pub decided: triple_buffer::Output<Decision>,
    /// From the governor.
    pub shown: triple_buffer::Output<Last>,
    /// From inference.
    pub insight: triple_buffer::Output<Insight>,
    /// From the motor controller.
    pub states: triple_buffer::Output<(StateHistory, Option<Report>)>,
    /// From capture.
    pub picture: triple_buffer::Output<Frame>,
    /// From control, inference and egress.
    pub taps: Vec<rtrb::Consumer<Sample>>,
}

/// What the pipeline looked like a moment ago.
#[derive(Clone, Debug)]
pub struct View {
    /// The supervisor's word.
    pub decision: Decision,
    /// The governor's last output.
    pub output: Option<Output>,
    /// What the policy sees.
    pub insight: Insight,
    /// The motor controller's last report.
    pub report: Option<Report>,
    /// The newest picture.
    pub picture: Frame,
    /// The sentence being obeyed.
    pub instruction: String,
    /// Words of it that the policy has never seen.
    pub unknown_words: Vec<String>,
}

/// See the module's text.
pub struct Desk {
    /// Names and limits of the joints, for display.
    pub joints: Vec<(String, f64, f64)>,
    /// The bundle's name.
    pub policy: String,
    /// Which graph runs.
    pub precision: Precision,
    /// Counters.
    pub counters: Counters,
    text: Text,
    instructions: SyncSender<Instruction>,
    requests: SyncSender<Petition>,
    view: Mutex<View>,
    measures: Mutex<Measures>,
    recorder: Option<Arc<Recorder>>,
}

impl Desk {
    /// A desk at which nothing has happened.
    #[must_use]
    pub fn new(
        config: &Config,
        policy: &str,
        text: Text,
        instructions: SyncSender<Instruction>,
        requests: SyncSender<Petition>,
        counters: Counters,
        recorder: Option<Arc<Recorder>>,
    ) -> Desk {
        let joints = config.robot.joints.iter();
        let view = View {
            decision: NO_DECISION,
            output: None,
            insight: Insight::default(),
            report: None,
            picture: Frame::black(config.camera.width, config.camera.height),
            instruction: String::new(),
            unknown_words: Vec::new(),
        };
        Desk {
            joints: joints
                .map(|(name, joint)| {
                    (
                        name.clone(),
                        joint.limits.position_min,
                        joint.limits.position_max,
                    )
                })
                .collect(),
            policy: policy.to_owned(),
            precision: config.policy.precision,
            counters,
            text,
            instructions,
            requests,
            view: Mutex::new(view),
            measures: Mutex::new(Measures::default()),
            recorder,
        }
    }

    /// Gives the robot a sentence. Returns what is told to the person.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn instruct(&self, sentence: &str) -> Result<String, String> {
        let instruction = self
            .text
            .encode(sentence)
            .map_err(|fault| fault.to_string())?;
        let unknown = instruction.unknown.clone();
        self.instructions.try_send(instruction).map_err(|_| {
            "the policy has not taken the last instruction yet: is inference running?".to_owned()
        })?;
        self.counters.instructed.store(true, Ordering::Relaxed);
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        sentence.clone_into(&mut view.instruction);
        view.unknown_words.clone_from(&unknown);
        Ok(if unknown.is_empty() {
            format!("taken: {sentence}")
        } else {
            format!(
                "taken: {sentence} (words the policy has never seen: {})",
                unknown.join(", ")
            )
        })
    }

    /// Asks for a mode by its word: `active`, `standby` or `stop`, `reset`, `e-stop`; or tells it: `status`.
    ///
    /// # Errors
    /// The refusal, in words.
    pub fn request_mode(&self, word: &str) -> Result<String, String> {
        let request = match word.trim() {
            "active" => Request::Activate,
            "standby" | "stop" => Request::Stop,
            "reset" => Request::Reset,
            "e-stop" => Request::EmergencyStop,
            "status" => return Ok(self.status()),
            other => {
                return Err(format!(
                    "expected active, standby, stop, reset, e-stop or status, found \"{other}\""
                ));
            }
        };
        // The record first: it is a person who says "reset", and may have no other latch to reset.
        let acknowledged = match &self.recorder {
            Some(recorder) if request == Request::Reset => {
                recorder.acknowledge().map_err(|error| error.to_string())?
            }
            Some(_) | None => false,
        };
        match self.request(request) {
            Some(Err(Refused::NotLatched)) if acknowledged => Ok("crash acknowledged".to_owned()),
            Some(Ok(mode)) => Ok(mode.word().to_owned()),
            Some(Err(refused)) => Err(refused.to_string()),
            None => Err("the watchdog does not answer".to_owned()),
        }
    }

    /// The mode, and why the robot is not simply moving.
    #[must_use]
    pub fn status(&self) -> String {
        let decision = self.view().decision;
        match decision.cause {
            None => decision.mode.word().to_owned(),
            Some(cause) => format!("{}: {}", decision.mode.word(), cause.words()),
        }
    }

    /// Asks the supervisor; `None` if the watchdog does not answer. An emergency stop reaches the governor at once.
    pub fn request(&self, request: Request) -> Option<Result<Mode, Refused>> {
        if request == Request::EmergencyStop {
            self.counters.emergency_stop.store(true, Ordering::Release);
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let asked = Asked {
            request,
            made: clock::now(),
        };
        self.requests.try_send((asked, answer)).ok()?;
        answered.recv_timeout(ANSWER).ok()
    }

    /// Asks for standby and waits until the robot is there, at most `timeout`. Returns whether it is.
    pub fn come_to_rest(&self, timeout: Duration) -> bool {
        let deadline = clock::now().plus_ns(timeout.as_nanos() as u64);
        self.request(Request::Stop);
        while clock::now() < deadline {
            let view = self.view();
            let resting = view.output.is_none_or(|output| output.at_rest);
            if resting && !view.decision.mode.armed() && view.decision.mode != Mode::Stopping {
                return true;
            }
            clock::sleep_until(clock::now().plus_ns(10_000_000));
        }
        false
    }

    /// What the pipeline looks like.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What was measured.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.measures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .figures()
    }

    /// Forgets what was measured so far.
    pub fn clear_figures(&self) {
        self.measures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Allocations on the control and governor threads since their loops began.
    #[must_use]
    pub fn allocations(&self) -> u64 {
        self.counters.control_allocations.load(Ordering::Relaxed)
            + self.counters.governor_allocations.load(Ordering::Relaxed)
    }

    /// Takes in what the threads have left; called by telemetry.
    pub fn refresh(&self, ends: &mut DeskEnds) {
        {
            let mut measures = self.measures.lock().unwrap_or_else(PoisonError::into_inner);
            // Inference before egress: a chunk is known before the first command made of it.
            for tap in &mut ends.taps {
                while let Ok(sample) = tap.pop() {
                    measures.take(sample);
                }
            }
        }
        let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        view.decision = *ends.decided.read();
        view.output = ends.shown.read().0;
        view.insight = *ends.insight.read();
        view.report = ends.states.read().1;
        if ends.picture.updated() {
            let picture = ends.picture.read();
            view.picture.clone_from(picture);
        }
    }
}
