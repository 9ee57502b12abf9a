// SPDX-License-Identifier: Apache-2.0
//! ONNX Runtime's C interface, its library found at run time. What is unsafe about it is
//! here and in `session.rs`.
//!
//! The table of functions is `ort-sys`'s transcription of `onnxruntime_c_api.h`, which only ever grows at its end; it is
//! asked for as of version 17, so any library from 1.17 on gives it.
#![allow(unsafe_code)] // A C library without a header.

use crate::config::OrtProvider;
use crate::engine::ort::OrtFault;
use crate::engine::ort::crew::{self, Crew};
use crate::engine::ort::find::{VARIABLE, candidates};
use crate::loader;
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use ort_sys::{OrtApi, OrtApiBase, OrtEnv, OrtLoggingLevel, OrtSessionOptions, OrtStatusPtr};
use std::ffi::{CStr, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// Version of the interface that is asked for: that of ONNX Runtime 1.17.
const VERSION: u32 = 17;

/// "0" switches TF32 off in all of NVIDIA's libraries.
const TF32_VARIABLE: &str = "NVIDIA_TF32_OVERRIDE";

/// A folder that is not there: weights outside the file, which no hash covers, are not found.
const NO_FOLDER: &CStr = c"/dev/null/none";

/// The library, open for the life of the process: it has threads and handlers that must not lose their code.
pub struct Library {
    pub(super) api: &'static OrtApi,
    pub(super) env: NonNull<OrtEnv>,
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
                Err(error) => {
                    let words = loader::words(&path, &error);
                    looked.push(format!("{}: {words}", path.display()));
                }
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

    pub(super) fn done(&self, call: &'static str, status: OrtStatusPtr) -> Result<(), OrtFault> {
        done(self.api, call, status)
    }
}

/// A status that is none is success; else its words.
pub(super) fn done(api: &OrtApi, call: &'static str, status: OrtStatusPtr) -> Result<(), OrtFault> {
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
    pub(super) library: Arc<Library>,
    pub(super) options: *mut OrtSessionOptions,
    pub(super) crew: Arc<Crew>,
}

impl Drop for Options {
    fn drop(&mut self) {
        // SAFETY: made by `new`, given back once; a session copies what it needs.
        unsafe { (self.library.api.ReleaseSessionOptions)(self.options) };
    }
}

impl Options {
    /// For so many threads. Threads sleep while they wait: a core that spins is one that control does not have. `weights` is
    /// the folder of the files that the graph's weights are in, if they are not in itself.
    ///
    /// # Errors
    /// [`OrtFault`].
    pub fn new(
        library: &Arc<Library>,
        threads: usize,
        weights: Option<&CStr>,
    ) -> Result<Options, OrtFault> {
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
                weights.unwrap_or(NO_FOLDER),
            ),
        ] {
            let (key, value) = (key.as_ptr(), value.as_ptr());
            // SAFETY: as above; both texts have an end and are copied.
            let status = unsafe { (api.AddSessionConfigEntry)(options, key, value) };
            library.done("AddSessionConfigEntry", status)?;
        }
        Ok(made)
    }

    /// Asks for a GPU's provider. It is the first that is asked that takes each node. What is to be said of it, if it is granted.
    ///
    /// Left to itself it multiplies floats of 32 bits as TF32, with 10 bits of mantissa, where the GPU can: 32 bits are asked for.
    ///
    /// # Errors
    /// [`OrtFault`]: the library was built without it, or what it needs is not here.
    pub fn ask(&mut self, provider: OrtProvider) -> Result<Option<String>, OrtFault> {
        let api = self.library.api;
        match provider {
            OrtProvider::Cuda => {
                let mut wanted = null_mut();
                // SAFETY: writes a pointer that is given back below.
                let status = unsafe { (api.CreateCUDAProviderOptions)(&mut wanted) };
                self.library.done("CreateCUDAProviderOptions", status)?;
                let (key, value) = (c"use_tf32".as_ptr(), c"0".as_ptr());
                // SAFETY: the wishes are live; one key and one value, both texts with an end, which are copied.
                let status = unsafe { (api.UpdateCUDAProviderOptions)(wanted, &key, &value, 1) };
                // Known since 1.18; and where the provider itself is not to be had, this fails first.
                let switched = self.library.done("UpdateCUDAProviderOptions", status);
                // SAFETY: options and wishes are live; the wishes are copied.
                let asked = unsafe {
                    let status =
                        (api.SessionOptionsAppendExecutionProvider_CUDA_V2)(self.options, wanted);
                    (api.ReleaseCUDAProviderOptions)(wanted);
                    status
                };
                self.library.done("AppendExecutionProvider_CUDA", asked)?;
                let remark = |why: OrtFault| format!("cuda keeps TF32 for 32-bit products: {why}");
                Ok(switched.err().map(remark))
            }
            OrtProvider::TensorRt => {
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
                self.library
                    .done("AppendExecutionProvider_TensorRT", asked)?;
                // It has no option for it, but NVIDIA's libraries read this.
                let off = std::env::var_os(TF32_VARIABLE).is_some_and(|value| value == "0");
                let remark = format!(
                    "tensorrt keeps TF32 for 32-bit products: {TF32_VARIABLE}=0 in the environment switches it off"
                );
                Ok((!off).then_some(remark))
            }
        }
    }
}
