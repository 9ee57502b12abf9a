// SPDX-License-Identifier: Apache-2.0
//! Makes a bundle of a draft and of the statistics that openpi or OpenVLA save beside a checkpoint.
//!
//! The draft is a folder: graphs, tokenizer, fixture, and a manifest of schema 2 without statistics and hashes, which says
//! what neither file says (which number is which joint, what the graphs take). What is added here is what the file says,
//! and what only one reading of it can be: a data set that must be chosen, or a formula that the file does not name, is
//! asked for.

use crate::config::problem::Problem;
use crate::policy::normalise::{Convention, Mode};
use crate::policy::parts::Parts;
use crate::policy::staged::manifest::StatsFile;
use crate::policy::staged::stats::of_bytes;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// openpi's `norm_stats.json`.
    Openpi,
    /// OpenVLA's `dataset_statistics.json`.
    Openvla,
}

/// What is put together.
#[derive(Clone, Debug)]
pub struct Request {
    /// The draft's folder.
    pub draft: PathBuf,
    /// The statistics.
    pub statistics: PathBuf,
    /// Whose.
    pub origin: Origin,
    /// The data set, OpenVLA's `unnorm_key`; may be left out if there is one only.
    pub data_set: Option<String>,
    /// openpi's formula, which its file does not name: mean and deviation (pi0) or quantiles (pi0-FAST, pi0.5).
    pub mode: Option<Mode>,
    /// Joints of robot.toml, if the bundle is for one robot.
    pub joints: Option<Vec<String>>,
}

/// Largest file of a draft that is not a graph, in bytes.
const BYTES_MAX: u64 = 64 << 20;

type Fallible<T> = Result<T, Vec<Problem>>;

fn read_json(path: &Path) -> Fallible<(Vec<u8>, Value)> {
    let at = path.display().to_string();
    let wrong = |found: String| {
        Problem::one(
            &at,
            format!("a JSON file of at most {BYTES_MAX} bytes"),
            found,
        )
    };
    let size = std::fs::metadata(path)
        .map_err(|error| wrong(error.to_string()))?
        .len();
    if size > BYTES_MAX {
        return Err(wrong(size.to_string()));
    }
    let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let value = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
    Ok((bytes, value))
}

/// Where the file's numbers of state and action stand, and how they are meant.
struct Meant {
    file: &'static str,
    state: String,
    action: String,
    mode: Mode,
    convention: Convention,
}

fn meant(request: &Request, root: &Value) -> Fallible<Meant> {
    let at = request.statistics.display().to_string();
    match request.origin {
        Origin::Openpi => {
            if !root.get("norm_stats").is_some_and(Value::is_object) {
                return Err(Problem::one(
                    format!("{at}: norm_stats"),
                    "an object, as openpi writes it",
                    "none",
                ));
            }
            if let Some(key) = &request.data_set {
                return Err(Problem::one(
                    "unnorm-key",
                    "none: openpi's file is of one data set",
                    key,
                ));
            }
            let mode = request
                .mode
                .filter(|mode| matches!(mode, Mode::MeanStd | Mode::Quantiles));
            let mode = mode.ok_or_else(|| {
                Problem::one(
                    "mode",
                    "mean-std (pi0) or quantiles (pi0-FAST, pi0.5): openpi's file has both and does not say which is used",
                    request.mode.map_or("nothing".into(), |mode| format!("{mode:?}")),
                )
            })?;
            Ok(Meant {
                file: "norm_stats.json",
                state: "norm_stats.state".into(),
                action: "norm_stats.actions".into(),
                mode,
                convention: Convention::Openpi,
            })
        }
        Origin::Openvla => {
            if let Some(mode) = request.mode.filter(|mode| *mode != Mode::Quantiles) {
                return Err(Problem::one(
                    "mode",
                    "quantiles, or nothing: OpenVLA knows no other",
                    format!("{mode:?}"),
                ));
            }
            let sets: Vec<&String> = root
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, _)| key)
                .collect();
            let key = match (&request.data_set, sets.as_slice()) {
                (Some(key), sets) if sets.contains(&key) => key,
                (None, [only]) => only,
                (wanted, sets) => {
                    return Err(Problem::one(
                        "unnorm-key",
                        format!("one of {sets:?}, the data sets in {at}"),
                        wanted
                            .as_ref()
                            .map_or("nothing".into(), |key| format!("\"{key}\"")),
                    ));
                }
            };
            // A key with a dot in it would lead elsewhere in the manifest.
            if key.contains('.') {
                return Err(Problem::one(
                    "unnorm-key",
                    "a data set without a dot in its name",
                    key,
                ));
            }
            let mask = root.get(key).and_then(|set| set.get("action")?.get("mask"));
            if !mask.is_some_and(Value::is_array) {
                return Err(Problem::one(
                    format!("{at}: {key}.action.mask"),
                    "a list that says which numbers are normalised (a gripper usually is not)",
                    "none",
                ));
            }
            Ok(Meant {
                file: "dataset_statistics.json",
                state: format!("{key}.proprio"),
                action: format!("{key}.action"),
                mode: Mode::Quantiles,
                convention: Convention::Rlds,
            })
        }
    }
}

fn names(part: &Value, at: &str) -> Fallible<Vec<String>> {
    serde_json::from_value(part.get("names").cloned().unwrap_or(Value::Null)).map_err(|error| {
        Problem::one(
            format!("manifest.json: {at}.names"),
            "a list of names",
            error.to_string(),
        )
    })
}

/// Puts the statistics under `part`, after trying them.
fn add(part: &mut Value, at: &str, key: &str, meant: &Meant, bytes: &[u8]) -> Fallible<()> {
    if part.get("stats").is_some_and(|stats| !stats.is_null()) {
        return Err(Problem::one(
            format!("manifest.json: {at}.stats"),
            "nothing in a draft: it comes from the statistics' file",
            "something",
        ));
    }
    let names = names(part, at)?;
    let stats = StatsFile {
        file: meant.file.into(),
        key: key.into(),
        mode: meant.mode,
        convention: meant.convention,
        eps: 0.0,
        mask: None,
    };
    of_bytes(bytes, &stats, names.len())?;
    let word = |value: &dyn core::fmt::Debug| format!("{value:?}").to_lowercase();
    let mode = if meant.mode == Mode::MeanStd {
        "mean_std".into()
    } else {
        word(&meant.mode)
    };
    if let Some(part) = part.as_object_mut() {
        let stats = json!({"file": meant.file, "key": key, "mode": mode, "convention": word(&meant.convention)});
        part.insert("stats".into(), stats);
    }
    Ok(())
}

/// Writes the bundle into `out`, which must not exist.
///
/// # Errors
/// Every [`Problem`] of the first step that has any; nothing is written then.
pub fn import(request: &Request, out: &Path) -> Fallible<()> {
    if out.exists() {
        return Err(Problem::one(
            out.display().to_string(),
            "a folder that does not exist yet",
            "one that does",
        ));
    }
    let (_, mut manifest) = read_json(&request.draft.join("manifest.json"))?;
    let (bytes, root) = read_json(&request.statistics)?;
    let meant = meant(request, &root)?;
    let Some(tendon) = manifest
        .get_mut("tendon")
        .filter(|tendon| tendon.get("schema") == Some(&json!(2)))
    else {
        return Err(Problem::one(
            "manifest.json: tendon.schema",
            "2: a draft says what the graphs take",
            "another",
        ));
    };
    let Some(action) = tendon.get_mut("action").filter(|action| action.is_object()) else {
        return Err(Problem::one(
            "manifest.json: tendon.action",
            "an object",
            "none",
        ));
    };
    add(action, "tendon.action", &meant.action, &meant, &bytes)?;
    let told = names(action, "tendon.action")?;
    if let Some(joints) = &request.joints {
        let stranger = told.iter().find(|name| !joints.contains(name));
        let idle = joints.iter().find(|joint| !told.contains(joint));
        if let Some(name) = stranger.or(idle) {
            return Err(Problem::one(
                "manifest.json: tendon.action.names",
                format!("the robot's joints {joints:?}, all of them and no others"),
                format!("\"{name}\" in one of the two only"),
            ));
        }
    }
    if let Some(state) = tendon.get_mut("state").filter(|state| state.is_object()) {
        add(state, "tendon.state", &meant.state, &meant, &bytes)?;
    }
    let wrong = |error: std::io::Error| {
        Problem::one(
            request.draft.display().to_string(),
            "a readable folder",
            error.to_string(),
        )
    };
    let mut parts = Parts::default();
    for entry in std::fs::read_dir(&request.draft).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .map(str::to_owned);
        if let Some(name) = name.filter(|name| path.is_file() && name != "manifest.json") {
            if name == meant.file {
                return Err(Problem::one(
                    path.display().to_string(),
                    "no statistics in a draft",
                    name,
                ));
            }
            parts.copied(name, path);
        }
    }
    parts.made(meant.file, bytes);
    let sha256 = parts.sha256()?;
    if let Some(tendon) = manifest.get_mut("tendon").and_then(Value::as_object_mut) {
        tendon.insert("sha256".into(), json!(sha256));
    }
    parts.write(out, &manifest)
}
