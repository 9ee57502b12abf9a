// SPDX-License-Identifier: Apache-2.0
//! The last n frames of a camera as the graph takes them: oldest first, a fixed time apart.
//!
//! A camera is faster than the spacing, so more frames are kept than are shown: four for each spacing. The frame shown
//! for a time is the kept one nearest to it, at most an eighth of the spacing away from a steady camera.

/// Frames kept for each spacing.
const KEPT: usize = 4;

/// A ring of prepared frames. Made once; nothing here allocates after.
#[derive(Clone, Debug)]
pub struct History {
    values: usize,
    shown: usize,
    spacing_ns: u64,
    /// Newest last.
    kept: Vec<f32>,
    /// When each of `kept` was captured; `None` before anything was.
    at_ns: Vec<Option<u64>>,
}

impl History {
    /// For `frames` frames of `values` numbers each.
    #[must_use]
    pub fn new(frames: usize, values: usize, spacing_ns: u64) -> History {
        let shown = frames.max(1);
        let kept = (shown - 1) * KEPT + 2;
        History {
            values,
            shown,
            spacing_ns,
            kept: vec![0.0; kept * values],
            at_ns: vec![None; kept],
        }
    }

    /// A new episode: nothing was seen.
    pub fn reset(&mut self) {
        self.at_ns.fill(None);
    }

    /// Takes a frame captured at `captured_ns`. A frame older than the newest, or of another size, is not taken.
    pub fn push(&mut self, frame: &[f32], captured_ns: u64) {
        let newest = self.at_ns.last().copied().flatten();
        if frame.len() != self.values || newest.is_some_and(|newest| captured_ns < newest) {
            return;
        }
        // The newest gives way if it is too near to the one before it to be worth keeping.
        let before = self.at_ns.iter().rev().nth(1).copied().flatten();
        let is_near = before.is_some_and(|before| {
            newest.is_some_and(|newest| newest - before < self.spacing_ns / KEPT as u64)
        });
        if !is_near {
            let step = self.values.min(self.kept.len());
            self.kept.rotate_left(step);
            self.at_ns.rotate_left(1);
        }
        let start = self.kept.len() - self.values;
        if let Some(slot) = self.kept.get_mut(start..) {
            slot.copy_from_slice(frame);
        }
        if let Some(last) = self.at_ns.last_mut() {
            *last = Some(captured_ns);
        }
    }

    /// Writes the frames into `out`, `[frames][values]`, oldest first, and into `seen` whether each is of its time. What
    /// is older than the first frame is shown as the first frame, unseen.
    pub fn write(&self, out: &mut [f32], seen: &mut [bool]) {
        let Some(newest) = self.at_ns.last().copied().flatten() else {
            seen.fill(false);
            return;
        };
        for (index, slot) in out.chunks_exact_mut(self.values.max(1)).enumerate() {
            let back = (self.shown - 1).saturating_sub(index) as u64 * self.spacing_ns;
            let due = newest.checked_sub(back);
            let nearest = self
                .at_ns
                .iter()
                .zip(self.kept.chunks_exact(self.values.max(1)))
                .filter_map(|(at, frame)| at.map(|at| (at, frame)))
                .min_by_key(|(at, _)| at.abs_diff(due.unwrap_or(0)));
            let Some((at, frame)) = nearest else { continue };
            slot.copy_from_slice(frame);
            if let Some(seen) = seen.get_mut(index) {
                *seen = due.is_some_and(|due| at.abs_diff(due) * 2 <= self.spacing_ns);
            }
        }
    }
}
