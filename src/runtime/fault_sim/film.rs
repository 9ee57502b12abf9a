// SPDX-License-Identifier: Apache-2.0
//! The simulated camera: a still life, its sensor, and the judge of its pictures.

use super::world::{FRAME_AGE_MAX_NS, FRAME_NS};
use crate::bench::lens::{Lens, PictureFault};
use crate::core::camera::{Expected, Health, Picture};
use crate::core::units::Mono;

/// A small picture of a still life with the noise of a sensor, judged as the capture thread judges.
pub(super) struct Film {
    pub(super) health: Health,
    lens: Lens,
    still: Vec<u8>,
    rgb: Vec<u8>,
    seq: u32,
}

/// Sides of the simulated picture.
const FILM_PX: [usize; 2] = [64, 48];

impl Film {
    pub(super) fn new(seed: u64) -> Film {
        let [width, height] = FILM_PX;
        let mut still = Vec::new();
        for y in 0..height {
            for x in 0..width {
                let thing = x.abs_diff(20).pow(2) + y.abs_diff(30).pow(2) < 100;
                let wall = y < 12;
                let base = match (thing, wall) {
                    (true, _) => [180, 40, 40],
                    (_, true) => [60, 70, 80],
                    _ => [150 + x / 2, 120 + y, 100],
                };
                still.extend(base.map(|value| value as u8));
            }
        }
        Film {
            health: Health::new(Expected {
                width,
                height,
                period_ns: Some(FRAME_NS),
                age_max_ns: FRAME_AGE_MAX_NS,
                noisy: true,
                moves: false,
            }),
            lens: Lens::new(seed),
            rgb: still.clone(),
            still,
            seq: 0,
        }
    }

    /// Whether the picture was good.
    pub(super) fn shoot(&mut self, now: Mono, captured: Mono, fault: PictureFault) -> bool {
        // Silence and times are the world's.
        self.lens.set_at_once(fault);
        if self.lens.redraws() {
            self.rgb.copy_from_slice(&self.still);
            self.lens.expose(&mut self.rgb);
        }
        self.seq += 1;
        let [width, height] = FILM_PX;
        let rows = self.lens.rows(height);
        let picture = Picture {
            seq: self.seq,
            captured,
            width,
            height: rows,
            rgb: &self.rgb[..width * rows * 3],
        };
        self.health.judge(now, &picture).is_ok()
    }
}
