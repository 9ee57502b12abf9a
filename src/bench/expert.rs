// SPDX-License-Identifier: Apache-2.0
//! The scripted expert: a vector field of the tip, without memory, so that any state can be labelled.
//!
//! Above the named block the field is a funnel: far away the tip stays high, near the axis it comes down. Once the
//! vacuum holds, it lifts, carries and lets go over the tray. First order and continuous where it matters; a chunk is
//! the field integrated from the measured pose, through the inverse kinematics.

use crate::bench::arm::{self, JOINTS, Point};
use crate::bench::sentences::Task;
use crate::bench::table::{CUBE_M, Table};

/// Actions in a chunk.
pub const CHUNK_LEN: usize = 16;
/// Time between two actions.
pub const PERIOD_S: f64 = 0.05;
/// Numbers an action: the joints and the gripper.
pub const ACTION_DIM: usize = JOINTS + 1;
/// Fastest the tip goes.
const SPEED_MAX_M_S: f64 = 0.25;
/// Speed for each metre of distance: the tip comes in exponentially, 1/this seconds.
const GAIN_1_S: f64 = 4.0;
/// Height above the block at which the tip travels.
const HOVER_M: f64 = 0.08;
/// Height of the tip while it carries.
const CARRY_M: f64 = 0.17;
/// The field is integrated in steps of this.
const STEP_S: f64 = 0.01;
/// The seal closes below the surface the tip aims at, so that it presses lightly.
const PRESS_M: f64 = 0.002;

/// What the expert wants, if anything.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Which block.
    pub block: usize,
    /// What with it.
    pub task: Task,
}

/// A chunk of absolute joint positions and gripper commands.
pub type Plan = [[f64; ACTION_DIM]; CHUNK_LEN];

/// The expert's plan from `q_rad` with `suction` as it is. `None` for the goal means: stay.
#[must_use]
pub fn plan(q_rad: &[f64; JOINTS], suction: bool, table: &Table, goal: Option<Goal>) -> Plan {
    let mut tip = arm::forward(q_rad).tip();
    let mut imagined = Imagined::of(table, suction, goal);
    let mut last = *q_rad;
    std::array::from_fn(|_| {
        for _ in 0..(PERIOD_S / STEP_S).round() as usize {
            let speed = imagined.field(tip, table, goal);
            tip = arm::add(tip, arm::scale(speed, STEP_S));
            imagined.advance(tip);
        }
        if let Some(q_rad) = arm::inverse_tool_down(tip) {
            last = q_rad;
        }
        let mut action = [0.0; ACTION_DIM];
        action[..JOINTS].copy_from_slice(&last);
        action[JOINTS] = f64::from(u8::from(imagined.suction));
        action
    })
}

/// What the plan assumes will have happened: the seal closes when the cup is on the face, opens over the tray.
struct Imagined {
    suction: bool,
    holding: bool,
    block: Point,
    done: bool,
    released: bool,
}

impl Imagined {
    fn of(table: &Table, suction: bool, goal: Option<Goal>) -> Imagined {
        let Some(goal) = goal else {
            return Imagined {
                suction,
                holding: false,
                block: [0.0; 3],
                done: true,
                released: false,
            };
        };
        let block = table.cubes[goal.block].centre;
        let holding = table.held.is_some_and(|(held, _)| held == goal.block);
        let done = match goal.task {
            Task::Touch => false,
            Task::Put { left } => {
                let tray = table.trays[usize::from(!left)];
                !holding && tray.holds(block[0], block[1], 0.0) && block[2] < CUBE_M
            }
        };
        // A block that hangs on the cup by mistake is let go of; the pump rests when there is nothing to hold.
        Imagined {
            suction: suction && holding && !done,
            holding,
            block,
            done,
            released: false,
        }
    }

    /// Velocity of the tip in m/s; also decides the gripper.
    fn field(&mut self, tip: Point, table: &Table, goal: Option<Goal>) -> Point {
        let Some(goal) = goal else { return [0.0; 3] };
        if self.done || self.released {
            // Straight up and away from what was put down, then stay.
            return [0.0, 0.0, towards(CARRY_M - tip[2])];
        }
        if self.holding {
            let Task::Put { left } = goal.task else {
                return [0.0; 3];
            };
            let tray = table.trays[usize::from(!left)];
            let (dx, dy) = (tray.x - tip[0], tray.y - tip[1]);
            let lifted = ((tip[2] - 0.05) / 0.07).clamp(0.0, 1.0);
            if dx.hypot(dy) < 0.03 && tip[2] > 0.09 {
                self.suction = false;
                self.released = true;
            }
            let flat = flat_towards(dx, dy, SPEED_MAX_M_S * lifted);
            return [flat[0], flat[1], towards(CARRY_M - tip[2])];
        }
        let top = self.block[2] + CUBE_M / 2.0;
        let (dx, dy) = (self.block[0] - tip[0], self.block[1] - tip[1]);
        let distance = dx.hypot(dy);
        let press = if matches!(goal.task, Task::Put { .. }) {
            PRESS_M
        } else {
            0.0
        };
        let height = top - press + ((distance - 0.006) * 2.0).clamp(0.0, HOVER_M);
        if let Task::Put { .. } = goal.task {
            self.suction = distance < 0.010 && tip[2] < top + 0.012;
        }
        // Too low for this distance: rise first, so that nothing is swept aside.
        let low = ((height - tip[2]) / 0.03).clamp(0.0, 1.0);
        let flat = flat_towards(dx, dy, SPEED_MAX_M_S * (1.0 - low));
        [flat[0], flat[1], towards(height - tip[2])]
    }

    fn advance(&mut self, tip: Point) {
        let offset = (self.block[0] - tip[0]).hypot(self.block[1] - tip[1]);
        if self.suction
            && !self.holding
            && offset < 0.010
            && tip[2] - self.block[2] - CUBE_M / 2.0 < 0.001
        {
            self.holding = true;
        }
    }
}

fn towards(distance_m: f64) -> f64 {
    (GAIN_1_S * distance_m).clamp(-SPEED_MAX_M_S * 0.8, SPEED_MAX_M_S * 0.8)
}

fn flat_towards(dx: f64, dy: f64, most_m_s: f64) -> [f64; 2] {
    let distance = dx.hypot(dy);
    let speed = (GAIN_1_S * distance).min(most_m_s) / distance.max(1e-9);
    [dx * speed, dy * speed]
}
