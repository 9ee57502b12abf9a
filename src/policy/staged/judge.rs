// SPDX-License-Identifier: Apache-2.0
//! What can be judged of a staged manifest without another file: numbers within reason, references that lead somewhere.

use crate::config::problem::Problem;
use crate::core::limits::{CAMERAS_MAX, JOINTS_MAX};
use crate::policy::check::{MS_MAX, PARITY_FRAMES_MAX};
use crate::policy::decode::diffusion::Diffusion;
use crate::policy::decode::post::Post;
use crate::policy::manifest::{PackageFile, Unit, at};
use crate::policy::means;
use crate::policy::parity::{COSINE_MIN, ERROR_FRACTION_MAX};
use crate::policy::staged::manifest::{
    ActionFile, LoopFile, SCHEMA, StagedFile, StateFile, TextFile,
};
use crate::policy::staged::plan::output_of;
use std::collections::BTreeSet;

/// Most frames of history of a camera.
const HISTORY_MAX: usize = 64;
/// Most actions of a chunk.
const HORIZON_MAX: usize = 1_024;
/// Most steps of a loop.
const STEPS_MAX: u32 = 1_000;
/// Most tokens of an answer, which is no prompt: as many steps of the model.
const ANSWER_TOKENS_MAX: usize = 4_096;

/// Collects what is wrong.
#[derive(Default)]
pub(super) struct Judge {
    pub(super) problems: Vec<Problem>,
}

impl Judge {
    fn wrong(&mut self, path: &str, expected: impl Into<String>, found: impl core::fmt::Display) {
        let found: String = found.to_string().chars().take(200).collect();
        self.problems.push(Problem {
            at: at(path),
            expected: expected.into(),
            found,
        });
    }

    /// Written so that a NaN fails too.
    fn within<T: PartialOrd + core::fmt::Debug>(&mut self, path: &str, low: T, high: T, found: T) {
        if !(found >= low && found <= high) {
            self.wrong(path, format!("{low:?} to {high:?}"), format!("{found:?}"));
        }
    }

    /// Every file that is named has a hash.
    pub(super) fn package(&mut self, package: &PackageFile, file: &StagedFile) {
        for (path, expected, found) in [
            ("format", "policy_package", &package.format),
            ("version", "1.0", &package.version),
        ] {
            if found != expected {
                self.wrong(path, format!("{expected:?}"), format!("{found:?}"));
            }
        }
        let mut named: Vec<(String, &String)> = Vec::new();
        for (key, name) in &package.model.artifacts {
            named.push((format!("model.artifacts.{key}"), name));
        }
        for (index, stage) in file.stages.iter().enumerate() {
            named.extend(stage.onnx.all().map(|(precision, name)| {
                let key = precision.word();
                (format!("tendon.stages[{index}].onnx.{key}"), name)
            }));
        }
        match &file.text {
            Some(TextFile::Prompt(prompt)) => {
                named.push(("tendon.text.tokenizer".into(), &prompt.tokenizer))
            }
            Some(TextFile::Table(table)) => named.push(("tendon.text.file".into(), &table.file)),
            None => {}
        }
        let state = file.state.as_ref().and_then(|state| state.stats.as_ref());
        let action = file
            .action
            .as_ref()
            .and_then(|action| action.stats.as_ref());
        named.extend(state.map(|stats| ("tendon.state.stats.file".into(), &stats.file)));
        named.extend(action.map(|stats| ("tendon.action.stats.file".into(), &stats.file)));
        named.push(("tendon.parity.file".into(), &file.parity.file));
        named.push(("tendon.parity.sentences".into(), &file.parity.sentences));
        for (key, name) in named {
            if !file.sha256.contains_key(name) {
                self.wrong(
                    &key,
                    "a file whose SHA-256 stands in tendon.sha256",
                    format!("\"{name}\", which does not"),
                );
            }
        }
    }

    /// Every number is within reason, every reference leads somewhere.
    pub(super) fn file(&mut self, file: &StagedFile) {
        self.within("tendon.schema", SCHEMA, SCHEMA, file.schema);
        self.within("tendon.cameras (count)", 0, CAMERAS_MAX, file.cameras.len());
        let mut roles = BTreeSet::new();
        for (index, camera) in file.cameras.iter().enumerate() {
            let path = format!("tendon.cameras[{index}]");
            if camera.role.is_empty() || camera.role.contains('.') || !roles.insert(&camera.role) {
                self.wrong(
                    &format!("{path}.role"),
                    "a name of its own without a dot",
                    format!("\"{}\"", camera.role),
                );
            }
            self.within(&format!("{path}.history"), 1, HISTORY_MAX, camera.history);
            let low = if camera.history > 1 { 1.0 } else { 0.0 };
            self.within(
                &format!("{path}.spacing_ms"),
                low,
                MS_MAX,
                camera.spacing_ms,
            );
            if camera.missing.is_some_and(|fill| !fill.is_finite()) {
                self.wrong(&format!("{path}.missing"), "a finite number", "another");
            }
        }
        if let Some(TextFile::Table(table)) = &file.text {
            self.within("tendon.text.width", 1, 65_536, table.width);
        }
        for (name, constant) in &file.constants {
            if !constant.fill.is_finite() {
                self.wrong(
                    &format!("tendon.constants.{name}.fill"),
                    "a finite number",
                    constant.fill,
                );
            }
        }
        if let Some(StateFile {
            names,
            units,
            pre,
            history,
            spacing_ms,
            ..
        }) = &file.state
        {
            self.vector("tendon.state", names, units, pre);
            self.within("tendon.state.history", 1, HISTORY_MAX, *history);
            let low = if *history > 1 { 1.0 } else { 0.0 };
            self.within("tendon.state.spacing_ms", low, MS_MAX, *spacing_ms);
        }
        if let Some(action) = &file.action {
            self.action(action, file.state.as_ref());
            let plans_on = matches!(&file.repeat, Some(LoopFile::Flow(flow)) if flow.rtc.is_some());
            self.problems.extend(means::judge(action, plans_on));
        }
        self.repeat(file);
        self.within(
            "tendon.timing.infer_hz",
            0.01,
            1_000.0,
            file.timing.infer_hz,
        );
        self.within(
            "tendon.timing.deadline_ms",
            0.1,
            MS_MAX,
            file.timing.deadline_ms,
        );
        self.within(
            "tendon.timing.max_observation_age_ms",
            0.1,
            MS_MAX,
            file.timing.max_observation_age_ms,
        );
        let parity = &file.parity;
        self.within("tendon.parity.frames", 1, PARITY_FRAMES_MAX, parity.frames);
        self.within(
            "tendon.parity.cosine_min",
            COSINE_MIN,
            1.0,
            parity.cosine_min,
        );
        self.within(
            "tendon.parity.error_max_fraction",
            1e-9,
            ERROR_FRACTION_MAX,
            parity.error_max_fraction,
        );
    }

    fn vector(&mut self, path: &str, names: &[String], units: &[Unit], ops: &[Post]) {
        self.within(
            &format!("{path}.names (count)"),
            1,
            JOINTS_MAX.max(64),
            names.len(),
        );
        if units.len() != names.len() {
            self.wrong(
                &format!("{path}.units"),
                format!("{} units, one a name", names.len()),
                units.len(),
            );
        }
        let mut seen = BTreeSet::new();
        for name in names.iter().filter(|name| !seen.insert(name.as_str())) {
            self.wrong(
                &format!("{path}.names"),
                "each name once",
                format!("\"{name}\" twice"),
            );
        }
        for (index, op) in ops.iter().enumerate() {
            if let Some(column) = op.bad_column(names.len()) {
                self.wrong(
                    &format!("{path}: operation {index}"),
                    format!("columns below {}", names.len()),
                    column,
                );
            }
        }
    }

    fn action(&mut self, action: &ActionFile, state: Option<&StateFile>) {
        self.vector("tendon.action", &action.names, &action.units, &action.post);
        self.within("tendon.action.horizon", 1, HORIZON_MAX, action.horizon);
        self.within("tendon.action.period_ms", 0.1, MS_MAX, action.period_ms);
        self.within(
            "tendon.action.first_step_ms",
            0.0,
            MS_MAX,
            action.first_step_ms,
        );
        for (index, op) in action.post.iter().enumerate() {
            let Post::AddState { mask } = op else {
                continue;
            };
            let named = |column: usize| {
                let ours = action.names.get(column).zip(action.units.get(column));
                let theirs =
                    state.and_then(|state| state.names.get(column).zip(state.units.get(column)));
                ours != theirs
            };
            let apart =
                (0..mask.len()).find(|column| mask.get(*column) == Some(&true) && named(*column));
            if let Some(column) = apart {
                self.wrong(
                    &format!("tendon.action.post[{index}]"),
                    "the same joint in the same column of tendon.state, as its position is added",
                    format!("column {column}, which is another"),
                );
            }
        }
    }

    fn repeat(&mut self, file: &StagedFile) {
        let mut outputs = Vec::new();
        match &file.repeat {
            None => {}
            Some(LoopFile::Flow(flow)) => {
                outputs.push(("velocity", &flow.velocity));
                self.within("tendon.loop.flow.steps", 1, STEPS_MAX, flow.flow.steps);
                self.within("tendon.loop.flow.t_start", 0.0, 1.0, flow.flow.t_start);
                self.within("tendon.loop.flow.t_end", 0.0, 1.0, flow.flow.t_end);
            }
            Some(LoopFile::Diffusion(diffusion)) => {
                outputs.push(("said", &diffusion.said));
                if Diffusion::new(diffusion.schedule.clone()).is_none() {
                    self.wrong(
                        "tendon.loop.schedule",
                        "1 to 1000 training steps, and no more steps than those (Octo: as many)",
                        format!("{:?}", diffusion.schedule),
                    );
                }
            }
            Some(LoopFile::Draw(_)) => {}
            Some(LoopFile::Tokens(tokens)) => {
                outputs.extend([("first", &tokens.first), ("next", &tokens.next)]);
                self.within("tendon.loop.max", 1, ANSWER_TOKENS_MAX, tokens.max);
                if tokens
                    .allowed
                    .is_some_and(|ids| ids.count == 0 || ids.from < tokens.logits_base)
                {
                    self.wrong(
                        "tendon.loop.allowed",
                        "at least one id from logits_base on",
                        "none",
                    );
                }
            }
        }
        for (key, name) in outputs {
            let at = output_of(file, name);
            let is_float = at
                .and_then(|at| file.stages.get(at.stage)?.outputs.values().nth(at.tensor))
                .is_some_and(|output| output.dtype == crate::ports::Dtype::F32);
            if !is_float {
                self.wrong(
                    &format!("tendon.loop.{key}"),
                    "STAGE.OUTPUT of this bundle, of floats",
                    format!("\"{name}\""),
                );
            }
        }
    }
}
