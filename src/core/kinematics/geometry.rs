// SPDX-License-Identifier: Apache-2.0
//! Points, rotations and exact distances between segments and boxes. Metres; a capsule is a segment with a radius.

#[cfg(target_os = "none")]
use crate::core::units::Root as _;

/// Metres, or a direction.
pub type Point = [f64; 3];

/// A rotation and a move after it: `rotation * p + translation`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transform {
    /// Images of x, y and z, i.e. the columns of the matrix.
    pub columns: [Point; 3],
    /// Metres.
    pub translation: Point,
}

impl Transform {
    /// Moves nothing.
    pub const IDENTITY: Transform = Transform {
        columns: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        translation: [0.0; 3],
    };

    /// URDF's `<origin>`: turns about the fixed x, then y, then z (REP 103, urdf/XML/joint).
    #[must_use]
    pub fn from_xyz_rpy(translation: Point, rpy_rad: Point) -> Transform {
        let [roll, pitch, yaw] = rpy_rad;
        let turn = |axis, angle: f64| about(axis, sin_cos(angle));
        let about_z = turn([0.0, 0.0, 1.0], yaw);
        let about_y = turn([0.0, 1.0, 0.0], pitch);
        let about_x = turn([1.0, 0.0, 0.0], roll);
        Transform {
            columns: rotate_all(&about_z, &rotate_all(&about_y, &about_x)),
            translation,
        }
    }

    /// `self` after `inner`.
    #[must_use]
    pub fn then_inside(&self, inner: &Transform) -> Transform {
        Transform {
            columns: rotate_all(&self.columns, &inner.columns),
            translation: self.apply(inner.translation),
        }
    }

    /// The image of a point.
    #[must_use]
    pub fn apply(&self, point: Point) -> Point {
        add(rotate(&self.columns, point), self.translation)
    }
}

/// Sine and cosine. Not the standard library's, which ask the system's mathematics: those differ in the last bit from
/// machine to machine, and a motion that is judged must be judged alike everywhere.
#[must_use]
pub fn sin_cos(angle_rad: f64) -> (f64, f64) {
    libm::sincos(angle_rad)
}

/// Rotation about a unit axis by Rodrigues' formula: `v cos + (k x v) sin + k (k.v)(1 - cos)`.
#[must_use]
pub fn about(axis: Point, (sin, cos): (f64, f64)) -> [Point; 3] {
    Transform::IDENTITY.columns.map(|v| {
        let along = scale(axis, dot(axis, v) * (1.0 - cos));
        add(add(scale(v, cos), scale(cross(axis, v), sin)), along)
    })
}

/// A rotation applied to a direction.
#[must_use]
pub fn rotate(columns: &[Point; 3], v: Point) -> Point {
    let [a, b, c] = columns;
    let [x, y, z] = v;
    add(add(scale(*a, x), scale(*b, y)), scale(*c, z))
}

/// A rotation applied to each column of another.
#[must_use]
pub fn rotate_all(columns: &[Point; 3], inner: &[Point; 3]) -> [Point; 3] {
    inner.map(|v| rotate(columns, v))
}

/// Sum.
#[must_use]
pub fn add([a, b, c]: Point, [x, y, z]: Point) -> Point {
    [a + x, b + y, c + z]
}

/// Difference.
#[must_use]
pub fn sub([a, b, c]: Point, [x, y, z]: Point) -> Point {
    [a - x, b - y, c - z]
}

/// Product with a number.
#[must_use]
pub fn scale([a, b, c]: Point, by: f64) -> Point {
    [a * by, b * by, c * by]
}

/// Scalar product.
#[must_use]
pub fn dot([a, b, c]: Point, [x, y, z]: Point) -> f64 {
    a * x + b * y + c * z
}

/// Vector product.
#[must_use]
pub fn cross([a, b, c]: Point, [x, y, z]: Point) -> Point {
    [b * z - c * y, c * x - a * z, a * y - b * x]
}

/// Euclidean length.
#[must_use]
pub fn length(a: Point) -> f64 {
    dot(a, a).sqrt()
}

/// A straight piece between two points; may be one point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// Ends, metres.
    pub ends: [Point; 2],
}

/// Squared distance of a point from a segment.
fn point_segment2(point: Point, segment: &Segment) -> f64 {
    let [from, to] = segment.ends;
    let along = sub(to, from);
    let len2 = dot(along, along);
    let t = if len2 > 0.0 {
        (dot(sub(point, from), along) / len2).clamp(0.0, 1.0)
    } else {
        0.0
    };
    let gap = sub(sub(point, from), scale(along, t));
    dot(gap, gap)
}

/// Distance of two segments, metres.
///
/// The nearest pair either holds an end of one segment, or lies inside both, where the gap is normal to both. So the
/// least of four end distances and of the one inner candidate is the distance. The inner candidate solves the two
/// linear equations of Ericson, Real-Time Collision Detection (2005), section 5.1.9. Near-parallel segments make that
/// candidate inexact, but then the ends are as near, and they do not depend on its denominator.
#[must_use]
pub fn segment_distance(one: &Segment, two: &Segment) -> f64 {
    let [p, p_end] = one.ends;
    let [q, q_end] = two.ends;
    let mut best2 = point_segment2(p, two)
        .min(point_segment2(p_end, two))
        .min(point_segment2(q, one))
        .min(point_segment2(q_end, one));
    let (u, v, w) = (sub(p_end, p), sub(q_end, q), sub(p, q));
    let (a, b, c, d, e) = (dot(u, u), dot(u, v), dot(v, v), dot(u, w), dot(v, w));
    let denominator = a * c - b * b;
    if denominator > 0.0 {
        let s = (b * e - c * d) / denominator;
        let t = (a * e - b * d) / denominator;
        if (0.0..=1.0).contains(&s) && (0.0..=1.0).contains(&t) {
            let gap = sub(add(w, scale(u, s)), scale(v, t));
            best2 = best2.min(dot(gap, gap));
        }
    }
    best2.sqrt()
}

/// A box whose faces are normal to the base frame's axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cuboid {
    /// Lowest corner, metres.
    pub min: Point,
    /// Highest corner, metres.
    pub max: Point,
}

impl Cuboid {
    /// Finite, and lower than higher in each direction.
    #[must_use]
    pub fn is_proper(&self) -> bool {
        self.sides()
            .all(|(min, max)| min.is_finite() && max.is_finite() && min < max)
    }

    fn sides(&self) -> impl Iterator<Item = (f64, f64)> {
        self.min.into_iter().zip(self.max)
    }

    /// From a point inside or on the box to the point: zero where the point is between the faces.
    fn excess(&self, point: Point) -> Point {
        let mut out = point;
        for (x, (min, max)) in out.iter_mut().zip(self.sides()) {
            *x -= x.max(min).min(max);
        }
        out
    }

    /// Distance of a segment from the box, 0 where they touch or cross, metres.
    ///
    /// The squared distance from a convex set is convex along the segment, and its slope `2 * direction . excess` is
    /// linear between the places where the segment crosses the planes of the faces. So the least lies where the slope
    /// changes sign, between two neighbouring crossings, and a linear interpolation of the slope finds it exactly.
    #[must_use]
    pub fn segment_distance(&self, segment: &Segment) -> f64 {
        let [from, to] = segment.ends;
        let along = sub(to, from);
        let at = |t: f64| self.excess(add(from, scale(along, t)));
        let slope = |t: f64| dot(along, at(t));
        let (mut low, mut high) = ((0.0, slope(0.0)), (1.0, slope(1.0)));
        if low.1 >= 0.0 {
            return length(at(0.0));
        }
        if high.1 <= 0.0 {
            return length(at(1.0));
        }
        for ((start, step), (min, max)) in from.into_iter().zip(along).zip(self.sides()) {
            for face in [min, max] {
                let t = (face - start) / step;
                // A crossing outside the bracket, or none (step 0 gives inf or NaN), narrows nothing.
                if t > low.0 && t < high.0 {
                    let slope = slope(t);
                    if slope < 0.0 {
                        low = (t, slope);
                    } else {
                        high = (t, slope);
                    }
                }
            }
        }
        let t = low.0 + (high.0 - low.0) * (-low.1 / (high.1 - low.1));
        length(at(t))
    }

    /// How far both ends are inside the box: the least distance to a face, negative outside. The box is convex, so the
    /// whole segment is at least as far inside.
    #[must_use]
    pub fn inside_by(&self, segment: &Segment) -> f64 {
        let mut least = f64::INFINITY;
        for end in segment.ends {
            for (x, (min, max)) in end.into_iter().zip(self.sides()) {
                least = least.min(x - min).min(max - x);
            }
        }
        least
    }
}
