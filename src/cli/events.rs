// SPDX-License-Identifier: Apache-2.0
//! `tendon events`: print what a running robot tells: modes, causes, calls for help.

use crate::cli::Failure;
use crate::cli::instruct::Robot;
use clap::Args;
use std::sync::mpsc;
use tendon::core::wire::{Identity, Kind, data_id, event};
use tendon::link::{keys, runtime_end};
use tendon::runtime::events;

/// Arguments of `tendon events`.
#[derive(Debug, Args)]
#[command(after_help = "Prints a line an event, until Ctrl-C.")]
pub struct Options {
    /// End after so many lines.
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    robot: Robot,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    let robot = &options.robot;
    let session = robot.session()?;
    let identity = Identity {
        data_id: data_id(&robot.robot, Kind::Event),
        schema: 0,
    };
    let (lines, told) = mpsc::channel();
    let key = keys::event(&robot.robot);
    let _subscriber = runtime_end::subscribe(&session, key, move |frame| {
        let line = match event::decode(frame, identity) {
            Ok(event) => events::words(&event),
            Err(reject) => format!("a frame that is no event of this robot: {reject}"),
        };
        // Nobody waits for it any more when this ends.
        let _ = lines.send(line);
    })
    .map_err(Failure::failed)?;
    eprintln!("listening to {}", robot.robot);
    for line in told.iter().take(options.count.unwrap_or(u64::MAX) as usize) {
        println!("{line}");
    }
    Ok(())
}
