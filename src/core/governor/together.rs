// SPDX-License-Identifier: Apache-2.0
//! Joints that wait for one another: one motion along a line, instead of one motion a joint.
//!
//! When some joint cannot make its step, all joints take the same share of their way to the setpoint, so that the
//! robot stays on the straight line there and only the time stretches. The line is one axis of its own, governed by
//! the arithmetic of a joint ([`super::shape`]) under the limits of whichever joint is the most pressed.
//!
//! A robot that was not moving along that line (the setpoints turned a corner) carries a rest of velocity and
//! acceleration across it. That rest is stopped, joint by joint, with up to half of each joint's limits; the line gets
//! what is left. The sum is then checked joint by joint like any other step. Where it is not legal, all joints brake
//! along the line they are on ([`stop`]), and where even that is not legal, each makes its own fastest stop, which
//! always is. So joints never mix: all share, or all brake.
//!
//! It does not look ahead on the path that the setpoints draw: the governor knows only the newest.

use super::shape::{Axis, Bounds};
use super::stop::Brake;
use crate::core::limits::JOINTS_MAX;

/// Largest share of a joint's acceleration and jerk that goes into stopping what is across the line. A guess between
/// leaving the line soon and losing time along it.
const ACROSS_SHARE: f64 = 0.5;

/// Velocity across the line, as a share of the speed limit, above which a setpoint that cannot be caught up with is not
/// pursued: the robot brakes first. Otherwise it would swing out while it turns, to places that nobody asked for.
const PURSUIT_SHARE: f64 = 0.1;

/// What is across the line by less than this share of one tick's jerk is rounding, and dropped; the line leaves that
/// much of the jerk, and some more, unused.
const NEGLIGIBLE: f64 = 2e-7;
const LEFT_FOR_ROUNDING: f64 = 1e-6;

/// One joint with what bounds it and what is wished of it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Index of the joint.
    pub index: usize,
    /// As last emitted.
    pub axis: Axis,
    /// In force.
    pub bounds: &'a Bounds,
    /// What is wished of it, inside the limits.
    pub wish: Axis,
}

/// Share of a joint's speed limit, in velocity and as travel in one tick, that is a hair's breadth: for an arm of 1 m
/// at 2 rad/s and 200 Hz, 1 mm. So far may a joint be from the common line.
pub const CLOSE_SHARE: f64 = 0.1;

/// Setpoints faster than this share of a joint's speed limit cannot be caught up with.
const KEEP_UP_SHARE: f64 = 0.95;

/// All axes of a robot; only the members' are changed.
pub type Axes = [Axis; JOINTS_MAX];

/// The joint motion that best approaches the wishes along a line. `None` where no common share is legal.
///
/// Within a hair's breadth of its wish each joint goes there by itself: no line is straight at that scale. Setpoints that the joints can keep up with are approached on a line that moves with them: then what remains is
/// followed exactly. Setpoints that are too fast are pursued: on the line to where they are now.
pub fn toward<'a>(
    members: impl Iterator<Item = Member<'a>> + Clone,
    axes: &Axes,
    period_s: f64,
) -> Option<Axes> {
    let close = members.clone().all(|m| {
        let hair = CLOSE_SHARE * m.bounds.scale();
        let behind = m.wish.q - m.axis.q - m.wish.v * period_s;
        behind.abs() <= hair * period_s
            && (m.axis.v - m.wish.v).abs() <= hair
            && (m.wish.v != 0.0 || m.wish.a != 0.0)
    });
    if close {
        let mut moved = *axes;
        for m in members {
            *moved.get_mut(m.index)? = m.bounds.toward(m.axis, m.wish);
        }
        return Some(moved);
    }
    let too_fast = members
        .clone()
        .any(|m| m.wish.v.abs() > KEEP_UP_SHARE * m.bounds.velocity());
    let moving = if too_fast {
        None
    } else {
        along(members.clone(), axes, period_s, Line::Meeting)
    };
    moving.or_else(|| along(members, axes, period_s, Line::Pursuit))
}

/// The first step of the stop along the line on which the joints move. `None` where that is not legal.
pub fn stop<'a>(
    members: impl Iterator<Item = Member<'a>> + Clone,
    axes: &Axes,
    period_s: f64,
) -> Option<Axes> {
    along(members, axes, period_s, Line::Motion)
}

/// The line along which all joints move by the same share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// From here to the wish, in the frame that moves with it.
    Meeting,
    /// From here to the wish.
    Pursuit,
    /// Along the present velocity, to rest.
    Motion,
}

impl Line {
    fn length(self, m: &Member<'_>, period_s: f64) -> f64 {
        match self {
            // To where the wish was one tick ago: the frame brings it to where it is now.
            Line::Meeting => m.wish.q - m.wish.v * period_s - m.axis.q,
            Line::Pursuit => m.wish.q - m.axis.q,
            Line::Motion => m.axis.v,
        }
    }

    /// Velocity (of this tick) and acceleration of the frame in which the line stands still.
    fn frame(self, m: &Member<'_>) -> (f64, f64) {
        match self {
            Line::Meeting => (m.wish.v, m.wish.a),
            Line::Pursuit | Line::Motion => (0.0, 0.0),
        }
    }
}

/// Moves everything by the same share of a line.
fn along<'a>(
    members: impl Iterator<Item = Member<'a>> + Clone,
    axes: &Axes,
    period_s: f64,
    line: Line,
) -> Option<Axes> {
    // Velocity, acceleration and drift along the line, by least squares in units of each joint's speed limit.
    let (mut norm, mut v, mut a, mut drift) = (0.0, 0.0, 0.0, 0.0);
    for m in members.clone() {
        let (length, (frame_v, frame_a)) = (line.length(&m, period_s), line.frame(&m));
        let weight = length / (m.bounds.scale() * m.bounds.scale());
        norm += weight * length;
        v += weight * (m.axis.v - frame_v + frame_a * period_s);
        a += weight * (m.axis.a - frame_a);
        drift += weight * (m.wish.v - frame_v);
    }
    // No line: nobody moves, or everybody is there. `!(x > 0)` also refuses a NaN.
    let is_line = norm > 0.0 && norm.is_finite();
    if !is_line {
        return None;
    }
    let (v, a, drift) = (v / norm, a / norm, drift / norm);

    // First what is across the line; then the line's limits are what is left, at the most pressed joint.
    let mut across = [(0.0, 0.0); JOINTS_MAX];
    let (mut velocity, mut acceleration, mut step) = (f64::MAX, f64::MAX, f64::MAX);
    for m in members.clone() {
        let (length, (frame_v, frame_a)) = (line.length(&m, period_s), line.frame(&m));
        let brake = m.bounds.brake();
        let off_v = m.axis.v - frame_v + frame_a * period_s - v * length;
        let off_a = m.axis.a - frame_a - a * length;
        if line == Line::Pursuit && off_v.abs() > PURSUIT_SHARE * m.bounds.scale() {
            return None;
        }
        let (mut next_v, mut next_a) = (0.0, 0.0);
        let crumb = NEGLIGIBLE * brake.step();
        let rounding = off_v.abs() <= crumb * period_s && off_a.abs() <= crumb;
        if !rounding {
            let share = Brake::new(
                ACROSS_SHARE * brake.acceleration(),
                ACROSS_SHARE * brake.step() / period_s,
                period_s,
            );
            next_a = share.next(off_v, off_a);
            next_v = share.after(off_v, next_a);
        }
        if let Some(slot) = across.get_mut(m.index) {
            *slot = (next_v, next_a);
        }
        let per_length = 1.0 / length.abs().max(f64::MIN_POSITIVE);
        let taken = next_v.abs() + frame_v * 1.0_f64.copysign(length);
        velocity = velocity.min((m.bounds.velocity() - taken) * per_length);
        acceleration =
            acceleration.min((brake.acceleration() - next_a.abs() - frame_a.abs()) * per_length);
        let taken = if rounding {
            LEFT_FOR_ROUNDING * brake.step()
        } else {
            (next_a - off_a).abs()
        };
        step = step.min((brake.step() - taken) * per_length);
    }
    let possible = velocity >= 0.0 && acceleration > 0.0 && step > 0.0;
    if !possible {
        return None;
    }
    let bounds = Bounds::of_line(
        velocity,
        Brake::new(acceleration, step / period_s, period_s),
        period_s,
    );
    let here = Axis { q: 0.0, v, a };
    let next = match line {
        Line::Meeting | Line::Pursuit => bounds.toward(
            here,
            Axis {
                q: 1.0,
                v: drift,
                a: 0.0,
            },
        ),
        Line::Motion => bounds.stop(here),
    };

    let mut moved = *axes;
    for m in members {
        let (off_v, _) = across.get(m.index).copied().unwrap_or_default();
        let v = line.frame(&m).0 + next.v * line.length(&m, period_s) + off_v;
        let step = m.bounds.moved(m.axis, v);
        m.bounds.plannable(m.axis, step).ok()?;
        *moved.get_mut(m.index)? = step;
    }
    Some(moved)
}
