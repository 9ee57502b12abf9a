// SPDX-License-Identifier: Apache-2.0
//! Watchdog: gathers what the supervisor may know, steps it, hands its word to the governor. 100 times a second, and at
//! once when somebody asks for something.

use crate::core::governor::limits::Joint;
use crate::core::governor::measured::{POSE_ROOM, REST_RATE};
use crate::core::governor::reaction::{Cause, Reaction};
use crate::core::governor::{Lines, Output};
use crate::core::observation::StateHistory;
use crate::core::supervisor::deadlines::Deadline;
use crate::core::supervisor::{
    Asked, Decision, Facts, Mode, Permission, Refused, Request, Supervisor,
};
use crate::core::units::{MS, Mono};
use crate::core::wire::state::{MotorMode, Report};
use crate::runtime::cameras;
use crate::runtime::clock::{self, Ticks};
use crate::runtime::counters::Counters;
use crate::runtime::crash::Recorder;
use crate::runtime::governor::Last;
use crate::runtime::operations::Petition;
use crate::runtime::threads::{Seat, Spec};
use crate::runtime::wheel::Wheel;
use crate::sync::heartbeat::Beat;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::Thread;

/// A motor controller that has refused this many commands and accepted none meanwhile refuses us, not a frame.
const REFUSED_COMMANDS: u32 = 2;
/// Sleep of the machine that is no rounding of two clocks.
const SUSPENDED_NS: u64 = 10 * MS;

/// Facts that come from elsewhere than the motor controller.
#[derive(Clone, Copy, Debug)]
pub struct Gathered {
    /// What was asked.
    pub asked: Option<Asked>,
    /// Whether the camera's newest frame is young enough.
    pub cameras_fresh: bool,
    /// What is wrong with the camera, as its thread found.
    pub camera_fault: Option<Cause>,
    /// Whether somebody has said what to do.
    pub instructed: bool,
    /// The lines that a person holds.
    pub lines: Lines,
    /// How long the machine has slept since it started.
    pub slept_ns: u64,
    /// Whether a thread that moves the robot is late.
    pub thread_late: bool,
    /// What the governor last did.
    pub last: Option<Output>,
    /// A random number for the next arming.
    pub next_epoch: u32,
}

/// The supervisor with its memory of the echo. Shared by the thread and by simulated time.
#[derive(Clone, Debug)]
pub struct Watch {
    supervisor: Supervisor,
    state_age_max_ns: u64,
    joints: Vec<Joint>,
    echo: Option<Echo>,
    /// Of the last arming.
    epoch: u32,
    /// Number of the command that was sent last, as far as is known.
    sent: Option<u32>,
    /// Since when nothing but commands to follow is sent.
    following_since: Option<Mono>,
    motor_restarted: bool,
    stepped: Option<Mono>,
    slept_ns: Option<u64>,
}

/// The motor controller's echo: since when it flows, and when it last moved on.
#[derive(Clone, Copy, Debug)]
struct Echo {
    boot_id: u64,
    counter: u32,
    flowing_since: Mono,
    changed: Mono,
    /// Commands that it refused since it started, and since the echo last moved on.
    rejected: u32,
    refusals: u32,
}

/// An echo of a number that is so many behind what was sent last is of somebody else's command: twice the echo's gap at 1 kHz.
const ECHO_BEHIND_MAX: u32 = 200;
/// The number that is known here is as old as a round of this thread: so many commands may have been sent since.
const ECHO_AHEAD_MAX: u32 = 50;
/// An echo that stands still for longer has a gap.
const ECHO_GAP_NS: u64 = Deadline::EchoLost.ns();

impl Watch {
    /// A watch that has seen nothing.
    #[must_use]
    pub fn new(supervisor: Supervisor, state_age_max_ns: u64, joints: &[Joint]) -> Watch {
        Watch {
            supervisor,
            state_age_max_ns,
            joints: joints.to_vec(),
            echo: None,
            epoch: 0,
            sent: None,
            following_since: None,
            motor_restarted: false,
            stepped: None,
            slept_ns: None,
        }
    }

    /// One step.
    pub fn step(
        &mut self,
        now: Mono,
        states: &StateHistory,
        report: Option<&Report>,
        gathered: &Gathered,
    ) -> Decision {
        // Who grants permissions and comes round too late has let one run out: the robot has stopped meanwhile.
        let stepped = self.stepped.replace(now);
        let late = stepped.is_some_and(|at| now.since_ns(at) > Deadline::Permission.ns());
        self.motor_restarted = false;
        self.sent = gathered.last.map(|output| output.tick);
        let follows = gathered
            .last
            .is_some_and(|last| last.moving && last.reaction != Reaction::TorqueOff);
        self.following_since = follows.then(|| self.following_since.unwrap_or(now));
        if let Some(report) = report {
            self.hear(now, report);
        }
        let slept_before_ns = self.slept_ns.replace(gathered.slept_ns);
        let slept_ns = gathered
            .slept_ns
            .saturating_sub(slept_before_ns.unwrap_or(gathered.slept_ns));
        let state = states.latest();
        let pose = |test: &dyn Fn(f64, f64, &Joint) -> bool| {
            state.is_some_and(|state| {
                let readings = state
                    .position
                    .iter()
                    .zip(&state.velocity)
                    .take(state.joints);
                readings
                    .zip(&self.joints)
                    .all(|((q, v), joint)| test(*q, *v, joint))
            })
        };
        let facts = Facts {
            asked: gathered.asked,
            booted: gathered.last.is_some(),
            state_age_ns: state.map(|state| now.since_ns(state.received)),
            state_age_max_ns: self.state_age_max_ns,
            pose_within_limits: pose(&|q, _, joint| {
                (joint.limits.position_min - POSE_ROOM..=joint.limits.position_max + POSE_ROOM)
                    .contains(&q)
            }),
            measured_at_rest: pose(&|_, v, _| v.abs() <= REST_RATE),
            cameras_fresh: gathered.cameras_fresh,
            camera_fault: gathered.camera_fault,
            instructed: gathered.instructed,
            commands_refused: self
                .echo
                .is_some_and(|echo| echo.refusals >= REFUSED_COMMANDS),
            motor_restarted: self.motor_restarted,
            suspended: slept_ns > SUSPENDED_NS,
            emergency_line: gathered.lines.emergency,
            deadman: gathered.lines.deadman,
            echo_flowing_ns: self.echo.map(|echo| now.since_ns(echo.flowing_since)),
            echo_age_ns: self
                .echo
                .map_or(u64::MAX, |echo| now.since_ns(echo.changed)),
            thread_late: gathered.thread_late || late,
            held: gathered.last.and_then(|output| output.found),
            governor_epoch: gathered.last.map_or(0, |output| output.epoch),
            at_rest: gathered.last.is_some_and(|output| output.at_rest),
            next_epoch: gathered.next_epoch,
        };
        let decision = self.supervisor.step(now, &facts);
        if let Permission::Armed(armed) = decision.permission {
            self.epoch = armed.epoch();
        }
        decision
    }

    /// Whether what it echoes is a command of ours: of no arming of somebody else, and of a number that was sent lately.
    fn sent_by_us(&self, now: Mono, report: &Report) -> bool {
        let mode = match report.mode {
            MotorMode::Following => report.epoch == self.epoch,
            // What it takes are keep-alives, and for so long we have sent none.
            MotorMode::Idle => self
                .following_since
                .is_none_or(|since| now.since_ns(since) <= ECHO_GAP_NS),
            MotorMode::Stopped | MotorMode::TorqueOff => true,
        };
        mode && self.sent.is_none_or(|sent| near(sent, report.echo_counter))
    }

    /// An echo flows while it is of one boot, moves on, and speaks of commands of ours.
    fn hear(&mut self, now: Mono, report: &Report) {
        let ours = self.sent_by_us(now, report);
        match &mut self.echo {
            Some(echo) if echo.boot_id == report.boot_id => {
                if ours && echo.counter != report.echo_counter {
                    if now.since_ns(echo.changed) > ECHO_GAP_NS {
                        echo.flowing_since = now;
                    }
                    echo.counter = report.echo_counter;
                    echo.changed = now;
                    echo.refusals = 0;
                } else {
                    let more = report.rejected.wrapping_sub(echo.rejected);
                    echo.refusals = echo.refusals.saturating_add(more);
                }
                echo.rejected = report.rejected;
            }
            other => {
                self.motor_restarted = other.is_some();
                self.echo = Some(Echo {
                    boot_id: report.boot_id,
                    counter: report.echo_counter,
                    flowing_since: now,
                    changed: now,
                    rejected: report.rejected,
                    refusals: 0,
                });
            }
        }
    }
}

/// Whether an echoed number may be of a command that was sent lately.
fn near(sent: u32, echoed: u32) -> bool {
    let (behind, ahead) = (sent.wrapping_sub(echoed), echoed.wrapping_sub(sent));
    behind <= ECHO_BEHIND_MAX || ahead <= ECHO_AHEAD_MAX
}

/// What of a request reaches the supervisor: after a crash that nobody has acknowledged, no arming.
fn admit(asked: Option<Asked>, crashed: bool) -> (Option<Asked>, Option<Refused>) {
    match asked.map(|asked| asked.request) {
        Some(Request::Activate | Request::TakeOver) if crashed => (None, Some(Refused::Crashed)),
        Some(_) | None => (asked, None),
    }
}

/// The watchdog's period.
const PERIOD_NS: u64 = 10_000_000;

/// Everything the watchdog thread touches.
#[derive(Debug)]
pub struct WatchIo {
    /// Newest joint states and the report that brought them.
    pub states: triple_buffer::Output<(StateHistory, Option<Report>)>,
    /// From the governor.
    pub last: triple_buffer::Output<Last>,
    /// From the desk.
    pub requests: mpsc::Receiver<Petition>,
    /// Where the thread says who it is, for the desk to wake it.
    pub thread: Arc<OnceLock<Thread>>,
    /// To the governor.
    pub decisions: triple_buffer::Input<Decision>,
    /// To the desk.
    pub decided: triple_buffer::Input<Decision>,
    /// The threads without which the robot must not move.
    pub beats: Vec<(Spec, Beat)>,
    /// Counters.
    pub counters: Counters,
    /// The lines that a person holds.
    pub wheel: Arc<Wheel>,
    /// Set when a thread has panicked.
    pub failed: Arc<AtomicBool>,
    /// Knows of a crash that nobody has acknowledged.
    pub recorder: Option<Arc<Recorder>>,
    /// Set when the pipeline ends.
    pub ending: Arc<AtomicBool>,
}

/// The watchdog thread.
pub fn run(mut watch: Watch, mut io: WatchIo, seat: &Seat) {
    let mut ticks = Ticks::new(clock::now(), PERIOD_NS);
    // Random keys of the standard library's hasher: an arming of an earlier start must not be taken for one of ours.
    let random = std::collections::hash_map::RandomState::new();
    let mut before = Mode::Boot;
    // Whoever asks wakes this thread, once a period at most: a flood of requests does not keep it.
    let _ = io.thread.set(std::thread::current());
    let mut early = false;
    let mut exchanged = false;
    while !io.ending.load(Ordering::Relaxed) {
        let tick = if early {
            Some(ticks.wait())
        } else {
            ticks.wait_or_woken()
        };
        early = tick.is_none();
        let now = tick.map_or_else(clock::now, |tick| tick.woke);
        seat.beat.mark(now);
        let asked = io.requests.try_recv().ok();
        let crashed = io
            .recorder
            .as_ref()
            .is_some_and(|recorder| recorder.unacknowledged());
        let (request, refused) = admit(asked.as_ref().map(|(asked, _)| *asked), crashed);
        let failed = io.failed.load(Ordering::Acquire);
        let late = failed
            || io
                .beats
                .iter()
                .any(|(spec, beat)| spec.late_ns(beat, now).is_some());
        let (mut camera_fault, cameras_fresh) = cameras::needed(&io.counters.cameras, now);
        if let Some(recorder) = &io.recorder {
            exchanged = recorder.views.late(&io.counters.cameras, now, exchanged);
            camera_fault = exchanged.then_some(Cause::CameraSwapped).or(camera_fault);
        }
        let gathered = Gathered {
            asked: request,
            lines: io.wheel.lines(now),
            slept_ns: clock::slept_ns(),
            camera_fault,
            cameras_fresh,
            instructed: io.counters.instructed.load(Ordering::Relaxed),
            thread_late: late,
            last: io.last.read().0,
            next_epoch: random.hash_one(now) as u32,
        };
        let (states, report) = io.states.read();
        let decision = watch.step(now, states, report.as_ref(), &gathered);
        if before == Mode::EStop && decision.mode != Mode::EStop {
            io.counters.emergency_stop.store(false, Ordering::Release);
        }
        before = decision.mode;
        io.counters
            .mode
            .store(decision.mode as u8, Ordering::Relaxed);
        io.decisions.write(decision);
        io.decided.write(decision);
        if let Some((_, answer)) = asked {
            // Whoever asked may have given up waiting.
            let _ = answer.try_send(
                refused
                    .map(Err)
                    .or(decision.answer)
                    .unwrap_or(Err(Refused::Busy)),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn an_echo_is_near_what_was_sent_a_little_ahead_and_never_far() {
        for sent in [0, 7, 1_000, u32::MAX - 3, u32::MAX] {
            for (by, is) in [
                (0, true),
                (50, true),
                (51, false),
                (1 << 31, false),
                (0_u32.wrapping_sub(201), false),
                (0_u32.wrapping_sub(200), true),
            ] {
                assert_eq!(near(sent, sent.wrapping_add(by)), is, "{sent} {by}");
            }
        }
    }
}
