// SPDX-License-Identifier: Apache-2.0
//! Components and statistics of a `policy_package`, read as its own readers read them.

use crate::config::problem::Problem;
use crate::policy::import::{Fallible, bytes, text, whole_numbers};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Component as Part, Path};

/// Root of the Python classes whose meaning is known here.
const PACKAGE: &str = "physicalai.inference.";

/// What it is added to a deviation or a range by (`physicalai.inference`, `stats_normalizer.py`).
const EPS: f64 = 1e-8;

/// A component, its long form read as the short one.
#[derive(Clone, Debug)]
pub(crate) struct Component {
    pub(crate) at: String,
    pub(crate) kind: String,
    pub(crate) args: Map<String, Value>,
}

impl Component {
    pub(crate) fn read(value: &Value, at: String) -> Fallible<Component> {
        let word = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
        let (class, kind) = (word("class_path"), word("type"));
        // As in the package's own reader, the class wins.
        if !class.is_empty() {
            if !class.starts_with(PACKAGE) {
                return Err(Problem::one(
                    format!("{at}.class_path"),
                    format!("a class of {PACKAGE}* (other code is not run)"),
                    class,
                ));
            }
            let name = class.rsplit('.').next().unwrap_or(class);
            let args = value.get("init_args").and_then(Value::as_object);
            return Ok(Component {
                at,
                kind: short(name).to_owned(),
                args: args.cloned().unwrap_or_default(),
            });
        }
        if kind.is_empty() {
            return Err(Problem::one(
                at,
                "a type or a class_path",
                text(Some(value)),
            ));
        }
        Ok(Component {
            at,
            kind: kind.to_owned(),
            args: value.as_object().cloned().unwrap_or_default(),
        })
    }

    /// It is none of those that are known.
    pub(crate) fn unknown(&self, known: &str) -> Vec<Problem> {
        Problem::one(
            &self.at,
            known,
            format!("{}, which cannot be mapped", self.kind),
        )
    }
}

/// The registered short name of a class; the class's own where there is none.
fn short(class: &str) -> &str {
    match class {
        "SinglePass" => "single_pass",
        "ActionChunking" => "action_chunking",
        "StatsNormalizer" => "normalize",
        "StatsDenormalizer" => "denormalize",
        "ResizePreprocessor" => "resize",
        "ToFloatTensorPreprocessor" => "to_float_tensor",
        "ActionChunkTrimmer" => "action_chunk_trimmer",
        "ActionNormalizer" => "action_normalizer",
        "LatencyMonitor" => "latency_monitor",
        "ThroughputMonitor" => "throughput_monitor",
        "RTCLatencyTracker" => "rtc_latency",
        other => other,
    }
}

/// `model.KEY`, in order.
pub(crate) fn components(model: &Value, key: &str) -> Fallible<Vec<Component>> {
    let list = model.get(key).and_then(Value::as_array);
    let list = list.map(Vec::as_slice).unwrap_or_default();
    list.iter()
        .enumerate()
        .map(|(index, value)| {
            Component::read(value, format!("manifest.json: model.{key}[{index}]"))
        })
        .collect()
}

/// A file's name within the package.
pub(crate) fn plain(name: &Value, at: &str) -> Fallible<String> {
    let name = name.as_str().unwrap_or_default();
    let inside = Path::new(name)
        .components()
        .all(|part| matches!(part, Part::Normal(_)));
    if name.is_empty() || !inside {
        return Err(Problem::one(
            at,
            "the name of a file of the package",
            format!("{name:?}"),
        ));
    }
    Ok(name.to_owned())
}

/// A `resize`.
#[derive(Clone, Debug)]
pub(crate) struct Resize {
    /// Width and height.
    pub(crate) size: [usize; 2],
    pub(crate) fit: &'static str,
    /// Of 0..255.
    pub(crate) pad: f64,
    /// Rounded to bytes, as OpenCV resizes bytes.
    pub(crate) bytes: bool,
}

impl Resize {
    pub(crate) fn read(component: &Component, is_0_to_1: bool) -> Fallible<Resize> {
        let wrong = |key: &str, expected: &str| {
            let found = text(component.args.get(key));
            Problem::one(format!("{}.{key}", component.at), expected, found)
        };
        let sides = whole_numbers(component.args.get("image_resolution"));
        let [height, width] = sides[..] else {
            return Err(wrong("image_resolution", "[height, width]"));
        };
        let fit = match component.args.get("mode").and_then(Value::as_str) {
            None | Some("letterbox") => "pad_center",
            Some("stretch") => "stretch",
            Some(_) => return Err(wrong("mode", "stretch or letterbox")),
        };
        let pad = match component.args.get("pad_value") {
            None => Some(0.0),
            Some(value) => value.as_f64(),
        };
        let pad = pad.ok_or_else(|| wrong("pad_value", "a number"))?;
        Ok(Resize {
            size: [width, height],
            fit,
            pad: if is_0_to_1 { pad * 255.0 } else { pad },
            bytes: !is_0_to_1,
        })
    }
}

/// What a `normalize` or `denormalize` does.
#[derive(Clone, Debug)]
pub(crate) struct Statistics {
    at: String,
    /// Its file in the bundle.
    pub(crate) name: String,
    /// What stands in it.
    pub(crate) bytes: Vec<u8>,
    mode: String,
    /// Features that it is for; all if empty.
    features: Vec<String>,
    /// Feature, figure, numbers.
    values: BTreeMap<String, BTreeMap<String, Vec<f32>>>,
}

impl Statistics {
    /// `own_name` is the file's where the manifest itself holds the numbers.
    pub(crate) fn read(
        component: &Component,
        folder: &Path,
        own_name: String,
    ) -> Fallible<Statistics> {
        let args = &component.args;
        let mode = args
            .get("mode")
            .and_then(Value::as_str)
            .unwrap_or("mean_std")
            .to_owned();
        if figures(&mode).is_none() && mode != "identity" {
            return Err(Problem::one(
                format!("{}.mode", component.at),
                "mean_std, min_max, quantiles or identity",
                mode,
            ));
        }
        let features = args.get("features").and_then(Value::as_array);
        let features = features.map(|list| {
            list.iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        });
        let path = ["stats_path", "artifact"]
            .into_iter()
            .find_map(|key| args.get(key).filter(|value| value.is_string()));
        let (name, values, bytes) = match (args.get("stats").and_then(Value::as_object), path) {
            (Some(inline), _) => {
                let values = of_json(inline, &component.at)?;
                let bytes = packed(&values, &component.at)?;
                (own_name, values, bytes)
            }
            (None, Some(path)) => {
                let name = plain(path, &format!("{}.artifact", component.at))?;
                let bytes = bytes(&folder.join(&name))?;
                (name.clone(), of_file(&name, &bytes)?, bytes)
            }
            (None, None) => {
                return Err(Problem::one(
                    &component.at,
                    "stats, stats_path or artifact",
                    "none of them",
                ));
            }
        };
        Ok(Statistics {
            at: component.at.clone(),
            name,
            bytes,
            mode,
            features: features.unwrap_or_default(),
            values,
        })
    }

    /// Whether it changes that feature.
    pub(crate) fn has(&self, feature: &str) -> bool {
        self.mode != "identity"
            && (self.features.is_empty() || self.features.iter().any(|name| name == feature))
            && self.values.contains_key(feature)
    }

    /// As `stats` of the manifest.
    pub(crate) fn file(&self, feature: &str) -> Option<Value> {
        let values = self.values.get(feature)?;
        let mut stats = json!({
            "file": self.name, "key": feature, "mode": self.mode, "convention": "lerobot", "eps": EPS,
        });
        if let (Some(mask), Some(stats)) = (values.get("mask"), stats.as_object_mut()) {
            let mask: Vec<bool> = mask.iter().map(|bit| *bit != 0.0).collect();
            stats.insert("mask".into(), json!(mask));
        }
        Some(stats)
    }

    /// Offset and divisor of red, green and blue, of numbers of 0 to 1.
    pub(crate) fn colours(&self, feature: &str) -> Fallible<[Vec<f64>; 2]> {
        let figures = figures(&self.mode).unwrap_or(["mean", "std"]);
        let [first, second] = figures.map(|figure| {
            self.values
                .get(feature)?
                .get(figure)
                .filter(|list| list.len() == 3)
        });
        let (Some(first), Some(second)) = (first, second) else {
            return Err(Problem::one(
                format!("{}: {feature}", self.at),
                format!("{figures:?} of three colours"),
                "others",
            ));
        };
        let pairs = first.iter().zip(second).map(|(first, second)| {
            let (first, second) = (f64::from(*first), f64::from(*second));
            match self.mode.as_str() {
                "mean_std" => (first, second + EPS),
                // 2 (x - low) / range - 1 is (x - low - range / 2) / (range / 2).
                _ => {
                    let half = (second - first + EPS) / 2.0;
                    (first + half, half)
                }
            }
        });
        let (mean, std) = pairs.unzip();
        Ok([mean, std])
    }
}

fn figures(mode: &str) -> Option<[&'static str; 2]> {
    match mode {
        "mean_std" => Some(["mean", "std"]),
        "min_max" => Some(["min", "max"]),
        "quantiles" => Some(["q01", "q99"]),
        _ => None,
    }
}

fn flatten(value: &Value, into: &mut Vec<f32>) -> Option<()> {
    match value {
        Value::Array(list) => list.iter().try_for_each(|value| flatten(value, into)),
        Value::Bool(bit) => {
            into.push(f32::from(u8::from(*bit)));
            Some(())
        }
        value => {
            into.push(value.as_f64()? as f32);
            Some(())
        }
    }
}

type Values = BTreeMap<String, BTreeMap<String, Vec<f32>>>;

fn of_json(inline: &Map<String, Value>, at: &str) -> Fallible<Values> {
    let mut all = Values::new();
    for (feature, figures) in inline {
        for (figure, value) in figures.as_object().into_iter().flatten() {
            let mut list = Vec::new();
            flatten(value, &mut list).ok_or_else(|| {
                Problem::one(
                    format!("{at}.stats.{feature}.{figure}"),
                    "numbers",
                    text(Some(value)),
                )
            })?;
            all.entry(feature.clone())
                .or_default()
                .insert(figure.clone(), list);
        }
    }
    Ok(all)
}

fn of_file(name: &str, bytes: &[u8]) -> Fallible<Values> {
    let file = SafeTensors::deserialize(bytes)
        .map_err(|error| Problem::one(name, "a whole safetensors file", error.to_string()))?;
    let mut all = Values::new();
    for (key, view) in file.tensors() {
        let Some((feature, figure)) = key.rsplit_once('/') else {
            continue;
        };
        let list = match view.dtype() {
            Dtype::F32 => view
                .data()
                .chunks_exact(4)
                .filter_map(|word| word.try_into().ok().map(f32::from_le_bytes))
                .collect(),
            Dtype::BOOL | Dtype::U8 => view.data().iter().map(|bit| f32::from(*bit)).collect(),
            other => {
                return Err(Problem::one(
                    format!("{name}: {key}"),
                    "F32",
                    format!("{other:?}"),
                ));
            }
        };
        all.entry(feature.to_owned())
            .or_default()
            .insert(figure.to_owned(), list);
    }
    Ok(all)
}

/// A safetensors file of numbers that stand in the manifest.
fn packed(values: &Values, at: &str) -> Fallible<Vec<u8>> {
    let mut tensors: Vec<(String, Vec<u8>)> = Vec::new();
    for (feature, figures) in values {
        for (figure, list) in figures {
            let bytes = list.iter().flat_map(|value| value.to_le_bytes()).collect();
            tensors.push((format!("{feature}/{figure}"), bytes));
        }
    }
    let wrong = |error: safetensors::SafeTensorError| {
        Problem::one(at, "statistics that can be written", error.to_string())
    };
    let views = tensors.iter().map(|(key, bytes)| {
        TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map(|view| (key.as_str(), view))
    });
    let views: Vec<(&str, TensorView<'_>)> = views.collect::<Result<_, _>>().map_err(wrong)?;
    safetensors::serialize(views, None).map_err(wrong)
}
