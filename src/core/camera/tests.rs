// SPDX-License-Identifier: Apache-2.0
//! Pictures made by arithmetic: a scene with soft shapes and the noise of a sensor, and what can happen to it.

use super::*;

const WIDTH: usize = 320;
const HEIGHT: usize = 240;
const PERIOD_NS: u64 = 33 * MS;
const START: Mono = Mono(10_000 * MS);
const EXPECTED: Expected = Expected {
    width: WIDTH,
    height: HEIGHT,
    period_ns: Some(PERIOD_NS),
    age_max_ns: 150 * MS,
    noisy: true,
    moves: false,
};

/// A small generator of its own, so that pictures stay the same for ever.
struct Random(u64);

impl Random {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u8
    }
}

/// A table with three things on it, of which one moves with `phase`, seen from `side` (0 or 1), with sensor noise.
fn scene(phase: usize, side: usize, noise_seed: u64) -> Vec<u8> {
    let mut random = Random(noise_seed * 2 + 1);
    let mut rgb = Vec::with_capacity(WIDTH * HEIGHT * 3);
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let (u, v) = if side == 0 {
                (x, y)
            } else {
                (WIDTH - 1 - x, HEIGHT - 1 - y)
            };
            let near = |cx: usize, cy: usize, r: usize| {
                u.abs_diff(cx).pow(2) + v.abs_diff(cy).pow(2) < r * r
            };
            let base = match () {
                () if near(60 + phase, 150, 30) => [180, 40, 40],
                () if near(200, 180, 25) => [40, 60, 170],
                () if v < 60 => [70, 75, 80],
                () => [150 + u / 8, 130 + u / 8, 100],
            };
            rgb.extend(base.map(|value| (value + usize::from(random.byte() % 5)).min(255) as u8));
        }
    }
    rgb
}

/// As good as black, each time with other noise.
fn darkness(seed: usize) -> Vec<u8> {
    let bytes = 0..WIDTH * HEIGHT * 3;
    bytes.map(|at| ((at + seed) % 3) as u8).collect()
}

/// Something to be seen, and hardly a pattern in it: a bright and a dark stripe for each two rows of the samples.
fn stripes(seed: u64) -> Vec<u8> {
    let mut random = Random(seed * 2 + 1);
    let rows = (0..WIDTH * HEIGHT * 3).map(|at| at / 3 / WIDTH * 32 / HEIGHT);
    rows.map(|row| 100 + (row % 2 * 20) as u8 + random.byte() % 5)
        .collect()
}

/// A camera that gives a picture each period.
struct Story {
    health: Health,
    now: Mono,
    seq: u32,
}

impl Story {
    fn new(expected: Expected) -> Story {
        Story {
            health: Health::new(expected),
            now: START,
            seq: 0,
        }
    }

    fn show_late(&mut self, rgb: &[u8], late_ns: u64) -> Result<(), CameraFault> {
        self.now = self.now.plus_ns(PERIOD_NS);
        self.seq += 1;
        let (seq, captured) = (self.seq, self.now.minus_ns(late_ns));
        self.health.judge(
            self.now,
            &Picture {
                seq,
                captured,
                width: WIDTH,
                height: HEIGHT,
                rgb,
            },
        )
    }

    fn show(&mut self, rgb: &[u8]) -> Result<(), CameraFault> {
        self.show_late(rgb, 8 * MS)
    }

    fn good(&mut self) {
        let seed = u64::from(self.seq) + 77;
        assert_eq!(self.show(&scene(self.seq as usize % 100, 0, seed)), Ok(()));
        assert_eq!(self.health.fault(self.now), None);
    }
}

/// `spoil` makes a bad picture of a good one: it is dropped at once, three make the cause, one good one ends it.
#[track_caller]
fn spoilt(spoil: impl Fn(u64, &mut Vec<u8>), fault: CameraFault) {
    let mut story = Story::new(EXPECTED);
    for _ in 0..5 {
        story.good();
    }
    for n in 1..=6 {
        let mut rgb = scene(n, 0, 1_000 + n as u64);
        spoil(n as u64, &mut rgb);
        assert_eq!(story.show(&rgb), Err(fault), "picture {n}");
        let expected = (n >= usize::from(BAD_MAX)).then_some(fault);
        assert_eq!(story.health.fault(story.now), expected, "picture {n}");
    }
    story.good();
}

#[test]
fn a_moving_scene_with_noise_is_good() {
    let mut story = Story::new(EXPECTED);
    for _ in 0..100 {
        story.good();
    }
}

#[test]
fn black() {
    spoilt(
        |n, rgb| {
            rgb.iter_mut()
                .zip(0..)
                .for_each(|(p, i)| *p = ((i + n) % 3) as u8)
        },
        CameraFault::Black,
    );
}

#[test]
fn saturated() {
    spoilt(
        |n, rgb| {
            rgb.iter_mut()
                .zip(0..)
                .for_each(|(p, i)| *p = 255 - ((i + n) % 4) as u8)
        },
        CameraFault::Saturated,
    );
}

#[test]
fn one_colour_with_noise() {
    spoilt(
        |n, rgb| {
            let mut random = Random(n + 9);
            rgb.iter_mut().for_each(|p| *p = 90 + random.byte() % 6);
        },
        CameraFault::Uniform,
    );
}

fn noise(n: u64, rgb: &mut [u8]) {
    let mut random = Random(n + 9);
    rgb.iter_mut().for_each(|p| *p = random.byte());
}

#[test]
fn all_noise() {
    spoilt(|n, rgb| noise(n, rgb), CameraFault::Noise);
}

#[test]
fn grey_noise() {
    spoilt(
        |n, rgb| {
            let mut random = Random(n + 9);
            rgb.chunks_mut(3)
                .for_each(|pixel| pixel.fill(random.byte()));
        },
        CameraFault::Noise,
    );
}

#[test]
fn an_eighth_and_a_bit_of_noise() {
    spoilt(
        |n, rgb| noise(n, &mut rgb[WIDTH * 110 * 3..WIDTH * 160 * 3]),
        CameraFault::Noise,
    );
}

#[test]
fn a_short_picture_whose_rest_is_grey() {
    spoilt(|_, rgb| rgb[WIDTH * 200 * 3..].fill(128), CameraFault::Torn);
}

#[test]
fn a_short_picture_whose_rest_is_green() {
    // What a zeroed YUV buffer looks like.
    spoilt(
        |_, rgb| {
            rgb[WIDTH * 120 * 3..]
                .chunks_mut(3)
                .for_each(|pixel| pixel.copy_from_slice(&[0, 135, 0]))
        },
        CameraFault::Torn,
    );
}

#[test]
fn a_byte_too_few() {
    spoilt(|_, rgb| rgb.truncate(rgb.len() - 1), CameraFault::Size);
}

#[test]
fn the_same_picture_again() {
    let mut story = Story::new(EXPECTED);
    story.good();
    let rgb = scene(3, 0, 5);
    assert_eq!(story.show(&rgb), Ok(()));
    for n in 1..=4 {
        assert_eq!(story.show(&rgb), Err(CameraFault::Repeated));
        assert_eq!(
            story.health.fault(story.now),
            (n >= 3).then_some(CameraFault::Repeated)
        );
    }
    story.good();
    // A rendered picture may repeat, a number may not.
    let mut rendered = Story::new(Expected {
        noisy: false,
        ..EXPECTED
    });
    assert_eq!(rendered.show(&rgb), Ok(()));
    assert_eq!(rendered.show(&rgb), Ok(()));
    rendered.seq -= 1;
    assert_eq!(rendered.show(&rgb), Err(CameraFault::Repeated));
}

#[test]
fn a_sky_that_saturates_the_lower_half_is_no_tear() {
    let mut story = Story::new(EXPECTED);
    let mut rgb = scene(3, 0, 5);
    rgb[WIDTH * 120 * 3..].fill(255);
    assert_eq!(story.show(&rgb), Ok(()));
}

#[test]
fn fine_texture_is_no_noise() {
    // A check of two pixels, of full contrast: hard, and still a picture.
    let mut story = Story::new(EXPECTED);
    let mut random = Random(3);
    let mut rgb = Vec::new();
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            let on = (x / 4 + y / 4) % 2 == 0;
            rgb.extend([if on { 200 } else { 40 } + random.byte() % 5; 3]);
        }
    }
    assert_eq!(story.show(&rgb), Ok(()));
}

#[test]
fn late_pictures() {
    let mut story = Story::new(EXPECTED);
    story.good();
    // The first is older than the one before; those that follow it go on from there.
    for fault in [CameraFault::Backwards, CameraFault::Late, CameraFault::Late] {
        assert_eq!(story.show_late(&scene(1, 0, 1), 300 * MS), Err(fault));
    }
    assert_eq!(story.health.fault(story.now), Some(CameraFault::Late));
    // Late from the start: there is nothing that they are behind.
    let mut story = Story::new(EXPECTED);
    for n in 1..=4_u64 {
        assert_eq!(
            story.show_late(&scene(3, 0, n), 300 * MS),
            Err(CameraFault::Late)
        );
        assert_eq!(story.health.fault(story.now), Some(CameraFault::Late));
    }
    story.good();
    // On the limit is not late.
    let mut story = Story::new(EXPECTED);
    assert_eq!(story.show_late(&scene(3, 0, 1), 150 * MS), Ok(()));
    story.now = story.now.plus_ns(150 * MS);
    assert_eq!(
        story.show_late(&scene(3, 0, 2), 150 * MS + 1),
        Err(CameraFault::Late)
    );
}

#[test]
fn times_of_the_future_and_backwards() {
    let mut story = Story::new(EXPECTED);
    story.good();
    for n in 0..3_u64 {
        let now = story.now;
        let rgb = scene(3, 0, n + 900);
        let mut judge = |captured| {
            story.health.judge(
                now,
                &Picture {
                    seq: 100 + n as u32,
                    captured,
                    width: WIDTH,
                    height: HEIGHT,
                    rgb: &rgb,
                },
            )
        };
        assert_eq!(
            judge(now.plus_ns(AHEAD_MAX_NS + 1)),
            Err(CameraFault::Future)
        );
        assert_eq!(judge(now.minus_ns(9 * MS)), Err(CameraFault::Backwards));
    }
    assert_eq!(story.health.fault(story.now), Some(CameraFault::Backwards));
    story.good();
}

#[test]
fn silence() {
    let mut story = Story::new(EXPECTED);
    assert_eq!(
        story.health.fault(story.now),
        Some(CameraFault::Silent),
        "nothing has come yet"
    );
    story.good();
    let limit = story.now.plus_ns(PERIOD_NS * 5 / 2);
    assert_eq!(story.health.fault(limit), None);
    assert_eq!(
        story.health.fault(limit.plus_ns(1)),
        Some(CameraFault::Silent)
    );
    let slow = Expected {
        period_ns: None,
        ..EXPECTED
    };
    let mut story = Story::new(slow);
    story.good();
    assert_eq!(story.health.fault(story.now.plus_ns(slow.age_max_ns)), None);
    assert_eq!(
        story.health.fault(story.now.plus_ns(slow.age_max_ns + 1)),
        Some(CameraFault::Silent)
    );
}

#[test]
fn gone_and_back() {
    let mut story = Story::new(EXPECTED);
    story.good();
    story.health.lost();
    assert_eq!(story.health.fault(story.now), Some(CameraFault::Gone));
    story.good();
}

/// Pictures of another view, of which the last is the first that latches.
#[track_caller]
fn swapped(story: &mut Story) {
    for n in 1..=u64::from(BAD_MAX) {
        let rgb = scene(3, 1, u64::from(story.seq) + 500);
        assert_eq!(story.show(&rgb), Err(CameraFault::OtherView));
        let named = if n < u64::from(BAD_MAX) {
            CameraFault::Gone
        } else {
            CameraFault::OtherView
        };
        assert_eq!(story.health.fault(story.now), Some(named), "picture {n}");
    }
}

#[test]
fn another_view_after_a_replug() {
    let mut story = Story::new(EXPECTED);
    story.good();
    story.health.lost();
    swapped(&mut story);
    // Whatever else is wrong with it, and however often it goes.
    for n in 0..4 {
        assert_eq!(story.show(&darkness(n)), Err(CameraFault::Black));
        assert_eq!(story.health.fault(story.now), Some(CameraFault::OtherView));
        story.health.lost();
        assert_eq!(story.health.fault(story.now), Some(CameraFault::OtherView));
    }
    // The right one is put back.
    story.good();
    assert_eq!(
        story.show(&scene(4, 1, 7)),
        Ok(()),
        "without a gap a view may change"
    );
}

#[test]
fn another_view_after_a_long_silence() {
    let mut story = Story::new(EXPECTED);
    story.good();
    story.now = story.now.plus_ns(GAP_NS);
    swapped(&mut story);
    let mut story = Story::new(EXPECTED);
    story.good();
    story.now = story.now.plus_ns(GAP_NS);
    story.good();
}

#[test]
fn fewer_pictures_of_another_view_than_three_in_a_row_latch_nothing() {
    let mut story = Story::new(EXPECTED);
    story.good();
    for away_ns in [0, GAP_NS, 0] {
        story.health.lost();
        story.now = story.now.plus_ns(away_ns);
        for n in 1..u64::from(BAD_MAX) {
            // Those that are bad in another way are none of the three, and end nothing.
            let dark = story.show(&darkness(n as usize));
            assert_eq!(dark, Err(CameraFault::Black));
            let rgb = scene(3, 1, u64::from(story.seq) + 500);
            assert_eq!(story.show(&rgb), Err(CameraFault::OtherView));
            let fault = story.health.fault(story.now);
            assert_eq!(fault, Some(CameraFault::Gone), "picture {n}");
        }
        // It was the camera after all.
        story.good();
    }
}

#[test]
fn nothing_unlike_is_good_until_something_alike_was() {
    let mut random = Random(11);
    let mut story = Story::new(EXPECTED);
    story.good();
    story.health.lost();
    // It tells nothing: it is good, and what comes after it is compared all the same.
    assert_eq!(story.show(&stripes(1)), Ok(()));
    assert_eq!(story.health.fault(story.now), None);
    for seed in 2..60 {
        let other = scene(3, 1, seed);
        assert_eq!(story.show(&other), Err(CameraFault::OtherView));
        match random.byte() % 4 {
            0 => story.health.lost(),
            1 => story.now = story.now.plus_ns(GAP_NS),
            // Nor does it say that what was unlike is right.
            2 => assert_eq!(story.show(&stripes(seed)), Err(CameraFault::OtherView)),
            _ => assert_ne!(story.show(&darkness(seed as usize)), Ok(())),
        }
        assert!(story.health.fault(story.now).is_some());
    }
    story.good();
}

#[test]
fn one_that_moves_may_show_another_view_when_it_comes_back() {
    let moves = Expected {
        moves: true,
        ..EXPECTED
    };
    for away_ns in [0, GAP_NS] {
        let mut story = Story::new(moves);
        story.good();
        story.health.lost();
        assert_eq!(story.health.fault(story.now), Some(CameraFault::Gone));
        story.now = story.now.plus_ns(away_ns);
        assert_eq!(story.show(&scene(3, 1, 50)), Ok(()), "at once");
        assert_eq!(story.health.fault(story.now), None);
        // Nor is it compared after it was merely silent.
        story.now = story.now.plus_ns(GAP_NS);
        story.good();
    }
}

#[test]
fn a_light_that_was_switched_is_no_other_view() {
    let mut story = Story::new(EXPECTED);
    story.good();
    story.health.lost();
    let dim: Vec<u8> = scene(40, 0, 3).into_iter().map(|p| p / 3 + 20).collect();
    assert_eq!(story.show(&dim), Ok(()));
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = Random(5);
    for n in 0..2_000_u64 {
        let (width, height) = (
            usize::from(random.byte() % 40),
            usize::from(random.byte() % 40),
        );
        let mut rgb: Vec<u8> = (0..width * height * 3).map(|_| random.byte()).collect();
        if n % 5 == 0 {
            rgb.truncate(usize::from(random.byte()));
        }
        let mut health = Health::new(Expected {
            width,
            height,
            period_ns: None,
            age_max_ns: u64::MAX,
            noisy: true,
            moves: false,
        });
        let picture = Picture {
            seq: 1,
            captured: Mono(n),
            width,
            height,
            rgb: &rgb,
        };
        let _ = health.judge(Mono(n), &picture);
    }
    let mut health = Health::new(Expected {
        width: usize::MAX,
        height: usize::MAX,
        ..EXPECTED
    });
    let picture = Picture {
        seq: 1,
        captured: START,
        width: usize::MAX,
        height: usize::MAX,
        rgb: &[],
    };
    assert_eq!(health.judge(START, &picture), Err(CameraFault::Size));
}

mod together {
    use super::skew::{Apart, Need, Skew};
    use super::*;
    use Need::{Optional, Required};

    #[track_caller]
    fn check(needs: &[Need], at_ms: &[Option<u64>], expected: Result<(u64, u8), Apart>) {
        let at: Vec<Vec<Mono>> = at_ms
            .iter()
            .map(|at| at.iter().map(|ms| Mono(ms * MS)).collect())
            .collect();
        let times: Vec<&[Mono]> = at.iter().map(Vec::as_slice).collect();
        let mut skew = Skew::new(needs, 20 * MS);
        let found = skew.choose(&times);
        assert_eq!(found.map(|(t, _)| (t.skew_ns / MS, t.present)), expected);
        assert_eq!(skew.widest_ns(), found.map_or(0, |(t, _)| t.skew_ns));
    }

    /// Which picture of each camera is chosen, of these times in ms.
    #[track_caller]
    fn chosen(needs: &[Need], at_ms: &[&[u64]], expected: Result<&[usize], Apart>) {
        let at = at_ms
            .iter()
            .map(|at| at.iter().map(|ms| Mono(ms * MS)).collect());
        let at: Vec<Vec<Mono>> = at.collect();
        let times: Vec<&[Mono]> = at.iter().map(Vec::as_slice).collect();
        let found = Skew::new(needs, 20 * MS).choose(&times);
        let found = found.map(|(_, chosen)| chosen[..needs.len()].to_vec());
        assert_eq!(found, expected.map(<[usize]>::to_vec));
    }

    #[test]
    fn a_camera_whose_pictures_take_longer_to_come_is_met_by_older_ones_of_the_others() {
        const RECENT: &[u64] = &[200, 167, 133, 100];
        // The newest that is near enough, wherever it stands in the list; whichever paces the policy.
        chosen(&[Required; 2], &[RECENT, &[121, 88]], Ok(&[2, 0]));
        chosen(&[Required; 2], &[&[121, 88], RECENT], Ok(&[0, 2]));
        chosen(
            &[Required; 2],
            &[&[100, 133, 167, 200], &[121]],
            Ok(&[1, 0]),
        );
        // Cameras that are close lose nothing.
        chosen(&[Required; 2], &[RECENT, &[190, 157]], Ok(&[0, 0]));
        chosen(
            &[Required; 3],
            &[RECENT, &[190], &[119]],
            Err(Apart::Skewed {
                skew_ns: 71 * MS,
                camera: 2,
            }),
        );
        chosen(
            &[Required; 3],
            &[RECENT, &[190, 135], &[119]],
            Ok(&[2, 1, 0]),
        );
        // One that the robot can do without slows nobody, and comes along if it can.
        chosen(&[Required, Optional], &[RECENT, &[121]], Ok(&[0, 0]));
        chosen(&[Optional, Required], &[RECENT, &[150, 121]], Ok(&[1, 0]));
        // Nothing that is left is old enough.
        let behind = Apart::Skewed {
            skew_ns: 30 * MS,
            camera: 1,
        };
        chosen(&[Required; 2], &[RECENT, &[70]], Err(behind));
    }

    #[test]
    fn pictures_that_belong_together() {
        check(&[Required], &[Some(100)], Ok((0, 1)));
        check(
            &[Required; 3],
            &[Some(100), Some(120), Some(110)],
            Ok((20, 0b111)),
        );
        check(
            &[Required, Optional],
            &[Some(100), Some(115)],
            Ok((15, 0b11)),
        );
    }

    #[test]
    fn an_optional_camera_is_left_out() {
        check(&[Required, Optional], &[Some(100), None], Ok((0, 1)));
        check(&[Required, Optional], &[Some(100), Some(121)], Ok((0, 1)));
        check(
            &[Required, Optional, Required],
            &[Some(100), Some(89), Some(110)],
            Ok((10, 0b101)),
        );
    }

    #[test]
    fn a_required_camera_is_waited_for() {
        check(
            &[Required; 2],
            &[Some(100), None],
            Err(Apart::Missing { camera: 1 }),
        );
        check(
            &[Required; 2],
            &[Some(100), Some(121)],
            Err(Apart::Skewed {
                skew_ns: 21 * MS,
                camera: 0,
            }),
        );
        check(&[], &[], Err(Apart::Missing { camera: 0 }));
    }

    #[test]
    fn eight_are_the_most() {
        check(&[Required; 12], &[Some(5); 12], Ok((0, 0xff)));
    }
}

/// Rough views.
mod views {
    use crate::core::camera::view::{FIELDS, Likeness, View, exchanged};

    /// A pattern of its own for each number, at this contrast.
    fn view(number: usize, contrast: usize) -> View {
        View(std::array::from_fn(|at| {
            (60 + (at * (2 * number + 3) * 7 + number * at / 8 * 31) % 64 * contrast / 64) as u8
        }))
    }

    #[test]
    fn likeness_is_of_the_pattern() {
        let one = view(0, 120);
        assert_eq!(one.beside(&view(0, 40)), Likeness::Alike, "less light");
        for other in 1..4 {
            assert_eq!(one.beside(&view(other, 120)), Likeness::Unlike, "{other}");
        }
        let negative = View(one.0.map(|value| 255 - value));
        assert_eq!(one.beside(&negative), Likeness::Unlike);
        for faint in [view(0, 2), View([9; FIELDS])] {
            assert_eq!(one.beside(&faint), Likeness::Unknown);
            assert_eq!(faint.beside(&one), Likeness::Unknown);
        }
        let extreme = View(std::array::from_fn(|at| if at % 2 == 0 { 255 } else { 0 }));
        assert_eq!(extreme.beside(&extreme), Likeness::Alike);
    }

    #[test]
    fn only_who_shows_what_another_one_showed_and_shows_no_longer_is_exchanged() {
        let [a, b, c, d] = [0, 1, 2, 3].map(|number| Some(view(number, 120)));
        let faint = Some(view(1, 2));
        for (before, now, expected) in [
            (vec![a, b, c], vec![a, b, c], None),
            (vec![a, b, c], vec![b, a, c], Some((0, 1))),
            (vec![a, b, c], vec![b, c, a], Some((0, 1))),
            (vec![a, b, c], vec![a, c, b], Some((1, 2))),
            // One of them on a wrist that has moved meanwhile.
            (vec![a, b], vec![d, a], Some((1, 0))),
            // Moved, nothing else; both moved.
            (vec![a, b], vec![d, b], None),
            (vec![a, b], vec![c, d], None),
            // What the other one shows still may be seen from two places.
            (vec![a, b], vec![b, b], None),
            // The other one is gone, and its place taken.
            (vec![a, b], vec![b, None], Some((0, 1))),
            // Of nothing, nothing follows.
            (vec![None, b], vec![b, a], None),
            (vec![a, None], vec![b, a], None),
            (vec![a, faint], vec![b, a], None),
            (vec![a], vec![b], None),
            (vec![], vec![], None),
        ] {
            let all = exchanged(&before, &now, |_| true);
            assert_eq!(all, expected, "{before:?} {now:?}");
        }
        // Each accuses the other; who is not judged is a witness only.
        let found = exchanged(&[a, b], &[b, a], |which| which != 0);
        assert_eq!(found, Some((1, 0)));
        assert_eq!(exchanged(&[a, b], &[b, a], |_| false), None);
    }
}
