// SPDX-License-Identifier: Apache-2.0
//! Records the animation of the README: `cargo run --release --example record_demo -- docs/demo.gif`
//!
//! Three episodes of the real pipeline in simulated time, seen through the robot's camera, at 10 frames a second.

use gif::{Encoder, Frame as GifFrame, Repeat};
use std::path::Path;
use std::process::ExitCode;
use tendon::bench::episode::{Ask, CAMERA_PX, Spec};
use tendon::runtime::demo::bench_config;
use tendon::runtime::deployment::Deployment;
use tendon::runtime::lockstep::Lockstep;

/// One picture in so many is kept.
const KEEP: u32 = 3;

fn record(path: &str) -> Result<(), Box<dyn std::error::Error>> {
    let lines = |problems: Vec<tendon::config::problem::Problem>| {
        problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla");
    let deployment =
        Deployment::load(bench_config(&bundle, false).map_err(lines)?).map_err(lines)?;
    let mut pipeline = Lockstep::new(deployment, 0);
    let side = CAMERA_PX as u16;
    let mut encoder = Encoder::new(std::fs::File::create(path)?, side, side, &[])?;
    encoder.set_repeat(Repeat::Infinite)?;
    for (seed, put) in [(11, true), (12, false), (14, true)] {
        let mut pictures = Vec::new();
        let spec = Spec {
            seed,
            put,
            held_out_position: false,
            ask: Ask::HeldOut,
        };
        let outcome = pipeline.episode(&spec, &mut |frame| {
            if frame.seq % KEEP == 0 {
                pictures.push(frame.rgb.clone());
            }
        })?;
        println!(
            "seed {seed}: {} pictures, done as asked: {}",
            pictures.len(),
            outcome.named_done
        );
        for rgb in &pictures {
            let mut frame = GifFrame::from_rgb_speed(side, side, rgb, 10);
            frame.delay = 10;
            encoder.write_frame(&frame)?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: record_demo FILE.gif");
        return ExitCode::from(2);
    };
    match record(&path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
