// SPDX-License-Identifier: Apache-2.0
//! Jacobian, orientations and inverse kinematics: against finite differences, against matrices, and at the edges.

use super::*;
use crate::core::kinematics::inverse::{Missing, Pose, Range, Search};
use crate::core::kinematics::turn::{Turn, squad};

const FREE: Range = Range {
    min: -2.5,
    max: 2.5,
    free: true,
};

/// A chain of turning joints with random axes, one after the other.
fn arm(dice: &mut Dice, joints: usize) -> Chain {
    let links: std::vec::Vec<Link> = (0..joints)
        .map(|joint| Link {
            parent: joint.checked_sub(1),
            origin: Transform::from_xyz_rpy(point(dice, 0.3), point(dice, 3.0)),
            axis: unit(dice),
            motion: Motion::Revolute(Drive {
                joint,
                factor: 1.0,
                offset: 0.0,
            }),
        })
        .collect();
    Chain::new(&links, joints).expect("a good chain")
}

fn apart(a: &Pose, b: &Pose) -> f64 {
    let way = length(sub(a.at, b.at));
    way.max(length(a.turn.then_inside(b.turn.back()).vector()))
}

#[test]
fn the_jacobian_is_what_finite_differences_say() {
    let mut dice = Dice::new(3, 0);
    for joints in [6, 7, 14] {
        for _ in 0..20 {
            let (links, _) = random_links(&mut dice, joints);
            let chain = Chain::new(&links, joints).expect("a good chain");
            let q: std::vec::Vec<f64> = (0..joints).map(|_| dice.range(-2.0, 2.0)).collect();
            let link = links.len() - 1;
            let poses = chain.forward(&q).expect("a pose");
            let found = chain.jacobian(&poses, link).expect("a jacobian");
            let h = 1e-6;
            for joint in 0..joints {
                let at = |by: f64| {
                    let mut q = q.clone();
                    q[joint] += by;
                    chain.pose(&q, link).expect("a pose")
                };
                let (less, more) = (at(-h), at(h));
                let way = scale(sub(more.at, less.at), 0.5 / h);
                let angle = scale(more.turn.then_inside(less.turn.back()).vector(), 0.5 / h);
                let wanted = [way[0], way[1], way[2], angle[0], angle[1], angle[2]];
                for (found, wanted) in found[joint].iter().zip(wanted) {
                    assert!((found - wanted).abs() < 1e-7, "{found} {wanted}");
                }
            }
        }
    }
}

#[test]
fn a_pose_that_can_be_reached_is() {
    let mut dice = Dice::new(11, 0);
    let (mut tried, mut missed) = (0, 0);
    for joints in [6, 7] {
        let ranges = std::vec![FREE; joints];
        for _ in 0..40 {
            let chain = arm(&mut dice, joints);
            let q: std::vec::Vec<f64> = (0..joints).map(|_| dice.range(-2.0, 2.0)).collect();
            let goal = chain.pose(&q, joints - 1).expect("a pose");
            // From a neighbouring pose, as from one action of a plan to the next.
            let mut found: std::vec::Vec<f64> =
                q.iter().map(|q| q + dice.range(-0.1, 0.1)).collect();
            let posture = found.clone();
            let missing = chain
                .reach(
                    joints - 1,
                    &goal,
                    &ranges,
                    &posture,
                    &Search::default(),
                    &mut found,
                )
                .expect("numbers of this chain");
            let there = chain.pose(&found, joints - 1).expect("a pose");
            assert!((apart(&there, &goal) - missing.way_m.max(missing.angle_rad)).abs() < 1e-9);
            tried += 1;
            missed += u32::from(apart(&there, &goal) > 1e-5);
        }
    }
    // Near a singularity it is slow, not wrong.
    assert!(missed * 20 <= tried, "{missed} of {tried}");
}

#[test]
fn nothing_leaves_its_range_and_no_step_is_unbounded_wherever_the_goal_is() {
    let mut dice = Dice::new(5, 0);
    for round in 0..200 {
        let joints = 6 + round % 3;
        let chain = arm(&mut dice, joints);
        let ranges: std::vec::Vec<Range> = (0..joints)
            .map(|joint| Range {
                min: dice.range(-1.5, -0.1),
                max: dice.range(0.1, 1.5),
                free: joint != 2,
            })
            .collect();
        let mut q: std::vec::Vec<f64> = ranges
            .iter()
            .map(|range| dice.range(range.min, range.max))
            .collect();
        let began = q.clone();
        let goal = Pose {
            at: point(&mut dice, 5.0),
            turn: Turn::by(point(&mut dice, 3.0)),
        };
        let search = Search {
            steps_max: 1,
            ..Search::default()
        };
        let posture = std::vec![0.0; joints];
        let mut nearest = f64::INFINITY;
        for _ in 0..60 {
            let before = q.clone();
            let Missing { way_m, angle_rad } = chain
                .reach(joints - 1, &goal, &ranges, &posture, &search, &mut q)
                .expect("finite numbers");
            assert!(way_m.is_finite() && angle_rad.is_finite());
            // What it leaves is never further than what it had.
            assert!(way_m.max(angle_rad) <= nearest + 1e-9);
            nearest = way_m.max(angle_rad);
            for ((q, before), range) in q.iter().zip(&before).zip(&ranges) {
                assert!((range.min..=range.max).contains(q), "{q} of {range:?}");
                assert!((q - before).abs() <= search.step_max + 1e-12);
            }
            assert_eq!(q[2], began[2], "a joint that may not be moved is not");
        }
    }
}

#[test]
fn a_singular_pose_has_a_bounded_step() {
    // Three parallel axes, stretched out: it cannot go further along x, and any way there asks for infinite speed.
    let links: std::vec::Vec<Link> = (0..3)
        .map(|joint: usize| Link {
            parent: joint.checked_sub(1),
            origin: Transform {
                translation: if joint == 0 { [0.0; 3] } else { X },
                ..Transform::IDENTITY
            },
            axis: Z,
            motion: Motion::Revolute(Drive {
                joint,
                factor: 1.0,
                offset: 0.0,
            }),
        })
        .collect();
    let chain = Chain::new(&links, 3).expect("a good chain");
    for along in [1.999, 2.0, 2.5, 50.0] {
        let goal = Pose {
            at: [along, 0.0, 0.0],
            turn: Turn::NONE,
        };
        let mut q = [0.0; 3];
        let missing = chain
            .reach(2, &goal, &[FREE; 3], &[0.0; 3], &Search::default(), &mut q)
            .expect("finite numbers");
        assert!(q.iter().all(|q| q.abs() < 0.3), "{q:?} for {along}");
        assert!(
            (missing.way_m - (along - 2.0).max(0.0)).abs() < 2e-3,
            "{missing:?}"
        );
    }
}

#[test]
fn what_the_pose_leaves_free_goes_towards_the_posture_and_the_pose_stays() {
    let mut dice = Dice::new(9, 0);
    let chain = arm(&mut dice, 9);
    let ranges = [FREE; 9];
    let mut q = [0.3; 9];
    let goal = chain.pose(&q, 8).expect("a pose");
    let posture = [0.0; 9];
    let search = Search {
        within: 0.0,
        steps_max: 300,
        ..Search::default()
    };
    let size = |q: &[f64]| q.iter().map(|q| q * q).sum::<f64>();
    let before = size(&q);
    // `reach` keeps the nearest it saw; a step at a time it goes on.
    let one = Search {
        steps_max: 1,
        ..search
    };
    let mut drifted = q;
    for _ in 0..100 {
        let start = drifted;
        let near = Pose {
            at: add(goal.at, [1e-7, 0.0, 0.0]),
            ..goal
        };
        let _ = chain.reach(8, &near, &ranges, &posture, &one, &mut drifted);
        if start == drifted {
            break;
        }
    }
    let _ = chain.reach(8, &goal, &ranges, &posture, &search, &mut q);
    assert!(apart(&chain.pose(&q, 8).expect("a pose"), &goal) < 1e-6);
    assert!(size(&q) <= before + 1e-9 && size(&drifted) <= before + 1e-9);
}

#[test]
fn numbers_that_are_none_move_nothing() {
    let mut dice = Dice::new(1, 0);
    let chain = arm(&mut dice, 6);
    let good = Pose {
        at: [0.1; 3],
        turn: Turn::NONE,
    };
    let bad = Pose {
        at: [f64::NAN, 0.0, 0.0],
        ..good
    };
    let no_turn = Pose {
        turn: Turn {
            w: 0.0,
            v: [0.0; 3],
        },
        ..good
    };
    let search = Search::default();
    let mut q = [0.1; 6];
    for (goal, ranges, posture) in [
        (bad, &[FREE; 6][..], [0.0; 6]),
        (no_turn, &[FREE; 6][..], [0.0; 6]),
        (good, &[FREE; 5][..], [0.0; 6]),
        (good, &[FREE; 6][..], [f64::INFINITY; 6]),
    ] {
        assert_eq!(
            chain.reach(5, &goal, ranges, &posture, &search, &mut q),
            None
        );
    }
    assert_eq!(
        chain.reach(9, &good, &[FREE; 6], &[0.0; 6], &search, &mut q),
        None
    );
    assert_eq!(q, [0.1; 6]);
}

#[test]
fn an_orientation_is_the_same_as_matrix_quaternion_and_vector() {
    let mut dice = Dice::new(2, 0);
    for _ in 0..500 {
        let vector = scale(unit(&mut dice), dice.range(0.0, 3.1));
        let turn = Turn::by(vector);
        for (found, wanted) in turn.vector().iter().zip(vector) {
            assert!((found - wanted).abs() < 1e-9, "{found} {wanted}");
        }
        let columns = turn.columns();
        let back = Turn::of(&columns);
        assert!(back.then_inside(turn.back()).near(Turn::NONE).w > 1.0 - 1e-12);
        // Rodrigues' formula shares nothing with the quaternion.
        let axis = scale(vector, 1.0 / length(vector).max(1e-300));
        if length(vector) > 1e-3 {
            let by_formula = about(axis, sin_cos(length(vector)));
            for (a, b) in columns.iter().flatten().zip(by_formula.iter().flatten()) {
                assert!((a - b).abs() < 1e-9);
            }
        }
        let [x, y, _] = columns;
        let bent = Turn::of_two(scale(x, 3.0), add(y, scale(x, 0.7))).expect("two directions");
        assert!(bent.then_inside(turn.back()).near(Turn::NONE).w > 1.0 - 1e-12);
    }
    assert_eq!(Turn::of_two(X, X), None);
    assert_eq!(Turn::of_two([0.0; 3], X), None);
}

#[test]
fn the_curve_meets_its_knots_turns_smoothly_and_does_not_care_for_signs() {
    let mut dice = Dice::new(8, 0);
    for _ in 0..100 {
        // A motion with a direction, as plans have: each orientation a little on from the last.
        let mut knots = std::vec![Turn::by(point(&mut dice, 1.0))];
        for _ in 0..4 {
            let last = *knots.last().expect("one");
            knots.push(last.then_inside(Turn::by(point(&mut dice, 0.3))));
        }
        let flipped = |turn: Turn| Turn {
            w: -turn.w,
            v: scale(turn.v, -1.0),
        };
        let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|i| knots[i]);
        let first = |u| squad([a, b, c, d], u);
        let second = |u| squad([flipped(b), c, flipped(d), e], u);
        let same = |x: Turn, y: Turn| length(x.then_inside(y.back()).vector()) < 1e-9;
        assert!(
            same(first(0.0), b)
                && same(first(1.0), c)
                && same(second(0.0), c)
                && same(second(1.0), d)
        );
        let h = 1e-5;
        let speed = |x: Turn, y: Turn| scale(y.then_inside(x.back()).vector(), 1.0 / h);
        let (into, out) = (
            speed(first(1.0 - h), first(1.0)),
            speed(second(0.0), second(h)),
        );
        assert!(length(sub(into, out)) < 1e-3, "{into:?} {out:?}");
    }
}
