// SPDX-License-Identifier: Apache-2.0
//! `include/tendon_wire.h` against the Rust side: the same random histories go through both motor controllers, and
//! every decision, every target and every state frame must be the same to the bit. And `docs/wire.md` and the header's
//! offsets against the field table of the code.

use crc::{CRC_32_AUTOSAR, Crc};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};
use tendon::core::action::{JointKind, Setpoint};
use tendon::core::chunk::Provenance;
use tendon::core::governor::limits::{Joint, JointLimits};
use tendon::core::observation::JointState;
use tendon::core::units::{MS, Mono};
use tendon::core::wire::command::{
    COMMAND_LEN_MAX, Command, START_TOLERANCE, Tool, decode, encode,
};
use tendon::core::wire::layout::{self, Field};
use tendon::core::wire::reject::Reject;
use tendon::core::wire::state::{self, STATE_LEN_MAX};
use tendon::core::wire::{Identity, MAGIC};
use tendon::link::motor::{Motor, Settings};

const COMMANDS: Identity = Identity {
    data_id: 1,
    schema: 2,
};
const STATES: Identity = Identity {
    data_id: 3,
    schema: 2,
};
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_AUTOSAR);
const HISTORIES: u64 = 100_000;
const BATCH: u64 = 5_000;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Splitmix64: seeds are printed with a failure, and need no library to be tried again.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    /// Between -1 and 1.
    fn unit(&mut self) -> f64 {
        (self.below(1 << 53) as f64) / (1u64 << 52) as f64 - 1.0
    }
}

/// Compiles the C end, with the sanitizers if the compiler has them.
fn driver() -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tendon_wire_driver");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let compile = |sanitize: &[&str]| {
        Process::new(&compiler)
            .args([
                "-std=c99",
                "-O2",
                "-Wall",
                "-Wextra",
                "-Werror",
                "-pedantic",
            ])
            .args(sanitize)
            .arg("-I")
            .arg(root().join("include"))
            .arg(root().join("tests/wire_c/driver.c"))
            .arg("-o")
            .arg(&out)
            .arg("-lm")
            .output()
            .unwrap_or_else(|error| panic!("no C compiler: {compiler}: {error}; set CC"))
    };
    let sanitizers = ["-fsanitize=undefined,address", "-fno-sanitize-recover=all"];
    if !compile(&sanitizers).status.success() {
        let plain = compile(&[]);
        let said = String::from_utf8_lossy(&plain.stderr);
        assert!(
            plain.status.success(),
            "the header does not compile:\n{said}"
        );
    }
    out
}

/// Runs the C end over `operations` and returns what it wrote.
fn run(driver: &Path, operations: Vec<u8>) -> Vec<u8> {
    let mut child = Process::new(driver)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the driver starts");
    let mut stdin = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || stdin.write_all(&operations));
    let mut output = Vec::new();
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_to_end(&mut output).expect("readable");
    let written = writer.join().expect("no panic");
    let status = child.wait().expect("ends");
    assert!(
        status.success(),
        "the driver failed ({status}): {written:?}"
    );
    output
}

fn motor() -> Motor {
    let limits = JointLimits {
        position_min: -2.0,
        position_max: 2.0,
        velocity_max: 2.0,
        acceleration_max: 10.0,
        jerk_max: 500.0,
        tracking_error_max: f64::INFINITY,
        torque_max: f64::INFINITY,
    };
    let joints = [JointKind::Revolute, JointKind::Gripper];
    let settings = Settings {
        commands: COMMANDS,
        states: STATES,
        joints: joints.map(|kind| Joint { kind, limits }).to_vec(),
        period_ns: 5 * MS,
        boot_id: 5,
    };
    Motor::new(settings, &[0.0, 0.0])
}

/// What both ends are asked, and what the Rust end answered.
#[derive(Default)]
struct Script {
    operations: Vec<u8>,
    answers: Vec<u8>,
    /// Where each answer begins, and the seed of its history.
    marks: Vec<(usize, u64)>,
    rejects: BTreeSet<u8>,
    modes: BTreeSet<u8>,
    healths: BTreeSet<u8>,
    frames: u64,
    /// Frames whose tool was read.
    tools: u64,
}

impl Script {
    fn ask(&mut self, op: u8, now: u64, seed: u64) {
        self.marks.push((self.answers.len(), seed));
        self.operations.push(op);
        self.operations.extend(now.to_le_bytes());
    }

    fn answer_target(&mut self, motor: &Motor) {
        self.answers.push(motor.mode() as u8);
        for number in motor
            .target()
            .positions()
            .iter()
            .chain(motor.target().velocities())
        {
            self.answers.extend(number.to_le_bytes());
        }
    }

    fn frame(&mut self, motor: &mut Motor, now: u64, frame: &[u8], echo: &mut u32, seed: u64) {
        let through_mailbox = self.frames.is_multiple_of(7) && frame.len() <= COMMAND_LEN_MAX;
        self.ask(if through_mailbox { 4 } else { 1 }, now, seed);
        self.operations.extend((frame.len() as u16).to_le_bytes());
        self.operations.extend(frame);
        let code = match motor.on_command(Mono(now), frame) {
            Ok(()) => {
                *echo = u32::from_le_bytes(frame[8..12].try_into().expect("four"));
                0
            }
            Err(reject) => reject as u8,
        };
        let health = motor.health(Mono(now)) as u8;
        self.rejects.insert(code);
        self.healths.insert(health);
        self.modes.insert(motor.mode() as u8);
        self.frames += 1;
        if through_mailbox {
            motor.step(Mono(now), MS);
            self.answer_target(motor);
        } else {
            self.answers.extend([code, motor.mode() as u8, health]);
            self.answers.extend(echo.to_le_bytes());
        }
    }

    /// What is read of a frame beside the joints.
    fn tool(&mut self, now: u64, frame: &[u8], seed: u64) {
        self.ask(6, now, seed);
        self.operations.extend((frame.len() as u16).to_le_bytes());
        self.operations.extend(frame);
        match decode(frame, COMMANDS) {
            Ok(Command { tool: None, .. }) => self.answers.extend([0, 0]),
            Ok(Command {
                tool: Some(tool), ..
            }) => {
                self.tools += 1;
                self.answers.extend([0, 1]);
                self.answers.extend(bytemuck::bytes_of(&tool));
            }
            Err(reject) => self.answers.extend([reject as u8, 0]),
        }
    }

    fn step(&mut self, motor: &mut Motor, now: u64, dt_ns: u64, seed: u64) {
        self.ask(2, now, seed);
        self.operations.extend(dt_ns.to_le_bytes());
        motor.step(Mono(now), dt_ns);
        self.answer_target(motor);
    }

    fn report(&mut self, motor: &mut Motor, now: u64, seed: u64) {
        let mut measured = JointState {
            joints: 2,
            measured: Mono(now),
            holding: true,
            ..JointState::NEVER
        };
        measured.position = motor.target().position;
        measured.velocity = motor.target().velocity;
        measured.torques = seed.is_multiple_of(2);
        let mut numbers = [&measured.position[..2], &measured.velocity[..2]].concat();
        if measured.torques {
            measured.torque[..2].copy_from_slice(&[1.5, -(seed as f64)]);
            numbers.extend(&measured.torque[..2]);
        }
        self.ask(if measured.torques { 5 } else { 3 }, now, seed);
        for number in numbers {
            self.operations.extend(number.to_le_bytes());
        }
        let mut frame = [0; STATE_LEN_MAX];
        let length = motor.report(&measured, &mut frame).expect("fits");
        state::decode(&frame[..length], STATES).expect("whole and ours");
        self.answers.extend((length as u16).to_le_bytes());
        self.answers.extend(&frame[..length]);
    }
}

/// Any numbers: the receiver hands them on.
fn tool(dice: &mut Dice) -> Tool {
    let mut unit = || dice.unit();
    Tool {
        position_m: std::array::from_fn(|_| unit()),
        orientation: std::array::from_fn(|_| unit()),
        velocity_m_s: std::array::from_fn(|_| unit()),
        angular_velocity_rad_s: std::array::from_fn(|_| unit()),
    }
}

/// Damages a frame; half of the time the CRC is made right again, so that the checks behind it are reached.
fn damage(dice: &mut Dice, frame: &mut Vec<u8>) {
    match dice.below(6) {
        0 => frame.truncate(dice.below(frame.len() as u64 + 1) as usize),
        1 => frame.extend((0..dice.below(40)).map(|n| n as u8)),
        2 => {
            let at = 64 + 8 * dice.below(4) as usize;
            let bits = dice.of(&[f64::NAN.to_bits() | 1, f64::INFINITY.to_bits(), 1, 1 << 63]);
            // In a joint's numbers, or in the tool's.
            let at = if dice.one_in(2) { at } else { frame.len() - 12 };
            frame[at..at + 8].copy_from_slice(&bits.to_le_bytes());
        }
        _ => {
            for _ in 0..=dice.below(3) {
                let at = dice.below(frame.len() as u64 * 8);
                frame[at as usize / 8] ^= 1 << (at % 8);
            }
        }
    }
    if dice.one_in(2) && frame.len() >= 36 {
        let length = frame.len();
        if dice.one_in(2) {
            frame[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        }
        let crc = CRC.checksum(&frame[..length - 4]);
        frame[length - 4..].copy_from_slice(&crc.to_le_bytes());
    }
}

/// One history: a sender that mostly behaves, a link that mostly works, and everything else.
fn history(seed: u64, script: &mut Script) {
    let dice = &mut Dice(seed);
    let mut motor = motor();
    script.operations.push(0);
    let (mut echo, mut now) = (0, 1_000 * MS + dice.below(1 << 40));
    let offset = dice.of(&[0, dice.0 >> 20, u64::MAX / 2]);
    let mut counter = dice.of(&[1, u32::MAX - 3, 0x7fff_fff0]);
    let (mut epoch, mut q, speed) = (9_u32, 0.04 * dice.unit(), dice.unit() * 1.2);
    let trouble = dice.of(&[3, 6, 20, 60]);
    let mut old: Vec<Vec<u8>> = Vec::new();
    // Mostly it hears first that nothing is armed.
    let mut disarmed = !dice.one_in(8);
    for _ in 0..12 + dice.below(12) {
        let mut command = Command {
            counter,
            epoch,
            sent: Mono(now.wrapping_add(offset)),
            valid_for_us: 100_000,
            mode: 1,
            verdict: 1,
            action: 3,
            provenance: Provenance {
                frame_seq: 4,
                captured: Mono(now),
                chunk_id: 6,
                bundle_hash: 7,
                unproven: counter.is_multiple_of(2),
            },
            setpoint: Setpoint::at_rest(&[q, 0.5]),
            tool: dice.one_in(3).then(|| tool(dice)),
        };
        command.setpoint.velocity[0] = speed;
        if std::mem::take(&mut disarmed) {
            (command.mode, command.epoch) = (0, 0);
        }
        if dice.one_in(trouble) {
            match dice.below(9) {
                0 => {
                    command.counter =
                        counter.wrapping_add(dice.of(&[2, 4, 999, 1_000, 1_001, 1 << 31]))
                }
                1 => command.epoch = dice.of(&[0, 9, 11, 12]),
                2 => command.valid_for_us = dice.of(&[0, 1, 3_000, 20_000, u32::MAX]),
                3 => command.mode = dice.of(&[0, 2, 3]),
                4 => command.setpoint = Setpoint::at_rest(&[q + 3.0 * dice.unit(), 0.1]),
                5 => command.setpoint = Setpoint::at_rest(&[q, 0.1, 0.2][..dice.of(&[0, 1, 3])]),
                6 => {
                    command.sent = Mono(now.wrapping_add(offset).wrapping_sub(dice.below(300 * MS)))
                }
                7 => epoch = dice.of(&[9, 11, 12, 13]),
                _ => q = (q + 0.2 * dice.unit()).clamp(-2.0, 2.0),
            }
        }
        counter = command.counter.wrapping_add(1);
        let mut bytes = [0; COMMAND_LEN_MAX];
        let length = encode(&command, COMMANDS, &mut bytes).expect("fits");
        let mut frame = bytes[..length].to_vec();
        old.push(frame.clone());
        if dice.one_in(trouble) && frame.len() >= 100 {
            damage(dice, &mut frame);
        }
        if dice.one_in(trouble * 2) {
            frame = old[dice.below(old.len() as u64) as usize].clone();
        }
        script.tool(now, &frame, seed);
        script.frame(&mut motor, now, &frame, &mut echo, seed);
        // Either the period passes in steps of a millisecond, or something happens to time.
        if dice.one_in(trouble) {
            let gap = dice.of(&[0, 1, 19 * MS, 20 * MS, 150 * MS, 200 * MS, 1_100 * MS]);
            now += gap;
            script.step(&mut motor, now, dice.of(&[0, MS, gap]), seed);
            if dice.one_in(4) {
                now -= dice.below(5 * MS);
            }
        } else {
            for _ in 0..5 {
                now += MS;
                script.step(&mut motor, now, MS, seed);
            }
            q = (q + speed * 0.005).clamp(-2.0, 2.0);
        }
        if dice.one_in(3) {
            script.report(&mut motor, now, seed);
        }
    }
    script.report(&mut motor, now, seed);
}

#[test]
fn the_c_motor_controller_decides_and_moves_as_the_rust_one_does() {
    let driver = driver();
    let (mut rejects, mut modes, mut healths) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut frames, mut tools) = (0, 0);
    for batch in 0..HISTORIES / BATCH {
        let mut script = Script::default();
        for seed in batch * BATCH..(batch + 1) * BATCH {
            history(seed, &mut script);
        }
        let said = run(&driver, std::mem::take(&mut script.operations));
        if said != script.answers {
            let pairs = said.iter().zip(&script.answers);
            let at = pairs.take_while(|(c, rust)| c == rust).count();
            let mark = script.marks.iter().rposition(|(start, _)| *start <= at);
            let (start, seed) = script.marks[mark.expect("the first begins at 0")];
            let show = |bytes: &[u8]| {
                format!(
                    "{:?}",
                    &bytes[start.min(bytes.len())..bytes.len().min(start + 40)]
                )
            };
            panic!(
                "history {seed}, byte {} of an answer:\n   C {}\nRust {}",
                at - start,
                show(&said),
                show(&script.answers)
            );
        }
        rejects.append(&mut script.rejects);
        modes.append(&mut script.modes);
        healths.append(&mut script.healths);
        frames += script.frames;
        tools += script.tools;
    }
    // Or the comparison would be one of two that never get anywhere.
    let all: BTreeSet<u8> = (0..=Reject::ALL.len() as u8).collect();
    assert_eq!(rejects, all, "every decision was met");
    assert_eq!(modes.len(), 4, "{modes:?}");
    assert_eq!(healths.len(), 4, "{healths:?}");
    assert!(tools > frames / 5, "{tools} of {frames} told of the tool");
    println!(
        "{HISTORIES} histories, {frames} frames, {tools} with a tool: the same decisions, targets, tools and state frames"
    );
}

/// The rows of a table in `docs/wire.md`.
fn rows(fields: &[Field]) -> String {
    fields
        .iter()
        .map(|field| {
            format!(
                "| {} | {} | `{}` | {} |\n",
                field.offset, field.is, field.name, field.means
            )
        })
        .collect()
}

#[test]
fn the_byte_tables_are_those_of_the_code() {
    let paper = std::fs::read_to_string(root().join("docs/wire.md")).expect("docs/wire.md");
    for (name, fields) in [
        ("header", layout::HEADER),
        ("command", layout::COMMAND),
        ("tool", layout::TOOL),
        ("state", layout::STATE),
        ("event", layout::EVENT),
        ("picture", layout::PICTURE),
    ] {
        let want = rows(fields);
        assert!(
            paper.contains(&want),
            "docs/wire.md, table of the {name}: expected exactly\n{want}"
        );
    }
    for reject in Reject::ALL {
        let want = format!("| {} | {reject} |\n", reject as u8);
        assert!(paper.contains(&want), "docs/wire.md: expected\n{want}");
    }
    let want = format!("\n{START_TOLERANCE} rad (m) of the measured pose");
    assert!(paper.contains(&want), "docs/wire.md: expected{want}");
}

#[test]
fn the_c_header_has_the_offsets_and_codes_of_the_code() {
    let header = std::fs::read_to_string(root().join("include/tendon_wire.h")).expect("the header");
    for (prefix, fields) in [
        ("TW_HEADER", layout::HEADER),
        ("TW_COMMAND", layout::COMMAND),
        ("TW_TOOL", layout::TOOL),
        ("TW_STATE", layout::STATE),
    ] {
        for field in fields {
            let name = field.name.to_uppercase();
            let want = format!("#define {prefix}_{name} {}U\n", field.offset);
            assert!(
                header.contains(&want),
                "include/tendon_wire.h: expected {want}"
            );
        }
    }
    assert!(header.contains(&format!("#define TW_MAGIC 0x{MAGIC:08X}UL\n")));
    let want = format!("#define TW_START_TOLERANCE {START_TOLERANCE}\n");
    assert!(
        header.contains(&want),
        "include/tendon_wire.h: expected {want}"
    );
}
