// SPDX-License-Identifier: Apache-2.0
//! Capture: one thread a camera. Each frame goes to inference and to the page; nothing queues.

use crate::core::units::MS;
use crate::ports::{Frame, Source, SourceFault};
use crate::runtime::clock;
use crate::runtime::threads::Seat;
use crate::sync::mailbox;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The thread comes round this often without a frame, for its heartbeat.
const IDLE_NS: u64 = 100 * MS;

/// Everything a capture thread touches.
#[derive(Debug)]
pub struct CaptureIo {
    /// To inference.
    pub frames: mailbox::Sender<Frame>,
    /// To the page.
    pub shown: triple_buffer::Input<Frame>,
    /// Capture time of the newest good frame, for the watchdog.
    pub newest_ns: Arc<AtomicU64>,
    /// Frames refused.
    pub refused: Arc<AtomicU64>,
    /// Set when the pipeline ends.
    pub ending: Arc<AtomicBool>,
}

/// The capture thread.
pub fn run(mut source: Box<dyn Source>, mut frame: Frame, mut io: CaptureIo, seat: &Seat) {
    while !io.ending.load(Ordering::Relaxed) {
        let now = clock::now();
        seat.beat.mark(now);
        match source.next_frame(now.plus_ns(IDLE_NS), &mut frame) {
            Ok(()) => {
                io.frames.put_with(|slot| slot.clone_from(&frame));
                io.newest_ns.store(frame.captured.0, Ordering::Relaxed);
                io.shown.input_buffer_mut().clone_from(&frame);
                io.shown.publish();
            }
            Err(SourceFault::Timeout) => {}
            Err(SourceFault::Refused(_)) => {
                io.refused.fetch_add(1, Ordering::Relaxed);
            }
            // The watchdog sees that no frame comes; the page and the log say why.
            Err(SourceFault::Closed(reason)) => {
                log::warn!("camera: {reason}");
                return;
            }
        }
    }
}
