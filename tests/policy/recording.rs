// SPDX-License-Identifier: Apache-2.0
//! What a policy was shown and answered comes out again, bit for bit, from the recording; a broken recording is refused.

use crate::fixture::cpu;
use crate::intents::bundle;
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use tendon::config::Precision;
use tendon::policy::parity::Parity;
use tendon::policy::staged::Staged;
use tendon::policy::{LoadOptions, ParityMiss};
use tendon::runtime::demo;

fn replayed(dir: &Path, recording: &Path) -> Result<(Parity, Vec<Vec<f32>>), String> {
    let mut chunks = Vec::new();
    Staged::rehearse(
        dir,
        Precision::Fp32,
        Some(recording),
        &cpu,
        &mut |policy, _| chunks.push(policy.chunk().to_vec()),
    )
    .map(|parity| (parity, chunks))
    .map_err(|problems| {
        let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
        words.join("\n")
    })
}

#[test]
fn episodes_of_the_bench_come_out_again() {
    let folder = bundle("joints", |_| ());
    let config = demo::bench_config(folder.path(), false).expect("a good deployment");
    let path = folder.path().join("seen.safetensors");
    let ending = AtomicBool::new(false);
    let report = demo::lockstep(config, 1, 3, 0, ParityMiss::Refuse, Some(&path), &ending);
    let report = report.expect("an episode");
    let kept = report.recorded.expect("a recording");
    assert!(kept >= 10, "{kept} observations");
    let (parity, chunks) = replayed(folder.path(), &path).expect("the recording");
    assert_eq!(chunks.len(), kept);
    for joint in &parity.joints {
        assert_eq!(joint.error_max, 0.0, "{}", joint.name);
    }
    let moves = chunks.iter().any(|chunk| chunk != &chunks[0]);
    assert!(moves, "every answer is the same");

    let whole = std::fs::read(&path).expect("the file");
    std::fs::write(&path, &whole[..whole.len() - 1]).expect("cut");
    let said = replayed(folder.path(), &path).expect_err("cut");
    assert!(said.contains("a whole safetensors file"), "{said}");
    std::fs::write(&path, &whole).expect("as it was");
    let beside = path.with_extension("json");
    let text = std::fs::read(&beside).expect("the sentences");
    let mut words: Value = serde_json::from_slice(&text).expect("JSON");
    words["sentences"].as_array_mut().expect("a list").pop();
    std::fs::write(&beside, words.to_string()).expect("one less");
    let said = replayed(folder.path(), &path).expect_err("one sentence less");
    assert!(said.contains(&format!("[{kept}, ")), "{said}");
    std::fs::write(&beside, r#"{"sentences": []}"#).expect("none");
    let said = replayed(folder.path(), &path).expect_err("no sentence");
    assert!(said.contains("1 sentences"), "{said}");
    std::fs::remove_file(&beside).expect("gone");
    let said = replayed(folder.path(), &path).expect_err("nothing beside it");
    assert!(said.contains("seen.json"), "{said}");
}

/// What is drawn at random, a camera that is away and what is remembered are kept too.
#[test]
fn noise_missing_cameras_and_histories_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    for family in ["pi0", "diffusion", "planner"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/families")
            .join(family);
        let path = folder.path().join(format!("{family}.safetensors"));
        let mut policy = Staged::load(&dir, LoadOptions::default(), &cpu).expect("a bundle");
        policy.record().expect("it can be recorded");
        let sentence = policy.some_sentence();
        policy.set_instruction(&sentence).expect("a sentence");
        let state = vec![
            0.1;
            policy
                .file()
                .state
                .as_ref()
                .map_or(0, |state| state.names.len())
        ];
        let mut said = Vec::new();
        for turn in 0..4_u8 {
            let picture = vec![40 * turn; 40 * 30 * 3];
            let pictures: Vec<Option<&[u8]>> = policy
                .file()
                .cameras
                .iter()
                .map(|camera| (camera.missing.is_none() || turn != 2).then_some(&picture[..]))
                .collect();
            if turn == 3 {
                // One that cannot be answered: what follows of the episode would come out otherwise without it.
                let nothing = tendon::policy::staged::Observation {
                    captured_ns: 7_290_000_000,
                    pictures: &[],
                    state: &state,
                };
                policy.infer(&nothing, None, None).expect_err("no pictures");
            }
            let seen = tendon::policy::staged::Observation {
                captured_ns: 7_000_000_000 + u64::from(turn) * 33_333_333,
                pictures: &pictures,
                state: &state,
            };
            let answer = policy.infer(&seen, None, None).expect("an answer");
            said.push(answer.chunk.to_vec());
        }
        let kept = policy.write_recording(&path).expect("written");
        assert_eq!(kept, 3, "{family}");
        let (_, chunks) = replayed(&dir, &path).expect("the recording");
        assert_eq!(chunks, said[..3], "{family}");
    }
}

#[test]
fn one_of_schema_1_or_over_its_own_sentences_is_not_recorded() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = demo::bench_config(&root.join("engines/bench-vla"), false).expect("a deployment");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("seen.safetensors");
    let ending = AtomicBool::new(false);
    let refused = demo::lockstep(config, 1, 3, 0, ParityMiss::Refuse, Some(&path), &ending);
    let said = refused.expect_err("schema 1").to_string();
    assert!(said.contains("schema 2") && !path.exists(), "{said}");

    let bundle = bundle("joints", |_| ());
    let config = demo::bench_config(bundle.path(), false).expect("a deployment");
    let path = folder.path().join("seen.json");
    let refused = demo::lockstep(config, 1, 3, 0, ParityMiss::Refuse, Some(&path), &ending);
    let said = refused.expect_err("the sentences' own ending").to_string();
    assert!(said.contains("another ending than json"), "{said}");
}
