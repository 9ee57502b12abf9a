// SPDX-License-Identifier: Apache-2.0
//! The plan ahead, held against the limits in force: how many times too fast it is.
//!
//! Between two actions the plan is a quintic, and so is its seam; their sum is looked at some times in each piece. Velocity
//! is judged there. Of jerk and acceleration, which may be small at every look, the largest values between two looks are
//! found: there jerk is a parabola, known by its values at both and by its mean. Across the meeting of two pieces it is judged as its mean over one control period, as the governor sees it,
//! who knows setpoints only.

use super::Schedule;
use super::curve::{RatesOver, Spot};
use super::join::Way;
use super::pace::Most;
use super::seam::Seam;
use crate::core::action::JointKind;
use crate::core::chunk::Chunk;
use crate::core::limits::{CHUNK_STEPS_MAX, JOINTS_MAX};
use crate::core::units::Mono;

/// A piece is looked at after this long, or after this share of the time ahead if that is longer.
const LOOK_S: f64 = 0.015;
const LOOK_SHARE: f64 = 1.0 / 24.0;
/// Two looks a piece, those of the seam's end, and as many as the time ahead is shared into.
const LOOKS_MAX: usize = 2 * CHUNK_STEPS_MAX + 4 + 24;

/// What is judged between a look and the one before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Between {
    /// Nothing: it is where the motion comes from.
    Nothing,
    /// The mean jerk.
    Mean,
    /// The largest jerk: nothing changes its course between.
    Peak,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    /// From now, seconds.
    at_s: f64,
    /// Since the look before, and 1 over it; no look is at the place of another.
    way_s: f64,
    per_way: f64,
    spot: Spot,
    between: Between,
}

type Looks = heapless::Vec<Look, LOOKS_MAX>;

/// Where the plan is at each moment ahead, in its actions.
#[derive(Clone, Copy, Debug)]
struct Course {
    /// Now; below 0 before its first.
    from: f64,
    /// A second.
    per_s: f64,
    /// Its last.
    last: f64,
}

impl Course {
    fn spot(&self, at_s: f64) -> Spot {
        let place = self.from + self.per_s * at_s;
        let piece = libm::floor(place).clamp(-1.0, (self.last - 1.0).max(-1.0));
        Spot {
            piece: piece as isize,
            u: place - piece,
        }
    }

    /// When the next piece after `at_s` begins.
    fn next_knot_s(&self, at_s: f64) -> f64 {
        // Past what rounding leaves of the knot that `at_s` is.
        let place = self.from + self.per_s * at_s + 1e-9;
        (libm::floor(place).max(-2.0) + 1.0 - self.from) / self.per_s
    }

    /// Looks over `ahead_s` in ticks of `tick_s`, the seam being over after `seam_s`.
    /// Filled in place: it is too large to be handed about.
    fn look(&self, looks: &mut Looks, ahead_s: f64, seam_s: f64, tick_s: f64) {
        looks.clear();
        let end_s = ahead_s.min((self.last - self.from) / self.per_s);
        let look_s = LOOK_S.max(LOOK_SHARE * ahead_s);
        let mut before_s = 0.0;
        let mut push = |at_s: f64, between: Between| {
            let way_s = at_s - before_s;
            // As many as there is room for: the furthest ahead are the least urgent.
            let _ = looks.push(Look {
                at_s,
                way_s,
                per_way: 1.0 / way_s,
                spot: self.spot(at_s),
                between,
            });
            before_s = at_s;
        };
        push(0.0, Between::Nothing);
        let (mut from_s, mut first) = (0.0, Between::Nothing);
        while from_s < end_s {
            let mut knot_s = self.next_knot_s(from_s);
            if seam_s > from_s && seam_s < knot_s {
                knot_s = seam_s;
            }
            let to_s = knot_s.min(end_s);
            let margin_s = if to_s < end_s { 0.5 * tick_s } else { 0.0 };
            let (inner_s, outer_s) = (from_s + 0.5 * tick_s, to_s - margin_s);
            if outer_s - inner_s > tick_s {
                push(inner_s, first);
                let parts = libm::ceil((outer_s - inner_s) / look_s).max(1.0);
                for part in 1..=parts as usize {
                    let share = part as f64 / parts;
                    push(inner_s + share * (outer_s - inner_s), Between::Peak);
                }
            } else {
                push(0.5 * (from_s + to_s), Between::Mean);
            }
            (from_s, first) = (to_s, Between::Mean);
        }
    }
}

impl Schedule {
    /// How many times faster than the limits in force allow the plan is, if played in this way from `now` on; at most 1
    /// where it keeps to them. Playing at a rate r scales velocity by r, acceleration by r2 and jerk by r3. Once it is found to
    /// be more than `enough`, no more is looked for.
    pub(super) fn excess(&self, chunk: &Chunk, way: &Way, now: Mono, enough: f64) -> f64 {
        let period_s = chunk.period_ns() as f64 * 1e-9;
        let late_s = way.late_ns as f64 * 1e-9;
        let course = Course {
            from: (now.seconds_since(chunk.first_at()) - late_s) / period_s,
            per_s: way.rate / period_s,
            last: chunk.steps() as f64 - 1.0,
        };
        let ahead_s = self.ahead_ns(&way.seam, now) as f64 * 1e-9;
        let seam_s = way.seam.left_ns(now) as f64 * 1e-9;
        let tick_s = self.config.period_ns as f64 * 1e-9;
        let mut looks = Looks::new();
        course.look(&mut looks, ahead_s, seam_s, tick_s);

        let joints = self.config.kinds.len();
        let mut fades = Fades::none();
        fades.read(&way.seam, joints, now);
        // The look at its end is from before it; the next is half a tick after.
        let fades_until_s = seam_s + 0.25 * tick_s;
        let mut before = [(0.0, 0.0); JOINTS_MAX];
        let mut worst = Worst::default();
        for piece in looks.chunk_by(|a, b| a.spot.piece == b.spot.piece) {
            let Some(first) = piece.first() else { continue };
            let rows = first.spot.rows(chunk);
            let joints = self.config.kinds.iter().enumerate().zip(&mut before);
            for ((joint, kind), before) in joints {
                if *kind == JointKind::Gripper {
                    continue;
                }
                let plan = rows.piece(joint).rates(course.per_s);
                let (most, fade) = (self.most_in_force(joint), fades.of_joint(joint));
                for look in piece {
                    let mut rates = plan.at(look.spot.u);
                    if let Some(fade) = fade
                        && look.at_s < fades_until_s
                    {
                        let more = fade.at(fades.share(look.at_s));
                        for (rate, more) in rates.iter_mut().zip(more) {
                            *rate += more;
                        }
                    }
                    if look.at_s > 0.0 {
                        worst.look(look, rates, *before, &most);
                    }
                    *before = (rates[1], rates[2]);
                }
            }
            if worst.is_beyond(enough) {
                break;
            }
        }
        worst.excess()
    }

    fn most_in_force(&self, joint: usize) -> Most {
        self.most.get(joint).copied().unwrap_or(Most::NO_LIMIT)
    }
}

/// The seam of each joint.
struct Fades {
    rates: heapless::Vec<RatesOver, JOINTS_MAX>,
    from: f64,
    per_s: f64,
}

impl Fades {
    fn none() -> Fades {
        Fades {
            rates: heapless::Vec::new(),
            from: 0.0,
            per_s: 0.0,
        }
    }

    fn read(&mut self, seam: &Seam, joints: usize, now: Mono) {
        let length_s = seam.length_ns() as f64 * 1e-9;
        if seam.left_ns(now) > 0 {
            self.per_s = 1.0 / length_s;
            self.from = 1.0 - seam.left_ns(now) as f64 * 1e-9 * self.per_s;
            for joint in 0..joints {
                // Not more joints than there may be.
                let _ = self.rates.push(seam.rates(joint));
            }
        }
    }

    fn of_joint(&self, joint: usize) -> Option<&RatesOver> {
        self.rates.get(joint)
    }

    fn share(&self, at_s: f64) -> f64 {
        (self.from + self.per_s * at_s).min(1.0)
    }
}

/// The most that was found of any joint, in what may be planned for.
#[derive(Clone, Copy, Debug, Default)]
struct Worst {
    speed: f64,
    force: f64,
    jerk: f64,
}

impl Worst {
    /// `before`: acceleration and jerk at the look before.
    ///
    /// Velocity is judged also as what is left of it once the acceleration is taken back at the most jerk,
    /// `v + a |a| / 2 j`, which the governor keeps below the limit; `coast` is 1 / 2 j.
    fn look(
        &mut self,
        look: &Look,
        [v, a, j]: [f64; 3],
        (a_before, j_before): (f64, f64),
        most: &Most,
    ) {
        match look.between {
            Between::Nothing => {}
            Between::Mean => {
                let mean = (a - a_before) * look.per_way;
                self.jerk = self.jerk.max(mean.abs() * most.per_jerk);
            }
            Between::Peak => {
                // Control points of the parabola, and of its integral, between which each stays (Bernstein): mostly they tell
                // that nothing there is worse than what was found.
                let mean = (a - a_before) * look.per_way;
                let middle = 3.0 * mean - j_before - j;
                let bound = j_before.abs().max(j.abs()).max(middle.abs());
                if bound * most.per_jerk > self.jerk {
                    let peak = peak(j_before, middle, j);
                    self.jerk = self.jerk.max(peak * most.per_jerk);
                }
                let third_s = look.way_s * (1.0 / 3.0);
                let (near, far) = (a_before + third_s * j_before, a - third_s * j);
                if near.abs().max(far.abs()) * most.per_acceleration > self.force {
                    let bow = [j_before, middle, j].map(|j| j * look.way_s);
                    let crest = crest(a_before, bow);
                    self.force = self.force.max(crest * most.per_acceleration);
                }
            }
        }
        let left = v + most.coast * a * a.abs();
        self.speed = self.speed.max(v.abs().max(left.abs()) * most.per_velocity);
        self.force = self.force.max(a.abs() * most.per_acceleration);
    }

    /// Whether it is more than `enough`.
    fn is_beyond(&self, enough: f64) -> bool {
        self.speed > enough || self.force > enough * enough || self.jerk > enough * enough * enough
    }

    /// How many times too fast.
    fn excess(&self) -> f64 {
        self.speed
            .max(libm::sqrt(self.force))
            .max(libm::cbrt(self.jerk))
    }
}

/// The largest magnitude of the parabola with these control points over 0..1.
fn peak(from: f64, middle: f64, to: f64) -> f64 {
    let ends = from.abs().max(to.abs());
    if middle.abs() <= ends {
        return ends;
    }
    let turn = (from - middle) / (from - 2.0 * middle + to);
    if turn > 0.0 && turn < 1.0 {
        ends.max((from - (from - middle) * turn).abs())
    } else {
        ends
    }
}

/// The largest magnitude within 0..1 of what is `from` at 0 and grows at the parabola with these control points, where that
/// is zero; 0 where it never is.
fn crest(from: f64, [b0, b1, b2]: [f64; 3]) -> f64 {
    let (slope, bend) = (b1 - b0, b0 - 2.0 * b1 + b2);
    // b0 + 2 slope u + bend u2 = 0, in the form that divides by nothing small.
    let under = slope * slope - bend * b0;
    if under < 0.0 {
        return 0.0;
    }
    let root = libm::sqrt(under);
    let sum = -(slope + if slope < 0.0 { -root } else { root });
    let at = |u: f64| {
        if u > 0.0 && u < 1.0 {
            (from + u * (b0 + u * (slope + u * bend / 3.0))).abs()
        } else {
            0.0
        }
    };
    // A division by zero gives a place outside.
    at(sum / bend).max(at(b0 / sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_a_parabola_is_found_wherever_it_is() {
        for (from, bend, slope) in [
            (1.0, -6.0, 6.0),
            (-2.0, 3.0, 0.5),
            (0.0, 8.0, -8.0),
            (5.0, 1.0, -1.0),
        ] {
            let at = |u: f64| from + slope * u + bend * u * u;
            let mean = from + slope / 2.0 + bend / 3.0;
            let shares = || (0..=10_000).map(|i| f64::from(i) * 1e-4);
            let by_looking = shares().map(|u| at(u).abs()).fold(0.0, f64::max);
            let middle = 3.0 * mean - at(0.0) - at(1.0);
            let found = peak(at(0.0), middle, at(1.0));
            assert!((found - by_looking).abs() < 1e-6, "{found} {by_looking}");

            for start in [0.0, 0.3, -1.0] {
                let grown = |u: f64| start + u * (from + u * (slope / 2.0 + u * bend / 3.0));
                let by_looking = shares().map(|u| grown(u).abs()).fold(0.0, f64::max);
                let found = crest(start, [at(0.0), middle, at(1.0)]);
                let found = found.max(grown(0.0).abs()).max(grown(1.0).abs());
                assert!((found - by_looking).abs() < 1e-6, "{found} {by_looking}");
            }
        }
    }

    #[test]
    fn looks_lie_beside_the_meeting_of_pieces_and_never_on_it() {
        let course = Course {
            from: 1.3,
            per_s: 20.0,
            last: 15.0,
        };
        let mut looks = Looks::new();
        course.look(&mut looks, 0.4, 0.07, 0.005);
        let all: Vec<f64> = looks.iter().map(|look| look.at_s).collect();
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?}");
        assert!((all.last().expect("looks") - 0.4).abs() < 1e-12);
        for knot_s in (0..8)
            .map(|k| (2.0 + f64::from(k) - 1.3) / 20.0)
            .chain([0.07])
            .filter(|s| *s < 0.4)
        {
            let after = looks.iter().find(|look| look.at_s >= knot_s).expect("one");
            assert_eq!(after.between, Between::Mean, "across {knot_s} of {all:?}");
        }
        // A plan that has not begun, and one that is over.
        let early = Course {
            from: -3.5,
            per_s: 20.0,
            last: 15.0,
        };
        early.look(&mut looks, 0.4, 0.0, 0.005);
        let pieces: Vec<isize> = looks.iter().map(|look| look.spot.piece).collect();
        assert!(pieces.contains(&-1) && pieces.contains(&4), "{pieces:?}");
        let over = Course {
            from: 15.0,
            per_s: 20.0,
            last: 15.0,
        };
        over.look(&mut looks, 0.4, 0.0, 0.005);
        assert_eq!(looks.len(), 1);
    }
}
