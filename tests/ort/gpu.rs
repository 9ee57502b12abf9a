// SPDX-License-Identifier: Apache-2.0
//! ONNX Runtime on a GPU without one: a fake of its library whose CUDA and TensorRT parts are granted, and fail as they are told.

use crate::compile::compile;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use tendon::config::OrtProvider;
use tendon::engine::ort::{Library, OrtEngine, OrtOptions};
use tendon::ports::{Dtype, Engine, EngineFault, StageSpec, Tensor, TensorSpec};

/// Where these functions stand in the table, for the C compiler.
macro_rules! places {
    ($($name:ident)*) => {
        [$(format!("-DAT_{}={}", stringify!($name), offset_of!(ort_sys::OrtApi, $name) / size_of::<usize>())),*]
    };
}

fn build(out: &str, more: &[&str]) -> PathBuf {
    let places = places!(
        GetErrorMessage ReleaseStatus CreateEnvWithCustomLogger ReleaseEnv GetAvailableProviders ReleaseAvailableProviders
        CreateSessionOptions ReleaseSessionOptions SessionOptionsSetCustomCreateThreadFn
        SessionOptionsSetCustomThreadCreationOptions SessionOptionsSetCustomJoinThreadFn SetIntraOpNumThreads
        SetInterOpNumThreads AddSessionConfigEntry CreateCUDAProviderOptions UpdateCUDAProviderOptions
        SessionOptionsAppendExecutionProvider_CUDA_V2 ReleaseCUDAProviderOptions CreateTensorRTProviderOptions
        SessionOptionsAppendExecutionProvider_TensorRT_V2 ReleaseTensorRTProviderOptions CreateSessionFromArray
        ReleaseSession SessionGetInputCount SessionGetOutputCount SessionGetInputName SessionGetOutputName
        SessionGetInputTypeInfo SessionGetOutputTypeInfo GetAllocatorWithDefaultOptions AllocatorFree
        CastTypeInfoToTensorInfo GetTensorElementType GetDimensionsCount GetDimensions ReleaseTypeInfo CreateCpuMemoryInfo
        ReleaseMemoryInfo CreateTensorWithDataAsOrtValue ReleaseValue CreateIoBinding ReleaseIoBinding BindInput BindOutput
        RunWithBinding
    );
    let all = format!(
        "-DPLACES={}",
        size_of::<ort_sys::OrtApi>() / size_of::<usize>()
    );
    let mut arguments: Vec<&str> = places.iter().map(String::as_str).collect();
    arguments.push(&all);
    arguments.extend(more);
    compile("tests/ort/fake_ort.c", out, &arguments)
}

static FAKE: LazyLock<PathBuf> = LazyLock::new(|| build("libfake_ort.so", &[]));
/// As 1.17 was: it cannot be told to leave TF32.
static OLD: LazyLock<PathBuf> = LazyLock::new(|| build("libfake_ort_old.so", &["-DOLD"]));

fn library(path: &Path) -> Arc<Library> {
    Library::open(Some(path)).expect("the fake opens")
}

fn spec() -> StageSpec {
    let tensor = |name: &str| TensorSpec {
        name: name.into(),
        dtype: Dtype::F32,
        shape: vec![2],
    };
    StageSpec {
        id: "stage".into(),
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
    }
}

/// An engine whose runs after the one at load end so, as the fake has it.
fn engine(library: &Arc<Library>, runs: &str, providers: &[OrtProvider]) -> OrtEngine {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("graph.onnx");
    let words = format!("runs=.{runs}");
    // Protobuf: a model's ir_version (field 1), and its producer_name (field 2).
    let mut bytes = vec![0x08, 0x0a, 0x12, words.len() as u8];
    bytes.extend_from_slice(words.as_bytes());
    std::fs::write(&path, bytes).expect("written");
    let options = OrtOptions {
        threads: 1,
        providers: providers.to_vec(),
    };
    OrtEngine::load(library, &path, &spec(), &options).expect("loads")
}

/// A number whose last bits TF32 does not have.
const FINE: f32 = 1.000_1;

fn run(engine: &mut OrtEngine) -> Result<Vec<Tensor>, EngineFault> {
    let mut outputs = vec![Tensor::F32(vec![0.0; 2])];
    engine.run(&[Tensor::F32(vec![FINE, -3.0])], &mut outputs)?;
    Ok(outputs)
}

#[test]
fn a_float_of_32_bits_stays_one_or_it_is_said() {
    let whole = Ok(vec![Tensor::F32(vec![FINE, -3.0])]);
    let mut engine = engine_of(&FAKE, OrtProvider::Cuda);
    assert_eq!(engine.granted(), [OrtProvider::Cuda]);
    assert_eq!(engine.remarks(), [""; 0]);
    assert_eq!(run(&mut engine), whole);
    let mut engine = engine_of(&OLD, OrtProvider::Cuda);
    let [remark] = engine.remarks() else {
        panic!("{:?}", engine.remarks());
    };
    assert!(
        remark.contains("cuda keeps TF32") && remark.contains("use_tf32"),
        "{remark}"
    );
    assert_ne!(run(&mut engine), whole, "the fake rounds");
    // ONNX Runtime has no such option of TensorRT's. Unless this process was started with the variable.
    if std::env::var_os("NVIDIA_TF32_OVERRIDE").is_none() {
        let engine = engine_of(&FAKE, OrtProvider::TensorRt);
        let said = engine.remarks().concat();
        assert!(said.contains("NVIDIA_TF32_OVERRIDE=0"), "{said}");
    }
}

fn engine_of(fake: &Path, provider: OrtProvider) -> OrtEngine {
    engine(&library(fake), "", &[provider])
}

#[test]
fn three_failures_in_a_row_on_a_gpu_end_the_engine_and_two_do_not() {
    let library = library(&FAKE);
    for gpu in [OrtProvider::Cuda, OrtProvider::TensorRt] {
        let mut engine = engine(&library, "xx.xx.xxx", &[gpu]);
        for expected in "xx.xx.xx".chars() {
            assert_eq!(run(&mut engine).is_ok(), expected == '.', "{expected}");
            assert!(!engine.lost());
            // What does not fit counts for nothing.
            let misfit = engine.run(&[Tensor::F32(vec![0.0])], &mut [Tensor::F32(vec![0.0; 2])]);
            misfit.expect_err("refused");
        }
        let said = run(&mut engine).expect_err("fails").to_string();
        assert!(
            said.contains("CUBLAS failure 13") && engine.lost(),
            "{said}"
        );
        // The fake would run now; but nobody asks it.
        let said = run(&mut engine).expect_err("lost for good").to_string();
        for words in ["3 runs in a row", "CUBLAS failure 13", "started again"] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}

#[test]
fn memory_that_could_not_be_bound_is_bound_by_the_next_run() {
    let mut engine = engine(&library(&FAKE), ".b.", &[]);
    let inputs = [Tensor::F32(vec![FINE, -3.0])];
    let [mut here, mut there] = [0; 2].map(|_| [Tensor::F32(vec![0.0; 2])]);
    engine.run(&inputs, &mut here).expect("runs");
    let refused = engine.run(&inputs, &mut there).expect_err("not bound");
    assert!(refused.to_string().contains("no room"), "{refused}");
    engine.run(&inputs, &mut there).expect("runs");
    assert_eq!(there, inputs);
}

#[test]
fn a_context_that_is_lost_ends_the_engine_at_once() {
    let mut engine = engine(&library(&FAKE), ".7", &[OrtProvider::Cuda]);
    run(&mut engine).expect("runs");
    assert!(!engine.lost());
    let said = run(&mut engine).expect_err("fails").to_string();
    assert!(said.contains("CUDA failure 700") && engine.lost(), "{said}");
    let said = run(&mut engine).expect_err("lost for good").to_string();
    for words in ["lost since", "CUDA failure 700", "started again"] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

/// A processor is not lost: what it refuses is the graph's or the numbers' fault, and a new process would refuse it too.
#[test]
fn without_a_gpu_no_failure_ends_the_engine() {
    let mut engine = engine(&library(&FAKE), "xxxx7", &[]);
    for _ in 0..5 {
        run(&mut engine).expect_err("fails");
        assert!(!engine.lost());
    }
    run(&mut engine).expect("runs");
}
