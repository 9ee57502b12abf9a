// SPDX-License-Identifier: Apache-2.0
//! The `tendon` key of a bundle of several stages, schema 2: what is fed, which graphs run, how the action is read.
//!
//! Everything is data; nothing unknown passes. Tensors go by name from a *source* to the inputs of the stages:
//!
//! | source | what | changes with |
//! |---|---|---|
//! | `camera.ROLE` | the picture, with its history | the observation |
//! | `camera.ROLE.seen` | 1 where a frame is real, 0 where it is filling | the observation |
//! | `state` | normalised joint state, zeros behind it | the observation |
//! | `text.ids`, `text.mask`, `text.used` | token ids, 1 where a token is, how many there are | the instruction, or the observation if the state is in the prompt |
//! | `text.embedding` | the sentence's vector from a table | the instruction |
//! | `const.NAME` | a constant | nothing |
//! | `ring.NAME`, `ring.NAME.seen` | the last outputs of a stage, oldest first | the observation |
//! | `loop.x`, `loop.time` | the sample that is denoised, and its time | each step of the loop |
//! | `loop.prefix`, `loop.weights`, `loop.delay` | what is left of the plan that is followed, how strongly each row is held, rows that are over before the new plan is | the observation |
//! | `loop.guidance` | how hard it is pulled there | each step of the loop |
//! | `loop.token`, `loop.position` | the last token, and its place in the sequence | each step of the loop |
//! | `STAGE.OUTPUT` | the output of a stage | that stage |
//!
//! When a stage runs follows from what it reads: once at load, once an instruction, once an observation, or at each step.

use crate::core::schedule::rtc::Attention;
use crate::policy::decode::bins::{Rt1Tokens, TextIntegers, VocabularyTail};
use crate::policy::decode::diffusion::DiffusionFile;
use crate::policy::decode::fast::FastFile;
use crate::policy::decode::flow::Flow;
use crate::policy::decode::post::Post;
use crate::policy::manifest::{OnnxFile, OutputFile, ParityFile, TimingFile, Unit};
use crate::policy::means::MeansFile;
use crate::policy::normalise::{Convention, Mode};
use crate::policy::picture::CameraFile;
use crate::policy::prompt::PromptFile;
use crate::ports::Dtype;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Version of the key that is read here.
pub const SCHEMA: u32 = 2;

/// The `tendon` key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StagedFile {
    /// 2.
    pub schema: u32,
    /// Whose way of feeding and reading it is, for people: `pi0`, `openvla`, ...
    pub family: String,
    /// Cameras by role, at most 8.
    #[serde(default)]
    pub cameras: Vec<CameraFile>,
    /// The sentence; a policy without it takes none.
    #[serde(default)]
    pub text: Option<TextFile>,
    /// The joint state; a policy without it sees none.
    #[serde(default)]
    pub state: Option<StateFile>,
    /// Tensors that never change.
    #[serde(default)]
    pub constants: BTreeMap<String, ConstantFile>,
    /// Last outputs of a stage.
    #[serde(default)]
    pub rings: BTreeMap<String, RingFile>,
    /// The graphs. Their order in the file means nothing.
    pub stages: Vec<StageFile>,
    /// What is repeated for one action.
    #[serde(default, rename = "loop")]
    pub repeat: Option<LoopFile>,
    /// How the numbers become an action.
    pub decoder: DecoderFile,
    /// What the action is; a planner, whose result is a sentence, has none.
    #[serde(default)]
    pub action: Option<ActionFile>,
    /// How it tells how sure it is, beyond its tokens; absent: it does not.
    #[serde(default)]
    pub uncertainty: Option<UncertaintyFile>,
    /// Where it looked, camera by camera, for people.
    #[serde(default)]
    pub attention: Vec<MapFile>,
    /// How often, how soon.
    pub timing: TimingFile,
    /// What must be reproduced at every load.
    pub parity: ParityFile,
    /// File name -> SHA-256 in hexadecimal, of every file of the bundle but the manifest.
    pub sha256: BTreeMap<String, String>,
}

impl StagedFile {
    /// Whether its answers say how sure it was: by RT-1's logits, by tokens that are limited to actions, by several answers.
    #[must_use]
    pub fn tells_doubt(&self) -> bool {
        let limited = match &self.repeat {
            Some(LoopFile::Tokens(tokens)) => tokens.allowed.is_some(),
            _ => false,
        };
        limited || matches!(self.decoder, DecoderFile::Rt1(_)) || self.uncertainty.is_some()
    }
}

/// Several answers to one observation: how far they lie apart is how unsure the policy is.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UncertaintyFile {
    /// `STAGE.OUTPUT` of a graph that gives all answers at once, `[count][horizon][names]` in the decoder's numbers (dropout
    /// left on, an ensemble). Absent: the loop is run again, each time from other noise, which takes as long each time.
    #[serde(default)]
    pub from: Option<String>,
    /// Answers, 2 to 64.
    pub count: usize,
    /// First actions of the chunk that count; all if absent.
    #[serde(default)]
    pub steps: Option<usize>,
    /// For each name of the action the standard deviation, in its unit, that is a doubt of 1.
    pub spread_max: Vec<f32>,
}

/// A map of where the policy looked.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapFile {
    /// The camera's role.
    pub camera: String,
    /// `STAGE.OUTPUT`, `[rows][columns]`, the top row first.
    pub from: String,
    /// Numbers across.
    pub columns: usize,
    /// Numbers down.
    pub rows: usize,
}

/// How a sentence becomes a tensor.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum TextFile {
    /// By a tokenizer.
    Prompt(PromptFile),
    /// By looking it up: a sentence that is not in the table is refused (RT-1 and BC-Z, whose encoders run nowhere near a
    /// robot).
    Table(TableFile),
}

/// Sentences with their vectors.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TableFile {
    /// A safetensors file: key = the sentence, f32 of `width`.
    pub file: String,
    /// Numbers of a vector.
    pub width: usize,
}

/// Where normalisation statistics stand.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatsFile {
    /// A safetensors file, or a JSON file as OpenVLA, Octo and openpi write them.
    pub file: String,
    /// First part of the keys, `observation.state`; in JSON the way to the object, `bridge_orig.action`.
    pub key: String,
    /// The formula.
    pub mode: Mode,
    /// Whose details.
    #[serde(default)]
    pub convention: Convention,
    /// LeRobot's 1e-8.
    #[serde(default)]
    pub eps: f32,
    /// Entries that are normalised; all, or what the JSON file's own `mask` says, if absent.
    #[serde(default)]
    pub mask: Option<Vec<bool>>,
}

/// The joint state.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateFile {
    /// Joints in the order of the tensor.
    pub names: Vec<String>,
    /// Their units.
    pub units: Vec<Unit>,
    /// Operations before the normalisation (openpi's flips for ALOHA).
    #[serde(default)]
    pub pre: Vec<Post>,
    /// Normalisation; none if absent.
    #[serde(default)]
    pub stats: Option<StatsFile>,
    /// States of history, oldest first; the first one stands for what came before it.
    #[serde(default = "one")]
    pub history: usize,
    /// Time between them.
    #[serde(default)]
    pub spacing_ms: f64,
}

fn one() -> usize {
    1
}

/// A tensor that never changes.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConstantFile {
    /// Every number of it.
    pub fill: f32,
}

/// The last outputs of a stage, zeros before there were any.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RingFile {
    /// `STAGE.OUTPUT`.
    pub of: String,
    /// How many.
    pub len: usize,
}

/// One graph.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageFile {
    /// Its name.
    pub id: String,
    /// Its file for each precision.
    pub onnx: OnnxFile,
    /// Inputs by the graph's names.
    pub inputs: BTreeMap<String, InputFile>,
    /// Outputs by the graph's names.
    pub outputs: BTreeMap<String, OutputFile>,
}

/// An input of a graph.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InputFile {
    /// Element type.
    pub dtype: Dtype,
    /// Fixed shape.
    pub shape: Vec<usize>,
    /// A source, or several that lie one after the other (cameras stacked on the batch or the channels).
    pub from: OneOrMore,
    /// From the second run on this output instead: a memory, or a key-value cache. A loop begins anew with `from` at
    /// each observation; everything else with each episode.
    #[serde(default)]
    pub carry: Option<String>,
}

/// One name or a list of them.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMore {
    /// One.
    One(String),
    /// Several.
    More(Vec<String>),
}

impl OneOrMore {
    /// All of them.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            OneOrMore::One(name) => core::slice::from_ref(name),
            OneOrMore::More(names) => names,
        }
    }
}

/// How noise is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Noise {
    /// N(0, 1).
    #[default]
    Normal,
    /// Evenly from -1 to 1 (Evo-1).
    Uniform,
    /// Evenly from 0 to 1: a graph picks by it from what it gave probabilities to (VQ-BeT).
    Unit,
}

/// What is repeated for one action.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum LoopFile {
    /// Flow matching.
    Flow(FlowLoop),
    /// DDPM and DDIM.
    Diffusion(DiffusionLoop),
    /// Token by token.
    Tokens(TokenLoop),
    /// Nothing is repeated: what reads `loop.x` runs once, on numbers that are drawn.
    Draw(DrawLoop),
}

/// Numbers that are drawn for each observation.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrawLoop {
    /// How.
    #[serde(default)]
    pub noise: Noise,
    /// Fixed seed: the same numbers for every observation. Without it each observation has its own.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// Flow matching.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowLoop {
    /// `STAGE.OUTPUT` of the velocity.
    pub velocity: String,
    /// The steps.
    pub flow: Flow,
    /// How it begins.
    #[serde(default)]
    pub noise: Noise,
    /// Fixed seed: the same noise for every observation. Without it each observation has its own.
    #[serde(default)]
    pub seed: Option<u64>,
    /// Whether a plan goes on from the one that is being followed, and how; absent: each stands for itself.
    #[serde(default)]
    pub rtc: Option<RtcFile>,
}

/// How a plan goes on from the one that is being followed (real-time chunking).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// The correction without a gradient, as LeRobot deploys it: the graph is unchanged.
    Identity,
    /// With the gradient through the denoiser, which is in the graph: it takes `loop.prefix`, `loop.weights` and
    /// `loop.guidance`, and gives the guided velocity (Black, Galliker, Levine 2025).
    Guided,
    /// A policy that was trained on it: the steps of the delay are the old plan's, their `loop.time` the action's
    /// (arXiv 2512.05964).
    Trained,
    /// The overlap begins as the old plan; the steps of the delay stay, the rest is denoised with rising strength
    /// (Isaac-GR00T N1.7).
    FrozenPrefix,
}

/// How the weights fall from the delay to the end of the overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttentionFile {
    /// Only the steps of the delay are held.
    Zeros,
    /// All of the overlap is.
    Ones,
    /// In a straight line (LeRobot).
    #[default]
    Linear,
    /// Bent (the paper).
    Exp,
}

impl From<AttentionFile> for Attention {
    fn from(file: AttentionFile) -> Attention {
        match file {
            AttentionFile::Zeros => Attention::Zeros,
            AttentionFile::Ones => Attention::Ones,
            AttentionFile::Linear => Attention::Linear,
            AttentionFile::Exp => Attention::Exp,
        }
    }
}

/// Real-time chunking.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RtcFile {
    /// Which.
    pub flavour: Flavour,
    /// For `identity` and `guided`.
    #[serde(default)]
    pub attention: AttentionFile,
    /// Most actions of the old plan that count; all that are left if absent.
    #[serde(default)]
    pub overlap: Option<usize>,
    /// Largest weight of the guidance: 10 in LeRobot, 5 in the authors' simulation.
    #[serde(default = "ten")]
    pub guidance_max: f32,
    /// For `frozen-prefix`: how fast the strength rises.
    #[serde(default = "ten")]
    pub ramp_rate: f32,
}

fn ten() -> f32 {
    10.0
}

/// DDPM and DDIM.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiffusionLoop {
    /// `STAGE.OUTPUT` of the prediction.
    pub said: String,
    /// The schedule.
    pub schedule: DiffusionFile,
    /// Fixed seed: the same noise for every observation. Without it each observation has its own.
    #[serde(default)]
    pub seed: Option<u64>,
}

/// Ids of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    /// The first.
    pub from: u32,
    /// How many.
    pub count: u32,
}

/// Token by token, the likeliest each time.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenLoop {
    /// `STAGE.OUTPUT` of the logits of the first token, from a stage that read the whole prompt.
    pub first: String,
    /// `STAGE.OUTPUT` of the logits of the next ones.
    pub next: String,
    /// Most tokens.
    pub max: usize,
    /// Whether there must be exactly `max` of them.
    #[serde(default)]
    pub exactly: bool,
    /// Ids that end it and are not part of the answer.
    #[serde(default)]
    pub stop: Vec<u32>,
    /// No other id can win.
    #[serde(default)]
    pub allowed: Option<Ids>,
    /// Id of the first logit.
    #[serde(default)]
    pub logits_base: u32,
    /// Place of the first answered token: this and the tokens of the prompt.
    #[serde(default)]
    pub position_offset: u32,
}

/// How the numbers become an action.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum DecoderFile {
    /// An output as it stands.
    Regression(RegressionFile),
    /// The denoised sample of the loop.
    Sample(WindowFile),
    /// The loop's tokens as the tail of a vocabulary (OpenVLA).
    VocabularyTail(VocabularyTail),
    /// RT-1's logits.
    Rt1(Rt1File),
    /// The loop's tokens as text of integers (RT-2).
    TextIntegers(TextIntegersFile),
    /// The loop's tokens as FAST (pi0-FAST).
    Fast(FastFile),
    /// The loop's tokens as a sentence for another policy: a planner.
    Sentence(SentenceFile),
}

/// Which numbers of a tensor are the chunk: `horizon` rows of `width`, of which the action's first columns count.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowFile {
    /// Index of the first number: a head of several, a window of several, or the first actions left out.
    #[serde(default)]
    pub start: usize,
    /// Numbers of a row: 32 where the action is padded.
    pub width: usize,
}

/// An output as it stands.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegressionFile {
    /// `STAGE.OUTPUT`.
    pub from: String,
    /// Which part of it.
    pub window: WindowFile,
}

/// RT-1's logits.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rt1File {
    /// `STAGE.OUTPUT` of the logits.
    pub from: String,
    /// What each token is.
    pub tokens: Rt1Tokens,
}

/// RT-2's text.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextIntegersFile {
    /// The language model's tokenizer.json.
    pub tokenizer: String,
    /// What each integer is.
    pub integers: TextIntegers,
}

/// A planner's answer.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SentenceFile {
    /// The language model's tokenizer.json.
    pub tokenizer: String,
}

/// What the action is.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ActionFile {
    /// Joints, or what else the numbers move, in the order of the tensor.
    pub names: Vec<String>,
    /// Their units.
    pub units: Vec<Unit>,
    /// Actions in a chunk.
    pub horizon: usize,
    /// Normalisation; none if absent.
    #[serde(default)]
    pub stats: Option<StatsFile>,
    /// What is done to the numbers in their units, in order.
    #[serde(default)]
    pub post: Vec<Post>,
    /// Time between two actions.
    pub period_ms: f64,
    /// Time from capture to action 0.
    pub first_step_ms: f64,
    /// Columns that are not the target of the joint whose name they have: velocities, deltas, a base's twist, a pose.
    #[serde(default)]
    pub means: Vec<MeansFile>,
}
