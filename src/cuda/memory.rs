// SPDX-License-Identifier: Apache-2.0
//! What is made once in a context of the driver: memory on the device, memory of the host that the device can reach, and
//! kernels.
#![allow(unsafe_code)] // Addresses of a driver without a header.

use super::{Context, CudaFault, Pointer};
use std::ffi::CStr;
use std::sync::Arc;

/// Memory on the device.
pub struct DeviceBuffer {
    pub(super) context: Arc<Context>,
    pub(super) address: u64,
    pub(super) len: usize,
}

impl DeviceBuffer {
    /// `len` bytes.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn new(context: &Arc<Context>, len: usize) -> Result<DeviceBuffer, CudaFault> {
        let mut address = 0;
        // SAFETY: writes an address that is freed when the buffer is dropped.
        let code = unsafe { (context.f().allocate)(&mut address, len.max(1)) };
        context.done("cuMemAlloc", code)?;
        Ok(DeviceBuffer {
            context: Arc::clone(context),
            address,
            len,
        })
    }

    /// Where it is, for the device.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        // SAFETY: freed once; every engine that used it waited for the stream before it let go of it.
        unsafe { (self.context.f().free)(self.address) };
    }
}

/// CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP. Not write-combined: outputs are read by the processor.
const PINNED: u32 = 1 | 2;

/// Memory of the host that the device can reach.
pub struct PinnedBuffer {
    pub(super) context: Arc<Context>,
    pub(super) host: Pointer,
    pub(super) device: u64,
    pub(super) len: usize,
}

// SAFETY: plain memory, owned.
unsafe impl Send for PinnedBuffer {}

impl PinnedBuffer {
    /// `len` bytes, zero. Its device address is 0 if the device cannot reach it.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn new(context: &Arc<Context>, len: usize) -> Result<PinnedBuffer, CudaFault> {
        let f = context.f();
        let (mut host, mut device) = (std::ptr::null_mut(), 0);
        let room = len.max(1);
        // SAFETY: writes a pointer to `room` bytes that are freed when the buffer is dropped.
        let code = unsafe { (f.host_allocate)(&mut host, room, PINNED) };
        context.done("cuMemHostAlloc", code)?;
        // SAFETY: the memory is `room` bytes long and nobody else's.
        unsafe { std::ptr::write_bytes(host.cast::<u8>(), 0, room) };
        // SAFETY: the memory is pinned; writes its address for the device.
        let code = unsafe { (f.host_device_pointer)(&mut device, host, 0) };
        if code != 0 {
            device = 0;
        }
        Ok(PinnedBuffer {
            context: Arc::clone(context),
            host,
            device,
            len,
        })
    }

    /// Where it is, for the device; 0 if it cannot reach it.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.device
    }

    /// Its bytes. To be touched only while the stream that uses it has been waited for.
    #[must_use]
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes, initialised, borrowed with the buffer. The device reads and
        // writes them only between a launch and a wait for it, and the engine waits for its last run before it asks for them.
        unsafe { std::slice::from_raw_parts_mut(self.host.cast::<u8>(), self.len) }
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        // SAFETY: freed once; the stream that used it was waited for.
        unsafe { (self.context.f().host_free)(self.host) };
    }
}

/// A kernel that was compiled elsewhere.
pub struct Kernel {
    pub(super) context: Arc<Context>,
    pub(super) module: Pointer,
    pub(super) function: Pointer,
}

// SAFETY: as for `Context`.
unsafe impl Send for Kernel {}

impl Kernel {
    /// Loads PTX or a cubin and finds `name` in it.
    ///
    /// # Errors
    /// [`CudaFault`], e.g. PTX that is newer than the driver.
    pub fn load(context: &Arc<Context>, image: &CStr, name: &CStr) -> Result<Kernel, CudaFault> {
        let f = context.f();
        let null = std::ptr::null_mut();
        let mut kernel = Kernel {
            context: Arc::clone(context),
            module: null,
            function: null,
        };
        // SAFETY: the image has an end and lives for the length of the call; what is made is destroyed with `kernel`.
        unsafe {
            let code = (f.module_load)(&mut kernel.module, image.as_ptr().cast());
            context.done("cuModuleLoadData", code)?;
            let code = (f.module_function)(&mut kernel.function, kernel.module, name.as_ptr());
            context.done("cuModuleGetFunction", code)?;
        }
        Ok(kernel)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        if !self.module.is_null() {
            // SAFETY: unloaded once; kernels of it that still ran were waited for by the engine's drop.
            unsafe { (self.context.f().module_unload)(self.module) };
        }
    }
}
