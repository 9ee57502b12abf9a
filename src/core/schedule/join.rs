// SPDX-License-Identifier: Apache-2.0
//! Joining a plan: at which rate it is played and by which seam, so that both keep to the limits in force.

use super::pace;
use super::seam::{Motion, Seam};
use super::{Schedule, curve};
use crate::core::chunk::Chunk;
use crate::core::units::Mono;

/// Points at which a plan ahead is held against the limits.
const LOOKS: u64 = 24;
/// How far ahead it is looked at least and at most.
const AHEAD_MIN_NS: u64 = 200_000_000;
const AHEAD_MAX_NS: u64 = 1_000_000_000;
/// Ways to join a plan that are tried at most.
const WAYS_TRIED: usize = 6;
/// By how much the seam of the next is longer, once that is the matter.
const LONGER: f64 = 1.3;
/// A plan is not put off by more at once: what moves slowly is not reached by waiting for it.
const LATE_MAX_NS: u64 = 500_000_000;

/// A way to play a plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Plan seconds a second.
    rate: f64,
    /// By how much the plan is put off at once.
    late_ns: u64,
    /// What is left of the motion before.
    seam: Seam,
}

impl Schedule {
    /// Joins the plan from `before`, which the last tick's motion leads to, in the first way found that keeps to the limits
    /// in force: as fast as it was meant, else slower, else without catching up, else by a longer seam. Where none does,
    /// in the way that exceeds them least: it is not a matter of pace then, and the governor's turn comes.
    pub(super) fn join(&mut self, before: &Motion, now: Mono, gentle_max_ns: u64) {
        let Some(plan) = self.plan() else { return };
        let chunk = &plan.merged;
        let mut best: Option<(f64, Way)> = None;
        let (mut rate, mut late_ns, mut least_ns) = (1.0, 0, 0);
        for attempt in 0..WAYS_TRIED {
            let at = now.minus_ns(late_ns);
            let after = curve::sample(chunk, &self.config.kinds, at).at_rate(rate);
            let seam = self.seam_between(before, &after, now, gentle_max_ns);
            let seam = seam.at_least(least_ns);
            let way = Way {
                rate,
                late_ns,
                seam,
            };
            let excess = self.excess(chunk, &way, now);
            if best.is_none_or(|(least, _)| excess < least) {
                best = Some((excess, way));
            }
            if excess <= 1.0 {
                break;
            }
            if attempt == 0 {
                let seam = Seam::NONE;
                let meant = Way {
                    rate: 1.0,
                    seam,
                    ..way
                };
                let alone = self.excess(chunk, &meant, now);
                rate = pace::rate_below(1.0 / alone);
                continue;
            }
            if attempt > 1 {
                rate = pace::rate_below(rate / excess);
                least_ns = (LONGER * seam.length_ns() as f64) as u64;
            } else {
                least_ns = seam.length_ns();
            }
            let at_now = curve::sample(chunk, &self.config.kinds, now).at_rate(rate);
            let behind_ns = before.behind_ns(&at_now, least_ns, &self.config.kinds);
            // In the plan's time, and no further back than time goes.
            late_ns = ((rate * behind_ns as f64) as u64)
                .min(LATE_MAX_NS)
                .min(now.0);
        }
        if let Some((_, way)) = best {
            self.pace.set(now, way.rate);
            self.pace.lose(now, way.late_ns);
            self.look_at = now.plus_ns(self.ahead_ns(&way.seam, now) / 2);
            self.seam = way.seam;
            let lost_ns = self.pace.pass(now);
            self.put_off(lost_ns);
        }
    }

    /// Whether the plan ahead, as it is being played, asks for more than the limits in force. Looked at now and then:
    /// each look reaches over the next.
    pub(super) fn must_change_pace(&mut self, now: Mono) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now.plus_ns(self.ahead_ns(&self.seam, now) / 2);
        self.plan()
            .is_some_and(|plan| self.excess(&plan.merged, &self.way(), now) > 1.0)
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

    pub(super) fn excess(&self, chunk: &Chunk, way: &Way, now: Mono) -> f64 {
        let ahead_ns = self.ahead_ns(&way.seam, now);
        let step_ns = (ahead_ns / LOOKS).max(self.config.period_ns);
        let left_ns = (chunk.last_at().since_ns(now) as f64 / way.rate) as u64;
        // The next tick is looked at too: there a seam changes the acceleration the most.
        let looks = (0..LOOKS).map(|look| self.config.period_ns + look * step_ns);
        let motions = core::iter::once(0)
            .chain(looks)
            .take_while(|ahead_ns| *ahead_ns <= left_ns)
            .map(|ahead_ns| {
                let motion = self.planned(chunk, way, now, ahead_ns);
                (ahead_ns as f64 * 1e-9, motion)
            });
        let joints = (&*self.config.kinds, &*self.config.limits);
        pace::excess(motions, joints, self.in_force)
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
