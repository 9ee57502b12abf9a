// SPDX-License-Identifier: Apache-2.0
//! The inference process: the same threads as without isolation, and a ferry that carries between their cells and the
//! shared memory. It ends when the control process does, and when one of its threads has failed.

use crate::capture::OpenFault;
use crate::config::Config;
use crate::config::problem::Problem;
use crate::core::observation::StateHistory;
use crate::core::units::MS;
use crate::policy::ParityMiss;
use crate::ports::Source;
use crate::runtime::cameras::{CameraOpenError, Watched};
use crate::runtime::clock;
use crate::runtime::control::{Followed, Made};
use crate::runtime::crew::Crew;
use crate::runtime::deployment::Deployment;
use crate::runtime::inference::Insight;
use crate::runtime::isolation::codec;
use crate::runtime::isolation::plane::{self, Far, Tally};
use crate::runtime::isolation::talk::{self, Facts, Hello, Line, Take, Tell};
use crate::runtime::isolation::{Handed, digest, identity, keeper, unlike};
use crate::runtime::mind::{Ends, Mind};
use crate::runtime::reel::Recent;
use crate::runtime::telemetry::{Sample, tap};
use crate::runtime::threads::{self, Seat, Spec};
use crate::sync::heartbeat::Beat;
use crate::sync::mapping::Mapping;
use crate::sync::shared::Broken;
use rustix::process::{Signal, set_parent_process_death_signal};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use triple_buffer::triple_buffer;

/// How the process ends when one of its threads has failed (`EX_SOFTWARE` of sysexits.h).
const FAILED: i32 = 70;
/// Of what the out-of-memory killer looks for it is to be preferred to what moves the robot.
const OOM_SCORE: &str = "500";
/// Instructions waiting for inference.
const INSTRUCTIONS: usize = 4;

/// Why the process ends early. The control process was told.
#[derive(Debug, thiserror::Error)]
pub enum ChildFault {
    /// Nobody speaks to it.
    #[error("this is started by `tendon run` with isolation = \"process\", not by hand: {0}")]
    Alone(io::Error),
    /// It cannot run.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Problem>),
}

/// Runs until the control process goes. `started` is called with the crew once it runs.
///
/// # Errors
/// [`ChildFault`].
pub fn run(started: impl FnOnce(&Crew) -> Result<(), String>) -> Result<(), ChildFault> {
    let socket = io::stdin().as_fd().try_clone_to_owned();
    let socket = UnixStream::from(socket.map_err(ChildFault::Alone)?);
    let (hello, fds) = talk::greeted(&socket).map_err(ChildFault::Alone)?;
    // A control process that is killed closes the line; this is for a thread that hangs and does not see it.
    let bound = set_parent_process_death_signal(Some(Signal::KILL));
    if let Err(error) = bound {
        log::warn!("this process is not bound to the control process's life: {error}");
    }
    // Not granted inside some containers; then both have the same score.
    drop(std::fs::write("/proc/self/oom_score_adj", OOM_SCORE));
    let mut line = Line::new(socket);
    match Running::start(&hello, fds, started) {
        Ok((running, facts)) => {
            line.say(&Tell::Ready(facts), 1_000)
                .map_err(ChildFault::Alone)?;
            running.listen(&mut line);
            Ok(())
        }
        Err(problems) => {
            line.say(&Tell::Refused(problems.clone()), 1_000)
                .map_err(ChildFault::Alone)?;
            Err(ChildFault::Refused(problems))
        }
    }
}

/// Whether the control program was built from the sources of this one: each takes the shared memory for what its own say.
fn of_this_build(hello: &Hello) -> Result<(), Vec<Problem>> {
    let (version, build) = (env!("CARGO_PKG_VERSION"), identity::BUILD);
    if hello.version == version && hello.build == build {
        return Ok(());
    }
    Err(unlike(&format!(
        "version {version}, build {build:016x}, beside a control program of version {}, build {:016x}: install the two \
         programs of one package (see inference_program in tendon.toml), and restart the service",
        hello.version, hello.build
    )))
}

struct Running {
    instructions: mpsc::SyncSender<crate::policy::text::Instruction>,
    ending: Arc<AtomicBool>,
}

impl Running {
    fn start(
        hello: &Hello,
        fds: Vec<OwnedFd>,
        started: impl FnOnce(&Crew) -> Result<(), String>,
    ) -> Result<(Running, Facts), Vec<Problem>> {
        let refuse =
            |found: String| Problem::one("the inference process", "what it needs to start", found);
        of_this_build(hello)?;
        let config = Config::load(&hello.config)?;
        if digest(&config) != hello.digest {
            return Err(Problem::one(
                hello.config.display().to_string(),
                "the deployment's files as they were when the control process started",
                "changed since: restart the service",
            ));
        }
        let miss = match hello.allow_parity_miss {
            true => ParityMiss::Report,
            false => ParityMiss::Refuse,
        };
        let deployment = Deployment::load_with(config, miss)?;
        let bundle_hash = deployment.mind.bundle_hash();
        if hello
            .bundle_hash
            .is_some_and(|before| before != bundle_hash)
        {
            return Err(Problem::one(
                deployment.config.policy.bundle.display().to_string(),
                "the bundle as it was when the control process started",
                "another: restart the service",
            ));
        }
        let facts = Facts::new(
            &deployment.policy_name,
            bundle_hash,
            &deployment.engine,
            &deployment.parity,
        );
        let Deployment { config, mind, .. } = deployment;
        let mut fds = fds.into_iter();
        let (Some(memory), Some(bell)) = (fds.next(), fds.next()) else {
            return Err(refuse("no descriptors".to_owned()));
        };
        let memory = Mapping::open(&memory, plane::words(&config))
            .map_err(|error| refuse(error.to_string()))?;
        let mut far = Far::new(&config, memory);
        let mut handed: Vec<Option<Handed>> = Vec::new();
        for pictures in far.handed.drain(..) {
            let camera = pictures.map(|pictures| {
                let bell = fds
                    .next()
                    .ok_or_else(|| refuse("too few descriptors".to_owned()))?;
                Ok::<_, Vec<Problem>>(Handed { pictures, bell })
            });
            handed.push(camera.transpose()?);
        }
        let mut handed = handed.into_iter().flatten();

        let mut crew = Crew::new(&config.realtime, None);
        let now = clock::now();
        let ending: Arc<AtomicBool> = Arc::default();
        let (states, states_out) = triple_buffer(&StateHistory::default());
        let (followed, followed_out) = triple_buffer(&Followed::default());
        let (insight, insight_out) = triple_buffer(&Insight::default());
        let (picture, picture_out) = triple_buffer(&Recent::new());
        let (chunks, chunks_out) = rtrb::RingBuffer::new(crate::core::limits::CHUNKS_QUEUED_MAX);
        let (instructions, instructions_out) = mpsc::sync_channel(INSTRUCTIONS);
        let (tap, samples) = tap();
        let watched: Vec<Watched> = config.cameras().map(Watched::new).collect();
        let counts: [Arc<AtomicU64>; 3] = std::array::from_fn(|_| Arc::default());
        let [faults, frames_apart, skew_widest_ns] = &counts;
        let obeys_from: Arc<AtomicU32> = Arc::default();
        let cameras = Arc::new(watched);
        let watching: Arc<std::sync::OnceLock<Vec<(Spec, Beat)>>> = Arc::default();
        let ferry = Ferry {
            far,
            bell,
            history: StateHistory::default(),
            states,
            followed,
            insight: insight_out,
            picture: picture_out,
            chunks: chunks_out,
            samples,
            obeys_from: Arc::clone(&obeys_from),
            cameras: Arc::clone(&cameras),
            counts: counts.clone(),
            failed: Arc::clone(&crew.failed),
            watching: Arc::clone(&watching),
            words: Vec::new(),
        };
        let carrying = Arc::clone(&ending);
        let thread = crew
            .spawn(threads::FERRY, now, Beat::new(), move |seat| {
                ferry.run(&carrying, &seat)
            })
            .map_err(|error| refuse(error.to_string()))?;
        let ends = Ends {
            states: states_out,
            followed: followed_out,
            instructions: instructions_out,
            chunks,
            insight,
            picture,
            obeys_from,
            cameras,
            frames_apart: Arc::clone(frames_apart),
            skew_widest_ns: Arc::clone(skew_widest_ns),
            faults: Arc::clone(faults),
            restarts: Arc::default(),
            tap,
            injected_delay_ns: 0,
            bell: Some(thread.thread().clone()),
            ending: Arc::clone(&ending),
        };
        let mind = mind.after_chunk(hello.after_chunk);
        let opened = mind.open(&config, &mut |camera_config| {
            let camera: Option<Box<dyn Source>> = handed.next().map(|one| Box::new(one) as _);
            camera.ok_or_else(|| CameraOpenError::Open {
                name: camera_config.name.clone(),
                fault: OpenFault::Wrong {
                    at: "the control process".to_owned(),
                    expected: "a camera of the link, handed over".to_owned(),
                    found: "none".to_owned(),
                },
            })
        });
        let opened = opened.map_err(|error| refuse(error.to_string()))?;
        opened(ends, &mut crew, now).map_err(|error| refuse(error.to_string()))?;
        crew.report().map_err(|missing| {
            Problem::one(
                "tendon.toml: realtime.mode",
                "all that was asked for, granted to the inference process too",
                missing,
            )
        })?;
        // Set once, here.
        drop(watching.set(crew.beats.clone()));
        started(&crew).map_err(refuse)?;
        let running = Running {
            instructions,
            ending,
        };
        Ok((running, facts))
    }

    /// Takes in instructions until the line is closed.
    fn listen(self, line: &mut Line) {
        while let Ok(said) = line.hear(1_000) {
            if let Some(Take(instruction)) = said {
                // A thread that does not take them up is seen by its heartbeat.
                drop(self.instructions.try_send(instruction));
            }
        }
        // Cameras are closed by their threads.
        self.ending.store(true, Ordering::Relaxed);
        clock::sleep_until(clock::now().plus_ns(100 * MS));
    }
}

/// The thread that carries.
struct Ferry {
    far: Far,
    bell: OwnedFd,
    history: StateHistory,
    states: triple_buffer::Input<StateHistory>,
    followed: triple_buffer::Input<Followed>,
    insight: triple_buffer::Output<Insight>,
    picture: triple_buffer::Output<Recent>,
    chunks: rtrb::Consumer<Made>,
    samples: rtrb::Consumer<Sample>,
    obeys_from: Arc<AtomicU32>,
    cameras: Arc<Vec<Watched>>,
    /// Faults, pictures apart, widest skew.
    counts: [Arc<AtomicU64>; 3],
    failed: Arc<AtomicBool>,
    watching: Arc<std::sync::OnceLock<Vec<(Spec, Beat)>>>,
    words: Vec<u64>,
}

impl Ferry {
    fn run(mut self, ending: &AtomicBool, seat: &Seat) {
        while !ending.load(Ordering::Relaxed) {
            let now = clock::now();
            seat.beat.mark(now);
            if self.failed.load(Ordering::Acquire) {
                log::error!("a thread of the inference process has failed: it ends");
                std::process::exit(FAILED);
            }
            // What the cameras show is told before what was made of it.
            self.tally();
            if self.take().and_then(|()| self.give()).is_err() {
                log::error!("the inference process cannot trust its own memory any more: it ends");
                std::process::exit(FAILED);
            }
            // Last, so that who sees it come round sees what it brought.
            Tally::Ferry.set(&self.far.tallies, now.0);
            std::thread::park_timeout(Duration::from_millis(keeper::ROUND_MS));
        }
    }

    fn take(&mut self) -> Result<(), Broken> {
        let mut news = false;
        while self.far.states.pop(&mut self.words)? {
            if let Some(state) = codec::read_state(&self.words) {
                self.history.push(&state);
                news = true;
            }
        }
        if news {
            self.states.input_buffer_mut().clone_from(&self.history);
            self.states.publish();
        }
        if let Some(followed) = self.far.followed.fresh().and_then(codec::read_followed) {
            self.followed.write(followed);
        }
        Ok(())
    }

    fn give(&mut self) -> Result<(), Broken> {
        let mut rings = false;
        while let Ok(made) = self.chunks.pop() {
            // Read after its chunk, told before it: see `Ends::obeys_from`.
            let obeys_from = self.obeys_from.load(Ordering::Acquire);
            Tally::ObeysFrom.set(&self.far.tallies, u64::from(obeys_from));
            codec::write_made(&made, &mut self.words);
            // A full queue means that the other ferry is not coming round; then so is control.
            rings |= self.far.chunks.push(&self.words)?;
        }
        while let Ok(sample) = self.samples.pop() {
            if let Sample::Chunk {
                chunk_id,
                captured,
                landed,
                taken,
                inference_ns,
            } = sample
            {
                let words = [
                    u64::from(chunk_id),
                    captured.0,
                    landed.0,
                    taken.0,
                    inference_ns,
                ];
                self.far.samples.push(&words)?;
            }
        }
        if self.insight.update() {
            let insight = self.insight.output_buffer();
            self.far
                .insight
                .put(|slot| codec::write_insight(insight, slot));
        }
        if self.picture.update()
            && let Some(picture) = self.picture.output_buffer().first()
        {
            self.far
                .picture
                .put(|slot| codec::write_frame(picture, slot));
        }
        if rings {
            talk::ring(&self.bell);
        }
        Ok(())
    }

    fn tally(&self) {
        let tallies = &self.far.tallies;
        let all = [Tally::Faults, Tally::Apart, Tally::Skew];
        for (tally, count) in all.into_iter().zip(&self.counts) {
            tally.set(tallies, count.load(Ordering::Relaxed));
        }
        for (n, camera) in self.cameras.iter().enumerate() {
            // Read first and told last, so that who sees the time, or that the camera is well again, finds the view.
            let newest_ns = camera.newest_ns.load(Ordering::Acquire);
            let fault = camera.fault.load(Ordering::Acquire);
            Tally::Refused(n).set(tallies, camera.refused.load(Ordering::Relaxed));
            for (which, count) in camera.counts().row().into_iter().enumerate() {
                Tally::Counted(n, which).set(tallies, count);
            }
            for (which, word) in camera.view.words().into_iter().enumerate() {
                Tally::View(n, which).set(tallies, word);
            }
            Tally::Fault(n).set(tallies, u64::from(fault));
            Tally::Newest(n).set(tallies, newest_ns);
        }
        let beats = self.watching.get().map_or(&[][..], Vec::as_slice);
        let oldest = |name: &str| {
            let of = beats.iter().filter(|(spec, _)| spec.name == name);
            of.filter_map(|(_, beat)| beat.last()).min()
        };
        for (tally, spec) in [
            (Tally::Inference, threads::INFERENCE),
            (Tally::Capture, threads::CAPTURE),
        ] {
            if let Some(oldest) = oldest(spec.name) {
                tally.set(tallies, oldest.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: identity::BUILD,
            config: "/nowhere/tendon.toml".into(),
            digest: String::new(),
            allow_parity_miss: false,
            bundle_hash: None,
            after_chunk: 0,
        }
    }

    /// What it answers.
    fn refused(hello: &Hello) -> String {
        let started = Running::start(hello, Vec::new(), |_| Ok(()));
        let problems = started.err().expect("there is no such deployment");
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_control_program_of_another_build_is_refused_in_words() {
        let another_build = Hello {
            build: identity::BUILD ^ 1,
            ..hello()
        };
        let another_version = Hello {
            version: "0.0.0".to_owned(),
            ..hello()
        };
        // One from before builds were told.
        let mut said = serde_json::to_value(hello()).expect("JSON");
        let fields = said.as_object_mut().expect("an object");
        assert!(fields.remove("build").is_some());
        let silent: Hello = serde_json::from_value(said).expect("a first word");
        for hello in [another_build, another_version, silent] {
            let words = refused(&hello);
            assert!(
                words.contains("an inference process of this very build")
                    && words.contains(&format!("build {:016x}: install", hello.build))
                    && words.contains(&hello.version)
                    && words.contains("the two programs of one package"),
                "{words}"
            );
        }
        let words = refused(&hello());
        assert!(
            words.contains("/nowhere/tendon.toml") && !words.contains("this very build"),
            "one of this build is asked for its deployment: {words}"
        );
    }
}
