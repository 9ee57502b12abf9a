// SPDX-License-Identifier: Apache-2.0
//! The table of threads: name, priority, deadline. Nobody else writes one of these numbers.

use crate::core::units::MS;
use crate::sync::heartbeat::Beat;

/// One thread of the pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Shown by `ps -T`, in messages and in metrics.
    pub name: &'static str,
    /// `SCHED_FIFO` priority asked for; 0 asks for none.
    pub fifo: i32,
    /// Longest time between two heartbeats before the watchdog calls the thread late.
    pub beat_age_max_ns: u64,
}

/// Contacts wired to this machine, read each 2 ms; there only with `[lines]`.
pub const LINES: Spec = Spec {
    name: "lines",
    fifo: 82,
    beat_age_max_ns: 100 * MS,
};
/// Opens and closes the devices of contacts; there only with `[lines]`. Late as a driver that does not answer: the contacts
/// that are open meanwhile are read all the same.
pub const OPENER: Spec = Spec {
    name: "opener",
    fifo: 0,
    beat_age_max_ns: 60_000 * MS,
};
/// Camera to newest frame.
///
/// The bound is that of opening and closing a camera, which happen inside a call of its source and take what drivers,
/// daemons and cameras take: the kernel waits 5 s for a UVC camera's answer to one question, and this is three of those.
/// While pictures come, each call has a deadline of its own (20 ms). That a camera gives nothing is not found by this
/// bound but by the age of its newest picture, which the watchdog judges however long this thread is away: the robot
/// holds after `age_max_ms` all the same. What is left for the bound is a call that never comes back, where only a new
/// process helps, and which nobody need wait for less. At 500 ms it ended that process, with the policy loaded in it,
/// or the whole service, because a camera that was plugged in again took its time.
///
/// Rejected: a short bound that the source lengthens while it opens. It would be sooner only for a call that hangs while
/// pictures come, and those do not wait.
pub const CAPTURE: Spec = Spec {
    name: "capture",
    fifo: 45,
    beat_age_max_ns: 15_000 * MS,
};
/// Between control process and inference process, on either side; there only with isolation.
pub const FERRY: Spec = Spec {
    name: "ferry",
    fifo: 50,
    beat_age_max_ns: 500 * MS,
};
/// Newest frame to chunk. Beats before and after the engine runs; a hung engine shows after this time.
pub const INFERENCE: Spec = Spec {
    name: "inference",
    fifo: 20,
    beat_age_max_ns: 2_000 * MS,
};
/// Chunks to setpoint, each tick.
pub const CONTROL: Spec = Spec {
    name: "control",
    fifo: 70,
    beat_age_max_ns: 50 * MS,
};
/// Setpoint to governed command, each tick or its deadline.
pub const GOVERNOR: Spec = Spec {
    name: "governor",
    fifo: 80,
    beat_age_max_ns: 50 * MS,
};
/// Governed command to the link.
pub const EGRESS: Spec = Spec {
    name: "egress",
    fifo: 60,
    beat_age_max_ns: 100 * MS,
};
/// Heartbeats and modes, 100 Hz.
pub const WATCHDOG: Spec = Spec {
    name: "watchdog",
    fifo: 85,
    beat_age_max_ns: 100 * MS,
};
/// Counters and histograms. Nothing waits for it: nothing on the robot changes while it is late. That it panics is a latched stop,
/// as in any thread.
pub const TELEMETRY: Spec = Spec {
    name: "telemetry",
    fifo: 0,
    beat_age_max_ns: 2_000 * MS,
};
/// What the next start must know, on disk. Late as a disk that does not answer; told, and nothing else.
pub const MEMORY: Spec = Spec {
    name: "memory",
    fifo: 0,
    beat_age_max_ns: 60_000 * MS,
};
/// The machine's health, once a second.
pub const HEALTH: Spec = Spec {
    name: "health",
    fifo: 0,
    beat_age_max_ns: 10_000 * MS,
};
/// Heartbeats to the service manager. Above the policy, which may compute for long: a busy policy is no restart.
pub const SERVICE: Spec = Spec {
    name: "service",
    fifo: 40,
    beat_age_max_ns: 1_000 * MS,
};

// Who may be starved by whom is decided here, at compile time: the nearer to the motor, the higher; the watchdog
// above all; the policy, which may compute for long, below everything that moves the robot.
const _: () = assert!(
    WATCHDOG.fifo > LINES.fifo
        && LINES.fifo > GOVERNOR.fifo
        && GOVERNOR.fifo > CONTROL.fifo
        && CONTROL.fifo > EGRESS.fifo
);
const _: () = assert!(EGRESS.fifo > FERRY.fifo && FERRY.fifo > CAPTURE.fifo);
const _: () = assert!(CAPTURE.fifo > INFERENCE.fifo);

/// Handed to each thread's body: its heartbeat, and whether it runs at the priority it asked for.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Mark it each time round.
    pub beat: Beat,
    /// Whether the kernel granted the real-time priority.
    pub fifo_granted: bool,
}
