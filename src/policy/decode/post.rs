// SPDX-License-Identifier: Apache-2.0
//! From the policy's numbers in their units to what the robot is told: an ordered list of plain operations on a chunk.
//!
//! The order is meaning: openpi adds the state before it flips a sign, Isaac-GR00T after. Every operation names the
//! columns that it touches; none guesses a gripper by its place.

use crate::policy::decode::Invalid;
use schemars::JsonSchema;
use serde::Deserialize;

/// ALOHA's gripper: metres of travel and the angle that pi0 was trained on
/// (`Physical-Intelligence/openpi@15a9616a` `policies/aloha_policy.py`).
const ALOHA_TRAVEL_M: [f64; 2] = [0.01844, 0.05800];
const ALOHA_ARM_M: f64 = 0.036;
const ALOHA_HORN_M: f64 = 0.022;
const ALOHA_ANGLE_IN_RAD: [f64; 2] = [0.5476, 1.6296];
const ALOHA_ANGLE_OUT_RAD: [f64; 2] = [-0.6213, 1.4910];

/// One operation on every action of a chunk.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "op")]
pub enum Post {
    /// Adds the state that the policy was shown, in raw units, where the mask says so: a delta becomes a target.
    AddState {
        /// One entry a column; columns beyond it are left alone.
        mask: Vec<bool>,
    },
    /// Multiplies each column.
    Sign {
        /// One factor a column.
        by: Vec<f32>,
    },
    /// `x * mul + add` on the named columns.
    Affine {
        /// Columns.
        dims: Vec<usize>,
        /// Factor.
        mul: f32,
        /// Offset.
        add: f32,
    },
    /// Keeps the named columns in a range.
    Clip {
        /// Columns.
        dims: Vec<usize>,
        /// Smallest.
        low: f32,
        /// Largest.
        high: f32,
    },
    /// One of two values: `high` above the threshold, `low` at it or below.
    Binarise {
        /// Columns.
        dims: Vec<usize>,
        /// What is compared with.
        threshold: f32,
        /// Value at or below it.
        low: f32,
        /// Value above it.
        high: f32,
    },
    /// `1 / (1 + e^-x)` on the named columns.
    Sigmoid {
        /// Columns.
        dims: Vec<usize>,
    },
    /// Zero where it is smaller than a bound.
    Deadband {
        /// Columns.
        dims: Vec<usize>,
        /// The bound, which itself passes.
        below: f32,
    },
    /// The column becomes its change since the action before; one larger than `change` is held for `steps` actions
    /// (how SIMPLER drives a gripper that takes steps from a policy that says open or closed: 0.5 and 15).
    Sticky {
        /// Column.
        dim: usize,
        /// Change that counts.
        change: f32,
        /// Actions for which it is held.
        steps: u32,
    },
    /// pi0's gripper angle in radians -> 0..1 between ALOHA's closed and open joint.
    AlohaGripperFromAngular {
        /// Columns.
        dims: Vec<usize>,
    },
    /// ALOHA's gripper, 0..1 of its linear travel -> 0..1 of the angle that pi0 was trained on.
    AlohaGripperToAngular {
        /// Columns.
        dims: Vec<usize>,
    },
}

impl Post {
    /// The columns it names must exist. Gives the first that does not.
    #[must_use]
    pub fn bad_column(&self, width: usize) -> Option<usize> {
        match self {
            Post::AddState { mask } => (mask.len() > width).then_some(width),
            Post::Sign { by } => (by.len() > width).then_some(width),
            Post::Sticky { dim, .. } => (*dim >= width).then_some(*dim),
            Post::Affine { dims, .. }
            | Post::Clip { dims, .. }
            | Post::Binarise { dims, .. }
            | Post::Sigmoid { dims }
            | Post::Deadband { dims, .. }
            | Post::AlohaGripperFromAngular { dims }
            | Post::AlohaGripperToAngular { dims } => {
                dims.iter().copied().find(|dim| *dim >= width)
            }
        }
    }
}

/// What a sticky column remembers from chunk to chunk.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sticky {
    before: Option<f32>,
    held: f32,
    left: u32,
}

impl Sticky {
    /// The next value: the change since the last one (0 at first), or the change that is held.
    fn next(&mut self, value: f32, change: f32, steps: u32) -> f32 {
        let moved = self.before.map_or(0.0, |before| before - value);
        self.before = Some(value);
        if moved.abs() > change && self.left == 0 {
            (self.held, self.left) = (moved, steps);
        }
        if self.left == 0 {
            return moved;
        }
        self.left -= 1;
        self.held
    }
}

/// The operations with what they remember.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Steps {
    ops: Vec<Post>,
    sticky: Vec<Sticky>,
}

impl Steps {
    /// Makes room for what they remember.
    #[must_use]
    pub fn new(ops: Vec<Post>) -> Steps {
        Steps {
            sticky: vec![Sticky::default(); ops.len()],
            ops,
        }
    }

    /// Forgets: a new episode.
    pub fn reset(&mut self) {
        self.sticky.fill(Sticky::default());
    }

    /// Runs all over `chunk`, `[actions][width]` in units. `state` is the one of the observation, in the same units.
    ///
    /// # Errors
    /// [`Invalid::NotFinite`] if anything is not finite afterwards; the chunk is then not to be used.
    pub fn run(&mut self, chunk: &mut [f32], width: usize, state: &[f32]) -> Result<(), Invalid> {
        for (op, sticky) in self.ops.iter().zip(&mut self.sticky) {
            for row in chunk.chunks_exact_mut(width.max(1)) {
                apply(op, sticky, row, state);
            }
        }
        match chunk.iter().position(|value| !value.is_finite()) {
            Some(at) => Err(Invalid::NotFinite {
                what: "the chunk",
                at,
            }),
            None => Ok(()),
        }
    }
}

fn apply(op: &Post, sticky: &mut Sticky, row: &mut [f32], state: &[f32]) {
    let mut each = |dims: &[usize], change: &mut dyn FnMut(f32) -> f32| {
        for dim in dims {
            if let Some(value) = row.get_mut(*dim) {
                *value = change(*value);
            }
        }
    };
    match op {
        Post::AddState { mask } => {
            for ((value, add), state) in row.iter_mut().zip(mask).zip(state) {
                if *add {
                    *value += state;
                }
            }
        }
        Post::Sign { by } => {
            for (value, by) in row.iter_mut().zip(by) {
                *value *= by;
            }
        }
        Post::Affine { dims, mul, add } => each(dims, &mut |x| x * mul + add),
        Post::Clip { dims, low, high } => each(dims, &mut |x| x.max(*low).min(*high)),
        Post::Binarise {
            dims,
            threshold,
            low,
            high,
        } => each(dims, &mut |x| match x.partial_cmp(threshold) {
            Some(core::cmp::Ordering::Greater) => *high,
            Some(_) => *low,
            None => f32::NAN,
        }),
        Post::Sigmoid { dims } => each(dims, &mut |x| 1.0 / (1.0 + (-x).exp())),
        Post::Deadband { dims, below } => {
            each(dims, &mut |x| if x.abs() < *below { 0.0 } else { x });
        }
        Post::Sticky { dim, change, steps } => {
            each(&[*dim], &mut |x| sticky.next(x, *change, *steps));
        }
        Post::AlohaGripperFromAngular { dims } => {
            let [low, high] = ALOHA_ANGLE_OUT_RAD;
            each(dims, &mut |x| {
                ((f64::from(x) + ALOHA_ANGLE_IN_RAD[0] - low) / (high - low)) as f32
            });
        }
        Post::AlohaGripperToAngular { dims } => each(dims, &mut |x| {
            let [near, far] = ALOHA_TRAVEL_M;
            let travel = f64::from(x) * (far - near) + near;
            let sine = (ALOHA_HORN_M.powi(2) + travel.powi(2) - ALOHA_ARM_M.powi(2))
                / (2.0 * ALOHA_HORN_M * travel);
            let [low, high] = ALOHA_ANGLE_IN_RAD;
            ((sine.clamp(-1.0, 1.0).asin() - low) / (high - low)) as f32
        }),
    }
}
