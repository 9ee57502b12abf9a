// SPDX-License-Identifier: Apache-2.0
//! What lies on the table: cubes, trays, and the contacts that matter for touching, pushing, picking and putting.
//!
//! Quasi-static: on a table with friction a cube pushed this slowly moves exactly as far as it is pushed, so there is
//! no sliding velocity to integrate. The tip (a sphere) pushes cubes aside, cubes push cubes, trays stop both; a cube
//! in the air falls and comes to rest on what is below it. Not modelled: tilting, rolling, bouncing, the arm's links.

use crate::bench::arm::Point;

/// Edge of a cube.
pub const CUBE_M: f64 = 0.036;
const HALF_M: f64 = CUBE_M / 2.0;
/// The tip as a sphere: radius of the suction cup.
pub const TIP_RADIUS_M: f64 = 0.010;
/// Inner size of a tray: x, y.
pub const TRAY_INNER_M: [f64; 2] = [0.13, 0.16];
/// Height of a tray's walls.
pub const TRAY_WALL_M: f64 = 0.03;
/// Thickness of walls and floor.
pub const TRAY_THICK_M: f64 = 0.004;
/// Furthest the cup may be off the face's centre and still seal.
pub const SEAL_OFFSET_M: f64 = 0.012;
/// Furthest the cup may be above the face and still suck it on.
pub const SEAL_GAP_M: f64 = 0.004;
const GRAVITY_M_S2: f64 = 9.81;

/// A cube.
#[derive(Clone, Copy, Debug)]
pub struct Cube {
    /// Centre.
    pub centre: Point,
    /// Turn about z, radians.
    pub yaw_rad: f64,
    /// Downward speed while it falls.
    fall_m_s: f64,
    /// Whether it changed place in the last step.
    pub moved: bool,
    /// Whether the tip has ever been in contact with it.
    pub touched: bool,
}

impl Cube {
    /// At rest on the table.
    #[must_use]
    pub fn on_table(x: f64, y: f64, yaw_rad: f64) -> Cube {
        Cube {
            centre: [x, y, HALF_M],
            yaw_rad,
            fall_m_s: 0.0,
            moved: false,
            touched: false,
        }
    }

    /// Height of its top face.
    #[must_use]
    pub fn top(&self) -> f64 {
        self.centre[2] + HALF_M
    }

    /// A point of the table in the cube's own axes.
    fn local(&self, x: f64, y: f64) -> [f64; 2] {
        let (s, c) = self.yaw_rad.sin_cos();
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        [c * dx + s * dy, -s * dx + c * dy]
    }

    /// Whether (x, y) lies over the cube widened by `margin`.
    fn covers(&self, x: f64, y: f64, margin: f64) -> bool {
        self.local(x, y).iter().all(|d| d.abs() <= HALF_M + margin)
    }
}

/// An open box.
#[derive(Clone, Copy, Debug)]
pub struct Tray {
    /// Centre of its floor.
    pub x: f64,
    /// Centre of its floor.
    pub y: f64,
}

impl Tray {
    /// Whether (x, y) lies over the inside shrunk by `margin`.
    #[must_use]
    pub fn holds(&self, x: f64, y: f64, margin: f64) -> bool {
        (x - self.x).abs() <= TRAY_INNER_M[0] / 2.0 - margin
            && (y - self.y).abs() <= TRAY_INNER_M[1] / 2.0 - margin
    }
}

/// Everything on the table, and what hangs on the cup.
#[derive(Clone, Debug)]
pub struct Table {
    /// The cubes.
    pub cubes: Vec<Cube>,
    /// Left tray (y > 0), right tray.
    pub trays: [Tray; 2],
    /// The cube on the cup, and its centre relative to the tip.
    pub held: Option<(usize, Point)>,
    tip_before: Point,
}

impl Table {
    /// A table seen for the first time with the tip at `tip`.
    #[must_use]
    pub fn new(cubes: Vec<Cube>, trays: [Tray; 2], tip: Point) -> Table {
        Table {
            cubes,
            trays,
            held: None,
            tip_before: tip,
        }
    }

    /// How low the tip may come at (x, y) when it comes from `from_z`: the top of a cube below it, else the table.
    #[must_use]
    pub fn floor_under_tip(&self, x: f64, y: f64, from_z: f64) -> f64 {
        let hanging = self.held.map_or(0.0, |(_, offset)| -offset[2] + HALF_M);
        let mut floor = self.ground(x, y) + hanging;
        for (index, cube) in self.cubes.iter().enumerate() {
            let own = self.held.is_some_and(|(held, _)| held == index);
            let margin = if self.held.is_some() { HALF_M } else { 0.0 };
            let top = cube.top() + hanging;
            if !own && cube.covers(x, y, margin) && from_z >= top - 0.003 {
                floor = floor.max(top);
            }
        }
        floor
    }

    fn ground(&self, x: f64, y: f64) -> f64 {
        if self.trays.iter().any(|tray| tray.holds(x, y, 0.0)) {
            TRAY_THICK_M
        } else {
            0.0
        }
    }

    /// Moves the world on by `dt_s` with the tip at `tip`; `suction` is whether the pump runs.
    pub fn step(&mut self, tip: Point, suction: bool, dt_s: f64) {
        for cube in &mut self.cubes {
            cube.moved = false;
        }
        self.grip(tip, suction);
        self.push(tip);
        for index in 0..self.cubes.len() {
            if self.held.is_none_or(|(held, _)| held != index) {
                self.fall(index, dt_s);
            }
        }
        self.tip_before = tip;
    }

    fn grip(&mut self, tip: Point, suction: bool) {
        if !suction {
            self.held = None;
        }
        if suction && self.held.is_none() {
            self.held = self.cubes.iter().enumerate().find_map(|(index, cube)| {
                let offset = [
                    cube.centre[0] - tip[0],
                    cube.centre[1] - tip[1],
                    cube.centre[2] - tip[2],
                ];
                let sealed = offset[0].hypot(offset[1]) <= SEAL_OFFSET_M
                    && (tip[2] - cube.top()).abs() <= SEAL_GAP_M;
                sealed.then_some((index, offset))
            });
        }
        if let Some((index, offset)) = self.held {
            let cube = &mut self.cubes[index];
            let centre = [tip[0] + offset[0], tip[1] + offset[1], tip[2] + offset[2]];
            cube.moved = centre != cube.centre;
            cube.centre = centre;
            cube.fall_m_s = 0.0;
            cube.touched = true;
        }
    }

    fn push(&mut self, tip: Point) {
        for index in 0..self.cubes.len() {
            let cube = &mut self.cubes[index];
            let below_top = tip[2] < cube.top() - 0.003;
            let in_height = tip[2] > cube.centre[2] - HALF_M - TIP_RADIUS_M;
            if self.held.is_some_and(|(held, _)| held == index) || !in_height {
                continue;
            }
            if !below_top {
                cube.touched |= cube.covers(tip[0], tip[1], 0.0) && tip[2] <= cube.top() + 0.0005;
                continue;
            }
            let [lx, ly] = cube.local(tip[0], tip[1]);
            let reach = HALF_M + TIP_RADIUS_M;
            let (gap_x, gap_y) = (reach - lx.abs(), reach - ly.abs());
            if gap_x <= 0.0 || gap_y <= 0.0 {
                continue;
            }
            // Out along the axis of least overlap, away from the tip.
            let [px, py] = if gap_x < gap_y {
                [-gap_x * lx.signum(), 0.0]
            } else {
                [0.0, -gap_y * ly.signum()]
            };
            let (s, c) = cube.yaw_rad.sin_cos();
            cube.centre[0] += c * px - s * py;
            cube.centre[1] += s * px + c * py;
            cube.moved = true;
            cube.touched = true;
            self.push_neighbours(index);
        }
    }

    /// A cube that was pushed pushes those it runs into, as discs of its mean radius; a bounded chain.
    fn push_neighbours(&mut self, from: usize) {
        let mut mover = from;
        for _ in 0..self.cubes.len() {
            let at = self.cubes[mover].centre;
            let apart = CUBE_M * 1.1;
            let hit = (0..self.cubes.len()).find(|&other| {
                let there = self.cubes[other].centre;
                other != mover
                    && (there[2] - at[2]).abs() < HALF_M
                    && (there[0] - at[0]).hypot(there[1] - at[1]) < apart - 1e-9
            });
            let Some(other) = hit else { return };
            let there = self.cubes[other].centre;
            let (dx, dy) = (there[0] - at[0], there[1] - at[1]);
            let distance = dx.hypot(dy).max(1e-6);
            self.cubes[other].centre[0] = at[0] + dx / distance * apart;
            self.cubes[other].centre[1] = at[1] + dy / distance * apart;
            self.cubes[other].moved = true;
            mover = other;
        }
    }

    fn fall(&mut self, index: usize, dt_s: f64) {
        let cube = self.cubes[index];
        let [x, y, z] = cube.centre;
        let below = self
            .cubes
            .iter()
            .enumerate()
            .filter(|(other, lower)| {
                *other != index
                    && self.held.is_none_or(|(held, _)| held != *other)
                    && lower.centre[2] < z - HALF_M
                    && (lower.centre[0] - x).hypot(lower.centre[1] - y) < CUBE_M * 0.8
            })
            .map(|(_, lower)| lower.top())
            .fold(self.ground(x, y), f64::max);
        let rest = below + HALF_M;
        let cube = &mut self.cubes[index];
        if z <= rest + 1e-9 {
            cube.fall_m_s = 0.0;
            cube.centre[2] = rest;
        } else {
            cube.fall_m_s += GRAVITY_M_S2 * dt_s;
            cube.centre[2] = (z - cube.fall_m_s * dt_s).max(rest);
            cube.moved = true;
        }
        // A cube that lies on a wall slides to the nearer side; one on the table stays out of the tray.
        for tray in self.trays {
            let [x, y, z] = cube.centre;
            let low = z - HALF_M < TRAY_WALL_M - 0.002;
            let over = tray.holds(x, y, -HALF_M - TRAY_THICK_M);
            let inside = tray.holds(x, y, HALF_M * 0.9);
            if low && over && !inside {
                let into = tray.holds(x, y, 0.0);
                slide(cube, tray, into);
            }
        }
    }
}

/// Moves a cube off a tray's wall, to the inside or the outside along the axis that needs least.
fn slide(cube: &mut Cube, tray: Tray, into: bool) {
    let half = [TRAY_INNER_M[0] / 2.0, TRAY_INNER_M[1] / 2.0];
    let centre = [tray.x, tray.y];
    if into {
        for axis in 0..2 {
            let room = half[axis] - HALF_M;
            cube.centre[axis] = cube.centre[axis].clamp(centre[axis] - room, centre[axis] + room);
        }
    } else {
        let clear = |axis: usize| half[axis] + HALF_M + TRAY_THICK_M;
        let off = |axis: usize| cube.centre[axis] - centre[axis];
        let axis = if clear(0) - off(0).abs() < clear(1) - off(1).abs() {
            0
        } else {
            1
        };
        cube.centre[axis] = centre[axis] + clear(axis).copysign(off(axis));
    }
    cube.moved = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRAYS: [Tray; 2] = [Tray { x: 0.28, y: 0.30 }, Tray { x: 0.28, y: -0.30 }];

    fn table(cubes: Vec<Cube>) -> Table {
        Table::new(cubes, TRAYS, [0.25, 0.0, 0.2])
    }

    fn run(table: &mut Table, tip: Point, suction: bool, steps: usize) {
        (0..steps).for_each(|_| table.step(tip, suction, 0.001));
    }

    #[test]
    fn a_cube_is_pushed_exactly_as_far_as_the_tip_goes() {
        let mut table = table(vec![Cube::on_table(0.30, 0.0, 0.0)]);
        for mm in 0..60 {
            run(
                &mut table,
                [0.25 + f64::from(mm) * 0.001, 0.0, 0.02],
                false,
                1,
            );
        }
        let want = 0.25 + 0.059 + HALF_M + TIP_RADIUS_M;
        assert!(
            (table.cubes[0].centre[0] - want).abs() < 1e-9,
            "{:?}",
            table.cubes[0]
        );
        assert!(table.cubes[0].touched);
    }

    #[test]
    fn pushed_cubes_push_cubes_and_never_overlap() {
        let mut table = table(vec![
            Cube::on_table(0.30, 0.0, 0.0),
            Cube::on_table(0.35, 0.005, 0.3),
        ]);
        for mm in 0..80 {
            run(
                &mut table,
                [0.25 + f64::from(mm) * 0.001, 0.0, 0.02],
                false,
                1,
            );
            let [a, b] = [table.cubes[0].centre, table.cubes[1].centre];
            assert!((a[0] - b[0]).hypot(a[1] - b[1]) >= CUBE_M * 1.1 - 1e-6);
        }
        assert!(
            !table.cubes[1].touched,
            "touched by the cube, not by the tip"
        );
    }

    #[test]
    fn suction_needs_the_face_and_lets_go_into_the_tray() {
        let mut table = table(vec![Cube::on_table(0.30, 0.0, 0.4)]);
        run(&mut table, [0.30, 0.02, CUBE_M], true, 5);
        assert!(table.held.is_none(), "20 mm off the centre does not seal");
        run(&mut table, [0.305, 0.0, CUBE_M + 0.001], true, 5);
        assert!(table.held.is_some());
        run(&mut table, [0.28, 0.30, 0.16], true, 5);
        assert!((table.cubes[0].centre[1] - 0.30).abs() < 1e-9);
        run(&mut table, [0.28, 0.30, 0.16], false, 400);
        let cube = table.cubes[0];
        assert!(
            (cube.centre[2] - HALF_M - TRAY_THICK_M).abs() < 1e-9,
            "{cube:?}"
        );
        assert!(!cube.moved);
    }

    #[test]
    fn a_cube_dropped_on_a_cube_rests_on_it() {
        let mut table = table(vec![
            Cube::on_table(0.30, 0.0, 0.0),
            Cube::on_table(0.40, 0.1, 0.0),
        ]);
        run(&mut table, [0.40, 0.1, CUBE_M], true, 2);
        run(&mut table, [0.30, 0.0, 0.15], true, 2);
        run(&mut table, [0.30, 0.0, 0.15], false, 500);
        assert!(
            (table.cubes[1].centre[2] - 1.5 * CUBE_M).abs() < 1e-9,
            "{:?}",
            table.cubes[1]
        );
    }
}
