// SPDX-License-Identifier: Apache-2.0
//! What the measured robot, and the policy, do wrong over time: state that cannot be used, a pose that cannot be taken
//! over, a robot that does not follow, setpoints that shake.
//!
//! Each is a small memory with one question. What follows from the answer stands in [`super::reaction`].

use super::limits::Limits;
use super::reaction::Cause;
use crate::core::action::JointKind;
use crate::core::limits::JOINTS_MAX;
use crate::core::observation::{Freshness, JointState};
use crate::core::units::{MS, Mono};

/// A tracking error that lasts this long is no lag, and a torque above its limit no spike of a gear (SAFETY row 44:
/// reaction within 60 ms).
pub const TRACKING_NS: u64 = 50 * MS;

/// Window over which shaking is counted, and the share of its ticks that is too much (SAFETY row 19).
pub const SHAKING_NS: u64 = 500 * MS;
const SHAKING_SHARE: u32 = 2;

/// A measured joint slower than this, rad/s or m/s, counts as at rest. A guess: encoders differentiate to some 0.01, and
/// a joint that slow stops within a tick of any limits in use.
pub const REST_RATE: f64 = 0.05;

/// A measured joint outside its position limits by no more than this, rad or m, counts as on the limit: noise, and play
/// at a mechanical stop. A third of a degree.
pub const POSE_ROOM: f64 = 0.005;

/// The joint state if it can be used, else why not. Age is judged by the receiver's clock, here and now, whatever the
/// caller has judged before.
///
/// # Errors
/// The cause for which it cannot be used.
pub fn usable<'a>(
    now: Mono,
    state: &Freshness<&'a JointState>,
    limits: &Limits,
) -> Result<&'a JointState, Cause> {
    let (age_ns, state) = match *state {
        Freshness::NeverSeen => return Err(Cause::StateStale),
        Freshness::Stale { age_ns } => (age_ns, None),
        Freshness::Fresh(state) => (now.since_ns(state.received), Some(state)),
    };
    if age_ns > limits.state_lost_ns {
        return Err(Cause::StateLost);
    }
    let Some(state) = state else {
        return Err(Cause::StateStale);
    };
    // From the future by more than a tick: it would stay fresh for ever.
    let early = state.received > now.plus_ns(limits.period_ns);
    if age_ns > limits.state_age_max_ns || early {
        Err(Cause::StateStale)
    } else if state.joints != limits.joints.len() || !state.torques && limits.watch_torques() {
        Err(Cause::StateDimension)
    } else if !counted(state).all(|(q, v)| q.is_finite() && v.is_finite())
        || !state
            .torque
            .iter()
            .take(state.joints)
            .all(|torque| torque.is_finite())
    {
        Err(Cause::StateNotFinite)
    } else {
        Ok(state)
    }
}

/// Why the measured pose cannot become the first command, if so.
#[must_use]
pub fn cannot_seat(state: &JointState, limits: &Limits) -> Option<Cause> {
    let mut moving = None;
    for (joint, (q, v)) in limits.joints.iter().zip(counted(state)) {
        if joint.kind == JointKind::Gripper {
            continue;
        }
        let inside = q >= joint.limits.position_min - POSE_ROOM
            && q <= joint.limits.position_max + POSE_ROOM;
        if !inside {
            return Some(Cause::PoseOutside);
        }
        if v.abs() > REST_RATE {
            moving = Some(Cause::PoseMoving);
        }
    }
    moving
}

/// Positions and velocities that count.
fn counted(state: &JointState) -> impl Iterator<Item = (f64, f64)> + '_ {
    state
        .position
        .iter()
        .copied()
        .zip(state.velocity.iter().copied())
        .take(state.joints)
}

/// Whether something is so and has been for [`TRACKING_NS`]; `since` remembers.
fn lasting(since: &mut Option<Mono>, now: Mono, so: bool) -> bool {
    *since = so.then(|| since.unwrap_or(now));
    since.is_some_and(|since| now.since_ns(since) >= TRACKING_NS)
}

/// Whether the measured robot does what it was told.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    off_track: Option<Mono>,
    overloaded: Option<Mono>,
    before: Option<JointState>,
}

impl Watch {
    /// Looks at a usable state against what was last emitted.
    pub fn look(
        &mut self,
        now: Mono,
        state: &JointState,
        emitted: impl Iterator<Item = f64>,
        limits: &Limits,
    ) -> Option<Cause> {
        // The same state twice is no news; a repeated one must not be compared with itself.
        let before = self
            .before
            .filter(|before| before.measured < state.measured);
        if before.is_some() || self.before.is_none() {
            self.before = Some(*state);
        }
        let dt_s = before.map_or(0.0, |before| state.measured.seconds_since(before.measured));
        let (mut off_track, mut jumped) = (false, false);
        let measured = state
            .position
            .iter()
            .zip(before.as_ref().unwrap_or(state).position.iter());
        for ((joint, emitted), (q, q_before)) in limits.joints.iter().zip(emitted).zip(measured) {
            if joint.kind == JointKind::Gripper {
                continue;
            }
            off_track |= (emitted - q).abs() > joint.limits.tracking_error_max;
            // Twice the speed limit, and the tracking error on top for noise and a drive that catches up.
            let most = 2.0 * joint.limits.velocity_max * dt_s + joint.limits.tracking_error_max;
            jumped |= (q - q_before).abs() > most;
        }
        let torques = limits.joints.iter().zip(&state.torque);
        let mut loads = torques.map(|(joint, torque)| torque.abs() > joint.limits.torque_max);
        let off_track = lasting(&mut self.off_track, now, off_track);
        let overloaded = lasting(&mut self.overloaded, now, loads.any(|load| load));
        if jumped {
            Some(Cause::StateJump)
        } else if overloaded {
            Some(Cause::Overload)
        } else {
            off_track.then_some(Cause::TrackingError)
        }
    }
}

/// Whether the policy shakes: in more than half of the ticks of half a second some joint accelerates at half of its
/// limit or more, and one of them changes its mind again and again. A policy that is only fast speeds up once and
/// slows down once. Judged by what was emitted: however the setpoints are shaped, that is what the robot feels.
#[derive(Clone, Debug)]
pub struct Shaking {
    since: Mono,
    last: Mono,
    ticks: u32,
    hard: u32,
    shaped: u32,
    /// Changes of a hard acceleration's sign, joint by joint.
    flips: [u8; JOINTS_MAX],
    too_much: bool,
    /// Emitted positions of the last two ticks, newest first, and how many there are.
    before: [[f64; JOINTS_MAX]; 2],
    known: u8,
    /// One bit a joint: it last accelerated hard upwards, or downwards.
    up: u64,
    down: u64,
}

impl Default for Shaking {
    fn default() -> Self {
        Shaking {
            since: Mono(0),
            last: Mono(0),
            ticks: 0,
            hard: 0,
            shaped: 0,
            flips: [0; JOINTS_MAX],
            too_much: false,
            before: [[0.0; JOINTS_MAX]; 2],
            known: 0,
            up: 0,
            down: 0,
        }
    }
}

/// One tick in so many must have been shaped at least: what is legal as it comes is the policy's own business.
const SHAPED_SHARE: u32 = 10;

/// Share of the acceleration limit from which an acceleration is hard.
const HARD_SHARE: f64 = 0.5;

/// Changes of a hard acceleration's sign in a window that are shaking: 5 Hz and faster, where an arm needs one.
const FLIPS: u8 = 5;

impl Shaking {
    /// Counts one followed tick, by where the joints were put and whether the setpoint was shaped.
    pub fn count(
        &mut self,
        now: Mono,
        shaped: bool,
        emitted: impl Iterator<Item = f64>,
        limits: &Limits,
    ) {
        // After a tick that was not followed, differences begin anew.
        if now.since_ns(self.last) > limits.period_ns.saturating_mul(3) / 2 {
            self.known = 0;
        }
        self.last = now;
        let t = limits.period_s();
        let (mut up, mut down) = (0u64, 0u64);
        let [one, two] = &mut self.before;
        let past = one.iter_mut().zip(two.iter_mut()).zip(&mut self.flips);
        for (index, ((joint, q), ((one, two), flips))) in
            limits.joints.iter().zip(emitted).zip(past).enumerate()
        {
            let a = (q - *one - (*one - *two)) / (t * t);
            (*one, *two) = (q, *one);
            let rated = joint.kind != JointKind::Gripper && self.known >= 2;
            let hard = HARD_SHARE * joint.limits.acceleration_max;
            let bit = 1u64.checked_shl(index as u32).unwrap_or(0);
            let (rises, falls) = (rated && a >= hard, rated && a <= -hard);
            up |= if rises { bit } else { 0 };
            down |= if falls { bit } else { 0 };
            let flipped = rises && self.down & bit != 0 || falls && self.up & bit != 0;
            *flips = flips.saturating_add(u8::from(flipped));
        }
        self.known = self.known.saturating_add(1);
        self.up = self.up & !down | up;
        self.down = self.down & !up | down;
        self.ticks = self.ticks.saturating_add(1);
        self.shaped = self.shaped.saturating_add(u32::from(shaped));
        self.hard = self.hard.saturating_add(u32::from(up | down != 0));
        if now.since_ns(self.since) >= SHAKING_NS {
            let often = self.hard.saturating_mul(SHAKING_SHARE) > self.ticks
                && self.shaped.saturating_mul(SHAPED_SHARE) > self.ticks;
            self.too_much = often && self.flips.iter().any(|flips| *flips >= FLIPS);
            (self.since, self.ticks, self.hard, self.shaped) = (now, 0, 0, 0);
            self.flips = [0; JOINTS_MAX];
        }
    }

    /// Whether the last full window was too much. Asked before each tick; latched by the caller.
    #[must_use]
    pub fn too_much(&self) -> bool {
        self.too_much
    }
}
