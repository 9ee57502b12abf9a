// SPDX-License-Identifier: Apache-2.0
use super::opener::AGAIN_NS;
use super::*;
use crate::core::lines::{Coding, Wiring};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc;

/// What devices are, and what was done with them.
#[derive(Debug, Default)]
struct Desk {
    opened: AtomicUsize,
    closed: AtomicUsize,
    /// The deadman device was pulled.
    pulled: AtomicBool,
    let_go: AtomicBool,
}

/// A device of the desk.
struct Fake {
    desk: Arc<Desk>,
    is_deadman: bool,
    gone: bool,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.desk.closed.fetch_add(1, Ordering::SeqCst);
    }
}

impl Channels for Fake {
    fn levels(&mut self) -> [Option<bool>; CHANNELS_MAX] {
        self.gone |= self.is_deadman && self.desk.pulled.load(Ordering::SeqCst);
        let let_go = self.is_deadman && self.desk.let_go.load(Ordering::SeqCst);
        [(!self.gone).then_some(!let_go), None]
    }

    fn gone(&self) -> bool {
        self.gone
    }
}

const DEADMAN: &str = "deadman";

fn opens(desk: Arc<Desk>) -> impl FnMut(&Wire) -> Result<Device, String> + Send {
    move |wire| {
        desk.opened.fetch_add(1, Ordering::SeqCst);
        let is_deadman = matches!(wire, Wire::Evdev { device, .. } if device.ends_with(DEADMAN));
        if is_deadman && desk.pulled.load(Ordering::SeqCst) {
            return Err("nothing is there".to_owned());
        }
        Ok(Box::new(Fake {
            desk: Arc::clone(&desk),
            is_deadman,
            gone: false,
        }))
    }
}

fn both() -> LinesConfig {
    let contact = |device: &str, renewed| ContactConfig {
        wire: Wire::Evdev {
            device: device.into(),
            keys: Vec::new(),
        },
        wiring: Wiring {
            coding: Coding::Level,
            channels: 1,
            settle_ns: 20 * MS,
            apart_ns: 50 * MS,
            renewed,
        },
    };
    LinesConfig {
        emergency: Some(contact("emergency", false)),
        deadman: Some(contact(DEADMAN, true)),
    }
}

fn at(ms: u64) -> Mono {
    Mono(1_000 * MS + ms * MS)
}

const BOTH_CLOSED: Lines = Lines {
    emergency: EmergencyLine::Closed,
    deadman: Deadman::Held,
};

/// Reads each 2 ms from one time to another, and says what each reading came to.
fn read(reader: &mut Reader, from_ms: u64, to_ms: u64) -> Vec<Lines> {
    let readings = (from_ms..to_ms).step_by(2).map(|ms| {
        reader.round(at(ms));
        reader.wired.lines(at(ms))
    });
    readings.collect()
}

#[test]
fn the_thread_that_reads_opens_nothing_and_closes_nothing() {
    let desk = Arc::new(Desk::default());
    let count = |cell: &AtomicUsize| cell.load(Ordering::SeqCst);
    let mut opener = Opener::new(opens(Arc::clone(&desk)));
    let wired = Arc::new(Wired::new(&both()));
    let mut reader = Reader::new(&both(), &wired, &mut opener);
    read(&mut reader, 0, 20);
    assert_eq!(count(&desk.opened), 0);
    assert!(!wired.tried.load(Ordering::SeqCst), "nobody has looked yet");
    opener.round(at(20));
    assert_eq!(count(&desk.opened), 2);
    // Held all along, and told as that: whether it counts is the supervisor's.
    assert_eq!(read(&mut reader, 20, 60).last(), Some(&BOTH_CLOSED));
    assert!(wired.tried.load(Ordering::SeqCst));

    // Pulled: open at once. The device is closed, and looked for, by the other thread, and not again and again.
    desk.pulled.store(true, Ordering::SeqCst);
    let gone = read(&mut reader, 60, 100);
    let all = |of: &[Lines], emergency, deadman| {
        of.iter()
            .all(|lines| (lines.emergency, lines.deadman) == (emergency, deadman))
    };
    assert!(all(&gone, EmergencyLine::Closed, Deadman::Released));
    assert_eq!((count(&desk.opened), count(&desk.closed)), (2, 0));
    opener.round(at(100));
    assert_eq!((count(&desk.opened), count(&desk.closed)), (2, 1));
    opener.round(at(100).plus_ns(AGAIN_NS - 1));
    assert_eq!(count(&desk.opened), 2, "too soon");
    opener.round(at(100).plus_ns(AGAIN_NS));
    opener.round(at(100).plus_ns(AGAIN_NS + MS));
    assert_eq!(count(&desk.opened), 3, "looked for once");

    // Put back with the key held: nobody has pressed it.
    desk.pulled.store(false, Ordering::SeqCst);
    opener.round(at(100).plus_ns(2 * AGAIN_NS));
    assert_eq!(count(&desk.opened), 4);
    let back = read(&mut reader, 1_100, 1_200);
    assert!(all(&back, EmergencyLine::Closed, Deadman::Released));
    desk.let_go.store(true, Ordering::SeqCst);
    read(&mut reader, 1_200, 1_210);
    desk.let_go.store(false, Ordering::SeqCst);
    assert_eq!(
        read(&mut reader, 1_210, 1_240).last(),
        Some(&BOTH_CLOSED),
        "let go and pressed"
    );
    assert_eq!(count(&desk.closed), 1);
}

#[test]
fn while_one_device_takes_its_time_to_open_the_other_contact_is_read() {
    let (says, hears) = mpsc::channel();
    let (lets, waits) = mpsc::channel::<()>();
    let desk = Arc::new(Desk::default());
    let mut open = opens(Arc::clone(&desk));
    let mut opener = Opener::new(move |wire| {
        let opened = open(wire);
        if matches!(wire, Wire::Evdev { device, .. } if device.ends_with(DEADMAN)) {
            says.send(()).expect("heard");
            waits.recv().expect("let go on");
        }
        opened
    });
    let wired = Arc::new(Wired::new(&both()));
    let mut reader = Reader::new(&both(), &wired, &mut opener);
    let opening = std::thread::spawn(move || opener.round(at(0)));
    hears.recv().expect("it is being opened");
    // The start has waited long enough.
    wired.settled.store(true, Ordering::SeqCst);
    // For ten seconds, by the time that is passed in.
    let waiting = read(&mut reader, 0, 10_000);
    let settled = waiting.get(20..).expect("readings");
    assert!(
        settled
            .iter()
            .all(|lines| lines.emergency == EmergencyLine::Closed)
    );
    assert!(
        waiting
            .iter()
            .all(|lines| lines.deadman == Deadman::Released)
    );
    lets.send(()).expect("it waits");
    opening.join().expect("no panic");
    // Taped down, for all that is known: it must be let go once.
    let come = read(&mut reader, 10_000, 10_100);
    assert!(come.iter().all(|lines| lines.deadman == Deadman::Released));
    desk.let_go.store(true, Ordering::SeqCst);
    read(&mut reader, 10_100, 10_110);
    desk.let_go.store(false, Ordering::SeqCst);
    assert_eq!(read(&mut reader, 10_110, 10_150).last(), Some(&BOTH_CLOSED));
}
