// SPDX-License-Identifier: Apache-2.0
//! TensorRT, found at run time: the same binary starts with and without it.
//!
//! In order: the CUDA driver and a device; TensorRT's library, of a version whose layout is known; the plan; its tensors
//! against what the bundle promises; memory, all of it; one run; the same run recorded as a CUDA graph. From then on an
//! inference is a copy into pinned memory, one launch, a wait asleep, a copy out.
//!
//! Stages of one [`Platform`] share a stream, so that one may take what another left on the device, with neither copy nor
//! wait between them.
//!
//! [`slots`] the layout of TensorRT's tables; [`nvinfer`] its library and all that is unsafe (the driver is [`crate::cuda`]);
//! [`stage`] the engine, `work` what one inference of it is; `trial` which kind of memory suits it; `bare` a loop to compare with;
//! [`plan`] whose plan it is, and refusing another's; [`build`] making one with JetPack's own `trtexec`.
//!
//! Not here: what the numbers mean (`policy`), building networks (`trtexec` does), calibration (the bundle's Q/DQ graph
//! says it).

mod bare;
mod binding;
pub mod build;
mod fit;
pub mod nvinfer;
pub mod phase;
pub mod plan;
pub mod room;
pub mod slots;
pub mod stage;
mod trial;
mod work;

use crate::cuda::joint::Line;
use crate::cuda::{Context, CudaFault, Device, Driver, KernelFault, OpenFault, Stream};
pub use bare::BareLoop;
use nvinfer::Library;
pub use stage::TensorRt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
pub use trial::Trial;

/// Where TensorRT is, unless told otherwise. The full library: a lean one runs only plans that were built for it.
pub const SONAMES: [&str; 2] = ["libnvinfer.so.10", "libnvinfer.so.11"];

/// Where Jetson Linux says its release, unless told otherwise.
pub const JETSON_RELEASE: &str = "/etc/nv_tegra_release";

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

/// The least compute capability that a version, as above, goes back to: NVIDIA's release notes of 10.3, and of 10.5, which ends 7.0.
#[must_use]
pub const fn least_compute(version: i32) -> (i32, i32) {
    if version < 100_500 { (7, 0) } else { (7, 5) }
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
    /// No driver, or no device.
    #[error(transparent)]
    Driver(#[from] OpenFault),
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
    /// A device that is older than TensorRT goes back.
    #[error(
        "\"{device}\": expected a GPU of compute capability {least} or more, which TensorRT {tensorrt} needs, found {found}; run on the CPU (policy.engines)"
    )]
    Compute {
        /// Its name.
        device: String,
        /// TensorRT's version.
        tensorrt: String,
        /// What that needs.
        least: String,
        /// What there is.
        found: String,
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

impl From<KernelFault> for LoadFault {
    fn from(fault: KernelFault) -> LoadFault {
        match fault {
            KernelFault::Contradiction(words) => LoadFault::Engine(words),
            KernelFault::Cuda(fault) => LoadFault::Cuda(fault),
        }
    }
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
    /// Where Jetson Linux says its release; absent: [`JETSON_RELEASE`].
    pub jetson_release: Option<PathBuf>,
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
    line: SharedLine,
    memory: Memory,
    jetson_linux: Option<String>,
}

/// The stream of all stages of a platform. Who runs one holds it.
#[derive(Clone)]
struct SharedLine(Arc<Mutex<Line>>);

impl SharedLine {
    fn hold(&self) -> MutexGuard<'_, Line> {
        // A stream is whole whenever somebody may panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, other: &SharedLine) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
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
            .map_err(OpenFault::NoDevice)?;
        let library = Arc::new(Library::open(settings.tensorrt.as_deref())?);
        let least = least_compute(library.version());
        if device.compute < least {
            let words = |(major, minor): (i32, i32)| format!("{major}.{minor}");
            return Err(LoadFault::Compute {
                tensorrt: library.words(),
                least: words(least),
                found: words(device.compute),
                device: device.name,
            });
        }
        let context = driver.context(&device)?;
        let line = Line::new(Stream::new(&context)?);
        let line = SharedLine(Arc::new(Mutex::new(line)));
        let release = settings.jetson_release.as_deref();
        let release = std::fs::read_to_string(release.unwrap_or(Path::new(JETSON_RELEASE)));
        Ok(Platform {
            device,
            library,
            context,
            line,
            memory: settings.memory,
            jetson_linux: release.ok().map(|text| plan::jetson_linux(&text)),
        })
    }

    /// Whose plans this machine can run.
    #[must_use]
    pub fn identity(&self) -> plan::Target {
        plan::Target {
            tensorrt: self.library.words(),
            device: self.device.name.clone(),
            compute: format!("{}.{}", self.device.compute.0, self.device.compute.1),
            multiprocessors: self.device.multiprocessors,
            memory_gib: self.device.memory_bytes.div_ceil(1 << 30),
            cuda: self.device.driver,
            jetson_linux: self.jetson_linux.clone(),
        }
    }

    /// The device's context.
    #[must_use]
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }
}
