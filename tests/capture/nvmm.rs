// SPDX-License-Identifier: Apache-2.0
//! Pictures in an image processor's memory: GStreamer and the whole of our path for real, over a fake of NVIDIA's library and of
//! the driver, whose kernel is the one that a device runs, compiled for the processor.

use crate::fake_nvmm::{Jetson, Memory, Wrong, jetson};
use crate::pictures::{CLOCK, film, judged, percentile, processor_ns, report};
use crate::stage::{BEYOND_NS, Stage};
use crate::streams::{Came, watched};
use std::sync::atomic::Ordering;
use tendon::capture::gstreamer::Camera;
use tendon::capture::nvmm::{Libraries, Nvmm, NvmmFault};
use tendon::capture::{Asked, Kind};
use tendon::core::units::{MS, Mono};
use tendon::ports::{Frame, Source, SourceFault};
use tendon::runtime::capture::{Look, round};
use tendon::runtime::clock;
use tendon::runtime::realtime::{allocations_of_this_thread, take_seat};
use tendon::runtime::threads::CAPTURE;

const PERIOD_NS: u64 = 16_666_667;
/// A still picture in which no row and no column is like the next.
const ZONES: &str = "chroma-zone-plate kx2=20 ky2=20";

fn words(format: &str, [width, height]: [usize; 2], more: &str) -> String {
    format!(
        "videotestsrc is-live=true pattern={ZONES} ! video/x-raw,format={format},width={width},height={height},framerate=60/1{more}"
    )
}

fn camera(words: &str, [width, height]: [usize; 2], libraries: &Libraries) -> Camera {
    let asked = Asked {
        kind: Kind::Gstreamer(words.to_owned()),
        width,
        height,
        period_ns: PERIOD_NS,
    };
    Camera::with(words, &asked, CLOCK, libraries).expect("a pipeline")
}

/// A camera that keeps its pictures in surfaces.
fn described(jetson: &Jetson, format: &str, size: [usize; 2]) -> Camera {
    let words = words(format, size, " ! nvfake");
    camera(&words, size, &jetson.libraries)
}

/// What comes until a picture does, or for so long.
fn next(source: &mut Camera, frame: &mut Frame, within_ms: u64) -> Result<(), Vec<SourceFault>> {
    let deadline = clock::now().plus_ns(within_ms * MS);
    let mut faults = Vec::new();
    while clock::now() < deadline {
        match source.next_frame(clock::now().plus_ns(20 * MS), frame) {
            Ok(()) => return Ok(()),
            Err(SourceFault::Timeout) => {}
            Err(fault) => faults.push(fault),
        }
    }
    Err(faults)
}

#[test]
fn surfaces_of_each_memory_and_format_give_the_pixels_of_ordinary_memory() {
    let jetson = jetson();
    for size in [[320, 240], [322, 242], [66, 50]] {
        for format in ["NV12", "RGBA", "GRAY8"] {
            let mut frame = Frame::black(size[0], size[1]);
            for colours in ["bt601", "bt709", "1:4:0:0"] {
                let more = if format == "NV12" {
                    format!(",colorimetry={colours}")
                } else if colours == "bt601" {
                    String::new()
                } else {
                    continue;
                };
                let mut source = camera(&words(format, size, &more), size, &Libraries::default());
                next(&mut source, &mut frame, 5_000).expect("a picture");
                let want = frame.rgb.clone();
                drop(source);
                for memory in [Memory::Tiled, Memory::Rows, Memory::Cuda] {
                    jetson.set(memory, false, Wrong::Nothing, 0);
                    let words = words(format, size, &format!("{more} ! nvfake"));
                    let mut source = camera(&words, size, &jetson.libraries);
                    frame.rgb.clear();
                    next(&mut source, &mut frame, 5_000).expect("a picture");
                    let named = format!("{format} in NVMM");
                    assert_eq!(source.format(), Some(&*named), "{memory:?}");
                    assert_eq!((frame.width, frame.height), (size[0], size[1]));
                    assert_eq!(frame.rgb.len(), want.len());
                    let apart = frame.rgb.iter().zip(&want);
                    let most = apart.map(|(a, b)| a.abs_diff(*b)).max().expect("pixels");
                    let allowed = if format == "NV12" { 2 } else { 0 };
                    assert!(most <= allowed, "{format} {colours} {memory:?}: {most}");
                    let age_ms = frame.received.since_ns(frame.captured) / MS;
                    assert!(frame.captured <= frame.received && age_ms < 100, "{age_ms}");
                    drop(source);
                    assert_eq!(jetson.live(), [0; 3], "{format} {memory:?}");
                }
            }
        }
    }
}

#[test]
fn a_surface_is_made_ready_once_and_a_picture_costs_no_allocation() {
    let jetson = jetson();
    let mut source = described(&jetson, "NV12", [640, 480]);
    let mut frame = Frame::black(640, 480);
    // A busy machine misses pictures, and with them now and then the same surface for a while.
    for n in 0..200 {
        next(&mut source, &mut frame, 5_000).expect("a picture");
        if n >= 12 && source.surfaces() >= 4 {
            break;
        }
    }
    assert_eq!(source.surfaces(), 4, "of the element");
    assert_eq!(jetson.calls("cuGraphicsEGLRegisterImage"), 4);
    jetson.forget();
    let before = allocations_of_this_thread();
    for _ in 0..20 {
        next(&mut source, &mut frame, 5_000).expect("a picture");
    }
    assert_eq!(allocations_of_this_thread() - before, 0);
    for call in [
        "cuGraphicsEGLRegisterImage",
        "cuMemAlloc_v2",
        "cuMemHostAlloc",
        "cuMemcpyHtoDAsync_v2",
        "cuMemcpyDtoHAsync_v2",
    ] {
        assert_eq!(jetson.calls(call), 0, "{call}");
    }
    assert_eq!(jetson.calls("cuLaunchKernel"), 20);
    drop(source);
    assert_eq!(jetson.live(), [0; 3]);
}

#[test]
fn images_that_an_element_before_us_maps_are_taken_and_left_to_it() {
    let jetson = jetson();
    jetson.set(Memory::Tiled, false, Wrong::MappedAnew, 0);
    let mut source = described(&jetson, "NV12", [320, 240]);
    let mut frame = Frame::black(320, 240);
    for _ in 0..12 {
        next(&mut source, &mut frame, 5_000).expect("a picture");
    }
    assert!(source.surfaces() <= 4, "{}", source.surfaces());
    assert!(jetson.calls("cuGraphicsEGLRegisterImage") > 4);
    drop(source);
    assert_eq!(jetson.live(), [0; 3]);
}

#[test]
fn what_fails_is_said_and_a_pipeline_that_can_convert_goes_on() {
    let jetson = jetson();
    let calls = [
        ("cuGraphicsEGLRegisterImage", 0),
        ("cuGraphicsResourceGetMappedEglFrame", 0),
        ("cuTexObjectCreate", 0),
        // The second plane's: the first has a texture then.
        ("cuTexObjectCreate", 1),
        ("cuLaunchKernel", 2),
        ("cuEventSynchronize", 3),
    ];
    for (call, after) in calls {
        for converts in [true, false] {
            jetson.set(Memory::Tiled, converts, Wrong::Nothing, 0);
            jetson.forget();
            jetson.fail(call, after, 700);
            let mut source = described(&jetson, "NV12", [320, 240]);
            let mut frame = Frame::black(320, 240);
            let mut gone = false;
            // The first few may come, and then the restart.
            for _ in 0..12 {
                let until = clock::now().plus_ns(40 * MS);
                let said = source.next_frame(until, &mut frame);
                gone |= matches!(said, Err(SourceFault::Gone(_)));
            }
            assert!(gone, "{call} {after}: told");
            if converts {
                next(&mut source, &mut frame, 5_000).expect("pictures in ordinary memory");
                assert_eq!(source.format(), Some("NV12"), "{call} {after}");
            }
            jetson.fail("", 0, 0);
            if !converts {
                next(&mut source, &mut frame, 10_000).expect("it mended itself");
                assert_eq!(source.format(), Some("NV12 in NVMM"));
            }
            drop(source);
            assert_eq!(jetson.live(), [0; 3], "{call} {after} {converts}");
        }
    }
}

#[test]
fn a_description_that_contradicts_the_pipeline_is_refused_and_read_no_further() {
    let jetson = jetson();
    let rows = [
        (Memory::Tiled, Wrong::Width),
        (Memory::Rows, Wrong::Planes),
        (Memory::Cuda, Wrong::Short),
        (Memory::Tiled, Wrong::NoList),
        (Memory::Tiled, Wrong::Unfilled),
        (Memory::Tiled, Wrong::SmallBuffer),
        (Memory::Tiled, Wrong::Colours),
        (Memory::Cuda, Wrong::Device),
        (Memory::Unknown, Wrong::Nothing),
    ];
    for (memory, wrong) in rows {
        jetson.set(memory, false, wrong, 0);
        let mut source = described(&jetson, "NV12", [320, 240]);
        let mut frame = Frame::black(320, 240);
        let faults = next(&mut source, &mut frame, 1_000).expect_err("refused");
        let told = SourceFault::Gone("its pictures in NVMM cannot be read");
        assert!(faults.contains(&told), "{wrong:?}: {faults:?}");
        // The pauses grow: 50, 100, 200, 400 ms, with and without surfaces in turns.
        let starts = source.counts().starts;
        assert!(
            (1..=6).contains(&starts),
            "{wrong:?}: {starts} starts in a second"
        );
        drop(source);
        assert_eq!(jetson.live(), [0; 3], "{memory:?} {wrong:?}");
    }
}

#[test]
fn a_display_that_is_in_the_way_leads_to_ordinary_memory() {
    let jetson = jetson();
    jetson.set(Memory::Tiled, true, Wrong::Nothing, -1);
    let mut source = described(&jetson, "NV12", [320, 240]);
    let mut frame = Frame::black(320, 240);
    next(&mut source, &mut frame, 5_000).expect("pictures in ordinary memory");
    assert_eq!(source.format(), Some("NV12"));
    drop(source);
    assert_eq!(jetson.live(), [0; 3]);
    let said = NvmmFault::NoImage(-1).to_string();
    assert!(
        said.contains("DISPLAY") && said.contains("nvvidconv"),
        "{said}"
    );
}

#[test]
fn without_the_libraries_it_says_what_is_missing_and_ordinary_pictures_come() {
    let jetson = jetson();
    let nowhere = |path: &str| Some(std::path::PathBuf::from(path));
    let other = Libraries {
        surfaces: nowhere("libm.so.6"),
        ..jetson.libraries.clone()
    };
    let none = Libraries {
        surfaces: nowhere("/nowhere/libnvbufsurface.so"),
        ..jetson.libraries.clone()
    };
    let no_driver = Libraries {
        driver: nowhere("/nowhere/libcuda.so.1"),
        ..jetson.libraries.clone()
    };
    let rows = [
        (&none, "nvidia-l4t-multimedia"),
        (&other, "NvBufSurfaceMapEglImage"),
        (&no_driver, "no CUDA driver"),
    ];
    for (libraries, words) in rows {
        let fault = Nvmm::open(libraries, [320, 240]).err().expect("refused");
        assert!(fault.to_string().contains(words), "{fault}");
    }
    jetson.set(Memory::Tiled, true, Wrong::Nothing, 0);
    let words = words("NV12", [320, 240], " ! nvfake");
    let mut source = camera(&words, [320, 240], &none);
    let mut frame = Frame::black(320, 240);
    next(&mut source, &mut frame, 5_000).expect("a picture");
    assert_eq!(source.format(), Some("NV12"));
}

/// What pictures took on their way, in ns, sorted.
#[derive(Default)]
struct HandedOver {
    /// From the sample at our sink to the frame in inference's mailbox, as the capture thread takes it there: woken, read where it
    /// lies, judged, shown to the page, its time told.
    whole: Vec<u64>,
    /// The same beyond what it takes to have a picture that waits already: to read it, and to copy it once.
    beyond: Vec<u64>,
}

/// Of the times, the one that is judged.
fn judged_ns(sorted: &[u64]) -> u64 {
    let at = (sorted.len() as f64 * judged()) as usize;
    sorted.get(at).copied().unwrap_or(u64::MAX)
}

/// Two hundred pictures, and after each one that waited already.
fn timed(source: &mut Camera, came: &Came, stage: &mut Stage, period_ns: u64) -> HandedOver {
    const PICTURES: usize = 200;
    let (mut took, mut tries) = (HandedOver::default(), 0);
    while took.whole.len() < PICTURES {
        tries += 1;
        assert!(tries < 3 * PICTURES, "hardly a picture is good");
        let deadline = clock::now().plus_ns(100 * MS);
        let seen = round(source, &mut stage.health, deadline, &mut stage.io);
        let handed = clock::now();
        if seen != Look::Good {
            continue;
        }
        let captured = Mono(stage.io.told.newest_ns.load(Ordering::Relaxed));
        let known = came.lock().expect("no panic");
        let mut newest_first = known.iter().rev();
        let its = newest_first.find(|(taken, _)| taken.0.abs_diff(captured.0) < MS);
        let (_, at) = *its.expect("what is handed over came to the sink");
        drop(known);
        // The next one has come by then. If not, there is none: it is not waited for.
        clock::sleep_until(at.plus_ns(period_ns * 3 / 2));
        let from = clock::now();
        let there = source.next_frame(from, &mut stage.alone);
        let alone_ns = clock::now().since_ns(from);
        if there.is_ok() {
            let whole_ns = handed.since_ns(at);
            took.whole.push(whole_ns);
            took.beyond.push(whole_ns.saturating_sub(alone_ns));
        }
    }
    took.whole.sort_unstable();
    took.beyond.sort_unstable();
    took
}

/// Whether one of several rounds keeps to a bound; what each took is printed.
fn a_round_keeps(
    name: &str,
    source: &mut Camera,
    size: [usize; 2],
    period_ns: u64,
    kept: impl Fn(&HandedOver) -> bool + Send,
) -> bool {
    const ROUNDS: usize = 5;
    let measured = move || {
        // As the capture thread, where that is granted.
        let fifo = take_seat(CAPTURE.fifo, &[]).fifo;
        let mut frame = Frame::black(size[0], size[1]);
        next(source, &mut frame, 8_000).expect("a picture");
        let came = watched(source);
        // One that waited in the sink already came unseen.
        next(source, &mut frame, 8_000).expect("a picture");
        let mut stage = Stage::new(size, false);
        (0..ROUNDS).any(|_| {
            let took = timed(source, &came, &mut stage, period_ns);
            let [p50, p99] = [0.5, 0.99].map(|share| percentile(&took.whole, share));
            let [b50, b99] = [0.5, 0.99].map(|share| percentile(&took.beyond, share));
            println!(
                "{name}: from the sample on p50 {p50:.3} p99 {p99:.3} ms, beyond having one that waits p50 {b50:.3} p99 {b99:.3} ms, \
                 {} pictures {}x{}, priority {fifo}",
                took.whole.len(),
                size[0],
                size[1]
            );
            kept(&took)
        })
    };
    std::thread::scope(|scope| scope.spawn(measured).join().expect("no panic"))
}

/// What one way costs: the share of pictures that did not come in `for_ns`, and whether [`a_round_keeps`] to a bound.
fn costs(
    name: &str,
    made: impl Fn() -> Camera,
    size: [usize; 2],
    [period_ns, for_ns]: [u64; 2],
    kept: impl Fn(&HandedOver) -> bool + Send,
) -> (f64, bool) {
    let before = processor_ns();
    let seen = film(vec![Box::new(made())], size, false, for_ns);
    let busy_ns = processor_ns() - before;
    let lost = report(name, &seen, for_ns, busy_ns, period_ns);
    let kept = a_round_keeps(name, &mut made(), size, period_ns, kept);
    (lost, kept)
}

/// What is granted over the fake: half of what a picture takes there.
const FAKE_BEYOND_NS: u64 = 5 * BEYOND_NS;
/// What judges a Jetson, over the fake. Its device is this processor, so that what it takes to read is left out, and what is left
/// swings with it: this shows that the measure measures, and that nothing is waited for.
#[test]
fn a_surface_that_has_come_is_handed_over_at_once() {
    let jetson = jetson();
    let size = [320, 240];
    let words = words("NV12", size, " ! nvfake").replace(ZONES, "smpte75");
    let made = || camera(&words, size, &jetson.libraries);
    let times = [PERIOD_NS, 1_000 * MS];
    let (lost, kept) = costs("over the fake", made, size, times, |took| {
        judged_ns(&took.beyond) <= FAKE_BEYOND_NS
    });
    // What a busy machine cannot draw and read it may lose.
    assert!(lost < 0.9, "{lost}");
    assert!(kept, "in no round was it within {FAKE_BEYOND_NS} ns");
    assert_eq!(jetson.live(), [0; 3]);
}

/// On a Jetson (`tests/hw/nvmm.sh`): surfaces that its own elements fill, tiled and in rows, beside ordinary memory of the same
/// pipeline; what each way costs.
#[test]
#[ignore = "needs a Jetson"]
fn the_real_image_processor() {
    let size = [640, 480];
    let real = Libraries::from_environment();
    let pipeline = |memory: &str, format: &str| {
        format!(
            "{} ! nvvidconv ! video/x-raw{memory},format={format}",
            words("I420", size, "").replace("60/1", "30/1")
        )
    };
    let first = |words: &str, size: [usize; 2]| {
        let mut frame = Frame::black(size[0], size[1]);
        let mut source = camera(words, size, &real);
        next(&mut source, &mut frame, 8_000).expect("a picture");
        (source.format(), frame.rgb)
    };
    // Where two values are further apart than allowed; the noise of the bars' lower part is left out.
    let far = |found: &[u8], want: &[u8], size: [usize; 2], allowed: u8| {
        assert_eq!(found.len(), want.len());
        let upper = size[1] * 2 / 3 * size[0] * 3;
        let apart = found.iter().zip(want).take(upper);
        let far = apart.filter(|(a, b)| a.abs_diff(**b) > allowed).count();
        far as f64 / upper as f64 * 100.0
    };
    // Of the same bytes, the same pixels.
    for format in ["NV12", "GRAY8"] {
        let (named, found) = first(&pipeline("(memory:NVMM)", format), size);
        assert_eq!(named, Some(&*format!("{format} in NVMM")));
        let (_, want) = first(&pipeline("", format), size);
        let percent = far(&found, &want, size, 2);
        println!("{format} in NVMM beside ordinary memory: {percent:.2} % of the values apart");
        assert!(percent == 0.0, "{format}");
    }
    // What was drawn, but for the edges of its bars. What a colour is does not depend on how many pixels have it.
    for (format, size) in [("RGBA", size), ("NV12", [1_280, 720])] {
        let words = |text: String| {
            let text = text.replace(
                "width=640,height=480",
                &format!("width={},height={}", size[0], size[1]),
            );
            text.replace(ZONES, "smpte75")
        };
        let (named, found) = first(&words(pipeline("(memory:NVMM)", format)), size);
        assert_eq!(named, Some(&*format!("{format} in NVMM")));
        let (_, want) = first(&words(self::words("RGB", [640, 480], "")), size);
        let percent = far(&found, &want, size, 12);
        println!(
            "{format} in NVMM, {size:?}, beside what was drawn: {percent:.2} % of the values apart"
        );
        assert!(percent < 2.0, "{format}: other colours");
    }
    let mut all_kept = true;
    for (name, memory, most_ns) in [
        ("in NVMM", "(memory:NVMM)", BEYOND_NS),
        // The processor makes its colours: it is there to be compared with.
        ("ordinary memory", "", u64::MAX),
    ] {
        // A picture that no judge of cameras refuses.
        let words = pipeline(memory, "NV12").replace(ZONES, "smpte75");
        let made = || camera(&words, size, &real);
        let times = [33_333_333, 20_000 * MS];
        let (lost, kept) = costs(name, made, size, times, |took| {
            judged_ns(&took.whole) <= most_ns
        });
        assert!(lost < 0.1, "{name}: {lost}");
        all_kept &= kept;
    }
    assert!(
        all_kept,
        "in NVMM: in no round was a picture handed over within {BEYOND_NS} ns of its sample"
    );
}
