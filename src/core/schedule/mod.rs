// SPDX-License-Identifier: Apache-2.0
//! The scheduler: chunks in, one setpoint at each tick out.
//!
//! A chunk lies on the robot's time line by the capture time of its observation, so a late chunk starts at the action
//! for *now* and inference latency shifts nothing. Only the first chunk of a robot that has stood still since it was
//! observed begins with its first action: the plan was made for exactly that pose. Where an old and a new chunk overlap a rule decides the plan
//! ([`merge`]). Between two actions the joints follow a C2 curve through the actions ([`curve`]); whenever the plan
//! changes, the difference to what was being done is faded out by a motion whose jerk is bounded ([`seam`]). So the
//! setpoints are C2 whatever the rule. A plan that asks for more than the limits in force is played slower ([`pace`]), and
//! no step that they forbid is proposed (`curb.rs`).
//! When the plan ends the joints are slowed to rest ([`ladder`]), then nothing is
//! said and the governor holds: nothing here repeats or catches up.
//!
//! It does not: enforce limits (the governor; what is proposed keeps to velocity, acceleration and jerk, not to positions and the space), decide whether the robot may move (the supervisor), know how old the
//! joint state is (the governor).
//!
//! ```text
//!            newer observation, young enough
//!   Empty ------------------------------------> Following -- last action, expiry --> Slowing -- at rest --> Ended
//!     ^                                           |  ^  newer chunk: seam               |                    |
//!     +------------- reset (standby) -------------+  +----------------------------------+--------------------+
//! ```

mod ahead;
mod answer;
mod config;
mod curb;
pub mod curve;
pub mod grip;
mod join;
pub mod ladder;
pub mod merge;
pub mod pace;
pub mod rtc;
pub mod seam;
#[cfg(test)]
mod tests;
pub mod trigger;

use crate::core::action::{JointKind, Setpoint};
use crate::core::chunk::Chunk;
use crate::core::limits::JOINTS_MAX;
use crate::core::units::Mono;
pub use answer::{Absence, Intake, Step};
pub use config::{Config, OnInstruction};
use curb::Curb;
use grip::Grip;
use ladder::{Ladder, Rung, Slowing};
pub use merge::Merge;
use merge::Plan;
pub use pace::{InForce, Rates};
use pace::{Most, Pace};
use rtc::Delays;
use seam::{Bound, Motion, Seam};

/// Which of the two plans is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Active {
    Neither,
    First,
    Second,
}

/// Chunk(s) to setpoint. See the module's text.
#[derive(Debug)]
pub struct Schedule {
    config: Config,
    /// The plan followed and the place for its successor, which is merged from it.
    plans: (Plan, Plan),
    active: Active,
    next: Chunk,
    waiting: bool,
    /// When the plan followed, and its successor, were meant to be over: slower or later, no plan is followed longer.
    end: Mono,
    next_end: Mono,
    seam: Seam,
    pace: Pace,
    in_force: InForce,
    /// What seams and the way to rest may ask of each joint, under the limits in force.
    bounds: heapless::Vec<Bound, JOINTS_MAX>,
    /// What plan and seam together may.
    most: heapless::Vec<Most, JOINTS_MAX>,
    /// What a step may.
    curbs: heapless::Vec<Curb, JOINTS_MAX>,
    /// The last step was curbed: the motion goes on from where that led.
    curbed: bool,
    /// When the plan ahead is to be held against the limits again.
    look_at: Mono,
    slowing: Option<Slowing>,
    ended: bool,
    last: Option<Motion>,
    /// What was emitted at the three ticks before that.
    trail: [[f64; JOINTS_MAX]; 3],
    /// Nothing was proposed since the reset: wherever it is, it stands there. What tells where that is may be noisy.
    standing: bool,
    grip: Grip,
    /// Since when nothing moves.
    resting_from: Option<Mono>,
    newest_captured: Mono,
    taken_at: Mono,
    /// Time between the last two hand-overs.
    between_ns: u64,
    /// The plan is not followed beyond this, whatever its length.
    cut: Mono,
    not_before: Mono,
    /// The next chunk is not mixed with the plan: it obeys another instruction.
    unmixed: bool,
    /// The first chunk that obeys the instruction in force.
    obeys_from: u32,
    /// The plan was left because the policy was not sure enough of what came after it.
    unsure: bool,
    ladder: Ladder,
    delays: Delays,
    /// Reset, and not begun again since; and how often it was begun.
    idle: bool,
    begun: u32,
}

/// The end of time.
const NEVER: Mono = Mono(u64::MAX);

impl Schedule {
    /// A scheduler with nothing to follow.
    #[must_use]
    pub fn new(config: Config) -> Schedule {
        Schedule {
            bounds: config
                .limits
                .iter()
                .map(|limits| limits.bound(InForce::FULL))
                .collect(),
            most: config
                .limits
                .iter()
                .map(|limits| limits.most(InForce::FULL))
                .collect(),
            curbs: config
                .limits
                .iter()
                .map(|limits| Curb::of(limits, InForce::FULL, config.period_ns as f64 * 1e-9))
                .collect(),
            curbed: false,
            config,
            plans: (Plan::blank(), Plan::blank()),
            active: Active::Neither,
            next: Chunk::blank(),
            waiting: false,
            end: NEVER,
            next_end: NEVER,
            seam: Seam::NONE,
            pace: Pace::default(),
            in_force: InForce::FULL,
            look_at: NEVER,
            slowing: None,
            ended: false,
            last: None,
            trail: [[0.0; JOINTS_MAX]; 3],
            standing: true,
            grip: Grip::default(),
            resting_from: None,
            newest_captured: Mono(0),
            taken_at: Mono(0),
            between_ns: 0,
            cut: NEVER,
            not_before: Mono(0),
            unmixed: false,
            obeys_from: 0,
            unsure: false,
            ladder: Ladder::default(),
            delays: Delays::default(),
            idle: true,
            begun: 0,
        }
    }

    /// Forgets every chunk, and takes `at` as the pose from which the next motion starts. Called while the robot
    /// is not following: in standby, in a stop.
    pub fn reset(&mut self, at: &Setpoint) {
        self.active = Active::Neither;
        self.waiting = false;
        self.seam = Seam::NONE;
        self.pace = Pace::default();
        self.slowing = None;
        self.ended = false;
        self.last = Some(Motion::resting(at));
        self.trail = [at.position; 3];
        self.curbed = false;
        self.standing = true;
        self.grip.reset(&at.position);
        self.cut = NEVER;
        self.not_before = Mono(0);
        self.unmixed = false;
        self.unsure = false;
        self.delays.clear();
        self.idle = true;
    }

    /// From now on the robot follows, until the next reset.
    pub fn begin(&mut self) {
        if core::mem::replace(&mut self.idle, false) {
            self.begun = self.begun.wrapping_add(1);
        }
    }

    /// How often it was begun: what a policy remembers of the time before the last is of another episode.
    #[must_use]
    pub fn begun(&self) -> u32 {
        self.begun
    }

    /// The governor's word on which limits are in force: what is planned from now on keeps to them.
    pub fn limits_in_force(&mut self, in_force: InForce) {
        if in_force == self.in_force {
            return;
        }
        if in_force.is_tighter_than(self.in_force) {
            self.look_at = Mono(0);
        }
        self.in_force = in_force;
        let period_s = self.config.period_ns as f64 * 1e-9;
        let slots = self
            .bounds
            .iter_mut()
            .zip(&mut self.most)
            .zip(&mut self.curbs);
        for (((bound, most), curb), limits) in slots.zip(&self.config.limits) {
            *bound = limits.bound(in_force);
            *most = limits.most(in_force);
            *curb = Curb::of(limits, in_force, period_s);
        }
    }

    /// The instruction changed at `now`; chunks from number `obeys_from` on obey it. What the old plan may still do is
    /// configured. An observation made before the change may serve the new instruction.
    pub fn instruction_changed(&mut self, now: Mono, obeys_from: u32) {
        self.obeys_from = obeys_from;
        self.unsure = false;
        let obeys = |chunk: &Chunk| chunk.provenance().chunk_id >= obeys_from;
        // A chunk may overtake the word that it is the first to obey.
        if self.plan().is_some_and(|plan| obeys(&plan.raw)) {
            return;
        }
        self.waiting = self.waiting && obeys(&self.next);
        self.not_before = now.plus_ns(self.config.on_instruction.pause_ns);
        self.unmixed = true;
        let tail_steps = u64::from(self.config.on_instruction.tail_steps);
        self.cut = match self.plan() {
            // What was left already stays left.
            Some(plan) => {
                let tail_ns = plan.raw.period_ns().saturating_mul(tail_steps);
                self.cut.min(now.plus_ns(tail_ns))
            }
            None => NEVER,
        };
    }

    /// Hands in a chunk. One that is older than what is being followed is dropped, whatever the order of arrival.
    pub fn offer(&mut self, now: Mono, chunk: &Chunk) -> Intake {
        let captured = chunk.provenance().captured;
        if chunk.joints() != self.config.kinds.len() {
            return Intake::Joints;
        }
        if chunk.provenance().chunk_id < self.obeys_from {
            return Intake::OtherInstruction;
        }
        if captured <= self.newest_captured {
            return Intake::OutOfOrder;
        }
        if now.since_ns(captured) > self.config.chunk_age_max_ns {
            return Intake::TooOld;
        }
        if chunk.last_at() <= now {
            return Intake::Over;
        }
        // The robot is behind by what its plan has lost since it was observed.
        let lost_ns = self.pace.lost_since(captured);
        let outrun = chunk.due_by().is_some_and(|by| by.plus_ns(lost_ns) < now);
        if outrun
            && self
                .plan()
                .is_some_and(|plan| now <= self.plan_end(&plan.merged))
        {
            // The next one is to be made for a delay like this.
            self.delays
                .followed(captured.plus_ns(lost_ns), now, chunk.period_ns());
            self.ladder.outrun = self.ladder.outrun.saturating_add(1);
            return Intake::Outrun;
        }
        self.newest_captured = captured;
        if chunk.unsure() {
            self.unsure = true;
            self.leave();
            return Intake::Unsure;
        }
        self.next.assign(chunk);
        self.next_end = chunk.last_at();
        self.next.move_to(chunk.first_at().plus_ns(lost_ns));
        self.waiting = true;
        Intake::Taken
    }

    /// Leaves the plan for good. What comes after begins from where that ends, and is not mixed with it.
    fn leave(&mut self) {
        self.waiting = false;
        self.unmixed = true;
        // Before all time: a plan that is played slower, or put off, does not come back.
        self.cut = Mono(0);
    }

    /// The setpoint for `now`. Call once a control period.
    ///
    /// `held_at` is what the governor last emitted, given whenever that is not what was proposed. The
    /// motion then starts anew from there at each tick, so that what is proposed is always
    /// reachable from where the robot is.
    pub fn step(&mut self, now: Mono, held_at: Option<&Setpoint>) -> Step {
        if let Some(actual) = held_at {
            if self.standing {
                self.trail = [actual.position; 3];
            }
            let [_, first, second] = &self.trail;
            let positions = [first, second, &actual.position];
            let period_s = self.config.period_ns as f64 * 1e-9;
            self.last = Some(Motion::through(positions, &self.config.kinds, period_s));
            self.grip.was_told(&actual.position);
            self.slowing = None;
            self.curbed = false;
        }
        if let Some(last) = &self.last {
            let [_, second, third] = self.trail;
            self.trail = [second, third, *last.position()];
        }
        let lost_ns = self.pace.pass(now);
        self.put_off(lost_ns);
        self.resting_from = match &self.last {
            Some(last) if last.at_rest() => self.resting_from.or(Some(now)),
            Some(_) | None => None,
        };
        self.hand_over(now, held_at.is_some());
        let Some(plan) = self.plan() else {
            return Step::None(match (self.unsure, self.waiting) {
                (true, _) => Absence::Unsure,
                (false, true) => Absence::NotYet,
                (false, false) => Absence::NoChunk,
            });
        };
        let chunk = &plan.merged;
        let provenance = chunk.provenance();
        let action = now.since_ns(chunk.first_at()) / chunk.period_ns().max(1);
        let action = action.min(chunk.steps() as u64 - 1) as u16;
        let mut rests = false;
        let (rung, motion) = if now <= self.plan_end(chunk) {
            let mut motion = self.planned(chunk, &self.way(), now, 0);
            self.grip_ahead(&mut motion, chunk, now);
            let fresh = now.since_ns(self.taken_at) <= self.config.fresh_ns;
            (if fresh { Rung::Fresh } else { Rung::Tail }, Some(motion))
        } else {
            match self.slow(now) {
                Some((motion, over)) => {
                    rests = over;
                    (Rung::Slowing, Some(motion))
                }
                None => (Rung::Hold, None),
            }
        };
        self.ladder.count(rung, self.config.period_ns);
        let Some(mut motion) = motion else {
            return Step::None(if self.unsure {
                Absence::Unsure
            } else {
                Absence::Ended
            });
        };
        let curbed = self.curb(&mut motion);
        if rests && !curbed {
            self.ended = true;
            self.ran_out();
        }
        self.grip.tell(&mut motion, &self.config.kinds, now);
        self.last = Some(motion);
        self.standing = false;
        Step::Setpoint {
            setpoint: motion.setpoint(),
            provenance,
            action,
        }
    }

    /// Whether the plan was left because the policy was not sure enough of what came after it.
    #[must_use]
    pub fn unsure(&self) -> bool {
        self.unsure
    }

    /// Time on each rung of the ladder since the start.
    #[must_use]
    pub fn ladder(&self) -> Ladder {
        self.ladder
    }

    /// The delay from observation to hand-over that a policy conditioned on it should plan for, in its steps.
    #[must_use]
    pub fn delay_steps(&self) -> Option<u16> {
        self.delays.planned()
    }

    /// The newest chunk as it came, while it is followed: what a policy that plans on from it is given.
    #[must_use]
    pub fn running(&self) -> Option<&Chunk> {
        self.plan().map(|plan| &plan.raw)
    }

    /// Until when the plan is followed at the latest: one that is played slower is over when it was meant to be.
    #[must_use]
    pub fn follows_until(&self) -> Option<Mono> {
        self.plan().map(|plan| self.plan_end(&plan.merged))
    }

    /// How fast the plan is played: plan seconds a second, at most 1.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.pace.rate()
    }

    fn plan(&self) -> Option<&Plan> {
        match self.active {
            Active::Neither => None,
            Active::First => Some(&self.plans.0),
            Active::Second => Some(&self.plans.1),
        }
    }

    /// Past the last action, the expiry or the cut there is nothing to follow.
    fn plan_end(&self, chunk: &Chunk) -> Mono {
        let expiry = chunk
            .provenance()
            .captured
            .plus_ns(self.config.chunk_age_max_ns);
        chunk.last_at().min(self.end).min(expiry).min(self.cut)
    }

    /// The way to rest, begun at the last tick, and whether it is over; none once the joints are at rest.
    fn slow(&mut self, now: Mono) -> Option<(Motion, bool)> {
        if self.ended {
            return None;
        }
        let last = self.last.as_ref()?;
        if self.slowing.is_none() && last.at_rest() {
            self.ended = true;
            self.ran_out();
            return None;
        }
        let from = now.minus_ns(self.config.period_ns);
        let slowing = self
            .slowing
            .get_or_insert_with(|| Slowing::begin(last, from, &self.bounds));
        Some(slowing.at(now, &self.config.kinds))
    }

    /// The joints came to rest, and not because the policy wanted them to.
    fn ran_out(&mut self) {
        let late = u64::from(!self.unsure);
        self.ladder.ran_out = self.ladder.ran_out.saturating_add(late);
    }

    /// The waiting chunk takes over once its first action is due: before that it has nothing to say, and the old
    /// chunk's tail is the better plan.
    fn hand_over(&mut self, now: Mono, held: bool) {
        let expiry = self.next.provenance().captured;
        let expiry = expiry.plus_ns(self.config.chunk_age_max_ns);
        if self.waiting && (self.next_end <= now || expiry < now) {
            self.waiting = false;
        }
        let due = self.waiting && self.due_at() <= now && self.not_before <= now;
        let mut gentle_max_ns = u64::MAX;
        if due {
            let observed = self.next.provenance().captured;
            if self.resting_from.is_some_and(|rest| rest <= observed) {
                self.move_next(now);
            } else if let Some(event) = self.skipped(now) {
                self.wait_for(event, now);
                gentle_max_ns = 0;
            }
            self.take_next(now);
        }
        let Some(plan) = self.plan() else { return };
        if now > self.plan_end(&plan.merged) {
            self.pace.set(now, 1.0);
            return;
        }
        let anew = due || held || self.must_change_pace(now);
        if !(anew || self.curbed) {
            return;
        }
        let Some(last) = &self.last else {
            self.seam = Seam::NONE;
            return;
        };
        let before = last.advanced(self.config.period_ns as f64 * 1e-9);
        if anew {
            self.join(&before, now, gentle_max_ns.min(self.between_ns));
        } else {
            self.go_on(&before, now);
        }
    }

    /// The gripper's event that beginning at `now` would step over: what is told ahead is stepped over earlier.
    fn skipped(&self, now: Mono) -> Option<usize> {
        let told_at = now.plus_ns(self.config.gripper_lead_ns);
        self.grip.skipped(&self.next, &self.config.kinds, told_at)
    }

    /// Grippers are told what the plan has for them a little later.
    fn grip_ahead(&self, motion: &mut Motion, chunk: &Chunk, now: Mono) {
        if self.config.gripper_lead_ns == 0 {
            return;
        }
        let lead_ns = (self.pace.rate() * self.config.gripper_lead_ns as f64) as u64;
        let then = curve::sample(chunk, &self.config.kinds, now.plus_ns(lead_ns));
        for ((joint, kind), value) in self
            .config
            .kinds
            .iter()
            .enumerate()
            .zip(then.position().iter())
        {
            if *kind == JointKind::Gripper {
                motion.set(joint, *value, 0.0, 0.0);
            }
        }
    }

    /// What the plan's time has lost since the last tick puts off all that it still holds.
    fn put_off(&mut self, lost_ns: u64) {
        if lost_ns == 0 {
            return;
        }
        let later = |chunk: &mut Chunk| chunk.move_to(chunk.first_at().plus_ns(lost_ns));
        later(&mut self.next);
        let plan = match self.active {
            Active::Neither => None,
            Active::First => Some(&mut self.plans.0),
            Active::Second => Some(&mut self.plans.1),
        };
        if let Some(plan) = plan {
            later(&mut plan.merged);
            later(&mut plan.raw);
        }
        self.cut = self.cut.plus_ns(lost_ns);
        self.ladder.stretched_ns = self.ladder.stretched_ns.saturating_add(lost_ns);
    }

    /// Places the next chunk anew: it is meant to be over later by as much.
    fn move_next(&mut self, first_at: Mono) {
        let later_ns = first_at.since_ns(self.next.first_at());
        self.next_end = self.next_end.plus_ns(later_ns);
        self.next.move_to(first_at);
    }

    fn take_next(&mut self, now: Mono) {
        let old_active = self.active;
        let (first, second) = (&mut self.plans.0, &mut self.plans.1);
        let (old, place, active) = match self.active {
            Active::Neither => (None, first, Active::First),
            Active::First => (Some(&*first), second, Active::Second),
            Active::Second => (Some(&*second), first, Active::First),
        };
        let old = old.filter(|_| !self.unmixed);
        place.become_next(old, &self.next, self.config.merge, &self.config.kinds);
        self.grip.taken(&self.next, &self.config.kinds);
        let captured = self.next.provenance().captured;
        // In consumed steps: what the plan's time lost meanwhile was not consumed.
        let consumed_from = captured.plus_ns(self.pace.lost_since(captured));
        self.delays
            .followed(consumed_from, now, self.next.period_ns());
        self.active = active;
        self.waiting = false;
        self.end = self.next_end;
        self.unmixed = false;
        self.unsure = false;
        self.cut = NEVER;
        self.between_ns = match old_active {
            Active::Neither => 0,
            Active::First | Active::Second => now.since_ns(self.taken_at),
        };
        self.taken_at = now;
        self.slowing = None;
        self.ended = false;
    }
}
