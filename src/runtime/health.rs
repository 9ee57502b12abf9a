// SPDX-License-Identifier: Apache-2.0
//! What the machine says about itself: temperatures, throttling, clocks, power, memory, disk.
//!
//! Everything is found by the name it gives itself, never by an index, which changes with the kernel's mood. What is not
//! there is not there: a laptop has no `ina3221`, some Jetson carriers disable a zone, and a zone may exist and fail to
//! be read. On a Jetson each reading asks the boot processor, so: at most twice a second, from a thread without
//! real-time priority, away from the isolated cores.
//!
//! Paths are those of L4T R35 to R39 and of the mainline kernel: `Documentation/ABI/testing/sysfs-class-thermal`,
//! `sysfs-class-hwmon`, NVIDIA's Jetson Linux Developer Guide ("Power and Performance").

use serde::Serialize;
use std::path::{Path, PathBuf};

/// A machine's files, or a recording of them: every path is looked up under one root.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// This machine.
    #[must_use]
    pub fn machine() -> Tree {
        Tree::at(Path::new("/"))
    }

    /// What a running pipeline looks at: this machine, or the tree that `TENDON_SYSFS` names, for tests.
    #[must_use]
    pub fn seen() -> Tree {
        let root = std::env::var_os("TENDON_SYSFS");
        root.map_or_else(Tree::machine, |root| Tree::at(Path::new(&root)))
    }

    /// The tree under `root`.
    #[must_use]
    pub fn at(root: &Path) -> Tree {
        Tree {
            root: root.to_owned(),
        }
    }

    /// Whether this is the machine it runs on, not a recording.
    #[must_use]
    pub fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where `path` (absolute) lies.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A small file's text without the white space around it; `None` if it cannot be read.
    #[must_use]
    pub fn read(&self, path: &str) -> Option<String> {
        let bytes = std::fs::read(self.path(path)).ok()?;
        Some(
            String::from_utf8_lossy(&bytes)
                .trim_matches(|c: char| c.is_whitespace() || c == '\0')
                .to_owned(),
        )
    }

    /// A file that holds one whole number.
    #[must_use]
    pub fn number(&self, path: &str) -> Option<i64> {
        self.read(path)?.parse().ok()
    }

    /// Names in a folder, sorted; none if there is no such folder.
    #[must_use]
    pub fn list(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path(path))
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Those of [`Tree::list`] that start with `prefix`, as full paths.
    #[must_use]
    pub fn with_prefix(&self, folder: &str, prefix: &str) -> Vec<String> {
        self.list(folder)
            .into_iter()
            .filter(|name| name.starts_with(prefix))
            .map(|name| format!("{folder}/{name}"))
            .collect()
    }

    /// Whether there is something.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }
}

/// A thermal zone.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Temperature {
    /// Its type, e.g. `gpu-thermal`.
    pub name: String,
    /// Now, degrees Celsius.
    pub now_c: f64,
    /// Lowest trip point of kind passive, hot or critical: where the machine slows down or gives up.
    pub trip_c: Option<f64>,
}

/// A clock that can be lowered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Clock {
    /// `policy0` for a CPU cluster, the device's name for the GPU.
    pub name: String,
    /// What sets it, e.g. `schedutil`.
    pub governor: Option<String>,
    /// Now, Hz.
    pub now_hz: u64,
    /// Least it may be set to, Hz.
    pub min_hz: u64,
    /// Most it may be set to, Hz; falls when the machine is throttled.
    pub max_hz: u64,
    /// Most that the hardware can, Hz; as `max_hz` where it is not said.
    pub top_hz: u64,
}

/// A power rail.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rail {
    /// Its label, e.g. `VDD_IN`.
    pub name: String,
    /// Volts times amperes, watts.
    pub power_w: f64,
}

/// An event counter that only grows: over-current and under-voltage throttling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Events {
    /// Its name, e.g. `oc1`.
    pub name: String,
    /// Since boot.
    pub count: u64,
}

/// Memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Memory {
    /// Can be had without swapping, bytes.
    pub available: u64,
    /// All, bytes.
    pub total: u64,
    /// Share of the last 10 s in which some task waited for memory, percent; `None` without pressure accounting.
    pub pressure_percent: Option<f64>,
}

/// Space for what is kept: recordings, crash records, a latched stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Can be had by us, bytes.
    pub free: u64,
    /// All, bytes.
    pub total: u64,
}

/// Below this, recording stops being possible soon, bytes.
pub const DISK_LOW: u64 = 2 << 30;
/// Below this, not even a crash record can be relied on, bytes.
pub const DISK_NONE: u64 = 64 << 20;
/// A policy, its engine and the camera's buffers must fit beside the rest, bytes.
pub const MEMORY_LOW: u64 = 1 << 30;
/// Tasks that wait for memory for this share of ten seconds are what goes before the kernel kills one.
const PRESSURE_HIGH_PERCENT: f64 = 10.0;

/// One reading of all sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Health {
    /// Thermal zones that could be read.
    pub temperatures: Vec<Temperature>,
    /// Cooling devices that are at work, by type; their state.
    pub cooling: Vec<(String, u64)>,
    /// CPU clusters.
    pub cpu_clocks: Vec<Clock>,
    /// The GPU.
    pub gpu_clock: Option<Clock>,
    /// The GPU's load, 0..=1.
    pub gpu_load: Option<f64>,
    /// Power rails.
    pub rails: Vec<Rail>,
    /// Throttle counters.
    pub over_current: Vec<Events>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Where the state is kept.
    pub disk: Option<Disk>,
}

impl Health {
    /// Reads everything once; `state` is where the state is kept.
    #[must_use]
    pub fn read(tree: &Tree, state: Option<&Path>) -> Health {
        let (gpu_clock, gpu_load) = gpu(tree);
        Health {
            temperatures: temperatures(tree),
            cooling: cooling(tree),
            cpu_clocks: cpu_clocks(tree),
            gpu_clock,
            gpu_load,
            rails: rails(tree),
            over_current: over_current(tree),
            memory: memory(tree),
            disk: state.and_then(disk),
        }
    }

    /// What is on its way to fail, in words; empty while nothing is. The words do not change with the figures, so that
    /// each is told once.
    #[must_use]
    pub fn complaints(&self) -> Vec<&'static str> {
        let low = |memory: &Memory| {
            memory.available < MEMORY_LOW
                || memory.pressure_percent.unwrap_or(0.0) >= PRESSURE_HIGH_PERCENT
        };
        let mut clocks = self.cpu_clocks.iter().chain(&self.gpu_clock);
        [
            (
                self.memory.as_ref().is_some_and(low),
                "memory is short: the kernel may soon end a process (the inference process first); end what is not needed",
            ),
            (
                self.disk.is_some_and(|disk| disk.free < DISK_NONE),
                "the disk of the state directory is full: a stop could leave no record; make room",
            ),
            (
                clocks.any(|clock| clock.max_hz < clock.top_hz),
                "clocks are held back (power mode or heat): the policy may be slower than it was timed",
            ),
        ]
        .into_iter()
        .filter_map(|(is_so, words)| is_so.then_some(words))
        .collect()
    }
}

/// Of the nearest folder that exists: the state directory is made at the first start.
fn disk(folder: &Path) -> Option<Disk> {
    let there = folder.ancestors().find(|folder| folder.exists())?;
    let space = rustix::fs::statvfs(there).ok()?;
    Some(Disk {
        free: space.f_bavail.saturating_mul(space.f_frsize),
        total: space.f_blocks.saturating_mul(space.f_frsize),
    })
}

const THERMAL: &str = "/sys/class/thermal";

fn temperatures(tree: &Tree) -> Vec<Temperature> {
    let zones = tree.with_prefix(THERMAL, "thermal_zone");
    zones
        .iter()
        .filter_map(|zone| temperature(tree, zone))
        .collect()
}

/// `None` for a zone that is there and does not answer, as `cv0-thermal` while that engine is off.
fn temperature(tree: &Tree, zone: &str) -> Option<Temperature> {
    let celsius = |milli: i64| milli as f64 / 1000.0;
    let trips = (0..12).filter_map(|trip| {
        let kind = tree.read(&format!("{zone}/trip_point_{trip}_type"))?;
        let at = tree.number(&format!("{zone}/trip_point_{trip}_temp"))?;
        // A trip at or below zero is how a disabled one reads.
        (matches!(kind.as_str(), "passive" | "hot" | "critical") && at > 0).then_some(at)
    });
    let trip_c = trips.min().map(celsius);
    let now = tree.number(&format!("{zone}/temp"))?;
    Some(Temperature {
        name: tree.read(&format!("{zone}/type"))?,
        now_c: celsius(now),
        trip_c,
    })
}

fn cooling(tree: &Tree) -> Vec<(String, u64)> {
    let devices = tree.with_prefix(THERMAL, "cooling_device");
    let at_work = devices.iter().filter_map(|device| {
        let state = u64::try_from(tree.number(&format!("{device}/cur_state"))?).ok()?;
        (state > 0).then_some((tree.read(&format!("{device}/type"))?, state))
    });
    at_work.collect()
}

fn cpu_clocks(tree: &Tree) -> Vec<Clock> {
    let policies = tree.with_prefix("/sys/devices/system/cpu/cpufreq", "policy");
    let clocks = policies.iter().filter_map(|policy| {
        let khz = |name: &str| {
            let khz = tree.number(&format!("{policy}/{name}"))?;
            Some(u64::try_from(khz).ok()? * 1000)
        };
        let max_hz = khz("scaling_max_freq")?;
        Some(Clock {
            name: policy.rsplit('/').next()?.to_owned(),
            governor: tree.read(&format!("{policy}/scaling_governor")),
            now_hz: khz("scaling_cur_freq")?,
            min_hz: khz("scaling_min_freq")?,
            max_hz,
            top_hz: khz("cpuinfo_max_freq").unwrap_or(max_hz),
        })
    });
    clocks.collect()
}

/// The integrated GPU of a Jetson: a devfreq device that calls itself `...gpu` or, before R36, `...ga10b`.
fn gpu(tree: &Tree) -> (Option<Clock>, Option<f64>) {
    const DEVFREQ: &str = "/sys/class/devfreq";
    let device = tree.list(DEVFREQ).into_iter().find(|name| {
        name.ends_with(".gpu") || name.ends_with(".ga10b") || name.ends_with(".gv11b")
    });
    let clock = device.as_ref().and_then(|name| {
        let hz = |file: &str| u64::try_from(tree.number(&format!("{DEVFREQ}/{name}/{file}"))?).ok();
        let max_hz = hz("max_freq")?;
        let steps = tree.read(&format!("{DEVFREQ}/{name}/available_frequencies"));
        let top = steps.and_then(|text| {
            text.split_whitespace()
                .filter_map(|step| step.parse().ok())
                .max()
        });
        Some(Clock {
            name: name.clone(),
            governor: tree.read(&format!("{DEVFREQ}/{name}/governor")),
            now_hz: hz("cur_freq")?,
            min_hz: hz("min_freq")?,
            max_hz,
            top_hz: top.unwrap_or(max_hz),
        })
    });
    let mut places = vec![
        "/sys/devices/platform/gpu.0/load".to_owned(),
        "/sys/devices/platform/bus@0/17000000.gpu/load".to_owned(),
    ];
    places.extend(device.map(|name| format!("{DEVFREQ}/{name}/device/load")));
    let load = places.iter().find_map(|place| tree.number(place));
    (clock, load.map(|permille| permille as f64 / 1000.0))
}

const HWMON: &str = "/sys/class/hwmon";

/// The hwmon folders whose driver calls itself `name`.
fn hwmon(tree: &Tree, name: &str) -> Vec<String> {
    let mut found = tree.with_prefix(HWMON, "hwmon");
    found.retain(|folder| tree.read(&format!("{folder}/name")).as_deref() == Some(name));
    found
}

fn rails(tree: &Tree) -> Vec<Rail> {
    let mut rails = Vec::new();
    for folder in hwmon(tree, "ina3221") {
        for channel in 1..=3 {
            let read = |what: &str| tree.number(&format!("{folder}/{what}"));
            let name = tree.read(&format!("{folder}/in{channel}_label"));
            let milli_v = read(&format!("in{channel}_input"));
            let milli_a = read(&format!("curr{channel}_input"));
            if let (Some(name), Some(milli_v), Some(milli_a)) = (name, milli_v, milli_a) {
                let power_w = milli_v as f64 * milli_a as f64 * 1e-6;
                rails.push(Rail { name, power_w });
            }
        }
    }
    rails
}

fn over_current(tree: &Tree) -> Vec<Events> {
    let mut events = Vec::new();
    for folder in hwmon(tree, "soctherm_oc") {
        for line in 1..=3 {
            let count = tree.number(&format!("{folder}/oc{line}_event_cnt"));
            if let Some(count) = count.and_then(|count| u64::try_from(count).ok()) {
                let name = format!("oc{line}");
                events.push(Events { name, count });
            }
        }
    }
    events
}

fn memory(tree: &Tree) -> Option<Memory> {
    let text = tree.read("/proc/meminfo")?;
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        let kib: u64 = line
            .trim_start_matches(':')
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse()
            .ok()?;
        Some(kib * 1024)
    };
    let pressure = tree.read("/proc/pressure/memory").and_then(|text| {
        let some = text
            .lines()
            .find_map(|line| line.strip_prefix("some "))?
            .to_owned();
        some.split_whitespace()
            .find_map(|word| word.strip_prefix("avg10=")?.parse().ok())
    });
    Some(Memory {
        available: bytes("MemAvailable")?,
        total: bytes("MemTotal")?,
        pressure_percent: pressure,
    })
}
