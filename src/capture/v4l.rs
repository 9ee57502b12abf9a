// SPDX-License-Identifier: Apache-2.0
//! Kernel cameras (V4L2): found by a path that does not change, mode negotiated and read back, mapped buffers, a
//! deadline on every wait, the driver's own times and numbers.
//!
//! States: *gone* (looked for again with a growing pause) and *streaming*. Any error of the device leads to gone; so
//! does a node that gives no good picture for longer than [`QUIET_MAX_NS`], because some drivers hang after a suspend, or give
//! broken buffers for ever, and only opening the node again wakes them. The pause is the first again once a good picture came: a
//! device that opens and then fails is no better than one that does not open. Why it is gone is logged, once for each new reason.
//!
//! Not responsible for which cameras are plugged in (`discovery`).

use super::colours::Colours;
use super::decode::{self, Format};
use super::mapped::{self, Mapped};
use super::retry::Retry;
use super::said::Said;
use super::v4l_mode::Mode;
use super::{Asked, Clock, OpenFault};
use crate::core::units::{MS, Mono};
use crate::ports::{Counts, Frame, Source, SourceFault, Stamped};
use std::io;
use std::path::Path;
use v4l::Device;
use v4l::buffer::Flags;
use v4l::control::{Control, Value};
use v4l::fraction::Fraction;
use v4l::video::Capture;
use v4l::video::capture::Parameters;

/// Buffers in the kernel. One is ours, one is being filled, two bridge a thread that was late by two frames.
const BUFFERS: u32 = 4;
/// A device that streams and gives no good picture for this long is opened again; a slow one, for so many periods, so that one
/// broken picture is not the end of it.
const QUIET_MAX_NS: u64 = 2_000 * MS;
const QUIET_MAX_PERIODS: u64 = 3;
/// Pictures that are taken off the queue at most to get at the newest.
const STALE_MAX: usize = BUFFERS as usize;

// Of errno(3).
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
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

/// What is agreed with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Agreed {
    format: Format,
    stride: usize,
    colours: Colours,
}

struct Streaming {
    buffers: Mapped,
    device: Device,
    agreed: Agreed,
    /// Whether the first picture has come, and gone.
    begun: bool,
    sequence: Option<u32>,
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
    /// The format that was agreed last.
    told: Option<Format>,
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
            mode,
            size: [asked.width, asked.height],
            period_ns: asked.period_ns.max(1),
            clock,
            retry: Retry::default(),
            streaming: None,
            card: None,
            told: None,
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
        let card = mapped::identity(&device)?.card;
        if let Some(first) = &self.card
            && *first != card
        {
            return Err(Trouble::Mode {
                expected: format!("the camera \"{first}\", which was here before"),
                found: format!("\"{card}\""),
            });
        }
        let agreed = self.negotiate(&device)?;
        self.control(&device)?;
        let streaming = Streaming {
            buffers: Mapped::start(&device, BUFFERS)?,
            device,
            agreed,
            begun: false,
            sequence: None,
            since: (self.clock.now)(),
            broken: None,
        };
        self.tell(agreed.format);
        self.card = Some(card);
        self.counts.starts += 1;
        Ok(streaming)
    }

    /// Says what was agreed; aloud where it is news that colours are not to be had, and nobody asked for none.
    fn tell(&mut self, format: Format) {
        let at = self.mode.device.display();
        let [width, height] = self.size;
        let news = self.told.replace(format) != Some(format);
        if format == Format::Grey && self.mode.formats.is_empty() && news {
            log::warn!(
                "{at}: expected a format with colours at {width}x{height}, found GREY alone; if that is meant, say formats = [\"GREY\"]"
            );
        } else {
            log::info!("{at}: {} {width}x{height}", name(format.fourcc()));
        }
    }

    /// Size, pixel format and rate: set, read back, and refused in words if the device has its own mind.
    fn negotiate(&self, device: &Device) -> Result<Agreed, Trouble> {
        let [width, height] = self.size.map(|side| side as u32);
        let offered = mapped::formats(device)?;
        let wanted: Vec<[u8; 4]> = if self.mode.formats.is_empty() {
            Format::ALL.iter().map(|format| format.fourcc()).collect()
        } else {
            self.mode.formats.clone()
        };
        let mut refused = Vec::new();
        // What is not the format's fault, and may pass.
        let mut passing = None;
        for fourcc in wanted.iter().filter(|fourcc| offered.contains(fourcc)) {
            let Some(format) = Format::from_fourcc(*fourcc) else {
                continue;
            };
            // What keeps a format with colours away may pass: no reason to go without them.
            if format == Format::Grey && self.mode.formats.is_empty() && passing.is_some() {
                break;
            }
            let set = match mapped::set_format(device, *fourcc, [width, height]) {
                Ok(set) => set,
                // Nor could any other format be set.
                Err(error) if matches!(error.raw_os_error(), Some(ENODEV | EBUSY)) => {
                    return Err(error.into());
                }
                Err(error) => {
                    refused.push(format!("{} {width}x{height} ({error})", name(*fourcc)));
                    if error.raw_os_error() != Some(EINVAL) {
                        passing = Some(error);
                    }
                    continue;
                }
            };
            let rate = Parameters::new(self.interval());
            let interval = device.set_params(&rate).map(|set| set.interval);
            let good = (set.size, set.fourcc) == ([width, height], *fourcc);
            // A driver that cannot set a rate says so with ENOTTY; its pictures' times tell the rest.
            let slow = interval
                .as_ref()
                .is_ok_and(|interval| self.too_slow(interval));
            if good && !slow {
                let stride = (set.stride as usize).max(format.row_len(self.size[0]));
                let colours = set.colours;
                return Ok(Agreed {
                    format,
                    stride,
                    colours,
                });
            }
            let rate = interval.map_or(String::new(), |i| {
                format!(" at {}/{} Hz", i.denominator, i.numerator)
            });
            let [width, height] = set.size;
            refused.push(format!("{} {width}x{height}{rate}", name(set.fourcc)));
        }
        if let Some(error) = passing {
            return Err(error.into());
        }
        let names = |list: &[[u8; 4]]| {
            let names: Vec<_> = list.iter().copied().map(name).collect();
            names.join(", ")
        };
        let found = if refused.is_empty() {
            format!("only {}", names(&offered))
        } else {
            refused.join(", ")
        };
        Err(Trouble::Mode {
            expected: format!(
                "one of {} at {width}x{height}, {:.1} Hz",
                names(&wanted),
                1e9 / self.period_ns as f64
            ),
            found,
        })
    }

    fn interval(&self) -> Fraction {
        Fraction::new((self.period_ns / 1_000) as u32, 1_000_000)
    }

    /// More than a tenth slower than asked for.
    fn too_slow(&self, interval: &Fraction) -> bool {
        let given_ns =
            u64::from(interval.numerator) * 1_000_000_000 / u64::from(interval.denominator.max(1));
        given_ns > self.period_ns + self.period_ns / 10
    }

    /// Controls are set and read back: one that springs back makes pictures that the policy was not trained on.
    fn control(&self, device: &Device) -> Result<(), Trouble> {
        for (id, value) in &self.mode.controls {
            let wrong = |found: String| Trouble::Mode {
                expected: format!("control {id:#x} = {value}"),
                found,
            };
            let refused = |error: io::Error| match error.raw_os_error() {
                Some(ENODEV) => Trouble::Io(error),
                // So drivers refuse what the camera sets by itself.
                Some(EACCES | EBUSY) => wrong(format!(
                    "{error}; if the camera sets it by itself, its automatic mode is to be switched off in controls"
                )),
                _ => wrong(error.to_string()),
            };
            let control = Control {
                id: *id,
                value: Value::Integer(*value),
            };
            device.set_control(control).map_err(refused)?;
            let read = mapped::control(device, *id).map_err(refused)?;
            if read != *value {
                return Err(wrong(format!("{read} when read back")));
            }
        }
        Ok(())
    }

    fn cannot_open(&mut self, error: &io::Error) -> SourceFault {
        let found = why(&self.mode.device, error);
        self.lose("its device cannot be opened", "a camera that opens", &found)
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

/// A format, for people.
fn name(fourcc: [u8; 4]) -> String {
    String::from_utf8_lossy(&fourcc).into_owned()
}

/// Why a device does not stream.
enum Trouble {
    /// It may mend itself.
    Io(io::Error),
    /// It will not.
    Mode { expected: String, found: String },
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
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

    /// An error if there was no good picture for longer than `most_ns`.
    fn gives(&self, now: Mono, most_ns: u64) -> io::Result<()> {
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
                    return Err(self.lose(
                        "its device is another one, or has not the mode asked for",
                        &expected,
                        &found,
                    ));
                }
            }
        }
        match self.take(deadline, frame) {
            Ok(taken) => {
                if taken.is_ok() {
                    self.retry.worked();
                    self.said.forget();
                }
                taken
            }
            Err(error) => {
                let found = why(&self.mode.device, &error);
                Err(self.lose("its device failed", "pictures", &found))
            }
        }
    }

    fn counts(&self) -> Counts {
        self.counts
    }

    fn stamped(&self) -> Stamped {
        self.stamped
    }
}

impl Camera {
    /// Waits for a buffer, passes over those that a newer one follows, decodes it.
    fn take(&mut self, deadline: Mono, frame: &mut Frame) -> io::Result<Result<(), SourceFault>> {
        let clock = self.clock;
        let quiet_max_ns = QUIET_MAX_NS.max(QUIET_MAX_PERIODS * self.period_ns);
        let counts = &mut self.counts;
        let Some(streaming) = &mut self.streaming else {
            return Ok(Err(SourceFault::Gone("not open")));
        };
        let left_ns = deadline.since_ns((clock.now)());
        // Up to the next whole millisecond: rounding down would spin through the last one.
        let wait_ms = i32::try_from(left_ns.div_ceil(MS)).unwrap_or(i32::MAX);
        if !streaming.ready(wait_ms)? {
            streaming.gives((clock.now)(), quiet_max_ns)?;
            return Ok(Err(SourceFault::Timeout));
        }
        if !streaming.begun {
            // The first after the start is often half exposed.
            streaming.buffers.next()?;
            streaming.begun = true;
            streaming.since = (clock.now)();
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
            let captured;
            (captured, self.stamped) = captured_at(&meta, received);
            let result = if meta.flags.contains(Flags::ERROR) {
                counts.flagged += 1;
                Err("the driver flags it as broken")
            } else {
                let used = &bytes[..bytes.len().min(meta.bytesused as usize)];
                match agreed.format.len(agreed.stride, self.size[1]) {
                    Some(len) if used.len() < len => Err("shorter than its picture"),
                    _ if device_has_more(&streaming.device) => Ok(false),
                    _ => {
                        let Agreed {
                            format,
                            stride,
                            colours,
                        } = agreed;
                        decode::declared_into_rgb(format, colours, used, stride, self.size, frame)
                            .map(|()| true)
                    }
                }
            };
            match result {
                Err(why) => {
                    streaming.broken = Some(why);
                    streaming.gives(received, quiet_max_ns)?;
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

/// The driver's time, if it is of our clock, and what it is of: the start of the exposure where the driver says so, else the
/// end of the frame. Any other is replaced by when the buffer was taken, which is late by the transfer, too.
fn captured_at(meta: &v4l::buffer::Metadata, received: Mono) -> (Mono, Stamped) {
    let stamp = meta.timestamp;
    let monotonic = meta.flags & Flags::TIMESTAMP_MASK == Flags::TIMESTAMP_MONOTONIC;
    let of = if meta.flags & Flags::TSTAMP_SRC_MASK == Flags::TSTAMP_SRC_SOE {
        Stamped::Start
    } else {
        Stamped::End
    };
    match (u64::try_from(stamp.sec), u64::try_from(stamp.usec)) {
        (Ok(sec), Ok(usec)) if monotonic && (sec, usec) != (0, 0) => {
            let ns = sec
                .saturating_mul(1_000_000_000)
                .saturating_add(usec.saturating_mul(1_000));
            (Mono(ns), of)
        }
        _ => (received, Stamped::Arrival),
    }
}
