// SPDX-License-Identifier: Apache-2.0
//! TensorRT's library, bound at run time: no header, no link, no C++. Everything unsafe about it is here.
//!
//! Calls follow the Itanium C++ ABI, which is that of Linux on x86-64 and AArch64: a method takes the object first, a
//! structure of more than two registers is returned through a hidden pointer, as in C. The places of the methods stand
//! in [`super::slots`].
//!
//! What it guards against: a library of a version whose tables nobody compared; a runtime that is "not null" and is no
//! runtime (with no driver, `createInferRuntime_INTERNAL` gives the offset of a base class from null, 0x228); and
//! errors that are only logged.
//!
//! A library that was opened stays open: it has threads, and handlers for the end of threads and of the process, that must not
//! lose their code.
#![allow(unsafe_code)] // A C++ library without a header.

pub mod callbacks;

use super::slots::Slots;
use super::{Layout, LoadFault};
use crate::loader;
use callbacks::{Callback, Callbacks, Hearing, Loading, Logger, Messages};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// An address below this is no object: nothing is mapped there.
const NO_OBJECT_BELOW: usize = 0x1_0000;

/// A function of a table, of whatever type: cast before it is called.
type Method = *const c_void;

/// A public object of TensorRT: the table of its class, and its implementation.
#[repr(C)]
struct Object {
    table: *const Method,
    implementation: *mut Implementation,
}

#[repr(C)]
struct Implementation {
    table: *const Method,
}

/// `nvinfer1::Dims64`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Dims {
    len: i32,
    sides: [i64; 8],
}

/// TensorRT's library, of a version that is known.
pub struct Library {
    path: PathBuf,
    version: i32,
    layout: Layout,
    create_runtime: unsafe extern "C" fn(*mut c_void, i32) -> *mut Object,
}

/// Whether TensorRT's own plugins are registered; why not, if not.
type Plugins = Result<(), String>;

/// What came of it for the library at each path: a process registers them once.
static PLUGINS: Mutex<BTreeMap<PathBuf, Plugins>> = Mutex::new(BTreeMap::new());

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TensorRT {} at {}", self.words(), self.path.display())
    }
}

impl Library {
    /// Opens the library at `path`, or the first that the system finds of [`super::SONAMES`].
    ///
    /// # Errors
    /// [`LoadFault`]: none found, not TensorRT, or of a version whose layout is not known.
    pub fn open(path: Option<&Path>) -> Result<Library, LoadFault> {
        let candidates: Vec<PathBuf> = match path {
            Some(path) => vec![path.to_owned()],
            None => super::SONAMES.iter().map(PathBuf::from).collect(),
        };
        let mut reasons = Vec::new();
        for candidate in candidates {
            // SAFETY: opening runs the library's initialisers. It is TensorRT by its name, or what the configuration
            // names as TensorRT; whoever can write that can run code here anyway.
            match unsafe { Handle::open(Some(&candidate), RTLD_NOW | RTLD_LOCAL) } {
                Ok(handle) => return Library::bind(candidate, &ManuallyDrop::new(handle)),
                Err(error) => reasons.push(format!(
                    "{}: {}",
                    candidate.display(),
                    loader::words(&candidate, &error)
                )),
            }
        }
        Err(LoadFault::NoTensorRt {
            looked: reasons.join("; "),
        })
    }

    fn bind(path: PathBuf, handle: &Handle) -> Result<Library, LoadFault> {
        let at = path.display().to_string();
        let missing = |symbol: &'static str| LoadFault::NotTensorRt {
            at: at.clone(),
            symbol,
        };
        // SAFETY: both are functions of C with these signatures in every version from 7 to 11 (NvInferRuntime.h).
        let (version, create_runtime) = unsafe {
            let version = handle
                .get::<unsafe extern "C" fn() -> i32>(b"getInferLibVersion\0")
                .map_err(|_| missing("getInferLibVersion"))?;
            let create = handle
                .get::<unsafe extern "C" fn(*mut c_void, i32) -> *mut Object>(
                    b"createInferRuntime_INTERNAL\0",
                )
                .map_err(|_| missing("createInferRuntime_INTERNAL"))?;
            (version(), *create)
        };
        let layout = Layout::of(version).ok_or(LoadFault::Version { at, version })?;
        Ok(Library {
            path,
            version,
            layout,
            create_runtime,
        })
    }

    /// Has the plugins of the library beside this one registered, as `trtexec` does when it builds: a plan with a layer of one is not
    /// read without.
    fn plugins(&self) -> Plugins {
        let mut known = PLUGINS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugins) = known.get(&self.path) {
            return plugins.clone();
        }
        let plugins = self.register_plugins();
        known.insert(self.path.clone(), plugins.clone());
        plugins
    }

    fn register_plugins(&self) -> Plugins {
        let path = plugins_of(&self.path)
            .ok_or_else(|| format!("{} is no name of a library", self.path.display()))?;
        let at = path.display();
        // SAFETY: as for TensorRT's own library, beside which it lies and which it comes with.
        let opened = unsafe { Handle::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
        let handle = opened.map_err(|error| format!("{at}: {}", loader::words(&path, &error)))?;
        let handle = ManuallyDrop::new(handle);
        // SAFETY: a function of C with this signature in every version from 5 to 11 (NvInferPlugin.h).
        let register = unsafe {
            handle.get::<unsafe extern "C" fn(*mut c_void, *const c_char) -> bool>(
                b"initLibNvInferPlugins\0",
            )
        };
        let register = register.map_err(|_| format!("{at} is without initLibNvInferPlugins"))?;
        // SAFETY: the logger has the layout that this version calls and is never freed; the name of the plugins' space, empty, has
        // an end and lives for ever.
        match unsafe { register(Logger::of(self.layout), c"".as_ptr()) } {
            true => Ok(()),
            false => Err(format!("{at}: initLibNvInferPlugins refuses")),
        }
    }

    /// Major * 10000 + minor * 100 + patch.
    #[must_use]
    pub fn version(&self) -> i32 {
        self.version
    }

    /// The version in words.
    #[must_use]
    pub fn words(&self) -> String {
        super::version_words(self.version)
    }
}

/// Where the plugins of the library at `path` are: beside it, of the same version. `libnvinfer.so.10` has `libnvinfer_plugin.so.10`.
fn plugins_of(path: &Path) -> Option<PathBuf> {
    let (name, ending) = path.file_name()?.to_str()?.split_once(".so")?;
    Some(path.with_file_name(format!("{name}_plugin.so{ending}")))
}

/// An engine that was read from a plan, with everything that must live as long.
pub struct Session {
    context: *mut Object,
    engine: *mut Object,
    runtime: *mut Object,
    /// After the objects: they call it until they are gone.
    callbacks: Callbacks,
    library: Arc<Library>,
}

// SAFETY: TensorRT's objects may be used from any thread, one at a time (NvInferRuntime.h, "thread-safe" notes); a
// session is used through `&mut` or from one thread. Messages are behind a mutex.
unsafe impl Send for Session {}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session of {:?}", self.library)
    }
}

/// Which way a tensor goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Into the engine.
    Input,
    /// Out of it.
    Output,
}

/// One tensor of an engine, as the engine tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Io {
    /// Its name.
    pub name: CString,
    /// Its direction.
    pub mode: Mode,
    /// `nvinfer1::DataType`.
    pub data_type: i32,
    /// Its shape; -1 where it is not fixed.
    pub shape: Vec<i64>,
}

/// Deletes an object by its own deleting destructor, the second entry of its own table.
///
/// # Safety
/// `object` is a live public object of TensorRT, or null, and is not used again.
unsafe fn delete(object: *mut Object) {
    if (object as usize) < NO_OBJECT_BELOW {
        return;
    }
    // SAFETY: the caller's promise; INoCopy's virtual destructor gives every public class this entry.
    unsafe {
        let destructor: extern "C" fn(*mut Object) = std::mem::transmute(*(*object).table.add(1));
        destructor(object);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let hearing = self.hears();
        for object in [self.context, self.engine, self.runtime] {
            // SAFETY: each was made by TensorRT for this session, is deleted once, users before what they use.
            unsafe { delete(object) };
        }
        drop(hearing);
        // Nobody asks any more.
        for remark in self.callbacks.messages.remarks() {
            log::warn!("TensorRT, of an engine that is let go of: {remark}");
        }
    }
}

/// Calls the method in `$slot` of the implementation of `$object`.
macro_rules! call {
    ($object:expr, $slot:expr, fn($($type:ty),*) -> $result:ty, $($argument:expr),*) => {{
        let implementation = (*$object).implementation;
        let method: extern "C" fn(*mut Implementation, $($type),*) -> $result =
            std::mem::transmute(*(*implementation).table.add($slot));
        method(implementation, $($argument),*)
    }};
}

impl Session {
    /// Makes a runtime and reads the plan. The driver must have been asked for a device before.
    ///
    /// # Errors
    /// [`LoadFault`] with what TensorRT said.
    pub fn open(library: &Arc<Library>, plan: Vec<u8>) -> Result<Session, LoadFault> {
        Session::runtime(library)?.read(plan)
    }

    /// Reads the plan, once: the engine and its context.
    ///
    /// # Errors
    /// [`LoadFault`] with what TensorRT said.
    pub fn read(mut self, plan: Vec<u8>) -> Result<Session, LoadFault> {
        let _loading = Loading::of(&self.callbacks.messages);
        self.callbacks.messages.clear();
        self.deserialize(plan)?;
        let slots = self.slots();
        let create = slots.create_context;
        // SAFETY: the engine is live; 0 is ExecutionContextAllocationStrategy::kSTATIC: all memory now, none later.
        self.context = unsafe { call!(self.engine, create, fn(i32) -> *mut Object, 0) };
        self.check(self.context, "createExecutionContext")?;
        let recorder: *mut Callback = &mut *self.callbacks.recorder;
        // SAFETY: the context is live, and the recorder outlives it.
        unsafe {
            call!(
                self.context,
                slots.context_set_recorder,
                fn(*mut Callback) -> (),
                recorder
            );
        }
        Ok(self)
    }

    /// Takes the plan, which ends here: TensorRT makes an engine of it and needs it no more. On a Jetson what a context takes next comes
    /// out of the same memory.
    fn deserialize(&mut self, plan: Vec<u8>) -> Result<(), LoadFault> {
        // SAFETY: the runtime is live, the slot is that of its version, and the plan lives for the length of the call.
        self.engine = unsafe {
            call!(
                self.runtime,
                self.slots().deserialize,
                fn(*const c_void, usize) -> *mut Object,
                plan.as_ptr().cast(),
                plan.len()
            )
        };
        let Err(mut fault) = self.check(self.engine, "deserializeCudaEngine") else {
            return Ok(());
        };
        if let (LoadFault::Refused { said, .. }, Err(why)) = (&mut fault, self.library.plugins()) {
            said.push_str(&format!(
                "; TensorRT's plugins are not registered ({why}): if the plan has a layer of one, install the package libnvinfer-plugin{}",
                self.library.version / 10_000
            ));
        }
        Err(fault)
    }

    /// A runtime alone: proves that the library and the driver get along.
    ///
    /// # Errors
    /// [`LoadFault`] with what TensorRT said.
    pub fn runtime(library: &Arc<Library>) -> Result<Session, LoadFault> {
        let callbacks = Callbacks::new(library.layout);
        let _loading = Loading::of(&callbacks.messages);
        // Few plans have a layer of one: what is missing is told when a plan is not read.
        drop(library.plugins());
        let (create, logger) = (library.create_runtime, Logger::of(library.layout));
        // SAFETY: the logger has the layout that this version calls and is never freed. The version given is the library's own: it
        // compares nothing else.
        let runtime = unsafe { create(logger, library.version) };
        let null = std::ptr::null_mut();
        let mut session = Session {
            context: null,
            engine: null,
            runtime,
            callbacks,
            library: Arc::clone(library),
        };
        session.check(runtime, "createInferRuntime")?;
        let recorder: *mut Callback = &mut *session.callbacks.recorder;
        // SAFETY: the runtime is live, and the recorder outlives it.
        unsafe {
            call!(
                session.runtime,
                session.slots().runtime_set_recorder,
                fn(*mut Callback) -> (),
                recorder
            );
        }
        Ok(session)
    }

    fn slots(&self) -> &'static Slots {
        Slots::of(self.library.layout)
    }

    fn check(&self, object: *mut Object, what: &'static str) -> Result<(), LoadFault> {
        if (object as usize) >= NO_OBJECT_BELOW {
            return Ok(());
        }
        Err(LoadFault::Refused {
            what,
            library: format!("{:?}", self.library),
            said: self.errors(),
        })
    }

    /// What TensorRT logs on this thread is this session's while the result lives: of every call that it may say something in.
    fn hears(&self) -> Hearing {
        Hearing::of(&self.callbacks.messages)
    }

    /// What TensorRT said that was an error.
    #[must_use]
    pub fn errors(&self) -> String {
        let said = self.callbacks.messages.errors();
        if said.is_empty() {
            "nothing".to_owned()
        } else {
            said
        }
    }

    /// Everything that TensorRT said.
    #[must_use]
    pub fn messages(&self) -> Arc<Messages> {
        Arc::clone(&self.callbacks.messages)
    }

    /// The engine's tensors, in its order.
    ///
    /// # Errors
    /// [`LoadFault`] if the engine contradicts itself.
    pub fn tensors(&self) -> Result<Vec<Io>, LoadFault> {
        let (slots, _hearing) = (self.slots(), self.hears());
        // SAFETY: the engine is live.
        let len = unsafe { call!(self.engine, slots.tensors_len, fn() -> i32,) };
        (0..len)
            .map(|index| {
                // SAFETY: the engine is live, the index in range; the string is the engine's and lives as long.
                let name = unsafe {
                    let name = call!(
                        self.engine,
                        slots.tensor_name,
                        fn(i32) -> *const c_char,
                        index
                    );
                    (!name.is_null()).then(|| CStr::from_ptr(name).to_owned())
                };
                let name =
                    name.ok_or_else(|| LoadFault::Engine(format!("tensor {index} has no name")))?;
                // SAFETY: the engine is live, the name is one of its own and lives for the length of the calls.
                let (dims, data_type, mode) = unsafe {
                    (
                        call!(
                            self.engine,
                            slots.tensor_shape,
                            fn(*const c_char) -> Dims,
                            name.as_ptr()
                        ),
                        call!(
                            self.engine,
                            slots.tensor_type,
                            fn(*const c_char) -> i32,
                            name.as_ptr()
                        ),
                        call!(
                            self.engine,
                            slots.tensor_mode,
                            fn(*const c_char) -> i32,
                            name.as_ptr()
                        ),
                    )
                };
                let contradiction = |what: String| LoadFault::Engine(format!("{name:?}: {what}"));
                let mode = match mode {
                    1 => Mode::Input,
                    2 => Mode::Output,
                    other => {
                        return Err(contradiction(format!("neither input nor output ({other})")));
                    }
                };
                let sides = usize::try_from(dims.len)
                    .ok()
                    .and_then(|len| dims.sides.get(..len));
                let shape = sides
                    .ok_or_else(|| contradiction(format!("{} dimensions", dims.len)))?
                    .to_vec();
                Ok(Io {
                    mode,
                    data_type,
                    shape,
                    name,
                })
            })
            .collect()
    }

    /// Device memory that a context takes, bytes.
    #[must_use]
    pub fn device_memory(&self) -> i64 {
        let _hearing = self.hears();
        // SAFETY: the engine is live.
        unsafe { call!(self.engine, self.slots().device_memory, fn() -> i64,) }
    }

    /// The engine's layers, as JSON, if it was built to tell.
    #[must_use]
    pub fn inspect(&self) -> Option<String> {
        let (slots, _hearing) = (self.slots(), self.hears());
        // SAFETY: the engine is live; the inspector is deleted below; its string is copied before that; 1 is
        // LayerInformationFormat::kJSON.
        unsafe {
            let inspector = call!(self.engine, slots.create_inspector, fn() -> *mut Object,);
            if (inspector as usize) < NO_OBJECT_BELOW {
                return None;
            }
            let text = call!(
                inspector,
                slots.engine_information,
                fn(i32) -> *const c_char,
                1
            );
            let text =
                (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned());
            delete(inspector);
            text
        }
    }

    /// Fixes the shape of an input that was left open.
    #[must_use]
    pub fn set_input_shape(&mut self, name: &CStr, shape: &[i64]) -> bool {
        let mut dims = Dims {
            len: shape.len() as i32,
            sides: [0; 8],
        };
        let Some(sides) = dims.sides.get_mut(..shape.len()) else {
            return false;
        };
        sides.copy_from_slice(shape);
        let _hearing = self.hears();
        // SAFETY: the context is live; name and dimensions live for the length of the call.
        unsafe {
            call!(
                self.context,
                self.slots().set_input_shape,
                fn(*const c_char, *const Dims) -> bool,
                name.as_ptr(),
                &dims
            )
        }
    }

    /// Says where on the device a tensor lies. The caller keeps it there until the session ends.
    #[must_use]
    pub fn set_address(&mut self, name: &CStr, address: u64) -> bool {
        let address = address as usize as *mut c_void;
        let _hearing = self.hears();
        // SAFETY: the context is live; TensorRT keeps the address and uses it on the device only.
        unsafe {
            call!(
                self.context,
                self.slots().set_tensor_address,
                fn(*const c_char, *mut c_void) -> bool,
                name.as_ptr(),
                address
            )
        }
    }

    /// Whether every shape follows from those of the inputs.
    #[must_use]
    pub fn shapes_known(&mut self) -> bool {
        let none: *mut *const c_char = std::ptr::null_mut();
        let _hearing = self.hears();
        // SAFETY: the context is live; with room for no names it only counts.
        unsafe {
            call!(
                self.context,
                self.slots().infer_shapes,
                fn(i32, *mut *const c_char) -> i32,
                0,
                none
            ) == 0
        }
    }

    /// Puts one inference on `stream`.
    #[must_use]
    pub fn enqueue(&mut self, stream: *mut c_void) -> bool {
        let _hearing = self.hears();
        // SAFETY: the context is live and used by this thread alone (`&mut`); the stream is live, see `cuda::Stream`.
        unsafe {
            call!(
                self.context,
                self.slots().enqueue,
                fn(*mut c_void) -> bool,
                stream
            )
        }
    }

    /// Has each layer's time told from now on. Costs a synchronisation of each layer: for looking, not for running.
    pub fn profile(&mut self) -> Arc<Messages> {
        let _hearing = self.hears();
        let profiler: *mut Callback = &mut *self.callbacks.profiler;
        // SAFETY: the context is live, and the profiler outlives it.
        unsafe {
            call!(
                self.context,
                self.slots().set_profiler,
                fn(*mut Callback) -> (),
                profiler
            );
        }
        Arc::clone(&self.callbacks.times)
    }
}
