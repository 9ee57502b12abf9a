// SPDX-License-Identifier: Apache-2.0
//! When an engine on a GPU counts as lost, so that whoever restarts processes does: at once where CUDA's code says that only a new process
//! mends it, and after some failed runs in a row whatever is said of them. TensorRT and ONNX Runtime tell a lost context often without
//! its code, and what it leaves behind as failures of their own; a process that fails every run would hold the robot for ever.

use crate::ports::EngineFault;
use std::fmt;

/// Failed runs in a row. A guess: one is a run that is lost with its chunk, two may be one event that is told late by the stage after it, and
/// three at 10 Hz are less than half a second, in which the robot follows its last chunk.
const FAILURES_MAX: u32 = 3;

/// Whether an engine is to be used.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Failed runs since the last that worked.
    failures: u32,
    /// Why every further run is refused.
    lost: Option<String>,
}

impl Standing {
    /// Whether it is lost for this process.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// To be asked before each run.
    ///
    /// # Errors
    /// It is lost, and why.
    pub(super) fn check(&self) -> Result<(), EngineFault> {
        match &self.lost {
            Some(why) => Err(EngineFault(why.clone())),
            None => Ok(()),
        }
    }

    /// A run worked.
    pub(super) fn worked(&mut self) {
        self.failures = 0;
    }

    /// A run failed on the GPU: one more in a row.
    pub(super) fn failed(&mut self, words: impl fmt::Display) {
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            let why = format!("{FAILURES_MAX} runs in a row failed, the last with: {words}");
            self.lose(&why);
        }
    }

    /// CUDA says that the context is lost.
    pub(super) fn stuck(&mut self, words: impl fmt::Display) {
        self.lose(&words.to_string());
    }

    fn lose(&mut self, why: &str) {
        // The first reason is the cause.
        self.lost.get_or_insert_with(|| {
            format!("the GPU's context is lost since {why}: the process must be started again")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_in_a_row_are_a_loss_and_a_run_that_works_begins_anew() {
        let mut standing = Standing::default();
        for _ in 0..4 {
            standing.failed("one");
            standing.failed("two");
            assert_eq!(standing.check(), Ok(()));
            standing.worked();
        }
        for words in ["one", "two", "three", "four"] {
            standing.failed(words);
        }
        standing.worked();
        assert!(standing.is_lost());
        let why = standing.check().expect_err("lost for good").to_string();
        assert!(why.contains("the last with: three"), "{why}");
    }

    #[test]
    fn what_sticks_is_a_loss_at_once() {
        let mut standing = Standing::default();
        standing.stuck("700");
        standing.stuck("719");
        let why = standing.check().expect_err("lost").to_string();
        assert!(why.contains("since 700: the process"), "{why}");
    }
}
