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

/// What the newest pictures make.
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
    newest: Vec<Option<Mono>, CAMERAS_MAX>,
    skew_max_ns: u64,
    widest_ns: u64,
}

impl Skew {
    /// Cameras in the order of `needs`; those beyond [`CAMERAS_MAX`] are left out.
    #[must_use]
    pub fn new(needs: &[Need], skew_max_ns: u64) -> Skew {
        let needs: Vec<Need, CAMERAS_MAX> = needs.iter().copied().take(CAMERAS_MAX).collect();
        let newest = needs.iter().map(|_| None).collect();
        Skew {
            needs,
            newest,
            skew_max_ns,
            widest_ns: 0,
        }
    }

    /// Camera `camera` gave a good picture, or lost what it gave (`None`).
    pub fn set(&mut self, camera: usize, captured: Option<Mono>) {
        if let Some(slot) = self.newest.get_mut(camera) {
            *slot = captured;
        }
    }

    /// The widest skew of all observations so far.
    #[must_use]
    pub fn widest_ns(&self) -> u64 {
        self.widest_ns
    }

    /// Whether the newest pictures make an observation. An optional camera that is too far from the required ones is
    /// left out; a required one is waited for.
    ///
    /// # Errors
    /// [`Apart`].
    pub fn together(&mut self) -> Result<Together, Apart> {
        let mut bounds: Option<((usize, Mono), Mono)> = None;
        let mut present = 0_u8;
        for (camera, (need, newest)) in self.needs.iter().zip(&self.newest).enumerate() {
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
        for (camera, (need, newest)) in self.needs.iter().zip(&self.newest).enumerate() {
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
