// SPDX-License-Identifier: Apache-2.0
//! 640x480 RGB -> 224x224 floats, channels first, one core: our way beside those of `fast_image_resize` and OpenCV.
//!
//! With a Python that has `opencv-python-headless` and `numpy` in the variable PEERS_PYTHON, the three take turns in one run
//! and the table of their medians and ratios is printed: a busy machine is as busy for each.

use criterion::{Criterion, criterion_group, criterion_main};
use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use std::hint::black_box;
use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;
use tendon::policy::picture::kernel::{Filter, Library};
use tendon::policy::picture::{Axes, CameraFile, Colour, Feed, Fit, Levels, PictureOp};

const FROM: [usize; 2] = [640, 480];
const SIDE: usize = 224;

fn noise() -> Vec<u8> {
    let mut dice = 1_u32;
    (0..FROM[0] * FROM[1] * 3)
        .map(|_| {
            dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (dice >> 24) as u8
        })
        .collect()
}

fn ours(fit: Fit, filter: Filter, library: Library) -> Feed {
    let file = CameraFile {
        role: "front".into(),
        source_size: FROM,
        ops: vec![PictureOp::Resize {
            width: SIDE,
            height: SIDE,
            fit,
            filter,
            library,
            bytes: library != Library::Torch,
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
    };
    Feed::new(&file, "bench").expect("a camera that works")
}

fn picture(criterion: &mut Criterion) {
    let rgb = noise();
    let mut tensor = vec![0.0_f32; 3 * SIDE * SIDE];
    let ways = [
        (
            "pillow bilinear stretch",
            Fit::Stretch,
            Filter::Bilinear,
            Library::Pillow,
        ),
        (
            "pillow bicubic stretch",
            Fit::Stretch,
            Filter::Bicubic,
            Library::Pillow,
        ),
        (
            "pillow lanczos3 stretch",
            Fit::Stretch,
            Filter::Lanczos3,
            Library::Pillow,
        ),
        (
            "torch bilinear pad",
            Fit::PadCenter,
            Filter::Bilinear,
            Library::Torch,
        ),
        (
            "opencv bilinear stretch",
            Fit::Stretch,
            Filter::Bilinear,
            Library::Opencv,
        ),
    ];
    for (name, fit, filter, library) in ways {
        let mut feed = ours(fit, filter, library);
        criterion.bench_function(&format!("picture/tendon {name}"), |bencher| {
            bencher.iter(|| feed.fill(black_box(&rgb), &mut tensor));
        });
    }
    let source = Image::from_vec_u8(FROM[0] as u32, FROM[1] as u32, rgb, PixelType::U8x3)
        .expect("a picture");
    let mut small = Image::new(SIDE as u32, SIDE as u32, PixelType::U8x3);
    let mut resizer = Resizer::new();
    for (name, filter) in [
        ("bilinear", FilterType::Bilinear),
        ("bicubic", FilterType::CatmullRom),
        ("lanczos3", FilterType::Lanczos3),
    ] {
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        criterion.bench_function(
            &format!("picture/fast_image_resize {name} and spread"),
            |bencher| {
                bencher.iter(|| {
                    resizer
                        .resize(black_box(&source), &mut small, &options)
                        .expect("sizes fit");
                    spread(&small, &mut tensor);
                });
            },
        );
    }
}

/// Turns that each takes.
const TURNS: usize = 25;
/// Pictures a turn.
const PICTURES: usize = 20;

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn timed(mut work: impl FnMut()) -> Vec<f64> {
    let times = (0..PICTURES).map(|_| {
        let began = Instant::now();
        work();
        began.elapsed().as_secs_f64() * 1e3
    });
    times.collect()
}

/// OpenCV's process: told a kernel and a number of pictures, it answers with a time for each, in ms.
struct Opencv {
    child: Child,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Opencv {
    fn start() -> Option<Opencv> {
        let python = std::env::var_os("PEERS_PYTHON")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/preprocess.py");
        let mut child = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("PEERS_PYTHON starts");
        let answers = BufReader::new(child.stdout.take().expect("piped")).lines();
        Some(Opencv { child, answers })
    }

    fn times(&mut self, kernel: &str) -> Vec<f64> {
        let mut orders = self.child.stdin.as_ref().expect("piped");
        writeln!(orders, "{kernel} {PICTURES}").expect("it listens");
        let line = self.answers.next().expect("an answer").expect("text");
        let times = line
            .split_whitespace()
            .map(|time| time.parse().expect("a time"));
        times.collect()
    }
}

impl Drop for Opencv {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Ours, `fast_image_resize` and OpenCV in turns.
fn beside(_: &mut Criterion) {
    let Some(mut opencv) = Opencv::start() else {
        return;
    };
    let rgb = noise();
    let mut tensor = vec![0.0_f32; 3 * SIDE * SIDE];
    let source = Image::from_vec_u8(FROM[0] as u32, FROM[1] as u32, rgb.clone(), PixelType::U8x3)
        .expect("a picture");
    let mut small = Image::new(SIDE as u32, SIDE as u32, PixelType::U8x3);
    let mut resizer = Resizer::new();
    println!(
        "640x480 -> 224x224 floats, channels first, one core; medians of {TURNS} turns of {PICTURES} pictures, in ms"
    );
    for (name, filter, library, theirs, kernel) in [
        (
            "bilinear, antialiased (Pillow)",
            Filter::Bilinear,
            Library::Pillow,
            ResizeAlg::Convolution(FilterType::Bilinear),
            "area",
        ),
        (
            "bicubic, antialiased (Pillow)",
            Filter::Bicubic,
            Library::Pillow,
            ResizeAlg::Convolution(FilterType::CatmullRom),
            "area",
        ),
        (
            "lanczos3, antialiased (Pillow)",
            Filter::Lanczos3,
            Library::Pillow,
            ResizeAlg::Convolution(FilterType::Lanczos3),
            "area",
        ),
        (
            "bilinear, two taps (OpenCV)",
            Filter::Bilinear,
            Library::Opencv,
            ResizeAlg::Interpolation(FilterType::Bilinear),
            "bilinear",
        ),
        (
            "bilinear, two taps in floats (torch)",
            Filter::Bilinear,
            Library::Torch,
            ResizeAlg::Interpolation(FilterType::Bilinear),
            "bilinear",
        ),
    ] {
        let mut feed = ours(Fit::Stretch, filter, library);
        let options = ResizeOptions::new().resize_alg(theirs);
        let (mut us, mut fir, mut cv) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TURNS {
            us.extend(timed(|| {
                assert!(feed.fill(black_box(&rgb), &mut tensor));
            }));
            fir.extend(timed(|| {
                resizer
                    .resize(black_box(&source), &mut small, &options)
                    .expect("sizes fit");
                spread(&small, &mut tensor);
            }));
            cv.extend(opencv.times(kernel));
        }
        let [us, fir, cv] = [us, fir, cv].map(median);
        println!(
            "{name:38} ours {us:.3}, fast_image_resize {fir:.3} (ours / it {:.2}), OpenCV {kernel} {cv:.3} (ours / it {:.2})",
            us / fir,
            us / cv
        );
    }
}

/// Bytes to normalised floats, channels first.
fn spread(small: &Image<'_>, tensor: &mut [f32]) {
    for (channel, plane) in tensor.chunks_exact_mut(SIDE * SIDE).enumerate() {
        for (slot, pixel) in plane.iter_mut().zip(small.buffer().chunks_exact(3)) {
            *slot = f32::from(pixel[channel]) * 0.017 - 2.0;
        }
    }
}

criterion_group!(benches, picture, beside);
criterion_main!(benches);
