// SPDX-License-Identifier: Apache-2.0
//! Runs the stages of a [`Plan`]: every tensor is made at load, none after.
//!
//! What a stage gives to one reader is handed on by exchanging two buffers; [`Run::copied_bytes`] counts what was copied
//! between stages all the same. What the policy is fed is written straight into the tensor of its first reader. What an engine
//! takes from where another computes it is not here at all.

#[path = "chained.rs"]
mod chained;
#[path = "handed.rs"]
mod handed;
#[path = "offered.rs"]
mod offered;

use crate::policy::staged::plan::{Part, Place, Plan, Rate, Source};
use crate::ports::{Dtype, Engine, EngineFault, Tensor};
use handed::{copy, copy_part, hand, input_at, part_of, shift, write_part};

/// Inputs of each run of a stage.
#[derive(Default)]
pub(crate) struct Seen {
    /// Stage and inputs.
    pub(crate) runs: Vec<(usize, Vec<Tensor>)>,
    bytes: usize,
}

impl Seen {
    /// No more is kept: twice as much again is needed to write it.
    const BYTES_MAX: usize = 2 << 30;

    fn keep(&mut self, stage: usize, inputs: &[Tensor]) {
        let bytes = |tensor: &Tensor| match tensor {
            Tensor::F32(values) => 4 * values.len(),
            Tensor::I32(values) => 4 * values.len(),
        };
        self.bytes += inputs.iter().map(bytes).sum::<usize>();
        if !self.is_full() {
            self.runs.push((stage, inputs.to_vec()));
        }
    }

    /// Whether something was left out.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes > Seen::BYTES_MAX
    }
}

/// A stage with its tensors.
struct Loaded {
    engine: Box<dyn Engine>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    /// Runs so far; a reader compares it with what it took last.
    version: u64,
    /// For each input the version of each part that it holds.
    taken: Vec<Vec<u64>>,
    /// For each input whether the engine takes it from where another computes it.
    borrowed: Vec<bool>,
    /// Whether the next run begins with `from` instead of the carried tensor.
    anew: bool,
}

/// Where a fed source goes.
#[derive(Clone, Copy, Debug)]
struct Target {
    place: Place,
    part: Part,
}

/// The last outputs of a stage.
struct Ring {
    of: Place,
    values: Tensor,
    seen: Vec<f32>,
}

/// The stages of a bundle, loaded.
pub(crate) struct Run {
    plan: Plan,
    stages: Vec<Loaded>,
    targets: Vec<(Source, Vec<Target>)>,
    rings: Vec<Ring>,
    constants: Vec<f32>,
    copied_bytes: u64,
    /// Load-time stages have run.
    loaded: bool,
    instruction_is_new: bool,
    /// Nanoseconds of each stage since [`Run::begin`], if a clock is given.
    pub(crate) stage_ns: Vec<u64>,
    /// How often each ran since then.
    pub(crate) stage_runs: Vec<u32>,
    /// Stage and inputs of each run, if they are asked for. Allocates.
    pub(crate) seen: Option<Seen>,
}

/// A clock, to tell where the time went.
pub(crate) type Clock<'a> = &'a dyn Fn() -> u64;

impl Run {
    /// Whether an engine of it is; see [`Engine::lost`].
    pub(crate) fn lost(&self) -> bool {
        self.stages.iter().any(|stage| stage.engine.lost())
    }

    /// Names of the stages whose engines are not; see [`Engine::is_steady`].
    pub(crate) fn unsteady(&self) -> impl Iterator<Item = &str> {
        let stages = self.plan.stages.iter().zip(&self.stages);
        stages
            .filter(|(_, stage)| !stage.engine.is_steady())
            .map(|(planned, _)| planned.spec.id.as_str())
    }

    /// Whether all engines are.
    pub(crate) fn is_steady(&self) -> bool {
        self.unsteady().next().is_none()
    }

    /// Whether a new instruction has stages of its own run.
    pub(crate) fn has_instruction(&self) -> bool {
        let mut stages = self.plan.stages.iter();
        stages.any(|stage| stage.rate == Rate::Instruction)
    }

    /// `engines` are of the plan's stages, in their order in the file.
    pub(crate) fn new(plan: Plan, engines: Vec<Box<dyn Engine>>, constants: &[f32]) -> Run {
        let stages: Vec<Loaded> = plan
            .stages
            .iter()
            .zip(engines)
            .map(|(stage, engine)| Loaded {
                engine,
                inputs: stage.spec.inputs.iter().map(Tensor::zeros).collect(),
                outputs: stage.spec.outputs.iter().map(Tensor::zeros).collect(),
                version: 0,
                taken: stage
                    .inputs
                    .iter()
                    .map(|input| vec![0; input.parts.len()])
                    .collect(),
                borrowed: vec![false; stage.inputs.len()],
                anew: true,
            })
            .collect();
        let mut targets: Vec<(Source, Vec<Target>)> = Vec::new();
        for (index, stage) in plan.stages.iter().enumerate() {
            for (tensor, input) in stage.inputs.iter().enumerate() {
                for part in &input.parts {
                    if matches!(part.source, Source::Output(_)) {
                        continue;
                    }
                    let target = Target {
                        place: Place {
                            stage: index,
                            tensor,
                        },
                        part: *part,
                    };
                    match targets
                        .iter_mut()
                        .find(|(source, _)| *source == part.source)
                    {
                        Some((_, list)) => list.push(target),
                        None => targets.push((part.source, vec![target])),
                    }
                }
            }
        }
        let rings = plan
            .rings
            .iter()
            .filter_map(|(of, len)| {
                let spec = plan.stages.get(of.stage)?.spec.outputs.get(of.tensor)?;
                let values = spec.values() * len;
                Some(Ring {
                    of: *of,
                    values: match spec.dtype {
                        Dtype::F32 => Tensor::F32(vec![0.0; values]),
                        Dtype::I32 | Dtype::I64 => Tensor::I32(vec![0; values]),
                    },
                    seen: vec![0.0; *len],
                })
            })
            .collect();
        let mut run = Run {
            stage_ns: vec![0; stages.len()],
            stage_runs: vec![0; stages.len()],
            seen: None,
            plan,
            stages,
            targets,
            rings,
            constants: constants.to_vec(),
            copied_bytes: 0,
            loaded: false,
            instruction_is_new: false,
        };
        for (index, fill) in constants.iter().enumerate() {
            run.feed_number(Source::Constant(index), *fill);
        }
        run
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Bytes copied from stage to stage since the last [`Run::begin`].
    pub(crate) fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// A new episode: memories and rings are empty.
    pub(crate) fn reset(&mut self) {
        for stage in &mut self.stages {
            stage.anew = true;
        }
        for ring in &mut self.rings {
            match &mut ring.values {
                Tensor::F32(values) => values.fill(0.0),
                Tensor::I32(values) => values.fill(0),
            }
            ring.seen.fill(0.0);
        }
    }

    /// Numbers of the first reader of a source; `None` if nothing reads it.
    pub(crate) fn numbers(&self, source: Source) -> Option<usize> {
        self.targets
            .iter()
            .find(|(found, _)| *found == source)
            .and_then(|(_, targets)| targets.first())
            .map(|target| target.part.len)
    }

    /// Lets `write` fill the tensor of the source's first reader; copies to the others.
    pub(crate) fn feed(&mut self, source: Source, write: impl FnOnce(&mut [f32])) {
        let Some((_, targets)) = self.targets.iter().find(|(found, _)| *found == source) else {
            return;
        };
        let mut write = Some(write);
        let Some(first) = targets.first().copied() else {
            return;
        };
        if let Some(slot) = part_of(&mut self.stages, first)
            && let Some(write) = write.take()
        {
            write(slot);
        }
        for other in targets.iter().skip(1).copied() {
            copy_part(&mut self.stages, first, other);
        }
    }

    /// Writes whole numbers, as floats where a reader takes floats.
    pub(crate) fn feed_whole(&mut self, source: Source, values: &[i32]) {
        let Some((_, targets)) = self.targets.iter().find(|(found, _)| *found == source) else {
            return;
        };
        for target in targets {
            let tensor = input_at(&mut self.stages, target.place);
            let range = target.part.start..target.part.start + target.part.len;
            match tensor {
                Some(Tensor::F32(into)) => {
                    for (slot, value) in into
                        .get_mut(range)
                        .unwrap_or_default()
                        .iter_mut()
                        .zip(values)
                    {
                        *slot = *value as f32;
                    }
                }
                Some(Tensor::I32(into)) => {
                    for (slot, value) in into
                        .get_mut(range)
                        .unwrap_or_default()
                        .iter_mut()
                        .zip(values)
                    {
                        *slot = *value;
                    }
                }
                None => {}
            }
        }
    }

    /// Fills every reader of a source with one number.
    pub(crate) fn feed_number(&mut self, source: Source, value: f32) {
        let Some((_, targets)) = self.targets.iter().find(|(found, _)| *found == source) else {
            return;
        };
        for target in targets {
            let tensor = input_at(&mut self.stages, target.place);
            let range = target.part.start..target.part.start + target.part.len;
            match tensor {
                Some(Tensor::F32(into)) => into.get_mut(range).unwrap_or_default().fill(value),
                Some(Tensor::I32(into)) => {
                    into.get_mut(range).unwrap_or_default().fill(value as i32)
                }
                None => {}
            }
        }
    }

    /// What the stages of an instruction made of the last one no longer holds.
    pub(crate) fn take_instruction(&mut self) {
        self.instruction_is_new = true;
    }

    /// Runs all that is not in the loop.
    pub(crate) fn begin(&mut self, clock: Option<Clock<'_>>) -> Result<(), EngineFault> {
        self.copied_bytes = 0;
        self.stage_ns.fill(0);
        self.stage_runs.fill(0);
        for turn in 0..self.plan.order.len() {
            let Some(index) = self.plan.order.get(turn).copied() else {
                continue;
            };
            let Some(rate) = self.plan.stages.get(index).map(|stage| stage.rate) else {
                continue;
            };
            let due = match rate {
                Rate::Load => !self.loaded,
                Rate::Instruction => self.instruction_is_new,
                Rate::Observation => true,
                Rate::Step => false,
            };
            if due {
                self.run_stage(index, clock)?;
            } else if rate == Rate::Step
                && let Some(stage) = self.stages.get_mut(index)
            {
                stage.anew = true;
            }
        }
        self.loaded = true;
        self.instruction_is_new = false;
        Ok(())
    }

    /// The loop begins anew: what it carries begins as at the observation.
    pub(crate) fn again(&mut self) {
        for (stage, planned) in self.stages.iter_mut().zip(&self.plan.stages) {
            if planned.rate == Rate::Step {
                stage.anew = true;
            }
        }
    }

    /// Runs the stages of the loop once.
    pub(crate) fn step(&mut self, clock: Option<Clock<'_>>) -> Result<(), EngineFault> {
        for turn in 0..self.plan.order.len() {
            let Some(index) = self.plan.order.get(turn).copied() else {
                continue;
            };
            if self
                .plan
                .stages
                .get(index)
                .is_some_and(|stage| stage.rate == Rate::Step)
            {
                self.run_stage(index, clock)?;
            }
        }
        Ok(())
    }

    /// An output's floats.
    pub(crate) fn output(&self, place: Place) -> &[f32] {
        self.stages
            .get(place.stage)
            .and_then(|stage| stage.outputs.get(place.tensor))
            .and_then(Tensor::f32)
            .unwrap_or_default()
    }

    fn run_stage(&mut self, index: usize, clock: Option<Clock<'_>>) -> Result<(), EngineFault> {
        self.pull(index);
        let began = clock.map(|clock| clock());
        let Some(stage) = self.stages.get_mut(index) else {
            return Ok(());
        };
        let id = self
            .plan
            .stages
            .get(index)
            .map_or("", |stage| stage.spec.id.as_str());
        if let Some(seen) = &mut self.seen {
            seen.keep(index, &stage.inputs);
        }
        if let Err(EngineFault(text)) = stage.engine.run(&stage.inputs, &mut stage.outputs) {
            // It may be another's, told late: what was made before, for more than one run, is made again.
            (self.loaded, self.instruction_is_new) = (false, true);
            return Err(EngineFault(format!("stage \"{id}\": {text}")));
        }
        stage.version += 1;
        stage.anew = false;
        if let Some(runs) = self.stage_runs.get_mut(index) {
            *runs += 1;
        }
        if let (Some(clock), Some(began), Some(spent)) =
            (clock, began, self.stage_ns.get_mut(index))
        {
            *spent += clock().saturating_sub(began);
        }
        for at in 0..self.rings.len() {
            self.push(at, index);
        }
        Ok(())
    }

    /// Takes what other stages have for the inputs of this one.
    fn pull(&mut self, index: usize) {
        let Run {
            plan,
            stages,
            constants,
            copied_bytes,
            ..
        } = self;
        let Some(stage) = plan.stages.get(index) else {
            return;
        };
        let anew = stages.get(index).is_some_and(|stage| stage.anew);
        for (tensor, input) in stage.inputs.iter().enumerate() {
            let here = Place {
                stage: index,
                tensor,
            };
            let borrowed = stages.get(index).map(|stage| &stage.borrowed);
            if borrowed.and_then(|borrowed| borrowed.get(tensor)) == Some(&true) {
                continue;
            }
            if let Some(from) = input.carry.filter(|_| !anew) {
                let len = stage
                    .spec
                    .inputs
                    .get(tensor)
                    .map_or(0, |spec| spec.values());
                let whole = Part {
                    source: Source::Output(from),
                    start: 0,
                    len,
                };
                *copied_bytes += hand(plan, stages, from, here, whole);
                continue;
            }
            for (at, part) in input.parts.iter().enumerate() {
                // What begins anew was overwritten by what was carried.
                let again = anew && input.carry.is_some();
                if let (Source::Constant(constant), true) = (part.source, again) {
                    let fill = constants.get(constant).copied().unwrap_or(0.0);
                    let tensor = input_at(stages, here);
                    match tensor {
                        Some(Tensor::F32(values)) => values.fill(fill),
                        Some(Tensor::I32(values)) => values.fill(fill as i32),
                        None => {}
                    }
                }
                let Source::Output(from) = part.source else {
                    continue;
                };
                let made = stages.get(from.stage).map_or(0, |stage| stage.version);
                let held = stages
                    .get_mut(index)
                    .and_then(|stage| stage.taken.get_mut(tensor))
                    .and_then(|taken| taken.get_mut(at));
                if let Some(held) = held
                    && (*held != made || again)
                {
                    *held = made;
                    *copied_bytes += hand(plan, stages, from, here, *part);
                }
            }
        }
    }

    fn push(&mut self, at: usize, index: usize) {
        let Run {
            stages,
            rings,
            targets,
            copied_bytes,
            ..
        } = self;
        let Some(ring) = rings.get_mut(at).filter(|ring| ring.of.stage == index) else {
            return;
        };
        let Some(output) = stages
            .get(index)
            .and_then(|stage| stage.outputs.get(ring.of.tensor))
        else {
            return;
        };
        match (&mut ring.values, output) {
            (Tensor::F32(values), Tensor::F32(new)) => shift(values, new),
            (Tensor::I32(values), Tensor::I32(new)) => shift(values, new),
            _ => return,
        }
        shift(&mut ring.seen, &[1.0]);
        let readers = |wanted: Source| {
            targets
                .iter()
                .filter(move |(source, _)| *source == wanted)
                .flat_map(|(_, list)| list.iter().copied())
        };
        for target in readers(Source::Ring(at)) {
            *copied_bytes += 4 * target.part.len as u64;
            write_part(stages, target, &ring.values);
        }
        for target in readers(Source::RingSeen(at)) {
            let Some(stage) = stages.get_mut(target.place.stage) else {
                continue;
            };
            let range = target.part.start..target.part.start + target.part.len;
            match stage.inputs.get_mut(target.place.tensor) {
                Some(Tensor::F32(into)) => copy(into.get_mut(range), Some(&ring.seen)),
                Some(Tensor::I32(into)) => {
                    for (slot, seen) in into
                        .get_mut(range)
                        .unwrap_or_default()
                        .iter_mut()
                        .zip(&ring.seen)
                    {
                        *slot = *seen as i32;
                    }
                }
                None => {}
            }
        }
    }
}
