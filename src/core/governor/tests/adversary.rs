// SPDX-License-Identifier: Apache-2.0
//! The adversary: a seeded generator of robots, setpoints and faults, and a duel between it and a governor in which
//! every tick is checked. The invariants that are looked for stand in [`super::properties`].

use super::*;
use crate::core::action::JointKind;
use crate::core::governor::limits::{Coordination, Joint, JointLimits};
use crate::core::limits::JOINTS_MAX;
use crate::core::units::MS;

/// xorshift64*: small, seeded, the same on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// 0 .. 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Any bit pattern, with the nasty ones often.
    pub(crate) fn hostile(&mut self) -> f64 {
        let nasty = [
            f64::NAN,
            -f64::NAN,
            f64::from_bits(0x7ff0_0000_0000_0001),
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            5e-324,
            -0.0,
            0.0,
            1e308,
        ];
        if self.chance(0.5) {
            f64::from_bits(self.bits())
        } else {
            nasty[self.below(nasty.len())]
        }
    }
}

/// A robot of `joints` joints with limits drawn like those of arms, mobile bases and toys; every eighth a gripper.
pub(crate) fn robot(
    dice: &mut Dice,
    joints: usize,
    period_ns: u64,
) -> heapless::Vec<Joint, JOINTS_MAX> {
    let t = period_ns as f64 * 1e-9;
    (0..joints)
        .map(|index| {
            if index % 8 == 6 {
                let limits = JointLimits {
                    position_min: 0.0,
                    position_max: 1.0,
                    ..ARM
                };
                return Joint {
                    kind: JointKind::Gripper,
                    limits,
                };
            }
            let middle = dice.between(-3.0, 3.0);
            let half = dice.between(0.05, 3.0);
            let velocity_max = dice.between(0.1, 6.0);
            let acceleration_max = velocity_max * dice.between(0.4, 20.0);
            // From jerk that takes 0.3 s to reach full acceleration to jerk that does not bind at this rate.
            let ramp_s = 0.3 * dice.unit().powi(3) + 0.5 * t;
            let limits = JointLimits {
                position_min: middle - half,
                position_max: middle + half,
                velocity_max,
                acceleration_max,
                jerk_max: acceleration_max / ramp_s,
                tracking_error_max: 0.5,
                torque_max: f64::INFINITY,
            };
            Joint {
                kind: JointKind::Revolute,
                limits,
            }
        })
        .collect()
}

pub(crate) const ARM: JointLimits = JointLimits {
    position_min: -2.0,
    position_max: 2.0,
    velocity_max: 2.62,
    acceleration_max: 10.0,
    jerk_max: 500.0,
    tracking_error_max: 0.5,
    torque_max: f64::INFINITY,
};

/// How a joint's wish is drawn; kept for a while, so that joints get up to speed and near their limits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Play {
    /// A place, kept.
    Step(f64),
    /// Bang-bang: the full jerk of a joint that obeys every rate limit but knows no position limit.
    Bang(f64),
    /// A line at a speed.
    Ramp(f64),
    /// A sine: amplitude, ticks a radian.
    Sine(f64, f64),
    /// Small noise around the robot.
    Noise(f64),
    /// From one side to the other at each tick.
    Shake(f64),
    /// Any bit pattern.
    Bits,
}

#[derive(Clone)]
pub(crate) struct Adversary {
    pub(crate) dice: Dice,
    seed: u64,
    plays: [Play; JOINTS_MAX],
    /// Per joint: the wish that rate limits alone would allow.
    free: [(f64, f64, f64); JOINTS_MAX],
}

impl Adversary {
    pub(crate) fn new(seed: u64) -> Adversary {
        Adversary {
            dice: Dice::new(seed),
            seed,
            plays: [Play::Noise(0.0); JOINTS_MAX],
            free: [(0.0, 0.0, 0.0); JOINTS_MAX],
        }
    }

    pub(crate) fn play(&mut self, joint: &Joint, t: f64) -> Play {
        let l = &joint.limits;
        let dice = &mut self.dice;
        let reach = l.position_max - l.position_min;
        match dice.below(16) {
            0..3 => {
                Play::Step(dice.between(l.position_min - 0.3 * reach, l.position_max + 0.3 * reach))
            }
            3 => Play::Step(if dice.chance(0.5) {
                l.position_min
            } else {
                l.position_max
            }),
            4..8 => Play::Bang(if dice.chance(0.5) { 1.0 } else { -1.0 }),
            8..10 => Play::Ramp(dice.between(-1.2, 1.2) * l.velocity_max),
            10..12 => Play::Sine(reach * dice.unit(), 1.0 / (t * dice.between(0.2, 8.0))),
            12..14 => Play::Noise(reach * dice.unit().powi(6)),
            14 => Play::Shake(reach * dice.unit().powi(3)),
            _ => Play::Bits,
        }
    }

    /// A setpoint for this tick. `at`: what was last emitted.
    pub(crate) fn wish(&mut self, tick: u64, limits: &Limits, at: &Setpoint) -> Setpoint {
        let t = limits.period_s();
        let mut wish = *at;
        for (index, joint) in limits.joints.iter().enumerate() {
            if self.dice.chance(0.01) {
                self.plays[index] = self.play(joint, t);
            }
            let l = &joint.limits;
            let (q, v) = (at.position[index], at.velocity[index]);
            let free = &mut self.free[index];
            let dice = &mut self.dice;
            let to = match self.plays[index] {
                Play::Step(place) => place,
                Play::Bang(side) => {
                    // Starts anew where the governor did not follow.
                    if free.0 != q {
                        *free = (q, v, 0.0);
                    }
                    let a = (free.2 + side * l.jerk_max * t)
                        .clamp(-l.acceleration_max, l.acceleration_max);
                    let v = (free.1 + a * t).clamp(-l.velocity_max, l.velocity_max);
                    *free = (q + v * t, v, (v - free.1) / t);
                    free.0
                }
                Play::Ramp(speed) => q + speed * t,
                Play::Sine(amplitude, ticks) => {
                    0.5 * (l.position_min + l.position_max)
                        + amplitude * (tick as f64 / ticks).sin()
                }
                Play::Noise(size) => q + size * dice.between(-1.0, 1.0),
                Play::Shake(size) => q + if tick.is_multiple_of(2) { size } else { -size },
                // One such number refuses the whole setpoint: seldom enough that the others get to speed.
                Play::Bits if dice.chance(0.02) => dice.hostile(),
                Play::Bits => f64::from(dice.between(l.position_min, l.position_max) as f32),
            };
            wish.position[index] = to;
            wish.velocity[index] = match dice.below(4) {
                0 => 0.0,
                1 => dice.between(-2.0, 2.0) * l.velocity_max,
                _ => (to - q) / t,
            };
            if dice.chance(1e-4) {
                wish.velocity[index] = dice.hostile();
            }
        }
        wish
    }
}

/// Checks the emitted sequence by differences of positions, and keeps what it needs for that.
#[derive(Clone)]
pub(crate) struct Witness {
    q: [[f64; 3]; JOINTS_MAX],
    seen: u32,
    /// The arming it belongs to, and whether that was at rest.
    epoch: u32,
    at_rest: bool,
    /// Came in the middle of a motion: the first differences are of nothing.
    midway: bool,
    /// Largest share by which a rate exceeded its limit.
    pub(crate) worst: f64,
}

impl Witness {
    pub(crate) fn new() -> Witness {
        Witness {
            q: [[0.0; 3]; JOINTS_MAX],
            seen: 0,
            epoch: 0,
            at_rest: true,
            midway: false,
            worst: 0.0,
        }
    }

    /// One that comes in the middle of a motion.
    pub(crate) fn midway() -> Witness {
        Witness {
            midway: true,
            ..Witness::new()
        }
    }

    /// I1, I2.
    pub(crate) fn look(
        &mut self,
        out: &Output,
        limits: &[Joint],
        t: f64,
        say: &dyn Fn() -> String,
    ) {
        let command = out.command.get();
        assert_eq!(command.joints, limits.len());
        // An arming starts from rest at the measured pose, which need not be where an earlier one ended, at rest too:
        // the motor controller begins anew with each epoch.
        if !out.moving || out.epoch != self.epoch {
            assert!(
                !out.moving || self.seen == 0 || self.at_rest,
                "I2: from one arming into another in motion; {}",
                say()
            );
            self.seen = 0;
        }
        (self.epoch, self.at_rest) = (out.epoch, out.at_rest);
        for (index, joint) in limits.iter().enumerate() {
            let (q, v) = (command.position[index], command.velocity[index]);
            let l = &joint.limits;
            assert!(
                q.is_finite() && v.is_finite(),
                "I1: joint {index} {q} {v}; {}",
                say()
            );
            assert!(
                q >= l.position_min && q <= l.position_max,
                "I2: joint {index} at {q}; {}",
                say()
            );
            if joint.kind == JointKind::Gripper || !out.moving {
                continue;
            }
            // Before the first command the robot was at rest where that one is.
            let past = if self.seen == 0 {
                [q; 3]
            } else {
                self.q[index]
            };
            let rates = [
                (q - past[0]) / t,
                (past[0] - past[1]) / t,
                (past[1] - past[2]) / t,
            ];
            let a = [(rates[0] - rates[1]) / t, (rates[1] - rates[2]) / t];
            let jerk = (a[0] - a[1]) / t;
            self.q[index] = [q, past[0], past[1]];
            if self.midway && self.seen < 3 {
                continue;
            }
            let rows = [
                (rates[0], l.velocity_max),
                (a[0], l.acceleration_max),
                (jerk, l.jerk_max),
            ];
            for (name, (found, limit)) in ["velocity", "acceleration", "jerk"].iter().zip(rows) {
                self.worst = self.worst.max(found.abs() / limit - 1.0);
                let kept = found.abs() <= limit * (1.0 + shape::ROUNDING);
                assert!(
                    kept,
                    "I2: joint {index}: {name} {found:e}, limit {limit:e}, {:?}; {}",
                    out.verdict,
                    say()
                );
            }
            assert!(
                (v - rates[0]).abs() <= 1e-9 * l.velocity_max,
                "said {v}, moved {}; {} {:?} seen {} epoch {}",
                rates[0],
                say(),
                out.verdict,
                self.seen,
                out.epoch
            );
        }
        self.seen = if out.moving {
            self.seen.saturating_add(1)
        } else {
            0
        };
    }
}

/// One governor, one perfect robot, one adversary.
#[derive(Clone)]
pub(crate) struct Duel {
    pub(crate) governor: Governor,
    pub(crate) adversary: Adversary,
    pub(crate) witness: Witness,
    /// What it keeps to, if not the governor's own limits.
    pub(crate) witness_limits: Option<heapless::Vec<Joint, JOINTS_MAX>>,
    pub(crate) now: Mono,
    pub(crate) tick: u64,
    pub(crate) epoch: u32,
    pub(crate) hands: Hands,
    pub(crate) speed_scale: f64,
    pub(crate) state: JointState,
    pub(crate) counts: [u64; 3],
}

impl Duel {
    pub(crate) fn new(seed: u64, joints: usize, rate_hz: u64, coordination: Coordination) -> Duel {
        let mut adversary = Adversary::new(seed);
        let period_ns = 1_000_000_000 / rate_hz;
        let joints = robot(&mut adversary.dice, joints, period_ns);
        let mut limits = Limits::new(&joints, period_ns).expect("drawn limits are good");
        limits.coordination = coordination;
        if adversary.dice.chance(0.5) {
            limits.settling.window_ns = 0;
        }
        let mut state = JointState {
            joints: joints.len(),
            ..JointState::NEVER
        };
        for (q, joint) in state.position.iter_mut().zip(&joints) {
            *q = adversary
                .dice
                .between(joint.limits.position_min, joint.limits.position_max);
        }
        Duel {
            governor: Governor::new(limits).expect("drawn limits are good"),
            adversary,
            witness: Witness::new(),
            witness_limits: None,
            now: Mono(10_000 * MS),
            tick: 0,
            epoch: 1,
            hands: Hands::Policy,
            speed_scale: 1.0,
            state,
            counts: [0; 3],
        }
    }

    pub(crate) fn say(&self) -> String {
        format!("seed {}, tick {}", self.adversary.seed, self.tick)
    }

    /// A proposal made now.
    pub(crate) fn propose(&self, setpoint: Setpoint) -> Proposal {
        Proposal {
            made: self.now,
            step: Step::Setpoint {
                setpoint,
                provenance: Provenance::default(),
                action: 0,
            },
        }
    }

    /// What the adversary wants now.
    pub(crate) fn wish(&mut self) -> Setpoint {
        let at = self.governor.motion.setpoint();
        self.adversary.wish(self.tick, &self.governor.limits, &at)
    }

    /// Comes to rest, and is armed again if something latched; the next setpoint is followed.
    pub(crate) fn rest(&mut self) {
        while !self.tick(None, |_| {}).at_rest {}
        self.epoch = self
            .epoch
            .wrapping_add(u32::from(self.governor.latched.is_some()));
        self.tick(None, |_| {});
    }

    /// A second world that is the same as this one so far.
    pub(crate) fn clone_at_now(&self) -> Duel {
        self.clone()
    }

    /// The world as it should be.
    pub(crate) fn input<'a>(
        &self,
        proposal: Option<&'a Proposal>,
        state: &'a JointState,
    ) -> Input<'a> {
        Input {
            proposal,
            state: Freshness::Fresh(state),
            permission: Permission::Armed(Armed::for_test(
                self.epoch,
                self.hands,
                self.now.plus_ns(40 * MS),
            )),
            hold: None,
            emergency_stop: false,
            speed_scale: self.speed_scale,
            emergency_line: EmergencyLine::NotFitted,
            deadman: Deadman::NotFitted,
        }
    }

    /// One tick, checked (I1, I2, I3, I4, I18), and the robot follows. `change` may spoil the input.
    pub(crate) fn tick(
        &mut self,
        proposal: Option<&Proposal>,
        change: impl FnOnce(&mut Input<'_>),
    ) -> Output {
        self.state.measured = self.now;
        self.state.received = self.now;
        self.tick_with(&self.state.clone(), proposal, change)
    }

    /// The same with another joint state than the robot's.
    pub(crate) fn tick_with(
        &mut self,
        state: &JointState,
        proposal: Option<&Proposal>,
        change: impl FnOnce(&mut Input<'_>),
    ) -> Output {
        let mut input = self.input(proposal, state);
        change(&mut input);
        let before = self.governor.motion.clone();
        let out = self.governor.step(self.now, &input);
        let say = || format!("seed {}, tick {}", self.adversary.seed, self.tick);
        let limits = self.governor.limits();
        let n = limits.joints.len();
        assert_eq!(
            self.governor.motion.unstoppable(),
            None,
            "I3: {:?} before {before:?} {}",
            out.verdict,
            say()
        );
        let kept = self.witness_limits.as_ref().unwrap_or(&limits.joints);
        self.witness.look(&out, kept, limits.period_s(), &say);
        match out.verdict {
            Verdict::Passed => {
                let Some(Proposal {
                    step: Step::Setpoint { setpoint, .. },
                    ..
                }) = proposal
                else {
                    panic!("{}", say())
                };
                let same = out
                    .command
                    .get()
                    .position
                    .iter()
                    .zip(&setpoint.position)
                    .take(n);
                assert!(
                    same.into_iter()
                        .all(|(q, wish)| q.to_bits() == wish.to_bits()),
                    "I4, I18: {}",
                    say()
                );
                self.counts[0] += 1;
            }
            Verdict::Shaped(_) => {
                assert!(out.moving, "shaped while not moving: {}", say());
                self.counts[1] += 1;
            }
            Verdict::Held(_) => self.counts[2] += 1,
        }
        assert_eq!(
            out.reaction == Reaction::Follow,
            !matches!(out.verdict, Verdict::Held(_)),
            "I18: {}",
            say()
        );
        if out.moving {
            self.state.position = out.command.get().position;
            self.state.velocity = out.command.get().velocity;
        }
        self.now = self.now.plus_ns(self.governor.limits().period_ns);
        self.tick += 1;
        out
    }

    /// One tick of the adversary: wishes, faults, gaps.
    pub(crate) fn round(&mut self) -> Output {
        let wish = self.wish();
        let dice = &mut self.adversary.dice;
        let mut proposal = Proposal {
            made: self.now,
            step: Step::Setpoint {
                setpoint: wish,
                provenance: Provenance::default(),
                action: 0,
            },
        };
        if let Step::Setpoint { setpoint, .. } = &mut proposal.step
            && dice.chance(5e-4)
        {
            setpoint.joints = dice.below(JOINTS_MAX + 2);
        }
        if dice.chance(1e-3) {
            proposal.made = Mono(dice.bits());
        }
        if dice.chance(1e-3) {
            self.speed_scale = if dice.chance(0.3) {
                dice.hostile()
            } else {
                dice.unit()
            };
        } else if dice.chance(2e-3) {
            self.speed_scale = 1.0;
        }
        if dice.chance(3e-4) {
            self.hands = if self.hands == Hands::Policy {
                Hands::Person
            } else {
                Hands::Policy
            };
        }
        // Late ticks, repeated ticks, a clock that goes back.
        let gap = dice.below(2_000);
        let odd_now = match gap {
            0 => Mono(self.now.0 + dice.bits() % (2_000 * MS)),
            1 => self.now.minus_ns(dice.bits() % (50 * MS)),
            2 => self.now.minus_ns(self.governor.limits.period_ns),
            _ => self.now,
        };
        if gap < 3 {
            self.now = odd_now;
            proposal.made = odd_now;
        }
        let fault = dice.below(3_000);
        let silent = dice.chance(2e-3);
        let nan = dice.hostile();
        let mut state = self.state;
        (state.measured, state.received) = (self.now, self.now);
        match fault {
            6 => state.position[0] = nan,
            7 => state.velocity[0] = nan,
            8 => state.joints = dice.below(JOINTS_MAX + 2),
            _ => {}
        }
        let old = Freshness::Stale {
            age_ns: self.governor.limits.state_age_max_ns + 1,
        };
        let proposal = (!silent).then_some(&proposal);
        let out = self.tick_with(&state, proposal, |input| match fault {
            0 => input.state = old,
            1 => input.permission = Permission::None,
            2 => input.deadman = Deadman::Released,
            3 => input.emergency_line = EmergencyLine::Open,
            4 => input.hold = Some(Cause::CameraLost),
            5 => input.emergency_stop = true,
            _ => {}
        });
        // A latched robot that has come to rest is armed again.
        let latched = self.governor.latched.is_some();
        if latched && out.at_rest {
            self.epoch = self.epoch.wrapping_add(1).max(1);
        }
        out
    }
}
