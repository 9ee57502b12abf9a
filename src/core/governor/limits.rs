// SPDX-License-Identifier: Apache-2.0
//! What the governor keeps: each joint's limits and the deployment's times, checked once at the door.
//!
//! The config room reads and checks the files; [`Limits::check`] checks again, because a wrong limit is the one error
//! that no later check can find.

use super::reaction::Reactions;
use crate::core::action::JointKind;
use crate::core::limits::JOINTS_MAX;
use crate::core::units::MS;

/// Limits of one joint: rad or m, and seconds. Both directions alike, except position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JointLimits {
    /// Lowest position that may be commanded.
    pub position_min: f64,
    /// Highest position that may be commanded.
    pub position_max: f64,
    /// Highest speed, > 0.
    pub velocity_max: f64,
    /// Highest acceleration, > 0.
    pub acceleration_max: f64,
    /// Highest jerk, > 0.
    pub jerk_max: f64,
    /// Furthest that the measured position may be from the commanded one, > 0; infinite where it is not to be
    /// watched. Must cover the lag of the drive at full speed.
    pub tracking_error_max: f64,
    /// Highest measured torque (Nm) or force (N), either way, > 0; infinite where it is not to be watched.
    pub torque_max: f64,
}

/// One joint's kind and limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Joint {
    /// How its numbers are read. A gripper is kept between its positions and has no other limits.
    pub kind: JointKind,
    /// Its limits.
    pub limits: JointLimits,
}

/// What the others do when one joint cannot follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coordination {
    /// All joints move by the same share of their way to the setpoint; where no common share is legal, all brake.
    Synchronised,
    /// Each joint for itself; the others do not notice.
    Independent,
}

/// Tighter limits for a while after the robot starts to move or changes hands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settling {
    /// For how long. 0 for none.
    pub window_ns: u64,
    /// Share of the velocity limits in force meanwhile, > 0 ..= 1.
    pub velocity: f64,
    /// Share of the acceleration limits in force meanwhile, > 0 ..= 1.
    pub acceleration: f64,
}

/// Everything the governor keeps to.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The joints, order of `robot.toml`.
    pub joints: heapless::Vec<Joint, JOINTS_MAX>,
    /// The nominal control period. One step of the governor is one of these, whatever real time passed.
    pub period_ns: u64,
    /// How joints wait for one another.
    pub coordination: Coordination,
    /// A joint state older than this is stale.
    pub state_age_max_ns: u64,
    /// A joint state older than this is lost, and the robot's position unknown.
    pub state_lost_ns: u64,
    /// A proposal made longer ago than this is stale.
    pub proposal_age_max_ns: u64,
    /// Tighter limits after arming and takeover.
    pub settling: Settling,
    /// Cause to reaction, as made stricter for this deployment.
    pub reactions: Reactions,
}

impl Limits {
    /// Whether a joint's torque is limited, and so must be measured.
    #[must_use]
    pub fn watch_torques(&self) -> bool {
        let mut joints = self.joints.iter();
        joints.any(|joint| joint.limits.torque_max.is_finite())
    }
}

/// A limit that cannot be governed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum BadLimits {
    /// None, or more than fit.
    #[error("{found} joints; expected 1..={JOINTS_MAX}")]
    Count {
        /// Joints given.
        found: usize,
    },
    /// Not what the limit's own text asks for.
    #[error("joint {joint}: {limit} is {found}; expected {expected}")]
    Value {
        /// Index of the joint.
        joint: usize,
        /// Name of the limit.
        limit: &'static str,
        /// What was given.
        found: f64,
        /// What would do.
        expected: &'static str,
    },
    /// The stop from full speed takes more than [`STOP_TICKS_MAX`] ticks.
    #[error(
        "joint {joint}: a stop from full speed takes {ticks} control periods; expected at most {STOP_TICKS_MAX}: raise acceleration_max or jerk_max, or lower velocity_max"
    )]
    StopTooLong {
        /// Index of the joint.
        joint: usize,
        /// Ticks it takes.
        ticks: u64,
    },
    /// A limit is finer than 64-bit positions can show at this rate.
    #[error(
        "joint {joint}: {limit} is too small to be kept exactly at this control period; expected at least {least:e}"
    )]
    TooFine {
        /// Index of the joint.
        joint: usize,
        /// Name of the limit.
        limit: &'static str,
        /// The smallest that can be kept.
        least: f64,
    },
    /// A time or a share.
    #[error("{what} is {found}; expected {expected}")]
    Setting {
        /// Its name.
        what: &'static str,
        /// What was given.
        found: f64,
        /// What would do.
        expected: &'static str,
    },
    /// The new limits are for other joints or another rate.
    #[error(
        "{found} joints, or their kinds or the control period, differ from the {joints} that are governed"
    )]
    Different {
        /// Joints in the new limits.
        found: usize,
        /// Joints governed.
        joints: usize,
    },
    /// The joint stands, or would come to rest, outside the new position limits.
    #[error("joint {joint}: comes to rest at {found}, outside the new position limits")]
    Outside {
        /// Index of the joint.
        joint: usize,
        /// Where it comes to rest.
        found: f64,
    },
}

/// Longest stop from full speed, in ticks: 10 s at 1 kHz. No arm takes longer; a limit that small is a slip of the pen.
pub const STOP_TICKS_MAX: f64 = 10_000.0;

/// Joint state older than this is stale by default: two periods of a 200 Hz state stream and one tick (SAFETY row 9).
const STATE_AGE_MAX_NS: u64 = 15 * MS;
/// Lost by default (SAFETY row 9).
const STATE_LOST_NS: u64 = 100 * MS;

impl Limits {
    /// The defaults for `joints` at `period_ns`: synchronised, state stale after 15 ms or three periods, lost after
    /// 100 ms, proposals stale after two periods, a quarter of the speed for the first second.
    ///
    /// # Errors
    /// [`BadLimits`] names joint and limit.
    pub fn new(joints: &[Joint], period_ns: u64) -> Result<Limits, BadLimits> {
        let found = joints.len();
        let limits = Limits {
            joints: heapless::Vec::from_slice(joints).map_err(|_| BadLimits::Count { found })?,
            period_ns,
            coordination: Coordination::Synchronised,
            state_age_max_ns: STATE_AGE_MAX_NS.max(period_ns.saturating_mul(3)),
            state_lost_ns: STATE_LOST_NS.max(period_ns.saturating_mul(10)),
            proposal_age_max_ns: period_ns.saturating_mul(2),
            settling: Settling {
                window_ns: 1_000 * MS,
                velocity: 0.25,
                acceleration: 0.5,
            },
            reactions: Reactions::default(),
        };
        limits.check()?;
        Ok(limits)
    }

    /// The control period in seconds.
    #[must_use]
    pub fn period_s(&self) -> f64 {
        self.period_ns as f64 * 1e-9
    }

    /// Checks every number.
    ///
    /// # Errors
    /// The first that is wrong, by joint and name.
    pub fn check(&self) -> Result<(), BadLimits> {
        if self.joints.is_empty() {
            return Err(BadLimits::Count { found: 0 });
        }
        // 10 kHz to 1 Hz: beyond it, some number here is in the wrong unit.
        let setting = |what, found: f64, expected, good: bool| {
            if good {
                Ok(())
            } else {
                Err(BadLimits::Setting {
                    what,
                    found,
                    expected,
                })
            }
        };
        let period_ok = (100_000..=1_000_000_000).contains(&self.period_ns);
        setting(
            "period_ns",
            self.period_ns as f64,
            "100_000 ..= 1_000_000_000",
            period_ok,
        )?;
        let state_ok =
            self.state_age_max_ns >= self.period_ns && self.state_lost_ns >= self.state_age_max_ns;
        setting(
            "state_age_max_ns",
            self.state_age_max_ns as f64,
            "at least one period and at most state_lost_ns",
            state_ok,
        )?;
        let proposal_ok = self.proposal_age_max_ns >= self.period_ns;
        setting(
            "proposal_age_max_ns",
            self.proposal_age_max_ns as f64,
            "at least one period",
            proposal_ok,
        )?;
        // `x > 0.0 && x <= 1.0` is false for NaN, as it must be.
        let share = |x: f64| x > 0.0 && x <= 1.0;
        setting(
            "settling.velocity",
            self.settling.velocity,
            "> 0 and <= 1",
            share(self.settling.velocity),
        )?;
        setting(
            "settling.acceleration",
            self.settling.acceleration,
            "> 0 and <= 1",
            share(self.settling.acceleration),
        )?;
        for (index, joint) in self.joints.iter().enumerate() {
            joint.check(index)?;
        }
        Ok(())
    }
}

impl Limits {
    /// Checks what [`super::Governor::new`] would refuse.
    ///
    /// # Errors
    /// The first that is wrong, by joint and name.
    pub fn governable(&self) -> Result<(), BadLimits> {
        super::motion::Motion::new(self).map(drop)
    }
}

impl Joint {
    /// Checks what needs no period; [`super::shape::Bounds::new`] checks the rest.
    fn check(&self, joint: usize) -> Result<(), BadLimits> {
        let l = &self.limits;
        let finite = |x: f64| x.is_finite();
        let range =
            finite(l.position_min) && finite(l.position_max) && l.position_min < l.position_max;
        let moves = match self.kind {
            JointKind::Gripper => false,
            JointKind::Revolute | JointKind::Prismatic => true,
        };
        let positive = |x: f64| !moves || (x > 0.0 && finite(x));
        let rows = [
            (
                "position_min",
                l.position_min,
                "finite and below position_max",
                range,
            ),
            (
                "position_max",
                l.position_max,
                "finite and above position_min",
                range,
            ),
            (
                "velocity_max",
                l.velocity_max,
                "finite and above 0",
                positive(l.velocity_max),
            ),
            (
                "acceleration_max",
                l.acceleration_max,
                "finite and above 0",
                positive(l.acceleration_max),
            ),
            (
                "jerk_max",
                l.jerk_max,
                "finite and above 0",
                positive(l.jerk_max),
            ),
            (
                "tracking_error_max",
                l.tracking_error_max,
                "above 0",
                l.tracking_error_max > 0.0,
            ),
            ("torque_max", l.torque_max, "above 0", l.torque_max > 0.0),
        ];
        match rows.into_iter().find(|(_, _, _, good)| !good) {
            None => Ok(()),
            Some((limit, found, expected, _)) => Err(BadLimits::Value {
                joint,
                limit,
                found,
                expected,
            }),
        }
    }
}
