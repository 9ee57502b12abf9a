// SPDX-License-Identifier: Apache-2.0
//! Every field of every frame, as a table: where it stands, what it is. The offsets are the compiler's own, so the
//! table cannot differ from the structs; `docs/wire.md` and `include/tendon_wire.h` are tested against the table.

use super::{HEADER_LEN, Header, command, event, picture, state};
use core::mem::offset_of;

/// One field of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Bytes from the start of the frame.
    pub offset: usize,
    /// Its type, in Rust's words.
    pub is: &'static str,
    /// Its name, as in the struct and in the C header.
    pub name: &'static str,
    /// Meaning, unit and range.
    pub means: &'static str,
}

macro_rules! fields {
    ($base:expr, $of:ty: $($name:ident $is:literal $means:literal,)+) => {
        &[$(Field {
            offset: $base + offset_of!($of, $name),
            is: $is,
            name: stringify!($name),
            means: $means,
        }),+]
    };
}

/// The first 32 bytes of every frame.
pub const HEADER: &[Field] = fields! { 0, Header:
    magic "u32" "`54 44 01 00`: \"TD\", version 1",
    length "u32" "bytes of the whole frame, CRC included",
    counter "u32" "one more for each frame of the stream; wraps. Of commands: the governor's step number",
    data_id "u32" "CRC of the robot's name, its low byte replaced by 1 command, 2 state, 3 picture, 4 event, 5 takeover, 6 deadman",
    schema "u32" "CRC over each joint's name, a zero byte, its kind (0 revolute, 1 prismatic, 2 gripper); 0 in pictures",
    epoch "u32" "random for each arming; 0 while not armed, and in pictures",
    sent_ns "u64" "the sender's monotonic clock, ns",
};

/// Body of a command; positions and velocities follow.
pub const COMMAND: &[Field] = fields! { HEADER_LEN, command::Body:
    captured_ns "u64" "when the frame it is made of was captured, ns",
    valid_for_us "u32" "it may be acted on for so long, microseconds; more than 200000 is read as that",
    frame_seq "u32" "number of that frame",
    chunk_id "u32" "number of the chunk it is made of; 0 for none",
    bundle_hash "u32" "first bytes of the SHA-256 of the policy bundle's manifest",
    action "u16" "index of the action in the chunk",
    mode "u8" "0 keep-alive, 1 follow, 2 torque off",
    joints "u8" "n, 0 to 64",
    verdict "u8" "0 passed; shaped: the limit's code, 1 to 9; 16 + cause held",
    flags "u8" "1: the policy misses its parity fixture and a person let it through; 2: the tool follows the joints; other bits zero, and not looked at",
    padding "u8[2]" "zero",
};

/// Where a command with the flag 2 says that the tool is to be; offsets from where the velocities end.
pub const TOOL: &[Field] = fields! { 0, command::Tool:
    position_m "f64[3]" "x, y, z of the link's origin in the base frame, metres",
    orientation "f64[4]" "of the link in the base frame, a unit quaternion: x, y, z, w",
    velocity_m_s "f64[3]" "of the link's origin along x, y, z of the base frame, m/s",
    angular_velocity_rad_s "f64[3]" "about x, y, z of the base frame, rad/s",
};

/// Body of a state; positions and velocities follow.
pub const STATE: &[Field] = fields! { HEADER_LEN, state::Body:
    measured_ns "u64" "when it was measured, ns",
    boot_id "u64" "random for each start of the motor controller",
    echo_counter "u32" "counter of the last accepted command; the header's epoch is that of its arming",
    accepted "u32" "commands accepted since the start; wraps",
    rejected "u32" "commands refused since the start; wraps",
    limit_violations "u32" "commands, refused or accepted, that implied more than the limits; wraps",
    motor_mode "u8" "0 idle, 1 following, 2 stopped, 3 torque off",
    last_reject "u8" "code of the last refusal, 0 none",
    joints "u8" "n, 0 to 64",
    holding "u8" "1 while something is held",
    torques "u8" "1 where torques follow the velocities",
    padding "u8[3]" "zero",
};

/// Body of an event; nothing follows but the CRC.
pub const EVENT: &[Field] = fields! { HEADER_LEN, event::Body:
    at_ns "u64" "when it happened, ns",
    value_bits "u64" "bits of an f64 that belongs to it, in the unit that the code says; any pattern",
    frame_seq "u32" "frame that the robot acted on; 0 for none",
    chunk_id "u32" "chunk that it acted on; 0 for none",
    bundle_hash "u32" "as in a command",
    code "u16" "1 mode or cause changed (value 0); 2 help wanted (value: seconds held); 3 help wanted (value: chunks in a row that the policy was not sure enough of); 4 the policy misses its parity fixture and drives (value: its largest error as a part of the action's range)",
    mode "u8" "mode of the supervisor after it",
    cause "u8" "why; 0 for none",
};

/// Body of a picture; `height` rows of `width` RGB pixels follow.
pub const PICTURE: &[Field] = fields! { HEADER_LEN, picture::Body:
    captured_ns "u64" "when it was captured, ns",
    width "u16" "pixels a row",
    height "u16" "rows",
    padding "u8[4]" "zero",
};
