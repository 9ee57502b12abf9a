// SPDX-License-Identifier: Apache-2.0
//! Two truths in one file must agree: what the outer `policy_package` says of cameras, orders, processors and files is
//! compared with what `tendon` says, so that another reader of the same folder drives the robot alike.

use crate::policy::check::Judge;
use crate::policy::manifest::{ComponentFile, PackageFile, TendonFile};

impl Judge {
    pub(super) fn package(&mut self, package: &PackageFile, ours: &TendonFile) {
        self.equal("format", "policy_package", &package.format);
        self.equal("version", "1.0", &package.version);
        self.equal("model.n_obs_steps", &1, &package.model.n_obs_steps);
        if let Some(runner) = &package.model.runner {
            self.equal("model.runner.type", "single_pass", &runner.kind);
        }
        let artifacts = package
            .model
            .artifacts
            .iter()
            .map(|(key, name)| (format!("model.artifacts.{key}"), name));
        let stages = ours.stages.iter().enumerate().flat_map(|(at, stage)| {
            stage.onnx.all().map(move |(precision, name)| {
                let key = precision.word();
                (format!("tendon.stages[{at}].onnx.{key}"), name)
            })
        });
        let side = [
            ("tendon.text.tokenizer", &ours.text.tokenizer),
            ("tendon.state.stats.file", &ours.state.stats.file),
            ("tendon.action.stats.file", &ours.action.stats.file),
            ("tendon.parity.file", &ours.parity.file),
            ("tendon.parity.sentences", &ours.parity.sentences),
        ];
        let named: Vec<(String, &String)> = artifacts
            .chain(stages)
            .chain(side.map(|(key, name)| (key.to_owned(), name)))
            .collect();
        for (key, name) in named {
            if !ours.sha256.contains_key(name) {
                self.wrong(
                    &key,
                    "a file whose SHA-256 stands in tendon.sha256",
                    format!("\"{name}\", which does not"),
                );
            }
        }
        self.processors(
            "model.preprocessors",
            "normalize",
            &package.model.preprocessors,
            &ours.state.stats.file,
        );
        self.processors(
            "model.postprocessors",
            "denormalize",
            &package.model.postprocessors,
            &ours.action.stats.file,
        );
        if let Some(camera) = package
            .hardware
            .cameras
            .iter()
            .find(|camera| camera.name == ours.image.role)
        {
            let [width, height] = ours.image.source_size;
            if !camera.shape.is_empty() {
                self.equal(
                    "hardware.cameras: shape (tendon.image.source_size)",
                    &[3, height, width][..],
                    &camera.shape[..],
                );
            }
        } else if !package.hardware.cameras.is_empty() {
            self.wrong(
                "hardware.cameras",
                format!("one named \"{}\" (tendon.image.role)", ours.image.role),
                "none",
            );
        }
        if let Some(robot) = package.hardware.robots.first() {
            let pairs = [
                (
                    "hardware.robots[0].state.order",
                    &robot.state,
                    &ours.state.names,
                ),
                (
                    "hardware.robots[0].action.order",
                    &robot.action,
                    &ours.action.names,
                ),
            ];
            for (path, order, names) in pairs {
                if let Some(order) = order.as_ref().filter(|order| !order.order.is_empty()) {
                    self.equal(path, names, &order.order);
                }
            }
        }
    }

    /// A processor that is not carried out here would be silently left out, so it is refused.
    fn processors(&mut self, path: &str, kind: &str, found: &[ComponentFile], file: &str) {
        for (index, component) in found.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if component.kind != kind {
                let name = if component.kind.is_empty() {
                    &component.class_path
                } else {
                    &component.kind
                };
                self.wrong(&path, format!("type \"{kind}\""), format!("\"{name}\""));
                continue;
            }
            self.equal(
                &format!("{path}.mode"),
                "mean_std",
                component.mode.as_deref().unwrap_or("nothing"),
            );
            self.equal(
                &format!("{path}.artifact"),
                file,
                component.artifact.as_deref().unwrap_or("nothing"),
            );
        }
    }
}
