// SPDX-License-Identifier: Apache-2.0
//! Joining a plan: at which rate it is played and by which seam, so that both keep to the limits in force.

use super::pace;
use super::seam::{Motion, Seam};
use super::{Merge, Schedule, curve};
use crate::core::chunk::Chunk;
use crate::core::units::Mono;

/// How far ahead it is looked at least and at most.
const AHEAD_MIN_NS: u64 = 200_000_000;
const AHEAD_MAX_NS: u64 = 1_000_000_000;
/// Ways to join a plan that are tried at most: longer and longer, and slower and slower.
const TURNS_LONGER: usize = 4;
const TURNS_SLOWER: usize = 2;
/// By how much the seam of the next is longer, once that is the matter.
const LONGER: f64 = 1.3;
/// A plan is not put off by more at once: what moves slowly is not reached by waiting for it.
const LATE_MAX_NS: u64 = 500_000_000;

/// A way to play a plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Plan seconds a second.
    pub(super) rate: f64,
    /// By how much the plan is put off at once.
    pub(super) late_ns: u64,
    /// What is left of the motion before.
    pub(super) seam: Seam,
}

/// Once a way is found to be so many times too fast it does not matter by how much.
const HOPELESS: f64 = 3.0;
/// Where a slower plan that waits for the robot is still so many times too fast, it is not a matter of pace.
const PACELESS: f64 = 2.0;

/// A way with how many times too fast it is.
#[derive(Clone, Copy, Debug)]
struct Tried {
    excess: f64,
    way: Way,
}

impl Tried {
    /// Whichever exceeds less; this one where they are alike.
    fn or(self, other: Tried) -> Tried {
        if other.excess < self.excess {
            other
        } else {
            self
        }
    }
}

/// What is to be joined, and from where.
struct From<'a> {
    chunk: &'a Chunk,
    before: &'a Motion,
    now: Mono,
    gentle_max_ns: u64,
}

impl Schedule {
    /// Joins the plan from `before`, which the last tick's motion leads to, in the first way found that keeps to the limits
    /// in force: as fast as it was meant, else slower, else without catching up, else by a longer seam, else slower still.
    /// Where none does, in the way that exceeds them least: it is not a matter of pace then, and the governor's turn comes.
    pub(super) fn join(&mut self, before: &Motion, now: Mono, gentle_max_ns: u64) {
        let Some(plan) = self.plan() else { return };
        let from = From {
            chunk: &plan.merged,
            before,
            now,
            gentle_max_ns,
        };
        let way = self.found(&from);
        self.pace.set(now, way.rate);
        self.pace.lose(now, way.late_ns);
        self.look_at = now.plus_ns(self.ahead_ns(&way.seam, now) / 2);
        self.seam = way.seam;
        let lost_ns = self.pace.pass(now);
        self.put_off(lost_ns);
    }

    fn found(&self, from: &From<'_>) -> Way {
        let meant = self.tried(from, 1.0, [0; 2], HOPELESS);
        let meant_fits = meant.excess <= 1.0;
        if meant_fits && meant.way.seam.length_ns() <= AHEAD_MAX_NS {
            return meant.way;
        }
        // A fade that lasts beyond what is looked at hides a plan which is too fast by itself.
        let alone = Way {
            seam: Seam::NONE,
            ..meant.way
        };
        let alone = self.excess(from.chunk, &alone, from.now, f64::INFINITY);
        let slower = if alone > 1.0 {
            let rate = pace::rate_below(1.0 / alone);
            self.tried(from, rate, [0; 2], HOPELESS)
        } else {
            meant
        };
        let mut best = if meant_fits { slower } else { meant.or(slower) };
        let least = |best: Tried| {
            if best.excess > 1.0 {
                best.or(meant).way
            } else {
                best.way
            }
        };
        let mut last = slower;
        for turn in 0..TURNS_LONGER {
            if best.excess <= 1.0 {
                return best.way;
            }
            let length_ns = last.way.seam.length_ns();
            let (rate, least_ns) = if turn == 0 {
                (last.way.rate, length_ns)
            } else {
                let rate = pace::rate_below(last.way.rate / last.excess);
                (rate, (LONGER * length_ns as f64) as u64)
            };
            let late_ns = self.late_ns(from, rate, least_ns);
            last = self.tried(from, rate, [late_ns, least_ns], best.excess);
            best = best.or(last);
            if best.excess > PACELESS {
                return least(best);
            }
        }
        last = slower;
        for _ in 0..TURNS_SLOWER {
            if best.excess <= 1.0 {
                return best.way;
            }
            let rate = pace::rate_below(last.way.rate / last.excess);
            last = self.tried(from, rate, [0; 2], best.excess);
            best = best.or(last);
        }
        least(best)
    }

    /// The plan put off by `late_ns`, with a seam of at least `least_ns`; exceeding by more than `enough`, it is as good as any
    /// that does.
    fn tried(
        &self,
        from: &From<'_>,
        rate: f64,
        [late_ns, least_ns]: [u64; 2],
        enough: f64,
    ) -> Tried {
        let at = from.now.minus_ns(late_ns);
        let after = curve::sample(from.chunk, &self.config.kinds, at).at_rate(rate);
        let seam = self.seam_between(from.before, &after, from.now, from.gentle_max_ns);
        let way = Way {
            rate,
            late_ns,
            seam: seam.at_least(least_ns),
        };
        let excess = self.excess(from.chunk, &way, from.now, enough);
        Tried { excess, way }
    }

    /// By how much the plan must be put off for a seam of this length not to hurry: in its time, and no further back than
    /// time goes.
    fn late_ns(&self, from: &From<'_>, rate: f64, length_ns: u64) -> u64 {
        let plan = curve::sample(from.chunk, &self.config.kinds, from.now).at_rate(rate);
        let behind_ns = from.before.behind_ns(&plan, length_ns, &self.config.kinds);
        ((rate * behind_ns as f64) as u64)
            .min(LATE_MAX_NS)
            .min(from.now.0)
    }

    /// Whether the plan ahead, as it is being played, asks for more than the limits in force. Looked at now and then:
    /// each look reaches over the next.
    pub(super) fn must_change_pace(&mut self, now: Mono) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now.plus_ns(self.ahead_ns(&self.seam, now) / 2);
        self.plan()
            .is_some_and(|plan| self.excess(&plan.merged, &self.way(), now, 1.0) > 1.0)
    }

    /// When the next chunk may take over. One that is played slower is not waited for longer than one that is not, or newer ones
    /// would take its place until the old plan is over; up to one action early the curve leads to its first.
    pub(super) fn due_at(&self) -> Mono {
        let lost_ns = self.pace.lost_since(self.next.provenance().captured);
        let early_ns = lost_ns.min(self.next.period_ns());
        self.next.first_at().minus_ns(early_ns)
    }

    /// Shifts the next chunk so that its action `event` comes when the seam to it is over.
    pub(super) fn wait_for(&mut self, event: usize, now: Mono) {
        let Some(last) = &self.last else { return };
        let before = last.advanced(self.config.period_ns as f64 * 1e-9);
        let there = curve::sample(&self.next, &self.config.kinds, self.next.at(event))
            .at_rate(self.pace.rate());
        let lead_ns = self.seam_between(&before, &there, now, 0).length_ns();
        let way_ns = self.next.period_ns().saturating_mul(event as u64);
        self.move_next(now.plus_ns(lead_ns).minus_ns(way_ns).min(now));
    }

    /// The seam from `before`, which the last tick's motion leads to, to `after`.
    pub(super) fn seam_between(
        &self,
        before: &Motion,
        after: &Motion,
        now: Mono,
        gentle_max_ns: u64,
    ) -> Seam {
        let least_ns = match self.config.merge {
            Merge::Blend { blend_ns } => blend_ns,
            Merge::Replace
            | Merge::Ensemble { .. }
            | Merge::Aggregate(_)
            | Merge::Smooth { .. } => self.config.period_ns,
        };
        let length_ns = if before.at_rest() {
            least_ns.max(self.config.start_ns)
        } else {
            // What was begun gently goes on so; without a bound each seam would be longer than the one before.
            least_ns.max(self.seam.left_ns(now).min(self.config.start_ns))
        };
        Seam::between(
            before,
            after,
            now,
            [length_ns, gentle_max_ns],
            (&self.config.kinds, &self.bounds),
        )
    }

    pub(super) fn way(&self) -> Way {
        Way {
            rate: self.pace.rate(),
            late_ns: 0,
            seam: self.seam,
        }
    }

    /// How far ahead the plan is held against the limits: over its seam, and until its successor is well overdue.
    pub(super) fn ahead_ns(&self, seam: &Seam, now: Mono) -> u64 {
        (2 * self.between_ns)
            .max(AHEAD_MIN_NS)
            .max(seam.left_ns(now))
            .min(AHEAD_MAX_NS)
    }

    /// The plan and its seam `ahead_ns` after `now`, if played in this way from `now` on.
    pub(super) fn planned(&self, chunk: &Chunk, way: &Way, now: Mono, ahead_ns: u64) -> Motion {
        let at = now
            .plus_ns((way.rate * ahead_ns as f64) as u64)
            .minus_ns(way.late_ns);
        let mut motion = curve::sample(chunk, &self.config.kinds, at).at_rate(way.rate);
        way.seam
            .add_to(&mut motion, &self.config.kinds, now.plus_ns(ahead_ns));
        motion
    }
}
