// SPDX-License-Identifier: Apache-2.0
//! What the mailbox's own tests need of the runtime.

pub mod clock {
    use crate::core::units::Mono;
    use std::sync::OnceLock;
    use std::time::Instant;

    /// Time since it was first asked for. The runtime's own asks the operating system, which Miri does not have.
    pub fn now() -> Mono {
        static START: OnceLock<Instant> = OnceLock::new();
        Mono(START.get_or_init(Instant::now).elapsed().as_nanos() as u64)
    }
}
