// SPDX-License-Identifier: Apache-2.0
//! Small files that must outlive a loss of power: replaced and removed as a whole.

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Result, Write};
use std::path::Path;

/// Replaces the file by one with these bytes: what stands there is the old file or the new one, never a part of one.
/// One at a time: who calls keeps others out.
///
/// # Errors
/// What the system says; the old file then stands.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".new");
    let beside = path.with_file_name(name);
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    sync_folder(path)
}

/// Removes it, if it is there.
///
/// # Errors
/// What the system says.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => sync_folder(path),
    }
}

/// What was made, renamed or removed there stays so.
///
/// # Errors
/// What the system says.
pub fn sync_folder(path: &Path) -> Result<()> {
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("word.json");
        for text in ["first", "second"] {
            replace(&path, text.as_bytes()).expect("replaced");
            assert_eq!(std::fs::read_to_string(&path).expect("read"), text);
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("read").count(), 1);
        remove(&path).expect("removed");
        remove(&path).expect("nothing to do");
        assert!(!path.exists());
        assert!(replace(Path::new("/nowhere/at/all"), b"").is_err());
    }
}
