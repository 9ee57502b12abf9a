// SPDX-License-Identifier: Apache-2.0
//! Capture: one thread a camera. Each good frame goes to inference and to the page; nothing queues. What is not good is
//! dropped here, and what is wrong with the camera is told to the watchdog.

use crate::core::camera::{CameraFault, Health, Picture};
use crate::core::units::{MS, Mono};
use crate::ports::{Counts, Frame, Source, SourceFault};
use crate::runtime::cameras::Watched;
use crate::runtime::clock;
use crate::runtime::realtime::allocations_of_this_thread;
use crate::runtime::reel::{KEPT_MAX, Recent, Reel};
use crate::runtime::threads::Seat;
use crate::sync::mailbox;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The thread comes round this often without a frame: for its heartbeat, and to see that the camera is silent.
const IDLE_NS: u64 = 20 * MS;

/// Where a camera's good pictures go to the policy.
#[derive(Debug)]
pub enum ToPolicy {
    /// It paces the policy, which is woken.
    Paces(mailbox::Sender<Recent>),
    /// The policy looks through it beside the one that paces it.
    Beside(triple_buffer::Input<Recent>),
    /// The policy does not look through it.
    Nowhere,
}

/// The page gets a picture no more often: it sends 15 a second, and each costs copies on the way there.
const SHOWN_EVERY_NS: u64 = 60 * MS;

/// Where what people see goes.
#[derive(Debug)]
pub struct ToPage {
    cell: triple_buffer::Input<Recent>,
    /// When the newest that was shown was received.
    last: Mono,
}

impl ToPage {
    /// Through this cell.
    #[must_use]
    pub fn new(cell: triple_buffer::Input<Recent>) -> ToPage {
        ToPage {
            cell,
            last: Mono(0),
        }
    }

    /// Shows the newest of `reel`, if it is enough newer than the last.
    fn show(&mut self, reel: &Reel) {
        if let Some(frame) = reel.newest()
            && frame.received.since_ns(self.last) >= SHOWN_EVERY_NS
        {
            self.last = frame.received;
            reel.give(&mut self.cell, 1);
        }
    }
}

/// What taking and handing on good pictures has allocated on this thread, in a program whose allocator counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocated {
    /// The first picture finds buffers of no size.
    begun: bool,
    total: u64,
}

impl Allocated {
    /// A good picture has been handed on; `before` it the thread had allocated so often.
    pub fn good(&mut self, before: u64) {
        if std::mem::replace(&mut self.begun, true) {
            self.total += allocations_of_this_thread().wrapping_sub(before);
        }
    }

    /// Beside what the source has counted.
    #[must_use]
    pub fn beside(&self, counts: Counts) -> Counts {
        Counts {
            allocations: self.total,
            ..counts
        }
    }
}

/// Everything a capture thread touches.
#[derive(Debug)]
pub struct CaptureIo {
    /// Its pictures.
    pub reel: Reel,
    /// To inference.
    pub policy: ToPolicy,
    /// To the page, if it shows this camera.
    pub shown: Option<ToPage>,
    /// What the others are told.
    pub told: Watched,
    /// Counted here.
    pub allocated: Allocated,
    /// Set when the pipeline ends.
    pub ending: Arc<AtomicBool>,
}

impl CaptureIo {
    /// Hands on the frame that was taken, which is good: policy and page look at the very memory into which it was decoded.
    fn hand_on(&mut self) {
        let captured = self.reel.taking().captured;
        self.reel.keep();
        // Before its time is told, so that who sees the time finds the picture.
        if let ToPolicy::Beside(cell) = &mut self.policy {
            self.reel.give(cell, KEPT_MAX);
        }
        self.told.good(captured);
        if let ToPolicy::Paces(frames) = &mut self.policy {
            frames.put_with(|slot| slot.clone_from(self.reel.recent()));
            // As in `Reel::give`.
            frames.unread().clear();
        }
        if let Some(page) = &mut self.shown {
            page.show(&self.reel);
        }
    }
}

/// What came of one look at a camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// A frame that may be shown to the policy.
    Good,
    /// A frame that was dropped.
    Refused,
    /// No frame.
    Nothing,
}

/// Waits for a frame until `deadline` and judges it. `frame` may be used if it was good.
pub fn look(
    source: &mut dyn Source,
    health: &mut Health,
    deadline: Mono,
    frame: &mut Frame,
) -> Look {
    match source.next_frame(deadline, frame) {
        Ok(()) => {
            let picture = Picture {
                seq: frame.seq,
                captured: frame.captured,
                width: frame.width,
                height: frame.height,
                rgb: &frame.rgb,
            };
            match health.judge(frame.received, &picture) {
                Ok(()) => Look::Good,
                Err(_) => Look::Refused,
            }
        }
        Err(SourceFault::Timeout) => Look::Nothing,
        Err(SourceFault::Broken(_)) => {
            health.refused(CameraFault::Broken);
            Look::Refused
        }
        Err(SourceFault::Gone(_)) => {
            health.lost();
            Look::Nothing
        }
    }
}

/// One round of the capture thread: looks until `deadline`, tells the others what is wrong with the camera, and hands a good
/// frame on.
pub fn round(
    source: &mut dyn Source,
    health: &mut Health,
    deadline: Mono,
    io: &mut CaptureIo,
) -> Look {
    let before = allocations_of_this_thread();
    let seen = look(source, health, deadline, io.reel.taking());
    let fault = health.fault(clock::now());
    let code = fault.map_or(0, |fault| fault.cause() as u8);
    match seen {
        Look::Good => {
            // Before its time is told, like the picture; and before it is told that the camera is well again.
            if let Some(view) = health.view() {
                io.told.view.set(&view);
            }
            io.told.fault.store(code, Ordering::Release);
            io.hand_on();
            io.allocated.good(before);
        }
        Look::Refused => {
            io.told.fault.store(code, Ordering::Release);
            io.told.refused.fetch_add(1, Ordering::Relaxed);
        }
        Look::Nothing => io.told.fault.store(code, Ordering::Release),
    }
    io.told.count(io.allocated.beside(source.counts()));
    seen
}

/// The capture thread.
pub fn run(mut source: Box<dyn Source>, mut health: Health, mut io: CaptureIo, seat: &Seat) {
    while !io.ending.load(Ordering::Relaxed) {
        let now = clock::now();
        seat.beat.mark(now);
        round(&mut *source, &mut health, now.plus_ns(IDLE_NS), &mut io);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::episode::{Ask, CAMERA_PX, Episode, Spec};
    use crate::bench::lens::{Lens, PictureFault};
    use crate::core::camera::skew::Need;
    use crate::core::camera::{BAD_MAX, Expected};
    use crate::core::governor::reaction::Cause;
    use crate::runtime::counters::Counters;

    const PERIOD_NS: u64 = 33 * MS;
    const COUNTED: Counts = Counts {
        missing: 4,
        stale: 3,
        flagged: 2,
        starts: 3,
        allocations: 0,
    };

    /// The bench's camera, as a source in simulated time.
    struct BenchCamera {
        episode: Episode,
        lens: Lens,
        fault: PictureFault,
        seq: u32,
        now: Mono,
        rgb: Vec<u8>,
    }

    impl BenchCamera {
        fn new(seed: u64) -> BenchCamera {
            let spec = Spec {
                seed,
                put: seed.is_multiple_of(2),
                held_out_position: false,
                ask: Ask::Seen,
            };
            BenchCamera {
                episode: Episode::new(&spec),
                lens: Lens::new(seed),
                fault: PictureFault::None,
                seq: 0,
                now: Mono(60_000 * MS),
                rgb: vec![0; CAMERA_PX * CAMERA_PX * 3],
            }
        }
    }

    impl Source for BenchCamera {
        fn next_frame(&mut self, _: Mono, frame: &mut Frame) -> Result<(), SourceFault> {
            self.now = self.now.plus_ns(PERIOD_NS);
            if !self.lens.set(self.now, self.fault) {
                return Err(SourceFault::Timeout);
            }
            if self.lens.redraws() {
                let robot = &self.episode.robot;
                let (table, pose) = (robot.table.clone(), robot.pose());
                self.episode
                    .camera()
                    .clone()
                    .render(&table, &pose, &mut self.rgb);
                self.lens.expose(&mut self.rgb);
            }
            let rows = self.lens.rows(CAMERA_PX);
            (frame.width, frame.height) = (CAMERA_PX, rows);
            frame.rgb.clear();
            frame
                .rgb
                .extend_from_slice(&self.rgb[..CAMERA_PX * rows * 3]);
            self.seq += 1;
            frame.seq = self.seq;
            (frame.captured, frame.received) = (self.lens.captured(self.now), self.now);
            Ok(())
        }

        fn counts(&self) -> Counts {
            COUNTED
        }
    }

    struct Stage {
        camera: BenchCamera,
        health: Health,
        frame: Frame,
    }

    impl Stage {
        fn new(seed: u64) -> Stage {
            let expected = Expected {
                width: CAMERA_PX,
                height: CAMERA_PX,
                period_ns: Some(PERIOD_NS),
                age_max_ns: 150 * MS,
                noisy: true,
                moves: false,
            };
            Stage {
                camera: BenchCamera::new(seed),
                health: Health::new(expected),
                frame: Frame::black(CAMERA_PX, CAMERA_PX),
            }
        }

        fn look(&mut self) -> (Look, Option<Cause>) {
            let seen = look(&mut self.camera, &mut self.health, Mono(0), &mut self.frame);
            let fault = self.health.fault(self.camera.now);
            (seen, fault.map(CameraFault::cause))
        }
    }

    #[test]
    fn no_scene_of_the_bench_is_taken_for_a_fault() {
        for seed in 0..300 {
            let mut stage = Stage::new(seed);
            let joints = [0.3, -0.5, 0.9, 0.2, 0.4, 0.1];
            for n in 0..6 {
                assert_eq!(stage.look(), (Look::Good, None), "seed {seed}, picture {n}");
                let q: [f64; 6] = std::array::from_fn(|j| joints[j] * f64::from(n) * 0.3);
                for _ in 0..30 {
                    stage.camera.episode.step(&q, &[0.0; 6], false, true);
                }
            }
        }
    }

    #[test]
    fn each_fault_is_named_within_three_pictures_and_ends_with_the_first_good_one() {
        let rows = [
            (PictureFault::Stuck, Cause::CameraStuck),
            (PictureFault::Black, Cause::CameraBlind),
            (PictureFault::Saturated, Cause::CameraBlind),
            (PictureFault::Uniform, Cause::CameraBlind),
            (PictureFault::Noise, Cause::CameraGarbage),
            (PictureFault::Torn, Cause::CameraGarbage),
            (PictureFault::Short, Cause::CameraGarbage),
            (PictureFault::Backwards, Cause::CameraClock),
            (PictureFault::Future, Cause::CameraClock),
        ];
        for seed in 0..20 {
            for (fault, cause) in rows {
                let mut stage = Stage::new(seed);
                for _ in 0..4 {
                    assert_eq!(stage.look(), (Look::Good, None));
                }
                stage.camera.fault = fault;
                for n in 1..=BAD_MAX {
                    let named = (n == BAD_MAX).then_some(cause);
                    assert_eq!(
                        stage.look(),
                        (Look::Refused, named),
                        "{fault:?}, picture {n}"
                    );
                }
                stage.camera.fault = PictureFault::None;
                assert_eq!(stage.look(), (Look::Good, None), "{fault:?}");
            }
        }
    }

    #[test]
    fn a_good_picture_goes_to_policy_and_page_and_what_was_counted_is_told() {
        let mut stage = Stage::new(4);
        let (frames, mut policy) = mailbox::mailbox(&Recent::new());
        let (shown, mut page) = triple_buffer::triple_buffer(&Recent::new());
        let mut io = CaptureIo {
            reel: Reel::of_last(&stage.frame),
            policy: ToPolicy::Paces(frames),
            shown: Some(ToPage::new(shown)),
            told: Watched {
                name: "front".into(),
                need: Need::Required,
                moves: false,
                age_max_ns: 150 * MS,
                newest_ns: Arc::default(),
                moments: Arc::default(),
                refused: Arc::default(),
                counted: Arc::default(),
                fault: Arc::default(),
                view: Arc::default(),
            },
            allocated: Allocated::default(),
            ending: Arc::default(),
        };
        let mut given: Vec<(u32, Mono, Vec<u8>)> = Vec::new();
        let mut on_page: Vec<(u32, Mono)> = Vec::new();
        let mut rounds = |stage: &mut Stage, count: u32, expected: Look| {
            for _ in 0..count {
                let Stage { camera, health, .. } = stage;
                assert_eq!(round(camera, health, Mono(0), &mut io), expected);
                let newest = policy.latest().first().expect("one was good");
                if expected == Look::Good {
                    assert_eq!(newest.seq, camera.seq);
                    assert!(newest.rgb == camera.rgb, "another picture");
                    given.push((newest.seq, newest.received, newest.rgb.clone()));
                }
                if page.updated() {
                    // The one that the policy has, whole.
                    let shown = page.read().first().expect("one is shown");
                    let (seq, received, rgb) = given.last().expect("a picture that was given");
                    assert!(shown.seq == *seq && shown.rgb == *rgb, "another picture");
                    on_page.push((*seq, *received));
                }
                assert_eq!(newest.captured.0, io.told.newest_ns.load(Ordering::Relaxed));
                assert_eq!(io.told.counts(), COUNTED);
                assert_eq!(io.told.view.get(), health.view());
            }
            io.told.refused.load(Ordering::Relaxed)
        };
        // More than there are buffers, so that each comes round again.
        assert_eq!(rounds(&mut stage, 9, Look::Good), 0);
        stage.camera.fault = PictureFault::Black;
        assert_eq!(rounds(&mut stage, 2, Look::Refused), 2);
        stage.camera.fault = PictureFault::None;
        assert_eq!(rounds(&mut stage, 9, Look::Good), 2);
        assert!(on_page.len() >= 6, "{on_page:?}");
        assert!(
            on_page
                .windows(2)
                .all(|two| two[1].1.since_ns(two[0].1) >= SHOWN_EVERY_NS),
            "{on_page:?}"
        );
        let counters = Counters {
            cameras: Arc::new(vec![io.told.clone(), io.told]),
            ..Counters::default()
        };
        let all = counters.faults();
        for (name, count) in [
            ("pictures_refused", 2 * 2),
            ("pictures_missing", 2 * COUNTED.missing),
            ("pictures_stale", 2 * COUNTED.stale),
            ("pictures_flagged", 2 * COUNTED.flagged),
            ("camera_restarts", 2 * 2),
        ] {
            let told = all.iter().find(|each| each.name == name);
            assert_eq!(told.map(|told| told.value), Some(count), "{name}");
        }
    }

    #[test]
    fn late_pictures_are_named_when_their_times_have_caught_up() {
        let mut stage = Stage::new(3);
        assert_eq!(stage.look(), (Look::Good, None));
        stage.camera.fault = PictureFault::Late;
        let named: Vec<_> = (0..20).map(|_| stage.look().1).collect();
        assert!(named[BAD_MAX as usize..].iter().all(Option::is_some));
        assert_eq!(named.last(), Some(&Some(Cause::CameraLate)));
    }

    #[test]
    fn silence_and_a_swap() {
        for seed in 0..50 {
            let mut stage = Stage::new(seed);
            assert_eq!(stage.look(), (Look::Good, None));
            stage.camera.fault = PictureFault::Off;
            let named: Vec<_> = (0..4).map(|_| stage.look()).collect();
            assert_eq!(
                named[1],
                (Look::Nothing, None),
                "two periods are no silence"
            );
            assert_eq!(named[2], (Look::Nothing, Some(Cause::CameraLost)));
            stage.camera.fault = PictureFault::Swapped;
            let named: Vec<_> = (0..60).map(|_| stage.look()).collect();
            let first = named.iter().position(|(seen, _)| *seen == Look::Refused);
            let first = first.expect("pictures come again");
            for (n, each) in (1..).zip(&named[first..]) {
                let cause = if n < BAD_MAX {
                    Cause::CameraLost
                } else {
                    Cause::CameraSwapped
                };
                assert_eq!(*each, (Look::Refused, Some(cause)), "{seed}, picture {n}");
            }
            stage.camera.fault = PictureFault::None;
            while stage.look().0 == Look::Nothing {}
            assert_eq!(stage.look(), (Look::Good, None), "seed {seed}");
        }
    }
}
