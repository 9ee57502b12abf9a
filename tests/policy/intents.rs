// SPDX-License-Identifier: Apache-2.0
//! The shipped policy made to speak in tool poses, and in joint deltas (tests/intents/make.py), drives the bench: the same
//! scenes come out as with joint targets. What does not fit the robot is refused by name.

use crate::fixture::cpu;
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tendon::config::Config;
use tendon::policy::LoadOptions;
use tendon::policy::ParityMiss;
use tendon::policy::pilot::Pilot;
use tendon::runtime::demo;
use tendon::runtime::deployment::Deployment;

/// The bundle `name` with the shipped policy's files beside it.
pub fn bundle(name: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = |from: &str| {
        let from = root.join(from);
        let to = folder.path().join(from.file_name().expect("a name"));
        std::fs::copy(&from, to).expect("a copy");
    };
    for file in ["bench_vla_fp32.onnx", "stats.safetensors", "tokenizer.json"] {
        copy(&format!("engines/bench-vla/{file}"));
    }
    for file in ["speak.onnx", "parity.safetensors", "parity.json"] {
        copy(&format!("tests/intents/{name}/{file}"));
    }
    let text = std::fs::read(root.join(format!("tests/intents/{name}/manifest.json")));
    let mut manifest: Value = serde_json::from_slice(&text.expect("a manifest")).expect("JSON");
    change(&mut manifest["tendon"]);
    let bytes = serde_json::to_vec_pretty(&manifest).expect("JSON");
    std::fs::write(folder.path().join("manifest.json"), bytes).expect("written");
    folder
}

fn config(folder: &tempfile::TempDir) -> Config {
    demo::bench_config(folder.path(), false).expect("a good deployment")
}

#[test]
fn poses_and_deltas_drive_the_bench_as_joint_targets_do() {
    for name in ["joints", "pose", "delta"] {
        let folder = bundle(name, |_| ());
        let report = demo::lockstep(
            config(&folder),
            8,
            7,
            0,
            ParityMiss::Refuse,
            None,
            &AtomicBool::new(false),
        );
        let report = report.expect("a run");
        println!(
            "{name}: {} of {}, governor changed {} of {} ticks, ran out {}",
            report.successes,
            report.episodes,
            report.governor_interventions,
            report.ticks,
            report.ladder.stalls
        );
        assert_eq!(report.successes, report.episodes, "{name}");
        assert_eq!(report.limit_violations, 0);
        assert_eq!(report.commands_rejected, 0);
        assert_eq!(report.allocations_in_control_loop, 0);
    }
}

/// What a deployment with this bundle is refused for.
fn refused(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let folder = bundle(name, change);
    let problems = Deployment::load(config(&folder)).err().expect("a refusal");
    let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
    words.join("\n")
}

#[test]
fn what_does_not_fit_the_robot_or_itself_is_refused_by_name() {
    type Case = (&'static str, fn(&mut Value), &'static str);
    let cases: [Case; 7] = [
        (
            "pose",
            |t| t["action"]["means"][0]["link"] = "hand".into(),
            "means[0].link",
        ),
        (
            "pose",
            |t| t["action"]["means"][0]["turn"] = serde_json::json!([3, 4, 5]),
            "means[0].turn",
        ),
        (
            "pose",
            |t| t["action"]["means"][0]["within_m"] = 7.0.into(),
            "within_m",
        ),
        (
            "delta",
            |t| t["action"]["means"][0]["columns"] = serde_json::json!([0, 1, 2, 3, 4, 6]),
            "gripper",
        ),
        (
            "delta",
            |t| t["action"]["means"][0]["columns"] = serde_json::json!([0, 1, 2, 3, 4, 99]),
            "means[0]",
        ),
        (
            "delta",
            |t| t["action"]["first_step_ms"] = 0.0.into(),
            "first_step_ms",
        ),
        (
            "delta",
            |t| t["action"]["names"][5] = "thumb".into(),
            "tool_roll",
        ),
    ];
    for (name, change, key) in cases {
        let words = refused(name, change);
        assert!(words.contains(key), "expected {key:?} in {words}");
    }
}

#[test]
fn a_pose_needs_the_robots_links() {
    let folder = bundle("pose", |_| ());
    let mut pilot = Pilot::load(folder.path(), LoadOptions::default(), &cpu).expect("a bundle");
    let joints = config(&folder).robot.joints;
    let joints: Vec<_> = joints
        .iter()
        .map(|(name, joint)| (name.as_str(), joint.kind))
        .collect();
    let problems = pilot.bind(&joints, &["front"]).expect_err("no links");
    assert!(
        problems
            .iter()
            .any(|problem| problem.to_string().contains("space.urdf")),
        "{problems:?}"
    );
}
