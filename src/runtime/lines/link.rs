// SPDX-License-Identifier: Apache-2.0
//! A deadman switch that tells over the link whether it is held: command frames without joints (docs/wire.md). A thread of the
//! link hears them, the thread of the contacts reads what was heard; nobody waits for anybody.
//!
//! One switch counts, the one that is heard first, until it has been silent. Two that tell at once are none: whoever lets go of
//! the other one must not go unheard.

use super::Channels;
use crate::core::lines::CHANNELS_MAX;
use crate::core::units::{MS, Mono};
use crate::core::wire::command::{CommandReceiver, MODE_FOLLOW};
use crate::core::wire::reject::Reject;
use crate::runtime::clock;
use crate::sync::hold::Hold;
use std::sync::Arc;

/// Silent for so long, another one may take its place.
const GONE_NS: u64 = 200 * MS;

/// What was heard last; doubted where another one told something.
#[derive(Debug, Default)]
pub(super) struct Switch(Hold);

impl Switch {
    /// Takes a frame. What was long on its way counts from when it set out.
    pub(super) fn hear(
        &self,
        receiver: &mut CommandReceiver,
        now: Mono,
        frame: &[u8],
    ) -> Result<(), Reject> {
        if now.since_ns(self.0.told_at()) >= GONE_NS {
            // Who tells now may be another one, and how old it is cannot be told: it must be pressed anew.
            receiver.disengage();
            self.0.doubt();
        }
        let taken = receiver.accept(now, frame).and_then(|(command, _)| {
            // Without a number of its own it could not be told from another one.
            let named = command.epoch != 0;
            named.then_some(command).ok_or(Reject::Epoch)
        });
        if matches!(taken, Err(Reject::Epoch)) {
            self.0.doubt();
        }
        let command = taken?;
        if command.setpoint.joints != 0 {
            return Err(Reject::Joints);
        }
        receiver.engage(command.epoch);
        let set_out = now.minus_ns(receiver.late_ns(now, command.sent));
        self.0.tell(set_out, command.mode == MODE_FOLLOW);
        Ok(())
    }

    /// See [`Hold::read`].
    fn read(&self, now: Mono, silence_ns: u64) -> Option<bool> {
        self.0.read(now, silence_ns)
    }
}

/// The far end of a [`Switch`].
pub(super) struct Far {
    switch: Arc<Switch>,
    silence_ns: u64,
}

impl Far {
    pub(super) fn new(switch: &Arc<Switch>, silence_ns: u64) -> Far {
        Far {
            switch: Arc::clone(switch),
            silence_ns,
        }
    }
}

impl Channels for Far {
    fn levels(&mut self) -> [Option<bool>; CHANNELS_MAX] {
        [self.switch.read(clock::now(), self.silence_ns), None]
    }

    fn gone(&self) -> bool {
        // It is listened to all the time.
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::action::Setpoint;
    use crate::core::chunk::Provenance;
    use crate::core::wire::Identity;
    use crate::core::wire::command::{COMMAND_LEN_MAX, Command, MODE_KEEP_ALIVE, encode};

    const IDENTITY: Identity = Identity {
        data_id: 6,
        schema: 0,
    };
    const SILENCE_NS: u64 = 100 * MS;
    const HELD: Option<bool> = Some(true);
    const OPEN: Option<bool> = Some(false);

    fn frame(sent: Mono, counter: u32, epoch: u32, mode: u8, joints: &[f64]) -> Vec<u8> {
        let command = Command {
            counter,
            epoch,
            sent,
            valid_for_us: 100_000,
            mode,
            verdict: 0,
            action: 0,
            provenance: Provenance::default(),
            setpoint: Setpoint::at_rest(joints),
            tool: None,
        };
        let mut bytes = [0; COMMAND_LEN_MAX];
        let length = encode(&command, IDENTITY, &mut bytes).expect("fits");
        bytes[..length].to_vec()
    }

    fn at(ms: u64) -> Mono {
        Mono(1_000 * MS + ms * MS)
    }

    #[test]
    fn it_is_held_as_long_as_it_says_so() {
        let (switch, mut receiver) = (Switch::default(), CommandReceiver::new(IDENTITY));
        let mut say = |ms, counter, mode| {
            let frame = frame(at(ms), counter, 9, mode, &[]);
            switch.hear(&mut receiver, at(ms), &frame)
        };
        let read = |ms| switch.read(at(ms), SILENCE_NS);
        assert_eq!(read(0), None, "nothing was heard");
        assert_eq!(say(0, 1, MODE_FOLLOW), Ok(()));
        assert_eq!(read(0), None, "the first after a silence");
        assert_eq!((read(0), read(100), read(101)), (HELD, HELD, None));
        assert_eq!(say(110, 2, MODE_KEEP_ALIVE), Ok(()));
        assert_eq!(read(110), OPEN);
        // Let go and held again between two readings: it was let go.
        assert_eq!(say(120, 3, MODE_FOLLOW), Ok(()));
        assert_eq!(read(121), HELD);
        assert_eq!(say(130, 4, MODE_KEEP_ALIVE), Ok(()));
        assert_eq!(say(131, 5, MODE_FOLLOW), Ok(()));
        assert_eq!((read(132), read(134)), (OPEN, HELD));
        // One that was heard before holds nothing.
        assert_eq!(say(190, 5, MODE_FOLLOW), Err(Reject::Repeated));
        assert_eq!(read(232), None);
    }

    #[test]
    fn what_is_late_counts_from_when_it_set_out_and_what_is_none_does_not_count() {
        let (switch, mut receiver) = (Switch::default(), CommandReceiver::new(IDENTITY));
        let mut say = |ms, frame: &[u8]| switch.hear(&mut receiver, at(ms), frame);
        let read = |ms| switch.read(at(ms), SILENCE_NS);
        assert_eq!(say(0, &frame(at(0), 1, 9, MODE_FOLLOW, &[])), Ok(()));
        assert_eq!(read(1), None, "the first");
        assert_eq!(say(70, &frame(at(10), 2, 9, MODE_FOLLOW, &[])), Ok(()));
        // A thousandth of the time since the fastest is allowed for two clocks.
        assert_eq!((read(109), read(112)), (HELD, None));
        let late = frame(at(20), 3, 9, MODE_FOLLOW, &[]);
        assert_eq!(say(150, &late), Err(Reject::Expired));
        let joints = frame(at(160), 4, 9, MODE_FOLLOW, &[0.0]);
        assert_eq!(say(160, &joints), Err(Reject::Joints));
        let mut torn = frame(at(161), 5, 9, MODE_FOLLOW, &[]);
        torn[60] ^= 1;
        assert_eq!(say(161, &torn), Err(Reject::Crc));
        assert_eq!(read(162), None);
    }

    #[test]
    fn two_that_tell_at_once_are_none() {
        let (switch, mut receiver) = (Switch::default(), CommandReceiver::new(IDENTITY));
        let mut say = |ms, counter, epoch| {
            let frame = frame(at(ms), counter, epoch, MODE_FOLLOW, &[]);
            switch.hear(&mut receiver, at(ms), &frame)
        };
        let read = |ms| switch.read(at(ms), SILENCE_NS);
        assert_eq!((say(0, 1, 9), read(1), read(3)), (Ok(()), None, HELD));
        assert_eq!((say(5, 1, 10), read(6)), (Err(Reject::Epoch), None));
        assert_eq!((say(10, 2, 9), read(11)), (Ok(()), HELD));
        assert_eq!((say(15, 2, 10), read(16)), (Err(Reject::Epoch), None));
        // The first is gone, or was started anew: the other one takes its place once nobody can be mistaken.
        assert_eq!((say(200, 3, 10), read(201)), (Err(Reject::Epoch), None));
        assert_eq!(
            (say(211, 4, 10), read(212), read(214)),
            (Ok(()), None, HELD)
        );
        assert_eq!((say(215, 3, 9), read(216)), (Err(Reject::Epoch), None));
        assert_eq!((say(220, 5, 0), read(221)), (Err(Reject::Epoch), None));
    }
}
