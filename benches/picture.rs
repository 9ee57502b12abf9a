// SPDX-License-Identifier: Apache-2.0
//! 640x480 RGB -> 224x224 floats, channels first, one core: our way beside that of `fast_image_resize`. For OpenCV's on the same
//! machine run `python tests/peers/preprocess.py` right after.

use criterion::{Criterion, criterion_group, criterion_main};
use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use std::hint::black_box;
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
                    for (channel, plane) in tensor.chunks_exact_mut(SIDE * SIDE).enumerate() {
                        for (slot, pixel) in plane.iter_mut().zip(small.buffer().chunks_exact(3)) {
                            *slot = f32::from(pixel[channel]) * 0.017 - 2.0;
                        }
                    }
                });
            },
        );
    }
}

criterion_group!(benches, picture);
criterion_main!(benches);
