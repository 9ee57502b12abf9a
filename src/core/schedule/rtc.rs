// SPDX-License-Identifier: Apache-2.0
//! Real-time chunking, the host's side: what a policy that plans on from the running plan is told, and the correction
//! that needs no gradient.
//!
//! - [`Delays`]: inference delay in *consumed steps*, a fact of chunks that were followed; the first chunk after a start
//!   is made cold and is not counted.
//! - [`weights`]: how strongly each step of the new chunk is held to the old plan.
//! - [`Prefix`]: the actions of the running plan from the observation on, in the policy's own space.
//! - [`identity_correction`]: the guided velocity when the denoiser's Jacobian is taken as the identity.
//!
//! `guided` and `trained` flavours take the same prefix, weights and delay as inputs of an engine stage. Nothing here
//! runs a denoiser. Sources: K. Black, M. Galliker, S. Levine, "Real-time execution of action chunking flow policies",
//! 2025; LeRobot `src/lerobot/policies/rtc/modeling_rtc.py` for the gradient-free form and its defaults.

use crate::core::chunk::Chunk;
use crate::core::limits::{CHUNK_STEPS_MAX, CHUNK_VALUES_MAX, JOINTS_MAX};
use crate::core::units::Mono;

/// How the weights fall from the delay to the end of the overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Only the steps within the delay are held.
    Zeros,
    /// Everything up to the end is held.
    Ones,
    /// In a straight line.
    Linear,
    /// The line bent by (e^w - 1) / (e - 1), times the line.
    Exp,
}

/// The weight of each of `weights.len()` steps: 1 before `delay`, 0 from `end` on, falling between.
pub fn weights(attention: Attention, delay: usize, end: usize, weights: &mut [f32]) {
    let delay = delay.min(end);
    for (step, weight) in weights.iter_mut().enumerate() {
        let inside = step < end;
        let line = match (step < delay, inside) {
            (true, _) => 1.0,
            (false, false) => 0.0,
            (false, true) => (end - step) as f32 / (end - delay + 1) as f32,
        };
        *weight = match attention {
            Attention::Zeros => f32::from(u8::from(step < delay)),
            Attention::Ones => f32::from(u8::from(inside)),
            Attention::Linear => line,
            Attention::Exp => line * libm::expm1f(line) / (core::f32::consts::E - 1.0),
        };
    }
}

/// How strongly each of `strengths.len()` steps is still denoised when the overlap begins as the old plan: 0 before
/// `frozen`, 1 from `overlap` on, between them (for a `rate` above 0) `1 - e^(-rate u)` of its value at 1, u rising evenly
/// (`NVIDIA/Isaac-GR00T` `gr00t_n1d7.py`).
pub fn strengths(rate: f32, frozen: usize, overlap: usize, strengths: &mut [f32]) {
    let frozen = frozen.min(overlap);
    let whole = libm::expm1f(-rate);
    for (step, strength) in strengths.iter_mut().enumerate() {
        *strength = match (step < frozen, step < overlap) {
            (true, _) => 0.0,
            (false, false) => 1.0,
            (false, true) => {
                let u = (step - frozen + 1) as f32 / (overlap - frozen + 1) as f32;
                libm::expm1f(-rate * u) / whole
            }
        };
    }
}

/// How hard the guidance pulls at flow time `t`, which goes from 1 (noise) to 0 (action); at most `weight_max`.
#[must_use]
pub fn guidance_weight(t: f32, weight_max: f32) -> f32 {
    let tau = 1.0 - t;
    if tau <= 0.0 || t <= 0.0 {
        return weight_max;
    }
    let spread = (t * t + tau * tau) / (t * t);
    (t / tau * spread).min(weight_max)
}

/// `velocity -= guidance * W * (prefix - (x - t * velocity))` for every step and channel, in place.
///
/// `x`, `velocity` and `prefix` are row-major steps x `channels` in the policy's normalised space, a prefix shorter than
/// the chunk having weight 0 past its end; `t` goes from 1 (noise) to 0 (action).
pub fn identity_correction(
    velocity: &mut [f32],
    x: &[f32],
    prefix: &[f32],
    weights: &[f32],
    channels: usize,
    t: f32,
    guidance: f32,
) {
    for (((velocity, x), prefix), weight) in velocity
        .chunks_mut(channels.max(1))
        .zip(x.chunks(channels.max(1)))
        .zip(prefix.chunks(channels.max(1)))
        .zip(weights)
    {
        for ((v, x), prefix) in velocity.iter_mut().zip(x).zip(prefix) {
            *v -= guidance * weight * (prefix - (x - t * *v));
        }
    }
}

/// What is left of a plan at an observation: steps x joints, row-major, of absolute targets until re-anchored.
#[derive(Clone, Debug, Default)]
pub struct Prefix {
    steps: usize,
    joints: usize,
    values: heapless::Vec<f32, CHUNK_VALUES_MAX>,
}

impl Prefix {
    /// The actions of `plan` from `observed` on. Step 0 is the first action not before it.
    #[must_use]
    pub fn of(plan: &Chunk, observed: Mono) -> Prefix {
        let first = (0..plan.steps()).find(|step| plan.at(*step) >= observed);
        let mut prefix = Prefix {
            joints: plan.joints(),
            ..Prefix::default()
        };
        for step in first.unwrap_or(plan.steps())..plan.steps() {
            if prefix.values.extend_from_slice(plan.action(step)).is_ok() {
                prefix.steps += 1;
            }
        }
        prefix
    }

    /// Makes the joints in `relative` relative to `state`, for a policy whose actions are: a leftover relative to the
    /// *old* observation would pull the new chunk by as much as the robot has moved since.
    pub fn anchor(&mut self, state: &[f64; JOINTS_MAX], relative: &[bool]) {
        for row in self.values.chunks_mut(self.joints.max(1)) {
            for ((value, state), relative) in row.iter_mut().zip(state).zip(relative) {
                if *relative {
                    *value = (f64::from(*value) - state) as f32;
                }
            }
        }
    }

    /// Steps left.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Row-major values.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// How many of the last delays are looked at.
const DELAYS_KEPT: usize = 8;

/// Delays of followed chunks in consumed steps.
#[derive(Clone, Debug, Default)]
pub struct Delays {
    cold_start_over: bool,
    seen: heapless::HistoryBuf<u16, DELAYS_KEPT>,
}

impl Delays {
    /// A chunk observed at `captured` was first followed at `taken`.
    pub fn followed(&mut self, captured: Mono, taken: Mono, step_ns: u64) {
        if !core::mem::replace(&mut self.cold_start_over, true) {
            return;
        }
        let steps = taken.since_ns(captured).div_ceil(step_ns.max(1));
        self.seen
            .write(u16::try_from(steps).unwrap_or(CHUNK_STEPS_MAX as u16));
    }

    /// The delay to plan for: the longest of the last eight; none before two chunks were followed.
    #[must_use]
    pub fn planned(&self) -> Option<u16> {
        self.seen.as_slice().iter().copied().max()
    }

    /// Forgets all: after a start nothing is known.
    pub fn clear(&mut self) {
        *self = Delays::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::chunk::Provenance;
    use crate::core::units::MS;

    fn close(found: &[f32], wanted: &[f32], within: f32) {
        assert_eq!(found.len(), wanted.len());
        for (f, w) in found.iter().zip(wanted) {
            assert!((f - w).abs() < within, "{found:?} {wanted:?}");
        }
    }

    #[test]
    fn the_weights_are_those_of_the_published_schedules() {
        // LeRobot's processor at delay 4, horizon 10, recorded to four places.
        let mut found = [0.0; 11];
        weights(Attention::Linear, 4, 10, &mut found);
        close(
            &found,
            &[
                1.0, 1.0, 1.0, 1.0, 0.857, 0.714, 0.571, 0.429, 0.286, 0.143, 0.0,
            ],
            6e-4,
        );
        weights(Attention::Exp, 4, 10, &mut found);
        close(
            &found,
            &[
                1.0, 1.0, 1.0, 1.0, 0.6766, 0.4335, 0.2563, 0.1335, 0.0550, 0.0128, 0.0,
            ],
            6e-5,
        );
        weights(Attention::Zeros, 2, 4, &mut found);
        assert_eq!(found.iter().sum::<f32>(), 2.0);
        weights(Attention::Ones, 2, 4, &mut found);
        assert_eq!(found.iter().sum::<f32>(), 4.0);
    }

    /// Isaac-GR00T's own lines in PyTorch, rate 2, 2 of 5 frozen: linspace(0, 1, 5)[1:-1] through 1 - exp.
    #[test]
    fn the_strengths_are_the_published_ramp() {
        let mut found = [9.0; 7];
        strengths(2.0, 2, 5, &mut found);
        let ramp =
            [0.25, 0.5, 0.75].map(|u: f32| (1.0 - (-2.0 * u).exp()) / (1.0 - (-2.0f32).exp()));
        close(
            &found,
            &[0.0, 0.0, ramp[0], ramp[1], ramp[2], 1.0, 1.0],
            1e-6,
        );
        strengths(2.0, 9, 3, &mut found);
        assert_eq!(found, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn the_guidance_weight_is_the_published_one() {
        let found = [1.0, 0.9, 0.5, 0.1].map(|t| guidance_weight(t, 10.0));
        close(&found, &[10.0, 9.111, 2.0, 9.111], 1e-3);
    }

    #[test]
    fn the_correction_moves_a_held_step_to_the_prefix_and_leaves_a_free_one() {
        // With guidance 1 / t a step of weight 1 denoises exactly to the prefix: x - t * v' = prefix.
        let (t, x, prefix) = (0.5, [0.4, -0.2, 0.9, 0.0], [0.1, 0.3, 7.0, 7.0]);
        let mut velocity = [1.0, -2.0, 0.5, 0.25];
        identity_correction(&mut velocity, &x, &prefix, &[1.0, 0.0], 2, t, 1.0 / t);
        let landed = [x[0] - t * velocity[0], x[1] - t * velocity[1]];
        close(&landed, &prefix[..2], 1e-6);
        assert_eq!(velocity[2..], [0.5, 0.25]);
    }

    #[test]
    fn a_relative_prefix_is_anchored_anew() {
        let values: Vec<f32> = (0..8).flat_map(|i| [0.1 * i as f32, 1.0]).collect();
        let plan =
            Chunk::new(Mono(100 * MS), 50 * MS, 2, &values, Provenance::default()).expect("good");
        let mut prefix = Prefix::of(&plan, Mono(240 * MS));
        assert_eq!(prefix.steps(), 5, "actions at 250 ms and later");
        let mut state = [0.0; JOINTS_MAX];
        state[0] = 0.3;
        prefix.anchor(&state, &[true, false]);
        close(&prefix.values()[..4], &[0.0, 1.0, 0.1, 1.0], 1e-6);
    }

    #[test]
    fn a_cold_start_is_no_delay() {
        let mut delays = Delays::default();
        delays.followed(Mono(0), Mono(1_050 * MS), 50 * MS);
        assert_eq!(
            delays.planned(),
            None,
            "21 steps from standstill are a start, not a delay"
        );
        delays.followed(Mono(1_100 * MS), Mono(1_250 * MS), 50 * MS);
        delays.followed(Mono(1_200 * MS), Mono(1_301 * MS), 50 * MS);
        assert_eq!(delays.planned(), Some(3));
    }
}
