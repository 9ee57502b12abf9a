// SPDX-License-Identifier: Apache-2.0
//! What a command costs the thread that sends it, counted by the allocator over a real link.

use std::time::Duration;
use tendon::config::link::LinkConfig;
use tendon::link::robot_end::RobotEnd;
use tendon::link::runtime_end::{CommandSender, FrameBuffer};
use tendon::link::session;
use tendon::runtime::realtime::{CountingAllocator, allocations_of_this_thread};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const PUTS: u64 = 1_000;
/// About as long as a command of seven joints.
const FRAME: [u8; 256] = [7; 256];

#[test]
fn a_command_is_put_without_an_allocation() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a port")
        .port();
    let endpoint = Some(format!("tcp/127.0.0.1:{port}"));
    let runtime = session::open(&LinkConfig {
        listen: endpoint.clone(),
        ..LinkConfig::default()
    })
    .expect("it listens");
    let robot = session::open(&LinkConfig {
        connect: endpoint,
        ..LinkConfig::default()
    })
    .expect("it connects");
    let sender = CommandSender::new(&runtime, "arm").expect("its stream");
    let end = RobotEnd::new(&robot, "arm").expect("its streams");
    let mut buffer = FrameBuffer::default();
    // The first puts after somebody has joined find the way to it, and that allocates.
    let before = allocations_of_this_thread();
    let mut heard = 0;
    for _ in 0..400 {
        sender.send(buffer.holding(&FRAME)).expect("it is taken");
        let frame = end.commands.recv_timeout(Duration::from_millis(10));
        heard += u32::from(frame.is_ok_and(|frame| frame == FRAME));
    }
    let joining = allocations_of_this_thread() - before;
    assert!(heard > 200, "only {heard} of 400 frames arrived");

    // One after the other, as a control loop sends them: into a queue that is full zenoh allocates too.
    let count = |put: &mut dyn FnMut()| {
        let mut counted = 0;
        for _ in 0..PUTS {
            let before = allocations_of_this_thread();
            put();
            counted += allocations_of_this_thread() - before;
            // One that is lost shows as none here, and costs the next one nothing.
            let _ = end.commands.recv_timeout(Duration::from_millis(20));
        }
        counted
    };
    let mut of_buffer = || count(&mut || sender.send(buffer.holding(&FRAME)).expect("it is taken"));
    // zenoh makes its own buffers as it first needs them; from then on there are none to make.
    let settling: Vec<u64> = std::iter::repeat_with(&mut of_buffer)
        .take(10)
        .take_while(|made| *made > 0)
        .collect();
    let built = of_buffer();
    let copied = count(&mut || sender.send(&FRAME[..]).expect("it is taken"));
    println!(
        "{joining} until it was heard, then {settling:?}; {built} in {PUTS} puts of a buffer, {copied} of bytes"
    );
    assert_eq!(built, 0, "allocations in {PUTS} puts of a buffer");
    assert!(copied >= PUTS, "the count counts: {copied}");
}
