// SPDX-License-Identifier: Apache-2.0
//! The simulated robot's limits, and the motion during which a fault strikes: rest, acceleration, full speed,
//! deceleration, and the neighbourhood of a position limit.

use crate::bench::dice::Dice;
use crate::core::action::JointKind;
use crate::core::governor::limits::{Joint, JointLimits, Limits, Settling};
use crate::core::units::MS;
use serde::Serialize;

/// Joints of the simulated arm.
pub const JOINTS: usize = 7;

/// Limits like those of a seven-joint research arm: rad, rad/s, rad/s^2, rad/s^3.
///
/// # Panics
/// Never: the numbers are constants that can be governed, and every run begins with them.
#[must_use]
pub fn limits() -> Limits {
    let joint = Joint {
        kind: JointKind::Revolute,
        limits: JointLimits {
            position_min: -2.7,
            position_max: 2.7,
            velocity_max: 2.1,
            acceleration_max: 10.0,
            jerk_max: 1_000.0,
            tracking_error_max: 0.1,
            torque_max: 40.0,
        },
    };
    let limits = Limits::new(&[joint; JOINTS], 5 * MS).expect("constant limits can be governed");
    Limits {
        settling: Settling {
            window_ns: 0,
            velocity: 1.0,
            acceleration: 1.0,
        },
        ..limits
    }
}

/// When in the motion the fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Armed, at rest.
    Idle,
    /// Speeding up.
    Accelerating,
    /// At the plan's top speed.
    AtSpeed,
    /// Slowing down.
    Decelerating,
    /// Close to a position limit, still moving towards it.
    NearLimit,
}

/// All of them.
pub const PHASES: [Phase; 5] = [
    Phase::Idle,
    Phase::Accelerating,
    Phase::AtSpeed,
    Phase::Decelerating,
    Phase::NearLimit,
];

/// Time to speed up, at speed, and to slow down.
const RAMP_NS: u64 = 600 * MS;
const CRUISE_NS: u64 = 400 * MS;

/// One motion of all joints: from rest to rest near a limit, speed up, cruise, slow down.
#[derive(Clone, Copy, Debug)]
pub struct Motion {
    start_rad: [f64; JOINTS],
    speed_rad_s: [f64; JOINTS],
}

impl Motion {
    /// A random one; joint 0 ends close to one of its limits.
    #[must_use]
    pub fn random(dice: &mut Dice) -> Motion {
        let way_s = (RAMP_NS + CRUISE_NS) as f64 * 1e-9;
        let mut motion = Motion {
            start_rad: [0.0; JOINTS],
            speed_rad_s: [0.0; JOINTS],
        };
        for joint in 0..JOINTS {
            let sign = if dice.chance(0.5) { 1.0 } else { -1.0 };
            let speed = dice.range(0.5, 1.7);
            let end = if joint == 0 {
                2.7 - dice.range(0.002, 0.03)
            } else {
                dice.range(0.3, 2.4)
            };
            motion.speed_rad_s[joint] = sign * speed;
            motion.start_rad[joint] = sign * (end - speed * way_s);
        }
        motion
    }

    /// Where the joints are to be `elapsed_ns` after the start.
    #[must_use]
    pub fn at(&self, elapsed_ns: u64) -> [f64; JOINTS] {
        let seconds = |ns: u64| ns as f64 * 1e-9;
        let (ramp, cruise) = (seconds(RAMP_NS), seconds(CRUISE_NS));
        let t = seconds(elapsed_ns);
        // The integral of the smoothstep 10 x^3 - 15 x^4 + 6 x^5, in ramps.
        let risen = |x: f64| 2.5 * x.powi(4) - 3.0 * x.powi(5) + x.powi(6);
        let way = if t <= ramp {
            ramp * risen(t / ramp)
        } else if t <= ramp + cruise {
            0.5 * ramp + (t - ramp)
        } else if t <= 2.0 * ramp + cruise {
            let left = 1.0 - (t - ramp - cruise) / ramp;
            ramp + cruise - ramp * risen(left)
        } else {
            ramp + cruise
        };
        std::array::from_fn(|joint| self.start_rad[joint] + self.speed_rad_s[joint] * way)
    }

    /// When the fault strikes, from the start of the motion; `None` before it.
    #[must_use]
    pub fn onset_ns(phase: Phase, dice: &mut Dice) -> Option<u64> {
        let between =
            |dice: &mut Dice, low: u64, high: u64| low + dice.below((high - low) as usize) as u64;
        let after = RAMP_NS + CRUISE_NS;
        match phase {
            Phase::Idle => None,
            Phase::Accelerating => Some(between(dice, RAMP_NS / 4, RAMP_NS * 3 / 4)),
            Phase::AtSpeed => Some(between(dice, RAMP_NS, after)),
            Phase::Decelerating => Some(between(dice, after + RAMP_NS / 4, after + RAMP_NS / 2)),
            Phase::NearLimit => Some(between(dice, after + RAMP_NS / 2, after + RAMP_NS * 3 / 4)),
        }
    }
}
