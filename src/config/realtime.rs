// SPDX-License-Identifier: Apache-2.0
//! `[realtime]` of `tendon.toml`: what the pipeline asks of the kernel, and what happens when it is not granted.

use crate::config::file::{Located, Number};
use serde::Deserialize;
use std::collections::BTreeMap;
use toml::Spanned;

/// Roles that may be given cores: the names of the threads of the pipeline.
pub const ROLES: [&str; 9] = [
    "capture",
    "ferry",
    "inference",
    "lines",
    "control",
    "governor",
    "egress",
    "watchdog",
    "telemetry",
];
/// Highest core number that can be written: one less than what the kernel's set holds.
const CORE_MAX: f64 = 1023.0;

/// `[realtime]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealtimeTable {
    /// "off", "prefer" or "require"; absent: prefer.
    pub mode: Option<Spanned<String>>,
    /// Whether to keep the program's memory from being swapped out; absent: yes, unless mode is off.
    pub lock_memory: Option<bool>,
    /// `[realtime.cores]`: role -> core numbers; absent: any core.
    #[serde(default)]
    pub cores: BTreeMap<String, Spanned<Vec<Number>>>,
}

/// What happens when the kernel does not grant what was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RealtimeMode {
    /// Nothing is asked for.
    Off,
    /// Asked for; what is not granted is told, and the pipeline runs.
    #[default]
    Prefer,
    /// Asked for; the pipeline does not start unless all of it is granted.
    Require,
}

/// `[realtime]`, checked.
#[derive(Clone, Debug)]
pub struct Realtime {
    /// See [`RealtimeMode`].
    pub mode: RealtimeMode,
    /// Lock memory after the engines have loaded.
    pub lock_memory: bool,
    /// Cores of each role that was given some.
    pub cores: BTreeMap<String, Vec<usize>>,
}

impl Default for Realtime {
    fn default() -> Self {
        Realtime {
            mode: RealtimeMode::Prefer,
            lock_memory: true,
            cores: BTreeMap::new(),
        }
    }
}

/// Checks the table; every mistake is noted with its line.
pub(super) fn check(written: Option<&RealtimeTable>, at: &mut Located<'_>) -> Realtime {
    let Some(written) = written else {
        return Realtime::default();
    };
    let mode = match &written.mode {
        None => RealtimeMode::Prefer,
        Some(word) => match word.get_ref().as_str() {
            "off" => RealtimeMode::Off,
            "prefer" => RealtimeMode::Prefer,
            "require" => RealtimeMode::Require,
            other => {
                at.push(
                    word,
                    "realtime.mode",
                    "\"off\", \"prefer\" or \"require\"",
                    format!("\"{other}\""),
                );
                RealtimeMode::Prefer
            }
        },
    };
    let mut cores = BTreeMap::new();
    for (role, given) in &written.cores {
        let key = format!("realtime.cores.{role}");
        if !ROLES.contains(&role.as_str()) {
            at.push(
                given,
                &key,
                &format!("one of {}", ROLES.join(", ")),
                format!("\"{role}\""),
            );
        }
        let list = given.get_ref();
        let good =
            |number: &Number| (0.0..=CORE_MAX).contains(&number.0) && number.0.fract() == 0.0;
        if list.is_empty() || !list.iter().all(good) {
            let found: Vec<String> = list.iter().map(|number| number.0.to_string()).collect();
            at.push(
                given,
                &key,
                "a list of core numbers such as [3]",
                format!("[{}]", found.join(", ")),
            );
        }
        if mode == RealtimeMode::Off {
            at.push(
                given,
                &key,
                "nothing, as realtime.mode is \"off\"",
                "cores".into(),
            );
        }
        let mut numbers: Vec<usize> = list.iter().map(|number| number.0 as usize).collect();
        numbers.sort_unstable();
        numbers.dedup();
        cores.insert(role.clone(), numbers);
    }
    Realtime {
        mode,
        lock_memory: written.lock_memory.unwrap_or(true) && mode != RealtimeMode::Off,
        cores,
    }
}
