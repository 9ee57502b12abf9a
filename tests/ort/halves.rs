// SPDX-License-Identifier: Apache-2.0
//! Graphs of 16 bits: the shipped one, what the processor's own engine says to it, and `tendon policy quantize --to fp16` by a Python that
//! has onnx and onnxruntime, or that pip gives them once. Without either that part says so and passes (`TENDON_ORT=required`: fails).

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tendon::config::Precision;
use tendon::onnx;
use tendon::policy::{LoadOptions, ParityMiss, Policy};

const NEEDS: [&str; 4] = [
    "onnxruntime==1.31.1",
    "onnx==1.23.2",
    "numpy",
    "safetensors",
];

fn shipped() -> PathBuf {
    super::root().join("engines/bench-vla")
}

fn tendon(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tendon"));
    command.args(words);
    command
}

/// The exit code, and all that it said.
#[track_caller]
fn ended(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().expect("it runs");
    let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        words(&output.stdout),
        words(&output.stderr),
    )
}

#[test]
fn graphs_of_sixteen_bits_keep_their_fixture() {
    let Some(library) = super::real() else { return };
    let options = LoadOptions {
        precision: Precision::Fp16,
        parity_miss: ParityMiss::Refuse,
    };
    let policy = Policy::load(&shipped(), options, &super::ort(&library, 1));
    let parity = policy
        .expect("the shipped graph of 16 bits")
        .parity()
        .clone();
    println!("bench-vla, fp16: {parity}");
    // It is another graph than that of 32.
    assert!(parity.cosine < 1.0 - 1e-9, "{parity}");
}

/// rten would compute it in 32 bits without a word.
#[test]
fn the_engine_of_the_processor_refuses_sixteen_bits_in_words() {
    let graph = |name: &str| onnx::has_halves(&shipped().join(name));
    assert_eq!(graph("bench_vla_fp32.onnx"), Ok(false));
    assert_eq!(graph("bench_vla_fp16.onnx"), Ok(true));
    assert_eq!(graph("bench_vla_int8.onnx"), Ok(false));
    graph("manifest.json").expect_err("no graph");
    let dir = shipped().display().to_string();
    let (code, _, said) = ended(&mut tendon(&[
        "policy",
        "verify",
        &dir,
        "--precision",
        "fp16",
    ]));
    assert_eq!(code, Some(2), "{said}");
    for words in [
        "floats of 32 bits",
        "found some of 16",
        "\"tensorrt\" or \"ort\"",
        "fp32",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// A Python for the quantiser, and what it must find; or why there is none.
fn python() -> Result<(PathBuf, PathBuf), String> {
    let python = std::env::var_os("TENDON_PYTHON").filter(|it| !it.is_empty());
    let python = PathBuf::from(python.unwrap_or_else(|| "python3".into()));
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("quantiser");
    let has = |packages: &Path| {
        let mut command = Command::new(&python);
        command.env("PYTHONPATH", packages);
        command.args([
            "-c",
            "import onnx, onnxruntime.transformers.float16, numpy, safetensors",
        ]);
        command.output().is_ok_and(|done| done.status.success())
    };
    if !has(&packages) {
        let pip = [
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--timeout",
            "20",
            "--retries",
            "1",
        ];
        let mut fetch = Command::new(&python);
        fetch
            .args(pip)
            .args(["install", "--quiet", "--target"])
            .arg(&packages)
            .args(NEEDS);
        let done = fetch.output().map_err(|error| error.to_string())?;
        if !has(&packages) {
            let said = String::from_utf8_lossy(&done.stderr);
            return Err(said.lines().last().unwrap_or_default().to_owned());
        }
    }
    Ok((python, packages))
}

/// Makes of a bundle's graph one that gives the same in 32 bits: behind its output numbers that 16 bits do not hold, and a sum of 256 that
/// leaves them on its way and is nothing in the end.
const HARD: &str = r#"
import hashlib, json, pathlib, sys
import numpy as np, onnx
from onnx import helper, numpy_helper

folder = pathlib.Path(sys.argv[1])
model = onnx.load(folder / "net.onnx")
graph = model.graph
for node in graph.node:
    node.output[:] = ["raw" if name == "action" else name for name in node.output]
    node.input[:] = ["raw" if name == "action" else name for name in node.input]

def weight(name, values, kind=np.float32):
    graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), name))
    return name

def add(op, inputs, output, **attributes):
    graph.node.append(helper.make_node(op, inputs, [output], **attributes))
    return output

large = add("Mul", ["raw", weight("up", 2.0**20)], "large")
same = add("Mul", [large, weight("down", 2.0**-20)], "same")
one = add("Gather", [add("Flatten", ["raw"], "flat", axis=1), weight("first", [0], np.int64)], "one", axis=1)
row = add("Add", [add("Mul", [one, weight("nothing", np.zeros((1, 256)))], "zeros"), weight("ones", np.ones((1, 256)))], "row")
sides = np.full((256, 40), 1000.0)
sides[128:] *= -1
add("Add", [same, add("MatMul", [row, weight("sides", sides)], "none")], "action")
onnx.checker.check_model(model, full_check=True)
onnx.save(model, folder / "net.onnx")
manifest = json.loads((folder / "manifest.json").read_text())
manifest["tendon"]["sha256"]["net.onnx"] = hashlib.sha256((folder / "net.onnx").read_bytes()).hexdigest()
(folder / "manifest.json").write_text(json.dumps(manifest))
"#;

#[test]
fn what_sixteen_bits_do_not_hold_keeps_thirty_two() {
    let (python, packages) = match python() {
        Ok(found) => found,
        Err(why) => {
            let required = std::env::var_os("TENDON_ORT").is_some_and(|word| word == "required");
            assert!(!required, "TENDON_ORT=required: {why}");
            println!("skipped: no Python with {}: {why}", NEEDS.join(", "));
            return;
        }
    };
    let folder = tempfile::tempdir().expect("a folder");
    let hard = folder.path().join("hard");
    std::fs::create_dir(&hard).expect("a folder");
    for entry in std::fs::read_dir(super::root().join("tests/families/humanoid")).expect("there") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, hard.join(path.file_name().expect("a name"))).expect("copied");
    }
    let plain = folder.path().join("plain.json");
    let quantized = |from: &Path, to: &Path, bits: &str| -> (Value, String) {
        let mut command = tendon(&["policy", "quantize", "--to", bits]);
        command
            .arg(from)
            .arg("--out")
            .arg(to)
            .arg("--python")
            .arg(&python);
        let (code, out, said) = ended(command.env("PYTHONPATH", &packages));
        assert_eq!(code, Some(0), "{said}");
        (serde_json::from_str(&out).expect("a report"), said)
    };
    let verified = |dir: &Path, precision: &str| {
        let dir = dir.display().to_string();
        let words = [
            "policy",
            "verify",
            &dir,
            "--precision",
            precision,
            "--engine",
            "ort",
        ];
        let library = packages.join("onnxruntime/capi");
        let mut command = tendon(&words);
        if library.is_dir() {
            command.env("TENDON_ONNXRUNTIME_LIB", library);
        }
        ended(&mut command)
    };
    // As it is, all of it has 16 bits, and weights of half the size.
    let half = folder.path().join("half");
    let (report, said) = quantized(
        &super::root().join("tests/families/humanoid"),
        &half,
        "fp16",
    );
    let blocks = &report["sixteen_bits"]["blocks"];
    assert!(
        blocks["half"].as_u64() > Some(10) && blocks["full"] == 0,
        "{report} {said}"
    );
    let size = |path: PathBuf| std::fs::metadata(path).expect("there").len();
    assert!(size(half.join("net.fp16.onnx")) * 3 < size(half.join("net.onnx")) * 2);
    // What it does not hold keeps 32 bits, what is only summed beyond them gets sums of 32, and all else has 16.
    std::fs::write(&plain, HARD).expect("written");
    let (code, _, said) = ended(
        Command::new(&python)
            .arg(&plain)
            .arg(&hard)
            .env("PYTHONPATH", &packages),
    );
    assert_eq!(code, Some(0), "{said}");
    let both = folder.path().join("both");
    let (report, said) = quantized(&hard, &both, "fp16,int8");
    let blocks = &report["sixteen_bits"]["blocks"];
    for (state, least) in [("half", 10), ("wide", 1), ("full", 1)] {
        assert!(
            blocks[state].as_u64() >= Some(least),
            "{state}: {report} {said}"
        );
    }
    assert!(
        report["sixteen_bits"]["together"][0]["badness"].as_f64() > Some(1.0),
        "{report}"
    );
    assert_eq!(report["rest"], "fp16", "{report} {said}");
    for precision in ["fp32", "fp16", "int8"] {
        let (code, out, said) = verified(&both, precision);
        assert_eq!(code, Some(0), "{precision}: {out} {said}");
    }
    assert_eq!(onnx::has_halves(&both.join("net.int8.onnx")), Ok(true));
}
