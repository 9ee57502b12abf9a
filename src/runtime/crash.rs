// SPDX-License-Identifier: Apache-2.0
//! Crash records: a thread that panics, or does not come round, is named in a file that survives the process. It is
//! shown at the next start, and the robot is not armed before a person has acknowledged it (`tendon mode reset`).
//!
//! A panic is written to `crash-<robot>.json` in the state directory, beside itself, synced and renamed; acknowledging
//! renames it to `crash-<robot>-acknowledged.json`, so the last one can still be read. An end that no thread could write
//! down is known by what [`armed`](crate::runtime::armed) left.
//!
//! A silence is written to `silent-<robot>.json`, and is preliminary: the file is removed if the threads come round again
//! before a watchdog has struck. It is a file of its own so that a thread that panics waits for nobody who writes or removes
//! that one, and neither can take the other's place: where both are there, the panic is what is shown.

use crate::runtime::armed::ArmedFile;
use crate::runtime::clock;
use crate::runtime::durable;
use crate::runtime::threads::Spec;
use crate::runtime::views::Views;
use crate::sync::heartbeat::Beat;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
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

/// What became of the record of a silence. The service thread writes it down and says that it is over, the memory thread
/// removes the file; each takes the state first to one in which the other leaves the file alone.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Silence {
    /// There is none of this process.
    None = 0,
    /// It is written down, and lasts.
    Written = 1,
    /// It is over: the file is to be removed, unless another one comes before.
    Over = 2,
    /// The file is being removed.
    Removing = 3,
}

/// Writes, shows and acknowledges the records of one robot.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    silent_path: PathBuf,
    /// Whether the robot is armed, for the next start.
    pub armed: ArmedFile,
    /// What its cameras showed when it was.
    pub views: Views,
    beats: Mutex<Vec<(Spec, Beat)>>,
    /// A panic of this process is written down, or about to be.
    written: AtomicBool,
    /// A [`Silence`].
    silence: AtomicU8,
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

fn silence_of(directory: &Path, robot: &str) -> PathBuf {
    directory.join(format!("silent-{robot}.json"))
}

/// A record, if there is one.
fn read(path: &Path) -> std::io::Result<Option<Crash>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(serde_json::from_str(&text).unwrap_or_else(|error| {
            Crash::unwritten(format!(
                "{}: the record cannot be read: {error}",
                path.display()
            ))
        }))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The crash that an earlier process left in `directory`, if nobody has acknowledged it. Changes nothing.
///
/// # Errors
/// What the system says of a record that is there and cannot be opened.
pub fn unacknowledged(directory: &Path, robot: &str) -> std::io::Result<Option<Crash>> {
    for path in [record_of(directory, robot), silence_of(directory, robot)] {
        if let Some(crash) = read(&path)? {
            return Ok(Some(crash));
        }
    }
    let left = ArmedFile::of(directory, robot).left()?;
    Ok(left.then(|| Crash::unwritten(ENDED_ARMED.into())))
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
            silent_path: silence_of(directory, robot),
            armed: ArmedFile::of(directory, robot),
            views: Views::read(directory, robot),
            beats: Mutex::default(),
            written: AtomicBool::new(false),
            silence: AtomicU8::new(Silence::None as u8),
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
        let moved = |path: &Path| match std::fs::rename(path, &kept) {
            // There is none of a process that ended armed and could write nothing.
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        // The panic's last: where both are there, it is what was shown and what is kept.
        moved(&self.silent_path)
            .and_then(|()| moved(&self.path))
            .and_then(|()| self.armed.forget())
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

    /// Writes the record of the first panic of this process; later ones are its consequences.
    pub fn record(&self, thread: &str, cause: &str, location: Option<String>) {
        if self.written.swap(true, Ordering::AcqRel) {
            return;
        }
        self.write(&self.path, &self.crash(thread, cause, location));
    }

    /// Writes down that a thread does not come round, until [`Recorder::came_back`]. Nothing where a panic is on record, whose
    /// consequence it is, or where an earlier crash is that nobody has acknowledged: it would be written over, and forgotten with
    /// the silence. For the service thread alone, each time round.
    pub fn silent(&self, thread: &str, cause: &str) {
        if self.written.load(Ordering::Acquire) || self.unacknowledged() {
            return;
        }
        // One that is over may stand there yet: it is replaced. While it is being removed, the next time round is soon enough.
        if self.silence_turns(Silence::None, Silence::Written)
            || self.silence_turns(Silence::Over, Silence::Written)
        {
            self.write(&self.silent_path, &self.crash(thread, cause, None));
        }
    }

    /// All threads come round again: the record of the silence is void. Touches no disk. For the service thread alone.
    pub fn came_back(&self) {
        self.silence_turns(Silence::Written, Silence::Over);
    }

    /// Removes the record of a silence that is over. May take as long as the disk does. For the memory thread alone.
    pub fn forget_silence(&self) {
        if !self.silence_turns(Silence::Over, Silence::Removing) {
            return;
        }
        if let Err(error) = durable::remove(&self.silent_path) {
            log::error!(
                "{}: {error}: could not be removed; the next start will ask for a reset",
                self.silent_path.display()
            );
        }
        self.silence.store(Silence::None as u8, Ordering::Release);
    }

    /// Takes it from one state to another; whether it was in the first.
    fn silence_turns(&self, from: Silence, to: Silence) -> bool {
        let turned = self.silence.compare_exchange(
            from as u8,
            to as u8,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        turned.is_ok()
    }

    /// What is known of it now.
    fn crash(&self, thread: &str, cause: &str, location: Option<String>) -> Crash {
        let now = clock::now();
        // Copied: who writes another record need not wait for this one's disk.
        let beats = self
            .beats
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
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
        Crash {
            thread: thread.to_owned(),
            cause: cause.to_owned(),
            location,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            monotonic_ns: now.0,
            last_ticks: last_ticks.collect(),
        }
    }

    fn write(&self, path: &Path, crash: &Crash) {
        let text = serde_json::to_vec_pretty(crash).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| durable::replace(path, &text)) {
            log::error!(
                "{}: the crash record was not written: {error}: {}",
                path.display(),
                crash.words()
            );
        }
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

    /// The thread that a start would name now.
    fn left(folder: &Path) -> Option<String> {
        let crash = unacknowledged(folder, "bench").expect("read");
        crash.map(|crash| crash.thread)
    }

    #[test]
    fn a_silence_that_ends_leaves_nothing_and_the_next_one_is_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let recorder = Recorder::open(folder.path(), "bench").expect("opens");
        let left = || left(folder.path());
        recorder.silent("egress", "has not come round");
        assert_eq!(left().as_deref(), Some("egress"));
        // It lasts, and another thread waits for the first.
        recorder.silent("control", "has not come round");
        recorder.forget_silence();
        assert_eq!(left().as_deref(), Some("egress"), "the first is the cause");
        recorder.came_back();
        recorder.forget_silence();
        assert_eq!(left(), None);

        recorder.silent("control", "has not come round");
        assert_eq!(left().as_deref(), Some("control"));
        // Silent again before the disk came to remove it.
        recorder.came_back();
        recorder.silent("telemetry", "has not come round");
        recorder.forget_silence();
        assert_eq!(left().as_deref(), Some("telemetry"));
    }

    #[test]
    fn a_panic_stands_above_a_silence_and_outlives_it() {
        for comes_back in [true, false] {
            let folder = tempfile::tempdir().expect("a folder");
            let open = || Recorder::open(folder.path(), "bench").expect("opens");
            let first = open();
            first.silent("egress", "has not come round");
            first.record("governor", "on purpose", Some("a.rs:1".into()));
            assert_eq!(left(folder.path()).as_deref(), Some("governor"));
            if comes_back {
                first.came_back();
                first.forget_silence();
                assert_eq!(left(folder.path()).as_deref(), Some("governor"));
                first.silent("governor", "has not come round");
                let silent = folder.path().join("silent-bench.json");
                assert!(!silent.exists(), "its consequence");
            }
            let second = open();
            assert!(second.acknowledge().expect("moved"));
            assert_eq!(left(folder.path()), None, "neither is left");
            let kept = folder.path().join("crash-bench-acknowledged.json");
            let kept = read(&kept).expect("read").expect("kept");
            assert_eq!(kept.thread, "governor");
        }
    }

    #[test]
    fn a_silence_neither_replaces_nor_removes_what_nobody_has_acknowledged() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Recorder::open(folder.path(), "bench").expect("opens");
        open().silent("egress", "has not come round");
        let second = open();
        second.silent("control", "has not come round");
        second.came_back();
        second.forget_silence();
        assert_eq!(left(folder.path()).as_deref(), Some("egress"));
        assert!(second.acknowledge().expect("moved"));
        assert_eq!(left(folder.path()), None);
        second.silent("control", "has not come round");
        assert_eq!(left(folder.path()).as_deref(), Some("control"));
    }

    #[test]
    fn a_panic_while_silences_come_and_go_is_on_record() {
        for _ in 0..8 {
            let folder = tempfile::tempdir().expect("a folder");
            let recorder = Recorder::open(folder.path(), "bench").expect("opens");
            let silent = folder.path().join("silent-bench.json");
            let over = AtomicBool::new(false);
            std::thread::scope(|threads| {
                // As the service thread.
                threads.spawn(|| {
                    while !over.load(Ordering::Acquire) {
                        recorder.silent("egress", "has not come round");
                        recorder.came_back();
                    }
                });
                // As the memory thread.
                threads.spawn(|| {
                    while !over.load(Ordering::Acquire) {
                        recorder.forget_silence();
                    }
                });
                let begun = clock::now();
                while !silent.exists() && clock::now().since_ns(begun) < 10_000_000_000 {
                    std::thread::yield_now();
                }
                recorder.record("governor", "on purpose", None);
                over.store(true, Ordering::Release);
            });
            assert_eq!(left(folder.path()).as_deref(), Some("governor"));
            recorder.forget_silence();
            assert!(!silent.exists(), "that one was over");
        }
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
