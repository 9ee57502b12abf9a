// SPDX-License-Identifier: Apache-2.0
//! Hardware in the loop: does the motor controller at the other end of the link do what stands between a wrong command and
//! somebody's hand? Without more it is asked of the bench robot, in a process of its own:
//!
//!     cargo test --release --test hil
//!
//! Of a robot in the lab, with its deployment's tendon.toml and robot.toml, from a terminal:
//!
//!     TENDON_HIL=tcp/192.168.1.20:7447 TENDON_HIL_CONFIG=deploy/mine/tendon.toml \
//!         TENDON_HIL_KEY=~/.ssh/id_ed25519 cargo test --release --test hil
//!
//! `TENDON_HIL` is where the controller listens; `listen`: the suite listens where tendon.toml says, and the controller
//! connects. `TENDON_HIL_KEY` signs the report. `TENDON_HIL_JOINT` names the joint that is moved (the first that turns),
//! `TENDON_HIL_REPORT` the report's folder (the current one), `TENDON_HIL_FIRMWARE` is noted in it, `TENDON_HIL_WRITE=1` writes the
//! measured delays into robot.toml and tendon.toml, `TENDON_HIL_TENDON` is the program whose `run` is struck. Before each stage
//! that may move the robot it asks, moves one joint at 0.2 rad/s at most (the runtime: all, at a tenth of their speed), and ends
//! at the first stage that fails. It exits with 0 if all of it was tried, nothing failed and the report is signed.

mod between;
#[path = "../../chaos/canary.rs"]
mod canary;
mod contacts;
mod delays;
mod hands;
mod ledger;
mod lines;
mod program;
mod rig;
mod stages;
mod stops;
mod strikes;

use canary::Canary;
use delays::Delays;
use hands::Hands;
use ledger::{Ledger, Outcome};
use rig::Rig;
use serde_json::{Value, json};
use stages::{BUS, Bench, STAGES};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::Mutex;
use tempfile::TempDir;
use tendon::config::Config;
use tendon::config::link::LinkConfig;
use tendon::core::action::JointKind;
use tendon::core::units::MS;
use tendon::link::session;
use tendon::runtime::{clock, demo, realtime};
use zenoh::Session;

fn main() -> ExitCode {
    // cargo test hands its filter to every test program.
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    if filter.is_some_and(|filter| !"hil".contains(&filter)) {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("hil: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn asked(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Ends with whoever holds it.
struct BenchRobot {
    command: Command,
    child: Child,
}

impl BenchRobot {
    fn start(endpoint: &str, more: &[&str]) -> Result<BenchRobot, String> {
        let mut command = Command::new(program::tendon());
        command.args(["bench-robot", "--connect", endpoint]);
        command.args(more).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy();
            format!("{program}: {error}; name the program by TENDON_HIL_TENDON")
        })?;
        Ok(BenchRobot { command, child })
    }

    /// As a controller that loses its power for a moment.
    fn start_again(&mut self) -> Result<(), String> {
        self.end();
        self.child = self.command.spawn().map_err(said)?;
        Ok(())
    }

    fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for BenchRobot {
    fn drop(&mut self) {
        self.end();
    }
}

/// The link and who is at its ends.
struct Lab {
    config: Config,
    /// The deployment that was named.
    path: Option<PathBuf>,
    /// That, or the bench's own.
    deployment: PathBuf,
    session: Session,
    endpoint: String,
    on_bench: bool,
    _folder: TempDir,
}

/// The bench's deployment, as this program carries it, in `folder`, its link at `endpoint`.
fn bench_deployment(folder: &Path, endpoint: &str) -> Result<PathBuf, String> {
    let bundle = program::bundle()?.display().to_string();
    let text = demo::TENDON_TOML
        .replace("../../engines/bench-vla", &bundle)
        .replace("tcp/127.0.0.1:7447", endpoint);
    let path = folder.join("tendon.toml");
    std::fs::write(&path, text).map_err(said)?;
    for (name, text) in [
        ("robot.toml", demo::ROBOT_TOML),
        ("robot.urdf", demo::ROBOT_URDF),
    ] {
        std::fs::write(folder.join(name), text).map_err(said)?;
    }
    Ok(path)
}

impl Lab {
    fn open() -> Result<Lab, String> {
        let asked_for = asked("TENDON_HIL");
        let path = asked("TENDON_HIL_CONFIG").map(PathBuf::from);
        if asked_for.is_some() && path.is_none() {
            return Err("expected TENDON_HIL_CONFIG=PATH of the deployment's tendon.toml beside TENDON_HIL, found nothing: limits and joints come from there".into());
        }
        let folder = tempfile::tempdir().map_err(said)?;
        let deployment = match &path {
            Some(path) => path.clone(),
            None => bench_deployment(folder.path(), &free_endpoint()?)?,
        };
        let config = Config::load(&deployment).map_err(|problems| {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            lines.join("\n")
        })?;
        let link = match asked_for.as_deref() {
            None => LinkConfig {
                listen: Some(free_endpoint()?),
                ..LinkConfig::default()
            },
            Some("listen") => config.link.clone(),
            Some(endpoint) => LinkConfig {
                listen: None,
                connect: Some(endpoint.to_owned()),
                ..config.link.clone()
            },
        };
        let endpoint = link.listen.clone().or(link.connect.clone());
        // Commands go through its threads, the runtime's as well.
        let (session, _) = session::open_ahead(&link).map_err(said)?;
        Ok(Lab {
            session,
            endpoint: endpoint.unwrap_or_default(),
            on_bench: asked_for.is_none(),
            config,
            path,
            deployment,
            _folder: folder,
        })
    }

    /// A rig, once states come.
    fn rig(&self) -> Result<Rig, String> {
        let rig = Rig::new(
            &self.session,
            self.config.robot.clone(),
            self.config.control.period_ns,
        )?;
        let deadline = clock::now().plus_ns(10_000 * MS);
        while rig.mark() == 0 && clock::now() < deadline {
            demo::pause(20);
        }
        rig.last()?;
        Ok(rig)
    }

    fn joint(&self) -> Result<usize, String> {
        let joints = &self.config.robot.joints;
        let names = || joints.iter().map(|(name, _)| name.as_str());
        let found = match asked("TENDON_HIL_JOINT") {
            Some(name) => names().position(|other| other == name),
            None => joints
                .iter()
                .position(|(_, joint)| joint.kind != JointKind::Gripper),
        };
        found.ok_or_else(|| {
            format!(
                "TENDON_HIL_JOINT: expected one of {:?}, found none of them",
                names().collect::<Vec<_>>()
            )
        })
    }

    /// Whoever stands there; on the bench, with a robot that is started `more` so.
    fn hands(&self, more: &[&str]) -> Result<Hands, String> {
        if !self.on_bench {
            return Ok(Hands::Person);
        }
        let robot = BenchRobot::start(&self.endpoint, more)?;
        let (session, name) = (self.session.clone(), self.config.robot.name.clone());
        Ok(Hands::Bench(session, name, Box::new(Mutex::new(robot))))
    }
}

fn free_endpoint() -> Result<String, String> {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").map_err(said)?;
    Ok(format!("tcp/{}", socket.local_addr().map_err(said)?))
}

/// Where the report goes. Of a robot into the current folder: the folders of the build need not be on this machine.
fn report_folder() -> PathBuf {
    match asked("TENDON_HIL_REPORT") {
        Some(folder) => PathBuf::from(folder),
        None if asked("TENDON_HIL").is_none() && program::under_cargo() => {
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("hil")
        }
        None => PathBuf::from("."),
    }
}

/// Where the report goes, and what it is about.
struct Notes {
    folder: PathBuf,
    about: Value,
}

impl Notes {
    /// After each stage: whoever is interrupted loses no more than that one.
    fn keep(&self, ledger: &Ledger) {
        if let Err(error) = ledger.keep(&self.folder, &self.about) {
            println!("NOT KEPT so far: {}: {error}", self.folder.display());
        }
    }
}

fn about(lab: &Lab, joint: usize, program: &Result<String, String>) -> Value {
    json!({
        "robot": lab.config.robot.name,
        "joint that was moved": lab.config.robot.joints[joint].0,
        "limits": lab.config.robot.joints.iter().map(|(name, joint)| format!("{name}: {:?}", joint.limits)).collect::<Vec<_>>(),
        "controller": if lab.on_bench { "the bench robot, simulated".into() } else { lab.endpoint.clone() },
        "firmware": asked("TENDON_HIL_FIRMWARE").unwrap_or_else(|| "not said".into()),
        "tendon": env!("CARGO_PKG_VERSION"),
        "runtime": program.as_ref().map_or_else(|why| format!("none: {why}"), Clone::clone),
        "unix time": std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs()),
    })
}

/// Everything; whether all of it was tried and passed, and somebody vouches for it.
fn run() -> Result<bool, String> {
    ledger::check_yourself()?;
    let temporary = tempfile::tempdir().map_err(said)?;
    let key = signing_key(temporary.path())?;
    let folder = report_folder();
    ledger::try_folder(&folder)?;
    let program = program::version();
    let lab = Lab::open()?;
    if !lab.on_bench {
        say_what_counts();
    }
    let hands = lab.hands(&[])?;
    // Commands must come in time; what is not granted shows in what is measured.
    let _ = realtime::take_seat(70, &[]);
    let mut rig = lab.rig()?;
    delays::check_yourself(&rig)?;
    let joint = lab.joint()?;
    let canary = lab.on_bench.then(Canary::start);
    let notes = Notes {
        folder,
        about: about(&lab, joint, &program),
    };
    let mut ledger = Ledger::default();
    let mut bench = Bench {
        rig: &mut rig,
        hands: &hands,
        ledger: &mut ledger,
        canary: canary.as_ref(),
        joint,
    };
    for (name, warning, stage) in STAGES.into_iter().chain([BUS]) {
        go(&mut bench, name, warning, stage);
        notes.keep(bench.ledger);
    }
    contacts::contacts(&mut bench, &lab);
    notes.keep(bench.ledger);
    let found = watch(&mut bench, &lab);
    notes.keep(bench.ledger);
    // Last: by now the motor controller has shown that it stops without a runtime.
    strikes::strikes(&mut bench, &lab, &program, &notes);
    notes.keep(bench.ledger);
    drop(hands);
    if lab.on_bench {
        finds_out_servos_that_run_on(&mut ledger)?;
        finds_out_what_nobody_vouches_for(&mut ledger)?;
        if let Some(key) = &key {
            finds_out_what_is_left_out(&mut ledger, key)?;
            finds_out_what_cannot_be_kept(&mut ledger, key)?;
            finds_out_what_an_interruption_leaves(&mut ledger, key)?;
        }
    }
    let signed = ledger
        .write(&notes.folder, &notes.about, key.as_deref())
        .map_err(said)?;
    write_delays(&lab, &found)?;
    let outcomes = [
        ("passed", Outcome::Passed),
        ("failed", Outcome::Failed),
        ("not run", Outcome::NotRun),
        ("absent", Outcome::Absent),
    ];
    let counts = outcomes.map(|(word, outcome)| format!("{} {word}", ledger.count(outcome)));
    println!("{}", counts.join(", "));
    println!("{}", ledger.verdict());
    if !signed && !lab.on_bench {
        println!("NOT SIGNED: nobody vouches for this report");
    }
    Ok(ledger.passed() && (signed || lab.on_bench))
}

/// The key that signs the report, tried before anything moves. `None` on the bench alone, where there is no ssh-keygen.
fn signing_key(folder: &Path) -> Result<Option<PathBuf>, String> {
    let on_bench = asked("TENDON_HIL").is_none();
    let key = match asked("TENDON_HIL_KEY") {
        Some(key) => PathBuf::from(key),
        None if on_bench => match throwaway_key(folder) {
            // The bench's own, so that signing is tried as well.
            Some(key) => key,
            None => {
                println!("skipped: no ssh-keygen here: the report is not signed");
                return Ok(None);
            }
        },
        None => {
            return Err("TENDON_HIL_KEY: expected an OpenSSH key that signs the report, found nothing: nothing is moved for a report that nobody vouches for; name yours, or make one: ssh-keygen -t ed25519 -f hil-key".into());
        }
    };
    let trial = folder.join("trial");
    std::fs::write(&trial, "whether this key signs\n").map_err(said)?;
    match ledger::sign(&trial, &key) {
        Ok(_) => Ok(Some(key)),
        Err(why) => Err(format!(
            "TENDON_HIL_KEY: expected an OpenSSH key that signs, found {}: {why}",
            key.display()
        )),
    }
}

/// What a person beside a robot must know before the first question.
fn say_what_counts() {
    println!(
        ">> A stage that you leave out makes the report incomplete: it does not pass then, and the exit code is 1. A contact that [lines] does not name is none."
    );
    if !std::io::stdin().is_terminal() {
        println!(
            ">> There is no terminal here, so nobody can say yes: every stage that may move the robot will be left out."
        );
    }
}

/// One stage, if nothing failed before it and whoever stands there allows it.
fn go(bench: &mut Bench<'_>, name: &'static str, warning: &str, stage: stages::Stage) {
    if bench.ledger.count(Outcome::Failed) > 0 {
        stages::left_out(bench.ledger, name, "a stage before it failed");
        return;
    }
    if !warning.is_empty() && !bench.hands.allow(&format!("{name}: {warning}")) {
        stages::left_out(bench.ledger, name, "not allowed");
        return;
    }
    if let Err(problem) = stage(bench) {
        bench
            .ledger
            .judge(name, "it can be carried out", false, problem, "");
    }
}

/// The delays, as far as they were found.
fn watch(bench: &mut Bench<'_>, lab: &Lab) -> Delays {
    let failed = bench.ledger.count(Outcome::Failed) > 0;
    let what = "delays: one joint goes to and fro by a few degrees, eight times.";
    if failed || !bench.hands.allow(what) {
        let why = if failed {
            "a stage before it failed"
        } else {
            "not allowed"
        };
        stages::left_out(bench.ledger, "delays", why);
        return Delays::default();
    }
    let pictures = bench.rig.identities.pictures;
    let mut found = Delays::default();
    let measured = found.measure(bench, &lab.session, &lab.config.camera, pictures);
    if let Err(problem) = measured {
        let claim = "they can be measured";
        bench.ledger.judge("delays", claim, false, problem, "");
    }
    found
}

/// The stage of the servo bus must fail where servos keep turning, or it shows nothing.
fn finds_out_servos_that_run_on(ledger: &mut Ledger) -> Result<(), String> {
    let lab = Lab::open()?;
    let hands = lab.hands(&["--servos-run-on"])?;
    let mut rig = lab.rig()?;
    let mut trial = Ledger::default();
    println!("-- the same stage on servos that keep turning; it must fail:");
    let mut bench = Bench {
        rig: &mut rig,
        hands: &hands,
        ledger: &mut trial,
        canary: None,
        joint: lab.joint()?,
    };
    let (name, warning, stage) = BUS;
    go(&mut bench, name, warning, stage);
    println!("--");
    let way = trial.figures.get("servo_bus_way").copied().unwrap_or(0.0);
    ledger.judge(
        "servo bus",
        "servos that keep turning are found out",
        trial.count(Outcome::Failed) == 1 && way > 0.1,
        format!("{} failed, {way:.3} further", trial.count(Outcome::Failed)),
        "",
    );
    Ok(())
}

/// The suite itself, as of a robot, with nobody at a terminal, and with nothing of the checkout but the program that is named. Its
/// report goes to `report`, or into the current folder, which is `folder`.
fn of_a_robot(
    folder: &Path,
    endpoint: &str,
    key: Option<&Path>,
    report: Option<&Path>,
) -> Result<Command, String> {
    let deployment = bench_deployment(folder, endpoint)?;
    let mut suite = Command::new(std::env::current_exe().map_err(said)?);
    for name in [
        "CARGO_MANIFEST_DIR",
        "TENDON_HIL_KEY",
        "TENDON_HIL_JOINT",
        "TENDON_HIL_WRITE",
        "TENDON_HIL_REPORT",
    ] {
        suite.env_remove(name);
    }
    suite
        .env("TENDON_HIL", "listen")
        .env("TENDON_HIL_CONFIG", deployment)
        .env("TENDON_HIL_TENDON", program::tendon())
        .current_dir(folder)
        .stdin(Stdio::null());
    if let Some(key) = key {
        suite.env("TENDON_HIL_KEY", std::path::absolute(key).map_err(said)?);
    }
    if let Some(report) = report {
        suite.env("TENDON_HIL_REPORT", report);
    }
    Ok(suite)
}

/// A robot is not so much as listened to for a report that will not be signed.
fn finds_out_what_nobody_vouches_for(ledger: &mut Ledger) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(said)?;
    let none = folder.path().join("no-such-key");
    let report = folder.path().join("report");
    for (claim, key) in [
        ("without a key nothing begins", None),
        (
            "with a key that does not sign nothing begins",
            Some(none.as_path()),
        ),
    ] {
        let mut suite = of_a_robot(folder.path(), &free_endpoint()?, key, Some(&report))?;
        let output = suite.output().map_err(said)?;
        let refused = refuses(&output, "TENDON_HIL_KEY: expected") && !report.exists();
        ledger.judge("report", claim, refused, words(&output), "");
    }
    Ok(())
}

/// Nor for one that cannot be written.
fn finds_out_what_cannot_be_kept(ledger: &mut Ledger, key: &Path) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(said)?;
    let file = folder.path().join("file");
    std::fs::write(&file, "no folder").map_err(said)?;
    let report = file.join("report");
    let mut suite = of_a_robot(folder.path(), &free_endpoint()?, Some(key), Some(&report))?;
    let output = suite.output().map_err(said)?;
    ledger.judge(
        "report",
        "with a folder that cannot be written to nothing begins",
        refuses(&output, "TENDON_HIL_REPORT: expected"),
        words(&output),
        "",
    );
    Ok(())
}

fn refuses(output: &Output, why: &str) -> bool {
    output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains(why)
}

fn words(output: &Output) -> String {
    let words = String::from_utf8_lossy(&output.stderr);
    format!("{}, {}", output.status, words.trim())
}

fn report_in(folder: &Path) -> Value {
    let text = std::fs::read_to_string(folder.join("report.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Where nobody says yes, what came of the rest is no pass.
fn finds_out_what_is_left_out(ledger: &mut Ledger, key: &Path) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(said)?;
    let endpoint = free_endpoint()?;
    let robot = BenchRobot::start(&endpoint, &[])?;
    let mut suite = of_a_robot(folder.path(), &endpoint, Some(key), None)?;
    let output = suite.output().map_err(said)?;
    drop(robot);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let report = report_in(folder.path());
    // Not for anything that failed.
    let said_so = String::from_utf8_lossy(&output.stdout).contains("nobody can say yes")
        && read("report.html").contains("NOT PASSED: INCOMPLETE, left out: first command, ");
    let runtime = report["about"]["runtime"].as_str().unwrap_or_default();
    let found_out = output.status.code() == Some(1)
        && report["finished"] == true
        && report["complete"] == false
        && report["passed"] == false
        && runtime.starts_with("tendon ")
        && said_so
        && !read("report.json.sig").is_empty();
    ledger.judge(
        "report",
        "stages that nobody allowed are no pass",
        found_out,
        format!(
            "{}, complete: {}, passed: {}, runtime: {runtime}",
            output.status, report["complete"], report["passed"]
        ),
        "",
    );
    Ok(())
}

/// Whoever ends it half way has what was found so far, and nothing that looks like a finished report.
fn finds_out_what_an_interruption_leaves(ledger: &mut Ledger, key: &Path) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(said)?;
    let endpoint = free_endpoint()?;
    let robot = BenchRobot::start(&endpoint, &[])?;
    let mut suite = of_a_robot(folder.path(), &endpoint, Some(key), None)?;
    let suite = suite.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut suite = suite.map_err(said)?;
    let deadline = clock::now().plus_ns(30_000 * MS);
    while !folder.path().join("report.json").exists() && clock::now() < deadline {
        demo::pause(20);
    }
    // It may have ended by itself, which is then seen in what it left.
    let _ = suite.kill();
    let _ = suite.wait();
    drop(robot);
    let report = report_in(folder.path());
    let findings = report["findings"].as_array().map_or(0, Vec::len);
    let signed = folder.path().join("report.json.sig").exists();
    ledger.judge(
        "report",
        "an interruption leaves what was found so far",
        findings > 0 && report["finished"] == false && report["complete"] == false && !signed,
        format!(
            "{findings} findings, finished: {}, signed: {signed}",
            report["finished"]
        ),
        "",
    );
    Ok(())
}

fn throwaway_key(folder: &Path) -> Option<PathBuf> {
    let key = folder.join("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .stdin(Stdio::null())
        .status();
    made.is_ok_and(|status| status.success()).then_some(key)
}

/// Into robot.toml and tendon.toml, where that was asked for; else what would be written is said.
fn write_delays(lab: &Lab, found: &Delays) -> Result<(), String> {
    let Some(path) = &lab.path else { return Ok(()) };
    let text = std::fs::read_to_string(path).map_err(said)?;
    let written: toml::Table = text.parse().map_err(said)?;
    let robot = written.get("robot").and_then(toml::Value::as_str);
    let robot = path.with_file_name(robot.unwrap_or("robot.toml"));
    let declared_ms = lab.config.robot.state_delay_ns as f64 / 1e6;
    let state_ms = found.state_ms.unwrap_or(declared_ms);
    // Pictures were compared with the states as they came, and what was declared of the camera is taken off its stamps already.
    let before_ms = lab.config.camera.delay_ns as f64 / 1e6 + state_ms;
    let camera_ms = found.camera_ms.map(|residual_ms| before_ms + residual_ms);
    let rows: [(&PathBuf, &[&str], &str, Option<f64>); 2] = [
        (&robot, &[], "state_delay_ms", found.state_ms),
        (path, &["[camera]", "[[camera]]"], "delay_ms", camera_ms),
    ];
    for (file, heads, key, found_ms) in rows {
        let Some(ms) = found_ms else { continue };
        let head = heads
            .first()
            .map_or(String::new(), |head| format!("{head} "));
        let name = format!("{}: {head}{key}", file.display());
        if ms < 0.0 {
            println!("{name} would be {ms:.1}: those stamps are ahead of what they tell of");
        } else if asked("TENDON_HIL_WRITE").as_deref() != Some("1") {
            println!("{name} = {ms:.1} (TENDON_HIL_WRITE=1 writes it)");
        } else {
            let text = std::fs::read_to_string(file).map_err(said)?;
            let text = delays::with_number(&text, heads, key, ms)
                .ok_or_else(|| format!("{name} = {ms:.1}: no place for it was found"))?;
            std::fs::write(file, text).map_err(said)?;
        }
    }
    Ok(())
}
