// SPDX-License-Identifier: Apache-2.0
//! Builds the fake driver and the fake TensorRT with the C compiler, and holds their knobs.

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use tendon::engine::tensorrt::Settings;

/// Which tables the fake TensorRT has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    Ten,
    Eleven,
}

pub const BOTH: [Tables; 2] = [Tables::Ten, Tables::Eleven];

struct Knobs {
    fail: Symbol<unsafe extern "C" fn(*const c_char, i32, i32)>,
    devices: Symbol<unsafe extern "C" fn(i32)>,
    log: Symbol<unsafe extern "C" fn() -> *const c_char>,
    forget: Symbol<unsafe extern "C" fn()>,
    live: Symbol<unsafe extern "C" fn() -> i32>,
    versions: [Symbol<unsafe extern "C" fn(i32)>; 2],
    runtimes: [Symbol<unsafe extern "C" fn(i32)>; 2],
    lives: [Symbol<unsafe extern "C" fn() -> i32>; 2],
    _libraries: [Library; 3],
}

/// The three libraries, as files and as knobs. One test at a time: they share one fake machine.
pub struct Fakes {
    pub driver: PathBuf,
    pub driver_without_graphs: PathBuf,
    tensorrt: [PathBuf; 2],
    knobs: Knobs,
}

static FAKES: LazyLock<Mutex<Fakes>> = LazyLock::new(|| Mutex::new(Fakes::build()));

/// The fake machine, as new.
pub fn machine() -> MutexGuard<'static, Fakes> {
    let fakes = FAKES.lock().unwrap_or_else(PoisonError::into_inner);
    fakes.reset();
    fakes
}

fn compile(source: &str, out: &str, more: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let out = folder.join(out);
    let source = Path::new(file!()).with_file_name(source);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = if source.is_absolute() {
        source
    } else {
        root.join(source)
    };
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let built = Command::new(compiler)
        .args([
            "-std=gnu11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-O1",
            "-g",
            "-fPIC",
            "-ffp-contract=off",
            "-shared",
            "-o",
        ])
        .args([&out, &source])
        .args(more)
        .arg("-lm")
        .status()
        .expect("a C compiler");
    assert!(built.success(), "{}", source.display());
    out
}

impl Fakes {
    fn build() -> Fakes {
        let driver = compile("fake_cuda.c", "libfake_cuda.so", &[]);
        let driver_without_graphs =
            compile("fake_cuda.c", "libfake_cuda_old.so", &["-DWITHOUT_GRAPHS"]);
        let linked = driver.display().to_string();
        let tensorrt = ["10", "11"].map(|layout| {
            let define = format!("-DLAYOUT={layout}");
            compile(
                "fake_nvinfer.c",
                &format!("libfake_nvinfer.so.{layout}"),
                &[&define, &linked],
            )
        });
        let open = |path: &PathBuf| {
            // SAFETY: the fakes have no initialisers.
            unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.expect("opens")
        };
        let cuda = open(&driver);
        let both = [open(&tensorrt[0]), open(&tensorrt[1])];
        // SAFETY: the symbols are defined in the two C files with exactly these signatures, and the libraries are kept
        // with them.
        let knobs = unsafe {
            Knobs {
                fail: cuda.get(b"fake_cuda_fail\0").expect("there"),
                devices: cuda.get(b"fake_cuda_devices\0").expect("there"),
                log: cuda.get(b"fake_cuda_log\0").expect("there"),
                forget: cuda.get(b"fake_cuda_forget\0").expect("there"),
                live: cuda.get(b"fake_cuda_live\0").expect("there"),
                versions: [0, 1]
                    .map(|n: usize| both[n].get(b"fake_nvinfer_version\0").expect("there")),
                runtimes: [0, 1]
                    .map(|n: usize| both[n].get(b"fake_nvinfer_runtime\0").expect("there")),
                lives: [0, 1].map(|n: usize| both[n].get(b"fake_nvinfer_live\0").expect("there")),
                _libraries: {
                    let [ten, eleven] = both;
                    [cuda, ten, eleven]
                },
            }
        };
        Fakes {
            driver,
            driver_without_graphs,
            tensorrt,
            knobs,
        }
    }

    fn reset(&self) {
        self.fail("", 0, 0);
        self.devices(1);
        self.forget();
        for (tables, version) in [(Tables::Ten, 100_300), (Tables::Eleven, 110_400)] {
            self.version(tables, version);
            self.runtime(tables, 0);
        }
    }

    pub fn tensorrt(&self, tables: Tables) -> PathBuf {
        self.tensorrt[tables as usize].clone()
    }

    pub fn settings(&self, tables: Tables) -> Settings {
        Settings {
            tensorrt: Some(self.tensorrt(tables)),
            driver: Some(self.driver.clone()),
            ..Settings::default()
        }
    }

    /// The call of `symbol` after `after` more fails with `code`, and every one after it. The empty name: none does.
    pub fn fail(&self, symbol: &str, after: i32, code: i32) {
        let symbol = CString::new(symbol).expect("a name");
        // SAFETY: the fake copies the name before it returns.
        unsafe { (self.knobs.fail)(symbol.as_ptr(), after, code) }
    }

    pub fn devices(&self, count: i32) {
        // SAFETY: a plain number.
        unsafe { (self.knobs.devices)(count) }
    }

    /// The driver's functions that were called since [`Fakes::forget`].
    pub fn calls(&self) -> Vec<String> {
        // SAFETY: the fake's own buffer, which always has an end; no other thread calls it meanwhile.
        let text = unsafe { CStr::from_ptr((self.knobs.log)()) }
            .to_string_lossy()
            .into_owned();
        text.split_whitespace().map(str::to_owned).collect()
    }

    pub fn forget(&self) {
        // SAFETY: no arguments.
        unsafe { (self.knobs.forget)() }
    }

    /// Things of the driver and of TensorRT that were made and not given back.
    pub fn live(&self) -> (i32, i32) {
        // SAFETY: no arguments.
        unsafe {
            (
                (self.knobs.live)(),
                (self.knobs.lives[0])() + (self.knobs.lives[1])(),
            )
        }
    }

    pub fn version(&self, tables: Tables, version: i32) {
        // SAFETY: a plain number.
        unsafe { (self.knobs.versions[tables as usize])(version) }
    }

    /// 0: a runtime; 1: null; 2: the garbage that the real library gives without a driver.
    pub fn runtime(&self, tables: Tables, mode: i32) {
        // SAFETY: a plain number.
        unsafe { (self.knobs.runtimes[tables as usize])(mode) }
    }
}
