// SPDX-License-Identifier: Apache-2.0
//! What only a GPU can show of the path to it: driver, device, pinned and mapped memory, a kernel, a recorded graph and its
//! replay, TensorRT's own library as far as it goes. `tests/gpu/run.sh` runs it and keeps the figures; without a GPU it
//! says so and passes.

use serde_json::{Value, json};
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;
use tendon::core::units::Mono;
use tendon::engine::tensorrt::cuda::memory::{DeviceBuffer, Kernel, PinnedBuffer};
use tendon::engine::tensorrt::cuda::{Context, CudaFault, Driver, Graph, Stream};
use tendon::engine::tensorrt::nvinfer::{Library, Session};
use tendon::engine::tensorrt::{Platform, Settings};
use tendon::runtime::clock;

/// A camera's picture.
const PIXELS: usize = 640 * 480;
/// Replays that are timed.
const RUNS: usize = 2_000;

/// 8-bit RGB, pixel after pixel -> three planes of floats, scaled. All arguments are 64 bits wide: source, destination,
/// number of pixels, bits of the scale. PTX 6.0 is what the driver of any supported TensorRT takes.
const PLANAR: &str = r"
.version 6.0
.target sm_50
.address_size 64
.visible .entry planar(.param .u64 src, .param .u64 dst, .param .u64 pixels, .param .u64 scale)
{
    .reg .pred %p<2>;
    .reg .b16 %h<4>;
    .reg .b32 %r<7>;
    .reg .b64 %d<12>;
    .reg .f32 %f<8>;
    ld.param.u64 %d1, [src];
    ld.param.u64 %d2, [dst];
    ld.param.u64 %d3, [pixels];
    ld.param.u64 %d4, [scale];
    cvta.to.global.u64 %d1, %d1;
    cvta.to.global.u64 %d2, %d2;
    cvt.u32.u64 %r1, %d3;
    cvt.u32.u64 %r2, %d4;
    mov.b32 %f1, %r2;
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.u32 %r6, %r3, %r4, %r5;
    setp.ge.u32 %p1, %r6, %r1;
    @%p1 bra DONE;
    mul.wide.u32 %d5, %r6, 3;
    add.u64 %d6, %d1, %d5;
    ld.global.u8 %h1, [%d6];
    ld.global.u8 %h2, [%d6+1];
    ld.global.u8 %h3, [%d6+2];
    cvt.rn.f32.u16 %f2, %h1;
    cvt.rn.f32.u16 %f3, %h2;
    cvt.rn.f32.u16 %f4, %h3;
    mul.rn.f32 %f5, %f2, %f1;
    mul.rn.f32 %f6, %f3, %f1;
    mul.rn.f32 %f7, %f4, %f1;
    mul.wide.u32 %d7, %r6, 4;
    add.u64 %d8, %d2, %d7;
    mul.wide.u32 %d9, %r1, 4;
    add.u64 %d10, %d8, %d9;
    add.u64 %d11, %d10, %d9;
    st.global.f32 [%d8], %f5;
    st.global.f32 [%d10], %f6;
    st.global.f32 [%d11], %f7;
DONE:
    ret;
}
";

/// Exactly what the kernel computes: one rounding of one product.
fn planar(rgb: &[u8], scale: f32) -> Vec<f32> {
    let plane = |channel: usize| {
        rgb.iter()
            .skip(channel)
            .step_by(3)
            .map(move |byte| f32::from(*byte) * scale)
    };
    plane(0).chain(plane(1)).chain(plane(2)).collect()
}

fn picture(seed: usize) -> Vec<u8> {
    (0..PIXELS * 3)
        .map(|at| ((at * 7 + at / 640 * 13 + seed * 31) % 256) as u8)
        .collect()
}

/// p50, p99 and the largest, in microseconds.
fn spread(mut times_ns: Vec<u64>) -> Value {
    times_ns.sort_unstable();
    let us = |share: f64| times_ns[((times_ns.len() - 1) as f64 * share) as usize] as f64 * 1e-3;
    json!({"p50_us": us(0.5), "p95_us": us(0.95), "p99_us": us(0.99), "max_us": us(1.0), "runs": times_ns.len()})
}

fn timed(mut work: impl FnMut()) -> Value {
    for _ in 0..20 {
        work();
    }
    let took = |work: &mut dyn FnMut()| -> u64 {
        let began: Mono = clock::now();
        work();
        clock::now().since_ns(began)
    };
    spread((0..RUNS).map(|_| took(&mut work)).collect())
}

fn finish(figures: &Value) {
    let text = serde_json::to_string_pretty(figures).expect("JSON");
    println!("{text}");
    if let Some(out) = std::env::var_os("OUT").filter(|out| !out.is_empty()) {
        let path = PathBuf::from(out).join("gpu.json");
        std::fs::write(&path, text + "\n").expect("OUT is a folder that can be written to");
    }
}

/// The same graph with copies, or on memory that the device reads and writes where it is.
struct Stage {
    stream: Stream,
    graph: Graph,
    input: PinnedBuffer,
    output: PinnedBuffer,
    _device: Option<(DeviceBuffer, DeviceBuffer)>,
}

impl Stage {
    fn new(context: &Arc<Context>, kernel: &Kernel, scale: f32, mapped: bool) -> Stage {
        let stream = Stream::new(context).expect("a stream");
        let input = PinnedBuffer::new(context, PIXELS * 3).expect("pinned memory");
        let output = PinnedBuffer::new(context, PIXELS * 12).expect("pinned memory");
        let device = (!mapped).then(|| {
            (
                DeviceBuffer::new(context, PIXELS * 3).expect("device memory"),
                DeviceBuffer::new(context, PIXELS * 12).expect("device memory"),
            )
        });
        let work = || -> Result<(), CudaFault> {
            let (from, to) = match &device {
                Some((from, to)) => {
                    stream.copy_in(from, &input)?;
                    (from.address(), to.address())
                }
                None => (input.address(), output.address()),
            };
            let scale = u64::from(scale.to_bits());
            let mut arguments = [from, to, PIXELS as u64, scale];
            stream.launch_kernel(kernel, PIXELS as u32, &mut arguments)?;
            match &device {
                Some((_, to)) => stream.copy_out(&output, to),
                None => Ok(()),
            }
        };
        work().expect("runs once");
        stream.wait().expect("ends");
        let graph = stream.capture(work).expect("is recorded");
        Stage {
            stream,
            graph,
            input,
            output,
            _device: device,
        }
    }

    fn run(&mut self, rgb: Option<&[u8]>) {
        if let Some(rgb) = rgb {
            self.input.bytes().copy_from_slice(rgb);
        }
        self.stream.launch(&self.graph).expect("launches");
        self.stream.wait().expect("ends");
    }
}

#[test]
fn the_gpu() {
    let settings = Settings::from_environment();
    let driver = match Driver::open(settings.driver.as_deref()) {
        Ok(driver) => driver,
        Err(fault) => {
            assert!(
                std::env::var_os("TENDON_GPU").is_none_or(|word| word != "required"),
                "TENDON_GPU=required: {fault}"
            );
            println!("skipped: {fault}");
            finish(&json!({"skipped": fault.to_string()}));
            return;
        }
    };
    let device = driver.device(0).expect("a device");
    let context = driver.context(&device).expect("a context");
    let image = CString::new(PLANAR).expect("text");
    let kernel = Kernel::load(&context, &image, c"planar").expect("the driver takes the kernel");
    let scale = 1.0 / 255.0_f32;
    let mut figures = json!({
        "device": device.name,
        "compute": format!("{}.{}", device.compute.0, device.compute.1),
        "cuda_driver": device.driver,
        "integrated": device.integrated,
        "picture": "640x480 RGB to three planes of floats",
    });
    for (name, mapped) in [("copied", false), ("mapped", true)] {
        if mapped && !device.maps_host {
            figures[name] = json!("the device cannot map the host's memory");
            continue;
        }
        let mut stage = Stage::new(&context, &kernel, scale, mapped);
        for seed in 0..4 {
            let rgb = picture(seed);
            stage.run(Some(&rgb));
            let found: Vec<u32> = stage
                .output
                .bytes()
                .chunks_exact(4)
                .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
                .collect();
            let expected: Vec<u32> = planar(&rgb, scale).into_iter().map(f32::to_bits).collect();
            assert!(
                found == expected,
                "{name}: picture {seed} differs from the processor's"
            );
        }
        let rgb = picture(9);
        figures[name] = json!({
            "bits": "as on the processor, four pictures",
            "graph_replay": timed(|| stage.run(None)),
            "input_update_and_graph": timed(|| stage.run(Some(&rgb))),
        });
    }
    let rgb = picture(9);
    figures["processor"] = timed(|| {
        std::hint::black_box(planar(std::hint::black_box(&rgb), scale));
    });
    drop(kernel);
    figures["tensorrt"] = tensorrt(&settings);
    finish(&figures);
}

/// The library as far as it goes without a plan: loads, speaks, has a runtime, refuses garbage in words.
fn tensorrt(settings: &Settings) -> Value {
    let library = match Library::open(settings.tensorrt.as_deref()) {
        Ok(library) => Arc::new(library),
        Err(fault) => return json!({"skipped": fault.to_string()}),
    };
    let version = library.words();
    let platform = Platform::find(settings).expect("driver, device and library are there");
    drop(Session::runtime(&library).expect("a runtime, as there is a driver"));
    let fault = Session::open(&platform.library, b"garbage that is no plan").expect_err("refused");
    let said = fault.to_string();
    assert!(
        !said.ends_with("says: ") && !said.ends_with("says: nothing"),
        "its logger or recorder was not heard: {said}"
    );
    json!({"version": version, "identity": format!("{:?}", platform.identity()), "garbage_refused": said})
}
