// SPDX-License-Identifier: Apache-2.0
//! What only a GPU can show of the path to it: driver, device, pinned and mapped memory, the kernels, a recorded graph and its
//! replay, a camera's surface as RGB, a denoising loop as one graph, graphs joined, TensorRT's own library as far as it goes, an error
//! that sticks. `tests/gpu/run.sh` runs it and keeps the figures; without a GPU it says so and passes.

mod heard;
mod parts;

use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tendon::core::units::Mono;
use tendon::cuda::joint::{Done, Joint, Line};
use tendon::cuda::memory::{DeviceBuffer, PinnedBuffer};
use tendon::cuda::picture::PictureStage;
use tendon::cuda::surface::{Colours, Pixels, Planes, SurfaceStage};
use tendon::cuda::turns::LoopStage;
use tendon::cuda::{Context, CudaFault, Device, Driver, Graph, Stream};
use tendon::engine::tensorrt::nvinfer::{Library, Session};
use tendon::engine::tensorrt::{Platform, Settings};
use tendon::policy::image::Picture;
use tendon::policy::picture::kernel::{Filter, Library as Resizer};
use tendon::policy::picture::{Axes, CameraFile, Colour, Feed, Fit, Levels, PictureOp};
use tendon::ports::{Dtype, LoopStep, PictureWay, Says, Update};
use tendon::runtime::clock;

/// A camera's picture.
const CAMERA: [usize; 2] = [640, 480];
/// Side of what a policy is fed.
const SIDE: usize = 224;
/// Replays that are timed.
const RUNS: usize = 2_000;
/// The longest that a part may take: all of them, if each hangs, end within what `run.sh` gives them together.
const PART_MAX: Duration = Duration::from_secs(30);

/// What a part runs on.
struct Gpu {
    settings: Settings,
    device: Device,
    context: Arc<Context>,
}

/// A part: its name among the figures, and what it does.
type Part = (&'static str, fn(&Gpu) -> Value);

/// In their order.
const PARTS: [Part; 10] = [
    ("bilinear_pillow", |gpu| {
        resized(gpu, Filter::Bilinear, Resizer::Pillow)
    }),
    ("bicubic_pillow", |gpu| {
        resized(gpu, Filter::Bicubic, Resizer::Pillow)
    }),
    ("lanczos3_pillow", |gpu| {
        resized(gpu, Filter::Lanczos3, Resizer::Pillow)
    }),
    ("bilinear_opencv", |gpu| {
        resized(gpu, Filter::Bilinear, Resizer::Opencv)
    }),
    ("bilinear_whole", whole),
    ("surface", surface),
    ("denoising_loop", denoise),
    ("joined_graphs", joined),
    ("tensorrt", tensorrt),
    ("sticky_error", sticky),
];

/// As `benches/picture.rs` has it: what the processor takes is measured there too.
fn camera(filter: Filter, library: Resizer) -> CameraFile {
    CameraFile {
        role: "front".into(),
        source_size: CAMERA,
        ops: vec![PictureOp::Resize {
            width: SIDE,
            height: SIDE,
            fit: Fit::Stretch,
            filter,
            library,
            bytes: true,
            pad: 0.0,
        }],
        levels: vec![Levels {
            scale: 1.0 / 255.0,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        }],
        layout: Axes::Nchw,
        color: Colour::Rgb,
        history: 1,
        spacing_ms: 0.0,
        missing: None,
    }
}

fn picture(seed: usize) -> Vec<u8> {
    (0..CAMERA[0] * CAMERA[1] * 3)
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

/// Records work that has run once: modules are loaded lazily, and nothing may be loaded while recording.
fn record(stream: &Stream, mut work: impl FnMut() -> Result<(), CudaFault>) -> Graph {
    work().expect("runs once");
    stream.wait().expect("ends");
    stream.capture(work).expect("is recorded")
}

/// Picture to tensor and back to the host, recorded: with copies, or on memory that the device reads and writes where it is.
struct Stage {
    stream: Stream,
    graph: Graph,
    input: PictureStage,
    output: PinnedBuffer,
    _tensor: Option<DeviceBuffer>,
}

impl Stage {
    fn new(context: &Arc<Context>, way: &PictureWay, mapped: bool) -> Stage {
        let stream = Stream::new(context).expect("a stream");
        let input =
            PictureStage::new(context, &stream, way, mapped).expect("the driver takes the kernel");
        let bytes = SIDE * SIDE * 12;
        let output = PinnedBuffer::new(context, bytes).expect("pinned memory");
        let tensor = (!mapped).then(|| DeviceBuffer::new(context, bytes).expect("device memory"));
        let to = tensor
            .as_ref()
            .map_or(output.address(), DeviceBuffer::address);
        let work = || -> Result<(), CudaFault> {
            input.put(&stream, to)?;
            match &tensor {
                Some(tensor) => stream.copy_out(&output, tensor),
                None => Ok(()),
            }
        };
        let graph = record(&stream, work);
        Stage {
            stream,
            graph,
            input,
            output,
            _tensor: tensor,
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

/// One kind of resize: the kernel beside the processor's path, its numbers and its time.
fn resize(gpu: &Gpu, way: &PictureWay, fill: &mut dyn FnMut(&[u8], &mut [f32]) -> bool) -> Value {
    let mut expected = vec![0.0_f32; SIDE * SIDE * 3];
    let mut figures = json!({});
    for (name, mapped) in [("copied", false), ("mapped", true)] {
        if mapped && !gpu.device.maps_host {
            figures[name] = json!("the device cannot map the host's memory");
            continue;
        }
        let mut stage = Stage::new(&gpu.context, way, mapped);
        let (mut other, mut farthest) = (0, 0.0_f32);
        for seed in 0..4 {
            let rgb = picture(seed);
            assert!(fill(&rgb, &mut expected));
            stage.run(Some(&rgb));
            for (bytes, expected) in stage.output.bytes().chunks_exact(4).zip(&expected) {
                let found = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                other += usize::from(found.to_bits() != expected.to_bits());
                farthest = farthest.max((found - expected).abs());
            }
        }
        assert!(farthest <= 1e-5, "{name}: {farthest} from the processor's");
        let rgb = picture(9);
        figures[name] = json!({
            "values_with_other_bits": other,
            "of": 4 * expected.len(),
            "largest_difference": farthest,
            "graph_replay": timed(|| stage.run(None)),
            "input_update_and_graph": timed(|| stage.run(Some(&rgb))),
        });
    }
    let rgb = picture(9);
    figures["processor"] = timed(|| assert!(fill(std::hint::black_box(&rgb), &mut expected)));
    figures
}

/// The way of most pictures.
fn bilinear() -> PictureWay {
    let camera = camera(Filter::Bilinear, Resizer::Pillow);
    let feed = Feed::new(&camera, "camera").expect("a camera");
    feed.way().expect("one kernel")
}

/// A bundle's own kind, in floats.
fn resized(gpu: &Gpu, filter: Filter, library: Resizer) -> Value {
    let mut feed = Feed::new(&camera(filter, library), "camera").expect("a camera");
    let way = feed.way().expect("one kernel");
    resize(gpu, &way, &mut |rgb, tensor| feed.fill(rgb, tensor))
}

/// In whole numbers, as a bundle of one graph has it.
fn whole(gpu: &Gpu) -> Value {
    let mut picture =
        Picture::new(CAMERA, [SIDE; 2], 1.0 / 255.0).expect("sides that a camera may have");
    let way = picture.way();
    resize(gpu, &way, &mut |rgb, tensor| {
        picture.fill(rgb, tensor).is_ok()
    })
}

/// All parts, or the one that [`parts::PART`] names.
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
            parts::keep(&json!({"skipped": fault.to_string()}));
            return;
        }
    };
    let device = driver.device(0).expect("a device");
    match parts::this() {
        None => all_parts(&device),
        Some(name) => {
            let context = driver.context(&device).expect("a context");
            let gpu = Gpu {
                settings,
                device,
                context,
            };
            one_part(&name, gpu);
        }
    }
}

/// Without a context of its own: the parts have theirs, one after the other.
fn all_parts(device: &Device) {
    let mut figures = json!({
        "device": device.name,
        "compute": format!("{}.{}", device.compute.0, device.compute.1),
        "cuda_driver": device.driver,
        "integrated": device.integrated,
        "picture": "640x480 RGB to 224x224 floats, channels first, normalised, and back to the host",
    });
    let names = PARTS.map(|(name, _)| name);
    let failed = parts::run("the_gpu", &names, PART_MAX, &mut figures, parts::keep);
    let (count, all, why) = (failed.len(), names.len(), failed.join("; "));
    assert!(failed.is_empty(), "{count} of {all} parts failed: {why}");
}

#[test]
fn parts_that_all_hang_end_within_what_run_sh_gives_them() {
    let (_, rest) = include_str!("run.sh")
        .split_once("TensorRT as far as it goes without a plan}\" ")
        .expect("the part that is this test");
    let given = rest.split_whitespace().next().expect("seconds");
    let given: u64 = given.parse().expect("seconds");
    let all = PART_MAX.as_secs() * PARTS.len() as u64;
    assert!(all < given, "{all} of {given} s");
}

fn one_part(name: &str, gpu: Gpu) {
    let Some((_, part)) = PARTS.iter().find(|(known, _)| *known == name) else {
        let names = PARTS.map(|(name, _)| name);
        panic!("{}: expected one of {names:?}, found {name}", parts::PART);
    };
    let found = part(&gpu);
    // What the part made is let go of, and now the context too: a process that ends badly over that has not passed.
    drop(gpu);
    let text = serde_json::to_string_pretty(&found).expect("JSON");
    println!("{name}: {text}");
    parts::keep(&found);
}

/// A camera's NV12 in the device's memory, in rows, into RGB: every pixel beside the colours' definition, and the time. Tiled
/// memory and EGL images are `tests/hw/nvmm.sh`, on a Jetson.
fn surface(gpu: &Gpu) -> Value {
    const PITCH: usize = 768;
    let context = &gpu.context;
    let [width, height] = CAMERA;
    let stream = Stream::new(context).expect("a stream");
    let mut host = PinnedBuffer::new(context, PITCH * height * 3 / 2).expect("pinned memory");
    let bytes: Vec<u8> = (0..host.bytes().len())
        .map(|at| ((at * 11 + at / PITCH * 37) % 256) as u8)
        .collect();
    host.bytes().copy_from_slice(&bytes);
    let planes = DeviceBuffer::new(context, bytes.len()).expect("device memory");
    stream.copy_in(&planes, &host).expect("copies");
    stream.wait().expect("ends");
    let chroma = planes.address() + (PITCH * height) as u64;
    let rows = Planes::Rows([(planes.address(), PITCH), (chroma, PITCH)]);
    let shares = [0.2126, 0.0722];
    let pixels = Pixels::Nv12(Colours {
        shares,
        full_range: false,
    });
    let level = |x: usize, y: usize| -> [f64; 3] {
        let at = PITCH * (height + y / 2) + x / 2 * 2;
        let luma = (f64::from(bytes[y * PITCH + x]) - 16.0) / 219.0;
        let [blue, red] = [at, at + 1].map(|at| (f64::from(bytes[at]) - 128.0) / 224.0);
        let [r, b] = shares;
        let [red, blue] = [luma + red * 2.0 * (1.0 - r), luma + blue * 2.0 * (1.0 - b)];
        let green = (luma - r * red - b * blue) / (1.0 - r - b);
        [red, green, blue].map(|share| (share * 255.0).clamp(0.0, 255.0))
    };
    let mut figures = json!({"picture": "640x480 NV12 in rows of 768 bytes, to RGB on the host"});
    for (name, mapped) in [("copied", false), ("mapped", true)] {
        if mapped && !gpu.device.maps_host {
            continue;
        }
        let mut stage = SurfaceStage::new(context, CAMERA, mapped).expect("the kernel");
        let rgb = stage.read(&stream, pixels, rows).expect("runs");
        let mut farthest = 0.0_f64;
        for (at, found) in rgb.chunks_exact(3).enumerate() {
            for (found, want) in found.iter().zip(level(at % width, at / width)) {
                farthest = farthest.max((f64::from(*found) - want).abs());
            }
        }
        assert!(
            farthest <= 0.51,
            "{name}: {farthest} levels from the definition"
        );
        figures[name] = json!({
            "largest_difference_levels": farthest,
            "surface_to_rgb": timed(|| assert!(!stage.read(&stream, pixels, rows).expect("runs").is_empty())),
        });
    }
    figures
}

/// Numbers of a chunk: 50 actions of 32.
const SAMPLE: usize = 1_600;

/// Ten steps of a loop whose graph says the sample itself and its time: recorded whole, and step by step over the host, which
/// is what it was before. The bits beside the processor's.
fn denoise(gpu: &Gpu) -> Value {
    let context = &gpu.context;
    let euler = Update::Euler { by: -0.1 };
    let ddim = Update::Ddim {
        says: Says::Noise,
        clip: Some(1.0),
        rest: 0.6,
        share: 0.8,
        clean: 0.9,
        noise: 0.435_889_9,
    };
    let mut figures = json!({"sample": SAMPLE, "steps": 10});
    for (name, update) in [("euler", euler), ("ddim", ddim)] {
        let stream = Stream::new(context).expect("a stream");
        let step = |at: usize| LoopStep {
            time: 1.0 - 0.1 * at as f32,
            update,
        };
        let steps: Vec<LoopStep> = (0..10).map(step).collect();
        let kind = Some((Dtype::F32, SAMPLE));
        let whole = LoopStage::new(context, &stream, &steps, SAMPLE, kind);
        let whole = whole.expect("the driver takes the kernel");
        let device = || DeviceBuffer::new(context, SAMPLE * 4).expect("device memory");
        let (sample, said, time) = (device(), device(), device());
        let mut host = PinnedBuffer::new(context, SAMPLE * 4).expect("pinned memory");
        // What stands for a graph: the sample itself at even steps, its time at odd ones. Ten of them, so that it begins anew.
        let mut turn = 0;
        let mut body = || -> Result<(), CudaFault> {
            turn += 1;
            let from = if turn % 2 == 1 { &sample } else { &time };
            stream.copy_within(&said, from, 0)
        };
        let graph = record(&stream, || {
            stream.copy_in(&sample, &host)?;
            whole.put(&stream, &sample, Some(&time), said.address(), &mut body)?;
            stream.copy_out(&host, &sample)
        });
        let begin: Vec<f32> = (0..SAMPLE)
            .map(|at| (at as f32 * 0.37).sin() * 2.0)
            .collect();
        let mut expected = begin.clone();
        for (at, step) in steps.iter().enumerate() {
            for x in &mut expected {
                let said = if at % 2 == 0 { *x } else { step.time };
                *x = match step.update {
                    Update::Euler { by } => *x + by * said,
                    Update::Ddim {
                        rest,
                        share,
                        clean,
                        noise,
                        ..
                    } => {
                        let estimate = ((*x - rest * said) / share).clamp(-1.0, 1.0);
                        clean * estimate + noise * said
                    }
                };
            }
        }
        host.bytes().copy_from_slice(bytes_of(&begin).as_slice());
        stream.launch(&graph).expect("launches");
        stream.wait().expect("ends");
        let other = host
            .bytes()
            .chunks_exact(4)
            .zip(&expected)
            .filter(|(found, expected)| **found != expected.to_bits().to_le_bytes()[..])
            .count();
        assert_eq!(
            other, 0,
            "{name}: values with other bits than the processor's"
        );
        let run = |graph: &Graph| {
            stream.launch(graph).expect("launches");
            stream.wait().expect("ends");
        };
        let one = LoopStage::new(context, &stream, &steps[..1], SAMPLE, kind).expect("a step");
        let mut same = || stream.copy_within(&said, &sample, 0);
        let step = record(&stream, || {
            stream.copy_in(&sample, &host)?;
            one.put(&stream, &sample, Some(&time), said.address(), &mut same)?;
            stream.copy_out(&host, &sample)
        });
        figures[name] = json!({
            "values_with_other_bits": other,
            "one_graph": timed(|| run(&graph)),
            "a_graph_a_step_over_the_host": timed(|| (0..10).for_each(|_| run(&step))),
        });
    }
    figures
}

fn bytes_of(numbers: &[f32]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

/// Two recorded runs, the second on what the first leaves on the device, a picture and a loop: apart, joined, and by way of a line, as
/// the stages of a policy go. The bits are the same.
fn joined(gpu: &Gpu) -> Value {
    let (context, values) = (&gpu.context, SIDE * SIDE * 3);
    let stream = Stream::new(context).expect("a stream");
    let input = PictureStage::new(context, &stream, &bilinear(), false);
    let mut input = input.expect("the driver takes the kernel");
    let steps = [0.1, 0.2, 0.3].map(|by| LoopStep {
        time: 0.0,
        update: Update::Euler { by },
    });
    let turns = LoopStage::new(context, &stream, &steps, values, None).expect("a loop");
    let device = || DeviceBuffer::new(context, values * 4).expect("device memory");
    let (tensor, said) = (device(), device());
    let mut output = PinnedBuffer::new(context, values * 4).expect("pinned memory");
    let first = Arc::new(record(&stream, || input.put(&stream, tensor.address())));
    let mut body = || stream.copy_within(&said, &tensor, 0);
    let second = Arc::new(record(&stream, || {
        turns.put(&stream, &tensor, None, said.address(), &mut body)?;
        stream.copy_out(&output, &tensor)
    }));
    let both = [Arc::clone(&first), Arc::clone(&second)];
    let one = stream.join(&both).expect("the driver joins them");
    let (mut line, mut joint) = (Line::new(stream), Joint::default());
    let mut bits = |line: &mut Line, seed: usize, launch: &mut dyn FnMut(&mut Line)| {
        input.bytes().copy_from_slice(&picture(seed));
        output.bytes().fill(0);
        launch(line);
        line.wait().expect("ends");
        output.bytes().to_vec()
    };
    let mut apart = |line: &mut Line| {
        line.stream.launch(&first).expect("launches");
        line.stream.wait().expect("ends");
        line.stream.launch(&second).expect("launches");
    };
    let expected = [0, 1].map(|seed| bits(&mut line, seed, &mut apart));
    assert!(expected[0] != expected[1], "two pictures, the same bits");
    // Each comes after the other picture, which is still on the device.
    for (seed, expected) in expected.iter().enumerate() {
        let found = bits(&mut line, seed, &mut |line: &mut Line| {
            line.stream.launch(&one).expect("launches");
        });
        assert!(found == *expected, "joined: other bits than apart");
    }
    for (turn, launches) in [2, 1, 1].into_iter().enumerate() {
        line.listen();
        let found = bits(&mut line, turn % 2, &mut |line: &mut Line| {
            line.defer(&first).expect("is due");
            line.launch(&second, &mut joint).expect("launches");
        });
        let told = line.heard();
        let launched = told.iter().filter(|done| matches!(done, Done::Launched(_)));
        assert_eq!(launched.count(), launches, "launches of turn {turn}");
        assert!(
            found == expected[turn % 2],
            "by way of a line: other bits than apart in turn {turn}"
        );
    }
    let stream = &line.stream;
    json!({
        "values": values,
        "values_with_other_bits": 0,
        "two_graphs": timed(|| {
            stream.launch(&first).expect("launches");
            stream.launch(&second).expect("launches");
            stream.wait().expect("ends");
        }),
        "one_graph": timed(|| {
            stream.launch(&one).expect("launches");
            stream.wait().expect("ends");
        }),
    })
}

/// A kernel that writes where no memory is: the driver says so at the wait and at every call from then on, our code calls that an error
/// that sticks, and all can be let go of.
fn sticky(gpu: &Gpu) -> Value {
    /// In the page that no process and no device has.
    const WILD: u64 = 0x10;
    const ILLEGAL_ADDRESS: i32 = 700;
    let context = &gpu.context;
    let stream = Stream::new(context).expect("a stream");
    let input = PictureStage::new(context, &stream, &bilinear(), false);
    let input = input.expect("the driver takes the kernel");
    let good = DeviceBuffer::new(context, SIDE * SIDE * 12).expect("device memory");
    input.put(&stream, good.address()).expect("is put");
    stream.wait().expect("the kernel itself is sound");
    input.put(&stream, WILD).expect("is put, and fails later");
    let fault = stream.wait().expect_err("no memory is there");
    assert_eq!(fault.code, ILLEGAL_ADDRESS, "{fault}");
    assert!(fault.sticky(), "{fault}: expected one that sticks");
    let later = [
        ("a wait", stream.wait().err()),
        ("a run", input.put(&stream, good.address()).err()),
        ("memory", DeviceBuffer::new(context, 16).err()),
    ];
    let mut figures = json!({"at_the_wait": fault.to_string()});
    for (what, fault) in later {
        let fault = fault.unwrap_or_else(|| panic!("{what} after it: expected the same fault"));
        assert!(fault.sticky(), "{what} after it: {fault}");
        figures[what] = json!(fault.to_string());
    }
    figures
}

/// The library as far as it goes without a plan: loads, speaks, has a runtime, refuses garbage in words.
fn tensorrt(gpu: &Gpu) -> Value {
    let settings = &gpu.settings;
    let library = match Library::open(settings.tensorrt.as_deref()) {
        Ok(library) => Arc::new(library),
        Err(fault) => {
            assert!(
                std::env::var_os("TENDON_GPU_TENSORRT").is_none_or(|word| word != "required"),
                "TENDON_GPU_TENSORRT=required: {fault}"
            );
            println!("skipped: {fault}");
            return json!({"skipped": fault.to_string()});
        }
    };
    let version = library.words();
    let platform = Platform::find(settings).expect("driver, device and library are there");
    let session = Session::runtime(&library).expect("a runtime, as there is a driver");
    let messages = session.messages();
    let at_first = messages.all().len();
    let fault = session
        .read(b"garbage that is no plan".to_vec())
        .expect_err("refused");
    let said = fault.to_string();
    // What was said before is forgotten when a plan is read: this is about the garbage.
    let heard = heard::the_error(&messages.all(), messages.recorded(), &said)
        .unwrap_or_else(|why| panic!("{why}"));
    json!({
        "version": version,
        "identity": platform.identity().to_string(),
        "garbage_refused": said,
        "errors_recorded": heard.recorded,
        "errors_logged": heard.logged,
        "lines_logged_before": at_first,
    })
}
