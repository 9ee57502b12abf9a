// SPDX-License-Identifier: Apache-2.0
//! The governor under test: single cases, and an adversary that looks for a way around each invariant.

mod adversary;
mod cases;
mod motion;
mod properties;
mod senses;
mod space;
mod verdicts;

use super::*;

/// So many rounds; a twentieth, and 60,000 at most, where the tests themselves are tested (tests/mutants/run.py), hundreds
/// of times over, which alone sets this.
fn rounds(n: u64) -> u64 {
    let short = std::env::var_os("TENDON_SHORT_TESTS").is_some();
    if short { (n / 20).min(60_000) } else { n }
}
