// SPDX-License-Identifier: Apache-2.0
//! The CUDA driver, bound at run time: the functions that are needed, by the names of `cuda.h`. Everything unsafe
//! about it is here.
//!
//! One stream of high priority; memory is allocated at the start and never again; a run is a graph that was captured
//! once; its end is an event on which a thread sleeps instead of spinning.
#![allow(unsafe_code)] // A C library without a header.

mod fault;
pub mod joint;
pub mod memory;
pub mod picture;
pub mod turns;

use super::LoadFault;
use crate::engine::loader_words;
pub use fault::CudaFault;
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use memory::{DeviceBuffer, Kernel, PinnedBuffer};
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    context_retain: "cuDevicePrimaryCtxRetain", fn(*mut Pointer, i32);
    context_release: "cuDevicePrimaryCtxRelease_v2", fn(i32);
    context_set: "cuCtxSetCurrent", fn(Pointer);
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
const COMPUTE_MAJOR: i32 = 75;
const COMPUTE_MINOR: i32 = 76;
const INTEGRATED: i32 = 18;
const CAN_MAP_HOST: i32 = 19;

/// The driver's library.
pub struct Driver {
    functions: Functions,
    path: PathBuf,
    /// Last: its code must outlive every pointer into it.
    _handle: Handle,
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
    /// The driver's CUDA version: 12060 for 12.6.
    pub driver: i32,
}

impl Driver {
    /// Opens the driver and finds at least one device.
    ///
    /// # Errors
    /// [`LoadFault`]: no driver, too old, no device.
    pub fn open(path: Option<&Path>) -> Result<Arc<Driver>, LoadFault> {
        let path = path.map_or_else(|| PathBuf::from(DRIVER), Path::to_owned);
        // SAFETY: opening runs the library's initialisers. It is the driver by its name, or what the configuration
        // names as the driver; whoever can write that can run code here anyway.
        let opened = unsafe { Handle::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
        let handle = opened.map_err(|error| LoadFault::NoDriver {
            looked: format!("{}: {}", path.display(), loader_words(&error)),
        })?;
        let functions = Functions::find(&handle).map_err(|symbol| LoadFault::OldDriver {
            at: path.display().to_string(),
            symbol,
        })?;
        let driver = Driver {
            functions,
            path,
            _handle: handle,
        };
        // SAFETY: the only argument allowed is 0; it may be called again and again.
        let code = unsafe { (driver.functions.init)(0) };
        driver.done("cuInit", code).map_err(LoadFault::NoDevice)?;
        let mut count = 0;
        // SAFETY: writes one number.
        let code = unsafe { (driver.functions.device_count)(&mut count) };
        driver
            .done("cuDeviceGetCount", code)
            .map_err(LoadFault::NoDevice)?;
        if count < 1 {
            return Err(LoadFault::NoDevice(CudaFault {
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
        let (mut device, mut driver) = (0, 0);
        let mut name = [0 as c_char; 128];
        // SAFETY: each call writes one number, or into the buffer of the length given, with an end.
        let name = unsafe {
            self.done("cuDeviceGet", (f.device_get)(&mut device, index))?;
            self.done("cuDriverGetVersion", (f.driver_version)(&mut driver))?;
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

    fn f(&self) -> &Functions {
        &self.driver.functions
    }

    fn done(&self, call: &'static str, code: Code) -> Result<(), CudaFault> {
        self.driver.done(call, code)
    }
}

/// A stream of the highest priority, and the event at the end of each run. What is put on it runs in that order, so whoever
/// comes later needs no wait.
pub struct Stream {
    context: Arc<Context>,
    stream: Pointer,
    event: Pointer,
    /// Runs put on it, and those of them that were waited for.
    put: Cell<u64>,
    waited: Cell<u64>,
}

// SAFETY: as for `Context`.
unsafe impl Send for Stream {}

/// CU_STREAM_NON_BLOCKING: does not wait for the default stream.
const NON_BLOCKING: u32 = 1;
/// CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING: who waits sleeps, and the event costs no time stamp.
const SLEEPING_EVENT: u32 = 1 | 2;
/// CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: what other threads do is their own.
const CAPTURE_THREAD: i32 = 1;

impl Stream {
    /// A stream in `context`.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn new(context: &Arc<Context>) -> Result<Stream, CudaFault> {
        let f = context.f();
        let (mut least, mut greatest) = (0, 0);
        let null = std::ptr::null_mut();
        let mut made = Stream {
            context: Arc::clone(context),
            stream: null,
            event: null,
            put: Cell::new(0),
            waited: Cell::new(0),
        };
        // SAFETY: each writes numbers or a pointer that `made` destroys when it is dropped.
        unsafe {
            context.done(
                "cuCtxGetStreamPriorityRange",
                (f.priorities)(&mut least, &mut greatest),
            )?;
            let code = (f.stream_create)(&mut made.stream, NON_BLOCKING, greatest);
            context.done("cuStreamCreateWithPriority", code)?;
            context.done(
                "cuEventCreate",
                (f.event_create)(&mut made.event, SLEEPING_EVENT),
            )?;
        }
        Ok(made)
    }

    /// For TensorRT.
    #[must_use]
    pub fn raw(&self) -> *mut c_void {
        self.stream
    }

    /// A run was put on it; its number.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.put.set(self.put.get() + 1);
        self.put.get()
    }

    /// Whether the run of this number was waited for.
    #[must_use]
    pub fn waited_for(&self, mark: u64) -> bool {
        mark <= self.waited.get()
    }

    /// Waits for all that was put on it, asleep.
    ///
    /// # Errors
    /// [`CudaFault`]: also of anything that went wrong on the device since the last wait.
    pub fn wait(&self) -> Result<(), CudaFault> {
        let f = self.context.f();
        // SAFETY: event and stream are live.
        unsafe {
            self.context
                .done("cuEventRecord", (f.event_record)(self.event, self.stream))?;
            self.context
                .done("cuEventSynchronize", (f.event_wait)(self.event))?;
        }
        self.waited.set(self.put.get());
        Ok(())
    }

    /// For who lets go of what the run of this number uses: that it has ended, well or not.
    pub fn settle(&self, mark: u64) {
        if self.waited.get() < mark {
            // SAFETY: the stream is live. What the driver says belongs to a run that nobody waits for any more.
            unsafe { (self.context.f().stream_wait)(self.stream) };
            self.waited.set(self.put.get());
        }
    }

    /// Copies a pinned buffer to the device, when the stream comes to it.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn copy_in(&self, to: &DeviceBuffer, from: &PinnedBuffer) -> Result<(), CudaFault> {
        let len = to.len.min(from.len);
        // SAFETY: both buffers are live and at least `len` long; the engine that owns them waits for the stream before
        // it touches or frees them.
        let code = unsafe { (self.context.f().copy_in)(to.address, from.host, len, self.stream) };
        self.context.done("cuMemcpyHtoDAsync", code)
    }

    /// Copies from the device to a pinned buffer, when the stream comes to it.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn copy_out(&self, to: &PinnedBuffer, from: &DeviceBuffer) -> Result<(), CudaFault> {
        let len = to.len.min(from.len);
        // SAFETY: as for `copy_in`.
        let code = unsafe { (self.context.f().copy_out)(to.host, from.address, len, self.stream) };
        self.context.done("cuMemcpyDtoHAsync", code)
    }

    /// Copies what is behind the first `skip` bytes to another place on the device, as much as fits there, when the stream comes
    /// to it.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn copy_within(
        &self,
        to: &DeviceBuffer,
        from: &DeviceBuffer,
        skip: usize,
    ) -> Result<(), CudaFault> {
        let len = to.len.min(from.len.saturating_sub(skip));
        let (f, at) = (self.context.f(), from.address + skip as u64);
        // SAFETY: as for `copy_in`; what is copied lies within both.
        let code = unsafe { (f.copy_within)(to.address, at, len, self.stream) };
        self.context.done("cuMemcpyDtoDAsync", code)
    }

    /// Records what `work` puts on the stream instead of doing it. `work` tells whether it worked.
    ///
    /// # Errors
    /// [`CudaFault`], or what `work` says; the stream is out of recording either way.
    pub fn capture<E: From<CudaFault>>(
        &self,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<Graph, E> {
        let f = self.context.f();
        // SAFETY: the stream is live and nothing is being recorded on it.
        let code = unsafe { (f.capture_begin)(self.stream, CAPTURE_THREAD) };
        self.context.done("cuStreamBeginCapture", code)?;
        let worked = work();
        let mut graph = std::ptr::null_mut();
        // SAFETY: ends what was begun above; writes a pointer to a graph that is ours, or null when it failed.
        let code = unsafe { (f.capture_end)(self.stream, &mut graph) };
        let ended = self.context.done("cuStreamEndCapture", code);
        let null = std::ptr::null_mut();
        let mut made = Graph {
            context: Arc::clone(&self.context),
            graph,
            executable: null,
        };
        worked?;
        ended?;
        self.make_ready(&mut made)?;
        Ok(made)
    }

    /// One graph of several, one after the other.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn join(&self, graphs: &[Arc<Graph>]) -> Result<Graph, CudaFault> {
        let (f, null) = (self.context.f(), std::ptr::null_mut());
        let mut made = Graph {
            context: Arc::clone(&self.context),
            graph: null,
            executable: null,
        };
        // SAFETY: writes a pointer to an empty graph that `made` destroys.
        let code = unsafe { (f.graph_create)(&mut made.graph, 0) };
        self.context.done("cuGraphCreate", code)?;
        let mut before = null;
        for child in graphs {
            let (mut node, after) = (null, usize::from(!before.is_null()));
            // SAFETY: both graphs are live; the child is copied into the other, behind the one node before it, if any.
            let code = unsafe { (f.graph_add)(&mut node, made.graph, &before, after, child.graph) };
            self.context.done("cuGraphAddChildGraphNode", code)?;
            before = node;
        }
        self.make_ready(&mut made)?;
        Ok(made)
    }

    fn make_ready(&self, made: &mut Graph) -> Result<(), CudaFault> {
        let f = self.context.f();
        // SAFETY: the graph is live; writes a pointer that `made` destroys.
        let code = unsafe { (f.graph_instantiate)(&mut made.executable, made.graph, 0) };
        self.context.done("cuGraphInstantiate", code)?;
        // SAFETY: executable and stream are live.
        let code = unsafe { (f.graph_upload)(made.executable, self.stream) };
        self.context.done("cuGraphUpload", code)
    }

    /// Puts a recorded graph on the stream.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn launch(&self, graph: &Graph) -> Result<(), CudaFault> {
        // SAFETY: executable and stream are live, and of one context.
        let code = unsafe { (self.context.f().graph_launch)(graph.executable, self.stream) };
        self.context.done("cuGraphLaunch", code)
    }

    /// Starts a kernel with one thread for each of `threads`, in blocks of 256, with these arguments.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn launch_kernel(
        &self,
        kernel: &Kernel,
        threads: u32,
        arguments: &mut [u64],
    ) -> Result<(), CudaFault> {
        const BLOCK: u32 = 256;
        let mut pointers: Vec<Pointer> = arguments
            .iter_mut()
            .map(|argument| std::ptr::from_mut(argument).cast())
            .collect();
        let none = std::ptr::null_mut();
        // SAFETY: function and stream are live; there is one pointer for each argument, and the driver copies the
        // arguments before it returns. That they fit the kernel is its author's word: a kernel of ours takes 64-bit
        // arguments only.
        let code = unsafe {
            (self.context.f().launch)(
                kernel.function,
                threads.div_ceil(BLOCK),
                1,
                1,
                BLOCK,
                1,
                1,
                0,
                self.stream,
                pointers.as_mut_ptr(),
                none,
            )
        };
        self.context.done("cuLaunchKernel", code)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let f = self.context.f();
        // SAFETY: destroys what `Stream::new` made, once; null is left alone. Work that is still on it is waited for,
        // because it uses buffers that are freed after this.
        unsafe {
            if !self.stream.is_null() {
                (f.stream_wait)(self.stream);
                (f.stream_destroy)(self.stream);
            }
            if !self.event.is_null() {
                (f.event_destroy)(self.event);
            }
        }
    }
}

/// Recorded work.
pub struct Graph {
    context: Arc<Context>,
    graph: Pointer,
    executable: Pointer,
}

// SAFETY: a graph may be launched from any thread, one at a time: by who holds its line.
unsafe impl Send for Graph {}
// SAFETY: as above; it is changed by nobody.
unsafe impl Sync for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        let f = self.context.f();
        // SAFETY: destroys what `Stream::capture` made, once.
        unsafe {
            if !self.executable.is_null() {
                (f.graph_exec_destroy)(self.executable);
            }
            if !self.graph.is_null() {
                (f.graph_destroy)(self.graph);
            }
        }
    }
}
