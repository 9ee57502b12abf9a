// SPDX-License-Identifier: Apache-2.0
//! Statistics by reference: LeRobot's flat safetensors keys, or the JSON objects of OpenVLA, Octo and openpi.

use crate::config::problem::Problem;
use crate::policy::folder::{Folder, SIDE_FILE_BYTES_MAX};
use crate::policy::normalise::{Normaliser, figures};
use crate::policy::staged::manifest::StatsFile;
use crate::policy::tensors::TensorFile;
use serde_json::Value;

/// Reads the statistics of `names`.
///
/// # Errors
/// Every [`Problem`], with file and key.
pub(crate) fn read(
    folder: &Folder,
    stats: Option<&StatsFile>,
    names: &[String],
) -> Result<Normaliser, Vec<Problem>> {
    let Some(stats) = stats else {
        return Ok(Normaliser::identity(names.len()));
    };
    let bytes = folder
        .read(&stats.file, &stats.file, SIDE_FILE_BYTES_MAX)
        .map_err(|problem| vec![problem])?;
    of_bytes(&bytes, stats, names.len())
}

/// As [`read`], of bytes in memory.
///
/// # Errors
/// Every [`Problem`], with file and key.
pub(crate) fn of_bytes(
    bytes: &[u8],
    stats: &StatsFile,
    width: usize,
) -> Result<Normaliser, Vec<Problem>> {
    let at = format!("{}: {}", stats.file, stats.key);
    let Some(wanted) = figures(stats.mode) else {
        return Ok(Normaliser::identity(width));
    };
    let mut mask = stats.mask.clone();
    let mut problems = Vec::new();
    let mut lists: [Vec<f32>; 2] = [Vec::new(), Vec::new()];
    if stats.file.ends_with(".json") {
        let root: Value = serde_json::from_slice(bytes).map_err(|error| {
            vec![Problem {
                at: stats.file.clone(),
                expected: "JSON".into(),
                found: error.to_string(),
            }]
        })?;
        let object = stats
            .key
            .split('.')
            .try_fold(&root, |value, key| value.get(key));
        for (list, figure) in lists.iter_mut().zip(wanted) {
            // Octo writes p01 and p99 for what OpenVLA calls q01 and q99.
            let found = object.and_then(|object| {
                object
                    .get(figure)
                    .or_else(|| object.get(figure.replacen('q', "p", 1)))
            });
            match found.and_then(floats).filter(|list| list.len() == width) {
                Some(found) => *list = found,
                None => problems.push(Problem {
                    at: format!("{at}.{figure}"),
                    expected: format!("a list of {width} numbers"),
                    found: found.map_or("nothing".into(), shape),
                }),
            }
        }
        let own = object
            .and_then(|object| object.get("mask"))
            .and_then(Value::as_array);
        if mask.is_none()
            && let Some(own) = own
        {
            mask = Some(
                own.iter()
                    .map(|bit| bit.as_bool().unwrap_or(true))
                    .collect(),
            );
        }
    } else {
        let file = TensorFile::parse(&stats.file, bytes).map_err(|problem| vec![problem])?;
        for (list, figure) in lists.iter_mut().zip(wanted) {
            // LeRobot's separator, or that of a policy_package.
            let slashed = format!("{}/{figure}", stats.key);
            let key = match file.has(&slashed) {
                true => slashed,
                false => format!("{}.{figure}", stats.key),
            };
            match file.f32(&key, &[width]) {
                Ok(found) => *list = found,
                Err(problem) => problems.push(problem),
            }
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Normaliser::new(stats.mode, stats.convention, stats.eps, lists, mask, &at)
}

/// Numbers of a JSON list.
pub(crate) fn floats(value: &Value) -> Option<Vec<f32>> {
    value
        .as_array()?
        .iter()
        .map(|number| number.as_f64().map(|number| number as f32))
        .collect()
}

fn shape(value: &Value) -> String {
    match value {
        Value::Array(list) => format!("a list of {}", list.len()),
        other => other.to_string().chars().take(40).collect(),
    }
}
