// SPDX-License-Identifier: Apache-2.0
//! The heartbeat table and the cells between processes of `src/sync`, the same files, under every interleaving that the
//! memory model allows.
//!
//! The mailbox is not here: what it is made of (`triple_buffer`, `std::thread::park_timeout`) has no counterpart in
//! loom, and a model of it would check the model.
#![cfg(loom)]

pub mod core;
#[path = "../../../src/sync/heartbeat.rs"]
pub mod heartbeat;
#[path = "../../../src/sync/shared.rs"]
pub mod shared;

#[cfg(test)]
mod tests {
    use crate::core::units::Mono;
    use crate::heartbeat::{Beat, MARKS};

    fn owner(beat: &Beat) -> loom::thread::JoinHandle<()> {
        let own = beat.clone();
        loom::thread::spawn(move || {
            own.mark(Mono(10));
            own.mark(Mono(20));
            own.mark(Mono(30));
        })
    }

    // The reader stands on a thread of its own: loom then tries what it would not with the first thread. With the
    // store of the count relaxed, the second fails; with `last` read from the ring, the first does.

    #[test]
    fn a_reader_never_sees_time_go_back_nor_a_mark_that_was_not_made() {
        loom::model(|| {
            let beat = Beat::new();
            let (owner, read) = (owner(&beat), beat.clone());
            let reader = loom::thread::spawn(move || {
                let (first, second) = (read.last(), read.last());
                assert!(second >= first, "{second:?} after {first:?}");
                assert!(
                    first.is_none_or(|last| [10, 20, 30].contains(&last.0)),
                    "{first:?}"
                );
            });
            owner.join().expect("no panic");
            reader.join().expect("no panic");
            assert_eq!(beat.last(), Some(Mono(30)));
        });
    }

    #[test]
    fn a_record_taken_while_the_owner_marks_holds_only_marks_that_were_made() {
        loom::model(|| {
            let beat = Beat::new();
            let (owner, read) = (owner(&beat), beat.clone());
            let reader = loom::thread::spawn(move || {
                let marks: Vec<u64> = read.marks().map(|mark| mark.0).collect();
                assert!(marks.len() <= MARKS);
                assert!(
                    marks.iter().all(|mark| [10, 20, 30].contains(mark)),
                    "{marks:?}"
                );
            });
            owner.join().expect("no panic");
            reader.join().expect("no panic");
        });
    }

    /// Shared words, as two ends hold them.
    #[derive(Clone)]
    struct Words(std::sync::Arc<Vec<loom::sync::atomic::AtomicU64>>);

    impl std::ops::Deref for Words {
        type Target = [loom::sync::atomic::AtomicU64];

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }

    fn words(count: usize) -> Words {
        let word = |_| loom::sync::atomic::AtomicU64::new(0);
        Words(std::sync::Arc::new((0..count).map(word).collect()))
    }

    // With either ordering of the swap relaxed, this fails: a value of two halves.
    #[test]
    fn the_newest_value_is_whole_and_never_older_than_one_read_before() {
        use loom::sync::atomic::Ordering::Relaxed;
        loom::model(|| {
            let cell = words(crate::shared::newest_words(2));
            let mut writer = crate::shared::writer(cell.clone());
            let other = loom::thread::spawn(move || {
                for n in 1..=2 {
                    writer.put(|slot| slot.iter().for_each(|word| word.store(n, Relaxed)));
                }
            });
            let mut reader = crate::shared::reader(cell);
            let mut before = 0;
            let mut read = |must: Option<u64>| {
                let value = reader
                    .fresh()
                    .map(|slot| [slot[0].load(Relaxed), slot[1].load(Relaxed)]);
                if let Some([first, second]) = value {
                    assert_eq!(first, second, "torn");
                    assert!(first > before, "{first} after {before}");
                    before = first;
                }
                assert!(
                    must.is_none_or(|must| before == must),
                    "the last one is lost"
                );
            };
            read(None);
            read(None);
            other.join().expect("no panic");
            read(Some(2));
        });
    }

    // With the release or the acquire of the written count relaxed, this fails: an entry that was not written yet. Those of the
    // read count keep a load from moving behind a store, which loom does not try.
    #[test]
    fn a_queue_gives_each_entry_whole_once_and_in_order() {
        loom::model(|| {
            let line = words(crate::shared::queue_words(1, 1));
            let mut producer = crate::shared::producer(line.clone(), 1);
            let other = loom::thread::spawn(move || {
                let mut pushed = Vec::new();
                for n in 1..=3 {
                    if producer.push(&[n]) == Ok(true) {
                        pushed.push(n);
                    }
                }
                pushed
            });
            let mut consumer = crate::shared::consumer(line, 1);
            let (mut into, mut popped) = (Vec::new(), Vec::new());
            for _ in 0..2 {
                if consumer.pop(&mut into) == Ok(true) {
                    popped.extend_from_slice(&into);
                }
            }
            let pushed = other.join().expect("no panic");
            while consumer.pop(&mut into) == Ok(true) {
                popped.extend_from_slice(&into);
            }
            assert_eq!(popped, pushed);
        });
    }
}
