// SPDX-License-Identifier: Apache-2.0
//! Kernel cameras (V4L2): found by a path that does not change, mode agreed (`agree`) and kept (`controls`), mapped buffers, a
//! deadline on every wait, the driver's own numbers, and its times where they are of our clock (`stamps`).
//!
//! States: *gone* (looked for again with a growing pause) and *streaming*. Any error of the device leads to gone; so
//! does a node that gives no good picture for longer than [`QUIET_MAX_NS`], because some drivers hang after a suspend, or give
//! broken buffers for ever, and only opening the node again wakes them; and one whose controls do not stay. The first picture of all
//! may take longer ([`START_MAX_NS`]). The pause is the first again once a good picture came, and controls were seen to stay: a device that
//! opens and then fails is no better than one that does not open. Why it is gone is logged, once for each new reason.
//!
//! Not responsible for which cameras are plugged in (`discovery`).

use super::agree::{self, Agreed, BUFFERS, Begun, Trouble, Wanted};
use super::controls::Controls;
use super::decode::{self, Format};
use super::mapped::{self, Mapped};
use super::retry::Retry;
use super::said::Said;
use super::stamps::{Came, Stamps};
use super::v4l_mode::Mode;
use super::{Asked, Clock, OpenFault};
use crate::core::units::{MS, Mono};
use crate::ports::{Counts, Frame, Source, SourceFault, Stamped};
use std::io;
use std::path::Path;
use v4l::Device;
use v4l::buffer::Flags;

/// A device that streams and gives no good picture for this long is opened again; a slow one, for so many periods, so that one
/// broken picture is not the end of it.
const QUIET_MAX_NS: u64 = 2_000 * MS;
const QUIET_MAX_PERIODS: u64 = 3;
/// The same before the first picture, as for a pipeline (`gstreamer`): sensors and bridges take seconds to wake.
const START_MAX_NS: u64 = 8_000 * MS;
/// Pictures that are taken off the queue at most to get at the newest.
const STALE_MAX: usize = BUFFERS as usize;

// Of errno(3).
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;
const ENOSPC: i32 = 28;

/// What the kernel said of `node`, and what is to be done about it, where that is known.
pub(super) fn why(node: &Path, error: &io::Error) -> String {
    let busy;
    let remedy: &str = match error.raw_os_error() {
        Some(ENOENT) => {
            "nothing is plugged in there, or by another path: `tendon cameras --list` names what is"
        }
        Some(EACCES) => {
            "this user may not use it: usermod -aG video tendon, then start the service (or log in) again"
        }
        Some(EPERM) => {
            "this service or container may not use it: in a unit DeviceAllow=char-video4linux rw, in a container --device"
        }
        Some(EBUSY) => {
            busy = format!(
                "another program uses it: end that one (fuser -v {} names it)",
                node.display()
            );
            busy.as_str()
        }
        Some(ENODEV) => "it was unplugged, or its bus has lost it",
        Some(ENOSPC) => {
            "its bus has no room for it: ask for MJPG, a smaller size or a lower rate, or plug it into another controller"
        }
        _ => return error.to_string(),
    };
    format!("{error}; {remedy}")
}

struct Streaming {
    buffers: Mapped,
    device: Device,
    agreed: Agreed,
    /// Whether the first picture has come, and gone.
    begun: bool,
    sequence: Option<u32>,
    /// The last moment at which no picture waited.
    none_at: Mono,
    /// The last good picture; before it, the start, and the first picture of it.
    since: Mono,
    /// What was wrong with the last picture since then, if any came.
    broken: Option<&'static str>,
}

/// A kernel camera.
pub struct Camera {
    mode: Mode,
    size: [usize; 2],
    period_ns: u64,
    clock: Clock,
    retry: Retry,
    streaming: Option<Streaming>,
    /// Model of the first device that was here: another one behind the same path is another camera.
    card: Option<String>,
    controls: Controls,
    stamps: Stamps,
    /// What was agreed last, in words.
    told: Said,
    said: Said,
    counts: Counts,
    /// What the newest stamp was of.
    stamped: Stamped,
    /// Frames given: the number that is handed on, so that it never stands still over a replug.
    given: u32,
}

impl std::fmt::Debug for Camera {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Camera")
            .field("mode", &self.mode)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

impl Camera {
    /// A camera that is opened at the first call of [`Source::next_frame`]. If the device is there now, what is wrong
    /// with its mode is told at once.
    ///
    /// # Errors
    /// [`OpenFault`] if the device is there and cannot give what is asked for.
    pub fn new(mode: Mode, asked: &Asked, clock: Clock) -> Result<Camera, OpenFault> {
        let mut camera = Camera {
            controls: Controls::new(&mode.controls),
            stamps: Stamps::new(asked.period_ns),
            mode,
            size: [asked.width, asked.height],
            period_ns: asked.period_ns.max(1),
            clock,
            retry: Retry::default(),
            streaming: None,
            card: None,
            told: Said::default(),
            said: Said::default(),
            counts: Counts::default(),
            stamped: Stamped::Unsaid,
            given: 0,
        };
        match camera.start() {
            Ok(streaming) => camera.streaming = Some(streaming),
            // Not plugged in yet, or busy: that mends itself.
            Err(Trouble::Io(error)) => drop(camera.cannot_open(&error)),
            Err(Trouble::Mode { expected, found }) => {
                return Err(OpenFault::Wrong {
                    at: camera.mode.device.display().to_string(),
                    expected,
                    found,
                });
            }
        }
        Ok(camera)
    }

    /// The pixel format that was agreed, while it streams.
    #[must_use]
    pub fn format(&self) -> Option<Format> {
        Some(self.streaming.as_ref()?.agreed.format)
    }

    fn start(&mut self) -> Result<Streaming, Trouble> {
        let device = Device::with_path(&self.mode.device)?;
        agree::gives_pictures(&device)?;
        let card = mapped::identity(&device)?.card;
        if let Some(first) = &self.card
            && *first != card
        {
            return Err(Trouble::Mode {
                expected: format!("the camera \"{first}\", which was here before"),
                found: format!("\"{card}\""),
            });
        }
        let none_at = (self.clock.now)();
        let wanted = Wanted {
            mode: &self.mode,
            size: self.size,
            period_ns: self.period_ns,
        };
        let begun = wanted.stream(&device, &mut self.controls)?;
        let too_fast = wanted.too_fast(&begun.agreed);
        self.tell(&begun, too_fast);
        self.stamps.begin();
        self.card = Some(card);
        self.counts.starts += 1;
        Ok(Streaming {
            buffers: begun.buffers,
            device,
            agreed: begun.agreed,
            begun: false,
            sequence: None,
            none_at,
            since: (self.clock.now)(),
            broken: None,
        })
    }

    /// Says what was agreed; aloud where it is news that it is not what one would expect.
    fn tell(&mut self, begun: &Begun, too_fast: bool) {
        let at = self.mode.device.display();
        let [width, height] = self.size;
        let agreed = &begun.agreed;
        let rate = match agreed.interval_ns {
            Some(interval_ns) => format!("at {:.1} Hz", agree::rate_hz(interval_ns)),
            None => "at a rate that its driver does not say".to_owned(),
        };
        let fourcc = agree::name(agreed.fourcc);
        let mut line = format!("{at}: {fourcc} {width}x{height} {rate}");
        let grey_alone = agreed.format == Format::Grey && self.mode.formats.is_empty();
        if grey_alone {
            line += "; expected a format with colours, found GREY alone; if that is meant, say formats = [\"GREY\"]";
        }
        if too_fast {
            let asked_hz = agree::rate_hz(self.period_ns);
            line += &format!(
                "; expected {asked_hz:.1} Hz, found that the driver agrees to more than a tenth more"
            );
        }
        if !begun.refused.words.is_empty() {
            line += &format!("; passed over: {}", begun.refused.words.join(", "));
        }
        let news = self.told.news(&line);
        // A format that is not to be had at this size or rate is nothing new: so it was when the camera was chosen.
        if news && (grey_alone || too_fast || begun.refused.passing.is_some()) {
            log::warn!("{line}");
        } else {
            log::info!("{line}");
        }
    }

    fn cannot_open(&mut self, error: &io::Error) -> SourceFault {
        let found = why(&self.mode.device, error);
        self.lose("its device cannot be opened", "a camera that opens", &found)
    }

    fn is_another(&mut self, expected: &str, found: &str) -> SourceFault {
        self.lose(
            "its device is another one, or has not the mode asked for",
            expected,
            found,
        )
    }

    fn lose(&mut self, gone: &'static str, expected: &str, found: &str) -> SourceFault {
        let at = self.mode.device.display();
        let what = format!("{at}: expected {expected}, found {found}");
        if self.said.news(&what) {
            log::warn!("{what}");
        }
        self.streaming = None;
        self.retry.failed((self.clock.now)());
        SourceFault::Gone(gone)
    }
}

impl Streaming {
    /// Whether a buffer is ready, within `wait_ms`.
    fn ready(&self, wait_ms: i32) -> io::Result<bool> {
        match self.device.handle().poll(POLLIN, wait_ms) {
            Ok(ready) => Ok(ready > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// An error if there was no good picture for too long.
    fn gives(&self, now: Mono, period_ns: u64) -> io::Result<()> {
        let most_ns = if self.begun {
            QUIET_MAX_NS
        } else {
            START_MAX_NS
        };
        let most_ns = most_ns.max(QUIET_MAX_PERIODS * period_ns);
        if now.since_ns(self.since) <= most_ns {
            return Ok(());
        }
        let most_ms = most_ns / MS;
        let found = match self.broken {
            None => format!("none for {most_ms} ms"),
            Some(why) => format!("none that is good for {most_ms} ms ({why})"),
        };
        Err(io::Error::new(io::ErrorKind::TimedOut, found))
    }
}

/// `POLLIN` of poll(2).
const POLLIN: i16 = 1;

impl Source for Camera {
    fn next_frame(&mut self, deadline: Mono, frame: &mut Frame) -> Result<(), SourceFault> {
        let now = (self.clock.now)();
        if self.streaming.is_none() {
            if self.retry.next() > now {
                (self.clock.sleep_until)(deadline.min(self.retry.next()));
                return Err(SourceFault::Gone("waiting to look for it again"));
            }
            match self.start() {
                Ok(streaming) => self.streaming = Some(streaming),
                Err(Trouble::Io(error)) => return Err(self.cannot_open(&error)),
                Err(Trouble::Mode { expected, found }) => {
                    return Err(self.is_another(&expected, &found));
                }
            }
        }
        match self.take(deadline, frame) {
            Ok(taken) => {
                if taken.is_ok() && self.controls.settled() {
                    self.retry.worked();
                    self.said.forget();
                }
                taken
            }
            Err(Trouble::Io(error)) => {
                let found = why(&self.mode.device, &error);
                Err(self.lose("its device failed", "pictures", &found))
            }
            Err(Trouble::Mode { expected, found }) => Err(self.is_another(&expected, &found)),
        }
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn stamped(&self) -> Stamped {
        self.stamped
    }

    fn format(&self) -> Option<&'static str> {
        Some(Camera::format(self)?.name())
    }
}

impl Camera {
    /// Waits for a buffer, passes over those that a newer one follows, decodes it.
    fn take(
        &mut self,
        deadline: Mono,
        frame: &mut Frame,
    ) -> Result<Result<(), SourceFault>, Trouble> {
        let clock = self.clock;
        let at = self.mode.device.as_path();
        let counts = &mut self.counts;
        let Some(streaming) = &mut self.streaming else {
            return Ok(Err(SourceFault::Gone("not open")));
        };
        if streaming.begun {
            // The last picture has been handed on, and the next is likely to be a while.
            self.controls.watch(&streaming.device, at, (clock.now)())?;
        }
        let asked_at = (clock.now)();
        let left_ns = deadline.since_ns(asked_at);
        // Up to the next whole millisecond: rounding down would spin through the last one.
        let wait_ms = i32::try_from(left_ns.div_ceil(MS)).unwrap_or(i32::MAX);
        if !streaming.ready(wait_ms)? {
            streaming.none_at = asked_at;
            streaming.gives((clock.now)(), self.period_ns)?;
            return Ok(Err(SourceFault::Timeout));
        }
        if !streaming.begun {
            // The first after the start is often half exposed; what it tells of clock and controls is whole.
            let (_, meta) = streaming.buffers.next()?;
            let taken = (clock.now)();
            (streaming.begun, streaming.since) = (true, taken);
            let came = Came {
                after: streaming.none_at,
                taken,
            };
            self.stamps.captured(at, &meta, came);
            self.controls.begin(&streaming.device, at, taken)?;
            return Ok(Err(SourceFault::Timeout));
        }
        for _ in 0..STALE_MAX {
            let agreed = streaming.agreed;
            let (bytes, meta) = streaming.buffers.next()?;
            let received = (clock.now)();
            let gap = streaming
                .sequence
                .map_or(0, |last| meta.sequence.wrapping_sub(last).wrapping_sub(1));
            // A number that went back is a driver that began anew, not four thousand million lost pictures.
            counts.missing += if gap < 1 << 31 { u64::from(gap) } else { 0 };
            streaming.sequence = Some(meta.sequence);
            self.given = self.given.wrapping_add(1);
            let came = Came {
                after: streaming.none_at,
                taken: received,
            };
            let captured;
            (captured, self.stamped) = self.stamps.captured(at, &meta, came);
            let result = if meta.flags.contains(Flags::ERROR) {
                counts.flagged += 1;
                Err("the driver flags it as broken")
            } else {
                let used = &bytes[..bytes.len().min(meta.bytesused as usize)];
                match agreed.format.len(agreed.stride, self.size[1]) {
                    Some(len) if used.len() < len => Err("shorter than its picture"),
                    _ if device_has_more(&streaming.device) => Ok(false),
                    _ => {
                        streaming.none_at = received;
                        let Agreed {
                            format,
                            stride,
                            colours,
                            ..
                        } = agreed;
                        decode::declared_into_rgb(format, colours, used, stride, self.size, frame)
                            .map(|()| true)
                    }
                }
            };
            match result {
                Err(why) => {
                    streaming.broken = Some(why);
                    streaming.gives(received, self.period_ns)?;
                    return Ok(Err(SourceFault::Broken(why)));
                }
                Ok(false) => counts.stale += 1,
                Ok(true) => {
                    frame.seq = self.given;
                    (frame.captured, frame.received) = (captured, (clock.now)());
                    (streaming.since, streaming.broken) = (frame.received, None);
                    return Ok(Ok(()));
                }
            }
        }
        Ok(Err(SourceFault::Timeout))
    }
}

/// Whether a newer buffer waits already.
fn device_has_more(device: &Device) -> bool {
    device.handle().poll(POLLIN, 0).is_ok_and(|ready| ready > 0)
}
