// SPDX-License-Identifier: Apache-2.0
//! Merge rules.

use super::*;

#[test]
fn whatever_the_rule_a_seam_is_smooth() {
    let chunks = [(60, line(1, 10, 0.0, 0.5)), (260, line(2, 210, 0.13, 0.5))];
    for rule in RULES {
        let positions = run(rule, 0.0, &chunks, 600);
        assert!(positions.len() > 100);
        smooth(&positions, &[]);
    }
}

/// Two overlapping constant plans at 0 and 1, of 1.6 and 3 s.
fn two_plans() -> [(u64, Chunk); 2] {
    [
        (60, long_line(1, 10, 0.0, 0.0, 32)),
        (260, long_line(2, 210, 1.0, 0.0, 60)),
    ]
}

/// Where joint 0 is once the motion to the mixed plan is over, before the first plan begins to drop out.
fn settled(rule: Merge) -> f64 {
    *run(rule, 0.0, &two_plans(), 1_200)
        .last()
        .expect("a setpoint before the first plan's end")
}

#[test]
fn a_plan_that_ends_leaves_the_mean_without_a_jump() {
    for rule in RULES {
        let mut config = config(rule);
        config.chunk_age_max_ns = 4_000 * MS;
        let positions = run_with(config, 0.0, &two_plans(), 3_400);
        smooth(&positions, &[]);
        let last = positions.last().expect("a setpoint");
        assert!((0.7..1.01).contains(last), "{rule:?} ends at {last}");
    }
}

#[test]
fn each_rule_mixes_as_it_says() {
    let close =
        |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-3, "{found} {wanted}");
    close(settled(Merge::Replace), 1.0);
    close(
        settled(Merge::Aggregate(merge::Aggregate::WeightedAverage)),
        0.7,
    );
    close(settled(Merge::Aggregate(merge::Aggregate::LatestOnly)), 1.0);
    close(settled(Merge::Aggregate(merge::Aggregate::Average)), 0.5);
    close(
        settled(Merge::Aggregate(merge::Aggregate::Conservative)),
        0.3,
    );
    let weight = (-0.5_f64).exp();
    let oldest = Merge::Ensemble {
        decay: 0.5,
        order: merge::Order::OldestFirst,
    };
    close(settled(oldest), weight / (1.0 + weight));
    let newest = Merge::Ensemble {
        decay: 0.5,
        order: merge::Order::NewestFirst,
    };
    close(settled(newest), 1.0 / (1.0 + weight));
}

#[test]
fn the_running_mean_of_a_line_lags_by_half_its_length() {
    let chunks = [
        (60, long_line(1, 10, 0.0, 0.5, 32)),
        (260, long_line(2, 210, 0.1, 0.5, 32)),
    ];
    // Of a robot that nothing slows.
    let run = |merge| {
        let mut config = config(merge);
        for limits in &mut config.limits {
            (limits.acceleration_max, limits.jerk_max) = (1e3, 1e5);
        }
        run_with(config, 0.0, &chunks, 1_000)
    };
    let as_it_is = run(Merge::Replace);
    let mean = run(Merge::Smooth { last: 5 });
    let lag = as_it_is[150] - mean[150];
    assert!(
        (lag - 0.5 * 0.1).abs() < 1e-3,
        "two periods of 50 ms at 0.5 rad/s: {lag}"
    );
}
