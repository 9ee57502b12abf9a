// SPDX-License-Identifier: Apache-2.0
//! Every family's bundle loads, and gives the chunk that the reference gave (`engines/families/make.py`).

use crate::fixture::cpu;
use crate::weights::moved_out;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tendon::engine::cpu::tensors_of;
use tendon::policy::LoadOptions;
use tendon::policy::ParityMiss;
use tendon::policy::decode::post::{Post, Steps};
use tendon::policy::import::{JointUnit, Request, lerobot};
use tendon::policy::staged::bundle::Opened;
use tendon::policy::staged::describe::describe;
use tendon::policy::staged::manifest::StagedFile;
use tendon::policy::staged::{Observation, Staged};
use tendon::policy::tensors::TensorFile;
use tendon::ports::{Engine, EngineFault, StageSpec, Tensor, TensorSpec};
use tendon::runtime::realtime::allocations_of_this_thread;

pub fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/families")
        .join(family)
}

/// Family, stages, and whether what goes from stage to stage is handed on without a copy.
const FAMILIES: [(&str, usize, bool); 23] = [
    ("act", 1, true),
    ("bcz", 1, true),
    ("clip", 3, true),
    ("diffusion", 2, true),
    ("groot", 2, true),
    ("groot_n17", 2, true),
    ("humanoid", 1, true),
    ("multi_task_dit", 3, true),
    ("octo", 3, true),
    ("openvla", 3, true),
    ("openvla_oft", 3, true),
    ("pi0", 2, true),
    ("pi05", 2, true),
    ("pi05_lerobot", 2, true),
    ("pi0_fast", 3, true),
    ("pi0_fast_lerobot", 2, true),
    ("pi0_lerobot", 2, true),
    ("planner", 3, true),
    // Its ring of picture tokens is a copy by nature.
    ("rt1", 2, false),
    ("rt2", 3, true),
    ("smolvla", 2, true),
    ("vqbet", 2, true),
    ("xvla", 2, true),
];

#[test]
fn every_family_gives_the_references_chunk() {
    let mut listed: Vec<String> = std::fs::read_dir(folder(""))
        .expect("the families' folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    listed.sort();
    let mut tested: Vec<&str> = FAMILIES.iter().map(|(family, ..)| *family).collect();
    tested.sort_unstable();
    assert_eq!(listed, tested, "a bundle that no test loads");
    let mut problems = Vec::new();
    for (family, stages, copies_nothing) in FAMILIES {
        let policy = match Staged::load(&folder(family), LoadOptions::default(), &cpu) {
            Ok(policy) => policy,
            Err(found) => {
                problems.extend(found.iter().map(|problem| format!("{family}: {problem}")));
                continue;
            }
        };
        println!("{family:12} {}", policy.parity());
        assert_eq!(policy.file().stages.len(), stages, "{family}");
        let copied = policy.copied_bytes();
        assert_eq!(
            copied == 0,
            copies_nothing,
            "{family} copied {copied} bytes"
        );
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn inspect_draws_the_stage_graph() {
    let page = describe(&Opened::open(&folder("diffusion")).expect("a bundle"));
    println!("{page}");
    for line in [
        "each observation\n  [encoder]",
        "10 times (Ddim)\n  [unet]",
        "<- global_cond f32",
        "(handed on without a copy)",
        "camera      front 40x30",
    ] {
        assert!(page.contains(line), "\"{line}\" is not in\n{page}");
    }
}

/// The sentence that the planner says is one that the policy below it knows, and it moves the robot otherwise than another.
#[test]
fn a_planners_sentence_drives_the_policy_below_it() {
    let mut planner =
        Staged::load(&folder("planner"), LoadOptions::default(), &cpu).expect("a planner");
    let mut below = Staged::load(&folder("bcz"), LoadOptions::default(), &cpu).expect("a policy");
    let fixture = std::fs::read(folder("planner").join("parity.safetensors")).expect("a fixture");
    let file = TensorFile::parse("parity", &fixture).expect("a fixture");
    let picture = &file.u8("camera.front", &[3, 30, 40, 3]).expect("pictures")[..3_600];
    planner
        .set_instruction("bring me the apple")
        .expect("a short sentence");
    let seen = Observation {
        captured_ns: 0,
        pictures: &[Some(picture)],
        state: &[],
    };
    let answer = planner.infer(&seen, None, None).expect("a plan");
    assert!(answer.chunk.is_empty() && !answer.sentence.is_empty());
    let state = [0.1; 7];
    let seen = Observation {
        state: &state,
        ..seen
    };
    let mut run = |sentence: &str| {
        below
            .set_instruction(sentence)
            .expect("a sentence that it knows");
        below
            .infer(&seen, None, None)
            .expect("a chunk")
            .chunk
            .to_vec()
    };
    assert_ne!(run(answer.sentence), run("place grapes in bowl"));
    let fault = below
        .set_instruction("make me a sandwich")
        .expect_err("unknown");
    assert!(fault.to_string().contains("make me a sandwich"));
}

/// A memory of the last episode would move the robot of this one.
#[test]
fn a_new_episode_forgets() {
    let mut policy =
        Staged::load(&folder("diffusion"), LoadOptions::default(), &cpu).expect("a bundle");
    let noise = vec![0.25; policy.noise_len()];
    let run = |policy: &mut Staged, shade: u8, at_ms: u64| {
        let picture = vec![shade; 40 * 30 * 3];
        let observation = Observation {
            captured_ns: at_ms * 1_000_000,
            pictures: &[Some(&picture)],
            state: &[f32::from(shade) / 255.0; 6],
        };
        let answer = policy
            .infer(&observation, Some(&noise), None)
            .expect("an answer");
        answer.chunk.to_vec()
    };
    let first = run(&mut policy, 200, 0);
    let after_dark = {
        policy.reset();
        run(&mut policy, 10, 100);
        run(&mut policy, 200, 200)
    };
    policy.reset();
    assert_eq!(run(&mut policy, 200, 300), first);
    assert_ne!(after_dark, first);
}

#[test]
fn what_cannot_be_judged_is_refused() {
    let mut policy = Staged::load(&folder("act"), LoadOptions::default(), &cpu).expect("a bundle");
    let picture = vec![0; 40 * 30 * 3];
    let both: [Option<&[u8]>; 2] = [Some(&picture), Some(&picture)];
    let mut refuse = |pictures: &[Option<&[u8]>], state: &[f32], word: &str| {
        let observation = Observation {
            captured_ns: 0,
            pictures,
            state,
        };
        let fault = policy
            .infer(&observation, None, None)
            .expect_err(word)
            .to_string();
        assert!(fault.contains(word), "{fault}");
    };
    refuse(&both, &[0.0; 5], "expected 6 finite numbers");
    refuse(&both, &[0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0], "Some(2)");
    refuse(&[both[0], None], &[0.0; 6], "camera 1");
    refuse(
        &[both[0], Some(&picture[1..])],
        &[0.0; 6],
        "3600 bytes, found 3599",
    );
    refuse(&both[..1], &[0.0; 6], "expected 2 pictures");
}

/// The schema is generated from the types; whoever changes one commits the other:
/// `TENDON_WRITE=1 cargo test --release --test policy schema`.
#[test]
fn the_schema_in_the_repository_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/bundle.schema.json");
    let schema = schemars::schema_for!(StagedFile);
    let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
    if std::env::var_os("TENDON_WRITE").is_some() {
        std::fs::write(&path, &text).expect("docs can be written");
    }
    assert!(
        std::fs::read_to_string(&path).is_ok_and(|found| found == text),
        "docs/bundle.schema.json is not current"
    );
}

/// The folder that LeRobot itself wrote, imported: the same chunk, and what it does not say is asked for.
#[test]
fn a_lerobot_folder_becomes_a_bundle() {
    let names = [
        "shoulder_pan",
        "shoulder_lift",
        "elbow_flex",
        "wrist_flex",
        "wrist_roll",
        "gripper_slide",
    ];
    let positions: Vec<String> = names.iter().map(|name| format!("{name}.pos")).collect();
    let picture =
        json!({"dtype": "video", "shape": [30, 40, 3], "names": ["height", "width", "channels"]});
    let info = json!({"fps": 50, "features": {
        "action": {"dtype": "float32", "shape": [6], "names": positions},
        "observation.state": {"dtype": "float32", "shape": [6], "names": positions},
        "observation.images.top": picture, "observation.images.wrist": picture,
    }});
    let dir = tempfile::tempdir().expect("a temporary folder");
    let write = |info: &Value| {
        std::fs::write(
            dir.path().join("info.json"),
            serde_json::to_vec(info).expect("JSON"),
        )
        .expect("a file");
    };
    write(&info);
    let source = folder("act");
    let request = Request {
        folder: source.clone(),
        onnx: source.join("act.onnx"),
        info: dir.path().join("info.json"),
        fixture: source.join("parity.safetensors"),
        sentences: None,
        unit: JointUnit::Rad,
        joints: Some(names.iter().rev().map(|name| (*name).to_owned()).collect()),
    };
    let out = dir.path().join("bundle");
    lerobot(&request, &out, &tensors_of).expect("a bundle");
    let policy = Staged::load(&out, LoadOptions::default(), &cpu).expect("it holds its fixture");
    println!("imported: {}", policy.parity());
    assert!(policy.parity().error_fraction < 1e-4, "{}", policy.parity());

    // As large as a whole ACT is in part, its weights beside the graph.
    let large = moved_out(70 << 20, "act.onnx.data");
    let beside = Request {
        onnx: large.path().join("act.onnx"),
        ..request.clone()
    };
    let out = dir.path().join("large");
    lerobot(&beside, &out, &tensors_of).expect("a bundle");
    assert!(out.join("act.onnx.data").is_file());
    Staged::load(&out, LoadOptions::default(), &cpu).expect("it holds its fixture");

    let refuse = |request: &Request, words: &[&str]| {
        let other = dir.path().join("other");
        let problems = lerobot(request, &other, &tensors_of).expect_err("a refusal");
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        for word in words {
            assert!(
                said.join("\n").contains(word),
                "\"{word}\" is not in {said:?}"
            );
        }
        assert!(!other.exists());
    };
    // A joint that the robot does not have, and one that the policy does not move.
    let mut stranger = request.clone();
    stranger.joints = Some(names[..5].iter().map(|name| (*name).to_owned()).collect());
    refuse(&stranger, &["gripper_slide", "not the robot's"]);
    let mut nameless = info.clone();
    nameless["features"]["action"]["names"] = json!(null);
    write(&nameless);
    refuse(
        &request,
        &["features.action.names", "moves the wrong joint"],
    );
    write(&info);
    let mut steps: Value = serde_json::from_slice(
        &std::fs::read(source.join("policy_preprocessor.json")).expect("a file"),
    )
    .expect("JSON");
    steps["steps"][1]["registry_name"] = json!("relative_actions_processor");
    let copy = dir.path().join("lerobot");
    std::fs::create_dir(&copy).expect("a folder");
    for entry in std::fs::read_dir(&source).expect("a folder") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, copy.join(path.file_name().expect("a name"))).expect("a copy");
    }
    std::fs::write(
        copy.join("policy_preprocessor.json"),
        serde_json::to_vec(&steps).expect("JSON"),
    )
    .expect("a file");
    let mut strange = request.clone();
    strange.folder = copy;
    refuse(
        &strange,
        &[
            "steps[1]",
            "relative_actions_processor, which cannot be mapped",
        ],
    );
}

/// Degrees in the data set: the robot still speaks radians, and an imported bundle still has the same fixture.
#[test]
fn degrees_are_converted_on_both_sides() {
    let mut post = Steps::new(vec![Post::Affine {
        dims: vec![0],
        mul: 1f32.to_radians(),
        add: 0.0,
    }]);
    let mut chunk = [180.0, 5.0];
    post.run(&mut chunk, 2, &[]).expect("finite");
    assert!((chunk[0] - core::f32::consts::PI).abs() < 1e-6 && chunk[1] == 5.0);
}

/// An engine that says 0.01 and allocates nothing, so that what is counted is ours.
struct Silent(StageSpec);

impl Engine for Silent {
    fn inputs(&self) -> &[TensorSpec] {
        &self.0.inputs
    }
    fn outputs(&self) -> &[TensorSpec] {
        &self.0.outputs
    }
    fn run(&mut self, _: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        for values in outputs.iter_mut().filter_map(Tensor::f32_mut) {
            values.fill(0.01);
        }
        Ok(())
    }
}

#[test]
fn nothing_is_allocated_between_observation_and_chunk() {
    let silent = |_: &Path, spec: &StageSpec| Ok(Box::new(Silent(spec.clone())) as Box<dyn Engine>);
    let options = LoadOptions {
        parity_miss: ParityMiss::Report,
        ..LoadOptions::default()
    };
    // Those with the state in the prompt, or an answer in words, tokenise on the way.
    for family in [
        "act",
        "bcz",
        "clip",
        "diffusion",
        "groot",
        "groot_n17",
        "humanoid",
        "multi_task_dit",
        "octo",
        "openvla",
        "openvla_oft",
        "pi0",
        "pi0_lerobot",
        "rt1",
        "smolvla",
        "vqbet",
        "xvla",
    ] {
        let mut policy = Staged::load(&folder(family), options, &silent).expect(family);
        policy
            .set_instruction(&policy.some_sentence())
            .expect(family);
        let buffers: Vec<Vec<u8>> = policy
            .file()
            .cameras
            .iter()
            .map(|camera| vec![100; camera.source_size[0] * camera.source_size[1] * 3])
            .collect();
        let pictures: Vec<Option<&[u8]>> = buffers
            .iter()
            .map(|picture| Some(picture.as_slice()))
            .collect();
        let state = vec![
            0.1;
            policy
                .file()
                .state
                .as_ref()
                .map_or(0, |state| state.names.len())
        ];
        let mut run = |turn: u64| {
            let observation = Observation {
                captured_ns: turn * 333_000_000,
                pictures: &pictures,
                state: &state,
            };
            let before = allocations_of_this_thread();
            policy.infer(&observation, None, None).expect(family);
            allocations_of_this_thread() - before
        };
        run(0);
        assert_eq!((1..10).map(&mut run).sum::<u64>(), 0, "{family}");
    }
}

/// What a quantiser is calibrated on: every input of every run of every stage on the fixture.
#[test]
fn the_inputs_of_every_stage_can_be_had_for_calibration() {
    let bytes = Staged::calibration(&folder("pi0"), None, &cpu).expect("a bundle");
    let file = TensorFile::parse("calibration", &bytes).expect("a safetensors file");
    let runs = |stage: &str, input: &str| {
        let end = format!("/{stage}/{input}");
        file.keys().filter(|key| key.ends_with(&end)).count()
    };
    let policy =
        Staged::load(&folder("pi0"), LoadOptions::default(), &cpu).expect("it holds its fixture");
    let frames = policy.file().parity.frames;
    for stage in &policy.file().stages {
        // The prefix once an observation, the expert once a step.
        let each = if stage.id == "prefix" { 1 } else { 10 };
        for (input, tensor) in &stage.inputs {
            assert_eq!(
                runs(&stage.id, input),
                frames * each,
                "{} {input}",
                stage.id
            );
            let key = format!("0/{}/{input}", stage.id);
            if stage.id == "prefix" && tensor.dtype == tendon::ports::Dtype::F32 {
                let values = file.f32(&key, &tensor.shape).expect("of the graph's shape");
                assert!(values.iter().all(|value| value.is_finite()));
            }
        }
    }
}
