// SPDX-License-Identifier: Apache-2.0
//! A service manager of our own: hears what systemd would hear, and does what it would do.

use crate::SILENCE_MS;
use crate::canary::told;
use crate::stage::{Setting, Stage, ended, locked, ms, over_again, repeats, signal, until};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tendon::core::units::{MS, Mono};
use tendon::link::keys;
use tendon::runtime::{clock, demo};

/// As the unit file has it.
pub const WATCHDOG_MS: u64 = 500;

/// What was said, and when.
pub type Heard = Arc<Mutex<Vec<(Mono, String)>>>;

fn listen(path: &Path) -> Heard {
    let socket = UnixDatagram::bind(path).expect("a socket");
    let heard = Heard::default();
    let into = Arc::downgrade(&heard);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let Some(into) = into.upgrade() else { return };
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            into.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((clock::now(), text));
        }
    });
    heard
}

pub fn times(heard: &Heard, word: &str) -> Vec<Mono> {
    locked(heard, |heard| {
        heard
            .iter()
            .filter(|(_, text)| text.lines().any(|line| line == word))
            .map(|(at, _)| *at)
            .collect()
    })
}

pub fn setting(folder: &Path, name: &str, drill: Option<&str>) -> (Setting, Heard) {
    let socket = folder.join(name);
    let heard = listen(&socket);
    let setting = Setting {
        drill: drill.map(str::to_owned),
        notify: Some((socket, WATCHDOG_MS * 1_000)),
        state: Some(folder.join("state")),
        ..Setting::default()
    };
    (setting, heard)
}

#[test]
fn ready_in_standby_pings_while_all_come_round_stopping_at_the_end() {
    over_again(|| {
        let folder = tempfile::tempdir().expect("a folder");
        let (setting, heard) = setting(folder.path(), "notify", None);
        let mut stage = Stage::new(&setting);
        let first = locked(&heard, |heard| heard[0].1.clone());
        assert_eq!(
            first.trim_end(),
            "READY=1\nSTATUS=standby",
            "the first word, before anything was armed"
        );
        until("the status follows the mode", || {
            !times(&heard, "STATUS=active").is_empty()
        });
        let from = clock::now();
        demo::pause(1_500);
        let pings = times(&heard, "WATCHDOG=1");
        let pings: Vec<Mono> = pings.into_iter().filter(|at| *at > from).collect();
        let gap_ns = pings
            .windows(2)
            .map(|pair| pair[1].since_ns(pair[0]))
            .max()
            .expect("pings");
        let stall_ns = stage.canary.stall_ns(from, clock::now());
        assert!(
            gap_ns < WATCHDOG_MS * MS + stall_ns,
            "{} ms between two pings",
            ms(gap_ns)
        );
        signal(&stage.runtime, "TERM");
        assert_eq!(ended(&mut stage.runtime, Duration::from_secs(6)), Some(0));
        assert_eq!(times(&heard, "STOPPING=1").len(), 1);
    });
}

#[test]
fn when_a_thread_hangs_the_pings_stop_and_the_restarted_service_stands_by() {
    told(|| {
        // Deadline of each thread, from the table.
        use tendon::runtime::threads as table;
        let rows = [
            table::GOVERNOR,
            table::WATCHDOG,
            table::INFERENCE,
            table::TELEMETRY,
        ];
        for spec in (0..repeats()).flat_map(|_| rows) {
            let folder = tempfile::tempdir().expect("a folder");
            let (hanging, heard) = setting(
                folder.path(),
                "notify",
                Some(&format!("hang:{}", spec.name)),
            );
            let mut stage = Stage::new(&hanging);
            let from = signal(&stage.runtime, "USR1");
            if spec.name == "governor" {
                stage.stopped_by_itself("hang of governor", from, SILENCE_MS);
            }
            let last = || {
                times(&heard, "WATCHDOG=1")
                    .last()
                    .copied()
                    .unwrap_or_default()
            };
            until("the pings stop", || {
                clock::now().since_ns(last()) > WATCHDOG_MS * MS
            });
            // A ping may leave until the stamp is too old, and a period of the thread is in it.
            let (took_ns, bound_ns) = (last().since_ns(from), spec.beat_age_max_ns + 150 * MS);
            let stall_ns = stage.canary.stall_ns(from, last());
            println!(
                "hang of {}: last ping after {:.0} ms (bound {:.0} ms)",
                spec.name,
                ms(took_ns),
                ms(bound_ns)
            );
            assert!(
                took_ns <= bound_ns + stall_ns,
                "{}: still pinged after {:.0} ms",
                spec.name,
                ms(took_ns)
            );
            let words = format!("thread {} has not come round", spec.name);
            assert!(locked(&heard, |heard| heard
                .iter()
                .any(|(_, text)| text.contains(&words))));
            assert_eq!(stage.crash().thread, spec.name);
            // What systemd does now.
            signal(&stage.runtime, "ABRT");
            assert_eq!(
                ended(&mut stage.runtime, Duration::from_secs(2)),
                Some(6),
                "SIGABRT"
            );
            drop(stage);
            let (mut again, heard) = setting(folder.path(), "again", None);
            again.no_arming = true;
            let mut stage = Stage::new(&again);
            until("ready again", || !times(&heard, "READY=1").is_empty());
            stage.until_granted(keys::instruction, "touch the red block");
            let answer = stage.ask(keys::mode, "active");
            assert!(
                answer.as_ref().is_err_and(|said| said.contains("crashed")),
                "{answer:?}"
            );
        }
    });
}
