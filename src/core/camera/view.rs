// SPDX-License-Identifier: Apache-2.0
//! Roughly what a camera shows, to be compared with what it, or another one, showed before.

use super::sample::GRID;

/// Sides of the rough view.
const SIDE: usize = 8;
/// Fields of a view, row-major.
pub const FIELDS: usize = SIDE * SIDE;
/// Samples of a field.
const SAMPLES: u32 = ((GRID / SIDE) * (GRID / SIDE)) as u32;
/// Two views are of one camera if they correlate by this much, of 100. What moves in front of a camera, and light, leave more;
/// two cameras that look at different things have about 0, and half of it leaves room on both sides.
const ALIKE: i64 = 50;
/// A view whose fields deviate less than this (of 255) has hardly a pattern: a sensor's noise, of which 16 samples are averaged,
/// leaves less than 1.
const DEVIATION_MIN: i64 = 2;

/// Mean brightness of 8 x 8 fields of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View(pub [u8; FIELDS]);

/// How two views are to each other. The pattern counts, not how bright or how strong it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// Of one camera, as far as can be seen.
    Alike,
    /// Of two cameras, or the camera was moved.
    Unlike,
    /// One of them has hardly a pattern: it tells nothing, and accuses nobody.
    Unknown,
}

impl View {
    /// Compares two.
    #[must_use]
    pub fn beside(&self, other: &View) -> Likeness {
        // Deviations from the mean, times the number of fields: in whole numbers nothing is rounded.
        let count = FIELDS as i64;
        let sum = |view: &View| view.0.iter().map(|value| i64::from(*value)).sum::<i64>();
        let (mine, theirs) = (sum(self), sum(other));
        let (mut both, mut own, mut its) = (0_i64, 0_i64, 0_i64);
        for (a, b) in self.0.iter().zip(&other.0) {
            let (a, b) = (count * i64::from(*a) - mine, count * i64::from(*b) - theirs);
            both += a * b;
            own += a * a;
            its += b * b;
        }
        let faint = |sum: i64| sum < count * (count * DEVIATION_MIN) * (count * DEVIATION_MIN);
        if faint(own) || faint(its) {
            return Likeness::Unknown;
        }
        // both / sqrt(own its) >= ALIKE %, in 128 bits: each sum is below 2^35.
        let (both, product) = (i128::from(both), i128::from(own) * i128::from(its));
        match both > 0 && both * both * 10_000 >= product * i128::from(ALIKE * ALIKE) {
            true => Likeness::Alike,
            false => Likeness::Unlike,
        }
    }
}

/// The first camera of those that are `judged` that shows what another one showed before, and that other one: it shows something
/// else than before itself, and so does the other one, if it shows anything. Both lists are of the same cameras in the same
/// order; `None` for one of which nothing is known.
///
/// One camera alone that shows something new is none: it may be on the robot's wrist.
#[must_use]
pub fn exchanged(
    before: &[Option<View>],
    now: &[Option<View>],
    judged: impl Fn(usize) -> bool,
) -> Option<(usize, usize)> {
    let is = |now: &View, before: &Option<View>, likeness: Likeness| {
        before
            .as_ref()
            .is_some_and(|before| now.beside(before) == likeness)
    };
    let cameras = || before.iter().zip(now).enumerate();
    cameras().find_map(|(a, (a_before, a_now))| {
        let a_now = a_now.as_ref()?;
        if !judged(a) || !is(a_now, a_before, Likeness::Unlike) {
            return None;
        }
        let other = cameras().find(|(b, (b_before, b_now))| {
            let changed = match b_now {
                Some(b_now) => is(b_now, b_before, Likeness::Unlike),
                None => true,
            };
            a != *b && changed && is(a_now, b_before, Likeness::Alike)
        });
        other.map(|(b, _)| (a, b))
    })
}

/// Adds up the samples of a picture's fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields([u32; FIELDS]);

impl Fields {
    pub(super) const NONE: Fields = Fields([0; FIELDS]);

    /// Brightness of the sample in this row and column of the grid.
    pub(super) fn add(&mut self, row: usize, column: usize, luma: u32) {
        let field = row * SIDE / GRID * SIDE + column * SIDE / GRID;
        if let Some(sum) = self.0.get_mut(field) {
            *sum += luma;
        }
    }

    pub(super) fn view(&self) -> View {
        // A mean of bytes is one.
        View(self.0.map(|sum| (sum / SAMPLES).min(255) as u8))
    }
}
