// SPDX-License-Identifier: Apache-2.0
//! Load, record, run, give back; and every way in which it can go wrong.

use crate::fake::{BOTH, Fakes, Tables, WATCHED_BYTES, held, machine, plan_of};
use crate::heard::{self, Heard};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use tendon::engine::tensorrt::nvinfer::{Library, Session};
use tendon::engine::tensorrt::{LoadFault, Memory, Platform, Settings, TensorRt, version_words};
use tendon::ports::{Dtype, Engine, EngineFault, StageSpec, Tensor, TensorSpec};
use tendon::runtime::clock;
use tendon::runtime::realtime::allocations_of_this_thread;

const PLAN: &[u8] = b"FAKEPLAN";

pub fn spec() -> StageSpec {
    let tensor = |name: &str, dtype, shape: &[usize]| TensorSpec {
        name: name.into(),
        dtype,
        shape: shape.to_vec(),
    };
    StageSpec {
        id: "policy".into(),
        inputs: vec![
            tensor("image", Dtype::F32, &[1, 3, 2, 2]),
            tensor("tokens", Dtype::I64, &[1, 4]),
        ],
        outputs: vec![
            tensor("count", Dtype::I32, &[1]),
            tensor("actions", Dtype::F32, &[1, 12]),
        ],
    }
}

fn inputs(seed: f32) -> [Tensor; 2] {
    let image = (0..12).map(|n| n as f32 * 0.5 + seed).collect();
    [Tensor::F32(image), Tensor::I32(vec![7, 0, -3, 2])]
}

fn outputs() -> Vec<Tensor> {
    spec().outputs.iter().map(Tensor::zeros).collect()
}

#[track_caller]
fn right(outputs: &[Tensor], seed: f32) {
    let tokens = [7.0, 0.0, -3.0, 2.0];
    let expected: Vec<f32> = (0..12)
        .map(|n| 2.0 * (n as f32 * 0.5 + seed) + tokens[n % 4])
        .collect();
    assert_eq!(outputs, [Tensor::I32(vec![3]), Tensor::F32(expected)]);
}

fn load(settings: &Settings, plan: &[u8]) -> Result<TensorRt, LoadFault> {
    TensorRt::load(&Platform::find(settings)?, plan.to_vec(), &spec())
}

#[test]
fn a_stage_runs_from_its_graph_in_both_layouts_and_gives_everything_back() {
    let fakes = machine();
    for tables in BOTH {
        for memory in [Memory::Copied, Memory::Mapped] {
            for plan in [PLAN, b"FAKEPLAN dynamic"] {
                let settings = Settings {
                    memory,
                    ..fakes.settings(tables)
                };
                let before = fakes.live();
                let mut engine = load(&settings, plan).expect("loads");
                assert_eq!(engine.plain(), None);
                let mut found = outputs();
                engine.run(&inputs(0.0), &mut found).expect("runs");
                right(&found, 0.0);
                fakes.forget();
                let allocated = allocations_of_this_thread();
                let given = inputs(4.0);
                let own = allocations_of_this_thread() - allocated;
                engine.run(&given, &mut found).expect("runs");
                assert_eq!(
                    allocations_of_this_thread() - allocated - own,
                    0,
                    "a run allocates nothing"
                );
                right(&found, 4.0);
                assert_eq!(
                    fakes.calls(),
                    ["cuGraphLaunch", "cuEventRecord", "cuEventSynchronize"],
                    "{tables:?} {memory:?}: a run is one launch and one wait asleep"
                );
                // Loaded by one thread, run by another.
                let (engine, found) = std::thread::spawn(move || {
                    let mut found = outputs();
                    engine.run(&inputs(9.0), &mut found).expect("runs");
                    (engine, found)
                })
                .join()
                .expect("no panic");
                right(&found, 9.0);
                drop(engine);
                assert_eq!(
                    fakes.live(),
                    before,
                    "{tables:?} {memory:?}: something was not given back"
                );
            }
        }
    }
}

/// Tells at each run how many pieces of memory of a plan's size are held.
struct Looks {
    spec: StageSpec,
    tell: Sender<isize>,
}

impl Engine for Looks {
    fn inputs(&self) -> &[TensorSpec] {
        &self.spec.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.spec.outputs
    }

    fn run(&mut self, _: &[Tensor], _: &mut [Tensor]) -> Result<(), EngineFault> {
        let told = self.tell.send(held());
        told.map_err(|_| EngineFault("nobody listens".into()))
    }
}

/// It may be as large as a Jetson's memory, and TensorRT has its own of it.
#[test]
fn a_plan_is_let_go_of_before_the_first_run() {
    let fakes = machine();
    for tables in BOTH {
        let platform = Platform::find(&fakes.settings(tables)).expect("the fakes");
        let (tell, told) = mpsc::channel();
        let spec = spec();
        let looks = Looks {
            spec: spec.clone(),
            tell,
        };
        let text = plan_of(&spec, Box::new(looks), "");
        let before = held();
        let mut plan = Vec::with_capacity(WATCHED_BYTES);
        plan.extend_from_slice(&text);
        assert_eq!(held(), before + 1);
        let engine = TensorRt::load(&platform, plan, &spec).expect("loads");
        let seen: Vec<isize> = told.try_iter().collect();
        assert_eq!(
            seen, [before; 2],
            "{tables:?}: the run, and its recording's"
        );
        drop(engine);
    }
}

#[test]
fn what_cannot_be_recorded_runs_as_it_is_and_says_why() {
    let fakes = machine();
    for tables in BOTH {
        let mut engine = load(&fakes.settings(tables), b"FAKEPLAN restless").expect("loads");
        let why = engine.plain().expect("no graph").to_owned();
        assert!(
            why.contains("data-dependent shapes cannot be captured"),
            "{why}"
        );
        let mut found = outputs();
        engine.run(&inputs(1.0), &mut found).expect("runs");
        right(&found, 1.0);
        fakes.fail("cuGraphInstantiateWithFlags", 0, 801);
        let mut engine = load(&fakes.settings(tables), PLAN).expect("loads");
        assert!(
            engine
                .plain()
                .is_some_and(|why| why.contains("cuGraphInstantiate"))
        );
        engine.run(&inputs(2.0), &mut found).expect("runs");
        right(&found, 2.0);
        fakes.fail("", 0, 0);
    }
}

#[track_caller]
fn refused(settings: &Settings, plan: &[u8], words: &[&str]) {
    let fault = load(settings, plan).expect_err("refused").to_string();
    assert!(words.iter().all(|word| fault.contains(word)), "{fault}");
}

#[test]
fn what_is_missing_is_said_with_where_it_was_looked_for_and_what_to_do() {
    let fakes = machine();
    let good = fakes.settings(Tables::Ten);
    let nowhere = Some("/nowhere/libcuda.so.1".into());
    refused(
        &Settings {
            driver: nowhere,
            ..good.clone()
        },
        PLAN,
        &["no CUDA driver", "/nowhere/libcuda.so.1", "JetPack"],
    );
    let old = Some(fakes.driver_without_graphs.clone());
    refused(
        &Settings {
            driver: old,
            ..good.clone()
        },
        PLAN,
        &["without cuGraphInstantiateWithFlags", "update"],
    );
    let nowhere = Some("/nowhere/libnvinfer.so.10".into());
    refused(
        &Settings {
            tensorrt: nowhere,
            ..good.clone()
        },
        PLAN,
        &["no TensorRT", "/nowhere", "TENDON_TENSORRT_LIB"],
    );
    let other = Some(fakes.driver.clone());
    refused(
        &Settings {
            tensorrt: other,
            ..good.clone()
        },
        PLAN,
        &["expected TensorRT", "without getInferLibVersion"],
    );
    refused(
        &Settings {
            device: 3,
            ..good.clone()
        },
        PLAN,
        &["no CUDA device", "cuDeviceGet"],
    );
    fakes.devices(0);
    refused(&good, PLAN, &["no CUDA device", "/dev/nvmap"]);
    fakes.devices(-1);
    refused(&good, PLAN, &["cuInit", "CUDA_ERROR_NO_DEVICE"]);
}

/// The C library says of such a file that there is none.
#[test]
fn a_library_of_another_machine_is_told_from_one_that_is_missing() {
    let fakes = machine();
    let folder = tempfile::tempdir().expect("a folder");
    let other = |library: PathBuf| {
        let mut bytes = std::fs::read(library).expect("a library");
        // e_machine in the head of an ELF file: RISC-V, which is none of ours.
        bytes[18..20].copy_from_slice(&243_u16.to_le_bytes());
        let path = folder.path().join("other.so");
        std::fs::write(&path, bytes).expect("written");
        Some(path)
    };
    let good = fakes.settings(Tables::Ten);
    let ours = match std::env::consts::ARCH {
        "x86_64" => "for x86-64 with 64 bits",
        "aarch64" => "for AArch64 with 64 bits",
        other => panic!("{other}"),
    };
    let told = ["other.so", "is there", ours, "for RISC-V with 64 bits"];
    let settings = Settings {
        driver: other(fakes.driver.clone()),
        ..good.clone()
    };
    let words = [&["no CUDA driver"][..], &told].concat();
    refused(&settings, PLAN, &words);
    let settings = Settings {
        tensorrt: other(fakes.tensorrt(Tables::Ten)),
        ..good.clone()
    };
    let words = [&["no TensorRT"][..], &told].concat();
    refused(&settings, PLAN, &words);
    // Where there is none, nothing is added.
    let settings = Settings {
        tensorrt: Some(folder.path().join("none.so")),
        ..good
    };
    let fault = load(&settings, PLAN).expect_err("refused").to_string();
    assert!(!fault.contains("is there"), "{fault}");
}

#[test]
fn a_gpu_that_is_older_than_tensorrt_goes_back_is_refused() {
    let fakes = machine();
    let rows = [
        (Tables::Ten, 100_300, (6, 2), Some("7.0")),
        (Tables::Ten, 100_300, (7, 0), None),
        (Tables::Ten, 101_600, (7, 2), Some("7.5")),
        (Tables::Ten, 101_600, (7, 5), None),
        (Tables::Eleven, 110_400, (7, 0), Some("7.5")),
        (Tables::Eleven, 110_400, (12, 0), None),
    ];
    for (tables, version, (major, minor), least) in rows {
        fakes.version(tables, version);
        fakes.compute(major, minor);
        let settings = fakes.settings(tables);
        let Some(least) = least else {
            load(&settings, PLAN).expect("loads");
            continue;
        };
        let words = [
            format!("compute capability {least} or more"),
            format!("found {major}.{minor}"),
            format!("TensorRT {}", version_words(version)),
            "policy.engines".to_owned(),
        ];
        refused(&settings, PLAN, &words.each_ref().map(String::as_str));
    }
}

#[test]
fn a_version_that_nobody_compared_is_refused() {
    let fakes = machine();
    let settings = fakes.settings(Tables::Ten);
    for version in [7103, 8601, 100_000, 100_299, 101_700, 110_500, 120_000, -1] {
        fakes.version(Tables::Ten, version);
        refused(
            &settings,
            PLAN,
            &[
                "expected TensorRT 10.3 to 10.16 or 11.0 to 11.4",
                &version_words(version),
            ],
        );
    }
    for version in [100_300, 101_611] {
        fakes.version(Tables::Ten, version);
        load(&settings, PLAN).expect("loads");
    }
    assert_eq!(version_words(8601), "8.6.1");
    assert_eq!(version_words(101_601), "10.16.1");
}

#[test]
fn a_runtime_that_is_none_is_a_failure_and_not_a_crash() {
    let fakes = machine();
    for tables in BOTH {
        for mode in [1, 2] {
            fakes.runtime(tables, mode);
            let words = [
                "createInferRuntime failed",
                "CUDA initialization failure with error: 35",
            ];
            refused(&fakes.settings(tables), PLAN, &words);
        }
        fakes.runtime(tables, 0);
    }
    assert_eq!(fakes.live().1, 0);
}

#[test]
fn a_plan_that_is_garbage_or_does_not_fit_is_refused_in_words() {
    let fakes = machine();
    let rows: [(&[u8], &[&str]); 15] = [
        (b"", &["deserializeCudaEngine failed", "kMAGIC_TAG"]),
        (
            b"garbage that is longer than eight bytes",
            &["deserializeCudaEngine failed", "kMAGIC_TAG"],
        ),
        (
            b"FAKEPLAN homesick",
            &["createExecutionContext failed", "out of memory"],
        ),
        (
            b"FAKEPLAN renamed",
            &[
                "input picture f32 [1, 3, 2, 2]",
                "has none of that name",
                "image f32",
            ],
        ),
        (
            b"FAKEPLAN few",
            &["expected count i32 [1], found no tensor of that name"],
        ),
        (
            b"FAKEPLAN wide",
            &["expected actions f32 [1, 12], found actions f32 [1, 13]"],
        ),
        (
            b"FAKEPLAN half",
            &["expected actions f32 [1, 12], found actions f16"],
        ),
        (b"FAKEPLAN nameless", &["tensor 0 has no name"]),
        (b"FAKEPLAN modeless", &["neither input nor output"]),
        (b"FAKEPLAN deep", &["99 dimensions"]),
        (
            b"FAKEPLAN dynamic unshaped",
            &["is refused", "outside every profile"],
        ),
        (b"FAKEPLAN endless", &["output shapes do not follow"]),
        (
            b"FAKEPLAN homeless",
            &["its address is refused", "not aligned"],
        ),
        (
            b"FAKEPLAN broken",
            &["enqueueV3 failed", "cask convolution"],
        ),
        (b"FAKEPLAN renamed wide", &["picture", "[1, 13]"]),
    ];
    for tables in BOTH {
        for (plan, words) in rows {
            let before = fakes.live();
            refused(&fakes.settings(tables), plan, words);
            assert_eq!(fakes.live(), before, "{}", String::from_utf8_lossy(plan));
        }
    }
}

/// Fails each of the driver's calls that `whole` makes once, one after the other, with every later one of its kind: an error that names
/// it, and nothing kept. What `whole` gives is why it runs without a recording. How many calls were told.
#[track_caller]
pub fn sweep(fakes: &Fakes, whole: impl Fn(&Fakes) -> Result<Option<String>, String>) -> usize {
    let before = fakes.live();
    fakes.forget();
    assert_eq!(whole(fakes), Ok(None));
    let calls = fakes.calls();
    let last = "cuDevicePrimaryCtxRelease_v2";
    let is_whole = calls.len() > 35 && calls.last().is_some_and(|call| call == last);
    assert!(is_whole, "{} calls: {calls:?}", calls.len());
    assert_eq!(fakes.live(), before);
    let mut told = 0;
    for (index, symbol) in calls.iter().enumerate() {
        let earlier = calls[..index].iter().filter(|call| *call == symbol).count();
        fakes.fail(symbol, earlier as i32, 2);
        let outcome = whole(fakes);
        fakes.fail("", 0, 0);
        fakes.forget();
        let name = symbol
            .trim_end_matches("_v2")
            .trim_end_matches("WithFlags")
            .trim_end_matches("_v2");
        let name = name.trim_end_matches("WithPriority");
        let gives_back = ["Destroy", "Free", "Release", "Unload"]
            .iter()
            .any(|word| symbol.contains(word));
        let optional = symbol.starts_with("cuGraph")
            || symbol.contains("Capture")
            || symbol.contains("HostGetDevicePointer");
        match outcome {
            Err(words) => {
                assert!(
                    words.contains(name) && words.contains("CUDA_ERROR_OUT_OF_MEMORY (2)"),
                    "{symbol}: {words}"
                );
                told += 1;
            }
            // Recording is given up; the engine runs all the same and says why.
            Ok(Some(why)) => assert!(why.contains(name), "{symbol}: {why}"),
            Ok(None) => assert!(
                gives_back || optional || symbol == "cuStreamSynchronize",
                "{symbol} went unseen"
            ),
        }
        assert_eq!(fakes.live(), before, "{symbol}, call {earlier}");
    }
    told
}

/// Of a load and a run of one stage.
#[test]
fn every_refusal_of_the_driver_comes_out_as_an_error_and_leaks_nothing() {
    let fakes = machine();
    for tables in BOTH {
        let told = sweep(&fakes, |fakes| {
            let mut engine =
                load(&fakes.settings(tables), PLAN).map_err(|fault| fault.to_string())?;
            let mut found = outputs();
            engine
                .run(&inputs(0.0), &mut found)
                .map_err(|fault| fault.to_string())?;
            Ok(engine.plain().map(str::to_owned))
        });
        assert!(told > 20, "{tables:?}: {told}");
    }
}

/// Runs it so often while this call of driver or library is refused; what it says last.
#[track_caller]
fn failing(fakes: &Fakes, engine: &mut TensorRt, (call, code): (&str, i32), runs: usize) -> String {
    let mut said = String::new();
    fakes.fail(call, 0, code);
    for _ in 0..runs {
        let fault = engine.run(&inputs(0.0), &mut outputs());
        said = fault.expect_err("refused").to_string();
    }
    fakes.fail("", 0, 0);
    said
}

/// Whatever is said of them: a GPU that fails every run is of no use to this process.
#[test]
fn three_failed_runs_in_a_row_end_the_engine_and_two_do_not() {
    let fakes = machine();
    for tables in BOTH {
        let recorded = (PLAN, ("cuEventSynchronize", 999), "unknown error (999)");
        let plain: &[u8] = b"FAKEPLAN restless";
        let plain = (plain, ("enqueueV3", 2), "enqueueV3 failed");
        for (plan, refused, words) in [recorded, plain] {
            let before = fakes.live();
            let mut engine = load(&fakes.settings(tables), plan).expect("loads");
            let mut found = outputs();
            for seed in [1.0, 2.0] {
                failing(&fakes, &mut engine, refused, 2);
                assert!(!engine.lost());
                engine.run(&inputs(seed), &mut found).expect("runs again");
                right(&found, seed);
            }
            // What does not fit is the caller's fault, and counts for nothing.
            for _ in 0..4 {
                let wrong = [Tensor::F32(vec![0.0; 11]), inputs(0.0)[1].clone()];
                engine.run(&wrong, &mut found).expect_err("refused");
            }
            assert!(!engine.lost());
            let said = failing(&fakes, &mut engine, refused, 3);
            assert!(said.contains(words) && engine.lost(), "{said}");
            let said = engine.run(&inputs(0.0), &mut found);
            let said = said.expect_err("lost for good").to_string();
            for words in [words, "3 runs in a row", "started again"] {
                assert!(said.contains(words), "{words}: {said}");
            }
            drop(engine);
            assert_eq!(fakes.live(), before);
        }
    }
}

/// TensorRT refuses without a code, where no recorded graph is that the driver would refuse: the driver is asked.
#[test]
fn a_context_that_is_lost_in_tensorrts_own_call_ends_the_engine_at_once() {
    let fakes = machine();
    for tables in BOTH {
        let mut engine = load(&fakes.settings(tables), b"FAKEPLAN restless").expect("loads");
        assert!(engine.plain().is_some());
        let said = failing(&fakes, &mut engine, ("enqueueV3", 700), 1);
        assert!(said.contains("ILLEGAL_ADDRESS (700)"), "{said}");
        assert!(engine.lost());
        let said = engine.run(&inputs(0.0), &mut outputs());
        let said = said.expect_err("lost for good").to_string();
        assert!(said.contains("started again"), "{said}");
    }
}

#[test]
fn an_error_that_sticks_ends_the_engine_and_one_that_does_not_ends_one_run() {
    let fakes = machine();
    let mut engine = load(&fakes.settings(Tables::Eleven), PLAN).expect("loads");
    let mut found = outputs();
    fakes.fail("cuEventSynchronize", 0, 2);
    let fault = engine
        .run(&inputs(0.0), &mut found)
        .expect_err("fails")
        .to_string();
    assert!(fault.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{fault}");
    fakes.fail("", 0, 0);
    engine.run(&inputs(5.0), &mut found).expect("runs again");
    right(&found, 5.0);
    assert!(!engine.lost());
    fakes.fail("cuEventSynchronize", 0, 700);
    engine.run(&inputs(0.0), &mut found).expect_err("fails");
    fakes.fail("", 0, 0);
    let fault = engine
        .run(&inputs(0.0), &mut found)
        .expect_err("lost for good")
        .to_string();
    assert!(
        fault.contains("ILLEGAL_ADDRESS") && fault.contains("started again") && engine.lost(),
        "{fault}"
    );
}

#[test]
fn tensors_that_do_not_fit_are_refused_before_the_device_sees_them() {
    let fakes = machine();
    let mut engine = load(&fakes.settings(Tables::Ten), PLAN).expect("loads");
    fakes.forget();
    let mut found = outputs();
    let [image, tokens] = inputs(0.0);
    let swapped = [tokens.clone(), image.clone()];
    let short = [Tensor::F32(vec![0.0; 11]), tokens.clone()];
    for wrong in [&swapped[..], &short[..], &[image.clone()][..]] {
        let fault = engine
            .run(wrong, &mut found)
            .expect_err("refused")
            .to_string();
        assert!(fault.starts_with("expected "), "{fault}");
    }
    assert!(!fakes.calls().contains(&"cuGraphLaunch".to_owned()));
    let fault = engine
        .run(&[image, tokens], &mut found[..1])
        .expect_err("refused")
        .to_string();
    assert!(fault.contains("2 inputs and 2 outputs"), "{fault}");
}

#[test]
fn an_engine_can_be_looked_into() {
    let fakes = machine();
    for tables in BOTH {
        let mut engine = load(&fakes.settings(tables), PLAN).expect("loads");
        let session = engine.session();
        assert_eq!(
            session.inspect().as_deref(),
            Some("{\"Layers\": [\"conv1\", \"matmul2\"]}")
        );
        assert_eq!(session.device_memory(), 48 << 20);
        let said = session.messages().all();
        assert!(said.iter().all(|(severity, _)| *severity <= 3), "{said:?}");
        assert_eq!(
            engine.profile(),
            Ok(vec!["0.2500 conv1".to_owned(), "0.5000 matmul2".to_owned()])
        );
    }
    assert_eq!(fakes.live().1, 0);
}

/// What a device that shares the host's memory is asked at load: which kind is faster on this engine.
#[test]
fn the_faster_kind_of_memory_is_found_and_both_give_the_answer() {
    let fakes = machine();
    // Two tensors in and two out: each costs this much one way or the other.
    const SLOW_US: i32 = 2_000;
    for tables in BOTH {
        for (copy_us, touch_us, chosen) in
            [(SLOW_US, 0, Memory::Mapped), (0, SLOW_US, Memory::Copied)]
        {
            let before = fakes.live();
            let platform = Platform::find(&fakes.settings(tables)).expect("the fakes");
            let mut engine = TensorRt::load(&platform, PLAN.to_vec(), &spec()).expect("loads");
            fakes.slow(copy_us, touch_us);
            let trial = engine.choose_memory(&platform.device, clock::now);
            fakes.slow(0, 0);
            let trial = trial.expect("runs").expect("is tried");
            let mapped_us = trial.mapped_us.clone().expect("runs mapped");
            let slower = trial.copied_us.max(mapped_us);
            assert_eq!(trial.chosen, chosen, "{tables:?}: {trial}");
            assert!(slower >= f64::from(4 * SLOW_US), "{tables:?}: {trial}");
            let mut found = outputs();
            fakes.forget();
            fakes.moved();
            engine.run(&inputs(3.0), &mut found).expect("runs");
            right(&found, 3.0);
            let copied = fakes.moved().into > 0;
            assert_eq!(copied, chosen == Memory::Copied, "{tables:?}: {trial}");
            let calls = ["cuGraphLaunch", "cuEventRecord", "cuEventSynchronize"];
            assert_eq!(fakes.calls(), calls, "{tables:?}: {trial}");
            drop((engine, platform));
            assert_eq!(fakes.live(), before, "{tables:?}: {trial}");
        }
    }
}

#[test]
fn an_engine_that_does_not_run_mapped_runs_copied_and_says_why() {
    let fakes = machine();
    for tables in BOTH {
        let platform = Platform::find(&fakes.settings(tables)).expect("the fakes");
        let picky = b"FAKEPLAN picky".to_vec();
        let mut engine = TensorRt::load(&platform, picky, &spec()).expect("loads");
        let trial = engine.choose_memory(&platform.device, clock::now);
        let trial = trial.expect("runs copied").expect("is tried");
        assert_eq!(trial.chosen, Memory::Copied);
        let words = trial.to_string();
        for part in ["memory copied", "does not run", "its address is refused"] {
            assert!(words.contains(part), "{words}");
        }
        let mut found = outputs();
        engine.run(&inputs(2.0), &mut found).expect("runs");
        right(&found, 2.0);
    }
}

#[test]
fn on_a_device_with_memory_of_its_own_nothing_is_tried() {
    let fakes = machine();
    fakes.shares(false);
    let platform = Platform::find(&fakes.settings(Tables::Ten)).expect("the fakes");
    let mut engine = TensorRt::load(&platform, PLAN.to_vec(), &spec()).expect("loads");
    fakes.forget();
    let tried = engine.choose_memory(&platform.device, clock::now);
    assert_eq!(tried, Ok(None));
    assert_eq!(fakes.calls(), [""; 0]);
}

/// A loop that does what one run did and nothing else: the same launches and waits, and as many bytes given and taken.
#[test]
fn a_bare_loop_does_what_a_run_did() {
    let fakes = machine();
    for tables in BOTH {
        let platform = Platform::find(&fakes.settings(tables)).expect("the fakes");
        let mut engine = TensorRt::load(&platform, PLAN.to_vec(), &spec()).expect("loads");
        let mut found = outputs();
        platform.listen();
        engine.run(&inputs(1.0), &mut found).expect("runs");
        let mut bare = platform.heard().expect("was recorded");
        assert_eq!(bare.launches(), 1);
        for bytes in [false, true] {
            fakes.forget();
            fakes.moved();
            let ran = if bytes { bare.run() } else { bare.replay() };
            ran.expect("runs");
            let calls = ["cuGraphLaunch", "cuEventRecord", "cuEventSynchronize"];
            assert_eq!(fakes.calls(), calls);
            // An image of twelve and four tokens of eight bytes in; twelve actions and a count out.
            let moved = fakes.moved();
            assert_eq!((moved.into, moved.out), (48 + 32, 48 + 4));
        }
        // What the engine has in its memory is as it was.
        engine.run(&inputs(6.0), &mut found).expect("runs");
        right(&found, 6.0);
        let nothing = platform.heard().expect_err("nobody listened");
        assert!(nothing.to_string().contains("bare loop"), "{nothing}");
        let plain = b"FAKEPLAN restless".to_vec();
        let mut engine = TensorRt::load(&platform, plain, &spec()).expect("loads");
        platform.listen();
        engine.run(&inputs(1.0), &mut found).expect("runs");
        let unrecorded = platform.heard().expect_err("it was not recorded");
        assert!(unrecorded.to_string().contains("recorded"), "{unrecorded}");
    }
}

#[test]
fn an_error_is_heard_by_recorder_or_logger_and_silence_is_noticed() {
    let fakes = machine();
    for tables in BOTH {
        let heard = |garbage: &str| {
            let library = Library::open(Some(&fakes.tensorrt(tables))).expect("the fake");
            let session = Session::runtime(&Arc::new(library)).expect("a runtime");
            let messages = session.messages();
            let fault = session.read(garbage.into()).expect_err("refused");
            heard::the_error(&messages.all(), messages.recorded(), &fault.to_string())
        };
        let by = |recorded, logged| Ok(Heard { recorded, logged });
        assert_eq!(heard("garbage"), by(1, 1), "{tables:?}");
        assert_eq!(heard("garbage, unlogged"), by(1, 0), "{tables:?}");
        assert_eq!(heard("garbage, unrecorded"), by(0, 1), "{tables:?}");
        heard("garbage, mute").expect_err("nobody was told");
    }
    let told = [(1, "no plan".to_owned()), (3, "a line".to_owned())];
    heard::the_error(&told, 1, "says: nothing").expect_err("it has other words");
    heard::the_error(&told[1..], 0, "says: a line").expect_err("that is no error");
}

/// A call that succeeds may have warned, or recorded an error and gone another way.
#[test]
fn what_tensorrt_remarks_while_its_calls_succeed_is_told_once() {
    let fakes = machine();
    for tables in BOTH {
        let platform = Platform::find(&fakes.settings(tables)).expect("the fakes");
        let mut engine = load(&fakes.settings(tables), b"FAKEPLAN grumbles").expect("loads");
        let said = engine.remarks();
        let [warning, error] = &said[..] else {
            panic!("{tables:?}: {said:?}");
        };
        assert!(warning.starts_with("warning: Using an engine plan file"));
        assert!(error.starts_with("error: enqueueV3: Error Code 9"));
        // Every turn of the trial runs and records anew, and says the same again.
        let trial = engine.choose_memory(&platform.device, clock::now);
        trial.expect("runs").expect("is tried");
        let mut found = outputs();
        engine.run(&inputs(1.0), &mut found).expect("runs");
        right(&found, 1.0);
        assert_eq!(engine.remarks(), [""; 0], "{tables:?}");
        let quiet = load(&fakes.settings(tables), PLAN).expect("loads");
        assert_eq!(quiet.remarks(), [""; 0], "{tables:?}");
    }
}

#[test]
fn the_release_of_jetson_linux_is_part_of_what_a_plan_is_for() {
    let fakes = machine();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("nv_tegra_release");
    std::fs::write(&file, "# R36 (release), REVISION: 4.3, GCID: 1\n").expect("written");
    let found = |file: PathBuf| {
        let settings = Settings {
            jetson_release: Some(file),
            ..fakes.settings(Tables::Ten)
        };
        Platform::find(&settings).expect("the fakes").identity()
    };
    let target = found(file);
    assert_eq!(target.jetson_linux.as_deref(), Some("R36.4.3"));
    assert_eq!((target.multiprocessors, target.memory_gib), (8, 16));
    assert_eq!(found("/nowhere/release".into()).jetson_linux, None);
}
