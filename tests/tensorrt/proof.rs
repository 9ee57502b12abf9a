// SPDX-License-Identifier: Apache-2.0
//! What is proven at load is what runs: recorded, joined and launched before a fixture is judged, however short it is.

use crate::chain::{FAMILIES, Way, ask, copy, cpu, hash, instruct, load_on};
use crate::fake::{Fakes, Tables, machine, plan_of};
use crate::path::spec;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;
use std::path::Path;
use std::sync::mpsc;
use tendon::config::problem::Problem;
use tendon::engine::tensorrt::{Platform, TensorRt};
use tendon::policy::staged::Staged;
use tendon::policy::{LoadOptions, Policy};
use tendon::ports::{Engine, EngineFault, StageSpec};
use tendon::runtime::clock;

/// A family's bundle whose fixture is its first frame alone.
fn short(family: &str) -> tempfile::TempDir {
    let bundle = copy(family, |_| ());
    let at = |name: &str| bundle.path().join(name);
    let read = |name: &str| std::fs::read(at(name)).expect("there");
    let mut manifest: Value = serde_json::from_slice(&read("manifest.json")).expect("JSON");
    let ours = &mut manifest["tendon"];
    let named = |of: &Value| of.as_str().expect("a name").to_owned();
    let tensors = named(&ours["parity"]["file"]);
    let sentences = named(&ours["parity"]["sentences"]);
    let whole = read(&tensors);
    let all = SafeTensors::deserialize(&whole)
        .expect("a fixture")
        .tensors();
    let first: Vec<(String, Dtype, Vec<usize>, &[u8])> = all
        .iter()
        .map(|(name, view)| {
            let mut shape = view.shape().to_vec();
            let frame = view.data().len() / shape[0];
            shape[0] = 1;
            (name.clone(), view.dtype(), shape, &view.data()[..frame])
        })
        .collect();
    let views = first.iter().map(|(name, dtype, shape, data)| {
        let view = TensorView::new(*dtype, shape.clone(), data);
        (name.as_str(), view.expect("a tensor"))
    });
    let cut = safetensors::serialize(views, None).expect("is written");
    let mut words: Value = serde_json::from_slice(&read(&sentences)).expect("JSON");
    for list in words.as_object_mut().expect("lists").values_mut() {
        list.as_array_mut().expect("a list").truncate(1);
    }
    let words = words.to_string().into_bytes();
    ours["parity"]["frames"] = 1.into();
    // One frame has a smaller range, of which the same rounding is a larger share.
    ours["parity"]["error_max_fraction"] = 0.001.into();
    for (name, bytes) in [(&tensors, cut), (&sentences, words)] {
        ours["sha256"][name] = hash(&bytes).into();
        std::fs::write(at(name), bytes).expect("written");
    }
    std::fs::write(at("manifest.json"), manifest.to_string()).expect("written");
    bundle
}

/// Loads a bundle of stages whose plans have these words.
fn load(fakes: &Fakes, bundle: &Path, words: &str) -> Result<Staged, Vec<Problem>> {
    let platform = Platform::find(&fakes.settings(Tables::Ten)).expect("the fakes");
    let engine = |path: &Path, spec: &StageSpec| -> Result<Box<dyn Engine>, EngineFault> {
        let plan = plan_of(spec, cpu(path, spec)?, words);
        let engine = TensorRt::load(&platform, plan, spec);
        let engine = engine.map_err(|fault| EngineFault(fault.to_string()))?;
        Ok(Box::new(engine))
    };
    Staged::load(bundle, LoadOptions::default(), &engine)
}

#[test]
fn no_inference_finds_something_left_to_record_or_to_join() {
    let fakes = machine();
    for (family, _, _, launches) in FAMILIES {
        let bundle = short(family);
        let platform = Platform::find(&fakes.settings(Tables::Ten)).expect("the fakes");
        let mut policy = load_on(&platform, bundle.path(), Way::Chained);
        instruct(&mut policy);
        for seed in 0..6 {
            // Two sentences that come close together: what they launch comes twice in a row.
            if [2, 3].contains(&seed) {
                instruct(&mut policy);
            }
            fakes.forget();
            fakes.moved();
            ask(&mut policy, seed).expect("an answer");
            let calls = fakes.calls();
            let makes = |call: &&String| call.contains("Instantiate") || call.contains("Capture");
            let made = calls.iter().find(makes);
            assert_eq!(made, None, "{family}, observation {seed}: {calls:?}");
        }
        assert_eq!(fakes.moved().launches, launches, "{family}");
    }
}

/// A library that works on a stream of its own is not recorded, and a replay does nothing of it: what it left the last time is there still.
#[test]
fn a_recording_that_leaves_work_out_does_not_load() {
    let fakes = machine();
    let bundle = short("pi0");
    load(&fakes, bundle.path(), "").expect("a good one does");
    // The first recording is that of the load; what the robot runs is recorded when the stages are chained.
    let refused = load(&fakes, bundle.path(), "vanishes=2").err();
    let said = format!("{:?}", refused.expect("another chunk than the fixture's"));
    assert!(said.contains("parity"), "{said}");
}

/// The same of a bundle of one graph, whose fixture comes before the device is offered the camera's picture.
#[test]
fn what_is_compared_with_the_processors_picture_is_a_replay() {
    let fakes = machine();
    // Nothing is tried there: the only runs are those that prove.
    fakes.shares(false);
    let platform = Platform::find(&fakes.settings(Tables::Ten)).expect("the fakes");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla");
    let load = |words: &str| {
        let engine = |path: &Path, spec: &StageSpec| -> Result<Box<dyn Engine>, EngineFault> {
            let plan = plan_of(spec, cpu(path, spec)?, words);
            let engine = TensorRt::load(&platform, plan, spec);
            let mut engine = engine.map_err(|fault| EngineFault(fault.to_string()))?;
            engine.choose_at_last(&platform.device, clock::now, |_, _| ());
            Ok(Box::new(engine))
        };
        Policy::load(&shipped, LoadOptions::default(), &engine)
    };
    let policy = load("").expect("a good one loads");
    assert!(policy.on_device().is_some(), "the picture is not taken");
    let refused = load("vanishes=2").err();
    let said = format!("{:?}", refused.expect("another answer"));
    assert!(
        said.contains("another answer to the same picture"),
        "{said}"
    );
}

#[test]
fn a_launch_that_the_driver_refuses_is_told_at_load() {
    let fakes = machine();
    let bundle = short("pi0");
    // Each of two stages is launched once when it is loaded; the next launches are of what came of the chain.
    fakes.fail("cuGraphLaunch", 2, 2);
    let refused = load(&fakes, bundle.path(), "").err();
    fakes.fail("", 0, 0);
    let said = format!("{:?}", refused.expect("refused"));
    assert!(said.contains("cuGraphLaunch"), "{said}");
}

/// Who is told how an engine settled is told of what it will run, not of what was recorded before the offers.
#[test]
fn a_recording_that_the_driver_refuses_is_told_when_the_engine_settles() {
    let fakes = machine();
    for shares in [false, true] {
        fakes.shares(shares);
        let platform = Platform::find(&fakes.settings(Tables::Ten)).expect("the fakes");
        let engine = TensorRt::load(&platform, b"FAKEPLAN".to_vec(), &spec());
        let mut engine = engine.expect("loads");
        assert_eq!(engine.plain(), None);
        let (tell, told) = mpsc::channel();
        engine.choose_at_last(&platform.device, clock::now, move |engine, _| {
            let told = tell.send(engine.plain().map(str::to_owned));
            told.expect("somebody listens");
        });
        engine.keep(0);
        fakes.fail("cuGraphInstantiateWithFlags", 0, 801);
        let settled = engine.settle();
        fakes.fail("", 0, 0);
        assert_eq!(settled, Ok(true), "{shares}");
        let why = told.try_recv().expect("told").expect("no recording");
        assert!(why.contains("cuGraphInstantiate"), "{why}");
    }
}
