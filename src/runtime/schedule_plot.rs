// SPDX-License-Identifier: Apache-2.0
//! A picture of traces over two seams: position, velocity and acceleration, as SVG.

use crate::runtime::schedule_sim::{Scenario, TICK_MS, Trace};
use std::fmt::Write;

/// The scenario shown: plans that part, 150 ms of delay.
const SHOWN: (&str, u64, u64) = ("two_ways", 150, 0);
/// Ticks before the first and after the second of the two seams.
const MARGIN: usize = 20;
const WIDTH: f64 = 860.0;
const PANEL: f64 = 190.0;
const COLOURS: [&str; 6] = [
    "#0b6e4f", "#c8102e", "#d98200", "#5b4b8a", "#2a7ab0", "#777777",
];

/// Tendon's `replace` and every trace of other software; empty of lines if the scenario is not there.
#[must_use]
pub fn draw(scenarios: &[Scenario], traces: &[Trace]) -> String {
    let shown = |trace: &&Trace| {
        scenarios
            .get(trace.scenario)
            .is_some_and(|s| (s.stream.as_str(), s.delay_ms, s.jitter_ms) == SHOWN && s.loss == 0.0)
            && (trace.name == "tendon replace" || !trace.name.starts_with("tendon"))
    };
    let lines: Vec<&Trace> = traces.iter().filter(shown).take(COLOURS.len()).collect();
    let seams = lines.first().map_or(&[][..], |trace| &trace.seams);
    // In the middle of the run, clear of the start.
    let middle = seams.len() / 2;
    let (Some(from), Some(to)) = (seams.get(middle), seams.get(middle + 1)) else {
        return String::from("<svg xmlns=\"http://www.w3.org/2000/svg\"/>\n");
    };
    let (from, to) = (from.saturating_sub(MARGIN), to + MARGIN);
    let dt = TICK_MS as f64 * 1e-3;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        3.0 * PANEL + 40.0
    );
    for (panel, (title, power)) in [
        ("position, rad", 0),
        ("velocity, rad/s", 1),
        ("acceleration, rad/s2", 2),
    ]
    .iter()
    .enumerate()
    {
        let curves: Vec<Vec<f64>> = lines
            .iter()
            .map(|trace| {
                let mut values: Vec<f64> = trace
                    .positions_rad
                    .iter()
                    .map(|q| q.unwrap_or(0.0))
                    .collect();
                for _ in 0..*power {
                    values = values
                        .windows(2)
                        .map(|pair| (pair[1] - pair[0]) / dt)
                        .collect();
                }
                // Each difference lies one tick late.
                values
                    .get(from - power..to - power)
                    .unwrap_or_default()
                    .to_vec()
            })
            .collect();
        let all = || curves.iter().flatten().copied();
        let (low, high) = (
            all().fold(f64::MAX, f64::min),
            all().fold(f64::MIN, f64::max),
        );
        let top = 20.0 + panel as f64 * PANEL;
        let y = |value: f64| top + (PANEL - 40.0) * (high - value) / (high - low).max(1e-9);
        // Writing to a String cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"60\" y=\"{:.0}\">{title} ({low:.2} to {high:.2})</text>",
            top - 5.0
        );
        for (curve, colour) in curves.iter().zip(COLOURS).rev() {
            let points: String = curve
                .iter()
                .enumerate()
                .map(|(tick, value)| {
                    let x = 60.0 + (WIDTH - 80.0) * tick as f64 / (to - from) as f64;
                    format!("{x:.1},{:.1} ", y(*value))
                })
                .collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.3\" points=\"{}\"/>",
                points.trim_end()
            );
        }
    }
    for (line, (trace, colour)) in lines.iter().zip(COLOURS).enumerate() {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{}</text>",
            60 + 260 * (line % 3),
            3.0 * PANEL + 14.0 + 16.0 * (line / 3) as f64,
            trace.name
        );
    }
    svg.push_str("</svg>\n");
    svg
}
