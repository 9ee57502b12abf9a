// SPDX-License-Identifier: Apache-2.0
//! Control: each tick, chunks in, one proposal for the governor out. The decision is [`core::schedule`]; this is the
//! thread around it.
//!
//! [`core::schedule`]: crate::core::schedule

use crate::core::action::Setpoint;
use crate::core::chunk::Chunk;
use crate::core::chunk::Provenance;
use crate::core::governor::Proposal;
use crate::core::schedule::{Absence, InForce, Intake, Schedule, Step};
use crate::core::units::Mono;
use crate::runtime::clock::Ticks;
use crate::runtime::phase::PhaseLock;
use crate::runtime::realtime::allocations_of_this_thread;
use crate::runtime::telemetry::{Sample, Tap};
use crate::runtime::threads::Seat;
use crate::runtime::wheel::Driver;
use crate::sync::mailbox;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// What the governor reports back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// What became of the proposal.
    pub held: Held,
    /// What the next one has to keep to.
    pub in_force: InForce,
}

/// What became of a proposal, so that the next starts from what was really emitted.
#[derive(Clone, Copy, Debug, Default)]
pub enum Held {
    /// What was proposed was emitted.
    #[default]
    No,
    /// This was emitted instead.
    At(Setpoint),
    /// The robot is not armed and stands here: chunks made before the next arming are not for it.
    Standby(Setpoint),
}

/// The plan that is followed, for a policy that plans on from it. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Followed {
    /// Its number; 0: there is none.
    pub chunk_id: u32,
    /// When its first action is due, as the schedule has placed it.
    pub first_at: Mono,
    /// Time between two of its actions.
    pub period_ns: u64,
    /// Its actions.
    pub steps: usize,
    /// From observation to hand-over in actions, the longest of late; 0 while nothing is known, as after a start.
    pub delay_steps: u16,
    /// Until when it is followed at the latest.
    pub until: Mono,
    /// How often following was begun: after arming, and after a person let go.
    pub begun: u32,
}

impl Followed {
    /// What the schedule follows.
    #[must_use]
    pub fn of(schedule: &Schedule) -> Followed {
        // A plan that was left in doubt is not followed.
        let running = schedule.running().filter(|_| !schedule.unsure());
        let begun = schedule.begun();
        let none = Followed {
            begun,
            ..Followed::default()
        };
        running.map_or(none, |chunk| Followed {
            begun,
            until: schedule.follows_until().unwrap_or(Mono(0)),
            chunk_id: chunk.provenance().chunk_id,
            first_at: chunk.first_at(),
            period_ns: chunk.period_ns(),
            steps: chunk.steps(),
            delay_steps: schedule.delay_steps().unwrap_or(0),
        })
    }
}

/// A chunk on its way from inference to control.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// The chunk.
    pub chunk: Chunk,
    /// When it was queued.
    pub queued: Mono,
}

/// Everything the control thread touches.
#[derive(Debug)]
pub struct ControlIo {
    /// Chunks from inference.
    pub chunks: rtrb::Consumer<Made>,
    /// To the governor.
    pub proposals: mailbox::Sender<Proposal>,
    /// From the governor.
    pub told: triple_buffer::Output<Told>,
    /// To inference: the plan that is followed.
    pub followed: triple_buffer::Input<Followed>,
    /// Who proposes.
    pub driver: triple_buffer::Output<Driver>,
    /// Number of the first chunk that obeys the instruction in force; written by inference.
    pub obeys_from: Arc<AtomicU32>,
    /// Figures.
    pub tap: Tap,
    /// Allocations made inside the loop since start-up; stays 0.
    pub allocations: Arc<AtomicU64>,
    /// Chunks that were refused on arrival.
    pub chunks_refused: Arc<AtomicU64>,
    /// Set when the pipeline ends.
    pub ending: Arc<AtomicBool>,
}

/// One tick: takes in every chunk that came, then asks the schedule. Shared by the thread and by simulated time.
pub fn tick(
    schedule: &mut Schedule,
    due: Mono,
    chunks: impl Iterator<Item = Chunk>,
    told: &Told,
    refused: &AtomicU64,
) -> Proposal {
    schedule.limits_in_force(told.in_force);
    let held = &told.held;
    if let Held::Standby(at) = held {
        schedule.reset(at);
        chunks.for_each(drop);
        return Proposal {
            made: due,
            step: schedule.step(due, Some(at)),
        };
    }
    schedule.begin();
    for chunk in chunks {
        if !matches!(schedule.offer(due, &chunk), Intake::Taken | Intake::Unsure) {
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
    let at = match held {
        Held::No => None,
        Held::At(at) | Held::Standby(at) => Some(at),
    };
    Proposal {
        made: due,
        step: schedule.step(due, at),
    }
}

/// One tick in which somebody else than the policy proposes. The schedule is kept where the robot is, so that the policy
/// can go on from there.
pub fn drive(
    schedule: &mut Schedule,
    due: Mono,
    chunks: impl Iterator<Item = Chunk>,
    held: &Held,
    wish: Option<&Setpoint>,
) -> Proposal {
    chunks.for_each(drop);
    let at = match held {
        Held::At(at) | Held::Standby(at) => Some(at),
        Held::No => wish,
    };
    if let Some(at) = at {
        schedule.reset(at);
    }
    Proposal {
        made: due,
        step: wish.map_or(Step::None(Absence::Ended), |wish| Step::Setpoint {
            setpoint: *wish,
            provenance: Provenance::default(),
            action: 0,
        }),
    }
}

/// The control thread.
pub fn run(mut schedule: Box<Schedule>, mut io: ControlIo, mut ticks: Ticks, seat: &Seat) {
    let mut missed = 0;
    let mut obeyed_from = 0;
    let mut phase = PhaseLock::new(ticks.period_ns());
    let started_with = allocations_of_this_thread();
    while !io.ending.load(Ordering::Relaxed) {
        let now = ticks.wait();
        seat.beat.mark(now.woke);
        let told = *io.told.read();
        let obeys_from = io.obeys_from.load(Ordering::Acquire);
        if core::mem::replace(&mut obeyed_from, obeys_from) != obeys_from {
            schedule.instruction_changed(now.due, obeys_from);
        }
        let chunks = std::iter::from_fn(|| {
            let made = io.chunks.pop().ok()?;
            phase.heard(now.due, made.queued);
            Some(made.chunk)
        });
        io.proposals.put(match io.driver.read() {
            Driver::Policy => tick(&mut schedule, now.due, chunks, &told, &io.chunks_refused),
            driver => {
                let wish = driver.wish(now.due);
                drive(&mut schedule, now.due, chunks, &told.held, wish.as_ref())
            }
        });
        io.followed.write(Followed::of(&schedule));
        io.tap.record(Sample::Tick {
            late_ns: now.late_ns,
            missed: ticks.missed - missed,
            ladder: schedule.ladder(),
        });
        missed = ticks.missed;
        ticks.shift(phase.step());
        io.allocations.store(
            allocations_of_this_thread() - started_with,
            Ordering::Relaxed,
        );
    }
}
