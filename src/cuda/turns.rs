// SPDX-License-Identifier: Apache-2.0
//! A denoising loop on the device (each [`LoopStep`]): the times that its graph is given, and the kernel between two of its steps,
//! loaded from `step.ptx`, which `make_ptx.py` made of `step.cu`. The bits are those of the processor's steps; the tests compile
//! the same source for the processor.

use super::memory::{DeviceBuffer, Kernel};
use super::{Context, CudaFault, KernelFault, Stream};
use crate::ports::{Dtype, LoopStep, Says, Update};
use std::ffi::CString;
use std::sync::Arc;

/// What the driver compiles for the device that is there.
pub const PTX: &str = include_str!("step.ptx");

/// Words of a step; `step.cu` names them.
const WORDS: usize = 8;

/// All that a loop needs beside its graph.
pub struct LoopStage {
    kernel: Kernel,
    /// A step after the other.
    tables: DeviceBuffer,
    /// What the graph's time is at each step, if it takes one.
    times: Option<DeviceBuffer>,
    steps: usize,
    values: u32,
}

impl LoopStage {
    /// Loads the kernel and copies the tables. `values` are denoised; `time` is type and numbers of the graph's time.
    ///
    /// # Errors
    /// [`KernelFault`]: a loop without steps, or what the driver refuses.
    pub fn new(
        context: &Arc<Context>,
        stream: &Stream,
        steps: &[LoopStep],
        values: usize,
        time: Option<(Dtype, usize)>,
    ) -> Result<LoopStage, KernelFault> {
        let words = i32::try_from(values).ok().filter(|_| !steps.is_empty());
        let Some(words) = words else {
            let found = format!("{} steps of {values} numbers", steps.len());
            let expected = "a loop: expected a step or more, and 31 bits of numbers";
            return Err(KernelFault::Contradiction(format!(
                "{expected}, found {found}"
            )));
        };
        let image = CString::new(PTX)
            .map_err(|_| KernelFault::Contradiction("step.ptx: a zero in its text".into()))?;
        let tables: Vec<i32> = steps.iter().flat_map(|step| table(step, words)).collect();
        let times = time.map(|(dtype, numbers)| {
            let each = steps.iter().flat_map(|step| match dtype {
                Dtype::F32 => step.time.to_ne_bytes().repeat(numbers),
                Dtype::I32 => (step.time as i32).to_ne_bytes().repeat(numbers),
                Dtype::I64 => i64::from(step.time as i32).to_ne_bytes().repeat(numbers),
            });
            stream.upload(&each.collect::<Vec<u8>>())
        });
        Ok(LoopStage {
            kernel: Kernel::load(context, &image, c"step")?,
            tables: stream.upload(bytemuck::cast_slice(&tables))?,
            times: times.transpose()?,
            steps: steps.len(),
            values: words as u32,
        })
    }

    /// Puts the whole loop on the stream. `body` puts the graph there.
    ///
    /// # Errors
    /// What the driver refuses, or what `body` says.
    pub fn put<E: From<CudaFault>>(
        &self,
        stream: &Stream,
        sample: &DeviceBuffer,
        time: Option<&DeviceBuffer>,
        said: u64,
        mut body: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        for step in 0..self.steps {
            if let (Some(to), Some(from)) = (time, &self.times) {
                stream.copy_within(to, from, step * to.len())?;
            }
            body()?;
            let table = self.tables.address() + (step * WORDS * 4) as u64;
            let mut arguments = [sample.address(), said, table];
            stream.launch_kernel(&self.kernel, self.values, &mut arguments)?;
        }
        Ok(())
    }
}

fn table(step: &LoopStep, values: i32) -> [i32; WORDS] {
    let bits = |number: f32| number.to_bits() as i32;
    match step.update {
        Update::Euler { by } => [values, 0, 0, 0, bits(by), 0, 0, 0],
        Update::Ddim {
            says,
            clip,
            rest,
            share,
            clean,
            noise,
        } => {
            let rule = match says {
                Says::Noise => 1,
                Says::Sample => 2,
                Says::Velocity => 3,
            };
            let bound = bits(clip.unwrap_or(0.0));
            let clips = i32::from(clip.is_some());
            let [rest, share, clean, noise] = [rest, share, clean, noise].map(bits);
            [values, rule, clips, bound, rest, share, clean, noise]
        }
    }
}
