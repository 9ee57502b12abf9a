// SPDX-License-Identifier: Apache-2.0
//! A graph in ONNX Runtime. Inputs and outputs are bound to the caller's own memory, and bound again only when the caller
//! shows another piece of it: a run allocates nothing of ours.
#![allow(unsafe_code)] // A C library without a header.

use crate::engine::ort::OrtFault;
use crate::engine::ort::api::{Library, Options, done};
use crate::engine::ort::crew::Crew;
use crate::ports::{Dtype, StageSpec, Tensor, TensorSpec};
use ort_sys::{
    ONNXTensorElementDataType as Element, OrtAllocatorType, OrtApi, OrtIoBinding, OrtMemType,
    OrtMemoryInfo, OrtSession, OrtStatusPtr, OrtTypeInfo, OrtValue,
};
use std::ffi::{CStr, CString, c_void};
use std::ptr::{null, null_mut};
use std::sync::Arc;

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
    /// [`OrtFault`]: a tensor that does not fit, or what the library refused.
    pub fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), OrtFault> {
        let api = self.library.api;
        if inputs.len() != self.inputs.len() || outputs.len() != self.outputs.len() {
            let found = format!(
                "expected {} inputs and {} outputs, found {} and {}",
                self.inputs.len(),
                self.outputs.len(),
                inputs.len(),
                outputs.len()
            );
            return Err(OrtFault::Tensor { found });
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
            let fresh = point(api, self.memory, slot, memory)?;
            if fresh || self.binds_always {
                let name = slot.name.as_ptr();
                // SAFETY: binding, name and value are live; the value is shared, and its memory is the caller's or the
                // slot's: it is read between here and the end of this call only, as every later run is shown memory anew.
                let status = unsafe { (api.BindInput)(self.binding, name, slot.value) };
                taken(api, "BindInput", status, slot)?;
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
            if point(api, self.memory, slot, memory)? {
                let name = slot.name.as_ptr();
                // SAFETY: as for inputs; the memory is lent mutably for this call.
                let status = unsafe { (api.BindOutput)(self.binding, name, slot.value) };
                taken(api, "BindOutput", status, slot)?;
            }
        }
        // SAFETY: session and binding are live, and everything bound is memory that was shown in this very call; no
        // options means the default ones.
        let status = unsafe { (api.RunWithBinding)(self.session, null(), self.binding) };
        done(api, "Run", status)?;
        for (slot, tensor) in self.outputs.iter().zip(outputs) {
            if let (Tensor::I32(values), false) = (tensor, slot.wide.is_empty()) {
                for (value, wide) in values.iter_mut().zip(&slot.wide) {
                    *value = i32::try_from(*wide).map_err(|_| OrtFault::Tensor {
                        found: format!("{:?}: {wide} does not fit into 32 bits", slot.name),
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// What is not bound is bound anew by the next run: its value must not count as the one that is.
fn taken(
    api: &OrtApi,
    call: &'static str,
    status: OrtStatusPtr,
    slot: &mut Slot,
) -> Result<(), OrtFault> {
    let result = done(api, call, status);
    if result.is_err() {
        slot.bound = 0;
    }
    result
}

fn misfit(kind: &str, slot: &Slot) -> OrtFault {
    let (name, dtype, shape) = (&slot.name, slot.dtype, &slot.shape);
    OrtFault::Tensor {
        found: format!("{kind} {name:?}: expected {dtype} {shape:?}, found another tensor"),
    }
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
