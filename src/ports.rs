// SPDX-License-Identifier: Apache-2.0
//! What the outside must give, and nothing else: the traits between Tendon and the world.
//!
//! Each is the smallest foreign thing, so that a fake, a fault injector or a recorder can stand in its place.

use crate::core::units::Mono;
use core::any::Any;
use core::fmt;
use std::sync::Arc;

/// One picture as the camera saw it: 8-bit RGB, row-major, `height * width * 3` bytes.
#[derive(Debug)]
pub struct Frame {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Running number given by the camera; gaps are lost frames.
    pub seq: u32,
    /// When light fell on the sensor, on this machine's clock.
    pub captured: Mono,
    /// When it was handed over.
    pub received: Mono,
    /// The pixels.
    pub rgb: Vec<u8>,
}

impl Clone for Frame {
    fn clone(&self) -> Frame {
        Frame {
            width: self.width,
            height: self.height,
            seq: self.seq,
            captured: self.captured,
            received: self.received,
            rgb: self.rgb.clone(),
        }
    }

    /// Copies into the pixels that are there already: allocates only if the picture grew.
    fn clone_from(&mut self, other: &Frame) {
        self.rgb.clone_from(&other.rgb);
        (self.width, self.height) = (other.width, other.height);
        (self.seq, self.captured, self.received) = (other.seq, other.captured, other.received);
    }
}

impl Frame {
    /// A black frame of the given size that was never captured.
    #[must_use]
    pub fn black(width: usize, height: usize) -> Frame {
        Frame {
            width,
            height,
            seq: 0,
            captured: Mono(0),
            received: Mono(0),
            rgb: vec![0; width * height * 3],
        }
    }
}

/// Why a source gave no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFault {
    /// Nothing came before the deadline. Normal while a camera starts.
    #[error("no frame before the deadline")]
    Timeout,
    /// A frame came and was broken, as the driver, the decoder or its checksum says; it was dropped.
    #[error("broken frame: {0}")]
    Broken(&'static str),
    /// The camera is gone. The source looks for it again at each call.
    #[error("camera gone: {0}")]
    Gone(&'static str),
}

/// What moment the capture times of a source are of. How far that is from the light is not known here, and nothing is
/// corrected by guessing: `delay_ms` of a camera is for who has measured it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stamped {
    /// The source does not say.
    #[default]
    Unsaid,
    /// Start of the exposure.
    Start,
    /// End of the frame: later than the light by exposure and read-out.
    End,
    /// Arrival here, for want of a time that could be compared with ours: later by the transfer, too.
    Arrival,
}

impl Stamped {
    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Stamped::Unsaid => "not said",
            Stamped::Start => "start of exposure",
            Stamped::End => "end of frame",
            Stamped::Arrival => "arrival here",
        }
    }
}

/// Pictures of a source that nobody was given, and how often it began. What its kind cannot know stays 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Pictures that were numbered where they were made and did not come.
    pub missing: u64,
    /// Pictures that waited here and were passed over for a newer one.
    pub stale: u64,
    /// Pictures that the driver marked as broken.
    pub flagged: u64,
    /// Times that the camera was opened and began to give.
    pub starts: u64,
    /// Heap allocations of the thread that takes its pictures, from the camera to the policy, the first picture's aside. Counted
    /// by whoever hands them on, not by the source.
    pub allocations: u64,
}

impl Counts {
    /// Numbers in a row.
    pub const ROW: usize = 5;

    /// As a row of numbers, for cells that hold those.
    #[must_use]
    pub const fn row(self) -> [u64; Counts::ROW] {
        [
            self.missing,
            self.stale,
            self.flagged,
            self.starts,
            self.allocations,
        ]
    }

    /// From such a row.
    #[must_use]
    pub const fn of_row(
        [missing, stale, flagged, starts, allocations]: [u64; Counts::ROW],
    ) -> Counts {
        Counts {
            missing,
            stale,
            flagged,
            starts,
            allocations,
        }
    }
}

/// A camera.
pub trait Source: Send {
    /// Waits for the next frame until `deadline` and writes it over whatever `frame` held, without allocating once the size is
    /// known.
    ///
    /// # Errors
    /// [`SourceFault`]; after an error `frame` holds nothing to be used.
    fn next_frame(&mut self, deadline: Mono, frame: &mut Frame) -> Result<(), SourceFault>;

    /// What was counted since it was made.
    fn counts(&self) -> Counts {
        Counts::default()
    }

    /// What moment its capture times are of, as far as it has been told.
    fn stamped(&self) -> Stamped {
        Stamped::Unsaid
    }

    /// How its pictures come: the pixel format that was agreed, while there is one and it is known.
    fn format(&self) -> Option<&'static str> {
        None
    }
}

/// Element type of a tensor of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer; carried as `I32` data and widened by the engine.
    I64,
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::F32 => "f32",
            Dtype::I32 => "i32",
            Dtype::I64 => "i64",
        })
    }
}

/// Name, type and fixed shape of one tensor of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The graph's own name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Fixed shape; no dynamic dimension reaches an engine.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Elements of the tensor: the product of the shape, saturating.
    #[must_use]
    pub fn values(&self) -> usize {
        self.shape
            .iter()
            .fold(1, |product: usize, side| product.saturating_mul(*side))
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {:?}", self.name, self.dtype, self.shape)
    }
}

/// What a bundle promises about one stage. An engine is loaded against it and refuses a graph that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageSpec {
    /// The stage's name in the bundle.
    pub id: String,
    /// Inputs, in the order in which [`Engine::run`] takes them.
    pub inputs: Vec<TensorSpec>,
    /// Outputs, in the order in which [`Engine::run`] fills them.
    pub outputs: Vec<TensorSpec>,
}

/// A pre-allocated tensor: made once at load, written and read in place for ever after.
#[derive(Clone, Debug, PartialEq)]
pub enum Tensor {
    /// Row-major floats.
    F32(Vec<f32>),
    /// Row-major integers.
    I32(Vec<i32>),
}

impl Tensor {
    /// Zeros for `spec`.
    #[must_use]
    pub fn zeros(spec: &TensorSpec) -> Tensor {
        match spec.dtype {
            Dtype::F32 => Tensor::F32(vec![0.0; spec.values()]),
            Dtype::I32 | Dtype::I64 => Tensor::I32(vec![0; spec.values()]),
        }
    }

    /// The floats, if it holds floats.
    #[must_use]
    pub fn f32(&self) -> Option<&[f32]> {
        match self {
            Tensor::F32(values) => Some(values),
            Tensor::I32(_) => None,
        }
    }

    /// The floats for writing, if it holds floats.
    #[must_use]
    pub fn f32_mut(&mut self) -> Option<&mut [f32]> {
        match self {
            Tensor::F32(values) => Some(values),
            Tensor::I32(_) => None,
        }
    }

    /// The integers for writing, if it holds integers.
    #[must_use]
    pub fn i32_mut(&mut self) -> Option<&mut [i32]> {
        match self {
            Tensor::F32(_) => None,
            Tensor::I32(values) => Some(values),
        }
    }
}

/// One direction of a resize: which inputs make each output, and with what weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Taps {
    /// Inputs that make an output.
    pub count: usize,
    /// First of them, for each output.
    pub starts: Vec<usize>,
    /// `[outputs][count]`.
    pub weights: Vec<f32>,
}

/// A camera's way into a tensor as tables, for a device that makes it in one go. What the numbers are is fixed by the family;
/// the same tables drive the processor's path.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureWay {
    /// Width and height of the picture, 8-bit RGB.
    pub source: [usize; 2],
    /// First byte that is looked at.
    pub origin: usize,
    /// Bytes to the next pixel and to the next row: negative where the picture is turned.
    pub steps: [isize; 2],
    /// Resize of a row; columns of the resized picture.
    pub columns: Taps,
    /// The same of a column.
    pub rows: Taps,
    /// To whole numbers of 0..=255 between the passes, columns first, and at the end.
    pub rounds: [bool; 2],
    /// Width and height of the tensor's picture.
    pub size: [usize; 2],
    /// From a pixel of the tensor's picture to one of the resized; what falls outside of that is `pad`.
    pub shift: [isize; 2],
    /// Fills the rest, of 0..255.
    pub pad: f32,
    /// Factor and addend of each channel, in the tensor's order; one set or several.
    pub levels: Vec<[[f32; 2]; 3]>,
    /// Whether the channels come last in the tensor.
    pub channels_last: bool,
    /// Whether blue is its first channel.
    pub blue_first: bool,
    /// In whole numbers instead, rows first, rounding as those of these weights do.
    pub whole: Option<Box<WholeWay>>,
}

/// What a [`PictureWay`] in whole numbers has besides: its weights are whole.
#[derive(Clone, Debug, PartialEq)]
pub struct WholeWay {
    /// Bits of the fraction in the weights of columns and of rows.
    pub bits: [u32; 2],
    /// What each byte becomes before the levels.
    pub levels: [f32; 256],
}

/// What a denoising graph says of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// The noise in it.
    Noise,
    /// What it is without.
    Sample,
    /// The velocity of arXiv 2202.00512.
    Velocity,
}

/// How what was said of a sample makes the next one. The formulas are those of `policy::decode`, bit by bit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// Along a velocity: `sample + by * said`.
    Euler {
        /// Length of the step.
        by: f32,
    },
    /// DDIM with eta 0: the clean sample is estimated, bounded, and mixed with the noise again.
    Ddim {
        /// What the graph says.
        says: Says,
        /// Bound of the clean estimate.
        clip: Option<f32>,
        /// Factor of the noise in the sample, and of the clean sample in it.
        rest: f32,
        /// See `rest`.
        share: f32,
        /// The same in the next sample: of the clean one.
        clean: f32,
        /// And of the noise.
        noise: f32,
    },
}

/// One step of a loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoopStep {
    /// The time that the graph is given; a whole number where it takes one.
    pub time: f32,
    /// What follows.
    pub update: Update,
}

/// A loop around one stage, for an engine that runs it whole.
#[derive(Clone, Debug, PartialEq)]
pub struct LoopWay {
    /// Input of the sample.
    pub sample: usize,
    /// Input of the time, if the graph takes one.
    pub time: Option<usize>,
    /// Output that says something of the sample.
    pub said: usize,
    /// One after the other.
    pub steps: Vec<LoopStep>,
}

/// A tensor that stays where an engine computes it. Only engines of its kind can look into it.
#[derive(Clone)]
pub struct Lent(Arc<dyn Any + Send + Sync>);

impl Lent {
    /// What engines of one kind know one another's tensors by.
    #[must_use]
    pub fn new<T: Any + Send + Sync>(place: T) -> Lent {
        Lent(Arc::new(place))
    }

    /// That again, for an engine of the same kind.
    #[must_use]
    pub fn place<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lent")
    }
}

/// An engine failed to load or run a stage. The message says which tensor or file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EngineFault(pub String);

/// One loaded stage of a policy.
pub trait Engine: Send {
    /// The stage's inputs, in the order in which `run` takes them.
    fn inputs(&self) -> &[TensorSpec];
    /// The stage's outputs, in the order in which `run` fills them.
    fn outputs(&self) -> &[TensorSpec];
    /// Runs the stage on tensors that fit [`Engine::inputs`] and [`Engine::outputs`]; writes outputs in place.
    ///
    /// # Errors
    /// [`EngineFault`]; the outputs then hold nothing to be used.
    fn run(&mut self, inputs: &[Tensor], outputs: &mut [Tensor]) -> Result<(), EngineFault>;
    /// Whether it will never run again in this process: what it needs is lost, such as a GPU's context.
    fn lost(&self) -> bool {
        false
    }

    /// Offers to make input `input` of a camera's picture on the engine's own device; whether it takes the offer. If so, what
    /// `run` is given for this input is not read, and the picture is, from where [`Engine::picture`] says.
    ///
    /// # Errors
    /// [`EngineFault`]: it would, and its device refuses; the engine is then not to be used.
    fn take_picture(&mut self, _input: usize, _way: &PictureWay) -> Result<bool, EngineFault> {
        Ok(false)
    }

    /// Where the next run's picture for `input` is to be written, 8-bit RGB, if the engine makes it itself.
    fn picture(&mut self, _input: usize) -> Option<&mut [u8]> {
        None
    }

    /// What another engine needs to take output `output` from where it is computed, without the host; `None` if none could.
    ///
    /// # Errors
    /// [`EngineFault`]: its device refuses; the engine is then not to be used.
    fn lend(&mut self, _output: usize) -> Result<Option<Lent>, EngineFault> {
        Ok(None)
    }

    /// Offers to take input `input` from where another engine computes it; whether it takes the offer. If so, what `run` is
    /// given for this input is not read. With `carried` this engine's own output of that number is handed to the input at
    /// the end of every run, until the lender runs again: it may overwrite what was lent.
    ///
    /// # Errors
    /// [`EngineFault`]: it would, and its device refuses; the engine is then not to be used.
    fn borrow(
        &mut self,
        _input: usize,
        _lent: &Lent,
        _carried: Option<usize>,
    ) -> Result<bool, EngineFault> {
        Ok(false)
    }

    /// Offers the whole loop that this stage is the body of; whether it takes the offer. If so, `run` is given the sample's
    /// beginning, goes through every step, and writes the sample's end into the output that said what to do with it; what it
    /// is given for the time is not read.
    ///
    /// # Errors
    /// As [`Engine::borrow`].
    fn take_loop(&mut self, _way: &LoopWay) -> Result<bool, EngineFault> {
        Ok(false)
    }

    /// Nobody reads output `output` on the host: `run` need not write it. Where that is so of every output, `run` may return
    /// before it has ended, and a failure is then told by the next `run` that ends on the same device.
    fn keep(&mut self, _output: usize) {}

    /// Every offer was made, and no other will be: what the engine has left to choose by trying it, such as where its tensors lie, it
    /// chooses now. Whether it runs otherwise than before; what proves it comes after this. Makers of lent tensors are asked
    /// before who borrows them.
    ///
    /// # Errors
    /// [`EngineFault`]: it does not run; the engine is then not to be used.
    fn settle(&mut self) -> Result<bool, EngineFault> {
        Ok(false)
    }

    /// Whether a run like the last is done as the last was. An engine that puts runs together, its own and those of others, says no until
    /// it has: who proves it shows it something until then, because what is proven must be what runs.
    fn is_steady(&self) -> bool {
        true
    }
}
