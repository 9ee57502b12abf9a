// SPDX-License-Identifier: Apache-2.0
//! Bundles whose manifest is wrong: no JSON, unknown or missing keys, wrong types, huge claims, two truths.

use crate::fixture::Copy;
use crate::refusal::{STATS, check, remove, said, set};
use serde_json::json;
use tendon::policy::LoadOptions;
use tendon::policy::bundle::Bundle;

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
        &["tendon.parity.cosine_min", "0.999 to 1"],
    );
    check(
        |copy| set(copy, "/tendon/parity/error_max_fraction", json!(0.02)),
        &["tendon.parity.error_max_fraction", "0.01"],
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
