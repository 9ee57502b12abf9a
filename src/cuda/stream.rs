// SPDX-License-Identifier: Apache-2.0
//! Work in its order, recorded or at once.
#![allow(unsafe_code)] // Functions of a driver without a header.

use super::memory::{DeviceBuffer, Kernel, PinnedBuffer};
use super::{Context, CudaFault, Pointer};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::Arc;

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

    /// For who lets go of memory: all that was put on it has ended, well or not.
    pub fn settle(&self) {
        // SAFETY: the stream is live. What the driver says belongs to a run that nobody waits for any more.
        unsafe { (self.context.f().stream_wait)(self.stream) };
        self.waited.set(self.put.get());
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

    /// Memory on the device with these bytes in it.
    ///
    /// # Errors
    /// [`CudaFault`].
    pub fn upload(&self, bytes: &[u8]) -> Result<DeviceBuffer, CudaFault> {
        let mut from = PinnedBuffer::new(&self.context, bytes.len())?;
        from.bytes().copy_from_slice(bytes);
        let to = DeviceBuffer::new(&self.context, bytes.len())?;
        let copied = self.copy_in(&to, &from).and_then(|()| self.wait());
        if copied.is_err() {
            // Both go now, and the copy may still be on the stream.
            self.settle();
        }
        copied.map(|()| to)
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
    pub fn launch_kernel<const N: usize>(
        &self,
        kernel: &Kernel,
        threads: u32,
        arguments: &mut [u64; N],
    ) -> Result<(), CudaFault> {
        const BLOCK: u32 = 256;
        let mut pointers: [Pointer; N] = arguments
            .each_mut()
            .map(|argument| std::ptr::from_mut(argument).cast());
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
