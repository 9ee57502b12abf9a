// SPDX-License-Identifier: Apache-2.0
//! Certificates to try mutual TLS with. Two suites have this file.

use std::path::Path;
use std::process::Command;
use tendon::config::link::Tls;

/// Of an authority of their own, for either end; `None`, said, without openssl.
pub fn authority(folder: &Path) -> Option<Tls> {
    let made = Command::new("systemd/zenoh/make-test-ca.sh")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .arg(folder)
        .arg("router")
        .output();
    if !made.is_ok_and(|made| made.status.success()) {
        println!("SKIPPED: systemd/zenoh/make-test-ca.sh makes no certificates here (openssl?)");
        return None;
    }
    Some(Tls {
        ca: folder.join("ca.pem"),
        certificate: folder.join("router.pem"),
        key: folder.join("router.key"),
    })
}
