// SPDX-License-Identifier: Apache-2.0
//! The wiring of the control process, in one function ([`start_recorded`]): every thread, what it reads and what it writes,
//! sinks first. Cameras and inference are one thing here, the mind: [`mind`](crate::runtime::mind) wires their threads, and
//! `isolation/child.rs` the same in a process of their own.
//!
//! ```text
//! camera --frame--> inference --chunk--> control --proposal--> governor --command--> egress --> link
//!    |                  ^                   ^___________held_______|  ^                            |
//!    +--> page          +---- states <----------------------------------------- link <-------------+
//!                       watchdog (heartbeats, supervisor) --decision--^
//! ```

use crate::core::governor::Proposal;
use crate::core::observation::StateHistory;
use crate::core::supervisor::{Permission, Supervisor};
use crate::core::wire::command::CommandReceiver;
use crate::core::wire::state::{Report, StateReceiver};
use crate::link::keys;
use crate::link::runtime_end::{Announcer, CommandSender, Lane, answer_requests, subscribe};
use crate::link::session::LinkError;
use crate::runtime::cameras::{self, CameraOpenError, Reach, Watched};
use crate::runtime::clock;
use crate::runtime::control::{self, ControlIo, Followed, Told};
use crate::runtime::counters::Counters;
use crate::runtime::crew::Crew;
use crate::runtime::deployment::Deployment;
use crate::runtime::derate::{self, HealthIo};
use crate::runtime::egress::{self, EgressIo, Framer};
use crate::runtime::events::Events;
use crate::runtime::governor::{self, GovernorIo, Last, NO_DECISION};
use crate::runtime::inference::Insight;
use crate::runtime::lines::{self, Wired};
use crate::runtime::memory::{self, Memory};
use crate::runtime::mind::{Ends, Mind};
use crate::runtime::operations::{Desk, DeskEnds, Levers, View};
use crate::runtime::reel::Recent;
use crate::runtime::service::{self, ServiceIo};
use crate::runtime::strangers::Strangers;
use crate::runtime::telemetry::{self, tap};
use crate::runtime::threads::{self, Seat};
use crate::runtime::watchdog::{self, Watch, WatchIo};
use crate::runtime::watchdog_device::WatchdogDevice;
use crate::runtime::wheel::Wheel;
use crate::sync::heartbeat::Beat;
use crate::sync::mailbox::mailbox;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use triple_buffer::triple_buffer;
use zenoh::Session;

/// Chunks waiting between inference and control.
const CHUNKS: usize = crate::core::limits::CHUNKS_QUEUED_MAX;
/// Instructions waiting for inference; a person types slower.
const INSTRUCTIONS: usize = 4;

/// Why the pipeline did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A camera that waiting would not mend.
    #[error(transparent)]
    Camera(#[from] CameraOpenError),
    /// The operating system gave no thread.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
    /// `realtime.mode = "require"`, and something was not granted.
    #[error(
        "realtime.mode = \"require\", and the kernel does not grant what was asked for:\n  {0}"
    )]
    Realtime(String),
    /// The hardware watchdog.
    #[error("watchdog.device: {0}")]
    Watchdog(String),
}

/// A running pipeline. Dropping it ends it: bring the robot to rest first ([`Desk::come_to_rest`]).
pub struct Running {
    /// Where people ask and look.
    pub desk: Arc<Desk>,
    /// Its threads: what they were granted, and whether they come round.
    pub crew: Crew,
    ready: Arc<AtomicBool>,
    ending: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _link: Vec<Box<dyn std::any::Any>>,
}

impl Running {
    /// Whatever else the program needs is there too: the service manager may be told.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Release);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already; the others must still be waited for.
            drop(thread.join());
        }
    }
}

/// Builds and starts everything. Nothing moves until somebody arms the robot.
///
/// # Errors
/// [`StartError`].
pub fn start(
    deployment: Deployment<impl Mind>,
    session: &Session,
    injected_delay_ns: u64,
) -> Result<Running, StartError> {
    start_recorded(deployment, session, injected_delay_ns, None)
}

/// As [`start`], with a memory of what went wrong and, if one listens, a word to the service manager.
///
/// # Errors
/// [`StartError`].
pub fn start_recorded(
    deployment: Deployment<impl Mind>,
    session: &Session,
    injected_delay_ns: u64,
    memory: Option<Memory>,
) -> Result<Running, StartError> {
    let recorder = memory.as_ref().map(|memory| Arc::clone(&memory.recorder));
    let kept_in = memory
        .as_ref()
        .map(|memory| memory.latch.folder().to_owned());
    let Deployment {
        config,
        mind,
        words,
        schedule,
        governor,
        identities,
        policy_name,
        engine,
        parity,
    } = deployment;
    if !engine.passed.is_empty() {
        log::warn!("engine: {}", engine.words());
    }
    if !parity.missed.is_empty() {
        log::warn!("the policy misses its parity fixture and was let through: {parity}");
    }
    let robot = config.robot.name.as_str();
    // The engine is loaded: what it mapped is locked as it is touched.
    let mut crew = Crew::new(&config.realtime, recorder.clone());
    let (period_ns, state_age_max_ns) = (config.control.period_ns, config.control.state_age_max_ns);
    let ending = Arc::new(AtomicBool::new(false));
    let watched: Vec<Watched> = config.cameras().map(Watched::new).collect();
    let cameras = Arc::new(watched);
    let counters = Counters {
        cameras,
        ..Counters::default()
    };
    let beats: [Beat; 5] = std::array::from_fn(|_| Beat::new());
    let [
        control_beat,
        governor_beat,
        egress_beat,
        watchdog_beat,
        telemetry_beat,
    ] = &beats;

    // The cells between the threads.
    let (picture, picture_out) = triple_buffer(&Recent::new());
    let (chunks, chunks_out) = rtrb::RingBuffer::new(CHUNKS);
    let nothing = Proposal {
        made: clock::now(),
        step: crate::core::schedule::Step::None(crate::core::schedule::Absence::NoChunk),
    };
    let (proposals, proposals_out) = mailbox(&nothing);
    let (commands, commands_out) = mailbox(&None);
    let (told, told_out) = triple_buffer(&Told::default());
    let (last, last_out) = triple_buffer(&Last::default());
    let (shown, shown_out) = triple_buffer(&Last::default());
    let (decisions, decisions_out) = triple_buffer(&NO_DECISION);
    let (decided, decided_out) = triple_buffer(&NO_DECISION);
    let (followed, followed_out) = triple_buffer(&Followed::default());
    let (insight, insight_out) = triple_buffer(&Insight::default());
    let history = StateHistory::default();
    let (mut to_inference, inference_states) = triple_buffer(&history);
    let (mut to_governor, governor_states) = triple_buffer(&history);
    let (mut to_watchdog, watchdog_states) = triple_buffer(&(history.clone(), None::<Report>));
    let (mut to_page, page_states) = triple_buffer(&(history.clone(), None::<Report>));
    let (instructions, instructions_out) = mpsc::sync_channel(INSTRUCTIONS);
    let (requests, requests_out) = mpsc::sync_channel(INSTRUCTIONS);
    let ((control_tap, c), (inference_tap, i), (egress_tap, e)) = (tap(), tap(), tap());

    // The desk: where the page, the command line and the demo ask and look.
    let desk_ends = DeskEnds {
        decided: decided_out,
        shown: shown_out,
        insight: insight_out,
        states: page_states,
        picture: picture_out,
        taps: vec![c, i, e],
    };
    let obeys_from = Arc::new(AtomicU32::new(0));
    let (wheel, driver_out) = Wheel::new(identities.takeovers);
    let wired = Arc::new(Wired::new(&config.lines));
    let wheel = Arc::new(wheel.beside(Arc::clone(&wired)));
    let watchdog_thread = Arc::default();
    let levers = Levers {
        instructions,
        requests,
        watchdog: Arc::clone(&watchdog_thread),
        counters: counters.clone(),
        wheel: Arc::clone(&wheel),
    };
    let desk = Arc::new(Desk::new(
        &config,
        &policy_name,
        words,
        levers,
        recorder.clone(),
    ));

    // The link's ends.
    let sender = CommandSender::new(session, robot)?;
    let reach = Reach {
        session,
        robot,
        pictures: identities.pictures,
    };
    let mind = mind.open(&config, &mut |camera| {
        cameras::open_over_link(camera, reach)
    })?;
    let mut receiver =
        StateReceiver::new(identities.states).delayed_by(config.robot.state_delay_ns);
    let mut states = history;
    let refused_states = Arc::clone(&counters.states_refused);
    let subscriber = subscribe(session, keys::state(robot), move |frame| {
        let Ok((report, _)) = receiver.accept(clock::now(), frame) else {
            refused_states.fetch_add(1, Ordering::Relaxed);
            return;
        };
        states.push(&report.state);
        for cell in [&mut to_inference, &mut to_governor] {
            cell.input_buffer_mut().clone_from(&states);
            cell.publish();
        }
        for cell in [&mut to_watchdog, &mut to_page] {
            let slot = cell.input_buffer_mut();
            slot.0.clone_from(&states);
            slot.1 = Some(report);
            cell.publish();
        }
    })?;
    let [asked, moded, paced, parked, heard] = std::array::from_fn(|_| Arc::clone(&desk));
    let instruction = keys::instruction(robot);
    let instruct = answer_requests(session, instruction, clock::now, None, move |text, _| {
        asked.instruct(text)
    })?;
    let lane: fn(&str) -> Lane = |word| match word.trim() {
        "standby" | "stop" | "e-stop" => Lane::Stop,
        "active" | "takeover" | "reset" => Lane::Patient,
        _ => Lane::Look,
    };
    let modes = keys::mode(robot);
    let mode = answer_requests(session, modes, clock::now, Some(lane), move |word, came| {
        moded.request_mode(word, came)
    })?;
    let speeds = keys::speed(robot);
    let speed = answer_requests(session, speeds, clock::now, None, move |word, _| {
        paced.request_speed(word)
    })?;
    let poses = keys::park(robot);
    let park = answer_requests(session, poses, clock::now, None, move |name, came| {
        parked.park(name, came)
    })?;
    let device = subscribe(session, keys::takeover(robot), move |frame| {
        heard.hear_device(frame)
    })?;
    let far = config.lines.deadman_over_link().then(|| {
        let (wired, refused) = (Arc::clone(&wired), Arc::clone(&counters.deadman_refused));
        let mut receiver = CommandReceiver::new(identities.deadman);
        subscribe(session, keys::deadman(robot), move |frame| {
            if wired.hear(&mut receiver, clock::now(), frame).is_err() {
                refused.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let far = far.transpose()?;
    let announcer = Announcer::new(session, robot)?;

    // The threads, sinks first.
    let now = clock::now();
    let mut threads = Vec::new();
    if config.lines.emergency.is_some() || config.lines.deadman.is_some() {
        let (reader, opener) = lines::parts(&config.lines, &wired);
        let until = Arc::clone(&ending);
        let body = move |seat: Seat| opener.run(&until, &seat);
        // It ends with the others, but is not waited for: a driver may keep it.
        drop(crew.spawn(threads::OPENER, now, Beat::new(), body)?);
        let until = Arc::clone(&ending);
        let body = move |seat: Seat| reader.run(&until, &seat);
        threads.push(crew.spawn(threads::LINES, now, Beat::new(), body)?);
        // Before its first word an emergency stop counts as pressed, and that would latch.
        wired.settle(&config.lines);
    }
    let egress_io = EgressIo {
        commands: commands_out,
        link: sender,
        link_faults: Arc::clone(&counters.link_faults),
        allocations: Arc::clone(&counters.egress_allocations),
        tap: egress_tap,
        ending: Arc::clone(&ending),
    };
    let framer = Framer::of(&config.robot, identities.commands);
    threads.push(
        crew.spawn(threads::EGRESS, now, egress_beat.clone(), move |seat| {
            egress::run(framer, egress_io, &seat)
        })?,
    );
    let governor_io = GovernorIo {
        proposals: proposals_out,
        states: governor_states,
        decisions: decisions_out,
        emergency_stop: Arc::clone(&counters.emergency_stop),
        slowed: Arc::clone(&counters.slowed),
        derated: Arc::clone(&counters.derated),
        wheel: Arc::clone(&wheel),
        commands,
        told,
        last,
        shown,
        interventions: Arc::clone(&counters.interventions),
        allocations: Arc::clone(&counters.governor_allocations),
        ending: Arc::clone(&ending),
    };
    threads.push(
        crew.spawn(threads::GOVERNOR, now, governor_beat.clone(), move |seat| {
            governor::run(governor, governor_io, period_ns, &seat);
        })?,
    );
    let control_io = ControlIo {
        chunks: chunks_out,
        proposals,
        told: told_out,
        followed,
        driver: driver_out,
        obeys_from: Arc::clone(&obeys_from),
        tap: control_tap,
        allocations: Arc::clone(&counters.control_allocations),
        chunks_refused: Arc::clone(&counters.chunks_refused),
        ending: Arc::clone(&ending),
    };
    let ticks = clock::Ticks::new(now, period_ns);
    threads.push(
        crew.spawn(threads::CONTROL, now, control_beat.clone(), move |seat| {
            control::run(schedule, control_io, ticks, &seat)
        })?,
    );
    let ends = Ends {
        states: inference_states,
        followed: followed_out,
        instructions: instructions_out,
        chunks,
        insight,
        picture,
        obeys_from,
        cameras: Arc::clone(&counters.cameras),
        frames_apart: Arc::clone(&counters.frames_apart),
        skew_widest_ns: Arc::clone(&counters.skew_widest_ns),
        faults: Arc::clone(&counters.inference_faults),
        restarts: Arc::clone(&counters.inference_restarts),
        tap: inference_tap,
        injected_delay_ns,
        bell: None,
        ending: Arc::clone(&ending),
    };
    threads.extend(mind(ends, &mut crew, now)?);
    let joints: Vec<_> = config
        .robot
        .joints
        .iter()
        .map(|(_, joint)| *joint)
        .collect();
    let watch_io = WatchIo {
        states: watchdog_states,
        last: last_out,
        requests: requests_out,
        thread: watchdog_thread,
        decisions,
        decided,
        beats: vec![
            (threads::CONTROL, control_beat.clone()),
            (threads::GOVERNOR, governor_beat.clone()),
            (threads::EGRESS, egress_beat.clone()),
        ],
        counters: counters.clone(),
        wheel: Arc::clone(&wheel),
        failed: Arc::clone(&crew.failed),
        recorder: recorder.clone(),
        ending: Arc::clone(&ending),
    };
    let watch = Watch::new(
        Supervisor::new(
            config.limits.reactions,
            memory.as_ref().and_then(|memory| memory.latch.kept()),
        ),
        state_age_max_ns,
        &joints,
    );
    threads.push(
        crew.spawn(threads::WATCHDOG, now, watchdog_beat.clone(), move |seat| {
            watchdog::run(watch, watch_io, &seat)
        })?,
    );
    let help_after = config
        .policy
        .doubt_max
        .map(|_| config.policy.help_after_chunks);
    let (told, telling) = (Arc::clone(&desk), Arc::clone(&ending));
    threads.push(crew.spawn(
        threads::TELEMETRY,
        now,
        telemetry_beat.clone(),
        move |seat| {
            let mut events = Events::new(identities.events, help_after, &parity);
            let mut strangers = Strangers::default();
            let tell = |now, view: &View| {
                let report = view.report.as_ref();
                if let Some(words) = report.and_then(|report| strangers.see(now, report)) {
                    log::error!("{words}");
                }
                if let Some(frame) = events.next(now, view) {
                    announcer.tell(&frame);
                }
            };
            telemetry::run(&told, desk_ends, tell, &telling, &seat);
        },
    )?);

    let memory_beat = memory.as_ref().map(|_| Beat::new());
    if let Some((memory, beat)) = memory.zip(memory_beat.clone()) {
        let (desk, ending) = (Arc::clone(&desk), Arc::clone(&ending));
        threads.push(crew.spawn(threads::MEMORY, now, beat, move |seat| {
            memory::run(memory, &desk, &ending, &seat)
        })?);
    }
    let health_io = HealthIo {
        config: config.derate.clone(),
        memory: memory_beat,
        state: kept_in,
        newest: Arc::clone(&counters.health),
        derated: Arc::clone(&counters.derated),
        ending: Arc::clone(&ending),
    };
    let body = move |seat: Seat| derate::run(&health_io, &seat);
    threads.push(crew.spawn(threads::HEALTH, now, Beat::new(), body)?);
    let mut running = Running {
        desk,
        crew,
        ready: Arc::default(),
        ending,
        threads,
        _link: vec![
            Box::new(subscriber),
            Box::new(instruct),
            Box::new(mode),
            Box::new(speed),
            Box::new(park),
            Box::new(device),
            Box::new(far),
        ],
    };
    // Before a hardware watchdog is awake, which a start that is refused would leave behind.
    running.crew.report().map_err(StartError::Realtime)?;
    let hardware = config.watchdog.as_ref().map(|watchdog| {
        WatchdogDevice::open(&watchdog.device, watchdog.timeout_s).map_err(StartError::Watchdog)
    });
    let hardware = hardware.transpose()?;
    if hardware.is_some() || (recorder.is_some() && service::listens()) {
        let mut pinged_for = running.crew.beats.clone();
        // A disk or a driver that does not answer must not end a robot at work.
        let patient = [threads::MEMORY.name, threads::OPENER.name];
        pinged_for.retain(|(spec, _)| !patient.contains(&spec.name));
        if config.derate.is_empty() {
            // It only looks, and a disk that does not answer must not end a robot at work.
            pinged_for.retain(|(spec, _)| spec.name != threads::HEALTH.name);
        }
        let io = ServiceIo {
            device: hardware,
            beats: pinged_for,
            mode: Arc::clone(&counters.mode),
            recorder,
            ready: Arc::clone(&running.ready),
            ending: Arc::clone(&running.ending),
        };
        let beat = Beat::new();
        let body = move |seat: Seat| service::run(io, &seat);
        let service = running.crew.spawn(threads::SERVICE, now, beat, body)?;
        running.threads.push(service);
        running.crew.report().map_err(StartError::Realtime)?;
    }
    debug_assert_eq!(
        NO_DECISION.permission,
        Permission::None,
        "nothing may move before the watchdog's first word"
    );
    Ok(running)
}
