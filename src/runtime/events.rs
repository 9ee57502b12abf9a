// SPDX-License-Identifier: Apache-2.0
//! What is told to whoever listens: each change of mode or cause, and when the robot wants help. Nothing safe depends on
//! it, and nothing waits for it.

use crate::core::governor::reaction::Cause;
use crate::core::supervisor::Mode;
use crate::core::units::{MS, Mono};
use crate::core::wire::Identity;
use crate::core::wire::event::{self, EVENT_LEN, Event};
use crate::policy::parity::Parity;
use crate::runtime::operations::View;

/// The mode or its cause is another one. Value: 0.
pub const CODE_MODE: u16 = 1;
/// Held by one cause for 5 s: a person should look. Value: seconds held so far.
pub const CODE_HELP: u16 = 2;

/// The policy was not sure enough of so many chunks in a row: a person should look. Value: their number.
pub const CODE_UNSURE: u16 = 3;

/// The policy misses its parity fixture, a person let it through, and it drives now. Told at each arming. Value: its
/// largest error as a part of the action's range.
pub const CODE_UNPROVEN: u16 = 4;

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
            (CODE_MODE, 0.0)
        } else if let Some(error) = self
            .unproven
            .filter(|_| epoch != self.confessed && epoch != 0)
        {
            self.confessed = epoch;
            (CODE_UNPROVEN, error)
        } else if decision.mode != Mode::Holding || self.called {
            return None;
        } else if unsure {
            self.called = true;
            (CODE_UNSURE, f64::from(unsure_chunks))
        } else if held_ns >= HELP_NS {
            self.called = true;
            (CODE_HELP, held_ns as f64 * 1e-9)
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
            code,
            mode: decision.mode as u8,
            cause: decision.cause.map_or(0, |cause| cause as u8),
        };
        let mut frame = [0; EVENT_LEN];
        event::encode(&event, self.identity, &mut frame)?;
        Some(frame)
    }
}

/// An event in words.
#[must_use]
pub fn words(event: &Event) -> String {
    let mode = Mode::from_code(event.mode).map_or("?", Mode::word);
    let cause = Cause::from_code(event.cause).map(Cause::words);
    match (event.code, cause) {
        (CODE_HELP, cause) => format!(
            "help wanted: {mode} for {:.0} s: {}",
            event.value,
            cause.unwrap_or("?")
        ),
        (CODE_UNSURE, _) => format!(
            "help wanted: the policy was not sure enough of {:.0} chunks in a row",
            event.value
        ),
        (CODE_UNPROVEN, _) => format!(
            "the policy misses its parity fixture (largest error {:.2} % of the action's range) and was let through",
            event.value * 100.0
        ),
        (_, Some(cause)) => format!("{mode}: {cause}"),
        (_, None) => mode.to_owned(),
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
            Some((event.code, event.value))
        };
        let unsure = |chunks| view(Mode::Holding, Some(Cause::PolicyUnsure), chunks);
        assert_eq!(
            told(0, &view(Mode::Active, None, 2)),
            Some((CODE_MODE, 0.0))
        );
        assert_eq!(
            told(10, &view(Mode::Active, None, 9)),
            None,
            "nothing holds"
        );
        assert_eq!(told(20, &unsure(2)), Some((CODE_MODE, 0.0)));
        assert_eq!(told(30, &unsure(2)), None);
        assert_eq!(told(40, &unsure(3)), Some((CODE_UNSURE, 3.0)));
        assert_eq!(told(50, &unsure(4)), None, "once");
        assert_eq!(told(9_000, &unsure(90)), None, "not by the clock either");
        assert_eq!(
            told(9_100, &view(Mode::Active, None, 0)),
            Some((CODE_MODE, 0.0))
        );
        assert_eq!(told(9_200, &unsure(5)), Some((CODE_MODE, 0.0)));
        assert_eq!(
            told(9_210, &unsure(5)),
            Some((CODE_UNSURE, 5.0)),
            "another hold"
        );
    }
}
