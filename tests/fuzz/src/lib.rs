// SPDX-License-Identifier: Apache-2.0
//! What of Tendon reads from outside: wire frames, deployment, robot, URDF, manifest. The runtime's own files.
#[path = "../../../src/config/mod.rs"]
pub mod config;
#[path = "../../../src/core/mod.rs"]
pub mod core;
/// Of the policy only the manifest.
#[path = "../../../src/policy"]
pub mod policy {
    pub mod manifest;
}
#[path = "../../../src/ports.rs"]
pub mod ports;
