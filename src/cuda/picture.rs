// SPDX-License-Identifier: Apache-2.0
//! The kernel that makes a tensor of a camera's picture ([`PictureWay`]), loaded from `picture.ptx`, which `make_ptx.py` made
//! of `picture.cu`. The bits are those of the processor's path; the tests compile the same source for the processor.

use super::memory::{DeviceBuffer, Kernel, PinnedBuffer};
use super::{Context, CudaFault, KernelFault, Stream};
use crate::ports::{PictureWay, Taps, WholeWay};
use std::ffi::CString;
use std::sync::Arc;

/// What the driver compiles for the device that is there.
pub const PTX: &str = include_str!("picture.ptx");

/// Words before the tables; `picture.cu` names them.
const HEAD: usize = 25;

/// A picture's way on the device: the kernel, its tables, and where a picture is put.
pub struct PictureStage {
    kernel: Kernel,
    table: DeviceBuffer,
    /// The picture, where the camera's bytes are written.
    pinned: PinnedBuffer,
    /// Absent when the device reads the pinned memory itself.
    device: Option<DeviceBuffer>,
    pixels: u32,
}

impl PictureStage {
    /// Loads the kernel and copies the tables. `mapped`: the device reads the picture where it is, if it can.
    ///
    /// # Errors
    /// [`KernelFault`]: a way whose tables contradict one another or the picture, or what the driver refuses.
    pub fn new(
        context: &Arc<Context>,
        stream: &Stream,
        way: &PictureWay,
        mapped: bool,
    ) -> Result<PictureStage, KernelFault> {
        let words = words(way).map_err(KernelFault::Contradiction)?;
        let image = CString::new(PTX)
            .map_err(|_| KernelFault::Contradiction("picture.ptx: a zero in its text".into()))?;
        let kernel = Kernel::load(context, &image, c"picture")?;
        let table = stream.upload(bytemuck::cast_slice(&words))?;
        let bytes = way.source[0] * way.source[1] * 3;
        let mut stage = PictureStage {
            kernel,
            table,
            pinned: PinnedBuffer::new(context, bytes)?,
            device: None,
            pixels: (way.size[0] * way.size[1]) as u32,
        };
        stage.lie(mapped)?;
        Ok(stage)
    }

    /// Has the device read the picture where it is, if it can, or a copy of its own, from the next [`PictureStage::put`] on. What was put
    /// before must have ended.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn lie(&mut self, mapped: bool) -> Result<(), CudaFault> {
        if mapped && self.pinned.address() != 0 {
            self.device = None;
        } else if self.device.is_none() {
            let device = DeviceBuffer::new(&self.pinned.context, self.pinned.len)?;
            self.device = Some(device);
        }
        Ok(())
    }

    /// Where the camera's picture is to be written before the stream comes to [`PictureStage::put`].
    #[must_use]
    pub fn bytes(&mut self) -> &mut [u8] {
        self.pinned.bytes()
    }

    /// Puts it on the stream: the copy, if one is needed, and the kernel, which writes the tensor at `tensor`.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn put(&self, stream: &Stream, tensor: u64) -> Result<(), CudaFault> {
        let from = match &self.device {
            Some(device) => {
                stream.copy_in(device, &self.pinned)?;
                device.address()
            }
            None => self.pinned.address(),
        };
        let mut arguments = [from, tensor, self.table.address()];
        stream.launch_kernel(&self.kernel, self.pixels, &mut arguments)
    }
}

/// Bits of the fractions of columns and rows, if the kernel's sums in 32 bits can hold what these weights make.
fn whole_bits(way: &PictureWay, whole: &WholeWay) -> Option<[i32; 2]> {
    let fits = |taps: &Taps, bits: u32| {
        let weight = |weight: &f32| weight.fract() == 0.0 && weight.abs() < 32_768.0;
        let mut rows = taps.weights.chunks_exact(taps.count.max(1));
        (1..=22).contains(&bits)
            && taps.weights.iter().all(weight)
            && rows.all(|row| {
                let most: f64 = row.iter().map(|weight| f64::from(weight.abs())).sum();
                most * 255.0 + f64::from(1_u32 << (bits - 1)) < f64::from(i32::MAX)
            })
    };
    // Outside of the resized picture there is no byte to look up.
    let inner = [way.columns.starts.len(), way.rows.starts.len()];
    let full = way.shift == [0, 0] && inner == way.size;
    let good = full && fits(&way.columns, whole.bits[0]) && fits(&way.rows, whole.bits[1]);
    good.then_some(whole.bits.map(|bits| bits as i32))
}

/// The kernel's table. Checked whole: the kernel looks at no bound.
fn words(way: &PictureWay) -> Result<Vec<i32>, String> {
    let wrong = |what: &str| format!("a picture's way: {what}");
    let whole = |value: usize| {
        i32::try_from(value).map_err(|_| wrong(&format!("expected 31 bits, found {value}")))
    };
    let step = |value: isize| {
        i32::try_from(value).map_err(|_| wrong(&format!("expected 32 bits, found {value}")))
    };
    let inner = [way.columns.starts.len(), way.rows.starts.len()];
    for taps in [&way.columns, &way.rows] {
        if taps.count == 0 || taps.weights.len() != taps.starts.len() * taps.count {
            return Err(wrong("expected as many weights for each output"));
        }
    }
    if !(1..=4).contains(&way.levels.len()) || way.size.contains(&0) {
        return Err(wrong("expected one to four sets of levels and a picture"));
    }
    whole(way.size[0] * way.size[1] * 3 * way.levels.len())?;
    let reach = |taps: &Taps| {
        taps.starts
            .iter()
            .max()
            .map_or(0, |last| last + taps.count - 1)
    };
    let bytes = (way.source[0] * way.source[1] * 3) as isize;
    // The first and the last pixel that a kernel can look at, in both directions.
    for column in [0, reach(&way.columns)] {
        for row in [0, reach(&way.rows)] {
            let place =
                way.origin as isize + column as isize * way.steps[0] + row as isize * way.steps[1];
            if place < 0 || place + 3 > bytes {
                return Err(wrong(&format!(
                    "expected pixels within {bytes} bytes, found one at {place}"
                )));
            }
        }
    }
    let mut tables: Vec<i32> = Vec::new();
    let mut starts_and_weights = |taps: &Taps| -> Result<[i32; 3], String> {
        let starts = whole(HEAD + tables.len())?;
        for start in &taps.starts {
            tables.push(whole(*start)?);
        }
        let weights = whole(HEAD + tables.len())?;
        tables.extend(taps.weights.iter().map(|weight| weight.to_bits() as i32));
        Ok([whole(taps.count)?, starts, weights])
    };
    let [across, column_starts, column_weights] = starts_and_weights(&way.columns)?;
    let [down, row_starts, row_weights] = starts_and_weights(&way.rows)?;
    let levels = whole(HEAD + tables.len())?;
    let all = way.levels.iter().flatten().flatten();
    tables.extend(all.map(|number| number.to_bits() as i32));
    let byte_levels = whole(HEAD + tables.len())?;
    let [column_bits, row_bits] = match &way.whole {
        None => [0, 0],
        Some(whole) => {
            tables.extend(whole.levels.iter().map(|number| number.to_bits() as i32));
            whole_bits(way, whole).ok_or_else(|| {
                wrong("expected whole weights of at most 16 bits whose sums fit 31, and no room to fill")
            })?
        }
    };
    let mut words = Vec::with_capacity(HEAD + tables.len());
    words.extend([
        whole(way.size[0])?,
        whole(way.size[1])?,
        whole(inner[0])?,
        whole(inner[1])?,
        step(way.shift[0])?,
        step(way.shift[1])?,
        whole(way.origin)?,
        step(way.steps[0])?,
        step(way.steps[1])?,
        across,
        column_starts,
        column_weights,
        down,
        row_starts,
        row_weights,
        i32::from(way.rounds[0]),
        i32::from(way.rounds[1]),
        way.pad.to_bits() as i32,
        whole(way.levels.len())?,
        levels,
        i32::from(way.channels_last),
        i32::from(way.blue_first),
        column_bits,
        row_bits,
        byte_levels,
    ]);
    debug_assert_eq!(words.len(), HEAD);
    words.extend(tables);
    Ok(words)
}
