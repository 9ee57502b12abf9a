// SPDX-License-Identifier: Apache-2.0
//! One run, and the judge of it: every tick against the limits, the first reaction against its bound, and the end
//! against what the row says.

use super::phase::{JOINTS, Motion, Phase, limits};
use super::rows::{Bound, Finally, Row};
use super::world::{Seen, TICK_NS, World};
use crate::bench::dice::Dice;
use crate::core::governor::Verdict;
use crate::core::governor::limits::Limits;
use crate::core::governor::reaction::Cause;
use crate::core::supervisor::{Mode, Request};
use crate::core::units::{MS, Mono};
use crate::core::wire::state::MotorMode;

/// Share of a limit that is rounding.
const ROUNDING: f64 = 1e-9;
/// Time that a fault lasts: longer than any chunk, any deadline and any stop.
const LASTS: u64 = 1_800 * MS / TICK_NS;
/// Time for a robot to be armed.
const ARMING: u64 = 3_000 * MS / TICK_NS;
/// Time for it to resume, or to be reset.
const AFTER: u64 = 1_000 * MS / TICK_NS;

/// What one run showed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// From the moment from which the bound counts to the first command that brakes.
    pub reaction_ns: Option<u64>,
    /// What was not as it must be; `None` if all was.
    pub failure: Option<String>,
    /// Simulated time.
    pub robot_ns: u64,
}

/// The bound of a row in ms, from the moment from which it counts.
#[must_use]
pub fn bound_ms(row: &Row) -> Option<f64> {
    let (Bound::Within(ns) | Bound::AfterChunk(ns) | Bound::AfterOffTrack(ns)) = row.bound;
    (row.finally >= Finally::Resumes).then_some(ns as f64 * 1e-6)
}

/// What is remembered from the onset on.
#[derive(Clone, Copy, Debug)]
struct Struck {
    onset: Mono,
    /// First command that brakes, and its cause.
    braked: Option<(Mono, Cause)>,
    /// When a measured joint was first too far from its command.
    off_track: Option<Mono>,
    /// When the motor controller first did not follow.
    motor: Option<Mono>,
    /// First rest after the first command that brakes.
    rest: Option<Mono>,
    /// Moved after that rest.
    moved_again: bool,
}

/// See the module's text.
pub struct Run {
    world: World,
    limits: Limits,
    phase: Phase,
    seed: u64,
    dice: Dice,
    /// Emitted positions of the last three ticks of one arming, newest first, and how many there are.
    before: [[f64; JOINTS]; 3],
    count: usize,
    epoch: u32,
    target: Option<[f64; JOINTS]>,
    began: Mono,
    failure: Option<String>,
    last: Option<Seen>,
}

impl Run {
    /// A robot that will be struck in `phase`.
    #[must_use]
    pub fn new(phase: Phase, seed: u64) -> Run {
        let mut dice = Dice::new(seed, 3);
        let world = World::new(Motion::random(&mut dice), seed);
        Run {
            began: world.now(),
            world,
            limits: limits(),
            phase,
            seed,
            dice,
            before: [[0.0; JOINTS]; 3],
            count: 0,
            epoch: 0,
            target: None,
            failure: None,
            last: None,
        }
    }

    /// One fault, its reaction, its end.
    #[must_use]
    pub fn single(mut self, row: &Row) -> Outcome {
        self.arm_and_move(row);
        (row.strike)(&mut self.world, true);
        let mut struck = self.onset();
        for _ in 0..LASTS {
            self.tick(Some(&mut struck));
        }
        let reaction_ns = self.react(row, &struck);
        let called = self.last.and_then(|seen| seen.decision.cause);
        if row.named.is_some() && called != row.named {
            self.fail(format!("called {called:?}, expected {:?}", row.named));
        }
        (row.strike)(&mut self.world, false);
        self.end(row.finally, &struck);
        self.outcome(row.name, reaction_ns)
    }

    /// A second fault soon after the first: the worse end wins.
    #[must_use]
    pub fn pair(mut self, first: &Row, second: &Row, gap_ns: u64) -> Outcome {
        self.arm_and_move(first);
        (first.strike)(&mut self.world, true);
        let mut struck = self.onset();
        for _ in 0..gap_ns / TICK_NS {
            self.tick(Some(&mut struck));
        }
        (second.strike)(&mut self.world, true);
        for _ in 0..LASTS {
            self.tick(Some(&mut struck));
        }
        for row in [first, second] {
            (row.strike)(&mut self.world, false);
        }
        // What is disarmed at rest before the other fault has lasted long enough to latch is as good.
        let disarmed = self
            .last
            .is_some_and(|seen| seen.decision.mode == Mode::Standby);
        let either = first.finally.min(second.finally) == Finally::Disarmed && disarmed;
        let worse = first.finally.max(second.finally);
        self.end(if either { Finally::Disarmed } else { worse }, &struck);
        let name = format!("{} and {}", first.name, second.name);
        self.outcome(&name, None)
    }

    /// The fault ends during the stop that it caused, and strikes again.
    #[must_use]
    pub fn again(mut self, row: &Row) -> Outcome {
        self.arm_and_move(row);
        (row.strike)(&mut self.world, true);
        let mut struck = self.onset();
        let mut left = LASTS;
        while struck.braked.is_none() && left > 0 {
            self.tick(Some(&mut struck));
            left -= 1;
        }
        for _ in 0..self.dice.below(16) {
            self.tick(Some(&mut struck));
        }
        (row.strike)(&mut self.world, false);
        for _ in 0..2 {
            self.tick(Some(&mut struck));
        }
        (row.strike)(&mut self.world, true);
        // A chunk that came in between is followed to its end; after that there is rest.
        for _ in 0..LASTS / 2 {
            self.tick(Some(&mut struck));
        }
        struck.rest = None;
        struck.moved_again = false;
        for _ in 0..LASTS / 2 {
            self.tick(Some(&mut struck));
        }
        if struck.braked.is_some() && row.finally >= Finally::Resumes {
            struck.braked = Some((self.world.now(), Cause::Standby));
        }
        (row.strike)(&mut self.world, false);
        if struck.braked.is_some() {
            self.end(row.finally, &struck);
        }
        self.outcome(&format!("{}, again", row.name), None)
    }

    fn outcome(self, name: &str, reaction_ns: Option<u64>) -> Outcome {
        let (phase, seed) = (self.phase, self.seed);
        Outcome {
            reaction_ns,
            failure: self
                .failure
                .map(|words| format!("{name}, {phase:?}, seed {seed}: {words}")),
            robot_ns: self.world.now().since_ns(self.began),
        }
    }

    fn fail(&mut self, words: String) {
        self.failure.get_or_insert(words);
    }

    fn onset(&self) -> Struck {
        Struck {
            onset: self.world.now(),
            braked: None,
            off_track: None,
            motor: None,
            rest: None,
            moved_again: false,
        }
    }

    /// Standby, armed, at rest, in motion, up to the onset.
    fn arm_and_move(&mut self, row: &Row) {
        // A deadman counts once it was seen released.
        self.world.meddling.deadman_released = true;
        for _ in 0..8 {
            self.tick(None);
        }
        self.world.meddling.deadman_released = false;
        let mut left = ARMING;
        while left > 0
            && !self.last.is_some_and(|seen| {
                seen.decision.mode == Mode::Active && seen.output.verdict == Verdict::Passed
            })
        {
            if left.is_multiple_of(20)
                && self
                    .last
                    .is_some_and(|seen| seen.decision.mode == Mode::Standby)
            {
                self.world.request = Some(Request::Activate);
            }
            self.tick(None);
            left -= 1;
        }
        if left == 0 {
            self.fail(format!(
                "not armed: {:?}",
                self.last.map(|seen| seen.decision)
            ));
        }
        for _ in 0..60 + self.dice.below(40) {
            self.tick(None);
        }
        let needs_motion = matches!(row.bound, Bound::AfterOffTrack(_));
        match Motion::onset_ns(self.phase, &mut self.dice) {
            None if needs_motion => self.world.begin(),
            None => {}
            Some(onset_ns) => {
                self.world.begin();
                for _ in 0..onset_ns / TICK_NS {
                    let seen = self.tick(None);
                    if let Verdict::Held(cause) = seen.output.verdict {
                        self.fail(format!("held for {cause:?} before anything struck"));
                    }
                }
            }
        }
    }

    /// One tick, judged.
    fn tick(&mut self, struck: Option<&mut Struck>) -> Seen {
        let seen = self.world.tick();
        self.judge_command(&seen);
        self.judge_target(&seen);
        if let Some(struck) = struck {
            struck.see(&seen, &self.limits);
        }
        self.last = Some(seen);
        seen
    }

    /// Every emitted command, by differences, exactly.
    fn judge_command(&mut self, seen: &Seen) {
        let output = &seen.output;
        let command = output.command.get();
        let mut q = [0.0; JOINTS];
        q.copy_from_slice(&command.position[..JOINTS]);
        if !output.moving || output.epoch != self.epoch {
            (self.count, self.epoch) = (0, output.epoch);
        }
        if output.moving {
            if self.count == 0 {
                // Before the first command of an arming the robot stood where that one is.
                (self.before, self.count) = ([q; 3], 1);
            }
            let t = TICK_NS as f64 * 1e-9;
            for joint in 0..JOINTS {
                let l = &self.limits.joints[joint].limits;
                let [q1, q2, q3] = self.before.map(|before| before[joint]);
                let (v, v1, v2) = ((q[joint] - q1) / t, (q1 - q2) / t, (q2 - q3) / t);
                let (a, a1) = ((v - v1) / t, (v1 - v2) / t);
                let inside = q[joint] >= l.position_min && q[joint] <= l.position_max;
                let kept = inside
                    && v.abs() <= l.velocity_max * (1.0 + ROUNDING)
                    && a.abs() <= l.acceleration_max * (1.0 + ROUNDING)
                    && ((a - a1) / t).abs() <= l.jerk_max * (1.0 + ROUNDING);
                if !kept {
                    self.fail(format!(
                        "{:?}: joint {joint} at {} with {v}, {a}, {} ({:?})",
                        seen.now,
                        q[joint],
                        (a - a1) / t,
                        output.verdict
                    ));
                }
            }
            self.before = [q, self.before[0], self.before[1]];
        }
    }

    /// The motor controller's own targets: inside, and never faster than allowed.
    fn judge_target(&mut self, seen: &Seen) {
        let before = self.target.replace(seen.target);
        for joint in 0..JOINTS {
            let l = &self.limits.joints[joint].limits;
            let q = seen.target[joint];
            let step = before.map_or(0.0, |before| (q - before[joint]).abs());
            let most = l.velocity_max * TICK_NS as f64 * 1e-9 * (1.0 + 1e-6);
            if !(q >= l.position_min && q <= l.position_max && step <= most) {
                self.fail(format!(
                    "{:?}: motor of joint {joint} at {q}, moved {step}",
                    seen.now
                ));
            }
        }
    }

    /// The first reaction against the row. Returns how long it took from the moment from which the bound counts.
    fn react(&mut self, row: &Row, struck: &Struck) -> Option<u64> {
        if let (Some(bound_ns), motor) = (row.motor_ns, struck.motor) {
            let took = motor.map(|at| at.since_ns(struck.onset));
            if took.is_none_or(|took| took > bound_ns) {
                self.fail(format!(
                    "the motor controller stopped after {took:?} ns, at most {bound_ns}"
                ));
            }
        }
        match row.finally {
            Finally::Legal => return None,
            Finally::Follows => {
                if let Some((at, cause)) = struck.braked {
                    self.fail(format!(
                        "held for {cause:?} after {} ns",
                        at.since_ns(struck.onset)
                    ));
                }
                if struck.motor.is_some() {
                    self.fail("the motor controller stopped".to_owned());
                }
                return None;
            }
            Finally::Resumes | Finally::Disarmed | Finally::Latched => {}
        }
        let (from, bound_ns) = match row.bound {
            Bound::Within(ns) => (struck.onset, ns),
            Bound::AfterChunk(ns) => (self.world.chunk_end_since(struck.onset), ns),
            Bound::AfterOffTrack(ns) => (struck.off_track?, ns),
        };
        match struck.braked {
            None => {
                self.fail("nothing followed".to_owned());
                None
            }
            Some((at, cause)) => {
                let took_ns = at.since_ns(from);
                if !row.causes.contains(&cause) {
                    self.fail(format!("first held for {cause:?}"));
                }
                if took_ns > bound_ns {
                    self.fail(format!("took {took_ns} ns, at most {bound_ns}"));
                }
                Some(took_ns)
            }
        }
    }

    /// The fault is over: how it ends.
    fn end(&mut self, finally: Finally, struck: &Struck) {
        let unmoved = finally <= Finally::Legal || struck.braked.is_none();
        if unmoved {
            return;
        }
        let stop_ns = 2_000 * MS;
        match (struck.braked, struck.rest) {
            (Some((braked, _)), Some(rest)) if rest.since_ns(braked) <= stop_ns => {}
            (braked, rest) => self.fail(format!("no rest in time: {braked:?} {rest:?}")),
        }
        if struck.moved_again {
            self.fail("moved while the fault lasted".to_owned());
        }
        match finally {
            Finally::Follows | Finally::Legal => {}
            Finally::Resumes => {
                let mut resumed = false;
                for _ in 0..AFTER {
                    let seen = self.tick(None);
                    resumed |= seen.decision.mode == Mode::Active
                        && matches!(seen.output.verdict, Verdict::Passed | Verdict::Shaped(_));
                }
                if !resumed {
                    self.fail(format!(
                        "did not resume: {:?}",
                        self.last.map(|seen| seen.decision)
                    ));
                }
            }
            Finally::Disarmed => self.must_rest(AFTER),
            Finally::Latched => {
                for _ in 0..4 {
                    self.tick(None);
                }
                let mode = self.last.map_or(Mode::Boot, |seen| seen.decision.mode);
                if !mode.latched() {
                    self.fail(format!("not latched but {}", mode.word()));
                }
                self.world.request = Some(Request::Activate);
                self.must_stay(mode, AFTER / 4);
                self.world.request = Some(Request::Reset);
                for _ in 0..4 {
                    self.tick(None);
                }
                self.must_stay(Mode::Standby, AFTER / 4);
            }
        }
    }

    /// Nothing moves, and no mode in which it could. A latch is as good as standby.
    fn must_rest(&mut self, ticks: u64) {
        for _ in 0..ticks {
            let seen = self.tick(None);
            if seen.decision.mode.armed() || !seen.output.at_rest {
                let mode = seen.decision.mode.word();
                self.fail(format!("{mode}, at rest: {}", seen.output.at_rest));
                return;
            }
        }
    }

    /// Nothing moves, and the mode is this one.
    fn must_stay(&mut self, mode: Mode, ticks: u64) {
        for _ in 0..ticks {
            let seen = self.tick(None);
            if seen.decision.mode != mode || !seen.output.at_rest {
                self.fail(format!(
                    "expected {} at rest, found {} ({:?}), at rest: {}",
                    mode.word(),
                    seen.decision.mode.word(),
                    seen.decision.cause,
                    seen.output.at_rest
                ));
                return;
            }
        }
    }
}

impl Struck {
    fn see(&mut self, seen: &Seen, limits: &Limits) {
        let cause = match seen.output.verdict {
            Verdict::Held(cause) => Some(cause),
            Verdict::Passed | Verdict::Shaped(_) => seen.slowing,
        };
        if self.braked.is_none() {
            self.braked = cause.map(|cause| (seen.now, cause));
        }
        let too_far = limits
            .joints
            .iter()
            .any(|joint| seen.off_track_rad > joint.limits.tracking_error_max);
        if too_far {
            self.off_track.get_or_insert(seen.now);
        }
        if seen.motor != MotorMode::Following {
            self.motor.get_or_insert(seen.now);
        }
        if self.braked.is_some() {
            if seen.output.at_rest {
                self.rest.get_or_insert(seen.now);
            } else {
                self.moved_again |= self.rest.is_some();
            }
        }
    }
}
