// SPDX-License-Identifier: Apache-2.0
//! Which stage runs when, and which tensor goes where: worked out once from what the stages read.
//!
//! A tensor is handed from one stage to the next by exchanging two buffers, where it has one reader; it is copied where
//! it has several, or where the reader would want it again after its maker has not run. [`Plan`] says which.

use crate::config::problem::Problem;
use crate::policy::manifest::at;
use crate::policy::staged::manifest::{LoopFile, StagedFile, TextFile};
use crate::policy::staged::readers::read_on_host;
use crate::ports::{Dtype, StageSpec, TensorSpec};
use std::collections::BTreeMap;

/// Most stages of a bundle.
pub const STAGES_MAX: usize = 32;
/// Most numbers of all tensors together: 1 GiB of floats.
pub const VALUES_MAX: usize = 256 << 20;

/// Where a tensor comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A camera.
    Camera(usize),
    /// Which of its frames are real.
    Seen(usize),
    /// Normalised joint state.
    State,
    /// Token ids.
    Ids,
    /// Where tokens are.
    Mask,
    /// How many.
    Used,
    /// The sentence's vector.
    Embedding,
    /// A constant.
    Constant(usize),
    /// The last outputs of a stage.
    Ring(usize),
    /// Which of them are real.
    RingSeen(usize),
    /// The sample of the loop.
    X,
    /// Its time.
    Time,
    /// What is left of the plan that is followed.
    Prefix,
    /// How strongly each of its rows is held.
    Weights,
    /// Rows that are over before the new plan is followed.
    Delay,
    /// How hard the sample is pulled to it.
    Guidance,
    /// The last token.
    Token,
    /// Its place.
    Position,
    /// Output of a stage.
    Output(Place),
}

/// A tensor of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which stage, as in the file.
    pub stage: usize,
    /// Which tensor, by alphabet.
    pub tensor: usize,
}

/// When a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rate {
    /// Once, at load.
    Load,
    /// Once an instruction.
    Instruction,
    /// Once an observation.
    Observation,
    /// At each step of the loop.
    Step,
}

/// A part of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// From where.
    pub source: Source,
    /// First number in the input.
    pub start: usize,
    /// Numbers.
    pub len: usize,
}

/// An input of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// What it is made of.
    pub parts: Vec<Part>,
    /// What it is from the second run on.
    pub carry: Option<Place>,
}

/// A stage as it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Names, types, shapes.
    pub spec: StageSpec,
    /// Where its inputs come from.
    pub inputs: Vec<Input>,
    /// When.
    pub rate: Rate,
    /// Outputs that have one reader and are handed on by exchange.
    pub exchanged: Vec<bool>,
}

/// All stages in the order in which they run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// As in the file.
    pub stages: Vec<Stage>,
    /// Indices into `stages`.
    pub order: Vec<usize>,
    /// What the rings are of.
    pub rings: Vec<(Place, usize)>,
    /// Whether the prompt has the state in it.
    pub text_is_observed: bool,
}

/// Finds `STAGE.OUTPUT`.
#[must_use]
pub fn output_of(file: &StagedFile, name: &str) -> Option<Place> {
    let (stage, tensor) = name.split_once('.')?;
    let at = file.stages.iter().position(|found| found.id == stage)?;
    let place = file.stages.get(at)?;
    let tensor = place.outputs.keys().position(|found| found == tensor)?;
    Some(Place { stage: at, tensor })
}

fn source(file: &StagedFile, name: &str) -> Option<Source> {
    let camera = |role: &str| file.cameras.iter().position(|camera| camera.role == role);
    match name {
        "state" => return file.state.as_ref().map(|_| Source::State),
        "text.embedding" => {
            return matches!(file.text, Some(TextFile::Table(_))).then_some(Source::Embedding);
        }
        "text.ids" | "text.mask" | "text.used" => {
            return matches!(file.text, Some(TextFile::Prompt(_))).then_some(match name {
                "text.ids" => Source::Ids,
                "text.mask" => Source::Mask,
                _ => Source::Used,
            });
        }
        "loop.x" if matches!(file.repeat, Some(LoopFile::Draw(_))) => return Some(Source::X),
        "loop.x" | "loop.time" => {
            return matches!(
                file.repeat,
                Some(LoopFile::Flow(_) | LoopFile::Diffusion(_))
            )
            .then_some(if name == "loop.x" {
                Source::X
            } else {
                Source::Time
            });
        }
        "loop.prefix" | "loop.weights" | "loop.delay" | "loop.guidance" => {
            let goes_on = matches!(&file.repeat, Some(LoopFile::Flow(flow)) if flow.rtc.is_some());
            return goes_on.then_some(match name {
                "loop.prefix" => Source::Prefix,
                "loop.weights" => Source::Weights,
                "loop.delay" => Source::Delay,
                _ => Source::Guidance,
            });
        }
        "loop.token" | "loop.position" => {
            return matches!(file.repeat, Some(LoopFile::Tokens(_))).then_some(
                if name == "loop.token" {
                    Source::Token
                } else {
                    Source::Position
                },
            );
        }
        _ => {}
    }
    if let Some(rest) = name.strip_prefix("camera.") {
        return match rest.strip_suffix(".seen").and_then(camera) {
            Some(index) => Some(Source::Seen(index)),
            None => camera(rest).map(Source::Camera),
        };
    }
    if let Some(rest) = name.strip_prefix("const.") {
        return file
            .constants
            .keys()
            .position(|key| key == rest)
            .map(Source::Constant);
    }
    if let Some(rest) = name.strip_prefix("ring.") {
        return match rest.strip_suffix(".seen") {
            Some(ring) => file
                .rings
                .keys()
                .position(|key| key == ring)
                .map(Source::RingSeen),
            None => file
                .rings
                .keys()
                .position(|key| key == rest)
                .map(Source::Ring),
        };
    }
    output_of(file, name).map(Source::Output)
}

/// Numbers and element types that a source has; `None` for what takes any number (constants, the loop's time and sample).
struct Wants<'a> {
    file: &'a StagedFile,
    /// Numbers of a frame of each camera.
    frames: &'a [usize],
}

impl Wants<'_> {
    fn values(&self, source: Source) -> Option<usize> {
        let ring = |index: usize| self.file.rings.values().nth(index);
        match source {
            Source::Camera(index) => {
                let history = self
                    .file
                    .cameras
                    .get(index)
                    .map_or(1, |camera| camera.history);
                self.frames.get(index).map(|values| values * history)
            }
            Source::Seen(index) => self.file.cameras.get(index).map(|camera| camera.history),
            Source::Ids | Source::Mask => match &self.file.text {
                Some(TextFile::Prompt(prompt)) => Some(prompt.max_len),
                _ => None,
            },
            Source::Embedding => match &self.file.text {
                Some(TextFile::Table(table)) => Some(table.width),
                _ => None,
            },
            Source::Ring(index) => ring(index).and_then(|ring| {
                self.output(output_of(self.file, &ring.of)?)
                    .map(|(values, _)| values * ring.len)
            }),
            Source::RingSeen(index) => ring(index).map(|ring| ring.len),
            Source::Used | Source::Token | Source::Position | Source::Delay => Some(1),
            Source::Output(place) => self.output(place).map(|(values, _)| values),
            Source::State => self
                .file
                .state
                .as_ref()
                .filter(|state| state.history > 1)
                .map(|state| state.history * state.names.len()),
            Source::Constant(_) | Source::X | Source::Time => None,
            Source::Prefix | Source::Weights | Source::Guidance => None,
        }
    }

    fn output(&self, place: Place) -> Option<(usize, Dtype)> {
        let stage = self.file.stages.get(place.stage)?;
        let output = stage.outputs.values().nth(place.tensor)?;
        Some((numbers(&output.shape), output.dtype))
    }

    fn whole(&self, source: Source) -> Option<bool> {
        match source {
            Source::Camera(_) | Source::State | Source::Embedding | Source::X => Some(false),
            Source::Prefix | Source::Weights | Source::Guidance => Some(false),
            Source::Ids | Source::Used | Source::Token | Source::Position => Some(true),
            Source::Output(place) => self.output(place).map(|(_, dtype)| dtype != Dtype::F32),
            Source::Ring(index) => {
                let ring = self.file.rings.values().nth(index)?;
                self.output(output_of(self.file, &ring.of)?)
                    .map(|(_, dtype)| dtype != Dtype::F32)
            }
            Source::Mask
            | Source::Seen(_)
            | Source::RingSeen(_)
            | Source::Constant(_)
            | Source::Delay
            | Source::Time => None,
        }
    }
}

fn numbers(shape: &[usize]) -> usize {
    shape
        .iter()
        .fold(1, |product: usize, side| product.saturating_mul(*side))
}

impl Plan {
    /// Works it out. `frames` is how many numbers a frame of each camera has.
    ///
    /// # Errors
    /// Every [`Problem`]: unknown sources, types and sizes that do not fit, a circle, an output that nothing reads.
    pub fn new(file: &StagedFile, frames: &[usize]) -> Result<Plan, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |path: String, expected: String, found: String| {
            problems.push(Problem {
                at: at(&path),
                expected,
                found,
            });
        };
        if !(1..=STAGES_MAX).contains(&file.stages.len()) {
            wrong(
                "tendon.stages".into(),
                format!("1 to {STAGES_MAX} stages"),
                file.stages.len().to_string(),
            );
        }
        let wants = Wants { file, frames };
        let mut total = 0_usize;
        let mut stages = Vec::new();
        for (index, stage) in file.stages.iter().enumerate() {
            let path = format!("tendon.stages[{index}]");
            let reserved = ["camera", "const", "ring", "loop", "text", "state"];
            let twice = file
                .stages
                .iter()
                .take(index)
                .any(|other| other.id == stage.id);
            if twice
                || stage.id.is_empty()
                || stage.id.contains('.')
                || reserved.contains(&stage.id.as_str())
            {
                wrong(
                    format!("{path}.id"),
                    format!("a name of its own without a dot, none of {reserved:?}"),
                    format!("\"{}\"", stage.id),
                );
            }
            let mut inputs = Vec::new();
            for (name, input) in &stage.inputs {
                let path = format!("{path}.inputs.{name}");
                let values = numbers(&input.shape);
                total = total.saturating_add(values);
                let mut parts = Vec::new();
                let mut start = 0_usize;
                for from in input.from.names() {
                    let Some(source) = source(file, from) else {
                        wrong(
                            format!("{path}.from"),
                            "a source of this bundle: camera.ROLE, state, text.ids, const.NAME, ring.NAME, loop.x or STAGE.OUTPUT"
                                .into(),
                            format!("\"{from}\""),
                        );
                        continue;
                    };
                    let left = values.saturating_sub(start);
                    let len = wants.values(source).unwrap_or(left);
                    if wants
                        .whole(source)
                        .is_some_and(|whole| whole != (input.dtype != Dtype::F32))
                    {
                        wrong(
                            format!("{path}.dtype"),
                            format!("the type of \"{from}\""),
                            input.dtype.to_string(),
                        );
                    }
                    parts.push(Part { source, start, len });
                    start = start.saturating_add(len);
                }
                if start != values || values == 0 {
                    wrong(
                        format!("{path}.shape"),
                        format!("{start} numbers, as {:?} has", input.from.names()),
                        format!("{values} in {:?}", input.shape),
                    );
                }
                let carry = input.carry.as_ref().and_then(|name| {
                    let place = output_of(file, name);
                    let fits =
                        place.and_then(|place| wants.output(place)) == Some((values, input.dtype));
                    if !fits {
                        wrong(
                            format!("{path}.carry"),
                            format!("an output of {} {:?}", input.dtype, input.shape),
                            format!("\"{name}\""),
                        );
                    }
                    place
                });
                inputs.push(Input { parts, carry });
            }
            for output in stage.outputs.values() {
                total = total.saturating_add(numbers(&output.shape));
            }
            let spec = |(name, dtype, shape): (&String, Dtype, &Vec<usize>)| TensorSpec {
                name: name.clone(),
                dtype,
                shape: shape.clone(),
            };
            stages.push(Stage {
                spec: StageSpec {
                    id: stage.id.clone(),
                    inputs: stage
                        .inputs
                        .iter()
                        .map(|(name, input)| spec((name, input.dtype, &input.shape)))
                        .collect(),
                    outputs: stage
                        .outputs
                        .iter()
                        .map(|(name, output)| spec((name, output.dtype, &output.shape)))
                        .collect(),
                },
                inputs,
                rate: Rate::Load,
                exchanged: Vec::new(),
            });
        }
        if total > VALUES_MAX {
            wrong(
                "tendon.stages".into(),
                format!("tensors of at most {VALUES_MAX} numbers together"),
                total.to_string(),
            );
        }
        let mut rings = Vec::new();
        for (name, ring) in &file.rings {
            match output_of(file, &ring.of).filter(|_| (1..=256).contains(&ring.len)) {
                Some(place) => rings.push((place, ring.len)),
                None => wrong(
                    format!("tendon.rings.{name}"),
                    "1 to 256 of STAGE.OUTPUT".into(),
                    format!("{} of \"{}\"", ring.len, ring.of),
                ),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let text_is_observed =
            matches!(&file.text, Some(TextFile::Prompt(prompt)) if prompt.state_digits.is_some());
        let mut plan = Plan {
            stages,
            order: Vec::new(),
            rings,
            text_is_observed,
        };
        plan.sort()?;
        plan.share(file);
        Ok(plan)
    }

    /// Order and rates: a stage comes after all that it reads and runs as often as the busiest of it.
    fn sort(&mut self) -> Result<(), Vec<Problem>> {
        let mut left: Vec<usize> = (0..self.stages.len()).collect();
        while !left.is_empty() {
            let ready = left.iter().position(|index| {
                self.stages.get(*index).is_some_and(|stage| {
                    self.reads(stage)
                        .all(|place| self.order.contains(&place.stage))
                })
            });
            let Some(ready) = ready else {
                let names: Vec<&str> = left
                    .iter()
                    .filter_map(|index| self.stages.get(*index))
                    .map(|stage| stage.spec.id.as_str())
                    .collect();
                return Err(vec![Problem {
                    at: at("tendon.stages"),
                    expected:
                        "stages that read what ran before them (what came the last time is a carry)"
                            .into(),
                    found: format!("a circle among {names:?}"),
                }]);
            };
            let index = left.remove(ready);
            let rate = self
                .stages
                .get(index)
                .map_or(Rate::Load, |stage| self.rate(stage));
            if let Some(stage) = self.stages.get_mut(index) {
                stage.rate = rate;
            }
            self.order.push(index);
        }
        Ok(())
    }

    fn parts(stage: &Stage) -> impl Iterator<Item = Source> {
        stage
            .inputs
            .iter()
            .flat_map(|input| input.parts.iter().map(|part| part.source))
    }

    /// The outputs that must be there before it runs. A ring gives what came before, this time's included.
    fn reads(&self, stage: &Stage) -> impl Iterator<Item = Place> {
        Self::parts(stage).filter_map(|source| match source {
            Source::Output(place) => Some(place),
            Source::Ring(index) | Source::RingSeen(index) => {
                self.rings.get(index).map(|(place, _)| *place)
            }
            _ => None,
        })
    }

    fn rate(&self, stage: &Stage) -> Rate {
        let of = |source| match source {
            Source::Constant(_) => Rate::Load,
            Source::Ids | Source::Mask | Source::Used | Source::Embedding
                if !self.text_is_observed =>
            {
                Rate::Instruction
            }
            Source::X | Source::Time | Source::Guidance => Rate::Step,
            Source::Token | Source::Position => Rate::Step,
            Source::Output(place) => self
                .stages
                .get(place.stage)
                .map_or(Rate::Load, |stage| stage.rate),
            _ => Rate::Observation,
        };
        let memory = if stage.inputs.iter().any(|input| input.carry.is_some()) {
            Rate::Observation
        } else {
            Rate::Load
        };
        Self::parts(stage).map(of).fold(memory, Rate::max)
    }

    /// Which outputs are handed on by exchange.
    fn share(&mut self, file: &StagedFile) {
        // How often each output is read, and whether by something that needs it to stay where it is.
        let mut readers: BTreeMap<Place, usize> = BTreeMap::new();
        let mut stays: Vec<Place> = self.rings.iter().map(|(place, _)| *place).collect();
        for (reader, stage) in self.stages.iter().enumerate() {
            for input in &stage.inputs {
                for part in &input.parts {
                    if let Source::Output(place) = part.source {
                        *readers.entry(place).or_default() += 1;
                        let maker = self
                            .stages
                            .get(place.stage)
                            .map_or(Rate::Load, |stage| stage.rate);
                        // What begins anew needs its beginning again; parts have no buffer of their own.
                        let again = input.carry.is_some() && maker < Rate::Observation;
                        if again || input.parts.len() > 1 {
                            stays.push(place);
                        }
                    }
                }
                if let Some(place) = input.carry {
                    *readers.entry(place).or_default() += 1;
                    if place.stage != reader {
                        stays.push(place);
                    }
                }
            }
        }
        stays.extend(read_on_host(file));
        for (index, stage) in self.stages.iter_mut().enumerate() {
            stage.exchanged = (0..stage.spec.outputs.len())
                .map(|tensor| {
                    let place = Place {
                        stage: index,
                        tensor,
                    };
                    readers.get(&place) == Some(&1) && !stays.contains(&place)
                })
                .collect();
        }
    }
}
