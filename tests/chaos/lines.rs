// SPDX-License-Identifier: Apache-2.0
//! Contacts wired to the runtime's machine or told over the link, pressed, released, cut and unplugged. The kernel's part is played by a library
//! (`fake_lines.c`); everything from the ioctl on is the real thing.

use crate::TICK_MS;
use crate::canary::told;
use crate::stage::{Sent, Setting, Stage, ended, locked, over_again, repeats, signal, until};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tendon::core::governor::Verdict;
use tendon::core::governor::reaction::Cause;
use tendon::core::units::Mono;
use tendon::core::wire::state::MotorMode;
use tendon::link::keys;
use tendon::runtime::{clock, demo};

/// From a contact that opens to a command that holds: two readings, a tick each of governor and egress.
const SEEN_MS: u64 = 2 * 2 + 2 * TICK_MS;

/// The silence after which a switch elsewhere is let go.
const SILENCE_MS: u64 = 100;
/// What a switch elsewhere takes more: two of its readings, and its way.
const FAR_MS: u64 = 2 * 10 + 4;

/// A driver may take so long to open a device: longer than what is not read counts as closed.
const OPENING_MS: u64 = 200;

const SENTENCE: &str = "put the red block in the left bin";

pub struct Panel {
    chip: PathBuf,
    switch: PathBuf,
    library: PathBuf,
    _folder: tempfile::TempDir,
}

impl Panel {
    pub fn new() -> Panel {
        let folder = tempfile::tempdir().expect("a folder");
        let library = folder.path().join("lines.so");
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(&library)
            .arg("tests/chaos/fake_lines.c")
            .status();
        assert!(built.is_ok_and(|status| status.success()), "a C compiler");
        let panel = Panel {
            chip: folder.path().join("gpiochip0"),
            switch: folder.path().join("event0"),
            library,
            _folder: folder,
        };
        std::fs::write(&panel.chip, "0011").expect("written");
        std::fs::write(&panel.switch, "1").expect("written");
        panel
    }

    fn setting(&self, lines: String) -> Setting {
        Setting {
            edits: vec![("[schedule]", format!("{lines}\n\n[schedule]"))],
            env: vec![("LD_PRELOAD", self.library.clone())],
            no_arming: true,
            ..Setting::default()
        }
    }

    fn emergency_table(&self) -> String {
        let chip = self.chip.display();
        format!("[lines.emergency]\ngpio = [\"{chip}:2\", \"{chip}:3\"]")
    }

    fn deadman_table(&self) -> String {
        let switch = self.switch.display();
        format!("[lines.deadman]\nevdev = \"{switch}\"\nkeys = [\"BTN_TR\"]")
    }

    /// Two wires.
    pub fn emergency(&self) -> Setting {
        self.setting(self.emergency_table())
    }

    fn deadman(&self) -> Setting {
        self.setting(self.deadman_table())
    }

    fn both(&self) -> Setting {
        let (emergency, deadman) = (self.emergency_table(), self.deadman_table());
        self.setting(format!("{emergency}\n\n{deadman}"))
    }

    fn slow(&self) -> PathBuf {
        self.switch.with_extension("slow")
    }

    /// From now on the switch takes so long to open.
    fn opens_in(&self, ms: u64) {
        std::fs::write(self.slow(), ms.to_string()).expect("written");
    }

    /// How often it was opened since.
    fn openings(&self) -> usize {
        let noted = std::fs::read_to_string(self.slow()).expect("there");
        noted.matches('.').count()
    }
}

/// `tendon deadman`, as on another machine.
struct Far {
    child: Child,
    said: PathBuf,
}

impl Drop for Far {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Far {
    fn new(panel: &Panel, stage: &Stage) -> Far {
        let said = stage.folder.path().join("deadman.out");
        let child = Command::new(env!("CARGO_BIN_EXE_tendon"))
            .args(["deadman", "--keys", "BTN_TR", "--connect", &stage.endpoint])
            .arg("--evdev")
            .arg(&panel.switch)
            .env("LD_PRELOAD", &panel.library)
            .stdout(std::fs::File::create(&said).expect("a file"))
            .stderr(Stdio::null())
            .spawn();
        let child = child.expect("it starts");
        Far { child, said }
    }

    #[track_caller]
    fn tells(&self, what: &str) {
        until(what, || {
            std::fs::read_to_string(&self.said).is_ok_and(|said| said.trim_end().ends_with(what))
        });
    }
}

/// The last fifty commands hold.
#[track_caller]
fn holds_on(stage: &Stage, why: &str) {
    locked(&stage.commands, |commands| {
        let late = commands.iter().rev().take(50);
        assert!(
            late.clone().all(|sent| sent.held),
            "it went on by itself: {why}"
        );
    });
}

/// Sets levels in place; returns the time just before.
fn set(file: &Path, at: u64, levels: &str) -> Mono {
    let file = std::fs::File::options()
        .write(true)
        .open(file)
        .expect("there");
    let before = clock::now();
    file.write_all_at(levels.as_bytes(), at).expect("written");
    before
}

#[track_caller]
fn follows(stage: &Stage) {
    until("the robot follows", || {
        locked(&stage.commands, |commands| {
            commands.iter().rev().take(5).all(|sent| !sent.held)
        })
    });
    demo::pause(150);
}

#[track_caller]
fn refused(stage: &Stage, why: &str) {
    let answer = stage.ask(keys::mode, "active");
    assert!(
        answer.as_ref().is_err_and(|said| said.contains(why)),
        "{answer:?}, expected {why}"
    );
}

#[test]
fn a_deadman_switch_that_is_let_go_holds_the_robot_and_so_does_one_that_is_unplugged() {
    told(|| {
        let panel = Panel::new();
        let mut stage = Stage::new(&panel.deadman());
        stage.until_granted(keys::instruction, SENTENCE);
        // A switch that is tied down is none.
        until("a refusal for the switch", || {
            let answer = stage.ask(keys::mode, "active");
            answer.is_err_and(|said| said.contains("released once"))
        });
        set(&panel.switch, 0, "0");
        demo::pause(100);
        refused(&stage, "deadman");
        set(&panel.switch, 0, "1");
        stage.arm();
        for _ in 0..repeats() {
            let from = set(&panel.switch, 0, "0");
            stage.held_within("deadman let go", from, SEEN_MS);
            demo::pause(100);
            set(&panel.switch, 0, "1");
            follows(&stage);
            let from = set(&panel.switch, 0, "x");
            stage.held_within("deadman unplugged", from, SEEN_MS);
            demo::pause(100);
            // It is looked for again twice a second; that it is found held is not a hand that closes it.
            set(&panel.switch, 0, "1");
            demo::pause(1_000);
            holds_on(&stage, "found held");
            set(&panel.switch, 0, "0");
            demo::pause(50);
            set(&panel.switch, 0, "1");
            // Away for too long, it has ended the arming.
            stage.arm();
            follows(&stage);
        }
        assert!(
            stage.log().contains("lines.deadman: gone"),
            "{}",
            stage.log()
        );
        stage.within_limits();
    });
}

#[test]
fn a_deadman_switch_elsewhere_that_falls_silent_is_let_go_and_must_be_pressed_again() {
    told(|| {
        let panel = Panel::new();
        let table = format!("[lines.deadman]\nlink_silence_ms = {SILENCE_MS}");
        let mut stage = Stage::new(&panel.setting(table));
        stage.until_granted(keys::instruction, SENTENCE);
        until("a refusal for the switch", || {
            let answer = stage.ask(keys::mode, "active");
            answer.is_err_and(|said| said.contains("deadman"))
        });
        let mut far = Far::new(&panel, &stage);
        for _ in 0..repeats() {
            // Held from the beginning: tied down, for all that is known.
            demo::pause(500);
            refused(&stage, "deadman");
            set(&panel.switch, 0, "0");
            far.tells("let go");
            refused(&stage, "deadman");
            set(&panel.switch, 0, "1");
            stage.arm();
            let from = set(&panel.switch, 0, "0");
            stage.held_within("deadman elsewhere let go", from, SEEN_MS + FAR_MS);
            demo::pause(100);
            set(&panel.switch, 0, "1");
            follows(&stage);
            // The program stands still, and goes on as if nothing had been.
            let from = clock::now();
            signal(&far.child, "STOP");
            let bound_ms = SILENCE_MS + SEEN_MS + FAR_MS;
            stage.held_within("deadman elsewhere frozen", from, bound_ms);
            demo::pause(100);
            signal(&far.child, "CONT");
            demo::pause(1_000);
            holds_on(&stage, "it had been silent");
            set(&panel.switch, 0, "0");
            demo::pause(100);
            set(&panel.switch, 0, "1");
            stage.arm();
            follows(&stage);
            // It is gone, and another one is started with the switch held.
            let from = clock::now();
            far = Far::new(&panel, &stage);
            stage.held_within("deadman elsewhere killed", from, bound_ms);
            demo::pause(1_500);
            holds_on(&stage, "another one is there");
        }
        stage.within_limits();
    });
}

#[test]
fn an_emergency_stop_latches_whichever_wire_opens_and_a_broken_one_must_be_opened_wholly() {
    told(|| {
        let panel = Panel::new();
        let mut stage = Stage::new(&panel.emergency());
        stage.until_granted(keys::instruction, SENTENCE);
        stage.arm();
        for _ in 0..repeats() {
            // Pressed: both channels.
            let from = set(&panel.chip, 2, "00");
            stage.held_within("emergency stop pressed", from, SEEN_MS);
            refused(&stage, "latched");
            let said = stage.ask(keys::mode, "reset");
            assert!(said.is_err(), "reset while it is pressed: {said:?}");
            // Let go, and nothing moves before a reset and an arming.
            set(&panel.chip, 2, "11");
            demo::pause(300);
            refused(&stage, "latched");
            let mode = locked(&stage.reports, |reports| {
                reports.last().map(|report| report.mode)
            });
            assert_ne!(mode, Some(MotorMode::Following), "it goes on by itself");
            stage.until_granted(keys::mode, "reset");
            stage.arm();
            // One wire breaks, and mends by itself: not trusted.
            let from = set(&panel.chip, 3, "0");
            stage.held_within("one wire of the emergency stop cut", from, SEEN_MS);
            demo::pause(200);
            set(&panel.chip, 3, "1");
            demo::pause(100);
            let said = stage.ask(keys::mode, "reset");
            assert!(
                said.is_err(),
                "a contact whose channels disagreed: {said:?}"
            );
            assert!(
                stage.log().contains("its two channels disagree"),
                "{}",
                stage.log()
            );
            set(&panel.chip, 2, "00");
            demo::pause(50);
            set(&panel.chip, 2, "11");
            stage.until_granted(keys::mode, "reset");
            stage.arm();
        }
        // The chip is gone.
        let from = set(&panel.chip, 2, "xx");
        stage.held_within("GPIO chip gone", from, SEEN_MS);
        refused(&stage, "latched");
        stage.within_limits();
    });
}

/// A driver may sleep in `open`, and one that was gone is opened while the robot is armed. Nobody pressed the emergency stop
/// meanwhile, and its contact was read all the time.
#[test]
fn a_deadman_switch_that_comes_back_and_takes_its_time_to_open_is_no_emergency_stop() {
    told(|| {
        let panel = Panel::new();
        panel.opens_in(OPENING_MS);
        // Already at the start.
        let mut stage = Stage::new(&panel.both());
        until("it is opened", || panel.openings() > 0);
        // A switch that is pressed while contacts are still waited for must be let go once more.
        until("it has started", || {
            stage.said("standby; arm with").is_some()
        });
        stage.until_granted(keys::instruction, SENTENCE);
        set(&panel.switch, 0, "0");
        demo::pause(100);
        set(&panel.switch, 0, "1");
        stage.arm();
        let armed = clock::now();
        for _ in 0..repeats() {
            panel.opens_in(OPENING_MS);
            let from = set(&panel.switch, 0, "x");
            stage.held_within("deadman unplugged beside an emergency stop", from, SEEN_MS);
            // It is tried in vain, then plugged in again.
            until("it is looked for", || panel.openings() > 0);
            demo::pause(100);
            panel.opens_in(OPENING_MS);
            set(&panel.switch, 0, "1");
            until("it is opened", || panel.openings() > 0);
            demo::pause(1_000);
            holds_on(&stage, "found held");
            let said = stage.ask(keys::mode, "status");
            assert!(
                said.as_ref().is_ok_and(|said| said.starts_with("standby")),
                "away for a second, it ends the arming and nothing more: {said:?}: {}",
                stage.log()
            );
            set(&panel.switch, 0, "0");
            demo::pause(50);
            set(&panel.switch, 0, "1");
            // Without a reset: nothing is latched.
            stage.arm();
            follows(&stage);
        }
        let pressed = Verdict::Held(Cause::EmergencyLine).code();
        locked(&stage.commands, |commands| {
            let stopped = |sent: &&Sent| sent.at > armed && sent.verdict == pressed;
            assert_eq!(commands.iter().find(stopped).map(|sent| sent.at), None);
        });
        // It was not for want of looking.
        let from = set(&panel.chip, 2, "00");
        stage.held_within("emergency stop pressed beside a deadman", from, SEEN_MS);
        refused(&stage, "latched");
        stage.within_limits();
    });
}

/// What no service manager watches, the machine does: pinged while all threads come round, no more when one hangs, which is on
/// record before the machine is reset, let go at a good end.
#[test]
fn a_hardware_watchdog_is_pinged_while_every_thread_comes_round() {
    over_again(|| {
        let panel = Panel::new();
        let device = panel.chip.with_file_name("watchdog");
        let setting = |drill: Option<&str>| {
            std::fs::write(&device, "").expect("written");
            let table = format!(
                "[watchdog]\ndevice = \"{}\"\ntimeout_s = 1",
                device.display()
            );
            Setting {
                drill: drill.map(str::to_owned),
                ..panel.setting(table)
            }
        };
        let pings = || std::fs::read(&device).expect("there");
        let mut stage = Stage::new(&setting(None));
        let before = pings().len();
        demo::pause(2_100);
        // A timeout of 2 s, as the driver made of it: a ping each 500 ms, or oftener.
        assert!(pings().len() >= before + 4, "{:?}", pings());
        signal(&stage.runtime, "TERM");
        assert_eq!(
            ended(&mut stage.runtime, std::time::Duration::from_secs(5)),
            Some(0)
        );
        assert_eq!(pings().last(), Some(&b'V'), "let go");
        drop(stage);

        let stage = Stage::new(&setting(Some("hang:control")));
        signal(&stage.runtime, "USR1");
        demo::pause(300);
        let after = pings().len();
        demo::pause(1_500);
        assert_eq!(
            pings().len(),
            after,
            "a thread hangs, and the machine is told that all is well"
        );
        // The next start knows why the machine was reset.
        let crash = stage.crash();
        assert_eq!(crash.thread, "control", "{crash:?}");
        assert!(crash.cause.contains("has not come round"), "{crash:?}");
        drop(stage);

        // A file that is no watchdog.
        let mut unarmed = setting(None);
        unarmed.env.clear();
        let folder = tempfile::tempdir().expect("a folder");
        let config = crate::stage::deploy(folder.path(), "tcp/127.0.0.1:7", "");
        let text = std::fs::read_to_string(&config).expect("written");
        let (from, to) = &unarmed.edits[0];
        std::fs::write(&config, text.replacen(from, to, 1)).expect("written");
        let said = crate::stage::runtime(&config, folder.path(), &unarmed)
            .status()
            .expect("it runs");
        assert_eq!(said.code(), Some(1));
        let log = std::fs::read_to_string(folder.path().join("runtime.log")).expect("a log");
        assert!(
            log.contains("watchdog.device: ") && log.contains("takes a timeout of"),
            "{log}"
        );
        assert_eq!(pings().last(), Some(&b'V'), "and it is let go");
    });
}
