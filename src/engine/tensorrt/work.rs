// SPDX-License-Identifier: Apache-2.0
//! What one inference of a stage puts on the stream: copies in or a picture's kernel, the engine or the loop around it, copies out.

use super::LoadFault;
use super::binding::Binding;
use super::nvinfer::Session;
use crate::cuda::Stream;
use crate::cuda::memory::DeviceBuffer;
use crate::cuda::turns::LoopStage;
use std::ffi::CString;
use std::sync::Arc;

/// What one inference is.
pub(super) struct Work {
    pub(super) session: Session,
    pub(super) inputs: Vec<Binding>,
    pub(super) outputs: Vec<Binding>,
    /// At the end: which output is copied into which input.
    pub(super) carried: Vec<(Arc<DeviceBuffer>, Arc<DeviceBuffer>)>,
    pub(super) turns: Option<Turns>,
}

/// A loop around the engine.
pub(super) struct Turns {
    pub(super) stage: LoopStage,
    pub(super) sample: Arc<DeviceBuffer>,
    pub(super) time: Option<Arc<DeviceBuffer>>,
    /// Output that says something of the sample, and in which the host finds the sample's end.
    pub(super) said: usize,
    pub(super) said_at: u64,
}

impl Work {
    /// Puts it on the stream: copies in, the engine or the loop around it, copies out.
    pub(super) fn put(&mut self, stream: &Stream) -> Result<(), LoadFault> {
        for input in &self.inputs {
            input.put_in(stream)?;
        }
        let session = &mut self.session;
        let mut once = || {
            if session.enqueue(stream.raw()) {
                return Ok(());
            }
            Err(LoadFault::Engine(format!(
                "enqueueV3 failed: TensorRT says: {}",
                session.errors()
            )))
        };
        match &self.turns {
            None => once()?,
            Some(turns) => {
                let time = turns.time.as_deref();
                let (stage, sample) = (&turns.stage, &turns.sample);
                stage.put(stream, sample, time, turns.said_at, once)?;
            }
        }
        for (to, from) in &self.carried {
            stream.copy_within(to, from, 0)?;
        }
        for (index, output) in self.outputs.iter().enumerate() {
            match (&self.turns, &output.pinned) {
                (Some(turns), Some(pinned)) if turns.said == index => {
                    stream.copy_out(pinned, &turns.sample)?;
                }
                _ => output.put_out(stream)?,
            }
        }
        Ok(())
    }

    /// Whether the host reads something of it.
    pub(super) fn is_read(&self) -> bool {
        self.outputs.iter().any(|output| output.pinned.is_some())
    }

    /// Bytes that the host gives for one inference.
    pub(super) fn given(&mut self) -> usize {
        self.inputs.iter_mut().map(Binding::given).sum()
    }

    /// Bytes that the host takes of it.
    pub(super) fn taken(&self) -> usize {
        let read = self.outputs.iter().filter(|output| output.pinned.is_some());
        read.map(Binding::bytes).sum()
    }

    /// Tells TensorRT where a tensor lies now.
    pub(super) fn set_address(session: &mut Session, binding: &Binding) -> Result<(), LoadFault> {
        let name = CString::new(binding.spec.name.as_str()).unwrap_or_default();
        if session.set_address(&name, binding.address()) {
            return Ok(());
        }
        let said = session.errors();
        Err(LoadFault::Engine(format!(
            "{}: its address is refused: {said}",
            binding.spec.name
        )))
    }
}
