// SPDX-License-Identifier: Apache-2.0
//! The camera: a software rasteriser with z-buffer, planar shadows and 2 x 2 supersampling.
//!
//! Plain arithmetic in a fixed order, so the same scene gives the same picture. What never moves (table, trays,
//! distractors) is drawn once a scene; blocks, arm and shadows are drawn on a copy of it. Lens distortion, noise and
//! motion blur are not modelled; training adds photometric noise of its own.

use crate::bench::arm::{Point, Pose, add, cross, dot, scale, sub, unit};
use crate::bench::scene::{Look, Rgb, Scene};
use crate::bench::table::{CUBE_M, TRAY_INNER_M, TRAY_THICK_M, TRAY_WALL_M, Table};

/// Samples a pixel and axis.
const OVER: usize = 2;
/// Half the vertical field of view, as a slope.
const HALF_VIEW: f64 = 0.47;
/// Sides of a round link.
const SIDES: usize = 14;
/// The table's half sizes around its centre.
const TABLE_CENTRE_M: [f64; 2] = [0.27, 0.0];
const TABLE_HALF_M: [f64; 2] = [0.36, 0.50];

/// What a sample shows; only the table and what is flat on it takes shadows.
#[derive(Clone, Copy)]
struct Sample {
    depth: f32,
    colour: Rgb,
    ground: bool,
}

/// A camera that renders one scene at one size.
#[derive(Clone)]
pub struct Camera {
    side_px: usize,
    eye: Point,
    right: Point,
    up: Point,
    forward: Point,
    light: Point,
    look: Look,
    still: Vec<Sample>,
    canvas: Vec<Sample>,
    shadow: Vec<bool>,
}

impl Camera {
    /// A square camera of `side_px` pixels for `scene`.
    #[must_use]
    pub fn new(scene: &Scene, side_px: usize) -> Camera {
        let look = scene.look.clone();
        let forward = unit(sub(look.target, look.eye));
        let right = unit(cross(forward, [0.0, 0.0, 1.0]));
        let up = cross(right, forward);
        let samples = (side_px * OVER) * (side_px * OVER);
        let empty = Sample {
            depth: f32::INFINITY,
            colour: [0.0; 3],
            ground: false,
        };
        let mut camera = Camera {
            side_px,
            eye: look.eye,
            right,
            up,
            forward,
            light: unit(look.light),
            look,
            still: vec![empty; samples],
            canvas: vec![empty; samples],
            shadow: vec![false; samples],
        };
        camera.draw_still(scene);
        camera
    }

    /// Draws the world as it is now into `rgb`, `side * side * 3` bytes, row-major from the top left.
    pub fn render(&mut self, table: &Table, pose: &Pose, rgb: &mut [u8]) {
        self.canvas.copy_from_slice(&self.still);
        self.shadow.fill(false);
        for index in 0..table.cubes.len() {
            let cube = table.cubes[index];
            let half = CUBE_M / 2.0;
            self.block(
                cube.centre,
                [half; 3],
                cube.yaw_rad,
                self.look.blocks[index],
                Shade::Casts,
            );
        }
        self.arm(pose, table.held.is_some());
        self.resolve(rgb);
    }

    /// Where a point of the world appears: u to the right, v down, 0..1 of the picture.
    #[must_use]
    pub fn project(&self, point: Point) -> [f64; 2] {
        let [x, y, _] = self.to_screen(point);
        let side = (self.side_px * OVER) as f64;
        [x / side, y / side]
    }

    fn to_screen(&self, point: Point) -> [f64; 3] {
        let from_eye = sub(point, self.eye);
        let depth = dot(from_eye, self.forward).max(0.01);
        let half = (self.side_px * OVER) as f64 / 2.0;
        let zoom = half / (HALF_VIEW * depth);
        [
            half + dot(from_eye, self.right) * zoom,
            half - dot(from_eye, self.up) * zoom,
            depth,
        ]
    }

    fn draw_still(&mut self, scene: &Scene) {
        let side = self.side_px * OVER;
        let half = side as f64 / 2.0;
        for row in 0..side {
            for col in 0..side {
                let (sx, sy) = (
                    (col as f64 + 0.5 - half) / half,
                    (half - row as f64 - 0.5) / half,
                );
                let ray = add(
                    self.forward,
                    add(
                        scale(self.right, sx * HALF_VIEW),
                        scale(self.up, sy * HALF_VIEW),
                    ),
                );
                self.still[row * side + col] = self.behind(ray, sy);
            }
        }
        self.canvas.copy_from_slice(&self.still);
        for thing in &scene.look.distractors {
            let centre = [thing.at[0], thing.at[1], thing.height / 2.0];
            self.block(
                centre,
                [thing.half[0], thing.half[1], thing.height / 2.0],
                thing.yaw_rad,
                thing.colour,
                Shade::Ground,
            );
        }
        for tray in scene.trays {
            let (hx, hy) = (
                TRAY_INNER_M[0] / 2.0 + TRAY_THICK_M,
                TRAY_INNER_M[1] / 2.0 + TRAY_THICK_M,
            );
            let floor = self.look.tray.map(|c| c * 0.85);
            self.block(
                [tray.x, tray.y, TRAY_THICK_M / 2.0],
                [hx, hy, TRAY_THICK_M / 2.0],
                0.0,
                floor,
                Shade::Ground,
            );
            let (wall, thick) = (TRAY_WALL_M / 2.0, TRAY_THICK_M / 2.0);
            for sign in [-1.0, 1.0] {
                let colour = self.look.tray;
                self.block(
                    [tray.x + sign * hx, tray.y, wall],
                    [thick, hy, wall],
                    0.0,
                    colour,
                    Shade::Plain,
                );
                self.block(
                    [tray.x, tray.y + sign * hy, wall],
                    [hx, thick, wall],
                    0.0,
                    colour,
                    Shade::Plain,
                );
            }
        }
        self.still.copy_from_slice(&self.canvas);
    }

    /// What a ray sees when nothing is in its way: the table with its grain, or the wall.
    fn behind(&self, ray: Point, height: f64) -> Sample {
        if ray[2] < -1e-6 {
            let hit = add(self.eye, scale(ray, -self.eye[2] / ray[2]));
            let (dx, dy) = (hit[0] - TABLE_CENTRE_M[0], hit[1] - TABLE_CENTRE_M[1]);
            if dx.abs() < TABLE_HALF_M[0] && dy.abs() < TABLE_HALF_M[1] {
                let plank = ((hit[0] * 9.0).floor() * 12.9898).sin() * 0.02;
                let grain = ((hit[1] * 7.0 + (hit[0] * 60.0).sin() * 0.3).sin() * 0.5
                    + (hit[0] * 410.0).sin() * 0.5)
                    * 0.018;
                let lit = self.lit([0.0, 0.0, 1.0]) * (1.0 + (plank + grain) as f32);
                return Sample {
                    depth: self.eye[2] as f32 / -ray[2] as f32,
                    colour: self.look.table.map(|c| c * lit),
                    ground: true,
                };
            }
        }
        let fade = (0.80 + 0.25 * height) as f32 * self.look.brightness;
        Sample {
            depth: f32::INFINITY,
            colour: self.look.wall.map(|c| c * fade),
            ground: false,
        }
    }

    /// Light on a surface that faces along `normal`: some from everywhere, some from the lamp.
    fn lit(&self, normal: Point) -> f32 {
        (0.52 + 0.50 * dot(normal, self.light).max(0.0)) as f32 * self.look.brightness
    }

    fn arm(&mut self, pose: &Pose, holding: bool) {
        let [shoulder, elbow, wrist, tip] = pose.points;
        let (shell, joint, dark) = ([0.90, 0.91, 0.93], [0.22, 0.42, 0.62], [0.16, 0.17, 0.19]);
        self.link([0.0, 0.0, 0.0], [0.0, 0.0, 0.03], 0.075, 0.070, dark);
        self.link([0.0, 0.0, 0.03], shoulder, 0.055, 0.045, shell);
        self.link(shoulder, elbow, 0.034, 0.028, shell);
        self.link(elbow, wrist, 0.028, 0.022, shell);
        for (at, radius) in [(shoulder, 0.046), (elbow, 0.036), (wrist, 0.027)] {
            self.ball(at, radius, joint);
        }
        let along = unit(sub(tip, wrist));
        let cup = sub(tip, scale(along, 0.018));
        self.link(wrist, cup, 0.012, 0.009, dark);
        self.link(
            cup,
            tip,
            0.007,
            0.011,
            if holding { [0.20, 0.62, 0.55] } else { dark },
        );
    }

    /// A box, its six faces shaded flat.
    fn block(&mut self, centre: Point, half: [f64; 3], yaw_rad: f64, colour: Rgb, shade: Shade) {
        let (s, c) = yaw_rad.sin_cos();
        let corner = |x: f64, y: f64, z: f64| {
            let (x, y) = (x * half[0], y * half[1]);
            [
                centre[0] + c * x - s * y,
                centre[1] + s * x + c * y,
                centre[2] + z * half[2],
            ]
        };
        for (axis, sign) in [(0, -1.0), (0, 1.0), (1, -1.0), (1, 1.0), (2, 1.0)] {
            let mut normal = [0.0; 3];
            normal[axis] = sign;
            let normal = [
                c * normal[0] - s * normal[1],
                s * normal[0] + c * normal[1],
                normal[2],
            ];
            let (u, v) = ((axis + 1) % 3, (axis + 2) % 3);
            let face = [(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)].map(|(a, b)| {
                let mut at = [0.0; 3];
                at[axis] = sign;
                at[u] = a;
                at[v] = b;
                corner(at[0], at[1], at[2])
            });
            self.face(&face, normal, colour, shade);
        }
    }

    /// A round, tapered link.
    fn link(&mut self, from: Point, to: Point, radius_from: f64, radius_to: f64, colour: Rgb) {
        let along = unit(sub(to, from));
        let aside = unit(cross(
            along,
            if along[2].abs() > 0.9 {
                [1.0, 0.0, 0.0]
            } else {
                [0.0, 0.0, 1.0]
            },
        ));
        let other = cross(along, aside);
        let around = |k: usize| {
            let (s, c) = (k as f64 * std::f64::consts::TAU / SIDES as f64).sin_cos();
            add(scale(aside, c), scale(other, s))
        };
        for k in 0..SIDES {
            let (a, b) = (around(k), around(k + 1));
            let face = [
                add(from, scale(a, radius_from)),
                add(from, scale(b, radius_from)),
                add(to, scale(b, radius_to)),
                add(to, scale(a, radius_to)),
            ];
            self.face(&face, unit(add(a, b)), colour, Shade::Casts);
            self.face(&[to, face[2], face[3], to], along, colour, Shade::Plain);
        }
    }

    /// A ball of flat facets.
    fn ball(&mut self, centre: Point, radius: f64, colour: Rgb) {
        const RINGS: usize = 7;
        let at = |ring: usize, k: usize| {
            let (s, c) = (ring as f64 * std::f64::consts::PI / RINGS as f64).sin_cos();
            let (sk, ck) = (k as f64 * std::f64::consts::TAU / SIDES as f64).sin_cos();
            [s * ck, s * sk, c]
        };
        for ring in 0..RINGS {
            for k in 0..SIDES {
                let corners = [
                    at(ring, k),
                    at(ring + 1, k),
                    at(ring + 1, k + 1),
                    at(ring, k + 1),
                ];
                let normal = unit(
                    corners
                        .iter()
                        .fold([0.0; 3], |sum, corner| add(sum, *corner)),
                );
                let face = corners.map(|corner| add(centre, scale(corner, radius)));
                self.face(&face, normal, colour, Shade::Casts);
            }
        }
    }

    /// One flat quadrilateral, and its shadow on the table.
    fn face(&mut self, corners: &[Point; 4], normal: Point, colour: Rgb, shade: Shade) {
        if matches!(shade, Shade::Casts) {
            let light = self.light;
            let shadow = corners.map(|corner| {
                // Along the light down to the table; the light never comes from below.
                let down = scale(light, -corner[2].max(0.0) / light[2]);
                self.to_screen(add(corner, down))
            });
            self.fill(&shadow, |camera, index, _| camera.shadow[index] = true);
        }
        if dot(normal, sub(self.eye, corners[0])) <= 0.0 {
            return;
        }
        let lit = self.lit(normal);
        let colour = colour.map(|c| c * lit);
        let ground = matches!(shade, Shade::Ground);
        let screen = corners.map(|corner| self.to_screen(corner));
        self.fill(&screen, |camera, index, depth| {
            let sample = &mut camera.canvas[index];
            if depth < sample.depth {
                *sample = Sample {
                    depth,
                    colour,
                    ground,
                };
            }
        });
    }

    /// Visits every sample inside a quadrilateral given on the screen, as two triangles.
    fn fill(&mut self, quad: &[[f64; 3]; 4], mut visit: impl FnMut(&mut Camera, usize, f32)) {
        let side = self.side_px * OVER;
        for [a, b, c] in [[quad[0], quad[1], quad[2]], [quad[0], quad[2], quad[3]]] {
            let area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]);
            if area.abs() < 1e-9 {
                continue;
            }
            let most = |values: [f64; 3]| values.into_iter().fold(f64::NEG_INFINITY, f64::max);
            let least = |values: [f64; 3]| values.into_iter().fold(f64::INFINITY, f64::min);
            let clip = |value: f64| value.clamp(0.0, side as f64) as usize;
            let (top, bottom) = (
                clip(least([a[1], b[1], c[1]])),
                clip(most([a[1], b[1], c[1]]).ceil()),
            );
            let (left, end) = (
                clip(least([a[0], b[0], c[0]])),
                clip(most([a[0], b[0], c[0]]).ceil()),
            );
            // Inverse depth is linear on the screen.
            let (ia, ib, ic) = (1.0 / a[2], 1.0 / b[2], 1.0 / c[2]);
            for row in top..bottom {
                let y = row as f64 + 0.5;
                let (wb0, wc0) = (
                    (a[0] * (c[1] - a[1]) - a[1] * (c[0] - a[0])),
                    (a[0] * (b[1] - a[1]) - a[1] * (b[0] - a[0])),
                );
                for col in left..end {
                    let x = col as f64 + 0.5;
                    let wb = ((x * (c[1] - a[1]) - y * (c[0] - a[0])) - wb0) / area;
                    let wc = -((x * (b[1] - a[1]) - y * (b[0] - a[0])) - wc0) / area;
                    let wa = 1.0 - wb - wc;
                    if wa >= 0.0 && wb >= 0.0 && wc >= 0.0 {
                        visit(
                            self,
                            row * side + col,
                            (1.0 / (wa * ia + wb * ib + wc * ic)) as f32,
                        );
                    }
                }
            }
        }
    }

    /// Darkens what is in shadow and averages the samples of each pixel.
    fn resolve(&self, rgb: &mut [u8]) {
        let side = self.side_px * OVER;
        for (pixel, out) in rgb.chunks_exact_mut(3).enumerate() {
            let (row, col) = (pixel / self.side_px * OVER, pixel % self.side_px * OVER);
            let mut sum = [0.0_f32; 3];
            for index in [
                row * side + col,
                row * side + col + 1,
                (row + 1) * side + col,
                (row + 1) * side + col + 1,
            ] {
                let sample = &self.canvas[index];
                let lit = if sample.ground && self.shadow[index] {
                    0.62
                } else {
                    1.0
                };
                for (sum, c) in sum.iter_mut().zip(sample.colour) {
                    *sum += c * lit;
                }
            }
            for (out, sum) in out.iter_mut().zip(sum) {
                *out = (sum * 0.25 * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
    }
}

/// What a face does with shadows.
#[derive(Clone, Copy)]
enum Shade {
    /// Throws one.
    Casts,
    /// Takes them.
    Ground,
    /// Neither.
    Plain,
}
