// SPDX-License-Identifier: Apache-2.0
//! Making a plan: JetPack's own `trtexec`, one stage a subprocess, its memory and the machine's watched: what a Jetson's GPU
//! takes is in no process's account.
//!
//! Builder and ONNX parser are not bound: `trtexec` comes with TensorRT, is what NVIDIA tests, and takes what it
//! allocated with it when it ends. Networks are strongly typed, which TensorRT 11 has alone: precision is what the ONNX
//! file says, INT8 by explicit Q/DQ.

use super::phase::Phase;
use super::plan::{self, Target, Wanted};
use super::room::{Room, gb, need_bytes};
use crate::core::units::Mono;
use crate::hash::hex;
use crate::onnx;
use crate::ports::TensorSpec;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Where JetPack puts it.
const JETPACK: &str = "/usr/src/tensorrt/bin/trtexec";
/// How often the builder's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of the builder that are kept for a message.
const TAIL: usize = 12;
/// What `trtexec` is told, the same for every stage. `--stronglyTyped` is the only way in 11, where it is ignored.
const FLAGS: [&str; 4] = [
    "--stronglyTyped",
    NO_TF32,
    "--skipInference",
    "--profilingVerbosity=detailed",
];
/// Left to itself TensorRT multiplies floats of 32 bits with 10 of their 23 bits of mantissa (TF32) where the GPU can. What a graph
/// has in 32 bits, its exporter or quantiser left there because it needs them.
const NO_TF32: &str = "--noTF32";
/// Among a deployment's flags: TF32 all the same. `trtexec` has no such word, and is not told it.
const TF32: &str = "--tf32";
/// How `trtexec` is told the shapes of inputs that a graph leaves open, smallest, best and largest alike. Untold it takes 1 for every
/// open side; told of a graph that leaves nothing open it refuses.
const SHAPES: &str = "--shapes=";
/// A deployment that says any of these says all about shapes.
const OTHER_SHAPES: [&str; 4] = [SHAPES, "--minShapes=", "--optShapes=", "--maxShapes="];

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Job {
    /// The stage.
    pub stage: String,
    /// Its ONNX file.
    pub onnx: PathBuf,
    /// Its inputs: the shapes of those that the file leaves open.
    pub inputs: Vec<TensorSpec>,
    /// Where plans are kept.
    pub cache: PathBuf,
    /// For which machine: this one.
    pub target: Target,
    /// `trtexec`; absent: looked for.
    pub trtexec: Option<PathBuf>,
    /// More for `trtexec`, e.g. `--memPoolSize=workspace:2048`; `--tf32` lets it multiply floats of 32 bits as TF32.
    pub flags: Vec<String>,
    /// The builder may not take more, bytes; where the GPU shares the machine's memory, what went from that counts.
    pub memory_max_bytes: Option<u64>,
    /// Whether it shares it.
    pub shared_memory: bool,
    /// Where the kernel says what memory there is ([`MEMINFO`](super::room::MEMINFO)): compared with what building is expected to
    /// take, and watched, so that the builder ends before the machine has none.
    pub meminfo: PathBuf,
    /// Nor longer, seconds.
    pub time_max_s: f64,
}

/// What happens meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub enum Progress {
    /// A line of the builder's.
    Line(String),
    /// What may go wrong, and what to do before it does.
    Warning(String),
    /// It is still at it.
    At {
        /// Since when, seconds.
        elapsed_s: f64,
        /// What it does.
        phase: Phase,
        /// Its memory now, bytes.
        memory_bytes: u64,
        /// What it may come to before it is ended, bytes; absent: nobody knows.
        bound_bytes: Option<u64>,
    },
}

/// A plan in the cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Built {
    /// Its path.
    pub path: PathBuf,
    /// Whether it was there already.
    pub cached: bool,
    /// How long it took, seconds.
    pub built_s: f64,
    /// The builder's largest memory, bytes.
    pub peak_bytes: u64,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum BuildFault {
    /// No builder.
    #[error(
        "no trtexec: looked for {looked}; on a Jetson install the package tensorrt, or give --trtexec PATH"
    )]
    NoBuilder {
        /// Where.
        looked: String,
    },
    /// A file.
    #[error("{at}: {reason}")]
    File {
        /// Which.
        at: String,
        /// Why.
        reason: String,
    },
    /// It failed.
    #[error("trtexec failed for stage \"{stage}\" ({status}); its last lines:\n{tail}")]
    Failed {
        /// Which stage.
        stage: String,
        /// How it ended.
        status: String,
        /// What it said last.
        tail: String,
    },
    /// It would take more than there is.
    #[error(
        "stage \"{stage}\": expected {need} of memory for building it (a rule of thumb), found {found}, swap included: nothing was built. Add swap, split the stage, or try all the same under a bound of your own: --memory-max-mib"
    )]
    NoRoom {
        /// Which stage.
        stage: String,
        /// What it would take.
        need: String,
        /// What there is.
        found: String,
    },
    /// The machine has next to no memory left.
    #[error(
        "stage \"{stage}\": this machine has {left} of memory left that the GPU could have, less than {floor}, and the builder was ended before nothing is left. Close what else uses memory, add swap, or split the stage"
    )]
    Exhausted {
        /// Which stage.
        stage: String,
        /// What is left.
        left: String,
        /// What must be.
        floor: String,
    },
    /// It took too much.
    #[error(
        "stage \"{stage}\": the builder took {found}, more than {allowed}: it was ended. Close what else uses memory, raise the bound, or split the stage"
    )]
    TooMuch {
        /// Which stage.
        stage: String,
        /// What it took.
        found: String,
        /// What it may.
        allowed: String,
    },
}

impl Job {
    /// The shapes of the inputs that the ONNX file leaves open, if it does; they are in the plan then, and part of its key.
    fn shapes(&self) -> Result<Option<String>, BuildFault> {
        let open = onnx::open_inputs(&self.onnx)
            .map_err(|why| file(&self.onnx, &std::io::Error::other(why)))?;
        let shape = |input: &TensorSpec| {
            let sides: Vec<String> = input.shape.iter().map(ToString::to_string).collect();
            format!("{}:{}", input.name, sides.join("x"))
        };
        let is_open = |input: &&TensorSpec| open.contains(&input.name);
        let shapes: Vec<String> = self.inputs.iter().filter(is_open).map(shape).collect();
        let told = |flag: &String| OTHER_SHAPES.iter().any(|other| flag.starts_with(*other));
        let is_ours = !shapes.is_empty() && !self.flags.iter().any(told);
        Ok(is_ours.then(|| format!("{SHAPES}{}", shapes.join(","))))
    }

    fn flags(&self) -> Result<Vec<String>, BuildFault> {
        let asked = |word: &str| self.flags.iter().any(|flag| flag == word);
        // `trtexec` refuses a word that it is told twice.
        let ours = FLAGS
            .into_iter()
            .filter(|flag| !(asked(flag) || *flag == NO_TF32 && asked(TF32)));
        let theirs = self.flags.iter().filter(|flag| *flag != TF32);
        let all = ours.map(str::to_owned).chain(self.shapes()?);
        Ok(all.chain(theirs.cloned()).collect())
    }

    /// What the plan must be, by the ONNX file as it is now.
    ///
    /// # Errors
    /// [`BuildFault::File`].
    pub fn wanted(&self) -> Result<Wanted, BuildFault> {
        let mut hash = Sha256::new();
        onnx::digest(&self.onnx, &mut hash).map_err(|error| file(&self.onnx, &error))?;
        Ok(Wanted {
            stage: self.stage.clone(),
            onnx_sha256: hex(&hash.finalize()),
            target: self.target.clone(),
            flags: self.flags()?,
        })
    }

    /// Builds the plan unless it is there. `now` tells the time, `tell` is told what happens.
    ///
    /// # Errors
    /// [`BuildFault`]; nothing half made stays in the cache.
    pub fn run(
        &self,
        now: fn() -> Mono,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<Built, BuildFault> {
        let wanted = self.wanted()?;
        std::fs::create_dir_all(&self.cache).map_err(|error| file(&self.cache, &error))?;
        if wanted.check(&self.cache).is_ok() {
            let path = wanted.path(&self.cache);
            return Ok(Built {
                path,
                cached: true,
                built_s: 0.0,
                peak_bytes: 0,
            });
        }
        let builder = find(self.trtexec.as_deref())?;
        self.look_for_room(tell)?;
        let made = self
            .cache
            .join(format!(".{}-{}.making", self.stage, std::process::id()));
        // What was measured on another GPU, or by another TensorRT, is neither to be read nor to be written over.
        let timing = self.target.timing(&self.cache);
        let mut command = Command::new(&builder);
        command
            .arg(format!("--onnx={}", self.onnx.display()))
            .arg(format!("--saveEngine={}", made.display()))
            .arg(format!("--timingCacheFile={}", timing.display()))
            .args(&wanted.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let begun = now();
        let child = command.spawn().map_err(|error| file(&builder, &error))?;
        let watched = self.watch(child, begun, now, tell);
        let result = watched.and_then(|peak_bytes| {
            let built_s = now().seconds_since(begun);
            let path = plan::keep(&wanted, &self.cache, &made, built_s, peak_bytes)
                .map_err(|error| file(&made, &error))?;
            Ok(Built {
                path,
                cached: false,
                built_s,
                peak_bytes,
            })
        });
        let _ = std::fs::remove_file(&made);
        result
    }

    /// What is not there at all is refused, unless the user gave a bound; what is not free now may be by then, and is said.
    fn look_for_room(&self, tell: &mut dyn FnMut(Progress)) -> Result<(), BuildFault> {
        let Some(room) = Room::read(&self.meminfo) else {
            return Ok(());
        };
        let weights = onnx::elements(&self.onnx)
            .map_err(|why| file(&self.onnx, &std::io::Error::other(why)))?;
        let need = need_bytes(weights);
        if need > room.all_bytes && self.memory_max_bytes.is_none() {
            return Err(BuildFault::NoRoom {
                stage: self.stage.clone(),
                need: gb(need),
                found: gb(room.all_bytes),
            });
        }
        if need > room.free_bytes {
            tell(Progress::Warning(format!(
                "stage \"{}\": building it may take {} of memory (a rule of thumb), and {} are free, swap included: close what else \
                 uses memory, add swap, or have the builder ended in time with --memory-max-mib",
                self.stage,
                gb(need),
                gb(room.free_bytes)
            )));
        }
        Ok(())
    }

    /// What went from the machine's memory since the builder began, where the GPU's is the same.
    fn gone(&self, at_first: Option<Room>, room: Option<Room>) -> u64 {
        let gone = at_first.zip(room).filter(|_| self.shared_memory);
        gone.map_or(0, |(first, room)| {
            first.reach_bytes.saturating_sub(room.reach_bytes)
        })
    }

    /// Reads what the builder says and looks at its memory until it ends; ends it when it takes too much.
    fn watch(
        &self,
        mut child: Child,
        begun: Mono,
        now: fn() -> Mono,
        tell: &mut dyn FnMut(Progress),
    ) -> Result<u64, BuildFault> {
        let (lines, said) = mpsc::channel();
        let mut readers = Vec::new();
        let outs: [Option<Box<dyn Read + Send>>; 2] = [
            child
                .stdout
                .take()
                .map(|out| Box::new(out) as Box<dyn Read + Send>),
            child
                .stderr
                .take()
                .map(|out| Box::new(out) as Box<dyn Read + Send>),
        ];
        // What it says on its two outputs comes in no order; errors must not be pushed out by chatter.
        for (which, out) in outs.into_iter().flatten().enumerate() {
            let lines = lines.clone();
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if lines.send((which, line)).is_err() {
                        return;
                    }
                }
            }));
        }
        drop(lines);
        let (mut peak_bytes, mut told_s, mut phase) = (0, 0.0, Phase::default());
        let at_first = Room::read(&self.meminfo);
        let mut tails: [Vec<String>; 2] = [Vec::new(), Vec::new()];
        let kill = |child: &mut Child| {
            let _ = child.kill();
            let _ = child.wait();
            self.stage.clone()
        };
        let status = loop {
            match said.recv_timeout(LOOK) {
                Ok((which, line)) => {
                    if let Some(tail) = tails.get_mut(which) {
                        tail.push(line.clone());
                        tail.drain(..tail.len().saturating_sub(TAIL));
                    }
                    phase = phase.after(&line);
                    tell(Progress::Line(line));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK),
            }
            let room = Room::read(&self.meminfo);
            let memory_bytes = memory(child.id()).max(self.gone(at_first, room));
            peak_bytes = memory_bytes.max(peak_bytes);
            let elapsed_s = now().seconds_since(begun);
            if elapsed_s - told_s >= 1.0 {
                told_s = elapsed_s;
                let left = room.map(|room| room.reach_bytes.saturating_sub(room.floor_bytes));
                let bounds = [self.memory_max_bytes, left.map(|left| memory_bytes + left)];
                tell(Progress::At {
                    elapsed_s,
                    phase,
                    memory_bytes,
                    bound_bytes: bounds.into_iter().flatten().min(),
                });
            }
            if let Some(room) = room.filter(|room| room.reach_bytes < room.floor_bytes) {
                return Err(BuildFault::Exhausted {
                    stage: kill(&mut child),
                    left: mib(room.reach_bytes),
                    floor: mib(room.floor_bytes),
                });
            }
            if let Some(most) = self.memory_max_bytes
                && memory_bytes > most
            {
                return Err(BuildFault::TooMuch {
                    stage: kill(&mut child),
                    found: format!("{} of memory", mib(memory_bytes)),
                    allowed: format!("{} of memory", mib(most)),
                });
            }
            if elapsed_s > self.time_max_s {
                return Err(BuildFault::TooMuch {
                    stage: kill(&mut child),
                    found: format!("{elapsed_s:.0} s"),
                    allowed: format!("{:.0} s", self.time_max_s),
                });
            }
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => {}
                Err(error) => return Err(file(Path::new("trtexec"), &error)),
            }
        };
        for reader in readers {
            drop(reader.join());
        }
        for (which, line) in said.try_iter() {
            if let Some(tail) = tails.get_mut(which) {
                tail.push(line.clone());
                tail.drain(..tail.len().saturating_sub(TAIL));
            }
            tell(Progress::Line(line));
        }
        if !status.success() {
            let tail = tails.concat().join("\n");
            return Err(BuildFault::Failed {
                stage: self.stage.clone(),
                status: status.to_string(),
                tail,
            });
        }
        Ok(peak_bytes)
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

fn file(at: &Path, error: &std::io::Error) -> BuildFault {
    BuildFault::File {
        at: at.display().to_string(),
        reason: error.to_string(),
    }
}

/// Where the builder is: as given, in TENDON_TRTEXEC, on the path, where JetPack has it.
///
/// # Errors
/// [`BuildFault::NoBuilder`].
pub fn find(given: Option<&Path>) -> Result<PathBuf, BuildFault> {
    let named = std::env::var_os("TENDON_TRTEXEC").filter(|value| !value.is_empty());
    let candidates: Vec<PathBuf> = match (given, named) {
        (Some(path), _) => vec![path.to_owned()],
        (None, Some(path)) => vec![PathBuf::from(path)],
        (None, None) => {
            let on_path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::env::split_paths(&on_path).map(|folder| folder.join("trtexec"));
            folders.chain([PathBuf::from(JETPACK)]).collect()
        }
    };
    let looked: Vec<String> = candidates
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let found = candidates.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| BuildFault::NoBuilder {
        looked: looked.join(", "),
    })
}

/// Memory of a process now, bytes; 0 when it has ended.
fn memory(id: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|n| n.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
