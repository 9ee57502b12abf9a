// SPDX-License-Identifier: Apache-2.0
//! What a kernel camera offers beyond formats and sizes: its rates, and the controls that may be set by a number. For people, who write
//! a configuration: what a driver does not answer is left out.
//!
//! Asked in the kernel's own structures, and of lists that end after [`LIST_MAX`], for the reasons that `mapped` gives.
//!
//! Not responsible for formats, sizes and values (`mapped`), nor for how it is told (`listing`).
#![allow(unsafe_code)] // The kernel's structures.

use super::mapped::{self, text};
use std::ffi::c_void;
use std::fmt;
use std::io;
use std::mem;
use std::ptr;
use v4l::Device;
use v4l::device::Handle;
use v4l::v4l_sys;
use v4l::v4l_sys::{v4l2_fract, v4l2_frmivalenum, v4l2_query_ext_ctrl, v4l2_querymenu};
use v4l::v4l2;
use v4l::v4l2::vidioc;

/// Entries of a list that are asked for at most.
const LIST_MAX: u32 = 256;
/// What keeps a control from being set and read back.
const NOT_OURS: u32 = v4l_sys::V4L2_CTRL_FLAG_DISABLED
    | v4l_sys::V4L2_CTRL_FLAG_READ_ONLY
    | v4l_sys::V4L2_CTRL_FLAG_WRITE_ONLY
    | v4l_sys::V4L2_CTRL_FLAG_HAS_PAYLOAD;

/// The time from one picture to the next, in seconds: a fraction of which no part is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    /// Above the line.
    pub numerator: u32,
    /// Below it.
    pub denominator: u32,
}

impl Period {
    fn new(found: v4l2_fract) -> Option<Period> {
        (found.numerator != 0 && found.denominator != 0).then_some(Period {
            numerator: found.numerator,
            denominator: found.denominator,
        })
    }

    /// Pictures a second.
    #[must_use]
    pub fn hz(self) -> f64 {
        f64::from(self.denominator) / f64::from(self.numerator)
    }
}

/// As tendon.toml takes it: with two decimals at most.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hz = format!("{:.2}", self.hz());
        f.write_str(hz.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// Rates of a format at one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rates {
    /// Its driver does not say.
    Unsaid,
    /// These, the fastest first.
    Each(Vec<Period>),
    /// All between two; some drivers know only some of them.
    Between {
        /// The slowest.
        slowest: Period,
        /// The fastest.
        fastest: Period,
    },
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rates::Unsaid => f.write_str("rates that its driver does not say"),
            Rates::Each(periods) => {
                let hz: Vec<String> = periods.iter().map(ToString::to_string).collect();
                write!(f, "{} Hz", hz.join(", "))
            }
            Rates::Between { slowest, fastest } => write!(f, "{slowest} to {fastest} Hz"),
        }
    }
}

/// A control that may be set by a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// As the kernel numbers it.
    pub id: u32,
    /// As its driver calls it.
    pub label: String,
    /// The smallest and the largest value.
    pub range: [i64; 2],
    /// From one value to the next.
    pub step: u64,
    /// What the driver was made with.
    pub default: i64,
    /// What it stands at; `None` if the device does not say.
    pub now: Option<i64>,
    /// Of a menu: the values that it has, and what they mean.
    pub entries: Vec<(i64, String)>,
    /// Whether the camera sets it by itself now, and refuses who would.
    pub is_automatic: bool,
}

/// One question to the device.
fn ask<T>(handle: &Handle, request: vidioc::_IOC_TYPE, argument: &mut T) -> io::Result<()> {
    let argument = ptr::from_mut(argument).cast::<c_void>();
    // SAFETY: every request of this file is one whose argument is a `T` that lives until the call returns and points to nothing.
    unsafe { v4l2::ioctl(handle.fd(), request, argument) }
}

/// One of the kernel's structures, all zero.
fn zero<T>() -> T {
    // SAFETY: every `T` of this file is a structure of the kernel's, of numbers and unions of them: all zero is one of its values.
    unsafe { mem::zeroed() }
}

/// The rates of a format at a size, width and height.
pub(super) fn rates(device: &Device, fourcc: [u8; 4], [width, height]: [u32; 2]) -> Rates {
    let handle = device.handle();
    let mut periods: Vec<Period> = Vec::new();
    for index in 0..LIST_MAX {
        let mut found = v4l2_frmivalenum {
            index,
            pixel_format: u32::from_le_bytes(fourcc),
            width,
            height,
            ..zero()
        };
        if ask(&handle, vidioc::VIDIOC_ENUM_FRAMEINTERVALS, &mut found).is_err() {
            break;
        }
        match found.type_ {
            v4l_sys::v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE => {
                // SAFETY: of this kind it is the union's field; both are of numbers alone.
                let one = unsafe { found.__bindgen_anon_1.discrete };
                if let Some(period) = Period::new(one)
                    && !periods.contains(&period)
                {
                    periods.push(period);
                }
            }
            v4l_sys::v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_STEPWISE
            | v4l_sys::v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_CONTINUOUS => {
                // SAFETY: of these kinds it is the union's field; both are of numbers alone.
                let many = unsafe { found.__bindgen_anon_1.stepwise };
                // There is but one such answer.
                return match (Period::new(many.max), Period::new(many.min)) {
                    (Some(slowest), Some(fastest)) => Rates::Between { slowest, fastest },
                    _ => Rates::Unsaid,
                };
            }
            _ => {}
        }
    }
    if periods.is_empty() {
        return Rates::Unsaid;
    }
    periods.sort_by(|one, other| other.hz().total_cmp(&one.hz()));
    Rates::Each(periods)
}

/// The controls that may be set by a number, in the order of theirs.
pub(super) fn controls(device: &Device) -> Vec<Control> {
    let handle = device.handle();
    let mut list = Vec::new();
    let mut last = 0;
    for _ in 0..LIST_MAX {
        let mut found = v4l2_query_ext_ctrl {
            id: last | v4l_sys::V4L2_CTRL_FLAG_NEXT_CTRL,
            ..zero()
        };
        let asked = ask(&handle, vidioc::VIDIOC_QUERY_EXT_CTRL, &mut found);
        // A driver that goes back has no end.
        if asked.is_err() || found.id <= last {
            break;
        }
        last = found.id;
        // Neither a button nor text, bits or a table of numbers.
        let Ok(number) = mapped::number(device, found.id) else {
            continue;
        };
        if found.flags & NOT_OURS != 0 || found.elems > 1 {
            continue;
        }
        let label: Vec<u8> = found.name.iter().flat_map(|c| c.to_ne_bytes()).collect();
        list.push(Control {
            id: found.id,
            label: text(&label),
            range: [found.minimum, found.maximum],
            step: found.step,
            default: found.default_value,
            now: number.read(device).ok(),
            entries: entries(&handle, &found),
            is_automatic: found.flags & v4l_sys::V4L2_CTRL_FLAG_INACTIVE != 0,
        });
    }
    list
}

/// What a menu has: drivers leave out what the device cannot do. Nothing of a control that is none.
fn entries(handle: &Handle, control: &v4l2_query_ext_ctrl) -> Vec<(i64, String)> {
    let is_named = match control.type_ {
        v4l_sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_MENU => true,
        v4l_sys::v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER_MENU => false,
        _ => return Vec::new(),
    };
    let entry = |value: i64| {
        let mut found = v4l2_querymenu {
            id: control.id,
            index: u32::try_from(value).ok()?,
            ..zero()
        };
        ask(handle, vidioc::VIDIOC_QUERYMENU, &mut found).ok()?;
        let means = if is_named {
            // SAFETY: of this kind it is the union's field, and any bytes are one.
            let name = unsafe { found.__bindgen_anon_1.name };
            text(&name)
        } else {
            // SAFETY: of this kind it is the union's field, and any bytes are a number.
            let number = unsafe { found.__bindgen_anon_1.value };
            number.to_string()
        };
        Some((value, means))
    };
    let values = (control.minimum..=control.maximum).take(LIST_MAX as usize);
    values.filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(numerator: u32, denominator: u32) -> Period {
        Period {
            numerator,
            denominator,
        }
    }

    #[test]
    fn rates_in_words() {
        let each = [
            (period(1, 30), "30"),
            (period(1001, 30_000), "29.97"),
            (period(2, 15), "7.5"),
            (period(333_333, 10_000_000), "30"),
            (period(1, 100), "100"),
        ];
        for (period, words) in each {
            assert_eq!(period.to_string(), words);
        }
        let two = Rates::Each(vec![period(1, 30), period(2, 15)]);
        assert_eq!(two.to_string(), "30, 7.5 Hz");
        let between = Rates::Between {
            slowest: period(1, 1),
            fastest: period(1, 60),
        };
        assert_eq!(between.to_string(), "1 to 60 Hz");
    }

    #[test]
    fn a_period_of_nothing_is_none() {
        let of = |numerator, denominator| {
            Period::new(v4l2_fract {
                numerator,
                denominator,
            })
        };
        assert_eq!(of(0, 30), None);
        assert_eq!(of(1, 0), None);
        assert_eq!(of(1, 30), Some(period(1, 30)));
    }
}
