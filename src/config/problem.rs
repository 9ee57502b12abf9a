// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a file, in words: where, what was expected, what was found.

use core::fmt;
use serde::{Deserialize, Serialize};

/// One thing wrong with a file that somebody wrote. A checker collects all of them before it refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// File and key, e.g. `manifest.json: tendon.image.size[1]`.
    pub at: String,
    /// What would have been accepted.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl Problem {
    /// The one thing that is wrong, for who refuses at the first.
    #[must_use]
    pub fn one(
        at: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Vec<Problem> {
        vec![Problem {
            at: at.into(),
            expected: expected.into(),
            found: found.into(),
        }]
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: expected {}, found {}",
            self.at, self.expected, self.found
        )
    }
}
