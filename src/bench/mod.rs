// SPDX-License-Identifier: Apache-2.0
//! The bench: a robot that needs no hardware. A 6-joint arm with a suction cup, a table with coloured blocks and two
//! trays, a camera, and somebody who says what to do.
//!
//! Own small exact model instead of a physics engine: a tip, four cubes and two trays have few contacts that matter,
//! and each has a closed answer (a cube on a table with friction moves as far as it is pushed). It is the same bit for
//! bit for the same seed, costs a microsecond a step, so that 200 episodes take seconds, and adds nothing to the
//! build; `rapier3d` would bring a general solver whose contact noise we would then have to tune away.
//!
//! Not modelled: tilting and bouncing blocks, collisions of the arm's links, drive temperatures, cable lag. The bench
//! proves the pipeline, not a gripper.
//!
//! [`arm`] geometry, [`robot`] servos and sensors, [`table`] blocks and contacts, [`scene`] what lies where and how it
//! looks, [`episode`] all of it together, [`render`] the camera, [`lens`] its noise and faults, [`sentences`] what is said, [`expert`] the teacher, [`judge`] the verdict, [`process`] its end of
//! the link, [`bus`] the way from its motor
//! controller to its servos, [`dice`] seeded chance.

pub mod arm;
pub mod bus;
pub mod dice;
pub mod episode;
pub mod expert;
pub mod judge;
pub mod lens;
pub mod process;
pub mod render;
pub mod robot;
pub mod scene;
pub mod sentences;
pub mod table;

#[cfg(test)]
mod tests {
    use super::arm::JOINTS;
    use super::expert::{self, Goal};
    use super::judge::{Judge, Verdict};
    use super::robot::{Robot, STEP_NS};
    use super::scene::{Positions, Scene};
    use super::sentences::Task;

    /// The expert drives the real body, replanning each 100 ms from noisy measurements.
    fn episode(seed: u64, task: Task) -> Verdict {
        let scene = Scene::random(seed, task, Positions::Seen);
        let goal = Goal {
            block: scene.named,
            task,
        };
        let mut robot = Robot::new(&scene, seed);
        let mut judge = Judge::new(goal);
        let mut from = *robot.q_rad();
        loop {
            let seen = robot.measure();
            let plan = expert::plan(&seen.q_rad, seen.suction, &robot.table, Some(goal));
            for action in plan.iter().take(2) {
                let to: [f64; JOINTS] = std::array::from_fn(|joint| action[joint]);
                for ms in 1..=50 {
                    let part = f64::from(ms) / 50.0;
                    let target: [f64; JOINTS] =
                        std::array::from_fn(|j| from[j] + (to[j] - from[j]) * part);
                    let speed: [f64; JOINTS] = std::array::from_fn(|j| (to[j] - from[j]) / 0.05);
                    robot.step(&target, &speed, action[JOINTS] >= 0.5);
                    let verdict = judge.look(robot.pose().tip(), &robot.table, STEP_NS);
                    if verdict != Verdict::Running {
                        return verdict;
                    }
                }
                from = to;
            }
        }
    }

    #[track_caller]
    fn check(task: impl Fn(u64) -> Task, at_least: usize) {
        let verdicts: Vec<Verdict> = (0..200).map(|seed| episode(seed, task(seed))).collect();
        let good = verdicts
            .iter()
            .filter(|verdict| **verdict == Verdict::Success)
            .count();
        let bad: Vec<_> = verdicts
            .iter()
            .enumerate()
            .filter(|(_, v)| **v != Verdict::Success)
            .collect();
        assert!(good >= at_least, "{good} of 200; {bad:?}");
    }

    #[test]
    fn the_expert_touches() {
        check(|_| Task::Touch, 198);
    }

    #[test]
    fn the_expert_puts() {
        check(
            |seed| Task::Put {
                left: seed % 2 == 0,
            },
            194,
        );
    }
}
