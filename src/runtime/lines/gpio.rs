// SPDX-License-Identifier: Apache-2.0
//! Contacts on lines of a GPIO chip, through the kernel's character device (GPIO uAPI v2, Linux 5.10 and later).

use super::Channels;
use crate::config::lines::Bias;
use crate::core::lines::CHANNELS_MAX;
use gpiocdev_uapi::Name;
use gpiocdev_uapi::v2::{
    LineConfig, LineFlags, LineRequest, LineValues, get_line, get_line_values,
};
use std::fs::File;
use std::path::{Path, PathBuf};

/// One request a channel: two channels may lie on two chips.
pub(super) struct Gpio {
    lines: Vec<File>,
    gone: bool,
}

impl Gpio {
    pub(super) fn open(
        lines: &[(PathBuf, u32)],
        bias: Bias,
        active_low: bool,
    ) -> Result<Gpio, String> {
        let mut flags = LineFlags::INPUT;
        flags |= match bias {
            Bias::PullDown => LineFlags::BIAS_PULL_DOWN,
            Bias::PullUp => LineFlags::BIAS_PULL_UP,
            Bias::AsIs => LineFlags::empty(),
        };
        flags.set(LineFlags::ACTIVE_LOW, active_low);
        let requested = lines
            .iter()
            .map(|(chip, offset)| request(chip, *offset, flags));
        Ok(Gpio {
            lines: requested.collect::<Result<_, String>>()?,
            gone: false,
        })
    }
}

fn request(chip: &Path, offset: u32, flags: LineFlags) -> Result<File, String> {
    let file = File::open(chip).map_err(|error| {
        format!(
            "{}: {error}: name a chip that `gpiodetect` lists, and let the service's user read it (group gpio)",
            chip.display()
        )
    })?;
    let mut request = LineRequest {
        consumer: Name::from("tendon"),
        config: LineConfig {
            flags,
            ..LineConfig::default()
        },
        num_lines: 1,
        ..LineRequest::default()
    };
    if let Some(first) = request.offsets.0.first_mut() {
        *first = offset;
    }
    get_line(&file, request).map_err(|error| {
        format!(
            "{} line {offset}: {error}: expected a line that nobody else uses (`gpioinfo`), on a chip that can hold it",
            chip.display()
        )
    })
}

impl Channels for Gpio {
    fn levels(&mut self) -> [Option<bool>; CHANNELS_MAX] {
        let mut levels = [None; CHANNELS_MAX];
        for (level, line) in levels.iter_mut().zip(&self.lines) {
            let mut values = LineValues { bits: 0, mask: 1 };
            match get_line_values(line, &mut values) {
                Ok(()) => *level = values.get(0),
                Err(_) => self.gone = true,
            }
        }
        levels
    }

    fn gone(&self) -> bool {
        self.gone
    }
}
