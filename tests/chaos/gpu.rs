// SPDX-License-Identifier: Apache-2.0
//! A GPU whose context is lost, as after an address that is none: every later call in that process fails, and no other engine
//! could be made in it. Driver and TensorRT are the fakes of `tests/tensorrt`; everything from the libraries on is the real thing.

use crate::canary::told;
use crate::isolation::{PLAN_MS, child_of, goes_on, undisturbed};
use crate::stage::{Setting, Stage, deploy, patient};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use tendon::core::units::Mono;
use tendon::runtime::clock;

struct Gpu {
    folder: tempfile::TempDir,
    env: Vec<(&'static str, PathBuf)>,
}

impl Gpu {
    /// With an engine of the shipped policy, whose answers are zeros: each plan ends its training's mean step further on, and the arm
    /// creeps.
    fn new() -> Gpu {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let compile = |source: &str, out: &str, more: &[&str]| {
            let built = Command::new("cc")
                .args(["-std=gnu11", "-O1", "-fPIC", "-ffp-contract=off", "-shared"])
                .arg("-o")
                .args([at(out), PathBuf::from(source)])
                .args(more)
                .arg("-lm")
                .status();
            assert!(built.is_ok_and(|status| status.success()), "{source}");
        };
        // Its watcher outlives every engine: the library stays where it is.
        compile("tests/chaos/lost_gpu.c", "libcuda.so", &["-Wl,-z,nodelete"]);
        let driver = at("libcuda.so").display().to_string();
        let more = ["-DLAYOUT=10", &driver];
        compile("tests/tensorrt/fake_nvinfer.c", "libnvinfer.so", &more);
        let builder = "#!/bin/sh\nfor a in \"$@\"; do case \"$a\" in --saveEngine=*) printf 'FAKEPLAN bench' > \"${a#--saveEngine=}\";; esac; done\n";
        std::fs::write(at("trtexec"), builder).expect("written");
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(at("trtexec"), executable).expect("executable");
        let env = vec![
            ("TENDON_CUDA_LIB", at("libcuda.so")),
            ("TENDON_TENSORRT_LIB", at("libnvinfer.so")),
            ("TENDON_TRTEXEC", at("trtexec")),
            ("GPU_LOST", at("lost")),
        ];
        let gpu = Gpu { folder, env };
        let config = deploy(gpu.folder.path(), "tcp/127.0.0.1:7", "");
        let text = std::fs::read_to_string(&config).expect("just written");
        let (from, to) = gpu.engines();
        std::fs::write(&config, text.replacen(from, &to, 1)).expect("written");
        // It is kept although its answers are not those of the fixture, which is said.
        let built = Command::new(env!("CARGO_BIN_EXE_tendon"))
            .args(["engine", "build", "--config"])
            .arg(config)
            .envs(gpu.env.iter().map(|(name, value)| (name, value)))
            .output()
            .expect("it runs");
        let said = [built.stdout, built.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("cosine"), "{said}");
        gpu
    }

    fn engines(&self) -> (&'static str, String) {
        let cache = self.folder.path().join("cache");
        let cache = cache.display();
        (
            "precision = \"fp32\"",
            format!("precision = \"fp32\"\nengine_cache = \"{cache}\"\nengines = [\"tensorrt\"]"),
        )
    }

    fn setting(&self) -> Setting {
        Setting {
            edits: patient().into_iter().chain([self.engines()]).collect(),
            env: self.env.clone(),
            arguments: vec!["--allow-parity-miss"],
            ..Setting::default()
        }
    }

    /// Returns the time just before.
    fn lose(&self) -> Mono {
        let before = clock::now();
        std::fs::write(self.folder.path().join("lost"), "").expect("written");
        before
    }
}

/// The files that a process has mapped.
fn mapped(pid: u32) -> BTreeSet<PathBuf> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("a running process");
    let files = maps.lines().filter_map(|line| {
        let at = line.find('/')?;
        Some(PathBuf::from(&line[at..]))
    });
    files.collect()
}

/// What moves the robot has nothing of a GPU, of an engine or of C++ in its memory; the inference process has the libraries.
#[track_caller]
fn libraries_are_apart(stage: &Stage, gpu: &Gpu, child: u32) {
    let ours = mapped(stage.runtime.id());
    assert!(ours.iter().any(|file| file.ends_with("tendon")), "{ours:?}");
    let mut foreign = vec!["libcuda", "libnvinfer", "libonnxruntime", "libstdc++"];
    // A build with GStreamer has it in every process (docs/operating.md).
    if cfg!(not(feature = "gstreamer")) {
        foreign.push("libgst");
    }
    for name in foreign {
        let found = ours.iter().find(|file| {
            let file = file.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(name)
        });
        assert_eq!(found, None, "mapped where the robot is moved from");
    }
    let theirs = mapped(child);
    for name in ["libcuda.so", "libnvinfer.so"] {
        let library = gpu.folder.path().join(name).canonicalize();
        let library = library.expect("compiled");
        assert!(
            theirs.contains(&library),
            "{}: not in {theirs:?}",
            library.display()
        );
    }
}

#[test]
fn a_gpu_that_is_lost_for_its_process_costs_at_most_a_hold() {
    told(|| {
        undisturbed(|| {
            let gpu = Gpu::new();
            let mut stage = Stage::new(&gpu.setting());
            let child = child_of(&stage);
            libraries_are_apart(&stage, &gpu, child);
            let from = gpu.lose();
            stage.held_within("a GPU that is lost", from, PLAN_MS);
            if !goes_on(&mut stage, "a GPU that is lost", from, child) {
                return false;
            }
            // Nor has it looked at the next one's engine itself.
            libraries_are_apart(&stage, &gpu, child_of(&stage));
            let log = stage.log();
            for words in ["ILLEGAL_ADDRESS", "lost for this process", "runs again"] {
                assert!(log.contains(words), "{words}: {log}");
            }
            true
        });
    });
}
