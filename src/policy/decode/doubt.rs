// SPDX-License-Identifier: Apache-2.0
//! How sure the policy was: from the logits of its tokens, or from several samples of one observation.

use crate::policy::decode::Invalid;

/// Of one token, with the choice limited to the ids that are actions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenDoubt {
    /// Probability of the likeliest, 0..1.
    pub likeliest: f32,
    /// Entropy as a part of the largest possible, 0 (sure) to 1 (all alike).
    pub entropy: f32,
}

impl TokenDoubt {
    /// The worse of two in each figure.
    #[must_use]
    pub fn worse(self, other: TokenDoubt) -> TokenDoubt {
        TokenDoubt {
            likeliest: self.likeliest.min(other.likeliest),
            entropy: self.entropy.max(other.entropy),
        }
    }
}

/// Softmax over the logits of the action ids alone.
///
/// # Errors
/// [`Invalid::NotFinite`] if a logit is not finite, [`Invalid::Count`] if there are fewer than two.
pub fn of_logits(logits: &[f32]) -> Result<TokenDoubt, Invalid> {
    if logits.len() < 2 {
        return Err(Invalid::Count {
            what: "logits of action tokens",
            expected: 2,
            found: logits.len(),
        });
    }
    if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
        return Err(Invalid::NotFinite {
            what: "a logit of an action token",
            at,
        });
    }
    let top = logits.iter().fold(f32::NEG_INFINITY, |top, x| top.max(*x));
    let weight = |logit: f32| f64::from(logit - top).exp();
    let sum: f64 = logits.iter().map(|logit| weight(*logit)).sum();
    let entropy: f64 = logits
        .iter()
        .map(|logit| weight(*logit) / sum)
        .filter(|p| *p > 0.0)
        .map(|p| -p * p.ln())
        .sum();
    Ok(TokenDoubt {
        likeliest: (1.0 / sum) as f32,
        entropy: (entropy / (logits.len() as f64).ln()) as f32,
    })
}

/// Standard deviation (of a sample: divided by n - 1) of each number of a chunk over `samples` of it, each as long as
/// `spread`. Zeros for fewer than two samples.
pub fn of_samples(samples: &[f32], spread: &mut [f32]) {
    let width = spread.len().max(1);
    let count = samples.len() / width;
    for (at, spread) in spread.iter_mut().enumerate() {
        let values = || samples.chunks_exact(width).filter_map(|row| row.get(at));
        let mean = values().map(|x| f64::from(*x)).sum::<f64>() / count.max(1) as f64;
        let square: f64 = values().map(|x| (f64::from(*x) - mean).powi(2)).sum();
        *spread = if count < 2 {
            0.0
        } else {
            (square / (count - 1) as f64).sqrt() as f32
        };
    }
}
