// SPDX-License-Identifier: Apache-2.0
//! Whether the builder will find the memory that it takes, asked before it takes it: a Jetson that runs out of memory stops
//! answering for minutes, and then ends whatever is largest.

/// What building takes whatever the graph, and for each byte of its weights in 32 bits. A rule of thumb from others' builders on
/// other machines, to be wrong by a factor; what a build did take stands in its plan's label.
const BASE_BYTES: f64 = 3.2e9;
const OF_WEIGHTS: f64 = 5.6;

/// A machine's memory, swap included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What may be had now, bytes.
    pub free_bytes: u64,
    /// What there is, bytes.
    pub all_bytes: u64,
}

impl Room {
    /// This machine's, if it tells.
    #[must_use]
    pub fn here() -> Option<Room> {
        Room::of(&std::fs::read_to_string("/proc/meminfo").ok()?)
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
        Some(Room {
            free_bytes: sum("MemAvailable:", "SwapFree:")?,
            all_bytes: sum("MemTotal:", "SwapTotal:")?,
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
        };
        assert_eq!(Room::of(text), Some(room));
        let without_swap = text.split("SwapTotal").next().unwrap_or_default();
        let room = Room {
            free_bytes: 5_000_000 * 1024,
            all_bytes: 7_620_000 * 1024,
        };
        assert_eq!(Room::of(without_swap), Some(room));
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
