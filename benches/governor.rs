// SPDX-License-Identifier: Apache-2.0
//! Cost of one governor step over the number of joints: percentiles of single steps, not means, because the tick that
//! is late is the one that matters.
//!
//! `follow`: a sine within the limits passes. `chase`: setpoints jump between the position limits, so that every step is
//! shaped and checked for a stop. `brake`: the stop itself, from full speed, again and again. `Space`: the bench robot
//! with its workspace, table and links, where each step's stop is also kept out of them.

use hdrhistogram::Histogram;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;
use tendon::config::Config;
use tendon::core::action::{JointKind, Setpoint};
use tendon::core::chunk::Provenance;
use tendon::core::governor::limits::{Coordination, Joint, JointLimits, Limits};
use tendon::core::governor::reaction::{Cause, Reactions};
use tendon::core::governor::{Deadman, EmergencyLine, Governor, Input, Proposal};
use tendon::core::observation::{Freshness, JointState};
use tendon::core::schedule::Step;
use tendon::core::supervisor::{Asked, Facts, Permission, Request, Supervisor};
use tendon::core::units::{MS, Mono};

const PERIOD_NS: u64 = 5 * MS;
const STEPS: u64 = 20_000;
/// A permission that a supervisor gave here, when everything was fresh.
const ARMED_AT: Mono = Mono(10_000 * MS);

fn main() {
    println!("governor step, us: joints, coordination, what: p50 p99 max");
    for joints in [1, 7, 14, 28, 40, 64] {
        for coordination in [Coordination::Independent, Coordination::Synchronised] {
            for what in ["follow", "chase", "brake"] {
                let governor = plain(joints, coordination);
                tell(
                    &format!("{coordination:?}"),
                    what,
                    governor,
                    &vec![0.0; joints],
                );
            }
        }
    }
    for what in ["follow", "chase", "brake"] {
        let (governor, home) = in_space();
        tell("Space", what, governor, &home);
    }
}

fn tell(named: &str, what: &str, governor: Governor, home: &[f64]) {
    let us = |ns: u64| ns as f64 * 1e-3;
    let times = measure(governor, home, what);
    println!(
        "{:3} {named} {what}: {:.2} {:.2} {:.2}",
        home.len(),
        us(times.value_at_quantile(0.5)),
        us(times.value_at_quantile(0.99)),
        us(times.max())
    );
}

/// The bench robot as deployed, and its home pose.
fn in_space() -> (Governor, Vec<f64>) {
    let config = Config::load(Path::new("deploy/bench/tendon.toml")).expect("the bench's files");
    let space = *config.robot.space.expect("the bench has a [space]");
    let governor = Governor::new(config.limits)
        .and_then(|governor| governor.within(space))
        .expect("they fit");
    let (_, home) = config.robot.poses.into_iter().next().expect("home");
    (governor, home)
}

fn plain(joints: usize, coordination: Coordination) -> Governor {
    let joint = Joint {
        kind: JointKind::Revolute,
        limits: JointLimits {
            position_min: -2.0,
            position_max: 2.0,
            velocity_max: 2.5,
            acceleration_max: 12.0,
            jerk_max: 500.0,
            tracking_error_max: f64::INFINITY,
            torque_max: f64::INFINITY,
        },
    };
    let limits = Limits::new(&vec![joint; joints], PERIOD_NS).expect("good limits");
    Governor::new(Limits {
        coordination,
        ..limits
    })
    .expect("good limits")
}

fn measure(mut governor: Governor, home: &[f64], what: &str) -> Histogram<u64> {
    let joints = home.len();
    let permission = permission();
    let mut state = JointState {
        joints,
        received: ARMED_AT,
        ..JointState::NEVER
    };
    state.position[..joints].copy_from_slice(home);
    let mut times =
        Histogram::new_with_bounds(1, 1_000_000_000, 3).expect("constant bounds are valid");
    for step in 0..STEPS {
        let wish = match what {
            "follow" => 0.1 * (step as f64 * 0.005).sin(),
            "chase" | "brake" if step / 150 % 2 == 0 => 3.0,
            _ => -3.0,
        };
        let proposal = Proposal {
            made: ARMED_AT,
            step: Step::Setpoint {
                setpoint: Setpoint::at_rest(&home.iter().map(|q| q + wish).collect::<Vec<_>>()),
                provenance: Provenance::default(),
                action: 0,
            },
        };
        let input = Input {
            proposal: Some(&proposal),
            state: Freshness::Fresh(&state),
            permission,
            hold: (what == "brake" && step % 150 > 60).then_some(Cause::CameraLost),
            emergency_stop: false,
            speed_scale: 1.0,
            emergency_line: EmergencyLine::NotFitted,
            deadman: Deadman::NotFitted,
        };
        let began = Instant::now();
        let output = governor.step(black_box(ARMED_AT), black_box(&input));
        times.saturating_record(began.elapsed().as_nanos() as u64);
        state.position = output.command.get().position;
    }
    times
}

/// Only a supervisor gives one.
fn permission() -> Permission {
    let mut supervisor = Supervisor::new(Reactions::default(), None);
    let mut facts = Facts {
        asked: None,
        booted: true,
        state_age_ns: Some(0),
        state_age_max_ns: 25 * MS,
        pose_within_limits: true,
        measured_at_rest: true,
        cameras_fresh: true,
        camera_fault: None,
        instructed: true,
        echo_flowing_ns: Some(2_000 * MS),
        echo_age_ns: 0,
        commands_refused: false,
        motor_restarted: false,
        thread_late: false,
        suspended: false,
        emergency_line: EmergencyLine::NotFitted,
        deadman: Deadman::NotFitted,
        held: None,
        governor_epoch: 0,
        at_rest: true,
        next_epoch: 7,
    };
    supervisor.step(ARMED_AT, &facts);
    facts.asked = Some(Asked {
        request: Request::Activate,
        made: ARMED_AT,
    });
    supervisor.step(ARMED_AT, &facts).permission
}
