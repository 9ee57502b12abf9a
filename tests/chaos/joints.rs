// SPDX-License-Identifier: Apache-2.0
//! A robot of any number of joints: a policy that is made here, a motor controller in a thread of ours, pictures from a
//! folder. The policy follows the picture's brightness, which comes and goes, so that all joints always move.

use crate::canary::Canary;
use crate::stage::{ROBOT, connect, free_endpoint, runtime};
use crate::stage::{Setting, ms, until};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use tendon::config::Config;
use tendon::core::governor::limits::Joint;
use tendon::core::observation::JointState;
use tendon::core::units::MS;
use tendon::core::wire::state::STATE_LEN_MAX;
use tendon::link::motor::{self, Motor};
use tendon::link::robot_end::RobotEnd;
use tendon::link::{keys, operator_end};
use tendon::runtime::deployment::Identities;
use tendon::runtime::{clock, demo};
use zenoh::Session;

/// What its camera sees, width and height, and actions of a chunk.
const PICTURE: [usize; 2] = [40, 32];
const ACTIONS: usize = 16;

/// A field of a protobuf message that has a length.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2][..], &varint(bytes.len()), bytes].concat()
}

/// A field that is a number.
fn number(field: u8, value: usize) -> Vec<u8> {
    [&[field << 3][..], &varint(value)].concat()
}

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 128 {
        bytes.push(value as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// An initializer: ONNX's `TensorProto` of floats (1) or 64-bit integers (7).
fn tensor(name: &str, shape: &[usize], kind: usize, raw: &[u8]) -> Vec<u8> {
    let mut all: Vec<u8> = shape.iter().flat_map(|side| number(1, *side)).collect();
    all.extend([number(2, kind), field(8, name.as_bytes()), field(9, raw)].concat());
    field(5, &all)
}

fn floats(name: &str, shape: &[usize], value: impl Fn(usize) -> f32) -> Vec<u8> {
    let values = (0..shape.iter().product()).flat_map(|at| value(at).to_le_bytes());
    tensor(name, shape, 1, &values.collect::<Vec<u8>>())
}

fn shape(name: &str, sides: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = sides.iter().flat_map(|side| side.to_le_bytes()).collect();
    tensor(name, &[sides.len()], 7, &raw)
}

fn node(kind: &str, inputs: [&str; 2], output: &str) -> Vec<u8> {
    let [a, b] = inputs.map(|name| field(1, name.as_bytes()));
    let rest = [field(2, output.as_bytes()), field(4, kind.as_bytes())].concat();
    field(1, &[a, b, rest].concat())
}

/// An input (11) or output (12) of a graph, of floats.
fn value(place: u8, name: &str, sides: &[usize]) -> Vec<u8> {
    let each = sides.iter().flat_map(|side| field(1, &number(1, *side)));
    let shape = field(2, &each.collect::<Vec<u8>>());
    let kind = field(1, &[number(1, 1), shape].concat());
    field(
        place,
        &[field(1, name.as_bytes()), field(2, &kind)].concat(),
    )
}

/// How far joint `at` goes for a picture whose values have a mean of one.
fn gain(at: usize) -> f32 {
    0.2 * if at.is_multiple_of(2) { 1.0 } else { -0.7 }
}

/// action[step][joint] = gain[joint] * mean(picture) + 0 * joints, and the same at each step.
fn graph(joints: usize) -> Vec<u8> {
    let [width, height] = PICTURE;
    let values = width * height * 3;
    let parts = [
        node("Reshape", ["picture", "flat"], "row"),
        node("MatMul", ["row", "mean"], "light"),
        node("MatMul", ["light", "gain"], "goal"),
        node("MatMul", ["joints", "nothing"], "none"),
        node("Add", ["goal", "none"], "sum"),
        node("Reshape", ["sum", "one"], "step"),
        node("Add", ["step", "still"], "action"),
        field(2, b"joints"),
        shape("flat", &[1, values as i64]),
        shape("one", &[1, 1, joints as i64]),
        floats("mean", &[values, 1], |_| 1.0 / values as f32),
        floats("gain", &[1, joints], gain),
        floats("nothing", &[joints, joints], |_| 0.0),
        floats("still", &[1, ACTIONS, joints], |_| 0.0),
        value(11, "picture", &[1, 3, height, width]),
        value(11, "joints", &[1, joints]),
        value(12, "action", &[1, ACTIONS, joints]),
    ];
    let opset = field(8, &number(2, 17));
    [number(1, 8), opset, field(7, &parts.concat())].concat()
}

/// Noise around a brightness, of 0 to 255.
fn picture(light: u8, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let noise = (0..PICTURE[0] * PICTURE[1]).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        light.saturating_add((state >> 26) as u8)
    });
    noise.flat_map(|grey| [grey; 3]).collect()
}

const SCALE: f32 = 1.0 / 255.0;
const MEAN: f32 = 0.5;
const STD: f32 = 0.25;

fn fixture(joints: usize) -> Vec<u8> {
    let frames = 4_usize;
    let (mut pictures, mut actions) = (Vec::new(), Vec::new());
    for frame in 0..frames {
        let rgb = picture(20 + 50 * frame as u8, frame as u32 * 77);
        let mean = |rgb: &[u8]| {
            let sum: f64 = rgb.iter().map(|byte| f64::from(*byte)).sum();
            (sum / rgb.len() as f64 * f64::from(SCALE) - f64::from(MEAN)) / f64::from(STD)
        };
        let light = mean(&rgb) as f32;
        actions
            .extend((0..ACTIONS * joints).flat_map(|at| (gain(at % joints) * light).to_le_bytes()));
        pictures.extend(rgb);
    }
    let [width, height] = PICTURE;
    let tensors = [
        ("action", "F32", vec![frames, ACTIONS, joints], actions),
        (
            "camera.front",
            "U8",
            vec![frames, height, width, 3],
            pictures,
        ),
        (
            "state",
            "F32",
            vec![frames, joints],
            vec![0; frames * joints * 4],
        ),
    ];
    let mut head = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let begins = data.len();
        data.extend(bytes);
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [begins, data.len()]});
        head.insert(name.to_owned(), entry);
    }
    let head = serde_json::to_vec(&head).expect("JSON");
    [&(head.len() as u64).to_le_bytes()[..], &head, &data].concat()
}

fn names(joints: usize) -> Vec<String> {
    (0..joints).map(|at| format!("joint_{at}")).collect()
}

/// Writes the bundle.
fn bundle(folder: &Path, joints: usize) {
    std::fs::create_dir(folder).expect("a folder");
    let files = [
        ("net.onnx", graph(joints)),
        (
            "parity.json",
            br#"{"sentences": ["", "", "", ""]}"#.to_vec(),
        ),
        ("parity.safetensors", fixture(joints)),
    ];
    let mut hashes = BTreeMap::new();
    for (name, bytes) in &files {
        let hash = Sha256::digest(bytes);
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        hashes.insert(*name, hash);
        std::fs::write(folder.join(name), bytes).expect("written");
    }
    let [width, height] = PICTURE;
    let (names, units) = (names(joints), vec!["rad"; joints]);
    let f32_of = |shape: &[usize]| serde_json::json!({"dtype": "f32", "shape": shape});
    let from = |shape: &[usize], from: &str| serde_json::json!({"dtype": "f32", "shape": shape, "from": from});
    let manifest = serde_json::json!({
        "format": "policy_package",
        "version": "1.0",
        "policy": {"name": "joints", "source": {"repo_id": "", "class_path": ""}},
        "model": {"n_obs_steps": 1, "artifacts": {"net": "net.onnx"}},
        "tendon": {
            "schema": 2,
            "family": "joints",
            "cameras": [{
                "role": "front",
                "source_size": PICTURE,
                "levels": [{"scale": SCALE, "mean": ([MEAN; 3]), "std": ([STD; 3])}],
            }],
            "stages": [{
                "id": "net",
                "onnx": {"fp32": "net.onnx"},
                "inputs": {
                    "picture": from(&[1, 3, height, width], "camera.front"),
                    "joints": from(&[1, joints], "state"),
                },
                "outputs": {"action": f32_of(&[1, ACTIONS, joints])},
            }],
            "decoder": {"kind": "regression", "from": "net.action", "window": {"width": joints}},
            "state": {"names": names, "units": units},
            "action": {"names": names, "units": units, "horizon": ACTIONS, "period_ms": 25.0, "first_step_ms": 25.0},
            "timing": {"infer_hz": 10.0, "deadline_ms": 50.0, "max_observation_age_ms": 200.0},
            "parity": {"file": "parity.safetensors", "sentences": "parity.json", "frames": 4, "cosine_min": 0.9999, "error_max_fraction": 1e-4},
            "sha256": hashes,
        },
    });
    let text = serde_json::to_string_pretty(&manifest).expect("JSON");
    std::fs::write(folder.join("manifest.json"), text).expect("written");
}

fn robot_toml(joints: usize) -> String {
    let each = names(joints).into_iter().map(|name| {
        format!(
            "[[joint]]\nname = \"{name}\"\nkind = \"revolute\"\nposition_min_rad = -1.0\nposition_max_rad = 1.0\n\
             velocity_max_rad_s = 2.5\nacceleration_max_rad_s2 = 15.0\njerk_max_rad_s3 = 1500.0\ntracking_error_max_rad = 0.2\n\n"
        )
    });
    format!("name = \"{ROBOT}\"\n\n{}", each.collect::<String>())
}

fn tendon_toml(endpoint: &str, page: u16) -> String {
    let [width, height] = PICTURE;
    format!(
        "robot = \"robot.toml\"\n\n[policy]\nbundle = \"bundle\"\nprecision = \"fp32\"\nrate_hz = 10.0\n\n[link]\nlisten = \"{endpoint}\"\n\n\
         [camera]\nname = \"front\"\nwidth = {width}\nheight = {height}\nage_max_ms = 500\nsource = \"images\"\npath = \"pictures\"\nrate_hz = 30\n\
         noisy = false\n\n[control]\nhz = 200.0\nstate_age_max_ms = 25\n\n[schedule]\nmerge = \"blend\"\nblend_ms = 100\nstart_ms = 400\n\n\
         [page]\nlisten = \"127.0.0.1:{page}\"\n"
    )
}

/// The motor controller, whose servos do what they are told.
fn motor(
    session: &Session,
    named: &[(String, Joint)],
    ranges: Arc<Mutex<Vec<[f64; 2]>>>,
    ending: Arc<AtomicBool>,
) -> JoinHandle<()> {
    let ids = Identities::of(ROBOT, named);
    let joints: Vec<_> = named.iter().map(|(_, joint)| *joint).collect();
    let count = joints.len();
    let settings = motor::Settings {
        commands: ids.commands,
        states: ids.states,
        joints,
        period_ns: 5 * MS,
        boot_id: 7,
    };
    let end = RobotEnd::new(session, ROBOT).expect("the robot's end");
    std::thread::spawn(move || {
        let mut motor = Motor::new(settings, &vec![0.0; count]);
        let (mut buffer, mut at) = ([0; STATE_LEN_MAX], clock::now());
        while !ending.load(Ordering::Relaxed) {
            at = at.plus_ns(5 * MS).max(clock::now().minus_ns(5 * MS));
            clock::sleep_until(at);
            let now = clock::now();
            while let Ok(frame) = end.commands.try_recv() {
                // Refusals are counted in its reports.
                let _ = motor.on_command(now, &frame);
            }
            let target = motor.step(now, 5 * MS);
            let mut seen = ranges.lock().unwrap_or_else(PoisonError::into_inner);
            for ([least, most], q) in seen.iter_mut().zip(target.position) {
                (*least, *most) = (least.min(q), most.max(q));
            }
            drop(seen);
            let mut measured = JointState {
                joints: count,
                measured: now,
                ..JointState::NEVER
            };
            measured.position = target.position;
            measured.velocity = target.velocity;
            if let Some(length) = motor.report(&measured, &mut buffer) {
                end.send_state(&buffer[..length]);
            }
        }
        assert_eq!(motor.limit_violations(), 0, "commands beyond the limits");
    })
}

/// The runtime as a process, with all around it.
pub struct Robot {
    pub runtime: Child,
    pub canary: Canary,
    /// From its start to its first answer.
    pub ready_ms: f64,
    folder: tempfile::TempDir,
    ranges: Arc<Mutex<Vec<[f64; 2]>>>,
    ending: Arc<AtomicBool>,
    motor: Option<JoinHandle<()>>,
    _session: Session,
}

impl Robot {
    /// Armed, and following.
    pub fn new(joints: usize, page: u16) -> Robot {
        let folder = tempfile::tempdir().expect("a folder");
        let endpoint = free_endpoint();
        let (robot, tendon) = (robot_toml(joints), tendon_toml(&endpoint, page));
        let write = |name: &str, text: &[u8]| {
            std::fs::write(folder.path().join(name), text).expect("written");
        };
        write("robot.toml", robot.as_bytes());
        write("tendon.toml", tendon.as_bytes());
        bundle(&folder.path().join("bundle"), joints);
        std::fs::create_dir(folder.path().join("pictures")).expect("a folder");
        for n in 0..60_u32 {
            // There and back in two seconds.
            let share = (f64::from(n) / 60.0 * std::f64::consts::TAU).sin();
            let rgb = picture((90.0 + 60.0 * share) as u8, n);
            let path = folder.path().join(format!("pictures/{n:03}.jpg"));
            let encoder = jpeg_encoder::Encoder::new_file(path, 90).expect("a file");
            let [width, height] = PICTURE.map(|side| side as u16);
            encoder
                .encode(&rgb, width, height, jpeg_encoder::ColorType::Rgb)
                .expect("encoded");
        }
        let spawned = clock::now();
        let started = runtime(
            &folder.path().join("tendon.toml"),
            &folder.path().join("state"),
            &Setting::default(),
        );
        let mut started = started;
        let child = started.spawn().expect("the runtime starts");
        let session = connect(&endpoint);
        let parts = Config::bench_parts(&tendon, &robot).expect("files of ours");
        let ending = Arc::new(AtomicBool::new(false));
        let ranges = Arc::new(Mutex::new(vec![[0.0; 2]; joints]));
        let (seen, ends) = (Arc::clone(&ranges), Arc::clone(&ending));
        let motor = motor(&session, &parts.robot.joints, seen, ends);
        let ask = |key: fn(&str) -> String, text: &str| {
            operator_end::ask(&session, &key(ROBOT), text).map_err(|error| error.to_string())
        };
        until("an answer", || ask(keys::mode, "status").is_ok());
        let ready_ms = ms(clock::now().since_ns(spawned));
        until("a sentence", || {
            ask(keys::instruction, "follow the light").is_ok()
        });
        let deadline = clock::now().plus_ns(10_000 * MS);
        while let Err(refused) = ask(keys::mode, "active") {
            assert!(clock::now() < deadline, "not armed: {refused}");
            demo::pause(50);
        }
        Robot {
            runtime: child,
            canary: Canary::start(),
            ready_ms,
            folder,
            ranges,
            ending,
            motor: Some(motor),
            _session: session,
        }
    }

    /// How far each joint has gone, rad.
    pub fn travels_rad(&self) -> Vec<f64> {
        let ranges = self.ranges.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.iter().map(|[least, most]| most - least).collect()
    }

    /// The page's address, as it was told.
    pub fn page(&self) -> String {
        let out = std::fs::read_to_string(self.folder.path().join("runtime.out"));
        let out = out.unwrap_or_default();
        let line = out
            .lines()
            .find_map(|line| line.strip_prefix("Watch and instruct: "));
        line.expect("a page").to_owned()
    }
}

impl Drop for Robot {
    fn drop(&mut self) {
        drop(self.runtime.kill());
        drop(self.runtime.wait());
        self.ending.store(true, Ordering::Relaxed);
        let ended = self.motor.take().map(JoinHandle::join);
        assert!(
            ended.is_none_or(|ended| ended.is_ok()) || std::thread::panicking(),
            "the motor controller"
        );
    }
}
