// SPDX-License-Identifier: Apache-2.0
//! Cameras through GStreamer: a pipeline in words, to whose end our sink is added.
//!
//! The sink holds one picture and drops the older (`drop`, `max-buffers` 1), so that a slow reader sees the newest. It
//! takes every format that is decoded here, so that nothing need convert upstream. Live pipelines give pictures as they
//! come; others (a file) at the pace of their own times. What it drops is counted (`came`).
//!
//! States: *gone* (started again with a growing pause) and *running*. An error on the bus, pictures beside it or not, the end of the
//! stream, silence, and nothing but broken pictures for as long, all lead to gone. The clock is the system's monotonic one, so that
//! a picture's time is base time plus running time; what little the two readings differ is measured at each start.
//!
//! Pictures that stay in the memory of a Jetson's image processor are taken as they are where `nvmm` can read them; where it
//! fails, the next start asks for ours, so that a pipeline that can convert goes on, slower.
//!
//! The words may hold a password. Nothing of them, nor of what GStreamer says, is told before it went through `redact`.

use super::came::Watch;
use super::decode::{self, Format};
use super::nvmm::{self, Libraries, Nvmm, NvmmFault};
use super::retry::Retry;
use super::said::Said;
use super::{Asked, Clock, OpenFault, raw, redact};
use crate::core::units::{MS, Mono};
use crate::ports::{Counts, Frame, Source, SourceFault};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video::{VideoFormat, VideoInfo};

/// The name of our sink; for messages.
const SINK: &str = "tendon";
/// A pipeline that ran and gives no good picture for so long is started again; a slow one, for so many periods, so that one
/// broken picture is not the end of it.
pub const SILENT_MAX_NS: u64 = 2_000 * MS;
const SILENT_MAX_PERIODS: u64 = 3;
/// The same before the first good picture: a network camera negotiates meanwhile.
pub const START_MAX_NS: u64 = 8_000 * MS;

/// A pipeline that runs.
struct Running {
    pipeline: gst::Pipeline,
    sink: gst_app::AppSink,
    bus: gst::Bus,
    /// Our clock minus the pipeline's.
    offset_ns: i64,
    /// The last caps and what they mean.
    agreed: Option<(gst::Caps, Pixels)>,
    /// The last good picture; before it, the start.
    since: Mono,
    /// What was wrong with the last picture since then, if any came.
    broken: Option<&'static str>,
    /// Whether there was one.
    gave: bool,
    watch: Watch,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Refused only by elements that are broken; nothing more can be done for those.
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// How pictures come.
enum Pixels {
    Jpeg,
    Raw(VideoInfo),
    /// In the image processor's memory.
    Nvmm(VideoInfo),
}

/// Why a sample gave no picture.
enum DecodeFault {
    /// The next may be good.
    Broken(&'static str),
    /// The next will be no better.
    Nvmm(NvmmFault),
}

impl From<&'static str> for DecodeFault {
    fn from(words: &'static str) -> DecodeFault {
        DecodeFault::Broken(words)
    }
}

/// A camera behind a pipeline.
pub struct Camera {
    words: String,
    /// The words as they may be told.
    shown: String,
    size: [usize; 2],
    period_ns: u64,
    clock: Clock,
    retry: Retry,
    running: Option<Running>,
    counts: Counts,
    given: u32,
    said: Said,
    /// Whether elements of NVIDIA's are part of it.
    is_nvidias: bool,
    libraries: Libraries,
    /// What reads the image processor's memory, or why nothing does.
    nvmm: Result<Nvmm, NvmmFault>,
    /// Whether the next start does without it.
    without_nvmm: bool,
}

impl std::fmt::Debug for Camera {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Camera")
            .field("words", &self.shown)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Camera {
    /// A camera behind `words`, a pipeline as `gst-launch-1.0` takes it, without a sink.
    ///
    /// # Errors
    /// [`OpenFault`] if the words are no pipeline, or name elements that are not installed.
    pub fn new(words: &str, asked: &Asked, clock: Clock) -> Result<Camera, OpenFault> {
        Camera::with(words, asked, clock, &Libraries::from_environment())
    }

    /// The same, with these libraries for pictures in the image processor's memory.
    ///
    /// # Errors
    /// [`OpenFault`], as [`Camera::new`].
    pub fn with(
        words: &str,
        asked: &Asked,
        clock: Clock,
        libraries: &Libraries,
    ) -> Result<Camera, OpenFault> {
        let words = words.trim().trim_end_matches('!').trim();
        let shown = redact::redacted(words);
        let wrong = |expected: &str, found: &str| OpenFault::Wrong {
            at: format!("GStreamer pipeline \"{shown}\""),
            expected: expected.to_owned(),
            found: redact::redacted(found),
        };
        gst::init().map_err(|error| {
            wrong(
                "GStreamer to start (gst-inspect-1.0 --version)",
                &error.to_string(),
            )
        })?;
        let mut camera = Camera {
            words: words.to_owned(),
            shown: shown.clone(),
            size: [asked.width, asked.height],
            period_ns: asked.period_ns,
            clock,
            retry: Retry::default(),
            running: None,
            counts: Counts::default(),
            given: 0,
            said: Said::default(),
            // All of them are called so.
            is_nvidias: words
                .split(|c: char| !c.is_alphanumeric())
                .any(|word| word.starts_with("nv")),
            libraries: libraries.clone(),
            nvmm: Err(NvmmFault::NotAsked),
            without_nvmm: false,
        };
        camera.parse().map_err(|found| {
            wrong(
                "elements that are installed, joined by !, and pictures at the end (try it with gst-launch-1.0)",
                &found,
            )
        })?;
        match camera.start() {
            Ok(running) => camera.running = Some(running),
            // Not plugged in, not switched on: that mends itself.
            Err(found) => drop(camera.lose("its pipeline does not start", Some(found))),
        }
        Ok(camera)
    }

    /// Where pictures come out of the pipeline, while it runs. For tests alone: when a picture came, what spoils or drops some on the
    /// way, and what the bus keeps is seen at a pad of it and nowhere else.
    #[must_use]
    pub fn sink(&self) -> Option<&gst_app::AppSink> {
        self.running.as_ref().map(|running| &running.sink)
    }

    /// Surfaces of the image processor that are ready for the device. For tests alone: that those which an element maps anew are let go
    /// of is not seen from outside.
    #[must_use]
    pub fn surfaces(&self) -> usize {
        self.nvmm.as_ref().map_or(0, Nvmm::known)
    }

    fn parse(&self) -> Result<(gst::Pipeline, gst_app::AppSink), String> {
        let words = format!("{} ! appsink name={SINK}", self.words);
        let element = gst::parse::launch_full(&words, None, gst::ParseFlags::FATAL_ERRORS)
            .map_err(|error| error.message().to_owned())?;
        let pipeline = element
            .downcast::<gst::Pipeline>()
            .map_err(|_| "one element and no pipeline".to_owned())?;
        let sink = pipeline
            .by_name(SINK)
            .and_then(|sink| sink.downcast::<gst_app::AppSink>().ok())
            .ok_or("another element that is called \"tendon\"")?;
        sink.set_caps(Some(&self.caps()));
        sink.set_drop(true);
        sink.set_max_buffers(1);
        sink.set_wait_on_eos(false);
        sink.set_property("enable-last-sample", false);
        Ok((pipeline, sink))
    }

    /// Every format that is decoded here, at the size that was asked for.
    fn caps(&self) -> gst::Caps {
        let [width, height] = self.size.map(|side| side as i32);
        let mut caps = gst::Caps::new_empty();
        let all = caps.make_mut();
        let described = |format: VideoFormat| {
            gst::Structure::builder("video/x-raw")
                .field("format", format.to_str())
                .field("width", width)
                .field("height", height)
                .build()
        };
        for format in nvmm::FORMATS.into_iter().filter(|_| self.nvmm.is_ok()) {
            let elsewhere = gst::CapsFeatures::new([nvmm::FEATURE]);
            all.append_structure_full(described(format), Some(elsewhere));
        }
        for format in raw::FORMATS {
            all.append_structure(described(format));
        }
        all.append_structure(
            gst::Structure::builder("image/jpeg")
                .field("width", width)
                .field("height", height)
                .build(),
        );
        caps
    }

    fn start(&mut self) -> Result<Running, String> {
        if self.without_nvmm {
            self.without_nvmm = false;
        } else if self.is_nvidias && self.nvmm.is_err() {
            self.nvmm = Nvmm::open(&self.libraries, self.size);
        }
        let (pipeline, sink) = self.parse()?;
        let bus = pipeline.bus().ok_or("a pipeline without a bus")?;
        // Nobody takes anything else, and a queue that nobody empties grows for as long as the pipeline runs.
        bus.set_sync_handler(|_, message| match message.type_() {
            gst::MessageType::Error => gst::BusSyncReply::Pass,
            _ => gst::BusSyncReply::Drop,
        });
        let watch = Watch::new(&sink).ok_or("a sink that cannot be watched")?;
        let system = gst::SystemClock::obtain();
        pipeline.use_clock(Some(&system));
        let running = Running {
            offset_ns: self.offset_ns(&system),
            pipeline,
            sink,
            bus,
            agreed: None,
            since: (self.clock.now)(),
            broken: None,
            gave: false,
            watch,
        };
        // A live pipeline says so here; its pictures are taken as they come, not when they would be shown.
        let change = |state| {
            running.pipeline.set_state(state).map_err(|_| {
                running
                    .trouble()
                    .unwrap_or_else(|| format!("it does not reach the state {state:?}"))
            })
        };
        if change(gst::State::Paused)? == gst::StateChangeSuccess::NoPreroll {
            running.sink.set_property("sync", false);
        }
        change(gst::State::Playing)?;
        self.counts.starts += 1;
        Ok(running)
    }

    /// Our clock minus the pipeline's. Of three readings the tightest: between two of ours a thread may sleep.
    fn offset_ns(&self, system: &gst::Clock) -> i64 {
        let readings = (0..3).map(|_| {
            let before = (self.clock.now)().0;
            let theirs = system.time().nseconds();
            let after = (self.clock.now)().0;
            let middle = before + (after - before) / 2;
            (after - before, middle.wrapping_sub(theirs) as i64)
        });
        readings.min().map_or(0, |(_, offset_ns)| offset_ns)
    }

    fn say(&mut self, what: &str) {
        let what = redact::redacted(what);
        if self.said.news(&what) {
            log::warn!("GStreamer pipeline \"{}\": {what}", self.shown);
        }
    }

    /// No good picture for too long; `broken` is what was wrong with the last one that came.
    fn fall_silent(&mut self, broken: Option<&'static str>) -> SourceFault {
        match broken {
            None => self.lose("its pipeline stands still", None),
            Some(words) => {
                let what = format!("its pictures are all broken: {words}");
                self.lose("its pictures are all broken", Some(what))
            }
        }
    }

    fn lose(&mut self, why: &'static str, what: Option<String>) -> SourceFault {
        let what = what.unwrap_or_else(|| why.to_owned());
        match &self.nvmm {
            Ok(_) | Err(NvmmFault::NotAsked) => self.say(&what),
            Err(fault) => {
                self.say(&format!("{what}; pictures in NVMM are not taken: {fault}"));
            }
        }
        self.running = None;
        self.retry.failed((self.clock.now)());
        SourceFault::Gone(why)
    }
}

impl Running {
    /// What the bus says went wrong, if anything. While it says nothing this takes no lock and no memory: asked with each picture.
    fn trouble(&self) -> Option<String> {
        if !self.bus.have_pending() {
            return None;
        }
        let message = self.bus.pop_filtered(&[gst::MessageType::Error])?;
        let gst::MessageView::Error(error) = message.view() else {
            return None;
        };
        let from = message.src().map(|from| from.path_string().to_string());
        let debug = error.debug().unwrap_or_default();
        Some(format!(
            "{}: {} ({})",
            from.unwrap_or_default(),
            error.error(),
            debug.lines().last().unwrap_or_default()
        ))
    }

    /// Whether there was no good picture for too long.
    fn silent(&self, now: Mono, period_ns: u64) -> bool {
        let most_ns = if self.gave {
            SILENT_MAX_NS.max(SILENT_MAX_PERIODS * period_ns)
        } else {
            START_MAX_NS
        };
        now.since_ns(self.since) > most_ns
    }

    /// When the picture was taken, on our clock.
    fn captured(&self, sample: &gst::Sample) -> Option<Mono> {
        let pts = sample.buffer()?.pts()?;
        let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
        let at = self.pipeline.base_time()? + segment.to_running_time(pts)?;
        Some(Mono(at.nseconds().wrapping_add_signed(self.offset_ns)))
    }

    /// Decodes into the frame.
    fn decode(
        &mut self,
        sample: &gst::SampleRef,
        size: [usize; 2],
        is_nvidias: bool,
        nvmm: &mut Result<Nvmm, NvmmFault>,
        frame: &mut Frame,
    ) -> Result<(), DecodeFault> {
        let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else {
            return Err("sample without a picture".into());
        };
        let same = self
            .agreed
            .as_ref()
            .is_some_and(|(known, _)| std::ptr::eq::<gst::CapsRef>(known.as_ref(), caps));
        if !same {
            let jpeg = caps
                .structure(0)
                .is_some_and(|structure| structure.name() == "image/jpeg");
            let described = caps
                .features(0)
                .is_some_and(|features| features.contains(nvmm::FEATURE));
            let info = || {
                let mut caps = caps.to_owned();
                let silent = caps
                    .structure(0)
                    .is_some_and(|structure| !structure.has_field("colorimetry"));
                // NVIDIA's elements convert by BT.601 and say nothing; GStreamer takes silence for BT.709 at HD.
                if silent && is_nvidias {
                    caps.make_mut().set("colorimetry", "bt601");
                }
                VideoInfo::from_caps(&caps).map_err(|_| "caps that are no picture's")
            };
            let pixels = match (jpeg, described) {
                (true, _) => Pixels::Jpeg,
                (_, true) => Pixels::Nvmm(info()?),
                (_, false) => Pixels::Raw(info()?),
            };
            self.agreed = Some((caps.to_owned(), pixels));
        }
        match &self.agreed {
            Some((_, Pixels::Jpeg)) => {
                let bytes = buffer
                    .map_readable()
                    .map_err(|_| "memory that cannot be read")?;
                Ok(decode::into_rgb(Format::Mjpg, &bytes, 0, size, frame)?)
            }
            Some((_, Pixels::Raw(info))) => Ok(raw::into_rgb(buffer, info, size, frame)?),
            Some((_, Pixels::Nvmm(info))) => {
                let found = (info.width() as usize, info.height() as usize);
                let (Ok(nvmm), true) = (nvmm, found == (size[0], size[1])) else {
                    return Err("picture of another kind or size than agreed".into());
                };
                let rgb = nvmm.read(sample, info).map_err(DecodeFault::Nvmm)?;
                frame.rgb.clear();
                frame.rgb.extend_from_slice(rgb);
                (frame.width, frame.height) = found;
                Ok(())
            }
            None => Err("caps that are no picture's".into()),
        }
    }
}

impl Source for Camera {
    fn counts(&self) -> Counts {
        self.counts
    }

    fn format(&self) -> Option<&'static str> {
        let (_, pixels) = self.running.as_ref()?.agreed.as_ref()?;
        Some(match pixels {
            Pixels::Jpeg => "JPEG",
            Pixels::Raw(info) => info.format().to_str().as_str(),
            Pixels::Nvmm(info) => match info.format() {
                VideoFormat::Nv12 => "NV12 in NVMM",
                VideoFormat::Rgba => "RGBA in NVMM",
                VideoFormat::Gray8 => "GRAY8 in NVMM",
                // Not among those that are asked for.
                _ => "NVMM",
            },
        })
    }

    fn next_frame(&mut self, deadline: Mono, frame: &mut Frame) -> Result<(), SourceFault> {
        let now = (self.clock.now)();
        if self.running.is_none() {
            if self.retry.next() > now {
                (self.clock.sleep_until)(deadline.min(self.retry.next()));
                return Err(SourceFault::Gone("waiting to look for it again"));
            }
            match self.start() {
                Ok(running) => self.running = Some(running),
                Err(found) => {
                    return Err(self.lose("its pipeline does not start", Some(found)));
                }
            }
        }
        let Some(running) = &mut self.running else {
            return Err(SourceFault::Gone("not started"));
        };
        let wait = gst::ClockTime::from_nseconds(deadline.since_ns(now));
        let sample = running.sink.try_pull_sample(wait);
        // Beside a picture, too: of a camera so fast that no wait for one is in vain, the error would never be seen.
        if let Some(found) = running.trouble() {
            // Surfaces are let go of before the pipeline that owns them.
            drop(sample);
            return Err(self.lose("its pipeline failed", Some(found)));
        }
        let Some(sample) = sample else {
            let ended = running.sink.is_eos();
            let silent = running.silent((self.clock.now)(), self.period_ns);
            let broken = running.broken;
            return Err(if ended {
                self.lose("its pipeline ended", None)
            } else if silent {
                self.fall_silent(broken)
            } else {
                SourceFault::Timeout
            });
        };
        let received = (self.clock.now)();
        running.watch.taken(&sample, &mut self.counts);
        match running.decode(&sample, self.size, self.is_nvidias, &mut self.nvmm, frame) {
            Ok(()) => (running.since, running.broken) = (received, None),
            Err(DecodeFault::Broken(words)) => {
                running.broken = Some(words);
                if !running.silent(received, self.period_ns) {
                    return Err(SourceFault::Broken(words));
                }
                // As above.
                drop(sample);
                return Err(self.fall_silent(Some(words)));
            }
            Err(DecodeFault::Nvmm(fault)) => {
                // Surfaces go with the pipeline, which uses them, while they can be let go of.
                drop(sample);
                self.running = None;
                self.nvmm = Err(fault);
                self.without_nvmm = true;
                return Err(self.lose("its pictures in NVMM cannot be read", None));
            }
        }
        if !running.gave {
            running.gave = true;
            self.retry.worked();
            self.said.forget();
        }
        self.given = self.given.wrapping_add(1).max(1);
        frame.seq = self.given;
        // No picture is taken after it came. What a network's stream says is reckoned from when its packets came, and may be ahead
        // for as long as it lasts: servers begin with what they had waiting.
        let captured = running.captured(&sample);
        frame.captured = captured.unwrap_or(received).min(received);
        frame.received = (self.clock.now)();
        Ok(())
    }
}
