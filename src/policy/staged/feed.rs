// SPDX-License-Identifier: Apache-2.0
//! What the policy is shown, on its way into the tensors of the stages.

use crate::policy::picture::Feed;
use crate::policy::picture::history::History;
use crate::policy::staged::plan::Source;
use crate::policy::staged::{Fault, Observation, Staged};

/// A camera's way into its tensor.
pub(super) struct Eye {
    pub(super) feed: Feed,
    pub(super) missing: Option<f32>,
    /// For more than one frame: the ring and the newest frame.
    pub(super) history: Option<(History, Vec<f32>)>,
    pub(super) seen: Vec<bool>,
    pub(super) marks: Vec<i32>,
    /// The engine makes the tensor of the camera's bytes.
    pub(super) on_device: bool,
}

impl Staged {
    pub(super) fn feed_state(&mut self, observation: &Observation<'_>) -> Result<(), Fault> {
        let state = observation.state;
        let wrong = |at| Fault::State {
            expected: self.units.len(),
            found: state.len(),
            at,
        };
        let broken = state.iter().position(|value| !value.is_finite());
        if state.len() != self.units.len() || broken.is_some() {
            return Err(wrong(broken));
        }
        self.units.copy_from_slice(state);
        let Some((pre, normaliser)) = &mut self.state else {
            return Ok(());
        };
        let width = self.units.len();
        pre.run(&mut self.units, width, &[])?;
        normaliser.fill(self.units.iter().copied(), &mut self.normalised);
        if let Some(history) = &mut self.state_history {
            history.push(&self.normalised, observation.captured_ns);
            self.run
                .feed(Source::State, |slot| history.write(slot, &mut []));
            return Ok(());
        }
        let normalised = &self.normalised;
        self.run.feed(Source::State, |slot| {
            slot.fill(0.0);
            for (slot, value) in slot.iter_mut().zip(normalised) {
                *slot = *value;
            }
        });
        Ok(())
    }

    pub(super) fn feed_pictures(&mut self, observation: &Observation<'_>) -> Result<(), Fault> {
        if observation.pictures.len() != self.eyes.len() {
            return Err(Fault::Cameras {
                expected: self.eyes.len(),
                found: observation.pictures.len(),
            });
        }
        let pictures = observation.pictures.iter().zip(&mut self.eyes).enumerate();
        for (camera, (picture, eye)) in pictures {
            let [width, height] = eye.feed.source();
            let expected = width * height * 3;
            let found = picture.map_or(0, <[u8]>::len);
            let good = match picture {
                Some(picture) => picture.len() == expected,
                None => eye.missing.is_some(),
            };
            if !good {
                return Err(Fault::Picture {
                    camera,
                    expected,
                    found,
                });
            }
            let Eye {
                feed,
                missing,
                history,
                seen,
                marks,
                on_device,
            } = eye;
            let fill = missing.unwrap_or(0.0);
            match (picture, history) {
                (None, _) => {
                    seen.fill(false);
                    self.run
                        .feed(Source::Camera(camera), |slot| slot.fill(fill));
                }
                (Some(picture), None) => {
                    seen.fill(true);
                    if *on_device && let Some(bytes) = self.run.picture(camera) {
                        bytes.copy_from_slice(picture);
                    } else {
                        // Lengths were checked above and at load.
                        self.run.feed(Source::Camera(camera), |slot| {
                            let _ = feed.fill(picture, slot);
                        });
                    }
                }
                (Some(picture), Some((history, newest))) => {
                    let _ = feed.fill(picture, newest);
                    history.push(newest, observation.captured_ns);
                    self.run
                        .feed(Source::Camera(camera), |slot| history.write(slot, seen));
                }
            }
            for (mark, seen) in marks.iter_mut().zip(seen.iter()) {
                *mark = i32::from(*seen);
            }
            self.run.feed_whole(Source::Seen(camera), marks);
        }
        Ok(())
    }
}
