// SPDX-License-Identifier: Apache-2.0
//! The heartbeat table of `src/sync`, the same file, under every interleaving that the memory model allows.
//!
//! The mailbox is not here: what it is made of (`triple_buffer`, `std::thread::park_timeout`) has no counterpart in
//! loom, and a model of it would check the model.
#![cfg(loom)]

pub mod core;
#[path = "../../../src/sync/heartbeat.rs"]
pub mod heartbeat;

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
}
