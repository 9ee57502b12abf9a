// SPDX-License-Identifier: Apache-2.0
//! Bundles whose files are wrong inside, packed with matching hashes: statistics, tokenizer, graph, fixture.

use crate::fixture::{Copy, Parrot, REPORT};
use crate::refusal::{FP32, PARITY, STATS, check, check_with, remove, said, set};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tendon::config::Precision;
use tendon::engine::cpu::{CpuEngine, CpuOptions};
use tendon::policy::{LoadOptions, ParityMiss, Policy};
use tendon::ports::{Engine, StageSpec, Tensor};

/// Replaces numbers of a key in the statistics, by their place in the file.
fn change_stats(copy: &Copy, key: &str, at: usize, value: f32) {
    let mut bytes = copy.read(STATS);
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let index: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    let start =
        index[key]["data_offsets"][0].as_u64().expect("the key") as usize + 8 + header + 4 * at;
    bytes[start..start + 4].copy_from_slice(&value.to_le_bytes());
    copy.repack(STATS, &bytes);
}

/// Writes new statistics with one key renamed or reshaped.
fn rewrite_header(copy: &Copy, change: impl FnOnce(&mut Value)) {
    let bytes = copy.read(STATS);
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) as usize;
    let mut index: Value = serde_json::from_slice(&bytes[8..8 + header]).expect("a header");
    change(&mut index);
    let text = serde_json::to_vec(&index).expect("JSON");
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    out.extend(&bytes[8 + header..]);
    copy.repack(STATS, &out);
}

#[test]
fn statistics_that_would_move_a_robot_wrongly() {
    check(
        |copy| change_stats(copy, "observation.state.mean", 2, f32::NAN),
        &[
            STATS,
            "observation.state.mean of \"elbow_pitch\"",
            "finite",
            "NaN",
        ],
    );
    check(
        |copy| change_stats(copy, "observation.state.std", 0, 0.0),
        &[
            STATS,
            "observation.state.std of \"base_yaw\"",
            "above 0",
            "found 0",
        ],
    );
    check(
        |copy| change_stats(copy, "action.std", 6, -1.0),
        &[STATS, "action.std of \"gripper\"", "-1"],
    );
    check(
        |copy| change_stats(copy, "action.std", 6, f32::INFINITY),
        &[STATS, "action.std of \"gripper\"", "inf"],
    );
    check(
        |copy| change_stats(copy, "action.q99", 1, f32::NAN),
        &[STATS, "action.q99 of \"shoulder_pitch\"", "NaN"],
    );
}
#[test]
fn statistics_of_another_width_type_or_name() {
    check(
        |copy| rewrite_header(copy, |index| index["action.mean"]["shape"] = json!([7, 1])),
        &[STATS, "action.mean", "F32 [7]", "F32 [7, 1]"],
    );
    check(
        |copy| rewrite_header(copy, |index| index["action.std"]["dtype"] = json!("I32")),
        &[STATS, "action.std", "F32 [7]", "I32 [7]"],
    );
    let rename = |index: &mut Value| {
        let map = index.as_object_mut().expect("an object");
        let value = map.remove("observation.state.mean").expect("the key");
        map.insert("observation.state.mu".into(), value);
    };
    check(
        |copy| rewrite_header(copy, rename),
        &[STATS, "observation.state.mean", "no such key"],
    );
    check(
        |copy| set(copy, "/tendon/action/stats/key", json!("actions")),
        &["actions.mean", "no such key"],
    );
}
#[test]
fn safetensors_that_are_not() {
    check(
        |copy| copy.repack(STATS, &u64::MAX.to_le_bytes()),
        &[STATS, "a whole safetensors file"],
    );
    check(
        |copy| copy.repack(STATS, &90_000_000_u64.to_le_bytes()),
        &[STATS, "a whole safetensors file"],
    );
    check(|copy| copy.repack(STATS, b""), &[STATS, "0 bytes"]);
    check(
        |copy| {
            let bytes = copy.read(STATS);
            copy.repack(STATS, &bytes[..bytes.len() - 4])
        },
        &[STATS, "a whole safetensors file"],
    );
    check(
        |copy| {
            rewrite_header(copy, |index| {
                index["action.mean"]["data_offsets"] = json!([0, u64::MAX])
            })
        },
        &[STATS, "a whole safetensors file"],
    );
    check(
        |copy| {
            rewrite_header(copy, |index| {
                index["action.mean"]["shape"] = json!([u64::MAX, u64::MAX])
            })
        },
        &[STATS, "a whole safetensors file"],
    );
}

#[test]
fn tokenizers_that_are_not() {
    check(
        |copy| copy.repack("tokenizer.json", b"\xff\xfe{}"),
        &["tokenizer.json", "UTF-8"],
    );
    check(
        |copy| copy.repack("tokenizer.json", b"{\"version\": \"1.0\"}"),
        &["tokenizer.json", "a tokenizer.json"],
    );
    check(
        |copy| copy.repack("tokenizer.json", b""),
        &["tokenizer.json", "a tokenizer.json"],
    );
}
#[test]
fn a_tokenizer_that_reads_words_otherwise() {
    let swap = |copy: &Copy| {
        let text = String::from_utf8(copy.read("tokenizer.json")).expect("UTF-8");
        copy.repack(
            "tokenizer.json",
            text.replace("Lowercase", "NFC")
                .replace("\"the\"", "\"teh\"")
                .as_bytes(),
        );
    };
    check(swap, &[PARITY, "tokens ["]);
}
#[test]
fn a_tokenizer_that_would_cut_does_not() {
    let copy = Copy::new();
    let mut tokenizer: Value = serde_json::from_slice(&copy.read("tokenizer.json")).expect("JSON");
    tokenizer["truncation"] =
        json!({ "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0 });
    copy.repack(
        "tokenizer.json",
        &serde_json::to_vec(&tokenizer).expect("JSON"),
    );
    let policy = copy
        .load(LoadOptions::default())
        .expect("its own truncation is switched off");
    assert_eq!(
        policy
            .text()
            .encode("touch the red block in the left bin")
            .expect("fits")
            .used,
        8
    );
}

#[test]
fn a_truncated_graph() {
    for tenths in 0..10 {
        let cut = |copy: &Copy| {
            let bytes = copy.read(FP32);
            copy.repack(FP32, &bytes[..bytes.len() * tenths / 10]);
        };
        check(cut, &["tendon.stages[0].onnx.fp32", FP32]);
    }
}
#[test]
fn a_graph_that_is_none() {
    check(
        |copy| copy.repack(FP32, b"this is no graph"),
        &[FP32, "ONNX"],
    );
    check(
        |copy| {
            let stats = copy.read(STATS);
            copy.repack(FP32, &stats)
        },
        &[FP32, "ONNX"],
    );
}
#[test]
fn a_graph_with_other_tensors() {
    let rename = |copy: &Copy| {
        copy.edit(|manifest| {
            let inputs = manifest["tendon"]["stages"][0]["inputs"]
                .as_object_mut()
                .expect("inputs");
            let value = inputs.remove("state").expect("state");
            inputs.insert("proprio".into(), value);
        });
    };
    check(
        rename,
        &[
            "\"proprio\": expected in the graph",
            "\"state\": expected in the manifest",
        ],
    );
    check(
        |copy| remove(copy, "/tendon/stages/0/outputs/presence"),
        &["output \"presence\"", "found only in the graph"],
    );
    let narrow = |copy: &Copy| {
        copy.edit(|manifest| {
            manifest["tendon"]["text"]["max_len"] = json!(12);
            manifest["tendon"]["stages"][0]["inputs"]["tokens"]["shape"] = json!([1, 12]);
        });
    };
    check(narrow, &["input \"tokens\"", "[1, 12]", "16"]);
}
#[test]
fn the_engine_has_its_own_limit() {
    let copy = Copy::new();
    let load = |path: &Path, spec: &StageSpec| {
        let options = CpuOptions {
            file_bytes_max: 1_000,
            ..CpuOptions::default()
        };
        Ok(Box::new(CpuEngine::load(path, spec, options)?) as Box<dyn Engine>)
    };
    let problems =
        Policy::load(copy.dir.path(), LoadOptions::default(), &load).expect_err("too large");
    said(&problems, &[FP32, "at most 1000 bytes"]);
}
#[test]
fn a_precision_that_is_not_there() {
    let int8 = LoadOptions {
        precision: Precision::Int8,
        ..LoadOptions::default()
    };
    check_with(
        int8,
        |copy| remove(copy, "/tendon/stages/0/onnx/int8"),
        &["tendon.stages[0].onnx.int8", "nothing"],
    );
}
#[test]
fn an_engine_that_lies() {
    let copy = Copy::new();
    let load = |_: &Path, spec: &StageSpec| {
        let mut spec = spec.clone();
        spec.inputs.reverse();
        let says: Vec<Tensor> = spec.outputs.iter().map(Tensor::zeros).collect();
        Ok(Box::new(Parrot {
            spec,
            says: Arc::new(Mutex::new(says)),
            heard: Arc::default(),
        }) as Box<dyn Engine>)
    };
    let problems =
        Policy::load(copy.dir.path(), REPORT, &load).expect_err("tensors in another order");
    said(
        &problems,
        &["tendon.stages[0].onnx.fp32", "manifest's order"],
    );
}
#[test]
fn an_engine_that_says_nan() {
    for output in 0..3 {
        let copy = Copy::new();
        let load = |_: &Path, spec: &StageSpec| {
            let mut says: Vec<Tensor> = spec.outputs.iter().map(Tensor::zeros).collect();
            says[output].f32_mut().expect("floats")[1 - output.min(1)] = f32::NAN;
            Ok(Box::new(Parrot {
                spec: spec.clone(),
                says: Arc::new(Mutex::new(says)),
                heard: Arc::default(),
            }) as Box<dyn Engine>)
        };
        let problems = Policy::load(copy.dir.path(), REPORT, &load).expect_err("NaN");
        said(&problems, &[PARITY, "not finite"]);
    }
}

#[test]
fn another_policy_under_the_same_name_misses_its_fixture() {
    let shift = |copy: &Copy| change_stats(copy, "action.mean", 0, 0.5);
    check(
        shift,
        &[PARITY, "tendon.parity.error_max_fraction", "base_yaw"],
    );
    let copy = Copy::new();
    shift(&copy);
    let policy = copy
        .load(LoadOptions {
            parity_miss: ParityMiss::Report,
            ..LoadOptions::default()
        })
        .expect("it was asked for");
    assert!(!policy.parity().missed.is_empty());
    assert!(policy.parity().to_string().starts_with("MISSED"));
}
#[test]
fn fixtures_that_are_not() {
    check(
        |copy| set(copy, "/tendon/parity/frames", json!(9)),
        &[PARITY, "action", "[9, 16, 7]"],
    );
    check(
        |copy| copy.repack("parity.json", b"{}"),
        &["parity.json", "sentences"],
    );
    check(
        |copy| copy.repack("parity.json", b"{\"sentences\": [\"touch\"]}"),
        &["parity.json", "8 sentences", "found 1"],
    );
    check(|copy| copy.repack("parity.json", b"\xff"), &["parity.json"]);
    check(
        |copy| copy.repack(PARITY, b"12345678"),
        &[PARITY, "a whole safetensors file"],
    );
}

/// One byte changed anywhere, packed again as if it had always been so: it may load or not, but never panics.
#[test]
fn a_changed_byte_never_panics() {
    let mut dice = 1_u64;
    let mut roll = |below: usize| {
        dice = dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % below
    };
    let copy = Copy::new();
    for name in [
        "manifest.json",
        STATS,
        "tokenizer.json",
        PARITY,
        "parity.json",
        FP32,
    ] {
        let whole = copy.read(name);
        for _ in 0..if name == FP32 { 24 } else { 48 } {
            let mut bytes = whole.clone();
            // Headers are where it hurts; weights only change numbers.
            let span = if roll(2) == 0 {
                bytes.len().min(600)
            } else {
                bytes.len()
            };
            let at = roll(span);
            bytes[at] = roll(256) as u8;
            if name == "manifest.json" {
                copy.write(name, &bytes);
            } else {
                copy.repack(name, &bytes);
            }
            match copy.load(REPORT) {
                Ok(_) => {}
                Err(problems) => assert!(!problems.is_empty(), "{name} byte {at}"),
            }
            copy.write(
                "manifest.json",
                &std::fs::read(crate::fixture::shipped().join("manifest.json")).expect("it"),
            );
        }
        copy.write(name, &whole);
    }
}
