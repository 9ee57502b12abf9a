// SPDX-License-Identifier: Apache-2.0
//! A stage on the GPU: its tensors, and the graph that was recorded of what one inference puts on the stream.
//!
//! What it is offered after it was loaded (a picture, a tensor that another stage left on the device, a loop) changes what is put on
//! the stream; the next run is then done as it is, and recorded anew.

use super::binding::Binding;
use super::fit::{agree, spec_of};
use super::nvinfer::{Mode, Session};
use super::trial::Settling;
use super::work::{Turns, Work};
use super::{LoadFault, Memory, Platform, SharedLine};
use crate::cuda::joint::{Done, Joint, Line};
use crate::cuda::memory::DeviceBuffer;
use crate::cuda::picture::PictureStage;
use crate::cuda::turns::LoopStage;
use crate::cuda::{Context, CudaFault, Graph};
use crate::engine::lost::Standing;
use crate::ports::{
    Dtype, Engine, EngineFault, Lent, LoopWay, PictureWay, StageSpec, Tensor, TensorSpec,
};
use std::sync::Arc;

/// A stage on the GPU.
pub struct TensorRt {
    graph: Option<Arc<Graph>>,
    joint: Joint,
    work: Work,
    input_specs: Vec<TensorSpec>,
    output_specs: Vec<TensorSpec>,
    context: Arc<Context>,
    line: SharedLine,
    /// Number of its last run on the stream.
    mark: u64,
    /// The graph is not of the work as it is now.
    changed: bool,
    /// It did not run since every offer was made.
    fresh: bool,
    /// The thread for which the context was made current.
    thread: Option<std::thread::ThreadId>,
    /// Whether further runs are refused.
    standing: Standing,
    /// What went wrong where nobody could be told; the next run does.
    untold: Option<LoadFault>,
    /// Why there is no graph.
    plain: Option<String>,
    /// How memory reaches the device.
    memory: Memory,
    /// What is to be tried when every offer was made.
    pub(super) settling: Option<Settling>,
}

/// A tensor that stays on the device, for the other stages of its platform.
struct OnDevice {
    dtype: Dtype,
    buffer: Arc<DeviceBuffer>,
    /// Whose order makes it be there.
    line: SharedLine,
}

impl std::fmt::Debug for TensorRt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorRt")
            .field("session", &self.work.session)
            .field("graph", &self.graph.is_some())
            .finish_non_exhaustive()
    }
}

impl TensorRt {
    /// Loads a plan against what the bundle promises, allocates everything, runs once on zeros and records the graph. The plan is let go
    /// of as soon as TensorRT has read it.
    ///
    /// # Errors
    /// [`LoadFault`].
    pub fn load(
        platform: &Platform,
        plan: Vec<u8>,
        spec: &StageSpec,
    ) -> Result<TensorRt, LoadFault> {
        platform.context.make_current()?;
        let mut session = Session::open(&platform.library, plan)?;
        let tensors = session.tensors()?;
        agree(&tensors, spec)?;
        for tensor in tensors.iter().filter(|tensor| tensor.shape.contains(&-1)) {
            // Checked above: the bundle has this tensor, with a fixed shape.
            let sides = spec_of(spec, tensor)
                .map(|found| &found.shape[..])
                .unwrap_or_default();
            let shape: Vec<i64> = sides.iter().map(|side| *side as i64).collect();
            if tensor.mode == Mode::Input && !session.set_input_shape(&tensor.name, &shape) {
                let said = session.errors();
                return Err(LoadFault::Engine(format!(
                    "{:?}: the shape {shape:?} is refused: {said}",
                    tensor.name
                )));
            }
        }
        if !session.shapes_known() {
            let said = session.errors();
            return Err(LoadFault::Engine(format!(
                "the output shapes do not follow from the inputs: {said}"
            )));
        }
        let mut bind = |spec: &TensorSpec| -> Result<Binding, LoadFault> {
            let binding = Binding::new(platform, spec)?;
            Work::set_address(&mut session, &binding)?;
            Ok(binding)
        };
        let inputs = spec
            .inputs
            .iter()
            .map(&mut bind)
            .collect::<Result<_, _>>()?;
        let outputs = spec
            .outputs
            .iter()
            .map(&mut bind)
            .collect::<Result<_, _>>()?;
        let mut engine = TensorRt {
            graph: None,
            joint: Joint::default(),
            work: Work {
                session,
                inputs,
                outputs,
                carried: Vec::new(),
                turns: None,
            },
            input_specs: spec.inputs.clone(),
            output_specs: spec.outputs.clone(),
            context: Arc::clone(&platform.context),
            line: platform.line.clone(),
            mark: 0,
            changed: true,
            fresh: false,
            thread: None,
            standing: Standing::default(),
            untold: None,
            plain: None,
            memory: platform.memory,
            settling: None,
        };
        engine.go()?;
        engine.go()?;
        Ok(engine)
    }

    /// Why the runs are not replayed from a graph; `None` if they are.
    #[must_use]
    pub fn plain(&self) -> Option<&str> {
        self.plain.as_deref()
    }

    /// What TensorRT said that was a warning or an error, whatever its calls answered; each once.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        self.work.session.messages().remarks()
    }

    /// The session, for looking into the engine.
    pub fn session(&mut self) -> &mut Session {
        &mut self.work.session
    }

    /// Times of the layers of one run on zeros, in words. Slower than a run: each layer is waited for.
    ///
    /// # Errors
    /// [`LoadFault`].
    pub fn profile(mut self) -> Result<Vec<String>, LoadFault> {
        let times = self.work.session.profile();
        let mut line = self.line.hold();
        line.flush()?;
        self.mark = line.stream.mark();
        self.work.put(&line.stream)?;
        line.stream.wait()?;
        drop(line);
        Ok(times.all().into_iter().map(|(_, line)| line).collect())
    }

    /// One inference on the stream, and a wait if the host reads something of it.
    fn go(&mut self) -> Result<(), LoadFault> {
        self.fresh = false;
        let mut line = self.line.hold();
        let line: &mut Line = &mut line;
        self.mark = line.stream.mark();
        let is_read = self.work.is_read();
        if line.is_listened_to() {
            line.tell(Done::Given(self.work.given()));
        }
        match &self.graph {
            Some(graph) if !self.changed && is_read => line.launch(graph, &mut self.joint)?,
            Some(graph) if !self.changed => line.defer(graph)?,
            _ => {
                line.flush()?;
                line.tell(Done::Unrecorded);
                if let Err(fault) = self.work.put(&line.stream) {
                    // TensorRT refuses without a code of CUDA's; the driver has it, if it is a context that is lost.
                    let lost = line.wait().err().filter(CudaFault::sticky);
                    return Err(match (fault, lost) {
                        (LoadFault::Engine(_), Some(cuda)) => LoadFault::Cuda(cuda),
                        (fault, _) => fault,
                    });
                }
            }
        }
        if is_read || self.changed {
            line.wait()?;
        }
        if is_read && line.is_listened_to() {
            line.tell(Done::Taken(self.work.taken()));
        }
        if self.changed {
            // That run chose kernels and made what is made lazily: none of it may be recorded. Not every engine can be
            // recorded (data-dependent shapes, some plugins): such a one goes on as it is, and says why.
            let stream = &line.stream;
            (self.graph, self.plain) = match stream.capture(|| self.work.put(stream)) {
                Ok(graph) => (Some(Arc::new(graph)), None),
                Err(fault) => (None, Some(fault.to_string())),
            };
            self.changed = false;
        }
        Ok(())
    }

    /// Whether the next run is recorded, because an offer changed what it does.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Every offer was made, and what came of them ran: all of it has ended. Runs from now on are those of the policy.
    pub(super) fn settled(&mut self) -> Result<(), LoadFault> {
        self.enter()?;
        self.fresh = true;
        Ok(())
    }

    /// The engine is loaded by one thread and run by another; after the first run this costs a comparison. What its last run
    /// reads and writes is the host's again.
    fn enter(&mut self) -> Result<(), LoadFault> {
        let thread = std::thread::current().id();
        if self.thread != Some(thread) {
            self.context.make_current()?;
            self.thread = Some(thread);
        }
        Ok(self.line.hold().wait_for(self.mark)?)
    }

    /// Has every tensor that crosses, and every picture, lie in this kind of memory, from the next run on.
    pub(super) fn lie(&mut self, memory: Memory) -> Result<(), LoadFault> {
        self.enter()?;
        for binding in self.work.inputs.iter_mut().chain(&mut self.work.outputs) {
            binding.lie(&self.context, memory)?;
            Work::set_address(&mut self.work.session, binding)?;
        }
        (self.memory, self.changed) = (memory, true);
        Ok(())
    }

    /// A fault in words; one that sticks ends the engine.
    fn told(&mut self, fault: LoadFault) -> EngineFault {
        if let LoadFault::Cuda(cuda) = &fault
            && cuda.sticky()
        {
            self.standing.stuck(cuda);
        }
        EngineFault(fault.to_string())
    }

    /// The same of a run, whatever the fault: some in a row end the engine too.
    fn failed(&mut self, fault: LoadFault) -> EngineFault {
        let told = self.told(fault);
        self.standing.failed(&told);
        told
    }

    fn take(&mut self, input: usize, way: &PictureWay) -> Result<bool, LoadFault> {
        let numbers = way.size[0] * way.size[1] * 3 * way.levels.len();
        self.enter()?;
        let Some(binding) = self.work.inputs.get_mut(input).filter(|binding| {
            binding.spec.dtype == Dtype::F32
                && binding.spec.values() == numbers
                && (binding.pinned.is_some() || binding.picture.is_some())
        }) else {
            return Ok(false);
        };
        let mapped = self.memory == Memory::Mapped;
        let mut line = self.line.hold();
        line.flush()?;
        let stage = PictureStage::new(&self.context, &line.stream, way, mapped)?;
        binding.picture = Some(stage);
        // The kernel writes the tensor and TensorRT reads it: the host has no part in it.
        binding.stay(&self.context)?;
        binding.pinned = None;
        Work::set_address(&mut self.work.session, binding)?;
        self.changed = true;
        Ok(true)
    }

    /// The device's memory of an output, mapped or not: what stays there need not cross to the host at each access.
    fn place_output(&mut self, output: usize) -> Result<Option<Arc<DeviceBuffer>>, LoadFault> {
        self.enter()?;
        let Some(binding) = self.work.outputs.get_mut(output) else {
            return Ok(None);
        };
        let had = binding.device.is_some();
        let buffer = binding.stay(&self.context)?;
        if !had {
            Work::set_address(&mut self.work.session, binding)?;
            self.changed = true;
        }
        Ok(Some(buffer))
    }

    fn take_over(
        &mut self,
        input: usize,
        lent: &OnDevice,
        carried: Option<usize>,
    ) -> Result<bool, LoadFault> {
        self.enter()?;
        let fits = |binding: &Binding| {
            binding.spec.dtype == lent.dtype && binding.bytes() == lent.buffer.len()
        };
        let takes = self
            .work
            .inputs
            .get(input)
            .is_some_and(|binding| fits(binding) && binding.picture.is_none());
        let carries = carried.is_none_or(|output| self.work.outputs.get(output).is_some_and(fits));
        if !self.line.is(&lent.line) || !takes || !carries {
            return Ok(false);
        }
        let carried = match carried {
            Some(output) => self.place_output(output)?,
            None => None,
        };
        if let Some(binding) = self.work.inputs.get_mut(input) {
            binding.device = Some(Arc::clone(&lent.buffer));
            binding.pinned = None;
            Work::set_address(&mut self.work.session, binding)?;
        }
        if let Some(from) = carried {
            self.work.carried.push((Arc::clone(&lent.buffer), from));
        }
        self.changed = true;
        Ok(true)
    }

    /// The device's memory of an input that the host may write; `None` if it is not the host's.
    fn place_input(&mut self, input: usize) -> Result<Option<Arc<DeviceBuffer>>, LoadFault> {
        let Some(binding) = self
            .work
            .inputs
            .get_mut(input)
            .filter(|binding| binding.pinned.is_some() && binding.picture.is_none())
        else {
            return Ok(None);
        };
        let buffer = binding.stay(&self.context)?;
        Work::set_address(&mut self.work.session, binding)?;
        self.changed = true;
        Ok(Some(buffer))
    }

    fn take_turns(&mut self, way: &LoopWay) -> Result<bool, LoadFault> {
        let floats = |spec: Option<&TensorSpec>| {
            let spec = spec.filter(|spec| spec.dtype == Dtype::F32);
            spec.map(TensorSpec::values)
        };
        let values = floats(self.input_specs.get(way.sample));
        let said = floats(self.output_specs.get(way.said));
        let (Some(values), true) = (values, values == said && self.work.carried.is_empty()) else {
            return Ok(false);
        };
        let Some(sample) = self.place_input(way.sample)? else {
            return Ok(false);
        };
        let Some(said) = self.place_output(way.said)? else {
            return Ok(false);
        };
        let (mut time, mut kind) = (None, None);
        if let Some(input) = way.time {
            time = self.place_input(input)?;
            let Some(spec) = self.input_specs.get(input).filter(|_| time.is_some()) else {
                return Ok(false);
            };
            kind = Some((spec.dtype, spec.values()));
        }
        let mut line = self.line.hold();
        line.flush()?;
        let stage = LoopStage::new(&self.context, &line.stream, &way.steps, values, kind)?;
        drop(line);
        if let Some(binding) = way.time.and_then(|input| self.work.inputs.get_mut(input)) {
            binding.pinned = None;
        }
        self.work.turns = Some(Turns {
            stage,
            sample,
            time,
            said: way.said,
            said_at: said.address(),
        });
        self.changed = true;
        Ok(true)
    }
}

impl Drop for TensorRt {
    fn drop(&mut self) {
        // Its last run may still use what is freed next, and so may one of a stage that goes on from it.
        let mut line = self.line.hold();
        if let Some(graph) = &self.graph {
            line.forget(graph);
        }
        // Those of other stages are not lost; a fault of theirs is told by their next wait.
        let _ = line.flush();
        line.stream.settle();
    }
}

impl Engine for TensorRt {
    fn inputs(&self) -> &[TensorSpec] {
        &self.input_specs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.output_specs
    }

    fn lost(&self) -> bool {
        self.standing.is_lost()
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        self.standing.check()?;
        let (wanted, found) = (&self.work.inputs, &self.work.outputs);
        if inputs.len() != wanted.len() || outputs.len() != found.len() {
            return Err(EngineFault(format!(
                "expected {} inputs and {} outputs, found {} and {}",
                wanted.len(),
                found.len(),
                inputs.len(),
                outputs.len()
            )));
        }
        let ready = match self.untold.take() {
            Some(fault) => Err(fault),
            None => self.enter(),
        };
        ready.map_err(|fault| self.failed(fault))?;
        for (binding, tensor) in self.work.inputs.iter_mut().zip(inputs) {
            // Not the GPU's failure, if it does not fit.
            binding.write(tensor)?;
        }
        self.go().map_err(|fault| self.failed(fault))?;
        self.standing.worked();
        for (binding, tensor) in self.work.outputs.iter_mut().zip(outputs) {
            binding.read(tensor)?;
        }
        Ok(())
    }

    fn take_picture(&mut self, input: usize, way: &PictureWay) -> Result<bool, EngineFault> {
        self.take(input, way).map_err(|fault| self.told(fault))
    }

    fn picture(&mut self, input: usize) -> Option<&mut [u8]> {
        // The last run was of an inference that failed behind it, if it has not ended yet.
        self.untold = self.enter().err().or(self.untold.take());
        let stage = self.work.inputs.get_mut(input)?.picture.as_mut()?;
        Some(stage.bytes())
    }

    fn lend(&mut self, output: usize) -> Result<Option<Lent>, EngineFault> {
        let Some(dtype) = self.output_specs.get(output).map(|spec| spec.dtype) else {
            return Ok(None);
        };
        let placed = self.place_output(output);
        let buffer = placed.map_err(|fault| self.told(fault))?;
        Ok(buffer.map(|buffer| {
            Lent::new(OnDevice {
                dtype,
                buffer,
                line: self.line.clone(),
            })
        }))
    }

    fn borrow(
        &mut self,
        input: usize,
        lent: &Lent,
        carried: Option<usize>,
    ) -> Result<bool, EngineFault> {
        match lent.place::<OnDevice>() {
            Some(lent) => self
                .take_over(input, lent, carried)
                .map_err(|fault| self.told(fault)),
            None => Ok(false),
        }
    }

    fn take_loop(&mut self, way: &LoopWay) -> Result<bool, EngineFault> {
        let taken = self.enter().and_then(|()| self.take_turns(way));
        taken.map_err(|fault| self.told(fault))
    }

    fn keep(&mut self, output: usize) {
        self.untold = self.enter().err().or(self.untold.take());
        if let Some(binding) = self.work.outputs.get_mut(output)
            && binding.device.is_some()
        {
            binding.pinned = None;
            self.changed = true;
        }
    }

    fn settle(&mut self) -> Result<bool, EngineFault> {
        self.try_at_last().map_err(|fault| self.told(fault))
    }

    fn is_steady(&self) -> bool {
        !self.changed && !self.fresh && self.joint.is_steady()
    }
}
