// SPDX-License-Identifier: Apache-2.0
//! Builds the fake image processor (fake_nvmm.c) and the fake driver (../tensorrt/fake_cuda.c), and holds their knobs.

use crate::compile::compile;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use std::ffi::{CStr, CString, c_char};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use tendon::capture::nvmm::Libraries;

/// Which memory surfaces are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// An array of surfaces, tiled.
    Tiled,
    /// An array of surfaces, in rows.
    Rows,
    /// CUDA's own.
    Cuda,
    /// Of a kind that nobody knows.
    Unknown,
}

/// What is wrong with a description; the numbers of fake_nvmm.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Wrong {
    Nothing,
    Width,
    Planes,
    Short,
    NoList,
    Unfilled,
    SmallBuffer,
    /// Not wrong: an element before us maps images of its own.
    MappedAnew,
    Colours,
    Device,
}

struct Knobs {
    set: Symbol<unsafe extern "C" fn(i32, i32, i32, i32, i32)>,
    images: Symbol<unsafe extern "C" fn() -> i32>,
    surfaces: Symbol<unsafe extern "C" fn() -> i32>,
    fail: Symbol<unsafe extern "C" fn(*const c_char, i32, i32)>,
    log: Symbol<unsafe extern "C" fn() -> *const c_char>,
    forget: Symbol<unsafe extern "C" fn()>,
    live: Symbol<unsafe extern "C" fn() -> i32>,
    _libraries: [Library; 2],
}

/// A machine with an image processor. One test at a time.
pub struct Jetson {
    pub libraries: Libraries,
    knobs: Knobs,
}

static JETSON: LazyLock<Mutex<Jetson>> = LazyLock::new(|| Mutex::new(Jetson::build()));

/// The fake machine, as new.
pub fn jetson() -> MutexGuard<'static, Jetson> {
    let jetson = JETSON.lock().unwrap_or_else(PoisonError::into_inner);
    jetson.set(Memory::Tiled, false, Wrong::Nothing, 0);
    jetson.fail("", 0, 0);
    jetson.forget();
    jetson
}

impl Jetson {
    fn build() -> Jetson {
        gstreamer::init().expect("GStreamer");
        let driver = compile("tests/tensorrt/fake_cuda.c", "libfake_cuda_nvmm.so", &[]);
        let flags = Command::new("pkg-config")
            .args(["--cflags", "--libs", "gstreamer-video-1.0"])
            .output()
            .expect("pkg-config");
        let flags = String::from_utf8(flags.stdout).expect("text");
        let linked = driver.display().to_string();
        let mut more: Vec<&str> = flags.split_whitespace().collect();
        more.push(&linked);
        let surfaces = compile("tests/capture/fake_nvmm.c", "libfake_nvmm.so", &more);
        let open = |path: &PathBuf| {
            // SAFETY: the fakes have no initialisers.
            unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.expect("opens")
        };
        let (cuda, nvmm) = (open(&driver), open(&surfaces));
        // SAFETY: the symbols are defined in the two C files with exactly these signatures, and the libraries are kept with
        // them. The element is registered once, after GStreamer was made ready.
        let knobs = unsafe {
            let register: Symbol<unsafe extern "C" fn() -> i32> =
                nvmm.get(b"fake_nvmm_register\0").expect("there");
            assert_eq!(register(), 1, "an element");
            Knobs {
                set: nvmm.get(b"fake_nvmm_set\0").expect("there"),
                images: nvmm.get(b"fake_nvmm_images\0").expect("there"),
                surfaces: nvmm.get(b"fake_nvmm_surfaces\0").expect("there"),
                fail: cuda.get(b"fake_cuda_fail\0").expect("there"),
                log: cuda.get(b"fake_cuda_log\0").expect("there"),
                forget: cuda.get(b"fake_cuda_forget\0").expect("there"),
                live: cuda.get(b"fake_cuda_live\0").expect("there"),
                _libraries: [cuda, nvmm],
            }
        };
        Jetson {
            libraries: Libraries {
                driver: Some(driver),
                surfaces: Some(surfaces),
            },
            knobs,
        }
    }

    /// `converts`: whether the element gives ordinary memory to who takes no surfaces. `map_code`: what mapping an image answers.
    pub fn set(&self, memory: Memory, converts: bool, wrong: Wrong, map_code: i32) {
        let kind = match memory {
            Memory::Tiled | Memory::Rows => 4,
            Memory::Cuda => 2,
            Memory::Unknown => 77,
        };
        let tiled = i32::from(memory == Memory::Tiled);
        // SAFETY: plain numbers.
        unsafe { (self.knobs.set)(kind, tiled, i32::from(converts), wrong as i32, map_code) }
    }

    /// The call of `symbol` after `after` more fails with `code`, and every one after it. The empty name: none does.
    pub fn fail(&self, symbol: &str, after: i32, code: i32) {
        let symbol = CString::new(symbol).expect("a name");
        // SAFETY: the fake copies the name before it returns.
        unsafe { (self.knobs.fail)(symbol.as_ptr(), after, code) }
    }

    /// How often the driver was called by this name since [`Jetson::forget`]. To be asked while no camera runs, or its thread is
    /// this one.
    pub fn calls(&self, symbol: &str) -> usize {
        // SAFETY: the fake's own buffer, which always has an end; only the camera's thread calls it, which is this one.
        let text = unsafe { CStr::from_ptr((self.knobs.log)()) }.to_string_lossy();
        text.split_whitespace()
            .filter(|call| *call == symbol)
            .count()
    }

    pub fn forget(&self) {
        // SAFETY: no arguments.
        unsafe { (self.knobs.forget)() }
    }

    /// What was made and not given back: things of the driver, images, surfaces.
    pub fn live(&self) -> [i32; 3] {
        // SAFETY: no arguments.
        unsafe {
            [
                (self.knobs.live)(),
                (self.knobs.images)(),
                (self.knobs.surfaces)(),
            ]
        }
    }
}
