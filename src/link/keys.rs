// SPDX-License-Identifier: Apache-2.0
//! The names under which everything of one robot travels: `tendon/<robot>/<what>`.

/// Frames to the motor controller.
#[must_use]
pub fn command(robot: &str) -> String {
    format!("tendon/{robot}/command")
}

/// Frames from the motor controller.
#[must_use]
pub fn state(robot: &str) -> String {
    format!("tendon/{robot}/state")
}

/// Pictures of one camera.
#[must_use]
pub fn camera(robot: &str, camera: &str) -> String {
    format!("tendon/{robot}/camera/{camera}")
}

/// Ask the runtime to take an instruction (UTF-8 text); it answers.
#[must_use]
pub fn instruction(robot: &str) -> String {
    format!("tendon/{robot}/instruction")
}

/// Ask the runtime for a mode (one of its words); it answers.
#[must_use]
pub fn mode(robot: &str) -> String {
    format!("tendon/{robot}/mode")
}

/// Ask the runtime for a share of the speed limits (percent); it answers.
#[must_use]
pub fn speed(robot: &str) -> String {
    format!("tendon/{robot}/speed")
}

/// Ask the runtime to take the robot to a pose of `robot.toml` (its name); it answers.
#[must_use]
pub fn park(robot: &str) -> String {
    format!("tendon/{robot}/park")
}

/// Frames of a person's device, for a takeover.
#[must_use]
pub fn takeover(robot: &str) -> String {
    format!("tendon/{robot}/takeover")
}

/// Frames of a deadman switch that is held elsewhere.
#[must_use]
pub fn deadman(robot: &str) -> String {
    format!("tendon/{robot}/deadman")
}

/// Frames that say what happened.
#[must_use]
pub fn event(robot: &str) -> String {
    format!("tendon/{robot}/event")
}

/// Ask the bench robot to set a scene or to tell how the episode stands.
#[must_use]
pub fn bench(robot: &str) -> String {
    format!("tendon/{robot}/bench")
}
