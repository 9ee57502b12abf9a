// SPDX-License-Identifier: Apache-2.0
//! SHA-256 of what may not fit the memory.

use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::io::{self, Read};

/// Feeds `hash` with all that `file` gives; returns how many bytes that were.
///
/// # Errors
/// It cannot be read.
pub fn feed(mut file: impl Read, hash: &mut Sha256) -> io::Result<u64> {
    let mut part = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        match file.read(&mut part)? {
            0 => return Ok(total),
            read => {
                hash.update(part.get(..read).unwrap_or_default());
                total += read as u64;
            }
        }
    }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing into a String cannot fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}
