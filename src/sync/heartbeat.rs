// SPDX-License-Identifier: Apache-2.0
//! Heartbeats: when each thread last came round, in one table that anyone may read at any time.

use crate::core::units::Mono;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One thread's own line in the table. Marking is one relaxed store.
#[derive(Clone, Debug)]
pub struct Beat(Arc<AtomicU64>);

impl Beat {
    /// A beat that has never been marked.
    #[must_use]
    pub fn new() -> Beat {
        Beat(Arc::new(AtomicU64::new(0)))
    }

    /// "I came round at `now`."
    pub fn mark(&self, now: Mono) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    /// When it was last marked; `None` before the first time.
    #[must_use]
    pub fn last(&self) -> Option<Mono> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            ns => Some(Mono(ns)),
        }
    }
}

impl Default for Beat {
    fn default() -> Self {
        Beat::new()
    }
}
