// SPDX-License-Identifier: Apache-2.0
//! The space a robot may use: a workspace box, keep-out boxes, and capsules that must stay apart.

use crate::core::kinematics::geometry::{Cuboid, Point, Segment, length, segment_distance};
use crate::core::kinematics::{Chain, Malformed, Sums};
use crate::core::limits::{
    CAPSULE_PAIRS_MAX, CAPSULES_MAX, JOINTS_MAX, KEEP_OUTS_MAX, LINKS_MAX, SPACE_CHECKS_MAX,
    fitting,
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
        capsule: u16,
    },
    /// A capsule and a keep-out box.
    KeepOut {
        /// Index of the capsule.
        capsule: u16,
        /// Index of the box.
        keep_out: u16,
    },
    /// A pair of capsules.
    Pair {
        /// Index of the pair.
        pair: u16,
    },
}

/// Why a pose, or the motion between two, is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum Breach {
    /// Not finite, of the wrong number, or a slide beyond its travel: nothing can be said about such a pose.
    #[error("expected one finite position a joint within its travel, found others")]
    NoPose,
    /// Too near, or outside.
    #[error("{subject:?} breached by {depth_m} m")]
    Space {
        /// What is too near.
        subject: Subject,
        /// What lacks to legal, metres, more than 0. With a keep-out box or a pair it grows no more once the segments
        /// cross.
        depth_m: f64,
    },
    /// The motion is too long to show that all that lies on it is legal.
    #[error("{subject:?} may be breached on the way by {depth_m} m")]
    Between {
        /// What may be too near.
        subject: Subject,
        /// Upper bound of how deep, metres.
        depth_m: f64,
    },
}

#[derive(Clone, Copy, Debug)]
struct Check {
    subject: Subject,
    /// Capsule indices; the second only for pairs. Narrow: there may be many checks, and the core has no heap.
    one: u16,
    two: Option<u16>,
    /// Last link both hang on: what is above it moves both alike.
    common: Option<u16>,
    clearance_m: f64,
}

/// The space a robot may use, checked.
#[derive(Clone, Debug)]
pub struct Envelope {
    chain: Chain,
    capsules: Vec<Capsule, CAPSULES_MAX>,
    /// Of each capsule: how far its segment gets from its link's origin.
    reaches_m: Vec<f64, CAPSULES_MAX>,
    workspace: Option<Cuboid>,
    keep_outs: Vec<Cuboid, KEEP_OUTS_MAX>,
    checks: Vec<Check, SPACE_CHECKS_MAX>,
}

/// What is left above legal in each check, metres, in the order of the checks.
type Margins = Vec<f64, SPACE_CHECKS_MAX>;
type Pose = Vec<f64, JOINTS_MAX>;

/// A legal pose, and what is left around it.
#[derive(Clone, Debug)]
pub struct Anchor {
    pose: Pose,
    margins: Margins,
}

impl Anchor {
    /// Its positions.
    #[must_use]
    pub fn positions(&self) -> &[f64] {
        &self.pose
    }
}

/// A motion under judgement, pose by pose. Few poses are computed: from one, the bound of motion says how far nothing
/// can have come too near.
#[derive(Debug)]
pub struct Sweep<'a> {
    envelope: &'a Envelope,
    anchor: Anchor,
    /// Way of each joint since the anchor.
    ways: Pose,
    last: Pose,
    /// Poses that may still be computed in pieces.
    poses_left: u32,
}

/// Shortest piece of a step: a 64th. With [`SLACK_M`] it lets a robot leave what it touches by steps of a millimetre.
const PIECE_MIN: f64 = 1.0 / 64.0;

/// Most poses that one sweep computes in pieces, so that its cost is bounded: what needs more is refused.
const PIECES_MAX: u32 = 128;

impl<'a> Sweep<'a> {
    /// A motion that starts at an anchor.
    #[must_use]
    pub fn new(envelope: &'a Envelope, anchor: Anchor) -> Sweep<'a> {
        let mut ways = Pose::new();
        let _ = ways.resize(anchor.pose.len(), 0.0);
        let last = anchor.pose.clone();
        Sweep {
            envelope,
            anchor,
            ways,
            last,
            poses_left: PIECES_MAX,
        }
    }

    /// Goes on to `pose`, each joint straight there.
    ///
    /// # Errors
    /// The first [`Breach`] found; a legal motion may be refused as [`Breach::Between`], an illegal one never passes.
    pub fn go(&mut self, pose: &[f64]) -> Result<(), Breach> {
        let mut bends = Pose::new();
        let _ = bends.resize(pose.len(), 0.0);
        self.curve(pose, &bends)
    }

    /// Goes on to `pose`, each joint without turning round, and on its way never further than its entry of `bends` from
    /// where it would be if all moved there evenly.
    ///
    /// # Errors
    /// As [`Sweep::go`].
    pub fn curve(&mut self, pose: &[f64], bends: &[f64]) -> Result<(), Breach> {
        if pose.len() != self.last.len() || bends.len() != pose.len() {
            return Err(Breach::NoPose);
        }
        let step = |last: &Pose| -> Pose {
            fitting(pose.iter().zip(last).map(|(to, from)| (to - from).abs()))
        };
        let steps = step(&self.last);
        let mut further = self.ways.clone();
        for (way, step) in further.iter_mut().zip(&steps) {
            *way += step;
        }
        if self.envelope.near(&self.anchor, &further).is_err() {
            let moved = self.last.iter().zip(&self.anchor.pose).any(|(a, b)| a != b);
            if moved {
                self.anchor = self.envelope.anchor(&self.last)?;
            }
            further = steps;
            if self.envelope.near(&self.anchor, &further).is_err() {
                self.creep(pose, &further, bends)?;
                further.iter_mut().for_each(|way| *way = 0.0);
            }
        }
        self.ways = further;
        self.last.clear();
        // As long as before.
        let _ = self.last.extend_from_slice(pose);
        Ok(())
    }

    /// From the anchor to `pose`, in pieces short enough that their two ends together show what one end does not: at a
    /// share t of a piece the distance is at least here - t * moved and there - (1 - t) * moved, which is never below
    /// (here + there - moved) / 2. What a curved way bends aside counts as moved from either end. Pieces matter where
    /// the robot leaves what it nearly touches.
    fn creep(&mut self, pose: &[f64], steps: &Pose, bends: &[f64]) -> Result<(), Breach> {
        let (mut done, mut piece) = (0.0, 1.0);
        loop {
            let share = done + piece;
            let ends = self.last.iter().zip(pose);
            let to: Pose = fitting(ends.map(|(from, to)| {
                if share == 1.0 {
                    *to
                } else {
                    from + share * (to - from)
                }
            }));
            if self.poses_left == 0 {
                return Err(Breach::NoPose);
            }
            self.poses_left = self.poses_left.saturating_sub(1);
            let there = self.envelope.anchor(&to)?;
            let moved = steps.iter().zip(bends);
            let ways: Pose = fitting(moved.map(|(step, bend)| step * piece + 2.0 * bend));
            let sums = self.envelope.chain.sums(&ways);
            let uncovered =
                self.envelope
                    .uncovered(&self.anchor.margins, Some(&there.margins), &sums);
            match uncovered {
                None if share == 1.0 => {
                    self.anchor = there;
                    return Ok(());
                }
                None => {
                    self.anchor = there;
                    done = share;
                    piece = (2.0_f64 * piece).min(1.0 - done);
                }
                Some((subject, depth_m)) if piece <= PIECE_MIN => {
                    return Err(Breach::Between { subject, depth_m });
                }
                Some(_) => piece *= 0.5,
            }
        }
    }
}

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
        // The lists' capacities are far below what 16 bits count, and a longer list is refused below.
        let narrow = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
        if capsules.len() > CAPSULES_MAX {
            return Err(many("capsules", CAPSULES_MAX));
        }
        if keep_outs.len() > KEEP_OUTS_MAX {
            return Err(many("keep-out boxes", KEEP_OUTS_MAX));
        }
        for (capsule, each) in capsules.iter().enumerate() {
            let capsule = narrow(capsule);
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
                put(alone(Subject::KeepOut {
                    capsule,
                    keep_out: narrow(keep_out),
                }))?;
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
                subject: Subject::Pair {
                    pair: narrow(index),
                },
                one: narrow(one),
                two: Some(narrow(two)),
                common: chain.common(first.link, second.link).map(narrow),
                clearance_m: pair.clearance_m,
            })?;
        }
        Ok(Envelope {
            chain,
            reaches_m: fitting(
                capsules
                    .iter()
                    .map(|each| each.ends.into_iter().map(length).fold(0.0, f64::max)),
            ),
            capsules: Vec::from_slice(capsules).map_err(|_| many("capsules", CAPSULES_MAX))?,
            workspace,
            keep_outs: Vec::from_slice(keep_outs)
                .map_err(|_| many("keep-out boxes", KEEP_OUTS_MAX))?,
            checks,
        })
    }

    /// How many positions a pose has.
    #[must_use]
    pub fn joints(&self) -> usize {
        self.chain.joints()
    }

    /// The links.
    #[must_use]
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Whether a pose is legal.
    ///
    /// # Errors
    /// The first [`Breach`].
    pub fn check(&self, positions: &[f64]) -> Result<(), Breach> {
        self.margins(positions, 0.0).map(|_| ())
    }

    /// A pose from which motions are judged, with what is left around it.
    ///
    /// # Errors
    /// The first [`Breach`]: a pose that is not legal is no anchor, but for rounding (a tenth of [`SLACK_M`]).
    pub fn anchor(&self, positions: &[f64]) -> Result<Anchor, Breach> {
        let margins = self.margins(positions, -0.1 * SLACK_M)?;
        let mut pose = Pose::new();
        // As many as the chain's joints: cannot be full.
        let _ = pose.extend_from_slice(positions);
        Ok(Anchor { pose, margins })
    }

    /// Whether everything is legal as long as no joint moves further than `steps` from the anchor, whatever way it
    /// takes. Computes no pose.
    ///
    /// # Errors
    /// The first check that this cannot rule out. A step that is missing or not finite rules nothing out.
    pub fn near(&self, anchor: &Anchor, steps: &[f64]) -> Result<(), Breach> {
        match self.uncovered(&anchor.margins, None, &self.chain.sums(steps)) {
            None => Ok(()),
            Some((subject, depth_m)) => Err(Breach::Between { subject, depth_m }),
        }
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
                .and_then(|link| sums.get(usize::from(link)))
                .copied()
                .unwrap_or_default();
            let moved = |capsule: u16| {
                let capsule = usize::from(capsule);
                // The ball around the segment's points turns into itself: only the segment's reach counts.
                let reach_m = self.reaches_m.get(capsule)?;
                let link = self.capsules.get(capsule)?.link;
                Some(sums.get(link)?.moved_m(&from, *reach_m))
            };
            let moved_m = moved(check.one).unwrap_or(f64::INFINITY)
                + check
                    .two
                    .map_or(0.0, |two| moved(two).unwrap_or(f64::INFINITY));
            let (room_m, share) = match there.and_then(|there| there.get(index)) {
                // Between two poses half of the slack on either side may be used up: it is there for rounding, and of
                // that there is less.
                Some(there) => (here + there + SLACK_M, 0.5),
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
    fn margins(&self, positions: &[f64], least_m: f64) -> Result<Margins, Breach> {
        let finite = positions.iter().all(|position| position.is_finite());
        let poses = self
            .chain
            .forward(positions)
            .filter(|_| finite)
            .ok_or(Breach::NoPose)?;
        let mut placed: Vec<(Segment, f64), CAPSULES_MAX> = Vec::new();
        for capsule in &self.capsules {
            let link = poses.get(capsule.link).ok_or(Breach::NoPose)?;
            let ends = capsule.ends.map(|end| link.apply(end));
            // As long as the capsules: cannot be full.
            let _ = placed.push((Segment { ends }, capsule.radius_m));
        }
        let mut margins = Margins::new();
        for check in &self.checks {
            let margin_m =
                self.distance(check, &placed).unwrap_or(f64::NAN) - check.clearance_m - SLACK_M;
            // Likewise: a NaN is not legal.
            let legal = margin_m >= least_m;
            if !legal {
                return Err(Breach::Space {
                    subject: check.subject,
                    depth_m: -margin_m,
                });
            }
            let _ = margins.push(margin_m);
        }
        Ok(margins)
    }

    fn distance(&self, check: &Check, placed: &[(Segment, f64)]) -> Option<f64> {
        let (one, radius_m) = placed.get(usize::from(check.one))?;
        Some(match check.subject {
            Subject::Workspace { .. } => self.workspace.as_ref()?.inside_by(one) - radius_m,
            Subject::KeepOut { keep_out, .. } => {
                self.keep_outs
                    .get(usize::from(keep_out))?
                    .segment_distance(one)
                    - radius_m
            }
            Subject::Pair { .. } => {
                let (two, more_m) = placed.get(usize::from(check.two?))?;
                segment_distance(one, two) - radius_m - more_m
            }
        })
    }
}
