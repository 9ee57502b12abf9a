// SPDX-License-Identifier: Apache-2.0
//! ACT's temporal ensemble: the mean of all predictions for one time, weighted exp(-m i).
//!
//! Source: T. Zhao et al., "Learning fine-grained bimanual manipulation with low-cost hardware", 2023, where i = 0 is
//! the oldest. With i = 0 the newest the same formula trusts the newest most, which others use. Neither needs the
//! predictions kept: with S(n) = 1 + e^-m + ... + e^-(n-1)m, the newest of n + 1 predictions has the share e^-nm / S(n+1)
//! in the first order and 1 / S(n+1) in the second, and the rest is the mean so far.

/// Which prediction has the weight 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As published.
    OldestFirst,
    /// The other way round.
    NewestFirst,
}

/// The share of a new prediction beside the mean of `votes` earlier ones.
#[must_use]
pub fn share_of_new(votes: u16, decay: f64, order: Order) -> f64 {
    let ratio = libm::exp(-decay);
    let (mut term, mut sum) = (1.0, 1.0);
    // Bounded by the chunk's length: a time is predicted by no more chunks than that, short of duplicates.
    for _ in 0..votes.min(512) {
        term *= ratio;
        sum += term;
    }
    match order {
        Order::OldestFirst => term / sum,
        Order::NewestFirst => 1.0 / sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of `values`, oldest first, by the definition.
    fn published(values: &[f64], decay: f64, order: Order) -> f64 {
        let weight = |i: usize| match order {
            Order::OldestFirst => (-decay * i as f64).exp(),
            Order::NewestFirst => (-decay * (values.len() - 1 - i) as f64).exp(),
        };
        let total: f64 = (0..values.len()).map(weight).sum();
        values
            .iter()
            .enumerate()
            .map(|(i, v)| weight(i) * v)
            .sum::<f64>()
            / total
    }

    #[test]
    fn folded_one_by_one_it_is_the_published_mean() {
        let values = [0.3, -1.0, 2.5, 0.0, 0.7, 0.9, -0.2, 4.0];
        for order in [Order::OldestFirst, Order::NewestFirst] {
            for decay in [0.0, 0.01, 0.5, -0.1] {
                let mut mean = values[0];
                for (votes, value) in values.iter().enumerate().skip(1) {
                    let share = share_of_new(votes as u16, decay, order);
                    mean = share * value + (1.0 - share) * mean;
                }
                let wanted = published(&values, decay, order);
                assert!(
                    (mean - wanted).abs() < 1e-12,
                    "{order:?} {decay}: {mean} {wanted}"
                );
            }
        }
    }
}
