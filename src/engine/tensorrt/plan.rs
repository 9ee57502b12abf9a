// SPDX-License-Identifier: Apache-2.0
//! Whose plan it is. A plan runs only on the GPU and TensorRT it was built with, and nothing in it says from which
//! network it came; so a label lies beside it, and a plan without one, or with another's, is refused in words.

use crate::hash::{feed, hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::{self, Write as _};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Version of the label's format.
const FORMAT: u32 = 2;
/// Largest plan that is read.
const BYTES_MAX: u64 = 16 << 30;

/// A machine, as far as plans depend on it: modules of one name and compute capability differ in multiprocessors and memory, and
/// what the builder chose by measuring on the one is not what it would choose on the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// TensorRT's version.
    pub tensorrt: String,
    /// The device's name.
    pub device: String,
    /// Its compute capability.
    pub compute: String,
    /// Its multiprocessors. A Jetson's power mode may switch some of them off.
    pub multiprocessors: i32,
    /// Its memory in whole GiB, rounded up: on a Jetson the kernel keeps some of it, and not always as much.
    pub memory_gib: u64,
    /// The driver's CUDA version. Several releases of JetPack have the same.
    pub cuda: i32,
    /// Jetson Linux, which each release of JetPack brings its own of; `None` where there is none.
    pub jetson_linux: Option<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "TensorRT {} on \"{}\" ({}, {} multiprocessors, {} GiB, CUDA {}",
            self.tensorrt,
            self.device,
            self.compute,
            self.multiprocessors,
            self.memory_gib,
            self.cuda
        )?;
        match &self.jetson_linux {
            Some(release) => write!(f, ", Jetson Linux {release})"),
            None => write!(f, ")"),
        }
    }
}

impl Target {
    /// All of it, each part in words.
    fn parts(&self) -> [String; 7] {
        let Target {
            tensorrt,
            device,
            compute,
            multiprocessors,
            memory_gib,
            cuda,
            jetson_linux,
        } = self;
        [
            tensorrt.clone(),
            device.clone(),
            compute.clone(),
            multiprocessors.to_string(),
            memory_gib.to_string(),
            cuda.to_string(),
            jetson_linux.clone().unwrap_or_default(),
        ]
    }

    /// Where the builder keeps what it measured here, in the cache.
    #[must_use]
    pub fn timing(&self, cache: &Path) -> PathBuf {
        let mut key = hashed(self.parts().iter());
        key.truncate(16);
        cache.join(format!("timing-{key}.cache"))
    }
}

/// The hash of a list of parts. Each with its length, so that no two lists are written the same.
fn hashed<'a>(parts: impl Iterator<Item = &'a String>) -> String {
    let mut text = String::new();
    for part in parts {
        let _ = write!(text, "{}:{part};", part.len());
    }
    sha256(text.as_bytes())
}

/// The release in /etc/nv_tegra_release: R36.4.3 of `# R36 (release), REVISION: 4.3, GCID: ...`. What is written otherwise is
/// taken as it is.
#[must_use]
pub fn jetson_linux(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut words = line.trim_start_matches(['#', ' ']).split_whitespace();
    let behind = line.split("REVISION:").nth(1);
    let revision = behind.and_then(|rest| rest.split(',').next());
    match (words.next(), revision) {
        (Some(release), Some(revision)) => format!("{release}.{}", revision.trim()),
        _ => line.trim().to_owned(),
    }
}

/// What a plan was made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Label {
    /// Version of this format.
    pub format: u32,
    /// The stage.
    pub stage: String,
    /// SHA-256 of the ONNX file, with the files of its weights.
    pub onnx_sha256: String,
    /// Where it was built.
    pub target: Target,
    /// What the builder was told, without paths.
    pub flags: Vec<String>,
    /// SHA-256 of the plan.
    pub plan_sha256: String,
    /// How long building took, seconds.
    pub built_s: f64,
    /// The builder's largest memory, bytes.
    pub peak_bytes: u64,
}

/// A plan that is not for here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanFault {
    /// No plan yet.
    #[error(
        "{at}: no engine for this stage, machine and TensorRT; build it here: tendon engine build"
    )]
    Missing {
        /// Where it would be.
        at: String,
    },
    /// It cannot be read.
    #[error(
        "{at}: expected a plan and its label, found {found}; delete both and build again: tendon engine build"
    )]
    Unreadable {
        /// Which file.
        at: String,
        /// Why.
        found: String,
    },
    /// It is of something else.
    #[error(
        "{at}: expected a plan with {what} {expected}, found {found}; build it here: tendon engine build"
    )]
    Foreign {
        /// Which file.
        at: String,
        /// What differs.
        what: &'static str,
        /// As it is here.
        expected: String,
        /// As the label says.
        found: String,
    },
}

/// What a plan is asked to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The stage.
    pub stage: String,
    /// SHA-256 of the ONNX file, with the files of its weights.
    pub onnx_sha256: String,
    /// This machine.
    pub target: Target,
    /// What the builder is told, without paths.
    pub flags: Vec<String>,
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

impl Wanted {
    /// The key under which it is kept: all that it depends on, hashed.
    #[must_use]
    pub fn key(&self) -> String {
        let target = self.target.parts();
        let own = [&self.stage, &self.onnx_sha256];
        hashed(own.into_iter().chain(&target).chain(&self.flags))
    }

    /// Its path in the cache.
    #[must_use]
    pub fn path(&self, cache: &Path) -> PathBuf {
        let mut key = self.key();
        key.truncate(16);
        cache.join(format!("{}-{key}.plan", self.stage))
    }

    /// Reads the plan from the cache, if it is the one that is wanted. As large as it is: to be handed on, not kept. It is not mapped:
    /// a file that another program cuts short would then end this process, and one that it writes over would not be what was hashed.
    ///
    /// # Errors
    /// [`PlanFault`].
    pub fn read(&self, cache: &Path) -> Result<Vec<u8>, PlanFault> {
        let path = self.path(cache);
        let label = self.label(&path)?;
        let plan = read(&path)?;
        is_that(&path, label, sha256(&plan))?;
        Ok(plan)
    }

    /// Whether the cache has the one that is wanted, whole. It is looked at in pieces.
    ///
    /// # Errors
    /// [`PlanFault`].
    pub fn check(&self, cache: &Path) -> Result<(), PlanFault> {
        let path = self.path(cache);
        let label = self.label(&path)?;
        let found = sha256_of(&path).map_err(|error| unreadable(&path, error.to_string()))?;
        is_that(&path, label, found)
    }

    /// The label of a plan that says to be the one that is wanted.
    fn label(&self, path: &Path) -> Result<Label, PlanFault> {
        if !path.exists() {
            return Err(PlanFault::Missing {
                at: path.display().to_string(),
            });
        }
        let label = read_label(path)?;
        let compared = [
            ("the stage", self.stage.clone(), label.stage.clone()),
            (
                "the ONNX file",
                self.onnx_sha256.clone(),
                label.onnx_sha256.clone(),
            ),
            (
                "the target",
                self.target.to_string(),
                label.target.to_string(),
            ),
            ("the flags", self.flags.join(" "), label.flags.join(" ")),
        ];
        for (what, expected, found) in compared {
            if expected != found {
                return Err(foreign(path, what, expected, found));
            }
        }
        Ok(label)
    }
}

fn foreign(path: &Path, what: &'static str, expected: String, found: String) -> PlanFault {
    PlanFault::Foreign {
        at: path.display().to_string(),
        what,
        expected,
        found,
    }
}

fn unreadable(path: &Path, found: String) -> PlanFault {
    PlanFault::Unreadable {
        at: path.display().to_string(),
        found,
    }
}

/// Whether a plan with this hash is the label's.
fn is_that(path: &Path, label: Label, found: String) -> Result<(), PlanFault> {
    if found == label.plan_sha256 {
        return Ok(());
    }
    Err(foreign(path, "the hash", label.plan_sha256, found))
}

/// SHA-256 of a file in hexadecimal. A plan may be as large as a Jetson's memory.
fn sha256_of(path: &Path) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    feed(File::open(path)?, &mut hash)?;
    Ok(hex(&hash.finalize()))
}

/// Where the label of a plan lies.
#[must_use]
pub fn label_path(plan: &Path) -> PathBuf {
    plan.with_extension("json")
}

/// The label beside a plan.
///
/// # Errors
/// [`PlanFault::Unreadable`].
pub fn read_label(plan: &Path) -> Result<Label, PlanFault> {
    let at = label_path(plan);
    let unreadable = |found: String| unreadable(&at, found);
    let text = std::fs::read_to_string(&at).map_err(|error| unreadable(error.to_string()))?;
    let label: Label =
        serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))?;
    if label.format != FORMAT {
        return Err(unreadable(format!(
            "a label of format {}, not {FORMAT}",
            label.format
        )));
    }
    Ok(label)
}

/// A plan's bytes.
///
/// # Errors
/// [`PlanFault::Unreadable`].
pub fn read(plan: &Path) -> Result<Vec<u8>, PlanFault> {
    let unreadable = |found: String| unreadable(plan, found);
    let len = std::fs::metadata(plan)
        .map_err(|error| unreadable(error.to_string()))?
        .len();
    if len > BYTES_MAX {
        return Err(unreadable(format!("{len} bytes")));
    }
    std::fs::read(plan).map_err(|error| unreadable(error.to_string()))
}

/// Puts a plan and its label into the cache: the label last, both under other names first, so that a crash leaves
/// nothing that looks whole.
///
/// # Errors
/// What the system says.
pub fn keep(
    wanted: &Wanted,
    cache: &Path,
    made: &Path,
    built_s: f64,
    peak_bytes: u64,
) -> std::io::Result<PathBuf> {
    let plan_sha256 = sha256_of(made)?;
    let label = Label {
        format: FORMAT,
        stage: wanted.stage.clone(),
        onnx_sha256: wanted.onnx_sha256.clone(),
        target: wanted.target.clone(),
        flags: wanted.flags.clone(),
        plan_sha256,
        built_s,
        peak_bytes,
    };
    let path = wanted.path(cache);
    let at = label_path(&path);
    let _ = std::fs::remove_file(&at);
    std::fs::rename(made, &path)?;
    let new = at.with_extension("json.new");
    let text = serde_json::to_string_pretty(&label).map_err(std::io::Error::other)?;
    std::fs::write(&new, text + "\n")?;
    std::fs::rename(&new, &at)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            stage: "policy".into(),
            onnx_sha256: sha256(b"onnx"),
            target: Target {
                tensorrt: "10.3.0".into(),
                device: "Orin".into(),
                compute: "8.7".into(),
                multiprocessors: 8,
                memory_gib: 16,
                cuda: 12_060,
                jetson_linux: Some("R36.4.3".into()),
            },
            flags: vec!["--stronglyTyped".into()],
        }
    }

    fn kept(cache: &Path) -> PathBuf {
        let made = cache.join("made.tmp");
        std::fs::write(&made, b"plan").expect("written");
        keep(&wanted(), cache, &made, 1.5, 7).expect("kept")
    }

    #[test]
    fn what_was_kept_is_read() {
        let cache = tempfile::tempdir().expect("a folder");
        let path = kept(cache.path());
        assert_eq!(wanted().read(cache.path()), Ok(b"plan".to_vec()));
        assert_eq!(wanted().check(cache.path()), Ok(()));
        assert_eq!(read_label(&path).expect("a label").built_s, 1.5);
    }

    #[test]
    fn every_part_makes_another_key() {
        let mut keys = vec![wanted().key()];
        let changes: [fn(&mut Wanted); 10] = [
            |w| w.stage = "vision".into(),
            |w| w.onnx_sha256 = sha256(b"other"),
            |w| w.target.tensorrt = "10.16.2".into(),
            |w| w.target.device = "Orin Nano".into(),
            |w| w.target.compute = "8.9".into(),
            |w| w.target.multiprocessors = 16,
            |w| w.target.memory_gib = 8,
            |w| w.target.cuda = 13_000,
            |w| w.target.jetson_linux = Some("R36.4.4".into()),
            |w| w.flags = vec!["--stronglyTyped --noTF32".into()],
        ];
        for change in changes {
            let mut other = wanted();
            change(&mut other);
            keys.push(other.key());
        }
        let mut two = wanted();
        two.flags = vec!["--a;3:--b".into()];
        keys.push(two.key());
        two.flags = vec!["--a".into(), "--b".into()];
        keys.push(two.key());
        let len = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), len);
    }

    #[test]
    fn every_part_of_the_target_makes_another_timing_cache_and_nothing_else_does() {
        let cache = Path::new("/cache");
        let file = |change: fn(&mut Wanted)| {
            let mut wanted = wanted();
            change(&mut wanted);
            wanted.target.timing(cache)
        };
        let own = file(|_| ());
        assert_eq!(own.parent(), Some(cache));
        assert_eq!(own, file(|w| w.onnx_sha256 = sha256(b"other")));
        let mut all = vec![
            own,
            file(|w| w.target.tensorrt = "10.16.2".into()),
            file(|w| w.target.device = "Orin Nano".into()),
            file(|w| w.target.compute = "8.9".into()),
            file(|w| w.target.multiprocessors = 16),
            file(|w| w.target.memory_gib = 8),
            file(|w| w.target.cuda = 13_000),
            file(|w| w.target.jetson_linux = None),
        ];
        let len = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), len);
    }

    #[test]
    fn a_release_of_jetson_linux_is_read_as_nvidia_writes_it() {
        for (text, release) in [
            (
                "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan 8\n# KERNEL_VARIANT: oot\n",
                "R36.4.3",
            ),
            ("# R35 (release), REVISION: 5.0", "R35.5.0"),
            (" something else \nand more", "something else"),
            ("", ""),
        ] {
            assert_eq!(jetson_linux(text), release);
        }
    }

    #[track_caller]
    fn refused(spoil: impl Fn(&Path), words: &str) {
        let cache = tempfile::tempdir().expect("a folder");
        let path = kept(cache.path());
        spoil(&path);
        let refused = wanted().read(cache.path()).expect_err("refused");
        assert_eq!(wanted().check(cache.path()), Err(refused.clone()));
        let fault = refused.to_string();
        assert!(
            fault.contains(words) && fault.contains("tendon engine build"),
            "{fault}"
        );
    }

    fn relabel(path: &Path, from: &str, to: &str) {
        let at = label_path(path);
        let text = std::fs::read_to_string(&at).expect("a label");
        assert!(text.contains(from), "{text}");
        std::fs::write(at, text.replace(from, to)).expect("written");
    }

    #[test]
    fn a_stale_foreign_or_broken_plan_is_refused_with_the_reason() {
        refused(
            |path| std::fs::remove_file(path).expect("gone"),
            "no engine for this stage",
        );
        refused(
            |path| std::fs::remove_file(label_path(path)).expect("gone"),
            "No such file",
        );
        refused(
            |path| std::fs::write(path, b"other").expect("written"),
            "with the hash",
        );
        refused(
            |path| std::fs::write(label_path(path), "{}").expect("written"),
            "missing field",
        );
        refused(
            |path| relabel(path, "10.3.0", "10.7.0"),
            "found TensorRT 10.7.0 on \"Orin\"",
        );
        refused(|path| relabel(path, "\"Orin\"", "\"RTX 4090\""), "RTX 4090");
        refused(
            |path| relabel(path, "\"multiprocessors\": 8", "\"multiprocessors\": 16"),
            "found TensorRT 10.3.0 on \"Orin\" (8.7, 16 multiprocessors",
        );
        refused(
            |path| relabel(path, "\"memory_gib\": 16", "\"memory_gib\": 8"),
            "8 GiB, CUDA 12060, Jetson Linux R36.4.3)",
        );
        refused(
            |path| relabel(path, "R36.4.3", "R36.3.0"),
            "Jetson Linux R36.3.0",
        );
        refused(
            |path| relabel(path, &sha256(b"onnx"), &sha256(b"old")),
            "with the ONNX file",
        );
        refused(
            |path| relabel(path, "--stronglyTyped", "--best"),
            "found --best",
        );
        refused(
            |path| relabel(path, "\"format\": 2", "\"format\": 3"),
            "format 3",
        );
    }
}
