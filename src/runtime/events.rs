// SPDX-License-Identifier: Apache-2.0
//! What is told to whoever listens: each change of mode or cause, and when the robot wants help. Nothing safe depends on
//! it, and nothing waits for it.

use crate::core::governor::reaction::Cause;
use crate::core::supervisor::Mode;
use crate::core::units::{MS, Mono};
use crate::core::wire::Identity;
use crate::core::wire::event::{self, Code, EVENT_LEN, Event};
use crate::policy::parity::Parity;
use crate::runtime::operations::View;

/// A hold that lasts longer does not end by itself in time.
const HELP_NS: u64 = 5_000 * MS;

/// What was told last.
#[derive(Clone, Debug)]
pub struct Events {
    identity: Identity,
    counter: u32,
    told: (Mode, Option<Cause>),
    since: Mono,
    called: bool,
    /// Doubted chunks in a row that are a call for help; `None`: never.
    help_after: Option<u32>,
    /// Largest error of a policy that misses its fixture.
    unproven: Option<f64>,
    /// The arming for which that was told.
    confessed: u32,
}

impl Events {
    /// Nothing told yet.
    #[must_use]
    pub fn new(identity: Identity, help_after: Option<u32>, parity: &Parity) -> Events {
        Events {
            unproven: (!parity.missed.is_empty()).then_some(parity.error_fraction),
            confessed: 0,
            help_after,
            identity,
            counter: 0,
            told: (Mode::Boot, None),
            since: Mono(0),
            called: false,
        }
    }

    /// The frame of what is to be told now, if anything.
    pub fn next(&mut self, now: Mono, view: &View) -> Option<[u8; EVENT_LEN]> {
        let decision = &view.decision;
        let is = (decision.mode, decision.cause);
        let held_ns = now.since_ns(self.since);
        let unsure_chunks = view.insight.unsure_chunks;
        let unsure = decision.cause == Some(Cause::PolicyUnsure)
            && self.help_after.is_some_and(|after| unsure_chunks >= after);
        let epoch = view.output.as_ref().map_or(0, |output| output.epoch);
        let (code, value) = if is != self.told {
            (self.told, self.since, self.called) = (is, now, false);
            (Code::ModeChanged, 0.0)
        } else if let Some(error) = self
            .unproven
            .filter(|_| epoch != self.confessed && epoch != 0)
        {
            self.confessed = epoch;
            (Code::Unproven, error)
        } else if decision.mode != Mode::Holding || self.called {
            return None;
        } else if unsure {
            self.called = true;
            (Code::Unsure, f64::from(unsure_chunks))
        } else if held_ns >= HELP_NS {
            self.called = true;
            (Code::Help, held_ns as f64 * 1e-9)
        } else {
            return None;
        };
        let output = view.output.as_ref();
        let provenance = output.map(|output| output.provenance).unwrap_or_default();
        self.counter = self.counter.wrapping_add(1);
        let event = Event {
            counter: self.counter,
            epoch,
            sent: now,
            at: now,
            value,
            frame_seq: provenance.frame_seq,
            chunk_id: provenance.chunk_id,
            bundle_hash: provenance.bundle_hash,
            code: code as u16,
            mode: decision.mode as u8,
            cause: decision.cause.map_or(0, |cause| cause as u8),
        };
        let mut frame = [0; EVENT_LEN];
        event::encode(&event, self.identity, &mut frame)?;
        Some(frame)
    }
}

/// An event in words. What the robot says and this version does not know is told as unknown, with its number.
#[must_use]
pub fn words(event: &Event) -> String {
    let mode = Mode::from_code(event.mode).map_or_else(
        || format!("unknown mode {}", event.mode),
        |mode| mode.word().to_owned(),
    );
    let cause = match (event.cause, Cause::from_code(event.cause)) {
        (0, _) => None,
        (_, Some(cause)) => Some(cause.words().to_owned()),
        (number, None) => Some(format!("unknown cause {number}")),
    };
    let stands = match &cause {
        Some(cause) => format!("{mode}: {cause}"),
        None => mode.clone(),
    };
    match Code::from_code(event.code) {
        Some(Code::ModeChanged) => stands,
        Some(Code::Help) => format!(
            "help wanted: {mode} for {:.0} s: {}",
            event.value,
            cause.as_deref().unwrap_or("no cause told")
        ),
        Some(Code::Unsure) => format!(
            "help wanted: the policy was not sure enough of {:.0} chunks in a row",
            event.value
        ),
        Some(Code::Unproven) => format!(
            "the policy misses its parity fixture (largest error {:.2} % of the action's range) and was let through",
            event.value * 100.0
        ),
        None => format!(
            "unknown event {}, value {} ({stands})",
            event.code, event.value
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::supervisor::Decision;
    use crate::ports::Frame;
    use crate::runtime::governor::NO_DECISION;
    use crate::runtime::inference::Insight;

    fn view(mode: Mode, cause: Option<Cause>, unsure_chunks: u32) -> View {
        View {
            decision: Decision {
                mode,
                cause,
                ..NO_DECISION
            },
            as_of: Mono(0),
            output: None,
            insight: Insight {
                unsure_chunks,
                ..Insight::default()
            },
            report: None,
            picture: Frame::black(1, 1),
            instruction: String::new(),
            unknown_words: Vec::new(),
        }
    }

    #[test]
    fn help_is_called_for_once_a_hold_after_so_many_doubted_chunks() {
        let identity = Identity {
            data_id: 4,
            schema: 1,
        };
        let mut events = Events::new(identity, Some(3), &Parity::default());
        let mut told = |at_ms: u64, view: &View| {
            let frame = events.next(Mono(at_ms * MS), view)?;
            let event = event::decode(&frame, identity).expect("our own");
            Some((Code::from_code(event.code)?, event.value))
        };
        let unsure = |chunks| view(Mode::Holding, Some(Cause::PolicyUnsure), chunks);
        assert_eq!(
            told(0, &view(Mode::Active, None, 2)),
            Some((Code::ModeChanged, 0.0))
        );
        assert_eq!(
            told(10, &view(Mode::Active, None, 9)),
            None,
            "nothing holds"
        );
        assert_eq!(told(20, &unsure(2)), Some((Code::ModeChanged, 0.0)));
        assert_eq!(told(30, &unsure(2)), None);
        assert_eq!(told(40, &unsure(3)), Some((Code::Unsure, 3.0)));
        assert_eq!(told(50, &unsure(4)), None, "once");
        assert_eq!(told(9_000, &unsure(90)), None, "not by the clock either");
        assert_eq!(
            told(9_100, &view(Mode::Active, None, 0)),
            Some((Code::ModeChanged, 0.0))
        );
        assert_eq!(told(9_200, &unsure(5)), Some((Code::ModeChanged, 0.0)));
        assert_eq!(
            told(9_210, &unsure(5)),
            Some((Code::Unsure, 5.0)),
            "another hold"
        );
    }

    fn an_event(code: u16, value: f64, mode: u8, cause: u8) -> Event {
        Event {
            counter: 1,
            epoch: 0,
            sent: Mono(0),
            at: Mono(0),
            value,
            frame_seq: 0,
            chunk_id: 0,
            bundle_hash: 0,
            code,
            mode,
            cause,
        }
    }

    #[test]
    fn what_this_version_does_not_know_is_told_as_unknown_with_its_number() {
        let (holding, unsure) = (Mode::Holding as u8, Cause::PolicyUnsure as u8);
        for (told, expected) in [
            (an_event(1, 0.0, Mode::Active as u8, 0), "active"),
            (
                an_event(1, 0.0, holding, unsure),
                "holding: the policy is not sure enough of what it proposes",
            ),
            // No change of mode: it says something that was not known when this was built.
            (
                an_event(300, 2.5, Mode::Active as u8, 0),
                "unknown event 300, value 2.5 (active)",
            ),
            (
                an_event(0, 0.0, 99, 0),
                "unknown event 0, value 0 (unknown mode 99)",
            ),
            (an_event(1, 0.0, holding, 250), "holding: unknown cause 250"),
            (
                an_event(2, 6.0, holding, 250),
                "help wanted: holding for 6 s: unknown cause 250",
            ),
            (
                an_event(2, 6.0, holding, 0),
                "help wanted: holding for 6 s: no cause told",
            ),
            (
                an_event(3, 4.0, holding, unsure),
                "help wanted: the policy was not sure enough of 4 chunks in a row",
            ),
        ] {
            assert_eq!(words(&told), expected);
        }
    }
}
