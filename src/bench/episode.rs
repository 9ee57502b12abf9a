// SPDX-License-Identifier: Apache-2.0
//! One episode: a scene, what is said about it, the robot in it, and who judges.

use crate::bench::arm::{self, JOINTS};
use crate::bench::dice::Dice;
use crate::bench::expert::Goal;
use crate::bench::judge::{Judge, Verdict};
use crate::bench::render::Camera;
use crate::bench::robot::{Measured, Robot, STEP_NS};
use crate::bench::scene::{Positions, Scene};
use crate::bench::sentences::{self, Task, Wording};
use serde::{Deserialize, Serialize};

/// Side of the camera's picture.
pub const CAMERA_PX: usize = 224;
/// A robot whose tip strayed less than this has held still.
const HELD_M: f64 = 0.03;

/// What is said: the task as it is, or one of the ways to see whether the robot listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// The task, in wordings of training.
    Seen,
    /// The task, in wordings never trained on.
    HeldOut,
    /// The same task about another block that is there.
    OtherBlock,
    /// The same task about a colour that is not there.
    AbsentColour,
    /// A sentence that asks for nothing.
    Nonsense,
}

/// Everything that makes an episode what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Scene, sentence and noise.
    pub seed: u64,
    /// Touch or put.
    pub put: bool,
    /// Whether the named block lies where training never had one.
    pub held_out_position: bool,
    /// What is said.
    pub ask: Ask,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Whether the episode is over: the task done, failed for good, or time up.
    pub over: bool,
    /// The task about the block that the scene names, whatever was said.
    pub named_done: bool,
    /// The task about the other block, which only [`Ask::OtherBlock`] asks for.
    pub other_done: bool,
    /// The tip stayed within 30 mm of where it was.
    pub held_still: bool,
    /// Simulated time so far.
    pub elapsed_s: f64,
}

/// A running episode.
#[derive(Clone)]
pub struct Episode {
    /// The body and its world.
    pub robot: Robot,
    camera: Camera,
    sentence: String,
    ask: Ask,
    named: (Judge, Verdict),
    other: (Judge, Verdict),
    limit_ns: u64,
    elapsed_ns: u64,
    home_m: arm::Point,
    strayed_m: f64,
}

impl Episode {
    /// Sets the scene. The same spec gives the same episode everywhere.
    #[must_use]
    pub fn new(spec: &Spec) -> Episode {
        let mut dice = Dice::new(spec.seed, 3);
        let task = if spec.put {
            Task::Put {
                left: dice.chance(0.5),
            }
        } else {
            Task::Touch
        };
        let positions = if spec.held_out_position {
            Positions::HeldOut
        } else {
            Positions::Seen
        };
        let scene = Scene::random(spec.seed, task, positions);
        let other = (scene.named + 1) % scene.cubes.len();
        let sentence = match spec.ask {
            Ask::Seen => sentences::ask(&mut dice, task, scene.colour(), Wording::Seen),
            Ask::HeldOut => sentences::ask(&mut dice, task, scene.colour(), Wording::HeldOut),
            Ask::OtherBlock => sentences::ask(
                &mut dice,
                task,
                sentences::COLOURS[scene.colours[other]],
                Wording::Seen,
            ),
            Ask::AbsentColour => {
                let absent = scene.absent_colour(&mut dice);
                sentences::ask(&mut dice, task, absent, Wording::Seen)
            }
            Ask::Nonsense => sentences::nonsense(&mut dice, Wording::HeldOut),
        };
        let robot = Robot::new(&scene, spec.seed);
        let judge = |block| (Judge::new(Goal { block, task }), Verdict::Running);
        Episode {
            home_m: robot.pose().tip(),
            camera: Camera::new(&scene, CAMERA_PX),
            robot,
            sentence,
            ask: spec.ask,
            named: judge(scene.named),
            other: judge(other),
            limit_ns: Judge::limit_ns(task),
            elapsed_ns: 0,
            strayed_m: 0.0,
        }
    }

    /// What is said.
    #[must_use]
    pub fn sentence(&self) -> &str {
        &self.sentence
    }

    /// Moves the world on by [`STEP_NS`]. Time counts for the judges only while `running`.
    pub fn step(
        &mut self,
        target_rad: &[f64; JOINTS],
        target_rad_s: &[f64; JOINTS],
        suction: bool,
        running: bool,
    ) {
        self.robot.step(target_rad, target_rad_s, suction);
        if running {
            let tip = self.robot.pose().tip();
            self.elapsed_ns += STEP_NS;
            self.strayed_m = self.strayed_m.max(arm::length(arm::sub(tip, self.home_m)));
            for (judge, verdict) in [&mut self.named, &mut self.other] {
                *verdict = judge.look(tip, &self.robot.table, STEP_NS);
            }
        }
    }

    /// How it stands.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let named_done = self.named.1 == Verdict::Success;
        let other_done = self.other.1 == Verdict::Success;
        let decided = match self.ask {
            Ask::Seen | Ask::HeldOut => self.named.1 != Verdict::Running,
            Ask::OtherBlock => other_done || named_done,
            Ask::AbsentColour | Ask::Nonsense => named_done,
        };
        Outcome {
            over: decided || self.elapsed_ns >= self.limit_ns,
            named_done,
            other_done,
            held_still: self.strayed_m < HELD_M,
            elapsed_s: self.elapsed_ns as f64 * 1e-9,
        }
    }

    /// The scene's camera.
    #[must_use]
    pub fn camera(&self) -> &Camera {
        &self.camera
    }

    /// Reads the sensors.
    pub fn measure(&mut self) -> Measured {
        self.robot.measure()
    }

    /// Draws what the camera sees: [`CAMERA_PX`] squared RGB pixels.
    pub fn render(&mut self, rgb: &mut [u8]) {
        self.camera
            .render(&self.robot.table, &self.robot.pose(), rgb);
    }
}
