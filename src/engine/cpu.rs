// SPDX-License-Identifier: Apache-2.0
//! The CPU engine: an ONNX graph run by `rten`, pure Rust, no system library.
//!
//! Loads a file against what the bundle promises, and refuses it in words when a tensor differs. Inputs are lent to
//! the graph as views, outputs are copied into the caller's tensors.
//!
//! `rten` allocates inside its own run call (about 120 times for a small policy) and computes on threads of its own.
//! Those are made on the first run of a thread, so that they inherit *its* priority and processors: made at load, they
//! would compute at the priority of start-up while the real-time thread waits for them.
//!
//! Not here: what the numbers mean, and hashes (`policy`). A hostile graph can ask for any amount of memory or time;
//! the hash says who made it, not that it is kind.

use crate::onnx;
use crate::ports::{Dtype, Engine, EngineFault, StageSpec, Tensor, TensorSpec};
use rten::{
    DataType, Dimension, Model, ModelOptions, NodeId, RunOptions, ThreadPool, Value, ValueOrView,
    ValueType, ValueView,
};
use rten_tensor::prelude::*;
use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::ThreadId;

/// Largest ONNX file that is read unless told otherwise, and largest of the files its weights are in: more than a CPU runs in
/// any time.
pub const FILE_BYTES_MAX: u64 = 4 << 30;

/// More compute threads than this no robot's computer has; beyond it is a slip of the finger.
const THREADS_MAX: usize = 64;

/// How a graph is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads that compute, 1 or more. A small policy is no faster with two.
    pub threads: usize,
    /// A larger file is refused before it is read.
    pub file_bytes_max: u64,
}

impl Default for CpuOptions {
    fn default() -> Self {
        CpuOptions {
            threads: 1,
            file_bytes_max: FILE_BYTES_MAX,
        }
    }
}

/// One stage, loaded and proven by one run on zeros.
pub struct CpuEngine {
    model: Model,
    spec: StageSpec,
    input_ids: Vec<NodeId>,
    output_ids: Vec<NodeId>,
    threads: usize,
    /// The compute threads, and for whom they were made.
    crew: Option<(ThreadId, RunOptions)>,
}

impl core::fmt::Debug for CpuEngine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CpuEngine")
            .field("spec", &self.spec)
            .finish_non_exhaustive()
    }
}

impl CpuEngine {
    /// Reads `path`, compares its tensors with `spec` and runs it once on zeros.
    ///
    /// Weights outside the file are taken from beside it ([`onnx::outside`]); who says which file it is vouches for them.
    ///
    /// # Errors
    /// [`EngineFault`] names the file and everything that differs: missing, larger than allowed, truncated, not ONNX,
    /// an operator that `rten` lacks, a tensor of another name, type or shape, a first run that fails.
    pub fn load(
        path: &Path,
        spec: &StageSpec,
        options: CpuOptions,
    ) -> Result<CpuEngine, EngineFault> {
        let fault = |text: String| EngineFault(format!("{}: {text}", path.display()));
        // rten would compute it in 32 bits and say nothing: right, and no proof of what others make of it.
        if onnx::has_halves(path).is_ok_and(|has| has) {
            let words = "expected floats of 32 bits, which is what the engine \"cpu\" computes in, found some of 16: run it on \"tensorrt\" or \
                         \"ort\", or ask for the precision \"fp32\"";
            return Err(fault(words.into()));
        }
        let (loader, bytes) = read_whole(path, options.file_bytes_max).map_err(fault)?;
        // A graph is a program written by somebody else. rten promises memory safety for a bad one, not the absence
        // of panics; at load, where nothing moves yet, a panic must become a message. Not so in `run`: a graph that
        // panics after it passed the same shapes here is a broken invariant, and the death of the inference thread
        // has a defined reaction (the chunk runs out, the robot holds).
        let loaded = catch_unwind(AssertUnwindSafe(|| {
            CpuEngine::build(loader, bytes, spec, options)
        }));
        match loaded {
            Ok(result) => result.map_err(fault),
            Err(_) => Err(fault(
                "expected an ONNX graph, found one on which rten panics".into(),
            )),
        }
    }

    fn build(
        mut loader: ModelOptions,
        bytes: Vec<u8>,
        spec: &StageSpec,
        options: CpuOptions,
    ) -> Result<CpuEngine, String> {
        let length = bytes.len();
        let model = loader
            .prepack_weights(true)
            .load(bytes)
            .map_err(|error| {
                format!("expected a whole ONNX file, found {length} bytes that cannot be read (truncated, or not ONNX): {error}")
            })?;
        let mut wrong = Vec::new();
        let input_ids = match_tensors(&model, "input", model.input_ids(), &spec.inputs, &mut wrong);
        let output_ids = match_tensors(
            &model,
            "output",
            model.output_ids(),
            &spec.outputs,
            &mut wrong,
        );
        if !wrong.is_empty() {
            return Err(wrong.join("; "));
        }
        let mut engine = CpuEngine {
            model,
            spec: spec.clone(),
            input_ids,
            output_ids,
            threads: options.threads.clamp(1, THREADS_MAX),
            crew: None,
        };
        // The graph's own word about an output's shape may be symbolic; only a run tells.
        let inputs: Vec<Tensor> = spec.inputs.iter().map(Tensor::zeros).collect();
        let mut outputs: Vec<Tensor> = spec.outputs.iter().map(Tensor::zeros).collect();
        engine
            .run(&inputs, &mut outputs)
            .map_err(|EngineFault(text)| format!("first run on zeros: {text}"))?;
        Ok(engine)
    }

    /// The compute threads of the calling thread; made anew when another thread takes over the engine.
    fn crew(&mut self) -> RunOptions {
        let caller = std::thread::current().id();
        match &self.crew {
            Some((owner, options)) if *owner == caller => options.clone(),
            _ => {
                let mut options = RunOptions::default();
                options.thread_pool = Some(Arc::new(ThreadPool::with_num_threads(self.threads)));
                self.crew = Some((caller, options.clone()));
                options
            }
        }
    }
}

impl Engine for CpuEngine {
    fn inputs(&self) -> &[TensorSpec] {
        &self.spec.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.spec.outputs
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        count("inputs", self.spec.inputs.len(), inputs.len())?;
        count("outputs", self.spec.outputs.len(), outputs.len())?;
        let mut feeds: Vec<(NodeId, ValueOrView)> = Vec::with_capacity(inputs.len());
        for ((id, spec), tensor) in self.input_ids.iter().zip(&self.spec.inputs).zip(inputs) {
            feeds.push((*id, view(spec, tensor)?.into()));
        }
        let options = self.crew();
        let results = self
            .model
            .run(feeds, &self.output_ids, Some(options))
            .map_err(|error| EngineFault(format!("stage {}: {error}", self.spec.id)))?;
        count("results", outputs.len(), results.len())?;
        for ((spec, result), slot) in self.spec.outputs.iter().zip(&results).zip(outputs) {
            copy_out(spec, result, slot)?;
        }
        Ok(())
    }
}

/// A graph's bytes, and a loader that has those of the files its weights are in; each file if it is no larger than that.
fn read_whole(path: &Path, bytes_max: u64) -> Result<(ModelOptions, Vec<u8>), String> {
    let bytes = read_capped(path, bytes_max)?;
    let mut loader = ModelOptions::with_all_ops();
    for name in onnx::outside(path)? {
        let weights = read_capped(&path.with_file_name(&name), bytes_max);
        let weights = weights.map_err(|why| format!("weights in {name}: {why}"))?;
        loader.external_data(&name, weights);
    }
    Ok((loader, bytes))
}

/// A file's bytes, if it is no larger than that.
pub(super) fn read_capped(path: &Path, bytes_max: u64) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let meta = file
        .metadata()
        .map_err(|error| format!("cannot be read: {error}"))?;
    if !meta.is_file() {
        return Err("expected a file, found something else".into());
    }
    let refuse = |found: u64| Err(format!("expected at most {bytes_max} bytes, found {found}"));
    if meta.len() > bytes_max {
        return refuse(meta.len());
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    // `take`, because the file may grow between the look at its size and the read.
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > bytes_max {
        return refuse(bytes.len() as u64);
    }
    Ok(bytes)
}

/// The tensors of a graph as it names them itself, inputs and outputs. 64-bit integers read as 32-bit ones here.
///
/// # Errors
/// In words: no graph, or a tensor without a fixed shape or of a type that no stage has.
pub fn tensors_of(path: &Path) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>), String> {
    let (loader, bytes) = read_whole(path, FILE_BYTES_MAX)?;
    let model = loader
        .load(bytes)
        .map_err(|error| format!("expected an ONNX graph: {error}"))?;
    let list = |ids: &[NodeId]| {
        ids.iter()
            .map(|id| spec_of(&model, *id))
            .collect::<Result<Vec<_>, String>>()
    };
    Ok((list(model.input_ids())?, list(model.output_ids())?))
}

fn spec_of(model: &Model, id: NodeId) -> Result<TensorSpec, String> {
    let info = model
        .node_info(id)
        .ok_or("a tensor without a description")?;
    let name = info.name().unwrap_or_default().to_owned();
    let dtype = match info.dtype() {
        Some(ValueType::Tensor(DataType::Float)) => Dtype::F32,
        Some(ValueType::Tensor(DataType::Int32)) => Dtype::I32,
        other => {
            return Err(format!(
                "tensor \"{name}\": expected floats or integers, found {other:?}"
            ));
        }
    };
    let shape = info.shape().unwrap_or_default();
    let fixed: Option<Vec<usize>> = shape
        .iter()
        .map(|side| match side {
            Dimension::Fixed(side) => Some(*side),
            Dimension::Symbolic(_) => None,
        })
        .collect();
    match fixed {
        Some(shape) if !shape.is_empty() => Ok(TensorSpec { name, dtype, shape }),
        _ => Err(format!(
            "tensor \"{name}\": expected a fixed shape, found {shape:?}"
        )),
    }
}

/// Finds each promised tensor in the graph. Every difference goes into `wrong`.
fn match_tensors(
    model: &Model,
    kind: &str,
    graph_ids: &[NodeId],
    promised: &[TensorSpec],
    wrong: &mut Vec<String>,
) -> Vec<NodeId> {
    let name_of = |id: &NodeId| {
        model
            .node_info(*id)
            .and_then(|info| info.name().map(str::to_owned))
    };
    let names: Vec<String> = graph_ids.iter().filter_map(name_of).collect();
    for name in &names {
        if !promised.iter().any(|spec| spec.name == *name) {
            wrong.push(format!(
                "{kind} \"{name}\": expected in the manifest, found only in the graph"
            ));
        }
    }
    let mut ids = Vec::with_capacity(promised.len());
    for spec in promised {
        let Some(id) = graph_ids
            .iter()
            .find(|id| name_of(id).as_deref() == Some(&spec.name))
        else {
            wrong.push(format!(
                "{kind} \"{}\": expected in the graph, found {names:?}",
                spec.name
            ));
            continue;
        };
        ids.push(*id);
        let Some(info) = model.node_info(*id) else {
            continue;
        };
        if let Some(found) = info.dtype()
            && found != ValueType::Tensor(carried_as(spec.dtype))
        {
            wrong.push(format!(
                "{kind} \"{}\": expected {}, found {found:?}",
                spec.name, spec.dtype
            ));
        }
        if let Some(shape) = info.shape()
            && !shape_fits(&shape, &spec.shape)
        {
            wrong.push(format!(
                "{kind} \"{}\": expected shape {:?}, found {shape:?}",
                spec.name, spec.shape
            ));
        }
    }
    ids
}

/// rten reads 64-bit integers of a graph as 32-bit ones.
fn carried_as(dtype: Dtype) -> DataType {
    match dtype {
        Dtype::F32 => DataType::Float,
        Dtype::I32 | Dtype::I64 => DataType::Int32,
    }
}

/// A symbolic side fits anything here; the first run decides.
fn shape_fits(graph: &[Dimension], promised: &[usize]) -> bool {
    graph.len() == promised.len()
        && graph.iter().zip(promised).all(|(side, want)| match side {
            Dimension::Fixed(found) => found == want,
            Dimension::Symbolic(_) => true,
        })
}

fn count(what: &str, expected: usize, found: usize) -> Result<(), EngineFault> {
    if expected == found {
        Ok(())
    } else {
        Err(EngineFault(format!(
            "expected {expected} {what}, found {found}"
        )))
    }
}

/// Lends a tensor to the graph without copying it.
fn view<'a>(spec: &TensorSpec, tensor: &'a Tensor) -> Result<ValueView<'a>, EngineFault> {
    let made = match (carried_as(spec.dtype), tensor) {
        (DataType::Float, Tensor::F32(values)) => ValueView::from_shape(&spec.shape, values).ok(),
        (DataType::Int32, Tensor::I32(values)) => ValueView::from_shape(&spec.shape, values).ok(),
        _ => None,
    };
    made.ok_or_else(|| {
        EngineFault(format!(
            "input \"{}\": expected {spec}, found another tensor",
            spec.name
        ))
    })
}

fn copy_out(spec: &TensorSpec, result: &Value, slot: &mut Tensor) -> Result<(), EngineFault> {
    let copied = match (result, slot) {
        (Value::FloatTensor(found), Tensor::F32(into)) => {
            found.shape() == spec.shape.as_slice() && copy_values(found.data(), found.iter(), into)
        }
        (Value::Int32Tensor(found), Tensor::I32(into)) => {
            found.shape() == spec.shape.as_slice() && copy_values(found.data(), found.iter(), into)
        }
        _ => false,
    };
    if copied {
        Ok(())
    } else {
        let found = format!("{:?} {:?}", result.dtype(), result.shape());
        Err(EngineFault(format!(
            "output \"{}\": expected {} {:?}, found {found}",
            spec.name, spec.dtype, spec.shape
        )))
    }
}

/// A transposed result has no contiguous data; then it is walked.
fn copy_values<'a, T: Copy + 'a>(
    data: Option<&[T]>,
    walk: impl Iterator<Item = &'a T>,
    into: &mut [T],
) -> bool {
    match data {
        Some(values) if values.len() == into.len() => into.copy_from_slice(values),
        Some(_) => return false,
        None => into
            .iter_mut()
            .zip(walk)
            .for_each(|(slot, value)| *slot = *value),
    }
    true
}
