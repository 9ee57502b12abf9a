// SPDX-License-Identifier: Apache-2.0
//! What is told to whoever listens: each change of mode or cause, and when the robot wants help. Nothing safe depends on
//! it, and nothing waits for it.

use crate::core::governor::reaction::Cause;
use crate::core::supervisor::Mode;
use crate::core::units::{MS, Mono};
use crate::core::wire::Identity;
use crate::core::wire::event::{self, EVENT_LEN, Event};
use crate::runtime::operations::View;

/// The mode or its cause is another one. Value: 0.
pub const CODE_MODE: u16 = 1;
/// Held by one cause for 5 s: a person should look. Value: seconds held so far.
pub const CODE_HELP: u16 = 2;

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
}

impl Events {
    /// Nothing told yet.
    #[must_use]
    pub fn new(identity: Identity) -> Events {
        Events {
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
        let (code, value) = if is != self.told {
            (self.told, self.since, self.called) = (is, now, false);
            (CODE_MODE, 0.0)
        } else if decision.mode == Mode::Holding && !self.called && held_ns >= HELP_NS {
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
            epoch: output.map_or(0, |output| output.epoch),
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
        (_, Some(cause)) => format!("{mode}: {cause}"),
        (_, None) => mode.to_owned(),
    }
}
