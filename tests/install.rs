// SPDX-License-Identifier: Apache-2.0
//! What is installed beside the binary: example robots load and can be governed, units and router speak of the same
//! names as the code, `tendon doctor` and the deploy script do what they promise.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tendon::config::Config;
use tendon::link::keys;
use tendon::runtime::crash::Recorder;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Folders of `deploy` that hold a robot.
fn robots() -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join("deploy")).expect("deploy");
    let mut robots: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    robots.retain(|folder| folder.join("robot.toml").is_file());
    robots.sort();
    robots
}

#[test]
fn example_robots_load_and_name_their_sources() {
    let tendon = read("deploy/bench/tendon.toml");
    let robots = robots();
    assert!(robots.len() >= 6, "{robots:?}");
    for folder in robots {
        let text = fs::read_to_string(folder.join("robot.toml")).expect("a robot");
        let parts = Config::bench_parts(&tendon, &text)
            .unwrap_or_else(|problems| panic!("{}: {problems:?}", folder.display()));
        assert!(parts.robot.joints.len() >= 6, "{}", folder.display());
        let folder_name = folder
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if folder_name == "bench" {
            continue;
        }
        let head = text.split("\nname = ").next().unwrap_or_default();
        assert!(
            head.contains("Never run with this file"),
            "{folder_name}: {head}"
        );
        assert!(
            head.contains(".yaml") || head.contains(".urdf"),
            "{folder_name} names no source: {head}"
        );
    }
}

/// The router's list and `src/link/keys.rs` name the same keys, each for those who use it, and nothing else.
#[test]
fn the_routers_list_is_that_of_the_code() {
    const ROBOT: &str = "arm-1";
    // Read from where the names are made: a key that is added there is missed here.
    let source = read("src/link/keys.rs");
    let mut made: BTreeSet<String> = source
        .split("format!(\"")
        .skip(1)
        .filter_map(|rest| rest.split_once("\")"))
        .map(|(name, _)| name.replace("{robot}", ROBOT).replace("{camera}", "*"))
        .collect();
    // Scenes of the bench robot; no other has them.
    assert!(made.remove(&keys::bench(ROBOT)), "{made:?}");

    let path = root().join("systemd/zenoh/zenohd.json5");
    let config = zenoh::Config::from_file(path).expect("zenoh reads it");
    let list = config.get_json("access_control").expect("it has one");
    let list: Value = serde_json::from_str(&list).expect("JSON");
    assert_eq!(list["default_permission"], "deny");
    let texts = |value: &Value| -> BTreeSet<String> {
        let texts = value.as_array().expect("a list").iter();
        texts
            .map(|text| text.as_str().expect("a text").to_owned())
            .collect()
    };
    let rules = list["rules"].as_array().expect("rules");
    let named: BTreeSet<String> = rules
        .iter()
        .flat_map(|rule| texts(&rule["key_exprs"]))
        .collect();
    assert_eq!(named, made);

    // What the rules of a subject let through: this message in this direction, seen from the router.
    let allowed = |subject: &str, message: &str, flow: &str| -> BTreeSet<String> {
        let policies = list["policies"].as_array().expect("policies").iter();
        let of_subject = policies.filter(|policy| texts(&policy["subjects"]).contains(subject));
        let ids: BTreeSet<String> = of_subject
            .flat_map(|policy| texts(&policy["rules"]))
            .collect();
        let rules = rules.iter().filter(|rule| {
            rule["permission"] == "allow"
                && ids.contains(rule["id"].as_str().expect("an id"))
                && texts(&rule["messages"]).contains(message)
                && texts(&rule["flows"]).contains(flow)
        });
        rules.flat_map(|rule| texts(&rule["key_exprs"])).collect()
    };
    let told = [keys::command(ROBOT), keys::event(ROBOT)];
    let seen = [keys::state(ROBOT), keys::camera(ROBOT, "*")];
    let device = [keys::takeover(ROBOT), keys::deadman(ROBOT)];
    let heard = [&seen[..], &device[..]].concat();
    let asked = [
        keys::instruction(ROBOT),
        keys::mode(ROBOT),
        keys::speed(ROBOT),
        keys::park(ROBOT),
    ];
    let watched = [keys::state(ROBOT), keys::event(ROBOT)];
    let command = [keys::command(ROBOT)];
    for (subject, message, flow, wants) in [
        ("runtime", "put", "ingress", &told[..]),
        ("runtime", "put", "egress", &heard[..]),
        ("runtime", "declare_subscriber", "ingress", &heard[..]),
        ("runtime", "declare_subscriber", "egress", &told[..]),
        ("runtime", "declare_queryable", "ingress", &asked[..]),
        ("runtime", "query", "egress", &asked[..]),
        ("runtime", "reply", "ingress", &asked[..]),
        (ROBOT, "put", "ingress", &seen[..]),
        (ROBOT, "put", "egress", &command[..]),
        (ROBOT, "declare_subscriber", "ingress", &command[..]),
        (ROBOT, "declare_subscriber", "egress", &seen[..]),
        (ROBOT, "query", "ingress", &command[..0]),
        ("operators", "query", "ingress", &asked[..]),
        ("operators", "reply", "egress", &asked[..]),
        ("operators", "declare_queryable", "egress", &asked[..]),
        ("operators", "put", "ingress", &device[..]),
        ("operators", "put", "egress", &watched[..]),
        ("operators", "declare_subscriber", "ingress", &watched[..]),
        ("operators", "declare_subscriber", "egress", &device[..]),
    ] {
        let wants: BTreeSet<String> = wants.iter().cloned().collect();
        assert_eq!(
            allowed(subject, message, flow),
            wants,
            "{subject} {message} {flow}"
        );
    }
}

#[test]
fn the_router_and_the_robot_have_configurations_that_zenoh_reads() {
    for name in ["zenohd.json5", "robot.json5"] {
        let path = root().join("systemd/zenoh").join(name);
        if let Err(error) = zenoh::Config::from_file(&path) {
            panic!("{}: {error}", path.display());
        }
    }
}

/// The unit promises what the runtime asks for.
#[test]
fn the_unit_grants_the_highest_priority_of_the_table() {
    let unit = read("systemd/tendon.service");
    let highest = tendon::runtime::threads::WATCHDOG.fifo;
    assert!(unit.contains(&format!("\nLimitRTPRIO={highest}\n")));
    let nice = tendon::link::session::NICE;
    assert!(unit.contains(&format!("\nLimitNICE={nice}\n")));
    assert!(unit.contains("\nType=notify\n") && unit.contains("\nWatchdogSec=500ms\n"));
    // `~@resources` would take sched_setscheduler away.
    let filters: Vec<&str> = unit
        .lines()
        .filter(|line| line.starts_with("SystemCallFilter=~"))
        .collect();
    assert!(!filters.is_empty() && !filters.iter().any(|line| line.contains("@resources")));
    assert!(!unit.contains("RestrictRealtime=yes"));
}

/// Keys of udev that ask, with `{}` if something stands in braces behind them.
const UDEV_ASKS: [&str; 12] = [
    "ACTION",
    "DEVPATH",
    "KERNEL",
    "KERNELS",
    "SUBSYSTEM",
    "SUBSYSTEMS",
    "DRIVER",
    "DRIVERS",
    "ATTRS{}",
    "TAGS",
    "TEST",
    "TEST{}",
];
/// Keys of udev that set.
const UDEV_SETS: [&str; 8] = [
    "OWNER", "GROUP", "MODE", "RUN", "RUN{}", "LABEL", "GOTO", "OPTIONS",
];
/// Keys of udev that do either.
const UDEV_BOTH: [&str; 6] = ["ATTR{}", "SYSCTL{}", "ENV{}", "TAG", "NAME", "SYMLINK"];

/// What is wrong with a line of udev's rules. `udevadm verify` knows more, and came with systemd 254.
fn wrong_with(line: &str) -> Option<String> {
    let mut rest = line.trim();
    if rest.is_empty() || rest.starts_with('#') {
        return None;
    }
    loop {
        let length = rest
            .find(|c: char| !c.is_ascii_uppercase())
            .unwrap_or(rest.len());
        let (name, behind) = rest.split_at(length);
        let (key, behind) = match behind.strip_prefix('{').map(|inner| inner.split_once('}')) {
            Some(Some((inner, behind))) if !inner.is_empty() => (format!("{name}{{}}"), behind),
            Some(_) => return Some(format!("{name}: nothing in braces")),
            None => (name.to_owned(), behind),
        };
        let operators = ["==", "!=", "+=", "-=", ":=", "="];
        let Some(operator) = operators.iter().find(|each| behind.starts_with(**each)) else {
            return Some(format!("{key}: no operator"));
        };
        let asks = matches!(*operator, "==" | "!=");
        let known: &[&str] = if asks { &UDEV_ASKS } else { &UDEV_SETS };
        if !known.contains(&key.as_str()) && !UDEV_BOTH.contains(&key.as_str()) {
            return Some(format!("no key {key} before {operator}"));
        }
        let value = behind[operator.len()..].strip_prefix('"');
        let Some((_, behind)) = value.and_then(|value| value.split_once('"')) else {
            return Some(format!("{key}: no value in quotes"));
        };
        let behind = behind.trim_start();
        if behind.is_empty() {
            return None;
        }
        let Some(next) = behind.strip_prefix(',') else {
            return Some(format!("{key}: no comma behind its value"));
        };
        rest = next.trim_start();
    }
}

#[test]
fn each_line_of_udevs_rules_is_one() {
    let rules = read("systemd/udev.rules");
    assert!(rules.lines().any(|line| line.starts_with("SUBSYSTEM==")));
    for (at, line) in rules.lines().enumerate() {
        assert_eq!(wrong_with(line), None, "systemd/udev.rules:{}", at + 1);
        // What was plugged in before the package came is told by a "change".
        let for_new_ones_only = line.contains("ACTION==") && !line.contains("|change\"");
        assert!(!for_new_ones_only, "systemd/udev.rules:{}", at + 1);
    }
    for (line, wrong) in [
        ("# a comment, with \"", None),
        ("", None),
        (
            r#"ACTION=="add", TEST=="power/control", ATTR{power/control}="on""#,
            None,
        ),
        (
            r#"SUBSYSTEM=="tty" GROUP="dialout""#,
            Some("SUBSYSTEM: no comma"),
        ),
        (
            r#"SUBSYSTEM="tty", GROUP="dialout""#,
            Some("no key SUBSYSTEM before ="),
        ),
        (
            r#"SUBSYSTEM=="tty", GROUP=="dialout""#,
            Some("no key GROUP before =="),
        ),
        (
            r#"SUBSYSTEM=="tty", SYMLNK+="tendon/bus""#,
            Some("no key SYMLNK before +="),
        ),
        (
            r#"SUBSYSTEM=="tty", ENV=="usb""#,
            Some("no key ENV before =="),
        ),
        (
            r#"SUBSYSTEM=="tty", ENV{=="usb""#,
            Some("ENV: nothing in braces"),
        ),
        (
            r#"SUBSYSTEM=="tty", GROUP=dialout"#,
            Some("GROUP: no value in quotes"),
        ),
        (
            r#"SUBSYSTEM=="tty", GROUP="dialout"#,
            Some("GROUP: no value in quotes"),
        ),
        (r#"SUBSYSTEM=="tty","#, Some(": no operator")),
        ("tty is for us", Some(": no operator")),
    ] {
        let found = wrong_with(line);
        match wrong {
            None => assert_eq!(found, None, "{line}"),
            Some(wrong) => assert!(
                found.as_ref().is_some_and(|found| found.starts_with(wrong)),
                "{line}: {found:?}"
            ),
        }
    }
}

/// Key, operator and value of each part of a rule.
fn parts(rule: &str) -> impl Iterator<Item = (&str, &str, &str)> {
    rule.split("\", ").map(|part| {
        let (left, value) = part.split_once('"').expect("a value in quotes");
        let at = left.find(['=', '!', '+']).expect("an operator");
        (&left[..at], &left[at..], value.trim_end_matches('"'))
    })
}

/// What our rules give to a device, as udev does: a rule whose questions are all answered sets what it says, for those behind it too.
fn given(device: &[(&str, &str)]) -> Vec<String> {
    let rules = read("systemd/udev.rules");
    let mut known: BTreeMap<String, String> = device
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let mut given = Vec::new();
    let is_rule = |line: &&str| !line.is_empty() && !line.starts_with('#');
    for rule in rules.lines().filter(is_rule) {
        // The two patterns that rules for cameras have.
        let fits = |key: &str, pattern: &str| {
            let value = known.get(key).map_or("", String::as_str);
            let fits = |one: &str| one == value || (one == "?*" && !value.is_empty());
            pattern.split('|').any(fits)
        };
        let met = parts(rule).all(|(key, operator, value)| match operator {
            "==" => fits(key, value),
            "!=" => !fits(key, value),
            _ => true,
        });
        if !met {
            continue;
        }
        for (key, operator, value) in parts(rule) {
            if matches!(operator, "==" | "!=") {
                continue;
            }
            let mut value = value.to_owned();
            while let Some((before, name)) = value.split_once("$env{") {
                let (name, behind) = name.split_once('}').expect("a name in braces");
                let filled = known.get(&format!("ENV{{{name}}}"));
                value = format!("{before}{}{behind}", filled.map_or("", String::as_str));
            }
            if key.starts_with("ENV{") {
                known.insert(key.to_owned(), value);
            } else {
                given.push(format!("{key}{operator}{value}"));
            }
        }
    }
    given
}

/// A camera by its serial number, and each camera of a device that is several; a plug's name is another for each.
#[test]
fn every_camera_has_a_name_of_its_own() {
    let camera = |index, serial, interface, path| {
        given(&[
            ("SUBSYSTEM", "video4linux"),
            ("ATTR{index}", index),
            ("ENV{ID_SERIAL_SHORT}", serial),
            ("ENV{ID_USB_INTERFACE_NUM}", interface),
            ("ENV{ID_PATH}", path),
        ])
    };
    assert_eq!(
        camera("0", "1234", "00", "pci-usb-1:1.0"),
        [
            "SYMLINK+=tendon/camera-1234",
            "SYMLINK+=tendon/camera-at-pci-usb-1:1.0"
        ]
    );
    assert_eq!(
        camera("0", "1234", "03", "pci-usb-1:1.3"),
        [
            "SYMLINK+=tendon/camera-1234-03",
            "SYMLINK+=tendon/camera-at-pci-usb-1:1.3"
        ]
    );
    // A twin of the first at another plug.
    assert_eq!(
        camera("0", "1234", "00", "pci-usb-2:1.0"),
        [
            "SYMLINK+=tendon/camera-1234",
            "SYMLINK+=tendon/camera-at-pci-usb-2:1.0"
        ]
    );
    // On no USB, and without a number.
    assert_eq!(
        camera("0", "", "", "platform-csi"),
        ["SYMLINK+=tendon/camera-at-platform-csi"]
    );
    // Metadata beside the pictures.
    assert!(camera("1", "1234", "00", "pci-usb-1:1.0").is_empty());
}

#[test]
fn neither_a_camera_nor_a_servo_bus_is_put_to_sleep() {
    let interface = |action, class| {
        given(&[
            ("ACTION", action),
            ("SUBSYSTEM", "usb"),
            ("ENV{DEVTYPE}", "usb_interface"),
            ("ATTR{bInterfaceClass}", class),
            ("TEST", "../power/control"),
        ])
    };
    // The driver of USB cameras allows it once more before the interface is bound.
    for action in ["add", "bind", "change"] {
        assert_eq!(interface(action, "0e"), ["ATTR{../power/control}=on"]);
        assert!(interface(action, "03").is_empty(), "a keyboard");
    }
    assert!(interface("remove", "0e").is_empty());
    for vendor in ["0403", "1a86"] {
        let bridge = given(&[
            ("ACTION", "add"),
            ("SUBSYSTEM", "usb"),
            ("ENV{DEVTYPE}", "usb_device"),
            ("ATTR{idVendor}", vendor),
            ("TEST", "power/control"),
        ]);
        assert_eq!(bridge, ["ATTR{power/control}=on"]);
    }
}

/// What the kernel's loader would fetch of the libraries that are not for the process that moves the robot.
fn not_for_control(dynamic: &str) -> Vec<&str> {
    const FOREIGN: [&str; 6] = [
        "libcuda",
        "libnvinfer",
        "libonnxruntime",
        "libgst",
        "libstdc++",
        "libc++",
    ];
    let needed = dynamic.lines().filter(|line| line.contains("(NEEDED)"));
    let names = needed.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0));
    names
        .filter(|name| FOREIGN.iter().any(|foreign| name.starts_with(foreign)))
        .collect()
}

/// The control process links no CUDA, no GStreamer and no C++: what of these it needs, another process has, or it is found at
/// run time.
#[test]
fn the_binary_links_no_gpu_no_gstreamer_and_no_cxx() {
    if cfg!(feature = "gstreamer") {
        return println!("skipped: this build has GStreamer linked in, as was asked for");
    }
    let read = Command::new("readelf")
        .env("LC_ALL", "C")
        .args(["--dynamic", "--wide", env!("CARGO_BIN_EXE_tendon")])
        .output();
    let output = match read {
        Ok(output) => output,
        Err(error) => return println!("skipped: no readelf here (apt install binutils): {error}"),
    };
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let dynamic = String::from_utf8_lossy(&output.stdout);
    assert!(
        dynamic.contains("(NEEDED)") && dynamic.contains("[libc.so.6]"),
        "{dynamic}"
    );
    assert_eq!(not_for_control(&dynamic), [""; 0]);
    let line =
        |name: &str| format!(" 0x0000000000000001 (NEEDED)             Shared library: [{name}]\n");
    let planted = line("libstdc++.so.6") + &line("libc.so.6") + &line("libgstreamer-1.0.so.0");
    assert_eq!(
        not_for_control(&planted),
        ["libstdc++.so.6", "libgstreamer-1.0.so.0"]
    );
}

/// A program that is newer than the target, or whose libraries nobody knows, is not packed.
#[test]
fn what_a_package_needs_is_what_its_programs_ask_for() {
    if !Path::new("/var/lib/dpkg/info").is_dir() {
        return println!("skipped: no dpkg here");
    }
    let needs = |glibc: &str, arguments: &[&str]| {
        let output = Command::new(root().join("cross/needs.sh"))
            .args(arguments)
            .env("TENDON_GLIBC", glibc)
            .output()
            .expect("bash");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let binary = env!("CARGO_BIN_EXE_tendon");
    let (good, words, why) = needs("9.99", &[binary, "/bin/ls"]);
    assert!(good, "{why}");
    assert!(
        words.starts_with("libc6 (>= 2.") && words.contains("libselinux1 (>= "),
        "{words}"
    );
    let (good, _, why) = needs("2.3", &[binary]);
    assert!(!good && why.contains("asks for libc6 2."), "{why}");
    let empty = tempfile::tempdir().expect("a folder");
    fs::write(empty.path().join("none"), "").expect("written");
    let lists = empty.path().display().to_string();
    let (good, _, why) = needs("9.99", &["--lists", &lists, "/bin/ls"]);
    assert!(!good && why.contains("no list knows libselinux"), "{why}");
}

#[test]
fn the_deploy_script_rolls_back() {
    let output = Command::new(root().join("cross/deploy-test.sh"))
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// The package goes into an image of a machine, works there, and leaves nothing behind.
#[test]
fn the_package_installs_and_goes_again() {
    let dpkg = |root: &Path, arguments: &[&str]| {
        Command::new("dpkg")
            .arg(format!("--root={}", root.display()))
            // Nobody is root here, the image has no libraries, and its scripts run outside of it.
            .args([
                "--force-not-root",
                "--force-depends",
                "--force-script-chrootless",
                "--force-bad-path",
            ])
            .args(arguments)
            .output()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let image = folder.path().join("image");
    fs::create_dir_all(image.join("var/lib/dpkg/updates")).expect("a folder");
    fs::create_dir_all(image.join("var/lib/dpkg/info")).expect("a folder");
    fs::write(image.join("var/lib/dpkg/status"), "").expect("written");
    let architecture = match dpkg(&image, &["--print-architecture"]) {
        Ok(said) if said.status.success() => {
            String::from_utf8_lossy(&said.stdout).trim().to_owned()
        }
        _ => return println!("skipped: no dpkg here"),
    };
    let binary = env!("CARGO_BIN_EXE_tendon");
    let mut pack = Command::new(root().join("cross/deb.sh"));
    pack.args([binary, &architecture]).arg(folder.path());
    // A stand-in for the build with cameras: another program, with a library of its own.
    let apart = !cfg!(feature = "gstreamer");
    pack.arg(if apart { "/bin/ls" } else { "" });
    // And one for the suite of the commissioning.
    pack.arg("/bin/cat");
    let made = pack.output().expect("bash");
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(
        made.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let package = said.lines().last().expect("its path");
    let fields = Command::new("dpkg-deb")
        .args(["--field", package, "Depends"])
        .output()
        .expect("dpkg-deb runs");
    let depends = String::from_utf8_lossy(&fields.stdout).into_owned();
    assert!(depends.contains("libc6 (>= 2."), "{depends}");
    assert_eq!(depends.contains("libselinux1"), apart, "{depends}");

    let done = dpkg(&image, &["--install", package]).expect("dpkg runs");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    let at = |path: &str| image.join(path);
    for path in [
        "usr/bin/tendon",
        "usr/lib/systemd/system/tendon.service",
        "usr/lib/udev/rules.d/72-tendon.rules",
        "usr/share/man/man1/tendon-doctor.1.gz",
        "usr/share/doc/tendon/examples/zenohd.json5",
    ] {
        assert!(at(path).is_file(), "{path}: {said}");
    }
    // Where the documents say that it is, and where anybody may run it.
    let inference = "usr/lib/tendon/tendon-inference";
    assert!(read("docs/operating.md").contains(&format!("inference_program = \"/{inference}\"")));
    assert_eq!(at(inference).is_file(), apart);
    let suite = "usr/lib/tendon/tendon-hil";
    assert!(read("docs/commissioning.md").contains(&format!("/{suite}")));
    for program in [inference, suite] {
        if apart || program == suite {
            let mode = at(program).metadata().expect("it is there").mode();
            assert_eq!(mode & 0o777, 0o755, "{program}");
        }
    }
    // Before anything is written, there is a deployment that can be looked at.
    let checked = Command::new(at("usr/bin/tendon"))
        .arg("check")
        .arg("--config")
        .arg(at("usr/share/tendon/deploy/bench/tendon.toml"))
        .output()
        .expect("it runs");
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{told}");

    let gone = dpkg(&image, &["--purge", "tendon"]).expect("dpkg runs");
    assert!(
        gone.status.success(),
        "{}",
        String::from_utf8_lossy(&gone.stderr)
    );
    for path in [
        "usr/bin/tendon",
        "usr/lib/systemd/system",
        "usr/share/tendon",
    ] {
        assert!(!at(path).exists(), "{path} stays");
    }
}

#[test]
fn doctor_exits_by_its_verdict() {
    // Not where somebody's own runs have left something.
    let state = tempfile::tempdir().expect("a folder");
    let doctor = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_tendon"))
            .arg("doctor")
            .args(arguments)
            .env("STATE_DIRECTORY", state.path())
            .current_dir(root())
            .output()
            .expect("the binary runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    let (code, text) = doctor(&[
        "--json",
        "--no-link",
        "--config",
        "deploy/bench/tendon.toml",
    ]);
    assert_eq!(code, Some(0), "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(report["could_arm"], true);
    assert!(
        report["findings"]
            .as_array()
            .is_some_and(|findings| findings.len() > 12)
    );

    let (code, text) = doctor(&["--no-link", "--config", "deploy/none/tendon.toml"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(" BAD  configuration"), "{text}");
    assert!(text.contains("not ready to arm; "), "{text}");

    // An earlier run has crashed: nothing is armed before a person has seen that.
    Recorder::open(state.path(), "bench")
        .expect("a folder")
        .record("governor", "on purpose", None);
    let bench = ["--no-link", "--config", "deploy/bench/tendon.toml"];
    let (code, text) = doctor(&bench);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(" BAD  last run"), "{text}");
    let (code, text) = doctor(&[&bench[..], &["--acknowledged"]].concat());
    assert_eq!(code, Some(0), "{text}");
    fs::remove_file(state.path().join("crash-bench.json")).expect("it was there");

    // The link is ours, and there is no motor controller: not ready to arm.
    let folder = tempfile::tempdir().expect("a folder");
    let tendon = read("deploy/bench/tendon.toml")
        .replace(
            "../../engines",
            &root().join("engines").display().to_string(),
        )
        .replace("tcp/127.0.0.1:7447", "tcp/127.0.0.1:27447");
    fs::write(folder.path().join("tendon.toml"), tendon).expect("a file");
    for file in ["robot.toml", "robot.urdf"] {
        let text = read(&format!("deploy/bench/{file}"));
        fs::write(folder.path().join(file), text).expect("a file");
    }
    let config = folder.path().join("tendon.toml").display().to_string();
    let (code, text) = doctor(&["--wait", "1", "--config", &config]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no state under tendon/bench/state"), "{text}");
    assert!(text.contains("\"front\" (link): no picture"), "{text}");

    // Now there is one.
    let mut bench = Command::new(env!("CARGO_BIN_EXE_tendon"))
        .args(["bench-robot", "--connect", "tcp/127.0.0.1:27447"])
        .spawn()
        .expect("the bench robot starts");
    let (code, text) = doctor(&["--wait", "30", "--config", &config]);
    bench.kill().expect("it runs");
    bench.wait().expect("it ended");
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("good  motor controller   reports at")
            && text.contains("keep-alives are echoed after")
            && text.contains("good  camera             \"front\" (link): 224x224"),
        "{text}"
    );
}
