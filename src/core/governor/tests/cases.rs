// SPDX-License-Identifier: Apache-2.0
//! Stories of one governor, told through one rig.

use super::*;
use crate::core::action::JointKind;
use crate::core::governor::limits::{Coordination, Joint, JointLimits};
use crate::core::governor::stop::Brake;
use crate::core::supervisor::Armed;
use crate::core::units::MS;

/// Brakes of arms that exist, and of arms that should not: (velocity, acceleration, jerk, period).
const BRAKES: [(f64, f64, f64, f64); 7] = [
    (2.62, 10.0, 5000.0, 0.001),
    (2.62, 10.0, 5000.0, 0.005),
    (2.62, 10.0, 50.0, 0.005),
    (0.5, 0.3, 0.7, 0.005),
    (3.0, 100.0, 100.0, 0.01),
    (10.0, 3.0, 1e5, 0.02),
    (1.0, 1e3, 30.0, 0.001),
];

fn xorshift(state: &mut u64) -> f64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as f64 / (1u64 << 53) as f64
}

#[test]
fn a_stop_arrives_exactly_and_where_the_closed_form_says() {
    let mut seed = 0x1234_5678_9abc_def0;
    for (v_max, a_max, j_max, t) in BRAKES {
        let brake = Brake::new(a_max, j_max, t);
        for _ in 0..rounds(3_000) {
            let v0 = (2.0 * xorshift(&mut seed) - 1.0) * v_max;
            let a0 = (2.0 * xorshift(&mut seed) - 1.0) * a_max;
            let rest = brake.rest(v0, a0);
            let (mut q, mut v, mut a) = (0.0_f64, v0, a0);
            let (mut low, mut high, mut v_high) = (0.0_f64, 0.0_f64, v0.abs());
            let mut ticks = 0u32;
            let mut reversals = 0;
            while v != 0.0 || a != 0.0 {
                let next_a = brake.next(v, a);
                let next_v = brake.after(v, next_a);
                let step_max = j_max * t * (1.0 + 1e-12) + a_max * f64::EPSILON;
                assert!(
                    next_a.abs() <= a_max && (next_a - a).abs() <= step_max,
                    "jerk from {v0} {a0}"
                );
                if next_v * v < 0.0
                    && next_v.abs() > 1e-12 * (v_high + a_max * t * f64::from(ticks))
                {
                    reversals += 1;
                }
                (v, a) = (next_v, next_a);
                q += v * t;
                (low, high, v_high) = (low.min(q), high.max(q), v_high.max(v.abs()));
                ticks += 1;
                assert!(ticks < 200_000, "never at rest from {v0} {a0}");
            }
            let scale = 1e-12 * (1.0 + q.abs() + v_high) * f64::from(ticks.max(1));
            assert!(
                (q - rest.end).abs() <= scale,
                "{v_max} {a_max} {j_max} {t}: from {v0} {a0}: ended at {q}, said {}",
                rest.end
            );
            let (said_low, said_high) = (
                rest.end.min(rest.turn).min(0.0),
                rest.end.max(rest.turn).max(0.0),
            );
            assert!(
                (low - said_low).abs() <= scale && (high - said_high).abs() <= scale,
                "{v_max} {a_max} {j_max} {t}: from {v0} {a0}: spans {low}..{high}, said {rest:?}"
            );
            assert!(
                (f64::from(ticks) - rest.ticks).abs() <= 2.0,
                "{ticks} ticks, said {}",
                rest.ticks
            );
            assert!(
                (v_high - v0.abs().max(rest.coast.abs())).abs() <= scale,
                "{v_high} {rest:?}"
            );
            assert!(
                reversals <= 1 && (reversals == 0 || rest.coast * v0 < 0.0),
                "{v_max} {a_max} {j_max} {t}: {reversals} reversals from {v0} {a0}, {rest:?}"
            );
        }
    }
}

/// The last command, its slope and the change of that: as many as there are yet.
type Differences = (Setpoint, Option<(Setpoint, Option<Setpoint>)>);

/// A governor with a perfect robot, stepped in simulated time; every emitted difference is checked at each tick.
struct Rig {
    governor: Governor,
    now: Mono,
    /// The last two emitted positions and the slope between them, of the joints in motion.
    before: Option<Differences>,
    state: JointState,
    epoch: u32,
    hands: Hands,
    speed_scale: f64,
    hold: Option<Cause>,
    line: EmergencyLine,
    deadman: Deadman,
}

const JOINT: Joint = Joint {
    kind: JointKind::Revolute,
    limits: JointLimits {
        position_min: -2.0,
        position_max: 2.0,
        velocity_max: 2.62,
        acceleration_max: 10.0,
        jerk_max: 500.0,
        tracking_error_max: 0.2,
        torque_max: f64::INFINITY,
    },
};
const PERIOD_NS: u64 = 5 * MS;
const T: f64 = 0.005;

fn limits(joints: &[Joint], coordination: Coordination) -> Limits {
    let mut limits = Limits::new(joints, PERIOD_NS).expect("good limits");
    limits.coordination = coordination;
    limits.settling.window_ns = 0;
    limits
}

impl Rig {
    fn new(limits: Limits, pose: &[f64]) -> Rig {
        let joints = limits.joints.len();
        let mut state = JointState {
            joints,
            ..JointState::NEVER
        };
        state.position[..joints].copy_from_slice(pose);
        let governor = Governor::new(limits).expect("good limits");
        Rig {
            governor,
            now: Mono(1_000 * MS),
            before: None,
            state,
            epoch: 9,
            hands: Hands::Policy,
            speed_scale: 1.0,
            hold: None,
            line: EmergencyLine::NotFitted,
            deadman: Deadman::NotFitted,
        }
    }

    fn one(pose: f64) -> Rig {
        Rig::new(limits(&[JOINT], Coordination::Independent), &[pose])
    }

    fn input<'a>(&self, proposal: Option<&'a Proposal>, state: &'a JointState) -> Input<'a> {
        let until = self.now.plus_ns(40 * MS);
        let armed = Armed::for_test(self.epoch, self.hands, until);
        Input {
            proposal,
            state: Freshness::Fresh(state),
            permission: if self.epoch == 0 {
                Permission::None
            } else {
                Permission::Armed(armed)
            },
            hold: self.hold,
            emergency_stop: false,
            speed_scale: self.speed_scale,
            emergency_line: self.line,
            deadman: self.deadman,
        }
    }

    /// One tick with a proposal, or silence.
    #[track_caller]
    fn tick(&mut self, wish: Option<Setpoint>) -> Output {
        let proposal = wish.map(|setpoint| Proposal {
            made: self.now,
            step: Step::Setpoint {
                setpoint,
                provenance: Provenance::default(),
                action: 0,
            },
        });
        self.state.measured = self.now;
        self.state.received = self.now;
        let state = self.state;
        let input = self.input(proposal.as_ref(), &state);
        let out = self.governor.step(self.now, &input);
        self.check(&out);
        if out.moving {
            self.state.position = out.command.get().position;
            self.state.velocity = out.command.get().velocity;
        }
        self.now = self.now.plus_ns(self.governor.limits().period_ns);
        out
    }

    #[track_caller]
    fn to(&mut self, positions: &[f64]) -> Output {
        self.tick(Some(Setpoint::at_rest(positions)))
    }

    #[track_caller]
    fn silent(&mut self) -> Output {
        self.tick(None)
    }

    /// Every difference of emitted positions against its limit.
    #[track_caller]
    fn check(&mut self, out: &Output) {
        let command = *out.command.get();
        if !out.moving {
            self.before = None;
            return;
        }
        let t = self.governor.limits().period_s();
        let zero = Setpoint::at_rest(&vec![0.0; command.joints]);
        let (last, (v_last, a_last)) = match self.before {
            None => (command, (zero, zero)),
            Some((last, None)) => (last, (zero, zero)),
            Some((last, Some((v, a)))) => (last, (v, a.unwrap_or(zero))),
        };
        let (mut v, mut a) = (zero, zero);
        for (i, joint) in self.governor.limits().joints.iter().enumerate() {
            let l = joint.limits;
            let q = command.position[i];
            assert!(
                q >= l.position_min && q <= l.position_max,
                "joint {i} at {q}"
            );
            if joint.kind == JointKind::Gripper {
                continue;
            }
            v.position[i] = (q - last.position[i]) / t;
            a.position[i] = (v.position[i] - v_last.position[i]) / t;
            let j = (a.position[i] - a_last.position[i]) / t;
            let rows = [
                ("velocity", v.position[i], l.velocity_max),
                ("acceleration", a.position[i], l.acceleration_max),
                ("jerk", j, l.jerk_max),
            ];
            for (name, found, limit) in rows {
                assert!(
                    found.abs() <= limit * (1.0 + shape::ROUNDING),
                    "joint {i}: {name} {found}, limit {limit}, {:?}",
                    out.verdict
                );
            }
            let said = command.velocity[i];
            assert!(
                (said - v.position[i]).abs() <= 1e-9 * l.velocity_max,
                "joint {i}: said {said}, moved {}",
                v.position[i]
            );
        }
        self.before = Some((command, Some((v, Some(a)))));
    }
}

#[test]
fn it_says_which_limits_are_in_force() {
    let limits = Limits::new(&[JOINT], PERIOD_NS).expect("good limits");
    let mut rig = Rig::new(limits, &[0.0]);
    let first = rig.to(&[0.0]).in_force;
    assert_eq!(
        (first.velocity, first.acceleration),
        (0.25, 0.5),
        "settling"
    );
    let settled = (0..210).map(|_| rig.to(&[0.0]).in_force).last();
    let settled = settled.expect("many");
    assert_eq!((settled.velocity, settled.acceleration), (1.0, 1.0));
    rig.speed_scale = 0.4;
    let slowed = rig.to(&[0.0]).in_force;
    assert_eq!((slowed.velocity, slowed.acceleration), (0.4, 1.0));
}

#[test]
fn a_step_of_two_radians_never_passes_the_limit() {
    // A rate limiter without a stop in mind (libfranka's) overshoots here by 0.345 rad.
    let mut rig = Rig::one(0.0);
    rig.silent();
    let mut furthest = 0.0_f64;
    let mut ticks = 0;
    while furthest < 2.0 {
        furthest = furthest.max(rig.to(&[2.0]).command.get().position[0]);
        ticks += 1;
        assert!(ticks < 250, "at {furthest} after {ticks} ticks");
    }
}

#[test]
fn a_moving_setpoint_is_caught_up_with_and_then_passes_bit_for_bit() {
    let mut rig = Rig::one(0.0);
    rig.silent();
    let mut passed = 0;
    for tick in 0..400 {
        let mut wish = Setpoint::at_rest(&[-1.0 + 0.7 * f64::from(tick) * T]);
        wish.velocity[0] = 0.7;
        let out = rig.tick(Some(wish));
        if out.verdict == Verdict::Passed {
            passed += 1;
            assert_eq!(
                out.command.get().position[0].to_bits(),
                wish.position[0].to_bits()
            );
        }
    }
    assert!(passed > 180, "{passed} ticks of 400 passed");
}

/// I4.
#[test]
fn a_legal_motion_passes_bit_for_bit() {
    let mut rig = Rig::one(0.0);
    rig.silent();
    for tick in 0..2_000 {
        let wish = 0.5 * (1.0 - (f64::from(tick) * T * 2.0).cos());
        let out = rig.to(&[wish]);
        assert_eq!(out.verdict, Verdict::Passed, "tick {tick}");
        assert_eq!(out.command.get().position[0].to_bits(), wish.to_bits());
    }
}

/// I1, I2.
#[test]
fn hostile_setpoints_keep_every_limit() {
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    for (v_max, a_max, j_max, t) in BRAKES {
        let joint = Joint {
            kind: JointKind::Revolute,
            limits: JointLimits {
                velocity_max: v_max,
                acceleration_max: a_max,
                jerk_max: j_max,
                ..JOINT.limits
            },
        };
        let mut of = Limits::new(&[joint], (t * 1e9) as u64).expect("good");
        of.settling.window_ns = 0;
        of.coordination = Coordination::Independent;
        let mut rig = Rig::new(of, &[0.3]);
        rig.silent();
        let mut shaped = 0;
        for _ in 0..rounds(100_000) {
            let kind = xorshift(&mut seed);
            let wish = if kind < 0.3 {
                6.0 * xorshift(&mut seed) - 3.0
            } else if kind < 0.6 {
                rig.state.position[0] + (xorshift(&mut seed) - 0.5) * 1e-3
            } else if kind < 0.8 {
                f64::from_bits((xorshift(&mut seed) * 1.8e19) as u64)
            } else {
                2.0_f64.copysign(xorshift(&mut seed) - 0.5)
            };
            let mut setpoint = Setpoint::at_rest(&[wish]);
            setpoint.velocity[0] = (xorshift(&mut seed) - 0.5) * 8.0;
            let out = if xorshift(&mut seed) < 0.02 {
                rig.silent()
            } else {
                rig.tick(Some(setpoint))
            };
            if matches!(out.verdict, Verdict::Shaped(_)) {
                shaped += 1;
            }
        }
        assert!(shaped > 0, "{v_max} {a_max} {j_max} {t}: nothing to shape");
    }
}

fn joint(velocity_max: f64, acceleration_max: f64, jerk_max: f64) -> Joint {
    Joint {
        kind: JointKind::Revolute,
        limits: JointLimits {
            velocity_max,
            acceleration_max,
            jerk_max,
            ..JOINT.limits
        },
    }
}

#[test]
fn synchronised_joints_stay_on_the_line() {
    let joints = [
        joint(1.0, 10.0, 100.0),
        joint(2.0, 3.0, 500.0),
        joint(0.5, 5.0, 20.0),
    ];
    let mut rig = Rig::new(
        limits(&joints, Coordination::Synchronised),
        &[0.0, 0.5, -1.0],
    );
    rig.silent();
    let (from, to) = ([0.0, 0.5, -1.0], [0.6, -1.2, -0.2]);
    let mut ticks = 0;
    loop {
        let out = rig.to(&to);
        let q = out.command.get().position;
        let share = (q[0] - from[0]) / (to[0] - from[0]);
        for i in 0..3 {
            let on_line = from[i] + share * (to[i] - from[i]);
            assert!(
                (q[i] - on_line).abs() < 1e-9,
                "tick {ticks}: joint {i} is {} off the line",
                q[i] - on_line
            );
        }
        ticks += 1;
        if q[..3] == to {
            break;
        }
        assert!(ticks < 1000, "at {q:?}");
    }
}

/// Follows a curve of three joints at `speed`; returns how many of 2000 ticks passed, and the furthest distance.
fn curve(coordination: Coordination, speed: f64) -> (u32, f64) {
    let joints = [
        joint(1.0, 10.0, 100.0),
        joint(2.0, 3.0, 500.0),
        joint(0.5, 5.0, 200.0),
    ];
    let mut rig = Rig::new(limits(&joints, coordination), &[0.0, 0.5, 0.0]);
    rig.silent();
    let at = |tick: i32| {
        let x = f64::from(tick) * T * speed;
        [0.5 * x.sin(), 0.5 * x.cos(), 0.2 * (2.0 * x).sin()]
    };
    let (mut passed, mut furthest) = (0, 0.0_f64);
    for tick in 0..2000 {
        let mut wish = Setpoint::at_rest(&at(tick));
        for (i, v) in wish.velocity.iter_mut().enumerate().take(3) {
            *v = (at(tick)[i] - at(tick - 1)[i]) / T;
        }
        let out = rig.tick(Some(wish));
        passed += u32::from(out.verdict == Verdict::Passed);
        let pairs = out.command.get().position.iter().zip(&wish.position);
        furthest = furthest.max(pairs.map(|(q, wish)| (q - wish).abs()).fold(0.0, f64::max));
    }
    (passed, furthest)
}

#[test]
fn a_curve_within_limits_is_joined_and_then_passes() {
    // From rest, with the setpoints already moving, at 200 Hz: joined within 0.75 s. Joints that wait for one another
    // are as near as soon, but take longer to close the last micrometres, by which a step still exceeds the jerk limit.
    for (coordination, ticks) in [
        (Coordination::Independent, 150),
        (Coordination::Synchronised, 280),
    ] {
        let (passed, furthest) = curve(coordination, 1.0);
        assert!(
            passed > 2000 - ticks && furthest < 0.04,
            "{coordination:?}: {passed} {furthest}"
        );
    }
}

#[test]
fn a_curve_beyond_limits_is_pursued_without_swinging_out() {
    for coordination in [Coordination::Independent, Coordination::Synchronised] {
        let (_, furthest) = curve(coordination, 2.0);
        assert!(furthest < 0.6, "{coordination:?}: {furthest}");
        let (_, furthest) = curve(coordination, 4.0);
        assert!(furthest < 1.0, "{coordination:?}: {furthest}");
    }
}

/// Ticks until a measured torque ends the motion, and why; `None` if it does not within a second.
fn overloaded(torque_nm: f64, on: impl Fn(u32) -> bool) -> Option<(u32, Cause)> {
    let mut strong = JOINT;
    strong.limits.torque_max = 20.0;
    let mut rig = Rig::new(
        limits(&[strong, JOINT], Coordination::Independent),
        &[0.0, 0.0],
    );
    rig.state.torques = true;
    rig.silent();
    for tick in 0..200 {
        rig.state.torque.fill(0.0);
        rig.state.torque[0] = if on(tick) { torque_nm } else { 0.0 };
        // Not limited, and so not watched.
        rig.state.torque[1] = 1e6;
        if let Verdict::Held(cause) = rig.to(&[0.5, 0.0]).verdict {
            return Some((tick, cause));
        }
    }
    None
}

/// I2, for torques, which are measured: a limit that is passed ends the motion.
#[test]
fn a_torque_above_its_limit_stops_when_it_lasts() {
    assert_eq!(overloaded(20.0, |_| true), None, "on the limit");
    for torque_nm in [20.1, -20.1, f64::MAX] {
        let (tick, cause) = overloaded(torque_nm, |tick| tick >= 30).expect("it lasts");
        assert_eq!((tick, cause), (40, Cause::Overload), "50 ms after it began");
    }
    let spikes = |tick: u32| !tick.is_multiple_of(10);
    assert_eq!(overloaded(30.0, spikes), None, "never for 50 ms");
    assert_eq!(
        overloaded(f64::NAN, |tick| tick >= 30),
        Some((30, Cause::StateNotFinite))
    );
}

#[test]
fn a_limited_torque_that_is_not_measured_is_a_state_that_cannot_be_used() {
    let mut strong = JOINT;
    strong.limits.torque_max = 20.0;
    let mut rig = Rig::new(limits(&[strong], Coordination::Independent), &[0.0]);
    assert_eq!(rig.to(&[0.5]).verdict, Verdict::Held(Cause::StateDimension));
}
