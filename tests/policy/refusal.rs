// SPDX-License-Identifier: Apache-2.0
//! How a broken bundle is judged: refused in under a second, in words that name the file or key, what was expected and
//! what was found.

use crate::fixture::Copy;
use serde_json::Value;
use std::time::Instant;
use tendon::config::problem::Problem;
use tendon::policy::LoadOptions;

pub const FP32: &str = "bench_vla_fp32.onnx";
pub const INT8: &str = "bench_vla_int8.onnx";
pub const STATS: &str = "stats.safetensors";
pub const PARITY: &str = "parity.safetensors";

/// Breaks a copy and loads it; every `wants` must stand in one line of the refusal.
#[track_caller]
pub fn check(break_it: impl FnOnce(&Copy), wants: &[&str]) {
    check_with(LoadOptions::default(), break_it, wants);
}

#[track_caller]
pub fn check_with(options: LoadOptions, break_it: impl FnOnce(&Copy), wants: &[&str]) {
    let copy = Copy::new();
    break_it(&copy);
    let began = Instant::now();
    let result = copy.load(options);
    let took = began.elapsed();
    said(&result.expect_err("a broken bundle loaded"), wants);
    assert!(took.as_secs_f64() < 1.0, "took {took:?}");
}

#[track_caller]
pub fn said(problems: &[Problem], wants: &[&str]) {
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
pub fn set(copy: &Copy, pointer: &str, value: Value) {
    copy.edit(|manifest| {
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        match manifest.pointer_mut(parent).expect("a parent") {
            Value::Array(list) => list[key.parse::<usize>().expect("an index")] = value,
            other => other[key] = value,
        }
    });
}

pub fn remove(copy: &Copy, pointer: &str) {
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
