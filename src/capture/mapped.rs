// SPDX-License-Identifier: Apache-2.0
//! What is asked of a kernel camera in the kernel's own structures: its name, what its node gives, what it offers, a format, a control;
//! and its picture buffers, mapped: asked for, queued, taken in turn, given back.
//!
//! The questions are ours where the v4l crate's panic at what a device may answer: a name that is not UTF-8, as a long one is that
//! was cut inside a character; a colour space, a field order or a kind of control that the crate does not know. And its lists end
//! only where the device ends them; ours end at [`LIST_MAX`].
//!
//! The buffers are ours in place of the v4l crate's own stream, whose drop panics where the device refuses to stop, and once more, which ends
//! the process, where it refuses to take its buffers back: so it could only be leaked. But a mapping keeps its descriptor's
//! file open, and the open file keeps the device busy: a camera that once refused to stop was never to be had again. Here the
//! drop unmaps whatever the device says. With the last mapping and the last descriptor gone the kernel stops the stream and frees the
//! buffers itself.
//!
//! Not responsible for waiting: who asks for a picture has polled. Nor for what is made of the answers (`v4l`, `agree`, `controls`,
//! `discovery`).
#![allow(unsafe_code)] // Memory that the kernel maps, and its structures.

use super::colours::Colours;
use std::ffi::c_void;
use std::io;
use std::mem;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use v4l::Device;
use v4l::buffer::{Metadata, Type};
use v4l::device::Handle;
use v4l::memory::Memory;
use v4l::v4l_sys;
use v4l::v4l_sys::{
    v4l2_buffer, v4l2_capability, v4l2_ext_control, v4l2_ext_controls, v4l2_fmtdesc, v4l2_format,
    v4l2_frmsizeenum, v4l2_pix_format, v4l2_query_ext_ctrl, v4l2_requestbuffers,
};
use v4l::v4l2;
use v4l::v4l2::vidioc;

/// `PROT_READ | PROT_WRITE` of mmap(2), which is what every driver must take, whatever is done with it; and `MAP_SHARED`.
const READ_WRITE: i32 = 3;
const SHARED: i32 = 1;
/// Entries of a list that are asked for at most. Drivers end theirs after some tens; one that does not is broken, and is to keep
/// nobody waiting.
const LIST_MAX: u32 = 256;

// Of errno(3).
const EINVAL: i32 = 22;
const ENOTTY: i32 = 25;
const ERANGE: i32 = 34;

// Kinds of control whose value is one number, of `v4l2_ctrl_type`.
const INTEGER: u32 = 1;
const BOOLEAN: u32 = 2;
const MENU: u32 = 3;
const INTEGER64: u32 = 5;
const INTEGER_MENU: u32 = 9;

/// What `priv` of a format is where the fields after it are filled in.
const EXTENDED: u32 = 0xfeed_cafe;

/// Who a camera is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Model, as the driver names it.
    pub(super) card: String,
    /// Where it is plugged.
    pub(super) bus: String,
}

/// What a node gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Pictures, each in one piece of memory.
    Pictures,
    /// Pictures whose planes lie in memory of their own.
    MultiPlanar,
    /// What belongs to pictures: the second node of many UVC cameras.
    Metadata,
    /// Nothing of these: its capabilities, as the kernel numbers them.
    Other(u32),
}

/// Width and height of a picture, or of all between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) least: [u32; 2],
    pub(super) most: [u32; 2],
    /// From one width and one height to the next; 0 of one size.
    pub(super) step: [u32; 2],
}

/// What a camera agreed to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pixels {
    /// Its four characters.
    pub(super) fourcc: [u8; 4],
    /// Width and height.
    pub(super) size: [u32; 2],
    /// Bytes from one row to the next; some drivers say 0.
    pub(super) stride: u32,
    /// How its YUV is meant.
    pub(super) colours: Colours,
    /// Which rows a buffer holds, of `v4l2_field`.
    pub(super) field: u32,
}

/// A control whose value is one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    id: u32,
    /// Of 64 bits.
    wide: bool,
}

#[derive(Debug)]
struct Buffer {
    at: NonNull<u8>,
    len: usize,
}

/// Buffers that the device fills in turn.
pub(super) struct Mapped {
    handle: Arc<Handle>,
    buffers: Vec<Buffer>,
    /// The one that is ours.
    held: Option<u32>,
}

// SAFETY: the mappings belong to this value alone, and to no thread.
unsafe impl Send for Mapped {}

/// One question to the device.
fn ask<T>(handle: &Handle, request: vidioc::_IOC_TYPE, argument: &mut T) -> io::Result<()> {
    // SAFETY: every request of this file is one whose argument is a `T` that lives until the call returns, as does what it points to.
    unsafe {
        v4l2::ioctl(
            handle.fd(),
            request,
            ptr::from_mut(argument).cast::<c_void>(),
        )
    }
}

/// One of the kernel's structures, all zero.
fn zero<T>() -> T {
    // SAFETY: every `T` of this file is a structure of the kernel's, of numbers, unions of them and pointers that may be null: all
    // zero is one of its values.
    unsafe { mem::zeroed() }
}

/// What stands before the first zero. A character that was cut becomes U+FFFD.
pub(super) fn text(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..len.unwrap_or(bytes.len())]).into_owned()
}

/// The answers to a question that is asked with 0, 1, and so on, until the device has no more, each once. A device that does not
/// know the question has none.
fn listed<T: PartialEq>(nth: impl Fn(u32) -> io::Result<T>) -> io::Result<Vec<T>> {
    let mut list = Vec::new();
    for index in 0..LIST_MAX {
        match nth(index) {
            Ok(one) if list.contains(&one) => {}
            Ok(one) => list.push(one),
            Err(error) if matches!(error.raw_os_error(), Some(EINVAL | ENOTTY)) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(list)
}

fn capability(device: &Device) -> io::Result<v4l2_capability> {
    let mut found: v4l2_capability = zero();
    ask(&device.handle(), vidioc::VIDIOC_QUERYCAP, &mut found)?;
    Ok(found)
}

/// Who it is.
///
/// # Errors
/// What the device says.
pub(super) fn identity(device: &Device) -> io::Result<Identity> {
    let found = capability(device)?;
    Ok(Identity {
        card: text(&found.card),
        bus: text(&found.bus_info),
    })
}

/// What this node of it gives.
///
/// # Errors
/// What the device says.
pub(super) fn node(device: &Device) -> io::Result<Node> {
    let found = capability(device)?;
    // `capabilities` are those of all nodes of the camera together; drivers that have but one may leave out the node's own.
    let own = if found.capabilities & v4l_sys::V4L2_CAP_DEVICE_CAPS == 0 {
        found.capabilities
    } else {
        found.device_caps
    };
    let has = |capability: u32| own & capability != 0;
    Ok(if has(v4l_sys::V4L2_CAP_VIDEO_CAPTURE) {
        Node::Pictures
    } else if has(v4l_sys::V4L2_CAP_VIDEO_CAPTURE_MPLANE) {
        Node::MultiPlanar
    } else if has(v4l_sys::V4L2_CAP_META_CAPTURE) {
        Node::Metadata
    } else {
        Node::Other(own)
    })
}

/// The pixel formats that it offers, by their four characters.
///
/// # Errors
/// What the device says.
pub(super) fn formats(device: &Device) -> io::Result<Vec<[u8; 4]>> {
    let handle = device.handle();
    listed(|index| {
        let mut found = v4l2_fmtdesc {
            index,
            type_: Type::VideoCapture as u32,
            ..zero()
        };
        ask(&handle, vidioc::VIDIOC_ENUM_FMT, &mut found)?;
        Ok(found.pixelformat.to_le_bytes())
    })
}

/// The sizes in which it offers a format.
///
/// # Errors
/// What the device says.
pub(super) fn sizes(device: &Device, fourcc: [u8; 4]) -> io::Result<Vec<Sizes>> {
    let handle = device.handle();
    let list = listed(|index| {
        let mut found = v4l2_frmsizeenum {
            index,
            pixel_format: u32::from_le_bytes(fourcc),
            ..zero()
        };
        ask(&handle, vidioc::VIDIOC_ENUM_FRAMESIZES, &mut found)?;
        Ok(match found.type_ {
            v4l_sys::v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE => {
                // SAFETY: of this kind it is the union's field; both are of numbers alone.
                let one = unsafe { found.__bindgen_anon_1.discrete };
                Some(Sizes {
                    least: [one.width, one.height],
                    most: [one.width, one.height],
                    step: [0, 0],
                })
            }
            v4l_sys::v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_STEPWISE
            | v4l_sys::v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_CONTINUOUS => {
                // SAFETY: of these kinds it is the union's field; both are of numbers alone.
                let many = unsafe { found.__bindgen_anon_1.stepwise };
                Some(Sizes {
                    least: [many.min_width, many.min_height],
                    most: [many.max_width, many.max_height],
                    step: [many.step_width, many.step_height],
                })
            }
            _ => None,
        })
    })?;
    Ok(list.into_iter().flatten().collect())
}

/// Asks for a format and a size; what stands then, which may be another.
///
/// # Errors
/// What the device says.
pub(super) fn set_format(
    device: &Device,
    fourcc: [u8; 4],
    [width, height]: [u32; 2],
) -> io::Result<Pixels> {
    let handle = device.handle();
    let of_pictures = || v4l2_format {
        type_: Type::VideoCapture as u32,
        ..zero()
    };
    let mut wanted = of_pictures();
    // Colours are the camera's to say: all that is left out here is "as you have it". Rows are not: a driver that can send them
    // all at once or every second one first may have it either way.
    wanted.fmt.pix = v4l2_pix_format {
        width,
        height,
        pixelformat: u32::from_le_bytes(fourcc),
        field: v4l_sys::v4l2_field_V4L2_FIELD_NONE,
        ..zero()
    };
    ask(&handle, vidioc::VIDIOC_S_FMT, &mut wanted)?;
    let mut set = of_pictures();
    ask(&handle, vidioc::VIDIOC_G_FMT, &mut set)?;
    // SAFETY: of a format for pictures it is the union's field; all are of numbers alone.
    let pix = unsafe { set.fmt.pix };
    // SAFETY: a union of two numbers of one type.
    let declared = unsafe { pix.__bindgen_anon_1.ycbcr_enc };
    // A driver from before these fields leaves them undefined.
    let (ycbcr_enc, quantization) = if pix.priv_ == EXTENDED {
        (declared, pix.quantization)
    } else {
        (0, 0)
    };
    Ok(Pixels {
        fourcc: pix.pixelformat.to_le_bytes(),
        size: [pix.width, pix.height],
        stride: pix.bytesperline,
        colours: Colours::of_v4l2(pix.colorspace, ycbcr_enc, quantization),
        field: pix.field,
    })
}

/// A control, if its value is a number; a switch's is 0 or 1.
///
/// # Errors
/// What the device says; and of a control that is no number.
pub(super) fn number(device: &Device, id: u32) -> io::Result<Number> {
    let mut asked = v4l2_query_ext_ctrl { id, ..zero() };
    ask(&device.handle(), vidioc::VIDIOC_QUERY_EXT_CTRL, &mut asked)?;
    match asked.type_ {
        INTEGER64 => Ok(Number { id, wide: true }),
        INTEGER | BOOLEAN | MENU | INTEGER_MENU => Ok(Number { id, wide: false }),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "a control that is no number",
        )),
    }
}

impl Number {
    /// Sets it. A device may take another value than this one, and say nothing.
    ///
    /// # Errors
    /// What the device says; and of a value that is longer than the control.
    pub(super) fn set(self, device: &Device, value: i64) -> io::Result<()> {
        let mut one = self.described();
        if self.wide {
            one.__bindgen_anon_1.value64 = value;
        } else {
            let short = i32::try_from(value).map_err(|_| io::Error::from_raw_os_error(ERANGE))?;
            one.__bindgen_anon_1.value = short;
        }
        Number::exchange(device, vidioc::VIDIOC_S_EXT_CTRLS, &mut one)
    }

    /// What it stands at. Takes no memory: asked while pictures come.
    ///
    /// # Errors
    /// What the device says.
    pub(super) fn read(self, device: &Device) -> io::Result<i64> {
        let mut one = self.described();
        Number::exchange(device, vidioc::VIDIOC_G_EXT_CTRLS, &mut one)?;
        Ok(if self.wide {
            // SAFETY: of this kind it is the union's field, and any bytes are a number.
            unsafe { one.__bindgen_anon_1.value64 }
        } else {
            // SAFETY: of these kinds it is the union's field, and any bytes are a number.
            i64::from(unsafe { one.__bindgen_anon_1.value })
        })
    }

    fn described(self) -> v4l2_ext_control {
        v4l2_ext_control {
            id: self.id,
            ..zero()
        }
    }

    /// One control, of whatever class: `which` is 0, the value that is in force.
    fn exchange(
        device: &Device,
        request: vidioc::_IOC_TYPE,
        one: &mut v4l2_ext_control,
    ) -> io::Result<()> {
        let mut list = v4l2_ext_controls {
            count: 1,
            controls: ptr::from_mut(one),
            ..zero()
        };
        ask(&device.handle(), request, &mut list)
    }
}

fn described(index: u32) -> v4l2_buffer {
    v4l2_buffer {
        index,
        type_: Type::VideoCapture as u32,
        memory: Memory::Mmap as u32,
        ..zero()
    }
}

fn wanted(count: u32) -> v4l2_requestbuffers {
    v4l2_requestbuffers {
        count,
        type_: Type::VideoCapture as u32,
        memory: Memory::Mmap as u32,
        ..zero()
    }
}

impl Mapped {
    /// `count` buffers of what was agreed with `device`, or as many as it gives; it begins to fill them.
    ///
    /// # Errors
    /// What the device says.
    pub(super) fn start(device: &Device, count: u32) -> io::Result<Mapped> {
        let mut mapped = Mapped {
            handle: device.handle(),
            buffers: Vec::new(),
            held: None,
        };
        let mut given = wanted(count);
        ask(&mapped.handle, vidioc::VIDIOC_REQBUFS, &mut given)?;
        for index in 0..given.count {
            let mut buffer = described(index);
            ask(&mapped.handle, vidioc::VIDIOC_QUERYBUF, &mut buffer)?;
            let len = buffer.length as usize;
            // SAFETY: VIDIOC_QUERYBUF has filled in the offset, the union's field of buffers of this kind.
            let offset = unsafe { buffer.m.offset };
            let fd = mapped.handle.fd();
            let (nowhere, offset) = (ptr::null_mut(), offset.into());
            // SAFETY: a new mapping, at an address that the kernel chooses.
            let at = unsafe { v4l2::mmap(nowhere, len, READ_WRITE, SHARED, fd, offset) }?;
            let at = NonNull::new(at.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
            mapped.buffers.push(Buffer { at, len });
            ask(&mapped.handle, vidioc::VIDIOC_QBUF, &mut described(index))?;
        }
        let mut kind = Type::VideoCapture as u32;
        ask(&mapped.handle, vidioc::VIDIOC_STREAMON, &mut kind)?;
        Ok(mapped)
    }

    /// Gives back the picture that was ours, and takes the next one that is there.
    ///
    /// # Errors
    /// What the device says; there must be one, or it says so.
    pub(super) fn next(&mut self) -> io::Result<(&[u8], Metadata)> {
        if let Some(index) = self.held {
            ask(&self.handle, vidioc::VIDIOC_QBUF, &mut described(index))?;
            self.held = None;
        }
        let mut taken = described(0);
        ask(&self.handle, vidioc::VIDIOC_DQBUF, &mut taken)?;
        let buffer = self.buffers.get(taken.index as usize);
        let buffer = buffer.ok_or(io::ErrorKind::InvalidData)?;
        self.held = Some(taken.index);
        // SAFETY: mapped for as long as `self` lives, which the slice borrows. The device writes only into buffers that it
        // was given, and this one is given back by the next call, for which the slice must be gone.
        let bytes = unsafe { slice::from_raw_parts(buffer.at.as_ptr(), buffer.len) };
        let meta = Metadata {
            bytesused: taken.bytesused,
            flags: taken.flags.into(),
            field: taken.field,
            timestamp: taken.timestamp.into(),
            sequence: taken.sequence,
        };
        Ok((bytes, meta))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // One that is unplugged or wedged refuses both; then the kernel does it, when the descriptor is closed.
        let mut kind = Type::VideoCapture as u32;
        let _ = ask(&self.handle, vidioc::VIDIOC_STREAMOFF, &mut kind);
        for buffer in self.buffers.drain(..) {
            // SAFETY: mapped by `start`, unmapped here only, and no slice of it outlives `self`. It does not fail for a whole mapping.
            let _ = unsafe { v4l2::munmap(buffer.at.as_ptr().cast(), buffer.len) };
        }
        let _ = ask(&self.handle, vidioc::VIDIOC_REQBUFS, &mut wanted(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_its_zero_and_may_be_cut_inside_a_character() {
        assert_eq!(text(b"Fake camera\0rest"), "Fake camera");
        assert_eq!(text(b"no zero"), "no zero");
        assert_eq!(text(b"Kamera f\xc3\0\0"), "Kamera f\u{FFFD}");
        assert_eq!(text(&[0; 4]), "");
    }

    #[test]
    fn a_list_ends_where_the_device_ends_it_or_after_so_many() {
        let ends_with = |errno: i32| {
            listed(move |index| match index {
                0..3 => Ok(index),
                _ => Err(io::Error::from_raw_os_error(errno)),
            })
        };
        assert_eq!(ends_with(EINVAL).expect("a list"), [0, 1, 2]);
        assert_eq!(ends_with(ENOTTY).expect("a list"), [0, 1, 2]);
        assert!(ends_with(5).is_err(), "EIO is no end");
        assert_eq!(listed(|index| Ok(index % 3)).expect("a list"), [0, 1, 2]);
        assert_eq!(listed(Ok).expect("a list").len(), LIST_MAX as usize);
    }
}
