// SPDX-License-Identifier: Apache-2.0
//! The supervisor at the edge of each rule: the last moment at which all is well, and the first at which it is not.

use super::*;

#[test]
fn every_mode_has_its_code_and_its_word() {
    use Mode::{Active, Boot, EStop, Holding, Standby, Stopped, Stopping, Takeover};
    let modes = [
        Standby, Active, Holding, Stopping, Stopped, EStop, Takeover, Boot,
    ];
    for (code, mode) in (0..).zip(modes) {
        assert_eq!((Mode::from_code(code), mode as u8), (Some(mode), code));
    }
    assert_eq!(Mode::from_code(8), None);
    let words: HashSet<&str> = modes.into_iter().map(Mode::word).collect();
    assert!(words.len() == 8 && words.contains("standby") && words.contains("holding"));
    for mode in modes {
        assert_eq!(
            mode.armed(),
            matches!(mode, Active | Holding | Takeover),
            "{mode:?}"
        );
        assert_eq!(mode.latched(), matches!(mode, Stopped | EStop), "{mode:?}");
    }
}

#[test]
fn deadlines_are_as_long_as_they_say() {
    use Deadline::{
        AtRest, DeadmanAway, EchoLost, LinkFlowing, Permission, Request, Seating, StateLost,
    };
    let ms = [
        (Permission, 40),
        (LinkFlowing, 1_000),
        (StateLost, 100),
        (EchoLost, 100),
        (Seating, 100),
        (DeadmanAway, 1_000),
        (AtRest, 3_000),
        (Request, 2_000),
    ];
    for (deadline, ms) in ms {
        assert_eq!(deadline.ns(), ms * MS, "{deadline:?}");
        let mut timers = Timers::default();
        assert!(!timers.run_while(deadline, true, START));
        // Started once; asking again does not put it off.
        let due = START.plus_ns(ms * MS);
        assert!(!timers.run_while(deadline, true, due.minus_ns(1)));
        assert!(timers.over(deadline, due));
        timers.stop(deadline);
        assert!(!timers.over(deadline, due) && timers == Timers::default());
    }
}

/// What the governor says counts for the arming that it says it about; its standby is no finding.
#[test]
fn the_governor_is_believed_about_this_arming_alone() {
    let mut story = Story::standby();
    let of_another = Facts {
        held: Some(Cause::TrackingError),
        ..GOOD
    };
    let decision = story.step(of_another);
    assert_eq!((decision.mode, decision.latched), (Mode::Standby, None));
    let mut story = Story::active();
    let before = Facts {
        governor_epoch: EPOCH - 1,
        held: Some(Cause::TrackingError),
        ..MOVING
    };
    assert_eq!(story.step(before).mode, Mode::Active);
    let standby = Facts {
        held: Some(Cause::Standby),
        ..MOVING
    };
    let decision = story.step(standby);
    assert_eq!((decision.mode, decision.cause), (Mode::Active, None));
    let ours = Facts {
        held: Some(Cause::TrackingError),
        ..MOVING
    };
    assert_eq!(story.step(ours).mode, Mode::Stopped);
    // A pose that cannot be taken over ends the arming, though the governor never entered it.
    let mut story = Story::active();
    let outside = Facts {
        governor_epoch: 0,
        held: Some(Cause::PoseOutside),
        ..GOOD
    };
    assert_ne!(story.step(outside).mode, Mode::Active);
}

/// Exactly as old as it may be, and one nanosecond older.
#[test]
fn ages_count_from_the_first_nanosecond_too_many() {
    let state = |age_ns| Facts {
        state_age_ns: Some(age_ns),
        ..MOVING
    };
    let slow = |age_ns| Facts {
        state_age_max_ns: 200 * MS,
        ..state(age_ns)
    };
    let echo = |age_ns| Facts {
        echo_age_ns: age_ns,
        ..MOVING
    };
    for (facts, mode) in [
        (state(20 * MS), Mode::Active),
        (state(20 * MS + 1), Mode::Holding),
        (state(100 * MS), Mode::Holding),
        (state(100 * MS + 1), Mode::Stopped),
        (slow(200 * MS), Mode::Active),
        (slow(200 * MS + 1), Mode::Stopped),
        (echo(100 * MS), Mode::Active),
        (echo(100 * MS + 1), Mode::Stopped),
    ] {
        assert_eq!(Story::active().step(facts).mode, mode, "{facts:?}");
    }
}

#[test]
fn a_cause_that_remains_is_named_to_the_last_nanosecond() {
    let lost = Facts {
        state_age_ns: None,
        ..MOVING
    };
    let silent = Facts {
        echo_age_ns: 500 * MS,
        ..MOVING
    };
    let state = |age_ns| Facts {
        state_age_ns: Some(age_ns),
        ..GOOD
    };
    let echo = |age_ns| Facts {
        echo_age_ns: age_ns,
        ..GOOD
    };
    let remains = |cause| Some(Err(Refused::CauseRemains(cause)));
    for (broken, mended, answer) in [
        (lost, state(20 * MS + 1), remains(Cause::StateLost)),
        (lost, state(20 * MS), Some(Ok(Mode::Standby))),
        (silent, echo(100 * MS + 1), remains(Cause::EchoLost)),
        (silent, echo(100 * MS), Some(Ok(Mode::Standby))),
    ] {
        let mut story = Story::active();
        assert_eq!(story.step(broken).mode, Mode::Stopped);
        story.step(GOOD);
        assert_eq!(
            story.ask(Request::Reset, mended).answer,
            answer,
            "{mended:?}"
        );
    }
    // A stop that did not end is over when the robot rests.
    let mut story = Story::active();
    story.ask(Request::Stop, MOVING);
    while story.step(MOVING).mode != Mode::EStop && story.supervisor.latch.is_none() {}
    assert_eq!(story.step(MOVING).latched, Some(Cause::StopOverdue));
    assert_eq!(
        story.ask(Request::Reset, MOVING).answer,
        remains(Cause::StopOverdue)
    );
    assert_eq!(
        story.ask(Request::Reset, GOOD).answer,
        Some(Ok(Mode::Standby))
    );
}

#[test]
fn a_request_counts_for_its_time_and_a_reset_after_its_cause() {
    let asked = |request, made| Facts {
        asked: Some(Asked { request, made }),
        ..GOOD
    };
    for (age_ns, answer) in [
        (0, Ok(Mode::Active)),
        (2_000 * MS, Ok(Mode::Active)),
        (2_000 * MS + 1, Err(Refused::TooOld)),
    ] {
        let mut story = Story::standby();
        let made = story.now.plus_ns(10 * MS).minus_ns(age_ns);
        let decision = story.step(asked(Request::Activate, made));
        assert_eq!(decision.answer, Some(answer), "{age_ns}");
    }
    let mut story = Story::standby();
    let soon = story.now.plus_ns(10 * MS + 1);
    assert_eq!(
        story.step(asked(Request::Activate, soon)).answer,
        Some(Err(Refused::TooOld))
    );
    for (later_ns, answer) in [(0, Err(Refused::ResetTooEarly)), (1, Ok(Mode::Standby))] {
        let mut story = Story::active();
        story.ask(Request::EmergencyStop, MOVING);
        let struck = story.now;
        let decision = story.step(asked(Request::Reset, struck.plus_ns(later_ns)));
        assert_eq!(decision.answer, Some(answer), "{later_ns}");
    }
}

/// Zero is the governor that never was armed.
#[test]
fn arming_has_a_number_that_is_not_zero() {
    let mut story = Story::standby();
    let decision = story.ask(
        Request::Activate,
        Facts {
            next_epoch: 0,
            ..GOOD
        },
    );
    let Permission::Armed(armed) = decision.permission else {
        panic!("{decision:?}");
    };
    assert_eq!(armed.epoch(), 1);
    assert!(armed.valid(story.now.plus_ns(Deadline::Permission.ns())));
    assert!(!armed.valid(story.now.plus_ns(Deadline::Permission.ns() + 1)));
}

/// I14: a latch is as young as its cause was last seen, not as it was first.
#[test]
fn a_reset_from_while_the_cause_was_there_does_not_count() {
    let open = Facts {
        emergency_line: EmergencyLine::Open,
        ..GOOD
    };
    let mut story = Story::standby();
    assert_eq!(story.step(open).mode, Mode::EStop);
    let made = story.now.plus_ns(15 * MS);
    story.step(open);
    assert_eq!(story.step(open).latched, Some(Cause::EmergencyLine));
    let early = Facts {
        asked: Some(Asked {
            request: Request::Reset,
            made,
        }),
        ..GOOD
    };
    assert_eq!(story.step(early).answer, Some(Err(Refused::ResetTooEarly)));
    assert_eq!(
        story.ask(Request::Reset, GOOD).answer,
        Some(Ok(Mode::Standby))
    );
}

#[test]
fn a_reset_without_a_latch_is_refused_with_the_reason() {
    let mut story = Story::standby();
    let decision = story.ask(Request::Reset, GOOD);
    assert_eq!(decision.answer, Some(Err(Refused::NotLatched)));
    let mut story = Story {
        supervisor: Supervisor::new(Reactions::default(), None),
        now: START,
    };
    let starting = Facts {
        booted: false,
        ..GOOD
    };
    let decision = story.ask(Request::Reset, starting);
    assert_eq!(decision.answer, Some(Err(Refused::Booting)));
}
