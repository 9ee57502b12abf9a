// SPDX-License-Identifier: Apache-2.0
//! Cells of plain words between two processes: the newest value ([`writer`], [`reader`]) and a queue ([`producer`], [`consumer`]). Wait-free at both
//! ends, and neither end trusts the other: an index that cannot be is taken for one that can, a count that cannot be is
//! told ([`Broken`]). What was in a cell is for its reader to judge.
//!
//! Over memory of one process they are the same cells; so they can be checked under every interleaving (`tests/loom`).

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};
use std::ops::Deref;
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts in the shared words that no end of this cell has written: the other process wrote where it should not. The cell
/// is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shared memory was written to by something else")]
pub struct Broken;

/// Words that both ends reach.
pub trait Words: Deref<Target = [AtomicU64]> {}
impl<T: Deref<Target = [AtomicU64]>> Words for T {}

/// Words that a newest-value cell of `slot` words takes.
#[must_use]
pub const fn newest_words(slot: usize) -> usize {
    1 + 3 * slot
}

/// Words that a queue of `slots` entries of at most `slot` words takes.
#[must_use]
pub const fn queue_words(slot: usize, slots: usize) -> usize {
    2 + slots * (1 + slot)
}

/// The slot between the two ends is told by its number, with this bit if nobody has read it yet. Memory that is all zero
/// is a cell in which nothing was written: writer at slot 1, reader at slot 2, slot 0 between them.
const FRESH: u64 = 4;
const SLOT: u64 = 3;

/// The writing end of a newest-value cell.
#[derive(Debug)]
pub struct Writer<W> {
    words: W,
    slot: u64,
}

/// The reading end of a newest-value cell.
#[derive(Debug)]
pub struct Reader<W> {
    words: W,
    slot: u64,
}

/// The writing end over words that are all zero.
pub fn writer<W: Words>(words: W) -> Writer<W> {
    Writer { words, slot: 1 }
}

/// The reading end over words that were all zero when the writer began.
pub fn reader<W: Words>(words: W) -> Reader<W> {
    Reader { words, slot: 2 }
}

/// The words of slot `number`; an impossible number is taken for 0.
fn slot(words: &[AtomicU64], number: u64) -> &[AtomicU64] {
    let each = words.len().saturating_sub(1) / 3;
    let from = 1 + each * if number < 3 { number as usize } else { 0 };
    words.get(from..from + each).unwrap_or_default()
}

impl<W: Words> Writer<W> {
    /// Lets `fill` write the next value (an old one stands there) and publishes it.
    pub fn put(&mut self, fill: impl FnOnce(&[AtomicU64])) {
        fill(slot(&self.words, self.slot));
        if let Some(between) = self.words.first() {
            // Release: who takes the slot sees what was written. Acquire: who wrote over it was done reading.
            self.slot = between.swap(self.slot | FRESH, Ordering::AcqRel) & SLOT;
        }
    }
}

impl<W: Words> Reader<W> {
    /// The newest value, if there is one that was not read yet.
    pub fn fresh(&mut self) -> Option<&[AtomicU64]> {
        let between = self.words.first()?;
        if between.load(Ordering::Relaxed) & FRESH == 0 {
            return None;
        }
        self.slot = between.swap(self.slot, Ordering::AcqRel) & SLOT;
        Some(slot(&self.words, self.slot))
    }
}

/// The writing end of a queue.
#[derive(Debug)]
pub struct Producer<W> {
    words: W,
    slot: usize,
    written: u64,
}

/// The reading end of a queue.
#[derive(Debug)]
pub struct Consumer<W> {
    words: W,
    slot: usize,
    read: u64,
}

/// The writing end of a queue of entries of at most `slot` words, over words that are all zero.
pub fn producer<W: Words>(words: W, slot: usize) -> Producer<W> {
    Producer {
        words,
        slot,
        written: 0,
    }
}

/// The reading end of such a queue, over words that were all zero when the writer began.
pub fn consumer<W: Words>(words: W, slot: usize) -> Consumer<W> {
    Consumer {
        words,
        slot,
        read: 0,
    }
}

/// Entries that fit.
fn slots(words: &[AtomicU64], slot: usize) -> u64 {
    (words.len().saturating_sub(2) / (1 + slot)) as u64
}

/// Where entry `number` stands: its length, then its words.
fn entry(words: &[AtomicU64], slot: usize, number: u64) -> &[AtomicU64] {
    let index = number.checked_rem(slots(words, slot)).unwrap_or(0) as usize;
    let from = 2 + index * (1 + slot);
    words.get(from..from + 1 + slot).unwrap_or_default()
}

impl<W: Words> Producer<W> {
    /// Appends an entry. False, and nothing is written, where the queue is full or the entry too long.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn push(&mut self, values: &[u64]) -> Result<bool, Broken> {
        let [written, read, ..] = &*self.words else {
            return Err(Broken);
        };
        // Acquire: the reader is done with what it says it has read.
        let waiting = self.written.wrapping_sub(read.load(Ordering::Acquire));
        let slots = slots(&self.words, self.slot);
        if waiting > slots {
            return Err(Broken);
        }
        if waiting == slots || values.len() > self.slot {
            return Ok(false);
        }
        let [len, room @ ..] = entry(&self.words, self.slot, self.written) else {
            return Err(Broken);
        };
        len.store(values.len() as u64, Ordering::Relaxed);
        for (word, value) in room.iter().zip(values) {
            word.store(*value, Ordering::Relaxed);
        }
        self.written = self.written.wrapping_add(1);
        // Release: who sees the count sees the entry.
        written.store(self.written, Ordering::Release);
        Ok(true)
    }
}

impl<W: Words> Consumer<W> {
    /// Takes the oldest entry into `into` (which never grows beyond an entry's words). False where there is none.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn pop(&mut self, into: &mut Vec<u64>) -> Result<bool, Broken> {
        into.clear();
        let [written, read, ..] = &*self.words else {
            return Err(Broken);
        };
        let waiting = written.load(Ordering::Acquire).wrapping_sub(self.read);
        if waiting == 0 {
            return Ok(false);
        }
        let [len, room @ ..] = entry(&self.words, self.slot, self.read) else {
            return Err(Broken);
        };
        let len = usize::try_from(len.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
        let used = room.get(..len).ok_or(Broken)?;
        if waiting > slots(&self.words, self.slot) {
            return Err(Broken);
        }
        into.extend(used.iter().map(|word| word.load(Ordering::Relaxed)));
        self.read = self.read.wrapping_add(1);
        // Release: the writer may write over it only when it was read.
        read.store(self.read, Ordering::Release);
        Ok(true)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn words(count: usize) -> Arc<[AtomicU64]> {
        (0..count).map(|_| AtomicU64::new(0)).collect()
    }

    #[test]
    fn the_newest_of_many_is_read_once() {
        let shared = words(newest_words(2));
        let (mut writer, mut reader) = (writer(shared.clone()), reader(shared));
        assert!(reader.fresh().is_none());
        for n in 1..=9 {
            writer.put(|slot| {
                slot.iter()
                    .for_each(|word| word.store(n, Ordering::Relaxed))
            });
        }
        let seen: Vec<u64> = reader
            .fresh()
            .into_iter()
            .flatten()
            .map(|word| word.load(Ordering::Relaxed))
            .collect();
        assert_eq!(seen, [9, 9]);
        assert!(reader.fresh().is_none());
    }

    #[test]
    fn a_queue_keeps_order_and_says_when_it_is_full() {
        let shared = words(queue_words(3, 2));
        let (mut producer, mut consumer) = (producer(shared.clone(), 3), consumer(shared, 3));
        let mut got = Vec::new();
        assert_eq!(consumer.pop(&mut got), Ok(false));
        for n in 0..100 {
            for entry in [&[n, n + 1][..], &[n + 2], &[]] {
                let room = !entry.is_empty();
                assert_eq!(producer.push(entry), Ok(room), "the third finds it full");
            }
            assert_eq!(consumer.pop(&mut got), Ok(true));
            assert_eq!(got, [n, n + 1]);
            assert_eq!(producer.push(&[0; 4]), Ok(false), "too long");
            assert_eq!(consumer.pop(&mut got), Ok(true));
            assert_eq!(got, [n + 2]);
            assert_eq!(consumer.pop(&mut got), Ok(false));
        }
    }

    #[test]
    fn an_end_gone_mad_neither_hangs_nor_breaks_the_other() {
        for bad in [3, 5, 7, u64::MAX, 1 << 63] {
            let shared = words(newest_words(4));
            let (mut writer, mut reader) = (writer(shared.clone()), reader(shared.clone()));
            for _ in 0..3 {
                shared[0].store(bad, Ordering::Relaxed);
                assert!(reader.fresh().is_none_or(|slot| slot.len() == 4));
                shared[0].store(bad, Ordering::Relaxed);
                writer.put(|slot| assert_eq!(slot.len(), 4));
            }
            let shared = words(queue_words(4, 3));
            let (mut producer, mut consumer) =
                (producer(shared.clone(), 4), consumer(shared.clone(), 4));
            let mut got = Vec::with_capacity(4);
            // More written than there is room for; more read than was written; an entry longer than its place.
            shared[0].store(bad.max(4), Ordering::Relaxed);
            assert_eq!(consumer.pop(&mut got), Err(Broken));
            // (One less than nothing read is one that waits, as after a wrap.)
            shared[1].store(bad.min(1 << 63), Ordering::Relaxed);
            assert_eq!(producer.push(&[1, 2, 3, 4]), Err(Broken));
            shared[0].store(1, Ordering::Relaxed);
            shared[2].store(bad.max(5), Ordering::Relaxed);
            assert_eq!(consumer.pop(&mut got), Err(Broken));
            assert!(got.is_empty());
        }
        let none = words(0);
        assert!(reader(none.clone()).fresh().is_none());
        assert_eq!(producer(none.clone(), 1).push(&[1]), Err(Broken));
        assert_eq!(consumer(none, 1).pop(&mut Vec::new()), Err(Broken));
    }

    #[test]
    fn across_threads_no_value_is_torn_and_none_of_a_queue_is_lost() {
        const N: u64 = if cfg!(miri) { 100 } else { 200_000 };
        let cell = words(newest_words(8));
        let line = words(queue_words(3, 16));
        let (their_cell, their_line) = (cell.clone(), line.clone());
        let other = std::thread::spawn(move || {
            let (mut writer, mut producer) = (writer(their_cell), producer(their_line, 3));
            for n in 1..=N {
                writer.put(|slot| {
                    slot.iter()
                        .for_each(|word| word.store(n, Ordering::Relaxed))
                });
                while producer.push(&[n, n, n]) == Ok(false) {
                    std::thread::yield_now();
                }
            }
        });
        let (mut reader, mut consumer) = (reader(cell), consumer(line, 3));
        let (mut got, mut next, mut newest) = (Vec::new(), 1, 0);
        while next <= N {
            if let Some(slot) = reader.fresh() {
                let first = slot[0].load(Ordering::Relaxed);
                assert!(
                    slot.iter()
                        .all(|word| word.load(Ordering::Relaxed) == first)
                );
                assert!(first > newest);
                newest = first;
            }
            if consumer.pop(&mut got) == Ok(true) {
                assert_eq!(got, [next; 3]);
                next += 1;
            }
        }
        other.join().expect("no panic");
        let last = reader
            .fresh()
            .map_or(newest, |slot| slot[0].load(Ordering::Relaxed));
        assert_eq!(last, N);
    }
}
