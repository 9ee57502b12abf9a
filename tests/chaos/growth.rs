// SPDX-License-Identifier: Apache-2.0
//! What the runtime takes of the machine, and how that grows: with isolation, with the control rate, with cameras, with joints.
//!
//!     cargo test --release --test chaos growth -- --ignored --nocapture
//!
//! `TENDON_GROWTH_S` is how long each row is measured.

use crate::canary::{Canary, alone, told};
use crate::isolation::children_of;
use crate::joints::Robot;
use crate::stage::{Setting, Stage, ms};
use jpeg_encoder::{ColorType, Encoder};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;
use tendon::runtime::{clock, demo};

/// What the kernel has counted of a process, or of several.
#[derive(Clone, Copy, Default)]
struct Taken {
    /// Processor time in hundredths of a second (`USER_HZ` is 100 wherever Linux runs today).
    ticks: u64,
    /// Voluntary context switches of all threads: a wake-up each.
    wakes: u64,
    threads: u64,
    rss_kib: u64,
}

fn taken(pid: u32) -> Taken {
    let mut sum = Taken::default();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    for task in tasks.flatten() {
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let number = |key: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        sum.wakes += number("voluntary_ctxt_switches:");
        sum.rss_kib = sum.rss_kib.max(number("VmRSS:"));
        sum.threads += 1;
    }
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    let fields: Vec<u64> = rest
        .split_whitespace()
        .map(|word| word.parse().unwrap_or(0))
        .collect();
    // Fields 14 and 15 of proc(5); the first behind the name is the third.
    sum.ticks = fields[11] + fields[12];
    sum
}

fn plus(a: Taken, b: Taken) -> Taken {
    Taken {
        ticks: a.ticks + b.ticks,
        wakes: a.wakes + b.wakes,
        threads: a.threads + b.threads,
        rss_kib: a.rss_kib + b.rss_kib,
    }
}

/// A figure of the page's `/metrics`; `page` is its address as told at the start.
pub fn metric(page: &str, name: &str) -> f64 {
    let address = page.strip_prefix("http://").expect("an address");
    let (host, query) = address.split_once('/').expect("a path");
    let mut page = TcpStream::connect(host).expect("the page");
    page.set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a socket");
    let ask = format!("GET /metrics{query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    page.write_all(ask.as_bytes()).expect("asked");
    let mut said = Vec::new();
    // What came before the end is enough.
    drop(page.read_to_end(&mut said));
    let said = String::from_utf8_lossy(&said);
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.and_then(|value| value.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name}: {said}"))
}

pub fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("an address").port()
}

/// A page, which the stage has not.
pub fn paged() -> (&'static str, String) {
    let page = "[page]\nlisten = \"127.0.0.1:0\"\n\n[schedule]";
    ("[schedule]", page.to_owned())
}

/// Where it is.
pub fn page_of(stage: &Stage) -> String {
    stage.said("Watch and instruct: ").expect("a page")
}

fn row(what: &str, mut edits: Vec<(&'static str, String)>, seconds: u64) {
    edits.push(paged());
    let stage = Stage::new(&Setting {
        edits,
        ..Setting::default()
    });
    let page = page_of(&stage);
    let look = || {
        let children = children_of(&stage).into_iter().map(taken);
        children.fold(taken(stage.runtime.id()), plus)
    };
    measure(what, look, &page, stage.ready_ms, &stage.canary, seconds);
}

fn joints_row(joints: usize, seconds: u64) {
    let robot = Robot::new(joints, free_port());
    let look = || taken(robot.runtime.id());
    let what = format!("{joints} joints, a policy of one multiplication");
    measure(
        &what,
        look,
        &robot.page(),
        robot.ready_ms,
        &robot.canary,
        seconds,
    );
}

fn measure(
    what: &str,
    look: impl Fn() -> Taken,
    page: &str,
    ready_ms: f64,
    canary: &Canary,
    seconds: u64,
) {
    demo::pause(1_000);
    let (before, began) = (look(), clock::now());
    demo::pause(seconds * 1_000);
    let (after, took_s) = (look(), ms(clock::now().since_ns(began)) / 1e3);
    let (inference_ms, whole_ms) = (
        metric(page, "tendon_inference_ms"),
        metric(page, "tendon_frame_to_command_ms"),
    );
    println!(
        "| {what} | {:.0} | {:.1} | {} | {:.0} | {ready_ms:.0} | {inference_ms:.2} | {:.2} | {:.0} |",
        (after.ticks - before.ticks) as f64 / took_s,
        after.rss_kib as f64 / 1024.0,
        after.threads,
        (after.wakes - before.wakes) as f64 / took_s,
        whole_ms - inference_ms,
        ms(canary.stall_ns(began, began.plus_ns((took_s * 1e9) as u64))),
    );
}

/// A picture as a camera might see it, in which not two places are alike.
fn pictures(folder: &Path) {
    let [width, height] = [640_u16, 480];
    for n in 0..4_u32 {
        let mut state = n + 1;
        let rgb: Vec<u8> = (0..u32::from(width) * u32::from(height) * 3)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (at / 7_680 + (state >> 28) + n * 16) as u8
            })
            .collect();
        let encoder = Encoder::new_file(folder.join(format!("{n}.jpg")), 85).expect("a file");
        encoder
            .encode(&rgb, width, height, ColorType::Rgb)
            .expect("encoded");
    }
}

#[test]
fn a_robot_of_forty_joints_moves_all_of_them_within_their_limits() {
    told(|| {
        let robot = Robot::new(40, free_port());
        // The picture's brightness comes and goes in two seconds.
        demo::pause(3_000);
        let travels_rad = robot.travels_rad();
        assert_eq!(travels_rad.len(), 40);
        assert!(travels_rad.iter().all(|rad| *rad > 0.1), "{travels_rad:?}");
        let allocations = metric(&robot.page(), "tendon_allocations_total");
        assert_eq!(allocations, 0.0, "in the control loop");
    });
}

#[test]
#[ignore = "minutes"]
fn growth() {
    let _alone = alone();
    let seconds = std::env::var("TENDON_GROWTH_S").ok();
    let seconds = seconds.and_then(|text| text.parse().ok()).unwrap_or(10);
    println!(
        "| | processor % of one core | RSS MiB | threads | wake-ups/s | start to answer ms | inference p50 ms | frame to \
         command less inference p50 ms | machine stood still ms |\n|---|---|---|---|---|---|---|---|---|"
    );
    let apart = (
        "\nrobot = ",
        "\nisolation = \"process\"\nrobot = ".to_owned(),
    );
    row("one process, 200 Hz, 1 camera", vec![], seconds);
    row("a process of its own", vec![apart.clone()], seconds);
    for hz in [100, 500, 1_000] {
        row(
            &format!("{hz} Hz"),
            vec![("hz = 200.0", format!("hz = {hz}.0"))],
            seconds,
        );
    }
    let folder = tempfile::tempdir().expect("a folder");
    pictures(folder.path());
    for cameras in [2, 4, 8] {
        let more: String = (1..cameras)
            .map(|n| {
                format!(
                    "[[camera]]\nname = \"more{n}\"\nwidth = 640\nheight = 480\nage_max_ms = 500\nsource = \"images\"\n\
                     path = \"{}\"\nrate_hz = 30\noptional = true\nnoisy = false\n\n",
                    folder.path().display()
                )
            })
            .collect();
        let edits = vec![
            ("[camera]", "[[camera]]".to_owned()),
            ("[control]", format!("{more}[control]")),
        ];
        row(
            &format!("{cameras} cameras, all but one 640x480 JPEG at 30 Hz"),
            edits,
            seconds,
        );
    }
    for joints in [6, 14, 28, 40] {
        joints_row(joints, seconds);
    }
}
