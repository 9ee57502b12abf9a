// SPDX-License-Identifier: Apache-2.0
//! Egress: governed commands into frames, and frames to the link. No other thread puts a command, and this one puts nothing
//! else; the newest command wins, an old one is never sent late.

use crate::config::Robot;
use crate::core::action::Setpoint;
use crate::core::governor::Output;
use crate::core::governor::reaction::Reaction;
use crate::core::kinematics::Chain;
use crate::core::kinematics::turn::Turn;
use crate::core::units::{MS, Mono};
use crate::core::wire::Identity;
use crate::core::wire::command::{
    self, COMMAND_LEN_MAX, Command, MODE_FOLLOW, MODE_KEEP_ALIVE, MODE_TORQUE_OFF, Tool,
};
use crate::link::runtime_end::CommandSender;
use crate::runtime::clock;
use crate::runtime::telemetry::{Sample, Tap};
use crate::runtime::threads::Seat;
use crate::sync::mailbox;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A command may be acted on for so long after it arrives. The motor controller's own silence timeout is shorter; this
/// bounds what a stalled link may deliver late.
const VALID_FOR_US: u32 = 100_000;
/// The thread comes round this often without a command, for its heartbeat.
const IDLE_NS: u64 = 20 * MS;

/// The link that commands tell of beside the joints.
#[derive(Clone, Debug)]
struct Hand {
    chain: Chain,
    link: usize,
    /// Its last orientation: the next one is written with the sign that lies nearer.
    turn: Turn,
}

impl Hand {
    /// Where the setpoint puts it; `None` for joints that are not the chain's.
    fn tool(&mut self, setpoint: &Setpoint) -> Option<Tool> {
        let (positions, velocities) = (setpoint.positions(), setpoint.velocities());
        let (pose, [x, y, z, a, b, c]) = self.chain.motion(positions, velocities, self.link)?;
        self.turn = pose.turn.near(self.turn);
        let [i, j, k] = self.turn.v;
        Some(Tool {
            position_m: pose.at,
            orientation: [i, j, k, self.turn.w],
            velocity_m_s: [x, y, z],
            angular_velocity_rad_s: [a, b, c],
        })
    }
}

/// Makes frames of governed outputs.
#[derive(Clone, Debug)]
pub struct Framer {
    identity: Identity,
    hand: Option<Box<Hand>>,
    frame: [u8; COMMAND_LEN_MAX],
}

impl Framer {
    /// A framer for one stream.
    #[must_use]
    pub fn new(identity: Identity) -> Framer {
        Framer {
            identity,
            hand: None,
            frame: [0; COMMAND_LEN_MAX],
        }
    }

    /// Its frames also tell where the robot's tool is to be, if its file names one.
    #[must_use]
    pub fn of(robot: &Robot, identity: Identity) -> Framer {
        let hand = robot.tool.zip(robot.space.as_ref()).map(|(link, space)| {
            Box::new(Hand {
                chain: space.chain().clone(),
                link,
                turn: Turn::NONE,
            })
        });
        Framer {
            hand,
            ..Framer::new(identity)
        }
    }

    /// The frame for a governed output. Takes nothing but what the governor made.
    pub fn frame(&mut self, now: Mono, output: &Output) -> &[u8] {
        let mode = match output.reaction {
            Reaction::TorqueOff if output.at_rest => MODE_TORQUE_OFF,
            Reaction::Follow | Reaction::Hold | Reaction::Stop | Reaction::TorqueOff
                if output.moving =>
            {
                MODE_FOLLOW
            }
            Reaction::Follow | Reaction::Hold | Reaction::Stop | Reaction::TorqueOff => {
                MODE_KEEP_ALIVE
            }
        };
        let command = Command {
            counter: output.tick,
            epoch: output.epoch,
            sent: now,
            valid_for_us: VALID_FOR_US,
            mode,
            verdict: output.verdict.code(),
            action: output.action,
            provenance: output.provenance,
            setpoint: *output.command.get(),
            tool: self
                .hand
                .as_mut()
                .and_then(|hand| hand.tool(output.command.get())),
        };
        // The buffer holds the longest command, so encoding cannot fail.
        let length = command::encode(&command, self.identity, &mut self.frame).unwrap_or(0);
        self.frame.get(..length).unwrap_or(&[])
    }
}

/// Everything the egress thread touches.
#[derive(Debug)]
pub struct EgressIo {
    /// From the governor.
    pub commands: mailbox::Receiver<Option<Output>>,
    /// The link.
    pub link: CommandSender,
    /// Commands that the link refused. That it took the others proves nothing; the echo does.
    pub link_faults: Arc<AtomicU64>,
    /// Figures.
    pub tap: Tap,
    /// Set when the pipeline ends.
    pub ending: Arc<AtomicBool>,
}

/// The egress thread.
pub fn run(mut framer: Framer, mut io: EgressIo, seat: &Seat) {
    while !io.ending.load(Ordering::Relaxed) {
        let command = io
            .commands
            .wait_until(clock::now().plus_ns(IDLE_NS), clock::now)
            .and_then(Option::as_ref);
        let now = clock::now();
        seat.beat.mark(now);
        let Some(output) = command else { continue };
        let frame = framer.frame(now, output);
        if io.link.send(frame).is_err() {
            io.link_faults.fetch_add(1, Ordering::Relaxed);
        }
        io.tap.record(Sample::Command {
            chunk_id: output.provenance.chunk_id,
            sent: clock::now(),
        });
    }
}
