// SPDX-License-Identifier: Apache-2.0
//! Pictures that an engine makes itself: offered at load, given as the camera's bytes ever after.

use super::{Run, Target};
use crate::policy::staged::plan::{Place, Source};
use crate::ports::{EngineFault, PictureWay};

impl Run {
    /// Offers a camera's way to the engine of the one stage that reads it whole; whether it makes the picture itself.
    pub(crate) fn offer(&mut self, camera: usize, way: &PictureWay) -> Result<bool, EngineFault> {
        let Some(target) = self.only_reader(camera) else {
            return Ok(false);
        };
        let spec = self
            .plan
            .stages
            .get(target.place.stage)
            .and_then(|stage| stage.spec.inputs.get(target.place.tensor));
        let whole = spec.is_some_and(|spec| spec.values() == target.part.len);
        match self.stages.get_mut(target.place.stage) {
            Some(stage) if whole => stage.engine.take_picture(target.place.tensor, way),
            _ => Ok(false),
        }
    }

    /// Where the bytes of a camera's picture go, if an engine makes its tensor itself.
    pub(crate) fn picture(&mut self, camera: usize) -> Option<&mut [u8]> {
        let Place { stage, tensor } = self.only_reader(camera)?.place;
        self.stages.get_mut(stage)?.engine.picture(tensor)
    }

    fn only_reader(&self, camera: usize) -> Option<Target> {
        let source = Source::Camera(camera);
        let mut readers = self.targets.iter().filter(|(found, _)| *found == source);
        match readers.next().map(|(_, targets)| &targets[..]) {
            Some([target]) => Some(*target),
            _ => None,
        }
    }
}
