// SPDX-License-Identifier: Apache-2.0
//! What the cameras showed when the policy was last armed, so that an arming notices cameras that have been exchanged meanwhile: a
//! plug in the other socket, nodes in another order. A policy that sees through the wrong camera is sure of itself and wrong.
//!
//! The file is `views-<robot>` in the state directory: one line a camera, its view and its name. It is read at the start and
//! written by the memory thread: nobody who asks for something waits for a disk. While the runtime itself goes on, the same is
//! asked of the cameras of an inference process that was started again ([`Places`]).

use crate::core::camera::skew::Need;
use crate::core::camera::view::{FIELDS, Likeness, View, exchanged};
use crate::core::supervisor::Refused;
use crate::core::units::{MS, Mono};
use crate::runtime::cameras::Watched;
use crate::runtime::durable;
use std::array::from_fn;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Words in which a view crosses to other threads and processes.
pub const WORDS: usize = FIELDS / 8;
/// The longest that such a file may be: more than the longest names of eight cameras need.
const BYTES_MAX: u64 = 64 << 10;

/// The newest view of a camera, for other threads; told before the time of its picture is. Who reads while it is written gets a
/// part of each of two views of one camera, which is a view of it.
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

/// What each of these cameras shows, or showed last.
fn newest(cameras: &[Watched]) -> Vec<Option<View>> {
    let view = |camera: &Watched| {
        // Before the first picture's time is told, its view may be there in part.
        let begun = camera.newest_ns.load(Ordering::Acquire) != 0;
        camera.view.get().filter(|_| begun)
    };
    cameras.iter().map(view).collect()
}

/// What is to be said of two of these cameras.
fn words(cameras: &[Watched], (one, other): (usize, usize), when: &str) -> String {
    let name = |at: usize| cameras.get(at).map_or("", |camera| camera.name.as_str());
    format!(
        "camera \"{}\" shows what \"{}\" showed {when}",
        name(one),
        name(other)
    )
}

/// What the cameras showed cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}: whether cameras are exchanged is not known after a restart; check owner and free space", .path.display())]
pub struct ViewsFault {
    path: PathBuf,
    error: std::io::Error,
}

/// What was seen in a look before an arming.
#[derive(Debug)]
pub struct Look(Vec<Option<View>>);

/// See the module's text.
#[derive(Debug)]
pub struct Views {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    kept: Vec<(String, View)>,
    /// Not on disk yet.
    new: bool,
    /// What an arming was refused for, and nobody has acknowledged.
    refused: Option<String>,
}

impl Views {
    /// Reads those of `robot` in `directory`. A file that cannot be read or understood is told of and is none: it is replaced at
    /// the next arming.
    #[must_use]
    pub fn read(directory: &Path, robot: &str) -> Views {
        let path = directory.join(format!("views-{robot}"));
        let kept = read(&path).unwrap_or_else(|why| {
            log::warn!(
                "{}: {why}: whether cameras were exchanged since the last arming is not known",
                path.display()
            );
            Vec::new()
        });
        Views {
            path,
            known: Mutex::new(Known {
                kept,
                ..Known::default()
            }),
        }
    }

    /// Looks at the cameras before the policy is armed.
    ///
    /// # Errors
    /// [`Refused::CamerasExchanged`], which then stands in [`Views::refused`]; [`Refused::Camera`] where one that is needed and
    /// known has shown nothing yet.
    pub fn look(&self, cameras: &[Watched]) -> Result<Look, Refused> {
        let mut known = self.known();
        let before: Vec<_> = cameras.iter().map(|camera| known.of(camera)).collect();
        let now = newest(cameras);
        let mut each = cameras.iter().zip(&before).zip(&now);
        if each.any(|((camera, before), now)| {
            camera.need == Need::Required && before.is_some() && now.is_none()
        }) {
            return Err(Refused::Camera);
        }
        let pair = exchanged(&before, &now);
        known.refused = pair.map(|pair| words(cameras, pair, "when the robot was last armed"));
        match &known.refused {
            None => Ok(Look(now)),
            Some(words) => {
                log::error!("not armed: {words}");
                Err(Refused::CamerasExchanged)
            }
        }
    }

    /// The policy is armed with what was seen.
    pub fn armed(&self, cameras: &[Watched], look: &Look) {
        let mut known = self.known();
        for (camera, view) in cameras.iter().zip(&look.0) {
            if let Some(view) = view {
                known.keep(camera, *view);
            }
        }
    }

    /// Somebody reset a stop: what was refused before is asked for anew, or not at all.
    pub fn forget_refused(&self) {
        self.known().refused = None;
    }

    /// What the last arming was refused for, if it was.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        self.known().refused.clone()
    }

    /// A person has looked, and says that the cameras are where they should be. Returns whether an arming was refused for it.
    ///
    /// # Errors
    /// A camera of which it is not known what it shows now, in words.
    pub fn acknowledge(&self, cameras: &[Watched]) -> Result<bool, String> {
        let mut known = self.known();
        if known.refused.is_none() {
            return Ok(false);
        }
        let now = newest(cameras);
        let mut each = cameras.iter().zip(&now);
        let unsure = each.find(|(camera, view)| {
            let counts = camera.need == Need::Required || view.is_some();
            counts && (view.is_none() || camera.cause().is_some())
        });
        if let Some((camera, _)) = unsure {
            let why = camera.cause();
            let why = why.map_or("no picture has come", |cause| cause.words());
            return Err(format!(
                "camera \"{}\": {why}: what it shows now is not known; if plugs were changed, start the runtime again",
                camera.name
            ));
        }
        for (camera, view) in cameras.iter().zip(now) {
            if let Some(view) = view {
                known.keep(camera, view);
            }
        }
        known.refused = None;
        Ok(true)
    }

    /// Writes what is not on disk yet; for the memory thread alone.
    ///
    /// # Errors
    /// [`ViewsFault`]; it is tried again at the next call.
    pub fn write(&self) -> Result<(), ViewsFault> {
        let kept = {
            let mut known = self.known();
            if !std::mem::take(&mut known.new) {
                return Ok(());
            }
            known.kept.clone()
        };
        let mut text = String::new();
        for (name, view) in kept {
            text.extend(view.0.iter().map(|field| format!("{field:02x}")));
            text.push(' ');
            text.push_str(&name);
            text.push('\n');
        }
        durable::replace(&self.path, text.as_bytes()).map_err(|error| {
            self.known().new = true;
            ViewsFault {
                path: self.path.clone(),
                error,
            }
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn of(&self, camera: &Watched) -> Option<View> {
        let mut all = self.kept.iter();
        all.find(|(name, _)| *name == camera.name)
            .map(|(_, view)| *view)
    }

    /// One without a pattern would accuse nobody any more: what was known stays.
    fn keep(&mut self, camera: &Watched, view: View) {
        if view.beside(&view) == Likeness::Unknown {
            return;
        }
        self.kept.retain(|(name, _)| *name != camera.name);
        self.kept.push((camera.name.clone(), view));
        self.new = true;
    }
}

fn read(path: &Path) -> Result<Vec<(String, View)>, String> {
    let mut text = String::new();
    match File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text)) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error.to_string()),
    }
    let lines = text.lines().map(|line| {
        let (fields, name) = line.split_once(' ')?;
        Some((name.to_owned(), View(bytes(fields)?)))
    });
    lines.collect::<Option<Vec<_>>>().ok_or_else(|| {
        format!(
            "expected a line of {FIELDS} bytes in hexadecimal digits and a name for each camera"
        )
    })
}

/// First pictures may be dim or glaring, until a camera has found its exposure: for so long they do not settle what it shows.
const EXPOSING_NS: u64 = 2_000 * MS;

/// Whether the cameras of a process are where those of the one before it were.
#[derive(Debug, Default)]
pub struct Places {
    /// What they showed; `None` for one that is settled.
    before: Vec<Option<View>>,
    /// Since when all that are needed have shown something.
    since: Option<Mono>,
    exchanged: Option<(usize, usize)>,
}

impl Places {
    /// The process is gone. What its cameras showed is where those of the next one should be, if that was settled; else it stays
    /// what it was.
    pub fn lost(&mut self, cameras: &[Watched]) {
        self.before.resize(cameras.len(), None);
        (self.since, self.exchanged) = (None, None);
        for (before, showed) in self.before.iter_mut().zip(newest(cameras)) {
            *before = before.or(showed);
        }
        for camera in cameras {
            camera.view.set_words([0; WORDS]);
        }
    }

    /// Two cameras that were exchanged, until the first of them shows again what it showed. Judged from when all that are needed
    /// have shown something, until each shows what it showed, or for a while: one on a wrist may have moved.
    pub fn found(&mut self, cameras: &[Watched], now: Mono) -> Option<(usize, usize)> {
        if self.before.iter().all(Option::is_none) {
            return None;
        }
        let shown = newest(cameras);
        if let Some((one, _)) = self.exchanged {
            let of = |views: &[Option<View>]| views.get(one).copied().flatten();
            let again = of(&shown).zip(of(&self.before));
            if again.is_none_or(|(shown, before)| shown.beside(&before) != Likeness::Alike) {
                return self.exchanged;
            }
            self.exchanged = None;
        }
        let mut each = cameras.iter().zip(&self.before).zip(&shown);
        if each.any(|((camera, before), shown)| {
            camera.need == Need::Required && before.is_some() && shown.is_none()
        }) {
            return None;
        }
        self.exchanged = exchanged(&self.before, &shown);
        if let Some(pair) = self.exchanged {
            let words = words(
                cameras,
                pair,
                "before the inference process was started again",
            );
            log::error!("{words}: the robot stops");
            return self.exchanged;
        }
        let exposed = now.since_ns(*self.since.get_or_insert(now)) > EXPOSING_NS;
        for (before, shown) in self.before.iter_mut().zip(&shown) {
            let settled = before
                .zip(*shown)
                .is_some_and(|(before, shown)| exposed || shown.beside(&before) == Likeness::Alike);
            *before = before.filter(|_| !settled);
        }
        None
    }
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
    use crate::core::governor::reaction::Cause;
    use std::sync::Arc;

    fn camera(name: &str, need: Need) -> Watched {
        Watched {
            name: name.to_owned(),
            need,
            age_max_ns: 0,
            newest_ns: Arc::new(AtomicU64::new(1)),
            refused: Arc::default(),
            counted: Arc::default(),
            fault: Arc::default(),
            view: Arc::default(),
        }
    }

    fn show<const N: usize>(cameras: &[Watched; N], views: [Option<&View>; N]) {
        for (camera, view) in cameras.iter().zip(views) {
            camera.view.set_words([0; WORDS]);
            if let Some(view) = view {
                camera.view.set(view);
            }
        }
    }

    const NOW: Mono = Mono(60_000 * MS);

    fn steep(step: usize) -> View {
        View(from_fn(|at| (10 + at * step % 64 * 3) as u8))
    }

    fn arm(views: &Views, cameras: &[Watched]) {
        let look = views.look(cameras).expect("right");
        views.armed(cameras, &look);
    }

    #[test]
    fn exchanged_cameras_are_refused_until_a_person_says_that_they_are_right() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other, faint) = (steep(1), steep(27), View([7; FIELDS]));
        let cameras = [
            camera("front", Need::Required),
            camera("wrist", Need::Optional),
        ];
        let (right, wrong) = ([Some(&one), Some(&other)], [Some(&other), Some(&one)]);
        let start = || Views::read(folder.path(), "arm");
        let views = start();
        show(&cameras, right);
        arm(&views, &cameras);
        // One that shows nothing, or hardly anything, is known by what it showed before.
        show(&cameras, [Some(&one), None]);
        arm(&views, &cameras);
        show(&cameras, [Some(&faint), Some(&other)]);
        arm(&views, &cameras);
        views.write().expect("written");
        let views = start();
        show(&cameras, right);
        views.look(&cameras).expect("right");
        assert_eq!(
            views.acknowledge(&cameras),
            Ok(false),
            "nothing was refused"
        );
        show(&cameras, [None, Some(&one)]);
        let refused = views
            .look(&cameras)
            .expect_err("it may be seen to be exchanged later");
        assert_eq!(refused, Refused::Camera);
        show(&cameras, wrong);
        let refused = views.look(&cameras).expect_err("exchanged");
        assert_eq!(refused, Refused::CamerasExchanged);
        let said = "camera \"front\" shows what \"wrist\" showed when the robot was last armed";
        assert_eq!(views.refused().as_deref(), Some(said));
        // What is shown by one that is not well is old.
        cameras[1]
            .fault
            .store(Cause::CameraSwapped as u8, Ordering::Relaxed);
        let unsure = views.acknowledge(&cameras).expect_err("not known");
        assert!(
            unsure.starts_with("camera \"wrist\": the camera shows"),
            "{unsure}"
        );
        assert!(views.look(&cameras).is_err());
        cameras[1].fault.store(0, Ordering::Relaxed);
        assert_eq!(views.acknowledge(&cameras), Ok(true));
        views.look(&cameras).expect("acknowledged");
        views.write().expect("written");
        // Put back where they were, they are exchanged again; found right, it is over.
        let views = start();
        show(&cameras, right);
        assert!(views.look(&cameras).is_err());
        show(&cameras, wrong);
        views.look(&cameras).expect("right");
        assert_eq!(views.refused(), None);
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("views-arm");
        let cameras = [
            camera("front", Need::Required),
            camera("side", Need::Required),
        ];
        show(&cameras, [Some(&steep(1)), Some(&steep(27))]);
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
            let why = read(&path).expect_err(&text);
            assert!(why.contains("64 bytes in hexadecimal"), "{why}");
        }
        std::fs::write(&path, [0xff, 0xfe]).expect("written");
        let views = Views::read(folder.path(), "arm");
        arm(&views, &cameras);
        views.write().expect("replaced");
        assert_eq!(read(&path).expect("ours").len(), 2);
        std::fs::remove_file(&path).expect("removed");
        views.write().expect("nothing new");
        assert!(!path.exists());
        // What cannot be written is tried again.
        let views = Views::read(Path::new("/nowhere"), "arm");
        arm(&views, &cameras);
        assert!(views.write().is_err());
        let fault = views.write().expect_err("no such folder").to_string();
        assert!(fault.starts_with("/nowhere/views-arm: "), "{fault}");
    }

    #[test]
    fn cameras_of_a_process_that_was_started_again_are_where_they_were() {
        let (one, other, third) = (steep(1), steep(27), steep(11));
        let cameras = [
            camera("front", Need::Required),
            camera("side", Need::Required),
        ];
        let (right, wrong) = ([Some(&one), Some(&other)], [Some(&other), Some(&one)]);
        let mut places = Places::default();
        show(&cameras, right);
        assert_eq!(places.found(&cameras, NOW), None, "the first process");
        places.lost(&cameras);
        assert_eq!(newest(&cameras), [None, None]);
        show(&cameras, [Some(&other), None]);
        assert_eq!(
            places.found(&cameras, NOW),
            None,
            "not all have shown something"
        );
        // It ends before they do; nobody has said that what it showed is right.
        places.lost(&cameras);
        show(&cameras, wrong);
        assert_eq!(places.found(&cameras, NOW), Some((0, 1)));
        show(&cameras, [Some(&other), Some(&third)]);
        assert_eq!(places.found(&cameras, NOW), Some((0, 1)), "not right yet");
        // That process ends: what its cameras showed is not where they should be.
        places.lost(&cameras);
        show(&cameras, wrong);
        assert_eq!(places.found(&cameras, NOW), Some((0, 1)));
        show(&cameras, [Some(&one), Some(&third)]);
        assert_eq!(places.found(&cameras, NOW), None, "the first is back");
        show(&cameras, wrong);
        assert_eq!(
            places.found(&cameras, NOW),
            None,
            "who judges pictures sees that"
        );
        places.lost(&cameras);
        show(&cameras, wrong);
        assert_eq!(
            places.found(&cameras, NOW),
            None,
            "as the last process had them"
        );
    }

    #[test]
    fn cameras_that_the_robot_can_do_without_are_judged_when_they_come() {
        let (one, other, third) = (steep(1), steep(27), steep(11));
        let cameras = [
            camera("front", Need::Required),
            camera("left", Need::Optional),
            camera("right", Need::Optional),
        ];
        let mut places = Places::default();
        show(&cameras, [Some(&one), Some(&other), Some(&third)]);
        places.lost(&cameras);
        show(&cameras, [Some(&one), None, None]);
        assert_eq!(places.found(&cameras, NOW), None);
        show(&cameras, [Some(&one), Some(&third), None]);
        assert_eq!(places.found(&cameras, NOW), Some((1, 2)));
        // Dim first pictures settle nothing; after a while what they show is what there is.
        for (after_ns, expected) in [(0, Some((1, 2))), (EXPOSING_NS + 1, None)] {
            places.lost(&cameras);
            show(&cameras, [Some(&one), Some(&View([9; FIELDS])), None]);
            assert_eq!(places.found(&cameras, NOW), None);
            assert_eq!(places.found(&cameras, NOW.plus_ns(after_ns)), None);
            show(&cameras, [Some(&one), Some(&third), None]);
            let found = places.found(&cameras, NOW.plus_ns(after_ns));
            assert_eq!(found, expected);
        }
        places = Places::default();
        show(&cameras, [Some(&one), Some(&other), Some(&third)]);
        places.lost(&cameras);
        // Its first picture is not told yet: what stands there may be a part of a view.
        places.lost(&cameras);
        show(&cameras, [Some(&one), Some(&third), None]);
        cameras[1].newest_ns.store(0, Ordering::Relaxed);
        assert_eq!(places.found(&cameras, NOW), None);
    }
}
