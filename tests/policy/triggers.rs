// SPDX-License-Identifier: Apache-2.0
//! When the shipped policy is asked: each trigger does the task on the bench, with fewer plans than asking all the time, and
//! one that would starve the robot is refused by its key.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use tendon::config::Config;
use tendon::core::schedule::trigger::{Left, Trigger};
use tendon::policy::ParityMiss;
use tendon::runtime::demo;
use tendon::runtime::deployment::Deployment;

fn config(trigger: Trigger) -> Config {
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla");
    let mut config = demo::bench_config(&bundle, false).expect("the bench's deployment");
    config.policy.trigger = trigger;
    config
}

#[test]
fn each_trigger_does_the_task_with_fewer_plans_and_without_a_stall() {
    let mut always = None;
    for (trigger, injected_ms) in [
        (Trigger::Continuous, 0),
        (Trigger::Horizon { actions: 8 }, 0),
        (Trigger::Horizon { actions: 8 }, 150),
        (Trigger::Queue(Left::Share(0.5)), 300),
        (Trigger::Queue(Left::Actions(4)), 0),
        (
            Trigger::Surprise {
                tracking_max: 0.15,
                scene_max: 0.02,
            },
            0,
        ),
    ] {
        let report = demo::lockstep(
            config(trigger),
            4,
            7,
            injected_ms,
            ParityMiss::Refuse,
            None,
            &AtomicBool::new(false),
        );
        let report = report.expect("a run");
        let plans = report.chunks;
        println!(
            "{trigger:?}, {injected_ms} ms: {} of {}, {plans} plans, ran out {} times",
            report.successes, report.episodes, report.ladder.stalls
        );
        assert_eq!(report.limit_violations, 0);
        assert_eq!(report.ladder.stalls, 0, "{trigger:?}");
        if injected_ms == 0 {
            assert_eq!(report.successes, report.episodes, "{trigger:?}");
        }
        let always = *always.get_or_insert(plans);
        assert!(
            trigger == Trigger::Continuous || plans < always,
            "{plans} of {always}"
        );
    }
}

#[test]
fn a_trigger_that_starves_is_refused_by_its_key() {
    for (trigger, key) in [
        (Trigger::Horizon { actions: 14 }, "policy.execute_actions"),
        (Trigger::Queue(Left::Actions(1)), "policy.queue_actions"),
        (Trigger::Queue(Left::Share(0.05)), "policy.queue_share"),
    ] {
        let problems = Deployment::load(config(trigger)).err().expect("a refusal");
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(words.iter().any(|line| line.contains(key)), "{words:?}");
    }
}
