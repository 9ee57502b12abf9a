// SPDX-License-Identifier: Apache-2.0
//! `[derate]` of `tendon.toml`: when the machine is hot, draws much or throttles, the robot is slower before anything fails.

use crate::config::file::{Located, Number};
use crate::core::derate::{Curve, POINTS_MAX};
use serde::Deserialize;
use toml::Spanned;

/// Points as written: reading and percent of the speed limits.
type Points = Spanned<Vec<[Number; 2]>>;

/// `[derate]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DerateTable {
    /// By the hottest thermal zone, degrees Celsius.
    pub temperature_c: Option<Points>,
    /// By a power rail, watts.
    pub power_w: Option<Points>,
    /// The rail's label, e.g. "VDD_IN".
    pub power_rail: Option<Spanned<String>>,
    /// Percent of the speed limits for ten seconds after the machine has throttled for too much current.
    pub over_current_percent: Option<Spanned<Number>>,
}

/// `[derate]`, checked; shares are 0 to 1.
#[derive(Clone, Debug, Default)]
pub struct DerateConfig {
    /// By the hottest thermal zone, degrees Celsius.
    pub temperature: Option<Curve>,
    /// By a power rail, watts.
    pub power: Option<(String, Curve)>,
    /// After the machine has throttled for too much current.
    pub over_current: Option<f64>,
}

impl DerateConfig {
    /// Whether nothing is declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.temperature.is_none() && self.power.is_none() && self.over_current.is_none()
    }
}

/// Checks the table; every mistake is noted with its line.
pub(super) fn check(written: Option<&DerateTable>, at: &mut Located<'_>) -> DerateConfig {
    let Some(written) = written else {
        return DerateConfig::default();
    };
    let temperature = curve("derate.temperature_c", written.temperature_c.as_ref(), at);
    let by_power = curve("derate.power_w", written.power_w.as_ref(), at);
    match (&written.power_w, &written.power_rail) {
        (Some(points), None) => at.push(
            points,
            "derate.power_rail",
            "the label of a rail beside it (tendon doctor --json lists them)",
            "nothing".into(),
        ),
        (None, Some(rail)) => at.push(
            rail,
            "derate.power_w",
            "a curve beside derate.power_rail",
            "nothing".into(),
        ),
        (Some(_), Some(_)) | (None, None) => {}
    }
    let rail = written
        .power_rail
        .as_ref()
        .map(|rail| rail.get_ref().clone());
    DerateConfig {
        temperature,
        power: rail.zip(by_power),
        over_current: written
            .over_current_percent
            .as_ref()
            .map(|percent| at.within("derate.over_current_percent", percent, 0.0, 100.0) / 100.0),
    }
}

fn curve(key: &str, points: Option<&Points>, at: &mut Located<'_>) -> Option<Curve> {
    let points = points?;
    let shares: Vec<(f64, f64)> = points
        .get_ref()
        .iter()
        .map(|[reading, percent]| (reading.0, percent.0 / 100.0))
        .collect();
    let curve = Curve::new(&shares);
    if curve.is_none() {
        let found: Vec<String> = points
            .get_ref()
            .iter()
            .map(|[reading, percent]| format!("[{}, {}]", reading.0, percent.0))
            .collect();
        let expected = format!(
            "1 to {POINTS_MAX} pairs of a reading and percent of the speed limits, readings rising and percents not, such as \
             [[80, 100], [95, 40]]"
        );
        at.push(points, key, &expected, format!("[{}]", found.join(", ")));
    }
    curve
}
