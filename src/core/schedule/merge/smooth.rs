// SPDX-License-Identifier: Apache-2.0
//! The running mean of the last k actions, as simple deployments smooth. The actions before a chunk's first are those
//! of the chunk before it, as they came; where there are none the mean is of fewer.

use super::Plan;
use crate::core::action::JointKind;
use crate::core::limits::JOINTS_MAX;
use crate::core::schedule::curve::{Taps, mixed};

/// Puts the running means of `plan.raw` into `plan.merged`.
pub fn fold(old: Option<&Plan>, plan: &mut Plan, last: u16, kinds: &[JointKind]) {
    for step in 0..plan.raw.steps() {
        let mut sums = [0.0_f64; JOINTS_MAX];
        let mut count = 0.0;
        for back in 0..usize::from(last.max(1)) {
            if let Some(own) = step.checked_sub(back) {
                for (sum, value) in sums.iter_mut().zip(plan.raw.action(own)) {
                    *sum += f64::from(*value);
                }
                count += 1.0;
                continue;
            }
            let at = plan
                .raw
                .first_at()
                .minus_ns(plan.raw.period_ns().saturating_mul((back - step) as u64));
            let Some((old, taps)) = old.and_then(|old| Some((old, Taps::at(&old.raw, at)?))) else {
                break;
            };
            let rows = taps.rows(&old.raw);
            for (joint, sum) in sums.iter_mut().enumerate().take(kinds.len()) {
                *sum += mixed(&rows, joint);
            }
            count += 1.0;
        }
        for ((value, sum), kind) in plan.merged.action_mut(step).iter_mut().zip(sums).zip(kinds) {
            if *kind != JointKind::Gripper {
                *value = (sum / count) as f32;
            }
        }
    }
}
