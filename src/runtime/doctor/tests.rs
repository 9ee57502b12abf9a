// SPDX-License-Identifier: Apache-2.0
//! The doctor's judgement on two written-down machines, on changes to them, and on a deployment.

use super::devices::{READ_WRITE, Who};
use super::unit::{Grant, Unit};
use super::{Finding, Report, Verdict, asked, cameras, deployment, hosts, sandbox, watchdog};
use crate::config::camera::CameraSource;
use crate::config::link::Tls;
use crate::config::realtime::{Realtime, RealtimeMode};
use crate::config::watchdog::WatchdogConfig;
use crate::config::{Config, EngineKind, RemoteConfig};
use crate::core::camera::skew::Need;
use crate::core::governor::reaction::Cause;
use crate::runtime::crash::Recorder;
use crate::runtime::deployment::Identities;
use crate::runtime::health::{Health, Tree};
use crate::runtime::latch::LatchFile;
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

    /// With a file, at its place.
    fn with(self, path: &str, text: &str) -> Machine {
        let path = self.0.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
        self
    }

    /// With a unit of this repository, installed.
    fn with_unit(self, name: &str) -> Machine {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("systemd")
            .join(name);
        let text = fs::read_to_string(path).expect("a shipped unit");
        self.with(&format!("/usr/lib/systemd/system/{name}"), &text)
    }

    fn unit_of(&self, config: &str) -> Option<Unit> {
        Unit::that_starts(&self.tree(), Path::new(config))
    }

    fn tree(&self) -> Tree {
        Tree::at(self.0.path())
    }

    #[track_caller]
    fn finding(&self, check: &str) -> Finding {
        let report = Report::of_machine(&self.tree(), None);
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
    let report = Report::of_machine(&laptop.tree(), None);
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
    // Who runs may have reached nobody.
    for (path, asks) in [("/run/chrony/chronyd.sock", "chronyc tracking"), ("/run/ptp4l", "pmc -u"), ("/run/openntpd.pid", "ntpctl")] {
        judged(&with("").without("/run/systemd").with(path, ""), "clock", Verdict::Absent, asks);
    }
    judged(&with("").with("/run/chrony/chronyd.sock", ""), "clock", Verdict::Good, "kept by the network (systemd-timesyncd)");
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
    let health = Health::read(&orin.tree(), None);
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
    assert_eq!(
        Health::read(&Tree::at(empty.path()), None),
        Health::default()
    );
    let kept = Health::read(&Tree::at(empty.path()), Some(&empty.path().join("not/yet")));
    let disk = kept.disk.expect("of the nearest folder that exists");
    assert!(disk.free <= disk.total && disk.total > 0, "{disk:?}");
    let report = Report::of_machine(&Tree::at(empty.path()), None);
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
        assert_eq!(user.may_use(READ_WRITE, mode, owner, group), want, "{mode:o} {owner} {group}");
    }
    assert!(Who { uid: 0, gids: vec![] }.may_use(READ_WRITE, 0, 1, 1));
    assert!(user.may_use(0o4, 0o440, 0, 44) && !user.may_use(0o4, 0o440, 0, 45));
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
        let mut report = Report::of_machine(&Machine::new("laptop.txt", "").tree(), None);
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

#[test]
fn what_is_on_its_way_to_fail_is_told_by_the_running_pipeline() {
    let complaints = |changes: &str| -> Vec<String> {
        let health = Health::read(&Machine::new("laptop.txt", changes).tree(), None);
        let words = health.complaints().into_iter();
        words
            .map(|words| words.split(':').next().unwrap_or_default().to_owned())
            .collect()
    };
    assert_eq!(complaints(""), [""; 0]);
    assert_eq!(
        complaints("/proc/meminfo = MemTotal: 8000000 kB\\nMemAvailable: 500000 kB\\n"),
        ["memory is short"]
    );
    assert_eq!(
        complaints("/proc/pressure/memory = some avg10=42.00 avg60=1.00 avg300=0.00 total=1\\n"),
        ["memory is short"]
    );
    let cpu = "/sys/devices/system/cpu/cpufreq/policy0";
    assert_eq!(
        complaints(&format!("{cpu}/cpuinfo_max_freq = 4800000\\n")),
        ["clocks are held back (power mode or heat)"]
    );
    let full = Health {
        disk: Some(crate::runtime::health::Disk {
            free: 1 << 20,
            total: 1 << 40,
        }),
        ..Health::default()
    };
    assert!(full.complaints()[0].starts_with("the disk"), "{full:?}");
}

const CONFIG: &str = "/etc/tendon/tendon.toml";

fn asks(mode: RealtimeMode, cores: &[(&str, &[usize])]) -> Realtime {
    let cores = cores
        .iter()
        .map(|(name, cores)| ((*name).to_owned(), cores.to_vec()));
    Realtime {
        mode,
        lock_memory: true,
        cores: cores.collect(),
    }
}

#[track_caller]
fn real_time(machine: &Machine, config: &str, asked: &Realtime, verdict: Verdict, says: &str) {
    let unit = machine.unit_of(config);
    let grant = Grant::of(&machine.tree(), unit.as_ref());
    let findings = asked::realtime(&machine.tree(), asked, &grant);
    let finding = findings.first().expect("one on the mode");
    assert_eq!(finding.verdict, verdict, "{findings:?}");
    let all = format!("{findings:?}");
    assert!(all.contains(says), "{says:?} is not in {all}");
}

#[test]
fn real_time_that_is_required_is_judged_by_the_unit_that_starts_it() {
    let require = asks(RealtimeMode::Require, &[]);
    let orin = || Machine::new("orin.txt", "");
    let bare =
        "priorities up to 85 (0); niceness -10 of the link (0); locked memory without a limit";
    // Nobody starts it, or another one is started: this process's limits count.
    real_time(&orin(), CONFIG, &require, Verdict::Bad, bare);
    let installed = orin()
        .with_unit("tendon.service")
        .with_unit("tendon@.service");
    let elsewhere = "/home/me/tendon.toml";
    real_time(&installed, elsewhere, &require, Verdict::Bad, bare);
    // The units as they ship grant it all.
    let granted = "all of it is granted by tendon.service";
    real_time(&installed, CONFIG, &require, Verdict::Good, granted);
    let arm = "/etc/tendon/arm-1/tendon.toml";
    let granted = "all of it is granted by tendon@arm-1.service";
    real_time(&installed, arm, &require, Verdict::Good, granted);
    // A drop-in takes some away.
    let less = installed.with(
        "/etc/systemd/system/tendon.service.d/less.conf",
        "[Service]\nLimitRTPRIO = 50\nLimitMEMLOCK=1G\n",
    );
    let lacks =
        "granted by tendon.service: priorities up to 85 (50); locked memory without a limit";
    real_time(&less, CONFIG, &require, Verdict::Bad, lacks);
    real_time(&less, CONFIG, &require, Verdict::Bad, "LimitRTPRIO=85");
    let prefer = asks(RealtimeMode::Prefer, &[]);
    real_time(&less, CONFIG, &prefer, Verdict::Warning, lacks);
    for line in ["RestrictRealtime=yes", "SystemCallFilter=~@resources"] {
        let barred = orin().with_unit("tendon.service").with(
            "/etc/systemd/system/tendon.service.d/hard.conf",
            &format!("[Service]\n{line}\n"),
        );
        let lacks = "priorities up to 85 (0)";
        real_time(&barred, CONFIG, &require, Verdict::Bad, lacks);
    }
    let off = asks(RealtimeMode::Off, &[]);
    real_time(&less, CONFIG, &off, Verdict::Good, "nothing is asked");
    // Without a limit of its own a unit has systemd's: none.
    let plain = orin().with(
        "/etc/systemd/system/tendon.service",
        "[Service]\nUser=tendon\nExecStart=/usr/bin/tendon run --config /etc/tendon/tendon.toml\n",
    );
    real_time(&plain, CONFIG, &require, Verdict::Bad, bare);
    // The laptop grants it to whoever logs in.
    let laptop = Machine::new("laptop.txt", "");
    let granted = "granted by the limits of this process";
    real_time(&laptop, CONFIG, &require, Verdict::Good, granted);
}

#[test]
fn cores_are_there_allowed_and_free_of_others_or_it_is_told() {
    let installed = || Machine::new("orin.txt", "").with_unit("tendon.service");
    let require = |cores: &[(&str, &[usize])]| asks(RealtimeMode::Require, cores);
    let (last, beyond) = (
        require(&[("control", &[11])]),
        require(&[("control", &[12])]),
    );
    let shared = "control 11 share their cores with everything else, as the kernel isolates none";
    real_time(&installed(), CONFIG, &last, Verdict::Good, shared);
    let found = "core 12 for control";
    real_time(&installed(), CONFIG, &beyond, Verdict::Bad, found);
    let few = installed().with(
        "/etc/systemd/system/tendon.service.d/cores.conf",
        "[Service]\nCPUAffinity=0\nAllowedCPUs=0-3 10\n",
    );
    let found = "core 11 for control";
    real_time(&few, CONFIG, &last, Verdict::Bad, found);
    real_time(&few, CONFIG, &last, Verdict::Bad, "(0, 1, 2, 3, 10)");

    let isolated = Machine::new("orin.txt", "/sys/devices/system/cpu/isolated = 10-11")
        .with_unit("tendon.service");
    let unit = isolated.unit_of(CONFIG);
    let grant = Grant::of(&isolated.tree(), unit.as_ref());
    let findings = asked::realtime(&isolated.tree(), &last, &grant);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].verdict, Verdict::Good);

    // By hand: a process runs on none of the isolated cores, and its threads may go there; not where its group may not.
    let by_hand = |group: &str| {
        let by_hand = Machine::new("orin.txt", "/sys/devices/system/cpu/isolated = 10-11")
            .with(
                "/proc/self/status",
                "Cpus_allowed_list:\t0-9\nCapEff:\t000001ffffffffff\n",
            )
            .with("/proc/self/cgroup", "0::/user.slice\n")
            .with("/sys/fs/cgroup/user.slice/cpuset.cpus.effective", group);
        let grant = Grant::of(&by_hand.tree(), None);
        asked::realtime(&by_hand.tree(), &last, &grant)
    };
    assert_eq!(by_hand("0-11\n")[0].verdict, Verdict::Good);
    let findings = by_hand("0-9\n");
    assert_eq!(findings[0].verdict, Verdict::Bad, "{findings:?}");
    assert!(
        findings[0].found.contains("core 11 for control"),
        "{findings:?}"
    );
}

#[test]
fn what_an_earlier_run_left_waits_for_a_person() {
    let machine = || Machine::new("laptop.txt", "").with_unit("tendon.service");
    let look = |machine: &Machine, acknowledged| {
        let unit = machine.unit_of(CONFIG);
        assert!(unit.is_some());
        asked::state(&machine.tree(), "arm", unit.as_ref(), acknowledged)
    };
    let is = |findings: &[Finding], verdicts: [Verdict; 2], says: &str| {
        let found: Vec<Verdict> = findings.iter().map(|finding| finding.verdict).collect();
        assert_eq!(found, verdicts, "{findings:?}");
        let all = format!("{findings:?}");
        assert!(all.contains(says), "{says:?} is not in {all}");
    };
    let good = [Verdict::Good, Verdict::Good];
    let (waits, told) = (
        [Verdict::Good, Verdict::Bad],
        [Verdict::Good, Verdict::Warning],
    );
    is(
        &look(&machine(), false),
        good,
        "which systemd makes at the start",
    );

    let crashed = machine();
    let folder = crashed.tree().path("/var/lib/tendon");
    let recorder = Recorder::open(&folder, "arm").expect("a folder");
    is(&look(&crashed, false), good, "can be written to");
    recorder.record("governor", "on purpose", None);
    let says = "thread governor: on purpose";
    is(&look(&crashed, false), waits, says);
    is(&look(&crashed, false), waits, "tendon mode reset");
    is(&look(&crashed, true), told, says);
    // Another robot's is not ours.
    let unit = crashed.unit_of(CONFIG);
    let other = asked::state(&crashed.tree(), "leg", unit.as_ref(), false);
    is(&other, good, "neither a crash nor a latched stop");

    let latched = machine();
    let folder = latched.tree().path("/var/lib/tendon");
    let mut latch = LatchFile::open(&folder, "arm").expect("a folder");
    latch.keep(Some(Cause::StateLost)).expect("kept");
    is(&look(&latched, false), waits, "stopped, and latched: ");
    is(&look(&latched, true), told, Cause::StateLost.words());
    latch.keep(None).expect("forgotten");
    is(&look(&latched, false), good, "neither");
    fs::write(folder.join("latched-stop-arm"), "what").expect("a file");
    is(&look(&latched, true), waits, "delete the file");

    // The template's robots share the folder; files there bear their names.
    let arm = machine().with_unit("tendon@.service");
    let unit = arm.unit_of("/etc/tendon/arm-1/tendon.toml").expect("one");
    assert_eq!(unit.state_directory().as_deref(), Some("/var/lib/tendon"));
    let file = machine().with("/var/lib/tendon", "a file");
    let findings = look(&file, false);
    assert_eq!(findings[0].verdict, Verdict::Bad, "{findings:?}");
}

#[test]
fn a_watchdog_is_there_ours_to_open_and_nobody_elses() {
    #[track_caller]
    fn check(machine: &Machine, node: &str, verdict: Verdict, says: &str) {
        let asked = WatchdogConfig {
            device: node.into(),
            timeout_s: 10,
        };
        let unit = machine.unit_of(CONFIG);
        let finding = asked::hardware_watchdog(&machine.tree(), &asked, unit.as_ref());
        assert_eq!(finding.verdict, verdict, "{finding:?}");
        let all = format!("{finding:?}");
        assert!(all.contains(says), "{says:?} is not in {all}");
    }
    // Systemd pings the first one of this machine.
    let nodes =
        "/dev/watchdog 666 =\n/dev/watchdog0 666 =\n/dev/watchdog1 666 =\n/dev/watchdog2 600 =";
    let orin = || Machine::new("orin.txt", nodes);
    for node in ["/dev/watchdog", "/dev/watchdog0"] {
        check(&orin(), node, Verdict::Bad, "systemd has it open");
    }
    check(&orin(), "/dev/watchdog1", Verdict::Good, "10 s");
    check(
        &orin(),
        "/dev/watchdog2",
        Verdict::Bad,
        "may not be read and written",
    );
    check(&orin(), "/dev/watchdog3", Verdict::Bad, "is not there");
    let alone = orin().without("/etc/systemd");
    check(
        &alone,
        "/dev/watchdog",
        Verdict::Good,
        "/dev/watchdog, 10 s",
    );
    // The unit as it ships keeps it away.
    let unit = alone.with_unit("tendon.service");
    let keeps = "tendon.service does not let the runtime open it";
    check(&unit, "/dev/watchdog1", Verdict::Bad, keeps);
    let opened = unit.with(
        "/etc/systemd/system/tendon.service.d/dog.conf",
        "[Service]\nDeviceAllow=/dev/watchdog1 rw\n",
    );
    check(&opened, "/dev/watchdog1", Verdict::Good, "10 s");
    for (lines, verdict) in [
        ("DeviceAllow=char-watchdog rw", Verdict::Good),
        ("DeviceAllow=char-watch* rw", Verdict::Good),
        ("DeviceAllow=char-* rw", Verdict::Good),
        ("DeviceAllow=char-input rw", Verdict::Bad),
        ("DeviceAllow=/dev/watchdog1 r", Verdict::Bad),
        ("PrivateDevices=yes", Verdict::Bad),
        // Nothing of the machine's is in a /dev of its own.
        (
            "PrivateDevices=yes\nDeviceAllow=/dev/watchdog1 rw",
            Verdict::Bad,
        ),
    ] {
        let unit = orin().without("/etc/systemd").with(
            "/etc/systemd/system/tendon.service",
            &format!("[Service]\nExecStart=/usr/bin/tendon run --config {CONFIG}\n{lines}\n"),
        );
        check(&unit, "/dev/watchdog1", verdict, "watchdog1");
    }
}

#[test]
fn the_watchdog_is_held_by_whatever_of_systemds_files_counts() {
    #[track_caller]
    fn check(files: &[(&str, &str)], told: Option<&str>) {
        let machine = files.iter().fold(
            Machine::new("laptop.txt", "/dev/watchdog0 666 ="),
            |machine, (path, told)| {
                let text = format!("[Manager]\nRuntimeWatchdogSec={told}\n");
                machine.with(path, &text)
            },
        );
        let held = watchdog::held_by_systemd(&machine.tree());
        let want = told.map(|told| ("/dev/watchdog0".to_owned(), told.to_owned()));
        assert_eq!(held, want, "{files:?}");
        // What `[watchdog] device` is told by the same files.
        let asked = WatchdogConfig {
            device: "/dev/watchdog0".into(),
            timeout_s: 10,
        };
        let finding = asked::hardware_watchdog(&machine.tree(), &asked, None);
        let want = match told {
            Some(_) => Verdict::Bad,
            None => Verdict::Good,
        };
        assert_eq!(finding.verdict, want, "{files:?} {finding:?}");
    }
    let (main, vendor_main) = ("/etc/systemd/system.conf", "/usr/lib/systemd/system.conf");
    let [etc, run, local, vendor] = [
        "/etc/systemd/system.conf.d/10-board.conf",
        "/run/systemd/system.conf.d/10-board.conf",
        "/usr/local/lib/systemd/system.conf.d/10-board.conf",
        "/usr/lib/systemd/system.conf.d/10-board.conf",
    ];
    check(&[], None);
    check(&[(main, "1s")], Some("1s"));
    check(&[(vendor_main, "1s")], Some("1s"));
    check(&[(vendor_main, "1s"), (main, "2s")], Some("2s"));
    // A drop-in of the maker's counts, over the main file too.
    check(&[(vendor, "3s")], Some("3s"));
    check(&[(main, "1s"), (vendor, "3s")], Some("3s"));
    // Of one name, the first place.
    check(&[(vendor, "3s"), (local, "4s")], Some("4s"));
    check(&[(vendor, "3s"), (local, "4s"), (run, "5s")], Some("5s"));
    let all = [(vendor, "3s"), (local, "4s"), (run, "5s"), (etc, "6s")];
    check(&all, Some("6s"));
    check(&[(vendor, "3s"), (etc, "off")], None);
    // Of several, the last name, wherever it lies.
    let later = "/usr/lib/systemd/system.conf.d/90-board.conf";
    check(&[(etc, "6s"), (later, "7s")], Some("7s"));
    check(&[(etc, "6s"), (later, "")], None);
    check(&[("/usr/lib/systemd/system.conf.d/README", "8s")], None);
}

/// The bench's deployment, where a package is installed.
fn deployed() -> Config {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/bench/tendon.toml");
    let mut config = Config::load(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
    config.policy.bundle = "/usr/share/tendon/engines/bench-vla".into();
    config
}

/// An Orin with the unit as it ships, and lines of a drop-in.
fn started_with(drop_in: &str) -> (Machine, Unit) {
    let users = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";
    let machine = Machine::new("orin.txt", "")
        .with_unit("tendon.service")
        .with("/etc/passwd", users)
        .with(
            "/etc/systemd/system/tendon.service.d/more.conf",
            &format!("[Service]\n{drop_in}\n"),
        );
    let unit = machine.unit_of(CONFIG).expect("the unit that starts it");
    (machine, unit)
}

#[track_caller]
fn is(finding: &Finding, verdict: Verdict, says: &str) {
    assert_eq!(finding.verdict, verdict, "{finding:?}");
    let fix = finding.fix.as_deref().unwrap_or_default();
    let text = format!("{} {fix}", finding.found);
    assert!(text.contains(says), "{says:?} is not in {text:?}");
    assert_eq!(fix.is_empty(), verdict == Verdict::Good, "{finding:?}");
}

#[track_caller]
fn network(drop_in: &str, change: fn(&mut Config), verdict: Verdict, says: &str) {
    let mut config = deployed();
    change(&mut config);
    let (_, unit) = started_with(drop_in);
    is(&hosts::finding(&config, &unit), verdict, says);
}

fn connects(config: &mut Config, endpoint: &str) {
    config.link.listen = None;
    config.link.connect = Some(endpoint.to_owned());
}

#[test]
fn who_is_connected_to_is_held_against_what_the_unit_lets_through() {
    use Verdict::{Bad, Good, Warning};
    let there: fn(&mut Config) = |config| connects(config, "tcp/192.168.7.2:7447");
    network("", |_| (), Good, "tendon.service lets through");
    network("", there, Bad, "IPAddressAllow=192.168.7.2 in");
    network("", there, Bad, "/etc/systemd/system/tendon.service.d/");
    for (allowed, verdict) in [
        ("192.168.7.2", Good),
        ("192.168.7.3", Bad),
        ("192.168.7.0/24", Good),
        ("192.168.6.0/23", Good),
        ("192.168.50.0/24", Bad),
        ("0.0.0.0/0", Good),
        ("10.0.0.1 192.168.7.2/32", Good),
        ("any", Good),
        ("link-local", Bad),
        ("localhost", Bad),
        // What systemd passes over.
        ("192.168.7.2/33", Bad),
        ("motors.local", Bad),
    ] {
        let line = format!("IPAddressAllow={allowed}");
        network(&line, there, verdict, "tendon.service");
        // An empty line begins anew.
        let line = format!("{line}\nIPAddressAllow=");
        network(&line, there, Bad, "link.connect");
    }
    // Nothing is denied any more, or something else is.
    network("IPAddressDeny=", there, Good, "lets through");
    let less = "IPAddressDeny=\nIPAddressDeny=10.0.0.0/8";
    network(less, there, Good, "lets through");
    let other = "IPAddressDeny=\nIPAddressDeny=192.168.0.0/16";
    network(other, there, Bad, "link.connect");
    // With the list of those allowed loopback went too.
    let reset = "IPAddressAllow=\nIPAddressAllow=192.168.7.0/24";
    network(reset, |_| (), Bad, "link.listen tcp/127.0.0.1:7447");
    network(
        reset,
        |config| connects(config, "tcp/127.0.0.1:7447"),
        Bad,
        "IPAddressAllow=127.0.0.1",
    );
    let near: fn(&mut Config) = |config| connects(config, "tcp/169.254.3.4:7447");
    network("IPAddressAllow=link-local", near, Good, "lets through");
    let six: fn(&mut Config) = |config| connects(config, "tcp/[fd00::2]:7447");
    network("", six, Bad, "IPAddressAllow=fd00::2");
    network("IPAddressAllow=fd00::/8", six, Good, "lets through");
    network("IPAddressAllow=0.0.0.0/0", six, Bad, "fd00::2");
    for here in ["tcp/[::1]:7447", "tls/localhost:7448", "tcp/0.0.0.0:7447"] {
        let mut config = deployed();
        connects(&mut config, here);
        let (_, unit) = started_with("");
        is(&hosts::finding(&config, &unit), Good, "lets through");
    }
    // A name has no address yet.
    let name: fn(&mut Config) = |config| connects(config, "tls/tendon.local:7448");
    network("", name, Warning, "tls/tendon.local:7448: a name");
    let somebody = "IPAddressAllow=192.168.7.0/24";
    network(somebody, name, Good, "not judged, as it is a name");
}

#[test]
fn who_listens_and_whoever_else_is_talked_to_is_held_against_it_too() {
    use Verdict::{Bad, Good, Warning};
    let listens = |endpoint: &str, drop_in: &str, verdict, says: &str| {
        let mut config = deployed();
        config.link.listen = Some(endpoint.to_owned());
        let (_, unit) = started_with(drop_in);
        is(&hosts::finding(&config, &unit), verdict, says);
    };
    let (ours, others) = (
        "IPAddressAllow=192.168.7.0/24",
        "IPAddressAllow=192.168.50.0/24",
    );
    listens("tcp/192.168.7.1:7447", "", Bad, "nobody is let in");
    listens("tcp/192.168.7.1:7447", ours, Good, "lets through");
    listens("tcp/192.168.7.1:7447", others, Warning, "of none of the");
    listens("quic/0.0.0.0:7448", "", Warning, "beyond this machine");
    listens("quic/0.0.0.0:7448", others, Good, "lets through");
    listens("tls/tendon.local:7448", "", Warning, "beyond this machine");

    // What has something to fall back to is a warning.
    fn remote(config: &mut Config, engines: &[EngineKind]) {
        let mut link = config.link.clone();
        (link.listen, link.connect) = (None, Some("tcp/192.168.7.9:7448".to_owned()));
        let timeout_ns = 1;
        config.policy.remote = Some(RemoteConfig { link, timeout_ns });
        config.policy.engines = engines.to_vec();
    }
    let alone: fn(&mut Config) = |config| remote(config, &[EngineKind::Remote]);
    network("", alone, Bad, "policy.remote tcp/192.168.7.9:7448");
    network(ours, alone, Good, "lets through");
    let ladder: fn(&mut Config) = |config| remote(config, &[EngineKind::Remote, EngineKind::Cpu]);
    network("", ladder, Warning, "IPAddressAllow=192.168.7.9");

    fn camera(pipeline: &str, need: Need) -> Finding {
        let mut config = deployed();
        config.camera.source = CameraSource::Gstreamer(pipeline.to_owned());
        config.camera.need = need;
        let (_, unit) = started_with("");
        hosts::finding(&config, &unit)
    }
    for (source, verdict, says) in [
        ("rtspsrc location=rtsp://10.0.0.5/live", Bad, "10.0.0.5"),
        (
            "rtspsrc location=\"rtsp://me:word@10.0.0.5:554/live\" latency=0",
            Bad,
            "camera \"front\" at 10.0.0.5 is kept out",
        ),
        (
            "souphttpsrc location=http://[fd00::9]:8080/a",
            Bad,
            "at fd00::9 is",
        ),
        ("rtspsrc location=rtsp://gate.local", Warning, "a name"),
        ("rtspsrc location=rtsp://127.0.0.1/a", Good, "lets through"),
        ("uridecodebin uri=file:///srv/a.mp4", Good, "lets through"),
        ("v4l2src device=/dev/video0", Good, "lets through"),
    ] {
        let pipeline = format!("{source} ! decodebin ! appsink");
        is(&camera(&pipeline, Need::Required), verdict, says);
        let milder = verdict.min(Warning);
        is(&camera(&pipeline, Need::Optional), milder, says);
    }
}

#[test]
fn drop_ins_count_from_every_place_where_systemd_looks() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/tendon.service.d");
    let text = fs::read_to_string(shipped.join("network.conf")).expect("a shipped drop-in");
    let text = text.as_str();
    let mut config = deployed();
    connects(&mut config, "tcp/192.168.50.9:7447");
    let judge = |files: &[(&str, &str)], verdict| {
        let unit = Machine::new("orin.txt", "").with_unit("tendon@.service");
        let machine = files.iter().fold(unit, |machine, (place, text)| {
            machine.with(&format!("{place}/network.conf"), text)
        });
        let unit = machine.unit_of("/etc/tendon/arm-1/tendon.toml");
        let finding = hosts::finding(&config, &unit.expect("the unit that starts it"));
        is(&finding, verdict, "tendon@arm-1.service");
    };
    let none = "[Service]\nIPAddressAllow=localhost\n";
    judge(&[], Verdict::Bad);
    let [template, local, run, set] = [
        "/etc/systemd/system/tendon@.service.d",
        "/usr/local/lib/systemd/system/tendon@.service.d",
        "/run/systemd/system/tendon@arm-1.service.d",
        "/etc/systemd/system.control/tendon@arm-1.service.d",
    ];
    for place in [template, local, run, set] {
        judge(&[(place, text)], Verdict::Good);
    }
    // Of one name, the first place.
    judge(&[(template, none), (local, text)], Verdict::Bad);
    judge(&[(run, none), (set, text)], Verdict::Good);
    judge(&[(run, none), (local, text)], Verdict::Bad);
}

#[test]
fn a_gpu_works_by_the_unit_with_what_ships_for_it_and_not_without() {
    use EngineKind::{Cpu, Ort, TensorRt};
    let judge = |machine: &Machine, engines: &[EngineKind]| {
        let mut policy = deployed().policy;
        policy.engines = engines.to_vec();
        let unit = machine.unit_of(CONFIG).expect("the unit that starts it");
        sandbox::gpu(&machine.tree(), &policy, &unit)
    };
    let (orin, unit) = started_with("");
    let bare = judge(&orin, &[TensorRt]).expect("a GPU is asked for");
    is(&bare, Verdict::Bad, "/dev/nvmap may not be opened");
    is(&bare, Verdict::Bad, "MemoryDenyWriteExecute=yes");
    is(&bare, Verdict::Bad, "jetson.conf");
    // The next of the ladder runs, and ONNX Runtime goes on with the processor.
    for engines in [&[TensorRt, Cpu][..], &[Ort], &[Ort, TensorRt]] {
        let finding = judge(&orin, engines).expect("a GPU is asked for");
        is(&finding, Verdict::Warning, "/dev/nvmap");
    }
    assert_eq!(judge(&orin, &[Cpu]), None);
    let mut policy = deployed().policy;
    (policy.engines, policy.ort_providers) = (vec![Ort], Vec::new());
    assert_eq!(sandbox::gpu(&orin.tree(), &policy, &unit), None);
    let laptop = Machine::new("laptop.txt", "").with_unit("tendon.service");
    assert_eq!(judge(&laptop, &[TensorRt]), None, "no Jetson");

    // With all that the drop-in names there, each line of it is needed.
    let place = "/etc/systemd/system/tendon.service.d/jetson.conf";
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/tendon.service.d");
    let shipped = fs::read_to_string(shipped.join("jetson.conf")).expect("a shipped drop-in");
    let lines = shipped.lines().filter_map(|line| {
        let named = line.strip_prefix("DeviceAllow=")?;
        let named = named.split(' ').next()?;
        Some((line, named.replace("char-drm", "/dev/dri/renderD128")))
    });
    let lines: Vec<(&str, String)> = lines.collect();
    assert!(lines.len() > 10, "{lines:?}");
    let nodes = lines
        .iter()
        .fold(orin, |machine, (_, node)| machine.with(node, ""));
    let with = |machine: Machine, drop_in: &str| {
        let machine = machine.with(place, drop_in);
        let finding = judge(&machine, &[TensorRt]).expect("a GPU is asked for");
        (machine, finding)
    };
    let (mut nodes, whole) = with(nodes, &shipped);
    is(&whole, Verdict::Good, "lets tensorrt use it");
    for (line, node) in &lines {
        let less = shipped.replace(&format!("{line}\n"), "");
        assert_ne!(less, shipped, "{line}");
        let verdict = match node.as_str() {
            "/dev/nvmap" => Verdict::Bad,
            _ => Verdict::Warning,
        };
        let (back, finding) = with(nodes, &less);
        is(&finding, verdict, node);
        // A unit that names a group is believed.
        let group = match node.contains("/dri/") {
            true => "char-drm",
            false => "char-nvhost*",
        };
        let grouped = format!("{less}\nDeviceAllow={group} rw\n");
        let (back, finding) = with(back, &grouped);
        is(&finding, Verdict::Good, "lets tensorrt use it");
        nodes = back;
    }
    let denied = shipped.replace("MemoryDenyWriteExecute=no\n", "");
    let (nodes, finding) = with(nodes, &denied);
    is(&finding, Verdict::Warning, "MemoryDenyWriteExecute=yes");
    let alone = format!("{shipped}\nPrivateDevices=yes\n");
    let (_, finding) = with(nodes, &alone);
    is(&finding, Verdict::Bad, "/dev/nvmap");
}

#[track_caller]
fn files(drop_in: &str, change: fn(&mut Config), verdict: Verdict, says: &str) {
    let mut config = deployed();
    change(&mut config);
    let (machine, unit) = started_with(drop_in);
    let finding = sandbox::files(&machine.tree(), Path::new(CONFIG), &config, &unit);
    is(&finding, verdict, says);
}

#[test]
fn files_that_the_unit_hides_are_told_before_it_misses_them() {
    use Verdict::{Bad, Good};
    files("", |_| (), Good, "hides none");
    let home: fn(&mut Config) = |config| config.policy.bundle = "/home/me/bundle".into();
    let says = "policy.bundle /home/me/bundle is not there (ProtectHome=yes)";
    files("", home, Bad, says);
    let fix = "ProtectHome=tmpfs, BindReadOnlyPaths=/home/me/bundle";
    files("", home, Bad, fix);
    let bound = "BindReadOnlyPaths=/usr/share/x -/home/me";
    let tmpfs = format!("ProtectHome=tmpfs\n{bound}");
    files("ProtectHome=no", home, Good, "hides none");
    files("ProtectHome=read-only", home, Good, "hides none");
    files("ProtectHome=tmpfs", home, Bad, "(ProtectHome=tmpfs)");
    files(&tmpfs, home, Good, "hides none");
    // Nothing is mounted below what is made inaccessible.
    files(bound, home, Bad, "(ProtectHome=yes)");
    let other = "ProtectHome=tmpfs\nBindReadOnlyPaths=/home/me/bund";
    files(other, home, Bad, "/home/me/bundle");

    let temporary: fn(&mut Config) = |config| config.policy.bundle = "/tmp/bundle".into();
    files("", temporary, Bad, "/tmp/bundle is not there (PrivateTmp=");
    files("PrivateTmp=no", temporary, Good, "hides none");
    files("PrivateTmp=disconnected", temporary, Bad, "PrivateTmp=dis");
    let bound = "BindReadOnlyPaths=/srv/bundle:/tmp/bundle:norbind";
    files(bound, temporary, Good, "hides none");
    let elsewhere = "BindPaths=/tmp/bundle:/srv/bundle";
    files(elsewhere, temporary, Bad, "PrivateTmp=");

    let csi: fn(&mut Config) = |config| {
        config.camera.source = CameraSource::Gstreamer("nvarguscamerasrc ! nvvidconv".into());
    };
    files("", csi, Bad, "/tmp/argus_socket is not there (PrivateTmp=");
    files(
        "",
        csi,
        Bad,
        "PrivateTmp=no, as systemd/tendon.service.d/jetson.conf",
    );
    files("PrivateTmp=no", csi, Good, "hides none");

    // By the whole names of folders, and of the path without its detours.
    let detour: fn(&mut Config) = |config| {
        config.policy.bundle = "/etc/tendon/../../root/bundle".into();
    };
    files("", detour, Bad, "policy.bundle /root/bundle is");
    let near: fn(&mut Config) = |config| config.policy.bundle = "/homes/../tmpfs/a".into();
    files("", near, Good, "hides none");

    // The configuration itself, by who runs it from there.
    let machine = Machine::new("orin.txt", "").with(
        "/etc/systemd/system/tendon.service",
        "[Service]\nProtectHome=1\nExecStart=/usr/bin/tendon run --config /home/me/tendon.toml\n",
    );
    let path = Path::new("/home/me/tendon.toml");
    let unit = machine.unit_of("/home/me/tendon.toml").expect("a unit");
    let finding = sandbox::files(&machine.tree(), path, &deployed(), &unit);
    is(&finding, Bad, "configuration /home/me/tendon.toml");
}

#[test]
fn each_kind_of_file_is_judged_by_what_is_done_with_it() {
    use EngineKind::{Cpu, TensorRt};
    use Verdict::{Bad, Good, Warning};
    fn plans(config: &mut Config, engines: &[EngineKind]) {
        config.policy.engines = engines.to_vec();
        config.policy.engine_cache = Some("/home/me/plans".into());
    }
    let says = "policy.engine_cache /home/me/plans";
    files("", |config| plans(config, &[TensorRt]), Bad, says);
    let ladder: fn(&mut Config) = |config| plans(config, &[TensorRt, Cpu]);
    files("", ladder, Warning, says);
    files("", |config| plans(config, &[Cpu]), Good, "hides none");
    // Where the runtime looks by itself, in the environment that the unit gives it.
    let gpu: fn(&mut Config) = |config| config.policy.engines = vec![TensorRt];
    files("User=me", gpu, Bad, "/home/me/.cache/tendon/engines");
    files("User=", gpu, Bad, "/root/.cache/tendon/engines");
    files("User=me\nCacheDirectory=tendon", gpu, Good, "hides none");
    let set = "Environment=A=1 \"XDG_CACHE_HOME=/tmp/a\"";
    files(set, gpu, Bad, "/tmp/a/tendon/engines");

    fn camera(config: &mut Config, source: CameraSource, need: Need) {
        (config.camera.source, config.camera.need) = (source, need);
    }
    let images = || CameraSource::Images("/home/me/views".into());
    let mut config = deployed();
    let (machine, unit) = started_with("");
    for (need, verdict) in [(Need::Required, Bad), (Need::Optional, Warning)] {
        camera(&mut config, images(), need);
        let finding = sandbox::files(&machine.tree(), Path::new(CONFIG), &config, &unit);
        is(&finding, verdict, "camera \"front\" /home/me/views");
    }
    for (pipeline, verdict, says) in [
        ("filesrc location=\"/var/tmp/a.mp4\" ! x", Bad, "PrivateTmp"),
        ("uridecodebin uri=file:///home/me/a.mp4 ! x", Bad, "a.mp4"),
        ("rtspsrc location=rtsp://box/home/a ! x", Good, "none"),
    ] {
        let source = CameraSource::Gstreamer(pipeline.to_owned());
        camera(&mut config, source, Need::Required);
        let finding = sandbox::files(&machine.tree(), Path::new(CONFIG), &config, &unit);
        is(&finding, verdict, says);
    }

    // Who listens writes beside the password.
    let password: fn(&mut Config) = |config| {
        config.link.credentials = Some(("anna".to_owned(), "/home/me/password".into()));
    };
    let only_read = "ProtectHome=read-only";
    files("", password, Bad, "link.password_file /home/me/password is");
    files(only_read, password, Bad, "cannot be written to");
    let client: fn(&mut Config) = |config| {
        config.link.credentials = Some(("anna".to_owned(), "/home/me/password".into()));
        connects(config, "tcp/127.0.0.1:7447");
    };
    files(only_read, client, Good, "hides none");
    let tls: fn(&mut Config) = |config| {
        config.link.tls = Some(Tls {
            ca: "/etc/tendon/tls/ca.pem".into(),
            certificate: "/etc/tendon/tls/ours.pem".into(),
            key: "/run/user/1000/ours.key".into(),
        });
    };
    files("", tls, Bad, "link.tls_key /run/user/1000/ours.key is");
    let program: fn(&mut Config) = |config| {
        config.isolation.program = Some("/home/me/tendon-inference".into());
    };
    files("", program, Bad, "inference_program /home/me/");

    // What is written into its own /tmp is written, and of no use to others.
    fn token(config: &mut Config, path: &str) {
        let page = config.page.as_mut().expect("the bench's page");
        page.token_file = Some(path.into());
    }
    let temporary: fn(&mut Config) = |config| token(config, "/tmp/token");
    files(
        "",
        temporary,
        Warning,
        "page.token_file /tmp/token is seen by",
    );
    files("", |config| token(config, "/home/me/token"), Bad, "is not");
    files("", |config| token(config, "/run/tendon/a"), Good, "hides");
    let (home, own) = (
        "Environment=STATE_DIRECTORY=/home/me/state",
        "Environment=STATE_DIRECTORY=/var/tmp/state",
    );
    files(home, |_| (), Bad, "state directory /home/me/state");
    files(own, |_| (), Warning, "gone when it stops");
    let of_user = "StateDirectory=\nUser=me";
    files(of_user, |_| (), Bad, "/home/me/.local/state/tendon");
}

#[test]
fn what_a_unit_forbids_is_part_of_the_report_where_one_is_installed() {
    let config = deployed();
    let fitted = deployment::Fitted {
        path: CONFIG.into(),
        identities: Identities::of(&config.robot.name, &config.robot.joints),
        config,
    };
    let checks = |machine: &Machine| -> Vec<&'static str> {
        let findings = deployment::machine(&machine.tree(), &fitted, false);
        let checks = findings.iter().map(|finding| finding.check);
        checks.filter(|check| check.starts_with("unit: ")).collect()
    };
    let (orin, _) = started_with("");
    assert_eq!(checks(&orin), ["unit: network", "unit: files"]);
    assert_eq!(checks(&Machine::new("orin.txt", "")), [""; 0]);
}

/// Of CN=router, made by systemd/zenoh/make-test-ca.sh with TENDON_TLS_DAYS.
#[cfg(feature = "tls")]
const CERTIFICATE: &str = include_str!("../../../tests/machines/router.pem");
#[cfg(feature = "tls")]
const CERTIFICATE_FROM_S: i64 = 1795340199;

#[cfg(not(feature = "tls"))]
#[test]
fn certificates_whose_dates_are_not_read_are_told() {
    use crate::runtime::doctor::machine;
    let laptop = Machine::new("laptop.txt", "");
    assert_eq!(machine::certificates(&laptop.tree()), None);
    let router = laptop
        .with("/etc/tendon/tls/router.pem", "")
        .with("/etc/tendon/tls/router.key", "");
    let told = machine::certificates(&router.tree()).expect("a finding");
    assert_eq!(told.verdict, Verdict::Absent);
    assert!(told.found.starts_with("1 in /etc/tendon/tls"), "{told:?}");
}

#[cfg(feature = "tls")]
#[test]
fn certificates_are_judged_by_their_dates() {
    use super::certificates;
    const DAY_S: i64 = 24 * 3600;
    let machine = || {
        Machine::new("laptop.txt", "")
            .with("/etc/tendon/tls/router.pem", CERTIFICATE)
            .with("/etc/tendon/tls/router.key", "no certificate")
    };
    let check = |machine: &Machine, now_s: i64, verdict: Verdict, says: &str| {
        let findings = certificates::of_machine(&machine.tree(), now_s);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].verdict, verdict, "{findings:?}");
        assert!(findings[0].found.contains(says), "{says}: {findings:?}");
    };
    let (from_s, until_s) = (CERTIFICATE_FROM_S, CERTIFICATE_FROM_S + 100 * DAY_S);
    let router = machine();
    check(&router, from_s + DAY_S, Verdict::Good, "until ");
    check(&router, until_s - 31 * DAY_S, Verdict::Good, "until ");
    check(
        &router,
        until_s - 29 * DAY_S,
        Verdict::Warning,
        "only valid",
    );
    check(&router, until_s + 1, Verdict::Warning, "over since");
    check(&router, from_s - 1, Verdict::Warning, "date right?");
    let broken = machine().with("/etc/tendon/tls/router.pem", "-----BEGIN NONSENSE");
    check(&broken, from_s, Verdict::Warning, "router.pem");
    let none = certificates::of_machine(&Machine::new("laptop.txt", "").tree(), from_s);
    assert!(none.is_empty(), "no router, no finding: {none:?}");

    // Those of the link itself.
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    fs::write(path("ours.pem"), CERTIFICATE).expect("a file");
    fs::write(path("ours.key"), "a key").expect("a file");
    let tls = |key: &str| crate::config::link::Tls {
        ca: path("ours.pem"),
        certificate: path("ours.pem"),
        key: path(key),
    };
    let verdicts = |key: &str, now_s| -> Vec<Verdict> {
        let findings = certificates::of_link(&tls(key), now_s);
        findings.iter().map(|finding| finding.verdict).collect()
    };
    let (good, over) = (from_s + DAY_S, until_s + DAY_S);
    assert_eq!(verdicts("ours.key", good), [Verdict::Good, Verdict::Good]);
    assert_eq!(verdicts("ours.key", over), [Verdict::Warning, Verdict::Bad]);
    assert_eq!(
        verdicts("none.key", good),
        [Verdict::Good, Verdict::Good, Verdict::Bad]
    );
}

/// One scene with a sensor's noise: no two pictures are the same.
fn pictures(folder: &Path, side: u16) {
    fs::create_dir_all(folder).expect("a folder");
    let side_px = usize::from(side);
    let mut noise = 1_u32;
    for n in 0..8 {
        let rgb: Vec<u8> = (0..side_px * side_px * 3)
            .map(|at| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (x, y) = (at / 3 % side_px, at / 3 / side_px);
                (50 + x / 2 + y / 4) as u8 + (noise >> 30) as u8
            })
            .collect();
        let mut bytes = Vec::new();
        jpeg_encoder::Encoder::new(&mut bytes, 95)
            .encode(&rgb, side, side, jpeg_encoder::ColorType::Rgb)
            .expect("encodes");
        fs::write(folder.join(format!("{n}.jpg")), bytes).expect("a file");
    }
}

#[test]
fn cameras_of_this_machine_are_opened_and_looked_through() {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/bench");
    let folder = TempDir::new().expect("a folder");
    for file in ["robot.toml", "robot.urdf"] {
        fs::copy(bench.join(file), folder.path().join(file)).expect("copied");
    }
    pictures(&folder.path().join("good"), 224);
    pictures(&folder.path().join("small"), 64);
    let look = |camera: &str| {
        let text = fs::read_to_string(bench.join("tendon.toml")).expect("the bench's");
        let engines = Path::new(env!("CARGO_MANIFEST_DIR")).join("engines");
        let text = text.replace("../../engines", &engines.display().to_string());
        let text = text.replace(
            "age_max_ms = 150",
            &format!("age_max_ms = 150\nsource = \"images\"\nrate_hz = 10\npath = \"{camera}\""),
        );
        let path = folder.path().join("tendon.toml");
        fs::write(&path, text).expect("a file");
        let config = Config::load(&path).unwrap_or_else(|problems| panic!("{problems:?}"));
        cameras::here(&config)
    };
    for (camera, verdict, says) in [
        ("good", Verdict::Good, "\"front\" (images): 224x224 at "),
        ("small", Verdict::Bad, "\"front\" (images): "),
        ("none", Verdict::Bad, "none"),
    ] {
        let findings = look(camera);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].verdict, verdict, "{findings:?}");
        assert!(findings[0].found.contains(says), "{says}: {findings:?}");
    }
}
