// SPDX-License-Identifier: Apache-2.0
//! The CUDA driver, bound at run time: the functions that are needed, by the names of `cuda.h`.
//!
//! [`memory`] is allocated at the start and never again; work goes on a stream of high priority, best as a graph that was
//! recorded once, and its end is an event on which a thread sleeps instead of spinning. Kernels of ours: [`picture`] a camera's
//! picture made a tensor, [`turns`] a denoising loop, [`surface`] memory of the image processor made a picture ([`egl`] brings it
//! into reach). [`joint`] several recorded runs as one.
#![allow(unsafe_code)] // A C library without a header.

pub mod egl;
mod fault;
pub mod joint;
pub mod memory;
pub mod picture;
mod stream;
pub mod surface;
pub mod turns;

use crate::loader;
pub use fault::{CudaFault, KernelFault, OpenFault, sticks};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{CStr, c_char, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;
pub use stream::{Graph, Stream};

/// Where the driver is, unless told otherwise: JetPack and desktop drivers both install this name.
const DRIVER: &str = "libcuda.so.1";

/// `CUresult`; 0 is success.
type Code = i32;
type Pointer = *mut c_void;

macro_rules! driver {
    ($($field:ident: $symbol:literal, fn($($type:ty),*);)*) => {
        /// The functions of the driver.
        struct Functions { $($field: unsafe extern "C" fn($($type),*) -> Code,)* }

        impl Functions {
            fn find(handle: &Handle) -> Result<Functions, &'static str> {
                // SAFETY: the signatures are those of cuda.h for these names, which never change: the driver's
                // functions get a new suffix when they do.
                unsafe {
                    Ok(Functions {
                        $($field: *handle
                            .get::<unsafe extern "C" fn($($type),*) -> Code>(concat!($symbol, "\0").as_bytes())
                            .map_err(|_| $symbol)?,)*
                    })
                }
            }
        }
    };
}

driver! {
    init: "cuInit", fn(u32);
    driver_version: "cuDriverGetVersion", fn(*mut i32);
    device_count: "cuDeviceGetCount", fn(*mut i32);
    device_get: "cuDeviceGet", fn(*mut i32, i32);
    device_name: "cuDeviceGetName", fn(*mut c_char, i32, i32);
    device_attribute: "cuDeviceGetAttribute", fn(*mut i32, i32, i32);
    device_memory: "cuDeviceTotalMem_v2", fn(*mut usize, i32);
    context_retain: "cuDevicePrimaryCtxRetain", fn(*mut Pointer, i32);
    context_release: "cuDevicePrimaryCtxRelease_v2", fn(i32);
    context_set: "cuCtxSetCurrent", fn(Pointer);
    context_push: "cuCtxPushCurrent_v2", fn(Pointer);
    context_pop: "cuCtxPopCurrent_v2", fn(*mut Pointer);
    priorities: "cuCtxGetStreamPriorityRange", fn(*mut i32, *mut i32);
    stream_create: "cuStreamCreateWithPriority", fn(*mut Pointer, u32, i32);
    stream_destroy: "cuStreamDestroy_v2", fn(Pointer);
    stream_wait: "cuStreamSynchronize", fn(Pointer);
    event_create: "cuEventCreate", fn(*mut Pointer, u32);
    event_destroy: "cuEventDestroy_v2", fn(Pointer);
    event_record: "cuEventRecord", fn(Pointer, Pointer);
    event_wait: "cuEventSynchronize", fn(Pointer);
    allocate: "cuMemAlloc_v2", fn(*mut u64, usize);
    free: "cuMemFree_v2", fn(u64);
    host_allocate: "cuMemHostAlloc", fn(*mut Pointer, usize, u32);
    host_free: "cuMemFreeHost", fn(Pointer);
    host_device_pointer: "cuMemHostGetDevicePointer_v2", fn(*mut u64, Pointer, u32);
    copy_in: "cuMemcpyHtoDAsync_v2", fn(u64, *const c_void, usize, Pointer);
    copy_out: "cuMemcpyDtoHAsync_v2", fn(Pointer, u64, usize, Pointer);
    copy_within: "cuMemcpyDtoDAsync_v2", fn(u64, u64, usize, Pointer);
    capture_begin: "cuStreamBeginCapture_v2", fn(Pointer, i32);
    capture_end: "cuStreamEndCapture", fn(Pointer, *mut Pointer);
    graph_create: "cuGraphCreate", fn(*mut Pointer, u32);
    graph_add: "cuGraphAddChildGraphNode", fn(*mut Pointer, Pointer, *const Pointer, usize, Pointer);
    graph_instantiate: "cuGraphInstantiateWithFlags", fn(*mut Pointer, Pointer, u64);
    graph_upload: "cuGraphUpload", fn(Pointer, Pointer);
    graph_launch: "cuGraphLaunch", fn(Pointer, Pointer);
    graph_exec_destroy: "cuGraphExecDestroy", fn(Pointer);
    graph_destroy: "cuGraphDestroy", fn(Pointer);
    module_load: "cuModuleLoadData", fn(*mut Pointer, *const c_void);
    module_unload: "cuModuleUnload", fn(Pointer);
    module_function: "cuModuleGetFunction", fn(*mut Pointer, Pointer, *const c_char);
    launch: "cuLaunchKernel", fn(Pointer, u32, u32, u32, u32, u32, u32, u32, Pointer, *mut Pointer, *mut Pointer);
    error_name: "cuGetErrorName", fn(Code, *mut *const c_char);
}

/// Attributes of a device that are asked for: numbers of `CUdevice_attribute`.
const MULTIPROCESSORS: i32 = 16;
const COMPUTE_MAJOR: i32 = 75;
const COMPUTE_MINOR: i32 = 76;
const INTEGRATED: i32 = 18;
const CAN_MAP_HOST: i32 = 19;

/// The driver's library.
pub struct Driver {
    functions: Functions,
    path: PathBuf,
    /// Open for the life of the process: it has threads, and handlers for the end of threads and of the process, that must not lose
    /// their code.
    handle: ManuallyDrop<Handle>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CUDA driver at {}", self.path.display())
    }
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its number.
    pub index: i32,
    /// Its name.
    pub name: String,
    /// Compute capability.
    pub compute: (i32, i32),
    /// Whether it shares its memory with the processor, as on a Jetson.
    pub integrated: bool,
    /// Whether it can read the host's memory.
    pub maps_host: bool,
    /// Its multiprocessors, as far as they are switched on.
    pub multiprocessors: i32,
    /// Its memory.
    pub memory_bytes: u64,
    /// The driver's CUDA version: 12060 for 12.6.
    pub driver: i32,
}

impl Driver {
    /// Opens the driver and finds at least one device.
    ///
    /// # Errors
    /// [`OpenFault`]: no driver, too old, no device.
    pub fn open(path: Option<&Path>) -> Result<Arc<Driver>, OpenFault> {
        let path = path.map_or_else(|| PathBuf::from(DRIVER), Path::to_owned);
        // SAFETY: opening runs the library's initialisers. It is the driver by its name, or what the configuration
        // names as the driver; whoever can write that can run code here anyway.
        let opened = unsafe { Handle::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
        let handle = ManuallyDrop::new(opened.map_err(|error| OpenFault::NoDriver {
            looked: format!("{}: {}", path.display(), loader::words(&path, &error)),
        })?);
        let functions = Functions::find(&handle).map_err(|symbol| OpenFault::OldDriver {
            at: path.display().to_string(),
            symbol,
        })?;
        let driver = Driver {
            functions,
            path,
            handle,
        };
        // SAFETY: the only argument allowed is 0; it may be called again and again.
        let code = unsafe { (driver.functions.init)(0) };
        driver.done("cuInit", code).map_err(OpenFault::NoDevice)?;
        let mut count = 0;
        // SAFETY: writes one number.
        let code = unsafe { (driver.functions.device_count)(&mut count) };
        driver
            .done("cuDeviceGetCount", code)
            .map_err(OpenFault::NoDevice)?;
        if count < 1 {
            return Err(OpenFault::NoDevice(CudaFault {
                call: "cuDeviceGetCount",
                code: 100,
                name: "no device".to_owned(),
            }));
        }
        Ok(Arc::new(driver))
    }

    fn done(&self, call: &'static str, code: Code) -> Result<(), CudaFault> {
        if code == 0 {
            return Ok(());
        }
        let mut name = std::ptr::null();
        // SAFETY: writes a pointer to a string of the driver's own that is never freed, or null.
        let named = unsafe { (self.functions.error_name)(code, &mut name) };
        let name = if named == 0 && !name.is_null() {
            // SAFETY: see above.
            unsafe { CStr::from_ptr(name) }
                .to_string_lossy()
                .into_owned()
        } else {
            "unknown error".to_owned()
        };
        Err(CudaFault { call, code, name })
    }

    /// What device `index` is.
    ///
    /// # Errors
    /// [`CudaFault`] if there is none.
    pub fn device(&self, index: i32) -> Result<Device, CudaFault> {
        let f = &self.functions;
        let (mut device, mut driver, mut memory) = (0, 0, 0_usize);
        let mut name = [0 as c_char; 128];
        // SAFETY: each call writes one number, or into the buffer of the length given, with an end.
        let name = unsafe {
            self.done("cuDeviceGet", (f.device_get)(&mut device, index))?;
            self.done("cuDriverGetVersion", (f.driver_version)(&mut driver))?;
            let code = (f.device_memory)(&mut memory, device);
            self.done("cuDeviceTotalMem", code)?;
            let len = name.len() as i32 - 1;
            self.done(
                "cuDeviceGetName",
                (f.device_name)(name.as_mut_ptr(), len, device),
            )?;
            CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
        };
        let attribute = |which: i32| {
            let mut value = 0;
            // SAFETY: writes one number.
            let code = unsafe { (f.device_attribute)(&mut value, which, device) };
            self.done("cuDeviceGetAttribute", code).map(|()| value)
        };
        Ok(Device {
            index,
            name,
            compute: (attribute(COMPUTE_MAJOR)?, attribute(COMPUTE_MINOR)?),
            integrated: attribute(INTEGRATED)? != 0,
            maps_host: attribute(CAN_MAP_HOST)? != 0,
            multiprocessors: attribute(MULTIPROCESSORS)?,
            memory_bytes: memory as u64,
            driver,
        })
    }

    /// The device's own context, shared by all that use it in this process.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn context(self: &Arc<Driver>, device: &Device) -> Result<Arc<Context>, CudaFault> {
        let (mut number, mut context) = (0, std::ptr::null_mut());
        // SAFETY: writes one number, and one pointer whose reference is given back when the context is dropped.
        unsafe {
            self.done(
                "cuDeviceGet",
                (self.functions.device_get)(&mut number, device.index),
            )?;
            let code = (self.functions.context_retain)(&mut context, number);
            self.done("cuDevicePrimaryCtxRetain", code)?;
        }
        let context = Context {
            driver: Arc::clone(self),
            device: number,
            context,
        };
        context.make_current()?;
        Ok(Arc::new(context))
    }
}

/// A device's context.
pub struct Context {
    driver: Arc<Driver>,
    device: i32,
    context: Pointer,
}

// SAFETY: a context of the driver may be used from any thread; the driver locks.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: gives back the reference taken in `Driver::context`; nothing made in it is left, each holds an Arc.
        unsafe { (self.driver.functions.context_release)(self.device) };
    }
}

impl Context {
    /// Makes it the calling thread's. To be called by each thread that uses it, before it does.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn make_current(&self) -> Result<(), CudaFault> {
        // SAFETY: the context is live.
        let code = unsafe { (self.driver.functions.context_set)(self.context) };
        self.driver.done("cuCtxSetCurrent", code)
    }

    /// Does something with it as the calling thread's, whose own it leaves as it was.
    fn within(&self, work: impl FnOnce()) {
        let f = self.f();
        // SAFETY: the context is live; what is pushed is popped below.
        let pushed = unsafe { (f.context_push)(self.context) } == 0;
        // Whether or not: without it the driver refuses what follows, and a lost context keeps nothing.
        work();
        if pushed {
            let mut popped = std::ptr::null_mut();
            // SAFETY: writes a pointer to the context that was pushed above.
            unsafe { (f.context_pop)(&mut popped) };
        }
    }

    fn f(&self) -> &Functions {
        &self.driver.functions
    }

    fn done(&self, call: &'static str, code: Code) -> Result<(), CudaFault> {
        self.driver.done(call, code)
    }
}
