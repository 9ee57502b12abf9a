// SPDX-License-Identifier: Apache-2.0
//! What comes to the sink of a pipeline, counted at the sink's pad: how many pictures were passed over between two that were taken,
//! and how many never came, by the numbers that they have.
//!
//! The thread of the pipeline that brings pictures tells, one at a time; the camera's thread asks. Neither waits for the other, and
//! neither allocates.

use crate::ports::Counts;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Pictures whose addresses are remembered. Between the moment that one is taken and the question for its number hardly one comes.
const REMEMBERED: usize = 16;

/// What came.
#[derive(Default)]
struct Came {
    count: AtomicU64,
    /// Addresses of the newest buffers, each at its number.
    addresses: [AtomicUsize; REMEMBERED],
    /// The offset of the next buffer, if none is missing; 0: not known.
    next: AtomicU64,
    missing: AtomicU64,
}

impl Came {
    /// One more, which the sink is about to get.
    fn tell(&self, buffer: &gst::BufferRef) {
        // Pictures that are numbered say that each is one long. Parts of a file have their place there, in bytes, and others nothing.
        let offset = buffer.offset();
        let after = offset.checked_add(1);
        let after = after.filter(|after| *after == buffer.offset_end());
        let next = self.next.swap(after.unwrap_or(0), Ordering::Relaxed);
        let gap = offset.wrapping_sub(next);
        // A number that went back is a source that began anew, not four thousand million lost pictures.
        if after.is_some() && next != 0 && gap < 1 << 31 {
            self.missing.fetch_add(gap, Ordering::Relaxed);
        }
        let count = self.count.load(Ordering::Relaxed);
        if let Some(remembered) = self.at(count) {
            remembered.store(address(buffer), Ordering::Relaxed);
        }
        self.count.store(count + 1, Ordering::Release);
    }

    fn at(&self, number: u64) -> Option<&AtomicUsize> {
        self.addresses.get(number as usize % REMEMBERED)
    }

    /// How many had come when this one had. It is held, so that no newer one has its address: the newest that has is it.
    fn up_to(&self, buffer: &gst::BufferRef) -> u64 {
        let count = self.count.load(Ordering::Acquire);
        let oldest = count.saturating_sub(REMEMBERED as u64);
        let is_it = |number: &u64| {
            let remembered = self.at(*number);
            remembered.is_some_and(|found| found.load(Ordering::Relaxed) == address(buffer))
        };
        let found = (oldest..count).rev().find(is_it);
        found.map_or(count, |number| number + 1)
    }
}

/// Where it is, as a number to compare.
fn address(buffer: &gst::BufferRef) -> usize {
    std::ptr::from_ref(buffer).addr()
}

/// Watches one sink, for as long as its pipeline lives.
pub(super) struct Watch {
    came: Arc<Came>,
    /// Of those that came, up to which they were taken or passed over.
    taken: u64,
    /// Of those that are missing, how many are counted.
    missing: u64,
}

impl Watch {
    /// Before the pipeline starts.
    pub(super) fn new(sink: &gst_app::AppSink) -> Option<Watch> {
        let came: Arc<Came> = Arc::default();
        let told = Arc::clone(&came);
        let pictures = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        let pad = sink.static_pad("sink")?;
        pad.add_probe(pictures, move |_, info| {
            if let Some(buffer) = info.buffer() {
                told.tell(buffer);
            }
            if let Some(list) = info.buffer_list() {
                list.iter().for_each(|buffer| told.tell(buffer));
            }
            gst::PadProbeReturn::Ok
        })?;
        Some(Watch {
            came,
            taken: 0,
            missing: 0,
        })
    }

    /// Counts what is known to be lost now that this one was taken.
    pub(super) fn taken(&mut self, sample: &gst::SampleRef, counts: &mut Counts) {
        let Some(buffer) = sample.buffer() else {
            return;
        };
        let up_to = self.came.up_to(buffer);
        counts.stale += up_to.saturating_sub(self.taken + 1);
        self.taken = self.taken.max(up_to);
        let missing = self.came.missing.load(Ordering::Relaxed);
        counts.missing += missing - self.missing;
        self.missing = missing;
    }
}
