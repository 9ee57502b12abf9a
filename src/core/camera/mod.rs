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
/// After a silence this long, the camera may be another one: its view is compared. A plug is not pulled and put back
/// faster; and a source that saw the camera go says so ([`Health::lost`]).
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
    /// Whether the next one must show what the last good one did.
    compare: bool,
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
            compare: false,
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
            self.compare = true;
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

    /// The source lost the camera. What comes next must show what the camera showed before.
    pub fn lost(&mut self) {
        self.gone = true;
        // It may come back with a clock of its own.
        (self.seen, self.captured) = (None, None);
        self.compare = self.view.is_some();
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
        if let Some(fault) = self.last_fault
            && (self.bad >= BAD_MAX || fault == CameraFault::OtherView)
        {
            return Some(fault);
        }
        if self.gone {
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
        if self.compare
            && self
                .view
                .as_ref()
                .is_some_and(|before| before.beside(&view) == Likeness::Unlike)
        {
            return Some(CameraFault::OtherView);
        }
        self.compare = false;
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
