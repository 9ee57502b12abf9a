// SPDX-License-Identifier: Apache-2.0
//! Pictures for the tests, eight cameras at once, and figures.

#[cfg(any(feature = "v4l", feature = "gstreamer"))]
use crate::canary::Canary;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tendon::capture::decode::{Format, into_rgb};
use tendon::capture::{Asked, Clock, Kind, open};
use tendon::core::camera::skew::Need;
use tendon::core::camera::{Expected, Health};
use tendon::core::units::{MS, Mono};
use tendon::ports::{Counts, Frame, Source};
use tendon::runtime::cameras::Watched;
use tendon::runtime::capture::{Allocated, CaptureIo, Look, ToPage, ToPolicy, round};
use tendon::runtime::clock;
use tendon::runtime::realtime::allocations_of_this_thread;
use tendon::runtime::reel::{Recent, Reel};
use tendon::sync::mailbox;

pub const CLOCK: Clock = Clock {
    now: clock::now,
    sleep_until: clock::sleep_until,
    replay: clock::now,
};

/// A soft picture with sensor noise; `phase` moves a bar through it.
pub fn scene(width: usize, height: usize, phase: usize) -> Vec<u8> {
    let mut noise = 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(phase as u64 + 1) | 1;
    let mut rgb = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let bar = (x + width - phase * 16 % width) % width < width / 10;
            let base = if bar {
                [200, 60, 50]
            } else {
                [
                    60 + 120 * x / width,
                    50 + 140 * y / height,
                    170 - 90 * x / width,
                ]
            };
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            let grain = (noise >> 32) as usize % 4;
            rgb.extend(base.map(|value| (value + grain) as u8));
        }
    }
    rgb
}

pub fn jpeg(rgb: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut out = Vec::new();
    jpeg_encoder::Encoder::new(&mut out, 85)
        .encode(
            rgb,
            width as u16,
            height as u16,
            jpeg_encoder::ColorType::Rgb,
        )
        .expect("encodes");
    out
}

/// Processor time of this process so far, all threads.
pub fn processor_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Time of this thread that it spent computing, or ready to and without a core, as the kernel counts both. Where it does not
/// count the waiting, only the computing.
pub fn claimed_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let computed_ns = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let waited_ns: Option<u64> = counted
        .split_whitespace()
        .nth(1)
        .and_then(|waited_ns| waited_ns.parse().ok());
    computed_ns + waited_ns.unwrap_or(0)
}

pub fn percentile(sorted: &[u64], share: f64) -> f64 {
    let index = ((sorted.len() as f64 - 1.0) * share).round() as usize;
    sorted.get(index).map_or(f64::NAN, |ns| *ns as f64 * 1e-6)
}

/// An older picture is late.
pub const AGE_MAX_NS: u64 = 150 * MS;

/// Of a camera of which nothing is known yet.
pub fn told() -> Watched {
    Watched {
        name: "front".into(),
        need: Need::Required,
        moves: false,
        age_max_ns: AGE_MAX_NS,
        newest_ns: Arc::default(),
        moments: Arc::default(),
        refused: Arc::default(),
        counted: Arc::default(),
        view: Arc::default(),
        fault: Arc::default(),
    }
}

/// Its judge.
pub fn judge([width, height]: [usize; 2], noisy: bool) -> Health {
    Health::new(Expected {
        width,
        height,
        period_ns: None,
        age_max_ns: AGE_MAX_NS,
        noisy,
        moves: false,
    })
}

/// What one camera's thread saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub good: u64,
    pub refused: u64,
    pub ages_ns: Vec<u64>,
    pub captured: Vec<Mono>,
    /// When each good picture was there.
    pub at: Vec<Mono>,
    /// What the thread had claimed by then, see [`claimed_ns`].
    pub claimed_ns: Vec<u64>,
    /// What the source had counted at the first good picture, and at the last.
    pub counted: Option<(Counts, Counts)>,
}

/// Runs `sources` for `for_ns`, each in its thread with its judge, as the capture threads do; tells what came. The first paces
/// a thread that stands where inference does, which looks at the others' pictures beside, and is shown on a page.
pub fn film(
    sources: Vec<Box<dyn Source>>,
    [width, height]: [usize; 2],
    noisy: bool,
    for_ns: u64,
) -> Vec<Seen> {
    let until = clock::now().plus_ns(for_ns);
    let black = Frame::black(width, height);
    let (frames, mut taken) = mailbox::mailbox(&Recent::new());
    let (shown, mut page) = triple_buffer::triple_buffer(&Recent::new());
    let mut paces = Some((ToPolicy::Paces(frames), ToPage::new(shown)));
    let mut others = Vec::new();
    let mut threads = Vec::new();
    for mut source in sources {
        let (policy, shown) = paces.take().map_or_else(
            || {
                let (beside, seen) = triple_buffer::triple_buffer(&Recent::new());
                others.push(seen);
                (ToPolicy::Beside(beside), None)
            },
            |(policy, shown)| (policy, Some(shown)),
        );
        let mut io = CaptureIo {
            reel: Reel::of_last(&black),
            policy,
            shown,
            told: told(),
            allocated: Allocated::default(),
            ending: Arc::default(),
        };
        let mut health = judge([width, height], noisy);
        threads.push(std::thread::spawn(move || {
            let mut seen = Seen::default();
            while clock::now() < until {
                let deadline = clock::now().plus_ns(20 * MS);
                match round(&mut *source, &mut health, deadline, &mut io) {
                    Look::Good => {
                        let at = clock::now();
                        let captured = Mono(io.told.newest_ns.load(Ordering::Relaxed));
                        seen.good += 1;
                        seen.ages_ns.push(at.since_ns(captured));
                        seen.captured.push(captured);
                        seen.at.push(at);
                        seen.claimed_ns.push(claimed_ns());
                        let counts = source.counts();
                        let (first, _) = seen.counted.unwrap_or((counts, counts));
                        seen.counted = Some((first, counts));
                    }
                    Look::Refused => seen.refused += 1,
                    Look::Nothing => {}
                }
            }
            seen
        }));
    }
    // Inference takes what is newest; telemetry copies what is shown.
    let mut copied = black;
    let (mut given, mut looked) = (0_u64, 0);
    while clock::now() < until {
        let deadline = clock::now().plus_ns(50 * MS);
        if taken.wait_until(deadline, clock::now).is_some() {
            given += 1;
            let newest = others.iter_mut().filter_map(|other| other.read().first());
            looked += newest.map(|frame| u64::from(frame.seq)).sum::<u64>();
        }
        if page.updated() {
            copied.clone_from(page.read().first().expect("one is shown"));
        }
    }
    let seen: Vec<Seen> = threads
        .into_iter()
        .map(|thread| thread.join().expect("no panic"))
        .collect();
    assert!(
        given > 0 && (looked > 0 || others.is_empty()),
        "{given} pictures reached the policy"
    );
    assert!(copied.seq > 0, "none reached the page");
    seen
}

/// Prints one line of figures of a run of several cameras, and returns the share of pictures that did not come.
pub fn report(what: &str, seen: &[Seen], for_ns: u64, processor_ns: u64, period_ns: u64) -> f64 {
    let mut ages: Vec<u64> = seen.iter().flat_map(|each| each.ages_ns.clone()).collect();
    ages.sort_unstable();
    let good: u64 = seen.iter().map(|each| each.good).sum();
    let refused: u64 = seen.iter().map(|each| each.refused).sum();
    let due = for_ns / period_ns * seen.len() as u64;
    println!(
        "{what}: {} cameras, {good} good of {due} due, {refused} refused, processor {:.0} % of one core, capture to \
         hand-over p50 {:.2} p99 {:.2} max {:.2} ms",
        seen.len(),
        processor_ns as f64 / for_ns as f64 * 100.0,
        percentile(&ages, 0.5),
        percentile(&ages, 0.99),
        percentile(&ages, 1.0)
    );
    1.0 - good as f64 / due as f64
}

#[test]
fn eight_folders_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let (width, height) = (320, 240);
    for n in 0..8 {
        let bytes = jpeg(&scene(width, height, n), width, height);
        std::fs::write(folder.path().join(format!("{n}.jpg")), bytes).expect("written");
    }
    let period_ns = 100 * MS;
    let asked = Asked {
        kind: Kind::Images(folder.path().to_owned()),
        width,
        height,
        period_ns,
    };
    let sources = (0..8)
        .map(|_| open(&asked, CLOCK).expect("opens"))
        .collect();
    let (for_ns, before) = (2_000 * MS, processor_ns());
    let seen = film(sources, [width, height], true, for_ns);
    let lost = report(
        "JPEG folder 320x240@10",
        &seen,
        for_ns,
        processor_ns() - before,
        period_ns,
    );
    assert!(
        seen.iter().all(|each| each.refused == 0),
        "a good picture was refused"
    );
    assert!(lost < 0.5, "{lost}");
}

/// The same without its Huffman tables, as many USB cameras send it.
fn without_tables(jpeg: &[u8]) -> Vec<u8> {
    const SCAN: u8 = 0xDA;
    const TABLES: u8 = 0xC4;
    let (mut left, mut rest) = (jpeg[..2].to_vec(), &jpeg[2..]);
    while rest[1] != SCAN {
        let len = 2 + usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        let (segment, behind) = rest.split_at(len);
        if segment[1] != TABLES {
            left.extend_from_slice(segment);
        }
        rest = behind;
    }
    [&left[..], rest].concat()
}

/// The decoder allocates for each picture; what it lacks is put in without one more, of longer and longer pictures, too.
#[test]
fn tables_that_pictures_lack_cost_no_allocation_after_the_first() {
    let size @ [width, height] = [320, 240];
    let mut frame = Frame::black(width, height);
    let mut cost = |bytes: &[u8]| {
        let before = allocations_of_this_thread();
        let decoded = into_rgb(Format::Mjpg, bytes, 0, size, &mut frame);
        assert_eq!(decoded, Ok(()));
        allocations_of_this_thread() - before
    };
    let dark = jpeg(&vec![30; width * height * 3], width, height);
    // The first.
    cost(&without_tables(&dark));
    let mut last = dark.len();
    for picture in [scene(width, height, 0), noise(width * height * 3)] {
        let whole = jpeg(&picture, width, height);
        assert!(whole.len() > last, "{} bytes after {last}", whole.len());
        last = whole.len();
        assert_eq!(cost(&without_tables(&whole)), cost(&whole));
    }
}

/// Bytes that no picture has more of when it is coded.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Which of a hundred pictures must keep a bound in the end: with `TENDON_CAMERAS_QUIET`, for a machine that does nothing else, the
/// 99th. Elsewhere the 50th: what others do delays some, a slow path delays each.
#[cfg(any(feature = "v4l", feature = "gstreamer"))]
pub fn judged() -> f64 {
    match std::env::var_os("TENDON_CAMERAS_QUIET") {
        Some(_) => 0.99,
        None => 0.5,
    }
}

/// Pictures that went by between two that were taken: all of them, and those that nobody but this code is to blame for.
/// `excused` tells for a gap how many of its pictures nobody could have taken.
///
/// A thread that waits for a picture is there for the one after the last it took. To miss n of them it must have been away for
/// n periods: computing, ready and without a core (as the kernel counts it), or with the whole machine standing still (as the
/// canary sees it). A tenth is granted for waking up. What is left of one such absence explains what its successor finds gone
/// too, as old pictures fill the queue behind it.
#[cfg(any(feature = "v4l", feature = "gstreamer"))]
pub fn went_by(
    seen: &Seen,
    canary: &Canary,
    period_ns: u64,
    excused: impl Fn(usize) -> u64,
) -> (u64, u64) {
    let lost: Vec<u64> = seen
        .captured
        .windows(2)
        .map(|two| (two[1].since_ns(two[0]) + period_ns / 2) / period_ns)
        .map(|periods| periods.saturating_sub(1))
        .collect();
    let explained = |gap: usize| {
        let claimed_ns = seen.claimed_ns[gap + 1] - seen.claimed_ns[gap];
        let stood_still_ns = canary.any_ns(seen.at[gap], seen.at[gap + 1]);
        (claimed_ns + stood_still_ns) / (period_ns / 10 * 9) + excused(gap)
    };
    let ours = lost.iter().enumerate().filter(|(_, lost)| **lost > 0);
    let ours = ours.map(|(gap, here)| {
        let before = gap.checked_sub(1);
        let left = before.map_or(0, |gap| explained(gap).saturating_sub(lost[gap]));
        here.saturating_sub(explained(gap) + left)
    });
    (lost.iter().sum(), ours.sum())
}
