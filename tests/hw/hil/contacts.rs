// SPDX-License-Identifier: Apache-2.0
//! Contacts that a person presses or holds: those of the deployment's `[lines]`, wired to this machine or told over the link. On the
//! bench a deadman switch is told over the link; the kernel's part of its input device is played by a library.

use crate::Lab;
use crate::ledger::Outcome;
use crate::program;
use crate::stages::{Bench, left_out};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tendon::config::lines::{ContactConfig, Wire};
use tendon::core::units::{MS, Mono};
use tendon::core::wire::command::{self, MODE_FOLLOW};
use tendon::link::keys;
use tendon::link::runtime_end::subscribe;
use tendon::runtime::{clock, demo, lines};

const DEADMAN: &str = "deadman switch";
const EMERGENCY: &str = "emergency contact";
/// Between two readings of one that is wired to this machine.
const PERIOD_NS: u64 = 2 * MS;
/// A hand that opens is told within two readings of a switch elsewhere and its way; one that closes after it has settled.
const OPENS_NS: u64 = 24 * MS;
const CLOSES_NS: u64 = OPENS_NS + 30 * MS;
/// The silence after which the bench's switch would count as let go.
const SILENCE_NS: u64 = 100 * MS;
/// What a contact does so long after a hand has moved is not the hand's.
const QUIET_MS: u64 = 1_000;

/// What was told, and when.
type Told = Arc<Mutex<Vec<(Mono, bool)>>>;

fn since(told: &Told, mark: usize) -> Vec<(Mono, bool)> {
    let told = told.lock().unwrap_or_else(PoisonError::into_inner);
    told.get(mark..).unwrap_or_default().to_vec()
}

/// A switch that nobody holds: a file, and `tendon deadman`, which takes it for an input device.
struct Played {
    switch: PathBuf,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Played {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Played {
    fn start(lab: &Lab) -> Result<Played, String> {
        let said = |error: std::io::Error| error.to_string();
        let folder = tempfile::tempdir().map_err(said)?;
        let (library, switch) = (folder.path().join("lines.so"), folder.path().join("event0"));
        let source = folder.path().join("lines.c");
        std::fs::write(&source, include_str!("../../chaos/fake_lines.c")).map_err(said)?;
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([&library, &source])
            .status();
        if !built.map_err(said)?.success() {
            return Err("expected a C compiler (cc) for the switch that is played".into());
        }
        std::fs::write(&switch, "0").map_err(said)?;
        let child = Command::new(program::tendon())
            .args(["deadman", "--keys", "BTN_TR", "--connect", &lab.endpoint])
            .args(["--robot", &lab.config.robot.name, "--evdev"])
            .arg(&switch)
            .env("LD_PRELOAD", &library)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(said)?;
        Ok(Played {
            switch,
            child,
            _folder: folder,
        })
    }
}

/// Whoever presses and lets go.
enum Hand<'a> {
    Person,
    Played(&'a Played),
}

impl Hand<'_> {
    /// Closes the contact, or opens it; the time just before.
    fn moves(&self, name: &str, closes: bool) -> Result<Mono, String> {
        let before = clock::now();
        match self {
            Hand::Played(played) => {
                let level = if closes { "1" } else { "0" };
                // In place: a file that is empty for a moment is a switch that is gone.
                let file = std::fs::File::options().write(true).open(&played.switch);
                let written = file.and_then(|file| file.write_all_at(level.as_bytes(), 0));
                written.map_err(|error| error.to_string())?;
            }
            Hand::Person => println!(
                "\n>> {}",
                match (name == DEADMAN, closes) {
                    (true, true) => "PRESS the deadman switch, and hold it.",
                    (true, false) => "LET GO of the deadman switch.",
                    (false, true) => "RELEASE the emergency stop.",
                    (false, false) => "PRESS the emergency stop.",
                }
            ),
        }
        Ok(before)
    }

    fn patience_ns(&self) -> u64 {
        match self {
            Hand::Played(_) => 2_000 * MS,
            Hand::Person => 20_000 * MS,
        }
    }
}

/// Each contact that the deployment has; nothing moves.
pub fn contacts(on: &mut Bench<'_>, lab: &Lab) {
    let lines = &lab.config.lines;
    let wired = [(DEADMAN, &lines.deadman), (EMERGENCY, &lines.emergency)];
    for (name, contact) in wired {
        let played = lab.on_bench && name == DEADMAN;
        if contact.is_none() && !played {
            let none = "[lines] of tendon.toml names none".to_owned();
            on.ledger.note(name, "all of it", Outcome::Absent, none, "");
            continue;
        }
        if on.ledger.count(Outcome::Failed) > 0 {
            left_out(on.ledger, name, "a stage before it failed");
            continue;
        }
        if !on.hands.allow(&format!("{name}: nothing moves.")) {
            left_out(on.ledger, name, "not allowed");
            continue;
        }
        let judged = match contact {
            None => Played::start(lab)
                .and_then(|played| over_link(on, lab, name, SILENCE_NS, &Hand::Played(&played))),
            Some(ContactConfig {
                wire: Wire::Link { silence_ns },
                ..
            }) => over_link(on, lab, name, *silence_ns, &Hand::Person),
            Some(contact) => here(on, name, contact),
        };
        if let Err(problem) = judged {
            let claim = "it can be carried out";
            on.ledger.judge(name, claim, false, problem, "");
        }
    }
}

fn over_link(
    on: &mut Bench<'_>,
    lab: &Lab,
    name: &'static str,
    silence_ns: u64,
    hand: &Hand<'_>,
) -> Result<(), String> {
    let (told, identity) = (Told::default(), on.rig.identities.deadman);
    let into = Arc::clone(&told);
    let key = keys::deadman(&lab.config.robot.name);
    let subscriber = subscribe(&lab.session, key, move |frame| {
        if let Ok(command) = command::decode(frame, identity) {
            let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
            into.push((clock::now(), command.mode == MODE_FOLLOW));
        }
    });
    let _subscriber = subscriber.map_err(|error| error.to_string())?;
    to_and_fro(on, name, &told, hand)?;
    // From the first frame to the last one that a hand was seen in.
    let frames = since(&told, 0);
    let gaps = frames.windows(2).map(|pair| {
        let stall_ns = on
            .canary
            .map_or(0, |canary| canary.stall_ns(pair[0].0, pair[1].0));
        pair[1].0.since_ns(pair[0].0).saturating_sub(stall_ns)
    });
    let longest_ns = gaps.max().unwrap_or(u64::MAX);
    on.ledger.judge(
        name,
        "it is never silent for as long as it may be",
        longest_ns < silence_ns,
        format!("{:.1} ms", longest_ns as f64 / 1e6),
        if silence_ns == SILENCE_NS {
            "100 ms"
        } else {
            "link_silence_ms"
        },
    );
    Ok(())
}

fn here(on: &mut Bench<'_>, name: &'static str, contact: &ContactConfig) -> Result<(), String> {
    let (told, ending) = (Told::default(), AtomicBool::new(false));
    let into = Arc::clone(&told);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            lines::tell(name, contact, PERIOD_NS, &ending, |at, closed| {
                let mut into = into.lock().unwrap_or_else(PoisonError::into_inner);
                into.push((at, closed));
            });
        });
        let judged = to_and_fro(on, name, &told, &Hand::Person);
        ending.store(true, Ordering::Relaxed);
        judged
    })
}

/// Open, closed, open: each is told, in time where no person's hand is waited for, and nothing else is.
fn to_and_fro(
    on: &mut Bench<'_>,
    name: &'static str,
    told: &Told,
    hand: &Hand<'_>,
) -> Result<(), String> {
    for (closes, claim, bound_ns, bound) in [
        (false, "that it is open is told", u64::MAX, ""),
        (true, "that it is closed is told", CLOSES_NS, "54 ms"),
        (false, "that it opens is told", OPENS_NS, "24 ms"),
    ] {
        let mark = since(told, 0).len();
        let from = hand.moves(name, closes)?;
        let until = from.plus_ns(hand.patience_ns());
        let mut first = None;
        while first.is_none() && clock::now() < until {
            demo::pause(2);
            let told = since(told, mark);
            first = told.iter().find(|(_, closed)| *closed == closes).copied();
        }
        let Some((at, _)) = first else {
            return Err(format!("expected {claim}, found nothing of it"));
        };
        let took_ns = at.since_ns(from);
        let stall_ns = on.canary.map_or(0, |canary| canary.stall_ns(from, at));
        let (in_time, bound) = match hand {
            Hand::Played(_) => (took_ns.saturating_sub(stall_ns) <= bound_ns, bound),
            Hand::Person => (true, ""),
        };
        let words = format!("after {:.1} ms", took_ns as f64 / 1e6);
        on.ledger.judge(name, claim, in_time, words, bound);
        demo::pause(QUIET_MS);
        let told = since(told, mark);
        let after = told.iter().skip_while(|(_, closed)| *closed != closes);
        let bounces = after.filter(|(_, closed)| *closed != closes).count();
        on.ledger.judge(
            name,
            "it stays so",
            bounces == 0,
            format!("{bounces} readings of the other"),
            "none",
        );
    }
    Ok(())
}
