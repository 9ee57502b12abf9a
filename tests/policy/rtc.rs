// SPDX-License-Identifier: Apache-2.0
//! Real-time chunking: the gradient inside an exported graph, the numbers of the authors' and of LeRobot's own code, and
//! plans that go on from the one that the robot follows. `tests/rtc/export_guided.py` made bundles and vectors.

use crate::deployed;
use crate::fixture::cpu;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use tendon::bench::episode::{Ask, Spec};
use tendon::core::action::JointKind;
use tendon::core::chunk::Chunk;
use tendon::core::observation::{JointState, StateHistory};
use tendon::core::units::{MS, Mono};
use tendon::engine::cpu::{CpuEngine, CpuOptions};
use tendon::policy::LoadOptions;
use tendon::policy::staged::onward::Running;
use tendon::policy::staged::{Observation, Staged};
use tendon::ports::{Dtype, Engine, Frame, StageSpec, Tensor, TensorSpec};
use tendon::runtime::control::{self, Followed, Told};
use tendon::runtime::deployment::Deployment;
use tendon::runtime::lockstep::Lockstep;

const ROWS: usize = 10;
const JOINTS: usize = 7;
/// The bundles' action statistics: small steps, and a gripper about 0.2.
const STD: [f32; JOINTS] = [0.004, 0.004, 0.004, 0.004, 0.004, 0.004, 0.05];
const GRIPPER_MEAN: f32 = 0.2;

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rtc")
}

fn golden() -> Value {
    let text = std::fs::read_to_string(home().join("golden.json")).expect("golden.json");
    serde_json::from_str(&text).expect("JSON")
}

fn floats(value: &Value) -> Vec<f32> {
    let list = value.as_array().expect("a list");
    list.iter()
        .map(|x| x.as_f64().expect("a number") as f32)
        .collect()
}

fn whole(value: &Value) -> usize {
    value.as_u64().expect("a whole number") as usize
}

fn apart(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    let differences = found.iter().zip(wanted).map(|(f, w)| (f - w).abs());
    differences.fold(0.0, f32::max)
}

/// A copy of one of the bundles with this under `loop.rtc`; `null` is none.
fn bundle(name: &str, into: &Path, rtc: Value) {
    std::fs::create_dir_all(into).expect("a folder");
    for entry in std::fs::read_dir(home().join(name)).expect("the bundle") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, into.join(path.file_name().expect("a name"))).expect("a copy");
    }
    let path = into.join("manifest.json");
    let bytes = std::fs::read(&path).expect("a manifest");
    let mut manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
    manifest["tendon"]["loop"]["rtc"] = rtc;
    std::fs::write(&path, serde_json::to_vec(&manifest).expect("JSON")).expect("written");
}

fn load(name: &str, rtc: Value) -> Result<Staged, String> {
    let folder = tempfile::tempdir().expect("a folder");
    bundle(name, folder.path(), rtc);
    Staged::load(folder.path(), LoadOptions::default(), &cpu).map_err(|problems| {
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        said.join("\n")
    })
}

/// One plan from this noise, of a robot whose joints all stand at `state`; in the graph's own numbers.
fn plan(
    policy: &mut Staged,
    noise: &[f32],
    state: f32,
    id: u32,
    running: Option<Running>,
) -> Vec<f32> {
    policy.plan_on(id, running);
    let seen = Observation {
        captured_ns: 0,
        pictures: &[],
        state: &[state; JOINTS],
    };
    let answer = policy.infer(&seen, Some(noise), None).expect("a plan");
    let numbers = answer.chunk.iter().enumerate().map(|(at, target)| {
        let joint = at % JOINTS;
        let (mean, added) = if joint == 6 {
            (GRIPPER_MEAN, 0.0)
        } else {
            (0.0, state)
        };
        (target - added - mean) / (STD[joint] + 1e-6)
    });
    numbers.collect()
}

fn engine_of(name: &str) -> (CpuEngine, StageSpec) {
    let bytes = std::fs::read(home().join(name).join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
    let stage = &manifest["tendon"]["stages"][0];
    let tensors = |key: &str| -> Vec<TensorSpec> {
        let table = stage[key].as_object().expect("a table");
        let sorted: BTreeMap<_, _> = table.iter().collect();
        let tensor = |(name, spec): (&String, &Value)| TensorSpec {
            name: name.clone(),
            dtype: Dtype::F32,
            shape: floats(&spec["shape"])
                .iter()
                .map(|side| *side as usize)
                .collect(),
        };
        sorted.into_iter().map(tensor).collect()
    };
    let spec = StageSpec {
        id: name.to_owned(),
        inputs: tensors("inputs"),
        outputs: tensors("outputs"),
    };
    let path = home().join(name).join("denoiser.onnx");
    let engine = CpuEngine::load(&path, &spec, CpuOptions::default()).expect("loads");
    (engine, spec)
}

/// Single precision through two blocks and back, values of order 1 to 10.
#[test]
fn a_guided_step_with_its_gradient_runs_on_the_cpu_engine() {
    let (mut engine, spec) = engine_of("guided");
    let mut outputs = vec![Tensor::zeros(&spec.outputs[0])];
    let (mut worst, mut plain_apart) = (0.0_f32, 0.0_f32);
    let guidance = spec.inputs.iter().position(|input| input.name == "gw");
    for case in golden()["vjp"]["cases"].as_array().expect("cases") {
        let mut inputs: Vec<Tensor> = spec
            .inputs
            .iter()
            .map(|input| Tensor::F32(floats(&case[&input.name])))
            .collect();
        engine.run(&inputs, &mut outputs).expect("runs");
        let wanted = floats(&case["v_guided"]);
        worst = worst.max(apart(outputs[0].f32().expect("floats"), &wanted));
        // Without guidance it must be another velocity, or nothing would be shown.
        inputs[guidance.expect("gw")] = Tensor::F32(vec![0.0]);
        engine.run(&inputs, &mut outputs).expect("runs");
        plain_apart = plain_apart.max(apart(outputs[0].f32().expect("floats"), &wanted));
    }
    println!("guided step against autograd in double: {worst:.2e}");
    assert!(worst < 1e-4, "{worst}");
    assert!(plain_apart > 0.1, "{plain_apart}");
    // What it costs beside the plain denoiser, on this engine.
    let median_us = |name: &str| {
        let (mut engine, spec) = engine_of(name);
        let inputs: Vec<Tensor> = spec.inputs.iter().map(Tensor::zeros).collect();
        let mut outputs: Vec<Tensor> = spec.outputs.iter().map(Tensor::zeros).collect();
        let mut took: Vec<u128> = (0..200)
            .map(|_| {
                let began = std::time::Instant::now();
                engine.run(&inputs, &mut outputs).expect("runs");
                began.elapsed().as_nanos()
            })
            .collect();
        took.sort_unstable();
        took[took.len() / 2] as f64 * 1e-3
    };
    let (plain, guided) = (median_us("plain"), median_us("guided"));
    println!(
        "plain denoiser {plain:.0} us, guided {guided:.0} us: {:.2} times",
        guided / plain
    );
}

/// Two plans of each case, the second going on from what is left of the first.
fn parity(name: &str, key: &str, rtc: impl Fn(&Value) -> Value, bound: f32) {
    let (mut worst, mut pulled) = (0.0_f32, 0.0_f32);
    for case in golden()[key].as_array().expect("cases") {
        let mut policy = load(name, rtc(case)).expect("a bundle");
        let (noise, plans) = (&case["noise"], &case["plans"]);
        let first = plan(&mut policy, &floats(&noise[0]), 0.0, 1, None);
        worst = worst.max(apart(&first, &floats(&plans[0])));
        let running = Running {
            chunk_id: 1,
            skipped: whole(&case["executed"]),
            delay: whole(&case["delay"]),
        };
        let second = plan(&mut policy, &floats(&noise[1]), 0.0, 2, Some(running));
        worst = worst.max(apart(&second, &floats(&plans[1])));
        let alone = plan(&mut policy, &floats(&noise[1]), 0.0, 3, None);
        pulled = pulled.max(apart(&second, &alone));
    }
    println!("{key}: {worst:.2e} apart from its own code, {pulled:.2} moved by the old plan");
    assert!(worst < bound, "{key}: {worst}");
    assert!(pulled > 0.3, "{key}: {pulled}");
}

#[test]
fn guided_plans_are_those_of_the_authors_code() {
    let rtc = |case: &Value| json!({"flavour": "guided", "attention": case["attention"], "guidance_max": case["guidance_max"]});
    parity("guided", "kinetix", rtc, 2e-4);
}

#[test]
fn plans_without_a_gradient_are_those_of_lerobots_code() {
    let rtc = |case: &Value| {
        json!({"flavour": "identity", "attention": case["attention"], "guidance_max": case["guidance_max"],
               "overlap": case["overlap"]})
    };
    parity("plain", "lerobot", rtc, 2e-4);
}

/// The first steps of the second plan are the old plan's, for a robot that has moved since: the same places, said relative
/// to where it is now.
#[test]
fn what_is_over_before_the_hand_over_is_the_old_plans() {
    for flavour in ["trained", "frozen-prefix"] {
        let mut policy =
            load("plain", json!({"flavour": flavour, "overlap": 6})).expect("a bundle");
        let noise: Vec<f32> = (0..ROWS * JOINTS)
            .map(|at| (at as f32 * 0.7).sin())
            .collect();
        let other: Vec<f32> = noise.iter().map(|x| -x).collect();
        let first = plan(&mut policy, &noise, 0.1, 7, None);
        let running = Running {
            chunk_id: 7,
            skipped: 3,
            delay: 2,
        };
        let second = plan(&mut policy, &other, 0.11, 8, Some(running));
        for row in 0..4 {
            let (old, new) = (
                &first[(3 + row) * JOINTS..][..JOINTS],
                &second[row * JOINTS..][..JOINTS],
            );
            // In units of 0.004 rad the robot has moved by 2.5.
            let place: Vec<f32> = old
                .iter()
                .enumerate()
                .map(|(joint, x)| {
                    if joint == 6 {
                        *x
                    } else {
                        x - 0.01 / (0.004 + 1e-6)
                    }
                })
                .collect();
            let differs = apart(new, &place);
            assert_eq!(row < 2, differs < 2e-4, "{flavour}, row {row}: {differs}");
        }
        // A plan that is not kept any more, or is over, is not gone on from.
        let alone = plan(&mut policy, &other, 0.11, 9, None);
        for (chunk_id, skipped) in [(6, 3), (7, ROWS), (0, 0)] {
            let gone = Running {
                chunk_id,
                skipped,
                delay: 2,
            };
            assert_eq!(plan(&mut policy, &other, 0.11, 10, Some(gone)), alone);
        }
        policy.reset();
        assert_eq!(plan(&mut policy, &other, 0.11, 11, Some(running)), alone);
        assert_ne!(second, alone);
    }
}

#[test]
fn a_flavour_without_its_inputs_is_refused() {
    let refused = |name: &str, rtc: Value, word: &str| {
        let said = load(name, rtc).expect_err("a refusal");
        assert!(said.contains(word), "\"{word}\" is not in {said}");
    };
    refused(
        "plain",
        json!({"flavour": "guided"}),
        "tendon.loop.rtc.flavour",
    );
    refused(
        "guided",
        json!({"flavour": "trained"}),
        "loop.time of one number a row",
    );
    refused(
        "guided",
        json!({"flavour": "identity"}),
        "70 numbers of prefix",
    );
    refused("guided", Value::Null, "a source of this bundle");
    refused("plain", json!({"flavour": "freezing"}), "frozen-prefix");
    refused(
        "plain",
        json!({"flavour": "identity", "guidance_max": 0.0}),
        "above 0",
    );
}

const CAMERA: &str = "[camera]\nname = \"front\"\nwidth = 224\nheight = 224\nage_max_ms = 150\n";

fn deployment(name: &str, rtc: Value) -> Deployment {
    let tendon = deployed::tendon("", "merge = \"replace\"\nstart_ms = 400") + CAMERA;
    let folder = deployed::folder(&tendon, |into| bundle(name, into, rtc));
    deployed::deployment(&folder).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// What a run showed.
#[derive(Debug, Default)]
struct Shown {
    /// Largest distance of a held step from the plan that was followed at its time, rad.
    from_plan_rad: f64,
    /// Steps that were compared.
    steps: usize,
}

/// Scheduler and policy in simulated time, a robot that sways by itself, chunks that come 120 ms after their observation: two
/// actions are over by then, and the third has begun. Random weights drive no robot to where it is shown, so this one is
/// not moved by them.
fn run(name: &str, rtc: Value) -> Shown {
    const PERIOD_NS: u64 = 50 * MS;
    const LATE_NS: u64 = 120 * MS;
    let Deployment {
        mind: mut inference,
        mut schedule,
        config,
        ..
    } = deployment(name, rtc);
    inference
        .instruct("anything")
        .expect("a policy without words");
    let kinds: Vec<JointKind> = config
        .robot
        .joints
        .iter()
        .map(|(_, joint)| joint.kind)
        .collect();
    let home = [0.0, -0.02, 1.9, 0.0, 1.25, 0.0];
    let mut states = StateHistory::default();
    let mut frame = Frame::black(224, 224);
    let (mut coming, mut chunks): (Option<Chunk>, Vec<(Chunk, Followed)>) = (None, Vec::new());
    let mut delays = Vec::new();
    let refused = AtomicU64::new(0);
    for tick in 0..600_u64 {
        let now = Mono(1_000 * MS + tick * 5 * MS);
        let mut position = [0.0; tendon::core::limits::JOINTS_MAX];
        for (joint, home) in home.iter().enumerate() {
            position[joint] = home + 0.02 * (now.0 as f64 * 2e-9 + joint as f64).sin();
        }
        states.push(&JointState {
            joints: JOINTS,
            measured: now,
            position,
            ..JointState::NEVER
        });
        let arrived = coming.take_if(|chunk| chunk.provenance().captured.plus_ns(LATE_NS) <= now);
        control::tick(
            &mut schedule,
            now,
            arrived.into_iter(),
            &Told::default(),
            &refused,
        );
        if tick.is_multiple_of(40) {
            (frame.seq, frame.captured, frame.received) = (frame.seq + 1, now, now);
            let followed = Followed::of(&schedule);
            delays.push(followed.delay_steps);
            let (chunk, _) = inference
                .think(now, &frame, &[], &states, &followed, &|| now)
                .expect("a chunk");
            chunks.push((chunk, followed));
            coming = Some(chunk);
        }
    }
    assert_eq!(delays[..2], [0, 0], "a start is no delay");
    // What a plan that is played slower loses meanwhile is not consumed.
    assert!(
        delays[2..].iter().all(|steps| [2, 3].contains(steps)) && delays.contains(&3),
        "120 ms are three actions of 50 ms: {delays:?}"
    );
    let mut shown = Shown::default();
    // From the fourth on the delay is known and no plan has been moved to its start.
    for pair in chunks[3..].windows(2) {
        let [(old, _), (new, followed)] = pair else {
            continue;
        };
        assert_eq!(followed.chunk_id, old.provenance().chunk_id);
        // As many as were said to be over by then: fewer where the old plan was played slower meanwhile.
        for step in 0..usize::from(followed.delay_steps) {
            let due = new.at(step);
            // As the schedule has placed it: a plan that is played slower lies later.
            let there = due.plus_ns(PERIOD_NS / 2).since_ns(followed.first_at);
            let before = (there / PERIOD_NS) as usize;
            assert!(before < old.steps(), "an action of that time");
            let from_plan = (0..6)
                .filter(|joint| kinds[*joint] != JointKind::Gripper)
                .map(|joint| f64::from(new.action(step)[joint] - old.action(before)[joint]).abs())
                .fold(0.0, f64::max);
            shown.from_plan_rad = shown.from_plan_rad.max(from_plan);
            shown.steps += 1;
        }
    }
    assert!(
        new_period(&chunks) == PERIOD_NS && shown.steps > 20,
        "{shown:?}"
    );
    shown
}

fn new_period(chunks: &[(Chunk, Followed)]) -> u64 {
    chunks.last().map_or(0, |(chunk, _)| chunk.period_ns())
}

/// The next plan's first steps are those of the plan that the schedule follows, at the same times, for a robot that has
/// moved since.
#[test]
fn the_runtime_feeds_the_plan_that_is_followed() {
    let alone = run("plain", Value::Null);
    println!("no real-time chunking: {alone:?}");
    assert!(alone.from_plan_rad > 0.01, "{alone:?}");
    for flavour in ["trained", "frozen-prefix"] {
        let held = run("plain", json!({"flavour": flavour}));
        println!("{flavour}: {held:?}");
        assert!(held.from_plan_rad < 2e-5, "{flavour}: {held:?}");
    }
    for (name, flavour) in [("plain", "identity"), ("guided", "guided")] {
        let pulled = run(name, json!({"flavour": flavour}));
        println!("{flavour}: {pulled:?}");
        assert!(
            pulled.from_plan_rad < 0.1 * alone.from_plan_rad,
            "{flavour}: {pulled:?}"
        );
    }
}

/// The whole pipeline with each flavour, commands governed.
#[test]
fn every_flavour_drives_the_bench_robot_in_simulated_time() {
    for (name, flavour) in [
        ("plain", "identity"),
        ("guided", "guided"),
        ("plain", "trained"),
        ("plain", "frozen-prefix"),
    ] {
        let mut pipeline = Lockstep::new(deployment(name, json!({"flavour": flavour})), 0);
        let spec = Spec {
            seed: 7,
            put: false,
            held_out_position: false,
            ask: Ask::Seen,
        };
        let outcome = pipeline.episode(&spec, &mut |_| ()).expect("an episode");
        let fresh_s = pipeline.measures.figures().ladder.fresh_s;
        println!(
            "{flavour}: {outcome:?}, fresh {fresh_s:.1} s, shaped {}",
            pipeline.interventions
        );
        assert!(
            outcome.over && fresh_s > 0.8 * outcome.elapsed_s,
            "{flavour}"
        );
        assert_eq!(
            [
                pipeline.limit_violations,
                pipeline.rejected,
                pipeline.allocations
            ],
            [0; 3]
        );
    }
}
