// SPDX-License-Identifier: Apache-2.0
//! Entries with fields for systemd's journal, by its native protocol: a datagram an entry
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).

use rustix::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

const SOCKET: &str = "/run/systemd/journal/socket";

/// The way to the journal, if it listens.
#[derive(Debug)]
pub struct Journal(Option<UnixDatagram>);

impl Journal {
    /// If standard error is the journal's. Whoever redirected it since wants the lines there.
    pub fn of_stderr() -> Option<Journal> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let is_its = is_stream(&stream, std::io::stderr());
        is_its.then(|| Journal::at(Path::new(SOCKET)))
    }

    fn at(socket: &Path) -> Journal {
        let datagrams = UnixDatagram::unbound();
        let connected = datagrams.and_then(|datagrams| {
            datagrams.connect(socket)?;
            Ok(datagrams)
        });
        Journal(connected.ok())
    }

    /// Sends one entry: names in capitals, and what they are. False if nobody took it: the journal does not listen, or the entry
    /// is longer than a datagram.
    #[must_use]
    pub fn took(&self, fields: &[(&str, &str)]) -> bool {
        let journal = self.0.as_ref();
        journal.is_some_and(|journal| journal.send(&encode(fields)).is_ok())
    }
}

/// Whether `stream`, a `JOURNAL_STREAM`, means this file: device and inode (systemd.exec(5)).
fn is_stream(stream: &str, file: impl AsFd) -> bool {
    let stat = rustix::fs::fstat(file);
    stat.is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut entry = Vec::new();
    for (name, value) in fields {
        entry.extend(name.as_bytes());
        if value.contains('\n') {
            entry.push(b'\n');
            entry.extend((value.len() as u64).to_le_bytes());
        } else {
            entry.push(b'=');
        }
        entry.extend(value.as_bytes());
        entry.push(b'\n');
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_datagram_of_fields_and_a_value_of_two_lines_has_its_length() {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("socket");
        let fields = [("PRIORITY", "4"), ("MESSAGE", "two\nlines"), ("EMPTY", "")];
        assert!(!Journal::at(&socket).took(&fields), "nobody listens");
        let listens = UnixDatagram::bind(&socket).expect("bound");
        let journal = Journal::at(&socket);
        assert!(journal.took(&fields));
        let mut heard = [0; 256];
        let length = listens.recv(&mut heard).expect("heard");
        let want = b"PRIORITY=4\nMESSAGE\n\x09\0\0\0\0\0\0\0two\nlines\nEMPTY=\n";
        assert_eq!(&heard[..length], want);
        drop(listens);
        assert!(!journal.took(&fields), "told that it is gone");
    }

    #[test]
    fn only_the_file_that_the_journal_gave_is_its() {
        let (one, other) = (
            tempfile::tempfile().expect("a file"),
            tempfile::tempfile().expect("a file"),
        );
        let stat = rustix::fs::fstat(&one).expect("open");
        let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_stream(&stream, &one));
        assert!(!is_stream(&stream, &other), "redirected since");
        assert!(!is_stream("", &one) && !is_stream("9:", &one));
    }
}
