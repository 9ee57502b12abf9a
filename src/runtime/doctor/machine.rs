// SPDX-License-Identifier: Apache-2.0
//! Kernel, limits, cores, clocks, temperatures, memory, disk, watchdogs.

use super::Finding;
use crate::link::session;
use crate::runtime::health::{Clock, Health, Tree};
use crate::runtime::threads;

/// Bits of `CapEff` in `/proc/self/status` (`linux/capability.h`).
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_NICE: u32 = 23;
/// Below this, recording stops being possible soon, bytes.
const DISK_LOW: u64 = 2 << 30;
/// Below this, not even a crash record can be relied on, bytes.
const DISK_NONE: u64 = 64 << 20;
/// A policy, its engine and the camera's buffers must fit beside the rest, bytes.
const MEMORY_LOW: u64 = 1 << 30;
/// A reset that comes later than this leaves a robot unattended for too long, seconds.
const HARDWARE_WATCHDOG_MAX_S: i64 = 30;

/// Looks at everything of this file.
#[must_use]
pub fn findings(tree: &Tree, health: &Health) -> Vec<Finding> {
    let mut findings = vec![
        board(tree),
        kernel(tree),
        throttling(tree),
        priority(tree),
        niceness(tree),
        locking(tree),
        isolation(tree),
        cpu_clocks(health),
    ];
    if is_tegra(tree) {
        findings.push(power_mode(tree));
        findings.push(gpu_clock(health));
    }
    findings.extend([
        temperature(health),
        over_current(health),
        memory(health),
        disk(tree),
        clock(tree),
        service(tree),
        hardware_watchdog(tree),
    ]);
    findings
}

/// Whether this is a Jetson: L4T says so, or the device tree does.
#[must_use]
pub fn is_tegra(tree: &Tree) -> bool {
    tree.exists("/etc/nv_tegra_release")
        || tree
            .read("/proc/device-tree/compatible")
            .is_some_and(|text| text.contains("nvidia,tegra"))
}

fn board(tree: &Tree) -> Finding {
    let model = tree
        .read("/proc/device-tree/model")
        .or_else(|| tree.read("/sys/class/dmi/id/product_name"))
        .unwrap_or_else(|| "unknown board".to_owned());
    // "# R36 (release), REVISION: 4.3, GCID: ..."
    let l4t = tree.read("/etc/nv_tegra_release").and_then(|text| {
        let release = text
            .trim_start_matches(['#', ' '])
            .split_whitespace()
            .next()?
            .to_owned();
        let revision = text
            .split("REVISION:")
            .nth(1)?
            .split(',')
            .next()?
            .trim()
            .to_owned();
        Some(format!("{release}.{revision}"))
    });
    match l4t {
        Some(l4t) => Finding::good("board", format!("{model}, Jetson Linux {l4t}")),
        None => Finding::good("board", model),
    }
}

fn kernel(tree: &Tree) -> Finding {
    let release = tree
        .read("/proc/sys/kernel/osrelease")
        .unwrap_or_else(|| "unknown".to_owned());
    let version = tree.read("/proc/version").unwrap_or_default();
    let real_time = tree.read("/sys/kernel/realtime").as_deref() == Some("1")
        || version.contains("PREEMPT_RT")
        || version.contains("PREEMPT RT");
    if real_time {
        return Finding::good("kernel", format!("{release}, PREEMPT_RT"));
    }
    let fix = if is_tegra(tree) {
        "NVIDIA's package nvidia-l4t-rt-kernel, from https://repo.download.nvidia.com/jetson/rt-kernel"
    } else {
        "a PREEMPT_RT kernel, e.g. Debian's linux-image-rt-amd64; for the bench robot it does not matter"
    };
    Finding::warning(
        "kernel",
        format!(
            "{release}, not PREEMPT_RT: safe all the same, but ticks may come milliseconds late under load"
        ),
        fix,
    )
}

fn throttling(tree: &Tree) -> Finding {
    const CHECK: &str = "rt throttling";
    match tree.number("/proc/sys/kernel/sched_rt_runtime_us") {
        Some(-1) => Finding::warning(
            CHECK,
            "off: a real-time thread that never sleeps takes its core, and the machine with it",
            "sysctl kernel.sched_rt_runtime_us=950000",
        ),
        Some(runtime_us) => Finding::good(CHECK, format!("on, {runtime_us} us a period")),
        None => Finding::absent(CHECK, "this kernel does not say"),
    }
}

/// The soft limit in `/proc/self/limits` whose line starts with `name`; `None` for unlimited.
fn soft_limit(tree: &Tree, name: &str) -> Option<Option<u64>> {
    let text = tree.read("/proc/self/limits")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

fn has_capability(tree: &Tree, bit: u32) -> bool {
    let status = tree.read("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << bit) != 0)
}

fn priority(tree: &Tree) -> Finding {
    const CHECK: &str = "real-time priority";
    let needed = u64::try_from(threads::WATCHDOG.fifo).unwrap_or(0);
    if has_capability(tree, CAP_SYS_NICE) {
        return Finding::good(CHECK, "granted by CAP_SYS_NICE");
    }
    match soft_limit(tree, "Max realtime priority") {
        Some(None) => Finding::good(CHECK, "granted without a limit"),
        Some(Some(granted)) if granted >= needed => {
            Finding::good(CHECK, format!("granted up to {granted}"))
        }
        Some(Some(granted)) => Finding::warning(
            CHECK,
            format!(
                "granted up to {granted}, the watchdog asks for {needed}: threads run at normal priority"
            ),
            format!(
                "run it by tendon.service (LimitRTPRIO={needed}), or write \"@tendon - rtprio {needed}\" to /etc/security/limits.d/tendon.conf and log in again"
            ),
        ),
        None => Finding::absent(CHECK, "/proc/self/limits does not say"),
    }
}

/// A normal thread of a user with a limit of `N` may go down to a niceness of `20 - N` (getrlimit(2), `RLIMIT_NICE`).
fn niceness(tree: &Tree) -> Finding {
    const CHECK: &str = "link's threads";
    const NEEDED: u64 = (20 - session::NICE).unsigned_abs() as u64;
    if has_capability(tree, CAP_SYS_NICE) {
        return Finding::good(CHECK, "niceness granted by CAP_SYS_NICE");
    }
    match soft_limit(tree, "Max nice priority") {
        Some(None) => Finding::good(CHECK, "niceness granted without a limit"),
        Some(Some(granted)) if granted >= NEEDED => Finding::good(
            CHECK,
            format!(
                "niceness granted down to {}",
                20_i64.saturating_sub_unsigned(granted)
            ),
        ),
        Some(Some(_)) => Finding::warning(
            CHECK,
            format!(
                "nice {} is not granted: on a busy machine commands come late",
                session::NICE
            ),
            format!(
                "run it by tendon.service (LimitNICE={0}), or write \"@tendon - nice {0}\" to /etc/security/limits.d/tendon.conf and log in again",
                session::NICE
            ),
        ),
        None => Finding::absent(CHECK, "/proc/self/limits does not say"),
    }
}

fn locking(tree: &Tree) -> Finding {
    const CHECK: &str = "locked memory";
    const NEEDED: u64 = 1 << 30;
    if has_capability(tree, CAP_IPC_LOCK) {
        return Finding::good(CHECK, "granted by CAP_IPC_LOCK");
    }
    match soft_limit(tree, "Max locked memory") {
        Some(None) => Finding::good(CHECK, "granted without a limit"),
        Some(Some(granted)) if granted >= NEEDED => {
            Finding::good(CHECK, format!("granted up to {} MiB", granted >> 20))
        }
        Some(Some(granted)) => Finding::warning(
            CHECK,
            format!(
                "{} KiB: pages of the control loop may be taken away and cost milliseconds",
                granted >> 10
            ),
            "run it by tendon.service (LimitMEMLOCK=infinity), or write \"@tendon - memlock unlimited\" to /etc/security/limits.d/tendon.conf",
        ),
        None => Finding::absent(CHECK, "/proc/self/limits does not say"),
    }
}

/// How many CPUs a list such as `0-3,6` names.
fn cpus(list: &str) -> usize {
    let parts = list.split(',').filter(|part| !part.is_empty());
    parts
        .filter_map(|part| match part.split_once('-') {
            Some((first, last)) => {
                let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
                Some((last + 1).saturating_sub(first))
            }
            None => part.parse::<usize>().ok().map(|_| 1),
        })
        .sum()
}

fn isolation(tree: &Tree) -> Finding {
    const CHECK: &str = "isolated cores";
    const CPU: &str = "/sys/devices/system/cpu";
    let online = cpus(&tree.read(&format!("{CPU}/online")).unwrap_or_default());
    let isolated = tree.read(&format!("{CPU}/isolated")).unwrap_or_default();
    let tickless = tree.read(&format!("{CPU}/nohz_full")).unwrap_or_default();
    if cpus(&isolated) > 0 {
        let note = if cpus(&tickless) > 0 {
            ", without ticks"
        } else {
            ""
        };
        return Finding::good(CHECK, format!("{isolated} of {online}{note}"));
    }
    if online < 6 {
        return Finding::absent(
            CHECK,
            format!("none; {online} cores are too few to give two away"),
        );
    }
    let (first, last) = (online - 2, online - 1);
    Finding::warning(
        CHECK,
        format!("none of {online}: control and governor share their cores with everything else"),
        format!(
            "append to the kernel's command line (Jetson: APPEND in /boot/extlinux/extlinux.conf): isolcpus=managed_irq,domain,{first}-{last} nohz_full={first}-{last} rcu_nocbs={first}-{last} irqaffinity=0-{}",
            first - 1
        ),
    )
}

fn mhz(hz: u64) -> u64 {
    hz / 1_000_000
}

fn cpu_clocks(health: &Health) -> Finding {
    const CHECK: &str = "CPU clocks";
    let clocks = &health.cpu_clocks;
    let Some(first) = clocks.first() else {
        return Finding::absent(
            CHECK,
            "no cpufreq here (a virtual machine, or fixed clocks)",
        );
    };
    let throttled: Vec<&Clock> = clocks
        .iter()
        .filter(|clock| clock.max_hz < clock.top_hz)
        .collect();
    let pinned = |clock: &Clock| {
        clock.governor.as_deref() == Some("performance") || clock.min_hz == clock.max_hz
    };
    if let Some(clock) = throttled.first() {
        return Finding::warning(
            CHECK,
            format!(
                "{} may reach {} of {} MHz",
                clock.name,
                mhz(clock.max_hz),
                mhz(clock.top_hz)
            ),
            "a power mode that allows all of it (Jetson: nvpmodel -m 0), more cooling, or no throttling cause (see temperatures)",
        );
    }
    match clocks.iter().find(|clock| !pinned(clock)) {
        Some(clock) => Finding::warning(
            CHECK,
            format!(
                "{}: governor {}, {} to {} MHz: a core that must first speed up is late",
                clock.name,
                clock.governor.as_deref().unwrap_or("unknown"),
                mhz(clock.min_hz),
                mhz(clock.max_hz)
            ),
            "jetson_clocks on a Jetson; elsewhere: cpupower frequency-set -g performance",
        ),
        None => Finding::good(CHECK, format!("pinned at {} MHz", mhz(first.max_hz))),
    }
}

/// nvpmodel keeps the chosen mode as `pmode:0002` in its status file; names stand in its configuration.
fn power_mode(tree: &Tree) -> Finding {
    const CHECK: &str = "power mode";
    let chosen = tree
        .read("/var/lib/nvpmodel/status")
        .and_then(|text| text.strip_prefix("pmode:")?.parse::<u32>().ok());
    let Some(chosen) = chosen else {
        return Finding::warning(
            CHECK,
            "nvpmodel has no status: the mode is whatever the board starts with",
            "nvpmodel -q, then nvpmodel -m 0 (MAXN; on Super boards -m 2 is MAXN_SUPER, see /etc/nvpmodel.conf)",
        );
    };
    // "< POWER_MODEL ID=0 NAME=MAXN >"
    let modes = tree.read("/etc/nvpmodel.conf").unwrap_or_default();
    let name = modes.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("< POWER_MODEL ID=")?;
        let (id, rest) = rest.split_once(' ')?;
        let name = rest
            .trim()
            .strip_prefix("NAME=")?
            .trim_end_matches(['>', ' ']);
        (id.parse() == Ok(chosen)).then(|| name.to_owned())
    });
    let name = name.unwrap_or_else(|| "a mode that /etc/nvpmodel.conf does not name".to_owned());
    if name.starts_with("MAXN") {
        Finding::good(CHECK, format!("{chosen}: {name}"))
    } else {
        Finding::warning(
            CHECK,
            format!("{chosen}: {name}: cores and clocks are held back to save power"),
            "nvpmodel -m with the ID of a MAXN mode of /etc/nvpmodel.conf; or keep it, and commission at this mode",
        )
    }
}

fn gpu_clock(health: &Health) -> Finding {
    const CHECK: &str = "GPU clock";
    match &health.gpu_clock {
        None => Finding::warning(
            CHECK,
            "no GPU among /sys/class/devfreq",
            "check that the GPU's driver is loaded: lsmod | grep nvgpu; dmesg",
        ),
        Some(clock) if clock.min_hz == clock.max_hz => Finding::good(
            CHECK,
            format!("pinned at {} MHz (jetson_clocks)", mhz(clock.max_hz)),
        ),
        Some(clock) => Finding::warning(
            CHECK,
            format!(
                "{} to {} MHz: inference time varies with the load before",
                mhz(clock.min_hz),
                mhz(clock.max_hz)
            ),
            "jetson_clocks, at each start: a unit that runs it before tendon.service",
        ),
    }
}

fn temperature(health: &Health) -> Finding {
    const CHECK: &str = "temperatures";
    const MARGIN_C: f64 = 5.0;
    let close = health.temperatures.iter().find(|zone| {
        zone.trip_c
            .is_some_and(|trip_c| zone.now_c > trip_c - MARGIN_C)
    });
    let hottest = health
        .temperatures
        .iter()
        .max_by(|a, b| a.now_c.total_cmp(&b.now_c));
    match (close, hottest) {
        (Some(zone), _) => Finding::warning(
            CHECK,
            format!(
                "{} at {:.0} C, slows down at {:.0} C",
                zone.name,
                zone.now_c,
                zone.trip_c.unwrap_or(zone.now_c)
            ),
            "more cooling, or a lower power mode",
        ),
        (None, Some(zone)) => Finding::good(
            CHECK,
            format!("{:.0} C at most ({})", zone.now_c, zone.name),
        ),
        (None, None) => Finding::absent(CHECK, "no thermal zone can be read"),
    }
}

fn over_current(health: &Health) -> Finding {
    const CHECK: &str = "over-current";
    let happened: Vec<String> = health
        .over_current
        .iter()
        .filter(|events| events.count > 0)
        .map(|events| format!("{} {} times", events.name, events.count))
        .collect();
    if health.over_current.is_empty() {
        Finding::absent(CHECK, "this machine does not count it")
    } else if happened.is_empty() {
        Finding::good(CHECK, "never since boot")
    } else {
        Finding::warning(
            CHECK,
            format!(
                "{} since boot: the board throttled itself",
                happened.join(", ")
            ),
            "a stronger power supply, or a lower power mode",
        )
    }
}

fn memory(health: &Health) -> Finding {
    const CHECK: &str = "memory";
    let Some(memory) = health.memory else {
        return Finding::absent(CHECK, "/proc/meminfo does not say");
    };
    let found = format!(
        "{} of {} MiB available",
        memory.available >> 20,
        memory.total >> 20
    );
    if memory.available < MEMORY_LOW {
        Finding::warning(
            CHECK,
            found,
            "end what is not needed (a desktop takes about 1 GiB); GPU memory is this same memory on a Jetson",
        )
    } else {
        Finding::good(CHECK, found)
    }
}

/// Where recordings and crash records go; the nearest folder that exists.
fn disk(tree: &Tree) -> Finding {
    const CHECK: &str = "disk";
    let wanted = tree.path("/var/lib/tendon");
    let folder = wanted.ancestors().find(|folder| folder.exists());
    let Some(Ok(space)) = folder.map(rustix::fs::statvfs) else {
        return Finding::absent(CHECK, "cannot be asked");
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let found = format!("{} MiB free for /var/lib/tendon", free >> 20);
    match free {
        0..DISK_NONE => Finding::bad(
            CHECK,
            found,
            "make room: a stop must be able to leave a record",
        ),
        DISK_NONE..DISK_LOW => Finding::warning(
            CHECK,
            found,
            "make room: recordings stop when the disk is full",
        ),
        _ => Finding::good(CHECK, found),
    }
}

fn clock(tree: &Tree) -> Finding {
    const CHECK: &str = "clock";
    let source = tree
        .read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .unwrap_or_else(|| "unknown".to_owned());
    if matches!(source.as_str(), "hpet" | "acpi_pm" | "jiffies") {
        return Finding::warning(
            CHECK,
            format!(
                "source {source}: each reading is a slow one, and there are thousands a second"
            ),
            "look in dmesg why the kernel gave up the processor's own counter",
        );
    }
    let synchronised = tree.exists("/run/systemd/timesync/synchronized")
        || tree.exists("/run/chrony")
        || tree.exists("/run/ptp4l")
        || tree.exists("/run/openntpd.pid");
    if synchronised {
        Finding::good(
            CHECK,
            format!("source {source}, time of day kept by the network"),
        )
    } else {
        Finding::warning(
            CHECK,
            format!(
                "source {source}; nobody sets the time of day: recordings and certificates depend on it, control does not"
            ),
            "systemctl enable --now systemd-timesyncd, or chrony",
        )
    }
}

fn unit_value(text: &str, key: &str) -> Option<String> {
    let mut lines = text.lines().rev();
    let value = lines.find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
    value.map(|value| value.trim().to_owned())
}

fn service(tree: &Tree) -> Finding {
    const CHECK: &str = "service";
    let places = [
        "/etc/systemd/system",
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
    ];
    let unit = places
        .iter()
        .find_map(|place| tree.read(&format!("{place}/tendon.service")));
    let Some(unit) = unit else {
        return Finding::absent(
            CHECK,
            "tendon.service is not installed; fine for trying things out",
        );
    };
    let kind = unit_value(&unit, "Type");
    match (kind.as_deref(), unit_value(&unit, "WatchdogSec")) {
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

/// What systemd was told, and what the driver says it took.
fn hardware_watchdog(tree: &Tree) -> Finding {
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
    let fix = "copy systemd/system-watchdog.conf to /etc/systemd/system.conf.d/ and restart";
    let mut texts = vec![tree.read("/etc/systemd/system.conf").unwrap_or_default()];
    let drop_ins = tree.with_prefix("/etc/systemd/system.conf.d", "");
    texts.extend(drop_ins.iter().filter_map(|path| tree.read(path)));
    let told = texts
        .iter()
        .rev()
        .find_map(|text| unit_value(text, "RuntimeWatchdogSec"));
    let Some(told) = told.filter(|told| told != "0" && told != "off") else {
        return Finding::warning(
            CHECK,
            format!("{name}, but systemd does not ping it: a machine that hangs stays hung"),
            fix,
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
