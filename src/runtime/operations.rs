// SPDX-License-Identifier: Apache-2.0
//! The desk: where people and programs ask the running pipeline for something and look at it. Everything here is off
//! the hot path; the pipeline never waits for it.

mod arming;

use crate::config::Config;
use crate::config::files::AsRead;
use crate::core::action::{JointKind, Setpoint};
use crate::core::governor::Output;
use crate::core::governor::reaction::Cause;
use crate::core::observation::StateHistory;
use crate::core::supervisor::{Asked, Decision, Mode, Refused, Request};
use crate::core::units::{MS, Mono};
use crate::core::wire::state::Report;
use crate::policy::text::Instruction;
use crate::policy::words::Words;
use crate::ports::Frame;
use crate::runtime::cameras;
use crate::runtime::clock;
use crate::runtime::counters::Counters;
use crate::runtime::crash::Recorder;
use crate::runtime::governor::{Last, NO_DECISION};
use crate::runtime::inference::Insight;
use crate::runtime::reel::Recent;
use crate::runtime::telemetry::{Figures, Measures, Sample};
use crate::runtime::wheel::{Driver, Wheel};
use arming::too_old;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

/// The watchdog comes round 100 times a second, and when it is asked; a request that is not answered by then never will be.
const ANSWER: Duration = Duration::from_millis(500);

/// Thousandths by which the robot is slowed at so many percent of its speed. Rounded towards slower.
fn slowed(percent: f64) -> u32 {
    (1000.0 - percent * 10.0).ceil() as u32
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
    pub picture: triple_buffer::Output<Recent>,
    /// From control, inference and egress.
    pub taps: Vec<rtrb::Consumer<Sample>>,
}

/// What the pipeline looked like a moment ago.
#[derive(Clone, Debug)]
pub struct View {
    /// The supervisor's word.
    pub decision: Decision,
    /// When it was taken in.
    pub as_of: Mono,
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
    pub precision: &'static str,
    /// Counters.
    pub counters: Counters,
    /// Who proposes.
    pub wheel: Arc<Wheel>,
    kinds: Vec<JointKind>,
    poses: Vec<(String, Vec<f64>)>,
    fallbacks: Vec<(Cause, String)>,
    words: Words,
    instructions: SyncSender<Instruction>,
    requests: SyncSender<Petition>,
    watchdog: Arc<OnceLock<Thread>>,
    view: Mutex<View>,
    measures: Mutex<Measures>,
    recorder: Option<Arc<Recorder>>,
    files: AsRead,
    hands: Mutex<()>,
}

/// What the desk moves.
#[derive(Debug)]
pub struct Levers {
    /// Sentences, to inference.
    pub instructions: SyncSender<Instruction>,
    /// What is asked of the supervisor, to the watchdog.
    pub requests: SyncSender<Petition>,
    /// The watchdog's thread, once it runs.
    pub watchdog: Arc<OnceLock<Thread>>,
    /// Shared with everything that counts, slows or stops.
    pub counters: Counters,
    /// Shared with control and governor.
    pub wheel: Arc<Wheel>,
}

impl Desk {
    /// A desk at which nothing has happened.
    #[must_use]
    pub fn new(
        config: &Config,
        policy: &str,
        words: Words,
        levers: Levers,
        recorder: Option<Arc<Recorder>>,
    ) -> Desk {
        levers
            .counters
            .slowed
            .store(slowed(config.speed_percent), Ordering::Relaxed);
        let joints = config.robot.joints.iter();
        let view = View {
            decision: NO_DECISION,
            as_of: Mono(0),
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
            precision: config.policy.precision_word(),
            counters: levers.counters,
            wheel: levers.wheel,
            kinds: config
                .robot
                .joints
                .iter()
                .map(|(_, joint)| joint.kind)
                .collect(),
            poses: config.robot.poses.clone(),
            fallbacks: config.fallbacks.clone(),
            words,
            instructions: levers.instructions,
            requests: levers.requests,
            watchdog: levers.watchdog,
            view: Mutex::new(view),
            measures: Mutex::new(Measures::default()),
            recorder,
            files: config.files.clone(),
            hands: Mutex::new(()),
        }
    }

    /// Gives the robot a sentence. Returns what is told to the person.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn instruct(&self, sentence: &str) -> Result<String, String> {
        let instruction = self
            .words
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

    /// Asks for a mode by its word: `active`, `takeover`, `standby` or `stop`, `reset`, `e-stop`; or tells it: `status`.
    ///
    /// # Errors
    /// The refusal, in words.
    pub fn request_mode(&self, word: &str, made: Mono) -> Result<String, String> {
        let request = match word.trim() {
            "active" => Request::Activate,
            "takeover" => {
                let mode = self.drive(Driver::Nobody, Driver::Device(None), made)?;
                return Ok(format!(
                    "{mode}: bring the device to where the robot is; it drives from there"
                ));
            }
            "standby" | "stop" => Request::Stop,
            "reset" => Request::Reset,
            "e-stop" => Request::EmergencyStop,
            "status" => return Ok(self.status()),
            other => {
                return Err(format!(
                    "expected active, takeover, standby, stop, reset, e-stop or status, found \"{other}\""
                ));
            }
        };
        // It waited for somebody's disk, and nobody asks any more.
        if request == Request::Reset && too_old(made) {
            return Err(Refused::TooOld.to_string());
        }
        // The record first: it is a person who says "reset", and may have no other latch to reset.
        let acknowledged = match &self.recorder {
            Some(recorder) if request == Request::Reset => {
                recorder.acknowledge().map_err(|error| error.to_string())?
            }
            Some(_) | None => false,
        };
        let answer = self.request_of(request, made);
        if let (Request::Reset, Some(Ok(_)) | None, Some(recorder)) =
            (request, &answer, &self.recorder)
        {
            recorder.views.forget_refused();
        }
        match answer {
            // Not with a latch: who resets that has said nothing of the cameras.
            Some(Err(refused @ Refused::NotLatched)) => {
                let views = self.recorder.as_ref().map(|recorder| &recorder.views);
                let views = views.map(|views| views.acknowledge(&self.counters.cameras));
                match views.transpose()?.unwrap_or(false) || acknowledged {
                    true => Ok("acknowledged".to_owned()),
                    false => Err(refused.to_string()),
                }
            }
            Some(Ok(mode)) => Ok(mode.word().to_owned()),
            Some(Err(refused)) => Err(self.refusal(refused)),
            None => Err("the watchdog does not answer".to_owned()),
        }
    }

    /// In words, with which cameras or file it is.
    fn refusal(&self, refused: Refused) -> String {
        let views = self.recorder.as_ref().map(|recorder| &recorder.views);
        let which = match refused {
            Refused::CamerasExchanged => views.and_then(|views| views.refused()),
            Refused::FilesChanged => self.files.changed().map(|path| path.display().to_string()),
            // Theirs is a cause that a reset alone does not end.
            Refused::CauseRemains(Cause::CameraSwapped) => self.exchanged().map(|words| {
                words + ": put them right and start the runtime again; if they are right: start it again, reset, and once more if the arming is refused"
            }),
            _ => None,
        };
        match which {
            Some(which) => format!("{refused} ({which})"),
            None => refused.to_string(),
        }
    }

    /// Takes the robot to a pose of `robot.toml`, as if a person drove it there; grippers keep what they hold. It stays
    /// there until another mode is asked for.
    ///
    /// # Errors
    /// The refusal, in words.
    pub fn park(&self, name: &str, made: Mono) -> Result<String, String> {
        let name = name.trim();
        let Some((_, positions)) = self.poses.iter().find(|(pose, _)| pose == name) else {
            let names: Vec<&str> = self.poses.iter().map(|(name, _)| name.as_str()).collect();
            return Err(format!(
                "expected a [[pose]] of robot.toml ({}), found \"{name}\"",
                names.join(", ")
            ));
        };
        let mut pose = Setpoint::at_rest(positions);
        if let Some(output) = self.view().output {
            let now = output.command.get().position;
            for ((slot, kind), now) in pose.position.iter_mut().zip(&self.kinds).zip(now) {
                if *kind == JointKind::Gripper {
                    *slot = now;
                }
            }
        }
        let mode = self.drive(Driver::Nobody, Driver::Pose(pose), made)?;
        Ok(format!("{mode}: on the way to \"{name}\""))
    }

    /// Sets the share of the speed limits, in percent; tells it for an empty word.
    ///
    /// # Errors
    /// What is wrong with the number.
    pub fn request_speed(&self, word: &str) -> Result<String, String> {
        let word = word.trim();
        if !word.is_empty() {
            let percent: f64 = word
                .parse()
                .ok()
                .filter(|percent| (0.0..=100.0).contains(percent))
                .ok_or_else(|| format!("expected 0 to 100 percent, found \"{word}\""))?;
            self.counters
                .slowed
                .store(slowed(percent), Ordering::Relaxed);
        }
        let slowed = self.counters.slowed.load(Ordering::Relaxed);
        let percent = |slowed: u32| f64::from(1000_u32.saturating_sub(slowed)) / 10.0;
        let derated = self.counters.derated.load(Ordering::Relaxed);
        let by_health = match derated > slowed {
            true => format!("; {} % by the machine's health", percent(derated)),
            false => String::new(),
        };
        Ok(format!(
            "{} % of the speed limits{by_health}",
            percent(slowed)
        ))
    }

    /// Of cameras that first showed something after the last arming: which are exchanged, in words.
    #[must_use]
    pub fn exchanged(&self) -> Option<String> {
        let recorder = self.recorder.as_ref()?;
        recorder.views.stopped(&self.counters.cameras)
    }

    /// A frame of a person's device.
    pub fn hear_device(&self, frame: &[u8]) {
        let output = self.view().output;
        let at = output.as_ref().map(|output| output.command.get());
        if self.wheel.hear(clock::now(), frame, at).is_err() {
            self.counters
                .takeovers_refused
                .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The mode, and why the robot is not simply moving; with what the deployment offers for that cause.
    #[must_use]
    pub fn status(&self) -> String {
        let decision = self.view().decision;
        let Some(cause) = decision.cause else {
            return decision.mode.word().to_owned();
        };
        let names = match self.exchanged().filter(|_| cause == Cause::CameraSwapped) {
            Some(words) => format!(" ({words})"),
            None => cameras::names_of(&self.counters.cameras, cause),
        };
        let offered = self.fallbacks.iter().find(|(of, _)| *of == cause);
        let offered = offered.map_or_else(String::new, |(_, pose)| {
            format!("; offered: tendon park {pose}")
        });
        format!(
            "{}: {}{names}{offered}",
            decision.mode.word(),
            cause.words()
        )
    }

    /// Asks the supervisor; `None` if the watchdog does not answer. An emergency stop reaches the governor at once, and
    /// the policy proposes only once it was armed.
    pub fn request(&self, request: Request) -> Option<Result<Mode, Refused>> {
        self.request_of(request, clock::now())
    }

    /// Asks for standby and waits until the robot is there, at most `timeout`. Returns whether it is.
    pub fn come_to_rest(&self, timeout: Duration) -> bool {
        let deadline = clock::now().plus_ns(timeout.as_nanos() as u64);
        self.request(Request::Stop);
        let asked = clock::now();
        while clock::now() < deadline {
            let view = self.view();
            // One from before knows nothing of it, nor of what was asked just before that.
            if view.as_of <= asked {
                clock::sleep_until(clock::now().plus_ns(MS));
                continue;
            }
            let resting = view.output.is_none_or(|output| output.at_rest);
            if resting && !view.decision.mode.armed() && view.decision.mode != Mode::Stopping {
                // Nobody comes round to it any more. What is latched is the memory's.
                let recorder = self.recorder.as_ref();
                if let Some(recorder) = recorder.filter(|_| !view.decision.mode.latched()) {
                    recorder.armed.settle(clock::now());
                }
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

    /// What the supervisor last said, and when that was taken in: it was no older then.
    #[must_use]
    pub fn decision(&self) -> (Decision, Mono) {
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        (view.decision, view.as_of)
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
        view.as_of = clock::now();
        view.decision = *ends.decided.read();
        view.output = ends.shown.read().0;
        view.insight = *ends.insight.read();
        view.report = ends.states.read().1;
        if ends.picture.updated()
            && let Some(picture) = ends.picture.read().first()
        {
            view.picture.clone_from(picture);
        }
    }
}
