// SPDX-License-Identifier: Apache-2.0
//! Makes a [`Policy`] of a folder: statistics, tokenizer, fixture and engine, then one run of the fixture.
//!
//! Everything that can fail is tried before anything is refused, so that one look finds every fault. The graph's file
//! is handed to the engine by its path moments after its hash was checked; all other files are used from the very
//! bytes that were hashed.

use crate::config::Precision;
use crate::config::problem::Problem;
use crate::policy::bundle::Bundle;
use crate::policy::folder::SIDE_FILE_BYTES_MAX;
use crate::policy::graph::Graph;
use crate::policy::manifest::{StatsFile, at};
use crate::policy::parity::{Columns, Fixture, Parity};
use crate::policy::stats::Stats;
use crate::policy::tensors::TensorFile;
use crate::policy::text::Text;
use crate::policy::{EngineLoader, InferFault, LoadOptions, ParityMiss, Policy};
use crate::ports::{Engine, Tensor, TensorSpec};
use std::path::Path;

impl Policy {
    /// Opens, checks and loads the bundle in `dir`, and runs its fixture.
    ///
    /// # Errors
    /// Every [`Problem`] found, with file, key, what was expected and what was found.
    pub fn load(
        dir: &Path,
        options: LoadOptions,
        engine: &EngineLoader<'_>,
    ) -> Result<Policy, Vec<Problem>> {
        let bundle = Bundle::open(dir)?;
        let mut problems = Vec::new();
        let state_stats = keep(
            read_stats(&bundle, &bundle.state.stats, &bundle.state.names),
            &mut problems,
        );
        let action_stats = keep(
            read_stats(
                &bundle,
                &bundle.action.vector.stats,
                &bundle.action.vector.names,
            ),
            &mut problems,
        );
        let text = keep(read_text(&bundle), &mut problems);
        let fixture = keep(Fixture::read(&bundle), &mut problems);
        let engine = keep(
            load_engine(&bundle, options.precision, engine),
            &mut problems,
        );
        let (Some(state_stats), Some(action_stats), Some(text), Some(fixture), Some(engine)) =
            (state_stats, action_stats, text, fixture, engine)
        else {
            return Err(problems);
        };
        let mut graph = Graph::new(&bundle, engine, state_stats, action_stats);
        let parity = run_fixture(&bundle, &mut graph, &text, &fixture)?;
        let on_device = offer(&bundle, &mut graph)?;
        match options.parity_miss {
            ParityMiss::Refuse if !parity.missed.is_empty() => Err(parity.missed),
            ParityMiss::Refuse | ParityMiss::Report => Ok(Policy {
                bundle,
                graph,
                on_device,
                text,
                parity,
                binding: None,
                instructed: false,
                targets: Vec::new(),
            }),
        }
    }
}

/// Whether two answers to one picture are the same but for the order of an engine's sums, which it may change from run to run.
fn near(given: &Tensor, wanted: &Tensor) -> bool {
    const PART: f32 = 1e-3;
    let (Some(given), Some(wanted)) = (given.f32(), wanted.f32()) else {
        return given == wanted;
    };
    let close = |(given, wanted): (&f32, &f32)| {
        // Neither may be NaN.
        (given - wanted).abs() <= PART * (1.0 + wanted.abs())
    };
    given.len() == wanted.len() && given.iter().zip(wanted).all(close)
}

/// Offers the camera's picture to the engine and lets it choose what it has left to choose. The fixture's pictures have the graph's size
/// and go another way, so a picture of noise is prepared by both, and what the graph makes of it must be the same; so it must be
/// with what was chosen after the fixture. An engine that records its runs has recorded and replayed what came of it when it is settled, so
/// it is a replay, as the robot's will be, that is compared.
fn offer(bundle: &Bundle, graph: &mut Graph) -> Result<bool, Vec<Problem>> {
    let wrong = |found: String| {
        let expected = "a picture that the engine's device prepares as the processor does";
        Problem::one(at("tendon.image"), expected, found)
    };
    let [width, height] = bundle.image.source;
    let noise = |at: usize| (at as u32).wrapping_mul(2_654_435_761).rotate_left(9) as u8;
    let rgb: Vec<u8> = (0..width * height * 3).map(noise).collect();
    let made = |graph: &mut Graph| -> Result<(), Vec<Problem>> {
        graph
            .write_picture(&rgb)
            .map_err(|fault| wrong(fault.to_string()))?;
        graph.run().map_err(|fault| wrong(fault.to_string()))
    };
    // Engines that take no picture are not run for nothing more than once: this is at load.
    made(graph)?;
    let expected = graph.outputs().to_vec();
    let taken = graph
        .offer_picture()
        .map_err(|fault| wrong(fault.to_string()))?;
    let unsettled = |found: String| {
        let expected = "an engine that answers as before, wherever it has its tensors";
        Problem::one(at("tendon.stages[0]"), expected, found)
    };
    let settled = graph.settle();
    let settled = settled.map_err(|fault| unsettled(fault.to_string()))?;
    if taken || settled {
        made(graph)?;
        let same = graph.outputs().iter().zip(&expected);
        if !same.into_iter().all(|(given, wanted)| near(given, wanted)) {
            let found = "another answer to the same picture".to_owned();
            return Err(if taken {
                wrong(found)
            } else {
                unsettled(found)
            });
        }
    }
    Ok(taken)
}

/// Runs the fixture through tokenizer, scaling, normalisation, engine and un-normalisation.
fn run_fixture(
    bundle: &Bundle,
    graph: &mut Graph,
    text: &Text,
    fixture: &Fixture,
) -> Result<Parity, Vec<Problem>> {
    let wrong = |frame: usize, expected: String, found: String| {
        vec![Problem {
            at: format!("{} frame {frame}", bundle.parity.file),
            expected,
            found,
        }]
    };
    let columns = bundle.action.vector.names.len();
    let [width, height] = bundle.image.size;
    let pictures = fixture.images.chunks_exact(width * height * 3);
    let states = fixture.states.chunks_exact(bundle.state.names.len());
    let tokens = fixture.tokens.chunks_exact(bundle.text.max_len);
    let mut found = Vec::with_capacity(fixture.actions.len());
    for (frame, (((picture, state), tokens), sentence)) in pictures
        .zip(states)
        .zip(tokens)
        .zip(&fixture.sentences)
        .enumerate()
    {
        let encoded = text.encode(sentence).map_err(|fault| {
            wrong(
                frame,
                format!("\"{sentence}\" to be tokenised"),
                fault.to_string(),
            )
        })?;
        if encoded.tokens != tokens {
            let expected = format!("tokens {tokens:?} for \"{sentence}\"");
            return Err(wrong(
                frame,
                expected,
                format!("{:?} from {}", encoded.tokens, bundle.text.tokenizer),
            ));
        }
        graph.write_small_picture(picture).map_err(|fault| {
            wrong(
                frame,
                "a picture of the graph's size".into(),
                fault.to_string(),
            )
        })?;
        graph.write_state(state.iter().copied());
        graph.write_tokens(tokens);
        graph
            .run()
            .map_err(InferFault::from)
            .and_then(|()| graph.check_finite())
            .map_err(|fault| wrong(frame, "a run with finite results".into(), fault.to_string()))?;
        for row in graph.rows(columns) {
            found.extend((0..columns).map(|column| graph.restore(row, column)));
        }
    }
    let columns = Columns {
        names: &bundle.action.vector.names,
        units: &bundle.action.vector.units,
        trained_range: graph.action_range(),
    };
    Ok(Parity::judge(
        &bundle.parity,
        &columns,
        &fixture.actions,
        &found,
    ))
}

fn keep<T>(read: Result<T, Vec<Problem>>, problems: &mut Vec<Problem>) -> Option<T> {
    read.map_err(|found| problems.extend(found)).ok()
}

fn read_stats(bundle: &Bundle, stats: &StatsFile, names: &[String]) -> Result<Stats, Vec<Problem>> {
    let one = |problem| vec![problem];
    let bytes = bundle
        .folder()
        .read(&stats.file, &stats.file, SIDE_FILE_BYTES_MAX)
        .map_err(one)?;
    let file = TensorFile::parse(&stats.file, &bytes).map_err(one)?;
    Stats::read(&file, &stats.file, &stats.key, names)
}

/// The bundle's tokenizer.
pub(crate) fn read_text(bundle: &Bundle) -> Result<Text, Vec<Problem>> {
    let name = &bundle.text.tokenizer;
    let bytes = bundle
        .folder()
        .read(name, name, SIDE_FILE_BYTES_MAX)
        .map_err(|problem| vec![problem])?;
    Text::read(name, &bytes, bundle.text.max_len, bundle.text.pad_id)
        .map_err(|problem| vec![problem])
}

fn load_engine(
    bundle: &Bundle,
    precision: Precision,
    load: &EngineLoader<'_>,
) -> Result<Box<dyn Engine>, Vec<Problem>> {
    let wrong = |path: &str, expected: &str, found: String| {
        vec![Problem {
            at: at(path),
            expected: expected.into(),
            found,
        }]
    };
    let stage = &bundle.stage;
    let word = precision.word();
    let key = format!("tendon.stages[0].onnx.{word}");
    let Some(name) = stage.onnx.of(precision) else {
        return Err(wrong(
            &key,
            &format!("a file, as {word} was asked for"),
            "nothing".into(),
        ));
    };
    let path = bundle
        .folder()
        .locate_graph(&at(&key), name)
        .map_err(|problem| vec![problem])?;
    let engine = load(&path, &stage.spec)
        .map_err(|fault| wrong(&key, "a graph that the engine loads", fault.to_string()))?;
    if engine.inputs() != stage.spec.inputs || engine.outputs() != stage.spec.outputs {
        let list = |tensors: &[TensorSpec]| {
            let words: Vec<String> = tensors.iter().map(ToString::to_string).collect();
            words.join(", ")
        };
        let found = format!(
            "in {}; out {}",
            list(engine.inputs()),
            list(engine.outputs())
        );
        return Err(wrong(
            &key,
            "the manifest's tensors in the manifest's order",
            found,
        ));
    }
    Ok(engine)
}
