// SPDX-License-Identifier: Apache-2.0
//! The modes, and their words.

/// What the robot is doing, as a person would say it. The number is its code on the wire and in recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mode {
    /// At rest, not armed.
    Standby = 0,
    /// Armed, following the policy.
    Active = 1,
    /// Armed, held under power for a cause that clears by itself (category 2).
    Holding = 2,
    /// On its way to rest and standby (category 2).
    Stopping = 3,
    /// Braking, or at rest, for a cause that latches (category 1).
    Stopped = 4,
    /// Emergency stop, latched (category 0).
    EStop = 5,
    /// Armed, a person drives.
    Takeover = 6,
    /// Starting: nothing has been checked yet.
    Boot = 7,
}

impl Mode {
    /// The mode with this code, if there is one.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Mode> {
        Some(match code {
            0 => Mode::Standby,
            1 => Mode::Active,
            2 => Mode::Holding,
            3 => Mode::Stopping,
            4 => Mode::Stopped,
            5 => Mode::EStop,
            6 => Mode::Takeover,
            7 => Mode::Boot,
            _ => return None,
        })
    }

    /// The word used in keys, events, metrics and the page.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Mode::Boot => "boot",
            Mode::Standby => "standby",
            Mode::Active => "active",
            Mode::Takeover => "takeover",
            Mode::Holding => "holding",
            Mode::Stopping => "stopping",
            Mode::Stopped => "stopped",
            Mode::EStop => "e-stop",
        }
    }

    /// Whether a permission is given in this mode.
    #[must_use]
    pub const fn armed(self) -> bool {
        match self {
            Mode::Active | Mode::Takeover | Mode::Holding => true,
            Mode::Boot | Mode::Standby | Mode::Stopping | Mode::Stopped | Mode::EStop => false,
        }
    }

    /// Whether it is left only by a reset.
    #[must_use]
    pub const fn latched(self) -> bool {
        match self {
            Mode::Stopped | Mode::EStop => true,
            Mode::Boot
            | Mode::Standby
            | Mode::Active
            | Mode::Takeover
            | Mode::Holding
            | Mode::Stopping => false,
        }
    }
}
