// SPDX-License-Identifier: Apache-2.0
//! The bench arm's geometry: forward kinematics, the tip's Jacobian, and the inverse for a tool that points down.
//!
//! Frame: base at the origin, x forward, y left, z up, table top at z = 0. Joints in order: base yaw about z, shoulder,
//! elbow and wrist pitch about the arm's own y, forearm and tool roll about the link. All zero is the arm straight up.

/// Joints of the arm, gripper not counted.
pub const JOINTS: usize = 6;
/// Names, in order; the same as in `deploy/bench/robot.toml`.
pub const JOINT_NAMES: [&str; JOINTS] = [
    "base_yaw",
    "shoulder_pitch",
    "elbow_pitch",
    "forearm_roll",
    "wrist_pitch",
    "tool_roll",
];
/// Shoulder above the table.
pub const BASE_HEIGHT_M: f64 = 0.12;
/// Shoulder to elbow.
pub const UPPER_M: f64 = 0.28;
/// Elbow to wrist.
pub const FOREARM_M: f64 = 0.26;
/// Wrist to the rim of the suction cup.
pub const TOOL_M: f64 = 0.10;

/// Lowest joint positions in radians: those of a small 6R arm of this size.
pub const POSITION_MIN_RAD: [f64; JOINTS] = [-2.9, -1.9, -0.1, -2.9, -2.2, -3.1];
/// Highest joint positions in radians.
pub const POSITION_MAX_RAD: [f64; JOINTS] = [2.9, 1.9, 2.8, 2.9, 2.2, 3.1];
/// Highest speeds in rad/s, either way.
pub const VELOCITY_MAX_RAD_S: [f64; JOINTS] = [2.5, 2.5, 2.5, 3.5, 3.5, 3.5];
/// Highest accelerations in rad/s^2, either way.
pub const ACCELERATION_MAX_RAD_S2: [f64; JOINTS] = [15.0, 15.0, 15.0, 20.0, 20.0, 20.0];
/// Highest jerks in rad/s^3, either way.
pub const JERK_MAX_RAD_S3: [f64; JOINTS] = [1500.0, 1500.0, 1500.0, 2000.0, 2000.0, 2000.0];

/// Metres, in the base frame.
pub type Point = [f64; 3];
type Rotation = [[f64; 3]; 3];

/// Where the arm's parts are for one set of joint positions.
#[derive(Clone, Copy, Debug)]
pub struct Pose {
    /// Shoulder, elbow, wrist, tip.
    pub points: [Point; 4],
    /// Axis of each joint (unit vector) and a point on it.
    axes: [(Point, Point); JOINTS],
}

impl Pose {
    /// The rim of the suction cup.
    #[must_use]
    pub fn tip(&self) -> Point {
        self.points[3]
    }

    /// How the tip moves with each joint: `[joint] -> m/rad`.
    #[must_use]
    pub fn jacobian(&self) -> [Point; JOINTS] {
        self.axes
            .map(|(axis, origin)| cross(axis, sub(self.tip(), origin)))
    }
}

/// Forward kinematics; `q_rad` in joint order.
#[must_use]
pub fn forward(q_rad: &[f64; JOINTS]) -> Pose {
    let yaw = turn_z(q_rad[0]);
    let shoulder = [0.0, 0.0, BASE_HEIGHT_M];
    let upper = mul(&yaw, &turn_y(q_rad[1]));
    let elbow = add(shoulder, scale(column(&upper, 2), UPPER_M));
    let bent = mul(&upper, &turn_y(q_rad[2]));
    let forearm = mul(&bent, &turn_z(q_rad[3]));
    let wrist = add(elbow, scale(column(&forearm, 2), FOREARM_M));
    let tool = mul(&forearm, &turn_y(q_rad[4]));
    let tip = add(wrist, scale(column(&tool, 2), TOOL_M));
    Pose {
        points: [shoulder, elbow, wrist, tip],
        axes: [
            ([0.0, 0.0, 1.0], [0.0; 3]),
            (column(&yaw, 1), shoulder),
            (column(&upper, 1), elbow),
            (column(&bent, 2), elbow),
            (column(&forearm, 1), wrist),
            (column(&tool, 2), wrist),
        ],
    }
}

/// Joint positions that bring the tip to `tip` with the tool pointing straight down, elbow up, rolls at zero. `None`
/// where the arm does not reach.
#[must_use]
pub fn inverse_tool_down(tip: Point) -> Option<[f64; JOINTS]> {
    let reach = tip[0].hypot(tip[1]);
    let height = tip[2] + TOOL_M - BASE_HEIGHT_M;
    let span2 = reach * reach + height * height;
    let cos_elbow =
        (span2 - UPPER_M * UPPER_M - FOREARM_M * FOREARM_M) / (2.0 * UPPER_M * FOREARM_M);
    if !(-1.0..=1.0).contains(&cos_elbow) || reach < 0.05 {
        return None;
    }
    let elbow = cos_elbow.acos();
    let shoulder =
        reach.atan2(height) - (FOREARM_M * elbow.sin()).atan2(UPPER_M + FOREARM_M * elbow.cos());
    let wrist = std::f64::consts::PI - shoulder - elbow;
    let q_rad = [tip[1].atan2(tip[0]), shoulder, elbow, 0.0, wrist, 0.0];
    let inside = q_rad
        .iter()
        .zip(POSITION_MIN_RAD.iter().zip(&POSITION_MAX_RAD))
        .all(|(q, (min, max))| (min..=max).contains(&q));
    inside.then_some(q_rad)
}

pub(super) fn add(a: Point, b: Point) -> Point {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub(super) fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(super) fn scale(a: Point, by: f64) -> Point {
    [a[0] * by, a[1] * by, a[2] * by]
}

pub(super) fn dot(a: Point, b: Point) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(super) fn cross(a: Point, b: Point) -> Point {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

pub(super) fn length(a: Point) -> f64 {
    dot(a, a).sqrt()
}

/// Unit vector along `a`, which must not be zero.
pub(super) fn unit(a: Point) -> Point {
    scale(a, 1.0 / length(a))
}

fn turn_y(angle_rad: f64) -> Rotation {
    let (s, c) = angle_rad.sin_cos();
    [[c, 0.0, s], [0.0, 1.0, 0.0], [-s, 0.0, c]]
}

fn turn_z(angle_rad: f64) -> Rotation {
    let (s, c) = angle_rad.sin_cos();
    [[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]
}

fn mul(a: &Rotation, b: &Rotation) -> Rotation {
    std::array::from_fn(|row| {
        std::array::from_fn(|col| (0..3).map(|k| a[row][k] * b[k][col]).sum())
    })
}

fn column(a: &Rotation, col: usize) -> Point {
    [a[0][col], a[1][col], a[2][col]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::dice::Dice;

    #[test]
    fn the_inverse_undoes_the_forward_over_the_whole_table() {
        let mut dice = Dice::new(1, 0);
        for _ in 0..2_000 {
            let tip = [
                dice.range(0.18, 0.42),
                dice.range(-0.31, 0.31),
                dice.range(0.02, 0.17),
            ];
            if tip[0].hypot(tip[1]) > 0.46 {
                continue;
            }
            let q_rad = inverse_tool_down(tip).unwrap_or_else(|| panic!("{tip:?} is out of reach"));
            let pose = forward(&q_rad);
            assert!(
                length(sub(pose.tip(), tip)) < 1e-9,
                "{tip:?} became {:?}",
                pose.tip()
            );
            let tool = sub(pose.points[3], pose.points[2]);
            assert!(
                (tool[2] + TOOL_M).abs() < 1e-9,
                "the tool points down: {tool:?}"
            );
        }
    }

    #[test]
    fn the_jacobian_is_the_slope_of_the_forward() {
        let q_rad = [0.3, 0.4, 1.1, 0.2, 0.9, -0.5];
        let jacobian = forward(&q_rad).jacobian();
        for joint in 0..JOINTS {
            let mut moved = q_rad;
            moved[joint] += 1e-6;
            let slope = scale(sub(forward(&moved).tip(), forward(&q_rad).tip()), 1e6);
            assert!(
                length(sub(slope, jacobian[joint])) < 1e-5,
                "joint {joint}: {slope:?} {:?}",
                jacobian[joint]
            );
        }
    }

    #[test]
    fn what_is_out_of_reach_is_none() {
        assert_eq!(inverse_tool_down([0.9, 0.0, 0.1]), None);
        assert_eq!(inverse_tool_down([0.0, 0.0, 0.1]), None);
    }
}
