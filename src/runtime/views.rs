// SPDX-License-Identifier: Apache-2.0
//! What the cameras showed when the robot was last armed, so that a start notices cameras that have been exchanged meanwhile: a
//! plug in the other socket, nodes in another order. A policy that sees through the wrong camera is sure of itself and wrong.
//!
//! The file is `views-<robot>` in the state directory: one line a camera, its view and its name. While the runtime itself goes
//! on, the same is asked of the cameras of an inference process that was started again ([`Places`]).

use crate::core::camera::skew::Need;
use crate::core::camera::view::{FIELDS, Likeness, View, exchanged};
use crate::runtime::cameras::Watched;
use crate::runtime::durable;
use std::array::from_fn;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Words in which a view crosses to other threads and processes.
pub const WORDS: usize = FIELDS / 8;
/// The longest that such a file may be.
const BYTES_MAX: u64 = 64 << 10;

/// The newest view of a camera, for other threads. Who reads while it is written gets a part of each of two views of one
/// camera, which is a view of it.
#[derive(Debug, Default)]
pub struct Newest([AtomicU64; WORDS]);

impl Newest {
    /// Tells it.
    pub fn set(&self, view: &View) {
        let (eights, _) = view.0.as_chunks::<8>();
        for (word, eight) in self.0.iter().zip(eights) {
            word.store(u64::from_le_bytes(*eight), Ordering::Relaxed);
        }
    }

    /// Tells it as [`Newest::words`] gave it.
    pub fn set_words(&self, words: [u64; WORDS]) {
        for (word, value) in self.0.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// As it crosses.
    #[must_use]
    pub fn words(&self) -> [u64; WORDS] {
        from_fn(|at| self.0[at].load(Ordering::Relaxed))
    }

    /// What was told; `None` for nothing, or blackness.
    #[must_use]
    pub fn get(&self) -> Option<View> {
        let words = self.words();
        let byte = |at: usize| words[at / 8].to_le_bytes()[at % 8];
        (words != [0; WORDS]).then(|| View(from_fn(byte)))
    }
}

/// What each of these cameras shows now.
#[must_use]
pub fn newest(cameras: &[Watched]) -> Vec<Option<View>> {
    cameras.iter().map(|camera| camera.view.get()).collect()
}

/// What is to be said of two of these cameras.
#[must_use]
pub fn words(cameras: &[Watched], (one, other): (usize, usize), when: &str) -> String {
    let name = |at: usize| cameras.get(at).map_or("", |camera| camera.name.as_str());
    format!(
        "camera \"{}\" shows what \"{}\" showed {when}",
        name(one),
        name(other)
    )
}

/// See the module's text.
#[derive(Debug)]
pub struct Views {
    path: PathBuf,
    /// What an arming was refused for, and nobody has acknowledged.
    refused: Mutex<Option<String>>,
}

impl Views {
    /// Of `robot` in `directory`; nothing is read or written.
    #[must_use]
    pub fn of(directory: &Path, robot: &str) -> Views {
        Views {
            path: directory.join(format!("views-{robot}")),
            refused: Mutex::default(),
        }
    }

    /// Looks at the cameras before an arming. What is wrong stays for [`Views::refused`].
    pub fn look(&self, cameras: &[Watched]) -> Result<(), String> {
        let kept = self.kept();
        let before: Vec<Option<View>> = cameras
            .iter()
            .map(|camera| of(&kept, &camera.name))
            .collect();
        let pair = exchanged(&before, &newest(cameras));
        let found = pair.map(|pair| words(cameras, pair, "when the robot was last armed"));
        self.put(found.clone());
        found.map_or(Ok(()), Err)
    }

    /// What the last arming was refused for, if it was.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        let refused = self.refused.lock();
        refused.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A person has looked, and says that the cameras are where they should be. Returns whether an arming was refused for it.
    ///
    /// # Errors
    /// What the system says; an arming is then refused again.
    pub fn acknowledge(&self, cameras: &[Watched]) -> std::io::Result<bool> {
        if self.refused().is_none() {
            return Ok(false);
        }
        self.keep(cameras)?;
        self.put(None);
        Ok(true)
    }

    /// The robot is armed with the cameras as they are.
    ///
    /// # Errors
    /// What the system says; what was there is there yet.
    pub fn keep(&self, cameras: &[Watched]) -> std::io::Result<()> {
        // One that shows nothing now is known by what it showed before.
        let kept = self.kept();
        let mut text = String::new();
        for camera in cameras {
            let Some(view) = camera.view.get().or_else(|| of(&kept, &camera.name)) else {
                continue;
            };
            text.extend(view.0.iter().map(|field| format!("{field:02x}")));
            text.push(' ');
            text.push_str(&camera.name);
            text.push('\n');
        }
        durable::replace(&self.path, text.as_bytes())
    }

    fn put(&self, found: Option<String>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// Names and views. A file that cannot be read or understood is told of and is none: it is replaced at the next arming.
    fn kept(&self) -> Vec<(String, View)> {
        let mut text = String::new();
        let read =
            File::open(&self.path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
        match read {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                log::warn!(
                    "{}: {error}: whether cameras were exchanged is not known",
                    self.path.display()
                );
                return Vec::new();
            }
        }
        let lines = text.lines().map(|line| {
            let (fields, name) = line.split_once(' ')?;
            Some((name.to_owned(), View(bytes(fields)?)))
        });
        lines.collect::<Option<Vec<_>>>().unwrap_or_else(|| {
            log::warn!(
                "{}: expected a line of {FIELDS} bytes in hexadecimal digits and a name for each camera: whether cameras were \
                 exchanged is not known",
                self.path.display()
            );
            Vec::new()
        })
    }
}

/// Whether the cameras of a process are where those of the one before it were.
#[derive(Debug, Default)]
pub struct Places {
    /// What they showed; nothing once that is decided.
    before: Vec<Option<View>>,
    exchanged: Option<(usize, usize)>,
}

impl Places {
    /// The process is gone. What its cameras show is from now on what those of the next one show, unless they were exchanged: then
    /// it stays what it was.
    pub fn lost(&mut self, cameras: &[Watched]) {
        let right = self.exchanged.take().is_none();
        self.before.resize(cameras.len(), None);
        for (before, camera) in self.before.iter_mut().zip(cameras) {
            // One that had shown nothing leaves what was known.
            let showed = camera.view.get().filter(|_| right);
            *before = showed.or(*before);
            camera.view.set_words([0; WORDS]);
        }
    }

    /// Two cameras that were exchanged, until the first of them shows again what it showed. Decided when all that are needed have
    /// shown something, which is before the policy sees them.
    pub fn found(&mut self, cameras: &[Watched]) -> Option<(usize, usize)> {
        if self.before.is_empty() {
            return None;
        }
        let needed = |camera: &&Watched| camera.need == Need::Required;
        let mut needed = cameras.iter().filter(needed);
        if self.exchanged.is_none() && needed.any(|camera| camera.view.get().is_none()) {
            return None;
        }
        let now = newest(cameras);
        match self.exchanged {
            None => self.exchanged = exchanged(&self.before, &now),
            Some((one, _)) => {
                let of = |views: &[Option<View>]| views.get(one).copied().flatten();
                let again = of(&now).zip(of(&self.before));
                if again.is_none_or(|(now, before)| now.beside(&before) != Likeness::Alike) {
                    return self.exchanged;
                }
                self.exchanged = None;
            }
        }
        match self.exchanged {
            Some(pair) => {
                let words = words(
                    cameras,
                    pair,
                    "before the inference process was started again",
                );
                log::error!("{words}: the robot stops");
            }
            None => self.before.clear(),
        }
        self.exchanged
    }
}

fn of(kept: &[(String, View)], name: &str) -> Option<View> {
    let mut all = kept.iter();
    all.find(|(other, _)| other == name).map(|(_, view)| *view)
}

fn bytes(hex: &str) -> Option<[u8; FIELDS]> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let mut all = [0; FIELDS];
    if pairs.len() != FIELDS || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in all.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn camera(name: &str, view: Option<&View>) -> Watched {
        let camera = Watched {
            name: name.to_owned(),
            need: Need::Required,
            age_max_ns: 0,
            newest_ns: Arc::default(),
            refused: Arc::default(),
            counted: Arc::default(),
            fault: Arc::default(),
            view: Arc::default(),
        };
        if let Some(view) = view {
            camera.view.set(view);
        }
        camera
    }

    fn steep(step: usize) -> View {
        View(from_fn(|at| (10 + at * step % 64 * 3) as u8))
    }

    #[test]
    fn exchanged_cameras_are_refused_until_a_person_says_that_they_are_right() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other) = (steep(1), steep(27));
        let views = || Views::of(folder.path(), "arm");
        let right = [
            camera("front", Some(&one)),
            camera("left wrist", Some(&other)),
        ];
        let wrong = [
            camera("front", Some(&other)),
            camera("left wrist", Some(&one)),
        ];
        assert_eq!(views().look(&wrong), Ok(()), "nothing is known yet");
        views().keep(&right).expect("kept");
        // One that shows nothing is known by what it showed.
        views()
            .keep(&[camera("front", Some(&one)), camera("left wrist", None)])
            .expect("kept");
        let views = views();
        assert_eq!(views.look(&right), Ok(()));
        assert!(
            !views.acknowledge(&wrong).expect("nothing to do"),
            "nothing was refused"
        );
        let said = views.look(&wrong).expect_err("exchanged");
        assert_eq!(
            said,
            "camera \"front\" shows what \"left wrist\" showed when the robot was last armed"
        );
        assert_eq!(views.refused(), Some(said));
        assert!(views.acknowledge(&wrong).expect("kept"));
        assert_eq!(views.look(&wrong), Ok(()));
        // Put back where they were, they are exchanged again; found right, it is over.
        assert!(views.look(&right).is_err());
        assert_eq!(views.look(&wrong), Ok(()));
        assert_eq!(views.refused(), None);
    }

    #[test]
    fn cameras_of_a_process_that_was_started_again_are_where_they_were() {
        let (one, other) = (steep(1), steep(27));
        let cameras = [camera("front", Some(&one)), camera("side", Some(&other))];
        let show = |views: [&View; 2]| {
            for (camera, view) in cameras.iter().zip(views) {
                camera.view.set(view);
            }
        };
        let mut places = Places::default();
        assert_eq!(places.found(&cameras), None, "the first process");
        places.lost(&cameras);
        assert_eq!(cameras[0].view.get(), None);
        cameras[0].view.set(&other);
        assert_eq!(places.found(&cameras), None, "not all have shown something");
        // It ends before they do; what is known stays known.
        cameras[0].view.set_words([0; WORDS]);
        places.lost(&cameras);
        show([&other, &one]);
        assert_eq!(places.found(&cameras), Some((0, 1)));
        show([&other, &steep(11)]);
        assert_eq!(places.found(&cameras), Some((0, 1)), "not right yet");
        // That process ends: what its cameras showed is not where they should be.
        places.lost(&cameras);
        show([&other, &one]);
        assert_eq!(places.found(&cameras), Some((0, 1)));
        show([&one, &steep(11)]);
        assert_eq!(places.found(&cameras), None, "the first is back");
        show([&other, &one]);
        assert_eq!(
            places.found(&cameras),
            None,
            "that is for the one who judges pictures"
        );
        places.lost(&cameras);
        show([&other, &one]);
        assert_eq!(places.found(&cameras), None, "as the last process had them");
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("views-arm");
        let views = Views::of(folder.path(), "arm");
        let cameras = [
            camera("front", Some(&steep(1))),
            camera("side", Some(&steep(27))),
        ];
        let line = "ab".repeat(FIELDS);
        for text in [
            "\n".to_owned(),
            "front".to_owned(),
            format!("{line} front\n{}z side\n", &line[1..]),
            format!("{line}a front\n"),
            format!("{} side", &line[2..]),
            "\u{e9}".repeat(FIELDS) + " front",
        ] {
            std::fs::write(&path, &text).expect("written");
            assert_eq!(views.kept(), [], "{text:?}");
            assert_eq!(views.look(&cameras), Ok(()), "{text:?}");
        }
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        assert_eq!(views.look(&cameras), Ok(()), "no text");
        views.keep(&cameras).expect("replaced");
        assert_eq!(views.kept().len(), 2);
        assert!(
            Views::of(Path::new("/nowhere"), "arm")
                .keep(&cameras)
                .is_err()
        );
    }
}
