// SPDX-License-Identifier: Apache-2.0
//! Makes a bundle of a `policy_package` 1.0 as OpenVINO Physical AI and LeRobot write it: nothing of the package is changed,
//! the `tendon` key is added to its manifest.
//!
//! The package says how pictures and states are fed and how the action is read, by components in the short form
//! (`{"type": NAME, ...}`) or in the long one (`class_path` and `init_args` of `physicalai.inference`, version 0.3). Those that
//! one graph and its numbers need are mapped (pictures, statistics); another component changes the numbers in a
//! way that is not known here, and is refused by name. What no package says comes with the [`Request`]: the unit of a joint, how many
//! actions a second, the size of a camera whose picture is resized, and the fixture.

use crate::config::problem::Problem;
use crate::policy::import::{
    Fallible, JointUnit, Probe, bytes, check_joints, conversions, frames_of, names, put, read_json,
    text, whole_numbers,
};
use crate::policy::import_package::{Component, Resize, Statistics, components, plain};
use crate::policy::parts::Parts;
use crate::ports::{Dtype, TensorSpec};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// What a package does not say.
#[derive(Clone, Debug)]
pub struct Request {
    /// The package's folder.
    pub folder: PathBuf,
    /// The fixture's safetensors.
    pub fixture: PathBuf,
    /// What a joint's number is in the package.
    pub unit: JointUnit,
    /// Actions a second; that of `info` if absent.
    pub rate_hz: Option<f64>,
    /// `meta/info.json` of the data set, for names and rate where the package has none.
    pub info: Option<PathBuf>,
    /// Cameras with the width and height that they give, where the package does not say.
    pub sizes: Vec<(String, [usize; 2])>,
    /// Pictures are 0 to 1 before the first component: LeRobot's robots give them so and its packages do not say it.
    pub pictures_0_to_1: bool,
    /// Joints of robot.toml, if the bundle is for one robot.
    pub joints: Option<Vec<String>>,
}

/// Whether a folder is such a package.
#[must_use]
pub fn is_package(folder: &Path) -> bool {
    read_json(&folder.join("manifest.json"))
        .is_ok_and(|root| root.get("format").and_then(Value::as_str) == Some("policy_package"))
}

/// How pictures become numbers, as far as the components have said.
#[derive(Clone, Debug, Default)]
struct Picture {
    /// Whether a number is 0 to 1 by now, and not a byte.
    is_0_to_1: bool,
    resize: Option<Resize>,
}

/// Everything before the graph.
#[derive(Debug, Default)]
struct Before {
    picture: Picture,
    /// In order; more than one for a feature is refused.
    statistics: Vec<Statistics>,
}

/// Everything after it.
#[derive(Debug, Default)]
struct After {
    action_key: Option<String>,
    statistics: Vec<Statistics>,
    steps_max: Option<usize>,
}

/// Writes the bundle into `out`, which must not exist. `probe` tells a graph's tensors.
///
/// # Errors
/// Every [`Problem`] of the first part that has any.
pub fn package(request: &Request, out: &Path, probe: &Probe<'_>) -> Fallible<()> {
    if out.exists() {
        return Err(Problem::one(
            out.display().to_string(),
            "a folder that does not exist yet",
            "one that does",
        ));
    }
    let mut root = read_json(&request.folder.join("manifest.json"))?;
    for (key, expected) in [("format", "policy_package"), ("version", "1.0")] {
        if root.get(key).and_then(Value::as_str) != Some(expected) {
            let found = text(root.get(key));
            return Err(Problem::one(
                format!("manifest.json: {key}"),
                expected,
                found,
            ));
        }
    }
    let model = root.get("model").cloned().unwrap_or(Value::Null);
    if model
        .get("n_obs_steps")
        .is_some_and(|steps| *steps != json!(1))
    {
        return Err(Problem::one(
            "manifest.json: model.n_obs_steps",
            "1 (a history needs its spacing in time, which the package does not have: write schema 2 by hand)",
            text(model.get("n_obs_steps")),
        ));
    }
    runner(model.get("runner"))?;
    callbacks(&model)?;
    let onnx = graph_of(&model)?;
    let (inputs, outputs) = probe(&request.folder.join(&onnx))
        .map_err(|found| Problem::one(onnx.as_str(), "a graph that can be read", found))?;
    let before = before(&model, request)?;
    let after = after(&model, request)?;
    let info = match &request.info {
        Some(path) => Some((read_json(path)?, path.display().to_string())),
        None => None,
    };
    let rate_hz = rate(request, info.as_ref())?;

    let (output, horizon, width) = action_of(&onnx, &outputs, &after)?;
    let action = order(&root, "action", info.as_ref(), width)?;
    check_joints(
        request.joints.as_deref(),
        &action,
        "manifest.json: hardware.robots[0].action.order",
    )?;
    let used = after.steps_max.unwrap_or(horizon).min(horizon);

    let mut cameras = Vec::new();
    let mut feeds = Map::new();
    let mut state = None;
    for input in &inputs {
        let from = if is_state(&input.name) {
            let width = input.shape.last().copied().unwrap_or(0);
            state = Some((
                input.name.clone(),
                order(&root, "state", info.as_ref(), width)?,
            ));
            "state".to_owned()
        } else {
            let camera = camera(&root, request, &before, input, &onnx)?;
            let from = format!("camera.{}", text(camera.get("role")));
            cameras.push(camera);
            from
        };
        feeds.insert(
            input.name.clone(),
            json!({"dtype": input.dtype.to_string(), "shape": input.shape, "from": from}),
        );
    }
    let (pre, post) = conversions(
        request.unit,
        state.as_ref().map_or(0, |(_, names)| names.len()),
        width,
    );
    let vector = |names: &[String], statistics: Option<(&Statistics, &str)>| {
        let mut vector = json!({"names": names, "units": vec!["rad"; names.len()]});
        if let Some(stats) = statistics.and_then(|(statistics, key)| statistics.file(key)) {
            put(&mut vector, "stats", stats);
        }
        vector
    };
    let mut tendon = json!({
        "schema": 2,
        "family": root.pointer("/policy/name").and_then(Value::as_str).filter(|name| !name.is_empty()).unwrap_or("policy"),
        "cameras": cameras,
        "stages": [{"id": "policy", "onnx": {"fp32": onnx}, "inputs": feeds,
            "outputs": {&output.name: {"dtype": output.dtype.to_string(), "shape": output.shape}}}],
        "decoder": {"kind": "regression", "from": format!("policy.{}", output.name), "window": {"width": width}},
    });
    if let Some((key, names)) = &state {
        let mut part = vector(
            names,
            one_of(&before.statistics, key)?.map(|found| (found, key.as_str())),
        );
        put(&mut part, "pre", pre);
        put(&mut tendon, "state", part);
    }
    let stats = after.statistics.iter().find_map(|found| {
        let key = ["action", output.name.as_str()]
            .into_iter()
            .find(|key| found.has(key))?;
        Some((found, key))
    });
    let mut part = vector(&action, stats);
    let period_ms = 1e3 / rate_hz;
    for (key, value) in [
        ("horizon", json!(used)),
        ("period_ms", json!(period_ms)),
        ("first_step_ms", json!(0.0)),
        ("post", post),
    ] {
        put(&mut part, key, value);
    }
    put(&mut tendon, "action", part);
    put(
        &mut tendon,
        "timing",
        json!({"infer_hz": (rate_hz / used as f64).max(1.0), "deadline_ms": period_ms * used as f64, "max_observation_age_ms": 200.0}),
    );
    let frames = frames_of(&request.fixture, width)?;
    put(
        &mut tendon,
        "parity",
        json!({"file": "parity.safetensors", "sentences": "parity.json", "frames": frames, "cosine_min": 0.999, "error_max_fraction": 0.01}),
    );
    let mut parts = Parts::default();
    parts.made("parity.safetensors", bytes(&request.fixture)?);
    let sentences = json!({"sentences": vec![""; frames]});
    parts.made(
        "parity.json",
        serde_json::to_vec(&sentences).unwrap_or_default(),
    );
    for statistics in before.statistics.iter().chain(&after.statistics) {
        parts.made(statistics.name.clone(), statistics.bytes.clone());
    }
    for name in artifacts(&model)? {
        let path = request.folder.join(&name);
        if name == onnx {
            parts.graph(&name, &path)?;
        } else {
            parts.copied(name, path);
        }
    }
    put(&mut tendon, "sha256", json!(parts.sha256()?));
    put(&mut root, "tendon", tendon);
    if root.pointer("/policy/name").is_none() {
        put(&mut root, "policy", json!({"name": "policy"}));
    }
    parts.write(out, &root)
}

/// A runner that calls the graph once, and leaves the chunk to whoever follows it.
fn runner(value: Option<&Value>) -> Fallible<()> {
    const AT: &str = "manifest.json: model.runner";
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(());
    };
    let component = Component::read(value, AT.into())?;
    match component.kind.as_str() {
        "single_pass" => Ok(()),
        // The scheduler follows the chunk; what is inside must be a single pass again.
        "action_chunking" => runner(component.args.get("runner")),
        other => Err(Problem::one(
            AT,
            "single_pass, or action_chunking of it (a loop between graphs is written by hand as tendon.loop, after tests/families)",
            other,
        )),
    }
}

/// What only watches is left out; what would change an observation is refused.
fn callbacks(model: &Value) -> Fallible<()> {
    for component in components(model, "callbacks")? {
        if !["latency_monitor", "throughput_monitor", "rtc_latency"]
            .contains(&component.kind.as_str())
        {
            return Err(component.unknown("latency_monitor, throughput_monitor or rtc_latency"));
        }
    }
    Ok(())
}

/// Names of the package's files, each within it.
fn artifacts(model: &Value) -> Fallible<Vec<String>> {
    let all = model
        .get("artifacts")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    all.iter()
        .map(|(key, name)| plain(name, &format!("manifest.json: model.artifacts.{key}")))
        .collect()
}

fn graph_of(model: &Value) -> Fallible<String> {
    let all = artifacts(model)?;
    let graphs: Vec<&String> = all.iter().filter(|name| name.ends_with(".onnx")).collect();
    match graphs.as_slice() {
        [one] => Ok((*one).clone()),
        _ => Err(Problem::one(
            "manifest.json: model.artifacts",
            "one file NAME.onnx (export with the onnx backend; another backend's graph is not read here)",
            format!("{all:?}"),
        )),
    }
}

fn before(model: &Value, request: &Request) -> Fallible<Before> {
    let mut before = Before::default();
    before.picture.is_0_to_1 = request.pictures_0_to_1;
    for component in components(model, "preprocessors")? {
        match component.kind.as_str() {
            "to_float_tensor" => before.picture.is_0_to_1 = true,
            "resize" if before.picture.resize.is_none() && before.statistics.is_empty() => {
                let resize = Resize::read(&component, before.picture.is_0_to_1)?;
                before.picture = Picture {
                    is_0_to_1: true,
                    resize: Some(resize),
                };
            }
            "normalize" => {
                let name = format!("tendon_before_{}.safetensors", before.statistics.len());
                let statistics = Statistics::read(&component, &request.folder, name)?;
                before.statistics.push(statistics);
            }
            _ => {
                return Err(component.unknown(
                    "to_float_tensor, one resize before what normalises, or normalize (a tokenizer's or a family's own component is written by hand as tendon.text and tendon.cameras, after tests/families)",
                ));
            }
        }
    }
    Ok(before)
}

fn after(model: &Value, request: &Request) -> Fallible<After> {
    let mut after = After::default();
    for component in components(model, "postprocessors")? {
        match component.kind.as_str() {
            "action_normalizer" => {
                let key = component.args.get("action_key").and_then(Value::as_str);
                after.action_key = key.map(str::to_owned).or(after.action_key);
            }
            "action_chunk_trimmer" => {
                let steps = component.args.get("n_action_steps").and_then(Value::as_u64);
                let steps = steps.filter(|steps| *steps > 0).ok_or_else(|| {
                    Problem::one(
                        format!("{}.n_action_steps", component.at),
                        "a number of actions",
                        text(component.args.get("n_action_steps")),
                    )
                })?;
                after.steps_max = Some(after.steps_max.unwrap_or(usize::MAX).min(steps as usize));
            }
            "denormalize" if after.statistics.is_empty() => {
                let name = "tendon_after.safetensors".to_owned();
                let statistics = Statistics::read(&component, &request.folder, name)?;
                after.statistics.push(statistics);
            }
            _ => {
                return Err(component
                    .unknown("denormalize (once), action_chunk_trimmer or ActionNormalizer"));
            }
        }
    }
    Ok(after)
}

/// The output that is the action, its length in actions, and numbers of one.
fn action_of<'a>(
    onnx: &str,
    outputs: &'a [TensorSpec],
    after: &After,
) -> Fallible<(&'a TensorSpec, usize, usize)> {
    let named = |wanted: &str| outputs.iter().find(|output| output.name == wanted);
    let only = || outputs.first().filter(|_| outputs.len() == 1);
    let by_key = after.action_key.as_deref().and_then(named);
    let output = named("action").or(by_key).or_else(only).ok_or_else(|| {
        let names: Vec<&String> = outputs.iter().map(|output| &output.name).collect();
        Problem::one(
            format!("{onnx}: outputs"),
            "one named action, or one only",
            format!("{names:?}"),
        )
    })?;
    match output.shape[..] {
        [1, horizon, width] if output.dtype == Dtype::F32 => Ok((output, horizon, width)),
        [1, width] if output.dtype == Dtype::F32 => Ok((output, 1, width)),
        _ => Err(Problem::one(
            format!("{onnx}: output {}", output.name),
            "f32 [1, actions, joints]",
            format!("{} {:?}", output.dtype, output.shape),
        )),
    }
}

fn is_state(input: &str) -> bool {
    input == "state" || input == "observation.state"
}

/// The camera's name within an input's; empty for the only one.
fn camera_name(input: &str) -> Option<&str> {
    let input = input.strip_prefix("observation.").unwrap_or(input);
    match input {
        "images" | "image" => Some(""),
        _ => input.strip_prefix("images."),
    }
}

/// Names along state or action: of the package, else of the data set.
fn order(
    root: &Value,
    key: &str,
    info: Option<&(Value, String)>,
    width: usize,
) -> Fallible<Vec<String>> {
    let at = format!("manifest.json: hardware.robots[0].{key}.order");
    let list = root.pointer(&format!("/hardware/robots/0/{key}/order"));
    let list: Vec<String> = list
        .and_then(Value::as_array)
        .map(|list| {
            list.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        })
        .unwrap_or_default();
    let found = match (list.is_empty(), info) {
        (false, _) => list,
        (true, Some((info, path))) => {
            let feature = if key == "state" {
                "observation.state"
            } else {
                key
            };
            names(info, path, feature)?
        }
        (true, None) => {
            return Err(Problem::one(
                at,
                "the joints' names in their order, or --info with those of the data set (an order that is guessed moves the wrong joint)",
                "nothing",
            ));
        }
    };
    if found.len() == width {
        Ok(found)
    } else {
        Err(Problem::one(
            at,
            format!("{width} names, as the graph has numbers"),
            format!("{found:?}"),
        ))
    }
}

fn rate(request: &Request, info: Option<&(Value, String)>) -> Fallible<f64> {
    let of_info = || info.and_then(|(info, _)| info.get("fps")?.as_f64());
    request
        .rate_hz
        .or_else(of_info)
        .filter(|rate| *rate > 0.0 && rate.is_finite())
        .ok_or_else(|| {
            Problem::one(
                "the package",
                "actions a second, which it does not say: --rate-hz, or --info with the data set's fps",
                "neither",
            )
        })
}

/// The statistics that are applied to a feature; two in a row are refused.
fn one_of<'a>(all: &'a [Statistics], key: &str) -> Fallible<Option<&'a Statistics>> {
    let found: Vec<&Statistics> = all
        .iter()
        .filter(|statistics| statistics.has(key))
        .collect();
    match found.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => Err(Problem::one(
            "manifest.json: model.preprocessors",
            format!("one normalize of {key}"),
            found.len().to_string(),
        )),
    }
}

fn camera(
    root: &Value,
    request: &Request,
    before: &Before,
    input: &TensorSpec,
    onnx: &str,
) -> Fallible<Value> {
    let at = format!("{onnx}: input {}", input.name);
    let Some(name) = camera_name(&input.name) else {
        return Err(Problem::one(
            at,
            "state, or images.NAME (also under observation.)",
            "an input that cannot be mapped",
        ));
    };
    let known: Vec<&Value> = root
        .pointer("/hardware/cameras")
        .and_then(Value::as_array)
        .map(|cameras| cameras.iter().collect())
        .unwrap_or_default();
    let role = match (name, known.as_slice()) {
        ("", [one]) => text(one.get("name")),
        ("", _) => "image".to_owned(),
        (name, _) => name.to_owned(),
    };
    let graph = match (&before.picture.resize, &input.shape[..]) {
        (_, [1, 3, height, width]) if input.dtype == Dtype::F32 => [*width, *height],
        _ => {
            return Err(Problem::one(
                at,
                "f32 [1, 3, height, width]",
                format!("{} {:?}", input.dtype, input.shape),
            ));
        }
    };
    if !before.picture.is_0_to_1 {
        return Err(Problem::one(
            "manifest.json: model.preprocessors",
            "a component that makes numbers of the picture's bytes (to_float_tensor, resize), or --pictures-0-1 where the robot's software gives 0 to 1",
            "none",
        ));
    }
    let shape: Vec<usize> = known
        .iter()
        .find(|camera| camera.get("name").and_then(Value::as_str) == Some(role.as_str()))
        .map_or_else(Vec::new, |camera| whole_numbers(camera.get("shape")));
    let said = request
        .sizes
        .iter()
        .find(|(name, _)| *name == role)
        .map(|(_, size)| *size);
    let size = match (said, &before.picture.resize, &shape[..]) {
        (Some(size), _, _) => size,
        (None, _, [_, height, width]) => [*width, *height],
        (None, None, _) => graph,
        (None, Some(_), _) => {
            return Err(Problem::one(
                format!("manifest.json: hardware.cameras \"{role}\""),
                "the size that the camera gives, as its picture is resized: --camera-size NAME=WIDTHxHEIGHT",
                "nothing",
            ));
        }
    };
    let mut ops = Vec::new();
    match &before.picture.resize {
        Some(resize) if resize.size == graph => ops.push(json!({
            "op": "resize", "width": graph[0], "height": graph[1], "fit": resize.fit, "filter": "bilinear",
            "library": if resize.bytes { "opencv" } else { "torch" }, "bytes": resize.bytes, "pad": resize.pad,
        })),
        None if size == graph => {}
        _ => {
            return Err(Problem::one(
                at,
                "the size that the picture has after the package's own components",
                format!("{graph:?} of a picture of {size:?}"),
            ));
        }
    }
    let mut levels = json!({"scale": 1.0 / 255.0});
    if let Some(statistics) = one_of(&before.statistics, &input.name)? {
        let [mean, std] = statistics.colours(&input.name)?;
        put(&mut levels, "mean", json!(mean));
        put(&mut levels, "std", json!(std));
    }
    Ok(json!({"role": role, "source_size": size, "ops": ops, "levels": [levels]}))
}
