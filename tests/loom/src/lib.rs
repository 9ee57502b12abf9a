// SPDX-License-Identifier: Apache-2.0
//! The heartbeat table, what a person holds, the mailbox and the cells between processes of `src/sync`, the same files, under every interleaving that
//! the memory model allows.
//!
//! Of the mailbox it is the waiting and waking that is checked: its `triple_buffer` is a stand-in with the orderings of the
//! crate, the standard library's `OnceLock` takes its turn as if it were one step, and there is no time, so that a wake which
//! is lost is a thread that waits for ever.
#![cfg(loom)]

pub mod core;
#[path = "../../../src/sync/heartbeat.rs"]
pub mod heartbeat;
#[path = "../../../src/sync/hold.rs"]
pub mod hold;
#[path = "../../../src/sync/mailbox.rs"]
pub mod mailbox;
#[path = "../../../src/sync/shared.rs"]
pub mod shared;

#[cfg(test)]
mod tests {
    use crate::core::units::Mono;
    use crate::heartbeat::{Beat, MARKS};
    use crate::hold::Hold;

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

    /// The beginning of time, at which it stands.
    fn begun() -> Mono {
        Mono(0)
    }

    /// Time is over.
    fn over() -> Mono {
        Mono(9)
    }

    const DEADLINE: Mono = Mono(1);

    // Without either fence, this ends in a deadlock: a value that came just as the reader waited for the first time.
    #[test]
    fn a_reader_that_waits_is_woken_whenever_the_value_comes() {
        loom::model(|| {
            let (mut sender, mut receiver) = crate::mailbox::mailbox(&0);
            // First, or loom would not let it come before the reader has given its name, which is no step to it.
            let writer = loom::thread::spawn(move || sender.put(7));
            let reader = loom::thread::spawn(move || {
                let value = receiver.wait_until(DEADLINE, begun);
                assert_eq!(value, Some(&7));
            });
            writer.join().expect("no panic");
            reader.join().expect("no panic");
        });
    }

    #[test]
    fn the_newest_of_two_values_is_never_slept_over() {
        loom::model(|| {
            let (mut sender, mut receiver) = crate::mailbox::mailbox(&0);
            let reader = loom::thread::spawn(move || {
                let mut newest = 0;
                while newest < 2 {
                    let value = receiver.wait_until(DEADLINE, begun);
                    let value = *value.expect("time stands still");
                    assert!(value > newest, "{value} after {newest}");
                    newest = value;
                }
            });
            let writer = loom::thread::spawn(move || {
                sender.put(1);
                sender.put_with(|slot| *slot = 2);
            });
            writer.join().expect("no panic");
            reader.join().expect("no panic");
        });
    }

    /// As the kernel may wake it, or time that runs out.
    #[test]
    fn a_wake_for_nothing_is_no_news() {
        loom::model(|| {
            let (mut sender, mut receiver) = crate::mailbox::mailbox(&0);
            let reader = loom::thread::spawn(move || {
                let value = receiver.wait_until(DEADLINE, begun);
                assert_eq!(value, Some(&7));
            });
            reader.thread().unpark();
            let writer = loom::thread::spawn(move || sender.put(7));
            writer.join().expect("no panic");
            reader.join().expect("no panic");
        });
    }

    #[test]
    fn what_comes_after_the_deadline_is_news_once() {
        loom::model(|| {
            let (mut sender, mut receiver) = crate::mailbox::mailbox(&0);
            let reader = loom::thread::spawn(move || {
                let in_time = receiver.wait_until(DEADLINE, over).copied();
                (in_time, receiver)
            });
            let writer = loom::thread::spawn(move || sender.put(7));
            writer.join().expect("no panic");
            let (in_time, mut receiver) = reader.join().expect("no panic");
            let later = receiver.wait_until(DEADLINE, over).copied();
            assert_eq!(in_time.or(later), Some(7), "{in_time:?}, {later:?}");
            assert!(in_time.is_none() || later.is_none(), "twice");
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

    const SILENCE_NS: u64 = 100;

    /// Two readings while it is told, and one when all is told.
    fn readings(tell: fn(&Hold)) -> [Option<bool>; 3] {
        let hold = loom::sync::Arc::new(Hold::default());
        hold.tell(Mono(10), true);
        let (told, read) = (hold.clone(), hold.clone());
        let teller = loom::thread::spawn(move || tell(&told));
        let reader = loom::thread::spawn(move || {
            [
                read.read(Mono(50), SILENCE_NS),
                read.read(Mono(50), SILENCE_NS),
            ]
        });
        teller.join().expect("no panic");
        let [first, second] = reader.join().expect("no panic");
        [first, second, hold.read(Mono(50), SILENCE_NS)]
    }

    // With a flag that is stored, not swapped, the first two fail; with the flag set before what is told, the third does.

    #[test]
    fn a_hold_that_was_let_go_for_a_moment_is_read_as_let_go_once_at_least() {
        loom::model(|| {
            let read = readings(|hold| {
                hold.tell(Mono(20), false);
                hold.tell(Mono(30), true);
            });
            assert!(read.contains(&Some(false)), "{read:?}");
            assert!(!read.contains(&None), "{read:?}");
        });
    }

    #[test]
    fn a_hold_that_is_doubted_is_none_before_another_one_is_believed() {
        loom::model(|| {
            let read = readings(|hold| {
                hold.doubt();
                hold.tell(Mono(30), true);
            });
            assert!(read.contains(&None), "{read:?}");
        });
    }

    #[test]
    fn a_hold_that_was_let_go_stays_let_go() {
        loom::model(|| {
            let read = readings(|hold| hold.tell(Mono(20), false));
            assert_eq!(read[2], Some(false), "{read:?}");
            assert!(read[0] != Some(false) || read[1] == Some(false), "{read:?}");
        });
    }
}
