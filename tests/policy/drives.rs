// SPDX-License-Identifier: Apache-2.0
//! The shipped bundle drives: right numbers in, right numbers out, and nothing when something is wrong.

use crate::fixture::{Copy, JOINTS, cpu, no_clock, parrot, plain, ready, say, shipped, state};
use tendon::config::Precision;
use tendon::core::action::JointKind;
use tendon::core::units::Mono;
use tendon::policy::describe::describe;
use tendon::policy::tensors::TensorFile;
use tendon::policy::text::InstructionFault;
use tendon::policy::{InferFault, LoadOptions, Output, Policy};
use tendon::ports::Frame;

/// Somewhere above the table.
const ABOVE: [f64; 7] = [0.1, 0.6, -1.4, 0.0, -0.8, 0.0, 0.0];

#[test]
fn both_precisions_reproduce_the_fixture() {
    for precision in [Precision::Fp32, Precision::Int8] {
        let options = LoadOptions {
            precision,
            ..LoadOptions::default()
        };
        let policy = Policy::load(&shipped(), options, &cpu).expect("the shipped bundle loads");
        println!("{precision:?}: {}", policy.parity());
        assert!(
            policy.parity().missed.is_empty(),
            "{precision:?}: {}",
            policy.parity()
        );
        assert!(
            policy.parity().cosine >= 0.999,
            "{precision:?}: {}",
            policy.parity()
        );
    }
}

#[test]
fn gives_a_chunk_with_times_and_telemetry() {
    let mut policy = ready();
    let ticks = std::cell::Cell::new(0);
    let clock = || {
        ticks.set(ticks.get() + 10);
        Mono(ticks.get())
    };
    let inference = policy
        .infer(&plain([90, 120, 60]), &state(ABOVE), &clock)
        .expect("a chunk");
    assert_eq!(inference.targets.len(), 16 * 7);
    assert!(inference.targets.iter().all(|value| value.is_finite()));
    assert!(
        inference
            .targets
            .chunks_exact(7)
            .all(|action| action[6] == 0.0 || action[6] == 1.0)
    );
    assert!(
        inference
            .presence
            .is_some_and(|presence| (0.0..=1.0).contains(&presence))
    );
    assert!(inference.keypoint.is_some());
    let timing = inference.timing;
    assert_eq!(
        [timing.preprocess_ns, timing.engine_ns, timing.decode_ns],
        [10, 10, 10]
    );
}

/// The parrot says 0 in normalised space, which is the mean of training: what is added to it is the joint state.
#[test]
fn adds_the_observed_state_to_relative_joints_only() {
    let (mut policy, _, _) = parrot();
    let frame = plain([0; 3]);
    let rest = policy
        .infer(&frame, &state([0.0; 7]), &no_clock)
        .expect("a chunk")
        .targets
        .to_vec();
    let moved = policy
        .infer(
            &frame,
            &state([0.5, -0.5, 0.25, 1.0, 2.0, -1.0, 1.0]),
            &no_clock,
        )
        .expect("a chunk");
    let added: Vec<f32> = moved
        .targets
        .iter()
        .zip(&rest)
        .map(|(moved, rest)| moved - rest)
        .collect();
    for action in added.chunks_exact(7) {
        // Forearm and tool roll are absolute in this bundle, and the gripper always is.
        for (found, want) in action.iter().zip([0.5, -0.5, 0.25, 0.0, 2.0, 0.0, 0.0]) {
            assert!((found - want).abs() < 1e-6, "{action:?}");
        }
    }
}

#[test]
fn another_thread_gets_the_same_numbers() {
    let mut policy = ready();
    let here = policy
        .infer(&plain([90, 120, 60]), &state(ABOVE), &no_clock)
        .expect("a chunk")
        .targets
        .to_vec();
    let there = std::thread::spawn(move || {
        let inference = policy
            .infer(&plain([90, 120, 60]), &state(ABOVE), &no_clock)
            .expect("a chunk");
        inference.targets.to_vec()
    });
    assert_eq!(there.join().expect("no panic"), here);
}

/// The trained policy, by a figure that any good one has: it goes to the named block, and stays when there is none.
#[test]
fn an_empty_picture_moves_nothing_far() {
    let mut policy = ready();
    let inference = policy
        .infer(&plain([128; 3]), &state(ABOVE), &no_clock)
        .expect("a chunk");
    let far = inference
        .targets
        .chunks_exact(7)
        .flat_map(|action| action.iter().zip(ABOVE).take(6));
    let far = far
        .map(|(target, now)| (f64::from(*target) - now).abs())
        .fold(0.0, f64::max);
    assert!(
        far < 0.2,
        "{far} rad on a grey picture, presence {:?}",
        inference.presence
    );
}

#[test]
fn another_joint_order_of_the_robot_gives_the_same_joints_in_that_order() {
    let mut policy = ready();
    let frame = plain([90, 120, 60]);
    let straight = policy
        .infer(&frame, &state(ABOVE), &no_clock)
        .expect("a chunk")
        .targets
        .to_vec();
    let mut reversed = JOINTS;
    reversed.reverse();
    policy.bind(&reversed).expect("the same joints");
    let mut above = ABOVE;
    above.reverse();
    let turned = policy
        .infer(&frame, &state(above), &no_clock)
        .expect("a chunk");
    for (turned, straight) in turned.targets.chunks_exact(7).zip(straight.chunks_exact(7)) {
        assert!(turned.iter().rev().eq(straight), "{turned:?} {straight:?}");
    }
}

#[test]
fn the_graph_is_fed_what_the_manifest_says() {
    let (mut policy, _, heard) = parrot();
    let instruction = policy
        .set_instruction("Touch, the RED block!")
        .expect("short");
    assert_eq!(
        (
            instruction.used,
            instruction.unknown.len(),
            instruction.tokens.len()
        ),
        (4, 0, 16)
    );
    let mut holding = state([0.0; 7]);
    policy
        .infer(&plain([255, 51, 0]), &holding, &no_clock)
        .expect("a chunk");
    let empty = heard.lock().expect("no panic")[1]
        .f32()
        .expect("floats")
        .to_vec();
    holding.holding = true;
    policy
        .infer(&plain([255, 51, 0]), &holding, &no_clock)
        .expect("a chunk");
    let inputs = heard.lock().expect("no panic");
    let (image, state) = (
        inputs[0].f32().expect("floats"),
        inputs[1].f32().expect("floats"),
    );
    let plane = 96 * 96;
    assert!(
        image[..plane].iter().all(|value| *value == 1.0),
        "red first"
    );
    assert!(
        image[plane..2 * plane].iter().all(|value| *value == 0.2),
        "then green, times 1/255"
    );
    assert!(
        image[2 * plane..].iter().all(|value| *value == 0.0),
        "then blue"
    );
    assert_eq!(state[..7], empty[..7], "only the sensor differs");
    assert!(state[7] > empty[7], "an object is held");
}

#[test]
fn a_gripper_closes_at_its_threshold() {
    let (mut policy, says, _) = parrot();
    let threshold = policy.bundle().action.gripper_threshold;
    let bytes = std::fs::read(shipped().join("stats.safetensors")).expect("statistics");
    let file = TensorFile::parse("stats", &bytes).expect("statistics");
    let figure = |key: &str| file.f32(key, &[7]).expect("statistics")[6];
    let (mean, std) = (figure("action.mean"), figure("action.std"));
    for (offset, want) in [(-0.01, 0.0), (0.01, 1.0)] {
        let wish = (threshold + offset - mean) / std;
        say(&says, 0, |values| {
            values
                .iter_mut()
                .skip(6)
                .step_by(7)
                .for_each(|value| *value = wish)
        });
        let inference = policy
            .infer(&plain([0; 3]), &state(ABOVE), &no_clock)
            .expect("a chunk");
        assert!(
            inference
                .targets
                .chunks_exact(7)
                .all(|action| action[6] == want),
            "{offset}"
        );
    }
}

#[test]
fn an_output_that_is_not_finite_is_refused_whole() {
    let outputs = [
        (0, 17, Output::Action),
        (1, 1, Output::Keypoint),
        (2, 0, Output::Presence),
    ];
    for ((index, at, output), value) in
        outputs
            .into_iter()
            .zip([f32::NAN, f32::INFINITY, f32::NEG_INFINITY])
    {
        let (mut policy, says, _) = parrot();
        let frame = plain([0; 3]);
        policy
            .infer(&frame, &state(ABOVE), &no_clock)
            .expect("a chunk");
        say(&says, index, |values| values[at] = value);
        let found = policy.infer(&frame, &state(ABOVE), &no_clock).map(|_| ());
        assert_eq!(found, Err(InferFault::NotFinite { output, at }));
        say(&says, index, |values| values[at] = 0.0);
        policy
            .infer(&frame, &state(ABOVE), &no_clock)
            .expect("the next good one counts");
    }
}

#[test]
fn a_target_that_overflows_is_refused_whole() {
    let (mut policy, says, _) = parrot();
    say(&says, 0, |values| values[15] = f32::MAX);
    let mut far = state(ABOVE);
    far.position[1] = f64::from(f32::MAX);
    let found = policy.infer(&plain([0; 3]), &far, &no_clock).map(|_| ());
    assert_eq!(
        found,
        Err(InferFault::NotFinite {
            output: Output::Action,
            at: 15
        })
    );
}

#[track_caller]
fn refuses(policy: &mut Policy, frame: &Frame, position: [f64; 7], joints: usize, want: &str) {
    let mut state = state(position);
    state.joints = joints;
    match policy.infer(frame, &state, &no_clock) {
        Ok(_) => panic!("expected \"{want}\", found a chunk"),
        Err(fault) => assert!(
            fault.to_string().contains(want),
            "expected \"{want}\", found \"{fault}\""
        ),
    }
}

#[test]
fn wrong_observations_are_refused() {
    let mut policy = ready();
    let frame = plain([0; 3]);
    refuses(
        &mut policy,
        &Frame::black(640, 480),
        ABOVE,
        7,
        "expected a frame of 224x224, found 640x480",
    );
    let mut short = plain([0; 3]);
    short.rgb.truncate(100);
    refuses(&mut policy, &short, ABOVE, 7, "with 100 bytes");
    refuses(
        &mut policy,
        &frame,
        ABOVE,
        6,
        "expected the state of 7 joints, found 6",
    );
    refuses(
        &mut policy,
        &frame,
        [0.0, f64::NAN, 0.0, 0.0, 0.0, 0.0, 0.0],
        7,
        "position of joint 1",
    );
    refuses(
        &mut policy,
        &frame,
        [0.0, 0.0, 0.0, f64::INFINITY, 0.0, 0.0, 0.0],
        7,
        "position of joint 3",
    );
    let mut fresh = Policy::load(&shipped(), LoadOptions::default(), &cpu).expect("loads");
    refuses(&mut fresh, &frame, ABOVE, 7, "not bound");
    fresh.bind(&JOINTS).expect("joints");
    refuses(&mut fresh, &frame, ABOVE, 7, "no instruction");
}

#[test]
fn a_long_sentence_is_never_cut() {
    let mut policy = ready();
    let long = "touch the red block and ".repeat(4);
    assert_eq!(
        policy.set_instruction(&long),
        Err(InstructionFault::TooManyTokens { found: 20, max: 16 })
    );
    let huge = "red ".repeat(100_000);
    assert!(matches!(
        policy.set_instruction(&huge),
        Err(InstructionFault::TooManyBytes { .. })
    ));
    let exact = "red ".repeat(16);
    assert_eq!(
        policy
            .set_instruction(&exact)
            .map(|instruction| instruction.used),
        Ok(16)
    );
    policy
        .infer(&plain([0; 3]), &state(ABOVE), &no_clock)
        .expect("it goes on");
}

#[test]
fn words_that_the_policy_never_saw_are_named() {
    let mut policy = ready();
    let instruction = policy
        .set_instruction("touch the crimson block, s\u{e9}\u{f1}or")
        .expect("short");
    assert_eq!(instruction.unknown, ["crimson", "s\u{e9}\u{f1}or"]);
    assert_eq!(
        policy
            .set_instruction("")
            .map(|instruction| instruction.used),
        Ok(0)
    );
}

#[track_caller]
fn refuses_joints(joints: &[(&str, JointKind)], wants: &[&str]) {
    let mut policy = ready();
    let problems = policy.bind(joints).expect_err("another robot");
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for want in wants {
        assert!(
            text.iter().any(|line| line.contains(want)),
            "expected \"{want}\" in {text:#?}"
        );
    }
}

#[test]
fn another_robot_is_refused() {
    refuses_joints(&JOINTS[..6], &["\"gripper\""]);
    refuses_joints(&[], &["\"base_yaw\"", "\"gripper\""]);
    let mut more = JOINTS.to_vec();
    more.push(("rail", JointKind::Prismatic));
    refuses_joints(&more, &["the robot's joint \"rail\""]);
    let mut other = JOINTS;
    other[2].1 = JointKind::Prismatic;
    refuses_joints(
        &other,
        &[
            "tendon.action.units of \"elbow_pitch\"",
            "tendon.state.units of \"elbow_pitch\"",
        ],
    );
}

#[test]
fn a_refused_robot_leaves_the_policy_as_it_was() {
    let mut policy = ready();
    policy.bind(&JOINTS[..3]).expect_err("another robot");
    policy
        .infer(&plain([0; 3]), &state(ABOVE), &no_clock)
        .expect("a chunk");
}

#[test]
fn a_bundle_is_described() {
    let copy = Copy::new();
    let policy = copy.load(LoadOptions::default()).expect("loads");
    let text = describe(policy.bundle());
    for want in [
        "bench_vla",
        "image f32 [1, 3, 96, 96]",
        "camera \"front\" 224x224 -> 96x96",
        "16 actions, 50 ms apart",
        "SHA-256 ok",
        "base_yaw [rad, +state]",
    ] {
        assert!(text.contains(want), "expected \"{want}\" in\n{text}");
    }
    assert_eq!(
        text.matches("SHA-256 ok").count(),
        policy.bundle().files.len()
    );
}
