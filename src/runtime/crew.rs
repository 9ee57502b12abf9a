// SPDX-License-Identifier: Apache-2.0
//! The crew: starts the threads of the table, tells what the kernel granted them, and catches each at its root.
//!
//! A thread that panics is named, recorded ([`crash`]) and stays down; the watchdog sees the flag at its next step and
//! the supervisor stops the robot. Nothing restarts a thread inside a running process: that is the service manager's
//! work, and it comes up in standby. In the inference process the ferry sees the flag and ends the process.
//!
//! A thread that it did not start is not caught here. `tendon run` hears of its panic all the same, by the hook that
//! records it ([`crash::hook`]); the demo and the inference process have no such hook.

use crate::config::realtime::{Realtime, RealtimeMode};
use crate::core::units::Mono;
use crate::runtime::cores;
use crate::runtime::crash::{self, Recorder};
use crate::runtime::health::Tree;
use crate::runtime::realtime::{self, MemoryLock, Scheduled};
use crate::runtime::threads::{Seat, Spec};
use crate::sync::heartbeat::Beat;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// Room for a build that is not optimised, whose governor copies plans from frame to frame; only what is touched is memory.
const STACK_BYTES: usize = 8 << 20;

/// What a thread asked for, and what the kernel says it has.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The thread's name.
    pub name: &'static str,
    /// What was asked; priority 0 and no cores for nothing.
    pub asked: Scheduled,
    /// What it has.
    pub has: Scheduled,
}

/// See the module's text.
#[derive(Debug)]
pub struct Crew {
    realtime: Realtime,
    memory: Option<MemoryLock>,
    recorder: Option<Arc<Recorder>>,
    /// The heartbeats of all threads started so far.
    pub beats: Vec<(Spec, Beat)>,
    /// What each was granted.
    pub granted: Vec<Granted>,
    reported: usize,
    /// Set when a thread has panicked.
    pub failed: Arc<AtomicBool>,
}

impl Crew {
    /// Locks memory as configured: call it when the engines have loaded and before threads start.
    #[must_use]
    pub fn new(realtime: &Realtime, recorder: Option<Arc<Recorder>>) -> Crew {
        let memory = (realtime.lock_memory && realtime.mode != RealtimeMode::Off)
            .then(realtime::lock_memory);
        Crew {
            realtime: realtime.clone(),
            memory,
            failed: recorder
                .as_ref()
                .map_or_else(Arc::default, |recorder| Arc::clone(&recorder.failed)),
            recorder,
            beats: Vec::new(),
            granted: Vec::new(),
            reported: 0,
        }
    }

    /// Starts a thread of the table and waits until it has its seat. Its first heartbeat is `now`, so that it is late
    /// only if it never comes round.
    ///
    /// # Errors
    /// What the operating system says when it gives no thread.
    pub fn spawn(
        &mut self,
        spec: Spec,
        now: Mono,
        beat: Beat,
        body: impl FnOnce(Seat) + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        beat.mark(now);
        self.beats.push((spec, beat.clone()));
        if let Some(recorder) = &self.recorder {
            recorder.knows(spec, beat.clone());
        }
        let off = self.realtime.mode == RealtimeMode::Off;
        let asked = Scheduled {
            fifo: if off { 0 } else { spec.fifo },
            cores: self
                .realtime
                .cores
                .get(spec.name)
                .cloned()
                .unwrap_or_default(),
        };
        let (sender, seated) = mpsc::sync_channel(1);
        let (wish, failed) = (asked.clone(), Arc::clone(&self.failed));
        let thread = std::thread::Builder::new()
            .name(spec.name.to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let has = realtime::take_seat(wish.fifo, &wish.cores);
                let fifo_granted = has.fifo > 0;
                drop(sender.send(has));
                // What the body touched is shared through cells that hold whole values at any time, or is dropped here.
                let ended = catch_unwind(AssertUnwindSafe(|| body(Seat { beat, fifo_granted })));
                if ended.is_err() {
                    failed.store(true, Ordering::Release);
                    log::error!("thread {} ended: {}", spec.name, crash::last_words());
                }
            })?;
        // The thread is there; should it fail to say so, what it has is nothing.
        let has = seated.recv().unwrap_or_default();
        self.granted.push(Granted {
            name: spec.name,
            asked,
            has,
        });
        Ok(thread)
    }

    /// What was asked for and not granted, a line each with what to do; empty if all was.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        missing(&self.granted, self.memory.as_ref())
    }

    /// Tells what is missing of the threads that were started since this was last asked; an error if all of it is required.
    ///
    /// # Errors
    /// The lines of [`Crew::missing`], if `realtime.mode` is "require".
    pub fn report(&mut self) -> Result<(), String> {
        let from = std::mem::replace(&mut self.reported, self.granted.len());
        let new = self.granted.get(from..).unwrap_or_default();
        for seat in new {
            log::info!(
                "thread {}: SCHED_FIFO {}, cores {:?}",
                seat.name,
                seat.has.fifo,
                seat.has.cores
            );
        }
        let memory = self.memory.as_ref().filter(|_| from == 0);
        if let Some(memory) = memory {
            log::info!("memory: {} kB locked", memory.locked_kib);
        }
        let mut missing = missing(new, memory);
        // Granted, and yet not cores of its own.
        let asked = new.iter();
        let asked = asked.map(|seat| (seat.name, seat.asked.cores.as_slice()));
        missing.extend(cores::shared(asked, &Tree::seen()));
        if self.realtime.mode == RealtimeMode::Require && !missing.is_empty() {
            return Err(missing.join("\n  "));
        }
        missing.iter().for_each(|line| log::warn!("{line}"));
        Ok(())
    }
}

fn missing(granted: &[Granted], memory: Option<&MemoryLock>) -> Vec<String> {
    let mut lines = Vec::new();
    let denied: Vec<String> = granted
        .iter()
        .filter(|seat| seat.has.fifo != seat.asked.fifo)
        .map(|seat| format!("{} {}", seat.name, seat.asked.fifo))
        .collect();
    if !denied.is_empty() {
        lines.push(format!(
            "SCHED_FIFO priorities were not granted to {} (RLIMIT_RTPRIO is {}): start as a service with \
             LimitRTPRIO=85, or give the user \"- rtprio 85\" in /etc/security/limits.conf and log in again",
            denied.join(", "),
            realtime::priority_limit(),
        ));
    }
    for seat in granted {
        if !seat.asked.cores.is_empty() && seat.has.cores != seat.asked.cores {
            lines.push(format!(
                "realtime.cores.{}: asked for {:?}, the kernel gives {:?}: name cores that exist (see nproc --all) \
                 and that the service may use (AllowedCPUs=, cpuset)",
                seat.name, seat.asked.cores, seat.has.cores,
            ));
        }
    }
    if let Some(memory) = memory
        && memory.locked_kib == 0
    {
        lines.push(format!(
            "memory could not be locked (VmLck 0 kB, RLIMIT_MEMLOCK {} bytes): start as a service with \
             LimitMEMLOCK=infinity, or give the user \"- memlock unlimited\" in /etc/security/limits.conf and log \
             in again; without swap, realtime.lock_memory = false is no loss",
            memory.limit_bytes,
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;
    use crate::runtime::threads;

    fn crew(mode: RealtimeMode, core: usize) -> Crew {
        let realtime = Realtime {
            mode,
            lock_memory: false,
            cores: [("telemetry".to_owned(), vec![core])].into(),
        };
        let mut crew = Crew::new(&realtime, None);
        let thread = crew.spawn(threads::TELEMETRY, clock::now(), Beat::new(), |_| {});
        assert!(
            thread
                .and_then(|thread| thread.join().map_err(|_| std::io::Error::other("panic")))
                .is_ok()
        );
        crew
    }

    #[test]
    fn what_was_asked_and_not_granted_is_told_and_refused_when_required() {
        let missing = crew(RealtimeMode::Prefer, 1_000).missing();
        assert!(
            missing[0].contains("realtime.cores.telemetry: asked for [1000]"),
            "{missing:?}"
        );
        assert_eq!(crew(RealtimeMode::Prefer, 1_000).report(), Ok(()));
        assert!(crew(RealtimeMode::Require, 1_000).report().is_err());
        let mine = crew(RealtimeMode::Require, 0).granted[0].has.clone();
        assert!(mine.cores == [0] || !mine.cores.contains(&0), "{mine:?}");
    }

    #[test]
    fn a_panic_is_caught_at_the_root_and_seen_by_others() {
        let mut crew = Crew::new(
            &Realtime {
                mode: RealtimeMode::Off,
                lock_memory: false,
                ..Realtime::default()
            },
            None,
        );
        let thread = crew.spawn(threads::TELEMETRY, clock::now(), Beat::new(), |_| {
            panic!("on purpose")
        });
        assert!(thread.expect("a thread").join().is_ok());
        assert!(crew.failed.load(Ordering::Acquire));
    }
}
