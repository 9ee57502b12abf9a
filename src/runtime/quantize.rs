// SPDX-License-Identifier: Apache-2.0
//! `tendon policy quantize`: graphs of 16 bits and Q/DQ graphs of a bundle, made by a Python that has onnxruntime's converter and
//! quantiser and proven here, block by block, on the bundle's fixture.

use crate::config::Precision;
use crate::config::problem::Problem;
use crate::policy::parity::ERROR_FRACTION_MAX;
use crate::policy::staged::Staged;
use crate::policy::staged::bundle::is_staged;
use crate::runtime::engines::cpu_engine;
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};

const SCRIPT: &str = concat!(include_str!("halve.py"), include_str!("quantize.py"));

/// Which graphs are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Graphs {
    /// Of these precisions: [`Precision::Fp16`], [`Precision::Int8`].
    pub to: Vec<Precision>,
    /// What the part of a Q/DQ graph that is not quantised may have at the least: [`Precision::Fp16`] or [`Precision::Fp32`].
    pub rest: Precision,
}

/// What a quantised policy may differ from its reference: least cosine of a chunk, and largest error of a joint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Of each chunk.
    pub cosine_min: f64,
    /// Of a revolute joint.
    pub rad_max: f64,
    /// Of a prismatic one.
    pub m_max: f64,
    /// Of a gripper, of its travel.
    pub fraction_max: f64,
}

impl Default for Gate {
    /// Half a degree and a millimetre; a gripper's hundredth, as its chunk's numbers have in a fixture.
    fn default() -> Gate {
        Gate {
            cosine_min: 0.9995,
            rad_max: 0.5_f64.to_radians(),
            m_max: 1e-3,
            fraction_max: 0.01,
        }
    }
}

/// Recordings of the policy ([`Staged::write_recording`]), where its fixture is not enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observations<'a> {
    /// What ranges are taken from, instead of the fixture.
    pub calibrate: Option<&'a Path>,
    /// What the gate is proven on besides the fixture.
    pub prove: Option<&'a Path>,
}

/// Writes the bundle with these graphs and their report into `out`, and returns the report in short, as JSON.
///
/// # Errors
/// Every [`Problem`] of the bundle, or what the Python says.
pub fn quantize(
    dir: &Path,
    out: &Path,
    graphs: &Graphs,
    on: &Observations<'_>,
    python: &Path,
    program: &Path,
    gate: Gate,
) -> Result<String, Vec<Problem>> {
    let eight = graphs.to.contains(&Precision::Int8);
    if eight && !is_staged(dir) {
        return Err(Problem::one(
            dir.display().to_string(),
            "a bundle of schema 2 (of one of schema 1 engines/bench-vla/train makes the Q/DQ graph, and --to fp16 works)",
            "another",
        ));
    }
    if out.exists() {
        return Err(Problem::one(
            out.display().to_string(),
            "a folder that does not exist yet",
            "one that does",
        ));
    }
    let inputs = match eight {
        true => Some(Staged::calibration(dir, on.calibrate, &cpu_engine(1))?),
        false => None,
    };
    let wrong = |found: String| {
        let expected = "a Python with onnx, onnxruntime, numpy and safetensors that quantises";
        Problem::one(python.display().to_string(), expected, found)
    };
    let mut calibration = std::env::temp_dir();
    calibration.push(format!(
        "tendon-calibration-{}.safetensors",
        std::process::id()
    ));
    if let Some(inputs) = &inputs {
        std::fs::write(&calibration, inputs).map_err(|error| wrong(error.to_string()))?;
    }
    let to: Vec<&str> = graphs.to.iter().map(|precision| precision.word()).collect();
    let wanted = json!({
        "bundle": dir, "out": out, "tendon": program, "to": to, "rest": graphs.rest.word(),
        "calibration": inputs.is_some().then_some(&calibration), "prove_on": on.prove,
        "cosine_min": gate.cosine_min, "rad_max": gate.rad_max, "m_max": gate.m_max, "fraction_max": gate.fraction_max,
        "load_max": ERROR_FRACTION_MAX,
    });
    let done = Command::new(python)
        .arg("-c")
        .arg(SCRIPT)
        .arg(wanted.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    // Whatever became of it, it is not needed any more.
    drop(std::fs::remove_file(&calibration));
    let done = done.map_err(|error| wrong(error.to_string()))?;
    if !done.status.success() {
        return Err(wrong(format!("{}; its own words are above", done.status)));
    }
    Ok(String::from_utf8_lossy(&done.stdout).trim().to_owned())
}
