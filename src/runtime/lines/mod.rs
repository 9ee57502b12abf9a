// SPDX-License-Identifier: Apache-2.0
//! Contacts that a person presses or holds, wired to this machine or told over the link: a thread reads them each 2 ms and
//! tells governor and watchdog. What cannot be read is open, and so is what this thread has not read lately. So it waits for
//! nothing: another thread opens what is to be read ([`Opener`]).
//!
//! A mirror, not a safety function: the robot's own emergency circuit must cut its power without this machine.

mod evdev;
mod gpio;
mod link;
mod opener;
#[cfg(test)]
mod tests;

use crate::config::lines::{ContactConfig, LinesConfig, Wire};
use crate::core::governor::{Deadman, EmergencyLine, Lines};
use crate::core::lines::{CHANNELS_MAX, Contact};
use crate::core::units::{MS, Mono};
use crate::core::wire::command::CommandReceiver;
use crate::core::wire::reject::Reject;
use crate::runtime::clock::{self, Ticks};
use crate::runtime::threads::Seat;
use link::Switch;
pub use opener::Opener;
use opener::{Device, Supply};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Between two readings: a stop is seen within this and a tick of the governor.
const PERIOD_NS: u64 = 2 * MS;
/// What was read longer ago is not believed: ten readings.
const AGE_MAX_NS: u64 = 20 * MS;
/// The thread's start.
const STARTING_NS: u64 = 100 * MS;
/// So long the devices' first opening is waited for.
const OPENING_NS: u64 = 2_000 * MS;

/// Reads the channels of one contact.
trait Channels: Send {
    /// Whether each is closed; `None` where that cannot be read. No more than the contact has.
    fn levels(&mut self) -> [Option<bool>; CHANNELS_MAX];
    /// Whether it must be opened anew.
    fn gone(&self) -> bool;
}

/// `switch`: where one that is told over the link is read.
fn open(wire: &Wire, switch: &Arc<Switch>) -> Result<Device, String> {
    match wire {
        Wire::Link { silence_ns } => Ok(Box::new(link::Far::new(switch, *silence_ns))),
        Wire::Gpio {
            lines,
            bias,
            active_low,
        } => gpio::Gpio::open(lines, *bias, *active_low).map(|gpio| Box::new(gpio) as _),
        Wire::Evdev { device, keys } => {
            evdev::Keys::open(device, keys).map(|keys| Box::new(keys) as _)
        }
    }
}

/// What the contacts say, for any thread. All open until the first reading.
#[derive(Debug)]
pub struct Wired {
    switch: Arc<Switch>,
    emergency: bool,
    deadman: bool,
    /// Each was tried to be opened, and read since.
    tried: AtomicBool,
    /// Nobody waits for that any more.
    settled: AtomicBool,
    /// When each was last read closed; 0: it is open.
    emergency_closed: AtomicU64,
    deadman_held: AtomicU64,
}

impl Wired {
    /// Those of a deployment.
    #[must_use]
    pub fn new(config: &LinesConfig) -> Wired {
        Wired {
            switch: Arc::default(),
            emergency: config.emergency.is_some(),
            deadman: config.deadman.is_some(),
            tried: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            emergency_closed: AtomicU64::new(0),
            deadman_held: AtomicU64::new(0),
        }
    }

    /// A frame of a switch that is told over the link.
    ///
    /// # Errors
    /// [`Reject`]; it is as if the frame had not come.
    pub fn hear(
        &self,
        receiver: &mut CommandReceiver,
        now: Mono,
        frame: &[u8],
    ) -> Result<(), Reject> {
        self.switch.hear(receiver, now, frame)
    }

    /// Waits until all are closed, or could have been told to be.
    pub fn settle(&self, config: &LinesConfig) {
        let all = config.emergency.iter().chain(&config.deadman);
        let longest_ns = all.map(|contact| contact.wiring.settles_within_ns()).max();
        let mut deadline = clock::now().plus_ns(OPENING_NS);
        let mut tried = false;
        loop {
            let now = clock::now();
            if !tried && self.tried.load(Ordering::Acquire) {
                tried = true;
                deadline = now.plus_ns(longest_ns.unwrap_or(0) + STARTING_NS);
            }
            let lines = self.lines(now);
            let open = lines.emergency == EmergencyLine::Open || lines.deadman == Deadman::Released;
            if !open || now >= deadline {
                // From here on what is not there is one that went away.
                self.settled.store(true, Ordering::Release);
                return;
            }
            clock::sleep_until(now.plus_ns(PERIOD_NS));
        }
    }

    /// What they say at `now`.
    #[must_use]
    pub fn lines(&self, now: Mono) -> Lines {
        let closed = |at: &AtomicU64| {
            let at = at.load(Ordering::Acquire);
            at != 0 && now.since_ns(Mono(at)) <= AGE_MAX_NS
        };
        let emergency = match (self.emergency, closed(&self.emergency_closed)) {
            (false, _) => EmergencyLine::NotFitted,
            (true, true) => EmergencyLine::Closed,
            (true, false) => EmergencyLine::Open,
        };
        let deadman = match (self.deadman, closed(&self.deadman_held)) {
            (false, _) => Deadman::NotFitted,
            (true, true) => Deadman::Held,
            (true, false) => Deadman::Released,
        };
        Lines { emergency, deadman }
    }
}

/// One contact and its device.
struct Watched {
    contact: Contact,
    supply: Supply,
    device: Option<Device>,
    /// When it was read last.
    closed: bool,
    /// Somebody was told that it is.
    faulty: bool,
}

impl Watched {
    fn new(name: &'static str, config: &ContactConfig, opener: &mut Opener) -> Watched {
        Watched {
            contact: Contact::new(config.wiring),
            supply: opener.supply(name, &config.wire),
            device: None,
            closed: false,
            faulty: false,
        }
    }

    fn read(&mut self, now: Mono, start: Start) -> bool {
        let tried = start == Start::Over || self.supply.tried();
        let levels = self.levels();
        if start == Start::Ends && !self.closed {
            // Told as open from now on, and closed later, it would have been pressed by nobody: it must be seen open first.
            self.judge(now, [None; CHANNELS_MAX]);
        }
        // Before that, a device that nobody has looked for yet is none that went away: a switch that is held all along is told as that.
        self.closed = (tried || self.device.is_some()) && self.judge(now, levels);
        self.closed
    }

    fn levels(&mut self) -> [Option<bool>; CHANNELS_MAX] {
        if self.device.is_none() {
            self.device = self.supply.take();
        }
        let Some(device) = &mut self.device else {
            return [None; CHANNELS_MAX];
        };
        let levels = device.levels();
        if device.gone()
            && let Some(device) = self.device.take()
        {
            self.supply.give_back(device);
        }
        levels
    }

    fn judge(&mut self, now: Mono, levels: [Option<bool>; CHANNELS_MAX]) -> bool {
        let closed = self.contact.read(now, levels);
        if self.contact.faulty() && !self.faulty {
            self.supply.disagree();
        }
        self.faulty = self.contact.faulty();
        closed
    }
}

/// What of the deployment's contacts cannot be read, a line each; for `tendon doctor`.
#[must_use]
pub fn unreadable(config: &LinesConfig) -> Vec<String> {
    let all = [
        ("emergency", config.emergency.as_ref()),
        ("deadman", config.deadman.as_ref()),
    ];
    let wired = all
        .into_iter()
        .filter_map(|(name, contact)| Some((name, contact?)));
    wired
        // Whether one is told over the link is seen once it is listened to.
        .filter(|(_, contact)| !matches!(contact.wire, Wire::Link { .. }))
        .filter_map(|(name, contact)| {
            let why = match open(&contact.wire, &Arc::default()) {
                Err(why) => why,
                Ok(mut channels) => {
                    let levels = channels.levels();
                    let read = levels.iter().take(contact.wiring.channels);
                    if read.copied().all(|level| level.is_some()) {
                        return None;
                    }
                    "opened, and cannot be read".to_owned()
                }
            };
            Some(format!("lines.{name}: {why}"))
        })
        .collect()
}

/// The thread that reads.
pub struct Reader {
    emergency: Option<Watched>,
    deadman: Option<Watched>,
    wired: Arc<Wired>,
    /// As it was in the last round.
    settled: bool,
}

/// The time in which devices are waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// They are.
    Lasts,
    /// Nobody waits any more, from this round on.
    Ends,
    /// Since an earlier one.
    Over,
}

impl Reader {
    fn new(config: &LinesConfig, wired: &Arc<Wired>, opener: &mut Opener) -> Reader {
        let mut watched = |name: &'static str, contact: Option<&ContactConfig>| {
            contact.map(|contact| Watched::new(name, contact, opener))
        };
        Reader {
            emergency: watched("emergency", config.emergency.as_ref()),
            deadman: watched("deadman", config.deadman.as_ref()),
            wired: Arc::clone(wired),
            settled: false,
        }
    }

    fn round(&mut self, now: Mono) {
        let mut tried = true;
        let settled = self.wired.settled.load(Ordering::Acquire);
        let start = match (std::mem::replace(&mut self.settled, settled), settled) {
            (false, false) => Start::Lasts,
            (false, true) => Start::Ends,
            (true, _) => Start::Over,
        };
        for (contact, cell) in [
            (&mut self.emergency, &self.wired.emergency_closed),
            (&mut self.deadman, &self.wired.deadman_held),
        ] {
            if let Some(contact) = contact {
                tried &= contact.supply.tried();
                let closed = contact.read(now, start);
                cell.store(if closed { now.0 } else { 0 }, Ordering::Release);
            }
        }
        // After what was read: who sees this sees that.
        self.wired.tried.store(tried, Ordering::Release);
    }

    /// The thread.
    pub fn run(mut self, ending: &AtomicBool, seat: &Seat) {
        let mut ticks = Ticks::new(clock::now(), PERIOD_NS);
        while !ending.load(Ordering::Relaxed) {
            let now = ticks.wait().woke;
            seat.beat.mark(now);
            self.round(now);
        }
    }
}

/// The two threads of a deployment's contacts: who reads them, and who opens what is read.
#[must_use]
pub fn parts(config: &LinesConfig, wired: &Arc<Wired>) -> (Reader, Opener) {
    let switch = Arc::clone(&wired.switch);
    let mut opener = Opener::new(move |wire| open(wire, &switch));
    let reader = Reader::new(config, wired, &mut opener);
    (reader, opener)
}

/// Reads a contact of this machine each `period_ns` until `ending`, and says of each reading whether it is closed: not where that
/// is not known, and not before it was seen open once. Whoever listens must not take a switch that nobody has touched for one
/// that was let go.
pub fn tell(
    name: &'static str,
    config: &ContactConfig,
    period_ns: u64,
    ending: &AtomicBool,
    mut say: impl FnMut(Mono, bool),
) {
    let mut opener = Opener::new(|wire| open(wire, &Arc::default()));
    let mut watched = Watched::new(name, config, &mut opener);
    let mut ticks = Ticks::new(clock::now(), period_ns);
    let mut touched = false;
    while !ending.load(Ordering::Relaxed) {
        let now = ticks.wait().woke;
        // Only this contact waits for its device here, and whoever hears nothing of it takes it for open.
        opener.round(now);
        let levels = watched.levels();
        let closed = watched.judge(now, levels);
        let wired = &levels[..config.wiring.channels.clamp(1, CHANNELS_MAX)];
        touched |= wired.iter().all(|level| *level == Some(false));
        if touched && wired.iter().all(Option::is_some) {
            say(now, closed);
        }
    }
}
