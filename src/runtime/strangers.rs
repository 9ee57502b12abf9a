// SPDX-License-Identifier: Apache-2.0
//! Whether somebody else commands the same robot: a second runtime that was started by mistake, say. Its motor controller then
//! follows one arming and refuses the rest, so nothing of it moves; but nobody may think that all is well.

use crate::core::units::{MS, Mono};
use crate::core::wire::reject::Reject;
use crate::core::wire::state::Report;

/// Commands refused within a second, beside others that were taken, in two seconds one after the other. A second runtime sends fifty and
/// more; a link repeats or damages one now and then, and a runtime that was started again is behind the numbers of the last one at first.
const REFUSED_MIN: u32 = 20;
const SECOND_NS: u64 = 1_000 * MS;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Strangers {
    /// When this second began, and what was counted then.
    began: Option<(Mono, Report)>,
    /// For so many seconds in a row.
    strange: u32,
}

impl Strangers {
    /// Takes in the newest report; what is to be told, once for each time that it begins.
    pub fn see(&mut self, now: Mono, report: &Report) -> Option<String> {
        let began = self.began.get_or_insert((now, *report));
        if now.since_ns(began.0) < SECOND_NS && began.1.boot_id == report.boot_id {
            return None;
        }
        let (since, before) = std::mem::replace(began, (now, *report));
        let taken = report.accepted.wrapping_sub(before.accepted);
        let refused = report.rejected.wrapping_sub(before.rejected);
        let strange = before.boot_id == report.boot_id && taken > 0 && refused >= REFUSED_MIN;
        self.strange = if strange {
            self.strange.saturating_add(1)
        } else {
            0
        };
        let last = Reject::from_code(report.last_reject);
        (self.strange == 2).then(|| {
            let last = last.map_or_else(String::new, |last| format!(", the last for: {last}"));
            format!(
                "the motor controller took {taken} commands in {} ms and refused {refused}{last}: if a second runtime, or another program, \
                 commands this robot, end it",
                now.since_ns(since) / MS
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::observation::JointState;
    use crate::core::wire::state::MotorMode;

    #[test]
    fn who_commands_beside_us_is_told_of_once() {
        let report = |boot_id: u64, accepted: u32, rejected: u32| Report {
            counter: 0,
            epoch: 0,
            boot_id,
            echo_counter: 0,
            accepted,
            rejected,
            limit_violations: 0,
            mode: MotorMode::Idle,
            last_reject: 7,
            state: JointState::NEVER,
        };
        let mut strangers = Strangers::default();
        let mut see = |at_ms: u64, boot: u64, accepted: u32, rejected: u32| {
            strangers
                .see(Mono(at_ms * MS), &report(boot, accepted, rejected))
                .is_some()
        };
        assert!(!see(1_000, 1, 100, 5));
        assert!(!see(1_500, 1, 200, 500), "not a second yet");
        assert!(!see(2_000, 1, 300, 505), "it may pass");
        assert!(see(3_000, 1, 500, 705));
        assert!(!see(4_000, 1, 700, 905), "told");
        assert!(!see(5_000, 1, 800, 924), "over");
        assert!(!see(6_000, 1, 900, 944));
        assert!(see(7_000, 1, 950, 964), "begins again");
        assert!(!see(8_000, 1, 950, 1_164), "of ours it takes none either");
        assert!(!see(9_000, 1, 960, 1_184));
        assert!(!see(9_020, 2, 3, 400), "another start");
        assert!(!see(10_020, 2, 4, 420));
        assert!(see(11_020, 2, u32::MAX, 500));
        assert!(!see(12_020, 2, 10, 505), "wrapped");
    }
}
