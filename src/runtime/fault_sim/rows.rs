// SPDX-License-Identifier: Apache-2.0
//! The fault matrix: what strikes, what must follow, and how soon. The numbers are those of the safety notes; a row
//! that is not here stands in [`ELSEWHERE`] with the reason.

use super::world::{FRAME_NS, POLICY_NS, THINKING_NS, TICK_NS, WATCH_NS, World};
use crate::bench::lens::PictureFault;
use crate::core::camera::BAD_MAX;
use crate::core::governor::reaction::Cause;
use crate::core::supervisor::Request;
use crate::core::units::MS;

/// Silence after which the motor controller stops by itself.
const MOTOR_NS: u64 = 20 * MS;
/// Reaction to a joint state that cannot be used: two periods and a tick.
const STATE_NS: u64 = 3 * TICK_NS;

/// By when the first command that brakes must be out, from the onset of the fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// This long.
    Within(u64),
    /// This long after the end of the chunk that was followed: until then it is still good.
    AfterChunk(u64),
    /// This long after a measured joint is further from its command than allowed. If it never is, nothing follows.
    AfterOffTrack(u64),
}

/// How it ends while the fault lasts, and when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finally {
    /// Nothing happens: the robot goes on as if there were no fault.
    Follows,
    /// Whatever happens, every command is legal.
    Legal,
    /// It holds, and resumes by itself when the fault is over.
    Resumes,
    /// It comes to rest and standby; only a new arming moves it.
    Disarmed,
    /// Latched: only a person's reset, after the fault, leads to standby.
    Latched,
}

/// One row of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its number in the safety notes.
    pub number: u32,
    /// In words.
    pub name: &'static str,
    /// Starts (`true`) or ends (`false`) it.
    pub strike: fn(&mut World, bool),
    /// Causes that the governor may give first.
    pub causes: &'static [Cause],
    /// By when it must.
    pub bound: Bound,
    /// By when the motor controller must have stopped following, if it must.
    pub motor_ns: Option<u64>,
    /// How it ends.
    pub finally: Finally,
    /// What the supervisor must call it while it lasts, if it is not the governor's to name.
    pub named: Option<Cause>,
}

const fn row(
    number: u32,
    name: &'static str,
    strike: fn(&mut World, bool),
    causes: &'static [Cause],
    bound: Bound,
    finally: Finally,
) -> Row {
    Row {
        number,
        name,
        strike,
        causes,
        bound,
        motor_ns: None,
        finally,
        named: None,
    }
}

/// A fault of the camera: the chunk that there is runs out, then the robot holds and says what is wrong.
const fn camera(
    number: u32,
    name: &'static str,
    strike: fn(&mut World, bool),
    named: Cause,
) -> Row {
    Row {
        named: Some(named),
        ..row(number, name, strike, CAMERA, SOON, Resumes)
    }
}

/// Strikes, or ends, a fault of the pictures.
const fn shows(fault: PictureFault, on: bool) -> PictureFault {
    if on { fault } else { PictureFault::None }
}

use Bound::{AfterChunk, AfterOffTrack, Within};
use Finally::{Disarmed, Follows, Latched, Legal, Resumes};

/// What is left when no new chunk comes.
const STARVED: &[Cause] = &[Cause::ChunkEnded, Cause::NoChunk, Cause::CameraLost];
/// The same, when it is the camera.
const CAMERA: &[Cause] = &[
    Cause::ChunkEnded,
    Cause::NoChunk,
    Cause::CameraLost,
    Cause::CameraStuck,
    Cause::CameraBlind,
    Cause::CameraGarbage,
    Cause::CameraLate,
    Cause::CameraClock,
];
/// So many frames as make a fault of the camera, the watchdog's period and a tick.
const SEEN_NS: u64 = BAD_MAX as u64 * FRAME_NS + WATCH_NS + TICK_NS;
/// Until the policy's next answer is here: its period, a frame, its thinking, and two ticks.
const ASKED_NS: u64 = POLICY_NS + FRAME_NS + THINKING_NS + 2 * TICK_NS;
/// What is seen of a state that does not come.
const BLIND: &[Cause] = &[Cause::StateStale, Cause::StateLost];
const NOTHING: &[Cause] = &[];
const SOON: Bound = AfterChunk(2 * TICK_NS);

/// The rows.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    camera(1, "camera unplugged", |w, on| w.unplug(on), Cause::CameraLost),
    camera(2, "camera stuck", |w, on| w.meddling.picture = shows(PictureFault::Stuck, on), Cause::CameraStuck),
    camera(3, "camera frozen, no error", |w, on| w.meddling.no_frames = on, Cause::CameraLost),
    camera(4, "pictures black", |w, on| w.meddling.picture = shows(PictureFault::Black, on), Cause::CameraBlind),
    camera(4, "pictures saturated", |w, on| w.meddling.picture = shows(PictureFault::Saturated, on), Cause::CameraBlind),
    camera(4, "pictures of one colour", |w, on| w.meddling.picture = shows(PictureFault::Uniform, on), Cause::CameraBlind),
    camera(5, "pictures of noise", |w, on| w.meddling.picture = shows(PictureFault::Noise, on), Cause::CameraGarbage),
    camera(5, "pictures torn", |w, on| w.meddling.picture = shows(PictureFault::Torn, on), Cause::CameraGarbage),
    camera(5, "pictures of the wrong size", |w, on| w.meddling.picture = shows(PictureFault::Short, on), Cause::CameraGarbage),
    camera(6, "camera 300 ms late", |w, on| w.meddling.frames_late_ns = if on { 300 * MS } else { 0 }, Cause::CameraLate),
    row(7, "cameras swapped at a replug", |w, on| w.replug(shows(PictureFault::Swapped, on)), &[Cause::CameraSwapped], Within(SEEN_NS), Latched),
    camera(8, "camera time runs backwards", |w, on| w.meddling.frames_backwards = on, Cause::CameraClock),
    row(9, "joint state stale", |w, on| w.meddling.no_state = on, BLIND, Within(STATE_NS), Latched),
    row(10, "joint state stuck", |w, on| w.meddling.state_stuck = on, &[Cause::TrackingError], AfterOffTrack(60 * MS), Latched),
    row(11, "joint state NaN", |w, on| w.meddling.state_nan = on, &[Cause::StateStale, Cause::StateNotFinite], Within(STATE_NS), Latched),
    row(12, "joint state jumps", |w, on| w.meddling.state_offset_rad = if on { 0.5 } else { 0.0 }, &[Cause::StateJump], Within(TICK_NS), Latched),
    row(13, "joint state of other joints", |w, on| w.meddling.state_foreign = on, BLIND, Within(STATE_NS), Latched),
    row(14, "chunks with a NaN", |w, on| w.meddling.chunks_nan = on, STARVED, SOON, Resumes),
    row(15, "chunks out of the position range", |w, on| w.meddling.chunks_offset_rad = if on { 3.0 } else { 0.0 }, NOTHING, SOON, Legal),
    row(16, "chunks that jump", |w, on| w.meddling.chunks_offset_rad = if on { -0.8 } else { 0.0 }, NOTHING, SOON, Legal),
    row(17, "chunks of the wrong dimension", |w, on| w.meddling.chunks_short = on, STARVED, SOON, Resumes),
    row(18, "chunks of an old observation", |w, on| w.meddling.chunks_stale = on, NOTHING, SOON, Follows),
    // The seams take most of it out, and what is left is legal; the governor's own detector is tested with the governor.
    row(19, "policy oscillates", |w, on| w.meddling.chunks_shake_rad = if on { 0.6 } else { 0.0 }, NOTHING, SOON, Legal),
    row(20, "inference slow, 225 ms more", |w, on| w.meddling.chunks_late_ns = if on { 225 * MS } else { 0 }, NOTHING, SOON, Follows),
    row(21, "inference hangs", |w, on| w.meddling.no_chunks = on, STARVED, SOON, Resumes),
    row(22, "engine returns errors", |w, on| w.meddling.no_chunks = on, STARVED, SOON, Resumes),
    // Not of the safety notes' numbers: what a policy says of itself.
    row(55, "policy not sure", |w, on| w.meddling.chunks_unsure = on, &[Cause::PolicyUnsure], Within(ASKED_NS), Resumes),
    row(25, "watchdog dies", |w, on| w.meddling.no_watchdog = on, &[Cause::PermissionExpired], Within(50 * MS), Latched),
    row(27, "control thread dies", |w, on| w.meddling.no_proposals = on, &[Cause::ProposalLate], Within(2 * TICK_NS), Resumes),
    row(30, "machine suspended", |w, on| if on { w.slept_ns += 2_000 * MS }, &[Cause::ClockGap], Within(10 * MS + TICK_NS), Latched),
    Row { motor_ns: Some(MOTOR_NS + TICK_NS), ..row(31, "link cut", |w, on| w.meddling.no_link = on, BLIND, Within(STATE_NS), Latched) },
    row(34, "5 % of commands lost", |w, on| w.meddling.commands_lost = if on { 0.05 } else { 0.0 }, NOTHING, SOON, Follows),
    row(34, "30 % of commands lost", |w, on| w.meddling.commands_lost = if on { 0.3 } else { 0.0 }, NOTHING, SOON, Legal),
    row(35, "commands repeated and out of order", |w, on| w.meddling.commands_repeated = on, NOTHING, SOON, Follows),
    row(36, "two commands a second corrupt", |w, on| w.meddling.commands_corrupt = if on { 100 } else { 0 }, NOTHING, SOON, Follows),
    // More than three within a second: the motor controller no longer trusts the link, and stops.
    row(36, "every third command corrupt", |w, on| w.meddling.commands_corrupt = if on { 3 } else { 0 }, &[Cause::CommandsRefused, Cause::EchoLost], Within(100 * MS), Disarmed),
    row(37, "commands of an earlier session", |w, on| w.meddling.commands_replayed = on, NOTHING, SOON, Follows),
    row(38, "emergency stop asked for", |w, on| if on { w.emergency_stop() }, &[Cause::EmergencyStop], Within(TICK_NS), Latched),
    row(39, "emergency-stop line opens and closes", |w, on| w.meddling.line_open = on, &[Cause::EmergencyLine], Within(TICK_NS), Latched),
    row(40, "deadman released", |w, on| w.meddling.deadman_released = on, &[Cause::DeadmanReleased], Within(10 * MS), Disarmed),
    row(42, "motor controller restarts", |w, on| if on { w.reboot_motor() }, &[Cause::MotorRestarted], Within(MOTOR_NS + TICK_NS), Latched),
    row(43, "motor controller refuses commands", |w, on| w.meddling.commands_refused = on, &[Cause::CommandsRefused], Within(4 * TICK_NS), Disarmed),
    row(44, "a joint is blocked", |w, on| w.meddling.blocked = on, &[Cause::TrackingError], AfterOffTrack(60 * MS), Latched),
    row(44, "a joint's torque above its limit", |w, on| w.meddling.overloaded = on, &[Cause::Overload], Within(60 * MS), Latched),
    row(48, "asked to stop (SIGTERM)", |w, on| if on { w.request = Some(Request::Stop) }, &[Cause::StopRequested, Cause::Standby], Within(2 * TICK_NS), Disarmed),
];

/// Rows of which every ordered pair is struck.
pub const PAIRED: &[u32] = &[1, 9, 21, 31, 38, 48];

/// Rows that are not here, and why.
pub const ELSEWHERE: &[(&str, &str)] = &[
    (
        "23 GPU lost for its process, 24 memory runs out, 26 panic in a thread that moves the robot, 28 no processor for 50 ms, 32 peer frozen, 33 link flooded, 41 wire of the deadman switch cut, 45 disk full, 46 files changed while armed, 47 heat, 49 runtime killed, 51 watchdog starved",
        "need real processes: tests/chaos",
    ),
    (
        "50 safety process ends",
        "the watchdog is a thread: it panics and hangs in tests/chaos",
    ),
    (
        "52 kernel hangs or power is lost, 53 servos whose watchdog does not stop them",
        "need hardware: docs/commissioning.md for the servos",
    ),
    (
        "29 wall clock set",
        "nothing here reads a wall clock; tests/tidy.rs holds that",
    ),
    (
        "54 start where nothing may be armed",
        "refusals to arm are enumerated in the supervisor's tests",
    ),
];
