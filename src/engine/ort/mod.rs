// SPDX-License-Identifier: Apache-2.0
//! ONNX Runtime as an engine: whatever version is installed, found at run time, on the processor or, where its library
//! has them, through its CUDA and TensorRT providers.
//!
//! Inputs and outputs are the caller's own tensors, bound once; a run allocates nothing of ours (ONNX Runtime's own
//! C++ does). A provider that was asked for and is refused is told with ONNX Runtime's reason, and the processor runs the
//! graph: whether that is good enough is the ladder's business.
//!
//! Not here: what the numbers mean, and hashes (`policy`).

mod api;
mod crew;
pub mod find;
mod session;

pub use api::Library;

use crate::config::OrtProvider;
use crate::cuda::sticks;
use crate::engine::cpu::read_capped;
use crate::engine::lost::Standing;
use crate::onnx;
use crate::ports::{Engine, EngineFault, StageSpec, Tensor, TensorSpec};
use api::Options;
use session::Session;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// Largest ONNX file that is read: that of a message of protocol buffers.
pub const FILE_BYTES_MAX: u64 = (2 << 30) - 1;

/// More compute threads than this no robot's computer has; beyond it is a slip of the finger.
const THREADS_MAX: usize = 64;

/// No engine of this kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrtFault {
    /// No library.
    #[error(
        "no ONNX Runtime: looked for {looked}; install it (pip install onnxruntime, or onnxruntime-gpu for CUDA), or name the library or its folder in {variable}"
    )]
    Missing {
        /// Where, and what the system said.
        looked: String,
        /// Which variable names it.
        variable: &'static str,
    },
    /// A library of another kind.
    #[error("{at}: expected ONNX Runtime, found a library without OrtGetApiBase")]
    Foreign {
        /// Its path.
        at: String,
    },
    /// Older than any that was tried.
    #[error("{at}: expected ONNX Runtime 1.17 or later, found {version}; install a newer one")]
    Old {
        /// Its path.
        at: String,
        /// Its own word.
        version: String,
    },
    /// A call that it refused.
    #[error("{call}: ONNX Runtime says: {said}")]
    Call {
        /// Its function.
        call: &'static str,
        /// Its own words.
        said: String,
    },
    /// The graph contradicts the bundle.
    #[error("{found}")]
    Graph {
        /// Every difference.
        found: String,
    },
    /// A run's tensor that is not the graph's.
    #[error("{found}")]
    Tensor {
        /// Which, and what is wrong with it.
        found: String,
    },
}

impl OrtFault {
    /// CUDA's code in what ONNX Runtime says of a call of it, "CUDA failure 700: an illegal memory access was encountered ; GPU=0 ...",
    /// if it says it.
    fn cuda_code(&self) -> Option<i32> {
        let OrtFault::Call { said, .. } = self else {
            return None;
        };
        let (_, behind) = said.split_once("CUDA failure ")?;
        behind.split(':').next()?.parse().ok()
    }
}

/// As ONNX Runtime names it.
fn theirs(provider: OrtProvider) -> &'static str {
    match provider {
        OrtProvider::Cuda => "CUDAExecutionProvider",
        OrtProvider::TensorRt => "TensorrtExecutionProvider",
    }
}

/// How a graph is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrtOptions {
    /// Threads that compute on the processor, 1 or more.
    pub threads: usize,
    /// Providers to ask for, in this order; the processor takes what they do not.
    pub providers: Vec<OrtProvider>,
}

impl Default for OrtOptions {
    fn default() -> Self {
        OrtOptions {
            threads: 1,
            providers: vec![OrtProvider::Cuda],
        }
    }
}

/// One stage, loaded and proven by one run on zeros.
pub struct OrtEngine {
    session: Session,
    spec: StageSpec,
    granted: Vec<OrtProvider>,
    refused: Vec<(OrtProvider, String)>,
    remarks: Vec<String>,
    /// Of the GPU, if a provider of one takes part.
    standing: Standing,
}

impl std::fmt::Debug for OrtEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OrtEngine")
            .field("spec", &self.spec)
            .field("granted", &self.granted)
            .finish_non_exhaustive()
    }
}

impl OrtEngine {
    /// Reads `path`, asks for the providers, compares the tensors with `spec` and runs once on zeros.
    ///
    /// Weights outside the file are taken from beside it ([`onnx::outside`]); who says which file it is vouches for them.
    ///
    /// # Errors
    /// [`EngineFault`] names the file and everything that differs.
    pub fn load(
        library: &Arc<Library>,
        path: &Path,
        spec: &StageSpec,
        wanted: &OrtOptions,
    ) -> Result<OrtEngine, EngineFault> {
        let fault = |text: String| EngineFault(format!("{}: {text}", path.display()));
        let graph = read_capped(path, FILE_BYTES_MAX).map_err(fault)?;
        let beside = onnx::outside(path).map_err(fault)?;
        let folder = path.parent().filter(|_| !beside.is_empty());
        let folder = folder.map(|folder| CString::new(folder.as_os_str().as_bytes()));
        let folder = folder
            .transpose()
            .map_err(|_| fault("expected a path without a zero byte".into()))?;
        let mut engine = OrtEngine::build(library, &graph, folder.as_deref(), spec, wanted)
            .map_err(|found| fault(found.to_string()))?;
        drop(graph);
        let inputs: Vec<Tensor> = spec.inputs.iter().map(Tensor::zeros).collect();
        let mut outputs: Vec<Tensor> = spec.outputs.iter().map(Tensor::zeros).collect();
        engine
            .run(&inputs, &mut outputs)
            .map_err(|EngineFault(text)| fault(format!("first run on zeros: {text}")))?;
        Ok(engine)
    }

    fn build(
        library: &Arc<Library>,
        graph: &[u8],
        weights: Option<&CStr>,
        spec: &StageSpec,
        wanted: &OrtOptions,
    ) -> Result<OrtEngine, OrtFault> {
        let threads = wanted.threads.clamp(1, THREADS_MAX);
        let mut options = Options::new(library, threads, weights)?;
        let built_with = library.providers()?;
        let (mut granted, mut refused, mut remarks) = (Vec::new(), Vec::new(), Vec::new());
        for provider in &wanted.providers {
            if !built_with.iter().any(|name| name == theirs(*provider)) {
                let has = built_with.join(", ");
                let words = format!("{library:?} was built with {has} only");
                refused.push((*provider, words));
                continue;
            }
            match options.ask(*provider) {
                Ok(remark) => {
                    granted.push(*provider);
                    remarks.extend(remark);
                }
                Err(why) => refused.push((*provider, why.to_string())),
            }
        }
        let session = Session::load(graph, spec, options, !granted.is_empty())?;
        Ok(OrtEngine {
            session,
            spec: spec.clone(),
            granted,
            refused,
            remarks,
            standing: Standing::default(),
        })
    }

    /// Providers that were asked for and took part.
    #[must_use]
    pub fn granted(&self) -> &[OrtProvider] {
        &self.granted
    }

    /// Providers that were asked for and are not here, each with ONNX Runtime's reason.
    #[must_use]
    pub fn refused(&self) -> &[(OrtProvider, String)] {
        &self.refused
    }

    /// What is to be known of those that take part.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }
}

impl Engine for OrtEngine {
    fn inputs(&self) -> &[TensorSpec] {
        &self.spec.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.spec.outputs
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        self.standing.check()?;
        let Err(fault) = self.session.run(inputs, outputs) else {
            self.standing.worked();
            return Ok(());
        };
        // The processor's failures, and a tensor that does not fit, say nothing of a GPU.
        if matches!(fault, OrtFault::Call { .. }) && !self.granted.is_empty() {
            if fault.cuda_code().is_some_and(sticks) {
                self.standing.stuck(&fault);
            }
            self.standing.failed(&fault);
        }
        Err(EngineFault(fault.to_string()))
    }

    fn lost(&self) -> bool {
        self.standing.is_lost()
    }
}
