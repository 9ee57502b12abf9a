// SPDX-License-Identifier: Apache-2.0
//! `tendon deadman`: tell a running robot whether somebody holds a switch that is plugged in here.

use crate::cli::Failure;
use crate::cli::instruct::Robot;
use clap::Args;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use tendon::config::lines::{ContactConfig, LinesConfig, Wire};
use tendon::core::action::Setpoint;
use tendon::core::chunk::Provenance;
use tendon::core::lines::{CHANNELS_MAX, Coding, Wiring};
use tendon::core::units::{MS, Mono};
use tendon::core::wire::command::{self, COMMAND_LEN_MAX, Command, MODE_FOLLOW, MODE_KEEP_ALIVE};
use tendon::core::wire::{Identity, Kind, data_id};
use tendon::link::runtime_end::CommandSender;
use tendon::runtime::{clock, lines};

/// Between two frames: three are lost before the shortest `lines.deadman.link_silence_ms` is over.
const PERIOD_NS: u64 = 10 * MS;
/// What was on its way for longer does not count; the runtime's own silence may be shorter.
const VALID_FOR_US: u32 = 200_000;
/// "Let go" is said so often at the end: one may be lost.
const LAST: u32 = 3;

/// Arguments of `tendon deadman`.
#[derive(Debug, Args)]
#[command(
    after_help = "For lines.deadman.link_silence_ms of the robot's tendon.toml. Held is what all keys are; a device that is gone tells nothing, which is let go. Press it once after the start: one that is held from the beginning does not count. Example:\n  tendon deadman --evdev /dev/input/by-id/usb-PCsensor_FootSwitch-event-kbd --keys KEY_B --connect tcp/192.168.1.20:7447 --user anna --password-file key"
)]
pub struct Options {
    /// The input device: a gamepad or a foot switch.
    #[arg(long, value_name = "DEVICE")]
    evdev: PathBuf,
    /// One or two of its keys, by the kernel's names; two must both be held.
    #[arg(long, value_delimiter = ',', required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    robot: Robot,
}

/// Runs the verb.
///
/// # Errors
/// [`Failure`].
pub fn run(options: &Options) -> Result<(), Failure> {
    if options.keys.len() > CHANNELS_MAX {
        let found = options.keys.len();
        let said = format!("--keys: expected one or two of the kernel's names, found {found}");
        return Err(Failure::Usage(said));
    }
    // As one that is wired to the runtime's own machine.
    let contact = ContactConfig {
        wire: Wire::Evdev {
            device: options.evdev.clone(),
            keys: options.keys.clone(),
        },
        wiring: Wiring {
            coding: Coding::Level,
            channels: options.keys.len(),
            settle_ns: 20 * MS,
            apart_ns: 50 * MS,
            renewed: true,
        },
    };
    let seen = LinesConfig {
        deadman: Some(contact.clone()),
        ..LinesConfig::default()
    };
    if let Some(why) = lines::unreadable(&seen).pop() {
        return Err(Failure::Usage(why));
    }
    let robot = &options.robot.robot;
    let session = options.robot.session()?;
    let sender = CommandSender::of_deadman(&session, robot).map_err(Failure::failed)?;
    let mut frames = Frames {
        identity: Identity {
            data_id: data_id(robot, Kind::Deadman),
            schema: 0,
        },
        epoch: RandomState::new().hash_one(clock::now()) as u32 | 1,
        counter: 0,
    };
    let ending = crate::cli::ending()?;
    eprintln!("telling {robot}; Ctrl-C lets go");
    let mut before = None;
    lines::tell("deadman", &contact, PERIOD_NS, &ending, |now, held| {
        // A link that takes none is silence, which is let go.
        let _ = sender.send(frames.next(now, held).as_slice());
        if before.replace(held) != Some(held) {
            println!("{}", if held { "held" } else { "let go" });
        }
    });
    // Who told nothing ends nothing: another switch may be the one that counts.
    for _ in 0..before.map_or(0, |_| LAST) {
        let _ = sender.send(frames.next(clock::now(), false).as_slice());
    }
    Ok(())
}

/// Numbers the frames of a switch.
struct Frames {
    identity: Identity,
    epoch: u32,
    counter: u32,
}

impl Frames {
    fn next(&mut self, now: Mono, held: bool) -> Vec<u8> {
        self.counter = self.counter.wrapping_add(1);
        let command = Command {
            counter: self.counter,
            epoch: self.epoch,
            sent: now,
            valid_for_us: VALID_FOR_US,
            mode: if held { MODE_FOLLOW } else { MODE_KEEP_ALIVE },
            verdict: 0,
            action: 0,
            provenance: Provenance::default(),
            setpoint: Setpoint::at_rest(&[]),
            tool: None,
        };
        let mut frame = [0; COMMAND_LEN_MAX];
        let length = command::encode(&command, self.identity, &mut frame);
        frame[..length.unwrap_or(0)].to_vec()
    }
}
