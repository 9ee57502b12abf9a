// SPDX-License-Identifier: Apache-2.0
//! What the cameras showed when the policy was last armed, so that an arming notices cameras that have been exchanged meanwhile: a
//! plug in the other socket, nodes in another order. A policy that sees through the wrong camera is sure of itself and wrong. One
//! that the robot can do without may first show something later: then it is judged then.
//!
//! The file is `views-<robot>` in the state directory: one line a camera, its view and its name. It is read at the start and
//! written by the memory thread: nobody who asks for something waits for a disk.

use crate::core::camera::skew::Need;
use crate::core::camera::view::{FIELDS, Likeness, View, exchanged};
use crate::core::limits::CAMERAS_MAX;
use crate::core::supervisor::Refused;
use crate::core::units::Mono;
use crate::runtime::cameras::Watched;
use crate::runtime::durable;
use crate::runtime::places::{Places, Stand, newest, words};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The longest that such a file may be: more than the longest names of eight cameras need.
const BYTES_MAX: u64 = 64 << 10;

const WHEN_ARMED: &str = "when the robot was last armed";
const WHEN_AWAY: &str = "before both were away";

/// What the cameras showed cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}: whether cameras are exchanged is not known after a restart; check owner and free space", .path.display())]
pub struct ViewsFault {
    path: PathBuf,
    error: std::io::Error,
}

/// What was seen in a look before an arming.
#[derive(Debug)]
pub struct Look([Option<View>; CAMERAS_MAX]);

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
    /// Of cameras that had shown nothing, or nothing sure, at the last arming.
    late: Places,
    /// Of cameras that move and were away.
    moving: Places,
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
                moving: Places::unknown(),
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
        let pair = exchanged(&before, &now, |_| true);
        known.refused = pair.map(|pair| words(cameras, pair, WHEN_ARMED));
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
        let (mut before, mut stands) = (Vec::new(), Vec::new());
        for (which, (camera, view)) in cameras.iter().zip(&look.0).enumerate() {
            let showed = known.of(camera);
            let likeness = view.zip(showed).map(|(view, showed)| view.beside(&showed));
            let stand = match likeness {
                // It has shown nothing, or nothing that could be told from anything.
                None | Some(Likeness::Unknown) => Stand::Awaited(None),
                // Still finding its exposure, for all that is known.
                Some(Likeness::Unlike) => known.late.stand(which),
                Some(Likeness::Alike) => Stand::Settled,
            };
            before.push(showed.filter(|_| likeness != Some(Likeness::Alike)));
            stands.push(stand);
            if let (Some(view), true) = (view, showed.is_none() || stand == Stand::Settled) {
                known.keep(camera, *view);
            }
        }
        known.late = Places::new(before, stands);
    }

    /// Whether cameras that had shown nothing sure at the last arming have shown since then that they are exchanged, or one that moves
    /// has after it was away. For the watchdog: it waits for nobody, and keeps what it said before while somebody else looks.
    pub fn late(&self, cameras: &[Watched], now: Mono, before: bool) -> bool {
        let mut known = match self.known.try_lock() {
            Ok(known) => known,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return before,
        };
        let (late, moving) = (
            known.late.found(cameras, now),
            known.moving.returned(cameras, now),
        );
        late.or(moving).is_some()
    }

    /// The same in words, for people.
    #[must_use]
    pub fn stopped(&self, cameras: &[Watched]) -> Option<String> {
        let known = self.known();
        let late = known.late.exchanged().map(|pair| (pair, WHEN_ARMED));
        let moving = known.moving.exchanged().map(|pair| (pair, WHEN_AWAY));
        let (pair, when) = late.or(moving)?;
        Some(words(cameras, pair, when))
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

    /// A person has looked, and says that the cameras are where they should be. Returns whether somebody wanted to know.
    ///
    /// # Errors
    /// A camera of which it is not known what it shows now, in words.
    pub fn acknowledge(&self, cameras: &[Watched]) -> Result<bool, String> {
        let mut known = self.known();
        let stopped = known.late.exchanged().or(known.moving.exchanged());
        if known.refused.is_none() && stopped.is_none() {
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
        let missing = |view: &Option<View>| match view {
            None => Stand::Awaited(None),
            Some(_) => Stand::Settled,
        };
        let stands = now.iter().take(cameras.len()).map(missing).collect();
        for (camera, view) in cameras.iter().zip(now) {
            if let Some(view) = view {
                known.keep(camera, view);
            }
        }
        let before = cameras.iter().map(|camera| known.of(camera)).collect();
        (known.refused, known.late) = (None, Places::new(before, stands));
        known.moving = Places::unknown();
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
    use crate::runtime::places::tests::{NOW, away, camera, moving, show, steep};
    use std::sync::atomic::Ordering;

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
    fn one_that_comes_after_the_arming_is_judged_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other, third) = (steep(1), steep(27), steep(11));
        let cameras = [
            camera("front", Need::Required),
            camera("left", Need::Optional),
            camera("right", Need::Optional),
        ];
        let views = Views::read(folder.path(), "arm");
        let right = [Some(&one), Some(&other), Some(&third)];
        show(&cameras, right);
        arm(&views, &cameras);
        assert!(!views.late(&cameras, NOW, true), "none is awaited");
        show(&cameras, [Some(&one), None, None]);
        arm(&views, &cameras);
        assert!(!views.late(&cameras, NOW, false));
        let of_another_thread = views.known();
        assert!(views.late(&cameras, NOW, true), "as before");
        drop(of_another_thread);
        // What the others show now says nothing against the one that comes.
        show(&cameras, [Some(&other), Some(&other), None]);
        assert!(!views.late(&cameras, NOW, false));
        show(&cameras, [Some(&one), None, None]);
        arm(&views, &cameras);
        show(&cameras, [Some(&one), Some(&third), None]);
        assert!(views.late(&cameras, NOW, false));
        let said = "camera \"left\" shows what \"right\" showed when the robot was last armed";
        assert_eq!(views.stopped(&cameras).as_deref(), Some(said));
        assert!(views.look(&cameras).is_err(), "nor is it armed so");
        show(&cameras, right);
        assert!(!views.late(&cameras, NOW, true), "put right");
        assert_eq!(views.stopped(&cameras), None);
        // Or a person says that it is. Of one that still shows nothing he has said nothing.
        show(&cameras, [Some(&one), None, None]);
        arm(&views, &cameras);
        show(&cameras, [Some(&one), Some(&third), None]);
        assert!(views.late(&cameras, NOW, false));
        assert_eq!(views.acknowledge(&cameras), Ok(true));
        assert!(!views.late(&cameras, NOW, true));
        assert_eq!(views.acknowledge(&cameras), Ok(false));
    }

    #[test]
    fn one_that_moves_and_was_away_is_judged_when_it_is_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other, third) = (steep(1), steep(27), steep(11));
        let cameras = [
            moving("left", Need::Required),
            moving("right", Need::Required),
        ];
        let views = Views::read(folder.path(), "arm");
        show(&cameras, [Some(&one), Some(&other)]);
        arm(&views, &cameras);
        let round = |shown| {
            for each in &cameras {
                away(each, true);
            }
            assert!(!views.late(&cameras, NOW, false));
            for each in &cameras {
                away(each, false);
            }
            show(&cameras, shown);
            views.late(&cameras, NOW, false)
        };
        assert!(!views.late(&cameras, NOW, false));
        assert!(!round([Some(&one), Some(&third)]), "it has moved");
        show(&cameras, [Some(&one), Some(&other)]);
        assert!(!views.late(&cameras, NOW, false));
        assert!(round([Some(&other), Some(&one)]), "exchanged");
        let said = "camera \"left\" shows what \"right\" showed before both were away";
        assert_eq!(views.stopped(&cameras).as_deref(), Some(said));
        // A person says that they are right.
        assert_eq!(views.acknowledge(&cameras), Ok(true));
        assert!(!views.late(&cameras, NOW, true));
        assert_eq!(views.stopped(&cameras), None);
        assert!(!round([Some(&other), Some(&one)]), "as they are now");
    }

    #[test]
    fn a_dim_or_glaring_picture_at_the_arming_settles_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (one, other, third, glare) = (steep(1), steep(27), steep(11), steep(19));
        let cameras = [
            camera("front", Need::Required),
            camera("left", Need::Optional),
            camera("right", Need::Optional),
        ];
        let views = Views::read(folder.path(), "arm");
        show(&cameras, [Some(&one), Some(&other), Some(&third)]);
        arm(&views, &cameras);
        // Dim when it is armed.
        show(&cameras, [Some(&one), Some(&View([7; FIELDS])), None]);
        arm(&views, &cameras);
        show(&cameras, [Some(&one), Some(&third), None]);
        assert!(views.late(&cameras, NOW, false));
        // Armed anew while it glares: nor is that what is kept.
        show(&cameras, [Some(&one), None, None]);
        arm(&views, &cameras);
        show(&cameras, [Some(&one), Some(&glare), None]);
        assert!(!views.late(&cameras, NOW, false));
        arm(&views, &cameras);
        show(&cameras, [Some(&one), Some(&third), None]);
        assert!(views.late(&cameras, NOW, false));
        // One that had moved when it was armed tells where another one was.
        show(&cameras, [Some(&one), Some(&other), Some(&third)]);
        arm(&views, &cameras);
        show(&cameras, [Some(&one), Some(&glare), None]);
        arm(&views, &cameras);
        show(&cameras, [Some(&one), Some(&glare), Some(&other)]);
        assert!(views.late(&cameras, NOW, false));
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
}
