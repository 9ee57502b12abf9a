// SPDX-License-Identifier: Apache-2.0
//! A camera on the network: GStreamer's own RTSP server in a process of its own (rtsp_camera.c), its pictures, JPEG and H.264, through
//! our whole source, and what becomes of them when the server is not there, is killed, or stands still.

use crate::compile::compile;
use crate::pictures::percentile;
use crate::streams::{ANSWER_MAX_MS, BUSY_MS, Launched, bars, camera, gone, recovers};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use tendon::capture::gstreamer::SILENT_MAX_NS;
use tendon::capture::retry::LONGEST_NS;
use tendon::core::camera::{Expected, Health};
use tendon::core::units::{MS, Mono};
use tendon::ports::{Frame, Source};
use tendon::runtime::capture::{Look, look};
use tendon::runtime::clock;

const SIZE: [usize; 2] = [320, 240];
const PERIOD_NS: u64 = 33_333_333;
/// From a server that listens to a good picture: the longest pause, and its answers.
const BACK_MAX_MS: u64 = LONGEST_NS / MS + ANSWER_MAX_MS;

struct Server {
    process: Launched,
    port: u16,
}

/// What a stream is coded by, and what makes pictures of it here.
#[derive(Clone, Copy)]
struct Coding {
    encoder: &'static str,
    decoding: &'static str,
}

const JPEG: Coding = Coding {
    encoder: "jpegenc",
    decoding: "rtpjpegdepay ! jpegdec",
};
/// Decoded by us.
const BARE_JPEG: Coding = Coding {
    encoder: "jpegenc",
    decoding: "rtpjpegdepay",
};

/// As the documentation has it, where this machine has the elements; or others that do the same.
fn h264() -> Option<Coding> {
    gstreamer::init().expect("GStreamer");
    let is_there = |name: &str| gstreamer::ElementFactory::find(name).is_some();
    let mut encoders = ["openh264enc", "x264enc"].into_iter();
    let mut decoders = [
        ("avdec_h264", "rtph264depay ! avdec_h264"),
        ("openh264dec", "rtph264depay ! h264parse ! openh264dec"),
    ]
    .into_iter();
    let encoder = encoders.find(|name| is_there(name));
    let decoder = decoders.find(|(name, _)| is_there(name));
    match (encoder, decoder) {
        (Some(encoder), Some((_, decoding))) => Some(Coding { encoder, decoding }),
        (encoder, _) => {
            let lacks = match encoder {
                Some(_) => "avdec_h264 (gstreamer1.0-libav) and openh264dec",
                None => "openh264enc (gstreamer1.0-plugins-bad) and x264enc",
            };
            println!("skipped, H.264: this machine has neither {lacks} of GStreamer");
            None
        }
    }
}

impl Server {
    /// On this port (0: any), ready for who asks.
    fn start(port: u16, jitter_ms: u32, coding: Coding) -> Server {
        static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
            let flags = Command::new("pkg-config")
                .args(["--cflags", "--libs", "gstreamer-rtsp-server-1.0"])
                .output()
                .expect("pkg-config");
            assert!(
                flags.status.success(),
                "expected libgstrtspserver-1.0-dev, which tests/capture/run.sh installs"
            );
            let flags = String::from_utf8(flags.stdout).expect("text");
            let flags: Vec<&str> = flags.split_whitespace().collect();
            compile("tests/capture/rtsp_camera.c", "rtsp_camera", &flags)
        });
        let child = Command::new(&*PROGRAM)
            .args([port.to_string(), jitter_ms.to_string()])
            .arg(coding.encoder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = Launched(child.expect("starts"));
        let mut said = String::new();
        let out = process.0.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut said).expect("text");
        let port = said.trim().strip_prefix("port ").map(str::parse);
        let port = port.expect("it listens").expect("a number");
        Server { process, port }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.0), signal).expect("it runs");
    }
}

fn words(port: u16, transport: &str, coding: Coding) -> String {
    format!(
        "rtspsrc location=rtsp://127.0.0.1:{port}/camera latency=0 protocols={transport} ! {}",
        coding.decoding
    )
}

/// When the picture says that it was drawn; garbage of one that is upside down, mirrored or torn.
fn drawn(frame: &Frame) -> Mono {
    let bits = (0..60).map(|n| {
        let (x, y) = (n % 20 * 16 + 8, n / 20 * 16 + 8);
        let green = frame.rgb[(y * frame.width + x) * 3 + 1];
        assert!(!(64..192).contains(&green), "cell {n}: {green}");
        u64::from(green > 128)
    });
    Mono(bits.fold(0, |us, bit| (us << 1) | bit) * 1_000)
}

#[test]
fn its_pictures_come_in_order_and_upright_with_times_that_make_sense() {
    let codings = [JPEG, BARE_JPEG].into_iter().chain(h264());
    for coding in codings {
        for transport in ["udp", "tcp"] {
            // Each picture is held back by 0 to 20 ms: the stream reckons with that, and none may be refused for it.
            let server = Server::start(0, 20, coding);
            let mut source = camera(&words(server.port, transport, coding), SIZE);
            let mut health = Health::new(Expected {
                width: SIZE[0],
                height: SIZE[1],
                period_ns: None,
                age_max_ns: 1_000 * MS,
                noisy: false,
                moves: false,
            });
            let mut frame = Frame::black(SIZE[0], SIZE[1]);
            let (mut late_ns, mut early, mut last) = (Vec::new(), 0, Mono(0));
            let until = clock::now().plus_ns(15_000 * MS);
            while late_ns.len() < 75 {
                let now = clock::now();
                assert!(now < until, "{transport}: {} pictures", late_ns.len());
                match look(&mut source, &mut health, now.plus_ns(20 * MS), &mut frame) {
                    Look::Good => {}
                    Look::Nothing => continue,
                    other => panic!("{transport}: {other:?}, {:?}", health.fault(clock::now())),
                }
                let drawn = drawn(&frame);
                assert!(drawn > last, "{transport}: {drawn:?} after {last:?}");
                last = drawn;
                assert!(frame.captured <= frame.received);
                early += u32::from(drawn.since_ns(frame.captured) > PERIOD_NS);
                late_ns.push(frame.captured.since_ns(drawn));
                let [grey, blue] = bars(&frame);
                assert!(grey.iter().all(|value| *value > 150), "{grey:?}");
                assert!(blue[0] < 60 && blue[1] < 60 && blue[2] > 150, "{blue:?}");
            }
            assert_eq!(source.counts().starts, 1);
            // A server that a busy machine keeps from drawing draws later than it says.
            assert!(
                early <= 3,
                "{transport}: {early} say that they were taken before they were drawn"
            );
            late_ns.sort_unstable();
            let [p50, p99] = [0.5, 0.99].map(|share| percentile(&late_ns, share));
            println!(
                "RTSP over {transport}, {} by {}: stated capture after drawing p50 {p50:.1} p99 {p99:.1} ms",
                source.format().unwrap_or_default(),
                coding.decoding
            );
            assert!(p50 < 50.0, "{transport}: {p50} ms");
        }
    }
}

#[test]
fn a_server_that_is_not_there_is_killed_and_comes_back() {
    for coding in [JPEG].into_iter().chain(h264()) {
        for transport in ["udp", "tcp"] {
            // A port that nobody has any more.
            let port = Server::start(0, 0, coding).port;
            let mut source = camera(&words(port, transport, coding), SIZE);
            let mut frame = Frame::black(SIZE[0], SIZE[1]);
            gone(&mut source, &mut frame, BUSY_MS);
            // Until the pauses are at their longest.
            let until = clock::now().plus_ns(2_500 * MS);
            while clock::now() < until {
                gone(&mut source, &mut frame, LONGEST_NS / MS + BUSY_MS);
            }
            for round in 0..2 {
                let server = Server::start(port, 0, coding);
                let back_ms = recovers(&mut source, &mut frame, clock::now(), BACK_MAX_MS);
                drop(server);
                // Its connection is closed with it.
                let lost_ms = gone(&mut source, &mut frame, BUSY_MS);
                println!(
                    "RTSP over {transport}, {}, round {round}: good picture {back_ms} ms after the server listened, killed and noticed after {lost_ms} ms",
                    coding.encoder
                );
            }
            assert!(source.counts().starts >= 2, "{:?}", source.counts());
        }
    }
}

#[test]
fn a_server_that_stands_still_is_noticed_and_waited_for() {
    for transport in ["udp", "tcp"] {
        let server = Server::start(0, 0, BARE_JPEG);
        let mut source = camera(&words(server.port, transport, BARE_JPEG), SIZE);
        let mut frame = Frame::black(SIZE[0], SIZE[1]);
        recovers(&mut source, &mut frame, clock::now(), BACK_MAX_MS);
        server.signal(Signal::STOP);
        let lost_ms = gone(&mut source, &mut frame, SILENT_MAX_NS / MS + BUSY_MS);
        // What is asked of it meanwhile is answered when it goes on.
        let until = clock::now().plus_ns(500 * MS);
        while clock::now() < until {
            let deadline = clock::now().plus_ns(20 * MS);
            let said = source.next_frame(deadline, &mut frame);
            assert!(said.is_err(), "a picture of a server that stands still");
        }
        server.signal(Signal::CONT);
        let back_ms = recovers(&mut source, &mut frame, clock::now(), BACK_MAX_MS);
        println!(
            "RTSP over {transport}, server stopped: noticed after {lost_ms} ms, good picture {back_ms} ms after it went on"
        );
    }
}
