// SPDX-License-Identifier: Apache-2.0
//! How each thing that crosses between the two processes is written in words of 64 bits.
//!
//! The control process believes nothing that it reads here: what moves the robot carries a CRC-32 and is checked again
//! as if it had come over a network, because a process that is about to crash may have written anywhere.

use crate::core::chunk::{Chunk, Provenance};
use crate::core::limits::{CHUNK_VALUES_MAX, JOINTS_MAX};
use crate::core::observation::JointState;
use crate::core::units::Mono;
use crate::core::wire::checksum;
use crate::ports::Frame;
use crate::runtime::control::{Followed, Made};
use crate::runtime::inference::Insight;
use std::sync::atomic::{AtomicU64, Ordering};

/// The plan that is followed.
pub const FOLLOWED_WORDS: usize = 7;
/// What else the policy said.
pub const INSIGHT_WORDS: usize = 6;
/// A chunk's figures.
pub const SAMPLE_WORDS: usize = 5;
/// A picture without its pixels.
pub const FRAME_WORDS: usize = 6;
/// A joint state at most.
pub const STATE_WORDS: usize = 4 + 3 * JOINTS_MAX;
/// A chunk at most.
pub const MADE_WORDS: usize = 14 + CHUNK_VALUES_MAX / 2;

/// Reads words one after the other; nothing after the last.
struct Words<'a>(&'a [u64]);

impl Words<'_> {
    fn next(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn usize(&mut self) -> Option<usize> {
        usize::try_from(self.next()?).ok()
    }

    fn u32(&mut self) -> Option<u32> {
        u32::try_from(self.next()?).ok()
    }

    fn mono(&mut self) -> Option<Mono> {
        self.next().map(Mono)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.next()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn f32(&mut self) -> Option<f32> {
        Some(f32::from_bits(self.u32()?))
    }
}

/// Writes a chunk, closed by a CRC.
pub fn write_made(made: &Made, out: &mut Vec<u64>) {
    let (chunk, of) = (&made.chunk, made.chunk.provenance());
    out.clear();
    out.extend([
        made.queued.0,
        chunk.steps() as u64,
        chunk.joints() as u64,
        chunk.period_ns(),
        chunk.first_at().0,
        u64::from(of.frame_seq),
        of.captured.0,
        u64::from(of.chunk_id),
        u64::from(of.bundle_hash),
        u64::from(of.unproven),
        u64::from(chunk.unsure()),
        u64::from(chunk.due_by().is_some()),
        chunk.due_by().unwrap_or(Mono(0)).0,
    ]);
    let mut odd: Option<u32> = None;
    for value in (0..chunk.steps()).flat_map(|step| chunk.action(step)) {
        match odd.take() {
            None => odd = Some(value.to_bits()),
            Some(low) => out.push(u64::from(low) | u64::from(value.to_bits()) << 32),
        }
    }
    out.extend(odd.map(u64::from));
    out.push(u64::from(checksum(bytemuck::cast_slice(out))));
}

/// Reads a chunk, and checks it as at any door. `values` is working space.
#[must_use]
pub fn read_made(words: &[u64], values: &mut Vec<f32>) -> Option<Made> {
    let (crc, body) = words.split_last()?;
    if u64::from(checksum(bytemuck::cast_slice(body))) != *crc {
        return None;
    }
    let mut words = Words(body);
    let queued = words.mono()?;
    let (steps, joints) = (words.usize()?, words.usize()?);
    let (period_ns, first_at) = (words.next()?, words.mono()?);
    let provenance = Provenance {
        frame_seq: words.u32()?,
        captured: words.mono()?,
        chunk_id: words.u32()?,
        bundle_hash: words.u32()?,
        unproven: words.flag()?,
    };
    let (unsure, due, due_by) = (words.flag()?, words.flag()?, words.mono()?);
    let count = steps
        .checked_mul(joints)
        .filter(|count| *count <= CHUNK_VALUES_MAX)?;
    if words.0.len() != count.div_ceil(2) {
        return None;
    }
    values.clear();
    let halves = words
        .0
        .iter()
        .flat_map(|word| [*word as u32, (*word >> 32) as u32]);
    values.extend(halves.take(count).map(f32::from_bits));
    let mut chunk = Chunk::new(first_at, period_ns, joints, values, provenance).ok()?;
    if unsure {
        chunk = chunk.doubted();
    }
    if due {
        chunk = chunk.made_for(due_by);
    }
    Some(Made { chunk, queued })
}

/// Writes a joint state.
pub fn write_state(state: &JointState, out: &mut Vec<u64>) {
    let flags = u64::from(state.torques) | u64::from(state.holding) << 1;
    out.clear();
    out.extend([
        state.joints as u64,
        state.measured.0,
        state.received.0,
        flags,
    ]);
    for numbers in [&state.position, &state.velocity, &state.torque] {
        out.extend(
            numbers
                .iter()
                .take(state.joints)
                .map(|number| number.to_bits()),
        );
    }
}

/// Reads a joint state.
#[must_use]
pub fn read_state(words: &[u64]) -> Option<JointState> {
    let mut words = Words(words);
    let mut state = JointState {
        joints: words.usize().filter(|joints| *joints <= JOINTS_MAX)?,
        measured: words.mono()?,
        received: words.mono()?,
        ..JointState::NEVER
    };
    let flags = words.next()?;
    (state.torques, state.holding) = (flags & 1 != 0, flags & 2 != 0);
    for numbers in [&mut state.position, &mut state.velocity, &mut state.torque] {
        for number in numbers.iter_mut().take(state.joints) {
            *number = f64::from_bits(words.next()?);
        }
    }
    Some(state)
}

fn store(slot: &[AtomicU64], values: &[u64]) {
    for (word, value) in slot.iter().zip(values) {
        word.store(*value, Ordering::Relaxed);
    }
}

fn load<const N: usize>(slot: &[AtomicU64]) -> [u64; N] {
    std::array::from_fn(|n| slot.get(n).map_or(0, |word| word.load(Ordering::Relaxed)))
}

/// Writes the plan that is followed.
pub fn write_followed(followed: &Followed, slot: &[AtomicU64]) {
    let words: [u64; FOLLOWED_WORDS] = [
        u64::from(followed.chunk_id),
        followed.first_at.0,
        followed.period_ns,
        followed.steps as u64,
        u64::from(followed.delay_steps),
        followed.until.0,
        u64::from(followed.begun),
    ];
    store(slot, &words);
}

/// Reads the plan that is followed.
#[must_use]
pub fn read_followed(slot: &[AtomicU64]) -> Option<Followed> {
    let words = load::<FOLLOWED_WORDS>(slot);
    let mut words = Words(&words);
    Some(Followed {
        chunk_id: words.u32()?,
        first_at: words.mono()?,
        period_ns: words.next()?,
        steps: words.usize()?,
        delay_steps: u16::try_from(words.next()?).ok()?,
        until: words.mono()?,
        begun: words.u32()?,
    })
}

/// Writes what else the policy said.
pub fn write_insight(insight: &Insight, slot: &[AtomicU64]) {
    let bits = |number: f32| u64::from(number.to_bits());
    let [x, y] = insight.keypoint.unwrap_or_default();
    let told = u64::from(insight.keypoint.is_some()) | u64::from(insight.presence.is_some()) << 1;
    let words: [u64; INSIGHT_WORDS] = [
        told,
        bits(x),
        bits(y),
        bits(insight.presence.unwrap_or_default()),
        u64::from(insight.unsure_chunks),
        insight.inference_ns,
    ];
    store(slot, &words);
}

/// Reads what else the policy said.
#[must_use]
pub fn read_insight(slot: &[AtomicU64]) -> Option<Insight> {
    let words = load::<INSIGHT_WORDS>(slot);
    let mut words = Words(&words);
    let told = words.next()?;
    let (keypoint, presence) = ([words.f32()?, words.f32()?], words.f32()?);
    Some(Insight {
        keypoint: (told & 1 != 0).then_some(keypoint),
        presence: (told & 2 != 0).then_some(presence),
        unsure_chunks: words.u32()?,
        inference_ns: words.next()?,
    })
}

/// Writes a picture. Of one that is too large for the slot the rows that fit: who reads it sees that it is broken.
pub fn write_frame(frame: &Frame, slot: &[AtomicU64]) {
    let words: [u64; FRAME_WORDS] = [
        frame.width as u64,
        frame.height as u64,
        u64::from(frame.seq),
        frame.captured.0,
        frame.received.0,
        frame.rgb.len() as u64,
    ];
    store(slot, &words);
    let room = slot.get(FRAME_WORDS..).unwrap_or_default();
    let (whole, rest) = frame.rgb.as_chunks::<8>();
    for (word, bytes) in room.iter().zip(whole) {
        word.store(u64::from_le_bytes(*bytes), Ordering::Relaxed);
    }
    if let Some(word) = room.get(whole.len()) {
        let mut bytes = [0; 8];
        bytes
            .iter_mut()
            .zip(rest)
            .for_each(|(byte, last)| *byte = *last);
        word.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
    }
}

/// Reads a picture into one that is there already; false if it cannot be one. Does not allocate once the size is known.
#[must_use]
pub fn read_frame(slot: &[AtomicU64], frame: &mut Frame) -> bool {
    let room = slot.get(FRAME_WORDS..).unwrap_or_default();
    let words = load::<FRAME_WORDS>(slot);
    let mut words = Words(&words);
    let mut read = || {
        let (width, height, seq) = (words.usize()?, words.usize()?, words.u32()?);
        let (captured, received, len) = (words.mono()?, words.mono()?, words.usize()?);
        let fits = width.checked_mul(height)?.checked_mul(3)? == len && len <= room.len() * 8;
        (frame.width, frame.height, frame.seq) = (width, height, seq);
        (frame.captured, frame.received) = (captured, received);
        fits.then_some(len)
    };
    let Some(len) = read() else { return false };
    frame.rgb.resize(len, 0);
    let (whole, rest) = frame.rgb.as_chunks_mut::<8>();
    let used = whole.len();
    for (bytes, word) in whole.iter_mut().zip(room) {
        *bytes = word.load(Ordering::Relaxed).to_le_bytes();
    }
    if let Some(word) = room.get(used) {
        let bytes = word.load(Ordering::Relaxed).to_le_bytes();
        rest.iter_mut()
            .zip(bytes)
            .for_each(|(last, byte)| *last = byte);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::demo;
    use crate::runtime::isolation::plane::{Far, Near, words};
    use crate::sync::mapping::Mapping;
    use proptest::prelude::*;

    fn made(steps: usize, joints: usize, flags: u8) -> Made {
        let values: Vec<f32> = (0..steps * joints).map(|n| n as f32 * 0.01 - 1.0).collect();
        let provenance = Provenance {
            frame_seq: 7,
            captured: Mono(11),
            chunk_id: 13,
            bundle_hash: u32::MAX,
            unproven: flags & 1 != 0,
        };
        let mut chunk = Chunk::new(Mono(17), 19, joints, &values, provenance).expect("a chunk");
        if flags & 2 != 0 {
            chunk = chunk.doubted();
        }
        if flags & 4 != 0 {
            chunk = chunk.made_for(Mono(23));
        }
        Made {
            chunk,
            queued: Mono(29),
        }
    }

    #[test]
    fn a_chunk_is_the_same_on_the_other_side() {
        let (mut words, mut values) = (Vec::new(), Vec::new());
        for (steps, joints) in [(1, 1), (16, 7), (50, 7), (3, 3), (128, 64)] {
            for flags in 0..8 {
                let made = made(steps, joints, flags);
                write_made(&made, &mut words);
                assert!(words.len() <= MADE_WORDS, "{}", words.len());
                let read = read_made(&words, &mut values).expect("whole");
                assert_eq!(format!("{read:?}"), format!("{made:?}"));
            }
        }
    }

    #[test]
    fn a_chunk_with_one_wrong_bit_is_none() {
        let (mut words, mut values) = (Vec::new(), Vec::new());
        write_made(&made(4, 3, 4), &mut words);
        for word in 0..words.len() {
            for bit in 0..64 {
                words[word] ^= 1 << bit;
                assert!(
                    read_made(&words, &mut values).is_none(),
                    "word {word} bit {bit}"
                );
                words[word] ^= 1 << bit;
            }
        }
        assert!(read_made(&words, &mut values).is_some());
    }

    #[test]
    fn all_else_is_the_same_on_the_other_side() {
        let config = demo::bench_config("engines/bench-vla".as_ref(), false).expect("the bench");
        let (memory, fd) = Mapping::create(words(&config)).expect("memory");
        let mut far = Far::new(
            &config,
            Mapping::open(&fd, words(&config)).expect("the same"),
        );
        let mut near = Near::new(&config, memory);
        let mut buffer = Vec::new();

        let mut state = JointState::NEVER;
        (state.joints, state.measured, state.received) = (6, Mono(3), Mono(5));
        (state.torques, state.holding) = (true, false);
        for (n, numbers) in [&mut state.position, &mut state.velocity, &mut state.torque]
            .into_iter()
            .enumerate()
        {
            numbers[..6].fill(0.1 * n as f64 - 0.05);
        }
        write_state(&state, &mut buffer);
        assert_eq!(near.states.push(&buffer), Ok(true));
        assert_eq!(far.states.pop(&mut buffer), Ok(true));
        assert_eq!(read_state(&buffer), Some(state));

        let followed = Followed {
            chunk_id: 3,
            first_at: Mono(5),
            period_ns: 7,
            steps: 11,
            delay_steps: 13,
            until: Mono(17),
            begun: 19,
        };
        near.followed.put(|slot| write_followed(&followed, slot));
        assert_eq!(far.followed.fresh().and_then(read_followed), Some(followed));

        for insight in [
            Insight::default(),
            Insight {
                keypoint: Some([0.25, 0.75]),
                presence: Some(0.5),
                unsure_chunks: 3,
                inference_ns: 5,
            },
        ] {
            far.insight.put(|slot| write_insight(&insight, slot));
            assert_eq!(near.insight.fresh().and_then(read_insight), Some(insight));
        }

        let mut frame = Frame::black(config.camera.width, config.camera.height);
        (frame.seq, frame.captured, frame.received) = (3, Mono(5), Mono(7));
        frame
            .rgb
            .iter_mut()
            .enumerate()
            .for_each(|(n, byte)| *byte = n as u8);
        let mut read = Frame::black(1, 1);
        far.picture.put(|slot| write_frame(&frame, slot));
        assert!(
            near.picture
                .fresh()
                .is_some_and(|slot| read_frame(slot, &mut read))
        );
        assert_eq!(format!("{read:?}"), format!("{frame:?}"));
        // The bench's camera is reached over the link. A size that is no multiple of a word, and one that does not fit.
        let writer = near.handed[0].as_mut().expect("a camera over the link");
        let reader = far.handed[0].as_mut().expect("the same");
        let mut small = Frame::black(3, 5);
        small
            .rgb
            .iter_mut()
            .enumerate()
            .for_each(|(n, byte)| *byte = 200 + n as u8);
        writer.put(|slot| write_frame(&small, slot));
        assert!(
            reader
                .fresh()
                .is_some_and(|slot| read_frame(slot, &mut read))
        );
        assert_eq!(read.rgb, small.rgb);
        writer.put(|slot| {
            write_frame(
                &Frame::black(config.camera.width, config.camera.height + 1),
                slot,
            )
        });
        assert!(
            !reader
                .fresh()
                .is_some_and(|slot| read_frame(slot, &mut read))
        );
    }

    proptest! {
        #[test]
        fn nonsense_is_refused_or_harmless(words in proptest::collection::vec(any::<u64>(), 0..40)) {
            let slot: Vec<AtomicU64> = words.iter().map(|word| AtomicU64::new(*word)).collect();
            prop_assert!(read_made(&words, &mut Vec::new()).is_none());
            let _ = read_state(&words);
            let _ = read_followed(&slot);
            let _ = read_insight(&slot);
            let mut frame = Frame::black(2, 2);
            if read_frame(&slot, &mut frame) {
                prop_assert!(frame.rgb.len() <= slot.len() * 8);
            }
        }
    }
}
