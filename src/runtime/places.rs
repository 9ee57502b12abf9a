// SPDX-License-Identifier: Apache-2.0
//! What each camera shows, roughly, and whether cameras that begin to show something are where they were: those of an inference
//! process that was started again, those that come after the robot was armed, and those that move whenever they were away.

use crate::core::camera::skew::Need;
use crate::core::camera::view::{FIELDS, Likeness, View, exchanged};
use crate::core::limits::CAMERAS_MAX;
use crate::core::units::{MS, Mono};
use crate::runtime::cameras::Watched;
use std::array::from_fn;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words in which a view crosses to other threads and processes.
pub const WORDS: usize = FIELDS / 8;

/// The newest view of a camera, for other threads; told before the time of its picture is. Who reads while it is written gets a
/// part of each of two views of one camera, which is a view of it.
#[derive(Debug, Default)]
pub struct Newest([AtomicU64; WORDS]);

impl Newest {
    /// Tells it.
    pub fn set(&self, view: &View) {
        let (eights, _) = view.0.as_chunks::<8>();
        for (word, eight) in self.0.iter().zip(eights) {
            word.store(u64::from_le_bytes(*eight), Ordering::Relaxed);
        }
    }

    /// Tells it as [`Newest::words`] gave it.
    pub fn set_words(&self, words: [u64; WORDS]) {
        for (word, value) in self.0.iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// As it crosses.
    #[must_use]
    pub fn words(&self) -> [u64; WORDS] {
        from_fn(|at| self.0[at].load(Ordering::Relaxed))
    }

    /// What was told; `None` for nothing, or blackness.
    #[must_use]
    pub fn get(&self) -> Option<View> {
        let words = self.words();
        let byte = |at: usize| words[at / 8].to_le_bytes()[at % 8];
        (words != [0; WORDS]).then(|| View(from_fn(byte)))
    }
}

/// What each of these cameras shows, or showed last; nothing for those that there are not. Allocates nothing.
#[must_use]
pub fn newest(cameras: &[Watched]) -> [Option<View>; CAMERAS_MAX] {
    from_fn(|which| {
        let camera = cameras.get(which)?;
        // Before the first picture's time is told, its view may be there in part.
        let begun = camera.newest_ns.load(Ordering::Acquire) != 0;
        camera.view.get().filter(|_| begun)
    })
}

/// What is to be said of two of these cameras.
#[must_use]
pub fn words(cameras: &[Watched], (one, other): (usize, usize), when: &str) -> String {
    let name = |at: usize| cameras.get(at).map_or("", |camera| camera.name.as_str());
    format!(
        "camera \"{}\" shows what \"{}\" showed {when}",
        name(one),
        name(other)
    )
}

/// First pictures may be dim or glaring, until a camera has found its exposure: for so long they do not settle what it shows.
const EXPOSING_NS: u64 = 2_000 * MS;

/// Whether cameras that begin to show something are where they were.
#[derive(Debug, Default)]
pub struct Places {
    /// What each showed; `None` for one that shows it again, or of which nothing is known.
    before: Vec<Option<View>>,
    stands: Vec<Stand>,
    exchanged: Option<(usize, usize)>,
}

/// Whether a camera is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// When it shows something; since when it does, and all that are needed do.
    Awaited(Option<Mono>),
    /// Not any more: it shows what it showed, or something new, as one on a wrist may. What it showed before still tells where
    /// another one was.
    Settled,
}

impl Places {
    /// Of cameras that showed this.
    #[must_use]
    pub fn new(before: Vec<Option<View>>, stands: Vec<Stand>) -> Places {
        Places {
            before,
            stands,
            exchanged: None,
        }
    }

    /// Of cameras of which nothing is known yet.
    #[must_use]
    pub fn unknown() -> Places {
        Places::new(vec![None; CAMERAS_MAX], vec![Stand::Settled; CAMERAS_MAX])
    }

    /// How this one stands.
    #[must_use]
    pub fn stand(&self, camera: usize) -> Stand {
        self.stands
            .get(camera)
            .map_or(Stand::Settled, |stand| *stand)
    }

    /// The process is gone. What its cameras showed is where those of the next one should be, if that was settled; else it stays
    /// what it was.
    pub fn lost(&mut self, cameras: &[Watched]) {
        let showed = newest(cameras).into_iter().take(cameras.len()).enumerate();
        let before = showed.map(|(camera, showed)| {
            let before = self.before.get(camera).copied().flatten();
            match self.stand(camera) {
                Stand::Awaited(_) => before.or(showed),
                Stand::Settled => showed.or(before),
            }
        });
        let before: Vec<_> = before.collect();
        let stands = vec![Stand::Awaited(None); before.len()];
        *self = Places::new(before, stands);
        for camera in cameras {
            // Its next picture is told after its view.
            camera.newest_ns.store(0, Ordering::Release);
            camera.view.set_words([0; WORDS]);
        }
    }

    /// Two that are exchanged, as last found.
    #[must_use]
    pub fn exchanged(&self) -> Option<(usize, usize)> {
        self.exchanged
    }

    /// Two cameras that were exchanged, until one of them shows again what it showed. Judged from when all that are needed have
    /// shown something, until each shows what it showed, or for a while: one on a wrist may have moved.
    pub fn found(&mut self, cameras: &[Watched], now: Mono) -> Option<(usize, usize)> {
        self.judge(cameras, &newest(cameras), now)
    }

    /// The same of cameras that move, whenever one of them was away. Each of them may come back with a view that it never had, so
    /// nobody has compared it with its own ([`Expected::moves`](crate::core::camera::Expected::moves)); what the others showed when
    /// they were last well tells whether it has come back in the place of one of those. For cameras that are told of at every round.
    ///
    /// Away is who gives nothing good, for whatever reason: who looks again for a camera need not have said so.
    pub fn returned(&mut self, cameras: &[Watched], now: Mono) -> Option<(usize, usize)> {
        // Read before the views: one that is well by then shows why.
        let away: [bool; CAMERAS_MAX] = from_fn(|which| {
            let camera = cameras.get(which);
            camera.is_some_and(|camera| camera.cause().is_some())
        });
        let mut shown = newest(cameras);
        let each = cameras.iter().zip(away).zip(&mut shown);
        for (((camera, away), shown), stand) in each.zip(&mut self.stands) {
            if away {
                // What is told of it is what it showed last.
                *shown = None;
                if camera.moves {
                    *stand = Stand::Awaited(None);
                }
            }
        }
        self.follow(&shown);
        let pair = self.judge(cameras, &shown, now);
        // Who shows again what it showed is forgotten there, and may be the next that goes.
        self.follow(&shown);
        pair
    }

    /// Who was well all the time has not changed places, whatever it shows. So what it shows is what it showed, if there is a pattern
    /// in it; and what one showed that is away stays.
    fn follow(&mut self, shown: &[Option<View>]) {
        let tells = |view: &View| view.beside(view) != Likeness::Unknown;
        let known = self.before.iter_mut().zip(&mut self.stands);
        for ((before, stand), shown) in known.zip(shown) {
            if *stand == Stand::Settled || before.is_none() {
                *before = shown.filter(tells).or(*before);
                *stand = Stand::Settled;
            }
        }
    }

    fn judge(
        &mut self,
        cameras: &[Watched],
        shown: &[Option<View>],
        now: Mono,
    ) -> Option<(usize, usize)> {
        let awaited = |(stand, before): (&Stand, &Option<View>)| {
            matches!(stand, Stand::Awaited(_)) && before.is_some()
        };
        if !self.stands.iter().zip(&self.before).any(awaited) {
            return None;
        }
        let alike = |camera: usize| {
            let of = |views: &[Option<View>]| views.get(camera).copied().flatten();
            let both = of(shown).zip(of(&self.before));
            both.is_some_and(|(shown, before)| shown.beside(&before) == Likeness::Alike)
        };
        if let Some((one, other)) = self.exchanged {
            if !alike(one) && !alike(other) {
                return self.exchanged;
            }
            self.exchanged = None;
        }
        let mut each = cameras.iter().zip(&self.before).zip(shown);
        if each.any(|((camera, before), shown)| {
            camera.need == Need::Required && before.is_some() && shown.is_none()
        }) {
            return None;
        }
        let judged = |camera: usize| self.stand(camera) != Stand::Settled;
        self.exchanged = exchanged(&self.before, shown, judged);
        if self.exchanged.is_some() {
            return self.exchanged;
        }
        let known = self.before.iter_mut().zip(&mut self.stands);
        for ((before, stand), shown) in known.zip(shown) {
            let again = before.zip(*shown);
            if again.is_some_and(|(before, shown)| shown.beside(&before) == Likeness::Alike) {
                (*before, *stand) = (None, Stand::Settled);
            } else if let (Stand::Awaited(since), Some(_)) = (&mut *stand, shown) {
                if now.since_ns(*since.get_or_insert(now)) > EXPOSING_NS {
                    *stand = Stand::Settled;
                }
            } else if let Stand::Awaited(since) = stand {
                // Gone again: its next pictures may be dim once more.
                *since = None;
            }
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::core::governor::reaction::Cause;
    use std::sync::Arc;

    pub(crate) fn camera(name: &str, need: Need) -> Watched {
        Watched {
            name: name.to_owned(),
            need,
            moves: false,
            age_max_ns: 0,
            newest_ns: Arc::new(AtomicU64::new(1)),
            moments: Arc::default(),
            refused: Arc::default(),
            counted: Arc::default(),
            fault: Arc::default(),
            view: Arc::default(),
        }
    }

    pub(crate) fn show<const N: usize>(cameras: &[Watched; N], views: [Option<&View>; N]) {
        for (camera, view) in cameras.iter().zip(views) {
            camera.view.set_words([0; WORDS]);
            camera.newest_ns.store(1, Ordering::Relaxed);
            if let Some(view) = view {
                camera.view.set(view);
            }
        }
    }

    /// Whether it is one that moves.
    pub(crate) fn moving(name: &str, need: Need) -> Watched {
        Watched {
            moves: true,
            ..camera(name, need)
        }
    }

    /// It gives nothing good, or is well again.
    pub(crate) fn away(camera: &Watched, is: bool) {
        let cause = if is { Cause::CameraLost as u8 } else { 0 };
        camera.fault.store(cause, Ordering::Relaxed);
    }

    pub(crate) const NOW: Mono = Mono(60_000 * MS);

    pub(crate) fn steep(step: usize) -> View {
        View(from_fn(|at| (10 + at * step % 64 * 3) as u8))
    }

    #[test]
    fn cameras_of_a_process_that_was_started_again_are_where_they_were() {
        let (one, other, third) = (steep(1), steep(27), steep(11));
        let cameras = [
            camera("front", Need::Required),
            camera("side", Need::Required),
        ];
        let (right, wrong) = ([Some(&one), Some(&other)], [Some(&other), Some(&one)]);
        let mut places = Places::default();
        show(&cameras, right);
        assert_eq!(places.found(&cameras, NOW), None, "the first process");
        places.lost(&cameras);
        assert_eq!(newest(&cameras), [None; CAMERAS_MAX]);
        show(&cameras, [Some(&other), None]);
        assert_eq!(
            places.found(&cameras, NOW),
            None,
            "not all have shown something"
        );
        // It ends before they do; nobody has said that what it showed is right.
        places.lost(&cameras);
        show(&cameras, wrong);
        assert_eq!(places.found(&cameras, NOW), Some((0, 1)));
        show(&cameras, [Some(&other), Some(&third)]);
        assert_eq!(places.found(&cameras, NOW), Some((0, 1)), "not right yet");
        // That process ends: what its cameras showed is not where they should be.
        places.lost(&cameras);
        show(&cameras, wrong);
        assert_eq!(places.found(&cameras, NOW), Some((0, 1)));
        show(&cameras, [Some(&one), Some(&third)]);
        assert_eq!(places.found(&cameras, NOW), None, "the first is back");
        show(&cameras, wrong);
        assert_eq!(
            places.found(&cameras, NOW),
            None,
            "who judges pictures sees that"
        );
        places.lost(&cameras);
        show(&cameras, wrong);
        assert_eq!(
            places.found(&cameras, NOW),
            None,
            "as the last process had them"
        );
    }

    #[test]
    fn cameras_that_the_robot_can_do_without_are_judged_when_they_come() {
        let (one, other, third) = (steep(1), steep(27), steep(11));
        let cameras = [
            camera("front", Need::Required),
            camera("left", Need::Optional),
            camera("right", Need::Optional),
        ];
        let mut places = Places::default();
        show(&cameras, [Some(&one), Some(&other), Some(&third)]);
        places.lost(&cameras);
        show(&cameras, [Some(&one), None, None]);
        assert_eq!(places.found(&cameras, NOW), None);
        show(&cameras, [Some(&one), Some(&third), None]);
        assert_eq!(places.found(&cameras, NOW), Some((1, 2)));
        // Dim first pictures settle nothing; after a while what they show is what there is.
        for (after_ns, expected) in [(0, Some((1, 2))), (EXPOSING_NS + 1, None)] {
            places.lost(&cameras);
            show(&cameras, [Some(&one), Some(&View([9; FIELDS])), None]);
            assert_eq!(places.found(&cameras, NOW), None);
            assert_eq!(places.found(&cameras, NOW.plus_ns(after_ns)), None);
            show(&cameras, [Some(&one), Some(&third), None]);
            let found = places.found(&cameras, NOW.plus_ns(after_ns));
            assert_eq!(found, expected);
        }
        // Each finds its exposure from when it comes, however late that is, and anew when it comes again.
        let right = [Some(&one), Some(&other), Some(&third)];
        places = Places::default();
        show(&cameras, right);
        places.lost(&cameras);
        show(&cameras, [Some(&one), None, None]);
        assert_eq!(places.found(&cameras, NOW), None);
        let late = NOW.plus_ns(10 * EXPOSING_NS);
        show(&cameras, [Some(&one), Some(&View([9; FIELDS])), None]);
        assert_eq!(places.found(&cameras, late), None);
        show(&cameras, [Some(&one), Some(&third), None]);
        assert_eq!(places.found(&cameras, late), Some((1, 2)));
        // It is over when one of the two is seen to be right.
        show(&cameras, [Some(&one), Some(&third), Some(&third)]);
        assert_eq!(places.found(&cameras, late), None);
        // One that has moved is not judged any more; what it showed still tells where another one was.
        places = Places::default();
        show(&cameras, right);
        places.lost(&cameras);
        let moved = steep(19);
        show(&cameras, [Some(&one), Some(&moved), None]);
        for after_ns in [0, EXPOSING_NS + 1] {
            assert_eq!(places.found(&cameras, NOW.plus_ns(after_ns)), None);
        }
        show(&cameras, [Some(&one), Some(&third), None]);
        assert_eq!(places.found(&cameras, late), None);
        show(&cameras, [Some(&one), Some(&moved), Some(&other)]);
        assert_eq!(places.found(&cameras, late), Some((2, 1)));
        places = Places::default();
        show(&cameras, right);
        places.lost(&cameras);
        // Its first picture is not told yet: what stands there may be a part of a view.
        places.lost(&cameras);
        show(&cameras, [Some(&one), Some(&third), None]);
        cameras[1].newest_ns.store(0, Ordering::Relaxed);
        assert_eq!(places.found(&cameras, NOW), None);
    }
    /// A wrist's camera that comes back, beside another one and a fixed one.
    fn wrists() -> ([Watched; 3], Places) {
        let cameras = [
            camera("front", Need::Required),
            moving("left", Need::Optional),
            moving("right", Need::Optional),
        ];
        let mut places = Places::unknown();
        for each in &cameras {
            away(each, true);
        }
        assert_eq!(places.returned(&cameras, NOW), None, "nothing has come yet");
        for each in &cameras {
            away(each, false);
        }
        show(
            &cameras,
            [Some(&steep(1)), Some(&steep(27)), Some(&steep(11))],
        );
        assert_eq!(places.returned(&cameras, NOW), None);
        (cameras, places)
    }

    #[test]
    fn one_that_moves_may_come_back_with_another_view() {
        let (one, other, third, moved) = (steep(1), steep(27), steep(11), steep(19));
        let (cameras, mut places) = wrists();
        away(&cameras[1], true);
        assert_eq!(places.returned(&cameras, NOW), None);
        away(&cameras[1], false);
        show(&cameras, [Some(&one), Some(&moved), Some(&third)]);
        assert_eq!(places.returned(&cameras, NOW), None);
        // What the other one shows as well may be seen from two places.
        show(&cameras, [Some(&one), Some(&third), Some(&third)]);
        assert_eq!(places.returned(&cameras, NOW), None);
        // Arms that move on show this and that, and nobody was away.
        for after_ns in [0, EXPOSING_NS + 1, EXPOSING_NS + 1] {
            show(&cameras, [Some(&one), Some(&moved), Some(&other)]);
            assert_eq!(places.returned(&cameras, NOW.plus_ns(after_ns)), None);
        }
        show(&cameras, [Some(&one), Some(&other), Some(&moved)]);
        assert_eq!(places.returned(&cameras, NOW), None);
        assert_eq!(places.exchanged(), None);
    }

    #[test]
    fn one_that_moves_and_comes_back_in_the_place_of_another_one_is_exchanged() {
        let (one, other, third) = (steep(1), steep(27), steep(11));
        let lost = |of: &[usize]| {
            let (cameras, mut places) = wrists();
            for which in of {
                away(&cameras[*which], true);
            }
            assert_eq!(places.returned(&cameras, NOW), None);
            (cameras, places)
        };
        // The other one is away still, and what is told of it is old.
        let (cameras, mut places) = lost(&[1, 2]);
        away(&cameras[1], false);
        // Dim first pictures settle nothing.
        let dim = View([9; FIELDS]);
        show(&cameras, [Some(&one), Some(&dim), Some(&third)]);
        assert_eq!(places.returned(&cameras, NOW), None);
        show(&cameras, [Some(&one), Some(&third), Some(&third)]);
        assert_eq!(places.returned(&cameras, NOW), Some((1, 2)));
        away(&cameras[2], false);
        show(&cameras, [Some(&one), Some(&third), Some(&other)]);
        assert_eq!(places.returned(&cameras, NOW), Some((1, 2)));
        // Put right.
        for each in &cameras[1..] {
            away(each, true);
        }
        assert_eq!(places.returned(&cameras, NOW), Some((1, 2)));
        for each in &cameras[1..] {
            away(each, false);
        }
        show(&cameras, [Some(&one), Some(&other), Some(&third)]);
        assert_eq!(places.returned(&cameras, NOW), None);
        // One after the other, as a person pulls plugs.
        let (cameras, mut places) = lost(&[1]);
        assert_eq!(places.returned(&cameras, NOW), None);
        away(&cameras[2], true);
        assert_eq!(places.returned(&cameras, NOW), None);
        away(&cameras[1], false);
        show(&cameras, [Some(&one), Some(&third), Some(&third)]);
        assert_eq!(places.returned(&cameras, NOW), Some((1, 2)));
        // Both at once.
        let (cameras, mut places) = lost(&[1, 2]);
        for each in &cameras {
            away(each, false);
        }
        show(&cameras, [Some(&one), Some(&third), Some(&other)]);
        assert_eq!(places.returned(&cameras, NOW), Some((1, 2)));
        // In the place of one that does not move, and is refused by who judges its pictures.
        let (cameras, mut places) = lost(&[0, 1]);
        away(&cameras[1], false);
        show(&cameras, [Some(&one), Some(&one), Some(&third)]);
        assert_eq!(
            places.returned(&cameras, NOW),
            None,
            "the robot holds without the one that it needs"
        );
        // That one was right.
        away(&cameras[0], false);
        assert_eq!(places.returned(&cameras, NOW), None);
        // What it shows is what it showed when it was last well, not at the start, and not what tells nothing.
        let (cameras, mut places) = wrists();
        for moved in [steep(19), dim] {
            show(&cameras, [Some(&one), Some(&other), Some(&moved)]);
            assert_eq!(places.returned(&cameras, NOW), None);
        }
        for each in &cameras[1..] {
            away(each, true);
        }
        assert_eq!(places.returned(&cameras, NOW), None);
        away(&cameras[1], false);
        show(&cameras, [Some(&one), Some(&third), Some(&third)]);
        assert_eq!(places.returned(&cameras, NOW), None);
        show(&cameras, [Some(&one), Some(&steep(19)), Some(&third)]);
        assert_eq!(places.returned(&cameras, NOW), Some((1, 2)));
    }
}
