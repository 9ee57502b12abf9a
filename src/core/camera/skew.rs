// SPDX-License-Identifier: Apache-2.0
//! Pictures of several cameras that belong together: how far apart they were taken, and whether that may be.

use crate::core::limits::CAMERAS_MAX;
use crate::core::units::Mono;
use heapless::Vec;

/// What is asked of one camera.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without it there is no observation.
    Required,
    /// An observation may go without it.
    Optional,
}

/// What the chosen pictures make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Together {
    /// Between the oldest and the newest picture that takes part.
    pub skew_ns: u64,
    /// The oldest: the observation's time.
    pub oldest: Mono,
    /// Which cameras take part: bit `i` is camera `i`.
    pub present: u8,
}

/// Why there is no observation yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Apart {
    /// A required camera has given nothing.
    #[error("camera {camera} has given no picture")]
    Missing {
        /// Its index.
        camera: usize,
    },
    /// The pictures were taken too far from each other.
    #[error("the pictures are {skew_ns} ns apart; camera {camera} is behind")]
    Skewed {
        /// Between the oldest and the newest.
        skew_ns: u64,
        /// The one with the oldest picture.
        camera: usize,
    },
}

/// The cameras of one observation.
#[derive(Clone, Debug)]
pub struct Skew {
    needs: Vec<Need, CAMERAS_MAX>,
    chosen: Vec<Option<Mono>, CAMERAS_MAX>,
    skew_max_ns: u64,
    widest_ns: u64,
}

impl Skew {
    /// Cameras in the order of `needs`; those beyond [`CAMERAS_MAX`] are left out.
    #[must_use]
    pub fn new(needs: &[Need], skew_max_ns: u64) -> Skew {
        let needs: Vec<Need, CAMERAS_MAX> = needs.iter().copied().take(CAMERAS_MAX).collect();
        let chosen = needs.iter().map(|_| None).collect();
        Skew {
            needs,
            chosen,
            skew_max_ns,
            widest_ns: 0,
        }
    }

    /// The widest skew of all observations so far.
    #[must_use]
    pub fn widest_ns(&self) -> u64 {
        self.widest_ns
    }

    /// Chooses a picture of each camera, of the times of its recent ones (in any order; none for a camera that has nothing to
    /// give), and tells where each stands in its list: the newest that was not taken more than the allowed skew after the moment of
    /// which every required camera has one. So cameras whose pictures take longer to come than others' make an observation with
    /// those, as old as the slowest; and of cameras that are close it is the newest. An optional camera that is too far from the
    /// required ones is left out; a required one is waited for.
    ///
    /// # Errors
    /// [`Apart`].
    pub fn choose(&mut self, times: &[&[Mono]]) -> Result<(Together, [usize; CAMERAS_MAX]), Apart> {
        let required = self.needs.iter().zip(times);
        let required = required.filter(|(need, _)| **need == Need::Required);
        let moment = required
            .filter_map(|(_, times)| times.iter().max().copied())
            .min()
            .unwrap_or_default();
        let until = moment.plus_ns(self.skew_max_ns);
        let mut chosen = [0; CAMERAS_MAX];
        for ((slot, chosen), times) in self.chosen.iter_mut().zip(&mut chosen).zip(times) {
            let each = || times.iter().copied().enumerate();
            let newest = each()
                .filter(|(_, at)| *at <= until)
                .max_by_key(|(_, at)| *at);
            let found = newest.or_else(|| each().min_by_key(|(_, at)| *at));
            *slot = found.map(|(index, at)| {
                *chosen = index;
                at
            });
        }
        Ok((self.together()?, chosen))
    }

    /// Whether those that were chosen make an observation.
    fn together(&mut self) -> Result<Together, Apart> {
        let mut bounds: Option<((usize, Mono), Mono)> = None;
        let mut present = 0_u8;
        for (camera, (need, newest)) in self.needs.iter().zip(&self.chosen).enumerate() {
            match (need, newest) {
                (Need::Required, None) => return Err(Apart::Missing { camera }),
                (Need::Required, Some(at)) => {
                    present |= 1 << camera;
                    bounds = Some(match bounds {
                        None => ((camera, *at), *at),
                        Some((oldest, newest)) => (
                            if *at < oldest.1 {
                                (camera, *at)
                            } else {
                                oldest
                            },
                            newest.max(*at),
                        ),
                    });
                }
                (Need::Optional, _) => {}
            }
        }
        let Some(((behind, mut oldest), mut latest)) = bounds else {
            return Err(Apart::Missing { camera: 0 });
        };
        let skew_ns = latest.since_ns(oldest);
        if skew_ns > self.skew_max_ns {
            return Err(Apart::Skewed {
                skew_ns,
                camera: behind,
            });
        }
        for (camera, (need, newest)) in self.needs.iter().zip(&self.chosen).enumerate() {
            let (Need::Optional, Some(at)) = (need, newest) else {
                continue;
            };
            let (low, high) = (oldest.min(*at), latest.max(*at));
            if high.since_ns(low) <= self.skew_max_ns {
                (oldest, latest) = (low, high);
                present |= 1 << camera;
            }
        }
        let skew_ns = latest.since_ns(oldest);
        self.widest_ns = self.widest_ns.max(skew_ns);
        Ok(Together {
            skew_ns,
            oldest,
            present,
        })
    }
}
