// SPDX-License-Identifier: Apache-2.0
//! Mailbox with a deadline: "a newer value, or this much time".
//!
//! One writer, one reader, newest value wins; the writer never waits (a triple buffer and an unpark). Use it where the
//! reader must act at a deadline even if nothing comes. Where the reader polls at its own pace, use `triple_buffer`
//! as it is; where every value counts, use an `rtrb` queue.

use crate::core::units::Mono;
#[cfg(loom)]
use loom::{
    sync::atomic::{Ordering, fence},
    thread::{Thread, current},
};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
#[cfg(not(loom))]
use std::{
    sync::atomic::{Ordering, fence},
    thread::{Thread, current, park_timeout},
};
use triple_buffer::{Input, Output};

/// loom knows no time: who is not woken waits for ever, and it says so.
#[cfg(loom)]
fn park_timeout(_: Duration) {
    loom::thread::park();
}

/// Makes a mailbox; both halves start with `initial`, which does not count as news.
#[must_use]
pub fn mailbox<T: Clone + Send>(initial: &T) -> (Sender<T>, Receiver<T>) {
    let (input, output) = triple_buffer::triple_buffer(initial);
    let reader = Arc::new(OnceLock::new());
    (
        Sender {
            input,
            reader: Arc::clone(&reader),
        },
        Receiver { output, reader },
    )
}

/// The writer's half.
#[derive(Debug)]
pub struct Sender<T: Send> {
    input: Input<T>,
    reader: Arc<OnceLock<Thread>>,
}

impl<T: Send> Sender<T> {
    /// Publishes `value` and wakes the reader. Never blocks.
    pub fn put(&mut self, value: T) {
        self.input.write(value);
        self.wake();
    }

    /// Lets `fill` write the next value in place (it finds an old one there), publishes it and wakes the reader.
    /// For values too large to be moved.
    pub fn put_with(&mut self, fill: impl FnOnce(&mut T)) {
        fill(self.input.input_buffer_mut());
        self.input.publish();
        self.wake();
    }

    /// What nobody reads: an old value, which the next one is written over.
    pub fn unread(&mut self) -> &mut T {
        self.input.input_buffer_mut()
    }

    fn wake(&self) {
        // A reader that waits for the first time gives its name, then looks for a value; here it is the other way round.
        // Between two fences one of the two sees what the other did. Afterwards the name is there and no fence is needed.
        let named = self.reader.get().or_else(|| {
            fence(Ordering::SeqCst);
            self.reader.get()
        });
        if let Some(reader) = named {
            reader.unpark();
        }
    }
}

/// The reader's half. Stays on one thread once it has waited.
#[derive(Debug)]
pub struct Receiver<T: Send> {
    output: Output<T>,
    reader: Arc<OnceLock<Thread>>,
}

impl<T: Send> Receiver<T> {
    /// The newest value, new or not.
    pub fn latest(&mut self) -> &T {
        self.output.read()
    }

    /// Waits until `deadline` for a value newer than the last one read. `None` when none came. The clock is handed
    /// in: this room reads none.
    pub fn wait_until(&mut self, deadline: Mono, now: fn() -> Mono) -> Option<&T> {
        if self.reader.get().is_none() {
            self.reader.get_or_init(current);
            // See `wake`.
            fence(Ordering::SeqCst);
        }
        while !self.output.updated() {
            let left_ns = deadline.since_ns(now());
            if left_ns == 0 {
                return None;
            }
            // May return early (spuriously, or for an older put): the loop looks again.
            park_timeout(Duration::from_nanos(left_ns));
        }
        Some(self.output.read())
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::clock;

    fn within(receiver: &mut Receiver<i32>, ms: u64) -> Option<i32> {
        receiver
            .wait_until(clock::now().plus_ns(ms * 1_000_000), clock::now)
            .copied()
    }

    #[test]
    fn silence_ends_at_the_deadline() {
        let (_sender, mut receiver) = mailbox(&0);
        assert_eq!(within(&mut receiver, 5), None);
    }

    #[test]
    fn the_newest_of_many_wins_and_is_news_once() {
        let (mut sender, mut receiver) = mailbox(&0);
        (1..=9).for_each(|n| sender.put(n));
        assert_eq!(within(&mut receiver, 0), Some(9));
        assert_eq!(within(&mut receiver, 0), None);
        assert_eq!(*receiver.latest(), 9);
    }

    #[test]
    fn a_reader_asleep_is_woken() {
        let (mut sender, mut receiver) = mailbox(&0);
        let reader = std::thread::spawn(move || within(&mut receiver, 60_000));
        sender.put_with(|slot| *slot = 7);
        // The put may come before the reader sleeps or after: both must end at once, not after a minute.
        assert_eq!(reader.join().ok(), Some(Some(7)));
    }
}
