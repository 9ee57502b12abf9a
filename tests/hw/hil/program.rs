// SPDX-License-Identifier: Apache-2.0
//! What the suite starts and needs beside itself. It is shipped as a program of its own, so nothing of where it was built is
//! taken for there, unless cargo runs it.

use crate::asked;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Whether cargo runs this: then the folders that it was built in are there.
pub fn under_cargo() -> bool {
    std::env::var_os("CARGO_MANIFEST_DIR").is_some()
}

/// The program `tendon`: the one that is named, else the one that cargo has just built, else the one beside this program, else the
/// one on PATH.
pub fn tendon() -> PathBuf {
    if let Some(named) = asked("TENDON_HIL_TENDON") {
        let named = PathBuf::from(named);
        // A path holds in any folder, a name is looked for on PATH.
        return match named.components().count() {
            1 => named,
            _ => std::path::absolute(&named).unwrap_or(named),
        };
    }
    if under_cargo() {
        return PathBuf::from(env!("CARGO_BIN_EXE_tendon"));
    }
    let beside = std::env::current_exe().map(|own| own.with_file_name("tendon"));
    let beside = beside.ok().filter(|beside| beside.is_file());
    beside.unwrap_or_else(|| PathBuf::from("tendon"))
}

/// Which that is, in words.
///
/// # Errors
/// There is none, or it is of another version than this suite: what it shows would be of something else.
pub fn version() -> Result<String, String> {
    let program = tendon();
    let fix = "name the program by TENDON_HIL_TENDON";
    let output = Command::new(&program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}; {fix}", program.display()))?;
    let found = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let expected = concat!("tendon ", env!("CARGO_PKG_VERSION"));
    if found != expected {
        return Err(format!(
            "{}: expected {expected}, as this suite is, found \"{found}\"; {fix}",
            program.display()
        ));
    }
    Ok(format!("{found}, {}", program.display()))
}

/// The shipped policy, for the bench's deployment: of the checkout, or as installed.
///
/// # Errors
/// Where it was looked for.
pub fn bundle() -> Result<PathBuf, String> {
    const INSTALLED: &str = "share/tendon/engines/bench-vla";
    let own = std::env::current_exe().unwrap_or_default();
    // Beside bin, or beside lib/tendon.
    let above = own.ancestors().skip(2).take(2);
    let mut places = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("engines/bench-vla")];
    places.extend(above.map(|folder| folder.join(INSTALLED)));
    let found = places
        .iter()
        .find(|place| place.join("manifest.json").is_file());
    found.cloned().ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        format!(
            "the bench's deployment: expected the shipped policy in {}, found none; of a robot: TENDON_HIL",
            places.join(" or ")
        )
    })
}
