// SPDX-License-Identifier: Apache-2.0
//! `policy.precision = "best"`: every precision that the bundle has is built for this machine's TensorRT, proven by the fixture and
//! measured; the fastest that passes is written down beside the plans and runs from then on. Eight bits are often slower than
//! sixteen, and nobody knows before it was tried. Every other engine runs the 32-bit graphs.

use crate::config::problem::Problem;
use crate::config::{EngineKind, PolicyConfig, Precision};
use crate::engine::tensorrt::build::{Built, Progress};
use crate::hash::hex;
use crate::policy::manifest::OnnxFile;
use crate::runtime::engines::{self, Bounds, EngineError};
use crate::runtime::policy_bench::{Job, measure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Each is measured in so many turns, and its best turn counts: what else runs on the machine makes it slower, never faster.
const TURNS: usize = 3;
/// Observations a turn.
const RUNS: usize = 60;

/// What was written down.
#[derive(Debug, Serialize, Deserialize)]
struct Choice {
    precision: String,
    /// For people.
    tried: Vec<String>,
}

/// A precision that was tried.
#[derive(Debug)]
pub struct Tried {
    /// Which.
    pub precision: Precision,
    /// From observation to chunk, p50 in microseconds; or why it is out of the question.
    pub result: Result<f64, String>,
}

impl core::fmt::Display for Tried {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let word = self.precision.word();
        match &self.result {
            Ok(p50_us) => write!(f, "{word}: {p50_us:.1} us an observation"),
            Err(why) => write!(f, "{word}: {why}"),
        }
    }
}

/// The configuration as an engine of this kind runs `bundle`: with the precision that was chosen, where the best is asked for.
///
/// # Errors
/// None was chosen yet for this bundle and these flags.
pub(crate) fn resolved<'a>(
    config: &'a PolicyConfig,
    engine: EngineKind,
    bundle: &Path,
) -> Result<Cow<'a, PolicyConfig>, Vec<Problem>> {
    if !config.best || engine != EngineKind::TensorRt {
        return Ok(Cow::Borrowed(config));
    }
    let path = place(config, bundle);
    let none = |found: String| {
        let expected =
            "the precision that was found to be the best for this bundle: tendon engine build";
        Problem::one(path.display().to_string(), expected, found)
    };
    let text = std::fs::read(&path).map_err(|error| none(error.to_string()))?;
    let choice: Choice = serde_json::from_slice(&text).map_err(|error| none(error.to_string()))?;
    let mut all = Precision::ALL.into_iter();
    let precision = all
        .find(|precision| precision.word() == choice.precision)
        .ok_or_else(|| none(format!("\"{}\"", choice.precision)))?;
    Ok(Cow::Owned(fixed(config, precision)))
}

fn fixed(config: &PolicyConfig, precision: Precision) -> PolicyConfig {
    PolicyConfig {
        precision,
        best: false,
        ..config.clone()
    }
}

/// Where the choice is kept: another bundle, or other flags, is another. That the plan is this machine's, the plan says.
fn place(config: &PolicyConfig, bundle: &Path) -> PathBuf {
    let mut hash = Sha256::new();
    // A bundle without a manifest does not load, whatever is chosen.
    hash.update(std::fs::read(bundle.join("manifest.json")).unwrap_or_default());
    for flag in &config.trtexec_flags {
        hash.update([0]);
        hash.update(flag);
    }
    let name = hex(&hash.finalize());
    engines::cache(config).join(format!("best-{:.16}.json", name))
}

/// Builds, proves and measures every precision that the bundle has, and writes down the best. Plans of the others stay: stages
/// share them, and a deployment may name one.
///
/// # Errors
/// [`EngineError`] if none passes: the first one's.
pub fn build(
    config: &PolicyConfig,
    bounds: &Bounds,
    tell: &mut dyn FnMut(Progress),
) -> Result<(Vec<Built>, Vec<Tried>), EngineError> {
    let files = engines::graphs(&config.bundle).map_err(EngineError::Problems)?;
    let has = |precision: &Precision| {
        files
            .iter()
            .any(|file: &OnnxFile| file.of(*precision).is_some())
    };
    let (mut all, mut tried, mut first) = (Vec::new(), Vec::new(), None);
    for precision in Precision::ALL.into_iter().filter(has) {
        let result = match engines::build_one(&fixed(config, precision), bounds, tell) {
            Ok(built) => {
                all.extend(built);
                Ok(f64::INFINITY)
            }
            Err(error @ EngineError::Machine(_)) => return Err(error),
            Err(error) => {
                let why = error.to_string();
                first.get_or_insert(error);
                Err(why)
            }
        };
        tried.push(Tried { precision, result });
    }
    // In turns, so that a clock that changes meanwhile is nobody's advantage.
    for _ in 0..TURNS {
        for each in &mut tried {
            if let Ok(p50_us) = &mut each.result {
                let config = fixed(config, each.precision);
                let found = p50(&config).map_err(EngineError::Problems)?;
                *p50_us = p50_us.min(found);
            }
        }
    }
    let passed = tried
        .iter()
        .filter_map(|each| Some((each, each.result.as_ref().ok()?)));
    let best = passed.min_by(|(_, one), (_, other)| one.total_cmp(other));
    let Some((best, _)) = best else {
        return Err(first.unwrap_or_else(|| EngineError::Problems(Vec::new())));
    };
    let choice = Choice {
        precision: best.precision.word().to_owned(),
        tried: tried.iter().map(ToString::to_string).collect(),
    };
    let path = place(config, &config.bundle);
    let written = serde_json::to_vec_pretty(&choice)
        .map_err(std::io::Error::from)
        .and_then(|text| std::fs::write(&path, text));
    written.map_err(|error| {
        let at = path.display().to_string();
        EngineError::Problems(Problem::one(
            at,
            "a file that can be written",
            error.to_string(),
        ))
    })?;
    // The best first.
    let chosen = best.precision;
    tried.sort_by_key(|each| each.precision != chosen);
    Ok((all, tried))
}

fn p50(config: &PolicyConfig) -> Result<f64, Vec<Problem>> {
    let job = Job {
        dir: &config.bundle,
        runs: RUNS,
        seconds: 0.0,
        threads: 1,
        engine: EngineKind::TensorRt,
        config: Some(config),
        bare_loop: false,
    };
    measure(&job, None).map(|report| report.whole.p50_us)
}
