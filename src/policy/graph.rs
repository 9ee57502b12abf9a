// SPDX-License-Identifier: Apache-2.0
//! The graph with its normalisation around it: pixels, raw state and tokens in; actions in units out.
//!
//! Used by the fixture and by the robot alike, so that what was judged is what drives. All tensors are made once;
//! nothing here allocates but the engine's own run call.

use crate::policy::bundle::{Bundle, Stage};
use crate::policy::image::{Picture, WrongSize};
use crate::policy::stats::Stats;
use crate::policy::{InferFault, Output};
use crate::ports::{Engine, EngineFault, Tensor};

pub(crate) struct Graph {
    stage: Stage,
    engine: Box<dyn Engine>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    picture: Picture,
    state_stats: Stats,
    state_eps: f32,
    action_stats: Stats,
}

impl Graph {
    /// `engine` takes and gives the tensors of the bundle's stage, in its order.
    pub(crate) fn new(
        bundle: &Bundle,
        engine: Box<dyn Engine>,
        state_stats: Stats,
        action_stats: Stats,
    ) -> Graph {
        let stage = bundle.stage.clone();
        Graph {
            inputs: stage.spec.inputs.iter().map(Tensor::zeros).collect(),
            outputs: stage.spec.outputs.iter().map(Tensor::zeros).collect(),
            picture: bundle.image.picture.clone(),
            stage,
            engine,
            state_stats,
            state_eps: bundle.state.stats.eps as f32,
            action_stats,
        }
    }

    /// See [`Engine::lost`].
    pub(crate) fn lost(&self) -> bool {
        self.engine.lost()
    }

    /// Offers the camera's way to the engine; whether it makes the picture itself from now on. Then a picture of the graph's own size is
    /// not looked at any more.
    pub(crate) fn offer_picture(&mut self) -> Result<bool, EngineFault> {
        self.engine
            .take_picture(self.stage.image, &self.picture.way())
    }

    /// See [`Engine::settle`].
    pub(crate) fn settle(&mut self) -> Result<bool, EngineFault> {
        self.engine.settle()
    }

    /// A camera's picture: `[height][width][3]` of the source.
    pub(crate) fn write_picture(&mut self, rgb: &[u8]) -> Result<(), WrongSize> {
        if let Some(place) = self.engine.picture(self.stage.image) {
            let (expected, found) = (place.len(), rgb.len());
            if expected != found {
                return Err(WrongSize { expected, found });
            }
            place.copy_from_slice(rgb);
            return Ok(());
        }
        let tensor = self
            .inputs
            .get_mut(self.stage.image)
            .and_then(Tensor::f32_mut)
            .unwrap_or_default();
        self.picture.fill(rgb, tensor)
    }

    /// A picture of the graph's own size.
    pub(crate) fn write_small_picture(&mut self, rgb: &[u8]) -> Result<(), WrongSize> {
        let tensor = self
            .inputs
            .get_mut(self.stage.image)
            .and_then(Tensor::f32_mut)
            .unwrap_or_default();
        self.picture.fill_small(rgb, tensor)
    }

    /// The joint state in units, order of the manifest.
    pub(crate) fn write_state(&mut self, raw: impl Iterator<Item = f32>) {
        let tensor = self
            .inputs
            .get_mut(self.stage.state)
            .and_then(Tensor::f32_mut)
            .unwrap_or_default();
        for (index, (slot, value)) in tensor.iter_mut().zip(raw).enumerate() {
            *slot = self.state_stats.normalise(index, value, self.state_eps);
        }
    }

    /// Token ids with their padding.
    pub(crate) fn write_tokens(&mut self, tokens: &[i32]) {
        let tensor = self
            .inputs
            .get_mut(self.stage.text)
            .and_then(Tensor::i32_mut)
            .unwrap_or_default();
        for (slot, token) in tensor.iter_mut().zip(tokens) {
            *slot = *token;
        }
    }

    pub(crate) fn run(&mut self) -> Result<(), EngineFault> {
        self.engine.run(&self.inputs, &mut self.outputs)
    }

    /// Refuses the outputs whole if any number of any of them is not finite.
    pub(crate) fn check_finite(&self) -> Result<(), InferFault> {
        let stage = &self.stage;
        let outputs = [
            (Output::Action, Some(stage.action)),
            (Output::Keypoint, stage.keypoint),
            (Output::Presence, stage.presence),
        ];
        for (output, index) in outputs {
            if let Some(at) = self
                .output(index)
                .iter()
                .position(|value| !value.is_finite())
            {
                return Err(InferFault::NotFinite { output, at });
            }
        }
        Ok(())
    }

    /// All that it gave.
    pub(crate) fn outputs(&self) -> &[Tensor] {
        &self.outputs
    }

    /// The actions as the graph gave them, each `columns` wide; [`Graph::restore`] gives them their units.
    pub(crate) fn rows(&self, columns: usize) -> impl Iterator<Item = &[f32]> {
        self.output(Some(self.stage.action)).chunks_exact(columns)
    }

    /// A number of a row in its unit: radians, metres or 0..1.
    pub(crate) fn restore(&self, row: &[f32], column: usize) -> f32 {
        self.action_stats
            .restore(column, row.get(column).copied().unwrap_or(f32::NAN))
    }

    /// How far each joint of an action ranges.
    pub(crate) fn action_range(&self) -> &[f32] {
        &self.action_stats.range
    }

    /// Whether it has that output.
    pub(crate) fn tells_presence(&self) -> bool {
        self.stage.presence.is_some()
    }

    /// Probability 0..1 that the named object is in the picture.
    pub(crate) fn presence(&self) -> Option<f32> {
        self.output(self.stage.presence)
            .first()
            .map(|logit| 1.0 / (1.0 + (-logit).exp()))
    }

    /// Where it is, 0..1 from the left and from the top.
    pub(crate) fn keypoint(&self) -> Option<[f32; 2]> {
        match self.output(self.stage.keypoint) {
            [x, y] => Some([*x, *y]),
            _ => None,
        }
    }

    fn output(&self, index: Option<usize>) -> &[f32] {
        index
            .and_then(|index| self.outputs.get(index))
            .and_then(Tensor::f32)
            .unwrap_or_default()
    }
}
