// SPDX-License-Identifier: Apache-2.0
//! What a policy's numbers mean: one reading for each way in which the families give an action.
//!
//! Regression needs none. Tokens are read by [`bins`] (OpenVLA, RT-1, RT-2) and [`fast`] (pi0-FAST); [`flow`] and
//! [`diffusion`] say how noise becomes an action in steps; [`post`] turns the result into what the robot is told;
//! [`doubt`] says how sure the policy was. All are pure: numbers in, numbers out, described by plain data of the
//! manifest. What may run between a frame and its chunk writes into its caller's slices and allocates nothing.
//!
//! Invariant: what cannot be an action is [`Invalid`], never clipped into one. Reference implementations clip or return
//! zeros in places; on a robot the first is full speed and the second is a jump to the middle of the range.

pub mod bins;
pub mod diffusion;
pub mod doubt;
pub mod fast;
pub mod flow;
pub mod post;

/// The policy gave something that is no action. The robot goes on with the chunk it has.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Invalid {
    /// A token that stands for no action, e.g. the end of the sentence.
    #[error("token {id} at place {at} is no action; expected {low} to {high}")]
    Token {
        /// Which token of the sequence.
        at: usize,
        /// The id found.
        id: i64,
        /// Smallest id that is an action.
        low: i64,
        /// Largest.
        high: i64,
    },
    /// Too few or too many.
    #[error("{what}: expected {expected}, found {found}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// A word that is no whole number.
    #[error("word {at} of the answer is no whole number of 0 to {high}")]
    Word {
        /// Which word.
        at: usize,
        /// Largest number that is an action.
        high: u32,
    },
    /// Bytes that are not text where text was due.
    #[error("the tokens decode to bytes that are no text at {at}")]
    Text {
        /// Byte at which it breaks.
        at: usize,
    },
    /// NaN or infinite.
    #[error("{what} is not finite at {at}")]
    NotFinite {
        /// Of what.
        what: &'static str,
        /// Index of the first.
        at: usize,
    },
}

/// Index of the largest number; the first of equals, as numpy and torch have it. `None` if empty or a NaN is there.
#[must_use]
pub fn argmax(values: &[f32]) -> Option<usize> {
    let mut best: Option<(usize, f32)> = None;
    for (at, value) in values.iter().enumerate() {
        if value.is_nan() {
            return None;
        }
        if best.is_none_or(|(_, top)| *value > top) {
            best = Some((at, *value));
        }
    }
    best.map(|(at, _)| at)
}
