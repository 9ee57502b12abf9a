// SPDX-License-Identifier: Apache-2.0
//! A contact that a person holds or presses, as one or two wires tell it: closed, or not to be trusted.
//!
//! What stops is believed at once, what releases only when it lasts: a contact is open with the first reading in which any
//! channel is open or cannot be read, and closed when every channel has been for as long as it takes to settle. Two
//! channels that disagree for longer than a contact takes to move are a broken wire or a welded contact: open, until both
//! have been seen open together (the re-test of safety relays, EN ISO 13849-1 on two-channel inputs). A pulsed channel is
//! closed while it keeps changing at the rate it should: a wire that is stuck, at either level, is open.
//!
//! A switch that a person holds ([`Wiring::renewed`]) and that could not be read must be seen open before it counts again:
//! what comes back closed was plugged in, not pressed.

use crate::core::units::Mono;

/// Channels of a contact at most.
pub const CHANNELS_MAX: usize = 2;
/// Half periods that a pulsed channel must have kept to before it counts as closed.
const PULSES: u32 = 4;

/// How a contact tells that it is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// By the level of each channel.
    Level,
    /// By a level that changes: each half period within these times.
    Pulsed {
        /// Shortest half period.
        min_ns: u64,
        /// Longest half period.
        max_ns: u64,
    },
}

/// What is known of a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// See [`Coding`].
    pub coding: Coding,
    /// Channels: 1 or 2.
    pub channels: usize,
    /// It must be closed for so long to count as closed.
    pub settle_ns: u64,
    /// Two channels may disagree for so long.
    pub apart_ns: u64,
    /// Once it could not be read, it must be read open before it is closed again.
    pub renewed: bool,
}

impl Wiring {
    /// A contact that is closed all the time is told to be within this.
    #[must_use]
    pub fn settles_within_ns(&self) -> u64 {
        match self.coding {
            Coding::Level => self.settle_ns,
            // The half period in which it is read first is not seen whole.
            Coding::Pulsed { max_ns, .. } => self
                .settle_ns
                .saturating_add(max_ns.saturating_mul(u64::from(PULSES) + 2)),
        }
    }
}

/// One contact, read again and again. See the module's text.
#[derive(Clone, Copy, Debug)]
pub struct Contact {
    wiring: Wiring,
    closed_since: Option<Mono>,
    apart_since: Option<Mono>,
    /// The channels have disagreed for too long and were not seen open together since.
    faulty: bool,
    /// It could not be read and was not seen open since.
    lost: bool,
    pulse: Pulse,
}

/// A pulsed channel.
#[derive(Clone, Copy, Debug, Default)]
struct Pulse {
    level: Option<bool>,
    /// When its level was first read or last changed.
    since: Option<Mono>,
    /// When it was last read.
    seen: Option<Mono>,
    /// Its level was seen to be the same since.
    still_since: Option<Mono>,
    /// The half period that now passes began with a change that was seen.
    whole: bool,
    good: u32,
}

impl Contact {
    /// A contact that was never read: open.
    #[must_use]
    pub fn new(wiring: Wiring) -> Contact {
        Contact {
            wiring,
            closed_since: None,
            apart_since: None,
            faulty: false,
            lost: false,
            pulse: Pulse::default(),
        }
    }

    /// Takes a reading of each channel, `None` where it could not be read, and tells whether the contact is closed.
    pub fn read(&mut self, now: Mono, levels: [Option<bool>; CHANNELS_MAX]) -> bool {
        let [first, second] = levels;
        let closed = match (self.wiring.coding, self.wiring.channels) {
            (Coding::Pulsed { min_ns, max_ns }, _) => self.pulse.read(now, first, min_ns, max_ns),
            (Coding::Level, 0 | 1) => first == Some(true),
            (Coding::Level, _) => self.both(now, first, second),
        };
        let mut wired = levels.iter().take(self.wiring.channels.max(1));
        if wired.clone().any(Option::is_none) {
            self.lost = self.wiring.renewed;
        } else {
            self.lost &= !match self.wiring.coding {
                Coding::Level => wired.all(|level| *level == Some(false)),
                Coding::Pulsed { max_ns, .. } => self.pulse.still(now, max_ns),
            };
        }
        if !closed || self.lost {
            self.closed_since = None;
            return false;
        }
        let since = *self.closed_since.get_or_insert(now);
        now.since_ns(since) >= self.wiring.settle_ns
    }

    /// Whether its channels have disagreed for too long; a person must open it wholly.
    #[must_use]
    pub fn faulty(&self) -> bool {
        self.faulty
    }

    fn both(&mut self, now: Mono, first: Option<bool>, second: Option<bool>) -> bool {
        if first == second && first.is_some() {
            self.apart_since = None;
            self.faulty &= first == Some(true);
        } else {
            let since = *self.apart_since.get_or_insert(now);
            self.faulty |= now.since_ns(since) > self.wiring.apart_ns;
        }
        first == Some(true) && second == Some(true) && !self.faulty
    }
}

impl Pulse {
    fn read(&mut self, now: Mono, level: Option<bool>, min_ns: u64, max_ns: u64) -> bool {
        let Some(level) = level else {
            *self = Pulse::default();
            return false;
        };
        // What was not looked at for a half period may have changed twice.
        let looked = self.seen.replace(now);
        let blind = looked.is_none_or(|seen| now.since_ns(seen) >= min_ns);
        if blind || self.level != Some(level) {
            self.still_since = Some(now);
        }
        let since_ns = now.since_ns(*self.since.get_or_insert(now));
        if self.level.replace(level) == Some(!level) {
            // The first change begins a half period and ends none that was seen whole.
            let good = self.whole && (min_ns..=max_ns).contains(&since_ns);
            self.good = if good { self.good.saturating_add(1) } else { 0 };
            (self.since, self.whole) = (Some(now), true);
        } else if since_ns > max_ns {
            (self.good, self.whole) = (0, false);
        }
        self.good >= PULSES
    }

    /// Whether its level was read and does not change.
    fn still(&self, now: Mono, max_ns: u64) -> bool {
        self.still_since
            .is_some_and(|since| now.since_ns(since) > max_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::units::MS;
    use proptest::prelude::*;

    const ONE: Wiring = Wiring {
        coding: Coding::Level,
        channels: 1,
        settle_ns: 20 * MS,
        apart_ns: 50 * MS,
        renewed: false,
    };
    const TWO: Wiring = Wiring { channels: 2, ..ONE };
    const PULSED: Wiring = Wiring {
        coding: Coding::Pulsed {
            min_ns: 8 * MS,
            max_ns: 14 * MS,
        },
        settle_ns: 0,
        ..ONE
    };
    const CLOSED: Option<bool> = Some(true);
    const OPEN: Option<bool> = Some(false);

    fn at(ms: u64) -> Mono {
        Mono(1_000 * MS + ms * MS)
    }

    #[test]
    fn one_that_is_closed_all_the_time_is_told_so_in_time() {
        for wiring in [ONE, TWO, PULSED] {
            let mut contact = Contact::new(wiring);
            let within = wiring.settles_within_ns() / MS;
            let wave = |ms: u64| match wiring.coding {
                Coding::Level => CLOSED,
                Coding::Pulsed { .. } => Some(ms / 13 % 2 == 1),
            };
            let told = (0..=within).any(|ms| contact.read(at(ms), [wave(ms); 2]));
            assert!(told, "{wiring:?} within {within} ms");
        }
    }

    #[test]
    fn it_opens_at_once_and_closes_when_it_has_lasted() {
        let mut contact = Contact::new(ONE);
        let closed: Vec<bool> = (0..30)
            .map(|ms| contact.read(at(ms), [CLOSED, None]))
            .collect();
        assert!(
            closed[..20].iter().all(|closed| !closed) && closed[20..].iter().all(|closed| *closed)
        );
        assert!(!contact.read(at(30), [OPEN, None]));
        assert!(!contact.read(at(31), [CLOSED, None]), "it bounces");
        assert!(!contact.read(at(50), [CLOSED, None]));
        assert!(contact.read(at(51), [CLOSED, None]));
        assert!(
            !contact.read(at(52), [None, None]),
            "a wire that cannot be read is cut"
        );
    }

    #[test]
    fn a_switch_that_comes_back_closed_must_be_let_go_once() {
        for channels in [1, 2] {
            let mut contact = Contact::new(Wiring {
                channels,
                renewed: true,
                ..ONE
            });
            let mut read = |ms, level| contact.read(at(ms), [level; 2]);
            assert!(!read(0, CLOSED) && read(20, CLOSED));
            assert!(!read(950, None) && !read(951, CLOSED) && !read(2_000, CLOSED));
            assert!(!read(2_010, OPEN) && !read(2_020, CLOSED) && read(2_040, CLOSED));
        }
        let mut contact = Contact::new(Wiring {
            renewed: true,
            ..PULSED
        });
        let held = |contact: &mut Contact, ms: std::ops::Range<u64>, half_ms| -> Vec<bool> {
            let wave = |ms: u64| [Some(ms / half_ms % 2 == 1), None];
            ms.map(|ms| contact.read(at(ms), wave(ms))).collect()
        };
        assert_eq!(held(&mut contact, 0..100, 10).last(), Some(&true));
        assert!(!contact.read(at(100), [None; 2]));
        assert!(
            !held(&mut contact, 101..300, 10).contains(&true),
            "it came back by itself"
        );
        // Nobody looked for a while, and the level is the same again.
        assert!(
            !held(&mut contact, 350..450, 10).contains(&true),
            "not looked at is not let go"
        );
        assert!(!held(&mut contact, 450..550, 1_000).contains(&true));
        assert_eq!(held(&mut contact, 550..650, 10).last(), Some(&true));
    }

    #[test]
    fn two_channels_that_disagree_are_open_until_both_were_open() {
        let mut contact = Contact::new(TWO);
        let mut read = |ms, levels| (contact.read(at(ms), levels), contact.faulty());
        assert_eq!(read(0, [CLOSED, CLOSED]), (false, false));
        assert_eq!(read(20, [CLOSED, CLOSED]), (true, false));
        // One contact moves before the other: no fault, but open.
        assert_eq!(read(30, [CLOSED, OPEN]), (false, false));
        assert_eq!(read(60, [OPEN, OPEN]), (false, false));
        assert_eq!(read(100, [CLOSED, CLOSED]), (false, false));
        assert_eq!(read(120, [CLOSED, CLOSED]), (true, false));
        // A wire breaks.
        assert_eq!(read(130, [CLOSED, OPEN]), (false, false));
        assert_eq!(read(181, [CLOSED, OPEN]), (false, true));
        assert_eq!(
            read(190, [CLOSED, CLOSED]),
            (false, true),
            "it came back by itself"
        );
        assert_eq!(read(900, [CLOSED, CLOSED]), (false, true));
        assert_eq!(read(910, [OPEN, OPEN]), (false, false));
        assert_eq!(read(920, [CLOSED, CLOSED]), (false, false));
        assert_eq!(read(940, [CLOSED, CLOSED]), (true, false));
        assert_eq!(read(950, [None, CLOSED]), (false, false));
        assert_eq!(read(1_010, [None, CLOSED]), (false, true));
    }

    #[test]
    fn a_pulsed_channel_that_is_stuck_or_too_fast_is_open() {
        let mut contact = Contact::new(PULSED);
        let wave = |ms: u64, half_ms: u64| [Some(ms / half_ms % 2 == 1), None];
        let closed: Vec<bool> = (0..100)
            .map(|ms| contact.read(at(ms), wave(ms, 10)))
            .collect();
        assert!(
            !closed[..50].contains(&true) && !closed[50..].contains(&false),
            "{closed:?}"
        );
        // Stuck, at whichever level it was.
        let stuck: Vec<bool> = (100..200)
            .map(|ms| contact.read(at(ms), wave(99, 10)))
            .collect();
        assert!(stuck[4] && !stuck[5..].contains(&true), "{stuck:?}");
        let fast: Vec<bool> = (200..400)
            .map(|ms| contact.read(at(ms), wave(ms, 4)))
            .collect();
        assert!(!fast.contains(&true));
        let slow: Vec<bool> = (400..800)
            .map(|ms| contact.read(at(ms), wave(ms, 20)))
            .collect();
        assert!(!slow.contains(&true));
    }

    proptest! {
        /// Whatever came before: a reading with a channel that is not closed is open, and no contact is closed that was
        /// not closed on all its channels for the time it takes to settle.
        #[test]
        fn never_closed_without_reason(
            readings in proptest::collection::vec((0_u64..40, proptest::option::of(any::<bool>()), proptest::option::of(any::<bool>())), 1..200),
        ) {
            let mut contact = Contact::new(TWO);
            let (mut now, mut good_since) = (at(0), None);
            for (ms, first, second) in readings {
                now = now.plus_ns(ms * MS);
                let good = first == CLOSED && second == CLOSED;
                good_since = if good { good_since.or(Some(now)) } else { None };
                if contact.read(now, [first, second]) {
                    prop_assert!(good_since.is_some_and(|since| now.since_ns(since) >= TWO.settle_ns));
                    prop_assert!(!contact.faulty());
                }
            }
        }
    }
}
