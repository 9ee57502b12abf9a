// SPDX-License-Identifier: Apache-2.0
//! The governor's invariants, by number as in the safety notes (I1 to I18, I28), under [`super::adversary`].
//!
//! Everything is drawn from seeds and every failure names its seed. `TENDON_SOAK_STEPS` and `TENDON_SOAK_SEED` set the
//! length and the start of the ignored soak.

use super::adversary::{Dice, Duel};
use super::limits::{Coordination, Joint, JointLimits};
use super::*;
use crate::core::action::JointKind;
use crate::core::units::MS;

fn campaign(seed: u64, joint_steps: u64) -> (u64, f64, [u64; 3]) {
    let rates = [50, 100, 200, 333, 500, 1000];
    let sizes = [1, 2, 7, 14, 40];
    let mut dice = Dice::new(seed);
    let (mut done, mut worst, mut counts, mut run) = (0, 0.0_f64, [0; 3], 0);
    while done < joint_steps {
        let joints = sizes[run % sizes.len()];
        let rate_hz = rates[dice.below(rates.len())];
        let mode = if dice.chance(0.5) { Coordination::Synchronised } else { Coordination::Independent };
        let mut duel = Duel::new(seed.wrapping_add(run as u64), joints, rate_hz, mode);
        // As many joint-steps for each size.
        for _ in 0..40_000 / joints {
            duel.round();
            done += joints as u64;
        }
        worst = worst.max(duel.witness.worst);
        for (sum, count) in counts.iter_mut().zip(duel.counts) {
            *sum += count;
        }
        run += 1;
    }
    (done, worst, counts)
}

/// I1, I2, I4, I10, I18: ten million joint-steps of an adversary at 1, 2, 7, 14 and 40 joints and 50 to 1000 Hz.
#[test]
fn no_input_whatsoever_breaks_a_limit() {
    let started = std::time::Instant::now();
    let (done, worst, [passed, shaped, held]) = campaign(1, 10_000_000);
    println!("{done} joint-steps in {:?}; passed {passed}, shaped {shaped}, held {held}; worst excess {worst:e}", started.elapsed());
    assert!(passed > done / 2000 && shaped > done / 100, "the adversary must get through: {passed} {shaped} {held}");
}

#[test]
#[ignore = "a soak: hours; TENDON_SOAK_STEPS joint-steps from TENDON_SOAK_SEED"]
fn soak() {
    let number = |name: &str, default: u64| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (steps, seed) = (number("TENDON_SOAK_STEPS", 1_000_000_000), number("TENDON_SOAK_SEED", 1_000));
    let (done, worst, counts) = campaign(seed, steps);
    println!("{done} joint-steps from seed {seed}; {counts:?}; worst excess {worst:e}");
}
