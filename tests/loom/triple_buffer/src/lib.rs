// SPDX-License-Identifier: Apache-2.0
//! Stands in for the crate of this name under loom: the same word between the two ends, swapped and looked at with the orderings of
//! its version 9. What lies in the three buffers is not modelled, nor is the crate itself checked; who builds on it is.

use loom::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const FRESH: u8 = 4;
const INDEX: u8 = 3;

#[derive(Debug)]
struct Shared<T> {
    buffers: [Mutex<T>; 3],
    between: AtomicU8,
}

impl<T> Shared<T> {
    fn exchange(&self, index: u8, value: &mut T) {
        let buffer = &self.buffers[usize::from(index)];
        let mut buffer = buffer.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut *buffer, value);
    }
}

/// The writing end.
#[derive(Debug)]
pub struct Input<T> {
    shared: Arc<Shared<T>>,
    index: u8,
    draft: T,
}

/// The reading end.
#[derive(Debug)]
pub struct Output<T> {
    shared: Arc<Shared<T>>,
    index: u8,
    read: T,
}

pub fn triple_buffer<T: Clone>(initial: &T) -> (Input<T>, Output<T>) {
    let shared = Arc::new(Shared {
        buffers: std::array::from_fn(|_| Mutex::new(initial.clone())),
        between: AtomicU8::new(0),
    });
    let input = Input {
        shared: Arc::clone(&shared),
        index: 1,
        draft: initial.clone(),
    };
    let output = Output {
        shared,
        index: 2,
        read: initial.clone(),
    };
    (input, output)
}

impl<T> Input<T> {
    pub fn write(&mut self, value: T) {
        self.draft = value;
        self.publish();
    }

    pub fn input_buffer_mut(&mut self) -> &mut T {
        &mut self.draft
    }

    pub fn publish(&mut self) -> bool {
        self.shared.exchange(self.index, &mut self.draft);
        let between = &self.shared.between;
        let before = between.swap(self.index | FRESH, Ordering::AcqRel);
        self.index = before & INDEX;
        before & FRESH != 0
    }
}

impl<T> Output<T> {
    pub fn updated(&self) -> bool {
        self.shared.between.load(Ordering::Relaxed) & FRESH != 0
    }

    pub fn read(&mut self) -> &T {
        if self.updated() {
            let between = &self.shared.between;
            self.index = between.swap(self.index, Ordering::AcqRel) & INDEX;
            self.shared.exchange(self.index, &mut self.read);
        }
        &self.read
    }
}
