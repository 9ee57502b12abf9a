// SPDX-License-Identifier: Apache-2.0
//! Where ONNX Runtime's library may lie, in the order in which it is looked for.

use std::path::{Path, PathBuf};

/// Names that the system's loader knows it by: that of a package with development files last.
const SONAMES: [&str; 2] = ["libonnxruntime.so.1", "libonnxruntime.so"];

/// Variable that names the library or a folder that holds it.
pub const VARIABLE: &str = "TENDON_ONNXRUNTIME_LIB";

/// What is tried: what `named` names and nothing else, if it names something; else the system's loader, then the
/// site-packages of the active Python environment, the user's and the system's.
#[must_use]
pub fn candidates(named: Option<&Path>) -> Vec<PathBuf> {
    if let Some(named) = named {
        let inside = libraries_in(named);
        return if inside.is_empty() {
            vec![named.to_owned()]
        } else {
            inside
        };
    }
    let mut found: Vec<PathBuf> = SONAMES.iter().map(PathBuf::from).collect();
    for root in python_roots() {
        for packages in ["site-packages", "dist-packages"] {
            for python in sorted(&root.join("lib"), "python3") {
                found.extend(libraries_in(
                    &python.join(packages).join("onnxruntime/capi"),
                ));
            }
            // Debian's own packages stand beside the versions.
            let plain = root.join("lib/python3").join(packages);
            found.extend(libraries_in(&plain.join("onnxruntime/capi")));
        }
    }
    found.dedup();
    found
}

/// Folders that hold `lib/python3.N`.
fn python_roots() -> Vec<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let mut roots: Vec<PathBuf> = from("VIRTUAL_ENV").map(PathBuf::from).into_iter().collect();
    roots.extend(from("CONDA_PREFIX").map(PathBuf::from));
    roots.extend(from("HOME").map(|home| PathBuf::from(home).join(".local")));
    roots.extend(["/usr/local", "/usr"].map(PathBuf::from));
    roots
}

/// Files of the library in a folder, the newest version last in name first here.
fn libraries_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = sorted(folder, "libonnxruntime.so");
    found.reverse();
    found
}

fn sorted(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_the_library_in_it_and_a_name_for_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in [
            "libonnxruntime.so.1.20.0",
            "libonnxruntime_providers_shared.so",
            "other.so",
        ] {
            std::fs::write(folder.path().join(name), "").expect("written");
        }
        assert_eq!(
            candidates(Some(folder.path())),
            [folder.path().join("libonnxruntime.so.1.20.0")]
        );
        let file = Path::new("/nowhere/libonnxruntime.so");
        assert_eq!(candidates(Some(file)), [file]);
    }

    #[test]
    fn the_systems_loader_is_asked_first() {
        let found = candidates(None);
        assert_eq!(found[..2], SONAMES.map(PathBuf::from));
    }
}
