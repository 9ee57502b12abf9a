// SPDX-License-Identifier: Apache-2.0
//! What was measured, and when: joint state, its short history, and freshness.

use crate::core::limits::{JOINTS_MAX, STATE_HISTORY_MAX};
use crate::core::units::Mono;

/// One measured joint state as the motor controller reported it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JointState {
    /// How many entries count; order of `robot.toml`.
    pub joints: usize,
    /// Radians, metres or 0..1, by joint kind.
    pub position: [f64; JOINTS_MAX],
    /// The same per second.
    pub velocity: [f64; JOINTS_MAX],
    /// Nm or N, by joint kind; 0 where none was measured.
    pub torque: [f64; JOINTS_MAX],
    /// Whether torques were measured.
    pub torques: bool,
    /// 1 while the gripper senses a held object (vacuum, contact), else 0; absent sensors read 0.
    pub holding: bool,
    /// When it was measured.
    pub measured: Mono,
    /// When it arrived here. Age is judged by this one: it is the receiver's own clock.
    pub received: Mono,
}

impl JointState {
    /// A state of no joints at time zero: stale by any measure.
    pub const NEVER: JointState = JointState {
        joints: 0,
        position: [0.0; JOINTS_MAX],
        velocity: [0.0; JOINTS_MAX],
        torque: [0.0; JOINTS_MAX],
        torques: false,
        holding: false,
        measured: Mono(0),
        received: Mono(0),
    };

    /// The positions that count.
    #[must_use]
    pub fn positions(&self) -> &[f64] {
        self.position.get(..self.joints).unwrap_or(&self.position)
    }
}

/// How a reading stands against its maximum age. Absence has names, not `Option<Option<_>>`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Freshness<T> {
    /// Nothing has ever arrived.
    NeverSeen,
    /// The newest is older than allowed.
    Stale {
        /// Its age by the receiver's clock.
        age_ns: u64,
    },
    /// Young enough to act on.
    Fresh(T),
}

/// The newest measured states, so that a frame can be paired with the state of its capture time.
#[derive(Clone, Debug)]
pub struct StateHistory {
    ring: [JointState; STATE_HISTORY_MAX],
    pushed: usize,
}

impl Default for StateHistory {
    fn default() -> Self {
        StateHistory {
            ring: [JointState::NEVER; STATE_HISTORY_MAX],
            pushed: 0,
        }
    }
}

impl StateHistory {
    /// Appends the newest state, forgetting the oldest when full. A state not newer than the last is dropped.
    pub fn push(&mut self, state: &JointState) {
        if self
            .latest()
            .is_some_and(|last| state.measured <= last.measured)
        {
            return;
        }
        if let Some(slot) = self.ring.get_mut(self.pushed % STATE_HISTORY_MAX) {
            *slot = *state;
            self.pushed = self.pushed.wrapping_add(1);
        }
    }

    /// The newest state, if any ever came.
    #[must_use]
    pub fn latest(&self) -> Option<&JointState> {
        if self.pushed == 0 {
            None
        } else {
            self.ring.get((self.pushed - 1) % STATE_HISTORY_MAX)
        }
    }

    /// The states measured after `at` that are still kept, the oldest first.
    pub fn since(&self, at: Mono) -> impl Iterator<Item = &JointState> {
        let kept = self.pushed.min(STATE_HISTORY_MAX);
        let order = (self.pushed - kept)..self.pushed;
        order
            .filter_map(|n| self.ring.get(n % STATE_HISTORY_MAX))
            .filter(move |state| state.measured > at)
    }

    /// The newest state judged against a maximum age.
    #[must_use]
    pub fn fresh(&self, now: Mono, age_max_ns: u64) -> Freshness<&JointState> {
        match self.latest() {
            None => Freshness::NeverSeen,
            Some(state) => match now.since_ns(state.received) {
                age_ns if age_ns > age_max_ns => Freshness::Stale { age_ns },
                _ => Freshness::Fresh(state),
            },
        }
    }

    /// The state measured nearest to `at`, and how far it is from it in nanoseconds.
    #[must_use]
    pub fn nearest(&self, at: Mono) -> Option<(&JointState, u64)> {
        let count = self.pushed.min(STATE_HISTORY_MAX);
        self.ring
            .iter()
            .take(count)
            .map(|state| (state, state.measured.0.abs_diff(at.0)))
            .min_by_key(|(_, distance_ns)| *distance_ns)
    }
}
