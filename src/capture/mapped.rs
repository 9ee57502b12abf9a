// SPDX-License-Identifier: Apache-2.0
//! The kernel's picture buffers of one camera, mapped: asked for, queued, taken in turn, given back.
//!
//! In place of the v4l crate's own stream, whose drop panics where the device refuses to stop, and once more, which ends
//! the process, where it refuses to take its buffers back: so it could only be leaked. But a mapping keeps its descriptor's
//! file open, and the open file keeps the device busy: a camera that once refused to stop was never to be had again. Here the
//! drop unmaps whatever the device says. With the last mapping and the last descriptor gone the kernel stops the stream and frees the
//! buffers itself.
//!
//! Not responsible for waiting: who asks for a picture has polled.
#![allow(unsafe_code)] // Memory that the kernel maps, and its structures.

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
use v4l::v4l_sys::{v4l2_buffer, v4l2_requestbuffers};
use v4l::v4l2;
use v4l::v4l2::vidioc;

/// `PROT_READ | PROT_WRITE` of mmap(2), which is what every driver must take, whatever is done with it; and `MAP_SHARED`.
const READ_WRITE: i32 = 3;
const SHARED: i32 = 1;

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
    // SAFETY: every request of this file is one whose argument is a `T` that lives until the call returns.
    unsafe {
        v4l2::ioctl(
            handle.fd(),
            request,
            ptr::from_mut(argument).cast::<c_void>(),
        )
    }
}

fn described(index: u32) -> v4l2_buffer {
    v4l2_buffer {
        index,
        type_: Type::VideoCapture as u32,
        memory: Memory::Mmap as u32,
        // SAFETY: a structure of the kernel's, of numbers and a union of numbers: all zero is one of its values.
        ..unsafe { mem::zeroed() }
    }
}

fn wanted(count: u32) -> v4l2_requestbuffers {
    v4l2_requestbuffers {
        count,
        type_: Type::VideoCapture as u32,
        memory: Memory::Mmap as u32,
        // SAFETY: as in `described`.
        ..unsafe { mem::zeroed() }
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
