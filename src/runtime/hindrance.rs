// SPDX-License-Identifier: Apache-2.0
//! What keeps something from being done again and again: each reason told once until it is over, and only if it lasts.

use crate::core::units::{MS, Mono};

/// What may be over in a moment, as when cameras or the robot begin, is told when it has lasted so long; and nothing is told more often.
pub const LASTS_NS: u64 = 1_000 * MS;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Hindrance {
    since: Option<Mono>,
    told: Option<(Mono, String)>,
}

impl Hindrance {
    /// It could not be done, for `reason`, which is the same as long as what is to be done about it is. Whether that is to be told: if
    /// something has been in the way for `lasts_ns`, whatever it was before.
    pub fn found(&mut self, now: Mono, reason: &str, lasts_ns: u64) -> bool {
        let since = *self.since.get_or_insert(now);
        let told = self.told.as_ref();
        let again = told.is_some_and(|(at, told)| told == reason || now.since_ns(*at) < LASTS_NS);
        if again || now.since_ns(since) < lasts_ns {
            return false;
        }
        self.told = Some((now, reason.to_owned()));
        true
    }

    /// It was done, or nobody asked for it.
    pub fn over(&mut self) {
        *self = Hindrance::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono((60_000 + ms) * MS)
    }

    #[test]
    fn what_lasts_is_told_once_and_again_when_it_comes_again() {
        let mut hindrance = Hindrance::default();
        assert!(!hindrance.found(at(0), "behind", LASTS_NS));
        assert!(!hindrance.found(at(999), "behind", LASTS_NS));
        assert!(hindrance.found(at(1_000), "behind", LASTS_NS));
        assert!(!hindrance.found(at(9_000), "behind", LASTS_NS));
        hindrance.over();
        assert!(!hindrance.found(at(10_000), "behind", LASTS_NS));
        hindrance.over();
        assert!(
            !hindrance.found(at(10_999), "behind", LASTS_NS),
            "two moments are no second"
        );
        assert!(hindrance.found(at(11_999), "behind", LASTS_NS));
    }

    #[test]
    fn another_reason_is_told_when_something_has_stood_in_the_way_for_long() {
        let mut hindrance = Hindrance::default();
        assert!(!hindrance.found(at(0), "missing", LASTS_NS));
        assert!(hindrance.found(at(1_500), "missing", LASTS_NS));
        // The camera that was missing has come, and is behind.
        assert!(
            !hindrance.found(at(2_000), "behind", LASTS_NS),
            "half a second later"
        );
        assert!(hindrance.found(at(2_500), "behind", LASTS_NS));
        // Two that take turns are one line a second at most.
        let told = (2_501..12_500_u64).filter(|ms| {
            let reason = if ms % 2 == 0 { "missing" } else { "behind" };
            hindrance.found(at(*ms), reason, LASTS_NS)
        });
        assert_eq!(told.count(), 9);
    }

    #[test]
    fn a_failure_is_told_at_once() {
        let mut hindrance = Hindrance::default();
        assert!(hindrance.found(at(0), "no number", 0));
        assert!(!hindrance.found(at(1), "no number", 0));
        assert!(!hindrance.found(at(999), "no shape", 0));
        assert!(hindrance.found(at(1_000), "no shape", 0));
    }
}
