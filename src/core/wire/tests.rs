// SPDX-License-Identifier: Apache-2.0
//! Identity, every small corruption, order, and arbitrary bytes.

use super::order::COUNTER_DELTA_MAX;
use super::*;
use crate::core::action::Setpoint;
use crate::core::chunk::Provenance;
use crate::core::observation::JointState;
use crate::core::units::{MS, Mono};
use command::{COMMAND_LEN_MAX, Command, CommandReceiver, Tool};
use proptest::prelude::*;
use state::{MotorMode, Report, STATE_LEN_MAX, StateReceiver};

const US: Identity = Identity {
    data_id: 0x1234_5601,
    schema: 0xabcd_ef01,
};

fn a_command(counter: u32, epoch: u32) -> Command {
    Command {
        counter,
        epoch,
        sent: Mono(1_000),
        valid_for_us: 20_000,
        mode: command::MODE_FOLLOW,
        verdict: 0,
        action: 3,
        provenance: Provenance {
            frame_seq: 5,
            captured: Mono(900),
            chunk_id: 2,
            bundle_hash: 0xfeed,
            unproven: true,
        },
        setpoint: Setpoint::at_rest(&[0.1, -0.2, 1e-300, 3.0]),
        tool: None,
    }
}

/// The same, with the tool's place.
fn a_pose(counter: u32, epoch: u32) -> Command {
    Command {
        tool: Some(Tool {
            position_m: [0.3, -0.1, 0.5],
            orientation: [0.0, 0.6, 0.0, 0.8],
            velocity_m_s: [0.01, 0.02, -0.03],
            angular_velocity_rad_s: [0.1, 0.2, -0.3],
        }),
        ..a_command(counter, epoch)
    }
}

fn bytes_of(command: &Command) -> Vec<u8> {
    let mut frame = [0; COMMAND_LEN_MAX];
    let length = command::encode(command, US, &mut frame).expect("fits");
    frame[..length].to_vec()
}

fn a_report() -> Report {
    let mut state = JointState {
        joints: 3,
        measured: Mono(77),
        holding: true,
        ..JointState::NEVER
    };
    state.position[..3].copy_from_slice(&[0.5, -0.5, 0.25]);
    Report {
        counter: 9,
        epoch: 4,
        boot_id: 1,
        echo_counter: 8,
        accepted: 7,
        rejected: 6,
        limit_violations: 0,
        mode: MotorMode::Following,
        last_reject: Reject::Crc as u8,
        state,
    }
}

#[test]
fn encode_and_decode_are_inverse() {
    let command = a_command(7, 9);
    assert_eq!(command::decode(&bytes_of(&command), US), Ok(command));
    let told = a_pose(7, 9);
    assert_eq!(command::decode(&bytes_of(&told), US), Ok(told));
    assert_eq!(bytes_of(&told).len(), bytes_of(&command).len() + 13 * 8);
    for place in 0..13 {
        let mut numbers = [0.0; 13];
        numbers[place] = f64::NAN;
        let tool = bytemuck::cast(numbers);
        let broken = Command {
            tool: Some(tool),
            ..told
        };
        assert_eq!(
            command::decode(&bytes_of(&broken), US),
            Err(Reject::NotFinite)
        );
    }
    let mut frame = [0; STATE_LEN_MAX];
    let length = state::encode(&a_report(), US, &mut frame).expect("fits");
    assert_eq!(state::decode(&frame[..length], US), Ok(a_report()));
    let mut loaded = a_report();
    loaded.state.torques = true;
    loaded.state.torque[..3].copy_from_slice(&[12.5, -3.0, 0.0]);
    let longer = state::encode(&loaded, US, &mut frame).expect("fits");
    assert_eq!(longer, length + 3 * 8);
    assert_eq!(state::decode(&frame[..longer], US), Ok(loaded));
    loaded.state.torque[1] = f64::NAN;
    let length = state::encode(&loaded, US, &mut frame).expect("fits");
    assert_eq!(state::decode(&frame[..length], US), Err(Reject::NotFinite));
    let mut frame = vec![7; picture::PICTURE_OVERHEAD + 4 * 2 * 3];
    picture::encode(&mut frame, 3, Mono(5), 4, 2, US).expect("fits");
    let read = picture::decode(&frame, US).expect("ours");
    assert_eq!(
        (read.seq, read.captured, read.width, read.height, read.rgb),
        (3, Mono(5), 4, 2, &[7; 24][..])
    );
}

#[test]
fn every_one_and_two_bit_flip_of_a_command_is_seen() {
    for good in [bytes_of(&a_command(7, 9)), bytes_of(&a_pose(7, 9))] {
        let bits = good.len() * 8;
        for first in 0..bits {
            let mut bad = good.clone();
            bad[first / 8] ^= 1 << (first % 8);
            assert!(command::decode(&bad, US).is_err(), "bit {first}");
            for second in 0..first {
                bad[second / 8] ^= 1 << (second % 8);
                assert!(
                    command::decode(&bad, US).is_err(),
                    "bits {first} and {second}"
                );
                bad[second / 8] ^= 1 << (second % 8);
            }
        }
    }
}

#[test]
fn every_truncation_extension_and_splice_is_seen() {
    for make in [a_command, a_pose] {
        let (good, other) = (bytes_of(&make(7, 9)), bytes_of(&make(8, 9)));
        for length in 0..good.len() {
            assert!(
                command::decode(&good[..length], US).is_err(),
                "cut to {length}"
            );
            let mut spliced = good.clone();
            spliced[length..].copy_from_slice(&other[length..]);
            assert!(
                spliced == good || spliced == other || command::decode(&spliced, US).is_err(),
                "spliced at {length}"
            );
        }
        for extra in 1..64 {
            let mut long = good.clone();
            long.resize(good.len() + extra, 0);
            assert!(command::decode(&long, US).is_err(), "{extra} more");
        }
    }
}

#[test]
fn foreign_frames_are_named() {
    let frame = bytes_of(&a_command(7, 9));
    assert_eq!(
        command::decode(&frame, Identity { data_id: 1, ..US }),
        Err(Reject::DataId)
    );
    assert_eq!(
        command::decode(&frame, Identity { schema: 1, ..US }),
        Err(Reject::Schema)
    );
    assert_ne!(data_id("arm", Kind::Command), data_id("arm", Kind::State));
    assert_ne!(
        schema_id([("a", 0), ("b", 0)].into_iter()),
        schema_id([("b", 0), ("a", 0)].into_iter())
    );
    let mut infinite = a_command(7, 9);
    infinite.setpoint.position[1] = f64::INFINITY;
    assert_eq!(
        command::decode(&bytes_of(&infinite), US),
        Err(Reject::NotFinite)
    );
}

/// I8, for armings; I21.
#[test]
fn repeated_reordered_and_retired_commands_are_dropped() {
    let mut receiver = CommandReceiver::new(US);
    let mut accept = |counter, epoch| {
        receiver
            .accept(Mono(5), &bytes_of(&a_command(counter, epoch)))
            .map(|(_, delta)| delta)
    };
    assert_eq!(accept(10, 9), Ok(1));
    assert_eq!(accept(10, 9), Err(Reject::Repeated));
    assert_eq!(accept(13, 9), Ok(3));
    assert_eq!(accept(12, 9), Err(Reject::Repeated));
    assert_eq!(accept(14 + COUNTER_DELTA_MAX, 9), Err(Reject::Jump));
    assert_eq!(accept(5, 11), Ok(1), "a new arming begins anywhere");
    assert_eq!(accept(14, 9), Err(Reject::Epoch), "the old one is over");
    let mut wrapping = CommandReceiver::new(US);
    wrapping
        .accept(Mono(5), &bytes_of(&a_command(u32::MAX, 9)))
        .expect("first");
    assert!(
        wrapping
            .accept(Mono(5), &bytes_of(&a_command(0, 9)))
            .is_ok()
    );
}

/// The two machines' clocks have nothing in common: 40 days ahead, and behind.
#[test]
fn the_time_of_a_state_is_told_by_the_receivers_clock() {
    for ahead_ns in [3_456_000_000 * MS, 0] {
        let mut receiver = StateReceiver::new(US).delayed_by(2 * MS);
        // The third is 7 ms later than the fastest.
        for (counter, late_ms) in [(1, 0), (2, 0), (3, 7), (4, 0)] {
            let sent = Mono(ahead_ns + u64::from(counter) * 5 * MS);
            let now = Mono(8_000 * MS + u64::from(counter) * 5 * MS + late_ms * MS);
            let mut report = Report {
                counter,
                ..a_report()
            };
            report.state.measured = sent;
            let mut frame = [0; STATE_LEN_MAX];
            let length = state::encode(&report, US, &mut frame).expect("fits");
            let (heard, _) = receiver.accept(now, &frame[..length]).expect("good");
            // Up to the drift that is allowed for, a thousandth of the time passed.
            let truth = now.minus_ns((late_ms + 2) * MS);
            let off_ns = heard.state.measured.0.abs_diff(truth.0);
            assert!(off_ns <= 15 * MS / 1024 + 1, "{counter}: {off_ns}");
            assert_eq!(heard.state.received, now);
            // What was measured before, sent again, is no newer.
            report.counter += 100;
            let length = state::encode(&report, US, &mut frame).expect("fits");
            let mut copy = receiver.clone();
            let again = copy.accept(now.plus_ns(MS), &frame[..length]);
            let (again, _) = again.expect("good");
            assert_eq!(again.state.measured, heard.state.measured);
        }
    }
}

#[test]
fn a_restarted_motor_controller_is_noticed() {
    let mut receiver = StateReceiver::new(US);
    let mut accept = |counter, boot_id| {
        let mut frame = [0; STATE_LEN_MAX];
        let length = state::encode(
            &Report {
                counter,
                boot_id,
                ..a_report()
            },
            US,
            &mut frame,
        )
        .expect("fits");
        receiver
            .accept(Mono(5), &frame[..length])
            .map(|(report, restarted)| {
                assert_eq!(report.state.received, Mono(5));
                restarted
            })
    };
    assert_eq!(accept(9, 1), Ok(false));
    assert_eq!(accept(9, 1), Err(Reject::Repeated));
    assert_eq!(accept(0, 2), Ok(true));
}

proptest! {
    /// I23: decoding is total.
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        prop_assert!(command::decode(&bytes, US).is_err());
        prop_assert!(state::decode(&bytes, US).is_err());
        prop_assert!(picture::decode(&bytes, US).is_err());
    }

    /// I20 beyond the exhaustive range: up to eight flipped bits.
    #[test]
    fn up_to_eight_flipped_bits_are_seen(flips in prop::collection::btree_set(0usize..1000, 1..=8)) {
        let good = bytes_of(&a_command(7, 9));
        let mut bad = good.clone();
        for flip in flips {
            let at = flip % (good.len() * 8);
            bad[at / 8] ^= 1 << (at % 8);
        }
        prop_assert!(bad == good || command::decode(&bad, US).is_err());
    }
}
