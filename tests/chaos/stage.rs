// SPDX-License-Identifier: Apache-2.0
//! One runtime and one bench robot as processes, and somebody who listens at both ends of the link.
//!
//! Times are the monotonic clock's, which all processes of a machine share: a state report carries the motor
//! controller's own time of measurement, a command the runtime's time of sending. How long the machine itself stood
//! still is measured beside it by a thread that does nothing else ([`Canary`]), and is granted to every bound.

use crate::canary::{Canary, told};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tendon::bench::process::{Answer, Request, Silenced};
use tendon::config::Config;
use tendon::config::link::{LinkConfig, Tls};
use tendon::core::units::{MS, Mono};
use tendon::core::wire::command::{self, COMMAND_LEN_MAX};
use tendon::core::wire::state::{self, MotorMode, Report};
use tendon::link::{keys, operator_end, runtime_end, session};
use tendon::runtime::clock;
use tendon::runtime::crash::Crash;
use tendon::runtime::demo;
use tendon::runtime::deployment::Identities;
use zenoh::{Session, Wait};

pub const ROBOT: &str = "bench";
/// What the bench robot begins with.
const SCENE: u64 = 7;
/// A held command's verdict is this plus its cause: see docs/wire.md.
pub const HELD: u8 = 16;

pub type Shared<T> = Arc<Mutex<Vec<T>>>;

/// What a command on the wire said, and when it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub at: Mono,
    /// When it came here.
    pub heard: Mono,
    pub held: bool,
    /// See docs/wire.md.
    pub verdict: u8,
    /// One more for each command.
    pub counter: u32,
    /// Whether the motor controller is to follow it.
    pub follow: bool,
    /// The chunk that it is made of; 0 for none.
    pub chunk: u32,
    /// When the picture was taken that it is made of.
    pub captured: Mono,
}

/// Repeats of each fault: 2, or as many as `TENDON_CHAOS_REPEATS` says, for the long run (nightly.sh).
pub fn repeats() -> u32 {
    let asked = std::env::var("TENDON_CHAOS_REPEATS");
    asked.ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// Tells a whole story as often.
pub fn over_again(story: impl Fn()) {
    (0..repeats()).for_each(|_| told(&story));
}

pub fn locked<T, R>(shared: &Shared<T>, look: impl FnOnce(&Vec<T>) -> R) -> R {
    look(&shared.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Waits until `is` is true, at most ten seconds.
#[track_caller]
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let deadline = clock::now().plus_ns(10_000 * MS);
    while !is() {
        assert!(clock::now() < deadline, "not within 10 s: {what}");
        demo::pause(2);
    }
}

/// How a stage differs from the plain one.
#[derive(Default)]
pub struct Setting {
    /// `HOW:THREAD`, as `tendon run --drill` takes it.
    pub drill: Option<String>,
    /// Where crash records go; absent: the stage's own folder.
    pub state: Option<PathBuf>,
    /// `NOTIFY_SOCKET` and `WATCHDOG_USEC` for the runtime.
    pub notify: Option<(PathBuf, u64)>,
    /// Lines added to tendon.toml.
    pub toml: &'static str,
    /// What else is written otherwise in tendon.toml: this, by that.
    pub edits: Vec<(&'static str, String)>,
    /// The `cgroup.procs` of a control group in which the runtime starts.
    pub group: Option<PathBuf>,
    /// Environment of both processes.
    pub env: Vec<(&'static str, PathBuf)>,
    /// What else the runtime's command line says.
    pub arguments: Vec<&'static str>,
    /// What it logs goes into a pipe that nobody reads.
    pub deaf: bool,
    /// The camera is not waited for: no arming.
    pub no_arming: bool,
    /// The link is QUIC, and both ends prove themselves with these.
    pub quic: Option<Tls>,
}

pub struct Stage {
    pub folder: tempfile::TempDir,
    pub runtime: Child,
    pub bench: Child,
    pub canary: Canary,
    pub reports: Shared<Report>,
    pub commands: Shared<Sent>,
    pub state: PathBuf,
    /// Where the runtime listens.
    pub endpoint: String,
    /// Where the bench robot listens.
    pub tap: String,
    /// From its start to its first answer.
    pub ready_ms: f64,
    at_runtime: Session,
    at_bench: Session,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in [&mut self.runtime, &mut self.bench] {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// A control period of a [`patient`] deployment.
pub const PATIENT_TICK_MS: u64 = 20;

/// At the slowest control rate the motor controller waits 80 ms for a command, not 20: for stories of something else, on a
/// machine that stands still for 20 ms now and then.
pub fn patient() -> [(&'static str, String); 2] {
    let hz = 1_000 / PATIENT_TICK_MS;
    [
        ("hz = 200.0", format!("hz = {hz}.0")),
        (
            "state_age_max_ms = 25",
            format!("state_age_max_ms = {}", 5 * PATIENT_TICK_MS),
        ),
    ]
}

pub fn free_endpoint() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    format!("tcp/{}", socket.local_addr().expect("an address"))
}

pub fn connect(endpoint: &str) -> Session {
    connect_with(endpoint, None)
}

fn connect_with(endpoint: &str, tls: Option<Tls>) -> Session {
    let link = LinkConfig {
        connect: Some(endpoint.to_owned()),
        tls,
        ..LinkConfig::default()
    };
    session::open(&link).expect("a session")
}

/// Writes the deployment into `folder` and returns the path of its tendon.toml.
pub fn deploy(folder: &Path, endpoint: &str, more: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = demo::TENDON_TOML
        .replace("../../engines", &root.join("engines").display().to_string())
        // An arm that has done what it was asked hides the block; the faults here are others.
        .replace("doubt_max = 0.5\n", "")
        .replace("tcp/127.0.0.1:7447\"\n\n", &format!("{endpoint}\"\n\n"))
        .replace("[page]\nlisten = \"127.0.0.1:8765\"", more);
    assert!(text.contains(endpoint), "{text}");
    let path = folder.join("tendon.toml");
    std::fs::write(&path, text).expect("written");
    std::fs::write(folder.join("robot.toml"), demo::ROBOT_TOML).expect("written");
    std::fs::write(folder.join("robot.urdf"), demo::ROBOT_URDF).expect("written");
    path
}

/// The runtime's command line, not started.
pub fn runtime(config: &Path, state: &Path, setting: &Setting) -> Command {
    let mut command = match &setting.group {
        None => Command::new(env!("CARGO_BIN_EXE_tendon")),
        Some(group) => {
            let mut shell = Command::new("sh");
            let joins = "echo $$ > \"$0\" && exec \"$@\"";
            shell.args(["-c", joins]).arg(group);
            shell.arg(env!("CARGO_BIN_EXE_tendon"));
            shell
        }
    };
    command.arg("run").arg("--config").arg(config);
    command.args(&setting.arguments);
    let out = std::fs::File::create(config.with_file_name("runtime.out"));
    command.env("STATE_DIRECTORY", state);
    command.stdout(out.expect("a file"));
    let log = config.with_file_name("runtime.log");
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(log)
        .expect("a log");
    command.stderr(log);
    command.envs(setting.env.iter().map(|(name, value)| (name, value)));
    if setting.deaf {
        command.stderr(Stdio::piped());
    }
    if let Some(drill) = &setting.drill {
        command.args(["--drill", drill]);
    }
    if let Some((socket, usec)) = &setting.notify {
        command
            .env("NOTIFY_SOCKET", socket)
            .env("WATCHDOG_USEC", usec.to_string());
    }
    command
}

/// A bench robot that is started. It stands for hardware of its own, which the load here does not reach: as nice as the link's
/// threads, where that is granted.
fn bench_robot(config: &Path, endpoint: &str, tap: &str, env: &[(&str, PathBuf)]) -> Child {
    let mut bench = Command::new("nice");
    bench.args(["-n", "-10", env!("CARGO_BIN_EXE_tendon")]);
    bench.args(["bench-robot", "--connect", endpoint, "--listen", tap]);
    bench.arg("--config").arg(config);
    bench.envs(env.iter().map(|(name, value)| (name, value)));
    let started = bench.stderr(Stdio::null()).spawn();
    started.expect("the bench robot starts")
}

/// The longest time between two commands that the motor controller was to follow, but for the machine's part of it.
pub fn longest_gap_ns(commands: &[Sent], canary: &Canary) -> u64 {
    let pairs = commands.windows(2).filter(|pair| {
        // One that was lost on its way to us was sent all the same.
        let both = pair[0].follow && pair[1].follow;
        both && pair[1].counter == pair[0].counter.wrapping_add(1)
    });
    let gaps = pairs.map(|pair| {
        let stall_ns = canary.any_ns(pair[0].at, pair[1].at);
        pair[1].at.since_ns(pair[0].at).saturating_sub(stall_ns)
    });
    gaps.max().unwrap_or(0)
}

impl Stage {
    /// Another motor controller in place of the one that is gone, which nobody taps.
    pub fn another_bench(&mut self) {
        let config = self.folder.path().join("tendon.toml");
        self.bench = bench_robot(&config, &self.endpoint, &free_endpoint(), &[]);
    }

    /// Both processes run, the robot is armed and moves (unless the setting says otherwise).
    #[track_caller]
    pub fn new(setting: &Setting) -> Stage {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut endpoint, tap) = (free_endpoint(), free_endpoint());
        if setting.quic.is_some() {
            endpoint = endpoint.replace("tcp/", "quic/");
        }
        let config = deploy(folder.path(), &endpoint, setting.toml);
        let mut text = std::fs::read_to_string(&config).expect("just written");
        if let Some(tls) = &setting.quic {
            let files = [
                ("ca", &tls.ca),
                ("certificate", &tls.certificate),
                ("key", &tls.key),
            ];
            let keys = files.map(|(key, file)| format!("\ntls_{key} = {file:?}"));
            text = text.replacen(
                &format!("{endpoint}\""),
                &format!("{endpoint}\"{}", keys.concat()),
                1,
            );
        }
        for (from, to) in &setting.edits {
            assert!(text.contains(from), "{from}: {text}");
            text = text.replacen(from, to, 1);
        }
        std::fs::write(&config, text).expect("written");
        let spawned = clock::now();
        let state = setting
            .state
            .clone()
            .unwrap_or_else(|| folder.path().join("state"));
        let runtime = runtime(&config, &state, setting)
            .spawn()
            .expect("the runtime starts");
        let bench = bench_robot(&config, &endpoint, &tap, &setting.env);
        let loaded =
            Config::bench_parts(demo::TENDON_TOML, demo::ROBOT_TOML).expect("the bench's files");
        let identities = Identities::of(ROBOT, &loaded.robot.joints);
        let (reports, commands) = (Shared::default(), Shared::default());
        let (at_runtime, at_bench) = (connect_with(&endpoint, setting.quic.clone()), connect(&tap));
        let into = Arc::clone(&reports);
        let subscriber = runtime_end::subscribe(&at_bench, keys::state(ROBOT), move |frame| {
            if let Ok(report) = state::decode(frame, identities.states) {
                into.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(report);
            }
        });
        // The session keeps it until the stage ends.
        std::mem::forget(subscriber.expect("subscribed"));
        let into = Arc::clone(&commands);
        let subscriber = at_runtime
            .declare_subscriber(keys::command(ROBOT))
            .callback(move |sample| {
                let frame = sample.payload().to_bytes();
                if frame.len() <= COMMAND_LEN_MAX
                    && let Ok(command) = command::decode(&frame, identities.commands)
                {
                    let sent = Sent {
                        at: command.sent,
                        heard: clock::now(),
                        held: command.verdict >= HELD,
                        verdict: command.verdict,
                        counter: command.counter,
                        follow: command.mode == command::MODE_FOLLOW,
                        chunk: command.provenance.chunk_id,
                        captured: command.provenance.captured,
                    };
                    into.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(sent);
                }
            });
        std::mem::forget(subscriber.wait().expect("subscribed"));
        let mut stage = Stage {
            folder,
            runtime,
            bench,
            canary: Canary::start(),
            reports,
            commands,
            state,
            endpoint,
            tap,
            at_runtime,
            at_bench,
            ready_ms: 0.0,
        };
        until("an answer", || stage.ask(keys::mode, "status").is_ok());
        stage.ready_ms = ms(clock::now().since_ns(spawned));
        if !setting.no_arming {
            stage.until_granted(keys::instruction, "put the red block in the left bin");
            stage.arm();
        }
        stage
    }

    /// Arms and waits until the robot follows and moves.
    #[track_caller]
    pub fn arm(&mut self) {
        // Refused while it follows: it may be on its way to rest, or armed still. Who has done what it was asked does not move.
        for _ in 0..100 {
            if self.ask_bench(&Request::Set(demo::scene(SCENE))).is_ok() {
                break;
            }
            demo::pause(20);
        }
        self.until_granted(keys::mode, "active");
        let deadline = clock::now().plus_ns(10_000 * MS);
        let moves = |reports: &Vec<Report>| {
            reports.last().is_some_and(|report| {
                report.mode == MotorMode::Following
                    && report.state.velocity.iter().any(|v| v.abs() > 0.05)
            })
        };
        while !locked(&self.reports, moves) {
            if self.jumped() {
                // Either may be refused, as nothing is latched any more or the motor controller has not let go yet.
                drop(self.ask(keys::mode, "reset"));
                drop(self.ask(keys::mode, "active"));
            }
            assert!(
                clock::now() < deadline,
                "armed, and no motion within 10 s: {:?}; the bench: {:?}; {}",
                self.ask(keys::mode, "status"),
                self.ask_bench(&Request::Report),
                self.log()
            );
            demo::pause(2);
        }
        demo::pause(150);
    }

    /// Whether it was armed before the state came that has the arm at home, and stopped over that, as it must: over the jump, or over
    /// first commands that were where the arm had been.
    pub fn jumped(&self) -> bool {
        let over = ["a measured joint jumped", "refuses our commands"];
        let said = self.ask(keys::mode, "status");
        said.is_ok_and(|said| over.iter().any(|over| said.contains(over)))
    }

    /// Asks the runtime.
    pub fn ask(&self, key: fn(&str) -> String, text: &str) -> Result<String, String> {
        operator_end::ask(&self.at_runtime, &key(ROBOT), text).map_err(|error| error.to_string())
    }

    /// Asks the bench robot.
    pub fn ask_bench(&self, request: &Request) -> Result<String, String> {
        let text = serde_json::to_string(request).map_err(|error| error.to_string())?;
        let answer = operator_end::ask(&self.at_bench, &keys::bench(ROBOT), &text);
        answer.map_err(|error| error.to_string())
    }

    #[track_caller]
    pub fn until_granted(&mut self, key: fn(&str) -> String, text: &str) {
        let mut said = Err("nothing".to_owned());
        let deadline = clock::now().plus_ns(15_000 * MS);
        while said.is_err() && clock::now() < deadline {
            if let Ok(Some(status)) = self.runtime.try_wait() {
                panic!("the runtime ended ({status}): {}", self.log());
            }
            said = self.ask(key, text);
            demo::pause(20);
        }
        assert!(said.is_ok(), "{text}: {said:?}: {}", self.log());
    }

    /// Checks that it is not armed again before a person has reset it.
    #[track_caller]
    pub fn stays_latched(&self) {
        let answer = self.ask(keys::mode, "active");
        assert!(
            answer.as_ref().is_err_and(|said| said.contains("latched")),
            "{answer:?}: {}",
            self.log()
        );
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("runtime.log")).unwrap_or_default()
    }

    /// The line of its output that starts so.
    pub fn said(&self, start: &str) -> Option<String> {
        let out = std::fs::read_to_string(self.folder.path().join("runtime.out"));
        let out = out.unwrap_or_default();
        out.lines()
            .find_map(|line| line.strip_prefix(start))
            .map(str::to_owned)
    }

    /// The crash record, once it is there.
    #[track_caller]
    pub fn crash(&self) -> Crash {
        let mut crash = None;
        until("a crash record", || {
            // A panic stands above a silence.
            let mut all = ["crash-bench.json", "silent-bench.json"].iter();
            crash = all.find_map(|name| {
                let text = std::fs::read_to_string(self.state.join(name)).ok()?;
                serde_json::from_str(&text).ok()
            });
            crash.is_some()
        });
        crash.expect("read")
    }

    /// Checks that the motor controller stopped by itself within `bound_ms` of the last command it took, by its own
    /// clock, and that nothing made it follow again. Returns what it took in milliseconds.
    #[track_caller]
    pub fn stopped_by_itself(&self, fault: &str, from: Mono, bound_ms: u64) -> f64 {
        let stopped =
            |report: &&Report| report.state.measured > from && report.mode == MotorMode::Stopped;
        until("the motor controller stops", || {
            locked(&self.reports, |reports| {
                reports.iter().any(|report| stopped(&report))
            })
        });
        demo::pause(100);
        // Its reports leave an interval; it knows better itself, if it can be asked: the cable may be cut.
        let report = self.ask_bench(&Request::Report).ok();
        let answer = report.and_then(|text| serde_json::from_str::<Answer>(&text).ok());
        if let Some(Silenced { after_ns, late_ns }) = answer.and_then(|answer| answer.silenced) {
            println!(
                "{fault}: by its own word after {:.1} ms, {:.1} ms of it for want of a processor (bound {bound_ms} ms)",
                ms(after_ns),
                ms(late_ns)
            );
            assert!(
                after_ns.saturating_sub(late_ns) <= bound_ms * MS,
                "{fault}: stopped after {:.1} ms, woken {:.1} ms late",
                ms(after_ns),
                ms(late_ns)
            );
        }
        locked(&self.reports, |reports| {
            let first = reports
                .iter()
                .position(|report| stopped(&report))
                .expect("seen above");
            let silence = Silence::before(reports, first);
            silence.in_time(fault, bound_ms, &self.canary);
            for report in &reports[first..] {
                assert_ne!(
                    report.mode,
                    MotorMode::Following,
                    "{fault}: it followed again, unasked"
                );
            }
            ms(silence.most_ns())
        })
    }

    /// Checks that the robot was held within `bound_ms` of `from`, by the runtime's clock. Under load the link loses
    /// commands, so when that was is known as an interval: from the last command that still followed, to the first held
    /// one that was seen. The bound must not be passed by the lower end. Returns the upper one.
    #[track_caller]
    pub fn held_within(&self, fault: &str, from: Mono, bound_ms: u64) -> f64 {
        self.held_as_within(fault, from, bound_ms, |_| true)
    }

    /// The same, where a held command counts only with such a verdict.
    #[track_caller]
    pub fn held_as_within(
        &self,
        fault: &str,
        from: Mono,
        bound_ms: u64,
        counts: impl Fn(u8) -> bool,
    ) -> f64 {
        let held = |sent: &&Sent| sent.at > from && sent.held && counts(sent.verdict);
        until("a held command", || {
            locked(&self.commands, |commands| {
                commands.iter().any(|sent| held(&sent))
            })
        });
        let (least, most) = locked(&self.commands, |commands| {
            let most = commands.iter().find(held).expect("seen above").at;
            let before = commands.iter().filter(|sent| sent.at < most);
            let least = before.map(|sent| sent.at).max().unwrap_or(from);
            (least.max(from), most)
        });
        let (least_ns, most_ns) = (least.since_ns(from), most.since_ns(from));
        let stall_ns = self.canary.stall_ns(from, least);
        println!(
            "{fault}: held {:.1} to {:.1} ms after the fault (bound {bound_ms} ms, machine stood still {:.1} ms)",
            ms(least_ns),
            ms(most_ns),
            ms(stall_ns)
        );
        assert!(
            least_ns <= bound_ms * MS + stall_ns,
            "{fault}: still followed after {:.1} ms",
            ms(least_ns)
        );
        ms(most_ns)
    }

    /// No command ever implied more than the limits.
    #[track_caller]
    pub fn within_limits(&self) {
        locked(&self.reports, |reports| {
            let last = reports.last().expect("reports");
            assert_eq!(last.limit_violations, 0, "{last:?}");
        });
    }
}

/// What the motor controller heard before it stopped by itself: nothing. Reports are the ticks of its clock, so when it took
/// the last command, and when it stopped, is known as an interval each.
#[derive(Debug)]
pub struct Silence {
    /// The last command was taken after this report and not after the next.
    pub before_heard: Mono,
    heard: Mono,
    /// The same of the stop.
    before_stopped: Mono,
    pub stopped: Mono,
}

impl Silence {
    /// Before the stop that report `stopped` is the first to tell of.
    #[track_caller]
    pub fn before(reports: &[Report], stopped: usize) -> Silence {
        let accepted = reports[stopped].accepted;
        let heard = reports
            .iter()
            .position(|report| report.accepted == accepted)
            .expect("itself");
        let at = |index: usize| reports[index].state.measured;
        Silence {
            before_heard: at(heard.saturating_sub(1)),
            heard: at(heard),
            before_stopped: at(stopped.saturating_sub(1)),
            stopped: at(stopped),
        }
    }

    pub fn most_ns(&self) -> u64 {
        self.stopped.since_ns(self.before_heard)
    }

    /// Checks that it was no longer than `bound_ms` and what the machine stood still.
    #[track_caller]
    pub fn in_time(&self, fault: &str, bound_ms: u64, canary: &Canary) {
        let stall_ns = canary.stall_ns(self.heard, self.stopped);
        let least_ns = self.before_stopped.since_ns(self.heard);
        println!(
            "{fault}: stopped {:.1} to {:.1} ms after the last command (bound {bound_ms} ms, machine stood still {:.1} ms)",
            ms(least_ns),
            ms(self.most_ns()),
            ms(stall_ns)
        );
        assert!(
            least_ns <= bound_ms * MS + stall_ns,
            "{fault}: the motor controller still followed {:.1} ms after the last command",
            ms(least_ns)
        );
    }
}

pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Sends a signal by name; returns the time just before.
pub fn signal(child: &Child, name: &str) -> Mono {
    let before = clock::now();
    let status = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "kill -s {name}"
    );
    before
}

/// Waits for the end of a process and says by which signal it ended, if by one.
pub fn ended(child: &mut Child, within: Duration) -> Option<i32> {
    let deadline = clock::now().plus_ns(within.as_nanos() as u64);
    while clock::now() < deadline {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status.signal().unwrap_or(0));
        }
        demo::pause(5);
    }
    None
}
