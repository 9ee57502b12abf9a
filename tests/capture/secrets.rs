// SPDX-License-Identifier: Apache-2.0
//! The password of a network camera, in the words of a pipeline and in what GStreamer makes of them, is not told: not in the log, not
//! in an error, not for debugging.

use crate::pictures::CLOCK;
use crate::streams::gone;
use std::sync::Mutex;
use tendon::capture::gstreamer::Camera;
use tendon::capture::{Asked, Kind};
use tendon::ports::Frame;

const SECRET: &str = "s3cret7";

/// What was logged in this process: other tests run beside.
struct Told(Mutex<Vec<String>>);

static TOLD: Told = Told(Mutex::new(Vec::new()));

impl log::Log for Told {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        self.0.lock().expect("no panic").push(line);
    }

    fn flush(&self) {}
}

fn asked(words: &str) -> Asked {
    Asked {
        kind: Kind::Gstreamer(words.to_owned()),
        width: 64,
        height: 48,
        period_ns: 33_333_333,
    }
}

#[track_caller]
fn hides(text: &str, shows: &str) {
    assert!(!text.contains(SECRET), "{text}");
    assert!(text.contains(shows), "{text}");
}

#[test]
fn passwords_are_told_to_nobody() {
    log::set_logger(&TOLD).expect("the only one of this process");
    log::set_max_level(log::LevelFilter::Debug);
    // A port that nobody has any more.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = socket.local_addr().expect("an address");
    drop(socket);
    let words = format!(
        "rtspsrc location=rtsp://anna:{SECRET}@{at}/x user-id=anna user-pw={SECRET} protocols=tcp ! rtpjpegdepay"
    );
    let mut camera = Camera::new(&words, &asked(&words), CLOCK).expect("a pipeline");
    gone(&mut camera, &mut Frame::black(64, 48), 5_000);
    let shown = format!("rtsp://***@{at}/x user-id=*** user-pw=***");
    hides(&format!("{camera:?}"), &shown);
    hides(&format!("{:?}", asked(&words)), &shown);
    drop(camera);
    let told = TOLD.0.lock().expect("no panic").join("\n");
    hides(&told, &shown);
    // GStreamer repeats what it does not understand.
    let words = format!("videotestsrc is-live=rtsp://anna:{SECRET}@h/x pattern=ball");
    let refused = Camera::new(&words, &asked(&words), CLOCK).expect_err("no pipeline");
    hides(&refused.to_string(), "is-live=rtsp://***@h/x");
    hides(&format!("{refused:?}"), "to \\\"rtsp://***@h/x\\\"");
}
