// SPDX-License-Identifier: Apache-2.0
//! Times of the shipped bundle: picture into tensor, the engine's run, and everything from frame to joint targets.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::path::Path;
use tendon::core::action::JointKind;
use tendon::core::limits::JOINTS_MAX;
use tendon::core::observation::JointState;
use tendon::engine::cpu::{CpuEngine, CpuOptions};
use tendon::policy::image::Picture;
use tendon::policy::{InferTiming, LoadOptions, Policy};
use tendon::ports::{Engine, EngineFault, Frame, StageSpec, Tensor};
use tendon::runtime::clock::now;

fn load_engine(path: &Path, spec: &StageSpec) -> Result<Box<dyn Engine>, EngineFault> {
    Ok(Box::new(CpuEngine::load(
        path,
        spec,
        CpuOptions::default(),
    )?))
}

fn picture() -> Frame {
    let mut frame = Frame::black(224, 224);
    let mut dice = 1_u32;
    for byte in &mut frame.rgb {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (dice >> 24) as u8;
    }
    frame
}

fn policy(criterion: &mut Criterion) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla");
    let frame = picture();
    let feed = Picture::new([224, 224], [96, 96], 1.0 / 255.0);
    let mut feed = feed.expect("sides with pixels");
    let mut tensor = vec![0.0_f32; 3 * 96 * 96];
    criterion.bench_function("policy/preprocess 224 to 96", |bencher| {
        bencher.iter(|| feed.fill(black_box(&frame.rgb), &mut tensor));
    });

    criterion.bench_function("policy/load with fixture", |bencher| {
        bencher.iter(|| Policy::load(&dir, LoadOptions::default(), &load_engine));
    });

    let mut policy =
        Policy::load(&dir, LoadOptions::default(), &load_engine).expect("the shipped bundle");
    let spec = policy.bundle().stage.spec.clone();
    let graphs = policy.bundle().stage.onnx.clone();
    for (precision, name) in graphs.all() {
        let precision = precision.word();
        let mut engine =
            CpuEngine::load(&dir.join(name), &spec, CpuOptions::default()).expect("a graph");
        let mut inputs: Vec<Tensor> = spec.inputs.iter().map(Tensor::zeros).collect();
        // A picture, not zeros: an engine may be faster on nothing.
        if let Some(image) = inputs
            .get_mut(policy.bundle().stage.image)
            .and_then(Tensor::f32_mut)
        {
            image.copy_from_slice(&tensor);
        }
        let mut outputs: Vec<Tensor> = spec.outputs.iter().map(Tensor::zeros).collect();
        criterion.bench_function(
            &format!("policy/engine rten {precision} 1 thread"),
            |bencher| {
                bencher.iter(|| engine.run(black_box(&inputs), &mut outputs));
            },
        );
    }

    let units = policy.bundle().action.vector.units.clone();
    let names = policy.bundle().action.vector.names.clone();
    let joints: Vec<(&str, JointKind)> = names
        .iter()
        .map(String::as_str)
        .zip(units.iter().map(|unit| unit.kind()))
        .collect();
    policy.bind(&joints).expect("its own joints");
    policy
        .set_instruction("put the red block in the left bin")
        .expect("a short sentence");
    let state = JointState {
        joints: joints.len(),
        position: [0.1; JOINTS_MAX],
        ..JointState::NEVER
    };
    criterion.bench_function("policy/infer fp32 frame to targets", |bencher| {
        bencher.iter(|| {
            policy
                .infer(black_box(&frame), &state, &now)
                .map(|inference| inference.targets.len())
        });
    });
    let mut timings: Vec<InferTiming> = Vec::new();
    for _ in 0..1000 {
        timings.extend(
            policy
                .infer(&frame, &state, &now)
                .map(|inference| inference.timing),
        );
    }
    let mut middle = |figure: fn(&InferTiming) -> u64| {
        timings.sort_by_key(figure);
        timings.get(timings.len() / 2).map_or(0, figure)
    };
    println!(
        "policy/infer, medians of 1000: preprocess {} ns, engine {} ns, decode {} ns",
        middle(|timing| timing.preprocess_ns),
        middle(|timing| timing.engine_ns),
        middle(|timing| timing.decode_ns)
    );
    let text = policy.text().clone();
    criterion.bench_function("policy/tokenise a sentence", |bencher| {
        bencher.iter(|| text.encode(black_box("put the red block in the left bin")));
    });
}

criterion_group!(benches, policy);
criterion_main!(benches);
