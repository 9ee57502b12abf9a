// SPDX-License-Identifier: Apache-2.0
//! One tick, one reason: what the governor decides at the edge of each rule, and not one step beside it.

use super::*;
use crate::core::action::JointKind;
use crate::core::governor::limits::{Coordination, Joint, JointLimits};
use crate::core::governor::reaction::{CAUSES, Reactions};
use crate::core::units::MS;

const PERIOD_NS: u64 = 5 * MS;
const T: f64 = 0.005;
const JOINT: Joint = Joint {
    kind: JointKind::Revolute,
    limits: JointLimits {
        position_min: -2.0,
        position_max: 2.0,
        velocity_max: 2.0,
        acceleration_max: 10.0,
        jerk_max: 500.0,
        tracking_error_max: 0.2,
        torque_max: f64::INFINITY,
    },
};

fn limits() -> Limits {
    let mut limits = Limits::new(&[JOINT, JOINT], PERIOD_NS).expect("good limits");
    limits.coordination = Coordination::Independent;
    limits.settling.window_ns = 0;
    limits
}

/// A governor of two joints and a robot that stands where it was told to.
struct One {
    governor: Governor,
    now: Mono,
    epoch: u32,
    hands: Hands,
    state: JointState,
}

impl One {
    fn new(limits: Limits) -> One {
        let mut state = JointState {
            joints: 2,
            ..JointState::NEVER
        };
        state.position[..2].copy_from_slice(&[0.1, -0.2]);
        One {
            governor: Governor::new(limits).expect("good limits"),
            now: Mono(1_000 * MS),
            epoch: 9,
            hands: Hands::Policy,
            state,
        }
    }

    /// One that has taken the pose over.
    fn seated(limits: Limits) -> One {
        let mut one = One::new(limits);
        let out = one.tick(None, |_| {});
        assert!(out.moving && out.at_rest && out.epoch == 9);
        one
    }

    fn armed(&self, epoch: u32, until: Mono) -> Permission {
        Permission::Armed(Armed::for_test(epoch, self.hands, until))
    }

    fn tick(&mut self, wish: Option<[f64; 2]>, change: impl FnOnce(&mut Input<'_>)) -> Output {
        let proposal = wish.map(|wish| Proposal {
            made: self.now,
            step: Step::Setpoint {
                setpoint: Setpoint::at_rest(&wish),
                provenance: Provenance::default(),
                action: 3,
            },
        });
        let state = JointState {
            measured: self.now,
            received: self.now,
            ..self.state
        };
        let mut input = Input {
            proposal: proposal.as_ref(),
            state: Freshness::Fresh(&state),
            permission: self.armed(self.epoch, self.now.plus_ns(40 * MS)),
            hold: None,
            emergency_stop: false,
            speed_scale: 1.0,
            emergency_line: EmergencyLine::NotFitted,
            deadman: Deadman::NotFitted,
        };
        change(&mut input);
        let out = self.governor.step(self.now, &input);
        if out.moving {
            self.state.position = out.command.get().position;
            self.state.velocity = out.command.get().velocity;
        }
        self.now = self.now.plus_ns(PERIOD_NS);
        out
    }

    /// To `wish`, at full speed.
    fn go(&mut self, wish: [f64; 2]) -> Output {
        self.tick(Some(wish), |_| {})
    }

    fn at(&self) -> [f64; 2] {
        let at = self.governor.motion.setpoint().position;
        [at[0], at[1]]
    }

    /// Highest speed and acceleration of the first joint in `ticks` ticks towards `to`.
    fn fastest(&mut self, to: f64, ticks: u64) -> (f64, f64) {
        let (mut v_last, mut v_most, mut a_most) = (self.state.velocity[0], 0.0_f64, 0.0_f64);
        for _ in 0..ticks {
            let v = self.go([to, -0.2]).command.get().velocity[0];
            v_most = v_most.max(v.abs());
            a_most = a_most.max((v - v_last).abs() / T);
            v_last = v;
        }
        (v_most, a_most)
    }
}

#[test]
fn verdicts_have_their_codes() {
    assert_eq!(Verdict::Passed.code(), 0);
    for (limit, code) in [
        (Limit::Position, 1),
        (Limit::Velocity, 2),
        (Limit::Acceleration, 3),
        (Limit::Jerk, 4),
        (Limit::StopDistance, 5),
    ] {
        assert_eq!(Verdict::Shaped(limit).code(), code);
    }
    for cause in CAUSES {
        assert_eq!(Verdict::Held(cause).code(), 16 + cause as u8);
    }
}

/// I6: the promise.
#[test]
fn the_longest_stop_is_promised_and_kept_without_much_to_spare() {
    let mut of = limits();
    of.settling.acceleration = 1.0;
    let mut one = One::seated(of.clone());
    for _ in 0..100 {
        one.go([2.0, 2.0]);
    }
    let promised = one.governor.motion.stop_ticks_max();
    let mut ticks = 0_u32;
    while !one.tick(None, |_| {}).at_rest {
        ticks += 1;
    }
    // Full speed, or nearly, was reached: v/a + a/j = 0.22 s.
    assert!((35..=45).contains(&ticks), "{ticks}");
    let (least, most) = (f64::from(ticks), f64::from(ticks + 16));
    assert!(
        (least..=most).contains(&promised),
        "{promised} for {ticks} ticks"
    );
    let mut waits = of;
    waits.coordination = Coordination::Synchronised;
    let twice = Governor::new(waits).expect("good").motion.stop_ticks_max();
    assert_eq!(twice, 2.0 * promised, "joints that wait for one another");
}

#[test]
fn a_permission_counts_until_it_ends_and_no_longer() {
    let mut one = One::new(limits());
    let now = one.now;
    let ended = one.armed(9, now.minus_ns(1));
    let out = one.tick(Some([0.1, -0.2]), |input| input.permission = ended);
    assert_eq!(
        (out.moving, out.verdict),
        (false, Verdict::Held(Cause::PermissionExpired))
    );
    let now = one.now;
    let ends_now = one.armed(9, now);
    let out = one.tick(Some([0.1, -0.2]), |input| input.permission = ends_now);
    assert!(out.moving);
    // While seated, too; and it stops being seated only at rest.
    for _ in 0..20 {
        one.go([1.0, -0.2]);
    }
    let ended = one.armed(9, one.now.minus_ns(1));
    let out = one.tick(Some([1.0, -0.2]), |input| input.permission = ended);
    assert_eq!(
        (out.moving, out.at_rest, out.verdict),
        (true, false, Verdict::Held(Cause::PermissionExpired))
    );
}

#[test]
fn the_pose_is_taken_over_once_an_arming() {
    let mut one = One::seated(limits());
    // The robot sags by less than the tracking error; the command stays where it was.
    let out = one.go([0.1, -0.2]);
    assert_eq!(out.verdict, Verdict::Passed);
    one.state.position[0] -= 0.05;
    let out = one.go([0.1, -0.2]);
    assert_eq!(
        (out.verdict, one.at()),
        (Verdict::Passed, [0.1, -0.2]),
        "not seated again"
    );
    // Silence at rest is no new arming either.
    one.state.position[0] -= 0.05;
    one.tick(None, |_| {});
    assert_eq!(one.at(), [0.1, -0.2]);
    // Another arming is: from where the robot is, and the first command is that.
    one.state.position[0] = 0.03;
    one.epoch = 10;
    let out = one.go([0.1, -0.2]);
    assert_eq!(
        (out.epoch, out.verdict, one.at()),
        (10, Verdict::Held(Cause::Standby), [0.03, -0.2])
    );
    assert_eq!(one.go([0.03, -0.2]).verdict, Verdict::Passed);
}

#[test]
fn another_arming_in_motion_waits_for_rest() {
    let mut one = One::seated(limits());
    for _ in 0..30 {
        one.go([1.0, -0.2]);
    }
    one.epoch = 10;
    let out = one.go([1.0, -0.2]);
    assert_eq!(
        (out.epoch, out.verdict),
        (9, Verdict::Held(Cause::Standby)),
        "not its arming"
    );
    let mut ticks = 0;
    while one.go([1.0, -0.2]).epoch == 9 {
        ticks += 1;
        assert!(ticks < 100);
    }
    assert!(ticks > 5, "{ticks}");
}

/// I14.
#[test]
fn an_arming_that_was_latched_is_not_seated_again() {
    let mut one = One::seated(limits());
    let out = one.tick(Some([0.1, -0.2]), |input| {
        input.emergency_line = EmergencyLine::Open;
    });
    assert_eq!(out.verdict, Verdict::Held(Cause::EmergencyLine));
    // Its cause is remembered while it is offered, whether it moves or not, and forgotten with it.
    assert_eq!(
        one.go([0.1, -0.2]).verdict,
        Verdict::Held(Cause::EmergencyLine)
    );
    let out = one.tick(Some([0.1, -0.2]), |input| {
        input.permission = Permission::None;
    });
    assert_eq!(
        out.verdict,
        Verdict::Held(Cause::EmergencyLine),
        "still seated in this tick"
    );
    let out = one.tick(None, |input| input.permission = Permission::None);
    assert_eq!(
        (out.moving, out.verdict),
        (false, Verdict::Held(Cause::Standby))
    );
    let out = one.go([0.1, -0.2]);
    assert_eq!(
        (out.moving, out.verdict),
        (false, Verdict::Held(Cause::EmergencyLine)),
        "offered again"
    );
    one.epoch = 10;
    assert!(one.go([0.1, -0.2]).moving);
    assert_eq!(one.go([0.1, -0.2]).verdict, Verdict::Passed);
}

/// Only a seated governor has given commands that a robot could fail to follow.
#[test]
fn tracking_is_watched_while_seated_and_not_before() {
    let mut one = One::new(limits());
    let unarmed = |input: &mut Input<'_>| input.permission = Permission::None;
    for place in [0.0, 1.5, -1.5, 0.1] {
        one.state.position[0] = place;
        for _ in 0..20 {
            let out = one.tick(None, unarmed);
            assert_eq!(out.verdict, Verdict::Held(Cause::Standby), "{place}");
        }
    }
    let mut one = One::seated(limits());
    let mut held = None;
    for tick in 0..20 {
        one.state.position[0] = 0.1 - 0.21;
        let out = one.tick(Some([0.1, -0.2]), |_| {});
        if let Verdict::Held(cause) = out.verdict {
            held = held.or(Some((tick, cause)));
        }
    }
    // 50 ms after it was first seen.
    assert_eq!(held, Some((10, Cause::TrackingError)));
}

#[test]
fn two_missed_ticks_are_forgiven_and_three_are_not() {
    let pause = |missed: u32| {
        let mut one = One::seated(limits());
        for _ in 0..30 {
            one.go([1.0, -0.2]);
        }
        for _ in 0..missed {
            assert!(!one.tick(None, |_| {}).at_rest);
        }
        let mut held = 0;
        while let Verdict::Held(cause) = one.go([1.0, -0.2]).verdict {
            assert_eq!(cause, Cause::ProposalLate);
            held += 1;
            assert!(held < 100);
        }
        held
    };
    assert_eq!((pause(1), pause(2)), (0, 0));
    assert!(pause(3) > 5, "comes to rest first");
    // Each gap is counted by itself.
    let mut one = One::seated(limits());
    for _ in 0..30 {
        one.go([1.0, -0.2]);
    }
    for _ in 0..4 {
        one.tick(None, |_| {});
        one.tick(None, |_| {});
        let out = one.go([1.0, -0.2]);
        assert!(
            !matches!(out.verdict, Verdict::Held(_)),
            "{:?}",
            out.verdict
        );
    }
}

#[test]
fn the_worse_latch_is_remembered_and_the_first_of_equals() {
    let latches = |first: Cause, second: Cause| {
        let mut one = One::seated(limits());
        one.tick(None, |input| input.hold = Some(first));
        one.tick(None, |input| input.hold = Some(second));
        one.governor.latched
    };
    let (mild, hard) = (Cause::StopRequested, Cause::EmergencyStop);
    assert_eq!(latches(mild, hard), Some((hard, 9)));
    assert_eq!(latches(hard, mild), Some((hard, 9)));
    // Among equals the first: it is why the robot stands.
    let (one, other) = (Cause::EchoLost, Cause::ThreadLate);
    assert_eq!(latches(one, other), Some((one, 9)));
    assert_eq!(latches(other, one), Some((other, 9)));
}

#[test]
fn settling_is_slow_for_its_time_after_arming_and_after_a_change_of_hands() {
    let mut of = limits();
    of.settling.window_ns = 500 * MS;
    let mut one = One::seated(of);
    // The tick that seated was the first of 100.
    assert_eq!(one.governor.settling, 99);
    let (v, a) = one.fastest(2.0, 99);
    assert!(v <= 0.25 * 2.0 && v > 0.24 * 2.0, "{v}");
    assert!(a <= 0.5 * 10.0 && a > 0.4 * 10.0, "{a}");
    let (v, a) = one.fastest(2.0, 40);
    assert!(v > 0.9 * 2.0 && a > 9.0, "after it: {v} {a}");
    // Another's hands: tight again, for as long.
    one.hands = Hands::Person;
    one.fastest(2.0, 60);
    let (v, _) = one.fastest(-2.0, 39);
    assert!(v <= 0.25 * 2.0 && v > 0.2 * 2.0, "{v}");
    let (v, _) = one.fastest(-2.0, 60);
    assert!(v > 0.9 * 2.0, "the same hands, and the time is over: {v}");
}

#[test]
fn a_proposal_is_judged_number_by_number() {
    let judge = |change: &dyn Fn(&mut Setpoint)| {
        let mut one = One::seated(limits());
        let mut setpoint = Setpoint::at_rest(&[0.1, -0.2]);
        change(&mut setpoint);
        let proposal = Proposal {
            made: one.now,
            step: Step::Setpoint {
                setpoint,
                provenance: Provenance::default(),
                action: 0,
            },
        };
        let out = one.governor.step(
            one.now,
            &Input {
                proposal: Some(&proposal),
                state: Freshness::Fresh(&JointState {
                    measured: one.now,
                    received: one.now,
                    ..one.state
                }),
                permission: one.armed(9, one.now),
                hold: None,
                emergency_stop: false,
                speed_scale: 1.0,
                emergency_line: EmergencyLine::Closed,
                deadman: Deadman::Held,
            },
        );
        out.verdict
    };
    assert_eq!(judge(&|_| {}), Verdict::Passed);
    let nan = Verdict::Held(Cause::NotFinite);
    assert_eq!(judge(&|s| s.position[1] = f64::NAN), nan);
    assert_eq!(judge(&|s| s.velocity[1] = f64::INFINITY), nan);
    // What is beyond the joints does not count.
    assert_eq!(judge(&|s| s.position[2] = f64::NAN), Verdict::Passed);
    assert_eq!(judge(&|s| s.velocity[2] = f64::NAN), Verdict::Passed);
    let dimension = Verdict::Held(Cause::Dimension);
    assert_eq!(judge(&|s| s.joints = 1), dimension);
    assert_eq!(judge(&|s| s.joints = 3), dimension);
}

#[test]
fn the_first_limit_in_the_way_is_named() {
    let named = |to: f64| {
        let mut one = One::seated(limits());
        one.go([to, -0.2]).verdict
    };
    let shaped = Verdict::Shaped;
    assert_eq!(named(2.5), shaped(Limit::Position));
    assert_eq!(named(1.9), shaped(Limit::Velocity));
    // From rest: a tick's displacement of a T^2 = 2.5e-4 is the acceleration limit, of j T^3 = 6.25e-5 the jerk limit.
    assert_eq!(named(0.1 + 3e-4), shaped(Limit::Acceleration));
    assert_eq!(named(0.1 + 1e-4), shaped(Limit::Jerk));
    assert_eq!(named(0.1 + 6e-5), Verdict::Passed);
    // Half of the speed limit, until no stop fits between robot and limit.
    let mut one = One::seated(limits());
    for _ in 0..40 {
        one.tick(Some([2.0, -0.2]), |input| input.speed_scale = 0.5);
    }
    let step = one.state.velocity[0] * T;
    let mut to = one.at()[0];
    let named = loop {
        to += step;
        match one.go([to, -0.2]).verdict {
            Verdict::Passed => {}
            other => break other,
        }
    };
    assert_eq!(named, shaped(Limit::StopDistance));
}

#[test]
fn the_speed_scale_is_a_share_and_nonsense_is_slow() {
    let reached = |scale: f64| {
        let mut one = One::seated(limits());
        let mut most = 0.0_f64;
        for _ in 0..120 {
            let out = one.tick(Some([2.0, -0.2]), |input| input.speed_scale = scale);
            most = most.max(out.command.get().velocity[0]);
        }
        most
    };
    for (scale, want) in [
        (1.0, 2.0),
        (0.5, 1.0),
        (7.0, 2.0),
        (f64::INFINITY, 2.0),
        (0.0, 0.0),
        (-1.0, 0.0),
        (f64::NAN, 0.0),
    ] {
        let found = reached(scale);
        assert!(
            found <= want && found >= 0.999 * want,
            "{scale}: {found}, expected {want}"
        );
    }
}

#[test]
fn a_stricter_table_is_what_the_output_asks_for() {
    let mut strict = limits();
    strict.reactions = Reactions::default()
        .stricter(Cause::ProposalLate, Reaction::TorqueOff)
        .expect("stricter");
    let mut one = One::seated(strict);
    assert_eq!(one.tick(None, |_| {}).reaction, Reaction::TorqueOff);
    assert_eq!(
        one.go([0.1, -0.2]).verdict,
        Verdict::Held(Cause::ProposalLate),
        "and it latches"
    );
    let mut one = One::seated(limits());
    assert_eq!(one.tick(None, |_| {}).reaction, Reaction::Hold);
    assert_eq!(one.go([0.1, -0.2]).reaction, Reaction::Follow);
}

/// The supervisor hears what was found here, and not its own words again.
#[test]
fn what_was_found_is_not_what_was_said() {
    let mut one = One::seated(limits());
    let out = one.tick(Some([0.1, -0.2]), |input| {
        input.hold = Some(Cause::EchoLost)
    });
    assert_eq!(
        (out.verdict, out.found),
        (Verdict::Held(Cause::EchoLost), None)
    );
    let mut one = One::seated(limits());
    let out = one.tick(None, |input| input.hold = Some(Cause::EchoLost));
    assert_eq!(out.found, Some(Cause::ProposalLate));
    assert_eq!(One::seated(limits()).go([0.1, -0.2]).found, None);
    // A cause that outlasts its tick is still found.
    let mut one = One::seated(limits());
    for _ in 0..30 {
        one.go([1.0, -0.2]);
    }
    for _ in 0..3 {
        one.tick(None, |_| {});
    }
    assert_eq!(one.go([1.0, -0.2]).found, Some(Cause::ProposalLate));
}

#[test]
fn every_tick_has_its_number_and_a_passed_one_its_provenance() {
    let mut one = One::seated(limits());
    let out = one.go([0.1, -0.2]);
    assert_eq!((out.tick, out.action), (2, 3));
    let out = one.tick(None, |_| {});
    assert_eq!((out.tick, out.action), (3, 0));
}
