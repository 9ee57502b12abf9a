// SPDX-License-Identifier: Apache-2.0
//! Cost of judging one picture, over its size: percentiles of single calls. The cost is that of 1,024 samples, so that
//! it should hardly grow with the picture but for the memory that is not in a cache.

use hdrhistogram::Histogram;
use std::hint::black_box;
use std::time::Instant;
use tendon::core::camera::{Expected, Health, Picture};
use tendon::core::units::{MS, Mono};

const PICTURES: u32 = 5_000;

fn main() {
    println!("judging a picture, us: size: p50 p99 max");
    for (width, height) in [
        (224, 224),
        (640, 480),
        (1280, 720),
        (1920, 1080),
        (3840, 2160),
    ] {
        let times = measure(width, height);
        let us = |ns: u64| ns as f64 * 1e-3;
        println!(
            "{width}x{height}: {:.2} {:.2} {:.2}",
            us(times.value_at_quantile(0.5)),
            us(times.value_at_quantile(0.99)),
            us(times.max())
        );
    }
}

fn measure(width: usize, height: usize) -> Histogram<u64> {
    let expected = Expected {
        width,
        height,
        period_ns: None,
        age_max_ns: 150 * MS,
        noisy: true,
    };
    let mut health = Health::new(expected);
    // Four pictures in turn, so that each differs from the one before and a cache does not hold them all.
    let pictures: Vec<Vec<u8>> = (0..4_usize)
        .map(|n| {
            let pixel =
                |at: usize| (at % width / 2 + at / width / 3 + n * 7 + at % 3) as u8 / 2 + 40;
            (0..width * height)
                .flat_map(|at| [pixel(at), pixel(at + 1), pixel(at + 2)])
                .collect()
        })
        .collect();
    let mut times = Histogram::new(3).expect("three digits");
    let mut good = 0;
    for seq in 0..PICTURES {
        let captured = Mono(u64::from(seq + 1) * 33 * MS);
        let rgb = &pictures[seq as usize % pictures.len()];
        let started = Instant::now();
        let verdict = health.judge(
            captured,
            &Picture {
                seq,
                captured,
                width,
                height,
                rgb,
            },
        );
        let took = started.elapsed().as_nanos() as u64;
        good += u32::from(black_box(verdict).is_ok());
        times.record(took).expect("in range");
    }
    assert_eq!(
        good, PICTURES,
        "all of them are good: else the cost is that of a refusal"
    );
    times
}
