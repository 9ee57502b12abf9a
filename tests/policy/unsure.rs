// SPDX-License-Identifier: Apache-2.0
//! A policy that says how sure it is by several answers to one observation, and where it looked.

use crate::deployed;
use crate::families::folder;
use crate::fixture::{Parrot, cpu};
use crate::on_bench::{self, ROLES};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tendon::core::observation::{JointState, StateHistory};
use tendon::core::units::{MS, Mono};
use tendon::policy::LoadOptions;
use tendon::policy::decode::doubt;
use tendon::policy::staged::{Observation, Staged};
use tendon::ports::{Engine, EngineFault, Frame, StageSpec, Tensor};
use tendon::runtime::control::Followed;

const COUNT: usize = 4;

/// A copy of a family's bundle with a changed manifest.
fn copy(family: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(folder(family)).expect("the bundle") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, dir.path().join(path.file_name().expect("a name"))).expect("a copy");
    }
    let path = dir.path().join("manifest.json");
    let bytes = std::fs::read(&path).expect("a manifest");
    let mut manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
    change(&mut manifest["tendon"]);
    std::fs::write(&path, manifest.to_string()).expect("written");
    dir
}

fn load(dir: &tempfile::TempDir) -> Result<Staged, String> {
    Staged::load(dir.path(), LoadOptions::default(), &cpu).map_err(|problems| {
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        said.join("\n")
    })
}

fn joints(file: &Value) -> usize {
    file["action"]["names"].as_array().expect("names").len()
}

/// One observation of grey; noise as given or as drawn.
fn ask(policy: &mut Staged, noise: Option<&[f32]>) -> (Vec<f32>, Vec<f32>, Option<f32>) {
    let sentence = policy.some_sentence();
    policy.set_instruction(&sentence).expect("a sentence");
    let sizes = policy
        .file()
        .cameras
        .iter()
        .map(|camera| camera.source_size);
    let pictures: Vec<Vec<u8>> = sizes
        .map(|[width, height]| vec![90; width * height * 3])
        .collect();
    let shown: Vec<Option<&[u8]>> = pictures
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
    let seen = Observation {
        captured_ns: 0,
        pictures: &shown,
        state: &state,
    };
    let answer = policy.infer(&seen, noise, None).expect("an answer");
    (answer.chunk.to_vec(), answer.spread.to_vec(), answer.doubt)
}

/// The spread is that of whole runs with the same draws, and the chunk is the one that was asked for.
#[test]
fn the_spread_is_that_of_several_runs_and_the_chunk_is_one_of_them() {
    for family in ["pi0", "diffusion", "vqbet"] {
        let unsure = copy(family, |tendon| {
            let most = vec![10.0; joints(tendon)];
            tendon["uncertainty"] = json!({"count": COUNT, "spread_max": most});
        });
        // Its fixture holds: what it is asked besides changes nothing.
        let mut unsure = load(&unsure).expect(family);
        let mut plain = load(&copy(family, |_| ())).expect(family);
        assert!(unsure.tells_doubt() && !plain.tells_doubt());
        // The dice of both begin alike; the fixture has thrown those of the other answers.
        for _ in 0..plain.file().parity.frames * (COUNT - 1) {
            ask(&mut plain, None);
        }
        let noise: Vec<f32> = (0..plain.noise_len())
            .map(|at| (at as f32 * 0.7).sin().abs())
            .collect();
        plain.reset();
        let others: Vec<Vec<f32>> = (1..COUNT)
            .map(|_| {
                plain.reset();
                ask(&mut plain, None).0
            })
            .collect();
        plain.reset();
        let wanted = ask(&mut plain, Some(&noise)).0;
        let (chunk, spread, doubt) = ask(&mut unsure, Some(&noise));
        assert_eq!(chunk, wanted, "{family}");
        let mut all = chunk.clone();
        all.extend(others.into_iter().flatten());
        let mut deviation = vec![0.0; chunk.len()];
        doubt::of_samples(&all, &mut deviation);
        let width = spread.len();
        let worst: Vec<f32> = (0..width)
            .map(|joint| {
                deviation
                    .iter()
                    .skip(joint)
                    .step_by(width)
                    .copied()
                    .fold(0.0, f32::max)
            })
            .collect();
        assert_eq!(spread, worst, "{family}");
        assert!(
            spread.iter().all(|value| *value > 0.0),
            "{family}: {spread:?}"
        );
        let most = spread.iter().copied().fold(0.0, f32::max);
        assert_eq!(doubt, Some(most / 10.0), "{family}");
    }
}

/// A loader that has the graph "several" of `SEVERAL` say what it is told, and runs the others.
fn with_parrot(
    says: Vec<Tensor>,
) -> impl Fn(&Path, &StageSpec) -> Result<Box<dyn Engine>, EngineFault> {
    move |path, spec| {
        if spec.id != "several" {
            return cpu(path, spec);
        }
        Ok(Box::new(Parrot {
            spec: spec.clone(),
            says: Arc::new(Mutex::new(says.clone())),
            heard: Arc::default(),
        }))
    }
}

fn several(tendon: &mut Value) {
    let stage = json!({
        "id": "several", "onnx": {"fp32": "act.onnx"},
        "inputs": {"state": {"dtype": "f32", "shape": [1, 6], "from": "state"}},
        "outputs": {
            "all": {"dtype": "f32", "shape": [3, 8, 6]},
            "looked": {"dtype": "f32", "shape": [1, 3, 4]},
        },
    });
    tendon["stages"].as_array_mut().expect("stages").push(stage);
    tendon["uncertainty"] =
        json!({"from": "several.all", "count": 3, "steps": 2, "spread_max": vec![0.5; 6]});
    tendon["attention"] =
        json!([{"camera": "top", "from": "several.looked", "columns": 4, "rows": 3}]);
}

/// A graph that gives its answers at once, and a map of where it looked.
#[test]
fn answers_of_one_graph_are_compared_and_its_map_is_carried() {
    let dir = copy("act", several);
    // In the graph's numbers the answers lie one apart in joint 2 of action 1, and far apart beyond the steps that count.
    let mut all = vec![0.0_f32; 3 * 8 * 6];
    for (answer, values) in all.chunks_exact_mut(8 * 6).enumerate() {
        values[6 + 2] = answer as f32;
        values[7 * 6] = 100.0 * answer as f32;
    }
    let looked: Vec<f32> = (0..12).map(|at| at as f32).collect();
    let says = vec![Tensor::F32(all), Tensor::F32(looked.clone())];
    let mut policy = Staged::load(dir.path(), LoadOptions::default(), &with_parrot(says))
        .unwrap_or_else(|problems| panic!("{problems:?}"));
    let (_, spread, doubt) = ask(&mut policy, None);
    // 0, 1 and 2 deviate by 1, times the deviation of the action's statistics.
    let stats = std::fs::read(
        folder("act").join("policy_preprocessor_step_3_normalizer_processor.safetensors"),
    );
    let stats = stats.expect("statistics");
    let file = tendon::policy::tensors::TensorFile::parse("stats", &stats).expect("whole");
    let std = file.f32("action.std", &[6]).expect("deviations");
    for (joint, spread) in spread.iter().enumerate() {
        let wanted = if joint == 2 { std[2] } else { 0.0 };
        assert!(
            (spread - wanted).abs() < 1e-6,
            "{joint}: {spread}, not {wanted}"
        );
    }
    assert!((doubt.expect("it tells") - (std[2] / 0.5).min(1.0)).abs() < 1e-5);
    let maps: Vec<_> = policy.attention().collect();
    assert_eq!(maps.len(), 1);
    assert_eq!(
        (maps[0].camera, maps[0].columns, maps[0].rows),
        ("top", 4, 3)
    );
    assert_eq!(maps[0].values, looked);
}

#[track_caller]
fn refused(family: &str, change: impl FnOnce(&mut Value), words: &[&str]) {
    let dir = copy(family, change);
    let says = vec![Tensor::F32(vec![0.0; 144]), Tensor::F32(vec![0.0; 12])];
    let problems = Staged::load(dir.path(), LoadOptions::default(), &with_parrot(says))
        .expect_err("a refusal");
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for word in words {
        assert!(
            said.join("\n").contains(word),
            "\"{word}\" is not in {said:?}"
        );
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let six = vec![1.0; 6];
    let ask_for = |value: Value| move |tendon: &mut Value| tendon["uncertainty"] = value;
    refused(
        "act",
        ask_for(json!({"count": 4, "spread_max": six})),
        &["tendon.uncertainty", "a loop that begins with noise"],
    );
    refused(
        "diffusion",
        ask_for(json!({"count": 1, "spread_max": six})),
        &["tendon.uncertainty.count", "2 to 64"],
    );
    refused(
        "diffusion",
        ask_for(json!({"count": 4, "spread_max": [1.0]})),
        &["tendon.uncertainty.spread_max", "each name"],
    );
    refused(
        "diffusion",
        ask_for(json!({"count": 4, "steps": 99, "spread_max": six})),
        &["tendon.uncertainty.steps"],
    );
    refused(
        "act",
        |tendon| {
            several(tendon);
            tendon["uncertainty"]["count"] = json!(5);
        },
        &["tendon.uncertainty.from", "144 numbers"],
    );
    refused(
        "act",
        |tendon| {
            several(tendon);
            tendon["attention"][0]["camera"] = json!("nowhere");
            tendon["attention"][0]["rows"] = json!(4);
        },
        &[
            "tendon.attention[0].camera",
            "\"nowhere\"",
            "tendon.attention[0].from",
            "of 12",
        ],
    );
}

/// The runtime does not follow what the answers disagree about.
#[test]
fn a_chunk_whose_answers_disagree_is_doubted() {
    for (most, unsure_chunks) in [(1e-6, 1), (1e6, 0)] {
        let cameras = ROLES.map(|role| {
            format!("[[camera]]\nname = \"{role}\"\nwidth = 40\nheight = 30\nage_max_ms = 150\n")
        });
        let tendon = deployed::tendon("doubt_max = 0.5\n", "merge = \"replace\"\nstart_ms = 400");
        let folder = deployed::folder(&(tendon + &cameras.concat()), |into| {
            on_bench::write(into, |manifest| {
                let uncertainty = json!({"count": 3, "spread_max": vec![most; 7]});
                manifest["tendon"]["uncertainty"] = uncertainty;
            });
        });
        let mut deployment = deployed::deployment(&folder).expect("everything fits");
        deployment
            .mind
            .instruct("touch the red block")
            .expect("a sentence");
        let mut states = StateHistory::default();
        let now = Mono(1_000 * MS);
        states.push(&JointState {
            joints: 7,
            measured: now,
            ..JointState::NEVER
        });
        let mut frame = Frame::black(40, 30);
        (frame.seq, frame.captured, frame.received) = (1, now, now);
        let others = [Some(&frame), Some(&frame)];
        let (_, insight) = deployment
            .mind
            .think(now, &frame, &others, &states, &Followed::default(), &|| now)
            .expect("a chunk");
        assert_eq!(insight.unsure_chunks, unsure_chunks);
    }
}
