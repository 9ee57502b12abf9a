// SPDX-License-Identifier: Apache-2.0
//! The governor's thread: a proposal or its deadline, whichever comes first, then one governed command.
//!
//! Each step covers one control period. A proposal for a period that is covered already is dropped, so that a late
//! control thread never makes the robot move twice in one period.

use crate::core::governor::reaction::Cause;
use crate::core::governor::{Governor, Input, Lines, Output, Proposal, Verdict};
use crate::core::observation::StateHistory;
use crate::core::supervisor::{Decision, Permission};
use crate::core::units::Mono;
use crate::runtime::clock;
use crate::runtime::control::{Held, Told};
use crate::runtime::realtime::allocations_of_this_thread;
use crate::runtime::threads::Seat;
use crate::runtime::wheel::Wheel;
use crate::sync::mailbox;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What the governor last did, for everyone who wants to know.
#[derive(Clone, Copy, Debug, Default)]
pub struct Last(pub Option<Output>);

/// Everything the governor thread touches.
#[derive(Debug)]
pub struct GovernorIo {
    /// From control.
    pub proposals: mailbox::Receiver<Proposal>,
    /// Newest joint states.
    pub states: triple_buffer::Output<StateHistory>,
    /// From the watchdog.
    pub decisions: triple_buffer::Output<Decision>,
    /// An emergency stop that does not wait for the watchdog.
    pub emergency_stop: Arc<AtomicBool>,
    /// Thousandths by which the robot is slowed.
    pub slowed: Arc<AtomicU32>,
    /// The same by the machine's health: the slower one counts.
    pub derated: Arc<AtomicU32>,
    /// The lines that a person holds.
    pub wheel: Arc<Wheel>,
    /// To egress.
    pub commands: mailbox::Sender<Option<Output>>,
    /// Back to control.
    pub told: triple_buffer::Input<Told>,
    /// To the watchdog.
    pub last: triple_buffer::Input<Last>,
    /// To the page.
    pub shown: triple_buffer::Input<Last>,
    /// Ticks in which a followed setpoint was changed.
    pub interventions: Arc<AtomicU64>,
    /// Allocations made inside the loop since start-up; stays 0.
    pub allocations: Arc<AtomicU64>,
    /// Set when the pipeline ends.
    pub ending: Arc<AtomicBool>,
}

/// What people hold and set, at one tick.
#[derive(Clone, Copy, Debug)]
pub struct People {
    /// The lines they hold.
    pub lines: Lines,
    /// An emergency stop was asked for.
    pub emergency_stop: bool,
    /// The share of its speed that the robot may use, 0 to 1.
    pub speed_scale: f64,
}

impl People {
    /// Nobody near.
    pub const NONE: People = People {
        lines: Lines::NOT_FITTED,
        emergency_stop: false,
        speed_scale: 1.0,
    };
}

/// One tick. Shared by the thread and by simulated time.
pub fn tick(
    governor: &mut Governor,
    now: Mono,
    proposal: Option<&Proposal>,
    states: &StateHistory,
    decision: &Decision,
    people: People,
) -> (Output, Told) {
    let input = Input {
        proposal,
        state: states.fresh(now, governor.limits().state_age_max_ns),
        permission: decision.permission,
        hold: decision.hold,
        emergency_stop: people.emergency_stop || decision.emergency_stop,
        speed_scale: people.speed_scale,
        emergency_line: people.lines.emergency,
        deadman: people.lines.deadman,
    };
    let output = governor.step(now, &input);
    let held = match output.verdict {
        Verdict::Passed => Held::No,
        Verdict::Held(Cause::Standby | Cause::StopRequested) => {
            Held::Standby(*output.command.get())
        }
        // What was changed is told too: a scheduler that went on with its own plan would be chased by the governor,
        // which brakes late by nature and swings around a moving wish.
        Verdict::Shaped(_) | Verdict::Held(_) => Held::At(*output.command.get()),
    };
    let told = Told {
        held,
        in_force: output.in_force,
    };
    (output, told)
}

/// The decision before the watchdog's first word: nothing moves.
pub const NO_DECISION: Decision = Decision {
    mode: crate::core::supervisor::Mode::Boot,
    cause: None,
    permission: Permission::None,
    hold: None,
    emergency_stop: false,
    answer: None,
    latched: None,
};

/// The governor thread.
pub fn run(mut governor: Governor, mut io: GovernorIo, period_ns: u64, seat: &Seat) {
    let mut covered = clock::now();
    let started_with = allocations_of_this_thread();
    while !io.ending.load(Ordering::Relaxed) {
        // Half a period of grace: control wakes at the same tick and needs some microseconds.
        let deadline = covered.plus_ns(period_ns + period_ns / 2);
        let proposal = io.proposals.wait_until(deadline, clock::now).copied();
        let now = clock::now();
        seat.beat.mark(now);
        match &proposal {
            Some(proposal) if proposal.made <= covered => continue,
            Some(proposal) => covered = proposal.made,
            // One period further; after a long gap, now: what was missed is not made up for.
            None => covered = covered.plus_ns(period_ns).max(now.minus_ns(period_ns)),
        }
        let slowed = [&io.slowed, &io.derated].map(|cell| cell.load(Ordering::Relaxed));
        let slowed = slowed.into_iter().fold(0, u32::max);
        let people = People {
            lines: io.wheel.lines(now),
            emergency_stop: io.emergency_stop.load(Ordering::Acquire),
            speed_scale: 1.0 - f64::from(slowed) * 1e-3,
        };
        let (output, told) = tick(
            &mut governor,
            now,
            proposal.as_ref(),
            io.states.read(),
            io.decisions.read(),
            people,
        );
        if matches!(output.verdict, Verdict::Shaped(_)) {
            io.interventions.fetch_add(1, Ordering::Relaxed);
        }
        io.commands.put(Some(output));
        io.told.write(told);
        io.last.write(Last(Some(output)));
        io.shown.write(Last(Some(output)));
        io.allocations.store(
            allocations_of_this_thread() - started_with,
            Ordering::Relaxed,
        );
    }
}
