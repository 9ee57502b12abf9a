// SPDX-License-Identifier: Apache-2.0
//! Stories, and the whole machine enumerated.

use super::*;
use std::collections::BTreeSet;

const GOOD: Facts = Facts {
    request: None,
    state_age_ns: Some(MS),
    state_age_max_ns: 20 * MS,
    pose_within_limits: true,
    measured_at_rest: true,
    cameras_fresh: true,
    instructed: true,
    echo_flowing_ns: Some(LINK_FLOWING_NS),
    echo_age_ns: MS,
    thread_late: false,
    held: None,
    at_rest: true,
    next_epoch: 77,
};

fn asking(request: Request) -> Facts {
    Facts { request: Some(request), ..GOOD }
}

fn active() -> Supervisor {
    let mut supervisor = Supervisor::default();
    assert_eq!(supervisor.step(Mono(0), &asking(Request::Activate)).answer, Some(Ok(Mode::Active)));
    supervisor
}

#[track_caller]
fn check_refused(facts: Facts, want: Refused) {
    let mut supervisor = Supervisor::default();
    let decision = supervisor.step(Mono(0), &Facts { request: Some(Request::Activate), ..facts });
    assert_eq!(decision.answer, Some(Err(want)));
    assert_eq!((decision.mode, decision.permission), (Mode::Standby, Permission::None));
}

#[test]
fn arming_refuses_with_the_reason() {
    check_refused(Facts { state_age_ns: None, ..GOOD }, Refused::State);
    check_refused(Facts { state_age_ns: Some(20 * MS + 1), ..GOOD }, Refused::State);
    check_refused(Facts { pose_within_limits: false, ..GOOD }, Refused::Pose);
    check_refused(Facts { measured_at_rest: false, ..GOOD }, Refused::Moving);
    check_refused(Facts { cameras_fresh: false, ..GOOD }, Refused::Camera);
    check_refused(Facts { echo_flowing_ns: Some(LINK_FLOWING_NS - 1), ..GOOD }, Refused::Link);
    check_refused(Facts { echo_flowing_ns: None, ..GOOD }, Refused::Link);
    check_refused(Facts { instructed: false, ..GOOD }, Refused::Instruction);
    check_refused(Facts { thread_late: true, ..GOOD }, Refused::Thread);
}

#[test]
fn a_late_policy_holds_and_resumes_by_itself() {
    let mut supervisor = active();
    let held = Facts { held: Some(Cause::ChunkEnded), ..GOOD };
    assert_eq!(supervisor.step(Mono(1), &held).mode, Mode::Holding);
    assert_eq!(supervisor.step(Mono(2), &GOOD).mode, Mode::Active);
}

#[test]
fn a_lost_state_latches_until_it_is_back_and_acknowledged() {
    let mut supervisor = active();
    let lost = Facts { state_age_ns: Some(STATE_LOST_NS + 1), ..GOOD };
    let decision = supervisor.step(Mono(1), &lost);
    assert_eq!((decision.mode, decision.permission), (Mode::Stopped, Permission::None));
    assert_eq!(supervisor.step(Mono(2), &GOOD).mode, Mode::Stopped, "it does not resume by itself");
    let refused = supervisor.step(Mono(3), &Facts { request: Some(Request::Reset), ..lost }).answer;
    assert_eq!(refused, Some(Err(Refused::CauseRemains(Cause::StateLost))));
    assert_eq!(
        supervisor.step(Mono(4), &asking(Request::Activate)).answer,
        Some(Err(Refused::Latched(Mode::Stopped)))
    );
    assert_eq!(supervisor.step(Mono(5), &asking(Request::Reset)).mode, Mode::Standby);
}

#[test]
fn a_stop_ends_in_standby_when_at_rest() {
    let mut supervisor = active();
    let moving = Facts { at_rest: false, ..asking(Request::Stop) };
    assert_eq!(supervisor.step(Mono(1), &moving).mode, Mode::Stopping);
    assert_eq!(supervisor.step(Mono(2), &Facts { at_rest: false, ..GOOD }).mode, Mode::Stopping);
    assert_eq!(supervisor.step(Mono(3), &GOOD).mode, Mode::Standby);
}

#[test]
fn every_arming_has_its_own_epoch_and_every_permission_ends() {
    let mut supervisor = active();
    let Permission::Armed(armed) = supervisor.step(Mono(5), &GOOD).permission else { panic!() };
    let end = Mono(5).plus_ns(PERMISSION_NS);
    assert!(armed.epoch() == 77 && armed.valid(end) && !armed.valid(end.plus_ns(1)));
}

/// Every reachable state under every combination of facts and requests: motion is permitted only from an explicit
/// activation with everything fresh, and latches are left only by a reset.
#[test]
fn the_whole_machine_keeps_its_promises() {
    let requests = [None, Some(Request::Activate), Some(Request::Stop), Some(Request::Reset), Some(Request::EmergencyStop)];
    let helds = [None, Some(Cause::ChunkEnded), Some(Cause::StateStale), Some(Cause::NotFinite)];
    let mut seen = BTreeSet::new();
    let mut todo = vec![Supervisor::default()];
    let mut transitions = 0u32;
    while let Some(from) = todo.pop() {
        if !seen.insert(format!("{from:?}")) {
            continue;
        }
        for bits in 0u32..256 {
            for request in requests {
                for held in helds {
                    let bit = |n: u32| bits >> n & 1 == 1;
                    let facts = Facts {
                        request,
                        state_age_ns: if bit(0) { Some(MS) } else { Some(STATE_LOST_NS + 1) },
                        pose_within_limits: bit(1),
                        cameras_fresh: bit(2),
                        instructed: bit(3),
                        echo_flowing_ns: bit(4).then_some(LINK_FLOWING_NS),
                        echo_age_ns: if bit(5) { 0 } else { ECHO_LOST_NS + 1 },
                        thread_late: bit(6),
                        at_rest: bit(7),
                        held,
                        ..GOOD
                    };
                    let mut next = from.clone();
                    let decision = next.step(Mono(1), &facts);
                    transitions += 1;
                    let moves = decision.permission != Permission::None;
                    let was = matches!(from.mode, Mode::Active | Mode::Holding);
                    if moves && !was {
                        assert_eq!(request, Some(Request::Activate), "{from:?} {facts:?}");
                        assert!(bit(0) && bit(1) && bit(2) && bit(3) && bit(4) && !bit(6) && bit(7), "{from:?} {facts:?}");
                    }
                    if matches!(from.mode, Mode::Stopped | Mode::EStop) && next.mode == Mode::Standby {
                        assert_eq!(request, Some(Request::Reset));
                    }
                    if request == Some(Request::EmergencyStop) {
                        assert!(decision.emergency_stop && !moves);
                    }
                    if was && (!bit(0) || !bit(5) || bit(6)) {
                        assert!(!moves, "a latching cause withdraws the permission: {from:?} {facts:?}");
                    }
                    todo.push(next);
                }
            }
        }
    }
    assert!(transitions > 30_000, "{transitions}");
}
