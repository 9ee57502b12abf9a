// SPDX-License-Identifier: Apache-2.0
//! Which files a deployment was read from, and whether they are still what they were: a robot that runs keeps what was read at the
//! start, and is not armed anew while its files say something else.

use crate::config::file::{RobotFile, parse};
use crate::config::space::URDF_BYTES_MAX;
use std::fmt;
use std::path::{Path, PathBuf};

/// As read at the start; of none, for what the program carries itself.
#[derive(Clone, Default)]
pub struct AsRead(Vec<(PathBuf, Vec<u8>)>);

/// Says nothing: what a configuration means is told by what was checked, not by how it was written.
impl fmt::Debug for AsRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsRead")
    }
}

impl AsRead {
    /// Of the texts of `tendon.toml` and `robot.toml`, and the file that the latter names. That one is looked at before it is
    /// read: should it change in between, it is another one later.
    #[must_use]
    pub fn of(tendon: (&Path, &str), robot: (&Path, &str)) -> AsRead {
        let mut files = Vec::new();
        for (path, text) in [tendon, robot] {
            files.push((path.to_owned(), text.as_bytes().to_owned()));
        }
        let (path, text) = robot;
        let named = parse::<RobotFile>("", text).ok().and_then(|written| {
            let folder = path.parent().unwrap_or(Path::new("."));
            Some(folder.join(written.space?.urdf.get_ref()))
        });
        // One that cannot be read is refused by who needs it.
        let named = named.and_then(|path| {
            let text = super::read(&path, URDF_BYTES_MAX).ok()?;
            Some((path, text.into_bytes()))
        });
        files.extend(named);
        AsRead(files)
    }

    /// The first that is not what it was, if any.
    #[must_use]
    pub fn changed(&self) -> Option<&Path> {
        let is = |path: &Path, before: &[u8]| {
            let seen = std::fs::metadata(path).ok();
            let same = |length: u64| length == before.len() as u64;
            seen.is_some_and(|seen| seen.is_file() && same(seen.len()))
                && std::fs::read(path).is_ok_and(|now| now == before)
        };
        let mut all = self.0.iter();
        all.find(|(path, before)| !is(path, before))
            .map(|(path, _)| path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_another_one_is_named_until_it_is_what_it_was() {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/bench");
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let names = ["tendon.toml", "robot.toml", "robot.urdf"];
        for name in names {
            std::fs::copy(bench.join(name), at(name)).expect("copied");
        }
        let text = |name: &str| std::fs::read_to_string(at(name)).expect("there");
        let (tendon, robot) = (at("tendon.toml"), at("robot.toml"));
        let read = AsRead::of(
            (&tendon, &text("tendon.toml")),
            (&robot, &text("robot.toml")),
        );
        assert_eq!(read.changed(), None);
        for name in names {
            let whole = text(name);
            for other in [format!("{whole} "), whole[1..].to_owned(), String::new()] {
                std::fs::write(at(name), other).expect("written");
                assert_eq!(read.changed(), Some(at(name).as_path()));
            }
            std::fs::remove_file(at(name)).expect("removed");
            assert_eq!(read.changed(), Some(at(name).as_path()));
            std::fs::write(at(name), whole).expect("written");
            assert_eq!(read.changed(), None, "put back");
        }
        assert_eq!(AsRead::default().changed(), None);
    }
}
