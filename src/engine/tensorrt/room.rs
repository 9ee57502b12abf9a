// SPDX-License-Identifier: Apache-2.0
//! Whether the builder will find the memory that it takes, asked before it takes it: a Jetson that runs out of memory stops
//! answering for minutes, and then ends whatever is largest.

use std::path::Path;

/// Where the kernel says what there is.
pub const MEMINFO: &str = "/proc/meminfo";
/// What building takes whatever the graph, and for each byte of its weights in 32 bits. A rule of thumb from others' builders on
/// other machines, to be wrong by a factor; what a build did take stands in its plan's label.
const BASE_BYTES: f64 = 3.2e9;
const OF_WEIGHTS: f64 = 5.6;

/// What a builder must leave of the machine's memory: a part of it, and no more than so much.
const FLOOR_OF_MEMORY: u64 = 20;
const FLOOR_BYTES_MAX: u64 = 512 << 20;

/// A machine's memory, swap included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What may be had now, bytes.
    pub free_bytes: u64,
    /// What there is, bytes.
    pub all_bytes: u64,
    /// What may be had now by who cannot be swapped, as a GPU's memory cannot: what is free, and what can be made so by swapping others out.
    pub reach_bytes: u64,
    /// Below this `reach_bytes` is too little to go on.
    pub floor_bytes: u64,
}

impl Room {
    /// Of the kernel's file, if it tells.
    #[must_use]
    pub fn read(meminfo: &Path) -> Option<Room> {
        Room::of(&std::fs::read_to_string(meminfo).ok()?)
    }

    /// Of the text of /proc/meminfo.
    #[must_use]
    pub fn of(meminfo: &str) -> Option<Room> {
        let bytes = |key: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(key))?;
            let kib: u64 = line.strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1024)
        };
        let sum = |memory: &str, swap: &str| bytes(memory)?.checked_add(bytes(swap).unwrap_or(0));
        let swap = bytes("SwapFree:").unwrap_or(0);
        let programs = bytes("AnonPages:").unwrap_or(u64::MAX);
        Some(Room {
            free_bytes: sum("MemAvailable:", "SwapFree:")?,
            all_bytes: sum("MemTotal:", "SwapTotal:")?,
            reach_bytes: bytes("MemAvailable:")?.checked_add(swap.min(programs))?,
            floor_bytes: (bytes("MemTotal:")? / FLOOR_OF_MEMORY).min(FLOOR_BYTES_MAX),
        })
    }
}

/// What building a graph with so many weights is expected to take.
#[must_use]
pub fn need_bytes(weights: u64) -> u64 {
    (BASE_BYTES + OF_WEIGHTS * 4.0 * weights as f64) as u64
}

/// As memory is spoken of.
pub(super) fn gb(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 * 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_swap_are_read_as_the_kernel_writes_them() {
        let text = "MemTotal:        7620000 kB\nMemFree:          200000 kB\nMemAvailable:    5000000 kB\nSwapTotal:       3810000 kB\nSwapFree:        3000000 kB\n";
        let room = Room {
            free_bytes: 8_000_000 * 1024,
            all_bytes: 11_430_000 * 1024,
            reach_bytes: 8_000_000 * 1024,
            floor_bytes: 381_000 * 1024,
        };
        assert_eq!(Room::of(text), Some(room));
        let without_swap = text.split("SwapTotal").next().unwrap_or_default();
        let room = Room {
            free_bytes: 5_000_000 * 1024,
            all_bytes: 7_620_000 * 1024,
            reach_bytes: 5_000_000 * 1024,
            floor_bytes: 381_000 * 1024,
        };
        assert_eq!(Room::of(without_swap), Some(room));
        // Swap is of use only for what there is to be swapped out.
        let little = Room::of(&format!("{text}AnonPages:      100000 kB\n"));
        assert_eq!(little.map(|room| room.reach_bytes), Some(5_100_000 * 1024));
        let large = Room::of(&text.replace("7620000", "64000000"));
        assert_eq!(large.map(|room| room.floor_bytes), Some(FLOOR_BYTES_MAX));
        for broken in [
            "",
            "MemTotal: 1 kB",
            "MemAvailable: x kB\nMemTotal: 1 kB",
            "MemAvailable: 18446744073709551615 kB\nMemTotal: 1 kB",
        ] {
            assert_eq!(Room::of(broken), None, "{broken}");
        }
    }

    #[test]
    fn a_graph_of_half_a_billion_weights_takes_fourteen_gigabytes() {
        assert_eq!(need_bytes(0), 3_200_000_000);
        assert_eq!(gb(need_bytes(500_000_000)), "14.4 GB");
        assert_eq!(need_bytes(u64::MAX), (5.6 * 4.0 * u64::MAX as f64) as u64);
    }
}
