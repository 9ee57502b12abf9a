// SPDX-License-Identifier: Apache-2.0
//! What a deployment asks of the machine by name, and would be refused at its start: real time that is required, the
//! hardware watchdog, a state directory; and what arming waits for: a crash or a latched stop that nobody has acknowledged.

use super::devices::{Who, barred};
use super::unit::{Grant, Unit};
use super::{Finding, Verdict, watchdog};
use crate::config::realtime::{Realtime, RealtimeMode};
use crate::config::watchdog::WatchdogConfig;
use crate::link::session;
use crate::runtime::cores;
use crate::runtime::crash;
use crate::runtime::health::Tree;
use crate::runtime::latch::{LatchFault, LatchFile};
use crate::runtime::threads;
use rustix::fs::{Access, access};
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// `[realtime]` held against what is granted, by the words of whoever grants it.
pub(super) fn realtime(tree: &Tree, asked: &Realtime, grant: &Grant) -> Vec<Finding> {
    const CHECK: &str = "realtime.mode";
    let (word, verdict) = match asked.mode {
        RealtimeMode::Off => {
            return vec![Finding::good(CHECK, "\"off\": nothing is asked for")];
        }
        RealtimeMode::Prefer => ("prefer", Verdict::Warning),
        RealtimeMode::Require => ("require", Verdict::Bad),
    };
    let mut findings = Vec::new();
    let missing = missing(asked, grant);
    if missing.is_empty() {
        let found = format!("\"{word}\", and all of it is granted by {}", grant.by);
        findings.push(Finding::good(CHECK, found));
    } else {
        let (lacks, fixes): (Vec<String>, Vec<String>) = missing.into_iter().unzip();
        findings.push(Finding {
            check: CHECK,
            verdict,
            found: format!(
                "\"{word}\", and not granted by {}: {}",
                grant.by,
                lacks.join("; ")
            ),
            fix: Some(format!(
                "in the unit that starts it (systemctl edit), or for who starts it by hand in /etc/security/limits.d: {}",
                fixes.join("; ")
            )),
        });
    }
    let given = asked
        .cores
        .iter()
        .map(|(name, cores)| (name.as_str(), cores.as_slice()));
    if let Some(shared) = cores::shared(given, tree) {
        let (found, fix) = shared.split_once(": append ").unwrap_or((&shared, ""));
        findings.push(Finding {
            verdict,
            ..Finding::warning("realtime.cores", found, format!("append {fix}"))
        });
    }
    findings
}

/// What is asked for and not granted, and what would grant it.
fn missing(asked: &Realtime, grant: &Grant) -> Vec<(String, String)> {
    let mut missing = Vec::new();
    let priority = u64::try_from(threads::WATCHDOG.fifo).unwrap_or(0);
    if grant.priority < priority {
        missing.push((
            format!("priorities up to {priority} ({})", grant.priority),
            format!("LimitRTPRIO={priority}"),
        ));
    }
    if grant.nice > i64::from(session::NICE) {
        missing.push((
            format!("niceness {} of the link ({})", session::NICE, grant.nice),
            format!("LimitNICE={}", session::NICE),
        ));
    }
    if asked.lock_memory && !grant.locks_memory {
        missing.push((
            "locked memory without a limit".to_owned(),
            "LimitMEMLOCK=infinity".to_owned(),
        ));
    }
    for (name, asked) in &asked.cores {
        let lacks = |core: &&usize| !grant.cores.contains(core);
        let lacking: Vec<usize> = asked.iter().filter(lacks).copied().collect();
        if !lacking.is_empty() && !grant.cores.is_empty() {
            missing.push((
                format!("core {} for {name}", cores::words(&lacking)),
                format!(
                    "realtime.cores.{name} of those that exist and are allowed ({})",
                    cores::words(&grant.cores)
                ),
            ));
        }
    }
    missing
}

/// `[watchdog] device`: there, ours to open, and nobody else's. It is not opened: from then on it counts.
pub(super) fn hardware_watchdog(
    tree: &Tree,
    asked: &WatchdogConfig,
    unit: Option<&Unit>,
) -> Finding {
    const CHECK: &str = "watchdog.device";
    let node = asked.device.display().to_string();
    let leave = "leave [watchdog] out of tendon.toml: systemd pings it (RuntimeWatchdogSec=), and the runtime systemd";
    if let Some((held, told)) = watchdog::held_by_systemd(tree)
        && watchdog::same(&held, &node)
    {
        let found =
            format!("{node}: systemd has it open (RuntimeWatchdogSec={told}), and only one may");
        return Finding::bad(CHECK, found, leave);
    }
    if let Some(unit) = unit.filter(|unit| unit.bars(&node, &["watchdog"])) {
        let found = format!("{node}: {} does not let the runtime open it", unit.name);
        let fix = format!("{leave}; or DeviceAllow={node} rw in the unit");
        return Finding::bad(CHECK, found, fix);
    }
    if let Some(why) = barred(tree, &Who::read(tree), &node) {
        let fix = "load its driver, and let the runtime's user write to it: a udev rule with GROUP=\"tendon\", MODE=\"0660\"";
        return Finding::bad(CHECK, why, fix);
    }
    let about = std::fs::metadata(tree.path(&node));
    // A recorded tree holds files in place of devices.
    if tree.is_machine() && about.is_ok_and(|about| !about.file_type().is_char_device()) {
        return Finding::bad(
            CHECK,
            format!("{node} is no device"),
            "name the watchdog's node, e.g. /dev/watchdog0",
        );
    }
    Finding::good(CHECK, format!("{node}, {} s", asked.timeout_s))
}

/// Where a runtime of the deployment `config` keeps its state.
pub(super) fn state_folder(tree: &Tree, config: &Path) -> Option<PathBuf> {
    let config = std::path::absolute(config).unwrap_or_else(|_| config.to_owned());
    let unit = Unit::that_starts(tree, &config);
    folder(tree, unit.as_ref()).map(|(folder, _)| folder)
}

/// Where the state of the runtime is kept, and by whose word.
fn folder(tree: &Tree, unit: Option<&Unit>) -> Option<(PathBuf, bool)> {
    let by_unit = unit.and_then(Unit::state_directory);
    match by_unit {
        Some(path) => Some((tree.path(&path), true)),
        None => crash::state_directory().map(|path| (path, false)),
    }
}

/// The state directory, and what an earlier run left there that a person must acknowledge. With `acknowledged` that is
/// taken for done: for who installs, and does not arm yet.
pub(super) fn state(
    tree: &Tree,
    robot: &str,
    unit: Option<&Unit>,
    acknowledged: bool,
) -> Vec<Finding> {
    const CHECK: &str = "state directory";
    let Some((folder, by_systemd)) = folder(tree, unit) else {
        let found = "none: neither STATE_DIRECTORY nor HOME is set";
        let fix = "set STATE_DIRECTORY to a folder that can be written to";
        return vec![Finding::bad(CHECK, found, fix)];
    };
    let mut findings = vec![kept_in(CHECK, &folder, by_systemd)];
    let waits = |found: String| Finding {
        verdict: if acknowledged {
            Verdict::Warning
        } else {
            Verdict::Bad
        },
        ..Finding::bad(
            "last run",
            found,
            "look why; then, with the runtime running: tendon mode reset",
        )
    };
    match crash::unacknowledged(&folder, robot) {
        Ok(None) => {}
        Ok(Some(crash)) => findings.push(waits(format!(
            "crashed, and nobody has acknowledged it: {}",
            crash.words()
        ))),
        Err(error) => findings.push(unreadable("last run", &folder, &error)),
    }
    match LatchFile::read(&folder, robot) {
        Ok(latch) => {
            if let Some(cause) = latch.kept() {
                findings.push(waits(format!("stopped, and latched: {}", cause.words())));
            }
        }
        Err(LatchFault::File { error, .. }) => {
            findings.push(unreadable("last run", &folder, &error));
        }
        Err(fault @ LatchFault::Unknown { .. }) => {
            let fix = "look why the robot stopped, then delete the file";
            findings.push(Finding::bad("last run", fault.to_string(), fix));
        }
    }
    if findings.len() == 1 {
        let none = "left neither a crash nor a latched stop";
        findings.push(Finding::good("last run", none));
    }
    findings
}

fn unreadable(check: &'static str, folder: &Path, error: &std::io::Error) -> Finding {
    Finding::bad(
        check,
        format!("{}: cannot be looked into: {error}", folder.display()),
        "run the doctor as the runtime's user (sudo -u tendon); what is there must belong to that user",
    )
}

/// Whether it can be written to, or be made.
fn kept_in(check: &'static str, folder: &Path, by_systemd: bool) -> Finding {
    let shown = folder.display();
    let open = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    let there = folder.ancestors().find(|folder| folder.exists());
    let (is_there, checked) = (there == Some(folder), there.unwrap_or(Path::new("/")));
    if !is_there && by_systemd {
        return Finding::good(check, format!("{shown}, which systemd makes at the start"));
    }
    if !checked.is_dir() {
        let found = format!("{} is no folder", checked.display());
        return Finding::bad(check, found, "move it away, or set STATE_DIRECTORY");
    }
    match access(checked, open) {
        Ok(()) if is_there => Finding::good(check, format!("{shown} can be written to")),
        Ok(()) => Finding::good(check, format!("{shown}, which is made at the first start")),
        Err(error) => {
            let error = std::io::Error::from(error);
            let fix = if error.kind() == ErrorKind::PermissionDenied {
                "run the doctor as the runtime's user (sudo -u tendon); the folder must belong to that user"
            } else {
                "a folder on a disk that can be written to (STATE_DIRECTORY)"
            };
            let found = format!("{}: {error}", checked.display());
            Finding::bad(check, found, fix)
        }
    }
}
