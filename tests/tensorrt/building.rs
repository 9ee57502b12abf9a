// SPDX-License-Identifier: Apache-2.0
//! Building with a fake `trtexec`: a script that does with its arguments what the real one would, or fails as it may.

use crate::fake::{Tables, machine};
use crate::path::spec;
use rten_onnx::onnx::{
    AttributeProto, Dimension, GraphProto, ModelProto, NodeProto, TensorShapeProto, TypeProto,
    TypeProtoTensor, ValueInfoProto,
};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tendon::core::units::Mono;
use tendon::engine::tensorrt::build::{BuildFault, Job, Progress};
use tendon::engine::tensorrt::phase::Phase;
use tendon::engine::tensorrt::plan::{Target, label_path, read_label};
use tendon::engine::tensorrt::{Platform, TensorRt};
use tendon::onnx;

fn now() -> Mono {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Mono(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn target() -> Target {
    Target {
        tensorrt: "10.3.0".into(),
        device: "Fake Orin".into(),
        compute: "8.7".into(),
        multiprocessors: 8,
        memory_gib: 16,
        cuda: 12_060,
        jetson_linux: None,
    }
}

/// A folder with an ONNX file and a builder that runs `script` with `$ONNX` and `$SAVE` set.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new(script: &str) -> Bench {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("policy.onnx"), model("somebody")).expect("written");
        let head = "#!/bin/sh\nfor a in \"$@\"; do echo \"$a\" >> \"$(dirname \"$0\")/arguments\"; case \"$a\" in \
                    --onnx=*) ONNX=${a#--onnx=};; --saveEngine=*) SAVE=${a#--saveEngine=};; esac; done\n";
        let builder = folder.path().join("trtexec");
        std::fs::write(&builder, format!("{head}{script}\n")).expect("written");
        std::fs::set_permissions(&builder, std::fs::Permissions::from_mode(0o755))
            .expect("executable");
        Bench { folder }
    }

    fn job(&self) -> Job {
        Job {
            stage: "policy".into(),
            onnx: self.folder.path().join("policy.onnx"),
            inputs: spec().inputs,
            cache: self.cache(),
            target: target(),
            trtexec: Some(self.folder.path().join("trtexec")),
            flags: vec!["--memPoolSize=workspace:256".into()],
            memory_max_bytes: None,
            shared_memory: false,
            meminfo: self.meminfo(),
            time_max_s: 20.0,
        }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn meminfo(&self) -> PathBuf {
        self.folder.path().join("meminfo")
    }

    /// A machine with so much memory, and so much of it to be had, MB.
    fn memory(&self, available: u64, total: u64) {
        let kib = |mb: u64| mb * 1_000_000 / 1024;
        let text = format!(
            "MemTotal: {} kB\nMemAvailable: {} kB\n",
            kib(total),
            kib(available)
        );
        std::fs::write(self.meminfo(), text).expect("written");
    }

    fn arguments(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("arguments")).unwrap_or_default()
    }

    /// Nothing is left in the cache that looks like a plan.
    fn empty(&self) -> bool {
        let files = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().count();
        files(&self.cache()) == 0
    }
}

const GOOD: &str = "echo '[I] Engine built'; printf FAKEPLAN > \"$SAVE\"";

/// An ONNX model of nothing, `producer`'s.
fn model(producer: &str) -> Vec<u8> {
    let model = ModelProto {
        producer_name: Some(producer.into()),
        ..ModelProto::default()
    };
    model.write_buf().expect("a model")
}

#[test]
fn a_plan_is_built_once_kept_with_its_label_and_loaded() {
    let bench = Bench::new(GOOD);
    let mut lines = vec![];
    let built = bench
        .job()
        .run(now, &mut |progress| lines.push(progress))
        .expect("builds");
    assert!(!built.cached && built.built_s > 0.0, "{built:?}");
    assert!(
        lines.contains(&Progress::Line("[I] Engine built".into())),
        "{lines:?}"
    );
    for argument in [
        "--stronglyTyped",
        "--noTF32",
        "--skipInference",
        "--timingCacheFile=",
        "--memPoolSize=workspace:256",
    ] {
        assert!(
            bench.arguments().contains(argument),
            "{}",
            bench.arguments()
        );
    }
    let label = read_label(&built.path).expect("a label");
    assert_eq!((label.stage.as_str(), &label.target), ("policy", &target()));
    let again = bench.job().run(now, &mut |_| {}).expect("is there");
    assert!(again.cached && again.path == built.path);
    assert_eq!(
        bench.arguments().matches("--onnx=").count(),
        1,
        "it was not built twice"
    );
    // Another ONNX file is another plan.
    std::fs::write(bench.job().onnx, model("another")).expect("written");
    let other = bench.job().run(now, &mut |_| {}).expect("builds");
    assert_ne!(other.path, built.path);
    // And it runs.
    let fakes = machine();
    let platform = Platform::find(&fakes.settings(Tables::Ten)).expect("found");
    assert_eq!(platform.identity(), target());
    let plan = bench
        .job()
        .wanted()
        .expect("readable")
        .read(&bench.cache())
        .expect("ours");
    TensorRt::load(&platform, plan, &spec()).expect("loads");
    std::fs::remove_file(label_path(&other.path)).expect("gone");
    bench
        .job()
        .wanted()
        .expect("readable")
        .read(&bench.cache())
        .expect_err("without a label it is nobody's");
}

/// Floats of 32 bits are multiplied as such, unless somebody says otherwise; and `trtexec` refuses what it does not know, or is told
/// twice.
#[test]
fn thirty_two_bits_are_not_tf32_unless_a_deployment_says_so() {
    let told = |flags: &[&str]| -> (Vec<String>, String) {
        let bench = Bench::new(GOOD);
        let job = Job {
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            ..bench.job()
        };
        let built = job.run(now, &mut |_| {}).expect("builds");
        let label = read_label(&built.path).expect("a label");
        let about = |line: &&str| ["--noTF32", "--tf32"].contains(line);
        let said = bench.arguments();
        let said = said.lines().filter(about).map(str::to_owned).collect();
        (said, label.flags.join(" "))
    };
    let (off, label) = told(&["--memPoolSize=workspace:256"]);
    assert_eq!(off, ["--noTF32"]);
    assert!(label.contains("--noTF32"), "{label}");
    let (on, label) = told(&["--tf32", "--memPoolSize=workspace:256"]);
    assert_eq!(on, [""; 0]);
    assert!(!label.to_lowercase().contains("tf32"), "{label}");
    assert!(label.contains("workspace:256"), "{label}");
    let (twice, _) = told(&["--noTF32"]);
    assert_eq!(twice, ["--noTF32"]);
}

/// A value with these sides: a number, a name that stands for one, or neither ("").
fn value(name: &str, sides: &[&str]) -> ValueInfoProto {
    let side = |side: &&str| Dimension {
        dim_value: side.parse().ok(),
        dim_param: (!side.is_empty() && side.parse::<i64>().is_err()).then(|| (*side).to_owned()),
    };
    let shape = TensorShapeProto {
        dim: sides.iter().map(side).collect(),
    };
    let tensor = TypeProtoTensor {
        elem_type: None,
        shape: Some(shape),
    };
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto {
            tensor_type: Some(tensor),
            ..TypeProto::default()
        }),
    }
}

/// A model with these inputs. What its output and the body of a loop in it leave open is nobody's to say.
fn model_with(inputs: Vec<ValueInfoProto>) -> Vec<u8> {
    let body = GraphProto {
        input: vec![value("inside", &["n", ""])],
        ..GraphProto::default()
    };
    let attribute = AttributeProto {
        g: Some(body),
        ..AttributeProto::default()
    };
    let graph = GraphProto {
        node: vec![NodeProto {
            attribute: vec![attribute],
            ..NodeProto::default()
        }],
        input: inputs,
        output: vec![value("actions", &["n", "12"])],
        ..GraphProto::default()
    };
    let model = ModelProto {
        graph: Some(graph),
        ..ModelProto::default()
    };
    model.write_buf().expect("a model")
}

/// Untold, `trtexec` builds open sides for 1, and the bundle's shape is outside of what the plan takes; told of a graph that leaves
/// nothing open, it refuses.
#[test]
fn the_shapes_of_inputs_that_a_graph_leaves_open_are_told_and_no_others() {
    let built = |image: &[&str], tokens: &[&str], flags: &[&str], words: usize| {
        let bench = Bench::new(GOOD);
        let inputs = vec![value("image", image), value("tokens", tokens)];
        std::fs::write(bench.job().onnx, model_with(inputs)).expect("written");
        let mut inputs = spec().inputs;
        inputs[1].shape[1] = words;
        let job = Job {
            inputs,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            ..bench.job()
        };
        let built = job.run(now, &mut |_| {}).expect("builds");
        let label = read_label(&built.path).expect("a label");
        let about = |flag: &&str| flag.to_lowercase().contains("shapes");
        let said = bench.arguments();
        let said: Vec<String> = said.lines().filter(about).map(str::to_owned).collect();
        let labelled = label.flags.iter().map(String::as_str).filter(about);
        assert_eq!(said, labelled.collect::<Vec<_>>(), "part of the plan's key");
        let name = built.path.file_name().expect("a name").to_owned();
        (said, name)
    };
    let told = |image: &[&str], tokens: &[&str], flags: &[&str]| built(image, tokens, flags, 4).0;
    let (image, tokens) = (["1", "3", "2", "2"], ["1", "4"]);
    assert_eq!(told(&image, &tokens, &[]), [""; 0]);
    let batch = ["batch", "3", "2", "2"];
    assert_eq!(told(&batch, &tokens, &[]), ["--shapes=image:1x3x2x2"]);
    let open = ["1", "3", "", "-1"];
    let both = ["--shapes=image:1x3x2x2,tokens:1x4"];
    assert_eq!(told(&open, &["1", "words"], &[]), both);
    // Who says something of shapes says all of it.
    let own = "--optShapes=tokens:1x4";
    assert_eq!(told(&batch, &tokens, &[own]), [own]);
    // Another shape is another plan.
    let of = |words| built(&image, &["1", "words"], &[], words);
    let (four, eight) = (of(4), of(8));
    assert_eq!(eight.0, ["--shapes=tokens:1x8"]);
    assert_ne!(four.1, eight.1);
    assert_eq!(four.1, of(4).1);
}

#[test]
fn the_shipped_graph_leaves_nothing_open() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shipped = root.join("engines/bench-vla/bench_vla_fp32.onnx");
    assert_eq!(onnx::open_inputs(&shipped), Ok(BTreeSet::new()));
}

/// What the builder measured on one GPU, or with one TensorRT, is not another's.
#[test]
fn a_timing_cache_is_of_one_target() {
    let bench = Bench::new(GOOD);
    let used = |target: Target| -> PathBuf {
        drop(std::fs::remove_file(bench.folder.path().join("arguments")));
        drop(std::fs::remove_dir_all(bench.cache()));
        let job = Job {
            target,
            ..bench.job()
        };
        job.run(now, &mut |_| {}).expect("builds");
        let said = bench.arguments();
        let file = said
            .lines()
            .find_map(|line| line.strip_prefix("--timingCacheFile="));
        let file = PathBuf::from(file.expect("it has one"));
        assert_eq!(file.parent(), Some(bench.cache().as_path()));
        file
    };
    let own = used(target());
    assert_eq!(used(target()), own);
    let newer = Target {
        tensorrt: "10.16.2".into(),
        ..target()
    };
    let larger = Target {
        multiprocessors: 16,
        ..target()
    };
    let (newer, larger) = (used(newer), used(larger));
    assert!(own != newer && own != larger && newer != larger);
}

#[track_caller]
fn fails(bench: &Bench, job: &Job, words: &[&str]) -> BuildFault {
    let fault = job.run(now, &mut |_| {}).expect_err("fails");
    let text = fault.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
    assert!(bench.empty(), "something half made is in the cache");
    fault
}

#[test]
fn a_builder_that_fails_is_quoted() {
    let bench = Bench::new(
        "for n in $(seq 40); do echo \"line $n\"; done; echo 'Error Code 10: no implementation' >&2; exit 3",
    );
    let fault = fails(
        &bench,
        &bench.job(),
        &["stage \"policy\"", "exit status: 3", "Error Code 10"],
    );
    assert!(
        !fault.to_string().contains("line 1\n"),
        "only its last lines: {fault}"
    );
}

#[test]
fn a_builder_that_makes_nothing_is_no_success() {
    let bench = Bench::new("exit 0");
    fails(&bench, &bench.job(), &["No such file"]);
}

#[test]
fn a_builder_that_takes_too_long_or_too_much_is_ended() {
    let bench = Bench::new("exec sleep 60");
    let slow = Job {
        time_max_s: 0.5,
        ..bench.job()
    };
    fails(&bench, &slow, &["more than 0 s", "split the stage"]);
    let bench =
        Bench::new("exec python3 -c 'import time; b = bytearray(200 << 20); time.sleep(60)'");
    let large = Job {
        memory_max_bytes: Some(64 << 20),
        ..bench.job()
    };
    fails(&bench, &large, &["MiB of memory", "more than 64 MiB"]);
}

/// What a Jetson's GPU takes is in no process's account: the machine's is watched.
#[test]
fn a_builder_that_exhausts_the_machine_is_ended_before_it_does() {
    // It takes the GPU's memory: nothing of its own grows, and the machine has less and less.
    let greedy = |left_mib: u64| {
        format!(
            "echo '[I] Start parsing network model.'; sleep 1.3; printf 'MemTotal: 8388608 kB\\nMemAvailable: {} kB\\n' > \
             \"$(dirname \"$0\")/meminfo\"; exec sleep 60",
            left_mib << 10
        )
    };
    let bench = Bench::new(&greedy(300));
    bench.memory(6_000, 8_590);
    let words = [
        "stage \"policy\"",
        "300 MiB of memory left",
        "less than 409 MiB",
        "add swap",
    ];
    let fault = fails(&bench, &bench.job(), &words);
    assert!(matches!(fault, BuildFault::Exhausted { .. }), "{fault:?}");
    // What is left is enough, but more went than the bound allows: only where the GPU has no memory of its own.
    let bench = Bench::new(&greedy(3_000));
    bench.memory(6_000, 8_590);
    let shared = Job {
        shared_memory: true,
        memory_max_bytes: Some(1 << 30),
        ..bench.job()
    };
    fails(
        &bench,
        &shared,
        &["2722 MiB of memory", "more than 1024 MiB"],
    );
    let bench = Bench::new(&greedy(3_000));
    bench.memory(6_000, 8_590);
    let own = Job {
        shared_memory: false,
        memory_max_bytes: Some(1 << 30),
        time_max_s: 3.5,
        ..bench.job()
    };
    let mut told = Vec::new();
    let fault = own
        .run(now, &mut |progress| told.push(progress))
        .expect_err("too slow");
    assert!(fault.to_string().contains("more than 4 s"), "{fault}");
    // Meanwhile its phase is told, its memory, and what bounds it first: the user's GiB.
    let at = told.iter().filter_map(|progress| match progress {
        Progress::At {
            phase,
            bound_bytes,
            memory_bytes,
            ..
        } => Some((*phase, *bound_bytes, *memory_bytes < 1 << 30)),
        _ => None,
    });
    let at: Vec<_> = at.collect();
    assert!(at.len() >= 2, "{told:?}");
    assert!(
        at.iter()
            .all(|at| *at == (Phase::Reading, Some(1 << 30), true)),
        "{at:?}"
    );
}

#[test]
fn a_builder_that_is_not_there_is_looked_for_in_words() {
    let bench = Bench::new(GOOD);
    let job = Job {
        trtexec: Some("/nowhere/trtexec".into()),
        ..bench.job()
    };
    fails(
        &bench,
        &job,
        &["no trtexec", "/nowhere/trtexec", "--trtexec PATH"],
    );
    let job = Job {
        onnx: "/nowhere/policy.onnx".into(),
        ..bench.job()
    };
    fails(&bench, &job, &["/nowhere/policy.onnx"]);
}

#[test]
fn the_weights_of_the_shipped_graphs_are_counted() {
    for name in ["bench_vla_fp32.onnx", "bench_vla_int8.onnx"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = root.join("engines/bench-vla").join(name);
        let bytes = std::fs::read(&path).expect("there");
        let model = ModelProto::parse_buf(&bytes).expect("a model");
        let graph = model.graph.expect("a graph");
        let sides = |dims: &[i64]| dims.iter().product::<i64>() as u64;
        let weights: u64 = graph.initializer.iter().map(|t| sides(&t.dims)).sum();
        let constants = graph.node.iter().flat_map(|node| &node.attribute);
        let constants = constants.filter_map(|attribute| attribute.t.as_ref());
        let constants: u64 = constants.map(|t| sides(&t.dims)).sum();
        assert!(weights > 100_000, "{name}: {weights}");
        assert_eq!(onnx::elements(&path), Ok(weights + constants), "{name}");
    }
}

#[test]
fn what_will_not_find_its_memory_is_said_before_it_is_built() {
    let gb = 1_000;
    let bench = Bench::new(GOOD);
    let job = |free_mb, all_mb, memory_max_mb: Option<u64>| {
        bench.memory(free_mb, all_mb);
        Job {
            memory_max_bytes: memory_max_mb.map(|mb| mb * 1_000_000),
            ..bench.job()
        }
    };
    let words = [
        "stage \"policy\"",
        "expected 3.2 GB",
        "found 2.0 GB",
        "Add swap",
        "--memory-max-mib",
    ];
    fails(&bench, &job(gb, 2 * gb, None), &words);
    assert_eq!(bench.arguments(), "", "the builder was not started");
    let warnings = |job: &Job| {
        let mut warnings = Vec::new();
        let built = job.run(now, &mut |progress| {
            if let Progress::Warning(words) = progress {
                warnings.push(words);
            }
        });
        (built.expect("builds").cached, warnings)
    };
    // What a person bounds is tried all the same.
    let (cached, bounded) = warnings(&job(gb, 2 * gb, Some(8 * gb)));
    assert!(!cached);
    let [words] = &bounded[..] else {
        panic!("{bounded:?}")
    };
    for part in ["3.2 GB", "1.0 GB are free", "close what else", "add swap"] {
        assert!(words.contains(part), "{words}");
    }
    // What is there needs no memory.
    assert_eq!(warnings(&job(gb, 2 * gb, None)), (true, vec![]));
    std::fs::write(bench.job().onnx, model("another")).expect("written");
    let (cached, tight) = warnings(&job(gb, 8 * gb, None));
    assert!(!cached && tight.len() == 1, "{tight:?}");
    std::fs::write(bench.job().onnx, model("a third")).expect("written");
    assert_eq!(warnings(&job(4 * gb, 8 * gb, None)), (false, vec![]));
}
