// SPDX-License-Identifier: Apache-2.0
//! Cameras of a deployment: where each comes from, what its pictures must be, whether the robot may go without it.

use crate::config::file::{CameraTable, Located, Number, TendonFile};
use crate::core::camera::Expected;
use crate::core::camera::skew::Need;
use crate::core::limits::CAMERAS_MAX;
use crate::core::units::MS;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// How far apart the pictures of one observation may be, if nothing is said: a period and a half of 30 Hz, as two
/// cameras that nobody synchronised are up to a period apart.
const SKEW_MAX_NS: u64 = 50 * MS;

/// Controls of kernel cameras by the names that `v4l2-ctl --list-ctrls` gives them, with their numbers in the kernel's
/// `v4l2-controls.h`. Others are written as numbers.
pub const CONTROLS: [(&str, u32); 20] = [
    ("brightness", 0x0098_0900),
    ("contrast", 0x0098_0901),
    ("saturation", 0x0098_0902),
    ("hue", 0x0098_0903),
    ("white_balance_automatic", 0x0098_090c),
    ("gamma", 0x0098_0910),
    ("exposure", 0x0098_0911),
    ("gain_automatic", 0x0098_0912),
    ("gain", 0x0098_0913),
    ("horizontal_flip", 0x0098_0914),
    ("vertical_flip", 0x0098_0915),
    ("power_line_frequency", 0x0098_0918),
    ("white_balance_temperature", 0x0098_091a),
    ("sharpness", 0x0098_091b),
    ("backlight_compensation", 0x0098_091c),
    ("auto_exposure", 0x009a_0901),
    ("exposure_time_absolute", 0x009a_0902),
    ("exposure_dynamic_framerate", 0x009a_0903),
    ("focus_absolute", 0x009a_090a),
    ("focus_automatic_continuous", 0x009a_090c),
];

/// Where a camera's pictures come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CameraSource {
    /// Over the link: the bench, or another machine.
    Link,
    /// JPEG pictures from a folder or a file, in real time, again and again.
    Images(PathBuf),
    /// A kernel camera.
    V4l {
        /// Its node, by a path that does not change.
        device: PathBuf,
        /// Pixel formats in the order of preference; empty: the cheapest to decode first.
        formats: Vec<[u8; 4]>,
        /// Controls to be set and read back.
        controls: Vec<(u32, i64)>,
    },
    /// A GStreamer pipeline.
    Gstreamer(String),
}

impl CameraSource {
    /// As tendon.toml writes it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            CameraSource::Link => "link",
            CameraSource::Images(_) => "images",
            CameraSource::V4l { .. } => "v4l",
            CameraSource::Gstreamer(_) => "gstreamer",
        }
    }
}

/// One camera.
#[derive(Clone, Debug)]
pub struct CameraConfig {
    /// Its name in keys and in the bundle.
    pub name: String,
    /// Where its pictures come from.
    pub source: CameraSource,
    /// Whether the robot may go without it.
    pub need: Need,
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// An older frame is not shown to the policy.
    pub age_max_ns: u64,
    /// How long before its stamp a picture was taken.
    pub delay_ns: u64,
    /// Time between two frames, if it is said: silence of 2.5 of it is a lost camera.
    pub period_ns: Option<u64>,
    /// Whether its pictures carry noise, as those of any sensor do.
    pub noisy: bool,
    /// Whether it is mounted on what the robot moves, as on a wrist.
    pub moves: bool,
}

impl super::Config {
    /// All cameras in the order of the file; the first paces the policy.
    pub fn cameras(&self) -> impl Iterator<Item = &CameraConfig> + Clone {
        std::iter::once(&self.camera).chain(&self.more_cameras)
    }
}

impl CameraConfig {
    /// What the judge of its pictures must know.
    #[must_use]
    pub fn expected(&self) -> Expected {
        Expected {
            width: self.width,
            height: self.height,
            period_ns: self.period_ns,
            age_max_ns: self.age_max_ns,
            noisy: self.noisy,
            moves: self.moves,
        }
    }
}

/// All cameras: the policy's, the others, and how far apart the pictures of one observation may be.
pub(super) fn check(
    written: &TendonFile,
    folder: &Path,
    at: &mut Located<'_>,
) -> (Option<CameraConfig>, Vec<CameraConfig>, u64) {
    let tables = &written.camera.0;
    let mut cameras: Vec<CameraConfig> = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let key = if tables.len() == 1 {
            "camera".to_owned()
        } else {
            format!("camera[{index}] \"{}\"", table.name.get_ref())
        };
        let camera = one(table, &key, folder, at);
        if cameras.iter().any(|other| other.name == camera.name) {
            at.push(
                &table.name,
                &format!("{key}.name"),
                "a name that no other camera has",
                format!("\"{}\" again", camera.name),
            );
        }
        if let Some(device) = &table.device
            && let CameraSource::V4l { device: node, .. } = &camera.source
            && let Some((_, other)) = cameras.iter().zip(tables).find(|(other, _)| {
                matches!(&other.source, CameraSource::V4l { device, .. } if device == node)
            })
            && let Some(first) = &other.device
        {
            // A node gives its pictures to one; the second would be told that another program has it, which is us.
            let line = at.line(first);
            at.push(
                device,
                &format!("{key}.device"),
                "a device that no other camera has",
                format!("\"{}\" again, as in line {line}", device.get_ref()),
            );
        }
        if index == 0
            && let Some(optional) = table
                .optional
                .as_ref()
                .filter(|_| camera.need == Need::Optional)
        {
            at.push(
                optional,
                &format!("{key}.optional"),
                "false: the policy looks through the first camera",
                "true".into(),
            );
        }
        cameras.push(camera);
    }
    if tables.is_empty() || tables.len() > CAMERAS_MAX {
        at.push(
            &written.robot,
            "camera",
            &format!("1 to {CAMERAS_MAX} [[camera]] tables"),
            tables.len().to_string(),
        );
    }
    let skew_max_ns = written
        .policy
        .max_skew_ms
        .as_ref()
        .map_or(SKEW_MAX_NS, |skew_ms| {
            (at.within("policy.max_skew_ms", skew_ms, 1.0, 1_000.0) * MS as f64) as u64
        });
    let others = cameras.split_off(cameras.len().min(1));
    (cameras.pop(), others, skew_max_ns)
}

fn one(table: &CameraTable, key: &str, folder: &Path, at: &mut Located<'_>) -> CameraConfig {
    let sub = |name: &str| format!("{key}.{name}");
    at.name(&sub("name"), &table.name);
    let source = source(table, key, folder, at);
    let period_ns = table.rate_hz.as_ref().map(|rate| {
        let rate_hz = at.within(&sub("rate_hz"), rate, 1.0, 1000.0);
        (1e9 / rate_hz).round() as u64
    });
    if period_ns.is_none() && matches!(source, CameraSource::V4l { .. } | CameraSource::Images(_)) {
        let expected = format!(
            "frames a second, as source is \"{}\": it is asked of the camera",
            source.word()
        );
        at.push(&table.name, &sub("rate_hz"), &expected, "nothing".into());
    }
    let optional = table
        .optional
        .as_ref()
        .is_some_and(|optional| *optional.get_ref());
    CameraConfig {
        name: table.name.get_ref().clone(),
        source,
        need: if optional {
            Need::Optional
        } else {
            Need::Required
        },
        width: at.within(&sub("width"), &table.width, 16.0, 8192.0) as usize,
        height: at.within(&sub("height"), &table.height, 16.0, 8192.0) as usize,
        age_max_ns: (at.within(&sub("age_max_ms"), &table.age_max_ms, 1.0, 10_000.0) * MS as f64)
            as u64,
        delay_ns: at.delay_ns(&sub("delay_ms"), table.delay_ms.as_ref()),
        period_ns,
        noisy: table.noisy.unwrap_or(true),
        moves: table.moves.unwrap_or(false),
    }
}

/// Where from; keys of another source are refused.
fn source(table: &CameraTable, key: &str, folder: &Path, at: &mut Located<'_>) -> CameraSource {
    let word = table
        .source
        .as_ref()
        .map_or("link", |word| word.get_ref().as_str());
    let texts = [
        ("path", "images", &table.path),
        ("device", "v4l", &table.device),
        ("pipeline", "gstreamer", &table.pipeline),
    ];
    for (name, of, text) in texts {
        match text {
            Some(text) if of != word => at.push(
                text,
                &format!("{key}.{name}"),
                &format!("nothing, as source is \"{word}\""),
                // Not the text: a pipeline may have a password in it.
                "a text".into(),
            ),
            None if of == word => at.push(
                &table.name,
                &format!("{key}.{name}"),
                &format!("a text, as source is \"{word}\""),
                "nothing".into(),
            ),
            Some(_) | None => {}
        }
    }
    if word != "v4l" {
        if let Some(formats) = &table.formats {
            let expected = format!("nothing, as source is \"{word}\"");
            at.push(
                formats,
                &format!("{key}.formats"),
                &expected,
                "a list".into(),
            );
        }
        if let Some((name, value)) = table.controls.iter().next() {
            let expected = format!("nothing, as source is \"{word}\"");
            at.push(
                value,
                &format!("{key}.controls.{name}"),
                &expected,
                value.get_ref().0.to_string(),
            );
        }
    }
    let text = |text: &Option<Spanned<String>>| {
        text.as_ref()
            .map_or_else(String::new, |text| text.get_ref().clone())
    };
    match word {
        "link" => CameraSource::Link,
        "images" => CameraSource::Images(folder.join(text(&table.path))),
        "v4l" => CameraSource::V4l {
            device: PathBuf::from(text(&table.device)),
            formats: formats(table, key, at),
            controls: controls(table, key, at),
        },
        "gstreamer" => CameraSource::Gstreamer(text(&table.pipeline)),
        other => {
            if let Some(source) = &table.source {
                at.push(
                    source,
                    &format!("{key}.source"),
                    "\"link\", \"images\", \"v4l\" or \"gstreamer\"",
                    format!("\"{other}\""),
                );
            }
            CameraSource::Link
        }
    }
}

fn formats(table: &CameraTable, key: &str, at: &mut Located<'_>) -> Vec<[u8; 4]> {
    let Some(written) = &table.formats else {
        return Vec::new();
    };
    let mut formats = Vec::new();
    for text in written.get_ref() {
        // V4L2 pads names of three characters with a space.
        match <[u8; 4]>::try_from(format!("{text:<4}").as_bytes()) {
            Ok(fourcc) if text.is_ascii() && !text.is_empty() => formats.push(fourcc),
            Ok(_) | Err(_) => at.push(
                written,
                &format!("{key}.formats"),
                "four characters each, as in \"MJPG\"",
                format!("\"{text}\""),
            ),
        }
    }
    formats
}

fn controls(table: &CameraTable, key: &str, at: &mut Located<'_>) -> Vec<(u32, i64)> {
    let mut controls = Vec::new();
    for (name, value) in &table.controls {
        let key = format!("{key}.controls.{name}");
        let named = CONTROLS.iter().find(|(known, _)| known == name);
        let id = named.map(|(_, id)| *id).or_else(|| number(name));
        let Number(wanted) = *value.get_ref();
        if wanted.fract() != 0.0 || wanted.abs() > 2_147_483_647.0 {
            at.push(value, &key, "a whole number", wanted.to_string());
        }
        match id {
            Some(id) => controls.push((id, wanted as i64)),
            None => {
                let names: Vec<&str> = CONTROLS.iter().map(|(name, _)| *name).collect();
                let expected = format!("a control's number, e.g. 0x009a0902, or one of {names:?}");
                at.push(value, &key, &expected, format!("\"{name}\""));
            }
        }
    }
    // Automatic modes first: a camera refuses to have set by hand what it sets itself.
    controls
        .sort_by_key(|(id, _)| ![0x0098_090c, 0x0098_0912, 0x009a_0901, 0x009a_090c].contains(id));
    controls
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}
