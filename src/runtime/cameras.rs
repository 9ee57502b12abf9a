// SPDX-License-Identifier: Apache-2.0
//! The cameras of a deployment together: their sources, what their threads tell, how far apart their pictures are, and
//! a look at them without a robot ([`watch`], `tendon cameras`).

use crate::capture::tape::Tape;
use crate::capture::v4l_mode::Mode;
use crate::capture::{self, Asked, Clock, Kind, OpenFault};
use crate::config::camera::{CameraConfig, CameraSource};
use crate::core::camera::skew::Need;
use crate::core::camera::{CameraFault, Health};
use crate::core::governor::reaction::Cause;
use crate::core::units::{MS, Mono};
use crate::core::wire::Identity;
use crate::link::runtime_end::LinkCamera;
use crate::link::session::LinkError;
use crate::ports::{Counts, Frame, Source, SourceFault, Stamped};
use crate::runtime::capture::{Look, look};
use crate::runtime::clock;
use crate::runtime::gather::{Gather, Moments};
use crate::runtime::mind::OpenFar;
use crate::runtime::places::Newest;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use zenoh::Session;

/// The clock, as cameras take it.
pub const CLOCK: Clock = Clock {
    now: clock::now,
    sleep_until: clock::sleep_until,
    replay,
};

/// When the first recording of this program was opened.
fn replay() -> Mono {
    static BEGAN: OnceLock<Mono> = OnceLock::new();
    *BEGAN.get_or_init(clock::now)
}

/// Rate that is asked of a camera whose rate is not said.
const PERIOD_NS: u64 = 33_333_333;

/// A camera cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CameraOpenError {
    /// Not by this build, or not as written.
    #[error("camera \"{name}\": {fault}")]
    Open {
        /// Its name.
        name: String,
        /// Why.
        fault: OpenFault,
    },
    /// Its recording cannot begin.
    #[error("camera \"{name}\": {}: {error}; expected a folder that is not there yet", .folder.display())]
    Record {
        /// Its name.
        name: String,
        /// Where it was to be.
        folder: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// The link.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// What a camera's thread tells the others.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The camera's name.
    pub name: String,
    /// Whether the robot may go without it.
    pub need: Need,
    /// Whether it is mounted on what the robot moves.
    pub moves: bool,
    /// An older picture counts as none.
    pub age_max_ns: u64,
    /// Capture time of the newest good picture.
    pub newest_ns: Arc<AtomicU64>,
    /// Capture times of the last few.
    pub moments: Arc<Moments>,
    /// Pictures refused.
    pub refused: Arc<AtomicU64>,
    /// What its source has counted: the row of [`Counts`].
    pub counted: Arc<[AtomicU64; Counts::ROW]>,
    /// Code of the cause that the camera is; 0 while it is good.
    pub fault: Arc<AtomicU8>,
    /// What its newest good picture shows, roughly.
    pub view: Arc<Newest>,
}

impl Watched {
    /// A camera of which nothing is known.
    #[must_use]
    pub fn new(config: &CameraConfig) -> Watched {
        Watched {
            name: config.name.clone(),
            need: config.need,
            moves: config.moves,
            age_max_ns: config.age_max_ns,
            newest_ns: Arc::default(),
            moments: Arc::default(),
            refused: Arc::default(),
            counted: Arc::default(),
            fault: Arc::default(),
            view: Arc::default(),
        }
    }

    /// A good picture was captured then.
    pub fn good(&self, captured: Mono) {
        self.moments.tell(captured);
        self.newest_ns.store(captured.0, Ordering::Release);
    }

    /// Tells what its source has counted.
    pub fn count(&self, counts: Counts) {
        for (cell, value) in self.counted.iter().zip(counts.row()) {
            cell.store(value, Ordering::Relaxed);
        }
    }

    /// What its source has counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts::of_row(std::array::from_fn(|which| {
            self.counted[which].load(Ordering::Relaxed)
        }))
    }

    /// What is wrong with it, as its thread found.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        Cause::from_code(self.fault.load(Ordering::Relaxed))
    }

    /// When its newest good picture was captured; `None` for none, or for a camera with which something is wrong.
    #[must_use]
    pub fn captured(&self) -> Option<Mono> {
        let newest = Mono(self.newest_ns.load(Ordering::Relaxed));
        (newest != Mono(0) && self.cause().is_none()).then_some(newest)
    }
}

/// What the needed cameras are to the supervisor: the gravest cause, and whether each has a fresh picture.
#[must_use]
pub fn needed(cameras: &[Watched], now: Mono) -> (Option<Cause>, bool) {
    let needed = || cameras.iter().filter(|each| each.need == Need::Required);
    let fresh = needed().all(|each| {
        each.captured()
            .is_some_and(|captured| now.since_ns(captured) <= each.age_max_ns)
    });
    // Of the camera causes the one that a person must acknowledge has the highest code.
    (needed().filter_map(Watched::cause).max(), fresh)
}

/// The cameras whose cause this is, for people; empty if there is one camera only.
#[must_use]
pub fn names_of(cameras: &[Watched], cause: Cause) -> String {
    if cameras.len() < 2 {
        return String::new();
    }
    let names: Vec<&str> = cameras
        .iter()
        .filter(|each| each.cause() == Some(cause))
        .map(|each| each.name.as_str())
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" (camera {})", names.join(", "))
    }
}

/// How a camera is reached over the link.
#[derive(Clone, Copy)]
pub struct Reach<'a> {
    /// The session.
    pub session: &'a Session,
    /// The robot's name.
    pub robot: &'a str,
    /// Identity of its picture stream.
    pub pictures: Identity,
}

/// Opens a camera that is reached over the link.
///
/// # Errors
/// [`CameraOpenError`].
pub fn open_over_link(
    config: &CameraConfig,
    reach: Reach<'_>,
) -> Result<Box<dyn Source>, CameraOpenError> {
    let size = [config.width, config.height];
    let Reach {
        session,
        robot,
        pictures,
    } = reach;
    let camera = LinkCamera::new(session, robot, &config.name, pictures, size, clock::now)?;
    Ok(Box::new(camera))
}

/// Opens the source of one camera; `far` opens one that is reached over the link.
///
/// # Errors
/// [`CameraOpenError`].
pub fn open(
    config: &CameraConfig,
    far: &mut OpenFar<'_>,
) -> Result<Box<dyn Source>, CameraOpenError> {
    let source = match asked(config) {
        Some(asked) => open_here(config, &asked)?,
        None => far(config)?,
    };
    Ok(declared(config, source))
}

fn declared(config: &CameraConfig, source: Box<dyn Source>) -> Box<dyn Source> {
    Box::new(Declared {
        source,
        delay_ns: config.delay_ns,
    })
}

/// A camera whose pictures were taken a declared time before their stamp.
struct Declared {
    source: Box<dyn Source>,
    delay_ns: u64,
}

impl Source for Declared {
    fn next_frame(&mut self, deadline: Mono, frame: &mut Frame) -> Result<(), SourceFault> {
        self.source.next_frame(deadline, frame)?;
        frame.captured = frame.captured.minus_ns(self.delay_ns);
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.source.counts()
    }

    fn stamped(&self) -> Stamped {
        self.source.stamped()
    }

    fn format(&self) -> Option<&'static str> {
        self.source.format()
    }
}

/// Two kernel cameras of a deployment are one device by two names: each name could be right, and pictures go to one only.
///
/// # Errors
/// [`CameraOpenError::Open`] of the second.
pub fn no_device_twice<'a>(
    cameras: impl Iterator<Item = &'a CameraConfig>,
) -> Result<(), CameraOpenError> {
    let mut known: Vec<(PathBuf, &CameraConfig)> = Vec::new();
    for camera in cameras {
        let CameraSource::V4l { device, .. } = &camera.source else {
            continue;
        };
        // What is not plugged in yet has no name but its own.
        let Ok(node) = device.canonicalize() else {
            continue;
        };
        if let Some((_, first)) = known.iter().find(|(other, _)| *other == node) {
            return Err(CameraOpenError::Open {
                name: camera.name.clone(),
                fault: OpenFault::Wrong {
                    at: device.display().to_string(),
                    expected: "a device of its own".to_owned(),
                    found: format!("{}, which is camera \"{}\"", node.display(), first.name),
                },
            });
        }
        known.push((node, camera));
    }
    Ok(())
}

fn open_here(config: &CameraConfig, asked: &Asked) -> Result<Box<dyn Source>, CameraOpenError> {
    capture::open(asked, CLOCK).map_err(|fault| CameraOpenError::Open {
        name: config.name.clone(),
        fault,
    })
}

/// What is asked of a camera of this machine; `None` for one that is reached over the link.
fn asked(config: &CameraConfig) -> Option<Asked> {
    let kind = match &config.source {
        CameraSource::Link => return None,
        CameraSource::Images(path) => Kind::Images(path.clone()),
        CameraSource::V4l {
            device,
            formats,
            controls,
        } => Kind::V4l(Mode {
            device: device.clone(),
            formats: formats.clone(),
            controls: controls.clone(),
        }),
        CameraSource::Gstreamer(pipeline) => Kind::Gstreamer(pipeline.clone()),
    };
    Some(Asked {
        kind,
        width: config.width,
        height: config.height,
        period_ns: config.period_ns.unwrap_or(PERIOD_NS),
    })
}

/// What was seen of one camera.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// Where its pictures come from.
    pub source: &'static str,
    /// Good pictures.
    pub good: u64,
    /// Pictures refused, by what was wrong with each.
    pub refused: BTreeMap<String, u64>,
    /// What came of the others.
    pub counts: Counts,
    /// How they come: the pixel format that was agreed, where the source tells it.
    pub format: Option<&'static str>,
    /// What moment its capture times are of.
    pub stamped: &'static str,
    /// Good pictures a second, from the first to the last.
    pub rate_hz: f64,
    /// From capture to being handed over, decoded: half of them within.
    pub age_p50_ms: f64,
    /// 99 of 100 of them within.
    pub age_p99_ms: f64,
    /// Shortest time between two captures.
    pub gap_min_ms: f64,
    /// Longest time between two captures.
    pub gap_max_ms: f64,
    /// From its last good picture, or the beginning, to the end.
    pub quiet_ms: f64,
    /// Pictures that were kept, if they were to be.
    pub recorded: Option<usize>,
    /// What was wrong with it at the end, if anything.
    pub fault: Option<String>,
}

/// What was seen of all of them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Watch {
    /// Each camera.
    pub cameras: Vec<Seen>,
    /// The widest distance of the pictures of one observation.
    pub skew_max_ms: f64,
    /// Pictures of the first camera for which none of another one's was near enough.
    pub apart: u64,
    /// Processor time of all threads, in percent of one core.
    pub processor_percent: f64,
    /// How long was looked.
    pub seconds: f64,
}

/// Looks at cameras of this machine for `for_ns`, or until each has given `enough` good pictures, each in a thread of its own,
/// as the pipeline does. Cameras that are reached over the link are left out: the runtime listens there. With `record` good
/// pictures are kept in folders of it, one a camera, for replay.
///
/// # Errors
/// [`CameraOpenError`].
pub fn watch(
    cameras: &[CameraConfig],
    skew_max_ns: u64,
    for_ns: u64,
    enough: Option<u64>,
    record: Option<&Path>,
    ending: &Arc<AtomicBool>,
) -> Result<Watch, CameraOpenError> {
    no_device_twice(cameras.iter())?;
    let mut opened = Vec::new();
    for config in cameras {
        if let Some(asked) = asked(config) {
            opened.push((config, declared(config, open_here(config, &asked)?)));
        }
    }
    let watched: Arc<Vec<Watched>> = Arc::new(
        opened
            .iter()
            .map(|(config, _)| Watched::new(config))
            .collect(),
    );
    let mut gather = Some(Gather::new(&watched, skew_max_ns));
    let (apart, widest) = gather
        .as_ref()
        .map(|gather| (Arc::clone(&gather.apart), Arc::clone(&gather.widest_ns)))
        .unwrap_or_default();
    let (began, processor_before) = (clock::now(), clock::processor_ns());
    let end = Arc::new(End {
        until: began.plus_ns(for_ns),
        enough,
        wanting: AtomicUsize::new(opened.len()),
        ending: Arc::clone(ending),
    });
    let mut threads = Vec::new();
    let mut tapes = Vec::new();
    for (config, _) in &opened {
        let tape = record.map(|folder| {
            let folder = folder.join(&config.name);
            Tape::begin(&folder, began).map_err(|error| CameraOpenError::Record {
                name: config.name.clone(),
                folder,
                error,
            })
        });
        tapes.push(tape.transpose()?);
    }
    for (((config, source), cells), tape) in
        opened.into_iter().zip(watched.iter().cloned()).zip(tapes)
    {
        let (config, gather, end) = (config.clone(), gather.take(), Arc::clone(&end));
        threads.push(std::thread::spawn(move || {
            film(&config, source, &cells, gather, tape, &end)
        }));
    }
    // A thread that panicked has said so; its camera is missing from the list.
    let ended: Vec<_> = threads
        .into_iter()
        .filter_map(|thread| thread.join().ok())
        .collect();
    let mut seen = Watch::default();
    let now = clock::now();
    for (mut camera, tape) in ended {
        if let Some(tape) = tape {
            match tape.and_then(|tape| tape.end(now)) {
                Ok(pictures) => camera.recorded = Some(pictures),
                Err(error) => camera.fault = Some(format!("recording: {error}")),
            }
        }
        seen.cameras.push(camera);
    }
    seen.seconds = clock::now().seconds_since(began);
    let busy_ns = clock::processor_ns().saturating_sub(processor_before);
    seen.processor_percent = busy_ns as f64 * 1e-7 / seen.seconds.max(1e-3);
    seen.skew_max_ms = widest.load(Ordering::Relaxed) as f64 * 1e-6;
    seen.apart = apart.load(Ordering::Relaxed);
    Ok(seen)
}

/// When a look is over.
struct End {
    until: Mono,
    enough: Option<u64>,
    /// Cameras that have not given enough yet.
    wanting: AtomicUsize,
    ending: Arc<AtomicBool>,
}

impl End {
    /// A camera has given so many good pictures.
    fn good(&self, pictures: u64) {
        if self.enough == Some(pictures) {
            self.wanting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn has_come(&self) -> bool {
        let satisfied = self.enough.is_some() && self.wanting.load(Ordering::Relaxed) == 0;
        satisfied || clock::now() >= self.until || self.ending.load(Ordering::Relaxed)
    }
}

/// Longest wait for one picture.
const WAIT_NS: u64 = 20 * MS;

fn film(
    config: &CameraConfig,
    mut source: Box<dyn Source>,
    cells: &Watched,
    mut gather: Option<Gather>,
    tape: Option<Tape>,
    end: &End,
) -> (Seen, Option<Result<Tape, std::io::Error>>) {
    let mut health = Health::new(config.expected());
    let mut frame = Frame::black(config.width, config.height);
    let mut ages = histogram();
    let mut gaps = histogram();
    let mut first: Option<Mono> = None;
    let mut last: Option<Mono> = None;
    let mut seen = Seen {
        name: config.name.clone(),
        source: config.source.word(),
        ..Seen::default()
    };
    let mut tape = tape.map(Ok);
    let mut last_good = clock::now();
    while !end.has_come() {
        let deadline = clock::now().plus_ns(WAIT_NS);
        let what = look(&mut *source, &mut health, deadline, &mut frame);
        let fault = health.fault(clock::now());
        let code = fault.map_or(0, |fault| fault.cause() as u8);
        cells.fault.store(code, Ordering::Relaxed);
        match what {
            Look::Good => {
                seen.good += 1;
                end.good(seen.good);
                last_good = clock::now();
                cells.good(frame.captured);
                first.get_or_insert(frame.captured);
                ages.saturating_record(frame.received.since_ns(frame.captured));
                if let Some(last) = last.replace(frame.captured) {
                    gaps.saturating_record(frame.captured.since_ns(last));
                }
                if let Some(gather) = &mut gather {
                    // Counted by itself.
                    let _ = gather.together();
                }
                if let Some(Ok(kept)) = &mut tape
                    && let Err(error) = kept.keep(&frame)
                {
                    tape = Some(Err(error));
                }
            }
            Look::Refused => {
                let words = health
                    .last_fault()
                    .map_or_else(String::new, |fault: CameraFault| fault.to_string());
                *seen.refused.entry(words).or_default() += 1;
            }
            Look::Nothing => {}
        }
    }
    let ms = |ns: u64| ns as f64 * 1e-6;
    seen.quiet_ms = ms(clock::now().since_ns(last_good));
    // By when they were captured: how long the camera took to begin is no part of it.
    if let (Some(first), Some(last)) = (first, last)
        && last > first
    {
        seen.rate_hz = seen.good.saturating_sub(1) as f64 / last.seconds_since(first);
    }
    if !ages.is_empty() {
        seen.age_p50_ms = ms(ages.value_at_quantile(0.5));
        seen.age_p99_ms = ms(ages.value_at_quantile(0.99));
    }
    if !gaps.is_empty() {
        (seen.gap_min_ms, seen.gap_max_ms) = (ms(gaps.min()), ms(gaps.max()));
    }
    seen.counts = source.counts();
    seen.format = source.format();
    seen.stamped = source.stamped().words();
    seen.fault = health.fault(clock::now()).map(|fault| fault.to_string());
    (seen, tape)
}

fn histogram() -> Histogram<u64> {
    crate::runtime::telemetry::histogram()
}
