// SPDX-License-Identifier: Apache-2.0
//! The space the robot may use, kept as the joints' limits are: a step is taken only if the whole stop from there stays
//! inside.
//!
//! The stop that counts is each joint's fastest, by the deployment's limits ([`Bounds::stop`]): it depends on nothing but
//! the state, so what is judged now is bit for bit what will be done. Whoever brakes otherwise (together along the line,
//! or by tighter limits) has each of its steps judged like any other, and falls back to that stop.
//!
//! Most ticks compute no pose: how far each joint can get until it rests has a closed form, and the last pose whose
//! distances are known (the *anchor*) says whether anything can come too near on such a way.

use super::shape::{Axis, Bounds, Limit};
use crate::core::kinematics::envelope::{Anchor, Breach, Envelope, Subject, Sweep};
use crate::core::limits::{JOINTS_MAX, fitting};

/// Stages in which a stop is swept at most, so that the cost of a long one is bounded. Within a stage no joint turns
/// round, so its way is as long as the stage is wide.
const STAGES_MAX: f64 = 64.0;

/// Added to a way in closed form: far more than its rounding, far less than what matters.
const HAIR: f64 = 1e-9;

/// One joint on its way.
#[derive(Clone, Copy, Debug)]
pub struct Mover<'a> {
    /// As last emitted.
    pub now: Axis,
    /// The step to be judged.
    pub next: Axis,
    /// By which it stops; none for a gripper, which moves no link.
    pub bounds: Option<&'a Bounds>,
}

/// The envelope, and where its distances are known.
#[derive(Clone, Debug)]
pub struct Space {
    envelope: Envelope,
    anchor: Option<Anchor>,
}

type Pose = heapless::Vec<f64, JOINTS_MAX>;

impl Space {
    /// Of a robot with as many positions as there will be movers.
    #[must_use]
    pub fn new(envelope: Envelope) -> Space {
        Space {
            envelope,
            anchor: None,
        }
    }

    /// Whether the robot may stand there.
    #[must_use]
    pub fn holds(&self, positions: impl Iterator<Item = f64>) -> bool {
        let pose: Pose = fitting(positions);
        self.envelope.check(&pose).is_ok()
    }

    /// Whether the step and the stop from there stay inside.
    ///
    /// # Errors
    /// The limit that is in the way. A legal motion that comes very near may be refused, an illegal one never passes.
    pub fn stays<'a>(
        &mut self,
        movers: impl Iterator<Item = Mover<'a>> + Clone,
    ) -> Result<(), Limit> {
        let still = |m: Mover<'_>| m.next.q == m.now.q && m.next.v == 0.0 && m.next.a == 0.0;
        if movers.clone().all(still) {
            return Ok(());
        }
        if let Some(anchor) = &self.anchor
            && self.envelope.near(anchor, &ways(anchor, &movers)).is_ok()
        {
            return Ok(());
        }
        let here: Pose = fitting(movers.clone().map(|m| m.now.q));
        let anchor = self.envelope.anchor(&here).map_err(limit)?;
        let near = self.envelope.near(&anchor, &ways(&anchor, &movers));
        let anchor = self.anchor.insert(anchor);
        if near.is_ok() {
            return Ok(());
        }
        sweep(Sweep::new(&self.envelope, anchor.clone()), movers).map_err(limit)
    }
}

/// The furthest that each joint gets from the anchor until it rests.
fn ways<'a>(anchor: &Anchor, movers: &(impl Iterator<Item = Mover<'a>> + Clone)) -> Pose {
    let ways = movers.clone().zip(anchor.positions()).map(|(m, from)| {
        let Some(bounds) = m.bounds else { return 0.0 };
        let rest = bounds.brake().rest(m.next.v, m.next.a);
        let places = [m.now.q, m.next.q, m.next.q + rest.turn, m.next.q + rest.end];
        // Not `f64::max`, which would drop a NaN: an infinite way rules nothing out.
        let furthest = places.into_iter().fold(0.0, |most: f64, q| {
            let way = (q - from).abs();
            if way <= most {
                most
            } else if way.is_nan() {
                f64::INFINITY
            } else {
                way
            }
        });
        furthest + HAIR
    });
    fitting(ways)
}

/// The step, then the stop, stage by stage.
fn sweep<'a>(
    mut sweep: Sweep<'_>,
    movers: impl Iterator<Item = Mover<'a>> + Clone,
) -> Result<(), Breach> {
    let mut axes: heapless::Vec<Axis, JOINTS_MAX> = fitting(movers.clone().map(|m| m.next));
    let ticks = movers
        .clone()
        .filter_map(|m| Some(m.bounds?.brake().rest(m.next.v, m.next.a).ticks))
        .fold(0.0, f64::max);
    let stage = (ticks / STAGES_MAX) as u64;
    let pose = |axes: &[Axis]| -> Pose { fitting(axes.iter().map(|axis| axis.q)) };
    sweep.go(&pose(&axes))?;
    // Some ticks more than the closed form says: the last bits may need one.
    let mut left = ticks as u64 + 8;
    while left > 0 {
        let (mut moving, mut turned, mut done) = (false, false, 0);
        while !turned && done <= stage {
            moving = false;
            for (axis, m) in axes.iter_mut().zip(movers.clone()) {
                let Some(bounds) = m.bounds else { continue };
                let next = bounds.stop(*axis);
                turned |= next.v * axis.v < 0.0;
                moving |= next.v != 0.0 || next.a != 0.0;
                *axis = next;
            }
            done += 1;
        }
        let bends = movers.clone().map(|m| match m.bounds {
            Some(bounds) if done > 1 => bounds.brake().bend(done),
            Some(_) | None => 0.0,
        });
        sweep.curve(&pose(&axes), &fitting::<f64, JOINTS_MAX>(bends))?;
        if !moving {
            return Ok(());
        }
        left = left.saturating_sub(done);
    }
    Err(Breach::NoPose)
}

fn limit(breach: Breach) -> Limit {
    match breach {
        Breach::NoPose => Limit::Position,
        Breach::Space { subject, .. } | Breach::Between { subject, .. } => match subject {
            Subject::Workspace { .. } => Limit::Workspace,
            Subject::KeepOut { .. } => Limit::KeepOut,
            Subject::Pair { .. } => Limit::SelfCollision,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::governor::limits::JointLimits;
    use crate::core::kinematics::envelope::Capsule;
    use crate::core::kinematics::geometry::{Cuboid, Transform};
    use crate::core::kinematics::{Chain, Drive, Link, Motion};

    const T: f64 = 0.001;
    const LIMITS: JointLimits = JointLimits {
        position_min: -2.0,
        position_max: 2.0,
        velocity_max: 2.0,
        acceleration_max: 4.0,
        jerk_max: 40.0,
        tracking_error_max: 0.5,
        torque_max: f64::INFINITY,
    };

    /// Two links of 0.5 m that turn about y, and a ball of 0.1 m at the tip that must stay below a height.
    fn space(height: f64) -> Space {
        let link = |parent: Option<usize>, joint| Link {
            parent,
            origin: Transform::from_xyz_rpy([0.5, 0.0, 0.0], [0.0; 3]),
            axis: [0.0, -1.0, 0.0],
            motion: Motion::Revolute(Drive {
                joint,
                factor: 1.0,
                offset: 0.0,
            }),
        };
        let chain = Chain::new(&[link(None, 0), link(Some(0), 1)], 2).expect("a good chain");
        let tip = Capsule {
            link: 1,
            ends: [[0.5, 0.0, 0.0]; 2],
            radius_m: 0.1,
            in_workspace: true,
            out_of_boxes: true,
        };
        let below = Cuboid {
            min: [-9.0; 3],
            max: [9.0, 9.0, height],
        };
        Space::new(Envelope::new(chain, &[tip], Some(below), &[], &[]).expect("a good envelope"))
    }

    fn bounds() -> Bounds {
        Bounds::new(0, &LIMITS, T, 1.0).expect("good limits")
    }

    fn at(q: f64, v: f64, a: f64) -> Axis {
        Axis { q, v, a }
    }

    /// The step and its stop, tick by tick, for both joints.
    fn simulated(bounds: &Bounds, mut axes: [Axis; 2]) -> std::vec::Vec<[f64; 2]> {
        let mut way = std::vec![axes.map(|axis| axis.q)];
        while axes.iter().any(|axis| axis.v != 0.0 || axis.a != 0.0) {
            axes = axes.map(|axis| bounds.stop(axis));
            way.push(axes.map(|axis| axis.q));
        }
        way
    }

    fn height_of(q: [f64; 2]) -> f64 {
        0.5 * libm::sin(q[0]) + 0.5 * libm::sin(q[0] + q[1]) + 0.1
    }

    fn judged(space: &mut Space, now: [f64; 2], next: [Axis; 2]) -> Result<(), Limit> {
        let bounds = bounds();
        let movers = [0, 1].map(|index| Mover {
            now: at(now[index], 0.0, 0.0),
            next: next[index],
            bounds: Some(&bounds),
        });
        space.stays(movers.into_iter())
    }

    /// A long stop is judged several ticks at a time; between two judged poses it is no straight line.
    #[test]
    fn a_stop_bends_aside_by_no_more_than_is_allowed_for() {
        let bounds = bounds();
        let way = simulated(&bounds, [at(0.0, 2.0, 0.0), at(0.0, -1.0, 3.0)]);
        let mut largest = 0.0_f64;
        for ticks in [2, 5, 9, 40] {
            let bend = bounds.brake().bend(ticks as u64);
            for stage in way.windows(ticks + 1) {
                for joint in [0, 1] {
                    let (from, to) = (stage[0][joint], stage[ticks][joint]);
                    for (tick, q) in stage.iter().enumerate() {
                        let even = from + (to - from) * tick as f64 / ticks as f64;
                        let aside = (q[joint] - even).abs();
                        assert!(aside <= bend + HAIR, "{aside} of {bend}, {ticks} ticks");
                        largest = largest.max(aside / bend);
                    }
                }
            }
        }
        assert!(
            largest > 0.9,
            "the bound is no tighter than it must be: {largest}"
        );
    }

    /// Many steps: to and fro, with a stop that turns round, to a rest, and none at all.
    fn steps() -> std::vec::Vec<([f64; 2], [Axis; 2])> {
        let mut steps = std::vec![];
        for q in [-0.2, 0.0, 0.15, 0.3] {
            for (v, a) in [
                (0.0, 0.0),
                (1.0, 0.0),
                (1.5, 3.5),
                (0.3, -4.0),
                (-1.0, 2.0),
                (0.05, -3.9),
            ] {
                for (other, speed) in [(-0.3, -1.2), (0.0, 0.0), (0.1, 0.7)] {
                    let now = [q, other];
                    steps.push((
                        now,
                        [at(q + v * T, v, a), at(other + speed * T, speed, 0.0)],
                    ));
                }
            }
        }
        steps
    }

    /// Also where the edge is exactly: a height a little above the highest place of the way is enough, a little below
    /// is not. That holds as well where only the whole sweep can tell, as near to the edge as that.
    #[test]
    fn what_is_judged_is_the_highest_place_of_the_way() {
        for (now, next) in steps() {
            let way = simulated(&bounds(), next);
            let highest = way
                .iter()
                .copied()
                .chain([now])
                .map(height_of)
                .fold(f64::MIN, f64::max);
            let label = std::format!("{now:?} {next:?} {highest}");
            assert_eq!(
                judged(&mut space(highest + 1e-3), now, next),
                Ok(()),
                "{label}"
            );
            let moves = way.len() > 1 || way[0] != now;
            let start = height_of(now);
            if moves && highest > start + 1e-4 {
                let refused = judged(&mut space(highest - 1e-4), now, next);
                assert_eq!(refused, Err(Limit::Workspace), "{label}");
                // As near as this a judged pose may already be too far out to go on from.
                let refused = judged(&mut space(highest - 3e-6), now, next);
                assert!(refused.is_err(), "{label}, nearer");
            }
        }
    }

    #[test]
    fn who_stands_still_is_not_judged_and_who_moves_is() {
        // Outside, and still: leaving is what it is asked about, not being there.
        let outside = height_of([0.3, 0.0]) - 0.05;
        let still = [at(0.3, 0.0, 0.0), at(0.0, 0.0, 0.0)];
        assert_eq!(judged(&mut space(outside), [0.3, 0.0], still), Ok(()));
        for moving in [at(0.3001, 0.0, 0.0), at(0.3, 0.2, 0.0), at(0.3, 0.0, 1.0)] {
            let next = [moving, still[1]];
            let refused = judged(&mut space(outside), [0.3, 0.0], next);
            assert_eq!(refused, Err(Limit::Workspace), "{moving:?}");
            assert!(judged(&mut space(2.0), [0.3, 0.0], next).is_ok());
        }
    }

    /// So near to the edge that only the sweep can tell, and without a stop to sweep.
    #[test]
    fn a_step_that_ends_at_rest_may_end_at_the_edge() {
        let next = [at(0.3, 0.0, 0.0), at(0.0, 0.0, 0.0)];
        let edge = height_of([0.3, 0.0]);
        let judge = |height| judged(&mut space(height), [0.2995, 0.0], next);
        assert_eq!(judge(edge + 1e-5), Ok(()));
        assert_eq!(judge(edge - 1e-5), Err(Limit::Workspace));
    }

    #[test]
    fn ways_are_as_long_as_the_way_and_a_hair() {
        let bounds = bounds();
        let envelope = space(2.0).envelope;
        for from in [[0.0, 0.0], [-0.4, 0.35]] {
            let anchor = envelope.anchor(&from).expect("inside");
            for (now, next) in steps() {
                let movers = [0, 1].map(|index| Mover {
                    now: at(now[index], 0.0, 0.0),
                    next: next[index],
                    bounds: Some(&bounds),
                });
                let found = ways(&anchor, &movers.into_iter());
                assert_eq!(found.len(), 2);
                let way = simulated(&bounds, next);
                for index in 0..2 {
                    let furthest = way
                        .iter()
                        .chain([&now])
                        .map(|q| (q[index] - from[index]).abs())
                        .fold(0.0, f64::max);
                    let found = found[index];
                    assert!(found > furthest + 0.5 * HAIR, "{found} {furthest}");
                    // The closed form knows no ticks: half a tick's way more.
                    assert!(
                        found < furthest + 1e-5,
                        "{found} {furthest} {now:?} {next:?}"
                    );
                }
                let gripper = [
                    Mover {
                        bounds: None,
                        ..movers[0]
                    },
                    movers[1],
                ];
                assert_eq!(ways(&anchor, &gripper.into_iter())[0], 0.0);
            }
        }
    }

    #[test]
    fn a_way_that_is_no_number_rules_nothing_out() {
        let bounds = bounds();
        let anchor = space(2.0).envelope.anchor(&[0.0, 0.0]).expect("inside");
        let lost = Mover {
            now: at(0.0, 0.0, 0.0),
            next: at(f64::NAN, 0.0, 0.0),
            bounds: Some(&bounds),
        };
        assert_eq!(ways(&anchor, &[lost, lost].into_iter())[0], f64::INFINITY);
    }
}
