// SPDX-License-Identifier: Apache-2.0
//! Kernel, limits, cores, clocks, temperatures, memory, disk.

use super::{Finding, unit, watchdog};
use crate::link::session;
use crate::runtime::cores;
use crate::runtime::health::{Clock, DISK_LOW, DISK_NONE, Health, MEMORY_LOW, Tree};
use crate::runtime::threads;
use std::path::Path;

/// Bits of `CapEff` in `/proc/self/status` (`linux/capability.h`).
pub(super) const CAP_IPC_LOCK: u32 = 14;
pub(super) const CAP_SYS_NICE: u32 = 23;

/// Looks at everything of this file.
#[must_use]
pub fn findings(tree: &Tree, health: &Health, state: &Path) -> Vec<Finding> {
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
        disk(health, state),
        clock(tree),
        unit::service(tree),
        watchdog::finding(tree),
    ]);
    findings
}

/// Those of a router beside the runtime: what reads their dates comes with TLS.
#[cfg(not(feature = "tls"))]
pub(super) fn certificates(tree: &Tree) -> Option<Finding> {
    const FOLDER: &str = "/etc/tendon/tls";
    let files = tree.list(FOLDER);
    let count = files.iter().filter(|name| name.ends_with(".pem")).count();
    let found = format!(
        "{count} in {FOLDER}; a build with --features tls tells their dates, and so does `openssl x509 -enddate -noout -in FILE`"
    );
    (count > 0).then(|| Finding::absent("certificates", found))
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
pub(super) fn soft_limit(tree: &Tree, name: &str) -> Option<Option<u64>> {
    let text = tree.read("/proc/self/limits")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

pub(super) fn has_capability(tree: &Tree, bit: u32) -> bool {
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

/// Under a limit the runtime locks nothing: see [`lock_memory`](crate::runtime::realtime::lock_memory).
fn locking(tree: &Tree) -> Finding {
    const CHECK: &str = "locked memory";
    if has_capability(tree, CAP_IPC_LOCK) {
        return Finding::good(CHECK, "granted by CAP_IPC_LOCK");
    }
    match soft_limit(tree, "Max locked memory") {
        Some(None) => Finding::good(CHECK, "granted without a limit"),
        Some(Some(granted)) => Finding::warning(
            CHECK,
            format!(
                "only {} KiB, so none is locked: pages of the control loop may be taken away and cost milliseconds",
                granted >> 10
            ),
            "run it by tendon.service (LimitMEMLOCK=infinity), or write \"@tendon - memlock unlimited\" to /etc/security/limits.d/tendon.conf",
        ),
        None => Finding::absent(CHECK, "/proc/self/limits does not say"),
    }
}

fn isolation(tree: &Tree) -> Finding {
    const CHECK: &str = "isolated cores";
    let online = cores::of_machine(tree, "online").len();
    let isolated = cores::of_machine(tree, "isolated");
    let tickless = cores::of_machine(tree, "nohz_full");
    if !isolated.is_empty() {
        let note = if tickless.is_empty() {
            ""
        } else {
            ", without ticks"
        };
        let list = tree.read("/sys/devices/system/cpu/isolated");
        let list = list.unwrap_or_default();
        return Finding::good(CHECK, format!("{list} of {online}{note}"));
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
    let waited = memory.pressure_percent.map_or_else(String::new, |percent| {
        format!("; in {percent:.0} % of the last 10 s somebody waited for some")
    });
    let found = format!(
        "{} of {} MiB available{waited}",
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

/// Where recordings and crash records go.
fn disk(health: &Health, state: &Path) -> Finding {
    const CHECK: &str = "disk";
    let Some(disk) = health.disk else {
        return Finding::absent(CHECK, "cannot be asked");
    };
    let found = format!("{} MiB free for {}", disk.free >> 20, state.display());
    match disk.free {
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
    // The kernel's own word (STA_UNSYNC of adjtimex) stands in no file, and no dependency asks for it safely. systemd-timesyncd
    // touches this file each time that it has heard from a server; it goes when that service ends.
    if tree.exists("/run/systemd/timesync/synchronized") {
        return Finding::good(
            CHECK,
            format!("source {source}, time of day kept by the network (systemd-timesyncd)"),
        );
    }
    // These tell that somebody was started, not that he has reached anybody.
    let others = [
        ("/run/chrony", "chrony", "chronyc tracking"),
        ("/run/ptp4l", "ptp4l", "pmc -u -b 0 'GET TIME_STATUS_NP'"),
        ("/run/openntpd.pid", "openntpd", "ntpctl -s status"),
    ];
    match others.iter().find(|(path, ..)| tree.exists(path)) {
        Some((_, name, asks)) => Finding::absent(
            CHECK,
            format!(
                "source {source}; {name} runs; whether it is synchronised is not known: {asks}"
            ),
        ),
        None => Finding::warning(
            CHECK,
            format!(
                "source {source}; nobody sets the time of day: recordings and certificates depend on it, control does not"
            ),
            "systemctl enable --now systemd-timesyncd, or chrony",
        ),
    }
}
