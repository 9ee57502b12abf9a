// SPDX-License-Identifier: Apache-2.0
//! What lies between the drawn picture and the one that is sent: the noise of a sensor, and faults on demand.

use crate::core::units::{MS, Mono};
use serde::{Deserialize, Serialize};

/// Age of a late picture, and lead of one from the future.
const OFF_NS: u64 = 300 * MS;
/// How far the first picture that runs backwards does so: more than a camera's period.
const STEP_NS: u64 = 50 * MS;
/// How long it takes to put a plug elsewhere.
const REPLUG_NS: u64 = 1_200 * MS;

/// What is wrong with the camera.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum PictureFault {
    /// Nothing.
    #[default]
    None = 0,
    /// It gives nothing, and no error.
    Off = 1,
    /// It gives the same picture again and again, with new times.
    Stuck = 2,
    /// No light.
    Black = 3,
    /// Too much light.
    Saturated = 4,
    /// One colour, with noise.
    Uniform = 5,
    /// Noise.
    Noise = 6,
    /// The lower half is missing.
    Torn = 7,
    /// Half of the rows.
    Short = 8,
    /// Its times are 300 ms old.
    Late = 9,
    /// Its times run backwards.
    Backwards = 10,
    /// Its times lie 300 ms in the future.
    Future = 11,
    /// After a second of silence it shows another view.
    Swapped = 12,
}

impl PictureFault {
    /// All of them.
    pub const ALL: [PictureFault; 13] = [
        PictureFault::None,
        PictureFault::Off,
        PictureFault::Stuck,
        PictureFault::Black,
        PictureFault::Saturated,
        PictureFault::Uniform,
        PictureFault::Noise,
        PictureFault::Torn,
        PictureFault::Short,
        PictureFault::Late,
        PictureFault::Backwards,
        PictureFault::Future,
        PictureFault::Swapped,
    ];

    /// The fault with this number; none for a number that is not one.
    #[must_use]
    pub fn from_code(code: usize) -> PictureFault {
        PictureFault::ALL.get(code).copied().unwrap_or_default()
    }
}

/// A picture's way out of the camera.
#[derive(Clone, Debug)]
pub struct Lens {
    noise: u64,
    fault: PictureFault,
    struck: Mono,
}

impl Lens {
    /// A lens whose noise is that of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Lens {
        Lens {
            noise: seed | 1,
            fault: PictureFault::None,
            struck: Mono(0),
        }
    }

    /// Takes up what is wrong from `now` on, and tells whether a picture is sent at all.
    pub fn set(&mut self, now: Mono, fault: PictureFault) -> bool {
        if fault != self.fault {
            let replugged = [fault, self.fault].contains(&PictureFault::Swapped);
            self.struck = if replugged {
                now.plus_ns(REPLUG_NS)
            } else {
                now
            };
            self.fault = fault;
        }
        fault != PictureFault::Off && now >= self.struck
    }

    /// As [`Lens::set`], without the silence of a replug: for whoever keeps time elsewhere.
    pub fn set_at_once(&mut self, fault: PictureFault) {
        self.fault = fault;
    }

    /// Whether the picture is drawn anew.
    #[must_use]
    pub fn redraws(&self) -> bool {
        self.fault != PictureFault::Stuck
    }

    /// The capture time that the camera gives for a picture of `now`.
    #[must_use]
    pub fn captured(&self, now: Mono) -> Mono {
        match self.fault {
            PictureFault::Late => now.minus_ns(OFF_NS),
            PictureFault::Future => now.plus_ns(OFF_NS),
            PictureFault::Backwards => self.struck.minus_ns(now.since_ns(self.struck) + STEP_NS),
            _ => now,
        }
    }

    /// Rows that are sent of `height`.
    #[must_use]
    pub fn rows(&self, height: usize) -> usize {
        if self.fault == PictureFault::Short {
            height / 2
        } else {
            height
        }
    }

    /// Makes of a drawn picture what the sensor gives: 8-bit RGB, row-major.
    pub fn expose(&mut self, rgb: &mut [u8]) {
        let len = rgb.len();
        match self.fault {
            PictureFault::Black => rgb.fill(2),
            PictureFault::Saturated => rgb.fill(254),
            PictureFault::Uniform => rgb.fill(120),
            PictureFault::Swapped => turn_round(rgb),
            PictureFault::Noise => {
                for bytes in rgb.chunks_mut(8) {
                    let random = self.random().to_le_bytes();
                    bytes.copy_from_slice(&random[..bytes.len()]);
                }
                return;
            }
            _ => {}
        }
        // One bit a value: what the least noisy sensors have, and enough that no two pictures are the same.
        for bytes in rgb.chunks_mut(8) {
            let random = self.random().to_le_bytes();
            for (byte, noise) in bytes.iter_mut().zip(random) {
                *byte ^= noise & 1;
            }
        }
        if self.fault == PictureFault::Torn {
            rgb[len / 2..].fill(128);
        }
    }

    /// xorshift64*: the noise of a sensor need not be better, and is made 20,000 times a picture.
    fn random(&mut self) -> u64 {
        self.noise ^= self.noise >> 12;
        self.noise ^= self.noise << 25;
        self.noise ^= self.noise >> 27;
        self.noise.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

/// Upside down: another view of the same room.
fn turn_round(rgb: &mut [u8]) {
    let (pixels, _) = rgb.as_chunks_mut::<3>();
    pixels.reverse();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_places() {
        for (code, fault) in PictureFault::ALL.into_iter().enumerate() {
            assert_eq!(fault as usize, code);
            assert_eq!(PictureFault::from_code(code), fault);
        }
        assert_eq!(PictureFault::from_code(99), PictureFault::None);
    }

    #[test]
    fn a_replug_takes_its_time_both_ways() {
        let mut lens = Lens::new(1);
        let at = Mono(5_000 * MS);
        assert!(lens.set(at, PictureFault::None));
        assert!(!lens.set(at, PictureFault::Swapped));
        assert!(lens.set(at.plus_ns(REPLUG_NS), PictureFault::Swapped));
        assert!(!lens.set(at.plus_ns(REPLUG_NS), PictureFault::None));
        assert!(lens.set(at.plus_ns(2 * REPLUG_NS), PictureFault::None));
    }
}
