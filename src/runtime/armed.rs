// SPDX-License-Identifier: Apache-2.0
//! That the robot is armed stands on disk as long as it is, so that a start knows of an end that nobody could write down:
//! SIGKILL, the kernel out of memory, a crash outside Rust, a hang that the service manager ended, a loss of power, a full disk.
//!
//! The file is `armed-<robot>` in the state directory. It is written and synced before an arming is asked for, and an arming
//! that cannot be noted is refused. It is removed once the robot stands unarmed. Its writer holds a lock on it, which ends with
//! the process however that ends: a file that is locked is of a robot at work, one that is not was left behind.

use crate::core::units::Mono;
use crate::runtime::clock;
use crate::runtime::durable;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, TryLockError as Busy};

/// Why an arming could not be noted.
#[derive(Debug, thiserror::Error)]
pub enum ArmedFault {
    /// The system's word.
    #[error("{}: {error}: an arming must be noted there; check owner and free space", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// Somebody else has it.
    #[error("{}: another program on this machine has this robot armed", .path.display())]
    Elsewhere {
        /// Which.
        path: PathBuf,
    },
}

/// See the module's text.
#[derive(Debug)]
pub struct ArmedFile {
    path: PathBuf,
    /// There, and locked, while the robot is armed; and since when it is known what its arming came to.
    held: Mutex<Option<(File, Mono)>>,
}

impl ArmedFile {
    /// The file of `robot` in `directory`; nothing is read or written.
    #[must_use]
    pub fn of(directory: &Path, robot: &str) -> ArmedFile {
        ArmedFile {
            path: directory.join(format!("armed-{robot}")),
            held: Mutex::default(),
        }
    }

    /// Whether a process that is gone left it. Changes nothing.
    ///
    /// # Errors
    /// What the system says of a file that is there and cannot be opened.
    pub fn left(&self) -> std::io::Result<bool> {
        match File::open(&self.path) {
            Ok(file) => match file.try_lock_shared() {
                Ok(()) => Ok(true),
                Err(TryLockError::WouldBlock) => Ok(false),
                Err(TryLockError::Error(error)) => Err(error),
            },
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A person has seen that it was left.
    ///
    /// # Errors
    /// What the system says; it is then there yet.
    pub fn forget(&self) -> std::io::Result<()> {
        match self.left()? {
            true => durable::remove(&self.path),
            false => Ok(()),
        }
    }

    /// Notes the arming, then asks for it; forgets it again if `granted` says that it was refused. May take as long as the
    /// disk does: no thread that moves the robot comes here.
    ///
    /// # Errors
    /// [`ArmedFault`]; nothing was asked.
    pub fn note<T>(
        &self,
        ask: impl FnOnce() -> T,
        granted: impl FnOnce(&T) -> bool,
    ) -> Result<T, ArmedFault> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let was_held = held.is_some();
        if !was_held {
            *held = Some((self.write()?, Mono(0)));
        }
        let answer = ask();
        if let Some((_, since)) = held.as_mut() {
            *since = clock::now();
        }
        if !was_held && !granted(&answer) {
            self.settle_held(&mut held);
        }
        Ok(answer)
    }

    /// The robot stood unarmed at `as_of`. Nothing, if that was before the last arming. Waits for nobody: where an arming is just
    /// being asked for, that one notes what it comes to.
    pub fn settle(&self, as_of: Mono) {
        let mut held = match self.held.try_lock() {
            Ok(held) => held,
            Err(Busy::Poisoned(held)) => held.into_inner(),
            Err(Busy::WouldBlock) => return,
        };
        if held.as_ref().is_some_and(|(_, since)| as_of > *since) {
            self.settle_held(&mut held);
        }
    }

    fn settle_held(&self, held: &mut Option<(File, Mono)>) {
        if held.is_some()
            && let Err(error) = durable::remove(&self.path)
        {
            log::error!(
                "{}: {error}: could not be removed; the next start will ask for a reset",
                self.path.display()
            );
        }
        *held = None;
    }

    fn write(&self) -> Result<File, ArmedFault> {
        let fault = |error| ArmedFault::File {
            path: self.path.clone(),
            error,
        };
        // Not truncated before the lock: it may be another's.
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true);
        let mut file = options.open(&self.path).map_err(fault)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ArmedFault::Elsewhere {
                    path: self.path.clone(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(fault(error)),
        }
        // Removed while this was opened, by who had it: a note there would be nobody's.
        if file.metadata().map_err(fault)?.nlink() == 0 {
            return Err(ArmedFault::Elsewhere {
                path: self.path.clone(),
            });
        }
        let mut fill = || {
            file.set_len(0)?;
            writeln!(file, "armed by process {}", std::process::id())?;
            file.sync_all()?;
            durable::sync_folder(&self.path)
        };
        match fill() {
            Ok(()) => Ok(file),
            Err(error) => {
                // It is ours and says nothing; what cannot be removed asks for a reset later.
                drop(durable::remove(&self.path));
                Err(fault(error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_while_armed_and_known_to_be_left_only_by_the_dead() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ours, other) = (
            ArmedFile::of(folder.path(), "r"),
            ArmedFile::of(folder.path(), "r"),
        );
        assert!(!ours.left().expect("looked"));
        let asked = ours.note(|| folder.path().join("armed-r").exists(), |_| true);
        assert!(asked.expect("noted"), "before it was asked for");
        assert!(!other.left().expect("looked"), "of a robot at work");
        other.forget().expect("nothing to do");
        let refused = other.note(|| panic!("asked"), |_: &()| true);
        assert!(
            matches!(refused, Err(ArmedFault::Elsewhere { .. })),
            "{refused:?}"
        );
        // Asked for again and refused, as it is armed already: it stays.
        ours.note(|| (), |()| false).expect("noted");
        assert!(folder.path().join("armed-r").exists());
        drop(ours);
        assert!(other.left().expect("looked"), "its process is gone");
        other.forget().expect("removed");
        assert!(!other.left().expect("looked"));
    }

    #[test]
    fn a_refused_arming_and_a_robot_at_rest_leave_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = ArmedFile::of(folder.path(), "r");
        file.note(|| (), |()| false).expect("noted");
        assert!(!folder.path().join("armed-r").exists());
        file.note(|| (), |()| true).expect("noted");
        // While somebody asks, nobody settles.
        let during = file.note(
            || {
                file.settle(Mono(u64::MAX));
                folder.path().join("armed-r").exists()
            },
            |_| true,
        );
        assert!(during.expect("noted"));
        // What was seen before it says nothing of it.
        file.settle(Mono(1));
        assert!(folder.path().join("armed-r").exists());
        file.settle(Mono(u64::MAX));
        assert!(!folder.path().join("armed-r").exists());
    }

    #[test]
    fn what_cannot_be_noted_is_not_asked_for() {
        let file = ArmedFile::of(Path::new("/nowhere/at/all"), "r");
        let refused = file.note(|| panic!("asked"), |_: &()| true);
        let refused = refused.expect_err("no such folder").to_string();
        assert!(refused.contains("/nowhere/at/all/armed-r"), "{refused}");
        assert!(refused.contains("free space"), "{refused}");
    }
}
