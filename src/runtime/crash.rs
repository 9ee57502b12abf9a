// SPDX-License-Identifier: Apache-2.0
//! Crash records: a thread that panics, or does not come round, is named in a file that survives the process. It is
//! shown at the next start, and the robot is not armed before a person has acknowledged it (`tendon mode reset`).
//!
//! The file is `crash-<robot>.json` in the state directory, written beside itself, synced and renamed; acknowledging
//! renames it to `crash-<robot>-acknowledged.json`, so the last one can still be read. An end that no thread could write
//! down is known by what [`armed`](crate::runtime::armed) left.

use crate::runtime::armed::ArmedFile;
use crate::runtime::clock;
use crate::runtime::durable;
use crate::runtime::threads::Spec;
use crate::runtime::views::Views;
use crate::sync::heartbeat::Beat;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

/// How a thread ran before the crash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastTicks {
    /// The thread.
    pub thread: String,
    /// How long before the record it last came round.
    pub last_ms_ago: f64,
    /// Times between its last marks, oldest first.
    pub periods_ms: Vec<f64>,
}

/// What is known of a crash.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crash {
    /// The thread that failed.
    pub thread: String,
    /// What it said, or that it said nothing.
    pub cause: String,
    /// Source file and line, if it panicked.
    pub location: Option<String>,
    /// The version of the program.
    pub version: String,
    /// Time since boot.
    pub monotonic_ns: u64,
    /// Every thread of the pipeline.
    pub last_ticks: Vec<LastTicks>,
}

/// What is known of a process that ended armed and wrote nothing.
const ENDED_ARMED: &str = "ended while the robot was armed, and left no record: killed, out of memory, crashed outside Rust, ended \
                           by the service manager, or without power";

impl Crash {
    /// One that no thread could write down.
    fn unwritten(cause: String) -> Crash {
        Crash {
            thread: "unknown".into(),
            cause,
            location: None,
            version: String::new(),
            monotonic_ns: 0,
            last_ticks: Vec::new(),
        }
    }

    /// For people, on one line.
    #[must_use]
    pub fn words(&self) -> String {
        let location = self
            .location
            .as_deref()
            .map(|at| format!(" ({at})"))
            .unwrap_or_default();
        format!("thread {}: {}{location}", self.thread, self.cause)
    }
}

/// A record could not be written or moved.
#[derive(Debug, thiserror::Error)]
#[error("{}: expected a directory that can be written to: {reason}; set STATE_DIRECTORY", .path.display())]
pub struct CrashError {
    path: PathBuf,
    reason: std::io::Error,
}

/// Writes, shows and acknowledges the records of one robot.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    /// Whether the robot is armed, for the next start.
    pub armed: ArmedFile,
    /// What its cameras showed when it was.
    pub views: Views,
    beats: Mutex<Vec<(Spec, Beat)>>,
    written: AtomicBool,
    /// Set when a thread of this process has panicked, before anything is written: a disk and a backtrace take their
    /// time, the robot stops meanwhile.
    pub failed: Arc<AtomicBool>,
    /// The record of an earlier process that nobody has acknowledged.
    pending: Mutex<Option<Crash>>,
    unacknowledged: AtomicBool,
}

/// Where state is kept: systemd's `STATE_DIRECTORY`, else as the XDG base directory specification says.
#[must_use]
pub fn state_directory() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    // systemd separates several by colons; ours is the first.
    let first = |path: PathBuf| path.to_string_lossy().split(':').next().map(PathBuf::from);
    variable("STATE_DIRECTORY")
        .and_then(first)
        .or_else(|| variable("XDG_STATE_HOME").map(|home| home.join("tendon")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/state/tendon")))
}

fn record_of(directory: &Path, robot: &str) -> PathBuf {
    directory.join(format!("crash-{robot}.json"))
}

/// The crash that an earlier process left in `directory`, if nobody has acknowledged it. Changes nothing.
///
/// # Errors
/// What the system says of a record that is there and cannot be opened.
pub fn unacknowledged(directory: &Path, robot: &str) -> std::io::Result<Option<Crash>> {
    let path = record_of(directory, robot);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(serde_json::from_str(&text).unwrap_or_else(|error| {
            Crash::unwritten(format!(
                "{}: the record cannot be read: {error}",
                path.display()
            ))
        }))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let left = ArmedFile::of(directory, robot).left()?;
            Ok(left.then(|| Crash::unwritten(ENDED_ARMED.into())))
        }
        Err(error) => Err(error),
    }
}

impl Recorder {
    /// Reads what an earlier process left in `directory`, which is made if it is missing.
    ///
    /// # Errors
    /// [`CrashError`] if the directory cannot be written to: a crash that cannot be recorded cannot be acknowledged.
    pub fn open(directory: &Path, robot: &str) -> Result<Recorder, CrashError> {
        let fault = |reason| CrashError {
            path: directory.to_owned(),
            reason,
        };
        std::fs::create_dir_all(directory).map_err(fault)?;
        let pending = unacknowledged(directory, robot).map_err(fault)?;
        Ok(Recorder {
            path: record_of(directory, robot),
            armed: ArmedFile::of(directory, robot),
            views: Views::read(directory, robot),
            beats: Mutex::default(),
            written: AtomicBool::new(false),
            failed: Arc::default(),
            unacknowledged: AtomicBool::new(pending.is_some()),
            pending: Mutex::new(pending),
        })
    }

    /// The crash that somebody must acknowledge before the robot may be armed.
    #[must_use]
    pub fn pending(&self) -> Option<Crash> {
        self.pending
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether there is one; reads one flag, for the watchdog.
    #[must_use]
    pub fn unacknowledged(&self) -> bool {
        self.unacknowledged.load(Ordering::Acquire)
    }

    /// A person has seen it. Returns whether there was anything to acknowledge.
    ///
    /// # Errors
    /// [`CrashError`]; the crash then stays unacknowledged.
    pub fn acknowledge(&self) -> Result<bool, CrashError> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.is_none() {
            return Ok(false);
        }
        let robot_acknowledged = self.path.with_extension("");
        let kept = PathBuf::from(format!(
            "{}-acknowledged.json",
            robot_acknowledged.display()
        ));
        let moved = match std::fs::rename(&self.path, kept) {
            // There is none of a process that ended armed and could write nothing.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => self.armed.forget(),
        };
        moved
            .and_then(|()| durable::sync_folder(&self.path))
            .map_err(|reason| CrashError {
                path: self.path.clone(),
                reason,
            })?;
        *pending = None;
        self.unacknowledged.store(false, Ordering::Release);
        Ok(true)
    }

    /// A thread whose last ticks a record shall hold.
    pub fn knows(&self, spec: Spec, beat: Beat) {
        self.beats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((spec, beat));
    }

    /// Writes the record of the first failure of this process; later ones are its consequences.
    pub fn record(&self, thread: &str, cause: &str, location: Option<String>) {
        if self.written.swap(true, Ordering::AcqRel) {
            return;
        }
        let now = clock::now();
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let last_ticks = beats.iter().map(|(spec, beat)| {
            let marks: Vec<_> = beat.marks().collect();
            let ms = |ns: u64| (ns / 1_000) as f64 / 1_000.0;
            LastTicks {
                thread: spec.name.to_owned(),
                last_ms_ago: marks.last().map_or(0.0, |last| ms(now.since_ns(*last))),
                periods_ms: marks
                    .windows(2)
                    .map(|pair| ms(pair[1].since_ns(pair[0])))
                    .collect(),
            }
        });
        let crash = Crash {
            thread: thread.to_owned(),
            cause: cause.to_owned(),
            location,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            monotonic_ns: now.0,
            last_ticks: last_ticks.collect(),
        };
        if let Err(error) = self.write(&crash) {
            log::error!(
                "{}: the crash record was not written: {error}: {}",
                self.path.display(),
                crash.words()
            );
        }
    }

    fn write(&self, crash: &Crash) -> std::io::Result<()> {
        durable::replace(&self.path, &serde_json::to_vec_pretty(crash)?)
    }
}

thread_local! {
    static LAST_WORDS: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What the calling thread said when it last panicked; empty where [`hook`] was not called.
#[must_use]
pub fn last_words() -> String {
    LAST_WORDS.with_borrow(String::clone)
}

static RECORDER: OnceLock<Arc<Recorder>> = OnceLock::new();

/// From now on a panic in any thread of this process, a library's included, is written down by `recorder`.
pub fn hook(recorder: Arc<Recorder>) {
    static ONCE: Once = Once::new();
    // A process has one robot: the first recorder stays.
    let _ = RECORDER.set(recorder);
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if let Some(recorder) = RECORDER.get() {
                recorder.failed.store(true, Ordering::Release);
            }
            let cause = info.payload_as_str().unwrap_or("a panic without words");
            LAST_WORDS.with_borrow_mut(|words| cause.clone_into(words));
            if let Some(recorder) = RECORDER.get() {
                let thread = std::thread::current();
                recorder.record(
                    thread.name().unwrap_or("without a name"),
                    cause,
                    info.location().map(ToString::to_string),
                );
            }
            before(info);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::threads;

    #[test]
    fn a_record_survives_is_shown_and_acknowledged_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Recorder::open(&folder.path().join("new"), "bench").expect("opens");
        let first = open();
        assert!(!first.unacknowledged());
        let beat = Beat::new();
        (1..=3).for_each(|tick| beat.mark(crate::core::units::Mono(tick * 5_000_000)));
        first.knows(threads::CONTROL, beat);
        first.record("control", "first", Some("a.rs:1".into()));
        first.record("governor", "its consequence", None);
        assert!(
            !first.unacknowledged(),
            "of this process: the watchdog stops the robot, the next start asks"
        );
        let second = open();
        let crash = second.pending().expect("a record");
        assert_eq!(
            (crash.thread.as_str(), crash.cause.as_str()),
            ("control", "first")
        );
        assert_eq!(crash.last_ticks[0].periods_ms, [5.0, 5.0]);
        assert!(second.unacknowledged());
        assert!(second.acknowledge().expect("moved"));
        assert!(!second.unacknowledged() && !second.acknowledge().expect("nothing to do"));
        assert_eq!(open().pending(), None);
    }

    #[test]
    fn a_record_that_cannot_be_read_still_asks_for_a_person() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("crash-bench.json"), "{").expect("written");
        let recorder = Recorder::open(folder.path(), "bench").expect("opens");
        assert!(
            recorder
                .pending()
                .expect("one")
                .cause
                .contains("cannot be read")
        );
    }

    #[test]
    fn a_state_directory_that_is_none_is_refused_with_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        let error = Recorder::open(&file, "bench")
            .expect_err("a file")
            .to_string();
        assert!(error.contains("file: expected a directory"), "{error}");
    }
}
