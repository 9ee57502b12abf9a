// SPDX-License-Identifier: Apache-2.0
//! Threads that panic although nothing on the robot waits for them, and threads that somebody else keeps from the processor.

use crate::canary::told;
use crate::isolation::apart;
use crate::lines::Panel;
use crate::service::{self, times};
use crate::stage::{Setting, Stage, locked, repeats};
use crate::{SILENCE_MS, TICK_MS, WATCH_MS, panic_of};
use std::process::{Child, Command};
use tendon::core::units::{MS, Mono};
use tendon::link::keys;
use tendon::runtime::{clock, demo, realtime, threads};

/// Whatever thread it is in: nobody knows what it left half done. The stop does not wait for the record.
#[test]
fn a_panic_of_any_other_thread_is_a_latched_stop_and_the_process_stays_up() {
    told(|| {
        let others = [
            "telemetry",
            "ferry",
            "lines",
            "opener",
            "health",
            "memory",
            "service",
        ];
        for thread in (0..repeats()).flat_map(|_| others) {
            let folder = tempfile::tempdir().expect("a folder");
            // They play what they play until the stage ends.
            let (mut panel, mut heard) = (None, None);
            let setting = match thread {
                "ferry" => Setting {
                    edits: vec![apart()],
                    ..Setting::default()
                },
                "lines" | "opener" => Setting {
                    no_arming: false,
                    ..panel.insert(Panel::new()).emergency()
                },
                "service" => {
                    let (setting, hears) = service::setting(folder.path(), "notify", None);
                    heard = Some(hears);
                    setting
                }
                _ => Setting::default(),
            };
            let mut stage = Stage::new(&Setting {
                drill: Some(format!("panic:{thread}")),
                ..setting
            });
            let from = panic_of(&stage, thread);
            stage.held_within(&format!("panic of {thread}"), from, WATCH_MS + 2 * TICK_MS);
            stage.stays_latched();
            assert!(
                matches!(stage.runtime.try_wait(), Ok(None)),
                "{thread}: the process stays up"
            );
            stage.within_limits();
            if let Some(heard) = heard {
                demo::pause(2 * service::WATCHDOG_MS);
                let pings = times(&heard, "WATCHDOG=1");
                let in_time = |at: &Mono| *at < from.plus_ns(100 * MS);
                let (before, after): (Vec<Mono>, Vec<Mono>) = pings.into_iter().partition(in_time);
                assert!(!before.is_empty(), "nothing was heard before it either");
                assert!(
                    after.is_empty(),
                    "somebody else pings for the thread that ended"
                );
            }
        }
    });
}

/// Above every thread of ours, below the canaries, who then see the machine and not this.
const HOG_FIFO: i32 = 88;
const _: () = assert!(HOG_FIFO > threads::WATCHDOG.fifo);
const HOG_MS: u64 = 50;

/// Keeps `core` for itself; from when to when.
fn hog(core: usize) -> (Mono, Mono) {
    let hog = std::thread::spawn(move || {
        let seat = realtime::take_seat(HOG_FIFO, &[core]);
        assert_eq!((seat.fifo, &*seat.cores), (HOG_FIFO, &[core][..]));
        let from = clock::now();
        while clock::now() < from.plus_ns(HOG_MS * MS) {
            std::hint::spin_loop();
        }
        (from, clock::now())
    });
    hog.join().expect("no panic")
}

/// All threads that it has, and those that they start.
fn keep_to(child: &Child, core: usize) -> bool {
    let kept = Command::new("taskset")
        .args(["-a", "-c", "-p", &core.to_string(), &child.id().to_string()])
        .output();
    kept.is_ok_and(|kept| kept.status.success())
}

/// The motor controller is hardware of its own: here it has another core than the runtime.
#[test]
fn threads_that_get_no_processor_are_a_stop_at_the_motor_and_make_nothing_up() {
    told(|| {
        let [ours, theirs, ..] = realtime::take_seat(0, &[]).cores[..] else {
            println!("SKIPPED: a FIFO hog: needs two cores");
            return;
        };
        let may = std::thread::spawn(|| realtime::take_seat(HOG_FIFO, &[]).fifo == HOG_FIFO);
        if !may.join().expect("no panic") {
            println!("SKIPPED: a FIFO hog: its priority is not granted to this user");
            return;
        }
        let mut stage = Stage::new(&Setting::default());
        if !keep_to(&stage.runtime, ours) || !keep_to(&stage.bench, theirs) {
            println!("SKIPPED: a FIFO hog: needs taskset");
            return;
        }
        for _ in 0..repeats() {
            let (from, to) = hog(ours);
            stage.stopped_by_itself("no processor for 50 ms", from, SILENCE_MS);
            let sent = |from: Mono, to: Mono| {
                locked(&stage.commands, |commands| {
                    let inside = |at: Mono| at > from && at < to;
                    commands.iter().filter(|sent| inside(sent.at)).count() as u64
                })
            };
            assert_eq!(sent(from, to), 0, "the core was not kept from it");
            // Ten periods were missed; what comes then is one command a period again.
            let after = sent(to, to.plus_ns(HOG_MS * MS));
            println!("{after} commands in the {HOG_MS} ms after it");
            assert!(after > 0, "{}", stage.log());
            assert!(after <= HOG_MS / TICK_MS + 2, "what was missed is made up");
            stage.stays_latched();
            stage.within_limits();
            stage.until_granted(keys::mode, "reset");
            stage.arm();
        }
    });
}
