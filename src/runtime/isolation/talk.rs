// SPDX-License-Identifier: Apache-2.0
//! What the two processes say to each other: a line of JSON each, over a pair of sockets. Only what is seldom and may
//! wait; what is often lies in the shared memory.

use super::identity::BUILD;
use crate::config::EngineKind;
use crate::config::problem::Problem;
use crate::policy::parity::{JointError, Parity};
use crate::policy::text::Instruction;
use crate::runtime::engines::Chosen;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::time::Timespec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Longest line: a bundle with a hundred problems, an instruction with its vector.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Descriptors that go with the first word: the memory, the bell, a bell a camera.
const FDS_MAX: usize = 2 + crate::core::limits::CAMERAS_MAX;

/// The first word, with the descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Program that says it.
    pub version: String,
    /// Of which build that is: [`BUILD`]. One that does not say so is of another.
    #[serde(default)]
    pub build: u64,
    /// tendon.toml.
    pub config: PathBuf,
    /// What the control process made of it: [`digest`](super::digest).
    pub digest: String,
    /// Whether a policy that misses its fixture is let through.
    pub allow_parity_miss: bool,
    /// The bundle that ran before, if one did.
    pub bundle_hash: Option<u32>,
    /// The last chunk that was made before.
    pub after_chunk: u32,
}

/// To the inference process: obey this.
#[derive(Debug, Serialize, Deserialize)]
pub struct Take(pub Instruction);

/// From the inference process, once.
#[derive(Debug, Serialize, Deserialize)]
pub enum Tell {
    /// Everything is loaded and runs.
    Ready(Facts),
    /// It cannot run.
    Refused(Vec<Problem>),
}

impl Tell {
    /// What comes of it: one that is ready and was built from other sources does not run.
    #[must_use]
    pub fn judged(self) -> Tell {
        match self {
            Tell::Ready(facts) if facts.build != BUILD => Tell::Refused(super::unlike(
                "one that was built from other sources: install the two programs of one package",
            )),
            other => other,
        }
    }
}

/// What the control process must know of the policy.
#[derive(Debug, Serialize, Deserialize)]
pub struct Facts {
    /// Of which build the program is: [`BUILD`]. One that does not say so is of another.
    #[serde(default)]
    pub build: u64,
    /// The bundle's name.
    pub policy_name: String,
    /// First bytes of its hash.
    pub bundle_hash: u32,
    /// What runs it.
    pub engine: String,
    /// What does not, and why.
    pub passed: Vec<(String, String)>,
    /// See [`Chosen::remarks`].
    pub remarks: Vec<String>,
    /// See [`Parity`].
    pub frames: usize,
    /// See [`Parity`].
    pub cosine: f64,
    /// See [`Parity`].
    pub error_fraction: f64,
    /// See [`Parity`].
    pub worst: String,
    /// See [`Parity`].
    pub joints: Vec<JointError>,
    /// See [`Parity`].
    pub missed: Vec<Problem>,
}

impl Facts {
    /// What is to be told.
    #[must_use]
    pub fn new(policy_name: &str, bundle_hash: u32, engine: &Chosen, parity: &Parity) -> Facts {
        let passed = engine.passed.iter();
        let parity = parity.clone();
        Facts {
            build: BUILD,
            policy_name: policy_name.to_owned(),
            bundle_hash,
            engine: engine.engine.word().to_owned(),
            passed: passed
                .map(|(kind, why)| (kind.word().to_owned(), why.clone()))
                .collect(),
            remarks: engine.remarks.clone(),
            frames: parity.frames,
            cosine: parity.cosine,
            error_fraction: parity.error_fraction,
            worst: parity.worst,
            joints: parity.joints,
            missed: parity.missed,
        }
    }

    /// The same as the pipeline takes it: name, engine, parity. An engine that this program does not know is none.
    #[must_use]
    pub fn read(self) -> Option<(String, Chosen, Parity)> {
        let kind = |word: &str| EngineKind::ALL.into_iter().find(|kind| kind.word() == word);
        let passed = self.passed.into_iter();
        let chosen = Chosen {
            engine: kind(&self.engine)?,
            passed: passed
                .map(|(word, why)| Some((kind(&word)?, why)))
                .collect::<Option<_>>()?,
            remarks: self.remarks,
        };
        let parity = Parity {
            frames: self.frames,
            cosine: self.cosine,
            error_fraction: self.error_fraction,
            worst: self.worst,
            joints: self.joints,
            missed: self.missed,
        };
        Some((self.policy_name, chosen, parity))
    }
}

/// One end of the pair of sockets.
#[derive(Debug)]
pub struct Line {
    socket: UnixStream,
    read: Vec<u8>,
}

impl Line {
    /// Over a socket.
    #[must_use]
    pub fn new(socket: UnixStream) -> Line {
        Line {
            socket,
            read: Vec::new(),
        }
    }

    /// Says something. Waits at most `timeout_ms` where the other end does not listen.
    ///
    /// # Errors
    /// Where it could not be said whole.
    pub fn say(&mut self, word: &impl Serialize, timeout_ms: u64) -> io::Result<()> {
        let mut line = serde_json::to_vec(word)?;
        line.push(b'\n');
        let timeout = std::time::Duration::from_millis(timeout_ms.max(1));
        self.socket.set_write_timeout(Some(timeout))?;
        self.socket.write_all(&line)
    }

    /// Hears a word if one comes within `timeout_ms`; `None` if none did.
    ///
    /// # Errors
    /// Where the other end is gone, or does not speak so.
    pub fn hear<T: DeserializeOwned>(&mut self, timeout_ms: u64) -> io::Result<Option<T>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let word = serde_json::from_slice(&self.read[..end]);
                self.read.drain(..=end);
                return Ok(Some(word?));
            }
            if self.read.len() > LINE_BYTES_MAX {
                return Err(io::Error::other(format!(
                    "a line of more than {LINE_BYTES_MAX} bytes"
                )));
            }
            if !readable(&self.socket, timeout_ms)? {
                return Ok(None);
            }
            let mut bytes = [0; 4096];
            match self.socket.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.read.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Waits until there is something to read at `fd` (or its other end is gone), at most `timeout_ms`.
///
/// # Errors
/// What the operating system says.
pub fn readable(fd: &impl AsFd, timeout_ms: u64) -> io::Result<bool> {
    let timeout = Timespec {
        tv_sec: (timeout_ms / 1000) as i64,
        tv_nsec: (timeout_ms % 1000 * 1_000_000) as i64,
    };
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    match poll(&mut fds, Some(&timeout)) {
        Ok(found) => Ok(found > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Says the first word, with the descriptors.
///
/// # Errors
/// What the operating system says.
pub fn greet(socket: &UnixStream, hello: &Hello, fds: &[&OwnedFd]) -> io::Result<()> {
    let line = serde_json::to_vec(hello)?;
    let borrowed: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::other("too many descriptors"));
    }
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&line)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    match sent == line.len() {
        true => Ok(()),
        false => Err(io::Error::other("the first word was not sent whole")),
    }
}

/// Hears the first word.
///
/// # Errors
/// Where it is not one.
pub fn greeted(socket: &UnixStream) -> io::Result<(Hello, Vec<OwnedFd>)> {
    let mut bytes = vec![0; 16 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let hello = serde_json::from_slice(bytes.get(..got.bytes).unwrap_or_default())?;
    Ok((hello, fds))
}

/// Silences a bell that has rung.
pub(super) fn hush(bell: &OwnedFd) {
    // One that does not ring says "again later": as good.
    let _ = rustix::io::read(bell, &mut [0_u8; 8]);
}

/// Rings a bell.
pub(super) fn ring(bell: &OwnedFd) {
    // It fails where it has rung 2^64 times unheard.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}
