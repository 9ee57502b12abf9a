// SPDX-License-Identifier: Apache-2.0
//! Log lines, on stderr or in the journal. The hot path never formats one; what it has to say goes through telemetry.
//!
//! Whoever logs does not wait: lines go into a queue, and one thread writes them, so that a terminal that is stopped or a
//! journal that is full stops nobody else. What does not fit, and what is more than a reader could follow, is counted and
//! said instead. Where standard error is systemd's journal, a line is an entry with fields ([`super::journal`]).

use crate::cli::journal::Journal;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tendon::core::units::Mono;
use tendon::runtime::clock;

/// Lines that wait for the writer.
const QUEUE: usize = 1_024;
/// Lines a second that are written; what is more is a flood.
const LINES_MAX: u64 = 200;
const SECOND_NS: u64 = 1_000_000_000;
/// So long is waited at the end for what was said last.
const PATIENCE: Duration = Duration::from_millis(200);

/// What was said, by whom.
struct Line {
    level: Level,
    text: String,
    thread: Option<String>,
    module: Option<&'static str>,
}

enum Word {
    Line(Line),
    /// Answered once everything before it is written.
    Flush(SyncSender<()>),
}

struct Queue {
    words: SyncSender<Word>,
    dropped: &'static AtomicU64,
}

impl Log for Queue {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The libraries below speak only when something is wrong.
        metadata.target().starts_with("tendon") || metadata.level() <= Level::Error
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = Line {
                level: record.level(),
                text: record.args().to_string(),
                thread: std::thread::current().name().map(str::to_owned),
                module: record.module_path_static(),
            };
            if self.words.try_send(Word::Line(line)).is_err() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.words.try_send(Word::Flush(done)).is_ok() {
            // Nobody reads stderr: then nobody misses the rest.
            let _ = written.recv_timeout(PATIENCE);
        }
    }
}

/// Lines of one second, and what was left out.
#[derive(Debug, Default)]
struct Flood {
    since: Mono,
    lines: u64,
    left_out: u64,
}

impl Flood {
    /// Whether a line at `now` is written. Before the first line of a new second: how many were not, if any.
    fn admit(&mut self, now: Mono, dropped: u64) -> (Option<u64>, bool) {
        let mut missed = None;
        if now.since_ns(self.since) >= SECOND_NS {
            let left_out = self.left_out + dropped;
            missed = (left_out > 0).then_some(left_out);
            (self.since, self.lines, self.left_out) = (now, 0, 0);
        } else {
            self.left_out += dropped;
        }
        let admitted = self.lines < LINES_MAX;
        self.lines += u64::from(admitted);
        self.left_out += u64::from(!admitted);
        (missed, admitted)
    }
}

impl Line {
    /// As syslog(3) counts.
    fn priority(&self) -> &'static str {
        match self.level {
            Level::Error => "3",
            Level::Warn => "4",
            Level::Info => "6",
            Level::Debug | Level::Trace => "7",
        }
    }

    fn write(&self, journal: Option<&Journal>) {
        let entered = journal.is_some_and(|journal| {
            let fields = [
                ("PRIORITY", self.priority()),
                ("SYSLOG_IDENTIFIER", "tendon"),
                ("MESSAGE", &self.text),
                ("TENDON_THREAD", self.thread.as_deref().unwrap_or_default()),
                ("TENDON_MODULE", self.module.unwrap_or_default()),
            ];
            journal.took(&fields)
        });
        if !entered {
            // Standard error is the journal's even so, which reads a priority from the front of a line (sd-daemon(3)).
            let prefix = journal.map_or(String::new(), |_| format!("<{}>", self.priority()));
            let level = self.level.as_str().to_lowercase();
            // A stderr that is closed is nobody's to tell.
            let _ = writeln!(std::io::stderr(), "{prefix}tendon: {level}: {}", self.text);
        }
    }
}

fn write(words: &Receiver<Word>, dropped: &AtomicU64, journal: Option<&Journal>) {
    let mut flood = Flood::default();
    for word in words {
        match word {
            Word::Line(line) => {
                let (missed, admitted) =
                    flood.admit(clock::now(), dropped.swap(0, Ordering::Relaxed));
                if let Some(missed) = missed {
                    let left_out = Line {
                        level: Level::Warn,
                        text: format!("{missed} lines of a flood left out"),
                        thread: None,
                        module: None,
                    };
                    left_out.write(journal);
                }
                if admitted {
                    line.write(journal);
                }
            }
            // Whoever asked has gone on meanwhile.
            Word::Flush(done) => drop(done.try_send(())),
        }
    }
}

/// Installs the logger: warnings and errors, more with `verbose`.
pub fn start(verbose: u8) {
    static DROPPED: AtomicU64 = AtomicU64::new(0);
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    let (words, queue) = sync_channel(QUEUE);
    let journal = Journal::of_stderr();
    let writer = std::thread::Builder::new().name("log".to_owned());
    let writes = writer.spawn(move || write(&queue, &DROPPED, journal.as_ref()));
    let logger = Queue {
        words,
        dropped: &DROPPED,
    };
    // Fails only when a logger is set already, which then serves as well.
    if writes.is_ok() && log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

/// Waits, not for long, until what was logged is written. For the end of the process.
pub fn end() {
    log::logger().flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let mut flood = Flood::default();
        let at = |ms: u64| Mono(SECOND_NS + ms * 1_000_000);
        let written = (0..1_000).filter(|_| flood.admit(at(0), 0).1).count();
        assert_eq!(written as u64, LINES_MAX);
        assert_eq!(flood.admit(at(999), 5), (None, false));
        let (missed, admitted) = flood.admit(at(1_000), 7);
        assert!(admitted);
        assert_eq!(missed, Some(1_000 - LINES_MAX + 1 + 5 + 7));
        assert_eq!(flood.admit(at(1_500), 0), (None, true));
        assert_eq!(flood.admit(at(2_000), 0), (None, true), "none missed");
    }
}
