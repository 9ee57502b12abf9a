// SPDX-License-Identifier: Apache-2.0
//! What is measured and what is configured, at the edge of each rule: states that cannot be used, poses that cannot be
//! taken over, robots that do not follow, policies that shake, limits that cannot be governed.

use super::*;
use crate::core::action::JointKind;
use crate::core::governor::limits::{Joint, JointLimits, STOP_TICKS_MAX};
use crate::core::governor::measured::{POSE_ROOM, REST_RATE, cannot_seat, usable};
use crate::core::governor::reaction::{CAUSES, CAUSES_LEN, Milder, Reactions};
use crate::core::limits::JOINTS_MAX;
use crate::core::units::MS;

const JOINT: Joint = Joint {
    kind: JointKind::Revolute,
    limits: JointLimits {
        position_min: -2.0,
        position_max: 2.0,
        velocity_max: 2.0,
        acceleration_max: 10.0,
        jerk_max: 500.0,
        tracking_error_max: 0.25,
        torque_max: f64::INFINITY,
    },
};
const GRIPPER: Joint = Joint {
    kind: JointKind::Gripper,
    ..JOINT
};
const NOW: Mono = Mono(1_000 * MS);

fn two(second: Joint) -> Limits {
    Limits::new(&[JOINT, second], 5 * MS).expect("good limits")
}

fn state(position: [f64; 2], velocity: [f64; 2]) -> JointState {
    let mut state = JointState {
        joints: 2,
        measured: NOW,
        received: NOW,
        ..JointState::NEVER
    };
    state.position[..2].copy_from_slice(&position);
    state.velocity[..2].copy_from_slice(&velocity);
    state
}

// Usable.

#[track_caller]
fn check_usable(state: JointState, want: Option<Cause>) {
    let limits = two(JOINT);
    let found = usable(NOW, &Freshness::Fresh(&state), &limits).err();
    assert_eq!(found, want);
}

#[test]
fn a_state_is_fresh_then_stale_then_lost() {
    let limits = two(JOINT);
    let (stale, lost) = (limits.state_age_max_ns, limits.state_lost_ns);
    assert_eq!((stale, lost), (15 * MS, 100 * MS));
    let aged = |age_ns| JointState {
        received: NOW.minus_ns(age_ns),
        ..state([0.0; 2], [0.0; 2])
    };
    check_usable(aged(stale), None);
    check_usable(aged(stale + 1), Some(Cause::StateStale));
    check_usable(aged(lost), Some(Cause::StateStale));
    check_usable(aged(lost + 1), Some(Cause::StateLost));
    let told = |age_ns| usable(NOW, &Freshness::Stale { age_ns }, &limits).err();
    assert_eq!(told(0), Some(Cause::StateStale));
    assert_eq!(told(lost), Some(Cause::StateStale));
    assert_eq!(told(lost + 1), Some(Cause::StateLost));
    let never = usable(NOW, &Freshness::NeverSeen, &limits).err();
    assert_eq!(never, Some(Cause::StateStale));
}

#[test]
fn a_state_from_the_future_is_used_for_one_tick() {
    let early = |by_ns| JointState {
        received: NOW.plus_ns(by_ns),
        ..state([0.0; 2], [0.0; 2])
    };
    check_usable(early(5 * MS), None);
    check_usable(early(5 * MS + 1), Some(Cause::StateStale));
}

#[test]
fn a_state_has_the_right_joints_and_finite_numbers() {
    let good = state([0.0; 2], [0.0; 2]);
    check_usable(good, None);
    check_usable(
        JointState { joints: 1, ..good },
        Some(Cause::StateDimension),
    );
    check_usable(
        JointState { joints: 3, ..good },
        Some(Cause::StateDimension),
    );
    let nan = Some(Cause::StateNotFinite);
    check_usable(state([0.0, f64::NAN], [0.0; 2]), nan);
    check_usable(state([0.0; 2], [f64::NEG_INFINITY, 0.0]), nan);
    let mut beyond = good;
    (beyond.position[2], beyond.velocity[2]) = (f64::NAN, f64::NAN);
    check_usable(beyond, None);
}

// Seating.

#[test]
fn a_pose_is_taken_over_inside_the_limits_and_at_rest() {
    let limits = two(JOINT);
    let seat = |q: f64, v: f64| cannot_seat(&state([0.0, q], [0.0, v]), &limits);
    let (low, high) = (-2.0 - POSE_ROOM, 2.0 + POSE_ROOM);
    assert_eq!((seat(low, 0.0), seat(high, 0.0)), (None, None));
    let outside = Some(Cause::PoseOutside);
    assert_eq!(
        (seat(low - 1e-6, 0.0), seat(high + 1e-6, 0.0)),
        (outside, outside)
    );
    let moving = Some(Cause::PoseMoving);
    assert_eq!((seat(0.0, REST_RATE), seat(0.0, -REST_RATE)), (None, None));
    assert_eq!((seat(0.0, 0.051), seat(0.0, -0.051)), (moving, moving));
    assert_eq!(seat(3.0, 1.0), outside, "what a person must mend first");
    // The first joint counts as well, and a gripper does not.
    assert_eq!(cannot_seat(&state([3.0, 0.0], [0.0; 2]), &limits), outside);
    assert_eq!(
        cannot_seat(&state([0.0, 3.0], [0.0, 9.0]), &two(GRIPPER)),
        None
    );
}

// Watching.

/// Steps a watch by 5 ms with what is measured; the command is at zero.
fn watch(limits: &Limits, measured: &[f64]) -> Vec<Option<Cause>> {
    let mut watch = Watch::default();
    let mut now = NOW;
    let mut found = vec![];
    for q in measured {
        let state = JointState {
            measured: now,
            received: now,
            ..state([0.0, *q], [0.0; 2])
        };
        found.push(watch.look(now, &state, [0.0, 0.0].into_iter(), limits));
        now = now.plus_ns(5 * MS);
    }
    found
}

#[test]
fn a_tracking_error_counts_after_fifty_milliseconds() {
    let (limits, error) = (two(JOINT), Some(Cause::TrackingError));
    // Seen first at tick 0, ten ticks are 50 ms.
    let found = watch(&limits, &[0.26; 12]);
    assert_eq!(found[..10], [None; 10]);
    assert_eq!(found[10..], [error; 2]);
    assert_eq!(watch(&limits, &[-0.26; 12])[10], error);
    // Exactly the limit is no error; nor is one that is back in between.
    assert_eq!(watch(&limits, &[0.25; 30]), [None; 30]);
    let mut back = [0.26; 15];
    back[5] = 0.25;
    assert_eq!(watch(&limits, &back), [None; 15]);
    assert_eq!(watch(&two(GRIPPER), &[0.26; 30]), [None; 30]);
}

#[test]
fn a_jump_is_more_than_twice_the_speed_limit_and_the_tracking_error() {
    let (limits, jump) = (two(JOINT), Some(Cause::StateJump));
    // 2 * 2 rad/s * 5 ms + 0.25 rad.
    let most = 0.27;
    let after = |q: f64| watch(&limits, &[0.0, q])[1];
    assert_eq!((after(most - 1e-9), after(1e-9 - most)), (None, None));
    assert_eq!((after(most + 1e-9), after(-most - 1e-9)), (jump, jump));
    assert_eq!(watch(&two(GRIPPER), &[0.0, 1.0]), [None, None]);
    // A joint of another speed: 2 * 8 rad/s * 5 ms + 0.25 rad.
    let fast = two(Joint {
        limits: JointLimits {
            velocity_max: 8.0,
            ..JOINT.limits
        },
        ..JOINT
    });
    let after = |q: f64| watch(&fast, &[0.0, q])[1];
    assert_eq!((after(0.329), after(0.331)), (None, jump));
    // The first state is compared with nothing.
    assert_eq!(watch(&limits, &[5.0]), [None]);
    // From the last one, not from the first.
    assert_eq!(watch(&limits, &[0.0, 0.2, 0.4, 0.6]), [None; 4]);
}

#[test]
fn a_state_that_comes_twice_is_no_news() {
    let limits = two(JOINT);
    let mut watch = Watch::default();
    let at = |measured: Mono, q: f64| JointState {
        measured,
        ..state([0.0, q], [0.0; 2])
    };
    let mut look = |state: &JointState| watch.look(NOW, state, [0.0, 0.0].into_iter(), &limits);
    assert_eq!(look(&at(NOW, 0.0)), None);
    // The same moment, elsewhere: not compared, and not remembered.
    assert_eq!(look(&at(NOW, 1.0)), None);
    assert_eq!(look(&at(NOW.plus_ns(5 * MS), 0.1)), None);
    // An older one, too.
    assert_eq!(look(&at(NOW, 1.0)), None);
    assert_eq!(look(&at(NOW.plus_ns(10 * MS), 0.1)), None);
    // A longer gap allows a longer way: 2 * 2 rad/s * 100 ms + 0.25 rad.
    assert_eq!(look(&at(NOW.plus_ns(110 * MS), 0.74)), None);
    assert_eq!(
        look(&at(NOW.plus_ns(210 * MS), 0.08)),
        Some(Cause::StateJump)
    );
}

// Shaking.

/// Whether a joint that is emitted like this for some seconds at 200 Hz shakes. `shaped`: one tick in so many.
fn shakes(at: impl Fn(u32) -> f64, shaped: u32, kind: JointKind) -> bool {
    let joint = Joint { kind, ..JOINT };
    let limits = two(joint);
    let (mut shaking, mut now, mut found) = (Shaking::default(), NOW, false);
    for tick in 0..700 {
        let is_shaped = tick % shaped == 0;
        shaking.count(now, is_shaped, [0.0, at(tick)].into_iter(), &limits);
        found |= shaking.too_much();
        now = now.plus_ns(5 * MS);
    }
    found
}

/// Accelerates by `a` for `half` ticks up, then down.
fn zigzag(a: f64, half: u32) -> impl Fn(u32) -> f64 {
    let mut q = vec![0.0];
    let mut v = 0.0;
    for tick in 0..800 {
        v += if (tick / half).is_multiple_of(2) {
            a
        } else {
            -a
        } * 0.005;
        q.push(q[tick as usize] + v * 0.005);
    }
    move |tick| q[tick as usize]
}

#[test]
fn hard_accelerations_that_change_sign_again_and_again_are_shaking() {
    let revolute = JointKind::Revolute;
    // 10 rad/s^2 is the limit, half of it is hard. 100 ticks are a window: 10 ticks a side are ten changes.
    assert!(shakes(zigzag(6.0, 10), 1, revolute));
    assert!(shakes(zigzag(-6.0, 10), 1, revolute));
    assert!(!shakes(zigzag(4.0, 10), 1, revolute), "gentle");
    assert!(!shakes(zigzag(6.0, 10), 1, JointKind::Gripper), "a gripper");
    // Five changes in 100 ticks are too many, four are not.
    assert!(shakes(zigzag(6.0, 19), 1, revolute), "every 19 ticks");
    assert!(!shakes(zigzag(6.0, 26), 1, revolute), "every 26 ticks");
    for half in [2, 3, 4, 9, 18] {
        assert!(shakes(zigzag(6.0, half), 1, revolute), "every {half} ticks");
        assert!(
            shakes(zigzag(-6.0, half), 1, revolute),
            "every {half} ticks"
        );
    }
    // More than one tick in ten must have been shaped.
    assert!(shakes(zigzag(6.0, 10), 9, revolute));
    assert!(!shakes(zigzag(6.0, 10), 10, revolute));
    assert!(
        !shakes(zigzag(6.0, 10), 11, revolute),
        "the policy's own motion"
    );
    assert!(!shakes(|_| 0.5, 1, revolute), "still");
}

#[test]
fn shaking_is_hard_most_of_the_time() {
    // Hard in `on` ticks of ten, up and down in turn, at rest between.
    let pulses = |on: u32| {
        let mut q = vec![0.0];
        let (mut v, mut q_now) = (0.0_f64, 0.0_f64);
        for tick in 0..800u32 {
            let (part, side) = (tick % 10, if tick / 10 % 2 == 0 { 1.0 } else { -1.0 });
            v += if part < on { 6.0 * side * 0.005 } else { 0.0 };
            q_now += v * 0.005;
            q.push(q_now);
        }
        move |tick: u32| q[tick as usize]
    };
    assert!(shakes(pulses(6), 1, JointKind::Revolute));
    assert!(!shakes(pulses(4), 1, JointKind::Revolute));
    assert!(
        !shakes(pulses(5), 1, JointKind::Revolute),
        "half is not most"
    );
}

#[test]
fn exactly_half_of_the_limit_is_hard_and_the_last_joint_is_looked_at() {
    // Powers of two, so that every difference is exact: T = 1/128 s, a = 8 rad/s^2, half of it 4.
    let joint = Joint {
        limits: JointLimits {
            acceleration_max: 8.0,
            position_min: -64.0,
            position_max: 64.0,
            ..JOINT.limits
        },
        ..JOINT
    };
    let t = 1.0 / 128.0;
    let limits = Limits::new(&[joint; JOINTS_MAX], 7_812_500).expect("good limits");
    let shakes = |a: f64| {
        let mut shaking = Shaking::default();
        let (mut now, mut q, mut v, mut found) = (NOW, 0.0_f64, 0.0_f64, false);
        for tick in 0..200 {
            v += if tick / 4 % 2 == 0 { a } else { -a } * t;
            q += v * t;
            let at = (0..JOINTS_MAX).map(|i| if i + 1 == JOINTS_MAX { q } else { 0.0 });
            shaking.count(now, true, at, &limits);
            found |= shaking.too_much();
            now = now.plus_ns(7_812_500);
        }
        found
    };
    assert!(shakes(4.0) && !shakes(3.999));
}

#[test]
fn after_a_gap_the_differences_begin_anew() {
    // A joint that only ever moves between ticks that were not followed: its jumps are nobody's accelerations.
    let limits = two(JOINT);
    let gaps = |gap_ns: u64| {
        let (mut shaking, mut now, mut found) = (Shaking::default(), NOW, false);
        for tick in 0..400u32 {
            let q = if tick % 2 == 0 { 0.0 } else { 1e-3 };
            shaking.count(now, true, [0.0, q].into_iter(), &limits);
            found |= shaking.too_much();
            now = now.plus_ns(gap_ns);
        }
        found
    };
    // One and a half periods is still the next tick.
    assert!(gaps(5 * MS) && gaps(7_500_000));
    assert!(!gaps(7_500_001) && !gaps(20 * MS));
}

// Limits.

#[track_caller]
fn check_limits(change: impl Fn(&mut Limits), want: &str) {
    let mut limits = two(JOINT);
    change(&mut limits);
    let words = limits.check().err().map(|bad| bad.to_string());
    match (words, want) {
        (None, "") => {}
        (Some(words), want) if !want.is_empty() && words.starts_with(want) => {}
        (found, want) => panic!("found {found:?}, expected {want:?}"),
    }
}

#[test]
#[rustfmt::skip]
fn every_number_of_the_limits_is_checked_at_its_edge() {
    check_limits(|_| {}, "");
    check_limits(|l| l.joints.clear(), "0 joints");
    check_limits(|l| l.period_ns = 99_999, "period_ns is 99999");
    check_limits(|l| l.period_ns = 100_000, "");
    check_limits(|l| (l.period_ns, l.state_age_max_ns, l.state_lost_ns, l.proposal_age_max_ns) = (1_000_000_001, u64::MAX, u64::MAX, u64::MAX), "period_ns is 1000000001");
    check_limits(|l| (l.period_ns, l.state_age_max_ns, l.state_lost_ns, l.proposal_age_max_ns) = (1_000_000_000, u64::MAX, u64::MAX, u64::MAX), "");
    check_limits(|l| l.state_age_max_ns = 5 * MS, "");
    check_limits(|l| l.state_age_max_ns = 5 * MS - 1, "state_age_max_ns is 4999999");
    check_limits(|l| l.state_lost_ns = 15 * MS, "");
    check_limits(|l| l.state_lost_ns = 15 * MS - 1, "state_age_max_ns is 15000000");
    check_limits(|l| l.proposal_age_max_ns = 5 * MS, "");
    check_limits(|l| l.proposal_age_max_ns = 5 * MS - 1, "proposal_age_max_ns is 4999999");
    for (share, good) in [(1.0, true), (f64::MIN_POSITIVE, true), (0.0, false), (-0.5, false), (1.0 + f64::EPSILON, false), (f64::NAN, false)] {
        check_limits(|l| l.settling.velocity = share, if good { "" } else { "settling.velocity" });
        check_limits(|l| l.settling.acceleration = share, if good { "" } else { "settling.acceleration" });
    }
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        check_limits(|l| l.joints[1].limits.velocity_max = bad, "joint 1: velocity_max");
        check_limits(|l| l.joints[1].limits.acceleration_max = bad, "joint 1: acceleration_max");
        check_limits(|l| l.joints[1].limits.jerk_max = bad, "joint 1: jerk_max");
        // A gripper has none of these.
        check_limits(|l| { l.joints[1].kind = JointKind::Gripper; l.joints[1].limits.velocity_max = bad }, "");
    }
    for bad in [2.0, 3.0, f64::NAN, f64::NEG_INFINITY] {
        check_limits(|l| l.joints[0].limits.position_min = bad, "joint 0: position_min");
    }
    check_limits(|l| l.joints[0].limits.position_max = f64::INFINITY, "joint 0: position_min");
    check_limits(|l| { l.joints[1].kind = JointKind::Gripper; l.joints[1].limits.position_min = 2.0 }, "joint 1: position_min");
    for (bad, good) in [(0.0, false), (-1.0, false), (f64::NAN, false), (f64::INFINITY, true), (1e-9, true)] {
        check_limits(|l| l.joints[0].limits.tracking_error_max = bad, if good { "" } else { "joint 0: tracking_error_max" });
        check_limits(|l| l.joints[0].limits.torque_max = bad, if good { "" } else { "joint 0: torque_max" });
    }
}

#[test]
fn a_slow_loop_has_longer_defaults() {
    let of = |period_ns| {
        let l = Limits::new(&[JOINT], period_ns).expect("good limits");
        assert_eq!(l.period_s(), period_ns as f64 * 1e-9);
        let ages = (l.state_age_max_ns, l.state_lost_ns, l.proposal_age_max_ns);
        assert_eq!(l.settling.window_ns, 1_000 * MS);
        (ages.0 / MS, ages.1 / MS, ages.2 / MS)
    };
    assert_eq!(of(5 * MS), (15, 100, 10));
    assert_eq!(of(MS), (15, 100, 2), "a fast loop's states are no fresher");
    assert_eq!(of(20 * MS), (60, 200, 40));
    assert!(Limits::new(&[], 5 * MS).is_err());
    let many = [JOINT; JOINTS_MAX + 1];
    assert_eq!(
        Limits::new(&many, 5 * MS).err(),
        Some(BadLimits::Count {
            found: JOINTS_MAX + 1
        })
    );
}

#[test]
fn a_stop_that_takes_for_ever_and_a_limit_too_fine_for_a_position_are_refused() {
    let governable = |change: &dyn Fn(&mut JointLimits)| {
        let mut limits = two(JOINT);
        limits.settling.acceleration = 1.0;
        change(&mut limits.joints[1].limits);
        limits.governable()
    };
    assert_eq!(governable(&|_| {}), Ok(()));
    // v / a in ticks of 5 ms, and a ramp of four.
    assert_eq!(governable(&|l| l.acceleration_max = 2.0 / 49.9), Ok(()));
    let slow = governable(&|l| l.acceleration_max = 2.0 / 50.1);
    let Err(BadLimits::StopTooLong { joint: 1, ticks }) = slow else {
        panic!("{slow:?}")
    };
    assert!((10_001..10_100).contains(&ticks), "{ticks}");
    const { assert!(STOP_TICKS_MAX == 10_000.0, "ten seconds at 1 kHz") };
    // At 2 rad, positions come in steps of 2^-52 * 2 rad; twice their noise is the least that can be kept.
    let grain = 2.0 * f64::EPSILON;
    let least_jerk = 2.0 * 4.0 * grain / (0.005 * 0.005 * 0.005);
    let fine = |jerk: f64| {
        governable(&|l| {
            (l.velocity_max, l.acceleration_max, l.jerk_max) = (1e-9, 1e-7, jerk);
        })
    };
    assert_eq!(fine(1.001 * least_jerk), Ok(()));
    let bad = fine(0.999 * least_jerk);
    let Err(BadLimits::TooFine {
        joint: 1,
        limit: "jerk_max",
        least,
    }) = bad
    else {
        panic!("{bad:?}")
    };
    assert!((least / least_jerk - 1.0).abs() < 1e-12);
    let bad = governable(&|l| l.velocity_max = 0.999 * 2.0 * grain / 0.005);
    assert!(
        matches!(bad, Err(BadLimits::TooFine { limit: "velocity_max", least, .. }) if (least / (2.0 * grain / 0.005) - 1.0).abs() < 1e-12),
        "{bad:?}"
    );
    let bad = governable(&|l| l.acceleration_max = 0.999 * 4.0 * grain / 0.000_025);
    assert!(
        matches!(bad, Err(BadLimits::TooFine { limit: "acceleration_max", least, .. }) if (least / (4.0 * grain / 0.000_025) - 1.0).abs() < 1e-9),
        "{bad:?}"
    );
}

// The table.

#[test]
fn every_cause_has_words_of_its_own() {
    let words: std::vec::Vec<&str> = CAUSES.iter().map(|cause| cause.words()).collect();
    for (index, one) in words.iter().enumerate() {
        assert!(one.len() > 3, "{one}");
        assert!(!words[..index].contains(one), "{one} twice");
    }
}

#[test]
fn a_deployment_may_be_stricter_only() {
    for cause in CAUSES {
        let table = Reactions::default();
        for asked in [
            Reaction::Follow,
            Reaction::Hold,
            Reaction::Stop,
            Reaction::TorqueOff,
        ] {
            match table.stricter(cause, asked) {
                Ok(strict) => {
                    assert!(asked >= cause.reaction());
                    assert_eq!(strict.of(cause), asked);
                    for other in CAUSES.into_iter().filter(|other| *other != cause) {
                        assert_eq!(strict.of(other), other.reaction());
                    }
                    let latches = asked >= Reaction::Stop;
                    let acknowledged = strict.clears(cause) == Clears::OnAcknowledgement;
                    assert_eq!(acknowledged, latches, "{cause:?} {asked:?}");
                }
                Err(Milder {
                    cause: of,
                    asked: said,
                    least,
                }) => {
                    assert!(asked < cause.reaction());
                    assert_eq!((of, said, least), (cause, asked, cause.reaction()));
                }
            }
        }
        assert!(!cause.words().is_empty());
        assert_eq!(Cause::from_code(cause as u8), Some(cause));
    }
    let beyond = CAUSES_LEN as u8 + 1;
    assert_eq!(
        (Cause::from_code(0), Cause::from_code(beyond)),
        (None, None)
    );
}

#[test]
fn among_equals_the_last_explains_most_and_what_is_harder_to_clear_wins() {
    let table = Reactions::default();
    assert_eq!(table.worst([]), None);
    let (one, other) = (Cause::NoChunk, Cause::ChunkEnded);
    assert_eq!(table.worst([one, other]), Some(other));
    assert_eq!(table.worst([other, one]), Some(one));
    // Both hold; one of them ends the arming.
    let (itself, arming) = (Cause::ChunkEnded, Cause::Oscillation);
    assert_eq!(table.worst([arming, itself]), Some(arming));
}
