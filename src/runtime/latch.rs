// SPDX-License-Identifier: Apache-2.0
//! A latched stop outlives the process: its cause stands in a small file until a person acknowledges it.
//!
//! The file is written by the memory thread, within one of its periods after the latch struck; writing may take
//! long, and nothing that moves the robot waits for it. It is replaced as a whole (new file, fsync, rename, fsync of the
//! folder), so that a power cut leaves the old word or the new one. A process that dies in between has lost at most
//! 20 ms of news, and a start never moves the robot by itself anyway.

use crate::core::governor::reaction::Cause;
use crate::runtime::durable;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The longest that such a file may be: one line.
const BYTES_MAX: u64 = 256;

/// Why the memory of a latched stop cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LatchFault {
    /// The folder or the file cannot be read or written.
    #[error("{}: {error}: a latched stop must be kept there; check owner and free space", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's word.
        error: std::io::Error,
    },
    /// The file is not one of ours.
    #[error(
        "{}: expected the code of a latched stop, found {found:?}: look why the robot stopped, then delete the file", .path.display()
    )]
    Unknown {
        /// Which.
        path: PathBuf,
        /// Its first line.
        found: String,
    },
}

/// See the module's text.
#[derive(Debug)]
pub struct LatchFile {
    folder: PathBuf,
    name: String,
    kept: Option<Cause>,
}

impl LatchFile {
    /// Opens the memory of `robot` in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// [`LatchFault`]. A file that cannot be understood is never taken for "nothing latched".
    pub fn open(folder: &Path, robot: &str) -> Result<LatchFile, LatchFault> {
        std::fs::create_dir_all(folder).map_err(|error| LatchFault::File {
            path: folder.to_owned(),
            error,
        })?;
        LatchFile::read(folder, robot)
    }

    /// The same, and changes nothing: what is not there keeps nothing.
    ///
    /// # Errors
    /// [`LatchFault`].
    pub fn read(folder: &Path, robot: &str) -> Result<LatchFile, LatchFault> {
        let name = format!("latched-stop-{robot}");
        let path = folder.join(&name);
        let kept = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(LatchFault::File { path, error }),
            Ok(file) => {
                let mut text = String::new();
                if let Err(error) = file.take(BYTES_MAX).read_to_string(&mut text) {
                    return Err(LatchFault::File { path, error });
                }
                let code = text
                    .split_whitespace()
                    .next()
                    .and_then(|word| word.parse().ok());
                let cause = code.and_then(Cause::from_code);
                if cause.is_none() {
                    let found = text.lines().next().unwrap_or_default().to_owned();
                    return Err(LatchFault::Unknown { path, found });
                }
                cause
            }
        };
        Ok(LatchFile {
            folder: folder.to_owned(),
            name,
            kept,
        })
    }

    /// Where it is kept.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is latched.
    #[must_use]
    pub fn kept(&self) -> Option<Cause> {
        self.kept
    }

    /// Keeps `latched`; writes only what is new.
    ///
    /// # Errors
    /// [`LatchFault::File`]; it is tried again at the next call.
    pub fn keep(&mut self, latched: Option<Cause>) -> Result<(), LatchFault> {
        if latched == self.kept {
            return Ok(());
        }
        self.write(latched).map_err(|error| LatchFault::File {
            path: self.folder.join(&self.name),
            error,
        })?;
        self.kept = latched;
        Ok(())
    }

    fn write(&self, latched: Option<Cause>) -> std::io::Result<()> {
        let path = self.folder.join(&self.name);
        match latched {
            None => durable::remove(&path),
            Some(cause) => {
                let line = format!("{} {}\n", cause as u8, cause.words());
                durable::replace(&path, line.as_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::governor::reaction::CAUSES;

    #[test]
    fn every_cause_survives_and_is_forgotten_when_acknowledged() {
        let folder = tempfile::tempdir().expect("a folder");
        for cause in CAUSES {
            let mut file = LatchFile::open(folder.path(), "r").expect("opens");
            assert_eq!(file.kept(), None);
            file.keep(Some(cause)).expect("kept");
            let mut again = LatchFile::open(folder.path(), "r").expect("opens");
            assert_eq!(again.kept(), Some(cause));
            again.keep(None).expect("forgotten");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_taken_for_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        for text in ["", "0 nothing", "200 what", "stop", "\u{fffd}"] {
            std::fs::write(folder.path().join("latched-stop-r"), text).expect("written");
            let fault = LatchFile::open(folder.path(), "r").expect_err("refused");
            assert!(fault.to_string().contains("delete the file"), "{fault}");
        }
        std::fs::write(folder.path().join("latched-stop-r"), [0xff, 0xfe]).expect("written");
        assert!(LatchFile::open(folder.path(), "r").is_err());
    }
}
