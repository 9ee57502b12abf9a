// SPDX-License-Identifier: Apache-2.0
//! Bundles broken in every way that comes to mind: each is refused in under a second, in words that name the file or
//! key, what was expected and what was found.

use crate::fixture::{Copy, Parrot, REPORT, cpu};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tendon::config::Precision;
use tendon::config::problem::Problem;
use tendon::engine::cpu::{CpuEngine, CpuOptions};
use tendon::policy::bundle::Bundle;
use tendon::policy::{LoadOptions, ParityMiss, Policy};
use tendon::ports::{Engine, StageSpec, Tensor};

const FP32: &str = "bench_vla_fp32.onnx";
const INT8: &str = "bench_vla_int8.onnx";
const STATS: &str = "stats.safetensors";
const PARITY: &str = "parity.safetensors";

/// Breaks a copy and loads it; every `wants` must stand in one line of the refusal.
#[track_caller]
fn check(break_it: impl FnOnce(&Copy), wants: &[&str]) {
    check_with(LoadOptions::default(), break_it, wants);
}

#[track_caller]
fn check_with(options: LoadOptions, break_it: impl FnOnce(&Copy), wants: &[&str]) {
    let copy = Copy::new();
    break_it(&copy);
    let began = Instant::now();
    let result = copy.load(options);
    let took = began.elapsed();
    said(&result.expect_err("a broken bundle loaded"), wants);
    assert!(took.as_secs_f64() < 1.0, "took {took:?}");
}

#[track_caller]
fn said(problems: &[Problem], wants: &[&str]) {
    let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(
        text.iter()
            .any(|line| wants.iter().all(|want| line.contains(want))),
        "expected {wants:?} in one line of {text:#?}"
    );
    for line in &text {
        assert!(
            line.contains("expected ") && line.contains("found "),
            "{line}"
        );
    }
}

/// Sets the value at a JSON pointer.
fn set(copy: &Copy, pointer: &str, value: Value) {
    copy.edit(|manifest| {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        match manifest.pointer_mut(parent).expect("a parent") {
            Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
            other => other[key] = value,
        }
    });
}

fn remove(copy: &Copy, pointer: &str) {
    copy.edit(|manifest| {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        manifest
            .pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .expect("an object")
            .remove(key)
            .expect("the key");
    });
}

#[test]
fn the_untouched_copy_loads() {
    Copy::new()
        .load(LoadOptions::default())
        .expect("the shipped bundle loads from anywhere");
}

// ---- the folder

#[test]
fn no_folder() {
    let problems = Policy::load(
        Path::new("/nonexistent/bundle"),
        LoadOptions::default(),
        &cpu,
    )
    .expect_err("nothing there");
    said(
        &problems,
        &["/nonexistent/bundle", "a policy bundle", "No such file"],
    );
}
#[test]
fn a_file_is_no_folder() {
    let copy = Copy::new();
    let problems =
        Policy::load(&copy.path(FP32), LoadOptions::default(), &cpu).expect_err("a file");
    said(&problems, &["not a folder"]);
}
#[test]
fn missing_files() {
    for name in [
        "manifest.json",
        FP32,
        INT8,
        STATS,
        "tokenizer.json",
        PARITY,
        "parity.json",
    ] {
        check(
            |copy| std::fs::remove_file(copy.path(name)).expect("it was there"),
            &[name, "No such file"],
        );
    }
}
#[test]
fn another_hash() {
    for name in [FP32, INT8, STATS, "tokenizer.json", PARITY, "parity.json"] {
        let flip = |copy: &Copy| {
            let mut bytes = copy.read(name);
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            copy.write(name, &bytes);
        };
        check(flip, &[name, "with SHA-256", "found SHA-256"]);
    }
}
#[test]
fn a_path_with_dots() {
    let escape = |copy: &Copy| {
        copy.edit(|manifest| {
            manifest["tendon"]["text"]["tokenizer"] = json!("../tokenizer.json");
            manifest["tendon"]["sha256"]["../tokenizer.json"] = json!("00");
        });
    };
    check(
        escape,
        &["tendon.sha256[\"../tokenizer.json\"]", "leaves the folder"],
    );
}
#[test]
fn an_absolute_path() {
    check(
        |copy| copy.edit(|manifest| manifest["tendon"]["sha256"]["/etc/hostname"] = json!("00")),
        &["/etc/hostname", "leaves the folder"],
    );
}
#[test]
fn an_empty_name_and_one_with_a_zero() {
    check(
        |copy| copy.edit(|manifest| manifest["tendon"]["sha256"][""] = json!("00")),
        &["leaves the folder"],
    );
    check(
        |copy| copy.edit(|manifest| manifest["tendon"]["sha256"]["a\0b"] = json!("00")),
        &["a\\0b", "leaves the folder"],
    );
}
#[test]
fn a_link_out_of_the_folder() {
    let outside = tempfile::tempdir().expect("a folder");
    check(
        |copy| {
            let target = outside.path().join("tokenizer.json");
            std::fs::rename(copy.path("tokenizer.json"), &target).expect("a move");
            symlink(&target, copy.path("tokenizer.json")).expect("a link");
        },
        &["tokenizer.json", "a link that leads out of it"],
    );
}
#[test]
fn a_link_inside_the_folder_is_a_file() {
    let copy = Copy::new();
    std::fs::rename(copy.path("tokenizer.json"), copy.path("words.json")).expect("a move");
    symlink("words.json", copy.path("tokenizer.json")).expect("a link");
    copy.load(LoadOptions::default())
        .expect("it never leaves the folder");
}
#[test]
fn a_folder_and_a_socket_are_no_files() {
    check(
        |copy| {
            std::fs::remove_file(copy.path(STATS)).expect("it was there");
            std::fs::create_dir(copy.path(STATS)).expect("a folder");
        },
        &[STATS, "not a plain file"],
    );
    check(
        |copy| {
            std::fs::remove_file(copy.path(STATS)).expect("it was there");
            std::os::unix::net::UnixListener::bind(copy.path(STATS)).expect("a socket");
        },
        &[STATS, "not a plain file"],
    );
}
#[test]
fn a_file_larger_than_allowed() {
    let grow = |name: &'static str, bytes: u64| {
        move |copy: &Copy| {
            let file = std::fs::OpenOptions::new()
                .write(true)
                .open(copy.path(name))
                .expect("a file");
            file.set_len(bytes).expect("a sparse file");
        }
    };
    check(
        grow(FP32, 300 << 20),
        &[FP32, "at most 268435456 bytes", "314572800"],
    );
    check(
        grow("manifest.json", 2 << 20),
        &["manifest.json", "at most 1048576 bytes"],
    );
}

// ---- the manifest

#[test]
fn a_manifest_that_is_no_json() {
    let not_utf8 = |copy: &Copy| {
        let mut bytes = copy.read("manifest.json");
        bytes[12] = 0xff;
        copy.write("manifest.json", &bytes);
    };
    check(not_utf8, &["manifest.json:", "UTF-8"]);
    check(
        |copy| copy.write("manifest.json", b""),
        &["manifest.json:", "JSON"],
    );
    check(
        |copy| copy.write("manifest.json", &copy.read("manifest.json")[..900]),
        &["manifest.json:", "JSON"],
    );
    check(
        |copy| copy.write("manifest.json", "[".repeat(100_000).as_bytes()),
        &["manifest.json:1", "recursion limit"],
    );
    check(
        |copy| copy.write("manifest.json", b"[1, 2]"),
        &["manifest.json"],
    );
}
#[test]
fn a_package_without_our_key() {
    check(|copy| remove(copy, "/tendon"), &["tendon", "nothing"]);
}
#[test]
fn unknown_keys() {
    check(
        |copy| set(copy, "/tendon/extra", json!(1)),
        &["tendon.extra", "an unknown key"],
    );
    for section in ["image", "text", "state", "action", "timing", "parity"] {
        let at = format!("tendon.{section}");
        check(
            |copy| set(copy, &format!("/tendon/{section}/wish"), json!(1)),
            &[&at, "unknown field `wish`"],
        );
    }
    check(
        |copy| set(copy, "/tendon/stages/0/wish", json!(1)),
        &["tendon.stages[0]", "unknown field `wish`"],
    );
}
#[test]
fn others_may_add_to_their_part() {
    let copy = Copy::new();
    set(&copy, "/metadata", json!({ "created_by": "someone" }));
    set(&copy, "/model/callbacks", json!([]));
    copy.load(LoadOptions::default())
        .expect("a key outside `tendon` is not ours");
}
#[test]
fn missing_keys() {
    check(
        |copy| remove(copy, "/tendon/timing"),
        &["tendon.timing", "nothing"],
    );
    check(
        |copy| remove(copy, "/tendon/action/period_ms"),
        &["tendon.action", "field `period_ms`", "nothing"],
    );
    check(
        |copy| remove(copy, "/tendon/stages/0/onnx/fp32"),
        &["tendon.stages[0].onnx", "field `fp32`"],
    );
    check(|copy| remove(copy, "/format"), &["field `format`"]);
}
#[test]
fn wrong_types() {
    check(
        |copy| set(copy, "/tendon/image/size/1", json!("96")),
        &["tendon.image.size[1]", "string \"96\""],
    );
    check(
        |copy| set(copy, "/tendon/action/chunk_len", json!(-1)),
        &["tendon.action.chunk_len", "-1"],
    );
    check(
        |copy| set(copy, "/tendon/action/chunk_len", json!(1.5)),
        &["tendon.action.chunk_len", "1.5"],
    );
    check(
        |copy| set(copy, "/tendon/image/resize/filter", json!("nearest")),
        &["tendon.image.resize.filter", "nearest", "bilinear"],
    );
    check(
        |copy| set(copy, "/tendon/state/units/0", json!("deg")),
        &["tendon.state.units[0]", "deg"],
    );
}
#[test]
fn other_formats_and_versions() {
    check(
        |copy| set(copy, "/format", json!("onnx")),
        &["format", "policy_package", "onnx"],
    );
    check(
        |copy| set(copy, "/version", json!("2.0")),
        &["version", "1.0", "2.0"],
    );
    check(
        |copy| set(copy, "/tendon/schema", json!(2)),
        &["tendon.schema", "expected 1, found 2"],
    );
    check(
        |copy| set(copy, "/model/runner/type", json!("kv_cache_flow")),
        &["model.runner.type", "kv_cache_flow"],
    );
    check(
        |copy| set(copy, "/model/n_obs_steps", json!(2)),
        &["model.n_obs_steps", "found 2"],
    );
}
#[test]
fn huge_claims_are_refused_before_anything_is_allocated() {
    check(
        |copy| {
            set(
                copy,
                "/tendon/image/source_size",
                json!([4_000_000_000_u64, 4_000_000_000_u64]),
            )
        },
        &["tendon.image.source_size[0]", "4000000000"],
    );
    check(
        |copy| set(copy, "/tendon/image/size", json!([u64::MAX, 0])),
        &["tendon.image.size[0]"],
    );
    check(
        |copy| {
            set(
                copy,
                "/tendon/action/chunk_len",
                json!(1_000_000_000_000_u64),
            )
        },
        &["tendon.action.chunk_len"],
    );
    check(
        |copy| set(copy, "/tendon/text/max_len", json!(u64::MAX)),
        &["tendon.text.max_len"],
    );
    check(
        |copy| set(copy, "/tendon/parity/frames", json!(u64::MAX)),
        &["tendon.parity.frames"],
    );
    check(
        |copy| {
            set(
                copy,
                "/tendon/stages/0/inputs/image/shape",
                json!([u64::MAX, u64::MAX, 3, 3]),
            )
        },
        &["tendon.stages[0].inputs.image.shape"],
    );
    let names: Vec<String> = (0..10_000).map(|index| format!("j{index}")).collect();
    check(
        |copy| set(copy, "/tendon/action/names", json!(names)),
        &["tendon.action.names", "10000"],
    );
}
#[test]
fn numbers_out_of_bounds() {
    check(
        |copy| set(copy, "/tendon/action/period_ms", json!(0)),
        &["tendon.action.period_ms", "found 0"],
    );
    check(
        |copy| set(copy, "/tendon/action/period_ms", json!(1e300)),
        &["tendon.action.period_ms"],
    );
    check(
        |copy| set(copy, "/tendon/action/gripper_threshold", json!(7)),
        &["tendon.action.gripper_threshold"],
    );
    check(
        |copy| set(copy, "/tendon/image/scale", json!(-1.0)),
        &["tendon.image.scale", "-1"],
    );
    check(
        |copy| set(copy, "/tendon/image/size/0", json!(0)),
        &["tendon.image.size[0]", "found 0"],
    );
    check(
        |copy| set(copy, "/tendon/timing/infer_hz", json!(0)),
        &["tendon.timing.infer_hz"],
    );
    check(
        |copy| set(copy, "/tendon/text/pad_id", json!(u32::MAX)),
        &["tendon.text.pad_id"],
    );
    check(
        |copy| set(copy, "/tendon/parity/cosine_min", json!(-1)),
        &["tendon.parity.cosine_min", "0.99 to 1"],
    );
    check(
        |copy| set(copy, "/tendon/parity/error_max_fraction", json!(10)),
        &["tendon.parity.error_max_fraction"],
    );
}
#[test]
fn two_truths_that_differ() {
    check(
        |copy| set(copy, "/hardware/cameras/0/shape", json!([3, 480, 640])),
        &["hardware.cameras", "[3, 224, 224]", "[3, 480, 640]"],
    );
    check(
        |copy| set(copy, "/hardware/cameras/0/name", json!("wrist")),
        &["hardware.cameras", "front"],
    );
    check(
        |copy| set(copy, "/hardware/robots/0/action/order/0", json!("yaw")),
        &["hardware.robots[0].action.order", "base_yaw", "yaw"],
    );
    check(
        |copy| set(copy, "/tendon/state/names/0", json!("yaw")),
        &["hardware.robots[0].state.order"],
    );
    check(
        |copy| set(copy, "/model/preprocessors/0/mode", json!("min_max")),
        &["model.preprocessors[0].mode", "mean_std", "min_max"],
    );
    check(
        |copy| set(copy, "/model/preprocessors/0/type", json!("tokenize")),
        &["model.preprocessors[0]", "tokenize"],
    );
    check(
        |copy| {
            set(
                copy,
                "/model/postprocessors/0/artifact",
                json!("other.safetensors"),
            )
        },
        &["model.postprocessors[0].artifact", "other.safetensors"],
    );
    check(
        |copy| set(copy, "/model/artifacts/onnx", json!("other.onnx")),
        &["model.artifacts.onnx", "other.onnx"],
    );
}
#[test]
fn a_file_that_no_hash_covers() {
    check(
        |copy| {
            copy.edit(|manifest| {
                drop(
                    manifest["tendon"]["sha256"]
                        .as_object_mut()
                        .map(|map| map.remove(STATS)),
                )
            })
        },
        &["tendon.state.stats.file", STATS, "SHA-256"],
    );
}
#[test]
fn relative_joints_that_make_no_sense() {
    check(
        |copy| set(copy, "/tendon/action/relative", json!(["gripper"])),
        &["tendon.action.relative", "gripper"],
    );
    check(
        |copy| set(copy, "/tendon/action/relative", json!(["tail"])),
        &["tendon.action.relative", "tail"],
    );
    check(
        |copy| set(copy, "/tendon/action/relative", json!([])),
        &["tendon.action.relative", "none"],
    );
    check(
        |copy| set(copy, "/tendon/action/representation", json!("absolute")),
        &["tendon.action.relative", "absolute"],
    );
    check(
        |copy| set(copy, "/tendon/state/units/0", json!("m")),
        &["tendon.action.relative", "base_yaw", "in rad", "in m"],
    );
}
#[test]
fn names_and_units_that_do_not_match() {
    check(
        |copy| set(copy, "/tendon/action/names/1", json!("base_yaw")),
        &["tendon.action.names", "\"base_yaw\" twice"],
    );
    check(
        |copy| set(copy, "/tendon/state/units", json!(["rad"])),
        &["tendon.state.units", "8 units", "found 1"],
    );
}
#[test]
fn stages_that_do_not_follow_from_the_sections() {
    check(
        |copy| {
            set(
                copy,
                "/tendon/stages/0/inputs/image/shape",
                json!([1, 3, 224, 224]),
            )
        },
        &[
            "tendon.stages[0].inputs.image.shape",
            "[1, 3, 96, 96]",
            "[1, 3, 224, 224]",
        ],
    );
    check(
        |copy| set(copy, "/tendon/stages/0/inputs/tokens/dtype", json!("f32")),
        &["tendon.stages[0].inputs.tokens.dtype", "F32"],
    );
    check(
        |copy| {
            set(
                copy,
                "/tendon/stages/0/inputs/image/from",
                json!("image.wrist"),
            )
        },
        &["tendon.stages[0].inputs", "image.wrist"],
    );
    check(
        |copy| set(copy, "/tendon/stages/0/inputs/image/from", json!("state")),
        &["tendon.stages[0].inputs", "one from \"state\"", "found 2"],
    );
    check(
        |copy| {
            set(
                copy,
                "/tendon/stages/0/outputs/hidden",
                json!({ "dtype": "f32", "shape": [1] }),
            )
        },
        &["tendon.stages[0].outputs.hidden"],
    );
    check(
        |copy| remove(copy, "/tendon/stages/0/outputs/action"),
        &["tendon.stages[0].outputs", "\"action\"", "none"],
    );
    check(
        |copy| set(copy, "/tendon/stages", json!([])),
        &["tendon.stages", "one stage", "found 0"],
    );
}
#[test]
fn all_problems_at_once() {
    let copy = Copy::new();
    set(&copy, "/version", json!("9"));
    set(&copy, "/tendon/action/period_ms", json!(-5));
    set(&copy, "/tendon/image/scale", json!(0));
    std::fs::remove_file(copy.path(STATS)).expect("it was there");
    let problems = Bundle::open(copy.dir.path()).expect_err("broken four times");
    for want in [
        "version",
        "tendon.action.period_ms",
        "tendon.image.scale",
        STATS,
    ] {
        said(&problems, &[want]);
    }
}

// ---- the statistics

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

// ---- the tokenizer

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

// ---- the graph

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

// ---- the fixture

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

// ---- anything

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
