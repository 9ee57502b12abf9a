// SPDX-License-Identifier: Apache-2.0
//! A deadman switch on an input device: keys of a gamepad or a foot switch. Their state is asked for, never pieced together
//! from events: none can be missed.

use super::Channels;
use crate::core::lines::CHANNELS_MAX;
use evdev::raw_stream::RawDevice;
use evdev::{AttributeSet, KeyCode};
use std::path::Path;

pub(super) struct Keys {
    device: RawDevice,
    keys: Vec<KeyCode>,
    gone: bool,
}

impl Keys {
    pub(super) fn open(path: &Path, names: &[String]) -> Result<Keys, String> {
        let device = RawDevice::open(path).map_err(|error| {
            format!(
                "{}: {error}: name a device that is there (ls /dev/input/by-id), and let the service's user read it \
                 (group input)",
                path.display()
            )
        })?;
        let mut keys = Vec::new();
        for name in names {
            let key: KeyCode = name
                .parse()
                .map_err(|_| format!("no key is called {name}"))?;
            if !device.supported_keys().is_some_and(|all| all.contains(key)) {
                return Err(format!(
                    "{} has no key {name}: see what it has with `evtest`",
                    path.display()
                ));
            }
            keys.push(key);
        }
        Ok(Keys {
            device,
            keys,
            gone: false,
        })
    }
}

impl Channels for Keys {
    fn levels(&mut self) -> [Option<bool>; CHANNELS_MAX] {
        let mut levels = [None; CHANNELS_MAX];
        let mut held = AttributeSet::<KeyCode>::new();
        if self.device.update_key_state(&mut held).is_err() {
            self.gone = true;
            return levels;
        }
        for (level, key) in levels.iter_mut().zip(&self.keys) {
            *level = Some(held.contains(*key));
        }
        levels
    }

    fn gone(&self) -> bool {
        self.gone
    }
}
