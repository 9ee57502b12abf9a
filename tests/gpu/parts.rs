// SPDX-License-Identifier: Apache-2.0
//! Parts of a test, each in a process of its own: what one of them does to the device, or to itself, keeps no other from running, and
//! what was found is kept after each. What was not begun, because the whole ended before, is among the figures as such.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Names the part that a process is to run; without it, all are run.
pub const PART: &str = "TENDON_GPU_PART";
/// What was found, in the folder that `OUT` names.
const FILE: &str = "gpu.json";

/// The part that this process is, if it is one.
pub fn this() -> Option<String> {
    std::env::var(PART).ok().filter(|name| !name.is_empty())
}

/// Writes down what was found, in place of what was written before. Without `OUT` nowhere.
pub fn keep(found: &Value) {
    if let Some(out) = std::env::var_os("OUT").filter(|out| !out.is_empty()) {
        let text = serde_json::to_string_pretty(found).expect("JSON");
        let path = PathBuf::from(out).join(FILE);
        std::fs::write(&path, text + "\n").expect("OUT is a folder that can be written to");
    }
}

/// Where a part stands that has not ended: among the figures in place of what it finds.
const NOT_BEGUN: &str = "not begun";
const NOT_ENDED: &str = "begun, and not ended";

/// Runs the test `test` of this program once for each of `parts`, each for `most` at most. What they found is put into `figures`, which
/// `kept` is given at first, with every name, and before and after each. What failed, in words; that stands among the figures too.
pub fn run(
    test: &str,
    parts: &[&str],
    most: Duration,
    figures: &mut Value,
    mut kept: impl FnMut(&Value),
) -> Vec<String> {
    let mut failed = Vec::new();
    for part in parts {
        figures[*part] = json!({"failed": NOT_BEGUN});
    }
    kept(figures);
    for part in parts {
        figures[*part] = json!({"failed": NOT_ENDED});
        kept(figures);
        figures[*part] = match alone(test, part, most) {
            Ok(found) => {
                println!("{part}: passed, and its process ended well");
                found
            }
            Err(why) => {
                println!("{part}: failed: {why}");
                failed.push(format!("{part}: {why}"));
                json!({"failed": why})
            }
        };
        kept(figures);
    }
    failed
}

/// One part: what it found, or why it failed. Its own words go where ours go.
fn alone(test: &str, part: &str, most: Duration) -> Result<Value, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("no folder for it: {error}"))?;
    let program = std::env::current_exe().map_err(|error| format!("no program: {error}"))?;
    let mut child = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env(PART, part)
        .env("OUT", folder.path())
        .spawn()
        .map_err(|error| format!("could not be started: {error}"))?;
    let began = Instant::now();
    let ended = loop {
        match child.try_wait() {
            Ok(Some(ended)) => break Ok(ended),
            Ok(None) if began.elapsed() < most => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => break Err(format!("did not end within {} s", most.as_secs())),
            Err(error) => break Err(format!("could not be waited for: {error}")),
        }
    };
    if ended.is_err() {
        // It may have ended meanwhile.
        let _ = child.kill();
        let _ = child.wait();
    }
    let ended = ended?;
    if !ended.success() {
        return Err(format!("ended with {ended}"));
    }
    read(&folder.path().join(FILE))
}

fn read(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("ended well, but kept nothing: {error}"))?;
    serde_json::from_str(&text).map_err(|error| format!("ended well, but kept no JSON: {error}"))
}

/// What the test below runs. By itself it is nobody, and does nothing.
#[test]
fn a_stand_in() {
    let code = match this().as_deref() {
        Some("good" | "last") => {
            keep(&json!({"here": true}));
            0
        }
        Some("fails") => {
            keep(&json!({"here": true}));
            3
        }
        Some("keeps nothing") => 0,
        Some("hangs") => loop {
            std::thread::park();
        },
        _ => return,
    };
    // At once, without the words of a test that ends.
    std::process::exit(code);
}

#[test]
fn what_one_part_does_keeps_no_other_from_running() {
    let parts = ["good", "fails", "keeps nothing", "hangs", "last"];
    let mut figures = json!({"device": "none"});
    let mut kept = Vec::new();
    let most = Duration::from_secs(5);
    let failed = run("parts::a_stand_in", &parts, most, &mut figures, |now| {
        let stands = |word: &str| {
            let those = parts.iter().filter(|part| now[**part]["failed"] == word);
            those.count()
        };
        kept.push((stands(NOT_BEGUN), stands(NOT_ENDED)));
    });
    let mut expected = vec![(5, 0)];
    for left in (0..5).rev() {
        expected.extend([(left, 1), (left, 0)]);
    }
    assert_eq!(kept, expected, "all are named first, then told of");
    for part in ["good", "last"] {
        assert_eq!(figures[part], json!({"here": true}));
    }
    for (at, (part, why)) in [
        ("fails", "ended with exit status: 3"),
        ("keeps nothing", "ended well, but kept nothing: "),
        ("hangs", "did not end within 5 s"),
    ]
    .into_iter()
    .enumerate()
    {
        let said = figures[part]["failed"].as_str().unwrap_or_default();
        assert!(said.starts_with(why), "{part}: {said}");
        assert_eq!(failed[at], format!("{part}: {said}"));
    }
    assert_eq!(failed.len(), 3);
}
