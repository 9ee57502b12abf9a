// SPDX-License-Identifier: Apache-2.0
//! One inference process: started with its shared memory, greeted, heard for the first time, ended. When and how often is
//! the keeper's.

use crate::config::Config;
use crate::config::problem::Problem;
use crate::core::units::{MS, Mono};
use crate::policy::ParityMiss;
use crate::runtime::clock;
use crate::runtime::isolation::identity;
use crate::runtime::isolation::plane::{self, Near};
use crate::runtime::isolation::talk::{self, Facts, Hello, Line, Tell};
use crate::runtime::isolation::{How, VERB, digest};
use crate::runtime::realtime;
use crate::sync::mapping::Mapping;
use rustix::event::{EventfdFlags, eventfd};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};

/// An engine may take so long to load.
pub(super) const LOADING_NS: u64 = 300_000 * MS;
/// One that was killed is waited for so long where nobody comes round again.
const DYING_NS: u64 = 200 * MS;

/// An inference process and the memory that is shared with it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Our end of the memory that is shared with it.
    pub(super) near: Near,
    /// It rings it when there is something to carry.
    pub(super) bell: OwnedFd,
    /// One a camera that is reached over the link: rung when a picture was handed over.
    pub(super) bells: Vec<Option<OwnedFd>>,
    pub(super) started: Mono,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let deadline = clock::now().plus_ns(DYING_NS);
        while !self.gone() && clock::now() < deadline {
            clock::sleep_until(clock::now().plus_ns(MS));
        }
    }
}

impl Process {
    /// Starts one; it then loads the policy.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(config: &Config, how: &How, was: Was) -> io::Result<(Process, Line)> {
        let (memory, memory_fd) = Mapping::create(plane::words(config))?;
        let bell =
            || Ok::<_, io::Error>(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (ours, theirs) = UnixStream::pair()?;
        let rung = bell()?;
        let bells: Vec<Option<OwnedFd>> = config
            .cameras()
            .map(|camera| plane::is_far(camera).then(bell).transpose())
            .collect::<io::Result<_>>()?;
        let program = config.isolation.program.as_deref();
        let program = program.unwrap_or("/proc/self/exe".as_ref());
        let mut command = Command::new(program);
        command.arg(VERB).args(&how.arguments);
        let louder = log::max_level() as usize;
        command.args(std::iter::repeat_n(
            "-v",
            louder.saturating_sub(log::Level::Warn as usize),
        ));
        // It is not the service: it says nothing to the service manager, and nothing to who reads our output.
        command
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC");
        // A Ctrl-C is for the control process, which brings the robot to rest first.
        command.process_group(0);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(Stdio::from(io::stderr()));
        // On the cores of the whole program: one that a thread with a core of its own starts would be kept there.
        let child = realtime::unpinned(|| command.spawn())
            .map_err(|error| io::Error::other(format!("{}: {error}", program.display())))?;
        let process = Process {
            child,
            near: Near::new(config, memory),
            bell: rung,
            bells,
            started: clock::now(),
        };
        let hello = Hello {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: identity::BUILD,
            config: how.config.clone(),
            digest: digest(config),
            allow_parity_miss: how.parity_miss == ParityMiss::Report,
            bundle_hash: was.bundle_hash,
            after_chunk: was.chunk,
        };
        let fds = [&memory_fd, &process.bell].into_iter();
        let fds: Vec<&OwnedFd> = fds.chain(process.bells.iter().flatten()).collect();
        talk::greet(&ours, &hello, &fds)?;
        Ok((process, Line::new(ours)))
    }

    /// The first start: waits until it is ready.
    ///
    /// # Errors
    /// Every [`Problem`].
    pub fn first_word(&mut self, line: &mut Line) -> Result<Facts, Vec<Problem>> {
        while clock::now().since_ns(self.started) < LOADING_NS {
            match line.hear(100).map(|word| word.map(Tell::judged)) {
                Ok(None) => {}
                Ok(Some(Tell::Ready(facts))) => return Ok(facts),
                Ok(Some(Tell::Refused(problems))) => return Err(problems),
                Err(error) => {
                    let end = self.ended(clock::now());
                    return Err(no_process(
                        end.map_or_else(|| error.to_string(), how_it_ended),
                    ));
                }
            }
        }
        Err(no_process(format!(
            "nothing within {} s",
            LOADING_NS / MS / 1_000
        )))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to end at once. It may take its time: a driver that is in the middle of something holds it in the kernel.
    pub fn kill(&mut self) {
        // What fails says that it is gone already.
        drop(self.child.kill());
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// What the system says.
    pub fn end(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Whether nothing is left of it. Waits for nothing.
    pub fn gone(&mut self) -> bool {
        !matches!(self.end(), Ok(None))
    }

    /// How it ended, where it does so within a moment: its socket is closed a little before.
    pub(super) fn ended(&mut self, now: Mono) -> Option<ExitStatus> {
        while clock::now().since_ns(now) < 200 * MS {
            if let Ok(Some(status)) = self.end() {
                return Some(status);
            }
            clock::sleep_until(clock::now().plus_ns(MS));
        }
        None
    }
}

pub(super) fn no_process(found: String) -> Vec<Problem> {
    Problem::one(
        "isolation = \"process\"",
        "an inference process that loads the policy",
        found,
    )
}

fn how_it_ended(status: ExitStatus) -> String {
    format!("it ended: {status}")
}

/// What an earlier process had come to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Was {
    /// Its last chunk.
    pub chunk: u32,
    /// First bytes of its bundle's hash.
    pub bundle_hash: Option<u32>,
}
