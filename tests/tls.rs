// SPDX-License-Identifier: Apache-2.0
//! Mutual TLS on the link: who has a certificate of our authority is heard, nobody else is.
//!
//!     cargo test --release --features tls --test tls

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tendon::config::link::{LinkConfig, Tls};
use tendon::link::robot_end::RobotEnd;
use tendon::link::runtime_end::CommandSender;
use tendon::link::session;

/// Certificates of an authority of their own; `None`, said, without openssl.
fn authority(folder: &Path) -> Option<Tls> {
    let made = Command::new("systemd/zenoh/make-test-ca.sh")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg(folder)
        .arg("router")
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("skipped: systemd/zenoh/make-test-ca.sh makes no certificates here (openssl?)");
        return None;
    }
    Some(Tls {
        ca: folder.join("ca.pem"),
        certificate: folder.join("router.pem"),
        key: folder.join("router.key"),
    })
}

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
        listen: Some(format!("tls/127.0.0.1:{port}")),
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
        !hears(&sender, &robot("tls", Some(theirs))),
        "another authority"
    );
    assert!(
        !hears(&sender, &robot("tls", Some(stranger))),
        "a stranger who trusts us"
    );
    assert!(!hears(&sender, &robot("tcp", None)), "no TLS");
    assert!(hears(&sender, &robot("tls", Some(ours))), "ours");
}
