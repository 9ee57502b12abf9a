// SPDX-License-Identifier: Apache-2.0
//! A scene: which blocks lie where, what the room looks like, and what is asked. All of it from one seed.

use crate::bench::arm::Point;
use crate::bench::dice::Dice;
use crate::bench::sentences::{COLOURS, Task};
use crate::bench::table::{Cube, Tray};

/// Where blocks lie: x, then y.
pub const AREA_M: [[f64; 2]; 2] = [[0.22, 0.42], [-0.18, 0.18]];
/// Least distance between two blocks' centres.
pub const APART_M: f64 = 0.075;
/// Where trays stand before the jitter: left, right.
const TRAY_AT_M: [[f64; 2]; 2] = [[0.28, 0.30], [0.28, -0.30]];

/// Whether a block that is to be named may never lie here in training: two patches, about 14 % of the area.
#[must_use]
pub fn is_held_out(x: f64, y: f64) -> bool {
    let inside = |cx: f64, cy: f64| (x - cx).abs() < 0.03 && (y - cy).abs() < 0.045;
    inside(0.28, 0.09) || inside(0.36, -0.07)
}

/// Which positions the named block may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// Anywhere but in the held-out patches.
    Seen,
    /// In a held-out patch.
    HeldOut,
}

/// A colour as light: red, green, blue in 0..1.
pub type Rgb = [f32; 3];

/// A flat thing on the table that is no block.
#[derive(Clone, Copy, Debug)]
pub struct Distractor {
    /// Centre on the table.
    pub at: [f64; 2],
    /// Half sizes.
    pub half: [f64; 2],
    /// Height; 0.5 mm for a patch of paper.
    pub height: f64,
    /// Turn about z, radians.
    pub yaw_rad: f64,
    /// Grey or brown: never a block's colour.
    pub colour: Rgb,
}

/// How the room looks: everything the policy must not care about.
#[derive(Clone, Debug)]
pub struct Look {
    /// Where the camera stands.
    pub eye: Point,
    /// What it looks at.
    pub target: Point,
    /// Towards the light, unit length not needed.
    pub light: Point,
    /// Overall brightness, about 1.
    pub brightness: f32,
    /// The table's wood.
    pub table: Rgb,
    /// Behind the table.
    pub wall: Rgb,
    /// The trays.
    pub tray: Rgb,
    /// Each block's colour.
    pub blocks: Vec<Rgb>,
    /// Things that are no blocks.
    pub distractors: Vec<Distractor>,
}

/// Blocks, trays, look and task.
#[derive(Clone, Debug)]
pub struct Scene {
    /// Blocks at the start, at rest.
    pub cubes: Vec<Cube>,
    /// Index into [`COLOURS`] of each block; all different.
    pub colours: Vec<usize>,
    /// Left, right.
    pub trays: [Tray; 2],
    /// The look.
    pub look: Look,
    /// Which block the task is about.
    pub named: usize,
    /// What is asked.
    pub task: Task,
}

impl Scene {
    /// A scene with 3 or 4 blocks. The same seed gives the same scene on every machine.
    #[must_use]
    pub fn random(seed: u64, task: Task, positions: Positions) -> Scene {
        let mut dice = Dice::new(seed, 1);
        let count = 3 + dice.below(2);
        let mut order: Vec<usize> = (0..COLOURS.len()).collect();
        dice.shuffle(&mut order);
        order.truncate(count);
        let trays = TRAY_AT_M.map(|[x, y]| Tray {
            x: x + dice.spread(0.015),
            y: y + dice.spread(0.015),
        });
        let cubes = place(&mut dice, count, positions);
        let look = Look::random(&mut dice, &order);
        Scene {
            cubes,
            colours: order,
            trays,
            look,
            named: 0,
            task,
        }
    }

    /// The name of the named block's colour.
    #[must_use]
    pub fn colour(&self) -> &'static str {
        COLOURS[self.colours[self.named]]
    }

    /// A colour that no block here has.
    pub fn absent_colour(&self, dice: &mut Dice) -> &'static str {
        let absent: Vec<usize> = (0..COLOURS.len())
            .filter(|index| !self.colours.contains(index))
            .collect();
        COLOURS[*dice.pick(&absent)]
    }
}

/// Block 0 is the named one and gets its position first; the others keep their distance.
fn place(dice: &mut Dice, count: usize, positions: Positions) -> Vec<Cube> {
    let mut cubes: Vec<Cube> = Vec::new();
    while cubes.len() < count {
        let [x, y] = AREA_M.map(|[low, high]| dice.range(low, high));
        let allowed = match positions {
            Positions::Seen => !is_held_out(x, y),
            Positions::HeldOut => is_held_out(x, y),
        };
        let apart = cubes
            .iter()
            .all(|other| (other.centre[0] - x).hypot(other.centre[1] - y) >= APART_M);
        // Some 10 discs of 75 mm fit the area, so four always find room.
        if apart && (allowed || !cubes.is_empty()) {
            cubes.push(Cube::on_table(
                x,
                y,
                dice.range(0.0, std::f64::consts::FRAC_PI_2),
            ));
        }
    }
    cubes
}

/// Base colours of the blocks, in the order of [`COLOURS`].
const PAINT: [Rgb; 6] = [
    [0.80, 0.13, 0.12],
    [0.13, 0.58, 0.20],
    [0.12, 0.28, 0.78],
    [0.92, 0.78, 0.12],
    [0.48, 0.16, 0.62],
    [0.93, 0.45, 0.08],
];

impl Look {
    fn random(dice: &mut Dice, colours: &[usize]) -> Look {
        let mut jitter =
            |base: Rgb, by: f64| base.map(|c| (c + dice.spread(by) as f32).clamp(0.02, 0.98));
        let blocks = colours
            .iter()
            .map(|&colour| jitter(PAINT[colour], 0.035))
            .collect();
        let table = jitter([0.70, 0.58, 0.45], 0.06);
        let wall = jitter([0.78, 0.81, 0.84], 0.10);
        let tray = jitter([0.34, 0.36, 0.39], 0.07);
        let distractors = (0..dice.below(4)).map(|_| distractor(dice)).collect();
        Look {
            eye: [
                0.70 + dice.spread(0.006),
                dice.spread(0.006),
                0.80 + dice.spread(0.006),
            ],
            target: [0.245 + dice.spread(0.004), dice.spread(0.004), 0.02],
            light: [
                dice.range(-0.2, 0.9),
                dice.spread(0.8),
                dice.range(1.0, 1.6),
            ],
            brightness: dice.range(0.78, 1.15) as f32,
            table,
            wall,
            tray,
            blocks,
            distractors,
        }
    }
}

fn distractor(dice: &mut Dice) -> Distractor {
    let grey = dice.range(0.12, 0.92) as f32;
    let brown = dice.chance(0.3);
    Distractor {
        at: [dice.range(0.14, 0.50), dice.spread(0.20)],
        half: [dice.range(0.008, 0.03), dice.range(0.008, 0.03)],
        height: if dice.chance(0.6) { 0.0005 } else { 0.006 },
        yaw_rad: dice.range(0.0, 3.1),
        colour: if brown { [0.42, 0.28, 0.18] } else { [grey; 3] },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scene_is_its_seed_and_keeps_its_rules() {
        for seed in 0..500 {
            let positions = if seed % 2 == 0 {
                Positions::Seen
            } else {
                Positions::HeldOut
            };
            let scene = Scene::random(seed, Task::Touch, positions);
            let again = Scene::random(seed, Task::Touch, positions);
            assert_eq!(format!("{scene:?}"), format!("{again:?}"));
            let named = scene.cubes[0].centre;
            assert_eq!(
                is_held_out(named[0], named[1]),
                positions == Positions::HeldOut
            );
            for (i, a) in scene.cubes.iter().enumerate() {
                for (b, other) in scene.cubes.iter().zip(&scene.colours).skip(i + 1) {
                    assert!(
                        (a.centre[0] - b.centre[0]).hypot(a.centre[1] - b.centre[1]) >= APART_M
                    );
                    assert_ne!(scene.colours[i], *other);
                }
            }
        }
    }
}
