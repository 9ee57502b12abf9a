// SPDX-License-Identifier: Apache-2.0
//! The last few pictures of a camera, in memory that is made once and shared by whoever looks at them: nothing is copied here, and
//! who looks keeps nobody waiting.

use crate::ports::Frame;
use std::sync::Arc;
use triple_buffer::Input;

/// Pictures that are kept at most.
pub const KEPT_MAX: usize = 8;
/// Of large pictures fewer are kept: so many bytes of them, but always two.
const KEPT_BYTES: usize = 16 << 20;

/// The last pictures of a camera, the newest first; none before the first.
pub type Recent = heapless::Vec<Arc<Frame>, KEPT_MAX>;

/// The pictures of one camera, and one that is being taken.
#[derive(Debug)]
pub struct Reel {
    taking: Arc<Frame>,
    recent: Recent,
    kept: usize,
    /// Every picture that is, or may still be, looked at, and those that nobody looks at.
    others: Vec<Arc<Frame>>,
}

impl Reel {
    /// For pictures like `black`, of which the newest alone is kept.
    #[must_use]
    pub fn of_newest(black: &Frame) -> Reel {
        Reel::new(black, 1)
    }

    /// For pictures like `black`, of which the last few are kept.
    #[must_use]
    pub fn of_last(black: &Frame) -> Reel {
        let fit = KEPT_BYTES / black.rgb.len().max(1);
        Reel::new(black, fit.clamp(2, KEPT_MAX))
    }

    fn new(black: &Frame, kept: usize) -> Reel {
        // Each reader may look at one set while another one lies between, neither of which has the newest picture; what lies at the
        // writer's end of a triple buffer is empty. That is so for who looks at all that are kept and for who looks at the newest
        // alone, and one is to be free.
        let others = 2 * kept + 2 + 1;
        let others = (0..others).map(|_| Arc::new(black.clone())).collect();
        Reel {
            taking: Arc::new(black.clone()),
            recent: Recent::new(),
            kept,
            others,
        }
    }

    /// The picture that is being taken, to be written over.
    pub fn taking(&mut self) -> &mut Frame {
        // Nobody looks at it. Were that wrong, it would be copied, at the cost of an allocation, which is counted.
        Arc::make_mut(&mut self.taking)
    }

    /// The picture that was taken is good: it is the newest, and another one is taken.
    pub fn keep(&mut self) {
        if self.recent.len() >= self.kept {
            self.recent.pop();
        }
        // There is room: one was taken away if it was full.
        let _ = self.recent.insert(0, Arc::clone(&self.taking));
        let free = self.others.iter_mut().find_map(|other| {
            // Also orders what its readers did before what is written to it.
            Arc::get_mut(other).is_some().then_some(other)
        });
        if let Some(free) = free {
            std::mem::swap(&mut self.taking, free);
        }
    }

    /// The newest good one.
    #[must_use]
    pub fn newest(&self) -> Option<&Frame> {
        self.recent.first().map(|frame| &**frame)
    }

    /// Those that are kept, for others to look at: one reader of all, and one of the newest.
    #[must_use]
    pub fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Lets the reader of `cell` look at the newest `most` of them.
    pub fn give(&self, cell: &mut Input<Recent>, most: usize) {
        let slot = cell.input_buffer_mut();
        slot.clone_from(&self.recent);
        slot.truncate(most);
        cell.publish();
        // What comes back is looked at by nobody, and what it holds could not be taken anew.
        cell.input_buffer_mut().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that looks whenever it likes, and keeps what it looks at: what it sees are always the last ones, in their order, and
    /// as they were taken; and there is always one to write to.
    #[test]
    fn what_is_looked_at_is_never_written_over() {
        for (reel, kept) in [
            (Reel::of_newest(&Frame::black(8, 8)), 1),
            (Reel::of_last(&Frame::black(8, 8)), KEPT_MAX),
            (Reel::of_last(&Frame::black(2048, 1024)), 2),
        ] {
            let mut reel = reel;
            let (mut give, mut look) = triple_buffer::triple_buffer(&Recent::new());
            let (mut show, mut see) = triple_buffer::triple_buffer(&Recent::new());
            let mut looks = 0_u32;
            for seq in 1..=400_u32 {
                let made: Vec<*const Frame> = reel.others.iter().map(Arc::as_ptr).collect();
                let frame = reel.taking();
                frame.seq = seq;
                frame.rgb.fill(seq as u8);
                reel.keep();
                assert!(
                    made.contains(&Arc::as_ptr(&reel.taking)),
                    "one that was made at the start is taken next"
                );
                reel.give(&mut give, KEPT_MAX);
                if seq % 3 == 0 {
                    reel.give(&mut show, 1);
                }
                // At no fixed distance, so that what lies between is as old as it can be.
                if seq % 7 == 3 || seq % 11 < 2 {
                    looks += 1;
                    let seqs: Vec<u32> = look.read().iter().map(|frame| frame.seq).collect();
                    let last = (1..=seq).rev().take(kept);
                    assert_eq!(seqs, last.collect::<Vec<_>>());
                }
                if seq % 13 == 5 {
                    let shown: Vec<u32> = see.read().iter().map(|frame| frame.seq).collect();
                    assert!(shown.is_empty() && seq < 3 || shown == [seq / 3 * 3]);
                }
                let seen = see.output_buffer_mut().iter();
                for frame in seen.chain(look.output_buffer_mut().iter()) {
                    assert!(frame.rgb.iter().all(|value| *value == frame.seq as u8));
                }
            }
            assert!(looks > 100);
            assert_eq!(reel.newest().map(|frame| frame.seq), Some(400));
        }
    }
}
