// SPDX-License-Identifier: Apache-2.0
//! What runs the policy's graphs: the ladder of engines and what ONNX Runtime is asked for.

use crate::config::file::{Located, PolicyTable, TendonFile};

/// What runs the policy's graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    TensorRt,
    /// ONNX Runtime, if it is installed: on its CUDA provider where it has one, else on the processor.
    Ort,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [EngineKind; 3] = [EngineKind::Cpu, EngineKind::TensorRt, EngineKind::Ort];

    /// As tendon.toml writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            EngineKind::Cpu => "cpu",
            EngineKind::TensorRt => "tensorrt",
            EngineKind::Ort => "ort",
        }
    }
}

/// What ONNX Runtime may compute with, other than the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrtProvider {
    /// CUDA.
    Cuda,
    /// TensorRT, which builds an engine at each start.
    TensorRt,
}

impl OrtProvider {
    /// All of them.
    pub const ALL: [OrtProvider; 2] = [OrtProvider::Cuda, OrtProvider::TensorRt];

    /// As tendon.toml writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            OrtProvider::Cuda => "cuda",
            OrtProvider::TensorRt => "tensorrt",
        }
    }
}

pub(super) fn check(written: &TendonFile, at: &mut Located<'_>) -> Vec<EngineKind> {
    let Some(list) = &written.policy.engines else {
        return vec![EngineKind::Cpu];
    };
    let mut engines = Vec::new();
    for word in list.get_ref() {
        match EngineKind::ALL.into_iter().find(|kind| kind.word() == word) {
            Some(kind) if engines.contains(&kind) => {
                let found = format!("\"{word}\" again");
                at.push(list, "policy.engines", "each engine once", found);
            }
            Some(kind) => engines.push(kind),
            None => at.push(
                list,
                "policy.engines",
                "\"tensorrt\", \"ort\" and \"cpu\", in the order in which they are to be tried",
                format!("\"{word}\""),
            ),
        }
    }
    if list.get_ref().is_empty() {
        let expected = "at least one of \"tensorrt\", \"ort\" and \"cpu\"";
        at.push(list, "policy.engines", expected, "none".into());
    }
    engines
}

pub(super) fn check_providers(policy: &PolicyTable, at: &mut Located<'_>) -> Vec<OrtProvider> {
    let Some(list) = &policy.ort_providers else {
        return vec![OrtProvider::Cuda];
    };
    let mut providers = Vec::new();
    for word in list.get_ref() {
        let found = OrtProvider::ALL.into_iter();
        match found
            .filter(|kind| !providers.contains(kind))
            .find(|kind| kind.word() == word)
        {
            Some(kind) => providers.push(kind),
            None => at.push(
                list,
                "policy.ort_providers",
                "\"cuda\" and \"tensorrt\", each once, or none of them for the processor alone",
                format!("\"{word}\""),
            ),
        }
    }
    providers
}
