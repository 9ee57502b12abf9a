// SPDX-License-Identifier: Apache-2.0
//! Pictures that lie in the memory of a Jetson's image processor (`memory:NVMM`), read by the GPU where they are.
//!
//! Such a buffer holds no pixels but an `NvBufSurface`, a description of memory that camera, decoder and scaler share. It becomes
//! an EGL image, and that a resource of CUDA: tiled memory is read as textures, memory in rows by address. One kernel makes RGB of
//! it, into memory that the processor reads too. What a surface is for CUDA is kept for as long as its memory lives: a pipeline
//! has few surfaces and sends them round. Surfaces in CUDA's own memory, as on a workstation, are read by their address.
//!
//! `libnvbufsurface` and the driver are found at run time. Layout of the descriptions: `nvbufsurface.h` of Jetson Linux 36.
//! A description that contradicts what the pipeline agreed on is refused: another release may have another layout. The colours of
//! luma and chroma are the description's: NVIDIA's elements drop what caps say of them.
#![allow(unsafe_code)] // A C library without a header, and memory that only its word describes.

use crate::cuda::egl::{Egl, EglImage};
use crate::cuda::surface::{Colours, Pixels, Planes, SurfaceStage};
use crate::cuda::{Context, Driver, KernelFault, OpenFault, Stream};
use crate::loader;
use gstreamer as gst;
use gstreamer_video::{VideoFormat, VideoInfo};
use libloading::os::unix::{Library as Handle, RTLD_LOCAL, RTLD_NOW};
use std::ffi::c_void;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The feature of caps that says that buffers hold descriptions.
pub const FEATURE: &str = "memory:NVMM";
/// What is read there.
pub const FORMATS: [VideoFormat; 3] = [VideoFormat::Nv12, VideoFormat::Rgba, VideoFormat::Gray8];
/// Where NVIDIA's library is, unless told otherwise.
const SONAMES: [&str; 2] = ["libnvbufsurface.so.1.0.0", "libnvbufsurface.so"];

/// `NvBufSurface`: a batch of surfaces. What follows is not read.
#[repr(C)]
struct Batch {
    gpu: u32,
    size: u32,
    filled: u32,
    is_contiguous: bool,
    memory: u32,
    list: *mut Surface,
}

/// `NvBufSurfaceParams`: one surface. What follows is not read.
#[repr(C)]
#[derive(Clone, Copy)]
struct Surface {
    width: u32,
    height: u32,
    pitch: u32,
    colours: u32,
    layout: u32,
    descriptor: u64,
    len: u32,
    data: *mut c_void,
    planes: PlaneList,
    addresses: [*mut c_void; 4],
    image: *mut c_void,
}

/// `NvBufSurfacePlaneParams`.
#[repr(C)]
#[derive(Clone, Copy)]
struct PlaneList {
    count: u32,
    width: [u32; 4],
    height: [u32; 4],
    pitch: [u32; 4],
    offset: [u32; 4],
    len: [u32; 4],
    bytes: [u32; 4],
    reserved: [*mut c_void; 16],
}

// As the header's authors' compiler laid it out, on machines of 64 bits.
const _: () = assert!(offset_of!(Batch, memory) == 16 && offset_of!(Batch, list) == 24);
const _: () = assert!(offset_of!(Surface, descriptor) == 24 && offset_of!(Surface, data) == 40);
const _: () = assert!(offset_of!(Surface, planes) == 48 && offset_of!(Surface, image) == 312);

/// `NvBufSurfaceMemType`: memory that the device has an address for, and memory that goes by way of an EGL image. The default
/// is the latter where such memory exists.
const CUDA_MEMORY: [u32; 3] = [1, 2, 3];
const IMAGE_MEMORY: [u32; 2] = [0, 4];

type OfBatch = unsafe extern "C" fn(*mut Batch, i32) -> i32;

/// Which libraries.
#[derive(Clone, Debug, Default)]
pub struct Libraries {
    /// The CUDA driver; absent: `libcuda.so.1`.
    pub driver: Option<PathBuf>,
    /// NVIDIA's surfaces; absent: `libnvbufsurface.so`.
    pub surfaces: Option<PathBuf>,
}

impl Libraries {
    /// Those that `TENDON_CUDA_LIB` and `TENDON_NVBUFSURFACE_LIB` name, if they do.
    #[must_use]
    pub fn from_environment() -> Libraries {
        let named = |name: &str| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty());
            value.map(PathBuf::from)
        };
        Libraries {
            driver: named("TENDON_CUDA_LIB"),
            surfaces: named("TENDON_NVBUFSURFACE_LIB"),
        }
    }
}

/// Why pictures cannot be read there, on this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NvmmFault {
    /// Not a Jetson, or without its multimedia libraries.
    #[error("no libnvbufsurface: looked for {looked}; on a Jetson install nvidia-l4t-multimedia")]
    NoLibrary {
        /// Where, and what the system said.
        looked: String,
    },
    /// A pipeline of which NVIDIA's elements are no part: it was not tried.
    #[error("none of the pipeline's elements is NVIDIA's")]
    NotAsked,
    /// A library of another kind.
    #[error("{at}: expected NVIDIA's libnvbufsurface, found a library without {symbol}")]
    NotTheLibrary {
        /// Its path.
        at: String,
        /// What it lacks.
        symbol: &'static str,
    },
    /// No driver, no device, or a driver without what is needed.
    #[error(transparent)]
    Driver(#[from] OpenFault),
    /// What the driver refuses.
    #[error(transparent)]
    Device(#[from] KernelFault),
    /// The graphics system refuses.
    #[error(
        "NvBufSurfaceMapEglImage failed ({0}): expected EGL without a display; unset DISPLAY and WAYLAND_DISPLAY, or end the pipeline with nvvidconv ! video/x-raw"
    )]
    NoImage(i32),
    /// A description that contradicts the pipeline's caps.
    #[error("a surface in NVMM: expected {expected}, found {found}")]
    Layout {
        /// What was agreed.
        expected: String,
        /// What is there.
        found: String,
    },
}

/// What one surface is for CUDA.
struct Known {
    /// The memory that describes it.
    memory: *const gst::ffi::GstMemory,
    batch: *mut Batch,
    image: *mut c_void,
    /// Whether we mapped the image, and not an element before us.
    is_ours: bool,
    taken: EglImage,
}

/// Surfaces that are known.
#[derive(Default)]
struct Surfaces {
    known: Vec<Known>,
    /// Memories whose end will be heard.
    watched: Vec<*const gst::ffi::GstMemory>,
}

// SAFETY: the pointers are compared, and used only under the lock and while the memory lives; see `Shared`.
unsafe impl Send for Surfaces {}

/// GStreamer says when the memory of a surface is about to go, on whatever thread that happens.
struct Shared {
    unmap: OfBatch,
    surfaces: Mutex<Surfaces>,
    _handle: Handle,
}

impl Shared {
    fn hold(&self) -> MutexGuard<'_, Surfaces> {
        // Whole whenever somebody may panic.
        self.surfaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory of `known` lives and holds the same batch as when it was taken: its end waits for the lock that the caller
    /// holds, or the caller is its end.
    fn release(&self, known: Known) {
        // First: CUDA must not hold an image that is gone.
        drop(known.taken);
        // SAFETY: see above. The image is unmapped if it is still the one that we had mapped; an element that did so itself has
        // set it to null.
        unsafe {
            let surface = (*known.batch).list;
            if known.is_ours && !surface.is_null() && (*surface).image == known.image {
                (self.unmap)(known.batch, 0);
            }
        }
    }
}

/// GStreamer's word that `memory` is about to be freed; `shared` is the count that was kept for it.
unsafe extern "C" fn ends(shared: gst::glib::ffi::gpointer, memory: *mut gst::ffi::GstMiniObject) {
    // SAFETY: made by `Arc::into_raw` for this one call.
    let shared = unsafe { Arc::from_raw(shared.cast::<Shared>()) };
    let (memory, mut surfaces) = (memory.cast_const().cast(), shared.hold());
    let of_it = |known: &Known| known.memory == memory;
    if let Some(at) = surfaces.known.iter().position(of_it) {
        shared.release(surfaces.known.swap_remove(at));
    }
    surfaces.watched.retain(|watched| *watched != memory);
}

/// Reads the pictures of one camera.
pub struct Nvmm {
    context: Arc<Context>,
    /// Or why there are no EGL images.
    egl: Result<Arc<Egl>, OpenFault>,
    stream: Stream,
    stage: SurfaceStage,
    map: OfBatch,
    shared: Arc<Shared>,
}

impl Nvmm {
    /// Finds both libraries and a device, and makes ready for pictures of `size`, width and height.
    ///
    /// # Errors
    /// [`NvmmFault`].
    pub fn open(libraries: &Libraries, size: [usize; 2]) -> Result<Nvmm, NvmmFault> {
        // It first: machines with a GPU and without such surfaces are many.
        let (handle, at) = find_library(libraries.surfaces.as_deref())?;
        let find = |symbol: &'static str| {
            // SAFETY: both functions have the signature that nvbufsurface.h gives them; the handle is kept beside them.
            let found = unsafe { handle.get::<OfBatch>(symbol.as_bytes()) };
            found
                .map(|found| *found)
                .map_err(|_| NvmmFault::NotTheLibrary {
                    at: at.display().to_string(),
                    symbol,
                })
        };
        let (map, unmap) = (
            find("NvBufSurfaceMapEglImage")?,
            find("NvBufSurfaceUnMapEglImage")?,
        );
        let driver = Driver::open(libraries.driver.as_deref())?;
        let device = driver.device(0).map_err(OpenFault::NoDevice)?;
        let context = driver.context(&device).map_err(KernelFault::from)?;
        Ok(Nvmm {
            egl: Egl::find(&context).map(Arc::new),
            stream: Stream::new(&context).map_err(KernelFault::from)?,
            stage: SurfaceStage::new(&context, size, device.integrated)?,
            context,
            map,
            shared: Arc::new(Shared {
                unmap,
                surfaces: Mutex::default(),
                _handle: handle,
            }),
        })
    }

    /// Reads the picture of a sample whose caps have [`FEATURE`] and `info`, and gives its pixels.
    ///
    /// # Errors
    /// [`NvmmFault`]; without the feature nothing is read.
    pub fn read(&mut self, sample: &gst::SampleRef, info: &VideoInfo) -> Result<&[u8], NvmmFault> {
        let wrong = |expected: &str, found: &str| NvmmFault::Layout {
            expected: expected.to_owned(),
            found: found.to_owned(),
        };
        let is_described = sample
            .caps()
            .and_then(|caps| caps.features(0))
            .is_some_and(|features| features.contains(FEATURE));
        let (Some(buffer), true) = (sample.buffer(), is_described) else {
            return Err(wrong("a buffer of memory:NVMM", "another"));
        };
        let bytes = buffer
            .map_readable()
            .map_err(|_| wrong("memory that can be mapped", "none"))?;
        let batch = bytes.as_ptr().cast::<Batch>().cast_mut();
        if buffer.n_memory() != 1 || bytes.len() < size_of::<Batch>() || !batch.is_aligned() {
            let found = format!("{} bytes in {} memories", bytes.len(), buffer.n_memory());
            return Err(wrong("an NvBufSurface", &found));
        }
        self.context.make_current().map_err(KernelFault::from)?;
        let size = [info.width() as usize, info.height() as usize];
        // SAFETY: a buffer of memory:NVMM holds an NvBufSurface, which is the elements' word; the bytes are enough for it and mapped
        // until the end of this call. Its list has a surface if it says so.
        let (memory_kind, gpu, surface) = unsafe {
            let list = (*batch).list;
            if (*batch).filled != 1 || list.is_null() || !list.is_aligned() {
                let found = format!("{} filled", (*batch).filled);
                return Err(wrong("one surface", &found));
            }
            ((*batch).memory, (*batch).gpu, list.read())
        };
        let pixels = pixels(info.format(), surface.colours).ok_or_else(|| {
            let expected = format!("the colours of {}", info.format());
            wrong(&expected, &format!("number {}", surface.colours))
        })?;
        let count = if matches!(pixels, Pixels::Nv12(_)) {
            2
        } else {
            1
        };
        let found = [surface.width as usize, surface.height as usize];
        if found[0] < size[0] || found[1] < size[1] || surface.planes.count != count as u32 {
            return Err(wrong(
                &format!("{}x{} or more in {count} planes", size[0], size[1]),
                &format!("{}x{} in {}", found[0], found[1], surface.planes.count),
            ));
        }
        let planes = if CUDA_MEMORY.contains(&memory_kind) && gpu == 0 {
            addresses(&surface, count).ok_or_else(|| wrong("planes within its memory", "others"))?
        } else if IMAGE_MEMORY.contains(&memory_kind) {
            let second_pitch = surface.planes.pitch[1] as usize;
            let memory = buffer.peek_memory(0);
            // SAFETY: see above; the memory is the buffer's, which the sample holds.
            unsafe { self.image(batch, memory, count, size, second_pitch) }?
        } else {
            let found = format!("number {memory_kind} of device {gpu}");
            return Err(wrong(
                "memory of CUDA's device 0, or an array of surfaces",
                &found,
            ));
        };
        Ok(self.stage.read(&self.stream, pixels, planes)?)
    }

    /// What the surface is for CUDA, taken if it is new.
    ///
    /// # Safety
    /// `batch` describes one surface or more, and is what `memory` holds.
    unsafe fn image(
        &self,
        batch: *mut Batch,
        memory: &gst::MemoryRef,
        planes: usize,
        size: [usize; 2],
        second_pitch: usize,
    ) -> Result<Planes, NvmmFault> {
        let memory: *const gst::ffi::GstMemory = memory.as_ptr();
        let mut surfaces = self.shared.hold();
        // SAFETY: the caller's word.
        let surface = unsafe { (*batch).list };
        // SAFETY: as above.
        let found = unsafe { (*surface).image };
        let of_it = |known: &Known| known.memory == memory;
        if let Some(at) = surfaces.known.iter().position(of_it) {
            let known = &surfaces.known[at];
            if known.batch == batch && known.image == found {
                return Ok(known.taken.planes());
            }
            // An element before us mapped it anew, or put another surface there: what was is not ours to unmap.
            surfaces.known.swap_remove(at);
        }
        let egl = self.egl.as_ref().map_err(Clone::clone)?;
        let is_ours = found.is_null();
        if is_ours {
            // SAFETY: the batch has a surface 0; the library writes where its image is.
            let code = unsafe { (self.map)(batch, 0) };
            // SAFETY: as above.
            if code != 0 || unsafe { (*surface).image }.is_null() {
                return Err(NvmmFault::NoImage(code));
            }
        }
        // SAFETY: as above.
        let image = unsafe { (*surface).image };
        // SAFETY: the image is mapped, and unmapped by us only after `EglImage` is gone (`Shared::release`); the surface lives as
        // long as its memory, whose end is heard before it comes (`ends`), and the sample holds it while it is read.
        let taken = match unsafe { egl.take(image, planes, size, second_pitch) } {
            Ok(taken) => taken,
            Err(fault) => {
                if is_ours {
                    // SAFETY: mapped above, and known to nobody.
                    unsafe { (self.shared.unmap)(batch, 0) };
                }
                return Err(fault.into());
            }
        };
        let planes = taken.planes();
        surfaces.known.push(Known {
            memory,
            batch,
            image,
            is_ours,
            taken,
        });
        if !surfaces.watched.contains(&memory) {
            surfaces.watched.push(memory);
            // SAFETY: the memory lives; the count is given back by `ends`, which GStreamer calls once, before it frees the memory.
            unsafe {
                let data = Arc::into_raw(Arc::clone(&self.shared));
                let object = memory.cast_mut().cast();
                gst::ffi::gst_mini_object_weak_ref(object, Some(ends), data.cast_mut().cast());
            }
        }
        Ok(planes)
    }

    /// Surfaces that are known now.
    #[must_use]
    pub fn known(&self) -> usize {
        self.shared.hold().known.len()
    }
}

impl Drop for Nvmm {
    fn drop(&mut self) {
        // What is freed from here on is freed in this context, whoever opened it; if that is lost, so is what it had.
        let _ = self.context.make_current();
        // A run that failed may still read.
        self.stream.settle();
        // The pipeline may outlive us.
        let mut surfaces = self.shared.hold();
        for known in surfaces.known.drain(..) {
            self.shared.release(known);
        }
    }
}

fn find_library(path: Option<&Path>) -> Result<(Handle, PathBuf), NvmmFault> {
    let named = path.map(|path| vec![path.to_owned()]);
    let mut looked = Vec::new();
    for path in named.unwrap_or_else(|| SONAMES.map(PathBuf::from).to_vec()) {
        // SAFETY: opening runs the library's initialisers. It is NVIDIA's by its name, or what the environment names as that.
        match unsafe { Handle::open(Some(&path), RTLD_NOW | RTLD_LOCAL) } {
            Ok(handle) => return Ok((handle, path)),
            Err(error) => {
                let words = loader::words(&path, &error);
                looked.push(format!("{}: {words}", path.display()));
            }
        }
    }
    Err(NvmmFault::NoLibrary {
        looked: looked.join("; "),
    })
}

/// Planes in memory that the device has an address for, if they lie within it.
fn addresses(surface: &Surface, count: usize) -> Option<Planes> {
    let mut rows = [(0, 0); 2];
    for (plane, row) in rows.iter_mut().enumerate().take(count) {
        let list = &surface.planes;
        let (offset, pitch) = (list.offset[plane] as usize, list.pitch[plane] as usize);
        // A plane of chroma has half the rows.
        let height = (surface.height as usize).div_ceil(1 + plane);
        let end = pitch.checked_mul(height)?.checked_add(offset)?;
        if surface.data.is_null() || end > surface.len as usize {
            return None;
        }
        *row = (surface.data.addr() as u64 + offset as u64, pitch);
    }
    Some(Planes::Rows(rows))
}

/// What the bytes mean: a format that was agreed, and a number of `NvBufSurfaceColorFormat`.
fn pixels(format: VideoFormat, colours: u32) -> Option<Pixels> {
    let nv12 = |shares, full_range| Some(Pixels::Nv12(Colours { shares, full_range }));
    match (format, colours) {
        (VideoFormat::Gray8, 1) => Some(Pixels::Grey),
        (VideoFormat::Rgba, 19) => Some(Pixels::Rgba),
        (VideoFormat::Nv12, 6) => nv12([0.299, 0.114], false),
        (VideoFormat::Nv12, 7) => nv12([0.299, 0.114], true),
        (VideoFormat::Nv12, 33) => nv12([0.2126, 0.0722], false),
        (VideoFormat::Nv12, 34) => nv12([0.2126, 0.0722], true),
        (VideoFormat::Nv12, 36) => nv12([0.2627, 0.0593], false),
        _ => None,
    }
}
