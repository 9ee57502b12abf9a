// SPDX-License-Identifier: Apache-2.0
//! Writes a recording that [`images`](super::images) replays: a folder of JPEG files with the list of when each was taken, between
//! when the whole recording began and ended.

use super::images::{BYTES_MAX, PICTURES_MAX, TIMES, TIMES_HEAD};
use crate::core::units::Mono;
use crate::ports::Frame;
use std::fs::File;
use std::io::{Error, Write};
use std::path::{Path, PathBuf};

/// Little is lost, of pictures that a policy was trained on as JPEG anyway.
const QUALITY: u8 = 95;

/// Of one camera.
#[derive(Debug)]
pub struct Tape {
    folder: PathBuf,
    list: File,
    last: Mono,
    pictures: usize,
    left: u64,
    jpeg: Vec<u8>,
}

impl Tape {
    /// Makes `folder`, which must not be there, and its list. All cameras of a recording have the same `began`.
    ///
    /// # Errors
    /// What the system says.
    pub fn begin(folder: &Path, began: Mono) -> Result<Tape, Error> {
        if let Some(parent) = folder.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::create_dir(folder)?;
        let mut list = File::create_new(folder.join(TIMES))?;
        writeln!(list, "{TIMES_HEAD}\n,{}", began.0)?;
        Ok(Tape {
            folder: folder.to_owned(),
            list,
            last: began,
            pictures: 0,
            left: BYTES_MAX,
            jpeg: Vec::new(),
        })
    }

    /// Keeps a picture, unless it was taken before the last one; whole, or not at all.
    ///
    /// # Errors
    /// What the system says, or that it is as long as can be replayed.
    pub fn keep(&mut self, frame: &Frame) -> Result<(), Error> {
        if frame.captured <= self.last {
            return Ok(());
        }
        self.jpeg.clear();
        let side = |pixels: usize| u16::try_from(pixels).map_err(Error::other);
        let (width, height) = (side(frame.width)?, side(frame.height)?);
        jpeg_encoder::Encoder::new(&mut self.jpeg, QUALITY)
            .encode(&frame.rgb, width, height, jpeg_encoder::ColorType::Rgb)
            .map_err(Error::other)?;
        let bytes = self.jpeg.len() as u64;
        if bytes > self.left || self.pictures == PICTURES_MAX {
            let words = format!(
                "a recording is at most {PICTURES_MAX} pictures and {BYTES_MAX} bytes a camera"
            );
            return Err(Error::other(words));
        }
        let name = format!("{:06}.jpg", self.pictures);
        File::create_new(self.folder.join(&name))?.write_all(&self.jpeg)?;
        // The line comes when the picture is there: a recording that was cut off can be replayed.
        writeln!(self.list, "{name},{}", frame.captured.0)?;
        self.left -= bytes;
        self.pictures += 1;
        self.last = frame.captured;
        Ok(())
    }

    /// Ends it; returns how many pictures it has. All cameras of a recording have the same `ended`.
    ///
    /// # Errors
    /// What the system says.
    pub fn end(mut self, ended: Mono) -> Result<usize, Error> {
        writeln!(self.list, ",{}", ended.0.max(self.last.0 + 1))?;
        self.list.sync_all()?;
        Ok(self.pictures)
    }
}

#[cfg(test)]
mod tests {
    use super::super::images::Images;
    use super::super::images::tests::{CLOCK, NOW, asked};
    use super::*;
    use crate::core::units::MS;
    use crate::ports::Source;

    #[test]
    fn what_was_recorded_is_replayed_beside_what_other_cameras_recorded() {
        let folder = tempfile::tempdir().expect("a folder");
        let (clock_ms, began) = (700 * MS, Mono(700 * MS));
        let mut frame = Frame::black(32, 24);
        let mut made = Vec::new();
        // One began late and misses the end; both keep their distance, from round to round.
        for (name, taken_ms) in [("front", vec![10, 50, 50, 90]), ("wrist", vec![33])] {
            let path = folder.path().join("new").join(name);
            let mut tape = Tape::begin(&path, began).expect("begins");
            for (index, at_ms) in taken_ms.into_iter().enumerate() {
                frame.rgb.fill(40 * index as u8);
                frame.captured = Mono(clock_ms + at_ms * MS);
                tape.keep(&frame).expect("kept");
            }
            made.push((path, tape));
        }
        let mut sources = Vec::new();
        for ((path, tape), pictures) in made.into_iter().zip([3, 1]) {
            assert_eq!(
                tape.end(Mono(clock_ms + 100 * MS)).expect("ended"),
                pictures
            );
            assert!(
                Tape::begin(&path, began).is_err(),
                "nothing is written over"
            );
            sources.push(Images::open(&path, &asked(&path), CLOCK).expect("opens"));
        }
        let start = (CLOCK.replay)().0;
        NOW.set(start);
        let mut next = |n: usize| {
            let mut frame = Frame::black(32, 24);
            let source = &mut sources[n];
            source
                .next_frame(Mono(u64::MAX), &mut frame)
                .expect("a frame");
            ((frame.captured.0 - start) / MS, frame.rgb[1])
        };
        let seen: Vec<(u64, u8)> = (0..4).map(|_| next(0)).collect();
        let times: Vec<u64> = seen.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [10, 50, 90, 110]);
        // The second of two at one moment was left out, and JPEG keeps a grey.
        assert!(
            seen[1].1.abs_diff(40) < 3 && seen[2].1.abs_diff(120) < 3,
            "{seen:?}"
        );
        NOW.set(start);
        let times: Vec<u64> = (0..3).map(|_| next(1).0).collect();
        assert_eq!(times, [33, 133, 233]);
    }
}
