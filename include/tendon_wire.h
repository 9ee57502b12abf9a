/* SPDX-License-Identifier: Apache-2.0
 *
 * The motor controller's end of Tendon's wire, for a microcontroller: plain C99, this header only.
 *
 * It reads command frames, judges them in the order that docs/wire.md gives, writes state frames, and stops the joints
 * by itself when valid commands cease. No allocation, no recursion, no assumption about alignment or byte order; the
 * one library function besides memcpy and memset is sqrt (link with -lm). Compile it without contraction of floating
 * point (gcc: -ffp-contract=off, which -std=c99 implies) and it gives, to the bit, what the Rust motor controller gives.
 *
 * It reads no clock and touches no motor. Two contexts use it, and they share the mailbox only:
 *
 *   network task:   for each datagram           tw_mailbox_put(&box, bytes, length);
 *   control timer:  each millisecond, always    tw_control(&motor, &box, now_ns(), 1000000);
 *                                               drive(motor.q, motor.v);
 *                   each report period          length = tw_motor_report(&motor, now_ns(), q, v, tau, holding, frame, sizeof frame);
 *
 * The control timer must run whether or not the network task does: a network task that hangs is then silence, and silence
 * stops the robot. It replaces no safety function of the drives.
 */
#ifndef TENDON_WIRE_H
#define TENDON_WIRE_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Most joints that this receiver can hold; at most 64. */
#ifndef TENDON_WIRE_JOINTS_MAX
#define TENDON_WIRE_JOINTS_MAX 64
#endif
/* Frames that may wait between the network task and the control timer; a power of two. */
#ifndef TENDON_WIRE_MAILBOX
#define TENDON_WIRE_MAILBOX 4
#endif
/* What keeps the two contexts' memory accesses in order. On one core with interrupts a compiler barrier is enough. */
#ifndef TENDON_WIRE_BARRIER
#if defined(__GNUC__)
#define TENDON_WIRE_BARRIER() __sync_synchronize()
#else
#error "define TENDON_WIRE_BARRIER() as this compiler's memory barrier"
#endif
#endif

/* The numbers on the wire are IEEE 754 binary64; a compiler with a smaller double cannot hold them. */
typedef char tw_double_is_binary64[(sizeof(double) == 8 && DBL_MANT_DIG == 53) ? 1 : -1];
typedef char tw_mailbox_is_a_power_of_two[(TENDON_WIRE_MAILBOX & (TENDON_WIRE_MAILBOX - 1)) == 0 ? 1 : -1];
typedef char tw_joints_fit[(TENDON_WIRE_JOINTS_MAX >= 1 && TENDON_WIRE_JOINTS_MAX <= 64) ? 1 : -1];

#define TW_MAGIC 0x00014454UL
#define TW_HEADER_LEN 32U
#define TW_JOINT_LEN 16U
#define TW_TOOL_LEN 104U
#define TW_COMMAND_LEN_MIN 68U
#define TW_COMMAND_LEN_MAX (TW_COMMAND_LEN_MIN + TENDON_WIRE_JOINTS_MAX * TW_JOINT_LEN + TW_TOOL_LEN)
#define TW_STATE_LEN_MIN 76U
#define TW_STATE_LEN_MAX (TW_STATE_LEN_MIN + TENDON_WIRE_JOINTS_MAX * 24U)

/* Offsets from the start of a frame: header, command, state. */
#define TW_HEADER_MAGIC 0U
#define TW_HEADER_LENGTH 4U
#define TW_HEADER_COUNTER 8U
#define TW_HEADER_DATA_ID 12U
#define TW_HEADER_SCHEMA 16U
#define TW_HEADER_EPOCH 20U
#define TW_HEADER_SENT_NS 24U
#define TW_COMMAND_CAPTURED_NS 32U
#define TW_COMMAND_VALID_FOR_US 40U
#define TW_COMMAND_FRAME_SEQ 44U
#define TW_COMMAND_CHUNK_ID 48U
#define TW_COMMAND_BUNDLE_HASH 52U
#define TW_COMMAND_ACTION 56U
#define TW_COMMAND_MODE 58U
#define TW_COMMAND_JOINTS 59U
#define TW_COMMAND_VERDICT 60U
#define TW_COMMAND_FLAGS 61U
#define TW_COMMAND_PADDING 62U
/* From where the velocities of a command end. */
#define TW_TOOL_POSITION_M 0U
#define TW_TOOL_ORIENTATION 24U
#define TW_TOOL_VELOCITY_M_S 56U
#define TW_TOOL_ANGULAR_VELOCITY_RAD_S 80U
#define TW_STATE_MEASURED_NS 32U
#define TW_STATE_BOOT_ID 40U
#define TW_STATE_ECHO_COUNTER 48U
#define TW_STATE_ACCEPTED 52U
#define TW_STATE_REJECTED 56U
#define TW_STATE_LIMIT_VIOLATIONS 60U
#define TW_STATE_MOTOR_MODE 64U
#define TW_STATE_LAST_REJECT 65U
#define TW_STATE_JOINTS 66U
#define TW_STATE_HOLDING 67U
#define TW_STATE_TORQUES 68U
#define TW_STATE_PADDING 69U

/* Commands: modes. */
#define TW_KEEP_ALIVE 0U
#define TW_FOLLOW 1U
#define TW_TORQUE_OFF 2U
/* Commands: flags. */
#define TW_UNPROVEN 1U /* the policy misses its parity fixture; a person let it through */
#define TW_HAS_TOOL 2U /* the tool follows the joints */
/* The motor controller: modes. */
#define TW_IDLE 0U
#define TW_FOLLOWING 1U
#define TW_STOPPED 2U
#define TW_TORQUE_IS_OFF 3U
/* Kinds of joints. */
#define TW_REVOLUTE 0U
#define TW_PRISMATIC 1U
#define TW_GRIPPER 2U
/* The stream's health. */
#define TW_INIT 0U
#define TW_VALID 1U
#define TW_INVALID 2U
#define TW_NO_DATA 3U

/* Why a frame was dropped; 0 when it was accepted. */
enum tw_reject {
    TW_OK = 0,
    TW_LENGTH = 1,
    TW_CRC = 2,
    TW_BAD_MAGIC = 3,
    TW_DATA_ID = 4,
    TW_SCHEMA = 5,
    TW_EPOCH = 6,
    TW_REPEATED = 7,
    TW_JUMP = 8,
    TW_EXPIRED = 9,
    TW_NOT_FINITE = 10,
    TW_AWAY_FROM_POSE = 11,
    TW_LIMITS = 12,
    TW_NOT_ARMED = 13,
    TW_TOO_FAST = 14,
    TW_JOINTS = 15,
    TW_MODE = 16,
    TW_BAD_LINK = 17
};

#define TW_MS 1000000ULL
#define TW_COUNTER_DELTA_MAX 1000U
#define TW_RETIRED_MAX 32U
#define TW_GOOD_MIN 3U
#define TW_BAD_SLOTS 4U
#define TW_BAD_WINDOW_NS (1000U * TW_MS)
#define TW_STREAM_SILENCE_NS (200U * TW_MS)
#define TW_SILENCE_NS (20U * TW_MS)
#define TW_START_TOLERANCE 0.05
#define TW_ROUNDING 1e-6

/* ---- bytes ---- */

static inline uint32_t tw_u16(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }
static inline uint32_t tw_u32(const uint8_t *at) { return tw_u16(at) | tw_u16(at + 2) << 16; }
static inline uint64_t tw_u64(const uint8_t *at) { return (uint64_t)tw_u32(at) | (uint64_t)tw_u32(at + 4) << 32; }
static inline void tw_put_u32(uint8_t *at, uint32_t n)
{
    unsigned i;
    for (i = 0; i < 4; i++) at[i] = (uint8_t)(n >> (8 * i));
}
static inline void tw_put_u64(uint8_t *at, uint64_t n)
{
    tw_put_u32(at, (uint32_t)(n & 0xffffffffU));
    tw_put_u32(at + 4, (uint32_t)(n >> 32));
}
static inline double tw_f64(const uint8_t *at)
{
    uint64_t bits = tw_u64(at);
    double number;
    memcpy(&number, &bits, sizeof number);
    return number;
}
static inline void tw_put_f64(uint8_t *at, double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    tw_put_u64(at, bits);
}
/* By the bits: -ffast-math cannot remove it. */
static inline int tw_finite(uint64_t bits) { return (bits >> 52 & 0x7ffU) != 0x7ffU; }

/* CRC-32/AUTOSAR: polynomial 0xF4ACFB13 reflected, four bits at a time. */
static inline uint32_t tw_crc(const uint8_t *bytes, uint32_t length)
{
    static const uint32_t table[16] = {
        0x00000000U, 0x2B2C2BEEU, 0x565857DCU, 0x7D747C32U, 0xACB0AFB8U, 0x879C8456U, 0xFAE8F864U, 0xD1C4D38AU,
        0xC8DF352FU, 0xE3F31EC1U, 0x9E8762F3U, 0xB5AB491DU, 0x646F9A97U, 0x4F43B179U, 0x3237CD4BU, 0x191BE6A5U};
    uint32_t crc = 0xffffffffU, i;
    for (i = 0; i < length; i++) {
        crc = table[(crc ^ bytes[i]) & 15U] ^ crc >> 4;
        crc = table[(crc ^ (uint32_t)(bytes[i] >> 4)) & 15U] ^ crc >> 4;
    }
    return crc ^ 0xffffffffU;
}

/* ---- one command ---- */

struct tw_identity {
    uint32_t data_id, schema;
};

/* Where the joints of a command put one link of the robot, in the base frame; for a controller that takes poses or twists
 * instead of joints. It uses tw_accept on each frame, follows only mode TW_FOLLOW, and stops by itself as docs/wire.md says. */
struct tw_tool {
    double position_m[3];
    double orientation[4]; /* x, y, z, w */
    double velocity_m_s[3];
    double angular_velocity_rad_s[3];
};

struct tw_command {
    uint64_t sent_ns, captured_ns;
    uint32_t counter, epoch, valid_for_us, frame_seq, chunk_id, bundle_hash;
    uint16_t action;
    uint8_t mode, joints, verdict, flags;
    double q[TENDON_WIRE_JOINTS_MAX], v[TENDON_WIRE_JOINTS_MAX];
    struct tw_tool tool; /* if flags has TW_HAS_TOOL; else zero */
};

static inline uint32_t tw_tool_len(const uint8_t *frame)
{
    return (frame[TW_COMMAND_FLAGS] & TW_HAS_TOOL) != 0 ? TW_TOOL_LEN : 0U;
}

/* Length, CRC, magic and version, data id, schema. */
static inline enum tw_reject tw_unseal(struct tw_identity identity, const uint8_t *frame, uint32_t length)
{
    if (length < TW_HEADER_LEN || tw_u32(frame + TW_HEADER_LENGTH) != length || length > TW_COMMAND_LEN_MAX ||
        length < TW_COMMAND_LEN_MIN)
        return TW_LENGTH;
    if (tw_crc(frame, length - 4U) != tw_u32(frame + length - 4U)) return TW_CRC;
    if (tw_u32(frame + TW_HEADER_MAGIC) != TW_MAGIC) return TW_BAD_MAGIC;
    if (tw_u32(frame + TW_HEADER_DATA_ID) != identity.data_id) return TW_DATA_ID;
    if (tw_u32(frame + TW_HEADER_SCHEMA) != identity.schema) return TW_SCHEMA;
    length -= TW_COMMAND_LEN_MIN;
    if (length < tw_tool_len(frame) || (length - tw_tool_len(frame)) % TW_JOINT_LEN != 0) return TW_LENGTH;
    return TW_OK;
}

/* Finiteness, number of joints, mode, of an unsealed frame. */
static inline enum tw_reject tw_read(const uint8_t *frame, uint32_t length, struct tw_command *command)
{
    uint32_t at, i, n = frame[TW_COMMAND_JOINTS], mode = frame[TW_COMMAND_MODE];
    for (at = TW_COMMAND_LEN_MIN - 4U; at < length - 4U; at += 8U)
        if (!tw_finite(tw_u64(frame + at))) return TW_NOT_FINITE;
    if (n > TENDON_WIRE_JOINTS_MAX || length != TW_COMMAND_LEN_MIN + n * TW_JOINT_LEN + tw_tool_len(frame))
        return TW_JOINTS;
    if (mode > TW_TORQUE_OFF) return TW_MODE;
    memset(command, 0, sizeof *command);
    command->counter = tw_u32(frame + TW_HEADER_COUNTER);
    command->epoch = tw_u32(frame + TW_HEADER_EPOCH);
    command->sent_ns = tw_u64(frame + TW_HEADER_SENT_NS);
    command->captured_ns = tw_u64(frame + TW_COMMAND_CAPTURED_NS);
    command->valid_for_us = tw_u32(frame + TW_COMMAND_VALID_FOR_US);
    command->frame_seq = tw_u32(frame + TW_COMMAND_FRAME_SEQ);
    command->chunk_id = tw_u32(frame + TW_COMMAND_CHUNK_ID);
    command->bundle_hash = tw_u32(frame + TW_COMMAND_BUNDLE_HASH);
    command->action = (uint16_t)tw_u16(frame + TW_COMMAND_ACTION);
    command->mode = (uint8_t)mode;
    command->joints = (uint8_t)n;
    command->verdict = frame[TW_COMMAND_VERDICT];
    command->flags = frame[TW_COMMAND_FLAGS];
    for (i = 0; i < n; i++) {
        command->q[i] = tw_f64(frame + TW_COMMAND_LEN_MIN - 4U + 8U * i);
        command->v[i] = tw_f64(frame + TW_COMMAND_LEN_MIN - 4U + 8U * (n + i));
    }
    if (tw_tool_len(frame) != 0) {
        const uint8_t *tool = frame + TW_COMMAND_LEN_MIN - 4U + n * TW_JOINT_LEN;
        for (i = 0; i < 3; i++) {
            command->tool.position_m[i] = tw_f64(tool + TW_TOOL_POSITION_M + 8U * i);
            command->tool.velocity_m_s[i] = tw_f64(tool + TW_TOOL_VELOCITY_M_S + 8U * i);
            command->tool.angular_velocity_rad_s[i] = tw_f64(tool + TW_TOOL_ANGULAR_VELOCITY_RAD_S + 8U * i);
        }
        for (i = 0; i < 4; i++) command->tool.orientation[i] = tw_f64(tool + TW_TOOL_ORIENTATION + 8U * i);
    }
    return TW_OK;
}

static inline enum tw_reject tw_decode(struct tw_identity identity, const uint8_t *frame, uint32_t length,
                                       struct tw_command *command)
{
    enum tw_reject reject = tw_unseal(identity, frame, length);
    return reject != TW_OK ? reject : tw_read(frame, length, command);
}

/* ---- the stream: order, arming, delay, health ---- */

struct tw_receiver {
    struct tw_identity identity;
    uint64_t newest_good_ns, fastest_at_ns, fastest_ahead_ns;
    uint64_t bad_ns[TW_BAD_SLOTS];
    uint32_t retired[TW_RETIRED_MAX];
    uint32_t retired_count, last, epoch, engaged, good, bad_count;
    uint8_t has_last, has_fastest, is_engaged;
};

static inline uint64_t tw_since(uint64_t now, uint64_t earlier) { return now > earlier ? now - earlier : 0; }

static inline uint64_t tw_valid_for_ns(uint32_t valid_for_us)
{
    uint64_t ns = (uint64_t)valid_for_us * 1000U;
    return ns < TW_STREAM_SILENCE_NS ? ns : TW_STREAM_SILENCE_NS;
}

static inline int tw_stream_silent(const struct tw_receiver *r, uint64_t now)
{
    return r->has_last && tw_since(now, r->newest_good_ns) >= TW_STREAM_SILENCE_NS;
}

static inline uint32_t tw_health(const struct tw_receiver *r, uint64_t now)
{
    uint32_t i, recent = 0;
    uint32_t slots = r->bad_count < TW_BAD_SLOTS ? r->bad_count : TW_BAD_SLOTS;
    for (i = 0; i < slots; i++) recent += tw_since(now, r->bad_ns[i]) < TW_BAD_WINDOW_NS;
    if (recent == TW_BAD_SLOTS) return TW_INVALID;
    if (!r->has_last) return TW_INIT;
    if (tw_stream_silent(r, now)) return TW_NO_DATA;
    return r->good >= TW_GOOD_MIN ? TW_VALID : TW_INIT;
}

static inline int tw_is_retired(const struct tw_receiver *r, uint32_t epoch)
{
    uint32_t i, slots = r->retired_count < TW_RETIRED_MAX ? r->retired_count : TW_RETIRED_MAX;
    for (i = 0; i < slots; i++)
        if (r->retired[i] == epoch) return 1;
    return 0;
}

static inline void tw_retire(struct tw_receiver *r, uint32_t epoch)
{
    if (tw_is_retired(r, epoch)) return;
    r->retired[r->retired_count % TW_RETIRED_MAX] = epoch;
    r->retired_count = r->retired_count == 0xffffffffU ? TW_RETIRED_MAX : r->retired_count + 1U;
}

/* Smallest "now minus sent" seen, risen by 1/1024 of the time since for the two clocks' drift. */
static inline uint64_t tw_floor(const struct tw_receiver *r, uint64_t now)
{
    return r->fastest_ahead_ns + (tw_since(now, r->fastest_at_ns) >> 10);
}

static inline enum tw_reject tw_check(const struct tw_receiver *r, uint64_t now, const uint8_t *frame, uint32_t length,
                                      struct tw_command *command, uint32_t *delta)
{
    enum tw_reject reject = tw_unseal(r->identity, frame, length);
    uint32_t epoch, ahead;
    uint64_t late = 0, valid;
    int silent = tw_stream_silent(r, now);
    if (reject != TW_OK) return reject;
    epoch = tw_u32(frame + TW_HEADER_EPOCH);
    if (epoch != 0 && ((r->is_engaged && r->engaged != epoch) || tw_is_retired(r, epoch))) return TW_EPOCH;
    *delta = 1;
    if (r->has_last && !silent && !(epoch != 0 && epoch != r->epoch)) {
        ahead = tw_u32(frame + TW_HEADER_COUNTER) - r->last;
        if (ahead == 0 || ahead > 0x7fffffffU) return TW_REPEATED;
        if (ahead > TW_COUNTER_DELTA_MAX) return TW_JUMP;
        *delta = ahead;
    }
    if (!silent && r->has_fastest) {
        late = now - tw_u64(frame + TW_HEADER_SENT_NS) - tw_floor(r, now);
        if (late >> 63 != 0) late = 0; /* faster than the fastest */
    }
    valid = tw_valid_for_ns(tw_u32(frame + TW_COMMAND_VALID_FOR_US));
    if (valid == 0 || late > valid) return TW_EXPIRED;
    return tw_read(frame, length, command);
}

static inline enum tw_reject tw_accept(struct tw_receiver *r, uint64_t now, const uint8_t *frame, uint32_t length,
                                       struct tw_command *command, uint32_t *delta)
{
    const uint64_t sign = (uint64_t)1 << 63;
    enum tw_reject reject = tw_check(r, now, frame, length, command, delta);
    uint64_t ahead;
    int silent = tw_stream_silent(r, now);
    if (reject != TW_OK) {
        if (reject != TW_REPEATED) { /* networks make duplicates */
            r->bad_ns[r->bad_count % TW_BAD_SLOTS] = now;
            r->bad_count = r->bad_count == 0xffffffffU ? TW_BAD_SLOTS : r->bad_count + 1U;
        }
        return reject;
    }
    if (silent) r->has_fastest = 0;
    ahead = now - command->sent_ns;
    /* Signed comparison, without a signed conversion. */
    if (!r->has_fastest || (ahead ^ sign) < (tw_floor(r, now) ^ sign)) {
        r->fastest_at_ns = now;
        r->fastest_ahead_ns = ahead;
        r->has_fastest = 1;
    }
    r->good = silent ? 1U : r->good + (r->good != 0xffffffffU);
    r->newest_good_ns = now;
    r->last = command->counter;
    r->has_last = 1;
    if (command->epoch != 0 && command->epoch != r->epoch) {
        if (r->epoch != 0) tw_retire(r, r->epoch);
        r->epoch = command->epoch;
    }
    return TW_OK;
}

/* ---- braking: deceleration ramped up and down again ---- */

#define TW_RAMP_S 0.02

struct tw_limits {
    double position_min, position_max, velocity_max, acceleration_max;
};

struct tw_brake {
    double acceleration_max, jerk, deceleration;
};

static inline double tw_max(double a, double b) { return a > b || b != b ? a : b; }
static inline double tw_min(double a, double b) { return a < b || b != b ? a : b; }

static inline double tw_room(const struct tw_limits *l, double q, double v)
{
    return tw_max(v > 0.0 ? l->position_max - q : q - l->position_min, 0.0);
}

static inline double tw_distance(double speed, double acceleration, double jerk)
{
    double time = speed >= acceleration * acceleration / jerk ? speed / acceleration + acceleration / jerk
                                                               : 2.0 * sqrt(speed / jerk);
    return 0.5 * speed * time;
}

static inline int tw_gentle_stop_fits(const struct tw_limits *l, double q, double v)
{
    return tw_distance(fabs(v), l->acceleration_max, l->acceleration_max / TW_RAMP_S) <= tw_room(l, q, v);
}

static inline struct tw_brake tw_brake_begin(const struct tw_limits *l, double q, double v)
{
    struct tw_brake brake;
    double room = tw_room(l, q, v), speed = fabs(v), a = l->acceleration_max, ramp_s;
    brake.acceleration_max = a;
    brake.deceleration = 0.0;
    brake.jerk = a / TW_RAMP_S;
    if (tw_distance(speed, a, brake.jerk) <= room) return brake;
    if (speed * speed <= a * room) {
        brake.jerk = speed * speed * speed / (room * room);
        return brake;
    }
    ramp_s = 2.0 * room / speed - speed / a;
    brake.jerk = ramp_s > 0.0 ? a / ramp_s : -1.0; /* no time for a ramp */
    return brake;
}

static inline double tw_brake_step(struct tw_brake *b, double v, double dt_s)
{
    double speed = fabs(v), out, unit, m, d;
    if (b->jerk < 0.0) {
        out = speed / dt_s;
        d = tw_min(b->acceleration_max, out);
    } else {
        unit = b->jerk * dt_s * dt_s;
        m = tw_max(ceil(0.5 * (sqrt(1.0 + 8.0 * speed / unit) - 1.0)), 1.0);
        out = speed / (m * dt_s) + 0.5 * b->jerk * dt_s * (m - 1.0);
        d = tw_min(tw_min(b->deceleration + b->jerk * dt_s, b->acceleration_max), out);
    }
    b->deceleration = d;
    speed -= d * dt_s;
    if (!(speed > 1e-12)) return 0.0;
    return v < 0.0 ? -speed : speed;
}

/* ---- the motor controller ---- */

struct tw_settings {
    struct tw_identity commands, states;
    uint64_t period_ns, boot_id;
    uint32_t joints;
    uint8_t kind[TENDON_WIRE_JOINTS_MAX];
    struct tw_limits limits[TENDON_WIRE_JOINTS_MAX];
};

struct tw_motor {
    struct tw_settings s;
    struct tw_receiver receiver;
    uint64_t heard_ns, valid_for_ns;
    uint32_t mode, epoch, stopped_epoch, echo_counter, accepted, rejected, limit_violations, reports, last_reject;
    uint8_t braking, has_before, has_velocity;
    uint8_t disarmed_heard; /* a keep-alive has come since the start: whoever armed before it armed another controller */
    /* What the joints are asked for now, and what was last measured. */
    double q[TENDON_WIRE_JOINTS_MAX], v[TENDON_WIRE_JOINTS_MAX], measured[TENDON_WIRE_JOINTS_MAX];
    /* The last followed command and the velocity that it implied. */
    double before[TENDON_WIRE_JOINTS_MAX], implied[TENDON_WIRE_JOINTS_MAX];
    /* The way to the newest command, and the easing at the start of a motion. */
    double from[TENDON_WIRE_JOINTS_MAX], goal[TENDON_WIRE_JOINTS_MAX], beyond[TENDON_WIRE_JOINTS_MAX];
    double offset[TENDON_WIRE_JOINTS_MAX];
    double line_s, line_at_s, easing_s, easing_at_s;
    struct tw_brake brake[TENDON_WIRE_JOINTS_MAX];
};

static inline void tw_line_at(struct tw_motor *m, const double *at)
{
    memcpy(m->from, at, sizeof m->from);
    memcpy(m->goal, at, sizeof m->goal);
    memset(m->beyond, 0, sizeof m->beyond);
    m->line_s = 1.0;
    m->line_at_s = 0.0;
}

static inline void tw_no_easing(struct tw_motor *m)
{
    memset(m->offset, 0, sizeof m->offset);
    m->easing_s = 1.0;
    m->easing_at_s = 1.0;
}

/* At rest at `pose`. The boot id must be another one at each start: from a random source, or a counter in flash. */
static inline void tw_motor_init(struct tw_motor *m, const struct tw_settings *settings, const double *pose)
{
    uint32_t i;
    memset(m, 0, sizeof *m);
    m->s = *settings;
    if (m->s.joints > TENDON_WIRE_JOINTS_MAX) m->s.joints = TENDON_WIRE_JOINTS_MAX;
    for (i = 0; i < m->s.joints; i++) m->q[i] = m->measured[i] = pose[i];
    m->receiver.identity = settings->commands;
    m->mode = TW_IDLE;
    tw_line_at(m, m->q);
    tw_no_easing(m);
}

static inline void tw_set_brakes(struct tw_motor *m)
{
    uint32_t i;
    for (i = 0; i < m->s.joints; i++) m->brake[i] = tw_brake_begin(&m->s.limits[i], m->q[i], m->v[i]);
    m->braking = 1;
}

static inline void tw_leave(struct tw_motor *m, uint32_t mode)
{
    m->mode = mode;
    m->has_before = m->has_velocity = 0;
    m->receiver.is_engaged = 0;
    if (!m->braking) tw_set_brakes(m);
}

static inline void tw_stop(struct tw_motor *m, uint32_t mode)
{
    m->stopped_epoch = m->epoch;
    tw_leave(m, mode);
}

static inline double tw_line_q(const struct tw_motor *m, uint32_t i, double at_s)
{
    double share;
    if (at_s > m->line_s * (1.0 + 1e-9)) return m->goal[i] + m->beyond[i] * (at_s - m->line_s);
    share = tw_min(at_s / m->line_s, 1.0);
    return share >= 1.0 ? m->goal[i] : m->from[i] + (m->goal[i] - m->from[i]) * share;
}

static inline double tw_eased(const struct tw_motor *m, uint32_t i, double at_s)
{
    double x = at_s / m->easing_s;
    return x >= 1.0 ? 0.0 : m->offset[i] * (1.0 - x * x * x * (10.0 + x * (6.0 * x - 15.0)));
}

static inline enum tw_reject tw_follow(struct tw_motor *m, uint64_t now, const struct tw_command *c, uint32_t delta)
{
    double velocity[TENDON_WIRE_JOINTS_MAX];
    double period_s = (double)m->s.period_ns * 1e-9, seconds = period_s * (double)delta, room, a;
    int starts = m->mode != TW_FOLLOWING, outside = 0, fast = 0, hard = 0;
    uint32_t i;
    if (!m->disarmed_heard || c->epoch == 0 || c->epoch == m->stopped_epoch) return TW_NOT_ARMED;
    if (tw_health(&m->receiver, now) == TW_INVALID) return TW_BAD_LINK;
    for (i = 0; starts && i < m->s.joints; i++)
        if (m->s.kind[i] != TW_GRIPPER && fabs(c->q[i] - m->measured[i]) > TW_START_TOLERANCE) return TW_AWAY_FROM_POSE;
    memcpy(velocity, c->v, sizeof velocity);
    for (i = 0; i < m->s.joints; i++) {
        const struct tw_limits *l = &m->s.limits[i];
        room = TW_ROUNDING * (l->position_max - l->position_min);
        outside |= !(c->q[i] >= l->position_min - room && c->q[i] <= l->position_max + room);
        if (m->s.kind[i] == TW_GRIPPER) {
            velocity[i] = 0.0;
            continue;
        }
        velocity[i] = tw_min(tw_max(velocity[i], -l->velocity_max), l->velocity_max);
        if (!m->has_before) continue;
        velocity[i] = (c->q[i] - m->before[i]) / seconds;
        fast |= fabs(velocity[i]) > l->velocity_max * (1.0 + TW_ROUNDING);
        if (delta == 1 && m->has_velocity) {
            a = (velocity[i] - m->implied[i]) / seconds;
            hard |= fabs(a) > l->acceleration_max * (1.0 + TW_ROUNDING);
        }
    }
    m->limit_violations += (uint32_t)(outside | fast | hard);
    if (outside) return TW_LIMITS;
    if (fast) return TW_TOO_FAST;
    m->has_velocity = m->has_before && delta == 1;
    memcpy(m->implied, velocity, sizeof velocity);
    memcpy(m->before, c->q, sizeof m->before);
    m->has_before = 1;
    if (starts) {
        m->easing_s = 0.2;
        m->easing_at_s = 0.0;
        memset(m->offset, 0, sizeof m->offset);
        for (i = 0; i < m->s.joints; i++) {
            const struct tw_limits *l = &m->s.limits[i];
            if (m->s.kind[i] == TW_GRIPPER) continue;
            m->offset[i] = m->q[i] - c->q[i];
            m->easing_s = tw_max(m->easing_s, 1.875 * fabs(m->offset[i]) / (0.5 * l->velocity_max));
            a = sqrt(5.773502691896258 * fabs(m->offset[i]) / (0.5 * l->acceleration_max));
            m->easing_s = tw_max(m->easing_s, a);
        }
        tw_line_at(m, c->q);
        m->mode = TW_FOLLOWING;
        m->epoch = c->epoch;
        m->receiver.engaged = c->epoch;
        m->receiver.is_engaged = 1;
    } else if (m->braking) {
        tw_no_easing(m);
        tw_line_at(m, m->q);
    }
    m->braking = 0;
    for (i = 0; i < m->s.joints; i++) m->from[i] = tw_line_q(m, i, m->line_at_s);
    m->line_s = period_s;
    for (i = 0; i < m->s.joints; i++)
        if (m->s.kind[i] != TW_GRIPPER)
            m->line_s = tw_max(m->line_s, fabs(c->q[i] - m->from[i]) / m->s.limits[i].velocity_max);
    memcpy(m->goal, c->q, sizeof m->goal);
    memcpy(m->beyond, velocity, sizeof m->beyond);
    m->line_at_s = 0.0;
    return TW_OK;
}

static inline enum tw_reject tw_take(struct tw_motor *m, uint64_t now, const uint8_t *frame, uint32_t length)
{
    struct tw_command c;
    uint32_t delta;
    enum tw_reject reject = tw_accept(&m->receiver, now, frame, length, &c, &delta);
    if (reject != TW_OK) return reject;
    if (c.joints != m->s.joints) return TW_JOINTS;
    if (c.mode == TW_FOLLOW) {
        reject = tw_follow(m, now, &c, delta);
        if (reject != TW_OK) return reject;
    } else if (c.mode == TW_TORQUE_OFF) {
        tw_stop(m, TW_TORQUE_IS_OFF);
    } else {
        m->disarmed_heard = 1;
        if (m->mode == TW_FOLLOWING) tw_leave(m, TW_IDLE);
    }
    m->echo_counter = c.counter;
    m->heard_ns = now;
    m->valid_for_ns = tw_valid_for_ns(c.valid_for_us);
    return TW_OK;
}

/* Takes a frame. In the control timer, not in the network task. */
static inline enum tw_reject tw_motor_on_command(struct tw_motor *m, uint64_t now, const uint8_t *frame, uint32_t length)
{
    enum tw_reject reject = tw_take(m, now, frame, length);
    if (reject == TW_OK) {
        m->accepted++;
    } else {
        m->rejected++;
        m->last_reject = (uint32_t)reject;
        if (m->mode == TW_FOLLOWING && tw_health(&m->receiver, now) == TW_INVALID) tw_stop(m, TW_STOPPED);
    }
    return reject;
}

static inline void tw_brake_all(struct tw_motor *m, double dt_s)
{
    uint32_t i;
    for (i = 0; m->braking && i < m->s.joints; i++) {
        if (m->s.kind[i] == TW_GRIPPER) continue;
        m->v[i] = tw_brake_step(&m->brake[i], m->v[i], dt_s);
        m->q[i] += m->v[i] * dt_s;
    }
}

static inline void tw_move_on(struct tw_motor *m, double dt_s)
{
    double q[TENDON_WIRE_JOINTS_MAX], v[TENDON_WIRE_JOINTS_MAX];
    double line_at_s = m->line_at_s + dt_s, easing_at_s = tw_min(m->easing_at_s + dt_s, m->easing_s);
    uint32_t i;
    for (i = 0; i < m->s.joints; i++) {
        if (m->s.kind[i] == TW_GRIPPER) {
            q[i] = m->goal[i];
            v[i] = 0.0;
            continue;
        }
        q[i] = tw_line_q(m, i, line_at_s) + tw_eased(m, i, easing_at_s);
        v[i] = (q[i] - m->q[i]) / dt_s;
        if (line_at_s > m->line_s * (1.0 + 1e-9) && !tw_gentle_stop_fits(&m->s.limits[i], q[i], v[i])) {
            tw_set_brakes(m);
            tw_brake_all(m, dt_s);
            return;
        }
    }
    m->line_at_s = line_at_s;
    m->easing_at_s = easing_at_s;
    memcpy(m->q, q, m->s.joints * sizeof q[0]);
    memcpy(m->v, v, m->s.joints * sizeof v[0]);
}

/* Moves q and v on by `dt_ns`. `now` decides about silence; after a gap pass one step's worth and make up for nothing. */
static inline void tw_motor_step(struct tw_motor *m, uint64_t now, uint64_t dt_ns)
{
    uint64_t patience_ns = 4U * m->s.period_ns > TW_SILENCE_NS ? 4U * m->s.period_ns : TW_SILENCE_NS;
    double dt_s = (double)dt_ns * 1e-9;
    uint32_t i;
    if (patience_ns > m->valid_for_ns) patience_ns = m->valid_for_ns;
    if (m->mode == TW_FOLLOWING && tw_since(now, m->heard_ns) >= patience_ns) tw_stop(m, TW_STOPPED);
    if (dt_ns == 0) return;
    if (m->mode == TW_TORQUE_IS_OFF) {
        memcpy(m->q, m->measured, sizeof m->q);
        memset(m->v, 0, sizeof m->v);
    } else if (m->mode == TW_FOLLOWING && !m->braking) {
        tw_move_on(m, dt_s);
    } else {
        tw_brake_all(m, dt_s);
    }
    for (i = 0; i < m->s.joints; i++)
        m->q[i] = tw_min(tw_max(m->q[i], m->s.limits[i].position_min), m->s.limits[i].position_max);
}

/* Takes a measurement and writes its state frame; returns the length, 0 if the buffer is too small. tau: measured torques
   (Nm) or forces (N), NULL where none are measured. */
static inline uint32_t tw_motor_report(struct tw_motor *m, uint64_t measured_ns, const double *q, const double *v,
                                       const double *tau, int holding, uint8_t *frame, uint32_t size)
{
    uint32_t i, n = m->s.joints, length = TW_STATE_LEN_MIN + n * (tau ? 24U : 16U);
    m->reports++;
    memcpy(m->measured, q, n * sizeof q[0]);
    if (size < length) return 0;
    memset(frame, 0, length);
    tw_put_u32(frame + TW_HEADER_MAGIC, TW_MAGIC);
    tw_put_u32(frame + TW_HEADER_LENGTH, length);
    tw_put_u32(frame + TW_HEADER_COUNTER, m->reports);
    tw_put_u32(frame + TW_HEADER_DATA_ID, m->s.states.data_id);
    tw_put_u32(frame + TW_HEADER_SCHEMA, m->s.states.schema);
    tw_put_u32(frame + TW_HEADER_EPOCH, m->epoch);
    tw_put_u64(frame + TW_HEADER_SENT_NS, measured_ns);
    tw_put_u64(frame + TW_STATE_MEASURED_NS, measured_ns);
    tw_put_u64(frame + TW_STATE_BOOT_ID, m->s.boot_id);
    tw_put_u32(frame + TW_STATE_ECHO_COUNTER, m->echo_counter);
    tw_put_u32(frame + TW_STATE_ACCEPTED, m->accepted);
    tw_put_u32(frame + TW_STATE_REJECTED, m->rejected);
    tw_put_u32(frame + TW_STATE_LIMIT_VIOLATIONS, m->limit_violations);
    frame[TW_STATE_MOTOR_MODE] = (uint8_t)m->mode;
    frame[TW_STATE_LAST_REJECT] = (uint8_t)m->last_reject;
    frame[TW_STATE_JOINTS] = (uint8_t)n;
    frame[TW_STATE_HOLDING] = (uint8_t)(holding != 0);
    frame[TW_STATE_TORQUES] = (uint8_t)(tau != NULL);
    for (i = 0; i < n; i++) {
        tw_put_f64(frame + TW_STATE_LEN_MIN - 4U + 8U * i, q[i]);
        tw_put_f64(frame + TW_STATE_LEN_MIN - 4U + 8U * (n + i), v[i]);
        if (tau) tw_put_f64(frame + TW_STATE_LEN_MIN - 4U + 8U * (2U * n + i), tau[i]);
    }
    tw_put_u32(frame + length - 4U, tw_crc(frame, length - 4U));
    return length;
}

/* ---- between the network task and the control timer: one writer, one reader ---- */

struct tw_mailbox {
    volatile uint32_t put, taken;
    uint32_t length[TENDON_WIRE_MAILBOX];
    uint8_t frame[TENDON_WIRE_MAILBOX][TW_COMMAND_LEN_MAX];
};

/* Network task. Returns 0 when it is full: the frame is dropped, as if the network had lost it. A frame that is too long is
 * kept as an empty one, so that it is refused and counted. */
static inline int tw_mailbox_put(struct tw_mailbox *box, const uint8_t *frame, uint32_t length)
{
    uint32_t put = box->put, slot = put % TENDON_WIRE_MAILBOX;
    if (put - box->taken >= TENDON_WIRE_MAILBOX) return 0;
    box->length[slot] = length > TW_COMMAND_LEN_MAX ? 0 : length;
    memcpy(box->frame[slot], frame, box->length[slot]);
    TENDON_WIRE_BARRIER();
    box->put = put + 1U;
    return 1;
}

/* Control timer: at most TENDON_WIRE_MAILBOX frames, then one step, whether a frame came or not. */
static inline void tw_control(struct tw_motor *m, struct tw_mailbox *box, uint64_t now, uint64_t dt_ns)
{
    uint32_t i, slot;
    for (i = 0; i < TENDON_WIRE_MAILBOX && box->taken != box->put; i++) {
        TENDON_WIRE_BARRIER();
        slot = box->taken % TENDON_WIRE_MAILBOX;
        (void)tw_motor_on_command(m, now, box->frame[slot], box->length[slot]);
        TENDON_WIRE_BARRIER();
        box->taken = box->taken + 1U;
    }
    tw_motor_step(m, now, dt_ns);
}

#endif
