// SPDX-License-Identifier: Apache-2.0
//! `tendon cameras`: look at a deployment's cameras as the pipeline would, without a robot; or list what is plugged in.

use crate::cli::Failure;
use clap::Args;
use std::path::PathBuf;
use tendon::config::Config;
use tendon::config::camera::CameraSource;
use tendon::runtime::camera_look::{Seen, Watch, watch};

/// Arguments of `tendon cameras`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 1 if a camera that the robot needs is not good at the end. Cameras with source = \"link\" are left out: the runtime listens for them."
)]
pub struct Options {
    /// The deployment's tendon.toml.
    #[arg(long, value_name = "FILE", default_value = "tendon.toml")]
    config: PathBuf,
    /// How long to look.
    #[arg(long, default_value_t = 5.0, value_parser = parse_seconds)]
    seconds: f64,
    /// List kernel cameras with their stable paths and modes, and look at none.
    #[arg(long)]
    list: bool,
    /// Keep the good pictures in this new folder, one folder a camera, as a recording for source = "images". Each is coded once
    /// more as JPEG, in the camera's thread.
    #[arg(long, value_name = "FOLDER", conflicts_with = "list")]
    record: Option<PathBuf>,
    /// Figures as JSON.
    #[arg(long)]
    json: bool,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|seconds| (0.1..=86_400.0).contains(seconds))
        .ok_or_else(|| "expected 0.1 to 86400 seconds".to_owned())
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    if options.list {
        return list();
    }
    let ending = super::ending()?;
    let config = Config::load(&options.config).map_err(super::problems)?;
    let all: Vec<_> = config.cameras().cloned().collect();
    if all.iter().all(|camera| camera.source == CameraSource::Link) {
        return Err(Failure::Failed(
            "all cameras of this deployment come over the link: nothing to look at here".to_owned(),
        ));
    }
    let for_ns = (options.seconds * 1e9) as u64;
    let record = options.record.as_deref();
    let seen = watch(&all, config.skew_max_ns, for_ns, None, record, &ending);
    let seen = seen.map_err(Failure::failed)?;
    if options.json {
        let text = serde_json::to_string_pretty(&seen).map_err(Failure::failed)?;
        println!("{text}");
    } else {
        print(&seen);
    }
    let needed = |name: &str| {
        all.iter().any(|camera| {
            camera.name == name && camera.need == tendon::core::camera::skew::Need::Required
        })
    };
    let bad = seen
        .cameras
        .iter()
        .filter(|camera| needed(&camera.name))
        .find_map(|camera| Some((camera, camera.fault.as_ref()?)));
    // What was asked for, whether the robot needs that camera or not.
    let lost = |camera: &&Seen| record.is_some() && camera.recorded.is_none();
    let lost = seen.cameras.iter().find(lost);
    let lost = lost.and_then(|camera| Some((camera, camera.fault.as_ref()?)));
    match bad.or(lost) {
        Some((camera, fault)) => Err(Failure::Failed(format!(
            "camera \"{}\": {fault}",
            camera.name
        ))),
        None => Ok(()),
    }
}

fn print(seen: &Watch) {
    for camera in &seen.cameras {
        let format = camera
            .format
            .map_or(String::new(), |name| format!(", {name}"));
        println!(
            "{} ({}{format}): {} good, {:.1} Hz, capture to hand-over p50 {:.1} p99 {:.1} ms, between two {:.1} to {:.1} ms",
            camera.name,
            camera.source,
            camera.good,
            camera.rate_hz,
            camera.age_p50_ms,
            camera.age_p99_ms,
            camera.gap_min_ms,
            camera.gap_max_ms
        );
        for (fault, count) in &camera.refused {
            println!("  refused {count}: {fault}");
        }
        let counts = camera.counts;
        for (count, what) in [
            (counts.missing, "missing by their numbers"),
            (counts.stale, "passed over for a newer one"),
            (counts.flagged, "marked as broken by the driver"),
        ] {
            if count > 0 {
                println!("  {count} {what}");
            }
        }
        if counts.starts > 1 {
            println!("  opened {} times", counts.starts);
        }
        println!("  capture times: {}", camera.stamped);
        if let Some(pictures) = camera.recorded {
            println!("  recorded: {pictures} pictures");
        }
        if let Some(fault) = &camera.fault {
            println!("  now: {fault}");
        }
    }
    if seen.cameras.len() > 1 {
        println!(
            "together: {} observations, widest skew {:.1} ms, {} too far apart",
            seen.observations, seen.skew_max_ms, seen.apart
        );
    }
    println!("processor: {:.0} % of one core", seen.processor_percent);
}

#[cfg(feature = "v4l")]
fn list() -> Result<(), Failure> {
    use tendon::capture::{discovery::Places, listing};
    println!("{}", listing::page(&Places::of_machine()));
    Ok(())
}

#[cfg(not(feature = "v4l"))]
fn list() -> Result<(), Failure> {
    Err(Failure::Usage(
        "expected a build with kernel cameras, found one without; build with --features v4l"
            .to_owned(),
    ))
}
