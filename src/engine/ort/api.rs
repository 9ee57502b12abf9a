// SPDX-License-Identifier: Apache-2.0
//! ONNX Runtime's C interface, its library found at run time. Everything unsafe about it is here.
//!
//! The table of functions is `ort-sys`'s transcription of `onnxruntime_c_api.h`, which only ever grows at its end; it is
//! asked for as of version 17, so any library from 1.17 on gives it. Inputs and outputs are bound to the caller's own
//! memory, and bound again only when the caller shows another piece of it: a run allocates nothing of ours.
#![allow(unsafe_code)] // A C library without a header.

use crate::engine::loader_words;
use crate::engine::ort::crew::{self, Crew};
use crate::engine::ort::find::{VARIABLE, candidates};
use crate::engine::ort::{OrtFault, Provider};
use crate::ports::{Dtype, EngineFault, StageSpec, Tensor, TensorSpec};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use ort_sys::{
    ONNXTensorElementDataType as Element, OrtAllocatorType, OrtApi, OrtApiBase, OrtEnv,
    OrtIoBinding, OrtLoggingLevel, OrtMemType, OrtMemoryInfo, OrtSession, OrtSessionOptions,
    OrtStatusPtr, OrtTypeInfo, OrtValue,
};
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

/// Version of the interface that is asked for: that of ONNX Runtime 1.17.
const VERSION: u32 = 17;

/// A folder that is not there: weights outside the file, which no hash covers, are not found.
const NO_FOLDER: &CStr = c"/dev/null/none";

/// The library, open for the life of the process: it has threads and handlers that must not lose their code.
pub struct Library {
    api: &'static OrtApi,
    env: NonNull<OrtEnv>,
    /// Its own word.
    pub version: String,
    /// Where it was found.
    pub path: PathBuf,
}

// SAFETY: the table is constant, and an environment may be used from any thread (onnxruntime_c_api.h).
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ONNX Runtime {} at {}",
            self.version,
            self.path.display()
        )
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // SAFETY: made by `open`, given back once; sessions hold an Arc of this.
        unsafe { (self.api.ReleaseEnv)(self.env.as_ptr()) };
    }
}

impl Library {
    /// Opens the library that `named` names, or else the first that is found.
    ///
    /// # Errors
    /// [`OrtFault`]: none found, not ONNX Runtime, too old.
    pub fn open(named: Option<&Path>) -> Result<Arc<Library>, OrtFault> {
        let mut looked = Vec::new();
        for path in candidates(named) {
            // SAFETY: opening runs the library's initialisers. It is ONNX Runtime by its name, or what the user names as
            // such; whoever can write that can run code here anyway.
            match unsafe { Handle::open(Some(&path), RTLD_NOW | RTLD_LOCAL) } {
                Ok(handle) => return Library::of(handle, path).map(Arc::new),
                Err(error) => looked.push(format!("{}: {}", path.display(), loader_words(&error))),
            }
        }
        Err(OrtFault::Missing {
            looked: looked.join("; "),
            variable: VARIABLE,
        })
    }

    fn of(handle: Handle, path: PathBuf) -> Result<Library, OrtFault> {
        let at = || path.display().to_string();
        // SAFETY: the signature is that of onnxruntime_c_api.h for this name, which every version exports.
        let base = unsafe {
            handle.get::<unsafe extern "system" fn() -> *const OrtApiBase>(b"OrtGetApiBase\0")
        }
        .map(|symbol| *symbol)
        .map_err(|_| OrtFault::Foreign { at: at() })?;
        std::mem::forget(handle);
        // SAFETY: takes nothing, gives a pointer to a constant of the library, which is never unloaded, or null.
        let base = unsafe { base().as_ref() }.ok_or_else(|| OrtFault::Foreign { at: at() })?;
        // SAFETY: a constant text with an end, and a constant table of at least the length of the version asked for, or
        // null if the library is older.
        let (version, api) = unsafe {
            let version = (base.GetVersionString)();
            let version = CStr::from_ptr(version).to_string_lossy().into_owned();
            (version, (base.GetApi)(VERSION).as_ref())
        };
        let Some(api) = api else {
            return Err(OrtFault::Old { at: at(), version });
        };
        let mut env = null_mut();
        // SAFETY: the callback has the signature asked for and lives for ever; the name has an end; writes a pointer that
        // is given back when the value is dropped.
        let status = unsafe {
            (api.CreateEnvWithCustomLogger)(
                hear,
                null_mut(),
                OrtLoggingLevel::ORT_LOGGING_LEVEL_WARNING,
                c"tendon".as_ptr(),
                &mut env,
            )
        };
        done(api, "CreateEnv", status)?;
        let env = NonNull::new(env).ok_or(OrtFault::Call {
            call: "CreateEnv",
            said: "no environment".into(),
        })?;
        Ok(Library {
            api,
            env,
            version,
            path,
        })
    }

    /// What it was built with, by its own names.
    ///
    /// # Errors
    /// [`OrtFault`].
    pub fn providers(&self) -> Result<Vec<String>, OrtFault> {
        let (mut names, mut count) = (null_mut(), 0);
        // SAFETY: writes a list of `count` texts with an end, which is given back below.
        let status = unsafe { (self.api.GetAvailableProviders)(&mut names, &mut count) };
        done(self.api, "GetAvailableProviders", status)?;
        let list = (0..usize::try_from(count).unwrap_or(0))
            .map(|at| {
                // SAFETY: within the list of `count`.
                unsafe { CStr::from_ptr(*names.add(at)) }
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        // SAFETY: what was given above, once.
        let status = unsafe { (self.api.ReleaseAvailableProviders)(names, count) };
        done(self.api, "ReleaseAvailableProviders", status)?;
        Ok(list)
    }

    fn done(&self, call: &'static str, status: OrtStatusPtr) -> Result<(), OrtFault> {
        done(self.api, call, status)
    }
}

/// A status that is none is success; else its words.
fn done(api: &OrtApi, call: &'static str, status: OrtStatusPtr) -> Result<(), OrtFault> {
    if status.0.is_null() {
        return Ok(());
    }
    // SAFETY: a live status, read before it is given back, once.
    let said = unsafe {
        let said = CStr::from_ptr((api.GetErrorMessage)(status.0));
        let said = said.to_string_lossy().into_owned();
        (api.ReleaseStatus)(status.0);
        said
    };
    Err(OrtFault::Call { call, said })
}

/// The library's words, into our log. It may call from any thread.
unsafe extern "system" fn hear(
    _: *mut c_void,
    severity: OrtLoggingLevel,
    _: *const c_char,
    _: *const c_char,
    _: *const c_char,
    message: *const c_char,
) {
    if message.is_null() {
        return;
    }
    // SAFETY: a text with an end, for the length of the call.
    let words = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    match severity {
        OrtLoggingLevel::ORT_LOGGING_LEVEL_ERROR | OrtLoggingLevel::ORT_LOGGING_LEVEL_FATAL => {
            log::warn!("ONNX Runtime: {words}");
        }
        // Most of its warnings are about graphs that could be written otherwise.
        _ => log::debug!("ONNX Runtime: {words}"),
    }
}

/// Options of a session; given back when it is made.
pub struct Options {
    library: Arc<Library>,
    options: *mut OrtSessionOptions,
    crew: Arc<Crew>,
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `new`, given back once; a session copies what it needs.
        unsafe { (self.library.api.ReleaseSessionOptions)(self.options) };
    }
}

impl Options {
    /// For so many threads. Threads sleep while they wait: a core that spins is one that control does not have.
    ///
    /// # Errors
    /// [`OrtFault`].
    pub fn new(library: &Arc<Library>, threads: usize) -> Result<Options, OrtFault> {
        let api = library.api;
        let mut options = null_mut();
        // SAFETY: writes a pointer that is given back when the value is dropped.
        let status = unsafe { (api.CreateSessionOptions)(&mut options) };
        library.done("CreateSessionOptions", status)?;
        let made = Options {
            library: Arc::clone(library),
            options,
            crew: Arc::default(),
        };
        let threads = i32::try_from(threads).unwrap_or(1);
        let crew = Arc::as_ptr(&made.crew).cast_mut().cast();
        // SAFETY: the options are live; the two functions are those for this crew, which the session keeps for longer
        // than its threads live.
        let (asked, given, back) = unsafe {
            (
                (api.SessionOptionsSetCustomCreateThreadFn)(options, Some(crew::create)),
                (api.SessionOptionsSetCustomThreadCreationOptions)(options, crew),
                (api.SessionOptionsSetCustomJoinThreadFn)(options, Some(crew::join)),
            )
        };
        library.done("SetCustomCreateThreadFn", asked)?;
        library.done("SetCustomThreadCreationOptions", given)?;
        library.done("SetCustomJoinThreadFn", back)?;
        // SAFETY: the options are live.
        let status = unsafe { (api.SetIntraOpNumThreads)(options, threads) };
        library.done("SetIntraOpNumThreads", status)?;
        // SAFETY: as above.
        let status = unsafe { (api.SetInterOpNumThreads)(options, 1) };
        library.done("SetInterOpNumThreads", status)?;
        for (key, value) in [
            (c"session.intra_op.allow_spinning", c"0"),
            (
                c"session.model_external_initializers_file_folder_path",
                NO_FOLDER,
            ),
        ] {
            // SAFETY: as above; both texts have an end and are copied.
            let status =
                unsafe { (api.AddSessionConfigEntry)(options, key.as_ptr(), value.as_ptr()) };
            library.done("AddSessionConfigEntry", status)?;
        }
        Ok(made)
    }

    /// Asks for a GPU's provider. It is the first that is asked that takes each node.
    ///
    /// # Errors
    /// [`OrtFault`]: the library was built without it, or what it needs is not here.
    pub fn ask(&mut self, provider: Provider) -> Result<(), OrtFault> {
        let api = self.library.api;
        match provider {
            Provider::Cuda => {
                let mut wanted = null_mut();
                // SAFETY: writes a pointer that is given back below.
                let status = unsafe { (api.CreateCUDAProviderOptions)(&mut wanted) };
                self.library.done("CreateCUDAProviderOptions", status)?;
                // SAFETY: options and wishes are live; the wishes are copied.
                let asked = unsafe {
                    let status =
                        (api.SessionOptionsAppendExecutionProvider_CUDA_V2)(self.options, wanted);
                    (api.ReleaseCUDAProviderOptions)(wanted);
                    status
                };
                self.library.done("AppendExecutionProvider_CUDA", asked)
            }
            Provider::TensorRt => {
                let mut wanted = null_mut();
                // SAFETY: writes a pointer that is given back below.
                let status = unsafe { (api.CreateTensorRTProviderOptions)(&mut wanted) };
                self.library.done("CreateTensorRTProviderOptions", status)?;
                // SAFETY: as above.
                let asked = unsafe {
                    let status = (api.SessionOptionsAppendExecutionProvider_TensorRT_V2)(
                        self.options,
                        wanted,
                    );
                    (api.ReleaseTensorRTProviderOptions)(wanted);
                    status
                };
                self.library.done("AppendExecutionProvider_TensorRT", asked)
            }
        }
    }
}

/// One tensor of a session and the memory that it is bound to.
struct Slot {
    name: CString,
    dtype: Dtype,
    shape: Vec<i64>,
    values: usize,
    /// The value that is bound; null before the first.
    value: *mut OrtValue,
    /// Where the memory lay that it was made of.
    bound: usize,
    /// Of a tensor of 64-bit integers, which we carry as 32-bit ones.
    wide: Vec<i64>,
}

impl Slot {
    fn new(spec: &TensorSpec) -> Result<Slot, OrtFault> {
        let name = CString::new(spec.name.as_str()).map_err(|_| OrtFault::Graph {
            found: format!("{:?}: a name with a zero in it", spec.name),
        })?;
        Ok(Slot {
            name,
            dtype: spec.dtype,
            shape: spec.shape.iter().map(|side| *side as i64).collect(),
            values: spec.values(),
            value: null_mut(),
            bound: 0,
            wide: match spec.dtype {
                Dtype::I64 => vec![0; spec.values()],
                Dtype::F32 | Dtype::I32 => Vec::new(),
            },
        })
    }

    fn fits(&self, tensor: &Tensor) -> bool {
        match (tensor, self.dtype) {
            (Tensor::F32(values), Dtype::F32) => values.len() == self.values,
            (Tensor::I32(values), Dtype::I32 | Dtype::I64) => values.len() == self.values,
            _ => false,
        }
    }
}

/// What a tensor's numbers are in this library.
fn element(dtype: Dtype) -> (Element, usize) {
    match dtype {
        Dtype::F32 => (Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4),
        Dtype::I32 => (Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, 4),
        Dtype::I64 => (Element::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8),
    }
}

/// A graph, loaded, with its tensors.
pub struct Session {
    session: *mut OrtSession,
    binding: *mut OrtIoBinding,
    memory: *mut OrtMemoryInfo,
    inputs: Vec<Slot>,
    outputs: Vec<Slot>,
    /// A provider with memory of its own copies an input when it is bound, so each is bound before each run.
    binds_always: bool,
    library: Arc<Library>,
    /// The session's threads are made with a pointer to it.
    crew: Arc<Crew>,
}

// SAFETY: a session may be run from any thread, a binding from one at a time; both are owned by this value, whose methods
// that use them take it mutably.
unsafe impl Send for Session {}

impl Drop for Session {
    fn drop(&mut self) {
        let api = self.library.api;
        // SAFETY: each was made for this value and is given back once; what holds the others goes first. Null is allowed.
        unsafe {
            if !self.binding.is_null() {
                (api.ReleaseIoBinding)(self.binding);
            }
            for slot in self.inputs.iter().chain(&self.outputs) {
                if !slot.value.is_null() {
                    (api.ReleaseValue)(slot.value);
                }
            }
            if !self.memory.is_null() {
                (api.ReleaseMemoryInfo)(self.memory);
            }
            if !self.session.is_null() {
                (api.ReleaseSession)(self.session);
            }
        }
    }
}

impl Session {
    /// Loads a graph and compares its tensors with `spec`. `elsewhere` says that a provider with memory of its own may
    /// take a part of it.
    ///
    /// # Errors
    /// [`OrtFault`].
    pub fn load(
        graph: &[u8],
        spec: &StageSpec,
        options: Options,
        elsewhere: bool,
    ) -> Result<Session, OrtFault> {
        let library = Arc::clone(&options.library);
        let api = library.api;
        let slots = |specs: &[TensorSpec]| -> Result<Vec<Slot>, OrtFault> {
            specs.iter().map(Slot::new).collect()
        };
        let mut made = Session {
            session: null_mut(),
            binding: null_mut(),
            memory: null_mut(),
            inputs: slots(&spec.inputs)?,
            outputs: slots(&spec.outputs)?,
            binds_always: elsewhere,
            library,
            crew: Arc::clone(&options.crew),
        };
        // SAFETY: the bytes are copied or parsed within the call; environment and options are live; writes a pointer
        // that `made` gives back.
        let status = unsafe {
            (api.CreateSessionFromArray)(
                made.library.env.as_ptr(),
                graph.as_ptr().cast(),
                graph.len(),
                options.options,
                &mut made.session,
            )
        };
        made.library.done("CreateSession", status)?;
        made.agree(spec)?;
        // SAFETY: the session is live; writes a pointer that `made` gives back.
        let status = unsafe { (api.CreateIoBinding)(made.session, &mut made.binding) };
        made.library.done("CreateIoBinding", status)?;
        // SAFETY: writes a pointer that `made` gives back.
        let status = unsafe {
            (api.CreateCpuMemoryInfo)(
                OrtAllocatorType::OrtDeviceAllocator,
                OrtMemType::OrtMemTypeDefault,
                &mut made.memory,
            )
        };
        made.library.done("CreateCpuMemoryInfo", status)?;
        Ok(made)
    }

    /// Every difference between the graph's tensors and the promised ones.
    fn agree(&self, spec: &StageSpec) -> Result<(), OrtFault> {
        let api = self.library.api;
        let mut wrong = Vec::new();
        for (kind, promised, count, name, info) in [
            (
                "input",
                &spec.inputs,
                api.SessionGetInputCount,
                api.SessionGetInputName,
                api.SessionGetInputTypeInfo,
            ),
            (
                "output",
                &spec.outputs,
                api.SessionGetOutputCount,
                api.SessionGetOutputName,
                api.SessionGetOutputTypeInfo,
            ),
        ] {
            let mut total = 0;
            // SAFETY: the session is live; writes a number.
            let status = unsafe { count(self.session, &mut total) };
            self.library.done("SessionGetCount", status)?;
            let mut seen: Vec<String> = Vec::with_capacity(total);
            for at in 0..total {
                let mut text = null_mut();
                // SAFETY: `at` is below the count; writes a text of the allocator's, given back below.
                let status = unsafe { name(self.session, at, self.allocator()?, &mut text) };
                self.library.done("SessionGetName", status)?;
                // SAFETY: a text with an end, of the allocator that it is given back to.
                let found = unsafe {
                    let found = CStr::from_ptr(text).to_string_lossy().into_owned();
                    let status = (api.AllocatorFree)(self.allocator()?, text.cast());
                    self.library.done("AllocatorFree", status)?;
                    found
                };
                let mut about = null_mut();
                // SAFETY: as above; what is written is given back within `shape_of`.
                let status = unsafe { info(self.session, at, &mut about) };
                self.library.done("SessionGetTypeInfo", status)?;
                let (element_found, sides) = self.shape_of(about)?;
                match promised.iter().find(|spec| spec.name == found) {
                    None => wrong.push(format!(
                        "{kind} \"{found}\": expected in the manifest, found only in the graph"
                    )),
                    Some(spec) => {
                        let fits = sides.len() == spec.shape.len()
                            && sides
                                .iter()
                                .zip(&spec.shape)
                                .all(|(side, want)| *side < 0 || *side == *want as i64);
                        if element_found != element(spec.dtype).0 as i32 || !fits {
                            wrong.push(format!(
                                "{kind} \"{found}\": expected {} {:?}, found type {element_found} of onnxruntime_c_api.h and shape {sides:?}",
                                spec.dtype, spec.shape
                            ));
                        }
                    }
                }
                seen.push(found);
            }
            for spec in promised {
                if !seen.contains(&spec.name) {
                    wrong.push(format!(
                        "{kind} \"{}\": expected in the graph, found {seen:?}",
                        spec.name
                    ));
                }
            }
        }
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(OrtFault::Graph {
                found: wrong.join("; "),
            })
        }
    }

    fn allocator(&self) -> Result<*mut ort_sys::OrtAllocator, OrtFault> {
        let mut allocator = null_mut();
        // SAFETY: writes a pointer to the library's own, which is never given back.
        let status = unsafe { (self.library.api.GetAllocatorWithDefaultOptions)(&mut allocator) };
        self.library
            .done("GetAllocatorWithDefaultOptions", status)?;
        Ok(allocator)
    }

    /// Number of the element type and sides, -1 where they are symbolic; 0 and none for what is no tensor. Gives the
    /// description back.
    fn shape_of(&self, about: *mut OrtTypeInfo) -> Result<(i32, Vec<i64>), OrtFault> {
        let api = self.library.api;
        let (mut tensor, mut sides) = (null(), Vec::new());
        // Read as a number: a type that this table does not know must not become a value of its enum.
        let mut kind = 0_i32;
        let mut read = || -> Result<(), OrtFault> {
            // SAFETY: the description is live; each call writes one pointer, number or as many sides as there is room
            // for; the enum is 32 bits wide.
            unsafe {
                let status = (api.CastTypeInfoToTensorInfo)(about, &mut tensor);
                self.library.done("CastTypeInfoToTensorInfo", status)?;
                if tensor.is_null() {
                    return Ok(());
                }
                let status = (api.GetTensorElementType)(tensor, (&raw mut kind).cast());
                self.library.done("GetTensorElementType", status)?;
                let mut count = 0;
                let status = (api.GetDimensionsCount)(tensor, &mut count);
                self.library.done("GetDimensionsCount", status)?;
                sides = vec![0; count];
                let status = (api.GetDimensions)(tensor, sides.as_mut_ptr(), count);
                self.library.done("GetDimensions", status)
            }
        };
        let result = read();
        // SAFETY: given back once; the tensor's description is a part of it.
        unsafe { (api.ReleaseTypeInfo)(about) };
        result.map(|()| (kind, sides))
    }

    /// One run on the caller's memory.
    ///
    /// # Errors
    /// [`EngineFault`].
    pub fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        let api = self.library.api;
        if inputs.len() != self.inputs.len() || outputs.len() != self.outputs.len() {
            return Err(EngineFault(format!(
                "expected {} inputs and {} outputs, found {} and {}",
                self.inputs.len(),
                self.outputs.len(),
                inputs.len(),
                outputs.len()
            )));
        }
        self.crew.follow();
        for (slot, tensor) in self.inputs.iter_mut().zip(inputs) {
            if !slot.fits(tensor) {
                return Err(misfit("input", slot));
            }
            let memory = match tensor {
                Tensor::F32(values) => values.as_ptr().cast::<c_void>().cast_mut(),
                Tensor::I32(values) if slot.wide.is_empty() => {
                    values.as_ptr().cast::<c_void>().cast_mut()
                }
                Tensor::I32(values) => {
                    for (wide, value) in slot.wide.iter_mut().zip(values) {
                        *wide = i64::from(*value);
                    }
                    slot.wide.as_mut_ptr().cast()
                }
            };
            let fresh = point(api, self.memory, slot, memory).map_err(said)?;
            if fresh || self.binds_always {
                // SAFETY: binding, name and value are live; the value is shared, and its memory is the caller's or the
                // slot's: it is read between here and the end of this call only, as every later run is shown memory anew.
                let status =
                    unsafe { (api.BindInput)(self.binding, slot.name.as_ptr(), slot.value) };
                done(api, "BindInput", status).map_err(said)?;
            }
        }
        for (slot, tensor) in self.outputs.iter_mut().zip(outputs.iter_mut()) {
            if !slot.fits(tensor) {
                return Err(misfit("output", slot));
            }
            let memory = match tensor {
                Tensor::F32(values) => values.as_mut_ptr().cast::<c_void>(),
                Tensor::I32(values) if slot.wide.is_empty() => values.as_mut_ptr().cast(),
                Tensor::I32(_) => slot.wide.as_mut_ptr().cast(),
            };
            if point(api, self.memory, slot, memory).map_err(said)? {
                // SAFETY: as for inputs; the memory is lent mutably for this call.
                let status =
                    unsafe { (api.BindOutput)(self.binding, slot.name.as_ptr(), slot.value) };
                done(api, "BindOutput", status).map_err(said)?;
            }
        }
        // SAFETY: session and binding are live, and everything bound is memory that was shown in this very call; no
        // options means the default ones.
        let status = unsafe { (api.RunWithBinding)(self.session, null(), self.binding) };
        done(api, "Run", status).map_err(said)?;
        for (slot, tensor) in self.outputs.iter().zip(outputs) {
            if let (Tensor::I32(values), false) = (tensor, slot.wide.is_empty()) {
                for (value, wide) in values.iter_mut().zip(&slot.wide) {
                    *value = i32::try_from(*wide).map_err(|_| {
                        EngineFault(format!("{:?}: {wide} does not fit into 32 bits", slot.name))
                    })?;
                }
            }
        }
        Ok(())
    }
}

fn said(fault: OrtFault) -> EngineFault {
    EngineFault(fault.to_string())
}

fn misfit(kind: &str, slot: &Slot) -> EngineFault {
    EngineFault(format!(
        "{kind} {:?}: expected {} {:?}, found another tensor",
        slot.name, slot.dtype, slot.shape
    ))
}

/// Makes the slot's value stand for this memory; whether it is another value than before.
fn point(
    api: &OrtApi,
    info: *const OrtMemoryInfo,
    slot: &mut Slot,
    memory: *mut c_void,
) -> Result<bool, OrtFault> {
    if !slot.value.is_null() && slot.bound == memory.addr() {
        return Ok(false);
    }
    let (kind, size) = element(slot.dtype);
    let mut value = null_mut();
    // SAFETY: the memory holds as many numbers of this type, which the caller has compared; it is not read here, and
    // writes a pointer that the session gives back.
    let status = unsafe {
        (api.CreateTensorWithDataAsOrtValue)(
            info,
            memory,
            slot.values * size,
            slot.shape.as_ptr(),
            slot.shape.len(),
            kind,
            &mut value,
        )
    };
    done(api, "CreateTensorWithDataAsOrtValue", status)?;
    if !slot.value.is_null() {
        // SAFETY: ours, given back once; the binding holds a share of its own.
        unsafe { (api.ReleaseValue)(slot.value) };
    }
    slot.value = value;
    slot.bound = memory.addr();
    Ok(true)
}
