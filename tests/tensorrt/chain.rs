// SPDX-License-Identifier: Apache-2.0
//! Stages that hand their tensors on where they are, and loops that run whole: the families' own bundles over the fakes, whose
//! engines compute what the processor computes, so that every fixture must hold and every bit must be the same.

use crate::fake::{BOTH, Fakes, Moved, Tables, machine, plan_of};
use crate::path::sweep;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use tendon::config::Precision;
use tendon::engine::cpu::{CpuEngine, CpuOptions};
use tendon::engine::tensorrt::{Memory, Platform, Settings, TensorRt};
use tendon::policy::LoadOptions;
use tendon::policy::staged::{Fault, Observation, Staged};
use tendon::ports::{Dtype, Engine, EngineFault, Lent, PictureWay, StageSpec, Tensor, TensorSpec};
use tendon::runtime::clock;
use tendon::runtime::realtime::allocations_of_this_thread;

/// Family, tensors that go from stage to stage on the device, whether its loop runs there whole, and launches of an inference.
pub const FAMILIES: [(&str, usize, bool, u64); 13] = [
    ("act", 0, false, 1),
    ("clip", 2, false, 1),
    ("diffusion", 1, true, 1),
    ("groot", 2, true, 1),
    // It draws noise at each of its twenty steps.
    ("octo", 2, false, 20),
    // Patches; then the cache, from the prompt's pass and from token to token: one launch for each of seven.
    ("openvla", 2, false, 7),
    ("openvla_oft", 2, false, 1),
    ("pi0", 5, true, 1),
    ("pi0_fast", 2, false, 12),
    ("planner", 2, false, 4),
    // A ring is the host's.
    ("rt1", 0, false, 2),
    ("smolvla", 5, true, 1),
    ("vqbet", 1, false, 1),
];

fn folder(family: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/families").join(family)
}

pub fn cpu(path: &Path, spec: &StageSpec) -> Result<Box<dyn Engine>, EngineFault> {
    let engine = CpuEngine::load(path, spec, CpuOptions::default())?;
    Ok(Box::new(engine))
}

/// How a stage is put on the fake device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Chained,
    /// It takes pictures, and hands nothing on.
    Apart,
    /// Nothing can be recorded.
    Plain,
    /// What is in the loop cannot.
    PlainLoop,
}

struct Apart(TensorRt);

impl Engine for Apart {
    fn inputs(&self) -> &[TensorSpec] {
        self.0.inputs()
    }

    fn outputs(&self) -> &[TensorSpec] {
        self.0.outputs()
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        self.0.run(inputs, outputs)
    }

    fn take_picture(&mut self, input: usize, way: &PictureWay) -> Result<bool, EngineFault> {
        self.0.take_picture(input, way)
    }

    fn picture(&mut self, input: usize) -> Option<&mut [u8]> {
        self.0.picture(input)
    }
}

/// Loads a bundle onto the fake device, its fixture included.
#[track_caller]
fn load(settings: &Settings, bundle: &Path, way: Way) -> Staged {
    load_on(&Platform::find(settings).expect("the fakes"), bundle, way)
}

#[track_caller]
pub fn load_on(platform: &Platform, bundle: &Path, way: Way) -> Staged {
    let engine = |path: &Path, spec: &StageSpec| -> Result<Box<dyn Engine>, EngineFault> {
        let plain = way == Way::Plain
            || way == Way::PlainLoop && ["expert", "decode"].contains(&spec.id.as_str());
        let words = if plain { "restless" } else { "" };
        let plan = plan_of(spec, cpu(path, spec)?, words);
        let engine = TensorRt::load(platform, plan, spec);
        let engine = engine.map_err(|fault| EngineFault(fault.to_string()))?;
        Ok(match way {
            Way::Apart => Box::new(Apart(engine)),
            Way::Chained | Way::Plain | Way::PlainLoop => Box::new(engine),
        })
    };
    Staged::load(bundle, LoadOptions::default(), &engine)
        .unwrap_or_else(|problems| panic!("{} {way:?}: {problems:?}", bundle.display()))
}

fn on_the_processor(bundle: &Path) -> Staged {
    Staged::load(bundle, LoadOptions::default(), &cpu).expect("a bundle")
}

/// What it answered: chunk, sentence, spread.
pub type Said = (Vec<f32>, String, Vec<f32>);

/// Asks with pictures and noise of this seed.
pub fn ask(policy: &mut Staged, seed: usize) -> Result<Said, Fault> {
    let picture = |[width, height]: [usize; 2]| -> Vec<u8> {
        let bytes = (0..width * height * 3).map(|at| ((at * 7 + seed * 31) % 251) as u8);
        bytes.collect()
    };
    let file = policy.file();
    let sizes = file.cameras.iter().map(|camera| camera.source_size);
    let pictures: Vec<Vec<u8>> = sizes.map(picture).collect();
    let shown: Vec<Option<&[u8]>> = pictures.iter().map(|picture| Some(&picture[..])).collect();
    let joints = file.state.as_ref().map_or(0, |state| state.names.len());
    let state: Vec<f32> = (0..joints).map(|at| 0.01 * (at + seed) as f32).collect();
    let noise: Vec<f32> = (0..policy.noise_len())
        .map(|at| ((at * 13 + seed * 5) % 17) as f32 / 17.0)
        .collect();
    let seen = Observation {
        captured_ns: seed as u64 * 100_000_000,
        pictures: &shown,
        state: &state,
    };
    let answer = policy.infer(&seen, Some(&noise), None)?;
    let (chunk, sentence) = (answer.chunk.to_vec(), answer.sentence.to_owned());
    Ok((chunk, sentence, answer.spread.to_vec()))
}

/// Two sentences that a family understands.
const SENTENCES: [(&str, [&str; 2]); 4] = [
    ("clip", ["Pick up the red cube", "open the drawer"]),
    (
        "octo",
        ["open the drawer", "put the blue block in the bowl"],
    ),
    ("openvla", ["Pick up the red cube", "open the drawer"]),
    ("pi0", ["Pick up the red cube", "open the drawer"]),
];

pub fn instruct(policy: &mut Staged) {
    let sentence = policy.some_sentence();
    policy.set_instruction(&sentence).expect("a sentence");
}

/// Some observations, bit by bit as the processor has them; what the last one moved.
#[track_caller]
fn same(fakes: &Fakes, device: &mut Staged, host: &mut Staged, what: &str) -> Moved {
    for policy in [&mut *device, &mut *host] {
        policy.reset();
        instruct(policy);
    }
    for seed in 0..4 {
        fakes.moved();
        let (found, expected) = (ask(device, seed), ask(host, seed));
        assert_eq!(found, expected, "{what}, observation {seed}");
    }
    fakes.moved()
}

#[test]
fn stages_hand_on_where_they_are_and_every_bit_is_the_processors() {
    let fakes = machine();
    for (family, chained, whole, launches) in FAMILIES {
        let mut host = on_the_processor(&folder(family));
        for (tables, memory) in [
            (Tables::Ten, Memory::Copied),
            (Tables::Eleven, Memory::Mapped),
        ] {
            let before = fakes.live();
            let settings = Settings {
                memory,
                ..fakes.settings(tables)
            };
            let what = format!("{family} {tables:?} {memory:?}");
            let mut together = load(&settings, &folder(family), Way::Chained);
            assert_eq!(together.chained(), chained, "{what}");
            assert_eq!(together.loops_whole(), whole, "{what}");
            let near = same(&fakes, &mut together, &mut host, &what);
            assert_eq!(together.copied_bytes() > 0, family == "rt1", "{what}");
            let mut apart = load(&settings, &folder(family), Way::Apart);
            assert!(apart.chained() == 0 && !apart.loops_whole());
            let far = same(&fakes, &mut apart, &mut host, &what);
            let spared = (far.into + far.out) as i64 - (near.into + near.out) as i64;
            println!("{what}: {near:?}, {spared} bytes less");
            if memory == Memory::Copied {
                assert_eq!(spared > 0, chained > 0, "{what}");
            }
            assert_eq!(near.launches, launches, "{what}");
            drop((together, apart));
            assert_eq!(fakes.live(), before, "{what}: something was not given back");
        }
    }
}

/// What a stage hands on stays on the device whichever kind of memory suits the rest of it, which is tried when the chain is made: every
/// bit is the processor's with either.
#[test]
fn the_kind_of_memory_is_chosen_when_the_chain_is_made() {
    // In the loop the sample is copied with either kind; the state is a copy more, or is touched at each of ten steps.
    const SLOW_US: i32 = 5_000;
    let fakes = machine();
    let mut host = on_the_processor(&folder("pi0"));
    for (copy_us, touch_us, chosen) in [(SLOW_US, 0, Memory::Mapped), (0, SLOW_US, Memory::Copied)]
    {
        let before = fakes.live();
        let platform = Platform::find(&fakes.settings(Tables::Ten)).expect("the fakes");
        let (tell, told) = mpsc::channel();
        let engine = |path: &Path, spec: &StageSpec| -> Result<Box<dyn Engine>, EngineFault> {
            let plan = plan_of(spec, cpu(path, spec)?, "");
            let engine = TensorRt::load(&platform, plan, spec);
            let mut engine = engine.map_err(|fault| EngineFault(fault.to_string()))?;
            let (stage, tell) = (spec.id.clone(), tell.clone());
            engine.choose_at_last(&platform.device, clock::now, move |_, trial| {
                tell.send((stage, trial.cloned()))
                    .expect("somebody listens");
            });
            Ok(Box::new(engine))
        };
        fakes.slow(copy_us, touch_us);
        let policy = Staged::load(&folder("pi0"), LoadOptions::default(), &engine);
        fakes.slow(0, 0);
        let mut policy = policy.unwrap_or_else(|problems| panic!("{problems:?}"));
        assert!(policy.chained() == 5 && policy.loops_whole());
        let mut stages = Vec::new();
        for (stage, trial) in told.try_iter() {
            let trial = trial.expect("is tried");
            assert_eq!(trial.chosen, chosen, "{stage}: {trial}");
            stages.push(stage);
        }
        assert_eq!(stages, ["prefix", "expert"]);
        let what = format!("{chosen:?}, chosen");
        let moved = same(&fakes, &mut policy, &mut host, &what);
        assert_eq!(moved.launches, 1, "{what}");
        drop((policy, platform));
        assert_eq!(fakes.live(), before, "{what}: something was not given back");
    }
}

/// What a bare loop does again of an inference: its launches, its kernels and every byte that moves, whatever the family.
#[test]
fn a_bare_loop_does_again_what_an_inference_did() {
    let fakes = machine();
    for (family, _, _, launches) in FAMILIES {
        let platform = Platform::find(&fakes.settings(Tables::Ten)).expect("the fakes");
        let mut policy = load_on(&platform, &folder(family), Way::Chained);
        instruct(&mut policy);
        for seed in 0..3 {
            ask(&mut policy, seed).expect("answers");
        }
        fakes.moved();
        platform.listen();
        ask(&mut policy, 3).expect("answers");
        let once = fakes.moved();
        let mut bare = platform.heard().expect("was recorded");
        assert_eq!(
            (once.launches, bare.launches() as u64),
            (launches, launches),
            "{family}"
        );
        for _ in 0..2 {
            bare.run().expect("runs");
            assert_eq!(fakes.moved(), once, "{family}");
            bare.replay().expect("runs");
            assert_eq!(fakes.moved(), once, "{family}");
        }
        ask(&mut policy, 4).expect("answers all the same");
    }
}

/// pi0's own numbers: what cameras, sentence, robot and dice say goes in, the sample comes out, and nothing else moves.
#[test]
fn an_inference_is_one_launch_and_a_prefix_cache_never_leaves_the_device() {
    let fakes = machine();
    let mut policy = load(&fakes.settings(Tables::Ten), &folder("pi0"), Way::Chained);
    instruct(&mut policy);
    for seed in 0..4 {
        fakes.forget();
        fakes.moved();
        ask(&mut policy, seed).expect("an answer");
    }
    let [width, height] = policy.file().cameras[0].source_size;
    // The first camera cannot be missing, so the device makes its tensor; with two others, three marks, words and their mask.
    let prefix = width * height * 3 + 2 * 28 * 28 * 3 * 4 + 3 * 4 + 24 * 8 + 24 * 4;
    let sample = 6 * 32 * 4;
    assert_eq!(
        fakes.moved(),
        Moved {
            into: (prefix + sample + 32 * 4) as u64,
            out: sample as u64,
            // Ten times.
            within: 10 * 4,
            launches: 1,
            kernels: 1 + 10,
        }
    );
    assert_eq!(
        fakes.calls(),
        ["cuGraphLaunch", "cuEventRecord", "cuEventSynchronize"]
    );
}

/// From token to token the cache goes from output to input within the device.
#[test]
fn a_cache_that_grows_with_each_token_is_carried_on_the_device() {
    let fakes = machine();
    let settings = fakes.settings(Tables::Ten);
    let mut policy = load(&settings, &folder("openvla"), Way::Chained);
    instruct(&mut policy);
    for seed in 0..2 {
        fakes.moved();
        ask(&mut policy, seed).expect("an answer");
    }
    let moved = fakes.moved();
    // Seven tokens, the first of the prompt's pass.
    assert_eq!(moved.within, 6 * 4 * 59 * 8 * 4);
    assert_eq!(moved.out, 7 * 576 * 4);
}

/// A copy of a family's bundle with a changed manifest.
pub fn copy(family: &str, change: impl FnOnce(&mut Value)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for entry in std::fs::read_dir(folder(family)).expect("the bundle") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, dir.path().join(path.file_name().expect("a name"))).expect("a copy");
    }
    let path = dir.path().join("manifest.json");
    let bytes = std::fs::read(&path).expect("a manifest");
    let mut manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
    change(&mut manifest["tendon"]);
    std::fs::write(&path, manifest.to_string()).expect("written");
    dir
}

/// Of a stage that was not worth eight bits runs what has 16, where the engine takes them; the processor's does not.
#[test]
fn a_stage_without_eight_bits_runs_in_sixteen_and_where_those_are_refused_in_thirty_two() {
    let fakes = machine();
    let root = folder("smolvla");
    // The graphs of the two stages once more, each by another name and with other bytes.
    let added = [
        (0_usize, "fp16", "prefix.onnx", "half.onnx"),
        (1, "int8", "expert.onnx", "eight.onnx"),
    ];
    let bundle = copy("smolvla", |file| {
        for (stage, precision, own, name) in added {
            let onnx = &mut file["stages"][stage]["onnx"];
            assert_eq!(onnx["fp32"], own);
            onnx[precision] = json!(name);
            file["sha256"][name] = json!(hash(&renamed(&root.join(own))));
        }
    });
    for (_, _, own, name) in added {
        std::fs::write(bundle.path().join(name), renamed(&root.join(own))).expect("written");
    }
    let platform = Platform::find(&fakes.settings(Tables::Ten)).expect("the fakes");
    let options = LoadOptions {
        precision: Precision::Int8,
        ..LoadOptions::default()
    };
    // Which graph each stage was loaded from, by an engine that refuses some.
    let loaded = |refused: &[&str]| -> Result<Vec<String>, String> {
        let taken = RefCell::new(Vec::new());
        let engine = |path: &Path, spec: &StageSpec| -> Result<Box<dyn Engine>, EngineFault> {
            let name = path.file_name().expect("a file").to_string_lossy();
            if refused.contains(&&*name) {
                return Err(EngineFault(format!("no {name} here")));
            }
            let plan = plan_of(spec, cpu(path, spec)?, "");
            let engine = TensorRt::load(&platform, plan, spec);
            let engine = engine.map_err(|fault| EngineFault(fault.to_string()))?;
            taken.borrow_mut().push(name.into_owned());
            Ok(Box::new(engine))
        };
        let policy = Staged::load(bundle.path(), options, &engine);
        policy.map_err(|problems| format!("{problems:?}"))?;
        Ok(taken.into_inner())
    };
    let graphs =
        |names: [&str; 2]| -> Result<Vec<String>, String> { Ok(names.map(str::to_owned).to_vec()) };
    assert_eq!(loaded(&[]), graphs(["half.onnx", "eight.onnx"]));
    assert_eq!(
        loaded(&["half.onnx"]),
        graphs(["prefix.onnx", "eight.onnx"])
    );
    // Where nothing stands for it, what spoke against the first is said; what is there as asked for is not passed over.
    for (refused, words) in [
        (&["half.onnx", "prefix.onnx"][..], "no half.onnx here"),
        (&["eight.onnx"][..], "no eight.onnx here"),
    ] {
        let said = loaded(refused).expect_err("refused");
        assert!(said.contains(words), "{said}");
        assert_eq!(said.matches(" here").count(), 1, "{said}");
    }
}

/// A graph's bytes with another producer.
fn renamed(graph: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(graph).expect("a graph");
    bytes.extend_from_slice(b"\x12\x05other");
    bytes
}

pub fn hash(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_loop_that_somebody_looks_into_goes_step_by_step_and_one_that_is_run_again_does_not() {
    let fakes = machine();
    let settings = fakes.settings(Tables::Ten);
    let onward = copy("pi0", |file| {
        file["loop"]["rtc"] = json!({"flavour": "identity"});
    });
    let mut host = on_the_processor(onward.path());
    let mut policy = load(&settings, onward.path(), Way::Chained);
    assert!(!policy.loops_whole() && policy.chained() == 5);
    // The prefix goes with the first step.
    let moved = same(&fakes, &mut policy, &mut host, "real-time chunking");
    assert_eq!((moved.launches, moved.within), (10, 0));
    let unsure = copy("smolvla", |file| {
        let names = file["action"]["names"].as_array().expect("names").len();
        file["uncertainty"] = json!({"count": 4, "spread_max": vec![1.0; names]});
    });
    let mut host = on_the_processor(unsure.path());
    let mut policy = load(&settings, unsure.path(), Way::Chained);
    assert!(policy.loops_whole());
    let moved = same(&fakes, &mut policy, &mut host, "four answers");
    assert_eq!(moved.launches, 4, "the prefix goes with the first answer");
}

#[test]
fn what_cannot_be_recorded_or_joined_is_chained_all_the_same() {
    let fakes = machine();
    let settings = fakes.settings(Tables::Ten);
    for (family, way, launches) in [
        ("smolvla", Way::Plain, 0),
        ("openvla", Way::Plain, 0),
        ("smolvla", Way::PlainLoop, 1),
        ("openvla", Way::PlainLoop, 1),
    ] {
        let mut host = on_the_processor(&folder(family));
        let mut policy = load(&settings, &folder(family), way);
        assert!(policy.chained() > 0);
        let moved = same(&fakes, &mut policy, &mut host, family);
        assert_eq!(moved.launches, launches, "{family} {way:?}");
    }
    for call in ["cuGraphCreate", "cuGraphAddChildGraphNode"] {
        fakes.fail(call, 0, 801);
        let mut host = on_the_processor(&folder("smolvla"));
        let mut policy = load(&settings, &folder("smolvla"), Way::Chained);
        let moved = same(&fakes, &mut policy, &mut host, call);
        assert_eq!(moved.launches, 2);
        fakes.fail("", 0, 0);
    }
}

/// Each call of the driver in the middle of a chain, refused: that inference fails, and the next is right, also where a stage
/// runs once an instruction only, and the failing inference is the first to hear of it.
#[test]
fn a_failure_in_the_middle_costs_one_inference_and_no_kept_tensor() {
    let fakes = machine();
    for (family, sentences) in SENTENCES {
        let mut host = on_the_processor(&folder(family));
        let settings = fakes.settings(Tables::Eleven);
        let mut policy = load(&settings, &folder(family), Way::Chained);
        let instruct = |policy: &mut Staged, turn: usize| {
            policy
                .set_instruction(sentences[turn % 2])
                .expect("a sentence");
        };
        // Both see the same, also what becomes of nothing: Octo remembers a picture.
        for seed in 0..3 {
            instruct(&mut host, seed);
            ask(&mut host, seed).expect("an answer");
            instruct(&mut policy, seed);
            fakes.forget();
            ask(&mut policy, seed).expect("an answer");
        }
        let calls = fakes.calls();
        assert!(calls.len() >= 3, "{calls:?}");
        // Octo's later steps are as its first.
        for (index, symbol) in calls.iter().enumerate().take(9) {
            instruct(&mut policy, index + 1);
            instruct(&mut host, index + 1);
            ask(&mut host, index).expect("an answer");
            let earlier = calls[..index].iter().filter(|call| *call == symbol).count();
            fakes.fail(symbol, earlier as i32, 2);
            let said = ask(&mut policy, index).expect_err("refused").to_string();
            fakes.fail("", 0, 0);
            let named = said.contains("stage \"") && said.contains("OUT_OF_MEMORY");
            assert!(named && !policy.lost(), "{family}: {said}");
            for seed in [index + 1, index + 2] {
                let (found, expected) = (ask(&mut policy, seed), ask(&mut host, seed));
                assert_eq!(found, expected, "{family}, {symbol} {earlier}");
            }
        }
    }
}

/// The same of all that comes before: two stages loaded, chained and recorded, a loop that runs whole, a picture made on the device,
/// the fixture, an answer, and all given back.
#[test]
fn every_refusal_while_a_chain_is_made_is_told_and_leaks_nothing() {
    let fakes = machine();
    // What computes for a stage is made once: the device is what is tried here.
    let plans: RefCell<HashMap<String, Vec<u8>>> = RefCell::default();
    let told = sweep(&fakes, |fakes| {
        let settings = fakes.settings(Tables::Eleven);
        let platform = Platform::find(&settings).map_err(|fault| fault.to_string())?;
        let engine = |path: &Path, spec: &StageSpec| -> Result<Box<dyn Engine>, EngineFault> {
            let known = plans.borrow().get(&spec.id).cloned();
            let plan = match known {
                Some(plan) => plan,
                None => {
                    let plan = plan_of(spec, cpu(path, spec)?, "");
                    plans.borrow_mut().insert(spec.id.clone(), plan.clone());
                    plan
                }
            };
            let engine = TensorRt::load(&platform, plan, spec);
            let engine = engine.map_err(|fault| EngineFault(fault.to_string()))?;
            Ok(Box::new(engine))
        };
        let policy = Staged::load(&folder("pi0"), LoadOptions::default(), &engine);
        let mut policy = policy.map_err(|problems| {
            let words: Vec<String> = problems.iter().map(ToString::to_string).collect();
            words.join("; ")
        })?;
        instruct(&mut policy);
        ask(&mut policy, 0).map_err(|fault| fault.to_string())?;
        assert!(policy.chained() == 5 && policy.loops_whole());
        Ok(None)
    });
    assert!(told > 80, "{told}");
}

#[test]
fn a_lost_context_ends_the_whole_chain() {
    let fakes = machine();
    let mut policy = load(&fakes.settings(Tables::Ten), &folder("pi0"), Way::Chained);
    instruct(&mut policy);
    ask(&mut policy, 0).expect("an answer");
    // The prefix is not waited for: what happens to it shows where the loop is.
    fakes.fail("cuEventSynchronize", 0, 700);
    let said = ask(&mut policy, 1).expect_err("lost").to_string();
    fakes.fail("", 0, 0);
    let named = said.contains("stage \"expert\"") && said.contains("ILLEGAL_ADDRESS");
    assert!(named && policy.lost(), "{said}");
    let said = ask(&mut policy, 2).expect_err("for good").to_string();
    assert!(said.contains("started again"), "{said}");
}

/// Adds one to each number.
struct AddOne(StageSpec);

impl Engine for AddOne {
    fn inputs(&self) -> &[TensorSpec] {
        &self.0.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.0.outputs
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        for (input, output) in inputs.iter().zip(outputs) {
            match (input, output) {
                (Tensor::F32(from), Tensor::F32(into)) => {
                    into.iter_mut().zip(from).for_each(|(a, b)| *a = b + 1.0);
                }
                (Tensor::I32(from), Tensor::I32(into)) => {
                    into.iter_mut().zip(from).for_each(|(a, b)| *a = b + 1);
                }
                _ => return Err(EngineFault("types".into())),
            }
        }
        Ok(())
    }
}

fn adder(platform: &Platform, dtype: Dtype, values: usize) -> TensorRt {
    let tensor = |name: &str| TensorSpec {
        name: name.into(),
        dtype,
        shape: vec![values],
    };
    let spec = StageSpec {
        id: "add".into(),
        inputs: vec![tensor("from")],
        outputs: vec![tensor("to")],
    };
    let plan = plan_of(&spec, Box::new(AddOne(spec.clone())), "");
    TensorRt::load(platform, plan, &spec).expect("loads")
}

fn lent(engine: &mut TensorRt) -> Lent {
    engine.lend(0).expect("lends").expect("a place")
}

#[test]
fn only_a_tensor_of_the_same_type_size_and_stream_is_taken() {
    let fakes = machine();
    for tables in BOTH {
        let platform = Platform::find(&fakes.settings(tables)).expect("the fakes");
        let other = Platform::find(&fakes.settings(tables)).expect("the fakes");
        let mut lender = adder(&platform, Dtype::I64, 4);
        let wide = lent(&mut lender);
        assert!(lender.lend(1).expect("no such output").is_none());
        let offered = |mut engine: TensorRt, carried| engine.borrow(0, &wide, carried);
        let same = || adder(&platform, Dtype::I64, 4);
        assert_eq!(offered(same(), None), Ok(true));
        assert_eq!(offered(same(), Some(0)), Ok(true));
        assert_eq!(offered(same(), Some(1)), Ok(false), "no such output");
        let narrow = adder(&platform, Dtype::I32, 8);
        assert_eq!(
            offered(narrow, None),
            Ok(false),
            "as many bytes, other numbers"
        );
        assert_eq!(offered(adder(&platform, Dtype::I64, 5), None), Ok(false));
        assert_eq!(offered(adder(&other, Dtype::I64, 4), None), Ok(false));
        let foreign = Lent::new("another engine's");
        assert_eq!(same().borrow(0, &foreign, None), Ok(false));
    }
}

/// A run that nobody waited for still reads its inputs: the next one, and whoever lets go of it, waits first.
#[test]
fn a_run_that_is_not_waited_for_keeps_what_it_reads() {
    let fakes = machine();
    let before = fakes.live();
    let platform = Platform::find(&fakes.settings(Tables::Ten)).expect("the fakes");
    let mut first = adder(&platform, Dtype::F32, 3);
    let mut second = adder(&platform, Dtype::F32, 3);
    let place = lent(&mut first);
    assert_eq!(second.borrow(0, &place, None), Ok(true));
    first.keep(0);
    let nothing = [Tensor::F32(vec![9e9; 3])];
    let (mut ignored, mut found) = (nothing.clone(), nothing.clone());
    for start in [1.0, 2.0, 3.0, 4.0] {
        let given = [Tensor::F32(vec![start; 3])];
        first.run(&given, &mut ignored).expect("runs");
        second.run(&nothing, &mut found).expect("runs");
        assert_eq!(found, [Tensor::F32(vec![start + 2.0; 3])]);
    }
    let mut run = |start: f32| {
        fakes.forget();
        let given = [Tensor::F32(vec![start; 3])];
        first.run(&given, &mut ignored).expect("runs");
        fakes.calls()
    };
    assert!(run(5.0).is_empty(), "it goes with the next one's launch");
    assert_eq!(
        run(6.0),
        ["cuGraphLaunch", "cuEventRecord", "cuEventSynchronize"],
        "its memory is the host's again only then"
    );
    second.run(&nothing, &mut found).expect("runs");
    assert_eq!(found, [Tensor::F32(vec![8.0; 3])]);
    run(7.0);
    assert_eq!(ignored, nothing, "nobody reads it here");
    // The fake ends the process if memory goes while the stream still has work, or work begins on memory that is gone.
    drop(first);
    second.run(&nothing, &mut found).expect("runs");
    drop((second, place, platform));
    assert_eq!(fakes.live(), before);
}

/// Two stages of the fake's own, which allocates nothing.
#[test]
fn a_chain_allocates_nothing() {
    let fakes = machine();
    let platform = Platform::find(&fakes.settings(Tables::Ten)).expect("the fakes");
    let spec = crate::path::spec();
    let stage = || TensorRt::load(&platform, b"FAKEPLAN".to_vec(), &spec).expect("loads");
    let (mut first, mut second) = (stage(), stage());
    let actions = first.lend(1).expect("lends").expect("a place");
    assert_eq!(second.borrow(0, &actions, None), Ok(true));
    first.keep(0);
    first.keep(1);
    let tokens = Tensor::I32(vec![1, 2, 3, 4]);
    let given = [Tensor::F32(vec![1.0; 12]), tokens];
    let mut found: Vec<Tensor> = spec.outputs.iter().map(Tensor::zeros).collect();
    for run in 0..6 {
        fakes.forget();
        let before = allocations_of_this_thread();
        first.run(&given, &mut found).expect("runs");
        second.run(&given, &mut found).expect("runs");
        let made = allocations_of_this_thread() - before;
        assert!(run < 3 || made == 0, "run {run}: {made} allocations");
    }
    assert_eq!(fakes.calls().len(), 3, "one launch, one wait");
    let expected = (0..12).map(|at| 2.0 * (2.0 + (1 + at % 4) as f32) + (1 + at % 4) as f32);
    assert_eq!(found[1], Tensor::F32(expected.collect()));

    // A stage that runs now and then, as one of the sentence does, joins nobody while the robot moves.
    let mut seldom = stage();
    seldom.keep(0);
    seldom.keep(1);
    let mut turn = |is_due: bool| {
        fakes.forget();
        if is_due {
            seldom.run(&given, &mut found).expect("runs");
        }
        first.run(&given, &mut found).expect("runs");
        second.run(&given, &mut found).expect("runs");
        fakes.calls()
    };
    for is_due in [true, false, false] {
        turn(is_due);
    }
    for is_due in [true, false, false, true, false] {
        let calls = format!("{:?}", turn(is_due));
        assert!(!calls.contains("Instantiate"), "{calls}");
    }
    // If it runs twice in a row it joins them, and the others are joined without it all the same.
    for is_due in [true, true] {
        turn(is_due);
    }
    for is_due in [false, false, true, false, false] {
        let calls = turn(is_due);
        assert_eq!(calls.len(), 3, "one launch, one wait: {calls:?}");
    }
}
