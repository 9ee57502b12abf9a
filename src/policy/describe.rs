// SPDX-License-Identifier: Apache-2.0
//! A bundle in words, for `tendon policy inspect`.

use crate::config::Precision;
use crate::hash::hex;
use crate::policy::bundle::{Bundle, Vector};
use core::fmt::Write;

/// Several lines: what goes in, what comes out, how fast, and which files. All hashes held, or there were no bundle.
#[must_use]
pub fn describe(bundle: &Bundle) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(bundle, &mut text);
    text
}

fn write_all(bundle: &Bundle, out: &mut String) -> core::fmt::Result {
    let ms = |ns: u64| ns as f64 / 1e6;
    writeln!(out, "policy      {}", bundle.name)?;
    writeln!(out, "folder      {}", bundle.folder().root().display())?;
    writeln!(out, "manifest    SHA-256 {}", hex(bundle.manifest_hash()))?;
    let stage = &bundle.stage;
    writeln!(out, "stage       {}", stage.spec.id)?;
    for precision in Precision::ALL {
        let name = stage.onnx.of(precision).map_or("none", String::as_str);
        writeln!(out, "  {}      {name}", precision.word())?;
    }
    for tensor in &stage.spec.inputs {
        writeln!(out, "  in        {tensor}")?;
    }
    for tensor in &stage.spec.outputs {
        writeln!(out, "  out       {tensor}")?;
    }
    let image = &bundle.image;
    let [from_width, from_height] = image.source;
    let [width, height] = image.size;
    writeln!(
        out,
        "image       camera \"{}\" {from_width}x{from_height} -> {width}x{height} (stretch, antialiased bilinear), x {:.6}, RGB, NCHW",
        image.role, image.scale
    )?;
    writeln!(
        out,
        "text        {}, up to {} tokens, longer is refused",
        bundle.text.tokenizer, bundle.text.max_len
    )?;
    writeln!(out, "state       {}", entries(&bundle.state, &[]))?;
    let action = &bundle.action;
    writeln!(
        out,
        "action      {}",
        entries(&action.vector, &action.relative)
    )?;
    writeln!(
        out,
        "chunk       {} actions, {} ms apart, first {} ms after capture, horizon {} ms; gripper on at {}",
        action.chunk_len,
        ms(action.period_ns),
        ms(action.first_step_ns),
        ms(action.first_step_ns + action.period_ns * (action.chunk_len as u64 - 1)),
        action.gripper_threshold
    )?;
    let timing = &bundle.timing;
    writeln!(
        out,
        "timing      {} inferences a second, each within {} ms, on an observation at most {} ms old",
        timing.infer_hz,
        ms(timing.deadline_ns),
        ms(timing.observation_age_max_ns)
    )?;
    let parity = &bundle.parity;
    writeln!(
        out,
        "parity      {} frames, cosine at least {}, error at most {} of each action's range in them (run at every load)",
        parity.frames, parity.cosine_min, parity.error_max_fraction
    )?;
    for (name, bytes) in &bundle.files {
        writeln!(out, "file        {name}, {bytes} bytes, SHA-256 ok")?;
    }
    Ok(())
}

/// `name [unit]`, with `+state` where the observation's state is added.
fn entries(vector: &Vector, relative: &[bool]) -> String {
    let words: Vec<String> = vector
        .names
        .iter()
        .zip(&vector.units)
        .enumerate()
        .map(|(index, (name, unit))| {
            let added = if relative.get(index) == Some(&true) {
                ", +state"
            } else {
                ""
            };
            format!("{name} [{unit}{added}]")
        })
        .collect();
    words.join(", ")
}
