// SPDX-License-Identifier: Apache-2.0
//! Lets a piece of code be compiled a second time for a processor's wider vectors, which it uses where they are there.
//!
//! The sums are the same in both: wider vectors change how many are made at once, not their order, and no
//! multiplication is fused with an addition that was not written so.
#![allow(unsafe_code)] // A processor's feature is the caller's promise.

/// What is to be done. `run` and what it calls must be inlined (`#[inline(always)]`), or they are compiled once, for any
/// processor; a closure cannot promise that.
pub(super) trait Work {
    /// Does it.
    fn run(self);
}

/// Runs `work`, with 256-bit vectors where the processor has them.
pub(super) fn wide(work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has just said that it has it.
        return unsafe { with_avx2(work) };
    }
    work.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2(work: impl Work) {
    work.run();
}
