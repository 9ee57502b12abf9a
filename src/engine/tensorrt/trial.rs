// SPDX-License-Identifier: Apache-2.0
//! Copied or mapped: where a device shares its memory with the processor, both are tried at load, and the faster stays.
//!
//! Which it is depends on the engine: a copy costs a launch and the bytes twice, mapped memory is read by the device's kernels past
//! some of its caches. So it is measured on the engine itself, and on what it will do: after the last offer, when a camera's picture
//! crosses as bytes and what other stages or a loop need stays on the device. What was chosen, or offered where nothing is to choose, is
//! recorded and replayed here, so that who proves the engine after this proves the recording, and not the run that it was made of.

use super::{LoadFault, Memory, TensorRt};
use crate::core::units::Mono;
use crate::cuda::Device;
use crate::ports::{Engine, EngineFault, Tensor, TensorSpec};
use std::fmt;

/// Turns of each kind, one after the other's.
const TURNS: usize = 2;
/// A turn ends after this many runs,
const RUNS_MAX: usize = 100;
/// or after this long, with so many runs at least.
const TURN_NS: u64 = 30_000_000;
const RUNS_MIN: usize = 3;

/// What a run took with each kind of memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Copied: half of the runs were shorter, microseconds.
    pub copied_us: f64,
    /// Mapped, the same; or why it does not run so.
    pub mapped_us: Result<f64, String>,
    /// What stays.
    pub chosen: Memory,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chosen = match self.chosen {
            Memory::Copied => "copied",
            Memory::Mapped => "mapped",
        };
        write!(
            f,
            "memory {chosen}: a run takes {:.1} us copied",
            self.copied_us
        )?;
        match &self.mapped_us {
            Ok(us) => write!(f, ", {us:.1} us mapped"),
            Err(why) => write!(f, ", mapped it does not run: {why}"),
        }
    }
}

/// Who is told how the trial ended, `None` if there was nothing to try, and may look at the engine as it runs from then on.
type Tell = Box<dyn FnOnce(&TensorRt, Option<&Trial>) + Send>;

/// A trial that waits for the last offer.
pub(super) struct Settling {
    device: Device,
    now: fn() -> Mono,
    tell: Tell,
}

impl TensorRt {
    /// Has both kinds of memory be tried when every offer was made ([`Engine::settle`]); `tell` is told then.
    pub fn choose_at_last(
        &mut self,
        device: &Device,
        now: fn() -> Mono,
        tell: impl FnOnce(&TensorRt, Option<&Trial>) + Send + 'static,
    ) {
        self.settling = Some(Settling {
            device: device.clone(),
            now,
            tell: Box::new(tell),
        });
    }

    /// Tries what waits for it, and runs as it will from then on: recorded, and from the recording. Whether that is otherwise than before.
    pub(super) fn try_at_last(&mut self) -> Result<bool, LoadFault> {
        let offered = self.is_changed();
        let (mut trial, mut told) = (None, None);
        if let Some(Settling { device, now, tell }) = self.settling.take() {
            trial = self.choose_memory(&device, now)?;
            told = Some(tell);
        }
        let is_other = offered || trial.is_some();
        if is_other {
            let (inputs, mut outputs) = self.zeros();
            // The first records what was changed.
            for _ in 0..2 {
                self.run(&inputs, &mut outputs).map_err(in_words)?;
            }
        }
        self.settled()?;
        let engine: &TensorRt = self;
        if let Some(tell) = told {
            tell(engine, trial.as_ref());
        }
        Ok(is_other)
    }

    fn zeros(&self) -> (Vec<Tensor>, Vec<Tensor>) {
        let zeros = |specs: &[TensorSpec]| specs.iter().map(Tensor::zeros).collect();
        (zeros(self.inputs()), zeros(self.outputs()))
    }

    /// Runs on zeros with copied and with mapped memory, in turns, and keeps the faster; of an engine that was made offers, what stays
    /// on the device stays there. `None`: not tried, as the device has memory of its own or cannot reach the host's.
    ///
    /// # Errors
    /// [`LoadFault`] if it runs no more; that it does not run mapped is none.
    pub fn choose_memory(
        &mut self,
        device: &Device,
        now: fn() -> Mono,
    ) -> Result<Option<Trial>, LoadFault> {
        if !device.integrated || !device.maps_host {
            return Ok(None);
        }
        let (mut copied, mut mapped) = (Vec::new(), Vec::new());
        let mut refused = None;
        for _ in 0..TURNS {
            self.turn(Memory::Copied, RUNS_MAX, now, &mut copied)?;
            refused = self.turn(Memory::Mapped, RUNS_MAX, now, &mut mapped).err();
            if refused.is_some() {
                break;
            }
        }
        let copied_us = p50_us(&mut copied);
        let mapped_us = match refused {
            Some(fault) => Err(fault.to_string()),
            None => Ok(p50_us(&mut mapped)),
        };
        let chosen = match &mapped_us {
            Ok(us) if *us < copied_us => Memory::Mapped,
            Ok(_) | Err(_) => Memory::Copied,
        };
        self.turn(chosen, 0, now, &mut Vec::new())?;
        Ok(Some(Trial {
            copied_us,
            mapped_us,
            chosen,
        }))
    }

    /// Runs with this kind of memory once, then up to so often, as the host has it: tensors given, one launch, a wait, tensors taken.
    fn turn(
        &mut self,
        memory: Memory,
        runs_max: usize,
        now: fn() -> Mono,
        took_ns: &mut Vec<u64>,
    ) -> Result<(), LoadFault> {
        let (inputs, mut outputs) = self.zeros();
        self.lie(memory)?;
        // The first is recorded; it counts for nothing.
        self.run(&inputs, &mut outputs).map_err(in_words)?;
        let began = now();
        for run in 1..=runs_max {
            let from = now();
            self.run(&inputs, &mut outputs).map_err(in_words)?;
            let to = now();
            took_ns.push(to.since_ns(from));
            if run >= RUNS_MIN && to.since_ns(began) >= TURN_NS {
                break;
            }
        }
        Ok(())
    }
}

fn in_words(EngineFault(words): EngineFault) -> LoadFault {
    LoadFault::Engine(words)
}

fn p50_us(took_ns: &mut [u64]) -> f64 {
    took_ns.sort_unstable();
    took_ns
        .get(took_ns.len() / 2)
        .map_or(0.0, |ns| *ns as f64 * 1e-3)
}
