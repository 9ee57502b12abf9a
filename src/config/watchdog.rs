// SPDX-License-Identifier: Apache-2.0
//! `[watchdog]` of `tendon.toml`: the machine's own, for a runtime that no service manager watches.

use crate::config::file::{Located, Number};
use serde::Deserialize;
use std::path::PathBuf;
use toml::Spanned;

/// `[watchdog]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchdogTable {
    /// The machine's hardware watchdog, e.g. "/dev/watchdog".
    pub device: String,
    /// It resets the machine after so long without a ping; absent: 10.
    pub timeout_s: Option<Spanned<Number>>,
}

/// `[watchdog]`, checked.
#[derive(Clone, Debug)]
pub struct WatchdogConfig {
    /// Its node.
    pub device: PathBuf,
    /// What is asked of it, seconds.
    pub timeout_s: u32,
}

/// Checks the table; every mistake is noted with its line.
pub(super) fn check(
    written: Option<&WatchdogTable>,
    at: &mut Located<'_>,
) -> Option<WatchdogConfig> {
    written.map(|table| WatchdogConfig {
        device: PathBuf::from(&table.device),
        timeout_s: table.timeout_s.as_ref().map_or(10, |timeout| {
            at.within("watchdog.timeout_s", timeout, 1.0, 600.0) as u32
        }),
    })
}
