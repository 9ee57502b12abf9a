// SPDX-License-Identifier: Apache-2.0
//! The kernel that makes a tensor of a picture, its own source run by the fake driver, beside the processor's path.

use crate::fake::{BOTH, machine, plan_of};
use crate::path::spec;
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::mpsc;
use tendon::cuda::memory::{DeviceBuffer, PinnedBuffer};
use tendon::cuda::picture::{PTX, PictureStage};
use tendon::cuda::{CudaFault, Driver, Stream, surface, turns};
use tendon::engine::tensorrt::{Memory, Platform, Settings, TensorRt};
use tendon::policy::image::Picture;
use tendon::policy::picture::kernel::{Filter, Library};
use tendon::policy::picture::{Axes, CameraFile, Colour, Feed, Fit, Levels, PictureOp};
use tendon::ports::{Dtype, Engine, EngineFault, StageSpec, Tensor, TensorSpec};
use tendon::runtime::clock;

fn camera(source: [usize; 2], ops: Vec<PictureOp>) -> CameraFile {
    CameraFile {
        role: "front".into(),
        source_size: source,
        ops,
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

fn resize(to: [usize; 2], fit: Fit, filter: Filter, library: Library) -> PictureOp {
    PictureOp::Resize {
        width: to[0],
        height: to[1],
        fit,
        filter,
        library,
        bytes: library != Library::Torch,
        pad: 0.0,
    }
}

fn noise(len: usize, mut dice: u32) -> Vec<u8> {
    let mut next = || {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (dice >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Every library's every kernel, each way of fitting, shrinking and enlarging, and what comes before and after.
fn cameras() -> Vec<(String, CameraFile)> {
    let mut all = Vec::new();
    let libraries = [
        Library::Pillow,
        Library::TorchAntialias,
        Library::Torch,
        Library::Tensorflow,
        Library::Opencv,
    ];
    let filters = [
        Filter::Bilinear,
        Filter::Bicubic,
        Filter::Lanczos3,
        Filter::Area,
    ];
    let fits = [Fit::Stretch, Fit::PadCenter, Fit::PadLeftTop, Fit::Cover];
    for library in libraries {
        for filter in filters {
            for fit in fits {
                for (from, to) in [
                    ([64, 48], [22, 22]),
                    ([20, 15], [33, 40]),
                    ([31, 7], [5, 9]),
                ] {
                    let name = format!("{library:?} {filter:?} {fit:?} {from:?} {to:?}");
                    let mut file = camera(from, vec![resize(to, fit, filter, library)]);
                    if let [PictureOp::Resize { pad, .. }] = &mut file.ops[..] {
                        *pad = if library == Library::Torch {
                            -255.0
                        } else {
                            114.0
                        };
                    }
                    all.push((name, file));
                }
            }
        }
    }
    let small = || resize([24, 18], Fit::Stretch, Filter::Bicubic, Library::Pillow);
    let crop = |width, height| PictureOp::CenterCrop { width, height };
    for (name, ops) in [
        ("as it is", vec![]),
        ("turned", vec![PictureOp::Rotate180]),
        (
            "turned and cropped",
            vec![PictureOp::Rotate180, crop(30, 31)],
        ),
        (
            "cropped, turned, cropped",
            vec![crop(41, 40), PictureOp::Rotate180, crop(21, 30)],
        ),
        (
            "turned, cropped, resized",
            vec![PictureOp::Rotate180, crop(40, 33), small()],
        ),
        ("resized and cropped", vec![small(), crop(13, 11)]),
        (
            "padded and cropped into",
            vec![
                resize([24, 24], Fit::PadCenter, Filter::Bilinear, Library::Opencv),
                crop(10, 23),
            ],
        ),
        (
            "a part of the area",
            vec![PictureOp::CenterArea {
                area: 0.9,
                width: 20,
                height: 21,
            }],
        ),
        (
            "cropped to a part of the area",
            vec![
                crop(44, 44),
                PictureOp::CenterArea {
                    area: 0.9,
                    width: 20,
                    height: 21,
                },
            ],
        ),
    ] {
        all.push((name.to_owned(), camera([64, 48], ops.clone())));
        let mut other = camera([64, 48], ops);
        other.layout = Axes::Nhwc;
        other.color = Colour::Bgr;
        other.levels.push(Levels {
            scale: 2.0 / 255.0,
            mean: [1.0; 3],
            std: [0.5, 1.0, 2.0],
        });
        all.push((format!("{name}, other layout"), other.clone()));
        other.layout = Axes::Nchw;
        all.push((format!("{name}, two sets, blue first"), other));
    }
    all
}

#[test]
fn the_kernel_gives_the_processors_bits() {
    let fakes = machine();
    let driver = Driver::open(Some(&fakes.driver)).expect("the fake driver");
    let context = driver
        .context(&driver.device(0).expect("a device"))
        .expect("a context");
    let stream = Stream::new(&context).expect("a stream");
    let (mut tried, mut none) = (0, 0);
    for (index, (name, file)) in cameras().into_iter().enumerate() {
        let Ok(mut feed) = Feed::new(&file, "camera") else {
            none += 1; // A kernel that the library does not have.
            continue;
        };
        let way = feed.way().unwrap_or_else(|| panic!("{name}: no way"));
        let rgb = noise(file.source_size.iter().product::<usize>() * 3, index as u32);
        let mut expected = vec![0.0_f32; feed.values()];
        assert!(feed.fill(&rgb, &mut expected), "{name}");
        for mapped in [false, true] {
            let mut stage = PictureStage::new(&context, &stream, &way, mapped).expect("a stage");
            let tensor = DeviceBuffer::new(&context, expected.len() * 4).expect("memory");
            let mut back = PinnedBuffer::new(&context, expected.len() * 4).expect("memory");
            // Recorded, then replayed on another picture than it was recorded with.
            let graph = stream
                .capture(|| -> Result<(), CudaFault> {
                    stage.put(&stream, tensor.address())?;
                    stream.copy_out(&back, &tensor)
                })
                .expect("is recorded");
            stage.bytes().copy_from_slice(&rgb);
            stream.launch(&graph).expect("launches");
            stream.wait().expect("ends");
            let found: Vec<f32> = back
                .bytes()
                .chunks_exact(4)
                .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                .collect();
            let differs = found.iter().zip(&expected).position(|(a, b)| a != b);
            if let Some(at) = differs {
                panic!(
                    "{name}: value {at}: {} on the device, {} here",
                    found[at], expected[at]
                );
            }
        }
        tried += 1;
    }
    println!("{tried} ways, {none} that no library has");
    assert!(tried >= 195, "{tried}");
}

/// An engine that is offered a camera's way: from then on the picture is made on the device, inside its graph.
#[test]
fn an_engine_makes_its_picture_itself() {
    let fakes = machine();
    let small = resize([2, 2], Fit::Stretch, Filter::Bicubic, Library::Pillow);
    let mut feed = Feed::new(&camera([16, 12], vec![small]), "camera").expect("a camera");
    let way = feed.way().expect("a way");
    for tables in BOTH {
        for memory in [Memory::Copied, Memory::Mapped] {
            let before = fakes.live();
            let settings = Settings {
                memory,
                ..fakes.settings(tables)
            };
            let platform = Platform::find(&settings).expect("the fakes");
            let mut engine =
                TensorRt::load(&platform, b"FAKEPLAN".to_vec(), &spec()).expect("loads");
            drop(platform);
            assert!(engine.picture(0).is_none());
            assert_eq!(
                engine.take_picture(1, &way),
                Ok(false),
                "tokens are no picture"
            );
            assert_eq!(engine.take_picture(0, &way), Ok(true));
            assert_eq!(engine.plain(), None);
            let mut found: Vec<Tensor> = spec().outputs.iter().map(Tensor::zeros).collect();
            // What is given for the image is not read.
            let given = [Tensor::F32(vec![1e9; 12]), Tensor::I32(vec![1, 2, 3, 4])];
            // The first run makes the context this thread's.
            engine.run(&given, &mut found).expect("runs");
            for seed in 0..3 {
                let rgb = noise(16 * 12 * 3, seed);
                let mut image = vec![0.0_f32; 12];
                assert!(feed.fill(&rgb, &mut image));
                fakes.forget();
                engine.picture(0).expect("a place").copy_from_slice(&rgb);
                engine.run(&given, &mut found).expect("runs");
                assert_eq!(
                    fakes.calls(),
                    ["cuGraphLaunch", "cuEventRecord", "cuEventSynchronize"]
                );
                let expected: Vec<f32> = image
                    .iter()
                    .enumerate()
                    .map(|(at, value)| 2.0 * value + (1 + at % 4) as f32)
                    .collect();
                assert_eq!(found[1], Tensor::F32(expected), "{tables:?} {memory:?}");
            }
            drop(engine);
            assert_eq!(fakes.live(), before, "something was not given back");
            // A driver that refuses the kernel is told, not passed over.
            let platform = Platform::find(&settings).expect("the fakes");
            let mut engine =
                TensorRt::load(&platform, b"FAKEPLAN".to_vec(), &spec()).expect("loads");
            fakes.fail("cuModuleLoadData", 0, 2);
            let fault = engine.take_picture(0, &way).expect_err("refused");
            fakes.fail("", 0, 0);
            assert!(
                fault.to_string().contains("CUDA_ERROR_OUT_OF_MEMORY"),
                "{fault}"
            );
        }
    }
}

/// Gives the first numbers of its one tensor.
struct First(StageSpec);

impl Engine for First {
    fn inputs(&self) -> &[TensorSpec] {
        &self.0.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.0.outputs
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        let ([Tensor::F32(from)], [Tensor::F32(into)]) = (inputs, outputs) else {
            return Err(EngineFault("tensors".into()));
        };
        let len = into.len();
        into.copy_from_slice(&from[..len]);
        Ok(())
    }
}

/// A small picture of a large tensor. Given by the host, the tensor is better copied than read by the device where it is; made by the
/// device, it never crosses, and the picture is better read where it is. What is timed must be what runs.
#[test]
fn the_kind_of_memory_is_chosen_for_what_crosses_after_the_offer() {
    let fakes = machine();
    let large = resize([32, 32], Fit::Stretch, Filter::Bilinear, Library::Pillow);
    let mut feed = Feed::new(&camera([8, 8], vec![large]), "camera").expect("a camera");
    let way = feed.way().expect("a way");
    let tensor = |name: &str, shape: &[usize]| TensorSpec {
        name: name.into(),
        dtype: Dtype::F32,
        shape: shape.to_vec(),
    };
    let spec = StageSpec {
        id: "policy".into(),
        inputs: vec![tensor("image", &[1, 3, 32, 32])],
        outputs: vec![tensor("first", &[1, 12])],
    };
    for tables in BOTH {
        let before = fakes.live();
        let platform = Platform::find(&fakes.settings(tables)).expect("the fakes");
        let load = || {
            let plan = plan_of(&spec, Box::new(First(spec.clone())), "");
            TensorRt::load(&platform, plan, &spec).expect("loads")
        };
        let mut given = load();
        fakes.slow_by_size(2_000, 1_000);
        let trial = given.choose_memory(&platform.device, clock::now);
        fakes.slow(0, 0);
        let trial = trial.expect("runs").expect("is tried");
        assert_eq!(trial.chosen, Memory::Copied, "{tables:?}: {trial}");
        drop(given);
        // The same machine; and one on which the picture's 192 bytes take long to read where they are.
        for (copy_us, touch_kib_us, chosen, crossed) in [
            (2_000, 1_000, Memory::Mapped, 0),
            (0, 20_000, Memory::Copied, 192),
        ] {
            let mut engine = load();
            let (tell, told) = mpsc::channel();
            engine.choose_at_last(&platform.device, clock::now, move |engine, trial| {
                let told = (engine.plain().map(str::to_owned), trial.cloned());
                tell.send(told).expect("somebody listens");
            });
            assert_eq!(engine.take_picture(0, &way), Ok(true));
            fakes.slow_by_size(copy_us, touch_kib_us);
            let settled = engine.settle();
            fakes.slow(0, 0);
            assert_eq!(settled, Ok(true));
            let (plain, trial) = told.try_recv().expect("told");
            let trial = trial.expect("is tried");
            assert_eq!(plain, None);
            assert_eq!(trial.chosen, chosen, "{tables:?}: {trial}");
            assert_eq!(engine.settle(), Ok(false), "once");
            for seed in 0..3 {
                let rgb = noise(8 * 8 * 3, seed);
                let mut image = vec![0.0_f32; 3 * 32 * 32];
                assert!(feed.fill(&rgb, &mut image));
                fakes.moved();
                engine.picture(0).expect("a place").copy_from_slice(&rgb);
                let mut found = [Tensor::F32(vec![0.0; 12])];
                let ignored = [Tensor::F32(vec![9e9; 3 * 32 * 32])];
                engine.run(&ignored, &mut found).expect("runs");
                assert_eq!(found[0], Tensor::F32(image[..12].to_vec()), "{trial}");
                let moved = fakes.moved();
                assert_eq!((moved.into, moved.kernels), (crossed, 1), "{trial}");
            }
        }
        drop(platform);
        assert_eq!(fakes.live(), before, "something was not given back");
    }
}

/// The other resampler, in whole numbers with rows first: `policy::image`, of a bundle of one graph.
#[test]
fn the_kernel_gives_the_bits_of_whole_numbers() {
    let fakes = machine();
    let driver = Driver::open(Some(&fakes.driver)).expect("the fake driver");
    let context = driver
        .context(&driver.device(0).expect("a device"))
        .expect("a context");
    let stream = Stream::new(&context).expect("a stream");
    for (source, size) in [
        ([224, 224], [96, 96]),
        ([640, 480], [96, 96]),
        ([31, 33], [7, 5]),
        ([50, 40], [96, 97]),
        ([7, 3], [5, 9]),
        ([20, 20], [20, 20]),
    ] {
        for (seed, scale) in [(1, 1.0 / 255.0), (2, 0.013)] {
            let mut picture = Picture::new(source, size, scale).expect("sides with pixels");
            let way = picture.way();
            let rgb = match seed {
                1 => noise(source[0] * source[1] * 3, seed),
                // Black and white side by side: sums beyond 255 and below 0, if there are such.
                _ => (0..source[0] * source[1] * 3)
                    .map(|at| if at / 6 % 2 == 0 { 255 } else { 0 })
                    .collect(),
            };
            let mut expected = vec![0.0_f32; size[0] * size[1] * 3];
            picture.fill(&rgb, &mut expected).expect("sizes match");
            let mut stage = PictureStage::new(&context, &stream, &way, false).expect("a stage");
            let tensor = DeviceBuffer::new(&context, expected.len() * 4).expect("memory");
            let mut back = PinnedBuffer::new(&context, expected.len() * 4).expect("memory");
            stage.bytes().copy_from_slice(&rgb);
            stage.put(&stream, tensor.address()).expect("put");
            stream.copy_out(&back, &tensor).expect("copied");
            stream.wait().expect("ends");
            let found: &[f32] = bytemuck::cast_slice(back.bytes());
            let differs = found
                .iter()
                .zip(&expected)
                .position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(differs, None, "{source:?} -> {size:?}");
        }
    }
    // What its sums in 32 bits cannot hold is refused, as is room that no byte fills.
    let good = Picture::new([64, 48], [20, 20], 1.0);
    let good = good.expect("sides with pixels").way();
    let mut broken = good.clone();
    broken.columns.weights[0] = 0.5;
    let mut large = good.clone();
    large.rows.weights.fill(32_000.0);
    large.rows.count = 1_000;
    large.rows.weights.resize(20_000, 32_000.0);
    large.rows.starts.fill(0);
    large.source[1] = 1_000;
    let mut shifted = good;
    shifted.shift = [1, 0];
    for way in [broken, large, shifted] {
        let fault = PictureStage::new(&context, &stream, &way, false);
        let fault = fault.err().expect("refused").to_string();
        assert!(fault.contains("whole weights"), "{fault}");
    }
}

#[test]
fn two_resizes_are_no_single_kernel() {
    let ops = vec![
        resize([30, 30], Fit::Stretch, Filter::Bilinear, Library::Pillow),
        resize([20, 20], Fit::Stretch, Filter::Bilinear, Library::Pillow),
    ];
    let feed = Feed::new(&camera([64, 48], ops), "camera").expect("a camera");
    assert_eq!(feed.way(), None);
}

#[test]
fn a_way_that_leaves_its_picture_is_refused() {
    let fakes = machine();
    let driver = Driver::open(Some(&fakes.driver)).expect("the fake driver");
    let context = driver
        .context(&driver.device(0).expect("a device"))
        .expect("a context");
    let stream = Stream::new(&context).expect("a stream");
    let small = resize([24, 18], Fit::Stretch, Filter::Bicubic, Library::Pillow);
    let good = Feed::new(&camera([64, 48], vec![small]), "camera").expect("a camera");
    let good = good.way().expect("a way");
    let mut far = good.clone();
    far.rows.starts[3] = 47;
    let mut before = good.clone();
    before.steps[0] = -3;
    let mut uneven = good.clone();
    uneven.columns.weights.pop();
    let mut unlevelled = good.clone();
    unlevelled.levels.clear();
    for (way, words) in [
        (far, "expected pixels within"),
        (before, "expected pixels within"),
        (uneven, "as many weights"),
        (unlevelled, "sets of levels"),
    ] {
        let fault = PictureStage::new(&context, &stream, &way, false)
            .err()
            .expect("refused");
        assert!(fault.to_string().contains(words), "{fault}");
    }
    // Each call that the driver may refuse is told, and nothing is left behind.
    for call in [
        "cuModuleLoadData",
        "cuModuleGetFunction",
        "cuMemHostAlloc",
        "cuMemAlloc_v2",
        "cuMemcpyHtoDAsync_v2",
    ] {
        let live = fakes.live();
        fakes.fail(call, 0, 2);
        let fault = PictureStage::new(&context, &stream, &good, false)
            .err()
            .expect("refused");
        fakes.fail("", 0, 0);
        let name = call.trim_end_matches("_v2");
        assert!(fault.to_string().contains(name), "{fault}");
        assert_eq!(fakes.live(), live, "after {call}");
    }
}

#[test]
fn the_committed_ptx_is_that_of_the_source() {
    for (name, ptx) in [
        ("picture", PTX),
        ("step", turns::PTX),
        ("surface", surface::PTX),
    ] {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/cuda/{name}.cu"));
        let source = std::fs::read(source).expect("there");
        let hash: String = Sha256::digest(source)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert!(
            ptx.contains(&format!("of {name}.cu, SHA-256 {hash}")),
            "{name}.cu was changed: make {name}.ptx anew (src/cuda/make_ptx.py)"
        );
        let code = ptx.lines().filter(|line| !line.starts_with("//"));
        // Fused sums, and divisions that are not IEEE 754's, have other bits.
        for other in ["fma.", "div.approx", "div.full", ".ftz"] {
            assert!(
                !code.clone().any(|line| line.contains(other)),
                "{name}: {other}"
            );
        }
        assert!(code.clone().any(|line| line.contains(".version 8.0")));
    }
}
