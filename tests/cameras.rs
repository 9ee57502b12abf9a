// SPDX-License-Identifier: Apache-2.0
//! Cameras as a user meets them: chosen in tendon.toml, looked at with `tendon cameras`, and broken while the robot
//! moves.

#[path = "policy/on_bench.rs"]
mod on_bench;
#[cfg(feature = "v4l")]
#[path = "capture/preload.rs"]
mod preload;

use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tendon::config::Config;
use tendon::config::link::LinkConfig;
use tendon::core::wire::command as wire;
use tendon::link::runtime_end::subscribe;
use tendon::link::{keys, session};
use tendon::policy::folder::hash;
use tendon::runtime::demo;
use tendon::runtime::deployment::Identities;

const LINK: &str = "[camera]\nname = \"front\"\nwidth = 224\nheight = 224\nage_max_ms = 150\n";
const SIDE: usize = 224;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tendon"));
    command
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null());
    command
}

fn tendon(arguments: &[&str]) -> (Option<i32>, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command(arguments).output().expect("tendon runs");
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    (status.code(), said)
}

/// The bench's deployment on a free port, with `cameras` instead of its camera.
struct Folder {
    folder: tempfile::TempDir,
    endpoint: String,
}

impl Folder {
    fn new(cameras: &str) -> Folder {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().expect("a folder");
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("tcp/{}", socket.local_addr().expect("an address"));
        drop(socket);
        let written =
            std::fs::read_to_string(root.join("deploy/bench/tendon.toml")).expect("there");
        assert!(written.contains(LINK), "the bench's camera is another one");
        let written = written
            .replace("../../engines", &root.join("engines").display().to_string())
            .replace(
                "tcp/127.0.0.1:7447\"\n\n[camera]",
                &format!("{endpoint}\"\n\n[camera]"),
            )
            .replace("[page]\nlisten = \"127.0.0.1:8765\"", "")
            // What is shown here is often no scene that the policy could be sure of; these stories are about cameras.
            .replace("doubt_max = 0.5\n", "")
            .replace(LINK, cameras);
        std::fs::write(folder.path().join("tendon.toml"), written).expect("written");
        for file in ["robot.toml", "robot.urdf"] {
            std::fs::copy(
                root.join("deploy/bench").join(file),
                folder.path().join(file),
            )
            .expect("copied");
        }
        Folder { folder, endpoint }
    }

    fn config(&self) -> String {
        self.folder.path().join("tendon.toml").display().to_string()
    }

    /// For a bench robot whose camera is not called as its own is.
    fn bench_config(&self) -> PathBuf {
        self.folder.path().join("bench.toml")
    }

    /// Pictures of a scene that moves, as JPEG files.
    fn pictures(&self, name: &str, good: bool) {
        self.pictures_of(name, [SIDE, SIDE], good);
    }

    fn pictures_of(&self, name: &str, size: [usize; 2], good: bool) {
        self.drawn(name, size, |x, y, bar| match good {
            true => [50 + x / 2 + bar, 60 + y / 2, 150 - x / 4],
            false => [0; 3],
        });
    }

    /// Another scene than that of [`Folder::pictures`].
    fn other_pictures(&self, name: &str) {
        self.drawn(name, [SIDE, SIDE], |x, y, bar| {
            [170 - x / 2, 60 + bar, 180 - y / 2]
        });
    }

    /// Pictures of what stands at `x`, `y` (of [`SIDE`]), beside a bar that wanders.
    fn drawn(
        &self,
        name: &str,
        [width, height]: [usize; 2],
        scene: impl Fn(usize, usize, usize) -> [usize; 3],
    ) {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).expect("made");
        let mut noise = 0x2545_F491_4F6C_DD1D_u64;
        for n in 0..8 {
            let mut rgb = Vec::with_capacity(width * height * 3);
            for at in 0..width * height {
                let (x, y) = (at % width * SIDE / width, at / width * SIDE / height);
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                let grain = (noise >> 33) as usize % 4;
                let bar = usize::from((x + 12 * n) % SIDE < 30) * 60;
                rgb.extend(scene(x, y, bar).map(|value| (value + grain) as u8));
            }
            let mut bytes = Vec::new();
            jpeg_encoder::Encoder::new(&mut bytes, 95)
                .encode(
                    &rgb,
                    width as u16,
                    height as u16,
                    jpeg_encoder::ColorType::Rgb,
                )
                .expect("encodes");
            std::fs::write(folder.join(format!("{n}.jpg")), bytes).expect("written");
        }
    }
}

/// The runtime of a folder.
fn runtime(folder: &Folder) -> Command {
    let mut run = command(&["run", "--config", &folder.config()]);
    run.env("STATE_DIRECTORY", folder.folder.path().join("state"))
        .stdout(Stdio::null());
    run
}

/// The bench robot of a folder, and what it takes words on.
fn bench_robot(folder: &Folder) -> (Child, ChildStdin) {
    let mut bench = command(&["bench-robot", "--stdin", "--connect", &folder.endpoint]);
    let own = folder.bench_config();
    if own.exists() {
        bench.arg("--config").arg(own);
    }
    let bench = bench.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut bench = bench.expect("the bench robot starts");
    let camera = bench.stdin.take().expect("piped");
    (bench, camera)
}

/// Runtime and bench robot of a folder.
struct Stage {
    folder: Folder,
    runtime: Child,
    bench: Child,
    camera: ChildStdin,
}

impl Stage {
    fn new(folder: Folder) -> Stage {
        Stage::with(folder, |_| {})
    }

    /// With what `more` adds to the runtime's command.
    fn with(folder: Folder, more: impl FnOnce(&mut Command)) -> Stage {
        let mut run = runtime(&folder);
        more(&mut run);
        let runtime = run.spawn().expect("the runtime starts");
        let (bench, camera) = bench_robot(&folder);
        Stage {
            folder,
            runtime,
            bench,
            camera,
        }
    }

    fn say(&self, verb: &str, text: &str) -> (Option<i32>, String) {
        tendon(&[verb, text, "--connect", &self.folder.endpoint])
    }

    /// Ends the runtime as a service manager does, and starts it anew.
    fn start_anew(&mut self) {
        self.start_anew_after(|_| {});
    }

    /// The same, with something done between the two.
    fn start_anew_after(&mut self, between: impl FnOnce(&mut Stage)) {
        end(self.runtime.id(), Signal::TERM);
        drop(self.runtime.wait());
        between(self);
        self.runtime = runtime(&self.folder).spawn().expect("the runtime starts");
    }

    /// Its inference process, another one than `before`.
    fn inference(&self, before: u32) -> u32 {
        let began = Instant::now();
        loop {
            let said = Command::new("pgrep")
                .args(["--parent", &self.runtime.id().to_string()])
                .output();
            let said = String::from_utf8(said.expect("pgrep").stdout).expect("numbers");
            let mut pids = said.lines().map(|line| line.parse().expect("a number"));
            if let Some(pid) = pids.find(|pid| *pid != before) {
                return pid;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "no process");
        }
    }

    /// The two cameras of [`exchangeable`] change places.
    fn exchange(&self) {
        let [front, side, between] =
            ["front", "side", "between"].map(|name| self.folder.folder.path().join(name));
        for (from, to) in [(&front, &between), (&side, &front), (&between, &side)] {
            std::fs::rename(from, to).expect("renamed");
        }
    }

    fn break_camera(&mut self, fault: &str) {
        writeln!(self.camera, "{fault}").expect("the bench listens");
    }

    /// Asks until the mode starts with `words`; tells how long it took, or that a crowded machine stopped the robot first.
    fn becomes(&self, words: &str) -> Result<Duration, String> {
        let began = Instant::now();
        loop {
            let (_, said) = self.say("mode", "status");
            if said.starts_with(words) {
                return Ok(began.elapsed());
            }
            let crowded = [
                "does not echo",
                "is late",
                "state was lost",
                "refuses our commands",
            ];
            if crowded.iter().any(|cause| said.contains(cause)) && !said.contains("pictures") {
                return Err(said);
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "not {words}: {said}"
            );
        }
    }

    #[track_caller]
    fn until_it_is(&self, words: &str) -> Duration {
        self.becomes(words)
            .unwrap_or_else(|said| panic!("not {words}: {said}"))
    }

    /// Breaks the camera and mends it; how long until the robot held, and until it went on. Again after a stop that only
    /// the machine is to blame for: it runs other things beside these tests.
    fn strike(&mut self, fault: &str, words: &str) -> (Duration, Duration) {
        for _ in 0..10 {
            self.break_camera(fault);
            let held = self.becomes(words);
            self.break_camera("none");
            match held.and_then(|held| Ok((held, self.becomes("active")?))) {
                Ok(took) => return took,
                Err(said) => println!("{fault}: again, as the machine was late: {said}"),
            }
            self.arm_again();
        }
        panic!("{fault}: ten times the machine was too late");
    }

    #[track_caller]
    fn until_granted(&self, verb: &str, text: &str) {
        let began = Instant::now();
        loop {
            let (code, said) = self.say(verb, text);
            if code == Some(0) {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{verb} {text}: {said}"
            );
        }
    }

    /// From wherever it stopped.
    fn arm_again(&self) {
        let began = Instant::now();
        while self.say("mode", "active").0 != Some(0) {
            // Refused when there is nothing to reset.
            self.say("mode", "reset");
            assert!(began.elapsed() < Duration::from_secs(30), "not armed again");
        }
    }

    /// It follows the policy, armed again if the machine was late.
    fn stays_active(&self) {
        while self.becomes("active").is_err() {
            self.arm_again();
        }
    }

    fn arm(&self) {
        self.until_granted("instruct", "touch the red block");
        self.until_granted("mode", "active");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in [&mut self.runtime, &mut self.bench] {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

#[test]
fn each_fault_of_the_camera_holds_the_robot_under_its_name_and_ends_with_it() {
    let mut stage = Stage::new(Folder::new(LINK));
    stage.arm();
    let rows = [
        ("off", "holding: the camera gives no usable picture"),
        ("stuck", "holding: the camera repeats one picture"),
        ("black", "holding: the camera's pictures are black"),
        ("saturated", "holding: the camera's pictures are black"),
        ("uniform", "holding: the camera's pictures are black"),
        ("noise", "holding: the camera's pictures are noise"),
        ("torn", "holding: the camera's pictures are noise"),
        ("short", "holding: the camera's pictures are noise"),
        ("late", "holding: the camera's pictures come too late"),
        ("backwards", "holding: the camera's times run backwards"),
        ("future", "holding: the camera's times run backwards"),
    ];
    for (fault, words) in rows {
        let (held, resumed) = stage.strike(fault, words);
        println!(
            "{fault}: held, as seen from outside, after {held:.1?}, active again after {resumed:.1?}"
        );
    }
    // Another view where the camera was: only a person knows whether that is well.
    stage.stays_active();
    stage.break_camera("swapped");
    stage.until_it_is("stopped: the camera shows another view");
    stage.break_camera("none");
    let (code, said) = stage.say("mode", "active");
    assert_eq!(code, Some(1), "{said}");
    stage.until_granted("mode", "reset");
    stage.arm_again();
}

const IMAGES: &str = "name = \"front\"\nsource = \"images\"\npath = \"front\"\nrate_hz = 30\nwidth = 224\nheight = 224\n\
                      age_max_ms = 150\n";

#[test]
fn a_folder_of_pictures_is_a_camera() {
    let folder = Folder::new(&format!("[camera]\n{IMAGES}"));
    folder.pictures("front", true);
    let (code, said) = tendon(&[
        "cameras",
        "--config",
        &folder.config(),
        "--seconds",
        "1.5",
        "--json",
    ]);
    assert_eq!(code, Some(0), "{said}");
    let seen: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let camera = &seen["cameras"][0];
    assert_eq!(camera["source"], "images", "{said}");
    assert_eq!(camera["stamped"], "not said", "{said}");
    assert_eq!(camera["counts"]["flagged"], 0, "{said}");
    assert!(camera["good"].as_u64() > Some(15), "{said}");
    assert_eq!(camera["refused"], serde_json::json!({}), "{said}");
    let stage = Stage::new(folder);
    stage.arm();
    stage.stays_active();
}

fn end(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().expect("small"));
    kill_process(pid.expect("a process"), signal).expect("sent");
}

/// Two cameras that show different things.
fn exchangeable() -> Folder {
    let side = IMAGES.replace("\"front\"", "\"side\"");
    let folder = Folder::new(&format!("[[camera]]\n{IMAGES}\n[[camera]]\n{side}"));
    folder.pictures("front", true);
    folder.other_pictures("side");
    folder
}

#[test]
fn cameras_that_were_exchanged_since_the_last_arming_arm_nothing_before_a_person_has_said_that_they_are_right()
 {
    let mut stage = Stage::new(exchangeable());
    stage.arm();
    stage.stays_active();
    stage.exchange();
    stage.start_anew();
    stage.until_granted("instruct", "touch the red block");
    let refused = |stage: &Stage| {
        let began = Instant::now();
        loop {
            let (code, said) = stage.say("mode", "active");
            assert_eq!(code, Some(1), "{said}");
            if said.contains(
                "camera \"front\" shows what \"side\" showed when the robot was last armed",
            ) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "{said}");
        }
    };
    refused(&stage);
    // Put right: nothing to say.
    stage.exchange();
    stage.start_anew();
    stage.arm();
    // They are to be so from now on.
    stage.exchange();
    stage.start_anew();
    stage.until_granted("instruct", "touch the red block");
    refused(&stage);
    let (code, said) = stage.say("mode", "reset");
    assert_eq!((code, said.trim()), (Some(0), "acknowledged"));
    stage.until_granted("mode", "active");
    stage.start_anew();
    stage.arm();
}

#[test]
fn cameras_of_an_inference_process_that_come_back_exchanged_stop_the_robot() {
    let folder = exchangeable();
    let written = std::fs::read_to_string(folder.config()).expect("there");
    std::fs::write(
        folder.config(),
        format!("isolation = \"process\"\n{written}"),
    )
    .expect("written");
    let stage = Stage::new(folder);
    stage.arm();
    stage.stays_active();
    let mut last = stage.inference(0);
    loop {
        stage.exchange();
        end(last, Signal::KILL);
        let words =
            "stopped: the camera shows another view than before it was away (camera front, side)";
        let Err(said) = stage.becomes(words) else {
            break;
        };
        println!("again, as the machine was late: {said}");
        last = stage.inference(last);
        stage.exchange();
        end(last, Signal::KILL);
        last = stage.inference(last);
        stage.arm_again();
        stage.stays_active();
    }
    last = stage.inference(last);
    let (code, said) = stage.say("mode", "reset");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the cause is still there"), "{said}");
    // Put right. It opens them when it starts.
    stage.exchange();
    end(last, Signal::KILL);
    stage.inference(last);
    stage.until_granted("mode", "reset");
    stage.until_granted("mode", "active");
    stage.stays_active();
}

#[test]
fn cameras_that_come_after_the_arming_and_are_exchanged_stop_the_robot() {
    let folder = Folder::new(LINK);
    for (name, good) in [("front", true), ("side", false)] {
        folder.pictures(name, good);
    }
    folder.other_pictures("left");
    let written = std::fs::read_to_string(folder.config()).expect("there");
    // The bench robot's pictures are those of `far`.
    let plug = |folder: &Folder, far: &str, near: &str| {
        let far = LINK.replace("front", far);
        let near = IMAGES.replace("front", near);
        let all = format!(
            "[[camera]]\n{IMAGES}\n{}optional = true\n\n[[camera]]\n{near}optional = true\n",
            far.replace("[camera]", "[[camera]]")
        );
        for (file, cameras) in [
            (PathBuf::from(folder.config()), &all),
            (folder.bench_config(), &far),
        ] {
            std::fs::write(file, written.replace(LINK, cameras)).expect("written");
        }
    };
    plug(&folder, "side", "left");
    let mut stage = Stage::new(folder);
    stage.arm();
    let kept = stage.folder.folder.path().join("state/views-bench");
    let began = Instant::now();
    let both = |kept: String| kept.contains(" side\n") && kept.contains(" left\n");
    while !std::fs::read_to_string(&kept).is_ok_and(both) {
        assert!(began.elapsed() < Duration::from_secs(20), "not kept");
        stage.say("mode", "standby");
        stage.arm_again();
    }
    // Neither of the two shows anything when the robot is armed.
    stage.start_anew_after(|stage| {
        drop(stage.bench.kill());
        drop(stage.bench.wait());
        plug(&stage.folder, "left", "side");
        (stage.bench, stage.camera) = bench_robot(&stage.folder);
        stage.break_camera("off");
    });
    loop {
        stage.until_granted("instruct", "touch the red block");
        stage.arm_again();
        stage.stays_active();
        stage.break_camera("none");
        let Err(said) = stage.becomes(
            "stopped: the camera shows another view than before it was away (camera \"left\" shows what \
             \"side\" showed when the robot was last armed)",
        ) else {
            break;
        };
        println!("again, as the machine was late: {said}");
        stage.start_anew_after(|stage| stage.break_camera("off"));
    }
    let (code, said) = stage.say("mode", "reset");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the cause is still there"), "{said}");
}

#[test]
fn what_was_recorded_is_a_camera() {
    let camera = |path: &str| {
        let images = IMAGES.replace("\"front\"\nrate", &format!("\"{path}\"\nrate"));
        format!("[camera]\n{images}")
    };
    let folder = Folder::new(&camera("scene"));
    folder.pictures("scene", true);
    let kept = folder.folder.path().join("kept");
    let record = |config: &str| {
        let kept = kept.display().to_string();
        tendon(&[
            "cameras",
            "--config",
            config,
            "--seconds",
            "1.5",
            "--record",
            &kept,
        ])
    };
    let (code, said) = record(&folder.config());
    assert_eq!(code, Some(0), "{said}");
    let pictures = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("recorded: "));
    let pictures = pictures.and_then(|words| words.split(' ').next()?.parse().ok());
    let pictures: usize = pictures.unwrap_or_else(|| panic!("{said}"));
    assert!((30..=46).contains(&pictures), "{said}");
    let list = std::fs::read_to_string(kept.join("front/times.csv")).expect("a list");
    assert_eq!(list.lines().count(), 3 + pictures, "{list}");
    let (code, said) = record(&folder.config());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("expected a folder that is not there yet"),
        "{said}"
    );

    let again = Folder::new(&camera(&kept.join("front").display().to_string()));
    let (code, said) = tendon(&["cameras", "--config", &again.config(), "--seconds", "1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("refused"), "{said}");
}

#[test]
fn several_cameras_one_of_which_the_robot_can_do_without() {
    let more = |name: &str, optional: bool| {
        let first = IMAGES.replace("\"front\"", &format!("\"{name}\""));
        format!("[[camera]]\n{first}optional = {optional}\n")
    };
    let all = format!(
        "[[camera]]\n{IMAGES}\n{}\n{}",
        more("wrist", false),
        more("side", true)
    );
    let folder = Folder::new(&all);
    for (name, good) in [("front", true), ("wrist", true), ("side", false)] {
        folder.pictures(name, good);
    }
    // The optional one is black: that is said, and no reason to refuse.
    let (code, said) = tendon(&["cameras", "--config", &folder.config(), "--seconds", "1.5"]);
    assert_eq!(code, Some(0), "{said}");
    for words in [
        "wrist (images)",
        "refused",
        "black",
        " observations, widest skew",
    ] {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    let stage = Stage::new(folder);
    stage.arm();
    stage.stays_active();
    drop(stage);
    // The needed one is black: nothing is armed, and the camera is named.
    let folder = Folder::new(&all);
    for (name, good) in [("front", true), ("wrist", false), ("side", true)] {
        folder.pictures(name, good);
    }
    let (code, said) = tendon(&["cameras", "--config", &folder.config(), "--seconds", "1"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("camera \"wrist\": the picture is black"),
        "{said}"
    );
    let stage = Stage::new(folder);
    stage.until_granted("instruct", "touch the red block");
    // The other needs of arming come first, and are met in a moment.
    let began = Instant::now();
    loop {
        let (code, said) = stage.say("mode", "active");
        assert_eq!(code, Some(1), "{said}");
        if said.contains("a needed camera cannot be used: the camera's pictures are black") {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{said}");
    }
}

/// `tendon run` with a bundle of two graphs, ten denoising steps and three cameras, against the bench robot: what reaches
/// the motors bears the bundle's hash, goes on from chunk to chunk, and keeps the limits.
#[test]
fn a_bundle_of_several_graphs_and_cameras_drives_the_robot() {
    let [base, left, right] = on_bench::ROLES;
    let table = |name: &str, more: &str| {
        format!(
            "[[camera]]\nname = \"{name}\"\nsource = \"images\"\npath = \"{name}\"\nrate_hz = 30\nwidth = 40\n\
             height = 30\nage_max_ms = 150\n{more}\n"
        )
    };
    let cameras = [
        table(base, ""),
        table(left, ""),
        table(right, "optional = true"),
    ]
    .concat();
    let folder = Folder::new(&cameras);
    let bundle = folder.folder.path().join("bundle");
    on_bench::write(&bundle, |_| ());
    let config = folder.folder.path().join("tendon.toml");
    let written = std::fs::read_to_string(&config).expect("there");
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla");
    let written = written.replace(&shipped.display().to_string(), "bundle");
    std::fs::write(&config, written).expect("written");
    // The third is black: the policy goes without it.
    for (name, good) in [(base, true), (left, true), (right, false)] {
        folder.pictures_of(name, [40, 30], good);
    }
    let (code, said) = tendon(&["check", "--config", &folder.config()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("policy \"pi0\""), "{said}");

    let manifest = std::fs::read(bundle.join("manifest.json")).expect("there");
    let [a, b, c, d, ..] = hash(&manifest);
    let ours = u32::from_be_bytes([a, b, c, d]);
    let stage = Stage::new(folder);
    stage.until_granted("instruct", "touch the red block");
    let link = LinkConfig {
        connect: Some(stage.folder.endpoint.clone()),
        ..LinkConfig::default()
    };
    let session = session::open(&link).expect("the runtime listens");
    let parts =
        Config::bench_parts(demo::TENDON_TOML, demo::ROBOT_TOML).expect("the bench's files");
    let identities = Identities::of(&parts.robot.name, &parts.robot.joints);
    let (tell, told) = mpsc::channel();
    let _subscriber = subscribe(&session, keys::command("bench"), move |frame| {
        if let Ok(command) = wire::decode(frame, identities.commands) {
            // Nobody waits for it any more when the test ends.
            let _ = tell.send(command);
        }
    })
    .expect("declared");
    stage.until_granted("mode", "active");
    let (mut chunks, mut places) = (std::collections::BTreeSet::new(), Vec::new());
    let began = Instant::now();
    while chunks.len() < 10 {
        let left = Duration::from_secs(60).saturating_sub(began.elapsed());
        let command = told.recv_timeout(left).expect("ten chunks within a minute");
        let joints = parts.robot.joints.iter().zip(command.setpoint.position);
        for ((name, joint), position) in joints.take(6) {
            let limits = &joint.limits;
            let legal = limits.position_min..=limits.position_max;
            assert!(legal.contains(&position), "{name} told {position} rad");
        }
        let speeds = parts.robot.joints.iter().zip(command.setpoint.velocity);
        for ((name, joint), speed) in speeds.take(6) {
            assert!(
                speed.abs() <= joint.limits.velocity_max + 1e-6,
                "{name} told {speed} rad/s"
            );
        }
        if command.provenance.bundle_hash == ours {
            chunks.insert(command.provenance.chunk_id);
            places.push(command.setpoint.position[0]);
        }
        if began.elapsed().as_secs() % 5 == 4 && stage.becomes("active").is_err() {
            stage.arm_again();
        }
    }
    let (low, high) = places
        .iter()
        .fold((f64::MAX, f64::MIN), |(low, high), place| {
            (low.min(*place), high.max(*place))
        });
    println!(
        "{} commands of chunks {chunks:?}, base_yaw from {low:.4} to {high:.4} rad",
        places.len()
    );
    assert!(high - low > 1e-3, "it moves");
}

#[test]
fn pictures_of_different_moments_make_no_observation() {
    // Two cameras of one picture a second each, half a second apart at best, and 1 ms is allowed.
    let slow = IMAGES
        .replace("rate_hz = 30", "rate_hz = 3")
        .replace("age_max_ms = 150", "age_max_ms = 1000");
    let second = slow
        .replace("\"front\"", "\"wrist\"")
        .replace("rate_hz = 3\n", "rate_hz = 1.7\n")
        .replace("age_max_ms = 1000", "age_max_ms = 2000");
    let folder = Folder::new(&format!("[[camera]]\n{slow}\n[[camera]]\n{second}"));
    let config = folder.folder.path().join("tendon.toml");
    let written = std::fs::read_to_string(&config).expect("there");
    let written = written.replace("rate_hz = 10.0", "rate_hz = 10.0\nmax_skew_ms = 1");
    std::fs::write(&config, written).expect("written");
    for name in ["front", "wrist"] {
        folder.pictures(name, true);
    }
    let (_, said) = tendon(&[
        "cameras",
        "--config",
        &folder.config(),
        "--seconds",
        "3",
        "--json",
    ]);
    let seen: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert!(seen["apart"].as_u64() > Some(3), "{said}");
    assert!(seen["skew_max_ms"].as_f64() <= Some(1.0), "{said}");
}

/// Two cameras, of which one is behind by `delay_ms`.
fn one_behind(delay_ms: u32) -> Folder {
    let front = IMAGES.replace("age_max_ms = 150", "age_max_ms = 600");
    let wrist = front.replace("\"front\"", "\"wrist\"");
    let folder = Folder::new(&format!(
        "[[camera]]\n{front}\n[[camera]]\n{wrist}delay_ms = {delay_ms}\n"
    ));
    for name in ["front", "wrist"] {
        folder.pictures(name, true);
    }
    folder
}

#[test]
fn a_camera_that_is_behind_the_others_is_met_by_their_older_pictures() {
    // Three times what is allowed, which is 50 ms; then further than pictures are kept for, which is 8 of 33 ms.
    for (delay_ms, together) in [(150, true), (450, false)] {
        let folder = one_behind(delay_ms);
        let (_, said) = tendon(&[
            "cameras",
            "--config",
            &folder.config(),
            "--seconds",
            "3",
            "--json",
        ]);
        let seen: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        let (good, apart) = (&seen["cameras"][0]["good"], &seen["apart"]);
        let (good, apart) = (good.as_u64().expect("a count"), apart.as_u64());
        let apart = apart.expect("a count");
        assert!(good > 40, "{said}");
        assert_eq!(apart * 10 < good, together, "{said}");
        assert_eq!(apart * 10 > good * 8, !together, "{said}");

        let log = folder.folder.path().join("log");
        let file = std::fs::File::create(&log).expect("made");
        let stage = Stage::with(folder, |run| {
            run.stderr(file);
        });
        if together {
            stage.arm();
            stage.stays_active();
        } else {
            stage.until_granted("instruct", "touch the red block");
            let began = Instant::now();
            let words = "no chunk: expected pictures at most 50 ms apart (policy.max_skew_ms), found camera \"wrist\"";
            loop {
                let said = std::fs::read_to_string(&log).expect("a log");
                if said.contains(words) {
                    break;
                }
                assert!(began.elapsed() < Duration::from_secs(30), "{said}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

#[test]
fn what_a_camera_cannot_be_is_refused_with_its_line() {
    let refused = |camera: &str, words: &[&str]| {
        let folder = Folder::new(camera);
        let (code, said) = tendon(&["check", "--config", &folder.config()]);
        assert_eq!(code, Some(2), "{said}");
        for words in words {
            assert!(said.contains(words), "{words:?} is not in {said}");
        }
    };
    let with =
        |more: &str| LINK.replace("name = \"front\"\n", &format!("name = \"front\"\n{more}\n"));
    refused(
        &with("source = \"usb\""),
        &["camera.source", "\"v4l\"", "\"usb\""],
    );
    refused(
        &with("source = \"v4l\""),
        &["camera.device", "camera.rate_hz"],
    );
    refused(
        &with("pipeline = \"videotestsrc\""),
        &["camera.pipeline", "nothing, as source is \"link\""],
    );
    refused(
        &with(
            "source = \"v4l\"\ndevice = \"/dev/video0\"\nrate_hz = 30\nformats = [\"MJPEG\"]\n\
               controls = { exposure_tiem = 3, gain = 1.5 }",
        ),
        &[
            "camera.formats",
            "\"MJPEG\"",
            "controls.exposure_tiem",
            "exposure_time_absolute",
            "controls.gain",
            "1.5",
        ],
    );
    refused(&with("sauce = \"link\""), &["tendon.toml:", "sauce"]);
    let twice = LINK.replace("[camera]", "[[camera]]").repeat(2);
    refused(&twice, &["camera[1] \"front\".name", "no other camera"]);
    let optional = with("optional = true");
    refused(&optional, &["camera.optional", "looks through the first"]);
}

#[test]
fn a_source_that_this_build_lacks_or_that_is_not_there_is_said() {
    let said = |camera: &str| {
        let folder = Folder::new(camera);
        tendon(&["cameras", "--config", &folder.config(), "--seconds", "0.5"])
    };
    let v4l = IMAGES.replace("\"images\"", "\"v4l\"").replace(
        "path = \"front\"",
        "device = \"/dev/v4l/by-id/no-such-camera\"",
    );
    let (code, words) = said(&format!("[camera]\n{v4l}"));
    assert_eq!(code, Some(1), "{words}");
    let expected = if cfg!(feature = "v4l") {
        "camera \"front\": the camera is gone"
    } else {
        "build with --features v4l"
    };
    assert!(words.contains(expected), "{words}");
    let stream = IMAGES
        .replace("\"images\"", "\"gstreamer\"")
        .replace("path = \"front\"", "pipeline = \"no-such-source\"");
    let (code, words) = said(&format!("[camera]\n{stream}"));
    assert_eq!(code, Some(1), "{words}");
    let expected = if cfg!(feature = "gstreamer") {
        "no-such-source"
    } else {
        "build with --features gstreamer"
    };
    assert!(words.contains(expected), "{words}");
    let (code, words) = said(&format!("[camera]\n{IMAGES}"));
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("No such file"), "{words}");
}

#[cfg(feature = "gstreamer")]
#[test]
fn a_pipeline_is_a_camera_and_its_end_holds_the_robot() {
    // A picture whose view is the same whenever it begins: another one would be another camera.
    let pipeline = "videotestsrc is-live=true pattern=smpte75 ! video/x-raw,width=224,height=224,framerate=30/1";
    let camera = format!(
        "[camera]\nname = \"front\"\nsource = \"gstreamer\"\npipeline = \"{pipeline}\"\nrate_hz = 30\nwidth = 224\n\
         height = 224\nage_max_ms = 150\nnoisy = false\n"
    );
    let stage = Stage::new(Folder::new(&camera));
    stage.arm();
    stage.stays_active();
    drop(stage);
    // A server that goes away and comes back: the robot holds, and goes on when pictures come.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a port")
        .port();
    let serve = || {
        let words = format!(
            "{pipeline} ! jpegenc ! multipartmux ! tcpserversink host=127.0.0.1 port={port}"
        );
        let mut launch = Command::new("gst-launch-1.0");
        launch.arg("-q").args(words.split_whitespace());
        let launched = launch.stdout(Stdio::null()).spawn();
        launched.expect("gst-launch-1.0, of the package gstreamer1.0-tools")
    };
    let read = format!("tcpclientsrc host=127.0.0.1 port={port} ! multipartdemux ! jpegdec");
    let stage = Stage::new(Folder::new(&camera.replace(pipeline, &read)));
    let mut server = serve();
    stage.arm();
    let resumed = (0..10).any(|_| {
        drop(server.kill());
        drop(server.wait());
        let held = stage.becomes("holding: the camera gives no usable picture");
        server = serve();
        let resumed = held.and_then(|_| stage.becomes("active"));
        if let Err(said) = &resumed {
            println!("again, as the machine was late: {said}");
            stage.arm_again();
        }
        resumed.is_ok()
    });
    drop(server.kill());
    drop(server.wait());
    assert!(resumed, "ten times the machine was too late");
}

/// A plug that is put back, and a camera that then takes two seconds to open: the robot holds meanwhile and goes on. Nobody
/// takes the thread that waits for it for one that hangs: neither the control process, which would end the inference
/// process, nor the service manager, which would end both.
#[cfg(feature = "v4l")]
#[test]
fn a_camera_that_takes_two_seconds_to_open_holds_the_robot_and_ends_no_process() {
    const CAMERA: &str = "[camera]\nname = \"front\"\nsource = \"v4l\"\ndevice = \"/dev/video40\"\nformats = [\"MJPG\"]\n\
                          rate_hz = 30\nwidth = 224\nheight = 224\nage_max_ms = 150\n";
    /// As fake_v4l.c numbers them.
    const GOOD: i32 = 0;
    const UNPLUGGED: i32 = 1;
    const SLOW_OPEN: i32 = 16;
    let library = preload::library();
    for isolation in ["thread", "process"] {
        let folder = Folder::new(CAMERA);
        folder.pictures("shown", true);
        let at = |name: &str| folder.folder.path().join(name);
        let written = std::fs::read_to_string(at("tendon.toml")).expect("there");
        let written = format!("isolation = \"{isolation}\"\n{written}");
        std::fs::write(at("tendon.toml"), written).expect("written");
        let shows: Vec<String> = (0..8)
            .map(|n| at(&format!("shown/{n}.jpg")).display().to_string())
            .collect();
        // Written over in place: the fake has mapped it.
        let (faults, log, notify) = (at("faults"), at("log"), at("notify"));
        std::fs::write(&faults, [0; 8 * 4]).expect("written");
        let becomes = |fault: i32| {
            let file = std::fs::File::options().write(true).open(&faults);
            let told = file.and_then(|mut file| file.write_all(&fault.to_ne_bytes()));
            told.expect("written");
        };
        let pings = std::os::unix::net::UnixDatagram::bind(&notify).expect("a socket");
        pings.set_nonblocking(true).expect("set");
        let mut pinged = 0;
        let mut hears = || {
            let mut word = [0; 4096];
            while let Ok(len) = pings.recv(&mut word) {
                let word = String::from_utf8_lossy(&word[..len]).into_owned();
                assert!(!word.contains("thread capture"), "{isolation}: {word}");
                pinged += u32::from(word.contains("WATCHDOG=1"));
            }
            pinged
        };
        let stderr = std::fs::File::create(&log).expect("made");
        let stage = Stage::with(folder, |run| {
            run.env("LD_PRELOAD", &library)
                .env("FAKE_V4L_SHOWS", shows.join(":"))
                .env("FAKE_V4L_FAULTS", &faults)
                .env("NOTIFY_SOCKET", &notify)
                .env("WATCHDOG_USEC", "500000")
                .stderr(stderr);
        });
        stage.arm();
        let told = (0..10).find_map(|_| {
            hears();
            stage.stays_active();
            becomes(UNPLUGGED);
            let held = stage.becomes("holding: the camera gives no usable picture");
            becomes(SLOW_OPEN);
            hears();
            let resumed = held.and_then(|_| stage.becomes("active"));
            becomes(GOOD);
            hears();
            match resumed {
                Ok(took) => Some(took),
                Err(said) => {
                    println!("{isolation}: again, as the machine was late: {said}");
                    stage.arm_again();
                    None
                }
            }
        });
        let took = told.expect("ten times the machine was too late");
        println!("{isolation}: held, and active again {took:.1?} after a plug was put back");
        assert!(took > Duration::from_millis(1_900), "{took:?}: not slow");
        let said = std::fs::read_to_string(&log).expect("there");
        assert!(
            !said.contains("hangs") && !said.contains("started again in"),
            "{isolation}: {said}"
        );
        assert!(
            hears() > 0,
            "{isolation}: the service manager heard nothing"
        );
    }
}
