// SPDX-License-Identifier: Apache-2.0
//! The files of a bundle that an import makes: some are made, graphs and their weights are copied without being in memory.

use crate::config::problem::Problem;
use crate::hash::hex;
use crate::onnx;
use crate::policy::folder::{MANIFEST, hash, hash_file};
use crate::policy::import::Fallible;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Files by their names in the bundle.
#[derive(Debug, Default)]
pub(crate) struct Parts(BTreeMap<String, Part>);

#[derive(Debug)]
enum Part {
    Made(Vec<u8>),
    Copied(PathBuf),
}

impl Parts {
    /// A file with these bytes.
    pub(crate) fn made(&mut self, name: impl Into<String>, bytes: Vec<u8>) {
        self.0.insert(name.into(), Part::Made(bytes));
    }

    /// The file in `path`.
    pub(crate) fn copied(&mut self, name: impl Into<String>, path: PathBuf) {
        self.0.insert(name.into(), Part::Copied(path));
    }

    /// The graph in `path`, and what its weights are in if they are not in itself.
    ///
    /// # Errors
    /// A [`Problem`] if it is no graph.
    pub(crate) fn graph(&mut self, name: &str, path: &Path) -> Fallible<()> {
        let beside = onnx::outside(path).map_err(|found| {
            Problem::one(
                path.display().to_string(),
                "a graph, its weights in itself or beside it",
                found,
            )
        })?;
        for weights in beside {
            let full = Path::new(name).with_file_name(&weights);
            let full = full.to_string_lossy().into_owned();
            self.copied(full, path.with_file_name(weights));
        }
        self.copied(name, path.to_owned());
        Ok(())
    }

    /// SHA-256 of each.
    ///
    /// # Errors
    /// A [`Problem`] if a file that is to be copied cannot be read.
    pub(crate) fn sha256(&self) -> Fallible<BTreeMap<String, String>> {
        let one = |(name, part): (&String, &Part)| {
            let hash = match part {
                Part::Made(bytes) => hash(bytes),
                Part::Copied(path) => hash_file(path).map_err(|error| {
                    Problem::one(
                        path.display().to_string(),
                        "a readable file",
                        error.to_string(),
                    )
                })?,
            };
            Ok((name.clone(), hex(&hash)))
        };
        self.0.iter().map(one).collect()
    }

    /// Writes them and the manifest into `out`; half a bundle would pass for a whole one, so nothing stays of it.
    ///
    /// # Errors
    /// A [`Problem`] with what the system said.
    pub(crate) fn write(self, out: &Path, manifest: &Value) -> Fallible<()> {
        let write = || -> io::Result<()> {
            std::fs::create_dir_all(out)?;
            for (name, part) in &self.0 {
                let path = out.join(name);
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                match part {
                    Part::Made(bytes) => std::fs::write(path, bytes)?,
                    Part::Copied(from) => drop(std::fs::copy(from, path)?),
                }
            }
            std::fs::write(out.join(MANIFEST), serde_json::to_vec_pretty(manifest)?)
        };
        write().map_err(|error| {
            let _ = std::fs::remove_dir_all(out);
            Problem::one(
                out.display().to_string(),
                "a folder that can be written",
                error.to_string(),
            )
        })
    }
}
