/* SPDX-License-Identifier: Apache-2.0
 * Reads operations on standard input, applies them to the C motor controller, writes what it did to standard output.
 * All numbers little-endian. tests/wire.rs is at the other end.
 *   0  reset: a revolute joint and a gripper at 0
 *   1  frame: u64 now, u16 length, bytes   -> u8 reject, u8 mode, u8 health, u32 counter of the last accepted
 *   2  step: u64 now, u64 dt               -> u8 mode, f64 q[2], f64 v[2]
 *   3  report: u64 now, f64 q[2], f64 v[2] -> u16 length, state frame
 *   6  read alone: as 1                    -> u8 reject, u8 whether a tool was told, then f64[13] if so
 *   4  control loop: as 1 and then 2 with dt 1 ms, through the mailbox -> as 2
 */
#include "tendon_wire.h"
#include <stdio.h>
#include <stdlib.h>

static struct tw_motor motor;
static struct tw_mailbox box;

static void get(uint8_t *into, size_t n)
{
    if (fread(into, 1, n, stdin) != n) exit(3);
}
static void put(const uint8_t *from, size_t n)
{
    if (fwrite(from, 1, n, stdout) != n) exit(4);
}
static uint64_t get_u64(void)
{
    uint8_t b[8];
    get(b, 8);
    return tw_u64(b);
}
static void put_target(void)
{
    uint8_t b[33];
    int i;
    b[0] = (uint8_t)motor.mode;
    for (i = 0; i < 2; i++) {
        tw_put_f64(b + 1 + 8 * i, motor.q[i]);
        tw_put_f64(b + 17 + 8 * i, motor.v[i]);
    }
    put(b, 33);
}
static void reset(void)
{
    static struct tw_settings s;
    double pose[2] = {0.0, 0.0};
    int i;
    memset(&box, 0, sizeof box);
    s.commands.data_id = 1;
    s.commands.schema = 2;
    s.states.data_id = 3;
    s.states.schema = 2;
    s.period_ns = 5 * TW_MS;
    s.boot_id = 5;
    s.joints = 2;
    s.kind[0] = TW_REVOLUTE;
    s.kind[1] = TW_GRIPPER;
    for (i = 0; i < 2; i++) {
        s.limits[i].position_min = -2.0;
        s.limits[i].position_max = 2.0;
        s.limits[i].velocity_max = 2.0;
        s.limits[i].acceleration_max = 10.0;
    }
    tw_motor_init(&motor, &s, pose);
}

int main(void)
{
    int op;
    while ((op = getchar()) != EOF) {
        uint8_t head[7], *frame;
        uint64_t now;
        uint32_t length;
        double q[2], v[2];
        if (op == 0) {
            reset();
            continue;
        }
        now = get_u64();
        if (op == 1 || op == 4 || op == 6) {
            get(head, 2);
            length = tw_u16(head);
            /* Exactly as long as the frame, and at an odd address: the sanitizers see what is read beyond or aligned. */
            frame = malloc(length + 1U);
            if (frame == NULL) return 5;
            get(frame + 1, length);
            if (op == 1) {
                head[0] = (uint8_t)tw_motor_on_command(&motor, now, frame + 1, length);
                head[1] = (uint8_t)motor.mode;
                head[2] = (uint8_t)tw_health(&motor.receiver, now);
                tw_put_u32(head + 3, motor.echo_counter);
                put(head, 7);
            } else if (op == 6) {
                static struct tw_command command;
                double numbers[13];
                uint8_t b[8];
                int i;
                head[0] = (uint8_t)tw_decode(motor.receiver.identity, frame + 1, length, &command);
                head[1] = head[0] == TW_OK && (command.flags & TW_HAS_TOOL) != 0;
                put(head, 2);
                memcpy(numbers, command.tool.position_m, 24);
                memcpy(numbers + 3, command.tool.orientation, 32);
                memcpy(numbers + 7, command.tool.velocity_m_s, 24);
                memcpy(numbers + 10, command.tool.angular_velocity_rad_s, 24);
                for (i = 0; head[1] && i < 13; i++) {
                    tw_put_f64(b, numbers[i]);
                    put(b, 8);
                }
            } else {
                if (!tw_mailbox_put(&box, frame + 1, length)) return 6;
                tw_control(&motor, &box, now, TW_MS);
                put_target();
            }
            free(frame);
        } else if (op == 2) {
            tw_motor_step(&motor, now, get_u64());
            put_target();
        } else if (op == 3 || op == 5) {
            static uint8_t out[TW_STATE_LEN_MAX];
            double tau[2] = {0.0, 0.0};
            uint8_t b[32];
            int i;
            get(b, 32);
            for (i = 0; i < 2; i++) {
                q[i] = tw_f64(b + 8 * i);
                v[i] = tw_f64(b + 16 + 8 * i);
            }
            if (op == 5) {
                get(b, 16);
                for (i = 0; i < 2; i++) tau[i] = tw_f64(b + 8 * i);
            }
            length = tw_motor_report(&motor, now, q, v, op == 5 ? tau : NULL, 1, out, sizeof out);
            head[0] = (uint8_t)length;
            head[1] = (uint8_t)(length >> 8);
            put(head, 2);
            put(out, length);
        } else {
            return 7;
        }
    }
    return 0;
}
