// SPDX-License-Identifier: Apache-2.0
//! I19 to I23: what the wire promises, exhaustively where that is possible and at random beyond.

use crc::{CRC_32_AUTOSAR, Crc};
use proptest::prelude::*;
use tendon::core::action::Setpoint;
use tendon::core::chunk::Provenance;
use tendon::core::observation::JointState;
use tendon::core::units::{MS, Mono};
use tendon::core::wire::command::{self, COMMAND_LEN_MAX, Command, CommandReceiver};
use tendon::core::wire::event::{self, EVENT_LEN, Event};
use tendon::core::wire::order::COUNTER_DELTA_MAX;
use tendon::core::wire::reject::Reject;
use tendon::core::wire::state::{self, MotorMode, Report, STATE_LEN_MAX};
use tendon::core::wire::{Identity, picture};

const US: Identity = Identity {
    data_id: 0x1234_5601,
    schema: 0xabcd_ef01,
};
// The kind is the low byte: a whole event is no command.
const STATES: Identity = Identity {
    data_id: 0x1234_5602,
    ..US
};
const PICTURES: Identity = Identity {
    data_id: 0x1234_5603,
    ..US
};
const EVENTS: Identity = Identity {
    data_id: 0x1234_5604,
    ..US
};

fn a_command(counter: u32, epoch: u32, sent: Mono, numbers: &[f64]) -> Command {
    Command {
        counter,
        epoch,
        sent,
        valid_for_us: 20_000,
        mode: command::MODE_FOLLOW,
        verdict: 1,
        action: 3,
        provenance: Provenance {
            frame_seq: 5,
            captured: Mono(900),
            chunk_id: 2,
            bundle_hash: 0xfeed,
            unproven: true,
        },
        setpoint: Setpoint::at_rest(numbers),
        tool: None,
    }
}

fn command_bytes(command: &Command) -> Vec<u8> {
    let mut frame = [0; COMMAND_LEN_MAX];
    let length = command::encode(command, US, &mut frame).expect("fits");
    frame[..length].to_vec()
}

fn a_report(numbers: &[f64]) -> Report {
    let mut state = JointState {
        joints: numbers.len(),
        measured: Mono(77),
        holding: true,
        ..JointState::NEVER
    };
    state.position[..numbers.len()].copy_from_slice(numbers);
    state.torques = numbers.len() > 1;
    if state.torques {
        state.torque[..numbers.len()].copy_from_slice(numbers);
    }
    Report {
        counter: 9,
        epoch: 4,
        boot_id: 1,
        echo_counter: 8,
        accepted: 7,
        rejected: 6,
        limit_violations: 5,
        mode: MotorMode::Following,
        last_reject: Reject::Crc as u8,
        state,
    }
}

fn state_bytes(report: &Report) -> Vec<u8> {
    let mut frame = [0; STATE_LEN_MAX];
    let length = state::encode(report, STATES, &mut frame).expect("fits");
    frame[..length].to_vec()
}

fn an_event(value_bits: u64) -> Event {
    Event {
        counter: 3,
        epoch: 9,
        sent: Mono(8),
        at: Mono(7),
        value: f64::from_bits(value_bits),
        frame_seq: 6,
        chunk_id: 5,
        bundle_hash: 4,
        code: 300,
        mode: 2,
        cause: 1,
    }
}

fn event_bytes(event: &Event) -> Vec<u8> {
    let mut frame = [0; EVENT_LEN];
    let length = event::encode(event, EVENTS, &mut frame).expect("fits");
    frame[..length].to_vec()
}

fn picture_bytes() -> Vec<u8> {
    let mut frame = vec![7; picture::PICTURE_OVERHEAD + 4 * 2 * 3];
    picture::encode(&mut frame, 3, Mono(5), 4, 2, PICTURES).expect("fits");
    frame
}

type Accepts = fn(&[u8]) -> bool;

/// One frame of each kind, with what accepts it.
fn kinds() -> [(&'static str, Vec<u8>, Accepts); 4] {
    let numbers = [0.1, -0.2, 1e-300, 3.0, 0.5, -1.0, 2.0];
    [
        (
            "command",
            command_bytes(&a_command(7, 9, Mono(1), &numbers)),
            |frame| command::decode(frame, US).is_ok(),
        ),
        ("state", state_bytes(&a_report(&numbers)), |frame| {
            state::decode(frame, STATES).is_ok()
        }),
        ("event", event_bytes(&an_event(5)), |frame| {
            event::decode(frame, EVENTS).is_ok()
        }),
        ("picture", picture_bytes(), |frame| {
            picture::decode(frame, PICTURES).is_ok()
        }),
    ]
}

fn flip(frame: &mut [u8], bit: usize) {
    frame[bit / 8] ^= 1 << (bit % 8);
}

#[test]
fn i20_every_one_and_two_bit_flip_of_every_kind_is_rejected() {
    for (kind, good, accepts) in kinds() {
        assert!(accepts(&good), "{kind}");
        let mut bad = good.clone();
        for first in 0..good.len() * 8 {
            flip(&mut bad, first);
            assert!(!accepts(&bad), "{kind}: bit {first}");
            for second in 0..first {
                flip(&mut bad, second);
                assert!(!accepts(&bad), "{kind}: bits {first} and {second}");
                flip(&mut bad, second);
            }
            flip(&mut bad, first);
        }
    }
}

#[test]
fn i20_every_three_bit_flip_of_the_shortest_frame_is_rejected() {
    let mut bad = event_bytes(&an_event(5));
    for first in 0..bad.len() * 8 {
        flip(&mut bad, first);
        for second in 0..first {
            flip(&mut bad, second);
            for third in 0..second {
                flip(&mut bad, third);
                assert!(
                    event::decode(&bad, EVENTS).is_err(),
                    "bits {first}, {second} and {third}"
                );
                flip(&mut bad, third);
            }
            flip(&mut bad, second);
        }
        flip(&mut bad, first);
    }
}

/// The CRC is linear: a set of flips goes unseen exactly when the marks that its bits leave, each alone, cancel out. All
/// marks odd: no odd number of them cancels. All pairs different: no two and no four cancel. So any five wrong bits of
/// the longest command are seen, and of every shorter frame, which is the tail of a longer one.
#[test]
fn i20_the_crc_sees_any_five_wrong_bits_of_the_longest_command() {
    let crc = Crc::<u32>::new(&CRC_32_AUTOSAR);
    let covered = COMMAND_LEN_MAX - 4;
    let nothing = crc.checksum(&vec![0; covered]);
    let mut marks: Vec<u32> = (0..32).map(|bit| 1 << bit).collect();
    let mut frame = vec![0; covered];
    for bit in 0..covered * 8 {
        flip(&mut frame, bit);
        marks.push(crc.checksum(&frame) ^ nothing);
        flip(&mut frame, bit);
    }
    // The polynomial is divisible by x + 1 exactly if it has an even number of terms; its factor's remainder is the parity.
    assert_eq!(
        (u64::from(CRC_32_AUTOSAR.poly) | 1 << 32).count_ones() % 2,
        0
    );
    let mut pairs = Vec::with_capacity(marks.len() * (marks.len() - 1) / 2);
    for (index, first) in marks.iter().enumerate() {
        assert_ne!(*first, 0);
        pairs.extend(marks[..index].iter().map(|second| first ^ second));
    }
    pairs.sort_unstable();
    assert_ne!(pairs[0], 0, "two bits cancel");
    assert!(
        pairs.windows(2).all(|two| two[0] != two[1]),
        "four bits cancel"
    );
}

#[test]
fn i20_every_truncation_extension_and_splice_is_rejected() {
    for (kind, good, accepts) in kinds() {
        for length in 0..good.len() {
            assert!(!accepts(&good[..length]), "{kind} cut to {length}");
        }
        for extra in 1..256 {
            let mut long = good.clone();
            long.resize(good.len() + extra, 0);
            assert!(!accepts(&long), "{kind}, {extra} more");
            long[good.len()..].copy_from_slice(&good.repeat(8)[..extra]);
            assert!(!accepts(&long), "{kind}, {extra} more of itself");
        }
        for (other_kind, other, _) in kinds() {
            for at in 0..=good.len() {
                for from in 0..=other.len() {
                    let spliced = [&good[..at], &other[from..]].concat();
                    assert!(
                        spliced == good || !accepts(&spliced),
                        "{kind} up to {at}, then {other_kind} from {from}"
                    );
                }
            }
        }
    }
    let numbers = [0.1; 7];
    let one = command_bytes(&a_command(7, 9, Mono(1), &numbers));
    let next = command_bytes(&a_command(8, 9, Mono(5_000_001), &[0.11; 7]));
    for at in 0..=one.len() {
        let spliced = [&one[..at], &next[at..]].concat();
        assert!(
            spliced == one || spliced == next || command::decode(&spliced, US).is_err(),
            "two commands spliced at {at}"
        );
    }
}

/// Any f64, NaN payloads, infinities, denormals included.
fn any_bits() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits)
}

/// What a link and a sender may do to a stream, on the sender's side.
#[derive(Clone, Copy, Debug)]
struct Sent {
    step: u32,
    epoch: u32,
    passes_ms: u64,
}

fn stream() -> impl Strategy<Value = Vec<Sent>> {
    let step = prop_oneof![
        4 => Just(1_u32), 1 => Just(0), 1 => 2..1_100_u32, 1 => any::<u32>(),
        1 => (1..50_u32).prop_map(u32::wrapping_neg),
    ];
    let one = (
        step,
        prop_oneof![3 => Just(9_u32), 1 => 0..12_u32],
        0..60_u64,
    );
    let one = one.prop_map(|(step, epoch, passes_ms)| Sent {
        step,
        epoch,
        passes_ms,
    });
    prop::collection::vec(one, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// I19 for finite numbers; a number that is not finite is refused by its name.
    #[test]
    fn i19_decode_of_encode_is_identity(
        numbers in prop::collection::vec(prop_oneof![3 => prop::num::f64::ANY, 1 => any_bits()], 0..=64),
        bits in any::<u64>(), counter in any::<u32>(), epoch in any::<u32>(), sent in any::<u64>(),
        valid_for_us in any::<u32>(), mode in 0..3_u8, verdict in any::<u8>(), action in any::<u16>(),
    ) {
        let finite = numbers.iter().all(|number| number.is_finite());
        let command = Command {
            valid_for_us, mode, verdict, action, ..a_command(counter, epoch, Mono(sent), &numbers)
        };
        let report = Report { counter, epoch, boot_id: bits, ..a_report(&numbers) };
        let (read, read_state) = (
            command::decode(&command_bytes(&command), US), state::decode(&state_bytes(&report), STATES),
        );
        if finite {
            prop_assert_eq!(command_bytes(&read.expect("whole")), command_bytes(&command));
            prop_assert_eq!(state_bytes(&read_state.expect("whole")), state_bytes(&report));
            prop_assert_eq!(read, Ok(command));
        } else {
            prop_assert_eq!(read, Err(Reject::NotFinite));
            prop_assert_eq!(read_state, Err(Reject::NotFinite));
        }
        // An event's number may be anything, and comes back with its payload.
        let event = an_event(bits);
        let read = event::decode(&event_bytes(&event), EVENTS).expect("whole");
        prop_assert_eq!(read.value.to_bits(), bits);
        prop_assert_eq!(event_bytes(&read), event_bytes(&event));
    }

    /// I20 beyond the exhaustive range: up to eight flipped bits of any kind.
    #[test]
    fn i20_up_to_eight_flipped_bits_are_rejected(
        flips in prop::collection::vec(any::<prop::sample::Index>(), 1..=8),
    ) {
        for (kind, good, accepts) in kinds() {
            let mut bad = good.clone();
            for at in &flips {
                flip(&mut bad, at.index(good.len() * 8));
            }
            prop_assert!(bad == good || !accepts(&bad), "{}", kind);
        }
    }

    /// I21: within an epoch and without a silence, accepted counters go forward, by at most the MaxDelta, modulo 2^32.
    #[test]
    fn i21_accepted_counters_go_forward_and_wrap(start in prop_oneof![any::<u32>(), Just(u32::MAX - 2)], stream in stream()) {
        let mut receiver = CommandReceiver::new(US);
        let (mut counter, mut now) = (start, Mono(1_000 * MS));
        let mut last: Option<(u32, u32, Mono)> = None;
        let mut over = Vec::new();
        for sent in stream {
            counter = counter.wrapping_add(sent.step);
            now = now.plus_ns(sent.passes_ms * MS);
            let frame = command_bytes(&a_command(counter, sent.epoch, now, &[0.0]));
            let Ok((_, delta)) = receiver.accept(now, &frame) else { continue };
            prop_assert!(!over.contains(&sent.epoch), "an arming that is over came back");
            if let Some((before, epoch, at)) = last {
                let another = sent.epoch != 0 && sent.epoch != epoch;
                if !another && now.since_ns(at) < 200 * MS {
                    prop_assert_eq!(counter.wrapping_sub(before), delta);
                    prop_assert!((1..=COUNTER_DELTA_MAX).contains(&delta));
                }
                if another && epoch != 0 {
                    over.push(epoch);
                }
            }
            let epoch = if sent.epoch == 0 { last.map_or(0, |(_, epoch, _)| epoch) } else { sent.epoch };
            last = Some((counter, epoch, now));
        }
    }

    /// I22: the sender's clock may have any offset, and capture times any value: the decisions are the same.
    #[test]
    fn i22_only_the_receivers_clock_decides(offset in any::<u64>(), captured in any::<u64>(), stream in stream()) {
        let (mut here, mut there) = (CommandReceiver::new(US), CommandReceiver::new(US));
        let (mut counter, mut now) = (7_u32, Mono(1_000 * MS));
        for sent in stream {
            counter = counter.wrapping_add(sent.step);
            now = now.plus_ns(sent.passes_ms * MS);
            // Some of it was on its way for long.
            let stamp = now.0 - u64::from(sent.step % 3) * 15 * MS;
            let plain = a_command(counter, sent.epoch, Mono(stamp), &[0.0]);
            let mut shifted = plain;
            shifted.sent = Mono(stamp.wrapping_add(offset));
            shifted.provenance.captured = Mono(captured);
            let decisions = (
                here.accept(now, &command_bytes(&plain)).map(|(_, delta)| delta),
                there.accept(now, &command_bytes(&shifted)).map(|(_, delta)| delta),
            );
            prop_assert_eq!(decisions.0, decisions.1);
            prop_assert_eq!(here.health(now), there.health(now));
        }
    }

    /// I23: no bytes make a decoder panic, also not with the CRC and the length made right.
    #[test]
    fn i23_decoders_are_total(mut bytes in prop::collection::vec(any::<u8>(), 0..1_500), mend in any::<bool>()) {
        if mend && bytes.len() >= 40 {
            let length = bytes.len();
            bytes[..4].copy_from_slice(b"TD\x01\x00");
            bytes[4..8].copy_from_slice(&(length as u32).to_le_bytes());
            let kinds = [US, STATES, PICTURES, EVENTS];
            let id = kinds[usize::from(bytes[39]) % 4].data_id.to_le_bytes();
            bytes[12..16].copy_from_slice(&id);
            bytes[16..20].copy_from_slice(&US.schema.to_le_bytes());
            let crc = Crc::<u32>::new(&CRC_32_AUTOSAR).checksum(&bytes[..length - 4]);
            bytes[length - 4..].copy_from_slice(&crc.to_le_bytes());
        }
        let results = (
            command::decode(&bytes, US), state::decode(&bytes, STATES), event::decode(&bytes, EVENTS),
            picture::decode(&bytes, PICTURES).map(|picture| picture.rgb.len()),
        );
        if !mend {
            prop_assert!(results.0.is_err() && results.1.is_err() && results.2.is_err() && results.3.is_err());
        }
    }
}
