// SPDX-License-Identifier: Apache-2.0
//! The machine's hardware watchdog, for a runtime that no service manager watches: once opened it resets the machine unless
//! it is pinged (`Documentation/watchdog/watchdog-api.rst` of the kernel). Under systemd leave it to `RuntimeWatchdogSec`.

use crate::runtime::realtime;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// An open watchdog: it counts.
#[derive(Debug)]
pub struct WatchdogDevice {
    file: File,
    timeout_s: u32,
}

impl WatchdogDevice {
    /// Opens it and asks for a timeout.
    ///
    /// # Errors
    /// Where it is none, somebody else has it, or it takes no timeout; in words.
    pub fn open(path: &Path, timeout_s: u32) -> Result<WatchdogDevice, String> {
        let wrong = |error: std::io::Error| {
            format!(
                "{}: {error}: expected a watchdog that nobody else has open (systemd has it with RuntimeWatchdogSec=), and that the \
                 user may write to",
                path.display()
            )
        };
        let file = File::options().write(true).open(path).map_err(wrong)?;
        // It counts from now on.
        let mut device = WatchdogDevice { file, timeout_s };
        match realtime::watchdog_timeout(&device.file, timeout_s) {
            Ok(granted) => {
                device.timeout_s = granted;
                device.ping();
                Ok(device)
            }
            Err(error) => {
                // Who does not start must not have the machine reset for it.
                device.close();
                Err(format!(
                    "{}: {error}: expected a watchdog whose driver takes a timeout of {timeout_s} s; leave [watchdog] out, or have \
                     the service manager ping it (RuntimeWatchdogSec=)",
                    path.display()
                ))
            }
        }
    }

    /// One that is a file: what is written there can be read.
    #[cfg(test)]
    pub(crate) fn over(file: File, timeout_s: u32) -> WatchdogDevice {
        WatchdogDevice { file, timeout_s }
    }

    /// What the driver made of the timeout, seconds.
    #[must_use]
    pub fn timeout_s(&self) -> u32 {
        self.timeout_s
    }

    /// "All is well."
    pub fn ping(&mut self) {
        // One that cannot be pinged resets the machine: that is what it is for.
        let _ = self.file.write_all(&[0]);
    }

    /// Ends the watch in good order; a driver without this ("nowayout") goes on counting.
    pub fn close(mut self) {
        let _ = self.file.write_all(b"V");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_takes_no_timeout_is_left_in_good_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("watchdog");
        std::fs::write(&path, "").expect("written");
        let refused = WatchdogDevice::open(&path, 10).expect_err("a file takes no timeout");
        assert!(refused.contains("takes a timeout of 10 s"), "{refused}");
        assert_eq!(
            std::fs::read(&path).expect("read"),
            b"V",
            "it counts no longer"
        );
        let absent = WatchdogDevice::open(&folder.path().join("none"), 10).expect_err("absent");
        assert!(absent.contains("nobody else has open"), "{absent}");
    }
}
