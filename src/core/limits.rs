// SPDX-License-Identifier: Apache-2.0
//! Every fixed capacity of the core, with its arithmetic. Each overflow has a named error where it can happen.

/// Joints of one robot, grippers counted as joints. A humanoid with two hands has about 40; 64 leaves room and keeps
/// a joint set in one machine word.
pub const JOINTS_MAX: usize = 64;

/// Actions in one chunk. pi0 emits 50, ACT 100; 128 is the next power of two.
pub const CHUNK_STEPS_MAX: usize = 128;

/// Numbers in one chunk (steps x joints). 100 steps x 40 joints = 4,000 is the largest published shape; a chunk is
/// 32 KiB at this capacity, so that it can be copied through a queue in some microseconds.
pub const CHUNK_VALUES_MAX: usize = 8_192;

/// Chunks waiting between inference and control. The control loop empties the queue each tick (5 ms), inference
/// fills it at 30 Hz at most; 4 survives a control thread late by 100 ms.
pub const CHUNKS_QUEUED_MAX: usize = 4;

/// Measured joint states kept to pair a frame with the state of its capture time: 64 at 200 Hz are 320 ms, the age
/// at which a frame is refused anyway.
pub const STATE_HISTORY_MAX: usize = 64;

/// Cameras of one robot, and of one policy.
pub const CAMERAS_MAX: usize = 8;

/// Links of one robot's kinematic tree: a joint each, and as many fixed ones again (flanges, sensors, tools).
pub const LINKS_MAX: usize = 128;

/// Capsules of one robot: one a link, tool points included.
pub const CAPSULES_MAX: usize = 128;

/// Boxes that a robot must keep out of.
pub const KEEP_OUTS_MAX: usize = 16;

/// Pairs of capsules that must stay apart. A 40-joint humanoid with one capsule a link has 780 pairs before those that
/// cannot meet are left out.
pub const CAPSULE_PAIRS_MAX: usize = 1_024;

/// All checks of one pose: pairs, and each capsule with the workspace and the boxes. 16 KiB of margins at this capacity.
pub const SPACE_CHECKS_MAX: usize = 2_048;

/// As many of `items` as fit. `collect` into the same list panics on one too many, and nothing in the core may.
#[must_use]
pub fn fitting<T, const N: usize>(items: impl Iterator<Item = T>) -> heapless::Vec<T, N> {
    let mut fitting = heapless::Vec::new();
    for item in items.take(N) {
        // Not more than N.
        let _ = fitting.push(item);
    }
    fitting
}
