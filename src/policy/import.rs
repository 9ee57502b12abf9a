// SPDX-License-Identifier: Apache-2.0
//! Makes a bundle of what LeRobot saves beside a policy and of the ONNX graph exported from it.
//!
//! Read: `config.json`, `policy_preprocessor.json`, `policy_postprocessor.json` and their normaliser's safetensors, and the
//! data set's `meta/info.json` for what the policy's own files do not say: names and order of the joints, rate, sizes of
//! the cameras. What cannot be mapped is named and refused; nothing is guessed. The fixture must come from the side that
//! has torch (`engines/families/record_fixture.py`): one recorded here would only prove that a graph equals itself.

use crate::config::problem::Problem;
use crate::policy::parts::Parts;
use crate::policy::tensors::TensorFile;
use crate::ports::TensorSpec;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// What the folder does not say.
#[derive(Clone, Debug)]
pub struct Request {
    /// LeRobot's folder.
    pub folder: PathBuf,
    /// The graph: the inputs of `config.json` by name, one output.
    pub onnx: PathBuf,
    /// `meta/info.json` of the data set.
    pub info: PathBuf,
    /// The fixture's safetensors.
    pub fixture: PathBuf,
    /// Its sentences; none for a policy without text.
    pub sentences: Option<PathBuf>,
    /// What a joint's number is in the data set.
    pub unit: JointUnit,
    /// Joints of robot.toml, if the bundle is for one robot.
    pub joints: Option<Vec<String>>,
}

/// What a joint's number is in a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JointUnit {
    /// Radians.
    Rad,
    /// Degrees.
    Deg,
}

/// Largest JSON or statistics file that is read.
const BYTES_MAX: u64 = 64 << 20;
/// LeRobot's suffix of a joint's position in a data set.
const POSITION: &str = ".pos";

/// Tells a graph's inputs and outputs, or in words why it cannot.
pub type Probe<'a> = dyn Fn(&Path) -> Result<(Vec<TensorSpec>, Vec<TensorSpec>), String> + 'a;

pub(crate) type Fallible<T> = Result<T, Vec<Problem>>;

pub(crate) fn bytes(path: &Path) -> Fallible<Vec<u8>> {
    let at = path.display().to_string();
    let size = std::fs::metadata(path)
        .map_err(|error| Problem::one(&at, "a file", error.to_string()))?
        .len();
    if size > BYTES_MAX {
        return Err(Problem::one(
            &at,
            format!("at most {BYTES_MAX} bytes"),
            size.to_string(),
        ));
    }
    std::fs::read(path).map_err(|error| Problem::one(&at, "a readable file", error.to_string()))
}

pub(crate) fn read_json(path: &Path) -> Fallible<Value> {
    serde_json::from_slice(&bytes(path)?)
        .map_err(|error| Problem::one(path.display().to_string(), "JSON", error.to_string()))
}

/// Writes the bundle into `out`, which must not exist. `probe` tells a graph's tensors.
///
/// # Errors
/// Every [`Problem`] of the first file that has any.
pub fn lerobot(request: &Request, out: &Path, probe: &Probe<'_>) -> Fallible<()> {
    if out.exists() {
        return Err(Problem::one(
            out.display().to_string(),
            "a folder that does not exist yet",
            "one that does",
        ));
    }
    let config = read_json(&request.folder.join("config.json"))?;
    let kind = config
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("nothing");
    if kind != "act" {
        return Err(Problem::one(
            "config.json: type",
            "act (a policy whose one graph gives the whole chunk); for a policy of several graphs write the manifest after tests/families",
            kind,
        ));
    }
    if config.get("n_obs_steps").and_then(Value::as_u64) != Some(1) {
        return Err(Problem::one(
            "config.json: n_obs_steps",
            "1",
            text(config.get("n_obs_steps")),
        ));
    }
    if config
        .get("temporal_ensemble_coeff")
        .is_some_and(|value| !value.is_null())
    {
        return Err(Problem::one(
            "config.json: temporal_ensemble_coeff",
            "null (ensembling is the scheduler's: set schedule in tendon.toml)",
            text(config.get("temporal_ensemble_coeff")),
        ));
    }
    let before = Processor::read(
        &request.folder,
        "policy_preprocessor.json",
        "normalizer_processor",
    )?;
    let after = Processor::read(
        &request.folder,
        "policy_postprocessor.json",
        "unnormalizer_processor",
    )?;
    let info = read_json(&request.info)?;
    let info_at = request.info.display().to_string();
    let state = names(&info, &info_at, "observation.state")?;
    let action = names(&info, &info_at, "action")?;
    check_joints(
        request.joints.as_deref(),
        &action,
        &format!("{info_at}: features.action.names"),
    )?;
    let fps = info
        .get("fps")
        .and_then(Value::as_f64)
        .filter(|fps| *fps > 0.0)
        .ok_or_else(|| {
            Problem::one(
                format!("{info_at}: fps"),
                "actions a second",
                text(info.get("fps")),
            )
        })?;
    let (inputs, outputs) = probe(&request.onnx).map_err(|found| {
        Problem::one(
            request.onnx.display().to_string(),
            "a graph that can be read",
            found,
        )
    })?;
    let [output] = outputs.as_slice() else {
        return Err(Problem::one(
            request.onnx.display().to_string(),
            "one output",
            outputs.len().to_string(),
        ));
    };
    let [1, horizon, width] = output.shape[..] else {
        return Err(Problem::one(
            format!("{}: output {}", request.onnx.display(), output.name),
            "[1, actions, joints]",
            format!("{:?}", output.shape),
        ));
    };
    if width != action.len() {
        return Err(Problem::one(
            format!("{info_at}: features.action.names"),
            format!("{width} names, as the graph's output has numbers"),
            format!("{action:?}"),
        ));
    }
    let features = config
        .get("input_features")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut cameras = Vec::new();
    let mut feeds = Map::new();
    for input in &inputs {
        let at = format!("{}: input {}", request.onnx.display(), input.name);
        if !features.contains_key(&input.name) {
            return Err(Problem::one(
                at,
                format!("one of {:?}", features.keys().collect::<Vec<_>>()),
                input.name.clone(),
            ));
        }
        let from = if input.name == "observation.state" {
            "state".to_owned()
        } else {
            let (role, camera) = camera(
                (&info, &info_at),
                &request.folder,
                &input.name,
                &input.shape,
                &before,
            )?;
            cameras.push(camera);
            format!("camera.{role}")
        };
        feeds.insert(
            input.name.clone(),
            json!({"dtype": input.dtype.to_string(), "shape": input.shape, "from": from}),
        );
    }
    let (pre, post) = conversions(request.unit, state.len(), action.len());
    let vector = |names: &[String],
                  processor: &Processor,
                  kind: &str,
                  key: &str|
     -> Fallible<Value> {
        Ok(json!({
            "names": names,
            "units": vec!["rad"; names.len()],
            "stats": {"file": processor.state_file, "key": key, "mode": processor.mode(kind)?, "convention": "lerobot", "eps": processor.eps},
        }))
    };
    let mut state_part = vector(&state, &before, "STATE", "observation.state")?;
    let mut action_part = vector(&action, &after, "ACTION", "action")?;
    let period_ms = 1e3 / fps;
    put(&mut state_part, "pre", pre);
    for (key, value) in [
        ("horizon", json!(horizon)),
        ("period_ms", json!(period_ms)),
        ("first_step_ms", json!(0.0)),
        ("post", post),
    ] {
        put(&mut action_part, key, value);
    }
    let frames = frames_of(&request.fixture, action.len())?;
    let sentences = match &request.sentences {
        Some(path) => bytes(path)?,
        None => serde_json::to_vec(&json!({"sentences": vec![""; frames]})).unwrap_or_default(),
    };
    let mut parts = Parts::default();
    parts.graph("policy.onnx", &request.onnx)?;
    parts.made("parity.safetensors", bytes(&request.fixture)?);
    parts.made("parity.json", sentences);
    for name in [&before.state_file, &after.state_file] {
        parts.made(name.clone(), bytes(&request.folder.join(name))?);
    }
    let sha256 = parts.sha256()?;
    let name = request
        .folder
        .file_name()
        .map_or("policy".into(), |name| name.to_string_lossy().into_owned());
    let manifest = json!({
        "format": "policy_package", "version": "1.0",
        "policy": {"name": name, "source": {"repo_id": text(config.get("repo_id")), "class_path": ""}},
        "model": {"n_obs_steps": 1, "artifacts": {"policy": "policy.onnx"}},
        "tendon": {
            "schema": 2, "family": kind, "cameras": cameras, "state": state_part, "action": action_part,
            "stages": [{"id": "policy", "onnx": {"fp32": "policy.onnx"}, "inputs": feeds,
                "outputs": {&output.name: {"dtype": output.dtype.to_string(), "shape": output.shape}}}],
            "decoder": {"kind": "regression", "from": format!("policy.{}", output.name), "window": {"width": width}},
            "timing": {"infer_hz": (fps / horizon as f64).max(1.0), "deadline_ms": period_ms * horizon as f64, "max_observation_age_ms": 200.0},
            "parity": {"file": "parity.safetensors", "sentences": "parity.json", "frames": frames, "cosine_min": 0.999, "error_max_fraction": 0.01},
            "sha256": sha256,
        }
    });
    parts.write(out, &manifest)
}

pub(crate) fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.into(), value);
    }
}

pub(crate) fn text(value: Option<&Value>) -> String {
    match value {
        None => "nothing".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string().chars().take(80).collect(),
    }
}

/// The normaliser of a processor file.
struct Processor {
    at: String,
    state_file: String,
    eps: f64,
    norm_map: Map<String, Value>,
}

impl Processor {
    fn read(folder: &Path, file: &str, wanted: &str) -> Fallible<Processor> {
        let root = read_json(&folder.join(file))?;
        let steps = root
            .get("steps")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let mut found = None;
        for (index, step) in steps.iter().enumerate() {
            let at = format!("{file}: steps[{index}]");
            let name = step.get("registry_name").or_else(|| step.get("class"));
            let config = step.get("config");
            match name.and_then(Value::as_str) {
                // These move and reshape; the runtime has its own way of it.
                Some("to_batch_processor" | "device_processor") => {}
                Some("rename_observations_processor") => {
                    let map = config
                        .and_then(|config| config.get("rename_map"))
                        .and_then(Value::as_object);
                    if map.is_some_and(|map| !map.is_empty()) {
                        return Err(Problem::one(
                            at,
                            "an empty rename_map (name the cameras as the policy does)",
                            text(config),
                        ));
                    }
                }
                Some(name) if name == wanted && found.is_none() => {
                    found = Some(Processor {
                        state_file: step
                            .get("state_file")
                            .and_then(Value::as_str)
                            .unwrap_or_default()
                            .to_owned(),
                        eps: config
                            .and_then(|config| config.get("eps"))
                            .and_then(Value::as_f64)
                            .unwrap_or(1e-8),
                        norm_map: config
                            .and_then(|config| config.get("norm_map"))
                            .and_then(Value::as_object)
                            .cloned()
                            .unwrap_or_default(),
                        at,
                    });
                }
                _ => {
                    return Err(Problem::one(
                        at,
                        format!(
                            "rename_observations_processor, to_batch_processor, device_processor or one {wanted}"
                        ),
                        format!("{}, which cannot be mapped", text(name)),
                    ));
                }
            }
        }
        found
            .filter(|found| !found.state_file.is_empty())
            .ok_or_else(|| Problem::one(file, format!("a {wanted} with a state_file"), "none"))
    }

    fn mode(&self, kind: &str) -> Fallible<&'static str> {
        match self.norm_map.get(kind).and_then(Value::as_str) {
            Some("MEAN_STD") => Ok("mean_std"),
            Some("MIN_MAX") => Ok("min_max"),
            Some("QUANTILES") => Ok("quantiles"),
            Some("QUANTILE10") => Ok("quantile10"),
            None | Some("IDENTITY") => Ok("identity"),
            Some(other) => Err(Problem::one(
                format!("{}.norm_map.{kind}", self.at),
                "MEAN_STD, MIN_MAX, QUANTILES, QUANTILE10 or IDENTITY",
                other,
            )),
        }
    }
}

/// Names along a vector of the data set; a list, or an object with one list.
pub(crate) fn names(info: &Value, at: &str, key: &str) -> Fallible<Vec<String>> {
    let found = info
        .get("features")
        .and_then(|features| features.get(key))
        .and_then(|feature| feature.get("names"));
    let list = match found {
        Some(Value::Object(object)) if object.len() == 1 => object.values().next(),
        other => other,
    };
    let names: Option<Vec<String>> = list.and_then(Value::as_array).map(|list| {
        list.iter()
            .filter_map(Value::as_str)
            .map(|name| name.strip_suffix(POSITION).unwrap_or(name).to_owned())
            .collect()
    });
    names.filter(|names| !names.is_empty()).ok_or_else(|| {
        Problem::one(
            format!("{at}: features.{key}.names"),
            "the joints' names in their order (an order that is guessed moves the wrong joint)",
            text(found),
        )
    })
}

/// The policy's joints are the robot's, all of them and no others. `at` says where the policy's stand.
pub(crate) fn check_joints(joints: Option<&[String]>, action: &[String], at: &str) -> Fallible<()> {
    let Some(joints) = joints else {
        return Ok(());
    };
    let strange: Vec<&String> = action
        .iter()
        .filter(|name| !joints.contains(name))
        .collect();
    let idle: Vec<&String> = joints
        .iter()
        .filter(|name| !action.contains(name))
        .collect();
    if strange.is_empty() && idle.is_empty() {
        return Ok(());
    }
    Err(Problem::one(
        at,
        format!("the joints of robot.toml, {joints:?}, in any order"),
        format!("{action:?}: {strange:?} are not the robot's, {idle:?} are not the policy's"),
    ))
}

fn camera(
    (info, at): (&Value, &str),
    folder: &Path,
    key: &str,
    shape: &[usize],
    before: &Processor,
) -> Fallible<(String, Value)> {
    let Some(role) = key.strip_prefix("observation.images.") else {
        return Err(Problem::one(
            key,
            "observation.state or observation.images.NAME",
            "an input that cannot be mapped",
        ));
    };
    let feature = info.get("features").and_then(|features| features.get(key));
    let sides = whole_numbers(feature.and_then(|feature| feature.get("shape")));
    let order: Vec<&str> = feature
        .and_then(|feature| feature.get("names"))
        .and_then(Value::as_array)
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    let side = |name: &str| {
        order
            .iter()
            .position(|found| *found == name)
            .and_then(|index| sides.get(index).copied())
    };
    let (Some(height), Some(width)) = (side("height"), side("width")) else {
        return Err(Problem::one(
            format!("{at}: features.{key}"),
            "a shape with names that have height and width",
            format!("{sides:?} {order:?}"),
        ));
    };
    if shape != [1, 3, height, width] {
        return Err(Problem::one(
            format!("{at}: features.{key}"),
            format!("{shape:?}, as the graph takes it (ACT does not resize)"),
            format!("{width}x{height}"),
        ));
    }
    let levels = match before.mode("VISUAL")? {
        "identity" => json!({"scale": 1.0 / 255.0}),
        "mean_std" => {
            let [mean, std] =
                ["mean", "std"].map(|figure| colours(folder, before, &format!("{key}.{figure}")));
            let std: Vec<f64> = std?.iter().map(|std| std + before.eps).collect();
            json!({"scale": 1.0 / 255.0, "mean": mean?, "std": std})
        }
        other => {
            return Err(Problem::one(
                format!("{}.norm_map.VISUAL", before.at),
                "MEAN_STD or IDENTITY",
                other,
            ));
        }
    };
    let camera = json!({"role": role, "source_size": [width, height], "levels": [levels]});
    Ok((role.to_owned(), camera))
}

/// Red, green and blue of the picture's statistics, `[3][1][1]` in LeRobot's file.
fn colours(folder: &Path, before: &Processor, key: &str) -> Fallible<Vec<f64>> {
    let bytes = bytes(&folder.join(&before.state_file))?;
    TensorFile::parse(&before.state_file, &bytes)
        .and_then(|file| file.f32(key, &[3, 1, 1]))
        .map(|values| values.into_iter().map(f64::from).collect())
        .map_err(|problem| vec![problem])
}

/// From radians to what the policy was trained on, and back.
pub(crate) fn conversions(unit: JointUnit, state: usize, action: usize) -> (Value, Value) {
    let all = |count: usize| (0..count).collect::<Vec<usize>>();
    match unit {
        JointUnit::Rad => (json!([]), json!([])),
        JointUnit::Deg => (
            json!([{"op": "affine", "dims": all(state), "mul": 1f64.to_degrees(), "add": 0.0}]),
            json!([{"op": "affine", "dims": all(action), "mul": 1f64.to_radians(), "add": 0.0}]),
        ),
    }
}

/// Frames of a fixture.
pub(crate) fn frames_of(path: &Path, width: usize) -> Fallible<usize> {
    let bytes = bytes(path)?;
    let at = path.display().to_string();
    let file = safetensors::SafeTensors::deserialize(&bytes)
        .map_err(|error| Problem::one(&at, "a whole safetensors file", error.to_string()))?;
    match file.tensor("action").map(|view| view.shape().to_vec()) {
        Ok(shape) if shape.len() == 3 && shape.get(2) == Some(&width) => {
            Ok(shape.first().copied().unwrap_or(0))
        }
        Ok(shape) => Err(Problem::one(
            format!("{at}: action"),
            format!("[frames, actions, {width}]"),
            format!("{shape:?}"),
        )),
        Err(error) => Err(Problem::one(
            format!("{at}: action"),
            "a tensor",
            error.to_string(),
        )),
    }
}

/// The whole numbers of a list; none where there is no list.
pub(super) fn whole_numbers(list: Option<&Value>) -> Vec<usize> {
    let numbers = list.and_then(Value::as_array).into_iter().flatten();
    let numbers = numbers.filter_map(Value::as_u64);
    numbers.map(|number| number as usize).collect()
}
