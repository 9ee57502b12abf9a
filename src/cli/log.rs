// SPDX-License-Identifier: Apache-2.0
//! Log lines on stderr. The hot path never formats one; what it has to say goes through telemetry.

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The libraries below speak only when something is wrong.
        metadata.target().starts_with("tendon") || metadata.level() <= Level::Error
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!(
                "tendon: {}: {}",
                record.level().as_str().to_lowercase(),
                record.args()
            );
        }
    }

    fn flush(&self) {}
}

/// Installs the logger: warnings and errors, more with `verbose`.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    // Fails only when a logger is set already, which then serves as well.
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}
