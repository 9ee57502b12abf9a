// SPDX-License-Identifier: Apache-2.0
//! How a joint comes to rest when commands cease: deceleration ramped up and down again by a jerk limit.
//!
//! Position limits come before acceleration, acceleration before jerk: where the gentle stop would end outside the
//! position limits, the jerk is raised to just what ends at the limit; where even full deceleration at once would not do,
//! it decelerates fully. The same arithmetic stands in `include/tendon_wire.h`, for a microcontroller.

use crate::core::governor::limits::JointLimits;

/// Time in which the deceleration is ramped from nothing to all. 20 ms is a tenth of the shortest whole stop of the
/// arms that this was made for, and smooth enough for a gear; the governor's own limits say nothing of jerk.
const RAMP_S: f64 = 0.02;

/// One joint on its way to rest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Brake {
    acceleration_max: f64,
    /// Infinite: no time for a ramp.
    jerk: f64,
    deceleration: f64,
}

impl Brake {
    /// Begins to brake at position `q` with velocity `v`.
    #[must_use]
    pub fn begin(limits: &JointLimits, q: f64, v: f64) -> Brake {
        Brake {
            acceleration_max: limits.acceleration_max,
            jerk: jerk_for(limits, room(limits, q, v), v.abs()),
            deceleration: 0.0,
        }
    }

    /// The velocity after a step of `dt_s` that begins with `v`: nearer to zero, never past it, and then zero.
    pub fn step(&mut self, v: f64, dt_s: f64) -> f64 {
        let ramped = self.deceleration + self.jerk * dt_s;
        self.deceleration =
            ramped
                .min(self.acceleration_max)
                .min(ramp_out(v.abs(), self.jerk, dt_s));
        let speed = v.abs() - self.deceleration * dt_s;
        // Of the last step, rounding may leave a crumb. Written so that a NaN is rest.
        if speed > 1e-12 {
            speed.copysign(v)
        } else {
            0.0
        }
    }
}

/// Whether the gentle stop from here ends inside the position limits.
#[must_use]
pub fn gentle_stop_fits(limits: &JointLimits, q: f64, v: f64) -> bool {
    let jerk = limits.acceleration_max / RAMP_S;
    distance(v.abs(), limits.acceleration_max, jerk) <= room(limits, q, v)
}

/// Way left until the position limit that it moves towards.
fn room(limits: &JointLimits, q: f64, v: f64) -> f64 {
    let room = if v > 0.0 {
        limits.position_max - q
    } else {
        q - limits.position_min
    };
    room.max(0.0)
}

/// Length of a stop from `speed`: the deceleration rises at `jerk` to at most `acceleration`, and falls at it again.
/// In continuous time, which is an upper bound of the stop in steps.
fn distance(speed: f64, acceleration: f64, jerk: f64) -> f64 {
    let full = speed >= acceleration * acceleration / jerk;
    let time = if full {
        speed / acceleration + acceleration / jerk
    } else {
        2.0 * (speed / jerk).sqrt()
    };
    0.5 * speed * time
}

/// The least jerk, of at least the gentle one, whose stop is no longer than `room`.
fn jerk_for(limits: &JointLimits, room: f64, speed: f64) -> f64 {
    let acceleration = limits.acceleration_max;
    let gentle = acceleration / RAMP_S;
    if distance(speed, acceleration, gentle) <= room {
        return gentle;
    }
    // With a peak below the full deceleration the stop takes speed * sqrt(speed / jerk).
    if speed * speed <= acceleration * room {
        return speed * speed * speed / (room * room);
    }
    let ramp_s = 2.0 * room / speed - speed / acceleration;
    if ramp_s > 0.0 {
        acceleration / ramp_s
    } else {
        f64::INFINITY
    }
}

/// The deceleration from which it can be ramped down, a step of jerk each time, and end with the speed.
fn ramp_out(speed: f64, jerk: f64, dt_s: f64) -> f64 {
    if jerk.is_infinite() {
        return speed / dt_s;
    }
    // Over m steps it takes d + (d - j) + ... off the speed, j = jerk * dt: m is the smallest number for which that suffices.
    let unit = jerk * dt_s * dt_s;
    let m = (0.5 * ((1.0 + 8.0 * speed / unit).sqrt() - 1.0))
        .ceil()
        .max(1.0);
    speed / (m * dt_s) + 0.5 * jerk * dt_s * (m - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: JointLimits = JointLimits {
        position_min: -2.0,
        position_max: 2.0,
        velocity_max: 2.0,
        acceleration_max: 10.0,
        jerk_max: 500.0,
        tracking_error_max: f64::INFINITY,
        torque_max: f64::INFINITY,
    };

    /// Stops, and returns the place of rest, the highest deceleration and the highest jerk.
    fn stop(q: f64, v: f64, dt_s: f64) -> (f64, f64, f64) {
        let (mut brake, mut q, mut v, mut a) = (Brake::begin(&LIMITS, q, v), q, v, 0.0);
        let (mut a_max, mut j_max) = (0.0_f64, 0.0_f64);
        for _ in 0..100_000 {
            let next = brake.step(v, dt_s);
            assert!(
                next.abs() <= v.abs() && next * v >= 0.0,
                "slower each step, never backwards: {v} -> {next}"
            );
            let now = (next - v) / dt_s;
            a_max = a_max.max(now.abs());
            j_max = j_max.max((now - a).abs() / dt_s);
            (q, v, a) = (q + next * dt_s, next, now);
            if v == 0.0 {
                break;
            }
        }
        assert_eq!(v, 0.0, "comes to rest");
        (q, a_max, j_max.max(a.abs() / dt_s))
    }

    #[test]
    fn with_room_it_stops_gently() {
        let (rest, a_max, j_max) = stop(0.0, 1.0, 0.001);
        assert!((0.05..=0.06 + 1e-9).contains(&rest), "{rest}");
        assert!(a_max <= 10.0 + 1e-9, "{a_max}");
        assert!(j_max <= 500.0 * (1.0 + 1e-6), "{j_max}");
    }

    #[test]
    fn with_little_room_it_stops_harder_and_inside() {
        let (rest, a_max, j_max) = stop(1.948, 1.0, 0.001);
        assert!(rest <= 2.0 + 1e-9, "{rest}");
        assert!(a_max <= 10.0 + 1e-9 && j_max > 500.0, "{a_max} {j_max}");
    }

    #[test]
    fn with_no_room_it_uses_all_the_deceleration_there_is() {
        let (_, a_max, _) = stop(1.99, 1.0, 0.001);
        assert!((a_max - 10.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn it_rests_where_it_was_said_to(
            q in -2.0..2.0_f64, v in -2.0..2.0_f64, dt_us in 200_u32..5_000,
        ) {
            let dt_s = f64::from(dt_us) * 1e-6;
            let (rest, a_max, _) = stop(q, v, dt_s);
            prop_assert!(a_max <= 10.0 * (1.0 + 1e-9));
            // A legal stop exists if full deceleration at once ends inside.
            if v * v / 20.0 + v.abs() * dt_s <= room(&LIMITS, q, v) {
                prop_assert!((-2.0 - 1e-9..=2.0 + 1e-9).contains(&rest), "{}", rest);
            }
        }
    }
}
