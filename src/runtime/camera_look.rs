// SPDX-License-Identifier: Apache-2.0
//! A look at the cameras of a deployment as the pipeline takes them, each in a thread of its own, without a robot: for
//! `tendon cameras` and `tendon doctor`.

use crate::capture::tape::Tape;
use crate::config::camera::CameraConfig;
use crate::core::camera::{CameraFault, Health};
use crate::core::units::{MS, Mono};
use crate::ports::{Counts, Frame, Source};
use crate::runtime::cameras::{
    CameraOpenError, Watched, asked, declared, no_device_twice, open_here,
};
use crate::runtime::capture::{Look, look};
use crate::runtime::clock;
use crate::runtime::gather::Gather;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

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
    /// Those that made an observation.
    pub observations: u64,
    /// From the last observation, or the beginning, to the end.
    pub unobserved_ms: f64,
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
        // Cameras that begin one after the other show how they go together afterwards.
        more_ns: if opened.len() > 1 { TOGETHER_NS } else { 0 },
        satisfied_ns: AtomicU64::new(0),
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
    let mut last_observed = began;
    let now = clock::now();
    for Filmed {
        seen: mut camera,
        tape,
        observations,
        observed,
    } in ended
    {
        seen.observations += observations;
        last_observed = last_observed.max(observed);
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
    seen.unobserved_ms = now.since_ns(last_observed) as f64 * 1e-6;
    Ok(seen)
}

/// When a look is over.
struct End {
    until: Mono,
    enough: Option<u64>,
    /// Looked on for, once each has given enough.
    more_ns: u64,
    /// When that was; 0 before.
    satisfied_ns: AtomicU64,
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
        let now = clock::now();
        let satisfied = self.enough.is_some() && self.wanting.load(Ordering::Relaxed) == 0 && {
            let first =
                self.satisfied_ns
                    .compare_exchange(0, now.0, Ordering::Relaxed, Ordering::Relaxed);
            now.since_ns(Mono(first.map_or_else(|at| at, |_| now.0))) >= self.more_ns
        };
        satisfied || now >= self.until || self.ending.load(Ordering::Relaxed)
    }
}

/// Longest wait for one picture.
const WAIT_NS: u64 = 20 * MS;
/// Several cameras are looked at together for so long after each has given enough.
const TOGETHER_NS: u64 = 1_000 * MS;

/// What came of one camera.
struct Filmed {
    seen: Seen,
    tape: Option<Result<Tape, std::io::Error>>,
    /// Of the one whose pictures the others' are gathered to.
    observations: u64,
    /// The last of them, or the beginning.
    observed: Mono,
}

fn film(
    config: &CameraConfig,
    mut source: Box<dyn Source>,
    cells: &Watched,
    mut gather: Option<Gather>,
    tape: Option<Tape>,
    end: &End,
) -> Filmed {
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
    let (mut observations, mut observed) = (0, last_good);
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
                    // What is not one is counted by itself.
                    if gather.together(last_good).is_ok() {
                        observations += 1;
                        observed = last_good;
                    }
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
    Filmed {
        seen,
        tape,
        observations,
        observed,
    }
}

fn histogram() -> Histogram<u64> {
    crate::runtime::telemetry::histogram()
}
