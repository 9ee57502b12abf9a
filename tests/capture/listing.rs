// SPDX-License-Identifier: Apache-2.0
//! What `tendon cameras --list` prints, over fake kernel cameras on a machine of folders. The fake must be preloaded, so that this
//! binary runs itself once more with it. What is printed as a part of tendon.toml is read as one.

use crate::fake::{Fake, Fault};
use crate::preload;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tendon::capture::discovery::Places;
use tendon::capture::listing::{name_of, page};
use tendon::config::camera::{CameraConfig, CameraSource};
use tendon::config::{BenchParts, Config};

const PRELOADED: &str = "TENDON_FAKE_LISTED";
const BY_ID: &str = "v4l/by-id/usb-Fake_1234-video-index0";
const OURS: &str = "tendon/camera-1234";

#[test]
fn the_list_says_what_a_table_of_a_kernel_camera_asks_for() {
    if std::env::var_os(PRELOADED).is_some() {
        return;
    }
    let own = std::env::current_exe().expect("own path");
    let ran = Command::new(own)
        .args(["--exact", "listing::inside", "--nocapture"])
        .env("LD_PRELOAD", preload::library())
        .env(PRELOADED, "1")
        .status()
        .expect("runs itself");
    assert!(ran.success(), "the stories above failed");
}

/// Runs in the process into which the fake is preloaded; anywhere else there is nothing to test.
#[test]
fn inside() {
    if std::env::var_os(PRELOADED).is_none() {
        return;
    }
    let fake = Fake::here();
    type Story = (&'static str, fn(&Fake));
    let stories: [Story; 5] = [
        ("one camera", one),
        ("two cameras with one serial number", twins),
        ("nodes that are none", others),
        ("drivers that say little, or much", odd_drivers),
        ("formats that are not decoded here", not_decoded),
    ];
    for (name, story) in stories {
        for camera in 0..8 {
            fake.set(camera, Fault::Unplugged);
            fake.set(camera, Fault::Good);
        }
        println!("-- {name}");
        story(&fake);
    }
}

/// A machine's `/dev`, `/sys/class/video4linux` and `/run/udev/data`.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Machine {
        let machine = Machine(tempfile::tempdir().expect("a folder"));
        for folder in ["dev", "class", "udev"] {
            fs::create_dir(machine.at(folder)).expect("made");
        }
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// A camera is there and asks for these links; it gets them all, as whoever comes last.
    fn plug(&self, camera: usize, links: &[&str]) {
        let node = self.at(&format!("dev/video4{camera}"));
        fs::write(&node, "").expect("written");
        let class = self.at(&format!("class/video4{camera}"));
        fs::create_dir(&class).expect("made");
        fs::write(class.join("dev"), format!("81:{camera}\n")).expect("written");
        let asked: String = links.iter().map(|link| format!("S:{link}\n")).collect();
        let record = format!("I:123456\nE:ID_SERIAL_SHORT=1234\n{asked}G:uaccess\n");
        fs::write(self.at(&format!("udev/c81:{camera}")), record).expect("written");
        for link in links {
            let link = self.at("dev").join(link);
            fs::create_dir_all(link.parent().expect("in a folder")).expect("made");
            // Not there, unless another one had it.
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&node, link).expect("linked");
        }
    }

    /// What is printed, as of `/dev`.
    fn page(&self) -> String {
        let places = Places {
            nodes: &self.at("dev"),
            class: &self.at("class"),
            database: &self.at("udev"),
        };
        let said = page(&places).replace(&self.0.path().display().to_string(), "");
        println!("{said}");
        said
    }
}

#[track_caller]
fn has(said: &str, lines: &[&str]) {
    for line in lines {
        assert!(said.lines().any(|each| each == *line), "{line}");
    }
}

/// The bench's deployment with these tables in the place of its camera.
fn deployment(tables: &str) -> Result<BenchParts, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/bench");
    let read = |name: &str| fs::read_to_string(root.join(name)).expect("there");
    let tendon = read("tendon.toml");
    let (before, behind) = tendon.split_once("[camera]\n").expect("a camera");
    let (_, behind) = behind.split_once("\n[").expect("another table");
    let tendon = format!("{before}[{behind}\n{tables}");
    Config::bench_parts(&tendon, &read("robot.toml")).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        problems.join("\n")
    })
}

/// The first camera of what is printed for tendon.toml, with the controls that it proposes.
#[track_caller]
fn proposed(said: &str) -> CameraConfig {
    let (_, tables) = said.split_once("\n# For tendon.toml").expect("tables");
    let tables = format!("#{tables}").replace("\n# controls", "\ncontrols");
    deployment(&tables)
        .unwrap_or_else(|why| panic!("{why}"))
        .camera
}

fn one(_: &Fake) {
    let machine = Machine::new();
    machine.plug(0, &["v4l/by-path/pci-1-video-index0", BY_ID, OURS]);
    let said = machine.page();
    has(
        &said,
        &[
            "Fake camera on usb-fake-0, now /dev/video40",
            "  device = \"/dev/v4l/by-id/usb-Fake_1234-video-index0\"",
            "  device = \"/dev/v4l/by-path/pci-1-video-index0\"",
            "  device = \"/dev/tendon/camera-1234\"",
            "  MJPG 640x480 at 30, 15, 7.5 Hz",
            "  MJPG 320x240, 224x224 at 60, 29.97, 15 Hz",
            "  GREY 640x480 at 30, 15, 7.5 Hz",
            "  controls, by the names that `controls` takes:",
            "    white_balance_automatic     0 to 1, default 1, now 1",
            "    white_balance_temperature   2800 to 6500 in steps of 10, default 4600, now 4600; the camera sets it by itself now",
            "    auto_exposure               1 (Manual Mode), 3 (Aperture Priority Mode), default 3, now 3",
            "    focus_automatic_continuous  0 to 1, default 1, now 1",
        ],
    );
    // A driver's own has a number for its name.
    let own = said.lines().find(|line| line.contains("\"Own Number\""));
    assert!(own.is_some_and(|line| line.starts_with("    0x0098")));
    assert!(!said.contains("White Balance, Once"), "a button");
    let camera = proposed(&said);
    assert_eq!((camera.width, camera.height), (640, 480));
    assert_eq!(camera.period_ns, Some(33_333_333));
    let CameraSource::V4l {
        device,
        formats,
        controls,
    } = camera.source
    else {
        panic!("{:?}", camera.source);
    };
    assert_eq!(device, Path::new("/dev").join(BY_ID));
    assert_eq!(formats, [*b"RGB3"]);
    // Those that the camera does not set by itself, as they stand.
    for control in [(0x0098_090c, 1), (0x009a_0901, 3), (0x009a_090c, 1)] {
        assert!(controls.contains(&control), "{controls:?}");
    }
    assert_eq!(controls.len(), 4, "and its own: {controls:?}");
}

/// The link by id leads to one of them, and to whichever came last at the next start.
fn twins(_: &Fake) {
    let machine = Machine::new();
    machine.plug(0, &["v4l/by-path/pci-1-video-index0", BY_ID, OURS]);
    machine.plug(1, &["v4l/by-path/pci-2-video-index0", BY_ID, OURS]);
    let said = machine.page();
    let doubt = "   # not stable: /dev/video40 asks for it as well; use a by-path name";
    has(
        &said,
        &[
            &format!("  device = \"/dev/{BY_ID}\"{doubt}"),
            &format!("  device = \"/dev/{OURS}\"{doubt}"),
            "  device = \"/dev/v4l/by-path/pci-2-video-index0\"",
            // In the tables.
            "device = \"/dev/v4l/by-path/pci-1-video-index0\"",
            "device = \"/dev/v4l/by-path/pci-2-video-index0\"",
        ],
    );
    assert_eq!(said.matches("not stable").count(), 2, "only what both want");
    // One alone has its names to itself.
    let machine = Machine::new();
    machine.plug(1, &["v4l/by-path/pci-2-video-index0", BY_ID, OURS]);
    assert!(!machine.page().contains("not stable"));
    // And one without any is told so.
    let machine = Machine::new();
    machine.plug(1, &[]);
    let said = machine.page();
    has(
        &said,
        &[
            "  no stable name: udev has made none",
            "device = \"/dev/video41\"   # its number may change at the next start",
        ],
    );
}

fn others(fake: &Fake) {
    let machine = Machine::new();
    for (camera, fault) in [
        (0, Fault::Good),
        (1, Fault::MetadataNode),
        (2, Fault::MultiPlanar),
        (3, Fault::OutputNode),
    ] {
        fake.set(camera, fault);
        machine.plug(camera, &[]);
    }
    let said = machine.page();
    has(
        &said,
        &[
            "Fake camera on usb-fake-0, /dev/video41: tells of pictures and gives none; they come from /dev/video40",
            "Fake camera on usb-fake-2, /dev/video42: gives pictures in several planes, which source = \"v4l\" does not read; use source = \"gstreamer\", pipeline = \"v4l2src device=/dev/video42 ! ...\"",
            "Fake camera on usb-fake-3, /dev/video43: gives no pictures",
        ],
    );
    assert_eq!(said.matches("[[camera]]").count(), 1);
    fake.set(0, Fault::OutputNode);
    let said = machine.page();
    has(
        &said,
        &["no kernel camera: nothing under /dev/video* gives pictures"],
    );
    assert!(said.contains("the node whose stable name ends in index0"));
    assert!(!said.contains("For tendon.toml"));
}

fn odd_drivers(fake: &Fake) {
    let machine = Machine::new();
    machine.plug(0, &[BY_ID]);
    fake.set(0, Fault::NoSizes);
    let said = machine.page();
    has(
        &said,
        &[
            "  MJPG any size at rates that its driver does not say",
            "rate_hz = 30   # its driver does not say which it has",
        ],
    );
    assert_eq!(proposed(&said).period_ns, Some(33_333_333));
    for (fault, sizes) in [
        (Fault::Stepwise, "48x32 to 8192x8192 in steps of 16x8"),
        (Fault::Continuous, "48x32 to 8192x8192"),
    ] {
        fake.set(0, fault);
        let said = machine.page();
        let line = format!("  YUYV {sizes} at 1 to 60 Hz (as told for 640x480)");
        has(&said, &[&line]);
        let camera = proposed(&said);
        assert_eq!((camera.width, camera.height), (640, 480));
    }
}

fn not_decoded(fake: &Fake) {
    let machine = Machine::new();
    machine.plug(0, &[BY_ID]);
    fake.set(0, Fault::H264Only);
    let said = machine.page();
    has(
        &said,
        &["  H264 640x480 at 30, 15, 7.5 Hz; source = \"v4l\" does not decode it"],
    );
    assert!(said.contains("/dev/video40: none of its formats"), "{said}");
    assert!(!said.contains("[[camera]]"));
    fake.set(0, Fault::WithH264);
    let said = machine.page();
    let CameraSource::V4l { formats, .. } = proposed(&said).source else {
        panic!("{said}");
    };
    assert_eq!(formats, [*b"YUYV"]);
}

/// The names that the list prints are those that tendon.toml takes, all of them, and each is the same control to both.
#[test]
fn controls_are_called_as_a_configuration_calls_them() {
    let table = |controls: &str| {
        deployment(&format!(
            "[[camera]]\nname = \"front\"\nsource = \"v4l\"\ndevice = \"/dev/video0\"\nrate_hz = 30\nwidth = 640\n\
             height = 480\nage_max_ms = 150\ncontrols = {{ {controls} }}\n"
        ))
    };
    let classes = [0x0098_0900, 0x009a_0900];
    let mut named = BTreeSet::new();
    for id in classes.into_iter().flat_map(|class| class..class + 0x40) {
        let name = name_of(id);
        let parts = table(&format!("{name} = 7")).unwrap_or_else(|why| panic!("{name}: {why}"));
        let CameraSource::V4l { controls, .. } = parts.camera.source else {
            panic!("{name}");
        };
        assert_eq!(controls, [(id, 7)], "{name}");
        if !name.starts_with("0x") {
            named.insert(name);
        }
    }
    // What is no name is answered with those that are.
    let Err(refused) = table("no_such_control = 7") else {
        panic!("taken");
    };
    let (_, list) = refused.split_once("or one of [").expect("a list");
    let (list, _) = list.split_once(']').expect("its end");
    let known: BTreeSet<String> = list
        .split(", ")
        .map(|name| name.trim_matches('"').to_owned())
        .collect();
    assert_eq!(named, known);
}
