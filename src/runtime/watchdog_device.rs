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
        let granted = realtime::watchdog_timeout(&file, timeout_s).map_err(wrong)?;
        let mut device = WatchdogDevice {
            file,
            timeout_s: granted,
        };
        device.ping();
        Ok(device)
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
