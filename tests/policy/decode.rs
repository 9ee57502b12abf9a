// SPDX-License-Identifier: Apache-2.0
//! Decoders against vectors made by the families' own formulas (`engines/families/golden_decode.py`), and the traps in
//! which a robot moves with wrong numbers and nothing complains.

use serde_json::Value;
use std::sync::LazyLock;
use tendon::policy::decode::bins::{
    Rt1Entry, Rt1Tokens, TextField, TextIntegers, VocabularyTail, bin_value, digitise,
};
use tendon::policy::decode::diffusion::{
    Betas, Diffusion, DiffusionFile, Prediction, Scheduler, betas,
};
use tendon::policy::decode::fast::{Fast, FastFile, inverse_dct};
use tendon::policy::decode::flow::{Flow, FlowGrid, FlowTime};
use tendon::policy::decode::post::{Post, Steps};
use tendon::policy::decode::{Invalid, argmax, doubt};

static GOLDEN: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("golden/decode.json")).expect("golden vectors")
});

fn floats(value: &Value) -> Vec<f32> {
    let list = value.as_array().expect("a list");
    list.iter()
        .map(|x| x.as_f64().expect("a number") as f32)
        .collect()
}

fn whole(value: &Value) -> Vec<i32> {
    let list = value.as_array().expect("a list");
    list.iter()
        .map(|x| x.as_i64().expect("a whole number") as i32)
        .collect()
}

#[track_caller]
fn near(found: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= bound,
            "at {at}: expected {expected}, found {found}"
        );
    }
}

fn openvla() -> VocabularyTail {
    VocabularyTail {
        vocab: 32_000,
        bins: 256,
        low: -1.0,
        high: 1.0,
    }
}

#[test]
fn openvla_reads_every_action_token_as_the_reference_does() {
    let golden = &GOLDEN["openvla"];
    let found: Vec<f32> = whole(&golden["ids"])
        .into_iter()
        .map(|id| openvla().value(0, i64::from(id)).expect("an action token"))
        .collect();
    assert_eq!(found, floats(&golden["values"]));
    for (id, value) in [
        (31_999, -0.996_078),
        (31_998, -0.988_235),
        (31_872, 0.0),
        (31_745, 0.996_078),
        (31_744, 0.996_078),
    ] {
        near(
            &[openvla().value(0, id).expect("an action token")],
            &[value],
            1e-6,
        );
    }
}

/// The reference clips `</s>` and the space to +0.996: full speed.
#[test]
fn openvla_takes_no_other_token_for_an_action() {
    for id in [2, 29_871, 31_743, 32_000, -1, i64::MAX, i64::MIN] {
        let found = openvla().value(3, id);
        assert!(
            matches!(found, Err(Invalid::Token { at: 3, .. })),
            "{id}: {found:?}"
        );
    }
    let mut logits = vec![0.0; 32_064];
    logits[2] = 100.0;
    logits[31_800] = 1.0;
    assert_eq!(openvla().pick(&logits, 0), Ok(31_800));
    assert_eq!(openvla().pick(&logits[31_744..32_000], 31_744), Ok(31_800));
    assert!(openvla().pick(&logits[..31_999], 0).is_err());
    logits[31_900] = f32::NAN;
    assert!(openvla().pick(&logits, 0).is_err());
}

#[test]
fn the_state_in_a_prompt_has_the_references_bins_with_their_quirks() {
    let golden = &GOLDEN["digitize"];
    let found: Vec<i32> = floats(&golden["x"])
        .into_iter()
        .map(|x| digitise(x, 256, -1.0, 1.0))
        .collect();
    assert_eq!(found, whole(&golden["bins"]));
    let quirks = [
        (-1.0001, -1),
        (-1.0, 0),
        (0.0, 128),
        (0.5, 192),
        (0.992, 254),
        (0.992_187_5, 255),
        (2.0, 255),
    ];
    for (x, bin) in quirks {
        assert_eq!(digitise(x, 256, -1.0, 1.0), bin, "{x}");
    }
}

#[test]
fn rt1_is_read_as_the_reference_wrote_it() {
    for row in GOLDEN["rt1"]["decode"].as_array().expect("rows") {
        let row = row.as_array().expect("a row");
        let number = |at: usize| row[at].as_f64().expect("a number");
        let found = bin_value(number(2) as u32, 256, number(0), number(1));
        near(&[found], &[number(3) as f32], 1e-6);
    }
    // What it wrote is clipped and cut down to a bin: it comes back as no more, and by less than a bin less.
    for row in GOLDEN["rt1"]["encode"].as_array().expect("rows") {
        let x = row[0].as_f64().expect("a number") as f32;
        let token = row[1].as_u64().expect("a token") as u32;
        let lost = x.clamp(-1.0, 1.0) - bin_value(token, 256, -1.0, 1.0);
        assert!((-1e-6..2.0 / 255.0 + 1e-6).contains(&lost), "{x}: {lost}");
    }
    near(&[bin_value(127, 256, -1.0, 1.0)], &[-0.003_922], 1e-6);
}

fn rt1() -> Rt1Tokens {
    let range = |name: &str, count, high: f64| Rt1Entry::Range {
        name: name.into(),
        count,
        low: -high,
        high,
    };
    Rt1Tokens {
        vocab: 256,
        order: vec![
            Rt1Entry::Choice {
                name: "terminate_episode".into(),
                choices: 3,
            },
            range("world_vector", 3, 1.0),
            range("rotation_delta", 3, core::f64::consts::FRAC_PI_2),
            range("gripper_closedness_action", 1, 1.0),
            range(
                "base_displacement_vertical_rotation",
                1,
                core::f64::consts::PI,
            ),
            range("base_displacement_vector", 2, 1.0),
        ],
    }
}

#[test]
fn rt1_reads_eleven_tokens_in_the_order_of_its_configuration() {
    let tokens = [1, 255, 0, 127, 255, 0, 128, 255, 0, 255, 0];
    let mut values = [0.0; 11];
    rt1().read(&tokens, &mut values).expect("an action");
    let half = core::f32::consts::FRAC_PI_2;
    let pi = core::f32::consts::PI;
    near(
        &values,
        &[
            1.0, 1.0, -1.0, -0.003_922, half, -half, 0.006_16, 1.0, -pi, 1.0, -1.0,
        ],
        1e-5,
    );
    let mut logits = vec![0.0; 11 * 256];
    for (row, token) in logits.chunks_exact_mut(256).zip(tokens) {
        row[token as usize] = 1.0;
    }
    let mut same = [0.0; 11];
    rt1().read_logits(&logits, &mut same).expect("an action");
    assert_eq!(values, same);
}

#[test]
fn rt1s_mode_beyond_its_choices_is_terminate_and_bad_tokens_are_refused() {
    let mut values = [9.0; 11];
    let mut tokens = [127; 11];
    tokens[0] = 3;
    rt1().read(&tokens, &mut values).expect("an action");
    assert_eq!(values[0], 0.0);
    for bad in [256, -1] {
        tokens[4] = bad;
        assert!(matches!(
            rt1().read(&tokens, &mut values),
            Err(Invalid::Token { at: 4, .. })
        ));
    }
    assert!(rt1().read(&tokens[..10], &mut values).is_err());
}

fn rt2(fields: usize) -> TextIntegers {
    TextIntegers {
        bins: 256,
        fields: (0..fields)
            .map(|at| TextField {
                name: at.to_string(),
                low: -1.0,
                high: 1.0,
            })
            .collect(),
        after: None,
    }
}

#[test]
fn rt2s_printed_example_reads_as_seven_numbers() {
    let mut values = [0.0; 7];
    rt2(7)
        .read(" 1 128 91 241 5 101 127\n", &mut values)
        .expect("an action");
    near(
        &values,
        &[
            -0.992_157, 0.003_922, -0.286_275, 0.890_196, -0.960_784, -0.207_843, -0.003_922,
        ],
        1e-6,
    );
    let plan = TextIntegers {
        after: Some("Action:".into()),
        ..rt2(7)
    };
    let mut planned = [0.0; 7];
    plan.read(
        "Plan: pick the rxbar. Action: 1 128 91 241 5 101 127",
        &mut planned,
    )
    .expect("an action");
    assert_eq!(values, planned);
    assert!(plan.read("1 128 91 241 5 101 127", &mut planned).is_err());
}

#[test]
fn rt2s_malformed_answers_are_refused_whole() {
    let bad = [
        "",
        "1 128 91 241 5 101",
        "1 128 91 241 5 101 127 0",
        "1 128 91 241 5 101 256",
        "1 128 91 241 5 101 -1",
        "1 128 91 241 5 101 +1",
        "1 128 91 241 5 101 1.0",
        "1 128 91 241 5 101 12a",
        "1 128 91 241 5 101 0x7",
        "1 128 91 241 5 101 99999999999999999999",
        "1,128,91,241,5,101,127",
        "1 128 91 241 5 101 ١",
        "I cannot do that, it is not safe ok",
    ];
    for answer in bad {
        assert!(rt2(7).read(answer, &mut [0.0; 7]).is_err(), "{answer:?}");
    }
    // Seven integers never pass for eight fields, however the paper prints them.
    assert!(
        rt2(8)
            .read("1 128 91 241 5 101 127", &mut [0.0; 8])
            .is_err()
    );
}

fn fast(id_from: Option<i64>) -> Fast {
    fast_after(Vec::new(), id_from)
}

fn fast_after(opening: Vec<i32>, id_from: Option<i64>) -> Fast {
    let golden = &GOLDEN["fast"];
    let file = FastFile {
        tokenizer: "fast.json".into(),
        scale: golden["scale"].as_f64().expect("a number"),
        min_token: -354,
        horizon: 10,
        dim: 7,
        id_from,
        opening,
    };
    Fast::new(file, golden["tokenizer"].to_string().as_bytes()).expect("a tokenizer")
}

#[test]
fn fast_reads_what_the_published_algorithm_reads() {
    let (mut own, mut mapped) = (fast(None), fast(Some(257_023)));
    for row in GOLDEN["fast"]["rows"].as_array().expect("rows") {
        let mut chunk = vec![0.0; 70];
        own.read(&whole(&row["ids"]), &mut chunk).expect("a chunk");
        near(&chunk, &floats(&row["chunk"]), 2e-6);
        // Quantised by 1/10 in the transform: half a step in each of ten coefficients bounds the error.
        near(&chunk, &floats(&row["before"]), 0.17);
        let mut same = vec![0.0; 70];
        mapped
            .read(&whole(&row["paligemma_ids"]), &mut same)
            .expect("a chunk");
        assert_eq!(chunk, same);
    }
    near(
        &floats(&GOLDEN["fast"]["dct_of_1234"]),
        &[5.0, -2.230_442_5, 0.0, -0.158_512_7],
        1e-6,
    );
    let basis = inverse_dct(4);
    let back: Vec<f32> = basis
        .chunks_exact(4)
        .map(|row| {
            row.iter()
                .zip([5.0, -2.230_442_5, 0.0, -0.158_512_7])
                .map(|(a, b)| a * b)
                .sum()
        })
        .collect();
    near(&back, &[1.0, 2.0, 3.0, 4.0], 1e-5);
}

/// LeRobot's answers begin with `Action: `; one that does not is something else.
#[test]
fn fast_takes_the_opening_away_and_refuses_another() {
    let ids = whole(&GOLDEN["fast"]["rows"][0]["ids"]);
    let mut bare = vec![0.0; 70];
    fast(None).read(&ids, &mut bare).expect("a chunk");
    let mut reader = fast_after(vec![9_001, 9_002], None);
    let mut chunk = vec![7.0; 70];
    let opened: Vec<i32> = [9_001, 9_002].into_iter().chain(ids.clone()).collect();
    reader.read(&opened, &mut chunk).expect("a chunk");
    assert_eq!(chunk, bare);
    assert!(matches!(
        reader.read(&ids, &mut chunk),
        Err(Invalid::Token {
            at: 0,
            low: 9_001,
            high: 9_001,
            ..
        })
    ));
    assert!(matches!(
        reader.read(&opened[..1], &mut chunk),
        Err(Invalid::Count { found: 0, .. })
    ));
    // It stands at the beginning only.
    let twice: Vec<i32> = [9_001, 9_002].into_iter().chain(opened).collect();
    assert!(matches!(
        reader.read(&twice, &mut chunk),
        Err(Invalid::Token { at: 2, .. })
    ));
}

/// The reference answers zeros, the middle of the joints' range; LeRobot pads or cuts.
#[test]
fn fast_refuses_a_sequence_of_another_length() {
    let ids = whole(&GOLDEN["fast"]["rows"][0]["ids"]);
    let mut chunk = vec![7.0; 70];
    let (_, short) = ids.split_last().expect("tokens");
    assert!(fast(None).read(short, &mut chunk).is_err());
    let longer: Vec<i32> = ids.iter().chain(&ids).copied().collect();
    assert!(fast(None).read(&longer, &mut chunk).is_err());
    assert!(fast(None).read(&[], &mut chunk).is_err());
    let strange: Vec<i32> = core::iter::once(100_000)
        .chain(ids.iter().copied())
        .collect();
    assert!(matches!(
        fast(None).read(&strange, &mut chunk),
        Err(Invalid::Token { at: 0, .. })
    ));
    assert!(fast(None).read(&[-1], &mut chunk).is_err());
    assert!(
        chunk.iter().all(|value| *value == 7.0),
        "a refused chunk is not written"
    );
}

fn velocity(x: &[f32], t: f32) -> Vec<f32> {
    x.iter().map(|x| (x * 1.3).sin() - t * x).collect()
}

fn pi0(steps: u32) -> Flow {
    Flow {
        t_start: 1.0,
        t_end: 0.0,
        steps,
        time: FlowTime::F32,
        grid: FlowGrid::Accumulated,
    }
}

#[test]
fn flow_goes_down_as_pi0_and_up_as_groot() {
    let golden = &GOLDEN["flow"];
    for steps in [5_u32, 7, 10, 15] {
        let flow = pi0(steps);
        let expected = &golden[format!("down_{steps}")];
        let times: Vec<f32> = (0..steps).map(|step| flow.time(step)).collect();
        assert_eq!(times, floats(&expected["times"]), "{steps} steps");
        let mut x = floats(&golden["start"]);
        for time in times {
            let v = velocity(&x, time);
            flow.step(&mut x, &v);
        }
        near(&x, &floats(&expected["x"]), 1e-6);
    }
    let groot = Flow {
        t_start: 0.0,
        t_end: 1.0,
        steps: 4,
        time: FlowTime::Bucket { count: 1_000 },
        grid: FlowGrid::Exact,
    };
    let buckets: Vec<i32> = (0..4).filter_map(|step| groot.bucket(step)).collect();
    assert_eq!(buckets, [0, 250, 500, 750]);
    let mut x = floats(&golden["start"]);
    for step in 0..4 {
        let v = velocity(&x, groot.time(step));
        groot.step(&mut x, &v);
    }
    near(&x, &floats(&golden["up_4"]["x"]), 1e-6);
}

#[test]
fn the_ten_times_of_pi0_are_the_accumulated_ones() {
    let times: Vec<f32> = (0..10).map(|step| pi0(10).time(step)).collect();
    assert_eq!(
        times,
        [
            1.0,
            0.9,
            0.799_999_95,
            0.699_999_9,
            0.599_999_9,
            0.499_999_9,
            0.399_999_92,
            0.299_999_92,
            0.199_999_93,
            0.099_999_93
        ]
    );
    for step in 0..1000 {
        let bucket = Flow {
            t_start: 0.0,
            t_end: 1.0,
            steps: 1000,
            time: FlowTime::Bucket { count: 1000 },
            grid: FlowGrid::Exact,
        };
        let python = ((f64::from(step) / 1000.0) * 1000.0) as i32;
        assert_eq!(bucket.bucket(step), Some(python));
    }
}

fn model(x: &[f32], t: i32) -> Vec<f32> {
    x.iter()
        .map(|x| (x * 0.7).tanh() * (0.5 + t as f32 / 200.0))
        .collect()
}

#[track_caller]
fn check_diffusion(key: &str, scheduler: Scheduler, prediction: Prediction, steps: u32) {
    let golden = &GOLDEN["diffusion"];
    let octo = scheduler == Scheduler::Octo;
    let loop_ = Diffusion::new(DiffusionFile {
        scheduler,
        train_steps: if octo { 20 } else { 100 },
        steps,
        betas: Betas::SquaredCosine { max: 0.999 },
        prediction,
        clip: Some(if octo { 5.0 } else { 1.0 }),
    })
    .expect("a schedule");
    let noises: Vec<Vec<f32>> = golden["noises"]
        .as_array()
        .expect("rows")
        .iter()
        .map(floats)
        .collect();
    let mut x = floats(&golden["x0"]);
    let mut times = Vec::new();
    assert!(noises.len() >= loop_.steps());
    for (step, noise) in noises.iter().enumerate().take(loop_.steps()) {
        let time = loop_.time(step).expect("a step");
        times.push(time);
        let said = model(&x, time);
        loop_.step(step, &mut x, &said, noise);
    }
    let expected = &golden[key];
    if !octo {
        assert_eq!(times, whole(&expected["timesteps"]), "{key}");
    }
    // The factor 1 / sqrt(hat) of the first step is 2e4 where the estimate is not clipped: 1e-4 is its rounding.
    near(&x, &floats(&expected["x"]), 1e-4);
}

#[test]
fn diffusion_takes_diffusers_steps() {
    for (name, prediction) in [
        ("epsilon", Prediction::Epsilon),
        ("sample", Prediction::Sample),
        ("v_prediction", Prediction::VPrediction),
    ] {
        for steps in [100, 10] {
            check_diffusion(
                &format!("ddpm_{name}_{steps}"),
                Scheduler::Ddpm,
                prediction,
                steps,
            );
        }
        for steps in [16, 10] {
            check_diffusion(
                &format!("ddim_{name}_{steps}"),
                Scheduler::Ddim,
                prediction,
                steps,
            );
        }
    }
}

#[test]
fn octo_takes_its_own_steps() {
    check_diffusion("octo", Scheduler::Octo, Prediction::Epsilon, 20);
    let schedule = betas(Betas::SquaredCosine { max: 0.999 }, 20);
    near(
        &schedule,
        &floats(&GOLDEN["diffusion"]["octo"]["betas"]),
        1e-6,
    );
    near(
        &[
            schedule[0],
            schedule[1],
            schedule[10],
            schedule[18],
            schedule[19],
        ],
        &[0.007_992_7, 0.020_075, 0.156_997, 0.748_476, 0.999],
        1e-6,
    );
    let hundred = betas(Betas::SquaredCosine { max: 0.999 }, 100);
    near(&hundred, &floats(&GOLDEN["diffusion"]["betas"]), 1e-6);
}

#[test]
fn a_schedule_that_cannot_be_is_refused() {
    let file = DiffusionFile {
        scheduler: Scheduler::Ddim,
        train_steps: 100,
        steps: 16,
        betas: Betas::Linear {
            start: 1e-4,
            end: 0.02,
        },
        prediction: Prediction::Epsilon,
        clip: None,
    };
    assert!(Diffusion::new(file.clone()).is_some());
    for (train_steps, steps) in [(0, 0), (100, 0), (100, 101), (u32::MAX, 1)] {
        assert!(
            Diffusion::new(DiffusionFile {
                train_steps,
                steps,
                ..file.clone()
            })
            .is_none()
        );
    }
    let octo = DiffusionFile {
        scheduler: Scheduler::Octo,
        ..file
    };
    assert!(
        Diffusion::new(octo).is_none(),
        "Octo's loop takes every step"
    );
}

#[track_caller]
fn post(ops: Vec<Post>, row: &[f32], state: &[f32], expected: &[f32]) {
    let mut chunk = row.to_vec();
    Steps::new(ops)
        .run(&mut chunk, row.len(), state)
        .expect("finite");
    near(&chunk, expected, 1e-5);
}

/// OpenVLA: 1 is open. openpi: 1 is closed. LIBERO's environment: -1 is open, +1 closed.
#[test]
fn a_gripper_opens_by_each_familys_convention() {
    let libero = vec![
        Post::Affine {
            dims: vec![1],
            mul: 2.0,
            add: -1.0,
        },
        Post::Binarise {
            dims: vec![1],
            threshold: 0.0,
            low: -1.0,
            high: 1.0,
        },
        Post::Affine {
            dims: vec![1],
            mul: -1.0,
            add: 0.0,
        },
    ];
    post(libero.clone(), &[0.3, 0.996], &[], &[0.3, -1.0]);
    post(libero, &[0.3, 0.004], &[], &[0.3, 1.0]);
    let droid = vec![Post::Binarise {
        dims: vec![0],
        threshold: 0.5,
        low: 0.0,
        high: 1.0,
    }];
    post(droid.clone(), &[0.51], &[], &[1.0]);
    post(droid, &[0.5], &[], &[0.0]);
}

/// pi0 on ALOHA: the joints are deltas from the state of the observation, the grippers are not.
#[test]
fn a_delta_is_added_to_the_observations_state_before_the_sign_is_flipped() {
    let ops = vec![
        Post::AddState {
            mask: vec![true, true, false],
        },
        Post::Sign {
            by: vec![1.0, -1.0, 1.0],
        },
    ];
    let mut chunk = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6];
    Steps::new(ops)
        .run(&mut chunk, 3, &[1.0, 2.0, 3.0])
        .expect("finite");
    // Both actions are relative to the same state: not to one another.
    near(&chunk, &[1.1, -2.2, 0.3, 1.4, -2.5, 0.6], 1e-6);
}

#[test]
fn alohas_gripper_angles_follow_openpi() {
    // 0 of the linear travel is 0.01844 m: arcsin((0.022^2 + 0.01844^2 - 0.036^2) / (2 * 0.022 * 0.01844)).
    let angle = |travel: f64| {
        let x = travel * (0.058 - 0.01844) + 0.01844;
        (((0.022_f64.powi(2) + x * x - 0.036_f64.powi(2)) / (2.0 * 0.022 * x))
            .clamp(-1.0, 1.0)
            .asin()
            - 0.5476)
            / (1.6296 - 0.5476)
    };
    for travel in [0.0, 0.25, 0.5, 1.0] {
        post(
            vec![Post::AlohaGripperToAngular { dims: vec![0] }],
            &[travel as f32],
            &[],
            &[angle(travel) as f32],
        );
    }
    post(
        vec![Post::AlohaGripperFromAngular { dims: vec![0] }],
        &[0.3],
        &[],
        &[((0.3 + 0.5476 + 0.6213) / (1.4910 + 0.6213)) as f32],
    );
}

#[test]
fn bcz_adds_its_residual_to_the_pose() {
    let golden = &GOLDEN["bcz"];
    let mut chunk = floats(&golden["raw"]);
    let ops = vec![
        Post::AddState {
            mask: vec![true, true, true, true, true, true, false],
        },
        Post::Sigmoid { dims: vec![6] },
        Post::Binarise {
            dims: vec![6],
            threshold: 0.5,
            low: 0.0,
            high: 1.0,
        },
    ];
    Steps::new(ops)
        .run(&mut chunk, 7, &floats(&golden["now"]))
        .expect("finite");
    near(&chunk, &floats(&golden["want"]), 1e-5);
}

#[test]
fn small_commands_are_dropped_and_a_changed_gripper_is_held() {
    post(
        vec![Post::Deadband {
            dims: vec![0, 1, 2],
            below: 0.01,
        }],
        &[0.009, 0.01, -0.5],
        &[],
        &[0.0, 0.01, -0.5],
    );
    let mut steps = Steps::new(vec![Post::Sticky {
        dim: 0,
        change: 0.5,
        steps: 3,
    }]);
    let mut chunk = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.1];
    steps.run(&mut chunk, 1, &[]).expect("finite");
    near(&chunk, &[0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], 1e-6);
    steps.reset();
    let mut again = [0.0];
    steps.run(&mut again, 1, &[]).expect("finite");
    assert_eq!(again, [0.0]);
}

#[test]
fn nothing_that_is_not_finite_leaves() {
    for value in [f32::NAN, f32::INFINITY] {
        for ops in [
            vec![],
            vec![Post::Binarise {
                dims: vec![1],
                threshold: 0.0,
                low: 0.0,
                high: 1.0,
            }],
            vec![Post::AddState {
                mask: vec![true; 2],
            }],
        ] {
            let binarised_infinity =
                value == f32::INFINITY && matches!(ops.first(), Some(Post::Binarise { .. }));
            let found = Steps::new(ops).run(&mut [0.0, value], 2, &[0.0; 2]);
            assert_eq!(found.is_ok(), binarised_infinity);
        }
    }
    assert_eq!(
        Post::Clip {
            dims: vec![0, 9],
            low: 0.0,
            high: 1.0
        }
        .bad_column(7),
        Some(9)
    );
}

#[test]
fn the_first_of_equals_wins_and_a_nan_does_not() {
    assert_eq!(argmax(&[1.0, 3.0, 3.0]), Some(1));
    assert_eq!(argmax(&[1.0, f32::NAN]), None);
    assert_eq!(argmax(&[f32::NEG_INFINITY; 2]), Some(0));
    assert_eq!(argmax(&[]), None);
}

#[test]
fn doubt_is_none_for_one_likely_token_and_whole_for_equal_ones() {
    let flat = doubt::of_logits(&[2.0; 256]).expect("logits");
    near(&[flat.likeliest, flat.entropy], &[1.0 / 256.0, 1.0], 1e-6);
    let mut logits = [0.0; 256];
    logits[7] = 40.0;
    let sure = doubt::of_logits(&logits).expect("logits");
    near(&[sure.likeliest, sure.entropy], &[1.0, 0.0], 1e-6);
    assert!(doubt::of_logits(&[f32::NAN, 1.0]).is_err());
    let mut spread = [0.0; 2];
    doubt::of_samples(&[1.0, 0.0, 3.0, 0.0, 5.0, 0.0], &mut spread);
    near(&spread, &[2.0, 0.0], 1e-6);
}
