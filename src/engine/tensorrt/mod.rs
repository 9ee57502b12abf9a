// SPDX-License-Identifier: Apache-2.0
//! TensorRT, found at run time: the same binary starts with and without it.
//!
//! In order: the CUDA driver and a device; TensorRT's library, of a version whose layout is known; the plan; its tensors
//! against what the bundle promises; memory, all of it; one run; the same run recorded as a CUDA graph. From then on an
//! inference is a copy into pinned memory, one launch, a wait asleep, a copy out.
//!
//! [`slots`] the layout of TensorRT's tables; [`nvinfer`] and [`cuda`] the two libraries and all that is unsafe;
//! [`plan`] whose plan it is, and refusing another's; [`build`] making one with JetPack's own `trtexec`.
//!
//! Not here: what the numbers mean (`policy`), building networks (`trtexec` does), calibration (the bundle's Q/DQ graph
//! says it).

pub mod build;
pub mod cuda;
mod fit;
pub mod nvinfer;
pub mod plan;
pub mod slots;

use crate::ports::{Dtype, Engine, EngineFault, PictureWay, StageSpec, Tensor, TensorSpec};
use cuda::memory::{DeviceBuffer, PinnedBuffer};
use cuda::picture::PictureStage;
use cuda::{Context, CudaFault, Device, Driver, Graph, Stream};
use fit::{agree, spec_of};
use nvinfer::{Library, Mode, Session};
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::Arc;

/// Where TensorRT is, unless told otherwise. The full library: a lean one runs only plans that were built for it.
pub const SONAMES: [&str; 2] = ["libnvinfer.so.10", "libnvinfer.so.11"];

/// Which tables a version has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// 10.3 to 10.16.
    Ten,
    /// 11.0 to 11.4.
    Eleven,
}

impl Layout {
    /// The layout of a version, as `getInferLibVersion` tells it; `None` if nobody compared it.
    #[must_use]
    pub const fn of(version: i32) -> Option<Layout> {
        match version {
            100_300..=101_699 => Some(Layout::Ten),
            110_000..=110_499 => Some(Layout::Eleven),
            _ => None,
        }
    }
}

/// A version in words. TensorRT 8 and older counted with another base.
#[must_use]
pub fn version_words(version: i32) -> String {
    let base = if version < 10_000 { 1000 } else { 10_000 };
    format!(
        "{}.{}.{}",
        version / base,
        version % base / 100,
        version % 100
    )
}

/// Why there is no TensorRT engine. Each says what was looked for, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadFault {
    /// No driver.
    #[error(
        "no CUDA driver: looked for {looked}; on a Jetson install JetPack (nvidia-l4t-cuda), elsewhere NVIDIA's driver"
    )]
    NoDriver {
        /// Where, and what the system said.
        looked: String,
    },
    /// A driver without a function that is needed.
    #[error(
        "{at}: expected a CUDA driver of 12.0 or later, found one without {symbol}; update JetPack or the driver"
    )]
    OldDriver {
        /// Its path.
        at: String,
        /// What it lacks.
        symbol: &'static str,
    },
    /// A driver, and no device for it.
    #[error(
        "no CUDA device: {0}; look at nvidia-smi, on a Jetson at /dev/nvmap and the group \"video\""
    )]
    NoDevice(CudaFault),
    /// No TensorRT.
    #[error(
        "no TensorRT: looked for {looked}; on a Jetson install the package tensorrt-libs, or name the library in TENDON_TENSORRT_LIB"
    )]
    NoTensorRt {
        /// Where, and what the system said.
        looked: String,
    },
    /// A library of another kind.
    #[error("{at}: expected TensorRT, found a library without {symbol}")]
    NotTensorRt {
        /// Its path.
        at: String,
        /// What it lacks.
        symbol: &'static str,
    },
    /// A version that was not compared.
    #[error("{at}: expected TensorRT 10.3 to 10.16 or 11.0 to 11.4, found {}; install one of those, or run on the CPU (policy.engines)", version_words(*version))]
    Version {
        /// Its path.
        at: String,
        /// As it tells it.
        version: i32,
    },
    /// TensorRT gave no object.
    #[error("{what} failed ({library}): TensorRT says: {said}")]
    Refused {
        /// Its function.
        what: &'static str,
        /// Which TensorRT.
        library: String,
        /// Its own words.
        said: String,
    },
    /// The engine contradicts itself or the bundle.
    #[error("{0}")]
    Engine(String),
    /// CUDA.
    #[error(transparent)]
    Cuda(#[from] CudaFault),
}

/// How memory reaches the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Memory {
    /// Copied, on the stream, inside the graph.
    #[default]
    Copied,
    /// The device reads and writes the host's memory. On a Jetson both are one memory, and small tensors come faster
    /// without the copy; measure.
    Mapped,
}

/// Which libraries, which device.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// TensorRT's library; absent: [`SONAMES`].
    pub tensorrt: Option<PathBuf>,
    /// The driver's library; absent: `libcuda.so.1`.
    pub driver: Option<PathBuf>,
    /// Number of the device.
    pub device: i32,
    /// How memory reaches it.
    pub memory: Memory,
}

impl Settings {
    /// With the library that `TENDON_TENSORRT_LIB` names, if it does.
    #[must_use]
    pub fn from_environment() -> Settings {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        Settings {
            tensorrt: named("TENDON_TENSORRT_LIB").map(PathBuf::from),
            driver: named("TENDON_CUDA_LIB").map(PathBuf::from),
            ..Settings::default()
        }
    }
}

/// Driver, device and library: what every engine of this machine needs.
#[derive(Clone)]
pub struct Platform {
    /// What the device is.
    pub device: Device,
    /// TensorRT.
    pub library: Arc<Library>,
    context: Arc<Context>,
    memory: Memory,
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} on {:?}", self.library, self.device)
    }
}

impl Platform {
    /// Finds both libraries and a device. The driver first: without one TensorRT gives pointers that are no objects.
    ///
    /// # Errors
    /// [`LoadFault`].
    pub fn find(settings: &Settings) -> Result<Platform, LoadFault> {
        let driver = Driver::open(settings.driver.as_deref())?;
        let device = driver
            .device(settings.device)
            .map_err(LoadFault::NoDevice)?;
        let library = Arc::new(Library::open(settings.tensorrt.as_deref())?);
        let context = driver.context(&device)?;
        Ok(Platform {
            device,
            library,
            context,
            memory: settings.memory,
        })
    }

    /// Whose plans this machine can run.
    #[must_use]
    pub fn identity(&self) -> plan::Target {
        plan::Target {
            tensorrt: self.library.words(),
            device: self.device.name.clone(),
            compute: format!("{}.{}", self.device.compute.0, self.device.compute.1),
            cuda: self.device.driver,
        }
    }

    /// The device's context.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

/// One tensor on the device.
struct Binding {
    spec: TensorSpec,
    pinned: PinnedBuffer,
    /// Absent when the device uses the pinned memory itself.
    device: Option<DeviceBuffer>,
    /// Of an input that the device makes of a camera's picture.
    picture: Option<PictureStage>,
}

/// A stage on the GPU. Fields in the order in which they are given back: the stream, which is waited for, first.
pub struct TensorRt {
    graph: Option<Graph>,
    stream: Stream,
    session: Session,
    inputs: Vec<Binding>,
    outputs: Vec<Binding>,
    input_specs: Vec<TensorSpec>,
    output_specs: Vec<TensorSpec>,
    context: Arc<Context>,
    /// The thread for which the context was made current.
    thread: Option<std::thread::ThreadId>,
    /// Why every further run is refused.
    lost: Option<String>,
    /// Why there is no graph.
    plain: Option<String>,
    /// How memory reaches the device.
    memory: Memory,
}

impl std::fmt::Debug for TensorRt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorRt")
            .field("session", &self.session)
            .field("graph", &self.graph.is_some())
            .finish_non_exhaustive()
    }
}

impl TensorRt {
    /// Loads a plan against what the bundle promises, allocates everything, runs once on zeros and records the graph.
    ///
    /// # Errors
    /// [`LoadFault`].
    pub fn load(platform: &Platform, plan: &[u8], spec: &StageSpec) -> Result<TensorRt, LoadFault> {
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
            let name = CString::new(spec.name.as_str()).unwrap_or_default();
            if !session.set_address(&name, binding.address()) {
                let said = session.errors();
                return Err(LoadFault::Engine(format!(
                    "{}: its address is refused: {said}",
                    spec.name
                )));
            }
            Ok(binding)
        };
        let inputs = spec
            .inputs
            .iter()
            .map(&mut bind)
            .collect::<Result<Vec<_>, _>>()?;
        let outputs = spec
            .outputs
            .iter()
            .map(&mut bind)
            .collect::<Result<Vec<_>, _>>()?;
        let mut engine = TensorRt {
            graph: None,
            stream: Stream::new(&platform.context)?,
            session,
            inputs,
            outputs,
            input_specs: spec.inputs.clone(),
            output_specs: spec.outputs.clone(),
            context: Arc::clone(&platform.context),
            thread: None,
            lost: None,
            plain: None,
            memory: platform.memory,
        };
        // The first run chooses kernels and makes what is made lazily: none of that may be recorded.
        engine.put()?;
        engine.stream.wait()?;
        engine.record();
        engine.go()?;
        Ok(engine)
    }

    /// Why the runs are not replayed from a graph; `None` if they are.
    #[must_use]
    pub fn plain(&self) -> Option<&str> {
        self.plain.as_deref()
    }

    /// The session, for looking into the engine.
    pub fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Times of the layers of one run on zeros, in words. Slower than a run: each layer is waited for.
    ///
    /// # Errors
    /// [`LoadFault`].
    pub fn profile(mut self) -> Result<Vec<String>, LoadFault> {
        let times = self.session.profile();
        self.graph = None;
        self.put()?;
        self.stream.wait()?;
        Ok(times.all().into_iter().map(|(_, line)| line).collect())
    }

    /// One inference on the stream: copies in, the engine, copies out.
    fn put(&mut self) -> Result<(), LoadFault> {
        put(&self.stream, &mut self.session, &self.inputs, &self.outputs)
    }

    /// Not every engine can be recorded (data-dependent shapes, some plugins): such a one runs as it is, and says why.
    fn record(&mut self) {
        let (stream, session) = (&self.stream, &mut self.session);
        let (inputs, outputs) = (&self.inputs, &self.outputs);
        match stream.capture(|| put(stream, session, inputs, outputs)) {
            Ok(graph) => self.graph = Some(graph),
            Err(fault) => self.plain = Some(fault.to_string()),
        }
    }

    fn go(&mut self) -> Result<(), LoadFault> {
        match &self.graph {
            Some(graph) => self.stream.launch(graph)?,
            None => self.put()?,
        }
        self.stream.wait()?;
        Ok(())
    }
}

fn put(
    stream: &Stream,
    session: &mut Session,
    inputs: &[Binding],
    outputs: &[Binding],
) -> Result<(), LoadFault> {
    for input in inputs {
        match (&input.picture, &input.device) {
            (Some(picture), _) => picture.put(stream, input.address())?,
            (None, Some(device)) => stream.copy_in(device, &input.pinned)?,
            (None, None) => {}
        }
    }
    if !session.enqueue(stream.raw()) {
        return Err(LoadFault::Engine(format!(
            "enqueueV3 failed: TensorRT says: {}",
            session.errors()
        )));
    }
    for Binding { pinned, device, .. } in outputs {
        if let Some(device) = device {
            stream.copy_out(pinned, device)?;
        }
    }
    Ok(())
}

impl Binding {
    fn new(platform: &Platform, spec: &TensorSpec) -> Result<Binding, LoadFault> {
        let bytes = spec.values() * if spec.dtype == Dtype::I64 { 8 } else { 4 };
        let pinned = PinnedBuffer::new(&platform.context, bytes)?;
        let mapped = platform.memory == Memory::Mapped && pinned.address() != 0;
        let device = if mapped {
            None
        } else {
            Some(DeviceBuffer::new(&platform.context, bytes)?)
        };
        Ok(Binding {
            spec: spec.clone(),
            pinned,
            device,
            picture: None,
        })
    }

    fn address(&self) -> u64 {
        self.device
            .as_ref()
            .map_or(self.pinned.address(), DeviceBuffer::address)
    }

    fn write(&mut self, tensor: &Tensor) -> Result<(), EngineFault> {
        let to = self.pinned.bytes();
        match (tensor, self.spec.dtype) {
            (Tensor::F32(values), Dtype::F32) if values.len() * 4 == to.len() => {
                to.copy_from_slice(bytemuck::cast_slice(values));
            }
            (Tensor::I32(values), Dtype::I32) if values.len() * 4 == to.len() => {
                to.copy_from_slice(bytemuck::cast_slice(values));
            }
            (Tensor::I32(values), Dtype::I64) if values.len() * 8 == to.len() => {
                for (to, value) in to.chunks_exact_mut(8).zip(values) {
                    to.copy_from_slice(&i64::from(*value).to_ne_bytes());
                }
            }
            _ => return Err(self.misfit(tensor)),
        }
        Ok(())
    }

    fn read(&mut self, tensor: &mut Tensor) -> Result<(), EngineFault> {
        let from = self.pinned.bytes();
        match (&mut *tensor, self.spec.dtype) {
            (Tensor::F32(values), Dtype::F32) if values.len() * 4 == from.len() => {
                bytemuck::cast_slice_mut(values).copy_from_slice(from);
            }
            (Tensor::I32(values), Dtype::I32) if values.len() * 4 == from.len() => {
                bytemuck::cast_slice_mut(values).copy_from_slice(from);
            }
            (Tensor::I32(values), Dtype::I64) if values.len() * 8 == from.len() => {
                for (from, value) in from.chunks_exact(8).zip(values) {
                    let wide = from.try_into().map_or(0, i64::from_ne_bytes);
                    *value = i32::try_from(wide).map_err(|_| {
                        EngineFault(format!(
                            "{}: {wide} does not fit into 32 bits",
                            self.spec.name
                        ))
                    })?;
                }
            }
            _ => return Err(self.misfit(tensor)),
        }
        Ok(())
    }

    fn misfit(&self, tensor: &Tensor) -> EngineFault {
        let (kind, len) = match tensor {
            Tensor::F32(values) => ("f32", values.len()),
            Tensor::I32(values) => ("i32", values.len()),
        };
        EngineFault(format!(
            "expected {}, found {len} values of {kind}",
            self.spec
        ))
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
        self.lost.is_some()
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault> {
        if let Some(why) = &self.lost {
            return Err(EngineFault(why.clone()));
        }
        if inputs.len() != self.inputs.len() || outputs.len() != self.outputs.len() {
            return Err(EngineFault(format!(
                "expected {} inputs and {} outputs, found {} and {}",
                self.inputs.len(),
                self.outputs.len(),
                inputs.len(),
                outputs.len()
            )));
        }
        // The engine is loaded by one thread and run by another; after the first run this costs a comparison.
        let thread = std::thread::current().id();
        if self.thread != Some(thread) {
            self.context
                .make_current()
                .map_err(|fault| EngineFault(fault.to_string()))?;
            self.thread = Some(thread);
        }
        for (binding, tensor) in self.inputs.iter_mut().zip(inputs) {
            if binding.picture.is_none() {
                binding.write(tensor)?;
            }
        }
        if let Err(fault) = self.go() {
            if let LoadFault::Cuda(cuda) = &fault
                && cuda.sticky()
            {
                self.lost = Some(format!(
                    "the GPU's context is lost since {cuda}: the process must be started again"
                ));
            }
            return Err(EngineFault(fault.to_string()));
        }
        for (binding, tensor) in self.outputs.iter_mut().zip(outputs) {
            binding.read(tensor)?;
        }
        Ok(())
    }

    fn take_picture(&mut self, input: usize, way: &PictureWay) -> Result<bool, EngineFault> {
        let fault = |fault: LoadFault| EngineFault(fault.to_string());
        let numbers = way.size[0] * way.size[1] * 3 * way.levels.len();
        let Some(binding) = self
            .inputs
            .get_mut(input)
            .filter(|binding| binding.spec.dtype == Dtype::F32 && binding.spec.values() == numbers)
        else {
            return Ok(false);
        };
        self.context
            .make_current()
            .map_err(|error| fault(error.into()))?;
        let mapped = self.memory == Memory::Mapped;
        let stage = PictureStage::new(&self.context, &self.stream, way, mapped).map_err(fault)?;
        binding.picture = Some(stage);
        // The graph holds a copy of what is no longer copied: once as it is, then recorded anew.
        self.graph = None;
        self.plain = None;
        self.put().map_err(fault)?;
        self.stream.wait().map_err(|error| fault(error.into()))?;
        self.record();
        self.go().map_err(fault)?;
        Ok(true)
    }

    fn picture(&mut self, input: usize) -> Option<&mut [u8]> {
        let stage = self.inputs.get_mut(input)?.picture.as_mut()?;
        Some(stage.bytes())
    }
}
