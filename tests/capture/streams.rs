// SPDX-License-Identifier: Apache-2.0
//! GStreamer for real: its test source, files through decoders, streams over loopback that are killed and come back,
//! eight pipelines at once.

use crate::canary::Canary;
use crate::pictures::{AGE_MAX_NS, CLOCK, Seen, film, percentile, processor_ns, report, went_by};
use crate::stage::{BEYOND_NS, OFTEN_NS, Round, Stage};
use gstreamer::prelude::*;
use gstreamer::{PadProbeReturn, PadProbeType};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tendon::capture::decode::{self, Format};
use tendon::capture::gstreamer::{Camera, SILENT_MAX_NS, START_MAX_NS};
use tendon::capture::retry::{FIRST_NS, LONGEST_NS};
use tendon::capture::{Asked, Kind, OpenFault};
use tendon::core::camera::{Expected, Health};
use tendon::core::units::{MS, Mono};
use tendon::ports::{Frame, Source, SourceFault};
use tendon::runtime::capture::{Look, look, round};
use tendon::runtime::clock;
use tendon::runtime::realtime::{allocations_of_this_thread, take_seat};
use tendon::runtime::threads::CAPTURE;

const PERIOD_NS: u64 = 33_333_333;
/// The longest that the tests leave a camera alone: a question asked in time is late by no more.
const POLL_MS: u64 = 20;
/// What a busy machine may add to a bound that the code keeps, and GStreamer needs to start a pipeline.
pub const BUSY_MS: u64 = 500;
/// From a sender's first sign of life to its first picture here.
pub const ANSWER_MAX_MS: u64 = 1_000;
/// From a sender that is started to a good picture: the longest pause, and what it takes to start and to answer.
const BACK_MAX_MS: u64 = LONGEST_NS / MS + ANSWER_MAX_MS;

fn asked(words: &str, [width, height]: [usize; 2]) -> Asked {
    Asked {
        kind: Kind::Gstreamer(words.to_owned()),
        width,
        height,
        period_ns: PERIOD_NS,
    }
}

pub fn camera(words: &str, size: [usize; 2]) -> Camera {
    Camera::new(words, &asked(words, size), CLOCK).expect("a pipeline")
}

fn live(format: &str, size: [usize; 2]) -> String {
    format!(
        "videotestsrc is-live=true pattern=smpte75 ! video/x-raw,format={format},width={},height={},framerate=30/1",
        size[0], size[1]
    )
}

/// The next picture, however often there is none before it.
#[track_caller]
fn next(source: &mut dyn Source, frame: &mut Frame, within_ms: u64) {
    let deadline = clock::now().plus_ns(within_ms * MS);
    let mut last = None;
    while clock::now() < deadline {
        match source.next_frame(clock::now().plus_ns(POLL_MS * MS), frame) {
            Ok(()) => return,
            Err(fault) => last = Some(fault),
        }
    }
    panic!("no picture within {within_ms} ms: {last:?}");
}

/// Colour at the middle of the first and the last of the seven bars of the SMPTE picture.
pub fn bars(frame: &Frame) -> [[u8; 3]; 2] {
    let at = |x: usize| {
        let start = (frame.height / 4 * frame.width + x) * 3;
        [frame.rgb[start], frame.rgb[start + 1], frame.rgb[start + 2]]
    };
    [at(frame.width / 14), at(frame.width * 13 / 14)]
}

#[test]
fn the_test_source_in_each_format_with_its_times() {
    let size = [320, 240];
    for format in [
        "RGB", "BGR", "NV12", "I420", "YUY2", "UYVY", "Y42B", "Y444", "GRAY8", "RGBx", "BGRx",
        "RGBA", "BGRA",
    ] {
        let mut source = camera(&live(format, size), size);
        let mut frame = Frame::black(size[0], size[1]);
        let mut last = (0, Mono(0));
        for _ in 0..4 {
            next(&mut source, &mut frame, 5_000);
            assert_eq!((frame.width, frame.height), (size[0], size[1]));
            assert!(frame.seq > last.0 && frame.captured > last.1, "{format}");
            let age_ms = frame.received.since_ns(frame.captured) / MS;
            assert!(
                frame.captured <= frame.received && age_ms < 100,
                "{format}: {age_ms} ms old"
            );
            last = (frame.seq, frame.captured);
        }
        // The first bar is light grey, the last blue, both at three quarters of full brightness.
        let [grey, blue] = bars(&frame);
        let near = |found: [u8; 3], want: [u8; 3]| {
            found.iter().zip(want).all(|(a, b)| a.abs_diff(b) <= 12)
        };
        assert!(
            near(grey, [191, 191, 191]) || near(grey, [180, 180, 180]),
            "{format}: {grey:?}"
        );
        if format != "GRAY8" {
            assert!(near(blue, [0, 0, 191]), "{format}: {blue:?}");
            assert_eq!(source.format(), Some(format));
        }
    }
}

/// What an image processor converts, it converts by BT.601, and says nothing of it; others who say nothing mean what GStreamer
/// takes it for, which is BT.709 at this size.
#[test]
fn colours_that_the_stream_does_not_name() {
    let size = [1_280, 720];
    let caps = "video/x-raw,format=NV12,width=1280,height=720,framerate=30/1";
    let first = |drawn: &str, name: &str| {
        let words = format!(
            "videotestsrc is-live=true pattern=smpte75 ! {caps},colorimetry={drawn} ! capssetter replace=true caps=\"{caps}\" ! identity name={name}"
        );
        let mut source = camera(&words, size);
        let mut frame = Frame::black(size[0], size[1]);
        next(&mut source, &mut frame, 5_000);
        // The fourth bar is green, in which the two differ most.
        let start = (frame.height / 4 * frame.width + frame.width * 7 / 14) * 3;
        [frame.rgb[start], frame.rgb[start + 1], frame.rgb[start + 2]]
    };
    for (drawn, name) in [("bt601", "nvsomething"), ("bt709", "another")] {
        let found = first(drawn, name);
        let near = found
            .iter()
            .zip([0, 191, 0])
            .all(|(a, b)| a.abs_diff(b) <= 6);
        assert!(near, "{drawn} {name}: {found:?}");
    }
    let other = first("bt709", "nvsomething");
    assert!(other[0] > 12 || other[2] > 12, "the two differ: {other:?}");
}

#[test]
fn the_newest_picture_is_given_and_nothing_queues() {
    let size = [160, 120];
    let mut source = camera(&live("RGB", size), size);
    let mut frame = Frame::black(size[0], size[1]);
    next(&mut source, &mut frame, 5_000);
    let first = frame.captured;
    // A reader that sleeps through thirty pictures.
    clock::sleep_until(clock::now().plus_ns(1_000 * MS));
    next(&mut source, &mut frame, 5_000);
    let age_ms = clock::now().since_ns(frame.captured) / MS;
    assert!(frame.captured.since_ns(first) > 800 * MS);
    assert!(age_ms < 150, "{age_ms} ms old");
}

/// To the picture, whatever comes between taking one and counting.
#[test]
fn what_a_reader_that_sleeps_passes_over_is_counted() {
    const TAKEN: u64 = 20;
    let size = [160, 120];
    let mut source = camera(&fast(size), size);
    let mut frame = Frame::black(size[0], size[1]);
    next(&mut source, &mut frame, 5_000);
    let came = watched(&source);
    // One that waited in the sink already came unseen.
    next(&mut source, &mut frame, 5_000);
    let (first, before) = (frame.captured, source.counts());
    for n in 0..TAKEN {
        clock::sleep_until(clock::now().plus_ns(n % 4 * 40 * MS));
        next(&mut source, &mut frame, 5_000);
    }
    let (last, after) = (frame.captured, source.counts());
    let known = came.lock().expect("no panic");
    let between = |taken: Mono| taken > first.plus_ns(MS) && taken < last.plus_ns(MS);
    let came = known.iter().filter(|(taken, _)| between(*taken)).count() as u64;
    let stale = after.stale - before.stale;
    println!("of {came} pictures {TAKEN} were taken, {stale} passed over");
    assert_eq!(stale, came - TAKEN);
    assert!(stale > 50, "{stale} in more than a second at 100 Hz");
    assert_eq!(after.missing, 0, "its source numbers them, and all came");
}

/// What an element on the way drops has a number that does not come. Places in a file are no numbers of pictures.
#[test]
fn what_is_lost_on_the_way_is_counted_where_pictures_have_numbers() {
    const LOST: u64 = 10;
    let size = [160, 120];
    for numbered in [true, false] {
        let words = format!("{} ! identity name=lossy", fast(size));
        let mut source = camera(&words, size);
        let mut frame = Frame::black(size[0], size[1]);
        next(&mut source, &mut frame, 5_000);
        let pipeline = source.sink().expect("it runs").parent().expect("one");
        let pipeline = pipeline.downcast::<gstreamer::Pipeline>().expect("one");
        let lossy = pipeline.by_name("lossy").expect("as it was called");
        let pad = lossy.static_pad("src").expect("it has one");
        let lost = Arc::new(AtomicU64::new(0));
        let told = Arc::clone(&lost);
        let probe = pad.add_probe(PadProbeType::BUFFER, move |_, info| {
            let Some(buffer) = info.buffer_mut() else {
                return PadProbeReturn::Ok;
            };
            let number = buffer.offset();
            if !numbered {
                let buffer = buffer.make_mut();
                buffer.set_offset(number * 1_000);
                buffer.set_offset_end(number * 1_000 + 1_000);
            }
            if number.is_multiple_of(3) && told.load(Ordering::Relaxed) < LOST {
                told.fetch_add(1, Ordering::Relaxed);
                return PadProbeReturn::Drop;
            }
            PadProbeReturn::Ok
        });
        assert!(probe.is_some(), "it drops some");
        let until = clock::now().plus_ns(10_000 * MS);
        while lost.load(Ordering::Relaxed) < LOST {
            assert!(clock::now() < until, "{lost:?} dropped");
            next(&mut source, &mut frame, 5_000);
        }
        // That one is missing is seen by its successor, before which one may have waited.
        for _ in 0..3 {
            next(&mut source, &mut frame, 5_000);
        }
        let want = if numbered { LOST } else { 0 };
        assert_eq!(source.counts().missing, want);
    }
}

#[test]
fn words_that_are_no_pipeline_are_refused_and_say_why() {
    for (words, found) in [
        ("no-such-element ! videoconvert", "no-such-element"),
        ("videotestsrc is-live=perhaps", "is-live"),
        ("videotestsrc ! ! videoconvert", ""),
        ("", ""),
    ] {
        match Camera::new(words, &asked(words, [64, 48]), CLOCK) {
            Err(OpenFault::Wrong {
                at, found: said, ..
            }) => {
                assert!(
                    said.contains(found) && at.contains("GStreamer"),
                    "{at}: {said}"
                );
            }
            other => panic!("{words:?} was taken: {other:?}"),
        }
    }
}

#[test]
fn a_size_that_the_pipeline_does_not_give_is_a_camera_that_is_gone() {
    let mut source = camera(&live("RGB", [320, 240]), [640, 480]);
    let mut frame = Frame::black(640, 480);
    let deadline = clock::now().plus_ns(5_000 * MS);
    loop {
        match source.next_frame(clock::now().plus_ns(POLL_MS * MS), &mut frame) {
            Err(SourceFault::Gone("its pipeline failed" | "its pipeline does not start")) => break,
            Err(SourceFault::Timeout | SourceFault::Gone(_)) => {
                assert!(clock::now() < deadline, "it says nothing");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A process that runs a pipeline until it is dropped.
pub struct Launched(pub Child);

impl Launched {
    fn new(words: &str) -> Launched {
        let child = Command::new("gst-launch-1.0")
            .arg("-q")
            .args(words.split_whitespace())
            .stdout(Stdio::null())
            .spawn()
            .expect("gst-launch-1.0, of the package gstreamer1.0-tools");
        Launched(child)
    }

    fn to_the_end(words: &str) {
        let mut launched = Launched::new(words);
        let status = launched.0.wait().expect("ends");
        assert!(status.success(), "{words}");
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_file_through_a_decoder_plays_at_its_pace_and_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("film.avi");
    Launched::to_the_end(&format!(
        "videotestsrc num-buffers=20 pattern=ball ! video/x-raw,width=320,height=240,framerate=20/1 ! jpegenc ! avimux ! \
         filesink location={}",
        file.display()
    ));
    let size = [320, 240];
    // Decoded by GStreamer, and JPEG decoded by us.
    for tail in ["avidemux ! jpegdec", "avidemux"] {
        let words = format!("filesrc location={} ! {tail}", file.display());
        let mut source = camera(&words, size);
        let mut frame = Frame::black(size[0], size[1]);
        next(&mut source, &mut frame, 5_000);
        let first = frame.captured;
        for _ in 0..15 {
            next(&mut source, &mut frame, 5_000);
        }
        let ms = frame.captured.since_ns(first) / MS;
        assert!(
            (650..1_400).contains(&ms),
            "{tail}: fifteen pictures of 20 Hz in {ms} ms"
        );
        let age_ms = frame.received.since_ns(frame.captured) / MS;
        assert!(age_ms < 100, "{tail}: {age_ms} ms old");
        // Past its end, twice: after the first pause it begins anew.
        let mut longest_ms = 0;
        for _ in 0..60 {
            let before = frame.received;
            next(&mut source, &mut frame, 5_000);
            longest_ms = longest_ms.max(frame.received.since_ns(before) / MS);
            if source.counts().starts == 3 {
                break;
            }
        }
        assert_eq!(source.counts().starts, 3, "{tail}: it never ended");
        println!("a file that ends, {tail}: at most {longest_ms} ms without a picture");
        assert!(
            longest_ms <= FIRST_NS / MS + POLL_MS + BUSY_MS,
            "{tail}: {longest_ms} ms without a picture"
        );
    }
}

/// A port that was free a moment ago.
fn port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("an address").port()
}

/// Good pictures come; how long from `since`, in ms.
#[track_caller]
pub fn recovers(source: &mut dyn Source, frame: &mut Frame, since: Mono, within_ms: u64) -> u64 {
    let size = (frame.width, frame.height);
    let expected = Expected {
        width: size.0,
        height: size.1,
        period_ns: None,
        age_max_ns: 500 * MS,
        noisy: false,
        moves: false,
    };
    let mut health = Health::new(expected);
    let deadline = since.plus_ns(within_ms * MS);
    while clock::now() < deadline {
        if look(
            source,
            &mut health,
            clock::now().plus_ns(POLL_MS * MS),
            frame,
        ) == Look::Good
        {
            return clock::now().since_ns(since) / MS;
        }
    }
    panic!(
        "no good picture within {within_ms} ms: {:?}",
        health.fault(clock::now())
    );
}

/// The source says that the camera is gone; after how many ms. Meanwhile it keeps nobody from marking a heartbeat.
#[track_caller]
pub fn gone(source: &mut dyn Source, frame: &mut Frame, within_ms: u64) -> u64 {
    let began = clock::now();
    let deadline = began.plus_ns(within_ms * MS);
    while clock::now() < deadline {
        let asked = clock::now();
        let said = source.next_frame(asked.plus_ns(POLL_MS * MS), frame);
        let took_ms = clock::now().since_ns(asked) / MS;
        assert!(
            took_ms * MS < CAPTURE.beat_age_max_ns,
            "no answer for {took_ms} ms"
        );
        if let Err(SourceFault::Gone(_)) = said {
            return clock::now().since_ns(began) / MS;
        }
    }
    panic!("nobody noticed within {within_ms} ms");
}

#[test]
fn a_stream_over_loopback_is_killed_and_comes_back() {
    let size = [320, 240];
    let port = port();
    let sender = format!(
        "videotestsrc is-live=true pattern=smpte75 ! video/x-raw,format=I420,width=320,height=240,framerate=30/1 ! jpegenc ! rtpjpegpay ! \
         udpsink host=127.0.0.1 port={port}"
    );
    let words = format!(
        "udpsrc address=127.0.0.1 port={port} caps=\"application/x-rtp,media=video,encoding-name=JPEG,payload=26,clock-rate=90000\" \
         ! rtpjitterbuffer latency=20 ! rtpjpegdepay ! jpegdec"
    );
    let mut source = camera(&words, size);
    let mut frame = Frame::black(size[0], size[1]);
    // Nobody sends: a network camera may take its time to begin, and no more.
    let lost_ms = gone(&mut source, &mut frame, START_MAX_NS / MS + BUSY_MS);
    assert!(lost_ms + BUSY_MS > START_MAX_NS / MS, "{lost_ms} ms");
    for round in 0..2 {
        let began = clock::now();
        let launched = Launched::new(&sender);
        let ms = recovers(&mut source, &mut frame, began, BACK_MAX_MS);
        drop(launched);
        // Nobody says goodbye: silence it is.
        let lost_ms = gone(&mut source, &mut frame, SILENT_MAX_NS / MS + BUSY_MS);
        println!(
            "RTP over loopback, round {round}: first good picture {ms} ms after the sender was started, killed and noticed after {lost_ms} ms"
        );
    }
}

#[test]
fn a_connection_that_is_refused_and_then_accepted() {
    let size = [160, 120];
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a port")
        .port();
    let server = format!(
        "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=30/1 ! jpegenc ! multipartmux ! \
         tcpserversink host=127.0.0.1 port={port}"
    );
    let words = format!("tcpclientsrc host=127.0.0.1 port={port} ! multipartdemux ! jpegdec");
    let mut source = camera(&words, size);
    let mut frame = Frame::black(size[0], size[1]);
    gone(&mut source, &mut frame, BUSY_MS);
    for round in 0..2 {
        let began = clock::now();
        let launched = Launched::new(&server);
        let ms = recovers(&mut source, &mut frame, began, BACK_MAX_MS);
        drop(launched);
        // Its connection is closed with it.
        let lost_ms = gone(&mut source, &mut frame, BUSY_MS);
        println!(
            "TCP over loopback, round {round}: first good picture {ms} ms after the server was started, killed and noticed after {lost_ms} ms"
        );
    }
    assert!(source.counts().starts >= 2, "{:?}", source.counts());
}

#[test]
fn a_frame_costs_no_allocation_of_ours() {
    let size = [640, 480];
    for format in ["RGB", "NV12", "RGBx"] {
        let mut source = camera(&live(format, size), size);
        let mut frame = Frame::black(size[0], size[1]);
        for _ in 0..10 {
            next(&mut source, &mut frame, 5_000);
            // Nor does asking too early, after the first time.
            while source.next_frame(clock::now(), &mut frame).is_ok() {}
        }
        let before = allocations_of_this_thread();
        for _ in 0..60 {
            next(&mut source, &mut frame, 5_000);
        }
        assert_eq!(
            allocations_of_this_thread(),
            before,
            "{format}: allocations in sixty frames"
        );
    }
}

/// A picture every 10 ms: none of them is waited for in vain.
fn fast(size: [usize; 2]) -> String {
    live("RGB", size).replace("30/1", "100/1")
}

#[test]
fn what_nobody_takes_does_not_pile_up_on_the_bus() {
    let size = [160, 120];
    let mut source = camera(&fast(size), size);
    let mut frame = Frame::black(size[0], size[1]);
    next(&mut source, &mut frame, 5_000);
    let sink = source.sink().expect("it runs");
    let pipeline = sink.parent().expect("in a pipeline");
    let pipeline = pipeline.downcast::<gstreamer::Pipeline>().expect("one");
    let bus = pipeline.bus().expect("every pipeline has one");
    for _ in 0..10 {
        let told = bus.post(gstreamer::message::Latency::new());
        told.expect("it is open");
    }
    assert!(!bus.have_pending(), "kept for nobody");
}

/// The branch that gives no pictures reports an error after half a second, and the one that does goes on.
#[test]
fn an_error_beside_pictures_that_never_stop_is_noticed() {
    let size = [160, 120];
    let words = format!(
        "videotestsrc is-live=true ! video/x-raw,width=16,height=16,framerate=100/1 ! identity error-after=50 ! \
         fakesink async=false {}",
        fast(size)
    );
    let mut source = camera(&words, size);
    let mut frame = Frame::black(size[0], size[1]);
    let mut pictures = 0;
    let until = clock::now().plus_ns(10_000 * MS);
    let fault = loop {
        assert!(clock::now() < until, "unseen beside {pictures} pictures");
        // A hundred periods: long enough that only an error ends it without a picture.
        match source.next_frame(clock::now().plus_ns(1_000 * MS), &mut frame) {
            Ok(()) => pictures += 1,
            Err(SourceFault::Timeout) => {}
            Err(fault) => break fault,
        }
    };
    assert_eq!(fault, SourceFault::Gone("its pipeline failed"));
    assert!(pictures > 0, "it never gave one");
    assert!(source.sink().is_none(), "it is let go of");
}

/// When each picture came to a camera's sink: its capture time, and the moment.
pub type Came = Arc<Mutex<Vec<(Mono, Mono)>>>;

/// Watches the sink of a camera that runs.
pub fn watched(source: &Camera) -> Came {
    let sink = source.sink().expect("it runs");
    // Not held by its own pad: it would never end.
    let weak = sink.downgrade();
    let came = Came::new(Mutex::new(Vec::with_capacity(1 << 14)));
    let told = Arc::clone(&came);
    let pad = sink.static_pad("sink").expect("every sink has one");
    let probe = pad.add_probe(PadProbeType::BUFFER, move |_, info| {
        let now = clock::now();
        // The base time is there once it plays.
        let stamp = info.buffer().and_then(|buffer| buffer.pts());
        let base = weak.upgrade().and_then(|sink| sink.base_time());
        if let (Some(stamp), Some(base)) = (stamp, base) {
            let taken = Mono((base + stamp).nseconds());
            told.lock().expect("no panic").push((taken, now));
        }
        PadProbeReturn::Ok
    });
    assert!(probe.is_some(), "the sink is watched");
    came
}

/// The same way without Tendon, as a bare loop has it: from a sample that comes to a sink like ours until the thread that asked for
/// it has it. Sorted, ns.
fn bare(words: &str, size: [usize; 2], pictures: usize) -> Vec<u64> {
    // A camera as it is made, so that its pipeline and its sink are ours; but nothing of ours takes the samples.
    let mut source = camera(words, size);
    let mut frame = Frame::black(size[0], size[1]);
    next(&mut source, &mut frame, 5_000);
    let came = watched(&source);
    let sink = source.sink().expect("it runs").clone();
    let patience = gstreamer::ClockTime::from_mseconds(100);
    let mut woken_ns = Vec::with_capacity(pictures);
    while woken_ns.len() < pictures {
        let sample = sink.try_pull_sample(patience).expect("it is live");
        let now = clock::now();
        let stamp = sample.buffer().and_then(|buffer| buffer.pts());
        let taken = stamp
            .zip(sink.base_time())
            .map(|(stamp, base)| base + stamp);
        let known = came.lock().expect("no panic");
        let its = known
            .iter()
            .rev()
            .find(|(at, _)| Some(at.0) == taken.map(|t| t.nseconds()));
        // One that waited in the sink already came unseen.
        if let Some((_, at)) = its {
            woken_ns.push(now.since_ns(*at));
        }
    }
    woken_ns.sort_unstable();
    woken_ns
}

/// From a sample that comes to our sink to the frame in inference's mailbox, as the capture thread takes it there: woken, judged,
/// shown to the page, its time told. Beside each, decoding alone of the same bytes, half a period later, when caches are as cold
/// again. Judged as kernel cameras are (see [`judged`](crate::pictures::judged)): one round of a thousand must keep to the bound. And of
/// a hundred pictures the 99th must keep to it beyond the 99th that a [`bare`] loop gets in the same round: that wait is the machine's.
#[test]
fn a_picture_that_has_come_is_handed_over_at_once() {
    const ROUNDS: usize = 5;
    const PICTURES: usize = 1_000;
    let size = [640, 480];
    let measured = move || {
        // As the capture thread, where that is granted.
        let fifo = take_seat(CAPTURE.fifo, &[]).fifo;
        let words = live("RGB", size).replace("30/1", "125/1");
        let (mut kept, mut kept_beside) = (false, false);
        let mut source = camera(&words, size);
        let mut frame = Frame::black(size[0], size[1]);
        next(&mut source, &mut frame, 5_000);
        let came = watched(&source);
        // One that waited in the sink already came unseen.
        next(&mut source, &mut frame, 5_000);
        let bytes = frame.rgb.clone();
        let mut stage = Stage::new(size, false);
        let mut timed = || {
            let mut times = Round::default();
            let mut tries = 0;
            while times.len() < PICTURES {
                tries += 1;
                assert!(tries < 3 * PICTURES, "hardly a picture is good");
                let deadline = clock::now().plus_ns(100 * MS);
                let before = allocations_of_this_thread();
                let seen = round(&mut source, &mut stage.health, deadline, &mut stage.io);
                let handed = clock::now();
                let allocated = allocations_of_this_thread() - before;
                if seen != Look::Good {
                    continue;
                }
                let captured = Mono(stage.io.told.newest_ns.load(Ordering::Relaxed));
                let known = came.lock().expect("no panic");
                let mut newest_first = known.iter().rev();
                let its = newest_first.find(|(taken, _)| taken.0.abs_diff(captured.0) < MS);
                let (_, at) = *its.expect("what is handed over came to the sink");
                drop(known);
                clock::sleep_until(at.plus_ns(OFTEN_NS / 2));
                let from = clock::now();
                let rows = size[0] * 3;
                let decoded = decode::into_rgb(Format::Rgb3, &bytes, rows, size, &mut stage.alone);
                let decoding_ns = clock::now().since_ns(from);
                assert_eq!(decoded, Ok(()));
                times.took(handed.since_ns(at), decoding_ns, allocated);
            }
            let times = times.sorted();
            println!("GStreamer RGB 640x480, priority {fifo}, {times}");
            times
        };
        for _ in 0..ROUNDS {
            let times = timed();
            let bare_ns = bare(&words, size, PICTURES);
            let [p50_ms, p99_ms] = [0.5, 0.99].map(|share| percentile(&bare_ns, share));
            println!("a bare loop has it after p50 and p99 in ms: {p50_ms:.3} {p99_ms:.3}");
            kept |= times.beyond_judged_ns() <= BEYOND_NS;
            kept_beside |= times.beyond_ms(0.99) - p99_ms <= BEYOND_NS as f64 * 1e-6;
            if kept && kept_beside {
                break;
            }
        }
        [kept, kept_beside]
    };
    let [kept, beside] = std::thread::spawn(measured).join().expect("no panic");
    assert!(
        kept,
        "in none of {ROUNDS} rounds was it within {BEYOND_NS} ns"
    );
    assert!(
        beside,
        "in none of {ROUNDS} rounds was p99 within {BEYOND_NS} ns of a bare loop's"
    );
}

/// What a sensor without an image processor gives, made colours by GStreamer's own converter.
#[test]
fn bayer_patterns() {
    let size = [320, 240];
    for pattern in ["bggr", "gbrg", "grbg", "rggb"] {
        let words = format!(
            "videotestsrc is-live=true pattern=smpte75 ! video/x-bayer,format={pattern},width=320,height=240,framerate=30/1 ! bayer2rgb"
        );
        let mut source = camera(&words, size);
        let mut frame = Frame::black(size[0], size[1]);
        next(&mut source, &mut frame, 5_000);
        let format = source.format().unwrap_or_default();
        assert!(
            ["RGBx", "BGRx", "RGBA", "BGRA"].contains(&format),
            "{format}"
        );
        for (found, want) in bars(&frame).into_iter().zip([[191, 191, 191], [0, 0, 191]]) {
            let near = found
                .iter()
                .zip(want)
                .all(|(a, b): (&u8, u8)| a.abs_diff(b) <= 12);
            assert!(near, "{pattern}: {found:?}, not {want:?}");
        }
        let age_ms = frame.received.since_ns(frame.captured) / MS;
        assert!(age_ms < 100, "{pattern}: {age_ms} ms old");
    }
}

#[test]
fn eight_pipelines_at_once() {
    let size = [640, 480];
    let words = |n: usize| {
        format!(
            "videotestsrc is-live=true pattern={} ! video/x-raw,format=YUY2,width=640,height=480,framerate=30/1",
            ["smpte", "smpte75", "circular", "pinwheel"][n % 4]
        )
    };
    let canary = Canary::start();
    let (mut sources, mut came): (Vec<Box<dyn Source>>, Vec<Came>) = (Vec::new(), Vec::new());
    for n in 0..8 {
        let source = camera(&words(n), size);
        came.push(watched(&source));
        sources.push(Box::new(source));
    }
    let (for_ns, before) = (4_000 * MS, processor_ns());
    let seen = film(sources, size, false, for_ns);
    let lost = report(
        "GStreamer YUY2 640x480@30, drawn by its test source",
        &seen,
        for_ns,
        processor_ns() - before,
        PERIOD_NS,
    );
    let by: Vec<_> = seen
        .iter()
        .zip(&came)
        .map(|(each, came)| {
            let came = came.lock().expect("no panic");
            let excused = |gap: usize| not_to_be_had(&came, each, gap);
            (went_by(each, &canary, PERIOD_NS, excused), late(&came))
        })
        .collect();
    println!("   went by and ours, and how many came late to the sink, each camera: {by:?}");
    // As of kernel cameras: what the machine cannot draw and decode it may lose, a camera that starves beside the others it may not.
    assert!(lost < 0.9, "{lost}");
    for (each, ((_, ours), late)) in seen.iter().zip(by) {
        assert!(each.good > 10, "{} good", each.good);
        assert!(
            each.refused <= late,
            "{} refused, {late} came late",
            each.refused
        );
        assert_eq!(ours, 0, "went by while the thread had a core and time");
    }
}

/// A picture that is so old when it comes to the sink may be too old when it is judged.
const LATE_NS: u64 = AGE_MAX_NS / 2;

/// Pictures that were late before we could have had them.
fn late(came: &[(Mono, Mono)]) -> u64 {
    let late = came
        .iter()
        .filter(|(taken, at)| at.since_ns(*taken) > LATE_NS);
    late.count() as u64
}

/// Of the pictures between two that were taken, those that nobody could have taken: never drawn, come too late, or pushed out of
/// the sink, which holds one, by a successor that came well before its time, as a source makes up for a delay of its own.
fn not_to_be_had(came: &[(Mono, Mono)], seen: &Seen, gap: usize) -> u64 {
    let (from, to) = (seen.captured[gap], seen.captured[gap + 1]);
    let between = |taken: Mono| taken > from.plus_ns(MS) && taken.plus_ns(MS) < to;
    let due = (to.since_ns(from) + PERIOD_NS / 2) / PERIOD_NS;
    let drawn = came.iter().filter(|(taken, _)| between(*taken)).count() as u64;
    let pairs = came.windows(2).filter(|two| between(two[0].0));
    let pushed = pairs.filter(|two| {
        two[0].1.since_ns(two[0].0) > LATE_NS || two[1].1.since_ns(two[0].1) < PERIOD_NS / 10 * 9
    });
    due.saturating_sub(1).saturating_sub(drawn) + pushed.count() as u64
}
