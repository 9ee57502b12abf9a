// SPDX-License-Identifier: Apache-2.0
//! The fake kernel camera (fake_v4l.c) as a library to be preloaded.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// Builds it, once: another test may run with it already. Says where it is.
pub fn library() -> PathBuf {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(build);
    BUILT.clone()
}

fn build() -> PathBuf {
    let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libfake_v4l.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/capture/fake_v4l.c");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let built = Command::new(compiler)
        .args([
            "-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-o",
        ])
        .args([&library, &source])
        .args(["-ldl", "-lpthread"])
        .status()
        .expect("a C compiler");
    assert!(built.success());
    library
}
