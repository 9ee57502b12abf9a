// SPDX-License-Identifier: Apache-2.0
//! The cameras of a deployment together: their sources, and what their threads tell.

use crate::capture::v4l_mode::Mode;
use crate::capture::{self, Asked, Clock, Kind, OpenFault};
use crate::config::camera::{CameraConfig, CameraSource};
use crate::core::camera::skew::Need;
use crate::core::governor::reaction::Cause;
use crate::core::units::Mono;
use crate::core::wire::Identity;
use crate::link::runtime_end::LinkCamera;
use crate::link::session::LinkError;
use crate::ports::{Counts, Frame, Source, SourceFault, Stamped};
use crate::runtime::clock;
use crate::runtime::gather::Moments;
use crate::runtime::mind::OpenFar;
use crate::runtime::places::Newest;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
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

    /// What is wrong with it, as its thread found. Who sees that nothing is finds the view that showed it.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        Cause::from_code(self.fault.load(Ordering::Acquire))
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

pub(super) fn declared(config: &CameraConfig, source: Box<dyn Source>) -> Box<dyn Source> {
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

pub(super) fn open_here(
    config: &CameraConfig,
    asked: &Asked,
) -> Result<Box<dyn Source>, CameraOpenError> {
    capture::open(asked, CLOCK).map_err(|fault| CameraOpenError::Open {
        name: config.name.clone(),
        fault,
    })
}

/// What is asked of a camera of this machine; `None` for one that is reached over the link.
pub(super) fn asked(config: &CameraConfig) -> Option<Asked> {
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
