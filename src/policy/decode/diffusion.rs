// SPDX-License-Identifier: Apache-2.0
//! Diffusion: noise becomes an action by a scheduler's steps; the graph says what is noise in it.
//!
//! DDPM (arXiv 2006.11239) and DDIM with eta 0 (arXiv 2010.02502) on the squared-cosine schedule, as diffusers runs them
//! for Diffusion Policy; and Octo's own loop (`octo-models/octo@241fb351` `model/components/action_heads.py`), which
//! clips the sample instead of the clean estimate and adds the full variance. 32-bit floats in diffusers' own order.

use crate::ports::{Says, Update};
use schemars::JsonSchema;
use serde::Deserialize;

/// How the noise grows over the training steps.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
pub enum Betas {
    /// diffusers' `squaredcos_cap_v2`: the cosine at both ends of each step, at most `max`. Octo's is the same formula.
    SquaredCosine {
        /// Largest beta, 0.999.
        max: f64,
    },
    /// Evenly from `start` to `end`.
    Linear {
        /// The first.
        start: f64,
        /// The last.
        end: f64,
    },
}

/// What the graph gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Prediction {
    /// The noise.
    Epsilon,
    /// The clean sample.
    Sample,
    /// The velocity of arXiv 2202.00512.
    VPrediction,
}

/// Whose steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scheduler {
    /// diffusers' DDPM with `fixed_small` variance.
    Ddpm,
    /// diffusers' DDIM with eta 0 and `set_alpha_to_one`; takes no noise after the first.
    Ddim,
    /// Octo's loop; `clip` bounds the sample itself (5).
    Octo,
}

/// The denoising loop as the manifest has it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffusionFile {
    /// Whose steps.
    pub scheduler: Scheduler,
    /// Steps of the training.
    pub train_steps: u32,
    /// Steps now; they are spread "leading": step i is of time `(steps - 1 - i) * (train_steps / steps)`.
    pub steps: u32,
    /// The schedule.
    pub betas: Betas,
    /// What the graph gives.
    pub prediction: Prediction,
    /// Bound of the clean estimate (Octo: of the sample); none if absent.
    pub clip: Option<f32>,
}

/// One step, worked out.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Step {
    time: u32,
    /// Share of the clean sample that is left at this time, and at the time stepped to.
    hat: f32,
    hat_before: f32,
    /// Factors of clean estimate and sample in DDPM's mean.
    clean: f32,
    kept: f32,
    /// Deviation of the noise that is added.
    noise: f32,
    alpha: f32,
}

/// The denoising loop, its factors worked out once.
#[derive(Clone, Debug, PartialEq)]
pub struct Diffusion {
    file: DiffusionFile,
    steps: Vec<Step>,
}

/// The schedule: beta of each training step.
#[must_use]
pub fn betas(kind: Betas, train_steps: u32) -> Vec<f32> {
    let n = f64::from(train_steps.max(1));
    match kind {
        Betas::SquaredCosine { max } => {
            let left = |t: f64| {
                ((t + 0.008) / 1.008 * core::f64::consts::FRAC_PI_2)
                    .cos()
                    .powi(2)
            };
            (0..train_steps)
                .map(|i| {
                    let (from, to) = (f64::from(i) / n, f64::from(i + 1) / n);
                    (1.0 - left(to) / left(from)).min(max) as f32
                })
                .collect()
        }
        Betas::Linear { start, end } => (0..train_steps)
            .map(|i| (start + (end - start) * f64::from(i) / (n - 1.0).max(1.0)) as f32)
            .collect(),
    }
}

impl Diffusion {
    /// Works the factors out. `None` if the steps do not fit the training's: 1 to 1000 of it, no more than it had.
    #[must_use]
    pub fn new(file: DiffusionFile) -> Option<Diffusion> {
        let fits = (1..=1_000).contains(&file.train_steps)
            && (1..=file.train_steps).contains(&file.steps)
            && (file.scheduler != Scheduler::Octo || file.steps == file.train_steps);
        if !fits {
            return None;
        }
        let betas = betas(file.betas, file.train_steps);
        let mut product = 1.0_f32;
        let hats: Vec<f32> = betas
            .iter()
            .map(|beta| {
                product *= 1.0 - beta;
                product
            })
            .collect();
        let apart = file.train_steps / file.steps;
        let hat_at = |time: Option<u32>| {
            time.and_then(|time| hats.get(time as usize).copied())
                .unwrap_or(1.0)
        };
        let steps = (0..file.steps)
            .rev()
            .map(|index| {
                let time = index * apart;
                let (hat, hat_before) = (hat_at(Some(time)), hat_at(time.checked_sub(apart)));
                let alpha = hat / hat_before;
                let beta = 1.0 - alpha;
                let rest = 1.0 - hat;
                let variance = match file.scheduler {
                    _ if time == 0 => 0.0,
                    Scheduler::Ddim => 0.0,
                    Scheduler::Ddpm => ((1.0 - hat_before) / rest * beta).max(1e-20),
                    Scheduler::Octo => betas.get(time as usize).copied().unwrap_or(0.0),
                };
                Step {
                    time,
                    hat,
                    hat_before,
                    clean: hat_before.sqrt() * beta / rest,
                    kept: alpha.sqrt() * (1.0 - hat_before) / rest,
                    noise: variance.sqrt(),
                    alpha: 1.0 - betas.get(time as usize).copied().unwrap_or(0.0),
                }
            })
            .collect();
        Some(Diffusion { file, steps })
    }

    /// Steps of the loop.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The training's time of step `step`, which counts from 0: what the graph is given.
    #[must_use]
    pub fn time(&self, step: usize) -> Option<i32> {
        self.steps.get(step).map(|step| step.time as i32)
    }

    /// Whether step `step` adds noise.
    #[must_use]
    pub fn is_noisy(&self, step: usize) -> bool {
        self.steps.get(step).is_some_and(|step| step.noise > 0.0)
    }

    /// Step `step` in numbers, for a device that does what [`Diffusion::step`] does; `None` for steps that draw noise.
    #[must_use]
    pub fn update(&self, step: usize) -> Option<Update> {
        let step = self.steps.get(step)?;
        (self.file.scheduler == Scheduler::Ddim).then(|| Update::Ddim {
            says: match self.file.prediction {
                Prediction::Epsilon => Says::Noise,
                Prediction::Sample => Says::Sample,
                Prediction::VPrediction => Says::Velocity,
            },
            clip: self.file.clip,
            rest: (1.0 - step.hat).sqrt(),
            share: step.hat.sqrt(),
            clean: step.hat_before.sqrt(),
            noise: (1.0 - step.hat_before).sqrt(),
        })
    }

    /// One step: sample and what the graph said of it -> the next sample. `noise` is of N(0, 1) and as long as `x`; it
    /// is not looked at where [`Diffusion::is_noisy`] says no.
    pub fn step(&self, step: usize, x: &mut [f32], said: &[f32], noise: &[f32]) {
        let Some(step) = self.steps.get(step) else {
            return;
        };
        let rest = (1.0 - step.hat).sqrt();
        let share = step.hat.sqrt();
        for (at, (x, said)) in x.iter_mut().zip(said).enumerate() {
            let drawn = if step.noise > 0.0 {
                step.noise * noise.get(at).copied().unwrap_or(0.0)
            } else {
                0.0
            };
            if self.file.scheduler == Scheduler::Octo {
                let mean = (*x - (1.0 - step.alpha) / rest * said) / step.alpha.sqrt() + drawn;
                *x = self
                    .file
                    .clip
                    .map_or(mean, |bound| mean.clamp(-bound, bound));
                continue;
            }
            let mut clean = match self.file.prediction {
                Prediction::Epsilon => (*x - rest * said) / share,
                Prediction::Sample => *said,
                Prediction::VPrediction => share * *x - rest * said,
            };
            if let Some(bound) = self.file.clip {
                clean = clean.clamp(-bound, bound);
            }
            *x = match self.file.scheduler {
                Scheduler::Ddpm | Scheduler::Octo => step.clean * clean + step.kept * *x + drawn,
                Scheduler::Ddim => {
                    // diffusers keeps the graph's own noise here and does not derive it from the clipped estimate.
                    let epsilon = match self.file.prediction {
                        Prediction::Epsilon => *said,
                        Prediction::Sample => (*x - share * said) / rest,
                        Prediction::VPrediction => share * said + rest * *x,
                    };
                    step.hat_before.sqrt() * clean + (1.0 - step.hat_before).sqrt() * epsilon
                }
            };
        }
    }
}
