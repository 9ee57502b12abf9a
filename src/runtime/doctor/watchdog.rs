// SPDX-License-Identifier: Apache-2.0
//! The machine's hardware watchdog: what systemd was told, and what the driver says it took.

use super::Finding;
use super::unit::{drop_ins, value_of};
use crate::runtime::health::Tree;

/// A reset that comes later than this leaves a robot unattended for too long, seconds.
const HARDWARE_WATCHDOG_MAX_S: i64 = 30;

/// Where systemd's own configuration lies; of files with one name, that of the first place is read and no other
/// (systemd-system.conf(5)).
const PLACES: [&str; 4] = [
    "/etc/systemd",
    "/run/systemd",
    "/usr/local/lib/systemd",
    "/usr/lib/systemd",
];

/// What systemd's own configuration, the drop-ins last, sets `key` to.
fn told(tree: &Tree, key: &str) -> Option<String> {
    let mut text = PLACES
        .iter()
        .find_map(|place| tree.read(&format!("{place}/system.conf")))
        .unwrap_or_default();
    text.push('\n');
    text.push_str(&drop_ins(
        tree,
        &PLACES.map(|place| format!("{place}/system.conf.d")),
    ));
    value_of(&text, key).map(str::to_owned)
}

/// The node that systemd keeps open, and the time it was told; `None` if it keeps none.
pub(super) fn held_by_systemd(tree: &Tree) -> Option<(String, String)> {
    let time = told(tree, "RuntimeWatchdogSec")?;
    let device = told(tree, "WatchdogDevice").unwrap_or_else(|| "/dev/watchdog0".to_owned());
    (!matches!(time.as_str(), "" | "0" | "off")).then_some((device, time))
}

/// Whether two nodes are one watchdog: `/dev/watchdog` is the first one's older name.
pub(super) fn same(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|node| match node {
        "/dev/watchdog" => "/dev/watchdog0",
        node => node,
    });
    one == other
}

/// Whether systemd pings it, in a time that helps.
pub(super) fn finding(tree: &Tree) -> Finding {
    const CHECK: &str = "hardware watchdog";
    let Some(device) = tree
        .with_prefix("/sys/class/watchdog", "watchdog")
        .into_iter()
        .next()
    else {
        return Finding::absent(CHECK, "this machine has none, or its driver is not loaded");
    };
    let name = tree
        .read(&format!("{device}/identity"))
        .unwrap_or_else(|| "unnamed".to_owned());
    let Some((_, told)) = held_by_systemd(tree) else {
        return Finding::warning(
            CHECK,
            format!("{name}, but systemd does not ping it: a machine that hangs stays hung"),
            "copy systemd/system-watchdog.conf to /etc/systemd/system.conf.d/ and restart",
        );
    };
    match tree.number(&format!("{device}/timeout")) {
        Some(taken_s) if taken_s > HARDWARE_WATCHDOG_MAX_S => Finding::warning(
            CHECK,
            format!("{name}: told {told}, it took {taken_s} s"),
            "its driver cannot set the time; rely on the motor controller's timeout, or load the driver with a heartbeat parameter",
        ),
        Some(taken_s) => Finding::good(CHECK, format!("{name}, {taken_s} s")),
        None => Finding::good(
            CHECK,
            format!("{name}, told {told}; the driver does not say what it took"),
        ),
    }
}
