// SPDX-License-Identifier: Apache-2.0
//! The desk as the operator's page sees it.

use crate::core::units::Mono;
use crate::operator::{Gauge, JointView, Operator, Picture, Snapshot};
use crate::runtime::clock;
use crate::runtime::health::{Clock, Health};
use crate::runtime::operations::Desk;
use crate::runtime::telemetry::{Figures, Spread};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// Figures as they are added, those of one name together.
#[derive(Default)]
struct Gauges(Vec<Gauge>);

impl Gauges {
    /// Of two that nothing tells apart, as thermal zones that bear the same name, the larger one counts.
    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        let labels: Vec<(&'static str, String)> = labels
            .iter()
            .map(|(key, text)| (*key, (*text).to_owned()))
            .collect();
        let same = |gauge: &&mut Gauge| gauge.name == name && gauge.labels == labels;
        match self.0.iter_mut().find(same) {
            Some(gauge) => gauge.value = gauge.value.max(value),
            None => self.0.push(Gauge {
                name,
                help,
                labels,
                value,
            }),
        }
    }

    /// The way from light to command in its parts.
    fn stages(&mut self, figures: &Figures) {
        let stages = figures.stages;
        for (stage, spread) in [
            ("capture", stages.capture_ms),
            ("wait", stages.wait_ms),
            ("inference", figures.inference_ms),
            ("command", stages.command_ms),
        ] {
            let Spread { p50, p99, .. } = spread;
            for (quantile, value) in [("0.5", p50), ("0.99", p99)] {
                self.add(
                    "tendon_stage_ms",
                    "From capture to hand-over, to being taken up, to the chunk, to the first command made of it.",
                    &[("stage", stage), ("quantile", quantile)],
                    value,
                );
            }
        }
    }

    /// What the machine says about itself; what is absent is left out.
    fn health(&mut self, health: &Health) {
        for zone in &health.temperatures {
            let of = [("zone", zone.name.as_str())];
            let help = "Of a thermal zone.";
            self.add("tendon_temperature_celsius", help, &of, zone.now_c);
        }
        for zone in &health.temperatures {
            if let Some(trip_c) = zone.trip_c {
                let of = [("zone", zone.name.as_str())];
                let help = "Where it slows the machine down or worse.";
                self.add("tendon_temperature_trip_celsius", help, &of, trip_c);
            }
        }
        for (device, state) in &health.cooling {
            let help = "State of a cooling device that is at work.";
            let of = [("device", device.as_str())];
            self.add("tendon_cooling_state", help, &of, *state as f64);
        }
        for (name, help, of_clock) in [
            (
                "tendon_clock_hz",
                "Of a CPU cluster or the GPU.",
                (|clock| clock.now_hz) as fn(&Clock) -> u64,
            ),
            ("tendon_clock_min_hz", "Least it may be set to.", |clock| {
                clock.min_hz
            }),
            (
                "tendon_clock_max_hz",
                "Most it may be set to; falls when the machine is held back.",
                |clock| clock.max_hz,
            ),
            ("tendon_clock_top_hz", "Most that it can.", |clock| {
                clock.top_hz
            }),
        ] {
            for clock in health.cpu_clocks.iter().chain(&health.gpu_clock) {
                let of = [("clock", clock.name.as_str())];
                self.add(name, help, &of, of_clock(clock) as f64);
            }
        }
        if let Some(load) = health.gpu_load {
            self.add("tendon_gpu_load_ratio", "The GPU's load.", &[], load);
        }
        for rail in &health.rails {
            let of = [("rail", rail.name.as_str())];
            self.add("tendon_power_watts", "Of a power rail.", &of, rail.power_w);
        }
        for events in &health.over_current {
            let of = [("line", events.name.as_str())];
            let help = "Times that the board throttled itself for too much current, since boot.";
            self.add("tendon_over_current_total", help, &of, events.count as f64);
        }
        if let Some(memory) = health.memory {
            for (name, help, bytes) in [
                (
                    "tendon_memory_available_bytes",
                    "Can be had without swapping.",
                    memory.available,
                ),
                ("tendon_memory_size_bytes", "All of it.", memory.total),
            ] {
                self.add(name, help, &[], bytes as f64);
            }
            if let Some(percent) = memory.pressure_percent {
                let help = "Share of ten seconds in which some task waited for memory.";
                self.add("tendon_memory_pressure_percent", help, &[], percent);
            }
        }
        if let Some(disk) = health.disk {
            for (name, help, bytes) in [
                (
                    "tendon_disk_free_bytes",
                    "Where the state is kept.",
                    disk.free,
                ),
                ("tendon_disk_size_bytes", "All of that disk.", disk.total),
            ] {
                self.add(name, help, &[], bytes as f64);
            }
        }
    }
}

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
            precision: self.precision.to_owned(),
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
            egress_allocations: self.counters.egress_allocations.load(Ordering::Relaxed),
            faults: self.counters.faults(),
        }
    }

    fn gauges(&self) -> Vec<Gauge> {
        let mut gauges = Gauges::default();
        gauges.stages(&self.figures());
        let health = &self.counters.health;
        gauges.health(&health.lock().unwrap_or_else(PoisonError::into_inner));
        gauges.0
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

    fn now(&self) -> Mono {
        clock::now()
    }

    fn request_mode(&self, mode: &str, made: Mono) -> Result<String, String> {
        Desk::request_mode(self, mode, made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::health::{Disk, Events, Memory, Temperature};

    fn zone(name: &str, now_c: f64, trip_c: Option<f64>) -> Temperature {
        Temperature {
            name: name.into(),
            now_c,
            trip_c,
        }
    }

    #[test]
    fn every_figure_of_the_machine_is_told_once_and_those_of_one_name_together() {
        let clock = |name: &str| Clock {
            name: name.into(),
            governor: None,
            now_hz: 1,
            min_hz: 2,
            max_hz: 3,
            top_hz: 4,
        };
        let health = Health {
            temperatures: vec![
                zone("acpitz", 40.0, None),
                zone("gpu", 50.0, Some(99.0)),
                zone("acpitz", 60.0, None),
            ],
            cooling: vec![("fan".into(), 2)],
            cpu_clocks: vec![clock("policy0"), clock("policy4")],
            gpu_clock: Some(clock("17000000.gpu")),
            gpu_load: Some(0.5),
            rails: vec![],
            over_current: vec![Events {
                name: "oc1".into(),
                count: 7,
            }],
            memory: Some(Memory {
                available: 5,
                total: 6,
                pressure_percent: Some(12.5),
            }),
            disk: Some(Disk { free: 8, total: 9 }),
        };
        let mut gauges = Gauges::default();
        gauges.health(&health);
        let value = |name: &str, label: Option<&str>| {
            let mut found = gauges.0.iter().filter(|gauge| {
                gauge.name == name && gauge.labels.first().map(|(_, text)| text.as_str()) == label
            });
            let value = found.next().map(|gauge| gauge.value);
            assert!(found.next().is_none(), "{name} {label:?} twice");
            value
        };
        for (name, label, wants) in [
            ("tendon_temperature_celsius", Some("acpitz"), Some(60.0)),
            ("tendon_temperature_celsius", Some("gpu"), Some(50.0)),
            ("tendon_temperature_trip_celsius", Some("gpu"), Some(99.0)),
            ("tendon_temperature_trip_celsius", Some("acpitz"), None),
            ("tendon_cooling_state", Some("fan"), Some(2.0)),
            ("tendon_clock_hz", Some("policy4"), Some(1.0)),
            ("tendon_clock_max_hz", Some("17000000.gpu"), Some(3.0)),
            ("tendon_clock_top_hz", Some("policy0"), Some(4.0)),
            ("tendon_gpu_load_ratio", None, Some(0.5)),
            ("tendon_power_watts", Some("VDD_IN"), None),
            ("tendon_over_current_total", Some("oc1"), Some(7.0)),
            ("tendon_memory_available_bytes", None, Some(5.0)),
            ("tendon_memory_pressure_percent", None, Some(12.5)),
            ("tendon_disk_free_bytes", None, Some(8.0)),
        ] {
            assert_eq!(value(name, label), wants, "{name} {label:?}");
        }
        let mut names: Vec<&str> = gauges.0.iter().map(|gauge| gauge.name).collect();
        names.dedup();
        let runs = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), runs, "one run a name");
        let mut none = Gauges::default();
        none.health(&Health::default());
        assert!(none.0.is_empty(), "what is absent is left out");
    }
}
