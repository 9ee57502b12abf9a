// SPDX-License-Identifier: Apache-2.0
//! ONNX Runtime as an engine, under the real library: PyPI's wheel, fetched once, or what TENDON_ONNXRUNTIME_LIB names.
//! Without either the tests that need it say so and pass (`TENDON_ORT=required`: fail). What it does with a GPU a fake does (`gpu.rs`).

#[path = "../tensorrt/compile.rs"]
mod compile;
mod gpu;
mod halves;

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use tendon::config::OrtProvider;
use tendon::engine::cpu::{CpuEngine, CpuOptions};
use tendon::engine::ort::{Library, OrtEngine, OrtFault, OrtOptions};
use tendon::policy::staged::Staged;
use tendon::policy::{LoadOptions, Policy};
use tendon::ports::{Dtype, Engine, EngineFault, StageSpec, Tensor, TensorSpec};
use tendon::runtime::clock;
use tendon::runtime::realtime::{CountingAllocator, allocations_of_this_thread};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const WHEEL: &str = "onnxruntime==1.31.1";

/// The library's folder, or why there is none.
static FOLDER: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    if let Some(named) = std::env::var_os("TENDON_ONNXRUNTIME_LIB").filter(|it| !it.is_empty()) {
        return Ok(named.into());
    }
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("onnxruntime");
    let folder = cache.join("onnxruntime/capi");
    if folder.is_dir() {
        return Ok(folder);
    }
    let fetched = Command::new("python3")
        .args([
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--timeout",
            "20",
        ])
        .args(["--retries", "1", "install", "--quiet", "--no-deps"])
        .args(["--only-binary=:all:", "--target"])
        .arg(&cache)
        .arg(WHEEL)
        .output()
        .map_err(|error| format!("python3: {error}"))?;
    if fetched.status.success() && folder.is_dir() {
        return Ok(folder);
    }
    let said = String::from_utf8_lossy(&fetched.stderr);
    Err(said.lines().last().unwrap_or_default().to_owned())
});

/// The real library; `None`, with the reason printed, where it cannot be had.
fn real() -> Option<Arc<Library>> {
    match &*FOLDER {
        Ok(folder) => Some(Library::open(Some(folder)).expect("ONNX Runtime opens")),
        Err(why) => {
            assert!(
                std::env::var_os("TENDON_ORT").is_none_or(|word| word != "required"),
                "TENDON_ORT=required: {why}"
            );
            println!("skipped: {WHEEL} could not be fetched: {why}");
            None
        }
    }
}

/// The repository: where it was built, or where this program is run when it was built elsewhere.
fn root() -> &'static Path {
    let built = Path::new(env!("CARGO_MANIFEST_DIR"));
    if built.is_dir() {
        built
    } else {
        Path::new(".")
    }
}

fn processor(threads: usize) -> OrtOptions {
    OrtOptions {
        threads,
        providers: Vec::new(),
    }
}

/// Whether a refusal of CUDA is a failure: `tests/gpu/run.sh` says so.
fn must_have_cuda() -> bool {
    std::env::var_os("TENDON_ORT_CUDA").is_some_and(|word| word == "required")
}

fn ort<'a>(
    library: &'a Arc<Library>,
    threads: usize,
) -> impl Fn(&Path, &StageSpec) -> Result<Box<dyn Engine>, EngineFault> + 'a {
    move |path, spec| {
        let mut options = processor(threads);
        if must_have_cuda() {
            options.providers = vec![OrtProvider::Cuda];
        }
        let engine = OrtEngine::load(library, path, spec, &options)?;
        match engine.refused().first() {
            Some((_, why)) => Err(EngineFault(why.clone())),
            None => Ok(Box::new(engine) as Box<dyn Engine>),
        }
    }
}

#[test]
fn the_bench_policy_and_every_family_keep_their_fixture() {
    let Some(library) = real() else { return };
    println!("{library:?}: {:?}", library.providers());
    for threads in [1, 2] {
        let load = ort(&library, threads);
        let policy = Policy::load(
            &root().join("engines/bench-vla"),
            LoadOptions::default(),
            &load,
        );
        println!(
            "bench-vla: {}",
            policy.expect("the shipped bundle loads").parity()
        );
        let mut count = 0;
        for entry in std::fs::read_dir(root().join("tests/families")).expect("there") {
            let folder = entry.expect("an entry").path();
            let name = folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            match Staged::load(&folder, LoadOptions::default(), &load) {
                Ok(policy) => println!("{name:12} {}", policy.parity()),
                Err(problems) => panic!("{name}: {problems:?}"),
            }
            count += 1;
        }
        assert!(count >= 17, "{count} families");
    }
}

/// A stage of a family with tensors of its own.
struct Bound {
    spec: StageSpec,
    onnx: PathBuf,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

fn fed(spec: &TensorSpec) -> Tensor {
    match Tensor::zeros(spec) {
        Tensor::F32(values) => {
            let all = 0..values.len();
            Tensor::F32(
                all.map(|at| ((at * 37 % 101) as f32 - 50.0) * 0.02)
                    .collect(),
            )
        }
        Tensor::I32(values) => Tensor::I32(vec![1; values.len()]),
    }
}

/// The graph as rten describes it, fed with what is neither zero nor even.
fn stage(family: &str, file: &str) -> Bound {
    let onnx = root().join("tests/families").join(family).join(file);
    let (inputs, outputs) = tendon::engine::cpu::tensors_of(&onnx).expect("a graph");
    let spec = StageSpec {
        id: family.to_owned(),
        inputs,
        outputs,
    };
    Bound {
        inputs: spec.inputs.iter().map(fed).collect(),
        outputs: spec.outputs.iter().map(Tensor::zeros).collect(),
        spec,
        onnx,
    }
}

fn act() -> Bound {
    let folder = root().join("tests/families/act");
    let entries = std::fs::read_dir(folder).expect("there").flatten();
    let mut graphs: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".onnx"))
        .collect();
    graphs.sort();
    stage("act", graphs.first().expect("a graph"))
}

#[test]
fn a_run_allocates_nothing_of_ours_and_follows_memory_that_moves() {
    let Some(library) = real() else { return };
    let mut bound = act();
    let mut engine =
        OrtEngine::load(&library, &bound.onnx, &bound.spec, &processor(1)).expect("loads");
    let mut peer = CpuEngine::load(&bound.onnx, &bound.spec, CpuOptions::default()).expect("loads");
    engine.run(&bound.inputs, &mut bound.outputs).expect("runs");
    let before = allocations_of_this_thread();
    for _ in 0..20 {
        engine.run(&bound.inputs, &mut bound.outputs).expect("runs");
    }
    assert_eq!(allocations_of_this_thread() - before, 0);
    // Other memory and other numbers, as when a buffer was exchanged with another stage's.
    for round in 0..3 {
        let mut inputs = bound.inputs.clone();
        for values in inputs.iter_mut().filter_map(Tensor::f32_mut) {
            for value in values {
                *value *= 1.0 + round as f32 * 0.25;
            }
        }
        let mut ours: Vec<Tensor> = bound.spec.outputs.iter().map(Tensor::zeros).collect();
        let mut theirs = ours.clone();
        let before = allocations_of_this_thread();
        engine.run(&inputs, &mut ours).expect("runs");
        assert_eq!(
            allocations_of_this_thread() - before,
            0,
            "memory that moved"
        );
        peer.run(&inputs, &mut theirs).expect("runs");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let (Some(ours), Some(theirs)) = (ours.f32(), theirs.f32()) else {
                continue;
            };
            assert!(
                ours.iter().any(|value| *value != 0.0),
                "nothing was written"
            );
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert!((ours - theirs).abs() < 1e-3, "{ours} and {theirs}");
            }
        }
        // What was written in place is seen without another binding.
        if let Some(values) = inputs.iter_mut().find_map(Tensor::f32_mut) {
            values.fill(0.5);
        }
        let mut again = ours.clone();
        engine.run(&inputs, &mut again).expect("runs");
        assert_ne!(again, ours);
    }
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let Some(library) = real() else { return };
    let bound = act();
    let load = |spec: &StageSpec, path: &Path| {
        OrtEngine::load(&library, path, spec, &processor(1))
            .expect_err("refused")
            .to_string()
    };
    let mut other = bound.spec.clone();
    other.inputs[0].shape[0] += 1;
    other.inputs[1].dtype = Dtype::I64;
    other.outputs[0].name = "else".into();
    let words = load(&other, &bound.onnx);
    for part in [
        format!("input \"{}\": expected f32", other.inputs[0].name),
        format!("input \"{}\": expected i64", other.inputs[1].name),
        "found only in the graph".into(),
        "output \"else\": expected in the graph".into(),
    ] {
        assert!(words.contains(&part), "{part:?} is not in {words}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let broken = folder.path().join("broken.onnx");
    let whole = std::fs::read(&bound.onnx).expect("a graph");
    std::fs::write(&broken, &whole[..whole.len() / 2]).expect("written");
    let words = load(&bound.spec, &broken);
    assert!(words.contains("expected an ONNX graph"), "{words}");
    // A model without a graph.
    std::fs::write(&broken, [0x08, 0x0a]).expect("written");
    let words = load(&bound.spec, &broken);
    assert!(words.contains("ONNX Runtime says"), "{words}");
    let words = load(&bound.spec, &folder.path().join("none.onnx"));
    assert!(words.contains("cannot be opened"), "{words}");

    let mut engine =
        OrtEngine::load(&library, &bound.onnx, &bound.spec, &processor(1)).expect("loads");
    let (mut inputs, mut outputs) = (bound.inputs.clone(), bound.outputs.clone());
    inputs.pop();
    let words = engine
        .run(&inputs, &mut outputs)
        .expect_err("refused")
        .to_string();
    assert!(words.contains("inputs"), "{words}");
    inputs = bound.inputs.clone();
    inputs[0] = Tensor::F32(vec![0.0; 3]);
    let words = engine
        .run(&inputs, &mut outputs)
        .expect_err("refused")
        .to_string();
    assert!(words.contains("found another tensor"), "{words}");
    engine
        .run(&bound.inputs, &mut outputs)
        .expect("runs all the same");
}

#[test]
fn a_provider_that_is_not_here_is_told_and_the_processor_runs() {
    let Some(library) = real() else { return };
    let bound = act();
    let wanted = OrtOptions {
        threads: 1,
        providers: vec![OrtProvider::TensorRt, OrtProvider::Cuda],
    };
    let engine = OrtEngine::load(&library, &bound.onnx, &bound.spec, &wanted).expect("loads");
    println!(
        "granted {:?}, refused {:?}",
        engine.granted(),
        engine.refused()
    );
    assert_eq!(engine.granted().len() + engine.refused().len(), 2);
    for (provider, why) in engine.refused() {
        assert!(why.len() > 20, "{provider:?}: {why}");
    }
}

/// On which processors ONNX Runtime's threads of this process may run, as the kernel says.
fn processors_of_its_threads() -> Vec<String> {
    let mut all = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")
        .expect("threads")
        .flatten()
    {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim() == "tendon-ort" {
            let status = read("status");
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            all.push(line.unwrap_or_default().trim().to_owned());
        }
    }
    all
}

/// As the runtime does it: loaded by one thread, run by another, whose place the compute threads take. In a process of its
/// own, because the other tests have such threads as well.
#[test]
fn its_threads_follow_the_thread_that_runs_it() {
    const ALONE: &str = "TENDON_ORT_ALONE";
    if real().is_none() {
        return;
    }
    if std::env::var_os(ALONE).is_none() {
        let name = "its_threads_follow_the_thread_that_runs_it";
        let output = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", name, "--nocapture"])
            .env(ALONE, "1")
            .output()
            .expect("runs");
        let said = [output.stdout, output.stderr].concat();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&said)
        );
        return;
    }
    let library = real().expect("there");
    let mut bound = act();
    let mut engine =
        OrtEngine::load(&library, &bound.onnx, &bound.spec, &processor(3)).expect("loads");
    engine.run(&bound.inputs, &mut bound.outputs).expect("runs");
    let here = bound.outputs.clone();
    let there = std::thread::spawn(move || {
        let mut one = rustix::thread::CpuSet::new();
        one.set(0);
        rustix::thread::sched_setaffinity(None, &one).expect("processor 0 is there");
        let before = processors_of_its_threads();
        engine.run(&bound.inputs, &mut bound.outputs).expect("runs");
        (
            bound.outputs.clone(),
            before,
            processors_of_its_threads(),
            engine,
        )
    });
    let (outputs, before, after, engine) = there.join().expect("ends");
    println!("threads: {before:?}, then {after:?}");
    assert_eq!(outputs, here);
    assert_eq!(after, ["0", "0"], "two beside the caller");
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        assert_ne!(before, after);
    }
    drop(engine);
    assert!(
        processors_of_its_threads().is_empty(),
        "threads end with their session"
    );
}

#[test]
fn a_library_that_is_none_is_refused_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().join("libonnxruntime.so.1");
    let fault = Library::open(Some(&nowhere)).expect_err("refused");
    assert!(matches!(fault, OrtFault::Missing { .. }), "{fault}");
    let words = fault.to_string();
    for part in [
        "libonnxruntime.so.1",
        "pip install onnxruntime",
        "TENDON_ONNXRUNTIME_LIB",
    ] {
        assert!(words.contains(part), "{part} is not in {words}");
    }
    for (name, source, words) in [
        ("other", "int other;", "without OrtGetApiBase"),
        (
            "old",
            "static const void *get(unsigned v) { return v > 16 ? 0 : (void *)1; }
             static const char *version(void) { return \"1.16.3\"; }
             static const struct { const void *(*a)(unsigned); const char *(*b)(void); } base = {get, version};
             const void *OrtGetApiBase(void) { return &base; }",
            "expected ONNX Runtime 1.17 or later, found 1.16.3",
        ),
    ] {
        let (code, library) = (folder.path().join("l.c"), folder.path().join(name));
        std::fs::write(&code, source).expect("written");
        let built = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()))
            .args(["-shared", "-fPIC", "-o"])
            .args([&library, &code])
            .status()
            .expect("a C compiler");
        assert!(built.success());
        let found = Library::open(Some(&library)).expect_err("refused").to_string();
        assert!(found.contains(words), "{found}");
    }
}

/// The bench's deployment with these engines, in a folder of its own.
fn deployment(engines: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let written = std::fs::read_to_string(root().join("deploy/bench/tendon.toml")).expect("there");
    let engines_folder = root().join("engines").display().to_string();
    let written = written.replace("../../engines", &engines_folder).replace(
        "precision = \"fp32\"",
        &format!("precision = \"fp32\"\nengines = {engines}"),
    );
    std::fs::write(folder.path().join("tendon.toml"), written).expect("written");
    for file in ["robot.toml", "robot.urdf"] {
        let from = root().join("deploy/bench").join(file);
        std::fs::copy(from, folder.path().join(file)).expect("copied");
    }
    folder
}

/// Such a deployment, checked by the real program.
fn check(engines: &str, library: &Path) -> (bool, String) {
    let folder = deployment(engines);
    let output = Command::new(env!("CARGO_BIN_EXE_tendon"))
        .args(["check", "--config"])
        .arg(folder.path().join("tendon.toml"))
        .env("TENDON_CUDA_LIB", "/nowhere/libcuda.so")
        .env("TENDON_ONNXRUNTIME_LIB", library)
        .output()
        .expect("tendon runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[test]
fn the_ladder_takes_it_or_says_why_not() {
    let nowhere = Path::new("/nowhere/libonnxruntime.so");
    let (good, said) = check("[\"tensorrt\", \"ort\", \"cpu\"]", nowhere);
    assert!(
        good && said.contains("engine: cpu") && said.contains("not ort"),
        "{said}"
    );
    assert!(said.contains("/nowhere/libonnxruntime.so"), "{said}");
    let (good, said) = check("[\"ort\"]", nowhere);
    assert!(!good && said.contains("pip install onnxruntime"), "{said}");
    if let (Some(_), Ok(folder)) = (real(), &*FOLDER) {
        let (good, said) = check("[\"tensorrt\", \"ort\", \"cpu\"]", folder);
        assert!(good && said.contains("engine: ort (ONNX Runtime"), "{said}");
        assert!(said.contains("not tensorrt"), "{said}");
        let (good, said) = check("[\"ort\"]\nort_providers = []", folder);
        assert!(good && said.contains("on the processor"), "{said}");
    }
    let (good, said) = check("[\"ort\"]\nort_providers = [\"rocm\"]", nowhere);
    assert!(!good && said.contains("policy.ort_providers"), "{said}");
}

/// `tendon policy bench --onnxruntime` runs both in one process.
#[test]
fn the_bench_compares_in_turns() {
    let (Some(_), Ok(folder)) = (real(), &*FOLDER) else {
        return;
    };
    let output = Command::new(env!("CARGO_BIN_EXE_tendon"))
        .args(["policy", "bench", "--json", "--runs", "20"])
        .arg(format!("--onnxruntime={}", folder.display()))
        .arg(root().join("tests/families/pi0"))
        .output()
        .expect("tendon runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(
        report["onnxruntime"]
            .as_str()
            .is_some_and(|version| version.starts_with("1."))
    );
    let stages = report["stages"].as_array().expect("stages");
    assert!(!stages.is_empty());
    for stage in stages {
        assert!(
            stage["onnxruntime_run"]["p50_us"]
                .as_f64()
                .is_some_and(|us| us > 0.0)
        );
    }
}

/// With `--config`, ONNX Runtime is asked for the deployment's providers, not for CUDA in any case.
#[test]
fn the_bench_asks_for_the_providers_of_the_deployment() {
    let (Some(_), Ok(library)) = (real(), &*FOLDER) else {
        return;
    };
    let remarks = |providers: &str| {
        let folder = deployment(&format!("[\"ort\"]\nort_providers = {providers}"));
        let output = Command::new(env!("CARGO_BIN_EXE_tendon"))
            .args(["policy", "bench", "--json", "--runs", "1"])
            .args(["--engine", "ort", "--config"])
            .arg(folder.path().join("tendon.toml"))
            .arg(root().join("engines/bench-vla"))
            .env("TENDON_ONNXRUNTIME_LIB", library)
            .output()
            .expect("tendon runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        report["remarks"].to_string()
    };
    // Granted or refused, it was asked for.
    let said = remarks("[\"cuda\"]");
    assert!(said.contains("on cuda"), "{said}");
    let said = remarks("[]");
    assert!(
        said.contains("on the processor") && !said.contains("on cuda"),
        "{said}"
    );
}

/// p50, p95, p99 and the largest, in microseconds.
fn spread(mut times_ns: Vec<u64>) -> Value {
    times_ns.sort_unstable();
    let us = |share: f64| times_ns[((times_ns.len() - 1) as f64 * share) as usize] as f64 * 1e-3;
    json!({"p50_us": us(0.5), "p95_us": us(0.95), "p99_us": us(0.99), "max_us": us(1.0), "runs": times_ns.len()})
}

/// A stage of the graphs that `tests/gpu/smolvla_sized.py` made, which describes them in `spec.json`.
fn made(folder: &Path, stage: &str) -> Bound {
    let text = std::fs::read_to_string(folder.join("spec.json")).expect("spec.json");
    let spec: Value = serde_json::from_str(&text).expect("JSON");
    let list = |kind: &str| -> Vec<TensorSpec> {
        let all = spec[stage][kind].as_array().expect("a list");
        let side = |side: &Value| side.as_u64().expect("a side") as usize;
        all.iter()
            .map(|tensor| TensorSpec {
                name: tensor[0].as_str().expect("a name").into(),
                dtype: Dtype::F32,
                shape: tensor[1]
                    .as_array()
                    .expect("a shape")
                    .iter()
                    .map(side)
                    .collect(),
            })
            .collect()
    };
    let spec = StageSpec {
        id: stage.into(),
        inputs: list("inputs"),
        outputs: list("outputs"),
    };
    Bound {
        inputs: spec.inputs.iter().map(fed).collect(),
        outputs: spec.outputs.iter().map(Tensor::zeros).collect(),
        onnx: folder.join(format!("{stage}.onnx")),
        spec,
    }
}

/// Prefix once and ten steps of the action expert, as SmolVLA's chunk is made, on the providers that are here. Needs
/// TENDON_ORT_GRAPHS, the folder of `tests/gpu/smolvla_sized.py`; TENDON_ORT_CUDA=required fails where CUDA is refused. Figures go
/// to $OUT/ort.json.
#[test]
fn a_chunk_of_smolvlas_size() {
    let Some(folder) = std::env::var_os("TENDON_ORT_GRAPHS").map(PathBuf::from) else {
        println!("skipped: TENDON_ORT_GRAPHS names no folder of tests/gpu/smolvla_sized.py");
        return;
    };
    let library = real().expect("ONNX Runtime");
    let options = OrtOptions::default();
    let (mut prefix, mut step) = (made(&folder, "prefix"), made(&folder, "step"));
    let load = |bound: &Bound| {
        let engine = OrtEngine::load(&library, &bound.onnx, &bound.spec, &options).expect("loads");
        println!(
            "{}: {:?}, refused {:?}",
            bound.spec.id,
            engine.granted(),
            engine.refused()
        );
        assert!(
            !must_have_cuda() || engine.granted() == [OrtProvider::Cuda],
            "{:?}",
            engine.refused()
        );
        engine
    };
    let (mut seeing, mut acting) = (load(&prefix), load(&step));
    let runs = if seeing.granted().is_empty() { 3 } else { 100 };
    let (mut first, mut each, mut whole) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..runs + 3 {
        let began = clock::now();
        seeing
            .run(&prefix.inputs, &mut prefix.outputs)
            .expect("runs");
        let seen = clock::now();
        // The keys and values are handed on by exchanging two buffers, as the runtime does it.
        std::mem::swap(&mut prefix.outputs[0], &mut step.inputs[0]);
        let mut before = seen;
        for _ in 0..10 {
            acting.run(&step.inputs, &mut step.outputs).expect("runs");
            std::mem::swap(&mut step.outputs[0], &mut step.inputs[1]);
            let now = clock::now();
            if run >= 3 {
                each.push(now.since_ns(before));
            }
            before = now;
        }
        std::mem::swap(&mut prefix.outputs[0], &mut step.inputs[0]);
        if run >= 3 {
            first.push(seen.since_ns(began));
            whole.push(before.since_ns(began));
        }
    }
    let actions = step.inputs[1].f32().expect("floats");
    assert!(actions.iter().all(|value| value.is_finite()), "{actions:?}");
    let (prefix, step, chunk) = (spread(first), spread(each), spread(whole));
    let figures = json!({
        "onnxruntime": library.version,
        "on": seeing.granted().iter().map(|provider| provider.word()).collect::<Vec<_>>(),
        "refused": seeing.refused().iter().map(|(_, why)| why).collect::<Vec<_>>(),
        "through": "the host's memory, between all runs",
        "prefix": prefix, "step": step, "chunk": chunk,
    });
    let text = serde_json::to_string_pretty(&figures).expect("JSON");
    println!("{text}");
    if let Some(out) = std::env::var_os("OUT").filter(|out| !out.is_empty()) {
        std::fs::write(PathBuf::from(out).join("ort.json"), text + "\n").expect("OUT is a folder");
    }
}
