// SPDX-License-Identifier: Apache-2.0
//! Slower before the machine must be: a declared curve from a temperature, a power or a counter of throttling to a share of
//! the speed limits. It falls at once and rises slowly, so that a machine at the edge does not make the robot pulse.

use crate::core::units::Mono;

/// Points of a curve at most.
pub const POINTS_MAX: usize = 8;
/// The share rises by no more than this a second.
const RISE_PER_S: f64 = 0.05;

/// A share of the speed limits by some reading: straight between the points, level outside them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    points: heapless::Vec<(f64, f64), POINTS_MAX>,
}

impl Curve {
    /// Through points of reading and share, 0 to 1. `None` if they are none, too many, no numbers, if readings do not rise or
    /// shares do not fall.
    #[must_use]
    pub fn new(points: &[(f64, f64)]) -> Option<Curve> {
        let sound = |(at, share): &(f64, f64)| at.is_finite() && (0.0..=1.0).contains(share);
        let falls = |pair: &[(f64, f64)]| match pair {
            [(a, high), (b, low)] => a < b && high >= low,
            _ => false,
        };
        let points = heapless::Vec::from_slice(points).ok()?;
        let good = !points.is_empty() && points.iter().all(sound) && points.windows(2).all(falls);
        good.then_some(Curve { points })
    }

    /// The share at a reading. One that is no number is the worst.
    #[must_use]
    pub fn at(&self, reading: f64) -> f64 {
        let worst = self.points.last().map_or(1.0, |(_, share)| *share);
        let Some((first, best)) = self.points.first() else {
            return 1.0;
        };
        if reading <= *first {
            return *best;
        }
        let mut pairs = self.points.windows(2);
        let between = pairs.find_map(|pair| match pair {
            [(a, high), (b, low)] if reading <= *b => {
                Some(high + (low - high) * (reading - a) / (b - a))
            }
            _ => None,
        });
        between.unwrap_or(worst)
    }
}

/// The share in force, as it falls and rises.
#[derive(Clone, Copy, Debug)]
pub struct Derate {
    share: f64,
    at: Option<Mono>,
}

impl Default for Derate {
    fn default() -> Self {
        Derate {
            share: 1.0,
            at: None,
        }
    }
}

impl Derate {
    /// Whether it was stepped before.
    #[must_use]
    pub fn begun(&self) -> bool {
        self.at.is_some()
    }

    /// Takes the share that the readings of `now` allow, and tells the one in force.
    pub fn step(&mut self, now: Mono, allowed: f64) -> f64 {
        let passed_ns = self.at.map_or(0, |at| now.since_ns(at));
        self.at = Some(now);
        let highest = self.share + RISE_PER_S * passed_ns as f64 * 1e-9;
        // A NaN allows nothing.
        self.share = if allowed.is_nan() {
            0.0
        } else {
            allowed.clamp(0.0, 1.0).min(highest)
        };
        self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::units::MS;

    #[test]
    fn a_curve_is_straight_between_its_points_and_level_outside() {
        let curve = Curve::new(&[(80.0, 1.0), (90.0, 0.5), (95.0, 0.2)]).expect("a curve");
        for (reading, share) in [
            (-40.0, 1.0),
            (80.0, 1.0),
            (85.0, 0.75),
            (90.0, 0.5),
            (92.5, 0.35),
            (95.0, 0.2),
            (200.0, 0.2),
            (f64::NAN, 0.2),
        ] {
            assert!(
                (curve.at(reading) - share).abs() < 1e-12,
                "{reading}: {}",
                curve.at(reading)
            );
        }
        assert_eq!(Curve::default().at(1e9), 1.0, "none declared");
    }

    #[test]
    fn what_is_no_curve_is_refused() {
        let many = [(0.0, 1.0); POINTS_MAX + 1];
        for points in [
            &[][..],
            &[(80.0, 1.5)],
            &[(f64::NAN, 1.0)],
            &[(80.0, 1.0), (80.0, 0.5)],
            &[(80.0, 0.5), (90.0, 0.6)],
            &many,
        ] {
            assert_eq!(Curve::new(points), None, "{points:?}");
        }
    }

    #[test]
    fn it_falls_at_once_and_rises_slowly() {
        let mut derate = Derate::default();
        let mut at = |s: u64, allowed| derate.step(Mono(1 + s * 1_000 * MS), allowed);
        assert_eq!(at(0, 1.0), 1.0);
        assert_eq!(at(1, 0.4), 0.4);
        assert!((at(2, 1.0) - 0.45).abs() < 1e-12);
        assert_eq!(at(3, f64::NAN), 0.0);
        assert!((at(23, 1.0) - 1.0).abs() < 1e-12);
    }
}
