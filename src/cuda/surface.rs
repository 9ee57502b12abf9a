// SPDX-License-Identifier: Apache-2.0
//! The kernel that makes 8-bit RGB of a surface that is in the device's reach, loaded from `surface.ptx`, which `make_ptx.py`
//! made of `surface.cu`. The tests compile the same source for the processor.

use super::memory::{DeviceBuffer, Kernel, PinnedBuffer};
use super::{Context, KernelFault, Stream};
use std::ffi::CString;
use std::sync::Arc;

/// What the driver compiles for the device that is there.
pub const PTX: &str = include_str!("surface.ptx");

/// Words of the table; `surface.cu` names them.
const WORDS: usize = 12;
/// Units of a level.
const ONE: f64 = 65_536.0;

/// What a surface's bytes mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pixels {
    /// A plane of luma, and one of chroma pairs for two by two pixels, in these colours.
    Nv12(Colours),
    /// Red, green, blue, and a byte that is not read.
    Rgba,
    /// Luma alone, shown as it is.
    Grey,
}

/// How luma and chroma make red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Colours {
    /// The shares of red and blue in luma: 0.299 and 0.114 of ITU-R BT.601, 0.2126 and 0.0722 of BT.709, 0.2627 and 0.0593 of
    /// BT.2020.
    pub shares: [f64; 2],
    /// Whether levels go from 0 to 255, or luma from 16 to 235 and chroma from 16 to 240.
    pub full_range: bool,
}

/// Where the planes of a surface are. A plane that the pixels do not have is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planes {
    /// Rows one after the other: addresses for the device, and bytes from a row to the next.
    Rows([(u64, usize); 2]),
    /// Textures of the driver, of a byte a channel, read at whole pixels.
    Textures([u64; 2]),
}

/// The kernel, its table, and where the picture comes out.
pub struct SurfaceStage {
    kernel: Kernel,
    size: [usize; 2],
    table: DeviceBuffer,
    words: PinnedBuffer,
    /// What the table on the device says.
    said: Option<[i32; WORDS]>,
    rgb: PinnedBuffer,
    /// Absent when the device writes the host's memory itself.
    device: Option<DeviceBuffer>,
}

impl SurfaceStage {
    /// For surfaces of `size`, width and height. `mapped`: the device writes the picture where it is read, if it can; on a Jetson
    /// both are one memory.
    ///
    /// # Errors
    /// [`KernelFault`]: a size without pixels or of more than 2^28, or what the driver refuses.
    pub fn new(
        context: &Arc<Context>,
        size: [usize; 2],
        mapped: bool,
    ) -> Result<SurfaceStage, KernelFault> {
        let pixels = size[0].saturating_mul(size[1]);
        if pixels == 0 || pixels > 1 << 28 {
            let words = format!(
                "a surface: expected 1 to 2^28 pixels, found {}x{}",
                size[0], size[1]
            );
            return Err(KernelFault::Contradiction(words));
        }
        let image = CString::new(PTX)
            .map_err(|_| KernelFault::Contradiction("surface.ptx: a zero in its text".into()))?;
        let rgb = PinnedBuffer::new(context, pixels * 3)?;
        let device = if mapped && rgb.address() != 0 {
            None
        } else {
            Some(DeviceBuffer::new(context, pixels * 3)?)
        };
        Ok(SurfaceStage {
            kernel: Kernel::load(context, &image, c"surface")?,
            size,
            table: DeviceBuffer::new(context, WORDS * 4)?,
            words: PinnedBuffer::new(context, WORDS * 4)?,
            said: None,
            rgb,
            device,
        })
    }

    /// Reads a surface, and waits for it. The pixels, row by row.
    ///
    /// # Errors
    /// [`KernelFault`]: rows that are shorter than their pixels, or what the driver refuses.
    pub fn read(
        &mut self,
        stream: &Stream,
        pixels: Pixels,
        planes: Planes,
    ) -> Result<&[u8], KernelFault> {
        let words = words(self.size, pixels, planes).map_err(KernelFault::Contradiction)?;
        if self.said != Some(words) {
            // Until it is known to be there. Nothing on the stream reads it any more: each read is waited for.
            self.said = None;
            self.words
                .bytes()
                .copy_from_slice(bytemuck::cast_slice(&words));
            stream.copy_in(&self.table, &self.words)?;
        }
        let to = match &self.device {
            Some(device) => device.address(),
            None => self.rgb.address(),
        };
        let [first, second] = match planes {
            Planes::Rows(rows) => rows.map(|(address, _)| address),
            Planes::Textures(textures) => textures,
        };
        let threads = (self.size[0] * self.size[1]) as u32;
        let mut arguments = [to, first, second, self.table.address()];
        let put = stream.launch_kernel(&self.kernel, threads, &mut arguments);
        let copied = put.and_then(|()| match &self.device {
            Some(device) => stream.copy_out(&self.rgb, device),
            None => Ok(()),
        });
        // Also when it was refused: what is on the stream uses our memory and the surface's.
        let ended = stream.wait();
        if ended.is_err() {
            stream.settle();
        }
        copied?;
        ended?;
        self.said = Some(words);
        Ok(self.rgb.bytes())
    }
}

/// The kernel's table. Checked here: the kernel looks at no bound.
fn words(size: [usize; 2], pixels: Pixels, planes: Planes) -> Result<[i32; WORDS], String> {
    let [width, height] = size;
    let (kind, row_bytes) = match pixels {
        Pixels::Nv12(_) => (0, [width, width.div_ceil(2) * 2]),
        Pixels::Rgba => (1, [width * 4, 0]),
        Pixels::Grey => (2, [width, 0]),
    };
    let mut pitches = [0; 2];
    if let Planes::Rows(rows) = planes {
        for ((pitch, (_, bytes)), least) in pitches.iter_mut().zip(rows).zip(row_bytes) {
            *pitch = i32::try_from(bytes)
                .ok()
                .filter(|_| bytes >= least)
                .ok_or_else(|| {
                    format!("a surface: expected rows of {least} bytes or more, found {bytes}")
                })?;
        }
    }
    let colours = match pixels {
        Pixels::Nv12(colours) => colours.words(),
        Pixels::Rgba | Pixels::Grey => [0; 6],
    };
    let textures = i32::from(matches!(planes, Planes::Textures(_)));
    let mut words = [0; WORDS];
    let head = [
        width as i32,
        height as i32,
        kind,
        textures,
        pitches[0],
        pitches[1],
    ];
    words[..6].copy_from_slice(&head);
    words[6..].copy_from_slice(&colours);
    Ok(words)
}

impl Colours {
    /// Luma that is black, and what a unit of luma and of chroma adds to each colour (ITU-R BT.601-7 section 2.5, BT.709-6
    /// section 3).
    fn words(self) -> [i32; 6] {
        let [red, blue] = self.shares;
        let green = 1.0 - red - blue;
        let (black, luma, chroma) = if self.full_range {
            (0, 1.0, 1.0)
        } else {
            (16, 255.0 / 219.0, 255.0 / 224.0)
        };
        let unit = |value: f64| (value * ONE).round() as i32;
        [
            black,
            unit(luma),
            unit(chroma * 2.0 * (1.0 - red)),
            unit(-chroma * 2.0 * blue * (1.0 - blue) / green),
            unit(-chroma * 2.0 * red * (1.0 - red) / green),
            unit(chroma * 2.0 * (1.0 - blue)),
        ]
    }
}
