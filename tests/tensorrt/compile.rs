// SPDX-License-Identifier: Apache-2.0
//! Makes a library or a program of a C file of the tests. Several suites have this file.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `source`, a path from the project's root, into `out` among the build's temporary files: a library if it is called so (`.so`,
/// with a number behind it or not).
pub fn compile(source: &str, out: &str, more: &[&str]) -> PathBuf {
    let is_library = out.ends_with(".so") || out.contains(".so.");
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(out);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let built = Command::new(compiler)
        .args([
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O1",
            "-g",
            "-fPIC",
            "-ffp-contract=off",
        ])
        .args(is_library.then_some("-shared"))
        .arg("-o")
        .args([&out, &source])
        .args(more)
        .arg("-lm")
        .status()
        .expect("a C compiler");
    assert!(built.success(), "{}", source.display());
    out
}
