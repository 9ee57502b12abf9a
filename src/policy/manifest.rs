// SPDX-License-Identifier: Apache-2.0
//! `manifest.json` as written: a `policy_package` 1.0 and what stands under its `tendon` key.
//!
//! The outer format belongs to others and may carry keys that we do not know; they are skipped, as its other readers
//! do. Under `tendon` nothing unknown passes: a key that is not understood is a wish that would not be met.
//!
//! Only reading happens here; [`super::bundle`] judges the values.

use crate::config::Precision;
use crate::config::problem::Problem;
use crate::ports::Dtype;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The whole file.
#[derive(Clone, Debug)]
pub struct ManifestFile {
    /// What the package says to every reader.
    pub package: PackageFile,
    /// What it says to Tendon.
    pub tendon: TendonFile,
}

/// The parts of a `policy_package` that are compared with `tendon`.
#[derive(Clone, Debug, Deserialize)]
pub struct PackageFile {
    /// `policy_package`.
    pub format: String,
    /// `1.0`.
    pub version: String,
    /// Who the policy is.
    pub policy: PolicyFile,
    /// How other readers run it.
    pub model: ModelFile,
    /// What it was trained on.
    #[serde(default)]
    pub hardware: HardwareFile,
}

/// `policy`.
#[derive(Clone, Debug, Deserialize)]
pub struct PolicyFile {
    /// Name for people.
    pub name: String,
}

/// `model`.
#[derive(Clone, Debug, Deserialize)]
pub struct ModelFile {
    /// Observations a run takes.
    #[serde(default = "one")]
    pub n_obs_steps: u32,
    /// How the graph is run.
    pub runner: Option<ComponentFile>,
    /// Files by logical name.
    #[serde(default)]
    pub artifacts: BTreeMap<String, String>,
    /// What is done to an observation before the graph.
    #[serde(default)]
    pub preprocessors: Vec<ComponentFile>,
    /// What is done to the graph's action after it.
    #[serde(default)]
    pub postprocessors: Vec<ComponentFile>,
}

fn one() -> u32 {
    1
}

/// A component in the short form `{"type": NAME, ...}`; the long form has a `class_path` instead, which is Python.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ComponentFile {
    /// Registered short name; empty in the long form.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// Python class in the long form.
    #[serde(default)]
    pub class_path: String,
    /// Normalisation of a `normalize` or `denormalize`.
    pub mode: Option<String>,
    /// Its file.
    pub artifact: Option<String>,
}

/// `hardware`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct HardwareFile {
    /// Robots; the first is ours.
    #[serde(default)]
    pub robots: Vec<RobotFile>,
    /// Cameras by name.
    #[serde(default)]
    pub cameras: Vec<CameraFile>,
}

/// A robot as the package describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct RobotFile {
    /// Order of the state vector.
    pub state: Option<OrderFile>,
    /// Order of the action vector.
    pub action: Option<OrderFile>,
}

/// Names along a vector.
#[derive(Clone, Debug, Deserialize)]
pub struct OrderFile {
    /// The names; empty if the package does not say.
    #[serde(default)]
    pub order: Vec<String>,
}

/// A camera as the package describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct CameraFile {
    /// Its role.
    pub name: String,
    /// Channels, height, width; empty if the package does not say.
    #[serde(default)]
    pub shape: Vec<usize>,
}

/// `tendon`.
#[derive(Clone, Debug)]
pub struct TendonFile {
    /// Version of this key, 1.
    pub schema: u32,
    /// Graphs in the order in which they run.
    pub stages: Vec<StageFile>,
    /// The picture.
    pub image: ImageFile,
    /// The sentence.
    pub text: TextFile,
    /// The joint state.
    pub state: StateFile,
    /// What comes out.
    pub action: ActionFile,
    /// How often, how soon.
    pub timing: TimingFile,
    /// The fixture that a loaded bundle must reproduce.
    pub parity: ParityFile,
    /// File name -> SHA-256 in hexadecimal.
    pub sha256: BTreeMap<String, String>,
}

/// One graph.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageFile {
    /// Its name.
    pub id: String,
    /// Its file for each precision.
    pub onnx: OnnxFile,
    /// Inputs by the graph's names.
    pub inputs: BTreeMap<String, InputFile>,
    /// Outputs by the graph's names.
    pub outputs: BTreeMap<String, OutputFile>,
}

/// The files of a graph.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnnxFile {
    /// 32-bit float.
    pub fp32: String,
    /// 16-bit float, with inputs and outputs as the manifest has them.
    pub fp16: Option<String>,
    /// Quantised with explicit Q/DQ nodes.
    pub int8: Option<String>,
}

impl OnnxFile {
    /// The file of a precision, if there is one.
    #[must_use]
    pub fn of(&self, precision: Precision) -> Option<&String> {
        match precision {
            Precision::Fp32 => Some(&self.fp32),
            Precision::Fp16 => self.fp16.as_ref(),
            Precision::Int8 => self.int8.as_ref(),
        }
    }

    /// The file of a precision; where a block was not worth it, those that may stand for it, the nearest first: of eight bits that of
    /// 16, if there is one, and that of 32 for an engine that takes no 16. With their precisions; never empty.
    #[must_use]
    pub fn nearest(&self, precision: Precision) -> Vec<(Precision, &String)> {
        let others = [Precision::Fp16, Precision::Fp32].into_iter();
        match self.of(precision) {
            Some(name) => vec![(precision, name)],
            None => others
                .filter_map(|other| Some((other, self.of(other)?)))
                .collect(),
        }
    }

    /// All that there are.
    pub fn all(&self) -> impl Iterator<Item = (Precision, &String)> {
        let precisions = Precision::ALL.into_iter();
        precisions.filter_map(|precision| Some((precision, self.of(precision)?)))
    }
}

/// An input of a graph.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Element type.
    pub dtype: Dtype,
    /// Fixed shape.
    pub shape: Vec<usize>,
    /// `image.<role>`, `state` or `text`.
    pub from: String,
}

/// An output of a graph.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputFile {
    /// Element type.
    pub dtype: Dtype,
    /// Fixed shape.
    pub shape: Vec<usize>,
}

/// How a picture becomes a tensor.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFile {
    /// Camera.
    pub role: String,
    /// Width and height of the camera's picture.
    pub source_size: [usize; 2],
    /// Width and height of the graph's picture.
    pub size: [usize; 2],
    /// From the one to the other.
    pub resize: ResizeFile,
    /// A byte times this is the graph's number.
    pub scale: f64,
    /// Order of the axes.
    pub layout: Layout,
    /// Order of the channels.
    pub color: Color,
}

/// The resampler.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResizeFile {
    /// What happens to the aspect ratio.
    pub mode: ResizeMode,
    /// The kernel.
    pub filter: ResizeFilter,
    /// Whether the kernel widens when shrinking; only `true` is offered.
    pub antialias: bool,
}

/// What happens to the aspect ratio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeMode {
    /// It is not kept.
    Stretch,
}

/// The kernel of the resampler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResizeFilter {
    /// Triangle.
    Bilinear,
}

/// Order of a picture's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Batch, channel, row, column.
    Nchw,
}

/// Order of a picture's channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// Red, green, blue.
    Rgb,
}

/// How a sentence becomes a tensor.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextFile {
    /// The file that the `tokenizers` library reads.
    pub tokenizer: String,
    /// Tokens in the tensor.
    pub max_len: usize,
    /// What fills the rest, on the right.
    pub pad_id: u32,
    /// What becomes of a longer sentence.
    #[serde(default)]
    pub on_overflow: Overflow,
}

/// What becomes of a sentence with too many tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overflow {
    /// The operator is told; it is never cut.
    #[default]
    Refuse,
}

/// How the joint state becomes a tensor.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateFile {
    /// Joints in the order of the tensor.
    pub names: Vec<String>,
    /// Their units.
    pub units: Vec<Unit>,
    /// Normalisation.
    pub stats: StatsFile,
}

/// The unit of one number of a state or an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Radians, of a revolute joint.
    Rad,
    /// Metres, of a prismatic joint.
    M,
    /// 0 to 1, of a gripper or a sensor.
    Fraction,
}

impl core::fmt::Display for Unit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Unit::Rad => "rad",
            Unit::M => "m",
            Unit::Fraction => "fraction",
        })
    }
}

/// Where normalisation statistics stand.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatsFile {
    /// A safetensors file.
    pub file: String,
    /// First part of the keys in it, e.g. `observation.state` for `observation.state.mean`.
    pub key: String,
    /// The formula.
    pub mode: StatsMode,
    /// Added to the deviation when normalising.
    #[serde(default)]
    pub eps: f64,
}

/// The formula of a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatsMode {
    /// `(x - mean) / (std + eps)` in, `x * std + mean` out.
    MeanStd,
}

/// How the graph's action becomes joint targets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionFile {
    /// Joints in the order of the tensor.
    pub names: Vec<String>,
    /// Their units.
    pub units: Vec<Unit>,
    /// Normalisation.
    pub stats: StatsFile,
    /// What the numbers are relative to.
    pub representation: Representation,
    /// Joints to which the state of the observation is added.
    #[serde(default)]
    pub relative: Vec<String>,
    /// Actions in a chunk.
    pub chunk_len: usize,
    /// Time between two actions.
    pub period_ms: f64,
    /// Time from capture to action 0.
    pub first_step_ms: f64,
    /// A gripper is on at this value or more.
    pub gripper_threshold: f64,
}

/// What an action is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Representation {
    /// The joints in `relative` are offsets from the joint state that the policy was shown.
    RelativeToObservationState,
    /// Every joint is a target as it stands.
    Absolute,
}

/// How often, how soon.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimingFile {
    /// Inferences a second to ask for.
    pub infer_hz: f64,
    /// An inference that takes longer is late.
    pub deadline_ms: f64,
    /// An older observation is not to be shown to the policy.
    pub max_observation_age_ms: f64,
}

/// The fixture that a loaded bundle must reproduce.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ParityFile {
    /// Observations and actions: a safetensors file.
    pub file: String,
    /// The sentences of the observations: a JSON file.
    pub sentences: String,
    /// Observations in it.
    pub frames: usize,
    /// Smallest cosine between a chunk and its reference.
    pub cosine_min: f64,
    /// Largest error as a part of the range of its action.
    pub error_max_fraction: f64,
}

/// Reads the manifest's bytes. Each section is read by itself, so that one look finds the faults of all.
///
/// # Errors
/// Every [`Problem`] found, with its JSON path.
pub fn read(bytes: &[u8]) -> Result<ManifestFile, Vec<Problem>> {
    let root: Value = serde_json::from_slice(bytes).map_err(|error| {
        vec![Problem {
            at: format!("manifest.json:{}:{}", error.line(), error.column()),
            expected: "JSON in UTF-8".into(),
            found: error.to_string(),
        }]
    })?;
    if !root.is_object() {
        return Err(vec![Problem {
            at: at(""),
            expected: "an object".into(),
            found: kind_of(&root),
        }]);
    }
    let mut problems = Vec::new();
    let package: Option<PackageFile> = section(&root, "", &mut problems);
    let Some(Value::Object(ours)) = root.get("tendon") else {
        problems.push(Problem {
            at: at("tendon"),
            expected: "an object (a bundle without it cannot be run by Tendon)".into(),
            found: root.get("tendon").map_or("nothing".into(), kind_of),
        });
        return Err(problems);
    };
    let tendon = read_tendon(ours, &mut problems);
    match (package, tendon) {
        (Some(package), Some(tendon)) if problems.is_empty() => {
            Ok(ManifestFile { package, tendon })
        }
        _ => Err(problems),
    }
}

const KEYS: [&str; 9] = [
    "schema", "stages", "image", "text", "state", "action", "timing", "parity", "sha256",
];

fn read_tendon(ours: &Map<String, Value>, problems: &mut Vec<Problem>) -> Option<TendonFile> {
    for key in ours.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        problems.push(Problem {
            at: at(&format!("tendon.{key}")),
            expected: format!("one of {KEYS:?}"),
            found: "an unknown key".into(),
        });
    }
    // Every section is read before any is missed.
    let schema = take(ours, "schema", problems);
    let stages = take(ours, "stages", problems);
    let image = take(ours, "image", problems);
    let text = take(ours, "text", problems);
    let state = take(ours, "state", problems);
    let action = take(ours, "action", problems);
    let timing = take(ours, "timing", problems);
    let parity = take(ours, "parity", problems);
    let sha256 = take(ours, "sha256", problems);
    Some(TendonFile {
        schema: schema?,
        stages: stages?,
        image: image?,
        text: text?,
        state: state?,
        action: action?,
        timing: timing?,
        parity: parity?,
        sha256: sha256?,
    })
}

fn take<T: DeserializeOwned>(
    ours: &Map<String, Value>,
    key: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let path = format!("tendon.{key}");
    match ours.get(key) {
        Some(value) => section(value, &path, problems),
        None => {
            problems.push(Problem {
                at: at(&path),
                expected: "a value".into(),
                found: "nothing".into(),
            });
            None
        }
    }
}

/// `manifest.json: PATH`, as every problem of the manifest names its place.
#[must_use]
pub fn at(path: &str) -> String {
    if path.is_empty() {
        "manifest.json".into()
    } else {
        format!("manifest.json: {path}")
    }
}

/// Reads one section at its JSON path; adds to `problems` if it cannot.
pub(crate) fn section<T: DeserializeOwned>(
    value: &Value,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    match serde_path_to_error::deserialize(value) {
        Ok(read) => Some(read),
        Err(error) => {
            let inner = match error.path().to_string() {
                inner if inner == "." => String::new(),
                inner => inner,
            };
            let dot = if path.is_empty() || inner.is_empty() || inner.starts_with('[') {
                ""
            } else {
                "."
            };
            let (expected, found) = in_words(&error.into_inner().to_string());
            problems.push(Problem {
                at: at(&format!("{path}{dot}{inner}")),
                expected,
                found,
            });
            None
        }
    }
}

/// serde says "invalid type: string \"a\", expected usize"; a problem keeps the two apart.
fn in_words(message: &str) -> (String, String) {
    if let Some((found, expected)) = message.split_once(", expected ") {
        (expected.into(), found.into())
    } else if let Some(field) = message.strip_prefix("missing field ") {
        (format!("field {field}"), "nothing".into())
    } else {
        ("a value that can be read".into(), message.into())
    }
}

fn kind_of(value: &Value) -> String {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_a_precision_has_as_many_bits_or_more_and_the_fewest_first() {
        use crate::config::Precision::{Fp16, Fp32, Int8};
        let nearest = |fp16: bool, int8: bool, asked: Precision| -> Vec<Precision> {
            let file = |there: bool, name: &str| there.then(|| name.to_owned());
            let files = OnnxFile {
                fp32: "32".into(),
                fp16: file(fp16, "16"),
                int8: file(int8, "8"),
            };
            let found = files.nearest(asked);
            assert!(
                found
                    .iter()
                    .all(|(precision, name)| files.of(*precision) == Some(*name))
            );
            found.into_iter().map(|(precision, _)| precision).collect()
        };
        for (fp16, int8, asked, expected) in [
            (true, true, Int8, &[Int8][..]),
            (true, false, Int8, &[Fp16, Fp32][..]),
            (false, false, Int8, &[Fp32][..]),
            (true, true, Fp16, &[Fp16][..]),
            // Not eight bits: they are fewer.
            (false, true, Fp16, &[Fp32][..]),
            (true, true, Fp32, &[Fp32][..]),
        ] {
            assert_eq!(
                nearest(fp16, int8, asked),
                expected,
                "{fp16} {int8} {asked:?}"
            );
        }
    }
}
