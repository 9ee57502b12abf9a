// SPDX-License-Identifier: Apache-2.0
//! Flow matching: noise follows the velocity that the graph gives, in a few Euler steps.
//!
//! pi0, pi0.5 and SmolVLA go from t = 1 (noise) to 0 in 10 steps and take t as a float
//! (`Physical-Intelligence/openpi@15a9616a` `models/pi0.py`); GR00T goes from 0 to 1 in 4 and takes a bucket of 1000
//! (`NVIDIA/Isaac-GR00T` `flow_matching_action_head.py`). With the wrong direction the same graph gives noise.

use schemars::JsonSchema;
use serde::Deserialize;

/// How a time is handed to the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
pub enum FlowTime {
    /// As it is.
    F32,
    /// As the whole part of t times `count`.
    Bucket {
        /// Buckets, e.g. 1000.
        count: u32,
    },
}

/// How the times are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlowGrid {
    /// Step after step added in 32-bit floats, as openpi and LeRobot up to 0.4 do: the tenth time is 0.09999993.
    #[default]
    Accumulated,
    /// `start + step * (end - start) / steps`.
    Exact,
}

/// The Euler loop.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Time of the noise: 1 for pi0 and SmolVLA, 0 for GR00T.
    pub t_start: f32,
    /// Time of the action.
    pub t_end: f32,
    /// Steps.
    pub steps: u32,
    /// What the graph takes.
    pub time: FlowTime,
    /// How times are made.
    #[serde(default)]
    pub grid: FlowGrid,
}

impl Flow {
    /// Length of a step, with its sign.
    #[must_use]
    pub fn dt(&self) -> f32 {
        ((f64::from(self.t_end) - f64::from(self.t_start)) / f64::from(self.steps.max(1))) as f32
    }

    /// Time before step `step`, which counts from 0.
    ///
    /// A whole number counts the steps: a sum of floats compared with 0 runs one step too many for 5, 7, 9 and others.
    #[must_use]
    pub fn time(&self, step: u32) -> f32 {
        match self.grid {
            FlowGrid::Accumulated => (0..step).fold(self.t_start, |t, _| t + self.dt()),
            FlowGrid::Exact => {
                let span = f64::from(self.t_end) - f64::from(self.t_start);
                let part = f64::from(step) / f64::from(self.steps.max(1));
                (f64::from(self.t_start) + part * span) as f32
            }
        }
    }

    /// The bucket before step `step`, if the graph takes one.
    #[must_use]
    pub fn bucket(&self, step: u32) -> Option<i32> {
        match self.time {
            FlowTime::F32 => None,
            FlowTime::Bucket { count } => {
                // In 64 bits: 0.7 in 32 bits times 1000 is below 700.
                let span = f64::from(self.t_end) - f64::from(self.t_start);
                let part = f64::from(step) / f64::from(self.steps.max(1));
                Some(((f64::from(self.t_start) + part * span) * f64::from(count)) as i32)
            }
        }
    }

    /// One step: `x += dt * velocity`.
    pub fn step(&self, x: &mut [f32], velocity: &[f32]) {
        let dt = self.dt();
        for (x, v) in x.iter_mut().zip(velocity) {
            *x += dt * v;
        }
    }
}
