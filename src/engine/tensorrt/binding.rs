// SPDX-License-Identifier: Apache-2.0
//! One tensor of a stage: where the device has it, and where the host reads or writes it, if it does.

use super::{LoadFault, Memory, Platform};
use crate::cuda::memory::{DeviceBuffer, PinnedBuffer};
use crate::cuda::picture::PictureStage;
use crate::cuda::{Context, CudaFault, Stream};
use crate::ports::{Dtype, EngineFault, Tensor, TensorSpec};
use std::sync::Arc;

/// One tensor.
pub(super) struct Binding {
    pub(super) spec: TensorSpec,
    /// Where the host has it; absent where only the device does.
    pub(super) pinned: Option<PinnedBuffer>,
    /// Where the device has it; absent when it uses the pinned memory itself. Shared with the stages that it is lent to.
    pub(super) device: Option<Arc<DeviceBuffer>>,
    /// The device keeps it in memory of its own, however the host's tensors reach it: something there reads or writes it too.
    stays: bool,
    /// Of an input that the device makes of a camera's picture.
    pub(super) picture: Option<PictureStage>,
}

impl Binding {
    pub(super) fn new(platform: &Platform, spec: &TensorSpec) -> Result<Binding, LoadFault> {
        let mut binding = Binding {
            spec: spec.clone(),
            pinned: None,
            device: None,
            stays: false,
            picture: None,
        };
        let pinned = PinnedBuffer::new(&platform.context, binding.bytes())?;
        binding.pinned = Some(pinned);
        binding.lie(&platform.context, platform.memory)?;
        Ok(binding)
    }

    pub(super) fn bytes(&self) -> usize {
        self.spec.values() * if self.spec.dtype == Dtype::I64 { 8 } else { 4 }
    }

    /// Has it, and the picture that it is made of, lie in the device's own memory, or where host and device both reach it, unless it
    /// stays on the device; then its address is another.
    pub(super) fn lie(&mut self, context: &Arc<Context>, memory: Memory) -> Result<(), CudaFault> {
        if let Some(picture) = &mut self.picture {
            picture.lie(memory == Memory::Mapped)?;
        }
        let reached = |pinned: &PinnedBuffer| pinned.address() != 0;
        let shared = !self.stays && self.pinned.as_ref().is_some_and(reached);
        match memory {
            Memory::Mapped if shared => self.device = None,
            Memory::Mapped | Memory::Copied => {
                self.place(context)?;
            }
        }
        Ok(())
    }

    /// Bytes that the host writes for one inference.
    pub(super) fn given(&mut self) -> usize {
        match (&mut self.picture, &self.pinned) {
            (Some(picture), _) => picture.bytes().len(),
            (None, Some(_)) => self.bytes(),
            (None, None) => 0,
        }
    }

    /// Its memory on the device, where it stays from now on; made if it had none: then its address is another.
    pub(super) fn stay(&mut self, context: &Arc<Context>) -> Result<Arc<DeviceBuffer>, CudaFault> {
        self.stays = true;
        self.place(context)
    }

    fn place(&mut self, context: &Arc<Context>) -> Result<Arc<DeviceBuffer>, CudaFault> {
        if let Some(device) = &self.device {
            return Ok(Arc::clone(device));
        }
        let device = Arc::new(DeviceBuffer::new(context, self.bytes())?);
        self.device = Some(Arc::clone(&device));
        Ok(device)
    }

    pub(super) fn address(&self) -> u64 {
        match (&self.device, &self.pinned) {
            (Some(device), _) => device.address(),
            (None, Some(pinned)) => pinned.address(),
            (None, None) => 0,
        }
    }

    /// Puts what makes it an input on the stream: the picture's kernel, or a copy from the host.
    pub(super) fn put_in(&self, stream: &Stream) -> Result<(), CudaFault> {
        match (&self.picture, &self.device, &self.pinned) {
            (Some(picture), _, _) => picture.put(stream, self.address()),
            (None, Some(device), Some(pinned)) => stream.copy_in(device, pinned),
            _ => Ok(()),
        }
    }

    /// Puts what the host reads of it on the stream.
    pub(super) fn put_out(&self, stream: &Stream) -> Result<(), CudaFault> {
        match (&self.device, &self.pinned) {
            (Some(device), Some(pinned)) => stream.copy_out(pinned, device),
            _ => Ok(()),
        }
    }

    /// Takes the host's tensor, if it is the host that gives it.
    pub(super) fn write(&mut self, tensor: &Tensor) -> Result<(), EngineFault> {
        let Some(pinned) = self.pinned.as_mut().filter(|_| self.picture.is_none()) else {
            return Ok(());
        };
        let to = pinned.bytes();
        match (tensor, self.spec.dtype) {
            (Tensor::F32(values), Dtype::F32) if values.len() * 4 == to.len() => {
                to.copy_from_slice(bytemuck::cast_slice(values));
            }
            (Tensor::I32(values), Dtype::I32) if values.len() * 4 == to.len() => {
                to.copy_from_slice(bytemuck::cast_slice(values));
            }
            (Tensor::I32(values), Dtype::I64) if values.len() * 8 == to.len() => {
                for (to, value) in to.chunks_exact_mut(8).zip(values) {
                    to.copy_from_slice(&i64::from(*value).to_ne_bytes());
                }
            }
            _ => return Err(self.misfit(tensor)),
        }
        Ok(())
    }

    /// Gives the host its tensor, if it reads it.
    pub(super) fn read(&mut self, tensor: &mut Tensor) -> Result<(), EngineFault> {
        let Some(pinned) = &mut self.pinned else {
            return Ok(());
        };
        let from = pinned.bytes();
        match (&mut *tensor, self.spec.dtype) {
            (Tensor::F32(values), Dtype::F32) if values.len() * 4 == from.len() => {
                bytemuck::cast_slice_mut(values).copy_from_slice(from);
            }
            (Tensor::I32(values), Dtype::I32) if values.len() * 4 == from.len() => {
                bytemuck::cast_slice_mut(values).copy_from_slice(from);
            }
            (Tensor::I32(values), Dtype::I64) if values.len() * 8 == from.len() => {
                for (from, value) in from.chunks_exact(8).zip(values) {
                    let wide = from.try_into().map_or(0, i64::from_ne_bytes);
                    *value = i32::try_from(wide).map_err(|_| {
                        EngineFault(format!(
                            "{}: {wide} does not fit into 32 bits",
                            self.spec.name
                        ))
                    })?;
                }
            }
            _ => return Err(self.misfit(tensor)),
        }
        Ok(())
    }

    fn misfit(&self, tensor: &Tensor) -> EngineFault {
        let (kind, len) = match tensor {
            Tensor::F32(values) => ("f32", values.len()),
            Tensor::I32(values) => ("i32", values.len()),
        };
        EngineFault(format!(
            "expected {}, found {len} values of {kind}",
            self.spec
        ))
    }
}
