// SPDX-License-Identifier: Apache-2.0
//! JPEG pictures from a folder or a file, given in real time, from the first again after the last: a camera for tests and
//! for replay. They are read once, at the start.
//!
//! They come at the camera's rate; those of a recording, that is a folder with a list of when each was taken (`times.csv`),
//! with the gaps that they had, and, where the list also says when the recording of all cameras began and ended, with the distance
//! that they had from other cameras' pictures.

use super::{Asked, Clock, OpenFault, decode};
use crate::core::units::Mono;
use crate::ports::{Counts, Frame, Source, SourceFault};
use std::io::{Error, ErrorKind};
use std::path::{Component, Path, PathBuf};

/// Pictures, and bytes of all of them together.
pub(super) const PICTURES_MAX: usize = 1 << 20;
pub(super) const BYTES_MAX: u64 = 1 << 30;
/// The list that makes a folder a recording, its first line, and its bytes.
pub(super) const TIMES: &str = "times.csv";
pub(super) const TIMES_HEAD: &str = "file,captured_ns";
const TIMES_BYTES_MAX: u64 = 1 << 24;
/// From the first picture of a recording to the last: a day.
const RECORDING_MAX_NS: u64 = 86_400_000_000_000;

/// See the module's text.
pub struct Images {
    pictures: Vec<Vec<u8>>,
    /// When each picture is due after the first of its round, from 0 on.
    due_ns: Vec<u64>,
    /// From the first picture to the first again.
    round_ns: u64,
    size: [usize; 2],
    began: Option<Mono>,
    /// Pictures since the beginning, those that were missed too.
    passed: u64,
    stale: u64,
    clock: Clock,
}

impl Images {
    /// Reads the pictures at `path`: a folder of `.jpg` and `.jpeg` files in the order of their names; a folder whose
    /// `times.csv` names them and their times; or one file of JPEG pictures one after the other (`ffmpeg -c:v mjpeg -f
    /// mjpeg`, `v4l2-ctl --stream-to` in MJPG).
    ///
    /// # Errors
    /// [`OpenFault`] if there is none, one is not of the size that was asked for, or the times are not in order.
    pub fn open(path: &Path, asked: &Asked, clock: Clock) -> Result<Images, OpenFault> {
        let size = [asked.width, asked.height];
        let list = path.join(TIMES);
        let recording = if list.symlink_metadata().is_ok() {
            recording(path, &list, size)?
        } else {
            let pictures = pictures(path, size)?;
            let due_ns = (0..pictures.len() as u64).map(|index| index * asked.period_ns);
            Recording {
                due_ns: due_ns.collect(),
                pictures,
                among_others: false,
                round_ns: None,
            }
        };
        let Some(last_ns) = recording.due_ns.last() else {
            return Err(wrong(path, "at least one JPEG picture", "none"));
        };
        let round_ns = recording.round_ns.unwrap_or(last_ns + asked.period_ns);
        Ok(Images {
            round_ns: round_ns.max(1),
            pictures: recording.pictures,
            due_ns: recording.due_ns,
            size,
            began: recording.among_others.then(|| (clock.replay)()),
            passed: 0,
            stale: 0,
            clock,
        })
    }
}

impl Source for Images {
    fn next_frame(&mut self, deadline: Mono, frame: &mut Frame) -> Result<(), SourceFault> {
        let began = *self.began.get_or_insert_with(self.clock.now);
        let count = self.due_ns.len() as u64;
        let due = |number: u64| {
            let within_ns = self.due_ns[(number % count) as usize];
            began.plus_ns(number / count * self.round_ns + within_ns)
        };
        let next = due(self.passed);
        if next > deadline {
            (self.clock.sleep_until)(deadline);
            return Err(SourceFault::Timeout);
        }
        (self.clock.sleep_until)(next);
        // Who comes too late misses pictures, as with a camera; it does not get them in a burst.
        let since_ns = (self.clock.now)().since_ns(began);
        let within_ns = since_ns % self.round_ns;
        let in_round = self.due_ns.partition_point(|due_ns| *due_ns <= within_ns) as u64;
        let number = (since_ns / self.round_ns * count + in_round - 1).max(self.passed);
        frame.captured = due(number);
        self.stale += number - self.passed;
        self.passed = number + 1;
        let picture = &self.pictures[(number % count) as usize];
        decode::into_rgb(decode::Format::Mjpg, picture, 0, self.size, frame)
            .map_err(SourceFault::Broken)?;
        frame.seq = (number as u32).wrapping_add(1);
        frame.received = (self.clock.now)();
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts {
            stale: self.stale,
            starts: u64::from(self.began.is_some()),
            ..Counts::default()
        }
    }
}

fn wrong(at: impl AsRef<Path>, expected: &str, found: impl Into<String>) -> OpenFault {
    OpenFault::Wrong {
        at: at.as_ref().display().to_string(),
        expected: expected.to_owned(),
        found: found.into(),
    }
}

/// The pictures of a folder in the order of their names, or of a file.
fn pictures(path: &Path, size: [usize; 2]) -> Result<Vec<Vec<u8>>, OpenFault> {
    let unreadable = |error: Error| {
        let expected = "a folder of JPEG files, or a file of JPEG pictures";
        wrong(path, expected, error.to_string())
    };
    let few = |count: usize| match count {
        0..=PICTURES_MAX => Ok(()),
        _ => Err(wrong(
            path,
            &format!("at most {PICTURES_MAX} pictures"),
            "more",
        )),
    };
    let mut left = BYTES_MAX;
    if path.is_dir() {
        let files = jpeg_files(path).map_err(unreadable)?;
        few(files.len())?;
        let read = files.iter().map(|file| {
            let bytes = read(file, &mut left).map_err(unreadable)?;
            of_size(&bytes, size, || file.display().to_string()).map(|()| bytes)
        });
        return read.collect();
    }
    let bytes = read(path, &mut left).map_err(unreadable)?;
    let pictures = split(&bytes);
    few(pictures.len())?;
    for (index, picture) in pictures.iter().enumerate() {
        of_size(picture, size, || {
            format!("{}, picture {index}", path.display())
        })?;
    }
    Ok(pictures)
}

/// What a folder holds.
struct Recording {
    pictures: Vec<Vec<u8>>,
    /// When each is due after the beginning.
    due_ns: Vec<u64>,
    /// It began when that of other cameras began.
    among_others: bool,
    /// From its beginning to its end, where it says when that was.
    round_ns: Option<u64>,
}

/// The pictures that `list` names in `folder`, and their times. A first and a last line without a file say when the recording
/// began and ended.
fn recording(folder: &Path, list: &Path, size: [usize; 2]) -> Result<Recording, OpenFault> {
    let unreadable = |error: String| wrong(list, "a list of pictures and their times", error);
    let mut left = TIMES_BYTES_MAX;
    let bytes = read(list, &mut left).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| unreadable(error.to_string()))?;
    let mut lines = text.lines().enumerate();
    let head = lines.next().map_or("", |(_, line)| line);
    if head != TIMES_HEAD {
        let expected = format!("the first line \"{TIMES_HEAD}\"");
        return Err(wrong(list, &expected, quoted(head)));
    }
    let (mut pictures, mut taken_ns) = (Vec::new(), Vec::<u64>::new());
    let (mut began_ns, mut ended_ns) = (None, None);
    left = BYTES_MAX;
    for (index, line) in lines {
        let at = format!("{}:{}", list.display(), index + 1);
        let wrong = |expected: &str, found: String| wrong(&at, expected, found);
        let row = line.rsplit_once(',');
        let (file, time) = row.ok_or_else(|| wrong(TIMES_HEAD, quoted(line)))?;
        if ended_ns.is_some() {
            return Err(wrong("nothing after the line without a file", quoted(line)));
        }
        let time = time.parse::<u64>();
        let time_ns = time.map_err(|_| wrong("a time in whole nanoseconds", quoted(line)))?;
        let before_ns = taken_ns.last().copied().or(began_ns);
        if let Some(before_ns) = before_ns.filter(|before_ns| *before_ns >= time_ns) {
            let expected = format!("a time after that of the line before, {before_ns}");
            return Err(wrong(&expected, time_ns.to_string()));
        }
        let first_ns = began_ns.or(taken_ns.first().copied()).unwrap_or(time_ns);
        if time_ns - first_ns > RECORDING_MAX_NS {
            return Err(wrong(
                "a time at most a day after the first",
                time_ns.to_string(),
            ));
        }
        if file.is_empty() {
            let edge = if before_ns.is_none() {
                &mut began_ns
            } else {
                &mut ended_ns
            };
            *edge = Some(time_ns);
            continue;
        }
        let mut parts = Path::new(file).components();
        let (Some(Component::Normal(_)), None) = (parts.next(), parts.next()) else {
            return Err(wrong("the name of a file in the same folder", quoted(file)));
        };
        if pictures.len() == PICTURES_MAX {
            return Err(wrong(
                &format!("at most {PICTURES_MAX} pictures"),
                "more".into(),
            ));
        }
        let picture = read(&folder.join(file), &mut left)
            .map_err(|error| wrong("a JPEG picture", format!("{}: {error}", quoted(file))))?;
        of_size(&picture, size, || format!("{at}, {}", quoted(file)))?;
        pictures.push(picture);
        taken_ns.push(time_ns);
    }
    let first_ns = began_ns.or(taken_ns.first().copied()).unwrap_or(0);
    let due_ns = taken_ns.iter().map(|time_ns| time_ns - first_ns).collect();
    Ok(Recording {
        pictures,
        due_ns,
        among_others: began_ns.is_some(),
        round_ns: ended_ns.map(|ended_ns| ended_ns - first_ns),
    })
}

/// A text for a message.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.chars().take(80).collect::<String>())
}

/// Whether it is a JPEG picture of that size; `at` says where it is.
fn of_size(picture: &[u8], size: [usize; 2], at: impl FnOnce() -> String) -> Result<(), OpenFault> {
    match decode::jpeg_size(picture) {
        Ok((width, height)) if [width, height] == size => Ok(()),
        Ok((width, height)) => {
            let expected = format!("a picture of {}x{}", size[0], size[1]);
            Err(wrong(at(), &expected, format!("one of {width}x{height}")))
        }
        Err(error) => Err(wrong(at(), "a JPEG picture", error)),
    }
}

fn jpeg_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
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

/// Reads a file of at most `left` bytes, and takes what it read from them.
fn read(path: &Path, left: &mut u64) -> Result<Vec<u8>, Error> {
    let file = std::fs::metadata(path)?;
    // Of a pipe or a device there may be no end.
    if !file.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "no file"));
    }
    if file.len() > *left {
        let words = format!("{} bytes, more than the {left} that are left", file.len());
        return Err(Error::new(ErrorKind::FileTooLarge, words));
    }
    let bytes = std::fs::read(path)?;
    *left = left.saturating_sub(bytes.len() as u64);
    Ok(bytes)
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
pub(super) mod tests {
    use super::super::{Kind, decode};
    use super::*;
    use crate::core::units::MS;
    use std::cell::Cell;

    thread_local! {
        pub(in super::super) static NOW: Cell<u64> = const { Cell::new(1_000 * MS) };
    }

    /// A clock that stands still but for sleeping.
    pub(in super::super) const CLOCK: Clock = Clock {
        now: || Mono(NOW.get()),
        sleep_until: |at| NOW.set(NOW.get().max(at.0)),
        replay: || Mono(900 * MS),
    };

    pub(in super::super) fn asked(path: &Path) -> Asked {
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
        assert_eq!(source.counts().stale, 4);
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
        refused(folder.path(), "a.jpg: expected a JPEG picture");
        let large = decode::tests::jpeg_of(&decode::tests::soft(64, 24, 0), 64, 24);
        std::fs::write(&file, large).expect("written");
        refused(
            folder.path(),
            "a.jpg: expected a picture of 32x24, found one of 64x24",
        );
        refused(
            &file,
            "a.jpg, picture 0: expected a picture of 32x24, found one of 64x24",
        );
        // More than the machine has, and none of it is read.
        let grown = std::fs::File::create(&file).expect("opens");
        grown.set_len(BYTES_MAX + 1).expect("grows");
        refused(&file, "1073741825 bytes, more than the 1073741824");
        std::fs::write(folder.path().join("0.jpg"), picture(0)).expect("written");
        grown.set_len(BYTES_MAX).expect("shrinks");
        refused(folder.path(), "1073741824 bytes, more than the");
    }

    /// A folder of pictures `a.jpg`, `b.jpg` and `c.jpg`, ever brighter, with this list.
    fn recorded(list: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (n, name) in ["a.jpg", "b.jpg", "c.jpg"].iter().enumerate() {
            std::fs::write(folder.path().join(name), picture(n * 60)).expect("written");
        }
        std::fs::write(folder.path().join(TIMES), list).expect("written");
        folder
    }

    #[test]
    fn a_recording_is_given_with_the_gaps_that_it_had() {
        // In the order of the list, which leaves one out and names one twice. The numbers are of another machine's clock.
        let list = "file,captured_ns\nc.jpg,18000000007000000000\na.jpg,18000000007007000000\na.jpg,18000000007300000000\n";
        let folder = recorded(list);
        let mut source = Images::open(folder.path(), &asked(folder.path()), CLOCK).expect("opens");
        let mut frame = Frame::black(32, 24);
        let (mut seen, start) = (vec![], NOW.get());
        for _ in 0..7 {
            source
                .next_frame(Mono(u64::MAX), &mut frame)
                .expect("a frame");
            assert_eq!(frame.captured, Mono(NOW.get()));
            seen.push((frame.seq, (frame.captured.0 - start) / MS, frame.rgb[1]));
        }
        // The first follows the last after the camera's period.
        let (c, a) = (seen[0].2, seen[1].2);
        assert!(a < c, "{a} {c}");
        let due = [
            (1, 0, c),
            (2, 7, a),
            (3, 300, a),
            (4, 340, c),
            (5, 347, a),
            (6, 640, a),
            (7, 680, c),
        ];
        assert_eq!(seen, due);
        // Half a second later the newest is given, with its own time: 680 + 540 = 3 * 340 + 200.
        NOW.set(NOW.get() + 540 * MS);
        source
            .next_frame(Mono(u64::MAX), &mut frame)
            .expect("a frame");
        assert_eq!((frame.seq, frame.captured.0), (11, start + 1_027 * MS));
        assert_eq!(frame.received, Mono(NOW.get()));
    }

    #[test]
    fn a_list_of_times_that_is_not_right_is_refused_by_its_line() {
        let rows = [
            (
                "",
                "times.csv: expected the first line \"file,captured_ns\"",
            ),
            ("a.jpg,1\n", "found \"a.jpg,1\""),
            ("file,captured_ns\n", "found none"),
            (
                "file,captured_ns\na.jpg,1\n\n",
                "times.csv:3: expected file,captured_ns, found \"\"",
            ),
            (
                "file,captured_ns\na.jpg,1\nd.jpg,2\n",
                "times.csv:3: expected a JPEG picture, found \"d.jpg\": No such file",
            ),
            (
                "file,captured_ns\n../a.jpg,1\n",
                "times.csv:2: expected the name of a file in the same folder",
            ),
            (
                "file,captured_ns\n/etc/passwd,1\n",
                "times.csv:2: expected the name of a file in the same folder",
            ),
            ("file,captured_ns\n,1\n,2\n", "found none"),
            (
                "file,captured_ns\n,1\na.jpg,2\n,3\nb.jpg,4\n",
                "times.csv:5: expected nothing after the line without a file",
            ),
            (
                "file,captured_ns\n,2\na.jpg,2\n",
                "times.csv:3: expected a time after that of the line before, 2",
            ),
            (
                "file,captured_ns\na.jpg,1\nb.jpg,1\n",
                "times.csv:3: expected a time after that of the line before, 1, found 1",
            ),
            ("file,captured_ns\na.jpg,5\nb.jpg,4\n", "found 4"),
            (
                "file,captured_ns\na.jpg,-1\n",
                "times.csv:2: expected a time in whole nanoseconds",
            ),
            (
                "file,captured_ns\na.jpg,0.5\n",
                "times.csv:2: expected a time in whole nanoseconds",
            ),
            (
                "file,captured_ns\na.jpg,18446744073709551616\n",
                "times.csv:2: expected a time in whole nanoseconds",
            ),
            (
                "file,captured_ns\na.jpg,0\nb.jpg,18446744073709551615\n",
                "times.csv:3: expected a time at most a day after the first",
            ),
            (
                "file,captured_ns\ntimes.csv,0\n",
                "times.csv:2, \"times.csv\": expected a JPEG picture",
            ),
        ];
        for (list, words) in rows {
            let folder = recorded(list);
            let Err(fault) = Images::open(folder.path(), &asked(folder.path()), CLOCK) else {
                panic!("{list:?} was taken");
            };
            assert!(fault.to_string().contains(words), "{list:?}: {fault}");
        }
        let refused = |folder: &tempfile::TempDir, words: &str| {
            let fault = Images::open(folder.path(), &asked(folder.path()), CLOCK).err();
            let said = fault.map_or_else(String::new, |fault| fault.to_string());
            assert!(said.contains(words), "{said}");
        };
        let folder = recorded("");
        let list = folder.path().join(TIMES);
        std::fs::write(&list, b"file,captured_ns\n\xFF.jpg,1\n").expect("written");
        refused(&folder, "invalid utf-8");
        let grown = std::fs::File::create(&list).expect("opens");
        grown.set_len(TIMES_BYTES_MAX + 1).expect("grows");
        refused(&folder, "16777217 bytes, more than");
        std::fs::remove_file(&list).expect("removed");
        std::fs::create_dir(&list).expect("made");
        refused(&folder, "found no file");
    }
}
