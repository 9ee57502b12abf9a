// SPDX-License-Identifier: Apache-2.0
//! Every deadline of the supervisor, one enum with a sentence and a reason each, and the timers that run on them.
//!
//! Some are ages that a fact is compared with, some are timers that start and end; all lengths stand here.

use crate::core::units::{MS, Mono};

/// What must happen in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deadline {
    /// A permission that was not renewed ends. Three steps of a 100 Hz watchdog may be missed before the robot brakes.
    Permission,
    /// The link must have echoed without a gap for this long before the robot may be armed (as PX4 asks of offboard
    /// control).
    LinkFlowing,
    /// A joint state that has been stale this long is lost (SAFETY row 9).
    StateLost,
    /// A motor controller that has echoed nothing new for this long while the robot is armed is lost. It stops by
    /// itself after 20 ms; this is when we give it up.
    EchoLost,
    /// The governor must have taken over the pose this soon after arming: 20 ticks at 200 Hz. It needs two.
    Seating,
    /// A deadman switch released for longer than this is no slip: the robot is disarmed (SAFETY row 40).
    DeadmanAway,
    /// A stop that was ordered must have ended by then: the longest that a checked robot needs is
    /// [`crate::core::governor::limits::STOP_TICKS_MAX`], 10 s at 1 kHz; arms need 0.3 s. A guess in between, for a
    /// governor that has died while it brakes.
    AtRest,
    /// A request older than this was meant for another moment: somebody's connection hung.
    Request,
}

/// Number of deadlines.
const DEADLINES: usize = 8;

impl Deadline {
    /// Its length in nanoseconds.
    #[must_use]
    pub const fn ns(self) -> u64 {
        match self {
            Deadline::Permission => 40 * MS,
            Deadline::LinkFlowing => 1_000 * MS,
            Deadline::StateLost => 100 * MS,
            Deadline::EchoLost => 100 * MS,
            Deadline::Seating => 100 * MS,
            Deadline::DeadmanAway => 1_000 * MS,
            Deadline::AtRest => 3_000 * MS,
            Deadline::Request => 2_000 * MS,
        }
    }
}

/// The running timers. A fixed array: none is ever lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timers {
    due: [Option<Mono>; DEADLINES],
}

impl Timers {
    /// Starts a timer unless it runs already.
    pub fn start(&mut self, deadline: Deadline, now: Mono) {
        if let Some(slot) = self.due.get_mut(deadline as usize) {
            slot.get_or_insert(now.plus_ns(deadline.ns()));
        }
    }

    /// Stops a timer.
    pub fn stop(&mut self, deadline: Deadline) {
        if let Some(slot) = self.due.get_mut(deadline as usize) {
            *slot = None;
        }
    }

    /// Starts or goes on while `running`, else stops; whether it has run out.
    pub fn run_while(&mut self, deadline: Deadline, running: bool, now: Mono) -> bool {
        if running {
            self.start(deadline, now);
        } else {
            self.stop(deadline);
        }
        self.over(deadline, now)
    }

    /// Whether it runs and has run out.
    #[must_use]
    pub fn over(&self, deadline: Deadline, now: Mono) -> bool {
        self.due
            .get(deadline as usize)
            .copied()
            .flatten()
            .is_some_and(|due| now >= due)
    }
}
