// SPDX-License-Identifier: Apache-2.0
//! What a kernel camera is kept at: its controls, set and read back before the stream begins, read back with its first picture, as some
//! cameras forget them when they begin to stream, and then each once a second, as another program may change them unseen. A picture
//! that is exposed otherwise is one that the policy was not trained on.
//!
//! While pictures come, one control is read at a time, between two pictures and a fraction of a second apart; that takes no memory.
//! Where one is not as it was set, all are set again, in their order: what a camera sets by itself must be switched off before the rest
//! can be set. A control that does not stay even so is a mode that the camera does not have.
//!
//! Not responsible for which are set and in which order (`config`), nor for what the driver does not ask its camera: it may
//! answer with what it remembers.

use super::agree::Trouble;
use super::mapped::{self, Number};
use super::said::Said;
use crate::core::units::{MS, Mono};
use std::io;
use std::ops::Range;
use std::path::Path;
use v4l::Device;

/// Each control is read so often. A person who turns one in another program sees what comes of it within two.
const EVERY_NS: u64 = 1_000 * MS;

// Of errno(3).
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;

#[derive(Debug)]
struct Control {
    id: u32,
    value: i64,
    /// Known once it was set; not if it could not be read after that. A camera whose controls do not answer may take seconds to say so,
    /// and no picture is taken meanwhile: such a one is left alone until the next stream.
    number: Option<Number>,
    /// Whether it was not as it was set when it was read last.
    sprang: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Controls {
    all: Vec<Control>,
    /// Which is read next, and when.
    turn: usize,
    next: Mono,
    /// Readings in a row with nothing wrong, since the first picture.
    quiet: usize,
    said: Said,
}

impl Controls {
    /// Controls by number, each with its value, in the order in which they are set.
    pub(super) fn new(wanted: &[(u32, i64)]) -> Controls {
        let control = |(id, value): &(u32, i64)| Control {
            id: *id,
            value: *value,
            number: None,
            sprang: false,
        };
        Controls {
            all: wanted.iter().map(control).collect(),
            turn: 0,
            next: Mono(0),
            quiet: 0,
            said: Said::default(),
        }
    }

    /// Sets all and reads each back.
    ///
    /// # Errors
    /// What the device says; and of one that springs back.
    pub(super) fn set(&mut self, device: &Device) -> Result<(), Trouble> {
        self.all
            .iter_mut()
            .try_for_each(|control| control.set(device))
    }

    /// The first picture of a stream has come: are they still as they were set?
    ///
    /// # Errors
    /// As [`Controls::watch`].
    pub(super) fn begin(&mut self, device: &Device, at: &Path, now: Mono) -> Result<(), Trouble> {
        for control in &mut self.all {
            control.sprang = false;
        }
        self.turn = 0;
        self.next = now.plus_ns(self.apart_ns());
        self.look(device, at, 0..self.all.len())?;
        self.quiet = 0;
        Ok(())
    }

    /// Reads the next one, if it is time.
    ///
    /// # Errors
    /// What the device says; and of one that is not as it was set, though it was set again.
    pub(super) fn watch(&mut self, device: &Device, at: &Path, now: Mono) -> Result<(), Trouble> {
        if self.all.is_empty() || now < self.next {
            return Ok(());
        }
        let turn = self.turn;
        self.turn = (turn + 1) % self.all.len();
        // In step, so that each has its turn once a second; but none is made up for after a long wait.
        let apart_ns = self.apart_ns();
        let in_step = now.since_ns(self.next) < apart_ns;
        self.next = if in_step { self.next } else { now }.plus_ns(apart_ns);
        self.look(device, at, turn..turn + 1)?;
        if self.settled() {
            self.said.forget();
        }
        Ok(())
    }

    /// Whether each has been read once since the first picture, and nothing was wrong: until then a camera that gives pictures is no
    /// better than one that gives none.
    pub(super) fn settled(&self) -> bool {
        self.quiet >= self.all.len()
    }

    /// Time from one reading to the next.
    fn apart_ns(&self) -> u64 {
        EVERY_NS / (self.all.len().max(1) as u64)
    }

    /// Reads these. Where any is not as it was set, that is told, and all are set again.
    fn look(&mut self, device: &Device, at: &Path, which: Range<usize>) -> Result<(), Trouble> {
        // Memory is taken only where there is something to tell.
        let mut changed = Vec::new();
        let mut silent = false;
        for control in self.all.get_mut(which).into_iter().flatten() {
            let Some(number) = control.number else {
                continue;
            };
            let (id, value) = (control.id, control.value);
            match number.read(device) {
                Ok(found) if found == value => control.sprang = false,
                Ok(found) if control.sprang => {
                    return Err(control.wrong(format!("{found} again after it was set again")));
                }
                Ok(found) => {
                    control.sprang = true;
                    changed.push(format!("{id:#x} at {found} where {value} was set"));
                }
                Err(error) if error.raw_os_error() == Some(ENODEV) => return Err(error.into()),
                Err(error) => {
                    // Each question may take seconds, and the thread is waited for.
                    silent = true;
                    let what = format!("{id:#x} that cannot be read: {error}");
                    if self.said.news(&what) {
                        log::warn!(
                            "{}: expected controls that can be read while pictures come, found {what}; it is not looked after \
                             until the camera is started again, nor is any other",
                            at.display()
                        );
                    }
                    break;
                }
            }
        }
        if silent {
            for control in &mut self.all {
                control.number = None;
            }
        }
        if changed.is_empty() {
            self.quiet = self.quiet.saturating_add(1);
            return Ok(());
        }
        self.quiet = 0;
        let changed = changed.join(", ");
        if self.said.news(&changed) {
            log::warn!(
                "{}: expected controls that stay as they were set, found {changed}; they are set again",
                at.display()
            );
        }
        self.set(device)
    }
}

impl Control {
    fn set(&mut self, device: &Device) -> Result<(), Trouble> {
        let exchange = || -> io::Result<(Number, i64)> {
            let number = mapped::number(device, self.id)?;
            number.set(device, self.value)?;
            Ok((number, number.read(device)?))
        };
        let (number, found) = exchange().map_err(|error| self.refused(error))?;
        if found != self.value {
            return Err(self.wrong(format!("{found} when read back")));
        }
        self.number = Some(number);
        Ok(())
    }

    fn refused(&self, error: io::Error) -> Trouble {
        match error.raw_os_error() {
            Some(ENODEV) => error.into(),
            // So drivers refuse what the camera sets by itself.
            Some(EACCES | EBUSY) => self.wrong(format!(
                "{error}; if the camera sets it by itself, its automatic mode is to be switched off in controls"
            )),
            _ => self.wrong(error.to_string()),
        }
    }

    fn wrong(&self, found: String) -> Trouble {
        Trouble::Mode {
            expected: format!("control {:#x} = {}", self.id, self.value),
            found,
        }
    }
}
