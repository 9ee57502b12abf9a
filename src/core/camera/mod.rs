// SPDX-License-Identifier: Apache-2.0
//! Is what a camera gives to be believed? Judged at each picture from 1,024 samples of it, in microseconds, and between
//! pictures by the time passed in.
//!
//! A picture that is not good is dropped before the policy sees it; three in a row make the camera's fault a cause
//! ([`CameraFault::cause`]), and so does silence. One good picture ends it, but for a camera that is not the one it was.
//!
//! What it cannot see: a tear between two plausible pictures of the same camera, a picture that is sharp and wrong, dirt
//! on the lens. What the driver knows (an error flag, a short buffer) the source refuses itself ([`Health::refused`]).

mod sample;
pub mod skew;
#[cfg(test)]
mod tests;
pub mod view;

use crate::core::governor::reaction::Cause;
use crate::core::units::{MS, Mono};
use sample::Sampled;
use view::{Likeness, View};

/// So many bad pictures in a row are a fault of the camera, not of a picture.
pub const BAD_MAX: u8 = 3;
/// A capture time may be this far ahead of this machine's clock: rounding between two clocks of it.
const AHEAD_MAX_NS: u64 = MS;
/// After a silence this long, the camera may be another one: its view is compared, unless it moves. A plug is not pulled
/// and put back faster; and a source that saw the camera go says so ([`Health::lost`]).
const GAP_NS: u64 = 1_000 * MS;

/// What is known of a camera beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Time between two pictures, if it is known. Silence of 2.5 of it is a fault.
    pub period_ns: Option<u64>,
    /// An older picture is late. Also the longest silence.
    pub age_max_ns: u64,
    /// Whether its pictures carry noise, as those of any sensor do. If not, a picture may repeat exactly, and may have
    /// rows of one colour, without a fault.
    pub noisy: bool,
    /// Whether it is mounted on what the robot moves, as on a wrist: it may show something else whenever it comes back.
    /// That is then judged beside what the other cameras showed ([`view::exchanged`]), and not here.
    pub moves: bool,
}

/// A picture to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// Number given by the camera.
    pub seq: u32,
    /// When it was captured.
    pub captured: Mono,
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 8-bit RGB, row-major.
    pub rgb: &'a [u8],
}

/// What is wrong with a picture, or with a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum CameraFault {
    /// Nothing comes.
    #[error("no picture comes")]
    Silent,
    /// The source says that it is gone.
    #[error("the camera is gone")]
    Gone,
    /// Older than allowed when it came.
    #[error("the picture is older than allowed")]
    Late,
    /// Captured before its predecessor.
    #[error("the picture's time is not after that of the one before")]
    Backwards,
    /// Captured later than now.
    #[error("the picture's time lies in the future")]
    Future,
    /// The same as the one before, number or samples.
    #[error("the picture repeats the one before")]
    Repeated,
    /// Hardly any light.
    #[error("the picture is black")]
    Black,
    /// Hardly anything but light.
    #[error("the picture is saturated")]
    Saturated,
    /// One colour.
    #[error("the picture is of one colour")]
    Uniform,
    /// Not of the size that was agreed.
    #[error("the picture has the wrong size")]
    Size,
    /// Broken, as the driver or the decoder says.
    #[error("the picture is broken")]
    Broken,
    /// A part of it is of exactly one colour: what came was too short.
    #[error("the picture ends early")]
    Torn,
    /// A part of it is noise.
    #[error("the picture is noise, in whole or in part")]
    Noise,
    /// It shows something else than before the camera went: another camera, or the camera was moved.
    #[error("the picture shows another view than before the gap")]
    OtherView,
}

impl CameraFault {
    /// What it is to the supervisor.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            CameraFault::Silent | CameraFault::Gone => Cause::CameraLost,
            CameraFault::Late => Cause::CameraLate,
            CameraFault::Backwards | CameraFault::Future => Cause::CameraClock,
            CameraFault::Repeated => Cause::CameraStuck,
            CameraFault::Black | CameraFault::Saturated | CameraFault::Uniform => {
                Cause::CameraBlind
            }
            CameraFault::Size | CameraFault::Broken | CameraFault::Torn | CameraFault::Noise => {
                Cause::CameraGarbage
            }
            CameraFault::OtherView => Cause::CameraSwapped,
        }
    }
}

/// The health of one camera.
#[derive(Clone, Debug)]
pub struct Health {
    expected: Expected,
    /// Capture time of the last picture, good or not.
    seen: Option<Mono>,
    /// Capture time of the newest picture whose time was good.
    captured: Option<Mono>,
    seq: u32,
    /// Hash of the samples of the last picture.
    print: Option<u64>,
    /// When the last good one came.
    good_at: Option<Mono>,
    /// What the last good one showed.
    view: Option<View>,
    /// What the camera showed before it was away, until it shows that again: nothing unlike it is good.
    before: Option<View>,
    /// Pictures since then that showed something else.
    unlike: u8,
    gone: bool,
    bad: u8,
    last_fault: Option<CameraFault>,
}

impl Health {
    /// A camera of which nothing has come yet.
    #[must_use]
    pub fn new(expected: Expected) -> Health {
        Health {
            expected,
            seen: None,
            captured: None,
            seq: 0,
            print: None,
            good_at: None,
            view: None,
            before: None,
            unlike: 0,
            gone: false,
            bad: 0,
            last_fault: None,
        }
    }

    /// Judges the picture that came at `now`.
    ///
    /// # Errors
    /// [`CameraFault`]: the picture is to be dropped.
    pub fn judge(&mut self, now: Mono, picture: &Picture<'_>) -> Result<(), CameraFault> {
        self.gone = false;
        if self
            .good_at
            .is_some_and(|good_at| now.since_ns(good_at) > GAP_NS)
        {
            self.away();
            self.captured = None;
        }
        match self.find(now, picture) {
            None => {
                self.good_at = Some(now);
                (self.bad, self.last_fault) = (0, None);
                Ok(())
            }
            Some(fault) => {
                self.refused(fault);
                Err(fault)
            }
        }
    }

    /// A picture came that the source itself refused.
    pub fn refused(&mut self, fault: CameraFault) {
        self.bad = self.bad.saturating_add(1);
        self.last_fault = Some(fault);
    }

    /// The source lost the camera. What comes next must show what the camera showed before, unless it moves.
    pub fn lost(&mut self) {
        self.gone = true;
        // It may come back with a clock of its own.
        (self.seen, self.captured) = (None, None);
        self.away();
    }

    /// It may come back as another one. A view without a pattern tells nothing of that.
    fn away(&mut self) {
        if !self.expected.moves {
            let tells = |view: &View| view.beside(view) != Likeness::Unknown;
            self.before = self.before.or(self.view.filter(tells));
        }
    }

    /// What the last good picture showed, roughly.
    #[must_use]
    pub fn view(&self) -> Option<View> {
        self.view
    }

    /// What was wrong with the newest picture, if it was refused.
    #[must_use]
    pub fn last_fault(&self) -> Option<CameraFault> {
        self.last_fault
    }

    /// What is wrong with the camera now, if anything is.
    #[must_use]
    pub fn fault(&self, now: Mono) -> Option<CameraFault> {
        // Three, and not all that come in the 2 s that a camera may take to find its exposure. Exposure changes how bright a
        // pattern is, which the comparison leaves out; pictures that it blacks or whites out are refused for that and not
        // counted here. What one or two may be is what a stream begins with: half a picture, or an old one. None of them is
        // shown to the policy, so that no plan is made of another view meanwhile.
        if self.unlike >= BAD_MAX {
            return Some(CameraFault::OtherView);
        }
        if let Some(fault) = self.last_fault
            && self.bad >= BAD_MAX
            && fault != CameraFault::OtherView
        {
            return Some(fault);
        }
        // What is there is not known to be the camera yet.
        if self.gone || self.unlike > 0 {
            return Some(CameraFault::Gone);
        }
        let silence_max_ns =
            self.expected
                .period_ns
                .map_or(self.expected.age_max_ns, |period_ns| {
                    self.expected
                        .age_max_ns
                        .min(period_ns.saturating_mul(5) / 2)
                });
        let silent = self
            .good_at
            .is_none_or(|good_at| now.since_ns(good_at) > silence_max_ns);
        silent.then_some(self.last_fault.unwrap_or(CameraFault::Silent))
    }

    fn find(&mut self, now: Mono, picture: &Picture<'_>) -> Option<CameraFault> {
        let expected = self.expected;
        // In 64 bits: sizes that somebody sent may overflow a microcontroller's usize.
        let len = (picture.width as u64)
            .saturating_mul(picture.height as u64)
            .saturating_mul(3);
        if (picture.width, picture.height) != (expected.width, expected.height)
            || picture.rgb.len() as u64 != len
        {
            return Some(CameraFault::Size);
        }
        if let Some(fault) = self.time(now, picture) {
            return Some(fault);
        }
        let Some(sampled) = Sampled::of(picture) else {
            return Some(CameraFault::Size);
        };
        let same_number = self.captured.is_some() && picture.seq == self.seq;
        let same_samples = expected.noisy && self.print == Some(sampled.print());
        (self.captured, self.seq) = (Some(picture.captured), picture.seq);
        self.print = Some(sampled.print());
        if same_number || same_samples {
            return Some(CameraFault::Repeated);
        }
        if let Some(fault) = sampled.content(expected.noisy) {
            return Some(fault);
        }
        let view = sampled.view();
        match self.before.map(|before| before.beside(&view)) {
            Some(Likeness::Unlike) => {
                self.unlike = self.unlike.saturating_add(1);
                return Some(CameraFault::OtherView);
            }
            // It tells nothing: neither that what was unlike is right, nor that what comes next need not be compared.
            Some(Likeness::Unknown) if self.unlike > 0 => return Some(CameraFault::OtherView),
            Some(Likeness::Unknown) => {}
            Some(Likeness::Alike) | None => (self.before, self.unlike) = (None, 0),
        }
        self.view = Some(view);
        None
    }

    /// A picture must be newer than the one before and than every good one. A camera whose clock went back and goes on
    /// from there is late, and stays refused until nothing good has come for long.
    fn time(&mut self, now: Mono, picture: &Picture<'_>) -> Option<CameraFault> {
        if picture.captured > now.plus_ns(AHEAD_MAX_NS) {
            return Some(CameraFault::Future);
        }
        let before = self.seen.replace(picture.captured);
        if before.is_some_and(|before| picture.captured <= before) {
            return Some(CameraFault::Backwards);
        }
        if now.since_ns(picture.captured) > self.expected.age_max_ns {
            return Some(CameraFault::Late);
        }
        let behind = self.captured.is_some_and(|good| picture.captured <= good);
        behind.then_some(CameraFault::Backwards)
    }
}
