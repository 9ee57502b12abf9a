// SPDX-License-Identifier: Apache-2.0
//! The knobs of the fake kernel camera (fake_v4l.c), in a process into which it is preloaded.

use libloading::os::unix::{Library, Symbol};

/// What is wrong with a camera: the numbers of fake_v4l.c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Fault {
    Good,
    Unplugged,
    DqbufEio,
    ErrorFlag,
    SequenceGap,
    Short,
    Silent,
    ForeignClock,
    NoBandwidth,
    OtherModel,
    ControlSpringsBack,
    OtherSize,
    Slow,
    EndOfFrame,
    FewFormats,
    WideRows,
    SlowOpen,
    SlowControls,
    Wedged,
    Stepwise,
    Continuous,
    NoStep,
    Busy,
    Denied,
    RefusesUyvy,
    TripsOnUyvy,
    GreyFirst,
    GreyOnly,
    TripsOnColours,
    StuckFlags,
    StuckShort,
    CutNames,
    Endless,
    OddNumbers,
    FullRange,
    HdColours,
    RoomForJpeg,
    RoomForGrey,
    Ahead,
    Behind,
    LateStart,
    MetadataNode,
    MultiPlanar,
    OutputNode,
    Interlaced,
    InterlacedUnlessAsked,
    WithH264,
    H264Only,
    JpegOnly,
    Fast,
    ForgetsControls,
    ExposureReturns,
    MuteControls,
    NoSizes,
}

/// Access to the preloaded library.
pub struct Fake {
    fault: Symbol<unsafe extern "C" fn(i32, i32)>,
    payload: Symbol<unsafe extern "C" fn(i32, *const u8, u32)>,
    forget: Symbol<unsafe extern "C" fn(i32)>,
    lost: Symbol<unsafe extern "C" fn(i32) -> u32>,
    fourcc: Symbol<unsafe extern "C" fn(i32) -> u32>,
    control: Symbol<unsafe extern "C" fn(i32, u32) -> i64>,
    turn: Symbol<unsafe extern "C" fn(i32, u32, i64)>,
    given: Symbol<unsafe extern "C" fn(i32) -> u32>,
    wait: Symbol<unsafe extern "C" fn(i32)>,
}

impl Fake {
    /// Finds the knobs in this process.
    pub fn here() -> Fake {
        let this = Library::this();
        // SAFETY: the nine symbols are defined in fake_v4l.c with exactly these signatures, and that library, being
        // preloaded, is never unloaded.
        unsafe {
            Fake {
                fault: this.get(b"fake_v4l_fault\0").expect("preloaded"),
                payload: this.get(b"fake_v4l_payload\0").expect("preloaded"),
                forget: this.get(b"fake_v4l_forget\0").expect("preloaded"),
                lost: this.get(b"fake_v4l_lost\0").expect("preloaded"),
                fourcc: this.get(b"fake_v4l_fourcc\0").expect("preloaded"),
                control: this.get(b"fake_v4l_control\0").expect("preloaded"),
                turn: this.get(b"fake_v4l_turn\0").expect("preloaded"),
                given: this.get(b"fake_v4l_given\0").expect("preloaded"),
                wait: this.get(b"fake_v4l_wait\0").expect("preloaded"),
            }
        }
    }

    pub fn set(&self, camera: usize, fault: Fault) {
        // SAFETY: plain numbers; `camera` is below the fake's eight in every call of these tests.
        unsafe { (self.fault)(camera as i32, fault as i32) }
    }

    /// The pictures that the camera gives in turn, as raw bytes of the format that will be agreed.
    pub fn shows(&self, camera: usize, payloads: &[Vec<u8>]) {
        // SAFETY: plain number.
        unsafe { (self.forget)(camera as i32) };
        for bytes in payloads {
            // SAFETY: the fake copies `len` bytes from the pointer before it returns.
            unsafe { (self.payload)(camera as i32, bytes.as_ptr(), bytes.len() as u32) };
        }
    }

    /// Pictures for which no buffer was queued.
    pub fn lost(&self, camera: usize) -> u32 {
        // SAFETY: plain number.
        unsafe { (self.lost)(camera as i32) }
    }

    pub fn fourcc(&self, camera: usize) -> [u8; 4] {
        // SAFETY: plain number.
        unsafe { (self.fourcc)(camera as i32) }.to_le_bytes()
    }

    /// What a control stands at, by its number in the kernel.
    pub fn control(&self, camera: usize, id: u32) -> i64 {
        // SAFETY: plain numbers.
        unsafe { (self.control)(camera as i32, id) }
    }

    /// Turns a control, as another program does.
    pub fn turn(&self, camera: usize, id: u32, value: i64) {
        // SAFETY: plain numbers.
        unsafe { (self.turn)(camera as i32, id, value) }
    }

    /// Which of the pictures that it shows was taken last.
    pub fn given(&self, camera: usize) -> usize {
        // SAFETY: plain number.
        unsafe { (self.given)(camera as i32) as usize }
    }

    /// Waits until a picture lies in a buffer.
    pub fn wait(&self, camera: usize) {
        // SAFETY: plain number.
        unsafe { (self.wait)(camera as i32) }
    }
}
