// SPDX-License-Identifier: Apache-2.0
//! What the driver refuses, and why there is none.

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
    /// Whether the context is lost: every later call fails with the same, and only a new process mends it.
    #[must_use]
    pub fn sticky(&self) -> bool {
        sticks(self.code)
    }
}

/// Whether a code of CUDA's, of the driver or of the runtime above it, means that only a new process mends it: those of which `cuda.h`
/// (of 12.8) says that the process must be relaunched, and the two of a context that is destroyed (709) or must be (710). Not those of
/// which it does not say what follows: of a device that is unavailable (46), memory (214) or a bus (220) that failed, an unknown
/// error (999).
#[must_use]
pub fn sticks(code: i32) -> bool {
    matches!(
        code,
        226 | 700 | 702 | 709 | 710 | 714..=719 | 721 | 810 | 911
    )
}

/// Why there is no device to work on. Each says what was looked for, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenFault {
    /// No driver.
    #[error(
        "no CUDA driver: looked for {looked}; on a Jetson install JetPack (nvidia-l4t-cuda), elsewhere NVIDIA's driver"
    )]
    NoDriver {
        /// Where, and what the system said.
        looked: String,
    },
    /// A driver without a function that is needed.
    #[error(
        "{at}: expected a CUDA driver of 12.0 or later, found one without {symbol}; update JetPack or the driver"
    )]
    OldDriver {
        /// Its path.
        at: String,
        /// What it lacks.
        symbol: &'static str,
    },
    /// A driver, and no device for it.
    #[error(
        "no CUDA device: {0}; look at nvidia-smi, on a Jetson at /dev/nvmap and the group \"video\""
    )]
    NoDevice(CudaFault),
}

/// Why a kernel cannot be used as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelFault {
    /// What was asked contradicts itself.
    #[error("{0}")]
    Contradiction(String),
    /// What the driver refuses.
    #[error(transparent)]
    Cuda(#[from] CudaFault),
}

#[cfg(test)]
mod tests {
    use super::sticks;

    #[test]
    fn what_only_a_new_process_mends_sticks() {
        let all: Vec<i32> = (0..1000).filter(|code| sticks(*code)).collect();
        let header = [
            226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911,
        ];
        assert_eq!(all, header);
    }
}
