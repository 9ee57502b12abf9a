// SPDX-License-Identifier: Apache-2.0
//! Two ends on loopback: the same numbers as here, and what becomes of each other case.

use super::serve::Server;
use super::*;
use crate::config::PolicyConfig;
use crate::config::link::LinkConfig;
use crate::engine::cpu::{CpuEngine, CpuOptions};
use crate::runtime::demo::bench_config;
use crate::runtime::engines::stages;
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A server of the shipped bundle, until it is dropped.
struct Serving {
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Serving {
    fn at(endpoint: &str) -> Serving {
        let ending = Arc::new(AtomicBool::new(false));
        let link = LinkConfig {
            listen: Some(endpoint.to_owned()),
            ..LinkConfig::default()
        };
        let server = Server::load(&policy()).expect("the shipped bundle");
        assert!(server.words()[0].contains("on cpu"), "{server:?}");
        let ends = Arc::clone(&ending);
        let thread =
            std::thread::spawn(move || server.run(&link, &ends, || ()).expect("it listens"));
        Serving {
            ending,
            thread: Some(thread),
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

fn policy() -> PolicyConfig {
    let config = bench_config("engines/bench-vla".as_ref(), false).expect("the bench");
    config.policy
}

fn stage() -> (StageSpec, PathBuf) {
    let policy = policy();
    let stages = stages(&policy.bundle, policy.precision).expect("the shipped bundle");
    stages.into_iter().next().expect("a stage")
}

/// A free port, and how it is asked.
fn place() -> (String, RemoteConfig) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("tcp/{}", socket.local_addr().expect("an address"));
    let link = LinkConfig {
        connect: Some(endpoint.clone()),
        ..LinkConfig::default()
    };
    let remote = RemoteConfig {
        link,
        timeout_ns: 2_000_000_000,
    };
    (endpoint, remote)
}

fn zeros(specs: &[TensorSpec]) -> Vec<Tensor> {
    specs.iter().map(Tensor::zeros).collect()
}

#[test]
fn it_gives_the_numbers_of_the_engine_that_serves_and_is_lost_with_its_server() {
    let (endpoint, remote) = place();
    let serving = Serving::at(&endpoint);
    let (spec, onnx) = stage();
    let session = open(&remote).expect("a session");
    let (mut far, words) = RemoteEngine::load(&session, &remote, &onnx, &spec).expect("served");
    assert!(
        words.contains("cpu") && words.contains(&endpoint),
        "{words}"
    );
    let mut near = CpuEngine::load(&onnx, &spec, CpuOptions::default()).expect("the same here");
    let (mut inputs, mut ours) = (zeros(&spec.inputs), zeros(&spec.outputs));
    let mut theirs = ours.clone();
    for round in 0..5 {
        for tensor in &mut inputs {
            if let Tensor::F32(values) = tensor {
                let numbers = values.iter_mut().enumerate();
                numbers.for_each(|(n, value)| *value = ((n * 7 + round * 13) % 101) as f32 / 101.0);
            }
        }
        near.run(&inputs, &mut ours).expect("runs here");
        far.run(&inputs, &mut theirs).expect("runs there");
        assert_eq!(ours, theirs, "round {round}");
    }
    // What is nobody's question is refused, and the server goes on.
    for nonsense in [vec![1], vec![0; 40], vec![7; 100_000]] {
        let said = ask(&session, &far.key, nonsense, far.patience);
        assert!(matches!(said, Said::Refusal(words) if words.contains("not whole")));
    }
    let mut short = far.server.to_vec();
    seal(&mut short);
    let said = ask(&session, &far.key, short, far.patience);
    assert!(matches!(said, Said::Refusal(words) if words.contains("other sizes")));
    far.run(&inputs, &mut theirs).expect("still");

    drop(serving);
    far.patience = Duration::from_millis(200);
    let began = clock::now();
    let fault = far.run(&inputs, &mut theirs).expect_err("nobody is there");
    let gone = ["nobody serves it now", "no answer within 200 ms"];
    assert!(gone.iter().any(|words| fault.0.contains(words)), "{fault}");
    assert!(
        clock::now().since_ns(began) < 1_000_000_000,
        "it waits no longer"
    );
    assert!(!far.lost(), "it may come back");
    let _another = Serving::at(&endpoint);
    let began = clock::now();
    while !far.lost() {
        assert!(
            far.run(&inputs, &mut theirs).is_err(),
            "it is another server"
        );
        assert!(
            clock::now().since_ns(began) < 10_000_000_000,
            "never heard of it"
        );
    }
}

#[test]
fn another_graph_is_not_served() {
    let (endpoint, remote) = place();
    let _serving = Serving::at(&endpoint);
    let (mut spec, onnx) = stage();
    spec.id.push('2');
    let session = open(&remote).expect("a session");
    let fault = RemoteEngine::load(&session, &remote, &onnx, &spec).expect_err("another stage");
    assert!(fault.0.contains("another bundle or precision"), "{fault}");
}

proptest! {
    #[test]
    fn what_is_not_whole_or_not_of_the_size_changes_nothing(
        values in prop::collection::vec(any::<u32>(), 1..40), flip in any::<prop::sample::Index>(), cut in any::<prop::sample::Index>(),
    ) {
        let sent = vec![Tensor::F32(values.iter().map(|bits| f32::from_bits(*bits & 0x7f7f_ffff)).collect()), Tensor::I32(vec![3, -4])];
        let mut bytes = Vec::new();
        put(&sent, &mut bytes);
        seal(&mut bytes);
        let mut read = vec![Tensor::F32(vec![0.0; values.len()]), Tensor::I32(vec![0; 2])];
        let blank = read.clone();
        let mut bad = bytes.clone();
        let bit = flip.index(bad.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(unseal(&bad).is_none());
        prop_assert!(unseal(&bytes[..cut.index(bytes.len())]).is_none());
        let whole = unseal(&bytes).expect("as sent");
        prop_assert!(take(&whole[..whole.len() - 4], &mut read).is_none());
        prop_assert_eq!(&read, &blank);
        prop_assert!(take(whole, &mut read).is_some());
        prop_assert_eq!(&read, &sent);
    }
}
