// SPDX-License-Identifier: Apache-2.0
//! Demonstrations from the bench, for training: pictures, states, sentences and the expert's chunks as .npy files.
//!
//! `cargo run --release --example bench_export -- --out DIR --frames N --seed S --mode random|expert|policy [--policy BUNDLE]`
//!
//! `random` puts the robot into any situation of its life, `expert` follows the expert with disturbed steps, `policy`
//! lets a bundle drive and labels where it comes (DAgger). `--held-out` uses the wordings and positions that training
//! never sees. The same seed gives the same files whatever the number of threads.

use clap::{Parser, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};
use tendon::bench::arm::{self, JOINTS, Point};
use tendon::bench::dice::Dice;
use tendon::bench::expert::{self, ACTION_DIM, CHUNK_LEN, Goal, Plan};
use tendon::bench::render::Camera;
use tendon::bench::robot::Robot;
use tendon::bench::scene::{Positions, Scene};
use tendon::bench::sentences::{self, Task, Wording};
use tendon::bench::table::{CUBE_M, TRAY_THICK_M};
use tendon::core::action::JointKind;
use tendon::core::observation::JointState;
use tendon::core::units::Mono;
use tendon::engine::cpu::{CpuEngine, CpuOptions};
use tendon::policy::image::{POLICY_SIDE_PX, Shrink};
use tendon::policy::{LoadOptions, Policy};
use tendon::ports::{Engine, Frame};

/// The camera's picture before it is shrunk for the policy.
const CAMERA_PX: usize = 224;
/// Frames of one scene; the unit of work, so that threads do not change the result.
const FRAMES_A_SCENE: usize = 6;
const PICTURE: usize = POLICY_SIDE_PX * POLICY_SIDE_PX * 3;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Random,
    Expert,
    Policy,
}

#[derive(Clone, Parser)]
struct Options {
    /// Folder for the files.
    #[arg(long)]
    out: PathBuf,
    /// How many frames.
    #[arg(long)]
    frames: usize,
    /// Which scenes.
    #[arg(long)]
    seed: u64,
    /// How the robot gets where it is.
    #[arg(long, value_enum)]
    mode: Mode,
    /// The bundle that drives in mode `policy`.
    #[arg(long, required_if_eq("mode", "policy"))]
    policy: Option<PathBuf>,
    /// Held-out wordings and positions instead of those of training.
    #[arg(long)]
    held_out: bool,
    /// Threads.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// One labelled frame.
struct Row {
    picture: Vec<u8>,
    state: [f32; 8],
    action: [f32; CHUNK_LEN * ACTION_DIM],
    block_uv: [f32; 2],
    block_xyz: [f32; 3],
    tip_xyz: [f32; 3],
    present: u8,
    text: String,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    std::fs::create_dir_all(&options.out)?;
    let scenes = options.frames.div_ceil(FRAMES_A_SCENE);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let mut parts: Vec<(usize, Vec<Row>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.threads.max(1))
            .map(|_| {
                scope.spawn(|| {
                    let mut done = Vec::new();
                    let mut learner = options.policy.as_deref().map(Learner::load);
                    loop {
                        let index = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if index >= scenes {
                            return done;
                        }
                        done.push((index, scene_rows(&options, learner.as_mut(), index as u64)));
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a worker ended well"))
            .collect()
    });
    parts.sort_by_key(|(index, _)| *index);
    let rows: Vec<Row> = parts
        .into_iter()
        .flat_map(|(_, rows)| rows)
        .take(options.frames)
        .collect();
    write(&options, &rows)
}

/// The frames of one scene.
fn scene_rows(options: &Options, learner: Option<&mut Learner>, index: u64) -> Vec<Row> {
    let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(index);
    let mut dice = Dice::new(seed, 7);
    let task = if dice.chance(0.4) {
        Task::Touch
    } else {
        Task::Put {
            left: dice.chance(0.5),
        }
    };
    let (positions, wording) = if options.held_out {
        (Positions::HeldOut, Wording::HeldOut)
    } else {
        (Positions::Seen, Wording::Seen)
    };
    let mut scene = Scene::random(seed, task, positions);
    put_others_away(&mut scene, &mut dice);
    let (text, wanted) = match dice.unit() {
        u if u < 0.05 => (sentences::nonsense(&mut dice, wording), false),
        u if u < 0.13 => {
            let absent = scene.absent_colour(&mut dice);
            (sentences::ask(&mut dice, task, absent, wording), false)
        }
        _ => (
            sentences::ask(&mut dice, task, scene.colour(), wording),
            true,
        ),
    };
    let goal = wanted.then_some(Goal {
        block: scene.named,
        task,
    });
    let camera = std::cell::RefCell::new(Camera::new(&scene, CAMERA_PX));
    let mut eye = Eye::new();
    let mut record =
        |robot: &mut Robot| eye.row(robot, &mut camera.borrow_mut(), goal, &scene, &text);
    match (options.mode, learner) {
        (Mode::Random, _) => (0..FRAMES_A_SCENE)
            .map(|_| {
                let mut robot = anywhere(&scene, &mut dice);
                record(&mut robot)
            })
            .collect(),
        (Mode::Policy, Some(learner)) => {
            learner.instruct(&text);
            rollout(
                &scene,
                &mut dice,
                |robot| learner.plan(robot, &mut camera.borrow_mut()),
                &mut record,
            )
        }
        (Mode::Expert | Mode::Policy, _) => rollout(
            &scene,
            &mut dice,
            |robot| {
                let seen = robot.measure();
                expert::plan(&seen.q_rad, seen.suction, &robot.table, goal)
            },
            &mut record,
        ),
    }
}

/// Some of the other blocks lie in a tray already.
fn put_others_away(scene: &mut Scene, dice: &mut Dice) {
    for index in 1..scene.cubes.len() {
        if dice.chance(0.12) {
            let tray = scene.trays[dice.below(2)];
            let at = [tray.x + dice.spread(0.04), tray.y + dice.spread(0.055)];
            scene.cubes[index].centre = [at[0], at[1], TRAY_THICK_M + CUBE_M / 2.0];
        }
    }
}

/// The robot in some situation of its life.
fn anywhere(scene: &Scene, dice: &mut Dice) -> Robot {
    loop {
        let mut scene = scene.clone();
        let named = scene.named;
        let is_put = matches!(scene.task, Task::Put { .. });
        let situation = dice.unit();
        let mut held = false;
        let mut suction = dice.chance(0.06);
        if situation < 0.22 && is_put {
            held = true;
            suction = true;
        } else if situation < 0.34 && is_put {
            // Put down already: in the right tray, or in the wrong one.
            let tray = scene.trays[dice.below(2)];
            let at = [tray.x + dice.spread(0.04), tray.y + dice.spread(0.055)];
            scene.cubes[named].centre = [at[0], at[1], TRAY_THICK_M + CUBE_M / 2.0];
        }
        let block = scene.cubes[named].centre;
        let top = block[2] + CUBE_M / 2.0;
        let tip: Point = match dice.unit() {
            u if u < 0.25 => wide(dice),
            u if u < 0.45 && !held => {
                let (distance, around) = (
                    dice.range(0.0, 0.07),
                    dice.range(0.0, std::f64::consts::TAU),
                );
                let height = top + (distance * 2.0).min(0.08) + dice.range(-0.01, 0.03);
                [
                    block[0] + distance * around.cos(),
                    block[1] + distance * around.sin(),
                    height,
                ]
            }
            u if u < 0.75 && !held => {
                let (distance, around) = (
                    dice.range(0.0, 0.016),
                    dice.range(0.0, std::f64::consts::TAU),
                );
                [
                    block[0] + distance * around.cos(),
                    block[1] + distance * around.sin(),
                    top + dice.range(0.0, 0.02),
                ]
            }
            u if u < 0.60 => {
                let tray = scene.trays[dice.below(2)];
                [
                    tray.x + dice.spread(0.06),
                    tray.y + dice.spread(0.06),
                    dice.range(0.10, 0.20),
                ]
            }
            u if u < 0.75 => [
                block[0] + dice.spread(0.02),
                block[1] + dice.spread(0.02),
                top + dice.range(0.0, 0.13),
            ],
            _ => {
                let far = wide(dice);
                [far[0], far[1], dice.range(0.10, 0.24)]
            }
        };
        let Some(q_rad) = arm::inverse_tool_down(tip) else {
            continue;
        };
        let mut robot = Robot::at(&scene, dice.below(1 << 30) as u64, q_rad);
        if held {
            let offset = [dice.spread(0.008), dice.spread(0.008), -CUBE_M / 2.0];
            robot.table.held = Some((named, offset));
            robot.table.cubes[named].centre =
                [tip[0] + offset[0], tip[1] + offset[1], tip[2] + offset[2]];
        }
        if tip[2] + 0.001 < robot.table.floor_under_tip(tip[0], tip[1], 1.0) {
            continue;
        }
        robot.set_suction(suction);
        return robot;
    }
}

fn wide(dice: &mut Dice) -> Point {
    [
        dice.range(0.17, 0.46),
        dice.range(-0.36, 0.36),
        dice.range(0.02, 0.27),
    ]
}

/// Follows `plan` with disturbed steps and records on the way.
fn rollout(
    scene: &Scene,
    dice: &mut Dice,
    mut plan: impl FnMut(&mut Robot) -> Plan,
    mut record: impl FnMut(&mut Robot) -> Row,
) -> Vec<Row> {
    let mut robot = Robot::new(scene, dice.below(1 << 30) as u64);
    let mut from = *robot.q_rad();
    let mut rows = Vec::new();
    let every = 3 + dice.below(10);
    for step in 0.. {
        if step % every == 0 {
            rows.push(record(&mut robot));
            if rows.len() == FRAMES_A_SCENE {
                break;
            }
        }
        for action in plan(&mut robot).iter().take(2) {
            let to: [f64; JOINTS] = std::array::from_fn(|joint| action[joint] + dice.normal(0.004));
            for ms in 1..=50 {
                let part = f64::from(ms) / 50.0;
                let target: [f64; JOINTS] =
                    std::array::from_fn(|j| from[j] + (to[j] - from[j]) * part);
                let speed: [f64; JOINTS] = std::array::from_fn(|j| (to[j] - from[j]) / 0.05);
                robot.step(&target, &speed, action[JOINTS] >= 0.5);
            }
            from = to;
        }
    }
    rows
}

/// A policy that drives while the expert labels.
struct Learner {
    policy: Policy,
    frame: Frame,
}

impl Learner {
    /// A bundle on one thread. An exporter has nothing better to do with a bundle that does not load than to end.
    fn load(bundle: &Path) -> Learner {
        let engine = |path: &Path, spec: &_| {
            CpuEngine::load(
                path,
                spec,
                CpuOptions {
                    threads: 1,
                    ..CpuOptions::default()
                },
            )
            .map(|engine| Box::new(engine) as Box<dyn Engine>)
        };
        let mut policy = Policy::load(bundle, LoadOptions::default(), &engine)
            .unwrap_or_else(|problems| panic!("{}: {problems:?}", bundle.display()));
        let mut joints: Vec<_> = arm::JOINT_NAMES
            .map(|name| (name, JointKind::Revolute))
            .into();
        joints.push(("gripper", JointKind::Gripper));
        policy
            .bind(&joints)
            .unwrap_or_else(|problems| panic!("{}: {problems:?}", bundle.display()));
        Learner {
            policy,
            frame: Frame::black(CAMERA_PX, CAMERA_PX),
        }
    }

    fn instruct(&mut self, text: &str) {
        self.policy
            .set_instruction(text)
            .expect("the sentences of training are sentences of the policy");
    }

    /// What the policy would do from here.
    fn plan(&mut self, robot: &mut Robot, camera: &mut Camera) -> Plan {
        camera.render(&robot.table, &robot.pose(), &mut self.frame.rgb);
        let seen = robot.measure();
        let mut state = JointState {
            joints: JOINTS + 1,
            holding: seen.holding,
            ..JointState::NEVER
        };
        state.position[..JOINTS].copy_from_slice(&seen.q_rad);
        state.position[JOINTS] = f64::from(u8::from(seen.suction));
        let chunk = self
            .policy
            .infer(&self.frame, &state, &|| Mono(0))
            .expect("a bound policy with an instruction infers");
        let mut plan = [[0.0; ACTION_DIM]; CHUNK_LEN];
        for (step, targets) in plan.iter_mut().zip(chunk.targets.chunks_exact(ACTION_DIM)) {
            for (slot, target) in step.iter_mut().zip(targets) {
                *slot = f64::from(*target);
            }
        }
        plan
    }
}

/// Renders, shrinks, labels.
struct Eye {
    full: Vec<u8>,
    shrink: Shrink,
}

impl Eye {
    fn new() -> Eye {
        Eye {
            full: vec![0; CAMERA_PX * CAMERA_PX * 3],
            shrink: Shrink::new(CAMERA_PX, CAMERA_PX, POLICY_SIDE_PX, POLICY_SIDE_PX)
                .expect("sides with pixels"),
        }
    }

    fn row(
        &mut self,
        robot: &mut Robot,
        camera: &mut Camera,
        goal: Option<Goal>,
        scene: &Scene,
        text: &str,
    ) -> Row {
        camera.render(&robot.table, &robot.pose(), &mut self.full);
        let mut picture = vec![0; PICTURE];
        self.shrink
            .run(&self.full, &mut picture)
            .expect("sizes are constants");
        let seen = robot.measure();
        let plan = expert::plan(&seen.q_rad, seen.suction, &robot.table, goal);
        let mut action = [0.0; CHUNK_LEN * ACTION_DIM];
        for (out, step) in action.chunks_exact_mut(ACTION_DIM).zip(&plan) {
            for (slot, (to, from)) in out.iter_mut().zip(step.iter().zip(seen.q_rad)) {
                *slot = (to - from) as f32;
            }
            out[JOINTS] = step[JOINTS] as f32;
        }
        let mut state = [0.0; 8];
        for (slot, q) in state.iter_mut().zip(seen.q_rad) {
            *slot = q as f32;
        }
        state[6] = f32::from(u8::from(seen.suction));
        state[7] = f32::from(u8::from(seen.holding));
        let block = robot.table.cubes[scene.named].centre;
        let (uv, xyz) = match goal {
            Some(_) => (
                camera.project(block).map(|c| c as f32),
                block.map(|c| c as f32),
            ),
            None => ([-1.0; 2], [0.0; 3]),
        };
        Row {
            picture,
            state,
            action,
            block_uv: uv,
            block_xyz: xyz,
            tip_xyz: robot.pose().tip().map(|c| c as f32),
            present: u8::from(goal.is_some()),
            text: text.to_owned(),
        }
    }
}

fn write(options: &Options, rows: &[Row]) -> std::io::Result<()> {
    let n = rows.len();
    let side = POLICY_SIDE_PX;
    npy(
        &options.out.join("images.npy"),
        "|u1",
        &format!("({n}, {side}, {side}, 3)"),
        rows,
        |row, out| out.write_all(&row.picture),
    )?;
    npy(
        &options.out.join("state.npy"),
        "<f4",
        &format!("({n}, 8)"),
        rows,
        |row, out| floats(out, &row.state),
    )?;
    npy(
        &options.out.join("actions.npy"),
        "<f4",
        &format!("({n}, {CHUNK_LEN}, {ACTION_DIM})"),
        rows,
        |row, out| floats(out, &row.action),
    )?;
    npy(
        &options.out.join("block_uv.npy"),
        "<f4",
        &format!("({n}, 2)"),
        rows,
        |row, out| floats(out, &row.block_uv),
    )?;
    npy(
        &options.out.join("block_xyz.npy"),
        "<f4",
        &format!("({n}, 3)"),
        rows,
        |row, out| floats(out, &row.block_xyz),
    )?;
    npy(
        &options.out.join("tip_xyz.npy"),
        "<f4",
        &format!("({n}, 3)"),
        rows,
        |row, out| floats(out, &row.tip_xyz),
    )?;
    npy(
        &options.out.join("present.npy"),
        "|u1",
        &format!("({n},)"),
        rows,
        |row, out| out.write_all(&[row.present]),
    )?;
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    std::fs::write(
        options.out.join("text.json"),
        serde_json::to_string(&texts)?,
    )?;
    let meta = serde_json::json!({"frames": n, "seed": options.seed, "held_out": options.held_out, "period_s": expert::PERIOD_S});
    std::fs::write(options.out.join("meta.json"), meta.to_string())
}

/// NumPy's format, version 1.0: magic, header length, header padded to 64 bytes, data.
fn npy(
    path: &Path,
    dtype: &str,
    shape: &str,
    rows: &[Row],
    row: impl Fn(&Row, &mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut out = std::io::BufWriter::new(std::fs::File::create(path)?);
    out.write_all(b"\x93NUMPY\x01\x00")?;
    out.write_all(&(header.len() as u16).to_le_bytes())?;
    out.write_all(header.as_bytes())?;
    rows.iter().try_for_each(|each| row(each, &mut out))?;
    out.flush()
}

fn floats(out: &mut dyn Write, values: &[f32]) -> std::io::Result<()> {
    values
        .iter()
        .try_for_each(|value| out.write_all(&value.to_le_bytes()))
}
