// SPDX-License-Identifier: Apache-2.0
//! Seeded chance: the only source of randomness in the bench.
//!
//! PCG-64 with a stream number, so that scene 17 of seed 3 is the same whoever asks first.

use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng as _;

/// A seeded stream of random numbers.
#[derive(Clone, Debug)]
pub struct Dice(Pcg64);

impl Dice {
    /// Stream `stream` of `seed`. Streams of one seed do not overlap.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut dice = Self(Pcg64::new(u128::from(seed), u128::from(stream)));
        // PCG's first outputs follow a small seed closely; a few steps mix it.
        for _ in 0..4 {
            dice.0.next_u64();
        }
        dice
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in [-half, half).
    pub fn spread(&mut self, half: f64) -> f64 {
        self.range(-half, half)
    }

    /// Uniform in 0..count. `count` must not be zero.
    pub fn below(&mut self, count: usize) -> usize {
        ((self.unit() * count as f64) as usize).min(count.saturating_sub(1))
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Normal with mean zero and this standard deviation (Irwin-Hall of 12: bounded at six sigma,
    /// no transcendental functions, so the same bits everywhere).
    pub fn normal(&mut self, sigma: f64) -> f64 {
        let sum: f64 = (0..12).map(|_| self.unit()).sum();
        (sum - 6.0) * sigma
    }

    /// One of `items`, which must not be empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Fisher-Yates.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
