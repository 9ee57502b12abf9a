// SPDX-License-Identifier: Apache-2.0
//! Time. All other quantities are SI in plain floats whose names carry the unit (`_rad`, `_rad_s`, `_m`, `_ns`).

/// Nanoseconds on the robot's monotonic clock. Never wall time; comparable only on one machine since one boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

impl Mono {
    /// Nanoseconds since `earlier`; 0 when `earlier` is not earlier.
    #[must_use]
    pub const fn since_ns(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This time moved into the future, saturating at the end of time (584 years).
    #[must_use]
    pub const fn plus_ns(self, ns: u64) -> Mono {
        Mono(self.0.saturating_add(ns))
    }

    /// This time moved into the past, saturating at zero.
    #[must_use]
    pub const fn minus_ns(self, ns: u64) -> Mono {
        Mono(self.0.saturating_sub(ns))
    }

    /// Seconds since `earlier`, negative when `earlier` is later.
    #[must_use]
    pub fn seconds_since(self, earlier: Mono) -> f64 {
        if self.0 >= earlier.0 {
            (self.0 - earlier.0) as f64 * 1e-9
        } else {
            -((earlier.0 - self.0) as f64 * 1e-9)
        }
    }
}

/// One millisecond in nanoseconds.
pub const MS: u64 = 1_000_000;

/// The square root where there is no standard library; elsewhere `f64` has it. Both round exactly.
#[cfg(target_os = "none")]
pub trait Root {
    /// The square root.
    fn sqrt(self) -> Self;
}

#[cfg(target_os = "none")]
impl Root for f64 {
    fn sqrt(self) -> f64 {
        libm::sqrt(self)
    }
}
