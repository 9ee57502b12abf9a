// SPDX-License-Identifier: Apache-2.0
//! `tendon bench-robot`: the bench robot alone, reached over zenoh.

use crate::cli::Failure;
use clap::Args;
use signal_hook::consts::{SIGUSR1, SIGUSR2};
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tendon::bench::bus::Servos;
use tendon::bench::lens::PictureFault;
use tendon::bench::process::{self, Clock, Settings};
use tendon::config::link::LinkConfig;
use tendon::config::{BenchParts, Config, Robot};
use tendon::core::units::Mono;
use tendon::runtime::deployment::Identities;
use tendon::runtime::{clock, demo};

/// Arguments of `tendon bench-robot`.
#[derive(Debug, Args)]
#[command(
    after_help = "To see what a runtime does when the camera is not well: SIGUSR1 switches it off, SIGUSR2 on again; with --stdin, a word and Enter breaks it: off, stuck, black, saturated, uniform, noise, torn, short, late, backwards, future, swapped; none mends it."
)]
pub struct Options {
    /// The endpoint on which the runtime listens.
    #[arg(long, value_name = "ENDPOINT", default_value = "tcp/127.0.0.1:7447")]
    connect: String,
    /// The deployment that it stands for, so that the two agree on names, limits and rate; its own if absent. What the runtime
    /// proves itself with (`link.user`, `link.tls_*`), the bench robot does too.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here as well, for somebody who measures at the motor controller.
    #[arg(long, value_name = "ENDPOINT", hide = true)]
    listen: Option<String>,
    /// Seed of the first scene.
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Servos that keep turning when their bus is cut, as some do: to see whether the commissioning finds them out.
    #[arg(long)]
    servos_run_on: bool,
    /// Read from standard input what shall be wrong with the camera, a word a line.
    #[arg(long)]
    stdin: bool,
}

/// Runs the verb, until Ctrl-C.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    let ending = super::ending()?;
    let camera_fault = Arc::new(AtomicUsize::new(0));
    for (signal, value) in [
        (SIGUSR1, PictureFault::Off as usize),
        (SIGUSR2, PictureFault::None as usize),
    ] {
        signal_hook::flag::register_usize(signal, Arc::clone(&camera_fault), value)
            .map_err(Failure::failed)?;
    }
    if options.stdin {
        let fault = Arc::clone(&camera_fault);
        std::thread::spawn(move || listen(&fault));
    }
    // Only the robot and the streams' names are needed here; the bundle is the runtime's.
    let own = Config::bench_parts(demo::TENDON_TOML, demo::ROBOT_TOML).map_err(super::problems)?;
    let BenchParts {
        robot,
        camera,
        period_ns,
        link,
    } = match &options.config {
        None => own,
        Some(path) => {
            let asked = Config::load_bench_parts(path).map_err(super::problems)?;
            fits(path, &asked.robot, &own.robot)?;
            asked
        }
    };
    let identities = Identities::of(&robot.name, &robot.joints);
    let settings = Settings {
        robot: robot.name.clone(),
        camera: camera.name,
        commands: identities.commands,
        states: identities.states,
        pictures: identities.pictures,
        joints: robot.joints.iter().map(|(_, joint)| *joint).collect(),
        period_ns,
        boot_id: std::collections::hash_map::RandomState::new().hash_one(clock::now()),
        scene: demo::scene(options.seed),
        servos: if options.servos_run_on {
            Servos::RunOn
        } else {
            Servos::Hold
        },
    };
    let link = LinkConfig {
        listen: options.listen.clone(),
        connect: Some(options.connect.clone()),
        ..link
    };
    let clock = Clock {
        now: clock::now as fn() -> Mono,
        sleep_until: clock::sleep_until,
    };
    process::run(&link, &settings, clock, &ending, &camera_fault).map_err(Failure::failed)
}

/// Limits may differ, but the bench has one arm.
fn fits(path: &Path, asked: &Robot, own: &Robot) -> Result<(), Failure> {
    let names = |robot: &Robot| {
        let names: Vec<&str> = robot.joints.iter().map(|(name, _)| name.as_str()).collect();
        names.join(", ")
    };
    let (found, expected) = (names(asked), names(own));
    if found == expected {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{}: its robot's joints are {found}; the bench robot's are {expected}: take the bench's robot.toml, and change numbers there",
        path.display()
    )))
}

/// Takes words from standard input until its end.
fn listen(fault: &AtomicUsize) {
    for line in std::io::stdin().lines().map_while(Result::ok) {
        let word = line.trim();
        match serde_json::from_value::<PictureFault>(word.into()) {
            Ok(known) => {
                fault.store(known as usize, Ordering::Relaxed);
                println!("camera: {word}");
            }
            Err(error) => eprintln!("tendon: {error}"),
        }
    }
}
