// SPDX-License-Identifier: Apache-2.0
//! The runtime as a process, and the suite between it and the motor controller: it hands commands on one way and states the
//! other. So it hears both ends, the controller also while the runtime is frozen or gone, whichever end of the link listens, and
//! with a controller that speaks with one peer only.
//!
//! What this adds to a command's way is no part of any time that is judged: the controller's stop counts from the last command
//! that it took, the runtime's reaction from its own stamps. Pictures are not handed on: nothing here asks the policy.

use crate::hands::Hands;
use crate::{Lab, free_endpoint, program, said};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempDir;
use tendon::config::Config;
use tendon::config::link::LinkConfig;
use tendon::core::units::{MS, Mono};
use tendon::core::wire::Identity;
use tendon::core::wire::command;
use tendon::link::runtime_end::{CommandSender, subscribe};
use tendon::link::session::LinkError;
use tendon::link::{keys, operator_end, session};
use tendon::runtime::{clock, demo};
use toml::{Table, Value};
use zenoh::pubsub::Subscriber;
use zenoh::qos::{CongestionControl, Priority};
use zenoh::{Session, Wait};

/// The share of the speed limits with which the runtime may move the robot here.
pub const SPEED_PERCENT: f64 = 10.0;
/// A held command's verdict is this plus its cause: see docs/wire.md.
const HELD: u8 = 16;
/// Lines of its log that are told of a runtime that ended.
const LAST_WORDS: usize = 8;

/// A command of the runtime.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// When, by its stamp: the runtime is on this machine, and reads the same clock.
    pub at: Mono,
    /// Whether it says that the robot is held.
    pub held: bool,
}

/// A runtime that ends with whoever holds it, also where it is frozen. A robot that it moves is then stopped by the motor
/// controller, which has shown before that it does.
pub struct Runtime {
    child: Child,
    log: PathBuf,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end();
    }
}

impl Runtime {
    /// Sends it a signal; the time just before.
    pub fn signal(&self, signal: Signal) -> Result<Mono, String> {
        let before = clock::now();
        kill_process(Pid::from_child(&self.child), signal).map_err(said)?;
        Ok(before)
    }

    /// An error if it has ended, with its last words.
    pub fn runs(&mut self) -> Result<(), String> {
        match self.child.try_wait().map_err(said)? {
            None => Ok(()),
            Some(status) => Err(format!(
                "the runtime has ended ({status}): {}",
                self.last_words()
            )),
        }
    }

    /// How it ended, if it does within so long.
    pub fn ended(&mut self, within_ms: u64) -> Option<ExitStatus> {
        let deadline = clock::now().plus_ns(within_ms * MS);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            if clock::now() > deadline {
                return None;
            }
            demo::pause(2);
        }
    }

    /// Kills it, if it is there yet.
    pub fn end(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join(" / ")
    }
}

/// See the module's text.
pub struct Between {
    _handed_on: [Subscriber<()>; 3],
    session: Session,
    robot: String,
    /// The deployment, with this as the other end of its link.
    config: PathBuf,
    sent: Arc<Mutex<Vec<Sent>>>,
    folder: TempDir,
}

impl Between {
    /// Between the lab's controller, whose commands have this identity, and a runtime that is not started yet.
    pub fn open(lab: &Lab, identity: Identity) -> Result<Between, String> {
        let folder = tempfile::tempdir().map_err(said)?;
        let link = local_link(lab, folder.path())?;
        let config = deployment(lab, folder.path(), &link)?;
        let session = session::open(&link).map_err(said)?;
        let robot = lab.config.robot.name.clone();
        let sent: Arc<Mutex<Vec<Sent>>> = Arc::default();
        let into = Arc::clone(&sent);
        let commands = CommandSender::new(&lab.session, &robot).map_err(said)?;
        let down = subscribe(&session, keys::command(&robot), move |frame| {
            // Whether it came is seen in the echo.
            let _ = commands.send(frame);
            if let Ok(command) = command::decode(frame, identity) {
                let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
                into.push(Sent {
                    at: command.sent,
                    held: command.verdict >= HELD,
                });
            }
        });
        let states = session
            .declare_publisher(keys::state(&robot))
            .congestion_control(CongestionControl::Drop)
            .priority(Priority::RealTime)
            .express(true)
            .wait()
            .map_err(said)?;
        let up = subscribe(&lab.session, keys::state(&robot), move |frame| {
            // A runtime that is frozen takes none.
            drop(states.put(frame).wait());
        });
        // A switch that is held elsewhere tells whoever is at the other end of the link.
        let switch = CommandSender::of_deadman(&session, &robot).map_err(said)?;
        let held = subscribe(&lab.session, keys::deadman(&robot), move |frame| {
            let _ = switch.send(frame);
        });
        Ok(Between {
            _handed_on: [down.map_err(said)?, up.map_err(said)?, held.map_err(said)?],
            session,
            robot,
            config,
            sent,
            folder,
        })
    }

    /// Starts the runtime, with a drill if one is named. What it remembers stays in the stage's own folder.
    pub fn start(&self, drill: Option<&str>) -> Result<Runtime, String> {
        let log = self.folder.path().join("runtime.log");
        let mut options = File::options();
        let file = options.create(true).append(true).open(&log).map_err(said)?;
        let program = program::tendon();
        let mut command = Command::new(&program);
        command.arg("run").arg("--config").arg(&self.config);
        if let Some(drill) = drill {
            command.args(["--drill", drill]);
        }
        let child = command
            .env("STATE_DIRECTORY", self.folder.path().join("state"))
            // No service manager is told of it.
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(said)?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        Ok(Runtime { child, log })
    }

    /// Waits until the runtime answers.
    pub fn awake(&self, hands: &Hands, runtime: &mut Runtime) -> Result<(), String> {
        // A large policy takes its time to load.
        let patience_s = if hands.person() { 180 } else { 20 };
        let deadline = clock::now().plus_ns(patience_s * 1_000 * MS);
        while let Err(error) = self.ask(keys::mode, "status") {
            runtime.runs()?;
            if clock::now() > deadline {
                let words = runtime.last_words();
                return Err(format!(
                    "the runtime did not answer within {patience_s} s: {error}: {words}"
                ));
            }
            demo::pause(20);
        }
        Ok(())
    }

    /// Asks the runtime.
    pub fn ask(&self, key: fn(&str) -> String, text: &str) -> Result<String, LinkError> {
        operator_end::ask(&self.session, &key(&self.robot), text)
    }

    /// Asks again and again, until it is granted: the link must have flowed for a second, a person may have to hold a switch.
    pub fn until_granted(
        &self,
        hands: &Hands,
        runtime: &mut Runtime,
        key: fn(&str) -> String,
        text: &str,
    ) -> Result<(), String> {
        let patience_s = if hands.person() { 60 } else { 15 };
        let deadline = clock::now().plus_ns(patience_s * 1_000 * MS);
        let mut told = String::new();
        loop {
            let refused = match self.ask(key, text) {
                Ok(_) => return Ok(()),
                Err(error) => error.to_string(),
            };
            runtime.runs()?;
            if clock::now() > deadline {
                return Err(format!(
                    "\"{text}\" was not granted within {patience_s} s: {refused}"
                ));
            }
            if hands.person() && refused != told {
                println!(">> The runtime refuses \"{text}\" so far: {refused}");
            }
            told = refused;
            demo::pause(20);
        }
    }

    /// What the runtime has sent since then.
    pub fn sent_since(&self, from: Mono) -> Vec<Sent> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let since = sent.iter().filter(|sent| sent.at > from);
        since.copied().collect()
    }
}

/// Where the runtime finds this: on this machine alone, and by a password, as whoever came here instead of the runtime would move the
/// robot. It is the deployment's, or one for this stage. The list of users that zenoh wants is made beside a copy of it, as the
/// deployment's folder may be read only.
fn local_link(lab: &Lab, folder: &Path) -> Result<LinkConfig, String> {
    let own = &lab.config.link;
    // The folder is this user's alone.
    let copy = folder.join("password");
    let user = match &own.credentials {
        None => {
            let mut random = [0; 16];
            File::open("/dev/urandom")
                .and_then(|mut file| file.read_exact(&mut random))
                .map_err(|error| format!("/dev/urandom: {error}"))?;
            let word = format!("{:032x}", u128::from_ne_bytes(random));
            std::fs::write(&copy, word).map_err(said)?;
            "tendon".to_owned()
        }
        Some((user, password)) => {
            std::fs::copy(password, &copy)
                .map_err(|error| format!("{}: {error}", password.display()))?;
            user.clone()
        }
    };
    Ok(LinkConfig {
        listen: Some(free_endpoint()?),
        connect: None,
        credentials: Some((user, copy)),
        tls: own.tls.clone(),
    })
}

/// The deployment as it is, but for: its link, which leads here; its speed; its page, which the service may have; and the machine's
/// hardware watchdog, which would reset the machine when the runtime is killed.
fn deployment(lab: &Lab, folder: &Path, link: &LinkConfig) -> Result<PathBuf, String> {
    let text = std::fs::read_to_string(&lab.deployment).map_err(said)?;
    let mut written: Table = text.parse().map_err(said)?;
    let home = std::path::absolute(&lab.deployment).map_err(said)?;
    let home = home.parent().unwrap_or(Path::new("/"));
    // Paths are relative to the file in which they stand, and this one stands elsewhere.
    rooted(&mut written, &["robot", "inference_program"], home);
    let places: [(&str, &[&str]); 3] = [
        ("policy", &["bundle", "engine_cache"]),
        ("link", &["tls_ca", "tls_certificate", "tls_key"]),
        ("camera", &["path"]),
    ];
    for (name, keys) in places {
        match written.get_mut(name) {
            Some(Value::Table(table)) => rooted(table, keys, home),
            Some(Value::Array(tables)) => {
                let tables = tables.iter_mut().filter_map(Value::as_table_mut);
                tables.for_each(|table| rooted(table, keys, home));
            }
            Some(_) | None => {}
        }
    }
    let table = |written: &mut Table, name: &str| match written.remove(name) {
        Some(Value::Table(table)) => table,
        Some(_) | None => Table::new(),
    };
    let mut to_here = table(&mut written, "link");
    to_here.remove("listen");
    let endpoint = link.listen.clone().unwrap_or_default();
    to_here.insert("connect".into(), Value::String(endpoint));
    if let Some((user, password)) = &link.credentials {
        let password = password.display().to_string();
        to_here.insert("user".into(), Value::String(user.clone()));
        to_here.insert("password_file".into(), Value::String(password));
    }
    written.insert("link".into(), Value::Table(to_here));
    let mut governor = table(&mut written, "governor");
    let percent = lab.config.speed_percent.min(SPEED_PERCENT);
    governor.insert("speed_percent".into(), Value::Float(percent));
    written.insert("governor".into(), Value::Table(governor));
    written.remove("page");
    written.remove("watchdog");
    let path = folder.join("tendon.toml");
    std::fs::write(&path, written.to_string()).map_err(said)?;
    match Config::load(&path) {
        Ok(config) if config.speed_percent == percent => Ok(path),
        Ok(config) => Err(format!(
            "the deployment for this stage: expected {percent} % of the speed, found {}",
            config.speed_percent
        )),
        Err(problems) => {
            let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
            Err(format!(
                "the deployment for this stage: {}",
                lines.join("; ")
            ))
        }
    }
}

/// Paths under these keys, if they are there, from the root on.
fn rooted(table: &mut Table, keys: &[&str], home: &Path) {
    for key in keys {
        if let Some(Value::String(path)) = table.get_mut(*key) {
            *path = home.join(path.as_str()).display().to_string();
        }
    }
}
