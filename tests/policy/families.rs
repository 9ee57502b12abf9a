// SPDX-License-Identifier: Apache-2.0
//! Every family's bundle loads, and gives the chunk that the reference gave (`engines/families/make.py`).

use crate::fixture::cpu;
use std::path::{Path, PathBuf};
use tendon::policy::LoadOptions;
use tendon::policy::staged::bundle::Opened;
use tendon::policy::staged::describe::describe;
use tendon::policy::staged::manifest::StagedFile;
use tendon::policy::staged::{Observation, Staged};

pub fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/families")
        .join(family)
}

/// Family, stages, and whether what goes from stage to stage is handed on without a copy.
const FAMILIES: [(&str, usize, bool); 2] = [("act", 1, true), ("diffusion", 2, true)];

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
