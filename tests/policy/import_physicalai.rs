// SPDX-License-Identifier: Apache-2.0
//! `tendon policy import` of packages that OpenVINO Physical AI's own code wrote and ran
//! (`engines/families/physicalai_package.py`): the chunks are those of its runtime, and what cannot be mapped is named.

use crate::fixture::cpu;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tendon::engine::cpu::tensors_of;
use tendon::policy::LoadOptions;
use tendon::policy::import::JointUnit;
use tendon::policy::import_physicalai::{Request, is_package, package};
use tendon::policy::pilot::Pilot;

fn home(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/physicalai")
        .join(name)
}

fn request(name: &str) -> Request {
    Request {
        folder: home(name).join("package"),
        fixture: home(name).join("fixture.safetensors"),
        unit: JointUnit::Rad,
        rate_hz: Some(30.0),
        info: None,
        sizes: Vec::new(),
        pictures_0_to_1: false,
        joints: None,
    }
}

fn manifest(folder: &Path) -> Value {
    let bytes = std::fs::read(folder.join("manifest.json")).expect("a manifest");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[test]
fn a_package_gives_the_chunks_of_its_own_runtime() {
    for (name, steps) in [("short", 8), ("long", 6)] {
        let request = request(name);
        assert!(is_package(&request.folder));
        let dir = tempfile::tempdir().expect("a folder");
        let out = dir.path().join("bundle");
        package(&request, &out, &tensors_of).expect(name);
        let pilot = Pilot::load(&out, LoadOptions::default(), &cpu).expect("it holds its fixture");
        println!("{name}: {}", pilot.parity());
        assert!(pilot.parity().error_fraction < 1e-5, "{}", pilot.parity());
        let pace = pilot.pace().expect("it moves joints");
        assert_eq!(pace.steps, steps);
        // What the package said is still there, word for word.
        let (theirs, mut ours) = (manifest(&request.folder), manifest(&out));
        let added = ours.as_object_mut().and_then(|root| root.remove("tendon"));
        assert!(added.is_some());
        assert_eq!(ours, theirs);
    }
}

/// A copy of a package with a changed manifest.
fn changed(name: &str, change: impl FnOnce(&mut Value)) -> (tempfile::TempDir, Request) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut request = request(name);
    let copy = dir.path().join("package");
    std::fs::create_dir(&copy).expect("a folder");
    for entry in std::fs::read_dir(&request.folder).expect("the package") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, copy.join(path.file_name().expect("a name"))).expect("a copy");
    }
    let mut root = manifest(&copy);
    change(&mut root);
    std::fs::write(copy.join("manifest.json"), root.to_string()).expect("written");
    request.folder = copy;
    (dir, request)
}

#[track_caller]
fn refused(name: &str, change: impl FnOnce(&mut Value), words: &[&str]) {
    let (dir, request) = changed(name, change);
    let out = dir.path().join("bundle");
    let problems = package(&request, &out, &tensors_of).expect_err("a refusal");
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for word in words {
        assert!(
            said.join("\n").contains(word),
            "\"{word}\" is not in {said:?}"
        );
    }
    assert!(!out.exists(), "nothing half-made is left");
}

#[test]
fn what_cannot_be_mapped_is_named() {
    refused(
        "short",
        |root| root["version"] = json!("2.0"),
        &["manifest.json: version", "1.0", "2.0"],
    );
    refused(
        "short",
        |root| root["model"]["runner"] = json!({"type": "iterative", "num_steps": 10}),
        &["model.runner", "iterative"],
    );
    refused(
        "short",
        |root| root["model"]["artifacts"] = json!({"openvino": "act.xml"}),
        &["model.artifacts", "onnx backend", "act.xml"],
    );
    refused(
        "short",
        |root| root["model"]["artifacts"] = json!({"onnx": "../act.onnx"}),
        &["model.artifacts.onnx", "a file of the package"],
    );
    refused(
        "short",
        |root| root["model"]["n_obs_steps"] = json!(2),
        &["model.n_obs_steps", "spacing", "2"],
    );
    refused(
        "short",
        |root| {
            let list = root["model"]["preprocessors"]
                .as_array_mut()
                .expect("a list");
            list.insert(0, json!({"type": "hf_tokenizer", "tokenizer_name": "x/y"}));
        },
        &["model.preprocessors[0]", "hf_tokenizer", "cannot be mapped"],
    );
    refused(
        "long",
        |root| root["model"]["preprocessors"][1]["class_path"] = json!("somebody.else.Normalizer"),
        &[
            "preprocessors[1].class_path",
            "other code is not run",
            "somebody.else",
        ],
    );
    refused(
        "long",
        |root| {
            let list = root["model"]["postprocessors"]
                .as_array_mut()
                .expect("a list");
            list.push(json!({"type": "joint_frame_postprocess"}));
        },
        &["postprocessors[3]", "joint_frame_postprocess"],
    );
    refused(
        "short",
        |root| {
            drop(
                root["model"]["preprocessors"]
                    .as_array_mut()
                    .expect("a list")
                    .remove(0),
            )
        },
        &["--pictures-0-1"],
    );
    refused(
        "short",
        |root| {
            drop(
                root["hardware"]["robots"][0]["action"]
                    .as_object_mut()
                    .expect("one")
                    .remove("order"),
            )
        },
        &["hardware.robots[0].action.order", "moves the wrong joint"],
    );
    refused(
        "long",
        |root| {
            drop(
                root["hardware"]
                    .as_object_mut()
                    .expect("one")
                    .remove("cameras"),
            )
        },
        &["--camera-size", "\"top\""],
    );
}

#[test]
fn what_the_package_does_not_say_must_be_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let refuse = |request: &Request, word: &str| {
        let problems =
            package(request, &dir.path().join("bundle"), &tensors_of).expect_err("a refusal");
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            said.join("\n").contains(word),
            "\"{word}\" is not in {said:?}"
        );
    };
    let mut without = request("short");
    without.rate_hz = None;
    refuse(&without, "--rate-hz");
    let mut stranger = request("short");
    stranger.joints = Some(vec!["shoulder_pan".into(), "elbow_flex".into()]);
    refuse(&stranger, "not the robot's");
    // LeRobot's packages leave the bytes to the robot's software: pictures of 0 to 1.
    let (folder, mut bare) = changed("short", |root| {
        root["model"]["preprocessors"]
            .as_array_mut()
            .expect("a list")
            .remove(0);
    });
    bare.pictures_0_to_1 = true;
    let out = folder.path().join("bundle");
    package(&bare, &out, &tensors_of).expect("a bundle");
    let pilot = Pilot::load(&out, LoadOptions::default(), &cpu).expect("the same numbers");
    assert!(pilot.parity().error_fraction < 1e-5, "{}", pilot.parity());
}

/// What the real command says of an import of `folder` with `more`: its exit code, and its errors.
fn imported(folder: &Path, more: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_tendon"))
        .args(["policy", "import", "--unit", "rad", "--fixture"])
        .arg(home("short").join("fixture.safetensors"))
        .arg("--out")
        .arg(dir.path().join("bundle"))
        .arg(folder)
        .args(more)
        .output()
        .expect("tendon runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn what_is_meant_for_another_kind_of_folder_is_refused() {
    let package = home("short").join("package");
    let (code, said) = imported(&package, &["--rate-hz", "30"]);
    assert_eq!(code, Some(0), "{said}");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let rows: [(&Path, &[&str], &str); 5] = [
        (
            package.as_path(),
            &["--onnx", "act.onnx", "--rate-hz", "30"],
            "a LeRobot folder",
        ),
        (
            package.as_path(),
            &["--sentences", "said.json", "--rate-hz", "30"],
            "a LeRobot folder",
        ),
        (elsewhere.path(), &["--rate-hz", "30"], "a policy_package"),
        (
            elsewhere.path(),
            &["--camera-size", "top=640x480"],
            "a policy_package",
        ),
        (elsewhere.path(), &["--pictures-0-1"], "a policy_package"),
    ];
    for (folder, flags, kind) in rows {
        let (code, said) = imported(folder, flags);
        assert_eq!(code, Some(2), "{said}");
        let expected = format!("{}: expected {kind}", flags[0]);
        assert!(said.contains(&expected), "\"{expected}\" is not in {said}");
    }
}
