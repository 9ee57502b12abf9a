// SPDX-License-Identifier: Apache-2.0
//! The house rules, as a test: they hold because this file fails, not because somebody remembers them.
//!
//! Each rule is a function from a file to complaints, with rows below that plant what it must find and what it must let
//! pass. It reads text, not types: a macro could cheat it, a person will not by accident. Test code, that is modules
//! under `#[cfg(test)]` and files named `tests.rs` or in a folder `tests`, may use other rooms and a clock.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Rooms, and whom each may import.
type Arrows = [(&'static str, &'static [&'static str])];
/// Who may import whom. Every room may import itself; a room that is not here does not exist, and what is here is used: an arrow
/// that nobody needs is a door that nobody watches.
const ARROWS: &Arrows = &[
    ("core", &[]),
    ("ports", &["core"]),
    ("sync", &["core"]),
    ("config", &["core"]),
    ("hash", &[]),
    ("onnx", &["hash"]),
    ("loader", &[]),
    ("cuda", &["ports", "loader"]),
    // The siblings do not see one another.
    ("capture", &["core", "ports", "config", "cuda", "loader"]),
    (
        "engine",
        &["core", "ports", "config", "hash", "onnx", "cuda", "loader"],
    ),
    ("policy", &["core", "ports", "config", "hash", "onnx"]),
    ("link", &["core", "ports", "sync", "config"]),
    ("operator", &["core"]),
    // The bench is a robot: it comes in by the door that robots use.
    ("bench", &["core", "config", "link"]),
    (
        "runtime",
        &[
            "core", "ports", "sync", "config", "hash", "onnx", "capture", "engine", "policy",
            "link", "operator", "bench",
        ],
    ),
    (
        "cli",
        &[
            "core", "sync", "config", "capture", "engine", "policy", "link", "operator", "bench",
            "runtime",
        ],
    ),
    // `cli` is a module of it, called by its bare name.
    ("main", &["runtime"]),
];

/// The only reader of a clock.
const CLOCK: &str = "src/runtime/clock.rs";
/// Ways to read a clock. A deadline that the operating system keeps (`recv_timeout`, tokio's `sleep`) is not one.
const CLOCK_WORDS: [&str; 5] = [
    "Instant::now",
    "SystemTime",
    ".elapsed()",
    "clock_gettime",
    "UNIX_EPOCH",
];
/// Files that may say `unsafe`.
const UNSAFE_ROOMS: [&str; 19] = [
    "src/sync/mapping.rs",
    "src/runtime/realtime.rs",
    "src/engine/ort/api.rs",
    "src/engine/ort/crew.rs",
    "src/engine/ort/session.rs",
    "src/policy/lanes.rs",
    "src/cuda/mod.rs",
    "src/engine/tensorrt/nvinfer.rs",
    "src/cuda/memory.rs",
    "src/cuda/egl.rs",
    "src/cuda/stream.rs",
    "src/capture/nvmm.rs",
    "src/capture/mapped.rs",
    "src/capture/offered.rs",
    "src/engine/tensorrt/nvinfer/callbacks.rs",
    "tests/proofs.rs",
    "tests/capture/fake.rs",
    "tests/capture/fake_nvmm.rs",
    "tests/tensorrt/fake.rs",
];
/// What the core does not have: a lock, an atomic, a heap, a thread, an operating system.
const NOT_IN_CORE: [&str; 9] = [
    "std::", "alloc::", "::sync", "Atomic", "Mutex", "Cell", "Box", "Rc<", "String",
];
/// What waits for somebody else, or makes text.
const WAITS: [&str; 8] = [
    "Mutex", "RwLock", "Condvar", ".lock(", ".recv(", "log::", "format!", "println!",
];
/// Which functions of a file are meant.
enum Part {
    All,
    /// All but these, which are called at the start, by other threads, for people, or in a drill.
    AllBut(&'static [&'static str]),
    Only(&'static [&'static str]),
}
use Part::{All, AllBut, Only};
/// What the threads that move the robot run each tick outside the core: their own files, and what these call. All cells between
/// threads are among it. What the link does with a command is not: zenoh locks.
const TICKED: [(&str, Part); 21] = [
    ("src/runtime/control.rs", All),
    ("src/runtime/governor.rs", All),
    ("src/runtime/egress.rs", All),
    ("src/runtime/watchdog.rs", All),
    ("src/runtime/lines/mod.rs", AllBut(&["unreadable"])),
    ("src/runtime/lines/evdev.rs", AllBut(&["open"])),
    ("src/runtime/lines/gpio.rs", AllBut(&["open", "request"])),
    ("src/runtime/lines/link.rs", All),
    ("src/runtime/clock.rs", All),
    ("src/runtime/phase.rs", All),
    ("src/runtime/realtime.rs", All),
    ("src/runtime/telemetry.rs", Only(&["record"])),
    ("src/runtime/threads.rs", All),
    (
        "src/runtime/wheel.rs",
        AllBut(&["new", "driver", "give", "hear"]),
    ),
    ("src/link/runtime_end.rs", Only(&["holding", "send"])),
    ("src/sync/heartbeat.rs", AllBut(&["fail"])),
    ("src/sync/hold.rs", All),
    ("src/sync/mailbox.rs", All),
    ("src/sync/mapping.rs", AllBut(&["open"])),
    ("src/sync/mod.rs", All),
    ("src/sync/shared.rs", All),
];
/// Words that do not stay in code.
const BANNED: [&str; 5] = ["todo!", "unimplemented!", "dbg!", ".unwrap()", "#[ignore]"];
/// Lines of one file without its tests. Past it, split by noun.
const LINES_MAX: usize = 600;

/// One file: its path from the root of the repository, with `/`, and its text.
struct File<'a> {
    path: &'a str,
    text: &'a str,
}

impl File<'_> {
    /// What runs: comments and the insides of strings blanked, test modules left out. Empty for a file of tests.
    fn code(&self) -> String {
        if self.path.ends_with("/tests.rs")
            || self.path.contains("/tests/")
            || !self.path.starts_with("src/")
        {
            String::new()
        } else {
            without_tests(&blanked(self.text))
        }
    }

    /// The room it stands in; `None` for the root of the library and for what is not in `src`.
    fn room(&self) -> Option<&str> {
        let name = self.path.strip_prefix("src/")?.split('/').next()?;
        let room = name.strip_suffix(".rs").unwrap_or(name);
        (room != "lib").then_some(room)
    }

    fn complaint(&self, at: usize, text: &str) -> String {
        format!("{}:{}: {text}", self.path, at + 1)
    }
}

/// Comments and the insides of literals become spaces; lines stay where they are.
fn blanked(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let rest = &chars[at..];
        let len = literal_len(rest, at.checked_sub(1).and_then(|before| chars.get(before)));
        if len == 0 {
            out.push(rest[0]);
            at += 1;
            continue;
        }
        out.extend(
            rest[..len]
                .iter()
                .map(|c| if *c == '\n' { '\n' } else { ' ' }),
        );
        at += len;
    }
    out
}

/// Length of the comment or literal that starts here; 0 if none does.
fn literal_len(rest: &[char], before: Option<&char>) -> usize {
    let starts = |text: &str| {
        text.chars()
            .enumerate()
            .all(|(i, c)| rest.get(i) == Some(&c))
    };
    if starts("//") {
        return rest.iter().position(|c| *c == '\n').unwrap_or(rest.len());
    }
    if starts("/*") {
        let (mut depth, mut at) = (0_usize, 0);
        while at < rest.len() {
            match (rest[at], rest.get(at + 1)) {
                ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
                ('*', Some('/')) if depth == 1 => return at + 2,
                ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
                _ => at += 1,
            }
        }
        return rest.len();
    }
    let word_before = before.is_some_and(|c| c.is_alphanumeric() || *c == '_');
    let raw = rest
        .iter()
        .skip(usize::from(starts("b")))
        .skip(1)
        .take_while(|c| **c == '#')
        .count();
    let quote_at = usize::from(starts("b")) + 1 + raw;
    if !word_before && (starts("r") || starts("br")) && rest.get(quote_at) == Some(&'"') {
        let end: Vec<char> = std::iter::once('"')
            .chain(std::iter::repeat_n('#', raw))
            .collect();
        let body = &rest[quote_at + 1..];
        let len = body.windows(end.len()).position(|window| window == end);
        return len.map_or(rest.len(), |len| quote_at + 1 + len + end.len());
    }
    // A lifetime has no second quote: 'a' and '\n' are characters, 'static is not.
    let character = rest[0] == '\'' && (rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\''));
    if rest[0] != '"' && !character {
        return 0;
    }
    let mut at = 1;
    while at < rest.len() && rest[at] != rest[0] {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// Blanked code without the bodies of modules and functions under `#[cfg(test)]`; lines stay where they are.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at]);
        let tail = &rest[at..];
        let end = tail.find(['{', ';']).map_or(tail.len(), |start| {
            if tail.as_bytes()[start] == b';' {
                start + 1
            } else {
                start + braces_len(&tail[start..])
            }
        });
        out.extend(tail[..end].chars().filter(|c| *c == '\n'));
        rest = &tail[end..];
    }
    out + rest
}

fn braces_len(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

// The rules.

fn licence_first(file: &File<'_>) -> Vec<String> {
    let good = file.text.lines().next() == Some("// SPDX-License-Identifier: Apache-2.0");
    if good {
        Vec::new()
    } else {
        vec![file.complaint(0, "the first line is not the SPDX line")]
    }
}

fn arrows(file: &File<'_>) -> Vec<String> {
    let Some(room) = file.room() else {
        return Vec::new();
    };
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
        return vec![file.complaint(0, &format!("`{room}` is not in the table of arrows"))];
    };
    let mut complaints = Vec::new();
    for (at, line) in file.code().lines().enumerate() {
        for name in imported(line) {
            if name.is_empty() {
                complaints.push(file.complaint(
                    at,
                    "one root a line, so that a search finds it: no `use crate::{..}`",
                ));
            } else if name != room && !allowed.contains(&name.as_str()) {
                complaints.push(file.complaint(at, &format!("`{room}` may not import `{name}`")));
            }
        }
        if line.contains("super::super::") {
            complaints.push(file.complaint(
                at,
                "`super::super::` hides an arrow; write it from `crate::`",
            ));
        }
    }
    complaints
}

/// The rooms that a line of code names from the root; an empty name where it names none by itself.
fn imported(line: &str) -> Vec<String> {
    // To the rooms, the library is `crate`; to the program around it, it is `tendon`.
    let roots = ["crate::", "tendon::"].into_iter();
    let targets = roots.flat_map(|root| {
        line.match_indices(root)
            .filter(move |(at, _)| starts_word(line, *at))
            .map(move |(at, _)| &line[at + root.len()..])
    });
    let is_name = |c: &char| c.is_alphanumeric() || *c == '_';
    targets
        .map(|target| target.chars().take_while(is_name).collect())
        .collect()
}

/// Arrows that are permitted and that no file uses.
fn idle(arrows: &Arrows, files: &[File<'_>]) -> Vec<String> {
    let mut used = BTreeSet::new();
    for file in files {
        if let Some(room) = file.room() {
            let rooms = file.code();
            let rooms = rooms.lines().flat_map(imported);
            used.extend(rooms.map(|to| (room.to_owned(), to)));
        }
    }
    let permitted = arrows
        .iter()
        .flat_map(|(room, allowed)| allowed.iter().map(move |to| (*room, *to)));
    permitted
        .filter(|(room, to)| !used.contains(&((*room).to_owned(), (*to).to_owned())))
        .map(|(room, to)| format!("`{room}` may import `{to}`, and no file of it does"))
        .collect()
}

fn starts_word(line: &str, at: usize) -> bool {
    !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
}

fn no_borrowed_names(file: &File<'_>) -> Vec<String> {
    let cheats = |line: &str| {
        line.contains("pub use crate::")
            || line.contains("pub use tendon::")
            || line.contains("pub use super::")
    };
    if file.path == "src/lib.rs" {
        return Vec::new();
    }
    let code = file.code();
    let found = code.lines().enumerate().filter(|(_, line)| cheats(line));
    found
        .map(|(at, _)| file.complaint(at, "`pub use` of another file's names: a name has one home"))
        .collect()
}

fn one_clock(file: &File<'_>) -> Vec<String> {
    if file.path == CLOCK {
        Vec::new()
    } else {
        words(file, &CLOCK_WORDS, "is for src/runtime/clock.rs alone")
    }
}

fn no_banned_words(file: &File<'_>) -> Vec<String> {
    words(file, &BANNED, "does not stay in code")
}

fn core_is_alone(file: &File<'_>) -> Vec<String> {
    if file.room() == Some("core") {
        words(file, &NOT_IN_CORE, "is not for the core")
    } else {
        vec![]
    }
}

/// Name of each function that has a body, the line where that begins, and the body. A function inside another one is in both.
fn bodies(code: &str) -> Vec<(&str, usize, &str)> {
    let mut found = Vec::new();
    for (at, word) in code.match_indices("fn ") {
        let from = at + word.len();
        let rest = &code[from..];
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let name = rest.split(|c: char| !is_name(c)).next();
        // A type may hold a semicolon inside its brackets.
        let mut depth = 0_usize;
        let start = rest.find(|c: char| {
            match c {
                '(' | '[' => depth += 1,
                ')' | ']' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && (c == '{' || c == ';')
        });
        let body = start
            .map(|start| &rest[start..])
            .filter(|body| body.starts_with('{'));
        if let (Some(start), Some(body), true) = (start, body, starts_word(code, at)) {
            let line = code[..from + start].matches('\n').count();
            found.push((name.unwrap_or_default(), line, &body[..braces_len(body)]));
        }
    }
    found
}

fn ticks_wait_for_nobody(file: &File<'_>) -> Vec<String> {
    let Some((_, part)) = TICKED.iter().find(|(path, _)| *path == file.path) else {
        return match file.room() {
            Some("sync") => vec![file.complaint(0, "a cell that is not in the table of ticks")],
            Some(_) | None => Vec::new(),
        };
    };
    let code = file.code();
    let bodies = bodies(&code);
    let named: &[&str] = match part {
        All => &[],
        AllBut(names) | Only(names) => names,
    };
    let gone = named
        .iter()
        .filter(|name| bodies.iter().all(|(each, ..)| each != *name));
    let mut complaints: Vec<String> = gone
        .map(|name| {
            file.complaint(
                0,
                &format!("the table of ticks names a `{name}` that is not here"),
            )
        })
        .collect();
    let meant = bodies.iter().filter(|(name, ..)| match part {
        All => true,
        AllBut(names) => !names.contains(name),
        Only(names) => names.contains(name),
    });
    let mut hits = BTreeSet::new();
    for (_, from, body) in meant {
        for (at, line) in body.lines().enumerate() {
            let words = WAITS.iter().filter(|word| line.contains(**word));
            hits.extend(words.map(|word| (from + at, *word)));
        }
    }
    complaints.extend(
        hits.into_iter().map(|(at, word)| {
            file.complaint(at, &format!("`{word}` is not for what runs each tick"))
        }),
    );
    complaints
}

fn words(file: &File<'_>, banned: &[&str], why: &str) -> Vec<String> {
    let code = file.code();
    let hits = code.lines().enumerate().flat_map(|(at, line)| {
        banned
            .iter()
            .filter(|word| line.contains(**word))
            .map(move |word| (at, word))
    });
    hits.map(|(at, word)| file.complaint(at, &format!("`{word}` {why}")))
        .collect()
}

fn unsafe_in_its_rooms(file: &File<'_>) -> Vec<String> {
    let code = blanked(file.text);
    let lines: Vec<&str> = file.text.lines().collect();
    let mut complaints = Vec::new();
    for (at, line) in code.lines().enumerate() {
        let allowed = UNSAFE_ROOMS.contains(&file.path);
        if !allowed && line.contains("allow(unsafe_code)") {
            complaints.push(file.complaint(at, "only the named rooms may allow `unsafe`"));
        }
        // A method of an unsafe trait has no body of its own to justify: what it does unsafely stands in a block.
        let says = line.match_indices("unsafe").any(|(from, word)| {
            let after = &line[from + word.len()..];
            // Nor has the type of a function that is unsafe to call.
            let called = after.trim_start();
            let called = called
                .strip_prefix("extern")
                .map_or(called, str::trim_start);
            starts_word(line, from)
                && !after.starts_with('_')
                && !called.starts_with("fn ")
                && !called.starts_with("fn(")
        });
        if !says {
            continue;
        }
        if !allowed {
            complaints.push(file.complaint(at, "`unsafe` outside the named rooms"));
        }
        let above = lines[..at]
            .iter()
            .rev()
            .take_while(|line| line.trim_start().starts_with("//"));
        if !above
            .into_iter()
            .any(|line| line.trim_start().starts_with("// SAFETY: "))
        {
            complaints
                .push(file.complaint(at, "`unsafe` without a `// SAFETY: ` comment above it"));
        }
    }
    complaints
}

fn short(file: &File<'_>) -> Vec<String> {
    // Test modules are blanked to empty lines at the end; a file may be as long as it likes there.
    let lines = file.code().trim_end().lines().count();
    if lines <= LINES_MAX {
        Vec::new()
    } else {
        vec![file.complaint(
            lines,
            &format!("{lines} lines without tests; split it by noun"),
        )]
    }
}

/// What ARCHITECTURE.md says is there, and what is there, are the same. `names` are the paths of all tracked files.
fn map_is_true(map: &str, names: &[String]) -> Vec<String> {
    let quoted: Vec<&str> = map
        .split("```")
        .step_by(2)
        .flat_map(|prose| prose.split('`').skip(1).step_by(2))
        .collect();
    let there = |path: &str| {
        names
            .iter()
            .any(|name| name == path || name.starts_with(&format!("{path}/")))
    };
    let mut complaints = Vec::new();
    for name in &quoted {
        let path = name.trim_end_matches('/');
        let is_path = path.contains('/')
            && path
                .chars()
                .all(|c| c.is_alphanumeric() || "/._-".contains(c));
        let is_file = path.ends_with(".rs") && !path.contains('/');
        let known = if is_file {
            names.iter().any(|each| each.ends_with(&format!("/{path}")))
        } else {
            there(path)
        };
        if (is_path || is_file) && !known {
            complaints.push(format!("ARCHITECTURE.md: `{name}` does not exist"));
        }
    }
    let mut folders: Vec<&str> = names
        .iter()
        .filter(|name| name.starts_with("src/"))
        .filter_map(|name| Some(name.rsplit_once('/')?.0))
        .collect();
    folders.dedup();
    for folder in folders.into_iter().filter(|folder| *folder != "src") {
        let last = folder.rsplit('/').next().unwrap_or(folder);
        // A folder inside a room may be called by its own name; a room is called by its path.
        let inner = folder.matches('/').count() > 1;
        if !quoted
            .iter()
            .any(|name| *name == folder || (inner && *name == last))
        {
            complaints.push(format!("ARCHITECTURE.md: nothing about `{folder}`"));
        }
    }
    complaints
}

// The repository.

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, into: &mut Vec<String>) {
    let entries =
        fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("an entry of a folder").path()) {
        let name = path
            .strip_prefix(root())
            .expect("inside the root")
            .to_string_lossy()
            .replace('\\', "/");
        // Build outputs and hidden folders are nobody's prose.
        if name == "target" || name.ends_with("/target") || name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, into)
        } else {
            into.push(name)
        }
    }
}

fn files() -> Vec<String> {
    let mut names = Vec::new();
    walk(root(), &mut names);
    names.sort();
    names
}

#[track_caller]
fn holds(rule: fn(&File<'_>) -> Vec<String>) {
    let names = files();
    let rust: Vec<&String> = names.iter().filter(|name| name.ends_with(".rs")).collect();
    assert!(rust.len() > 50, "only {} files of Rust found", rust.len());
    let complaints = rust.into_iter().flat_map(|path| {
        let text = fs::read_to_string(root().join(path)).expect("a source file is UTF-8");
        rule(&File { path, text: &text })
    });
    none(complaints.collect());
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[rustfmt::skip]
mod the_repository {
    use super::*;
    #[test] fn says_its_licence_first() { holds(licence_first) }
    #[test] fn keeps_its_arrows() { holds(arrows) }
    #[test] fn has_one_home_for_a_name() { holds(no_borrowed_names) }
    #[test] fn has_one_clock() { holds(one_clock) }
    #[test] fn has_a_core_that_is_alone() { holds(core_is_alone) }
    #[test] fn has_ticks_that_wait_for_nobody() { holds(ticks_wait_for_nobody) }
    #[test] fn has_no_banned_words() { holds(no_banned_words) }
    #[test] fn keeps_unsafe_in_its_rooms() { holds(unsafe_in_its_rooms) }
    #[test] fn has_short_files() { holds(short) }
}

/// A literal that is read wrongly would swallow code, and every rule above with it.
#[test]
fn no_code_is_swallowed() {
    for path in files().iter().filter(|name| name.ends_with(".rs")) {
        let code = blanked(&fs::read_to_string(root().join(path)).expect("a source file is UTF-8"));
        for pair in [['{', '}'], ['(', ')'], ['[', ']']] {
            let [open, close] = pair.map(|c| code.matches(c).count());
            assert_eq!(open, close, "{path}: {pair:?}");
        }
    }
}

#[test]
fn every_permitted_arrow_is_used() {
    let names = files();
    let sources = names.iter().filter(|name| name.ends_with(".rs"));
    let texts: Vec<(&String, String)> = sources
        .map(|path| {
            let text = fs::read_to_string(root().join(path)).expect("a source file is UTF-8");
            (path, text)
        })
        .collect();
    let files: Vec<File<'_>> = texts
        .iter()
        .map(|(path, text)| File { path, text })
        .collect();
    none(idle(ARROWS, &files));
}

#[test]
fn what_runs_each_tick_is_there() {
    for (path, _) in &TICKED {
        assert!(root().join(path).is_file(), "{path}");
    }
}

#[test]
fn the_map_is_true() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    none(map_is_true(&map, &files()));
}

// The rules, tested: what is planted is found, what is good passes.

#[track_caller]
fn check(rule: fn(&File<'_>) -> Vec<String>, path: &str, text: &str, want: &str) {
    let found = rule(&File { path, text });
    let good = if want.is_empty() {
        found.is_empty()
    } else {
        found.len() == 1 && found[0].contains(want)
    };
    assert!(good, "wanted {want:?}, found {found:?} in {text:?}");
}

#[track_caller]
fn check_map(map: &str, names: &[&str], want: &str) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let found = map_is_true(map, &names);
    let good = if want.is_empty() {
        found.is_empty()
    } else {
        found.len() == 1 && found[0].contains(want)
    };
    assert!(good, "wanted {want:?}, found {found:?} in {map:?}");
}

#[rustfmt::skip]
#[test]
fn planted_breaches_are_found() {
    check(licence_first, "src/core/mod.rs", "//! Words.", ":1: the first line");
    check(licence_first, "src/core/mod.rs", "// SPDX-License-Identifier: Apache-2.0\n", "");
    check(arrows, "src/core/mod.rs", "use crate::runtime::Foo;", "src/core/mod.rs:1: `core` may not import `runtime`");
    check(arrows, "src/core/mod.rs", "\nfn f() { crate::link::go() }", "mod.rs:2: `core` may not import `link`");
    check(arrows, "src/policy/mod.rs", "use crate::{core, engine};", "one root a line");
    check(arrows, "src/policy/mod.rs", "use crate::engine::cpu;", "`policy` may not import `engine`");
    check(arrows, "src/bench/mod.rs", "use crate::link::keys;", "");
    check(arrows, "src/link/mod.rs", "use crate::bench::arm;", "`link` may not import `bench`");
    check(arrows, "src/ports.rs", "use crate::config::Config;", "`ports` may not import `config`");
    check(arrows, "src/main.rs", "use tendon::policy::Policy;", "`main` may not import `policy`");
    check(arrows, "src/cli/run.rs", "use tendon::runtime::pipeline;", "");
    check(arrows, "src/cli/run.rs", "use tendon::{runtime};", "one root a line");
    check(arrows, "src/novel/mod.rs", "", "`novel` is not in the table");
    check(arrows, "src/core/governor/stop.rs", "use super::super::runtime;", "hides an arrow");
    check(arrows, "src/core/mod.rs", "/// Like crate::runtime::clock.\nconst X: &str = \"crate::runtime\";", "");
    check(arrows, "src/core/mod.rs", "#[cfg(test)]\nmod tests {\n    use crate::bench::arm;\n}", "");
    check(arrows, "src/core/mod.rs", "#[cfg(test)]\nmod tests { fn f() {} }\nuse crate::bench::arm;", "mod.rs:3: `core`");
    check(arrows, "src/core/mod.rs", "#[cfg(test)]\nmod tests;\nuse crate::bench::arm;", "mod.rs:3: `core`");
    check(arrows, "src/core/tests.rs", "use crate::bench::arm;", "");
    check(no_borrowed_names, "src/policy/mod.rs", "pub use crate::engine::Cpu;", "a name has one home");
    check(no_borrowed_names, "src/lib.rs", "pub use crate::core::units;", "");
    check(one_clock, "src/core/mod.rs", "let now = Instant::now();", "`Instant::now` is for");
    check(one_clock, "src/core/mod.rs", "let now = std::time::SystemTime::now();", "`SystemTime` is for");
    check(one_clock, "src/link/mod.rs", "if sent.elapsed() > LIMIT {}", "`.elapsed()` is for");
    check(one_clock, "src/runtime/clock.rs", "let now = Instant::now();", "");
    check(one_clock, "src/core/mod.rs", "// not Instant::now", "");
    check(core_is_alone, "src/core/mod.rs", "use core::sync::Exclusive;", "mod.rs:1: `::sync`");
    check(core_is_alone, "src/core/mod.rs", "let x = Box::new(1);", "`Box`");
    check(core_is_alone, "src/sync/mod.rs", "use std::sync::Mutex;", "");
    check(ticks_wait_for_nobody, "src/runtime/control.rs", "fn f() {\n    let x = cell.lock();\n}", "control.rs:2: `.lock(` is not for");
    check(ticks_wait_for_nobody, "src/runtime/control.rs", "fn f() {\n    fn g() { log::warn!(\"late\") }\n}", "control.rs:2: `log::` is not for");
    check(ticks_wait_for_nobody, "src/runtime/egress.rs", "impl X { fn f(&self, a: [u8; 2]) -> [u8; 2] { eprintln!(); a } }", "`println!`");
    check(ticks_wait_for_nobody, "src/runtime/governor.rs", "fn f(x: &Receiver<u8>) { x.try_recv().ok(); }\nfn g(x: &Receiver<u8>) { x.recv().ok(); }", "governor.rs:2: `.recv(`");
    check(ticks_wait_for_nobody, "src/runtime/control.rs", "use std::sync::Mutex;\nstruct X(Mutex<u8>);\n// fn f() { log::warn!() }\n#[cfg(test)]\nmod tests { fn f() { format!(\"\"); } }", "");
    check(ticks_wait_for_nobody, "src/sync/heartbeat.rs", "fn fail() { log::error!(\"drill\") }\nfn mark() {}", "");
    check(ticks_wait_for_nobody, "src/sync/heartbeat.rs", "fn fail() {}\nfn mark() { let x: RwLock<u8>; }", "heartbeat.rs:2: `RwLock`");
    check(ticks_wait_for_nobody, "src/sync/heartbeat.rs", "fn mark() {}", "names a `fail` that is not here");
    check(ticks_wait_for_nobody, "src/runtime/telemetry.rs", "trait T { fn record(&self); }\nfn record() {}\nfn run() { format!(\"\"); }", "");
    check(ticks_wait_for_nobody, "src/runtime/telemetry.rs", "fn record() { format!(\"\"); }\nfn run() {}", "`format!`");
    check(ticks_wait_for_nobody, "src/sync/novel.rs", "fn f() {}", "not in the table of ticks");
    check(ticks_wait_for_nobody, "src/runtime/page.rs", "fn f() { format!(\"\"); }", "");
    check(no_banned_words, "src/core/mod.rs", "fn f() { todo!() }", "`todo!`");
    check(no_banned_words, "src/core/mod.rs", "let x = dbg!(1);", "`dbg!`");
    check(no_banned_words, "src/core/mod.rs", "let x = y.unwrap();", "`.unwrap()`");
    check(no_banned_words, "src/core/mod.rs", "let x = y.unwrap_or(1);", "");
    check(unsafe_in_its_rooms, "src/core/mod.rs", "// SAFETY: none.\nunsafe { f() }", "outside the named rooms");
    check(unsafe_in_its_rooms, "src/core/mod.rs", "#![allow(unsafe_code)]", "only the named rooms");
    check(unsafe_in_its_rooms, "src/lib.rs", "#![deny(unsafe_code)]", "");
    check(unsafe_in_its_rooms, "src/runtime/realtime.rs", "let x = unsafe { f() };", "without a `// SAFETY: `");
    check(unsafe_in_its_rooms, "src/runtime/realtime.rs", "// SAFETY: f takes no pointer;\n// none is kept.\nlet x = unsafe { f() };", "");
    check(unsafe_in_its_rooms, "src/runtime/realtime.rs", "unsafe fn alloc(&self) {}", "");
    check(unsafe_in_its_rooms, "src/runtime/realtime.rs", "f: unsafe extern \"C\" fn(i32) -> i32,", "");
    check(unsafe_in_its_rooms, "src/runtime/realtime.rs", "unsafe extern \"C\" { fn f(); }", "without a `// SAFETY: `");
    check(short, "src/core/mod.rs", &"let x = 1;\n".repeat(LINES_MAX + 1), "601 lines");
    check(short, "src/core/mod.rs", &format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "let x = 1;\n".repeat(LINES_MAX), "\n".repeat(9)), "");
}

#[test]
fn an_arrow_that_nobody_uses_is_found() {
    let arrows: &Arrows = &[("link", &["core", "sync"]), ("main", &["runtime"])];
    let file = |path, text| File { path, text };
    let files = [
        file("src/link/mod.rs", "use crate::core::units::Mono;"),
        // A test and a comment need no arrow.
        file("src/link/tests.rs", "use crate::sync::hold;"),
        file("src/link/keys.rs", "// crate::sync::hold"),
        file("src/main.rs", "fn main() { tendon::runtime::go() }"),
        file("src/lib.rs", "pub use crate::sync::hold;"),
    ];
    let found = idle(arrows, &files);
    assert_eq!(found, ["`link` may import `sync`, and no file of it does"]);
    assert!(idle(&[("link", &["core"])], &files).is_empty());
}

#[rustfmt::skip]
#[test]
fn a_map_that_lies_is_found() {
    check_map("`src/core`, `src/core/mod.rs`", &["src/core/mod.rs"], "");
    check_map("`src/core`", &["src/core/mod.rs", "src/link/mod.rs"], "nothing about `src/link`");
    check_map("`src/core` `src/gone`", &["src/core/mod.rs"], "`src/gone` does not exist");
    check_map("`src/core` `gone.rs`", &["src/core/mod.rs"], "`gone.rs` does not exist");
    check_map("`src/core` with `wire` and `mod.rs`", &["src/core/mod.rs", "src/core/wire/mod.rs"], "");
    check_map("`src/core`", &["src/core/mod.rs", "src/core/wire/mod.rs"], "nothing about `src/core/wire`");
    check_map("`src/core`\n```\n`src/drawn`\n```\n`cargo bench`", &["src/core/mod.rs"], "");
}

#[rustfmt::skip]
#[test]
fn literals_and_comments_are_blanked() {
    for (text, want) in [
        ("a // b\nc", "a     \nc"), ("a /* b /* c */ d */ e", "a                   e"), (r#"f("x\"y") z"#, "f(      ) z"),
        ("f('\"') z", "f(   ) z"), ("f<'a>(x: &'a str) z", "f<'a>(x: &'a str) z"), ("r#\"a\"b\"# z", "         z"),
        ("for r in x", "for r in x"), ("b\"x\" z", "b    z"), ("f('\\'') \"z\"", "f(    )    "), ("\"open", "     "),
    ] {
        assert_eq!(blanked(text), want, "{text}");
    }
}
