// SPDX-License-Identifier: Apache-2.0
//! A chunk: T future actions of dimension D at a fixed period, placed on the robot's time line.
//!
//! The action chunk is the only contract between the policy (1-30 Hz, may be late) and the control loop (100-1000
//! Hz, may not). It is placed by the *capture* time of its observation, so that inference latency shifts nothing:
//! when a late chunk is queued, the first useful action is the one for now.

use crate::core::limits::{CHUNK_STEPS_MAX, CHUNK_VALUES_MAX, JOINTS_MAX};
use crate::core::units::Mono;

/// Where a chunk came from; travels with every command made of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// Sequence number of the camera frame.
    pub frame_seq: u32,
    /// When that frame was captured.
    pub captured: Mono,
    /// Running number of the chunk, from 1.
    pub chunk_id: u32,
    /// First bytes of the SHA-256 of the bundle's manifest.
    pub bundle_hash: u32,
    /// The policy misses its parity fixture and was let through by a flag on the command line.
    pub unproven: bool,
}

/// Why a chunk was refused. It is refused whole: half a plan is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkFault {
    /// Too many steps, joints or values, or none.
    #[error(
        "chunk of {steps} steps x {joints} joints; expected 1..={CHUNK_STEPS_MAX} steps, 1..={JOINTS_MAX} joints and at most {CHUNK_VALUES_MAX} values, {found} given"
    )]
    Shape {
        /// Steps asked for.
        steps: usize,
        /// Joints asked for.
        joints: usize,
        /// Values handed in.
        found: usize,
    },
    /// A value is NaN or infinite.
    #[error("chunk step {step} joint {joint} is not finite; the whole chunk is refused")]
    NotFinite {
        /// Index of the action.
        step: usize,
        /// Index of the joint, order of robot.toml.
        joint: usize,
    },
    /// The period between actions is zero.
    #[error("chunk period is 0 ns; expected the policy's action period")]
    Period,
}

/// T x D absolute joint targets. Row-major; radians, metres or 0..1 by joint kind; joint order of `robot.toml`.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    steps: usize,
    joints: usize,
    period_ns: u64,
    first_at: Mono,
    provenance: Provenance,
    unsure: bool,
    /// Of a plan that goes on from another: until when it may take over, as the actions until then are the other's.
    due_by: Option<Mono>,
    values: [f32; CHUNK_VALUES_MAX],
}

impl Chunk {
    /// Checks shape and finiteness once, at the door. `first_at` is the time of action 0.
    ///
    /// # Errors
    /// [`ChunkFault`] names the shape, step or joint; nothing of a refused chunk can be used.
    pub fn new(
        first_at: Mono,
        period_ns: u64,
        joints: usize,
        values: &[f32],
        provenance: Provenance,
    ) -> Result<Chunk, ChunkFault> {
        let steps = values.len().checked_div(joints).unwrap_or(0);
        let fits = (1..=CHUNK_STEPS_MAX).contains(&steps)
            && joints <= JOINTS_MAX
            && values.len() <= CHUNK_VALUES_MAX
            && steps * joints == values.len();
        if !fits {
            return Err(ChunkFault::Shape {
                steps,
                joints,
                found: values.len(),
            });
        }
        if period_ns == 0 {
            return Err(ChunkFault::Period);
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(ChunkFault::NotFinite {
                step: at / joints,
                joint: at % joints,
            });
        }
        let mut chunk = Chunk {
            steps,
            joints,
            period_ns,
            first_at,
            provenance,
            unsure: false,
            due_by: None,
            values: [0.0; CHUNK_VALUES_MAX],
        };
        for (slot, value) in chunk.values.iter_mut().zip(values) {
            *slot = *value;
        }
        Ok(chunk)
    }

    /// The same chunk, of a policy that was not sure enough of it: it is not followed, and neither is what came before.
    #[must_use]
    pub fn doubted(mut self) -> Chunk {
        self.unsure = true;
        self
    }

    /// The same chunk, made for taking over at `due_by` at the latest: until then its actions are those of the plan before,
    /// and what comes after was planned to follow them.
    #[must_use]
    pub fn made_for(mut self, due_by: Mono) -> Chunk {
        self.due_by = Some(due_by);
        self
    }

    /// Until when it may take over; none: at any time.
    #[must_use]
    pub fn due_by(&self) -> Option<Mono> {
        self.due_by
    }

    /// Whether the policy was not sure enough of it.
    #[must_use]
    pub fn unsure(&self) -> bool {
        self.unsure
    }

    /// Actions in the chunk.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Joints an action.
    #[must_use]
    pub fn joints(&self) -> usize {
        self.joints
    }

    /// Time between two actions.
    #[must_use]
    pub fn period_ns(&self) -> u64 {
        self.period_ns
    }

    /// Time of the first action.
    #[must_use]
    pub fn first_at(&self) -> Mono {
        self.first_at
    }

    /// Time of the last action; after it the chunk has nothing to say.
    #[must_use]
    pub fn last_at(&self) -> Mono {
        self.first_at
            .plus_ns(self.period_ns.saturating_mul(self.steps as u64 - 1))
    }

    /// Where it came from.
    #[must_use]
    pub fn provenance(&self) -> Provenance {
        self.provenance
    }

    /// Action `step` clamped into the chunk: `joints` values.
    #[must_use]
    pub fn action(&self, step: usize) -> &[f32] {
        let start = step.min(self.steps - 1) * self.joints;
        self.values.get(start..start + self.joints).unwrap_or(&[])
    }

    /// Time of action `step`, which is not clamped.
    #[must_use]
    pub fn at(&self, step: usize) -> Mono {
        self.first_at
            .plus_ns(self.period_ns.saturating_mul(step as u64))
    }

    /// Action `step` clamped into the chunk, for merging; what is written must be finite.
    pub(in crate::core) fn action_mut(&mut self, step: usize) -> &mut [f32] {
        let start = step.min(self.steps - 1) * self.joints;
        self.values
            .get_mut(start..start + self.joints)
            .unwrap_or_default()
    }

    /// No chunk: a place to [`Chunk::assign`] one to.
    pub(in crate::core) const fn blank() -> Chunk {
        Chunk {
            steps: 1,
            joints: 0,
            period_ns: 1,
            first_at: Mono(0),
            provenance: Provenance {
                frame_seq: 0,
                captured: Mono(0),
                chunk_id: 0,
                bundle_hash: 0,
                unproven: false,
            },
            unsure: false,
            due_by: None,
            values: [0.0; CHUNK_VALUES_MAX],
        }
    }

    /// The same actions, the first of them at `first_at`.
    pub(in crate::core) fn move_to(&mut self, first_at: Mono) {
        self.first_at = first_at;
    }

    /// Becomes `other`, copying only the values that count: a whole chunk is 32 KiB, most are some hundred bytes.
    pub(in crate::core) fn assign(&mut self, other: &Chunk) {
        self.steps = other.steps;
        self.joints = other.joints;
        self.period_ns = other.period_ns;
        self.first_at = other.first_at;
        self.provenance = other.provenance;
        self.unsure = other.unsure;
        self.due_by = other.due_by;
        for (slot, value) in self
            .values
            .iter_mut()
            .zip(&other.values)
            .take(other.steps * other.joints)
        {
            *slot = *value;
        }
    }
}
