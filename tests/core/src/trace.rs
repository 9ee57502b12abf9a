// SPDX-License-Identifier: Apache-2.0
//! A robot of seven joints with every limit there is, driven by a seeded generator through supervisor, governor and wire.
//! Its outputs are compared bit for bit between machines (golden.txt), and its steps are what the allocator counts.
//!
//! Included by the runtime's tests (`tests/proofs.rs`) and by the small program `golden`, which has no thread, so that it
//! runs wherever an emulator can.

use tendon::core::action::{JointKind, Setpoint};
use tendon::core::chunk::Provenance;
use tendon::core::governor::limits::{Coordination, Joint, JointLimits, Limits};
use tendon::core::governor::{Deadman, EmergencyLine, Governor, Input, Output, Proposal, Verdict};
use tendon::core::kinematics::envelope::{Capsule, Envelope, Pair};
use tendon::core::kinematics::geometry::{Cuboid, Transform};
use tendon::core::kinematics::{Chain, Drive, Link, Motion};
use tendon::core::observation::{Freshness, JointState};
use tendon::core::schedule::{Absence, Step};
use tendon::core::supervisor::{Asked, Facts, Mode, Request, Supervisor};
use tendon::core::units::{MS, Mono};
use tendon::core::wire::command::{COMMAND_LEN_MAX, Command, MODE_FOLLOW, encode};
use tendon::core::wire::{Identity, Kind, data_id, schema_id};

pub const JOINTS: usize = 7;
const PERIOD_NS: u64 = 5 * MS;
const T: f64 = 0.005;

/// xorshift64*.
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        let unit = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        low + (high - low) * unit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.bits().is_multiple_of(n)
    }
}

/// How often each thing happened: a trace in which nothing happens proves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u32,
    pub shaped: u32,
    pub held: u32,
    /// Sets, one bit an element: limits that were named, causes for which it was held, modes that were entered.
    pub limits: u32,
    pub causes: u32,
    pub modes: u32,
}

/// How the setpoint of one joint moves.
#[derive(Clone, Copy, Debug)]
struct Lag {
    goal: f64,
    /// Of the way, in one tick.
    share: f64,
    stages: [f64; 3],
}

impl Lag {
    fn at(q: f64) -> Lag {
        Lag {
            goal: q,
            share: 0.01,
            stages: [q; 3],
        }
    }
}

pub struct World {
    supervisor: Supervisor,
    governor: Governor,
    limits: Limits,
    identity: Identity,
    frame: [u8; COMMAND_LEN_MAX],
    dice: Dice,
    now: Mono,
    state: JointState,
    last: Option<Output>,
    mode: Mode,
    lags: [Lag; JOINTS],
    wish: Setpoint,
    speed_scale: f64,
    pub counts: Counts,
}

fn joints() -> [Joint; JOINTS] {
    let joint = |kind, reach: f64, velocity_max: f64, acceleration_max: f64, jerk_max: f64| Joint {
        kind,
        limits: JointLimits {
            position_min: -reach,
            position_max: reach,
            velocity_max,
            acceleration_max,
            jerk_max,
            tracking_error_max: 0.3,
            torque_max: f64::INFINITY,
        },
    };
    let turn = JointKind::Revolute;
    [
        joint(turn, 2.9, 2.175, 15.0, 7_500.0),
        joint(turn, 1.76, 2.175, 7.5, 3_750.0),
        joint(turn, 2.9, 2.5, 10.0, 300.0),
        joint(turn, 1.5, 2.175, 12.5, 6_250.0),
        joint(turn, 2.9, 2.61, 15.0, 150.0),
        joint(JointKind::Prismatic, 0.2, 0.5, 2.0, 40.0),
        joint(JointKind::Gripper, 1.0, 1.0, 1.0, 1.0),
    ]
}

fn envelope() -> Envelope {
    let drive = |joint| Drive {
        joint,
        factor: 1.0,
        offset: 0.0,
    };
    let links: Vec<Link> = (0..6_usize)
        .map(|index| Link {
            parent: index.checked_sub(1),
            origin: Transform::from_xyz_rpy([0.0, 0.01, 0.2], [0.1, 0.0, 0.2]),
            axis: [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]][index % 2],
            motion: if index == 5 {
                Motion::Prismatic {
                    drive: drive(index),
                    travel_max_m: 0.2,
                }
            } else {
                Motion::Revolute(drive(index))
            },
        })
        .collect();
    let chain = Chain::new(&links, JOINTS).expect("a good chain");
    let capsules: Vec<Capsule> = (0..6)
        .map(|link| Capsule {
            link,
            ends: [[0.0; 3], [0.0, 0.0, 0.15]],
            radius_m: 0.03,
            in_workspace: true,
            out_of_boxes: link > 1,
        })
        .collect();
    let pairs: Vec<Pair> = (0..6)
        .flat_map(|one| (one + 2..6).map(move |two| [one, two]))
        .map(|capsules| Pair {
            capsules,
            clearance_m: 0.005,
        })
        .collect();
    let workspace = Cuboid {
        min: [-0.95, -0.95, -0.3],
        max: [0.95, 0.95, 1.4],
    };
    let keep_out = Cuboid {
        min: [0.35, -0.3, -0.4],
        max: [0.9, 0.5, 0.5],
    };
    Envelope::new(chain, &capsules, Some(workspace), &[keep_out], &pairs).expect("a good envelope")
}

impl World {
    pub fn new(seed: u64, coordination: Coordination) -> World {
        let mut limits = Limits::new(&joints(), PERIOD_NS).expect("good limits");
        limits.coordination = coordination;
        limits.settling.window_ns = 200 * MS;
        let governor = Governor::new(limits.clone())
            .and_then(|governor| governor.within(envelope()))
            .expect("as many joints");
        let mut state = JointState {
            joints: JOINTS,
            ..JointState::NEVER
        };
        state.position[1] = -0.3;
        World {
            supervisor: Supervisor::new(limits.reactions, None),
            governor,
            limits,
            identity: Identity {
                data_id: data_id("golden", Kind::Command),
                schema: schema_id([("one", 0)].into_iter()),
            },
            frame: [0; COMMAND_LEN_MAX],
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            now: Mono(10_000 * MS),
            wish: Setpoint::at_rest(&state.position[..JOINTS]),
            lags: state
                .position
                .first_chunk()
                .copied()
                .unwrap_or([0.0; JOINTS])
                .map(Lag::at),
            speed_scale: 1.0,
            state,
            last: None,
            mode: Mode::Boot,
            counts: Counts::default(),
        }
    }

    /// The facts of a machine on which all is well, but for what the dice spoil.
    fn facts(&mut self) -> Facts {
        let mode = self.mode;
        let dice = &mut self.dice;
        let request = match mode {
            Mode::Standby if dice.one_in(4) => Some(Request::Activate),
            Mode::Stopped | Mode::EStop if dice.one_in(4) => Some(Request::Reset),
            Mode::Active if dice.one_in(900) => Some(Request::TakeOver),
            Mode::Takeover if dice.one_in(300) => Some(Request::Activate),
            _ if dice.one_in(2_500) => Some(Request::Stop),
            _ if dice.one_in(3_500) => Some(Request::EmergencyStop),
            _ => None,
        };
        let moving = self.last.as_ref().is_some_and(|out| out.moving);
        Facts {
            asked: request.map(|request| Asked {
                request,
                made: self.now,
            }),
            booted: true,
            state_age_ns: Some(if dice.one_in(600) { 30 * MS } else { MS }),
            state_age_max_ns: 15 * MS,
            pose_within_limits: true,
            measured_at_rest: !moving,
            cameras_fresh: !dice.one_in(50),
            camera_fault: None,
            instructed: true,
            echo_flowing_ns: Some(2_000 * MS),
            echo_age_ns: if dice.one_in(4_000) { 150 * MS } else { MS },
            commands_refused: dice.one_in(3_000),
            motor_restarted: dice.one_in(5_000),
            thread_late: dice.one_in(5_000),
            suspended: false,
            emergency_line: EmergencyLine::Closed,
            deadman: Deadman::NotFitted,
            held: self.last.as_ref().and_then(|out| out.found),
            governor_epoch: self.last.as_ref().map_or(0, |out| out.epoch),
            at_rest: self.last.as_ref().is_none_or(|out| out.at_rest),
            next_epoch: (dice.bits() >> 33) as u32 | 1,
        }
    }

    /// Where the setpoint goes on to: each joint to its own goal through three lags, now gently, now faster or further than
    /// it may; seldom by a jump.
    fn wander(&mut self) {
        for (index, joint) in self.limits.joints.iter().enumerate() {
            let l = &joint.limits;
            let dice = &mut self.dice;
            let lag = &mut self.lags[index];
            if dice.one_in(400) {
                lag.goal = dice.between(1.1 * l.position_min, 1.1 * l.position_max);
                lag.share = dice.between(0.004, 0.03);
            }
            let before = lag.stages[2];
            let mut from = lag.goal;
            for stage in &mut lag.stages {
                *stage += lag.share * (from - *stage);
                from = *stage;
            }
            if dice.one_in(6_000) {
                lag.stages = [lag.goal; 3];
            }
            self.wish.position[index] = lag.stages[2];
            self.wish.velocity[index] = (lag.stages[2] - before) / T;
        }
        let dice = &mut self.dice;
        if dice.one_in(500) {
            self.speed_scale = dice.between(0.0, 1.3);
        } else if dice.one_in(100) {
            self.speed_scale = 1.0;
        }
    }

    /// One tick: the encoded command frame.
    pub fn step(&mut self) -> &[u8] {
        self.wander();
        let facts = self.facts();
        let decision = self.supervisor.step(self.now, &facts);
        self.mode = decision.mode;
        self.counts.modes |= 1 << decision.mode as u32;

        let mut setpoint = self.wish;
        let dice = &mut self.dice;
        if dice.one_in(1_500) {
            let index = (dice.bits() % JOINTS as u64) as usize;
            setpoint.position[index] = f64::from_bits(dice.bits() | 0x7ff0_0000_0000_0000);
        }
        let silent = dice.one_in(400);
        let step = if dice.one_in(700) {
            Step::None(Absence::Ended)
        } else {
            Step::Setpoint {
                setpoint,
                provenance: Provenance::default(),
                action: (self.now.0 / PERIOD_NS % 50) as u16,
            }
        };
        let proposal = Proposal {
            made: self.now,
            step,
        };
        (self.state.measured, self.state.received) = (self.now, self.now);
        let out = self.governor.step(
            self.now,
            &Input {
                proposal: (!silent).then_some(&proposal),
                state: Freshness::Fresh(&self.state),
                permission: decision.permission,
                hold: decision.hold,
                emergency_stop: decision.emergency_stop,
                speed_scale: self.speed_scale,
                emergency_line: EmergencyLine::Closed,
                deadman: Deadman::NotFitted,
            },
        );
        match out.verdict {
            Verdict::Passed => self.counts.passed += 1,
            Verdict::Shaped(limit) => {
                self.counts.shaped += 1;
                self.counts.limits |= 1 << (limit as u32);
            }
            Verdict::Held(cause) => {
                self.counts.held += 1;
                self.counts.causes |= 1 << (cause as u32);
            }
        }
        if out.moving {
            // A perfect robot; after a stop the setpoints begin anew from where it is.
            self.state.position = out.command.get().position;
            self.state.velocity = out.command.get().velocity;
        }
        if matches!(out.verdict, Verdict::Held(_)) && out.at_rest {
            for (lag, q) in self.lags.iter_mut().zip(out.command.get().positions()) {
                *lag = Lag::at(*q);
            }
        }
        let command = Command {
            counter: out.tick,
            epoch: out.epoch,
            sent: self.now,
            valid_for_us: 20_000,
            mode: MODE_FOLLOW,
            verdict: out.verdict.code(),
            action: out.action,
            provenance: out.provenance,
            setpoint: *out.command.get(),
            tool: None,
        };
        self.last = Some(out);
        self.now = self.now.plus_ns(PERIOD_NS);
        let length = encode(&command, self.identity, &mut self.frame).unwrap_or(0);
        self.frame.get(..length).unwrap_or(&[])
    }
}

fn fnv(hash: u64, bytes: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(hash, mix)
}

/// Ticks of each of the two runs, and of a line.
const TICKS: usize = 20_000;
const LINE: usize = 1_000;

/// One line for every thousand ticks, first with joints that each go alone, then with joints that wait for one another:
/// the FNV-1a hash of every byte sent so far and of every position and velocity behind it. The first line that differs
/// says where to look.
pub fn golden() -> String {
    let mut text = String::new();
    for (seed, coordination) in [
        (1, Coordination::Independent),
        (2, Coordination::Synchronised),
    ] {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut world = World::new(seed, coordination);
        for tick in 1..=TICKS {
            hash = fnv(hash, world.step());
            let command = *world.last.as_ref().expect("a step was made").command.get();
            for number in command.positions().iter().chain(command.velocities()) {
                hash = fnv(hash, &number.to_le_bytes());
            }
            if tick % LINE == 0 {
                text += &format!("{coordination:?} {tick} {hash:016x}\n");
            }
        }
        let counts = &world.counts;
        text += &format!(
            "{coordination:?} passed {} shaped {} held {} limits {:x} causes {:x} modes {:x}\n",
            counts.passed, counts.shaped, counts.held, counts.limits, counts.causes, counts.modes
        );
    }
    text
}
