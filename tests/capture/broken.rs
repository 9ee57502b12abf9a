// SPDX-License-Identifier: Apache-2.0
//! A pipeline that goes on and gives nothing but broken pictures, until it is started again.

use crate::streams::{ANSWER_MAX_MS, BUSY_MS, camera};
use gstreamer::prelude::*;
use gstreamer::{PadProbeReturn, PadProbeType};
use tendon::capture::gstreamer::{Camera, SILENT_MAX_NS};
use tendon::capture::retry::FIRST_NS;
use tendon::core::units::{MS, Mono};
use tendon::ports::{Frame, Source, SourceFault};
use tendon::runtime::clock;

const SIZE: [usize; 2] = [160, 120];
const JPEG: &str =
    "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=30/1 ! jpegenc";
/// What is told of a JPEG whose second half is missing.
const HALF: SourceFault = SourceFault::Broken("JPEG without an end");

/// The next answer that is not "nothing yet".
#[track_caller]
fn next(source: &mut Camera, frame: &mut Frame, until: Mono) -> Result<(), SourceFault> {
    loop {
        match source.next_frame(clock::now().plus_ns(20 * MS), frame) {
            Err(SourceFault::Timeout | SourceFault::Gone("waiting to look for it again")) => {}
            other => return other,
        }
        assert!(clock::now() < until, "nothing comes, and nothing is said");
    }
}

/// From now on every picture of the pipeline that runs loses its second half. The next pipeline has another sink.
fn breaks(source: &Camera) {
    let sink = source.sink().expect("it runs");
    let pad = sink.static_pad("sink").expect("every sink has one");
    let probe = pad.add_probe(PadProbeType::BUFFER, |_, info| {
        if let Some(buffer) = info.buffer_mut() {
            let half = buffer.size() / 2;
            buffer.make_mut().set_size(half);
        }
        PadProbeReturn::Ok
    });
    assert!(probe.is_some());
}

#[test]
fn a_pipeline_that_gives_nothing_but_broken_pictures_is_started_again() {
    let mut source = camera(JPEG, SIZE);
    let mut frame = Frame::black(SIZE[0], SIZE[1]);
    let soon = || clock::now().plus_ns(5_000 * MS);
    assert_eq!(next(&mut source, &mut frame, soon()), Ok(()));
    breaks(&source);
    let until = soon();
    let mut broken = 0;
    let lost = loop {
        match next(&mut source, &mut frame, until) {
            // It was there already.
            Ok(()) if broken == 0 => {}
            Err(fault) if fault == HALF => broken += 1,
            other => break other,
        }
        assert!(clock::now() < until, "never started again");
    };
    assert_eq!(lost, Err(SourceFault::Gone("its pictures are all broken")));
    assert!(broken > 10, "{broken} told as what they are");
    let quiet_ms = clock::now().since_ns(frame.received) / MS;
    let most_ms = SILENT_MAX_NS / MS;
    assert!(
        (most_ms - 100..most_ms + BUSY_MS).contains(&quiet_ms),
        "{quiet_ms} ms without a good one"
    );
    let from = clock::now();
    assert_eq!(next(&mut source, &mut frame, soon()), Ok(()));
    let back_ms = clock::now().since_ns(from) / MS;
    assert!(
        back_ms < FIRST_NS / MS + ANSWER_MAX_MS,
        "good again after {back_ms} ms"
    );
    assert_eq!(source.counts().starts, 2);
}
