// SPDX-License-Identifier: Apache-2.0
//! Who proposes: the policy, a pose that somebody asked for, or a person's device over the link. Set at the desk, read
//! by control; the governor treats all alike.
//!
//! A person's device sends command frames (docs/wire.md) under the takeover key. They count only while a takeover was
//! asked for, and only from the moment at which one lies where the robot is: a device that is held elsewhere does not
//! make the robot jump, it is brought to the robot first. A device that falls silent is a deadman switch let go.

use crate::core::action::Setpoint;
use crate::core::governor::{Deadman, Lines};
use crate::core::units::{MS, Mono};
use crate::core::wire::Identity;
use crate::core::wire::command::{CommandReceiver, START_TOLERANCE};
use crate::core::wire::reject::Reject;
use crate::runtime::lines::Wired;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use triple_buffer::triple_buffer;

/// A setpoint of a person's device is followed for so long; then the device has fallen silent.
const SILENCE_NS: u64 = 100 * MS;
/// So long may a person take to bring the device to where the robot is; meanwhile the robot holds.
const PATIENCE_NS: u64 = 5_000 * MS;

/// A device is followed so far behind. What is late by less is not felt; a person feels no delay that short.
const PLAYOUT_NS: u64 = 40 * MS;
/// So many of its setpoints are kept, about [`APART_NS`] from each other: more than are played within [`PLAYOUT_NS`].
const SHOWN: usize = 12;
const APART_NS: u64 = 5 * MS;

/// Who proposes.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::large_enum_variant)] // Copied from cell to cell; a box would be an allocation.
pub enum Driver {
    /// The policy's chunks.
    #[default]
    Policy,
    /// Nobody: the robot holds.
    Nobody,
    /// A pose, as fast as the governor allows.
    Pose(Setpoint),
    /// A person's device, once it was where the robot is.
    Device(Option<Hand>),
}

/// What a device showed last, oldest first, with when each was shown on this machine's clock. It is followed
/// a moment behind, evenly from one to the next by when they were shown: a device is slower than control and
/// comes over a link that is late now and then, and its frames as they come would be a staircase.
#[derive(Clone, Copy, Debug)]
pub struct Hand {
    shown: [(Mono, Setpoint); SHOWN],
    heard: Mono,
}

impl Hand {
    /// The device was heard first.
    fn first(to: Setpoint, heard: Mono) -> Hand {
        Hand {
            shown: [(heard, to); SHOWN],
            heard,
        }
    }

    /// It was heard again; `late_ns`: how much longer than the fastest frame this one was on its way.
    fn next(mut self, to: Setpoint, heard: Mono, late_ns: u64) -> Hand {
        let at = Mono(heard.0.saturating_sub(late_ns));
        let [.., (before, _), (newest, last)] = &mut self.shown;
        if at.since_ns(*before) < APART_NS {
            (*newest, *last) = (at.max(*newest), to);
        } else {
            let at = at.max(*newest);
            self.shown.rotate_left(1);
            self.shown[SHOWN - 1] = (at, to);
        }
        self.heard = heard;
        self
    }

    fn at(&self, now: Mono) -> Setpoint {
        let then = Mono(now.0.saturating_sub(PLAYOUT_NS));
        let mut steps = self.shown.windows(2);
        let Some([(from_at, from), (to_at, to)]) = steps.find(|step| then < step[1].0) else {
            return self.shown[SHOWN - 1].1;
        };
        if then <= *from_at {
            return *from;
        }
        let between_ns = to_at.since_ns(*from_at);
        let share = then.since_ns(*from_at) as f64 / between_ns as f64;
        let mut on_the_way = *to;
        let slots = on_the_way.position.iter_mut().zip(&mut on_the_way.velocity);
        for ((q, v), (from, to)) in slots.zip(from.position.iter().zip(&to.position)) {
            *q = from + share * (to - from);
            *v = (to - from) / (between_ns as f64 * 1e-9);
        }
        on_the_way
    }
}

impl Driver {
    /// What it proposes at `now`; `None` if nothing.
    #[must_use]
    pub fn wish(&self, now: Mono) -> Option<Setpoint> {
        match self {
            Driver::Policy | Driver::Nobody | Driver::Device(None) => None,
            Driver::Pose(pose) => Some(*pose),
            Driver::Device(Some(hand)) => {
                (now.since_ns(hand.heard) <= SILENCE_NS).then(|| hand.at(now))
            }
        }
    }
}

/// Where it is set.
#[derive(Debug)]
pub struct Wheel {
    inner: Mutex<Inner>,
    /// When the device must be heard again at the latest; 0 while none is waited for.
    device_due: AtomicU64,
    /// Contacts wired to this machine.
    wired: Option<Arc<Wired>>,
}

#[derive(Debug)]
struct Inner {
    driver: Driver,
    cell: triple_buffer::Input<Driver>,
    receiver: CommandReceiver,
}

impl Wheel {
    /// A wheel that the policy holds, and control's view of it. `takeover`: the identity of the device's frames.
    #[must_use]
    pub fn new(takeover: Identity) -> (Wheel, triple_buffer::Output<Driver>) {
        let (cell, out) = triple_buffer(&Driver::Policy);
        let inner = Inner {
            driver: Driver::Policy,
            cell,
            receiver: CommandReceiver::new(takeover),
        };
        let wheel = Wheel {
            inner: Mutex::new(inner),
            device_due: AtomicU64::new(0),
            wired: None,
        };
        (wheel, out)
    }

    /// The same where contacts are wired to this machine.
    #[must_use]
    pub fn beside(mut self, wired: Arc<Wired>) -> Wheel {
        self.wired = Some(wired);
        self
    }

    /// Who has it.
    #[must_use]
    pub fn driver(&self) -> Driver {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .driver
    }

    /// Gives the wheel to somebody.
    pub fn give(&self, now: Mono, driver: Driver) {
        let due = match driver {
            Driver::Device(None) => now.plus_ns(PATIENCE_NS).0,
            // Given back to who had it: it has been waited for already.
            Driver::Device(Some(hand)) => hand.heard.plus_ns(SILENCE_NS).0,
            _ => 0,
        };
        self.device_due.store(due, Ordering::Release);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.driver = driver;
        inner.cell.write(driver);
    }

    /// Takes a frame of a person's device. `at`: where the robot was last sent.
    ///
    /// # Errors
    /// [`Reject`]; [`Reject::AwayFromPose`] while the device is not where the robot is.
    pub fn hear(&self, now: Mono, frame: &[u8], at: Option<&Setpoint>) -> Result<(), Reject> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (command, _) = inner.receiver.accept(now, frame)?;
        let late_ns = inner.receiver.late_ns(now, command.sent);
        let Driver::Device(last) = inner.driver else {
            // Nobody asked for a takeover: heard, and left alone.
            return Ok(());
        };
        if last.is_none() && !at.is_some_and(|at| near(at, &command.setpoint)) {
            return Err(Reject::AwayFromPose);
        }
        self.device_due
            .store(now.plus_ns(SILENCE_NS).0, Ordering::Release);
        let hand = match last {
            Some(hand) => hand.next(command.setpoint, now, late_ns),
            None => Hand::first(command.setpoint, now),
        };
        inner.driver = Driver::Device(Some(hand));
        let driver = inner.driver;
        inner.cell.write(driver);
        Ok(())
    }

    /// The lines that a person holds: while a device drives, its sending is a deadman switch, beside one that is wired.
    #[must_use]
    pub fn lines(&self, now: Mono) -> Lines {
        let wired = self.wired.as_ref();
        let wired = wired.map_or(Lines::NOT_FITTED, |wired| wired.lines(now));
        let device = match self.device_due.load(Ordering::Acquire) {
            0 => Deadman::NotFitted,
            due if now <= Mono(due) => Deadman::Held,
            _ => Deadman::Released,
        };
        let deadman = match (device, wired.deadman) {
            (Deadman::NotFitted, one) | (one, Deadman::NotFitted) => one,
            (Deadman::Held, Deadman::Held) => Deadman::Held,
            (Deadman::Released, _) | (_, Deadman::Released) => Deadman::Released,
        };
        Lines { deadman, ..wired }
    }
}

/// Whether two setpoints are near enough for one to go on from the other.
fn near(one: &Setpoint, two: &Setpoint) -> bool {
    one.joints == two.joints
        && one
            .position
            .iter()
            .zip(&two.position)
            .take(one.joints)
            .all(|(a, b)| (a - b).abs() <= START_TOLERANCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::chunk::Provenance;
    use crate::core::wire::command::{self, COMMAND_LEN_MAX, Command, MODE_FOLLOW};

    const TAKEOVER: Identity = Identity {
        data_id: 7,
        schema: 9,
    };

    fn frame(counter: u32, now: Mono, position: &[f64]) -> Vec<u8> {
        let command = Command {
            counter,
            epoch: 3,
            sent: now,
            valid_for_us: 50_000,
            mode: MODE_FOLLOW,
            verdict: 0,
            action: 0,
            provenance: Provenance::default(),
            setpoint: Setpoint::at_rest(position),
            tool: None,
        };
        let mut frame = [0; COMMAND_LEN_MAX];
        let length = command::encode(&command, TAKEOVER, &mut frame).expect("room");
        frame[..length].to_vec()
    }

    #[test]
    fn a_device_drives_only_when_asked_for_and_from_where_the_robot_is() {
        let (wheel, mut out) = Wheel::new(TAKEOVER);
        let at = Setpoint::at_rest(&[0.5, 0.0]);
        let t = |ms: u64| Mono((1_000 + ms) * MS);
        assert_eq!(
            wheel.hear(t(0), &frame(1, t(0), &[0.5, 0.0]), Some(&at)),
            Ok(())
        );
        assert!(
            out.read().wish(t(0)).is_none(),
            "nobody asked for a takeover"
        );
        assert_eq!(wheel.lines(t(0)).deadman, Deadman::NotFitted);

        wheel.give(t(10), Driver::Device(None));
        assert_eq!(wheel.lines(t(10)).deadman, Deadman::Held);
        let away = wheel.hear(t(20), &frame(2, t(20), &[0.6, 0.0]), Some(&at));
        assert_eq!(away, Err(Reject::AwayFromPose));
        assert!(
            out.read().wish(t(20)).is_none(),
            "a device held elsewhere does not move the robot"
        );
        assert_eq!(
            wheel.hear(t(30), &frame(3, t(30), &[0.52, 0.01]), Some(&at)),
            Ok(())
        );
        assert_eq!(
            out.read().wish(t(30)).map(|wish| wish.position[0]),
            Some(0.52)
        );
        assert_eq!(
            wheel.hear(t(40), &frame(4, t(40), &[0.9, 0.0]), Some(&at)),
            Ok(())
        );
        let way = [60, 75, 80, 90].map(|ms| {
            let wish = out.read().wish(t(ms)).expect("it was heard");
            (wish.position[0], wish.velocity[0])
        });
        let (evenly, q) = ((0.9 - 0.52) / 0.01, |share: f64| {
            0.52 + share * (0.9 - 0.52)
        });
        let want = [(0.52, 0.0), (q(0.5), evenly), (0.9, 0.0), (0.9, 0.0)];
        assert_eq!(
            way, want,
            "evenly, in the time between the two, and no further"
        );

        let repeated = wheel.hear(t(50), &frame(4, t(40), &[0.9, 0.0]), Some(&at));
        assert!(repeated.is_err(), "a repeated frame keeps nothing alive");
        assert_eq!(wheel.lines(t(140)).deadman, Deadman::Held);
        assert_eq!(wheel.lines(t(141)).deadman, Deadman::Released);
        assert!(
            out.read().wish(t(141)).is_none(),
            "silence is nobody's wish"
        );

        wheel.give(t(142), Driver::Device(None));
        assert_eq!(wheel.lines(t(5_142)).deadman, Deadman::Held);
        assert_eq!(wheel.lines(t(5_143)).deadman, Deadman::Released);
        wheel.give(t(150), Driver::Policy);
        assert_eq!(wheel.lines(t(900)).deadman, Deadman::NotFitted);
    }

    #[test]
    fn what_a_device_shows_evenly_is_gone_evenly_however_late_and_often_it_comes() {
        for (every_ms, late_ms) in [(1, 0), (2, 20), (10, 29), (20, 19), (33, 0)] {
            let (wheel, mut out) = Wheel::new(TAKEOVER);
            let at = Setpoint::at_rest(&[0.0]);
            let t = |ms: u64| Mono((1_000 + ms) * MS);
            wheel.give(t(0), Driver::Device(None));
            // Whatever it is late by, in order and never more often than it was sent.
            let mut arrivals: Vec<_> = (0..1_000 / every_ms)
                .map(|n| (n * every_ms, n * every_ms + (n * n * 7919) % (late_ms + 1)))
                .collect();
            for n in 1..arrivals.len() {
                arrivals[n].1 = arrivals[n].1.max(arrivals[n - 1].1);
            }
            let (mut next, mut counter, mut steps) = (arrivals.iter().peekable(), 0, 0);
            let mut last = None::<f64>;
            for now_ms in 0..1_000 {
                while let Some((sent, _)) = next.next_if(|(_, heard)| *heard <= now_ms) {
                    counter += 1;
                    let shown = frame(counter, t(*sent), &[*sent as f64 * 1e-4]);
                    wheel
                        .hear(t(now_ms), &shown, Some(&at))
                        .expect("it is good");
                }
                let Some(wish) = out.read().wish(t(now_ms)) else {
                    continue;
                };
                let q = wish.position[0];
                if (101..980).contains(&now_ms) {
                    let step = q - last.expect("it went on");
                    assert!(
                        (step - 1e-4).abs() < 2e-5,
                        "{every_ms} ms, late by {late_ms}: {step} at {now_ms} ms"
                    );
                    steps += 1;
                }
                last = Some(q);
            }
            assert!(steps > 850, "{steps}");
        }
    }

    #[test]
    fn a_damaged_frame_moves_nothing() {
        let (wheel, mut out) = Wheel::new(TAKEOVER);
        let at = Setpoint::at_rest(&[0.5]);
        let now = Mono(1_000 * MS);
        wheel.give(now, Driver::Device(None));
        let good = frame(1, now, &[0.5]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(wheel.hear(now, &bad, Some(&at)).is_err());
        }
        assert!(out.read().wish(now).is_none());
    }
}
