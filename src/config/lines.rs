// SPDX-License-Identifier: Apache-2.0
//! `[lines]` of `tendon.toml`: contacts that a person presses or holds, wired to this machine or told over the link.

use crate::config::file::{Located, Number};
use crate::core::lines::{CHANNELS_MAX, Coding, Wiring};
use crate::core::units::MS;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// `[lines]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinesTable {
    /// The emergency stop: a contact that is closed while nobody presses it.
    pub emergency: Option<Spanned<ContactTable>>,
    /// The deadman switch: a contact that is closed while it is held.
    pub deadman: Option<Spanned<ContactTable>>,
}

/// `[lines.emergency]`, `[lines.deadman]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContactTable {
    /// One or two GPIO lines, each a chip and an offset: `/dev/gpiochip0:12`.
    pub gpio: Option<Spanned<Vec<String>>>,
    /// What holds a line whose wire is cut: "pull-down" (absent), "pull-up", "as-is" where the board has a resistor.
    pub bias: Option<Spanned<String>>,
    /// Whether a low level is the closed contact; absent: no.
    pub active_low: Option<bool>,
    /// An input device: `/dev/input/by-id/...`; for the deadman alone.
    pub evdev: Option<Spanned<String>>,
    /// A switch that tells over the link, and counts as let go when it was silent for so long; for the deadman alone.
    pub link_silence_ms: Option<Spanned<Number>>,
    /// With `evdev`: one or two keys that must both be held, by the kernel's names.
    pub keys: Option<Spanned<Vec<String>>>,
    /// Closed for so long counts as closed; absent: 20.
    pub settle_ms: Option<Spanned<Number>>,
    /// Two channels may disagree for so long; absent: 50.
    pub apart_ms: Option<Spanned<Number>>,
    /// Shortest and longest half period of a contact that pulses while it is closed.
    pub pulse_ms: Option<Spanned<[Number; 2]>>,
}

/// What holds a line that nothing drives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bias {
    /// A resistor of the chip, to low.
    PullDown,
    /// A resistor of the chip, to high.
    PullUp,
    /// As the board has it.
    AsIs,
}

/// Where a contact is read.
#[derive(Clone, Debug)]
pub enum Wire {
    /// GPIO lines: chip and offset each.
    Gpio {
        /// In the order of the channels.
        lines: Vec<(PathBuf, u32)>,
        /// See [`Bias`].
        bias: Bias,
        /// Whether a low level is the closed contact.
        active_low: bool,
    },
    /// Keys of an input device.
    Evdev {
        /// Its node.
        device: PathBuf,
        /// Names of the keys.
        keys: Vec<String>,
    },
    /// Frames over the link.
    Link {
        /// Older ones are not believed.
        silence_ns: u64,
    },
}

/// A contact, checked.
#[derive(Clone, Debug)]
pub struct ContactConfig {
    /// Where it is read.
    pub wire: Wire,
    /// How its readings are judged.
    pub wiring: Wiring,
}

/// `[lines]`, checked.
#[derive(Clone, Debug, Default)]
pub struct LinesConfig {
    /// The emergency stop.
    pub emergency: Option<ContactConfig>,
    /// The deadman switch.
    pub deadman: Option<ContactConfig>,
}

impl LinesConfig {
    /// Whether the deadman switch is told over the link.
    #[must_use]
    pub fn deadman_over_link(&self) -> bool {
        let deadman = self.deadman.as_ref();
        deadman.is_some_and(|contact| matches!(contact.wire, Wire::Link { .. }))
    }
}

/// Checks the table; every mistake is noted with its line.
pub(super) fn check(written: Option<&LinesTable>, at: &mut Located<'_>) -> LinesConfig {
    let contact = |name, table: Option<&Spanned<ContactTable>>, at: &mut Located<'_>| {
        table.and_then(|table| check_contact(name, table, at))
    };
    LinesConfig {
        emergency: contact(
            "emergency",
            written.and_then(|written| written.emergency.as_ref()),
            at,
        ),
        deadman: contact(
            "deadman",
            written.and_then(|written| written.deadman.as_ref()),
            at,
        ),
    }
}

fn check_contact(
    name: &str,
    written: &Spanned<ContactTable>,
    at: &mut Located<'_>,
) -> Option<ContactConfig> {
    let table = written.get_ref();
    let key = |word: &str| format!("lines.{name}.{word}");
    let wire = match (&table.gpio, &table.evdev, &table.link_silence_ms) {
        (Some(gpio), None, None) => check_gpio(&key("gpio"), gpio, table, at),
        (None, Some(evdev), None) if name == "deadman" => {
            check_keys(&key("keys"), evdev, table, at)
        }
        (None, None, Some(silence)) if name == "deadman" => {
            // Three frames of a switch that sends each 10 ms, and what a person has let go of is not held for long.
            let silence_ms = at.within(&key("link_silence_ms"), silence, 30.0, 500.0);
            Some(Wire::Link {
                silence_ns: (silence_ms * MS as f64) as u64,
            })
        }
        (None, Some(evdev), None) => {
            // A radio link, a battery, a driver: none of it opens when it fails.
            let expected = "gpio: an input device is no emergency stop";
            at.push(evdev, &key("evdev"), expected, "evdev".into());
            None
        }
        (None, None, Some(silence)) => {
            let expected = "gpio: frames are no emergency stop";
            at.push(silence, &key("link_silence_ms"), expected, "link".into());
            None
        }
        (None, None, None) => {
            let expected = "gpio, evdev or link_silence_ms: where the contact is read";
            let found = "none of them".into();
            at.push(written, &format!("lines.{name}"), expected, found);
            None
        }
        _ => {
            let expected = "gpio, evdev or link_silence_ms, one of them";
            let found = "more than one".into();
            at.push(written, &format!("lines.{name}"), expected, found);
            None
        }
    };
    if let (Some(keys), None) = (&table.keys, &table.evdev) {
        at.push(keys, &key("keys"), "evdev beside it", "none".into());
    }
    let within =
        |given: &Option<Spanned<Number>>, word: &str, default: u64, at: &mut Located<'_>| {
            given.as_ref().map_or(default * MS, |given| {
                (at.within(&key(word), given, 0.0, 1000.0) * MS as f64) as u64
            })
        };
    let settle_ns = within(&table.settle_ms, "settle_ms", 20, at);
    let apart_ns = within(&table.apart_ms, "apart_ms", 50, at);
    let channels = match &wire {
        Some(Wire::Gpio { lines, .. }) => lines.len(),
        Some(Wire::Evdev { keys, .. }) => keys.len(),
        Some(Wire::Link { .. }) | None => 1,
    };
    let coding = match &table.pulse_ms {
        None => Coding::Level,
        Some(pulse) => {
            let [min, max] = pulse.get_ref().map(|number| number.0);
            // The lines are read every 2 ms: a shorter half period would be missed.
            let good = (5.0..=500.0).contains(&min) && (min..=500.0).contains(&max);
            if !good || channels != 1 || table.gpio.is_none() {
                at.push(
                    pulse,
                    &key("pulse_ms"),
                    "[shortest, longest] half period of one gpio line, 5 to 500",
                    format!("[{min}, {max}] with {channels} channels"),
                );
            }
            Coding::Pulsed {
                min_ns: (min * MS as f64) as u64,
                max_ns: (max * MS as f64) as u64,
            }
        }
    };
    wire.map(|wire| ContactConfig {
        wire,
        wiring: Wiring {
            coding,
            channels,
            settle_ns,
            apart_ns,
            // An emergency stop is closed from the first moment on, and its opening latches.
            renewed: name == "deadman",
        },
    })
}

fn check_gpio(
    key: &str,
    gpio: &Spanned<Vec<String>>,
    table: &ContactTable,
    at: &mut Located<'_>,
) -> Option<Wire> {
    let parse = |text: &String| {
        let (chip, offset) = text.rsplit_once(':')?;
        let offset: u32 = offset.parse().ok()?;
        chip.starts_with('/').then(|| (PathBuf::from(chip), offset))
    };
    let lines: Option<Vec<_>> = gpio.get_ref().iter().map(parse).collect();
    let lines = lines.filter(|lines| (1..=CHANNELS_MAX).contains(&lines.len()));
    let active_low = table.active_low.unwrap_or(false);
    let bias = match table.bias.as_ref().map(|bias| bias.get_ref().as_str()) {
        None => Some(if active_low {
            Bias::PullUp
        } else {
            Bias::PullDown
        }),
        Some("pull-down") => Some(Bias::PullDown),
        Some("pull-up") => Some(Bias::PullUp),
        Some("as-is") => Some(Bias::AsIs),
        Some(_) => None,
    };
    let words = "\"pull-down\", \"pull-up\" or \"as-is\"";
    if let (None, Some(given)) = (bias, &table.bias) {
        let found = format!("\"{}\"", given.get_ref());
        at.push(given, &key.replace(".gpio", ".bias"), words, found);
    }
    // A cut wire must read as an open contact.
    let held_closed = matches!(
        (bias, active_low),
        (Some(Bias::PullUp), false) | (Some(Bias::PullDown), true)
    );
    if let (true, Some(given)) = (held_closed, &table.bias) {
        at.push(
            given,
            &key.replace(".gpio", ".bias"),
            "the bias that makes a cut wire read as open: \"pull-down\", or \"pull-up\" with active_low",
            format!("\"{}\"", given.get_ref()),
        );
    }
    if lines.is_none() {
        at.push(
            gpio,
            key,
            "one or two of \"/dev/gpiochipN:OFFSET\"",
            format!("{:?}", gpio.get_ref()),
        );
    }
    Some(Wire::Gpio {
        lines: lines?,
        bias: bias?,
        active_low,
    })
}

fn check_keys(
    key: &str,
    evdev: &Spanned<String>,
    table: &ContactTable,
    at: &mut Located<'_>,
) -> Option<Wire> {
    let expected = "one or two of the kernel's names, e.g. [\"BTN_TR\"]";
    let keys = table.keys.as_ref().map(|keys| keys.get_ref().clone());
    let good = |keys: &Vec<String>| {
        (1..=CHANNELS_MAX).contains(&keys.len())
            && keys
                .iter()
                .all(|key| key.starts_with("BTN_") || key.starts_with("KEY_"))
    };
    match (keys, &table.keys) {
        (Some(keys), _) if good(&keys) => Some(Wire::Evdev {
            device: Path::new(evdev.get_ref()).to_owned(),
            keys,
        }),
        (_, Some(given)) => {
            at.push(given, key, expected, format!("{:?}", given.get_ref()));
            None
        }
        (_, None) => {
            at.push(evdev, key, expected, "nothing".into());
            None
        }
    }
}
