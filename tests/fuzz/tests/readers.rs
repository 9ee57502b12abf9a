// SPDX-License-Identifier: Apache-2.0
//! Each reader under bolero: as an ordinary test (the corpus first, then random inputs), or guided by coverage for hours.
//! The inputs for texts are scripts of edits to the files that ship, so that most of them still look like such a file.

use crc::{CRC_32_AUTOSAR, Crc};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tendon::config::problem::Problem;
use tendon::config::{Config, urdf};
use tendon::core::action::Setpoint;
use tendon::core::chunk::Provenance;
use tendon::core::governor::Governor;
use tendon::core::observation::JointState;
use tendon::core::units::Mono;
use tendon::core::wire::command::{self, COMMAND_LEN_MAX, Command, CommandReceiver};
use tendon::core::wire::event::{self, EVENT_LEN, Event};
use tendon::core::wire::reject::Reject;
use tendon::core::wire::state::{self, MotorMode, Report, STATE_LEN_MAX, StateReceiver};
use tendon::core::wire::{Identity, picture};
use tendon::policy::manifest as bundle;

/// The identity of kind `n` (the low byte of the data id): 1 command, 2 state, 3 picture, 4 event.
fn identity(n: u32) -> Identity {
    Identity {
        data_id: 0x1234_5600 | n,
        schema: 0xabcd_ef01,
    }
}

/// Header and CRC made right, so that what lies behind them is reached.
fn mend(frame: &mut [u8], id: Identity) {
    let length = frame.len();
    frame[..4].copy_from_slice(b"TD\x01\x00");
    frame[4..8].copy_from_slice(&(length as u32).to_le_bytes());
    frame[12..16].copy_from_slice(&id.data_id.to_le_bytes());
    frame[16..20].copy_from_slice(&id.schema.to_le_bytes());
    let crc = Crc::<u32>::new(&CRC_32_AUTOSAR).checksum(&frame[..length - 4]);
    frame[length - 4..].copy_from_slice(&crc.to_le_bytes());
}

/// A whole frame of each kind.
fn good(kind: u32) -> Vec<u8> {
    let mut frame = vec![0; 4_096];
    let id = identity(kind);
    let length = match kind {
        1 => command::encode(&a_command(), id, &mut frame),
        2 => state::encode(&a_report(), id, &mut frame),
        3 => {
            frame.truncate(picture::PICTURE_OVERHEAD + 4 * 2 * 3);
            picture::encode(&mut frame, 3, Mono(5), 4, 2, id)
        }
        _ => event::encode(&an_event(), id, &mut frame),
    };
    frame.truncate(length.expect("fits"));
    frame
}

fn a_command() -> Command {
    Command {
        counter: 7,
        epoch: 9,
        sent: Mono(1),
        valid_for_us: 20_000,
        mode: command::MODE_FOLLOW,
        verdict: 1,
        action: 3,
        provenance: Provenance::default(),
        setpoint: Setpoint::at_rest(&[0.1, -0.2, 1e-300]),
        tool: None,
    }
}

fn a_report() -> Report {
    Report {
        counter: 9,
        epoch: 4,
        boot_id: 1,
        echo_counter: 8,
        accepted: 7,
        rejected: 6,
        limit_violations: 5,
        mode: MotorMode::Following,
        last_reject: Reject::Crc as u8,
        state: JointState {
            joints: 3,
            measured: Mono(77),
            ..JointState::NEVER
        },
    }
}

fn an_event() -> Event {
    Event {
        counter: 3,
        epoch: 9,
        sent: Mono(8),
        at: Mono(7),
        value: 0.5,
        frame_seq: 6,
        chunk_id: 5,
        bundle_hash: 4,
        code: 300,
        mode: 2,
        cause: 1,
    }
}

/// The first byte says what is made of the rest: its lowest bit, whether header and CRC are made right; the next, whether
/// it is a frame or edits (two bytes of place, one byte) of a whole one; and then the kind.
fn frame_of(input: &[u8]) -> Vec<u8> {
    let Some((first, rest)) = input.split_first() else {
        return vec![];
    };
    let kind = u32::from(first >> 2) % 4 + 1;
    let mut frame = if first & 2 == 0 {
        rest.to_vec()
    } else {
        good(kind)
    };
    if first & 2 == 2 {
        for edit in rest.chunks_exact(3) {
            let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % frame.len();
            frame[at] = edit[2];
        }
    }
    if first & 1 == 1 && frame.len() >= 24 {
        mend(&mut frame, identity(kind));
    }
    frame
}

/// Decoders take any bytes; what they take they write again as it was, and no receiver takes it twice. Returns what each
/// made of it.
fn read_frame(input: &[u8]) -> String {
    let frame = frame_of(input);
    if let Ok(read) = command::decode(&frame, identity(1)) {
        let mut again = [0; COMMAND_LEN_MAX];
        let length = command::encode(&read, identity(1), &mut again).expect("it came so");
        assert_eq!(command::decode(&again[..length], identity(1)), Ok(read));
        assert!(read.setpoint.positions().iter().all(|q| q.is_finite()));
        assert!(read.setpoint.velocities().iter().all(|v| v.is_finite()));
    }
    if let Ok(read) = state::decode(&frame, identity(2)) {
        let mut again = [0; STATE_LEN_MAX];
        let length = state::encode(&read, identity(2), &mut again).expect("it came so");
        assert!(state::decode(&again[..length], identity(2)).is_ok());
        assert!(read.state.joints <= read.state.position.len());
        let numbers = read.state.position.iter().chain(&read.state.velocity);
        assert!(numbers.take(read.state.joints).all(|x| x.is_finite()));
    }
    let _ = picture::decode(&frame, identity(3)).map(|picture| picture.rgb.len());
    if let Ok(read) = event::decode(&frame, identity(4)) {
        let mut again = [0; EVENT_LEN];
        let length = event::encode(&read, identity(4), &mut again).expect("it came so");
        let read_again = event::decode(&again[..length], identity(4)).expect("whole");
        assert_eq!(read.value.to_bits(), read_again.value.to_bits());
    }
    let mut commands = CommandReceiver::new(identity(1));
    let mut states = StateReceiver::new(identity(2));
    let now = Mono(1_000);
    assert!(commands.accept(now, &frame).is_err() || commands.accept(now, &frame).is_err());
    assert!(states.accept(now, &frame).is_err() || states.accept(now, &frame).is_err());
    format!(
        "{:?} {:?} {:?} {:?}",
        command::decode(&frame, identity(1)).err(),
        state::decode(&frame, identity(2)).err(),
        picture::decode(&frame, identity(3)).err(),
        event::decode(&frame, identity(4)).err(),
    )
}

/// Words that a file of ours may hold, in places where they do not belong, and numbers that are none.
const WORDS: [&str; 64] = [
    "nan",
    "-inf",
    "+inf",
    "1e999",
    "-0.0",
    "5e-324",
    "0",
    "-1",
    "18446744073709551616",
    "9223372036854775807",
    "1e308",
    "0x7f",
    "\"\"",
    "\"../..\"",
    "\"\\u0000\"",
    "[]",
    "[[",
    "{}",
    "{",
    "}",
    "]",
    "true",
    "null",
    "''",
    "\"\"\"",
    "#",
    "\n",
    "\n\n[joints]\n",
    "[[joints]]",
    "[space]",
    "[governor]",
    "name = ",
    "kind = \"gripper\"",
    "= ",
    ".",
    ",",
    ":",
    "<link ",
    "<joint ",
    "</robot>",
    "<!DOCTYPE a [<!ENTITY b \"c\">]>",
    "&b;",
    "<!--",
    "<mimic joint=\"",
    "<parent link=\"",
    "name=\"",
    "type=\"planar\"",
    "xyz=\"1 2\"",
    "rpy=\"nan 0 0\"",
    "1979-05-27",
    "\u{feff}",
    "\u{202e}",
    "\u{0}",
    "ä",
    "tendon",
    "schema",
    "stages",
    "image",
    "action",
    "sha256",
    "parity",
    "jerk_max",
    "velocity_max",
    "position_min",
];

/// Where the next run of such bytes begins and ends, from `at` on.
fn run_of(text: &[u8], at: usize, is: impl Fn(u8) -> bool) -> Option<(usize, usize)> {
    let start = at + text.get(at..)?.iter().position(|byte| is(*byte))?;
    let rest = text[start..].iter().position(|byte| !is(*byte));
    Some((start, rest.map_or(text.len(), |length| start + length)))
}

/// The text after a script of edits, six bytes each: what, where (two), how long, which word (two).
fn edited(text: &str, script: &[u8]) -> String {
    let mut text = text.as_bytes().to_vec();
    for edit in script.chunks_exact(6) {
        let place = usize::from(u16::from_le_bytes([edit[1], edit[2]]));
        let at = place * (text.len() + 1) / 65_536;
        let end = (at + usize::from(edit[3])).min(text.len());
        let word = WORDS[usize::from(edit[4]) % WORDS.len()].as_bytes();
        let other = usize::from(edit[5]) * (text.len() + 1) / 256;
        let line = |at: usize| {
            let start = text[..at]
                .iter()
                .rposition(|b| *b == b'\n')
                .map_or(0, |n| n + 1);
            let end = text[at..]
                .iter()
                .position(|b| *b == b'\n')
                .map_or(text.len(), |n| at + n + 1);
            (start, end)
        };
        let number = |byte: u8| byte.is_ascii_digit() || b"+-.eE_".contains(&byte);
        let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match edit[0] % 9 {
            0 => drop(text.drain(at..end)),
            1 => drop(text.splice(at..at, word.iter().copied())),
            2 | 3 => {
                if let Some((start, end)) = run_of(&text, at, number) {
                    text.splice(start..end, word.iter().copied());
                }
            }
            4 => {
                let (start, end) = line(at);
                let copy = text[start..end].to_vec();
                let (to, _) = line(other);
                text.splice(to..to, copy);
            }
            5 => {
                let (start, end) = line(at);
                text.drain(start..end);
            }
            6 => text.insert(at, edit[4]),
            7 => {
                if let Some((start, end)) = run_of(&text, at, letter) {
                    text.splice(start..end, word.iter().copied());
                }
            }
            _ => text.truncate(at),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Refused in words: every problem says where, what was expected and what was found. Returns what was expected.
fn outcome<T>(result: Result<T, Vec<Problem>>) -> String {
    let Err(problems) = result else {
        return "taken".into();
    };
    assert!(!problems.is_empty(), "refused without a reason");
    for problem in &problems {
        let Problem {
            at,
            expected,
            found,
        } = problem;
        assert!(
            !at.is_empty() && !expected.is_empty() && !found.is_empty(),
            "{problem:?}"
        );
    }
    problems[0]
        .expected
        .replace(|c: char| c.is_ascii_digit(), "")
}

macro_rules! shipped {
    ($path:literal) => {
        include_str!(concat!("../../../", $path))
    };
}
const TENDON: &str = shipped!("deploy/bench/tendon.toml");
const ROBOT: &str = shipped!("deploy/bench/robot.toml");
const URDF: &str = shipped!("deploy/bench/robot.urdf");
const ROBOTS: [&str; 6] = [
    ROBOT,
    shipped!("deploy/franka-fr3/robot.toml"),
    shipped!("deploy/so-101/robot.toml"),
    shipped!("deploy/ur5e/robot.toml"),
    shipped!("deploy/viperx-300s/robot.toml"),
    shipped!("deploy/xarm6/robot.toml"),
];
const URDFS: [&str; 2] = [URDF, shipped!("tests/urdf/odd.urdf")];
const MANIFEST: &str = shipped!("engines/bench-vla/manifest.json");

/// What is taken can be governed.
fn config(tendon: &str, robot: &str, urdf: &str) -> String {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/bench"));
    outcome(
        Config::from_texts(tendon, robot, urdf, folder).map(|config| {
            let joints = config.robot.joints.len();
            assert!(joints > 0 && joints == config.limits.joints.len());
            assert!(Governor::new(config.limits).is_ok());
        }),
    )
}

fn deployment(script: &[u8]) -> String {
    config(&edited(TENDON, script), ROBOT, URDF)
}

fn robot(input: &[u8]) -> String {
    let (which, script) = input.split_first().unwrap_or((&0, &[]));
    config(
        TENDON,
        &edited(ROBOTS[usize::from(*which) % ROBOTS.len()], script),
        URDF,
    )
}

fn description(input: &[u8]) -> String {
    let (which, script) = input.split_first().unwrap_or((&0, &[]));
    let text = edited(URDFS[usize::from(*which) % URDFS.len()], script);
    outcome(urdf::read("robot.urdf", &text)) + &config(TENDON, ROBOT, &text)
}

fn manifest(script: &[u8]) -> String {
    outcome(bundle::read(edited(MANIFEST, script).as_bytes()))
}

/// The same readers with no file to start from.
fn anything(input: &[u8]) -> String {
    let text = String::from_utf8_lossy(input);
    config(&text, ROBOT, URDF)
        + &config(TENDON, &text, URDF)
        + &outcome(urdf::read("robot.urdf", &text))
        + &outcome(bundle::read(input))
}

/// Name, reader, longest input, and inputs in the ordinary test.
type Target = (&'static str, fn(&[u8]) -> String, usize, usize);
const TARGETS: [Target; 6] = [
    ("wire", read_frame, 1_200, 200_000),
    ("deployment", deployment, 60, 10_000),
    ("robot", robot, 61, 10_000),
    ("description", description, 61, 5_000),
    ("manifest", manifest, 60, 5_000),
    ("anything", anything, 400, 10_000),
];

#[test]
fn fuzz_wire() {
    let (name, read, length, inputs) = TARGETS[0];
    assert_eq!(name, "wire");
    bolero::check!(name = "wire")
        .with_iterations(inputs)
        .with_max_len(length)
        .for_each(|input: &[u8]| drop(read(input)));
}

#[test]
fn fuzz_deployment() {
    let (name, read, length, inputs) = TARGETS[1];
    assert_eq!(name, "deployment");
    bolero::check!(name = "deployment")
        .with_iterations(inputs)
        .with_max_len(length)
        .for_each(|input: &[u8]| drop(read(input)));
}

#[test]
fn fuzz_robot() {
    let (name, read, length, inputs) = TARGETS[2];
    assert_eq!(name, "robot");
    bolero::check!(name = "robot")
        .with_iterations(inputs)
        .with_max_len(length)
        .for_each(|input: &[u8]| drop(read(input)));
}

#[test]
fn fuzz_description() {
    let (name, read, length, inputs) = TARGETS[3];
    assert_eq!(name, "description");
    bolero::check!(name = "description")
        .with_iterations(inputs)
        .with_max_len(length)
        .for_each(|input: &[u8]| drop(read(input)));
}

#[test]
fn fuzz_manifest() {
    let (name, read, length, inputs) = TARGETS[4];
    assert_eq!(name, "manifest");
    bolero::check!(name = "manifest")
        .with_iterations(inputs)
        .with_max_len(length)
        .for_each(|input: &[u8]| drop(read(input)));
}

#[test]
fn fuzz_anything() {
    let (name, read, length, inputs) = TARGETS[5];
    assert_eq!(name, "anything");
    bolero::check!(name = "anything")
        .with_iterations(inputs)
        .with_max_len(length)
        .for_each(|input: &[u8]| drop(read(input)));
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/__fuzz__")
        .join(name)
        .join("corpus")
}

/// The corpus reaches what it was collected for: for each reader what is taken, and many different refusals.
#[test]
fn the_corpus_reaches_many_ends() {
    for (name, read, _, _) in TARGETS {
        let files = std::fs::read_dir(corpus(name)).expect("a corpus");
        let ends: BTreeSet<String> = files
            .map(|file| read(&std::fs::read(file.expect("an entry").path()).expect("bytes")))
            .collect();
        println!("{name}: {} ends", ends.len());
        assert!(ends.len() >= 6, "{name}: {ends:?}");
        assert!(
            name == "anything"
                || ends
                    .iter()
                    .any(|end| end.contains("taken") || end.contains("None")),
            "{name}"
        );
    }
}

/// Collects the corpus anew: of random inputs one for each end that they come to.
#[test]
#[ignore = "writes the corpus"]
fn collect() {
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = move || {
        dice ^= dice >> 12;
        dice ^= dice << 25;
        dice ^= dice >> 27;
        dice.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    };
    for (name, read, length, _) in TARGETS {
        let _ = std::fs::remove_dir_all(corpus(name));
        std::fs::create_dir_all(corpus(name)).expect("a folder");
        let mut ends = BTreeSet::new();
        if name == "anything" {
            let texts = ROBOTS.into_iter().chain(URDFS).chain([TENDON, MANIFEST]);
            for (n, text) in texts.enumerate() {
                std::fs::write(corpus(name).join(format!("text{n}")), text)
                    .expect("can be written");
            }
        }
        for _ in 0..20_000 {
            let length = 1 + roll() as usize % length.min(61);
            let input: Vec<u8> = (0..length).map(|_| roll() as u8).collect();
            if ends.insert(read(&input)) && ends.len() <= 80 {
                let file = corpus(name).join(format!("{:02}", ends.len()));
                std::fs::write(file, input).expect("can be written");
            }
        }
    }
}
