// SPDX-License-Identifier: Apache-2.0
//! The desk as the operator's page sees it.

use crate::operator::{JointView, Operator, Picture, Snapshot};
use crate::runtime::deployment::precision_word;
use crate::runtime::operations::Desk;
use std::sync::atomic::Ordering;

impl Operator for Desk {
    fn snapshot(&self) -> Snapshot {
        let (view, figures) = (self.view(), self.figures());
        let state = view.report.as_ref().map(|report| &report.state);
        let commanded = view.output.as_ref().map(|output| output.command.get());
        let joints = self
            .joints
            .iter()
            .enumerate()
            .map(|(index, (name, min, max))| JointView {
                name: name.clone(),
                measured: state.map_or(0.0, |state| state.position[index]),
                commanded: commanded.map_or(0.0, |setpoint| setpoint.position[index]),
                min: *min,
                max: *max,
            });
        Snapshot {
            mode: view.decision.mode.word().to_owned(),
            reason: view
                .decision
                .cause
                .map_or_else(String::new, |cause| cause.words().to_owned()),
            instruction: view.instruction,
            unknown_words: view.unknown_words,
            policy: self.policy.clone(),
            precision: precision_word(self.precision).to_owned(),
            joints: joints.collect(),
            keypoint: view.insight.keypoint,
            presence: view.insight.presence,
            inference_ms: figures.inference_ms.p50,
            frame_to_command_ms: figures.frame_to_command_ms.p50,
            tick_lateness_us: figures.tick_lateness_us.p50,
            commands_sent: figures.commands,
            late_ticks: figures.ticks_missed,
            stalls: figures.ladder.stalls,
            tail_s: figures.ladder.tail_s,
            stalled_s: figures.ladder.slowing_s + figures.ladder.hold_s,
            governor_interventions: self.counters.interventions.load(Ordering::Relaxed),
            allocations: self.allocations(),
            faults: self.counters.faults(),
        }
    }

    fn picture(&self, into: &mut Picture) {
        let view = self.view();
        (into.width, into.height, into.seq) =
            (view.picture.width, view.picture.height, view.picture.seq);
        into.rgb.clone_from(&view.picture.rgb);
    }

    fn instruct(&self, text: &str) -> Result<String, String> {
        Desk::instruct(self, text)
    }

    fn request_mode(&self, mode: &str) -> Result<String, String> {
        Desk::request_mode(self, mode)
    }
}
