// SPDX-License-Identifier: Apache-2.0
// What an EGL image is between the fake surfaces (tests/capture/fake_nvmm.c) and the fake driver (fake_cuda.c).
struct fake_plane { unsigned char *bytes; int pitch, width, height, channels; };
struct fake_image {
    unsigned magic;
    int tiled;      // planes are arrays, which only textures read; else rows
    int planes;
    int registered; // with the driver, now
    struct fake_plane plane[2];
};
enum { FAKE_IMAGE = 0x1a6e };
