// SPDX-License-Identifier: Apache-2.0
//! What the driver refuses.

/// A call that the driver refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call}: {name} ({code})")]
pub struct CudaFault {
    /// The driver's function.
    pub call: &'static str,
    /// `CUresult`.
    pub code: i32,
    /// Its name, as the driver tells it.
    pub name: String,
}

impl CudaFault {
    /// Whether the context is lost: every later call fails with the same, and only a new process mends it. The codes
    /// are those of which `cuda.h` says "the context cannot be used".
    #[must_use]
    pub fn sticky(&self) -> bool {
        matches!(self.code, 700 | 702 | 709 | 710 | 714..=719)
    }
}
