// SPDX-License-Identifier: Apache-2.0
//! What is agreed with a kernel camera before pictures come: that its node gives pictures, their format, size and rate, what its controls
//! stand at. All is set, read back, and refused in words if the device has its own mind.
//!
//! Formats are tried in the order of preference, each up to the stream itself: whether the bus has room for one, beside what other
//! cameras send over it, the kernel says no sooner (ENOSPC). One that is offered and then not taken gives way to the next.
//!
//! Not responsible for opening a device, nor for when one that refused is tried again (`v4l`).

use super::colours::Colours;
use super::controls::Controls;
use super::decode::Format;
use super::mapped::{self, Mapped, Node, Pixels};
use super::v4l_mode::Mode;
use std::io;
use std::ops::RangeInclusive;
use v4l::Device;
use v4l::fraction::Fraction;
use v4l::video::Capture;
use v4l::video::capture::Parameters;

/// Buffers in the kernel. One is ours, one is being filled, two bridge a thread that was late by two frames.
pub(super) const BUFFERS: u32 = 4;
/// Of `v4l2_field`: a picture whose rows come in two fields, or that is one of them. What stands before is whole pictures and "any", what
/// stands behind no header has; both are taken for whole.
const IN_FIELDS: RangeInclusive<u32> = 2..=9;

// Of errno(3).
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;

/// Why a device does not stream.
pub(super) enum Trouble {
    /// It may mend itself.
    Io(io::Error),
    /// It will not.
    Mode { expected: String, found: String },
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Io(error)
    }
}

/// What is agreed with the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) format: Format,
    /// The characters by which it was asked for.
    pub(super) fourcc: [u8; 4],
    pub(super) stride: usize,
    pub(super) colours: Colours,
    /// Time between two pictures, if the driver says one.
    pub(super) interval_ns: Option<u64>,
}

/// A device that streams.
pub(super) struct Begun {
    pub(super) agreed: Agreed,
    pub(super) buffers: Mapped,
    /// What was preferred, and is not to be had.
    pub(super) refused: Refused,
}

/// What is not to be had, in words.
#[derive(Debug, Default)]
pub(super) struct Refused {
    pub(super) words: Vec<String>,
    /// The last of what is not the format's fault, and may pass.
    pub(super) passing: Option<io::Error>,
}

impl Refused {
    fn add(&mut self, words: String) {
        self.words.push(words);
    }

    fn add_passing(&mut self, words: String, error: io::Error) {
        self.words.push(words);
        self.passing = Some(error);
    }
}

/// What is asked of a device.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) mode: &'a Mode,
    pub(super) size: [usize; 2],
    pub(super) period_ns: u64,
}

/// A format, for people.
pub(super) fn name(fourcc: [u8; 4]) -> String {
    String::from_utf8_lossy(&fourcc).trim_end().to_owned()
}

/// Pictures a second.
pub(super) fn rate_hz(period_ns: u64) -> f64 {
    1e9 / period_ns.max(1) as f64
}

/// Whether this node of a device is one that gives pictures, to us.
///
/// # Errors
/// What the device says; and of another node, which one to take.
pub(super) fn gives_pictures(device: &Device) -> Result<(), Trouble> {
    let found = match mapped::node(device)? {
        Node::Pictures => return Ok(()),
        Node::Metadata => {
            "a metadata node: take the one that ends in index0 (tendon cameras --list)".to_owned()
        }
        Node::MultiPlanar => {
            "a multi-planar device: use source = \"gstreamer\" with v4l2src".to_owned()
        }
        Node::Other(capabilities) => format!(
            "no capture device (capabilities {capabilities:#010x}): `tendon cameras --list` names those that are"
        ),
    };
    Err(Trouble::Mode {
        expected: "a device that gives pictures".to_owned(),
        found,
    })
}

impl Wanted<'_> {
    /// The first of the formats that the device takes and streams in, with its controls set.
    ///
    /// # Errors
    /// [`Trouble`]: what may pass, if anything of it may; else what it has instead of what was asked for.
    pub(super) fn stream(
        &self,
        device: &Device,
        controls: &mut Controls,
    ) -> Result<Begun, Trouble> {
        let [width, height] = self.side_px();
        let offered = mapped::formats(device)?;
        let wanted = self.fourccs();
        let mut refused = Refused::default();
        for fourcc in wanted.iter().filter(|fourcc| offered.contains(fourcc)) {
            let asked = format!("{} {width}x{height}", name(*fourcc));
            let Some(format) = Format::from_fourcc(*fourcc) else {
                refused.add(not_decoded(&[*fourcc]));
                continue;
            };
            // What keeps a format with colours away may pass: no reason to go without them.
            if format == Format::Grey && self.mode.formats.is_empty() && refused.passing.is_some() {
                break;
            }
            let set = match mapped::set_format(device, *fourcc, [width, height]) {
                Ok(set) => set,
                Err(error) if of_all(&error) => return Err(error.into()),
                Err(error) if error.raw_os_error() == Some(EINVAL) => {
                    refused.add(format!("{asked} ({error})"));
                    continue;
                }
                Err(error) => {
                    refused.add_passing(format!("{asked} ({error})"), error);
                    continue;
                }
            };
            let interval_ns = self.set_rate(device);
            if let Some(found) = self.otherwise(*fourcc, &set, interval_ns) {
                refused.add(found);
                continue;
            }
            // After the rate, which is the bound of some: of the exposure above all.
            controls.set(device)?;
            match Mapped::start(device, BUFFERS) {
                Ok(buffers) => {
                    let agreed = Agreed {
                        format,
                        fourcc: *fourcc,
                        stride: (set.stride as usize).max(format.row_len(self.size[0])),
                        colours: set.colours,
                        interval_ns,
                    };
                    return Ok(Begun {
                        agreed,
                        buffers,
                        refused,
                    });
                }
                // The bus, of whose room others may give some back.
                Err(error) if error.raw_os_error() == Some(ENOSPC) => {
                    refused.add_passing(format!("{asked} ({error})"), error);
                }
                // Nothing that another format would mend.
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(error) = refused.passing {
            return Err(error.into());
        }
        let found = if refused.words.is_empty() {
            has_only(&offered)
        } else {
            refused.words.join(", ")
        };
        Err(Trouble::Mode {
            expected: format!(
                "one of {} at {width}x{height}, {:.1} Hz",
                names(&wanted),
                rate_hz(self.period_ns)
            ),
            found,
        })
    }

    fn side_px(&self) -> [u32; 2] {
        self.size.map(|side| side as u32)
    }

    /// In the order in which they are tried.
    fn fourccs(&self) -> Vec<[u8; 4]> {
        if self.mode.formats.is_empty() {
            Format::FOURCCS.to_vec()
        } else {
            self.mode.formats.clone()
        }
    }

    /// Asks for the rate; the time between two pictures that the driver agrees to, if it says one. One that cannot set a rate says so with
    /// ENOTTY; its pictures' times tell the rest.
    fn set_rate(&self, device: &Device) -> Option<u64> {
        let asked = Fraction::new((self.period_ns / 1_000) as u32, 1_000_000);
        let set = device.set_params(&Parameters::new(asked)).ok()?.interval;
        if set.numerator == 0 || set.denominator == 0 {
            return None;
        }
        Some(u64::from(set.numerator) * 1_000_000_000 / u64::from(set.denominator))
    }

    /// What the device set in place of what it was asked for, if it did.
    fn otherwise(&self, fourcc: [u8; 4], set: &Pixels, interval_ns: Option<u64>) -> Option<String> {
        let slow = interval_ns.is_some_and(|given_ns| given_ns > self.period_ns + self.tenth_ns());
        let in_fields = IN_FIELDS.contains(&set.field);
        if (set.size, set.fourcc) == (self.side_px(), fourcc) && !slow && !in_fields {
            return None;
        }
        let [width, height] = set.size;
        let rate = interval_ns.map_or(String::new(), |given_ns| {
            format!(" at {:.1} Hz", rate_hz(given_ns))
        });
        let fields = if in_fields {
            ", interlaced (source = \"gstreamer\" with v4l2src and deinterlace takes those)"
        } else {
            ""
        };
        Some(format!(
            "{} {width}x{height}{rate}{fields}",
            name(set.fourcc)
        ))
    }

    /// Whether the driver agreed to more than a tenth more pictures than were asked for.
    pub(super) fn too_fast(&self, agreed: &Agreed) -> bool {
        agreed
            .interval_ns
            .is_some_and(|given_ns| given_ns + self.tenth_ns() < self.period_ns)
    }

    fn tenth_ns(&self) -> u64 {
        self.period_ns / 10
    }
}

/// Whether no other format could be had either.
fn of_all(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENODEV | EBUSY))
}

fn names(list: &[[u8; 4]]) -> String {
    let names: Vec<_> = list.iter().copied().map(name).collect();
    names.join(", ")
}

fn not_decoded(list: &[[u8; 4]]) -> String {
    format!(
        "{}, not decoded here (source = \"gstreamer\" is the way: v4l2src and a decoder)",
        names(list)
    )
}

/// Of a device that has nothing of what was asked for.
fn has_only(offered: &[[u8; 4]]) -> String {
    let decoded = |fourcc: &[u8; 4]| Format::from_fourcc(*fourcc).is_some();
    if offered.is_empty() {
        "no pixel format at all".to_owned()
    } else if offered.iter().any(decoded) {
        format!("only {}", names(offered))
    } else {
        format!("only {}", not_decoded(offered))
    }
}
