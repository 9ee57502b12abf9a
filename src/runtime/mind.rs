// SPDX-License-Identifier: Apache-2.0
//! The mind: cameras and policy, all between light and plan. It may be late, hang or fail; the threads that move the
//! robot meet it only at its [`Ends`], whether it runs here ([`Inference`]) or in a process of its own
//! ([`isolation`](crate::runtime::isolation)).

use crate::config::Config;
use crate::config::camera::CameraConfig;
use crate::core::camera::Health;
use crate::core::observation::StateHistory;
use crate::core::units::Mono;
use crate::policy::text::Instruction;
use crate::ports::{Frame, Source};
use crate::runtime::cameras::{self, CameraOpenError, Watched};
use crate::runtime::capture::{self, Allocated, CaptureIo, ToPage, ToPolicy};
use crate::runtime::control::{Followed, Made};
use crate::runtime::crew::Crew;
use crate::runtime::gather::Gather;
use crate::runtime::inference::{self, Inference, InferenceIo, Insight};
use crate::runtime::reel::{Recent, Reel};
use crate::runtime::telemetry::Tap;
use crate::runtime::threads;
use crate::sync::heartbeat::Beat;
use crate::sync::mailbox::mailbox;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::mpsc;
use std::thread::{JoinHandle, Thread};
use triple_buffer::triple_buffer;

/// What a mind is given, and where what it makes goes.
#[derive(Debug)]
pub struct Ends {
    /// Newest joint states.
    pub states: triple_buffer::Output<StateHistory>,
    /// The plan that is followed.
    pub followed: triple_buffer::Output<Followed>,
    /// Sentences, tokenised by whoever took them in.
    pub instructions: mpsc::Receiver<Instruction>,
    /// To the scheduler.
    pub chunks: rtrb::Producer<Made>,
    /// For people.
    pub insight: triple_buffer::Input<Insight>,
    /// What the pacing camera sees, for the page.
    pub picture: triple_buffer::Input<Recent>,
    /// To control: see [`Inference::obeys_from`].
    pub obeys_from: Arc<AtomicU32>,
    /// What is told of each camera, order of tendon.toml.
    pub cameras: Arc<Vec<Watched>>,
    /// See [`Gather::apart`].
    pub frames_apart: Arc<AtomicU64>,
    /// See [`Gather::widest_ns`].
    pub skew_widest_ns: Arc<AtomicU64>,
    /// Times that the policy failed or was refused its input.
    pub faults: Arc<AtomicU64>,
    /// How often it was started anew.
    pub restarts: Arc<AtomicU64>,
    /// Figures.
    pub tap: Tap,
    /// Added to the making of each chunk, to see what a slower policy would do; by a mind of this process alone.
    pub injected_delay_ns: u64,
    /// Woken when a chunk was made; for who does not come round by itself in time.
    pub bell: Option<Thread>,
    /// Set when the pipeline ends.
    pub ending: Arc<AtomicBool>,
}

/// How a camera that is reached over the link is opened.
pub type OpenFar<'a> = dyn FnMut(&CameraConfig) -> Result<Box<dyn Source>, CameraOpenError> + 'a;

/// A mind whose cameras are open: takes its ends and its seats in the crew.
pub type Opened =
    Box<dyn FnOnce(Ends, &mut Crew, Mono) -> std::io::Result<Vec<JoinHandle<()>>> + Send>;

/// See the module's text.
pub trait Mind {
    /// Opens its cameras. Nothing runs yet.
    ///
    /// # Errors
    /// [`CameraOpenError`] of a camera that waiting would not mend.
    fn open(self, config: &Config, far: &mut OpenFar<'_>) -> Result<Opened, CameraOpenError>;
}

impl Mind for Inference {
    fn open(self, config: &Config, far: &mut OpenFar<'_>) -> Result<Opened, CameraOpenError> {
        cameras::no_device_twice(config.cameras())?;
        let mut opened = Vec::new();
        for camera in config.cameras() {
            opened.push((camera.clone(), cameras::open(camera, far)?));
        }
        let skew_max_ns = config.skew_max_ns;
        Ok(Box::new(move |ends, crew, now| {
            seat(self, opened, skew_max_ns, ends, crew, now)
        }))
    }
}

fn seat(
    inference: Inference,
    opened: Vec<(CameraConfig, Box<dyn Source>)>,
    skew_max_ns: u64,
    ends: Ends,
    crew: &mut Crew,
    now: Mono,
) -> std::io::Result<Vec<JoinHandle<()>>> {
    let mut threads = Vec::new();
    let mut filming = Vec::new();
    let mut others = Vec::new();
    let mut frames_out = None;
    let mut picture = Some(ends.picture);
    // One that the policy does not look through may be behind as well.
    let several = opened.len() > 1;
    for (index, (camera, source)) in opened.into_iter().enumerate() {
        let black = Frame::black(camera.width, camera.height);
        let mut io = CaptureIo {
            reel: match several {
                true => Reel::of_last(&black),
                false => Reel::of_newest(&black),
            },
            policy: ToPolicy::Nowhere,
            shown: None,
            told: match ends.cameras.get(index) {
                Some(told) => told.clone(),
                None => Watched::new(&camera),
            },
            allocated: Allocated::default(),
            ending: Arc::clone(&ends.ending),
        };
        if index == 0 {
            let (frames, out) = mailbox(&Recent::new());
            (io.policy, frames_out) = (ToPolicy::Paces(frames), Some(out));
            io.shown = picture.take().map(ToPage::new);
        } else {
            // The policy's or not: judged, and near the first one's in time, or there is no observation.
            let (beside, seen) = inference
                .looks_through(index)
                .then(|| triple_buffer(&Recent::new()))
                .unzip();
            io.policy = beside.map_or(ToPolicy::Nowhere, ToPolicy::Beside);
            others.push(seen);
        }
        filming.push((source, Health::new(camera.expected()), io));
    }
    let mut gather = Gather::new(&ends.cameras, skew_max_ns);
    gather.apart = ends.frames_apart;
    gather.widest_ns = ends.skew_widest_ns;
    if let Some(frames) = frames_out {
        let io = InferenceIo {
            frames,
            gather,
            others,
            followed: ends.followed,
            states: ends.states,
            instructions: ends.instructions,
            chunks: ends.chunks,
            insight: ends.insight,
            obeys_from: ends.obeys_from,
            tap: ends.tap,
            faults: ends.faults,
            injected_delay_ns: ends.injected_delay_ns,
            bell: ends.bell,
            ending: ends.ending,
        };
        threads.push(
            crew.spawn(threads::INFERENCE, now, Beat::new(), move |seat| {
                inference::run(inference, io, &seat)
            })?,
        );
    }
    for (source, health, io) in filming {
        threads.push(crew.spawn(threads::CAPTURE, now, Beat::new(), move |seat| {
            capture::run(source, health, io, &seat)
        })?);
    }
    Ok(threads)
}
