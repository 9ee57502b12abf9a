// SPDX-License-Identifier: Apache-2.0
//! What it costs to carry something between control process and inference process, without the wake-up: written at one
//! end of the shared memory and read at the other.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tendon::core::chunk::{Chunk, Provenance};
use tendon::core::observation::JointState;
use tendon::core::units::Mono;
use tendon::ports::Frame;
use tendon::runtime::control::Made;
use tendon::runtime::demo;
use tendon::runtime::isolation::codec;
use tendon::runtime::isolation::plane::{self, Far, Near};
use tendon::sync::mapping::Mapping;

fn carry(criterion: &mut Criterion) {
    let mut config = demo::bench_config("engines/bench-vla".as_ref(), false).expect("the bench");
    (config.camera.width, config.camera.height) = (640, 480);
    let (memory, fd) = Mapping::create(plane::words(&config)).expect("memory");
    let mut far = Far::new(
        &config,
        Mapping::open(&fd, plane::words(&config)).expect("the same"),
    );
    let mut near = Near::new(&config, memory);
    let (mut words, mut values) = (Vec::new(), Vec::new());
    for (name, steps, joints) in [
        ("chunk 16x6", 16, 6),
        ("chunk 50x14", 50, 14),
        ("chunk 100x40", 100, 40),
    ] {
        let provenance = Provenance::default();
        let chunk = Chunk::new(Mono(1), 1, joints, &vec![0.5; steps * joints], provenance);
        let made = Made {
            chunk: chunk.expect("a chunk"),
            queued: Mono(1),
        };
        criterion.bench_function(name, |bench| {
            bench.iter(|| {
                codec::write_made(black_box(&made), &mut words);
                assert_eq!(far.chunks.push(&words), Ok(true));
                assert_eq!(near.chunks.pop(&mut words), Ok(true));
                black_box(codec::read_made(&words, &mut values)).expect("whole")
            });
        });
    }
    let mut state = JointState::NEVER;
    state.joints = 7;
    criterion.bench_function("state of 7 joints", |bench| {
        bench.iter(|| {
            codec::write_state(black_box(&state), &mut words);
            assert_eq!(near.states.push(&words), Ok(true));
            assert_eq!(far.states.pop(&mut words), Ok(true));
            black_box(codec::read_state(&words)).expect("whole")
        });
    });
    let (frame, mut read) = (Frame::black(640, 480), Frame::black(640, 480));
    criterion.bench_function("picture 640x480", |bench| {
        bench.iter(|| {
            far.picture
                .put(|slot| codec::write_frame(black_box(&frame), slot));
            let slot = near.picture.fresh().expect("fresh");
            assert!(codec::read_frame(slot, &mut read));
        });
    });
}

criterion_group!(benches, carry);
criterion_main!(benches);
