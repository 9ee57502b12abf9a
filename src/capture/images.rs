// SPDX-License-Identifier: Apache-2.0
//! JPEG pictures from a folder or a file, given at the camera's rate in real time, from the first again after the last:
//! a camera for tests and for replay. They are read once, at the start.

use super::{Asked, Clock, OpenFault, decode};
use crate::core::units::Mono;
use crate::ports::{Frame, Source, SourceFault};
use std::path::{Path, PathBuf};

/// Bytes of all pictures together.
const BYTES_MAX: u64 = 1 << 30;

/// See the module's text.
pub struct Images {
    pictures: Vec<Vec<u8>>,
    size: [usize; 2],
    period_ns: u64,
    next: Option<Mono>,
    seq: u32,
    clock: Clock,
}

impl Images {
    /// Reads the pictures at `path`: a folder of `.jpg` and `.jpeg` files in the order of their names, or one file of
    /// JPEG pictures one after the other (`ffmpeg -c:v mjpeg -f mjpeg`, `v4l2-ctl --stream-to` in MJPG).
    ///
    /// # Errors
    /// [`OpenFault`] if there is none, or one is not of the size that was asked for.
    pub fn open(path: &Path, asked: &Asked, clock: Clock) -> Result<Images, OpenFault> {
        let wrong = |expected: &str, found: String| OpenFault::Wrong {
            at: path.display().to_string(),
            expected: expected.to_owned(),
            found,
        };
        let readable = |error: std::io::Error| {
            wrong(
                "a folder of JPEG files, or a file of JPEG pictures",
                error.to_string(),
            )
        };
        let pictures = if path.is_dir() {
            let files = jpeg_files(path).map_err(readable)?;
            let read = files.iter().map(|file| read(file));
            read.collect::<Result<Vec<_>, _>>().map_err(readable)?
        } else {
            split(&read(path).map_err(readable)?)
        };
        if pictures.is_empty() {
            return Err(wrong("at least one JPEG picture", "none".to_owned()));
        }
        let size = (asked.width, asked.height);
        for (index, picture) in pictures.iter().enumerate() {
            let found = decode::jpeg_size(picture)
                .map_err(|error| wrong("JPEG pictures", format!("picture {index}: {error}")))?;
            if found != size {
                let expected = format!("pictures of {}x{}", size.0, size.1);
                let found = format!("picture {index} of {}x{}", found.0, found.1);
                return Err(wrong(&expected, found));
            }
        }
        Ok(Images {
            pictures,
            size: [asked.width, asked.height],
            period_ns: asked.period_ns,
            next: None,
            seq: 0,
            clock,
        })
    }
}

impl Source for Images {
    fn next_frame(&mut self, deadline: Mono, frame: &mut Frame) -> Result<(), SourceFault> {
        let now = (self.clock.now)();
        let due = *self.next.get_or_insert(now);
        if due > deadline {
            (self.clock.sleep_until)(deadline);
            return Err(SourceFault::Timeout);
        }
        (self.clock.sleep_until)(due);
        let captured = (self.clock.now)();
        // Who comes too late misses pictures, as with a camera; it does not get them in a burst.
        let late = captured.since_ns(due) / self.period_ns;
        self.next = Some(due.plus_ns((late + 1) * self.period_ns));
        let index = (u64::from(self.seq) + late) % self.pictures.len() as u64;
        self.seq = self.seq.wrapping_add(late as u32).wrapping_add(1);
        let picture = &self.pictures[index as usize];
        decode::into_rgb(decode::Format::Mjpg, picture, 0, self.size, frame)
            .map_err(SourceFault::Broken)?;
        frame.seq = self.seq;
        (frame.captured, frame.received) = (captured, (self.clock.now)());
        Ok(())
    }
}

fn jpeg_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|name| name.to_str());
        if extension.is_some_and(|name| ["jpg", "jpeg", "JPG"].contains(&name)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let bytes = std::fs::metadata(path)?.len();
    if bytes > BYTES_MAX {
        let words = format!("{bytes} bytes, more than {BYTES_MAX}");
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, words));
    }
    std::fs::read(path)
}

/// Cuts where a picture's end meets the next one's start: inside a picture FF D9 FF D8 cannot stand, because a FF in
/// its data is followed by 00 or a restart marker.
fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    const SEAM: [u8; 4] = [0xFF, 0xD9, 0xFF, 0xD8];
    let seams = bytes.windows(SEAM.len()).enumerate();
    let cuts = seams.filter_map(|(at, window)| (window == SEAM).then_some(at + 2));
    let mut out = Vec::new();
    let mut from = 0;
    for cut in cuts.chain([bytes.len()]) {
        if bytes[from..cut].starts_with(&[0xFF, 0xD8]) {
            out.push(bytes[from..cut].to_vec());
        }
        from = cut;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, decode};
    use super::*;
    use crate::core::units::MS;
    use std::cell::Cell;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(1_000 * MS) };
    }

    /// A clock that stands still but for sleeping.
    const CLOCK: Clock = Clock {
        now: || Mono(NOW.get()),
        sleep_until: |at| NOW.set(NOW.get().max(at.0)),
    };

    fn asked(path: &Path) -> Asked {
        Asked {
            kind: Kind::Images(path.to_owned()),
            width: 32,
            height: 24,
            period_ns: 40 * MS,
        }
    }

    fn picture(phase: usize) -> Vec<u8> {
        decode::tests::jpeg_of(&decode::tests::soft(32, 24, phase), 32, 24)
    }

    #[test]
    fn a_folder_is_given_in_order_at_its_rate_and_again() {
        let folder = tempfile::tempdir().expect("a folder");
        for n in 0..3 {
            std::fs::write(folder.path().join(format!("{n}.jpg")), picture(n * 60))
                .expect("written");
        }
        std::fs::write(folder.path().join("readme.txt"), "no picture").expect("written");
        let mut source = Images::open(folder.path(), &asked(folder.path()), CLOCK).expect("opens");
        let mut frame = Frame::black(32, 24);
        let (mut first, start) = (vec![], NOW.get());
        for n in 0..7_u64 {
            source
                .next_frame(Mono(u64::MAX), &mut frame)
                .expect("a frame");
            assert_eq!(
                (u64::from(frame.seq), frame.captured.0),
                (n + 1, start + n * 40 * MS)
            );
            first.push(frame.rgb[1]);
        }
        assert_eq!(first[..3], first[3..6]);
        assert!(first[0] < first[1] && first[1] < first[2], "{first:?}");
    }

    #[test]
    fn who_is_late_misses_pictures() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("film.mjpg");
        std::fs::write(&file, [picture(0), picture(60), picture(120)].concat()).expect("written");
        let mut source = Images::open(&file, &asked(&file), CLOCK).expect("opens");
        assert_eq!(source.pictures.len(), 3);
        let mut frame = Frame::black(32, 24);
        source
            .next_frame(Mono(u64::MAX), &mut frame)
            .expect("a frame");
        NOW.set(NOW.get() + 205 * MS);
        source
            .next_frame(Mono(u64::MAX), &mut frame)
            .expect("a frame");
        assert_eq!(frame.seq, 6, "four were missed");
        let deadline = Mono(NOW.get() + 5 * MS);
        assert_eq!(
            source.next_frame(deadline, &mut frame),
            Err(SourceFault::Timeout)
        );
        assert_eq!(
            NOW.get(),
            deadline.0,
            "it waited until the deadline and no longer"
        );
    }

    #[test]
    fn what_is_not_there_or_not_right_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = |path: &Path, words: &str| {
            let Err(fault) = Images::open(path, &asked(path), CLOCK) else {
                panic!("{} was taken", path.display());
            };
            assert!(fault.to_string().contains(words), "{fault}");
        };
        refused(folder.path(), "found none");
        refused(&folder.path().join("film.mjpg"), "No such file");
        let file = folder.path().join("a.jpg");
        std::fs::write(&file, "text").expect("written");
        refused(&file, "found none");
        refused(folder.path(), "picture 0");
        let large = decode::tests::jpeg_of(&decode::tests::soft(64, 24, 0), 64, 24);
        std::fs::write(&file, large).expect("written");
        refused(folder.path(), "of 64x24");
    }
}
