// SPDX-License-Identifier: Apache-2.0
//! The doctor's judgement on two written-down machines, on changes to them, and on a deployment.

use super::devices::Who;
use super::{Finding, Report, Verdict, deployment};
use crate::runtime::health::{Health, Tree};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tempfile::TempDir;

/// A machine of `tests/machines`, expanded; `changes` are lines of the same form that come after, so they win.
struct Machine(TempDir);

impl Machine {
    fn new(name: &str, changes: &str) -> Machine {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/machines")
            .join(name);
        let text = fs::read_to_string(path).expect("a machine of tests/machines");
        let folder = TempDir::new().expect("a folder");
        for line in text.lines().chain(changes.lines()) {
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let (name, text) = line.split_once(" =").expect("path [mode] = text");
            let (name, mode) = name.split_once(' ').unwrap_or((name, "644"));
            let path = folder.path().join(name.trim_start_matches('/'));
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            let text = text.strip_prefix(' ').unwrap_or(text);
            let text = text
                .replace("\\n", "\n")
                .replace("\\t", "\t")
                .replace("\\0", "\0");
            fs::write(&path, text).expect("a file");
            let mode = u32::from_str_radix(mode, 8).expect("an octal mode");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
        }
        Machine(folder)
    }

    fn without(self, path: &str) -> Machine {
        let path = self.0.path().join(path.trim_start_matches('/'));
        if path.is_dir() {
            fs::remove_dir_all(path).expect("was there");
        } else {
            fs::remove_file(path).expect("was there");
        }
        self
    }

    fn tree(&self) -> Tree {
        Tree::at(self.0.path())
    }

    #[track_caller]
    fn finding(&self, check: &str) -> Finding {
        let report = Report::of_machine(&self.tree());
        let found = report
            .findings
            .iter()
            .find(|finding| finding.check == check);
        found
            .unwrap_or_else(|| panic!("no finding \"{check}\" in\n{report}"))
            .clone()
    }
}

#[track_caller]
fn judged(machine: &Machine, check: &str, verdict: Verdict, says: &str) {
    let finding = machine.finding(check);
    assert_eq!(finding.verdict, verdict, "{finding:?}");
    let text = format!(
        "{} {}",
        finding.found,
        finding.fix.as_deref().unwrap_or_default()
    );
    assert!(text.contains(says), "{says:?} is not in {text:?}");
    let must_help = matches!(verdict, Verdict::Warning | Verdict::Bad);
    assert_eq!(finding.fix.is_some(), must_help, "{finding:?}");
}

#[rustfmt::skip]
#[test]
fn an_orin_out_of_the_box_is_told_what_to_do() {
    let orin = Machine::new("orin.txt", "");
    judged(&orin, "board", Verdict::Good, "AGX Orin Developer Kit, Jetson Linux R36.4.3");
    judged(&orin, "kernel", Verdict::Warning, "nvidia-l4t-rt-kernel");
    judged(&orin, "rt throttling", Verdict::Good, "950000");
    judged(&orin, "real-time priority", Verdict::Warning, "up to 0, the watchdog asks for 85");
    judged(&orin, "link's threads", Verdict::Warning, "nice -10 is not granted");
    judged(&orin, "locked memory", Verdict::Warning, "65536 KiB");
    judged(&orin, "isolated cores", Verdict::Warning, "isolcpus=managed_irq,domain,10-11 nohz_full=10-11 rcu_nocbs=10-11 irqaffinity=0-9");
    judged(&orin, "CPU clocks", Verdict::Warning, "1728 of 2201 MHz");
    judged(&orin, "power mode", Verdict::Warning, "2: MODE_30W");
    judged(&orin, "GPU clock", Verdict::Warning, "306 to 612 MHz");
    judged(&orin, "temperatures", Verdict::Good, "51 C at most (tj-thermal)");
    judged(&orin, "over-current", Verdict::Warning, "oc3 3 times");
    judged(&orin, "clock", Verdict::Good, "arch_sys_counter");
    judged(&orin, "service", Verdict::Good, "WatchdogSec=500ms");
    judged(&orin, "hardware watchdog", Verdict::Warning, "Tegra WDT: told 10s, it took 120 s");
    judged(&orin, "GPU memory node", Verdict::Warning, "cuInit 999");
    judged(&orin, "GPU render node", Verdict::Warning, "cuInit 801");
    judged(&orin, "CUDA driver", Verdict::Good, "1.1 (/usr/lib/aarch64-linux-gnu/nvidia/libcuda.so.1.1)");
    judged(&orin, "CUDA runtime", Verdict::Good, "12.6.68");
    judged(&orin, "TensorRT", Verdict::Good, "10.3.0 (/usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0)");
    judged(&orin, "cameras", Verdict::Warning, "/dev/video0 \"HD Pro Webcam C920\"; their numbers may change");
    judged(&orin, "GPIO lines", Verdict::Warning, "/dev/gpiochip0 (660");
}

#[rustfmt::skip]
#[test]
fn what_was_done_is_seen() {
    let orin = Machine::new("orin.txt", "\
/sys/kernel/realtime = 1
/sys/devices/system/cpu/isolated = 10-11
/sys/devices/system/cpu/nohz_full = 10-11
/sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq = 2201600
/sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq = 2201600
/var/lib/nvpmodel/status = pmode:0000
/sys/class/devfreq/17000000.gpu/min_freq = 612000000
/proc/self/status = Uid:\\t64990\\t64990\\t64990\\t64990\\nGid:\\t64990\\t64990\\t64990\\t64990\\nGroups:\\t44 104 \\nCapEff:\\t0000000000804000\\n
/sys/class/hwmon/hwmon4/oc3_event_cnt = 0
/sys/class/watchdog/watchdog0/timeout = 10
/dev/nvmap 666 =
/dev/dri/renderD128 666 =
/dev/tendon/camera-1234 666 =
/dev/gpiochip0 666 =");
    for (check, says) in [
        ("kernel", "PREEMPT_RT"), ("isolated cores", "10-11 of 12, without ticks"), ("CPU clocks", "pinned at 2201 MHz"),
        ("power mode", "0: MAXN"), ("GPU clock", "pinned at 612 MHz"), ("real-time priority", "CAP_SYS_NICE"),
        ("locked memory", "CAP_IPC_LOCK"), ("over-current", "never"), ("hardware watchdog", "Tegra WDT, 10 s"),
        ("GPU memory node", "/dev/nvmap"), ("GPU render node", "renderD128"), ("cameras", "1 stable names"), ("GPIO lines", "gpiochip0"),
    ] {
        judged(&orin, check, Verdict::Good, says);
    }
}

#[rustfmt::skip]
#[test]
fn a_laptop_misses_nothing_that_it_does_not_need() {
    let laptop = Machine::new("laptop.txt", "");
    let report = Report::of_machine(&laptop.tree());
    assert!(report.could_arm, "{report}");
    for (check, verdict) in [
        ("board", Verdict::Good), ("kernel", Verdict::Good), ("real-time priority", Verdict::Good),
        ("link's threads", Verdict::Good), ("ONNX Runtime", Verdict::Absent),
        ("locked memory", Verdict::Good), ("isolated cores", Verdict::Good), ("CPU clocks", Verdict::Good),
        ("temperatures", Verdict::Good), ("over-current", Verdict::Absent), ("CUDA driver", Verdict::Absent),
        ("TensorRT", Verdict::Absent), ("cameras", Verdict::Absent), ("hardware watchdog", Verdict::Absent),
        ("service", Verdict::Absent),
    ] {
        assert_eq!(laptop.finding(check).verdict, verdict, "{report}");
    }
    // What only a Jetson has is not asked of it.
    assert!(!report.findings.iter().any(|finding| finding.check == "power mode" || finding.check == "GPU memory node"));
}

#[rustfmt::skip]
#[test]
fn each_fault_is_its_own_finding() {
    let with = |changes: &str| Machine::new("orin.txt", changes);
    judged(&with("/proc/sys/kernel/sched_rt_runtime_us = -1"), "rt throttling", Verdict::Warning, "950000");
    judged(&with("/sys/class/thermal/thermal_zone0/temp = 95000"), "temperatures", Verdict::Warning, "cpu-thermal at 95 C, slows down at 99 C");
    judged(&with("/proc/meminfo = MemTotal: 8000000 kB\\nMemAvailable: 500000 kB\\n"), "memory", Verdict::Warning, "488 of 7812 MiB");
    judged(&with("/sys/devices/system/clocksource/clocksource0/current_clocksource = hpet"), "clock", Verdict::Warning, "hpet");
    judged(&with("").without("/run/systemd"), "clock", Verdict::Warning, "timesyncd");
    judged(&with("/usr/lib/systemd/system/tendon.service = [Service]\\nType=simple\\n"), "service", Verdict::Warning, "Type=simple, WatchdogSec=none");
    judged(&with("").without("/etc/systemd"), "hardware watchdog", Verdict::Warning, "systemd does not ping it");
    judged(&with("").without("/dev/nvmap"), "GPU memory node", Verdict::Warning, "/dev/nvmap is not there");
    judged(&with("/dev/dri/renderD128 660 ="), "GPU render node", Verdict::Warning, "renderD128 (660");
    judged(&with("").without("/usr/lib/aarch64-linux-gnu/libnvinfer.so.10").without("/usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0"), "TensorRT", Verdict::Warning, "no libnvinfer.so.*");
    judged(&with("").without("/sys/class/devfreq"), "GPU clock", Verdict::Warning, "nvgpu");
    judged(&with("").without("/var/lib/nvpmodel"), "power mode", Verdict::Warning, "no status");
    judged(&with("/dev/video0 660 ="), "cameras", Verdict::Warning, "usermod -aG video");
    judged(&with("/sys/devices/system/cpu/online = 0-3"), "isolated cores", Verdict::Absent, "4 cores");
}

#[test]
fn health_is_read_by_name_and_tolerates_what_is_absent() {
    let orin = Machine::new("orin.txt", "");
    let health = Health::read(&orin.tree());
    let zones: Vec<&str> = health
        .temperatures
        .iter()
        .map(|zone| zone.name.as_str())
        .collect();
    assert_eq!(
        zones,
        ["cpu-thermal", "tj-thermal"],
        "cv0 gives nothing and is left out"
    );
    assert_eq!(
        health.temperatures.first().and_then(|zone| zone.trip_c),
        Some(99.0),
        "an active trip is a fan"
    );
    assert_eq!(health.cooling, [("pwm-fan".to_owned(), 2)]);
    assert_eq!(health.gpu_load, Some(0.125));
    let gpu = health.gpu_clock.expect("a GPU");
    assert_eq!((gpu.max_hz, gpu.top_hz), (612_000_000, 1_300_500_000));
    let rails: Vec<(&str, i64)> = health
        .rails
        .iter()
        .map(|rail| (rail.name.as_str(), (rail.power_w * 1000.0).round() as i64))
        .collect();
    assert_eq!(
        rails,
        [("VDD_GPU_SOC", 3064)],
        "a rail without a current is left out"
    );
    let counts: Vec<u64> = health
        .over_current
        .iter()
        .map(|events| events.count)
        .collect();
    assert_eq!(counts, [0, 0, 3]);
    assert_eq!(
        health.memory.and_then(|memory| memory.pressure_percent),
        Some(0.0)
    );

    let empty = TempDir::new().expect("a folder");
    assert_eq!(Health::read(&Tree::at(empty.path())), Health::default());
    let report = Report::of_machine(&Tree::at(empty.path()));
    assert!(report.findings.len() > 12, "{report}");
}

#[rustfmt::skip]
#[test]
fn permission_bits_are_read_as_the_kernel_does() {
    let user = Who { uid: 1000, gids: vec![1000, 44] };
    for (mode, owner, group, want) in [
        (0o666, 0, 0, true), (0o660, 0, 44, true), (0o660, 0, 45, false), (0o440, 0, 44, false), (0o600, 1000, 0, true),
        // The owner's bits count for the owner, even where the group's would give more.
        (0o060, 1000, 44, false), (0o606, 0, 44, false), (0o000, 0, 0, false),
    ] {
        assert_eq!(user.may_use(mode, owner, group), want, "{mode:o} {owner} {group}");
    }
    assert!(Who { uid: 0, gids: vec![] }.may_use(0, 1, 1));
}

#[test]
fn a_deployment_that_could_not_arm_says_why() {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/bench");
    let folder = TempDir::new().expect("a folder");
    let tendon = fs::read_to_string(bench.join("tendon.toml")).expect("the bench's deployment");
    let robot = fs::read_to_string(bench.join("robot.toml")).expect("the bench's robot");
    let path = folder.path().join("tendon.toml");
    fs::copy(bench.join("robot.urdf"), folder.path().join("robot.urdf")).expect("copied");
    let write = |tendon: &str, robot: &str| {
        fs::write(&path, tendon).expect("a file");
        fs::write(folder.path().join("robot.toml"), robot).expect("a file");
        let mut report = Report::of_machine(&Machine::new("laptop.txt", "").tree());
        report.add(deployment::configuration(&path).0);
        report
    };
    let engines = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla");
    let tendon = tendon.replace("../../engines/bench-vla", &engines.display().to_string());
    let fits = write(&tendon, &robot);
    assert!(fits.could_arm, "{fits}");

    let no_bundle = write(&tendon.replace("engines/bench-vla", "engines/none"), &robot);
    assert!(
        !no_bundle.could_arm && no_bundle.to_string().contains("manifest.json"),
        "{no_bundle}"
    );
    let renamed = write(&tendon, &robot.replace("elbow_pitch", "elbow"));
    assert!(
        !renamed.could_arm && renamed.to_string().contains("elbow"),
        "{renamed}"
    );
    let camera = write(&tendon.replace("width = 224", "width = 320"), &robot);
    assert!(
        !camera.could_arm && camera.to_string().contains("trained on"),
        "{camera}"
    );
}
