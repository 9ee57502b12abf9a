// SPDX-License-Identifier: Apache-2.0
//! The bench robot's body: joint servos, contact at the tip, suction, encoders with noise.
//!
//! Each joint is a second-order servo with velocity feed-forward, bounded in acceleration and speed: nothing teleports.
//! The tip cannot enter the table or a block from above: the motion that would is taken back through the Jacobian and
//! the servo keeps pushing, as a stiff arm does. Suction works when the cup is on a face; a vacuum sensor says so.

use crate::bench::arm::{self, ACCELERATION_MAX_RAD_S2, JOINTS, Pose, VELOCITY_MAX_RAD_S};
use crate::bench::dice::Dice;
use crate::bench::scene::Scene;
use crate::bench::table::Table;

/// One step of the body.
pub const STEP_NS: u64 = 1_000_000;
const STEP_S: f64 = 1e-3;
/// Servo bandwidth: with velocity feed-forward the arm lags its target by about 1/this.
const SERVO_RAD_S: f64 = 120.0;
/// Encoder noise, one standard deviation.
const NOISE_RAD: f64 = 0.0005;
/// Where the tip is at the start of an episode.
pub const HOME_TIP_M: arm::Point = [0.24, 0.0, 0.22];

/// The body in its scene.
#[derive(Clone, Debug)]
pub struct Robot {
    q_rad: [f64; JOINTS],
    v_rad_s: [f64; JOINTS],
    suction: bool,
    /// The table with its blocks.
    pub table: Table,
    dice: Dice,
}

/// What the encoders and the vacuum sensor say.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// With noise.
    pub q_rad: [f64; JOINTS],
    /// Without noise: from the drives' own observers.
    pub v_rad_s: [f64; JOINTS],
    /// Whether the pump runs.
    pub suction: bool,
    /// Whether something hangs on the cup.
    pub holding: bool,
}

impl Robot {
    /// At home in `scene`, with noise of `seed`.
    #[must_use]
    pub fn new(scene: &Scene, seed: u64) -> Robot {
        // Home lies in the middle of the reach: see the test of the inverse.
        let q_rad = arm::inverse_tool_down(HOME_TIP_M).unwrap_or([0.0; JOINTS]);
        Robot::at(scene, seed, q_rad)
    }

    /// At rest at `q_rad` in `scene`.
    #[must_use]
    pub fn at(scene: &Scene, seed: u64, q_rad: [f64; JOINTS]) -> Robot {
        let tip = arm::forward(&q_rad).tip();
        let table = Table::new(scene.cubes.clone(), scene.trays, tip);
        Robot {
            q_rad,
            v_rad_s: [0.0; JOINTS],
            suction: false,
            table,
            dice: Dice::new(seed, 2),
        }
    }

    /// Moves the world on by [`STEP_NS`] towards a target position that itself moves at `target_rad_s`.
    pub fn step(
        &mut self,
        target_rad: &[f64; JOINTS],
        target_rad_s: &[f64; JOINTS],
        suction: bool,
    ) {
        for joint in 0..JOINTS {
            let (q, v) = (self.q_rad[joint], self.v_rad_s[joint]);
            let wish = SERVO_RAD_S * SERVO_RAD_S * (target_rad[joint] - q)
                + 2.0 * SERVO_RAD_S * (target_rad_s[joint] - v);
            // Twice the commanded limit: the drive has reserve to track what it is asked to.
            let most = 2.0 * ACCELERATION_MAX_RAD_S2[joint];
            let v = v + wish.clamp(-most, most) * STEP_S;
            self.v_rad_s[joint] = v.clamp(
                -1.2 * VELOCITY_MAX_RAD_S[joint],
                1.2 * VELOCITY_MAX_RAD_S[joint],
            );
        }
        let from_z = self.pose().tip()[2];
        for joint in 0..JOINTS {
            let q = self.q_rad[joint] + self.v_rad_s[joint] * STEP_S;
            self.q_rad[joint] = q.clamp(arm::POSITION_MIN_RAD[joint], arm::POSITION_MAX_RAD[joint]);
        }
        self.rest_on_what_is_below(from_z);
        self.suction = suction;
        self.table.step(self.pose().tip(), suction, STEP_S);
    }

    /// Takes back the part of the motion that would bring the tip below the floor under it. One damped least-squares
    /// step through the vertical row of the Jacobian; the remaining error is of second order in a millimetre.
    fn rest_on_what_is_below(&mut self, from_z: f64) {
        let pose = self.pose();
        let tip = pose.tip();
        let deep = self.table.floor_under_tip(tip[0], tip[1], from_z) - tip[2];
        if deep <= 0.0 {
            return;
        }
        let row = pose.jacobian().map(|column| column[2]);
        let norm2 = row.iter().map(|r| r * r).sum::<f64>() + 1e-6;
        let sinking = row
            .iter()
            .zip(&self.v_rad_s)
            .map(|(r, v)| r * v)
            .sum::<f64>()
            .min(0.0);
        for ((q, v), r) in self.q_rad.iter_mut().zip(&mut self.v_rad_s).zip(row) {
            *q += r / norm2 * deep;
            *v -= r / norm2 * sinking;
        }
    }

    /// Where the arm really is.
    #[must_use]
    pub fn pose(&self) -> Pose {
        arm::forward(&self.q_rad)
    }

    /// Real joint positions, without noise.
    #[must_use]
    pub fn q_rad(&self) -> &[f64; JOINTS] {
        &self.q_rad
    }

    /// Fastest joint.
    #[must_use]
    pub fn speed_rad_s(&self) -> f64 {
        self.v_rad_s.iter().fold(0.0, |most, v| most.max(v.abs()))
    }

    /// Sets the pump without a step: a situation to be labelled.
    pub fn set_suction(&mut self, on: bool) {
        self.suction = on;
    }

    /// Reads the sensors; each call draws new noise.
    pub fn measure(&mut self) -> Measured {
        let q_rad = self.q_rad.map(|q| q + self.dice.normal(NOISE_RAD));
        Measured {
            q_rad,
            v_rad_s: self.v_rad_s,
            suction: self.suction,
            holding: self.table.held.is_some(),
        }
    }
}
