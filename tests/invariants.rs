// SPDX-License-Identifier: Apache-2.0
//! Which test holds which invariant: `docs/invariants.md` is drawn from the tests themselves, so that a test that is
//! renamed, or gone, is noticed. A test says what it holds in the comment above it (`/// I6: ...`) or at the start of its
//! name (`i20_...`).

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What must hold; the numbers stay for ever.
const INVARIANTS: [&str; 28] = [
    "Every output is finite, for every input bit pattern and every history.",
    "Position, velocity, acceleration and jerk are within their limits at every tick, not on average. (Torque: commands carry none.)",
    "From every emitted state a stop inside all limits exists, and is what follows when anything is lost.",
    "A sequence that keeps the limits by itself passes bit for bit.",
    "What the governor emitted, a second governor passes.",
    "A stop gathers no speed once it brakes, does not reverse, ends within the promised ticks, and rest is absorbing.",
    "Silence is a stop; so is a stale state, a chunk that ended, a released deadman, an expired permission: the same one.",
    "Nothing old is followed: no old setpoint, no older observation, no earlier arming.",
    "After a gap the next output is one tick's motion away, whatever the gap.",
    "Clocks that stand still, jump or run backward loosen nothing.",
    "Tighter limits are reached from inside the old ones; looser ones wait for rest.",
    "When one joint must brake, all stay on the line (synchronised), or each goes alone (independent).",
    "One more cause never makes the reaction milder.",
    "What latches stays, through clearing, disarming and restart, until it is acknowledged after its cause.",
    "The order in which simultaneous causes are looked at changes nothing.",
    "One unit in the last place of the input is some units in the last place of the output, unless a decision flips.",
    "Bounded work: no allocation, no system call, no lock, no panic.",
    "Every output that is not the input has one reason.",
    "decode(encode(x)) = x.",
    "Corrupted, cut, extended and spliced frames are rejected.",
    "Accepted counters go forward within an arming, over the wrap as well, and by no more than they may.",
    "Only the receiver's own clock decides about acceptance.",
    "No bytes make a decoder panic.",
    "Armed only from standby, by an explicit request, with everything fresh.",
    "Whatever stops withdraws the permission in the same step, in every state.",
    "No motion without a deadman pressed after the last latch.",
    "Only elapsed time counts: shifted clocks give the same decisions.",
    "Recorded inputs give the same bits, on x86-64 and on aarch64.",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of Rust below `folder`; packages of their own are not looked into.
fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.join("Cargo.toml").exists() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push(path);
        }
    }
}

/// Numbers of invariants in a comment: "I4, I18: every ..." and "I27).", not "I2C" nor "I128".
fn numbers(comment: &str) -> impl Iterator<Item = usize> {
    comment
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter_map(|word| word.strip_prefix('I')?.parse().ok())
        .filter(|n| (1..=INVARIANTS.len()).contains(n))
}

/// Each test of a file: its name, and the invariants that it names.
fn tests(text: &str) -> Vec<(String, Vec<usize>)> {
    let mut found = vec![];
    let (mut comment, mut is_test) = (String::new(), false);
    for line in text.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            comment += words;
        } else if line.starts_with("#[") {
            is_test |= line == "#[test]";
        } else {
            if let Some(rest) = line.strip_prefix("fn ")
                && is_test
            {
                let name: String = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                let first = name.split('_').next().unwrap_or("").to_uppercase();
                found.push((name, numbers(&(comment + " " + &first)).collect()));
            }
            (comment, is_test) = (String::new(), false);
        }
    }
    found
}

fn drawn() -> String {
    let mut files = vec![];
    rust_files(&root().join("src"), &mut files);
    rust_files(&root().join("tests"), &mut files);
    files.sort();
    let mut holders: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for file in &files {
        let text = std::fs::read_to_string(file).expect("text");
        let path = file.strip_prefix(root()).expect("below").display();
        for (name, mut numbers) in tests(&text) {
            numbers.sort_unstable();
            numbers.dedup();
            for number in numbers {
                holders
                    .entry(number)
                    .or_default()
                    .push(format!("`{name}` ({path})"));
            }
        }
    }
    let mut text = String::from(
        "# Invariants, and the tests that hold them\n\n\
         Drawn from the tests by `TENDON_WRITE_DOCS=1 cargo test --release --test invariants`; the same command without the \
         variable fails\nwhen this page is not what the tests say, or an invariant has no test.\n\n\
         | | what holds | test |\n|---|---|---|\n",
    );
    for (n, what) in (1..).zip(INVARIANTS) {
        let tests = holders.remove(&n).unwrap_or_default();
        assert!(!tests.is_empty(), "I{n} has no test: {what}");
        writeln!(text, "| I{n} | {what} | {} |", tests.join(", ")).expect("a string");
    }
    text
}

#[test]
fn the_committed_table_is_what_the_tests_say() {
    let (path, drawn) = (root().join("docs/invariants.md"), drawn());
    if std::env::var_os("TENDON_WRITE_DOCS").is_some() {
        std::fs::write(&path, &drawn).expect("docs/invariants.md can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let first = drawn.lines().zip(committed.lines()).find(|(a, b)| a != b);
    assert!(
        drawn == committed,
        "docs/invariants.md: first difference {first:?}; draw it anew with TENDON_WRITE_DOCS=1"
    );
}

#[test]
fn comments_and_names_are_read() {
    let text = "/// I4, I18: a\n/// b (I27).\n#[test]\nfn one() {}\n/// I5\nfn no_test() {}\n#[test]\n#[ignore = \"x\"]\n\
                fn i20_two() {}\n/// I2C, I99, AI3\n#[test]\nfn three() {}\n";
    let found = tests(text);
    let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["one", "i20_two", "three"]);
    assert_eq!(found[0].1, [4, 18, 27]);
    assert_eq!(found[1].1, [20]);
    assert!(found[2].1.is_empty());
}
