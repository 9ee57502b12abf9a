// SPDX-License-Identifier: Apache-2.0
//! The kernel between two steps of a denoising loop, its own source run by the fake driver, beside the processor's steps.

use crate::fake::machine;
use tendon::cuda::memory::{DeviceBuffer, PinnedBuffer};
use tendon::cuda::turns::LoopStage;
use tendon::cuda::{CudaFault, Driver, Stream};
use tendon::policy::decode::diffusion::{Betas, Diffusion, DiffusionFile, Prediction, Scheduler};
use tendon::policy::decode::flow::{Flow, FlowGrid, FlowTime};
use tendon::ports::{Dtype, LoopStep, Update};

const VALUES: usize = 301;

/// Numbers of both signs from tiny to far outside of every bound, with what no graph should say among them.
fn numbers(mut dice: u32) -> Vec<f32> {
    let mut next = || {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(dice) / f64::from(u32::MAX)
    };
    let mut all: Vec<f32> = (0..VALUES)
        .map(|_| ((next() - 0.5) * 10_f64.powf(next() * 6.0 - 4.0)) as f32)
        .collect();
    for (slot, odd) in all
        .iter_mut()
        .zip([0.0, -0.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE])
    {
        *slot = odd;
    }
    all
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_ne_bytes())
        .collect()
}

fn diffusion(prediction: Prediction, scheduler: Scheduler, clip: Option<f32>) -> Diffusion {
    Diffusion::new(DiffusionFile {
        scheduler,
        train_steps: 100,
        steps: if scheduler == Scheduler::Octo { 100 } else { 7 },
        betas: Betas::SquaredCosine { max: 0.999 },
        prediction,
        clip,
    })
    .expect("steps that fit")
}

/// A loop whose graph says `said` whatever it is given: the sample's end, and the time at its last step.
fn on_the_device(steps: &[LoopStep], begin: &[f32], said: &[f32]) -> (Vec<f32>, f32) {
    let fakes = machine();
    let driver = Driver::open(Some(&fakes.driver)).expect("the fake driver");
    let device = driver.device(0).expect("a device");
    let context = driver.context(&device).expect("a context");
    let stream = Stream::new(&context).expect("a stream");
    let time = Some((Dtype::F32, 2));
    let stage = LoopStage::new(&context, &stream, steps, VALUES, time).expect("a loop");
    let device = |values: usize| DeviceBuffer::new(&context, values * 4).expect("memory");
    let pinned = |values: usize| PinnedBuffer::new(&context, values * 4).expect("memory");
    let (sample, says, time) = (device(VALUES), device(VALUES), device(2));
    let (mut from, mut to, mut last) = (pinned(VALUES), pinned(VALUES), pinned(2));
    let graph = stream
        .capture(|| -> Result<(), CudaFault> {
            stream.copy_in(&sample, &from)?;
            let body = || stream.copy_in(&says, &to);
            stage.put(&stream, &sample, Some(&time), says.address(), body)?;
            stream.copy_out(&last, &time)?;
            stream.copy_out(&from, &sample)
        })
        .expect("is recorded");
    from.bytes().copy_from_slice(&bytes(begin));
    to.bytes().copy_from_slice(&bytes(said));
    stream.launch(&graph).expect("launches");
    stream.wait().expect("ends");
    let floats = |bytes: &[u8]| -> Vec<f32> {
        let four = bytes.chunks_exact(4);
        four.map(|four| f32::from_ne_bytes([four[0], four[1], four[2], four[3]]))
            .collect()
    };
    let times = floats(last.bytes());
    assert_eq!(times[0], times[1], "each number of the time is the time");
    (floats(from.bytes()), times[0])
}

#[track_caller]
fn same(name: &str, steps: &[LoopStep], step: impl Fn(usize, &mut [f32], &[f32])) {
    for seed in 0..20 {
        let (mut x, said) = (numbers(seed), numbers(seed + 100));
        let (found, time) = on_the_device(steps, &x, &said);
        for at in 0..steps.len() {
            step(at, &mut x, &said);
        }
        // Which NaN it is, is no number.
        let differs = found
            .iter()
            .zip(&x)
            .position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()));
        if let Some(at) = differs {
            panic!(
                "{name}: number {at}: {} on the device, {} here",
                found[at], x[at]
            );
        }
        assert_eq!(Some(time), steps.last().map(|step| step.time));
    }
}

#[test]
fn the_kernel_gives_the_bits_of_every_step_that_draws_no_noise() {
    for (t_start, t_end, count) in [(1.0, 0.0, 10), (0.0, 1.0, 4)] {
        let flow = Flow {
            t_start,
            t_end,
            steps: count,
            time: FlowTime::F32,
            grid: FlowGrid::Accumulated,
        };
        let update = Update::Euler { by: flow.dt() };
        let step = |at| LoopStep {
            time: flow.time(at),
            update,
        };
        let steps: Vec<LoopStep> = (0..count).map(step).collect();
        same("flow", &steps, |_, x, said| flow.step(x, said));
    }
    for prediction in [
        Prediction::Epsilon,
        Prediction::Sample,
        Prediction::VPrediction,
    ] {
        for clip in [None, Some(1.0), Some(0.25)] {
            let steps = diffusion(prediction, Scheduler::Ddim, clip);
            let each = |at| LoopStep {
                time: steps.time(at).expect("a step") as f32,
                update: steps.update(at).expect("in numbers"),
            };
            let all: Vec<LoopStep> = (0..steps.steps()).map(each).collect();
            let name = format!("{prediction:?} {clip:?}");
            same(&name, &all, |at, x, said| steps.step(at, x, said, &[]));
        }
    }
    for scheduler in [Scheduler::Ddpm, Scheduler::Octo] {
        let steps = diffusion(Prediction::Epsilon, scheduler, None);
        assert_eq!(steps.update(0), None, "{scheduler:?} draws noise");
    }
}

#[test]
fn a_loop_that_the_driver_refuses_is_told() {
    let fakes = machine();
    let driver = Driver::open(Some(&fakes.driver)).expect("the fake driver");
    let device = driver.device(0).expect("a device");
    let context = driver.context(&device).expect("a context");
    let stream = Stream::new(&context).expect("a stream");
    let update = Update::Euler { by: 0.1 };
    let steps = [LoopStep { time: 0.5, update }; 3];
    let new = |steps: &[LoopStep]| {
        let time = Some((Dtype::I64, 1));
        LoopStage::new(&context, &stream, steps, VALUES, time).map(|_| ())
    };
    assert_eq!(new(&steps), Ok(()));
    let said = new(&[]).expect_err("no step").to_string();
    assert!(said.contains("a step or more"), "{said}");
    let calls = [
        "cuModuleLoadData",
        "cuModuleGetFunction",
        "cuMemHostAlloc",
        "cuMemAlloc_v2",
        "cuMemcpyHtoDAsync_v2",
    ];
    for call in calls {
        let live = fakes.live();
        fakes.fail(call, 0, 2);
        let said = new(&steps).expect_err("refused").to_string();
        fakes.fail("", 0, 0);
        assert!(said.contains(call.trim_end_matches("_v2")), "{said}");
        assert_eq!(fakes.live(), live, "after {call}");
    }
}
