// SPDX-License-Identifier: Apache-2.0
//! What an installed unit grants the runtime that it starts. A person runs the doctor outside of the unit and its limits
//! (`sudo -u tendon`), so what a deployment asks of the kernel is judged by the unit that starts it, where there is one.

use super::Finding;
use super::machine::{CAP_IPC_LOCK, CAP_SYS_NICE, has_capability, soft_limit};
use crate::runtime::cores;
use crate::runtime::health::Tree;
use std::collections::BTreeMap;
use std::path::Path;

/// Where units lie; the first place wins.
const PLACES: [&str; 7] = [
    // What `systemctl set-property` writes.
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// A unit with its drop-ins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unit {
    /// E.g. `tendon@arm-1.service`.
    pub name: String,
    /// What `%i` stands for.
    instance: String,
    /// The unit, then its drop-ins: of a key that is written twice the last one counts.
    text: String,
}

impl Unit {
    /// The installed unit that starts the runtime with the configuration at this absolute path.
    pub fn that_starts(tree: &Tree, config: &Path) -> Option<Unit> {
        let folder = config.parent().and_then(Path::file_name);
        let instance = folder.and_then(|name| name.to_str()).unwrap_or_default();
        let installed = [
            Unit::read(tree, "tendon", ""),
            Unit::read(tree, "tendon@", instance),
        ];
        installed
            .into_iter()
            .flatten()
            .find(|unit| unit.starts(config))
    }

    fn read(tree: &Tree, stem: &str, instance: &str) -> Option<Unit> {
        let file = format!("{stem}.service");
        let name = format!("{stem}{instance}.service");
        let mut text = PLACES
            .iter()
            .find_map(|place| tree.read(&format!("{place}/{file}")))?;
        let mut folders = Vec::new();
        for place in PLACES {
            folders.extend([&name, &file].map(|of| format!("{place}/{of}.d")));
        }
        text.push('\n');
        text.push_str(&drop_ins(tree, &folders));
        Some(Unit {
            name,
            instance: instance.to_owned(),
            text,
        })
    }

    fn starts(&self, config: &Path) -> bool {
        let line = self.value("ExecStart").unwrap_or_default();
        let mut words = line.split_whitespace();
        let path = words
            .find(|word| *word == "--config")
            .and_then(|_| words.next());
        path.is_some_and(|path| Path::new(path) == config)
    }

    /// What the key is set to.
    pub fn value(&self, key: &str) -> Option<String> {
        value_of(&self.text, key).map(|value| value.replace("%i", &self.instance))
    }

    /// What a key that is a list has gathered; an empty line of it begins anew.
    pub fn values(&self, key: &str) -> Vec<String> {
        let mut values = Vec::new();
        for line in self.text.lines() {
            match line.split_once('=') {
                Some((name, value)) if name.trim() == key => match value.trim() {
                    "" => values.clear(),
                    value => values.push(value.replace("%i", &self.instance)),
                },
                Some(_) | None => {}
            }
        }
        values
    }

    /// The folder that systemd makes for its state.
    pub fn state_directory(&self) -> Option<String> {
        let value = self.value("StateDirectory")?;
        let first = value.split([' ', ':']).find(|word| !word.is_empty())?;
        Some(format!("/var/lib/{first}"))
    }

    /// What it sets a variable of the environment to; a value with spaces only as far as the first.
    pub fn environment(&self, name: &str) -> Option<String> {
        let lines = self.values("Environment");
        let mut words = lines.iter().flat_map(|line| line.split_whitespace()).rev();
        words.find_map(|word| {
            let (key, value) = word.trim_matches(['"', '\'']).split_once('=')?;
            (key == name).then(|| value.to_owned())
        })
    }

    /// The home of the user that it runs as.
    pub fn home(&self, tree: &Tree) -> Option<String> {
        let listed = || {
            let user = self.value("User").filter(|user| !user.is_empty());
            let user = user.unwrap_or_else(|| "root".to_owned());
            let users = tree.read("/etc/passwd")?;
            // name:password:uid:gid:words:home:shell
            let line = users
                .lines()
                .find(|line| line.split(':').next() == Some(user.as_str()))?;
            line.split(':').nth(5).map(str::to_owned)
        };
        self.environment("HOME").or_else(listed)
    }

    /// Whether a key that is yes or no is yes.
    pub fn is_set(&self, key: &str) -> bool {
        let value = self.value(key).unwrap_or_default();
        ["1", "yes", "true", "on"].contains(&value.to_lowercase().as_str())
    }

    /// Whether it keeps the device `node` away: all nodes that it names neither by their path nor by one of `groups`, as
    /// /proc/devices names them, or that it does not let be written to.
    pub fn bars(&self, node: &str, groups: &[&str]) -> bool {
        let closed = matches!(
            self.value("DevicePolicy").as_deref(),
            Some("closed" | "strict")
        );
        let allowed = self.values("DeviceAllow");
        let is_of = |group: &str, pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => group.starts_with(start),
            None => group == pattern,
        };
        let names = |name: &str| match name.strip_prefix("char-") {
            Some(pattern) => groups.iter().any(|group| is_of(group, pattern)),
            None => name == node,
        };
        let lets = |line: &String| {
            let mut words = line.split_whitespace();
            words.next().is_some_and(names) && words.next().is_none_or(|may| may.contains('w'))
        };
        // A /dev of its own holds none of these nodes, whatever it lets be opened.
        let closed = closed || !allowed.is_empty();
        self.is_set("PrivateDevices") || (closed && !allowed.iter().any(lets))
    }
}

/// Texts of the drop-ins in these folders, in the order of their names; of two with one name, that of the first folder.
pub(super) fn drop_ins(tree: &Tree, folders: &[String]) -> String {
    let mut by_name = BTreeMap::new();
    for folder in folders.iter().rev() {
        for path in tree.with_prefix(folder, "") {
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            if name.ends_with(".conf") {
                by_name.insert(name, path);
            }
        }
    }
    let texts = by_name.values().map(|path| tree.read(path));
    texts.flatten().collect::<Vec<String>>().join("\n")
}

/// What `key` is set to last in a text of `key=value` lines.
pub(super) fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().rev().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim())
    })
}

/// What the kernel grants a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// By whose word: a unit's name, or this process.
    pub by: String,
    /// Highest `SCHED_FIFO` priority.
    pub priority: u64,
    /// Lowest niceness.
    pub nice: i64,
    /// Whether it may lock all of its memory.
    pub locks_memory: bool,
    /// Cores that it may run on; none if the kernel does not say.
    pub cores: Vec<usize>,
}

impl Grant {
    /// To what the unit starts, or else to what this process starts.
    pub fn of(tree: &Tree, unit: Option<&Unit>) -> Grant {
        let online = cores::of_machine(tree, "online");
        unit.map_or_else(
            || Grant::of_process(tree, &online),
            |unit| Grant::of_unit(unit, &online),
        )
    }

    fn of_unit(unit: &Unit, online: &[usize]) -> Grant {
        let user = unit.value("User").unwrap_or_default();
        let is_root = matches!(user.as_str(), "" | "root" | "0");
        let keeps = |name: &str| {
            let lines = unit.values("CapabilityBoundingSet");
            let bounded = value_of(&unit.text, "CapabilityBoundingSet").is_some();
            !bounded || lines.iter().any(|line| line.contains(name))
        };
        let capable = |name: &str| {
            let ambient = unit.values("AmbientCapabilities");
            let given = ambient.iter().any(|line| line.contains(name));
            (is_root || given) && keeps(name)
        };
        // "soft:hard", or one word for both.
        let soft = |key: &str| {
            let value = unit.value(key).unwrap_or_default();
            value.split(':').next().unwrap_or_default().to_owned()
        };
        let priority = match soft("LimitRTPRIO").as_str() {
            "infinity" => u64::MAX,
            number => number.parse().unwrap_or(0),
        };
        // A niceness with its sign, or the kernel's 20 minus it.
        let limit = soft("LimitNICE");
        let nice = match (limit.starts_with(['+', '-']), limit.parse::<i64>()) {
            (_, Err(_)) => 0,
            (true, Ok(nice)) => nice,
            (false, Ok(number)) => 20 - number,
        };
        let set = unit.value("Nice").and_then(|nice| nice.parse().ok());
        let may_be_nice = capable("CAP_SYS_NICE");
        // A thread may leave the cores it was started on (`CPUAffinity=`), and none that its group is kept to.
        let list = unit.values("AllowedCPUs").join(" ");
        let mut allowed = online.to_vec();
        if !list.is_empty() {
            let list = cores::of_list(&list);
            allowed.retain(|core| list.contains(core));
        }
        let filters = unit.values("SystemCallFilter");
        let filtered = |line: &String| line.starts_with('~') && line.contains("@resources");
        let barred = unit.is_set("RestrictRealtime") || filters.iter().any(filtered);
        Grant {
            by: unit.name.clone(),
            priority: match (barred, may_be_nice) {
                (true, _) => 0,
                (false, true) => u64::MAX,
                (false, false) => priority,
            },
            nice: if may_be_nice {
                -20
            } else {
                nice.min(set.unwrap_or(0))
            },
            locks_memory: capable("CAP_IPC_LOCK") || soft("LimitMEMLOCK") == "infinity",
            cores: allowed,
        }
    }

    fn of_process(tree: &Tree, online: &[usize]) -> Grant {
        let may_be_nice = has_capability(tree, CAP_SYS_NICE);
        let limit = |name: &str| match soft_limit(tree, name) {
            Some(None) => u64::MAX,
            Some(Some(limit)) => limit,
            None => 0,
        };
        let nice = i64::try_from(limit("Max nice priority")).unwrap_or(40);
        // Not where it runs now: a core that is kept free is one that nobody runs on before going there.
        let groups = tree.read("/proc/self/cgroup").unwrap_or_default();
        let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
        let kept_to = group.and_then(|group| {
            let group = group.trim().trim_end_matches('/');
            tree.read(&format!("/sys/fs/cgroup{group}/cpuset.cpus.effective"))
        });
        let mut may_run = online.to_vec();
        if let Some(kept_to) = kept_to.map(|list| cores::of_list(list.trim())) {
            may_run.retain(|core| kept_to.is_empty() || kept_to.contains(core));
        }
        Grant {
            by: "the limits of this process".to_owned(),
            priority: if may_be_nice {
                u64::MAX
            } else {
                limit("Max realtime priority")
            },
            // Nobody is made nicer by a limit of 0.
            nice: if may_be_nice {
                -20
            } else {
                (20 - nice.min(40)).min(0)
            },
            locks_memory: has_capability(tree, CAP_IPC_LOCK)
                || limit("Max locked memory") == u64::MAX,
            cores: may_run,
        }
    }
}

/// Whether the installed unit is one that systemd watches.
pub(super) fn service(tree: &Tree) -> Finding {
    const CHECK: &str = "service";
    let Some(unit) = Unit::read(tree, "tendon", "") else {
        return Finding::absent(
            CHECK,
            "tendon.service is not installed; fine for trying things out",
        );
    };
    let kind = unit.value("Type");
    match (kind.as_deref(), unit.value("WatchdogSec")) {
        (Some("notify"), Some(time)) => {
            Finding::good(CHECK, format!("tendon.service, WatchdogSec={time}"))
        }
        (kind, time) => Finding::warning(
            CHECK,
            format!(
                "tendon.service with Type={}, WatchdogSec={}: a runtime that hangs is not restarted",
                kind.unwrap_or("simple"),
                time.as_deref().unwrap_or("none")
            ),
            "take the unit of the package: Type=notify, WatchdogSec=500ms",
        ),
    }
}
