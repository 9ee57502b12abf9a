// SPDX-License-Identifier: Apache-2.0
//! The judge: did the robot do what was asked? Looks at the real world, not at what anyone reports.

use crate::bench::arm::{Point, length, sub};
use crate::bench::expert::Goal;
use crate::bench::sentences::Task;
use crate::bench::table::Table;

/// Tip this near the block's centre is a touch.
const TOUCH_M: f64 = 0.025;
/// For this long.
const SETTLE_NS: u64 = 300_000_000;
/// A touch must be done by then.
const TOUCH_LIMIT_NS: u64 = 6_000_000_000;
/// A put must be done by then.
const PUT_LIMIT_NS: u64 = 12_000_000_000;

/// How an episode stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided.
    Running,
    /// Done as asked.
    Success,
    /// Time is up.
    TimeUp,
    /// Touched another block before the named one.
    WrongBlock,
}

/// Watches one goal. Several judges may watch one episode, each for another block.
#[derive(Clone, Debug)]
pub struct Judge {
    goal: Goal,
    elapsed_ns: u64,
    good_ns: u64,
    verdict: Verdict,
}

impl Judge {
    /// A judge for an episode that starts now.
    #[must_use]
    pub fn new(goal: Goal) -> Judge {
        Judge {
            goal,
            elapsed_ns: 0,
            good_ns: 0,
            verdict: Verdict::Running,
        }
    }

    /// How long an episode of this task may take.
    #[must_use]
    pub fn limit_ns(task: Task) -> u64 {
        match task {
            Task::Touch => TOUCH_LIMIT_NS,
            Task::Put { .. } => PUT_LIMIT_NS,
        }
    }

    /// Looks at the world `dt_ns` later. The first decision stands.
    pub fn look(&mut self, tip: Point, table: &Table, dt_ns: u64) -> Verdict {
        if self.verdict != Verdict::Running {
            return self.verdict;
        }
        self.elapsed_ns += dt_ns;
        let good = match self.goal.task {
            Task::Touch => length(sub(tip, table.cubes[self.goal.block].centre)) <= TOUCH_M,
            Task::Put { left } => put(table, self.goal.block, left),
        };
        self.good_ns = if good { self.good_ns + dt_ns } else { 0 };
        let wrong = matches!(self.goal.task, Task::Touch)
            && table
                .cubes
                .iter()
                .enumerate()
                .any(|(index, cube)| index != self.goal.block && cube.touched);
        self.verdict = if wrong {
            Verdict::WrongBlock
        } else if self.good_ns >= SETTLE_NS {
            Verdict::Success
        } else if self.elapsed_ns >= Judge::limit_ns(self.goal.task) {
            Verdict::TimeUp
        } else {
            Verdict::Running
        };
        self.verdict
    }
}

/// In the tray, let go of, at rest.
fn put(table: &Table, block: usize, left: bool) -> bool {
    let cube = &table.cubes[block];
    let held = table.held.is_some_and(|(held, _)| held == block);
    let tray = table.trays[usize::from(!left)];
    !held && !cube.moved && tray.holds(cube.centre[0], cube.centre[1], 0.0)
}
