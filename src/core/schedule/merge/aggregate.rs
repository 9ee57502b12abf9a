// SPDX-License-Identifier: Apache-2.0
//! The four mixes of LeRobot's asynchronous client, by the names its users know
//! (`src/lerobot/async_inference/configs.py`, `AGGREGATE_FUNCTIONS`).

/// A fixed mix of old and new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// 0.3 old + 0.7 new.
    WeightedAverage,
    /// New alone.
    LatestOnly,
    /// Half and half.
    Average,
    /// 0.7 old + 0.3 new.
    Conservative,
}

impl Aggregate {
    /// All of them, with the word of the configuration.
    pub const NAMED: [(&'static str, Aggregate); 4] = [
        ("weighted_average", Aggregate::WeightedAverage),
        ("latest_only", Aggregate::LatestOnly),
        ("average", Aggregate::Average),
        ("conservative", Aggregate::Conservative),
    ];

    /// The share of the new action, 0..1.
    #[must_use]
    pub fn share_of_new(self) -> f64 {
        match self {
            Aggregate::WeightedAverage => 0.7,
            Aggregate::LatestOnly => 1.0,
            Aggregate::Average => 0.5,
            Aggregate::Conservative => 0.3,
        }
    }
}
