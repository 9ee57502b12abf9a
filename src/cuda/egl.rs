// SPDX-License-Identifier: Apache-2.0
//! Pictures of the graphics system in the device's reach, where they are: EGL images become addresses or textures. Only drivers
//! of machines with a display engine have these functions, so they are looked for apart from the others.
#![allow(unsafe_code)] // Functions of a driver without a header.

use super::surface::Planes;
use super::{Code, Context, CudaFault, KernelFault, OpenFault, Pointer};
use std::sync::Arc;

/// `CUeglFrame` of cudaEGL.h.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Arrays or addresses of up to three planes.
    planes: [u64; 3],
    width: u32,
    height: u32,
    depth: u32,
    /// Bytes a row of the first plane, if its planes are addresses.
    pitch: u32,
    plane_count: u32,
    channels: u32,
    kind: u32,
    colours: u32,
    format: u32,
}

/// CU_EGL_FRAME_TYPE_ARRAY and CU_EGL_FRAME_TYPE_PITCH.
const ARRAYS: u32 = 0;
const ROWS: u32 = 1;
/// CU_AD_FORMAT_UNSIGNED_INT8.
const BYTES: u32 = 1;
/// CU_GRAPHICS_REGISTER_FLAGS_READ_ONLY.
const READ_ONLY: u32 = 1;

/// `CUDA_RESOURCE_DESC` of cuda.h for an array: kind 0, the array, and what other kinds need.
#[repr(C)]
struct Resource {
    kind: u32,
    array: u64,
    rest: [u64; 15],
    flags: u32,
}

/// `CUDA_TEXTURE_DESC` of cuda.h.
#[repr(C)]
struct Sampling {
    beyond: [u32; 3],
    filter: u32,
    flags: u32,
    rest: [u32; 21],
}

/// CU_TR_ADDRESS_MODE_CLAMP, CU_TR_FILTER_MODE_POINT (0), CU_TRSF_READ_AS_INTEGER.
const CLAMP: u32 = 1;
const AS_INTEGERS: u32 = 1;

const _: () = assert!(size_of::<Frame>() == 64);
const _: () = assert!(size_of::<Resource>() == 144);
const _: () = assert!(size_of::<Sampling>() == 104);

type Register = unsafe extern "C" fn(*mut Pointer, Pointer, u32) -> Code;
type Unregister = unsafe extern "C" fn(Pointer) -> Code;
type Mapped = unsafe extern "C" fn(*mut Frame, Pointer, u32, u32) -> Code;
type MakeTexture =
    unsafe extern "C" fn(*mut u64, *const Resource, *const Sampling, *const Pointer) -> Code;
type DropTexture = unsafe extern "C" fn(u64) -> Code;

/// The functions, of a context's driver.
pub struct Egl {
    context: Arc<Context>,
    register: Register,
    unregister: Unregister,
    mapped: Mapped,
    make_texture: MakeTexture,
    drop_texture: DropTexture,
}

impl Egl {
    /// Looks for them.
    ///
    /// # Errors
    /// [`OpenFault::OldDriver`] with what the driver lacks.
    pub fn find(context: &Arc<Context>) -> Result<Egl, OpenFault> {
        let driver = &context.driver;
        let lacks = |symbol: &'static str| OpenFault::OldDriver {
            at: driver.path.display().to_string(),
            symbol,
        };
        macro_rules! find {
            ($kind:ty, $symbol:literal) => {
                *driver
                    .handle
                    .get::<$kind>(concat!($symbol, "\0").as_bytes())
                    .map_err(|_| lacks($symbol))?
            };
        }
        // SAFETY: the signatures are those of cuda.h and cudaEGL.h for these names; the library stays open.
        unsafe {
            Ok(Egl {
                register: find!(Register, "cuGraphicsEGLRegisterImage"),
                unregister: find!(Unregister, "cuGraphicsUnregisterResource"),
                mapped: find!(Mapped, "cuGraphicsResourceGetMappedEglFrame"),
                make_texture: find!(MakeTexture, "cuTexObjectCreate"),
                drop_texture: find!(DropTexture, "cuTexObjectDestroy"),
                context: Arc::clone(context),
            })
        }
    }

    /// Brings an image into the device's reach, where it is: `planes` of bytes, the first at least of `size`, width and height.
    /// `second_pitch`: bytes a row of the second plane, which the driver does not tell.
    ///
    /// # Errors
    /// [`KernelFault`]: an image of another make, or what the driver refuses.
    ///
    /// # Safety
    /// `image` is an `EGLImage` that lives. What it shows must live for as long as what is returned is read by a device.
    pub unsafe fn take(
        self: &Arc<Egl>,
        image: Pointer,
        planes: usize,
        size: [usize; 2],
        second_pitch: usize,
    ) -> Result<EglImage, KernelFault> {
        let mut taken = EglImage {
            egl: Arc::clone(self),
            resource: std::ptr::null_mut(),
            textures: [0; 2],
            planes: Planes::Textures([0; 2]),
        };
        // SAFETY: the caller's word for the image; writes a pointer that `taken` gives back.
        let code = unsafe { (self.register)(&mut taken.resource, image, READ_ONLY) };
        self.done("cuGraphicsEGLRegisterImage", code)?;
        let mut frame = Frame {
            planes: [0; 3],
            width: 0,
            height: 0,
            depth: 0,
            pitch: 0,
            plane_count: 0,
            channels: 0,
            kind: 0,
            colours: 0,
            format: 0,
        };
        // SAFETY: the resource is live; writes a frame of the layout that cudaEGL.h has.
        let code = unsafe { (self.mapped)(&mut frame, taken.resource, 0, 0) };
        self.done("cuGraphicsResourceGetMappedEglFrame", code)?;
        let fits = frame.width as usize >= size[0] && frame.height as usize >= size[1];
        let known = matches!(frame.kind, ARRAYS | ROWS) && frame.format == BYTES;
        if frame.plane_count as usize != planes || !fits || !known {
            return Err(KernelFault::Contradiction(format!(
                "an EGL image: expected {planes} planes of bytes, {}x{} or more, found {frame:?}",
                size[0], size[1]
            )));
        }
        let [first, second, _] = frame.planes;
        if frame.kind == ROWS {
            taken.planes = Planes::Rows([(first, frame.pitch as usize), (second, second_pitch)]);
        } else {
            for (texture, array) in taken.textures.iter_mut().zip(frame.planes).take(planes) {
                *texture = self.texture(array)?;
            }
            taken.planes = Planes::Textures(taken.textures);
        }
        Ok(taken)
    }

    /// A texture of an array's own elements, as whole numbers.
    fn texture(&self, array: u64) -> Result<u64, CudaFault> {
        let resource = Resource {
            kind: 0,
            array,
            rest: [0; 15],
            flags: 0,
        };
        let sampling = Sampling {
            beyond: [CLAMP; 3],
            filter: 0,
            flags: AS_INTEGERS,
            rest: [0; 21],
        };
        let mut texture = 0;
        let (into, none) = (&mut texture, std::ptr::null());
        // SAFETY: both descriptions have the layout of cuda.h and live for the length of the call; the array is the driver's and
        // lives as long as the registered image; writes a handle that `EglImage` gives back.
        let code = unsafe { (self.make_texture)(into, &resource, &sampling, none) };
        self.done("cuTexObjectCreate", code)?;
        Ok(texture)
    }

    fn done(&self, call: &'static str, code: Code) -> Result<(), CudaFault> {
        self.context.done(call, code)
    }
}

/// An image in the device's reach.
pub struct EglImage {
    egl: Arc<Egl>,
    resource: Pointer,
    textures: [u64; 2],
    planes: Planes,
}

// SAFETY: handles of the driver, which may be used from any thread whose context is current.
unsafe impl Send for EglImage {}

impl EglImage {
    /// Where its planes are.
    #[must_use]
    pub fn planes(&self) -> Planes {
        self.planes
    }
}

impl Drop for EglImage {
    fn drop(&mut self) {
        // The thread may be anybody's, with a context of its own.
        self.egl.context.within(|| {
            for texture in self.textures {
                if texture != 0 {
                    // SAFETY: made by `Egl::texture`, given back once; whoever read it waited for the stream.
                    unsafe { (self.egl.drop_texture)(texture) };
                }
            }
            if !self.resource.is_null() {
                // SAFETY: made by `Egl::take`, given back once; see above.
                unsafe { (self.egl.unregister)(self.resource) };
            }
        });
    }
}
