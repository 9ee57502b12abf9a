// SPDX-License-Identifier: Apache-2.0
//! The shipped policy on the fake GPU as a user meets it, by the program alone: built, proven, looked into, measured. The fake
//! gives what the processor gave for the fixture's inputs.

use crate::fake::{Tables, machine};
use crate::ladder::{Deployment, says};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tendon::engine::cpu::{CpuEngine, CpuOptions};
use tendon::policy::{LoadOptions, Policy};
use tendon::ports::{Engine, EngineFault, StageSpec, Tensor, TensorSpec};

/// The tensors of the shipped policy, in the order of the fake's table.
const TENSORS: [&str; 6] = ["image", "state", "tokens", "action", "keypoint", "presence"];

/// Keeps every run's tensors.
struct Kept {
    engine: CpuEngine,
    runs: Arc<Mutex<Vec<u8>>>,
}

impl Engine for Kept {
    fn inputs(&self) -> &[TensorSpec] {
        self.engine.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.engine.outputs()
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        self.engine.run(inputs, outputs)?;
        let given = self.engine.inputs().iter().zip(inputs);
        let taken = self.engine.outputs().iter().zip(outputs.iter());
        let all: Vec<(&TensorSpec, &Tensor)> = given.chain(taken).collect();
        assert_eq!(all.len(), TENSORS.len());
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        for name in TENSORS {
            let found = all.iter().find(|(spec, _)| spec.name == name);
            let (_, tensor) = found.expect("a tensor of the shipped policy");
            runs.extend_from_slice(match tensor {
                Tensor::F32(values) => bytemuck::cast_slice(values),
                Tensor::I32(values) => bytemuck::cast_slice(values),
            });
        }
        Ok(())
    }
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla")
}

/// A deployment of the shipped policy on the fake GPU alone, and a builder whose plan gives what the processor gave.
fn deployment() -> Deployment {
    let fakes = {
        let fakes = machine();
        (fakes.driver.clone(), fakes.tensorrt(Tables::Ten))
    };
    let deployment = Deployment::new("[\"tensorrt\"]", Some(fakes));
    let runs = Arc::new(Mutex::new(Vec::new()));
    let engine = |path: &Path, spec: &StageSpec| -> Result<Box<dyn Engine>, EngineFault> {
        let engine = CpuEngine::load(path, spec, CpuOptions::default())?;
        let runs = Arc::clone(&runs);
        Ok(Box::new(Kept { engine, runs }))
    };
    Policy::load(&shipped(), LoadOptions::default(), &engine).expect("the shipped policy");
    let answers = deployment.folder.path().join("answers");
    let runs = runs.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::write(&answers, &*runs).expect("written");
    deployment.builder(&format!("FAKEPLAN bench answers={}", answers.display()));
    deployment
}

/// Runs the program with these variables; the exit code, and all that it said.
fn run_with(
    deployment: &Deployment,
    verb: &[&str],
    variables: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let mut command = deployment.command(verb);
    let output = command.envs(variables.iter().copied()).output();
    let output = output.expect("tendon runs");
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        words(&output.stdout),
        words(&output.stderr),
    )
}

#[test]
fn an_engine_that_is_right_is_built_proven_and_looked_into() {
    let deployment = deployment();
    says(
        deployment.run(&["engine", "build"]),
        0,
        &["built in", "the fixture passes"],
    );
    says(deployment.run(&["engine", "build"]), 0, &["was there"]);
    says(
        deployment.run(&["engine", "inspect", "--layers"]),
        0,
        &[
            "stage \"policy\"",
            "(8.7, 8 multiprocessors, 16 GiB, CUDA 12060",
            "{\"Layers\": [\"conv1\", \"matmul2\"]}",
            "stage \"policy\": its context takes 48.0 MiB of the device's memory",
            "0.2500 conv1",
            "0.5000 matmul2",
        ],
    );
}

/// Built, loaded and proven on one platform: driver, context and library are found once.
#[test]
fn building_and_proving_find_the_machine_once() {
    let deployment = deployment();
    let told = deployment.folder.path().join("inits");
    let file = told.display().to_string();
    let variables = [("FAKE_CUDA_INITS", file.as_str())];
    let (code, out, log) = run_with(&deployment, &["engine", "build"], &variables);
    says((code, out + &log), 0, &["the fixture passes"]);
    let inits = std::fs::read_to_string(&told).expect("the driver was asked");
    assert_eq!(inits, "cuInit\n");
}

/// Whichever kind of memory is faster: it is said with both times, and the fixture passes, or the engine would not load.
#[test]
fn the_faster_kind_of_memory_is_taken_and_told() {
    let deployment = deployment();
    says(deployment.run(&["engine", "build"]), 0, &["passes"]);
    for (slow, chosen) in [("3000,0", "mapped"), ("0,3000", "copied")] {
        let (code, out, log) = run_with(&deployment, &["-v", "check"], &[("FAKE_CUDA_SLOW", slow)]);
        let words = format!("stage \"policy\": memory {chosen}: a run takes ");
        says(
            (code, out),
            0,
            &["engine: tensorrt", &words, " us copied, "],
        );
        assert!(log.contains(&words), "the log says so too: {log}");
    }
}

/// TensorRT may warn, or record an error, and do what it was asked: whoever starts it reads so, once.
#[test]
fn what_tensorrt_remarks_while_its_calls_succeed_is_in_the_log_once() {
    let deployment = deployment();
    let answers = deployment.folder.path().join("answers");
    let plan = format!("FAKEPLAN bench grumbles answers={}", answers.display());
    deployment.builder(&plan);
    says(deployment.run(&["engine", "build"]), 0, &["passes"]);
    let (code, out, log) = run_with(&deployment, &["check"], &[]);
    says((code, out), 0, &["engine: tensorrt"]);
    for words in [
        "stage \"policy\": TensorRT: warning: Using an engine plan file",
        "stage \"policy\": TensorRT: error: enqueueV3: Error Code 9",
    ] {
        assert_eq!(log.matches(words).count(), 1, "{words}: {log}");
    }
}

#[test]
fn an_observation_is_measured_beside_a_bare_loop() {
    let deployment = deployment();
    says(deployment.run(&["engine", "build"]), 0, &["passes"]);
    let bundle = shipped().display().to_string();
    let verb = ["policy", "bench", &bundle, "--runs", "20", "--bare-loop"];
    let tensorrt = [&verb[..], &["--engine", "tensorrt", "--json"]].concat();
    for (us, words) in [(0.0, "0"), (20_000.0, "20000")] {
        let variables = [("FAKE_NVINFER_US", words)];
        let (code, out, log) = run_with(&deployment, &tensorrt, &variables);
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|error| {
            panic!("{code:?} {error}: {out}{log}");
        });
        let bare = &report["bare_loop"];
        let number = |of: &Value| of.as_f64().unwrap_or_else(|| panic!("{report}"));
        let [replay, update] = ["graph_replay", "input_update_and_graph"].map(|name| &bare[name]);
        for times in [replay, update, &report["whole"]] {
            let quantiles = ["p50_us", "p95_us", "p99_us"].map(|name| number(&times[name]));
            assert!(quantiles[0] >= us && quantiles.is_sorted(), "{report}");
        }
        assert_eq!(bare["launches"], 1, "{report}");
        let overhead_us = number(&report["whole"]["p50_us"]) - number(&update["p50_us"]);
        let budget_us = (0.02 * number(&update["p50_us"])).max(60.0);
        assert!(
            (number(&bare["overhead_us"]) - overhead_us).abs() < 1e-6,
            "{report}"
        );
        assert!(
            (number(&bare["overhead_budget_us"]) - budget_us).abs() < 1e-6,
            "{report}"
        );
        let within = overhead_us <= budget_us;
        assert_eq!(bare["within_budget"], within, "{report}");
        assert_eq!(code, Some(i32::from(!within)), "{log}{report}");
        assert_eq!(log.contains("beyond a bare loop"), !within, "{log}");
        // The tool's other budget stands beside it as before.
        assert!(report["within_budget"].is_boolean(), "{report}");
        println!("an engine of {us} us: {bare}");
    }
    let other = [&verb[..], &["--engine", "cpu"]].concat();
    says(
        deployment.run(&other),
        2,
        &["--bare-loop", "\"tensorrt\"", "\"cpu\""],
    );
}

/// The shipped bundle with a graph of this name instead of its own of 16 bits, which has them by its name alone, or with none: which
/// file is built, and that its fixture is asked for.
fn with_half(deployment: &Deployment, name: Option<&str>) {
    let folder = deployment.folder.path().join("bundle");
    std::fs::create_dir_all(&folder).expect("a folder");
    for entry in std::fs::read_dir(shipped()).expect("there").flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
        }
    }
    let mut graph = std::fs::read(folder.join("bench_vla_fp32.onnx")).expect("there");
    // Protobuf: the last producer_name (field 2) is the one that counts.
    graph.extend_from_slice(b"\x12\x04half");
    if let Some(name) = name {
        std::fs::write(folder.join(name), &graph).expect("written");
    }
    let path = folder.join("manifest.json");
    let text = std::fs::read_to_string(&path).expect("there");
    let mut manifest: Value = serde_json::from_str(&text).expect("JSON");
    let hash: String = Sha256::digest(&graph)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let graphs = &mut manifest["tendon"]["stages"][0]["onnx"];
    drop(graphs.as_object_mut().expect("graphs").remove("fp16"));
    if let Some(name) = name {
        graphs["fp16"] = name.into();
        manifest["tendon"]["sha256"][name] = hash.into();
    }
    std::fs::write(&path, manifest.to_string()).expect("written");
}

#[test]
fn a_graph_of_sixteen_bits_is_built_and_proven_as_the_others() {
    let deployment = deployment();
    let config = deployment.folder.path().join("tendon.toml");
    let written = std::fs::read_to_string(&config).expect("there");
    let half = written.replace("precision = \"fp32\"", "precision = \"fp16\"");
    let bundle = deployment.folder.path().join("bundle");
    let there = shipped().display().to_string();
    assert!(half.contains(&there), "{half}");
    std::fs::write(&config, half.replace(&there, &bundle.display().to_string())).expect("written");
    with_half(&deployment, None);
    let none = ["tendon.stages[0].onnx", "precision"];
    says(deployment.run(&["engine", "build"]), 2, &none);
    says(deployment.run(&["check"]), 2, &["as fp16 was asked for"]);
    with_half(&deployment, Some("half.onnx"));
    // A builder that says which graph it was given.
    let builder = deployment.folder.path().join("trtexec");
    let script = std::fs::read_to_string(&builder).expect("a builder");
    let asked = deployment.folder.path().join("asked");
    let telling = script.replace(
        "#!/bin/sh\n",
        &format!("#!/bin/sh\necho \"$@\" > {}\n", asked.display()),
    );
    std::fs::write(&builder, telling).expect("written");
    says(deployment.run(&["engine", "build"]), 0, &["passes"]);
    let asked = std::fs::read_to_string(&asked).expect("it was asked");
    assert!(asked.contains("/half.onnx --saveEngine"), "{asked}");
    says(deployment.run(&["check"]), 0, &["engine: tensorrt"]);
    // One that is wrong does not load.
    std::fs::remove_dir_all(deployment.folder.path().join("cache")).expect("gone");
    deployment.builder("FAKEPLAN bench");
    says(deployment.run(&["engine", "build"]), 2, &["cosine"]);
}

/// Every precision is built and proven. What is fastest and misses its fixture is nothing; of the others the fastest is what then runs.
#[test]
fn the_best_precision_is_the_fastest_whose_fixture_passes() {
    let deployment = deployment();
    with_half(&deployment, Some("half.onnx"));
    let folder = deployment.folder.path();
    let config = folder.join("tendon.toml");
    let written = std::fs::read_to_string(&config).expect("there");
    let bundle = folder.join("bundle").display().to_string();
    let written = written.replace(&shipped().display().to_string(), &bundle);
    std::fs::write(&config, &written).expect("written");
    let answers = format!("answers={}", folder.join("answers").display());
    let builder = |int8: &str| {
        let script = format!(
            "#!/bin/sh\nfor a in \"$@\"; do case \"$a\" in *fp32.onnx) PLAN='FAKEPLAN bench us=6000 {answers}';; *half.onnx) \
             PLAN='FAKEPLAN bench us=2000 {answers}';; *int8.onnx) PLAN='FAKEPLAN bench {int8}';; --saveEngine=*) \
             SAVE=${{a#--saveEngine=}};; esac; done\nprintf '%s' \"$PLAN\" > \"$SAVE\"\n"
        );
        std::fs::write(folder.join("trtexec"), script).expect("written");
    };
    let best = written.replace("precision = \"fp32\"", "precision = \"best\"");
    std::fs::write(&config, &best).expect("written");
    let none = ["found to be the best", "tendon engine build"];
    says(deployment.run(&["check"]), 2, &none);
    // Eight bits are the fastest, and wrong.
    builder("us=1");
    std::fs::write(&config, &written).expect("written");
    let build = ["engine", "build", "--precision", "best"];
    let words = [
        "fp32: ",
        "fp16: ",
        "us an observation",
        "int8: parity.safetensors",
        "cosine",
        "the best is fp16",
        "tendon.toml has policy.precision = \"fp32\": \"best\" or \"fp16\" runs it",
    ];
    says(deployment.run(&build), 0, &words);
    std::fs::write(&config, &best).expect("written");
    let words = [
        "engine: tensorrt",
        "precision fp16",
        "the camera's picture is made on the device",
    ];
    says(deployment.run(&["check"]), 0, &words);
    says(
        deployment.run(&["engine", "inspect", "--layers"]),
        0,
        &["conv1"],
    );
    // Right, but the slowest: as so often.
    let rebuilt = |int8: &str, words: &[&str]| {
        std::fs::remove_dir_all(folder.join("cache")).expect("gone");
        builder(int8);
        says(deployment.run(&["engine", "build"]), 0, words);
    };
    rebuilt(
        &format!("us=12000 {answers}"),
        &["int8: ", "the best is fp16"],
    );
    rebuilt(&format!("us=500 {answers}"), &["the best is int8"]);
    says(deployment.run(&["check"]), 0, &["precision int8"]);
    // Another engine runs 32 bits.
    let cpu = best.replace("[\"tensorrt\"]", "[\"cpu\"]");
    std::fs::write(&config, cpu).expect("written");
    says(
        deployment.run(&["check"]),
        0,
        &["engine: cpu (precision fp32)"],
    );
    // None passes: the first one's words.
    std::fs::write(&config, &best).expect("written");
    std::fs::remove_dir_all(folder.join("cache")).expect("gone");
    deployment.builder("FAKEPLAN bench");
    says(deployment.run(&["engine", "build"]), 2, &["cosine"]);
    says(deployment.run(&["check"]), 2, &none);
}
