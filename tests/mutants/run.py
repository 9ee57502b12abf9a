#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests the tests of governor and supervisor: breaks the code in one place at a time and sees whether a test notices.

The mutants are those that cargo-mutants lists. To build each of them would take most of a day; so they are woven into
one program (weave.py), which is built once and run once for each. What cannot be woven (constants, `const fn`, chains of
`let`) is built one by one. Survivors are tried again with the tests at their full length. What is still not
noticed must be in docs/mutants.md, with the reason why it is no fault of the tests.

    cargo install cargo-mutants && pip install tree-sitter tree-sitter-rust
    tests/mutants/run.py [--out FOLDER] [--only REGEX] [--jobs N] [--resume] [--skip-native] [--skip-full]

The core is copied out with its tests (tests/core). An hour on two cores; --only 'supervisor/' takes some minutes.
"""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import queue
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

from weave import Weaver

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = ["core::governor", "core::supervisor", "--skip", "no_arrow"]
# The first failure is all that is asked for: the process ends there.
CHOSEN = """
/// The mutant that this run is about, and an end at the first failure.
#[cfg(test)]
pub mod mutant {
    use std::sync::atomic::{AtomicU32, Ordering};
    static CHOSEN: AtomicU32 = AtomicU32::new(0);
    #[inline(always)]
    pub fn is(number: u32) -> bool {
        CHOSEN.load(Ordering::Relaxed) == number
    }
    #[used]
    #[unsafe(link_section = ".init_array")]
    static BEFORE_MAIN: extern "C" fn() = {
        extern "C" fn before_main() {
            std::panic::set_hook(Box::new(|_| std::process::exit(101)));
            let number = std::env::var("TENDON_MUTANT").ok().and_then(|n| n.parse().ok());
            CHOSEN.store(number.unwrap_or(0), Ordering::Relaxed);
        }
        before_main
    };
}
"""

# The golden trace, which tests/proofs.rs compares: what changes a bit of what is sent is noticed there at the latest.
TRACE = """
#[cfg(test)]
extern crate self as tendon;
#[cfg(test)]
mod trace;
#[cfg(test)]
mod golden {
    #[test]
    fn trace() {
        assert!(crate::trace::golden() == include_str!("golden.txt"));
    }
}
"""


def copy_core(tree):
    """The same library, but from its own files, and without the tests of the other rooms and what only they need."""
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "src").mkdir(parents=True)
    (tree / "docs").mkdir()
    shutil.copy(ROOT / "docs/supervisor.md", tree / "docs")
    shutil.copytree(ROOT / "src/core", tree / "src/core")
    shutil.copy(ROOT / "tests/core/Cargo.lock", tree)
    lib = (ROOT / "tests/core/src/lib.rs").read_text()
    lib = re.sub(r"^#\[cfg\(test\)\][^;]*^mod bench;\n", "", lib, flags=re.M)
    lib = re.sub(r"^#\[path.*\n", "", lib, flags=re.M)
    (tree / "src/lib.rs").write_text(lib + CHOSEN + TRACE)
    shutil.copy(ROOT / "tests/core/src/trace.rs", tree / "src")
    shutil.copy(ROOT / "tests/core/golden.txt", tree / "src")
    manifest = (ROOT / "tests/core/Cargo.toml").read_text()
    (tree / "Cargo.toml").write_text(re.sub(r"^\[dev-dep.*?(?=^\[)", "", manifest, flags=re.M | re.S))
    for room in ("schedule", "wire", "kinematics"):
        file = tree / f"src/core/{room}/mod.rs"
        file.write_text(re.sub(r"^#\[cfg\(test\)\]\nmod tests;\n", "", file.read_text(), flags=re.M))


def listed(tree):
    files = ["--file", "src/core/governor/*.rs", "--file", "src/core/supervisor/*.rs"]
    return json.loads(subprocess.check_output(["cargo", "mutants", "--list", "--json", "--diff", "--dir", tree, *files]))


def environment(**more):
    env = {k: v for k, v in os.environ.items() if k != "CARGO_TARGET_DIR"}
    return env | {"RUSTFLAGS": "--cap-lints=allow", "CARGO_PROFILE_DEV_OPT_LEVEL": "1"} | more


def build_woven(tree, out, mutants):
    """The program, and the numbers that are in it. What the compiler does not take is left out, until it takes all."""
    woven_tree = out / "woven"
    left_out, checked = set(), False
    while True:
        copy_core(woven_tree)
        inside = set()
        for file in sorted({m["file"] for _, m in mutants}):
            path = woven_tree / file
            ours = [(n, m) for n, m in mutants if m["file"] == file and n not in left_out]
            weaver = Weaver(path.read_text(), ours)
            path.write_text(weaver.out())
            inside |= weaver.woven
        # A check is enough to find what does not compile.
        verb = ["test", "--lib", "--no-run"] if checked else ["check", "--tests"]
        command = ["cargo", *verb, "--message-format=json", "--target-dir", out / "target"]
        done = subprocess.run(command, cwd=woven_tree, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith(b"{")]
        if done.returncode == 0 and not checked:
            checked = True
            continue
        if done.returncode == 0:
            made = [m["executable"] for m in messages if m.get("executable")]
            return made[0], inside
        new = set()
        for message in messages:
            for span in message.get("message", {}).get("spans", []):
                if message["message"]["level"] == "error" and span["file_name"].startswith("src/"):
                    new |= blamed(woven_tree / span["file_name"], span)
        if not new - left_out:
            sys.exit(f"does not build, and not for a mutant:\n{done.stderr.decode()}\n{errors(messages)}")
        left_out |= new
        print(f"{len(left_out)} do not compile woven", flush=True)


def blamed(file, span):
    """The mutants in the part of the text that the compiler points at, or else in its lines, or in the first line below:
    of a `match` that lacks an arm only its head is pointed at."""
    text = file.read_bytes()
    numbers = lambda part: {int(n) for n in re.findall(rb"mutant::is\((\d+)\)", part)}
    lines = text.split(b"\n")
    below = (numbers(line) for line in lines[span["line_end"] : span["line_end"] + 40])
    pointed = numbers(text[span["byte_start"] : span["byte_end"]])
    return pointed or numbers(b"\n".join(lines[span["line_start"] - 1 : span["line_end"]])) or next(filter(None, below), set())


def errors(messages):
    return "\n".join(m["message"]["rendered"] for m in messages if m.get("message", {}).get("level") == "error")


# The quick tests first: most mutants end there. Then the slow ones that have to do with the file.
SLOW = {
    "src/core/governor/": ["tests::properties", "tests::space"],
    "src/core/supervisor/": ["whole_machine", "committed_diagram"],
    "src/core/governor/reaction.rs": ["whole_machine", "committed_diagram"],
}
# A run without a mutant takes 4 s of processor time, also where it is built to be slow.
PATIENCE_S = 20


def attempt(program, cwd, file, number, cpu_s, **more):
    """caught, traced (by the golden trace alone), missed or timeout (of processor time, so that a busy machine changes
    nothing)."""
    skip = [word for slow in SLOW.values() for test in slow for word in ("--skip", test)]
    slow = [test for part, tests in SLOW.items() if file.startswith(part) for test in tests]
    limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    env = environment(TENDON_MUTANT=str(number), CARGO_MANIFEST_DIR=str(cwd), **more)
    # The supervisor's tests do not go through the governor, which is slower.
    room = ["core::supervisor", *TESTS[2:]] if "/supervisor/" in file else TESTS
    for word, tests in (("caught", [*room, *skip]), ("caught", [*slow, "--skip", "no_arrow"]), ("traced", ["golden::trace"])):
        done = subprocess.run(
            [program, *tests, "--test-threads=1"],
            cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=limit,
        )  # fmt: skip
        if done.returncode in (-24, -9):
            return "timeout"
        if done.returncode != 0:
            return word
    return "missed"


def attempts(program, cwd, file, numbers, jobs, cpu_s, say, log, **more):
    found = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        todo = {pool.submit(attempt, program, cwd, file[n], n, cpu_s, **more): n for n in numbers}
        for done in concurrent.futures.as_completed(todo):
            found[todo[done]] = done.result()
            log(todo[done], done.result())
            if done.result() not in ("caught", "traced"):
                say(todo[done], done.result())
    return found


def native(tree, out, mutants, jobs, say, log):
    """One build each: the change as cargo-mutants would make it, then the same runs."""
    trees = queue.SimpleQueue()
    for job in range(jobs):
        shutil.rmtree(out / f"native{job}", ignore_errors=True)
        shutil.copytree(tree, out / f"native{job}")
        trees.put(out / f"native{job}")

    def one(mutant):
        place = trees.get()
        try:
            return tried(place, out / f"target-{place.name}", mutant)
        finally:
            shutil.copy(tree / mutant["file"], place / mutant["file"])
            trees.put(place)

    found = {}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        todo = {pool.submit(one, mutant): number for number, mutant in mutants}
        for done in concurrent.futures.as_completed(todo):
            found[todo[done]] = done.result()
            log(todo[done], done.result())
            say(todo[done], done.result())
    return found


def tried(place, target, mutant):
    subprocess.run(["patch", "--quiet", place / mutant["file"]], input=mutant["diff"], text=True, check=True)
    for verb in (["check", "--tests"], ["test", "--lib", "--no-run"]):
        cargo = subprocess.Popen(
            ["cargo", *verb, "--message-format=json", "--target-dir", target],
            cwd=place, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            told = cargo.communicate(timeout=300)[0]
        except subprocess.TimeoutExpired:
            # A constant whose computing does not end.
            os.killpg(cargo.pid, signal.SIGKILL)
            cargo.communicate()
            return "unviable"
        if cargo.returncode != 0:
            return "unviable"
    messages = [json.loads(line) for line in told.splitlines() if line.startswith(b"{")]
    program = next(m["executable"] for m in messages if m.get("executable"))
    return attempt(program, place, mutant["file"], 0, PATIENCE_S, TENDON_SHORT_TESTS="1")


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--out", type=pathlib.Path, default=ROOT / "target/mutants")
    args.add_argument("--only", default="")
    args.add_argument("--jobs", type=int, default=2)
    args.add_argument("--resume", action="store_true", help="with the program as built, go on where the last run ended")
    args.add_argument("--skip-native", action="store_true")
    args.add_argument("--skip-full", action="store_true")
    args = args.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    tree = out / "tree"
    copy_core(tree)
    everything = list(enumerate(listed(tree), 1))
    mutants = [(n, m) for n, m in everything if re.search(args.only, m["name"])]
    name = {n: m["name"] for n, m in mutants}
    file = {n: m["file"] for n, m in everything}
    progress, built = out / "progress.txt", out / "built.json"
    if args.resume and built.exists():
        program, inside = json.loads(built.read_text())
    else:
        program, inside = build_woven(tree, out, everything)
        progress.unlink(missing_ok=True)
        for part in SLOW:
            if attempt(program, out / "woven", part, 0, PATIENCE_S, TENDON_SHORT_TESTS="1") != "missed":
                sys.exit("the tests fail without any mutant")
        built.write_text(json.dumps([program, sorted(inside)]))
    # Small files first: whoever stops the run knows most files wholly.
    sizes = collections.Counter(m["file"] for _, m in mutants)
    mutants.sort(key=lambda one: (sizes[one[1]["file"]], one[1]["file"], one[0]))
    known = dict(reversed(line.split(maxsplit=1)) for line in progress.read_text().splitlines()) if progress.exists() else {}
    found = {n: known[m["name"]] for n, m in mutants if m["name"] in known}
    numbers = [n for n, _ in mutants if n in inside and n not in found]
    print(f"{len(mutants)} mutants, {len(numbers)} of them woven", flush=True)
    start = time.monotonic()
    say = lambda n, word: print(f"{word:8} {name[n]}", flush=True)
    kept = open(progress, "a")
    log = lambda n, word: print(f"{word:8} {name[n]}", file=kept, flush=True)
    found |= attempts(program, out / "woven", file, numbers, args.jobs, PATIENCE_S, say, log, TENDON_SHORT_TESTS="1")
    print(f"woven ones tried in {time.monotonic() - start:.0f} s", flush=True)
    if not args.skip_full:
        again = [n for n, word in found.items() if word == "missed"]
        found |= attempts(program, out / "woven", file, again, args.jobs, 1200, lambda n, word: say(n, "full " + word), log)
    if not args.skip_native:
        found |= native(tree, out, [(n, m) for n, m in mutants if n not in inside and n not in found], args.jobs, say, log)
    result = {name[n]: word for n, word in found.items()}
    (out / "result.json").write_text(json.dumps(result, indent=1))
    counts = {word: sum(w == word for w in result.values()) for word in ("caught", "traced", "timeout", "missed", "unviable")}
    viable = len(result) - counts["unviable"]
    print(counts, f"noticed or out of time: {100 * (viable - counts['missed']) / max(viable, 1):.2f} % of {viable}")
    known = (ROOT / "docs/mutants.md").read_text() if (ROOT / "docs/mutants.md").exists() else ""
    new = [n for n, word in sorted(result.items()) if word == "missed" and n not in known]
    if new:
        sys.exit("missed and not in docs/mutants.md:\n" + "\n".join(new))


if __name__ == "__main__":
    main()
