// SPDX-License-Identifier: Apache-2.0
//! GStreamer for real: its test source, files through decoders, streams over loopback that are killed and come back,
//! eight pipelines at once.

use crate::pictures::{CLOCK, film, processor_ns, report};
use std::process::{Child, Command, Stdio};
use tendon::capture::gstreamer::Camera;
use tendon::capture::{Asked, Kind, OpenFault, open};
use tendon::core::camera::{Expected, Health};
use tendon::core::units::{MS, Mono};
use tendon::ports::{Frame, Source, SourceFault};
use tendon::runtime::capture::{Look, look};
use tendon::runtime::clock;
use tendon::runtime::realtime::allocations_of_this_thread;

const PERIOD_NS: u64 = 33_333_333;

fn asked(words: &str, [width, height]: [usize; 2]) -> Asked {
    Asked {
        kind: Kind::Gstreamer(words.to_owned()),
        width,
        height,
        period_ns: PERIOD_NS,
    }
}

fn camera(words: &str, size: [usize; 2]) -> Camera {
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
        match source.next_frame(clock::now().plus_ns(20 * MS), frame) {
            Ok(()) => return,
            Err(fault) => last = Some(fault),
        }
    }
    panic!("no picture within {within_ms} ms: {last:?}");
}

/// Colour at the middle of the first and the last of the seven bars of the SMPTE picture.
fn bars(frame: &Frame) -> [[u8; 3]; 2] {
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
        "RGB", "BGR", "NV12", "I420", "YUY2", "UYVY", "Y42B", "Y444", "GRAY8",
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
            assert_eq!(source.format().as_deref(), Some(format));
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
        match source.next_frame(clock::now().plus_ns(20 * MS), &mut frame) {
            Err(SourceFault::Gone("its pipeline failed" | "its pipeline does not start")) => break,
            Err(SourceFault::Timeout | SourceFault::Gone(_)) => {
                assert!(clock::now() < deadline, "it says nothing");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A process that runs a pipeline until it is dropped.
struct Launched(Child);

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
        // Past its end.
        for _ in 0..15 {
            next(&mut source, &mut frame, 5_000);
        }
        assert!(source.counts().losses >= 1, "{tail}: it never ended");
    }
}

/// A port that was free a moment ago.
fn port() -> u16 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("an address").port()
}

/// Good pictures come; how long from `since`, in ms.
#[track_caller]
fn recovers(source: &mut dyn Source, frame: &mut Frame, since: Mono, within_ms: u64) -> u64 {
    let size = (frame.width, frame.height);
    let expected = Expected {
        width: size.0,
        height: size.1,
        period_ns: None,
        age_max_ns: 500 * MS,
        noisy: false,
    };
    let mut health = Health::new(expected);
    let deadline = since.plus_ns(within_ms * MS);
    while clock::now() < deadline {
        if look(source, &mut health, clock::now().plus_ns(20 * MS), frame) == Look::Good {
            return clock::now().since_ns(since) / MS;
        }
    }
    panic!(
        "no good picture within {within_ms} ms: {:?}",
        health.fault(clock::now())
    );
}

/// No good picture for `for_ms`, and the judge calls the camera lost.
#[track_caller]
fn is_lost(source: &mut dyn Source, frame: &mut Frame, within_ms: u64) {
    let deadline = clock::now().plus_ns(within_ms * MS);
    while clock::now() < deadline {
        if let Err(SourceFault::Gone(_)) = source.next_frame(clock::now().plus_ns(20 * MS), frame) {
            return;
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
    for round in 0..2 {
        let began = clock::now();
        let launched = Launched::new(&sender);
        let ms = recovers(&mut source, &mut frame, began, 15_000);
        println!(
            "RTP over loopback, round {round}: first good picture {ms} ms after the sender was started"
        );
        drop(launched);
        is_lost(&mut source, &mut frame, 6_000);
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
    is_lost(&mut source, &mut frame, 5_000);
    for round in 0..2 {
        let began = clock::now();
        let launched = Launched::new(&server);
        let ms = recovers(&mut source, &mut frame, began, 15_000);
        println!(
            "TCP over loopback, round {round}: first good picture {ms} ms after the server was started"
        );
        drop(launched);
        is_lost(&mut source, &mut frame, 6_000);
    }
    assert!(source.counts().losses >= 3, "{:?}", source.counts());
}

#[test]
fn a_frame_costs_no_allocation_of_ours_and_is_handed_over_at_once() {
    let size = [640, 480];
    let mut source = camera(&live("RGB", size), size);
    let mut frame = Frame::black(size[0], size[1]);
    for _ in 0..10 {
        next(&mut source, &mut frame, 5_000);
        // Nor does asking too early, after the first time.
        while source.next_frame(clock::now(), &mut frame).is_ok() {}
    }
    let mut times = Vec::with_capacity(100);
    let before = allocations_of_this_thread();
    for _ in 0..60 {
        next(&mut source, &mut frame, 5_000);
        times.push(frame.received.since_ns(frame.captured));
    }
    assert_eq!(
        allocations_of_this_thread(),
        before,
        "allocations in sixty frames"
    );
    times.sort_unstable();
    println!(
        "GStreamer RGB 640x480: capture to hand-over p50 {:.3} ms, max {:.3} ms",
        times[30] as f64 * 1e-6,
        times[59] as f64 * 1e-6
    );
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
    let sources = (0..8)
        .map(|n| open(&asked(&words(n), size), CLOCK).expect("opens"))
        .collect();
    let (for_ns, before) = (4_000 * MS, processor_ns());
    let seen = film(sources, size, false, for_ns);
    report(
        "GStreamer YUY2 640x480@30, drawn by its test source",
        &seen,
        for_ns,
        processor_ns() - before,
        PERIOD_NS,
    );
    assert!(
        seen.iter().all(|each| each.good + each.refused > 20),
        "a pipeline stands still"
    );
}
