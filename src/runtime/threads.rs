// SPDX-License-Identifier: Apache-2.0
//! The table of threads: name, priority, deadline. Nobody else writes one of these numbers.

use crate::core::units::{MS, Mono};
use crate::sync::heartbeat::Beat;

/// One thread of the pipeline.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Shown by `ps -T`, in messages and in metrics.
    pub name: &'static str,
    /// `SCHED_FIFO` priority asked for; 0 asks for none.
    pub fifo: i32,
    /// Longest time between two heartbeats before watchdog and service call the thread late.
    pub beat_age_max_ns: u64,
}

impl Spec {
    /// How long the thread has not come round, if that is longer than it may be; [`u64::MAX`] for one that never has.
    #[must_use]
    pub fn late_ns(&self, beat: &Beat, now: Mono) -> Option<u64> {
        let age_ns = beat.last().map_or(u64::MAX, |last| now.since_ns(last));
        (age_ns > self.beat_age_max_ns).then_some(age_ns)
    }
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

/// Every row. A drill may name any of them; those that may be given cores are the roles of
/// [`realtime`](crate::config::realtime::ROLES), which a test below compares.
pub const ALL: [Spec; 13] = [
    WATCHDOG, LINES, GOVERNOR, CONTROL, EGRESS, FERRY, CAPTURE, SERVICE, INFERENCE, OPENER,
    TELEMETRY, MEMORY, HEALTH,
];

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::realtime::ROLES;
    use std::collections::BTreeSet;

    /// Threads that nobody gives cores of their own: they wait for disks, drivers and the service manager.
    const ROLELESS: [Spec; 4] = [HEALTH, MEMORY, OPENER, SERVICE];

    fn names(of: impl IntoIterator<Item = Spec>) -> BTreeSet<&'static str> {
        of.into_iter().map(|spec| spec.name).collect()
    }

    #[test]
    fn every_row_is_among_all_under_a_name_of_its_own() {
        let source = include_str!("threads.rs");
        let table = source.split("#[cfg(test)]").next().expect("a table");
        assert_eq!(table.matches(": Spec = Spec {").count(), ALL.len());
        assert_eq!(names(ALL).len(), ALL.len());
    }

    #[test]
    fn every_thread_is_a_role_of_the_configuration_or_needs_none() {
        let roles: BTreeSet<&str> = ROLES.into();
        let roleless = names(ROLELESS);
        assert!(roles.is_disjoint(&roleless), "{roles:?}, {roleless:?}");
        assert_eq!(&roles | &roleless, names(ALL), "src/config/realtime.rs");
    }

    #[test]
    fn a_thread_is_late_one_nanosecond_after_its_time_or_if_it_never_came_round() {
        let beat = Beat::new();
        assert_eq!(CONTROL.late_ns(&beat, Mono(5)), Some(u64::MAX));
        beat.mark(Mono(1));
        let at = |age_ns: u64| CONTROL.late_ns(&beat, Mono(1 + age_ns));
        assert_eq!(at(50 * MS), None);
        assert_eq!(at(50 * MS + 1), Some(50 * MS + 1));
    }
}
