// SPDX-License-Identifier: Apache-2.0
//! Cost of judging one picture: percentiles of single calls. Of a good one, which goes through all detectors, over its size: the
//! cost is that of 1,024 samples, so that it should hardly grow with the picture but for the memory that is not in a cache. And of
//! each detector by itself: a picture with its fault, from the call to the verdict, and what of that is beyond what those before
//! it cost. Those that look at pixels share one pass of sampling, which is in the first of them.

use hdrhistogram::Histogram;
use std::hint::black_box;
use std::time::Instant;
use tendon::core::camera::{CameraFault, Expected, Health, Picture};
use tendon::core::units::{MS, Mono};

const PICTURES: u32 = 5_000;
const PERIOD_NS: u64 = 33 * MS;
const AGE_MAX_NS: u64 = 150 * MS;
/// Of the faults.
const SIZE: [usize; 2] = [640, 480];

fn main() {
    println!("judging a picture, us: size: p50 p99 max");
    for (width, height) in [
        (224, 224),
        (640, 480),
        (1280, 720),
        (1920, 1080),
        (3840, 2160),
    ] {
        let times = good([width, height]);
        println!("{width}x{height}: {}", in_us(&times));
    }
    let [width, height] = SIZE;
    println!(
        "each detector by itself, {width}x{height}, us: fault: p50 p99 max, p50 beyond the one before"
    );
    let mut before_ns = 0;
    for fault in [
        Fault::Size,
        Fault::Future,
        Fault::Backwards,
        Fault::Late,
        Fault::Repeated,
        Fault::Black,
        Fault::Saturated,
        Fault::Uniform,
        Fault::Noise,
        Fault::Torn,
        Fault::OtherView,
    ] {
        let times = found(fault);
        let p50_ns = times.value_at_quantile(0.5);
        let beyond_ns = p50_ns as f64 - before_ns as f64;
        println!(
            "{}: {} {:+.2}",
            fault.name(),
            in_us(&times),
            beyond_ns * 1e-3
        );
        before_ns = p50_ns;
    }
    let times = silence();
    println!("{}: {}", CameraFault::Silent, in_us(&times));
}

fn in_us(times: &Histogram<u64>) -> String {
    let us = |ns: u64| ns as f64 * 1e-3;
    format!(
        "{:.2} {:.2} {:.2}",
        us(times.value_at_quantile(0.5)),
        us(times.value_at_quantile(0.99)),
        us(times.max())
    )
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits")
}

fn health([width, height]: [usize; 2]) -> Health {
    Health::new(Expected {
        width,
        height,
        period_ns: Some(PERIOD_NS),
        age_max_ns: AGE_MAX_NS,
        noisy: true,
        moves: false,
    })
}

/// Four pictures to be shown in turn, so that each differs from the one before and a cache does not hold them all.
fn pictures([width, height]: [usize; 2], pixel: impl Fn(usize, usize) -> u8) -> Vec<Vec<u8>> {
    (0..4_usize)
        .map(|n| {
            (0..width * height)
                .flat_map(|at| [pixel(n, at), pixel(n, at + 1), pixel(n, at + 2)])
                .collect()
        })
        .collect()
}

fn soft(width: usize) -> impl Fn(usize, usize) -> u8 {
    move |n, at| (at % width / 2 + at / width / 3 + n * 7 + at % 3) as u8 / 2 + 40
}

fn good([width, height]: [usize; 2]) -> Histogram<u64> {
    let mut health = health([width, height]);
    let pictures = pictures([width, height], soft(width));
    let mut times = histogram();
    for seq in 0..PICTURES {
        let captured = Mono(u64::from(seq + 1) * PERIOD_NS);
        let rgb = &pictures[seq as usize % pictures.len()];
        let picture = Picture {
            seq,
            captured,
            width,
            height,
            rgb,
        };
        let started = Instant::now();
        let verdict = health.judge(captured, &picture);
        let took = started.elapsed().as_nanos() as u64;
        // Else the cost would be that of a refusal.
        assert_eq!(black_box(verdict), Ok(()));
        times.record(took).expect("in range");
    }
    times
}

/// In the order in which they are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Size,
    Future,
    Backwards,
    Late,
    Repeated,
    Black,
    Saturated,
    Uniform,
    Noise,
    Torn,
    OtherView,
}

impl Fault {
    fn name(self) -> CameraFault {
        match self {
            Fault::Size => CameraFault::Size,
            Fault::Future => CameraFault::Future,
            Fault::Backwards => CameraFault::Backwards,
            Fault::Late => CameraFault::Late,
            Fault::Repeated => CameraFault::Repeated,
            Fault::Black => CameraFault::Black,
            Fault::Saturated => CameraFault::Saturated,
            Fault::Uniform => CameraFault::Uniform,
            Fault::Noise => CameraFault::Noise,
            Fault::Torn => CameraFault::Torn,
            Fault::OtherView => CameraFault::OtherView,
        }
    }

    /// What the camera shows with it.
    fn pictures(self, good: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let [width, height] = SIZE;
        // No two alike, so that none repeats the one before.
        let grain = move |n: usize, at: usize| {
            let mixed = (at as u64 ^ (n as u64) << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 56
        };
        match self {
            Fault::Black => pictures(SIZE, |n, at| (grain(n, at) % 4) as u8),
            Fault::Saturated => pictures(SIZE, |n, at| 255 - (grain(n, at) % 4) as u8),
            Fault::Uniform => pictures(SIZE, |n, at| 120 + (grain(n, at) % 4) as u8),
            // Each byte by itself: neighbouring pixels have nothing in common.
            Fault::Noise => {
                let noise = |n| (0..width * height * 3).map(move |at| grain(n, at) as u8);
                (0..4).map(|n| noise(n).collect()).collect()
            }
            Fault::Torn => {
                let mut torn = good.to_vec();
                for rgb in &mut torn {
                    rgb[width * height / 2 * 3..].fill(128);
                }
                torn
            }
            // Upside down.
            Fault::OtherView => {
                let turned = good.iter().map(|rgb| rgb.iter().rev().copied().collect());
                turned.collect()
            }
            Fault::Size | Fault::Future | Fault::Backwards | Fault::Late | Fault::Repeated => {
                good.to_vec()
            }
        }
    }
}

/// A good picture, then one with the fault, again and again, each pair by a judge of its own.
fn found(fault: Fault) -> Histogram<u64> {
    let [width, height] = SIZE;
    let good = pictures(SIZE, soft(width));
    let spoilt = fault.pictures(&good);
    let mut times = histogram();
    for n in 0..PICTURES as usize {
        let mut health = health(SIZE);
        let began = Mono(1_000_000 * MS);
        let mut picture = Picture {
            seq: 1,
            captured: began,
            width,
            height,
            rgb: &good[n % 4],
        };
        assert_eq!(health.judge(began, &picture), Ok(()));
        let now = match fault {
            Fault::Late => began.plus_ns(2 * AGE_MAX_NS),
            _ => began.plus_ns(PERIOD_NS),
        };
        picture.seq = 2;
        picture.captured = match fault {
            Fault::Future => now.plus_ns(PERIOD_NS),
            Fault::Backwards => began.minus_ns(MS),
            Fault::Late => began.plus_ns(PERIOD_NS),
            _ => now,
        };
        picture.rgb = &spoilt[(n + usize::from(fault != Fault::Repeated)) % 4];
        match fault {
            Fault::Size => picture.height -= 1,
            Fault::OtherView => health.lost(),
            _ => {}
        }
        let started = Instant::now();
        let verdict = health.judge(now, &picture);
        let took = started.elapsed().as_nanos() as u64;
        assert_eq!(black_box(verdict), Err(fault.name()));
        times.record(took).expect("in range");
    }
    times
}

/// Of a camera that gives nothing any more, each time that it is asked about.
fn silence() -> Histogram<u64> {
    let [width, height] = SIZE;
    let mut health = health(SIZE);
    let captured = Mono(1_000_000 * MS);
    let picture = Picture {
        seq: 1,
        captured,
        width,
        height,
        rgb: &pictures(SIZE, soft(width))[0],
    };
    assert_eq!(health.judge(captured, &picture), Ok(()));
    let mut times = histogram();
    for _ in 0..PICTURES {
        let now = captured.plus_ns(3 * PERIOD_NS);
        let started = Instant::now();
        let fault = health.fault(black_box(now));
        let took = started.elapsed().as_nanos() as u64;
        assert_eq!(black_box(fault), Some(CameraFault::Silent));
        times.record(took).expect("in range");
    }
    times
}
