// SPDX-License-Identifier: Apache-2.0
//! What `tendon cameras --list` prints: each kernel camera with its names, formats, sizes, rates and controls, as tendon.toml takes
//! them, then what else there is and why that is none, and last a table for each camera to begin with.
//!
//! Not responsible for what is there (`discovery`, `offered`).

use super::decode::Format;
use super::discovery::{self, Found, Offer, Other, OtherKind, Places, Sizes};
use super::offered::{Control, Period, Rates};
use crate::config::camera::CONTROLS;
use std::path::{Path, PathBuf};

/// The rate that a table asks for, or what is nearest to it.
const RATE_HZ: f64 = 30.0;
/// The size, width times height.
const PIXELS: u64 = 640 * 480;
/// How old a picture may be in a table: so long, or so many periods of a slow camera.
const AGE_MAX_MS: f64 = 150.0;
const AGE_MAX_PERIODS: f64 = 5.0;
/// Entries of a menu that are told.
const ENTRIES_MAX: usize = 8;

/// What a control is called in tendon.toml: those without a name there are written as numbers.
#[must_use]
pub fn name_of(id: u32) -> String {
    let known = CONTROLS.iter().find(|(_, known)| *known == id);
    known.map_or_else(|| format!("{id:#010x}"), |(name, _)| (*name).to_owned())
}

/// All of it, for people.
#[must_use]
pub fn page(places: &Places<'_>) -> String {
    let survey = discovery::survey(places);
    let cameras: Vec<(&Found, Vec<Control>)> = survey
        .cameras
        .iter()
        .map(|found| (found, discovery::controls(&found.device)))
        .collect();
    let mut lines = Vec::new();
    if cameras.is_empty() {
        let root = places.nodes.display();
        lines.push(format!(
            "no kernel camera: nothing under {root}/video* gives pictures"
        ));
    }
    for (found, controls) in &cameras {
        lines.extend(camera(found, controls));
    }
    let others = survey.others.iter();
    lines.extend(others.map(|one| other(one, &survey.cameras)));
    if !cameras.is_empty() {
        lines.push(String::new());
        lines.push(
            "# For tendon.toml; name, width and height are as the policy's bundle has them."
                .to_owned(),
        );
    }
    for (at, (found, controls)) in cameras.iter().enumerate() {
        lines.extend(table(at + 1, found, controls));
    }
    lines.join("\n")
}

/// What a camera is called, and what it offers.
fn camera(found: &Found, controls: &[Control]) -> Vec<String> {
    let (card, bus) = (&found.card, &found.bus);
    let mut lines = vec![format!("{card} on {bus}, now {}", found.device.display())];
    for link in &found.stable {
        let contested = found.contested.iter().find(|each| each.link == *link);
        let doubt = contested.map_or_else(String::new, |contested| {
            let by: Vec<String> = contested.by.iter().map(|by| shown(by)).collect();
            format!(
                "   # not stable: {} asks for it as well; use a by-path name",
                by.join(", ")
            )
        });
        lines.push(format!("  device = {}{doubt}", quoted(link)));
    }
    if found.stable.is_empty() {
        lines.push("  no stable name: udev has made none".to_owned());
    }
    lines.extend(modes(&found.modes));
    if controls.is_empty() {
        lines.push("  no control that could be set".to_owned());
    } else {
        lines.push("  controls, by the names that `controls` takes:".to_owned());
    }
    lines.extend(controls.iter().map(control));
    lines
}

/// A line for all sizes of a format that have the same rates.
fn modes(offers: &[Offer]) -> Vec<String> {
    let mut groups: Vec<(&Offer, Vec<String>)> = Vec::new();
    for offer in offers {
        let size = offer.sizes.to_string();
        let alike = groups
            .iter_mut()
            .find(|(first, _)| first.fourcc == offer.fourcc && first.rates == offer.rates);
        match alike {
            Some((_, sizes)) => sizes.push(size),
            None => groups.push((offer, vec![size])),
        }
    }
    let line = |(offer, sizes): &(&Offer, Vec<String>)| {
        let (format, rates, sizes) = (offer.format(), &offer.rates, sizes.join(", "));
        let asked = match (offer.sizes, rates) {
            (Sizes::One(_), _) | (_, Rates::Unsaid) => String::new(),
            (Sizes::Between { .. } | Sizes::Any, _) => {
                let [width, height] = offer.sizes.asked();
                format!(" (as told for {width}x{height})")
            }
        };
        let decoded = match Format::from_fourcc(offer.fourcc) {
            Some(_) => "",
            None => "; source = \"v4l\" does not decode it",
        };
        format!("  {format} {sizes} at {rates}{asked}{decoded}")
    };
    groups.iter().map(line).collect()
}

fn control(control: &Control) -> String {
    let name = name_of(control.id);
    let [least, most] = control.range;
    let mut values = format!("{least} to {most}");
    if control.step > 1 {
        values = format!("{values} in steps of {}", control.step);
    }
    if !control.entries.is_empty() {
        let entries = control.entries.iter().take(ENTRIES_MAX);
        let entries: Vec<String> = entries
            .map(|(value, means)| format!("{value} ({means})"))
            .collect();
        let more = match control.entries.len() > ENTRIES_MAX {
            true => format!(", ... to {most}"),
            false => String::new(),
        };
        values = format!("{}{more}", entries.join(", "));
    }
    let now = match control.now {
        Some(now) => format!(", now {now}"),
        None => String::new(),
    };
    let by_itself = match control.is_automatic {
        true => "; the camera sets it by itself now",
        false => "",
    };
    let label = match name.starts_with("0x") {
        true => format!("; its driver calls it \"{}\"", control.label),
        false => String::new(),
    };
    let default = control.default;
    format!("    {name:<27} {values}, default {default}{now}{by_itself}{label}")
}

/// What a node is that gives no pictures here, and what to use in its place.
fn other(other: &Other, cameras: &[Found]) -> String {
    let at = |device: &Path| (device.as_os_str().len(), device.to_owned());
    // The driver numbers a camera's node for pictures first.
    let its = cameras
        .iter()
        .rfind(|found| found.bus == other.bus && at(&found.device) < at(&other.device));
    let its = its.map_or_else(
        || "come from the node whose stable name ends in index0".to_owned(),
        |found| format!("come from {}", found.device.display()),
    );
    let device = other.device.display();
    let what = match other.kind {
        OtherKind::Metadata => format!("tells of pictures and gives none; they {its}"),
        OtherKind::NoFormat => format!("offers no format; pictures {its}"),
        OtherKind::MultiPlanar => format!(
            "gives pictures in several planes, which source = \"v4l\" does not read; use source = \"gstreamer\", pipeline = \"v4l2src device={device} ! ...\""
        ),
        OtherKind::Coder => "codes or converts pictures, and is no camera".to_owned(),
        OtherKind::Unknown => "gives no pictures".to_owned(),
    };
    format!("{} on {}, {device}: {what}", other.card, other.bus)
}

/// A table for tendon.toml.
fn table(number: usize, found: &Found, controls: &[Control]) -> Vec<String> {
    let Some(offer) = chosen(&found.modes) else {
        let formats = Format::ALL.map(Format::name);
        return vec![format!(
            "# {}, {}: none of its formats is one that source = \"v4l\" decodes ({}); try source = \"gstreamer\".",
            found.card,
            found.device.display(),
            formats.join(", ")
        )];
    };
    let is_contested = |link: &&Path| found.contested.iter().any(|each| each.link == *link);
    let mut stable = found.stable.iter().map(PathBuf::as_path);
    let device = match stable.find(|link| !is_contested(link)) {
        Some(link) => quoted(link),
        None => format!(
            "{}   # its number may change at the next start",
            quoted(&found.device)
        ),
    };
    let (rate, doubt) = match nearest_rate(&offer.rates) {
        Some((_, words)) => (words, ""),
        None => (
            RATE_HZ.to_string(),
            "   # its driver does not say which it has",
        ),
    };
    let [width, height] = offer.sizes.asked();
    let hz = hz(&offer.rates);
    let age_max_ms = (AGE_MAX_PERIODS * 1e3 / hz).ceil().max(AGE_MAX_MS);
    let mut lines = vec![
        String::new(),
        "[[camera]]".to_owned(),
        format!("name = \"camera{number}\""),
        "source = \"v4l\"".to_owned(),
        format!("device = {device}"),
        format!("formats = [\"{}\"]", offer.format()),
        format!("rate_hz = {rate}{doubt}"),
        format!("width = {width}"),
        format!("height = {height}"),
        format!("age_max_ms = {age_max_ms}"),
    ];
    let stands = |control: &Control| {
        let now = control.now.filter(|_| !control.is_automatic)?;
        Some(format!("{} = {now}", name_of(control.id)))
    };
    let stand: Vec<String> = controls.iter().filter_map(stands).collect();
    if !stand.is_empty() {
        let stand = stand.join(", ");
        lines.push(format!("# controls = {{ {stand} }}   # as they stand now"));
    }
    lines
}

/// What is decoded here, with colours if there are any; then what comes at the rate, nearest to the size, cheapest to decode.
fn chosen(offers: &[Offer]) -> Option<&Offer> {
    let key = |offer: &Offer| {
        let format = Format::from_fourcc(offer.fourcc)?;
        let place = Format::ALL.iter().position(|each| *each == format);
        let [width, height] = offer.sizes.asked().map(u64::from);
        let too_slow_hz = (RATE_HZ - hz(&offer.rates)).max(0.0).round() as u64;
        let beside = (width * height).abs_diff(PIXELS);
        Some((format == Format::Grey, too_slow_hz, beside, place))
    };
    let keyed = offers.iter().filter_map(|offer| Some((key(offer)?, offer)));
    keyed.min_by_key(|(key, _)| *key).map(|(_, offer)| offer)
}

/// The rate that a table asks for.
fn hz(rates: &Rates) -> f64 {
    nearest_rate(rates).map_or(RATE_HZ, |(hz, _)| hz)
}

/// The rate that is nearest to [`RATE_HZ`], and its words; `None` if none is known.
fn nearest_rate(rates: &Rates) -> Option<(f64, String)> {
    let told = |period: &Period| (period.hz(), period.to_string());
    match rates {
        Rates::Unsaid => None,
        Rates::Each(periods) => {
            let beside = |period: &&Period| (period.hz() - RATE_HZ).abs();
            let nearest = periods
                .iter()
                .min_by(|one, other| beside(one).total_cmp(&beside(other)));
            nearest.map(told)
        }
        Rates::Between { slowest, fastest } => Some(if RATE_HZ > fastest.hz() {
            told(fastest)
        } else if RATE_HZ < slowest.hz() {
            told(slowest)
        } else {
            (RATE_HZ, RATE_HZ.to_string())
        }),
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// As a text of tendon.toml.
fn quoted(path: &Path) -> String {
    format!("{:?}", shown(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(fourcc: &[u8; 4], size: [u32; 2], hz: &[u32]) -> Offer {
        let period = |hz: &u32| Period {
            numerator: 1,
            denominator: *hz,
        };
        Offer {
            fourcc: *fourcc,
            sizes: Sizes::One(size),
            rates: match hz {
                [] => Rates::Unsaid,
                _ => Rates::Each(hz.iter().map(period).collect()),
            },
        }
    }

    #[test]
    fn a_table_asks_for_the_size_and_the_rate_of_most_cameras_and_for_colours() {
        let big = offer(b"MJPG", [1920, 1080], &[30, 15]);
        let slow = offer(b"YUYV", [640, 480], &[10, 5]);
        let good = offer(b"MJPG", [640, 480], &[60, 30]);
        let cheap = offer(b"YUYV", [640, 480], &[30]);
        let grey = offer(b"GREY", [640, 480], &[30]);
        let depth = offer(b"Z16 ", [640, 480], &[30]);
        let rows: [(&[&Offer], Option<&Offer>); 6] = [
            (&[&big, &slow, &good], Some(&good)),
            (&[&slow, &big], Some(&big)),
            (&[&good, &cheap], Some(&cheap)),
            (&[&grey, &slow, &depth], Some(&slow)),
            (&[&depth, &grey], Some(&grey)),
            (&[&depth], None),
        ];
        for (offers, wanted) in rows {
            let offers: Vec<Offer> = offers.iter().map(|offer| (*offer).clone()).collect();
            assert_eq!(chosen(&offers), wanted);
        }
    }

    #[test]
    fn the_nearest_rate() {
        let words = |hz: &[u32]| {
            let told = nearest_rate(&offer(b"MJPG", [640, 480], hz).rates);
            told.map(|(_, words)| words)
        };
        assert_eq!(words(&[60, 30, 15]).as_deref(), Some("30"));
        assert_eq!(words(&[15, 10]).as_deref(), Some("15"));
        assert_eq!(words(&[]), None);
        let between = |slowest, fastest| {
            let period = |denominator| Period {
                numerator: 1,
                denominator,
            };
            let rates = Rates::Between {
                slowest: period(slowest),
                fastest: period(fastest),
            };
            nearest_rate(&rates).map(|(_, words)| words)
        };
        assert_eq!(between(1, 60).as_deref(), Some("30"));
        assert_eq!(between(1, 25).as_deref(), Some("25"));
        assert_eq!(between(50, 60).as_deref(), Some("50"));
    }

    #[test]
    fn sizes_with_the_same_rates_are_one_line() {
        let offers = [
            offer(b"MJPG", [640, 480], &[30, 15]),
            offer(b"MJPG", [1920, 1080], &[5]),
            offer(b"MJPG", [320, 240], &[30, 15]),
            offer(b"Z16 ", [320, 240], &[]),
        ];
        assert_eq!(
            modes(&offers),
            [
                "  MJPG 640x480, 320x240 at 30, 15 Hz",
                "  MJPG 1920x1080 at 5 Hz",
                "  Z16 320x240 at rates that its driver does not say; source = \"v4l\" does not decode it",
            ]
        );
    }
}
