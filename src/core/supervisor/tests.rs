// SPDX-License-Identifier: Apache-2.0
//! Stories, and the whole machine enumerated.

mod diagram;
mod edges;

use super::*;
use crate::core::units::MS;
use std::collections::HashSet;

const EPOCH: u32 = 77;
const START: Mono = Mono(60_000 * MS);

/// A robot that could be armed, at rest in standby.
const GOOD: Facts = Facts {
    asked: None,
    booted: true,
    state_age_ns: Some(MS),
    state_age_max_ns: 20 * MS,
    pose_within_limits: true,
    measured_at_rest: true,
    cameras_fresh: true,
    camera_fault: None,
    instructed: true,
    echo_flowing_ns: Some(Deadline::LinkFlowing.ns()),
    echo_age_ns: MS,
    commands_refused: false,
    motor_restarted: false,
    thread_late: false,
    suspended: false,
    emergency_line: EmergencyLine::Closed,
    deadman: Deadman::NotFitted,
    held: None,
    governor_epoch: 0,
    at_rest: true,
    next_epoch: EPOCH,
};

/// The same once armed and moving.
const MOVING: Facts = Facts {
    governor_epoch: EPOCH,
    at_rest: false,
    ..GOOD
};

/// A supervisor in simulated time, 10 ms a step.
struct Story {
    supervisor: Supervisor,
    now: Mono,
}

impl Story {
    fn standby() -> Story {
        let mut story = Story {
            supervisor: Supervisor::new(Reactions::default(), None),
            now: START,
        };
        assert_eq!(story.step(GOOD).mode, Mode::Standby);
        story
    }

    fn active() -> Story {
        let mut story = Story::standby();
        assert_eq!(
            story.ask(Request::Activate, GOOD).answer,
            Some(Ok(Mode::Active))
        );
        story
    }

    fn step(&mut self, facts: Facts) -> Decision {
        self.now = self.now.plus_ns(10 * MS);
        self.supervisor.step(self.now, &facts)
    }

    fn ask(&mut self, request: Request, facts: Facts) -> Decision {
        let made = self.now.plus_ns(10 * MS);
        self.step(Facts {
            asked: Some(Asked { request, made }),
            ..facts
        })
    }
}

#[track_caller]
fn check_refused(facts: Facts, want: Refused) {
    let mut story = Story::standby();
    let decision = story.ask(Request::Activate, facts);
    assert_eq!(decision.answer, Some(Err(want)));
    assert_eq!(
        (decision.mode, decision.permission),
        (Mode::Standby, Permission::None)
    );
}

/// I24: each condition by itself.
#[test]
fn arming_refuses_with_the_reason() {
    check_refused(
        Facts {
            state_age_ns: None,
            ..GOOD
        },
        Refused::State,
    );
    check_refused(
        Facts {
            state_age_ns: Some(20 * MS + 1),
            ..GOOD
        },
        Refused::State,
    );
    check_refused(
        Facts {
            pose_within_limits: false,
            ..GOOD
        },
        Refused::Pose,
    );
    check_refused(
        Facts {
            measured_at_rest: false,
            ..GOOD
        },
        Refused::Moving,
    );
    check_refused(
        Facts {
            cameras_fresh: false,
            ..GOOD
        },
        Refused::Camera,
    );
    for (fault, want) in [
        (Cause::CameraLost, Refused::Camera),
        (Cause::CameraBlind, Refused::Picture(Cause::CameraBlind)),
    ] {
        check_refused(
            Facts {
                camera_fault: Some(fault),
                ..GOOD
            },
            want,
        );
    }
    check_refused(
        Facts {
            echo_flowing_ns: Some(Deadline::LinkFlowing.ns() - 1),
            ..GOOD
        },
        Refused::Link,
    );
    check_refused(
        Facts {
            echo_flowing_ns: None,
            ..GOOD
        },
        Refused::Link,
    );
    check_refused(
        Facts {
            motor_restarted: true,
            ..GOOD
        },
        Refused::Link,
    );
    check_refused(
        Facts {
            commands_refused: true,
            ..GOOD
        },
        Refused::CommandsRefused,
    );
    check_refused(
        Facts {
            instructed: false,
            ..GOOD
        },
        Refused::Instruction,
    );
    check_refused(
        Facts {
            thread_late: true,
            ..GOOD
        },
        Refused::Thread,
    );
    check_refused(
        Facts {
            deadman: Deadman::Released,
            ..GOOD
        },
        Refused::Deadman,
    );
    check_refused(
        Facts {
            deadman: Deadman::Held,
            ..GOOD
        },
        Refused::DeadmanStuck,
    );
    check_refused(
        Facts {
            at_rest: false,
            ..GOOD
        },
        Refused::Busy,
    );
}

/// I26.
#[test]
fn a_deadman_counts_once_it_was_released_and_pressed() {
    let mut story = Story::standby();
    let held = Facts {
        deadman: Deadman::Held,
        ..GOOD
    };
    story.step(Facts {
        deadman: Deadman::Released,
        ..GOOD
    });
    assert_eq!(story.ask(Request::Activate, held).mode, Mode::Active);
    // Released: category 2, and it goes on when pressed again within the second.
    let released = Facts {
        deadman: Deadman::Released,
        ..MOVING
    };
    let decision = story.step(released);
    assert_eq!(
        (decision.mode, decision.hold),
        (Mode::Holding, Some(Cause::DeadmanReleased))
    );
    assert_eq!(
        story
            .step(Facts {
                deadman: Deadman::Held,
                ..MOVING
            })
            .mode,
        Mode::Active
    );
    // Put down: disarmed after a second.
    for _ in 0..100 {
        assert_eq!(story.step(released).mode, Mode::Holding);
    }
    assert_eq!(story.step(released).mode, Mode::Stopping);
    assert_eq!(
        story
            .step(Facts {
                at_rest: true,
                ..released
            })
            .mode,
        Mode::Standby
    );
    assert_eq!(
        story
            .ask(
                Request::Activate,
                Facts {
                    deadman: Deadman::Held,
                    ..GOOD
                }
            )
            .mode,
        Mode::Active
    );
}

#[test]
fn a_late_policy_holds_and_resumes_by_itself() {
    let mut story = Story::active();
    let decision = story.step(Facts {
        held: Some(Cause::ChunkEnded),
        ..MOVING
    });
    assert_eq!(
        (decision.mode, decision.cause),
        (Mode::Holding, Some(Cause::ChunkEnded))
    );
    assert_eq!(
        decision.hold, None,
        "what the governor found itself is not told back to it"
    );
    assert!(matches!(decision.permission, Permission::Armed(_)));
    assert_eq!(story.step(MOVING).mode, Mode::Active);
}

#[test]
fn a_lost_camera_is_named_once_its_last_chunk_ran_out() {
    let mut story = Story::active();
    let blind = Facts {
        cameras_fresh: false,
        ..MOVING
    };
    assert_eq!(
        story.step(blind).mode,
        Mode::Active,
        "the validated chunk is executed to its end"
    );
    let decision = story.step(Facts {
        held: Some(Cause::ChunkEnded),
        ..blind
    });
    assert_eq!(
        (decision.mode, decision.hold),
        (Mode::Holding, Some(Cause::CameraLost))
    );
    assert_eq!(story.step(MOVING).mode, Mode::Active);
}

#[test]
fn a_lost_state_latches_until_it_is_back_and_acknowledged() {
    let mut story = Story::active();
    let lost = Facts {
        state_age_ns: Some(Deadline::StateLost.ns() + 1),
        ..MOVING
    };
    let decision = story.step(lost);
    assert_eq!(
        (decision.mode, decision.permission),
        (Mode::Stopped, Permission::None)
    );
    assert_eq!(decision.latched, Some(Cause::StateLost));
    assert_eq!(
        story.step(GOOD).mode,
        Mode::Stopped,
        "it does not resume by itself"
    );
    let refused = story.ask(Request::Reset, lost).answer;
    assert_eq!(refused, Some(Err(Refused::CauseRemains(Cause::StateLost))));
    assert_eq!(
        story.ask(Request::Activate, GOOD).answer,
        Some(Err(Refused::Latched(Mode::Stopped)))
    );
    assert_eq!(story.ask(Request::Reset, GOOD).mode, Mode::Standby);
}

/// I14: the acknowledgement is newer than the cause.
#[test]
fn a_reset_from_before_the_stop_does_not_count() {
    let mut story = Story::active();
    let early = Asked {
        request: Request::Reset,
        made: story.now.plus_ns(10 * MS),
    };
    story.ask(Request::EmergencyStop, MOVING);
    let decision = story.step(Facts {
        asked: Some(early),
        ..GOOD
    });
    assert_eq!(
        (decision.mode, decision.answer),
        (Mode::EStop, Some(Err(Refused::ResetTooEarly)))
    );
    assert_eq!(story.ask(Request::Reset, GOOD).mode, Mode::Standby);
}

#[test]
fn old_requests_to_move_are_refused_and_old_requests_to_stop_are_not() {
    let mut story = Story::standby();
    let old = |request| Facts {
        asked: Some(Asked {
            request,
            made: Mono(0),
        }),
        ..GOOD
    };
    assert_eq!(
        story.step(old(Request::Activate)).answer,
        Some(Err(Refused::TooOld))
    );
    assert_eq!(story.step(old(Request::EmergencyStop)).mode, Mode::EStop);
}

/// One that a disk, or a thread, kept for a while.
#[test]
fn what_was_asked_before_a_stop_arms_nothing_after_it() {
    for stop in [Request::Stop, Request::EmergencyStop] {
        for request in [Request::Activate, Request::TakeOver] {
            let mut story = Story::standby();
            let made = story.now;
            story.ask(stop, GOOD);
            let latched = story.ask(Request::Reset, GOOD).answer;
            assert_eq!(
                latched.is_some_and(|answer| answer.is_ok()),
                stop == Request::EmergencyStop
            );
            let decision = story.step(Facts {
                asked: Some(Asked { request, made }),
                ..GOOD
            });
            assert_eq!(
                (decision.mode, decision.answer),
                (Mode::Standby, Some(Err(Refused::Overruled)))
            );
            assert!(
                story
                    .ask(request, GOOD)
                    .answer
                    .is_some_and(|answer| answer.is_ok())
            );
        }
    }
}

/// I14.
#[test]
fn a_latch_survives_a_restart() {
    for (cause, mode) in [
        (Cause::TrackingError, Mode::Stopped),
        (Cause::EmergencyStop, Mode::EStop),
    ] {
        let mut story = Story {
            supervisor: Supervisor::new(Reactions::default(), Some(cause)),
            now: START,
        };
        let before = Asked {
            request: Request::Reset,
            made: story.now,
        };
        assert_eq!(
            story
                .step(Facts {
                    booted: false,
                    ..GOOD
                })
                .mode,
            Mode::Boot
        );
        assert_eq!(story.step(GOOD).mode, mode);
        let early = story.step(Facts {
            asked: Some(before),
            ..GOOD
        });
        assert_eq!(early.answer, Some(Err(Refused::ResetTooEarly)));
        assert_eq!(story.ask(Request::Reset, GOOD).mode, Mode::Standby);
    }
}

#[test]
fn the_emergency_stop_line_latches_in_every_mode_and_its_release_does_nothing() {
    let open = Facts {
        emergency_line: EmergencyLine::Open,
        ..GOOD
    };
    for mut story in [Story::standby(), Story::active()] {
        let decision = story.step(open);
        assert_eq!(
            (decision.mode, decision.hold),
            (Mode::EStop, Some(Cause::EmergencyLine))
        );
        let refused = story.ask(Request::Reset, open).answer;
        assert_eq!(
            refused,
            Some(Err(Refused::CauseRemains(Cause::EmergencyLine)))
        );
        for _ in 0..1000 {
            assert_eq!(story.step(GOOD).mode, Mode::EStop);
        }
        let decision = story.ask(Request::Reset, GOOD);
        assert_eq!(
            (decision.mode, decision.permission),
            (Mode::Standby, Permission::None)
        );
    }
}

/// I25: and where it leads.
#[test]
fn a_stop_ends_in_standby_when_at_rest_and_in_an_emergency_stop_when_it_does_not_end() {
    let mut story = Story::active();
    let decision = story.ask(Request::Stop, MOVING);
    assert_eq!(
        (decision.mode, decision.hold),
        (Mode::Stopping, Some(Cause::StopRequested))
    );
    assert_eq!(story.step(MOVING).mode, Mode::Stopping);
    assert_eq!(story.step(GOOD).mode, Mode::Standby);

    let mut story = Story::active();
    story.ask(Request::Stop, MOVING);
    let steps = (0..1000)
        .take_while(|_| story.step(MOVING).mode == Mode::Stopping)
        .count();
    assert_eq!(steps as u64, Deadline::AtRest.ns() / (10 * MS));
    assert_eq!(story.step(MOVING).latched, Some(Cause::StopOverdue));
}

#[test]
fn a_person_takes_over_and_hands_back() {
    let mut story = Story::active();
    let hands = |decision: Decision| match decision.permission {
        Permission::Armed(armed) => Some(armed.hands()),
        Permission::None => None,
    };
    let decision = story.ask(
        Request::TakeOver,
        Facts {
            cameras_fresh: false,
            ..MOVING
        },
    );
    assert_eq!(
        (decision.mode, hands(decision)),
        (Mode::Takeover, Some(Hands::Person))
    );
    let blind = story.ask(
        Request::Activate,
        Facts {
            cameras_fresh: false,
            ..MOVING
        },
    );
    assert_eq!(
        (blind.mode, blind.answer),
        (Mode::Takeover, Some(Err(Refused::Camera)))
    );
    let decision = story.ask(Request::Activate, MOVING);
    assert_eq!(
        (decision.mode, hands(decision)),
        (Mode::Active, Some(Hands::Policy))
    );
    // From standby a person needs no camera and no instruction.
    let mut story = Story::standby();
    let bare = Facts {
        cameras_fresh: false,
        instructed: false,
        ..GOOD
    };
    assert_eq!(story.ask(Request::TakeOver, bare).mode, Mode::Takeover);
    let held = Facts {
        held: Some(Cause::ProposalLate),
        ..MOVING
    };
    assert_eq!(story.step(held).mode, Mode::Holding);
    assert_eq!(
        story.step(MOVING).mode,
        Mode::Takeover,
        "held, then back in the same hands"
    );
}

#[test]
fn a_governor_that_does_not_take_the_pose_over_is_not_waited_for() {
    let mut story = Story::active();
    let deaf = Facts {
        held: Some(Cause::Standby),
        ..GOOD
    };
    for _ in 0..10 {
        assert_eq!(story.step(deaf).mode, Mode::Active);
    }
    assert_eq!(story.step(deaf).latched, Some(Cause::ThreadLate));
    // One that refuses it, with a reason, ends the arming at once and says why.
    let mut story = Story::active();
    let decision = story.step(Facts {
        held: Some(Cause::PoseMoving),
        ..GOOD
    });
    assert_eq!(
        (decision.mode, decision.cause),
        (Mode::Standby, Some(Cause::PoseMoving))
    );
}

/// I7: a supervisor that says nothing more is a stop.
#[test]
fn every_permission_ends_by_itself() {
    let mut story = Story::active();
    let Permission::Armed(armed) = story.step(MOVING).permission else {
        panic!("armed")
    };
    let end = story.now.plus_ns(Deadline::Permission.ns());
    assert!(armed.epoch() == EPOCH && armed.valid(end) && !armed.valid(end.plus_ns(1)));
}

#[test]
fn a_stricter_table_is_obeyed_and_a_milder_one_refused() {
    let table = Reactions::default();
    assert!(table.stricter(Cause::StateLost, Reaction::Hold).is_err());
    let strict = table
        .stricter(Cause::ChunkEnded, Reaction::Stop)
        .expect("stricter");
    let mut story = Story {
        supervisor: Supervisor::new(strict, None),
        now: START,
    };
    story.step(GOOD);
    story.ask(Request::Activate, GOOD);
    let decision = story.step(Facts {
        held: Some(Cause::ChunkEnded),
        ..MOVING
    });
    assert_eq!(
        (decision.mode, decision.latched),
        (Mode::Stopped, Some(Cause::ChunkEnded))
    );
}

#[test]
fn the_table_names_every_cause_once_and_what_latches_is_worse_than_a_hold() {
    for (index, cause) in CAUSES.into_iter().enumerate() {
        assert_eq!(cause as usize, index + 1, "{cause:?}");
        assert_eq!(Cause::from_code(cause as u8), Some(cause));
        let latches = cause.clears() == Clears::OnAcknowledgement;
        assert_eq!(latches, cause.reaction() >= Reaction::Stop, "{cause:?}");
    }
}

#[test]
fn what_is_wrong_with_the_pictures_is_named_once_the_last_chunk_ran_out() {
    for fault in [
        Cause::CameraStuck,
        Cause::CameraBlind,
        Cause::CameraGarbage,
        Cause::CameraLate,
        Cause::CameraClock,
    ] {
        let mut story = Story::active();
        let unseen = Facts {
            cameras_fresh: false,
            camera_fault: Some(fault),
            ..MOVING
        };
        assert_eq!(story.step(unseen).mode, Mode::Active, "{fault:?}");
        let decision = story.step(Facts {
            held: Some(Cause::ChunkEnded),
            ..unseen
        });
        assert_eq!(
            (decision.mode, decision.cause),
            (Mode::Holding, Some(fault))
        );
        assert_eq!(story.step(MOVING).mode, Mode::Active, "{fault:?}");
        let spoilt = Facts {
            cameras_fresh: false,
            camera_fault: Some(fault),
            ..GOOD
        };
        check_refused(spoilt, Refused::Picture(fault));
    }
}

#[test]
fn another_camera_stops_a_policy_at_once_and_stays_latched_while_it_is_there() {
    let other = Facts {
        camera_fault: Some(Cause::CameraSwapped),
        ..MOVING
    };
    let mut story = Story::active();
    let decision = story.step(other);
    assert_eq!(
        (decision.mode, decision.latched),
        (Mode::Stopped, Some(Cause::CameraSwapped))
    );
    let rest = Facts {
        camera_fault: Some(Cause::CameraSwapped),
        ..GOOD
    };
    story.step(rest);
    let kept = story.ask(Request::Reset, rest);
    assert_eq!(kept.mode, Mode::Stopped, "{kept:?}");
    assert_eq!(story.ask(Request::Reset, GOOD).mode, Mode::Standby);
    // A person sees for himself.
    let mut person = Story::standby();
    assert_eq!(
        person.ask(Request::TakeOver, rest).answer,
        Some(Ok(Mode::Takeover))
    );
    assert_eq!(person.step(other).mode, Mode::Takeover);
}

/// What of a supervisor decides: of times only whether a timer runs, and not what it remembers for the reader.
fn shape_of(s: &Supervisor) -> [u8; 7] {
    let [seating, away, at_rest] = [Deadline::Seating, Deadline::DeadmanAway, Deadline::AtRest]
        .map(|deadline| u8::from(s.timers.over(deadline, Mono(u64::MAX))));
    let latched = s.latch.map_or(0, |latch| latch.cause as u8);
    [
        s.mode as u8,
        s.hands as u8,
        latched,
        s.grip as u8,
        seating,
        away,
        at_rest,
    ]
}

/// One of `of` by the lowest digit of `n`, which is taken off: enumerates a product without a pyramid of loops.
fn pick<T: Copy>(n: &mut usize, of: &[T]) -> T {
    let one = of[*n % of.len()];
    *n /= of.len();
    one
}

/// Every reachable state under every combination of facts, requests and run-out timers; one in `stride` of them.
fn explore(
    stride: usize,
    mut visit: impl FnMut(&Supervisor, &Supervisor, &Facts, &Decision),
) -> (HashSet<[u8; 7]>, u64) {
    use Request::{Activate, EmergencyStop, Reset, Stop, TakeOver};
    let requests = [
        None,
        Some(Activate),
        Some(TakeOver),
        Some(Reset),
        Some(Stop),
        Some(EmergencyStop),
    ];
    // One cause of the governor for each way of ending, and none.
    let helds = [
        None,
        Some(Cause::ChunkEnded),
        Some(Cause::Oscillation),
        Some(Cause::TrackingError),
    ];
    let ages = [Some(MS), Some(50 * MS), None];
    let grips = [Deadman::NotFitted, Deadman::Held, Deadman::Released];
    let lines = [EmergencyLine::Closed, EmergencyLine::Open];
    let flags = [false, true];
    let combinations =
        requests.len() * helds.len() * ages.len() * grips.len() * lines.len() * (1 << 10);

    let mut known = HashSet::new();
    let start = |latched| Supervisor::new(Reactions::default(), latched);
    let mut todo = vec![
        start(None),
        start(Some(Cause::StateLost)),
        start(Some(Cause::EmergencyLine)),
    ];
    let mut transitions = 0u64;
    while let Some(from) = todo.pop() {
        if !known.insert(shape_of(&from)) {
            continue;
        }
        for n in (0..combinations).step_by(stride) {
            let n = &mut { n };
            let request = pick(n, &requests);
            // Just now, or after every timer that may run has run out.
            let now = if pick(n, &flags) {
                START.plus_ns(MS)
            } else {
                START.plus_ns(100_000 * MS)
            };
            let sensing = pick(n, &flags);
            let facts = Facts {
                asked: request.map(|request| Asked { request, made: now }),
                held: pick(n, &helds),
                state_age_ns: pick(n, &ages),
                deadman: pick(n, &grips),
                emergency_line: pick(n, &lines),
                booted: pick(n, &flags),
                // What only arming asks for: each of these is refused alone in a test above.
                pose_within_limits: sensing,
                cameras_fresh: sensing,
                camera_fault: (!sensing).then_some(Cause::CameraSwapped),
                echo_flowing_ns: pick(n, &flags).then_some(Deadline::LinkFlowing.ns()),
                echo_age_ns: if pick(n, &flags) {
                    0
                } else {
                    Deadline::EchoLost.ns() + 1
                },
                thread_late: pick(n, &flags),
                suspended: pick(n, &flags),
                motor_restarted: pick(n, &flags),
                at_rest: pick(n, &flags),
                governor_epoch: if pick(n, &flags) { EPOCH } else { 0 },
                ..GOOD
            };
            let mut to = from.clone();
            let decision = to.step(now, &facts);
            transitions += 1;
            visit(&from, &to, &facts, &decision);
            if !known.contains(&shape_of(&to)) {
                todo.push(to);
            }
        }
    }
    (known, transitions)
}

/// All of it, or less where the tests themselves are tested (tests/mutants/run.py): 31 shares no factor with the lists.
fn stride() -> usize {
    let short = std::env::var_os("TENDON_SHORT_TESTS").is_some();
    if short { 31 } else { 1 }
}

/// I24, I25, I26, I13, I14, on everything.
#[test]
fn the_whole_machine_keeps_its_promises() {
    let (known, transitions) = explore(stride(), check_transition);
    assert!(
        known.len() > 100 && transitions > 10_000,
        "hardly anything was tried: {} states, {transitions} transitions",
        known.len()
    );
    assert!(
        known.len() > 40 && transitions > 1_000_000 / stride() as u64,
        "{} {transitions}",
        known.len()
    );
}

#[track_caller]
fn check_transition(from: &Supervisor, to: &Supervisor, facts: &Facts, decision: &Decision) {
    let asked = facts.asked.map(|asked| asked.request);
    let (was, is) = (from.mode.armed(), decision.permission != Permission::None);
    assert_eq!(
        is,
        to.mode.armed(),
        "a permission in exactly the armed modes"
    );
    // I24: motion only from standby, by an explicit request, with everything fresh. I26: with a deadman edge.
    if is && !was {
        assert!(
            matches!(asked, Some(Request::Activate | Request::TakeOver)),
            "{from:?} {facts:?}"
        );
        assert!(
            matches!(from.mode, Mode::Standby | Mode::Stopping | Mode::Boot),
            "{from:?} {facts:?}"
        );
        assert!(from.latch.is_none(), "{from:?}");
        let fresh = facts.state_age_ns == Some(MS)
            && facts.pose_within_limits
            && facts.echo_flowing_ns.is_some()
            && facts.echo_age_ns == 0
            && !(facts.thread_late || facts.suspended || facts.motor_restarted)
            && facts.at_rest
            && facts.governor_epoch == 0
            && facts.emergency_line == EmergencyLine::Closed
            && (asked == Some(Request::TakeOver)
                || (facts.cameras_fresh && facts.camera_fault.is_none()));
        assert!(fresh, "{from:?} {facts:?}");
        let edge = match facts.deadman {
            Deadman::NotFitted => true,
            Deadman::Held => from.grip != Grip::Unproven,
            Deadman::Released => false,
        };
        assert!(edge, "{from:?} {facts:?}");
    }
    // I25: any cause of a stop withdraws the permission in the same step, whatever the state.
    let stops = facts.emergency_line == EmergencyLine::Open
        || matches!(asked, Some(Request::Stop | Request::EmergencyStop))
        || was && (facts.state_age_ns.is_none() || facts.echo_age_ns > 0 || facts.thread_late)
        || was && (facts.suspended || facts.motor_restarted)
        || was
            && facts.governor_epoch == EPOCH
            && matches!(facts.held, Some(Cause::TrackingError | Cause::Oscillation));
    assert!(!(stops && is), "{from:?} {facts:?}");
    // I14: a latch is left by a reset alone, to standby, when its cause is gone and the robot is at rest.
    if from.latch.is_some() && to.latch.is_none() {
        assert_eq!(asked, Some(Request::Reset), "{from:?} {facts:?}");
        assert!(
            to.mode == Mode::Standby && !is && facts.at_rest,
            "{from:?} {facts:?}"
        );
        assert!(
            facts.emergency_line == EmergencyLine::Closed,
            "{from:?} {facts:?}"
        );
    }
    if let Some(latch) = from.latch
        && let Some(after) = to.latch
    {
        assert!(
            after.cause.reaction() >= latch.cause.reaction(),
            "a latch never gets milder: {from:?} {facts:?}"
        );
    }
    assert_eq!(
        to.mode.latched(),
        to.latch.is_some() && to.mode != Mode::Boot,
        "{from:?} {to:?}"
    );
    // An emergency stop reaches the governor in the same step.
    if to.mode == Mode::EStop {
        assert!(
            decision
                .hold
                .is_some_and(|cause| cause.reaction() == Reaction::TorqueOff),
            "{from:?} {decision:?}"
        );
    }
    assert_eq!(decision.emergency_stop, to.mode == Mode::EStop);
    assert_eq!(decision.answer.is_some(), asked.is_some());
}

/// I13, on the table: adding a cause never lowers the reaction.
#[test]
fn the_worst_cause_wins() {
    let table = Reactions::default();
    for one in CAUSES {
        for other in CAUSES {
            let both = table.worst([one, other]).map(|cause| table.of(cause));
            assert_eq!(both, Some(table.of(one).max(table.of(other))));
        }
    }
}

/// I15: all orders of any three causes, and shuffles of all of them: the reaction and what ends it are the same.
#[test]
fn the_order_of_causes_changes_nothing() {
    let table = Reactions::default();
    let judged = |causes: &[Cause]| {
        let worst = table.worst(causes.iter().copied()).expect("a cause");
        (table.of(worst), table.clears(worst))
    };
    for a in CAUSES {
        for b in CAUSES {
            for c in CAUSES {
                let orders = [[a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]];
                for order in orders {
                    assert_eq!(judged(&order), judged(&[a, b, c]), "{order:?}");
                }
            }
        }
    }
    // Longer lists: each half of the table that some stride through it gives, against the order of the table.
    for stride in (1..CAUSES.len()).filter(|stride| !CAUSES.len().is_multiple_of(*stride)) {
        let order: Vec<_> = (0..CAUSES.len())
            .map(|n| CAUSES[n * stride % CAUSES.len()])
            .collect();
        let some = &order[..CAUSES.len() / 2];
        let mut sorted = some.to_vec();
        sorted.sort_by_key(|cause| *cause as u8);
        assert_eq!(judged(some), judged(&sorted), "{order:?}");
    }
}

/// I28: the same facts give the same decisions, and only the monotonic clock counts: shifted by a day, they are the
/// same but for the shift (I27).
#[test]
fn decisions_depend_on_nothing_but_facts_and_elapsed_time() {
    let facts = [
        GOOD,
        MOVING,
        Facts {
            held: Some(Cause::ChunkEnded),
            ..MOVING
        },
        Facts {
            at_rest: true,
            ..MOVING
        },
    ];
    let run = |shift_ns: u64| {
        let mut story = Story {
            supervisor: Supervisor::new(Reactions::default(), None),
            now: START.plus_ns(shift_ns),
        };
        story.step(GOOD);
        let mut modes = vec![story.ask(Request::Activate, GOOD).mode];
        for n in 0..3_000usize {
            modes.push(story.step(facts[n * 7 % 5 % 4]).mode);
        }
        modes
    };
    assert_eq!(run(0), run(0));
    assert_eq!(run(0), run(86_400_000 * MS));
}
