// SPDX-License-Identifier: Apache-2.0
//! What runs the policy's graphs: the ladder of engines and what ONNX Runtime is asked for.

use crate::config::file::{Located, PolicyTable, TendonFile};
use crate::config::link::{self, LinkConfig};
use crate::core::units::MS;

/// What runs the policy's graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// The processor.
    Cpu,
    /// An NVIDIA GPU.
    TensorRt,
    /// ONNX Runtime, if it is installed: on its CUDA provider where it has one, else on the processor.
    Ort,
    /// Another machine, where `tendon engine serve` runs.
    Remote,
}

impl EngineKind {
    /// All of them.
    pub const ALL: [EngineKind; 4] = [
        EngineKind::Cpu,
        EngineKind::TensorRt,
        EngineKind::Ort,
        EngineKind::Remote,
    ];

    /// As tendon.toml writes it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            EngineKind::Cpu => "cpu",
            EngineKind::TensorRt => "tensorrt",
            EngineKind::Ort => "ort",
            EngineKind::Remote => "remote",
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
                "\"tensorrt\", \"ort\", \"cpu\" and \"remote\", in the order in which they are to be tried",
                format!("\"{word}\""),
            ),
        }
    }
    if list.get_ref().is_empty() {
        let expected = "at least one of \"tensorrt\", \"ort\", \"cpu\" and \"remote\"";
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

/// Another machine that runs engines.
#[derive(Clone, Debug)]
pub struct RemoteConfig {
    /// How it is reached: by the credentials and certificates of `[link]`.
    pub link: LinkConfig,
    /// A stage that is not answered in this time is a failed one.
    pub timeout_ns: u64,
}

pub(super) fn check_remote(
    policy: &PolicyTable,
    engines: &[EngineKind],
    link: &LinkConfig,
    at: &mut Located<'_>,
) -> Option<RemoteConfig> {
    let timeout_ns = policy.remote_timeout_ms.as_ref().map_or(500 * MS, |given| {
        // The inference thread counts as hung after 2 s, and a link that takes nothing may hold it for 0.8 s before.
        (at.within("policy.remote_timeout_ms", given, 1.0, 1_000.0) * MS as f64) as u64
    });
    match (&policy.remote, engines.contains(&EngineKind::Remote)) {
        (Some(endpoint), true) => {
            link::check_endpoint("policy.remote", endpoint, link, at);
            let link = LinkConfig {
                listen: None,
                connect: Some(endpoint.get_ref().clone()),
                ..link.clone()
            };
            Some(RemoteConfig { link, timeout_ns })
        }
        (Some(endpoint), false) => {
            let expected = "\"remote\" in policy.engines beside it";
            at.push(endpoint, "policy.remote", expected, "none".into());
            None
        }
        (None, true) => {
            if let Some(list) = &policy.engines {
                let expected = "where the engine \"remote\" is, e.g. \"tcp/127.0.0.1:7448\"";
                at.push(list, "policy.remote", expected, "nothing".into());
            }
            None
        }
        (None, false) => {
            if let Some(given) = &policy.remote_timeout_ms {
                let expected = "policy.remote beside it";
                at.push(
                    given,
                    "policy.remote_timeout_ms",
                    expected,
                    "nothing".into(),
                );
            }
            None
        }
    }
}
