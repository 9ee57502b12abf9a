// SPDX-License-Identifier: Apache-2.0
//! The operator's page: what the robot sees and does, on a local web page, and the few things a person may ask of it.
//!
//! The page looks in through [`Operator`] and runs on a thread of its own; the pipeline never waits for it, and the page
//! decides nothing: a request goes to the trait and its answer or refusal is shown. It is not the emergency stop of the
//! machine; that one is a circuit.
//!
//! Files: `gate` who may ask; `server` the thread, the sockets and the short answers; `stream` the endless ones;
//! `metrics` the text for Prometheus; `page.html` what the browser shows.

mod gate;
mod metrics;
mod server;
mod stream;
#[cfg(test)]
mod tests;

use crate::core::units::Mono;
use std::net::SocketAddr;

pub use server::{Running, serve};

/// One joint as the page shows it; radians, metres, or 0 and 1 for a gripper.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct JointView {
    /// Its name in robot.toml.
    pub name: String,
    /// Where the motor says it is.
    pub measured: f64,
    /// Where it was last told to be.
    pub commanded: f64,
    /// Lower limit of position.
    pub min: f64,
    /// Upper limit of position.
    pub max: f64,
}

/// What the page shows of one moment. Serialised as it stands for `GET /events`; a number that is not finite is `null`.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Snapshot {
    /// Mode of the supervisor in small letters, e.g. `active`, `standby`, `e-stop`.
    pub mode: String,
    /// Why it is in that mode; may be empty.
    pub reason: String,
    /// The instruction the policy follows now.
    pub instruction: String,
    /// Words of it that the policy does not know.
    pub unknown_words: Vec<String>,
    /// Name of the policy.
    pub policy: String,
    /// What it computes in, e.g. `f32`.
    pub precision: String,
    /// The joints, in the order of robot.toml.
    pub joints: Vec<JointView>,
    /// Where the policy sees what was named, 0..1 from the left and from the top; `None` if it does not tell.
    pub keypoint: Option<[f32; 2]>,
    /// Probability 0..1 that it is in the picture; `None` if it does not tell.
    pub presence: Option<f32>,
    /// From taking up a frame to the chunk, milliseconds, median.
    pub inference_ms: f64,
    /// From a frame landing here to the first command that follows from it, milliseconds, median.
    pub frame_to_command_ms: f64,
    /// How late the control tick woke, microseconds, median.
    pub tick_lateness_us: f64,
    /// Commands sent since start.
    pub commands_sent: u64,
    /// Ticks that woke too late since start.
    pub late_ticks: u64,
    /// Times that a plan ran out before its successor came, since start.
    pub stalls: u64,
    /// Seconds that setpoints were made of the tail of an overdue plan, since start.
    pub tail_s: f64,
    /// Seconds in which the robot slowed or held for want of a plan, since start.
    pub stalled_s: f64,
    /// Setpoints that the governor changed or refused since start.
    pub governor_interventions: u64,
    /// Heap allocations of the control and governor loops since they began; ought to be 0.
    pub allocations: u64,
    /// Those of the egress loop: none a command, some in the link when somebody joins or leaves.
    pub egress_allocations: u64,
    /// What was refused, failed or was started again since start.
    pub faults: Vec<Count>,
}

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    /// In metrics: `tendon_NAME_total`.
    pub name: &'static str,
    /// What it is, a sentence.
    #[serde(skip)]
    pub help: &'static str,
    /// How often.
    pub value: u64,
}

/// A figure of the machine or of a part of the way, for metrics alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Gauge {
    /// Its name in metrics; one that ends in `_total` only grows.
    pub name: &'static str,
    /// What it is, a sentence.
    pub help: &'static str,
    /// What tells it from others of its name, e.g. `("zone", "gpu-thermal")`.
    pub labels: Vec<(&'static str, String)>,
    /// How much.
    pub value: f64,
}

/// A camera picture, in a buffer that the page keeps and hands in again.
#[derive(Clone, Default)]
pub struct Picture {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Number of the frame; a picture is encoded once for each new number.
    pub seq: u32,
    /// `[height][width][3]`, red, green, blue, top row first. Empty: there is no picture yet.
    pub rgb: Vec<u8>,
}

/// What the page may see and ask. Called on the page's thread, which serves all browsers: answer at once, from a copy.
pub trait Operator: Send + Sync {
    /// The latest numbers.
    fn snapshot(&self) -> Snapshot;
    /// Further figures for metrics; those of one name stand together.
    fn gauges(&self) -> Vec<Gauge>;
    /// Writes the latest picture into `into`, which may hold an earlier one.
    fn picture(&self, into: &mut Picture);
    /// Asks for another instruction. `Ok` is the answer to show, `Err` the refusal.
    fn instruct(&self, text: &str) -> Result<String, String>;
    /// The time by which requests are stamped.
    fn now(&self) -> Mono;
    /// Asks for `active`, `standby`, `stop`, `reset` or `e-stop`, never for another word, as somebody did at this time. The first and
    /// `reset` may wait for a disk: they are asked for on threads of their own.
    fn request_mode(&self, mode: &str, made: Mono) -> Result<String, String>;
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The page can move a robot and has neither users nor encryption: it does not leave this machine.
    #[error(
        "{0} is not a loopback address; listen on 127.0.0.1 or [::1] and reach it through an ssh tunnel"
    )]
    NotLoopback(SocketAddr),
    /// The address could not be had.
    #[error(
        "cannot listen on {at}: {source}: if another program is there, give page.listen another port"
    )]
    Listen {
        /// The address asked for.
        at: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// No random bytes for the token.
    #[error("no random token from /dev/urandom")]
    Token(#[source] std::io::Error),
    /// The token could not be left where programs look for it.
    #[error(
        "page.token_file {path}: the token could not be written; expected a folder that this program may write, as /run/tendon is"
    )]
    TokenFile {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The thread or its runtime did not start.
    #[error("the page's thread did not start")]
    Thread(#[source] std::io::Error),
}
