// SPDX-License-Identifier: Apache-2.0
//! Mutual TLS on the link, over TCP and over QUIC: who has a certificate of our authority is heard, nobody else is.
//!
//!     cargo test --release --features tls --test tls

#[path = "chaos/authority.rs"]
mod authority;

use authority::authority;
use std::time::Duration;
use tendon::config::link::{LinkConfig, Tls};
use tendon::link::robot_end::RobotEnd;
use tendon::link::runtime_end::CommandSender;
use tendon::link::session;

/// Whether a frame that is sent again and again arrives within four seconds.
fn hears(sender: &CommandSender, robot: &LinkConfig) -> bool {
    let Ok(session) = session::open(robot) else {
        return false;
    };
    let end = RobotEnd::new(&session, "arm").expect("its streams");
    (0..40).any(|_| {
        sender.send(b"a frame").expect("it is taken");
        let heard = end.commands.recv_timeout(Duration::from_millis(100));
        heard.is_ok_and(|frame| frame == b"a frame")
    })
}

#[test]
fn only_certificates_of_our_authority_are_heard() {
    heard_over("tls");
}

#[test]
fn only_certificates_of_our_authority_are_heard_over_quic() {
    heard_over("quic");
}

fn heard_over(secure: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(ours) = authority(&folder.path().join("ours")) else {
        return;
    };
    let theirs = authority(&folder.path().join("theirs")).expect("as before");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a port")
        .port();
    let runtime = LinkConfig {
        listen: Some(format!("{secure}/127.0.0.1:{port}")),
        tls: Some(ours.clone()),
        ..LinkConfig::default()
    };
    let runtime = session::open(&runtime).expect("it listens");
    let sender = CommandSender::new(&runtime, "arm").expect("its stream");
    let robot = |protocol: &str, tls: Option<Tls>| LinkConfig {
        connect: Some(format!("{protocol}/127.0.0.1:{port}")),
        tls,
        ..LinkConfig::default()
    };
    // Somebody else's authority, no certificate of ours, no TLS at all.
    let stranger = Tls {
        ca: ours.ca.clone(),
        ..theirs.clone()
    };
    assert!(
        !hears(&sender, &robot(secure, Some(theirs))),
        "another authority"
    );
    assert!(
        !hears(&sender, &robot(secure, Some(stranger))),
        "a stranger who trusts us"
    );
    assert!(!hears(&sender, &robot("tcp", None)), "no TLS");
    assert!(hears(&sender, &robot(secure, Some(ours))), "ours");
}
