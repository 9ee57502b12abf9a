// SPDX-License-Identifier: Apache-2.0
//! From frame to targets nothing is allocated but by the engine's own run call.

use crate::fixture::{JOINTS, REPORT, cpu, no_clock, parrot, plain, say, shipped, state};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tendon::core::observation::JointState;
use tendon::policy::{InferFault, Policy};
use tendon::ports::{Engine, EngineFault, Frame, StageSpec, Tensor, TensorSpec};
use tendon::runtime::realtime::allocations_of_this_thread;

/// Counts what the engine inside it allocates on this thread.
struct Meter {
    inner: Box<dyn Engine>,
    allocated: Arc<AtomicU64>,
}

impl Engine for Meter {
    fn inputs(&self) -> &[TensorSpec] {
        self.inner.inputs()
    }
    fn outputs(&self) -> &[TensorSpec] {
        self.inner.outputs()
    }
    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        let before = allocations_of_this_thread();
        let result = self.inner.run(inputs, outputs);
        self.allocated
            .fetch_add(allocations_of_this_thread() - before, Ordering::Relaxed);
        result
    }
}

#[test]
fn only_the_engine_allocates() {
    let engine = Arc::new(AtomicU64::new(0));
    let counter = engine.clone();
    let load = move |path: &Path, spec: &StageSpec| {
        Ok(Box::new(Meter {
            inner: cpu(path, spec)?,
            allocated: counter.clone(),
        }) as Box<dyn Engine>)
    };
    let mut policy = Policy::load(&shipped(), REPORT, &load).expect("the shipped bundle loads");
    policy.bind(&JOINTS).expect("the bench robot's joints");
    let red = policy.text().encode("touch the red block").expect("short");
    let blue = policy
        .text()
        .encode("put the blue cube in the left bin")
        .expect("short");
    let frame = plain([90, 120, 60]);
    let state = state([0.1, 0.6, -1.4, 0.0, -0.8, 0.0, 0.0]);
    engine.store(0, Ordering::Relaxed);
    let before = allocations_of_this_thread();
    for round in 0..50 {
        policy.take(if round % 2 == 0 { &red } else { &blue });
        let inference = policy.infer(&frame, &state, &no_clock).expect("a chunk");
        assert_eq!(inference.targets.len(), 16 * 7);
    }
    let all = allocations_of_this_thread() - before;
    let engine = engine.load(Ordering::Relaxed);
    println!("{engine} allocations in 50 runs of the engine, {all} in all");
    assert!(all > 0 && engine > 0, "the count counts");
    assert_eq!(all - engine, 0, "allocated outside the engine's run call");
}

#[test]
fn a_refusal_allocates_nothing() {
    let (mut policy, says, _) = parrot();
    let small = Frame::black(8, 8);
    let frame = plain([0; 3]);
    let state = state([0.0; 7]);
    say(&says, 0, |values| values[17] = f32::NAN);
    // Once for the memory of the test's own parrot.
    let _ = policy.infer(&frame, &state, &no_clock).map(|_| ());
    let before = allocations_of_this_thread();
    for _ in 0..10 {
        assert!(matches!(
            policy.infer(&small, &state, &no_clock),
            Err(InferFault::Frame { .. })
        ));
        assert!(matches!(
            policy.infer(&frame, &JointState::NEVER, &no_clock),
            Err(InferFault::Joints { .. })
        ));
    }
    assert_eq!(allocations_of_this_thread() - before, 0);
}
