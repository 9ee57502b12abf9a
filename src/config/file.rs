// SPDX-License-Identifier: Apache-2.0
//! `tendon.toml` and `robot.toml` as written, and the words for what is wrong with them: file, line, key.

use crate::config::GRIPPER;
use crate::config::derate::DerateTable;
use crate::config::lines::LinesTable;
use crate::config::link::LinkTable;
use crate::config::problem::Problem;
use crate::config::realtime::RealtimeTable;
use crate::config::watchdog::WatchdogTable;
use crate::core::governor::limits::JointLimits;
use crate::core::units::MS;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

/// A number as written, integer or not. `nan` and `inf` are TOML, and are refused where a number is checked.
#[derive(Clone, Copy, Debug)]
pub struct Number(pub f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(deserializer)? {
            toml::Value::Float(value) => Ok(Number(value)),
            toml::Value::Integer(value) => Ok(Number(value as f64)),
            other => Err(D::Error::custom(format!(
                "expected a number, found {}",
                other.type_str()
            ))),
        }
    }
}

/// `tendon.toml`: a deployment.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TendonFile {
    /// Path of `robot.toml`, relative to this file.
    pub robot: Spanned<String>,
    /// "auto" (absent), "thread" or "process": where cameras and policy run.
    pub isolation: Option<Spanned<String>>,
    /// The program of the inference process, relative to this file; absent: this one.
    pub inference_program: Option<Spanned<String>>,
    /// See [`PolicyTable`].
    pub policy: PolicyTable,
    /// See [`LinkTable`].
    pub link: LinkTable,
    /// `[camera]`, or several `[[camera]]`; see [`CameraTable`]. The policy looks through the first.
    pub camera: Cameras,
    /// See [`ControlTable`].
    pub control: ControlTable,
    /// See [`ScheduleTable`].
    pub schedule: ScheduleTable,
    /// See [`GovernorTable`]; absent: its defaults.
    pub governor: Option<GovernorTable>,
    /// See [`PageTable`]; absent: no page.
    pub page: Option<PageTable>,
    /// See [`RealtimeTable`]; absent: what the kernel grants is taken, and told.
    pub realtime: Option<RealtimeTable>,
    /// See [`DerateTable`]; absent: the machine's health slows nothing.
    pub derate: Option<DerateTable>,
    /// See [`WatchdogTable`]; absent: the machine's own is not ours to ping.
    pub watchdog: Option<WatchdogTable>,
    /// See [`LinesTable`]; absent: none is wired to this machine.
    pub lines: Option<LinesTable>,
}

/// `[policy]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyTable {
    /// The bundle's folder, relative to this file.
    pub bundle: Spanned<String>,
    /// "fp32", "fp16", "int8" or "best".
    pub precision: Spanned<String>,
    /// Inferences a second.
    pub rate_hz: Spanned<Number>,
    /// When the next plan is asked for: "continuous" (absent), "horizon", "queue", "surprise".
    pub infer: Option<Spanned<String>>,
    /// With "horizon": once so many actions are done.
    pub execute_actions: Option<Spanned<Number>>,
    /// With "queue": once no more than so many actions are left.
    pub queue_actions: Option<Spanned<Number>>,
    /// With "queue": once no more than this share of them is left.
    pub queue_share: Option<Spanned<Number>>,
    /// With "surprise": once a joint is further than this from where the plan has it, rad or m.
    pub surprise_tracking: Option<Spanned<Number>>,
    /// With "surprise": once the picture's brightness has changed by this on the mean, of 1.
    pub surprise_scene: Option<Spanned<Number>>,
    /// Threads of the CPU engine; absent: 1.
    pub threads: Option<Spanned<Number>>,
    /// With more doubt than this a chunk is not followed; absent: doubt is not asked for.
    pub doubt_max: Option<Spanned<Number>>,
    /// After so many doubted chunks in a row help is called for; absent: 10.
    pub help_after_chunks: Option<Spanned<Number>>,
    /// Engines in the order in which they are tried; absent: "cpu" alone.
    pub engines: Option<Spanned<Vec<String>>>,
    /// Where built engines are kept, relative to this file.
    pub engine_cache: Option<Spanned<String>>,
    /// More for the builder of TensorRT engines.
    #[serde(default)]
    pub trtexec_flags: Vec<String>,
    /// Providers of ONNX Runtime in the order in which they are asked for; absent: "cuda".
    pub ort_providers: Option<Spanned<Vec<String>>>,
    /// Endpoint of the machine that runs the engine "remote".
    pub remote: Option<Spanned<String>>,
    /// A stage that it does not answer in this time is a failed one; absent: 500.
    pub remote_timeout_ms: Option<Spanned<Number>>,
    /// How far apart the pictures of one observation may be, with several cameras.
    pub max_skew_ms: Option<Spanned<Number>>,
}

/// `[camera]`, or a list of `[[camera]]`.
#[derive(Clone, Debug)]
pub struct Cameras(pub Vec<CameraTable>);

impl<'de> Deserialize<'de> for Cameras {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// One table or a list of them; each keeps its places in the file.
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Vec<CameraTable>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a table [camera], or tables [[camera]]")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let one = CameraTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(vec![one])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut cameras = Vec::new();
                while let Some(camera) = seq.next_element()? {
                    cameras.push(camera);
                }
                Ok(cameras)
            }
        }
        deserializer.deserialize_any(Either).map(Cameras)
    }
}

/// One camera.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraTable {
    /// Its name in keys and in the bundle.
    pub name: Spanned<String>,
    /// "link" (absent), "images", "v4l" or "gstreamer".
    pub source: Option<Spanned<String>>,
    /// Of "images": a folder of JPEG files or a file of JPEG pictures, relative to this file.
    pub path: Option<Spanned<String>>,
    /// Of "v4l": its node.
    pub device: Option<Spanned<String>>,
    /// Of "v4l": pixel formats in the order of preference, four characters each.
    pub formats: Option<Spanned<Vec<String>>>,
    /// Of "v4l": controls to be set and read back, by name or number.
    #[serde(default)]
    pub controls: std::collections::BTreeMap<String, Spanned<Number>>,
    /// Of "gstreamer": a pipeline without a sink.
    pub pipeline: Option<Spanned<String>>,
    /// Whether the robot may go without it; absent: it may not.
    pub optional: Option<Spanned<bool>>,
    /// Pixels a row.
    pub width: Spanned<Number>,
    /// Rows.
    pub height: Spanned<Number>,
    /// An older frame is not shown to the policy.
    pub age_max_ms: Spanned<Number>,
    /// How long before its stamp a picture was taken; absent: 0.
    pub delay_ms: Option<Spanned<Number>>,
    /// Frames a second; absent: silence is judged by `age_max_ms` alone.
    pub rate_hz: Option<Spanned<Number>>,
    /// Whether its pictures carry noise; absent: they do. A simulated camera's may not.
    pub noisy: Option<bool>,
    /// Whether it is mounted on what the robot moves; absent: it is not.
    pub moves: Option<bool>,
}

/// `[control]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlTable {
    /// Control rate, 50..1000.
    pub hz: Spanned<Number>,
    /// An older joint state is stale.
    pub state_age_max_ms: Spanned<Number>,
}

/// `[schedule]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleTable {
    /// "replace", "blend", "ensemble", "aggregate" or "smooth".
    pub merge: Spanned<String>,
    /// Length of the seam in motion; with "blend".
    pub blend_ms: Option<Spanned<Number>>,
    /// Least length of the seam from rest.
    pub start_ms: Option<Spanned<Number>>,
    /// ACT's m; with "ensemble".
    pub ensemble_decay: Option<Spanned<Number>>,
    /// "oldest_first" or "newest_first"; with "ensemble".
    pub ensemble_order: Option<Spanned<String>>,
    /// "weighted_average", "latest_only", "average" or "conservative"; with "aggregate".
    pub aggregate: Option<Spanned<String>>,
    /// Actions in the running mean; with "smooth".
    pub smooth_last: Option<Spanned<Number>>,
    /// Without a newer chunk for this long the plan counts as an old one's tail.
    pub fresh_ms: Option<Spanned<Number>>,
    /// A plan whose observation is older is not followed.
    pub expiry_ms: Option<Spanned<Number>>,
    /// Actions of the old plan that are still done after a new instruction.
    pub instruction_tail_steps: Option<Spanned<Number>>,
    /// Least time from a new instruction to its first action.
    pub instruction_pause_ms: Option<Spanned<Number>>,
    /// A gripper is told so much earlier than the plan has it; absent: 0.
    pub gripper_lead_ms: Option<Spanned<Number>>,
}

/// `[governor]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GovernorTable {
    /// "synchronised" or "independent".
    pub coordination: Option<Spanned<String>>,
    /// How long limits are tighter after arming and after a change of hands.
    pub settling_ms: Option<Spanned<Number>>,
    /// Share of the velocity limits meanwhile.
    pub settling_velocity: Option<Spanned<Number>>,
    /// Share of the acceleration limits meanwhile.
    pub settling_acceleration: Option<Spanned<Number>>,
    /// Share of the speed limits at the start, percent.
    pub speed_percent: Option<Spanned<Number>>,
    /// Cause -> pose of robot.toml that is offered when it holds the robot.
    #[serde(default)]
    pub fallback: std::collections::BTreeMap<String, Spanned<String>>,
    /// Cause -> stricter reaction.
    #[serde(default)]
    pub reactions: std::collections::BTreeMap<String, Spanned<String>>,
}

/// `[page]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageTable {
    /// Loopback address of the operator's page.
    pub listen: Spanned<String>,
    /// Where each start leaves the page's token.
    pub token_file: Option<std::path::PathBuf>,
}

/// `robot.toml`: joints and limits.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobotFile {
    /// Used in keys.
    pub name: Spanned<String>,
    /// How old a joint state is when it comes.
    pub state_delay_ms: Option<Spanned<Number>>,
    /// Joints in order.
    #[serde(default)]
    pub joint: Vec<JointTable>,
    /// See [`SpaceTable`]; absent: the space is not checked.
    pub space: Option<SpaceTable>,
    /// Poses with names.
    #[serde(default)]
    pub pose: Vec<PoseTable>,
}

/// `[space]`: where the robot may be. Metres, in the frame of the URDF's base.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpaceTable {
    /// Path of the URDF, relative to this file.
    pub urdf: Spanned<String>,
    /// A link: commands also say where it is to be and how it moves; absent: joints alone.
    pub tool: Option<Spanned<String>>,
    /// Lowest corner of the workspace.
    pub workspace_min_m: Option<Spanned<[Number; 3]>>,
    /// Highest corner of the workspace.
    pub workspace_max_m: Option<Spanned<[Number; 3]>>,
    /// Boxes that the robot must keep out of.
    #[serde(default)]
    pub keep_out: Vec<KeepOutTable>,
    /// Shapes by hand, instead of the URDF's.
    #[serde(default)]
    pub capsule: Vec<CapsuleTable>,
    /// Least distance of two parts of the robot.
    pub clearance_m: Option<Spanned<Number>>,
    /// Pairs of links that are not checked against one another.
    #[serde(default)]
    pub may_touch: Vec<Spanned<[String; 2]>>,
    /// Links that stand on or in what the boxes stand for: not checked against boxes and workspace.
    #[serde(default)]
    pub standing: Vec<Spanned<String>>,
    /// Joints of the URDF that are not in this file, and where they are held (rad or m).
    #[serde(default)]
    pub held: std::collections::BTreeMap<String, Spanned<Number>>,
}

/// `[[space.keep_out]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepOutTable {
    /// For messages.
    pub name: Spanned<String>,
    /// Lowest corner.
    pub min_m: Spanned<[Number; 3]>,
    /// Highest corner.
    pub max_m: Spanned<[Number; 3]>,
}

/// `[[space.capsule]]`: in the link's frame.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapsuleTable {
    /// The link.
    pub link: Spanned<String>,
    /// One end.
    pub from_m: Spanned<[Number; 3]>,
    /// The other.
    pub to_m: Spanned<[Number; 3]>,
    /// Around both.
    pub radius_m: Spanned<Number>,
}

/// `[[pose]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoseTable {
    /// Its name.
    pub name: Spanned<String>,
    /// One number a joint: rad, m, or 0 to 1.
    pub positions: Spanned<Vec<Number>>,
}

/// `[[joint]]`. Revolute joints use the `_rad` keys, prismatic ones the `_m` keys, grippers none.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // The keys say what they are, with their units.
pub struct JointTable {
    pub name: Spanned<String>,
    pub kind: Spanned<String>,
    pub position_min_rad: Option<Spanned<Number>>,
    pub position_max_rad: Option<Spanned<Number>>,
    pub velocity_max_rad_s: Option<Spanned<Number>>,
    pub acceleration_max_rad_s2: Option<Spanned<Number>>,
    pub jerk_max_rad_s3: Option<Spanned<Number>>,
    pub tracking_error_max_rad: Option<Spanned<Number>>,
    pub torque_max_nm: Option<Spanned<Number>>,
    pub position_min_m: Option<Spanned<Number>>,
    pub position_max_m: Option<Spanned<Number>>,
    pub velocity_max_m_s: Option<Spanned<Number>>,
    pub acceleration_max_m_s2: Option<Spanned<Number>>,
    pub jerk_max_m_s3: Option<Spanned<Number>>,
    pub tracking_error_max_m: Option<Spanned<Number>>,
    pub force_max_n: Option<Spanned<Number>>,
}

/// Reads a file's text; an unknown key, a wrong type or broken TOML is one problem with its line.
///
/// # Errors
/// The first [`Problem`], as the TOML reader stops there.
pub fn parse<T: serde::de::DeserializeOwned>(name: &str, text: &str) -> Result<T, Problem> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or_else(String::new, |span| {
            format!(":{}", line_of(text, span.start))
        });
        Problem {
            at: format!("{name}{line}"),
            expected: "what docs/configuration.md lists".into(),
            found: error.message().to_owned(),
        }
    })
}

fn line_of(text: &str, byte: usize) -> usize {
    1 + text
        .bytes()
        .take(byte)
        .filter(|each| *each == b'\n')
        .count()
}

/// Collects problems of one file, each with its line.
#[derive(Debug)]
pub struct Located<'a> {
    name: &'a str,
    text: &'a str,
    /// What was found so far.
    pub problems: Vec<Problem>,
}

impl<'a> Located<'a> {
    /// Nothing wrong so far.
    #[must_use]
    pub fn new(name: &'a str, text: &'a str) -> Located<'a> {
        Located {
            name,
            text,
            problems: Vec::new(),
        }
    }

    /// Notes a problem at the line of `where_`.
    pub fn push<T>(&mut self, where_: &Spanned<T>, key: &str, expected: &str, found: String) {
        let at = format!("{}:{}: {key}", self.name, self.line(where_));
        self.problems.push(Problem {
            at,
            expected: expected.into(),
            found,
        });
    }

    /// The line of `where_`.
    #[must_use]
    pub fn line<T>(&self, where_: &Spanned<T>) -> usize {
        line_of(self.text, where_.span().start)
    }

    /// A delay that was declared, 0 to 500 ms; 0 if it was not.
    pub fn delay_ns(&mut self, key: &str, delay_ms: Option<&Spanned<Number>>) -> u64 {
        delay_ms.map_or(0, |delay_ms| {
            (self.within(key, delay_ms, 0.0, 500.0) * MS as f64) as u64
        })
    }

    /// A number between `low` and `high`; `low` when it is not, so that checking can go on.
    pub fn within(&mut self, key: &str, number: &Spanned<Number>, low: f64, high: f64) -> f64 {
        let value = number.get_ref().0;
        // Written so that a NaN is outside.
        if (low..=high).contains(&value) {
            return value;
        }
        self.push(number, key, &format!("{low} to {high}"), value.to_string());
        low
    }

    /// A name that can stand in a key of the link.
    pub fn name(&mut self, key: &str, name: &Spanned<String>) {
        let text = name.get_ref();
        let good = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        if !good {
            self.push(
                name,
                key,
                "1 to 64 letters, digits, '-' or '_'",
                format!("\"{text}\""),
            );
        }
    }

    /// Limits of a joint that moves. `unit` is "rad" or "m".
    pub fn limits(&mut self, key: &str, joint: &JointTable, unit: &str) -> JointLimits {
        let (mine, other) = if unit == "rad" {
            (rad_keys(joint), m_keys(joint))
        } else {
            (m_keys(joint), rad_keys(joint))
        };
        for (name, given) in other {
            if let Some(given) = given {
                let expected = format!(
                    "a limit in {unit}, as the joint is \"{}\"",
                    joint.kind.get_ref()
                );
                self.push(
                    given,
                    &format!("{key}.{name}"),
                    &expected,
                    given.get_ref().0.to_string(),
                );
            }
        }
        let mut values = [0.0; LIMITS];
        for (index, (value, (name, given))) in values.iter_mut().zip(mine).enumerate() {
            match given {
                None if index + 1 == LIMITS => *value = f64::INFINITY,
                None => self.push(
                    &joint.name,
                    &format!("{key}.{name}"),
                    "a number: limits are never guessed",
                    "nothing".into(),
                ),
                Some(given) if !given.get_ref().0.is_finite() => {
                    self.push(
                        given,
                        &format!("{key}.{name}"),
                        "a finite number",
                        given.get_ref().0.to_string(),
                    );
                }
                Some(given) => *value = given.get_ref().0,
            }
        }
        let [
            position_min,
            position_max,
            velocity_max,
            acceleration_max,
            jerk_max,
            tracking_error_max,
            torque_max,
        ] = values;
        if let (Some(given), Some(_)) = (mine[1].1, mine[0].1)
            && position_min >= position_max
        {
            let name = format!("{key}.{}", mine[1].0);
            self.push(
                given,
                &name,
                &format!("more than {} {position_min}", mine[0].0),
                position_max.to_string(),
            );
        }
        for (value, (name, given)) in values.into_iter().zip(mine).skip(2) {
            if let Some(given) = given
                && value <= 0.0
            {
                self.push(
                    given,
                    &format!("{key}.{name}"),
                    "more than 0",
                    value.to_string(),
                );
            }
        }
        JointLimits {
            position_min,
            position_max,
            velocity_max,
            acceleration_max,
            jerk_max,
            tracking_error_max,
            torque_max,
        }
    }

    /// A gripper has no limits to write.
    pub fn gripper(&mut self, key: &str, joint: &JointTable) -> JointLimits {
        for (name, given) in rad_keys(joint).into_iter().chain(m_keys(joint)) {
            if let Some(given) = given {
                self.push(
                    given,
                    &format!("{key}.{name}"),
                    "nothing: a gripper goes from 0 to 1",
                    given.get_ref().0.to_string(),
                );
            }
        }
        GRIPPER
    }
}

/// Limits of a joint that moves, the last one optional: not every drive measures its torque.
const LIMITS: usize = 7;

type Key<'a> = (&'static str, Option<&'a Spanned<Number>>);

fn rad_keys(joint: &JointTable) -> [Key<'_>; LIMITS] {
    [
        ("position_min_rad", joint.position_min_rad.as_ref()),
        ("position_max_rad", joint.position_max_rad.as_ref()),
        ("velocity_max_rad_s", joint.velocity_max_rad_s.as_ref()),
        (
            "acceleration_max_rad_s2",
            joint.acceleration_max_rad_s2.as_ref(),
        ),
        ("jerk_max_rad_s3", joint.jerk_max_rad_s3.as_ref()),
        (
            "tracking_error_max_rad",
            joint.tracking_error_max_rad.as_ref(),
        ),
        ("torque_max_nm", joint.torque_max_nm.as_ref()),
    ]
}

fn m_keys(joint: &JointTable) -> [Key<'_>; LIMITS] {
    [
        ("position_min_m", joint.position_min_m.as_ref()),
        ("position_max_m", joint.position_max_m.as_ref()),
        ("velocity_max_m_s", joint.velocity_max_m_s.as_ref()),
        (
            "acceleration_max_m_s2",
            joint.acceleration_max_m_s2.as_ref(),
        ),
        ("jerk_max_m_s3", joint.jerk_max_m_s3.as_ref()),
        ("tracking_error_max_m", joint.tracking_error_max_m.as_ref()),
        ("force_max_n", joint.force_max_n.as_ref()),
    ]
}
