// SPDX-License-Identifier: Apache-2.0
//! A staged bundle in words: what is fed, which graph runs when and gives what to whom, how the action is read.

use crate::hash::hex;
use crate::policy::staged::bundle::Opened;
use crate::policy::staged::manifest::{DecoderFile, LoopFile, TextFile};
use crate::policy::staged::plan::{Place, Rate, Source};
use core::fmt::Write;

/// The whole page. All hashes held, or there were no bundle.
#[must_use]
pub fn describe(bundle: &Opened) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(bundle, &mut out);
    out
}

fn write_all(bundle: &Opened, out: &mut String) -> core::fmt::Result {
    let file = &bundle.file;
    writeln!(out, "policy      {} ({})", bundle.name, file.family)?;
    writeln!(out, "folder      {}", bundle.folder.root().display())?;
    writeln!(out, "manifest    SHA-256 {}", hex(&bundle.hash))?;
    for (camera, feed) in file.cameras.iter().zip(&bundle.feeds) {
        let [width, height] = camera.source_size;
        let missing = if camera.missing.is_some() {
            "may be missing"
        } else {
            "required"
        };
        writeln!(
            out,
            "camera      {} {width}x{height} -> {:?} ({missing}), {} frame(s) {} ms apart, {} step(s)",
            camera.role,
            feed.shape(),
            camera.history,
            camera.spacing_ms,
            camera.ops.len()
        )?;
        for op in &camera.ops {
            writeln!(out, "              {op:?}")?;
        }
    }
    match &file.text {
        None => writeln!(out, "text        none")?,
        Some(TextFile::Table(table)) => writeln!(
            out,
            "text        table {}, vectors of {}",
            table.file, table.width
        )?,
        Some(TextFile::Prompt(prompt)) => writeln!(
            out,
            "text        {:?} by {}, {} tokens, too long: {:?}",
            prompt.template, prompt.tokenizer, prompt.max_len, prompt.too_long
        )?,
    }
    if let Some(state) = &file.state {
        writeln!(out, "state       {}", state.names.join(", "))?;
    }
    for rate in [Rate::Load, Rate::Instruction, Rate::Observation, Rate::Step] {
        let stages = bundle.plan.order.iter().filter_map(|index| {
            bundle
                .plan
                .stages
                .get(*index)
                .filter(|stage| stage.rate == rate)
                .map(|stage| (*index, stage))
        });
        for (row, (index, stage)) in stages.enumerate() {
            if row == 0 {
                let word = match rate {
                    Rate::Load => "once at load".into(),
                    Rate::Instruction => "once an instruction".into(),
                    Rate::Observation => "each observation".into(),
                    Rate::Step => times(file.repeat.as_ref()),
                };
                writeln!(out, "{word}")?;
            }
            writeln!(out, "  [{}]", stage.spec.id)?;
            for (spec, input) in stage.spec.inputs.iter().zip(&stage.inputs) {
                let from: Vec<String> = input
                    .parts
                    .iter()
                    .map(|part| word(bundle, part.source))
                    .collect();
                let carry = input
                    .carry
                    .map(|place| format!(", then {}", output(bundle, place)))
                    .unwrap_or_default();
                writeln!(out, "    <- {spec} from {}{carry}", from.join(" + "))?;
            }
            for (tensor, spec) in stage.spec.outputs.iter().enumerate() {
                let exchanged = stage.exchanged.get(tensor) == Some(&true);
                let how = if exchanged {
                    " (handed on without a copy)"
                } else {
                    ""
                };
                let readers = readers(
                    bundle,
                    Place {
                        stage: index,
                        tensor,
                    },
                );
                writeln!(out, "    -> {spec}{readers}{how}")?;
            }
        }
    }
    let decoder = match &file.decoder {
        DecoderFile::Regression(file) => format!("{} as it stands", file.from),
        DecoderFile::Sample(_) => "the denoised sample".into(),
        DecoderFile::VocabularyTail(tail) => format!(
            "tokens {} to {} as {} bins",
            tail.first_id(),
            tail.vocab - 1,
            tail.bins
        ),
        DecoderFile::Rt1(file) => format!(
            "{} tokens of {} from {}",
            file.tokens.tokens(),
            file.tokens.vocab,
            file.from
        ),
        DecoderFile::TextIntegers(file) => {
            format!("text of {} integers", file.integers.fields.len())
        }
        DecoderFile::Fast(file) => format!("FAST, {} x {}", file.horizon, file.dim),
        DecoderFile::Sentence(_) => "a sentence for another policy".into(),
    };
    writeln!(out, "decoder     {decoder}")?;
    if let Some(action) = &file.action {
        let names: Vec<String> = action
            .names
            .iter()
            .zip(&action.units)
            .map(|(name, unit)| format!("{name} [{unit}]"))
            .collect();
        writeln!(out, "action      {}", names.join(", "))?;
        for post in &action.post {
            writeln!(out, "              {post:?}")?;
        }
        writeln!(
            out,
            "chunk       {} actions, {} ms apart, first {} ms after capture",
            action.horizon, action.period_ms, action.first_step_ms
        )?;
    }
    if let Some(uncertainty) = &file.uncertainty {
        let how = match &uncertainty.from {
            Some(from) => format!("answers at once from {from}"),
            None => "answers, each from other noise".into(),
        };
        writeln!(
            out,
            "uncertainty {} {how}; doubt 1 at a deviation of {:?}",
            uncertainty.count, uncertainty.spread_max
        )?;
    }
    for map in &file.attention {
        writeln!(
            out,
            "attention   {} of camera {}, {} x {}",
            map.from, map.camera, map.columns, map.rows
        )?;
    }
    let timing = &file.timing;
    writeln!(
        out,
        "timing      {} inferences a second, each within {} ms, on an observation at most {} ms old",
        timing.infer_hz, timing.deadline_ms, timing.max_observation_age_ms
    )?;
    let parity = &file.parity;
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

fn times(repeat: Option<&LoopFile>) -> String {
    match repeat {
        Some(LoopFile::Flow(flow)) => format!(
            "{} times (flow from t = {} to {})",
            flow.flow.steps, flow.flow.t_start, flow.flow.t_end
        ),
        Some(LoopFile::Diffusion(diffusion)) => {
            format!(
                "{} times ({:?})",
                diffusion.schedule.steps, diffusion.schedule.scheduler
            )
        }
        Some(LoopFile::Tokens(tokens)) => format!("up to {} times (one token each)", tokens.max),
        Some(LoopFile::Draw(_)) => "once, on numbers that are drawn".into(),
        None => "never".into(),
    }
}

fn output(bundle: &Opened, place: Place) -> String {
    bundle
        .plan
        .stages
        .get(place.stage)
        .and_then(|stage| {
            Some(format!(
                "{}.{}",
                stage.spec.id,
                stage.spec.outputs.get(place.tensor)?.name
            ))
        })
        .unwrap_or_default()
}

fn word(bundle: &Opened, source: Source) -> String {
    let file = &bundle.file;
    let role = |index: usize| {
        file.cameras
            .get(index)
            .map_or("?", |camera| camera.role.as_str())
    };
    let key = |mut keys: Box<dyn Iterator<Item = &String> + '_>, index: usize| {
        keys.nth(index).cloned().unwrap_or_default()
    };
    match source {
        Source::Camera(index) => format!("camera.{}", role(index)),
        Source::Seen(index) => format!("camera.{}.seen", role(index)),
        Source::State => "state".into(),
        Source::Ids => "text.ids".into(),
        Source::Mask => "text.mask".into(),
        Source::Used => "text.used".into(),
        Source::Embedding => "text.embedding".into(),
        Source::Constant(index) => format!("const.{}", key(Box::new(file.constants.keys()), index)),
        Source::Ring(index) => format!("ring.{}", key(Box::new(file.rings.keys()), index)),
        Source::RingSeen(index) => format!("ring.{}.seen", key(Box::new(file.rings.keys()), index)),
        Source::X => "loop.x".into(),
        Source::Prefix => "loop.prefix".into(),
        Source::Weights => "loop.weights".into(),
        Source::Delay => "loop.delay".into(),
        Source::Guidance => "loop.guidance".into(),
        Source::Time => "loop.time".into(),
        Source::Token => "loop.token".into(),
        Source::Position => "loop.position".into(),
        Source::Output(place) => output(bundle, place),
    }
}

/// Who reads an output.
fn readers(bundle: &Opened, place: Place) -> String {
    let names: Vec<&str> = bundle
        .plan
        .stages
        .iter()
        .filter(|stage| {
            stage.inputs.iter().any(|input| {
                input.carry == Some(place)
                    || input
                        .parts
                        .iter()
                        .any(|part| part.source == Source::Output(place))
            })
        })
        .map(|stage| stage.spec.id.as_str())
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" to {}", names.join(", "))
    }
}
