// SPDX-License-Identifier: Apache-2.0
//! Libraries that are found at run time: what the system says when one is not, and what it does not say of one that is there and of
//! another machine.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// This program, where it is.
const OURSELVES: &str = "/proc/self/exe";

/// The system's own words about the library at `path` that did not open; libloading keeps them as the cause. Of a file for another
/// machine the C library says that there is none, so what is there is looked at.
#[must_use]
pub fn words(path: &Path, error: &libloading::Error) -> String {
    use std::error::Error;
    let said = error
        .source()
        .map_or_else(|| error.to_string(), ToString::to_string);
    // A name without a folder is looked for in places that only the system knows.
    let named = path.components().count() > 1;
    let found = Kind::of(path).filter(|_| named);
    match (found, Kind::of(Path::new(OURSELVES))) {
        (Some(found), Some(ours)) if found != ours => format!(
            "{said} (the file is there: expected a library for {ours}, as this program is, found one for {found})"
        ),
        _ => said,
    }
}

/// What an ELF file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    /// `EI_CLASS`: 1 for 32 bits, 2 for 64.
    class: u8,
    /// `e_machine`.
    machine: u16,
}

impl Kind {
    /// By the first bytes of the file; `None` if it is none, cannot be read, or has the other order of bytes: no machine of ours has.
    fn of(path: &Path) -> Option<Kind> {
        const LITTLE_ENDIAN: u8 = 1;
        // Before it is opened: a pipe would be waited for.
        if !path.metadata().ok()?.is_file() {
            return None;
        }
        let mut head = [0; 20];
        File::open(path).ok()?.read_exact(&mut head).ok()?;
        let [0x7f, b'E', b'L', b'F', class, order, .., low, high] = head else {
            return None;
        };
        (order == LITTLE_ENDIAN).then_some(Kind {
            class,
            machine: u16::from_le_bytes([low, high]),
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // elf.h: EM_386, EM_ARM, EM_X86_64, EM_AARCH64, EM_RISCV.
        match self.machine {
            3 => f.write_str("x86")?,
            40 => f.write_str("Arm")?,
            62 => f.write_str("x86-64")?,
            183 => f.write_str("AArch64")?,
            243 => f.write_str("RISC-V")?,
            other => write!(f, "machine {other} of elf.h")?,
        }
        match self.class {
            1 => f.write_str(" with 32 bits"),
            2 => f.write_str(" with 64 bits"),
            other => write!(f, " of class {other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_by_its_head_and_what_is_none_is_not() {
        let ours = Kind::of(Path::new(OURSELVES)).expect("this program is one");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("library.so");
        let kind = |bytes: &[u8]| {
            std::fs::write(&file, bytes).expect("written");
            Kind::of(&file)
        };
        let mut head = vec![0; 20];
        File::open(OURSELVES)
            .and_then(|mut file| file.read_exact(&mut head))
            .expect("read");
        assert_eq!(kind(&head), Some(ours));
        let words = |bytes: &[u8]| kind(bytes).map(|kind| kind.to_string());
        let mut other = head.clone();
        (other[18], other[19]) = (183, 0);
        assert_eq!(words(&other).as_deref(), Some("AArch64 with 64 bits"));
        (other[4], other[18], other[19]) = (1, 40, 0);
        assert_eq!(words(&other).as_deref(), Some("Arm with 32 bits"));
        (other[4], other[18], other[19]) = (3, 0, 1);
        let unknown = "machine 256 of elf.h of class 3";
        assert_eq!(words(&other).as_deref(), Some(unknown));
        assert_eq!(kind(&head[..19]), None, "cut short");
        assert_eq!(kind(b"INPUT(libcuda.so.1) and more"), None, "a script");
        other[5] = 2;
        assert_eq!(kind(&other), None, "the other order of bytes");
        assert_eq!(Kind::of(folder.path()), None, "a folder");
    }
}
