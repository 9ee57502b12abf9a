// SPDX-License-Identifier: Apache-2.0
//! The control process's side: starts the inference process, carries between it and the pipeline's cells, watches it, and
//! starts it again with growing pauses when it ended, hangs or writes nonsense. Until it is back its cameras count as
//! lost: the robot holds.

use crate::config::Config;
use crate::config::camera::CameraConfig;
use crate::core::camera::skew::Need;
use crate::core::governor::reaction::Cause;
use crate::core::limits::CAMERAS_MAX;
use crate::core::units::{MS, Mono};
use crate::policy::text::Instruction;
use crate::ports::{Counts, Frame, Source, SourceFault};
use crate::runtime::cameras::{CameraOpenError, Watched};
use crate::runtime::capture::Allocated;
use crate::runtime::clock;
use crate::runtime::isolation::How;
use crate::runtime::isolation::codec;
use crate::runtime::isolation::plane::{self, Near, Part, Tally, Writer};
use crate::runtime::isolation::process::{LOADING_NS, Process, Was};
use crate::runtime::isolation::talk::{self, Line, Take, Tell};
use crate::runtime::mind::{Ends, Mind, OpenFar, Opened};
use crate::runtime::places::{self, Places};
use crate::runtime::realtime::allocations_of_this_thread;
use crate::runtime::reel::Reel;
use crate::runtime::telemetry::Sample;
use crate::runtime::threads::{self, Seat, Spec};
use crate::sync::heartbeat::Beat;
use crate::sync::shared::Broken;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

/// The ferry comes round this often, or when the bell rings.
pub(super) const ROUND_MS: u64 = 2;
/// A process whose ferry is silent for longer tells nothing of its cameras: they count as lost.
const QUIET_NS: u64 = 150 * MS;
/// A ferry of our own that came so late has no right to judge the other one's.
const OWN_LATE_NS: u64 = 100 * MS;
/// A heartbeat may be so far ahead of the round that reads it, which took its time before.
const AHEAD_MAX_NS: u64 = threads::FERRY.beat_age_max_ns;
/// Pause before a process that ended is started again: doubled each time, to the second.
const PAUSE_NS: u64 = 500 * MS;
const PAUSE_MAX_NS: u64 = 30_000 * MS;
/// One that was up for so long was well: the pauses begin anew.
const WELL_NS: u64 = 60_000 * MS;
/// The instruction in force was taken up at most so many chunks after the last one that was carried.
const OBEYS_AHEAD: u32 = 64;
/// Longest time for an instruction to be taken by the socket, which is empty but for the ones before it.
const SAYING_MS: u64 = 50;
/// Why it is ended when the shared memory is not as the two ends leave it.
const SCRIBBLED: &str = "wrote where or what it should not";
/// Given to it to end by itself.
const END_NS: u64 = 1_000 * MS;

/// A mind in another process, ready.
#[derive(Debug)]
pub struct Apart {
    pub(super) how: How,
    pub(super) line: Line,
    pub(super) process: Process,
    pub(super) bundle_hash: u32,
}

/// The cells of one camera over the link, for the thread that hears its pictures.
type Handing = (Writer, OwnedFd);

impl Mind for Apart {
    fn open(self, config: &Config, far: &mut OpenFar<'_>) -> Result<Opened, CameraOpenError> {
        let mut sources: Vec<Option<(CameraConfig, Box<dyn Source>)>> = Vec::new();
        for camera in config.cameras() {
            let source = plane::is_far(camera).then(|| far(camera)).transpose()?;
            sources.push(source.map(|source| (camera.clone(), source)));
        }
        let config = config.clone();
        Ok(Box::new(move |ends, crew, now| {
            let mut threads = Vec::new();
            let mut handing = Vec::new();
            for (source, told) in sources.into_iter().zip(ends.cameras.iter().cloned()) {
                let Some((camera, source)) = source else {
                    handing.push(None);
                    continue;
                };
                let (sender, cells) = mpsc::channel();
                handing.push(Some(sender));
                let ending = Arc::clone(&ends.ending);
                threads.push(crew.spawn(threads::CAPTURE, now, Beat::new(), move |seat| {
                    hand_over(&camera, source, &told, &cells, &ending, &seat)
                })?);
            }
            let keeper = Keeper {
                was: Was {
                    chunk: 0,
                    bundle_hash: Some(self.bundle_hash),
                },
                how: self.how,
                handing,
                ends,
                shown: Reel::of_newest(&Frame::black(config.camera.width, config.camera.height)),
                instruction: None,
                untold: false,
                sent: Mono(0),
                places: Places::default(),
                failures: Failures::default(),
                words: Vec::new(),
                values: Vec::new(),
                config,
            };
            let (process, line) = (self.process, self.line);
            threads.push(crew.spawn(threads::FERRY, now, Beat::new(), move |seat| {
                keeper.run(process, line, &seat)
            })?);
            Ok(threads)
        }))
    }
}

/// Hears a camera over the link, counts what is lost on its way here, and hands its pictures to whichever process runs.
fn hand_over(
    camera: &CameraConfig,
    mut source: Box<dyn Source>,
    told: &Watched,
    cells: &mpsc::Receiver<Handing>,
    ending: &AtomicBool,
    seat: &Seat,
) {
    let mut frame = Frame::black(camera.width, camera.height);
    let nothing = Frame::black(0, 0);
    let mut handing: Option<Handing> = None;
    let mut allocated = Allocated::default();
    while !ending.load(Ordering::Relaxed) {
        let now = clock::now();
        seat.beat.mark(now);
        handing = cells.try_iter().last().or(handing);
        let before = allocations_of_this_thread();
        let heard = source.next_frame(now.plus_ns(20 * MS), &mut frame);
        told.count(allocated.beside(source.counts()));
        let picture = match heard {
            Ok(()) => &frame,
            Err(SourceFault::Broken(_)) => &nothing,
            Err(SourceFault::Timeout | SourceFault::Gone(_)) => continue,
        };
        if let Some((writer, bell)) = &mut handing {
            writer.put(|slot| codec::write_frame(picture, slot));
            talk::ring(bell);
            allocated.good(before);
        }
    }
}

enum State {
    /// It runs.
    Up(Box<Process>, Line),
    /// It loads the policy.
    Loading(Box<Process>, Line),
    /// There is none.
    Down(Pause),
}

/// Until the next process.
struct Pause {
    /// When it is started.
    again: Mono,
    /// The last one, killed and not gone yet; and whether that was told.
    going: Option<Box<Process>>,
    told: bool,
}

/// How often in a row it failed, and since when it is up.
#[derive(Debug, Default)]
struct Failures {
    count: u32,
    /// When the process that runs was ready; `None` while there is none. Loading is no running: it may take minutes, and a
    /// process that fails at its first inference was never well.
    up: Option<Mono>,
}

impl Failures {
    fn ready(&mut self, now: Mono) {
        self.up = Some(now);
    }

    /// It failed at `now`: the pause before the next is started.
    fn pause_ns(&mut self, now: Mono) -> u64 {
        if self.up.take().is_some_and(|up| now.since_ns(up) > WELL_NS) {
            self.count = 0;
        }
        let pause_ns = PAUSE_NS
            .saturating_mul(1 << self.count.min(16))
            .min(PAUSE_MAX_NS);
        self.count = self.count.saturating_add(1);
        pause_ns
    }
}

/// The thread that carries and watches.
struct Keeper {
    config: Config,
    how: How,
    handing: Vec<Option<mpsc::Sender<Handing>>>,
    ends: Ends,
    /// What the page is shown.
    shown: Reel,
    was: Was,
    /// In force; and whether the process that runs has not heard it.
    instruction: Option<Instruction>,
    untold: bool,
    /// Newest joint state that was handed over.
    sent: Mono,
    /// Of the cameras of the process that runs.
    places: Places,
    failures: Failures,
    words: Vec<u64>,
    values: Vec<f32>,
}

impl Keeper {
    fn run(mut self, process: Process, line: Line, seat: &Seat) {
        let mut state = self.up(Box::new(process), line);
        let mut last = clock::now();
        // From when on the other ferry may be judged.
        let mut fair = last;
        while !self.ends.ending.load(Ordering::Relaxed) {
            let now = clock::now();
            seat.beat.mark(now);
            if now.since_ns(last) > OWN_LATE_NS {
                fair = now.plus_ns(threads::FERRY.beat_age_max_ns);
            }
            last = now;
            if let Ok(instruction) = self.ends.instructions.try_recv() {
                self.instruction = Some(instruction);
                self.untold = true;
            }
            state = match state {
                State::Up(process, line) => self.serve(process, line, now, fair),
                State::Loading(process, line) => self.await_ready(process, line, now),
                State::Down(pause) => self.wait(pause, now),
            };
        }
        self.end(state);
    }

    /// A process that is ready: it gets the pictures from now on, and the line.
    fn up(&mut self, mut process: Box<Process>, line: Line) -> State {
        let cells = process.near.handed.iter_mut().zip(&mut process.bells);
        for (sender, (writer, bell)) in self.handing.iter().zip(cells) {
            if let (Some(sender), Some(writer), Some(bell)) = (sender, writer.take(), bell.take()) {
                // A thread that has ended has said why.
                drop(sender.send((writer, bell)));
            }
        }
        self.untold = self.instruction.is_some();
        self.sent = Mono(0);
        let now = clock::now();
        self.failures.ready(now);
        Tally::Ferry.set(&process.near.tallies, now.0);
        State::Up(process, line)
    }

    fn start(&mut self, now: Mono) -> State {
        match Process::start(&self.config, &self.how, self.was) {
            Ok((process, line)) => State::Loading(Box::new(process), line),
            Err(error) => self.down(now, None, &format!("could not be started: {error}")),
        }
    }

    fn await_ready(&mut self, mut process: Box<Process>, mut line: Line, now: Mono) -> State {
        match line.hear(ROUND_MS).map(|word| word.map(Tell::judged)) {
            Ok(Some(Tell::Ready(facts))) => {
                // By the ladder it may be another engine now.
                let engine = facts
                    .read()
                    .map_or_else(String::new, |(_, engine, _)| engine.words());
                log::warn!(
                    "the inference process runs again, after {} ms of loading, on {engine}",
                    now.since_ns(process.started) / MS
                );
                self.up(process, line)
            }
            Ok(Some(Tell::Refused(problems))) => {
                let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
                self.down(
                    now,
                    Some(process),
                    &format!("refused to run: {}", words.join("; ")),
                )
            }
            Ok(None) => {
                if now.since_ns(process.started) > LOADING_NS {
                    return self.down(now, Some(process), "did not load the policy in time");
                }
                State::Loading(process, line)
            }
            Err(error) => {
                let end = process.ended(now);
                let why = end.map_or_else(|| error.to_string(), |status| status.to_string());
                self.down(
                    now,
                    Some(process),
                    &format!("ended while it loaded the policy: {why}"),
                )
            }
        }
    }

    /// The pause before the next one, which comes only when the last is gone: two would share cameras and the GPU's memory.
    fn wait(&mut self, mut pause: Pause, now: Mono) -> State {
        if pause.going.as_mut().is_some_and(|process| process.gone()) {
            pause.going = None;
        }
        if now >= pause.again {
            let Some(process) = &pause.going else {
                return self.start(now);
            };
            if !pause.told {
                log::error!(
                    "the inference process {} was killed and does not end: the kernel holds it, as a driver may; no other is \
                     started before it is gone",
                    process.id()
                );
                pause.told = true;
            }
        }
        clock::sleep_until(now.plus_ns(ROUND_MS * MS));
        State::Down(pause)
    }

    /// There is none any more: what it told is void, and the next comes after a pause. Nobody waits here for its end.
    fn down(&mut self, now: Mono, mut going: Option<Box<Process>>, why: &str) -> State {
        if let Some(process) = &mut going {
            process.kill();
        }
        self.blind();
        self.places.lost(&self.ends.cameras);
        self.ends.restarts.fetch_add(1, Ordering::Relaxed);
        let pause_ns = self.failures.pause_ns(now);
        log::error!(
            "the inference process {why}: the robot holds; it is started again in {} ms",
            pause_ns / MS
        );
        State::Down(Pause {
            again: now.plus_ns(pause_ns),
            going,
            told: false,
        })
    }

    /// Cameras of which nothing is known.
    fn blind(&self) {
        for camera in self.ends.cameras.iter() {
            camera
                .fault
                .store(Cause::CameraLost as u8, Ordering::Relaxed);
        }
    }

    /// One round of a process that runs.
    fn serve(&mut self, mut process: Box<Process>, mut line: Line, now: Mono, fair: Mono) -> State {
        let ferry = Mono(Tally::Ferry.get(&process.near.tallies));
        let quiet = now.since_ns(ferry) > QUIET_NS;
        let sound = self.tell(&mut process.near, &mut line).and_then(|()| {
            let heard = self.hear(&mut process.near, quiet);
            heard.map_err(|Broken| SCRIBBLED)
        });
        let tallies = &process.near.tallies;
        let verdict = if let Err(why) = sound {
            Some(why.to_owned())
        } else if now < fair {
            None
        } else {
            let all = [
                (Tally::Ferry, threads::FERRY),
                (Tally::Inference, threads::INFERENCE),
                (Tally::Capture, threads::CAPTURE),
            ];
            let late = late(
                all.map(|(tally, spec)| (Mono(tally.get(tallies)), spec)),
                now,
            );
            late.map(|(name, silent_ns)| {
                format!(
                    "hangs: its thread {name} has not come round for {} ms",
                    silent_ns / MS
                )
            })
        };
        if let Some(why) = verdict {
            return self.down(now, Some(process), &why);
        }
        if talk::readable(&process.bell, ROUND_MS).unwrap_or(false) {
            talk::hush(&process.bell);
        }
        match process.end() {
            Ok(None) => State::Up(process, line),
            Ok(Some(status)) => self.down(now, None, &format!("ended: {status}")),
            Err(error) => self.down(now, Some(process), &format!("cannot be watched: {error}")),
        }
    }

    /// What goes over: joint states, the plan that is followed, an instruction. A line to which not all of an instruction
    /// could be written is of no use any more.
    fn tell(&mut self, near: &mut Near, line: &mut Line) -> Result<(), &'static str> {
        let mut sent = self.sent;
        for state in self.ends.states.read().since(sent) {
            codec::write_state(state, &mut self.words);
            if !near.states.push(&self.words).map_err(|Broken| SCRIBBLED)? {
                break;
            }
            sent = state.measured;
        }
        self.sent = sent;
        if self.ends.followed.update() {
            let followed = self.ends.followed.output_buffer();
            near.followed
                .put(|slot| codec::write_followed(followed, slot));
        }
        if self.untold
            && let Some(instruction) = &self.instruction
        {
            // What was written in part is of no use; a process that has ended is told of by its end.
            let said = line.say(&Take(instruction.clone()), SAYING_MS);
            match said.map_err(|error| error.kind()) {
                Ok(()) => self.untold = false,
                Err(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
                Err(_) => return Err("does not take in what it is told"),
            }
        }
        Ok(())
    }

    /// What its cameras tell; whether two of them were exchanged. Of a `quiet` process nothing is believed of its cameras.
    fn look(&mut self, tallies: &Part, quiet: bool) -> bool {
        let ends = &self.ends;
        // As the other end tells them: who sees the time, or that a camera is well again, finds the view.
        let told: [u8; CAMERAS_MAX] =
            std::array::from_fn(|n| u8::try_from(Tally::Fault(n).get(tallies)).unwrap_or(0));
        for (n, camera) in ends.cameras.iter().enumerate() {
            let newest_ns = Tally::Newest(n).get(tallies);
            let view = std::array::from_fn(|which| Tally::View(n, which).get(tallies));
            camera.view.set_words(view);
            camera.newest_ns.store(newest_ns, Ordering::Release);
            camera
                .refused
                .store(Tally::Refused(n).get(tallies), Ordering::Relaxed);
            // Those over the link are counted at this end.
            if matches!(self.handing.get(n), Some(None)) {
                let row = std::array::from_fn(|which| Tally::Counted(n, which).get(tallies));
                camera.count(Counts::of_row(row));
            }
        }
        let known = self.places.exchanged();
        let exchanged = self.places.found(&ends.cameras, clock::now());
        if let (None, Some(pair)) = (known, exchanged) {
            let when = "before the inference process was started again";
            let words = places::words(&ends.cameras, pair, when);
            log::error!("{words}: the robot stops");
        }
        let required = |n: usize| {
            ends.cameras
                .get(n)
                .is_some_and(|c| c.need == Need::Required)
        };
        for ((n, camera), told) in ends.cameras.iter().enumerate().zip(told) {
            let fault = match exchanged {
                Some((one, other)) if n == one || n == other => Cause::CameraSwapped as u8,
                // The fault of one that the robot can do without stops nobody: the pacing one, which it cannot, stands in.
                Some((one, other)) if n == 0 && !required(one) && !required(other) => {
                    Cause::CameraSwapped as u8
                }
                _ if quiet => Cause::CameraLost as u8,
                _ => told,
            };
            camera.fault.store(fault, Ordering::Release);
        }
        exchanged.is_some()
    }

    /// What comes back. Where a chunk is broken, who wrote it is not to be trusted any more. Cameras first: what was made of
    /// exchanged ones goes nowhere.
    fn hear(&mut self, near: &mut Near, quiet: bool) -> Result<(), Broken> {
        let tallies = &near.tallies;
        let exchanged = self.look(tallies, quiet);
        let ends = &mut self.ends;
        let obeys = |ends: &Ends, after: u32| {
            // It is the number after a chunk that was made, if perhaps not carried yet: no other is believed.
            let told = u32::try_from(Tally::ObeysFrom.get(tallies)).unwrap_or(0);
            if told.saturating_sub(after) <= OBEYS_AHEAD {
                ends.obeys_from.fetch_max(told, Ordering::AcqRel);
            }
        };
        // No more than the queue holds, so that a process gone mad does not keep this thread.
        for _ in 0..crate::core::limits::CHUNKS_QUEUED_MAX {
            if !near.chunks.pop(&mut self.words)? {
                break;
            }
            let Some(made) = codec::read_made(&self.words, &mut self.values) else {
                return Err(Broken);
            };
            // Before its first chunk is queued, as by the thread itself.
            obeys(ends, self.was.chunk);
            self.was.chunk = self.was.chunk.max(made.chunk.provenance().chunk_id);
            if !exchanged {
                // A full queue means that control is not coming round; the watchdog sees that by itself.
                let _ = ends.chunks.push(made);
            }
        }
        obeys(ends, self.was.chunk);
        for _ in 0..crate::core::limits::CHUNKS_QUEUED_MAX {
            if !near.samples.pop(&mut self.words)? {
                break;
            }
            if let [chunk_id, captured, landed, taken, inference_ns] = self.words[..] {
                ends.tap.record(Sample::Chunk {
                    chunk_id: chunk_id as u32,
                    captured: Mono(captured),
                    landed: Mono(landed),
                    taken: Mono(taken),
                    inference_ns,
                });
            }
        }
        if let Some(insight) = near.insight.fresh().and_then(codec::read_insight) {
            ends.insight.write(insight);
        }
        if let Some(slot) = near.picture.fresh()
            && codec::read_frame(slot, self.shown.taking())
        {
            self.shown.keep();
            self.shown.give(&mut ends.picture, 1);
        }
        ends.faults
            .store(Tally::Faults.get(tallies), Ordering::Relaxed);
        ends.frames_apart
            .store(Tally::Apart.get(tallies), Ordering::Relaxed);
        ends.skew_widest_ns
            .store(Tally::Skew.get(tallies), Ordering::Relaxed);
        Ok(())
    }

    /// The pipeline ends: the process is told by the closed line, and given a moment.
    fn end(self, state: State) {
        if let State::Up(mut process, line) = state {
            drop(line);
            let deadline = clock::now().plus_ns(END_NS);
            while clock::now() < deadline && !process.gone() {
                clock::sleep_until(clock::now().plus_ns(5 * MS));
            }
        }
    }
}

/// Who of the other process is late, and by when it last came round; 0 for one that has not begun.
fn late(beats: [(Mono, Spec); 3], now: Mono) -> Option<(&'static str, u64)> {
    beats.into_iter().find_map(|(beat, spec)| {
        let silent_ns = now.since_ns(beat);
        // A time that has not come yet is none that a thread has marked.
        let ahead = beat > now.plus_ns(AHEAD_MAX_NS);
        (beat != Mono(0) && (ahead || silent_ns > spec.beat_age_max_ns))
            .then_some((spec.name, silent_ns))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_begin_anew_after_a_minute_without_a_fault_and_loading_is_none() {
        let mut failures = Failures::default();
        let mut now = Mono(100_000 * MS);
        // Loads for five minutes, is ready, and crashes at its first inference.
        let pauses_ms = [(); 8].map(|()| {
            now = now.plus_ns(300_000 * MS);
            failures.ready(now);
            now = now.plus_ns(30 * MS);
            failures.pause_ns(now) / MS
        });
        assert_eq!(
            pauses_ms,
            [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
        );
        // Ends while it loads, minutes after the last one was ready.
        now = now.plus_ns(300_000 * MS);
        assert_eq!(failures.pause_ns(now), PAUSE_MAX_NS);
        failures.ready(now);
        now = now.plus_ns(WELL_NS);
        assert_eq!(
            failures.pause_ns(now),
            PAUSE_MAX_NS,
            "not longer than a minute"
        );
        failures.ready(now);
        now = now.plus_ns(WELL_NS + 1);
        assert_eq!(failures.pause_ns(now), PAUSE_NS);
        assert_eq!(failures.pause_ns(now), 2 * PAUSE_NS, "could not be started");
    }

    #[test]
    fn a_camera_that_takes_long_to_open_ends_no_process_and_a_thread_that_hangs_does() {
        let now = Mono(100_000 * MS);
        let at = |ago_ms: [u64; 3]| {
            let [ferry, inference, capture] = ago_ms.map(|ms| now.minus_ns(ms * MS));
            let beats = [
                (ferry, threads::FERRY),
                (inference, threads::INFERENCE),
                (capture, threads::CAPTURE),
            ];
            late(beats, now).map(|(name, _)| name)
        };
        // Two seconds to open, or three controls that a camera does not answer, 5 s each, less the last.
        assert_eq!(at([2, 30, 2_000]), None);
        assert_eq!(at([2, 30, 14_900]), None);
        assert_eq!(at([2, 30, 15_001]), Some("capture"));
        assert_eq!(at([2, 2_001, 20]), Some("inference"));
        assert_eq!(at([501, 30, 20]), Some("ferry"));
        let never = [(Mono(0), threads::CAPTURE); 3];
        assert_eq!(late(never, now), None, "no camera of that machine");
        let scribbled = [(now.plus_ns(501 * MS), threads::CAPTURE); 3];
        assert_eq!(late(scribbled, now).map(|(name, _)| name), Some("capture"));
    }
}
