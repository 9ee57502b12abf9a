// SPDX-License-Identifier: Apache-2.0
//! The same chunk, joint state and picture, written at one end and read at the other: by Tendon's shared memory and by `iceoryx2`,
//! in turns, in one process, without the wake-up of a thread. Both are given the same words; what differs is the carrier.

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{LogLevel, NodeBuilder, ZeroCopySend, ipc, set_log_level};
use std::error::Error;
use std::hint::black_box;
use std::time::Instant;
use tendon::core::chunk::{Chunk, Provenance};
use tendon::core::observation::JointState;
use tendon::core::units::Mono;
use tendon::ports::Frame;
use tendon::runtime::control::Made;
use tendon::runtime::demo;
use tendon::runtime::isolation::codec;
use tendon::runtime::isolation::plane::{self, Far, Near};
use tendon::sync::mapping::Mapping;

const TURNS: usize = 40;
const EACH: u32 = 200;

type Service = ipc::Service;

/// Both ends of one of theirs.
struct Theirs<T: ZeroCopySend + std::fmt::Debug + Copy + 'static> {
    out: Publisher<Service, [T], ()>,
    into: Subscriber<Service, [T], ()>,
    got: Vec<T>,
}

impl<T: ZeroCopySend + std::fmt::Debug + Copy + 'static> Theirs<T> {
    fn new(name: &str, longest: usize) -> Result<Theirs<T>, Box<dyn Error>> {
        let node = NodeBuilder::new().create::<Service>()?;
        let name = format!("tendon/{}/{name}", std::process::id());
        let service = node
            .service_builder(&name.as_str().try_into()?)
            .publish_subscribe::<[T]>()
            .create()?;
        Ok(Theirs {
            out: service
                .publisher_builder()
                .initial_max_slice_len(longest)
                .create()?,
            into: service.subscriber_builder().create()?,
            got: Vec::with_capacity(longest),
        })
    }

    fn carry(&mut self, words: &[T]) -> Result<&[T], Box<dyn Error>> {
        let sample = self.out.loan_slice_uninit(words.len())?;
        sample.write_from_slice(words).send()?;
        let sample = self.into.receive()?.ok_or("nothing came")?;
        self.got.clear();
        self.got.extend_from_slice(sample.payload());
        Ok(&self.got)
    }
}

/// Median microseconds of each, in turns.
fn compare(name: &str, mut ours: impl FnMut(), mut theirs: impl FnMut()) {
    let mut took_us = [Vec::new(), Vec::new()];
    for _ in 0..TURNS {
        let both: [&mut dyn FnMut(); 2] = [&mut ours, &mut theirs];
        for (times, one) in took_us.iter_mut().zip(both) {
            let from = Instant::now();
            (0..EACH).for_each(|_| one());
            times.push(from.elapsed().as_secs_f64() * 1e6 / f64::from(EACH));
        }
    }
    let [ours, theirs] = took_us.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[TURNS / 2]
    });
    println!(
        "{name}: ours {ours:.2} us, iceoryx2 {theirs:.2} us, ours / it {:.2}",
        ours / theirs
    );
}

fn main() -> Result<(), Box<dyn Error>> {
    set_log_level(LogLevel::Error);
    let mut config = demo::bench_config("engines/bench-vla".as_ref(), false)
        .map_err(|problems| format!("{problems:?}"))?;
    (config.camera.width, config.camera.height) = (640, 480);
    let (memory, fd) = Mapping::create(plane::words(&config))?;
    let mut far = Far::new(&config, Mapping::open(&fd, plane::words(&config))?);
    let mut near = Near::new(&config, memory);
    for (name, steps, joints) in [
        ("chunk 16x6", 16, 6),
        ("chunk 50x14", 50, 14),
        ("chunk 100x40", 100, 40),
    ] {
        let values = vec![0.5; steps * joints];
        let chunk = Chunk::new(Mono(1), 1, joints, &values, Provenance::default());
        let made = Made {
            chunk: chunk.map_err(|error| format!("{error:?}"))?,
            queued: Mono(1),
        };
        let (mut words, mut values) = (Vec::new(), Vec::new());
        codec::write_made(&made, &mut words);
        let mut carrier = Theirs::<u64>::new(&name.replace(' ', "/"), words.len())?;
        let (mut their_words, mut their_values) = (Vec::new(), Vec::new());
        compare(
            name,
            || {
                codec::write_made(black_box(&made), &mut words);
                assert_eq!(far.chunks.push(&words), Ok(true));
                assert_eq!(near.chunks.pop(&mut words), Ok(true));
                black_box(codec::read_made(&words, &mut values)).expect("whole");
            },
            || {
                codec::write_made(black_box(&made), &mut their_words);
                let words = carrier.carry(&their_words).expect("it comes");
                black_box(codec::read_made(words, &mut their_values)).expect("whole");
            },
        );
    }
    let mut state = JointState::NEVER;
    state.joints = 7;
    let mut words = Vec::new();
    codec::write_state(&state, &mut words);
    let mut carrier = Theirs::<u64>::new("state", words.len())?;
    let mut their_words = Vec::new();
    compare(
        "state of 7 joints",
        || {
            codec::write_state(black_box(&state), &mut words);
            assert_eq!(near.states.push(&words), Ok(true));
            assert_eq!(far.states.pop(&mut words), Ok(true));
            black_box(codec::read_state(&words)).expect("whole");
        },
        || {
            codec::write_state(black_box(&state), &mut their_words);
            let words = carrier.carry(&their_words).expect("it comes");
            black_box(codec::read_state(words)).expect("whole");
        },
    );
    let (frame, mut read) = (Frame::black(640, 480), Frame::black(640, 480));
    let mut carrier = Theirs::<u8>::new("picture", frame.rgb.len())?;
    compare(
        "picture 640x480",
        || {
            far.picture
                .put(|slot| codec::write_frame(black_box(&frame), slot));
            let slot = near.picture.fresh().expect("fresh");
            assert!(codec::read_frame(slot, &mut read));
        },
        || {
            black_box(carrier.carry(black_box(&frame.rgb)).expect("it comes"));
        },
    );
    Ok(())
}
