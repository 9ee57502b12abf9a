// SPDX-License-Identifier: Apache-2.0
//! Orientations as unit quaternions: from and to matrices and rotation vectors, and the curve through several of them.
//!
//! A quaternion and its opposite are the same orientation; whatever compares or joins two of them takes the nearer sign.
//! The curve is Shoemake's: `squad`, whose pieces meet with the same angular velocity (K. Shoemake, "Quaternion calculus and
//! fast animation", 1987).

use crate::core::kinematics::geometry::{Point, add, cross, dot, length, scale, sin_cos};
#[cfg(target_os = "none")]
use crate::core::units::Root as _;

/// A unit quaternion `w + xi + yj + zk`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// Cosine of half the angle.
    pub w: f64,
    /// The axis times the sine of half the angle.
    pub v: Point,
}

/// Below this an angle has no axis, in radians.
const NO_ANGLE_RAD: f64 = 1e-9;

impl Turn {
    /// Turns nothing.
    pub const NONE: Turn = Turn {
        w: 1.0,
        v: [0.0; 3],
    };

    /// Made a unit; `None` for numbers that are no direction.
    #[must_use]
    pub fn unit(w: f64, v: Point) -> Option<Turn> {
        let size = (w * w + dot(v, v)).sqrt();
        let good = size.is_finite() && size > 1e-6;
        good.then(|| Turn {
            w: w / size,
            v: scale(v, 1.0 / size),
        })
    }

    /// By a rotation vector: axis times angle, radians.
    #[must_use]
    pub fn by(vector: Point) -> Turn {
        let angle = length(vector);
        if angle < NO_ANGLE_RAD {
            return Turn::unit(1.0, scale(vector, 0.5)).unwrap_or(Turn::NONE);
        }
        let (sin, cos) = sin_cos(0.5 * angle);
        Turn {
            w: cos,
            v: scale(vector, sin / angle),
        }
    }

    /// The rotation vector, of the shorter way: at most pi long.
    #[must_use]
    pub fn vector(self) -> Point {
        let Turn { w, v } = self.near(Turn::NONE);
        let sin = length(v);
        if sin < NO_ANGLE_RAD {
            return scale(v, 2.0);
        }
        scale(v, 2.0 * libm::atan2(sin, w) / sin)
    }

    /// From the images of x, y and z, which must be at right angles. (S. W. Shepperd, 1978: by the largest of the four
    /// components, so nothing small is divided by.)
    #[must_use]
    pub fn of(columns: &[Point; 3]) -> Turn {
        let [[xx, yx, zx], [xy, yy, zy], [xz, yz, zz]] = *columns;
        let four = [
            1.0 + xx + yy + zz,
            1.0 + xx - yy - zz,
            1.0 - xx + yy - zz,
            1.0 - xx - yy + zz,
        ];
        let [a, b, c, d] = four;
        let most = a.max(b).max(c).max(d);
        let (w, v) = if most == a {
            (a, [zy - yz, xz - zx, yx - xy])
        } else if most == b {
            (zy - yz, [b, yx + xy, xz + zx])
        } else if most == c {
            (xz - zx, [yx + xy, c, zy + yz])
        } else {
            (yx - xy, [xz + zx, zy + yz, d])
        };
        Turn::unit(w, v).unwrap_or(Turn::NONE)
    }

    /// From the images of x and y, which need not be units nor at right angles: the first is kept, the second bent
    /// (Zhou et al., "On the continuity of rotation representations in neural networks", 2019). `None` where they are one.
    #[must_use]
    pub fn of_two(x: Point, y: Point) -> Option<Turn> {
        let unit = |v: Point| {
            let size = length(v);
            (size.is_finite() && size > 1e-6).then(|| scale(v, 1.0 / size))
        };
        let x = unit(x)?;
        let y = unit(add(y, scale(x, -dot(x, y))))?;
        Some(Turn::of(&[x, y, cross(x, y)]))
    }

    /// The images of x, y and z.
    #[must_use]
    pub fn columns(self) -> [Point; 3] {
        let Turn { w, v: [x, y, z] } = self;
        [
            [
                1.0 - 2.0 * (y * y + z * z),
                2.0 * (x * y + w * z),
                2.0 * (x * z - w * y),
            ],
            [
                2.0 * (x * y - w * z),
                1.0 - 2.0 * (x * x + z * z),
                2.0 * (y * z + w * x),
            ],
            [
                2.0 * (x * z + w * y),
                2.0 * (y * z - w * x),
                1.0 - 2.0 * (x * x + y * y),
            ],
        ]
    }

    /// `self` after `inner`.
    #[must_use]
    pub fn then_inside(self, inner: Turn) -> Turn {
        Turn {
            w: self.w * inner.w - dot(self.v, inner.v),
            v: add(
                add(scale(inner.v, self.w), scale(self.v, inner.w)),
                cross(self.v, inner.v),
            ),
        }
    }

    /// The opposite turn.
    #[must_use]
    pub fn back(self) -> Turn {
        Turn {
            w: self.w,
            v: scale(self.v, -1.0),
        }
    }

    /// The same orientation, by the sign that lies nearer to `other`.
    #[must_use]
    pub fn near(self, other: Turn) -> Turn {
        if self.w * other.w + dot(self.v, other.v) < 0.0 {
            Turn {
                w: -self.w,
                v: scale(self.v, -1.0),
            }
        } else {
            self
        }
    }

    /// Evenly from this (`u` = 0) to `to` (1), the shorter way.
    #[must_use]
    pub fn towards(self, to: Turn, u: f64) -> Turn {
        let way = self.back().then_inside(to.near(self)).vector();
        self.then_inside(Turn::by(scale(way, u)))
    }

    /// The point between a knot and its control (`squad`): what makes the pieces on both sides of `self` meet smoothly.
    #[must_use]
    pub fn control(self, before: Turn, after: Turn) -> Turn {
        let back = self.back();
        let bend = add(
            back.then_inside(after.near(self)).vector(),
            back.then_inside(before.near(self)).vector(),
        );
        self.then_inside(Turn::by(scale(bend, -0.25)))
    }
}

/// Between the second (`u` = 0) and the third (1) of four orientations in turn.
#[must_use]
pub fn squad([before, from, to, after]: [Turn; 4], u: f64) -> Turn {
    let to = to.near(from);
    let (first, second) = (from.control(before, to), to.control(from, after));
    let chord = from.towards(to, u);
    let bow = first.towards(second, u);
    chord.towards(bow, 2.0 * u * (1.0 - u))
}
