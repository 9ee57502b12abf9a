// SPDX-License-Identifier: Apache-2.0
//! Which pictures of several cameras make one observation: of one moment, as nearly as they were taken.

use crate::core::camera::skew::{Apart, Need, Skew, Together};
use crate::core::limits::CAMERAS_MAX;
use crate::core::units::{MS, Mono};
use crate::ports::Frame;
use crate::runtime::cameras::Watched;
use crate::runtime::reel::KEPT_MAX;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// When the last good pictures of a camera were captured, for other threads; told by one.
#[derive(Debug, Default)]
pub struct Moments {
    ns: [AtomicU64; KEPT_MAX],
    next: AtomicUsize,
}

impl Moments {
    /// Tells one more.
    pub fn tell(&self, captured: Mono) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % KEPT_MAX;
        if let Some(slot) = self.ns.get(next) {
            slot.store(captured.0, Ordering::Relaxed);
        }
    }

    /// Those that were told, in any order.
    fn told(&self) -> Times {
        let told = self.ns.iter().map(|ns| Mono(ns.load(Ordering::Relaxed)));
        told.filter(|at| *at != Mono(0)).collect()
    }
}

type Times = heapless::Vec<Mono, KEPT_MAX>;

/// What is to be looked at together. See [`Skew::choose`].
#[derive(Debug)]
pub struct Gather {
    skew: Skew,
    skew_max_ns: u64,
    cameras: Arc<Vec<Watched>>,
    /// Times that there was no observation because a camera's pictures were too far from another's.
    pub apart: Arc<AtomicU64>,
    /// The widest skew of an observation so far.
    pub widest_ns: Arc<AtomicU64>,
}

impl Gather {
    /// The policy's camera is the first of `cameras`.
    #[must_use]
    pub fn new(cameras: &Arc<Vec<Watched>>, skew_max_ns: u64) -> Gather {
        let needs: Vec<Need> = cameras.iter().map(|each| each.need).collect();
        Gather {
            skew: Skew::new(&needs, skew_max_ns),
            skew_max_ns,
            cameras: Arc::clone(cameras),
            apart: Arc::default(),
            widest_ns: Arc::default(),
        }
    }

    /// Whether pictures that were told of belong together.
    ///
    /// # Errors
    /// [`Apart`]: one is missing, or too far from another.
    pub fn together(&mut self, now: Mono) -> Result<Together, Apart> {
        self.chosen(now, &[]).map(|(together, _)| together)
    }

    /// Chooses of the pictures in hand, `recent` of each camera in the order of tendon.toml; `None` is a camera through which the
    /// policy does not look, of which the times that were told count. The answer has `None` for one that does not take part: it is of
    /// another moment, its camera is not to be trusted, or the policy does not look through it.
    ///
    /// # Errors
    /// [`Apart`]: one that is needed is missing, or too far from another.
    pub fn of_one_moment<'a>(
        &mut self,
        now: Mono,
        recent: &[Option<&'a [Arc<Frame>]>],
    ) -> Result<[Option<&'a Frame>; CAMERAS_MAX], Apart> {
        let (together, chosen) = self.chosen(now, recent)?;
        let mut frames = [None; CAMERAS_MAX];
        let each = frames.iter_mut().zip(recent).zip(chosen).enumerate();
        for (camera, ((frame, recent), index)) in each {
            if together.present & (1 << camera) != 0 {
                *frame = recent
                    .and_then(|recent| recent.get(index))
                    .map(|frame| &**frame);
            }
        }
        Ok(frames)
    }

    fn chosen(
        &mut self,
        now: Mono,
        recent: &[Option<&[Arc<Frame>]>],
    ) -> Result<(Together, [usize; CAMERAS_MAX]), Apart> {
        let mut times: heapless::Vec<Times, CAMERAS_MAX> = heapless::Vec::new();
        for (index, camera) in self.cameras.iter().take(CAMERAS_MAX).enumerate() {
            // What is too old for its camera is not shown, though a slower camera has one of that moment. The first one's age is judged
            // by who asks the policy.
            let shown = |at: &Mono| index == 0 || now.since_ns(*at) <= camera.age_max_ns;
            let all: Times = match (camera.captured(), recent.get(index).copied().flatten()) {
                (None, _) => Times::new(),
                // The newest first: what is left stands where it stood.
                (Some(_), Some(frames)) => {
                    let all = frames.iter().map(|frame| frame.captured);
                    all.take_while(shown).collect()
                }
                (Some(_), None) => camera.moments.told().into_iter().filter(shown).collect(),
            };
            // As many as there are cameras.
            let _ = times.push(all);
        }
        let lists: heapless::Vec<&[Mono], CAMERAS_MAX> = times.iter().map(|all| &**all).collect();
        let chosen = self.skew.choose(&lists);
        if matches!(chosen, Err(Apart::Skewed { .. })) {
            self.apart.fetch_add(1, Ordering::Relaxed);
        }
        self.widest_ns
            .store(self.skew.widest_ns(), Ordering::Relaxed);
        chosen
    }

    /// Why there is no observation, for people.
    #[must_use]
    pub fn words(&self, apart: Apart) -> String {
        let name = |camera: usize| self.cameras.get(camera).map_or("", |each| &each.name);
        match apart {
            Apart::Missing { camera } => {
                format!("camera \"{}\" gives no good picture", name(camera))
            }
            Apart::Skewed { skew_ns, camera } => format!(
                "expected pictures at most {} ms apart (policy.max_skew_ms), found camera \"{}\" {} ms behind another one, and of that one none so old is left or may be shown (camera.age_max_ms)",
                self.skew_max_ns / MS,
                name(camera),
                skew_ns / MS
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::places::tests::camera;

    const NOW: Mono = Mono(300 * MS);

    fn recent(ms: &[u64]) -> Vec<Arc<Frame>> {
        let frames = ms.iter().map(|ms| {
            Arc::new(Frame {
                captured: Mono(ms * MS),
                seq: *ms as u32,
                ..Frame::black(2, 2)
            })
        });
        frames.collect()
    }

    fn gather(needs: [Need; 3], age_max_ms: u64) -> (Gather, Arc<Vec<Watched>>) {
        let names = ["front", "side", "top"];
        let all = names.iter().zip(needs);
        let cameras: Arc<Vec<Watched>> = Arc::new(
            all.map(|(name, need)| Watched {
                age_max_ns: age_max_ms * MS,
                ..camera(name, need)
            })
            .collect(),
        );
        (Gather::new(&cameras, 50 * MS), cameras)
    }

    #[track_caller]
    fn check(found: Result<[Option<&Frame>; CAMERAS_MAX], Apart>, seqs: [Option<u32>; 3]) {
        let found = found.map(|all| all.map(|frame| frame.map(|frame| frame.seq)));
        assert_eq!(found.map(|all| [all[0], all[1], all[2]]), Ok(seqs));
    }

    #[test]
    fn pictures_in_hand_are_of_one_moment_and_times_count_of_those_that_are_not() {
        let (mut gather, cameras) = gather([Need::Required; 3], 1_000);
        let (front, side) = (recent(&[300, 267, 233, 200]), recent(&[180, 147]));
        for ms in [190, 223, 290] {
            cameras[2].moments.tell(Mono(ms * MS));
        }
        let hand: [Option<&[Arc<Frame>]>; 3] = [Some(&front), Some(&side), None];
        check(
            gather.of_one_moment(NOW, &hand),
            [Some(200), Some(180), None],
        );
        assert_eq!(gather.widest_ns.load(Ordering::Relaxed), 43 * MS);
        // Of the third only what is newer is told: it is not waited for, its picture then has gone by.
        for ms in 301..=301 + KEPT_MAX as u64 {
            cameras[2].moments.tell(Mono(ms * MS));
        }
        let apart = gather.of_one_moment(NOW, &hand).expect_err("apart");
        let words = gather.words(apart);
        assert!(
            words.contains("at most 50 ms apart")
                && words.contains("camera \"side\" 122 ms behind"),
            "{words}"
        );
        assert_eq!(gather.apart.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_picture_that_is_too_old_for_its_camera_is_not_shown() {
        let (mut gather, cameras) = gather([Need::Required; 3], 100);
        let (front, side) = (recent(&[180]), recent(&[300, 267, 200]));
        for ms in [200, 300] {
            cameras[2].moments.tell(Mono(ms * MS));
        }
        let hand: [Option<&[Arc<Frame>]>; 3] = [Some(&front), Some(&side), None];
        // All may be 100 ms old.
        check(
            gather.of_one_moment(Mono(300 * MS), &hand),
            [Some(180), Some(200), None],
        );
        let apart = gather.of_one_moment(Mono(301 * MS), &hand);
        let words = gather.words(apart.expect_err("those of 200 ms are too old"));
        assert!(words.contains("camera \"front\" 120 ms behind"), "{words}");
        // One through which the policy looks, and of which nothing is in hand yet.
        let hand: [Option<&[Arc<Frame>]>; 3] = [Some(&front), Some(&[]), None];
        let missing = gather
            .of_one_moment(NOW, &hand)
            .expect_err("nothing in hand");
        assert_eq!(
            gather.words(missing),
            "camera \"side\" gives no good picture"
        );
    }

    #[test]
    fn a_camera_that_is_not_to_be_trusted_takes_no_part() {
        let (mut gather, cameras) = gather([Need::Required, Need::Optional, Need::Optional], 1_000);
        let (front, side, top) = (recent(&[300]), recent(&[290]), recent(&[200]));
        let hand: [Option<&[Arc<Frame>]>; 3] = [Some(&front), Some(&side), Some(&top)];
        check(
            gather.of_one_moment(NOW, &hand),
            [Some(300), Some(290), None],
        );
        cameras[1].fault.store(
            crate::core::governor::reaction::Cause::CameraBlind as u8,
            Ordering::Relaxed,
        );
        check(gather.of_one_moment(NOW, &hand), [Some(300), None, None]);
        cameras[0].newest_ns.store(0, Ordering::Relaxed);
        let apart = gather
            .of_one_moment(NOW, &hand)
            .expect_err("nothing to go by");
        assert_eq!(
            gather.words(apart),
            "camera \"front\" gives no good picture"
        );
        assert_eq!(
            gather.apart.load(Ordering::Relaxed),
            0,
            "missing is not apart"
        );
    }
}
