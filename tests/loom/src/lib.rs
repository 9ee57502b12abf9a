// SPDX-License-Identifier: Apache-2.0
//! The heartbeat table of `src/sync`, the same file, under every interleaving that the memory model allows.
//!
//! The mailbox is not here: what it is made of (`triple_buffer`, `std::thread::park_timeout`) has no counterpart in
//! loom, and a model of it would check the model.
#![cfg(loom)]

pub mod core {
    #[path = "../../../../src/core/units.rs"]
    pub mod units;
}
#[path = "../../../src/sync/heartbeat.rs"]
pub mod heartbeat;

#[cfg(test)]
mod tests {
    use crate::core::units::Mono;
    use crate::heartbeat::{Beat, MARKS};

    #[test]
    fn a_reader_never_sees_time_go_back_nor_a_mark_that_was_not_made() {
        loom::model(|| {
            let beat = Beat::new();
            let own = beat.clone();
            let owner = loom::thread::spawn(move || (1..=3).for_each(|ns| own.mark(Mono(ns * 10))));
            let mut before = None;
            for _ in 0..2 {
                let last = beat.last();
                assert!(last >= before, "{last:?} after {before:?}");
                assert!(last.is_none_or(|last| [10, 20, 30].contains(&last.0)), "{last:?}");
                before = last;
            }
            owner.join().expect("no panic");
            assert_eq!(beat.last(), Some(Mono(30)));
        });
    }

    #[test]
    fn a_record_taken_while_the_owner_marks_holds_only_marks_that_were_made() {
        loom::model(|| {
            let beat = Beat::new();
            let own = beat.clone();
            let owner = loom::thread::spawn(move || (1..=3).for_each(|ns| own.mark(Mono(ns * 10))));
            let marks: Vec<u64> = beat.marks().map(|mark| mark.0).collect();
            assert!(marks.len() <= MARKS);
            assert!(marks.iter().all(|mark| [10, 20, 30].contains(mark)), "{marks:?}");
            owner.join().expect("no panic");
        });
    }
}
