// SPDX-License-Identifier: Apache-2.0
//! The demo's world and policy for a loop that is not Tendon's: it is told when to look, gets what the policy says, and moves
//! the robot itself. One JSON object a line in, one a line out; time passes only when the robot is moved. So another
//! program's choice of actions is judged in the same scenes, by the same policy and the same judge as Tendon's.
//!
//! Nothing of Tendon lies between: no scheduler, no governor, no motor controller. The targets go to the bench's servos.
//!
//! | in | out |
//! |---|---|
//! | `{"plan": {"episodes": 40, "seed": 7}}` | `{"specs": [...]}`, each a scene for `set` |
//! | `{"set": {...}}` | `{"at": {"positions": [...], "done": false, "over": false, "elapsed_s": 0}}` |
//! | `"observe"` | `{"said": {"actions": [[...], ...], "period_ms": 50, "first_ms": 50}}`: joint targets, the first due so long after now (0: it is the pose that was seen); or `{"not_due": {}}` |
//! | `{"step": [[...], ...]}` | `{"at": {...}}` after as many control periods; targets in rad, the gripper 0..1 |

use crate::bench::arm::JOINTS;
use crate::bench::episode::{CAMERA_PX, Episode, Spec};
use crate::bench::process;
use crate::bench::robot::STEP_NS;
use crate::core::limits::CAMERAS_MAX;
use crate::core::observation::StateHistory;
use crate::core::units::{MS, Mono};
use crate::policy::text::InstructionFault;
use crate::ports::Frame;
use crate::runtime::clock;
use crate::runtime::control::Followed;
use crate::runtime::deployment::Deployment;
use crate::runtime::evaluation;
use crate::runtime::inference::{Inference, Refusal};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, Write};

/// Between two scenes.
const BETWEEN_NS: u64 = 1_000 * MS;

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Which scenes the demo would run.
    Plan {
        /// How many.
        episodes: u32,
        /// Of which seed.
        seed: u64,
    },
    /// Begins this one.
    Set(Spec),
    /// Takes a picture and asks the policy.
    Observe,
    /// Moves on, a target for each control period.
    Step(Vec<[f64; JOINTS + 1]>),
}

/// What is answered.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// See [`Ask::Plan`].
    Specs(Vec<Spec>),
    /// How it stands.
    At {
        /// Where the joints are, rad; the gripper 0..1.
        positions: [f64; JOINTS + 1],
        /// The task is done.
        done: bool,
        /// It is over: done, failed for good, or out of time.
        over: bool,
        /// Simulated time of the episode.
        elapsed_s: f64,
    },
    /// What the policy says.
    Said {
        /// Joint targets, one row an action.
        actions: Vec<Vec<f32>>,
        /// Between two of them.
        period_ms: f64,
        /// From the picture to the first.
        first_ms: f64,
    },
    /// The policy is not asked more often than is configured: look again later.
    NotDue {},
}

/// Why a line could not be answered.
#[derive(Debug, thiserror::Error)]
pub enum LoopFault {
    /// Standard input or output.
    #[error("standard input or output: {0}")]
    Stream(#[from] std::io::Error),
    /// A line that is none.
    #[error(
        "line {line}: {error}; expected one of plan, set, observe, step (src/runtime/bench_loop.rs)"
    )]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// The sentence of a scene.
    #[error(transparent)]
    Instruction(#[from] InstructionFault),
    /// The policy gave no plan.
    #[error("the policy gave no plan: {0}")]
    NoPlan(String),
    /// Nothing was set.
    #[error("no scene was set: send {{\"set\": ...}} first")]
    NoScene,
}

/// A scene and the robot in it.
struct World {
    episode: Episode,
    states: StateHistory,
    frames: Vec<Frame>,
    target: [f64; JOINTS + 1],
}

/// Answers every line until the input ends.
///
/// # Errors
/// [`LoopFault`]; nothing is answered after the first.
pub fn serve(
    deployment: Deployment,
    input: impl BufRead,
    mut output: impl Write,
) -> Result<(), LoopFault> {
    let period_ns = deployment.config.control.period_ns;
    let cameras = 1 + deployment.config.more_cameras.len();
    let mut inference = deployment.mind;
    let mut now = Mono(0);
    let mut world: Option<World> = None;
    for (index, line) in input.lines().enumerate() {
        let asked: Ask = serde_json::from_str(&line?).map_err(|error| LoopFault::Line {
            line: index + 1,
            error,
        })?;
        let answer = match asked {
            Ask::Plan { episodes, seed } => Answer::Specs(evaluation::plan(episodes, seed)),
            Ask::Set(spec) => {
                // The policy is due at once.
                now = now.plus_ns(BETWEEN_NS);
                let new = world.insert(World::new(&spec, cameras, now));
                inference.new_episode();
                inference.instruct(new.episode.sentence())?;
                new.stands()
            }
            Ask::Observe => world
                .as_mut()
                .ok_or(LoopFault::NoScene)?
                .observe(&mut inference, now)?,
            Ask::Step(targets) => {
                let world = world.as_mut().ok_or(LoopFault::NoScene)?;
                for target in targets {
                    now = now.plus_ns(period_ns);
                    world.step(&target, now, period_ns);
                }
                world.stands()
            }
        };
        serde_json::to_writer(&mut output, &answer).map_err(std::io::Error::from)?;
        output.write_all(b"\n")?;
        output.flush()?;
    }
    Ok(())
}

impl World {
    fn new(spec: &Spec, cameras: usize, now: Mono) -> World {
        let mut episode = Episode::new(spec);
        let mut states = StateHistory::default();
        states.push(&received(&mut episode, now));
        let mut target = [0.0; JOINTS + 1];
        for (slot, q) in target.iter_mut().zip(episode.robot.q_rad()) {
            *slot = *q;
        }
        World {
            episode,
            states,
            frames: (0..cameras)
                .map(|_| Frame::black(CAMERA_PX, CAMERA_PX))
                .collect(),
            target,
        }
    }

    fn stands(&self) -> Answer {
        let outcome = self.episode.outcome();
        let mut positions = self.target;
        for (slot, q) in positions.iter_mut().zip(self.episode.robot.q_rad()) {
            *slot = *q;
        }
        Answer::At {
            positions,
            done: outcome.named_done,
            over: outcome.over,
            elapsed_s: outcome.elapsed_s,
        }
    }

    /// One control period towards a target that moves on evenly from the one before.
    fn step(&mut self, target: &[f64; JOINTS + 1], now: Mono, period_ns: u64) {
        let (from, steps) = (self.target, (period_ns / STEP_NS).max(1));
        let period_s = period_ns as f64 * 1e-9;
        let rates: [f64; JOINTS] =
            std::array::from_fn(|joint| (target[joint] - from[joint]) / period_s);
        for step in 1..=steps {
            let share = step as f64 / steps as f64;
            let at =
                std::array::from_fn(|joint| from[joint] + share * (target[joint] - from[joint]));
            self.episode.step(&at, &rates, target[JOINTS] >= 0.5, true);
        }
        self.target = *target;
        let state = received(&mut self.episode, now);
        self.states.push(&state);
    }

    fn observe(&mut self, inference: &mut Inference, now: Mono) -> Result<Answer, LoopFault> {
        for frame in &mut self.frames {
            self.episode.render(&mut frame.rgb);
            frame.seq += 1;
            (frame.captured, frame.received) = (now, now);
        }
        let mut others: [Option<&Frame>; CAMERAS_MAX] = [None; CAMERAS_MAX];
        let mut frames = self.frames.iter();
        let first = frames.next().ok_or(LoopFault::NoScene)?;
        for (slot, frame) in others.iter_mut().zip(frames) {
            *slot = Some(frame);
        }
        let nothing = Followed::default();
        let thought = inference.think(now, first, &others, &self.states, &nothing, &clock::now);
        let chunk = match thought {
            Ok((chunk, _)) => chunk,
            Err(Refusal::NotDue) => return Ok(Answer::NotDue {}),
            Err(refusal) => return Err(LoopFault::NoPlan(refusal.to_string())),
        };
        Ok(Answer::Said {
            actions: (0..chunk.steps())
                .map(|step| chunk.action(step).to_vec())
                .collect(),
            period_ms: chunk.period_ns() as f64 * 1e-6,
            first_ms: chunk.first_at().since_ns(now) as f64 * 1e-6,
        })
    }
}

/// What the sensors say, at once.
fn received(episode: &mut Episode, now: Mono) -> crate::core::observation::JointState {
    let mut state = process::joint_state(episode, now);
    state.received = now;
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::demo;
    use std::path::Path;

    fn answers(lines: &[String]) -> Result<Vec<serde_json::Value>, LoopFault> {
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla");
        let config = demo::bench_config(&bundle, false).expect("a configuration");
        let deployment = Deployment::load(config).expect("a deployment");
        let mut output = Vec::new();
        serve(deployment, lines.join("\n").as_bytes(), &mut output)?;
        let text = String::from_utf8(output).expect("text");
        let read = text.lines().map(serde_json::from_str);
        Ok(read.collect::<Result<_, _>>().expect("JSON"))
    }

    #[test]
    fn another_loop_moves_the_same_robot_by_the_same_policy() {
        let specs = serde_json::to_value(evaluation::plan(1, 7)).expect("JSON");
        let found = answers(&[
            r#"{"plan": {"episodes": 1, "seed": 7}}"#.to_owned(),
            format!(r#"{{"set": {}}}"#, specs[0]),
            r#""observe""#.to_owned(),
        ])
        .expect("answers");
        assert_eq!(found[0]["specs"], specs);
        let start = found[1]["at"]["positions"][0].as_f64().expect("a number");
        let said = &found[2]["said"];
        // The pose that was seen, and sixteen actions.
        assert_eq!(said["actions"].as_array().map(Vec::len), Some(17));
        assert_eq!(
            (&said["period_ms"], &said["first_ms"]),
            (&50.0.into(), &0.0.into())
        );

        // Its servos follow: a second on a ramp ends where that ends.
        let targets: Vec<[f64; JOINTS + 1]> = (1..=200)
            .map(|tick| {
                let mut target = [0.0; JOINTS + 1];
                for (slot, q) in target
                    .iter_mut()
                    .zip(found[1]["at"]["positions"].as_array().expect("7"))
                {
                    *slot = q.as_f64().expect("a number");
                }
                target[0] += 0.2 * f64::from(tick) / 200.0;
                target
            })
            .collect();
        let step = serde_json::json!({"step": targets}).to_string();
        let moved = answers(&[format!(r#"{{"set": {}}}"#, specs[0]), step]).expect("answers");
        let end = moved[1]["at"]["positions"][0].as_f64().expect("a number");
        assert!((end - start - 0.2).abs() < 0.01, "{start} to {end}");
        assert_eq!(moved[1]["at"]["elapsed_s"], 1.0);
    }

    #[test]
    fn what_is_no_question_is_refused_with_its_line() {
        let fault = answers(&[r#"{"move": 1}"#.to_owned()]).expect_err("refused");
        assert!(fault.to_string().starts_with("line 1"), "{fault}");
        let fault = answers(&[r#""observe""#.to_owned()]).expect_err("refused");
        assert!(matches!(fault, LoopFault::NoScene), "{fault}");
    }
}
