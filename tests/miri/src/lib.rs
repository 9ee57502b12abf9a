// SPDX-License-Identifier: Apache-2.0
//! The heartbeat table, what a person holds, the mailbox and the cells between processes of `src/sync`, the same files, run by Miri: it
//! sees a data race, a read of what was not written and an undefined behaviour, in them and in the crate `triple_buffer`.
//!
//! Not every interleaving: those of a few seeds. `tests/loom` has every one, over a stand-in for that crate.

pub mod core;
#[path = "../../../src/sync/heartbeat.rs"]
pub mod heartbeat;
#[path = "../../../src/sync/hold.rs"]
pub mod hold;
#[path = "../../../src/sync/mailbox.rs"]
pub mod mailbox;
pub mod runtime;
#[path = "../../../src/sync/shared.rs"]
pub mod shared;

#[cfg(test)]
mod tests {
    use crate::core::units::Mono;
    use crate::heartbeat::{Beat, MARKS};
    use crate::hold::Hold;
    use crate::mailbox::mailbox;
    use crate::runtime::clock;
    use std::sync::Arc;

    /// Enough to meet at every step, few enough for an interpreter.
    const ROUNDS: u64 = 50;

    #[test]
    fn a_beat_is_read_while_it_is_marked() {
        let beat = Beat::new();
        let own = beat.clone();
        let owner = std::thread::spawn(move || (1..=ROUNDS).for_each(|ns| own.mark(Mono(ns))));
        let mut newest = None;
        while newest != Some(Mono(ROUNDS)) {
            let last = beat.last();
            assert!(last >= newest, "{last:?} after {newest:?}");
            newest = last;
            assert!(beat.marks().count() <= MARKS);
            std::thread::yield_now();
        }
        owner.join().expect("no panic");
        let marks: Vec<u64> = beat.marks().map(|mark| mark.0).collect();
        let first = ROUNDS + 1 - MARKS as u64;
        assert_eq!(marks, (first..=ROUNDS).collect::<Vec<_>>());
    }

    #[test]
    fn a_mailbox_gives_whole_values_and_the_last_one() {
        let (mut sender, mut receiver) = mailbox(&[0_u64; 8]);
        let writer = std::thread::spawn(move || {
            for n in 1..=ROUNDS {
                if n % 2 == 0 {
                    sender.put([n; 8]);
                } else {
                    sender.put_with(|slot| slot.fill(n));
                }
            }
        });
        let mut newest = 0;
        while newest < ROUNDS {
            let deadline = clock::now().plus_ns(60_000_000_000);
            let value = receiver.wait_until(deadline, clock::now);
            let value = value.expect("a newer one, and a wake");
            assert_eq!(*value, [value[0]; 8], "torn");
            assert!(value[0] > newest, "{} after {newest}", value[0]);
            newest = value[0];
        }
        writer.join().expect("no panic");
    }

    #[test]
    fn a_hold_that_was_let_go_for_a_moment_is_read_as_let_go() {
        for _ in 0..ROUNDS {
            let hold = Arc::new(Hold::default());
            hold.tell(Mono(10), true);
            let told = Arc::clone(&hold);
            let teller = std::thread::spawn(move || {
                told.tell(Mono(20), false);
                told.tell(Mono(30), true);
            });
            let meanwhile = [hold.read(Mono(50), 100), hold.read(Mono(50), 100)];
            teller.join().expect("no panic");
            let after = hold.read(Mono(50), 100);
            let read = [meanwhile[0], meanwhile[1], after];
            assert!(read.contains(&Some(false)), "{read:?}");
            assert!(!read.contains(&None), "{read:?}");
        }
    }
}
