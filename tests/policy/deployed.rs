// SPDX-License-Identifier: Apache-2.0
//! A deployment of the bench robot in a folder of its own, with a bundle that a test wrote there.

use std::path::Path;
use tempfile::TempDir;
use tendon::config::Config;
use tendon::runtime::deployment::Deployment;

/// Everything of tendon.toml but the cameras; `schedule` is that section's lines, `policy` more of the policy's.
pub fn tendon(policy: &str, schedule: &str) -> String {
    format!(
        "robot = \"robot.toml\"\n[policy]\nbundle = \"bundle\"\nprecision = \"fp32\"\nrate_hz = 10.0\n{policy}\
         [control]\nhz = 200.0\nstate_age_max_ms = 25\n[link]\nlisten = \"tcp/127.0.0.1:7447\"\n[schedule]\n{schedule}\n"
    )
}

/// The folder, with what `bundle` writes into the folder that it is given.
pub fn folder(tendon: &str, bundle: impl FnOnce(&Path)) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    bundle(&folder.path().join("bundle"));
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/bench");
    for file in ["robot.toml", "robot.urdf"] {
        std::fs::copy(bench.join(file), folder.path().join(file)).expect("copied");
    }
    std::fs::write(folder.path().join("tendon.toml"), tendon).expect("written");
    folder
}

/// Loaded, or why not.
pub fn deployment(folder: &TempDir) -> Result<Deployment, Vec<String>> {
    Config::load(&folder.path().join("tendon.toml"))
        .and_then(Deployment::load)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}
