// SPDX-License-Identifier: Apache-2.0
//! What may take its time about a contact's device, in a thread of its own: opening it, closing it when it is gone, and words.
//!
//! A driver may sleep in either call for longer than a contact that is not read counts as closed, and one thread reads all
//! contacts. So that thread only reads. An opened device crosses to it through a queue, one that is gone comes back through
//! another; there is one device a contact, so each has room for one. Nobody waits for anybody.

use super::Channels;
use crate::config::lines::Wire;
use crate::core::units::{MS, Mono};
use crate::runtime::clock;
use crate::runtime::threads::Seat;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// A device that went away is looked for this often.
pub(super) const AGAIN_NS: u64 = 500 * MS;
/// The thread comes round this often.
const ROUND_NS: u64 = 50 * MS;

/// An opened device.
pub(super) type Device = Box<dyn Channels>;
/// Opens one, or says why not.
type Open = dyn FnMut(&Wire) -> Result<Device, String> + Send;

/// What crosses beside devices.
#[derive(Debug, Default)]
struct Beside {
    /// It was tried to open it, with whatever end.
    tried: AtomicBool,
    /// How often its channels began to disagree.
    apart: AtomicU32,
}

/// Where a thread that reads a contact gets its device.
pub(super) struct Supply {
    opened: rtrb::Consumer<Device>,
    gone: rtrb::Producer<Device>,
    beside: Arc<Beside>,
}

impl Supply {
    /// A device that was opened since it was last asked.
    pub(super) fn take(&mut self) -> Option<Device> {
        self.opened.pop().ok()
    }

    /// This device is gone: it is closed, and looked for.
    pub(super) fn give_back(&mut self, device: Device) {
        // There is room for the only one that there is.
        drop(self.gone.push(device));
    }

    /// Whether it was tried to open it. Asked before [`Supply::take`], it tells what that one finds.
    pub(super) fn tried(&self) -> bool {
        self.beside.tried.load(Ordering::Acquire)
    }

    /// Its channels disagree: somebody is to be told.
    pub(super) fn disagree(&self) {
        self.beside.apart.fetch_add(1, Ordering::Relaxed);
    }
}

/// One contact.
struct Wanted {
    name: &'static str,
    wire: Wire,
    opened: rtrb::Producer<Device>,
    gone: rtrb::Consumer<Device>,
    beside: Arc<Beside>,
    /// When to open it; `None` while it is read.
    due: Option<Mono>,
    /// Of [`Beside::apart`], how many were told.
    told: u32,
}

/// The thread that opens. See the module's text.
pub struct Opener {
    wanted: Vec<Wanted>,
    open: Box<Open>,
}

impl Opener {
    /// With nothing to open yet.
    pub(super) fn new(
        open: impl FnMut(&Wire) -> Result<Device, String> + Send + 'static,
    ) -> Opener {
        Opener {
            wanted: Vec::new(),
            open: Box::new(open),
        }
    }

    /// Opens `wire` too, for whoever gets this.
    pub(super) fn supply(&mut self, name: &'static str, wire: &Wire) -> Supply {
        let (opened, opened_out) = rtrb::RingBuffer::new(1);
        let (gone, gone_out) = rtrb::RingBuffer::new(1);
        let beside = Arc::new(Beside::default());
        self.wanted.push(Wanted {
            name,
            wire: wire.clone(),
            opened,
            gone: gone_out,
            beside: Arc::clone(&beside),
            due: Some(Mono(0)),
            told: 0,
        });
        Supply {
            opened: opened_out,
            gone,
            beside,
        }
    }

    /// Closes what is gone, opens what is due, one after the other, and tells of it.
    pub(super) fn round(&mut self, now: Mono) {
        for wanted in &mut self.wanted {
            if let Ok(device) = wanted.gone.pop() {
                log::error!("lines.{}: gone: it counts as open", wanted.name);
                drop(device);
                wanted.due = Some(now.plus_ns(AGAIN_NS));
            }
            let apart = wanted.beside.apart.load(Ordering::Relaxed);
            if std::mem::replace(&mut wanted.told, apart) != apart {
                log::error!(
                    "lines.{}: its two channels disagree: a broken wire or a contact that sticks; open it wholly once",
                    wanted.name
                );
            }
            if wanted.due.is_none_or(|due| now < due) {
                continue;
            }
            wanted.due = match (self.open)(&wanted.wire) {
                Ok(device) => {
                    log::info!("lines.{}: read", wanted.name);
                    // There is room: the one before has come back.
                    drop(wanted.opened.push(device));
                    None
                }
                Err(why) => {
                    log::error!("lines.{}: {why}: it counts as open", wanted.name);
                    Some(now.plus_ns(AGAIN_NS))
                }
            };
            // After the device: who sees this finds that.
            wanted.beside.tried.store(true, Ordering::Release);
        }
    }

    /// The thread.
    pub fn run(mut self, ending: &AtomicBool, seat: &Seat) {
        while !ending.load(Ordering::Relaxed) {
            let now = clock::now();
            seat.beat.mark(now);
            self.round(now);
            clock::sleep_until(now.plus_ns(ROUND_NS));
        }
    }
}
