// SPDX-License-Identifier: Apache-2.0
//! Which build this is, for two programs that share memory.
//!
//! A version number does not say it: two builds of one number may come from different sources, and each reads the other's
//! memory by its own. So it is a checksum over the sources of what crosses, made when they are compiled. Features have no part in
//! it: the control program and `tendon-inference` are built from one tree with different ones.

use crc::{CRC_64_XZ, Crc, Table};

macro_rules! sources {
    ($($path:literal),+ $(,)?) => {
        [$(($path, include_bytes!($path).as_slice())),+]
    };
}

/// The two ends, the cells between them, and what goes through these as numbers or in words: its widths, codes and keys.
const SOURCES: [(&str, &[u8]); 18] = sources![
    "child.rs",
    "codec.rs",
    "identity.rs",
    "keeper.rs",
    "mod.rs",
    "plane.rs",
    "process.rs",
    "talk.rs",
    "../../sync/mapping.rs",
    "../../sync/shared.rs",
    "../../config/problem.rs",
    "../../core/governor/reaction.rs",
    "../../core/limits.rs",
    "../../core/wire/mod.rs",
    "../../policy/parity.rs",
    "../../policy/text.rs",
    "../../ports.rs",
    "../places.rs",
];

const CRC: Crc<u64, Table<1>> = Crc::<u64, Table<1>>::new(&CRC_64_XZ);

/// The same in two programs that were built from the same sources.
pub const BUILD: u64 = checksum(&SOURCES);

const fn checksum(mut sources: &[(&str, &[u8])]) -> u64 {
    let crc = CRC;
    let mut digest = crc.digest();
    while let [(_, bytes), rest @ ..] = sources {
        digest.update(bytes);
        sources = rest;
    }
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn every_source_of_the_two_ends_is_in_it() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/runtime/isolation");
        let there: BTreeSet<String> = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        let named = SOURCES.iter().map(|(path, _)| (*path).to_owned());
        let named: BTreeSet<String> = named.filter(|path| !path.contains('/')).collect();
        assert_eq!(named, there);
        assert!(SOURCES.iter().all(|(_, bytes)| !bytes.is_empty()));
    }

    #[test]
    fn another_source_is_another_build() {
        for changed in 0..SOURCES.len() {
            let mut other = SOURCES;
            other[changed].1 = b"other";
            assert_ne!(checksum(&other), BUILD, "{}", SOURCES[changed].0);
        }
        assert_eq!(checksum(&SOURCES), BUILD);
    }
}
