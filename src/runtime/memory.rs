// SPDX-License-Identifier: Apache-2.0
//! Keeps on disk what the next start must know: that a stop is latched, what the cameras showed at the last arming, and no longer
//! that the robot is armed, or that a thread which came back was silent. A thread of its
//! own, which nobody waits for and no ping to the service manager depends on: a disk that does not answer for seconds ends no
//! robot at work.

use crate::core::supervisor::Mode;
use crate::core::units::MS;
use crate::runtime::clock;
use crate::runtime::crash::Recorder;
use crate::runtime::latch::LatchFile;
use crate::runtime::operations::Desk;
use crate::runtime::threads::Seat;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A latched stop is on disk within so long, as far as the disk allows.
const PERIOD_NS: u64 = 20 * MS;

/// What outlives the process.
#[derive(Debug)]
pub struct Memory {
    /// Crashes, and whether the robot is armed.
    pub recorder: Arc<Recorder>,
    /// A latched stop.
    pub latch: LatchFile,
}

/// The thread.
pub fn run(mut memory: Memory, desk: &Desk, ending: &AtomicBool, seat: &Seat) {
    let (mut latch_told, mut views_told, mut exchanged_told) = (false, false, false);
    loop {
        // Once more after the end: a reset may have been the last thing that somebody asked for.
        let last = ending.load(Ordering::Relaxed);
        let now = clock::now();
        seat.beat.mark(now);
        let (decision, as_of) = desk.decision();
        // While booting nothing has been decided yet: what is on disk stands.
        if decision.mode != Mode::Boot {
            tell_once(&mut latch_told, memory.latch.keep(decision.latched));
        }
        // A stop that is latched, and is not on disk, must be known of in another way.
        let moves = decision.mode.armed() || matches!(decision.mode, Mode::Stopping | Mode::Boot);
        if !moves && !latch_told {
            memory.recorder.armed.settle(as_of);
        }
        memory.recorder.forget_silence();
        tell_once(&mut views_told, memory.recorder.views.write());
        // Found by the watchdog, which writes no lines.
        let exchanged = desk
            .exchanged()
            .map(|words| words + ": no policy moves the robot");
        tell_once(&mut exchanged_told, exchanged.map_or(Ok(()), Err));
        if last {
            return;
        }
        clock::sleep_until(now.plus_ns(PERIOD_NS));
    }
}

/// Tells of the first failure of those that follow one another.
fn tell_once<E: std::fmt::Display>(told: &mut bool, kept: Result<(), E>) {
    if let (Err(fault), false) = (&kept, *told) {
        log::error!("{fault}");
    }
    *told = kept.is_err();
}
