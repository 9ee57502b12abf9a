// SPDX-License-Identifier: Apache-2.0
//! The space a robot may use: a workspace box, keep-out boxes, and capsules that must stay apart.

use crate::core::kinematics::geometry::{Cuboid, Point, Segment, length, segment_distance};
use crate::core::kinematics::{Chain, Malformed, Sums};
use crate::core::limits::{
    CAPSULE_PAIRS_MAX, CAPSULES_MAX, JOINTS_MAX, KEEP_OUTS_MAX, LINKS_MAX, SPACE_CHECKS_MAX,
};
use heapless::Vec;

/// Taken off every distance, metres: far above the rounding of sums of tens of metres in 64-bit floats, far below what
/// a robot resolves. With it, a distance reported as legal is truly at least 0.
pub const SLACK_M: f64 = 1e-6;

/// A segment of a link with a radius: a bound of the link's shape, or with radius 0 a tool point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capsule {
    /// Index of the link it is part of.
    pub link: usize,
    /// Ends in the link's frame, metres.
    pub ends: [Point; 2],
    /// Metres.
    pub radius_m: f64,
    /// Whether it must stay inside the workspace box. A tool point does; a base bolted to its edge does not.
    pub in_workspace: bool,
    /// Whether it must stay out of the keep-out boxes. A base that stands on the table it keeps out of does not.
    pub out_of_boxes: bool,
}

/// Two capsules, by index, that must keep `clearance_m` between them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pair {
    /// Indices into the capsules.
    pub capsules: [usize; 2],
    /// Metres.
    pub clearance_m: f64,
}

/// What one check is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A capsule and the workspace box.
    Workspace {
        /// Index of the capsule.
        capsule: usize,
    },
    /// A capsule and a keep-out box.
    KeepOut {
        /// Index of the capsule.
        capsule: usize,
        /// Index of the box.
        keep_out: usize,
    },
    /// A pair of capsules.
    Pair {
        /// Index of the pair.
        pair: usize,
    },
}

/// Why a pose, or the motion between two, is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Breach {
    /// Not finite, of the wrong number, or a slide beyond its travel: nothing can be said about such a pose.
    #[error("pose {pose}: expected one finite position a joint within its travel, found others")]
    NoPose {
        /// Index in the path.
        pose: usize,
    },
    /// Too near, or outside.
    #[error("pose {pose}: {subject:?} breached by {depth_m} m")]
    Space {
        /// Index in the path.
        pose: usize,
        /// What is too near.
        subject: Subject,
        /// What lacks to legal, metres, more than 0. With a keep-out box or a pair it grows no more once the segments
        /// cross.
        depth_m: f64,
    },
    /// Both poses are legal, but the step between them is too long to show that what lies between is.
    #[error("poses {pose} and the next: {subject:?} may be breached between them by {depth_m} m")]
    Between {
        /// Index of the first.
        pose: usize,
        /// What may be too near.
        subject: Subject,
        /// Upper bound of how deep, metres.
        depth_m: f64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Check {
    subject: Subject,
    /// Capsule indices; the second only for pairs.
    one: usize,
    two: Option<usize>,
    /// Last link both hang on: what is above it moves both alike.
    common: Option<usize>,
    clearance_m: f64,
}

/// The space a robot may use, checked.
#[derive(Clone, Debug)]
pub struct Envelope {
    chain: Chain,
    capsules: Vec<Capsule, CAPSULES_MAX>,
    workspace: Option<Cuboid>,
    keep_outs: Vec<Cuboid, KEEP_OUTS_MAX>,
    checks: Vec<Check, SPACE_CHECKS_MAX>,
}

/// What is left above legal in each check, metres, in the order of the checks.
type Margins = Vec<f64, SPACE_CHECKS_MAX>;

impl Envelope {
    /// Joins and checks the parts.
    ///
    /// # Errors
    /// [`Malformed`] names the first part that cannot be used.
    pub fn new(
        chain: Chain,
        capsules: &[Capsule],
        workspace: Option<Cuboid>,
        keep_outs: &[Cuboid],
        pairs: &[Pair],
    ) -> Result<Envelope, Malformed> {
        let many = |what, max| Malformed::TooMany { what, max };
        let shape = |what, index| Malformed::Shape { what, index };
        for (index, capsule) in capsules.iter().enumerate() {
            let finite = capsule.ends.iter().flatten().all(|x| x.is_finite());
            let radius = capsule.radius_m.is_finite() && capsule.radius_m >= 0.0;
            if !finite || !radius || capsule.link >= chain.links().len() {
                return Err(shape("capsule", index));
            }
        }
        if workspace.is_some_and(|each| !each.is_proper()) {
            return Err(shape("workspace", 0));
        }
        if let Some(index) = keep_outs.iter().position(|each| !each.is_proper()) {
            return Err(shape("keep-out box", index));
        }
        if pairs.len() > CAPSULE_PAIRS_MAX {
            return Err(many("capsule pairs", CAPSULE_PAIRS_MAX));
        }
        let mut checks: Vec<Check, SPACE_CHECKS_MAX> = Vec::new();
        let mut put = |check| {
            checks
                .push(check)
                .map_err(|_| many("checks", SPACE_CHECKS_MAX))
        };
        for (capsule, each) in capsules.iter().enumerate() {
            let alone = |subject| Check {
                subject,
                one: capsule,
                two: None,
                common: None,
                clearance_m: 0.0,
            };
            if each.in_workspace && workspace.is_some() {
                put(alone(Subject::Workspace { capsule }))?;
            }
            for keep_out in 0..if each.out_of_boxes {
                keep_outs.len()
            } else {
                0
            } {
                put(alone(Subject::KeepOut { capsule, keep_out }))?;
            }
        }
        for (index, pair) in pairs.iter().enumerate() {
            let [one, two] = pair.capsules;
            let (Some(first), Some(second)) = (capsules.get(one), capsules.get(two)) else {
                return Err(shape("capsule pair", index));
            };
            if !(pair.clearance_m.is_finite() && pair.clearance_m >= 0.0)
                || first.link == second.link
            {
                return Err(shape("capsule pair", index));
            }
            put(Check {
                subject: Subject::Pair { pair: index },
                one,
                two: Some(two),
                common: chain.common(first.link, second.link),
                clearance_m: pair.clearance_m,
            })?;
        }
        Ok(Envelope {
            chain,
            capsules: Vec::from_slice(capsules).map_err(|_| many("capsules", CAPSULES_MAX))?,
            workspace,
            keep_outs: Vec::from_slice(keep_outs)
                .map_err(|_| many("keep-out boxes", KEEP_OUTS_MAX))?,
            checks,
        })
    }

    /// Whether a pose is legal.
    ///
    /// # Errors
    /// The first [`Breach`].
    pub fn check(&self, positions: &[f64]) -> Result<(), Breach> {
        self.margins(0, positions).map(|_| ())
    }

    /// Whether all poses of a path, and the straight motion of the joints from each to the next, are legal: a candidate
    /// step and the stop after it. Few poses are computed: from one, the bound of motion says how far ahead nothing can
    /// have come too near.
    ///
    /// # Errors
    /// The first [`Breach`] found; a legal path may be refused as [`Breach::Between`], an illegal one never passes.
    pub fn check_path<P: AsRef<[f64]>>(&self, path: &[P]) -> Result<(), Breach> {
        let Some(first) = path.first() else {
            return Ok(());
        };
        let (mut at, mut margins) = (0_usize, self.margins(0, first.as_ref())?);
        while at.saturating_add(1) < path.len() {
            let mut ahead = path.len().saturating_sub(at).saturating_sub(1);
            loop {
                let covered = path.get(at..=at.saturating_add(ahead)).unwrap_or_default();
                let sums = self.chain.sums(&self.steps(at, covered)?);
                if self.uncovered(&margins, None, &sums).is_none() {
                    break;
                }
                if ahead == 1 {
                    // Neither end alone shows it; both may: at a share t of the way the distance is at least
                    // here - t * moved and there - (1 - t) * moved, which is never below (here + there - moved) / 2.
                    let next = covered.last().map(AsRef::as_ref).unwrap_or_default();
                    let there = self.margins(at.saturating_add(1), next)?;
                    if let Some((subject, depth_m)) = self.uncovered(&margins, Some(&there), &sums)
                    {
                        return Err(Breach::Between {
                            pose: at,
                            subject,
                            depth_m,
                        });
                    }
                    break;
                }
                ahead /= 2;
            }
            at = at.saturating_add(ahead);
            if at.saturating_add(1) < path.len() {
                let here = path.get(at).map(AsRef::as_ref).unwrap_or_default();
                margins = self.margins(at, here)?;
            }
        }
        Ok(())
    }

    /// The largest step of each joint from the first pose to any other.
    fn steps<P: AsRef<[f64]>>(
        &self,
        at: usize,
        path: &[P],
    ) -> Result<Vec<f64, JOINTS_MAX>, Breach> {
        let mut steps: Vec<f64, JOINTS_MAX> = Vec::new();
        let _ = steps.resize(self.chain.joints(), 0.0);
        let first = path.first().map(AsRef::as_ref).unwrap_or_default();
        for (index, pose) in path.iter().enumerate() {
            let pose = pose.as_ref();
            let no_pose = Breach::NoPose {
                pose: at.saturating_add(index),
            };
            if pose.len() != steps.len() || first.len() != steps.len() {
                return Err(no_pose);
            }
            for (step, (here, there)) in steps.iter_mut().zip(first.iter().zip(pose)) {
                let moved = (there - here).abs();
                // `max` would drop a NaN.
                if !moved.is_finite() {
                    return Err(no_pose);
                }
                *step = step.max(moved);
            }
        }
        Ok(steps)
    }

    /// The first check that the motion may breach, and by how much.
    fn uncovered(
        &self,
        here: &Margins,
        there: Option<&Margins>,
        sums: &Vec<Sums, LINKS_MAX>,
    ) -> Option<(Subject, f64)> {
        for (index, (check, here)) in self.checks.iter().zip(here).enumerate() {
            let from = check
                .common
                .and_then(|link| sums.get(link))
                .copied()
                .unwrap_or_default();
            let moved = |capsule: usize| {
                self.capsules.get(capsule).and_then(|capsule| {
                    let [a, b] = capsule.ends;
                    // The ball around the segment's points turns into itself: only the segment's reach counts.
                    Some(
                        sums.get(capsule.link)?
                            .moved_m(&from, length(a).max(length(b))),
                    )
                })
            };
            let moved_m = moved(check.one).unwrap_or(f64::INFINITY)
                + check
                    .two
                    .map_or(0.0, |two| moved(two).unwrap_or(f64::INFINITY));
            let (room_m, share) = match there.and_then(|there| there.get(index)) {
                Some(there) => (here + there, 0.5),
                None => (*here, 1.0),
            };
            // Written so that a NaN is uncovered. A joint at rest moves nothing, with no margin left too.
            let covered = moved_m <= room_m;
            if !covered {
                return Some((check.subject, (moved_m - room_m) * share));
            }
        }
        None
    }

    /// What is left in each check at one pose.
    fn margins(&self, pose: usize, positions: &[f64]) -> Result<Margins, Breach> {
        let finite = positions.iter().all(|position| position.is_finite());
        let poses = self
            .chain
            .forward(positions)
            .filter(|_| finite)
            .ok_or(Breach::NoPose { pose })?;
        let mut placed: Vec<(Segment, f64), CAPSULES_MAX> = Vec::new();
        for capsule in &self.capsules {
            let link = poses.get(capsule.link).ok_or(Breach::NoPose { pose })?;
            let ends = capsule.ends.map(|end| link.apply(end));
            // As long as the capsules: cannot be full.
            let _ = placed.push((Segment { ends }, capsule.radius_m));
        }
        let mut margins = Margins::new();
        for check in &self.checks {
            let margin_m =
                self.distance(check, &placed).unwrap_or(f64::NAN) - check.clearance_m - SLACK_M;
            // Likewise: a NaN is not legal.
            let legal = margin_m >= 0.0;
            if !legal {
                return Err(Breach::Space {
                    pose,
                    subject: check.subject,
                    depth_m: -margin_m,
                });
            }
            let _ = margins.push(margin_m);
        }
        Ok(margins)
    }

    fn distance(&self, check: &Check, placed: &[(Segment, f64)]) -> Option<f64> {
        let (one, radius_m) = placed.get(check.one)?;
        Some(match check.subject {
            Subject::Workspace { .. } => self.workspace.as_ref()?.inside_by(one) - radius_m,
            Subject::KeepOut { keep_out, .. } => {
                self.keep_outs.get(keep_out)?.segment_distance(one) - radius_m
            }
            Subject::Pair { .. } => {
                let (two, more_m) = placed.get(check.two?)?;
                segment_distance(one, two) - radius_m - more_m
            }
        })
    }
}
