// SPDX-License-Identifier: Apache-2.0
//! The bundle's folder as a cage: only plain files inside it, of bounded size, with the promised SHA-256.
//!
//! A name with `..`, an absolute one, a symbolic link that leads out, a pipe or a device is refused before it is
//! opened. What [`Folder::read`] returns was hashed after it was read, so that nothing can change in between.

use crate::config::problem::Problem;
use crate::hash::{feed, hex};
use crate::onnx;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// The file that describes the bundle.
pub const MANIFEST: &str = "manifest.json";
/// A manifest is some kilobytes; a megabyte leaves room for a humanoid's.
pub const MANIFEST_BYTES_MAX: u64 = 1 << 20;
/// Largest file of a bundle: the weights of a graph of seven thousand million parameters take 28 GB. Such a file is hashed in
/// pieces; what an engine reads of it at once is that engine's own limit.
pub const FILE_BYTES_MAX: u64 = 64 << 30;
/// Largest statistics, tokenizer or fixture: Gemma's tokenizer.json, the largest in use, has 33 MB.
pub const SIDE_FILE_BYTES_MAX: u64 = 64 << 20;

/// SHA-256 of a file.
pub type Hash = [u8; 32];

/// A bundle's folder and the hashes its manifest promises.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
    /// File name in the manifest -> lower-case hexadecimal SHA-256.
    promised: BTreeMap<String, String>,
}

impl Folder {
    /// Opens a folder. No hash is promised yet.
    ///
    /// # Errors
    /// A [`Problem`] if there is no such folder.
    pub fn open(path: &Path) -> Result<Folder, Problem> {
        let wrong = |found: String| Problem {
            at: path.display().to_string(),
            expected: "a policy bundle (a folder with manifest.json)".into(),
            found,
        };
        let root = path
            .canonicalize()
            .map_err(|error| wrong(error.to_string()))?;
        if !root.is_dir() {
            return Err(wrong("something that is not a folder".into()));
        }
        Ok(Folder {
            root,
            promised: BTreeMap::new(),
        })
    }

    /// Where the folder is, free of symbolic links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The manifest's bytes, which nothing vouches for but itself.
    ///
    /// # Errors
    /// A [`Problem`] if it is missing or too large.
    pub fn read_manifest(&self) -> Result<Vec<u8>, Problem> {
        self.read_bytes(MANIFEST, MANIFEST, MANIFEST_BYTES_MAX)
    }

    /// From now on files must have these hashes.
    pub fn promise(&mut self, sha256: BTreeMap<String, String>) {
        self.promised = sha256;
    }

    /// Checks one promised file by streaming it through the hash. Returns its size in bytes.
    ///
    /// # Errors
    /// A [`Problem`] at `at`: outside the folder, missing, too large, another hash.
    pub fn verify(&self, at: &str, name: &str) -> Result<u64, Problem> {
        let mut file = self
            .open_file(at, name, FILE_BYTES_MAX)?
            .take(FILE_BYTES_MAX + 1);
        let mut hasher = Sha256::new();
        let total = feed(&mut file, &mut hasher).map_err(|error| unreadable(at, name, &error))?;
        self.compare(at, name, hasher.finalize().into())?;
        Ok(total)
    }

    /// The bytes of a promised file; what is returned is what was hashed.
    ///
    /// # Errors
    /// As [`Folder::verify`].
    pub fn read(&self, at: &str, name: &str, bytes_max: u64) -> Result<Vec<u8>, Problem> {
        let bytes = self.read_bytes(at, name, bytes_max)?;
        self.compare(at, name, hash(&bytes))?;
        Ok(bytes)
    }

    /// Where a file lies, for an engine that opens it itself.
    ///
    /// # Errors
    /// A [`Problem`] at `at` if the name leaves the folder or there is no such plain file.
    pub fn locate(&self, at: &str, name: &str) -> Result<PathBuf, Problem> {
        let wrong = |found: String| Problem {
            at: at.into(),
            expected: "the name of a file inside the bundle's folder".into(),
            found,
        };
        let path = Path::new(name);
        let plain = |part| matches!(part, Component::Normal(_));
        if name.is_empty() || name.contains('\0') || !path.components().all(plain) {
            return Err(wrong(format!(
                "\"{}\", which leaves the folder",
                name.escape_debug()
            )));
        }
        let full = self.root.join(path);
        let real = full
            .canonicalize()
            .map_err(|error| unreadable(at, name, &error))?;
        if !real.starts_with(&self.root) {
            return Err(wrong(format!(
                "\"{name}\", a link that leads out of it to {}",
                real.display()
            )));
        }
        // A pipe or a device would block or never end.
        if !real.is_file() {
            return Err(wrong(format!("\"{name}\", which is not a plain file")));
        }
        Ok(real)
    }

    /// Where a graph lies, whose weights outside of it, if there are any, are promised files of the bundle too.
    ///
    /// # Errors
    /// As [`Folder::locate`]; a [`Problem`] at `at` if it is no graph, or has weights that no hash vouches for.
    pub fn locate_graph(&self, at: &str, name: &str) -> Result<PathBuf, Problem> {
        let path = self.locate(at, name)?;
        let beside = onnx::outside(&path).map_err(|found| Problem {
            at: at.into(),
            expected: format!("{name} to be a graph of the bundle"),
            found,
        })?;
        // Beside where the graph really is, which a link in the bundle may tell otherwise.
        let real = path.strip_prefix(&self.root).unwrap_or(&path).to_owned();
        for outside in beside {
            let full = real.with_file_name(outside);
            let outside = full.to_string_lossy();
            if !self.promised.contains_key(&*outside) {
                return Err(Problem {
                    at: "manifest.json: tendon.sha256".into(),
                    expected: format!("the SHA-256 of {outside}, where weights of {name} are"),
                    found: "nothing".into(),
                });
            }
            self.locate(at, &outside)?;
        }
        Ok(path)
    }

    fn open_file(&self, at: &str, name: &str, bytes_max: u64) -> Result<File, Problem> {
        let path = self.locate(at, name)?;
        let file = File::open(path).map_err(|error| unreadable(at, name, &error))?;
        let length = file
            .metadata()
            .map_err(|error| unreadable(at, name, &error))?
            .len();
        if length > bytes_max {
            return Err(too_large(at, name, bytes_max, length));
        }
        Ok(file)
    }

    fn read_bytes(&self, at: &str, name: &str, bytes_max: u64) -> Result<Vec<u8>, Problem> {
        let file = self.open_file(at, name, bytes_max)?;
        let mut bytes = Vec::new();
        // `take`, because the file may grow between the look at its size and the read.
        file.take(bytes_max + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(at, name, &error))?;
        if bytes.len() as u64 > bytes_max {
            return Err(too_large(at, name, bytes_max, bytes.len() as u64));
        }
        Ok(bytes)
    }

    fn compare(&self, at: &str, name: &str, found: Hash) -> Result<(), Problem> {
        let found = hex(&found);
        match self.promised.get(name) {
            Some(promised) if promised.eq_ignore_ascii_case(&found) => Ok(()),
            Some(promised) => Err(Problem {
                at: at.into(),
                expected: format!("{name} with SHA-256 {promised}"),
                found: format!("SHA-256 {found}"),
            }),
            None => Err(Problem {
                at: "manifest.json: tendon.sha256".into(),
                expected: format!("the SHA-256 of {name}, which {at} names"),
                found: "nothing".into(),
            }),
        }
    }
}

/// SHA-256 of bytes in memory.
#[must_use]
pub fn hash(bytes: &[u8]) -> Hash {
    Sha256::digest(bytes).into()
}

/// SHA-256 of a file, which may not fit the memory.
///
/// # Errors
/// It cannot be read.
pub fn hash_file(path: &Path) -> std::io::Result<Hash> {
    let mut digest = Sha256::new();
    feed(File::open(path)?, &mut digest)?;
    Ok(digest.finalize().into())
}

fn unreadable(at: &str, name: &str, error: &std::io::Error) -> Problem {
    Problem {
        at: at.into(),
        expected: format!("a readable file {name} in the bundle"),
        found: error.to_string(),
    }
}

fn too_large(at: &str, name: &str, bytes_max: u64, found: u64) -> Problem {
    Problem {
        at: at.into(),
        expected: format!("{name} of at most {bytes_max} bytes"),
        found: format!("{found} bytes"),
    }
}
