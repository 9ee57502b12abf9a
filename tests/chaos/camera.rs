// SPDX-License-Identifier: Apache-2.0
//! The camera goes silent, or shows one picture for ever, while the robot moves: judged by the commands on the wire.
//!
//! Two things run from the last good picture on. What is wrong with the camera is found: silence after 2.5 of its periods or,
//! as here where no rate is declared, `age_max_ms`; a picture that repeats at its third repeat. And the plan that was made of that picture
//! is followed to its end, as it is still good: the supervisor holds for a camera only who has no plan any more. So no plan is made of what the
//! camera shows from the fault on, the hold begins when the last plan ends, and it is called by the camera's name as soon as the
//! watchdog has seen both.

use crate::canary::told;
use crate::stage::{Setting, Stage, locked, repeats, until};
use crate::{ACTION_MS, TICK_MS, WATCH_MS, plan_ms};
use tendon::bench::lens::PictureFault;
use tendon::bench::process::Request;
use tendon::core::governor::Verdict;
use tendon::core::governor::reaction::Cause;
use tendon::core::units::Mono;
use tendon::link::keys;
use tendon::runtime::clock;

/// The later of the two, off: `age_max_ms` of the deployment, and a round of the capture thread.
const FOUND_MS: u64 = 150 + 20;
/// From then, or from the end of the plan, until a command says so: a round of the watchdog, a tick each of governor and egress.
const NAMED_MS: u64 = WATCH_MS + 2 * TICK_MS;

/// Returns the time just after: no picture that was taken later is a good one.
#[track_caller]
fn becomes(stage: &Stage, fault: PictureFault) -> Mono {
    let answer = stage.ask_bench(&Request::Camera(fault));
    assert!(answer.is_ok(), "{fault:?}: {answer:?}");
    clock::now()
}

#[test]
fn a_camera_that_is_silent_or_stuck_is_a_hold_when_the_last_plan_ends() {
    told(|| {
        // Its last action is held for as long as any other.
        let ends_ms = plan_ms() + ACTION_MS + 2 * TICK_MS;
        assert!(FOUND_MS < plan_ms(), "found before the plan ends");
        let rows = [
            ("camera off", PictureFault::Off, Cause::CameraLost),
            ("camera stuck", PictureFault::Stuck, Cause::CameraStuck),
        ];
        let mut stage = Stage::new(&Setting::default());
        for (name, fault, cause) in (0..repeats()).flat_map(|_| rows) {
            let struck = becomes(&stage, fault);
            stage.held_within(name, struck, ends_ms);
            let verdict = Verdict::Held(cause).code();
            let called = format!("{name}, called so");
            stage.held_as_within(&called, struck, ends_ms + NAMED_MS, |as_is| {
                as_is == verdict
            });
            // Told by who looks fifty times a second.
            until("the status says so", || {
                let said = stage.ask(keys::mode, "status");
                said.is_ok_and(|said| said.ends_with(cause.words()))
            });
            locked(&stage.commands, |commands| {
                let later = commands.iter().filter(|sent| sent.captured > struck);
                assert_eq!(
                    later.count(),
                    0,
                    "{name}: a plan was made of what it showed then"
                );
            });
            // It goes on by itself.
            becomes(&stage, PictureFault::None);
            until("the robot follows again", || {
                locked(&stage.commands, |commands| {
                    let mut newest = commands.iter().rev().take(5);
                    newest.all(|sent| !sent.held && sent.captured > struck)
                })
            });
            stage.within_limits();
            // A plan that is begun from rest ends later by its delay: each fault strikes one of those that follow it.
            stage.until_granted(keys::mode, "standby");
            stage.arm();
        }
    });
}
