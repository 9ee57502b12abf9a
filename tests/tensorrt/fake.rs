// SPDX-License-Identifier: Apache-2.0
//! Builds the fake driver and the fake TensorRT with the C compiler, and holds their knobs.

use crate::compile::compile;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use tendon::engine::tensorrt::Settings;
use tendon::ports::{Dtype, Engine, StageSpec, Tensor, TensorSpec};
use tendon::runtime::realtime::CountingAllocator;

/// The program's own allocator, which also counts how many pieces of one size a thread holds.
pub struct Watching;

/// A size that nothing has by chance, and that the fake takes for a plan.
pub const WATCHED_BYTES: usize = 3_989;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

/// Pieces of memory of [`WATCHED_BYTES`] that this thread made and did not let go of.
pub fn held() -> isize {
    HELD.get()
}

fn count(size: usize, by: isize) {
    if size == WATCHED_BYTES {
        HELD.set(HELD.get() + by);
    }
}

// SAFETY: every method hands its arguments unchanged to an allocator that upholds the contract; the count touches only a plain
// thread-local cell, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise about `layout` is passed on as it is.
        unsafe { CountingAllocator.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise about `layout` is passed on as it is.
        unsafe { CountingAllocator.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(new_size, 1);
        // SAFETY: `pointer` came from the same allocator through this one, `layout` and `new_size` are the caller's.
        unsafe { CountingAllocator.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: `pointer` came from the same allocator through this one with this `layout`.
        unsafe { CountingAllocator.dealloc(pointer, layout) }
    }
}

/// Which tables the fake TensorRT has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    Ten,
    Eleven,
}

pub const BOTH: [Tables; 2] = [Tables::Ten, Tables::Eleven];

/// What the fake moved and did since it was asked last.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes from host to device.
    pub into: u64,
    /// Bytes from device to host.
    pub out: u64,
    /// Bytes within the device.
    pub within: u64,
    /// Graphs launched.
    pub launches: u64,
    /// Kernels of ours.
    pub kernels: u64,
}

/// What computes for a described plan. A plan names its own by its number.
struct Body {
    engine: Box<dyn Engine>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

static BODIES: Mutex<Vec<Body>> = Mutex::new(Vec::new());

type Compute = unsafe extern "C" fn(*const c_char, *const *mut c_void, i32);

/// Called by the fake TensorRT with a plan and the addresses of its tensors, in the plan's order: inputs, then outputs.
unsafe extern "C" fn compute(plan: *const c_char, addresses: *const *mut c_void, count: i32) {
    // SAFETY: the fake's plan has an end, and there are `count` addresses.
    let (plan, addresses) = unsafe {
        (
            CStr::from_ptr(plan).to_string_lossy(),
            std::slice::from_raw_parts(addresses, count as usize),
        )
    };
    let number: Option<usize> = plan
        .split_whitespace()
        .nth(2)
        .and_then(|word| word.parse().ok());
    let mut bodies = BODIES.lock().unwrap_or_else(PoisonError::into_inner);
    let body = &mut bodies[number.expect("a number")];
    let bytes = |at: usize, spec: &TensorSpec| {
        let wide = if spec.dtype == Dtype::I64 { 8 } else { 4 };
        // SAFETY: the fake checked that each tensor's bytes lie in memory that the device reaches; they overlap no other's,
        // or the binding is wrong, which the test then sees.
        unsafe { std::slice::from_raw_parts_mut(addresses[at].cast::<u8>(), spec.values() * wide) }
    };
    let specs = body.engine.inputs().to_vec();
    for (at, (spec, tensor)) in specs.iter().zip(&mut body.inputs).enumerate() {
        let from = bytes(at, spec);
        match tensor {
            Tensor::F32(values) => bytemuck::cast_slice_mut(values).copy_from_slice(from),
            Tensor::I32(values) if spec.dtype == Dtype::I32 => {
                bytemuck::cast_slice_mut(values).copy_from_slice(from);
            }
            Tensor::I32(values) => {
                for (value, from) in values.iter_mut().zip(from.chunks_exact(8)) {
                    let wide = i64::from_ne_bytes(from.try_into().expect("eight"));
                    // What was never written is all ones, and -1 is a token nowhere.
                    *value = wide.try_into().expect("32 bits");
                }
            }
        }
    }
    let Body {
        engine,
        inputs,
        outputs,
    } = body;
    engine.run(inputs, outputs).expect("the processor runs it");
    for (at, (spec, tensor)) in engine.outputs().iter().zip(outputs).enumerate() {
        let into = bytes(specs.len() + at, spec);
        match tensor {
            Tensor::F32(values) => into.copy_from_slice(bytemuck::cast_slice(values)),
            Tensor::I32(values) if spec.dtype == Dtype::I32 => {
                into.copy_from_slice(bytemuck::cast_slice(values));
            }
            Tensor::I32(values) => {
                for (value, into) in values.iter().zip(into.chunks_exact_mut(8)) {
                    into.copy_from_slice(&i64::from(*value).to_ne_bytes());
                }
            }
        }
    }
}

/// A plan of a stage's tensors for which `engine` computes; `words` say what is wrong with it.
pub fn plan_of(spec: &StageSpec, engine: Box<dyn Engine>, words: &str) -> Vec<u8> {
    let mut bodies = BODIES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut plan = format!("FAKEPLAN described {} {words}", bodies.len());
    let inputs = spec.inputs.iter().map(|tensor| ('i', tensor));
    for (way, tensor) in inputs.chain(spec.outputs.iter().map(|tensor| ('o', tensor))) {
        let kind = match tensor.dtype {
            Dtype::F32 => 0,
            Dtype::I32 => 3,
            Dtype::I64 => 8,
        };
        let sides: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
        plan += &format!("\n{way} {} {kind} {}", tensor.name, sides.join(","));
    }
    bodies.push(Body {
        inputs: spec.inputs.iter().map(Tensor::zeros).collect(),
        outputs: spec.outputs.iter().map(Tensor::zeros).collect(),
        engine,
    });
    plan.into_bytes()
}

struct Knobs {
    moved: Symbol<unsafe extern "C" fn(*mut Moved)>,
    bodies: [Symbol<unsafe extern "C" fn(Compute)>; 2],
    fail: Symbol<unsafe extern "C" fn(*const c_char, i32, i32)>,
    devices: Symbol<unsafe extern "C" fn(i32)>,
    shares: Symbol<unsafe extern "C" fn(i32)>,
    compute: Symbol<unsafe extern "C" fn(i32, i32)>,
    slow: Symbol<unsafe extern "C" fn(i32, i32, i32)>,
    log: Symbol<unsafe extern "C" fn() -> *const c_char>,
    forget: Symbol<unsafe extern "C" fn()>,
    live: Symbol<unsafe extern "C" fn() -> i32>,
    versions: [Symbol<unsafe extern "C" fn(i32)>; 2],
    runtimes: [Symbol<unsafe extern "C" fn(i32)>; 2],
    lives: [Symbol<unsafe extern "C" fn() -> i32>; 2],
    plugins: [Symbol<unsafe extern "C" fn() -> i32>; 2],
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

impl Fakes {
    fn build() -> Fakes {
        let driver = compile("tests/tensorrt/fake_cuda.c", "libfake_cuda.so", &[]);
        let driver_without_graphs = compile(
            "tests/tensorrt/fake_cuda.c",
            "libfake_cuda_old.so",
            &["-DWITHOUT_GRAPHS"],
        );
        let linked = driver.display().to_string();
        let tensorrt = ["10", "11"].map(|layout| {
            let define = format!("-DLAYOUT={layout}");
            compile(
                "tests/tensorrt/fake_nvinfer.c",
                &format!("libfake_nvinfer.so.{layout}"),
                &[&define, &linked],
            )
        });
        for (library, layout) in tensorrt.iter().zip(["10", "11"]) {
            let out = format!("libfake_nvinfer_plugin.so.{layout}");
            let linked = library.display().to_string();
            compile("tests/tensorrt/fake_plugin.c", &out, &[&linked]);
        }
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
                moved: cuda.get(b"fake_cuda_moved\0").expect("there"),
                bodies: [0, 1].map(|n: usize| both[n].get(b"fake_nvinfer_body\0").expect("there")),
                fail: cuda.get(b"fake_cuda_fail\0").expect("there"),
                devices: cuda.get(b"fake_cuda_devices\0").expect("there"),
                shares: cuda.get(b"fake_cuda_shares\0").expect("there"),
                compute: cuda.get(b"fake_cuda_compute\0").expect("there"),
                slow: cuda.get(b"fake_cuda_slow\0").expect("there"),
                log: cuda.get(b"fake_cuda_log\0").expect("there"),
                forget: cuda.get(b"fake_cuda_forget\0").expect("there"),
                live: cuda.get(b"fake_cuda_live\0").expect("there"),
                versions: [0, 1]
                    .map(|n: usize| both[n].get(b"fake_nvinfer_version\0").expect("there")),
                runtimes: [0, 1]
                    .map(|n: usize| both[n].get(b"fake_nvinfer_runtime\0").expect("there")),
                lives: [0, 1].map(|n: usize| both[n].get(b"fake_nvinfer_live\0").expect("there")),
                plugins: [0, 1]
                    .map(|n: usize| both[n].get(b"fake_nvinfer_plugins\0").expect("there")),
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
        self.shares(true);
        self.compute(8, 7);
        self.slow(0, 0);
        self.forget();
        self.moved();
        for set in &self.knobs.bodies {
            // SAFETY: a function that lives as long as the program.
            unsafe { set(compute) }
        }
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
            // Whatever machine the fakes are on.
            jetson_release: Some("/nowhere/nv_tegra_release".into()),
            ..Settings::default()
        }
    }

    /// The call of `symbol` after `after` more fails with `code`, and every one after it. The empty name: none does. `enqueueV3` is
    /// TensorRT's; refused with a code of 700 or more, the context is lost for the driver too.
    pub fn fail(&self, symbol: &str, after: i32, code: i32) {
        let symbol = CString::new(symbol).expect("a name");
        // SAFETY: the fake copies the name before it returns.
        unsafe { (self.knobs.fail)(symbol.as_ptr(), after, code) }
    }

    pub fn devices(&self, count: i32) {
        // SAFETY: a plain number.
        unsafe { (self.knobs.devices)(count) }
    }

    /// Whether the device has the host's memory.
    pub fn shares(&self, shares: bool) {
        // SAFETY: a plain number.
        unsafe { (self.knobs.shares)(i32::from(shares)) }
    }

    /// The device's compute capability.
    pub fn compute(&self, major: i32, minor: i32) {
        // SAFETY: plain numbers.
        unsafe { (self.knobs.compute)(major, minor) }
    }

    /// How long each copy between host and device takes, and each tensor that the device reads or writes in the host's memory,
    /// microseconds.
    pub fn slow(&self, copy_us: i32, touch_us: i32) {
        // SAFETY: plain numbers.
        unsafe { (self.knobs.slow)(copy_us, touch_us, 0) }
    }

    /// How long each copy takes, and each KiB that the device reads or writes in the host's memory.
    pub fn slow_by_size(&self, copy_us: i32, touch_kib_us: i32) {
        // SAFETY: plain numbers.
        unsafe { (self.knobs.slow)(copy_us, 0, touch_kib_us) }
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

    /// What was moved and done since this was asked last.
    pub fn moved(&self) -> Moved {
        let mut moved = Moved::default();
        // SAFETY: writes five numbers of 64 bits.
        unsafe { (self.knobs.moved)(&mut moved) }
        moved
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

    /// How often plugins were registered in this process.
    pub fn plugins(&self, tables: Tables) -> i32 {
        // SAFETY: no arguments.
        unsafe { (self.knobs.plugins[tables as usize])() }
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
