// SPDX-License-Identifier: Apache-2.0
//! What NVIDIA itself has published: the lean libraries from PyPI, x86-64 only, and the headers' own layout.

use crate::fake::machine;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tendon::engine::tensorrt::nvinfer::{Library, Session};
use tendon::engine::tensorrt::slots::Slots;
use tendon::engine::tensorrt::{Layout, LoadFault, Platform, Settings};

/// Fetches a wheel once and unpacks its library; `None`, with the reason printed, when that cannot be.
fn lean(version: &str, major: &str) -> Option<PathBuf> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        println!("skipped: the lean wheels are for x86-64 Linux");
        return None;
    }
    let named = std::env::var_os("TENDON_LEAN_CACHE").map(PathBuf::from);
    let cache = named
        .unwrap_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("lean"))
        .join(version);
    let library = cache.join(format!("tensorrt_lean_libs/libnvinfer_lean.so.{major}"));
    if library.is_file() {
        return Some(library);
    }
    std::fs::create_dir_all(&cache).expect("a folder");
    let pip = Command::new("python3")
        .args([
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--timeout",
            "20",
            "--retries",
            "1",
        ])
        .args([
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--target",
        ])
        .arg(&cache)
        .arg(format!("tensorrt-lean-cu12-libs=={version}"))
        .output();
    match pip {
        Ok(output) if output.status.success() && library.is_file() => Some(library),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            println!(
                "skipped: the lean library {version} could not be fetched: {}",
                said.lines().last().unwrap_or_default()
            );
            None
        }
        Err(error) => {
            println!("skipped: the lean library {version} could not be fetched: python3: {error}");
            None
        }
    }
}

#[test]
fn the_real_libraries_load_speak_and_fail_as_ours() {
    // One machine at a time: the other tests' fake driver must not be mistaken for a real one.
    let _machine = machine();
    for (version, major, number) in [("10.16.1.11", "10", 101_601), ("11.4.0.106", "11", 110_400)] {
        let Some(path) = lean(version, major) else {
            continue;
        };
        let library = Arc::new(Library::open(Some(&path)).expect("TensorRT's own library opens"));
        assert_eq!(library.version(), number);
        let settings = Settings {
            tensorrt: Some(path),
            ..Settings::default()
        };
        match Platform::find(&settings) {
            Ok(platform) => {
                println!("{version}: a device is here: {:?}", platform.device);
                let fault = Session::open(&platform.library, b"garbage that is no plan".to_vec())
                    .expect_err("refused");
                println!("{version}: {fault}");
            }
            Err(fault) => {
                println!("{version}: {fault}");
                assert!(matches!(fault, LoadFault::Driver(_)), "{fault}");
                // Against the advice: what the library does when it is asked all the same. It hands out a pointer that
                // is neither null nor an object; we must neither crash nor believe it.
                let fault = Session::runtime(&library).expect_err("no runtime without a driver");
                println!("{version}: {fault}");
                let words = fault.to_string();
                assert!(
                    words.contains("createInferRuntime failed") && words.contains("CUDA"),
                    "{words}"
                );
                assert!(
                    !words.ends_with("says: nothing"),
                    "its logger was not heard: {words}"
                );
            }
        }
    }
}

/// `TENDON_TENSORRT_HEADERS=DIR cargo test --test tensorrt headers -- --nocapture`, on a machine with
/// libnvinfer-headers-dev or any checkout's `include`: the compiler's own places against ours.
#[test]
fn the_layout_is_that_of_the_headers() {
    let headers = std::env::var_os("TENDON_TENSORRT_HEADERS").map(PathBuf::from);
    let installed = [
        "/usr/include/aarch64-linux-gnu",
        "/usr/include/x86_64-linux-gnu",
    ]
    .map(PathBuf::from);
    let found = headers
        .into_iter()
        .chain(installed)
        .find(|folder| folder.join("NvInferRuntime.h").is_file());
    let Some(headers) = found else {
        println!("skipped: no TensorRT headers here; name them in TENDON_TENSORRT_HEADERS");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    // All that TensorRT's headers want of CUDA are two names.
    std::fs::write(
        folder.path().join("cuda_runtime_api.h"),
        "typedef struct CUstream_st* cudaStream_t; typedef struct CUevent_st* cudaEvent_t;\n",
    )
    .expect("written");
    let program = folder.path().join("slots");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tensorrt/slots.cpp");
    let source = if source.is_file() {
        source
    } else {
        Path::new(file!()).with_file_name("slots.cpp")
    };
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let built = Command::new(compiler)
        .args(["-std=c++17", "-w"])
        .arg("-I")
        .arg(&headers)
        .arg("-I")
        .arg(folder.path())
        .args([&source, Path::new("-o"), &program])
        .status();
    match built {
        Ok(status) => assert!(
            status.success(),
            "slots.cpp does not compile against {}",
            headers.display()
        ),
        Err(error) => {
            println!("skipped: no C++ compiler: {error}");
            return;
        }
    }
    let output = Command::new(&program).output().expect("runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |name: &str| -> Option<usize> {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let version = number("version").expect("a version");
    let layout = Layout::of(version as i32).expect("a version that is claimed to be known");
    println!("headers of {version} in {}", headers.display());
    for (name, slot) in Slots::of(layout).named() {
        assert_eq!(number(name), Some(slot), "{name} in {version}");
    }
    assert_eq!(number("sizeof(Dims64)"), Some(72));
    let log = match layout {
        Layout::Ten => 0,
        Layout::Eleven => 4,
    };
    assert_eq!(number("ILogger::log"), Some(log));
    assert_eq!(number("IProfiler::reportLayerTime"), Some(log));
    assert_eq!(number("IErrorRecorder::reportError"), Some(9));
    assert_eq!(number("IErrorRecorder::decRefCount"), Some(11));
}
